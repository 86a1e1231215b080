package administration

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/confirmation"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// purpose is what a confirmation of this package is sealed for. Its first digest is
// that of the request; each other one is that of a batch of authorization ids. It names
// no id itself.
//
// A batch has a digest of its own so that a repeat after a partial failure still
// fits: what is left then is whole batches that were confirmed.
const purpose = "revocation confirmation"

// seal writes the confirmation of a plan.
func (r *Revocations) seal(p RevocationPlan, expires time.Time) string {
	c := confirmation.Confirmation{Expires: expires, Digests: []confirmation.Digest{p.asked}}
	for _, batch := range p.batches {
		c.Digests = append(c.Digests, batchDigest(p.asked, batch))
	}
	return c.Seal(r.keys[0], purpose)
}

// open reads a confirmation and refuses one that was not given for this request.
func (r *Revocations) open(token string, asked confirmation.Digest) (confirmation.Confirmation, error) {
	if token == "" {
		return confirmation.Confirmation{}, refuse(ConfirmationMissing,
			"the confirmation is missing: ask for the plan, and send its confirmation along")
	}
	c, err := confirmation.Open(r.keys, purpose, token)
	switch {
	case err != nil || len(c.Digests) == 0:
		return c, refuse(ConfirmationInvalid, "this app has not given the confirmation: ask for the plan again")
	case c.Expired(r.now()):
		return c, refuse(ConfirmationExpired, "the confirmation has expired: ask for the plan again")
	case c.Digests[0] != asked:
		return c, refuse(ConfirmationInvalid, "the confirmation belongs to another request: ask for the plan again")
	}
	return c, nil
}

// confirms reports whether every batch of a plan was confirmed.
func confirms(c confirmation.Confirmation, p RevocationPlan) bool {
	for _, batch := range p.batches {
		if !slices.Contains(c.Digests[1:], batchDigest(p.asked, batch)) {
			return false
		}
	}
	return true
}

// askedDigest stands for what was asked: where, by which administrator, for whom,
// and with which rule. JSON keeps the parts apart.
func askedDigest(r Request) confirmation.Digest {
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

func batchDigest(asked confirmation.Digest, ids []string) confirmation.Digest {
	h := sha256.New()
	h.Write(asked[:])
	for _, id := range ids {
		h.Write([]byte(id + "\n"))
	}
	return confirmation.Digest(h.Sum(nil))
}

// refuse makes an error that no repeat mends.
func refuse(code, message string) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: code, Message: message}
}
