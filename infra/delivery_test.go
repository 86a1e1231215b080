package infra_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// strictYAML decodes YAML and refuses what nobody asked for.
func strictYAML(t *testing.T, name string, into any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader([]byte(readFile(t, name))))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

type hook struct {
	Shell, Run  string
	Interactive bool
}

type hooks struct{ POSIX, Windows hook }

func TestAzdDeploysWhatPackagingMakes(t *testing.T) {
	t.Parallel()
	var project struct {
		Name             string
		Metadata         struct{ Template string }
		RequiredVersions struct{ Azd string } `yaml:"requiredVersions"`
		Infra            struct{ Provider, Path, Module string }
		Services         map[string]struct {
			Project, Host, Language, Dist string
			Hooks                         struct{ Prepackage hooks }
		}
		Hooks struct{ Preprovision, Postprovision, Postdeploy hooks }
	}
	strictYAML(t, "../azure.yaml", &project)
	if project.Infra.Provider != "bicep" || project.Infra.Path != "infra" || project.Infra.Module != "main" {
		t.Errorf("azd provisions %+v", project.Infra)
	}
	s, ok := project.Services["patrol"] // the name that the site's tag says
	if !ok || len(project.Services) != 1 {
		t.Fatalf("azd's services are %v", project.Services)
	}
	if s.Host != "function" || s.Language != "custom" {
		t.Errorf("azd deploys a %s in %q: only custom takes a zip as it is", s.Host, s.Language)
	}
	// packaging -o X makes X/app.zip.
	if !strings.Contains(readFile(t, "../packaging/main.go"), `filepath.Join(*out, "app.zip")`) {
		t.Fatal("packaging makes another file than this test knows")
	}
	for shell, h := range map[string]hook{"sh": s.Hooks.Prepackage.POSIX, "pwsh": s.Hooks.Prepackage.Windows} {
		out, ok := strings.CutPrefix(h.Run, "go run ./packaging -o ")
		if !ok || out+"/app.zip" != s.Dist || h.Shell != shell {
			t.Errorf("azd deploys %s, and by %s runs %q before", s.Dist, h.Shell, h.Run)
		}
	}
	if makefile := readFile(t, "../Makefile"); !strings.Contains(makefile, "./packaging -o $(DIST)") ||
		!regexp.MustCompile(`(?m)^DIST +\?= dist$`).MatchString(makefile) {
		t.Error("make package makes its files elsewhere than azd does")
	}
	for _, h := range []hook{project.Hooks.Postprovision.POSIX, project.Hooks.Postprovision.Windows,
		project.Hooks.Postdeploy.POSIX, project.Hooks.Postdeploy.Windows} {
		if _, err := os.Stat(filepath.Join("..", h.Run)); err != nil {
			t.Errorf("a hook runs %s: %v", h.Run, err)
		}
		if !h.Interactive {
			t.Errorf("azd clears what %s prints: it is not interactive", h.Run)
		}
	}
	for _, h := range []hook{project.Hooks.Preprovision.POSIX, project.Hooks.Preprovision.Windows} {
		if h.Run != "go run ./infra/environment azd" || !h.Interactive {
			t.Errorf("before it provisions azd does not take infra/environments, or does not show a refusal: %+v", h)
		}
	}
}

// Scripts read nothing but outputs of the deployment and azd's own variables.
func TestScriptsReadWhatTheDeploymentGives(t *testing.T) {
	t.Parallel()
	given := map[string]bool{"AZURE_ENV_NAME": true, "PATROL_ENTRA_CLIENT_ID": true}
	for _, m := range regexp.MustCompile(`(?m)^output ([A-Z_]+) `).FindAllStringSubmatch(readFile(t, "main.bicep"),
		-1) {
		given[m[1]] = true
	}
	for _, name := range []string{"hooks/next.sh", "hooks/next.ps1", "entra/register.sh", "entra/register.ps1",
		"environments/upload.sh", "environments/deployed.sh"} {
		for _, v := range regexp.MustCompile(`\b(?:PATROL|AZURE)_[A-Z_]+\b`).FindAllString(readFile(t, name), -1) {
			if !given[v] {
				t.Errorf("%s reads %s, which the deployment does not give", name, v)
			}
		}
	}
}

type step struct {
	ID   string
	Name string
	Uses string
	Run  string
	If   string
	With map[string]any
	Env  map[string]string
	Dir  string `yaml:"working-directory"`
}

type workflow struct {
	Name        string
	On          any
	Permissions map[string]string
	Concurrency any
	Jobs        map[string]struct {
		RunsOn      string `yaml:"runs-on"`
		Timeout     int    `yaml:"timeout-minutes"`
		Environment string
		Permissions map[string]string
		Steps       []step
	}
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	all := map[string]workflow{}
	for _, name := range files {
		var w workflow
		strictYAML(t, name, &w)
		all[filepath.Base(name)] = w
	}
	return all
}

