package reconcile_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/reconcile/portstest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// order is a person's order by HTTP to rotate away from the PAT in force.
func (f *fixture) order(name string, ends rotation.RevokePrevious) {
	f.Helper()
	v := f.latest(name)
	c := rotation.Command{PAT: name, Reason: rotation.Requested, From: v.Ledger.AuthorizationID, RevokePrevious: ends,
		RequestedBy: "alice", Operation: "op-1"}
	a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
	err := a.Order(f.Context(), c, &v)
	if err != nil {
		f.Fatalf("order: %v", err)
	}
}

// hours lets hours go by, with a sweep every six of them, as the timer does.
func (f *fixture) hours(n int) {
	f.Helper()
	for i := range n {
		if i%6 == 0 {
			f.sweep()
		}
		f.pass(time.Hour - time.Second)
	}
}

var unreachable = &rotation.Error{Class: rotation.Transient, Code: "unreachable", Message: "no answer"}

func TestAnOrderOutlastsAnOutageOfAnHour(t *testing.T) {
	for name, call := range map[string]string{
		"of Azure DevOps": "devops.Create", "of the proof": "devops.Prove", "of the store": "vault.Store",
		"of the lists": "devops.List", "of reading the vault": "vault.Current",
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.check(s.Name)
				leaked := f.holds(s.Name)
				f.order(s.Name, rotation.Now)
				f.refuse(call, unreachable)
				f.pass(3 * time.Hour)
				f.refuseNothing()
				f.pass(16 * time.Minute)
				want(f, "the leaked PAT works after it", leaked.Works(time.Now()), false)
				f.holds(s.Name)
			})
		})
	}
}

func TestAnOrderOutlastsARefusalThatAPersonMustMend(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.order(s.Name, rotation.Now)
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Policy, Code: "patLifespanPolicyViolation",
			Message: "refused"})
		f.pass(26 * time.Hour)
		failures := published[*rotation.RotationFailed](f)
		want(f, "failures published in 26 hours", len(failures), 2)
		want(f, "a retry is announced", failures[0].RetryAt.IsZero(), false)
		f.refuseNothing()
		f.pass(16 * time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
	})
}

func TestAnOrderMakesAPATAnHourAtTheMostWhileTheStoreRefuses(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.order(s.Name, rotation.Now)
		f.refuse("vault.Store", &rotation.Error{Class: rotation.Policy, Code: "ForbiddenByPolicy", Message: "refused"})
		f.pass(6*time.Hour + time.Minute)
		if made := len(f.world.PATs()) - 1; made < 4 || made > 8 {
			t.Errorf("%d PATs made in six hours of refused stores, want about one an hour", made)
		}
		for _, p := range f.world.PATs()[1:] {
			want(f, "a PAT that was not stored works", p.Works(time.Now()), false)
		}
	})
}

func TestAnOrderIsFoundOnTheVersionWhenItsMessageIsLost(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.order(s.Name, rotation.Now)
		for range f.world.Queue() {
			f.world.Take(time.Now()) // the message is gone
		}
		f.restart()
		f.sweep()
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
		done := f.latest(s.Name).Ledger
		want(f, "the successor says what it has done", done.Facts.Done, "op-1")
		want(f, "the order is cleared", done.Facts.Order.Stands(), false)
		want(f, "who asked", done.RequestedBy, "alice")
	})
}

func TestAnOrderInAMessageAloneIsWrittenDownWhenItsFirstAttemptFails(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.refuse("devops.Create", unreachable)
		f.reconcile(rotation.Command{PAT: s.Name, Reason: rotation.Compromised, From: leaked.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: "pipeline", Operation: "op-7"})
		got := f.latest(s.Name).Ledger.Facts.Order
		want(f, "order on the version", got.RevokePrevious, rotation.Now)
		want(f, "by", got.By, "pipeline")
		want(f, "operation", got.Operation, "op-7")
	})
}

func TestAnOrderWhoseWriteFailsIsCarriedByItsMessage(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.refuse("vault.Update", unreachable)
		f.order(s.Name, rotation.Now)
		f.pass(time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
	})
}

