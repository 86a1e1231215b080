package web_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
)

const (
	description  = "../../docs/openapi.yaml"
	functionsDir = "../../functions"
)

// openAPI is the description, as data and as what answers are held against.
type openAPI struct {
	Servers []struct{ URL string }
	// Security is what an operation without its own has.
	Security   []map[string][]string
	Paths      map[string]map[string]operation
	Components struct {
		Schemas   map[string]schema
		Responses map[string]response
	}

	validator validator.Validator
	answers   []string            // described: "GET /pats 200 application/json"
	statuses  map[string][]string // with which a type of problem comes
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Security    *[]map[string][]string
	Parameters  []struct {
		Ref string `yaml:"$ref"`
	}
	Responses map[string]response
}

type response struct {
	Ref     string `yaml:"$ref"`
	Content map[string]any
}

type schema struct {
	Ref         string   `yaml:"$ref"`
	AllOf       []schema `yaml:"allOf"`
	Properties  map[string]schema
	Required    []string
	Enum        []string
	Description string

	Additional  any `yaml:"additionalProperties"`
	Unevaluated any `yaml:"unevaluatedProperties"`
}

func readDescription(t *testing.T) *openAPI {
	t.Helper()
	d, err := readOnce()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// explained is a type of problem in its description.
var explained = regexp.MustCompile("(?m)^- `([a-z-]+)` \\(([0-9, ]+)\\): ")

// readOnce is for all tests: they only read it.
var readOnce = sync.OnceValues(func() (*openAPI, error) {
	text, err := os.ReadFile(description)
	if err != nil {
		return nil, err
	}
	var d openAPI
	if err := yaml.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	doc, err := libopenapi.NewDocument(text)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	d.validator = v
	d.answers = d.described()
	d.statuses = map[string][]string{}
	for _, m := range explained.FindAllStringSubmatch(d.Components.Schemas["Problem"].Properties["type"].Description,
		-1) {
		d.statuses["urn:patrol:problem:"+m[1]] = strings.Split(m[2], ", ")
	}
	return &d, nil
})

func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	t.Parallel()
	if ok, errs := readDescription(t).validator.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("%s: %s", e.Message, e.Reason)
			for _, s := range e.SchemaValidationErrors {
				t.Errorf("  %d:%d %s: %s", s.Line, s.Column, s.FieldPath, s.Reason)
			}
		}
	}
}

// The functions' own files and the description name the same routes.
func TestEveryRouteIsDescribedWithItsLevel(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	levels := map[string]string{"": "anonymous", "functionKey functionKeyInQuery": "function",
		"masterKey masterKeyInQuery": "admin"}
	described := map[string]string{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			security := d.Security
			if op.Security != nil {
				security = *op.Security
			}
			var schemes []string
			for _, s := range security {
				schemes = append(schemes, slices.Sorted(maps.Keys(s))...)
			}
			level, ok := levels[strings.Join(schemes, " ")]
			if !ok {
				t.Errorf("%s %s: no level has the security %q", method, path, schemes)
			}
			// A function that takes two methods is two operations: Name, and Name.post.
			name, more, _ := strings.Cut(op.OperationID, ".")
			if more != "" {
				method = "get," + method
			}
			if more != "" || described[name] == "" {
				described[name] = strings.ToLower(method) + " " + strings.TrimPrefix(path, "/") + " " + level
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(functionsDir, "*", "function.json"))
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Bindings []struct {
				Type, AuthLevel, Route string
				Methods                []string
			}
		}
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		if b := f.Bindings[0]; b.Type == "httpTrigger" {
			// HEAD is as GET, without a body.
			methods := slices.DeleteFunc(b.Methods, func(m string) bool { return m == "head" })
			declared[filepath.Base(filepath.Dir(file))] = strings.Join(methods, ",") + " " + b.Route + " " +
				b.AuthLevel
		}
	}
	if !maps.Equal(described, declared) {
		t.Errorf("described %v\ndeclared  %v", described, declared)
	}
}

// properties are the names that a schema permits; true: it demands them.
func (d *openAPI) properties(t *testing.T, s schema) map[string]bool {
	t.Helper()
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		found, ok := d.Components.Schemas[name]
		if !ok {
			t.Fatalf("no schema %s", name)
		}
		return d.properties(t, found)
	}
	out := map[string]bool{}
	for _, part := range s.AllOf {
		maps.Copy(out, d.properties(t, part))
	}
	for name := range s.Properties {
		out[name] = false
	}
	for _, name := range s.Required {
		out[name] = true
	}
	return out
}

// fields are the JSON names of a struct; true: an answer always has it. nested is
// called with the structs that the fields hold.
func fields(of reflect.Type, nested func(reflect.Type)) map[string]bool {
	out := map[string]bool{}
	for f := range of.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			maps.Copy(out, fields(f.Type, nested))
			continue
		}
		out[cmp.Or(name, f.Name)] = !strings.Contains(options, "omit")
		held := f.Type
		for held.Kind() == reflect.Pointer || held.Kind() == reflect.Slice {
			held = held.Elem()
		}
		if held.Kind() == reflect.Struct && held != reflect.TypeFor[time.Time]() {
			nested(held)
		}
	}
	return out
}

