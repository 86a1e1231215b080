package amqp_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

// sections writes a message by hand.
func sections(parts ...amqp.Described) []byte {
	var b []byte
	for _, p := range parts {
		b = amqp.Append(b, p)
	}
	return b
}

func section(code uint64, v any) amqp.Described { return amqp.Described{Descriptor: code, Value: v} }

func full() []byte {
	return sections(
		section(0x70, amqp.List{true, uint8(4), uint32(60000), nil, uint32(2)}),
		section(0x71, amqp.Map{{Key: amqp.Symbol("x-opt-lock-token"), Value: amqp.UUID{1}}}),
		section(0x72, amqp.Map{{Key: amqp.Symbol("x-opt-sequence-number"), Value: int64(5)}}),
		section(0x73, amqp.List{
			"id", []byte("user"), "to", "subject", "reply", uint64(7), amqp.Symbol("text/plain"), amqp.Symbol("gzip"),
			time.UnixMilli(9000).UTC(), time.UnixMilli(8000).UTC(), "group", uint32(3), "replygroup",
		}),
		section(0x74, amqp.Map{{Key: "k", Value: "v"}, {Key: "n", Value: int32(1)}}),
		section(0x75, []byte("one")), section(0x75, []byte("two")),
		section(0x78, amqp.Map{{Key: amqp.Symbol("crc"), Value: uint32(1)}}),
	)
}

// equal compares whole values.
func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

// properties are those that a message has, by name.
func properties(m *amqp.Message) map[string]any {
	p := m.Properties
	out := map[string]any{}
	for name, v := range map[string]string{"to": p.To, "subject": p.Subject, "reply to": p.ReplyTo,
		"content type": p.ContentType, "reply to group id": p.ReplyToGroupID} {
		if v != "" {
			out[name] = v
		}
	}
	if p.MessageID != nil {
		out["message id"] = p.MessageID
	}
	if p.CorrelationID != nil {
		out["correlation id"] = p.CorrelationID
	}
	if p.GroupID != nil {
		out["group id"] = *p.GroupID
	}
	return out
}

