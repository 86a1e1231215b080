package reconcile

import (
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// refusals remembers which PATs could not be stored: nothing is made for them for a day,
// or until their entry changes, or for a quarter of the time to the current PAT's end if
// that is shorter. It only makes patrol wait: a new process tries once a sweep.
type refusals struct {
	mu    sync.Mutex
	byPAT map[string]refusedStore
}

type refusedStore struct {
	until time.Time
	spec  rotation.Spec
	err   *rotation.Error
}

const leastRefusal = 15 * time.Minute

func (r *refusals) add(s rotation.Spec, err *rotation.Error, end, now time.Time) {
	wait := rotation.Day
	if !end.IsZero() {
		wait = min(wait, max(end.Sub(now)/4, leastRefusal))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byPAT == nil {
		r.byPAT = map[string]refusedStore{}
	}
	r.byPAT[s.Name] = refusedStore{until: now.Add(wait), spec: s, err: err}
}

// of gives the refusal that stands for an entry; nil: none.
func (r *refusals) of(s rotation.Spec, now time.Time) *rotation.Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.byPAT[s.Name]
	if !ok || !x.until.After(now) || !x.spec.Equal(s) {
		delete(r.byPAT, s.Name)
		return nil
	}
	return x.err
}

func (r *refusals) remove(pat string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byPAT, pat)
}
