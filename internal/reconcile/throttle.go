package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// throttle is how fast an identity's PATs are rotated while Azure DevOps slows it down.
//
// All that waits must not come back at the moment when the pause ends: most of it would
// only be postponed again, and be in the way of other identities meanwhile. So what is
// postponed is spread, a little closer together than what this process got through in
// the last window of Azure DevOps' budget. How many processes there are need not be
// known: each one's own share shows in that.
type throttle struct {
	until    time.Time   // nothing before
	recent   []time.Time // rotations of the last window
	interval time.Duration
	next     time.Time // when the last one that was postponed comes back
}

const (
	leastPause    = 5 * time.Second
	firstInterval = time.Second
	lastInterval  = 20 * time.Second
	// window is the time in which Azure DevOps counts what an identity uses.
	window = 5 * time.Minute
	// headroom is how much closer together than before postponed commands come back:
	// they come in for the time that others have left unused.
	headroom = 0.6
	// maxSpread is how far ahead of the pause's end a command is postponed.
	maxSpread = time.Hour
)

// throttles holds the throttle of each identity.
type throttles struct {
	mu         sync.Mutex
	byIdentity map[string]*throttle
}

// of finds the identity's; the lock is held.
func (t *throttles) of(identity string) *throttle {
	if t.byIdentity == nil {
		t.byIdentity = map[string]*throttle{}
	}
	x := t.byIdentity[identity]
	if x == nil {
		x = &throttle{interval: firstInterval}
		t.byIdentity[identity] = x
	}
	return x
}

// pause stops the identity's rotations for a time that Azure DevOps asked for.
func (t *throttles) pause(identity string, after time.Duration, now time.Time) {
	until := now.Add(max(after, leastPause))
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.of(identity)
	isAnotherRefusalOfOnePause := !now.After(x.until)
	if !isAnotherRefusalOfOnePause {
		x.widen(now)
	}
	if until.After(x.until) {
		x.until = until
	}
}

// widen sets the interval by what came through in the last window.
func (x *throttle) widen(now time.Time) {
	x.forgetBefore(now.Add(-window))
	if n := len(x.recent); n > 0 {
		x.interval = time.Duration(headroom * float64(window) / float64(n))
	} else {
		x.interval *= 2 // the others leave nothing to this process
	}
	x.interval = min(x.interval, lastInterval)
}

// state reports whether the identity is to rest, and whether it was to at some time
// within the last window.
func (t *throttles) state(identity string, now time.Time) (paused, slowed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.byIdentity[identity]
	if x == nil {
		return false, false
	}
	return x.until.After(now), x.until.Add(window).After(now)
}

func (t *throttles) countRotation(identity string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.of(identity)
	x.forgetBefore(now.Add(-window))
	x.recent = append(x.recent, now)
}

func (x *throttle) forgetBefore(limit time.Time) {
	x.recent = slices.DeleteFunc(x.recent, func(at time.Time) bool { return at.Before(limit) })
}

// slot is when a postponed command comes back, and the time over which it may be
// spread from there. What somebody has ordered comes back first.
func (t *throttles) slot(identity string, ordered bool) (at time.Time, spread time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.of(identity)
	if ordered {
		return x.until, 2 * leastPause
	}
	if x.next.Before(x.until) || x.next.After(x.until.Add(maxSpread)) {
		x.next = x.until
	}
	x.next = x.next.Add(x.interval)
	return x.next, x.interval
}

func (t *throttles) prune(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.byIdentity, func(_ string, x *throttle) bool {
		return x.until.Before(before) && len(x.recent) == 0
	})
}

// postpone gives a command of a resting identity its time and another message id than
// it had: duplicate detection would drop it under the old one.
func (r *Reconciler) postpone(identity string, c rotation.Command) rotation.Command {
	ordered := c.Reason == rotation.Requested || c.Reason == rotation.Compromised
	at, spread := r.throttles.slot(identity, ordered)
	if !c.Since.IsZero() {
		// What has waited for long waits longer: it will not pass in seconds.
		longer := min(r.Now().Sub(c.Since)/8, maxDelay)
		at = later(at, r.Now().Add(longer))
	}
	c.At = at.Add(r.jitter(spread))
	operation, _, _ := strings.Cut(c.Operation, "~")
	c.Operation = fmt.Sprintf("%s~%d", operation, c.At.Unix())
	return c
}