// A tag can be moved, a commit cannot.
func TestActionsArePinnedByCommit(t *testing.T) {
	t.Parallel()
	pinned := regexp.MustCompile(`^\s*- uses: [A-Za-z0-9-]+/[A-Za-z0-9-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	seen := map[string]string{}
	for name := range workflows(t) {
		for _, l := range strings.Split(readFile(t, "../.github/workflows/"+name), "\n") {
			if !strings.Contains(l, "uses:") {
				continue
			}
			if !pinned.MatchString(l) {
				t.Errorf("%s: not pinned by commit, with its version: %s", name, strings.TrimSpace(l))
				continue
			}
			action, version, _ := strings.Cut(strings.TrimSpace(l), "@")
			if v, ok := seen[action]; ok && v != version {
				t.Errorf("%s: %s has two pins", name, action)
			}
			seen[action] = version
		}
	}
}

func TestWorkflowsMayDoLittle(t *testing.T) {
	t.Parallel()
	expression := regexp.MustCompile(`\$\{\{`)
	for name, w := range workflows(t) {
		if w.Permissions["contents"] != "read" {
			t.Errorf("%s: its permissions are %v, want contents: read and little more", name, w.Permissions)
		}
		for job, j := range w.Jobs {
			if j.Timeout == 0 {
				t.Errorf("%s, %s: it may run for six hours", name, job)
			}
			for _, s := range j.Steps {
				// What others may choose is data for a script, never a part of it.
				if expression.MatchString(s.Run) {
					t.Errorf("%s, %s: an expression in a script: %s", name, job, s.Run)
				}
				if strings.HasPrefix(s.Uses, "actions/checkout@") && s.With["persist-credentials"] != false {
					t.Errorf("%s, %s: the checkout leaves its token behind", name, job)
				}
			}
		}
		if text := readFile(t, "../.github/workflows/"+name); strings.Contains(text, "secrets.") {
			t.Errorf("%s uses a secret: deployments prove themselves by a token of the run", name)
		}
	}
}

func TestEachWorkflowDoesItsPart(t *testing.T) {
	t.Parallel()
	for name, parts := range map[string][]string{
		"ci.yml": {"make test", "az bicep install", "BICEP="},
		"scheduled.yml": {"schedule:", "cron:", "make test", "az bicep install", "BICEP=", "make newest",
			"s/^toolchain go//p", "GOTOOLCHAIN: local"},
		"deploy.yml": {"make package", "azure/login@", "id-token: write", "infra/main.bicep", "dist/app.zip",
			"infra/environment check", "infra/environments/upload.sh", "infra/environments/deployed.sh"},
		"release.yml": {"dist/patrol-*",
			"make release", "sha256sum", "SHA256SUMS", "sbom.cdx.json", "attest-build-provenance@",
			"attestations: write", "govulncheck", "gitleaks"},
	} {
		text := readFile(t, "../.github/workflows/"+name)
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %s is missing", name, part)
			}
		}
	}
}

func TestThePipelineKnowsFlexConsumption(t *testing.T) {
	t.Parallel()
	var pipeline any
	text := readFile(t, "../.azuredevops/azure-pipelines.yml")
	if err := yaml.Unmarshal([]byte(text), &pipeline); err != nil {
		t.Fatal(err)
	}
	found := false
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				visit(e)
			}
		case map[string]any:
			if v["task"] == "AzureFunctionApp@2" {
				found = true
				if at(v, "inputs", "isFlexConsumption") != true || at(v, "inputs", "appType") != "functionAppLinux" {
					t.Errorf("the task deploys to another plan: %v", v["inputs"])
				}
			}
			if v["task"] == "GoTool@0" && at(v, "inputs", "version") != "$(go)" {
				t.Errorf("the pipeline has Go %v, not the toolchain of go.mod", at(v, "inputs", "version"))
			}
			for _, e := range v {
				visit(e)
			}
		}
	}
	visit(pipeline)
	if !found {
		t.Error("the pipeline deploys nothing")
	}
	for _, part := range []string{"s/^toolchain go//p", "infra/environment check",
		"infra/environments/$ENVIRONMENT.json",
		"infra/environments/deployed.sh"} {
		if !strings.Contains(text, part) {
			t.Errorf("the pipeline does not have %s", part)
		}
	}
}

// modules are the folders of the repository's Go modules, from its root.
func modules(t *testing.T) []string {
	t.Helper()
	folders := []string{"."}
	for _, pattern := range []string{"../*/go.mod", "../*/*/go.mod"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			folder, err := filepath.Rel("..", filepath.Dir(f))
			if err != nil {
				t.Fatal(err)
			}
			folders = append(folders, filepath.ToSlash(folder))
		}
	}
	slices.Sort(folders)
	return folders
}

// A module that nobody lists would be neither tested nor kept up to date.
func TestNoModuleIsForgotten(t *testing.T) {
	t.Parallel()
	want := modules(t)

	definition := regexp.MustCompile(`(?m)^(MODULES|ALL) += (.+)$`)
	made := map[string]string{}
	for _, m := range definition.FindAllStringSubmatch(readFile(t, "../Makefile"), -1) {
		made[m[1]] = strings.ReplaceAll(m[2], "$(MODULES)", made["MODULES"])
	}
	got := strings.Fields(made["ALL"])
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the Makefile knows the modules %q, want %q", got, want)
	}

	var dependabot struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directories []string
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, "../.github/dependabot.yml")), &dependabot); err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, u := range dependabot.Updates {
		if u.Ecosystem != "gomod" {
			continue
		}
		for _, d := range u.Directories {
			got = append(got, cmp.Or(strings.TrimPrefix(d, "/"), "."))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("dependabot renews the modules %q, want %q", got, want)
	}
}

// The pipelines install the Go of one of them.
func TestAllModulesAskForTheSameGo(t *testing.T) {
	t.Parallel()
	version := regexp.MustCompile(`(?m)^(?:go|toolchain) (\S+)$`)
	want := version.FindAllString(readFile(t, "../go.mod"), -1)
	if len(want) != 2 {
		t.Fatalf("go.mod says %q: it names the least version, and by toolchain the one that builds", want)
	}
	for _, m := range modules(t) {
		if got := version.FindAllString(readFile(t, filepath.Join("..", m, "go.mod")), -1); !slices.Equal(got, want) {
			t.Errorf("%s/go.mod says %q, and go.mod %q", m, got, want)
		}
	}
}

// Without a toolchain line an action installs the least version that go.mod allows, with
// all its known faults; and what is cached on a runner may be older than the newest patch.
func TestEveryWorkflowBuildsWithTheToolchain(t *testing.T) {
	t.Parallel()
	for name, w := range workflows(t) {
		for job, j := range w.Jobs {
			for _, s := range j.Steps {
				if !strings.HasPrefix(s.Uses, "actions/setup-go@") {
					continue
				}
				if s.With["check-latest"] != true {
					t.Errorf("%s, %s: setup-go takes a Go that the runner has cached", name, job)
				}
				// Which patch is the newest is asked for by the line of versions.
				if job != "toolchain" && s.With["go-version-file"] != "go.mod" {
					t.Errorf("%s, %s: setup-go does not read go.mod", name, job)
				}
			}
		}
		if v := regexp.MustCompile(`actions/setup-go@\S+ # v(\d+)`).FindStringSubmatch(readFile(t,
			"../.github/workflows/"+name)); v != nil && v[1] < "6" {
			t.Errorf("%s: setup-go v%s does not read the toolchain line", name, v[1])
		}
	}
}

