package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// office is open on weekdays from 8 to 16 o'clock.
func office(t *testing.T, zone string) *rotation.Windows {
	t.Helper()
	z, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return &rotation.Windows{Days: [7]bool{false, true, true, true, true, true, false}, From: 8 * 60, To: 16 * 60,
		Zone: z}
}

func TestAYearWithFreezesAndWindowsHasNoDeadPAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		at := func(days int) time.Time { return start.AddDate(0, 0, days) }
		freezes := []rotation.Freeze{
			{From: at(15), To: at(40), Reason: "year end"}, {From: at(100), To: at(107)},
			{From: at(107), To: at(140), Reason: "longer than a life"}, {From: at(200), To: at(202)},
		}
		long, short, nights, tight := agents(), agents(), agents(), agents()
		short.Name, short.Lifetime, short.RotateBefore, short.Overlap = "short", 7*rotation.Day, 3*rotation.Day,
			2*time.Hour
		nights.Name = "nights"
		tight.Name, tight.Lifetime, tight.RotateBefore, tight.Overlap = "tight", rotation.Day, 2*time.Hour, time.Hour
		long.Windows, short.Windows = office(t, "Europe/Berlin"), office(t, "America/New_York")
		nights.Windows = &rotation.Windows{Days: [7]bool{true, true, true, true, true, true, true}, From: 23 * 60,
			To:   4 * 60,
			Zone: time.UTC}
		specs := []rotation.Spec{long, short, nights, tight}
		for i := range specs {
			specs[i].Freezes, specs[i].DisplayName = freezes, specs[i].Name
		}
		f := newFixture(t, specs...)
		for time.Since(start) < 365*rotation.Day {
			f.sweep()
			for _, s := range specs {
				f.holds(s.Name)
			}
			f.pass(6*time.Hour - time.Second)
		}

		for _, e := range published[*rotation.Rotated](f) {
			before := e.Previous
			if e.Reason != rotation.Expiring || before == nil {
				continue
			}
			made := e.At
			left := f.world.PAT(before.AuthorizationID).ValidTo.Sub(made)
			isLastChance := left < e.Spec.Overlap+6*time.Hour+2*time.Minute
			if isLastChance {
				continue
			}
			for _, z := range freezes {
				if !made.Before(z.From) && made.Before(z.To) {
					t.Errorf("%s was replaced at %v, in the freeze from %v, with %v left", e.Spec.Name, made, z.From,
						left)
				}
			}
			w := e.Spec.Windows
			if w == nil {
				continue
			}
			local := made.In(w.Zone)
			minute := local.Hour()*60 + local.Minute()
			isOpen := minute >= w.From && minute < w.To || w.From > w.To && (minute >= w.From || minute < w.To)
			if !isOpen || !w.Days[local.Weekday()] {
				t.Errorf("%s was replaced at %v, outside of %v, with %v left", e.Spec.Name, local, w, left)
			}
		}
		postponed := map[string]int{}
		for _, e := range published[*rotation.PostponedPAT](f) {
			postponed[e.Spec.Name]++
			if !e.Until.After(e.At) {
				t.Errorf("%s: told at %v that it waits until %v", e.Spec.Name, e.At, e.Until)
			}
		}
		for _, s := range specs[:3] {
			if postponed[s.Name] == 0 {
				t.Errorf("nothing tells that %s waits", s.Name)
			}
		}
		want(f, "tight: events that it waits, without time to wait", postponed["tight"], 0)
	})
}

func TestWhatAFreezePushesOutIsPublishedOnce(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		first := f.holds(s.Name)
		freeze := rotation.Freeze{From: time.Now(), To: first.ValidTo.Add(-5 * rotation.Day), Reason: "year end"}
		f.specs[0].Freezes = []rotation.Freeze{freeze}
		plan := f.sweep()
		want(f, "planned for", plan.Items[0].ReplacedAt.Equal(freeze.To), true)
		want(f, "why", plan.Items[0].Postponed.Reason, "the freeze until "+
			freeze.To.UTC().Format(time.RFC3339)+" (year end)")
		want(f, "events before it is due", len(published[*rotation.PostponedPAT](f)), 0)
		for time.Now().Before(freeze.To.Add(-time.Hour)) {
			f.pass(6 * time.Hour)
			f.sweep()
		}
		events := published[*rotation.PostponedPAT](f)
		if len(events) != 1 {
			t.Fatalf("%d events, want 1", len(events))
		}
		want(f, "until", events[0].Until.Equal(freeze.To), true)
		want(f, "valid to", events[0].ValidTo.Equal(first.ValidTo), true)
		want(f, "about", events[0].AuthorizationID, first.AuthorizationID)
		f.pass(12 * time.Hour)
		if second := f.holds(s.Name); second == first {
			t.Error("after the freeze the PAT was not replaced")
		}
	})
}

func TestAnEventThatThePATWaitsIsSentAgainWhenTheTopicTakesIt(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		ends := f.holds(s.Name).ValidTo
		f.specs[0].Freezes = []rotation.Freeze{{From: time.Now(), To: ends.Add(-2 * rotation.Day)}}
		due := f.sweep().Items[0].Due
		f.pass(time.Until(due) - time.Hour)
		f.sweep()
		f.refuse("bus.Publish", unreachable)
		f.pass(2 * time.Hour)
		f.sweep()
		f.refuseNothing()
		f.pass(6 * time.Hour)
		f.sweep()
		want(f, "events", len(published[*rotation.PostponedPAT](f)), 1)
	})
}

func TestAPausedPATIsRemindedOfDailyAndRunsOut(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		first := f.holds(s.Name)
		f.specs[0].Paused = "until the migration is over"
		for time.Now().Before(first.ValidTo.Add(rotation.Day)) {
			f.sweep()
			f.pass(6*time.Hour - time.Second)
		}
		want(f, "PATs", len(f.world.PATs()), 1)
		events := published[*rotation.PostponedPAT](f)
		reminders := 0
		for _, e := range events {
			if e.ValidTo.Sub(e.At) <= 14*rotation.Day {
				reminders++
			}
			want(f, "until", e.Until.IsZero(), true)
		}
		want(f, "reminders in the last 14 days", reminders, 14)
		f.specs[0].Paused = ""
		f.sweep()
		f.pass(time.Hour)
		if second := f.holds(s.Name); second == first {
			t.Error("after the pause the dead PAT was not replaced")
		}
	})
}

func TestAnOrderReplacesAPausedPAT(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		first := f.holds(s.Name)
		f.specs[0].Paused = "until the migration is over"
		f.reconcile(rotation.Command{PAT: s.Name, From: first.AuthorizationID, Reason: rotation.Compromised,
			RevokePrevious: rotation.Now, RequestedBy: "anna", Operation: "leak"})
		if second := f.holds(s.Name); second == first {
			t.Error("the order did not replace the PAT")
		}
		want(f, "the leaked PAT works", first.Works(time.Now()), false)
	})
}
