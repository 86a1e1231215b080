package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// consumed is an entry with two required consumers and one that is not, whose replaced
// PAT may be held back for three days beyond its overlap.
func consumed() rotation.Spec {
	s := spec()
	s.SwitchOver = &rotation.SwitchOver{Within: 12 * time.Hour, PostponeAtMost: 3 * rotation.Day,
		Consumers: []rotation.Consumer{{Name: "jenkins", Required: true}, {Name: "nightly", Required: true},
			{Name: "report"}}}
	return s
}

// switching is the settled entry on day 0, with a PAT before it that ends on day 1.
func switching(now time.Time, change func(c *rotation.Confirmed)) rotation.Observed {
	o := replaced(settled(now), 1)
	o.Current.Ledger.Facts.PreviousEnds = rotation.EndsAfterOverlap
	c := rotation.Confirmed{Bound: day(4)}
	if change != nil {
		change(&c)
	}
	o.Current.Ledger.Confirmed = c.String()
	o.Interval = 6 * time.Hour
	o.LateNotified = true
	return o
}

func confirmedBy(states map[string]rotation.SwitchState) func(c *rotation.Confirmed) {
	return func(c *rotation.Confirmed) {
		for name, s := range states {
			*c, _ = c.With(name, s, day(0.5))
		}
	}
}

func TestAReplacedPATWaitsForItsConsumers(t *testing.T) {
	t.Parallel()
	both := confirmedBy(map[string]rotation.SwitchState{"jenkins": rotation.Switched, "nightly": rotation.ByHand})
	one := confirmedBy(map[string]rotation.SwitchState{"jenkins": rotation.Switched, "report": rotation.Switched})
	failed := confirmedBy(map[string]rotation.SwitchState{"jenkins": rotation.Switched, "nightly": rotation.Failed})
	ruled := func(r rotation.Ruling) func(c *rotation.Confirmed) {
		return func(c *rotation.Confirmed) { c.Ruling = r }
	}
	for _, tc := range []struct {
		name   string
		tag    func(c *rotation.Confirmed)
		change func(s *rotation.Spec, o *rotation.Observed)
		ends   float64 // the day on which it ends
	}{
		{name: "all have confirmed: it ends after its overlap", tag: both, ends: 1},
		{name: "one is missing: it lives until the bound", tag: one, ends: 4},
		{name: "a failure counts like silence", tag: failed, ends: 4},
		{name: "nobody has: it lives until the bound", ends: 4},
		{name: "a person releases it", tag: ruled(rotation.Release), ends: 1},
		{name: "a person holds it: to its own end", tag: ruled(rotation.Hold), ends: 10},
		{name: "the manifest holds it: to the end that was told", ends: 10,
			tag:    func(c *rotation.Confirmed) { c.Bound = day(10) },
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.SwitchOver.Hold = true }},
		{name: "a later edit of the manifest does not move the bound", ends: 4,
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.SwitchOver.PostponeAtMost = 7 * rotation.Day }},
		{name: "nor does whenLate", ends: 4,
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.SwitchOver.Hold = true }},
		{name: "never beyond its own end", ends: 10, tag: func(c *rotation.Confirmed) { c.Bound = day(20) }},
		{name: "an order now waits for nobody", ends: 0,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger.Facts.PreviousEnds = rotation.EndsNow
				o.Current.Ledger.RevokePreviousAt = day(0)
			}},
		{name: "without the tag nobody has confirmed", ends: 4.0007,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Current.Ledger.Confirmed = "" }},
		{name: "a tag that cannot be read counts as none", ends: 4.0007,
			change: func(_ *rotation.Spec, o *rotation.Observed) {
				o.Current.Ledger.Confirmed = strings.Replace(o.Current.Ledger.Confirmed, "b", "x", 1)
			}},
		{name: "a list without the PAT does not end it", ends: 4,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = o.PATs[:1] }},
		{name: "held, and a list without the PAT", tag: ruled(rotation.Hold), ends: 10,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = o.PATs[:1] }},
		{name: "an edited bound does not shorten the overlap", ends: 1,
			tag: func(c *rotation.Confirmed) { c.Bound = day(0.1) }},
		{name: "consumers that were taken out of the manifest hold nothing", ends: 1,
			change: func(s *rotation.Spec, _ *rotation.Observed) { s.SwitchOver = nil }},
		{name: "consumers that are not required hold nothing", ends: 1,
			change: func(s *rotation.Spec, _ *rotation.Observed) {
				s.SwitchOver.Consumers = []rotation.Consumer{{Name: "report"}}
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := consumed()
			o := switching(day(0), tc.tag)
			if tc.change != nil {
				tc.change(&s, &o)
			}
			ends := day(tc.ends)
			before := rotation.Decide(s, o, ends.Add(-2*time.Minute))
			isEnding := func(d rotation.Decision) bool { return d.Action == rotation.Revoke }
			if tc.ends > 0 && isEnding(before) {
				t.Errorf("it ends before %v: %s", ends, before.Message)
			}
			o.ListedAt = ends
			after := rotation.Decide(s, o, ends.Add(2*time.Minute))
			if !isEnding(after) {
				t.Errorf("after %v: %s (%s), want that it ends", ends, after.Action, after.Message)
			}
		})
	}
}

