package entra

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/azure-patrol/patrol/internal/retryafter"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Refusal is what the authority said, as far as it can be shown. MSAL's own
// error never leaves this package: its request still holds the refresh token.
type Refusal struct {
	Status     int
	Name       string // OAuth error: invalid_grant
	SubError   string
	Number     int    // AADSTS number; 0: none
	Claims     string // what the next sign-in must satisfy
	TraceID    string
	RetryAfter time.Duration
}

func (r *Refusal) Error() string { return "refused by the authority (" + r.code() + ")" }

func (r *Refusal) code() string {
	switch {
	case r.Number > 0:
		return fmt.Sprintf("AADSTS%d", r.Number)
	case r.Name != "":
		return r.Name
	}
	return fmt.Sprintf("http-%d", r.Status)
}

var (
	word    = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)
	traceID = regexp.MustCompile(`^[0-9a-fA-F-]{1,64}$`)
	aadsts  = regexp.MustCompile(`^AADSTS(\d{1,9}):`)
)

// readRefusal reads an error answer. Only what looks as it should is taken.
func readRefusal(resp *http.Response, now time.Time) *Refusal {
	wait := retryafter.Parse(resp.Header.Get("Retry-After"), now, time.Hour)
	r := &Refusal{Status: resp.StatusCode, RetryAfter: wait}
	var body struct {
		Error       string `json:"error"`
		SubError    string `json:"suberror"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Claims      string `json:"claims"`
		TraceID     string `json:"trace_id"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || json.Unmarshal(raw, &body) != nil {
		return r
	}
	if word.MatchString(body.Error) {
		r.Name = body.Error
	}
	if word.MatchString(body.SubError) {
		r.SubError = body.SubError
	}
	if len(body.Codes) > 0 && body.Codes[0] > 0 {
		r.Number = body.Codes[0]
	} else if m := aadsts.FindStringSubmatch(body.Description); m != nil {
		r.Number, _ = strconv.Atoi(m[1])
	}
	if len(body.Claims) <= maxClaims && isJSONObject(body.Claims) {
		r.Claims = body.Claims
	}
	if traceID.MatchString(body.TraceID) {
		r.TraceID = body.TraceID
	}
	return r
}

// maxClaims keeps the next sign-in's address short enough for a browser.
const maxClaims = 4 << 10

const loopBreak = 5 * time.Minute

// class decides what follows a refusal. It goes by the OAuth error; Entra's
// numbers are for people, except for those that say the opposite of their error.
func (r *Refusal) class() rotation.Class {
	interaction := []string{"invalid_grant", "interaction_required", "consent_required", "login_required"}
	configuration := []string{
		"invalid_client", "unauthorized_client", "invalid_scope", "invalid_resource", "invalid_request",
		"unsupported_grant_type", "invalid_tenant", "invalid_instance", "access_denied",
	}
	if c, ok := decidedByNumber[r.Number]; ok {
		return c
	}
	switch {
	case r.Status == http.StatusTooManyRequests:
		return rotation.Throttled
	case r.Status >= 500, r.Status == http.StatusRequestTimeout, r.Name == "temporarily_unavailable":
		return rotation.Transient
	case r.SubError == "message_only": // a person can't do anything about it by signing in
		return rotation.Policy
	case slices.Contains(interaction, r.Name):
		return rotation.SignIn
	case slices.Contains(configuration, r.Name):
		return rotation.Configuration
	}
	return rotation.Transient
}

// failure is the refusal as patrol's error.
func (r *Refusal) failure() *rotation.Error {
	e := &rotation.Error{
		Class: r.class(), Code: r.code(), Message: meanings[r.Number].message,
		After: r.RetryAfter, ActivityID: r.TraceID, Err: r,
	}
	if e.Message == "" {
		e.Message = map[rotation.Class]string{
			rotation.SignIn:        "the sign-in is no longer good: sign in again",
			rotation.Configuration: "Entra refuses the app: check the app registration and the settings ENTRA_*",
			rotation.Policy:        "a policy of the tenant blocks the app",
			rotation.Throttled:     "Entra throttles the requests",
			rotation.Transient:     "Entra has failed to answer properly",
		}[e.Class]
	}
	if r.Number == 50196 && e.After == 0 {
		e.After = loopBreak
	}
	return e
}

// failure turns MSAL's error into one that may be shown, and decides its class.
func (m msalClient) failure(err error, now time.Time) *rotation.Error {
	var answered msalerrors.CallErr
	var garbled msalerrors.InvalidJsonErr
	switch {
	case errors.Is(err, errNoAssertion):
		return assertionFailure(m.assertion.cause())
	case errors.As(err, &answered) && answered.Resp != nil:
		return readRefusal(answered.Resp, now).failure()
	case errors.As(err, &garbled): // its text is the answer itself
		return &rotation.Error{Class: rotation.Transient, Code: codeAnswer,
			Message: "Entra's answer can't be read: is there a proxy in between?"}
	case strings.Contains(err.Error(), "declined scopes"):
		return &rotation.Error{Class: rotation.Configuration, Code: CodeDeclinedScopes,
			Message: messageFor(CodeDeclinedScopes)}
	case strings.Contains(err.Error(), "no token found"):
		return &rotation.Error{Class: rotation.SignIn, Code: CodeNotSignedIn, Message: messageFor(CodeNotSignedIn)}
	}
	return &rotation.Error{Class: rotation.Transient, Code: codeUnreachable, Message: "Entra can't be reached"}
}

// assertionFailure says why the app could not prove who it is.
func assertionFailure(err error) *rotation.Error {
	e := &rotation.Error{Class: rotation.Transient, Code: CodeManagedIdentity,
		Message: "the managed identity gives no token at the moment"}
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) && failed.RawResponse != nil {
		switch s := failed.RawResponse.StatusCode; {
		case s == http.StatusTooManyRequests:
			e.Class = rotation.Throttled
		case s >= 400 && s < 500:
			e.Class = rotation.Configuration
			e.Message = "the managed identity gives no token: " +
				"check that AZURE_CLIENT_ID names an identity that is assigned to the app"
		}
	}
	return e
}
