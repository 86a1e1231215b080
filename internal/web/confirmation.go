package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Keys gives the key of confirmations, 32 bytes or more: every instance of the app
// needs the same one.
type Keys interface {
	Key(ctx context.Context) ([]byte, error)
}

// confirmationLife is how long somebody may think it over.
const confirmationLife = 10 * time.Minute

// processKey is the key of one process, where no other is configured.
type processKey struct {
	once sync.Once
	key  [32]byte
}

func (k *processKey) Key(context.Context) ([]byte, error) {
	k.once.Do(func() { _, _ = rand.Read(k.key[:]) }) // never fails
	return k.key[:], nil
}

// Confirmation permits this caller to do what is named, and nothing else.
func (a *API) Confirmation(ctx context.Context, by Caller, what string) (Confirmation, *Problem) {
	until := a.Now().Add(confirmationLife).UTC().Truncate(time.Second)
	end := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	sum, p := a.seal(ctx, by, what, end)
	if p != nil {
		return Confirmation{}, p
	}
	return Confirmation{Token: base64.RawURLEncoding.EncodeToString(append(end, sum...)), Until: until}, nil
}

// Confirmed is nil if the token was given to this caller for exactly this, and its
// time has not run out.
func (a *API) Confirmed(ctx context.Context, by Caller, what, token string) *Problem {
	wrong := &Problem{Status: http.StatusUnprocessableEntity, Type: "confirmation",
		Title:  "The confirmation does not fit",
		Detail: "It is too old, or belongs to something else: ask again."}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return wrong
	}
	sum, p := a.seal(ctx, by, what, b[:8])
	switch {
	case p != nil:
		return p
	case !hmac.Equal(sum, b[8:]) || !a.Now().Before(time.Unix(int64(binary.BigEndian.Uint64(b[:8])), 0)):
		return wrong
	}
	return nil
}

func (a *API) seal(ctx context.Context, by Caller, what string, end []byte) ([]byte, *Problem) {
	key, err := a.Keys.Key(ctx)
	if err != nil {
		return nil, a.upstream(ctx, err)
	}
	h := hmac.New(sha256.New, key)
	// this key may serve other ends
	h.Write([]byte(strings.Join([]string{"patrol confirmation", by.Who, what, ""}, "\x00")))
	h.Write(end)
	return h.Sum(nil), nil
}
