package administration

import (
	"bytes"
	"encoding/base64"
	"testing"
	"time"
)

func FuzzConfirmations(f *testing.F) {
	key := bytes.Repeat([]byte{7}, minKey)
	ours := confirmation{expires: time.Unix(1_795_000_000, 0), asked: digest{1}, batches: []digest{{2}, {3}}}.seal(key)
	f.Add(ours)
	f.Add(confirmation{}.seal(bytes.Repeat([]byte{8}, minKey)))
	f.Add(ours[:len(ours)-4])
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := open(key, token)
		if err != nil {
			return
		}
		// What opens was sealed with the key: nothing else comes out again.
		if again := c.seal(key); again != token {
			t.Fatalf("%q opened, and sealed again is %q", token, again)
		}
	})
}

// FuzzSealed tries what has a true seal and any content.
func FuzzSealed(f *testing.F) {
	key := bytes.Repeat([]byte{7}, minKey)
	f.Add([]byte{confirmationFormat})
	f.Add(bytes.Repeat([]byte{confirmationFormat}, 41))
	f.Add(bytes.Repeat([]byte{0xff}, 73))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, err := open(key, base64.RawURLEncoding.EncodeToString(append(bytes.Clone(said), mac(key, said)...)))
		if err == nil && c.confirms(c.asked, [][]string{{"11111111-2222-3333-4444-555555555555"}}) {
			t.Fatalf("%x confirms what it does not name", said)
		}
	})
}
