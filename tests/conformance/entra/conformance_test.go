package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWithoutNodeTheMessageSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := install(t.Context(), io.Discard); err == nil ||
		!strings.Contains(err.Error(), "node is missing: install Node 20") {
		t.Errorf("%v", err)
	}
}

func TestAnOldNodeAndAMissingNpmAreNamed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for version, want := range map[string]string{
		"v18.20.0": "node v18.20.0 is too old",
		"nonsense": "too old",
		"v22.1.0":  "npm is missing",
	} {
		script := "#!/bin/sh\necho " + version + "\n"
		if err := os.WriteFile(filepath.Join(dir, "node"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := install(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// Whoever installs has a registry of his own: the lock file pins contents, not
// places.
func TestTheLockFileNamesNoRegistry(t *testing.T) {
	raw, err := files.ReadFile("authority/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Packages map[string]struct {
			Version, Resolved, Integrity string
		} `json:"packages"`
	}
	if err := json.Unmarshal(raw, &lock); err != nil {
		t.Fatal(err)
	}
	if got := lock.Packages["node_modules/oidc-provider"].Version; got != "9.13.3" {
		t.Errorf("oidc-provider %q", got)
	}
	for name, p := range lock.Packages {
		if name != "" && (p.Resolved != "" || !strings.HasPrefix(p.Integrity, "sha512-")) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestTheAuthoritysLastWordsAreKept(t *testing.T) {
	var w tail
	for i := range 3000 {
		if _, err := fmt.Fprintf(&w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.String(); len(got) != tailSize || !strings.HasSuffix(got, "line 2999\n") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-20:])
	}
}
