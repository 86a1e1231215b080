package retryafter_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/retryafter"
)

func TestMillisecondsCountBeforeSeconds(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		header map[string]string
		want   time.Duration
	}{
		{"none", nil, 0},
		{"seconds", map[string]string{"Retry-After": "7"}, 7 * time.Second},
		{"a date", map[string]string{"Retry-After": "Tue, 24 Nov 2026 12:00:30 GMT"}, 30 * time.Second},
		{"milliseconds", map[string]string{"retry-after-ms": "1500"}, 1500 * time.Millisecond},
		{"milliseconds by their older name", map[string]string{"x-ms-retry-after-ms": "40"}, 40 * time.Millisecond},
		{"all three", map[string]string{"retry-after-ms": "10", "x-ms-retry-after-ms": "20", "Retry-After": "30"},
			10 * time.Millisecond},
		{"milliseconds that cannot be read", map[string]string{"retry-after-ms": "soon", "Retry-After": "30"},
			30 * time.Second},
		{"negative milliseconds", map[string]string{"retry-after-ms": "-5", "Retry-After": "30"}, 30 * time.Second},
		{"no milliseconds", map[string]string{"retry-after-ms": "0", "Retry-After": "30"}, 30 * time.Second},
		{"more than the limit", map[string]string{"retry-after-ms": "3600001"}, time.Hour},
		{"more than a Duration holds", map[string]string{"retry-after-ms": "18446744073709551615"}, time.Hour},
		{"more than 64 bits", map[string]string{"retry-after-ms": "99999999999999999999", "Retry-After": "30"},
			30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			for name, value := range tt.header {
				h.Set(name, value)
			}
			if got := retryafter.FromHeader(h, now, time.Hour); got != tt.want {
				t.Errorf("waits %v, want %v", got, tt.want)
			}
		})
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add("1500", "", "")
	f.Add("", "18446744073709551615", "7")
	f.Add("", "", "Tue, 24 Nov 2026 12:00:30 GMT")
	f.Add("", "", "-1e308")
	f.Fuzz(func(t *testing.T, first, second, third string) {
		h := http.Header{"Retry-After-Ms": {first}, "X-Ms-Retry-After-Ms": {second}, "Retry-After": {third}}
		now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
		if got := retryafter.FromHeader(h, now, time.Hour); got < 0 || got > time.Hour {
			t.Errorf("waits %v, want 0 to an hour", got)
		}
	})
}
