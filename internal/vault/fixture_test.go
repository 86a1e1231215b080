package vault_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	bearer = "canary-bearer-token"
	pat    = "canary-pat-"
)

type credential struct{ err error }

func (c credential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if c.err != nil {
		return azcore.AccessToken{}, c.err
	}
	return azcore.AccessToken{Token: bearer, ExpiresOn: time.Now().Add(24 * time.Hour)}, ctx.Err()
}

// fixture is a vault adapter over the real client, and the vault that it talks to.
type fixture struct {
	*vault.Vault
	kv    *keyvault.Vault
	panel *faults.Injector
	log   *bytes.Buffer
}

type option func(*keyvault.Config, *vault.Config)

// inMemory has a network in memory, for tests in virtual time.
func inMemory(t *testing.T, opts ...option) *fixture {
	t.Helper()
	r := &fixture{panel: &faults.Injector{}, log: &bytes.Buffer{}}
	var network memnet.Network
	l, err := network.Listen("patrol-test.vault.azure.net:443")
	if err != nil {
		t.Fatal(err)
	}
	transport := network.Transport()
	r.connect(t, "https://patrol-test.vault.azure.net", transport, opts, func(h http.Handler) func() {
		srv := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()
		return func() {
			transport.CloseIdleConnections()
			_ = srv.Close()
			<-done
		}
	})
	return r
}

// overLoopback has TLS over loopback sockets.
func overLoopback(t *testing.T, opts ...option) *fixture {
	t.Helper()
	r := &fixture{panel: &faults.Injector{}, log: &bytes.Buffer{}}
	srv := httptest.NewUnstartedServer(nil)
	loopback := func(_ *keyvault.Config, c *vault.Config) { c.DisableChallengeResourceVerification = true }
	srv.StartTLS()
	r.connect(t, srv.URL, srv.Client().Transport, append([]option{loopback}, opts...), func(h http.Handler) func() {
		srv.Config.Handler = h
		return srv.Close
	})
	return r
}

func (r *fixture) connect(t *testing.T, url string, transport http.RoundTripper, opts []option,
	serve func(http.Handler) func()) {
	t.Helper()
	sandbox := keyvault.Config{
		URL: url, Authority: "https://login.microsoftonline.com", Tenant: "tenant-1", Injector: r.panel,
		Verify: func(token string) error {
			if token != bearer {
				return errors.New("not our token")
			}
			return nil
		},
	}
	config := vault.Config{
		URL: url, Credential: credential{},
		ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}},
		Log:           slog.New(slog.NewTextHandler(r.log, nil)),
	}
	for _, o := range opts {
		o(&sandbox, &config)
	}
	kv, err := keyvault.New(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(kv)
	client, err := vault.New(config)
	if err != nil {
		t.Fatal(err)
	}
	r.kv, r.Vault = kv, client
	t.Cleanup(func() {
		stop()
		r.kv.Close()
		if s := r.log.String(); strings.Contains(s, "canary") {
			t.Errorf("a secret is in the log: %s", s)
		}
	})
}

func (r *fixture) inject(t *testing.T, operation string, f faults.Fault) {
	t.Helper()
	f.Service, f.Operation = keyvault.Service, operation
	if err := r.panel.Inject(f); err != nil {
		t.Fatal(err)
	}
}

// calls counts what reached the vault since the last time.
func (r *fixture) calls() map[string]int {
	out := map[string]int{}
	for c, n := range r.panel.Counts() {
		if c.Operation != keyvault.Challenge {
			out[c.Operation] = n
		}
	}
	r.panel.ResetCounts()
	return out
}

func (r *fixture) put(t *testing.T, v keyvault.Version) keyvault.Version {
	t.Helper()
	out, err := r.kv.Put(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *fixture) store(t *testing.T, name, value string, l rotation.Ledger) rotation.Version {
	t.Helper()
	out, err := r.Store(t.Context(), name, rotation.Content{Value: rotation.NewSecret(pat + value),
		Expires: time.Now().Add(48 * time.Hour), Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wantClass checks an error's class and code, and that it holds no secrets.
func wantClass(t *testing.T, err error, class rotation.Class, code string) *rotation.Error {
	t.Helper()
	e, ok := errors.AsType[*rotation.Error](err)
	if !ok {
		t.Fatalf("got error %v, want one of class %s", err, class)
	}
	if e.Class != class || e.Code != code {
		t.Fatalf("got class %s, code %q (%s); want %s, %q", e.Class, e.Code, e.Message, class, code)
	}
	if strings.Contains(e.Message, "canary") || e.Err != nil && strings.Contains(e.Err.Error(), "canary") {
		t.Errorf("the error repeats what the vault said: %s", e.Message)
	}
	return e
}

func without(o func(*vault.Config)) option {
	return func(_ *keyvault.Config, c *vault.Config) { o(c) }
}

var noRetries = without(func(c *vault.Config) { c.ClientOptions.Retry.MaxRetries = -1 })

// equal compares one field.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// equalTimes compares moments, not time zones.
func equalTimes(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if !got.Equal(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
