package reconcile

import (
	"maps"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// notifyInterval is how long a standing failure is not notified again.
const notifyInterval = rotation.Day

// cause is what a failure is told apart by.
type cause struct {
	pat   string
	step  rotation.Step
	class rotation.Class
	code  string
}

// notices remembers which failures this process has published, so that a standing one
// is published once a day. A repeat by another process has the same event id.
type notices struct {
	mu sync.Mutex
	at map[cause]time.Time
}

// due reports whether the failure has not been published for notifyInterval.
func (n *notices) due(c cause, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	last, published := n.at[c]
	return !published || now.Sub(last) >= notifyInterval
}

func (n *notices) add(c cause, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[cause]time.Time{}
	}
	n.at[c] = now
}

// forgetPAT makes the PAT's next failure due at once.
func (n *notices) forgetPAT(pat string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.at, func(c cause, _ time.Time) bool { return c.pat == pat })
}

func (n *notices) prune(before time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.at, func(_ cause, at time.Time) bool { return at.Before(before) })
}
