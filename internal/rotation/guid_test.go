package rotation_test

import (
	"testing"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestAGUIDHasOneForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"01234567-89ab-cdef-0123-456789abcdef":     true,
		"01234567-89AB-CDEF-0123-456789ABCDEF":     true,
		"":                                         false,
		"0123456789abcdef0123456789abcdef":         false,
		"01234567-89ab-cdef-0123-456789abcde":      false,
		"01234567-89ab-cdef-0123-456789abcdef0":    false,
		"{01234567-89ab-cdef-0123-456789abcdef}":   false,
		"01234567-89ab-cdef-0123-456789abcdeg":     false,
		"0123456-789ab-cdef-0123-456789abcdef":     false,
		"01234567-89ab-cdef-0123-456789abcd\u00e9": false,
		"01234567+89ab-cdef-0123-456789abcdef":     false,
	} {
		if got := rotation.IsGUID(text); got != want {
			t.Errorf("%q is a GUID: got %v, want %v", text, got, want)
		}
	}
}
