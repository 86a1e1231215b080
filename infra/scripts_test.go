package infra_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A stand is a program of a script's (az, curl, azd) that does what a few lines of shell
// say and writes down how it was called.
type stand struct {
	dir string
	env []string
}

// stands makes the programs. In their lines "$*" is the call and $n how many calls with
// the same words there were before.
func stands(t *testing.T, programs map[string]string, env ...string) stand {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("NOTICE: the scripts are not tried: there is no sh")
	}
	s := stand{dir: t.TempDir(), env: append([]string{"PAUSE=0", "HOME=" + t.TempDir()}, env...)}
	for name, lines := range programs {
		script := "#!/bin/sh\ncall=$(printf '%s' \"" + name + " $*\" | tr '\\n' ' ')\n" +
			"n=$(grep -cxF \"$call\" \"$CALLS\" 2>/dev/null)\necho \"$call\" >>\"$CALLS\"\n" + lines
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// run runs a script in the project's folder.
func (s stand) run(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", args...)
	cmd.Dir = ".."
	cmd.Env = append(slices.Clone(s.env), "CALLS="+filepath.Join(s.dir, "calls"),
		"PATH="+s.dir+":/usr/bin:/bin")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// calls are those of a program.
func (s stand) calls(t *testing.T, having string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(data)) {
		if strings.Contains(l, having) {
			all = append(all, strings.TrimSpace(l))
		}
	}
	return all
}

var theApp = []string{"AZURE_RESOURCE_GROUP=rg-contoso", "PATROL_FUNCTION_APP=func-contoso"}

func TestTheUploadIsTriedAgainWhileARoleIsYoung(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, az string
		calls    int
		fails    bool
	}{
		{"twice 403, then taken", `[ "$n" -ge 2 ] || { echo "ERROR: Status Code: 403" >&2; exit 1; }`, 3, false},
		{"403 for ever", `echo "ERROR: Operation returned an invalid status 'Forbidden'" >&2; exit 1`, 8, true},
		{"another failure", `echo "ERROR: 400, the zip is broken" >&2; exit 1`, 1, true},
		{"taken at once", ``, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := stands(t, map[string]string{"az": tc.az}, theApp...)
			out, err := s.run(t, "infra/environments/upload.sh", "dist/app.zip")
			if (err != nil) != tc.fails {
				t.Errorf("it ended with %v, want a failure: %v\n%s", err, tc.fails, out)
			}
			if n := len(s.calls(t, "config-zip")); n != tc.calls {
				t.Errorf("%d uploads, want %d\n%s", n, tc.calls, out)
			}
		})
	}
}

// The deploying identity may act on the app and on nothing else.
func TestADeploymentAsksForTheAppByItsName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"environments/upload.sh", "environments/deployed.sh",
		"../.github/workflows/deploy.yml", "../.azuredevops/azure-pipelines.yml"} {
		if strings.Contains(readFile(t, name), "functionapp list") {
			t.Errorf("%s lists the apps of a group: that takes more than Website Contributor on the app", name)
		}
	}
	s := stands(t, map[string]string{"az": ""})
	out, err := s.run(t, "infra/environments/upload.sh", "dist/app.zip")
	if err == nil || !strings.Contains(out, "AZURE_RESOURCE_GROUP") {
		t.Errorf("without the app's name it ends with %v and says %q", err, out)
	}
}

