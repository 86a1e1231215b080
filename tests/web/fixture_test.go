package web_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const (
	masterKey = "master-key-of-the-simulation"
	name      = "jenkins-agents"
	unknownID = "00000000-0000-4000-8000-00000000dead"
)

const onePAT = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute]
`

const twoPATs = onePAT + `  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
`

// fixture is the app with the whole local Azure, asked through the Functions host.
type fixture struct {
	*simulation.World
	t   *testing.T
	api *openAPI
	// people have signed in to the page, by user name.
	people map[string]*visitor
}

// visitor is a person's browser.
type visitor struct{ cookie, form string }

// run tests one fixture in its own bubble of virtual time.
func run(t *testing.T, c simulation.Config, test func(t *testing.T, r *fixture)) {
	t.Helper()
	t.Parallel()
	bubble(t, c, test)
}

func bubble(t *testing.T, c simulation.Config, test func(t *testing.T, r *fixture)) {
	t.Helper()
	api := readDescription(t)
	synctest.Test(t, func(t *testing.T) {
		if c.Manifest == "" {
			c.Manifest = onePAT
		}
		own := c.Cloud
		c.Cloud = func(x *cloud.Config) {
			x.Authentication = true
			if own != nil {
				own(x)
			}
		}
		c.OneProcess = true // the HTTP functions show what this process' sweeps have seen
		w := simulation.New(t, c)
		defer w.Close()
		defer func() {
			if t.Failed() {
				t.Logf("the handler said:\n%s", w.Output())
			}
		}()
		test(t, &fixture{World: w, t: t, api: api, people: map[string]*visitor{}})
	})
}

// sweep runs the timer a minute later, and waits for its commands.
func (r *fixture) sweep() {
	r.t.Helper()
	time.Sleep(61 * time.Second)
	if err := r.Sweep(); err != nil {
		r.t.Fatalf("sweep: %v\n%s", err, r.Output())
	}
}

// answer is what came back.
type answer struct {
	t      *testing.T
	ask    string
	code   int
	header http.Header
	body   []byte
	// request is what was asked, without its body.
	request *http.Request
}

// ask sends a request through the host. Of headers each is "Name: value".
func (r *fixture) ask(method, path, body string, headers ...string) *answer {
	r.t.Helper()
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, "http://patrol.localhost"+path, reader)
	req.Header.Set("X-Functions-Key", masterKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Del(k)
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	rec := httptest.NewRecorder()
	r.Hosts[0].ServeHTTP(rec, req)
	a := &answer{t: r.t, ask: method + " " + path, code: rec.Code, header: rec.Header(), body: rec.Body.Bytes(),
		request: req}
	for _, fault := range r.api.faults(a) {
		r.t.Errorf("%s answered %d, and differs from its description: %s\n%s", a.ask, a.code, fault, a.body)
	}
	return a
}

// away begins a sign-in in a browser and walks through the authority's pages. path is
// where the authority sends the browser back to, and cookie the header that the
// browser comes with.
func (r *fixture) away(link, user string) (path, cookie string) {
	r.t.Helper()
	return r.follow(r.ask("GET", link, "").want(http.StatusSeeOther, ""), user)
}

// follow walks on from the answer that has sent the browser to the authority.
func (r *fixture) follow(begun *answer, user string) (path, cookie string) {
	r.t.Helper()
	transport := r.Transport()
	defer transport.CloseIdleConnections()
	at, err := htmlclient.Person{User: user}.Walk(r.t.Context(), htmlclient.New(transport),
		begun.header.Get("Location"))
	if err != nil {
		r.t.Fatal(err)
	}
	if !at.Left() {
		r.t.Fatalf("the authority kept the browser: %s", at.HTML)
	}
	return at.URL.RequestURI(), begun.cookie()
}

// cookie is the header with which a browser comes back after an answer.
func (a *answer) cookie() string {
	out := ""
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.MaxAge >= 0 {
			out = "Cookie: " + c.Name + "=" + c.Value
		}
	}
	return out
}

// want checks the status, and for a problem its type.
func (a *answer) want(code int, problem string) *answer {
	a.t.Helper()
	if a.code != code {
		a.t.Fatalf("%s answered %d, want %d: %s", a.ask, a.code, code, a.body)
	}
	if problem != "" {
		var p struct{ Type, Title string }
		a.into(&p)
		if p.Type != "urn:patrol:problem:"+problem || p.Title == "" ||
			a.header.Get("Content-Type") != "application/problem+json" {
			a.t.Fatalf("%s answered %s, want a problem of type %s", a.ask, a.body, problem)
		}
	}
	return a
}

func (a *answer) into(v any) *answer {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s answered %d with %q: %v", a.ask, a.code, a.body, err)
	}
	return a
}

func (r *fixture) latest(name string) keyvault.Version {
	r.t.Helper()
	v, ok := r.Latest(name)
	if !ok {
		r.t.Fatalf("there is no secret %s\n%s", name, r.Output())
	}
	return v
}

// pat finds a PAT at Azure DevOps.
func (r *fixture) pat(id string) devops.PAT {
	r.t.Helper()
	for _, p := range r.Cloud.DevOps.PATs(cloud.Organization, cloud.User) {
		if p.AuthorizationID == id {
			return p
		}
	}
	r.t.Fatalf("Azure DevOps never had %s", id)
	return devops.PAT{}
}

// byHand makes a PAT that patrol knows nothing of.
func (r *fixture) byHand(displayName, scopes string, days int, global bool) (id string) {
	id, _ = r.Cloud.DevOps.Seed(cloud.Organization, cloud.User, displayName, scopes, time.Now().AddDate(0, 0, days),
		global)
	return id
}

func (r *fixture) inject(f faults.Fault) {
	r.t.Helper()
	if err := r.Cloud.Injector.Inject(f); err != nil {
		r.t.Fatal(err)
	}
}

// commands counts what is and was on the command queue.
func (r *fixture) commands() int { return len(r.Cloud.Messages(cloud.CommandQueue)) }
