package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// word is what may be taken over from a service's answer into a message.
var word = regexp.MustCompile(`^[0-9A-Za-z._-]{1,80}$`)

func configuration(code, format string, args ...any) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: code, Message: fmt.Sprintf(format, args...)}
}

func unreadable(doing string) *rotation.Error {
	return &rotation.Error{Class: rotation.Transient, Code: "vault-answer", Message: doing +
		": the vault's answer could not be understood"}
}

// failure gives an SDK's error its class. The error itself is left behind: it
// holds the answer's body and, through its request, the bearer token.
func (v *Vault) failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		return e
	}
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return v.answered(doing, answer)
	}
	e := &rotation.Error{Class: rotation.Transient, Code: "vault-unavailable"}
	switch auth, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); {
	case errors.Is(err, context.Canceled):
		e.Message, e.Err = doing+": the call was cancelled", context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Message, e.Err = doing+": the vault did not answer in time", context.DeadlineExceeded
	case ok && auth.RawResponse != nil && auth.RawResponse.StatusCode >= 400 && auth.RawResponse.StatusCode < 500 &&
		auth.RawResponse.StatusCode != http.StatusTooManyRequests &&
		auth.RawResponse.StatusCode != http.StatusRequestTimeout:
		e.Class, e.Code = rotation.Configuration, "vault-credential"
		e.Message = fmt.Sprintf(
			"%s: the app's identity gets no token (%d): check AZURE_CLIENT_ID and that the managed identity is assigned to the app", doing, auth.RawResponse.StatusCode)
	case ok:
		e.Code, e.Message = "vault-credential", doing+": the app's identity could not get a token for now"
	case nonRetriable(err):
		e.Class, e.Code = rotation.Configuration, "vault-credential"
		e.Message = doing +
			": there is no token for this vault: check that KEY_VAULT_URL is the address of a Key Vault and that the app has an identity"
	default:
		e.Message = doing + ": the vault could not be reached, or its answer was cut off"
	}
	return e
}

func (v *Vault) answered(doing string, answer *azcore.ResponseError) error {
	code := answer.ErrorCode
	if !word.MatchString(code) {
		code = ""
	}
	said := strconv.Itoa(answer.StatusCode)
	for _, s := range []string{code, inner(answer)} {
		if s != "" {
			said += " " + s
		}
	}
	e := &rotation.Error{ActivityID: activity(answer), After: v.after(answer)}
	switch s := answer.StatusCode; {
	case s == http.StatusNotFound && strings.HasSuffix(code, "NotFound"):
		return fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	case s == http.StatusNotFound:
		e.Class, e.Code = rotation.Configuration, "vault-url"
		e.Message = fmt.Sprintf("%s: what answered does not speak for a Key Vault (%s): check KEY_VAULT_URL", doing,
			said)
	case s == http.StatusUnauthorized:
		e.Class, e.Code = rotation.Configuration, "vault-unauthorized"
		e.Message = fmt.Sprintf(
			"%s: the vault does not accept the app's token (%s): the vault and the app's managed identity must belong to the same tenant", doing, said)
	case s == http.StatusForbidden && strings.Contains(inner(answer), "Firewall"):
		e.Class, e.Code = rotation.Configuration, "vault-firewall"
		e.Message = fmt.Sprintf(
			"%s: the vault's firewall refused the app (%s): let the app's subnet or a private endpoint in", doing, said)
	case s == http.StatusForbidden && saysDisabled(answer):
		e.Class, e.Code = rotation.Configuration, "vault-disabled"
		e.Message = fmt.Sprintf("%s: its latest version is disabled (%s): enable it", doing, said)
	case s == http.StatusForbidden:
		e.Class, e.Code = rotation.Configuration, "vault-forbidden"
		e.Message = fmt.Sprintf(
			"%s: the vault refused the app (%s): give its managed identity the role Key Vault Secrets Officer on the vault (a new role takes minutes to work), and check the vault's firewall", doing, said)
	case s == http.StatusTooManyRequests:
		e.Class, e.Code = rotation.Throttled, "vault-throttled"
		e.Message = fmt.Sprintf("%s: the vault asks to slow down (%s)", doing, said)
	case s == http.StatusConflict:
		e.Class, e.Code = rotation.Transient, "vault-conflict"
		e.Message = fmt.Sprintf("%s: the secret is being deleted or recovered (%s)", doing, said)
	case s == http.StatusRequestTimeout || s >= 500:
		e.Class, e.Code = rotation.Transient, "vault-unavailable"
		e.Message = fmt.Sprintf("%s: the vault is out of order for now (%s)", doing, said)
	case s < 400:
		return unreadable(doing)
	default:
		e.Class, e.Code = rotation.Configuration, "vault-rejected"
		e.Message = fmt.Sprintf("%s: the vault rejected the request (%s)", doing, said)
	}
	return e
}

func status(err error) int {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}

// saysDisabled: the vault refused because the version is disabled.
func saysDisabled(err error) bool {
	if status(err) != http.StatusForbidden {
		return false
	}
	code, message := details(err)
	return code == "SecretDisabled" || code == "" && strings.Contains(strings.ToLower(message), "disabled")
}

// mayBeDisabled: the vault refused, and not for want of a right. The inner code
// for a disabled version is not documented, so an unknown one is looked into.
func mayBeDisabled(err error) bool {
	if status(err) != http.StatusForbidden {
		return false
	}
	code, _ := details(err)
	return code != "AccessDenied" && !strings.HasPrefix(code, "ForbiddenBy") && (code != "" || saysDisabled(err))
}

// inner is the inner error code, the one that says why.
func inner(err error) string {
	code, _ := details(err)
	if !word.MatchString(code) {
		return ""
	}
	return code
}

// details reads the parts of an error answer that decide something. The message
// is looked at and never passed on.
func details(err error) (inner, message string) {
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok || answer.RawResponse == nil || answer.RawResponse.Body == nil {
		return "", ""
	}
	b, err := runtime.Payload(answer.RawResponse)
	if err != nil || len(b) > 64<<10 {
		return "", ""
	}
	var body struct {
		Error struct {
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if json.Unmarshal(b, &body) != nil {
		return "", ""
	}
	return body.Error.Inner.Code, body.Error.Message
}

func activity(answer *azcore.ResponseError) string {
	if answer.RawResponse == nil {
		return ""
	}
	if id := answer.RawResponse.Header.Get("X-Ms-Request-Id"); word.MatchString(id) {
		return id
	}
	return ""
}

// after reads how long the vault asks to wait.
func (v *Vault) after(answer *azcore.ResponseError) time.Duration {
	if answer.RawResponse == nil {
		return 0
	}
	h := answer.RawResponse.Header
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if n, err := strconv.Atoi(h.Get(name)); err == nil && n > 0 {
			return min(time.Duration(n)*time.Millisecond, time.Hour)
		}
	}
	value := h.Get("Retry-After")
	if n, err := strconv.Atoi(value); err == nil && n > 0 {
		return time.Duration(min(n, 3600)) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return min(max(t.Sub(v.now()), 0), time.Hour)
	}
	return 0
}

// nonRetriable: the SDK knows that asking again is no use, for want of a token.
func nonRetriable(err error) bool {
	var marked interface{ NonRetriable() }
	return errors.As(err, &marked)
}
