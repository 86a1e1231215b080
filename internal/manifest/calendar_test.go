package manifest_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const calendarHead = `apiVersion: patrol/v1
identities: {bot: {user: bot@contoso.com}}
`

const onePAT = "pats: [{name: a, identity: bot, organization: contoso, scopes: [vso.code]}]\n"

func entryWith(rest string) string {
	return head + "  - {name: a, identity: bot, organization: contoso, scopes: [vso.code]" + rest + "}\n"
}

func TestACalendarIsRead(t *testing.T) {
	t.Parallel()
	m, _, err := manifest.Parse("pats.yaml", []byte(calendarHead+`pats:
  - name: a
    identity: bot
    organization: contoso
    scopes: [vso.code]
    windows: {days: [mon, Tue], from: "08:00", to: "16:30", timeZone: Europe/Berlin}
  - name: b
    identity: bot
    organization: contoso
    scopes: [vso.code]
    windows:
      from: 22:00
      to: 0:00
  - name: c
    identity: bot
    organization: contoso
    scopes: [vso.code]
    paused: "until the migration is over"
calendar:
  freeze:
    - {from: 2027-04-01T00:00:00+02:00, to: "2027-04-10T00:00:00Z"}
    - {from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z, reason: year end}
`))
	if err != nil {
		t.Fatal(err)
	}
	date := func(y int, m time.Month, d, h int) time.Time { return time.Date(y, m, d, h, 0, 0, 0, time.UTC) }
	freezes := []rotation.Freeze{
		{From: date(2026, 12, 20, 0), To: date(2027, 1, 4, 0), Reason: "year end"},
		{From: date(2027, 3, 31, 22), To: date(2027, 4, 10, 0)},
	}
	for _, s := range m.PATs {
		if !reflect.DeepEqual(s.Freezes, freezes) {
			t.Errorf("%s: freezes %v, want %v", s.Name, s.Freezes, freezes)
		}
	}
	want := map[string]string{
		"a": "mon tue 08:00 to 16:30 Europe/Berlin", "b": "mon tue wed thu fri sat sun 22:00 to 00:00 UTC", "c": "",
	}
	for _, s := range m.PATs {
		got := ""
		if s.Windows != nil {
			got = s.Windows.String()
		}
		if got != want[s.Name] {
			t.Errorf("%s: windows %q, want %q", s.Name, got, want[s.Name])
		}
	}
	c, _ := m.PAT("c")
	if c.Paused != "until the migration is over" {
		t.Errorf("paused %q", c.Paused)
	}
}

