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
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// DefaultAuthorityHost is Entra in the public cloud.
	DefaultAuthorityHost = "https://login.microsoftonline.com"
	// DevOps is Azure DevOps' application id, the resource of its scopes.
	DevOps = "499b84ac-1321-427f-aa17-267ca6975798"

	refreshTokenLife = 90 * 24 * time.Hour // of inactivity; not configurable in Entra
	persistAfter     = 7 * 24 * time.Hour  // versions of a secret are for ever: don't write at each refresh
	notifyEvery      = 24 * time.Hour
	rereadEvery      = time.Minute // while a sign-in is required, or something has to be tried again
	expiryMargin     = 5 * time.Minute
	flightLimit      = 2 * time.Minute
	callLimit        = 30 * time.Second
	rereadLimit      = 5 * time.Second     // a person waits
	warnBefore       = 14 * 24 * time.Hour // the end by inactivity
)

// Scopes that a token needs to manage PATs. One of them alone is refused by
// Azure DevOps.
func patScopes() []string { return []string{DevOps + "/vso.pats", DevOps + "/vso.pats_manage"} }

// Store keeps one secret per identity. Errors have a class (*rotation.Error),
// except rotation.ErrNotFound.
type Store interface {
	// Read returns the latest version, with all its tags.
	Read(ctx context.Context, name string) (
		value rotation.Secret, tags map[string]string, version string, created time.Time, err error)
	// Write makes a new version: value, tags and expiry in one request.
	Write(ctx context.Context, name string, value rotation.Secret, contentType string, tags map[string]string,
		expires time.Time) (version string, created time.Time, err error)
	// Tag replaces the tags of a version and nothing else.
	Tag(ctx context.Context, name, version string, tags map[string]string) error
}

// Identity is who must sign in.
type Identity struct {
	User string // user principal name; nobody else is accepted
	// MoreScopes are asked for beside those that PATs need, "<resource>/<scope>".
	MoreScopes []string
}

// Credential proves to Entra that the app is the app. The zero value is a
// public client, which has none.
type Credential struct {
	// ManagedIdentity yields the assertion of a federated credential.
	ManagedIdentity azcore.TokenCredential
	// Certificate yields the app's certificates, leaf first, and their RSA key.
	// It is called when they are first needed, again after a day, and when Entra does
	// not know the certificate: the vault may have renewed it. Its errors are
	// *rotation.Error.
	Certificate func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error)
}

func (c Credential) isPublic() bool { return c.ManagedIdentity == nil && c.Certificate == nil }

// Config says how to sign in.
type Config struct {
	Tenant        string
	ClientID      string // of the app registration that people sign in to
	AuthorityHost string // default DefaultAuthorityHost
	Credential    Credential
	Identities    map[string]Identity
	Store         Store
	// PublicURL is the base of the links that people follow to sign in.
	PublicURL string
	// Notify takes *rotation.SignInRequired (once per cause, then every 24
	// hours), *rotation.SignInExpiring (once per end) and *rotation.SignedIn.
	// What it could not deliver it gets again, from whichever process comes
	// next. It must not ask for a token of the identity that the event is about.
	Notify func(context.Context, rotation.Event) error
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
	exchange  string // scope of the managed identity's token
	accounts  map[string]*account

	formersMu sync.Mutex
	formers   map[string]*account // of identities that have left the manifest, by lower-case name

	certificateMu sync.Mutex
	certificate   *confidential.Credential // nil: not read yet
	certificateAt time.Time                // when it was read
	certificateNo int                      // which reading it is
}

// New checks a configuration; it calls nobody yet. All problems are reported at
// once.
func New(cfg Config) (*Client, error) {
	cfg.fill()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuring sign-in: %w", err)
	}
	host, _ := authorityHost(cfg.AuthorityHost)
	audience, _ := cfg.audience()
	c := &Client{
		cfg: cfg, authority: "https://" + host + "/" + cfg.Tenant, exchange: audience + "/.default",
		accounts: map[string]*account{}, formers: map[string]*account{},
	}
	for name, id := range cfg.Identities {
		a := &account{
			client: c, name: name, user: id.User, secret: SecretName(name),
			scopes: append(patScopes(), id.MoreScopes...),
			turn:   make(chan struct{}, 1),
		}
		client, err := c.newPublicClient(&a.cache)
		if err != nil {
			return nil, fmt.Errorf("configuring sign-in: %w", err)
		}
		a.public = client
		c.accounts[name] = a
	}
	return c, nil
}

