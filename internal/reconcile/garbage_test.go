package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile/portstest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// attempt is a PAT that a rotation has made and not stored, in the place of a version.
func (f *fixture) attempt(s rotation.Spec, version string) *portstest.PAT {
	f.Helper()
	name := rotation.DisplayName(s.DisplayName, machineTag, rotation.RotationID(s.Name, version))
	return f.world.MakePAT(s.Owner(), name, s.Scopes, s.Lifetime)
}

func TestAnInterruptedAttemptIsEndedByTheSweepAfterFifteenMinutes(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		left := f.attempt(s, f.latest(s.Name).ID)
		f.pass(14 * time.Minute)
		f.sweep()
		want(f, "it works when it is young", left.Works(time.Now()), true)
		f.pass(2 * time.Minute)
		f.sweep()
		want(f, "it works when it is old enough", left.Works(time.Now()), false)
		events := published[*rotation.Revoked](f)
		want(f, "events", len(events), 1)
		want(f, "cause", events[0].Cause, rotation.Orphan)
		f.holds(s.Name)
	})
}

func TestTheAttemptOfARemovedEntryIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept, removed := agents(), agents()
		removed.Name, removed.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, kept, removed)
		f.sweep()
		left := f.attempt(removed, f.latest(removed.Name).ID)
		held := f.holds(removed.Name)
		f.specs = f.specs[:1]
		f.hours(13)
		want(f, "the attempt works", left.Works(time.Now()), false)
		want(f, "the PAT that its secret holds works", held.Works(time.Now()), true)
	})
}

func TestAPATOfAPurgedSecretLivesThroughItsOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(rotation.Day)
		f.world.PurgeSecret(s.Name)
		f.hours(23)
		want(f, "the old PAT works within the overlap", old.Works(time.Now()), true)
		f.holds(s.Name)
		f.hours(12)
		want(f, "the old PAT works after it", old.Works(time.Now()), false)
	})
}

func TestAPATThatWasReplacedBeforeItsSecretWasPurgedLivesThroughItsOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(2 * rotation.Day)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		f.world.PurgeSecret(s.Name)
		f.sweep()
		want(f, "the replaced PAT works in its overlap", old.Works(time.Now()), true)
		f.hours(36)
		want(f, "the replaced PAT works after it", old.Works(time.Now()), false)
	})
}

func TestAPATThatNoSecretPointsToIsShownAndKept(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		unknown := f.world.MakePAT(s.Owner(), rotation.DisplayName("Once upon a time", machineTag, "zzzzzzzzzz"),
			s.Scopes, 30*rotation.Day)
		f.hours(72)
		want(f, "it works", unknown.Works(time.Now()), true)
		plan := f.sweep()
		want(f, "unmanaged", len(plan.Unmanaged), 1)
		want(f, "which", plan.Unmanaged[0].PAT.AuthorizationID, unknown.AuthorizationID)
	})
}

func TestTwoDeploymentsOverOneVaultOfPATsLeaveEachOtherAlone(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		other := f.world.MakePAT(s.Owner(), rotation.DisplayName(s.DisplayName, "zz99zz",
			rotation.RotationID(s.Name, "")), s.Scopes, 30*rotation.Day)
		f.hours(72)
		want(f, "the other deployment's PAT works", other.Works(time.Now()), true)
	})
}

func TestTwoEntriesWithOneDisplayNameDoNotEndEachOthersPATs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.Identity = "jenkins-agents-2", "release-bot"
		f := newFixture(t, first, second)
		f.hours(72)
		f.holds(first.Name)
		f.holds(second.Name)
		want(f, "PATs ever made", len(f.world.PATs()), 2)
	})
}

func TestACanaryIsGarbage(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		canary := f.world.MakePAT(s.Owner(), rotation.CanaryName, s.Scopes, rotation.Day)
		f.pass(16 * time.Minute)
		f.sweep()
		want(f, "the canary works", canary.Works(time.Now()), false)
	})
}

func TestWhileADeletedSecretMayHoldItAPATIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first, second)
		f.sweep()
		name := rotation.DisplayName(first.DisplayName, machineTag, "zzzzzzzzzz")
		restorable := f.world.MakePAT(first.Owner(), name, first.Scopes, 30*rotation.Day)
		f.specs = f.specs[:1]
		f.world.DeleteSecret(second.Name)
		f.hours(72)
		want(f, "it works", restorable.Works(time.Now()), true)
	})
}

