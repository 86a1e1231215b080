package infra_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/web"
)

// graph copies entra/ beside types of our own: those of Microsoft Graph are fetched
// when the real file is built, and a check must not need the network. Ours know the
// types and properties that registration.bicep uses.
func graph(t *testing.T) string {
	t.Helper()
	index, err := filepath.Abs("testdata/graph/index.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := readFile(t, "entra/bicepconfig.json")
	local := regexp.MustCompile(`"br:[^"]+"`).ReplaceAllString(config, `"./graph.tgz"`)
	for name, text := range map[string]string{"bicepconfig.json": local, "registration.bicep": readFile(t,
		"entra/registration.bicep")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, stderr := bicep(t.Context(), compiler(t), dir, "publish-extension", index, "--target",
		filepath.Join(dir, "graph.tgz"))
	if _, err := os.Stat(filepath.Join(dir, "graph.tgz")); err != nil {
		t.Fatalf("the types of our own could not be made: %s", stderr)
	}
	return dir
}

func TestTheRegistrationCompiles(t *testing.T) {
	t.Parallel()
	dir := graph(t)
	template, findings := build(t.Context(), compiler(t), dir, "registration.bicep")
	for _, f := range findings {
		t.Error(f)
	}
	rs := resources(template)
	credential := at(rs["registration::identity"], "properties")
	if at(credential, "subject") != "[parameters('identityPrincipalId')]" {
		t.Errorf("the federated credential is for %v, not for the app's identity", at(credential, "subject"))
	}
	if audiences, _ := at(credential, "audiences").([]any); len(audiences) != 1 ||
		audiences[0] != "api://AzureADTokenExchange" {
		t.Errorf("the federated credential is for the audiences %v", audiences)
	}
	const wantIssuer = "[format('{0}{1}/v2.0', environment().authentication.loginEndpoint, tenant().tenantId)]"
	if issuer, _ := at(credential, "issuer").(string); issuer != wantIssuer {
		t.Errorf("the federated credential has the issuer %s, want %s", issuer, wantIssuer)
	}
	for name, r := range rs {
		for _, secret := range []string{"passwordCredentials", "keyCredentials"} {
			if at(r, "properties", secret) != nil {
				t.Errorf("%s has %s: it is to have no secret", name, secret)
			}
		}
	}
	if got, _ := at(rs["registration"], "properties", "copy").([]any); len(got) == 0 {
		if roles := at(rs["registration"], "properties", "appRoles"); roles == nil {
			t.Error("the registration defines no roles")
		}
	}
	if id := at(rs["assignments"], "properties", "appRoleId"); id == nil {
		t.Error("nobody becomes an administrator of the page")
	}
	if got := at(rs["registration"], "properties", "signInAudience"); got != "AzureADMyOrg" {
		t.Errorf("people of %v may sign in", got)
	}
}

func TestAFaultInTheRegistrationIsFound(t *testing.T) {
	t.Parallel()
	dir := graph(t)
	file := filepath.Join(dir, "registration.bicep")
	text := swap("redirectUris: redirectUris", "redirectUrls: redirectUris")(readFile(t, file))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, findings := build(t.Context(), compiler(t), dir, "registration.bicep"); !strings.Contains(
		strings.Join(findings, "\n"), `BCP089: The property "redirectUrls"`) {
		t.Errorf("found only %q", findings)
	}
}

// The permissions that the app asks for are those that the registration has, by Bicep
// and by both scripts.
func TestTheRegistrationHasThePermissionsThatTheAppAsksFor(t *testing.T) {
	t.Parallel()
	var asked []string
	for _, scope := range append(devops.DefaultScopes(), devops.AdministrationScopes()...) {
		asked = append(asked, scope[strings.LastIndexByte(scope, '/')+1:])
	}
	for _, name := range []string{"entra/registration.bicep", "entra/register.sh", "entra/register.ps1"} {
		source := readFile(t, name)
		var given []string
		for _, s := range regexp.MustCompile(`\bvso\.[a-z_]+`).FindAllString(source, -1) {
			if !slices.Contains(given, s) {
				given = append(given, s)
			}
		}
		for _, problem := range differences(name, given, asked) {
			t.Error(problem)
		}
		for _, fixed := range []string{"499b84ac-1321-427f-aa17-267ca6975798", "api://AzureADTokenExchange",
			"AzureADMyOrg", "/.auth/login/aad/callback", "/api/signin/callback"} {
			if !strings.Contains(source, fixed) {
				t.Errorf("%s does not mention %s", name, fixed)
			}
		}
		if regexp.MustCompile(`(?i)credential reset|passwordCredential|client.?secret`).MatchString(source) {
			t.Errorf("%s makes a secret", name)
		}
	}
}

// The roles of the page are the same ones in Bicep, in both scripts, in the sandbox, and in
// what the app reads of a token.
func TestTheRegistrationHasTheRolesThatThePageKnows(t *testing.T) {
	t.Parallel()
	pair := regexp.MustCompile(`(?s)([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})[^0-9a-f]{1,40}?` +
		`(?:value|Value)[\\":'= ]+(Patrol\.[A-Za-z]+|Reader|Operator|Administrator)\b`)
	rolesIn := func(name string) map[string]string {
		out := map[string]string{}
		for _, m := range pair.FindAllStringSubmatch(readFile(t, name), -1) {
			out["Patrol."+strings.TrimPrefix(m[2], "Patrol.")] = m[1]
		}
		return out
	}
	want := rolesIn("../sandbox/cloud/people.go")
	if got, values := slices.Sorted(maps.Keys(want)), web.RoleValues(); !slices.Equal(got, slices.Sorted(
		slices.Values(values))) {
		t.Fatalf("the sandbox has the roles %q, the page knows %q", got, values)
	}
	for _, name := range []string{"entra/registration.bicep", "entra/register.sh", "entra/register.ps1"} {
		if got := rolesIn(name); !maps.Equal(got, want) {
			t.Errorf("%s has the roles %v, want %v", name, got, want)
		}
		if !strings.Contains(readFile(t, name), "appRoleAssignedTo") {
			t.Errorf("%s gives nobody a role", name)
		}
	}
}

// Every rule of the linter stops the build, but for two.
func TestEveryRuleOfTheLinterIsAnError(t *testing.T) {
	t.Parallel()
	type config struct {
		Analyzers struct {
			Core struct {
				Enabled bool
				Rules   map[string]struct{ Level string }
			}
		}
	}
	var main, entra config
	readJSON(t, "bicepconfig.json", &main)
	readJSON(t, "entra/bicepconfig.json", &entra)
	core := main.Analyzers.Core
	if !core.Enabled || len(core.Rules) < 53 {
		t.Errorf("the linter is on: %v, with %d rules; there are 53 or more", core.Enabled, len(core.Rules))
	}
	for name, r := range core.Rules {
		want := "error"
		if name == "use-description-vars" || name == "use-recent-module-versions" {
			want = "off"
		}
		if r.Level != want {
			t.Errorf("%s is on %q, want %q", name, r.Level, want)
		}
	}
	a, _ := json.Marshal(core)
	b, _ := json.Marshal(entra.Analyzers.Core)
	if string(a) != string(b) {
		t.Error("entra/ has other rules")
	}
}
