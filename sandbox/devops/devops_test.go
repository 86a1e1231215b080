package devops_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	ada   = "ada@contoso.com"
	both  = "bearer-both"  // vso.pats and vso.pats_manage
	admin = "bearer-admin" // of grace, an administrator
)

// fixture is an Azure DevOps with two organizations and three users, in a synctest
// bubble.
type fixture struct {
	*devops.Service
	t        *testing.T
	injector *faults.Injector
	client   *http.Client
	adaID    string
	bearers  map[string]devops.Claims
}

func run(t *testing.T, sw devops.Switches, test func(*testing.T, *fixture)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fixture{t: t, injector: &faults.Injector{}, bearers: map[string]devops.Claims{
			both: {ObjectID: "o-ada", UPN: ada, TenantID: "tenant", Scopes: []string{"vso.pats",
				"vso.pats_manage"}},
			"bearer-list":   {ObjectID: "o-ada", UPN: ada, TenantID: "tenant", Scopes: []string{"vso.pats"}},
			"bearer-manage": {ObjectID: "o-ada", UPN: ada, TenantID: "tenant", Scopes: []string{"vso.pats_manage"}},
			"bearer-broad":  {ObjectID: "o-ada", UPN: ada, TenantID: "tenant", Scopes: []string{"user_impersonation"}},
			"bearer-app": {ObjectID: "o-app", TenantID: "tenant", AppOnly: true, Scopes: []string{"vso.pats",
				"vso.pats_manage"}},
			"bearer-alien": {ObjectID: "o-ada", UPN: ada, TenantID: "elsewhere", Scopes: []string{"vso.pats",
				"vso.pats_manage"}},
			"bearer-guest": {ObjectID: "o-guest", UPN: "guest@contoso.com", TenantID: "tenant",
				Scopes: []string{"vso.pats", "vso.pats_manage"}},
			admin: {ObjectID: "o-grace", UPN: "grace@contoso.com", TenantID: "tenant",
				Scopes: []string{"vso.tokenadministration", "vso.graph"}},
		}}
		verify := func(token string) (devops.Claims, error) {
			c, ok := s.bearers[token]
			if !ok {
				return c, errors.New("expired")
			}
			return c, nil
		}
		s.Service = devops.New(devops.Config{Injector: s.injector, Switches: sw, Verify: verify})
		for _, org := range []string{"contoso", "fabrikam"} {
			s.AddOrganization(devops.Organization{Name: org, TenantID: "tenant"})
		}
		s.adaID = s.AddUser(devops.User{UPN: ada, ObjectID: "o-ada", DisplayName: "Ada"})
		s.AddUser(devops.User{UPN: "grace@contoso.com", ObjectID: "o-grace", Administrator: true})
		s.AddUser(devops.User{UPN: "guest@contoso.com", ObjectID: "o-guest", Organizations: []string{"fabrikam"}})
		var network memnet.Network
		l, err := network.Listen("dev.azure.com:443")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s.Service}
		go func() { _ = server.Serve(l) }()
		transport := network.Transport()
		s.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}
		defer func() {
			transport.CloseIdleConnections()
			_ = server.Close()
			synctest.Wait()
		}()
		test(t, s)
	})
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r reply) typeKey() string { s, _ := r.json["typeKey"].(string); return s }
func (r reply) failure() string { s, _ := r.json["patTokenError"].(string); return s }
func (r reply) pat() map[string]any {
	m, _ := r.json["patToken"].(map[string]any)
	return m
}

// call sends a request; header lines are "Name: value" and replace the defaults.
func (s *fixture) call(method, path, auth, body string, header ...string) reply {
	s.t.Helper()
	req, err := http.NewRequest(method, "https://dev.azure.com/"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-TFS-FedAuthRedirect", "Suppress")
	req.Header.Set("Authorization", auth)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(b)}
	_ = json.Unmarshal(bytes.TrimPrefix(b, []byte("\ufeff")), &r.json)
	return r
}

const version = "api-version=7.1-preview.1"

func bearer(token string) string { return "Bearer " + token }
func basic(pat string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(":"+pat))
}

func (s *fixture) create(name, scope string, validTo time.Time, more string) reply {
	s.t.Helper()
	return s.call("POST", "contoso/_apis/tokens/pats?"+version, bearer(both),
		`{"displayName":"`+name+`","scope":"`+scope+`","validTo":"`+validTo.Format(time.RFC3339Nano)+`"`+more+`}`)
}

