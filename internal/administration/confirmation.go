package administration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	confirmationFormat = 1
	minKey             = 32
	// maxConfirmation is far more than the largest plan needs.
	maxConfirmation = 64 << 10
)

type digest [sha256.Size]byte

// confirmation is what a confirmation token says: until when, what was asked, and
// the digest of each batch of authorization ids. It names no id itself.
//
// A batch has a digest of its own so that a repeat after a partial failure still
// fits: what is left then is whole batches that were confirmed.
type confirmation struct {
	expires time.Time
	asked   digest
	batches []digest
}

// confirms reports whether every one of the batches was confirmed.
func (c confirmation) confirms(asked digest, batches [][]string) bool {
	if c.asked != asked {
		return false
	}
	for _, b := range batches {
		if !slices.Contains(c.batches, batchDigest(asked, b)) {
			return false
		}
	}
	return true
}

// seal writes a confirmation with its HMAC.
func (c confirmation) seal(key []byte) string {
	b := []byte{confirmationFormat}
	b = binary.BigEndian.AppendUint64(b, uint64(c.expires.Unix()))
	b = append(b, c.asked[:]...)
	for _, d := range c.batches {
		b = append(b, d[:]...)
	}
	return base64.RawURLEncoding.EncodeToString(append(b, mac(key, b)...))
}

var errNotOurs = errors.New("not a confirmation of this patrol")

// open reads a confirmation that seal has made with the same key.
func open(key []byte, token string) (confirmation, error) {
	if len(token) > maxConfirmation {
		return confirmation{}, errNotOurs
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	const head = 1 + 8 + sha256.Size
	if err != nil || len(b) < head+sha256.Size || (len(b)-head)%sha256.Size != 0 {
		return confirmation{}, errNotOurs
	}
	said, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(sum, mac(key, said)) || said[0] != confirmationFormat {
		return confirmation{}, errNotOurs
	}
	c := confirmation{expires: time.Unix(int64(binary.BigEndian.Uint64(said[1:9])), 0), asked: digest(said[9:head])}
	for rest := said[head:]; len(rest) > 0; rest = rest[sha256.Size:] {
		c.batches = append(c.batches, digest(rest[:sha256.Size]))
	}
	return c, nil
}

func mac(key, said []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("patrol revocation confirmation\n")) // this key may serve other ends
	h.Write(said)
	return h.Sum(nil)
}

// askedDigest stands for what was asked: where, by which administrator, for whom,
// and with which rule. JSON keeps the parts apart.
func askedDigest(r Request) digest {
	var rule any
	if r.Rule != nil {
		rule = []any{r.Rule.Scopes, r.Rule.CreatedBefore.Format(time.RFC3339Nano)}
	}
	b, err := json.Marshal([]any{strings.ToLower(r.Organization), r.Identity, r.Users, r.KeepManaged, rule})
	if err != nil {
		panic(err) // strings, a bool: they can always be written
	}
	return sha256.Sum256(b)
}

func batchDigest(asked digest, ids []string) digest {
	h := sha256.New()
	h.Write(asked[:])
	for _, id := range ids {
		h.Write([]byte(id + "\n"))
	}
	return digest(h.Sum(nil))
}

// refuse makes an error that no repeat mends.
func refuse(code, message string) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: code, Message: message}
}