// schemas are the structs of the API and their schemas.
func schemas() map[string]any {
	return map[string]any{
		"Problem": web.Problem{}, "Cause": web.FailureCause{}, "BlindSpot": web.BlindSpot{}, "Links": web.Links{},
		"NextAction":       web.NextAction{},
		"ManagedPatDetail": web.ManagedPAT{}, "Version": web.VersionInfo{}, "Act": web.Act{},
		"TokenEvent": administration.AuditEntry{}, "PatAudit": web.PATAudit{},
		"Postponement": web.Postponement{},
		"Incident":     web.Incident{}, "IncidentScope": web.IncidentScope{}, "IncidentPat": web.IncidentPAT{},
		"IncidentUnmanaged": web.IncidentUnmanaged{}, "IncidentRequest": web.IncidentRequest{},
		"UnmanagedPat": web.UnmanagedPAT{}, "ReleasedPat": web.ReleasedPAT{}, "Inventory": web.Inventory{},
		"Listing":    web.Listing{},
		"PlanReport": web.PlanReport{}, "Change": web.Change{}, "Order": web.Order{}, "Extension": web.Extension{},
		"Revocation":  web.Revocation{},
		"SweepReport": web.SweepReport{}, "Failing": web.Failing{}, "IdentityStatus": web.IdentityStatus{},
		"StatusReport":   web.StatusReport{},
		"Build":          web.Build{},
		"RevocationRule": administration.Rule{}, "RuleResult": administration.RuleResult{},
		"Member":     administration.User{},
		"PlannedPat": administration.PAT{}, "PlannedUser": administration.UserPlan{},
		"AmbiguousName":  administration.Ambiguity{},
		"RevocationPlan": administration.RevocationPlan{}, "RevocationBatch": administration.Batch{},
		"UserRevocationReport": web.UserRevocationReport{},
		"RotateRequest":        web.RotateRequest{}, "ExtendRequest": web.ExtendRequest{},
		"OverlapRequest": web.OverlapRequest{}, "CheckRequest": web.CheckRequest{}, "Overlap": web.Overlap{},
		"SwitchOver": web.SwitchOver{}, "ConsumerState": web.ConsumerState{},
		"ConfirmationRequest": web.ConfirmationRequest{}, "Confirmed": web.Confirmed{},
		"SwitchOverRequest": web.SwitchOverRequest{}, "SwitchOverOrder": web.SwitchOverOrder{},
		"Restoration": web.Restoration{}, "StandingOrder": web.StandingOrder{}, "MassChange": web.MassChange{},
		"Trouble":     web.Trouble{},
		"NeedsPerson": web.NeedsPerson{}, "OrganizationStatus": web.OrganizationStatus{},
		"SharedState": web.SharedState{}, "ManifestStatus": web.ManifestStatus{},
		"UserRevocation": web.UserRevocation{},
	}
}

// misfits lists where a struct and its schema differ: a field that is added to an
// answer and not to its schema is found even if no answer of a test has it.
func (d *openAPI) misfits(t *testing.T, name string, of any, nested func(reflect.Type)) (out []string) {
	t.Helper()
	s, ok := d.Components.Schemas[name]
	if !ok {
		return []string{"there is no schema " + name}
	}
	if s.Additional != false && s.Unevaluated != false {
		out = append(out, "the schema "+name+" takes any field")
	}
	got, want := d.properties(t, s), fields(reflect.TypeOf(of), nested)
	for field, always := range want {
		demanded, ok := got[field]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("the schema %s has no %s", name, field))
		case always != demanded && name != "UserRevocation": // whose users may be left out
			out = append(out, fmt.Sprintf("the schema %s demands %s: %v, and it is always there: %v", name, field,
				demanded, always))
		}
	}
	for field := range got {
		if _, ok := want[field]; !ok {
			out = append(out, fmt.Sprintf("the schema %s has %s, which %T has not", name, field, of))
		}
	}
	return out
}

func TestEverySchemaHasTheFieldsOfItsType(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	known := map[reflect.Type]bool{}
	for _, of := range schemas() {
		known[reflect.TypeOf(of)] = true
	}
	for name, of := range schemas() {
		for _, misfit := range d.misfits(t, name, of, func(held reflect.Type) {
			if !known[held] {
				t.Errorf("%T holds a %s, which has no schema", of, held)
			}
		}) {
			t.Error(misfit)
		}
	}
}

