// Package ncrontab reads the schedules that the Functions host reads: NCRONTAB, six
// fields from second to day of week. It says when a schedule fires and how far apart,
// so that settings can be refused that never fire.
//
// It takes exactly what the host takes, and must not know timers, time zones or the app.
package ncrontab

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is an NCRONTAB expression: second, minute, hour, day, month and weekday,
// all of which must fit (classic cron takes either day or weekday).
type Schedule struct {
	second, minute, hour, day, month, weekday uint64 // bit sets
}

type field struct {
	name     string
	min, max int
	names    []string // of min, min+1, ...
}

var fields = [...]field{
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

// Parse reads an expression of six fields; with five, the second is 0, as the host has
// it.
func Parse(text string) (*Schedule, error) {
	parts := strings.Fields(text)
	if len(parts) == 5 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != len(fields) {
		return nil, fmt.Errorf("%d fields instead of six", len(parts))
	}
	var sets [len(fields)]uint64
	for i, part := range parts {
		set, err := fields[i].parse(part)
		if err != nil {
			return nil, fmt.Errorf("the %s field: %w", fields[i].name, err)
		}
		sets[i] = set
	}
	return &Schedule{sets[0], sets[1], sets[2], sets[3], sets[4], sets[5]}, nil
}

// parse reads a list of *, n, a-b, each with an optional /step.
func (f *field) parse(text string) (uint64, error) {
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
func (f *field) bounds(text string, stepped bool) (from, to int, err error) {
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

func (f *field) value(text string) (int, error) {
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

func has(set uint64, v int) bool { return set&(1<<v) != 0 }

// Next is the first occurrence after t, in UTC, or the zero time if there is none.
func (c *Schedule) Next(t time.Time) time.Time {
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

// isDaily reports whether every day is like the others.
func (c *Schedule) isDaily() bool {
	const days, months, weekdays = 1<<32 - 1<<1, 1<<13 - 1<<1, 1<<7 - 1
	return c.day == days && c.month == months && c.weekday == weekdays
}

// Interval is the longest time between two occurrences in the weeks after t; 0: there are
// no two.
func (c *Schedule) Interval(t time.Time) time.Duration {
	const weeks, most = 10, 5000
	var longest time.Duration
	at := c.Next(t)
	end := t.AddDate(0, 0, 7*weeks)
	if c.isDaily() {
		end = t.AddDate(0, 0, 2) // every process asks this when it starts, and the days are alike
	}
	for range most {
		next := c.Next(at)
		if at.IsZero() || next.IsZero() {
			break
		}
		longest = max(longest, next.Sub(at))
		at = next
		if at.After(end) {
			break
		}
	}
	return longest
}
