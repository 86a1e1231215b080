package reconcile

import (
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// markDays are the days before its end at which an unmanaged PAT is notified.
var markDays = [...]int{14, 7, 1}

// marks holds the owners of whose unmanaged PATs not every mark has been notified, with
// the time up to which they have been. The next sweep makes up for it; a repeat by a
// process that does not know has the same event ids.
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

// keep notes how a sweep went for an owner: done, or behind since the sweep before. It
// says whether that is news.
func (m *marks) keep(o rotation.Owner, done bool, last time.Time) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, behind := m.behind[o]
	if done {
		delete(m.behind, o)
		return behind
	}
	if m.behind == nil {
		m.behind = map[rotation.Owner]time.Time{}
	}
	if !behind {
		m.behind[o] = last
	}
	return !behind
}

// recall takes over what earlier processes were behind with.
func (m *marks) recall(all []rotation.BehindMarks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range all {
		since, behind := m.behind[b.Owner]
		if m.behind == nil {
			m.behind = map[rotation.Owner]time.Time{}
		}
		if !behind || b.Since.Before(since) {
			m.behind[b.Owner] = b.Since
		}
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

// pausedFrom is how long before its end a paused PAT is notified every day.
const pausedFrom = 14 * rotation.Day

// postponed is the event of a PAT that the calendar has begun to hold back since the last
// sweep, and of a paused one daily before its end; nil: there is none.
func postponed(item *rotation.Item, last, now time.Time) *rotation.PostponedPAT {
	if item.Current == nil || item.Postponed.Reason == "" {
		return nil
	}
	if last.IsZero() {
		last = now.Add(-rotation.Day)
	}
	validTo := item.Ends
	if validTo.IsZero() {
		validTo = item.Current.Expires
	}
	left := validTo.Sub(now)
	isPaused := item.Postponed.Until.IsZero()
	isDueNow := item.Due.After(last) && !item.Due.After(now)
	begins := item.State == rotation.StatePostponed && isDueNow && !isPaused
	isAnotherDay := left/rotation.Day != validTo.Sub(last)/rotation.Day
	isReminded := isPaused && left > 0 && left <= pausedFrom && isAnotherDay
	if !begins && !isReminded {
		return nil
	}
	return &rotation.PostponedPAT{Spec: item.Spec, AuthorizationID: item.Current.Ledger.AuthorizationID,
		Postponement: item.Postponed, ValidTo: validTo, At: now}
}
