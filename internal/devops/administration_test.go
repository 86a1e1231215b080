package devops_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

const grace = "grace@contoso.com"

// administer runs a story in which build-bot's user is an administrator.
func administer(t *testing.T, story func(*testing.T, *fixture, devops.Administration), settings ...setting) {
	t.Helper()
	run(t, func(t *testing.T, s *fixture) {
		s.entra.scopes = append(s.entra.scopes, "vso.tokenadministration", "vso.graph", "vso.auditlog")
		s.azure.SetAdministrator(ada, true)
		story(t, s, s.Administration())
	}, settings...)
}

func names(users []administration.User) (out []string) {
	for _, u := range users {
		out = append(out, u.PrincipalName)
	}
	slices.Sort(out)
	return out
}

func ids(pats []rotation.PAT) (out []string) {
	for _, p := range pats {
		out = append(out, p.AuthorizationID)
	}
	return out
}

func TestUsersAreFoundOnEveryPage(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.azure.AddUser(azure.User{UPN: "jürgen.größe@contoso.com", MailAddress: "JG@contoso.com",
			DisplayName: "Jürgen Größe 日本"})
		s.azure.AddUser(azure.User{UPN: "twin@contoso.com"})
		s.azure.AddUser(azure.User{UPN: "twin_fabrikam#EXT#@contoso.com", MailAddress: "twin@contoso.com"})
		s.azure.AddUser(azure.User{UPN: "far@contoso.com", Organizations: []string{"fabrikam"}})
		for _, size := range []int{1, 2, 6, 7, 500} {
			s.azure.Switch(func(sw *azure.Switches) { sw.GraphPage, sw.BOM = size, size == 2 })
			for _, c := range []struct {
				ask  []string
				want []string
			}{
				{[]string{"ADA@contoso.COM"}, []string{ada}},
				{[]string{" jg@contoso.com "}, []string{"jürgen.größe@contoso.com"}},
				{[]string{"JÜRGEN.GRÖßE@contoso.com"}, []string{"jürgen.größe@contoso.com"}},
				{[]string{"twin@contoso.com", grace}, []string{grace, "twin@contoso.com",
					"twin_fabrikam#EXT#@contoso.com"}},
				{[]string{s.azure.Descriptor(grace)}, []string{grace}},
				{[]string{strings.ToLower(s.azure.Descriptor(grace))}, nil},
				{[]string{"far@contoso.com", "nobody@contoso.com", ""}, nil},
			} {
				got, err := admin.Users(t.Context(), owner, c.ask)
				if err != nil || !slices.Equal(names(got), c.want) {
					t.Errorf("pages of %d, %q: %v, %v, want %v", size, c.ask, names(got), err, c.want)
				}
			}
		}
	})
}

func TestAUsersPATsAreListedToTheEnd(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		var want []string
		for i := range 230 {
			id, _ := s.azure.Seed("contoso", grace, "p", "vso.wiki vso.code",
				time.Now().Add(time.Duration(1+i)*time.Hour), i == 3)
			want = append(want, id)
		}
		gone, _ := s.azure.Seed("contoso", grace, "gone", "vso.code", time.Now().Add(time.Hour), false)
		s.azure.Revoke(gone)
		s.azure.Seed("contoso", grace, "old", "vso.code", time.Now().Add(-time.Hour), false)
		s.azure.Seed("fabrikam", grace, "elsewhere", "vso.code", time.Now().Add(time.Hour), false)
		for size, calls := range map[int]int{0: 3, 20: 13, 100: 3} {
			s.panel.ResetCounts()
			s.azure.Switch(func(sw *azure.Switches) { sw.MaxUserPatPage = size })
			pats, err := admin.UserPATs(t.Context(), owner, s.azure.Descriptor(grace))
			if err != nil || !slices.Equal(ids(pats), want) {
				t.Fatalf("pages of %d: %d PATs, %v, want %d", size, len(pats), err, len(want))
			}
			if n := s.count(azure.ListUserPats); n != calls {
				t.Errorf("pages of %d: %d calls, want %d", size, n, calls)
			}
			p := pats[3]
			equal(t, "the fourth is global", p.Global, true)
			equal(t, "the fifth is global", pats[4].Global, false)
			equal(t, "display name", p.DisplayName, "p")
			equal(t, "scopes", strings.Join(p.Scopes, " "), "vso.code vso.wiki")
			equal(t, "time zone", p.ValidTo.Location(), time.UTC)
		}
	})
}

