package consumers

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/events"
)

const (
	pipelines  = "../../clients/pipelines"
	jobsValue  = "golden0value0of0no0organization0used0to0prove0things"
	jobVersion = "4f9d2c7be1a04d35b86f0a1c9e7d5b23"
)

// fakeCLI answers like the Azure CLI of a job that is signed in.
const fakeCLI = `#!/bin/sh
case "$1 $2" in
"keyvault secret")
  [ "$3 $5 $7" = "show contoso nuget-feed" ] || exit 1
  printf '%s' '{"value": "` + jobsValue + `\n",
    "id": "https://contoso.vault.azure.net/secrets/nuget-feed/` + jobVersion + `"}';;
"account get-access-token") echo '{"accessToken": "a-token"}';;
*) exit 1;;
esac
`

// job runs the step in a job.
func job(t *testing.T, env ...string) (output string, err error) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "az"), []byte(fakeCLI), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "patrol_pat.py")
	cmd.Dir = pipelines
	cmd.Env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"PYTHONDONTWRITEBYTECODE=1", "PATROL_VAULT=contoso", "PATROL_PAT=nuget-feed"}, env...)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func TestAJobReadsThePATAndConfirmsIt(t *testing.T) {
	t.Parallel()
	var got events.Confirmed
	var problem error
	queue := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isSent := r.Method == http.MethodPost && r.URL.Path == "/pat-confirmations/messages"
		if !isSent || r.Header.Get("Authorization") != "Bearer a-token" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		b, _ := io.ReadAll(r.Body)
		got, problem = events.DecodeConfirmation(b)
		w.WriteHeader(http.StatusCreated)
	}))
	defer queue.Close()
	github := filepath.Join(t.TempDir(), "env")
	for _, tt := range []struct {
		name, env, says string
	}{
		{"Azure Pipelines", "TF_BUILD=True", "##vso[task.setvariable variable=NUGET;issecret=true]" + jobsValue + "\n"},
		{"GitHub Actions", "GITHUB_ENV=" + github, "::add-mask::" + jobsValue + "\n"},
	} {
		got = events.Confirmed{}
		out, err := job(t, tt.env, "PATROL_VARIABLE=NUGET", "PATROL_CONSUMER=nightly", "PATROL_NAMESPACE="+queue.URL)
		if err != nil {
			t.Fatalf("%s: %v\n%s", tt.name, err, out)
		}
		if !strings.HasPrefix(out, tt.says) {
			t.Errorf("%s: it begins with %q, want %q: nothing is said before the value is masked", tt.name, out,
				tt.says)
		}
		if strings.Contains(strings.TrimPrefix(out, tt.says), jobsValue) {
			t.Errorf("%s: the value is printed:\n%s", tt.name, out)
		}
		if problem != nil || got.Consumer != "nightly" || got.SecretVersion != jobVersion {
			t.Errorf("%s: confirmed %+v (%v)", tt.name, got, problem)
		}
		if !got.Proves([]byte(jobsValue)) {
			t.Errorf("%s: the proof does not prove", tt.name)
		}
	}
	b, err := os.ReadFile(github)
	if err != nil || string(b) != "NUGET="+jobsValue+"\n" {
		t.Errorf("the later steps' environment is %q (%v)", b, err)
	}
}

func TestAJobThatCannotConfirmHasItsPATAndIsWarned(t *testing.T) {
	t.Parallel()
	queue := httptest.NewServer(http.NotFoundHandler())
	defer queue.Close()
	out, err := job(t, "TF_BUILD=True", "PATROL_CONSUMER=nightly", "PATROL_NAMESPACE="+queue.URL)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, says := range []string{"variable=PATROL_VALUE", "type=warning", "Data Sender"} {
		if !strings.Contains(out, says) {
			t.Errorf("it says\n%s\nwant %q in it", out, says)
		}
	}
}

func TestAJobWithoutAPATFails(t *testing.T) {
	t.Parallel()
	for name, env := range map[string][]string{"another vault": {"TF_BUILD=True", "PATROL_VAULT=fabrikam"},
		"no job": {}, "no name of a variable": {"TF_BUILD=True", "PATROL_VARIABLE=A;B"}} {
		out, err := job(t, env...)
		if err == nil || strings.Contains(out, jobsValue) {
			t.Errorf("%s: error %v, output\n%s", name, err, out)
		}
	}
}

func TestThePipelineStepMakesTheGoldenProofs(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	golden(t, pipelines, "python3", "-B", "-c", `
import json, sys
from patrol_pat import prove
fields = "value", "pat", "secretVersion", "consumer", "outcome"
print(json.dumps([prove(*(g[f] for f in fields)) for g in json.load(sys.stdin)]))`)
}

// What the templates hand to the step is what it reads.
func TestTheTemplatesHandOverWhatTheStepReads(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile(pipelines + "/patrol_pat.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"azure-pipelines.yml", "action.yml"} {
		b, err := os.ReadFile(filepath.Join(pipelines, name))
		if err != nil {
			t.Fatal(err)
		}
		var template any
		if err := yaml.Unmarshal(b, &template); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		flat, err := json.Marshal(template)
		if err != nil {
			t.Fatal(err)
		}
		for _, variable := range []string{"PATROL_VAULT", "PATROL_PAT", "PATROL_VARIABLE", "PATROL_CONSUMER",
			"PATROL_NAMESPACE"} {
			if !strings.Contains(string(flat), `"`+variable+`":"${{ `) {
				t.Errorf("%s does not hand over %s", name, variable)
			}
			if !strings.Contains(string(script), `"`+variable+`"`) {
				t.Errorf("the step does not read %s", variable)
			}
		}
	}
}
