package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

const identity = "build-bot"

// fixture is one check's world: an app registration, a vault with nothing in it,
// and the processes of patrol that come and go over it.
type fixture struct {
	ctx       context.Context
	authority *authority
	client    string // id of the app registration
	http      *http.Client
	vault     vault

	// ahead is how far the next process's clock is ahead of the authority's.
	ahead time.Duration

	mu       sync.Mutex
	notified []rotation.Event
}

// check runs a check on a fixture of its own.
func (a *authority) check(ctx context.Context, c check) error {
	transport := &http.Transport{TLSClientConfig: a.tls.ClientTLSConfig()}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return c.run(&fixture{ctx: ctx, authority: a, client: c.client, http: client})
}

// process is a new process of patrol.
func (s *fixture) process() (*entra.Client, error) {
	ahead := s.ahead
	cfg := entra.Config{
		Tenant: tenant, ClientID: s.client, AuthorityHost: s.authority.host,
		DisableInstanceDiscovery: true, HTTPClient: s.http,
		Identities: map[string]entra.Identity{identity: {User: bot}},
		Store:      &s.vault, PublicURL: "https://patrol.example",
		Now: func() time.Time { return time.Now().Add(ahead) },
		Notify: func(_ context.Context, e rotation.Event) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.notified = append(s.notified, e)
			return nil
		},
	}
	if s.client == confidentialClient {
		cert, key := s.authority.cert, s.authority.key
		cfg.Credential.Certificate = func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
			return []*x509.Certificate{cert}, key, nil
		}
	}
	return entra.New(cfg)
}

// walk is one walk through the browser, with what the caller has to remember.
type walk struct {
	state, nonce, verifier string
}

// begin is the address of the authority's page.
func (s *fixture) begin(c *entra.Client) (walk, string, error) {
	w := walk{state: "st&te=" + rand.Text(), nonce: rand.Text(), verifier: rand.Text() + rand.Text()}
	sum := sha256.Sum256([]byte(w.verifier))
	page, err := c.SignInURL(s.ctx, identity, entra.SignInRequest{
		RedirectURI: redirect, State: w.state, Nonce: w.nonce, Challenge: base64.RawURLEncoding.EncodeToString(sum[:])})
	return w, page, err
}

// visit walks through oidc-provider's pages, login and consent, and returns
// what the browser brings back.
func (s *fixture) visit(w walk, page, user string) (url.Values, error) {
	b := htmlclient.New(s.http.Transport)
	at, err := b.Open(s.ctx, page)
	for n := 0; err == nil && !at.Left(); n++ {
		if at.Status != http.StatusOK || len(at.Forms) != 1 || n == 2 {
			return nil, fmt.Errorf("page %d of the authority has status %d and %d forms", n+1, at.Status, len(at.Forms))
		}
		switch prompt := at.Forms[0].Fields.Get("prompt"); prompt {
		case "login":
			at, err = b.Submit(s.ctx, at, at.Forms[0], "login", user, "password", "any")
		case "consent":
			at, err = b.Submit(s.ctx, at, at.Forms[0])
		default:
			return nil, fmt.Errorf("the authority asks for %q", prompt)
		}
	}
	if err != nil {
		return nil, err
	}
	return s.back(w, at)
}

// back checks that the browser comes back with its state.
func (s *fixture) back(w walk, at *htmlclient.Page) (url.Values, error) {
	to := *at.URL
	to.RawQuery = ""
	q := at.URL.Query()
	if to.String() != redirect || q.Get("state") != w.state {
		return nil, errors.New("the browser does not come back to the redirect URI with its state")
	}
	return q, nil
}

// signIn is a whole sign-in as the manifest's user.
func (s *fixture) signIn(c *entra.Client) error {
	w, page, err := s.begin(c)
	if err != nil {
		return err
	}
	q, err := s.visit(w, page, bot)
	if err != nil {
		return err
	}
	return c.CompleteSignIn(s.ctx, identity, w.grant(q.Get("code")))
}

