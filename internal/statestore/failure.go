package statestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/azure-patrol/patrol/internal/retryafter"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// word is the form of what a message may quote from an answer.
var word = regexp.MustCompile(`^[0-9A-Za-z._-]{1,80}$`)

// errNoPage: an answer to a list is none.
var errNoPage = errors.New("the answer is no list")

func configuration(code, format string, args ...any) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: code, Service: rotation.Storage,
		Message: fmt.Sprintf(format, args...)}
}

func unreadable(doing string) *rotation.Error {
	return &rotation.Error{Class: rotation.Transient, Code: "state-answer", Service: rotation.Storage,
		Message: doing + ": the storage account's answer cannot be read: if it stays so, check for a proxy in between"}
}

// failure gives an SDK's error its class. The error itself is left behind: it holds
// the answer's body and, through its request, the bearer token.
func (s *Store) failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return s.refusal(doing, answer)
	}
	e := &rotation.Error{Class: rotation.Transient, Code: "state-unavailable", Service: rotation.Storage}
	auth, noToken := errors.AsType[*azidentity.AuthenticationFailedError](err)
	lookup, noHost := errors.AsType[*net.DNSError](err)
	switch {
	case errors.Is(err, errNoPage):
		return unreadable(doing)
	case errors.Is(err, context.Canceled):
		e.Message, e.Err = doing+": the call was cancelled", context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Message, e.Err = doing+": the storage account did not answer in time", context.DeadlineExceeded
	case noToken && refusedForGood(auth.RawResponse):
		e.Class, e.Code = rotation.Configuration, "state-credential"
		e.Message = fmt.Sprintf("%s: the app's identity gets no token (%d): check AZURE_CLIENT_ID, "+
			"and that the managed identity is assigned to the app", doing, auth.RawResponse.StatusCode)
	case noToken:
		e.Code = "state-credential"
		e.Message = doing + ": the managed identity's endpoint gives no token at the moment"
	case nonRetriable(err):
		e.Class, e.Code = rotation.Configuration, "state-credential"
		e.Message = doing + ": there is no token for the storage account: check that the app has an identity, " +
			"and that " + s.setting + " is the address of a blob container"
	case noHost && lookup.IsNotFound:
		e.Class, e.Code = rotation.Configuration, "state-url"
		e.Message = doing + ": there is no storage account of this name: check " + s.setting +
			", and in a private network its DNS zone for blobs"
	default:
		e.Message = doing + ": the storage account cannot be reached, or its answer was cut off: " +
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

// nonRetriable: the SDK knows that there will be no token however often it asks.
func nonRetriable(err error) bool {
	var marked interface{ NonRetriable() }
	return errors.As(err, &marked)
}

func (s *Store) refusal(doing string, answer *azcore.ResponseError) error {
	code, said := bloberror.Code(answer.ErrorCode), strconv.Itoa(answer.StatusCode)
	if word.MatchString(answer.ErrorCode) {
		said += " " + answer.ErrorCode
	}
	fail := func(class rotation.Class, code, what string) error {
		return &rotation.Error{Class: class, Code: code, Service: rotation.Storage,
			Message:    fmt.Sprintf("%s: %s (%s)", doing, what, said),
			ActivityID: activity(answer), After: s.after(answer)}
	}
	switch status := answer.StatusCode; {
	case code == bloberror.BlobNotFound:
		return fmt.Errorf("%s: %w", doing, ErrNotFound)
	case code == bloberror.BlobAlreadyExists, code == bloberror.ConditionNotMet:
		return fmt.Errorf("%s: %w", doing, ErrConflict)
	case code == bloberror.ContainerNotFound, code == bloberror.ContainerBeingDeleted:
		return fail(rotation.Configuration, "state-container",
			"the storage account has no such container: create it, or correct "+s.setting)
	case status == http.StatusNotFound:
		return fail(rotation.Configuration, "state-url", "what answers is no blob container: check "+s.setting)
	case status == http.StatusUnauthorized, code == bloberror.AuthenticationFailed:
		return fail(rotation.Configuration, "state-unauthorized", "the storage account does not accept the app's "+
			"token: the account and the app's managed identity must belong to the same tenant")
	case code == bloberror.AuthorizationFailure:
		return fail(rotation.Configuration, "state-network", "the storage account's network rules refuse the app: "+
			"let the app's subnet in, or use a private endpoint")
	case status == http.StatusForbidden:
		return fail(rotation.Configuration, "state-forbidden", "the storage account refuses the app: give its managed "+
			"identity the role Storage Blob Data Contributor on the container (a new role takes minutes to work)")
	case status == http.StatusTooManyRequests, code == bloberror.ServerBusy:
		return fail(rotation.Transient, "state-busy", "the storage account asks for a pause")
	case status == http.StatusRequestTimeout, status >= 500 && status != http.StatusNotImplemented:
		return fail(rotation.Transient, "state-unavailable",
			"the storage account failed to answer: if it stays so, see Azure Service Health")
	case status < 400:
		return unreadable(doing)
	default:
		return fail(rotation.Configuration, "state-rejected", "the storage account rejects the request")
	}
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

func (s *Store) after(answer *azcore.ResponseError) time.Duration {
	if answer.RawResponse == nil {
		return 0
	}
	return retryafter.FromHeader(answer.RawResponse.Header, s.now(), maxWait)
}

// attempts counts the attempts at a write that may have taken effect: answered with a
// server's error, or not at all.
type attempts struct{ atomic.Int32 }

type attemptsKey struct{}

type attemptCounter struct{}

func (attemptCounter) Do(req *policy.Request) (*http.Response, error) {
	resp, err := req.Next()
	a, counts := req.Raw().Context().Value(attemptsKey{}).(*attempts)
	refused := err == nil && resp.StatusCode < 500 && resp.StatusCode != http.StatusRequestTimeout
	if counts && !refused {
		a.Add(1)
	}
	return resp, err
}
