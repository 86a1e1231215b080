package entra

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const contentType = "application/vnd.patrol.msal-cache+json"

// Grant is what a sign-in has yielded: MSAL's cache, or a refresh token alone.
type Grant struct {
	Cache        rotation.Secret
	RefreshToken rotation.Secret
	User         string // who has signed in
	UserID       string // object id; may be empty
	TenantID     string // may be empty
	Guest        bool   // not a member of the tenant
	// Public: the client that got it had no credential, so that none may be used
	// with it.
	Public bool
	// ConfirmUserID is an object id that a person has confirmed as the one that
	// shall take the place of the remembered one.
	ConfirmUserID string
}

// SaveSignIn stores a sign-in as the identity's, announces it, and forgets that
// one was required. Anyone but the manifest's user is refused.
func (c *Client) SaveSignIn(ctx context.Context, identity string, g Grant) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	if e := a.admit(g); e != nil {
		return e
	}
	var d document
	if g.Cache.Empty() {
		home := "imported"
		if g.UserID != "" {
			home = g.UserID + "." + c.cfg.Tenant
		}
		d = imported(c.host, c.cfg.ClientID, home, g.RefreshToken.Reveal())
	} else if d, err = decode(g.Cache.Reveal()); err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	token, owner, err := d.find(c.cfg.ClientID)
	if err != nil || token.Secret == "" {
		return fmt.Errorf("saving a sign-in: %w", errNoRefreshToken)
	}
	if owner.Username != "" && !strings.EqualFold(owner.Username, a.user) {
		return a.wrongUser(owner.Username)
	}
	d.Public = d.Public || g.Public
	return a.work(ctx, func(ctx context.Context) error { return a.save(ctx, d, g) })
}

