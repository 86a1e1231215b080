package panics_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/panics"
)

func thrower(v any) func() error { return func() error { panic(v) } }

func TestAPanicBecomesAnErrorThatSaysWhereAndNoPayload(t *testing.T) {
	t.Parallel()
	var none map[string]int
	for what, f := range map[string]func() error{
		"a text":          thrower("c4n4ry"),
		"an error":        thrower(errors.New("c4n4ry")),
		"a runtime's own": func() error { none["c4n4ry"] = 1; return nil },
	} {
		err := panics.Held(f)
		if _, ok := errors.AsType[*panics.Error](err); !ok {
			t.Errorf("%s: %v, want a held panic", what, err)
			continue
		}
		if strings.Contains(err.Error(), "c4n4ry") || !strings.Contains(err.Error(), "panics_test.") {
			t.Errorf("%s: %v, want where it was thrown, and nothing of what", what, err)
		}
	}
}

func TestWhatDoesNotPanicIsAsItWas(t *testing.T) {
	t.Parallel()
	want := errors.New("no")
	if got := panics.Held(func() error { return want }); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := panics.Held(func() error { return nil }); got != nil {
		t.Errorf("got %v, want nil", got)
	}
}