func message(t *testing.T, b []byte) *amqp.Message {
	t.Helper()
	m, err := amqp.DecodeMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAMessageIsReadWhole(t *testing.T) {
	m := message(t, full())
	if !m.HasHeader {
		t.Error("the header is not read")
	}
	equal(t, "header", m.Header, amqp.Header{Durable: true, Priority: ptr(uint8(4)), TTL: ptr(uint32(60000)),
		DeliveryCount: 2})
	equal(t, "properties", properties(m), map[string]any{"message id": "id", "to": "to", "subject": "subject",
		"reply to": "reply", "correlation id": uint64(7), "content type": "text/plain", "group id": "group",
		"reply to group id": "replygroup"})
	equal(t, "delivery annotation", m.DeliveryAnnotations.Get("x-opt-lock-token"), any(amqp.UUID{1}))
	equal(t, "annotation", m.Annotations.Get("x-opt-sequence-number"), any(int64(5)))
	equal(t, "application property", m.ApplicationProperties.Get("n"), any(int32(1)))
	if got := bytes.Join(m.Data(), []byte("+")); string(got) != "one+two" {
		t.Errorf("data %q", got)
	}
	if v, ok := m.Value(); ok {
		t.Errorf("value %v, want none", v)
	}
	equal(t, "size", m.Size(), len(full()))
}

func TestTheBareMessageGoesThroughByteForByte(t *testing.T) {
	// Wide constructors, which this package would not write itself.
	bare := []byte{0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x73, 0xd0, 0, 0, 0, 10, 0, 0, 0, 1, 0xb1, 0, 0, 0, 1, 'm'}
	bare = append(bare, 0, 0x53, 0x75, 0xb0, 0, 0, 0, 1, 'x')
	if got := message(t, bare).Encode(); !bytes.Equal(got, bare) {
		t.Errorf("%x came out as %x", bare, got)
	}
	if got := message(t, full()).Encode(); !bytes.Equal(got, full()) {
		t.Errorf("%x came out as %x", full(), got)
	}
}

func TestWhatIsChangedIsWrittenAnew(t *testing.T) {
	m := message(t, full())
	c := m.Clone()
	c.Header.DeliveryCount = 9
	c.Annotations = c.Annotations.With(amqp.Symbol("x-opt-enqueued-time"), time.UnixMilli(1).UTC())
	c.DeliveryAnnotations = nil
	c.SetApplicationProperties(c.ApplicationProperties.With("k", "other"))
	p := c.Properties
	p.MessageID, p.GroupID, p.Subject = "new", nil, ""
	c.SetProperties(p)
	got := message(t, c.Encode())
	equal(t, "delivery count", got.Header.DeliveryCount, 9)
	equal(t, "delivery annotations", got.DeliveryAnnotations, nil)
	equal(t, "application property", got.ApplicationProperties.Get("k"), any("other"))
	equal(t, "annotation", got.Annotations.Get("x-opt-enqueued-time"), any(time.UnixMilli(1).UTC()))
	equal(t, "properties", properties(got), map[string]any{"message id": "new", "to": "to", "reply to": "reply",
		"correlation id": uint64(7), "content type": "text/plain", "reply to group id": "replygroup"})
	equal(t, "data that was not changed", string(got.Data()[1]), "two")
	// Of the properties that have no name here nothing is lost.
	if !bytes.Contains(c.Encode(), []byte("gzip")) || !bytes.Contains(c.Encode(), []byte("user")) {
		t.Error("the content encoding or the user id is lost")
	}
	if !bytes.Equal(m.Encode(), full()) {
		t.Error("the original has changed with its clone")
	}
	c.SetApplicationProperties(nil)
	if got := message(t, c.Encode()); got.ApplicationProperties != nil {
		t.Errorf("application properties %v", got.ApplicationProperties)
	}
}

func TestMessagesAreMade(t *testing.T) {
	m := amqp.NewMessage([]byte("body"))
	m.SetProperties(amqp.Properties{MessageID: "m", GroupID: ptr("g")})
	got := message(t, m.Encode())
	equal(t, "body", string(got.Data()[0]), "body")
	equal(t, "properties", properties(got), map[string]any{"message id": "m", "group id": "g"})
	equal(t, "has a header", got.HasHeader, false)
	v, ok := message(t, amqp.NewValueMessage(amqp.Map{{Key: "a", Value: true}}).Encode()).Value()
	if !ok || !reflect.DeepEqual(v, amqp.Map{{Key: "a", Value: true}}) {
		t.Errorf("value %v, %v", v, ok)
	}
	if v, ok := message(t, amqp.NewValueMessage(nil).Encode()).Value(); !ok || v != nil {
		t.Errorf("null value %v, %v", v, ok)
	}
}

func TestSequencesGoThrough(t *testing.T) {
	b := sections(section(0x76, amqp.List{int32(1), "x"}), section(0x76, amqp.List(nil)))
	if got := message(t, b).Encode(); !bytes.Equal(got, b) {
		t.Errorf("%x", got)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	data := section(0x75, []byte("x"))
	for name, parts := range map[string][]amqp.Described{
		"nothing":                          {},
		"unknown section":                  {section(0x79, amqp.Map{})},
		"symbolic section":                 {{Descriptor: amqp.Symbol("amqp:data:binary"), Value: []byte("x")}},
		"header a map":                     {section(0x70, amqp.Map{}), data},
		"header with a wrong field":        {section(0x70, amqp.List{"durable"}), data},
		"annotations a list":               {section(0x72, amqp.List{"x"}), data},
		"properties a map":                 {section(0x73, amqp.Map{}), data},
		"properties with a wrong subject":  {section(0x73, amqp.List{nil, nil, nil, uint32(1)}), data},
		"properties with a wrong user id":  {section(0x73, amqp.List{nil, "user"}), data},
		"message id a number with a sign":  {section(0x73, amqp.List{int32(1)}), data},
		"correlation id a boolean":         {section(0x73, amqp.List{nil, nil, nil, nil, nil, true}), data},
		"application property by a symbol": {section(0x74, amqp.Map{{Key: amqp.Symbol("k"), Value: "v"}}), data},
		"application property a map":       {section(0x74, amqp.Map{{Key: "k", Value: amqp.Map{}}}), data},
		"data a string":                    {section(0x75, "x")},
		"sequence a map":                   {section(0x76, amqp.Map{})},
		"footer a list":                    {data, section(0x78, amqp.List{"x"})},
		"header after the body":            {data, section(0x70, amqp.List{true})},
		"two headers":                      {section(0x70, amqp.List{true}), section(0x70, amqp.List{true}), data},
		"two values":                       {section(0x77, "x"), section(0x77, "y")},
		"data and a value":                 {data, section(0x77, "y")},
		"two footers":                      {data, section(0x78, amqp.Map{}), section(0x78, amqp.Map{})},
	} {
		if m, err := amqp.DecodeMessage(sections(parts...)); !errors.Is(err, amqp.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for n := 1; n < len(full()); n++ {
		m, err := amqp.DecodeMessage(full()[:n])
		if err != nil && !errors.Is(err, amqp.ErrMalformed) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if err == nil && !bytes.HasPrefix(full(), m.Encode()) {
			t.Fatalf("%d bytes: read as %x", n, m.Encode())
		}
	}
	if _, err := amqp.DecodeMessage([]byte{0x41}); !errors.Is(err, amqp.ErrMalformed) {
		t.Errorf("no section: %v", err)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(full())
	f.Add(amqp.NewMessage([]byte("body")).Encode())
	f.Add(amqp.NewValueMessage(amqp.Map{{Key: "operation", Value: "put-token"}}).Encode())
	f.Add(sections(section(0x76, amqp.List{int32(1)})))
	f.Add(sections(section(0x70, amqp.List{"durable"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := amqp.DecodeMessage(slices.Clone(b))
		if err != nil {
			if !errors.Is(err, amqp.ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		m.SetProperties(m.Properties)
		m.SetApplicationProperties(m.ApplicationProperties)
		once := m.Encode()
		again, err := amqp.DecodeMessage(once)
		if err != nil {
			t.Fatalf("%x was written as %x, which is not read: %v", b, once, err)
		}
		if !slices.EqualFunc(m.Data(), again.Data(), bytes.Equal) {
			t.Fatalf("%x has other data as %x", b, once)
		}
		if m.Properties.MessageID == nil && again.Properties.MessageID != nil {
			t.Fatalf("%x got a message id as %x", b, once)
		}
		if twice := again.Encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x", b, once, twice)
		}
	})
}
