package customhandler_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// check reports what is not as it should be.
func check[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// checkLogHas reports a text that is not in the log.
func checkLogHas(t testing.TB, log *bytes.Buffer, text string) {
	t.Helper()
	if !strings.Contains(log.String(), text) {
		t.Errorf("%s is not in the log:\n%s", text, log)
	}
}

// checkLogLacks reports a text that must not be in the log.
func checkLogLacks(t testing.TB, log *bytes.Buffer, text string) {
	t.Helper()
	if strings.Contains(log.String(), text) {
		t.Errorf("%s is in the log:\n%s", text, log)
	}
}
