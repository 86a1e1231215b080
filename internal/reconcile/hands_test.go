package reconcile_test

import (
	"errors"
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

// untag replaces a secret's tags wholesale, as a person with the portal or a tool that
// knows its own tags only does.
func untag(v *rotation.Version) {
	v.Ledger, v.Foreign = rotation.Ledger{}, map[string]string{"owner": "x"}
}

func TestTakingTheTagsOffEndsNoPAT(t *testing.T) {
	for name, hand := range map[string]func(v *rotation.Version){
		"all of them":        untag,
		"CredentialId alone": func(v *rotation.Version) { v.Ledger.AuthorizationID = "" },
		"all but CredentialId": func(v *rotation.Version) {
			v.Ledger = rotation.Ledger{AuthorizationID: v.Ledger.AuthorizationID}
		},
		"patrol-facts alone":             func(v *rotation.Version) { v.Ledger.Facts = rotation.Facts{} },
		"patrol-previous-version":        func(v *rotation.Version) { v.Ledger.PreviousVersion = "" },
		"patrol-rotation":                func(v *rotation.Version) { v.Ledger.RotationID = "" },
		"patrol-identity":                func(v *rotation.Version) { v.Ledger.Identity = "" },
		"ProviderAddress":                func(v *rotation.Version) { v.Ledger.ProviderAddress = "" },
		"the time of the revocation":     func(v *rotation.Version) { v.Ledger.RevokePreviousAt = time.Time{} },
		"an earlier time on the version": func(v *rotation.Version) { v.Ledger.RevokePreviousAt = time.Now() },
		"exp five days ahead":            func(v *rotation.Version) { v.Expires = time.Now().Add(5 * rotation.Day) },
		"exp a minute ahead":             func(v *rotation.Version) { v.Expires = time.Now().Add(time.Minute) },
		"no exp":                         func(v *rotation.Version) { v.Expires = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.check(s.Name)
				old := f.holds(s.Name)
				f.order(s.Name, rotation.AfterOverlap)
				f.pass(time.Hour)
				current := f.holds(s.Name)
				replacedAt := time.Now().Add(-time.Hour)
				f.world.Edit(s.Name, hand)
				for range 48 {
					f.sweep()
					f.pass(time.Hour)
					if f.holds(s.Name) == current && !current.Works(time.Now()) {
						t.Fatal("the PAT in force is dead")
					}
					if !old.Revoked.IsZero() && old.Revoked.Before(replacedAt.Add(s.Overlap)) {
						t.Fatalf("the replaced PAT was ended %v after its replacement", old.Revoked.Sub(replacedAt))
					}
				}
			})
		})
	}
}

func TestAWipedLedgerIsWrittenAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		before := f.latest(s.Name).Ledger
		f.world.Edit(s.Name, untag)
		f.sweep()
		after := f.latest(s.Name)
		want(f, "authorization id", after.Ledger.AuthorizationID, before.AuthorizationID)
		want(f, "rotation id", after.Ledger.RotationID, before.RotationID)
		want(f, "previous version", after.Ledger.PreviousVersion, before.PreviousVersion)
		want(f, "the tag of others", after.Foreign["owner"], "x")
		want(f, "versions", len(f.world.History(s.Name)), 2)
	})
}

func TestARenamedEntryReleasesItsPAT(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.specs[0].Name = "jenkins-agents-2"
		f.hours(72)
		want(f, "the PAT of the old secret works", old.Works(time.Now()), true)
		f.holds("jenkins-agents-2")
	})
}

func TestARefusedEntryIsNotReleased(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.specs = nil
		want(f, "released without an entry", len(f.sweep().Released), 1)
		f.refused = []string{"Jenkins-Agents"} // Key Vault's names have no case
		f.restart()
		want(f, "released with a refused entry", len(f.sweep().Released), 0)
		want(f, "not managed with a refused entry", len(f.sweep().Unmanaged), 0)
		f.hours(72)
		want(f, "the PAT of the refused entry works", f.holds(s.Name).Works(time.Now()), true)
	})
}

func TestTheSameValuePutAgainIsTheSamePAT(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		second := f.holds(s.Name)
		f.world.PutSecret(s.Name, second.Value, nil)
		f.hours(20)
		want(f, "the PAT in force", f.holds(s.Name).AuthorizationID, second.AuthorizationID)
		want(f, "the replaced one works in its overlap", first.Works(time.Now()), true)
		want(f, "PATs ever made", len(f.world.PATs()), 2)
	})
}

