package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"time"
)

// ContentType is the media type of an encoded event.
const ContentType = "application/cloudevents+json"

// MaxSize is the longest event, in bytes, that Decode reads. patrol's own
// events stay under 16 KiB.
const MaxSize = 1 << 20

const (
	specVersion     = "1.0"
	dataContentType = "application/json"
)

var (
	// ErrMalformed: the bytes are not a CloudEvent 1.0 in structured JSON. It
	// will not get better by trying again.
	ErrMalformed = errors.New("not a CloudEvents 1.0 event")
	// ErrData: the envelope is good, and the data does not fit the event's type.
	ErrData = errors.New("event data does not fit its type")
)

// Event is one CloudEvent.
type Event struct {
	// ID is the same for every copy of one event, however often and by
	// whomever it is sent. Unique within Source.
	ID string
	// Source is "/patrol/<host of the key vault>": one deployment of patrol.
	Source string
	// Type is one of the Type constants, or a type of a later version.
	Type string
	// Subject is the PAT's name; for identity events the identity's name, for
	// an unmanaged PAT its authorization id, for a check its scope.
	Subject string
	// Time is when it happened, in UTC.
	Time time.Time
	// DataSchema is the address of the data's schema, with its version. Encode sets it
	// for the types that this package knows.
	DataSchema string
	// TraceParent is the W3C trace context in which the event was sent
	// (CloudEvents' distributed tracing extension); empty if none was recorded.
	// Copies of one event may differ in it.
	TraceParent string
	// Data is a Rotated, Revoked, RotationFailed, Expiring, SignedIn, SignInRequired,
	// SignInExpiring, CheckIncomplete, CheckRecovered, Switched, SwitchLate,
	// SwitchFailed, Delivered, DeliveryFailed, Postponed or Confirmed (values, not
	// pointers), or a json.RawMessage where Type is none that this package knows.
	Data any
}

// wire is the envelope in the order in which people like to read it.
type wire struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            string          `json:"time,omitempty"`
	DataContentType string          `json:"datacontenttype,omitempty"`
	DataSchema      string          `json:"dataschema,omitempty"`
	TraceParent     string          `json:"traceparent,omitempty"`
	Data            json.RawMessage `json:"data,omitempty"`
}

// Encode writes e as structured JSON. Type may be empty: the data knows its own.
func Encode(e Event) ([]byte, error) {
	data := e.Data
	switch d := data.(type) {
	case payload:
		if e.Type == "" {
			e.Type = d.eventType()
		}
		if e.Type != d.eventType() {
			return nil, fmt.Errorf("encoding event %q: type is %q, but the data is of %q", e.ID, e.Type, d.eventType())
		}
		if err := d.valid(); err != nil {
			return nil, fmt.Errorf("encoding event %q: %w: %w", e.ID, ErrData, err)
		}
		data = d.utc()
		e.DataSchema = DataSchemaURI(e.Type)
	case json.RawMessage:
		if decoderOf(e.Type) != nil {
			return nil, fmt.Errorf("encoding event %q: data of %q must be its Go type", e.ID, e.Type)
		}
	default:
		return nil, fmt.Errorf("encoding event %q: no event has data of type %T", e.ID, e.Data)
	}
	for _, a := range []struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject},
	} {
		if a.value == "" {
			return nil, fmt.Errorf("encoding event %q: %s is empty", e.ID, a.name)
		}
	}
	if e.Time.IsZero() {
		return nil, fmt.Errorf("encoding event %q: time is not set", e.ID)
	}
	if _, err := url.Parse(e.Source); err != nil {
		return nil, fmt.Errorf("encoding event %q: source is not a URI reference", e.ID)
	}
	if e.DataSchema != "" && !isURI(e.DataSchema) {
		return nil, fmt.Errorf("encoding event %q: dataschema is not a URI", e.ID)
	}
	raw, err := marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encoding data of event %q: %w", e.ID, err)
	}
	b, err := marshal(wire{
		SpecVersion: specVersion, ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject,
		Time: e.Time.UTC().Format(time.RFC3339Nano), DataContentType: dataContentType, DataSchema: e.DataSchema,
		TraceParent: traceParent(e.TraceParent), Data: raw,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding event %q: %w", e.ID, err)
	}
	return b, nil
}

// marshal leaves & < > as they are: URLs in events are for people, too.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads one event. Errors are ErrMalformed or ErrData, and say which
// attribute is wrong; neither quotes the event.
func Decode(b []byte) (Event, error) {
	if len(b) > MaxSize {
		return Event{}, malformed("%d bytes, more than %d", len(b), MaxSize)
	}
	// A map, not a struct: attribute names are case-sensitive, and
	// encoding/json would take "ID" for "id".
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(b, &attributes); err != nil {
		return Event{}, malformed("%s", jsonError(err))
	}
	if attributes == nil {
		return Event{}, malformed("null")
	}
	var e Event
	var version, at, contentType string
	for _, a := range []struct {
		name     string
		to       *string
		required bool
	}{
		{"specversion", &version, true},
		{"id", &e.ID, true},
		{"source", &e.Source, true},
		{"type", &e.Type, true},
		{"subject", &e.Subject, false},
		{"time", &at, false},
		{"datacontenttype", &contentType, false},
		{"dataschema", &e.DataSchema, false},
	} {
		raw, ok := attributes[a.name]
		if ok {
			if err := json.Unmarshal(raw, a.to); err != nil {
				return Event{}, malformed("%s is not a string", a.name)
			}
		}
		if a.required && *a.to == "" {
			return Event{}, malformed("%s is missing", a.name)
		}
	}
	if version != specVersion {
		return Event{}, malformed("specversion is not %s", specVersion)
	}
	if at != "" {
		t, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return Event{}, malformed("time is not an RFC 3339 time")
		}
		e.Time = t.UTC()
	}
	// An event is not refused for what somebody on its way made of this.
	var parent string
	if json.Unmarshal(attributes["traceparent"], &parent) == nil {
		e.TraceParent = traceParent(parent)
	}
	raw := attributes["data"]
	decode := decoderOf(e.Type)
	if decode == nil {
		e.Data = raw
		return e, nil
	}
	if contentType != "" && !isJSON(contentType) {
		return Event{}, malformed("datacontenttype of %s is not JSON", e.Type)
	}
	if raw == nil {
		return Event{}, fmt.Errorf("%w: %s without data", ErrData, e.Type)
	}
	d, err := decode(raw)
	if err != nil {
		return Event{}, fmt.Errorf("%w: %s: %s", ErrData, e.Type, jsonError(err))
	}
	e.Data = d
	return e, nil
}

// traceParent is v if it has the form of a W3C trace context, or else empty.
func traceParent(v string) string {
	if len(v) < 55 || len(v) > 64 || strings.Trim(v, "0123456789abcdef-") != "" {
		return ""
	}
	return v
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// jsonError says what is wrong without quoting the input.
func jsonError(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("broken JSON at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return "not a JSON object"
		}
		return fmt.Sprintf("%s has the wrong JSON type", e.Field)
	}
	if e, ok := errors.AsType[*time.ParseError](err); ok && e != nil {
		return "a time is not in RFC 3339"
	}
	if e, ok := errors.AsType[fieldsError](err); ok {
		return e.Error()
	}
	return "broken JSON"
}

func isJSON(contentType string) bool {
	m, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return m == "application/json" || m == "text/json" || strings.HasSuffix(m, "+json")
}
