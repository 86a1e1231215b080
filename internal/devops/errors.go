package devops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// previewError: the API version exists with -preview only, or without it only.
type previewError struct{ refusal *rotation.Error }

func (e *previewError) Error() string { return e.refusal.Error() }
func (e *previewError) Unwrap() error { return e.refusal }

// fail makes an error of this call.
func (k *call) fail(class rotation.Class, code, message string, cause error) *rotation.Error {
	return &rotation.Error{
		Service: rotation.AzureDevOps,
		Class:   class, Code: code, Err: cause,
		Message: fmt.Sprintf("%s of %s in %s: %s", k.doing, k.owner.Identity, k.owner.Organization, message),
	}
}

// with adds what the answer says about itself.
func (k *call) with(a *answer, e *rotation.Error) *rotation.Error {
	e.ActivityID = a.activityID()
	e.After = wait(a.header, a.status, a.at)
	return e
}

// unsure is the class of a failure after which nobody knows whether the call has
// taken effect: it matters to a call that cannot be repeated.
func (k *call) unsure() rotation.Class {
	if k.once {
		return rotation.Ambiguous
	}
	return rotation.Transient
}

// noAnswer makes an error of what the pipeline could not do.
func (k *call) noAnswer(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		return e
	}
	// Of the causes only the end of the caller's context is kept: others may
	// quote what was sent or received.
	cause := ctx.Err()
	if _, ok := errors.AsType[credentialError](err); ok {
		return k.fail(rotation.Transient, "no-bearer-token",
			"there is no access token for the identity: see the log line of its sign-in", cause)
	}
	class := rotation.Transient
	if k.pending {
		class = k.unsure()
	}
	switch {
	case errors.Is(cause, context.Canceled):
		return k.fail(class, "cancelled", "the call was cancelled before Azure DevOps answered", cause)
	case cause != nil, errors.Is(err, context.DeadlineExceeded):
		return k.fail(class, "timed-out", "Azure DevOps did not answer in time", cause)
	case k.pending:
		return k.fail(class, "connection-lost", "the connection to Azure DevOps broke before the answer", nil)
	}
	return k.fail(class, "unreachable", "Azure DevOps cannot be reached: "+
		"if it stays so, check name resolution, routes and firewalls of the app's network", nil)
}

// badAnswer: a success that cannot be read, or lacks what it must have. For a call
// that cannot be repeated it means that something may have happened. A decoder's error
// is left behind: it can quote the answer.
func (k *call) badAnswer(a *answer) error {
	return k.with(a, k.fail(k.unsure(), "bad-answer",
		"Azure DevOps sent an answer that is incomplete or unreadable", nil))
}

// endlessList gives up on a list after maxPages.
func (k *call) endlessList() error {
	return k.fail(rotation.Transient, "endless-list",
		fmt.Sprintf("Azure DevOps' list does not end after %d pages", maxPages), nil)
}

func (k *call) badRequest() error {
	return k.fail(rotation.Configuration, "bad-request",
		"patrol cannot build the request: check the organization's name", nil)
}

// judge separates success from failure: a success is a 2xx other than 203, and JSON.
func (k *call) judge(a *answer) error {
	is2xx := a.status >= 200 && a.status <= 299
	if !is2xx || a.status == http.StatusNonAuthoritativeInfo {
		return k.refusal(a)
	}
	if k.empty && len(a.body) == 0 {
		return nil
	}
	switch kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); kind {
	case "application/json":
		return nil
	case "text/html":
		if k.once {
			return k.badAnswer(a)
		}
		return k.notSignedIn(a)
	}
	return k.badAnswer(a)
}

// notSignedIn: the credentials were answered by the sign-in page, or a redirect
// to it.
func (k *call) notSignedIn(a *answer) error {
	if !k.basic.Empty() {
		return k.with(a, k.fail(rotation.Transient, rotation.TokenRefused,
			"the organization does not accept the token", nil))
	}
	return k.with(a, k.fail(rotation.Transient, "sign-in-page", "Azure DevOps answered with its sign-in page", nil))
}

// refusal maps an answer that is no success.
func (k *call) refusal(a *answer) error {
	e := decodeError(a.body, a.header.Get("X-TFS-ServiceError"))
	if k.refuse != nil {
		if err := k.refuse(a, e); err != nil {
			return err
		}
	}
	code := cmp.Or(e.number, e.typeKey, fmt.Sprintf("http-%d", a.status))
	fail := func(class rotation.Class, code, message string) *rotation.Error {
		return k.with(a, k.fail(class, code, message, nil))
	}
	s := a.status
	redirected := s >= 300 && s < 400
	saysNotFound := s >= 400 && s < 500 && strings.Contains(e.typeKey, "NotFound")
	switch {
	case s == http.StatusNonAuthoritativeInfo || redirected:
		return k.notSignedIn(a)
	case !k.basic.Empty() && (s == http.StatusUnauthorized || s == http.StatusForbidden):
		return k.notSignedIn(a)
	case s == http.StatusUnauthorized:
		return fail(rotation.Configuration, code,
			"Azure DevOps does not accept the identity, even with a new access token: its user must be a member "+
				"of the organization, and the app registration needs vso.pats and vso.pats_manage")
	case s == http.StatusForbidden:
		return fail(rotation.Configuration, code,
			"Azure DevOps forbids this to the identity's user: check its access and the organization's policies")
	case e.preview && s == http.StatusBadRequest:
		return &previewError{fail(rotation.Configuration, code, "Azure DevOps does not offer this version of its API")}
	case k.absence && (s == http.StatusNotFound || saysNotFound):
		return rotation.ErrNotFound
	case s == http.StatusNotFound:
		return fail(rotation.Configuration, code, "Azure DevOps knows no such organization: check its name")
	case s == http.StatusTooManyRequests:
		return fail(rotation.Throttled, code, "Azure DevOps throttles the identity's calls")
	case a.header.Get("X-VSS-HostOfflineError") != "":
		return fail(rotation.Transient, "organization-offline",
			"the organization is offline: Azure DevOps is moving or maintaining it")
	case s == http.StatusRequestTimeout || s >= 500:
		return fail(k.unsure(), code, fmt.Sprintf("Azure DevOps answered with HTTP %d", s))
	default:
		return fail(rotation.Configuration, code, fmt.Sprintf("Azure DevOps answered with HTTP %d", s))
	}
}

