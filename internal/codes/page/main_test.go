package main

import (
	"os"
	"strings"
	"testing"
)

func TestThePageIsWhatTheTableSays(t *testing.T) {
	t.Parallel()
	got, err := os.ReadFile("../../../docs/codes.md")
	if err != nil {
		t.Fatal(err)
	}
	have, want := strings.Split(string(got), "\n"), strings.Split(string(page()), "\n")
	for i := range max(len(have), len(want)) {
		var h, w string
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			t.Fatalf("docs/codes.md is stale: run go generate ./internal/codes. Line %d\n got: %s\nwant: %s", i+1, h, w)
		}
	}
}
