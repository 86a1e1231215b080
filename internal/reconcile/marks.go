package reconcile

import (
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// markDays are the days before its end at which an unmanaged PAT is notified.
var markDays = [...]int{14, 7, 1}

// marks holds the owners of whose unmanaged PATs not every mark has been notified, with
// the time up to which they have been. The next sweep of this process makes up for it;
// a repeat by another process has the same event ids.
type marks struct {
	mu     sync.Mutex
	behind map[rotation.Owner]time.Time
}

// notifiedUpTo is the time up to which an owner's marks have been notified: that of the
// last sweep, or of the last one that could list the owner's PATs and publish.
func (m *marks) notifiedUpTo(o rotation.Owner, last time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if since, ok := m.behind[o]; ok {
		return since
	}
	return last
}

// keep notes how a sweep went for an owner: done, or behind since the sweep before.
func (m *marks) keep(o rotation.Owner, done bool, last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if done {
		delete(m.behind, o)
		return
	}
	if m.behind == nil {
		m.behind = map[rotation.Owner]time.Time{}
	}
	if _, behind := m.behind[o]; !behind {
		m.behind[o] = last
	}
}

// crossedMark is the smallest mark (in days before its end) that an unmanaged PAT has
// passed since the last sweep; 0 if none. Without a last sweep the day before counts, so
// that a new deployment does not notify marks long past.
func crossedMark(validTo, last, now time.Time) int {
	if !validTo.After(now) {
		return 0
	}
	if last.IsZero() || now.Sub(last) > 14*rotation.Day {
		last = now.Add(-rotation.Day)
	}
	crossed := 0
	for _, days := range markDays {
		mark := validTo.Add(-time.Duration(days) * rotation.Day)
		if mark.After(last) && !mark.After(now) {
			crossed = days
		}
	}
	return crossed
}