func (s *fixture) connect(org, pat string, header ...string) reply {
	s.t.Helper()
	return s.call("GET", org+"/_apis/connectionData?"+version, basic(pat), "", header...)
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func TestAPATLivesFromCreationToRevocation(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		var changes []devops.ChangeKind
		s.OnChange(func(c devops.Change) { changes = append(changes, c.Kind) })

		made := s.create("ci", "vso.packaging vso.code", time.Now().Add(days(30)).Add(319*time.Millisecond), "")
		if made.status != 200 || made.failure() != "none" {
			t.Fatalf("create: %d %s", made.status, made.body)
		}
		token, id := made.pat()["token"].(string), made.pat()["authorizationId"].(string)
		if !regexp.MustCompile(`^[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9][A-L][A-Za-z0-9]{12}AAAAAZDO[A-Za-z0-9]{4}$`).
			MatchString(token) {
			t.Errorf("the token has the wrong form (%d characters)", len(token))
		}
		if to := made.pat()["validTo"].(string); !strings.HasSuffix(to, ".32Z") {
			t.Errorf("validTo = %s, want it rounded to 1/300 s", to)
		}
		who := s.connect("contoso", token)
		if who.status != 200 {
			t.Fatalf("connectionData: %d %s, want 200", who.status, who.body)
		}
		if id := who.json["authenticatedUser"].(map[string]any)["id"]; id != s.adaID {
			t.Errorf("connectionData names %v, want %s", id, s.adaID)
		}
		if r := s.connect("fabrikam", token); r.status != 401 {
			t.Errorf("the other organization answered %d", r.status)
		}
		got := s.call("GET", "contoso/_apis/Tokens/Pats?authorizationId="+id+"&"+version, bearer(both), "")
		if got.pat()["authorizationId"] != id || got.pat()["token"] != nil {
			t.Errorf("get: %s", got.body)
		}
		moved := s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), `{"authorizationId":"`+id+
			`","validTo":"`+time.Now().Add(days(60)).Format(time.RFC3339)+`"}`)
		if moved.failure() != "none" || moved.pat()["token"] != nil || moved.pat()["displayName"] != "ci" {
			t.Errorf("update: %s", moved.body)
		}
		gone := s.call("DELETE", "contoso/_apis/tokens/pats?authorizationId="+id+"&"+version, bearer(both), "")
		if gone.status != 204 || gone.body != "" {
			t.Errorf("revoke: %d %s, want 204 and no body", gone.status, gone.body)
		}
		refused := s.connect("contoso", token)
		if refused.status != 401 || refused.typeKey() != "UnauthorizedRequestException" {
			t.Errorf("the revoked PAT: %d %s, want 401", refused.status, refused.body)
		}
		if !strings.Contains(refused.body, devops.AnonymousID) {
			t.Errorf("the revoked PAT's refusal does not name the anonymous user: %s", refused.body)
		}
		moved = s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), `{"authorizationId":"`+id+`"}`)
		if moved.failure() != "authorizationNotFound" {
			t.Errorf("update of a revoked PAT: %s", moved.body)
		}
		if want := []devops.ChangeKind{devops.Created, devops.Updated, devops.Ended}; !slices.Equal(changes, want) {
			t.Errorf("changes %v, want %v", changes, want)
		}
		if s.Works("contoso", token) {
			t.Error("the revoked PAT works")
		}
		if n := s.Mails(); n != 1 {
			t.Errorf("%d mails, want 1", n)
		}
		var actions []string
		for _, a := range s.AuditLog() {
			actions = append(actions, a.Action)
		}
		want := []string{"Token.PatCreateEvent", "Token.PatUpdateEvent", "Token.PatRevokeEvent"}
		if !slices.Equal(actions, want) {
			t.Errorf("audit %v, want %v", actions, want)
		}
		if p := s.PATs("contoso", ada); len(p) != 1 || p[0].State != devops.Revoked || p[0].Token != token {
			t.Errorf("%d PATs, want the revoked one", len(p))
		}
		if n := s.injector.Count("devops", devops.CreatePat); n != 1 {
			t.Errorf("%d creations counted, want 1", n)
		}
	})
}