func (a *account) save(ctx context.Context, d document, g Grant) error {
	// The tags that others have put there stay.
	_, tags, _, _, err := a.client.cfg.Store.Read(ctx, a.secret)
	if err != nil && !errors.Is(err, rotation.ErrNotFound) {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	if strings.EqualFold(tags[tagUser], a.user) { // a remembered id of another user says nothing
		if e := a.admitID(tags[tagUserID], g); e != nil {
			return e
		}
	}
	a.stored.tags = tags
	value, err := d.encode()
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	now := a.client.cfg.Now().UTC().Truncate(time.Second)
	if !strings.EqualFold(tags[tagUser], a.user) {
		delete(a.stored.tags, tagUserID)
	}
	tags = a.ownTags(g.UserID)
	tags[tagSignedInAt] = now.Format(time.RFC3339)
	if len(tags) < maxTags {
		tags[tagTell] = tags[tagSignedInAt]
	}
	version, created, err := a.client.cfg.Store.Write(ctx, a.secret, value, contentType, tags, now.Add(refreshTokenLife))
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	a.cache.doc = d
	a.stored.version, a.stored.created, a.stored.tags = version, created, tags
	a.loaded, a.looked, a.used = true, a.client.cfg.Now(), now
	a.required, a.newer, a.failed, a.repaired, a.probed = nil, false, nil, true, time.Time{}
	a.mu.Lock()
	a.token, a.expires, a.last, a.claims = rotation.Secret{}, time.Time{}, nil, ""
	a.mu.Unlock()
	a.client.cfg.Log.InfoContext(ctx, "signed in", "identity", a.name, "user", a.user)
	a.tellRepaired(ctx)
	return nil
}

// SignInRequest is one walk through the browser, made by the caller, who binds
// its parts to the browser that starts it.
type SignInRequest struct {
	RedirectURI string
	State       string // ties the answer to the browser
	Challenge   string // PKCE's S256 challenge
	Nonce       string // comes back inside of the id token
	// FormPost has the answer posted to the redirect URI instead of put into its
	// query: it stays out of the browser's history, and comes without cookies of
	// SameSite Lax.
	FormPost bool
}

// SignInURL is the authority's page for an identity's sign-in. What the last
// refusal demanded (multi-factor authentication, say) is asked for, whichever
// process it met.
func (c *Client) SignInURL(ctx context.Context, identity string, r SignInRequest) (string, error) {
	a, err := c.account(identity)
	if err != nil {
		return "", err
	}
	if r.State == "" || r.Challenge == "" || r.Nonce == "" {
		return "", errors.New("starting a sign-in: state, challenge and nonce are needed")
	}
	if _, at := a.view(); at.IsZero() || c.cfg.Now().Sub(at) >= lookEvery {
		wait, cancel := context.WithTimeout(ctx, lookLimit)
		err := a.work(wait, a.look)
		cancel()
		if err != nil { // then without the claims: the vault may be back when the person is
			c.cfg.Log.WarnContext(ctx, "a sign-in starts without the vault", "identity", a.name, "class", rotation.ClassOf(err))
		}
	}
	a.mu.Lock()
	claims := a.claims
	a.mu.Unlock()
	m, err := c.newMSAL(&memory{}, c.cfg.Credential.public())
	if err != nil {
		return "", fmt.Errorf("starting a sign-in: %w", err)
	}
	var page string
	if m.public != nil {
		opts := []public.AuthCodeURLOption{public.WithLoginHint(a.user)}
		if claims != "" {
			opts = append(opts, public.WithClaims(claims))
		}
		page, err = m.public.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, a.asked(), opts...)
	} else {
		opts := []confidential.AuthCodeURLOption{confidential.WithLoginHint(a.user)}
		if claims != "" {
			opts = append(opts, confidential.WithClaims(claims))
		}
		page, err = m.confidential.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, a.asked(), opts...)
	}
	if err != nil {
		return "", m.failure(err, c.cfg.Now())
	}
	u, err := url.Parse(page)
	if err != nil {
		return "", &rotation.Error{Class: rotation.Transient, Code: "entra-answer", Message: "Entra's discovery document can't be read"}
	}
	q := u.Query() // MSAL adds neither state nor PKCE
	q.Set("state", r.State)
	q.Set("code_challenge", r.Challenge)
	q.Set("code_challenge_method", "S256")
	q.Set("nonce", r.Nonce)
	q.Set("response_mode", "query")
	if r.FormPost {
		q.Set("response_mode", "form_post")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// asked are the scopes of the authorize page: nothing but what patrol needs,
// and what makes the answer hold a refresh token and say who has signed in.
func (a *account) asked() []string {
	return append([]string{"openid", "offline_access", "profile"}, a.scopes...)
}

// CodeGrant is what a sign-in in the browser has brought back, with the other
// halves of what its SignInRequest had.
type CodeGrant struct {
	Code        rotation.Secret
	RedirectURI string
	Verifier    rotation.Secret // of PKCE
	Nonce       string
	// ConfirmUserID accepts this object id in place of the remembered one. It is
	// a person's answer to user-id-changed, in a sign-in of its own.
	ConfirmUserID string
}

// CompleteSignIn redeems the code of a sign-in and saves it, if it is the
// manifest's user who has signed in.
func (c *Client) CompleteSignIn(ctx context.Context, identity string, g CodeGrant) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	if g.Nonce == "" {
		return errors.New("completing a sign-in: the nonce is needed")
	}
	m := memory{doc: document{Public: c.cfg.Credential.public()}}
	client, err := c.newMSAL(&m, c.cfg.Credential.public())
	if err != nil {
		return fmt.Errorf("completing a sign-in: %w", err)
	}
	code, verifier := g.Code.Reveal(), g.Verifier.Reveal()
	var r public.AuthResult
	if client.public != nil {
		r, err = client.public.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, a.scopes, public.WithChallenge(verifier))
	} else {
		r, err = client.confidential.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, a.scopes, confidential.WithChallenge(verifier))
	}
	if err != nil {
		return client.failure(err, c.cfg.Now())
	}
	grant, e := c.grantOf(r, g.Nonce)
	if e != nil {
		return e
	}
	grant.ConfirmUserID = g.ConfirmUserID
	return a.saveResult(ctx, m.doc, grant)
}

func (a *account) saveResult(ctx context.Context, d document, g Grant) error {
	if e := a.admit(g); e != nil { // before anything is made of the refresh token
		return e
	}
	cache, err := d.encode()
	if err != nil {
		return fmt.Errorf("completing a sign-in: %w", err)
	}
	g.Cache = cache
	return a.client.SaveSignIn(ctx, a.name, g)
}
