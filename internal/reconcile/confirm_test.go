package reconcile_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// consumed is an entry whose replaced PAT waits for two consumers.
func consumed() rotation.Spec {
	s := agents()
	s.SwitchOver = &rotation.SwitchOver{Within: 12 * time.Hour, PostponeAtMost: 3 * rotation.Day,
		Consumers: []rotation.Consumer{{Name: "jenkins", Required: true}, {Name: "nightly", Required: true},
			{Name: "report"}}}
	return s
}

// switchStory is a PAT that was just replaced, on an ordinary order.
func switchStory(t *testing.T, play func(f *fixture, before, after rotation.Version)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := consumed()
		f := newFixture(t, s)
		f.sweep()
		before := f.latest(s.Name)
		f.reconcile(rotation.Command{PAT: s.Name, From: before.Ledger.AuthorizationID, Reason: rotation.Requested,
			RevokePrevious: rotation.AfterOverlap, RequestedBy: "anna", Operation: "op"})
		play(f, before, f.latest(s.Name))
	})
}

func (f *fixture) confirm(v rotation.Version, consumer string, outcome rotation.Outcome) rotation.Command {
	c := rotation.Confirmation{SecretVersion: v.ID, Consumer: consumer, Outcome: outcome, Message: "as expected"}
	c.Proof = rotation.Proof(v.Value, v.Name, v.ID, consumer, outcome)
	return rotation.Command{PAT: v.Name, Reason: rotation.Check, RequestedBy: "patrol", Confirmation: &c}
}

// ended is when a version's PAT ended after the start of the test's wait, in hours.
func (f *fixture) endedAfter(v rotation.Version, since time.Time) float64 {
	f.Helper()
	p := f.world.PAT(v.Ledger.AuthorizationID)
	if p.Revoked.IsZero() {
		f.Fatalf("the PAT %s was not revoked", p.AuthorizationID)
	}
	return p.Revoked.Sub(since).Round(time.Hour).Hours()
}

// days passes days with their sweeps.
func (f *fixture) days(n float64) {
	f.Helper()
	end := time.Now().Add(time.Duration(n * float64(rotation.Day)))
	for time.Now().Before(end) {
		f.sweep()
		f.pass(min(6*time.Hour-time.Second, time.Until(end)))
	}
}

func TestAReplacedPATEndsAfterItsOverlapOnceAllHaveSwitched(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		start := time.Now()
		f.pass(time.Hour)
		f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
		want(f, "events after one of two", len(published[*rotation.SwitchedOver](f)), 0)
		f.reconcile(f.confirm(after, "nightly", rotation.HasSwitched))
		events := published[*rotation.SwitchedOver](f)
		if len(events) != 1 {
			f.Fatalf("%d events after both, want 1", len(events))
		}
		want(f, "the version", events[0].Version.ID, after.ID)
		want(f, "the replaced PAT", events[0].Previous.AuthorizationID, before.Ledger.AuthorizationID)
		f.days(2)
		want(f, "hours that the replaced PAT lived", f.endedAfter(before, start), 24)
		want(f, "late events", len(published[*rotation.SwitchLate](f)), 0)
	})
}

func TestTheLastConfirmationAfterTheOverlapEndsTheReplacedPATAtOnce(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		start := time.Now()
		f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
		f.pass(50 * time.Hour)
		f.reconcile(f.confirm(after, "nightly", rotation.HasSwitched))
		want(f, "hours that the replaced PAT lived", f.endedAfter(before, start), 50)
	})
}

func TestAConsumerThatNeverConfirmsHoldsThePATAsLongAsDeclared(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		start := time.Now()
		f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
		rotated := published[*rotation.Rotated](f)
		latest := rotated[len(rotated)-1].Previous.RevokeAtLatest
		want(f, "the bound that was told, in hours", latest.Sub(start).Round(time.Hour).Hours(), 96)
		f.days(6)
		want(f, "hours that the replaced PAT lived", f.endedAfter(before, start), 96)
		late := published[*rotation.SwitchLate](f)
		days := map[string]bool{}
		for _, e := range late {
			days[e.At.Format(time.DateOnly)] = true
			want(f, "who is missing", strings.Join(e.Missing, " "), "nightly")
			want(f, "when it ends", e.EndsAt.Equal(latest), true)
			want(f, "what happens then", e.Next(), "revoke")
		}
		want(f, "the first, in hours", late[0].At.Sub(start).Round(time.Hour).Hours(), 12)
		want(f, "days on which it is told", len(days), 4)
		want(f, "events", len(late), 4)
		want(f, "switched events", len(published[*rotation.SwitchedOver](f)), 0)
	})
}