func TestAPATWithoutNameOrEndIsListedAllTheSame(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.says(t, azure.ListUserPats, 200, "application/json", `{"value":[
			{"authorizationId":"1","validTo":"2099-01-01T00:00:00","displayName":null,"scope":null,
				"targetAccounts":null,"isValid":true,"token":null},
			{"authorizationId":"1","validTo":"2099-01-01T00:00:00","isValid":true},
			{"authorizationId":"2","validTo":"0001-01-01T00:00:00","targetAccounts":["x"]},
			{"authorizationId":"3","validTo":"2099-01-01T00:00:00","isValid":false},
			{"authorizationId":"4","validTo":"2099-01-01T00:00:00","isValid":true,"isPublic":true},
			{"authorizationId":"5","validTo":"1999-01-01T00:00:00","isValid":true}],"continuationToken":null}`)
		pats, err := admin.UserPATs(t.Context(), owner, "aad.eA")
		if err != nil || !slices.Equal(ids(pats), []string{"1", "2"}) {
			t.Fatalf("%+v, %v, want the PATs 1 and 2", pats, err)
		}
		equal(t, "the first is global", pats[0].Global, true)
		equal(t, "the second is global", pats[1].Global, false)
		equal(t, "the second's end", pats[1].ValidTo, time.Time{})
	})
}

func TestAnAdministratorRevokesAnybodysPATs(t *testing.T) {
	for name, refuseUnknown := range map[string]bool{"lenient": false, "strict": true} {
		t.Run(name, func(t *testing.T) {
			administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
				s.azure.Switch(func(sw *azure.Switches) { sw.RefuseUnknownRevocation = refuseUnknown })
				var ends []string
				for range devops.MaxRevocations {
					id, _ := s.azure.Seed("contoso", grace, "p", "vso.code", time.Now().Add(time.Hour), false)
					ends = append(ends, id)
				}
				kept, _ := s.azure.Seed("contoso", grace, "kept", "vso.code", time.Now().Add(time.Hour), false)
				for range 2 { // the second time they are gone already
					activity, err := admin.RevokePATs(t.Context(), owner, ends)
					if err != nil || activity == "" {
						t.Fatalf("%q, %v", activity, err)
					}
				}
				if left, err := admin.UserPATs(t.Context(), owner, s.azure.Descriptor(grace)); err != nil ||
					!slices.Equal(ids(left), []string{kept}) {
					t.Errorf("%d are left, %v", len(left), err)
				}
				_, err := admin.RevokePATs(t.Context(), owner, []string{kept, "11111111-2222-3333-4444-555555555555"})
				if refuseUnknown {
					wants(t, "an unknown id", err, rotation.Configuration, "ArgumentException")
				} else if err != nil {
					t.Error(err)
				}
				for _, n := range []int{0, devops.MaxRevocations + 1} {
					_, err := admin.RevokePATs(t.Context(), owner, make([]string, n))
					wants(t, fmt.Sprint(n, " ids"), err, rotation.Configuration, "batch-size")
				}
			})
		})
	}
}

func TestARevocationIsRepeatedWhenItsAnswerIsLost(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		id, _ := s.azure.Seed("contoso", grace, "p", "vso.code", time.Now().Add(time.Hour), false)
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.ResetAfter})
		s.fault(t, faults.Fault{Operation: azure.RevokeUserPats, Mode: faults.Status, Status: 503, Skip: 1})
		if _, err := admin.RevokePATs(t.Context(), owner, []string{id}); err != nil {
			t.Error(err)
		}
		if n := len(s.azure.AuditLog()); n != 1 {
			t.Errorf("%d audit entries for one revocation", n)
		}
	})
}

