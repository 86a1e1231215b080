package app

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// longestInterval is the longest time between two sweeps of an NCRONTAB schedule; 0: it
// cannot be read, or names no time within a year. All six fields must fit, weekday and
// day of the month both: so does the Functions host read it.
func longestInterval(schedule string) time.Duration {
	texts := strings.Fields(schedule)
	months := []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	bounds := []cronField{{last: 59}, {last: 59}, {last: 23}, {first: 1, last: 31}, {first: 1, last: 12, names: months},
		{last: 6, names: weekdays}}
	if len(texts) != len(bounds) {
		return 0
	}
	var fields [6]map[int]bool
	for i, text := range texts {
		fields[i] = bounds[i].read(text)
		if fields[i] == nil {
			return 0
		}
	}
	first, last, longest := daysTimes(fields[0], fields[1], fields[2])
	var before time.Time
	start := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC) // of a leap year
	for day := start; day.Before(start.AddDate(1, 2, 0)); day = day.AddDate(0, 0, 1) {
		isMonthAndDay := fields[4][int(day.Month())] && fields[3][day.Day()]
		if !isMonthAndDay || !fields[5][int(day.Weekday())] {
			continue
		}
		if !before.IsZero() {
			longest = max(longest, day.Add(first).Sub(before))
		}
		before = day.Add(last)
	}
	if before.IsZero() {
		return 0
	}
	return longest
}

// daysTimes are the first and the last time of a day, and the longest interval between
// two of its times.
func daysTimes(seconds, minutes, hours map[int]bool) (first, last, longest time.Duration) {
	first = -1
	for hour := range 24 {
		for minute := range 60 {
			for second := range 60 {
				if !hours[hour] || !minutes[minute] || !seconds[second] {
					continue
				}
				at := time.Duration(3600*hour+60*minute+second) * time.Second
				if first < 0 {
					first, last = at, at
				}
				longest, last = max(longest, at-last), at
			}
		}
	}
	return first, last, longest
}

// cronField is what one field of a schedule may say.
type cronField struct {
	first, last int
	names       []string // of the numbers from first on
}

// read gives the numbers that a field names; nil: it cannot be read.
func (f cronField) read(text string) map[int]bool {
	out := map[int]bool{}
	for part := range strings.SplitSeq(strings.ToLower(text), ",") {
		span, stepText, hasStep := strings.Cut(part, "/")
		step := 1
		if hasStep {
			n, err := strconv.Atoi(stepText)
			if err != nil || n < 1 {
				return nil
			}
			step = n
		}
		from, to, ok := f.span(span, hasStep)
		if !ok {
			return nil
		}
		for n := from; n <= to; n += step {
			out[n] = true
		}
	}
	return out
}

// span reads "*", "3", "3-7", and with a step behind it "3" as from 3 on.
func (f cronField) span(text string, hasStep bool) (from, to int, ok bool) {
	if text == "*" {
		return f.first, f.last, true
	}
	fromText, toText, isRange := strings.Cut(text, "-")
	from, ok = f.number(fromText)
	switch {
	case !ok:
		return 0, 0, false
	case isRange:
		to, ok = f.number(toText)
		return from, to, ok && from <= to
	case hasStep:
		return from, f.last, true
	}
	return from, from, true
}

func (f cronField) number(text string) (int, bool) {
	if at := slices.Index(f.names, text); at >= 0 {
		return f.first + at, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= f.first && n <= f.last
}
