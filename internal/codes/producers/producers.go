// Package producers reads off the source where the values of a field are made: it
// follows them through struct fields, variables, parameters and results of the
// module's own functions. Tests use it to hold a page against all that the code can
// write; nothing else imports it.
//
// It knows Go, and must not know what a code or a message is: callers say which fields
// they mean.
package producers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Module is the path before every package of the project.
const Module = "github.com/azure-patrol/patrol/"

// Unknown stands in a form for a part that differs from run to run.
const Unknown = "<>"

// Place is where a value is made.
type Place struct {
	At string // file:line
	// Form is the value, with Unknown for the parts that are not constant.
	Form string
	// From names a value of which nothing can be read off the source:
	// "package function: expression".
	From string
}

// source is one type-checked package.
type source struct {
	*types.Info
	path  string
	files []*ast.File
	// within finds the function, declared or literal, around each node that matters.
	within map[ast.Node][]ast.Node
}

// Source is the production code, type-checked.
type Source struct {
	Files   *token.FileSet
	Root    string
	imports types.Importer
	sources []*source
	decls   map[string]declared // by types.Func.FullName
	calls   map[string][]site   // of a declared function
	local   map[types.Object][]site
	writes  map[string][]site // into a field
	asked   func(field string) bool
	seen    map[string]bool
	places  []Place
}

type declared struct {
	in   *source
	decl *ast.FuncDecl
}

// site is an expression in its package.
type site struct {
	in   *source
	expr ast.Expr
	call *ast.CallExpr // of a function, instead of expr
}

// Load type-checks the handler's packages below root, the module's folder. What they
// import comes from the compiler. Packages for tests, whose names end in test, are
// left out.
func Load(root string) (*Source, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,GoFiles,Export",
		"./internal/...", "./handler/...", Module+"events/...")
	list.Dir = root
	var problems bytes.Buffer
	list.Stderr = &problems
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages: %w\n%s", err, problems.String())
	}
	type listed struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
	}
	exports, own := map[string]string{}, []listed{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("listing the packages: %w", err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, Module) && !strings.HasSuffix(p.ImportPath, "test") {
			own = append(own, p)
		}
	}
	x := &Source{Files: token.NewFileSet(), Root: root, decls: map[string]declared{}, calls: map[string][]site{},
		local: map[types.Object][]site{}, writes: map[string][]site{}}
	open := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	x.imports = importer.ForCompiler(x.Files, "gc", open)
	for _, p := range own {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(x.Files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
		if err := x.Add(p.ImportPath, files...); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// Add checks one more package and notes who calls what in it.
func (x *Source) Add(path string, files ...*ast.File) error {
	s := &source{path: path, files: files, within: map[ast.Node][]ast.Node{}, Info: &types.Info{
		Types:      map[ast.Expr]types.TypeAndValue{},
		Defs:       map[*ast.Ident]types.Object{},
		Uses:       map[*ast.Ident]types.Object{},
		Selections: map[*ast.SelectorExpr]*types.Selection{},
	}}
	if _, err := (&types.Config{Importer: x.imports}).Check(path, x.Files, files, s.Info); err != nil {
		return fmt.Errorf("checking %s: %w", path, err)
	}
	x.sources = append(x.sources, s)
	for _, f := range files {
		x.index(s, f)
	}
	return nil
}

// Functions passes every function of the module with its package's types.
func (x *Source) Functions(see func(fn *types.Func, decl *ast.FuncDecl, info *types.Info)) {
	for _, d := range x.decls {
		see(d.in.Defs[d.decl.Name].(*types.Func), d.decl, d.in.Info)
	}
}

// index notes who calls what, and what is written where.
func (x *Source) index(s *source, f *ast.File) {
	var around []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			around = around[:len(around)-1]
			return true
		}
		around = append(around, n)
		s.within[n] = functions(around)
		switch n := n.(type) {
		case *ast.FuncDecl:
			if fn, ok := s.Defs[n.Name].(*types.Func); ok {
				x.decls[fn.FullName()] = declared{s, n}
			}
		case *ast.CallExpr:
			if fn := s.callee(n); fn != nil {
				x.calls[fn.FullName()] = append(x.calls[fn.FullName()], site{in: s, call: n})
			} else if id, ok := ast.Unparen(n.Fun).(*ast.Ident); ok && s.Uses[id] != nil {
				o := s.Uses[id]
				x.local[o] = append(x.local[o], site{in: s, call: n})
			}
		case *ast.CompositeLit:
			x.literal(s, n)
		case *ast.AssignStmt:
			for i, to := range n.Lhs {
				x.assigned(s, to, n.Rhs, i)
			}
		case *ast.ValueSpec:
			for i, to := range n.Names {
				x.assigned(s, to, n.Values, i)
			}
		}
		return true
	})
}

