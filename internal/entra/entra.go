// Package entra keeps the delegated sign-ins with which patrol acts: one person
// or service account per identity signs in once, and from then on the refresh
// token in the vault yields access tokens for Azure DevOps, silently.
//
// It wraps MSAL, which has no single flight, no retry, no typed errors and no
// memory of a sign-in that has died, and adds these. It must not know Azure
// DevOps' API, the manifest's file, Key Vault's client or the host.
package entra

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// DefaultAuthorityHost is Entra in the public cloud.
	DefaultAuthorityHost = "https://login.microsoftonline.com"
	// DevOps is Azure DevOps' application id, the resource of its scopes.
	DevOps = "499b84ac-1321-427f-aa17-267ca6975798"

	exchangeScope = "api://AzureADTokenExchange/.default"

	refreshTokenLife = 90 * 24 * time.Hour // of inactivity; not configurable in Entra
	persistAfter     = 7 * 24 * time.Hour  // versions of a secret are for ever: don't write at each refresh
	tellEvery        = 24 * time.Hour
	lookEvery        = time.Minute // while a sign-in is required, or something has to be tried again
	expiryMargin     = 5 * time.Minute
	flightLimit      = 2 * time.Minute
	callLimit        = 30 * time.Second
	lookLimit        = 5 * time.Second // a person waits
	maxRereads       = 5
	warnBefore       = 14 * 24 * time.Hour // the end by inactivity
	otherInstance    = 2 * time.Second     // for another instance to store what it has just got; then twice as long
	otherInstances   = 30 * time.Second    // in all
)

// Scopes that a token needs to manage PATs. One of them alone is refused by
// Azure DevOps.
func patScopes() []string { return []string{DevOps + "/vso.pats", DevOps + "/vso.pats_manage"} }

// Store keeps one secret per identity. Errors have a class (*rotation.Error),
// except rotation.ErrNotFound.
type Store interface {
	// Read returns the latest version, with all its tags.
	Read(ctx context.Context, name string) (value rotation.Secret, tags map[string]string, version string, created time.Time, err error)
	// Write makes a new version: value, tags and expiry in one request.
	Write(ctx context.Context, name string, value rotation.Secret, contentType string, tags map[string]string, expires time.Time) (version string, created time.Time, err error)
	// Tag replaces the tags of a version and nothing else.
	Tag(ctx context.Context, name, version string, tags map[string]string) error
}

// Identity is who must sign in.
type Identity struct {
	User string // user principal name; nobody else is accepted
	// MoreScopes are asked for beside Config.Scopes, "<resource>/<scope>".
	MoreScopes []string
}

// Credential proves to Entra that the app is the app. The zero value is a
// public client, which has none.
type Credential struct {
	// ManagedIdentity yields the assertion of a federated credential.
	ManagedIdentity azcore.TokenCredential
	// Certificates, leaf first, and its RSA key.
	Certificates []*x509.Certificate
	Key          crypto.PrivateKey
}

func (c Credential) public() bool { return c.ManagedIdentity == nil && c.Key == nil }

// Config says how to sign in.
type Config struct {
	Tenant        string
	ClientID      string // of the app registration that people sign in to
	AuthorityHost string // default DefaultAuthorityHost
	Credential    Credential
	Scopes        []string // default: Azure DevOps' vso.pats and vso.pats_manage
	Identities    map[string]Identity
	Store         Store
	// PublicURL is the base of the links that people follow to sign in.
	PublicURL string
	// Notify is told *rotation.SignInRequired (once per cause, then every 24
	// hours), *rotation.SignInExpiring (once per end) and *rotation.SignedIn.
	// What it could not deliver is told again, by whichever process comes next.
	// It must not ask for a token of the identity that it is told about.
	Notify func(context.Context, rotation.Event) error
	// PersistEveryRotation stores each new refresh token at once. Entra keeps
	// the replaced one alive, so that it is not needed there; an authority that
	// rotates strictly needs it.
	PersistEveryRotation bool
	// DisableInstanceDiscovery is for an authority that Microsoft's does not
	// know: a local one.
	DisableInstanceDiscovery bool
	HTTPClient               *http.Client     // default: a new one with a time-out
	Now                      func() time.Time // default time.Now
	Log                      *slog.Logger     // default: none
}

// Client gives out the identities' credentials.
type Client struct {
	cfg       Config
	authority string // URL with the tenant
	host      string // of the authority, as MSAL's cache names it
	accounts  map[string]*account
}

