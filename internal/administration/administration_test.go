package administration_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	story(t, func(t *testing.T, s *stand) {
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
		if len(p.Users) != 1 || p.Users[0].PrincipalName != ada || !slices.Equal(p.Users[0].Names,
			[]string{"ada.lovelace@contoso.com", ada}) {
			t.Fatalf("users %+v", p.Users)
		}
		if !slices.Equal(p.NotFound, []string{"nobody@contoso.com"}) || len(p.Ambiguous) != 1 ||
			len(p.Ambiguous[0].Candidates) != 2 {
			t.Errorf("not found %v, ambiguous %+v", p.NotFound, p.Ambiguous)
		}
		if p.Count != 6 || p.Managed != 2 || p.Confirmation == "" || !p.Expires.Equal(time.Now().Add(15*time.Minute)) {
			t.Errorf("%d PATs, %d managed, until %v", p.Count, p.Managed, p.Expires)
		}
		pats := map[string]administration.PAT{}
		for _, x := range p.Users[0].PATs {
			pats[x.AuthorizationID] = x
		}
		if x := pats[mine]; !x.Managed || x.Name != "jenkins" || x.Replaced || x.Foreign || !x.Global || x.Kept ||
			x.ValidTo.IsZero() || !slices.Equal(x.Scopes, []string{"vso.build"}) {
			t.Errorf("the current one: %+v", x)
		}
		if x := pats[replaced]; !x.Managed || x.Name != "jenkins" || !x.Replaced {
			t.Errorf("the replaced one: %+v", x)
		}
		if x := pats[foreign]; x.Managed || !x.Foreign {
			t.Errorf("another patrol's: %+v", x)
		}
		if x := pats[adas[0]]; x.Managed || x.Foreign || x.DisplayName != "p" {
			t.Errorf("her own: %+v", x)
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
		if n := s.calls(azure.RevokeUserPats) + s.calls(azure.RevocationRule); n != 0 || s.active(ada) != 6 {
			t.Errorf("%d calls of a plan revoke", n)
		}
		if a := p.Act; a.Act != administration.ActPlan || a.Outcome != administration.Done ||
			a.RequestedBy != "on-call" || a.Trigger != "POST revocations" {
			t.Errorf("%+v", a)
		}
		// The ambiguous one can be named by its descriptor.
		p = s.plan(t, of(p.Ambiguous[0].Candidates[0].Descriptor))
		if len(p.Users) != 1 || p.Count != 0 || p.Confirmation != "" || len(p.Ambiguous) != 0 {
			t.Errorf("by descriptor: %+v", p)
		}
		b, err := json.Marshal(p)
		if err != nil || !strings.Contains(string(b), `"notFound":[]`) || !strings.Contains(string(b), `"pats":[]`) {
			t.Errorf("%s, %v", b, err)
		}
	})
}

func TestAConfirmedPlanIsCarriedOutInBatches(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 1700)
		s.seed(grace, 250)
		other := s.seed(root, 1)
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
		if res.Revoked != 1950 || !res.Verified || len(res.Batches) != 3 || s.calls(azure.RevokeUserPats) != 3 {
			t.Errorf("%d revoked, verified %v, %d batches, %d calls", res.Revoked, res.Verified, len(res.Batches),
				s.calls(azure.RevokeUserPats))
		}
		if s.active(ada)+s.active(grace) != 0 || s.active(root) != 1 {
			t.Errorf("%v is left of root's, %d of ada's", other, s.active(ada))
		}
		activities := map[string]bool{}
		for i, b := range res.Batches {
			if len(b.AuthorizationIDs) >= 900 || b.Outcome != administration.Done || len(b.Remaining) != 0 {
				t.Errorf("batch %d: %d PATs, %s, %d remain", i, len(b.AuthorizationIDs), b.Outcome, len(b.Remaining))
			}
			activities[b.ActivityID] = true
			if a := res.Acts[i]; a.Act != administration.ActRevoke || a.Outcome != administration.Done ||
				a.ActivityID != b.ActivityID || a.RequestedBy != "another" ||
				len(a.AuthorizationIDs) != len(b.AuthorizationIDs) || !slices.Equal(a.Target, []string{ada, grace}) {
				t.Errorf("act %d: %+v", i, a)
			}
		}
		if len(activities) != 3 || activities[""] {
			t.Errorf("activity ids %v", activities)
		}
		// The same again finds nothing left, and is a success.
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		if err != nil || res.Revoked != 0 || len(res.Batches) != 0 || len(res.Acts) != 1 ||
			s.calls(azure.RevokeUserPats) != 3 {
			t.Errorf("again: %+v, %v", res.Acts, err)
		}
	})
}

