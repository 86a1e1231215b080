package functionshost

import (
	"fmt"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/ncrontab"
)

// schedule says when a timer fires.
type schedule interface {
	// next is the first occurrence after t, or the zero time if there is none.
	next(t time.Time) time.Time
	// adjustForDST is what TimerInfo says: true for cron expressions.
	adjustForDST() bool
}

func parseSchedule(text string) (schedule, error) {
	c, err := ncrontab.Parse(text)
	if err == nil {
		return cron{c}, nil
	}
	if strings.Contains(text, ":") {
		if d, err := parseTimeSpan(text); err == nil && d > 0 {
			return interval(d), nil
		}
	}
	return nil, fmt.Errorf("the schedule expression '%s' was not recognized as a valid cron expression "+
		"or timespan string: %w", text, err)
}

// subMinute reports whether the schedule fires more often than once a minute, in
// which case the host keeps no status for it.
func subMinute(s schedule) bool {
	t := s.next(time.Now())
	for range 10 {
		n := s.next(t)
		if t.IsZero() || n.IsZero() {
			return false
		}
		if n.Sub(t) < time.Minute {
			return true
		}
		t = n
	}
	return false
}

type interval time.Duration

func (i interval) next(t time.Time) time.Time { return t.Add(time.Duration(i)) }
func (interval) adjustForDST() bool           { return false }

// cron is an NCRONTAB expression.
type cron struct{ *ncrontab.Schedule }

func (c cron) next(t time.Time) time.Time { return c.Next(t) }
func (cron) adjustForDST() bool           { return true }
