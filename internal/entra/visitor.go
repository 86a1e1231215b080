package entra

import (
	"context"
	"errors"
	"net/url"
	"slices"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Visitor is a person who has signed in to the app's own page, and to nothing else:
// patrol keeps no token of such a sign-in.
type Visitor struct {
	Name     string // as Entra shows it: user principal name, or a guest's address
	ObjectID string
	Roles    []string // the app's own, by their values
}

// Prompts of a visitor's sign-in.
const (
	// AnyAccount lets Entra decide whether it asks.
	AnyAccount = ""
	// ChooseAccount asks which account it shall be.
	ChooseAccount = "select_account"
	// ProveAgain makes the person prove once more who they are.
	ProveAgain = "login"
)

// visitorScopes say who has signed in, and are for no API.
func visitorScopes() []string { return []string{"openid", "profile"} }

// VisitorURL is the authority's page for a visitor's sign-in.
func (c *Client) VisitorURL(ctx context.Context, r SignInRequest, prompt string) (string, error) {
	if r.State == "" || r.Challenge == "" || r.Nonce == "" {
		return "", errors.New("starting a visitor's sign-in: state, challenge and nonce are needed")
	}
	m, e := c.newClient(ctx, &msalCache{})
	if e != nil {
		return "", e
	}
	var page string
	var err error
	if m.public != nil {
		page, err = m.public.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, visitorScopes())
	} else {
		page, err = m.confidential.AuthCodeURL(ctx, c.cfg.ClientID, r.RedirectURI, visitorScopes())
	}
	if err != nil {
		return "", m.failure(err, c.cfg.Now())
	}
	more := url.Values{}
	if prompt != AnyAccount {
		more.Set("prompt", prompt)
	}
	return r.addTo(page, more)
}

// CompleteVisit redeems the code of a visitor's sign-in. Whatever tokens come with it are
// dropped.
func (c *Client) CompleteVisit(ctx context.Context, g CodeGrant) (Visitor, error) {
	if g.Nonce == "" {
		return Visitor{}, errors.New("completing a visitor's sign-in: the nonce is needed")
	}
	client, e := c.newClient(ctx, &msalCache{})
	if e != nil {
		return Visitor{}, e
	}
	code, verifier := g.Code.Reveal(), g.Verifier.Reveal()
	var r public.AuthResult
	var err error
	if client.public != nil {
		r, err = client.public.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, visitorScopes(),
			public.WithChallenge(verifier))
	} else {
		r, err = client.confidential.AcquireTokenByAuthCode(ctx, code, g.RedirectURI, visitorScopes(),
			confidential.WithChallenge(verifier))
	}
	if err != nil {
		return Visitor{}, client.failure(err, c.cfg.Now())
	}
	t, e := c.checkIDToken(r.IDToken.RawToken, g.Nonce)
	if e != nil {
		return Visitor{}, e
	}
	if areOtherTenants(t.Tenant, c.cfg.Tenant) {
		return Visitor{}, &rotation.Error{Class: rotation.SignIn, Code: codeWrongTenant,
			Err:     &SignInRefusal{Cause: ownMeanings[codeWrongTenant].cause},
			Message: "the account is of another tenant than ENTRA_TENANT_ID: sign in with an account of this one"}
	}
	v := Visitor{Name: printable(t.Name), ObjectID: t.ObjectID, Roles: slices.Clone(t.Roles)}
	if v.Name == "" {
		v.Name = t.ObjectID
	}
	return v, nil
}
