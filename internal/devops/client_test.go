package devops_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func lifecycle(t *testing.T, s *fixture) {
	t.Helper()
	ctx := t.Context()
	want := request("ci (patrol abc-def)")
	made, err := s.Create(ctx, owner, want)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "display name", made.DisplayName, want.DisplayName)
	equal(t, "scopes", strings.Join(made.Scopes, " "), "vso.build vso.code")
	equal(t, "global", made.Global, false)
	near(t, "end", made.ValidTo, want.ValidTo)
	if age := time.Since(made.ValidFrom).Abs(); age > time.Minute {
		t.Errorf("valid from %v, want now", made.ValidFrom)
	}
	if made.AuthorizationID == "" {
		t.Error("no authorization id")
	}
	if !s.azure.Works("contoso", made.Token.Reveal()) {
		t.Error("the new PAT does not work")
	}
	if who, err := s.Prove(ctx, owner, made.Token); err != nil || who != s.adaID {
		t.Errorf("the bearer is %q, %v, want %q", who, err, s.adaID)
	}
	listed, err := s.List(ctx, owner)
	if err != nil || len(listed) != 1 || listed[0].AuthorizationID != made.AuthorizationID {
		t.Errorf("listed %v, %v", listed, err)
	}
	got, err := s.Get(ctx, owner, made.AuthorizationID)
	if err != nil || got.DisplayName != made.DisplayName || !got.ValidTo.Equal(made.ValidTo) {
		t.Errorf("got %v, %v", got, err)
	}
	later := time.Now().Add(40 * 24 * time.Hour)
	moved, err := s.Update(ctx, owner, made.AuthorizationID, later)
	if err != nil || moved.ValidTo.Sub(later).Abs() > 10*time.Millisecond ||
		moved.AuthorizationID != made.AuthorizationID {
		t.Errorf("moved %v, %v", moved, err)
	}
	if !s.azure.Works("contoso", made.Token.Reveal()) {
		t.Error("an update must not change the token")
	}
	for range 2 {
		if err := s.Revoke(ctx, owner, made.AuthorizationID); err != nil {
			t.Errorf("revoke: %v", err)
		}
	}
	if s.azure.Works("contoso", made.Token.Reveal()) {
		t.Error("the revoked PAT works")
	}
	if listed, err := s.List(ctx, owner); err != nil || len(listed) != 0 {
		t.Errorf("listed %v, %v", listed, err)
	}
	if n := len(s.entra.asked()); n != 1 {
		t.Errorf("%d bearer tokens for one story, want 1", n)
	}
}

func TestAPATsLifeOverTLS(t *testing.T) {
	t.Parallel()
	var s *fixture
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.azure.ServeHTTP(w, r)
	}))
	defer server.Close()
	s = newFixture(t, server.Client(), func(c *devops.Config, _ *fixture) {
		c.URL, c.VSSPSURL = server.URL+"/", server.URL
	})
	lifecycle(t, s)
}

func TestAPATsLifeWithEverySwitch(t *testing.T) {
	for name, change := range map[string]func(*azure.Switches){
		"usual":          func(*azure.Switches) {},
		"byte order":     func(sw *azure.Switches) { sw.BOM = true },
		"null at end":    func(sw *azure.Switches) { sw.LastPage = azure.LastPageNull },
		"absent at end":  func(sw *azure.Switches) { sw.LastPage = azure.LastPageAbsent },
		"delete 404":     func(sw *azure.Switches) { sw.SecondDelete = azure.DeleteNotFound },
		"delete error":   func(sw *azure.Switches) { sw.SecondDelete = azure.DeleteError },
		"released":       func(sw *azure.Switches) { sw.ReleasedPats = true },
		"other defaults": func(sw *azure.Switches) { sw.ListAllByDefault, sw.DefaultTop = true, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				s.azure.Switch(change)
				lifecycle(t, s)
			})
		})
	}
}

