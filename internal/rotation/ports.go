package rotation

import (
	"context"
	"iter"
	"time"
)

// Owner names whose PATs are meant: the tokens that one identity has made in
// one organization.
type Owner struct {
	Identity     string // a key of the manifest's identities
	Organization string
}

// PAT is a personal access token as Azure DevOps lists it. The list never
// carries the token itself.
type PAT struct {
	AuthorizationID string
	DisplayName     string
	Scopes          []string // sorted, without repeats and without what another one includes
	ValidFrom       time.Time
	ValidTo         time.Time
	Global          bool // valid in all organizations (targetAccounts null)
}

// PATRequest asks for a new PAT.
type PATRequest struct {
	DisplayName string
	Scopes      []string
	ValidTo     time.Time
}

// IssuedPAT is a new PAT: the only moment at which its token is shown. ValidTo is
// the server's answer, which policy may have shortened.
type IssuedPAT struct {
	PAT
	Token Secret
}

// Tokens is the PAT lifecycle of Azure DevOps. Every error has a class
// (*Error): Ambiguous when a Create may have taken effect though its answer was
// lost, SignIn when the identity's refresh token is dead.
type Tokens interface {
	// List returns every active PAT of the owner, all pages.
	List(ctx context.Context, o Owner) ([]PAT, error)
	// Create issues a PAT. It is never repeated blindly.
	Create(ctx context.Context, o Owner, r PATRequest) (IssuedPAT, error)
	// Revoke ends a PAT. One that is gone already is a success.
	Revoke(ctx context.Context, o Owner, authorizationID string) error
	// Get returns one PAT of the owner by its id, read by another way than List's:
	// a witness. ErrNotFound: the owner has no such PAT, or none that is active.
	// Azure DevOps does not say whether it still shows a revoked PAT this way.
	Get(ctx context.Context, o Owner, authorizationID string) (PAT, error)
	// Prove asks the organization who bears this token, with the token itself.
	// The anonymous user is a failure (class Policy, code "anonymous"), a
	// refused token too (class Transient, code TokenRefused: a new PAT may
	// need seconds to be known everywhere).
	Prove(ctx context.Context, o Owner, token Secret) (bearer string, err error)
}

// Version is one version of a PAT's secret.
type Version struct {
	Name        string // the secret's name = the PAT's name
	ID          string // the version's id, 32 hex digits
	URL         string // secret identifier with the version
	Value       Secret // empty where only properties were read
	Enabled     bool
	Created     time.Time
	Expires     time.Time // zero: no exp
	ContentType string
	Ledger      Ledger
	// Foreign are tags that are not patrol's; an update keeps them.
	Foreign map[string]string
}

// Ledger is what patrol writes beside a secret's value, in the same request. Zero values are absent tags.
type Ledger struct {
	AuthorizationID  string // CredentialId
	ProviderAddress  string // ProviderAddress, <AZURE_DEVOPS_URL>/<org>
	ValidityDays     int    // ValidityPeriodDays
	RotationID       string // patrol-rotation
	Identity         string // patrol-identity
	Reason           Reason // patrol-reason
	Previous         string // patrol-previous: the replaced authorization id
	PreviousVersion  string // patrol-previous-version
	RevokePreviousAt time.Time
	AnnouncedAt      time.Time
	RevokedAt        time.Time
	// Who ordered this version, by which operation, and what has been done to it
	// since (see Notes). They are for people: a secret without room for them
	// goes without.
	RequestedBy string // patrol-requested-by
	Operation   string // patrol-operation
	History     string // patrol-history
	// Facts are what no other tag says (patrol-facts).
	Facts Facts
	// Confirmed is who has switched to this version (patrol-confirmed, see
	// ParseConfirmed).
	Confirmed string
}

// Ours reports whether patrol has written or adopted this version.
func (l Ledger) Ours() bool { return l.RotationID != "" || l.Identity != "" }

