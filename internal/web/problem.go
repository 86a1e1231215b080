package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	problemType   = "application/problem+json"
	problemPrefix = "urn:patrol:problem:"
	// MaxBody is how large a request's body may be, in bytes.
	MaxBody = 64 << 10
	// minPause is the shortest Retry-After when a service asks for a pause.
	minPause = 30
	// maxPause is the longest: who waits longer asks too late.
	maxPause = 24 * time.Hour
)

// The types of problems, beside the codes of a reconcile.Refusal. docs/openapi.yaml
// explains each.
const (
	typeBadRequest      = "bad-request"
	typeBusy            = "busy"
	typeConfirmation    = "confirmation"
	typeCrossSite       = "cross-site"
	typeIncomplete      = administration.Incomplete
	typeInternal        = "internal"
	typeKeyReused       = "idempotency-key-reused"
	typeMediaType       = "media-type"
	typeNoAdministrator = "no-administrator"
	typeNoMassChange    = "no-mass-change"
	typeNotAdmin        = administration.NotAdministrator
	typeNotFound        = "not-found"
	typePlanChanged     = administration.PlanChanged
	typeSignInCallback  = "sign-in-callback"
	typeSignInFlow      = "sign-in-flow"
	typeSignInRefused   = "sign-in-refused"
	typeSignInRequired  = "sign-in-required"
	typeThrottled       = "throttled"
	typeTooLarge        = "too-large"
	typeTooMany         = "too-many-requests"
	typeUnknownIdentity = rotation.UnknownIdentity
	typeUnknownIncident = "unknown-incident"
	typeUnknownMember   = "unknown-member"
	typeUnknownPAT      = reconcile.UnknownPAT
	typeUpstream        = "upstream"

	// TypeConfiguration: settings or the manifest cannot be used.
	TypeConfiguration = "configuration"
)

const (
	titleSignIn       = "A person has to sign in"
	titleConfirmation = "The confirmation does not fit"
)

// Problem is an error answer, RFC 9457. Type is made a URN: it is a stable name and
// no address.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// SignInURL is where the identity's user can repair it.
	SignInURL string `json:"signInUrl,omitempty"`
	Class     string `json:"class,omitempty"`
	Code      string `json:"code,omitempty"`
	// ActivityID is the failed service's own name for the call.
	ActivityID string `json:"activityId,omitempty"`
	// Links lead to what can be done instead.
	Links  *Links `json:"links,omitempty"`
	Errors any    `json:"errors,omitempty"`
	// Plan is what an administrator's revocation would do now, and Result what
	// one has done.
	Plan   *administration.RevocationPlan `json:"plan,omitempty"`
	Result *UserRevocationReport          `json:"result,omitempty"`

	retryAfter int // seconds
	// again: the person has to prove once more who they are.
	again bool
}

func fail(w http.ResponseWriter, p Problem) {
	p.Type = problemPrefix + p.Type
	setRetryAfter(w.Header(), p.retryAfter)
	write(w, p.Status, problemType, p)
}

func setRetryAfter(h http.Header, seconds int) {
	if seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds))
	}
}

func unknownPAT() *Problem {
	return &Problem{Status: http.StatusNotFound, Type: typeUnknownPAT, Title: "No such PAT",
		Detail: "The manifest declares no PAT of this name."}
}

func badBody(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "The body cannot be used",
		Detail: detail}
}

// upstream is the problem of a service that patrol has called without success.
func (a *API) upstream(ctx context.Context, err error) *Problem {
	p := &Problem{Status: http.StatusBadGateway, Type: typeUpstream, Title: "A service that patrol calls has failed"}
	if e := rotation.AsError(err); e != nil {
		p.Class, p.Code, p.Detail, p.ActivityID = string(e.Class), e.Code, e.Message, e.ActivityID
		switch e.Class {
		case rotation.SignIn:
			p.Status, p.Type, p.Title = http.StatusConflict, typeSignInRequired, titleSignIn
		case rotation.Throttled:
			p.Status, p.Type, p.Title = http.StatusServiceUnavailable, typeThrottled,
				"A service that patrol calls asks for a pause"
			p.retryAfter = pauseOf(e.After)
		}
	}
	a.Log.WarnContext(ctx, "request failed", "class", p.Class, "code", p.Code, "activity", p.ActivityID)
	return p
}

// pauseOf is a service's pause in seconds, within what a caller can make use of.
func pauseOf(after time.Duration) int {
	return int(min(max(after, minPause*time.Second), maxPause) / time.Second)
}

// refusalStatus is how to answer what the domain refuses; the code is the problem's type.
func refusalStatus(code string) (status int, title string) {
	switch code {
	case reconcile.UnknownPAT, reconcile.UnknownToken:
		return http.StatusNotFound, "No such PAT"
	case reconcile.InUse:
		return http.StatusConflict, "The PAT is in use"
	case reconcile.Overtaken:
		return http.StatusConflict, "The PAT has been replaced"
	case reconcile.Gone:
		return http.StatusConflict, "The PAT is not active any more"
	case reconcile.NothingReplaced:
		return http.StatusConflict, "No overlap is under way"
	case reconcile.OrderedToEnd:
		return http.StatusConflict, "The replaced PAT was ordered to end"
	case reconcile.NotProvisioned:
		return http.StatusUnprocessableEntity, "There is no PAT yet"
	case reconcile.NotOurs:
		return http.StatusUnprocessableEntity, "patrol does not know which PAT the secret holds"
	case reconcile.BadEnd:
		return http.StatusUnprocessableEntity, "The new end cannot be used"
	case reconcile.ExtensionRefused:
		return http.StatusUnprocessableEntity, "Azure DevOps refuses the new end"
	}
	return http.StatusConflict, "patrol refuses the request"
}

func (a *API) refusalProblem(ctx context.Context, err error) *Problem {
	r, ok := errors.AsType[*reconcile.Refusal](err)
	if !ok {
		return a.upstream(ctx, err)
	}
	p := &Problem{Type: r.Code, Detail: r.Message}
	p.Status, p.Title = refusalStatus(r.Code)
	if r.Managed {
		self := linkTo(r.PAT)
		p.Links = &Links{Self: self, Rotate: self + "/rotate"}
	}
	return p
}

func cause(err error) FailureCause {
	if e := rotation.AsError(err); e != nil {
		return FailureCause{string(e.Class), e.Code, e.Message}
	}
	return FailureCause{Class: string(rotation.ClassOf(err)), Message: "patrol met an unexpected error: see its log"}
}