// fill puts the defaults in.
func (cfg *Config) fill() {
	if cfg.AuthorityHost == "" {
		cfg.AuthorityHost = DefaultAuthorityHost
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
}

func (cfg *Config) check() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if _, ok := authorityHost(cfg.AuthorityHost); !ok {
		add("the authority host must be a URL such as %s", DefaultAuthorityHost)
	}
	if _, known := cfg.audience(); !known && cfg.Credential.ManagedIdentity != nil {
		add("the authority %s takes a managed identity's token for an audience that patrol does not know: "+
			"use one of %s, or a certificate", cfg.AuthorityHost, strings.Join(AuthorityHosts(), ", "))
	}
	everyTenant := []string{"common", "organizations", "consumers", "adfs", "dstsv2"}
	switch t := strings.ToLower(cfg.Tenant); {
	case t == "":
		add("the tenant is missing")
	case strings.ContainsAny(t, "/?#") || slices.Contains(everyTenant, t):
		add("the tenant must be a tenant id or a domain of the tenant, not %q", cfg.Tenant)
	}
	if cfg.ClientID == "" {
		add("the client id of the app registration is missing")
	}
	if cfg.Store == nil {
		add("the store is missing")
	}
	if cfg.Credential.ManagedIdentity != nil && cfg.Credential.Certificate != nil {
		add("the credential must be a managed identity, or a certificate with its key, or neither")
	}
	for name, id := range cfg.Identities {
		if id.User == "" {
			add("identity %s has no user", name)
		}
	}
	return errors.Join(problems...)
}

// audience is that of the managed identity's token. A local authority, which Microsoft's
// does not know, takes the public cloud's.
func (cfg *Config) audience() (audience string, known bool) {
	if cfg.DisableInstanceDiscovery {
		return publicAudience, true
	}
	host, ok := authorityHost(cfg.AuthorityHost)
	if !ok {
		return "", true // it has a problem already
	}
	return ExchangeAudience(host)
}

// authorityHost is the host, with its port, of an address that has no more than
// that.
func authorityHost(address string) (host string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", false
	}
	bare := strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil
	return u.Host, bare
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
		return nil, unknownIdentity(identity)
	}
	return a, nil
}

// owner is the account of an identity of today or of before.
func (c *Client) owner(ctx context.Context, identity string) (*account, error) {
	if a := c.accounts[identity]; a != nil {
		return a, nil
	}
	for name, a := range c.accounts {
		if strings.EqualFold(name, identity) { // they have one secret, and so one sign-in
			return a, nil
		}
	}
	return c.former(ctx, identity)
}

// Names lists the identities, sorted.
func (c *Client) Names() []string {
	names := make([]string, 0, len(c.accounts))
	for name := range c.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Credential gives an identity's tokens for Azure DevOps. Tokens are kept in
// memory; any number of callers make one refresh. Errors are *rotation.Error,
// or the context's.
//
// Claims in the options force a refresh with these claims; "{}" forces a plain
// one.
//
// An identity that has left the manifest has tokens too, while the vault has its sign-in:
// to end its PATs, and for nothing else.
func (c *Client) Credential(identity string) azcore.TokenCredential { return credential{c, identity} }

type credential struct {
	client   *Client
	identity string
}

// GetToken answers from memory while it can.
func (k credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	a, err := k.client.owner(ctx, k.identity)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	if o.Claims != "" && !isJSONObject(o.Claims) {
		o.Claims = noClaims // a challenge that can't be read is a wish for another token all the same
	}
	for _, s := range o.Scopes {
		if !a.covers(s) {
			return azcore.AccessToken{}, unknownScope()
		}
	}
	t, err := a.accessToken(ctx, o.Claims)
	if err == nil && a.bearer.isWithout(o.Scopes) {
		return azcore.AccessToken{}, unknownScope()
	}
	return t, err
}

func unknownScope() *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: CodeUnknownScope,
		Message: "the identity's sign-in does not cover the scope that was asked for"}
}

// Refresh makes sure that an identity's sign-in is alive: it has a token, and
// what the vault keeps is not older than 7 days. It warns when that could not be
// done for so long that the sign-in is about to end. A sweep calls it.
func (c *Client) Refresh(ctx context.Context, identity string) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	return a.withTurn(ctx, func(ctx context.Context) error {
		if !a.stored.wasRead() {
			if _, err := a.reread(ctx); err != nil {
				return err
			}
		}
		stale := a.stored.version != "" && c.cfg.Now().Sub(a.stored.created) >= persistAfter
		err := a.acquire(ctx, stale, "")
		a.notifyExpiring(ctx)
		return err
	})
}
