// Package administration is what an administrator does with the PATs of other
// people: an emergency revocation, planned first, confirmed by a token that fits
// exactly this plan, then carried out and recorded.
//
// It must not know Azure DevOps' API, nor HTTP, nor where its key comes from:
// Organizations and Vault are ports.
package administration

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Codes of a *rotation.Error that a caller distinguishes.
const (
	// NotAdministrator: the identity's user may not do this in the organization.
	NotAdministrator = "not-administrator"
	// ScopesMissing: the identity's sign-in does not cover administration. It
	// must be marked "administrator: true", and sign in again.
	ScopesMissing = "administration-scopes-missing"
	// UserUnknown and OrganizationUnknown: Azure DevOps knows no such one.
	UserUnknown         = "user-unknown"
	OrganizationUnknown = "organization-unknown"

	// InvalidRequest: what was asked for cannot be planned.
	InvalidRequest = "invalid-revocation"
	// ConfirmationMissing, ConfirmationInvalid and ConfirmationExpired: the
	// confirmation is not one of this patrol's, or it is too old.
	ConfirmationMissing = "confirmation-missing"
	ConfirmationInvalid = "confirmation-invalid"
	ConfirmationExpired = "confirmation-expired"
	// PlanChanged: what would be revoked now is not what was confirmed.
	PlanChanged = "plan-changed"
	// Incomplete: something was not revoked; Result says what.
	Incomplete = "revocation-incomplete"
)

// User is one member of an organization.
type User struct {
	Descriptor    string `json:"descriptor"` // subject descriptor: aad.Zm9v
	PrincipalName string `json:"principalName"`
	MailAddress   string `json:"mailAddress,omitempty"`
	DisplayName   string `json:"displayName,omitempty"`
	Origin        string `json:"origin,omitempty"` // aad, msa
}

// Is reports whether a name means this user: its principal name or its mail
// address, without case, or its subject descriptor.
func (u User) Is(name string) bool {
	name = strings.TrimSpace(name)
	return name != "" && (strings.EqualFold(name, u.PrincipalName) || strings.EqualFold(name, u.MailAddress) ||
		name == u.Descriptor)
}

// Rule ends self-describing tokens, which are session and app tokens and not
// PATs, of everybody in the organization.
type Rule struct {
	Scopes        []string  `json:"scopes"`
	CreatedBefore time.Time `json:"createdBefore"`
}

// Organizations are Azure DevOps' organizations, as an administrator acts on
// them. The owner names the administrator's identity. Every error has a class
// (*rotation.Error); activityID is the service's own name for the call.
type Organizations interface {
	// Users returns every member that one of the names means.
	Users(ctx context.Context, o rotation.Owner, names []string) ([]User, error)
	// UserPATs returns the PATs of a user that are still valid, all pages.
	UserPATs(ctx context.Context, o rotation.Owner, descriptor string) ([]rotation.PAT, error)
	// RevokePATs ends PATs of anybody, in one call; ones that are gone already
	// are no error.
	RevokePATs(ctx context.Context, o rotation.Owner, authorizationIDs []string) (activityID string, err error)
	// AddRevocationRule makes a rule. Repeating it has no further effect.
	AddRevocationRule(ctx context.Context, o rotation.Owner, r Rule) (activityID string, err error)
}

// Vault knows which PATs patrol manages. rotation.Vault is one.
type Vault interface {
	Secrets(ctx context.Context) iter.Seq2[rotation.Version, error]
}

// AuditQuery asks for an organization's audit log.
type AuditQuery struct {
	From, To time.Time // zero: as far as the log goes
	Limit    int       // how many entries at most; 0: 1000
}

// AuditEntry is an event of a token in an organization's audit log. The use of a
// token is never in it.
type AuditEntry struct {
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Action string    `json:"action"` // Token.PatCreateEvent
	// Actor is who did it: a user principal name, or a display name where
	// there is none.
	Actor string `json:"actor,omitempty"`
	// DisplayName and Owner are the PAT's. AuthorizationID is empty where the
	// log does not name it.
	DisplayName     string `json:"displayName,omitempty"`
	Owner           string `json:"owner,omitempty"`
	AuthorizationID string `json:"authorizationId,omitempty"`
	IPAddress       string `json:"ipAddress,omitempty"`
	UserAgent       string `json:"userAgent,omitempty"`
	ActivityID      string `json:"activityId,omitempty"`
}

// AuditPage is what was read of an audit log, newest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	// More: there is more in the window than the limit let through.
	More bool `json:"more"`
}