func TestARevocationRuleNamesScopesAndDate(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		before := time.Now().Add(-time.Hour)
		activity, err := admin.AddRevocationRule(t.Context(), owner,
			administration.Rule{Scopes: []string{"vso.code", "vso.packaging"}, CreatedBefore: before})
		rules := s.azure.RevocationRules()
		if err != nil || len(rules) != 1 {
			t.Fatalf("%v, %d rules, want 1", err, len(rules))
		}
		if activity == "" {
			t.Error("no activity id")
		}
		equal(t, "scopes", rules[0].Scopes, "vso.code vso.packaging")
		near(t, "date", rules[0].CreatedBefore, before)
		equal(t, "actor", rules[0].Actor, ada)
		for name, r := range map[string]administration.Rule{"no scopes": {CreatedBefore: before},
			"no date": {Scopes: []string{"vso.code"}}} {
			_, err := admin.AddRevocationRule(t.Context(), owner, r)
			wants(t, name, err, rotation.Configuration, "bad-rule")
		}
	})
}

// everyCall makes each call of administration.
func everyCall(t *testing.T, admin devops.Administration, o rotation.Owner, descriptor string) map[string]error {
	_, users := admin.Users(t.Context(), o, []string{ada})
	_, pats := admin.UserPATs(t.Context(), o, descriptor)
	_, revoke := admin.RevokePATs(t.Context(), o, []string{"11111111-2222-3333-4444-555555555555"})
	_, rule := admin.AddRevocationRule(t.Context(), o, administration.Rule{Scopes: []string{"vso.code"},
		CreatedBefore: time.Now()})
	_, audit := admin.AuditLog(t.Context(), o, administration.AuditQuery{})
	return map[string]error{"users": users, "PATs": pats, "revoke": revoke, "rule": rule, "audit": audit}
}

func TestTheErrorSaysThatAUserIsNoAdministrator(t *testing.T) {
	for _, forbid := range []bool{false, true} {
		t.Run(fmt.Sprint("403 ", forbid), func(t *testing.T) {
			administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
				s.azure.SetAdministrator(ada, false)
				s.azure.Switch(func(sw *azure.Switches) { sw.ForbidNonAdministrator = forbid })
				for name, err := range everyCall(t, admin, owner, s.azure.Descriptor(grace)) {
					if name == "users" { // any member may read them
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
						continue
					}
					e := wants(t, name, err, rotation.Configuration, administration.NotAdministrator)
					if !strings.Contains(e.Message, "Project Collection Administrator") || e.ActivityID == "" {
						t.Errorf("%s: %v, activity id %q", name, e, e.ActivityID)
					}
				}
			})
		})
	}
}

func TestAnAuditorNeedNotBeAnAdministrator(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.azure.AddUser(azure.User{UPN: "eve@contoso.com", Auditor: true})
		s.entra.people["eve-bot"] = "eve@contoso.com"
		eve := rotation.Owner{Identity: "eve-bot", Organization: "contoso"}
		if _, err := admin.AuditLog(t.Context(), eve, administration.AuditQuery{}); err != nil {
			t.Error(err)
		}
		_, err := admin.UserPATs(t.Context(), eve, s.azure.Descriptor(grace))
		wants(t, "PATs", err, rotation.Configuration, administration.NotAdministrator)
	})
}

func TestTheErrorSaysThatASignInLacksTheScopes(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.azure.SetAdministrator(ada, true)
		for name, err := range everyCall(t, s.Administration(), owner, s.azure.Descriptor(grace)) {
			code := administration.NotAdministrator // the answer is the same for both
			if name == "users" || name == "audit" {
				code = administration.ScopesMissing
			}
			if e := wants(t, name, err, rotation.Configuration, code); !strings.Contains(e.Message,
				"administrator: true") {
				t.Errorf("%s: %v", name, e)
			}
		}
	})
	// The credential knows better, and says so before anything is asked.
	for _, code := range []string{rotation.UnknownScope, rotation.DeclinedScopes} {
		t.Run(code, func(t *testing.T) {
			administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
				s.entra.err = &rotation.Error{Class: rotation.Configuration, Code: code, Message: "no"}
				for name, err := range everyCall(t, admin, owner, s.azure.Descriptor(grace)) {
					wants(t, name, err, rotation.Configuration, administration.ScopesMissing)
				}
				s.entra.err = &rotation.Error{Class: rotation.SignIn, Code: "AADSTS65001", Message: "no"}
				for name, err := range everyCall(t, admin, owner, s.azure.Descriptor(grace)) {
					wants(t, name, err, rotation.SignIn, "AADSTS65001")
				}
			})
		})
	}
}