func TestWhatPatrolManagesCanBeKept(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		ids := s.seed(ada, 3)
		s.vault.secrets = []rotation.Version{{Name: "jenkins", Ledger: rotation.Ledger{AuthorizationID: ids[1],
			Identity: "build-bot"}}}
		q := of(ada)
		q.KeepManaged = true
		p := s.plan(t, q)
		if p.Count != 2 || p.Managed != 0 ||
			!p.Users[0].PATs[slices.IndexFunc(p.Users[0].PATs,
				func(x administration.PAT) bool { return x.AuthorizationID == ids[1] })].Kept {
			t.Errorf("%+v", p)
		}
		_, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "the confirmation of another request", err, administration.ConfirmationInvalid)
		if res, err := s.Execute(t.Context(), q, p.Confirmation); err != nil || res.Revoked != 2 || s.active(ada) != 1 {
			t.Errorf("%d revoked, %v", res.Revoked, err)
		}
		// An emergency does not wait for the vault, unless it is needed.
		s.vault.err = errors.New("down")
		if p := s.plan(t, of(ada)); p.Count != 1 || !warned(p, "vault") {
			t.Errorf("%+v", p)
		}
		if _, err := s.Plan(t.Context(), q); err == nil {
			t.Error("a plan that keeps what it cannot know")
		}
	})
}

func TestASetThatChangedMustBeConfirmedAnew(t *testing.T) {
	for name, change := range map[string]func(*stand, []string){
		"a PAT more":  func(s *stand, _ []string) { s.seed(ada, 1) },
		"a PAT less":  func(s *stand, ids []string) { s.azure.Revoke(ids[0]) },
		"another PAT": func(s *stand, ids []string) { s.azure.Revoke(ids[0]); s.seed(ada, 1) },
		"another user": func(s *stand, _ []string) {
			s.azure.AddUser(azure.User{UPN: "late@contoso.com"})
			s.seed("late@contoso.com", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, s *stand) {
				ids := s.seed(ada, 3)
				q := of(ada, "late@contoso.com")
				p := s.plan(t, q)
				change(s, ids)
				before := s.active(ada)
				res, err := s.Execute(t.Context(), q, p.Confirmation)
				wants(t, "execute", err, administration.PlanChanged)
				if s.active(ada) != before || s.calls(azure.RevokeUserPats) != 0 {
					t.Error("something was revoked")
				}
				if len(res.Acts) != 1 || res.Acts[0].Outcome != administration.Refused ||
					res.Acts[0].Code != administration.PlanChanged {
					t.Errorf("%+v", res.Acts)
				}
				// The plan of now comes along.
				if res, err = s.Execute(t.Context(), q, res.Plan.Confirmation); err != nil || s.active(ada) != 0 {
					t.Errorf("%+v, %v", res, err)
				}
			})
		})
	}
}

func TestAConfirmationThatDoesNotFitIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.panel.ResetCounts()
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
		c.Key = bytes.Repeat([]byte{8}, 32)
		stranger, err := administration.New(c)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := stranger.Plan(t.Context(), of(ada))
		if err != nil {
			t.Fatal(err)
		}
		s.panel.ResetCounts()
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
		if n := len(s.panel.Counts()); n != 0 || s.active(ada) != 2 {
			t.Errorf("asked %v", s.panel.Counts())
		}
		late := s.plan(t, of(ada))
		time.Sleep(time.Nanosecond)
		_, err = s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "after 15 minutes", err, administration.ConfirmationExpired)
		if _, err = s.Execute(t.Context(), of(ada), late.Confirmation); err != nil {
			t.Error(err)
		}
	})
}