// The same parameters come from the same file, whoever deploys.
func TestEnvironmentsAreReadFromTheirFiles(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"../.github/workflows/deploy.yml":     `--parameters "infra/environments/$ENVIRONMENT.json"`,
		"../.azuredevops/azure-pipelines.yml": `--parameters "infra/environments/$ENVIRONMENT.json"`,
		"../docs/deploy.md":                   "--parameters infra/environments/contoso.json",
	} {
		text := readFile(t, name)
		if !strings.Contains(text, part) {
			t.Errorf("%s does not deploy with %s", name, part)
		}
		if given := regexp.MustCompile(`--parameters +\w+=\S+`).FindString(text); given != "" {
			t.Errorf("%s gives %s beside the file: whoever deploys without it resets it", name, given)
		}
	}
}

// The guide names what there is.
func TestTheGuideNamesEveryParameterAndModule(t *testing.T) {
	t.Parallel()
	guide := readFile(t, "../docs/deploy.md")
	var file struct {
		Parameters map[string]json.RawMessage
	}
	readJSON(t, "main.parameters.json", &file)
	for name := range file.Parameters {
		value := at(asMap(t, file.Parameters[name]), "value").(string)
		m := substitution.FindStringSubmatch(strings.TrimSpace(value))
		if m == nil || !strings.Contains(guide, "`"+m[1]+"`") {
			t.Errorf("docs/deploy.md does not explain the variable of %s", name)
		}
	}
	templates, err := filepath.Glob("modules/*.bicep")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range templates {
		if !strings.Contains(guide, "`"+filepath.Base(m)+"`") {
			t.Errorf("docs/deploy.md does not map %s", m)
		}
	}
	for _, id := range roles {
		if role := strings.Fields(id)[1]; !strings.Contains(guide, role) {
			t.Errorf("docs/deploy.md does not name the role %s", role)
		}
	}
}

func asMap(t *testing.T, data json.RawMessage) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
