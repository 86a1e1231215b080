package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// faults lists where an answer differs from the description. The fixture holds every
// answer of every test against it.
func (d *openAPI) faults(a *answer) (out []string) {
	if d.isOfTheFront(a) || a.request.Method == http.MethodHead {
		return nil // HEAD is as GET, without a body
	}
	r := a.request.Clone(a.request.Context())
	resp := &http.Response{StatusCode: a.code, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Request: r}
	if ok, errs := d.validator.ValidateHttpResponse(r, resp); !ok {
		for _, e := range errs {
			out = append(out, e.Message+": "+e.Reason)
			for _, s := range e.SchemaValidationErrors {
				out = append(out, s.FieldPath+": "+s.Reason)
			}
		}
	}
	if what := d.kind(a); !slices.Contains(d.answers, what) {
		out = append(out, fmt.Sprintf("%q is not described", what))
	}
	var problem struct{ Type string }
	if a.header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(a.body, &problem) == nil &&
		!slices.Contains(d.statuses[problem.Type], fmt.Sprint(a.code)) {
		out = append(out, fmt.Sprintf("the type %q does not come with %d", problem.Type, a.code))
	}
	return out
}

// isOfTheFront knows what every function may answer before it does anything: the
// description has it once, at its top. A page says it to people.
func (d *openAPI) isOfTheFront(a *answer) bool {
	var problem struct{ Type string }
	_ = json.Unmarshal(a.body, &problem)
	name := strings.TrimPrefix(problem.Type, "urn:patrol:problem:")
	fronts := map[string]int{"cross-site": 403, "media-type": 415, "too-many-requests": 429, "bad-request": 400,
		"not-found": 404}
	if code, ok := fronts[name]; ok {
		return a.code == code && a.header.Get("Content-Type") == "application/problem+json"
	}
	isPage := strings.HasPrefix(a.header.Get("Content-Type"), "text/html")
	return isPage && slices.Contains([]int{415, 429}, a.code)
}

// kind is what sort of answer it is, in the form of openAPI.answers.
func (d *openAPI) kind(a *answer) string {
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	return fmt.Sprintf("%s %s %d %s", a.request.Method, d.path(a.request.URL.Path), a.code, media)
}

// path finds the described path of a request: the literal one before the template.
func (d *openAPI) path(asked string) string {
	parts := strings.Split(strings.TrimPrefix(asked, d.Servers[0].URL), "/")
	best, literal := "", -1
	for path := range d.Paths {
		template := strings.Split(path, "/")
		if len(template) != len(parts) {
			continue
		}
		n := 0
		for i, p := range template {
			if p == parts[i] {
				n++
			} else if !strings.HasPrefix(p, "{") {
				n = -1
				break
			}
		}
		if n > literal {
			best, literal = path, n
		}
	}
	return best
}

