package entra

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// SignInRefusal is what the *rotation.Error of a refused sign-in wraps.
type SignInRefusal struct {
	Cause Cause
	// UserID is the object id that has to be confirmed (user-id-changed).
	UserID string
	// AdminConsent: an administrator must consent, see AdminConsentLink.
	AdminConsent bool
}

func (r *SignInRefusal) Error() string { return "sign-in refused (" + string(r.Cause) + ")" }

// NeedsAdminConsent reports whether an administrator's consent would help.
func NeedsAdminConsent(err error) bool {
	if r, ok := errors.AsType[*SignInRefusal](err); ok {
		return r.AdminConsent
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return helpedByAdminConsent(r.Number) || r.Name == "consent_required" || r.SubError == "consent_required"
	}
	e := rotation.AsError(err)
	return e != nil && e.Code == CodeDeclinedScopes
}

func helpedByAdminConsent(number int) bool {
	return slices.Contains([]int{65001, 65005, 90093, 90094, 90095, 900941}, number)
}

// Callback is what the browser brings back to the redirect URI: exactly one of
// Code, AdminConsent and Refused is set.
type Callback struct {
	State        string
	Code         rotation.Secret
	AdminConsent bool            // an administrator has consented
	Refused      *rotation.Error // the authority's no, by AuthorizeRefusal
}

const (
	maxState = 2048
	maxCode  = 8192 // real ones have a thousand characters
)

// ReadCallback reads the parameters of a redirect. It is pure, and believes
// nothing: the state is still to be compared.
func ReadCallback(v url.Values) (Callback, error) {
	bad := &rotation.Error{Class: rotation.SignIn, Code: codeCallback,
		Message: "this is not an answer of Entra to a sign-in: start the sign-in again"}
	for _, name := range []string{"state", "code", "error", "error_subcode", "error_description", "admin_consent"} {
		if len(v[name]) > 1 {
			return Callback{}, bad
		}
	}
	c := Callback{State: v.Get("state")}
	code, refused, consent := v.Get("code"), v.Get("error"), v.Get("admin_consent")
	if c.State == "" || len(c.State) > maxState || len(code) > maxCode {
		return Callback{}, bad
	}
	switch {
	case refused != "" && code == "":
		c.Refused = AuthorizeRefusal(refused, v.Get("error_subcode"), v.Get("error_description"))
	case code != "" && refused == "" && consent == "":
		c.Code = rotation.NewSecret(code)
	case strings.EqualFold(consent, "true") && code == "" && refused == "":
		c.AdminConsent = true
	default:
		return Callback{}, bad
	}
	return c, nil
}

var traceInText = regexp.MustCompile(`Trace ID: ([0-9a-fA-F-]{36})\b`)

// AuthorizeRefusal says what an error of the authorize page means: name,
// subError and description are the answer's error, error_subcode and
// error_description. The description is read for Entra's number and trace id
// only; nothing else of it is repeated.
func AuthorizeRefusal(name, subError, description string) *rotation.Error {
	n := 0
	if m := aadsts.FindStringSubmatch(description); m != nil {
		n, _ = strconv.Atoi(m[1])
	}
	code := "refused"
	switch {
	case n > 0:
		code = "AADSTS" + strconv.Itoa(n)
	case word.MatchString(name):
		code = name
	}
	m := meaningOf(code)
	e := &rotation.Error{Class: authorizeClass(name, n), Code: code, Message: m.message}
	if t := traceInText.FindStringSubmatch(description); t != nil {
		e.ActivityID = t[1]
	}
	r := &SignInRefusal{Cause: m.cause, AdminConsent: helpedByAdminConsent(n) || name == "consent_required"}
	if r.AdminConsent && m.cause == Unknown {
		r.Cause, e.Message = ConsentMissing, meanings[65001].message
	}
	if e.Message == "" {
		e.Message = map[rotation.Class]string{
			rotation.SignIn:        "Entra has refused the sign-in: sign in again",
			rotation.Configuration: "Entra refuses the app: check the app registration and the settings ENTRA_*",
			rotation.Policy:        "a policy of the tenant blocks the sign-in",
			rotation.Transient:     "Entra has failed: sign in again in a while",
		}[e.Class]
		if n == 0 && name == "access_denied" {
			e.Message = "the sign-in was cancelled: start it again, and accept what patrol asks for"
			if subError == "cancel" {
				e.Message = "the sign-in was cancelled: start it again"
			}
		}
	}
	e.Err = r
	return e
}

// authorizeClass goes by the number where it is known: the page answers the same
// OAuth error to what a person, and to what only an administrator can change.
func authorizeClass(name string, n int) rotation.Class {
	m, known := meanings[n]
	switch {
	case slices.Contains([]int{50105, 53000, 53001, 53002, 53003, 53004}, n), m.cause == PolicyBlocks:
		return rotation.Policy
	case known && m.cause == "":
		return rotation.Transient
	case known && m.cause == AppRegistration:
		return rotation.Configuration
	case known && m.cause != Unknown:
		return rotation.SignIn
	}
	switch name {
	case "server_error", "temporarily_unavailable":
		return rotation.Transient
	case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "invalid_resource",
		"invalid_client":
		return rotation.Configuration
	}
	return rotation.SignIn
}

// AdminConsentLink is the authority's page on which an administrator consents to
// what an identity's sign-in asks for. It leads back to the redirect URI.
func (c *Client) AdminConsentLink(identity, redirectURI, state string) (string, error) {
	a, err := c.account(identity)
	if err != nil {
		return "", err
	}
	q := url.Values{
		"client_id": {c.cfg.ClientID}, "scope": {strings.Join(a.scopes, " ")},
		"redirect_uri": {redirectURI}, "state": {state},
	}
	return c.authority + "/v2.0/adminconsent?" + q.Encode(), nil
}
