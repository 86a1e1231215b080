package house_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const module = "github.com/azure-patrol/patrol/"

// root is the project's folder, seen from this package's.
const root = "../.."

// source is one Go file of the project.
type source struct {
	path string // from the root, with slashes
	text string
	fset *token.FileSet
	file *ast.File
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) at(p token.Pos) string { return fmt.Sprintf("%s:%d", s.path, s.fset.Position(p).Line) }

// sources are all Go files below a folder of the project. HOUSE names one to look at
// alone, while it is being put in order.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	for _, path := range paths(t, ".go") {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, source{path: path, text: string(text), fset: fset, file: file})
	}
	return out
}

// paths are the project's files with one of these endings.
func paths(t *testing.T, endings ...string) []string {
	t.Helper()
	var out []string
	skipped := []string{".git", ".cache", "dist", "node_modules"}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(skipped, d.Name()) {
			return filepath.SkipDir
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		wanted := slices.Contains(endings, filepath.Ext(path)) && strings.HasPrefix(relative, os.Getenv("HOUSE"))
		if wanted && !d.IsDir() {
			out = append(out, relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("no files ending in %v were found: the check would hold whatever the code is", endings)
	}
	return out
}

func TestTheRulesKnowTheStandardLibraryOnly(t *testing.T) {
	for _, dependency := range dependencies(t, "./internal/rotation") {
		if dependency != module+"internal/rotation" {
			t.Errorf("internal/rotation needs %s: words and rules need the standard library only", dependency)
		}
	}
}

func TestTheRulesHaveNoGoroutineAndNoLock(t *testing.T) {
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.path, "internal/rotation/") || s.test() {
			continue
		}
		for _, i := range s.file.Imports {
			if i.Path.Value == `"sync"` || i.Path.Value == `"sync/atomic"` {
				t.Errorf("%s: internal/rotation imports %s: what needs a lock belongs into internal/reconcile",
					s.at(i.Pos()), i.Path.Value)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: internal/rotation starts a goroutine", s.at(g.Pos()))
			}
			return true
		})
	}
}

func TestOnlyAppAndWebSeeTheMachine(t *testing.T) {
	const machine = module + "internal/reconcile"
	seers := []string{"internal/app", "internal/web", "internal/reconcile"}
	for _, s := range sources(t) {
		production := strings.HasPrefix(s.path, "internal/") && !s.test()
		if !production || slices.Contains(seers, filepath.ToSlash(filepath.Dir(s.path))) {
			continue
		}
		for _, i := range s.file.Imports {
			if i.Path.Value == `"`+machine+`"` {
				t.Errorf("%s: only %v may import internal/reconcile; an adapter imports words", s.at(i.Pos()), seers)
			}
		}
	}
}

func TestProductionDoesNotImportTheSandbox(t *testing.T) {
	for _, dependency := range dependencies(t, "./handler") {
		if strings.HasPrefix(dependency, module+"sandbox") {
			t.Errorf("the handler links %s", dependency)
		}
	}
}

func TestTheLayoutInTheREADMEIsTrue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, layout, _ := strings.Cut(string(text), "## Layout")
	layout, _, _ = strings.Cut(layout, "\n## ")
	named := map[string]bool{}
	for line := range strings.Lines(layout) {
		folder, rest, found := strings.Cut(line, "/")
		if !found || rest == "" || strings.Contains(strings.TrimSpace(folder), " ") {
			continue
		}
		name := strings.TrimSpace(folder)
		if strings.HasPrefix(line, "  ") {
			name = "internal/" + name
		}
		named[name] = true
	}
	for _, folder := range []string{".", "internal"} {
		entries, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.ToSlash(filepath.Join(folder, e.Name()))
			isOurs := e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "dist"
			if isOurs && name != "internal" && !named[name] {
				t.Errorf("the layout in README.md has no folder %s", name)
			}
			delete(named, name)
		}
	}
	for name := range named {
		if strings.Contains(name, "`") {
			continue
		}
		t.Errorf("the layout in README.md has a folder %s that is not there", name)
	}
}