func TestAFieldWithoutItsSchemaIsFound(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	for what, of := range map[string]any{
		"more": struct {
			web.Order
			More string `json:"more,omitempty"`
		}{},
		"less": struct {
			Operation string `json:"operation"`
		}{},
		"now and then": struct {
			web.Order
			PAT string `json:"pat,omitempty"`
		}{},
	} {
		if len(d.misfits(t, "Order", of, func(reflect.Type) {})) == 0 {
			t.Errorf("a field %s is not found", what)
		}
	}
	if len(d.misfits(t, "Nothing", web.Order{}, func(reflect.Type) {})) == 0 {
		t.Error("a type without a schema is not found")
	}
}

// Whoever may ask for something twice by mistake may name it.
func TestEveryActTakesAnIdempotencyKey(t *testing.T) {
	t.Parallel()
	for path, methods := range readDescription(t).Paths {
		for method, op := range methods {
			takes := false
			for _, p := range op.Parameters {
				takes = takes || p.Ref == "#/components/parameters/IdempotencyKey"
			}
			// The dashboard's forms have a field for it.
			if act := method != "get" && path != "/dashboard"; act != takes {
				t.Errorf("%s %s is an act: %v, and takes an Idempotency-Key: %v", method, path, act, takes)
			}
		}
	}
}

// The list of problem types is complete, and names none that there is not.
func TestEveryProblemTypeIsListed(t *testing.T) {
	t.Parallel()
	d := readDescription(t)
	var listed []string
	for _, urn := range d.Components.Schemas["Problem"].Properties["type"].Enum {
		listed = append(listed, strings.TrimPrefix(urn, "urn:patrol:problem:"))
	}
	used := map[string]bool{}
	for _, code := range []string{reconcile.UnknownPAT, reconcile.UnknownToken, reconcile.NotProvisioned,
		reconcile.NotOurs, reconcile.BadEnd, reconcile.Gone, reconcile.Overtaken, reconcile.ExtensionRefused,
		reconcile.InUse, reconcile.NothingReplaced, reconcile.OrderedToEnd, administration.Incomplete,
		administration.NotAdministrator, administration.PlanChanged, rotation.UnknownIdentity} {
		used[code] = true
	}
	for _, problem := range problemTypes(t) {
		used[problem] = true
	}
	for _, name := range listed {
		if d.statuses["urn:patrol:problem:"+name] == nil {
			t.Errorf("the problem type %s is not explained", name)
		}
	}
	if len(d.statuses) != len(listed) {
		t.Errorf("%d problem types are explained, and %d listed", len(d.statuses), len(listed))
	}
	slices.Sort(listed)
	if want := slices.Sorted(maps.Keys(used)); !slices.Equal(listed, want) {
		t.Errorf("problem types\nlisted %q\n  used %q", listed, want)
	}
}

// problemTypes are the constants for the types of problems. A Problem's Type is one of
// them, or the code of a refusal, and never written out.
func problemTypes(t *testing.T) []string {
	t.Helper()
	constants, uses := map[string]string{}, map[string]int{}
	for _, dir := range []string{"../../internal/web", "../../internal/app"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				readTypes(n, constants, uses, func(at ast.Node) {
					t.Errorf("%s: a problem's type is written out", fset.Position(at.Pos()))
				})
				return true
			})
		}
	}
	var out []string
	for name, value := range constants {
		if uses[name] < 2 {
			t.Errorf("no problem is of the type %s", name)
		}
		if value != "" {
			out = append(out, value)
		}
	}
	return out
}

// readTypes notes the constants for problems' types, and counts names: other packages
// use the constants too.
func readTypes(n ast.Node, constants map[string]string, uses map[string]int, writtenOut func(ast.Node)) {
	switch n := n.(type) {
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if i >= len(n.Values) || !isTypeName(name.Name) {
				continue
			}
			constants[name.Name] = "" // another constant's value
			if l, ok := n.Values[i].(*ast.BasicLit); ok {
				constants[name.Name], _ = strconv.Unquote(l.Value)
			}
		}
	case *ast.KeyValueExpr:
		key, _ := n.Key.(*ast.Ident)
		if key != nil && key.Name == "Type" && isString(n.Value) {
			writtenOut(n)
		}
	case *ast.AssignStmt:
		for i, right := range n.Rhs {
			to := n.Lhs[i]
			if s, ok := to.(*ast.SelectorExpr); ok {
				to = s.Sel
			}
			name, _ := to.(*ast.Ident)
			isType := name != nil && (name.Name == "Type" || name.Name == "kind")
			if isType && isString(right) {
				writtenOut(n)
			}
		}
	case *ast.CallExpr: // of the sign-in pages
		s, ok := n.Fun.(*ast.SelectorExpr)
		if ok && s.Sel.Name == "reply" && isString(n.Args[3]) {
			writtenOut(n)
		}
	case *ast.Ident:
		uses[n.Name]++ // a constant's declaration is one
	}
}

func isTypeName(name string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(name[:1])+name[1:], "type")
	return ok && rest != "" && rest[:1] != strings.ToLower(rest[:1])
}

func isString(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.STRING
}
