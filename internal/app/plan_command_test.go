package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const planHead = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
`

// planManifest asks for one PAT of each kind.
const planManifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
  late-bot:
    user: late-bot@contoso.com
defaults: {lifetime: 30d, rotateBefore: 10d, overlap: 24h}
pats:
  - {name: adopted, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: ambiguous, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: due, identity: build-bot, organization: contoso, scopes: [vso.code], lifetime: 21d, rotateBefore: 12d}
  - {name: moved, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: new, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: orphaned, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: overlapping, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: quiet, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: relocated, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: replaced, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: scoped, identity: build-bot, organization: contoso, scopes: [vso.build, vso.code]}
  - {name: waiting, identity: late-bot, organization: contoso, scopes: [vso.code]}
`

// hostile is a name that somebody gave a PAT to be read by others.
const hostile = "my|`laptop`\n\x1b[31m<b>@all</b> ##vso[task.complete]"

// reviewer is an operator who reviews plans, beside a cloud with PATs.
type reviewer struct {
	t          *testing.T
	cloud      *cloud.Cloud
	env        map[string]string
	path       string
	credential azcore.TokenCredential

	out, err bytes.Buffer
}

// newReviewer makes the cloud of planManifest, ten days old.
func newReviewer(t *testing.T, clientCredential string) *reviewer {
	t.Helper()
	c, err := cloud.New(cloud.Config{Network: &memnet.Network{}, Genuine: true, ClientCredential: clientCredential})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &reviewer{t: t, cloud: c, env: c.Environment(), credential: c.Credential()}
	r.must(c.Seed())
	c.AddOrganization("fabrikam")
	c.AddUser("late-bot@contoso.com")
	r.write(planManifest)

	now := time.Now()
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	const day = 24 * time.Hour
	r.addManaged("due", 21*day, nil)
	r.addManagedOf(cloud.Organization, "late-bot@contoso.com", "moved", 30*day,
		map[string]string{"patrol-identity": "old-bot"})
	r.addManaged("orphaned", 30*day, nil)
	r.seed("orphaned (patrol "+rotation.VaultTag(c.VaultHost())+"-"+rotation.RotationID("orphaned", "")+")",
		30*day)
	r.addManaged("overlapping", 30*day,
		map[string]string{"patrol-previous": r.seed(r.marked("overlapping"), 30*day),
			"patrol-revoke-previous-at": at(10*day + 6*time.Hour)})
	r.addManaged("quiet", 30*day, nil)
	r.addManagedOf("fabrikam", cloud.User, "relocated", 30*day,
		map[string]string{"ProviderAddress": r.env["AZURE_DEVOPS_URL"] + "/fabrikam"})
	r.addManaged("replaced", 30*day, map[string]string{"patrol-previous": r.seed(r.marked("replaced"), 30*day),
		"patrol-revoke-previous-at": at(9*day + 12*time.Hour)})
	r.addManaged("scoped", 30*day, nil)
	r.addManaged("old", 30*day, nil)
	for _, name := range []string{"adopted", "ambiguous", "ambiguous"} {
		r.seed(name, 30*day)
		r.put(keyvault.Version{Name: name, Value: "put there by hand"})
	}
	r.cloud.DevOps.Seed(cloud.Organization, cloud.User, hostile, "app_token", now.Add(12*day), true)
	r.cloud.DevOps.Seed(cloud.Organization, cloud.User, "harmless", "vso.code", now.Add(100*day), false)
	time.Sleep(10 * day)
	return r
}

func (r *reviewer) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *reviewer) write(manifest string) {
	r.t.Helper()
	r.path = filepath.Join(r.t.TempDir(), "pats.yaml")
	r.must(os.WriteFile(r.path, []byte(manifest), 0o600))
}

func (r *reviewer) seed(name string, life time.Duration) string {
	id, _ := r.cloud.DevOps.Seed(cloud.Organization, cloud.User, name, "vso.code", time.Now().Add(life), false)
	return id
}

func (r *reviewer) put(v keyvault.Version) {
	r.t.Helper()
	_, err := r.cloud.Vault.Put(v)
	r.must(err)
}

