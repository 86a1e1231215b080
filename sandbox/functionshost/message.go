package functionshost

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// messageSource tells where messages came from; nil for a run by hand.
type messageSource struct {
	client      clientInfo
	sessionLock func() time.Time // nil: no session
}

// helpers are the objects of the .NET SDK that reach the handler as shells.
func (s *messageSource) helpers(m map[string]any) {
	if s == nil {
		return
	}
	for _, name := range []string{"MessageReceiver", "MessageSession", "MessageActions", "SessionActions"} {
		object := map[string]any{}
		if s.sessionLock != nil {
			object["SessionLockedUntil"] = s.sessionLock().Format(offsetFull)
		}
		m[name] = object
	}
	m["ReceiveActions"] = map[string]any{}
	m["Client"] = map[string]any{
		"FullyQualifiedNamespace": s.client.namespace,
		"IsClosed":                false,
		"TransportType":           0,
		"Identifier":              s.client.identifier,
	}
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
			"ContentType": m.ContentType, "CorrelationId": m.CorrelationID, "Subject": m.Subject, "Label": m.Subject, "To": m.To,
			"ReplyTo": m.ReplyTo, "ReplyToSessionId": m.ReplyToSessionID, "SessionId": m.SessionID, "PartitionKey": m.PartitionKey,
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

// manualMessage is what a run by hand makes of its input.
func manualMessage(input string) *azservicebus.ReceivedMessage {
	return &azservicebus.ReceivedMessage{Body: []byte(input)}
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

// messageEnvelope binds messages: one, or for cardinality many a batch.
func (h *Host) messageEnvelope(f *function, messages []*azservicebus.ReceivedMessage, source *messageSource) (envelope, error) {
	bodies := make([][]byte, len(messages))
	for i, m := range messages {
		var err error
		if bodies[i], err = bodyOf(m); err != nil {
			return envelope{}, err
		}
	}
	binary := strings.EqualFold(f.trigger.DataType, "binary")
	if strings.EqualFold(f.trigger.Cardinality, "many") {
		return batchEnvelope(f, messages, bodies, source)
	}
	if len(messages) != 1 {
		return envelope{}, fmt.Errorf("%d messages for cardinality one", len(messages))
	}
	p := propertiesOf(messages[0])
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
	shells := map[string]any{}
	source.helpers(shells)
	for k, v := range shells {
		m.set(k, v)
	}
	var data string
	if binary {
		data = base64.StdEncoding.EncodeToString(bodies[0])
	} else {
		text := strings.ToValidUTF8(string(bodies[0]), "\uFFFD")
		// The body's properties come last and win.
		for k, v := range bodyProperties(text) {
			m.set(k, v)
		}
		data = quoted(text)
	}
	return envelope{Data: map[string]any{f.trigger.Name: data}, Metadata: m.finish(f.trigger.Name)}, nil
}

func batchEnvelope(f *function, messages []*azservicebus.ReceivedMessage, bodies [][]byte, source *messageSource) (envelope, error) {
	n := len(messages)
	elements := make([]any, n)
	columns := map[string][]any{}
	add := func(name string, i int, v any) {
		if columns[name] == nil {
			columns[name] = make([]any, n)
		}
		columns[name][i] = v
	}
	for i, m := range messages {
		switch strings.ToLower(f.trigger.DataType) {
		case "binary":
			elements[i] = base64.StdEncoding.EncodeToString(bodies[i])
		case "string":
			elements[i] = strings.ToValidUTF8(string(bodies[i]), "\uFFFD")
		default:
			// Without a dataType each body is parsed, and one that is no JSON
			// fails the batch.
			dec := json.NewDecoder(bytes.NewReader(bodies[i]))
			dec.UseNumber()
			if err := dec.Decode(&elements[i]); err != nil {
				return envelope{}, fmt.Errorf("body %d of the batch is not JSON", i)
			}
			if _, err := dec.Token(); !errors.Is(err, io.EOF) {
				return envelope{}, fmt.Errorf("body %d of the batch is not JSON", i)
			}
		}
		p := propertiesOf(m)
		for name, v := range p.strings {
			if name == "TransactionPartitionKey" {
				v = p.strings["PartitionKey"] // the extension's own mistake
			}
			if v != nil {
				add(name, i, *v)
			} else {
				add(name, i, nil)
			}
		}
		add("LockToken", i, p.lockToken)
		add("DeliveryCount", i, p.deliveryCount)
		add("SequenceNumber", i, p.sequenceNumber)
		add("EnqueuedTimeUtc", i, p.enqueued.Format(dateTimeFull))
		add("EnqueuedTime", i, p.enqueued.Format(offsetFull))
		add("ExpiresAtUtc", i, p.expires.Format(dateTimeFull))
		add("ExpiresAt", i, p.expires.Format(offsetFull))
		add("ApplicationProperties", i, p.application)
		add("UserProperties", i, p.application)
	}
	metadata := map[string]any{}
	for name, column := range columns {
		text, err := stringified(column)
		if err != nil {
			return envelope{}, fmt.Errorf("metadata %s: %w", name, err)
		}
		metadata[name+"Array"] = text
	}
	source.helpers(metadata)
	data, err := stringified(elements)
	if err != nil {
		return envelope{}, err
	}
	return envelope{Data: map[string]any{f.trigger.Name: data}, Metadata: metadata}, nil
}