func TestWithHoldAPersonDecidesUntilThePATsOwnEnd(t *testing.T) {
	for name, release := range map[string]bool{"released": true, "never": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := consumed()
				s.SwitchOver.Hold = true
				f := newFixture(t, s)
				f.sweep()
				before := f.latest(s.Name)
				f.days(9)
				f.reconcile(rotation.Command{PAT: s.Name, From: before.Ledger.AuthorizationID,
					Reason:         rotation.Requested,
					RevokePrevious: rotation.AfterOverlap, RequestedBy: "anna", Operation: "op"})
				start, after := time.Now(), f.latest(s.Name)
				f.days(6)
				want(f, "the PAT works after six days", f.world.PAT(before.Ledger.AuthorizationID).Works(time.Now()),
					true)
				if release {
					f.reconcile(ruling(after, rotation.Release, ""))
					want(f, "hours that the replaced PAT lived", f.endedAfter(before, start), 144)
					return
				}
				f.days(20)
				p := f.world.PAT(before.Ledger.AuthorizationID)
				isOwnEnd := p.Revoked.IsZero() || p.Revoked.Sub(p.ValidTo) > -time.Minute
				want(f, "it lives to its own end", isOwnEnd, true)
				v := f.world.History(s.Name)[0]
				want(f, "its version is closed", v.Ledger.RevokedAt.IsZero(), false)
			})
		})
	}
}

func ruling(v rotation.Version, r rotation.Ruling, consumer string) rotation.Command {
	return rotation.Command{PAT: v.Name, Reason: rotation.Check, RequestedBy: "anna", Operation: string(r),
		Confirmation: &rotation.Confirmation{SecretVersion: v.ID, Consumer: consumer, Ruling: r}}
}

func TestAPersonHoldsReleasesAndConfirmsByHand(t *testing.T) {
	for name, tt := range map[string]struct {
		commands []func(after rotation.Version) rotation.Command
		hours    float64 // that the replaced PAT lives; 0: to its own end
	}{
		"release": {hours: 24, commands: []func(rotation.Version) rotation.Command{
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.Release, "") }}},
		"hold": {commands: []func(rotation.Version) rotation.Command{
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.Hold, "") }}},
		"hold, then release": {hours: 24, commands: []func(rotation.Version) rotation.Command{
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.Hold, "") },
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.Release, "") }}},
		"by hand for both": {hours: 24, commands: []func(rotation.Version) rotation.Command{
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.ConfirmByHand, "jenkins") },
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.ConfirmByHand, "nightly") }}},
		"by hand for an unknown one": {hours: 96, commands: []func(rotation.Version) rotation.Command{
			func(v rotation.Version) rotation.Command { return ruling(v, rotation.ConfirmByHand, "nobody") }}},
	} {
		t.Run(name, func(t *testing.T) {
			switchStory(t, func(f *fixture, before, after rotation.Version) {
				start := time.Now()
				for _, c := range tt.commands {
					f.reconcile(c(after))
				}
				f.days(6)
				if tt.hours == 0 {
					want(f, "it still works", f.world.PAT(before.Ledger.AuthorizationID).Works(time.Now()), true)
					return
				}
				want(f, "hours that the replaced PAT lived", f.endedAfter(before, start), tt.hours)
			})
		})
	}
}

