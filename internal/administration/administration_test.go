package administration_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func TestAPlanShowsWhatWouldBeRevokedAndRevokesNothing(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		adas := s.seed(ada, 3)
		mine, _ := s.azure.Seed("contoso", ada, rotation.DisplayName("CI", "abcdef", "0123456789"), "vso.build",
			time.Now().Add(time.Hour), true)
		replaced, _ := s.azure.Seed("contoso", ada, rotation.DisplayName("CI", "abcdef", "9876543210"), "vso.build",
			time.Now().Add(2*time.Hour), false)
		foreign, _ := s.azure.Seed("contoso", ada, rotation.DisplayName("CI", "zzzzzz", "0123456789"), "vso.build",
			time.Now().Add(3*time.Hour), false)
		s.seed(grace, 2)
		s.azure.AddUser(azure.User{UPN: "twin@contoso.com"})
		s.azure.AddUser(azure.User{UPN: "twin#EXT#@contoso.com", MailAddress: "twin@contoso.com"})
		s.vault.secrets = []rotation.Version{
			{Name: "by-hand"},
			{Name: "jenkins", Ledger: rotation.Ledger{AuthorizationID: strings.ToUpper(mine), Previous: replaced,
				Identity: "build-bot", RotationID: "x"}},
		}
		p := s.plan(t, of("ADA@contoso.com ", "ada.lovelace@contoso.com", "nobody@contoso.com", "twin@contoso.com"))
		if len(p.Users) != 1 || len(p.Ambiguous) != 1 {
			t.Fatalf("users %+v, ambiguous %+v, want one of each", p.Users, p.Ambiguous)
		}
		check(t, "user", p.Users[0].PrincipalName, ada)
		check(t, "names", p.Users[0].Names, []string{"ada.lovelace@contoso.com", ada})
		check(t, "not found", p.NotFound, []string{"nobody@contoso.com"})
		check(t, "candidates", len(p.Ambiguous[0].Candidates), 2)
		check(t, "PATs", p.Count, 6)
		check(t, "managed PATs", p.Managed, 2)
		check(t, "there is a confirmation", p.Confirmation != "", true)
		check(t, "expires", p.Expires, time.Now().Add(15*time.Minute).UTC())
		pats := map[string]administration.PAT{}
		for _, x := range p.Users[0].PATs {
			pats[x.AuthorizationID] = x
		}
		for id, want := range map[string]administration.PAT{
			mine: {DisplayName: rotation.DisplayName("CI", "abcdef", "0123456789"), Scopes: []string{"vso.build"},
				Managed: true, Name: "jenkins", Global: true},
			replaced: {DisplayName: rotation.DisplayName("CI", "abcdef", "9876543210"), Scopes: []string{"vso.build"},
				Managed: true, Name: "jenkins", Replaced: true},
			foreign: {DisplayName: rotation.DisplayName("CI", "zzzzzz", "0123456789"), Scopes: []string{"vso.build"},
				Foreign: true},
			adas[0]: {DisplayName: "p", Scopes: []string{"vso.code"}},
		} {
			got := pats[id]
			check(t, want.DisplayName+" has an end", got.ValidTo.IsZero(), false)
			want.AuthorizationID, want.ValidFrom, want.ValidTo = id, got.ValidFrom, got.ValidTo
			check(t, want.DisplayName, got, want)
		}
		for _, part := range []string{"2 of these PATs are managed", "1 of these PATs bear the mark",
			"every organization", "descriptor", "an hour"} {
			if !warned(p, part) {
				t.Errorf("no warning of %q in %q", part, p.Warnings)
			}
		}
		if warned(p, "JWT") {
			t.Error("a warning of a rule that is not asked for")
		}
		check(t, "calls that revoke", s.calls(azure.RevokeUserPats)+s.calls(azure.RevocationRule), 0)
		check(t, "ada's active PATs", s.active(ada), 6)
		// The ambiguous one can be named by its descriptor.
		p = s.plan(t, of(p.Ambiguous[0].Candidates[0].Descriptor))
		check(t, "users by descriptor", len(p.Users), 1)
		check(t, "PATs by descriptor", p.Count, 0)
		check(t, "ambiguous names by descriptor", len(p.Ambiguous), 0)
		check(t, "a confirmation of nothing", p.Confirmation, "")
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{`"notFound":[]`, `"pats":[]`} {
			if !strings.Contains(string(b), list) {
				t.Errorf("an empty list is not %s in %s", list, b)
			}
		}
	})
}