// New checks a configuration; it calls nobody yet. All problems are reported at
// once.
func New(cfg Config) (*Client, error) {
	if cfg.AuthorityHost == "" {
		cfg.AuthorityHost = DefaultAuthorityHost
	}
	if cfg.Scopes == nil {
		cfg.Scopes = patScopes()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Notify == nil {
		cfg.Notify = func(context.Context, rotation.Event) error { return nil }
	}
	client := http.Client{Timeout: callLimit}
	if cfg.HTTPClient != nil {
		client = *cfg.HTTPClient
	}
	// A redirect would carry the refresh token to wherever it points.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.HTTPClient = &client

	c := &Client{cfg: cfg, accounts: map[string]*account{}}
	var problems []error
	complain := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	u, err := url.Parse(cfg.AuthorityHost)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		complain("the authority host must be a URL such as %s", DefaultAuthorityHost)
	default:
		c.host = strings.ToLower(u.Host)
		c.authority = "https://" + u.Host + "/" + cfg.Tenant
	}
	switch t := strings.ToLower(cfg.Tenant); {
	case t == "":
		complain("the tenant is missing")
	case strings.ContainsAny(t, "/?#") || slices.Contains([]string{"common", "organizations", "consumers", "adfs", "dstsv2"}, t):
		complain("the tenant must be a tenant id or a domain of the tenant, not %q", cfg.Tenant)
	}
	if cfg.ClientID == "" {
		complain("the client id of the app registration is missing")
	}
	if cfg.Store == nil {
		complain("the store is missing")
	}
	if cr := cfg.Credential; (cr.Key == nil) != (len(cr.Certificates) == 0) || cr.Key != nil && cr.ManagedIdentity != nil {
		complain("the credential must be a managed identity, or a certificate with its key, or neither")
	}
	for name, id := range cfg.Identities {
		if id.User == "" {
			complain("identity %s has no user", name)
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("configuring sign-in: %w", errors.Join(problems...))
	}
	for name, id := range cfg.Identities {
		a := &account{
			client: c, name: name, user: id.User, secret: SecretName(name),
			scopes: append(slices.Clone(cfg.Scopes), id.MoreScopes...),
			turn:   make(chan struct{}, 1),
		}
		a.msal, err = c.newMSAL(&a.cache, cfg.Credential.public())
		if err == nil {
			a.native, err = c.newMSAL(&a.cache, true)
		}
		if err != nil {
			return nil, fmt.Errorf("configuring sign-in: %w", err)
		}
		c.accounts[name] = a
	}
	return c, nil
}

// SecretName is the name of an identity's secret.
func SecretName(identity string) string { return "patrol-identity-" + identity }

// SignInLink is where a person goes to sign an identity in.
func (c *Client) SignInLink(identity string) string {
	return strings.TrimSuffix(c.cfg.PublicURL, "/") + "/api/identities/" + url.PathEscape(identity) + "/signin"
}

func (c *Client) account(identity string) (*account, error) {
	a := c.accounts[identity]
	if a == nil {
		return nil, &rotation.Error{Class: rotation.Configuration, Code: "unknown-identity",
			Message: fmt.Sprintf("the manifest has no identity %q", identity)}
	}
	return a, nil
}

// Credential gives an identity's tokens for Azure DevOps. Tokens are kept in
// memory; any number of callers make one refresh. Errors are *rotation.Error,
// or the context's.
//
// Claims in the options force a refresh with these claims; "{}" forces a plain
// one.
func (c *Client) Credential(identity string) azcore.TokenCredential { return credential{c, identity} }

type credential struct {
	client   *Client
	identity string
}

func (k credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	a, err := k.client.account(k.identity)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	if o.Claims != "" && !isObject(o.Claims) {
		o.Claims = "{}" // a challenge that can't be read is a wish for another token all the same
	}
	for _, s := range o.Scopes {
		if !a.covers(s) {
			return azcore.AccessToken{}, &rotation.Error{Class: rotation.Configuration, Code: "unknown-scope",
				Message: "the identity's sign-in does not cover the scope that was asked for"}
		}
	}
	return a.accessToken(ctx, o.Claims)
}

// Refresh makes sure that an identity's sign-in is alive: it has a token, and
// what the vault keeps is not older than 7 days. It warns when that could not be
// done for so long that the sign-in is about to end. A sweep calls it.
func (c *Client) Refresh(ctx context.Context, identity string) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	return a.work(ctx, func(ctx context.Context) error {
		if !a.loaded {
			if err := a.look(ctx); err != nil {
				return err
			}
		}
		stale := a.stored.version != "" && a.client.cfg.Now().Sub(a.stored.created) >= persistAfter
		err := a.acquire(ctx, stale, "")
		a.warn(ctx)
		return err
	})
}

// Status is how an identity's sign-in stands.
type Status struct {
	Identity string
	User     string
	SignedIn time.Time // zero: nobody has signed in
	Until    time.Time // the refresh token's end, unless it is used before
	Required bool      // a person must sign in
	// Code is why: AADSTS700082, not-signed-in, wrong-user. Without Required, the
	// sign-in can't be used for another reason at the moment.
	Code       string
	Cause      Cause     // what Code means
	Since      time.Time // since when it is required
	Message    string    // plain words
	SignInLink string
}

// Status tells how an identity's sign-in stands. It asks the vault at most once
// a minute, and never Entra.
func (c *Client) Status(ctx context.Context, identity string) (Status, error) {
	a, err := c.account(identity)
	if err != nil {
		return Status{}, err
	}
	if v, at := a.view(); at.IsZero() || c.cfg.Now().Sub(at) >= lookEvery {
		err := a.work(ctx, a.look)
		if err != nil && at.IsZero() {
			return Status{}, err
		}
		if err != nil {
			return v, nil // the vault can't be reached: what was known stays
		}
	}
	v, _ := a.view()
	return v, nil
}