func TestAnOrderSurvivesAnAdoption(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		p := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, p.Value, nil)
		f.order(s.Name, rotation.Now)
		f.refuse("devops.Create", unreachable)
		f.pass(time.Minute)
		want(f, "adopted", f.latest(s.Name).Ledger.AuthorizationID, p.AuthorizationID)
		want(f, "the order stands", f.latest(s.Name).Ledger.Facts.Order.RevokePrevious, rotation.Now)
		f.refuseNothing()
		f.pass(16 * time.Minute)
		want(f, "the leaked PAT works", p.Works(time.Now()), false)
	})
}

func TestAnOrderFromBeforeAnAdoptionIsCarriedOutAfterIt(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		p := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, p.Value, nil)
		f.check(s.Name) // another command is faster
		want(f, "adopted", f.latest(s.Name).Ledger.AuthorizationID, p.AuthorizationID)
		order := rotation.Command{PAT: s.Name, Reason: rotation.Compromised, RevokePrevious: rotation.Now,
			RequestedBy: "alice", Operation: "op-3"}
		f.reconcile(order)
		want(f, "the leaked PAT works", p.Works(time.Now()), false)
		f.reconcile(order) // a copy of the message
		want(f, "PATs ever made", len(f.world.PATs()), 2)
	})
}

func TestAnOrderNowEndsAPATThatWasReplacedMeanwhile(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.pass(20 * rotation.Day)
		f.check(s.Name) // a routine rotation
		current := f.holds(s.Name)
		want(f, "the replaced PAT works in its overlap", leaked.Works(time.Now()), true)
		f.refuse("devops.Revoke", unreachable)
		f.reconcile(rotation.Command{PAT: s.Name, Reason: rotation.Compromised, From: leaked.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: "alice"})
		want(f, "it is written down", f.latest(s.Name).Ledger.Facts.PreviousEnds, rotation.EndsNow)
		f.refuseNothing()
		f.pass(16 * time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
		want(f, "the PAT in force stays", f.holds(s.Name).AuthorizationID, current.AuthorizationID)
	})
}

func TestALeakedPATEndsThoughNothingCanBeSent(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.order(s.Name, rotation.Now)
		f.refuse("bus.Publish", &rotation.Error{Class: rotation.Configuration, Code: "amqp:unauthorized-access",
			Message: "refused", Service: rotation.ServiceBus})
		f.pass(time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
		f.holds(s.Name)
		f.refuseNothing()
		f.sweep()
		want(f, "rotations announced", len(published[*rotation.Rotated](f)), 2)
		want(f, "revocations announced", len(published[*rotation.Revoked](f)), 1)
	})
}

func TestARefusedRotationDoesNotHoldUpTheEndOfAnOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(20 * rotation.Day)
		f.check(s.Name)
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Policy, Code: "disablePatCreationPolicyViolation",
			Message: "refused"})
		f.specs[0].Scopes = []string{"vso.code"} // drift that is refused
		f.pass(25 * time.Hour)
		want(f, "the replaced PAT works", old.Works(time.Now()), false)
	})
}

func TestASweepOfAnOlderPatrolOrdersNothing(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		current := f.holds(s.Name)
		for _, by := range []string{"timer", "vault-event", "sign-in"} {
			f.reconcile(rotation.Command{PAT: s.Name, Reason: rotation.Compromised, From: current.AuthorizationID,
				RevokePrevious: rotation.Now, RequestedBy: by})
		}
		want(f, "PATs ever made", len(f.world.PATs()), 1)
		f.reconcile(rotation.Command{PAT: s.Name, Reason: rotation.Compromised, From: current.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: "http"})
		want(f, "PATs ever made after a person's order", len(f.world.PATs()), 2)
	})
}

func TestAShortLivedSuccessorDoesNotEndThePATBeforeIt(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.specs[0].Overlap = 5 * rotation.Day
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Minute)
		second := f.holds(s.Name)
		second.ValidTo = time.Now().Add(rotation.Day) // a policy of one day
		f.world.Edit(s.Name, func(v *rotation.Version) { v.Expires = second.ValidTo })
		f.pass(20 * time.Hour)
		f.sweep()
		third := f.holds(s.Name)
		if third == second {
			t.Fatal("the short-lived PAT was not replaced")
		}
		f.hours(60)
		want(f, "the first PAT works within its five days", first.Works(time.Now()), true)
	})
}

