package codes_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/codes"
	"github.com/azure-patrol/patrol/internal/codes/producers"
)

// handedOn is where a word comes from outside of patrol, by the expression that reads
// it, and the family of the table that it belongs to. An empty family: it is a code
// that patrol has shown before.
var handedOn = map[string]string{
	"internal/devops result: r.Error":                                                        "<patTokenError>",
	"internal/devops decodeError: w.TypeKey":                                                 "<...>Exception",
	"internal/devops number: text[i:end]":                                                    "TF<number>, VS<number>",
	"internal/entra readRefusal: body.Error":                                                 "<OAuth error>",
	"internal/entra ReadCallback: v.Get(\"error\")":                                          "<OAuth error>",
	"internal/entra deviceFailure: m[1]":                                                     "<OAuth error>",
	"internal/entra parseRequired: f[0]":                                                     "",
	"internal/customhandler message: m.ApplicationProperties[\"DeadLetterReason\"].(string)": "<dead-letter reason>",
}

func load(t *testing.T) *producers.Source {
	t.Helper()
	source, err := producers.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// made are the places where anything is made that people meet as a code: every string
// field that is called one, the type of a problem, the word of Health, and the
// attribute of log lines.
func made(source *producers.Source) []producers.Place {
	return source.Of(func(field string) bool {
		switch field[strings.LastIndex(field, "/")+1:] {
		case "web.Problem.Type", "web.healthJSON.Status":
			return true
		}
		return strings.HasSuffix(field, ".Code") || strings.HasSuffix(field, ".code")
	}, "code")
}

// typePrefix goes before the code in a problem's type.
const typePrefix = "urn:patrol:problem:"

// judge holds what producers make against the table: faults names what is not there,
// and used has every code and family that came up.
func judge(places []producers.Place) (faults []string, used map[string]bool) {
	exact, families := map[string]bool{}, map[string]bool{}
	for _, g := range codes.Table() {
		for _, e := range g.Entries {
			for _, c := range e.Codes {
				exact[c] = exact[c] || e.Pattern == ""
				families[c] = families[c] || e.Pattern != ""
			}
		}
	}
	used = map[string]bool{}
	for _, p := range places {
		switch {
		case p.From != "":
			family, known := handedOn[p.From]
			if !known {
				faults = append(faults, p.At+": cannot tell which codes this is: "+p.From)
			} else if family != "" && !families[family] {
				faults = append(faults, p.At+": the table has no family "+family)
			}
			used[family], used[p.From] = true, true
		case p.Form == typePrefix+producers.Unknown:
		case strings.Contains(p.Form, producers.Unknown):
			begins, _, _ := strings.Cut(p.Form, producers.Unknown)
			found := false
			for form, is := range families {
				if is && begins != "" && strings.HasPrefix(form, begins) {
					found, used[form] = true, true
				}
			}
			if !found {
				faults = append(faults, p.At+": the table has no family of codes like "+p.Form)
			}
		case !exact[p.Form]:
			faults = append(faults, p.At+": the table has no code "+p.Form)
		default:
			used[p.Form] = true
		}
	}
	return faults, used
}

func TestEveryCodeThatIsProducedIsInTheTable(t *testing.T) {
	t.Parallel()
	faults, used := judge(made(load(t)))
	for _, f := range faults {
		t.Error(f)
	}
	for _, g := range codes.Table() {
		for _, e := range g.Entries {
			for _, c := range e.Codes {
				if !used[c] && (e.Pattern != "" || !e.Service) {
					t.Errorf("%s: nothing in the module produces the code %s: take it out of the table", g.Title, c)
				}
			}
		}
	}
	for from := range handedOn {
		if !used[from] {
			t.Errorf("handedOn has %q, and no code comes from there", from)
		}
	}
}

// A package that makes codes in each of the ways in which they can be made.
const example = `package example

import (
	"cmp"
	"fmt"
	"log/slog"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

type failure struct{ code, word string }

const named = "by-constant"

func fail(code, message string) error { return &rotation.Error{Code: code, Message: message} }

func word() (message, code string) { return "", "by-result" }

func literal() error   { return &rotation.Error{Code: "by-literal"} }
func constant() error  { return &reconcile.Refusal{Code: named} }
func parameter() error { return fail("by-parameter", "") }
func position() failure { return failure{"by-position", ""} }
func closure() error {
	refuse := func(code string) error { return &rotation.Error{Code: code} }
	return refuse("by-closure")
}
func assigned(e *rotation.Error) { e.Code = "by-assignment" }
func variable(b bool) error {
	code := "by-variable"
	if b {
		code = "by-second-variable"
	}
	return fail(code, "")
}
func several() (e rotation.Error) {
	_, e.Code = word()
	return e
}
func field() error {
	f := failure{word: "by-field"}
	return fail(f.word, "")
}
func choice() error             { return fail(cmp.Or("", "by-choice"), "") }
func beginning(n int) error     { return fail(fmt.Sprintf("by-format-%d", n), "") }
func prefixed(what string, n int) error { return fail(fmt.Sprintf("%s-%d", what, n), "") }
func format() error             { return prefixed("by-first-part", 1) }
func sum(s string) error        { return fail("by-sum-"+s, "") }
func unread(m map[string]string) error { return fail(m["x"], "") }
func logged(log *slog.Logger)   { log.Warn("message", "code", "by-log") }
`

func TestNoWayToMakeACodeIsOverlooked(t *testing.T) {
	t.Parallel()
	x := load(t)
	f, err := parser.ParseFile(x.Files, filepath.Join(x.Root, "example.go"), example, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Add(producers.Module+"internal/example", f); err != nil {
		t.Fatal(err)
	}
	faults, _ := judge(made(x))
	got := strings.Join(faults, "\n")
	for _, want := range []string{
		"by-literal", "by-constant", "by-parameter", "by-position", "by-closure", "by-assignment", "by-variable",
		"by-second-variable", "by-result", "by-field", "by-choice", "by-format-<>", "by-first-part-<>",
		"by-sum-<>", "by-log",
		`internal/example unread: m["x"]`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s was not found; what was found:\n%s", want, got)
		}
	}
	if !strings.Contains(got, "\nexample.go:20: the table has no code by-literal") {
		t.Errorf("a fault does not name its line:\n%s", got)
	}
}

// Where patrol knows a word of a service, it knows more than the family says.
func TestTheTableHasEveryWordOfAzureDevOpsThatPatrolKnows(t *testing.T) {
	t.Parallel()
	explained := map[string]bool{}
	for _, g := range codes.Table() {
		for _, e := range g.Entries {
			for _, c := range e.Codes {
				explained[c] = true
			}
		}
	}
	words := 0
	load(t).Functions(func(fn *types.Func, decl *ast.FuncDecl, info *types.Info) {
		results := fn.Signature().Results()
		classifies := results.Len() > 0 && results.At(0).Type().String() == producers.Module+"internal/rotation.Class"
		if !classifies || fn.Pkg().Path() != producers.Module+"internal/devops" {
			return
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			if c, ok := n.(*ast.CaseClause); ok {
				for _, e := range c.List {
					v := info.Types[e].Value
					if v == nil {
						continue
					}
					words++
					if word := constant.StringVal(v); !explained[word] {
						t.Errorf("%s knows %s, and the table does not", fn.Name(), word)
					}
				}
			}
			return true
		})
	})
	if words < 30 {
		t.Errorf("%d words were found: this test looks in the wrong place", words)
	}
}

