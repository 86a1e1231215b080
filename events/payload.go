package events

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
)

// payload is the data of an event that this package knows. What valid refuses is held
// against the schemas by TestEncodeRefusesWhatTheSchemaRefuses.
type payload interface {
	eventType() string
	where() (organization, identity string)
	check() error // what a subscriber cannot do without
	valid() error // what the schema demands, which is more
	utc() any     // with every time in UTC
}

// fieldsError names what is wrong with the fields, without quoting them.
type fieldsError []string

func (e fieldsError) Error() string { return strings.Join(e, ", ") }

// need takes pairs of a field's name and its value.
func need(pairs ...string) error {
	var missing []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			missing = append(missing, pairs[i])
		}
	}
	if missing == nil {
		return nil
	}
	return fieldsError{strings.Join(missing, ", ") + " missing"}
}

// uri demands an address with its scheme.
func uri(name, value string) error {
	if isURI(value) {
		return nil
	}
	return fieldsError{name + " is not a URI"}
}

func isURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs()
}

func reference(name, value string) error {
	if _, err := url.Parse(value); err == nil {
		return nil
	}
	return fieldsError{name + " is not a URI reference"}
}

// first gives the first of several errors.
func first(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

func (Rotated) eventType() string         { return TypeRotated }
func (Revoked) eventType() string         { return TypeRevoked }
func (RotationFailed) eventType() string  { return TypeRotationFailed }
func (Expiring) eventType() string        { return TypeExpiring }
func (SignedIn) eventType() string        { return TypeSignedIn }
func (SignInRequired) eventType() string  { return TypeSignInRequired }
func (SignInExpiring) eventType() string  { return TypeSignInExpiring }
func (CheckIncomplete) eventType() string { return TypeCheckIncomplete }
func (CheckRecovered) eventType() string  { return TypeCheckRecovered }
func (Switched) eventType() string        { return TypeSwitched }
func (SwitchLate) eventType() string      { return TypeSwitchLate }
func (SwitchFailed) eventType() string    { return TypeSwitchFailed }
func (Delivered) eventType() string       { return TypeDelivered }
func (DeliveryFailed) eventType() string  { return TypeDeliveryFailed }
func (Postponed) eventType() string       { return TypePostponed }

func (d Rotated) where() (string, string)         { return d.Organization, d.Identity }
func (d Revoked) where() (string, string)         { return d.Organization, d.Identity }
func (d RotationFailed) where() (string, string)  { return d.Organization, d.Identity }
func (d Expiring) where() (string, string)        { return d.Organization, d.Identity }
func (d SignedIn) where() (string, string)        { return "", d.Identity }
func (d SignInRequired) where() (string, string)  { return "", d.Identity }
func (d SignInExpiring) where() (string, string)  { return "", d.Identity }
func (d CheckIncomplete) where() (string, string) { return d.Organization, d.Identity }
func (d CheckRecovered) where() (string, string)  { return d.Organization, d.Identity }
func (r Replacement) where() (string, string)     { return r.Organization, r.Identity }
func (d Postponed) where() (string, string)       { return d.Organization, d.Identity }

func (d Rotated) check() error {
	return need("pat", d.PAT, "rotationId", d.RotationID, "secret.id", d.Secret.ID,
		"secret.version", d.Secret.Version, "authorizationId", d.AuthorizationID)
}
func (d Revoked) check() error         { return need("pat", d.PAT, "authorizationId", d.AuthorizationID) }
func (d RotationFailed) check() error  { return need("pat", d.PAT, "step", d.Step) }
func (d Expiring) check() error        { return need("authorizationId", d.AuthorizationID) }
func (d SignedIn) check() error        { return need("identity", d.Identity) }
func (d SignInRequired) check() error  { return need("identity", d.Identity) }
func (d SignInExpiring) check() error  { return need("identity", d.Identity) }
func (d CheckIncomplete) check() error { return need("scope", d.Scope) }
func (d CheckRecovered) check() error  { return need("scope", d.Scope) }
func (r Replacement) check() error     { return need("pat", r.PAT, "secretVersion", r.SecretVersion) }
func (d Delivered) check() error       { return d.Replacement.check() }
func (d DeliveryFailed) check() error  { return d.Replacement.check() }
func (d Postponed) check() error       { return need("pat", d.PAT) }

func (d Rotated) valid() error {
	return first(
		need("pat", d.PAT, "rotationId", d.RotationID, "secret.id", d.Secret.ID, "secret.name", d.Secret.Name,
			"secret.version", d.Secret.Version, "authorizationId", d.AuthorizationID),
		d.Previous.valid(),
		uri("secret.id", d.Secret.ID))
}

func (p *Previous) valid() error {
	if p == nil {
		return nil
	}
	return need("previous.version", p.Version) // who it was may not be known: patrol did not make it
}

func (d Revoked) valid() error {
	return need("pat", d.PAT, "authorizationId", d.AuthorizationID, "cause", d.Cause)
}
func (d RotationFailed) valid() error { return need("pat", d.PAT, "step", d.Step, "class", d.Class) }
func (d Expiring) valid() error       { return d.check() }
func (d SignedIn) valid() error       { return d.check() }
func (d SignInRequired) valid() error { return first(d.check(), reference("signInUrl", d.SignInURL)) }
func (d SignInExpiring) valid() error { return first(d.check(), reference("signInUrl", d.SignInURL)) }
func (d CheckIncomplete) valid() error {
	return need("scope", d.Scope, "class", d.Class)
}
func (d CheckRecovered) valid() error { return d.check() }

func (r Replacement) valid() error {
	return need("pat", r.PAT, "rotationId", r.RotationID, "secretVersion", r.SecretVersion,
		"authorizationId", r.AuthorizationID)
}
func (d Destination) valid() error { return need("destination", d.Name, "kind", d.Kind) }

func validStates(states []ConsumerState) error {
	for _, s := range states {
		err := need("consumers.name", s.Name, "consumers.state", s.State)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d Switched) valid() error {
	return first(d.Replacement.valid(), validStates(d.Consumers), d.Previous.valid())
}
func (d SwitchLate) valid() error {
	return first(d.Replacement.valid(), validStates(d.Consumers), d.Previous.valid(), need("next.what", d.Next.What))
}
func (d SwitchFailed) valid() error {
	return first(d.Replacement.valid(), need("consumer", d.Consumer))
}
func (d Delivered) valid() error { return first(d.Replacement.valid(), d.Destination.valid()) }
func (d DeliveryFailed) valid() error {
	return first(d.Replacement.valid(), d.Destination.valid(), need("class", d.Class))
}
func (d Postponed) valid() error {
	return need("pat", d.PAT, "authorizationId", d.AuthorizationID, "reason", d.Reason)
}

func (d Rotated) utc() any {
	d.ValidFrom, d.ValidTo, d.Previous = d.ValidFrom.UTC(), d.ValidTo.UTC(), d.Previous.utc()
	d.Scopes = listed(d.Scopes)
	return d
}
func (p *Previous) utc() *Previous {
	if p == nil {
		return nil
	}
	out := *p
	out.RevokeAt, out.RevokeAtLatest = p.RevokeAt.UTC(), utcPointer(p.RevokeAtLatest)
	return &out
}
func (d Revoked) utc() any { return d }
func (d RotationFailed) utc() any {
	d.RetryAt, d.ValidTo = utcPointer(d.RetryAt), utcPointer(d.ValidTo)
	return d
}
func (d Expiring) utc() any {
	d.ValidTo = d.ValidTo.UTC()
	return d
}
func (d SignedIn) utc() any       { return d }
func (d SignInRequired) utc() any { return d }
func (d SignInExpiring) utc() any {
	d.Until = d.Until.UTC()
	return d
}
func (d CheckIncomplete) utc() any {
	d.Since, d.NextEnd = d.Since.UTC(), utcPointer(d.NextEnd)
	return d
}
func (d CheckRecovered) utc() any {
	d.Since, d.NextEnd = d.Since.UTC(), utcPointer(d.NextEnd)
	return d
}

func utcStates(states []ConsumerState) []ConsumerState {
	out := listed(slices.Clone(states))
	for i := range out {
		out[i].At = utcPointer(out[i].At)
	}
	return out
}
func (d Switched) utc() any {
	d.Consumers, d.Previous = utcStates(d.Consumers), d.Previous.utc()
	return d
}
func (d SwitchLate) utc() any {
	d.Consumers, d.Missing, d.Previous = utcStates(d.Consumers), listed(d.Missing), d.Previous.utc()
	d.Next.At = d.Next.At.UTC()
	return d
}
func (d SwitchFailed) utc() any { return d }
func (d Delivered) utc() any    { return d }
func (d DeliveryFailed) utc() any {
	d.RetryAt = utcPointer(d.RetryAt)
	return d
}
func (d Postponed) utc() any {
	d.Until, d.ValidTo = utcPointer(d.Until), d.ValidTo.UTC()
	return d
}

func utcPointer(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return TimeOrNull(*t)
}

// listed is a list that is written as [] and not as null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// decoderOf gives the data decoder of one event type, nil for an unknown one.
func decoderOf(eventType string) func([]byte) (any, error) { return decoders[eventType] }

var decoders = map[string]func([]byte) (any, error){
	TypeRotated:         decodeAs[Rotated],
	TypeRevoked:         decodeAs[Revoked],
	TypeRotationFailed:  decodeAs[RotationFailed],
	TypeExpiring:        decodeAs[Expiring],
	TypeSignedIn:        decodeAs[SignedIn],
	TypeSignInRequired:  decodeAs[SignInRequired],
	TypeSignInExpiring:  decodeAs[SignInExpiring],
	TypeCheckIncomplete: decodeAs[CheckIncomplete],
	TypeCheckRecovered:  decodeAs[CheckRecovered],
	TypeSwitched:        decodeAs[Switched],
	TypeSwitchLate:      decodeAs[SwitchLate],
	TypeSwitchFailed:    decodeAs[SwitchFailed],
	TypeDelivered:       decodeAs[Delivered],
	TypeDeliveryFailed:  decodeAs[DeliveryFailed],
	TypePostponed:       decodeAs[Postponed],
	TypeConfirmed:       decodeAs[Confirmed],
}

func decodeAs[T payload](raw []byte) (any, error) {
	var d T
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return d.utc(), nil
}