func (w walk) grant(code string) entra.CodeGrant {
	return entra.CodeGrant{
		Code: rotation.NewSecret(code), RedirectURI: redirect,
		Verifier: rotation.NewSecret(w.verifier), Nonce: w.nonce,
	}
}

// token asks for an access token; force redeems the refresh token in any case.
func (s *fixture) token(c *entra.Client, force bool) (string, error) {
	var o policy.TokenRequestOptions
	if force {
		o.Claims = "{}"
	}
	t, err := c.Credential(identity).GetToken(s.ctx, o)
	return t.Token, err
}

// whose asks the authority whom an access token is of.
func (s *fixture) whose(token string) (string, error) {
	r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.authority.issuer()+"/me", nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.http.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body struct {
		Sub string `json:"sub"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the authority does not accept its access token: status %d", resp.StatusCode)
	}
	return body.Sub, nil
}

// post sends a form to an endpoint of the authority, with the app's proof.
func (s *fixture) post(path string, form url.Values) (int, string, error) {
	form.Set("client_id", s.client)
	if s.client == confidentialClient {
		proof, err := s.authority.assertion(s.authority.issuer() + "/token")
		if err != nil {
			return 0, "", err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", proof)
	}
	body := strings.NewReader(form.Encode())
	r, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.authority.issuer()+path, body)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string `json:"error"`
	}
	_ = json.NewDecoder(resp.Body).Decode(&answer) // a success may be empty
	return resp.StatusCode, answer.Error, nil
}

// events are the names of what patrol has notified of since the last time.
func (s *fixture) events() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, e := range s.notified {
		name := "other"
		switch e.(type) {
		case *rotation.SignInRequired:
			name = "required"
		case *rotation.SignedIn:
			name = "signed-in"
		}
		names = append(names, name)
	}
	s.notified = nil
	return strings.Join(names, " ")
}

// vault keeps versions of secrets in memory.
type vault struct {
	mu       sync.Mutex
	versions []version
}

type version struct {
	value   rotation.Secret
	tags    map[string]string
	created time.Time
}

// Read returns the latest version.
func (v *vault) Read(context.Context, string) (rotation.Secret, map[string]string, string, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.versions) == 0 {
		return rotation.Secret{}, nil, "", time.Time{}, rotation.ErrNotFound
	}
	l := v.versions[len(v.versions)-1]
	return l.value, maps.Clone(l.tags), strconv.Itoa(len(v.versions)), l.created, nil
}

// Write adds a version.
func (v *vault) Write(
	_ context.Context, _ string, value rotation.Secret, _ string, tags map[string]string, _ time.Time,
) (string, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.versions = append(v.versions, version{value, maps.Clone(tags), now})
	return strconv.Itoa(len(v.versions)), now, nil
}

// Tag replaces a version's tags.
func (v *vault) Tag(_ context.Context, _, id string, tags map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := strconv.Atoi(id)
	if err != nil || n < 1 || n > len(v.versions) {
		return rotation.ErrNotFound
	}
	v.versions[n-1].tags = maps.Clone(tags)
	return nil
}

// refreshToken is what the latest version holds, and how many there are.
func (v *vault) refreshToken() (token string, versions int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.versions) == 0 {
		return "", 0, errors.New("nothing is stored")
	}
	var cache struct {
		RefreshToken map[string]struct {
			Secret string `json:"secret"`
		}
		AccessToken, IDToken map[string]any
	}
	if err := json.Unmarshal([]byte(v.versions[len(v.versions)-1].value.Reveal()), &cache); err != nil {
		return "", 0, errors.New("what is stored is not MSAL's cache")
	}
	if len(cache.RefreshToken) != 1 || len(cache.AccessToken)+len(cache.IDToken) > 0 {
		return "", 0, errors.New("what is stored is not one refresh token and nothing else")
	}
	for _, t := range cache.RefreshToken {
		token = t.Secret
	}
	return token, len(v.versions), nil
}
