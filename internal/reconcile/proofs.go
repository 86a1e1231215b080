package reconcile

import (
	"maps"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// proofs remembers for a day which PATs in force the organization has accepted and which
// it has refused. If it refuses all of an owner's, the trouble is not the PATs': a new
// one would be refused too.
type proofs struct {
	mu sync.Mutex
	of map[rotation.Owner]map[string]proof // by PAT
}

type proof struct {
	at      time.Time
	refused bool
}

func (p *proofs) add(o rotation.Owner, pat string, refused bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[rotation.Owner]map[string]proof{}
	}
	if p.of[o] == nil {
		p.of[o] = map[string]proof{}
	}
	p.of[o][pat] = proof{at: now, refused: refused}
}

// count is how many of the owner's PATs were tried.
func (p *proofs) count(o rotation.Owner) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of[o])
}

// allRefused reports whether every PAT of the owner that was tried within a day was
// refused. One alone says nothing of the others.
func (p *proofs) allRefused(o rotation.Owner, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.of[o], func(_ string, x proof) bool { return now.Sub(x.at) > rotation.Day })
	refused := 0
	for _, x := range p.of[o] {
		if x.refused {
			refused++
		}
	}
	return refused > 1 && refused == len(p.of[o])
}
