package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

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
	// StepConfirm: what a consumer says of a new version is noted.
	StepConfirm Step = "confirm"
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
	Operation      string // the sweep's minute or an operation id: last part of the message id
	// Since is when this command, or the one that it repeats, met its first failure;
	// zero: it has met none.
	Since time.Time
	// Prove asks to try the current PAT's value, although nothing is due.
	Prove bool
	// Accepted is a person's word that a mass change is meant.
	Accepted MassChange
	// Confirmation is what a consumer, or a person, says of a switch-over; nil: nothing.
	Confirmation *Confirmation
	At           time.Time // scheduled enqueue time; zero: now
}

// SweepSession stands in Command.PAT for a command to sweep: no PAT's name begins with
// patrol-.
const SweepSession = "patrol-sweep"

// IsSweep reports whether a command asks for a sweep, and not for one PAT.
func (c Command) IsSweep() bool { return c.PAT == SweepSession }

// MassChange is what a person has accepted: for so many PATs of an owner to be gone or
// drifted at once, until a time. The zero value is nothing.
type MassChange struct {
	PATs  int
	Until time.Time
}

// ownWords are what patrol calls itself where a command says who asked for it. http and
// dashboard are not among them: they stand for people who gave no name.
var ownWords = []string{"timer", "patrol", "vault-event", "sign-in", "sweep"}

// IsOrder reports whether a person asks to rotate away from a PAT. Sweeps of an older
// patrol sent orders of their own; theirs are checks.
func (c Command) IsOrder() bool { return c.From != "" && !IsOwnWord(c.RequestedBy) }

// IsOwnWord reports whether a name is one of those that patrol gives itself, however it
// is written. No person may bear one: what they order would be taken for a check.
func IsOwnWord(name string) bool {
	letters := strings.Map(func(r rune) rune {
		if r == '-' || unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1 // what a tag or an order may lose of a name
	}, name)
	return slices.Contains(ownWords, letters)
}

// maxAttempts is what a command's attempt may say; the bus refuses more than 1000.
const maxAttempts = 900

// Again is the command for another attempt, at a later time. The attempt is in the
// message id, so that a doubled message makes one retry.
func (c Command) Again(at time.Time) Command {
	c.At = at
	if c.Attempt < maxAttempts {
		c.Attempt++
		return c
	}
	operation, _, _ := strings.Cut(c.Operation, "~")
	c.Operation = fmt.Sprintf("%s~%d", operation, at.Unix())
	return c
}

// AsCheck is the command without what it orders.
func (c Command) AsCheck() Command {
	c.Reason, c.From, c.RevokePrevious = Check, "", ""
	return c
}

// Event is something that subscribers are told. It is one of *Rotated,
// *Revoked, *RotationFailed, *ExpiringPAT, *SignedIn, *SignInRequired,
// *SignInExpiring, *CheckIncomplete, *CheckRecovered.
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
	// RevokeAtLatest is until when missing confirmations may keep it; zero: nobody has
	// to confirm.
	RevokeAtLatest time.Time
}

// Switching is what events about a switch-over have in common.
type Switching struct {
	Spec      Spec
	Version   Version // that is switched to: properties alone
	Consumers []ConsumerState
	Previous  *Replaced // nil: nothing was replaced
	At        time.Time
}

// ConsumerState is how far one declared consumer is.
type ConsumerState struct {
	Consumer
	State SwitchState
	At    time.Time // since when; zero: it is waited for
}

// SwitchedOver: all required consumers use the new PAT (patrol.pat.switched).
type SwitchedOver struct{ Switching }

// SwitchLate: required consumers have not confirmed in time (patrol.pat.switch-late).
type SwitchLate struct {
	Switching
	LateSwitch
}

// SwitchRefused: a consumer says that it cannot use the new PAT
// (patrol.pat.switch-failed).
type SwitchRefused struct {
	Switching
	Consumer Consumer
	Message  string
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

// MessageMark is what the broker gave a message, and nobody else: its place in a queue.
// A message's own id is its sender's, and may repeat.
type MessageMark struct {
	Queue          string // as the settings name it, for its dead letters too
	SequenceNumber int64
}

// RotationFailed: patrol could not go on (patrol.pat.rotation-failed).
type RotationFailed struct {
	Spec       Spec
	RotationID string
	// Mark is of the message that nobody could work on (StepReceive, StepDeadLetter); the
	// event then belongs to it and to no rotation. Zero: a rotation has failed.
	Mark    MessageMark
	Step    Step
	Class   Class
	Code    string
	Message string
	Attempt int
	RetryAt time.Time // zero: no retry is scheduled
	ValidTo time.Time // of the current PAT; zero: there is none
	At      time.Time
}

// ExpiringPAT: an unmanaged PAT of a signed-in user is about to run out
// (patrol.pat.expiring).
type ExpiringPAT struct {
	Owner Owner
	PAT   PAT
	Days  int // 14, 7 or 1
	At    time.Time
}

// PostponedPAT: a PAT that should be replaced waits, as the entry's calendar says
// (patrol.pat.postponed).
type PostponedPAT struct {
	Spec            Spec
	AuthorizationID string // of the current PAT; empty: there is none
	Postponement
	ValidTo time.Time // of the current PAT; zero: there is none
	At      time.Time // part of the event's id while Until is not known
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

// Scope says what a check could not observe, or must not act on.
type Scope string

const (
	ScopeVault        Scope = "vault"
	ScopeBus          Scope = "bus"
	ScopeState        Scope = "state"
	ScopeManifest     Scope = "manifest"
	ScopeIdentity     Scope = "identity"
	ScopeOrganization Scope = "organization"
)

// Trouble is what a standing refusal is told apart by.
type Trouble struct {
	Scope        Scope
	Identity     string
	Organization string
	Code         string
}

// CheckIncomplete: patrol cannot observe something, or waits for a person before it acts
// (patrol.check.incomplete).
type CheckIncomplete struct {
	Trouble
	Class   Class
	Message string
	Since   time.Time // part of the event's id
	PATs    int       // how many are affected
	NextEnd time.Time // the earliest end among them; zero: not known
	At      time.Time
}

// CheckRecovered: it is over (patrol.check.recovered).
type CheckRecovered struct {
	Trouble
	Since   time.Time
	PATs    int
	NextEnd time.Time
	At      time.Time
}

func (*CheckIncomplete) event() {}
func (*CheckRecovered) event()  {}
func (*Rotated) event()         {}
func (*Revoked) event()         {}
func (*RotationFailed) event()  {}
func (*ExpiringPAT) event()     {}
func (*PostponedPAT) event()    {}
func (*SwitchedOver) event()    {}
func (*SwitchLate) event()      {}
func (*SwitchRefused) event()   {}
func (*SignedIn) event()        {}
func (*SignInRequired) event()  {}
func (*SignInExpiring) event()  {}
