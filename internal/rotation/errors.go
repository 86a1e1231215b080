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
	// Ambiguous: the call may have taken effect; observe before anything else.
	Ambiguous Class = "ambiguous"
)

// Codes that patrol itself gives, and that somebody compares or produces in more than
// one place. docs/codes.md has all of them, with cause and remedy.
const (
	TokenRefused      = "token-refused"      // a Prove whose token the organization does not accept
	UnknownIdentity   = "unknown-identity"   // the manifest does not have this identity
	AmbiguousAdoption = "ambiguous-adoption" // several PATs could be the one that a secret holds
	AdoptUnknown      = "adopt-unknown"      // the manifest names a PAT for adoption that is not there
	NotAPAT           = "not-a-pat"          // a secret of a managed name holds something else
	StillHeld         = "still-held"         // a PAT that is due to end is in a secret's latest version
	TagsFull          = "tags-full"          // a secret has no room for the ledger
	ManifestConflict  = "manifest-conflict"  // two manifests may be in force
	UnknownEntry      = "unknown-entry"      // for a day nobody knew the entry that a command names
	OwnerGone         = "owner-gone"         // a PAT's earlier owner cannot end it
	Anonymous         = "anonymous"          // an organization takes a PAT for nobody's
	OtherUser         = "other-user"         // another user has signed in as the identity since
	OtherBearer       = "other-bearer"       // a new PAT is not the user's whose PATs were proved before
	NoToken           = "no-token"           // a creation was answered without a token
	NoLife            = "no-life"            // a creation was answered with an end that has passed
	OtherScopes       = "other-scopes"       // a creation was answered with other scopes than asked for
	Overtaken         = "overtaken"          // another instance has rotated the PAT meanwhile
	StillThrottled    = "still-throttled"    // an identity has been throttled for an hour
	ValuesRefused     = "values-refused"     // an organization refuses every PAT of an owner
	MassChangeWaits   = "mass-change"        // many PATs of an owner are gone or drifted at once
	Unexpected        = "unexpected"         // a failure that nobody has given a code
	NoRest            = "no-rest"            // a reconcile did not come to an end
	Deadline          = "deadline"           // a reconcile reached its own deadline
	Canceled          = "canceled"           // a reconcile was cut short
	CrashLoop         = "crash-loop"         // a command ended its process each time
	NotACommand       = "not-a-command"      // a message on the command queue cannot be read
	UnknownScope      = "unknown-scope"      // the identity's sign-in does not cover a scope that was asked for
	DeclinedScopes    = "declined-scopes"    // Entra granted fewer scopes than were asked for
	VaultForbidden    = "vault-forbidden"    // the vault grants the caller no right to do this
	VaultUnauthorized = "vault-unauthorized" // the vault does not accept the caller's token
	VaultCredential   = "vault-credential"   // the caller gets no token for the vault
	VaultConflict     = "vault-conflict"     // a secret is being deleted, recovered or changed
	StateOff          = "state-off"          // there is no place for what processes know of each other
)

// Codes of Azure DevOps that somebody compares.
const (
	RefusedEnd = "invalidValidTo"             // the end of a PAT is not accepted
	ExpiredPAT = "expiredPatCannotBeExtended" // a PAT that has expired is not extended
)

var (
	// ErrNotFound: the vault has no such secret or version.
	ErrNotFound = errors.New("not found")
)

// Service is a service that patrol calls.
type Service string

const (
	AzureDevOps Service = "azure-devops"
	KeyVault    Service = "key-vault"
	ServiceBus  Service = "service-bus"
	Entra       Service = "entra"
	Storage     Service = "storage"
)

// Error is a failure whose class decides what happens next. Code and Message are
// made by patrol and safe to log and publish: an upstream's body, error object
// or token never enters them.
type Error struct {
	Class   Class
	Code    string // stable word: patLifespanPolicyViolation, AADSTS700082, ambiguous-adoption
	Message string // plain words: what is wrong and what to do
	// Service is whose refusal it is; empty: not known.
	Service Service
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
// included, is Transient: it is tried again.
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
	Step    Step
	Class   Class
	Code    string
	Message string
	Attempt int
	At      time.Time
	Since   time.Time // of the first failure in a row
	RetryAt time.Time // zero: not before something changes
}
