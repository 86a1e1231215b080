package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// pace is how fast an identity's PATs are rotated while Azure DevOps slows it down.
//
// All that waits must not come back at the moment when the pause ends: most of it would
// only be put off again, and be in the way of other identities meanwhile. So what is
// put off is spread, a little closer together than what this process got through in
// the last window of Azure DevOps' budget. How many processes there are need not be
// known: each one's own share shows in that.
type throttle struct {
	until  time.Time   // nothing before
	recent []time.Time // rotations of the last window
	gap    time.Duration
	next   time.Time // when the last one that was put off comes back
}

const (
	leastPause    = 5 * time.Second
	firstInterval = time.Second
	lastInterval  = 20 * time.Second
	// window is the time in which Azure DevOps counts what an identity uses.
	window = 5 * time.Minute
	// closer is how much closer together than the pace of before: what is put off
	// comes in for the time that others have left unused.
	headroom = 0.6
	// maxSpread is how far ahead of the pause's end something is put off.
	maxSpread = time.Hour
)

// pace finds the identity's; the lock is held.
func (r *Reconciler) throttleOf(identity string) *throttle {
	p := r.throttles[identity]
	if p == nil {
		p = &throttle{gap: firstInterval}
		r.throttles[identity] = p
	}
	return p
}

// pause stops the identity's rotations for a time that Azure DevOps asked for.
func (r *Reconciler) pause(identity string, after time.Duration) {
	now := r.Now()
	until := now.Add(max(after, leastPause))
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.throttleOf(identity)
	if now.After(p.until) { // not one more refusal of the same time
		p.forget(now)
		if n := len(p.recent); n > 0 {
			p.gap = time.Duration(headroom * float64(window) / float64(n))
		} else {
			p.gap *= 2 // the others leave nothing to this process
		}
		p.gap = min(p.gap, lastInterval)
	}
	if until.After(p.until) {
		p.until = until
	}
}

// paused reports whether the identity is to rest, and slowed whether it was to at some
// time within the last window.
func (r *Reconciler) paused(identity string) (paused, slowed bool) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.throttles[identity]
	if p == nil {
		return false, false
	}
	return p.until.After(now), p.until.Add(window).After(now)
}

// counted notes a rotation.
func (r *Reconciler) countRotation(identity string) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.throttleOf(identity)
	p.forget(now)
	p.recent = append(p.recent, now)
}

func (p *throttle) forget(now time.Time) {
	p.recent = slices.DeleteFunc(p.recent, func(at time.Time) bool { return now.Sub(at) > window })
}

// putOff gives a command of a resting identity its time and another message id than it
// had. What somebody has ordered comes back first.
func (r *Reconciler) postpone(identity string, c rotation.Command) rotation.Command {
	r.mu.Lock()
	p := r.throttleOf(identity)
	at, gap := p.until, 2*leastPause
	if c.Reason != rotation.Requested && c.Reason != rotation.Compromised {
		if p.next.Before(p.until) || p.next.After(p.until.Add(maxSpread)) {
			p.next = p.until
		}
		p.next = p.next.Add(p.gap)
		at, gap = p.next, p.gap
	}
	r.mu.Unlock()
	c.At = at.Add(r.jitter(gap))
	operation, _, _ := strings.Cut(c.Operation, "~")
	c.Operation = fmt.Sprintf("%s~%d", operation, c.At.Unix())
	return c
}
