package web

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
)

// ActStore keeps the answers to requests with an idempotency key beyond this process. It
// is best effort: without it a key is known where it was used.
type ActStore interface {
	// ClaimAct takes a key for an act, and gives it as it is kept. If another act has the
	// key, ours is false, and the other one is given.
	ClaimAct(ctx context.Context, a KeptAct) (kept KeptAct, ours bool, err error)
	// FinishAct keeps the answer of an act that was claimed.
	FinishAct(ctx context.Context, a KeptAct) error
	// DropAct frees the key of an act that has failed.
	DropAct(ctx context.Context, a KeptAct) error
}

// KeptAct is a request with an idempotency key.
type KeptAct struct {
	Operation string // the key's digest, with whoever sent it
	Asked     string // a digest of what was asked for
	Answer    json.RawMessage
	Expires   time.Time
	// Claim is the store's mark of who has claimed it.
	Claim string
}

// claimLife is how long an act without an answer holds its key: its process may have ended.
const claimLife = time.Minute

// claim takes an act's key in the store, before it is carried out. Where the store cannot
// say whose it is, the act is carried out, as without a store; the zero value then.
func (a *API) claim(ctx context.Context, s *slot, asked request, operation string) (KeptAct, *Problem) {
	if s == nil || a.Acts == nil || !asked.kept {
		return KeptAct{}, nil
	}
	own := KeptAct{Operation: operation, Asked: hex.EncodeToString(s.asked[:]), Expires: a.Now().Add(claimLife)}
	var kept KeptAct
	ours := false
	err := panics.Held(func() (err error) {
		kept, ours, err = a.Acts.ClaimAct(ctx, own)
		return err
	})
	switch {
	case err != nil:
		return KeptAct{}, nil
	case !ours && kept.Asked != own.Asked:
		return KeptAct{}, keyReused()
	case !ours && kept.Answer == nil:
		return KeptAct{}, underWay()
	}
	return kept, nil
}

// finish keeps the answer of an act that was claimed, or frees its key.
func (a *API) finish(ctx context.Context, claimed KeptAct, answer any, ok bool) {
	if claimed.Claim == "" {
		return
	}
	b, err := json.Marshal(answer)
	if err != nil {
		ok = false
	}
	claimed.Answer, claimed.Expires = b, a.Now().Add(answerAge)
	// What fails here leaves the key free in a minute: the act is then done again, or found.
	_ = panics.Held(func() error {
		if !ok {
			return a.Acts.DropAct(ctx, claimed)
		}
		return a.Acts.FinishAct(ctx, claimed)
	})
}

// isAnswered reads the answer of an act that was carried out before, if there is one.
func (k KeptAct) isAnswered(out any) bool {
	return k.Answer != nil && json.Unmarshal(k.Answer, out) == nil
}

func keyReused() *Problem {
	return &Problem{Status: http.StatusUnprocessableEntity, Type: typeKeyReused,
		Title: "This Idempotency-Key belongs to another request",
		Detail: "It was sent with another function, target or body before. " +
			"Send a new key with each new request."}
}

func underWay() *Problem {
	return &Problem{Status: http.StatusServiceUnavailable, Type: typeBusy,
		Title: "The same request is being carried out", Detail: "Send it again in a few seconds.",
		retryAfter: 5}
}
