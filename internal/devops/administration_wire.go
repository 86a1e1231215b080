package devops

import (
	"cmp"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

type revocation struct {
	AuthorizationID string `json:"authorizationId"`
}

type ruleRequest struct {
	Scopes        string `json:"scopes"`
	CreatedBefore string `json:"createdBefore"`
}

type graphUsers struct {
	Users []graphUser `json:"value"`
}

type graphUser struct {
	PrincipalName string `json:"principalName"`
	MailAddress   string `json:"mailAddress"`
	DisplayName   string `json:"displayName"`
	Origin        string `json:"origin"`
	Descriptor    string `json:"descriptor"`
}

func (w graphUser) user() administration.User {
	return administration.User{
		Descriptor: w.Descriptor, PrincipalName: w.PrincipalName, MailAddress: w.MailAddress,
		DisplayName: w.DisplayName, Origin: w.Origin,
	}
}

// isDescriptor reports whether s has the form of a subject descriptor: a kind, a
// dot and a key, aad.Zm9v.
func isDescriptor(s string) bool {
	kind, key, _ := strings.Cut(s, ".")
	return isWord(kind, 20) && key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r > 127 || !alphanumeric(byte(r)) && !strings.ContainsRune("-_=", r)
	})
}

type sessionPage struct {
	Sessions          []session `json:"value"`
	ContinuationToken string    `json:"continuationToken"` // null: the last page
}

// session is a PAT as an administrator sees it. It may have no name, and never
// has a token.
type session struct {
	patToken
	IsValid  *bool `json:"isValid"`
	IsPublic bool  `json:"isPublic"` // an SSH key
}

// valid reports whether it is a PAT that can still be used. One of which Azure
// DevOps does not say so is taken for valid.
func (w session) valid(now time.Time) bool {
	saysInvalid := w.IsValid != nil && !*w.IsValid
	ended := !w.ValidTo.IsZero() && !w.ValidTo.After(now)
	return !saysInvalid && !w.IsPublic && !ended
}

// pat is as that of the owner's list, but a missing end is no reason to leave a PAT
// out of a revocation.
func (w session) pat() (rotation.PAT, error) {
	if w.AuthorizationID == "" {
		return rotation.PAT{}, errors.New("a PAT without its id")
	}
	return w.asPAT(), nil
}

// auditPage is a batch of the audit log. The published sample has it in "value",
// the answers that people show do not.
type auditPage struct {
	Entries           []auditRow `json:"decoratedAuditLogEntries"`
	ContinuationToken string     `json:"continuationToken"`
	HasMore           bool       `json:"hasMore"`
}

func (p *auditPage) UnmarshalJSON(b []byte) error {
	type plain auditPage
	var w struct {
		plain
		Value *plain `json:"value"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*p = auditPage(w.plain)
	if w.Value != nil && p.Entries == nil {
		*p = auditPage(*w.Value)
	}
	return nil
}

type auditRow struct {
	ID               string                     `json:"id"`
	CorrelationID    string                     `json:"correlationId"`
	ActivityID       string                     `json:"activityId"`
	ActorUPN         string                     `json:"actorUPN"`
	ActorDisplayName string                     `json:"actorDisplayName"`
	Timestamp        moment                     `json:"timestamp"`
	ActionID         string                     `json:"actionId"`
	IPAddress        string                     `json:"ipAddress"`
	UserAgent        string                     `json:"userAgent"`
	Data             map[string]json.RawMessage `json:"data"` // of any kind, by the action
}

// entry is a row as patrol shows it; ok is false for events that are not of
// tokens. A row's free text stays behind.
func (w auditRow) entry() (e administration.AuditEntry, ok bool) {
	if kind, name, _ := strings.Cut(w.ActionID, "."); kind != "Token" || !isWord(name, 50) {
		return e, false
	}
	return administration.AuditEntry{
		ID: w.ID, At: w.Timestamp.Time, Action: w.ActionID, Actor: cmp.Or(w.ActorUPN, w.ActorDisplayName),
		DisplayName: w.text("DisplayName"), Owner: w.text("OwnerName"), AuthorizationID: w.text("AuthorizationId"),
		IPAddress: w.IPAddress, UserAgent: w.UserAgent, ActivityID: cmp.Or(w.CorrelationID, w.ActivityID),
	}, true
}

// text is a part of the data, if it is a string.
func (w auditRow) text(name string) string {
	var s string
	if json.Unmarshal(w.Data[name], &s) != nil {
		return ""
	}
	return s
}
