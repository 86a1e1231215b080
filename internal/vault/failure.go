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

	"github.com/azure-patrol/patrol/internal/retryafter"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// word is the form of what a message may quote from Key Vault's answer.
var word = regexp.MustCompile(`^[0-9A-Za-z._-]{1,80}$`)

func configuration(code, format string, args ...any) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: code, Service: rotation.KeyVault,
		Message: fmt.Sprintf(format, args...)}
}

func unreadable(doing string) *rotation.Error {
	return &rotation.Error{Class: rotation.Transient, Code: "vault-answer", Service: rotation.KeyVault,
		Message: doing + ": Key Vault's answer cannot be read: if it stays so, check for a proxy in between"}
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
		return v.refusal(doing, answer)
	}
	e := &rotation.Error{Class: rotation.Transient, Code: "vault-unavailable", Service: rotation.KeyVault}
	auth, noToken := errors.AsType[*azidentity.AuthenticationFailedError](err)
	switch {
	case errors.Is(err, context.Canceled):
		e.Message, e.Err = doing+": the call was cancelled", context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Message, e.Err = doing+": Key Vault did not answer in time", context.DeadlineExceeded
	case noToken && refusedForGood(auth.RawResponse):
		e.Class, e.Code = rotation.Configuration, rotation.VaultCredential
		e.Message = fmt.Sprintf("%s: the app's identity gets no token (%d): check AZURE_CLIENT_ID, "+
			"and that the managed identity is assigned to the app", doing, auth.RawResponse.StatusCode)
	case noToken:
		e.Code = rotation.VaultCredential
		e.Message = doing + ": the managed identity's endpoint gives no token at the moment"
	case nonRetriable(err):
		e.Class, e.Code = rotation.Configuration, rotation.VaultCredential
		e.Message = doing + ": there is no token for this vault: " +
			"check that KEY_VAULT_URL is the address of a Key Vault, and that the app has an identity"
	default:
		e.Message = doing + ": Key Vault cannot be reached, or its answer was cut off: " +
			"if it stays so, check name resolution, routes and firewalls of the app's network"
	}
	return e
}

// refusedForGood reports whether the answer of the identity's endpoint will be the same
// the next time.
func refusedForGood(resp *http.Response) bool {
	if resp == nil {
		return false
	}
	switch s := resp.StatusCode; s {
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	default:
		return s >= 400 && s < 500
	}
}

func (v *Vault) refusal(doing string, answer *azcore.ResponseError) error {
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
	fail := func(class rotation.Class, code, what string) error {
		return &rotation.Error{Class: class, Code: code, Message: fmt.Sprintf("%s: %s (%s)", doing, what, said),
			Service: rotation.KeyVault, ActivityID: activity(answer), After: v.after(answer)}
	}
	switch s := answer.StatusCode; {
	case s == http.StatusNotFound && strings.HasSuffix(code, "NotFound"):
		return fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	case s == http.StatusNotFound:
		return fail(rotation.Configuration, "vault-url", "what answers is no Key Vault: check KEY_VAULT_URL")
	case s == http.StatusUnauthorized:
		return fail(rotation.Configuration, rotation.VaultUnauthorized, "Key Vault does not accept the app's token: "+
			"the vault and the app's managed identity must belong to the same tenant")
	case s == http.StatusForbidden && strings.Contains(inner(answer), "Firewall"):
		return fail(rotation.Configuration, "vault-firewall",
			"the vault's firewall refuses the app: let the app's subnet in, or use a private endpoint")
	case s == http.StatusForbidden && saysDisabled(answer):
		return fail(rotation.Configuration, "vault-disabled", "its latest version is disabled: enable it")
	case s == http.StatusForbidden:
		return fail(rotation.Configuration, rotation.VaultForbidden, "Key Vault refuses the app: give its managed "+
			"identity the role Key Vault Secrets Officer on the vault (a new role takes minutes to work), "+
			"and check the vault's firewall")
	case s == http.StatusTooManyRequests:
		return fail(rotation.Throttled, "vault-throttled", "Key Vault throttles the calls")
	case s == http.StatusConflict:
		return fail(rotation.Transient, rotation.VaultConflict, "the secret is being deleted or recovered")
	case s == http.StatusRequestTimeout || s >= 500:
		return fail(rotation.Transient, "vault-unavailable",
			"Key Vault failed to answer: if it stays so, see Azure Service Health")
	case s < 400:
		return unreadable(doing)
	default:
		return fail(rotation.Configuration, "vault-rejected", "Key Vault rejects the request")
	}
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

// mayBeDisabled: the vault refused, and not for want of a right. The inner code for a
// disabled version is not documented, so an unknown one may mean it.
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

// details reads the parts of an error answer that decide something. The message is
// never passed on.
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

// maxWait is the longest wait that is believed.
const maxWait = time.Hour

func (v *Vault) after(answer *azcore.ResponseError) time.Duration {
	if answer.RawResponse == nil {
		return 0
	}
	return retryafter.FromHeader(answer.RawResponse.Header, v.now(), maxWait)
}

// nonRetriable: the SDK knows that there will be no token however often it asks.
func nonRetriable(err error) bool {
	var marked interface{ NonRetriable() }
	return errors.As(err, &marked)
}
