package functionshost

import (
	"context"
	"time"
)

// lockRetry is how often an instance that does not have a listener's lock tries
// again.
const lockRetry = time.Minute

// listenTimer fires a timer function until ctx ends. One instance alone does.
func (h *Host) listenTimer(ctx context.Context, f *function) {
	for !h.storage.acquire("timer/"+f.name, h) {
		if !pause(ctx, lockRetry) {
			return
		}
	}
	now := time.Now().UTC()
	var (
		status  scheduleStatus
		pastDue bool
	)
	if f.useMonitor {
		stored, ok := h.storage.get(f.name)
		if ok {
			status, pastDue = h.checkPastDue(f, stored, now)
		} else {
			// Kept so that the very first occurrence can be missed too; the run
			// itself sees no LastUpdated.
			status = scheduleStatus{next: f.schedule.next(now)}
			stored := status
			stored.lastUpdated = now
			h.storage.put(f.name, stored)
		}
	}
	next := f.schedule.next(now)
	if pastDue || f.trigger.RunOnStartup {
		status, next = h.fire(f, status, now, pastDue, true)
	} else if f.useMonitor {
		next = status.next
	}
	for {
		if next.IsZero() {
			<-ctx.Done() // a schedule such as 31 February
			return
		}
		if !pause(ctx, time.Until(next)) {
			return
		}
		status, next = h.fire(f, status, time.Now().UTC(), false, false)
	}
}

// checkPastDue reports whether an occurrence was missed since the stored status,
// and starts over where the schedule has changed meanwhile.
func (h *Host) checkPastDue(f *function, st scheduleStatus, now time.Time) (scheduleStatus, bool) {
	from := st.last
	if from.IsZero() {
		from = st.lastUpdated
	}
	if expected := f.schedule.next(from); !expected.Equal(st.next) {
		if now.After(expected) {
			expected = f.schedule.next(now)
		}
		st = scheduleStatus{next: expected, lastUpdated: now}
		h.storage.put(f.name, st)
	}
	return st, !st.next.IsZero() && now.After(st.next)
}

// fire runs a timer function and returns when it is due next. A failed run is
// over: it counts as the others do.
func (h *Host) fire(f *function, st scheduleStatus, at time.Time, pastDue, atStart bool) (scheduleStatus, time.Time) {
	e := timerEnvelope(f, st, f.useMonitor, pastDue)
	_ = h.invoke(f, func() (envelope, error) { return e, nil })
	if !f.useMonitor {
		return st, f.schedule.next(time.Now().UTC())
	}
	// A run that a clock's correction began before its time must not be followed
	// by another at that time. One that took past the next time is followed at
	// once.
	base := at
	if !atStart && st.next.After(at) {
		base = st.next
	}
	st = scheduleStatus{last: at, next: f.schedule.next(base), lastUpdated: at}
	h.storage.put(f.name, st)
	return st, st.next
}

func timerEnvelope(f *function, st scheduleStatus, monitored, pastDue bool) envelope {
	var status any
	if monitored {
		status = map[string]any{
			"Last":        st.last.UTC().Format(offsetFull),
			"Next":        st.next.UTC().Format(offsetFull),
			"LastUpdated": st.lastUpdated.UTC().Format(offsetFull),
		}
	}
	return envelope{
		Data: map[string]any{f.trigger.Name: map[string]any{
			"Schedule":       map[string]any{"AdjustForDST": f.schedule.adjustForDST()},
			"ScheduleStatus": status,
			"IsPastDue":      pastDue,
		}},
		Metadata: map[string]any{},
	}
}

// pause waits, and reports whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