func TestARepeatGoesOnWhereAPartialFailureStopped(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 2000)
		q := of(ada)
		q.Rule = &administration.Rule{Scopes: []string{"vso.wiki vso.code"}, CreatedBefore: time.Now()}
		p := s.plan(t, q)
		// The second batch of three is refused for what is in it.
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 400, Skip: 1, Times: 1})
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		e := wants(t, "the first try", err, administration.Incomplete)
		if !strings.Contains(e.Message, "800 of 2000 PATs were not revoked") || e.Class != rotation.Configuration {
			t.Errorf("%v, class %s", e, e.Class)
		}
		var outcomes []administration.Outcome
		for _, b := range res.Batches {
			outcomes = append(outcomes, b.Outcome)
		}
		if !slices.Equal(outcomes, []administration.Outcome{administration.Done, administration.Failed,
			administration.Done}) || res.Revoked != 1200 || s.active(ada) != 800 {
			t.Errorf("%v, %d revoked, %d active", outcomes, res.Revoked, s.active(ada))
		}
		if b := res.Batches[1]; !slices.Equal(b.Remaining, b.AuthorizationIDs) || b.Code != "http-400" ||
			b.Message == "" || b.ActivityID == "" {
			t.Errorf("%s %s, %d remain", b.Code, b.Message, len(b.Remaining))
		}
		if res.Rule == nil || res.Rule.Outcome != administration.Done || len(res.Acts) != 4 ||
			res.Acts[3].Act != administration.ActRule || res.Acts[3].ActivityID == "" {
			t.Errorf("%+v, %+v", res.Rule, res.Acts)
		}
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		if err != nil || res.Revoked != 800 || s.active(ada) != 0 {
			t.Errorf("the second try: %d revoked, %v", res.Revoked, err)
		}
	})
}

func TestALostAnswerIsCheckedAgainstTheList(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 5)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.StatusAfter, Status: 502, Times: -1})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		if err != nil || res.Revoked != 5 || res.Batches[0].Outcome != administration.Done ||
			res.Batches[0].Code != "http-502" {
			t.Errorf("%+v, %v", res.Batches, err)
		}
	})
}

func TestAPATThatIsStillListedIsPending(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		ids := s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 204})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		slices.Sort(ids)
		if err != nil || res.Revoked != 0 || !res.Verified || res.Batches[0].Outcome != administration.Pending ||
			!slices.Equal(res.Batches[0].Remaining, ids) {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestWithoutTheListAfterwardsTheAnswersCount(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 2)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.ListUserPats, Mode: faults.Status, Status: 404, Skip: 1, Times: -1})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		if err != nil || res.Verified || res.Revoked != 2 || res.Batches[0].Outcome != administration.Done {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestNothingIsTriedAfterAFailureThatWouldRepeatItself(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 1000)
		q := of(ada)
		q.Rule = &administration.Rule{Scopes: []string{"vso.code"}, CreatedBefore: time.Now()}
		p := s.plan(t, q)
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 403, Times: -1})
		res, err := s.Execute(t.Context(), q, p.Confirmation)
		if e := wants(t, "execute", err, administration.Incomplete); !strings.Contains(e.Message,
			administration.NotAdministrator) || !strings.Contains(e.Message, "rule was not made") {
			t.Error(e)
		}
		if s.calls(azure.RevokeUserPats) != 1 || s.calls(azure.RevocationRule) != 0 || s.active(ada) != 1000 {
			t.Errorf("%v", s.panel.Counts())
		}
		if res.Batches[0].Outcome != administration.Failed || res.Batches[1].Outcome != administration.NotTried ||
			res.Rule.Outcome != administration.NotTried || len(res.Acts) != 3 {
			t.Errorf("%+v", res.Acts)
		}
	})
}

func TestARuleIsWarnedOfAndConfirmed(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		q := of()
		q.Rule = &administration.Rule{Scopes: []string{"vso.wiki", "vso.code vso.wiki"}, CreatedBefore: time.Now().
			Add(-time.Hour)}
		p := s.plan(t, q)
		if p.Count != 0 || p.Confirmation == "" || !warned(p, "JWTs) of everybody in the organization") ||
			!slices.Equal(p.Rule.Scopes, []string{"vso.code", "vso.wiki"}) {
			t.Errorf("%+v", p)
		}
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
		if err != nil || res.Rule.Outcome != administration.Done || res.Rule.ActivityID == "" || len(rules) != 1 ||
			rules[0].Scopes != "vso.code vso.wiki" || rules[0].Actor != root {
			t.Errorf("%+v, %v, %+v", res.Rule, err, rules)
		}
		if len(res.Acts) != 1 || res.Acts[0].Act != administration.ActRule ||
			res.Acts[0].Outcome != administration.Done {
			t.Errorf("%+v", res.Acts)
		}
		s.fault(t, faults.Fault{Operation: azure.RevocationRule, Mode: faults.Status, Status: 400})
		res, err = s.Execute(t.Context(), q, p.Confirmation)
		if wants(t, "a refused rule", err, administration.Incomplete); res.Rule.Outcome != administration.Failed ||
			res.Rule.Code != "http-400" || res.Acts[0].Outcome != administration.Failed {
			t.Errorf("%+v", res)
		}
	})
}

