package entra

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

var errIDToken = errors.New("the id token can't be read")

// idToken is what patrol reads of an id token. It comes from the token endpoint
// itself, over TLS, so that its signature proves nothing more (OpenID Connect
// Core 3.1.3.7).
type idToken struct {
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	Tenant   string `json:"tid"`
	ObjectID string `json:"oid"`
	Name     string `json:"preferred_username"`
	UPN      string `json:"upn"`
	// Provider is there if the account is not of the tenant itself.
	Provider string `json:"idp"`
	Account  any    `json:"acct"` // 1: guest; a number or its text
	Nonce    string `json:"nonce"`
	// Expires is a Unix time.
	Expires float64 `json:"exp"`
	// Roles are the app's own that an administrator has given the user.
	Roles []string `json:"roles"`
}

func decodeIDToken(raw string) (t idToken, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return t, errIDToken
	}
	body, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(body, &t) != nil {
		return idToken{}, errIDToken // the parser's text may quote the token
	}
	return t, nil
}

func (t idToken) isGuest() bool {
	saysGuest := t.Account != nil && fmt.Sprint(t.Account) == "1"
	return saysGuest || t.isOfOtherProvider()
}

// isOfOtherProvider says that another identity provider than the tenant vouches
// for the account.
func (t idToken) isOfOtherProvider() bool {
	if t.Provider == "" || t.Provider == t.Issuer {
		return false
	}
	provider, tenant := strings.ToLower(t.Provider), strings.ToLower(t.Tenant)
	return tenant == "" || !strings.Contains(provider, tenant)
}

// grant is who has signed in.
type grant struct {
	user     string
	userID   string // object id
	tenantID string
	guest    bool // not a member of the tenant
	// confirmUserID is an object id that a person has confirmed as the one that
	// shall take the place of the remembered one.
	confirmUserID string
}

// grantOf reads who has signed in from the answer to a code.
func (c *Client) grantOf(r public.AuthResult, nonce string) (grant, *rotation.Error) {
	t, e := c.checkIDToken(r.IDToken.RawToken, nonce)
	if e != nil {
		return grant{}, e
	}
	g := grant{user: t.Name, userID: t.ObjectID, tenantID: t.Tenant}
	if g.user == "" {
		g.user = t.UPN
	}
	// The account's home is "<object id>.<tenant>" in the tenant that it is of.
	_, home, _ := strings.Cut(r.Account.HomeAccountID, ".")
	g.guest = t.isGuest() || areOtherTenants(home, t.Tenant)
	return g, nil
}

// clockSkew is how far Entra's clock and this one may be apart.
const clockSkew = 5 * time.Minute

// checkIDToken believes an id token that is for this app, of this tenant, of a known
// user, still good, and the answer to this very sign-in.
func (c *Client) checkIDToken(raw, nonce string) (idToken, *rotation.Error) {
	t, err := decodeIDToken(raw)
	if err != nil || !c.isSound(t) {
		return idToken{}, &rotation.Error{Class: rotation.Transient, Code: codeAnswer,
			Message: "Entra's answer does not say who has signed in: start the sign-in again"}
	}
	if t.Nonce != nonce {
		return idToken{}, &rotation.Error{Class: rotation.SignIn, Code: codeNonce, Err: &SignInRefusal{Cause: Unknown},
			Message: "the answer belongs to another sign-in: start the sign-in again"}
	}
	return t, nil
}

func (c *Client) isSound(t idToken) bool {
	isOurs := strings.EqualFold(t.Audience, c.cfg.ClientID) && c.isIssuer(t.Issuer, t.Tenant)
	isNamed := rotation.IsGUID(t.ObjectID) && rotation.IsGUID(t.Tenant)
	return isOurs && isNamed && c.cfg.Now().Before(time.Unix(int64(t.Expires), 0).Add(clockSkew))
}

// isIssuer says that an id token is of a tenant of the cloud that was asked.
func (c *Client) isIssuer(issuer, tenant string) bool {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || !strings.EqualFold(u.Path, "/"+tenant+"/v2.0") {
		return false
	}
	host, _ := authorityHost(c.cfg.AuthorityHost)
	if strings.EqualFold(u.Host, host) {
		return true
	}
	// A cloud has several names. An authority on this machine takes the public cloud's.
	asked, known := ExchangeAudience(host)
	if !known && c.cfg.DisableInstanceDiscovery {
		asked, known = publicAudience, true
	}
	of, ok := ExchangeAudience(u.Host)
	return known && ok && asked == of
}

// areOtherTenants says that two ids name two tenants. A domain can't be compared
// with an id.
func areOtherTenants(a, b string) bool {
	return rotation.IsGUID(a) && rotation.IsGUID(b) && !strings.EqualFold(a, b)
}

// checkMember refuses everybody who is no member of the tenant.
func (a *account) checkMember(g grant) *rotation.Error {
	tenant := a.client.cfg.Tenant
	otherTenant := g.tenantID != "" && rotation.IsGUID(tenant) && !strings.EqualFold(g.tenantID, tenant)
	switch {
	case otherTenant:
		return a.refused(codeWrongTenant,
			"the account is of another tenant than ENTRA_TENANT_ID: sign in as %s", a.user)
	case g.guest || strings.Contains(strings.ToUpper(g.user), "#EXT#"):
		return a.refused(codeGuest,
			"the account is a guest of the tenant: sign in as %s, an account of the tenant itself", a.user)
	}
	return nil
}

// checkUserID refuses another object id under the same name, unless a person has
// confirmed it: the account was deleted and made again, perhaps by somebody
// else.
func (a *account) checkUserID(remembered string, g grant) *rotation.Error {
	if remembered == "" || g.userID == "" {
		return nil
	}
	if strings.EqualFold(remembered, g.userID) || strings.EqualFold(g.confirmUserID, g.userID) {
		return nil
	}
	e := a.refused(CodeUserIDChanged, "%s has another object id than the account that signed in before: "+
		"make sure that it was made anew on purpose, then sign in again and confirm the new id", a.user)
	if id := printable(g.userID); id != "" {
		e.Err = &SignInRefusal{Cause: UserIDChanged, UserID: id}
	}
	return e
}

func (a *account) refused(code, format string, args ...any) *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: code, Message: fmt.Sprintf(format, args...),
		Err: &SignInRefusal{Cause: ownMeanings[code].cause}}
}

func (a *account) wrongUser(name string) *rotation.Error {
	who := printable(name)
	if who == "" {
		who = "another user"
	}
	return a.refused(codeWrongUser, "%s has signed in, and the manifest names %s: sign in as %s", who, a.user, a.user)
}

// maxName is the length of the longest user principal name.
const maxName = 113

// printable is a name that came from outside, if it can be shown as it is.
func printable(name string) string {
	if utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsPrint(r) || strings.ContainsRune(`<>"`, r)
	}) {
		return ""
	}
	return name
}
