package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
)

// maxRows keeps a Markdown table within what a comment on a pull request may have.
const maxRows = 200

// table is what text and Markdown show alike. The first cell of a row never holds a text
// of others: to GitHub a line of a log that begins with "::" is a command.
type table struct {
	title string
	head  []string
	rows  [][]string
	names int // the column of names, as code in Markdown; -1: none
}

func writeJSON(w io.Writer, body any) error {
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return err
	}
	// A name may hold what a CI's log takes for a command, ##vso[...] anywhere in a
	// line: written so, it is the same name.
	b = bytes.ReplaceAll(b, []byte("##"), []byte(`\u0023\u0023`))
	_, err = w.Write(append(b, '\n'))
	return err
}

func writePlan(w io.Writer, format, path string, r web.PlanReport) error {
	if format == "json" {
		return writeJSON(w, r)
	}
	return writeTables(w, format, "Plan for "+path, summary(r), changeTable(r), calendarTable(r),
		warningTable(r), problemTable(r))
}

// summary counts the changes, and what the plan rests on.
func summary(r web.PlanReport) string {
	counts := map[string]int{}
	for _, c := range r.Changes {
		counts[c.Action]++
	}
	var parts []string
	for _, action := range []string{"create", "rotate", "adopt", "revoke", "revoke-orphan", "announce", "release",
		"refuse", "sign-in"} {
		if n := counts[action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, action))
		}
	}
	text := "No changes"
	if len(parts) > 0 {
		text = "Changes: " + strings.Join(parts, ", ")
	}
	text += fmt.Sprintf(". %d in the manifest", r.Counts.Managed)
	if n := r.Counts.Unknown; n > 0 {
		text += fmt.Sprintf(" (%d unknown)", n)
	}
	text += ", "
	if len(r.Problems) > 0 {
		text += "at least "
	}
	return text + fmt.Sprintf("%d unmanaged.", r.Counts.Unmanaged)
}

func changeTable(r web.PlanReport) table {
	t := table{title: "Changes", head: []string{"Action", "PAT", "When", "Why"}, names: 1}
	for _, c := range r.Changes {
		why := c.Message
		if c.Reason != "" {
			why = c.Reason + ": " + why
		}
		at := "now"
		switch {
		case c.Action == "release":
			at = "-"
			if c.At != nil {
				at = "ends " + moment(*c.At)
			}
		case c.At != nil:
			at = moment(*c.At)
		case c.Action == "refuse", c.Action == "sign-in":
			at = "-"
		}
		t.rows = append(t.rows, []string{c.Action, c.PAT, at, why})
	}
	return t
}

// calendarTable holds the PATs that are replaced later than they are due.
func calendarTable(r web.PlanReport) table {
	t := table{title: "Postponed by the calendar", head: []string{"PAT", "Due", "Replaced", "Waits for"}, names: 0}
	for _, p := range r.PATs {
		if p.Postponed == nil {
			continue
		}
		due, replaced := "-", "not before then"
		if p.Postponed.Due != nil {
			due = moment(*p.Postponed.Due)
		}
		if p.RotateAt != nil {
			replaced = moment(*p.RotateAt)
		}
		t.rows = append(t.rows, []string{p.Name, due, replaced, p.Postponed.Reason})
	}
	return t
}

// warningTable holds the PATs that a person should see to.
func warningTable(r web.PlanReport) table {
	t := table{title: "Warnings", head: []string{"Kind", "PAT", "Owner", "Ends", "Why"}, names: 1}
	why := func(global, full, expiring bool) string {
		var parts []string
		if global {
			end := rotation.GlobalEnd().Format(time.DateOnly)
			parts = append(parts, "valid in all organizations: stops working on "+end)
		}
		if full {
			parts = append(parts, "may do all that its user may")
		}
		if expiring {
			parts = append(parts, "ends soon, and nothing replaces it")
		}
		return strings.Join(parts, "; ")
	}
	for _, p := range r.PATs {
		if w := why(p.Global, p.FullScope, false); w != "" {
			end := "-"
			if p.ValidTo != nil {
				end = moment(*p.ValidTo)
			}
			t.rows = append(t.rows, []string{"managed", p.Name, p.Identity + " in " + p.Organization, end, w})
		}
	}
	for _, p := range r.Unmanaged {
		if w := why(p.Global, p.FullScope, p.Expiring); w != "" {
			t.rows = append(t.rows, []string{"unmanaged", p.DisplayName, p.Identity + " in " + p.Organization,
				moment(p.ValidTo), w})
		}
	}
	return t
}