// dependencies are all packages that a package links and that are not the standard
// library's.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Fields(string(out))
	if len(found) == 0 {
		t.Fatalf("go list found no dependencies of %s", pkg)
	}
	return found
}

// columns is the width of a line; a tab counts four.
func columns(line string) int { return len([]rune(strings.ReplaceAll(line, "\t", "    "))) }

func TestNoLineIsLongerThan120Columns(t *testing.T) {
	for _, path := range paths(t, ".go", ".html", ".css", ".js") {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if n := columns(line); n > 120 {
				t.Errorf("%s:%d: %d columns", path, i+1, n)
			}
		}
	}
}

func TestNoAssignmentStandsInFrontOfACondition(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if i, ok := n.(*ast.IfStmt); ok && hidesAssignment(i) {
				t.Errorf("%s: an assignment stands in front of the condition: give it a line of its own", s.at(i.Pos()))
			}
			return true
		})
	}
}

// hidesAssignment finds `if x = y; condition`, and `if x++; condition`. A short
// declaration, whose name ends with the if, is Go's own idiom.
func hidesAssignment(i *ast.IfStmt) bool {
	switch init := i.Init.(type) {
	case *ast.AssignStmt:
		return init.Tok != token.DEFINE
	case *ast.IncDecStmt:
		return true
	}
	return false
}

// maxConditions is how many conditions an if may join before they want a name.
const maxConditions = 3

func TestNoIfHasMoreThanThreeConditions(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if i, ok := n.(*ast.IfStmt); ok && conditions(i.Cond) > maxConditions {
				t.Errorf("%s: %d conditions in one if: name them", s.at(i.Pos()), conditions(i.Cond))
			}
			return true
		})
	}
}

// conditions counts what && and || join.
func conditions(e ast.Expr) int {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return conditions(e.X)
	case *ast.UnaryExpr:
		return conditions(e.X)
	case *ast.BinaryExpr:
		if e.Op == token.LAND || e.Op == token.LOR {
			return conditions(e.X) + conditions(e.Y)
		}
	}
	return 1
}

// unwanted are words of a dialect that nobody else speaks, and what to say instead.
var unwanted = map[string]string{
	"tell": "notify", "told": "notified", "untold": "not notified", "complain": "warn",
	"look": "observe, plan, reread or check", "looks": "observations", "looked": "observed",
	"roster": "patlist", "abreast": "in parallel", "gap": "interval",
	"deed": "action", "stray": "unmanaged", "strays": "unmanaged", "whom": "the token's owner",
	"rig": "fixture", "confess": "what it does", "borrowed": "what it does", "hopeless": "what it does",
	"util": "what it holds", "helper": "what it does", "manager": "what it does", "common": "what it holds",
}

func TestNamesSpeakTheFieldsLanguage(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, id := range declared(s.file) {
			for _, word := range words(id.Name) {
				if better, bad := unwanted[word]; bad {
					t.Errorf("%s: the name %s says %q: say %s", s.at(id.Pos()), id.Name, word, better)
				}
			}
		}
	}
}

// declared are the names that a file gives; those that it uses may be others'.
func declared(file *ast.File) []*ast.Ident {
	out := []*ast.Ident{file.Name}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			out = append(out, n.Name)
		case *ast.TypeSpec:
			out = append(out, n.Name)
		case *ast.ValueSpec:
			out = append(out, n.Names...)
		case *ast.Field:
			out = append(out, n.Names...)
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				return true
			}
			for _, e := range n.Lhs {
				if id, ok := e.(*ast.Ident); ok {
					out = append(out, id)
				}
			}
		}
		return true
	})
	return out
}

// words splits a name at its capitals and underscores.
func words(name string) []string {
	var out []string
	var word []rune
	runes := []rune(name)
	for i, r := range runes {
		starts := unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(runes[i-1])
		if (starts || r == '_') && len(word) > 0 {
			out = append(out, strings.ToLower(string(word)))
			word = nil
		}
		if r != '_' {
			word = append(word, r)
		}
	}
	return append(out, strings.ToLower(string(word)))
}