func functions(around []ast.Node) []ast.Node {
	var out []ast.Node
	for _, n := range slices.Backward(around) {
		switch n.(type) {
		case *ast.FuncDecl, *ast.FuncLit:
			out = append(out, n)
		}
	}
	return out
}

func (s *source) callee(n *ast.CallExpr) *types.Func {
	fun := ast.Unparen(n.Fun)
	if i, ok := fun.(*ast.IndexExpr); ok {
		fun = i.X
	}
	switch fun := fun.(type) {
	case *ast.Ident:
		fn, _ := s.Uses[fun].(*types.Func)
		return fn
	case *ast.SelectorExpr:
		fn, _ := s.Uses[fun.Sel].(*types.Func)
		return fn
	}
	return nil
}

// literal notes the fields of a struct that is written down.
func (x *Source) literal(s *source, n *ast.CompositeLit) {
	owner, fields := structOf(s.Types[n].Type)
	if fields == nil {
		return
	}
	for i, e := range n.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			key := owner + "." + pair.Key.(*ast.Ident).Name
			x.writes[key] = append(x.writes[key], site{in: s, expr: pair.Value})
		} else {
			key := owner + "." + fields.Field(i).Name()
			x.writes[key] = append(x.writes[key], site{in: s, expr: e})
		}
	}
}

// assigned notes one target of an assignment.
func (x *Source) assigned(s *source, to ast.Expr, values []ast.Expr, i int) {
	if len(values) == 0 {
		return // the zero value
	}
	from := ast.Expr(&result{Expr: values[0], i: i})
	_, call := ast.Unparen(values[0]).(*ast.CallExpr)
	if len(values) > 1 || i == 0 && !call {
		from = values[i]
	}
	switch to := ast.Unparen(to).(type) {
	case *ast.SelectorExpr:
		if key := s.field(to); key != "" {
			x.writes[key] = append(x.writes[key], site{in: s, expr: from})
		}
	case *ast.Ident:
		o := s.Defs[to]
		if o == nil {
			o = s.Uses[to]
		}
		if o != nil {
			x.local[o] = append(x.local[o], site{in: s, expr: from})
		}
	}
}

// result is one of the results of a call.
type result struct {
	ast.Expr
	i int
}

// field names the struct's field that a selector means: package.Type.Field.
func (s *source) field(n *ast.SelectorExpr) string {
	sel := s.Selections[n]
	if sel == nil || sel.Kind() != types.FieldVal {
		return ""
	}
	at := sel.Recv()
	for _, i := range sel.Index() {
		owner, fields := structOf(at)
		if fields == nil {
			return ""
		}
		at = fields.Field(i).Type()
		if fields.Field(i) == sel.Obj() || fields.Field(i).Name() == sel.Obj().Name() {
			return owner + "." + sel.Obj().Name()
		}
	}
	return ""
}

func structOf(t types.Type) (owner string, fields *types.Struct) {
	if t == nil {
		return "", nil
	}
	if p, ok := t.Underlying().(*types.Pointer); ok {
		t = p.Elem()
	}
	fields, _ = t.Underlying().(*types.Struct)
	if n, ok := types.Unalias(t).(*types.Named); ok && fields != nil && n.Obj().Pkg() != nil {
		return n.Obj().Pkg().Path() + "." + n.Obj().Name(), fields
	}
	return "", fields
}

