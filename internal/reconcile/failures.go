package reconcile

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// failures holds the last failure of each PAT that has not come to rest since.
type failures struct {
	mu    sync.Mutex
	byPAT map[string]rotation.Failure
}

func (f *failures) add(x rotation.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byPAT == nil {
		f.byPAT = map[string]rotation.Failure{}
	}
	x.Since = x.At
	if before, failed := f.byPAT[strings.ToLower(x.PAT)]; failed {
		x.Since = before.Since
	}
	f.byPAT[strings.ToLower(x.PAT)] = x
}

// recall takes over what another process has seen, unless this one knows better.
func (f *failures) recall(x rotation.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, failed := f.byPAT[strings.ToLower(x.PAT)]
	if x.At.IsZero() || failed && !x.At.After(before.At) {
		return
	}
	if f.byPAT == nil {
		f.byPAT = map[string]rotation.Failure{}
	}
	f.byPAT[strings.ToLower(x.PAT)] = x
}

// retryAt notes when the PAT is tried again; zero: not before something changes.
func (f *failures) retryAt(pat string, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x, failed := f.byPAT[strings.ToLower(pat)]; failed {
		x.RetryAt = at
		f.byPAT[strings.ToLower(pat)] = x
	}
}

// of is a PAT's failure; the zero value: it does not fail.
func (f *failures) of(pat string) rotation.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byPAT[strings.ToLower(pat)]
}

func (f *failures) remove(pat string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byPAT, strings.ToLower(pat))
}

// list gives all of them, by name.
func (f *failures) list() []rotation.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	byName := func(a, b rotation.Failure) int { return strings.Compare(a.PAT, b.PAT) }
	return slices.SortedFunc(maps.Values(f.byPAT), byName)
}
