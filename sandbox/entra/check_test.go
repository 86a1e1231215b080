package entra_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

// check compares one thing with what it should be.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func checkHas(t testing.TB, what, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%s: %q lacks %q", what, text, part)
	}
}

// checkQuery compares fields, by name and value, of what a client was sent.
func checkQuery(t testing.TB, what string, q url.Values, want ...string) {
	t.Helper()
	for i := 0; i+1 < len(want); i += 2 {
		check(t, what+": "+want[i], q.Get(want[i]), want[i+1])
	}
}

// checkPage expects that the browser is still at the authority, on a page with
// this text.
func checkPage(t testing.TB, what string, at *htmlclient.Page, status int, text string) {
	t.Helper()
	check(t, what+": sent to another host", at.Left(), false)
	check(t, what+": status", at.Status, status)
	checkHas(t, what+": page", at.HTML, text)
}

// visit is a walk in a browser that nobody has signed in with.
func visit(t *testing.T, client *http.Client, p htmlclient.Person, page string) (at *htmlclient.Page, steps string) {
	t.Helper()
	return walk(t, htmlclient.New(client.Transport), p, page)
}
