package functionshost

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// messageSource is where messages came from; nil for a run by hand.
type messageSource struct {
	client      clientInfo
	sessionLock func() time.Time // nil: no session
}

// sdkObjects are the objects of the .NET SDK that reach the handler, nearly empty.
func (s *messageSource) sdkObjects() map[string]any {
	if s == nil {
		return nil
	}
	objects := map[string]any{
		"ReceiveActions": map[string]any{},
		"Client": map[string]any{
			"FullyQualifiedNamespace": s.client.namespace,
			"IsClosed":                false,
			"TransportType":           0,
			"Identifier":              s.client.identifier,
		},
	}
	for _, name := range []string{"MessageReceiver", "MessageSession", "MessageActions", "SessionActions"} {
		object := map[string]any{}
		if s.sessionLock != nil {
			object["SessionLockedUntil"] = s.sessionLock().Format(offsetFull)
		}
		objects[name] = object
	}
	return objects
}

// maxDate is .NET's DateTimeOffset.MaxValue: when a message without a life time
// expires.
var maxDate = time.Date(9999, 12, 31, 23, 59, 59, 999999900, time.UTC)

// brokerProperties are a message's, in .NET's terms. A nil string is null.
type brokerProperties struct {
	strings           map[string]*string
	deliveryCount     uint32
	sequenceNumber    int64
	enqueued, expires time.Time
	lockToken         string
	application       map[string]any
}

func propertiesOf(m *azservicebus.ReceivedMessage) brokerProperties {
	p := brokerProperties{
		strings: map[string]*string{
			"ContentType": m.ContentType, "CorrelationId": m.CorrelationID,
			"Subject": m.Subject, "Label": m.Subject,
			"To": m.To, "ReplyTo": m.ReplyTo, "ReplyToSessionId": m.ReplyToSessionID,
			"SessionId": m.SessionID, "PartitionKey": m.PartitionKey,
			"DeadLetterSource": m.DeadLetterSource, "TransactionPartitionKey": nil, "MessageId": nil,
		},
		deliveryCount: m.DeliveryCount, sequenceNumber: -1, expires: maxDate,
		lockToken: formatGUID(m.LockToken), application: map[string]any{},
	}
	if m.MessageID != "" {
		p.strings["MessageId"] = &m.MessageID
	}
	if m.RawAMQPMessage != nil {
		if via, ok := m.RawAMQPMessage.MessageAnnotations["x-opt-via-partition-key"].(string); ok {
			p.strings["TransactionPartitionKey"] = &via
		}
	}
	if m.SequenceNumber != nil {
		p.sequenceNumber = *m.SequenceNumber
	}
	if m.EnqueuedTime != nil {
		p.enqueued = m.EnqueuedTime.UTC()
		if m.ExpiresAt != nil && m.ExpiresAt.After(*m.EnqueuedTime) { // else it has no life time
			p.expires = m.ExpiresAt.UTC()
		}
	} else {
		p.expires = time.Time{}
	}
	for k, v := range m.ApplicationProperties {
		p.application[k] = propertyValue(v)
	}
	return p
}

// propertyValue is an application property as Json.NET writes it.
func propertyValue(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.9999999Z")
	case float64:
		return floatLiteral(v, 64)
	case float32:
		return floatLiteral(float64(v), 32)
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case [16]byte:
		return formatGUID(v)
	case fmt.Stringer: // the AMQP library's UUID
		return v.String()
	}
	return v
}

func floatLiteral(v float64, bits int) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, bits), "+")
	}
	s := strconv.FormatFloat(v, 'g', -1, bits)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return json.Number(s)
}

var errBody = errors.New("the message body is an AMQP sequence or no data")

// bodyOf returns a message's body; an AMQP value may be a string or bytes.
func bodyOf(m *azservicebus.ReceivedMessage) ([]byte, error) {
	if m.RawAMQPMessage == nil || m.Body != nil {
		return m.Body, nil
	}
	switch b := m.RawAMQPMessage.Body; {
	case len(b.Data) > 0:
		return bytes.Join(b.Data, nil), nil
	case len(b.Sequence) > 0:
		return nil, errBody
	default:
		switch v := b.Value.(type) {
		case nil:
			return nil, nil
		case string:
			return []byte(v), nil
		case []byte:
			return v, nil
		}
		return nil, errBody
	}
}

// metadata is the binding data; its keys compare without case, and keep the
// casing that they came with first.
type metadata struct {
	values map[string]any
	casing map[string]string
}

func newMetadata() *metadata {
	return &metadata{values: map[string]any{}, casing: map[string]string{}}
}

func (m *metadata) set(key string, value any) {
	lower := strings.ToLower(key)
	if known, ok := m.casing[lower]; ok {
		key = known
	} else {
		m.casing[lower] = key
	}
	m.values[key] = value
}

// finish leaves out nulls, the trigger's own value, and keys that end in
// "trigger".
func (m *metadata) finish(triggerName string) map[string]any {
	for k, v := range m.values {
		if v == nil || strings.EqualFold(k, triggerName) || strings.HasSuffix(strings.ToLower(k), "trigger") {
			delete(m.values, k)
		}
	}
	return m.values
}

