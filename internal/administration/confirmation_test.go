package administration

import (
	"bytes"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/confirmation"
)

// FuzzConfirmations tries what has a true seal and any digests.
func FuzzConfirmations(f *testing.F) {
	now := time.Unix(1_795_000_000, 0)
	r := &Revocations{keys: [][]byte{bytes.Repeat([]byte{7}, confirmation.MinKey)},
		now: func() time.Time { return now }}
	asked := askedDigest(Request{Organization: "contoso", Identity: "root-bot", Users: []string{"ada@contoso.com"}})
	plan := RevocationPlan{asked: asked, batches: [][]string{{"11111111-2222-3333-4444-555555555555"}}}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 32))
	f.Add(append(asked[:], bytes.Repeat([]byte{0xff}, 40)...))
	f.Fuzz(func(t *testing.T, digests []byte) {
		sealed := confirmation.Confirmation{Expires: now.Add(time.Minute)}
		for len(digests) >= len(asked) {
			sealed.Digests = append(sealed.Digests, confirmation.Digest(digests[:len(asked)]))
			digests = digests[len(asked):]
		}
		c, err := r.open(sealed.Seal(r.keys[0], purpose), asked)
		if err == nil && confirms(c, plan) {
			t.Fatalf("%x confirms what it does not name", sealed.Digests)
		}
	})
}
