package rotation

import (
	"fmt"
	"strings"
	"time"
)

// Freeze is a time in which a PAT that is merely due is not replaced.
type Freeze struct {
	From, To time.Time // To is its end: that moment is outside
	Reason   string    // of the person who declared it
}

// Windows are the times of the week at which a PAT that is merely due is replaced.
type Windows struct {
	Days [7]bool // on which a window begins, by time.Weekday
	// From and To are minutes after midnight. From after To crosses midnight.
	From, To int
	Zone     *time.Location
}

// opening is the window that begins on the day of t, plus days.
func (w *Windows) opening(t time.Time, days int) (from, to time.Time, ok bool) {
	local := t.In(w.Zone)
	at := func(days, minutes int) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day()+days, 0, minutes, 0, 0, w.Zone)
	}
	from = at(days, w.From)
	last := days
	if w.From >= w.To {
		last++
	}
	noon := at(days, 12*60) // no clock changes at noon
	return from, at(last, w.To), w.Days[noon.Weekday()]
}

// next is t if a window is open then, else when the next one opens. The zero time: never.
func (w *Windows) next(t time.Time) time.Time {
	for days := -1; days <= 8; days++ {
		from, to, isDay := w.opening(t, days)
		isOver := !to.After(t)
		if !isDay || isOver {
			continue
		}
		return later(from, t)
	}
	return time.Time{}
}

func (w *Windows) String() string {
	var days []string
	for d := range 7 {
		weekday := time.Weekday((d + 1) % 7) // the week begins on Monday
		if w.Days[weekday] {
			days = append(days, strings.ToLower(weekday.String()[:3]))
		}
	}
	return fmt.Sprintf("%s %02d:%02d to %02d:%02d %s", strings.Join(days, " "), w.From/60, w.From%60, w.To/60, w.To%60,
		w.Zone)
}

// Postponement is why a rotation waits, and until when.
type Postponement struct {
	Reason string
	Until  time.Time // zero: until the manifest says something else
}

// maxHops bounds how many freezes and windows are walked through to find an open time.
const maxHops = 1000

// opens is the first time, from t on, at which the entry's calendar lets a due PAT be
// replaced, and what stands before it; an empty reason: nothing does. The zero time:
// none is near.
func (s Spec) opens(t time.Time) (at time.Time, reason string) {
	at = t
	for range maxHops {
		why, next := s.closedAt(at)
		if why == "" {
			return at, reason
		}
		if reason == "" {
			reason = why
		}
		if next.IsZero() {
			break
		}
		at = next
	}
	return time.Time{}, reason
}

// closedAt is what stands before a rotation at a time, and when that ends.
func (s Spec) closedAt(t time.Time) (why string, until time.Time) {
	for _, f := range s.Freezes {
		isIn := !t.Before(f.From) && t.Before(f.To)
		if !isIn {
			continue
		}
		why = "the freeze until " + f.To.UTC().Format(time.RFC3339)
		if f.Reason != "" {
			why += " (" + f.Reason + ")"
		}
		return why, f.To
	}
	if s.Windows == nil {
		return "", time.Time{}
	}
	next := s.Windows.next(t)
	if next.Equal(t) {
		return "", time.Time{}
	}
	return "its windows (" + s.Windows.String() + ")", next
}

// ReplacedAt is when the current PAT will be replaced: when it is due, or now if that is
// over, or later if the entry's calendar says so, which is what the postponement tells;
// but while there is still an overlap and a sweep's interval left before its end. ok is
// false when its end is not known.
func (o Observed) ReplacedAt(s Spec, now time.Time) (at time.Time, p Postponement, ok bool) {
	due, _, ok := o.DueAt(s)
	if !ok {
		return time.Time{}, Postponement{}, false
	}
	due = later(due, now)
	if s.Paused != "" {
		return time.Time{}, Postponement{Reason: pausedReason(s)}, true
	}
	at, reason := s.opens(due)
	if reason == "" {
		return due, Postponement{}, true
	}
	last := later(due, o.end().Add(-s.Overlap-o.Interval))
	if at.IsZero() || at.After(last) {
		at = last
	}
	if !at.After(due) {
		return due, Postponement{}, true
	}
	return at, Postponement{Reason: reason, Until: at}, true
}

// end is when the current PAT ends, as Azure DevOps has it, or else the vault.
func (o Observed) end() time.Time {
	if p, listed := o.Find(o.Current.Ledger.AuthorizationID); listed {
		return p.ValidTo
	}
	return o.Current.Expires
}

func pausedReason(s Spec) string { return "the end of its pause (" + s.Paused + ")" }

// postpones reports whether the calendar holds back what a rule wants to do. A paused
// entry gets nothing new but by an order; windows and freezes hold back what is merely
// due.
func postpones(s Spec, o Observed, r *rule, d Decision, now time.Time) (Postponement, bool) {
	isOrdered := r.name == "ordered"
	if d.Action != Rotate || isOrdered {
		return Postponement{}, false
	}
	if s.Paused != "" {
		return Postponement{Reason: pausedReason(s)}, true
	}
	if r.name != "due" {
		return Postponement{}, false
	}
	at, p, ok := o.ReplacedAt(s, now)
	return p, ok && at.After(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
