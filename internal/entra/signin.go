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

const (
	contentType = "application/vnd.patrol.msal-cache+json"

	tagUser       = "patrol-user"
	tagUserID     = "patrol-user-id"
	tagSignedInAt = "patrol-signed-in-at"
	tagRequired   = "patrol-sign-in-required"

	codeNotSignedIn = "not-signed-in"
	codeWrongUser   = "wrong-user"
)

// Grant is what a sign-in has yielded: MSAL's cache, or a refresh token alone.
type Grant struct {
	Cache        rotation.Secret
	RefreshToken rotation.Secret
	User         string // who has signed in
	UserID       string // object id; may be empty
}

// SaveSignIn stores a sign-in as the identity's, announces it, and forgets that
// one was required. Anyone but the manifest's user is refused.
func (c *Client) SaveSignIn(ctx context.Context, identity string, g Grant) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	if !strings.EqualFold(g.User, a.user) {
		return a.wrongUser()
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
		return a.wrongUser()
	}
	return a.work(ctx, func(ctx context.Context) error { return a.save(ctx, d, g.UserID) })
}

func (a *account) save(ctx context.Context, d document, userID string) error {
	// The tags that others have put there stay.
	_, tags, _, _, err := a.client.cfg.Store.Read(ctx, a.secret)
	if err != nil && !errors.Is(err, rotation.ErrNotFound) {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	a.stored.tags = tags
	value, err := d.encode()
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	now := a.client.cfg.Now().UTC().Truncate(time.Second)
	delete(a.stored.tags, tagUserID)
	tags = a.ownTags(userID)
	tags[tagSignedInAt] = now.Format(time.RFC3339)
	version, created, err := a.client.cfg.Store.Write(ctx, a.secret, value, contentType, tags, now.Add(refreshTokenLife))
	if err != nil {
		return fmt.Errorf("saving a sign-in: %w", err)
	}
	a.cache.doc = d
	a.stored.version, a.stored.created, a.stored.tags = version, created, tags
	a.loaded, a.looked, a.used = true, a.client.cfg.Now(), now
	a.required, a.newer, a.failed, a.repaired = nil, false, nil, true
	a.mu.Lock()
	a.token, a.expires, a.last, a.claims = rotation.Secret{}, time.Time{}, nil, ""
	a.mu.Unlock()
	a.client.cfg.Log.InfoContext(ctx, "signed in", "identity", a.name, "user", a.user)
	a.tellRepaired(ctx)
	return nil
}

// ownTags are the secret's tags without a required sign-in, others' included.
func (a *account) ownTags(userID string) map[string]string {
	tags := maps.Clone(a.stored.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	delete(tags, tagRequired)
	tags[tagUser] = a.user
	if userID != "" {
		tags[tagUserID] = userID
	}
	return tags
}

func (a *account) wrongUser() *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: codeWrongUser,
		Message: fmt.Sprintf("another user than %s has signed in: sign in as the user that the manifest names", a.user)}
}

// SignInRequest is one walk through the browser, made by the caller: State ties
// the answer to it, Challenge is PKCE's S256 challenge.
type SignInRequest struct {
	RedirectURI string
	State       string
	Challenge   string
}

// SignInURL is the authority's page for an identity's sign-in. What the last
// refusal demanded (multi-factor authentication, say) is asked for.
func (c *Client) SignInURL(ctx context.Context, identity string, r SignInRequest) (string, error) {
	a, err := c.account(identity)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	claims := a.claims
	a.mu.Unlock()
	m, err := c.newMSAL(&memory{})
	if err != nil {
		return "", fmt.Errorf("starting a sign-in: %w", err)
	}
	scopes := append([]string{"openid", "offline_access", "profile"}, a.scopes...)
	var page string
	if m.public != nil {
		opts := []public.AuthCodeURLOption{public.WithLoginHint(a.user)}
		if claims != "" {
			opts = append(opts, public.WithClaims(claims))
		}
		page, err = m.public.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, scopes, opts...)
	} else {
		opts := []confidential.AuthCodeURLOption{confidential.WithLoginHint(a.user)}
		if claims != "" {
			opts = append(opts, confidential.WithClaims(claims))
		}
		page, err = m.confidential.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, scopes, opts...)
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
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// CompleteSignIn redeems the code of a sign-in and saves it.
func (c *Client) CompleteSignIn(ctx context.Context, identity, code, redirectURI, verifier string) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	var m memory
	client, err := c.newMSAL(&m)
	if err != nil {
		return fmt.Errorf("completing a sign-in: %w", err)
	}
	var r public.AuthResult
	if client.public != nil {
		r, err = client.public.AcquireTokenByAuthCode(ctx, code, redirectURI, a.scopes, public.WithChallenge(verifier))
	} else {
		r, err = client.confidential.AcquireTokenByAuthCode(ctx, code, redirectURI, a.scopes, confidential.WithChallenge(verifier))
	}
	if err != nil {
		return client.failure(err, c.cfg.Now())
	}
	if !strings.EqualFold(r.Account.PreferredUsername, a.user) {
		return a.wrongUser()
	}
	cache, err := m.doc.encode()
	if err != nil {
		return fmt.Errorf("completing a sign-in: %w", err)
	}
	return c.SaveSignIn(ctx, identity, Grant{Cache: cache, User: r.Account.PreferredUsername, UserID: r.Account.LocalAccountID})
}
