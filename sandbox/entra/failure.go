package entra

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Failure makes token requests fail: those of a user, of an app, or all.
type Failure struct {
	User, App string // empty: any
	Code      int    // AADSTS number, one of the list below or any other
	// Error, Status and SubError override what belongs to the code.
	Error    string
	SubError string
	Status   int
	// Claims, when set, is answered as the claims that the next sign-in needs.
	// 50076 and its like carry some by themselves.
	Claims     string
	RetryAfter time.Duration
	Times      int // 0: until ClearFailures
}

// Fail adds a failure.
func (s *Server) Fail(f Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, &f)
}

// ClearFailures drops every failure.
func (s *Server) ClearFailures() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = nil
}

func (s *Server) failure(upn, client string) *refusal {
	for i, f := range s.failures {
		otherUser := f.User != "" && !strings.EqualFold(f.User, upn)
		otherApp := f.App != "" && f.App != client
		if otherUser || otherApp {
			continue
		}
		if f.Times > 0 {
			f.Times--
			if f.Times == 0 {
				s.failures = append(s.failures[:i:i], s.failures[i+1:]...)
			}
		}
		r := refuse(f.Code, "")
		if f.Error != "" {
			r.err = f.Error
		}
		if f.SubError != "" {
			r.suberror = f.SubError
		}
		if f.Status != 0 {
			r.status = f.Status
		}
		if f.Claims != "" {
			r.claims = f.Claims
		}
		r.retryAfter = f.RetryAfter
		return r
	}
	return nil
}

// refusal is an error answer of the authority.
type refusal struct {
	status     int
	err        string
	code       int
	suberror   string
	text       string
	claims     string
	retryAfter time.Duration
}

// policyClaims are the claims of a failure on demand, which no Policy stands
// behind.
var policyClaims = challenge("0a6e9b52-58dd-4d1a-a3c9-b5c1c5b8a0b1")

type known struct {
	status   int
	err      string
	suberror string
	text     string
}

