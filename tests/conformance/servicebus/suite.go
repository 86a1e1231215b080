package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const module = "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

// The one line of the tests that is changed: their credential asks for real
// tokens otherwise.
const (
	credentialFile = "internal/test/test_helpers.go"
	credentialReal = "credential.New(nil)"
	credentialFake = "credential.Fake{}, error(nil)"
)

// suite is a copy of the SDK's module with its tests.
type suite struct{ dir, version string }

// command runs the go tool and returns what it prints.
func command(ctx context.Context, dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("go %s: %w\n%s", args[0], err, errs.Bytes())
	}
	return out.Bytes(), nil
}

type listed struct{ Path, Version, Dir string }

// prepare copies the module out of the cache, in the versions of the project's
// own build. What the tests alone need, the go tool fetches if it has to.
func prepare(ctx context.Context, dir string) (*suite, error) {
	list, err := command(ctx, "", nil, "list", "-m", "-json", "all")
	if err != nil {
		return nil, err
	}
	versions := map[string]listed{}
	for dec := json.NewDecoder(bytes.NewReader(list)); dec.More(); {
		var m listed
		if err := dec.Decode(&m); err != nil {
			return nil, fmt.Errorf("reading the list of modules: %w", err)
		}
		versions[m.Path] = m
	}
	sdk := versions[module]
	if sdk.Dir == "" {
		return nil, fmt.Errorf("%s is not in the module cache", module)
	}
	if err := os.CopyFS(dir, os.DirFS(sdk.Dir)); err != nil {
		return nil, fmt.Errorf("copying the module: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644) // the cache's files are read-only
	})
	if err != nil {
		return nil, fmt.Errorf("copying the module: %w", err)
	}
	if err := changeCredential(filepath.Join(dir, credentialFile)); err != nil {
		return nil, err
	}
	if err := pin(ctx, dir, versions); err != nil {
		return nil, err
	}
	return &suite{dir: dir, version: sdk.Version}, nil
}

func changeCredential(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("changing the credential: %w", err)
	}
	if n := strings.Count(string(text), credentialReal); n != 1 {
		return fmt.Errorf("changing the credential: %q is there %d times, not once", credentialReal, n)
	}
	text = bytes.Replace(text, []byte(credentialReal), []byte(credentialFake), 1)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return fmt.Errorf("changing the credential: %w", err)
	}
	return nil
}

// pin requires the project's versions where the suite names the same modules.
func pin(ctx context.Context, dir string, versions map[string]listed) error {
	text, err := command(ctx, dir, nil, "mod", "edit", "-json")
	if err != nil {
		return err
	}
	var mod struct{ Require []listed }
	if err := json.Unmarshal(text, &mod); err != nil {
		return fmt.Errorf("reading the suite's requirements: %w", err)
	}
	edit := []string{"mod", "edit"}
	for _, r := range mod.Require {
		if v := versions[r.Path]; v.Version != "" {
			edit = append(edit, "-require="+v.Path+"@"+v.Version)
		}
	}
	if _, err := command(ctx, dir, nil, edit...); err != nil {
		return err
	}
	root, err := command(ctx, "", nil, "env", "GOMOD")
	if err != nil {
		return err
	}
	ours, err := os.ReadFile(filepath.Join(filepath.Dir(strings.TrimSpace(string(root))), "go.sum"))
	if err != nil {
		return fmt.Errorf("reading the project's checksums: %w", err)
	}
	sums := filepath.Join(dir, "go.sum")
	theirs, err := os.ReadFile(sums)
	if err != nil {
		return fmt.Errorf("reading the suite's checksums: %w", err)
	}
	if err := os.WriteFile(sums, append(theirs, ours...), 0o644); err != nil {
		return fmt.Errorf("writing the suite's checksums: %w", err)
	}
	return nil
}

// outcome of one test: pass, fail, skip, or nothing if it was not finished.
type outcome struct {
	state   string
	elapsed time.Duration
	output  string
}

// packages whose live tests are run: the client and its link handling. Those of
// the administration's client test what the sandbox has no use for (SQL rules,
// limits of sizes, keys).
func packages() []string { return []string{".", "./internal"} }

// test runs the SDK's tests.
func (s *suite) test(ctx context.Context, env []string) (map[string]outcome, error) {
	env = append([]string{"GOFLAGS=-mod=mod"}, env...)
	args := []string{"test", "-json", "-count=1", "-p=1", "-timeout=20m", "-skip=" + excludedPattern()}
	out, err := command(ctx, s.dir, env, append(args, packages()...)...)
	results, bad := outcomes(out)
	if bad != nil {
		return nil, bad
	}
	if len(results) == 0 && err == nil {
		err = errors.New("no test ran")
	}
	if len(results) == 0 {
		return nil, err
	}
	return results, nil // that tests fail is no error
}

// outcomes reads what go test -json prints.
func outcomes(out []byte) (map[string]outcome, error) {
	results := map[string]outcome{}
	for line := range bytes.Lines(out) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue // the go tool's own words
		}
		var e struct {
			Action, Package, Test, Output string
			Elapsed                       float64
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading the tests' outcome: %w", err)
		}
		if e.Test == "" {
			continue
		}
		name := e.Test
		if sub, ok := strings.CutPrefix(e.Package, module+"/"); ok {
			name = sub + "." + name
		}
		o := results[name]
		switch e.Action {
		case "output":
			o.output += e.Output
		case "pass", "fail", "skip":
			o.state, o.elapsed = e.Action, time.Duration(e.Elapsed*float64(time.Second))
		}
		results[name] = o
	}
	return results, nil
}
