package customhandler

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// errEnvelope: the invocation is not what the host sends.
var errEnvelope = errors.New("unreadable invocation")

// maxDepth of an envelope's JSON. Application properties are flat, so the host
// itself stays below ten.
const maxDepth = 64

// Timer is the payload of a timer trigger.
type Timer struct {
	// Status is nil if the host does not monitor the schedule (more often than
	// once a minute).
	Status *ScheduleStatus
}

// ScheduleStatus is when a timer ran and runs. Last is zero on the first run ever.
type ScheduleStatus struct {
	Last, Next time.Time
}

// Message is a Service Bus message as the host has received it.
//
// If its body is JSON and came as text, the host has copied the body's properties
// over the broker's metadata: {"messageId":"x","deliveryCount":0} changes both.
// So what the broker says counts only when the body came as binary, where the
// host looks into no body. Otherwise Trusted is false and everything but Body is
// empty.
type Message struct {
	Body    []byte
	Trusted bool

	MessageID     string // the sender's; the .NET client's messages have none
	SessionID     string
	DeliveryCount int // 1 on the first delivery
	// SequenceNumber is the broker's own: no other message of the queue has it.
	SequenceNumber int64
	EnqueuedTime   time.Time // of a scheduled message: when its time had come
	// ApplicationProperties are the sender's: strings, bools, int64, float64.
	ApplicationProperties map[string]any
	// DeadLetterReason is on messages of a dead-letter queue.
	DeadLetterReason string
}

// envelope is the request's body. Its Metadata is only decoded for what patrol
// reads; other keys are skipped without cost.
type envelope struct {
	Data     map[string]json.RawMessage
	Metadata metadata
}

// metadata of a message. Each value reads what it can and never fails: a message
// must not go to the dead-letter queue for a date that patrol only logs.
type metadata struct {
	MessageID             text `json:"MessageId"`
	SessionID             text `json:"SessionId"`
	DeliveryCount         integer
	SequenceNumber        integer
	EnqueuedTime          moment
	EnqueuedTimeUtc       moment
	ApplicationProperties properties
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errEnvelope, fmt.Sprintf(format, args...))
}

// unmarshal is json.Unmarshal with a limit on depth and without the input in its
// errors.
func unmarshal(b []byte, v any) error {
	if tooDeep(b) {
		return broken("JSON is nested more than %d deep", maxDepth)
	}
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return broken("broken JSON at byte %d of %d", e.Offset, len(b))
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return broken("%s has the wrong JSON type", strings.SplitN(e.Field, ".", 2)[0])
	}
	return broken("not a JSON object")
}

func tooDeep(b []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case inString:
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
			if depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// trigger is the one value of Data. It has the name of the binding in
// function.json, which does not matter here.
func trigger(data map[string]json.RawMessage) (json.RawMessage, error) {
	if len(data) != 1 {
		return nil, broken("Data has %d values, not one", len(data))
	}
	for _, raw := range data {
		return raw, nil
	}
	return nil, nil
}

func decodeTimer(b []byte) (Timer, error) {
	var e struct{ Data map[string]json.RawMessage }
	if err := unmarshal(b, &e); err != nil {
		return Timer{}, err
	}
	raw, err := trigger(e.Data)
	if err != nil {
		return Timer{}, err
	}
	var wire struct {
		ScheduleStatus *struct{ Last, Next moment }
	}
	inner, _ := unwrap(raw)
	if err := unmarshal(inner, &wire); err != nil {
		return Timer{}, err
	}
	if wire.ScheduleStatus == nil {
		return Timer{}, nil
	}
	return Timer{Status: &ScheduleStatus{Last: wire.ScheduleStatus.Last.Time, Next: wire.ScheduleStatus.Next.Time}}, nil
}

func decodeMessage(b []byte) (Message, error) {
	var e envelope
	if err := unmarshal(b, &e); err != nil {
		return Message{}, err
	}
	raw, err := trigger(e.Data)
	if err != nil {
		return Message{}, err
	}
	inner, wasString := unwrap(raw)
	switch {
	case !wasString && string(inner) == "null":
		return Message{}, broken("the message is null")
	case len(inner) > 0 && inner[0] == '[':
		// The text of one message would be a JSON string literal here.
		return Message{}, broken("this is a batch of messages: set cardinality one in function.json")
	case !wasString:
		return Message{Body: bytes.Clone(inner)}, nil
	}
	// The whole proof that the body came as binary: text would be a JSON string
	// literal here. And a JSON object, the only kind of body that enters the
	// metadata, is never base64.
	if body, ok := decodeBase64(inner); ok {
		m := e.Metadata.message()
		m.Body, m.Trusted = body, true
		return m, nil
	}
	if body, ok := unquote(inner); ok {
		return Message{Body: body}, nil
	}
	return Message{Body: bytes.Clone(inner)}, nil
}

func decodeBase64(b []byte) ([]byte, bool) {
	body := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Strict().Decode(body, b)
	if err != nil || bytes.ContainsAny(b, "\r\n") {
		return nil, false
	}
	return body[:n], true
}

func (d *metadata) message() Message {
	m := Message{
		MessageID: string(d.MessageID), SessionID: string(d.SessionID), DeliveryCount: int(d.DeliveryCount),
		SequenceNumber: int64(d.SequenceNumber),
		EnqueuedTime:   d.EnqueuedTime.or(d.EnqueuedTimeUtc), ApplicationProperties: d.ApplicationProperties,
	}
	m.DeadLetterReason, _ = m.ApplicationProperties["DeadLetterReason"].(string)
	return m
}

// The host prints most values as JSON and puts that text into a JSON string once
// more: "text" arrives as "\"text\"", 3 as "3". Dates and binary are strings only
// once, objects not at all. So: unwrap one string if there is one, and then look.

// unwrap takes off one layer of JSON string.
func unwrap(raw []byte) (inner []byte, wasString bool) {
	if s, ok := unquote(raw); ok {
		return bytes.TrimSpace(s), true
	}
	return bytes.TrimSpace(raw), false
}

// unquote reads a JSON string. Its result may share memory with raw.
func unquote(raw []byte) ([]byte, bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, false
	}
	inner := raw[1 : len(raw)-1]
	if isPlain(inner) {
		return inner, true
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil, false
	}
	return []byte(s), true
}

