package rotation

import (
	"errors"
	"fmt"
	"time"
)

// Class says what happens after an error.
type Class string

const (
	// Transient: try again later by a scheduled command.
	Transient Class = "transient"
	// Throttled: as Transient, and the whole identity slows down.
	Throttled Class = "throttled"
	// Configuration: no retry until the manifest or a setting changes.
	Configuration Class = "configuration"
	// Policy: no retry until a policy of the tenant or organization changes.
	Policy Class = "policy"
	// SignIn: a person has to sign in.
	SignIn Class = "sign-in"
	// Ambiguous: the act may have taken effect; observe before anything else.
	Ambiguous Class = "ambiguous"
)

// TokenRefused is the code of a Prove whose token the organization does not accept.
const TokenRefused = "token-refused"

// UnknownIdentity is the code for an identity that the manifest does not have.
const UnknownIdentity = "unknown-identity"

var (
	// ErrNotFound: the vault has no such secret or version.
	ErrNotFound = errors.New("not found")
)

// Error is a failure whose class decides what happens next. Code and Message are
// made by patrol and safe to log and publish: an upstream's body, error object
// or token never enters them.
type Error struct {
	Class   Class
	Code    string        // stable word: patLifespanPolicyViolation, AADSTS700082, ambiguous-adoption
	Message string        // plain words: what is wrong and what to do
	After   time.Duration // earliest retry that the service asked for; 0: not said
	// ActivityID is the service's own name for the failed call (X-VSS-E2EID,
	// x-ms-request-id, trace_id), for a support request. May be empty.
	ActivityID string
	Err        error // cause for errors.Is and errors.As; not printed
}

func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return fmt.Sprintf("%s (%s)", e.Message, e.Code)
}

func (e *Error) Unwrap() error { return e.Err }

// ClassOf finds the class of err. An error without a class, a context's end
// included, is Transient: it will be looked at again.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return Transient
}

// AsError finds the *Error in err; nil if there is none.
func AsError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// Failure is why a PAT has not come to rest.
type Failure struct {
	PAT     string
	Step    string
	Class   Class
	Code    string
	Message string
	Attempt int
	At      time.Time
}
