package rotation_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// due is when the settled PAT is due.
var due = rotation.Due(spec(), day(0), day(30))

// lastChance is when it is replaced at the latest, whatever the calendar says.
var lastChance = day(30).Add(-rotation.Day - 6*time.Hour)

func frozen(from, to time.Time) []rotation.Freeze {
	return []rotation.Freeze{{From: from, To: to, Reason: "year end"}}
}

func TestTheCalendarHoldsBackWhatIsMerelyDue(t *testing.T) {
	t.Parallel()
	holiday := frozen(day(10), day(25))
	for _, tc := range []struct {
		name   string
		now    time.Time
		change func(s *rotation.Spec, o *rotation.Observed)
		action rotation.Action
		rule   string
		why    string    // of the postponement
		until  time.Time // of the postponement
	}{
		{name: "a due PAT waits for the end of a freeze", now: day(21), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Freezes = holiday },
			why:    "the freeze until 2026-11-26T08:00:00Z (year end)", until: day(25)},
		{name: "after the freeze it is replaced", now: day(25), action: rotation.Rotate, rule: "due",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Freezes = holiday }},
		{name: "freezes that follow each other are one", now: day(21), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.Freezes = append(frozen(day(25), day(26)), holiday...)
			}, why: "the freeze until", until: day(26)},
		{name: "it is replaced rather than let expire", now: lastChance, action: rotation.Rotate, rule: "due",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Freezes = frozen(day(10), day(60)) }},
		{name: "before that last moment it waits for it", now: lastChance.Add(-time.Minute), action: rotation.Nothing,
			rule:   "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Freezes = frozen(day(10), day(60)) },
			why:    "the freeze until", until: lastChance},
		{name: "a longer life waits longer", now: day(35), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Freezes = frozen(day(10), day(60))
				s.Lifetime = 40 * rotation.Day
				o.PATs[0].ValidTo = day(40)
			}, why: "the freeze until", until: lastChance.Add(10 * rotation.Day)},
		{name: "outside of its window it waits", now: day(21).Add(12 * time.Hour), action: rotation.Nothing,
			rule: "calendar",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				closeUntil(s, o, day(22).Add(time.Hour))
			}, why: "its windows (mon 09:00 to 17:00 UTC)", until: day(22).Add(time.Hour)},
		{name: "in its window it is replaced", now: day(22).Add(time.Hour), action: rotation.Rotate, rule: "due",
			change: func(s *rotation.Spec, o *rotation.Observed) { closeUntil(s, o, day(22).Add(time.Hour)) }},
		{name: "a window that begins in a freeze is none", now: day(21), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Freezes = frozen(day(10), day(22))
				s.Windows = everyDay(7*60, 8*60)
			}, why: "the freeze until", until: day(23).Add(-time.Hour)},
		{name: "one that has missed its window waits for the next", now: day(21), action: rotation.Nothing,
			rule:   "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Windows = everyDay(7*60, 8*60) },
			why:    "its windows (mon tue wed thu fri sat sun 07:00 to 08:00 UTC)", until: day(22).Add(-time.Hour)},

		{name: "an order does not wait for a freeze", now: day(12), action: rotation.Rotate, rule: "ordered",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Freezes = holiday
				o.Order = rotation.Order{RevokePrevious: rotation.Now, At: day(12), Operation: "x", By: "anna"}
			}},
		{name: "an order does not wait for a pause", now: day(12), action: rotation.Rotate, rule: "ordered",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Paused = "migration"
				o.Order = rotation.Order{RevokePrevious: rotation.Now, At: day(12), Operation: "x", By: "anna"}
			}},
		{name: "the first PAT does not wait for a freeze", now: day(12), action: rotation.Rotate, rule: "missing",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Freezes, o.Current, o.PATs = holiday, nil, nil }},
		{name: "the first PAT waits for a pause", now: day(12), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Paused, o.Current, o.PATs = "migration", nil,
					nil
			},
			why: "the end of its pause (migration)"},
		{name: "drift does not wait for a freeze", now: day(12), action: rotation.Rotate, rule: "scopes",
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.Freezes, s.Scopes = holiday,
					[]string{"vso.code"}
			}},
		{name: "drift waits for a pause", now: day(12), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.Paused, s.Scopes = "migration",
					[]string{"vso.code"}
			},
			why: "the end of its pause (migration)"},
		{name: "a disabled version does not wait for a freeze", now: day(12), action: rotation.Rotate, rule: "disabled",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Freezes, o.Current.Enabled = holiday, false }},
		{name: "a dead PAT does not wait for a freeze", now: day(12), action: rotation.Rotate, rule: "gone",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Freezes, o.PATs, o.Gone = holiday, nil, true }},
		{name: "one that has run out does not wait for a freeze", now: day(31), action: rotation.Rotate, rule: "gone",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Freezes, o.PATs = frozen(day(10), day(60)), nil
			}},
		{name: "a paused PAT runs out", now: day(29.9), action: rotation.Nothing, rule: "calendar",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Paused = "migration" },
			why:    "the end of its pause (migration)"},
		{name: "an overlap ends in a freeze", now: day(12), action: rotation.Revoke, rule: "replaced",
			change: func(s *rotation.Spec, o *rotation.Observed) { s.Freezes, *o = holiday, replaced(*o, 11) }},
		{name: "an overlap ends while the entry is paused and due", now: day(29), action: rotation.Revoke,
			rule: "replaced", change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Paused = "migration"
				*o = replaced(*o, 11)
			}},
		{name: "a pause does not keep a PAT from being adopted", now: day(5), action: rotation.Adopt, rule: "adoption",
			change: func(s *rotation.Spec, o *rotation.Observed) {
				s.Paused, o.Current.Ledger = "migration", rotation.Ledger{}
				o.PATs = []rotation.PAT{{AuthorizationID: idX, DisplayName: "jenkins agents"}}
			}},
		{name: "before it is due nothing is postponed", now: day(12), action: rotation.Nothing, rule: "nothing",
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.Freezes = holiday }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, o := spec(), settled(tc.now)
			o.Interval = 6 * time.Hour
			tc.change(&s, &o)
			d := rotation.Decide(s, o, tc.now)
			if d.Action != tc.action {
				t.Errorf("action %q, want %q", d.Action, tc.action)
			}
			if d.Rule != tc.rule {
				t.Errorf("rule %q, want %q", d.Rule, tc.rule)
			}
			if !strings.HasPrefix(d.Postponed.Reason, tc.why) || (tc.why == "") != (d.Postponed.Reason == "") {
				t.Errorf("postponed for %q, want %q", d.Postponed.Reason, tc.why)
			}
			if !d.Postponed.Until.Equal(tc.until) {
				t.Errorf("postponed until %v, want %v", d.Postponed.Until, tc.until)
			}
			if !tc.until.IsZero() && !d.Next.Equal(tc.until) {
				t.Errorf("the next look is at %v, want %v", d.Next, tc.until)
			}
		})
	}
}

