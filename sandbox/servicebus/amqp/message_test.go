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
	if want := (amqp.Header{Durable: true, Priority: ptr(uint8(4)), TTL: ptr(uint32(60000)),
		DeliveryCount: 2}); !reflect.DeepEqual(m.Header, want) || !m.HasHeader {
		t.Errorf("header %+v", m.Header)
	}
	p := m.Properties
	if p.MessageID != "id" || p.To != "to" || p.Subject != "subject" || p.ReplyTo != "reply" ||
		p.CorrelationID != uint64(7) ||
		p.ContentType != "text/plain" || *p.GroupID != "group" || p.ReplyToGroupID != "replygroup" {
		t.Errorf("properties %+v", p)
	}
	if m.DeliveryAnnotations.Get("x-opt-lock-token") != (amqp.UUID{1}) ||
		m.Annotations.Get("x-opt-sequence-number") != int64(5) || m.ApplicationProperties.Get("n") != int32(1) {
		t.Errorf("maps %v %v %v", m.DeliveryAnnotations, m.Annotations, m.ApplicationProperties)
	}
	if got := bytes.Join(m.Data(), []byte("+")); string(got) != "one+two" {
		t.Errorf("data %q", got)
	}
	if _, ok := m.Value(); ok || m.Size() != len(full()) {
		t.Errorf("a value: %v, size %d", ok, m.Size())
	}
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
	if got.Header.DeliveryCount != 9 || got.DeliveryAnnotations != nil ||
		got.ApplicationProperties.Get("k") != "other" ||
		got.Annotations.Get("x-opt-enqueued-time") == nil || got.Properties.MessageID != "new" ||
		got.Properties.GroupID != nil || got.Properties.Subject != "" {
		t.Errorf("%+v", got)
	}
	if got.Properties.ReplyTo != "reply" || got.Properties.ContentType != "text/plain" ||
		string(got.Data()[1]) != "two" {
		t.Errorf("what was not changed: %+v", got.Properties)
	}
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
	if string(got.Data()[0]) != "body" || got.Properties.MessageID != "m" || *got.Properties.GroupID != "g" ||
		got.HasHeader {
		t.Errorf("%+v", got)
	}
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
		if !slices.EqualFunc(m.Data(), again.Data(), bytes.Equal) || again.Properties.MessageID != nil &&
			m.Properties.MessageID == nil {
			t.Fatalf("%x lost something as %x", b, once)
		}
		if twice := again.Encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x", b, once, twice)
		}
	})
}
