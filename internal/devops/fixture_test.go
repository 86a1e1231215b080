package devops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const ada = "ada@contoso.com"

var owner = rotation.Owner{Identity: "build-bot", Organization: "contoso"}

// entra gives access tokens that the sandbox accepts, "<identity>/<serial>/<end>", and
// keeps them as every credential does.
type entra struct {
	mu       sync.Mutex
	life     time.Duration
	serial   int
	requests []policy.TokenRequestOptions // that were not answered from memory
	kept     map[string]azcore.AccessToken
	scopes   []string
	err      error
	people   map[string]string // by identity
	dead     map[string]bool   // tokens that Azure DevOps no longer takes
}

func (e *entra) credential(identity string) (azcore.TokenCredential, error) {
	return credential{e, identity}, nil
}

type credential struct {
	*entra
	identity string
}

func (c credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := c.identity + " " + strings.Join(o.Scopes, " ")
	kept, ok := c.kept[key]
	if ok && o.Claims == "" && time.Now().Add(5*time.Minute).Before(kept.ExpiresOn) {
		return kept, nil
	}
	c.requests = append(c.requests, o)
	if c.err != nil {
		return azcore.AccessToken{}, c.err
	}
	c.serial++
	end := time.Now().Add(c.life)
	if c.kept == nil {
		c.kept = map[string]azcore.AccessToken{}
	}
	c.kept[key] = azcore.AccessToken{Token: fmt.Sprintf("%s/%d/%d", c.identity, c.serial, end.Unix()), ExpiresOn: end}
	return c.kept[key], nil
}

func (e *entra) verify(token string) (azure.Claims, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	identity, rest, _ := strings.Cut(token, "/")
	var serial, end int64
	if _, err := fmt.Sscanf(rest, "%d/%d", &serial, &end); err != nil || time.Now().Unix() >= end || e.dead[token] {
		return azure.Claims{}, errors.New("not accepted")
	}
	return azure.Claims{UPN: e.people[identity], Scopes: e.scopes}, nil
}

// kill makes Azure DevOps refuse a token that has not ended.
func (e *entra) kill(token string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dead[token] = true
}

func (e *entra) asked() []policy.TokenRequestOptions {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]policy.TokenRequestOptions(nil), e.requests...)
}

// fixture is the client before a sandbox.
type fixture struct {
	*devops.Client
	azure   *azure.Service
	entra   *entra
	panel   *faults.Injector
	network *memnet.Network
	log     *bytes.Buffer
	adaID   string
}

// setting changes how a fixture is built.
type setting func(*devops.Config, *fixture)

func newFixture(t *testing.T, transport *http.Client, settings ...setting) *fixture {
	t.Helper()
	s := &fixture{panel: &faults.Injector{}, log: &bytes.Buffer{}, entra: &entra{
		life: time.Hour, scopes: []string{"vso.pats", "vso.pats_manage"}, dead: map[string]bool{},
		people: map[string]string{"build-bot": ada, "night-bot": "grace@contoso.com"},
	}}
	s.azure = azure.New(azure.Config{Injector: s.panel, Verify: s.entra.verify})
	s.azure.AddOrganization(azure.Organization{Name: "contoso"})
	s.azure.AddOrganization(azure.Organization{Name: "fabrikam"})
	s.azure.AddOrganization(azure.Organization{Name: "open", Public: true})
	s.adaID = s.azure.AddUser(azure.User{UPN: ada})
	s.azure.AddUser(azure.User{UPN: "grace@contoso.com"})
	cfg := devops.Config{
		Credential:    s.entra.credential,
		ClientOptions: policy.ClientOptions{Transport: transport},
		Version:       "1.2.3",
		Log:           slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, set := range settings {
		set(&cfg, s)
	}
	c, err := devops.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Client = c
	return s
}

// run runs a story in virtual time, with the sandbox on an in-memory network.
func run(t *testing.T, story func(*testing.T, *fixture), settings ...setting) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		transport := network.Transport()
		s := newFixture(t, &http.Client{Transport: transport}, settings...)
		s.network = &network
		server := &http.Server{Handler: s.azure}
		for _, address := range []string{"dev.azure.com:443", "vssps.dev.azure.com:443",
			"auditservice.dev.azure.com:443"} {
			l, err := network.Listen(address)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = server.Serve(l) }()
		}
		defer func() {
			transport.CloseIdleConnections()
			_ = server.Close()
			synctest.Wait()
		}()
		story(t, s)
	})
}

func (s *fixture) fault(t *testing.T, f faults.Fault) {
	t.Helper()
	if err := s.panel.Inject(f); err != nil {
		t.Fatal(err)
	}
}

// says makes an operation answer a body, once, without an effect.
func (s *fixture) says(t *testing.T, operation string, status int, contentType, body string) {
	t.Helper()
	s.fault(t, faults.Fault{Operation: operation, Mode: faults.Status, Status: status,
		Header: map[string]string{"Content-Type": contentType}, Body: body})
}

func (s *fixture) count(operation string) int { return s.panel.Count(azure.ServiceName, operation) }

func request(name string) rotation.PATRequest {
	return rotation.PATRequest{DisplayName: name, Scopes: []string{"vso.code", "vso.build"},
		ValidTo: time.Now().Add(30 * 24 * time.Hour)}
}

// wants checks an error's class and code.
func wants(t *testing.T, what string, err error, class rotation.Class, code string) *rotation.Error {
	t.Helper()
	e, ok := errors.AsType[*rotation.Error](err)
	if !ok {
		t.Errorf("%s: error %v, want class %s, code %s", what, err, class, code)
		return &rotation.Error{}
	}
	if e.Class != class || e.Code != code {
		t.Errorf("%s: class %s, code %s (%v), want %s, %s", what, e.Class, e.Code, err, class, code)
	}
	return e
}

// equal compares one field.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// near compares times, which Azure DevOps' database rounds.
func near(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if got.Sub(want).Abs() > 10*time.Millisecond {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
