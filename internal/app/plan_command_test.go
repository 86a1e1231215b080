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

// reviewer is an operator who looks at plans, beside a cloud with PATs.
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
	r.managed("due", 21*day, nil)
	r.managed("moved", 30*day, map[string]string{"patrol-identity": "old-bot"})
	r.managed("orphaned", 30*day, nil)
	r.seed("orphaned (patrol "+rotation.VaultTag(c.VaultHost())+"-aaaaaaaaaa)", 30*day)
	r.managed("overlapping", 30*day,
		map[string]string{"patrol-previous": r.seed("overlapping (patrol xxxxxx-0123456789)", 30*day),
			"patrol-revoke-previous-at": at(10*day + 6*time.Hour)})
	r.managed("quiet", 30*day, nil)
	r.managed("relocated", 30*day, map[string]string{"ProviderAddress": r.env["AZURE_DEVOPS_URL"] + "/fabrikam"})
	r.managed("replaced", 30*day, map[string]string{"patrol-previous": r.seed("replaced (patrol xxxxxx-0123456789)",
		30*day), "patrol-revoke-previous-at": at(9*day + 12*time.Hour)})
	r.managed("scoped", 30*day, nil)
	r.managed("old", 30*day, nil)
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

// managed makes a PAT as patrol leaves it, but for some tags.
func (r *reviewer) managed(name string, life time.Duration, tags map[string]string) {
	r.t.Helper()
	marked := name + " (patrol " + rotation.VaultTag(r.cloud.VaultHost()) + "-0123456789)"
	id, token := r.cloud.DevOps.Seed(cloud.Organization, cloud.User, marked, "vso.code", time.Now().Add(life), false)
	all := map[string]string{"CredentialId": id, "ProviderAddress": r.env["AZURE_DEVOPS_URL"] + "/" +
		cloud.Organization, "ValidityPeriodDays": "30",
		"patrol-rotation": "0123456789", "patrol-identity": cloud.Identity, "patrol-reason": "provision",
		"patrol-announced-at": time.Now().UTC().Format(time.RFC3339)}
	maps.Copy(all, tags)
	r.put(keyvault.Version{Name: name, Value: token, Tags: all, Expires: time.Now().Add(life)})
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
	got = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).ReplaceAllString(got, "GUID")
	if want = strings.ReplaceAll(want, "'", "`"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAPlanSaysWhatASweepWouldDoAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		same(t, r.run(0), `Plan for pats.yaml
Changes: 1 create, 4 rotate, 1 adopt, 2 revoke, 1 revoke-orphan, 1 release, 1 refuse, 1 sign-in. 12 in the manifest, at least 5 unmanaged.

Changes
  ACTION         PAT          WHEN                    WHY
  adopt          adopted      now                     exactly one active PAT bears the declared name
  refuse         ambiguous    -                       2 active PATs are named "ambiguous": say which one the secret holds with 'adopt: <authorization id>' in the manifest; candidates: GUID, GUID
  rotate         due          now                     expiring: due since 2000-01-09T18:07:57Z
  rotate         moved        now                     drift: the manifest moved the PAT from identity old-bot to build-bot
  create         new          now                     provision: the vault has no such secret yet
  release        old          ends 2000-01-31 00:00Z  it is no longer in the manifest: patrol lets it run out, and revokes nothing
  revoke-orphan  orphaned     now                     no version of the secret knows this PAT of an interrupted attempt
  revoke         overlapping  2000-01-11 06:00Z       the overlap of the replaced PAT ends
  rotate         relocated    now                     drift: the manifest moved the PAT from https://dev.azure.com/fabrikam to https://dev.azure.com/contoso
  revoke         replaced     now                     the overlap ended at 2000-01-10T12:00:00Z
  rotate         scoped       now                     drift: the manifest asks for scopes vso.build vso.code, the PAT has vso.code
  sign-in        waiting      -                       nobody has signed in as late-bot@contoso.com (not-signed-in)

Warnings
  KIND       PAT                                                 OWNER                 ENDS               WHY
  unmanaged  my|'laptop'  [31m<b>@all</b> # #vso[task.complete]  build-bot in contoso  2000-01-13 00:00Z  valid in all organizations: stops working on 2026-12-01; may do all that its user may; ends soon, and nothing replaces it

Problems
  WHERE                         WHAT
  identity late-bot in contoso  nobody has signed in as late-bot@contoso.com (not-signed-in)
`)
		same(t, r.run(0, "-format", "markdown", r.path), `## Plan for pats.yaml

Changes: 1 create, 4 rotate, 1 adopt, 2 revoke, 1 revoke-orphan, 1 release, 1 refuse, 1 sign-in. 12 in the manifest, at least 5 unmanaged.

### Changes

| Action | PAT | When | Why |
| --- | --- | --- | --- |
| adopt | <code>adopted</code> | now | exactly one active PAT bears the declared name |
| refuse | <code>ambiguous</code> | - | 2 active PATs are named "ambiguous": say which one the secret holds with &#96;adopt: &#60;authorization id&#62;&#96; in the manifest; candidates: GUID, GUID |
| rotate | <code>due</code> | now | expiring: due since 2000-01-09T18:07:57Z |
| rotate | <code>moved</code> | now | drift: the manifest moved the PAT from identity old-bot to build-bot |
| create | <code>new</code> | now | provision: the vault has no such secret yet |
| release | <code>old</code> | ends 2000-01-31 00:00Z | it is no longer in the manifest: patrol lets it run out, and revokes nothing |
| revoke-orphan | <code>orphaned</code> | now | no version of the secret knows this PAT of an interrupted attempt |
| revoke | <code>overlapping</code> | 2000-01-11 06:00Z | the overlap of the replaced PAT ends |
| rotate | <code>relocated</code> | now | drift: the manifest moved the PAT from https://dev.azure.com/fabrikam to https://dev.azure.com/contoso |
| revoke | <code>replaced</code> | now | the overlap ended at 2000-01-10T12:00:00Z |
| rotate | <code>scoped</code> | now | drift: the manifest asks for scopes vso.build vso.code, the PAT has vso.code |
| sign-in | <code>waiting</code> | - | nobody has signed in as late-bot&#64;contoso.com (not-signed-in) |

### Warnings

| Kind | PAT | Owner | Ends | Why |
| --- | --- | --- | --- | --- |
| unmanaged | <code>my&#124;&#96;laptop&#96;  &#91;31m&#60;b&#62;&#64;all&#60;/b&#62; &#35; &#35;vso&#91;task.complete&#93;</code> | build-bot in contoso | 2000-01-13 00:00Z | valid in all organizations: stops working on 2026-12-01; may do all that its user may; ends soon, and nothing replaces it |

### Problems

| Where | What |
| --- | --- |
| identity late-bot in contoso | nobody has signed in as late-bot&#64;contoso.com (not-signed-in) |
`)

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

// what the vault alone tells of planManifest.
const (
	hiddenChanges = "adopted= ambiguous= due=rotate moved=rotate new=create old=release orphaned= overlapping=revoke quiet= relocated=rotate replaced= scoped= waiting=sign-in"
	hiddenStates  = "adopted=unknown ambiguous=unknown due=due moved=due new=missing orphaned=unknown overlapping=unknown quiet=unknown relocated=due replaced=unknown scoped=unknown waiting=blocked"
)

// hidden sees that a plan rests on the vault alone, and says so.
func (r *reviewer) hidden(why string) {
	r.t.Helper()
	report := r.report(r.run(0, "-format", "json"))
	changes, states := map[string]string{"old": ""}, map[string]string{}
	for _, p := range report.PATs {
		changes[p.Name], states[p.Name] = "", p.State
	}
	for _, c := range report.Changes {
		changes[c.PAT] += c.Action
	}
	same(r.t, words(changes), hiddenChanges)
	same(r.t, words(states), hiddenStates)
	if n := r.cloud.Injector.Count(devops.ServiceName, devops.ListPats); n != 0 || len(report.Unmanaged) != 0 {
		r.t.Errorf("Azure DevOps was asked %d times", n)
	}
	if out := r.run(0); strings.Count(out, "identity build-bot ") != 1 || !strings.Contains(out, why) ||
		!strings.Contains(out, "7 unknown), at least 0 unmanaged") {
		r.t.Errorf("said %s", out)
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
		r.hidden("the app alone can use its sign-in")
	})
}

