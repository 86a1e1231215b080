package devops

import "time"

// Switches choose between behaviours of the real service that are not
// documented, or that depend on its state. The zero value is the likeliest one.
type Switches struct {
	// ReleasedPats: tokens/pats takes api-version 7.1 without -preview too.
	ReleasedPats bool
	// SecondDelete is the answer to revoking a PAT that is revoked already.
	SecondDelete SecondDelete
	// GetGone is the answer to getting a revoked or unknown PAT.
	GetGone GetGone
	// ClampTop: $top over 100 means 100 instead of 400.
	ClampTop bool
	// DefaultTop is the page size without $top; 0 is 100.
	DefaultTop int
	// ListAllByDefault: without displayFilterOption every PAT is listed, not
	// just the active ones.
	ListAllByDefault bool
	// LastPage is how the end of a list shows.
	LastPage LastPage
	// MaxDisplayName is the longest display name; 0 is 256 characters.
	MaxDisplayName int
	// CreationDenied: the policy that restricts creation answers accessDenied
	// instead of disablePatCreationPolicyViolation.
	CreationDenied bool
	// RefuseApp: a service principal is answered 401 instead of 403.
	RefuseApp bool
	// ForbidPAT: a PAT on tokens/pats is answered 403 instead of 401.
	ForbidPAT bool
	// LifespanError: a create or update past the maximum lifespan fails with
	// patLifespanPolicyViolation (as until March 2024) instead of being
	// shortened.
	LifespanError bool
	// AcceptImpersonation: the broad delegated permission user_impersonation
	// stands for vso.pats and vso.pats_manage.
	AcceptImpersonation bool
	// BOM: JSON answers begin with a byte order mark.
	BOM bool
	// SignInPage: refused credentials are answered by the 203 sign-in page,
	// whatever the request's headers say.
	SignInPage bool
	// IssueLatency is how long a new PAT is not accepted yet.
	IssueLatency time.Duration
	// RevocationLatency is how long a revoked PAT is still accepted.
	RevocationLatency time.Duration
	// Inactivity: a PAT whose owner has not signed in since its making stops
	// working after 90 days.
	Inactivity bool
	// GlobalPATsEnd is when PATs of all organizations stop working; zero is
	// 2026-12-01.
	GlobalPATsEnd time.Time
	// RefuseUnknownRevocation: token administration answers 400 for ids that it
	// does not know, instead of passing over them.
	RefuseUnknownRevocation bool
	// MaxUserPatPage is the largest page of token administration's list; 0 is
	// 100.
	MaxUserPatPage int
	// ForbidNonAdministrator: token administration answers 403 instead of 401
	// to a user who is no Project Collection Administrator.
	ForbidNonAdministrator bool
	// UpdateNeedsAll: an update must name the display name and the scopes, too;
	// the usual service leaves what is not named as it is.
	UpdateNeedsAll bool
	// AuditPage is the largest batch of the audit log; 0 is 1000.
	AuditPage int
	// WrappedAudit: the audit log's answer stands in "value", as in its
	// published sample.
	WrappedAudit bool
	// GraphPage is the page size of graph users; 0 is 500.
	GraphPage int
	// Throttle is the budget of each identity.
	Throttle Throttle
}

// SecondDelete is the answer to revoking a PAT that is revoked already.
type SecondDelete int

const (
	DeleteNoContent SecondDelete = iota // 204, as the first time
	DeleteNotFound                      // 404 with a JSON error
	DeleteError                         // 200 with patTokenError authorizationNotFound
)

// GetGone is the answer to getting a revoked or unknown PAT.
type GetGone int

const (
	GetRevoked  GetGone = iota // a revoked one is still shown; an unknown one is GetError
	GetError                   // 200 with patToken null and patTokenError authorizationNotFound
	GetNull                    // 200 with patToken null and patTokenError none
	GetNotFound                // 404 with a JSON error
)

// LastPage is how the end of a list shows.
type LastPage int

const (
	LastPageEmpty  LastPage = iota // "continuationToken": ""
	LastPageNull                   // "continuationToken": null
	LastPageAbsent                 // no continuationToken
)

// Throttle is the budget of each identity in a sliding window of five minutes,
// in Azure DevOps throughput units. What a call of the PAT API costs is not
// published.
type Throttle struct {
	// Cost is what one call costs; 0 turns throttling off.
	Cost float64
	// Budget is what may be used up before calls are delayed; 0 is 200. Calls
	// are refused once half as much again has been used.
	Budget float64
	// MaxDelay is the longest delay of a call; 0 is 30 s.
	MaxDelay time.Duration
}

// Policies are an organization's and its tenant's policies on PATs; the zero
// value restricts nothing.
type Policies struct {
	MaxLifespanDays int
	FullScope       bool // no app_token
	Global          bool // no PATs of all organizations
	GlobalRetired   bool // nor anywhere else: globalPATCreationBlocked
	Creation        bool // no creation at all
	PackagingOnly   bool // with Creation: packaging scopes are permitted
	// Exempt are the users to whom FullScope, Global, Creation and
	// MaxLifespanDays do not apply.
	Exempt []string
	// TenantUnreadable and OrgUnreadable: the policy store cannot be reached.
	TenantUnreadable bool
	OrgUnreadable    bool
}
