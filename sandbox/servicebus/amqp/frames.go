package amqp

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Protocol headers.
const (
	HeaderAMQP = "AMQP\x00\x01\x00\x00"
	HeaderSASL = "AMQP\x03\x01\x00\x00"
)

// Frame types.
const (
	FrameAMQP byte = 0
	FrameSASL byte = 1
)

// Roles of a link's end.
const (
	RoleSender   = false
	RoleReceiver = true
)

// Settle modes.
const (
	SenderSettled  uint8 = 1
	SenderMixed    uint8 = 2
	ReceiverFirst  uint8 = 0
	ReceiverSecond uint8 = 1
)

// Error conditions of the protocol.
const (
	InternalError       Symbol = "amqp:internal-error"
	NotFound            Symbol = "amqp:not-found"
	UnauthorizedAccess  Symbol = "amqp:unauthorized-access"
	DecodeError         Symbol = "amqp:decode-error"
	NotAllowed          Symbol = "amqp:not-allowed"
	InvalidField        Symbol = "amqp:invalid-field"
	NotImplemented      Symbol = "amqp:not-implemented"
	FramingError        Symbol = "amqp:connection:framing-error"
	ConnectionForced    Symbol = "amqp:connection:forced"
	UnattachedHandle    Symbol = "amqp:session:unattached-handle"
	HandleInUse         Symbol = "amqp:session:handle-in-use"
	WindowViolation     Symbol = "amqp:session:window-violation"
	DetachForced        Symbol = "amqp:link:detach-forced"
	MessageSizeExceeded Symbol = "amqp:link:message-size-exceeded"
)

// Descriptor codes.
const (
	codeError       uint64 = 0x1d
	codeAccepted    uint64 = 0x24
	codeRejected    uint64 = 0x25
	codeReleased    uint64 = 0x26
	codeModified    uint64 = 0x27
	codeSource      uint64 = 0x28
	codeTarget      uint64 = 0x29
	codeCoordinator uint64 = 0x30
)

type (
	Open struct {
		ContainerID, Hostname string
		MaxFrameSize          uint32 // 0: not said
		ChannelMax            *uint16
		IdleTimeout           uint32 // milliseconds; 0: none
		Properties            Map
	}
	Begin struct {
		RemoteChannel                                  *uint16
		NextOutgoingID, IncomingWindow, OutgoingWindow uint32
		HandleMax                                      *uint32
	}
	Attach struct {
		Name                             string
		Handle                           uint32
		Role                             bool
		SenderSettleMode, ReceiverSettle *uint8
		Source                           *Source
		Target                           *Target
		InitialDeliveryCount             *uint32
		MaxMessageSize                   uint64
		Properties                       Map
	}
	Flow struct {
		NextIncomingID                                 *uint32
		IncomingWindow, NextOutgoingID, OutgoingWindow uint32
		Handle, DeliveryCount, LinkCredit, Available   *uint32
		Drain, Echo                                    bool
	}
	Transfer struct {
		Handle        uint32
		DeliveryID    *uint32
		DeliveryTag   []byte
		MessageFormat *uint32
		Settled       bool
		More          bool
		Aborted       bool
	}
	Disposition struct {
		Role    bool
		First   uint32
		Last    *uint32
		Settled bool
		State   any // nil, Accepted, Released, *Rejected, *Modified, or Described
	}
	Detach struct {
		Handle uint32
		Closed bool
		Error  *Error
	}
	End   struct{ Error *Error }
	Close struct{ Error *Error }

	SASLMechanisms struct{ Mechanisms []Symbol }
	SASLInit       struct {
		Mechanism       Symbol
		InitialResponse []byte
	}
	SASLOutcome struct{ Code uint8 }

	// Source and Target are a link's ends.
	Source struct {
		Address string
		Dynamic bool
		Filter  Map
	}
	Target struct {
		Address     string
		Dynamic     bool
		Coordinator bool // of transactions
	}

	Error struct {
		Condition   Symbol
		Description string
		Info        Map
	}

	Accepted struct{}
	Released struct{}
	Rejected struct{ Error *Error }
	Modified struct {
		DeliveryFailed, UndeliverableHere bool
		Annotations                       Map
	}
)