func TestAFalseConfirmationReleasesNothing(t *testing.T) {
	for name, spoil := range map[string]func(f *fixture, before rotation.Version, c *rotation.Command){
		"a wrong proof": func(_ *fixture, _ rotation.Version, c *rotation.Command) {
			c.Confirmation.Proof = strings.Repeat("A", len(c.Confirmation.Proof))
		},
		"no proof": func(_ *fixture, _ rotation.Version, c *rotation.Command) { c.Confirmation.Proof = "" },
		"the proof of the replaced PAT": func(_ *fixture, before rotation.Version, c *rotation.Command) {
			x := c.Confirmation
			x.Proof = rotation.Proof(before.Value, c.PAT, x.SecretVersion, x.Consumer, x.Outcome)
		},
		"a proof for the replaced version": func(_ *fixture, before rotation.Version, c *rotation.Command) {
			x := c.Confirmation
			x.Proof = rotation.Proof(before.Value, c.PAT, before.ID, x.Consumer, x.Outcome)
		},
		"another consumer's": func(f *fixture, _ rotation.Version, c *rotation.Command) {
			c.Confirmation.Proof = f.confirm(f.latest(c.PAT), "report", rotation.HasSwitched).Confirmation.Proof
		},
		"a failure's proof for a switch": func(f *fixture, _ rotation.Version, c *rotation.Command) {
			c.Confirmation.Proof = f.confirm(f.latest(c.PAT), "nightly", rotation.SwitchFailed).Confirmation.Proof
		},
		"another PAT's": func(f *fixture, _ rotation.Version, c *rotation.Command) {
			x, v := c.Confirmation, f.latest(c.PAT)
			x.Proof = rotation.Proof(v.Value, "other-pat", x.SecretVersion, x.Consumer, x.Outcome)
		},
		"about the replaced version": func(f *fixture, before rotation.Version, c *rotation.Command) {
			*c = f.confirm(before, "nightly", rotation.HasSwitched)
		},
		"about a version that is not there": func(_ *fixture, _ rotation.Version, c *rotation.Command) {
			c.Confirmation.SecretVersion = strings.Repeat("0", 32)
		},
		"an undeclared consumer": func(f *fixture, _ rotation.Version, c *rotation.Command) {
			*c = f.confirm(f.latest(c.PAT), "stranger", rotation.HasSwitched)
		},
	} {
		t.Run(name, func(t *testing.T) {
			switchStory(t, func(f *fixture, before, after rotation.Version) {
				f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
				c := f.confirm(after, "nightly", rotation.HasSwitched)
				spoil(f, before, &c)
				f.reconcile(c)
				f.days(3)
				want(f, "the replaced PAT still works", f.world.PAT(before.Ledger.AuthorizationID).Works(time.Now()),
					true)
				want(f, "switched events", len(published[*rotation.SwitchedOver](f)), 0)
				want(f, "the queue carries it on", len(f.world.Queue()) > 3, false)
			})
		})
	}
}

func TestAConsumerThatFailsIsToldAndWaitedFor(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		c := f.confirm(after, "nightly", rotation.SwitchFailed)
		c.Confirmation.Message = "401 with " + after.Value.Reveal() + "\nat 3:00 " + strings.Repeat("x ", 200)
		f.reconcile(c)
		events := published[*rotation.SwitchRefused](f)
		if len(events) != 1 {
			f.Fatalf("%d events, want 1", len(events))
		}
		want(f, "consumer", events[0].Consumer.Name, "nightly")
		want(f, "the message", strings.HasPrefix(events[0].Message, "401 with [redacted] at 3:00"), true)
		want(f, "the message is short", len(events[0].Message) <= 200, true)
		want(f, "the log holds the PAT", strings.Contains(f.log.String(), after.Value.Reveal()), false)
		f.pass(30 * time.Hour)
		want(f, "the replaced PAT still works", f.world.PAT(before.Ledger.AuthorizationID).Works(time.Now()), true)
		f.reconcile(f.confirm(after, "nightly", rotation.HasSwitched))
		f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
		want(f, "and after it has switched all the same", f.world.PAT(before.Ledger.AuthorizationID).Works(time.Now()),
			false)
	})
}

func TestAnOrderNowWaitsForNoConsumer(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		f.reconcile(rotation.Command{PAT: after.Name, From: after.Ledger.AuthorizationID, Reason: rotation.Compromised,
			RevokePrevious: rotation.Now, RequestedBy: "anna", Operation: "leak"})
		for _, v := range []rotation.Version{before, after} {
			want(f, "works after the order: "+v.ID, f.world.PAT(v.Ledger.AuthorizationID).Works(time.Now()), false)
		}
	})
}