func TestAConfirmedPlanIsCarriedOutInBatches(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 1700)
		s.seed(grace, 250)
		s.seed(root, 1)
		p := s.plan(t, of(grace, ada))
		if p.Count != 1950 {
			t.Fatalf("%d PATs are planned", p.Count)
		}
		// Names in another order, case and form ask for the same.
		q := of(" ADA@Contoso.com", grace, ada)
		q.RequestedBy = "another"
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "revoked", res.Revoked, 1950)
		check(t, "verified", res.Verified, true)
		check(t, "batches", len(res.Batches), 3)
		check(t, "calls", s.calls(azure.RevokeUserPats), 3)
		check(t, "ada's and grace's active PATs", s.active(ada)+s.active(grace), 0)
		check(t, "root's active PATs", s.active(root), 1)
		activities := map[string]bool{}
		for i, b := range res.Batches {
			if n := len(b.AuthorizationIDs); n >= 900 {
				t.Errorf("batch %d has %d PATs, want fewer than 900", i, n)
			}
			check(t, fmt.Sprint("outcome of batch ", i), b.Outcome, administration.Done)
			check(t, fmt.Sprint("remaining PATs of batch ", i), len(b.Remaining), 0)
			activities[b.ActivityID] = true
			check(t, fmt.Sprint("act ", i), res.Acts[i], administration.Act{RequestedBy: "another",
				Trigger: "POST revocations", Act: administration.ActRevoke, Organization: "contoso",
				Identity: "root-bot", Target: []string{ada, grace}, Count: len(b.AuthorizationIDs),
				Outcome: administration.Done, ActivityID: b.ActivityID})
		}
		check(t, "activity ids", len(activities), 3)
		check(t, "a batch without an activity id", activities[""], false)
		// The same again finds nothing left, and is a success.
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		if err != nil {
			t.Fatalf("the second time: %v", err)
		}
		check(t, "revoked the second time", res.Revoked, 0)
		check(t, "batches the second time", len(res.Batches), 0)
		check(t, "acts the second time", len(res.Acts), 1)
		check(t, "calls after the second time", s.calls(azure.RevokeUserPats), 3)
	})
}

func TestWhatPatrolManagesCanBeKept(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ids := s.seed(ada, 3)
		s.vault.secrets = []rotation.Version{{Name: "jenkins", Ledger: rotation.Ledger{AuthorizationID: ids[1],
			Identity: "build-bot"}}}
		q := of(ada)
		q.KeepManaged = true
		p := s.plan(t, q)
		check(t, "PATs", p.Count, 2)
		check(t, "managed PATs", p.Managed, 0)
		for _, x := range p.Users[0].PATs {
			check(t, "kept "+x.AuthorizationID, x.Kept, x.AuthorizationID == ids[1])
		}
		_, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "the confirmation of another request", err, administration.ConfirmationInvalid)
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "revoked", res.Revoked, 2)
		check(t, "ada's active PATs", s.active(ada), 1)
		// An emergency does not wait for the vault, unless it is needed.
		s.vault.err = errors.New("down")
		p = s.plan(t, of(ada))
		check(t, "PATs without the vault", p.Count, 1)
		check(t, "a warning of the vault", warned(p, "The vault could not be read"), true)
		if _, err := s.Plan(t.Context(), q); err == nil {
			t.Error("a plan that keeps what it cannot know")
		}
	})
}

func TestASetThatChangedMustBeConfirmedAnew(t *testing.T) {
	for name, change := range map[string]func(*fixture, []string){
		"a PAT more":  func(s *fixture, _ []string) { s.seed(ada, 1) },
		"a PAT less":  func(s *fixture, ids []string) { s.azure.Revoke(ids[0]) },
		"another PAT": func(s *fixture, ids []string) { s.azure.Revoke(ids[0]); s.seed(ada, 1) },
		"another user": func(s *fixture, _ []string) {
			s.azure.AddUser(azure.User{UPN: "late@contoso.com"})
			s.seed("late@contoso.com", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				ids := s.seed(ada, 3)
				q := of(ada, "late@contoso.com")
				p := s.plan(t, q)
				change(s, ids)
				before := s.active(ada)
				res, err := s.Execute(t.Context(), q, p.Confirmation)
				wants(t, "execute", err, administration.PlanChanged)
				check(t, "ada's active PATs", s.active(ada), before)
				check(t, "calls that revoke", s.calls(azure.RevokeUserPats), 0)
				if len(res.Acts) != 1 {
					t.Fatalf("acts %+v, want one", res.Acts)
				}
				check(t, "outcome", res.Acts[0].Outcome, administration.Refused)
				check(t, "code", res.Acts[0].Code, administration.PlanChanged)
				// The new plan comes along.
				if _, err := s.Execute(t.Context(), q, res.Plan.Confirmation); err != nil {
					t.Errorf("with the new plan's confirmation: %v", err)
				}
				check(t, "ada's active PATs in the end", s.active(ada), 0)
			})
		})
	}
}

func TestAConfirmationThatDoesNotFitIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.injector.ResetCounts()
		raw, err := base64.RawURLEncoding.DecodeString(p.Confirmation)
		if err != nil {
			t.Fatal(err)
		}
		flip := func(i int) string {
			b := slices.Clone(raw)
			b[i] ^= 1
			return base64.RawURLEncoding.EncodeToString(b)
		}
		c := s.config
		c.Keys = [][]byte{bytes.Repeat([]byte{8}, 32)}
		stranger, err := administration.New(c)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := stranger.Plan(t.Context(), of(ada))
		if err != nil {
			t.Fatal(err)
		}
		s.injector.ResetCounts()
		for name, token := range map[string]string{
			"forged time": flip(8), "forged request": flip(10), "forged set": flip(60),
			"forged seal": flip(len(raw) - 1), "forged form": flip(0),
			"cut": p.Confirmation[:80], "longer": p.Confirmation + "AAAA", "nonsense": "!",
			"huge": strings.Repeat("A", 1<<20), "another key": theirs.Confirmation,
		} {
			_, err := s.Execute(t.Context(), of(ada), token)
			wants(t, name, err, administration.ConfirmationInvalid)
		}
		_, err = s.Execute(t.Context(), of(ada), "")
		wants(t, "none", err, administration.ConfirmationMissing)
		for name, change := range map[string]func(*administration.Request){
			"another organization": func(q *administration.Request) { q.Organization = "fabrikam" },
			"another identity":     func(q *administration.Request) { q.Identity = "other-bot" },
			"another user":         func(q *administration.Request) { q.Users = []string{grace} },
			"a user more":          func(q *administration.Request) { q.Users = []string{ada, grace} },
			"kept":                 func(q *administration.Request) { q.KeepManaged = true },
			"a rule": func(q *administration.Request) {
				q.Rule = &administration.Rule{Scopes: []string{"vso.code"}, CreatedBefore: time.Now()}
			},
		} {
			q := of(ada)
			change(&q)
			_, err := s.Execute(t.Context(), q, p.Confirmation)
			wants(t, name, err, administration.ConfirmationInvalid)
		}
		time.Sleep(15*time.Minute - time.Nanosecond)
		check(t, "calls", len(s.injector.Counts()), 0)
		check(t, "ada's active PATs", s.active(ada), 2)
		late := s.plan(t, of(ada))
		time.Sleep(time.Nanosecond)
		_, err = s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "after 15 minutes", err, administration.ConfirmationExpired)
		if _, err := s.Execute(t.Context(), of(ada), late.Confirmation); err != nil {
			t.Errorf("a confirmation in time: %v", err)
		}
	})
}

func TestARepeatGoesOnWhereAPartialFailureStopped(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 2000)
		q := of(ada)
		q.Rule = &administration.Rule{Scopes: []string{"vso.wiki vso.code"}, CreatedBefore: time.Now()}
		p := s.plan(t, q)
		// The second batch of three is refused for what is in it.
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 400, Skip: 1, Times: 1})
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		e := wants(t, "the first try", err, administration.Incomplete)
		contains(t, "message", e.Message, "800 of 2000 PATs were not revoked")
		check(t, "class", e.Class, rotation.Configuration)
		var outcomes []administration.Outcome
		for _, b := range res.Batches {
			outcomes = append(outcomes, b.Outcome)
		}
		check(t, "outcomes", outcomes, []administration.Outcome{administration.Done, administration.Failed,
			administration.Done})
		check(t, "revoked", res.Revoked, 1200)
		check(t, "active", s.active(ada), 800)
		b := res.Batches[1]
		check(t, "remaining PATs", b.Remaining, b.AuthorizationIDs)
		check(t, "code", b.Code, "http-400")
		check(t, "a batch without a message", b.Message == "", false)
		check(t, "a batch without an activity id", b.ActivityID == "", false)
		if res.Rule == nil || len(res.Acts) != 4 {
			t.Fatalf("rule %+v, acts %+v, want a rule and 4 acts", res.Rule, res.Acts)
		}
		check(t, "the rule's outcome", res.Rule.Outcome, administration.Done)
		check(t, "the last act", res.Acts[3].Act, administration.ActRule)
		check(t, "the last act's activity id is missing", res.Acts[3].ActivityID == "", false)
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		if err != nil {
			t.Errorf("the second try: %v", err)
		}
		check(t, "revoked by the second try", res.Revoked, 800)
		check(t, "active after the second try", s.active(ada), 0)
	})
}