// Content is what a new version shall hold.
type Content struct {
	Value   Secret
	Expires time.Time
	Ledger  Ledger
	// Foreign are the replaced version's tags that are not patrol's: a vault
	// does not hand tags on to the next version by itself.
	Foreign map[string]string
}

// Vault keeps the PATs. Every error but ErrNotFound has a class.
type Vault interface {
	// Current reads the latest version afresh, with its value. ErrNotFound if
	// there is none. A disabled latest version comes back with Enabled false
	// and without a value.
	Current(ctx context.Context, name string) (Version, error)
	// Version reads one version's properties (never its value).
	Version(ctx context.Context, name, version string) (Version, error)
	// Value reads one version with its value. A disabled one comes back without it.
	Value(ctx context.Context, name, version string) (Version, error)
	// Versions lists every version by its properties, newest first.
	Versions(ctx context.Context, name string) ([]Version, error)
	// Store writes a new version: value, expiry and ledger in one request.
	Store(ctx context.Context, name string, c Content) (Version, error)
	// Update writes v's Ledger, Foreign tags, Enabled and Expires onto the
	// version that v names; the value stays.
	Update(ctx context.Context, v Version) (Version, error)
	// Recover brings a soft-deleted secret back and waits until it can be
	// read. false: there is no deleted secret of that name.
	Recover(ctx context.Context, name string) (bool, error)
	// Secrets lists every secret of the vault, page by page, by its latest
	// version's properties. Version.ID and URL are empty: the list has no
	// versions.
	Secrets(ctx context.Context) iter.Seq2[Version, error]
}

// DeletedVault is what a Vault may know beside: the secrets that were deleted and can be
// recovered, by the properties of their last versions.
type DeletedVault interface {
	Deleted(ctx context.Context) iter.Seq2[Version, error]
}

// Outbox sends commands and events.
type Outbox interface {
	// Send puts commands on the queue, each at its own time, in as few
	// requests as the protocol allows.
	Send(ctx context.Context, cs ...Command) error
	// Publish puts an event on the topic.
	Publish(ctx context.Context, e Event) error
}

// Identities are the people who have signed in.
type Identities interface {
	// User is the object id of the user who has signed in as an identity; empty: not
	// known to this process. It calls nobody.
	User(identity string) string
	// Refresh makes sure that the identity's sign-in lasts: it takes a token
	// and stores the refresh token when the stored one has become old. An
	// error of class SignIn has been published already.
	Refresh(ctx context.Context, identity string) error
}

// Observer hears of what a Reconciler does, for traces and metrics. Its methods are
// quick, cannot fail, and are called by many goroutines. What they are given by a pointer
// is theirs to read until they return.
type Observer interface {
	// Step: a part of the work on a PAT begins; it goes on with the context that
	// comes back, until done is called. Steps lie in one another.
	Step(ctx context.Context, s *Spec, step Step) (in context.Context, done func(error))
	// Rotated: an attempt to replace a PAT has ended.
	Rotated(ctx context.Context, s *Spec, reason Reason, err error)
	// Revoked: a PAT has been revoked, or has run out after its replacement.
	Revoked(ctx context.Context, s *Spec, cause RevocationCause)
	// Failed: a reconcile has not come to rest.
	Failed(ctx context.Context, s *Spec, f Failure)
	// Sweep: a sweep begins; it ends with done.
	Sweep(ctx context.Context) (in context.Context, done func(*Plan, error))
}

// NoObserver is the Observer of a Reconciler without one. It costs nothing.
type NoObserver struct{}

func (NoObserver) Step(ctx context.Context, _ *Spec, _ Step) (context.Context, func(error)) {
	return ctx, func(error) {}
}
func (NoObserver) Rotated(context.Context, *Spec, Reason, error)   {}
func (NoObserver) Revoked(context.Context, *Spec, RevocationCause) {}
func (NoObserver) Failed(context.Context, *Spec, Failure)          {}
func (NoObserver) Sweep(ctx context.Context) (context.Context, func(*Plan, error)) {
	return ctx, func(*Plan, error) {}
}
