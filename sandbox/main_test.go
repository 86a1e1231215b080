package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/manifest"
)

func TestTheDemonstrationsManifestIsValid(t *testing.T) {
	t.Parallel()
	m, warnings, err := manifest.Parse("pats.yaml", []byte(demoManifest))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("problems: %v, warnings: %v", err, warnings)
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