func TestAnEarlierValuePutAgainIsCurrentAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		second := f.holds(s.Name)
		f.world.PutSecret(s.Name, first.Value+"\n", nil)
		f.hours(20)
		want(f, "the first PAT works", first.Works(time.Now()), true)
		want(f, "the second works in its overlap", second.Works(time.Now()), true)
		f.hours(30)
		want(f, "the first PAT works on", first.Works(time.Now()), true)
		want(f, "the second has ended", second.Works(time.Now()), false)
	})
}

func TestAPATThatAnotherSecretHoldsIsKept(t *testing.T) {
	for name, copied := range map[string]func(f *fixture, from rotation.Version){
		"with its tags": func(f *fixture, from rotation.Version) {
			f.world.PutVersion("a-copy", &portstest.PAT{Value: from.Value.Reveal()}, from.Ledger)
		},
		"without tags": func(f *fixture, from rotation.Version) {
			f.world.PutSecret("a-copy", from.Value.Reveal(), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.check(s.Name)
				old := f.holds(s.Name)
				f.pass(time.Minute)
				copied(f, f.latest(s.Name))
				f.pass(20 * rotation.Day)
				f.sweep()
				f.hours(60)
				want(f, "the PAT that the copy holds works", old.Works(time.Now()), true)
				codes := map[string]int{}
				for _, e := range published[*rotation.RotationFailed](f) {
					codes[e.Code]++
				}
				if codes[rotation.StillHeld] == 0 {
					t.Errorf("failures published: %v, want %s", codes, rotation.StillHeld)
				}
				f.world.PurgeSecret("a-copy")
				f.hours(12)
				want(f, "once the copy is gone it works", old.Works(time.Now()), false)
			})
		})
	}
}

func TestAnOrderNowEndsAPATThatAnotherSecretHolds(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		leaked := f.holds(s.Name)
		f.pass(time.Minute)
		f.world.PutVersion("a-copy", &portstest.PAT{Value: leaked.Value}, f.latest(s.Name).Ledger)
		f.order(s.Name, rotation.Now)
		f.pass(time.Minute)
		want(f, "the leaked PAT works", leaked.Works(time.Now()), false)
	})
}

func TestWithoutTheVaultsListAnOverlapDoesNotEnd(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Minute)
		f.refuse("vault.Secrets", unreachable)
		f.hours(30)
		want(f, "the replaced PAT works while the list cannot be had", old.Works(time.Now()), true)
		leaked := f.holds(s.Name)
		f.order(s.Name, rotation.Now)
		f.pass(time.Minute)
		want(f, "a leaked one works", leaked.Works(time.Now()), false)
		f.refuseNothing()
		f.hours(7)
		want(f, "the replaced PAT works afterwards", old.Works(time.Now()), false)
	})
}

func TestAPATCopiedFromAnotherVaultIsLeftToThatVault(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		others := f.world.MakePAT(s.Owner(), rotation.DisplayName(s.DisplayName, "zz99zz",
			rotation.RotationID(s.Name, "")), s.Scopes, 30*rotation.Day)
		f.world.PutVersion(s.Name, others, rotation.Ledger{AuthorizationID: others.AuthorizationID,
			ProviderAddress: machineProvider + s.Organization, Identity: s.Identity,
			RotationID: rotation.RotationID(s.Name, ""), AnnouncedAt: time.Now()})
		f.order(s.Name, rotation.AfterOverlap)
		f.hours(72)
		want(f, "the other vault's PAT works", others.Works(time.Now()), true)
		if f.holds(s.Name) == others {
			t.Error("the PAT was not replaced")
		}
	})
}

func TestTooManyTagsOfOthersAreFoundOutBeforeAPATIsMade(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.world.Edit(s.Name, func(v *rotation.Version) {
			v.Foreign = map[string]string{}
			for i := range 8 {
				v.Foreign[fmt.Sprint("team-", i)] = "x"
			}
		})
		f.hours(24 * 25)
		want(f, "PATs made while there is no room", len(f.world.PATs()), 1)
		failures := published[*rotation.RotationFailed](f)
		if len(failures) == 0 {
			t.Fatal("nobody was told")
		}
		want(f, "code", failures[0].Code, rotation.TagsFull)
		f.hours(24 * 6)
		want(f, "PATs made before the end came", len(f.world.PATs()), 2)
		f.holds(s.Name)
	})
}

