package entra

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
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

func (t idToken) guest() bool {
	return t.Provider != "" && t.Provider != t.Issuer && (t.Tenant == "" || !strings.Contains(strings.ToLower(t.Provider), strings.ToLower(t.Tenant))) ||
		t.Account != nil && fmt.Sprint(t.Account) == "1"
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// grantOf reads who has signed in from the answer to a code.
func (c *Client) grantOf(r public.AuthResult, nonce string) (Grant, *rotation.Error) {
	t, err := decodeIDToken(r.IDToken.RawToken)
	if err != nil || !strings.EqualFold(t.Audience, c.cfg.ClientID) {
		return Grant{}, &rotation.Error{Class: rotation.Transient, Code: "entra-answer",
			Message: "Entra's answer does not say who has signed in: start the sign-in again"}
	}
	if t.Nonce != nonce {
		return Grant{}, &rotation.Error{Class: rotation.SignIn, Code: codeNonce, Err: &SignInRefusal{Cause: Unknown},
			Message: "the answer belongs to another sign-in: start the sign-in again"}
	}
	g := Grant{User: t.Name, UserID: t.ObjectID, TenantID: t.Tenant, Guest: t.guest()}
	if g.User == "" {
		g.User = t.UPN
	}
	// The account's home is "<object id>.<tenant>" in the tenant that it is of.
	if _, home, ok := strings.Cut(r.Account.HomeAccountID, "."); ok && guid.MatchString(home) && guid.MatchString(t.Tenant) && !strings.EqualFold(home, t.Tenant) {
		g.Guest = true
	}
	return g, nil
}

// admit refuses everybody but the manifest's user, as a member of the tenant.
func (a *account) admit(g Grant) *rotation.Error {
	tenant := a.client.cfg.Tenant
	switch {
	case g.TenantID != "" && guid.MatchString(tenant) && !strings.EqualFold(g.TenantID, tenant):
		return a.refuse(codeWrongTenant, "the account is of another tenant than ENTRA_TENANT_ID: sign in as %s", a.user)
	case g.Guest || strings.Contains(strings.ToUpper(g.User), "#EXT#"):
		return a.refuse(codeGuest, "the account is a guest of the tenant: sign in as %s, an account of the tenant itself", a.user)
	case !strings.EqualFold(g.User, a.user):
		return a.wrongUser(g.User)
	}
	return nil
}

// admitID refuses another object id under the same name, unless a person has
// confirmed it: the account was deleted and made again, perhaps by somebody
// else.
func (a *account) admitID(remembered string, g Grant) *rotation.Error {
	if remembered == "" || g.UserID == "" || strings.EqualFold(remembered, g.UserID) || strings.EqualFold(g.ConfirmUserID, g.UserID) {
		return nil
	}
	e := a.refuse(codeUserIDChanged, "%s has another object id than the account that signed in before: make sure that it was made anew on purpose, then sign in again and confirm the new id", a.user)
	if id := plain(g.UserID); id != "" {
		e.Err = &SignInRefusal{Cause: UserIDChanged, UserID: id}
	}
	return e
}

func (a *account) refuse(code, format string, args ...any) *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: code, Message: fmt.Sprintf(format, args...), Err: &SignInRefusal{Cause: ownWords[code].cause}}
}

func (a *account) wrongUser(name string) *rotation.Error {
	name = plain(name)
	who := name
	if who == "" {
		who = "another user"
	}
	e := a.refuse(codeWrongUser, "%s has signed in, and the manifest names %s: sign in as %s", who, a.user, a.user)
	e.Err = &SignInRefusal{Cause: WrongUser, User: name}
	return e
}

// maxName is the length of the longest user principal name.
const maxName = 113

// plain is a name that came from outside, if it can be shown as it is.
func plain(name string) string {
	if utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsPrint(r) || strings.ContainsRune(`<>"`, r)
	}) {
		return ""
	}
	return name
}
