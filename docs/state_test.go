package docs_test

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/codes/producers"
	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	azure "github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// page is docs/state.md.
type page struct{ text string }

func statePage(t *testing.T) page {
	t.Helper()
	b, err := os.ReadFile("state.md")
	if err != nil {
		t.Fatal(err)
	}
	return page{string(b)}
}

var quoted = regexp.MustCompile("`([^`]+)`")

// column gives what a column of the tables under a heading has in backquotes; the table
// is found by the head of its first column.
func (p page) column(t *testing.T, heading, head string, column int) []string {
	t.Helper()
	_, section, ok := strings.Cut(p.text, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("state.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	_, table, ok := strings.Cut(section, "\n| "+head+" |")
	if !ok {
		t.Fatalf("state.md has no table of %q in %q", head, heading)
	}
	var out []string
	for i, line := range strings.Split(table, "\n") {
		if i < 2 { // the rest of the head, and the rule below it
			continue
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.Split(line, "|")[column], -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// same names everything that only one side has.
func same(t *testing.T, what string, onPage, inCode []string) {
	t.Helper()
	for _, x := range inCode {
		if !slices.Contains(onPage, x) {
			t.Errorf("%s: the code has %q, and state.md does not", what, x)
		}
	}
	for _, x := range onPage {
		if !slices.Contains(inCode, x) {
			t.Errorf("%s: state.md has %q, and the code does not", what, x)
		}
	}
	if len(inCode) == 0 {
		t.Errorf("%s: nothing was found in the code: this test looks in the wrong place", what)
	}
}

// fill sets every field of a struct to something.
func fill(v reflect.Value, at time.Time) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(at))
		case f.Kind() == reflect.Struct:
			fill(f, at)
		case f.Kind() == reflect.String:
			f.SetString("text")
		case f.Kind() == reflect.Int:
			f.SetInt(1)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		}
	}
}

type credential struct{}

func (credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "token", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestSecretsOfPATsAreOnThePage(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	kv, err := keyvault.New(keyvault.Config{
		URL: server.URL, Authority: "https://login.microsoftonline.com", Tenant: "tenant",
		Injector: &faults.Injector{}, Verify: func(string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = kv
	v, err := vault.New(vault.Config{
		URL: server.URL, Credential: credential{}, DisableChallengeResourceVerification: true,
		ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: server.Client().Transport}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ledger rotation.Ledger
	fill(reflect.ValueOf(&ledger).Elem(), time.Now())
	withoutConsumers := ledger // the last tag gives way to theirs
	withoutConsumers.Confirmed = ""
	var stored rotation.Version
	found := map[string]bool{}
	for _, l := range []rotation.Ledger{withoutConsumers, ledger} {
		content := rotation.Content{Value: rotation.NewSecret("value"), Expires: time.Now().Add(time.Hour), Ledger: l}
		stored, err = v.Store(t.Context(), "a-pat", content)
		if err != nil {
			t.Fatal(err)
		}
		_, tags, _, _, err := vault.NewStore(v).Read(t.Context(), "a-pat")
		if err != nil {
			t.Fatal(err)
		}
		for name := range tags {
			found[name] = true
		}
	}
	names := slices.Sorted(maps.Keys(found))
	p := statePage(t)
	same(t, "tags of a PAT's secret", p.column(t, "Tags of a PAT's secret", "tag", 1), names)
	same(t, "content types", p.column(t, "Secrets", "name", 2),
		[]string{stored.ContentType, vault.IdentityContentType, keyring.ContentType})
	same(t, "names of secrets", p.column(t, "Secrets", "name", 1),
		[]string{"<name of the PAT>", entra.SecretName("<identity>"), keyring.SecretName})
	same(t, "names of PATs", p.column(t, "Names of PATs", "form", 1),
		[]string{rotation.DisplayName("<declared name>", "<vault tag>", "<rotation id>")})
}

// A literal is a constant text in production code.
type literal struct {
	file, text string
}

// production parses what the handler is made of.
func production(t *testing.T, see func(file string, n ast.Node)) {
	t.Helper()
	for _, root := range []string{"../internal", "../handler", "../events"} {
		err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
			forTests := strings.HasSuffix(name, "_test.go") || strings.HasSuffix(filepath.Dir(name), "test")
			if err != nil || forTests || !strings.HasSuffix(name, ".go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				see(strings.TrimPrefix(filepath.ToSlash(name), "../"), n)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func literals(t *testing.T) []literal {
	t.Helper()
	var out []literal
	production(t, func(file string, n ast.Node) {
		switch n := n.(type) {
		case *ast.Field:
			if n.Tag != nil { // `json:"patrol-public,omitempty"`
				tag, err := strconv.Unquote(n.Tag.Value)
				if err == nil {
					name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
					out = append(out, literal{file, name})
				}
			}
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil {
				out = append(out, literal{file, text})
			}
		}
	})
	return out
}

// What is written into a vault, a browser or a message begins like this.
var ours = regexp.MustCompile(`^(patrol-[a-z-]+|__Host-.+|application/vnd\.patrol\..+|` +
	`patrol\.(pat|identity|check)\.[a-z-]+)$`)

func TestEveryNameThatPatrolWritesIsOnThePage(t *testing.T) {
	t.Parallel()
	p := statePage(t)
	var onPage []string
	for _, m := range quoted.FindAllStringSubmatch(p.text, -1) {
		onPage = append(onPage, m[1])
	}
	var identity, cookies []string
	for _, l := range literals(t) {
		if !ours.MatchString(l.text) {
			continue
		}
		known := slices.ContainsFunc(onPage, func(s string) bool {
			// A name that something is put behind: patrol-identity-<identity>.
			return s == l.text || strings.HasSuffix(l.text, "-") && strings.HasPrefix(s, l.text+"<")
		})
		if !known {
			t.Errorf("%s writes %q, and state.md does not explain it", l.file, l.text)
		}
		switch {
		case strings.HasPrefix(l.text, "__Host-"):
			cookies = append(cookies, l.text)
		case strings.HasPrefix(l.file, "internal/entra/tags") && strings.HasPrefix(l.text, "patrol-"):
			identity = append(identity, l.text)
		}
	}
	same(t, "tags of an identity's secret", p.column(t, "Tags of an identity's secret", "tag", 1), identity)
	same(t, "cookies", p.column(t, "In browsers", "name", 1), cookies)
}

// messages sends through the real client to the sandbox's Service Bus.
func messages(t *testing.T, send func(context.Context, *bus.Bus) error) []azure.Message {
	t.Helper()
	var mu sync.Mutex
	var sent []azure.Message
	synctest.Test(t, func(t *testing.T) {
		namespace, err := azure.New(azure.Config{
			Entities: broker.Entities{
				Queues: []broker.Queue{{Name: "commands", Properties: broker.Properties{RequiresSession: true}}},
				Topics: []broker.Topic{{Name: "events", Subscriptions: []broker.Subscription{{Name: "all"}}}},
			},
			KeyName: "key", Key: "right", Injector: &faults.Injector{},
			OnSend: func(_ string, m azure.Message) {
				mu.Lock()
				defer mu.Unlock()
				sent = append(sent, m)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer namespace.Close()
		connect := func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			near, far := net.Pipe()
			go namespace.ServeConn(far)
			return near, nil
		}
		b, err := bus.New(bus.Config{
			ConnectionString: "Endpoint=sb://bus.test;SharedAccessKeyName=key;SharedAccessKey=right;" +
				"UseDevelopmentEmulator=true",
			Queue: "commands", Topic: "events", VaultHost: "contoso.vault.azure.net",
			Options: azservicebus.ClientOptions{NewWebSocketConn: connect},
			Trace: func(ctx context.Context, _ string, _ int) (context.Context, bus.Trace) {
				return ctx, bus.Trace{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := send(t.Context(), b); err != nil {
			t.Error(err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return sent
}

// Values of which an id is made, and what state.md calls them.
const (
	attempt  = 77
	days     = 14
	sequence = 4711
	accepted = 12
)

func moment() time.Time { return time.Unix(1_800_000_000, 0).UTC() }

var called = strings.NewReplacer("77", "<attempt>", "1800000000", "<unix time>", "20833", "<day>", "/14", "/<days>",
	"4711", "<sequence number>", "/12", "/<pats>")

func TestCommandsAreOnThePage(t *testing.T) {
	t.Parallel()
	p := statePage(t)
	c := rotation.Command{PAT: "<pat>", Reason: "<reason>", From: "<from>", RevokePrevious: rotation.Now,
		RequestedBy: "<who>", Attempt: attempt, Operation: "<operation>"}
	full := c
	full.Since, full.Prove = moment(), true
	full.Accepted = rotation.MassChange{PATs: accepted, Until: moment()}
	confirm := c
	confirm.Confirmation = &rotation.Confirmation{SecretVersion: "v", Consumer: "c", Outcome: rotation.HasSwitched}
	sent := messages(t, func(ctx context.Context, b *bus.Bus) error { return b.Send(ctx, c, full, confirm) })
	hash := regexp.MustCompile("[0-9a-f]{40}$")
	var fields, ids []string
	for _, m := range sent {
		ids = append(ids, hash.ReplaceAllString(called.Replace(m.ID), "<hash>"))
		var body map[string]any
		if err := json.Unmarshal(m.Body, &body); err != nil {
			t.Fatal(err)
		}
		for name := range body {
			fields = append(fields, name)
		}
	}
	same(t, "fields of a command", p.column(t, "Commands", "field", 1), fields)
	same(t, "ids of commands", p.column(t, "Commands", "id of a command", 1), ids)
}

// placeholder is a part of an id that differs from one to the next.
var placeholder = regexp.MustCompile(`<[^<>]*>`)

func TestOperationsAreOnThePage(t *testing.T) {
	t.Parallel()
	source, err := producers.Load("..")
	if err != nil {
		t.Fatal(err)
	}
	var inCode, onPage []string
	// One function cuts both the operation of an order and the name of who gives it, so
	// that patrol's names for itself are found here as well.
	names := statePage(t).column(t, "Commands", "field", 2)
	places := source.Of(func(field string) bool { return field == "internal/rotation.Command.Operation" }, "")
	for _, p := range places {
		// What is all of one piece is made by others: a message's id, a random text.
		isKnown := slices.Contains(names, p.Form) || slices.Contains(inCode, p.Form)
		if p.Form != "" && p.Form != producers.Unknown && !isKnown {
			inCode = append(inCode, p.Form)
		}
	}
	for _, form := range statePage(t).column(t, "Commands", "operation", 1) {
		form = placeholder.ReplaceAllString(form, producers.Unknown)
		if form != producers.Unknown {
			onPage = append(onPage, form)
		}
	}
	same(t, "operations", onPage, inCode)
}

// everyEvent is one of each kind, filled with the names that state.md uses.
func everyEvent() []rotation.Event {
	spec := rotation.Spec{Name: "<pat>", Identity: "<identity>", Organization: "contoso"}
	at := moment()
	trouble := rotation.Trouble{Scope: "<scope>", Identity: "<identity>", Organization: "<organization>",
		Code: "<code>"}
	switching := rotation.Switching{Spec: spec, At: at, Version: rotation.Version{ID: "version",
		Ledger: rotation.Ledger{RotationID: "<rotation id>", AuthorizationID: "<authorization id>"}}}
	return []rotation.Event{
		&rotation.Rotated{Spec: spec, RotationID: "<rotation id>", SecretID: "https://vault/secrets/s/v",
			SecretVersion: "version", AuthorizationID: "<authorization id>", At: at},
		&rotation.Revoked{Spec: spec, RotationID: "<rotation id>", AuthorizationID: "<authorization id>",
			Cause: rotation.OverlapEnded, At: at},
		&rotation.RotationFailed{Spec: spec, RotationID: "<rotation id>", Step: "<step>", Class: rotation.Policy,
			Code: "<code>", At: at},
		&rotation.PostponedPAT{Spec: spec, AuthorizationID: "<authorization id>",
			Postponement: rotation.Postponement{Reason: "<reason>"}, ValidTo: at, At: at},
		&rotation.SwitchedOver{Switching: switching},
		&rotation.SwitchLate{Switching: switching,
			LateSwitch: rotation.LateSwitch{Missing: []string{"<consumer>"}, EndsAt: at}},
		&rotation.SwitchRefused{Switching: switching, Consumer: rotation.Consumer{Name: "<consumer>"}},
		&rotation.PostponedPAT{Spec: spec, AuthorizationID: "<authorization id>",
			Postponement: rotation.Postponement{Reason: "<reason>", Until: at}, ValidTo: at, At: at},
		&rotation.RotationFailed{Spec: spec, Mark: rotation.MessageMark{Queue: "<queue>", SequenceNumber: sequence},
			Step: rotation.StepReceive, Class: rotation.Transient, At: at},
		&rotation.ExpiringPAT{Owner: spec.Owner(), PAT: rotation.PAT{AuthorizationID: "<authorization id>"},
			Days: days, At: at},
		&rotation.SignedIn{Identity: "<identity>", At: at},
		&rotation.SignInRequired{Identity: "<identity>", At: at},
		&rotation.SignInExpiring{Identity: "<identity>", Until: at, At: at},
		&rotation.CheckIncomplete{Trouble: trouble, Class: rotation.Policy, Since: at, At: at},
		&rotation.CheckRecovered{Trouble: trouble, Since: at, At: at},
	}
}

func TestEventsAndPropertiesAreOnThePage(t *testing.T) {
	t.Parallel()
	p := statePage(t)
	sent := messages(t, func(ctx context.Context, b *bus.Bus) error {
		var errs []error
		for _, e := range everyEvent() {
			errs = append(errs, b.Publish(ctx, e))
		}
		due := rotation.Command{PAT: "p", Reason: rotation.Check}
		later := due
		later.At = time.Now().Add(time.Hour)
		return errors.Join(append(errs, b.Send(ctx, due, later))...)
	})
	var types, ids, properties []string
	for _, m := range sent {
		if m.ContentType == events.ContentType {
			types, ids = append(types, m.Subject), append(ids, called.Replace(m.ID))
		}
		for name := range m.Properties {
			if !slices.Contains(properties, name) {
				properties = append(properties, name)
			}
		}
	}
	same(t, "types of events", p.column(t, "Events", "type", 1), types)
	same(t, "ids of events", p.column(t, "Events", "type", 2), ids)
	same(t, "properties of messages", p.column(t, "Properties of messages", "property", 1), properties)
}

// What everyEvent does not have would be missed above.
func TestEveryKindOfEventIsLookedAt(t *testing.T) {
	t.Parallel()
	var kinds, tested []string
	production(t, func(_ string, n ast.Node) {
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "event" {
			kinds = append(kinds, f.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name)
		}
	})
	for _, e := range everyEvent() {
		tested = append(tested, reflect.TypeOf(e).Elem().Name())
	}
	for _, k := range kinds {
		if !slices.Contains(tested, k) {
			t.Errorf("everyEvent lacks a %s", k)
		}
	}
	if len(kinds) == 0 {
		t.Error("no kind of event was found: this test looks in the wrong place")
	}
}