// Of finds the places where the values of fields are made. asked says which fields are
// meant, by package.Type.Field, without the module's path; attribute is the name of a
// log line's attribute that is meant too, or empty.
func (x *Source) Of(asked func(field string) bool, attribute string) []Place {
	x.seen, x.places = map[string]bool{}, nil
	x.asked = func(field string) bool {
		name, ok := strings.CutPrefix(field, Module)
		return ok && asked(name)
	}
	for field, sites := range x.writes {
		if !x.asked(field) {
			continue
		}
		for _, w := range sites {
			if isString(w.in.typeOf(w.expr)) {
				x.follow(w.in, w.expr)
			}
		}
	}
	for _, s := range x.sources {
		for _, f := range s.files {
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && attribute != "" {
					x.logged(s, call, attribute)
				}
				return true
			})
		}
	}
	slices.SortFunc(x.places, func(a, b Place) int { return strings.Compare(a.At+a.Form+a.From, b.At+b.Form+b.From) })
	return slices.Compact(x.places)
}

func unwrap(e ast.Expr) ast.Expr {
	if r, ok := e.(*result); ok {
		return r.Expr
	}
	return e
}

// typeOf is the type of an expression, or of one of a call's results.
func (s *source) typeOf(e ast.Expr) types.Type {
	t := s.Types[unwrap(e)].Type
	if r, ok := e.(*result); ok {
		if all, ok := t.(*types.Tuple); ok {
			return all.At(r.i).Type()
		}
	}
	return t
}