// addManaged adds a PAT as patrol leaves it, but for some tags.
func (r *reviewer) addManaged(name string, life time.Duration, tags map[string]string) {
	r.t.Helper()
	r.addManagedOf(cloud.Organization, cloud.User, name, life, tags)
}

// addManagedOf is addManaged for a PAT of another organization or user.
func (r *reviewer) addManagedOf(organization, user, name string, life time.Duration, tags map[string]string) {
	r.t.Helper()
	marked := r.marked(name)
	id, token := r.cloud.DevOps.Seed(organization, user, marked, "vso.code", time.Now().Add(life), false)
	all := map[string]string{"CredentialId": id, "ProviderAddress": r.env["AZURE_DEVOPS_URL"] + "/" +
		cloud.Organization, "ValidityPeriodDays": "30",
		"patrol-rotation": "0123456789", "patrol-identity": cloud.Identity, "patrol-reason": "provision",
		"patrol-announced-at": time.Now().UTC().Format(time.RFC3339)}
	maps.Copy(all, tags)
	r.put(keyvault.Version{Name: name, Value: token, Tags: all, Expires: time.Now().Add(life)})
}

// marked is the display name of a PAT that patrol has made.
func (r *reviewer) marked(name string) string {
	return rotation.DisplayName(name, rotation.VaultTag(r.cloud.VaultHost()), "0123456789")
}

// settings are those that a plan needs.
func (r *reviewer) settings(name string) string {
	switch name {
	case "KEY_VAULT_URL", "ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "ENTRA_CLIENT_CREDENTIAL", "ENTRA_CERTIFICATE",
		"AZURE_AUTHORITY_HOST", "AZURE_DEVOPS_URL", "AZURE_DEVOPS_VSSPS_URL":
		return r.env[name]
	case "PATROL_MANIFEST":
		return r.path
	}
	return ""
}

// run runs the command, sees that nothing has changed in the cloud, and gives what it
// wrote to its output.
func (r *reviewer) run(want int, args ...string) string {
	r.t.Helper()
	r.out.Reset()
	r.err.Reset()
	before := r.state()
	transport := r.cloud.Transport()
	defer transport.CloseIdleConnections()
	code := app.Main(r.t.Context(), append([]string{"plan"}, args...), app.Process{
		Getenv: r.settings, In: strings.NewReader(""), Out: &r.out, Err: &r.err, Version: "test",
		Outside: app.Outside{Transport: transport}, Credential: r.credential})
	if code != want {
		r.t.Fatalf("exit code %d, want %d: %s%s", code, want, &r.out, &r.err)
	}
	if after := r.state(); !reflect.DeepEqual(before, after) {
		r.t.Errorf("%v has changed what is in the cloud", args)
	}
	for _, token := range r.cloud.Tokens() {
		if strings.Contains(r.out.String()+r.err.String(), token) {
			r.t.Errorf("a token was printed: %.12s...", token)
		}
	}
	return strings.ReplaceAll(r.out.String(), r.path, "pats.yaml")
}

// state is all that a plan must leave alone.
func (r *reviewer) state() any {
	versions := map[string][]keyvault.Version{}
	for _, name := range r.cloud.Vault.Names() {
		versions[name] = r.cloud.Vault.Versions(name)
	}
	return []any{len(r.cloud.History()), versions, r.cloud.DevOps.PATs("", "")}
}

func (r *reviewer) changes(out string) map[string]string {
	r.t.Helper()
	found := map[string]string{}
	for _, c := range r.report(out).Changes {
		found[c.PAT] += c.Action
	}
	return found
}

func (r *reviewer) report(out string) web.PlanReport {
	r.t.Helper()
	var report web.PlanReport
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	r.must(d.Decode(&report))
	return report
}

// same compares with a text that has ' for each backquote.
func same(t *testing.T, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(want, "'", "`")
	got = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).ReplaceAllString(got, "GUID")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// sameAsFile compares with a file of testdata.
func sameAsFile(t *testing.T, got, name string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, string(want))
}

func TestAPlanSaysWhatASweepWouldDoAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		sameAsFile(t, r.run(0), "plan.txt")
		sameAsFile(t, r.run(0, "-format", "markdown", r.path), "plan.md")

		// As JSON it is the app's own answer, and the app's sign-in has outlived it.
		got := r.report(r.run(0, "-format", "json"))
		if want := r.report(r.dryRun()); !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v\nthe app says\n%+v", got, want)
		}
		if strings.Contains(r.out.String(), "##vso") || got.Unmanaged[0].DisplayName != hostile {
			t.Errorf("the name of others is %q in %s", got.Unmanaged[0].DisplayName, &r.out)
		}
	})
}

// dryRun is the app's plan.
func (r *reviewer) dryRun() string {
	r.t.Helper()
	env := maps.Clone(r.env)
	env["PATROL_MANIFEST"] = r.path
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		r.t.Setenv(name, env[name])
	}
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	a := app.New(settings, err, app.Outside{Transport: r.cloud.Transport(), Dial: r.cloud.DialBus})
	defer func() { r.must(a.Close(r.t.Context())) }()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/check?dryRun=true", nil))
	return w.Body.String()
}

// What the vault alone says of planManifest.
const (
	unlistedChanges = "adopted= ambiguous= due=rotate moved=rotate new=create old=release orphaned= " +
		"overlapping=revoke quiet= relocated=rotate replaced= scoped= waiting=sign-in"
	unlistedStates = "adopted=unknown ambiguous=unknown due=due moved=due new=missing orphaned=unknown " +
		"overlapping=unknown quiet=unknown relocated=due replaced=unknown scoped=unknown waiting=blocked"
)

// restsOnTheVault checks that a plan rests on the vault alone, and says so.
func (r *reviewer) restsOnTheVault(why string) {
	r.t.Helper()
	report := r.report(r.run(0, "-format", "json"))
	changes, states := map[string]string{"old": ""}, map[string]string{}
	for _, p := range report.PATs {
		changes[p.Name], states[p.Name] = "", p.State
	}
	for _, c := range report.Changes {
		changes[c.PAT] += c.Action
	}
	same(r.t, words(changes), unlistedChanges)
	same(r.t, words(states), unlistedStates)
	if n := r.cloud.Injector.Count(devops.ServiceName, devops.ListPats); n != 0 {
		r.t.Errorf("Azure DevOps was asked %d times, want never", n)
	}
	if n := len(report.Unmanaged); n != 0 {
		r.t.Errorf("%d unmanaged PATs, want none", n)
	}
	out := r.run(0)
	if n := strings.Count(out, "identity build-bot "); n != 1 {
		r.t.Errorf("the identity is named %d times, want once: %s", n, out)
	}
	for _, want := range []string{why, "7 unknown), at least 0 unmanaged"} {
		if !strings.Contains(out, want) {
			r.t.Errorf("%q is not in %s", want, out)
		}
	}
}

func words(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}

func TestAPlanWithoutTheAppsCredentialRestsOnTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.Federated)
		r.restsOnTheVault("the app alone can use its sign-in")
	})
}

const refused = `{"error":{"code":"Forbidden","message":"no","innererror":{"code":"ForbiddenByRbac"}}}`

func TestAPlanOfAKeyVaultReaderRestsOnTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		r.must(r.cloud.Injector.Inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.GetSecret, Times: -1,
			Mode: faults.Status, Status: http.StatusForbidden,
			Header: map[string]string{"Content-Type": "application/json"}, Body: refused}))
		r.restsOnTheVault("the vault does not let you read its sign-in")
		r.env["ENTRA_CLIENT_CREDENTIAL"], r.env["ENTRA_CERTIFICATE"] = "certificate", "patrol"
		r.restsOnTheVault("the vault does not let you read its sign-in")
	})
}