// Identities lists the identities' names, sorted.
func (c *Client) Identities() []string {
	names := make([]string, 0, len(c.accounts))
	for name := range c.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// account is one identity. Whoever holds the turn may use every field; mu
// guards those that are read without it.
type account struct {
	client             *Client
	name, user, secret string
	scopes             []string
	turn               chan struct{}

	cache  memory     // MSAL's cache without access tokens
	msal   msalClient // with the app's credential, if it has one
	native msalClient // without
	loaded bool
	stored struct { // what the vault has, as last seen
		version string
		created time.Time
		tags    map[string]string
	}
	looked   time.Time // when the vault was last asked
	newer    bool      // the cache holds a refresh token that the vault has not
	tryAgain time.Time // earliest next attempt to store it
	used     time.Time // when the refresh token was last redeemed
	required *required // a person must sign in
	repaired bool      // the sign-in is in order again, and nobody has been told
	probed   time.Time // when a dead one turned out to be alive; zero: a new sign-in
	failed   error     // the last failure, to be answered until
	until    time.Time

	mu       sync.Mutex
	token    rotation.Secret
	expires  time.Time
	renew    time.Time // refresh_in; zero: not said
	storeDue time.Time // zero: nothing to store again
	attempts int       // finished ones
	forced   int       // of these: with claims
	last     error     // outcome of the last attempt
	claims   string    // what the next sign-in must satisfy
	status   Status
	seen     time.Time // of status
}

func (a *account) covers(scope string) bool {
	return slices.ContainsFunc(a.scopes, func(s string) bool {
		return strings.EqualFold(s, scope) || strings.EqualFold(s[:strings.LastIndexByte(s, '/')+1]+".default", scope)
	})
}

// work runs do while nobody else works on this account. do goes on when the
// caller gives up, within its own limit: a refresh that was cut off half-way
// could lose a refresh token that Entra has already replaced.
func (a *account) work(ctx context.Context, do func(context.Context) error) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		<-a.turn
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.turn }()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightLimit)
		defer cancel()
		err := do(own)
		a.publish()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *account) accessToken(ctx context.Context, claims string) (azcore.AccessToken, error) {
	now := a.client.cfg.Now()
	a.mu.Lock()
	attempts, forced := a.attempts, a.forced
	storeDue := !a.storeDue.IsZero() && !now.Before(a.storeDue)
	t, fresh := a.current(now)
	a.mu.Unlock()
	if claims == "" && fresh && !storeDue {
		return t, nil
	}
	err := a.work(ctx, func(ctx context.Context) error {
		a.mu.Lock()
		attempted, outcome := a.attempts != attempts, a.last
		if claims != "" {
			attempted = a.forced != forced
		}
		a.mu.Unlock()
		if attempted { // by another caller, while this one waited
			return outcome
		}
		return a.acquire(ctx, claims != "", claims)
	})
	a.mu.Lock()
	t, _ = a.current(now)
	a.mu.Unlock()
	if err != nil && claims == "" && t.Token != "" && a.client.cfg.Now().Add(time.Minute).Before(t.ExpiresOn) && ctx.Err() == nil {
		return t, nil // an early refresh has failed; the token is still good
	}
	if err != nil {
		return azcore.AccessToken{}, err
	}
	return t, nil
}

func isObject(s string) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal([]byte(s), &m) == nil && m != nil
}

// current is the token in memory; fresh if it needs no refresh yet. mu is held.
func (a *account) current(now time.Time) (t azcore.AccessToken, fresh bool) {
	t = azcore.AccessToken{Token: a.token.Reveal(), ExpiresOn: a.expires, RefreshOn: a.renew}
	return t, t.Token != "" && now.Add(expiryMargin).Before(a.expires) && (a.renew.IsZero() || now.Before(a.renew))
}

func (a *account) view() (Status, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status, a.seen
}

func (a *account) publish() {
	if !a.loaded && a.required == nil {
		return
	}
	s := Status{Identity: a.name, User: a.user, SignInLink: a.client.SignInLink(a.name)}
	if at, err := time.Parse(time.RFC3339, a.stored.tags[tagSignedInAt]); err == nil {
		s.SignedIn = at
	}
	if used := latest(a.used, a.stored.created); a.stored.version != "" {
		s.Until = used.Add(refreshTokenLife)
	}
	if r := a.required; r != nil {
		s.Required, s.Code, s.Since, s.Message, s.Cause = true, r.code, r.since, r.err.Message, causeOf(r.err)
	} else if e := rotation.AsError(a.failed); e != nil {
		s.Code, s.Message, s.Cause = e.Code, e.Message, causeOf(e)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status, a.seen = s, a.looked
	a.storeDue = time.Time{}
	if a.newer {
		a.storeDue = a.tryAgain
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