func TestCallersAreJudged(t *testing.T) {
	const pats = "contoso/_apis/tokens/pats?" + version
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		_, pat := s.Seed("contoso", ada, "p", "app_token", time.Now().Add(days(9)), false)
		body := `{"displayName":"x","scope":"vso.code","validTo":"2000-02-01T00:00:00Z"}`
		for _, c := range []struct {
			name, method, path, auth, header string
			status                           int
			contains                         string
		}{
			{"both scopes", "GET", pats, bearer(both), "", 200, "patTokens"},
			{"both scopes create", "POST", pats, bearer(both), "", 200, "none"},
			{"a bearer as Basic password", "GET", pats, basic(both), "", 200, "patTokens"},
			{"vso.pats lists", "GET", pats, bearer("bearer-list"), "", 200, "patTokens"},
			{"vso.pats does not create", "POST", pats, bearer("bearer-list"), "", 401, "TF400813"},
			{"vso.pats does not revoke", "DELETE", pats, bearer("bearer-list"), "", 401, "TF400813"},
			{"vso.pats_manage does not create", "POST", pats, bearer("bearer-manage"), "", 401, "TF400813"},
			{"user_impersonation", "GET", pats, bearer("bearer-broad"), "", 401, "TF400813"},
			{"a service principal", "GET", pats, bearer("bearer-app"), "", 403, "Service principals are not allowed"},
			{"a PAT on the PATs", "GET", pats, basic(pat), "", 401, "InvalidAccessException"},
			{"not a member", "GET", pats, bearer("bearer-guest"), "", 401, "o-guest"},
			{"another tenant", "GET", pats, bearer("bearer-alien"), "X-TFS-FedAuthRedirect: none", 302, "Object moved"},
			{"expired bearer", "GET", pats, bearer("old"), "", 401, "TF400813"},
			{"expired bearer without Suppress", "GET", pats, bearer("old"), "X-TFS-FedAuthRedirect: none", 302,
				"Object moved"},
			{"no credentials", "GET", pats, "", "", 401, devops.AnonymousID},
			{"a page for people", "GET", pats, bearer("old"), "Accept: text/html", 401, "<!DOCTYPE html>"},
			{"unknown organization", "GET", "nobody/_apis/tokens/pats?" + version, bearer(both), "", 404,
				"cannot be found"},
			{"unknown resource", "GET", "contoso/_apis/tokens/cats?" + version, bearer(both), "", 404,
				"cannot be found"},
			{"plain version", "GET", "contoso/_apis/tokens/pats?api-version=7.1", bearer(both), "", 400,
				"VssInvalidPreviewVersionException"},
			{"plain version of connectionData", "GET", "contoso/_apis/connectionData?api-version=7.1", basic(pat), "",
				400, "VssInvalidPreviewVersionException"},
			{"short preview", "GET", "contoso/_apis/tokens/pats?api-version=7.1-preview", bearer(both), "", 200,
				"patTokens"},
			{"version in Accept", "GET", "contoso/_apis/tokens/pats", bearer(both),
				"Accept: application/json;api-version=7.2-preview.1", 200, "patTokens"},
			{"no version", "GET", "contoso/_apis/tokens/pats", bearer(both), "", 400,
				"VssVersionNotSpecifiedException"},
			{"version out of range", "GET", "contoso/_apis/tokens/pats?api-version=9.0-preview.1", bearer(both), "",
				400, "VssVersionOutOfRangeException"},
			{"connectionData by bearer", "GET", "contoso/_apis/connectionData?" + version, bearer("bearer-list"), "",
				200, s.adaID},
		} {
			b := ""
			if c.method == "POST" {
				b = body
			}
			var header []string
			if c.header != "" {
				header = []string{c.header}
			}
			r := s.call(c.method, c.path, c.auth, b, header...)
			if r.status != c.status || !strings.Contains(r.body, c.contains) {
				t.Errorf("%s: %d %.200s, want %d with %q", c.name, r.status, r.body, c.status, c.contains)
			}
			if r.header.Get("X-VSS-E2EID") == "" || r.header.Get("ActivityId") == "" ||
				r.header.Get("X-TFS-Session") == "" {
				t.Errorf("%s: a correlation header is missing", c.name)
			}
			message, err := url.QueryUnescape(r.header.Get("X-TFS-ServiceError"))
			if c.status == 401 && (err != nil || message == "") {
				t.Errorf("%s: no X-TFS-ServiceError", c.name)
			}
		}
		r := s.call("GET", pats, bearer("old"), "", "X-TFS-FedAuthRedirect: none")
		page := s.call("GET", strings.TrimPrefix(r.header.Get("Location"), "https://dev.azure.com/"), "", "")
		if page.status != 203 || !strings.Contains(page.body, "Sign in") {
			t.Errorf("the sign-in page: %d %s, want 203", page.status, page.body)
		}
		s.Switch(func(sw *devops.Switches) {
			sw.ForbidPAT, sw.AcceptImpersonation, sw.ReleasedPats = true, true, true
		})
		if r := s.call("GET", pats, basic(pat), ""); r.status != 403 {
			t.Errorf("a PAT with ForbidPAT: %d", r.status)
		}
		const released = "contoso/_apis/tokens/pats?api-version=7.1"
		if r := s.call("GET", released, bearer("bearer-broad"), ""); r.status != 200 {
			t.Errorf("released version and broad scope: %d, want 200", r.status)
		}
		s.Switch(func(sw *devops.Switches) { sw.SignInPage = true })
		if r := s.call("GET", pats, bearer("old"), ""); r.status != 203 {
			t.Errorf("SignInPage: %d", r.status)
		}
	})
}

func TestAClaimsChallengeWantsANewToken(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		const pats = "contoso/_apis/tokens/pats?" + version
		s.Challenge(ada)
		for range 2 {
			r := s.call("GET", pats, bearer(both), "")
			if r.status != 401 || !strings.Contains(r.header.Get("WWW-Authenticate"), `error="insufficient_claims"`) {
				t.Fatalf("%d %s", r.status, r.header)
			}
		}
		s.bearers["newer"] = s.bearers[both]
		if r := s.call("GET", pats, bearer("newer"), ""); r.status != 200 {
			t.Errorf("a new token: %d", r.status)
		}
	})
}