func TestAConfirmationIsNotedWhateverFails(t *testing.T) {
	lost := func(f *fixture, prefix string, after bool, times int) {
		var lost atomic.Int64 // calls come side by side
		hook := func(call string) error {
			if !strings.HasPrefix(call, prefix) || lost.Add(1) > int64(times) {
				return nil
			}
			return unreachable
		}
		synctest.Wait()
		f.world.Before, f.world.After = hook, nil
		if after {
			f.world.Before, f.world.After = nil, hook
		}
	}
	for name, tt := range map[string]struct {
		call  string
		after bool
		times int
	}{
		"the vault does not answer":           {call: "vault.Current", times: 1},
		"the tag cannot be written":           {call: "vault.Update", times: 1},
		"the answer of the write is lost":     {call: "vault.Update", after: true, times: 1},
		"the topic does not take the event":   {call: "bus.Publish", times: 2},
		"the answer of the topic is lost":     {call: "bus.Publish", after: true, times: 1},
		"the list of PATs cannot be had":      {call: "devops.List", times: 2},
		"for an hour nothing can be observed": {call: "vault.Current", times: 9},
	} {
		t.Run(name, func(t *testing.T) {
			switchStory(t, func(f *fixture, before, after rotation.Version) {
				f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
				lost(f, tt.call, tt.after, tt.times)
				_ = f.r.Reconcile(f.Context(), f.confirm(after, "nightly", rotation.HasSwitched))
				f.pass(3 * time.Hour)
				f.refuseNothing()
				c := rotation.ParseConfirmed(f.latest(after.Name).Ledger.Confirmed)
				state, _ := c.Of("nightly")
				want(f, "the consumer's state", state, rotation.Switched)
				if len(published[*rotation.SwitchedOver](f)) == 0 {
					t.Error("nothing tells that all have switched")
				}
			})
		})
	}
}

func TestTheAuditOfAConfirmationByHandSaysWhatBecameOfIt(t *testing.T) {
	for call, outcome := range map[string]string{"vault.Update": "outcome=failed", "bus.Publish": "outcome=done"} {
		t.Run(call, func(t *testing.T) {
			switchStory(t, func(f *fixture, before, after rotation.Version) {
				f.reconcile(ruling(after, rotation.ConfirmByHand, "jenkins"))
				f.refuse(call, unreachable)
				f.log.Reset()
				_ = f.r.Reconcile(f.Context(), ruling(after, rotation.ConfirmByHand, "nightly"))
				line := ""
				for text := range strings.Lines(f.log.String()) {
					if strings.Contains(text, "act=switch-over-confirm") {
						line = text
					}
				}
				want(f, "the audit line says "+outcome, strings.Contains(line, outcome), true)
			})
		})
	}
}

func TestARepeatedConfirmationChangesNothing(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		for _, name := range []string{"jenkins", "nightly"} {
			f.reconcile(f.confirm(after, name, rotation.HasSwitched))
		}
		tag := f.latest(after.Name).Ledger.Confirmed
		f.pass(time.Hour)
		updates := f.world.Calls()["vault.Update"]
		f.reconcile(f.confirm(after, "nightly", rotation.HasSwitched))
		f.reconcile(f.confirm(after, "nightly", rotation.SwitchFailed))
		want(f, "the tag", f.latest(after.Name).Ledger.Confirmed, tag)
		want(f, "writes", f.world.Calls()["vault.Update"], updates)
		want(f, "switched events", len(published[*rotation.SwitchedOver](f)), 1)
		want(f, "failure events", len(published[*rotation.SwitchRefused](f)), 0)
	})
}

func TestALostSignInDoesNotKeepAConfirmationOut(t *testing.T) {
	switchStory(t, func(f *fixture, before, after rotation.Version) {
		f.refuse("devops.List", &rotation.Error{Class: rotation.SignIn, Code: "AADSTS50076", Message: "sign in"})
		f.pass(20 * time.Minute)
		f.reconcile(f.confirm(after, "jenkins", rotation.HasSwitched))
		state, _ := rotation.ParseConfirmed(f.latest(after.Name).Ledger.Confirmed).Of("jenkins")
		want(f, "the consumer's state", state, rotation.Switched)
	})
}

func TestTooManyTagsOfOthersAreFoundBeforeAPATWithConsumersIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := consumed()
		f := newFixture(t, s)
		f.sweep()
		f.world.Edit(s.Name, func(v *rotation.Version) {
			v.Foreign = map[string]string{}
			for _, tag := range []string{"a", "b", "c", "d", "e", "f"} {
				v.Foreign[tag] = "x"
			}
		})
		made := len(f.world.PATs())
		f.pass(time.Until(f.holds(s.Name).ValidTo.Add(-9 * rotation.Day)))
		f.sweep()
		want(f, "PATs made", len(f.world.PATs()), made)
		failed := published[*rotation.RotationFailed](f)
		if len(failed) == 0 {
			t.Fatal("nothing tells that the tags are full")
		}
		want(f, "code", failed[0].Code, rotation.TagsFull)
	})
}