func TestTheTableIsSound(t *testing.T) {
	t.Parallel()
	for _, g := range codes.Table() {
		seen := map[string]bool{}
		for _, e := range g.Entries {
			name := g.Title + ": " + strings.Join(e.Codes, ", ")
			if e.Means == "" || e.Do == "" {
				t.Errorf("%s: says not what it means, or not what to do", name)
			}
			for _, text := range []string{e.Means, e.Do} {
				if strings.ContainsAny(text, "|\n") || !strings.HasSuffix(text, ".") {
					t.Errorf("%s: %q is no sentence that fits into a table", name, text)
				}
			}
			if len(e.Codes) == 0 || e.Pattern != "" && len(e.Codes) != 1 {
				t.Errorf("%s: has %d codes", name, len(e.Codes))
			}
			for _, c := range e.Codes {
				if seen[c] {
					t.Errorf("%s: %s is there twice", name, c)
				}
				seen[c] = true
				if e.Service && e.Pattern == "" && !inFamily(t, g, c) {
					t.Errorf("%s: %s is said by a service, and no family of its group has such words", name, c)
				}
			}
		}
	}
}

func inFamily(t *testing.T, g codes.Group, code string) bool {
	t.Helper()
	for _, e := range g.Entries {
		if e.Pattern == "" {
			continue
		}
		pattern, err := regexp.Compile("^(?:" + e.Pattern + ")$")
		if err != nil {
			t.Fatalf("%s: %v", e.Codes[0], err)
		}
		if pattern.MatchString(code) {
			return true
		}
	}
	return false
}