func TestRequestsThatBreakARuleAreRefusedWithHTTP200(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		ok := time.Now().Add(days(5))
		for _, c := range []struct {
			name     string
			policies devops.Policies
			display  string
			scope    string
			validTo  time.Time
			more     string
			want     string
		}{
			{"fine", devops.Policies{}, "a", "vso.code ", ok, "", "none"},
			{"the same name again", devops.Policies{}, "a", "vso.code", ok, "", "none"},
			{"no name", devops.Policies{}, " ", "vso.code", ok, "", "displayNameRequired"},
			{"long name", devops.Policies{}, strings.Repeat("x", 300), "vso.code", ok, "", "invalidDisplayName"},
			{"past", devops.Policies{}, "a", "vso.code", time.Now().Add(-time.Hour), "", "invalidValidTo"},
			{"over a year", devops.Policies{}, "a", "vso.code", time.Now().Add(days(370)), "", "invalidValidTo"},
			{"no scope", devops.Policies{}, "a", "", ok, "", "invalidScope"},
			{"unknown scope", devops.Policies{}, "a", "vso.codes", ok, "", "invalidScope"},
			{"an application's scope", devops.Policies{}, "a", "vso.pats", ok, "", "invalidScope"},
			{"full scope", devops.Policies{FullScope: true}, "a", "app_token", ok, "", "fullScopePatPolicyViolation"},
			{"full scope, exempt", devops.Policies{FullScope: true, Exempt: []string{ada}}, "a", "app_token", ok, "",
				"none"},
			{"global", devops.Policies{Global: true}, "a", "vso.code", ok, `,"allOrgs":true`,
				"globalPatPolicyViolation"},
			{"global retired", devops.Policies{GlobalRetired: true, Exempt: []string{ada}}, "a", "vso.code", ok,
				`,"allOrgs":true`, "globalPATCreationBlocked"},
			{"creation", devops.Policies{Creation: true}, "a", "vso.packaging", ok, "",
				"disablePatCreationPolicyViolation"},
			{"creation of packaging PATs", devops.Policies{Creation: true, PackagingOnly: true}, "a",
				"vso.packaging_write", ok, "", "none"},
			{"creation of others", devops.Policies{Creation: true, PackagingOnly: true}, "a", "vso.packaging vso.code",
				ok, "", "disablePatCreationPolicyViolation"},
			{"tenant unreadable", devops.Policies{TenantUnreadable: true}, "a", "vso.code", ok, "",
				"failedToReadTenantPolicy"},
			{"organization unreadable", devops.Policies{OrgUnreadable: true}, "a", "vso.code", ok, "",
				"failedToReadOrgPolicy"},
		} {
			s.SetPolicies("contoso", c.policies)
			r := s.create(c.display, c.scope, c.validTo, c.more)
			if r.status != 200 || r.failure() != c.want || (r.pat() == nil) == (c.want == "none") {
				t.Errorf("%s: %d %s, want %s", c.name, r.status, r.failure(), c.want)
			}
		}
		s.Switch(func(sw *devops.Switches) { sw.CreationDenied, sw.MaxDisplayName, sw.RefuseApp = true, 64, true })
		s.SetPolicies("contoso", devops.Policies{Creation: true})
		if r := s.create("a", "vso.code", ok, ""); r.failure() != "accessDenied" {
			t.Errorf("creation denied: %s", r.body)
		}
		if r := s.create(strings.Repeat("x", 65), "vso.code", ok, ""); r.failure() != "invalidDisplayName" {
			t.Errorf("a shorter limit of names: %s", r.body)
		}
		r := s.call("GET", "contoso/_apis/tokens/pats?"+version, bearer("bearer-app"), "")
		if r.status != 401 || r.typeKey() != "InvalidAccessException" {
			t.Errorf("a service principal with RefuseApp: %d %s", r.status, r.body)
		}
		r = s.call("POST", "contoso/_apis/tokens/pats?api-version=7.2-preview.1", bearer(both),
			`{"displayName":"","scope":"vso.code"}`)
		if r.json["patTokenErrorMessage"] == nil {
			t.Error("7.2 has no patTokenErrorMessage")
		}
		r = s.call("POST", "contoso/_apis/tokens/pats?"+version, bearer(both), "{")
		if r.status != 400 || r.typeKey() != "JsonReaderException" {
			t.Errorf("broken JSON: %d %s, want 400", r.status, r.body)
		}
		if !strings.Contains(r.body, "TF400898") {
			t.Errorf("broken JSON: %s, want TF400898 in it", r.body)
		}
		r = s.call("POST", "contoso/_apis/tokens/pats?"+version, bearer(both), "{}", "Content-Type: text/plain")
		if r.status != 415 {
			t.Errorf("text/plain: %d, want 415", r.status)
		}
	})
}

func TestTheLifespanPolicyShortensOrRefuses(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		s.SetPolicies("contoso", devops.Policies{MaxLifespanDays: 10})
		r := s.create("a", "vso.code", time.Now().Add(days(30)), "")
		ends := func(r reply, want time.Time, why string) {
			t.Helper()
			to, err := time.Parse(time.RFC3339, r.pat()["validTo"].(string))
			if err != nil || !to.Equal(want) {
				t.Errorf("%s: valid to %v, want %s", why, r.pat()["validTo"], want)
			}
		}
		ends(r, time.Now().Add(days(10)), "the policy shortens a creation")
		time.Sleep(days(5))
		put := `{"authorizationId":"` + r.pat()["authorizationId"].(string) + `","validTo":"` +
			time.Now().Add(days(10)).Format(time.RFC3339) + `"}`
		r = s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), put)
		ends(r, time.Now().Add(days(5)), "the policy counts from the creation, also for an update")
		s.Switch(func(sw *devops.Switches) { sw.LifespanError = true })
		if r := s.create("a", "vso.code", time.Now().Add(days(30)), ""); r.failure() != "patLifespanPolicyViolation" {
			t.Errorf("as an error: %s", r.body)
		}
		time.Sleep(days(5))
		r = s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), put)
		if r.failure() != "expiredPatCannotBeExtended" {
			t.Errorf("update of an expired PAT: %s", r.body)
		}
	})
}

