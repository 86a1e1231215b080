package devops_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func TestAnUpdateMovesTheEndAndNothingElse(t *testing.T) {
	for _, global := range []bool{false, true} {
		t.Run(fmt.Sprint("global ", global), func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				id, token := s.azure.Seed("contoso", ada, "ci ü 日本", "vso.work_write vso.work vso.code",
					time.Now().Add(24*time.Hour), global)
				later := time.Now().Add(100 * 24 * time.Hour)
				for range 2 { // the second time as after a lost answer
					p, err := s.Update(t.Context(), owner, id, later)
					if err != nil {
						t.Fatal(err)
					}
					near(t, "end", p.ValidTo, later)
					equal(t, "authorization id", p.AuthorizationID, id)
					equal(t, "global", p.Global, global)
				}
				got := s.azure.PATs("contoso", ada)[0]
				equal(t, "display name", got.DisplayName, "ci ü 日本")
				equal(t, "scopes", strings.Join(got.Scopes, " "), "vso.work_write vso.work vso.code")
				equal(t, "global there", got.Global, global)
				equal(t, "token", got.Token, token)
			})
		})
	}
}

func TestAnUpdateThatAzureDevOpsRefusesSaysWhy(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		later := time.Now().Add(48 * time.Hour)
		seed := func(end time.Duration) string {
			id, _ := s.azure.Seed("contoso", ada, "ci", "vso.code", time.Now().Add(end), false)
			return id
		}
		revoked := seed(24 * time.Hour)
		s.azure.Revoke(revoked)
		hers, _ := s.azure.Seed("contoso", grace, "hers", "vso.code", later, false)
		for name, id := range map[string]string{"revoked": revoked, "somebody else's": hers,
			"unknown": "11111111-2222-3333-4444-555555555555"} {
			if _, err := s.Update(ctx, owner, id, later); !errors.Is(err, rotation.ErrNotFound) {
				t.Errorf("%s: error %v, want ErrNotFound", name, err)
			}
		}
		_, err := s.Update(ctx, owner, seed(-time.Hour), later)
		wants(t, "expired", err, rotation.Configuration, rotation.ExpiredPAT)
		_, err = s.Update(ctx, owner, seed(72*time.Hour), time.Now().AddDate(2, 0, 0))
		wants(t, "two years", err, rotation.Configuration, rotation.RefusedEnd)
		_, err = s.Update(ctx, rotation.Owner{Identity: "build-bot", Organization: "nobody"}, seed(time.Hour), later)
		if err == nil {
			t.Error("an update in no organization")
		}
		global, _ := s.azure.Seed("contoso", ada, "g", "vso.code", time.Now().Add(time.Hour), true)
		s.azure.SetPolicies("contoso", azure.Policies{GlobalRetired: true})
		_, err = s.Update(ctx, owner, global, later)
		wants(t, "a global PAT", err, rotation.Policy, "globalPATCreationBlocked")
		s.azure.SetPolicies("contoso", azure.Policies{})
		s.azure.Switch(func(sw *azure.Switches) { sw.UpdateNeedsAll = true })
		_, err = s.Update(ctx, owner, seed(time.Hour), later)
		wants(t, "an end alone, where every field must be named", err, rotation.Configuration, "displayNameRequired")
	})
}

