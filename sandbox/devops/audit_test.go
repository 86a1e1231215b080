package devops_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devops"
)

const auditor = "bearer-auditor"

func TestTheAuditLogIsReadInBatchesByThoseWhoMay(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		s.AddUser(devops.User{UPN: "eve@contoso.com", ObjectID: "o-eve", Auditor: true})
		s.bearers[auditor] = devops.Claims{ObjectID: "o-eve", TenantID: "tenant", Scopes: []string{"vso.auditlog"}}
		s.bearers["bearer-curious"] = devops.Claims{ObjectID: "o-ada", TenantID: "tenant",
			Scopes: []string{"vso.auditlog"}}
		s.bearers["bearer-streams"] = devops.Claims{ObjectID: "o-grace", TenantID: "tenant",
			Scopes: []string{"vso.auditstreams_manage"}}
		s.Seed("contoso", ada, "old", "vso.code", time.Now().Add(30*time.Second), false)
		begun := time.Now()
		for i := range 5 {
			s.create(fmt.Sprint("p", i), "vso.code", time.Now().Add(days(1)), "")
			time.Sleep(time.Minute)
		}
		_, allowed := s.Seed("contoso", "eve@contoso.com", "x", "vso.auditlog", time.Now().Add(days(1)), false)
		_, forbidden := s.Seed("contoso", ada, "x", "vso.auditlog", time.Now().Add(days(1)), false)
		_, narrow := s.Seed("contoso", "grace@contoso.com", "x", "vso.code", time.Now().Add(days(1)), false)

		const log = "contoso/_apis/audit/auditlog?" + version
		for _, c := range []struct {
			name, path, auth string
			status           int
		}{
			{"auditor", log, bearer(auditor), 200},
			{"administrator", log, bearer("bearer-streams"), 200},
			{"auditor's PAT", log, basic(allowed), 200},
			{"without the permission", log, bearer("bearer-curious"), 403},
			{"PAT without the permission", log, basic(forbidden), 403},
			{"without the scope", log, bearer(admin), 401},
			{"PAT without the scope", log, basic(narrow), 401},
			{"without a version", "contoso/_apis/audit/auditlog", bearer(auditor), 400},
			{"released version", "contoso/_apis/audit/auditlog?api-version=7.1", bearer(auditor), 400},
			{"future version", "contoso/_apis/audit/auditlog?api-version=9.0-preview.1", bearer(auditor), 400},
			{"no organization", "nobody/_apis/audit/auditlog?" + version, bearer(auditor), 404},
			{"another organization", "fabrikam/_apis/audit/auditlog?" + version, bearer(auditor), 200},
			{"bad time", log + "&startTime=yesterday", bearer(auditor), 400},
			{"reversed window", log + "&startTime=2026-01-02T00:00:00Z&endTime=2026-01-01T00:00:00Z", bearer(auditor),
				400},
			{"no batch", log + "&batchSize=0", bearer(auditor), 400},
			{"bad token", log + "&continuationToken=x", bearer(auditor), 400},
		} {
			if r := s.call("GET", c.path, c.auth, ""); r.status != c.status {
				t.Errorf("%s: %d %s, want %d", c.name, r.status, r.body, c.status)
			}
		}

		window := log + "&batchSize=2&startTime=" + url.QueryEscape(begun.Format(time.RFC3339)) + "&endTime=" +
			url.QueryEscape(time.Now().Format(time.RFC3339))
		var got []string
		for next, pages := "", 1; ; pages++ {
			r := s.call("GET", window+next, bearer(auditor), "")
			if r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			for _, e := range r.json["decoratedAuditLogEntries"].([]any) {
				e := e.(map[string]any)
				got = append(got, e["actionId"].(string)+" "+e["data"].(map[string]any)["DisplayName"].(string))
			}
			token, _ := r.json["continuationToken"].(string)
			if more := r.json["hasMore"].(bool); !more {
				if token != "" {
					t.Errorf("the last page has the token %q, want none", token)
				}
				if pages != 3 {
					t.Errorf("%d pages, want 3", pages)
				}
				break
			}
			if r := s.call("GET", log+"&continuationToken="+token, bearer(auditor), ""); r.status != 400 {
				t.Errorf("a token with another window: %d", r.status)
			}
			next = "&continuationToken=" + token
		}
		want := []string{"Token.PatCreateEvent p4", "Token.PatCreateEvent p3", "Token.PatCreateEvent p2",
			"Token.PatCreateEvent p1", "Token.PatExpiredEvent old", "Token.PatCreateEvent p0"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		s.Switch(func(sw *devops.Switches) { sw.WrappedAudit, sw.AuditPage = true, 1 })
		r := s.call("GET", log, bearer(auditor), "")
		inner, _ := r.json["value"].(map[string]any)
		if entries, _ := inner["decoratedAuditLogEntries"].([]any); len(entries) != 1 {
			t.Errorf("wrapped: %d entries, want one: %s", len(entries), r.body)
		}
		if inner["hasMore"] != true {
			t.Errorf("wrapped: hasMore is %v, want true", inner["hasMore"])
		}
	})
}