func TestAnUnknownUserAndAnUnknownOrganizationAreTwoThings(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		_, err := admin.UserPATs(t.Context(), owner, "aad.MTExMTExMTEtMjIyMi0zMzMzLTQ0NDQtNTU1NTU1NTU1NTU1")
		if wants(t, "an unknown user", err, rotation.Configuration, administration.UserUnknown); !errors.Is(err,
			rotation.ErrNotFound) {
			t.Errorf("%v is not ErrNotFound", err)
		}
		_, err = admin.UserPATs(t.Context(), owner, "")
		wants(t, "no user", err, rotation.Configuration, administration.UserUnknown)
		_, err = admin.UserPATs(t.Context(), owner, "../x?y#z")
		wants(t, "no descriptor", err, rotation.Configuration, administration.UserUnknown)
		if n := s.count(azure.ListUserPats); n != 1 {
			t.Errorf("%d lists were asked for", n)
		}
		for name, err := range everyCall(t, admin, rotation.Owner{Identity: "build-bot", Organization: "nobody"},
			s.azure.Descriptor(grace)) {
			wants(t, name, err, rotation.Configuration, administration.OrganizationUnknown)
		}
	})
}

func TestAdministrationTakesNoPageForAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		kind   string
		body   string
		class  rotation.Class
		code   string
	}{
		{"203", 203, "text/html", "<html>Sign in</html>", rotation.Transient, "sign-in-page"},
		{"302", 302, "text/html", "<html>Sign in</html>", rotation.Transient, "sign-in-page"},
		{"a page with 200", 200, "text/html", "<html>Sign in</html>", rotation.Transient, "sign-in-page"},
		{"broken", 200, "application/json", "{", rotation.Transient, "bad-answer"},
		{"throttled", 429, "application/json", `{"message":"TF400733: The request has been canceled"}`,
			rotation.Throttled, "TF400733"},
		{"internal", 500, "application/json", `{"message":"TF400898: An Internal Error Occurred."}`, rotation.Transient,
			"TF400898"},
		{"malformed", 400, "application/json", `{"message":"TF400898: An Internal Error Occurred."}`,
			rotation.Configuration, "TF400898"},
	} {
		t.Run(c.name, func(t *testing.T) {
			administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
				s.fault(t, faults.Fault{Mode: faults.Status, Status: c.status, Times: -1,
					Header: map[string]string{"Content-Type": c.kind}, Body: c.body})
				for name, err := range everyCall(t, admin, owner, s.azure.Descriptor(grace)) {
					e := wants(t, name, err, c.class, c.code)
					if strings.Contains(fmt.Sprintf("%+v", e), "Internal Error") ||
						strings.Contains(e.Error(), "Sign in<") {
						t.Errorf("%s quotes the answer: %v", name, e)
					}
				}
			})
		})
	}
}