func TestEveryRequestSaysWhatAzureDevOpsNeeds(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		var seen int
		s.azure.OnRequest(func(r *http.Request) {
			seen++
			for name, want := range map[string]string{"Accept": "application/json", "X-TFS-FedAuthRedirect": "Suppress",
				"User-Agent": "patrol/1.2.3"} {
				if got := r.Header.Get(name); got != want {
					t.Errorf("%s: %s = %q, want %q", r.Method, name, got, want)
				}
			}
			if v := r.URL.Query().Get("api-version"); v != "7.1-preview.1" {
				t.Errorf("api-version %q", v)
			}
			host := "vssps.dev.azure.com"
			if strings.HasSuffix(r.URL.Path, "connectionData") {
				host = "dev.azure.com"
			}
			if r.Host != host {
				t.Errorf("%s asked at %s", r.URL.Path, r.Host)
			}
		})
		lifecycle(t, s)
		for _, o := range s.entra.asked() {
			if !slices.Equal(o.Scopes, devops.DefaultScopes()) || o.Claims != "" {
				t.Errorf("token request %+v", o)
			}
		}
		if seen < 8 {
			t.Errorf("%d requests seen", seen)
		}
	})
}

func TestAListIsReadToItsEnd(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		for i := range 250 {
			s.azure.Seed("contoso", ada, "p", "vso.wiki vso.code ", time.Now().Add(time.Duration(1+i)*time.Hour),
				i == 7)
		}
		gone, _ := s.azure.Seed("contoso", ada, "gone", "vso.code", time.Now().Add(time.Hour), false)
		s.azure.Revoke(gone)
		pats, err := s.List(t.Context(), owner)
		if err != nil || len(pats) != 250 || s.count(azure.ListPats) != 3 {
			t.Fatalf("%d PATs, %d pages, %v", len(pats), s.count(azure.ListPats), err)
		}
		for i, p := range pats {
			if p.Global != (i == 7) || !slices.Equal(p.Scopes, []string{"vso.code", "vso.wiki"}) {
				t.Errorf("PAT %d: %+v", i, p)
			}
		}
	})
}

func TestAListThatNeverEndsIsGivenUp(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.fault(t, faults.Fault{Mode: faults.Status, Status: 200, Times: -1,
			Header: map[string]string{"Content-Type": "application/json"},
			Body:   `{"continuationToken":"again","patTokens":[]}`})
		_, err := s.List(t.Context(), owner)
		wants(t, "the same page for ever", err, rotation.Transient, "bad-answer")
		if n := s.count(azure.ListPats); n != 2 {
			t.Errorf("%d pages were read", n)
		}
	})
}

func TestOddTimesAndRepeatsInAListAreTaken(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.says(t, azure.ListPats, 200, "application/json; charset=utf-8; api-version=7.1", "\ufeff"+`{"patTokens":[
			{"authorizationId":"1","displayName":"a","scope":"","targetAccounts":null,
				"validFrom":"0001-01-01T00:00:00","validTo":"2027-01-15T09:30:00","token":null},
			{"authorizationId":"1","displayName":"a","scope":"","targetAccounts":null,
				"validFrom":null,"validTo":"2027-01-15T09:30:00"},
			{"authorizationId":"2","displayName":"b","scope":"x  x","targetAccounts":[],
				"validFrom":"2026-11-20T08:11:02.4466667Z","validTo":"2027-01-15T10:30:00.1033333+01:00"}]}`)
		pats, err := s.List(t.Context(), owner)
		if err != nil || len(pats) != 2 {
			t.Fatalf("%v, %v", pats, err)
		}
		end := time.Date(2027, 1, 15, 9, 30, 0, 0, time.UTC)
		if p := pats[0]; !p.ValidTo.Equal(end) || !p.ValidFrom.IsZero() || !p.Global {
			t.Errorf("%+v", p)
		}
		if p := pats[1]; !p.ValidTo.Equal(end.Add(103333300)) || p.Global || !slices.Equal(p.Scopes, []string{"x"}) {
			t.Errorf("%+v", p)
		}
		s.says(t, azure.ListPats, 200, "application/json", `{"patTokens":[{"authorizationId":"1","validTo":"soon"}]}`)
		_, err = s.List(t.Context(), owner)
		wants(t, "a PAT without an end", err, rotation.Transient, "bad-answer")
	})
}

