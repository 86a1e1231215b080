package web

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// moment is a time as a person reads it. The page's script shows it in the person's
// own zone.
type moment struct{ At, Now time.Time }

func momentOf(t *time.Time, now time.Time) moment {
	if t == nil {
		return moment{}
	}
	return moment{*t, now}
}

func (m moment) Known() bool   { return !m.At.IsZero() }
func (m moment) ISO() string   { return m.At.UTC().Format(time.RFC3339) }
func (m moment) Long() string  { return long(m.At) }
func (m moment) Short() string { return day(m.At) }

// Relative is how far away it is, roughly: "in 9 days", "3 hours ago".
func (m moment) Relative() string {
	d := m.At.Sub(m.Now)
	switch {
	case d.Abs() < time.Minute:
		return "now"
	case d < 0:
		return roughly(-d) + " ago"
	}
	return "in " + roughly(d)
}

func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return count1(int((d+day/2)/day), "day")
	case d >= 2*time.Hour:
		return count1(int((d+time.Hour/2)/time.Hour), "hour")
	}
	return count1(int((d+time.Minute/2)/time.Minute), "minute")
}

func count1(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func long(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") }
func day(t time.Time) string  { return t.UTC().Format("2 Jan 2006") }

// inWords is a duration of the manifest, for a person.
func inWords(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d > day && d%day == 0:
		return count1(int(d/day), "day")
	case d >= time.Hour && d%time.Hour == 0:
		return count1(int(d/time.Hour), "hour")
	case d >= time.Minute && d%time.Minute == 0:
		return count1(int(d/time.Minute), "minute")
	}
	return d.String()
}

// plain makes a text from outside harmless to read: what turns the direction of
// writing, hides or controls is shown as a mark. Markup stays text by the template.
func plain(s string) string {
	const joiner, nonJoiner = '\u200D', '\u200C' // scripts need them
	return strings.Map(func(c rune) rune {
		if c == joiner || c == nonJoiner {
			return c
		}
		if unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '\uFFFD'
		}
		return c
	}, s)
}

// actionWord names what patrol does next.
func actionWord(action string) string {
	switch rotation.Action(action) {
	case rotation.Rotate:
		return "To be rotated now"
	case rotation.Revoke:
		return "The replaced PAT is to be revoked now"
	case rotation.Adopt:
		return "To be adopted"
	case rotation.Recognize:
		return "Its tags are to be written again"
	case rotation.Relabel:
		return "The new name of its owner is to be noted"
	case rotation.Announce:
		return "The event of its rotation is to be published"
	case rotation.Refuse:
		return "Somebody must decide"
	case rotation.ReportLate:
		return "A switch-over is late"
	case rotation.ReportSignIn:
		return "Waits for a sign-in"
	}
	return action
}

// actWord names what was done.
func actWord(act string) string {
	switch act {
	case actProvisioned:
		return "Made"
	case "":
		return ""
	}
	return strings.ToUpper(act[:1]) + act[1:]
}

// who names who asked for something.
func who(by string) string {
	switch by {
	case byFunctionKey:
		return "somebody with a function key"
	case ByTimer:
		return "the schedule"
	}
	return plain(by)
}
