package bus

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxID is Service Bus's limit for message ids and session ids.
	maxID = 128
	// MaxCommand is how large a command's body may be, in bytes.
	MaxCommand = 64 << 10
	// maxText bounds a command's free text.
	maxText = 512
)

// ErrNotACommand says that a message on the command queue is none.
var ErrNotACommand = errors.New("not a command")

// command is a command's JSON.
type command struct {
	Command        string `json:"command"`
	PAT            string `json:"pat"`
	Reason         string `json:"reason"`
	From           string `json:"from,omitempty"`
	RevokePrevious string `json:"revokePrevious,omitempty"`
	RequestedBy    string `json:"requestedBy,omitempty"`
	Attempt        int    `json:"attempt"`
	Operation      string `json:"operation,omitempty"`

	Since            string      `json:"since,omitempty"` // RFC 3339
	Prove            bool        `json:"prove,omitempty"`
	AcceptMassChange *acceptance `json:"acceptMassChange,omitempty"`

	// Of the command "confirm".
	Confirmation *confirmation `json:"confirmation,omitempty"`
}

// confirmation is what a consumer, or a person, says of a switch-over.
type confirmation struct {
	SecretVersion string `json:"secretVersion"`
	Consumer      string `json:"consumer,omitempty"`
	Outcome       string `json:"outcome,omitempty"`
	Message       string `json:"message,omitempty"`
	Proof         string `json:"proof,omitempty"`
	Ruling        string `json:"ruling,omitempty"`
}

// acceptance is a person's word that a mass change is meant.
type acceptance struct {
	PATs  int    `json:"pats"`
	Until string `json:"until"` // RFC 3339
}

const (
	reconcile = "reconcile"
	confirm   = "confirm"
)

func encodeCommand(c rotation.Command) (*azservicebus.Message, error) {
	wire := command{
		Command: reconcile, PAT: c.PAT, Reason: string(c.Reason), From: c.From,
		RevokePrevious: string(c.RevokePrevious),
		RequestedBy:    c.RequestedBy, Attempt: c.Attempt, Operation: c.Operation, Prove: c.Prove,
	}
	if !c.Since.IsZero() {
		wire.Since = c.Since.UTC().Format(time.RFC3339Nano)
	}
	if a := c.Accepted; a.PATs > 0 && !a.Until.IsZero() {
		wire.AcceptMassChange = &acceptance{PATs: a.PATs, Until: a.Until.UTC().Format(time.RFC3339Nano)}
	}
	if x := c.Confirmation; x != nil {
		wire.Command = confirm
		wire.Confirmation = &confirmation{SecretVersion: x.SecretVersion, Consumer: x.Consumer,
			Outcome: string(x.Outcome), Message: x.Message, Proof: x.Proof, Ruling: string(x.Ruling)}
	}
	body, err := json.Marshal(wire)
	if err != nil {
		return nil, fmt.Errorf("encoding a command: %w", err)
	}
	return &azservicebus.Message{
		Body:        body,
		ContentType: new("application/json"),
		MessageID:   new(MessageID(c)),
		SessionID:   new(c.PAT),
		Subject:     new(wire.Command),
	}, nil
}

// MessageID is what duplicate detection compares: the same order of the same sweep or
// operation, at the same attempt. Of two sweeps in one minute the second may be the one
// that carries a person's word: its commands are not repeats of the first one's.
func MessageID(c rotation.Command) string {
	parts := []string{c.PAT, string(c.Reason), c.From, strconv.Itoa(c.Attempt), c.Operation}
	if c.Accepted.PATs > 0 {
		parts = append(parts, "accepted", strconv.Itoa(c.Accepted.PATs))
	}
	if c.Confirmation != nil {
		parts = append(parts, confirm, confirmationHash(*c.Confirmation))
	}
	return short(strings.Join(parts, "/"))
}

// confirmationHash covers the whole confirmation, its proof included: a forged one must
// not shut out the right one.
func confirmationHash(c rotation.Confirmation) string {
	h := sha256.New()
	for _, part := range []string{c.SecretVersion, c.Consumer, string(c.Outcome), c.Message, c.Proof,
		string(c.Ruling)} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))[:40]
}

