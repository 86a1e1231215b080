package rotation

import "time"

// Reason says why a PAT is rotated, or checked.
type Reason string

const (
	Provision   Reason = "provision"
	Expiring    Reason = "expiring"
	Requested   Reason = "requested"
	Compromised Reason = "compromised"
	Drift       Reason = "drift"
	// Look asks to reconcile without an order to rotate: a revocation that is
	// due, an orphan that has become old enough, a hint from the vault.
	Check Reason = "look"
)

// Step is a part of the work on a PAT, as events and traces name it. Traces also have
// one around each Action, by the action's name.
type Step string

const (
	StepObserve  Step = "observe"
	StepAdopt    Step = "adopt"
	StepCreate   Step = "create"
	StepProve    Step = "prove"
	StepStore    Step = "store"
	StepAnnounce Step = "announce"
	StepRevoke   Step = "revoke"
	// StepReceive: a command could not be taken off its queue.
	StepReceive Step = "receive"
	// StepDeadLetter: the Functions host gave up on a command.
	StepDeadLetter Step = "dead-letter"
)

// RevokePrevious says when the replaced PATs end.
type RevokePrevious string

const (
	AfterOverlap RevokePrevious = "overlap"
	Now          RevokePrevious = "now"
)

// Command asks to reconcile one PAT.
type Command struct {
	PAT            string
	Reason         Reason
	From           string // rotate away from this authorization id; empty: no order
	RevokePrevious RevokePrevious
	RequestedBy    string
	Attempt        int
	Operation      string    // the sweep's minute or an operation id: last part of the message id
	At             time.Time // scheduled enqueue time; zero: now
}

// Event is something that subscribers are told. It is one of *Rotated,
// *Revoked, *RotationFailed, *ExpiringPAT, *SignedIn, *SignInRequired,
// *SignInExpiring.
type Event interface{ event() }

// Rotated: a new PAT is in the vault (patrol.pat.rotated).
type Rotated struct {
	Spec            Spec
	RotationID      string
	Reason          Reason
	SecretID        string // secret identifier with the version
	SecretVersion   string
	AuthorizationID string
	ValidFrom       time.Time
	ValidTo         time.Time
	Previous        *Replaced // nil on the first
	At              time.Time
}

// Replaced is the PAT that a rotation has replaced.
type Replaced struct {
	Version         string
	AuthorizationID string
	RevokeAt        time.Time
}

// Cause says why a PAT was revoked.
type RevocationCause string

const (
	OverlapEnded   RevocationCause = "overlap-ended"
	CauseRequested RevocationCause = "requested"
	Expired        RevocationCause = "expired"
	Orphan         RevocationCause = "orphan"
)

// Revoked: a replaced or orphaned PAT has been revoked (patrol.pat.revoked).
type Revoked struct {
	Spec            Spec
	RotationID      string // of the rotation that replaced it
	AuthorizationID string
	SecretVersion   string // empty for an orphan
	Cause           RevocationCause
	At              time.Time
}

// RotationFailed: patrol could not go on (patrol.pat.rotation-failed).
type RotationFailed struct {
	Spec       Spec
	RotationID string
	Step       Step
	Class      Class
	Code       string
	Message    string
	Attempt    int
	RetryAt    time.Time // zero: no retry is scheduled
	ValidTo    time.Time // of the current PAT; zero: there is none
	At         time.Time
}

// ExpiringPAT: an unmanaged PAT of a signed-in user is about to run out
// (patrol.pat.expiring).
type ExpiringPAT struct {
	Owner Owner
	PAT   PAT
	Days  int // 14, 7 or 1
	At    time.Time
}

// SignedIn: an identity's sign-in is in order (patrol.identity.signed-in).
type SignedIn struct {
	Identity, User string
	At             time.Time
}

// SignInRequired: a person must sign in (patrol.identity.sign-in-required).
type SignInRequired struct {
	Identity, User string
	Code           string // AADSTS700082
	SignInURL      string
	At             time.Time // since when; part of the event's id
}

// SignInExpiring: a sign-in ends soon because it could not be renewed for long
// (patrol.identity.sign-in-expiring).
type SignInExpiring struct {
	Identity, User string
	Code           string // inactivity
	SignInURL      string
	Until          time.Time // its end; part of the event's id
	At             time.Time
}

func (*Rotated) event()        {}
func (*Revoked) event()        {}
func (*RotationFailed) event() {}
func (*ExpiringPAT) event()    {}
func (*SignedIn) event()       {}
func (*SignInRequired) event() {}
func (*SignInExpiring) event() {}
