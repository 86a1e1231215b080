package reconcile_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/reconcile/portstest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// story runs a test in virtual time over one declared PAT.
func story(t *testing.T, f func(f *fixture, s rotation.Spec)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := agents()
		f(newFixture(t, s), s)
	})
}

func TestAMissingPATIsCreatedStoredAndAnnounced(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		v, p := f.latest(s.Name), f.holds(s.Name)
		want(f, "authorization id", v.Ledger.AuthorizationID, p.AuthorizationID)
		want(f, "reason", v.Ledger.Reason, rotation.Provision)
		want(f, "exp", v.Expires, p.ValidTo)
		want(f, "announced", v.Ledger.AnnouncedAt.IsZero(), false)
		events := published[*rotation.Rotated](f)
		want(f, "events", len(events), 1)
		want(f, "event's version", events[0].SecretVersion, v.ID)
		want(f, "event's previous", events[0].Previous == nil, true)
	})
}

func TestADuePATIsReplacedAndTheOldOneEndsAfterItsOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(20 * rotation.Day)
		replacedAt := time.Now()
		f.check(s.Name)
		f.pass(23 * time.Hour)
		want(f, "old PAT works within its overlap", old.Works(time.Now()), true)
		f.pass(2 * time.Hour)
		want(f, "old PAT is revoked", old.Revoked.IsZero(), false)
		if early := replacedAt.Add(s.Overlap); old.Revoked.Before(early) {
			f.Errorf("revoked at %v, before its overlap ended at %v", old.Revoked, early)
		}
		f.holds(s.Name)
		events := published[*rotation.Revoked](f)
		want(f, "events", len(events), 1)
		want(f, "cause", events[0].Cause, rotation.OverlapEnded)
		closed := f.world.History(s.Name)[0]
		want(f, "replaced version enabled", closed.Enabled, false)
		want(f, "replaced version closed", closed.Ledger.RevokedAt.IsZero(), false)
	})
}

func TestAnOrderNowEndsTheOldPATAtOnce(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(time.Hour)
		f.reconcile(rotation.Command{PAT: s.Name, Reason: rotation.Compromised, From: old.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: "alice"})
		want(f, "old PAT works", old.Works(time.Now()), false)
		f.holds(s.Name)
		events := published[*rotation.Revoked](f)
		want(f, "events", len(events), 1)
		want(f, "cause", events[0].Cause, rotation.CauseRequested)
	})
}

func TestAnOrderIsCarriedOutOnce(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		order := rotation.Command{PAT: s.Name, Reason: rotation.Requested, From: f.holds(s.Name).AuthorizationID}
		f.reconcile(order)
		f.reconcile(order)
		want(f, "PATs ever made", len(f.world.PATs()), 2)
	})
}

func TestAPATThatIsNotStoredIsEndedOnceItIsOldEnough(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.world.After = func(call string) error {
			if strings.HasPrefix(call, "devops.Create") {
				return &rotation.Error{Class: rotation.Ambiguous, Code: "timeout", Message: "no answer"}
			}
			return nil
		}
		f.check(s.Name)
		f.refuseNothing()
		f.pass(time.Hour)
		f.sweep()
		orphan := f.world.PATs()[0]
		want(f, "orphan works", orphan.Works(time.Now()), false)
		if age := orphan.Revoked.Sub(orphan.ValidFrom); age < rotation.OrphanAge {
			f.Errorf("an orphan was ended at the age of %v", age)
		}
		f.holds(s.Name)
	})
}

func TestARefusedStoreEndsTheNewPAT(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("vault.Store", &rotation.Error{Class: rotation.Policy, Code: "ForbiddenByPolicy", Message: "refused"})
		f.check(s.Name)
		want(f, "PATs made", len(f.world.PATs()), 1)
		want(f, "it works", f.world.PATs()[0].Works(time.Now()), false)
		failures := published[*rotation.RotationFailed](f)
		want(f, "failures published", len(failures), 1)
		want(f, "step", failures[0].Step, rotation.StepStore)
	})
}