func TestAPlanUsesASignInFromTheCommandLineWithoutTheAppsCredential(t *testing.T) {
	d := newDesk(t)
	d.person = d.signsIn(htmlclient.Person{User: cloud.User})
	if code := d.run("sign-in", "build-bot"); code != 0 {
		t.Fatalf("exit code %d: %s", code, d.said())
	}
	r := &reviewer{t: t, cloud: d.cloud, env: d.env, credential: d.cloud.Credential(), path: d.env["PATROL_MANIFEST"]}
	r.seed("by hand", 100*24*time.Hour)
	report := r.report(r.run(0, "-format", "json"))
	if n := len(report.Unmanaged); n != 1 {
		t.Errorf("%d unmanaged PATs, want 1", n)
	}
	if len(report.Changes) != 1 || report.Changes[0].Action != "create" {
		t.Errorf("changes %+v, want one: create", report.Changes)
	}
	if len(report.Problems) != 0 {
		t.Errorf("problems %+v, want none", report.Problems)
	}
}

func TestAPlanThatCouldNotReadEverythingSaysSoAndFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		r.cloud.DevOps.SetOffline(cloud.Organization, true)
		out := r.run(1)
		for _, want := range []string{"old ", "release", "12 in the manifest (11 unknown)",
			"identity build-bot in contoso"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in %s", want, out)
			}
		}
		same(t, r.err.String(), "handler: the plan is not complete: "+
			"1 of its sources could not be read, see its problems\n")
	})
}

func TestAPlanShowsASignInThatIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		r.must(r.cloud.Entra.DisableUser(cloud.User, true))
		if found := r.changes(r.run(1, "-format", "json")); found["quiet"] != "sign-in" {
			t.Errorf("the changes are %v", found)
		}
	})
}

func TestAPlanNeedsTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		r.credential = stranger{}
		r.run(1)
		if said := r.err.String(); !strings.Contains(said, "az login --tenant") ||
			strings.Contains(said, "managed identity") {
			t.Errorf("said %s", said)
		}
		r.credential = r.cloud.Credential()
		r.must(r.cloud.Injector.Inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.ListSecrets,
			Mode: faults.Status, Status: http.StatusForbidden, Body: refused}))
		r.run(1)
		if said := r.err.String(); !strings.Contains(said, "Key Vault Secrets User") ||
			strings.Contains(said, "Officer") {
			t.Errorf("said %s", said)
		}
		r.env = map[string]string{}
		r.run(1)
		if said := r.err.String(); !strings.Contains(said, "KEY_VAULT_URL is not set") ||
			!strings.Contains(said, "ENTRA_CLIENT_ID is not set") || strings.Contains(said, "COMMAND_QUEUE") {
			t.Errorf("said %s", said)
		}
	})
}

// noNetwork refuses every call.
type noNetwork struct{ t *testing.T }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s was called", r.Method, r.URL.Host)
	return nil, errors.New("there is no network")
}

func (n noNetwork) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	n.t.Error("a token was asked for")
	return azcore.AccessToken{}, errors.New("there is no network")
}

// offline runs the command with no settings and no network.
func offline(t *testing.T, manifest string, want int, args ...string) (out, err string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pats.yaml")
	if e := os.WriteFile(path, []byte(manifest), 0o600); e != nil {
		t.Fatal(e)
	}
	var o, e bytes.Buffer
	if code := app.Main(t.Context(), append(append([]string{"plan"}, args...), path),
		app.Process{Getenv: func(string) string { return "" }, Out: &o, Err: &e,
			Outside: app.Outside{Transport: noNetwork{t}}, Credential: noNetwork{t}}); code != want {
		t.Fatalf("exit code %d, want %d: %s%s", code, want, &o, &e)
	}
	return strings.ReplaceAll(o.String(), path, "pats.yaml"), strings.ReplaceAll(e.String(), path, "pats.yaml")
}