func TestADeploymentEndsWhenItsOwnVersionRuns(t *testing.T) {
	t.Parallel()
	const az = `case "$*" in
*defaultHostName*) echo func-contoso.azurewebsites.net ;;
*"keys list"*) echo the-key ;;
esac`
	// curl answers health by $HEALTH, and status with an old commit before the third time.
	const curl = `for a; do case $p in -o) file=$a ;; esac; p=$a; done
case "$*" in
*/api/health) [ "$HEALTH" = 200 ] && echo '{"status":"ok"}' >"$file" || echo '{"status":"sign-in required"}' >"$file"
  printf %s "$HEALTH" ;;
*/api/status) cat >>"$CALLS.stdin"
  commit=$OLD; [ "$n" -lt 2 ] || commit=$NEW
  echo "{\"build\":{\"version\":\"v1\",\"commit\":\"$commit\"}}" >"$file" ;;
esac`
	file := filepath.Join(t.TempDir(), "version.json")
	if err := os.WriteFile(file, []byte(`{"commit":"0123456789ab","version":"v1.2.3"}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, health, commit, says string
		fails                      bool
	}{
		{"healthy and new", "200", "0123456789ab", "func-contoso runs patrol v1.2.3 (0123456789ab), health 200", false},
		{"nobody has signed in yet", "503", "0123456789ab", "health 503", false},
		{"another commit runs", "200", "ba9876543210", "runs the commit ba9876543210, not 0123456789ab", true},
		{"never healthy", "500", "0123456789ab", "its last answer was 500", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := stands(t, map[string]string{"az": az, "curl": curl}, append([]string{"HEALTH=" + tc.health,
				"OLD=ba9876543210", "NEW=" + tc.commit}, theApp...)...)
			out, err := s.run(t, "infra/environments/deployed.sh", file)
			if (err != nil) != tc.fails {
				t.Errorf("it ended with %v, want a failure: %v\n%s", err, tc.fails, out)
			}
			if !strings.Contains(out, tc.says) {
				t.Errorf("it says %q, want %q", out, tc.says)
			}
			if calls := s.calls(t, "the-key"); len(calls) > 0 {
				t.Errorf("the key is in an argument, where others see it: %q", calls)
			}
		})
	}
}

// registering has a directory in which the app registration is there at once and its other
// name two tries later.
const registering = `case "$*" in
"account show"*) echo "$TENANT" ;;
*microsoftGraphResourceId*) echo https://graph.example/ ;;
*activeDirectory*) echo https://login.example ;;
*oauth2PermissionScopes*) echo 11111111-2222-3333-4444-555555555555 ;;
*uniqueName*GET*|*GET*uniqueName*) [ "$n" -ge 1 ] || { echo "ERROR: 404" >&2; exit 1; }; echo client ;;
*GET*federatedIdentityCredentials*) echo "$KNOWN" ;;
*POST*federatedIdentityCredentials*|*PATCH*federatedIdentityCredentials/*)
  [ "$n" -ge 2 ] || { echo "ERROR: 404" >&2; exit 1; } ;;
esac`

func registration(tenant, known string) []string {
	return []string{"TENANT=" + tenant, "KNOWN=" + known, "AZURE_TENANT_ID=home", "AZURE_ENV_NAME=contoso",
		"PATROL_REDIRECT_URI=https://app.example/api/signin/callback", "PATROL_IDENTITY_PRINCIPAL_ID=principal"}
}

// Graph documents a federated credential under an application's id or its appId, and what
// was made a moment ago is not known everywhere yet.
func TestTheRegistrationIsMadeByAppIDAndInSeveralTries(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, known, method, path string }{
		{"made", "", "POST", "applications(appId='client')/federatedIdentityCredentials "},
		{"brought up to date", "fic", "PATCH", "applications(appId='client')/federatedIdentityCredentials/fic "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := stands(t, map[string]string{"az": registering}, registration("home", tc.known)...)
			out, err := s.run(t, "infra/entra/register.sh")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			calls := s.calls(t, "--method "+tc.method+" --url https://graph.example/v1.0/"+tc.path)
			if len(calls) != 3 {
				t.Errorf("the credential was sent %d times, want 3: two are refused\n%s", len(calls), out)
			}
			if !strings.Contains(out, "PATROL_ENTRA_CLIENT_ID=client") {
				t.Errorf("it does not name the client id: %s", out)
			}
			if tooMuch := s.calls(t, "uniqueName='patrol-contoso')/federated"); len(tooMuch) > 0 {
				t.Errorf("a credential is asked for in a way that is not documented: %q", tooMuch)
			}
		})
	}
}

func TestARegistrationInAnotherTenantIsRefused(t *testing.T) {
	t.Parallel()
	s := stands(t, map[string]string{"az": registering}, registration("elsewhere", "")...)
	out, err := s.run(t, "infra/entra/register.sh")
	if err == nil || !strings.Contains(out, "az login --tenant home") {
		t.Errorf("it ended with %v and says %q", err, out)
	}
	if calls := s.calls(t, "az rest"); len(calls) > 0 {
		t.Errorf("something was sent all the same: %q", calls)
	}
	if !strings.Contains(readFile(t, "entra/register.ps1"), "az login --tenant $own") {
		t.Error("register.ps1 does not refuse it")
	}
}

// azd clears what a hook prints unless it is interactive, and a run ends with one step.
func TestTheLastHookSaysOneStepAndTheDashboard(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		env       []string
		want, not string
	}{
		{"nothing there", nil, "azd provision", "dashboard"},
		{"no registration", []string{"PATROL_URL=https://app.example"}, "sh infra/entra/register.sh",
			"each identity"},
		{"registered", append([]string{"PATROL_URL=https://app.example", "PATROL_ENTRA_CLIENT_ID=x"}, theApp...),
			"each identity", "register.sh"},
	} {
		out, err := stands(t, nil, tc.env...).run(t, "infra/hooks/next.sh")
		if err != nil {
			t.Fatalf("%s: %v\n%s", tc.name, err, out)
		}
		if n := strings.Count(out, "Next: "); n != 1 {
			t.Errorf("%s: %d next steps, want one\n%s", tc.name, n, out)
		}
		if !strings.Contains(out, tc.want) || strings.Contains(out, tc.not) {
			t.Errorf("%s: want %q and not %q in\n%s", tc.name, tc.want, tc.not, out)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if last := lines[len(lines)-1]; tc.env != nil && !strings.Contains(last, "https://app.example/api/dashboard") {
			t.Errorf("%s: the last line is not the dashboard's address: %s", tc.name, last)
		}
	}
	// The two hooks say the same.
	quoted := func(name string) string {
		return strings.Join(strings.Fields(strings.NewReplacer("./infra/entra/register.ps1", "R",
			"sh infra/entra/register.sh", "R", "$env:", "$", "{", "", "}", "", ":-", "").
			Replace(readFile(t, name))), " ")
	}
	for _, sentence := range []string{
		"Next: the app registration that people sign in to. Who may make one runs R and then: azd provision",
		"Next: each identity of pats.yaml signs in once", "dashboard $PATROL_URL/api/dashboard"} {
		for _, name := range []string{"hooks/next.sh", "hooks/next.ps1"} {
			if !strings.Contains(quoted(name), sentence) {
				t.Errorf("%s does not say %q", name, sentence)
			}
		}
	}
}