// result reads the answer of an operation on one PAT. Refusals by policy come
// with HTTP 200, so its status means nothing.
func (k *call) result(a *answer) (patResult, error) {
	var r patResult
	if err := a.decode(&r); err != nil {
		return patResult{}, k.badAnswer(a)
	}
	if r.Error == "" {
		return r, nil
	}
	if k.once && r.PAT != nil {
		return patResult{}, k.badAnswer(a) // an error, and a PAT all the same
	}
	class, message := meaning(string(r.Error))
	if class == "" { // there is no such PAT
		if k.absence {
			return patResult{}, rotation.ErrNotFound
		}
		class = rotation.Transient
	}
	if class == rotation.Ambiguous {
		class = k.unsure()
	}
	return patResult{}, k.with(a, k.fail(class, string(r.Error), message, nil))
}

// meaning says what a patTokenError means for patrol; an empty class stands for
// "there is no such PAT".
func meaning(value string) (rotation.Class, string) {
	switch value {
	case "displayNameRequired", "invalidDisplayName":
		return rotation.Configuration, "Azure DevOps does not accept the display name: correct it in the manifest"
	case rotation.RefusedEnd:
		return rotation.Configuration, "Azure DevOps does not accept the end: it is past, or more than a year ahead"
	case "invalidScope":
		return rotation.Configuration, "Azure DevOps does not accept the scopes: correct scopes in the manifest"
	case "userIdRequired", "invalidUserId", "invalidUserType":
		return rotation.Configuration,
			"Azure DevOps does not let a user of this kind have PATs: name another user in the manifest"
	case "invalidClient", "invalidClientType", "invalidClientId":
		return rotation.Configuration,
			"Azure DevOps does not accept the app registration that the identity signed in to"
	case "invalidTargetAccounts":
		return rotation.Configuration, "Azure DevOps does not accept the organization: check its name"
	case rotation.ExpiredPAT:
		return rotation.Configuration, "the PAT has expired: it cannot be extended any more"
	case "accessDenied":
		return rotation.Policy, "Azure DevOps denies this to the identity"
	case "globalPatPolicyViolation", "globalPATCreationBlocked":
		return rotation.Policy, "a policy forbids global PATs"
	case "fullScopePatPolicyViolation":
		return rotation.Policy, "the tenant's policy forbids PATs with full access: name scopes in the manifest"
	case "patLifespanPolicyViolation":
		return rotation.Policy, "the tenant's policy limits the lifespan of PATs: shorten lifetime in the manifest"
	case "disablePatCreationPolicyViolation":
		return rotation.Policy, "the organization's policy does not let the identity's user create PATs"
	case "failedToReadTenantPolicy", "failedToReadOrgPolicy":
		return rotation.Transient, "Azure DevOps could not read its own policies"
	case "failedToIssueAccessToken", "failedToUpdateAccessToken":
		return rotation.Ambiguous, "Azure DevOps failed half-way: the change may have taken effect"
	case "hostAuthorizationNotFound", "authorizationNotFound", "tokenNotFound", "invalidAuthorizationId",
		"invalidToken":
		return "", "Azure DevOps knows no such PAT"
	case "sourceNotSupported", "invalidSource", "invalidSourceIP", "duplicateHash", "sshPolicyDisabled",
		"invalidTokenType", "invalidAudience", "invalidSubject", "deploymentHostNotSupported":
		return rotation.Configuration, "Azure DevOps does not accept the request"
	}
	// The values that were added over the years are mostly policies.
	if strings.Contains(value, "Policy") || strings.HasSuffix(value, "Blocked") ||
		strings.HasSuffix(value, "Violation") {
		return rotation.Policy, "a policy that patrol does not know forbids this"
	}
	return rotation.Transient, "Azure DevOps refuses this for a reason that patrol does not know"
}

// activityID is the service's own name for the call.
func (a *answer) activityID() string {
	for _, name := range []string{"X-VSS-E2EID", "ActivityId", "X-MSEdge-Ref"} {
		v := a.header.Get(name)
		isID := strings.Trim(v, "0123456789abcdefABCDEF-") == ""
		if v != "" && len(v) <= 48 && isID {
			return v
		}
	}
	return ""
}