func TestAVersionThatNoLinkLeadsToEndsAfterItsOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		// Two instances at once: both replaced the same version, and the later one is
		// current.
		lost := f.attempt(s, f.latest(s.Name).ID)
		f.world.PutVersion(s.Name, lost, rotation.Ledger{AuthorizationID: lost.AuthorizationID,
			ProviderAddress: machineProvider + s.Organization, Identity: s.Identity,
			RotationID: rotation.RotationID(s.Name, f.latest(s.Name).ID), AnnouncedAt: time.Now()})
		won := f.attempt(s, f.world.History(s.Name)[0].ID)
		replaced := f.world.History(s.Name)[0]
		f.world.PutVersion(s.Name, won, rotation.Ledger{AuthorizationID: won.AuthorizationID,
			ProviderAddress: machineProvider + s.Organization, Identity: s.Identity,
			RotationID: rotation.RotationID(s.Name, replaced.ID), AnnouncedAt: time.Now(),
			Previous: first.AuthorizationID, PreviousVersion: replaced.ID,
			RevokePreviousAt: time.Now().Add(s.Overlap + time.Minute)})
		f.hours(23)
		want(f, "the lost one works in its overlap", lost.Works(time.Now()), true)
		f.hours(14)
		want(f, "the lost one works after it", lost.Works(time.Now()), false)
		want(f, "PAT in force", f.holds(s.Name).AuthorizationID, won.AuthorizationID)
	})
}

func TestTheUserOfAnIdentityChanges(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.world.SignIn(s.Identity, "oid-alice")
		f.check(s.Name)
		alices := f.holds(s.Name)
		f.pass(rotation.Day)
		f.world.SignIn(s.Identity, "oid-bob")
		f.restart()
		f.sweep()
		f.hours(30)
		want(f, "PAT in force is of", f.holds(s.Name).User, "oid-bob")
		// Bob cannot end Alice's PAT, and patrol does not say that it has.
		want(f, "Alice's PAT works", alices.Works(time.Now()), true)
		want(f, "revocations published", len(published[*rotation.Revoked](f)), 0)
		codes := map[string]bool{}
		for _, e := range published[*rotation.RotationFailed](f) {
			codes[e.Code] = true
		}
		want(f, "owner-gone is published", codes[rotation.OwnerGone], true)
		f.world.SignIn(s.Identity, "oid-alice")
		f.restart()
		f.hours(7)
		want(f, "once Alice has signed in, her PAT works", alices.Works(time.Now()), false)
	})
}

func TestAPATMovedWhileItsOldOrganizationIsDownEndsLater(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(rotation.Day)
		f.specs[0].Organization = "fabrikam"
		f.refuse("devops.Revoke", unreachable)
		f.hours(96)
		want(f, "the old PAT works while its organization is down", old.Works(time.Now()), true)
		f.refuseNothing()
		f.restart()
		f.hours(13)
		want(f, "the old PAT works afterwards", old.Works(time.Now()), false)
	})
}

func TestWhatAnEarlierOwnerHasLeftIsEnded(t *testing.T) {
	cases := map[string]bool{"an identity of the manifest": false, "an identity that has left it": true}
	for name, left := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, other := agents(), agents()
				other.Name, other.DisplayName, other.Identity = "nuget-feed", "NuGet feed", "release-bot"
				f := newFixture(t, s, other)
				f.sweep()
				attempt := f.attempt(s, f.latest(s.Name).ID)
				f.specs[0].Identity = "release-bot"
				if left {
					f.world.PutSecret("patrol-identity-build-bot", "a sign-in", nil)
				} else {
					f.identities = []string{"build-bot", "release-bot"}
				}
				f.hours(60)
				want(f, "the attempt works", attempt.Works(time.Now()), false)
				f.holds(s.Name)
			})
		})
	}
}

func TestTheFirstPATOfASecretThatWasDeletedSoonIsKept(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		held := f.holds(s.Name)
		f.pass(time.Hour)
		f.world.DeleteSecret(s.Name)
		f.sweep()
		want(f, "the PAT of the deleted secret works", held.Works(time.Now()), true)
		f.hours(7)
		want(f, "the recovered secret holds it", f.holds(s.Name).AuthorizationID, held.AuthorizationID)
	})
}