func TestTheServersEndCounts(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.azure.SetPolicies("contoso", azure.Policies{MaxLifespanDays: 7})
		made, err := s.Create(t.Context(), owner, request("x"))
		if err != nil || !made.ValidTo.Equal(time.Now().AddDate(0, 0, 7)) {
			t.Errorf("%v, %v", made.ValidTo, err)
		}
		moved, err := s.Update(t.Context(), owner, made.AuthorizationID, time.Now().AddDate(0, 0, 30))
		if err != nil || !moved.ValidTo.Equal(made.ValidTo) {
			t.Errorf("%v, %v", moved.ValidTo, err)
		}
	})
}

func TestARefusalWithHTTP200HasAClass(t *testing.T) {
	const gone = rotation.Class("") // rotation.ErrNotFound
	for value, c := range map[string]struct{ create, update rotation.Class }{
		"displayNameRequired":               {rotation.Configuration, rotation.Configuration},
		"invalidDisplayName":                {rotation.Configuration, rotation.Configuration},
		"invalidValidTo":                    {rotation.Configuration, rotation.Configuration},
		"invalidScope":                      {rotation.Configuration, rotation.Configuration},
		"userIdRequired":                    {rotation.Configuration, rotation.Configuration},
		"invalidUserId":                     {rotation.Configuration, rotation.Configuration},
		"invalidUserType":                   {rotation.Configuration, rotation.Configuration},
		"accessDenied":                      {rotation.Policy, rotation.Policy},
		"failedToIssueAccessToken":          {rotation.Ambiguous, rotation.Transient},
		"failedToUpdateAccessToken":         {rotation.Ambiguous, rotation.Transient},
		"invalidClient":                     {rotation.Configuration, rotation.Configuration},
		"invalidClientType":                 {rotation.Configuration, rotation.Configuration},
		"invalidClientId":                   {rotation.Configuration, rotation.Configuration},
		"invalidTargetAccounts":             {rotation.Configuration, rotation.Configuration},
		"hostAuthorizationNotFound":         {rotation.Transient, gone},
		"authorizationNotFound":             {rotation.Transient, gone},
		"tokenNotFound":                     {rotation.Transient, gone},
		"invalidAuthorizationId":            {rotation.Transient, gone},
		"invalidToken":                      {rotation.Transient, gone},
		"sourceNotSupported":                {rotation.Configuration, rotation.Configuration},
		"invalidSource":                     {rotation.Configuration, rotation.Configuration},
		"invalidSourceIP":                   {rotation.Configuration, rotation.Configuration},
		"duplicateHash":                     {rotation.Configuration, rotation.Configuration},
		"sshPolicyDisabled":                 {rotation.Configuration, rotation.Configuration},
		"failedToReadTenantPolicy":          {rotation.Transient, rotation.Transient},
		"failedToReadOrgPolicy":             {rotation.Transient, rotation.Transient},
		"globalPatPolicyViolation":          {rotation.Policy, rotation.Policy},
		"fullScopePatPolicyViolation":       {rotation.Policy, rotation.Policy},
		"patLifespanPolicyViolation":        {rotation.Policy, rotation.Policy},
		"invalidTokenType":                  {rotation.Configuration, rotation.Configuration},
		"invalidAudience":                   {rotation.Configuration, rotation.Configuration},
		"invalidSubject":                    {rotation.Configuration, rotation.Configuration},
		"deploymentHostNotSupported":        {rotation.Configuration, rotation.Configuration},
		"disablePatCreationPolicyViolation": {rotation.Policy, rotation.Policy},
		"globalPATCreationBlocked":          {rotation.Policy, rotation.Policy},
		"expiredPatCannotBeExtended":        {rotation.Configuration, rotation.Configuration},
		"moonPhasePolicyViolation":          {rotation.Policy, rotation.Policy},
		"somethingNew":                      {rotation.Transient, rotation.Transient},
	} {
		t.Run(value, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				body := `{"patToken":null,"patTokenError":"` + value + `","patTokenErrorMessage":"do not quote me"}`
				s.says(t, azure.CreatePat, 200, "application/json", body)
				_, err := s.Create(t.Context(), owner, request("x"))
				e := wants(t, "create", err, c.create, value)
				if e.ActivityID == "" || strings.Contains(err.Error(), "quote") {
					t.Errorf("activity id %q, error %v", e.ActivityID, err)
				}
				s.says(t, azure.UpdatePat, 200, "application/json", body)
				_, err = s.Update(t.Context(), owner, "1", time.Now())
				if c.update == gone {
					if !errors.Is(err, rotation.ErrNotFound) {
						t.Errorf("update: %v", err)
					}
				} else {
					wants(t, "update", err, c.update, value)
				}
			})
		})
	}
}

