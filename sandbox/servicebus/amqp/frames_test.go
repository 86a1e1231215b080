package amqp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

func ptr[T any](v T) *T { return &v }

func frames() []amqp.Frame {
	source := &amqp.Source{Address: "q", Dynamic: true,
		Filter: amqp.Map{{Key: amqp.Symbol("f"), Value: amqp.Described{Descriptor: uint64(1), Value: "x"}}}}
	return []amqp.Frame{
		{},
		{Channel: 7},
		{Body: &amqp.Open{ContainerID: "c", Hostname: "h", MaxFrameSize: 65536, ChannelMax: ptr(uint16(9)),
			IdleTimeout: 30000, Properties: amqp.Map{{Key: amqp.Symbol("p"), Value: "v"}}}},
		{Body: &amqp.Open{}},
		{Channel: 1, Body: &amqp.Begin{RemoteChannel: ptr(uint16(0)), NextOutgoingID: 1, IncomingWindow: 5000,
			OutgoingWindow: 6000, HandleMax: ptr(uint32(255))}},
		{Channel: 1, Body: &amqp.Attach{
			Name: "l", Handle: 3, Role: amqp.RoleReceiver, SenderSettleMode: ptr(amqp.SenderSettled),
			ReceiverSettle: ptr(amqp.ReceiverSecond),
			Source:         source, Target: &amqp.Target{Address: "t", Dynamic: true},
			InitialDeliveryCount: ptr(uint32(4)),
			MaxMessageSize:       1 << 40,
			Properties:           amqp.Map{{Key: amqp.Symbol("com.microsoft:timeout"), Value: uint32(60000)}},
		}},
		{Body: &amqp.Attach{Name: "refused"}},
		{Body: &amqp.Attach{Name: "tx", Target: &amqp.Target{Coordinator: true}}},
		{Body: &amqp.Flow{NextIncomingID: ptr(uint32(1)), IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4,
			Handle: ptr(uint32(0)), DeliveryCount: ptr(uint32(5)), LinkCredit: ptr(uint32(6)),
			Available: ptr(uint32(7)), Drain: true, Echo: true}},
		{Body: &amqp.Flow{}},
		{Channel: 2, Body: &amqp.Transfer{Handle: 1, DeliveryID: ptr(uint32(2)), DeliveryTag: []byte{1, 2},
			MessageFormat: ptr(uint32(0)), Settled: true, More: true, Aborted: true}, Payload: []byte("payload")},
		{Body: &amqp.Transfer{Handle: 1}, Payload: []byte{0, 0x53, 0x77, 0x40}},
		{Body: &amqp.Disposition{Role: amqp.RoleReceiver, First: 1, Last: ptr(uint32(2)), Settled: true,
			State: amqp.Accepted{}}},
		{Body: &amqp.Disposition{First: 1}},
		{Body: &amqp.Disposition{First: 1, State: amqp.Released{}}},
		{Body: &amqp.Disposition{First: 1, State: &amqp.Rejected{}}},
		{Body: &amqp.Disposition{First: 1, State: &amqp.Rejected{Error: &amqp.Error{Condition: "c:d",
			Description: "why", Info: amqp.Map{{Key: amqp.Symbol("k"), Value: "v"}}}}}},
		{Body: &amqp.Disposition{First: 1, State: &amqp.Modified{DeliveryFailed: true, UndeliverableHere: true,
			Annotations: amqp.Map{{Key: amqp.Symbol("k"), Value: "v"}}}}},
		{Body: &amqp.Disposition{First: 1, State: amqp.Described{Descriptor: uint64(0x23),
			Value: amqp.List{uint32(1), uint64(2)}}}},
		{Body: &amqp.Detach{Handle: 1, Closed: true, Error: amqp.Errorf(amqp.NotFound, "no %s", "q")}},
		{Body: &amqp.Detach{}},
		{Body: &amqp.End{}},
		{Body: &amqp.End{Error: &amqp.Error{Condition: amqp.WindowViolation}}},
		{Body: &amqp.Close{}},
		{Body: &amqp.Close{Error: &amqp.Error{Condition: amqp.ConnectionForced, Description: "bye"}}},
		{Type: amqp.FrameSASL, Body: &amqp.SASLMechanisms{Mechanisms: []amqp.Symbol{"MSSBCBS", "ANONYMOUS"}}},
		{Type: amqp.FrameSASL, Body: &amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00u\x00p")}},
		{Type: amqp.FrameSASL, Body: &amqp.SASLOutcome{Code: 1}},
	}
}

func TestEveryFrameComesBackAsItWent(t *testing.T) {
	var stream []byte
	for _, f := range frames() {
		stream = amqp.AppendFrame(stream, f)
	}
	r := bytes.NewReader(stream)
	for _, want := range frames() {
		got, err := amqp.ReadFrame(r, 65536)
		if err != nil {
			t.Fatalf("%T: %v", want.Body, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T came back as\n%+v, want\n%+v", want.Body, got, want)
		}
	}
	if _, err := amqp.ReadFrame(r, 65536); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestOneMechanismNeedsNoArray(t *testing.T) {
	raw := []byte{0, 0, 0, 0, 2, amqp.FrameSASL, 0, 0}
	raw = amqp.Append(raw, amqp.Described{Descriptor: uint64(0x40), Value: amqp.List{amqp.Symbol("ANONYMOUS")}})
	binary.BigEndian.PutUint32(raw, uint32(len(raw)))
	f, err := amqp.ReadFrame(bytes.NewReader(raw), 512)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mechanisms", f.Body, any(&amqp.SASLMechanisms{Mechanisms: []amqp.Symbol{"ANONYMOUS"}}))
}

func TestAnExtendedHeaderIsSkipped(t *testing.T) {
	raw := amqp.AppendFrame(nil, amqp.Frame{Channel: 3, Body: &amqp.End{}})
	raw[4] = 3
	raw = append(raw[:8:8], append([]byte{1, 2, 3, 4}, raw[8:]...)...)
	binary.BigEndian.PutUint32(raw, uint32(len(raw)))
	f, err := amqp.ReadFrame(bytes.NewReader(raw), 512)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "frame", f, amqp.Frame{Channel: 3, Body: &amqp.End{}})
}

// framed puts a value into a frame.
func framed(v any, more ...byte) []byte {
	raw := amqp.Append([]byte{0, 0, 0, 0, 2, 0, 0, 0}, v)
	raw = append(raw, more...)
	binary.BigEndian.PutUint32(raw, uint32(len(raw)))
	return raw
}

func described(code uint64, fields ...any) amqp.Described {
	return amqp.Described{Descriptor: code, Value: amqp.List(fields)}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"shorter than its header": {0, 0, 0, 7, 2, 0, 0, 0},
		"longer than the limit":   {0, 0, 2, 1, 2, 0, 0, 0},
		"data before the header":  {0, 0, 0, 8, 1, 0, 0, 0},
		"data after the end":      {0, 0, 0, 8, 3, 0, 0, 0},
		"unknown type":            {0, 0, 0, 8, 2, 9, 0, 0},
		"no described list":       framed("x"),
		"a symbol as descriptor": framed(amqp.Described{Descriptor: amqp.Symbol("amqp:open:list"),
			Value: amqp.List{"c"}}),
		"a map as fields":            framed(amqp.Described{Descriptor: uint64(0x10), Value: amqp.Map{}}),
		"an unknown performative":    framed(described(0x19)),
		"open without a container":   framed(described(0x10)),
		"open with a number":         framed(described(0x10, uint32(1))),
		"attach without a handle":    framed(described(0x12, "l")),
		"attach with a wrong source": framed(described(0x12, "l", uint32(0), true, nil, nil, described(0x29))),
		"source with a wrong field": framed(described(0x12, "l", uint32(0), true, nil, nil,
			described(0x28, uint32(1)))),
		"target with a wrong field": framed(described(0x12, "l", uint32(0), true, nil, nil, nil,
			described(0x29, uint32(1)))),
		"source that is none":        framed(described(0x12, "l", uint32(0), true, nil, nil, "source")),
		"state that is none":         framed(described(0x15, true, uint32(0), nil, nil, "accepted")),
		"rejected by a number":       framed(described(0x15, true, uint32(0), nil, nil, described(0x25, uint32(1)))),
		"modified by a number":       framed(described(0x15, true, uint32(0), nil, nil, described(0x27, uint32(1)))),
		"error without a condition":  framed(described(0x18, described(0x1d))),
		"error with a wrong text":    framed(described(0x18, described(0x1d, amqp.Symbol("c"), uint32(1)))),
		"mechanisms of numbers":      framed(described(0x40, amqp.Array{Code: amqp.CodeLong, Items: []any{int64(1)}})),
		"no mechanisms":              framed(described(0x40)),
		"init without a mechanism":   framed(described(0x41)),
		"bytes after a performative": framed(described(0x17), 0x40),
	} {
		if f, err := amqp.ReadFrame(bytes.NewReader(raw), 512); !errors.Is(err, amqp.ErrMalformed) {
			t.Errorf("%s: read as %+v, %v", name, f.Body, err)
		}
	}
	whole := amqp.AppendFrame(nil, amqp.Frame{Body: &amqp.End{}})
	if _, err := amqp.ReadFrame(bytes.NewReader(whole[:len(whole)-1]), 512); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame: %v", err)
	}
}