// The checks above find what they are for.

func TestTheConditionsOfAnIfAreCounted(t *testing.T) {
	for expression, want := range map[string]int{
		"a": 1, "a && b": 2, "!(a || b) && c": 3, "a && (b || c) && d": 4, "f(a && b && c && d)": 1,
	} {
		e, err := parser.ParseExpr(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := conditions(e); got != want {
			t.Errorf("%s has %d conditions, counted as %d", expression, want, got)
		}
	}
}

func TestAHiddenAssignmentIsFound(t *testing.T) {
	for statement, want := range map[string]bool{
		"if x = f(); x > 0 {}": true, "if x++; x > 0 {}": true, "if x := f(); x > 0 {}": false, "if x > 0 {}": false,
		"if x, err = f(); err != nil {}": true,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package p\nfunc g() {\n"+statement+"\n}", 0)
		if err != nil {
			t.Fatal(err)
		}
		body := file.Decls[0].(*ast.FuncDecl).Body.List[0]
		if got := hidesAssignment(body.(*ast.IfStmt)); got != want {
			t.Errorf("%s: hides an assignment: %v, want %v", statement, got, want)
		}
	}
}

func TestTheNamesThatAFileGivesAreFound(t *testing.T) {
	const text = "package p\nimport q \"q\"\ntype a struct{ b int }\n" +
		"func c(d int) (e int) { f := q.Look; var g, h int; _ = q.X{K: 1}; return }"
	file, err := parser.ParseFile(token.NewFileSet(), "x.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range declared(file) {
		got = append(got, id.Name)
	}
	slices.Sort(got)
	if want := []string{"a", "b", "c", "d", "e", "f", "g", "h", "p"}; !slices.Equal(got, want) {
		t.Errorf("names: %v, want %v", got, want)
	}
}

func TestNamesAreSplitIntoWords(t *testing.T) {
	for name, want := range map[string][]string{
		"errUntold": {"err", "untold"}, "lastLook": {"last", "look"}, "PATList": {"patlist"}, "a_b": {"a", "b"},
	} {
		if got := words(name); !slices.Equal(got, want) {
			t.Errorf("words of %s: %v, want %v", name, got, want)
		}
	}
}

// A panic in a goroutine that nobody guards ends the process, and with it every other
// invocation. Each one holds it (panics.Held), or runs what does, or belongs to a command.
func TestNoGoroutineCanEndTheProcess(t *testing.T) {
	guards := []string{"panics.Held(", "inParallel(", "server.Serve(", "c.Wait()"}
	bodies := map[string]string{} // of functions and methods, by package and name
	type start struct{ at, dir, text string }
	var starts []start
	for _, s := range sources(t) {
		if !strings.HasPrefix(s.path, "internal/") || strings.HasSuffix(s.path, "_test.go") {
			continue
		}
		dir := filepath.Dir(s.path)
		if slices.Contains([]string{"internal/telemetry/otlptest", "internal/reconcile/portstest"}, dir) {
			continue
		}
		text := func(n ast.Node) string {
			return s.text[s.fset.Position(n.Pos()).Offset:s.fset.Position(n.End()).Offset]
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Body != nil {
					bodies[dir+" "+n.Name.Name] += text(n.Body)
				}
			case *ast.GoStmt:
				starts = append(starts, start{s.at(n.Pos()), dir, text(n.Call)})
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Go" && len(n.Args) == 1 {
					starts = append(starts, start{s.at(n.Pos()), dir, text(n.Args[0])})
				}
			}
			return true
		})
	}
	if len(starts) < 10 {
		t.Fatalf("%d goroutines were found: the test does not see them", len(starts))
	}
	for _, g := range starts {
		name, _, _ := strings.Cut(g.text, "(")
		called := bodies[g.dir+" "+name[strings.LastIndexByte(name, '.')+1:]]
		if !slices.ContainsFunc(guards, func(guard string) bool { return strings.Contains(g.text+called, guard) }) {
			t.Errorf("%s: nobody holds a panic of this goroutine: %s", g.at, g.text)
		}
	}
}
