package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

// The Functions host kills; a terminal and a container ask first.
func TestASignalToStopLetsWhatIsUnderWayFinish(t *testing.T) {
	t.Parallel()
	dir := packagedApp(t)
	manifest := filepath.Join(t.TempDir(), "pats.yaml")
	if err := os.WriteFile(manifest, []byte(manifestTwo), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cloud.New(cloud.Config{Manifest: manifest})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Seed(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()

	cmd := exec.Command(filepath.Join(dir, "handler"))
	cmd.Dir = dir
	for name, value := range c.Environment() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("FUNCTIONS_CUSTOMHANDLER_PORT=%d", port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	until(t, "the handler answers", func() bool {
		resp, err := http.Get(base + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil
	})

	// A request is under way at Azure DevOps when the signal comes.
	if err := c.Injector.Inject(faults.Fault{Service: devops.ServiceName, Operation: devops.ListPats, Mode: faults.Slow,
		Delay: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	status := make(chan int, 1)
	go func() {
		resp, err := http.Get(base + "/api/pats")
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	until(t, "the request is under way",
		func() bool { return c.Injector.Count(devops.ServiceName, devops.ListPats) > 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-status; code != http.StatusOK {
		t.Errorf("the request under way was answered %d", code)
	}
	select {
	case <-exited:
		if got := cmd.ProcessState.ExitCode(); got != 200 {
			t.Errorf("the handler ended with exit code %d, want 200", got)
		}
	case <-time.After(15 * time.Second):
		t.Error("the handler did not end within its grace")
	}
}

// The host restarts a handler that ends with 200, as often as that happens. With 0 it
// would answer 500 for ever, and at the third of any other code it would end itself.
func TestAHandlerThatIsAskedToEndWhileTheHostStaysIsStartedAnewAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	for range 4 {
		starts := s.launcher.starts()
		if err := s.launcher.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.until("the host has started the handler again", func() bool { return s.launcher.starts() > starts })
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err := s.host.WaitReady(ctx)
		cancel()
		if err != nil {
			t.Fatalf("the handler does not become ready again: %v", err)
		}
	}
	if err := s.sweep(); err != nil {
		t.Fatalf("the sweep after four signals: %v", err)
	}
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })
}

// until polls a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(timeout); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, timeout)
		}
	}
}
