package app

import (
	"testing"
	"time"
)

func TestTheLongestTimeBetweenTwoSweepsIsReadFromTheSchedule(t *testing.T) {
	t.Parallel()
	for schedule, want := range map[string]time.Duration{
		"0 0 */6 * * *":           6 * time.Hour,
		"0 */5 * * * *":           5 * time.Minute,
		"*/30 * * * * *":          30 * time.Second,
		"0 0 6 * * *":             24 * time.Hour,
		"0 30 6,18 * * *":         12 * time.Hour,
		"0 0 8-16/4 * * *":        16 * time.Hour,
		"0 0 20/2 * * *":          22 * time.Hour,
		"0 0 6 * * 1-5":           3 * 24 * time.Hour,
		"0 0 6 * * Mon-Fri":       3 * 24 * time.Hour,
		"0 0 0 1 * *":             31 * 24 * time.Hour,
		"0 0 0 1 JAN *":           366 * 24 * time.Hour,
		"0 0 0 30 2 *":            0,
		"0 0 */6 * *":             0,
		"0 0 */0 * * *":           0,
		"0 0 25 * * *":            0,
		"0 0 6 * * someday":       0,
		"0 0 6-2 * * *":           0,
		"0 0 every * * *":         0,
		"00:05:00 0 0 0 0 0":      0,
		"0 0 */6 * * * and so on": 0,
	} {
		if got := longestInterval(schedule); got != want {
			t.Errorf("%s: %s at the most between two sweeps, want %s", schedule, got, want)
		}
	}
}
