package app_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const signInManifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    scopes: [vso.build_execute]
`

const signInSecret = "patrol-identity-build-bot"

// desk is an operator's machine beside a cloud in which nobody has signed in.
type desk struct {
	t       *testing.T
	cloud   *cloud.Cloud
	network *memnet.Network
	env     map[string]string
	device  string // user code, once it is shown
	person  func(page string)
	opened  []string

	mu       sync.Mutex
	out, err bytes.Buffer
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, network: &memnet.Network{}}
	c, err := cloud.New(cloud.Config{Network: d.network, Genuine: true})
	d.must(err)
	t.Cleanup(c.Close)
	d.cloud = c
	c.AddOrganization(cloud.Organization)
	c.AddUser(cloud.User)
	c.AddUser("mallory@contoso.com")
	d.env = c.Environment()
	path := filepath.Join(t.TempDir(), "pats.yaml")
	d.must(os.WriteFile(path, []byte(signInManifest), 0o600))
	d.env["PATROL_MANIFEST"] = path
	d.register("http://localhost")
	return d
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// register makes the app registration anew, with platforms for the app's page
// and for command lines.
func (d *desk) register(native ...string) {
	d.t.Helper()
	token, err := d.cloud.Credential().GetToken(d.t.Context(),
		policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	d.must(err)
	identity, err := d.cloud.Entra.VerifyAccessToken(token.Token)
	d.must(err)
	d.cloud.Entra.AddApp(entra.App{ClientID: d.env["ENTRA_CLIENT_ID"], Name: "patrol",
		Web: []string{d.env["PUBLIC_URL"] + "/api/signin/callback"}, Native: native, AllowPublicClient: len(native) > 0,
		Scopes: []string{entra.DevOps + "/vso.pats", entra.DevOps + "/vso.pats_manage"},
		Federated: []entra.FederatedCredential{{Issuer: d.cloud.Entra.Issuer(), Subject: identity.ObjectID,
			Audience: entra.TokenExchange}}})
}

// Write sees what the command prints, and the user code among it.
func (d *desk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.out.Write(b)
	if m := regexp.MustCompile(`enter the code (\S+)`).FindStringSubmatch(d.out.String()); m != nil && d.device == "" {
		d.device = m[1]
		go d.person(m[1])
	}
	return n, err
}

// settings are those that an operator needs: no bus, no schedule.
func (d *desk) settings(name string) string {
	switch name {
	case "KEY_VAULT_URL", "ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "PATROL_MANIFEST", "AZURE_AUTHORITY_HOST":
		return d.env[name]
	}
	return ""
}

func (d *desk) run(args ...string) int {
	d.t.Helper()
	d.mu.Lock()
	d.out.Reset()
	d.err.Reset()
	d.device = ""
	d.mu.Unlock()
	transport := d.cloud.Transport()
	defer transport.CloseIdleConnections()
	return app.Main(d.t.Context(), args, app.Process{
		Getenv: d.settings, In: strings.NewReader(""), Out: d, Err: &d.err, Version: "test",
		Outside: app.Outside{Transport: transport}, Credential: d.cloud.Credential(),
		Open: func(_ context.Context, page string) error {
			d.opened = append(d.opened, page)
			go d.person(page)
			return nil
		},
	})
}

// signsIn is a person with a browser on the operator's machine: the answer goes
// to the loopback address that the page names.
func (d *desk) signsIn(p htmlclient.Person) func(string) {
	return func(page string) {
		network := d.cloud.Transport()
		defer network.CloseIdleConnections()
		end, err := p.Walk(d.t.Context(), htmlclient.New(network), page)
		if err != nil || len(end.Forms) != 1 {
			d.t.Errorf("%v: %+v", err, end)
			return
		}
		if said := d.post(end.Forms[0].Action, end.Forms[0].Fields); !strings.Contains(said, "<h1>") {
			d.t.Errorf("the page says %s", said)
		}
	}
}

func (d *desk) post(to string, form url.Values) string {
	local := http.Transport{}
	defer local.CloseIdleConnections()
	resp, err := (&http.Client{Transport: &local}).PostForm(to, form)
	if err != nil {
		d.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Error(err)
	}
	return string(body)
}

// said is all that the command has printed. No token may be in it.
func (d *desk) said() string {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	said := d.out.String() + d.err.String()
	for _, token := range d.cloud.Tokens() {
		if strings.Contains(said, token) {
			d.t.Errorf("a token was printed: %.12s...", token)
		}
	}
	return said
}

// appWorks lets the app itself plan a sweep, for which it has to list the PATs of
// the one who has signed in.
func (d *desk) appWorks() {
	d.t.Helper()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		d.t.Setenv(name, d.env[name])
	}
	env := maps.Clone(d.env)
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	transport := d.cloud.Transport()
	a := app.New(settings, err, app.Outside{Transport: transport, Dial: d.cloud.DialBus})
	defer func() { d.must(a.Close(d.t.Context())) }()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/check?dryRun=true", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "provision") || strings.Contains(w.Body.String(),
		"sign-in") {
		d.t.Errorf("the app's plan: %d %s", w.Code, w.Body)
	}
}

func TestAnOperatorSignsAnIdentityInFromTheCommandLine(t *testing.T) {
	d := newDesk(t)
	d.person = d.signsIn(htmlclient.Person{User: cloud.User})
	if code := d.run("sign-in", "build-bot"); code != 0 {
		t.Fatalf("exit code %d: %s", code, d.said())
	}
	if said := d.said(); !strings.Contains(said, d.opened[0]) ||
		!strings.Contains(said, "Signed in as build-bot@contoso.com") {
		t.Errorf("said %s", said)
	}
	if q := d.opened[0]; !strings.Contains(q, "response_mode=form_post") ||
		!strings.Contains(q, "redirect_uri=http%3A%2F%2Flocalhost%3A") {
		t.Errorf("opened %s", q)
	}
	vs := d.cloud.Vault.Versions(signInSecret)
	if len(vs) != 1 || vs[0].Tags["patrol-user"] != cloud.User || vs[0].Expires.IsZero() {
		t.Fatalf("%d versions", len(vs))
	}
	d.appWorks()
}

func TestAnOperatorSignsAnIdentityInOnAnotherDevice(t *testing.T) {
	d := newDesk(t)
	d.person = func(code string) { d.must(d.cloud.Entra.ApproveDevice(code, cloud.User)) }
	if code := d.run("sign-in", "-device-code", "build-bot"); code != 0 {
		t.Fatalf("exit code %d: %s", code, d.said())
	}
	if said := d.said(); !strings.Contains(said, "Microsoft advises tenants to block the device code flow") ||
		len(d.opened) != 0 {
		t.Errorf("said %s", said)
	}
	d.appWorks()
}

func TestTheCommandLineRefusesEverybodyElse(t *testing.T) {
	d := newDesk(t)
	d.person = d.signsIn(htmlclient.Person{User: "mallory@contoso.com"})
	if code := d.run("sign-in", "build-bot"); code != 1 || !strings.Contains(d.said(), "(wrong-user)") ||
		!strings.Contains(d.said(), cloud.User) {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.person = func(code string) { d.must(d.cloud.Entra.ApproveDevice(code, "mallory@contoso.com")) }
	if code := d.run("sign-in", "-device-code", "build-bot"); code != 1 || !strings.Contains(d.said(), "(wrong-user)") {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.person = d.signsIn(htmlclient.Person{User: cloud.User, CancelAt: "consent"})
	if code := d.run("sign-in", "build-bot"); code != 1 || !strings.Contains(d.said(), "AADSTS65004") {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.person = func(code string) { d.must(d.cloud.Entra.DeclineDevice(code)) }
	if code := d.run("sign-in", "-device-code", "build-bot"); code != 1 ||
		!strings.Contains(d.said(), "(authorization-declined)") {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.cloud.Entra.Switch(func(s *entra.Switches) { s.NoUserConsent = true })
	d.person = d.signsIn(htmlclient.Person{User: cloud.User})
	if code := d.run("sign-in", "build-bot"); code != 1 ||
		!strings.Contains(d.said(), "az ad app permission admin-consent --id "+d.env["ENTRA_CLIENT_ID"]) {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	if n := len(d.cloud.Vault.Versions(signInSecret)); n != 0 {
		t.Errorf("%d versions were stored", n)
	}
}

func TestAnAccountThatWasMadeAnewIsConfirmedOnTheCommandLine(t *testing.T) {
	d := newDesk(t)
	d.person = d.signsIn(htmlclient.Person{User: cloud.User})
	if code := d.run("sign-in", "build-bot"); code != 0 {
		t.Fatalf("exit code %d: %s", code, d.said())
	}
	d.cloud.AddUser(cloud.User) // another object id
	if code := d.run("sign-in", "build-bot"); code != 1 {
		t.Fatalf("exit code %d: %s", code, d.said())
	}
	m := regexp.MustCompile(`handler (sign-in -confirm-user-id \S+ build-bot)`).FindStringSubmatch(d.said())
	if m == nil {
		t.Fatalf("said %s", d.said())
	}
	if code := d.run(strings.Fields(m[1])...); code != 0 {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.appWorks()
}

func TestALoopbackAddressTakesTheOneAnswerThatBelongsToIt(t *testing.T) {
	d := newDesk(t)
	d.person = func(page string) {
		u, err := url.Parse(page)
		if err != nil {
			t.Error(err)
			return
		}
		q := u.Query()
		to := q.Get("redirect_uri")
		for name, form := range map[string]url.Values{
			"another state": {"state": {"x"}, "code": {"c"}},
			"no state":      {"code": {"c"}},
			"no answer":     {"state": {q.Get("state")}},
			"a consent":     {"state": {q.Get("state")}, "admin_consent": {"True"}},
		} {
			if said := d.post(to, form); !strings.Contains(said, "Not an answer") {
				t.Errorf("%s: %s", name, said)
			}
		}
		local := http.Transport{}
		defer local.CloseIdleConnections()
		for _, r := range []*http.Request{
			httptest.NewRequest(http.MethodGet, to+"/?state="+q.Get("state")+"&code=c", nil),
			httptest.NewRequest(http.MethodGet, to+"/favicon.ico", nil),
			httptest.NewRequest(http.MethodPost, to, nil),
		} {
			r.RequestURI = ""
			if r.Method == http.MethodPost {
				r.Host = "evil.example"
			}
			resp, err := (&http.Client{Transport: &local}).Do(r)
			if err != nil {
				t.Error(err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusMethodNotAllowed && resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s for %s: %d", r.Method, r.URL, r.Host, resp.StatusCode)
			}
		}
		d.signsIn(htmlclient.Person{User: cloud.User})(page)
	}
	if code := d.run("sign-in", "build-bot"); code != 0 {
		t.Errorf("exit code %d: %s", code, d.said())
	}
}

func TestACommandLineThatCanNotWorkSaysWhy(t *testing.T) {
	d := newDesk(t)
	d.person = func(string) {}
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"help"}, 0, "handler sign-in"},
		{[]string{"sign-in", "-h"}, 0, "-device-code"},
		{[]string{"sing-in"}, 2, `no command "sing-in"`},
		{[]string{"sign-in"}, 2, "name one identity"},
		{[]string{"sign-in", "a", "b"}, 2, "name one identity"},
		{[]string{"sign-in", "-x", "build-bot"}, 2, "-x"},
		{[]string{"sign-in", "nobody"}, 1, "build-bot"},
		{[]string{"sign-in", "-timeout", "50ms", "build-bot"}, 1, "nobody has signed in within 50ms"},
		{[]string{"sign-in", "-no-browser", "-timeout", "50ms", "build-bot"}, 1, "nobody has signed in within 50ms"},
	} {
		if code := d.run(tc.args...); code != tc.code || !strings.Contains(d.said(), tc.says) {
			t.Errorf("%v: exit code %d: %s", tc.args, code, d.said())
		}
	}
	if len(d.opened) != 1 {
		t.Errorf("%d pages were opened", len(d.opened))
	}
	d.register() // no platform for command lines
	d.person = func(code string) { d.must(d.cloud.Entra.ApproveDevice(code, cloud.User)) }
	if code := d.run("sign-in", "-device-code", "-timeout", "30s", "build-bot"); code != 1 ||
		!strings.Contains(d.said(), "public client flows") {
		t.Errorf("exit code %d: %s", code, d.said())
	}
	d.env = map[string]string{}
	if code := d.run("sign-in", "build-bot"); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{"KEY_VAULT_URL is not set", "ENTRA_CLIENT_ID is not set"} {
		if !strings.Contains(d.said(), want) {
			t.Errorf("%q is not in %s", want, d.said())
		}
	}
	if strings.Contains(d.said(), "COMMAND_QUEUE") {
		t.Errorf("a sign-in needs no queue: %s", d.said())
	}
}

// stranger is an operator who has no role in the vault.
type stranger struct{}

func (stranger) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "of nobody", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestAnOperatorWithoutTheVaultAsksNobodyToSignIn(t *testing.T) {
	d := newDesk(t)
	transport := d.cloud.Transport()
	defer transport.CloseIdleConnections()
	err := app.SignIn(t.Context(), []string{"build-bot"}, app.Process{
		Getenv: d.settings, Out: d, Err: &d.err, Outside: app.Outside{Transport: transport}, Credential: stranger{},
		Open: func(context.Context, string) error { return errors.New("a page was opened") },
	})
	if err == nil || !strings.Contains(err.Error(), "the vault can't be used") ||
		strings.Contains(d.said(), "browser") {
		t.Errorf("%v: %s", err, d.said())
	}
}
