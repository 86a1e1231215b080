package events

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// Replacement is what the events of a switch-over have in common: a PAT, and the version
// that its consumers and copies are to go over to.
type Replacement struct {
	PAT             string `json:"pat"`
	Organization    string `json:"organization"`
	Identity        string `json:"identity"`
	RotationID      string `json:"rotationId"`
	SecretVersion   string `json:"secretVersion"`
	AuthorizationID string `json:"authorizationId"`
}

// ConsumerState is how far one consumer is with a new PAT.
type ConsumerState struct {
	Name string `json:"name"`
	// Required: the replaced PAT waits for it.
	Required bool `json:"required"`
	// State: waiting, switched, failed, or by-hand where a person has confirmed for it.
	State string `json:"state"`
	// At is since when; nil (null) while it is waited for.
	At *time.Time `json:"at"`
}

// Switched: every required consumer has switched to the new PAT.
type Switched struct {
	Replacement
	Consumers []ConsumerState `json:"consumers"`
	Previous  *Previous       `json:"previous"`
}

// SwitchLate: required consumers have not confirmed in time. It comes again every day.
type SwitchLate struct {
	Replacement
	Consumers []ConsumerState `json:"consumers"`
	// Missing are the names of those that are waited for.
	Missing  []string  `json:"missing"`
	Previous *Previous `json:"previous"`
	// Next is what happens if nothing changes.
	Next Next `json:"next"`
}

// Next is what will happen to a replaced PAT.
type Next struct {
	// What: revoke, hold (it waits for a person) or expire.
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// SwitchFailed: a consumer says that it cannot use the new PAT.
type SwitchFailed struct {
	Replacement
	Consumer string `json:"consumer"`
	Required bool   `json:"required"`
	// Message is the consumer's, for people.
	Message string `json:"message"`
}

// Destination is a place that patrol writes a copy of a PAT to.
type Destination struct {
	// Name is the place in the manifest's words.
	Name string `json:"destination"`
	// Kind: keyVault, serviceConnection, variableGroup or appService.
	Kind string `json:"kind"`
	// Required: the replaced PAT waits for it.
	Required bool `json:"required"`
}

// Delivered: a copy of the new PAT is where it is needed, and was verified there.
type Delivered struct {
	Replacement
	Destination
}

// DeliveryFailed: a copy of the new PAT could not be written or verified.
type DeliveryFailed struct {
	Replacement
	Destination
	// Class: transient, throttled, configuration, policy, sign-in or ambiguous.
	Class   string `json:"class"`
	Code    string `json:"code"`
	Message string `json:"message"`
	// RetryAt is nil (null) if no retry is scheduled.
	RetryAt *time.Time `json:"retryAt"`
}

// Postponed: a PAT that is due waits for a window, the end of a freeze, or a person.
type Postponed struct {
	PAT             string `json:"pat"`
	Organization    string `json:"organization"`
	Identity        string `json:"identity"`
	AuthorizationID string `json:"authorizationId"`
	// Reason is the manifest's.
	Reason string `json:"reason"`
	// Until is when it goes on; nil (null): when a person says so.
	Until   *time.Time `json:"until"`
	ValidTo time.Time  `json:"validTo"`
}

func (r Replacement) id(parts ...string) string {
	return strings.Join(append([]string{r.RotationID, part(r.AuthorizationID)}, parts...), "/")
}

// SwitchedID is the id of the end of a switch-over.
func SwitchedID(r Replacement) string { return r.id("switched") }

// SwitchLateID is the id of one day's warning.
func SwitchLateID(r Replacement, at time.Time) string { return r.id("switch-late", day(at)) }

// SwitchFailedID is the id of one consumer's failure.
func SwitchFailedID(r Replacement, consumer string) string {
	return r.id("switch-failed", part(consumer))
}

// DeliveredID is the id of one copy.
func DeliveredID(r Replacement, destination string) string {
	return r.id("delivered", part(destination))
}

// DeliveryFailedID is the id of one destination's failures of one kind on one day.
func DeliveryFailedID(r Replacement, destination, code string, at time.Time) string {
	return r.id("delivery-failed", part(destination), part(cmp.Or(code, "unknown")), day(at))
}

// PostponedID takes the time until which a PAT waits. One that waits for a person is
// told once a day.
func PostponedID(authorizationID string, until *time.Time, at time.Time) string {
	if until == nil {
		return part(authorizationID) + "/postponed/paused/" + day(at)
	}
	return part(authorizationID) + "/postponed/" + strconv.FormatInt(until.Unix(), 10)
}

// NewSwitched makes the event of the end of a switch-over.
func NewSwitched(source string, at time.Time, d Switched) Event {
	return newEvent(SwitchedID(d.Replacement), source, d.PAT, at, d)
}

// NewSwitchLate makes the event of missing confirmations.
func NewSwitchLate(source string, at time.Time, d SwitchLate) Event {
	return newEvent(SwitchLateID(d.Replacement, at), source, d.PAT, at, d)
}

// NewSwitchFailed makes the event of a consumer that cannot use the new PAT.
func NewSwitchFailed(source string, at time.Time, d SwitchFailed) Event {
	return newEvent(SwitchFailedID(d.Replacement, d.Consumer), source, d.PAT, at, d)
}

// NewDelivered makes the event of a copy that was written and verified.
func NewDelivered(source string, at time.Time, d Delivered) Event {
	return newEvent(DeliveredID(d.Replacement, d.Name), source, d.PAT, at, d)
}

// NewDeliveryFailed makes the event of a copy that was not.
func NewDeliveryFailed(source string, at time.Time, d DeliveryFailed) Event {
	return newEvent(DeliveryFailedID(d.Replacement, d.Name, d.Code, at), source, d.PAT, at, d)
}

// NewPostponed makes the event of a PAT that waits although it is due.
func NewPostponed(source string, at time.Time, d Postponed) Event {
	return newEvent(PostponedID(d.AuthorizationID, d.Until, at), source, d.PAT, at, d)
}
