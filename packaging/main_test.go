package main

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const standin = "./packaging/testdata/standin"

// pack packages the project with the stand-in for the handler.
func pack(t *testing.T) (out string) {
	t.Helper()
	out = t.TempDir()
	var stderr bytes.Buffer
	if err := run(t.Context(), []string{"-root", "..", "-handler", standin, "-o", out}, io.Discard,
		&stderr); err != nil {
		t.Fatalf("packaging: %v\n%s", err, &stderr)
	}
	return out
}

func readFile(t *testing.T, name ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// appNames are the entries that the app must have and no others.
func appNames() []string {
	names := []string{"handler", "host.json", "pats.yaml"}
	for name := range functions {
		names = append(names, name+"/function.json")
	}
	slices.Sort(names)
	return names
}

func TestPackagingTwiceGivesTheSameBytes(t *testing.T) {
	a, b := pack(t), pack(t)
	for _, name := range []string{"app/handler", "app.zip"} {
		if !bytes.Equal(readFile(t, a, name), readFile(t, b, name)) {
			t.Errorf("%s: the second packaging differs from the first", name)
		}
	}
}

func TestTheHandlerDoesNotDependOnWhereTheCheckoutLies(t *testing.T) {
	elsewhere := t.TempDir()
	if err := os.CopyFS(filepath.Join(elsewhere, "events"), os.DirFS("../events")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", standin + "/main.go"} {
		if err := copyFile(filepath.Join("..", name), filepath.Join(elsewhere, name)); err != nil {
			t.Fatal(err)
		}
	}
	var built [2][]byte
	for i, root := range []string{"..", elsewhere} {
		handler := filepath.Join(t.TempDir(), "handler")
		if err := compile(t.Context(), root, standin, handler, revision{version: "v1"}, worker,
			io.Discard); err != nil {
			t.Fatal(err)
		}
		built[i] = readFile(t, handler)
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("the same source in another folder gives another binary")
	}
}

func TestTheZipHoldsTheAppWithNamesModesAndOneDate(t *testing.T) {
	out := pack(t)
	archive, err := zip.OpenReader(filepath.Join(out, "app.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()

	const madeOnUnix = 3
	date := revisionOf(t.Context(), "..").date
	var names []string
	for _, entry := range archive.File {
		names = append(names, entry.Name)
		want := fs.FileMode(0o644)
		if entry.Name == "handler" {
			want = 0o755
		}
		if entry.Mode() != want {
			t.Errorf("%s: mode %v, want %v", entry.Name, entry.Mode(), want)
		}
		if made := entry.CreatorVersion >> 8; made != madeOnUnix {
			t.Errorf("%s: made on system %d, want %d, or the mode does not count", entry.Name, made, madeOnUnix)
		}
		if !entry.Modified.Equal(date) {
			t.Errorf("%s: dated %v, want %v", entry.Name, entry.Modified, date)
		}
		content, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, readFile(t, out, "app", entry.Name)) {
			t.Errorf("%s: differs from the file in the folder", entry.Name)
		}
	}
	if want := appNames(); !slices.Equal(names, want) {
		t.Errorf("entries\n got %q\nwant %q", names, want)
	}
}

func TestTheFolderHoldsTheAppAndNothingElse(t *testing.T) {
	out := pack(t)
	// What an older packaging left behind goes away.
	stale := filepath.Join(out, "app", "Gone")
	if err := os.Mkdir(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stale, "function.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := assemble("..", filepath.Join(out, "app")); err != nil {
		t.Fatal(err)
	}
	if err := compile(t.Context(), "..", standin, filepath.Join(out, "app", "handler"), revision{version: "v1"}, worker,
		io.Discard); err != nil {
		t.Fatal(err)
	}

	var names []string
	err := fs.WalkDir(os.DirFS(filepath.Join(out, "app")), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		names = append(names, name)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if got, want := info.Mode(), modeOf(name); got != want {
			t.Errorf("%s: mode %v, want %v", name, got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if want := appNames(); !slices.Equal(names, want) {
		t.Errorf("files\n got %q\nwant %q", names, want)
	}
}

func TestTheHandlerIsAStaticLinuxBinaryThatKnowsItsVersion(t *testing.T) {
	handler := filepath.Join(t.TempDir(), "handler")
	t.Setenv("GOFLAGS", "-tags=of-a-developer") // stays outside
	if err := compile(t.Context(), "..", standin, handler, revision{version: "v1.2.3-4-gabcdef"}, worker,
		io.Discard); err != nil {
		t.Fatal(err)
	}

	binary, err := elf.Open(handler)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	if binary.Machine != elf.EM_X86_64 {
		t.Errorf("machine %v, want %v", binary.Machine, elf.EM_X86_64)
	}
	if libraries, err := binary.ImportedLibraries(); err == nil && len(libraries) > 0 {
		t.Errorf("needs the libraries %q, want none", libraries)
	}
	if !bytes.Contains(readFile(t, handler), []byte("v1.2.3-4-gabcdef")) {
		t.Error("the version is not in the binary")
	}

	info, err := buildinfo.ReadFile(handler)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	for key, want := range map[string]string{"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": "amd64", "GOAMD64": "v1",
		"-trimpath": "true", "-tags": "", "vcs.revision": ""} {
		if settings[key] != want {
			t.Errorf("build setting %s is %q, want %q; all: %v", key, settings[key], want, settings)
		}
	}
}

// Whoever plans or signs in from their own machine needs no Go.
func TestTheToolIsBuiltForTheMachinesOfOperators(t *testing.T) {
	var names []string
	for _, p := range operators {
		names = append(names, p.file())
		if p.program != "patrol" {
			t.Errorf("%s calls itself %s", p.file(), p.program)
		}
	}
	want := []string{"patrol-linux-amd64", "patrol-linux-arm64", "patrol-darwin-amd64", "patrol-darwin-arm64",
		"patrol-windows-amd64.exe"}
	if !slices.Equal(names, want) {
		t.Errorf("the tool is built as %q, want %q", names, want)
	}
}

func TestThePackageSaysWhichStateItIs(t *testing.T) {
	out := pack(t)
	var got struct{ Version, Commit string }
	if err := json.Unmarshal(readFile(t, out, "version.json"), &got); err != nil {
		t.Fatal(err)
	}
	rev := revisionOf(t.Context(), "..")
	if got.Version != rev.version || got.Commit != rev.commit || got.Commit == "" {
		t.Errorf("version.json says %+v, git %q and %q", got, rev.version, rev.commit)
	}
}

func TestEntriesAreSortedByTheirFullName(t *testing.T) {
	app := t.TempDir()
	for _, name := range []string{"a/b", "a-c", "a.d", "Z"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(app, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(app, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var buffer bytes.Buffer
	if err := writeZip(&buffer, os.DirFS(app), time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(buffer.Bytes()), int64(buffer.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range archive.File {
		names = append(names, entry.Name)
	}
	if want := []string{"Z", "a-c", "a.d", "a/b"}; !slices.Equal(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
}

func TestTheRevisionIsTheCommitThatIsCheckedOut(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	root := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(root))
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git",
			append([]string{"-C", root, "-c", "user.name=n", "-c", "user.email=e@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-11-24T01:02:03+01:00", "GIT_CONFIG_GLOBAL="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}

	outside := revision{version: "dev", date: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got := revisionOf(t.Context(), root); got != outside {
		t.Errorf("outside a repository: %v, want %v", got, outside)
	}

	git("init", "-q")
	if got := revisionOf(t.Context(), root); got != outside {
		t.Errorf("before the first commit: %v, want %v", got, outside)
	}

	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("add", "file")
	git("commit", "-q", "-m", "first")
	commit := git("rev-parse", "HEAD")
	clean := revision{commit[:12], commit[:12], time.Date(2026, 11, 24, 0, 2, 3, 0, time.UTC)}
	if got := revisionOf(t.Context(), root); got != clean {
		t.Errorf("after a commit: %v, want %v", got, clean)
	}

	if err := os.WriteFile(file, []byte("b"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := revisionOf(t.Context(), root).version; got != commit[:12]+"-dirty" {
		t.Errorf("with an uncommitted change: %q, want %q", got, commit[:12]+"-dirty")
	}
	git("checkout", "-q", "file")
	git("tag", "-a", "-m", "release", "v1.0.0")
	if got := revisionOf(t.Context(), root).version; got != "v1.0.0" {
		t.Errorf("on a tag: %q, want v1.0.0", got)
	}

	git("commit", "-q", "--allow-empty", "-m", "second")
	git("tag", "-a", "-m", "release of another module", "events/v2.0.0")
	want := "v1.0.0-1-g" + git("rev-parse", "HEAD")[:12]
	if got := revisionOf(t.Context(), root).version; got != want {
		t.Errorf("on a tag of events: %q, want %q", got, want)
	}
}

func TestABrokenProjectIsNotPackaged(t *testing.T) {
	const host = `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"}}}`
	good := map[string]string{
		"host.json":                 host,
		"pats.yaml":                 "apiVersion: patrol/v1\n",
		"functions/A/function.json": `{}`,
	}
	for _, tt := range []struct{ name, file, content, want string }{
		{"host.json is missing", "host.json", "", "host.json"},
		{"host.json is not JSON", "host.json", "{", "reading host.json"},
		{"host.json names another executable", "host.json", strings.Replace(good["host.json"], `"handler"`,
			`"./handler"`, 1), `is "./handler", must be "handler"`},
		{"pats.yaml is missing", "pats.yaml", "", "pats.yaml"},
		{"a function's folder has no function.json", "functions/A/other.json", "{}", "function.json"},
		{"the handler does not compile", "handler/main.go", "package main\nfunc", "building the handler"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root, out := t.TempDir(), t.TempDir()
			files := maps.Clone(good)
			files["go.mod"] = "module broken\n"
			if tt.content == "" {
				delete(files, tt.file)
			} else {
				files[tt.file] = tt.content
			}
			if tt.file == "functions/A/other.json" {
				delete(files, "functions/A/function.json")
			}
			for name, content := range files {
				name = filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := run(context.WithoutCancel(t.Context()), []string{"-root", root, "-o", out}, io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(out, "app.zip")); err == nil {
				t.Error("there is a zip all the same")
			}
		})
	}
}
