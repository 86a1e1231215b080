package reconcile

import (
	"maps"
	"slices"
	"strings"
	"sync"

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
	f.byPAT[x.PAT] = x
}

func (f *failures) remove(pat string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.byPAT, pat)
}

// list gives all of them, by name.
func (f *failures) list() []rotation.Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	byName := func(a, b rotation.Failure) int { return strings.Compare(a.PAT, b.PAT) }
	return slices.SortedFunc(maps.Values(f.byPAT), byName)
}
