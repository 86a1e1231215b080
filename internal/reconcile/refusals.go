package reconcile

import (
	"maps"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// refusals remembers which PATs could not be stored: nothing is made for them for a day,
// or until their entry changes, or for a quarter of the time to the current PAT's end if
// that is shorter. It only makes patrol wait: a process that knows nothing of it tries
// once a sweep.
type refusals struct {
	mu    sync.Mutex
	byPAT map[string]rotation.RefusedStore
}

const leastRefusal = 15 * time.Minute

func (r *refusals) add(s rotation.Spec, err *rotation.Error, end, now time.Time) {
	wait := rotation.Day
	if !end.IsZero() {
		wait = min(wait, max(end.Sub(now)/4, leastRefusal))
	}
	r.put(s.Name, rotation.RefusedStore{Until: now.Add(wait), Entry: s.Digest(), Class: err.Class, Code: err.Code,
		Message: err.Message})
}

func (r *refusals) put(pat string, x rotation.RefusedStore) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byPAT == nil {
		r.byPAT = map[string]rotation.RefusedStore{}
	}
	r.byPAT[pat] = x
}

// recall takes over what another process has met.
func (r *refusals) recall(s rotation.Spec, x rotation.RefusedStore) {
	if x.Until.After(r.toKeep(s.Name).Until) {
		r.put(s.Name, x)
	}
}

// toKeep is what other processes should know of a PAT's refusal.
func (r *refusals) toKeep(pat string) rotation.RefusedStore {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byPAT[pat]
}

// of gives the refusal that stands for an entry; nil: none.
func (r *refusals) of(s rotation.Spec, now time.Time) *rotation.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.byPAT[s.Name]
	if !ok || !x.Until.After(now) || x.Entry != s.Digest() {
		delete(r.byPAT, s.Name)
		return nil
	}
	return &rotation.Error{Class: x.Class, Code: x.Code, Message: x.Message, Service: rotation.KeyVault}
}

func (r *refusals) remove(pat string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byPAT, pat)
}

// prune forgets what has run out, also of entries that are gone.
func (r *refusals) prune(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.byPAT, func(_ string, x rotation.RefusedStore) bool { return !x.Until.After(now) })
}