func (e *Error) Error() string { return string(e.Condition) + ": " + e.Description }

// Errorf makes an Error.
func Errorf(condition Symbol, format string, args ...any) *Error {
	return &Error{Condition: condition, Description: fmt.Sprintf(format, args...)}
}

// Frame is one frame. Body is nil in an empty one (a heartbeat).
type Frame struct {
	Type    byte
	Channel uint16
	Body    any
	Payload []byte // of a Transfer
}

// ReadFrame reads one frame of at most limit bytes.
func ReadFrame(r io.Reader, limit uint32) (Frame, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 8 || size > limit {
		return Frame{}, malformed("frame of %d bytes", size)
	}
	offset := 4 * uint32(head[4])
	if offset < 8 || offset > size {
		return Frame{}, malformed("data offset %d", head[4])
	}
	body := make([]byte, size-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return Frame{}, err
	}
	f := Frame{Type: head[5], Channel: binary.BigEndian.Uint16(head[6:])}
	if f.Type != FrameAMQP && f.Type != FrameSASL {
		return Frame{}, malformed("frame type %d", f.Type)
	}
	body = body[offset-8:]
	if len(body) == 0 {
		return f, nil
	}
	v, rest, err := Decode(body)
	if err != nil {
		return Frame{}, err
	}
	f.Body, err = performative(v)
	if err != nil {
		return Frame{}, err
	}
	if _, ok := f.Body.(*Transfer); ok {
		f.Payload = rest
	} else if len(rest) > 0 {
		return Frame{}, malformed("%d bytes after a performative", len(rest))
	}
	return f, nil
}

// AppendFrame writes one frame.
func AppendFrame(b []byte, f Frame) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 2, f.Type, byte(f.Channel>>8), byte(f.Channel))
	if f.Body != nil {
		b = Append(b, composite(f.Body))
	}
	b = append(b, f.Payload...)
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// record makes a described list, without the nulls at its end.
func record(code uint64, fields ...any) Described {
	for len(fields) > 0 && fields[len(fields)-1] == nil {
		fields = fields[:len(fields)-1]
	}
	return Described{code, List(fields)}
}