func TestASuccessWithoutATokenIsNoSuccess(t *testing.T) {
	made := func(fields, refusal string) string {
		return `{"patToken":{` + fields + `},"patTokenError":"` + refusal + `"}`
	}
	const (
		id  = `"authorizationId":"1",`
		end = `"validTo":"2027-01-01T00:00:00Z",`
	)
	for name, body := range map[string]string{
		"nothing":            `{}`,
		"null":               `{"patToken":null,"patTokenError":"none"}`,
		"null token":         made(id+end+`"token":null`, "none"),
		"empty token":        made(id+end+`"token":""`, "none"),
		"no id":              made(end+`"token":"t"`, "none"),
		"no end":             made(id+`"validTo":"0001-01-01T00:00:00","token":"t"`, "none"),
		"a token of numbers": made(id+end+`"token":7`, "none"),
		"an error and a PAT": made(id+end+`"token":"t"`, "invalidScope"),
		"broken":             `{"patToken":`,
		"empty":              ``,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				s.says(t, azure.CreatePat, 200, "application/json", body)
				_, err := s.Create(t.Context(), owner, request("x"))
				wants(t, "create", err, rotation.Ambiguous, "bad-answer")
			})
		})
	}
}

func TestAnUnfamiliarTokenIsTakenWithAWarning(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		for token, warned := range map[string]bool{
			"short": true, strings.Repeat("a", 52): false, strings.Repeat("1", 52): true,
			strings.Repeat("a", 76) + "AZDO" + "0Az9": false, strings.Repeat("a", 84): true, strings.Repeat("-", 76) +
				"AZDO" + "0Az9": true,
		} {
			s.log.Reset()
			s.says(t, azure.CreatePat, 200, "application/json",
				`{"patToken":{"authorizationId":"1","validTo":"2027-01-01T00:00:00Z","token":"`+token+
					`"},"patTokenError":0}`)
			made, err := s.Create(t.Context(), owner, request("x"))
			if err != nil || made.Token.Reveal() != token {
				t.Errorf("%d characters: %v", len(token), err)
			}
			if strings.Contains(s.log.String(), "WARN") != warned || strings.Contains(s.log.String(), token) {
				t.Errorf("%d characters: logged %s", len(token), s.log)
			}
		}
	})
}

