package app_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/app"
)

// say runs the program under a name and gives what it printed.
func say(t *testing.T, program string, args ...string) (out string, code int) {
	t.Helper()
	var o bytes.Buffer
	code = app.Main(t.Context(), args, app.Process{Getenv: func(string) string { return "" }, Out: &o, Err: &o,
		Version: "v1.2.3", Commit: "0123456789ab", Program: program})
	return o.String(), code
}

func TestTheProgramSaysWhichStateItIs(t *testing.T) {
	t.Parallel()
	if out, code := say(t, "", "version"); out != "patrol v1.2.3 0123456789ab\n" || code != 0 {
		t.Errorf("it says %q and exits with %d", out, code)
	}
}

// On an operator's machine the program is called patrol, and there is no host to serve.
func TestTheToolCallsItselfByItsName(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"help"}, {"plan", "-h"}, {"sign-in", "-h"}, {"no-such"}, {"plan", "a", "b"}} {
		out, _ := say(t, "patrol", args...)
		if strings.Contains(out, "handler") || !strings.Contains(out, "patrol") {
			t.Errorf("patrol %q says\n%s", args, out)
		}
	}
	if out, code := say(t, "patrol"); code != 0 || strings.Contains(out, "serve the Azure Functions host") {
		t.Errorf("without arguments it exits with %d and says\n%s", code, out)
	}
	if out, _ := say(t, "", "help"); !strings.Contains(out, "handler plan") {
		t.Errorf("the app's program says\n%s", out)
	}
}