func TestARefusedStoreMakesOnePATADay(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		f.hours(24 * 18)
		f.refuse("vault.Store", &rotation.Error{Class: rotation.Policy, Code: "ForbiddenByPolicy", Message: "refused"})
		f.hours(24 * 5)
		if n := len(f.world.PATs()) - 1; n < 3 || n > 8 {
			t.Errorf("%d PATs made in five days of refused stores", n)
		}
	})
}

func TestAValueThatIsNoPATIsNeverSentOrOverwritten(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.world.PutSecret(s.Name, "Server=tcp:db.contoso.com;Password=hunter2", nil)
		f.hours(72)
		want(f, "proofs", f.world.Calls()["devops.Prove"], 0)
		want(f, "versions", len(f.world.History(s.Name)), 1)
		failures := published[*rotation.RotationFailed](f)
		if len(failures) == 0 {
			t.Fatal("nobody was told")
		}
		want(f, "code", failures[0].Code, rotation.NotAPAT)
		f.specs[0].Adopt = rotation.AdoptReplace
		f.hours(7)
		f.holds(s.Name)
	})
}

func TestAnotherValueUnderTheTagsIsNotBelieved(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.holds(s.Name)
		l := f.latest(s.Name).Ledger
		f.world.PutVersion(s.Name, &portstest.PAT{Value: strings.Repeat("w", 52), PAT: rotation.PAT{
			ValidTo: first.ValidTo}}, l)
		put := time.Now()
		for first.Works(time.Now()) && time.Since(put) < 72*time.Hour {
			f.hours(1)
		}
		if lived := first.Revoked.Sub(put); lived < s.Overlap {
			t.Errorf("the first PAT lived %v after the wrong value was put, want its overlap of %v", lived, s.Overlap)
		}
		f.holds(s.Name)
	})
}

func TestALineFeedBehindAnAdoptedValueDoesNoHarm(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		p := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, p.Value+"\n", nil)
		f.check(s.Name)
		want(f, "adopted", f.latest(s.Name).Ledger.AuthorizationID, p.AuthorizationID)
		want(f, "versions", len(f.world.History(s.Name)), 1)
	})
}

func TestAPATComesDueBetweenTwoSweeps(t *testing.T) {
	for name, lives := range map[string][3]time.Duration{
		"24h, 2h, 1h": {24 * time.Hour, 2 * time.Hour, time.Hour},
		"7d, 3h, 2h":  {7 * rotation.Day, 3 * time.Hour, 2 * time.Hour},
		"3h, 1h, 30m": {3 * time.Hour, time.Hour, 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := agents()
				s.Lifetime, s.RotateBefore, s.Overlap = lives[0], lives[1], lives[2]
				f := newFixture(t, s)
				for range 24 * 9 {
					if f.swept.IsZero() || time.Since(f.swept) >= 6*time.Hour {
						f.sweep()
					}
					f.pass(time.Hour)
					f.holds(s.Name)
				}
				for i, p := range f.world.PATs()[:len(f.world.PATs())-2] {
					next := f.world.PATs()[i+1]
					if lived := p.Revoked.Sub(next.ValidFrom); !p.Revoked.IsZero() && lived < s.Overlap {
						t.Errorf("PAT %d had an overlap of %v, want %v", i, lived, s.Overlap)
					}
				}
			})
		})
	}
}

func TestARenamedOwnerIsTheSameOwner(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.world.SignIn(s.Identity, "oid-alice")
		f.check(s.Name)
		held := f.holds(s.Name)
		f.world.RenameOwner(s.Owner(), rotation.Owner{Identity: "ci-bot", Organization: "contoso-ltd"})
		f.world.SignIn("ci-bot", "oid-alice")
		f.specs[0].Identity, f.specs[0].Organization = "ci-bot", "contoso-ltd"
		f.restart()
		f.hours(72)
		want(f, "PAT in force", f.holds(s.Name).AuthorizationID, held.AuthorizationID)
		want(f, "the tag follows", f.latest(s.Name).Ledger.Identity, "ci-bot")
		want(f, "PATs ever made", len(f.world.PATs()), 1)
	})
}

