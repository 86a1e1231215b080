// Package confirmation makes the tokens by which a person confirms what was shown
// before: an action on the dashboard, an administrator's plan of revocations. A token
// names what it permits by digests, ends at a time, and is sealed with a key that
// every instance of the app has.
//
// It must not know what is confirmed, who asks, HTTP, or where the key comes from.
package confirmation

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

const (
	// MinKey is how long a key must be, in bytes.
	MinKey = 32
	// maxToken is far more than the largest plan needs.
	maxToken = 64 << 10

	format   = 1
	headSize = 1 + 8
)

// Digest stands for one thing that is permitted.
type Digest [sha256.Size]byte

// Confirmation permits what its digests stand for, until it expires.
type Confirmation struct {
	Expires time.Time // a token keeps whole seconds
	Digests []Digest
}

// ErrInvalid is given for a token that was not sealed with this key for this purpose.
var ErrInvalid = errors.New("not a confirmation of this app")

// Seal writes a confirmation for a purpose as a token. A purpose is a constant text of
// one line; the same one must be named to open the token.
func (c Confirmation) Seal(key []byte, purpose string) string {
	said := []byte{format}
	said = binary.BigEndian.AppendUint64(said, uint64(c.Expires.Unix()))
	for _, d := range c.Digests {
		said = append(said, d[:]...)
	}
	return encode(said, mac(key, purpose, said))
}

// Open reads what Seal has written with one of the keys: the one before counts as well
// while it is kept. The error is ErrInvalid; whether the confirmation has expired is the
// caller's question.
func Open(keys [][]byte, purpose, token string) (Confirmation, error) {
	if len(token) > maxToken {
		return Confirmation{}, ErrInvalid
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < headSize+sha256.Size || (len(b)-headSize)%sha256.Size != 0 {
		return Confirmation{}, ErrInvalid
	}
	said, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	made := slices.ContainsFunc(keys, func(key []byte) bool { return hmac.Equal(sum, mac(key, purpose, said)) })
	if !made || said[0] != format {
		return Confirmation{}, ErrInvalid
	}
	c := Confirmation{Expires: time.Unix(int64(binary.BigEndian.Uint64(said[1:headSize])), 0)}
	for rest := said[headSize:]; len(rest) > 0; rest = rest[sha256.Size:] {
		c.Digests = append(c.Digests, Digest(rest[:sha256.Size]))
	}
	return c, nil
}

// Expired reports whether a confirmation has come too late.
func (c Confirmation) Expired(now time.Time) bool { return !now.Before(c.Expires) }

func encode(said, sum []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(said, sum...))
}

// mac names the purpose: the same key may serve several.
func mac(key []byte, purpose string, said []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("patrol " + purpose + "\n"))
	h.Write(said)
	return h.Sum(nil)
}