const refused = `{"error":{"code":"Forbidden","message":"no","innererror":{"code":"ForbiddenByRbac"}}}`

func TestAPlanOfAKeyVaultReaderRestsOnTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewer(t, cloud.PublicClient)
		r.must(r.cloud.Injector.Inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.GetSecret, Times: -1,
			Mode: faults.Status, Status: http.StatusForbidden,
			Header: map[string]string{"Content-Type": "application/json"}, Body: refused}))
		r.hidden("the vault does not let you read its sign-in")
		r.env["ENTRA_CLIENT_CREDENTIAL"], r.env["ENTRA_CERTIFICATE"] = "certificate", "patrol"
		r.hidden("the vault does not let you read its sign-in")
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
	if len(report.Unmanaged) != 1 || len(report.Changes) != 1 || report.Changes[0].Action != "create" ||
		len(report.Problems) != 0 {
		t.Errorf("the plan is %+v", report)
	}
}

func TestAPlanThatCouldNotLookEverywhereIsToldAndFails(t *testing.T) {
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
		same(t, r.err.String(), "handler: the plan is not complete: 1 could not be looked at\n")
	})
}

func TestAPlanTellsOfASignInThatIsDead(t *testing.T) {
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

func TestAnOfflinePlanShowsTheScheduleAndCallsNobody(t *testing.T) {
	const manifest = planHead + `  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: b, identity: build-bot, organization: contoso, displayName: Bee, scopes: [vso.build, vso.code], lifetime: 6h, rotateBefore: 3h, overlap: 1h}
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
		out,
			said := offline(t, planHead+`  - {name: a_b, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: c, identity: nobody, organization: contoso, scopes: [vso.code], lifetime: soon}
`, 2, args...)
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
		out,
			said := offline(t, planHead+
			"  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}\n", tc.code, tc.args...)
		if !strings.Contains(out+said, tc.says) {
			t.Errorf("%v: said %s%s", tc.args, out, said)
		}
	}
}