func TestAnAnswerThatIsNoSuccessHasAClass(t *testing.T) {
	const (
		js   = "application/json"
		html = "text/html; charset=utf-8"
		page = "<html>Sign in</html>"
	)
	problem := func(typeKey, message string) string {
		return `{"$id":"1","innerException":null,"message":"` + message + `","typeName":"A.B.` + typeKey +
			`, A","typeKey":"` + typeKey + `","errorCode":0,"eventId":3000}`
	}
	for _, c := range []struct {
		name       string
		status     int
		kind, body string
		header     [2]string
		class      rotation.Class // of a list
		code       string
		create     rotation.Class // of a creation, where it differs
		tries      int            // of a list; 0: 1
		creations  int            // 0: 1
	}{
		{name: "PAT on the PATs", status: 401, kind: js, body: problem("InvalidAccessException",
			"The requested operation is not allowed."), class: rotation.Configuration, code: "InvalidAccessException",
			tries: 2, creations: 2},
		{name: "unauthorized", status: 401, kind: js, body: problem("UnauthorizedRequestException",
			"TF400813: The user 'x' is not authorized"), class: rotation.Configuration, code: "TF400813", tries: 2,
			creations: 2},
		{name: "unauthorized as a page", status: 401, kind: html, body: page, header: [2]string{"X-TFS-ServiceError",
			"TF400813%3A%20The%20user"}, class: rotation.Configuration, code: "TF400813", tries: 2, creations: 2},
		{name: "empty 401", status: 401, class: rotation.Configuration, code: "http-401", tries: 2, creations: 2},
		{name: "service principal", status: 403, kind: js, body: problem("InvalidAccessException",
			"Service principals are not allowed to perform this action."), class: rotation.Configuration,
			code: "InvalidAccessException"},
		{name: "redirect", status: 302, kind: html, body: page, header: [2]string{"Location",
			"https://dev.azure.com/_signin"}, class: rotation.Transient, code: "sign-in-page", tries: 2, creations: 2},
		{name: "see other", status: 303, header: [2]string{"Location", "/_signin"}, class: rotation.Transient,
			code: "sign-in-page", tries: 2, creations: 2},
		{name: "203", status: 203, kind: html, body: page, class: rotation.Transient, code: "sign-in-page", tries: 2,
			creations: 2},
		{name: "203 with JSON", status: 203, kind: js, body: "{}", class: rotation.Transient, code: "sign-in-page",
			tries: 2, creations: 2},
		{name: "a page with 200", status: 200, kind: html, body: page, class: rotation.Transient, code: "sign-in-page",
			create: rotation.Ambiguous},
		{name: "text with 200", status: 200, kind: "text/plain", body: "hello", class: rotation.Transient,
			code: "bad-answer", create: rotation.Ambiguous},
		{name: "broken JSON", status: 200, kind: js, body: "{", class: rotation.Transient, code: "bad-answer",
			create: rotation.Ambiguous},
		{name: "malformed request", status: 400, kind: js, body: problem("JsonReaderException",
			"TF400898: An Internal Error Occurred. Activity Id: 1"), class: rotation.Configuration, code: "TF400898"},
		{name: "older shape", status: 400, kind: js, body: `{"count":1,"value":{"Message":"VS403403: no"}}`,
			class: rotation.Configuration, code: "VS403403"},
		{name: "type name alone", status: 400, kind: js, body: `{"typeName":"A.B.OddException, A","errorCode":"x"}`,
			class: rotation.Configuration, code: "OddException"},
		{name: "text", status: 400, kind: "text/plain", body: "no", class: rotation.Configuration, code: "http-400"},
		{name: "no organization", status: 404, kind: html, body: page, class: rotation.Configuration, code: "http-404"},
		{name: "throttled", status: 429, kind: js, body: problem("RequestBlockedException",
			"TF400733: The request has been canceled"), class: rotation.Throttled, code: "TF400733", tries: 4},
		{name: "request time-out", status: 408, class: rotation.Transient, code: "http-408", create: rotation.Ambiguous,
			tries: 4},
		{name: "internal", status: 500, kind: js, body: problem("X", "TF400898: An Internal Error Occurred"),
			class: rotation.Transient, code: "TF400898", create: rotation.Ambiguous, tries: 4},
		{name: "gateway", status: 502, kind: html, body: page, class: rotation.Transient, code: "http-502",
			create: rotation.Ambiguous, tries: 4},
		{name: "unavailable", status: 503, class: rotation.Transient, code: "http-503", create: rotation.Ambiguous,
			tries: 4},
		{name: "gateway time-out", status: 504, class: rotation.Transient, code: "http-504", create: rotation.Ambiguous,
			tries: 4},
		{name: "off line", status: 503, header: [2]string{"X-VSS-HostOfflineError", "off"}, class: rotation.Transient,
			code: "organization-offline"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				h := map[string]string{"Content-Type": c.kind}
				if c.header[0] != "" {
					h[c.header[0]] = c.header[1]
				}
				s.fault(t, faults.Fault{Mode: faults.Status, Status: c.status, Header: h, Body: c.body, Times: -1})
				_, err := s.List(t.Context(), owner)
				wants(t, "list", err, c.class, c.code)
				if n := s.count(azure.ListPats); n != max(c.tries, 1) {
					t.Errorf("%d tries of a list, want %d", n, max(c.tries, 1))
				}
				// Another organization: what one refuses says nothing of the next one.
				_, err = s.Create(t.Context(), rotation.Owner{Identity: owner.Identity, Organization: "fabrikam"},
					request("x"))
				class, code := c.class, c.code
				if c.create != "" {
					class = c.create
				}
				if class == rotation.Ambiguous && code == "sign-in-page" {
					code = "bad-answer"
				}
				e := wants(t, "create", err, class, code)
				if n := s.count(azure.CreatePat); n != max(c.creations, 1) {
					t.Errorf("%d tries of a creation, want %d", n, max(c.creations, 1))
				}
				if e.ActivityID == "" {
					t.Error("no activity id")
				}
				if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "Sign in") ||
					strings.Contains(text, "Internal Error") {
					t.Errorf("the answer is quoted: %s", text)
				}
			})
		})
	}
}

