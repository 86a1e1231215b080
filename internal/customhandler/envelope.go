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

// ErrEnvelope: the invocation is not what the host sends.
var ErrEnvelope = errors.New("unreadable invocation")

// maxDepth of an envelope's JSON. Application properties are flat, so the host
// itself stays below ten.
const maxDepth = 64

// Timer is the payload of a timer trigger.
type Timer struct {
	IsPastDue bool
	// AdjustForDST is true for cron expressions.
	AdjustForDST bool
	// Status is nil if the host does not monitor the schedule (more often than
	// once a minute).
	Status *ScheduleStatus
}

// ScheduleStatus is when a timer ran and runs. Last and LastUpdated are zero on
// the first run ever.
type ScheduleStatus struct {
	Last, Next, LastUpdated time.Time
}

// Message is a Service Bus message as the host has received it.
//
// If its body is JSON and came as text, the host has copied the body's properties
// over the broker's metadata: {"messageId":"x","deliveryCount":0} changes both.
// So what the broker says counts only when the body came as binary, where the
// host looks into no body. Otherwise Trusted is false and everything but Body and
// InvocationID is empty.
type Message struct {
	Body    []byte
	Trusted bool

	MessageID      string
	SessionID      string
	DeliveryCount  int // 1 on the first delivery
	SequenceNumber int64
	EnqueuedTime   time.Time
	ExpiresAt      time.Time // 9999-12-31: never
	ContentType    string
	CorrelationID  string
	Subject        string
	LockToken      string
	// ApplicationProperties are the sender's: strings, bools, int64, float64.
	ApplicationProperties map[string]any
	// DeadLetterReason and DeadLetterErrorDescription are on messages of a
	// dead-letter queue.
	DeadLetterReason           string
	DeadLetterErrorDescription string

	InvocationID string
}

// envelope is the request's body. Its Metadata is only decoded for what patrol
// reads; other keys are skipped without cost.
type envelope struct {
	Data     map[string]json.RawMessage
	Metadata metadata
}

// metadata of a single message. Each value reads what it can and never fails:
// a message must not go to the dead-letter queue for a date that patrol only logs.
type metadata struct {
	MessageID             text `json:"MessageId"`
	SessionID             text `json:"SessionId"`
	DeliveryCount         integer
	SequenceNumber        integer
	EnqueuedTime          moment
	EnqueuedTimeUtc       moment
	ExpiresAt             moment
	ExpiresAtUtc          moment
	ContentType           text
	CorrelationID         text `json:"CorrelationId"`
	Subject               text
	LockToken             text
	ApplicationProperties properties
}

// batchMetadata is metadata for cardinality many: each value a JSON array, in the
// order of the messages, wrapped in a string.
type batchMetadata struct {
	MessageIDs            list[text]       `json:"MessageIdArray"`
	SessionIDs            list[text]       `json:"SessionIdArray"`
	DeliveryCounts        list[integer]    `json:"DeliveryCountArray"`
	SequenceNumbers       list[integer]    `json:"SequenceNumberArray"`
	EnqueuedTimes         list[moment]     `json:"EnqueuedTimeArray"`
	EnqueuedTimesUtc      list[moment]     `json:"EnqueuedTimeUtcArray"`
	ExpiresAt             list[moment]     `json:"ExpiresAtArray"`
	ExpiresAtUtc          list[moment]     `json:"ExpiresAtUtcArray"`
	ContentTypes          list[text]       `json:"ContentTypeArray"`
	CorrelationIDs        list[text]       `json:"CorrelationIdArray"`
	Subjects              list[text]       `json:"SubjectArray"`
	LockTokens            list[text]       `json:"LockTokenArray"`
	ApplicationProperties list[properties] `json:"ApplicationPropertiesArray"`
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEnvelope, fmt.Sprintf(format, args...))
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
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// trigger is the one value of Data. It has the name of the binding in
// function.json, which is nobody's business here.
func (e *envelope) trigger() (json.RawMessage, error) {
	if len(e.Data) != 1 {
		return nil, broken("Data has %d values, not one", len(e.Data))
	}
	for _, raw := range e.Data {
		return raw, nil
	}
	return nil, nil
}

func decodeTimer(b []byte) (Timer, error) {
	var e struct{ Data map[string]json.RawMessage }
	if err := unmarshal(b, &e); err != nil {
		return Timer{}, err
	}
	raw, err := (&envelope{Data: e.Data}).trigger()
	if err != nil {
		return Timer{}, err
	}
	var wire struct {
		IsPastDue      bool
		Schedule       struct{ AdjustForDST bool }
		ScheduleStatus *struct{ Last, Next, LastUpdated moment }
	}
	inner, _ := unwrap(raw)
	if err := unmarshal(inner, &wire); err != nil {
		return Timer{}, err
	}
	t := Timer{IsPastDue: wire.IsPastDue, AdjustForDST: wire.Schedule.AdjustForDST}
	if s := wire.ScheduleStatus; s != nil {
		t.Status = &ScheduleStatus{Last: s.Last.Time, Next: s.Next.Time, LastUpdated: s.LastUpdated.Time}
	}
	return t, nil
}