// messageEnvelope binds messages: one, or for cardinality many a batch.
func messageEnvelope(f *function, messages []*azservicebus.ReceivedMessage, source *messageSource) (envelope, error) {
	bodies := make([][]byte, len(messages))
	for i, m := range messages {
		body, err := bodyOf(m)
		if err != nil {
			return envelope{}, err
		}
		bodies[i] = body
	}
	switch {
	case f.trigger.takesBatches():
		return batchEnvelope(f, messages, bodies, source)
	case len(messages) != 1:
		return envelope{}, fmt.Errorf("%d messages for cardinality one", len(messages))
	}
	return singleEnvelope(f, messages[0], bodies[0], source), nil
}

func singleEnvelope(f *function, message *azservicebus.ReceivedMessage, body []byte, source *messageSource) envelope {
	p := propertiesOf(message)
	m := newMetadata()
	for name, v := range p.strings {
		if v != nil {
			m.set(name, quoted(*v))
		}
	}
	m.set("LockToken", quoted(p.lockToken))
	m.set("DeliveryCount", strconv.FormatUint(uint64(p.deliveryCount), 10))
	m.set("SequenceNumber", strconv.FormatInt(p.sequenceNumber, 10))
	m.set("EnqueuedTimeUtc", p.enqueued.Format(dateTime))
	m.set("EnqueuedTime", p.enqueued.Format(dateTimeOffset))
	m.set("ExpiresAtUtc", p.expires.Format(dateTime))
	m.set("ExpiresAt", p.expires.Format(dateTimeOffset))
	m.set("ApplicationProperties", p.application)
	m.set("UserProperties", p.application)
	for k, v := range source.sdkObjects() {
		m.set(k, v)
	}
	var data string
	if strings.EqualFold(f.trigger.DataType, "binary") {
		data = base64.StdEncoding.EncodeToString(body)
	} else {
		text := strings.ToValidUTF8(string(body), "\uFFFD")
		// The body's properties come last and win.
		for k, v := range bodyProperties(text) {
			m.set(k, v)
		}
		data = quoted(text)
	}
	return envelope{Data: map[string]any{f.trigger.Name: data}, Metadata: m.finish(f.trigger.Name)}
}

func batchEnvelope(f *function, messages []*azservicebus.ReceivedMessage, bodies [][]byte,
	source *messageSource) (envelope, error) {
	elements := make([]any, len(messages))
	columns := map[string][]any{}
	for i, m := range messages {
		element, err := batchElement(f.trigger.DataType, bodies[i])
		if err != nil {
			return envelope{}, fmt.Errorf("body %d of the batch: %w", i, err)
		}
		elements[i] = element
		for name, v := range batchProperties(m) {
			if columns[name] == nil {
				columns[name] = make([]any, len(messages))
			}
			columns[name][i] = v
		}
	}
	metadata := map[string]any{}
	for name, column := range columns {
		text, err := stringified(column)
		if err != nil {
			return envelope{}, fmt.Errorf("metadata %s: %w", name, err)
		}
		metadata[name+"Array"] = text
	}
	maps.Copy(metadata, source.sdkObjects())
	data, err := stringified(elements)
	if err != nil {
		return envelope{}, err
	}
	return envelope{Data: map[string]any{f.trigger.Name: data}, Metadata: metadata}, nil
}

// batchElement is a message's body within a batch. Without a dataType it is parsed, and
// one that is no JSON fails the batch.
func batchElement(dataType string, body []byte) (any, error) {
	switch strings.ToLower(dataType) {
	case "binary":
		return base64.StdEncoding.EncodeToString(body), nil
	case "string":
		return strings.ToValidUTF8(string(body), "\uFFFD"), nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var element any
	if err := dec.Decode(&element); err != nil {
		return nil, errNoJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoJSON
	}
	return element, nil
}

var errNoJSON = errors.New("it is not JSON")

// batchProperties are a message's broker properties within a batch; null stays in.
func batchProperties(m *azservicebus.ReceivedMessage) map[string]any {
	p := propertiesOf(m)
	p.strings["TransactionPartitionKey"] = p.strings["PartitionKey"] // the extension's own mistake
	out := map[string]any{
		"LockToken":             p.lockToken,
		"DeliveryCount":         p.deliveryCount,
		"SequenceNumber":        p.sequenceNumber,
		"EnqueuedTimeUtc":       p.enqueued.Format(dateTimeFull),
		"EnqueuedTime":          p.enqueued.Format(offsetFull),
		"ExpiresAtUtc":          p.expires.Format(dateTimeFull),
		"ExpiresAt":             p.expires.Format(offsetFull),
		"ApplicationProperties": p.application,
		"UserProperties":        p.application,
	}
	for name, v := range p.strings {
		out[name] = nil
		if v != nil {
			out[name] = *v
		}
	}
	return out
}