func TestANewPATThatIsAnonymousForASecondIsTriedAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		begun := time.Now()
		f.world.Before = func(call string) error {
			if strings.HasPrefix(call, "devops.Prove") && time.Since(begun) < time.Second {
				return &rotation.Error{Class: rotation.Policy, Code: rotation.Anonymous, Message: "nobody's"}
			}
			return nil
		}
		f.check(s.Name)
		want(f, "PATs ever made", len(f.world.PATs()), 1)
		f.holds(s.Name)
	})
}

func TestTwoSecretsWithOnePATBothKeepAWorkingOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first)
		f.check(first.Name)
		held := f.latest(first.Name)
		f.world.PutVersion(second.Name, &portstest.PAT{Value: held.Value.Reveal(), PAT: rotation.PAT{
			ValidTo: held.Expires}}, held.Ledger)
		f.specs = append(f.specs, second)
		for range 40 {
			f.hours(24)
			f.holds(first.Name)
			f.holds(second.Name)
		}
	})
}

func TestAnExtensionThatShortensThePATIsRefusedAndThePATReplaced(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(10 * rotation.Day)
		f.world.MaxLife = 14 * rotation.Day // a policy younger than the PAT
		a := &reconcile.Actions{Reconciler: f.r, Ends: portstest.Ends{World: f.world}}
		_, err := a.Extend(f.Context(), s.Name, time.Now().Add(60*rotation.Day), "alice")
		refusal, ok := errors.AsType[*reconcile.Refusal](err)
		if !ok {
			t.Fatalf("extending: %v, want a refusal", err)
		}
		want(f, "code", refusal.Code, reconcile.ExtensionRefused)
		f.pass(time.Minute)
		if f.holds(s.Name) == old {
			t.Error("the shortened PAT was not replaced")
		}
	})
}

// Queues count in milliseconds, and clocks differ: a check that comes too early finds
// nothing to do, and its repeat has the same id.
func TestTheCheckForADueTimeComesAfterIt(t *testing.T) {
	for name, send := range map[string]func(f *fixture, s rotation.Spec){
		"of a reconcile": func(f *fixture, s rotation.Spec) { f.check(s.Name) },
		"of a sweep": func(f *fixture, _ rotation.Spec) {
			_, err := f.r.Sweep(f.Context(), f.swept, "timer")
			if err != nil {
				f.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := agents()
				s.Lifetime, s.RotateBefore, s.Overlap = 24*time.Hour, 2*time.Hour, time.Hour
				f := newFixture(t, s)
				f.check(s.Name)
				p := f.holds(s.Name)
				f.pass(18 * time.Hour)
				send(f, s)
				due := rotation.Due(s, p.ValidFrom, p.ValidTo)
				i := slices.IndexFunc(f.world.Queue(), func(c rotation.Command) bool { return c.At.After(time.Now()) })
				if i < 0 {
					t.Fatal("no check is scheduled")
				}
				if at := f.world.Queue()[i].At; at.Before(due.Add(rotation.ClockSkew)) {
					t.Errorf("the check comes at %v, want it %v after the due time %v", at, rotation.ClockSkew, due)
				}
			})
		})
	}
}

func TestTwoSecretsWithOnePATGiveItsReadersTheLongerOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := agents(), agents()
		second.Name, second.DisplayName = "nuget-feed", "NuGet feed"
		f := newFixture(t, first)
		f.check(first.Name)
		shared := f.holds(first.Name)
		held := f.latest(first.Name)
		f.world.PutVersion(second.Name, &portstest.PAT{Value: held.Value.Reveal(), PAT: rotation.PAT{
			ValidTo: held.Expires}}, held.Ledger)
		f.specs = append(f.specs, second)
		f.pass(time.Hour)
		f.order(first.Name, rotation.AfterOverlap)
		f.pass(10 * time.Hour)
		f.order(second.Name, rotation.AfterOverlap)
		replaced := time.Now()
		f.hours(40)
		if lived := shared.Revoked.Sub(replaced); lived < second.Overlap {
			t.Errorf("the shared PAT lived for %v after the second secret's rotation, want its overlap of %v", lived,
				second.Overlap)
		}
		want(f, "the shared PAT works after both overlaps", shared.Works(time.Now()), false)
	})
}