func TestListsArePagedFilteredAndSorted(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		for i := range 250 {
			s.Seed("contoso", ada, "n"+strconv.Itoa(1000-i), "vso.code", time.Now().Add(time.Duration(i+1)*time.Hour),
				false)
		}
		s.Seed("fabrikam", ada, "elsewhere", "vso.code", time.Now().Add(days(5)), false)
		s.Seed("fabrikam", ada, "global", "vso.code", time.Now().Add(days(30)), true)
		id, _ := s.Seed("contoso", ada, "revoked", "vso.code", time.Now().Add(days(5)), false)
		s.Revoke(id)
		s.Seed("contoso", ada, "expired", "vso.code", time.Now().Add(-time.Hour), false)
		names := func(query string) (out []string, pages int) {
			t.Helper()
			next := ""
			for {
				r := s.call("GET", "contoso/_apis/tokens/pats?"+version+"&"+query+next, bearer(both), "")
				if r.status != 200 {
					t.Fatalf("%s: %d %s", query, r.status, r.body)
				}
				for _, p := range r.json["patTokens"].([]any) {
					out = append(out, p.(map[string]any)["displayName"].(string))
				}
				pages++
				token, _ := r.json["continuationToken"].(string)
				if token == "" {
					return out, pages
				}
				next = "&continuationToken=" + token
			}
		}
		// A sorted list by its first, its last and its length.
		ends := func(got []string) string { return fmt.Sprint(got[0], " ", got[len(got)-1], " ", len(got)) }
		got, pages := names("displayFilterOption=Active&sortByOption=displayDate&isSortAscending=true&$top=100")
		if ends(got) != "n1000 global 251" || pages != 3 {
			t.Errorf("by date: %s on %d pages, want n1000 global 251 on 3", ends(got), pages)
		}
		got, _ = names("sortByOption=displayName&isSortAscending=false&$top=7")
		if ends(got) != "n999 global 251" {
			t.Errorf("by name: %s, want n999 global 251", ends(got))
		}
		if got, _ := names("displayFilterOption=revoked"); !slices.Equal(got, []string{"revoked"}) {
			t.Errorf("revoked: %v", got)
		}
		if got, _ := names("displayFilterOption=expired"); !slices.Equal(got, []string{"expired"}) {
			t.Errorf("expired: %v", got)
		}
		if got, _ := names("displayFilterOption=all&sortByOption=status"); len(got) != 253 {
			t.Errorf("all: %d", len(got))
		}
		for _, query := range []string{"$top=101", "$top=0", "$top=x", "sortByOption=colour",
			"displayFilterOption=dead", "isSortAscending=2", "continuationToken=eA"} {
			if r := s.call("GET", "contoso/_apis/tokens/pats?"+version+"&"+query, bearer(both), ""); r.status != 400 {
				t.Errorf("%s: %d", query, r.status)
			}
		}
		first := s.call("GET", "contoso/_apis/tokens/pats?"+version+"&$top=1", bearer(both), "")
		r := s.call("GET", "contoso/_apis/tokens/pats?"+version+"&displayFilterOption=all&continuationToken="+
			first.json["continuationToken"].(string), bearer(both), "")
		if r.status != 400 {
			t.Errorf("a page with another filter: %d, want 400", r.status)
		}
		s.Switch(func(sw *devops.Switches) {
			sw.ClampTop, sw.LastPage, sw.ListAllByDefault, sw.DefaultTop = true, devops.LastPageNull, true, 50
		})
		r = s.call("GET", "contoso/_apis/tokens/pats?"+version+"&$top=500", bearer(both), "")
		if n := len(r.json["patTokens"].([]any)); n != 100 {
			t.Errorf("$top=500 clamped: %d", n)
		}
		if got, pages := names(""); len(got) != 253 || pages != 6 {
			t.Errorf("other defaults: %d on %d pages", len(got), pages)
		}
		s.Switch(func(sw *devops.Switches) { sw.LastPage, sw.BOM = devops.LastPageAbsent, true })
		r = s.call("GET", "contoso/_apis/tokens/pats?"+version+"&displayFilterOption=revoked", bearer(both), "")
		if _, there := r.json["continuationToken"]; there || !strings.HasPrefix(r.body, "\ufeff") {
			t.Errorf("absent token and BOM: %q", r.body)
		}
	})
}

