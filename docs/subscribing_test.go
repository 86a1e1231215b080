package docs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

// snippets gives the blocks of a page that are in a language.
func snippets(t *testing.T, page, language string) []string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no snippet in %s", page, language)
	}
	return out
}

// golden is the first of the golden confirmations.
type goldenConfirmation struct{ Value, PAT, SecretVersion, Consumer, Proof string }

func readGolden(t *testing.T) goldenConfirmation {
	t.Helper()
	b, err := os.ReadFile("../events/testdata/confirmations.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []goldenConfirmation
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all[0]
}

func TestTheProofIsTheSameInEveryLanguageOfThePage(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	for _, tt := range []struct {
		language, file string
		command        []string
	}{
		{"go", "main.go", []string{"go", "run", "main.go"}},
		{"js", "proof.mjs", []string{"node", "proof.mjs"}},
		{"python", "proof.py", []string{"python3", "proof.py"}},
		{"bash", "proof.sh", []string{"bash", "proof.sh"}},
	} {
		t.Run(tt.language, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(tt.command[0]); err != nil {
				t.Skipf("%s is not installed", tt.command[0])
			}
			dir := t.TempDir()
			write(t, dir, tt.file, snippets(t, "subscribing.md", tt.language)[0])
			if tt.language == "go" {
				consumerModule(t, dir)
			}
			cmd := exec.CommandContext(t.Context(), tt.command[0], tt.command[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "PAT="+g.PAT,
				"VERSION="+g.SecretVersion, "CONSUMER="+g.Consumer, "VALUE="+g.Value)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v", tt.command, err)
			}
			if got := strings.TrimSpace(string(out)); got != g.Proof {
				t.Errorf("proof %q, want %q", got, g.Proof)
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// consumerModule makes a folder a module that imports events and nothing else.
func consumerModule(t *testing.T, dir string) {
	t.Helper()
	here, err := filepath.Abs("../events")
	if err != nil {
		t.Fatal(err)
	}
	const path = "github.com/azure-patrol/patrol/events"
	write(t, dir, "go.mod", "module example.com/consumer\n\ngo 1.26.0\n\nrequire "+path+" v0.0.0\n\nreplace "+path+
		" => "+here+"\n")
}

func TestCommandsOfThePageAreReadByAShell(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"sh", "bash"} {
		for _, text := range snippets(t, "subscribing.md", language) {
			cmd := exec.CommandContext(t.Context(), "bash", "-n")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s\n%s", err, out, text)
			}
		}
	}
}

func TestThePageShowsEachEventAsItIsOnTheWire(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, text := range snippets(t, "subscribing.md", "json") {
		e, err := events.Decode([]byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		shown = append(shown, e.Type)
		fixture, err := os.ReadFile("../events/testdata/events/" + e.Type + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := compact(t, text), compact(t, string(fixture)); got != want {
			t.Errorf("%s: the page has\n%s\nwant the fixture\n%s", e.Type, got, want)
		}
	}
	slices.Sort(shown)
	want := slices.Sorted(slices.Values(append(events.Types(), events.TypeConfirmed)))
	if !slices.Equal(shown, want) {
		t.Errorf("samples of\n %q, want\n %q", shown, want)
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTheFiltersOfThePageAreFilters(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("subscribing.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	_, table, _ := strings.Cut(page, "| filter | lets through |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	var filters []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(.*?)` \\|").FindAllStringSubmatch(table, -1) {
		filters = append(filters, m[1])
	}
	for _, m := range regexp.MustCompile(`--filter-sql-expression "(.*)"`).FindAllStringSubmatch(page, -1) {
		filters = append(filters, m[1])
	}
	for _, f := range filters {
		if _, err := broker.ParseSQL(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	if len(filters) < 6 {
		t.Errorf("%d filters were found: the test looks in the wrong place", len(filters))
	}
}
