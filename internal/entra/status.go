package entra

import (
	"context"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Status is how an identity's sign-in stands.
type Status struct {
	Identity string
	User     string
	UserID   string // object id of who has signed in; empty: not known
	// Renamed is the user's name of today, if the manifest still has the one before.
	// Everything goes on; the manifest should follow.
	Renamed  string
	SignedIn time.Time // zero: nobody has signed in
	Until    time.Time // the refresh token's end, unless it is used before
	Required bool      // a person must sign in
	// Code is why: AADSTS700082, not-signed-in, wrong-user. Without Required, the
	// sign-in can't be used for another reason at the moment.
	Code       string
	Class      rotation.Class
	Cause      Cause     // what Code means
	Since      time.Time // since when it is required
	Message    string    // plain words
	SignInLink string
}

// Status says how an identity's sign-in stands. It asks the vault at most once
// a minute, and never Entra.
func (c *Client) Status(ctx context.Context, identity string) (Status, error) {
	a, err := c.account(identity)
	if err != nil {
		return Status{}, err
	}
	if s, readAt := a.published.view(); a.isOld(readAt) {
		err := a.rereadInTurn(ctx)
		if err != nil && readAt.IsZero() {
			return Status{}, err
		}
		if err != nil {
			return s, nil // the vault can't be reached: what was known stays
		}
	}
	s, _ := a.published.view()
	return s, nil
}

// User is the object id of the user who has signed in as an identity; empty: not known
// to this process yet. It calls nobody.
func (c *Client) User(identity string) string {
	a, err := c.account(identity)
	if err != nil {
		return ""
	}
	s, _ := a.published.view()
	return s.UserID
}

// isOld says that what was read of the vault at readAt should be read again.
func (a *account) isOld(readAt time.Time) bool {
	return readAt.IsZero() || a.client.cfg.Now().Sub(readAt) >= rereadEvery
}

// published is what others may see of an account without waiting for its turn.
type published struct {
	mu      sync.Mutex
	status  Status
	readAt  time.Time // of the vault
	storeAt time.Time // zero: nothing to store again
	claims  string    // what the next sign-in must satisfy
}

func (p *published) view() (s Status, readAt time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.readAt
}

// storeDue says that a refresh token which could not be stored waits for it.
func (p *published) storeDue(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.storeAt.IsZero() && !now.Before(p.storeAt)
}

func (p *published) nextClaims() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.claims
}

func (p *published) set(s Status, readAt, storeAt time.Time, claims string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.readAt, p.storeAt, p.claims = s, readAt, storeAt, claims
}

// publish shows how the account stands. Whoever has had the turn ends with it.
func (a *account) publish() {
	if !a.stored.wasRead() {
		return
	}
	s := Status{Identity: a.name, User: a.user, UserID: printable(a.stored.tags[tagUserID]), Renamed: a.state.renamed,
		SignInLink: a.client.SignInLink(a.name)}
	if at, err := time.Parse(time.RFC3339, a.stored.tags[tagSignedInAt]); err == nil {
		s.SignedIn = at
	}
	if a.stored.version != "" {
		s.Until = latest(a.state.used, a.stored.created).Add(refreshTokenLife)
	}
	if r := a.state.required; r != nil {
		s.Required, s.Since = true, r.since
		s.Code, s.Message, s.Cause, s.Class = r.code, r.err.Message, causeOf(r.err), rotation.SignIn
	} else if e := rotation.AsError(a.state.paused); e != nil {
		s.Code, s.Message, s.Cause, s.Class = e.Code, e.Message, causeOf(e), e.Class
	}
	var storeAt time.Time
	if a.state.newer {
		storeAt = a.state.storeAgain
	}
	a.published.set(s, a.stored.readAt, storeAt, a.state.claims)
}