func TestListsOfAdministrationThatMakeNoSenseAreRefused(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		ctx := t.Context()
		for _, c := range []struct {
			operation, body string
			header          [2]string
			call            func() error
		}{
			{azure.GraphUsers, `{}`, [2]string{},
				func() error { _, err := admin.Users(ctx, owner, []string{ada}); return err }},
			{azure.GraphUsers, `{"value":[{"principalName":"ada@contoso.com"}]}`, [2]string{},
				func() error { _, err := admin.Users(ctx, owner, []string{ada}); return err }},
			{azure.GraphUsers, `{"value":[]}`, [2]string{"X-MS-ContinuationToken", "again"},
				func() error { _, err := admin.Users(ctx, owner, []string{ada}); return err }},
			{azure.ListUserPats, `{}`, [2]string{},
				func() error { _, err := admin.UserPATs(ctx, owner, "aad.eA"); return err }},
			{azure.ListUserPats, `{"value":[{"validTo":"2099-01-01T00:00:00"}]}`, [2]string{},
				func() error { _, err := admin.UserPATs(ctx, owner, "aad.eA"); return err }},
			{azure.ListUserPats, `{"value":[],"continuationToken":"11111111-2222-3333-4444-555555555555"}`, [2]string{},
				func() error { _, err := admin.UserPATs(ctx, owner, "aad.eA"); return err }},
			{azure.QueryAudit, `{}`, [2]string{}, func() error {
				_, err := admin.AuditLog(ctx, owner, administration.AuditQuery{})
				return err
			}},
			{azure.QueryAudit, `{"decoratedAuditLogEntries":[],"hasMore":true,"continuationToken":"again"}`,
				[2]string{}, func() error {
					_, err := admin.AuditLog(ctx, owner, administration.AuditQuery{})
					return err
				}},
		} {
			s.fault(t, faults.Fault{Operation: c.operation, Mode: faults.Status, Status: 200, Times: -1, Body: c.body,
				Header: map[string]string{"Content-Type": "application/json", "X-Dummy": "", c.header[0]: c.header[1]}})
			wants(t, c.body, c.call(), rotation.Transient, "bad-answer")
			s.panel.ClearFaults()
		}
	})
}

func TestAdministrationAsksForItsOwnScopesAndHosts(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.azure.OnRequest(func(r *http.Request) {
			host := "vssps.dev.azure.com"
			if strings.HasSuffix(r.URL.Path, "auditlog") {
				host = "auditservice.dev.azure.com"
			}
			if r.Host != host || r.URL.Query().Get("api-version") != "7.1-preview.1" {
				t.Errorf("%s asked at %s, version %s", r.URL.Path, r.Host, r.URL.Query().Get("api-version"))
			}
		})
		for range 2 {
			everyCall(t, admin, owner, s.azure.Descriptor(grace))
		}
		var asked []string
		for _, o := range s.entra.asked() {
			asked = append(asked, o.Scopes...)
		}
		slices.Sort(asked)
		want := devops.AdministrationScopes()
		slices.Sort(want)
		if !slices.Equal(asked, want) {
			t.Errorf("asked for %v, want each once: %v", asked, want)
		}
	})
}

func TestAStandInsTokensStayWithIt(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		var host string
		s.azure.OnRequest(func(r *http.Request) { host = r.Host })
		if _, err := admin.AuditLog(t.Context(), owner, administration.AuditQuery{}); err != nil ||
			host != "vssps.dev.azure.com" {
			t.Errorf("the audit log was asked at %s: %v", host, err)
		}
	}, func(c *devops.Config, _ *fixture) { c.URL = "https://vssps.dev.azure.com" })
}