func TestALostAnswerToACreationIsAmbiguous(t *testing.T) {
	for name, c := range map[string]struct {
		fault faults.Fault
		code  string
		made  int
	}{
		"reset before":      {faults.Fault{Mode: faults.ResetBefore}, "connection-lost", 0},
		"reset after":       {faults.Fault{Mode: faults.ResetAfter}, "connection-lost", 1},
		"silence before":    {faults.Fault{Mode: faults.HangBefore}, "timed-out", 0},
		"silence after":     {faults.Fault{Mode: faults.HangAfter}, "timed-out", 1},
		"broken gateway":    {faults.Fault{Mode: faults.StatusAfter, Status: 502}, "http-502", 1},
		"unavailable after": {faults.Fault{Mode: faults.StatusAfter, Status: 503}, "http-503", 1},
		"a page after": {faults.Fault{Mode: faults.StatusAfter, Status: 200,
			Header: map[string]string{"Content-Type": "text/html"}}, "bad-answer", 1},
		"half an answer": {faults.Fault{Mode: faults.StatusAfter, Status: 200,
			Header: map[string]string{"Content-Type": "application/json", "Content-Length": "500"}, Body: "{"},
			"connection-lost", 1},
		"answers in silence": {faults.Fault{Mode: faults.Slow, Delay: 2 * time.Minute}, "timed-out", 0},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				c.fault.Operation = azure.CreatePat
				s.fault(t, c.fault)
				_, err := s.Create(t.Context(), owner, request("x"))
				wants(t, "create", err, rotation.Ambiguous, c.code)
				if n := s.count(azure.CreatePat); n != 1 {
					t.Errorf("%d requests", n)
				}
				if n := len(s.azure.PATs("contoso", ada)); n != c.made {
					t.Errorf("%d PATs were made, want %d", n, c.made)
				}
			})
		})
	}
}

func TestACreationThatNeverLeftIsNotAmbiguous(t *testing.T) {
	t.Run("connection refused", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			_, err := s.Create(t.Context(), owner, request("x"))
			wants(t, "create", err, rotation.Transient, "unreachable")
		}, func(c *devops.Config, _ *fixture) { c.VSSPSURL = "https://nobody.invalid" })
	})
	t.Run("cancelled before", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := s.Create(ctx, owner, request("x"))
			if e := wants(t, "create", err, rotation.Transient, "cancelled"); !errors.Is(e, context.Canceled) {
				t.Error("the cause is lost")
			}
			if n := s.count(azure.CreatePat); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	})
	t.Run("deadline while under way", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			s.fault(t, faults.Fault{Operation: azure.CreatePat, Mode: faults.HangAfter})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := s.Create(ctx, owner, request("x"))
			if e := wants(t, "create", err, rotation.Ambiguous, "timed-out"); !errors.Is(e, context.DeadlineExceeded) {
				t.Error("the cause is lost")
			}
		})
	})
}

