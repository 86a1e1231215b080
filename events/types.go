package events

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// The types of patrol's events.
const (
	TypeRotated         = "patrol.pat.rotated"
	TypeRevoked         = "patrol.pat.revoked"
	TypeRotationFailed  = "patrol.pat.rotation-failed"
	TypeExpiring        = "patrol.pat.expiring"
	TypeSignedIn        = "patrol.identity.signed-in"
	TypeSignInRequired  = "patrol.identity.sign-in-required"
	TypeSignInExpiring  = "patrol.identity.sign-in-expiring"
	TypeCheckIncomplete = "patrol.check.incomplete"
	TypeCheckRecovered  = "patrol.check.recovered"
	TypeSwitched        = "patrol.pat.switched"
	TypeSwitchLate      = "patrol.pat.switch-late"
	TypeSwitchFailed    = "patrol.pat.switch-failed"
	TypeDelivered       = "patrol.pat.delivered"
	TypeDeliveryFailed  = "patrol.pat.delivery-failed"
	TypePostponed       = "patrol.pat.postponed"
)

// TypeConfirmed is what consumers send to patrol.
const TypeConfirmed = "patrol.pat.confirmed"

// Rotated: a new PAT is in the vault. Consumers read the secret again by
// Secret.ID (this version) or Secret.Name (the latest).
type Rotated struct {
	PAT          string `json:"pat"`
	Organization string `json:"organization"`
	Identity     string `json:"identity"`
	// DisplayName is the declared one, without what patrol adds to it.
	DisplayName string   `json:"displayName"`
	Scopes      []string `json:"scopes"`
	RotationID  string   `json:"rotationId"`
	// Reason: provision, expiring, requested, compromised or drift; empty if it is not
	// known any more. Like every such word it may be one of a later version.
	Reason          string    `json:"reason"`
	Secret          SecretRef `json:"secret"`
	AuthorizationID string    `json:"authorizationId"`
	ValidFrom       time.Time `json:"validFrom"`
	ValidTo         time.Time `json:"validTo"`
	// Previous is nil (null) for a PAT's first version.
	Previous *Previous `json:"previous"`
}

