package amqp

import (
	"slices"
	"time"
)

// Header of a message.
type Header struct {
	Durable       bool
	Priority      *uint8
	TTL           *uint32 // milliseconds
	FirstAcquirer bool
	DeliveryCount uint32
}

// Properties of a message. MessageID and CorrelationID are string, uint64, UUID
// or []byte.
type Properties struct {
	MessageID      any
	To             string
	Subject        string
	ReplyTo        string
	CorrelationID  any
	ContentType    string
	GroupID        *string
	ReplyToGroupID string
	fields         List // as read; those not named above are kept
}

// Message is a decoded message. Its bare part (properties, application
// properties, body, footer) is kept byte for byte until it is changed by
// SetApplicationProperties or SetProperties.
type Message struct {
	Header                Header
	HasHeader             bool
	DeliveryAnnotations   Map
	Annotations           Map
	Properties            Properties
	ApplicationProperties Map

	rawProperties  []byte
	rawApplication []byte
	body           []byte // data, sequence or value sections, and the footer
	data           [][]byte
	value          any
	hasValue       bool
	sequence       bool
	size           int
}

// Sections' descriptor codes.
const (
	sectionHeader uint64 = 0x70 + iota
	sectionDelivery
	sectionAnnotations
	sectionProperties
	sectionApplication
	sectionData
	sectionSequence
	sectionValue
	sectionFooter
)

// NewMessage makes a message with one data section.
func NewMessage(body []byte) *Message {
	m := &Message{data: [][]byte{body}}
	m.body = Append(nil, Described{sectionData, body})
	return m
}

// NewValueMessage makes a message with a value section.
func NewValueMessage(v any) *Message {
	m := &Message{value: v, hasValue: true}
	m.body = Append(nil, Described{sectionValue, v})
	return m
}

// DecodeMessage reads a message. It keeps parts of b.
func DecodeMessage(b []byte) (*Message, error) {
	m := &Message{size: len(b)}
	d := decoder{buf: b}
	last := uint64(0)
	for len(d.rest()) > 0 {
		start := d.pos
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		raw := b[start:d.pos]
		section, ok := v.(Described)
		if !ok {
			return nil, malformed("%T where a section is due", v)
		}
		code, ok := section.Descriptor.(uint64)
		if !ok || code < sectionHeader || code > sectionFooter {
			return nil, malformed("section %v", section.Descriptor)
		}
		if !mayFollow(last, code) {
			return nil, malformed("section %#x after %#x", code, last)
		}
		last = code
		if err := m.section(code, section.Value, raw); err != nil {
			return nil, err
		}
	}
	if last == 0 {
		return nil, malformed("empty message")
	}
	return m, nil
}

// mayFollow reports whether a section may come after another one (0: none): in the
// order of their codes, each once but for data and sequences, and one kind of body.
func mayFollow(last, code uint64) bool {
	isBody := func(code uint64) bool { return code >= sectionData && code < sectionFooter }
	switch {
	case code == last:
		return code == sectionData || code == sectionSequence
	case isBody(last) && isBody(code):
		return false
	}
	return code > last
}

