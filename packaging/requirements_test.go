package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// lines are what a command of the go tool prints in the project's folder.
func lines(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.Fields(string(out))
}

func TestEveryRequirementIsLinkedByTheHandlerOrTheSandbox(t *testing.T) {
	// Read here too, so that a remembered result does not outlive a change of it.
	readFile(t, "..", "go.mod")
	linked := lines(t, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./handler", "./sandbox")
	required := lines(t, "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all")
	if len(required) == 0 {
		t.Fatal("go.mod requires nothing: the check would hold whatever it lists")
	}
	for _, module := range required {
		if !slices.Contains(linked, module) {
			t.Errorf("go.mod requires %s, which only tests use: those that use it belong into tests/", module)
		}
	}
}
