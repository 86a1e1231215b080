package reconcile

import (
	"sync"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// bearers remembers who bears the PATs that this process has proved, by owner. All PATs
// of one owner belong to one user.
type bearers struct {
	mu sync.Mutex
	of map[rotation.Owner]string
}

// agrees reports whether a PAT of this owner may have this bearer. The first one that
// is seen decides.
func (b *bearers) agrees(o rotation.Owner, bearer string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, ok := b.of[o]; ok {
		return known == bearer
	}
	if b.of == nil {
		b.of = map[rotation.Owner]string{}
	}
	b.of[o] = bearer
	return true
}
