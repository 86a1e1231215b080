package functionshost

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// schedule says when a timer fires.
type schedule interface {
	// next is the first occurrence after t, or the zero time if there is none.
	next(t time.Time) time.Time
	// adjustForDST is what TimerInfo says: true for cron expressions.
	adjustForDST() bool
}

func parseSchedule(text string) (schedule, error) {
	c, err := parseCron(text)
	if err == nil {
		return c, nil
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

// cron is an NCRONTAB expression: second, minute, hour, day, month and weekday,
// all of which must fit (classic cron takes either day or weekday).
type cron struct {
	second, minute, hour, day, month, weekday uint64 // bit sets
}

type cronField struct {
	name     string
	min, max int
	names    []string // of min, min+1, ...
}

var cronFields = [...]cronField{
	{name: "second", max: 59},
	{name: "minute", max: 59},
	{name: "hour", max: 23},
	{name: "day", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: []string{
		"january", "february", "march", "april", "may", "june",
		"july", "august", "september", "october", "november", "december",
	}},
	{name: "day of week", max: 6, names: []string{
		"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday",
	}},
}

func parseCron(text string) (*cron, error) {
	fields := strings.Fields(text)
	if len(fields) == 5 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != len(cronFields) {
		return nil, fmt.Errorf("%d fields instead of six", len(fields))
	}
	var sets [len(cronFields)]uint64
	for i, f := range fields {
		set, err := cronFields[i].parse(f)
		if err != nil {
			return nil, fmt.Errorf("the %s field: %w", cronFields[i].name, err)
		}
		sets[i] = set
	}
	return &cron{sets[0], sets[1], sets[2], sets[3], sets[4], sets[5]}, nil
}

// parse reads a list of *, n, a-b, each with an optional /step.
func (f *cronField) parse(text string) (uint64, error) {
	var set uint64
	for piece := range strings.SplitSeq(text, ",") {
		body, stepText, stepped := strings.Cut(piece, "/")
		step := 1
		if stepped {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 {
				return 0, fmt.Errorf("'%s' is no step", stepText)
			}
			step = n
		}
		from, to, err := f.bounds(body, stepped)
		if err != nil {
			return 0, err
		}
		for v := from; v <= to; v += step {
			set |= 1 << v
		}
	}
	return set, nil
}

// bounds reads *, n or a-b. With a step, n goes up to the field's end.
func (f *cronField) bounds(text string, stepped bool) (from, to int, err error) {
	if text == "*" {
		return f.min, f.max, nil
	}
	first, last, isRange := strings.Cut(text, "-")
	from, err = f.value(first)
	if err != nil {
		return 0, 0, err
	}
	switch {
	case isRange:
		to, err = f.value(last)
	case stepped:
		to = f.max
	default:
		to = from
	}
	if err != nil {
		return 0, 0, err
	}
	return min(from, to), max(from, to), nil
}

func (f *cronField) value(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < f.min || n > f.max {
			return 0, fmt.Errorf("%d is not within %d to %d", n, f.min, f.max)
		}
		return n, nil
	}
	if len(text) >= 3 {
		for i, name := range f.names {
			if strings.HasPrefix(name, strings.ToLower(text)) {
				return f.min + i, nil
			}
		}
	}
	return 0, fmt.Errorf("'%s' is no value", text)
}

func (*cron) adjustForDST() bool { return true }

func has(set uint64, v int) bool { return set&(1<<v) != 0 }

func (c *cron) next(t time.Time) time.Time {
	t = t.UTC().Truncate(time.Second).Add(time.Second)
	// Weekdays and leap days come around in 28 years, 40 across a year like
	// 2100.
	for limit := t.Year() + 41; t.Year() < limit; {
		switch y, m, d := t.Date(); {
		case !has(c.month, int(m)):
			t = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
		case !has(c.day, d), !has(c.weekday, int(t.Weekday())):
			t = time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		case !has(c.hour, t.Hour()):
			t = time.Date(y, m, d, t.Hour()+1, 0, 0, 0, time.UTC)
		case !has(c.minute, t.Minute()):
			t = time.Date(y, m, d, t.Hour(), t.Minute()+1, 0, 0, time.UTC)
		case !has(c.second, t.Second()):
			t = t.Add(time.Second)
		default:
			return t
		}
	}
	return time.Time{}
}
