package infra_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// queryFiles are the queries of the alerts, by file name.
func queryFiles(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("queries/*.kql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no queries: %v", err)
	}
	all := map[string]string{}
	for _, name := range files {
		all[filepath.Base(name)] = readFile(t, name)
	}
	return all
}

// A line is a kind of log line, or an event: what it says and its attributes.
type line map[string]bool

// logLines are the lines that the handler can write, by their message, with their
// attributes: read from the calls of slog in its code.
func logLines(t *testing.T) map[string]line {
	t.Helper()
	lines := map[string]line{}
	with := line{} // attributes that loggers carry along
	files, err := filepath.Glob("../internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	methods := []string{"DebugContext", "InfoContext", "WarnContext", "ErrorContext", "Debug", "Info", "Warn", "Error"}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(parse(t, name), func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			switch {
			case !ok:
			case f.Sel.Name == "With":
				add(with, call.Args)
			case slices.Contains(methods, f.Sel.Name):
				args := call.Args
				if strings.HasSuffix(f.Sel.Name, "Context") && len(args) > 0 {
					args = args[1:]
				}
				if len(args) == 0 {
					return true
				}
				if msg, ok := text(args[0]); ok {
					if lines[msg] == nil {
						lines[msg] = line{}
					}
					add(lines[msg], args[1:])
				}
			}
			return true
		})
	}
	for _, l := range lines {
		maps.Copy(l, with)
		maps.Copy(l, line{"msg": true, "level": true, "time": true, "function": true, "invocation": true})
	}
	return lines
}

// add notes the names of attributes, which alternate with their values.
func add(l line, args []ast.Expr) {
	for i := 0; i < len(args); i += 2 {
		if name, ok := text(args[i]); ok {
			l[name] = true
		}
	}
}

// eventTypes that patrol publishes, from the code that makes them.
func eventTypes(t *testing.T) (all []string) {
	t.Helper()
	files, err := filepath.Glob("../events/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(parse(t, name), func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s, ok := text(e); ok && regexp.MustCompile(`^patrol\.[a-z]+\.[a-z-]+$`).MatchString(s) {
					all = append(all, s)
				}
			}
			return true
		})
	}
	return all
}

var (
	asksMessage   = regexp.MustCompile(`\bmsg\)? == '([^']*)'`)
	asksType      = regexp.MustCompile(`'(patrol\.[a-z]+\.[a-z-]*)'`)
	asksAttribute = regexp.MustCompile(`\bline\.(\w+)`)
)

// wrongQuery finds what a query asks for that no line of the handler's log has.
func wrongQuery(query string, lines map[string]line, types []string) (problems []string) {
	var attributes line
	for _, m := range asksMessage.FindAllStringSubmatch(query, -1) {
		l, ok := lines[m[1]]
		if !ok {
			problems = append(problems, fmt.Sprintf("no line of the log says %q", m[1]))
			continue
		}
		if attributes == nil {
			attributes = line{}
		}
		maps.Copy(attributes, l)
	}
	if attributes == nil && len(problems) == 0 {
		return []string{"the query asks for no line of the log"}
	}
	for _, m := range asksAttribute.FindAllStringSubmatch(query, -1) {
		if attributes != nil && !attributes[m[1]] {
			problems = append(problems, "the line has no attribute "+m[1])
		}
	}
	for _, m := range asksType.FindAllStringSubmatch(query, -1) {
		if !slices.ContainsFunc(types, func(s string) bool {
			return s == m[1] || strings.HasSuffix(m[1], ".") &&
				strings.HasPrefix(s, m[1])
		}) {
			problems = append(problems, "no event has the type "+m[1])
		}
	}
	return problems
}

func TestQueriesAskForLinesThatTheHandlerWrites(t *testing.T) {
	t.Parallel()
	lines, types := logLines(t), eventTypes(t)
	all := queryFiles(t)
	for title, query := range workbookQueries(t) {
		if strings.Contains(query, "AppTraces") {
			all["workbook: "+title] = query
		}
	}
	for name, query := range all {
		for _, problem := range wrongQuery(query, lines, types) {
			t.Errorf("%s: %s", name, problem)
		}
	}
	// The host files traces as they are only if it does not sample them away.
	var host struct {
		Logging struct {
			LogLevel            map[string]string
			ApplicationInsights struct {
				SamplingSettings struct{ ExcludedTypes string }
			}
		}
	}
	readJSON(t, "../host.json", &host)
	if got := host.Logging.LogLevel["Host.Function.Console"]; got != "Information" {
		t.Errorf("host.json keeps the handler's lines from level %q on: want Information", got)
	}
	if !strings.Contains(host.Logging.ApplicationInsights.SamplingSettings.ExcludedTypes, "Trace") {
		t.Error("host.json samples traces: an alert may miss its line")
	}
}

func TestAQueryForALineThatNobodyWritesIsFound(t *testing.T) {
	t.Parallel()
	lines, types := logLines(t), eventTypes(t)
	for _, tc := range []struct{ query, problem string }{
		{"AppTraces | where tostring(line.msg) == 'event publishd'", `no line of the log says "event publishd"`},
		{"AppTraces | where msg == 'event published' and tostring(line.type) == 'patrol.pat.roteted'",
			"no event has the type patrol.pat.roteted"},
		{"AppTraces | where msg == 'event published' | project x = tostring(line.colour)",
			"the line has no attribute colour"},
		{"AppTraces | where msg == 'event published' and type startswith 'patrol.pets.'",
			"no event has the type patrol.pets."},
		{"AppTraces | take 10", "the query asks for no line of the log"},
	} {
		if got := wrongQuery(tc.query, lines, types); !slices.Contains(got, tc.problem) {
			t.Errorf("%s\n got %q\nwant %q", tc.query, got, tc.problem)
		}
	}
}

// workbookQueries by their titles.
func workbookQueries(t *testing.T) map[string]string {
	t.Helper()
	var book struct {
		Items []struct {
			Type    int
			Content json.RawMessage
		}
	}
	readJSON(t, "workbook.json", &book)
	all := map[string]string{}
	for _, item := range book.Items {
		if item.Type != 3 {
			continue
		}
		var q struct{ Title, Query string }
		if err := json.Unmarshal(item.Content, &q); err != nil {
			t.Fatal(err)
		}
		if q.Title == "" || q.Query == "" {
			t.Fatalf("a query of the workbook has no title, or no text: %s", item.Content)
		}
		if all[q.Title] != "" {
			t.Fatalf("two queries of the workbook have the title %q", q.Title)
		}
		all[q.Title] = q.Query
	}
	return all
}

func TestTheWorkbookShowsWhatPeopleAskFor(t *testing.T) {
	t.Parallel()
	var all []string
	for _, q := range workbookQueries(t) {
		all = append(all, q)
	}
	text := strings.Join(all, "\n")
	for _, subject := range []string{"patrol.pat.rotated", "patrol.pat.rotation-failed", "patrol.identity.",
		"throttled", "AppMetrics", "sweep done"} {
		if !strings.Contains(text, subject) {
			t.Errorf("the workbook does not show %s", subject)
		}
	}
	book := readFile(t, "workbook.json")
	if strings.Count(book, `"{workspace}"`) != len(all)+2 {
		t.Error("each query, the parameters and the workbook itself name the workspace as {workspace}, " +
			"which the template fills in")
	}
	if strings.Contains(book, "/subscriptions/") {
		t.Error("the workbook names somebody's own resource")
	}
}