// optional is nil for a zero value, so that it is left out.
func optional[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

func pointed[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func mapping(m Map) any {
	if m == nil {
		return nil
	}
	return m
}

func composite(body any) any {
	switch p := body.(type) {
	case *Open:
		return record(0x10, p.ContainerID, optional(p.Hostname), optional(p.MaxFrameSize), pointed(p.ChannelMax),
			optional(p.IdleTimeout), nil, nil, nil, nil, mapping(p.Properties))
	case *Begin:
		return record(0x11, pointed(p.RemoteChannel), p.NextOutgoingID, p.IncomingWindow, p.OutgoingWindow,
			pointed(p.HandleMax))
	case *Attach:
		var source, target any
		if p.Source != nil {
			source = record(codeSource, optional(p.Source.Address), nil, nil, nil, optional(p.Source.Dynamic), nil, nil,
				mapping(p.Source.Filter))
		}
		if p.Target != nil {
			target = record(codeTarget, optional(p.Target.Address), nil, nil, nil, optional(p.Target.Dynamic))
			if p.Target.Coordinator {
				target = record(codeCoordinator)
			}
		}
		return record(0x12, p.Name, p.Handle, p.Role, pointed(p.SenderSettleMode), pointed(p.ReceiverSettle), source,
			target,
			nil, nil, pointed(p.InitialDeliveryCount), optional(p.MaxMessageSize), nil, nil, mapping(p.Properties))
	case *Flow:
		return record(0x13, pointed(p.NextIncomingID), p.IncomingWindow, p.NextOutgoingID, p.OutgoingWindow,
			pointed(p.Handle),
			pointed(p.DeliveryCount), pointed(p.LinkCredit), pointed(p.Available), optional(p.Drain), optional(p.Echo))
	case *Transfer:
		var tag any
		if p.DeliveryTag != nil {
			tag = p.DeliveryTag
		}
		return record(0x14, p.Handle, pointed(p.DeliveryID), tag, pointed(p.MessageFormat), optional(p.Settled),
			optional(p.More),
			nil, nil, nil, optional(p.Aborted))
	case *Disposition:
		return record(0x15, p.Role, p.First, pointed(p.Last), optional(p.Settled), composite(p.State))
	case *Detach:
		return record(0x16, p.Handle, optional(p.Closed), composite(p.Error))
	case *End:
		return record(0x17, composite(p.Error))
	case *Close:
		return record(0x18, composite(p.Error))
	case *SASLMechanisms:
		items := make([]any, len(p.Mechanisms))
		for i, m := range p.Mechanisms {
			items[i] = m
		}
		return record(0x40, Array{Code: CodeSymbol, Items: items})
	case *SASLInit:
		return record(0x41, p.Mechanism, p.InitialResponse)
	case *SASLOutcome:
		return record(0x44, p.Code)
	case *Error:
		if p == nil {
			return nil
		}
		return record(codeError, p.Condition, optional(p.Description), mapping(p.Info))
	case Accepted:
		return record(codeAccepted)
	case Released:
		return record(codeReleased)
	case *Rejected:
		return record(codeRejected, composite(p.Error))
	case *Modified:
		return record(codeModified, optional(p.DeliveryFailed), optional(p.UndeliverableHere), mapping(p.Annotations))
	}
	return body
}

// fields reads a performative's list; the first wrong type sticks.
type fields struct {
	list List
	err  error
}

func (f *fields) at(i int) any {
	if i < len(f.list) {
		return f.list[i]
	}
	return nil
}

func get[T any](f *fields, i int) T {
	v := f.at(i)
	if v == nil {
		var zero T
		return zero
	}
	t, ok := v.(T)
	if !ok && f.err == nil {
		f.err = malformed("field %d is a %T, not a %T", i, v, t)
	}
	return t
}

func getp[T any](f *fields, i int) *T {
	if f.at(i) == nil {
		return nil
	}
	v := get[T](f, i)
	return &v
}

func must[T any](f *fields, i int) T {
	if f.at(i) == nil && f.err == nil {
		f.err = malformed("field %d is missing", i)
	}
	return get[T](f, i)
}

// split takes a described list apart. Descriptors by symbol are as good as codes,
// but no client of Service Bus sends them.
func split(v any) (uint64, *fields, error) {
	d, ok := v.(Described)
	if !ok {
		return 0, nil, malformed("%T where a described list is due", v)
	}
	code, ok := d.Descriptor.(uint64)
	if !ok {
		return 0, nil, malformed("descriptor of type %T", d.Descriptor)
	}
	list, ok := d.Value.(List)
	if !ok {
		return 0, nil, malformed("described %T where a list is due", d.Value)
	}
	return code, &fields{list: list}, nil
}

func performative(v any) (any, error) {
	code, f, err := split(v)
	if err != nil {
		return nil, err
	}
	var body any
	switch code {
	case 0x10:
		body = &Open{
			ContainerID: must[string](f, 0), Hostname: get[string](f, 1), MaxFrameSize: get[uint32](f, 2),
			ChannelMax: getp[uint16](f, 3), IdleTimeout: get[uint32](f, 4), Properties: get[Map](f, 9),
		}
	case 0x11:
		body = &Begin{
			RemoteChannel: getp[uint16](f, 0), NextOutgoingID: must[uint32](f, 1), IncomingWindow: must[uint32](f, 2),
			OutgoingWindow: must[uint32](f, 3), HandleMax: getp[uint32](f, 4),
		}
	case 0x12:
		body = &Attach{
			Name: must[string](f, 0), Handle: must[uint32](f, 1), Role: must[bool](f, 2),
			SenderSettleMode: getp[uint8](f, 3), ReceiverSettle: getp[uint8](f, 4),
			Source: source(f, 5), Target: target(f, 6), InitialDeliveryCount: getp[uint32](f, 9),
			MaxMessageSize: get[uint64](f, 10), Properties: get[Map](f, 13),
		}
	case 0x13:
		body = &Flow{
			NextIncomingID: getp[uint32](f, 0), IncomingWindow: must[uint32](f, 1), NextOutgoingID: must[uint32](f, 2),
			OutgoingWindow: must[uint32](f, 3), Handle: getp[uint32](f, 4), DeliveryCount: getp[uint32](f, 5),
			LinkCredit: getp[uint32](f, 6), Available: getp[uint32](f, 7), Drain: get[bool](f, 8),
			Echo: get[bool](f, 9),
		}
	case 0x14:
		body = &Transfer{
			Handle: must[uint32](f, 0), DeliveryID: getp[uint32](f, 1), DeliveryTag: get[[]byte](f, 2),
			MessageFormat: getp[uint32](f, 3), Settled: get[bool](f, 4), More: get[bool](f, 5),
			Aborted: get[bool](f, 9),
		}
	case 0x15:
		d := &Disposition{Role: must[bool](f, 0), First: must[uint32](f, 1), Last: getp[uint32](f, 2),
			Settled: get[bool](f, 3)}
		d.State = state(f, 4)
		body = d
	case 0x16:
		body = &Detach{Handle: must[uint32](f, 0), Closed: get[bool](f, 1), Error: failure(f, 2)}
	case 0x17:
		body = &End{Error: failure(f, 0)}
	case 0x18:
		body = &Close{Error: failure(f, 0)}
	case 0x40:
		m := &SASLMechanisms{}
		switch v := f.at(0).(type) {
		case Symbol:
			m.Mechanisms = []Symbol{v}
		case Array:
			for _, e := range v.Items {
				s, ok := e.(Symbol)
				if !ok {
					return nil, malformed("mechanism of type %T", e)
				}
				m.Mechanisms = append(m.Mechanisms, s)
			}
		default:
			return nil, malformed("mechanisms of type %T", v)
		}
		body = m
	case 0x41:
		body = &SASLInit{Mechanism: must[Symbol](f, 0), InitialResponse: get[[]byte](f, 1)}
	case 0x44:
		body = &SASLOutcome{Code: must[uint8](f, 0)}
	default:
		return nil, malformed("performative %#x", code)
	}
	return body, f.err
}

func nested(f *fields, i int, codes ...uint64) (uint64, *fields) {
	if f.at(i) == nil {
		return 0, nil
	}
	code, inner, err := split(f.at(i))
	if err == nil && !slices.Contains(codes, code) {
		err = malformed("field %d holds %#x", i, code)
	}
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return 0, nil
	}
	return code, inner
}

func source(f *fields, i int) *Source {
	_, in := nested(f, i, codeSource)
	if in == nil {
		return nil
	}
	s := &Source{Address: get[string](in, 0), Dynamic: get[bool](in, 4), Filter: get[Map](in, 7)}
	if in.err != nil && f.err == nil {
		f.err = in.err
	}
	return s
}

func target(f *fields, i int) *Target {
	code, in := nested(f, i, codeTarget, codeCoordinator)
	if in == nil {
		return nil
	}
	if code == codeCoordinator {
		return &Target{Coordinator: true}
	}
	t := &Target{Address: get[string](in, 0), Dynamic: get[bool](in, 4)}
	if in.err != nil && f.err == nil {
		f.err = in.err
	}
	return t
}

func failure(f *fields, i int) *Error {
	_, in := nested(f, i, codeError)
	if in == nil {
		return nil
	}
	e := &Error{Condition: must[Symbol](in, 0), Description: get[string](in, 1), Info: get[Map](in, 2)}
	if in.err != nil && f.err == nil {
		f.err = in.err
	}
	return e
}

func state(f *fields, i int) any {
	v := f.at(i)
	if v == nil {
		return nil
	}
	code, in, err := split(v)
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return nil
	}
	var s any
	switch code {
	case codeAccepted:
		s = Accepted{}
	case codeReleased:
		s = Released{}
	case codeRejected:
		s = &Rejected{Error: failure(in, 0)}
	case codeModified:
		s = &Modified{DeliveryFailed: get[bool](in, 0), UndeliverableHere: get[bool](in, 1),
			Annotations: get[Map](in, 2)}
	default:
		s = v // received, or a transaction's state: the caller says no
	}
	if in.err != nil && f.err == nil {
		f.err = in.err
	}
	return s
}
