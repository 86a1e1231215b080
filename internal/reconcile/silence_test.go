package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestAStandingRefusalIsPublishedAtOnceDailyAndWhenItIsOver(t *testing.T) {
	forbidden := &rotation.Error{Class: rotation.Configuration, Code: rotation.VaultForbidden, Message: "role missing",
		Service: rotation.KeyVault}
	signIn := &rotation.Error{Class: rotation.SignIn, Code: "AADSTS50076", Message: "sign in"}
	unauthorized := &rotation.Error{Class: rotation.Policy, Code: "ado-unauthorized", Message: "refused"}
	for name, tt := range map[string]struct {
		call  string
		err   error
		scope rotation.Scope
		code  string
	}{
		"a lost role":               {"vault.Secrets", forbidden, rotation.ScopeVault, rotation.VaultForbidden},
		"a lost sign-in":            {"devops.List", signIn, rotation.ScopeIdentity, signIn.Code},
		"an organization":           {"devops.List", unauthorized, rotation.ScopeOrganization, unauthorized.Code},
		"a refused token by policy": {"entra.Refresh", unauthorized, rotation.ScopeIdentity, unauthorized.Code},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.sweep()
				f.refuse(tt.call, tt.err)
				f.sweep()
				incomplete := published[*rotation.CheckIncomplete](f)
				if len(incomplete) != 1 {
					t.Fatalf("%d events at the first sweep, want 1", len(incomplete))
				}
				want(f, "scope", incomplete[0].Scope, tt.scope)
				want(f, "code", incomplete[0].Code, tt.code)
				want(f, "PATs affected", incomplete[0].PATs, 1)
				since := time.Now()
				for time.Since(since) < 71*time.Hour {
					f.pass(6 * time.Hour)
					f.sweep()
				}
				want(f, "events at once and in three days", len(published[*rotation.CheckIncomplete](f)), 4)
				f.refuseNothing()
				f.sweep()
				recovered := published[*rotation.CheckRecovered](f)
				if len(recovered) != 1 {
					t.Fatalf("%d events when it is over, want 1", len(recovered))
				}
				want(f, "since", recovered[0].Since.Equal(incomplete[0].Since), true)
			})
		})
	}
}

func TestAPassingFailureIsPublishedAfterAnHour(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		f.refuse("devops.List", unreachable)
		f.pass(10 * time.Minute)
		f.sweep()
		want(f, "events at once", len(published[*rotation.CheckIncomplete](f)), 0)
		f.pass(time.Hour)
		f.sweep()
		want(f, "events after an hour", len(published[*rotation.CheckIncomplete](f)), 1)
	})
}

func TestAnIdentityInTwoOrganizationsIsOneTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName, second.Organization = "nuget-feed", "NuGet feed", "fabrikam"
		f := newFixture(t, first, second)
		f.sweep()
		f.refuse("devops.List", &rotation.Error{Class: rotation.SignIn, Code: "AADSTS700082", Message: "sign in"})
		f.restart()
		f.sweep()
		incomplete := published[*rotation.CheckIncomplete](f)
		if len(incomplete) != 1 {
			t.Fatalf("%d events, want 1", len(incomplete))
		}
		want(f, "PATs affected", incomplete[0].PATs, 2)
	})
}

func TestATopicThatTakesNoEventKeepsNoPATFromBeingReplaced(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.refuse("bus.Publish", &rotation.Error{Class: rotation.Configuration, Code: "amqp:unauthorized-access",
			Message: "refused", Service: rotation.ServiceBus})
		for range 65 { // two lifetimes
			f.hours(24)
			f.holds(s.Name)
		}
		want(f, "PATs ever made", len(f.world.PATs()) > 3, true)
		made := len(f.world.PATs())
		f.refuseNothing()
		f.hours(7)
		announced := map[string]bool{}
		for _, e := range published[*rotation.Rotated](f) {
			announced[e.AuthorizationID] = true
		}
		if len(announced) < made-1 {
			t.Errorf("%d of %d rotations are announced once the topic takes events again", len(announced), made)
		}
	})
}

func TestASweepThatFailedIsFollowedByAnotherSoon(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("vault.Secrets", unreachable)
		f.sweep()
		f.pass(40 * time.Minute)
		f.refuseNothing()
		f.pass(16 * time.Minute)
		f.holds(s.Name)
		f.pass(time.Minute)
		for _, c := range f.world.Queue() {
			want(f, "another sweep waits", c.IsSweep(), false)
		}
	})
}

func TestARoleThatTakesFiveMinutesToWorkCostsNoSixHours(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("vault", &rotation.Error{Class: rotation.Configuration, Code: rotation.VaultForbidden,
			Message: "role missing", Service: rotation.KeyVault})
		f.sweep()
		f.pass(5 * time.Minute)
		f.refuseNothing()
		f.pass(11 * time.Minute)
		f.holds(s.Name)
	})
}

func TestAStandingRefusalDoesNotSweepForEver(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.refuse("vault", &rotation.Error{Class: rotation.Configuration, Code: rotation.VaultForbidden,
			Message: "role missing", Service: rotation.KeyVault})
		f.sweep()
		f.pass(rotation.Day)
		if n := f.world.Calls()["bus.Send"]; n > 8 {
			t.Errorf("%d commands in a day of a standing refusal", n)
		}
	})
}