func TestAdministrationIsStrict(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		s.bearers["bearer-no-admin"] = devops.Claims{ObjectID: "o-ada", TenantID: "tenant",
			Scopes: []string{"vso.tokenadministration", "vso.graph"}}
		list := "contoso/_apis/tokenadmin/personalaccesstokens/" + s.Descriptor("grace@contoso.com") + "?"
		const (
			revoke = "contoso/_apis/tokenadmin/revocations?"
			rules  = "contoso/_apis/tokenadmin/revocationrules?"
			users  = "contoso/_apis/graph/users?"
		)
		ids := func(n int) string {
			return "[" +
				strings.TrimSuffix(strings.Repeat(`{"authorizationId":"11111111-2222-3333-4444-555555555555"},`, n),
					",") + "]"
		}
		try := func(name, method, path, auth, body string, status int) {
			t.Helper()
			if r := s.call(method, path, auth, body); r.status != status {
				t.Errorf("%s: %d %s, want %d", name, r.status, r.body, status)
			}
		}
		for path, method := range map[string]string{list: "GET", revoke: "POST", rules: "POST", users: "GET"} {
			body := ""
			if method == "POST" {
				body = "[]"
			}
			try(path+" without a version", method, path, bearer(admin), body, 400)
			try(path+" released", method, path+"api-version=7.1", bearer(admin), body, 400)
			try(path+" without the scope", method, path+version, bearer(both), body, 401)
			try(path+" of nobody", method, strings.Replace(path, "contoso", "nobody", 1)+version, bearer(admin), body,
				404)
			if path != users {
				try(path+" without the role", method, path+version, bearer("bearer-no-admin"), body, 401)
				s.Switch(func(sw *devops.Switches) { sw.ForbidNonAdministrator = true })
				try(path+" without the role", method, path+version, bearer("bearer-no-admin"), body, 403)
				s.Switch(func(sw *devops.Switches) { sw.ForbidNonAdministrator = false })
			}
		}
		try("1000 ids", "POST", revoke+version, bearer(admin), ids(1000), 204)
		try("1001 ids", "POST", revoke+version, bearer(admin), ids(1001), 400)
		try("a page of 100", "GET", list+version+"&pageSize=100", bearer(admin), "", 200)
		try("a page of 101", "GET", list+version+"&pageSize=101", bearer(admin), "", 400)
		s.Switch(func(sw *devops.Switches) { sw.MaxUserPatPage = 20 })
		try("a page of 100, 20 at most", "GET", list+version+"&pageSize=100", bearer(admin), "", 400)
		try("a rule with a date that is none", "POST", rules+version, bearer(admin),
			`{"scopes":"vso.code","createdBefore":"soon"}`, 400)
		if n := len(s.RevocationRules()); n != 0 {
			t.Errorf("%d rules, want none", n)
		}
		try("a rule until now", "POST", rules+version, bearer(admin), `{"scopes":"vso.code"}`, 201)
		want := []devops.RevocationRuleRecord{{Organization: "contoso", Scopes: "vso.code",
			CreatedBefore: time.Now().UTC(), Actor: "grace@contoso.com"}}
		if got := s.RevocationRules(); !slices.Equal(got, want) {
			t.Errorf("rules %+v, want %+v", got, want)
		}
		s.SetAdministrator("grace@contoso.com", false)
		try("an administrator no more", "POST", revoke+version, bearer(admin), ids(1), 401)
	})
}

func TestAnUpdateLeavesWhatItDoesNotNameUnlessSwitchedOtherwise(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		id, _ := s.Seed("contoso", ada, "ci", "vso.code vso.wiki", time.Now().Add(days(5)), false)
		update := func(more string) reply {
			return s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), `{"authorizationId":"`+id+
				`","validTo":"`+time.Now().Add(days(9)).Format(time.RFC3339)+`"`+more+`}`)
		}
		r := update("")
		if r.failure() != "none" {
			t.Errorf("the update failed: %s", r.body)
		}
		if name := r.pat()["displayName"]; name != "ci" {
			t.Errorf("display name %v, want ci", name)
		}
		if scope := r.pat()["scope"]; scope != "vso.code vso.wiki" {
			t.Errorf("scope %v, want it as before", scope)
		}
		s.Switch(func(sw *devops.Switches) { sw.UpdateNeedsAll = true })
		for more, want := range map[string]string{
			"": "displayNameRequired", `,"displayName":"ci"`: "invalidScope",
			`,"displayName":"ci","scope":"vso.code"`: "none",
		} {
			if got := update(more).failure(); got != want {
				t.Errorf("an update with %q: %s, want %s", more, got, want)
			}
		}
	})
}
