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
		Class: class, Code: code, Err: cause,
		Message: fmt.Sprintf("%s of %s in %s: %s", k.doing, k.owner.Identity, k.owner.Organization, message),
	}
}

// with adds what the answer says about itself.
func (k *call) with(a *answer, e *rotation.Error) *rotation.Error {
	e.ActivityID = a.activityID()
	e.After = retryAfter(a.header, a.status, a.at)
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

// unanswered makes an error of what the pipeline could not do.
func (k *call) unanswered(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		return e
	}
	// Of the causes only the end of the caller's context is kept: others may
	// quote what was sent or received.
	cause := ctx.Err()
	if _, ok := errors.AsType[credentialError](err); ok {
		return k.fail(rotation.Transient, "no-bearer-token", "the identity's bearer token cannot be had", cause)
	}
	class := rotation.Transient
	if k.pending {
		class = k.unsure()
	}
	switch {
	case errors.Is(cause, context.Canceled):
		return k.fail(class, "cancelled", "patrol gave up waiting", cause)
	case cause != nil, errors.Is(err, context.DeadlineExceeded):
		return k.fail(class, "timed-out", "Azure DevOps did not answer in time", cause)
	case k.pending:
		return k.fail(class, "connection-lost", "the connection to Azure DevOps broke", nil)
	}
	return k.fail(class, "unreachable", "Azure DevOps cannot be reached", nil)
}

// badAnswer: a success that makes no sense. For a call that cannot be repeated it
// means that something may have happened. why is fixed text of this package or
// a decoder's error, which can quote the answer: it goes no further.
func (k *call) badAnswer(a *answer, _ error) error {
	return k.with(a, k.fail(k.unsure(), "bad-answer", "Azure DevOps' answer makes no sense", nil))
}

// judge tells success from failure: a success is a 2xx other than 203, and JSON.
func (k *call) judge(a *answer) error {
	if a.status < 200 || a.status > 299 || a.status == http.StatusNonAuthoritativeInfo {
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
			return k.badAnswer(a, nil)
		}
		return k.notSignedIn(a)
	}
	return k.badAnswer(a, nil)
}

// notSignedIn: the credentials were answered by the sign-in page, or a redirect
// to it.
func (k *call) notSignedIn(a *answer) error {
	if !k.basic.Empty() {
		return k.with(a, k.fail(rotation.Transient, "token-refused", "the organization does not accept the token", nil))
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
	switch s := a.status; {
	case s == http.StatusNonAuthoritativeInfo || s >= 300 && s < 400:
		return k.notSignedIn(a)
	case !k.basic.Empty() && (s == http.StatusUnauthorized || s == http.StatusForbidden):
		return k.notSignedIn(a)
	case s == http.StatusUnauthorized:
		return k.with(a, k.fail(rotation.Configuration, code,
			"Azure DevOps does not accept the identity, even with a new bearer token: is its user a member of the organization, and does the application have vso.pats and vso.pats_manage?", nil))
	case s == http.StatusForbidden:
		return k.with(a, k.fail(rotation.Configuration, code, "Azure DevOps forbids it to the identity", nil))
	case e.preview && s == http.StatusBadRequest:
		return &previewError{k.with(a, k.fail(rotation.Configuration, code,
			"Azure DevOps does not have this version of its API", nil))}
	case k.absence && (s == http.StatusNotFound || s >= 400 && s < 500 && strings.Contains(e.typeKey, "NotFound")):
		return rotation.ErrNotFound
	case s == http.StatusNotFound:
		return k.with(a, k.fail(rotation.Configuration, code, "Azure DevOps knows no such organization", nil))
	case s == http.StatusTooManyRequests:
		return k.with(a, k.fail(rotation.Throttled, code, "Azure DevOps refuses the identity's calls for a while", nil))
	case a.header.Get("X-VSS-HostOfflineError") != "":
		return k.with(a, k.fail(rotation.Transient, "organization-offline", "the organization is off line", nil))
	case s == http.StatusRequestTimeout || s >= 500:
		return k.with(a, k.fail(k.unsure(), code, fmt.Sprintf("Azure DevOps answered %d", s), nil))
	default:
		return k.with(a, k.fail(rotation.Configuration, code, fmt.Sprintf("Azure DevOps answered %d", s), nil))
	}
}

// result reads the answer of an operation on one PAT. Refusals by policy come
// with HTTP 200, so its status means nothing.
func (k *call) result(a *answer) (patResult, error) {
	var r patResult
	if err := a.decode(&r); err != nil {
		return patResult{}, k.badAnswer(a, err)
	}
	if r.Error == "" {
		return r, nil
	}
	if k.once && r.PAT != nil {
		return patResult{}, k.badAnswer(a, nil) // an error, and a PAT all the same
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
		return rotation.Configuration, "Azure DevOps does not take the display name"
	case "invalidValidTo":
		return rotation.Configuration, "Azure DevOps does not take the end: it is past, or more than a year ahead"
	case "invalidScope":
		return rotation.Configuration, "Azure DevOps does not take the scopes"
	case "userIdRequired", "invalidUserId", "invalidUserType":
		return rotation.Configuration, "the identity is not a user who can have PATs"
	case "invalidClient", "invalidClientType", "invalidClientId":
		return rotation.Configuration, "Azure DevOps does not take the application that the identity signed in to"
	case "invalidTargetAccounts":
		return rotation.Configuration, "Azure DevOps does not take the organization"
	case "expiredPatCannotBeExtended":
		return rotation.Configuration, "the PAT has run out: it cannot be prolonged any more"
	case "accessDenied":
		return rotation.Policy, "Azure DevOps denies the identity this"
	case "globalPatPolicyViolation", "globalPATCreationBlocked":
		return rotation.Policy, "PATs for all organizations are forbidden"
	case "fullScopePatPolicyViolation":
		return rotation.Policy, "the tenant forbids PATs with full access"
	case "patLifespanPolicyViolation":
		return rotation.Policy, "the tenant forbids PATs that live so long"
	case "disablePatCreationPolicyViolation":
		return rotation.Policy, "the organization does not let the identity make PATs"
	case "failedToReadTenantPolicy", "failedToReadOrgPolicy":
		return rotation.Transient, "Azure DevOps cannot read its policies"
	case "failedToIssueAccessToken", "failedToUpdateAccessToken":
		return rotation.Ambiguous, "Azure DevOps failed half-way"
	case "hostAuthorizationNotFound", "authorizationNotFound", "tokenNotFound", "invalidAuthorizationId",
		"invalidToken":
		return "", "Azure DevOps knows no such PAT"
	case "sourceNotSupported", "invalidSource", "invalidSourceIP", "duplicateHash", "sshPolicyDisabled",
		"invalidTokenType", "invalidAudience", "invalidSubject", "deploymentHostNotSupported":
		return rotation.Configuration, "Azure DevOps does not take the request"
	}
	// The values that were added over the years are mostly policies.
	if strings.Contains(value, "Policy") || strings.HasSuffix(value, "Blocked") ||
		strings.HasSuffix(value, "Violation") {
		return rotation.Policy, "a policy that patrol does not know forbids it"
	}
	return rotation.Transient, "Azure DevOps refuses it for a reason that patrol does not know"
}

// activityID is the service's own name for the call.
func (a *answer) activityID() string {
	for _, name := range []string{"X-VSS-E2EID", "ActivityId", "X-MSEdge-Ref"} {
		if v := a.header.Get(name); v != "" && len(v) <= 48 && strings.Trim(v, "0123456789abcdefABCDEF-") == "" {
			return v
		}
	}
	return ""
}