// short keeps an id within the broker's limit.
func short(id string) string {
	if len(id) <= maxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// DecodeCommand reads a message of the command queue. Its error, an ErrNotACommand,
// says what is wrong without quoting the message.
func DecodeCommand(body []byte) (rotation.Command, error) {
	var c command
	if len(body) > MaxCommand {
		return rotation.Command{}, fmt.Errorf("%w: it has %d bytes, and %d are permitted", ErrNotACommand, len(body),
			MaxCommand)
	}
	if !utf8.Valid(body) {
		return rotation.Command{}, fmt.Errorf("%w: it is not UTF-8", ErrNotACommand)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&c); err != nil {
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
			return rotation.Command{}, fmt.Errorf("%w: %q must be a %s", ErrNotACommand, e.Field, e.Type)
		}
		return rotation.Command{}, fmt.Errorf("%w: it is not a JSON object", ErrNotACommand)
	}
	if dec.More() {
		return rotation.Command{}, fmt.Errorf("%w: something follows the JSON object", ErrNotACommand)
	}
	return c.read()
}

func wrong(field, want string) error {
	return fmt.Errorf("%w: %q must be %s", ErrNotACommand, field, want)
}

// read gives the domain's command, and refuses what no command has.
func (c command) read() (rotation.Command, error) {
	out := rotation.Command{PAT: c.PAT, Reason: rotation.Reason(c.Reason), From: c.From,
		RevokePrevious: rotation.RevokePrevious(c.RevokePrevious), RequestedBy: c.RequestedBy, Attempt: c.Attempt,
		Operation: c.Operation, Prove: c.Prove}
	isLong := len(c.From) > maxID || len(c.RequestedBy) > maxText || len(c.Operation) > maxText
	switch {
	case c.Command != reconcile && c.Command != confirm:
		return rotation.Command{}, wrong("command", `"reconcile" or "confirm"`)
	case (c.Command == confirm) != (c.Confirmation != nil):
		return rotation.Command{}, wrong("confirmation", `there with "confirm", and nowhere else`)
	case c.PAT == "" || len(c.PAT) > 127:
		return rotation.Command{}, wrong("pat", "the name of a PAT")
	case c.Attempt < 0 || c.Attempt > 1000:
		return rotation.Command{}, wrong("attempt", "from 0 to 1000")
	case isLong:
		return rotation.Command{}, fmt.Errorf("%w: a field is too long", ErrNotACommand)
	}
	switch out.Reason {
	case rotation.Provision, rotation.Expiring, rotation.Requested, rotation.Compromised, rotation.Drift,
		rotation.Check:
	case "":
		out.Reason = rotation.Check
	default:
		return rotation.Command{}, wrong("reason", "provision, expiring, requested, compromised, drift or look")
	}
	switch out.RevokePrevious {
	case rotation.AfterOverlap, rotation.Now:
	case "":
		out.RevokePrevious = rotation.AfterOverlap
	default:
		return rotation.Command{}, wrong("revokePrevious", `"overlap" or "now"`)
	}
	if x := c.Confirmation; x != nil {
		read, err := x.read()
		if err != nil {
			return rotation.Command{}, err
		}
		out.Confirmation = &read
	}
	if c.Since != "" {
		since, ok := readTime(c.Since)
		if !ok {
			return rotation.Command{}, wrong("since", "a time of RFC 3339")
		}
		out.Since = since
	}
	if a := c.AcceptMassChange; a != nil {
		if a.PATs < 1 {
			return rotation.Command{}, wrong("acceptMassChange.pats", "1 or more")
		}
		until, ok := readTime(a.Until)
		if !ok {
			return rotation.Command{}, wrong("acceptMassChange.until", "a time of RFC 3339")
		}
		out.Accepted = rotation.MassChange{PATs: a.PATs, Until: until}
	}
	return out, nil
}