func TestAValuePutByHandIsAdoptedIfOnePATBearsTheName(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		p := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, p.Value, map[string]string{"owner": "team-a"})
		f.check(s.Name)
		v := f.latest(s.Name)
		want(f, "authorization id", v.Ledger.AuthorizationID, p.AuthorizationID)
		want(f, "other people's tag", v.Foreign["owner"], "team-a")
		want(f, "exp", v.Expires, p.ValidTo)
		want(f, "PATs ever made", len(f.world.PATs()), 1)
	})
}

func TestAValuePutByHandIsLeftAloneIfSeveralPATsBearTheName(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		p := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, p.Value, nil)
		f.check(s.Name)
		want(f, "versions", len(f.world.History(s.Name)), 1)
		failures := published[*rotation.RotationFailed](f)
		want(f, "failures published", len(failures), 1)
		want(f, "code", failures[0].Code, rotation.AmbiguousAdoption)
	})
}

func TestADeletedSecretIsRecovered(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.world.DeleteSecret(s.Name)
		f.check(s.Name)
		want(f, "versions", len(f.world.History(s.Name)), 1)
		f.holds(s.Name)
	})
}

func TestAFailureThatMayPassIsRetriedByAScheduledCommand(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Transient, Code: "unreachable", Message: "no answer"})
		f.check(s.Name)
		want(f, "commands that wait", len(f.world.Queue()), 1)
		want(f, "failing", len(f.r.Failing()), 1)
		want(f, "failures published", len(published[*rotation.RotationFailed](f)), 0)
		f.refuseNothing()
		f.pass(10 * time.Minute)
		f.holds(s.Name)
		want(f, "failing", len(f.r.Failing()), 0)
	})
}

func TestAStandingFailureIsPublishedOnceADay(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Policy, Code: "patLifespanPolicyViolation",
			Message: "refused"})
		for range 4 {
			f.check(s.Name)
			time.Sleep(6 * time.Hour)
		}
		want(f, "failures published within a day", len(published[*rotation.RotationFailed](f)), 1)
		f.check(s.Name)
		want(f, "failures published after a day", len(published[*rotation.RotationFailed](f)), 2)
	})
}

func TestAThrottledIdentityRests(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Throttled, Code: "429", After: 2 * time.Minute,
			Message: "slow down"})
		f.check(s.Name)
		creates := f.world.Calls()["devops.Create"]
		f.check(s.Name)
		want(f, "creations while it rests", f.world.Calls()["devops.Create"], creates)
		for _, c := range f.world.Queue() {
			if c.At.Before(time.Now().Add(2 * time.Minute)) {
				f.Errorf("a command comes back at %v, within the pause", c.At)
			}
			want(f, "attempt", c.Attempt, 0)
		}
	})
}

func TestALostSignInIsNotRetriedByCommands(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("devops.List", &rotation.Error{Class: rotation.SignIn, Code: "AADSTS700082", Message: "sign in"})
		f.check(s.Name)
		want(f, "commands that wait", len(f.world.Queue()), 0)
		item, ok := f.r.Inspect(f.Context(), s.Name)
		want(f, "known", ok, true)
		want(f, "state", item.State, rotation.StateBlocked)
	})
}

func TestAProofThatNeedsSecondsIsTriedAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		begun := time.Now()
		f.world.Before = func(call string) error {
			if strings.HasPrefix(call, "devops.Prove") && time.Since(begun) < time.Second {
				return &rotation.Error{Class: rotation.Transient, Code: rotation.TokenRefused, Message: "not yet"}
			}
			return nil
		}
		f.check(s.Name)
		want(f, "PATs ever made", len(f.world.PATs()), 1)
		f.holds(s.Name)
	})
}

func TestASlowRotationDoesNotOvertakeAnotherInstance(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.pass(20 * rotation.Day)
		f.world.After = func(call string) error {
			if strings.HasPrefix(call, "devops.Create") {
				f.world.After = nil
				time.Sleep(time.Second)
				f.world.PutSecret(s.Name, strings.Repeat("s", 52), nil)
			}
			return nil
		}
		f.check(s.Name)
		latest := f.latest(s.Name)
		want(f, "latest value", latest.Value.Reveal(), strings.Repeat("s", 52))
		want(f, "the new PAT works", f.world.PATs()[1].Works(time.Now()), false)
	})
}