func TestReadsUpdatesAndRevocationsAreRepeated(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		id, token := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(100*time.Hour), false)
		for _, mode := range []faults.Mode{faults.ResetBefore, faults.ResetAfter, faults.HangBefore, faults.HangAfter} {
			s.fault(t, faults.Fault{Mode: mode})
			if pats, err := s.List(ctx, owner); err != nil || len(pats) != 1 {
				t.Errorf("list after %s: %v", mode, err)
			}
			s.fault(t, faults.Fault{Mode: mode})
			if _, err := s.Prove(ctx, owner, rotation.NewSecret(token)); err != nil {
				t.Errorf("prove after %s: %v", mode, err)
			}
			s.fault(t, faults.Fault{Mode: mode})
			if _, err := s.Get(ctx, owner, id); err != nil {
				t.Errorf("get after %s: %v", mode, err)
			}
			s.fault(t, faults.Fault{Mode: mode})
			if p, err := s.Update(ctx, owner, id, time.Now().Add(200*time.Hour)); err != nil ||
				p.ValidTo.Sub(time.Now().Add(200*time.Hour)).Abs() > 10*time.Minute {
				t.Errorf("update after %s: %v %v", mode, p.ValidTo, err)
			}
		}
		for _, sw := range []azure.SecondDelete{azure.DeleteNoContent, azure.DeleteNotFound, azure.DeleteError} {
			s.azure.Switch(func(x *azure.Switches) { x.SecondDelete = sw })
			id, _ := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(100*time.Hour), false)
			s.fault(t, faults.Fault{Operation: azure.RevokePat, Mode: faults.ResetAfter})
			if err := s.Revoke(ctx, owner, id); err != nil {
				t.Errorf("revoke, whose first answer was lost, switch %d: %v", sw, err)
			}
		}
		s.fault(t, faults.Fault{Mode: faults.ResetBefore, Times: -1})
		before := s.count(azure.ListPats)
		_, err := s.List(ctx, owner)
		wants(t, "a network that stays down", err, rotation.Transient, "connection-lost")
		// net/http repeats a GET by itself, once, when a kept connection breaks.
		if n := s.count(azure.ListPats) - before; n < 4 || n > 5 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestRevokingWhatIsGoneIsASuccessOnceTheListAgrees(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		id, _ := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(100*time.Hour), false)
		for _, body := range []string{
			`{"typeKey":"AuthorizationNotFoundException","message":"x"}`, // with 400
			`{"patToken":null,"patTokenError":"tokenNotFound"}`,          // with 200
		} {
			status := 400
			if strings.HasPrefix(body, `{"pat`) {
				status = 200
			}
			s.says(t, azure.RevokePat, status, "application/json", body)
			wants(t, "a PAT that is listed", s.Revoke(ctx, owner, id), rotation.Transient, "still-active")
			s.says(t, azure.RevokePat, status, "application/json", body)
			if err := s.Revoke(ctx, owner, "11111111-2222-3333-4444-555555555555"); err != nil {
				t.Errorf("a PAT that is not listed: %v", err)
			}
		}
		err := s.Revoke(ctx, rotation.Owner{Identity: "build-bot", Organization: "nobody"}, id)
		wants(t, "in an organization that does not exist", err, rotation.Configuration, "http-404")
		s.says(t, azure.RevokePat, 200, "application/json", `{"patToken":null,"patTokenError":"accessDenied"}`)
		wants(t, "refused", s.Revoke(ctx, owner, id), rotation.Policy, "accessDenied")
		for _, status := range []int{200, 202, 204} {
			s.fault(t, faults.Fault{Operation: azure.RevokePat, Mode: faults.Status, Status: status})
			if err := s.Revoke(ctx, owner, id); err != nil {
				t.Errorf("an empty %d: %v", status, err)
			}
		}
		s.says(t, azure.RevokePat, 200, "text/html", "<html>")
		wants(t, "a page", s.Revoke(ctx, owner, id), rotation.Transient, "sign-in-page")
	})
}

func TestAPATThatIsNotThereIsNotFound(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		id, _ := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(100*time.Hour), false)
		s.azure.Revoke(id)
		for _, sw := range []azure.GetGone{azure.GetError, azure.GetNull, azure.GetNotFound} {
			s.azure.Switch(func(x *azure.Switches) { x.GetGone = sw })
			if _, err := s.Get(t.Context(), owner, id); !errors.Is(err, rotation.ErrNotFound) {
				t.Errorf("get, switch %d: %v", sw, err)
			}
		}
		if _, err := s.Update(t.Context(), owner, id, time.Now().Add(time.Hour)); !errors.Is(err,
			rotation.ErrNotFound) {
			t.Errorf("update: %v", err)
		}
		old, _ := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(-time.Hour), false)
		_, err := s.Update(t.Context(), owner, old, time.Now().Add(time.Hour))
		wants(t, "update of an expired PAT", err, rotation.Configuration, "expiredPatCannotBeExtended")
	})
}