// read gives the domain's confirmation.
func (c confirmation) read() (rotation.Confirmation, error) {
	out := rotation.Confirmation{SecretVersion: c.SecretVersion, Consumer: c.Consumer,
		Outcome: rotation.Outcome(c.Outcome), Message: c.Message, Proof: c.Proof, Ruling: rotation.Ruling(c.Ruling)}
	isOutcome := out.Outcome == rotation.HasSwitched || out.Outcome == rotation.SwitchFailed
	isWord := isOutcome && c.Ruling == "" && c.Proof != ""
	isAboutAll := out.Ruling == rotation.Release || out.Ruling == rotation.Hold
	isRuling := c.Outcome == "" && (isAboutAll || out.Ruling == rotation.ConfirmByHand)
	isLong := len(c.Message) > 4*maxText || len(c.Proof) > maxText
	switch {
	case c.SecretVersion == "" || len(c.SecretVersion) > maxID:
		return out, wrong("confirmation.secretVersion", "a version of the secret")
	case !isWord && !isRuling:
		return out, wrong("confirmation", "a consumer's outcome with its proof, or a ruling: release, hold or confirm")
	case !isAboutAll && !rotation.IsConsumerName(c.Consumer):
		return out, wrong("confirmation.consumer", "the name of a consumer")
	case isLong:
		return out, fmt.Errorf("%w: a field of the confirmation is too long", ErrNotACommand)
	}
	return out, nil
}

// readTime reads a time that is not the zero one: a command leaves that out.
func readTime(text string) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, text)
	return at.UTC(), err == nil && !at.IsZero()
}

// encodeEvent makes a CloudEvent's message.
func encodeEvent(e rotation.Event, vaultHost, traceParent string) (*azservicebus.Message, error) {
	ev := cloudEvent(e, events.Source(vaultHost))
	ev.TraceParent = traceParent
	body, err := events.Encode(ev)
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return &azservicebus.Message{
		Body:                  body,
		ContentType:           new(events.ContentType),
		MessageID:             new(ev.MessageID()),
		Subject:               new(ev.Type),
		SessionID:             new(ev.SessionID()),
		ApplicationProperties: ev.Properties(),
	}, nil
}

// cloudEvent maps the domain's events onto the public ones.
func cloudEvent(e rotation.Event, source string) events.Event {
	switch e := e.(type) {
	case *rotation.Rotated:
		d := events.Rotated{
			PAT: e.Spec.Name, Organization: e.Spec.Organization, Identity: e.Spec.Identity,
			DisplayName: e.Spec.DisplayName,
			Scopes:      e.Spec.Scopes, RotationID: e.RotationID, Reason: string(e.Reason),
			Secret:          events.SecretRef{ID: e.SecretID, Name: e.Spec.Name, Version: e.SecretVersion},
			AuthorizationID: e.AuthorizationID, ValidFrom: e.ValidFrom.UTC(), ValidTo: e.ValidTo.UTC(),
		}
		if p := e.Previous; p != nil {
			d.Previous = previous(p)
		}
		return events.NewRotated(source, e.At.UTC(), d)
	case *rotation.Revoked:
		return events.NewRevoked(source, e.At.UTC(), events.Revoked{
			PAT: e.Spec.Name, Organization: e.Spec.Organization, Identity: e.Spec.Identity, RotationID: e.RotationID,
			AuthorizationID: e.AuthorizationID, SecretVersion: e.SecretVersion, Cause: string(e.Cause),
		})
	case *rotation.RotationFailed:
		d := events.RotationFailed{
			PAT: e.Spec.Name, Organization: e.Spec.Organization, Identity: e.Spec.Identity, RotationID: e.RotationID,
			Step: string(e.Step), Class: string(e.Class), Code: e.Code, Message: e.Message,
			RetryAt: events.TimeOrNull(e.RetryAt), ValidTo: events.TimeOrNull(e.ValidTo),
		}
		if e.Mark != (rotation.MessageMark{}) {
			return events.NewMessageFailed(source, e.At.UTC(), e.Mark.Queue, e.Mark.SequenceNumber, d)
		}
		return events.NewRotationFailed(source, e.At.UTC(), d)
	case *rotation.ExpiringPAT:
		return events.NewExpiring(source, e.At.UTC(), e.Days, events.Expiring{
			DisplayName: e.PAT.DisplayName, Organization: e.Owner.Organization, Identity: e.Owner.Identity,
			AuthorizationID: e.PAT.AuthorizationID, ValidTo: e.PAT.ValidTo.UTC(),
		})
	case *rotation.SwitchedOver:
		return events.NewSwitched(source, e.At.UTC(), events.Switched{Replacement: replacement(e.Switching),
			Consumers: consumers(e.Consumers), Previous: previous(e.Previous)})
	case *rotation.SwitchLate:
		return events.NewSwitchLate(source, e.At.UTC(), events.SwitchLate{Replacement: replacement(e.Switching),
			Consumers: consumers(e.Consumers), Missing: e.Missing, Previous: previous(e.Previous),
			Next: events.Next{What: e.Next(), At: e.EndsAt.UTC()}})
	case *rotation.SwitchRefused:
		return events.NewSwitchFailed(source, e.At.UTC(), events.SwitchFailed{Replacement: replacement(e.Switching),
			Consumer: e.Consumer.Name, Required: e.Consumer.Required, Message: e.Message})
	case *rotation.PostponedPAT:
		return events.NewPostponed(source, e.At.UTC(), events.Postponed{
			PAT: e.Spec.Name, Organization: e.Spec.Organization, Identity: e.Spec.Identity,
			AuthorizationID: e.AuthorizationID, Reason: e.Reason, Until: events.TimeOrNull(e.Until),
			ValidTo: e.ValidTo.UTC(),
		})
	case *rotation.SignedIn:
		return events.NewSignedIn(source, e.At.UTC(), events.SignedIn{Identity: e.Identity, User: e.User})
	case *rotation.SignInRequired:
		return events.NewSignInRequired(source, e.At.UTC(), events.SignInRequired{
			Identity: e.Identity, User: e.User, Code: e.Code, SignInURL: e.SignInURL,
		})
	case *rotation.SignInExpiring:
		return events.NewSignInExpiring(source, e.At.UTC(), events.SignInExpiring{
			Identity: e.Identity, User: e.User, Code: e.Code, SignInURL: e.SignInURL, Until: e.Until.UTC(),
		})
	case *rotation.CheckIncomplete:
		return events.NewCheckIncomplete(source, e.At.UTC(), events.CheckIncomplete{
			Scope: string(e.Scope), Identity: e.Identity, Organization: e.Organization, Class: string(e.Class),
			Code: e.Code, Message: e.Message, Since: e.Since.UTC(), PATs: e.PATs, NextEnd: events.TimeOrNull(e.NextEnd),
		})
	case *rotation.CheckRecovered:
		return events.NewCheckRecovered(source, e.At.UTC(), events.CheckRecovered{
			Scope: string(e.Scope), Identity: e.Identity, Organization: e.Organization, Code: e.Code,
			Since: e.Since.UTC(), PATs: e.PATs, NextEnd: events.TimeOrNull(e.NextEnd),
			Lasted: int64(max(0, e.At.Sub(e.Since)) / time.Second),
		})
	}
	// the interface is sealed: a new event without its mapping is a fault here
	panic(fmt.Sprintf("no CloudEvent for %T", e))
}