// The codes that the authority answers by itself or on demand. Texts are short
// paraphrases: clients shall not read them.
var codes = map[int]known{
	16000: {400, "interaction_required", "", "Several accounts are signed in."},
	28000: {400, "invalid_request", "", "The scopes belong to more than one resource."},
	50011: {400, "invalid_request", "",
		"The redirect URI does not match one that is registered for the application."},
	50013: {401, "invalid_client", "", "The assertion failed its signature validation."},
	50020: {400, "invalid_grant", "", "The account belongs to another tenant and is not a guest in this one."},
	50034: {400, "invalid_grant", "", "The user account does not exist in the directory."},
	50049: {400, "invalid_instance", "", "The authority is unknown or invalid."},
	50053: {400, "invalid_grant", "", "The account is locked: too many sign-ins have failed."},
	50055: {400, "invalid_grant", "", "The password has expired."},
	50057: {400, "invalid_grant", "", "The user account is disabled."},
	50058: {400, "login_required", "", "A silent sign-in was asked for and nobody is signed in."},
	50072: {400, "invalid_grant", "basic_action", "The user must enrol in multi-factor authentication."},
	50074: {400, "invalid_grant", "basic_action", "Strong authentication is required."},
	50076: {400, "invalid_grant", "basic_action",
		"The user must use multi-factor authentication to access the resource."},
	50078: {400, "invalid_grant", "basic_action", "The multi-factor authentication has expired."},
	50079: {400, "invalid_grant", "basic_action", "The user must enrol in multi-factor authentication."},
	50089: {400, "invalid_grant", "", "The sign-in has taken too long: its flow token has expired."},
	50105: {400, "interaction_required", "", "The signed-in user is not assigned to a role for the application."},
	50131: {400, "invalid_grant", "", "Conditional Access has failed: the device or the activity is not accepted."},
	50132: {400, "invalid_grant", "user_password_expired",
		"The credentials have been revoked: the password has expired."},
	50133: {400, "invalid_grant", "bad_token", "The session is invalid: the password has expired or was changed."},
	50173: {400, "invalid_grant", "bad_token", "The grant has been revoked and a fresh sign-in is needed."},
	50196: {400, "invalid_grant", "", "The server has detected a loop of requests by this client."},
	53000: {400, "invalid_grant", "message_only", "The device is not in the state that Conditional Access wants."},
	53003: {400, "invalid_grant", "message_only", "Access has been blocked by Conditional Access policies."},
	53011: {400, "invalid_grant", "", "The user is blocked because of a risk."},
	54005: {400, "invalid_grant", "", "The authorization code was already redeemed."},
	65001: {400, "invalid_grant", "consent_required",
		"The user or administrator has not consented to use the application."},
	65004: {400, "access_denied", "", "The user has declined to consent."},
	70000: {400, "invalid_grant", "bad_token", "The provided grant is invalid or malformed."},
	70003: {400, "unsupported_grant_type", "", "The grant type is not supported."},
	70008: {400, "invalid_grant", "", "The authorization code has expired."},
	70011: {400, "invalid_scope", "", "The scope value is not valid."},
	70016: {400, "authorization_pending", "", "The device code has not been authorized yet."},
	70018: {400, "authorization_declined", "", "The user has declined the device's request."},
	70020: {400, "expired_token", "", "The device code has expired."},
	70043: {400, "invalid_grant", "token_expired",
		"The refresh token is invalid because of a sign-in frequency policy."},
	90002: {400, "invalid_request", "", "The tenant was not found."},
	90014: {400, "invalid_request", "", "A required field is missing or not valid."},
	90023: {400, "invalid_request", "", "The authentication request is not valid."},
	90033: {503, "temporarily_unavailable", "", "A transient error has occurred."},
	90055: {429, "temporarily_unavailable", "", "The request was throttled."},
	90072: {400, "invalid_grant", "", "The external account does not exist in the tenant."},
	90094: {400, "access_denied", "", "An administrator has to grant these permissions."},
	165000: {400, "invalid_request", "",
		"The request does not belong to a sign-in of this browser, or its form was sent before."},
	500011: {400, "invalid_resource", "", "The resource principal was not found in the tenant."},
	500014: {400, "invalid_resource", "", "The service principal of the resource is disabled in the tenant."},
	500121: {400, "invalid_grant", "", "The strong authentication has failed."},
	500341: {400, "invalid_grant", "", "The user account has been deleted from the directory."},
	501481: {400, "invalid_grant", "", "The code verifier does not match the code challenge."},
	501491: {400, "invalid_request", "", "The code challenge is not valid."},
	530035: {400, "invalid_grant", "", "Access has been blocked by security defaults."},
	530084: {400, "invalid_grant", "", "Access has been blocked by a token protection policy."},
	650053: {400, "invalid_scope", "", "The application asked for a scope that does not exist on the resource."},
	700005: {400, "invalid_grant", "",
		"The authorization code was issued to another client or for another redirect URI."},
	700016: {400, "unauthorized_client", "", "The application was not found in the directory."},
	700024: {401, "invalid_client", "", "The client assertion is not within its valid time range."},
	700025: {401, "invalid_client", "",
		"The client is public: neither client_assertion nor client_secret may be presented."},
	700027: {401, "invalid_client", "",
		"The client assertion's signature or certificate is not valid for this application."},
	700054: {400, "unsupported_response_type", "", "The response_type is not enabled for the application."},
	700082: {400, "invalid_grant", "token_expired", "The refresh token has expired due to inactivity."},
	700084: {400, "invalid_grant", "token_expired",
		"The refresh token was issued to a single page app and its fixed life is over."},
	700211:  {401, "invalid_client", "", "No federated identity record matches the assertion's issuer."},
	700212:  {401, "invalid_client", "", "No federated identity record matches the assertion's audience."},
	700213:  {401, "invalid_client", "", "No federated identity record matches the assertion's subject."},
	900144:  {400, "invalid_request", "", "The request body lacks a required parameter."},
	1000502: {401, "invalid_client", "", "The certificate is not within its valid time range."},
	7000112: {401, "unauthorized_client", "", "The application is disabled."},
	7000215: {401, "invalid_client", "", "An invalid client secret was provided."},
	7000218: {401, "invalid_client", "", "The request body must contain client_assertion or client_secret."},
	7000222: {401, "invalid_client", "", "The client secret has expired."},
	9002325: {400, "invalid_request", "",
		"Proof Key for Code Exchange is required for cross-origin code redemption."},
	9002326: {400, "invalid_request", "",
		"Cross-origin redemption is permitted for the single page application type only."},
	9002327: {400, "invalid_request", "",
		"Tokens for a single page application may only be redeemed by cross-origin requests."},
}

// refuse makes the answer that belongs to an AADSTS code. detail is added to
// its text.
func refuse(code int, detail string) *refusal {
	k, ok := codes[code]
	if !ok {
		k = known{http.StatusBadRequest, "invalid_grant", "", "The request was refused."}
	}
	r := &refusal{status: k.status, err: k.err, code: code, suberror: k.suberror, text: k.text}
	if detail != "" {
		r.text += " " + detail
	}
	if k.suberror == "basic_action" || code == 53003 {
		r.claims = policyClaims
	}
	return r
}

func (s *Server) refused(w http.ResponseWriter, r *http.Request, f *refusal) {
	trace, now := newGUID(), time.Now().UTC()
	correlation := r.Header.Get("client-request-id")
	if correlation == "" {
		correlation = newGUID()
	}
	body := map[string]any{
		"error": f.err,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			f.code, f.text, trace, correlation, now.Format("2006-01-02 15:04:05Z")),
		"error_codes":    []int{f.code},
		"timestamp":      now.Format("2006-01-02 15:04:05Z"),
		"trace_id":       trace,
		"correlation_id": correlation,
		"error_uri":      fmt.Sprintf("%s/error?code=%d", s.cfg.Authority, f.code),
	}
	if f.suberror != "" {
		body["suberror"] = f.suberror
	}
	if f.claims != "" {
		body["claims"] = f.claims
	}
	w.Header().Set("x-ms-request-id", trace)
	w.Header().Set("Cache-Control", "no-store, no-cache")
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(f.retryAfter.Seconds())))
	}
	answer(w, f.status, body)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