func isString(t types.Type) bool {
	if t == nil {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsString != 0
}

// text is the value of a constant string; empty for anything else.
func (s *source) text(e ast.Expr) string {
	if v := s.Types[e].Value; v != nil && v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	return ""
}

// logged follows an attribute of a log line.
func (x *Source) logged(s *source, call *ast.CallExpr, attribute string) {
	fn := s.callee(call)
	if fn == nil {
		return
	}
	params := fn.Signature().Params()
	attributes := fn.Signature().Variadic() && params.At(params.Len()-1).Type().String() == "[]any"
	if !attributes && fn.FullName() != "log/slog.String" {
		return
	}
	for i := 0; i+1 < len(call.Args); i++ {
		if s.text(call.Args[i]) == attribute {
			x.follow(s, call.Args[i+1])
		}
	}
}

// follow finds what an expression may be.
func (x *Source) follow(s *source, e ast.Expr) {
	at := x.Files.Position(e.Pos())
	file, _ := filepath.Rel(x.Root, at.Filename)
	id := fmt.Sprintf("%s:%d:%d", file, at.Line, at.Column)
	if r, ok := e.(*result); ok {
		id += "#" + strconv.Itoa(r.i)
	}
	if x.seen[id] {
		return
	}
	x.seen[id] = true
	line := fmt.Sprintf("%s:%d", file, at.Line)

	made := func(form string) { x.places = append(x.places, Place{At: line, Form: form}) }
	unread := func() {
		from := strings.TrimPrefix(s.path, Module) + " " + s.name(unwrap(e)) + ": " + types.ExprString(unwrap(e))
		x.places = append(x.places, Place{At: line, From: from})
	}
	if r, ok := e.(*result); ok {
		call, ok := ast.Unparen(r.Expr).(*ast.CallExpr)
		switch {
		case ok && r.i == 0:
			x.called(s, call, made, unread)
		case !ok || !x.returned(s, call, r.i):
			unread()
		}
		return
	}
	e = ast.Unparen(e)
	if s.Types[e].Value != nil {
		if code := s.text(e); code != "" {
			made(code)
		}
		return
	}
	switch e := e.(type) {
	case *ast.SelectorExpr:
		key := s.field(e)
		switch {
		case key == "" || !strings.HasPrefix(key, Module):
			unread()
		case x.asked(key): // followed already
		default:
			x.field(key, unread)
		}
	case *ast.Ident:
		x.variable(s, e, unread)
	case *ast.BinaryExpr:
		if begins := s.text(e.X); begins != "" {
			made(begins + Unknown)
			return
		}
		unread()
	case *ast.CallExpr:
		x.called(s, e, made, unread)
	default:
		unread()
	}
}

// field follows what is written into a field that is no code by its name.
func (x *Source) field(key string, unread func()) {
	if x.seen[key] {
		return
	}
	x.seen[key] = true
	if len(x.writes[key]) == 0 {
		unread()
	}
	for _, w := range x.writes[key] {
		x.follow(w.in, w.expr)
	}
}

// variable follows what is assigned to a variable, or handed over as a parameter.
func (x *Source) variable(s *source, e *ast.Ident, unread func()) {
	o := s.Uses[e]
	if o == nil {
		unread()
		return
	}
	for _, fn := range s.within[e] {
		i, ok := s.parameter(fn, o)
		if !ok {
			continue
		}
		var sites []site
		switch fn := fn.(type) {
		case *ast.FuncDecl:
			sites = x.calls[s.Defs[fn.Name].(*types.Func).FullName()]
		case *ast.FuncLit:
			for v, assigned := range x.local {
				for _, a := range assigned {
					if a.expr == fn {
						sites = append(sites, x.local[v]...)
					}
				}
			}
		}
		if len(sites) == 0 {
			unread()
		}
		for _, c := range sites {
			if c.call != nil && i < len(c.call.Args) {
				x.follow(c.in, c.call.Args[i])
			}
		}
		return
	}
	found := false
	for _, a := range x.local[o] {
		if a.expr != nil {
			found = true
			x.follow(a.in, a.expr)
		}
	}
	if !found {
		unread()
	}
}

func (s *source) parameter(fn ast.Node, o types.Object) (int, bool) {
	var params *ast.FieldList
	switch fn := fn.(type) {
	case *ast.FuncDecl:
		params = fn.Type.Params
	case *ast.FuncLit:
		params = fn.Type.Params
	}
	i := 0
	for _, f := range params.List {
		for _, name := range f.Names {
			if s.Defs[name] == o {
				return i, true
			}
			i++
		}
	}
	return 0, false
}

// called follows a call: of a conversion, of the module's own function, of the few
// others that pass a text on.
func (x *Source) called(s *source, e *ast.CallExpr, made func(string), unread func()) {
	if s.Types[e.Fun].IsType() {
		x.follow(s, e.Args[0])
		return
	}
	if x.returned(s, e, 0) {
		return
	}
	fn := s.callee(e)
	switch {
	case fn == nil:
		unread()
	case fn.FullName() == "cmp.Or":
		for _, a := range e.Args {
			x.follow(s, a)
		}
	case fn.FullName() == "fmt.Sprintf":
		x.formatted(s, e, made)
	default:
		unread()
	}
}

var verb = regexp.MustCompile(`%[a-z]`)

// formatted makes forms of a Sprintf. What stands first is followed, for it may be a
// constant that says what follows.
func (x *Source) formatted(s *source, e *ast.CallExpr, made func(string)) {
	format := s.text(e.Args[0])
	at := verb.FindStringIndex(format)
	if at == nil || at[0] > 0 || len(e.Args) < 2 {
		made(verb.ReplaceAllString(format, Unknown))
		return
	}
	rest := verb.ReplaceAllString(format[at[1]:], Unknown)
	before := x.places
	x.places = nil
	x.follow(s, e.Args[1])
	first := x.places
	x.places = before
	if len(first) == 0 {
		made(Unknown + rest)
	}
	for _, p := range first {
		if p.From != "" {
			p.Form, p.From = Unknown, ""
		}
		p.Form += rest
		x.places = append(x.places, p)
	}
}

// returned follows the result i of one of the module's own functions.
func (x *Source) returned(s *source, e *ast.CallExpr, i int) bool {
	fn := s.callee(e)
	if fn == nil {
		return false
	}
	d, ok := x.decls[fn.FullName()]
	if !ok {
		return false
	}
	named := map[types.Object]bool{}
	at := 0
	for _, f := range d.decl.Type.Results.List {
		for _, name := range f.Names {
			if at == i {
				named[d.in.Defs[name]] = true
			}
			at++
		}
	}
	for o := range named {
		for _, a := range x.local[o] {
			if a.expr != nil {
				x.follow(a.in, a.expr)
			}
		}
	}
	ast.Inspect(d.decl.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			switch {
			case len(n.Results) > i && (len(n.Results) > 1 || i == 0):
				if id, ok := n.Results[i].(*ast.Ident); !ok || !named[d.in.Uses[id]] {
					x.follow(d.in, n.Results[i])
				}
			case len(n.Results) == 1:
				x.follow(d.in, &result{Expr: n.Results[0], i: i})
			}
		}
		return true
	})
	return true
}

// name is the innermost declared function around a node.
func (s *source) name(n ast.Node) string {
	for _, f := range s.within[n] {
		if d, ok := f.(*ast.FuncDecl); ok {
			return d.Name.Name
		}
	}
	return "package"
}
