package entra_test

import (
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// check compares one thing with what it should be.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// checkError expects a class and a code.
func checkError(t testing.TB, err error, class rotation.Class, code string) *rotation.Error {
	t.Helper()
	e := rotation.AsError(err)
	if e == nil {
		t.Fatalf("got %v, want a failure of class %s with the code %s", err, class, code)
	}
	check(t, "code", e.Code, code)
	check(t, "class of "+e.Code, e.Class, class)
	return e
}

func checkHas(t testing.TB, what, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%s: %q lacks %q", what, text, part)
	}
}

func checkLacks(t testing.TB, what, text, part string) {
	t.Helper()
	if strings.Contains(text, part) {
		t.Errorf("%s holds %q", what, part)
	}
}

func (w *world) mustStatus(c *entra.Client) entra.Status {
	w.t.Helper()
	s, err := c.Status(w.t.Context(), "build-bot")
	w.mustDo(err)
	return s
}

// checkCounts compares what there was of refreshes, and of versions in the vault.
func (w *world) checkCounts(refreshes, versions int) {
	w.t.Helper()
	check(w.t, "refreshes", w.refreshes(), refreshes)
	check(w.t, "versions in the vault", w.vault.count(), versions)
}
