package reconcile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/reconcile/portstest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// fleet declares n PATs of one owner and lets them be made.
func fleet(t *testing.T, n int) *fixture {
	t.Helper()
	specs := make([]rotation.Spec, n)
	for i := range specs {
		specs[i] = agents()
		specs[i].Name = fmt.Sprintf("agents-%02d", i)
		specs[i].DisplayName = fmt.Sprintf("Agents %02d", i)
	}
	f := newFixture(t, specs...)
	f.sweep()
	f.pass(time.Hour)
	return f
}

// alive counts the PATs that work.
func (f *fixture) alive() int {
	n := 0
	for _, p := range f.world.PATs() {
		if p.Works(time.Now()) {
			n++
		}
	}
	return n
}

// troubles are the codes of the published troubles.
func (f *fixture) troubles() []string {
	var out []string
	for _, e := range published[*rotation.CheckIncomplete](f) {
		out = append(out, e.Code)
	}
	return out
}

func TestOneListWithoutPATsEndsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 40)
		f.world.HideFrom(func(portstest.View, *portstest.PAT) bool { return true }, 1)
		f.restart()
		f.sweep()
		f.pass(time.Hour)
		want(f, "PATs alive", f.alive(), 40)
		want(f, "PATs ever made", len(f.world.PATs()), 40)
	})
}

func TestListsWithoutTheirLastPageEndNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 40)
		hidden := func(v portstest.View, p *portstest.PAT) bool {
			return v == portstest.InList && p.DisplayName > "Agents 20"
		}
		f.world.HideFrom(hidden, -1)
		f.restart()
		for range 4 {
			f.sweep()
			f.pass(6 * time.Hour)
		}
		want(f, "PATs alive", f.alive(), 40)
		want(f, "PATs ever made", len(f.world.PATs()), 40)
	})
}

func TestAPATThatOneListHidesIsNotReplaced(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.pass(time.Hour)
		f.world.HideFrom(func(v portstest.View, _ *portstest.PAT) bool { return v == portstest.InList }, -1)
		f.restart()
		f.sweep()
		want(f, "PATs ever made", len(f.world.PATs()), 1)
	})
}

func TestAPATThatEveryReadShowsOrHidesIsJudgedByTheOrganization(t *testing.T) {
	for name, works := range map[string]bool{"it takes the value": true, "it refuses the value": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.check(s.Name)
				old := f.holds(s.Name)
				f.pass(time.Hour)
				if !works {
					old.Revoked = time.Now()
				}
				f.world.ShowRevokedByID = true
				f.world.HideFrom(func(v portstest.View, p *portstest.PAT) bool {
					return v == portstest.InList && p == old
				}, -1)
				f.restart()
				f.sweep()
				made := 1
				if !works {
					made = 2
				}
				want(f, "PATs ever made", len(f.world.PATs()), made)
				f.holds(s.Name)
			})
		})
	}
}

func TestGoneNeverEndsAnotherPATAtOnce(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		f.holds(s.Name).Revoked = time.Now()
		f.sweep()
		want(f, "reason", f.latest(s.Name).Ledger.Reason, rotation.Compromised)
		want(f, "previous ends", f.latest(s.Name).Ledger.Facts.PreviousEnds, rotation.EndsAfterOverlap)
		want(f, "the first PAT works", first.Works(time.Now()), true)
	})
}

// accept is a person's word about so many PATs of an owner, for a day.
func accept(o rotation.Owner, pats int) reconcile.Acceptance {
	return reconcile.Acceptance{Owner: o,
		MassChange: rotation.MassChange{PATs: pats, Until: time.Now().Add(rotation.Day)}}
}

