package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/tests/conformance/npm"
)

func TestTheLockFileNamesNoRegistry(t *testing.T) {
	if err := npm.CheckLock(files, "authority", "oidc-provider", "9.13.3"); err != nil {
		t.Error(err)
	}
}

func TestTheAuthoritysLastWordsAreKept(t *testing.T) {
	var w tail
	for i := range 3000 {
		if _, err := fmt.Fprintf(&w, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.String(); len(got) != tailSize || !strings.HasSuffix(got, "line 2999\n") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-20:])
	}
}
