package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/sandbox/cloud"
)

func TestTheDemonstrationsManifestIsValid(t *testing.T) {
	t.Parallel()
	m, warnings, err := manifest.Parse("pats.yaml", []byte(demoManifest))
	if err != nil {
		t.Fatalf("problems: %v", err)
	}
	for _, w := range warnings { // a PAT of three minutes has many versions
		if !strings.Contains(w.What, `PAT "three-minutes": a rotation every 30s stores`) {
			t.Errorf("a warning: %v", w)
		}
	}
	if _, ok := m.PAT(demoPAT); !ok || len(m.PATs) != 3 {
		t.Errorf("the scenario is about 3 PATs, one of them %s; the manifest has %d", demoPAT, len(m.PATs))
	}
}

func TestWithoutAPackagedAppItSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := start(context.Background(), []string{"-app", t.TempDir()}, os.Stdout)
	if err == nil || !strings.Contains(err.Error(), "make package") {
		t.Errorf("error %v, want it to name make package", err)
	}
	if err := start(context.Background(), []string{"somewhere"}, os.Stdout); err == nil {
		t.Error("an argument that is not a flag was accepted")
	}
}

func TestATakenPortIsReplacedByAFreeOne(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	var out bytes.Buffer
	l, err := listen(taken.Addr().(*net.TCPAddr).Port, newConsole(&out, false))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := l.Addr().String(); got == taken.Addr().String() {
		t.Errorf("it listens on the taken address %s", got)
	}
	if !strings.Contains(out.String(), l.Addr().String()) {
		t.Errorf("it prints %q, want the address %s in it", out.String(), l.Addr())
	}
}

func TestTheControlAPIIsForLoopbackOnly(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]int{"127.0.0.1:0": 0, "127.0.0.1:7080": 7080, "localhost:1": 1,
		"0.0.0.0:7080": -1, ":7080": -1, "7080": -1, "127.0.0.1:http": -1, "127.0.0.1:70000": -1} {
		got, err := loopbackPort(address)
		if refused := err != nil; refused != (want < 0) {
			t.Errorf("%s: error %v, want one: %t", address, err, want < 0)
		}
		if err == nil && got != want {
			t.Errorf("%s: port %d, want %d", address, got, want)
		}
	}
}

func TestLinesStayLines(t *testing.T) {
	t.Parallel()
	for colours, want := range map[bool]string{false: "event    a b [31mc\n",
		true: "\x1b[32mevent  \x1b[0m  a b [31mc\n"} {
		var out bytes.Buffer
		newConsole(&out, colours).print(fromEvent, "a\n%s", "b\x1b[31mc")
		if !strings.HasSuffix(out.String(), want) {
			t.Errorf("colours %t: %q, want it to end with %q", colours, out.String(), want)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("colours %t: %d lines, want one", colours, n)
		}
	}
}

func TestWhatAConsumerNeedsIsWrittenForAShell(t *testing.T) {
	t.Parallel()
	o := options{app: filepath.Join(t.TempDir(), "app")}
	d := &demo{base: "http://127.0.0.1:7071"}
	c, err := d.newCloud(o, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	env := c.ConsumerEnvironment(consumerName)
	path, err := writeConsumerFile(o, env)
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-c", "set -a; . "+path+"; env")
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	for name, value := range env {
		if value == "" {
			t.Errorf("%s is empty", name)
		}
		if !slices.Contains(lines, name+"="+value) {
			t.Errorf("the shell does not have %s=%s", name, value)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("its mode is %o, want 600", got)
	}
	if text := consumerText(env); strings.Contains(text, "SharedAccessKey=") {
		t.Error("a key is printed")
	}
}

func TestPortsOfTheServicesCanBeFixed(t *testing.T) {
	t.Parallel()
	p := fixedPorts(7100)
	got := []int{p.Entra, p.DevOps, p.VSSPS, p.Vault, p.ServiceBus, p.PlainServiceBus, p.Identity, p.Control}
	if want := []int{7100, 7101, 7102, 7103, 7104, 7105, 7106, 7107}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
	if got := fixedPorts(0); got != (cloud.Ports{}) {
		t.Errorf("ports %+v, want free ones", got)
	}
}

func TestAConsumerBesideTheSandboxHasWhatItNeedsAndIsShown(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &demo{base: "http://127.0.0.1:7071", console: newConsole(&out, false)}
	c, err := d.newCloud(options{}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.cloud = c
	script := filepath.Join(t.TempDir(), "consumer.sh")
	text := "echo reads $PATROL_CONSUMER\necho same\necho same\nexit 3\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.runConsumer(t.Context(), "sh "+script); err == nil {
		t.Error("a consumer that fails is no error")
	}
	if !strings.Contains(out.String(), "yours    reads consumer") {
		t.Errorf("shown is\n%s", &out)
	}
	if got := strings.Count(out.String(), "same"); got != 1 {
		t.Errorf("a repeated line is shown %d times, want once", got)
	}
}