func TestAPolicyOnLifespanCountsFromTheBirthOfAPAT(t *testing.T) {
	for name, refuses := range map[string]bool{"shortened": false, "refused": true} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				s.azure.Switch(func(sw *azure.Switches) { sw.LifespanError = refuses })
				s.azure.SetPolicies("contoso", azure.Policies{MaxLifespanDays: 30})
				birth := time.Now()
				id, _ := s.azure.Seed("contoso", ada, "ci", "vso.code", birth.AddDate(0, 0, 10), false)
				time.Sleep(5 * 24 * time.Hour)
				p, err := s.Update(t.Context(), owner, id, birth.AddDate(0, 0, 60))
				if refuses {
					wants(t, "past the policy", err, rotation.Policy, "patLifespanPolicyViolation")
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "end", p.ValidTo, birth.AddDate(0, 0, 30).UTC())
				// A PAT from before the policy: an attempt can even shorten it.
				old, _ := s.azure.Seed("contoso", ada, "old", "vso.code", birth.AddDate(0, 0, 90), false)
				p, err = s.Update(t.Context(), owner, old, birth.AddDate(0, 0, 100))
				if err != nil {
					t.Fatal(err)
				}
				if !p.ValidTo.Before(birth.AddDate(0, 0, 90)) {
					t.Errorf("the PAT from before the policy ends %v, want an earlier end", p.ValidTo)
				}
			})
		})
	}
}

func TestAnUpdateIsRepeatedWhenItsAnswerIsLost(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		id, _ := s.azure.Seed("contoso", ada, "ci", "vso.code", time.Now().Add(time.Hour), false)
		later := time.Now().Add(48 * time.Hour)
		s.fault(t, faults.Fault{Operation: azure.UpdatePat, Mode: faults.ResetAfter})
		p, err := s.Update(t.Context(), owner, id, later)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "end", p.ValidTo, later)
	})
}

// An id with a typing error is in none of the pages, of which there may be a thousand.
func TestTheLookForAMistypedIdIsBounded(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		for range 1500 {
			s.azure.Seed("contoso", ada, "old", "vso.code", time.Now().Add(-time.Hour), false)
		}
		before := s.count(azure.ListPats)
		known, err := s.Known(t.Context(), owner, "11111111-2222-3333-4444-555555555555")
		if known || err != nil {
			t.Errorf("an id that never was is known: %v, %v", known, err)
		}
		if n := s.count(azure.ListPats) - before; n > 10 {
			t.Errorf("%d pages were read, want 10 at most", n)
		}
	})
}

// A name becomes a part of the address.
func TestNoAddressIsMadeOfAStrangeName(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		for _, name := range []string{"", ".", "..", "../x", "a/b", "a?b", "a#b", "a%2Fb", "a b", "a\\b", "a\n"} {
			_, err := s.List(t.Context(), rotation.Owner{Identity: "build-bot", Organization: name})
			wants(t, name, err, rotation.Configuration, "bad-request")
		}
		if n := s.count(azure.ListPats); n != 0 {
			t.Errorf("%d calls were made", n)
		}
	})
}

func TestAPATThatHasEndedIsStillKnown(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		revoked, _ := s.azure.Seed("contoso", ada, "revoked", "vso.code", time.Now().Add(time.Hour), false)
		s.azure.Revoke(revoked)
		expired, _ := s.azure.Seed("contoso", ada, "expired", "vso.code", time.Now().Add(-time.Hour), false)
		hers, _ := s.azure.Seed("contoso", "grace@contoso.com", "hers", "vso.code", time.Now().Add(time.Hour), false)
		for range 120 {
			s.azure.Seed("contoso", ada, "more", "vso.code", time.Now().Add(2*time.Hour), false)
		}
		for _, gone := range []azure.GetGone{azure.GetRevoked, azure.GetError, azure.GetNull, azure.GetNotFound} {
			s.azure.Switch(func(sw *azure.Switches) { sw.GetGone = gone })
			for id, want := range map[string]bool{revoked: true, expired: true, hers: false,
				"11111111-2222-3333-4444-555555555555": false} {
				if got, err := s.Known(t.Context(), owner, id); err != nil || got != want {
					t.Errorf("switch %d: %v, %v, want %v", gone, got, err, want)
				}
			}
		}
		s.says(t, azure.GetPat, 500, "text/plain", "")
		s.fault(t, faults.Fault{Operation: azure.GetPat, Mode: faults.Status, Status: 500, Times: 3})
		_, err := s.Known(t.Context(), owner, revoked)
		wants(t, "an error", err, rotation.Transient, "http-500")
	})
}