// isPlain reports whether b stands in a JSON string as it is: ASCII without escapes.
func isPlain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c >= utf8.RuneSelf {
			return false
		}
		if c == '\\' || c == '"' {
			return false
		}
	}
	return true
}

// scalar is the text of a value that may be encoded once or twice; empty for null,
// objects and arrays.
func scalar(raw []byte) string {
	b := bare(raw)
	if !utf8.Valid(b) {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return string(b)
}

// bare is scalar without a copy: it may share memory with raw.
func bare(raw []byte) []byte {
	// "\"m-1\"", by far the most frequent shape, without a detour.
	if n := len(raw); n >= 6 && string(raw[:3]) == `"\"` && string(raw[n-3:]) == `\""` {
		if inner := raw[3 : n-3]; !bytes.ContainsAny(inner, `\"`) {
			return inner
		}
	}
	inner, wasString := unwrap(raw)
	if wasString {
		if twice, ok := unquote(inner); ok {
			return twice
		}
	}
	switch {
	case string(inner) == "null":
		return nil
	case !wasString && len(inner) > 0 && (inner[0] == '{' || inner[0] == '['):
		return nil
	}
	return inner
}

type text string

func (t *text) UnmarshalJSON(raw []byte) error {
	*t = text(scalar(raw))
	return nil
}

type integer int64

func (i *integer) UnmarshalJSON(raw []byte) error {
	n, err := strconv.ParseInt(string(bare(raw)), 10, 64)
	if err == nil {
		*i = integer(n)
	}
	return nil
}

// moment is a time with or without zone and fraction. Without a zone it is UTC.
type moment struct{ time.Time }

func (m *moment) UnmarshalJSON(raw []byte) error {
	b := bare(raw)
	layout := "2006-01-02T15:04:05" // both take a fraction, too
	if hasZone(b) {
		layout = time.RFC3339
	}
	if t, err := time.Parse(layout, string(b)); err == nil {
		m.Time = t.UTC()
	}
	return nil
}

// hasZone reports whether a date ends in Z or in an offset such as +01:00.
func hasZone(date []byte) bool {
	n := len(date)
	return n > 6 && (date[n-1] == 'Z' || date[n-6] == '+' || date[n-6] == '-')
}

func (m moment) or(other moment) time.Time {
	if m.IsZero() {
		return other.Time
	}
	return m.Time
}

type properties map[string]any

func (p *properties) UnmarshalJSON(raw []byte) error {
	inner, _ := unwrap(raw)
	if string(inner) == "{}" {
		return nil // as for most messages
	}
	dec := json.NewDecoder(bytes.NewReader(inner))
	dec.UseNumber() // a long loses digits as a float64
	var m map[string]any
	if dec.Decode(&m) != nil || len(m) == 0 {
		return nil
	}
	for k, v := range m {
		if n, ok := v.(json.Number); ok {
			m[k] = number(n)
		}
	}
	*p = m
	return nil
}

// number is an int64 where it fits, else a float64, else as it stands.
func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	if f, err := n.Float64(); err == nil {
		return f
	}
	return n
}
