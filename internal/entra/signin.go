package entra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const contentType = "application/vnd.patrol.msal-cache+json"

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
	// NoHint: the page is not told the user's name, and asks who signs in. Whoever starts
	// a sign-in without a key is not to learn it.
	NoHint bool
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
	if _, readAt := a.published.view(); a.isOld(readAt) {
		wait, cancel := context.WithTimeout(ctx, rereadLimit)
		err := a.rereadInTurn(wait)
		cancel()
		if err != nil { // the vault may be back when the person is
			a.warn(ctx, "the vault can't be read; a sign-in starts without what Entra last demanded",
				"class", rotation.ClassOf(err))
		}
	}
	m, e := c.newClient(ctx, &msalCache{})
	if e != nil {
		return "", e
	}
	page, err := m.authorizePage(ctx, c.cfg.ClientID, r.RedirectURI, a)
	if err != nil {
		return "", m.failure(err, c.cfg.Now())
	}
	return r.addTo(page, nil)
}

// addTo completes the address that MSAL has made, which has neither state nor PKCE.
func (r SignInRequest) addTo(page string, more url.Values) (string, error) {
	u, err := url.Parse(page)
	if err != nil {
		return "", &rotation.Error{Class: rotation.Transient, Code: codeAnswer,
			Message: "Entra's discovery document can't be read"}
	}
	q := u.Query()
	maps.Copy(q, more)
	q.Set("state", r.State)
	q.Set("code_challenge", r.Challenge)
	q.Set("code_challenge_method", "S256")
	q.Set("nonce", r.Nonce)
	q.Set("response_mode", "query")
	if r.FormPost {
		q.Set("response_mode", "form_post")
	}
	if r.NoHint {
		q.Del("login_hint")
		q.Set("prompt", "select_account")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// authorizePage is the address as MSAL makes it.
func (m msalClient) authorizePage(ctx context.Context, clientID, redirectURI string, a *account) (string, error) {
	claims, hint := a.published.nextClaims(), a.user
	if s, _ := a.published.view(); s.Renamed != "" {
		hint = s.Renamed
	}
	if m.public != nil {
		opts := []public.AuthCodeURLOption{public.WithLoginHint(hint)}
		if claims != "" {
			opts = append(opts, public.WithClaims(claims))
		}
		return m.public.AuthCodeURL(ctx, clientID, redirectURI, a.authorizeScopes(), opts...)
	}
	opts := []confidential.AuthCodeURLOption{confidential.WithLoginHint(hint)}
	if claims != "" {
		opts = append(opts, confidential.WithClaims(claims))
	}
	return m.confidential.AuthCodeURL(ctx, clientID, redirectURI, a.authorizeScopes(), opts...)
}

// authorizeScopes are nothing but what patrol needs, and what makes the answer
// hold a refresh token and say who has signed in.
func (a *account) authorizeScopes() []string {
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
//
// If the process ends before the sign-in is stored, it is lost: the code serves
// once, and the person signs in again.
func (c *Client) CompleteSignIn(ctx context.Context, identity string, g CodeGrant) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	if g.Nonce == "" {
		return errors.New("completing a sign-in: the nonce is needed")
	}
	m := msalCache{doc: document{Public: c.cfg.Credential.isPublic()}}
	client, e := c.newClient(ctx, &m)
	if e != nil {
		return e
	}
	code, verifier := g.Code.Reveal(), g.Verifier.Reveal()
	var r public.AuthResult
	if client.public != nil {
		r, err = client.public.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, a.scopes,
			public.WithChallenge(verifier))
	} else {
		r, err = client.confidential.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, a.scopes,
			confidential.WithChallenge(verifier))
	}
	if err != nil {
		e := client.failure(err, c.cfg.Now())
		c.certificateRefused(e, client.reading) // the person's next try has the one of now
		return e
	}
	who, e := c.grantOf(r, g.Nonce)
	if e != nil {
		return e
	}
	who.confirmUserID = g.ConfirmUserID
	return a.finishSignIn(ctx, m.doc, who)
}

// finishSignIn stores a sign-in as the identity's, announces it, and forgets
// that one was required. Anyone but the manifest's user is refused.
func (a *account) finishSignIn(ctx context.Context, d document, g grant) error {
	if e := a.checkMember(g); e != nil {
		return e
	}
	_, owner, err := d.find(a.client.cfg.ClientID)
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	if owner.Username != "" && !strings.EqualFold(owner.Username, g.user) {
		return a.wrongUser(owner.Username)
	}
	return a.withTurn(ctx, func(ctx context.Context) error { return a.save(ctx, d, g) })
}

func (a *account) save(ctx context.Context, d document, g grant) error {
	// The tags that others have put there stay.
	before, tags, _, _, err := a.client.cfg.Store.Read(ctx, a.secret)
	if err != nil && !errors.Is(err, rotation.ErrNotFound) {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	known, _ := decode(before.Reveal()) // what cannot be read remembers nobody
	p := a.remembered(tags, known)
	if !p.isOf(a.user) { // a remembered id of another user says nothing
		p = person{}
	}
	if e := a.checkUser(p, g); e != nil { // before anything is made of the refresh token
		return e
	}
	a.stored.tags = tags
	value, err := d.encode()
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	now := a.client.cfg.Now().UTC().Truncate(time.Second)
	if p.id == "" {
		delete(a.stored.tags, tagUserID)
	}
	a.noteName(ctx, p, g.user)
	tags = a.ownTags(g.userID)
	tags[tagSignedInAt] = now.Format(time.RFC3339)
	if len(tags) < maxTags {
		tags[tagUnannounced] = tags[tagSignedInAt]
	}
	expires := now.Add(refreshTokenLife)
	version, created, err := a.client.cfg.Store.Write(ctx, a.secret, value, contentType, tags, expires)
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	// From here on every process has the sign-in. If this one ends here, the next
	// one finds the tag and announces it.
	a.stored = stored{version: version, created: created, tags: tags, readAt: a.client.cfg.Now()}
	a.cache.doc = d
	a.state = state{used: now, repaired: &repaired{}, renamed: a.state.renamed, hasUserID: tags[tagUserID] != ""}
	a.bearer.forget()
	a.attempts.forget()
	a.client.cfg.Log.InfoContext(ctx, "signed in", "identity", a.name, "user", a.user)
	a.notifySignedIn(ctx)
	return nil
}
