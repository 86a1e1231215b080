package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/confirmation"
)

// Keys gives the keys of confirmations, of confirmation.MinKey bytes or more: the first
// makes them, every one of them counts. Every instance of the app needs the same ones.
type Keys interface {
	Keys(ctx context.Context) ([][]byte, error)
}

const (
	// confirmationLife is how long somebody may think it over.
	confirmationLife = 10 * time.Minute
	// confirmationPurpose is what a confirmation of the dashboard is sealed for.
	confirmationPurpose = "dashboard confirmation"
)

// processKey is the key of one process, where no other is configured.
type processKey struct {
	once sync.Once
	key  [confirmation.MinKey]byte
}

func (k *processKey) Keys(context.Context) ([][]byte, error) {
	k.once.Do(func() { _, _ = rand.Read(k.key[:]) }) // never fails
	return [][]byte{k.key[:]}, nil
}

// permission stands for what one caller may do.
func permission(by Caller, what string) confirmation.Digest {
	return sha256.Sum256([]byte(by.Who + "\x00" + by.Session + "\x00" + what))
}

// confirmationFor permits this caller to do what is described, and nothing else.
func (a *API) confirmationFor(ctx context.Context, by Caller, what string) (token string, until time.Time, p *Problem) {
	keys, err := a.Keys.Keys(ctx)
	if err != nil {
		return "", until, a.upstream(ctx, err)
	}
	until = a.Now().Add(confirmationLife).UTC().Truncate(time.Second)
	c := confirmation.Confirmation{Expires: until, Digests: []confirmation.Digest{permission(by, what)}}
	return c.Seal(keys[0], confirmationPurpose), until, nil
}

// checkConfirmation is nil if the token was given to this caller for exactly this, and
// has not expired.
func (a *API) checkConfirmation(ctx context.Context, by Caller, what, token string) *Problem {
	keys, err := a.Keys.Keys(ctx)
	if err != nil {
		return a.upstream(ctx, err)
	}
	c, err := confirmation.Open(keys, confirmationPurpose, token)
	fits := err == nil && len(c.Digests) == 1 && c.Digests[0] == permission(by, what)
	if !fits || c.Expired(a.Now()) {
		return &Problem{Status: http.StatusUnprocessableEntity, Type: typeConfirmation, Title: titleConfirmation,
			Detail: "It has expired, or was given for something else."}
	}
	return nil
}
