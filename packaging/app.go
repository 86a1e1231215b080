package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// handlerName is the entry that host.json's defaultExecutablePath must name,
// letter for letter: Core Tools give the executable bit to that entry alone.
const handlerName = "handler"

// revision says which state of the project is packaged.
type revision struct {
	version string
	commit  string    // empty: not known
	date    time.Time // of every entry in the zip
}

// revisionOf asks git. Without git, or outside a repository, the version is
// "dev" and the date the earliest that a zip can hold.
func revisionOf(ctx context.Context, root string) revision {
	dev := revision{version: "dev", date: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	// A fixed length of the commit's name: git's own choice grows with the
	// number of objects that a clone happens to have. Tags that do not begin with v
	// are versions of other modules in the repository.
	version, err := git("describe", "--always", "--dirty", "--abbrev=12", "--match=v*")
	if err != nil || version == "" {
		return dev
	}
	last, err := git("log", "-1", "--abbrev=12", "--format=%h %ct")
	if err != nil {
		return dev
	}
	commit, seconds, _ := strings.Cut(last, " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return dev
	}
	return revision{version, commit, time.Unix(unix, 0).UTC()}
}

// assemble makes the app folder anew: host.json, pats.yaml and each function's
// folder, directly under the root, because the host searches no deeper.
func assemble(root, app string) error {
	if err := checkHost(filepath.Join(root, "host.json")); err != nil {
		return err
	}
	if err := os.RemoveAll(app); err != nil {
		return err
	}
	files := []string{"host.json", "pats.yaml"}
	functions, err := os.ReadDir(filepath.Join(root, "functions"))
	if err != nil {
		return err
	}
	for _, f := range functions {
		if f.IsDir() {
			files = append(files, filepath.Join("functions", f.Name(), "function.json"))
		}
	}
	for _, name := range files {
		to := filepath.Join(app, strings.TrimPrefix(name, "functions"+string(filepath.Separator)))
		if err := copyFile(filepath.Join(root, name), to); err != nil {
			return err
		}
	}
	return nil
}

// checkHost refuses a host.json that would not start our handler: the host says
// so only after two minutes of waiting, and then it stops.
func checkHost(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var host struct {
		CustomHandler struct {
			Description struct{ DefaultExecutablePath string }
		}
	}
	if err := json.Unmarshal(data, &host); err != nil {
		return fmt.Errorf("reading host.json: %w", err)
	}
	if path := host.CustomHandler.Description.DefaultExecutablePath; path != handlerName {
		return fmt.Errorf("host.json: customHandler.description.defaultExecutablePath is %q, must be %q", path,
			handlerName)
	}
	return nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(to, 0o644) // whatever the umask says
}

// A platform is what a program is built for, and what it is called there.
type platform struct{ os, arch, program string }

// worker is where the Functions host runs the handler.
var worker = platform{"linux", "amd64", "handler"}

// operators are the machines that people run the tool on: the same program under the
// name patrol.
var operators = []platform{
	{"linux", "amd64", "patrol"}, {"linux", "arm64", "patrol"},
	{"darwin", "amd64", "patrol"}, {"darwin", "arm64", "patrol"},
	{"windows", "amd64", "patrol"},
}

// file is the name under which the tool is released.
func (p platform) file() string {
	name := "patrol-" + p.os + "-" + p.arch
	if p.os == "windows" {
		name += ".exe"
	}
	return name
}

// compile builds the program for one platform. The flags and the instruction set of the
// developer's own environment do not reach it.
func compile(ctx context.Context, root, pkg, to string, rev revision, p platform, stderr io.Writer) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	linker := "-s -w -X main.version=" + rev.version + " -X main.commit=" + rev.commit + " -X main.program=" + p.program
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", linker, "-o", to, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly")
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return os.Chmod(to, 0o755)
}

// writeVersion says beside the zip what is in it, for a pipeline that asks the deployed
// app whether it is that.
func writeVersion(name string, rev revision) error {
	data, err := json.Marshal(map[string]string{"version": rev.version, "commit": rev.commit})
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o644)
}

// compress writes the folder as a zip: entries by name, one date, and the modes
// that matter on Linux, also when this runs where files have none.
func compress(app, archive string, date time.Time) error {
	var buffer bytes.Buffer
	if err := writeZip(&buffer, os.DirFS(app), date); err != nil {
		return err
	}
	// The old zip stays whole until the new one is.
	part := archive + ".part"
	if err := os.WriteFile(part, buffer.Bytes(), 0o644); err != nil {
		return err
	}
	if err := os.Rename(part, archive); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}