func TestTheBrakeHoldsAMassRevocationBackUntilAPersonAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 10)
		for _, p := range f.world.PATs()[:5] {
			p.Revoked = time.Now()
		}
		f.restart()
		f.sweep()
		f.pass(time.Hour)
		want(f, "PATs ever made", len(f.world.PATs()), 10)
		if got := f.troubles(); !slices.Equal(got, []string{rotation.MassChangeWaits}) {
			t.Errorf("troubles published: %q", got)
		}
		if got := f.r.Troubles(); len(got) != 1 || got[0].PATs != 5 || got[0].Code != rotation.MassChangeWaits {
			t.Errorf("troubles that stand: %+v", got)
		}
		accepted := accept(f.specs[0].Owner(), 5)
		accepted.Owner.Organization = "another"
		_, err := f.r.SweepAccepting(f.Context(), f.swept, "alice", accepted)
		if err != nil {
			t.Fatal(err)
		}
		f.pass(time.Hour)
		want(f, "PATs ever made once another owner's change is accepted", len(f.world.PATs()), 10)
		_, err = f.r.SweepAccepting(f.Context(), f.swept, "alice", accept(f.specs[0].Owner(), 5))
		if err != nil {
			t.Fatal(err)
		}
		f.pass(time.Hour)
		want(f, "PATs ever made once it is accepted", len(f.world.PATs()), 15)
		f.sweep()
		want(f, "it is over", len(published[*rotation.CheckRecovered](f)), 1)
	})
}

func TestTheBrakeHoldsForNoMoreThanWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 10)
		for _, p := range f.world.PATs()[:6] {
			p.Revoked = time.Now()
		}
		f.restart()
		_, err := f.r.SweepAccepting(f.Context(), f.swept, "alice", accept(f.specs[0].Owner(), 5))
		if err != nil {
			t.Fatal(err)
		}
		f.pass(time.Hour)
		want(f, "PATs ever made", len(f.world.PATs()), 10)
	})
}

func TestTheBrakeLetsOrdersAndDueRotationsPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 10)
		for i := range f.specs {
			f.specs[i].Scopes = []string{"vso.code"}
		}
		f.restart()
		f.sweep()
		f.pass(time.Minute)
		want(f, "PATs made by drift", len(f.world.PATs()), 10)
		f.order("agents-03", rotation.AfterOverlap)
		f.pass(time.Minute)
		want(f, "PATs made with one order", len(f.world.PATs()), 11)
		f.pass(21 * rotation.Day)
		f.sweep()
		f.pass(time.Minute)
		want(f, "PATs made when all came due", len(f.world.PATs()), 21)
	})
}

func TestAFewGoneAtOnceNeedNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 10)
		for _, p := range f.world.PATs()[:3] {
			p.Revoked = time.Now()
		}
		f.restart()
		f.sweep()
		f.pass(time.Minute)
		want(f, "PATs ever made", len(f.world.PATs()), 13)
		want(f, "troubles", strings.Join(f.troubles(), " "), "")
	})
}

func TestAListedPATThatTheOrganizationRefusesIsFoundWithinADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 6)
		f.world.PATs()[2].Refused = true
		f.hours(36)
		want(f, "PATs ever made", len(f.world.PATs()), 7)
		replaced := f.latest("agents-02").Ledger
		want(f, "reason", replaced.Reason, rotation.Drift)
		f.holds("agents-03")
	})
}

func TestAnOrganizationThatRefusesEveryPATGetsNoNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 6)
		for _, p := range f.world.PATs() {
			p.Refused = true
		}
		f.world.RefuseNewPATs = true
		f.hours(49)
		if n := len(f.world.PATs()); n > 8 {
			t.Errorf("%d PATs were made in an organization that refuses all", n-6)
		}
		if !slices.Contains(f.troubles(), rotation.ValuesRefused) {
			t.Errorf("troubles published: %q, want %s", f.troubles(), rotation.ValuesRefused)
		}
	})
}

func TestEachPATIsProvedOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleet(t, 20)
		f.hours(12)
		before := f.world.Calls()["devops.Prove"]
		f.hours(24)
		want(f, "proofs in a day", f.world.Calls()["devops.Prove"]-before, 20)
	})
}
