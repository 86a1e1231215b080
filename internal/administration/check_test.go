package administration_test

import (
	"reflect"
	"strings"
	"testing"
)

// check compares one value with what it should be.
func check[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// contains reports a text that lacks a part.
func contains(t testing.TB, what, got, part string) {
	t.Helper()
	if !strings.Contains(got, part) {
		t.Errorf("%s: got %q, want it to contain %q", what, got, part)
	}
}