// described lists every answer of the description.
func (d *openAPI) described() []string {
	var out []string
	for path, methods := range d.Paths {
		for method, op := range methods {
			for code, r := range op.Responses {
				if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
					r = d.Components.Responses[name]
				}
				if len(r.Content) == 0 {
					out = append(out, fmt.Sprintf("%s %s %s ", strings.ToUpper(method), path, code))
				}
				for media := range r.Content {
					out = append(out, fmt.Sprintf("%s %s %s %s", strings.ToUpper(method), path, code, media))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// An error that is described is a problem; a page, where a person asks; nothing, where
// the host answers; and a word of Health's.
func TestEveryErrorIsAProblem(t *testing.T) {
	t.Parallel()
	for _, answer := range readDescription(t).answers {
		f := strings.SplitN(answer, " ", 4)
		path, code, media := f[1], f[2], f[3]
		problem := media == "application/problem+json"
		isForPeople := strings.HasSuffix(path, "/signin") || path == "/signin/callback" || path == "/dashboard"
		page := media == "text/html" && isForPeople
		nothing := code == "401" && media == ""
		word := path == "/health" || media == "application/json" && code == "503"
		fits := problem || page || nothing || word
		if code >= "400" && !fits {
			t.Errorf("%q", answer)
		}
	}
}

// coverage notes which of the described answers have been seen.
type coverage struct {
	*openAPI
	seen map[string]bool
}

// check notes an answer, which the fixture has held against the description.
func (c *coverage) check(a *answer) *answer {
	c.seen[c.kind(a)] = true
	return a
}

func (c *coverage) unseen() (out []string) {
	for _, want := range c.answers {
		if !c.seen[want] {
			out = append(out, want)
		}
	}
	return out
}

// Every answer that the description promises comes from the real handler, behind the
// real host's rules.
func TestEveryDescribedAnswerIsGivenAndFits(t *testing.T) {
	t.Parallel()
	c := &coverage{openAPI: readDescription(t), seen: map[string]bool{}}
	bubble(t, simulation.Config{Manifest: twoPATs}, c.successes)
	bubble(t, simulation.Config{}, c.refusals)
	bubble(t, simulation.Config{}, c.upstream)
	bubble(t, simulation.Config{Manifest: twoPeople}, c.signIns)
	bubble(t, simulation.Config{Cloud: func(cc *cloud.Config) { cc.PublicURL = " " }}, c.nowhere)
	bubble(t, simulation.Config{Manifest: administered}, c.revocations)
	bubble(t, simulation.Config{Manifest: "pats: x"}, c.broken)
	if t.Failed() {
		return
	}
	for _, want := range c.unseen() {
		t.Errorf("no test has seen %q", want)
	}
}

// What the description does not have is found, and what it has too much.
func TestAnAnswerThatDiffersFromItsDescriptionIsFound(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	const (
		jsonType, problem, text = "application/json", "application/problem+json", "text/plain"
		health                  = `{"status":"ok"}`
		pat                     = `{"name":"a","state":"current","identity":"b","organization":"c",` +
			`"displayName":"d","scopes":[],"validTo":null,"rotateAt":null,"needsPerson":null,"nextAction":null%s}`
		list = `{"at":"2026-01-01T00:00:00Z","pats":[` + pat + `],"unmanaged":[],"released":[],"problems":[],` +
			`"counts":{"managed":1,"unmanaged":0,"released":0,"missing":0,"due":0,"blocked":0,"unknown":0,` +
			`"global":0,"fullScope":0,"expiring":0}}`
		bad = `{"type":"urn:patrol:problem:%s","title":"x","status":400}`
	)
	for what, tt := range map[string]struct {
		good         bool
		method, path string
		code         int
		media, body  string
	}{
		"nothing":                    {true, "GET", "/api/health", 200, jsonType, health},
		"nothing in a list":          {true, "GET", "/api/pats", 200, jsonType, fmt.Sprintf(list, "")},
		"nothing in a problem":       {true, "GET", "/api/pats", 400, problem, fmt.Sprintf(bad, "bad-request")},
		"nothing in no answer":       {true, "GET", "/api/pats", 401, "", ""},
		"the path":                   {false, "GET", "/api/nothing", 200, jsonType, health},
		"the method":                 {false, "PUT", "/api/health", 200, jsonType, health},
		"the status":                 {false, "GET", "/api/health", 418, jsonType, health},
		"the status of an error":     {false, "GET", "/api/pats", 409, problem, fmt.Sprintf(bad, "pat-gone")},
		"the kind":                   {false, "GET", "/api/health", 200, "text/html", health},
		"the kind of an error":       {false, "GET", "/api/pats", 400, text, "no"},
		"a body where there is none": {false, "GET", "/api/pats", 401, jsonType, health},
		"a field more":               {false, "GET", "/api/health", 200, jsonType, `{"status":"ok","more":1}`},
		"a field less":               {false, "GET", "/api/health", 200, jsonType, `{}`},
		"a field more in a list":     {false, "GET", "/api/pats", 200, jsonType, fmt.Sprintf(list, `,"more":1`)},
		"a version in a list":        {false, "GET", "/api/pats", 200, jsonType, fmt.Sprintf(list, `,"versions":[]`)},
		"a value":                    {false, "GET", "/api/health", 200, jsonType, `{"status":"fine"}`},
		"a problem's status":         {false, "GET", "/api/pats", 400, problem, fmt.Sprintf(bad, "pat-gone")},
		"a type of problem":          {false, "GET", "/api/pats", 400, problem, fmt.Sprintf(bad, "something")},
	} {
		a := &answer{t: t, code: tt.code, header: http.Header{}, body: []byte(tt.body),
			request: httptest.NewRequest(tt.method, tt.path, nil)}
		if tt.media != "" {
			a.header.Set("Content-Type", tt.media)
		}
		if faults := d.faults(a); (len(faults) == 0) != tt.good {
			t.Errorf("differs in %s: %q", what, faults)
		}
	}
	c := &coverage{openAPI: d, seen: map[string]bool{}}
	for _, seen := range d.answers[1:] {
		c.seen[seen] = true
	}
	if got := c.unseen(); !slices.Equal(got, d.answers[:1]) {
		t.Errorf("what nobody has seen: %q", got)
	}
}

func end(days int) string {
	return fmt.Sprintf(`{"validTo":%q}`, time.Now().AddDate(0, 0, days).UTC().Format(time.RFC3339))
}

// until is a body that lengthens an overlap.
func until(days int) string { return strings.Replace(end(days), "validTo", "until", 1) }

// confirmation has the right form, and a proof of nothing.
const confirmation = `{"secretVersion":"v","consumer":"jenkins","outcome":"switched","proof":"x"}`

const release = `{"action":"release"}`

func (c *coverage) successes(t *testing.T, r *fixture) {
	ask := func(method, path, body string, headers ...string) *answer {
		t.Helper()
		return c.check(r.ask(method, path, body, headers...))
	}
	ask("GET", "/api/pats", "").want(200, "")
	ask("GET", "/api/pats/jenkins-agents", "").want(200, "")
	ask("GET", "/api/health", "").want(200, "")
	ask("GET", "/api/status", "").want(200, "")
	ask("POST", "/api/check?dryRun=true", "").want(200, "")
	ask("POST", "/api/check", "").want(202, "")
	r.Settle()
	time.Sleep(2 * time.Second) // Key Vault's times have seconds
	started := startIncident(r, `{"identity":"build-bot"}`, ask)
	ask("GET", started.Status, "").want(200, "")
	r.Settle()
	unmanaged := r.byHand("by hand", "app_token", 5, true)
	ask("GET", "/api/pats?limit=1", "").want(200, "")
	ask("GET", "/api/pats?kind=full-scope", "").want(200, "")
	ask("POST", "/api/pats/jenkins-agents/extend", end(40)).want(200, "")
	ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"x"}`).want(202, "")
	r.Settle()
	ask("POST", "/api/check?dryRun=true", "").want(200, "")
	ask("GET", "/api/pats/jenkins-agents", "").want(200, "")
	ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(200, "")
	ask("POST", "/api/pats/jenkins-agents/restore", "").want(200, "")
	r.Settle()
	ask("DELETE", "/api/tokens/"+unmanaged, "").want(204, "")
	ask("DELETE", "/api/tokens/"+r.latest(name).Tags["CredentialId"]+"?force=true", "").want(202, "")
	r.Settle()
	ask("GET", "/api/status", "").want(200, "")
	c.page(t, r)
	r.SetManifest(onePAT)
	r.Restart()
	ask("GET", "/api/pats", "").want(200, "")
	ask("POST", "/api/check?dryRun=true", "").want(200, "")
	r.SetManifest(consumedPAT)
	r.Restart()
	ask("POST", "/api/pats/jenkins-agents/confirmations", confirmation).want(202, "")
	ask("POST", "/api/pats/jenkins-agents/switch-over", `{"action":"hold"}`).want(202, "")
	r.Settle()
	ask("GET", "/api/pats/jenkins-agents", "").want(200, "")
	for path, methods := range c.Paths {
		for method := range methods {
			path := strings.NewReplacer("{name}", name, "{authorizationId}", unmanaged, "{identity}", "build-bot",
				"{id}", "x").
				Replace("/api" + path)
			if a := r.ask(strings.ToUpper(method), path, "", "X-Functions-Key: "); a.code == 401 {
				c.check(a)
			}
		}
	}
}

// page is what the page for people answers.
func (c *coverage) page(t *testing.T, r *fixture) {
	ask := func(want int, fields []string, headers ...string) {
		t.Helper()
		c.check(r.sent(fields, headers...).answer).want(want, "")
	}
	path, cookie := r.away(dashboardAddress, "build-bot@contoso.com")
	c.check(r.ask("GET", path, "", cookie)).want(303, "")
	c.check(r.ask("GET", dashboardAddress, "")).want(303, "")
	ask(200, nil)
	ask(400, []string{"x", "y"})
	ask(404, []string{"pat", "nobody"})
	ask(200, []string{"act", "check"})
	ask(400, []string{"act", "nothing"})
	ask(404, []string{"act", "rotate", "name", "nobody"})
	ask(403, []string{"act", "check"}, "Sec-Fetch-Site: cross-site")
	ask(409, []string{"act", "revoke-users", "identity", "build-bot", "organization", "contoso", "users",
		"x@contoso.com"})
	c.check(r.ask("POST", dashboardAddress, "act=check", form)).want(401, "")
	r.visitorOf("nobody@contoso.com", "")
	ask(403, nil, "Person: nobody@contoso.com")
	r.Restart() // else it knows its keys
	r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.GetSecret, Mode: faults.Status, Status: 403,
		Times: -1})
	ask(502, nil)
	ask(502, []string{"act", "check"})
	r.Cloud.Injector.ClearFaults()
	time.Sleep(time.Minute)
}

func (c *coverage) refusals(t *testing.T, r *fixture) {
	c.check(r.ask("GET", "/api/pats/jenkins-agents/audit", "")).want(409, "no-administrator")
	incident := func(body string) *answer { return c.check(r.ask("POST", "/api/incidents", body)) }
	incident(`{"scope":{}}`).want(400, "bad-request")
	incident(`{"scope":{"pat":"jenkins-agents","identity":"build-bot"}}`).want(400, "bad-request")
	incident(`{"scope":{"pat":"nobody"}}`).want(404, "unknown-pat")
	incident(`{"scope":{"identity":"nobody"}}`).want(404, "unknown-identity")
	incident(`{"scope":{"organization":"nobody"}}`).want(422, "unknown-member")
	incident(`{"scope":{"identity":"build-bot"}}`).want(422, "confirmation")
	incident(`{"scope":{"identity":"build-bot"},"confirmation":"x"}`).want(422, "confirmation")
	incident(`{"reason":"`+strings.Repeat("x", web.MaxBody)+`"}`).want(413, "too-large")
	c.check(r.ask("GET", "/api/incidents/nothing", "")).want(404, "unknown-incident")
	c.check(r.ask("GET", "/api/incidents/..%252F..", "")).want(404, "unknown-incident")
	ask := func(method, path, body string, headers ...string) *answer {
		t.Helper()
		return c.check(r.ask(method, path, body, headers...))
	}
	large := `{"reason":"` + strings.Repeat("x", web.MaxBody) + `"}`
	ask("GET", "/api/pats?kind=x", "").want(400, "bad-request")
	ask("GET", "/api/pats/nobody", "").want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/rotate", "[]").want(400, "bad-request")
	ask("POST", "/api/pats/nobody/rotate", "").want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/rotate", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/extend", "{}").want(400, "bad-request")
	ask("POST", "/api/pats/nobody/extend", end(40)).want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/extend", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/extend", end(40)).want(422, "not-provisioned")
	ask("POST", "/api/pats/jenkins-agents/overlap", "{}").want(400, "bad-request")
	ask("POST", "/api/pats/nobody/overlap", until(3)).want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/overlap", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(422, "not-provisioned")
	ask("POST", "/api/pats/jenkins-agents/restore", `{"version":"x"}`).want(400, "bad-request")
	ask("POST", "/api/pats/nobody/restore", "").want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/restore", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/restore", "").want(422, "not-provisioned")
	ask("POST", "/api/pats/jenkins-agents/confirmations", "{}").want(400, "bad-request")
	ask("POST", "/api/pats/nobody/confirmations", confirmation).want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/confirmations", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/switch-over", "{}").want(400, "bad-request")
	ask("POST", "/api/pats/nobody/switch-over", release).want(404, "unknown-pat")
	ask("POST", "/api/pats/jenkins-agents/switch-over", large).want(413, "too-large")
	ask("POST", "/api/pats/jenkins-agents/switch-over", release).want(409, "nothing-replaced")
	ask("POST", "/api/check", large).want(413, "too-large")
	ask("DELETE", "/api/tokens/x", "").want(400, "bad-request")
	ask("DELETE", "/api/tokens/"+unknownID, "").want(404, "unknown-token")
	ask("POST", "/api/check?dryRun=x", "").want(400, "bad-request")
	ask("POST", "/api/revocations", ada).want(409, "no-administrator")
	r.sweep()
	id := r.latest(name).Tags["CredentialId"]
	ask("DELETE", "/api/tokens/"+id, "").want(409, "pat-in-use")
	ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(409, "nothing-replaced")
	ask("POST", "/api/pats/jenkins-agents/restore", "").want(409, "nothing-replaced")
	ask("POST", "/api/check", accept("build-bot", 0)).want(409, "no-mass-change")
	unmanaged := r.byHand("by hand", "vso.code", 30, false)
	key := "Idempotency-Key: k"
	ask("DELETE", "/api/tokens/"+unmanaged, "", key).want(204, "")
	ask("DELETE", "/api/tokens/"+id, "", key).want(422, "idempotency-key-reused")
	ask("POST", "/api/check", "", key).want(422, "idempotency-key-reused")
	ask("POST", "/api/pats/jenkins-agents/rotate", "", key).want(422, "idempotency-key-reused")
	ask("POST", "/api/pats/jenkins-agents/switch-over", release, key).want(422, "idempotency-key-reused")
	r.Cloud.DevOps.Revoke(id)
	ask("POST", "/api/pats/jenkins-agents/extend", end(40)).want(409, "pat-gone")
	c.signedOut(t, r)
}

// signedOut is how patrol answers when the identity's refresh token is dead.
func (c *coverage) signedOut(t *testing.T, r *fixture) {
	r.Cloud.Entra.Revoke("build-bot@contoso.com")
	r.Restart()
	time.Sleep(2 * time.Minute)
	_ = r.Sweep() // meets the refusal
	c.check(r.ask("POST", "/api/pats/jenkins-agents/rotate", "")).want(409, "sign-in-required")
	c.check(r.ask("GET", "/api/pats/jenkins-agents", "")).want(200, "")
	c.check(r.ask("GET", "/api/status", "")).want(200, "")
	c.check(r.ask("GET", "/api/health", "")).want(503, "")
	c.check(r.ask("POST", "/api/check?dryRun=true", "")).want(200, "")
}

func (c *coverage) upstream(t *testing.T, r *fixture) {
	ask := func(method, path, body string) *answer {
		t.Helper()
		return c.check(r.ask(method, path, body))
	}
	r.inject(faults.Fault{Service: "servicebus", Operation: "send " + cloud.CommandQueue, Mode: faults.ResetBefore,
		Times: -1})
	ask("POST", "/api/check", "").want(502, "upstream")
	ask("POST", "/api/pats/jenkins-agents/confirmations", confirmation).want(502, "upstream")
	r.Cloud.Injector.ClearFaults()
	r.sweep()
	var planned web.Incident
	ask("POST", "/api/incidents?dryRun=true", `{"scope":{"pat":"jenkins-agents"}}`).want(200, "").into(&planned)
	r.inject(faults.Fault{Service: "servicebus", Operation: "send " + cloud.CommandQueue, Mode: faults.ResetBefore,
		Times: -1})
	ask("POST", "/api/incidents", `{"scope":{"pat":"jenkins-agents"},"confirmation":"`+planned.Confirmation+`"}`).
		want(502, "upstream")
	r.Cloud.Injector.ClearFaults()
	r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.ListVersions, Mode: faults.Status,
		Status: 403})
	ask("GET", "/api/pats/jenkins-agents", "").want(502, "upstream")
	r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.GetSecret, Mode: faults.Status, Status: 403,
		Times: -1})
	ask("POST", "/api/pats/jenkins-agents/rotate", "").want(502, "upstream")
	ask("POST", "/api/pats/jenkins-agents/extend", end(40)).want(502, "upstream")
	ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(502, "upstream")
	ask("POST", "/api/pats/jenkins-agents/restore", "").want(502, "upstream")
	ask("POST", "/api/pats/jenkins-agents/switch-over", release).want(502, "upstream")
	r.Cloud.Injector.ClearFaults()
	r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.ListPats, Mode: faults.Status, Status: 403,
		Times: -1})
	ask("DELETE", "/api/tokens/"+unknownID, "").want(502, "upstream")
	r.Cloud.Injector.ClearFaults()
	unmanaged := r.byHand("by hand", "vso.code", 30, false)
	r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.RevokePat, Mode: faults.Status, Status: 429,
		Times: -1})
	if a := ask("DELETE", "/api/tokens/"+unmanaged, "").want(503, "throttled"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.Cloud.Injector.ClearFaults()
}

// broken: the manifest cannot be used.
func (c *coverage) broken(t *testing.T, r *fixture) {
	for path, methods := range c.Paths {
		for method := range methods {
			path := strings.NewReplacer("{name}", name, "{authorizationId}", unknownID, "{identity}", "build-bot",
				"{id}", "x").
				Replace("/api" + path)
			c.check(r.ask(strings.ToUpper(method), path, "")).want(503, "")
		}
	}
}

const (
	form     = "Content-Type: application/x-www-form-urlencoded"
	asJSON   = "Accept: application/json"
	signIn   = "/api/identities/build-bot/signin"
	callback = "/api/signin/callback"
)

func (c *coverage) signIns(t *testing.T, r *fixture) {
	// Each comes as a page and as a problem.
	refused := func(code int, problem string, ask func(headers ...string) *answer) {
		t.Helper()
		if a := c.check(ask()).want(code, ""); !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") ||
			!strings.Contains(string(a.body), "<h1>") {
			t.Errorf("a person gets %s", a.body)
		}
		c.check(ask(asJSON)).want(code, problem)
	}
	get := func(path string) func(headers ...string) *answer {
		return func(headers ...string) *answer { return r.ask("GET", path, "", headers...) }
	}
	r.Cloud.AddUser("night-bot@contoso.com")
	back := func(identity, user string, meanwhile func()) func(headers ...string) *answer {
		return func(headers ...string) *answer {
			path, cookie := r.away("/api/identities/"+identity+"/signin", user)
			if meanwhile != nil {
				meanwhile()
			}
			return r.ask("GET", path, "", append(headers, cookie)...)
		}
	}
	refused(400, "bad-request", get(signIn+"?confirm=me"))
	refused(403, "sign-in-refused", get(signIn+"?confirm="+unknownID))
	refused(404, "unknown-identity", get("/api/identities/nobody/signin"))
	refused(400, "sign-in-callback", get(callback))
	refused(400, "sign-in-flow", get(callback+"?code=c&state=s"))
	refused(403, "sign-in-refused", back("build-bot", "night-bot@contoso.com", nil))

	c.check(r.ask("GET", signIn, "")).want(303, "")
	c.check(back("build-bot", "build-bot@contoso.com", nil)()).want(200, "")
	c.check(r.ask("GET", callback+"?admin_consent=True&state=s&tenant="+r.Cloud.Entra.Tenant(), "")).want(200, "")
	r.Settle()

	r.inject(faults.Fault{Service: "entra", Operation: "discovery", Mode: faults.Status, Status: 500, Times: -1})
	refused(502, "upstream", get(signIn))
	r.Cloud.Injector.ClearFaults()
	down := func() {
		r.inject(faults.Fault{Service: "entra", Operation: "token authorization_code", Mode: faults.Status, Status: 500,
			Times: -1})
	}
	up := func(ask func(headers ...string) *answer) func(headers ...string) *answer {
		return func(headers ...string) *answer { defer r.Cloud.Injector.ClearFaults(); return ask(headers...) }
	}
	refused(502, "upstream", up(back("build-bot", "build-bot@contoso.com", down)))
	r.Settle()

	// The identity has left the manifest while its user was away.
	refused(404, "unknown-identity", func(headers ...string) *answer {
		defer func() { r.SetManifest(twoPeople); r.Restart() }()
		return back("night-bot", "night-bot@contoso.com", func() { r.SetManifest(onePAT); r.Restart() })(headers...)
	})
}

// nowhere: the app does not know its own address.
func (c *coverage) nowhere(_ *testing.T, r *fixture) {
	c.check(r.ask("GET", signIn, "")).want(503, "")
	c.check(r.ask("GET", signIn, "", asJSON)).want(503, "configuration")
	c.check(r.ask("GET", dashboardAddress, "")).want(503, "")
	c.check(r.ask("POST", dashboardAddress, "act=check", form)).want(503, "")
}

const administered = `apiVersion: patrol/v1
identities:
  build-bot: {user: build-bot@contoso.com}
  root-bot: {user: root@contoso.com, administrator: true}
pats:
  - {name: jenkins-agents, identity: build-bot, organization: contoso, scopes: [vso.code]}
`

// ada asks for the revocation of her PATs.
const ada = `{"organization":"contoso","identity":"root-bot","users":["ada@contoso.com"]}`

func (c *coverage) revocations(t *testing.T, r *fixture) {
	ask := func(body string, headers ...string) *answer {
		t.Helper()
		return c.check(r.ask("POST", "/api/revocations", body, headers...))
	}
	confirmed := func(token string) string {
		return strings.TrimSuffix(ada, "}") + fmt.Sprintf(`,"confirmation":%q}`, token)
	}
	seed := func() {
		r.Cloud.DevOps.Seed(cloud.Organization, "ada@contoso.com", "by hand", "vso.code", time.Now().AddDate(0, 0, 30),
			false)
	}
	plan := func() string {
		t.Helper()
		var out web.UserRevocationReport
		ask(ada).want(200, "").into(&out)
		if out.Executed || out.Plan.Count == 0 || out.Plan.Confirmation == "" {
			t.Fatalf("the plan: %+v", out)
		}
		return out.Plan.Confirmation
	}
	r.Cloud.AddUser("root@contoso.com")
	r.Cloud.AddUser("ada@contoso.com")
	seed()
	ask(ada).want(409, "sign-in-required")
	path, cookie := r.away("/api/identities/root-bot/signin", "root@contoso.com")
	r.ask("GET", path, "", cookie).want(200, "")
	ask(ada).want(403, "not-administrator")
	r.Cloud.DevOps.SetAdministrator("root@contoso.com", true)

	ask("[]").want(400, "bad-request")
	ask("{}").want(400, "bad-request")
	ask(`{"reason":"`+strings.Repeat("x", web.MaxBody)+`"}`).want(413, "too-large")
	ask(confirmed("x")).want(422, "confirmation")
	ask(strings.Replace(ada, "contoso", "nowhere", 1)).want(422, "unknown-member")

	// What was confirmed is done, and nothing else.
	token := plan()
	seed()
	var changed struct {
		Plan struct{ Confirmation string }
	}
	ask(confirmed(token)).want(409, "plan-changed").into(&changed)
	r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.RevokeUserPats, Mode: faults.Status,
		Status: 400})
	ask(confirmed(changed.Plan.Confirmation)).want(502, "revocation-incomplete")
	var done web.UserRevocationReport
	ask(confirmed(changed.Plan.Confirmation)).want(200, "").into(&done)
	if !done.Executed || done.Revoked != 2 {
		t.Errorf("%d were revoked: %+v", done.Revoked, done)
	}
	ask(strings.Replace(ada, "ada@contoso.com", `ada@contoso.com","nobody@contoso.com`, 1)).want(200, "")
	seed()
	rule := strings.TrimSuffix(ada, "}") + `,"rule":{"scopes":["vso.code"],"createdBefore":"2000-01-01T00:00:00Z"}`
	var ruled web.UserRevocationReport
	ask(rule+"}").want(200, "").into(&ruled)
	ask(rule+fmt.Sprintf(`,"confirmation":%q}`, ruled.Plan.Confirmation)).want(200, "")

	r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.GraphUsers, Mode: faults.Status, Status: 500,
		Times: -1})
	ask(ada).want(502, "upstream")
	r.Cloud.Injector.ClearFaults()
	r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.GraphUsers, Mode: faults.Status, Status: 429,
		Times: -1})
	ask(ada).want(503, "throttled")
	r.Cloud.Injector.ClearFaults()

	c.audits(t, r)
}

// audits: the organization's audit log is read for an administrator who asks for it, and
// for nobody else.
func (c *coverage) audits(t *testing.T, r *fixture) {
	const path = "/api/pats/jenkins-agents/audit"
	ask := func(path string) *answer { return c.check(r.ask("GET", path, "")) }
	r.sweep()
	reads := func() int { return r.Cloud.Injector.Count(devops.ServiceName, devops.QueryAudit) }
	before := reads()
	r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "")
	if n := reads() - before; n != 0 {
		t.Errorf("GetPat has read the audit log %d times", n)
	}
	ask("/api/pats/nobody/audit").want(404, "unknown-pat")
	for status, want := range map[int]string{500: "upstream", 429: "throttled"} {
		r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.QueryAudit, Mode: faults.Status,
			Status: status, Times: -1})
		ask(path).want(map[string]int{"upstream": 502, "throttled": 503}[want], want)
		r.Cloud.Injector.ClearFaults()
		time.Sleep(2 * time.Minute) // the pause that was asked for
	}
	r.Cloud.DevOps.SetAdministrator("root@contoso.com", false)
	ask(path).want(403, "not-administrator")
	r.Cloud.DevOps.SetAdministrator("root@contoso.com", true)

	before = reads()
	var first, again web.PATAudit
	ask(path).want(200, "").into(&first)
	if len(first.Events) == 0 {
		t.Error("no events of the organization's audit log")
	}
	read := reads() - before
	ask(path).want(200, "").into(&again)
	if n := reads() - before; n != read || !again.At.Equal(first.At) {
		t.Errorf("asked twice, the log was read %d times, want once; read at %s and %s", n, first.At, again.At)
	}
	time.Sleep(6 * time.Minute)
	ask(path).want(200, "").into(&again)
	if !again.At.After(first.At) {
		t.Error("the answer is older than five minutes")
	}
	c.check(r.ask("GET", path, "", "X-Functions-Key: a-function-key")).want(401, "")
}