// closeUntil gives the entry one window a week, which opens at the given time.
func closeUntil(s *rotation.Spec, _ *rotation.Observed, opens time.Time) {
	s.Windows = &rotation.Windows{From: opens.Hour() * 60, To: opens.Hour()*60 + 8*60, Zone: time.UTC}
	s.Windows.Days[opens.Weekday()] = true
}

func everyDay(from, to int) *rotation.Windows {
	return &rotation.Windows{Days: [7]bool{true, true, true, true, true, true, true}, From: from, To: to,
		Zone: time.UTC}
}

// opening is when the settled PAT is replaced if it is due at a time.
func opening(t *testing.T, w *rotation.Windows, at time.Time) time.Time {
	t.Helper()
	s, o := spec(), settled(at)
	s.Windows = w
	s.Lifetime, s.RotateBefore = 300*rotation.Day, 100*rotation.Day
	// The PAT's life is moved so that it is due just then.
	life := rotation.Due(s, day(0), day(300)).Sub(day(0))
	o.PATs[0].ValidFrom = at.Add(-life)
	o.PATs[0].ValidTo = o.PATs[0].ValidFrom.Add(300 * rotation.Day)
	got, _, ok := o.ReplacedAt(s, at)
	if !ok {
		t.Fatal("nobody knows when it is replaced")
	}
	return got
}