// DecodeConfirmation reads a message of the confirmation queue as the command that brings
// it into the PAT's session. Its error says what is wrong without quoting the message.
func DecodeConfirmation(body []byte) (rotation.Command, error) {
	d, err := events.DecodeConfirmation(body)
	if err != nil {
		return rotation.Command{}, err
	}
	return rotation.Command{PAT: d.PAT, Reason: rotation.Check, RequestedBy: "patrol",
		Confirmation: &rotation.Confirmation{SecretVersion: d.SecretVersion, Consumer: d.Consumer,
			Outcome: rotation.Outcome(d.Outcome), Message: d.Message, Proof: d.Proof}}, nil
}

func previous(p *rotation.Replaced) *events.Previous {
	if p == nil {
		return nil
	}
	return &events.Previous{Version: p.Version, AuthorizationID: p.AuthorizationID, RevokeAt: p.RevokeAt.UTC(),
		RevokeAtLatest: events.TimeOrNull(p.RevokeAtLatest)}
}

func replacement(s rotation.Switching) events.Replacement {
	return events.Replacement{PAT: s.Spec.Name, Organization: s.Spec.Organization, Identity: s.Spec.Identity,
		RotationID: s.Version.Ledger.RotationID, SecretVersion: s.Version.ID,
		AuthorizationID: s.Version.Ledger.AuthorizationID}
}

func consumers(states []rotation.ConsumerState) []events.ConsumerState {
	out := make([]events.ConsumerState, len(states))
	for i, s := range states {
		out[i] = events.ConsumerState{Name: s.Name, Required: s.Required, State: string(s.State),
			At: events.TimeOrNull(s.At)}
	}
	return out
}
