package web

import (
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// ManagedPAT is a PAT of the manifest.
type ManagedPAT struct {
	Name            string     `json:"name"`
	State           string     `json:"state"` // missing, current, due, postponed, blocked, unknown
	Identity        string     `json:"identity"`
	Organization    string     `json:"organization"`
	DisplayName     string     `json:"displayName"`
	Scopes          []string   `json:"scopes"`
	AuthorizationID string     `json:"authorizationId,omitempty"`
	ValidTo         *time.Time `json:"validTo"`
	RotateAt        *time.Time `json:"rotateAt"`
	Clamped         bool       `json:"clamped,omitempty"`
	Global          bool       `json:"global,omitempty"`
	FullScope       bool       `json:"fullScope,omitempty"`
	LastReason      string     `json:"lastReason,omitempty"`
	// Ordered: a person's order to replace it stands.
	Ordered bool `json:"ordered,omitempty"`
	// Postponed: the entry's calendar holds its replacement back, or will.
	Postponed *Postponement `json:"postponed,omitempty"`

	// NeedsPerson says why, and until when, a person has to do something; null: nobody has to.
	NeedsPerson *NeedsPerson `json:"needsPerson"`
	// SwitchOver is how far the consumers are; absent: the entry has none.
	SwitchOver *SwitchOver          `json:"switchOver,omitempty"`
	late       *rotation.LateSwitch // for the page; nil: none is

	NextAction *NextAction   `json:"nextAction"`
	Problem    *FailureCause `json:"problem,omitempty"`
	Links      *Links        `json:"links,omitempty"`

	// What follows is in the answer to GetPat only.
	Versions []VersionInfo `json:"versions,omitempty"`
	History  []Act         `json:"history,omitempty"`
	Failure  *Failing      `json:"failure,omitempty"`
	// Order is a person's order that stands.
	Order *StandingOrder `json:"order,omitempty"`
}

// Postponement is why a PAT is replaced later than it is due.
type Postponement struct {
	Reason string `json:"reason"`
	// Due is when it would be replaced without the calendar; RotateAt is when it will be.
	Due *time.Time `json:"due"`
}

// StandingOrder is a person's order that has not been carried out yet.
type StandingOrder struct {
	By              string    `json:"by"`
	Since           time.Time `json:"since"`
	RevokePrevious  string    `json:"revokePrevious"`
	Operation       string    `json:"operation,omitempty"`
	AuthorizationID string    `json:"authorizationId,omitempty"` // of the PAT that it is about
	// Attempt and Problem are of the last failure that this process has seen.
	Attempt int           `json:"attempt,omitempty"`
	Problem *FailureCause `json:"problem,omitempty"`
}

// NeedsPerson is what nobody but a person can settle.
type NeedsPerson struct {
	Since *time.Time `json:"since"` // null: not known
	// Before is when the PAT ends if nobody does anything; null: not known, or there is none.
	Before *time.Time `json:"before"`
	FailureCause
}

// NextAction is what patrol does next, and why.
type NextAction struct {
	Action  string     `json:"action"`
	Rule    string     `json:"rule,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Message string     `json:"message"`
	At      *time.Time `json:"at"`
}

// Cause is why something failed.
type FailureCause struct {
	Class   string `json:"class"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

// VersionInfo is one version of a PAT's secret. It never holds the value.
type VersionInfo struct {
	Version          string     `json:"version"`
	Latest           bool       `json:"latest"`
	Enabled          bool       `json:"enabled"`
	Created          time.Time  `json:"created"`
	ValidTo          *time.Time `json:"validTo"`
	AuthorizationID  string     `json:"authorizationId,omitempty"`
	RotationID       string     `json:"rotationId,omitempty"`
	Reason           string     `json:"reason,omitempty"`
	RequestedBy      string     `json:"requestedBy,omitempty"`
	Operation        string     `json:"operation,omitempty"`
	Previous         string     `json:"previousVersion,omitempty"`
	RevokePreviousAt *time.Time `json:"revokePreviousAt,omitempty"`
	AnnouncedAt      *time.Time `json:"announcedAt,omitempty"`
	RevokedAt        *time.Time `json:"revokedAt,omitempty"`
}

// Act is one thing that was done to a PAT, or tried.
type Act struct {
	At              time.Time  `json:"at"`
	Act             string     `json:"act"` // stored, adopted, provisioned, rotated, extended, revoked, failed
	By              string     `json:"by,omitempty"`
	Reason          string     `json:"reason,omitempty"`
	Message         string     `json:"message,omitempty"`
	AuthorizationID string     `json:"authorizationId,omitempty"`
	Version         string     `json:"version,omitempty"`
	ValidTo         *time.Time `json:"validTo,omitempty"`
}

// Links lead on. None carries a key.
type Links struct {
	Self   string `json:"self,omitempty"`
	Rotate string `json:"rotate,omitempty"`
	Extend string `json:"extend,omitempty"`
	Revoke string `json:"revoke,omitempty"`
}

// UnmanagedPAT is a PAT of a signed-in user that is not in the manifest.
type UnmanagedPAT struct {
	DisplayName     string    `json:"displayName"`
	Identity        string    `json:"identity"`
	Organization    string    `json:"organization"`
	AuthorizationID string    `json:"authorizationId"`
	Scopes          []string  `json:"scopes"`
	ValidTo         time.Time `json:"validTo"`
	// Global: valid in all organizations. Azure DevOps accepts none of these
	// from DeadFrom on.
	Global    bool       `json:"global,omitempty"`
	DeadFrom  *time.Time `json:"deadFrom,omitempty"`
	FullScope bool       `json:"fullScope,omitempty"`
	Expiring  bool       `json:"expiring,omitempty"`
	Links     *Links     `json:"links,omitempty"`
}

// ReleasedPAT is a secret that patrol wrote for a PAT that is no longer in the
// manifest.
type ReleasedPAT struct {
	Name            string     `json:"name"`
	Identity        string     `json:"identity,omitempty"`
	Organization    string     `json:"organization,omitempty"`
	AuthorizationID string     `json:"authorizationId,omitempty"`
	ValidTo         *time.Time `json:"validTo"`
}

// BlindSpot is something that could not be observed, or that does not work: an
// organization, an identity, or what Scope names.
type BlindSpot struct {
	Scope        string `json:"scope"`
	Identity     string `json:"identity,omitempty"`
	Organization string `json:"organization,omitempty"`
	// Since is when it began; null: not known.
	Since *time.Time `json:"since"`
	FailureCause
}

// Inventory counts all that was found, whatever a list's filter.
type Inventory struct {
	Managed   int `json:"managed"`
	Unmanaged int `json:"unmanaged"`
	Released  int `json:"released"`
	Missing   int `json:"missing"`
	Due       int `json:"due"`
	Blocked   int `json:"blocked"`
	Unknown   int `json:"unknown"`
	// Of managed and unmanaged ones together.
	Global    int `json:"global"`
	FullScope int `json:"fullScope"`
	Expiring  int `json:"expiring"`
}

// Listing is one page of a list.
type Listing struct {
	At        time.Time      `json:"at"`
	PATs      []ManagedPAT   `json:"pats"`
	Unmanaged []UnmanagedPAT `json:"unmanaged"`
	Released  []ReleasedPAT  `json:"released"`
	Problems  []BlindSpot    `json:"problems"`
	// MassChanges wait for a person.
	MassChanges []MassChange `json:"massChanges,omitempty"`
	Counts      Inventory    `json:"counts"`
	// Next leads to the next page; empty on the last one.
	Next string `json:"next,omitempty"`
}

// PlanReport is what a sweep would do.
type PlanReport struct {
	Listing
	Changes []Change `json:"changes"`
}

// Change is one thing that a sweep, or what it sends, would do.
type Change struct {
	// create, rotate, revoke, revoke-orphan, adopt, announce, refuse, sign-in, release
	Action          string     `json:"action"`
	PAT             string     `json:"pat"`
	Identity        string     `json:"identity,omitempty"`
	Organization    string     `json:"organization,omitempty"`
	Reason          string     `json:"reason,omitempty"`
	Message         string     `json:"message"`
	AuthorizationID string     `json:"authorizationId,omitempty"`
	At              *time.Time `json:"at"` // null: now
}

// Order is a rotation that has been ordered.
type Order struct {
	Operation      string `json:"operation"`
	PAT            string `json:"pat"`
	Reason         string `json:"reason"`
	From           string `json:"from,omitempty"`
	RevokePrevious string `json:"revokePrevious"`
	Status         string `json:"status"`
}

// Extension is a PAT whose end has been moved.
type Extension struct {
	PAT             string     `json:"pat"`
	AuthorizationID string     `json:"authorizationId"`
	ValidFrom       time.Time  `json:"validFrom"`
	ValidTo         time.Time  `json:"validTo"` // Azure DevOps' answer
	RotateAt        *time.Time `json:"rotateAt"`
	// Clamped: the end is earlier than was asked for.
	Clamped bool `json:"clamped"`
}

// Revocation is a PAT that has been revoked, other than at the end of a rotation.
type Revocation struct {
	AuthorizationID string `json:"authorizationId"`
	Identity        string `json:"identity"`
	Organization    string `json:"organization"`
	// Already: it had ended before.
	Already bool `json:"already"`
	// Replacing is the managed PAT that is being rotated because of it, by
	// Operation.
	Replacing string `json:"replacing,omitempty"`
	Operation string `json:"operation,omitempty"`
}

// SweepReport is one sweep.
type SweepReport struct {
	At        time.Time   `json:"at"`
	Took      string      `json:"took"`
	By        string      `json:"by"`
	Managed   int         `json:"managed"`
	Commands  int         `json:"commands"`
	Unmanaged int         `json:"unmanaged"`
	Released  int         `json:"released"`
	Problems  []BlindSpot `json:"problems"`
	// MassChanges wait for a person.
	MassChanges []MassChange `json:"massChanges,omitempty"`
}

// IdentityStatus is an identity's sign-in.
type IdentityStatus struct {
	Name      string        `json:"name"`
	User      string        `json:"user"`
	Renamed   string        `json:"renamed,omitempty"` // the user's name of today, if it is not User
	State     string        `json:"state"`             // signed-in, sign-in-required, refused, unknown
	Since     *time.Time    `json:"since"`
	Until     *time.Time    `json:"until"`
	Code      string        `json:"code,omitempty"`
	SignInURL string        `json:"signInUrl,omitempty"`
	Problem   *FailureCause `json:"problem,omitempty"`
}

// OrganizationStatus is how what an identity has in an organization stands.
type OrganizationStatus struct {
	Identity     string        `json:"identity"`
	Organization string        `json:"organization"`
	State        string        `json:"state"` // checked, refused, unknown
	Since        *time.Time    `json:"since"` // of the refusal
	Problem      *FailureCause `json:"problem,omitempty"`
}

// Failing is a PAT on which work fails, and is tried again.
type Failing struct {
	PAT     string    `json:"pat"`
	Step    string    `json:"step"`
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	// Since is the first failure in a row, RetryAt the next attempt; null: not known, or
	// not before something changes.
	Since   *time.Time `json:"since"`
	RetryAt *time.Time `json:"retryAt"`
	FailureCause
}

// SharedState says whether what other processes of the app know could be read. Where it
// could not, last sweep, failing and troubles are those of the process that answers, and
// what is not among them is not known here.
type SharedState struct {
	Known   bool          `json:"known"`
	Problem *FailureCause `json:"problem,omitempty"`
}

// ManifestStatus is which manifest is in force.
type ManifestStatus struct {
	// Source is where it came from, as PATROL_MANIFEST says.
	Source string `json:"source"`
	PATs   int    `json:"pats"`
}

// Build says which state of the project runs.
type Build struct {
	Version string `json:"version"`
	// Commit is the first twelve digits; empty: not known.
	Commit string `json:"commit"`
}

// StatusReport is the state of patrol itself.
type StatusReport struct {
	Build      Build            `json:"build"`
	Identities []IdentityStatus `json:"identities"`
	LastSweep  *SweepReport     `json:"lastSweep"`
	NextSweep  *time.Time       `json:"nextSweep"`
	// Failing is what has failed, and not succeeded since.
	Failing []Failing `json:"failing"`
	// Troubles are what patrol cannot observe, or does not act on before a person has said
	// something.
	Troubles []Trouble `json:"troubles"`
	// Organizations are those of the manifest, for each identity.
	Organizations []OrganizationStatus `json:"organizations"`
	// Degraded is what health says of it.
	Degraded bool           `json:"degraded"`
	State    SharedState    `json:"state"`
	Manifest ManifestStatus `json:"manifest"`
}
