package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
)

const audience = "https://storage.azure.com"

// version of the API that plain requests ask for.
const version = "2023-11-03"

// fixture is one check's world: a container of its own, and the store over it.
type fixture struct {
	*statestore.Store
	ctx       context.Context
	server    *server
	container string
	http      *http.Client
}

// check runs a check on a container of its own.
func (s *server) check(ctx context.Context, n int, c check) error {
	f := &fixture{ctx: ctx, server: s, container: fmt.Sprintf("state-%d", n),
		http: &http.Client{Transport: s.transport, Timeout: 20 * time.Second}}
	if err := f.create(); err != nil {
		return err
	}
	var err error
	f.Store, err = f.store(f.container, audience)
	if err != nil {
		return err
	}
	return c.run(f)
}

func (f *fixture) create() error {
	got, err := f.send(http.MethodPut, "?restype=container", nil, nil)
	if err != nil {
		return err
	}
	return got.want(http.StatusCreated, "")
}

// store is the store over a container, with tokens for a resource.
func (f *fixture) store(container, resource string) (*statestore.Store, error) {
	u, err := url.Parse("https://" + host + "/" + container)
	if err != nil {
		return nil, err
	}
	return statestore.New(statestore.Config{URL: u, Credential: credential{f.server, resource},
		ClientOptions: azcore.ClientOptions{Transport: f.http}})
}

// credential is the managed identity, for one resource whatever it is asked for.
type credential struct {
	server   *server
	resource string
}

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, expires, err := c.server.entra.IdentityToken(identity, c.resource)
	return azcore.AccessToken{Token: token, ExpiresOn: expires}, err
}

// answer is the answer to a plain request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends a plain request to the container, or to a blob of it.
func (f *fixture) send(method, path string, header map[string]string, body []byte) (answer, error) {
	r, err := http.NewRequestWithContext(f.ctx, method, "https://"+host+"/"+f.container+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	token, _, err := f.server.entra.IdentityToken(identity, audience)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("X-Ms-Version", version)
	for name, value := range header {
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Set(name, value)
	}
	resp, err := f.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

// want checks an answer's status and error code.
func (a answer) want(status int, code string) error {
	got := a.header.Get("X-Ms-Error-Code")
	if a.status != status || got != code {
		return fmt.Errorf("status %d, code %q; want %d, %q", a.status, got, status, code)
	}
	inBody := a.status != http.StatusNotModified && len(a.body) > 0
	if code != "" && inBody && !strings.Contains(string(a.body), "<Code>"+code+"</Code>") {
		return errors.New("the body does not name the code")
	}
	return nil
}

// wantStatus is for a refusal whose code is not one everywhere.
func (a answer) wantStatus(status int) error {
	if a.status != status {
		return fmt.Errorf("status %d, want %d", a.status, status)
	}
	return nil
}

// wantCode checks the code of a failure of the store.
func wantCode(err error, code string) error {
	if e := rotation.AsError(err); e == nil || e.Code != code {
		return fmt.Errorf("error %v, want one with the code %s", err, code)
	}
	return nil
}

func wantIs(what string, err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: error %v, want %v", what, err, want)
	}
	return nil
}
