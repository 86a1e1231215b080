package reconcile

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

var morning = time.Date(2026, 11, 3, 7, 0, 0, 0, time.UTC)

func TestATurnIsTakenByOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		leave, err := turns.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		taken := false
		go func() {
			leave, err := turns.take(t.Context(), "a")
			if err == nil {
				taken = true
				leave()
			}
		}()
		synctest.Wait()
		if taken {
			t.Error("a second one has the turn while the first has it")
		}
		leave()
		synctest.Wait()
		if !taken {
			t.Error("the second one does not get its turn")
		}
	})
}

func TestWhoWaitsForATurnMayLeave(t *testing.T) {
	var turns turns
	_, err := turns.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = turns.take(ctx, "a")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("taking a busy turn: %v, want %v", err, context.Canceled)
	}
	_, err = turns.take(t.Context(), "b")
	if err != nil {
		t.Errorf("another PAT's turn: %v", err)
	}
}

func TestANoticeIsDueOnceADayAndAtOnceAfterTheFailureIsOver(t *testing.T) {
	var n notices
	c := cause{pat: "a", step: rotation.StepCreate, class: rotation.Policy, code: "x"}
	other := cause{pat: "b", step: rotation.StepCreate, class: rotation.Policy, code: "x"}
	steps := []struct {
		what string
		do   func()
		ask  cause
		at   time.Duration
		want bool
	}{
		{"before the first", func() {}, c, 0, true},
		{"a moment after", func() { n.add(c, morning) }, c, time.Second, false},
		{"a day after", func() {}, c, notifyInterval, true},
		{"of another PAT", func() {}, other, time.Second, true},
		{"after it was over", func() { n.forgetPAT("a") }, c, time.Second, true},
	}
	for _, s := range steps {
		s.do()
		if got := n.due(s.ask, morning.Add(s.at)); got != s.want {
			t.Errorf("%s: due %v, want %v", s.what, got, s.want)
		}
	}
}

func TestTheFirstBearerDecides(t *testing.T) {
	var b bearers
	for _, s := range []struct {
		identity, user, bearer string
		want                   bool
	}{
		{"bot", "oid-1", "alice", true}, {"bot", "oid-1", "alice", true}, {"bot", "oid-1", "bob", false},
		{"other", "oid-1", "bob", true},
		{"bot", "oid-2", "bob", true}, // the account was made anew
	} {
		if got := b.agrees(s.identity, s.user, s.bearer); got != s.want {
			t.Errorf("%s for %s as %s: agrees %v, want %v", s.bearer, s.identity, s.user, got, s.want)
		}
	}
}

func TestAMarkIsCrossedOnceBetweenTwoSweeps(t *testing.T) {
	day := func(n float64) time.Time { return morning.Add(time.Duration(n * float64(rotation.Day))) }
	for _, s := range []struct {
		what      string
		end       float64
		last, now time.Time
		want      int
	}{
		{"none", 20, day(0), day(0.25), 0},
		{"fourteen days", 14.1, day(0), day(0.25), 14},
		{"two at once: the smaller", 10, day(-5), day(4), 7},
		{"no last sweep: the day before counts", 14.5, time.Time{}, day(1), 14},
		{"no last sweep: not marks long past", 10, time.Time{}, day(0), 0},
		{"it has ended", -1, day(-5), day(0), 0},
	} {
		if got := crossedMark(day(s.end), s.last, s.now); got != s.want {
			t.Errorf("%s: crossed %d, want %d", s.what, got, s.want)
		}
	}
}

func TestMarksOfAFailedSweepAreMadeUpFor(t *testing.T) {
	var m marks
	o := rotation.Owner{Identity: "bot", Organization: "contoso"}
	last, before := morning, morning.Add(-rotation.Day)
	m.keep(o, false, before)
	m.keep(o, false, last)
	if got := m.notifiedUpTo(o, last); !got.Equal(before) {
		t.Errorf("after two failed sweeps: up to %v, want %v", got, before)
	}
	m.keep(o, true, last)
	if got := m.notifiedUpTo(o, last); !got.Equal(last) {
		t.Errorf("after one that succeeded: up to %v, want %v", got, last)
	}
}

func TestAThrottlePausesItsIdentityOnly(t *testing.T) {
	var th throttles
	th.pause("bot", time.Minute, morning)
	for _, s := range []struct {
		identity       string
		after          time.Duration
		paused, slowed bool
	}{
		{"bot", 30 * time.Second, true, true},
		{"bot", 2 * time.Minute, false, true},
		{"bot", 10 * time.Minute, false, false},
		{"other", 30 * time.Second, false, false},
	} {
		paused, slowed := th.state(s.identity, morning.Add(s.after))
		if paused != s.paused {
			t.Errorf("%s after %v: paused %v, want %v", s.identity, s.after, paused, s.paused)
		}
		if slowed != s.slowed {
			t.Errorf("%s after %v: slowed %v, want %v", s.identity, s.after, slowed, s.slowed)
		}
	}
}

func TestOrderedCommandsComeBackBeforeTheOthers(t *testing.T) {
	var th throttles
	th.pause("bot", time.Minute, morning)
	first, _ := th.slot("bot", false)
	second, _ := th.slot("bot", false)
	ordered, _ := th.slot("bot", true)
	if !second.After(first) {
		t.Errorf("two postponed commands come back at %v and %v: want them apart", first, second)
	}
	if !ordered.Before(first) {
		t.Errorf("an order comes back at %v, after a check at %v", ordered, first)
	}
}

func TestWhatTheGuardHasReadIsForgottenWithItsVersion(t *testing.T) {
	var g guard
	g.digests = map[valueKey]string{{"a", morning}: "1", {"a", morning.Add(time.Hour)}: "2", {"gone", morning}: "3"}
	g.keepOnly([]rotation.Version{{Name: "A", Created: morning.Add(time.Hour)}})
	if len(g.digests) != 1 || g.digests[valueKey{"a", morning.Add(time.Hour)}] != "2" {
		t.Errorf("it remembers %v, want the latest version of the one secret", g.digests)
	}
}

func TestARefusedStoreIsForgottenThoughItsEntryIsGone(t *testing.T) {
	var r refusals
	refused := &rotation.Error{Class: rotation.Configuration, Code: "vault-forbidden"}
	r.add(rotation.Spec{Name: "gone"}, refused, time.Time{}, morning)
	r.add(rotation.Spec{Name: "stays"}, refused, time.Time{}, morning.Add(time.Hour))
	r.prune(morning.Add(rotation.Day))
	if len(r.byPAT) != 1 || r.of(rotation.Spec{Name: "stays"}, morning.Add(rotation.Day)) == nil {
		t.Errorf("it remembers %v, want the one that still stands", r.byPAT)
	}
}

func TestBearersAreBounded(t *testing.T) {
	var b bearers
	for i := range 3 * maxBearers {
		b.agrees("build-bot", strconv.Itoa(i), "bearer")
	}
	if len(b.of) > maxBearers {
		t.Errorf("%d bearers are remembered, want %d at most", len(b.of), maxBearers)
	}
	if b.agrees("build-bot", strconv.Itoa(3*maxBearers-1), "another") {
		t.Error("the last one is forgotten: another bearer agrees")
	}
}

func TestAPATWithoutAnIDIsNotLookedForInTheVault(t *testing.T) {
	r := NewReconciler(Config{Now: func() time.Time { return morning }}) // a call to a vault would panic
	_, err := r.heldBy(t.Context(), rotation.Version{Name: "a"}, morning)
	if err == nil {
		t.Error("a PAT without an authorization id was found to be held by nobody")
	}
}