func TestAPlanShowsTheEntriesThatAreRefusedSingly(t *testing.T) {
	const adopting = "organization: contoso, scopes: [vso.code], adopt: 0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e}\n"
	const manifest = planHead + "  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}\n" +
		"  - {name: b, identity: build-bot, " + adopting + "  - {name: c, identity: build-bot, " + adopting
	out, said := offline(t, manifest, 0, "-offline")
	for _, part := range []string{"1 in the manifest", "Refused entries",
		`adopt of PAT "b" names the same PAT as adopt of PAT "c"`, `adopt of PAT "c" names the same`} {
		if !strings.Contains(out, part) {
			t.Errorf("the plan lacks %q:\n%s", part, out)
		}
	}
	if n := strings.Count(said, "refused: pats.yaml:"); n != 2 {
		t.Errorf("%d lines say refused, want 2:\n%s", n, said)
	}
	out, _ = offline(t, manifest, 0, "-offline", "-format", "json")
	if !strings.Contains(out, `"refused": [`) {
		t.Errorf("the JSON lacks what is refused:\n%s", out)
	}
}

func TestAnOfflinePlanShowsTheScheduleAndCallsNobody(t *testing.T) {
	const manifest = planHead + `  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - name: b
    identity: build-bot
    organization: contoso
    displayName: Bee
    scopes: [vso.build, vso.code]
    lifetime: 6h
    rotateBefore: 3h
    overlap: 1h
`
	out, _ := offline(t, manifest, 0, "-offline")
	same(t, out, `Schedule of pats.yaml
2 in the manifest; nobody was asked what there is.

Schedule
  IDENTITY   PAT  ORGANIZATION  LIFETIME  REPLACED AFTER  OLD ONE ENDS  SCOPES
  build-bot  a    contoso       30d       18d 10h         1d later      vso.code
  build-bot  b    contoso       6h        2h 55m          1h later      vso.build vso.code
`)
	out, _ = offline(t, manifest, 0, "-offline", "-format", "markdown")
	same(t, out, `## Schedule of pats.yaml

2 in the manifest; nobody was asked what there is.

### Schedule

| Identity | PAT | Organization | Lifetime | Replaced after | Old one ends | Scopes |
| --- | --- | --- | --- | --- | --- | --- |
| build-bot | <code>a</code> | contoso | 30d | 18d 10h | 1d later | vso.code |
| build-bot | <code>b</code> | contoso | 6h | 2h 55m | 1h later | vso.build vso.code |
`)
	out, _ = offline(t, manifest, 0, "-offline", "-format", "json")
	same(t, out, `{
  "pats": [
    {
      "name": "a",
      "identity": "build-bot",
      "organization": "contoso",
      "displayName": "a",
      "scopes": [
        "vso.code"
      ],
      "lifetime": "30d",
      "rotateBefore": "10d",
      "overlap": "1d",
      "rotateAfter": "442h"
    },
    {
      "name": "b",
      "identity": "build-bot",
      "organization": "contoso",
      "displayName": "Bee",
      "scopes": [
        "vso.build",
        "vso.code"
      ],
      "lifetime": "6h",
      "rotateBefore": "3h",
      "overlap": "1h",
      "rotateAfter": "175m"
    }
  ]
}
`)
}

func TestAManifestThatCanNotBeUsedShowsAllItsProblems(t *testing.T) {
	for _, args := range [][]string{nil, {"-offline"}, {"-format", "json"}} {
		const manifest = planHead + `  - {name: a_b, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: c, identity: nobody, organization: contoso, scopes: [vso.code], lifetime: soon}
`
		out, said := offline(t, manifest, 2, args...)
		for _, want := range []string{"pats.yaml:6:12: ", "pats.yaml:7:25: ", "pats.yaml:7:86: ", "soon", "a_b",
			"nobody"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in %s", want, said)
			}
		}
		if out != "" {
			t.Errorf("printed %s", out)
		}
	}
}

func TestAPlansCommandLineThatCanNotWorkSaysWhy(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-h"}, 0, "-offline"},
		{[]string{"-format", "yaml"}, 2, "text, json or markdown"},
		{[]string{"-x"}, 2, "-x"},
		{[]string{"a.yaml"}, 2, "name one manifest"},
		{nil, 1, "KEY_VAULT_URL is not set"},
	} {
		manifest := planHead + "  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}\n"
		out, said := offline(t, manifest, tc.code, tc.args...)
		if !strings.Contains(out+said, tc.says) {
			t.Errorf("%v: said %s%s", tc.args, out, said)
		}
	}
}