func TestWhatIsGoneIsAnsweredByTheSwitches(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		id, _ := s.Seed("contoso", ada, "x", "vso.code", time.Now().Add(days(5)), false)
		s.Revoke(id)
		path := "contoso/_apis/tokens/pats?" + version + "&authorizationId="
		unknown := "11111111-2222-3333-4444-555555555555"
		for _, c := range []struct {
			sw             devops.SecondDelete
			status         int
			failure        string
			unknown        int
			unknownFailure string
		}{
			{devops.DeleteNoContent, 204, "", 404, ""},
			{devops.DeleteNotFound, 404, "", 404, ""},
			{devops.DeleteError, 200, "authorizationNotFound", 200, "authorizationNotFound"},
		} {
			s.Switch(func(sw *devops.Switches) { sw.SecondDelete = c.sw })
			if r := s.call("DELETE", path+id, bearer(both), ""); r.status != c.status || r.failure() != c.failure {
				t.Errorf("second delete, switch %d: %d %s", c.sw, r.status, r.body)
			}
			r := s.call("DELETE", path+unknown, bearer(both), "")
			if r.status != c.unknown || r.failure() != c.unknownFailure {
				t.Errorf("delete of an unknown id, switch %d: %d %s", c.sw, r.status, r.body)
			}
		}
		for _, c := range []struct {
			sw      devops.GetGone
			status  int
			failure string
			shown   bool
		}{
			{devops.GetRevoked, 200, "none", true},
			{devops.GetError, 200, "authorizationNotFound", false},
			{devops.GetNull, 200, "none", false},
			{devops.GetNotFound, 404, "", false},
		} {
			s.Switch(func(sw *devops.Switches) { sw.GetGone = c.sw })
			r := s.call("GET", path+id, bearer(both), "")
			if r.status != c.status || r.failure() != c.failure {
				t.Errorf("get, switch %d: %d %s, want %d %s", c.sw, r.status, r.body, c.status, c.failure)
			}
			if shown := r.pat() != nil; shown != c.shown {
				t.Errorf("get, switch %d: shown %t, want %t", c.sw, shown, c.shown)
			}
			if r := s.call("GET", path+unknown, bearer(both), ""); r.pat() != nil {
				t.Errorf("get of an unknown id, switch %d: %s", c.sw, r.body)
			}
		}
		for _, method := range []string{"GET", "DELETE"} {
			if r := s.call(method, path+"nonsense", bearer(both), ""); r.status != 400 {
				t.Errorf("%s of nonsense: %d", method, r.status)
			}
		}
		r := s.call("PUT", "contoso/_apis/tokens/pats?"+version, bearer(both), `{"authorizationId":"x"}`)
		if r.failure() != "invalidAuthorizationId" {
			t.Errorf("update of nonsense: %s", r.body)
		}
		// A PAT of another organization cannot be touched from here; a global one can.
		other, _ := s.Seed("fabrikam", ada, "x", "vso.code", time.Now().Add(days(5)), false)
		global, _ := s.Seed("fabrikam", ada, "x", "vso.code", time.Now().Add(days(5)), true)
		s.Switch(func(sw *devops.Switches) { sw.SecondDelete = devops.DeleteNotFound })
		if r := s.call("DELETE", path+other, bearer(both), ""); r.status != 404 {
			t.Errorf("another organization's PAT: %d, want 404", r.status)
		}
		if r := s.call("DELETE", path+global, bearer(both), ""); r.status != 204 {
			t.Errorf("a global PAT: %d, want 204", r.status)
		}
	})
}

func TestWhetherAPATWorksDependsOnTimeAndOwner(t *testing.T) {
	run(t, devops.Switches{IssueLatency: 5 * time.Second, RevocationLatency: time.Minute, Inactivity: true,
		GlobalPATsEnd: time.Date(2000, 3, 1, 0, 0, 0, 0, time.UTC)}, func(t *testing.T, s *fixture) {
		id, token := s.Seed("contoso", ada, "a", "vso.code", time.Now().Add(days(300)), false)
		_, short := s.Seed("contoso", ada, "b", "vso.code", time.Now().Add(days(2)), false)
		_, global := s.Seed("contoso", ada, "c", "vso.code", time.Now().Add(days(300)), true)
		works := func(org, token string, want bool, why string) {
			t.Helper()
			r := s.connect(org, token)
			if got := s.Works(org, token); got != want || (r.status == 200) != want {
				t.Errorf("%s: works %v, answer %d, want %v", why, got, r.status, want)
			}
		}
		works("contoso", token, false, "before it is known everywhere")
		time.Sleep(5 * time.Second)
		works("contoso", token, true, "a new PAT")
		works("fabrikam", global, true, "a global PAT elsewhere")
		s.SetPolicies("fabrikam", devops.Policies{Creation: true})
		works("fabrikam", global, false, "a global PAT where creation is restricted")
		s.SetDisabled(ada, true)
		works("contoso", token, false, "of a disabled user")
		s.SetDisabled(ada, false)
		works("contoso", token, true, "of a user who is back")
		s.SetOffline("contoso", true)
		works("contoso", token, false, "of an organization off line")
		if r := s.connect("contoso", token); r.status != 503 || r.header.Get("X-VSS-HostOfflineError") == "" {
			t.Errorf("off line: %d", r.status)
		}
		s.SetOffline("contoso", false)
		time.Sleep(days(2))
		works("contoso", short, false, "an expired PAT")
		expired := s.connect("contoso", short)
		if expired.status != 401 || expired.typeKey() != "AccessCheckException" {
			t.Errorf("expired: %d %s, want 401", expired.status, expired.body)
		}
		if !strings.Contains(expired.body, "has expired") {
			t.Errorf("expired: %s, want it to say so", expired.body)
		}
		time.Sleep(days(60))
		works("contoso", global, false, "a global PAT after their end")
		s.RecordSignIn(ada)
		time.Sleep(days(60))
		works("contoso", token, true, "a PAT whose owner has signed in")
		late, lateToken := s.Seed("contoso", ada, "d", "vso.code", time.Now().Add(days(300)), false)
		time.Sleep(days(91))
		works("contoso", lateToken, false, "a PAT whose owner has not signed in for 90 days")
		if r := s.connect("contoso", lateToken, "Accept: text/html"); r.status != 203 {
			t.Errorf("inactive, as a page: %d", r.status)
		}
		s.Revoke(id)
		works("contoso", token, true, "revoked a moment ago")
		time.Sleep(time.Minute)
		works("contoso", token, false, "revoked a minute ago")
		if s.Revoke(id) || !s.Revoke(late) {
			t.Error("Revoke is not once only")
		}
	})
}