func TestALimitIsTheLastLengthAllowed(t *testing.T) {
	f := amqp.Frame{Body: &amqp.Transfer{}}
	f.Payload = make([]byte, 512-len(amqp.AppendFrame(nil, f)))
	raw := amqp.AppendFrame(nil, f)
	if _, err := amqp.ReadFrame(bytes.NewReader(raw), 512); err != nil {
		t.Errorf("512 bytes: %v", err)
	}
	if _, err := amqp.ReadFrame(bytes.NewReader(raw), 511); !errors.Is(err, amqp.ErrMalformed) {
		t.Errorf("one byte too many: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, frame := range frames() {
		f.Add(amqp.AppendFrame(nil, frame))
	}
	f.Add([]byte{0, 0, 0, 7, 2, 0, 0, 0})
	f.Add(framed("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := amqp.ReadFrame(bytes.NewReader(b), 4096)
		if err != nil {
			if !errors.Is(err, amqp.ErrMalformed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("error %v", err)
			}
			return
		}
		once := amqp.AppendFrame(nil, frame)
		again, err := amqp.ReadFrame(bytes.NewReader(once), 1<<20)
		if err != nil {
			t.Fatalf("%x was written as %x, which is not read: %v", b, once, err)
		}
		if twice := amqp.AppendFrame(nil, again); !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x", b, once, twice)
		}
	})
}
