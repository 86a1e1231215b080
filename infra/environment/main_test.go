package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// world is what the command works with in a test: files, azd's environment, and az.
type world struct {
	outside
	out   bytes.Buffer
	azd   map[string]string
	calls []string
	// app is what the deployed app has as ENTRA_CLIENT_ID; err: az fails.
	app string
	err error
}

func newWorld(t *testing.T, file string) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "environments"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../main.bicep")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main.bicep", string(data))
	if file != "" {
		write("environments/contoso.json", file)
	}
	w := &world{azd: map[string]string{"AZURE_ENV_NAME": "contoso"}}
	w.outside = outside{infra: dir, out: &w.out, getenv: func(name string) string { return w.azd[name] },
		command: func(_ context.Context, name string, args ...string) (string, error) {
			w.calls = append(w.calls, name+" "+strings.Join(args, " "))
			switch {
			case name == "az":
				return w.app, w.err
			case name == "azd" && slices.Equal(args[:3], []string{"env", "set", "--"}) && len(args) == 5:
				w.azd[args[3]] = args[4]
				return "", nil
			}
			return "", fmt.Errorf("nobody has %s %q", name, args)
		}}
	return w
}

func parametersFile(values string) string {
	return `{"$schema":"x","contentVersion":"1.0.0.0","parameters":{"environmentName":{"value":"contoso"},` +
		`"location":{"value":"westeurope"}` + values + `}}`
}

// Whatever an environment's file gives to az by its form, azd takes from its own
// environment by main.parameters.json: the two must come to the same.
func TestAzdGetsWhatAzReads(t *testing.T) {
	t.Parallel()
	file := parametersFile(`,"alertEmail":{"value":"a@contoso.com"},"vnetEnabled":{"value":true},` +
		`"maximumInstanceCount":{"value":50},"azureDevOpsUrl":{"value":"https://devops.example"},` +
		`"tags":{"value":{"owner":"payments"}},"actionGroupIds":{"value":["/subscriptions/a"]}`)
	w := newWorld(t, file)
	w.azd["PATROL_ALERT_EMAIL"] = "old@contoso.com"
	if err := run(t.Context(), []string{"azd"}, w.outside); err != nil {
		t.Fatal(err)
	}
	all, err := w.read("contoso")
	if err != nil {
		t.Fatal(err)
	}
	taken := substituted(t, w.azd)
	for p, v := range all {
		if taken[p] != text(v) {
			t.Errorf("%s: azd deploys %q, az %q", p, taken[p], text(v))
		}
	}
	// A map without a value would be no JSON.
	if taken["names"] != "{}" {
		t.Errorf("azd deploys the names %q, want {}", taken["names"])
	}
}

// substituted are the parameters as azd makes them from its environment.
func substituted(t *testing.T, env map[string]string) map[string]string {
	t.Helper()
	data, err := os.ReadFile("../main.parameters.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Parameters map[string]struct{ Value string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^\$\{([A-Z_]+)(?:=(.*))?\}$`)
	out := map[string]string{}
	for p, v := range file.Parameters {
		m := form.FindStringSubmatch(v.Value)
		if m == nil {
			t.Fatalf("main.parameters.json: %s is not taken from a variable: %s", p, v.Value)
		}
		out[p] = m[2]
		if value, ok := env[m[1]]; ok {
			out[p] = value
		}
	}
	return out
}

// A parameter that azd cannot be given would be reset by it.
func TestEveryParameterHasItsVariable(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../main.bicep")
	if err != nil {
		t.Fatal(err)
	}
	taken := substituted(t, nil)
	for _, m := range declaration.FindAllSubmatch(data, -1) {
		if _, ok := taken[string(m[1])]; !ok {
			t.Errorf("main.parameters.json does not take %s from %s", m[1], variable(string(m[1])))
		}
	}
}

func TestFilesThatAreCommittedCanBeDeployed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../environments/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no environment: %v", err)
	}
	for _, name := range files {
		environment := strings.TrimSuffix(filepath.Base(name), ".json")
		if _, err := (outside{infra: ".."}).read(environment); err != nil {
			t.Error(err)
		}
	}
}

func TestAFileThatDoesNotFitIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, file, want string }{
		{"misspelt", parametersFile(`,"alertMail":{"value":"x"}`), "main.bicep has no parameter alertMail"},
		{"without a value", parametersFile(`,"alertEmail":{}`), "alertEmail has no value"},
		{"of another environment", strings.Replace(parametersFile(""), `"contoso"`, `"fabrikam"`, 1),
			`environmentName must be "contoso"`},
		{"without a region", `{"parameters":{"environmentName":{"value":"contoso"}}}`, "location is missing"},
		{"of another form", `{"alertEmail":"x"}`, "is no file of parameters"},
	} {
		w := newWorld(t, tc.file)
		err := run(t.Context(), []string{"check", "contoso"}, w.outside)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// Settings are replaced as a whole: an empty client id would take the sign-in away.
func TestTheClientIDOfAnAppThatHasOneIsNotEmptied(t *testing.T) {
	t.Parallel()
	app := map[string]string{"PATROL_FUNCTION_APP": "func-contoso", "AZURE_RESOURCE_GROUP": "rg-contoso"}
	const with = `,"entraClientId":{"value":"id"}`
	const empty = `,"entraClientId":{"value":""}`
	for _, tc := range []struct {
		name, file string
		args       []string
		env        map[string]string
		app        string
		err        error
		refused    string
	}{
		{name: "the file has none, the app has", file: parametersFile(""), args: []string{"check", "contoso"},
			env: app, app: "id\n", refused: "func-contoso has ENTRA_CLIENT_ID id and this deployment would empty it"},
		{name: "the file empties it", file: parametersFile(empty), args: []string{"azd"}, env: app, app: "id\n",
			refused: "would empty it"},
		{name: "neither has one", file: parametersFile(""), args: []string{"check", "contoso"}, env: app, app: "\n"},
		{name: "the file has it", file: parametersFile(with), args: []string{"check", "contoso"}, env: app, app: "id"},
		{name: "azd has it", file: parametersFile(""), args: []string{"azd"},
			env: map[string]string{"PATROL_ENTRA_CLIENT_ID": "id", "PATROL_FUNCTION_APP": "a",
				"AZURE_RESOURCE_GROUP": "g"}, app: "id"},
		{name: "there is no file, azd has none", args: []string{"azd"}, env: app, app: "id", refused: "would empty it"},
		{name: "there is no app yet", file: parametersFile(""), args: []string{"check", "contoso"}, env: app,
			err: errors.New("(ResourceNotFound) it is not there")},
		{name: "nobody has deployed yet", file: parametersFile(""), args: []string{"check", "contoso"}},
		{name: "az fails", file: parametersFile(""), args: []string{"check", "contoso"}, env: app,
			err: errors.New("az login"), refused: "az login"},
	} {
		w := newWorld(t, tc.file)
		maps.Copy(w.azd, tc.env)
		w.app, w.err = tc.app, tc.err
		err := run(t.Context(), tc.args, w.outside)
		switch {
		case tc.refused == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.refused)
		}
	}
}

func TestWhatAPipelineWouldResetIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parametersFile(`,"alertEmail":{"value":"a@contoso.com"}`))
	w.azd["PATROL_LOG_LEVEL"] = "debug"
	if err := run(t.Context(), []string{"azd"}, w.outside); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(w.out.String(), "PATROL_LOG_LEVEL is in azd's environment only: put logLevel into the file") {
		t.Errorf("it says %q", w.out.String())
	}
	before := len(w.calls)
	if err := run(t.Context(), []string{"azd"}, w.outside); err != nil {
		t.Fatal(err)
	}
	if more := w.calls[before:]; len(more) > 0 {
		t.Errorf("the second time azd is told again: %q", more)
	}
}

func TestTerraformGetsItsOwnNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parametersFile(`,"azureDevOpsVsspsUrl":{"value":"https://x"},"vnetEnabled":{"value":true}`))
	if err := run(t.Context(), []string{"terraform", "contoso"}, w.outside); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(w.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"environment_name": "contoso", "location": "westeurope",
		"azure_devops_vssps_url": "https://x", "vnet_enabled": true}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAWrongCallSaysHow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, parametersFile(""))
	if err := run(t.Context(), []string{"deploy"}, w.outside); err == nil || !strings.Contains(err.Error(), "Usage") {
		t.Errorf("it says %v", err)
	}
	err := run(t.Context(), []string{"get", "contoso", "location"}, w.outside)
	if err != nil || w.out.String() != "westeurope\n" {
		t.Errorf("get gives %q, %v", w.out.String(), err)
	}
}
