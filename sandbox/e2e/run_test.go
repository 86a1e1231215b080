package e2e_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What make run runs: the sandbox with the packaged app shows its scenario within 15
// seconds, answers at the URLs that it prints, and ends within two, leaving
// nothing behind.
func TestTheSandboxShowsItsScenarioAndEndsCleanly(t *testing.T) {
	t.Parallel()
	app := packagedApp(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "sandbox")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("building the sandbox: %v\n%s", err, out)
	}
	// The log goes beside the app, so the app is shown through a link.
	if err := os.Symlink(app, filepath.Join(dir, "app")); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-app", filepath.Join(dir, "app"), "-port", "0")
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	defer killed.Stop()

	scenario := []*regexp.Regexp{
		regexp.MustCompile(`event .*patrol\.pat\.rotated: jenkins-agents has its first PAT`),
		regexp.MustCompile(`http .*RotatePat answered 202`),
		regexp.MustCompile(`event .*patrol\.pat\.rotated: jenkins-agents has a new PAT \(compromised\)`),
		regexp.MustCompile(`event .*patrol\.pat\.revoked: a replaced PAT of jenkins-agents has ended \(requested\)`),
		regexp.MustCompile(`managed PATs +http://127\.0\.0\.1:\d+/api/pats\?code=`),
		regexp.MustCompile(`Ctrl-C ends it all`),
	}
	var output strings.Builder
	lines := bufio.NewScanner(stdout)
	next, list := 0, ""
	for next < len(scenario) && lines.Scan() {
		output.WriteString(lines.Text() + "\n")
		if next < len(scenario) && scenario[next].MatchString(lines.Text()) {
			next++
		}
		if url := regexp.MustCompile(`http://127\.0\.0\.1:\d+/api/pats\?code=\S+`).FindString(lines.Text()); url != "" {
			list = url
		}
	}
	if next < len(scenario) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the scenario stops before %q:\n%s", scenario[next], output.String())
	}
	took := time.Since(begun)
	t.Logf("the scenario took %.1f s:\n%s", took.Seconds(), output.String())
	if took > 15*time.Second {
		t.Errorf("the scenario took %v, a newcomer waits for 15 s", took)
	}
	if strings.Contains(output.String(), "\x1b") {
		t.Error("colours without a terminal")
	}

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, list, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(got.Body)
	_ = got.Body.Close()
	if err != nil || got.StatusCode != http.StatusOK || !strings.Contains(string(body), "nuget-feed") {
		t.Errorf("%s answered %d: %s", list, got.StatusCode, body)
	}

	begun = time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&output, stdout); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sandbox ended with %v\n%s", err, output.String())
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("ending took %v", took)
	}
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v %v", left, err)
	}
	if left := children(t, app); len(left) > 0 {
		t.Errorf("processes that are left: %v", left)
	}
}

// children finds processes whose executable is the app's handler and whose parent
// is gone.
func children(t *testing.T, app string) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		exe, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || !strings.HasPrefix(exe, app) {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 && slices.Contains([]string{"0", "1"}, f[1]) {
			out = append(out, exe)
		}
	}
	return out
}