// SecretRef is where the new value is: never the value itself.
type SecretRef struct {
	ID      string `json:"id"` // secret identifier, with the version
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Previous is the PAT that was replaced. It works until RevokeAt.
type Previous struct {
	Version         string    `json:"version"`
	AuthorizationID string    `json:"authorizationId"`
	RevokeAt        time.Time `json:"revokeAt"`
	// RevokeAtLatest is how long missing confirmations may keep it alive beyond
	// RevokeAt; nil if they do not.
	RevokeAtLatest *time.Time `json:"revokeAtLatest,omitempty"`
}

// Revoked: a replaced PAT, or one that an interrupted rotation left behind, is
// dead.
type Revoked struct {
	PAT          string `json:"pat"`
	Organization string `json:"organization"`
	Identity     string `json:"identity,omitempty"`
	// RotationID is of the rotation that replaced it.
	RotationID      string `json:"rotationId"`
	AuthorizationID string `json:"authorizationId"`
	// SecretVersion is empty for an orphan: it never was in the vault.
	SecretVersion string `json:"secretVersion"`
	// Cause: overlap-ended, requested, expired or orphan.
	Cause string `json:"cause"`
}

// RotationFailed: patrol could not go on with a PAT, or with a message about one.
type RotationFailed struct {
	PAT          string `json:"pat"`
	Organization string `json:"organization"`
	Identity     string `json:"identity,omitempty"`
	// RotationID is empty for a message that could not be worked on.
	RotationID string `json:"rotationId"`
	// Step: observe, adopt, create, prove, store, announce or revoke; of a message
	// receive or dead-letter.
	Step string `json:"step"`
	// Class: transient, throttled, configuration, policy, sign-in or ambiguous.
	Class string `json:"class"`
	// Code is a stable word for programs, Message is for people.
	Code    string `json:"code"`
	Message string `json:"message"`
	// RetryAt is nil (null) if no retry is scheduled.
	RetryAt *time.Time `json:"retryAt"`
	// ValidTo is when the current PAT ends; nil (null) if there is none.
	ValidTo *time.Time `json:"validTo"`
}

// Expiring: a PAT that nobody has declared to patrol has 14, 7 or 1 days left.
type Expiring struct {
	DisplayName     string    `json:"displayName"`
	Organization    string    `json:"organization"`
	Identity        string    `json:"identity,omitempty"`
	AuthorizationID string    `json:"authorizationId"`
	ValidTo         time.Time `json:"validTo"`
}

// SignedIn: an identity's sign-in is in order.
type SignedIn struct {
	Identity string `json:"identity"`
	User     string `json:"user"`
}

// SignInRequired: nothing can be rotated for an identity until its user signs in.
type SignInRequired struct {
	Identity string `json:"identity"`
	User     string `json:"user"`
	// Code is Entra's: AADSTS700082.
	Code string `json:"code"`
	// SignInURL is where to do it. It carries no key.
	SignInURL string `json:"signInUrl"`
}

// SignInExpiring: a sign-in has not been renewed for long, and ends at Until
// unless it can be renewed before.
type SignInExpiring struct {
	Identity string `json:"identity"`
	User     string `json:"user"`
	// Code: inactivity.
	Code string `json:"code"`
	// SignInURL is where to sign in again. It carries no key.
	SignInURL string    `json:"signInUrl"`
	Until     time.Time `json:"until"`
}

// CheckIncomplete: patrol cannot observe something, or waits for a person before it acts
// on what it has seen. Meanwhile the PATs concerned may not be looked after.
type CheckIncomplete struct {
	// Scope: vault, bus, state, manifest, identity or organization.
	Scope string `json:"scope"`
	// Identity and Organization are empty where the scope has none.
	Identity     string `json:"identity"`
	Organization string `json:"organization"`
	// Class: transient, throttled, configuration, policy, sign-in or ambiguous.
	Class string `json:"class"`
	// Code is a stable word for programs, Message is for people.
	Code    string `json:"code"`
	Message string `json:"message"`
	// Since is when it was met first. It comes again every day until it is over.
	Since time.Time `json:"since"`
	// PATs is how many are affected.
	PATs int `json:"pats"`
	// NextEnd is the earliest end among them; nil (null) if it is not known.
	NextEnd *time.Time `json:"nextEnd"`
}

// CheckRecovered: what a CheckIncomplete with the same scope, identity, organization,
// code and since has told is over.
type CheckRecovered struct {
	Scope        string     `json:"scope"`
	Identity     string     `json:"identity"`
	Organization string     `json:"organization"`
	Code         string     `json:"code"`
	Since        time.Time  `json:"since"`
	PATs         int        `json:"pats"`
	NextEnd      *time.Time `json:"nextEnd"`
	// Lasted is for how many seconds it stood.
	Lasted int64 `json:"lasted"`
}

// part makes one part of an id of a word that somebody else may have chosen: without a
// slash, so that the parts stay apart.
func part(word string) string { return notInParts.Replace(word) }

var notInParts = strings.NewReplacer("/", "%2F", "%", "%25")

// day counts days since 1970 in UTC: what lasts is told once a day.
func day(at time.Time) string { return strconv.FormatInt(at.Unix()/(24*60*60), 10) }

// RotatedID is the id of the one event of a rotation: of one PAT that was made.
func RotatedID(rotationID, authorizationID string) string {
	return rotationID + "/" + part(authorizationID) + "/rotated"
}

// RevokedID takes the id of the rotation that replaced the PAT.
func RevokedID(rotationID, authorizationID string) string {
	return rotationID + "/revoked/" + authorizationID
}

// RotationFailedID is the id of a step's failures of one kind on one day.
func RotationFailedID(rotationID, step, code string, at time.Time) string {
	return strings.Join([]string{rotationID, "failed", part(step), part(cmp.Or(code, "unknown")), day(at)}, "/")
}

// MessageFailedID is the id of the failure of a message. Its mark is what the broker
// gave it: a message's own id repeats, and belongs to its sender.
func MessageFailedID(queue string, sequenceNumber int64) string {
	return queue + "/" + strconv.FormatInt(sequenceNumber, 10) + "/failed"
}

// ExpiringID is the id of one warning about an unmanaged PAT.
func ExpiringID(authorizationID string, days int) string {
	return authorizationID + "/expiring/" + strconv.Itoa(days)
}

// SignedInID is the id of one sign-in.
func SignedInID(identity string, at time.Time) string {
	return identity + "/signed-in/" + strconv.FormatInt(at.Unix(), 10)
}

// SignInRequiredID takes the time since when the sign-in is required.
func SignInRequiredID(identity string, since time.Time) string {
	return identity + "/sign-in-required/" + strconv.FormatInt(since.Unix(), 10)
}

// SignInExpiringID takes the end that is warned of.
func SignInExpiringID(identity string, until time.Time) string {
	return identity + "/sign-in-expiring/" + strconv.FormatInt(until.Unix(), 10)
}

// CheckIncompleteID takes the time since when it stands, and that of this event.
func CheckIncompleteID(scope, identity, organization, code string, since, at time.Time) string {
	return troubleID(scope, identity, organization, code, since) + day(at)
}

// CheckRecoveredID takes the time since when it had stood.
func CheckRecoveredID(scope, identity, organization, code string, since time.Time) string {
	return troubleID(scope, identity, organization, code, since) + "recovered"
}

// troubleID is what both have in common.
func troubleID(scope, identity, organization, code string, since time.Time) string {
	return strings.Join([]string{part(scope), part(identity), part(organization), part(cmp.Or(code, "unknown")),
		strconv.FormatInt(since.Unix(), 10), ""}, "/")
}

// NewRotated makes the event of a rotation.
func NewRotated(source string, at time.Time, d Rotated) Event {
	return newEvent(RotatedID(d.RotationID, d.AuthorizationID), source, d.PAT, at, d)
}

// NewRevoked makes the event of a revocation.
func NewRevoked(source string, at time.Time, d Revoked) Event {
	return newEvent(RevokedID(d.RotationID, d.AuthorizationID), source, d.PAT, at, d)
}

// NewRotationFailed makes the event of a step that has failed.
func NewRotationFailed(source string, at time.Time, d RotationFailed) Event {
	return newEvent(RotationFailedID(d.RotationID, d.Step, d.Code, at), source, d.PAT, at, d)
}

// NewMessageFailed makes the event of a message that nobody can work on. It belongs to
// no rotation.
func NewMessageFailed(source string, at time.Time, queue string, sequenceNumber int64, d RotationFailed) Event {
	d.RotationID = ""
	return newEvent(MessageFailedID(queue, sequenceNumber), source, d.PAT, at, d)
}

// NewExpiring makes the event of an unmanaged PAT that has this many days left.
func NewExpiring(source string, at time.Time, days int, d Expiring) Event {
	return newEvent(ExpiringID(d.AuthorizationID, days), source, d.AuthorizationID, at, d)
}

// NewSignedIn makes the event of a sign-in.
func NewSignedIn(source string, at time.Time, d SignedIn) Event {
	return newEvent(SignedInID(d.Identity, at), source, d.Identity, at, d)
}

// NewSignInRequired makes the event of a lost sign-in; since is when it was
// first seen.
func NewSignInRequired(source string, since time.Time, d SignInRequired) Event {
	return newEvent(SignInRequiredID(d.Identity, since), source, d.Identity, since, d)
}

// NewSignInExpiring makes the warning of a sign-in's end.
func NewSignInExpiring(source string, at time.Time, d SignInExpiring) Event {
	return newEvent(SignInExpiringID(d.Identity, d.Until), source, d.Identity, at, d)
}

// NewCheckIncomplete makes the event of what patrol cannot observe, or waits for.
func NewCheckIncomplete(source string, at time.Time, d CheckIncomplete) Event {
	id := CheckIncompleteID(d.Scope, d.Identity, d.Organization, d.Code, d.Since, at)
	return newEvent(id, source, d.Scope, at, d)
}

// NewCheckRecovered makes the event of its being over.
func NewCheckRecovered(source string, at time.Time, d CheckRecovered) Event {
	id := CheckRecoveredID(d.Scope, d.Identity, d.Organization, d.Code, d.Since)
	return newEvent(id, source, d.Scope, at, d)
}

func newEvent(id, source, subject string, at time.Time, d payload) Event {
	return Event{ID: id, Source: source, Type: d.eventType(), Subject: subject, Time: at.UTC(), Data: d}
}

// Source is the source of a deployment's events; host is the host of its vault.
func Source(host string) string { return "/patrol/" + host }

// TimeOrNull gives nil for the zero time, for fields that may be null.
func TimeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}