func TestARecognizedRotationIsNotSaidToBeRequested(t *testing.T) {
	for name, tc := range map[string]struct {
		rotate func(f *fixture, s rotation.Spec)
		want   rotation.Reason
	}{
		"the first one": {func(f *fixture, s rotation.Spec) { f.check(s.Name) }, rotation.Provision},
		"a due one": {func(f *fixture, s rotation.Spec) {
			f.check(s.Name)
			f.hours(24 * 20)
		}, rotation.Expiring},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				tc.rotate(f, s)
				f.world.Edit(s.Name, untag)
				f.hours(7)
				want(f, "reason", f.latest(s.Name).Ledger.Reason, tc.want)
				for _, e := range published[*rotation.Rotated](f) {
					if e.Reason == rotation.Requested {
						t.Errorf("event %s says that somebody asked for it", e.RotationID)
					}
				}
			})
		})
	}
}

func TestAnotherPATOverAnAdoptedOneIsNotTakenForIt(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		adopted := f.world.MakePAT(s.Owner(), s.DisplayName, s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, adopted.Value, nil)
		f.check(s.Name)
		other := f.world.MakePAT(s.Owner(), "made by hand", s.Scopes, 30*rotation.Day)
		f.pass(time.Hour)
		f.world.PutSecret(s.Name, other.Value, nil)
		f.check(s.Name)
		if f.latest(s.Name).Ledger.AuthorizationID == adopted.AuthorizationID {
			t.Error("the value of another PAT was adopted as the first one")
		}
		want(f, "the other PAT works", other.Works(time.Now()), true)
	})
}

// Two versions of one second are listed either way round.
func TestAnotherPATPutInTheSameSecondIsNotTakenForTheOneBefore(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		first := f.latest(s.Name).Ledger.AuthorizationID
		other := f.world.MakePAT(s.Owner(), "made by hand", s.Scopes, 30*rotation.Day)
		f.world.PutSecret(s.Name, other.Value, nil)
		f.check(s.Name)
		if f.latest(s.Name).Ledger.AuthorizationID == first {
			t.Error("the value of another PAT was recognized as the one before")
		}
	})
}

func TestAReplacedPATOfARenamedOwnerEndsAfterItsOverlap(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.world.SignIn(s.Identity, "oid-alice")
		f.check(s.Name)
		old := f.holds(s.Name)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Hour)
		f.world.RenameOwner(s.Owner(), rotation.Owner{Identity: "ci-bot", Organization: "contoso-ltd"})
		f.world.SignIn("ci-bot", "oid-alice")
		f.specs[0].Identity, f.specs[0].Organization = "ci-bot", "contoso-ltd"
		f.restart()
		f.hours(48)
		want(f, "the replaced PAT works", old.Works(time.Now()), false)
		want(f, "failures", len(published[*rotation.RotationFailed](f)), 0)
	})
}

// A chain that somebody has cut leaves the end of an overlap to the sweep.
func TestTheSweepEndsNoPATThatACopyHolds(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		old := f.holds(s.Name)
		f.pass(time.Minute)
		f.world.PutSecret("a-copy", old.Value, nil)
		f.order(s.Name, rotation.AfterOverlap)
		f.pass(time.Minute)
		f.world.Edit(s.Name, func(v *rotation.Version) {
			v.Ledger.PreviousVersion, v.Ledger.Previous = "", ""
		})
		f.hours(72)
		want(f, "the PAT that the copy holds works", old.Works(time.Now()), true)
	})
}

func TestARefusedStoreIsTriedAgainBeforeThePATEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := agents()
		s.Lifetime, s.RotateBefore, s.Overlap = 24*time.Hour, 2*time.Hour, time.Hour
		f := newFixture(t, s)
		f.sweep()
		first := f.holds(s.Name)
		due := rotation.Due(s, first.ValidFrom, first.ValidTo)
		for time.Now().Before(due.Add(-6 * time.Hour)) {
			f.pass(time.Hour)
		}
		f.sweep()
		f.refuse("vault.Store", &rotation.Error{Class: rotation.Configuration, Code: "vault-forbidden",
			Message: "the role is late"})
		f.pass(time.Until(due.Add(7 * time.Minute)))
		f.refuseNothing()
		f.pass(time.Until(first.ValidTo))
		if f.holds(s.Name) == first {
			t.Error("the PAT was not replaced before its end")
		}
	})
}