func (m *Message) section(code uint64, v any, raw []byte) error {
	switch code {
	case sectionHeader:
		list, ok := v.(List)
		if !ok {
			return malformed("header is a %T", v)
		}
		f := &fields{list: list}
		m.Header = Header{
			Durable: get[bool](f, 0), Priority: getp[uint8](f, 1), TTL: getp[uint32](f, 2),
			FirstAcquirer: get[bool](f, 3), DeliveryCount: get[uint32](f, 4),
		}
		m.HasHeader = true
		return f.err
	case sectionDelivery, sectionAnnotations, sectionApplication:
		mp, ok := v.(Map)
		if !ok {
			return malformed("section %#x is a %T", code, v)
		}
		switch code {
		case sectionDelivery:
			m.DeliveryAnnotations = mp
		case sectionAnnotations:
			m.Annotations = mp
		default:
			for _, p := range mp {
				if _, ok := p.Key.(string); !ok {
					return malformed("application property named by a %T", p.Key)
				}
				switch p.Value.(type) {
				case List, Map, Array, Described:
					return malformed("application property of type %T", p.Value)
				}
			}
			m.ApplicationProperties, m.rawApplication = mp, raw
		}
		return nil
	case sectionProperties:
		list, ok := v.(List)
		if !ok {
			return malformed("properties are a %T", v)
		}
		f := &fields{list: list}
		m.Properties = Properties{
			MessageID: f.at(0), To: get[string](f, 2), Subject: get[string](f, 3),
			ReplyTo: get[string](f, 4), CorrelationID: f.at(5), ContentType: string(get[Symbol](f, 6)),
			GroupID: getp[string](f, 10), ReplyToGroupID: get[string](f, 12), fields: list,
		}
		get[[]byte](f, 1)
		get[Symbol](f, 7)
		get[time.Time](f, 8)
		get[time.Time](f, 9)
		get[uint32](f, 11)
		for _, id := range []any{m.Properties.MessageID, m.Properties.CorrelationID} {
			switch id.(type) {
			case nil, string, uint64, UUID, []byte:
			default:
				return malformed("message id of type %T", id)
			}
		}
		m.rawProperties = raw
		return f.err
	case sectionData:
		b, ok := v.([]byte)
		if !ok {
			return malformed("data is a %T", v)
		}
		m.data = append(m.data, b)
	case sectionSequence:
		if _, ok := v.(List); !ok {
			return malformed("sequence is a %T", v)
		}
		m.sequence = true
	case sectionValue:
		m.value, m.hasValue = v, true
	case sectionFooter:
		if _, ok := v.(Map); !ok {
			return malformed("footer is a %T", v)
		}
	}
	m.body = append(m.body, raw...)
	return nil
}

// Size is the length of the encoded message as it was read.
func (m *Message) Size() int { return m.size }

// Data are the data sections.
func (m *Message) Data() [][]byte { return m.data }

// Value is the value section, if there is one.
func (m *Message) Value() (any, bool) { return m.value, m.hasValue }

// Clone returns a copy whose sections can be replaced without changing m. The
// bytes are shared.
func (m *Message) Clone() *Message {
	c := *m
	return &c
}

// SetApplicationProperties replaces the application properties.
func (m *Message) SetApplicationProperties(p Map) {
	m.ApplicationProperties = p
	m.rawApplication = nil
	if len(p) > 0 {
		m.rawApplication = Append(nil, Described{sectionApplication, p})
	}
}

// SetProperties replaces the properties; what Properties does not name is kept.
func (m *Message) SetProperties(p Properties) {
	list := make(List, 13)
	copy(list, p.fields)
	list[0], list[5] = p.MessageID, p.CorrelationID
	list[2], list[3], list[4] = optional(p.To), optional(p.Subject), optional(p.ReplyTo)
	list[6] = optional(Symbol(p.ContentType))
	list[10], list[12] = pointed(p.GroupID), optional(p.ReplyToGroupID)
	p.fields = list
	m.Properties = p
	m.rawProperties = Append(nil, record(sectionProperties, slices.Clone(list)...))
}

// Encode writes the message.
func (m *Message) Encode() []byte {
	b := make([]byte, 0, 128+len(m.rawProperties)+len(m.rawApplication)+len(m.body))
	if m.HasHeader {
		h := m.Header
		b = Append(b, record(sectionHeader, optional(h.Durable), pointed(h.Priority), pointed(h.TTL),
			optional(h.FirstAcquirer), h.DeliveryCount))
	}
	if len(m.DeliveryAnnotations) > 0 {
		b = Append(b, Described{sectionDelivery, m.DeliveryAnnotations})
	}
	if len(m.Annotations) > 0 {
		b = Append(b, Described{sectionAnnotations, m.Annotations})
	}
	b = append(b, m.rawProperties...)
	b = append(b, m.rawApplication...)
	return append(b, m.body...)
}