func TestAPATThatMayReadProjectsReadsThem(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		end := time.Now().Add(days(30))
		id, reads := s.Seed("contoso", ada, "reads", "vso.project", end, false)
		_, other := s.Seed("contoso", ada, "other", "vso.code", end, false)
		const path = "contoso/_apis/projects?api-version=7.1"
		ask := func(token string, header ...string) int {
			return s.call("GET", path, basic(token), "", header...).status
		}
		for _, tt := range []struct {
			what  string
			token string
			want  int
		}{{"with the scope", reads, 200}, {"without it", other, 401}, {"with no PAT", "none", 401}} {
			if got := ask(tt.token); got != tt.want {
				t.Errorf("%s: status %d, want %d", tt.what, got, tt.want)
			}
		}
		s.Revoke(id)
		time.Sleep(time.Minute)
		if got := ask(reads); got != 401 {
			t.Errorf("revoked: status %d, want 401", got)
		}
		if got := ask(reads, "X-TFS-FedAuthRedirect: none"); got != 302 {
			t.Errorf("revoked, without Suppress: status %d, want 302", got)
		}
	})
}

func TestAPublicOrganizationLetsAnybodyConnect(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		s.AddOrganization(devops.Organization{Name: "open", Public: true})
		r := s.connect("open", "nonsense")
		if r.status != 200 {
			t.Fatalf("connectionData: %d %s, want 200", r.status, r.body)
		}
		if id := r.json["authenticatedUser"].(map[string]any)["id"]; id != devops.AnonymousID {
			t.Errorf("connectionData names %v, want the anonymous user", id)
		}
		if r := s.call("GET", "open/_apis/tokens/pats?"+version, basic("nonsense"), ""); r.status != 401 {
			t.Errorf("the PATs are not public: %d", r.status)
		}
	})
}

func TestABusyIdentityIsDelayedAndThenBlocked(t *testing.T) {
	run(t, devops.Switches{Throttle: devops.Throttle{Cost: 20}}, func(t *testing.T, s *fixture) {
		var delayed, blocked int
		for range 20 {
			before := time.Now()
			r := s.call("GET", "contoso/_apis/tokens/pats?"+version, bearer(both), "")
			switch {
			case r.status == 429:
				blocked++
				if !strings.Contains(r.body, "TF400733") || r.header.Get("Retry-After") == "" ||
					r.header.Get("X-RateLimit-Reset") == "" {
					t.Fatalf("429: %v %s", r.header, r.body)
				}
			case r.header.Get("X-RateLimit-Delay") != "":
				delayed++
				if r.status != 200 || r.header.Get("Retry-After") == "" {
					t.Fatalf("delayed: %d %v, want 200 with Retry-After", r.status, r.header)
				}
				if took := time.Since(before); took == 0 || took > 30*time.Second {
					t.Fatalf("delayed by %v, want up to 30 s", took)
				}
			}
		}
		if delayed != 5 || blocked != 5 {
			t.Errorf("%d delayed, %d blocked, want 5 each", delayed, blocked)
		}
		if s.Impatient(ada) == 0 {
			t.Error("calls in a pause are not counted")
		}
		if r := s.call("GET", "contoso/_apis/graph/users?"+version, bearer(admin), ""); r.status != 200 {
			t.Errorf("another identity: %d", r.status)
		}
		time.Sleep(5 * time.Minute)
		r := s.call("GET", "contoso/_apis/tokens/pats?"+version, bearer(both), "")
		if r.status != 200 || r.header.Get("X-RateLimit-Delay") != "" {
			t.Errorf("after five minutes: %d %v, want 200 without a delay", r.status, r.header)
		}
	})
}

