package events_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/azure-patrol/patrol/events"

// consumer is a module outside of this repository that imports events. It has an
// empty module cache and no proxy: what it needs beyond events cannot be had.
type consumer struct{ dir, cache string }

func newConsumer(t *testing.T) consumer {
	t.Helper()
	c := consumer{dir: t.TempDir(), cache: t.TempDir()}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	// The go tool reads it below. It is read here too, so that a remembered result of
	// this test does not outlive a change of it.
	if _, err := os.ReadFile("go.mod"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod": "module example.com/consumer\n\ngo 1.26.0\n\n" +
			"require " + modulePath + " v0.0.0\n\nreplace " + modulePath + " => " + here + "\n",
		"main.go": "package main\n\nimport \"" + modulePath + "\"\n\n" +
			"func main() { println(len(events.Types())) }\n",
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run gives the lines that the go tool prints.
func (c consumer) run(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOMODCACHE="+c.cache, "GOFLAGS=-buildvcs=false", "GOWORK=off",
		"GOTOOLCHAIN=local")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s, with nothing to download from: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestWhoImportsEventsGetsNoFurtherModule(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	got := c.run(t, "list", "-m", "-f", "{{.Path}}", "all")
	want := []string{"example.com/consumer", modulePath}
	if !slices.Equal(got, want) {
		t.Errorf("modules of a consumer:\n got %q\nwant %q", got, want)
	}
}

func TestWhoImportsEventsBuildsWithoutAProxy(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	c.run(t, "build", "-o", os.DevNull, ".")
}

func TestTheTestsOfEventsNeedTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	c := newConsumer(t)
	got := c.run(t, "list", "-deps", "-test", "-f", "{{with .Module}}{{.Path}}{{end}}", modulePath)
	got = slices.Compact(slices.DeleteFunc(got, func(module string) bool { return module == "" }))
	if want := []string{modulePath}; !slices.Equal(got, want) {
		t.Errorf("modules of the tests:\n got %q\nwant %q", got, want)
	}
}