func TestARequestThatMakesNoSenseIsRefused(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
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
			p, err := s.Plan(t.Context(), q)
			wants(t, name, err, administration.InvalidRequest)
			if p.Act.Outcome != administration.Failed || p.Act.Code != administration.InvalidRequest {
				t.Errorf("%s: %+v", name, p.Act)
			}
			res, err := s.Execute(t.Context(), q, "x")
			if wants(t, name, err, administration.InvalidRequest); len(res.Acts) != 1 {
				t.Errorf("%s: %+v", name, res.Acts)
			}
		}
		if n := len(s.panel.Counts()); n != 0 {
			t.Errorf("asked %v", s.panel.Counts())
		}
	})
}

func TestUpstreamsRefusalEndsAPlan(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 1)
		p := s.plan(t, of(ada))
		s.azure.SetAdministrator(root, false)
		again, err := s.Plan(t.Context(), of(ada))
		wants(t, "plan", err, administration.NotAdministrator)
		if again.Act.Outcome != administration.Failed || again.Act.Code != administration.NotAdministrator ||
			again.Act.ActivityID == "" {
			t.Errorf("%+v", again.Act)
		}
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "execute", err, administration.NotAdministrator)
		if len(res.Acts) != 1 || res.Acts[0].Outcome != administration.Failed || s.active(ada) != 1 {
			t.Errorf("%+v", res.Acts)
		}
	})
}

func TestTheRecordOfALargeActIsAShortLogLine(t *testing.T) {
	t.Parallel()
	a := administration.Act{Act: administration.ActRevoke, Target: []string{ada}, AuthorizationIDs: make([]string, 800),
		Outcome: administration.Done, ActivityID: "a-1"}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("audit", "act", a)
	var line struct {
		Act struct {
			Count            int
			AuthorizationIDs []string `json:"authorizationIds"`
			Outcome          string
			ActivityID       string `json:"activityId"`
		}
	}
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Act.Count != 800 ||
		len(line.Act.AuthorizationIDs) != 50 || line.Act.Outcome != "done" || line.Act.ActivityID != "a-1" {
		t.Errorf("%s, %v", out.Bytes(), err)
	}
}

func TestAWrongConfigurationIsToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := administration.New(administration.Config{Key: []byte("short")})
	if err == nil || !strings.Contains(err.Error(), "organizations") || !strings.Contains(err.Error(), "5 bytes") {
		t.Error(err)
	}
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
	story(t, func(t *testing.T, s *stand) {
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
		if e := wants(t, "execute", err, administration.Incomplete); e.Class != rotation.Transient ||
			!strings.Contains(e.Message, "200 of 1000") {
			t.Errorf("%v, class %s", e, e.Class)
		}
		if res.Verified || res.Revoked != 800 || res.Batches[1].Outcome != administration.NotTried ||
			len(res.Batches[1].Remaining) != 200 {
			t.Errorf("%d revoked, %+v", res.Revoked, res.Acts)
		}
		if res, err = s.Execute(t.Context(), of(ada), p.Confirmation); err != nil || res.Revoked != 200 ||
			s.active(ada) != 0 {
			t.Errorf("%d revoked, %v", res.Revoked, err)
		}
	})
}

func TestNoAnswerOfAzureDevOpsIsQuoted(t *testing.T) {
	story(t, func(t *testing.T, s *stand) {
		s.seed(ada, 1)
		p := s.plan(t, of(ada))
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: http.StatusBadRequest,
			Header: map[string]string{"Content-Type": "application/json"},
			Body:   `{"message":"canary","typeKey":"OddException"}`})
		res, err := s.Execute(t.Context(), of(ada), p.Confirmation)
		wants(t, "execute", err, administration.Incomplete)
		b, jsonErr := json.Marshal(res)
		if jsonErr != nil || strings.Contains(fmt.Sprintf("%s %v %+v", b, err, res.Acts), "canary") ||
			!strings.Contains(string(b), "OddException") {
			t.Errorf("%s", b)
		}
	})
}