func TestAPATIsProvedByItself(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		at := func(org string) rotation.Owner { return rotation.Owner{Identity: "build-bot", Organization: org} }
		id, revoked := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(time.Hour), false)
		s.azure.Revoke(id)
		_, expired := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(-time.Hour), false)
		_, fresh := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(1000*24*time.Hour), false)
		prove := func(org, token string) error {
			_, err := s.Prove(ctx, at(org), rotation.NewSecret(token))
			return err
		}
		if err := prove("contoso", fresh); err != nil {
			t.Error(err)
		}
		wants(t, "revoked", prove("contoso", revoked), rotation.Transient, "token-refused")
		wants(t, "expired", prove("contoso", expired), rotation.Transient, "token-refused")
		wants(t, "another organization's", prove("fabrikam", fresh), rotation.Transient, "token-refused")
		wants(t, "nonsense", prove("contoso", "nonsense"), rotation.Transient, "token-refused")
		wants(t, "nothing", prove("contoso", ""), rotation.Transient, "token-refused")
		wants(t, "anonymous", prove("open", revoked), rotation.Policy, "anonymous")
		wants(t, "no organization", prove("nobody", fresh), rotation.Configuration, "http-404")
		for _, status := range []int{203, 302, 401, 403} {
			s.says(t, azure.ConnectionData, status, "text/html", "<html>")
			wants(t, fmt.Sprint(status), prove("contoso", fresh), rotation.Transient, "token-refused")
		}
		s.says(t, azure.ConnectionData, 200, "text/html", "<html>")
		wants(t, "a page", prove("contoso", fresh), rotation.Transient, "token-refused")
		s.says(t, azure.ConnectionData, 200, "application/json", "{}")
		wants(t, "nobody", prove("contoso", fresh), rotation.Transient, "bad-answer")
		s.azure.Switch(func(sw *azure.Switches) { sw.Inactivity = true })
		time.Sleep(91 * 24 * time.Hour)
		_, late := s.azure.Seed("contoso", ada, "x", "vso.code", time.Now().Add(1000*24*time.Hour), false)
		time.Sleep(91 * 24 * time.Hour)
		wants(t, "inactive", prove("contoso", late), rotation.Transient, "token-refused")
		if n := len(s.entra.asked()); n != 0 {
			t.Errorf("%d bearer tokens were asked for", n)
		}
	})
}

func TestTheVersionsSuffixIsLearnt(t *testing.T) {
	plain := func(c *devops.Config, _ *fixture) { c.APIVersion = "7.1" }
	t.Run("preview only", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			for range 3 {
				if _, err := s.Create(t.Context(), owner, request("x")); err != nil {
					t.Fatal(err)
				}
			}
			if n := s.count(azure.CreatePat); n != 4 {
				t.Errorf("%d requests for 3 creations, want one more", n)
			}
		}, plain)
	})
	t.Run("released", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			s.azure.Switch(func(sw *azure.Switches) { sw.ReleasedPats = true })
			lifecycle(t, s) // connectionData stays preview only
			if n := s.count(azure.CreatePat); n != 1 {
				t.Errorf("%d creations", n)
			}
		}, plain)
	})
	t.Run("neither", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			s.fault(t, faults.Fault{Mode: faults.Status, Status: 400, Times: -1,
				Header: map[string]string{"Content-Type": "application/json"},
				Body:   `{"typeKey":"VssInvalidPreviewVersionException"}`})
			_, err := s.List(t.Context(), owner)
			wants(t, "list", err, rotation.Configuration, "VssInvalidPreviewVersionException")
			if n := s.count(azure.ListPats); n != 2 {
				t.Errorf("%d requests", n)
			}
		})
	})
}

func TestAWrongConfigurationIsToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := devops.New(devops.Config{URL: "http://dev.azure.com", VSSPSURL: "https://u:p@x/?q"})
	for _, part := range []string{"http://dev.azure.com", "https://u:p@x", "no credential"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not speak of %s", err, part)
		}
	}
	e := &entra{}
	if _, err := devops.New(devops.Config{Credential: e.credential, URL: "http://127.0.0.1:1",
		VSSPSURL:      "http://127.0.0.1:1",
		ClientOptions: policy.ClientOptions{InsecureAllowCredentialWithHTTP: true}}); err != nil {
		t.Error(err)
	}
}
