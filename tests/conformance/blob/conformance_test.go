package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/tests/conformance/npm"
)

// The sandbox passes without Node, too.
func TestTheSandboxPassesEveryCheck(t *testing.T) {
	s, err := startSandbox()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for i, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := s.check(t.Context(), i, c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheLockFileNamesNoRegistry(t *testing.T) {
	if err := npm.CheckLock(files, "azurite", "azurite", "3.35.0"); err != nil {
		t.Error(err)
	}
}

func TestAzuritesAddressIsFoundHoweverItIsWritten(t *testing.T) {
	found := make(chan string, 1)
	w := &tail{found: found}
	for _, part := range []string{"Azurite Blob service successfully lis", "tens on https://127.0.0.1:344", "45\n",
		"more\n"} {
		if _, err := fmt.Fprint(w, part); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-found; got != "127.0.0.1:34445" {
		t.Errorf("the address is %q", got)
	}
	if got := w.String(); !strings.HasSuffix(got, "more\n") {
		t.Errorf("what was said ends in %q", got)
	}
}
