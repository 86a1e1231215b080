package entra

import (
	"context"
	"errors"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
)

// msalClient is MSAL's confidential or its public client: two types without a
// common interface.
type msalClient struct {
	confidential *confidential.Client
	public       *public.Client
	cache        *memory
	assertion    *assertion
}

// newMSAL makes a client that keeps its tokens in m: the app with its credential,
// or, if public, without one.
func (c *Client) newMSAL(m *memory, isPublic bool) (msalClient, error) {
	out := msalClient{cache: m, assertion: &assertion{}}
	discovery := !c.cfg.DisableInstanceDiscovery
	if isPublic {
		p, err := public.New(c.cfg.ClientID, public.WithAuthority(c.authority), public.WithCache(m),
			public.WithHTTPClient(c.cfg.HTTPClient), public.WithInstanceDiscovery(discovery))
		out.public = &p
		return out, err
	}
	var cred confidential.Credential
	if mi := c.cfg.Credential.ManagedIdentity; mi != nil {
		cred = confidential.NewCredFromAssertionCallback(func(ctx context.Context, _ confidential.AssertionRequestOptions) (string, error) {
			t, err := mi.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{exchangeScope}})
			out.assertion.set(err)
			if err != nil {
				return "", errNoAssertion
			}
			return t.Token, nil
		})
	} else {
		var err error
		if cred, err = confidential.NewCredFromCert(c.cfg.Credential.Certificates, c.cfg.Credential.Key); err != nil {
			return out, err
		}
	}
	p, err := confidential.New(c.authority, c.cfg.ClientID, cred, confidential.WithCache(m),
		confidential.WithHTTPClient(c.cfg.HTTPClient), confidential.WithInstanceDiscovery(discovery),
		confidential.WithAzureRegion("DisableMsalForceRegion")) // MSAL would read the environment
	out.confidential = &p
	return out, err
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
func (m msalClient) refresh(ctx context.Context, homeID string, scopes []string, claims string) (public.AuthResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if claims == "{}" {
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
		opts := []confidential.AcquireSilentOption{confidential.WithSilentAccount(confidential.Account{HomeAccountID: homeID})}
		if claims != "" { // WithClaims is refused by this client, and this sends the same field
			opts = append(opts, confidential.WithClaimsFromClient(claims))
		}
		r, err = m.confidential.AcquireTokenSilent(ctx, scopes, opts...)
	}
	var answered msalerrors.CallErr
	if err != nil && !errors.As(err, &answered) {
		m.rescue(ctx)
	}
	return r, err
}

// rescue brings home a refresh token that MSAL has received and not exported:
// it looks at the granted scopes in between.
func (m msalClient) rescue(ctx context.Context) {
	m.cache.frozen = true
	defer func() { m.cache.frozen = false }()
	nobody := public.Account{HomeAccountID: "nobody"} // removing nobody exports
	if m.public != nil {
		_ = m.public.RemoveAccount(ctx, nobody)
		return
	}
	_ = m.confidential.RemoveAccount(ctx, nobody)
}