func TestACopyIsNotAnnouncedAsARotation(t *testing.T) {
	for name, tc := range map[string]struct{ declared, first bool }{
		"declared": {declared: true}, "not declared": {},
		"of a first version, declared": {true, true}, "of a first version, not declared": {first: true},
	} {
		declared := tc.declared
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.check(s.Name)
				if !tc.first {
					f.order(s.Name, rotation.AfterOverlap)
				}
				f.pass(time.Minute)
				v := f.latest(s.Name)
				v.Ledger.AnnouncedAt = time.Time{} // copied before it was announced
				f.world.PutVersion("a-copy", &portstest.PAT{Value: v.Value.Reveal(), PAT: rotation.PAT{
					ValidTo: v.Expires}}, v.Ledger)
				if declared {
					second := s
					second.Name, second.DisplayName = "a-copy", "A copy"
					f.specs = append(f.specs, second)
				}
				f.hours(14)
				for _, e := range published[*rotation.Rotated](f) {
					if e.Spec.Name == "a-copy" {
						t.Errorf("the copy was announced as rotation %s", e.RotationID)
					}
				}
			})
		})
	}
}

func TestARotationThatReplacesSomebodysValueIsAnnounced(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		other := f.world.MakePAT(s.Owner(), "made by hand", s.Scopes, 30*rotation.Day)
		f.pass(time.Hour)
		f.world.PutSecret(s.Name, other.Value, nil)
		f.hours(7)
		want(f, "events", len(published[*rotation.Rotated](f)), 2)
	})
}

func TestALedgerWithoutItsAuthorizationIDIsWrittenAgain(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.check(s.Name)
		id := f.latest(s.Name).Ledger.AuthorizationID
		f.pass(time.Hour)
		f.world.Edit(s.Name, func(v *rotation.Version) { v.Ledger.AuthorizationID = "" })
		f.sweep()
		want(f, "authorization id", f.latest(s.Name).Ledger.AuthorizationID, id)
		want(f, "failures", len(published[*rotation.RotationFailed](f)), 0)
	})
}

func TestAnOrderWhoseEntryIsAwayIsCarriedOutWhenItIsBack(t *testing.T) {
	story(t, func(f *fixture, s rotation.Spec) {
		f.sweep()
		leaked := f.holds(s.Name)
		f.specs = nil
		f.reconcile(rotation.Command{PAT: s.Name, From: leaked.AuthorizationID, Reason: rotation.Compromised,
			RevokePrevious: rotation.Now, RequestedBy: "anna", Operation: "leak"})
		f.pass(2 * time.Hour)
		failed := published[*rotation.RotationFailed](f)
		if len(failed) != 1 {
			t.Fatalf("%d events while the entry is away, want 1", len(failed))
		}
		want(f, "code", failed[0].Code, rotation.UnknownEntry)
		f.specs = []rotation.Spec{s}
		f.pass(16 * time.Minute)
		want(f, "the leaked PAT works a quarter of an hour after the entry is back", leaked.Works(time.Now()), false)
		if f.holds(s.Name) == leaked {
			t.Error("the latest version still holds the leaked PAT")
		}
	})
}

func TestAReplacedVersionWithoutItsTagsEndsWithItsOverlap(t *testing.T) {
	for name, wipe := range map[string]func(l *rotation.Ledger){
		"all tags of the replaced version": func(*rotation.Ledger) {},
		"and patrol-previous of its successor": func(l *rotation.Ledger) {
			l.Previous = ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(f *fixture, s rotation.Spec) {
				f.sweep()
				old := f.holds(s.Name)
				f.reconcile(rotation.Command{PAT: s.Name, From: old.AuthorizationID, Reason: rotation.Requested,
					RevokePrevious: rotation.AfterOverlap, RequestedBy: "anna", Operation: "op"})
				f.world.EditVersion(s.Name, 0, func(v *rotation.Version) { v.Ledger = rotation.Ledger{} })
				f.world.EditVersion(s.Name, 1, func(v *rotation.Version) { wipe(&v.Ledger) })
				f.restart()
				f.pass(23 * time.Hour)
				want(f, "the replaced PAT works in its overlap", old.Works(time.Now()), true)
				f.pass(8 * time.Hour)
				f.sweep()
				f.sweep()
				want(f, "the replaced PAT works after it", old.Works(time.Now()), false)
			})
		})
	}
}