// decodeMessages gives one message for cardinality one, all of the batch for many.
func decodeMessages(b []byte) ([]Message, error) {
	var e envelope
	if err := unmarshal(b, &e); err != nil {
		return nil, err
	}
	raw, err := e.trigger()
	if err != nil {
		return nil, err
	}
	inner, wasString := unwrap(raw)
	switch {
	case bytes.Equal(inner, []byte("null")) && !wasString:
		return nil, broken("the message is null")
	case len(inner) > 0 && inner[0] == '[':
		return decodeBatch(b, inner)
	}
	if wasString {
		// The whole proof that the body came as binary: text would be a JSON
		// string literal here. And a JSON object, the only kind of body that
		// enters the metadata, is never base64.
		if body, ok := decodeBase64(inner); ok {
			m := e.Metadata.message()
			m.Body, m.Trusted = body, true
			return []Message{m}, nil
		}
		if body, ok := unquote(inner); ok {
			return []Message{{Body: body}}, nil
		}
	}
	return []Message{{Body: bytes.Clone(inner)}}, nil
}

func decodeBatch(b, array []byte) ([]Message, error) {
	var bodies []json.RawMessage
	if err := unmarshal(array, &bodies); err != nil {
		return nil, err
	}
	var e struct{ Metadata batchMetadata }
	if err := unmarshal(b, &e); err != nil {
		return nil, err
	}
	messages := make([]Message, len(bodies))
	for i, raw := range bodies {
		s, ok := unquote(raw)
		if !ok {
			return nil, broken("message %d of the batch is not binary: set dataType binary in function.json", i+1)
		}
		body, ok := decodeBase64(s)
		if !ok {
			return nil, broken("message %d of the batch is not base64: set dataType binary in function.json", i+1)
		}
		// Bodies of a batch enter no metadata, so these can be trusted.
		messages[i] = e.Metadata.message(i)
		messages[i].Body, messages[i].Trusted = body, true
	}
	return messages, nil
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
		MessageID: string(d.MessageID), SessionID: string(d.SessionID),
		DeliveryCount: int(d.DeliveryCount), SequenceNumber: int64(d.SequenceNumber),
		EnqueuedTime: d.EnqueuedTime.or(d.EnqueuedTimeUtc), ExpiresAt: d.ExpiresAt.or(d.ExpiresAtUtc),
		ContentType: string(d.ContentType), CorrelationID: string(d.CorrelationID),
		Subject: string(d.Subject), LockToken: string(d.LockToken),
		ApplicationProperties: d.ApplicationProperties,
	}
	m.DeadLetterReason, _ = m.ApplicationProperties["DeadLetterReason"].(string)
	m.DeadLetterErrorDescription, _ = m.ApplicationProperties["DeadLetterErrorDescription"].(string)
	return m
}

func (d *batchMetadata) message(i int) Message {
	one := metadata{
		MessageID: d.MessageIDs.at(i), SessionID: d.SessionIDs.at(i),
		DeliveryCount: d.DeliveryCounts.at(i), SequenceNumber: d.SequenceNumbers.at(i),
		EnqueuedTime: d.EnqueuedTimes.at(i), EnqueuedTimeUtc: d.EnqueuedTimesUtc.at(i),
		ExpiresAt: d.ExpiresAt.at(i), ExpiresAtUtc: d.ExpiresAtUtc.at(i),
		ContentType: d.ContentTypes.at(i), CorrelationID: d.CorrelationIDs.at(i),
		Subject: d.Subjects.at(i), LockToken: d.LockTokens.at(i),
		ApplicationProperties: d.ApplicationProperties.at(i),
	}
	return one.message()
}

// The host prints most values as JSON and puts that text into a JSON string once
// more: "text" arrives as "\"text\"", 3 as "3", an array as "[1,2]". Dates and
// binary are strings only once, objects not at all. So: unwrap one string if there
// is one, and then look.

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
	plain := true
	for _, c := range inner {
		if c == '\\' || c == '"' || c < ' ' || c >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		return inner, true
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return nil, false
	}
	return []byte(s), true
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
		if inner := raw[3 : n-3]; bytes.IndexByte(inner, '\\') < 0 && bytes.IndexByte(inner, '"') < 0 {
			return inner
		}
	}
	inner, wasString := unwrap(raw)
	if wasString {
		if twice, ok := unquote(inner); ok {
			return twice
		}
		if string(inner) == "null" {
			return nil
		}
		return inner
	}
	if len(inner) == 0 || inner[0] == '{' || inner[0] == '[' || string(inner) == "null" {
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
	if n := len(b); n > 6 && (b[n-1] == 'Z' || b[n-6] == '+' || b[n-6] == '-') {
		layout = time.RFC3339
	}
	if t, err := time.Parse(layout, string(b)); err == nil {
		m.Time = t.UTC()
	}
	return nil
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
			if i, err := n.Int64(); err == nil {
				m[k] = i
			} else if f, err := n.Float64(); err == nil {
				m[k] = f
			}
		}
	}
	*p = m
	return nil
}

// list is an array, wrapped in a string or not.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(raw []byte) error {
	inner, _ := unwrap(raw)
	var items []T
	if json.Unmarshal(inner, &items) == nil {
		*l = items
	}
	return nil
}

// at gives the zero value past the end.
func (l list[T]) at(i int) (v T) {
	if i < len(l) {
		v = l[i]
	}
	return v
}
