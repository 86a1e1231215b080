package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"strings"
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

// stepLate is what a late switch-over is remembered by.
const stepLate rotation.Step = "switch-late"

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

// recall takes over what another process has published.
func (n *notices) recall(c cause, at time.Time) {
	n.mu.Lock()
	known := n.at[c]
	n.mu.Unlock()
	if at.After(known) {
		n.add(c, at)
	}
}

// of is what was published of a PAT, by its code.
func (n *notices) of(pat string) []rotation.NotifiedFailure {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []rotation.NotifiedFailure
	for c, at := range n.at {
		if c.pat == pat {
			out = append(out, rotation.NotifiedFailure{Step: c.step, Class: c.class, Code: c.code, At: at})
		}
	}
	slices.SortFunc(out, func(a, b rotation.NotifiedFailure) int {
		return cmp.Or(strings.Compare(a.Code, b.Code), strings.Compare(string(a.Step), string(b.Step)))
	})
	return out
}

// forgetPAT makes the PAT's next failure due at once. A late switch-over is no failure:
// it is told once a day, whatever else comes to rest.
func (n *notices) forgetPAT(pat string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.at, func(c cause, _ time.Time) bool { return c.pat == pat && c.step != stepLate })
}

func (n *notices) prune(before time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.at, func(_ cause, at time.Time) bool { return at.Before(before) })
}