func TestALostAnswerIsCheckedAgainstTheList(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 5)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.StatusAfter, Status: 502, Times: -1})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "revoked", res.Revoked, 5)
		check(t, "outcome", res.Batches[0].Outcome, administration.Done)
		check(t, "code", res.Batches[0].Code, "http-502")
	})
}

func TestAPATThatIsStillListedIsPending(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ids := s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 204})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		slices.Sort(ids)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "revoked", res.Revoked, 0)
		check(t, "verified", res.Verified, true)
		check(t, "outcome", res.Batches[0].Outcome, administration.Pending)
		check(t, "remaining PATs", res.Batches[0].Remaining, ids)
	})
}

func TestWithoutTheListAfterwardsTheAnswersCount(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.ListUserPats, Mode: faults.Status, Status: 404, Skip: 1, Times: -1})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		if err != nil {
			t.Fatal(err)
		}
		check(t, "verified", res.Verified, false)
		check(t, "revoked", res.Revoked, 2)
		check(t, "outcome", res.Batches[0].Outcome, administration.Done)
	})
}

func TestNothingIsTriedAfterAFailureThatWouldRepeatItself(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 1000)
		q := of(ada)
		q.Rule = &administration.Rule{Scopes: []string{"vso.code"}, CreatedBefore: time.Now()}
		p := s.plan(t, q)
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 403, Times: -1})
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		e := wants(t, "execute", err, administration.Incomplete)
		contains(t, "message", e.Message, administration.NotAdministrator)
		contains(t, "message", e.Message, "rule was not made")
		check(t, "calls that revoke", s.calls(azure.RevokeUserPats), 1)
		check(t, "calls that make a rule", s.calls(azure.RevocationRule), 0)
		check(t, "ada's active PATs", s.active(ada), 1000)
		check(t, "the first batch", res.Batches[0].Outcome, administration.Failed)
		check(t, "the second batch", res.Batches[1].Outcome, administration.NotTried)
		check(t, "the rule", res.Rule.Outcome, administration.NotTried)
		check(t, "acts", len(res.Acts), 3)
	})
}

func TestARuleIsWarnedOfAndConfirmed(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		q := of()
		q.Rule = &administration.Rule{Scopes: []string{"vso.wiki", "vso.code vso.wiki"}, CreatedBefore: time.Now().
			Add(-time.Hour)}
		p := s.plan(t, q)
		check(t, "PATs", p.Count, 0)
		check(t, "there is a confirmation", p.Confirmation != "", true)
		check(t, "a warning of the rule", warned(p, "JWTs) of everybody in the organization"), true)
		check(t, "scopes", p.Rule.Scopes, []string{"vso.code", "vso.wiki"})
		other := q
		other.Rule = &administration.Rule{Scopes: []string{"vso.code"}, CreatedBefore: q.Rule.CreatedBefore}
		_, err := s.Execute(t.Context(), other, p.Confirmation)
		wants(t, "other scopes", err, administration.ConfirmationInvalid)
		other.Rule = &administration.Rule{Scopes: q.Rule.Scopes, CreatedBefore: q.Rule.CreatedBefore.Add(time.Second)}
		_, err = s.Execute(t.Context(), other, p.Confirmation)
		wants(t, "another date", err, administration.ConfirmationInvalid)
		if n := len(s.azure.RevocationRules()); n != 0 {
			t.Fatalf("%d rules", n)
		}
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		rules := s.azure.RevocationRules()
		if err != nil || len(rules) != 1 || len(res.Acts) != 1 {
			t.Fatalf("rules %+v, acts %+v, error %v, want one of each and no error", rules, res.Acts, err)
		}
		check(t, "the rule's outcome", res.Rule.Outcome, administration.Done)
		check(t, "the rule's activity id is missing", res.Rule.ActivityID == "", false)
		check(t, "the rule's scopes", rules[0].Scopes, "vso.code vso.wiki")
		check(t, "who made the rule", rules[0].Actor, root)
		check(t, "act", res.Acts[0].Act, administration.ActRule)
		check(t, "the act's outcome", res.Acts[0].Outcome, administration.Done)
		s.fault(t, faults.Fault{Operation: azure.RevocationRule, Mode: faults.Status, Status: 400})
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		wants(t, "a refused rule", err, administration.Incomplete)
		check(t, "a refused rule's outcome", res.Rule.Outcome, administration.Failed)
		check(t, "a refused rule's code", res.Rule.Code, "http-400")
		check(t, "a refused rule's act", res.Acts[0].Outcome, administration.Failed)
	})
}

