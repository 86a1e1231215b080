package retryafter_test

import (
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/retryafter"
)

func TestBothFormsAreReadAndBounded(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"17":                            17 * time.Second,
		"0.25":                          time.Second / 4,
		"0":                             0,
		"-5":                            0,
		"soon":                          0,
		"":                              0,
		"NaN":                           0,
		"Inf":                           0,
		"999999":                        time.Hour,
		"1e300":                         time.Hour,
		"Tue, 24 Nov 2026 12:00:30 GMT": 30 * time.Second,
		"Tue, 24 Nov 2026 11:00:00 GMT": 0,
		"Wed, 21 Oct 2099 07:28:00 GMT": time.Hour,
	} {
		if got := retryafter.Parse(value, now, time.Hour); got != want {
			t.Errorf("%q is read as %v, want %v", value, got, want)
		}
	}
}
