package simulation

import (
	"slices"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// busiestHour is how often a function that no caller starts may run within an hour,
	// for each managed PAT. Retries, redeliveries and sweeps that repeat a failed one stay
	// far below; a message that comes back at once does not.
	busiestHour = 60
	// noticeSlack is how much later than it should something may be told: a sweep has
	// pauses of its own.
	noticeSlack = 20 * time.Minute
)

// telling is an event that says that something refuses, or does no more.
type telling struct {
	at    time.Time
	id    string
	scope string
	over  bool
}

// loops: nothing runs over and over.
func (j *judge) loops() {
	runs := map[string][]time.Time{}
	for _, i := range j.Invocations {
		if i.Trigger != "httpTrigger" {
			runs[i.Function] = append(runs[i.Function], i.Started)
		}
	}
	bound := busiestHour * max(len(j.secrets), 1)
	for function, started := range runs {
		slices.SortFunc(started, time.Time.Compare)
		for i := bound; i < len(started); i++ {
			first := started[i-bound]
			if started[i].Sub(first) < time.Hour {
				j.report("loop", first, "%s ran more than %d times within an hour", function, bound)
				break
			}
		}
	}
}

// isPrevented reports whether no PAT could be made and stored at a time, or until so short
// before that the next sweep has not been.
func (j *judge) isPrevented(t time.Time) bool {
	return slices.ContainsFunc(j.Refusals, func(r Refusal) bool {
		return r.Prevents && t.After(r.At) && t.Before(r.Until.Add(j.Sweep+noticeSlack))
	})
}

// notified is I9 for one refusal: it is told at the first sweep that meets it, or after an hour
// if it may pass; again every day; and once when it is over.
func (j *judge) notified(r Refusal) {
	within := j.Sweep + noticeSlack
	var during, after []telling
	seen := map[string]bool{}
	for _, x := range j.tellings {
		isItsOwn := x.scope == r.Scope && !x.at.Before(r.At) && !seen[x.id]
		if !isItsOwn {
			continue
		}
		seen[x.id] = true
		if x.over {
			after = append(after, x)
		} else {
			during = append(during, x)
		}
	}
	if r.Scope != string(rotation.ScopeBus) {
		first := r.At.Add(within)
		if r.MayPass {
			first = first.Add(time.Hour)
		}
		j.notifiedDaily(r, during, first)
	}
	until := r.Until.Add(within)
	isOver := !until.After(j.End)
	// What the state has refused, the process after it knows nothing of.
	mayBeUnknown := r.Scope == string(rotation.ScopeState) && len(after) == 0
	switch {
	case !isOver, mayBeUnknown:
	case len(after) != 1:
		j.report("I9", until, "that %s refuses no more was told %d times, want once", r.Scope, len(after))
	case after[0].at.After(until):
		j.report("I9", after[0].at, "that %s refuses no more was told %s late", r.Scope, after[0].at.Sub(until))
	}
}

func (j *judge) notifiedDaily(r Refusal, during []telling, due time.Time) {
	for _, x := range during {
		if x.at.After(due) {
			j.report("I9", due, "that %s refuses was told %s late", r.Scope, x.at.Sub(due))
		}
		due = x.at.Add(rotation.Day + j.Sweep + noticeSlack)
	}
	if end := earliest(r.Until, j.End); due.Before(end) {
		j.report("I9", due, "that %s refuses was not told, nor for %s after", r.Scope, end.Sub(due))
	}
	days := int(earliest(r.Until, j.End).Sub(r.At)/rotation.Day) + 1
	if len(during) > days {
		j.report("I9", r.At, "that %s refuses was told %d times in %d days", r.Scope, len(during), days)
	}
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