func TestAPauseHoldsAdministrationToo(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.azure.SlowDown(ada, 12*time.Second, false)
		start := time.Now()
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Users(t.Context(), owner, []string{ada}); err != nil ||
			time.Since(start) != 12*time.Second || s.azure.Impatient(ada) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestTheAuditLogShowsWhatBecameOfPATs(t *testing.T) {
	for name, change := range map[string]func(*azure.Switches){
		"one page":   func(*azure.Switches) {},
		"many pages": func(sw *azure.Switches) { sw.AuditPage = 1 },
		"wrapped":    func(sw *azure.Switches) { sw.WrappedAudit, sw.AuditPage = true, 2 },
		"byte order": func(sw *azure.Switches) { sw.BOM = true },
	} {
		t.Run(name, func(t *testing.T) {
			administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
				s.azure.Switch(change)
				ctx := t.Context()
				begun := time.Now()
				r := request("ci")
				r.ValidTo = time.Now().Add(2 * time.Hour)
				made, err := s.Create(ctx, owner, r)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if _, err := s.Update(ctx, owner, made.AuthorizationID, time.Now().Add(3*time.Hour)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if err := s.Revoke(ctx, owner, made.AuthorizationID); err != nil {
					t.Fatal(err)
				}
				hers, _ := s.azure.Seed("contoso", grace, "hers", "vso.code", time.Now().Add(time.Hour), false)
				s.azure.Seed("contoso", grace, "short", "vso.code", time.Now().Add(2*time.Minute), false)
				time.Sleep(time.Minute)
				activity, err := admin.RevokePATs(ctx, owner, []string{hers})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				page, err := admin.AuditLog(ctx, owner, administration.AuditQuery{From: begun, To: time.Now()})
				if err != nil || page.More {
					t.Fatalf("%v, more %v", err, page.More)
				}
				var got []string
				for _, e := range page.Entries {
					got = append(got, e.Action+" "+e.DisplayName+" by "+e.Actor)
				}
				want := []string{
					"Token.PatExpiredEvent short by Azure DevOps Service",
					"Token.PatRevokeEvent hers by " + ada,
					"Token.PatRevokeEvent ci by " + ada,
					"Token.PatUpdateEvent ci by " + ada,
					"Token.PatCreateEvent ci by " + ada,
				}
				if !slices.Equal(got, want) {
					t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				e := page.Entries[1]
				equal(t, "activity id", e.ActivityID, activity)
				equal(t, "authorization id", e.AuthorizationID, hers)
				equal(t, "owner", e.Owner, grace)
				equal(t, "user agent", e.UserAgent, "patrol/1.2.3")
				equal(t, "without a time", e.At.IsZero(), false)
				equal(t, "without an address", e.IPAddress == "", false)
				short, err := admin.AuditLog(ctx, owner, administration.AuditQuery{Limit: 2})
				if err != nil || len(short.Entries) != 2 {
					t.Fatalf("%d entries, %v, want 2", len(short.Entries), err)
				}
				equal(t, "more than two", short.More, true)
				equal(t, "the newest", short.Entries[0].Action, "Token.PatExpiredEvent")
				window, err := admin.AuditLog(ctx, owner, administration.AuditQuery{From: begun.Add(30 * time.Second),
					To: begun.Add(90 * time.Second)})
				if err != nil || len(window.Entries) != 1 || window.Entries[0].Action != "Token.PatUpdateEvent" {
					t.Errorf("a minute: %+v, %v", window, err)
				}
				time.Sleep(90 * 24 * time.Hour)
				if late, err := admin.AuditLog(ctx, owner, administration.AuditQuery{}); err != nil ||
					len(late.Entries) != 0 || late.Entries == nil {
					t.Errorf("after 90 days: %+v, %v", late, err)
				}
			})
		})
	}
}

func TestOtherEventsAndFreeTextStayInTheAuditLog(t *testing.T) {
	administer(t, func(t *testing.T, s *fixture, admin devops.Administration) {
		s.says(t, azure.QueryAudit, 200, "application/json", `{"decoratedAuditLogEntries":[
			{"actionId":"Git.CreateRepo","timestamp":"2026-11-20T08:11:02Z","details":"no"},
			{"actionId":"Token.<b>","timestamp":"2026-11-20T08:11:02Z"},
			{"actionId":"Token.PatPublicDiscoveryEvent","timestamp":"2026-11-20T08:11:02.1Z","activityId":"a",
				"actorUPN":"","actorDisplayName":"Azure DevOps Service","details":"do not quote me",
				"data":{"DisplayName":"leaked","OwnerName":"ada","Scopes":["x"],"AuthorizationId":7}}],
			"continuationToken":"more","hasMore":false}`)
		page, err := admin.AuditLog(t.Context(), owner, administration.AuditQuery{})
		if err != nil || len(page.Entries) != 1 || page.More {
			t.Fatalf("%+v, %v", page, err)
		}
		e := page.Entries[0]
		equal(t, "actor", e.Actor, "Azure DevOps Service")
		equal(t, "display name", e.DisplayName, "leaked")
		equal(t, "owner", e.Owner, "ada")
		equal(t, "authorization id", e.AuthorizationID, "")
		equal(t, "activity id", e.ActivityID, "a")
		if strings.Contains(fmt.Sprint(e), "quote") {
			t.Errorf("the entry quotes free text: %+v", e)
		}
	})
}