func TestTwoReplacedPATsWaitForOneConfirmation(t *testing.T) {
	t.Parallel()
	s, now := consumed(), day(2)
	o := twice(switching(now, nil), -1)
	o.Replaced[0].Ledger.Confirmed = rotation.Confirmed{Bound: day(3)}.String()
	ended := func() (out []string) {
		for at := now; at.Before(day(5)); at = at.Add(time.Hour) {
			d := rotation.Decide(s, o, at)
			if d.Action != rotation.Revoke {
				continue
			}
			id := d.Version.Ledger.AuthorizationID
			out = append(out, id)
			o.Ended[id] = true
			i := slices.IndexFunc(o.Replaced, func(v rotation.Version) bool { return v.Ledger.AuthorizationID == id })
			o.Replaced[i].Ledger.RevokedAt = at
		}
		return out
	}
	c := rotation.ParseConfirmed(o.Current.Ledger.Confirmed)
	c, _ = c.With("jenkins", rotation.Switched, now)
	c, _ = c.With("nightly", rotation.Switched, now)
	o.Current.Ledger.Confirmed = c.String()
	if got := ended(); !slices.Equal(got, []string{id3, id2}) {
		t.Errorf("ended %v, want both, the older one first", got)
	}
}

func TestALateSwitchIsToldWithWhatHappens(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		now    float64
		tag    func(c *rotation.Confirmed)
		change func(s *rotation.Spec, o *rotation.Observed)
		told   bool
		next   string
	}{
		{name: "not before `within`", now: 0.49},
		{name: "after it", now: 0.51, told: true, next: "revoke"},
		{name: "once a day", now: 0.51, change: func(_ *rotation.Spec, o *rotation.Observed) { o.LateNotified = true }},
		{name: "not if the topic takes nothing", now: 0.51,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.Silent = true }},
		{name: "a person decides", now: 0.51, told: true, next: "hold",
			tag: func(c *rotation.Confirmed) { c.Ruling = rotation.Hold }},
		{name: "it ends by itself", now: 0.51, told: true, next: "expire",
			tag: func(c *rotation.Confirmed) { c.Bound = day(10) }},
		{name: "all have switched", now: 0.9, tag: confirmedBy(map[string]rotation.SwitchState{
			"jenkins": rotation.Switched, "nightly": rotation.Switched})},
		{name: "the replaced PAT has ended", now: 0.9,
			change: func(_ *rotation.Spec, o *rotation.Observed) { o.PATs = o.PATs[:1] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, now := consumed(), day(tc.now)
			o := switching(now, tc.tag)
			o.LateNotified = false
			if tc.change != nil {
				tc.change(&s, &o)
			}
			d := rotation.Decide(s, o, now)
			if told := d.Action == rotation.ReportLate; told != tc.told {
				t.Fatalf("told %v (%s: %s), want %v", told, d.Rule, d.Message, tc.told)
			}
			if !tc.told {
				return
			}
			if d.Rule != "switch-over" {
				t.Errorf("rule %q, want switch-over", d.Rule)
			}
			if got := d.Late.Next(); got != tc.next {
				t.Errorf("what happens: %q, want %q", got, tc.next)
			}
		})
	}
}

func TestTheNextLookIsWhenAConsumerIsLateThenWhenThePATEnds(t *testing.T) {
	t.Parallel()
	s := consumed()
	for at, want := range map[float64]time.Time{0: day(0.5), 0.6: day(4), 2: day(4)} {
		d := rotation.Decide(s, switching(day(at), nil), day(at))
		if !d.Next.Equal(want) {
			t.Errorf("on day %v the next look is at %v, want %v", at, d.Next, want)
		}
		if !d.Schedule {
			t.Errorf("on day %v nobody schedules that look", at)
		}
	}
}

func TestConfirmationsComeBackAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	c := rotation.Confirmed{Bound: day(4), Ruling: rotation.Hold}
	for i := range rotation.MaxConsumers {
		state := []rotation.SwitchState{rotation.Switched, rotation.Failed, rotation.ByHand}[i%3]
		c, _ = c.With(fmt.Sprintf("consumer-%d", i), state, day(float64(i)))
	}
	tag := c.String()
	if len(tag) > rotation.MaxFacts {
		t.Errorf("the tag of %d consumers has %d characters, more than %d", rotation.MaxConsumers, len(tag),
			rotation.MaxFacts)
	}
	back := rotation.ParseConfirmed(tag)
	if got := back.String(); got != tag {
		t.Errorf("got  %s\nwant %s", got, tag)
	}
	state, at := back.Of("consumer-4")
	if state != rotation.Failed {
		t.Errorf("state %q, want %q", state, rotation.Failed)
	}
	if !at.Equal(day(4)) {
		t.Errorf("at %v, want %v", at, day(4))
	}
}

func TestASwitchIsFinal(t *testing.T) {
	t.Parallel()
	c, changed := rotation.Confirmed{}.With("a", rotation.Failed, day(0))
	if !changed {
		t.Error("the first failure changes nothing")
	}
	c, changed = c.With("a", rotation.Switched, day(1))
	if !changed {
		t.Error("a switch after a failure changes nothing")
	}
	for _, late := range []rotation.SwitchState{rotation.Failed, rotation.Switched, rotation.ByHand} {
		after, changed := c.With("a", late, day(2))
		if changed || after.String() != c.String() {
			t.Errorf("%s after the switch: %s, want %s", late, after, c)
		}
	}
}

func FuzzParseConfirmed(f *testing.F) {
	f.Add(rotation.Confirmed{Bound: day(4)}.String())
	f.Add("b")
	f.Add("r9z;a1b2c3s1;ffffffh2")
	f.Add("b;;")
	f.Fuzz(func(t *testing.T, tag string) {
		c := rotation.ParseConfirmed(tag)
		once := c.String()
		if again := rotation.ParseConfirmed(once).String(); again != once {
			t.Errorf("%q is read as %q, and that as %q", tag, once, again)
		}
	})
}
