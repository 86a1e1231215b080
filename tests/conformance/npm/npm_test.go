package npm_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/azure-patrol/patrol/tests/conformance/npm"
)

var files = fstest.MapFS{"server/package.json": {Data: []byte("{}")}}

func TestWithoutNodeTheMessageSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := npm.Install(t.Context(), io.Discard, files, "server"); err == nil ||
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
		if _, err := npm.Install(t.Context(), io.Discard, files, "server"); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func TestALockFileThatNamesARegistryIsFound(t *testing.T) {
	const good = `{"packages":{"":{},"node_modules/a":{"version":"1.0.0","integrity":"sha512-x"}}}`
	for name, c := range map[string]struct{ lock, want string }{
		"as it must be":   {good, ""},
		"another version": {strings.Replace(good, "1.0.0", "1.0.1", 1), `a has version "1.0.1", want 1.0.0`},
		"a place": {strings.Replace(good, `"integrity"`, `"resolved":"https://x/a.tgz","integrity"`, 1),
			"resolved"},
		"a weak digest": {strings.Replace(good, "sha512-", "sha1-", 1), "sha1-"},
	} {
		files := fstest.MapFS{"server/package-lock.json": {Data: []byte(c.lock)}}
		err := npm.CheckLock(files, "server", "a", "1.0.0")
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: error %v, want one that says %q", name, err, c.want)
		}
	}
}
