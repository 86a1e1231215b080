package devops_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func TestAnExtensionMovesTheEndAndNothingElse(t *testing.T) {
	for _, all := range []bool{false, true} {
		for _, global := range []bool{false, true} {
			t.Run(fmt.Sprintf("all fields %v, global %v", all, global), func(t *testing.T) {
				run(t, func(t *testing.T, s *fixture) {
					s.azure.Switch(func(sw *azure.Switches) { sw.UpdateNeedsAll = all })
					id, token := s.azure.Seed("contoso", ada, "ci ü 日本", "vso.work_write vso.work vso.code",
						time.Now().Add(24*time.Hour), global)
					later := time.Now().Add(100 * 24 * time.Hour)
					for range 2 { // the second time as after a lost answer
						p, err := s.Extend(t.Context(), owner, id, later)
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
					_, err := s.Update(t.Context(), owner, id, later)
					if all {
						wants(t, "an end alone", err, rotation.Configuration, "displayNameRequired")
					} else if err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestAnExtensionThatAzureDevOpsRefusesSaysWhy(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		later := time.Now().Add(48 * time.Hour)
		seed := func(end time.Duration) string {
			id, _ := s.azure.Seed("contoso", ada, "ci", "vso.code", time.Now().Add(end), false)
			return id
		}
		for _, gone := range []azure.GetGone{azure.GetRevoked, azure.GetError, azure.GetNull, azure.GetNotFound} {
			s.azure.Switch(func(sw *azure.Switches) { sw.GetGone = gone })
			revoked := seed(24 * time.Hour)
			s.azure.Revoke(revoked)
			code := devops.UnknownPAT
			if gone == azure.GetRevoked {
				code = devops.RevokedPAT
			}
			for _, end := range []time.Time{later, s.azure.PATs("contoso", ada)[0].ValidTo} {
				_, err := s.Extend(ctx, owner, revoked, end)
				if wants(t, "revoked", err, rotation.Configuration, code); !errors.Is(err, rotation.ErrNotFound) {
					t.Errorf("%v is not ErrNotFound", err)
				}
			}
			_, err := s.Extend(ctx, owner, "11111111-2222-3333-4444-555555555555", later)
			wants(t, "unknown", err, rotation.Configuration, devops.UnknownPAT)
		}
		hers, _ := s.azure.Seed("contoso", "grace@contoso.com", "hers", "vso.code", later, false)
		_, err := s.Extend(ctx, owner, hers, later)
		wants(t, "somebody else's", err, rotation.Configuration, devops.UnknownPAT)

		_, err = s.Extend(ctx, owner, seed(-time.Hour), later)
		wants(t, "expired", err, rotation.Configuration, devops.ExpiredPAT)
		s.says(t, azure.UpdatePat, 200, "application/json",
			`{"patToken":null,"patTokenError":"expiredPatCannotBeExtended"}`)
		_, err = s.Extend(ctx, owner, seed(time.Hour), later)
		wants(t, "expired in between", err, rotation.Configuration, devops.ExpiredPAT)

		_, err = s.Extend(ctx, owner, seed(72*time.Hour), later)
		wants(t, "earlier", err, rotation.Configuration, devops.NotLater)
		_, err = s.Extend(ctx, owner, seed(72*time.Hour), time.Now().AddDate(2, 0, 0))
		wants(t, "two years", err, rotation.Configuration, "invalidValidTo")
		_, err = s.Extend(ctx, rotation.Owner{Identity: "build-bot", Organization: "nobody"}, seed(time.Hour), later)
		if err == nil {
			t.Error("an extension in no organization")
		}
		global, _ := s.azure.Seed("contoso", ada, "g", "vso.code", time.Now().Add(time.Hour), true)
		s.azure.SetPolicies("contoso", azure.Policies{GlobalRetired: true})
		_, err = s.Extend(ctx, owner, global, later)
		wants(t, "a global PAT", err, rotation.Policy, "globalPATCreationBlocked")
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
				p, err := s.Extend(t.Context(), owner, id, birth.AddDate(0, 0, 60))
				if refuses {
					wants(t, "past the policy", err, rotation.Policy, devops.LongLivedPAT)
					return
				}
				if err != nil || !p.ValidTo.Equal(birth.AddDate(0, 0, 30)) {
					t.Fatalf("%v, %v", p.ValidTo, err)
				}
				p, err = s.Extend(t.Context(), owner, id, birth.AddDate(0, 0, 60))
				wants(t, "at the policy's end already", err, rotation.Policy, devops.LongLivedPAT)
				if !p.ValidTo.Equal(birth.AddDate(0, 0, 30)) {
					t.Errorf("the PAT that is returned ends %v", p.ValidTo)
				}
				// A PAT from before the policy: an attempt can even shorten it.
				old, _ := s.azure.Seed("contoso", ada, "old", "vso.code", birth.AddDate(0, 0, 90), false)
				p, err = s.Extend(t.Context(), owner, old, birth.AddDate(0, 0, 100))
				wants(t, "from before the policy", err, rotation.Policy, devops.LongLivedPAT)
				if !p.ValidTo.Before(birth.AddDate(0, 0, 90)) {
					t.Errorf("the PAT that is returned ends %v", p.ValidTo)
				}
			})
		})
	}
}

func TestAnExtensionIsRepeatedWhenItsAnswerIsLost(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		id, _ := s.azure.Seed("contoso", ada, "ci", "vso.code", time.Now().Add(time.Hour), false)
		later := time.Now().Add(48 * time.Hour)
		s.fault(t, faults.Fault{Operation: azure.UpdatePat, Mode: faults.ResetAfter})
		if p, err := s.Extend(t.Context(), owner, id, later); err != nil ||
			p.ValidTo.Sub(later).Abs() > 10*time.Millisecond {
			t.Errorf("%+v, %v", p, err)
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
