package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the platform's image may have no time zones

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// This file reads when PATs may be replaced: freezes, windows of the week, pauses.

const maxFreezes = 100

// calendar reads the freezes, sorted by their beginnings.
func (p *parser) calendar(f field) []rotation.Freeze {
	keys := p.mapping(f.at, "calendar", []string{"freeze"}, nil)
	freeze, ok := keys["freeze"]
	if !ok {
		return nil
	}
	const do = "write one freeze per dash below it, each with from, to and reason"
	list := value(freeze.at)
	if list.Kind != yaml.SequenceNode {
		p.problem(freeze.at, do, "freeze must be a list, not %s", kind(list))
		return nil
	}
	if len(list.Content) > maxFreezes {
		p.problem(freeze.at, "remove those that are over", "%d freezes are more than %d", len(list.Content), maxFreezes)
		return nil
	}
	var out []rotation.Freeze
	for i, at := range list.Content {
		is := fmt.Sprintf("freeze %d", i+1)
		keys := p.mapping(at, is, []string{"from", "to", "reason"}, nil)
		if keys == nil {
			continue
		}
		before := len(p.findings)
		one := rotation.Freeze{From: p.moment(keys, "from", is, at), To: p.moment(keys, "to", is, at)}
		if reason, ok := keys["reason"]; ok {
			one.Reason = p.reason(reason, is)
		}
		if len(p.findings) > before {
			continue
		}
		if !one.From.Before(one.To) {
			p.problem(at, "let it end after it begins", "%s ends before it begins", is)
			continue
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b rotation.Freeze) int {
		return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

// moment reads a date with time and zone.
func (p *parser) moment(keys map[string]field, key, is string, at *yaml.Node) time.Time {
	const do = "write date, time and zone, such as 2026-12-20T00:00:00Z"
	k, ok := keys[key]
	if !ok {
		p.problem(at, do, "%s has no %s", is, key)
		return time.Time{}
	}
	s, ok := p.text(k.at, key+" of "+is, do)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		p.problem(k.at, do, "%s %s of %s is not a time", key, quote(s), is)
		return time.Time{}
	}
	return t.UTC()
}

// reason reads what a person says about a freeze or a pause: one line.
func (p *parser) reason(f field, is string) string {
	key := f.key.Value
	s, ok := p.text(f.at, key+" of "+is, "write why, in one line")
	if !ok {
		return ""
	}
	isLine := strings.TrimSpace(s) == s && !strings.ContainsAny(s, "\r\n\t")
	if !isLine || len(s) > 200 {
		p.problem(f.at, "write one line of 200 bytes or fewer", "%s of %s is not one short line", key, is)
		return ""
	}
	return s
}

// readCalendar reads what one entry says about when it may be replaced.
func (e *patEntry) readCalendar() {
	e.spec.Freezes = e.list.freezes
	if k, ok := e.keys["paused"]; ok {
		e.readPaused(k)
	}
	k, ok := e.keys["windows"]
	if !ok {
		return
	}
	const do = "write days, from, to and timeZone below it, such as " +
		"{days: [mon, tue], from: \"08:00\", to: \"16:00\", timeZone: Europe/Berlin}"
	if value(k.at).Kind != yaml.MappingNode {
		e.problem(k.at, do, "windows of %s must be a mapping, not %s", e.is, kind(value(k.at)))
		return
	}
	is := "windows of " + e.is
	keys := e.mapping(k.at, is, []string{"days", "from", "to", "timeZone"}, nil)
	if keys == nil {
		return
	}
	before := len(e.findings)
	w := &rotation.Windows{Days: e.days(keys, is), Zone: e.zone(keys, is)}
	w.From = e.clock(keys, "from", is, k.at)
	w.To = e.clock(keys, "to", is, k.at)
	if len(e.findings) > before {
		return
	}
	if w.From == w.To {
		e.problem(k.at, "let it end at another time, or leave windows out to rotate at any time",
			"%s begin and end at the same time", is)
		return
	}
	e.spec.Windows = w
}

func (e *patEntry) readPaused(k field) {
	v := value(k.at)
	isBool := v.Kind == yaml.ScalarNode && v.Tag == "!!bool"
	if isBool {
		e.problem(k.at, "write why, such as paused: \"until the migration is over\", or remove it",
			"paused of %s is %s, and no reason", e.is, v.Value)
		return
	}
	e.spec.Paused = e.reason(k, e.is)
	if e.spec.Paused != "" {
		e.warn(k.key, "remove paused when that is over", "%s is paused: until then it runs out unless somebody orders "+
			"a rotation", e.is)
	}
}

// dayNames in the order of time.Weekday.
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// days reads the days on which windows begin: every day if there are none.
func (p *parser) days(keys map[string]field, is string) (out [7]bool) {
	k, ok := keys["days"]
	if !ok {
		return [7]bool{true, true, true, true, true, true, true}
	}
	do := "write a list of " + strings.Join(append(slices.Clone(dayNames[1:]), dayNames[0]), ", ")
	list := value(k.at)
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 || len(list.Content) > maxKeys {
		p.problem(k.at, do, "days of %s must be a list of days", is)
		return out
	}
	for _, n := range list.Content {
		s, ok := p.text(n, "a day of "+is, do)
		if !ok {
			continue
		}
		day := slices.Index(dayNames, strings.ToLower(s))
		switch {
		case day < 0:
			p.problem(n, do, "%s of %s is not a day", quote(s), is)
		case out[day]:
			p.warn(n, "remove one", "%s of %s is there twice", quote(s), is)
		default:
			out[day] = true
		}
	}
	return out
}

// clock reads a time of the day in minutes after midnight.
func (p *parser) clock(keys map[string]field, key, is string, at *yaml.Node) int {
	const do = "write hours and minutes in quotes, such as \"08:00\"; the end of a day is \"00:00\""
	k, ok := keys[key]
	if !ok {
		p.problem(at, do, "%s have no %s", is, key)
		return 0
	}
	s, ok := p.text(k.at, key+" of "+is, do)
	if !ok {
		return 0
	}
	hours, minutes, found := strings.Cut(s, ":")
	h, errH := strconv.ParseUint(hours, 10, 8)
	m, errM := strconv.ParseUint(minutes, 10, 8)
	isNumbers := found && errH == nil && errM == nil
	isWritten := len(hours) <= 2 && len(minutes) == 2
	isOfADay := h < 24 && m < 60
	if !isNumbers || !isWritten || !isOfADay {
		p.problem(k.at, do, "%s %s of %s is not a time of the day", key, quote(s), is)
		return 0
	}
	return int(h)*60 + int(m)
}

// zone reads a time zone: UTC if there is none.
func (p *parser) zone(keys map[string]field, is string) *time.Location {
	k, ok := keys["timeZone"]
	if !ok {
		return time.UTC
	}
	const do = "write a name of the IANA time zone database, such as Europe/Berlin"
	s, ok := p.text(k.at, "timeZone of "+is, do)
	if !ok {
		return time.UTC
	}
	zone, err := time.LoadLocation(s)
	isMachines := s == "Local" // the zone of whichever machine this runs on
	if err != nil || isMachines {
		p.problem(k.at, do, "timeZone %s of %s is not known", quote(s), is)
		return time.UTC
	}
	return zone
}
