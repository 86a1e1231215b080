package infra_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// slots bounds how many compilers run at once.
var slots = make(chan struct{}, 2)

// compiler finds Bicep: $BICEP, or bicep on the path. Without one the test is skipped,
// but not in continuous integration.
func compiler(t *testing.T) string {
	t.Helper()
	name := os.Getenv("BICEP")
	if name == "" {
		name = "bicep"
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") == "true":
		t.Fatalf("there is no Bicep compiler (%s): install it, or name it by BICEP", name)
	default:
		t.Skipf(
			"NOTICE: the templates are not checked: there is no Bicep compiler (%s). Install it, or name it by BICEP",
			name)
	}
	return ""
}

// bicep runs the compiler and gives its two outputs. An exit code says little: an
// unknown property is a warning to it. It may be called beside the test's goroutine.
func bicep(ctx context.Context, compiler, dir string, args ...string) (stdout, stderr []byte) {
	slots <- struct{}{}
	defer func() { <-slots }()
	cmd := exec.CommandContext(ctx, compiler, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOTNET_TieredPGO=0") // for a short run it only costs
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && errs.Len() == 0 {
		fmt.Fprintf(&errs, "bicep %s: %v", strings.Join(args, " "), err)
	}
	return out.Bytes(), errs.Bytes()
}

// build compiles a file. Whatever the compiler has to say about it is a finding.
func build(ctx context.Context, compiler, dir, file string) (template map[string]any, findings []string) {
	stdout, stderr := bicep(ctx, compiler, dir, "build", file, "--stdout", "--diagnostics-format", "sarif")
	findings = readSARIF(stderr)
	if len(findings) > 0 && len(stdout) == 0 {
		return nil, findings
	}
	if err := json.Unmarshal(stdout, &template); err != nil {
		findings = append(findings, "the compiler's output is not JSON: "+err.Error())
	}
	return template, findings
}

// readSARIF reads findings; what is not SARIF is a finding, too.
func readSARIF(stderr []byte) (findings []string) {
	start := bytes.IndexByte(stderr, '{')
	if start < 0 {
		if text := strings.TrimSpace(string(stderr)); text != "" {
			return []string{text}
		}
		return []string{"the compiler has given no report"}
	}
	if text := strings.TrimSpace(string(stderr[:start])); text != "" {
		findings = append(findings, text)
	}
	var report struct {
		Runs []struct {
			Results []struct {
				RuleID    string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(stderr[start:]))
	if err := decoder.Decode(&report); err != nil {
		return append(findings, strings.TrimSpace(string(stderr)))
	}
	for _, run := range report.Runs {
		for _, r := range run.Results {
			at := ""
			if len(r.Locations) > 0 {
				l := r.Locations[0].PhysicalLocation
				at = fmt.Sprintf("%s:%d: ", filepath.Base(l.ArtifactLocation.URI), l.Region.StartLine)
			}
			findings = append(findings, at+r.RuleID+": "+r.Message.Text)
		}
	}
	if rest := strings.TrimSpace(string(stderr[start+int(decoder.InputOffset()):])); rest != "" {
		findings = append(findings, rest)
	}
	return findings
}

// A predicted is one resource of a snapshot: what the template comes to for given
// parameters. What only the deployment will know is still an expression in it.
type predicted struct {
	ID         string
	Type       string
	Name       string
	Location   string
	SKU        map[string]any
	Tags       map[string]string
	Properties map[string]any
}

// snapshot evaluates main.bicep in dir, which is a copy, for some parameters.
func snapshot(ctx context.Context, compiler, dir, name, parameters string) (resources []predicted, findings []string) {
	file := filepath.Join(dir, name+".bicepparam")
	if err := os.WriteFile(file, []byte("using 'main.bicep'\n"+parameters), 0o644); err != nil {
		return nil, []string{err.Error()}
	}
	_, stderr := bicep(ctx, compiler, dir, "snapshot", name+".bicepparam", "--location", "westeurope",
		"--tenant-id", "00000000-0000-0000-0000-000000000001", "--subscription-id",
		"00000000-0000-0000-0000-000000000002")
	if text := strings.TrimSpace(string(stderr)); text != "" {
		findings = append(findings, text)
	}
	data, err := os.ReadFile(filepath.Join(dir, name+".snapshot.json"))
	if err != nil {
		return nil, append(findings, "the compiler has made no snapshot: "+err.Error())
	}
	var s struct {
		PredictedResources []predicted
		Diagnostics        []json.RawMessage
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, append(findings, "the snapshot is not JSON: "+err.Error())
	}
	for _, d := range s.Diagnostics {
		findings = append(findings, string(d))
	}
	return s.PredictedResources, findings
}

// copyTree copies what the compiler reads, to be changed or written beside.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (path == "terraform" || path == "testdata"):
			return filepath.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(dir, path), 0o755)
		}
		switch filepath.Ext(path) {
		case ".bicep", ".json", ".kql":
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, path), data, 0o644)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func readJSON(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
