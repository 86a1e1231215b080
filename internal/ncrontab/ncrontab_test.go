package ncrontab_test

import (
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/ncrontab"
)

var from = time.Date(2026, 11, 23, 23, 34, 0, 5733700, time.UTC)

func TestWhatTheHostDoesNotTakeIsRefused(t *testing.T) {
	for _, bad := range []string{
		"", "a b c d e f", "0 0 */6 ? * *", "0 0 25 * * *", "0 0 */6 * * * *", "0 0 * *", "@daily", "0 0 0 L * *",
		"0 0 0 15W * *", "0 0 0 * * 7", "0 0 0 * * 2#1", "60 * * * * *", "*/0 * * * * *",
	} {
		_, err := ncrontab.Parse(bad)
		if err == nil {
			t.Errorf("%q was taken for a schedule", bad)
		}
	}
}

func TestTheLongestTimeBetweenTwoOccurrences(t *testing.T) {
	for expression, want := range map[string]time.Duration{
		"0 0 */6 * * *":     6 * time.Hour,
		"0 0 8,12 * * *":    20 * time.Hour,
		"0 */5 * * * *":     5 * time.Minute,
		"*/5 * * * * *":     5 * time.Second,
		"0 0 6 * * MON-FRI": 72 * time.Hour,
		"0 0 0 31 2 *":      0,
		"0 0 6 * * *":       24 * time.Hour,
		"0 0,30 9-17 * * *": 15*time.Hour + 30*time.Minute,
	} {
		s, err := ncrontab.Parse(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Interval(from); got != want {
			t.Errorf("%q: %v, want %v", expression, got, want)
		}
	}
}

func TestAScheduleThatNeverFires(t *testing.T) {
	s, err := ncrontab.Parse("0 0 0 31 2 *")
	if err != nil {
		t.Fatal(err)
	}
	if next := s.Next(from); !next.IsZero() {
		t.Errorf("the 31st of February comes at %v", next)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 */5 * * * *", "0 0 9-17/4 1,15 jan-dec mon", "1-", "*/-1 * * * * *"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ncrontab.Parse(text)
		if err != nil {
			return
		}
		if next := s.Next(from); !next.IsZero() && !next.After(from) {
			t.Errorf("%q: %v is not after %v", text, next, from)
		}
	})
}