func TestARequestThatMakesNoSenseIsRefused(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		rule := func(r administration.Rule) administration.Request {
			q := of(ada)
			q.Rule = &r
			return q
		}
		var many []string
		for i := range 201 {
			many = append(many, fmt.Sprint(i, "@contoso.com"))
		}
		for name, q := range map[string]administration.Request{
			"nobody":              of(),
			"an empty name":       of(ada, " "),
			"too many":            of(many...),
			"no organization":     {Identity: "root-bot", Users: []string{ada}},
			"no identity":         {Organization: "contoso", Users: []string{ada}},
			"a rule of no scopes": rule(administration.Rule{Scopes: []string{" "}, CreatedBefore: time.Now()}),
			"a rule without date": rule(administration.Rule{Scopes: []string{"vso.code"}}),
			"a rule of the future": rule(administration.Rule{Scopes: []string{"vso.code"}, CreatedBefore: time.Now().
				Add(time.Minute)}),
		} {
			_, err := s.Plan(t.Context(), q)
			wants(t, name, err, administration.InvalidRequest)
			res, err := s.Execute(t.Context(), q, "x")
			wants(t, name, err, administration.InvalidRequest)
			check(t, "acts of "+name, len(res.Acts), 1)
		}
		check(t, "calls", len(s.injector.Counts()), 0)
	})
}

func TestUpstreamsRefusalEndsAPlan(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 1)
		p := s.plan(t, of(ada))
		s.azure.SetAdministrator(root, false)
		_, err := s.Plan(t.Context(), of(ada))
		e := wants(t, "plan", err, administration.NotAdministrator)
		check(t, "the activity id is missing", e.ActivityID == "", false)
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "execute", err, administration.NotAdministrator)
		if len(res.Acts) != 1 {
			t.Fatalf("acts %+v, want one", res.Acts)
		}
		check(t, "outcome", res.Acts[0].Outcome, administration.Failed)
		check(t, "code", res.Acts[0].Code, administration.NotAdministrator)
		check(t, "ada's active PATs", s.active(ada), 1)
	})
}

func TestAllThatIsWrongWithAConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	_, err := administration.New(administration.Config{Keys: [][]byte{[]byte("short")}})
	if err == nil {
		t.Fatal("a short key and no organizations are accepted")
	}
	contains(t, "error", err.Error(), "organizations")
	contains(t, "error", err.Error(), "32 bytes")
}

// cancels ends a context with the first revocation.
type cancels struct {
	administration.Organizations
	cancel context.CancelFunc
}

func (c cancels) RevokePATs(ctx context.Context, o rotation.Owner, ids []string) (string, error) {
	activity, err := c.Organizations.RevokePATs(ctx, o, ids)
	c.cancel()
	return activity, err
}

func TestACallerWhoGivesUpLearnsWhatWasDone(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := s.config
		c.Organizations = cancels{c.Organizations, cancel}
		r, err := administration.New(c)
		if err != nil {
			t.Fatal(err)
		}
		p := s.plan(t, of(ada))
		res, err := r.Execute(ctx, of(ada), p.Confirmation)
		e := wants(t, "execute", err, administration.Incomplete)
		check(t, "class", e.Class, rotation.Transient)
		contains(t, "message", e.Message, "200 of 1000")
		check(t, "verified", res.Verified, false)
		check(t, "revoked", res.Revoked, 800)
		check(t, "the second batch", res.Batches[1].Outcome, administration.NotTried)
		check(t, "remaining PATs of the second batch", len(res.Batches[1].Remaining), 200)
		res, err = s.Execute(t.Context(), of(ada), p.Confirmation)
		if err != nil {
			t.Errorf("the second try: %v", err)
		}
		check(t, "revoked by the second try", res.Revoked, 200)
		check(t, "active after the second try", s.active(ada), 0)
	})
}

func TestNoAnswerOfAzureDevOpsIsQuoted(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.seed(ada, 1)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: http.StatusBadRequest,
			Header: map[string]string{"Content-Type": "application/json"},
			Body:   `{"message":"canary","typeKey":"OddException"}`})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "execute", err, administration.Incomplete)
		b, jsonErr := json.Marshal(res)
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		if all := fmt.Sprintf("%s %v %+v", b, err, res.Acts); strings.Contains(all, "canary") {
			t.Errorf("the answer of Azure DevOps is quoted: %s", all)
		}
		contains(t, "result", string(b), "OddException")
	})
}