func TestAPATRevokedByHandLeavesTheOthersTheirOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		second := f.holds(s.Name)
		second.Revoked = time.Now() // in the portal
		f.sweep()
		want(f, "the first PAT works in its overlap", first.Works(time.Now()), true)
		f.holds(s.Name)
		f.hours(30)
		for _, e := range published[*rotation.Revoked](f) {
			if e.Cause == rotation.CauseRequested {
				t.Errorf("the end of %s is called requested; nobody asked", e.AuthorizationID)
			}
		}
	})
}

func TestASlowStoreTakesNothingFromTheOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(time.Hour)
		f.order(s.Name, rotation.AfterOverlap)
		f.world.Before = func(call string) error {
			if strings.HasPrefix(call, "vault.Store") {
				time.Sleep(61 * time.Second)
			}
			return nil
		}
		f.pass(5 * time.Minute)
		readable := f.latest(s.Name).Created
		f.refuseNothing()
		f.pass(26 * time.Hour)
		if lasted := old.Revoked.Sub(readable); lasted < s.Overlap {
			t.Errorf("the overlap lasted %v after the new version could be read, want %v", lasted, s.Overlap)
		}
	})
}

func TestRetriesGoOnTowardsTheEndOfAPAT(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.hours(24 * 17)
		f.refuse("devops.Create", unreachable)
		f.hours(24*12 + 22)
		f.refuseNothing() // two hours before the end
		f.pass(20 * time.Minute)
		want(f, "PATs ever made", len(f.world.PATs()), 2)
		f.holds(s.Name)
	})
}

func TestAStandingThrottlingIsPublishedAndBounded(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("devops.Create", &rotation.Error{Class: rotation.Throttled, Code: "429", Message: "slow down",
			Service: rotation.AzureDevOps})
		f.hours(48)
		failures := published[*rotation.RotationFailed](f)
		if n := len(failures); n < 2 || n > 6 {
			t.Errorf("%d failures published in two days of throttling, want two or three", n)
		}
		if n := f.world.Calls()["bus.Send"]; n > 500 {
			t.Errorf("%d commands sent in two days of throttling of one PAT", n)
		}
	})
}

func TestAThrottlingOfKeyVaultDoesNotPauseTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first, second)
		f.refuse("vault.Store "+first.Name, &rotation.Error{Class: rotation.Throttled, Code: "429",
			After: 5 * time.Minute, Message: "slow down", Service: rotation.KeyVault})
		f.check(first.Name)
		f.check(second.Name)
		f.holds(second.Name)
	})
}

func TestAnUnknownEntryIsPutOffForADayAndThenPublished(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.reconcile(rotation.Command{PAT: "new-entry", Reason: rotation.Check})
		f.pass(23 * time.Hour)
		want(f, "failures published", len(published[*rotation.RotationFailed](f)), 0)
		want(f, "commands that wait", len(f.world.Queue()), 1)
		f.pass(2 * time.Hour)
		failures := published[*rotation.RotationFailed](f)
		want(f, "failures published", len(failures), 1)
		want(f, "code", failures[0].Code, rotation.UnknownEntry)
		want(f, "commands that wait", len(f.world.Queue()), 0)
	})
}

func TestAnEntryIsTakenUpWhenItsManifestArrives(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.reconcile(rotation.Command{PAT: "nuget-feed", Reason: rotation.Check})
		added := agents()
		added.Name, added.DisplayName = "nuget-feed", "NuGet feed"
		f.specs = append(f.specs, added)
		f.pass(20 * time.Minute)
		f.holds("nuget-feed")
	})
}

func TestWhatWasBegunIsFinishedForAnEntryThatLeftTheManifest(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(20 * rotation.Day)
		f.check(s.Name)
		current := f.holds(s.Name)
		f.specs = nil
		f.pass(26 * time.Hour)
		want(f, "the replaced PAT works", old.Works(time.Now()), false)
		want(f, "the PAT in force works", current.Works(time.Now()), true)
		want(f, "failures published", len(published[*rotation.RotationFailed](f)), 0)
	})
}

func TestTwoManifestsDoNotUndoEachOther(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		for range 8 {
			f.pass(15 * time.Minute)
			f.specs[0].Scopes = []string{"vso.code"}
			f.check(s.Name)
			f.pass(15 * time.Minute)
			f.specs[0].Scopes = s.Scopes
			f.check(s.Name)
		}
		want(f, "PATs ever made", len(f.world.PATs()), 2)
		failures := published[*rotation.RotationFailed](f)
		if len(failures) == 0 {
			t.Fatal("nobody was told")
		}
		want(f, "code", failures[0].Code, rotation.ManifestConflict)
	})
}