func TestAdministratorsListAndRevokeAnybodysPATs(t *testing.T) {
	run(t, devops.Switches{GraphPage: 1}, func(t *testing.T, s *fixture) {
		var ids []string
		for range 45 {
			id, _ := s.Seed("contoso", ada, "x", "vso.code vso.wiki", time.Now().Add(days(5)), false)
			ids = append(ids, id)
		}
		_, powerful := s.Seed("contoso", "grace@contoso.com", "x", "vso.tokenadministration", time.Now().Add(days(5)),
			false)

		var subject, next string
		for pages := 1; ; pages++ {
			r := s.call("GET", "contoso/_apis/graph/users?subjectTypes=aad,msa&"+version+next, bearer(admin), "")
			for _, u := range r.json["value"].([]any) {
				if u := u.(map[string]any); u["principalName"] == ada {
					subject = u["descriptor"].(string)
				}
			}
			token := r.header.Get("X-MS-ContinuationToken")
			if token == "" {
				if pages != 2 {
					t.Errorf("%d pages of users, want 2 (the guest is no member)", pages)
				}
				break
			}
			next = "&continuationToken=" + url.QueryEscape(token)
		}
		list := "contoso/_apis/tokenadmin/personalaccesstokens/" + url.PathEscape(subject) + "?" + version
		var got []string
		for next := ""; ; {
			r := s.call("GET", list+next, basic(powerful), "")
			if r.status != 200 {
				t.Fatalf("%d %s", r.status, r.body)
			}
			for _, p := range r.json["value"].([]any) {
				p := p.(map[string]any)
				got = append(got, p["authorizationId"].(string))
				if to := p["validTo"].(string); strings.HasSuffix(to, "Z") || p["isValid"] != true {
					t.Fatalf("%v", p)
				}
			}
			token, _ := r.json["continuationToken"].(string)
			if token == "" {
				break
			}
			next = "&continuationToken=" + token
		}
		if !slices.Equal(got, ids) {
			t.Errorf("listed %d PATs of %d", len(got), len(ids))
		}
		revoke := "contoso/_apis/tokenadmin/revocations?isPublic=false&" + version
		one := `[{"authorizationId":"` + ids[0] + `"},{"authorizationId":"11111111-2222-3333-4444-555555555555"}]`
		for _, c := range []struct {
			method, path, auth, body string
			status                   int
		}{
			{"GET", list, bearer(both), "", 401},
			{"GET", list + "&pageSize=0", bearer(admin), "", 400},
			{"GET", list + "&continuationToken=x", bearer(admin), "", 400},
			{"GET", list + "&continuationToken=11111111-2222-3333-4444-555555555555", bearer(admin), "", 400},
			{"GET", "contoso/_apis/tokenadmin/personalaccesstokens/aad.eA?" + version, bearer(admin), "", 404},
			{"GET", "contoso/_apis/tokenadmin/personalaccesstokens/nonsense?" + version, bearer(admin), "", 400},
			{"GET", list + "&isPublic=true", bearer(admin), "", 200},
			{"POST", revoke, bearer(both), one, 401},
			{"POST", revoke, bearer(admin), "[]", 400},
			{"POST", revoke, bearer(admin), `[{"authorizationId":"x"}]`, 400},
			{"POST", revoke, bearer(admin), one, 204},
			{"POST", "contoso/_apis/tokenadmin/revocationrules?" + version, bearer(admin), `{"scopes":"vso.code"}`,
				201},
			{"POST", "contoso/_apis/tokenadmin/revocationrules?" + version, bearer(admin), `{}`, 400},
			{"GET", "contoso/_apis/graph/users?" + version, bearer(both), "", 401},
		} {
			if r := s.call(c.method, c.path, c.auth, c.body); r.status != c.status {
				t.Errorf("%s %s: %d %s, want %d", c.method, c.path, r.status, r.body, c.status)
			}
		}
		if p := s.PATs("contoso", ada); p[0].State != devops.Revoked || p[1].State != devops.Active {
			t.Errorf("after the revocation: %s, %s", p[0].State, p[1].State)
		}
		s.Switch(func(sw *devops.Switches) { sw.RefuseUnknownRevocation = true })
		if r := s.call("POST", revoke, bearer(admin), one); r.status != 400 {
			t.Errorf("unknown ids: %d", r.status)
		}
	})
}

func TestSlowDownComesOnceWithASuccess(t *testing.T) {
	run(t, devops.Switches{}, func(t *testing.T, s *fixture) {
		const pats = "contoso/_apis/tokens/pats?" + version
		s.SlowDown(ada, 10*time.Second, false)
		if r := s.call("GET", pats, bearer(both), ""); r.status != 200 || r.header.Get("Retry-After") != "10" {
			t.Errorf("%d %v", r.status, r.header)
		}
		if r := s.call("GET", pats, bearer(both), ""); r.header.Get("Retry-After") != "" || s.Impatient(ada) != 1 {
			t.Errorf("%v, impatient %d", r.header, s.Impatient(ada))
		}
		time.Sleep(10 * time.Second)
		s.SlowDown(ada, 10*time.Second, true)
		r := s.call("GET", pats, bearer(both), "")
		date, err := http.ParseTime(r.header.Get("Retry-After"))
		if err != nil || time.Until(date) < 10*time.Second {
			t.Errorf("Retry-After %q, want a date in at least 10 s", r.header.Get("Retry-After"))
		}
		if n := s.Impatient(ada); n != 1 {
			t.Errorf("%d calls in a pause, want 1", n)
		}
	})
}