func TestASweepSendsACommandForEachPATThatNeedsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first, second)
		f.check(first.Name)
		plan, err := f.r.Sweep(f.Context(), time.Time{}, "timer")
		if err != nil {
			t.Fatal(err)
		}
		want(f, "items", len(plan.Items), 2)
		queue := f.world.Queue()
		want(f, "commands", len(queue), 1)
		want(f, "command's PAT", queue[0].PAT, second.Name)
	})
}

func TestASweepGoesOnPastWhatItCannotObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName, second.Organization = "nuget-feed", "NuGet feed", "fabrikam"
		f := newFixture(t, first, second)
		f.refuse("devops.List build-bot/contoso", &rotation.Error{Class: rotation.Transient, Message: "no answer"})
		plan, err := f.r.Sweep(f.Context(), time.Time{}, "timer")
		if err == nil {
			t.Error("the sweep says that it has observed everything")
		}
		want(f, "problems", len(plan.Problems), 1)
		want(f, "problem's organization", plan.Problems[0].Organization, "contoso")
		queue := f.world.Queue()
		if len(queue) != 2 {
			t.Fatalf("%d commands, want one for the PAT that was observed and one to sweep again", len(queue))
		}
		want(f, "first command's PAT", queue[0].PAT, second.Name)
		want(f, "second command is a sweep", queue[1].IsSweep(), true)
	})
}

func TestAnExtensionMovesTheEndInAzureDevOpsAndInTheVault(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		until := time.Now().Add(60 * rotation.Day).UTC().Truncate(time.Second)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		x, err := a.Extend(f.Context(), s.Name, until, "alice")
		if err != nil {
			t.Fatal(err)
		}
		want(f, "answered end", x.ValidTo, until)
		want(f, "end in Azure DevOps", f.holds(s.Name).ValidTo, until)
		want(f, "exp in the vault", f.latest(s.Name).Expires, until)
	})
}

func TestAPATInUseIsRevokedByForceOnlyAndThenRotated(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		used := f.holds(s.Name)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		target := reconcile.Target{AuthorizationID: used.AuthorizationID, RequestedBy: "alice", Operation: "op-1"}
		_, err := a.Revoke(f.Context(), target)
		refusal, ok := errors.AsType[*reconcile.Refusal](err)
		if !ok {
			t.Fatalf("revoking a PAT in use: %v, want a refusal", err)
		}
		want(f, "code", refusal.Code, reconcile.InUse)
		target.Force = true
		ended, err := a.Revoke(f.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		want(f, "replaced PAT", ended.Replacing, s.Name)
		want(f, "it works", used.Works(time.Now()), false)
		f.pass(time.Minute)
		f.holds(s.Name)
	})
}

// The check is the only thing that comes before a short life's end.
func TestACheckForADueTimeBeforeTheNextSweepOutlivesALostSend(t *testing.T) {
	short := agents()
	short.Lifetime, short.RotateBefore, short.Overlap = 2*time.Hour, 30*time.Minute, 15*time.Minute
	for lost := 1; lost <= 3; lost++ {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, short)
			sends := 0
			f.world.Before = func(call string) error {
				if call != "bus.Send" {
					return nil
				}
				sends++
				if sends == lost {
					return context.DeadlineExceeded
				}
				return nil
			}
			c, ok := rotation.Command{PAT: short.Name, Reason: rotation.Check}, true
			end := time.Now().Add(8 * time.Hour)
			for ok { // and no sweep
				time.Sleep(time.Until(c.At))
				err := f.r.Reconcile(t.Context(), c)
				if err != nil {
					f.reconcile(c) // the host delivers it again
				}
				c, ok = f.world.Take(end)
			}
			time.Sleep(time.Until(end))
			v := f.latest(short.Name)
			p := f.world.PAT(v.Ledger.AuthorizationID)
			if p == nil || !p.Works(time.Now()) {
				t.Errorf("send %d lost: the PAT of version %s has ended, and no check replaced it", lost, v.ID)
			}
		})
	}
}
