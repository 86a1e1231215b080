package entra

import (
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// bearer is an identity's access token in memory.
type bearer struct {
	mu      sync.Mutex
	token   rotation.Secret
	expires time.Time
	renew   time.Time // refresh_in; zero: not said
	lacks   lacking   // the token does not cover these
}

// current is the token; fresh if it needs no refresh yet.
func (b *bearer) current(now time.Time) (t azcore.AccessToken, fresh bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t = azcore.AccessToken{Token: b.token.Reveal(), ExpiresOn: b.expires, RefreshOn: b.renew}
	early := !b.renew.IsZero() && !now.Before(b.renew)
	return t, t.Token != "" && now.Add(expiryMargin).Before(b.expires) && !early
}

func (b *bearer) set(token rotation.Secret, expires, renew time.Time, lacks lacking) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.token, b.expires, b.renew, b.lacks = token, expires, renew, lacks
}

func (b *bearer) forget() { b.set(rotation.Secret{}, time.Time{}, time.Time{}, lacking{}) }

// isWithout reports whether the token lacks one of the scopes.
func (b *bearer) isWithout(scopes []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(scopes, b.lacks.has)
}

// attempts counts finished refreshes: callers that have waited for the turn
// share the outcome of the one that ended in between.
type attempts struct {
	mu     sync.Mutex
	all    int
	forced int   // of these: with claims
	last   error // outcome of the last one
	void   bool  // last says nothing: somebody has signed in since
}

// count is how many there were; with forced, how many with claims.
func (t *attempts) count(forced bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.countLocked(forced)
}

func (t *attempts) countLocked(forced bool) int {
	if forced {
		return t.forced
	}
	return t.all
}

// since is the outcome of the last one, if any has ended since there were n.
func (t *attempts) since(n int, forced bool) (outcome error, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, !t.void && t.countLocked(forced) != n
}

func (t *attempts) add(forced bool, outcome error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all++
	if forced {
		t.forced++
	}
	t.last, t.void = outcome, false
}

func (t *attempts) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.void = nil, true
}