func problemTable(r web.PlanReport) table {
	t := table{title: "Problems", head: []string{"Where", "What"}, names: -1}
	for _, b := range r.Problems {
		where := "vault"
		if b.Identity != "" {
			where = "identity " + b.Identity
		}
		if b.Organization != "" {
			where += " in " + b.Organization
		}
		what := b.Message
		if b.Code != "" {
			what += " (" + b.Code + ")"
		}
		t.rows = append(t.rows, []string{where, what})
	}
	return t
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04Z") }

// schedule is when a PAT of the manifest would be replaced.
type schedule struct {
	Name         string   `json:"name"`
	Identity     string   `json:"identity"`
	Organization string   `json:"organization"`
	DisplayName  string   `json:"displayName"`
	Scopes       []string `json:"scopes"`
	Lifetime     string   `json:"lifetime"`
	RotateBefore string   `json:"rotateBefore"`
	Overlap      string   `json:"overlap"`
	// RotateAfter counts from the PAT's creation. It is a little earlier than
	// lifetime less rotateBefore: a fleet does not rotate in one moment.
	RotateAfter string `json:"rotateAfter"`
}

func writeSchedule(w io.Writer, format, path string, m *manifest.Manifest) error {
	all := []schedule{}
	t := table{title: "Schedule", head: []string{"Identity", "PAT", "Organization", "Lifetime", "Replaced after",
		"Old one ends", "Scopes"}, names: 1}
	for _, s := range m.PATs {
		made := rotation.GlobalEnd() // any moment does: what follows counts from it
		after := rotation.Due(s, made, made.Add(s.Lifetime)).Sub(made).Truncate(time.Minute)
		e := schedule{
			Name: s.Name, Identity: s.Identity, Organization: s.Organization, DisplayName: s.DisplayName,
			Scopes: s.Scopes, Lifetime: manifest.FormatDuration(s.Lifetime),
			RotateBefore: manifest.FormatDuration(s.RotateBefore), Overlap: manifest.FormatDuration(s.Overlap),
			RotateAfter: manifest.FormatDuration(after),
		}
		all = append(all, e)
		t.rows = append(t.rows, []string{s.Identity, s.Name, s.Organization, e.Lifetime, roughly(after),
			e.Overlap + " later", strings.Join(s.Scopes, " ")})
	}
	if format == "json" {
		return writeJSON(w, struct {
			PATs    []schedule `json:"pats"`
			Refused []string   `json:"refused,omitempty"`
		}{all, refused(m)})
	}
	left := table{title: "Refused entries", head: []string{"Problem"}}
	for _, r := range refused(m) {
		left.rows = append(left.rows, []string{r})
	}
	return writeTables(w, format, "Schedule of "+path,
		fmt.Sprintf("%d in the manifest; nobody was asked what there is.", len(all)), t, left)
}

// refused are the problems of the entries that are not in force.
func refused(m *manifest.Manifest) []string {
	var out []string
	for _, r := range m.Refused {
		out = append(out, r.String())
	}
	return out
}

// roughly writes a duration for people.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd %dh", d/day, d%day/time.Hour)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dm", d/time.Minute)
}

func writeTables(w io.Writer, format, title, summary string, tables ...table) error {
	var b strings.Builder
	if format == "markdown" {
		markdown(&b, title, summary, tables)
	} else {
		text(&b, title, summary, tables)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func text(b *strings.Builder, title, summary string, tables []table) {
	fmt.Fprintf(b, "%s\n%s\n", plain(title), summary)
	for _, t := range tables {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n%s\n", t.title)
		columns := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(columns, "  "+strings.ToUpper(strings.Join(t.head, "\t")))
		for _, row := range t.rows {
			cells := make([]string, len(row))
			for i, cell := range row {
				cells[i] = plain(cell)
			}
			fmt.Fprintln(columns, "  "+strings.Join(cells, "\t"))
		}
		_ = columns.Flush() // a Builder takes everything
	}
}

func markdown(b *strings.Builder, title, summary string, tables []table) {
	fmt.Fprintf(b, "## %s\n\n%s\n", escape(title), summary)
	for _, t := range tables {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n### %s\n\n| %s |\n|%s\n", t.title, strings.Join(t.head, " | "),
			strings.Repeat(" --- |", len(t.head)))
		for _, row := range t.rows[:min(len(t.rows), maxRows)] {
			cells := make([]string, len(row))
			for i, cell := range row {
				cells[i] = escape(cell)
				if i == t.names {
					// Nothing in code is a link, or calls a person.
					cells[i] = "<code>" + cells[i] + "</code>"
				}
			}
			fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
		}
		if more := len(t.rows) - maxRows; more > 0 {
			fmt.Fprintf(b, "\nAnd %d more: -format json has them all.\n", more)
		}
	}
}

// plain removes from a text what could move a terminal's cursor, end a line or, as
// ##vso[...] does anywhere in a line, give a CI's log a command.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(strings.ReplaceAll(s, "##", "# #"))
}

// escape makes a text of others mean nothing in Markdown or HTML: a character
// reference is never markup.
func escape(s string) string {
	var b strings.Builder
	for _, r := range plain(s) {
		if r < unicode.MaxASCII && strings.ContainsRune("\\`*_{}[]<>|#~&!@$", r) {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
