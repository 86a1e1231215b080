package statestore_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	bearer    = "canary-bearer-token"
	host      = "patroltest.blob.core.windows.net"
	container = "patrol-state"
)

type credential struct{ err error }

func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	switch {
	case c.err != nil:
		return azcore.AccessToken{}, c.err
	case len(o.Scopes) != 1 || o.Scopes[0] != "https://storage.azure.com/.default":
		return azcore.AccessToken{}, errors.New("a token for something else is asked for")
	}
	return azcore.AccessToken{Token: bearer, ExpiresOn: time.Now().Add(24 * time.Hour)}, ctx.Err()
}

// fixture is a store over the real client, and the account that it talks to.
type fixture struct {
	*statestore.Store
	account *blob.Account
	panel   *faults.Injector
}

type option func(*blob.Config, *statestore.Config)

// story runs a test in virtual time, with a store of its own.
func story(t *testing.T, f func(t *testing.T, s *fixture), opts ...option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &fixture{panel: &faults.Injector{}}
		var network memnet.Network
		l, err := network.Listen(host + ":443")
		if err != nil {
			t.Fatal(err)
		}
		transport := network.Transport()
		sandbox := blob.Config{URL: "https://" + host, Authority: "https://login.microsoftonline.com",
			Tenant: "tenant-1", Injector: s.panel, Verify: func(token string) error {
				if token != bearer {
					return errors.New("not our token")
				}
				return nil
			}}
		config := statestore.Config{URL: address(t, "https://"+host+"/"+container), Credential: credential{},
			ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}}}
		for _, o := range opts {
			o(&sandbox, &config)
		}
		s.account, err = blob.New(sandbox, container)
		if err != nil {
			t.Fatal(err)
		}
		s.Store, err = statestore.New(config)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s.account}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		defer func() {
			transport.CloseIdleConnections()
			_ = server.Close()
			<-done
		}()
		f(t, s)
	})
}

func address(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (s *fixture) inject(t *testing.T, operation string, f faults.Fault) {
	t.Helper()
	f.Service, f.Operation = blob.Service, operation
	if err := s.panel.Inject(f); err != nil {
		t.Fatal(err)
	}
}

// refusal is a fault that looks like the service's own.
func refusal(status int, code string) faults.Fault {
	return faults.Fault{Mode: faults.Status, Status: status, Header: map[string]string{"X-Ms-Error-Code": code,
		"X-Ms-Request-Id": "request-1", "Content-Type": "application/xml"},
		Body: blob.ErrorBody(code, "canary-message")}
}

// put writes a blob by hand.
func (s *fixture) put(t *testing.T, key, value string) statestore.ETag {
	t.Helper()
	b, err := s.account.Put(container, key, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return statestore.ETag(b.ETag)
}

// wantClass checks an error's class, code and service, and that it holds no secrets.
func wantClass(t *testing.T, err error, class rotation.Class, code string) *rotation.Error {
	t.Helper()
	e, ok := errors.AsType[*rotation.Error](err)
	if !ok {
		t.Fatalf("got error %v, want one of class %s", err, class)
	}
	if e.Class != class || e.Code != code {
		t.Fatalf("got class %s, code %q (%s); want %s, %q", e.Class, e.Code, e.Message, class, code)
	}
	equal(t, "service", e.Service, rotation.Storage)
	if strings.Contains(e.Message, "canary") || e.Err != nil && strings.Contains(e.Err.Error(), "canary") {
		t.Errorf("the error repeats what the service said: %s", e.Message)
	}
	return e
}

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %v", what, got, want)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal compares one field.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func equalTimes(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if !got.Equal(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}