func TestTwoManifestsDoNotUndoEachOtherOnceAShortOverlapHasEnded(t *testing.T) {
	for name, shown := range map[string]bool{"revoked PATs are shown by id": true, "they are not": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.world.ShowRevokedByID = shown
				f.specs[0].Overlap = time.Hour
				f.check(s.Name)
				for range 2 {
					f.pass(6 * time.Hour)
					f.specs[0].Scopes = []string{"vso.code"}
					f.check(s.Name)
					f.pass(6 * time.Hour)
					f.specs[0].Scopes = s.Scopes
					f.check(s.Name)
				}
				want(f, "PATs ever made", len(f.world.PATs()), 2)
			})
		})
	}
}

func TestAnOverlapCanBeLengthened(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		until := time.Now().Add(4 * rotation.Day)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		_, err := a.SetOverlap(f.Context(), s.Name, until)
		if err != nil {
			t.Fatal(err)
		}
		asked := f.latest(s.Name).Ledger.RevokePreviousAt
		again, err := a.SetOverlap(f.Context(), s.Name, until)
		if err != nil {
			t.Errorf("a repeat: %v", err)
		}
		want(f, "the repeat's answer", again.Until, asked)
		f.hours(24 * 4)
		want(f, "the replaced PAT works until then", old.Works(time.Now()), true)
		f.pass(2 * time.Hour)
		want(f, "and no longer", old.Works(time.Now()), false)
		_, err = a.SetOverlap(f.Context(), s.Name, time.Now().Add(time.Hour))
		refusal, ok := errors.AsType[*reconcile.Refusal](err)
		if !ok {
			t.Fatalf("lengthening an overlap that has ended: %v, want a refusal", err)
		}
		want(f, "code", refusal.Code, reconcile.NothingReplaced)
	})
}

func TestAnOverlapIsNeverShortened(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Minute)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		_, err := a.SetOverlap(f.Context(), s.Name, time.Now().Add(time.Hour))
		refusal, ok := errors.AsType[*reconcile.Refusal](err)
		if !ok {
			t.Fatalf("shortening an overlap: %v, want a refusal", err)
		}
		want(f, "code", refusal.Code, reconcile.BadEnd)
	})
}

func TestThePATBeforeCanBeMadeCurrentAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		second := f.holds(s.Name)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		restored, err := a.Restore(f.Context(), s.Name, "alice", "op-9")
		if err != nil {
			t.Fatal(err)
		}
		f.pass(time.Minute)
		want(f, "restored PAT", restored.AuthorizationID, first.AuthorizationID)
		want(f, "PAT in force", f.holds(s.Name).AuthorizationID, first.AuthorizationID)
		f.hours(30)
		want(f, "PAT in force a day later", f.holds(s.Name).AuthorizationID, first.AuthorizationID)
		want(f, "the one that was rolled back works after its overlap", second.Works(time.Now()), false)
	})
}

func TestAPATThatWasOrderedToEndIsNotRestored(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.order(s.Name, rotation.Now)
		f.pass(time.Minute)
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		_, err := a.Restore(f.Context(), s.Name, "alice", "op-9")
		refusal, ok := errors.AsType[*reconcile.Refusal](err)
		if !ok {
			t.Fatalf("restoring after now: %v, want a refusal", err)
		}
		want(f, "code", refusal.Code, reconcile.OrderedToEnd)
	})
}

func TestAnOrderNowEndsItsPATThoughTheSecretWasPurged(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.order(s.Name, rotation.Now)
		f.world.PurgeSecret(s.Name)
		f.refuse("devops.Revoke", unreachable)
		f.pass(time.Minute)
		f.refuseNothing()
		f.pass(20 * time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
		f.holds(s.Name)
	})
}

func TestAnOrderNamesNoOtherEntrysPAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first, second)
		f.sweep()
		others := f.holds(second.Name)
		f.reconcile(rotation.Command{PAT: first.Name, Reason: rotation.Compromised, From: others.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: "mallory"})
		want(f, "the other entry's PAT works", others.Works(time.Now()), true)
	})
}