func TestAPauseIsWarnedOf(t *testing.T) {
	t.Parallel()
	_, warnings, err := manifest.Parse("pats.yaml", []byte(entryWith(", paused: migration")))
	if err != nil {
		t.Fatal(err)
	}
	const want = `pats.yaml:4:73: PAT "a" is paused: until then it runs out unless somebody orders a rotation; ` +
		`remove paused when that is over`
	if got := manifest.Findings(warnings).Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEachRuleOfTheCalendarHasItsMessage(t *testing.T) {
	t.Parallel()
	freeze := func(text string) string { return calendarHead + onePAT + "calendar:\n  freeze:\n" + text }
	for _, tt := range []struct{ name, text, want string }{
		{"a calendar that is a word", calendarHead + onePAT + "calendar: none\n",
			`pats.yaml:4:11: calendar must be a mapping, not a single value;
			write its keys below it, indented: freeze`},
		{"an unknown key", calendarHead + onePAT + "calendar: {freezes: []}\n",
			`pats.yaml:4:12: calendar has an unknown key "freezes"; did you mean freeze?`},
		{"a freeze that is no list", calendarHead + onePAT + "calendar: {freeze: {from: 1}}\n",
			`pats.yaml:4:20: freeze must be a list, not a mapping;
			write one freeze per dash below it, each with from, to and reason`},
		{"a freeze without an end", freeze("    - {from: 2026-12-20T00:00:00Z}\n"),
			`pats.yaml:6:7: freeze 1 has no to; write date, time and zone, such as 2026-12-20T00:00:00Z`},
		{"a date alone", freeze("    - {from: 2026-12-20, to: 2027-01-04T00:00:00Z}\n"),
			`pats.yaml:6:14: from "2026-12-20" of freeze 1 is not a time;
			write date, time and zone, such as 2026-12-20T00:00:00Z`},
		{"a time without a zone", freeze("    - {from: 2026-12-20T00:00:00, to: 2027-01-04T00:00:00Z}\n"),
			`pats.yaml:6:14: from "2026-12-20T00:00:00" of freeze 1 is not a time;
			write date, time and zone, such as 2026-12-20T00:00:00Z`},
		{"a day that is not there", freeze("    - {from: 2026-02-30T00:00:00Z, to: 2027-01-04T00:00:00Z}\n"),
			`pats.yaml:6:14: from "2026-02-30T00:00:00Z" of freeze 1 is not a time;
			write date, time and zone, such as 2026-12-20T00:00:00Z`},
		{"an end before the beginning", freeze("    - {from: 2027-01-04T00:00:00Z, to: 2026-12-20T00:00:00Z}\n"),
			`pats.yaml:6:7: freeze 1 ends before it begins; let it end after it begins`},
		{"a reason of two lines",
			freeze("    - {from: 2026-12-20T00:00:00Z, to: 2027-01-04T00:00:00Z, reason: \"a\\nb\"}\n"),
			`pats.yaml:6:70: reason of freeze 1 is not one short line; write one line of 200 bytes or fewer`},

		{"windows as a list", entryWith(", windows: [mon]"),
			`pats.yaml:4:82: windows of PAT "a" must be a mapping, not a list;
			write days, from, to and timeZone below it,
			such as {days: [mon, tue], from: "08:00", to: "16:00", timeZone: Europe/Berlin}`},
		{"a window without an end", entryWith(`, windows: {from: "08:00"}`),
			`pats.yaml:4:82: windows of PAT "a" have no to;
			write hours and minutes in quotes, such as "08:00"; the end of a day is "00:00"`},
		{"an hour alone", entryWith(`, windows: {from: 8, to: "16:00"}`),
			`pats.yaml:4:89: from "8" of windows of PAT "a" is not a time of the day;
			write hours and minutes in quotes, such as "08:00"; the end of a day is "00:00"`},
		{"24:00", entryWith(`, windows: {from: "08:00", to: "24:00"}`),
			`pats.yaml:4:102: to "24:00" of windows of PAT "a" is not a time of the day;
			write hours and minutes in quotes, such as "08:00"; the end of a day is "00:00"`},
		{"seconds", entryWith(`, windows: {from: "08:00:00", to: "16:00"}`),
			`pats.yaml:4:89: from "08:00:00" of windows of PAT "a" is not a time of the day;
			write hours and minutes in quotes, such as "08:00"; the end of a day is "00:00"`},
		{"a window of no time", entryWith(`, windows: {from: "08:00", to: "08:00"}`),
			`pats.yaml:4:82: windows of PAT "a" begin and end at the same time;
			let it end at another time, or leave windows out to rotate at any time`},
		{"a long day", entryWith(`, windows: {days: [Monday], from: "08:00", to: "16:00"}`),
			`pats.yaml:4:90: "Monday" of windows of PAT "a" is not a day;
			write a list of mon, tue, wed, thu, fri, sat, sun`},
		{"no days", entryWith(`, windows: {days: [], from: "08:00", to: "16:00"}`),
			`pats.yaml:4:89: days of windows of PAT "a" must be a list of days;
			write a list of mon, tue, wed, thu, fri, sat, sun`},
		{"an abbreviated zone", entryWith(`, windows: {from: "08:00", to: "16:00", timeZone: CEST}`),
			`pats.yaml:4:121: timeZone "CEST" of windows of PAT "a" is not known;
			write a name of the IANA time zone database, such as Europe/Berlin`},
		{"the machine's zone", entryWith(`, windows: {from: "08:00", to: "16:00", timeZone: Local}`),
			`pats.yaml:4:121: timeZone "Local" of windows of PAT "a" is not known;
			write a name of the IANA time zone database, such as Europe/Berlin`},
		{"paused: true", entryWith(", paused: true"),
			`pats.yaml:4:81: paused of PAT "a" is true, and no reason;
			write why, such as paused: "until the migration is over", or remove it`},
		{"paused without a word", entryWith(`, paused: ""`),
			`pats.yaml:4:81: paused of PAT "a" is empty; write why, in one line`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := manifest.Parse("pats.yaml", []byte(tt.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); got != unfold(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, unfold(tt.want))
			}
			if _, ok := errors.AsType[manifest.Findings](err); !ok {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}