func TestAWindowOpensByTheClockOfItsTimeZone(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	weekdays := [7]bool{false, true, true, true, true, true, false}
	sunday := [7]bool{true}
	for _, tc := range []struct {
		name     string
		w        rotation.Windows
		at, want string
	}{
		{"in the window", rotation.Windows{Days: weekdays, From: 480, To: 960, Zone: berlin},
			"2026-12-07T12:00:00+01:00", "2026-12-07T12:00:00+01:00"},
		{"before it", rotation.Windows{Days: weekdays, From: 480, To: 960, Zone: berlin},
			"2026-12-07T07:59:59+01:00", "2026-12-07T08:00:00+01:00"},
		{"its end is outside", rotation.Windows{Days: weekdays, From: 480, To: 960, Zone: berlin},
			"2026-12-07T16:00:00+01:00", "2026-12-08T08:00:00+01:00"},
		{"over the weekend", rotation.Windows{Days: weekdays, From: 480, To: 960, Zone: berlin},
			"2026-12-04T20:00:00+01:00", "2026-12-07T08:00:00+01:00"},
		{"a window that crosses midnight belongs to the day it begins on",
			rotation.Windows{Days: weekdays, From: 22 * 60, To: 4 * 60, Zone: berlin},
			"2026-12-05T03:00:00+01:00", "2026-12-05T03:00:00+01:00"},
		{"and not to the day it ends on", rotation.Windows{Days: weekdays, From: 22 * 60, To: 4 * 60, Zone: berlin},
			"2026-12-07T03:00:00+01:00", "2026-12-07T22:00:00+01:00"},
		{"until midnight", rotation.Windows{Days: sunday, From: 20 * 60, To: 0, Zone: berlin},
			"2026-12-06T23:59:00+01:00", "2026-12-06T23:59:00+01:00"},
		{"in summer the clock is another one", rotation.Windows{Days: weekdays, From: 480, To: 960, Zone: berlin},
			"2026-07-06T00:00:00+02:00", "2026-07-06T08:00:00+02:00"},
		{"a window in the hour that does not exist opens after it",
			rotation.Windows{Days: sunday, From: 2*60 + 30, To: 6 * 60, Zone: berlin},
			"2026-03-29T00:00:00+01:00", "2026-03-29T03:30:00+02:00"},
		{"once a week", rotation.Windows{Days: sunday, From: 60, To: 120, Zone: berlin},
			"2026-12-06T02:00:00+01:00", "2026-12-13T01:00:00+01:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			at, err := time.Parse(time.RFC3339, tc.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := opening(t, &tc.w, at).In(berlin).Format(time.RFC3339); got != tc.want {
				t.Errorf("due at %s it is replaced at %s, want %s", tc.at, got, tc.want)
			}
		})
	}
}

// A second way to say it: minute by minute, by the clock on the wall.
func TestAWindowIsOpenAsTheClockOnTheWallSays(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		w := &rotation.Windows{From: r.IntN(24 * 60), To: r.IntN(24 * 60), Zone: time.UTC}
		w.Days[r.IntN(7)] = true
		w.Days[r.IntN(7)] = true
		if w.From == w.To {
			continue
		}
		at := day(0).Add(time.Duration(r.IntN(7*24*60)) * time.Minute)
		want := at
		for !isOpen(w, want) {
			want = want.Add(time.Minute)
		}
		if got := opening(t, w, at); !got.Equal(want) {
			t.Fatalf("%v: from %v it opens at %v, want %v", w, at, got, want)
		}
	}
}

func isOpen(w *rotation.Windows, t time.Time) bool {
	minute := t.Hour()*60 + t.Minute()
	today, yesterday := w.Days[t.Weekday()], w.Days[t.AddDate(0, 0, -1).Weekday()]
	if w.From < w.To {
		return today && minute >= w.From && minute < w.To
	}
	return today && minute >= w.From || yesterday && minute < w.To
}

func TestManyFreezesEndTheSearch(t *testing.T) {
	t.Parallel()
	s, o := spec(), settled(due)
	o.Interval = 6 * time.Hour
	s.Windows = everyDay(0, 60)
	for i := range 100 { // each night's window is frozen
		midnight := day(0).Truncate(rotation.Day).AddDate(0, 0, i)
		s.Freezes = append(s.Freezes, rotation.Freeze{From: midnight, To: midnight.Add(time.Hour)})
	}
	at, p, _ := o.ReplacedAt(s, due)
	if !at.Equal(lastChance) {
		t.Errorf("it is replaced at %v, want its last chance %v", at, lastChance)
	}
	if p.Reason == "" {
		t.Error("nothing says what it waits for")
	}
}
