package entra

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// msalClient is MSAL's confidential or its public client: two types without a
// common interface.
type msalClient struct {
	confidential *confidential.Client
	public       *public.Client
	cache        *msalCache
	assertion    *assertion
	reading      int // of the certificate that it was made with
}

// newClient makes a client that keeps its tokens in m: with the app's
// credential, if it has one.
func (c *Client) newClient(ctx context.Context, m *msalCache) (msalClient, *rotation.Error) {
	if !c.cfg.Credential.isPublic() {
		return c.newConfidentialClient(ctx, m)
	}
	client, err := c.newPublicClient(m)
	if err != nil {
		return client, settingsFailure(err)
	}
	return client, nil
}

func (c *Client) newPublicClient(m *msalCache) (msalClient, error) {
	p, err := public.New(c.cfg.ClientID, public.WithAuthority(c.authority), public.WithCache(m),
		public.WithHTTPClient(c.cfg.HTTPClient), public.WithInstanceDiscovery(!c.cfg.DisableInstanceDiscovery))
	return msalClient{public: &p, cache: m, assertion: &assertion{}}, err
}

func (c *Client) newConfidentialClient(ctx context.Context, m *msalCache) (msalClient, *rotation.Error) {
	out := msalClient{cache: m, assertion: &assertion{}}
	cred, e := c.appCredential(ctx, out.assertion)
	if e != nil {
		return out, e
	}
	p, err := confidential.New(c.authority, c.cfg.ClientID, cred, confidential.WithCache(m),
		confidential.WithHTTPClient(c.cfg.HTTPClient),
		confidential.WithInstanceDiscovery(!c.cfg.DisableInstanceDiscovery),
		confidential.WithAzureRegion("DisableMsalForceRegion")) // MSAL would read the environment
	if err != nil {
		return out, settingsFailure(err)
	}
	out.confidential, out.reading = &p, c.reading()
	return out, nil
}

func settingsFailure(err error) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: "sign-in-settings", Err: err,
		Message: "MSAL does not take the settings ENTRA_*: correct them"}
}

// appCredential is the app's credential in MSAL's form. Why there is no assertion
// goes into why.
func (c *Client) appCredential(ctx context.Context, why *assertion) (confidential.Credential, *rotation.Error) {
	mi := c.cfg.Credential.ManagedIdentity
	if mi == nil {
		return c.readCertificate(ctx)
	}
	assert := func(ctx context.Context, _ confidential.AssertionRequestOptions) (string, error) {
		t, err := mi.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.exchange}})
		why.set(err)
		if err != nil {
			return "", errNoAssertion
		}
		return t.Token, nil
	}
	return confidential.NewCredFromAssertionCallback(assert), nil
}

// certificateAge is how long a certificate that was read counts.
const certificateAge = 24 * time.Hour

// readCertificate reads the app's certificate, once a day. While the vault cannot be read,
// the one of before goes on.
func (c *Client) readCertificate(ctx context.Context) (confidential.Credential, *rotation.Error) {
	c.certificateMu.Lock()
	defer c.certificateMu.Unlock()
	now := c.cfg.Now()
	if c.certificate != nil && now.Sub(c.certificateAt) < certificateAge {
		return *c.certificate, nil
	}
	cred, e := c.freshCertificate(ctx)
	if e != nil && c.certificate != nil {
		c.cfg.Log.WarnContext(ctx, "the app's certificate can't be read again: patrol goes on with the one that it has",
			"class", e.Class, "code", e.Code)
		c.certificateAt = now.Add(rereadEvery - certificateAge) // in a minute again
		return *c.certificate, nil
	}
	if e != nil {
		return confidential.Credential{}, e
	}
	c.certificate, c.certificateAt = &cred, now
	c.certificateNo++
	return cred, nil
}

func (c *Client) freshCertificate(ctx context.Context) (confidential.Credential, *rotation.Error) {
	certs, key, err := c.cfg.Credential.Certificate(ctx)
	if err != nil {
		return confidential.Credential{}, certificateFailure(err)
	}
	cred, err := confidential.NewCredFromCert(certs, key)
	if err != nil {
		return confidential.Credential{}, settingsFailure(err)
	}
	return cred, nil
}

// certificateReading is which reading of the certificate counts now. A client that was made
// with another one is made anew.
func (c *Client) certificateReading(ctx context.Context) int {
	if c.cfg.Credential.Certificate == nil {
		return 0
	}
	_, _ = c.readCertificate(ctx) // why it fails is said where it is needed
	return c.reading()
}

func (c *Client) reading() int {
	c.certificateMu.Lock()
	defer c.certificateMu.Unlock()
	return c.certificateNo
}

// unknownCertificate is Entra's number for a certificate that the registration does not have.
const unknownCertificate = "AADSTS700027"

// certificateRefused has the certificate read again if Entra does not know the one that was
// used: at most once a minute, and not by everybody who was refused at once.
func (c *Client) certificateRefused(e *rotation.Error, reading int) (again bool) {
	if c.cfg.Credential.Certificate == nil || e == nil || e.Code != unknownCertificate {
		return false
	}
	c.certificateMu.Lock()
	defer c.certificateMu.Unlock()
	now := c.cfg.Now()
	if c.certificateNo != reading {
		return true // somebody has read it since
	}
	if now.Sub(c.certificateAt) < rereadEvery {
		return false
	}
	c.certificateAt = time.Time{}
	return true
}

// certificateFailure keeps what is known of why the certificate can't be had.
func certificateFailure(err error) *rotation.Error {
	if e := rotation.AsError(err); e != nil {
		return e
	}
	return &rotation.Error{Class: rotation.Transient, Code: "certificate", Err: err,
		Message: "the app's certificate can't be read at the moment"}
}

// errNoAssertion stands for what the managed identity's credential said, which
// MSAL would put into an error text.
var errNoAssertion = errors.New("no assertion from the managed identity")

// assertion remembers why there was none.
type assertion struct {
	mu  sync.Mutex
	err error
}

func (a *assertion) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *assertion) cause() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// refresh redeems the refresh token of the cache: without an access token there
// MSAL has no other choice.
func (m msalClient) refresh(
	ctx context.Context, homeID string, scopes []string, claims string,
) (public.AuthResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if claims == noClaims {
		claims = ""
	}
	var r public.AuthResult
	var err error
	if m.public != nil {
		opts := []public.AcquireSilentOption{public.WithSilentAccount(public.Account{HomeAccountID: homeID})}
		if claims != "" {
			opts = append(opts, public.WithClaims(claims))
		}
		r, err = m.public.AcquireTokenSilent(ctx, scopes, opts...)
	} else {
		account := confidential.Account{HomeAccountID: homeID}
		opts := []confidential.AcquireSilentOption{confidential.WithSilentAccount(account)}
		if claims != "" { // WithClaims is refused by this client, and this sends the same field
			opts = append(opts, confidential.WithClaimsFromClient(claims))
		}
		r, err = m.confidential.AcquireTokenSilent(ctx, scopes, opts...)
	}
	var answered msalerrors.CallErr
	if err != nil && !errors.As(err, &answered) {
		m.exportReceived(ctx)
	}
	return r, err
}

// exportReceived saves a refresh token that MSAL has received and not exported:
// it checks the granted scopes in between.
func (m msalClient) exportReceived(ctx context.Context) {
	m.cache.frozen = true
	defer func() { m.cache.frozen = false }()
	nobody := public.Account{HomeAccountID: "nobody"} // removing nobody exports
	if m.public != nil {
		_ = m.public.RemoveAccount(ctx, nobody)
		return
	}
	_ = m.confidential.RemoveAccount(ctx, nobody)
}
