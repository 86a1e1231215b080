// Package amqp is the AMQP 1.0 wire format: values, frames with their
// performatives, SASL bodies and message sections, read with limits and written.
//
// It keeps no connection state and knows nothing of Service Bus.
package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// The Go types of AMQP values: nil, bool, uint8 to uint64, int8 to int64,
// float32, float64, string, []byte, time.Time (timestamp), and those below.
type (
	Symbol string
	UUID   [16]byte
	Char   rune
	// Decimal is a decimal number, carried through and not understood.
	Decimal struct {
		Code byte // 0x74, 0x84 or 0x94
		Raw  string
	}
	List []any
	// Map keeps the order and any kind of key.
	Map  []Pair
	Pair struct{ Key, Value any }
	// Array holds items of one type; Code is its constructor.
	Array struct {
		Code       byte
		Descriptor any // of described items, else nil
		Items      []any
	}
	Described struct{ Descriptor, Value any }
)

// Constructors of the arrays that a broker answers with.
const (
	CodeLong      byte = 0x81
	CodeTimestamp byte = 0x83
	CodeUUID      byte = 0x98
	CodeString    byte = 0xb1
	CodeSymbol    byte = 0xb3
)

// Get returns the value at a string or symbol key.
func (m Map) Get(key string) any {
	for _, p := range m {
		switch k := p.Key.(type) {
		case string:
			if k == key {
				return p.Value
			}
		case Symbol:
			if string(k) == key {
				return p.Value
			}
		}
	}
	return nil
}

// With returns a copy in which key (of its own type) has the value.
func (m Map) With(key, value any) Map {
	out := make(Map, 0, len(m)+1)
	name := text(key)
	done := false
	for _, p := range m {
		if text(p.Key) == name {
			if done {
				continue
			}
			p.Value, done = value, true
		}
		out = append(out, p)
	}
	if !done {
		out = append(out, Pair{key, value})
	}
	return out
}

// Without returns a copy without a key.
func (m Map) Without(key string) Map {
	out := make(Map, 0, len(m))
	for _, p := range m {
		if text(p.Key) != key {
			out = append(out, p)
		}
	}
	return out
}

func text(key any) string {
	switch k := key.(type) {
	case string:
		return k
	case Symbol:
		return string(k)
	}
	return fmt.Sprintf("%T %v", key, key)
}

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed AMQP")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Limits of what one decoding may hold; far above what a client of Service Bus
// sends, far below what would hurt.
const (
	maxDepth = 32
	maxItems = 1 << 18
)

// decoder reads values from buf. The first error sticks.
type decoder struct {
	buf   []byte
	pos   int
	depth int
	items int
}

func (d *decoder) rest() []byte { return d.buf[d.pos:] }

func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.buf)-d.pos {
		return nil, malformed("value of %d bytes, %d left", n, len(d.buf)-d.pos)
	}
	b := d.buf[d.pos : d.pos+n]
	d.pos += n
	return b, nil
}

func (d *decoder) size(width int) (int, error) {
	b, err := d.take(width)
	if err != nil {
		return 0, err
	}
	if width == 1 {
		return int(b[0]), nil
	}
	n := binary.BigEndian.Uint32(b)
	if n > math.MaxInt32 {
		return 0, malformed("size %d", n)
	}
	return int(n), nil
}

// constructor reads a type code and, if the value is described, its descriptor.
func (d *decoder) constructor() (code byte, descriptor any, err error) {
	b, err := d.take(1)
	if err != nil {
		return 0, nil, err
	}
	if b[0] != 0 {
		return b[0], nil, nil
	}
	d.depth++
	if d.depth > maxDepth {
		return 0, nil, malformed("nested deeper than %d", maxDepth)
	}
	defer func() { d.depth-- }()
	descriptor, err = d.value()
	if err != nil {
		return 0, nil, err
	}
	if descriptor == nil {
		return 0, nil, malformed("null descriptor")
	}
	b, err = d.take(1)
	if err != nil {
		return 0, nil, err
	}
	if b[0] == 0 {
		return 0, nil, malformed("descriptor of a descriptor")
	}
	return b[0], descriptor, nil
}

func (d *decoder) value() (any, error) {
	code, descriptor, err := d.constructor()
	if err != nil {
		return nil, err
	}
	v, err := d.plain(code)
	if err != nil || descriptor == nil {
		return v, err
	}
	return Described{descriptor, v}, nil
}

func (d *decoder) plain(code byte) (any, error) {
	d.items++
	if d.items > maxItems {
		return nil, malformed("more than %d values", maxItems)
	}
	switch code {
	case 0x40:
		return nil, nil
	case 0x41:
		return true, nil
	case 0x42:
		return false, nil
	case 0x43:
		return uint32(0), nil
	case 0x44:
		return uint64(0), nil
	case 0x45:
		return List(nil), nil
	}
	switch code >> 4 {
	case 0x5, 0x6, 0x7, 0x8, 0x9:
		width := 1 << (code>>4 - 5)
		b, err := d.take(width)
		if err != nil {
			return nil, err
		}
		return fixed(code, b)
	case 0xa, 0xb:
		width := 1
		if code>>4 == 0xb {
			width = 4
		}
		n, err := d.size(width)
		if err != nil {
			return nil, err
		}
		b, err := d.take(n)
		if err != nil {
			return nil, err
		}
		switch code & 0xf {
		case 0x0:
			return b, nil
		case 0x1:
			if !utf8.Valid(b) {
				return nil, malformed("string is not UTF-8")
			}
			return string(b), nil
		case 0x3:
			return Symbol(b), nil
		}
	case 0xc, 0xd, 0xe, 0xf:
		return d.compound(code)
	}
	return nil, malformed("type code %#02x", code)
}

func fixed(code byte, b []byte) (any, error) {
	switch code {
	case 0x50:
		return b[0], nil
	case 0x51:
		return int8(b[0]), nil
	case 0x52:
		return uint32(b[0]), nil
	case 0x53:
		return uint64(b[0]), nil
	case 0x54:
		return int32(int8(b[0])), nil
	case 0x55:
		return int64(int8(b[0])), nil
	case 0x56:
		if b[0] > 1 {
			return nil, malformed("boolean %d", b[0])
		}
		return b[0] == 1, nil
	case 0x60:
		return binary.BigEndian.Uint16(b), nil
	case 0x61:
		return int16(binary.BigEndian.Uint16(b)), nil
	case 0x70:
		return binary.BigEndian.Uint32(b), nil
	case 0x71:
		return int32(binary.BigEndian.Uint32(b)), nil
	case 0x72:
		return math.Float32frombits(binary.BigEndian.Uint32(b)), nil
	case 0x73:
		return Char(binary.BigEndian.Uint32(b)), nil
	case 0x80:
		return binary.BigEndian.Uint64(b), nil
	case 0x81:
		return int64(binary.BigEndian.Uint64(b)), nil
	case 0x82:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	case 0x83:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), nil
	case 0x98:
		return UUID(b), nil
	case 0x74, 0x84, 0x94:
		return Decimal{code, string(b)}, nil
	}
	return nil, malformed("type code %#02x", code)
}

// compound reads a list, map or array: size, count, content.
func (d *decoder) compound(code byte) (any, error) {
	d.depth++
	if d.depth > maxDepth {
		return nil, malformed("nested deeper than %d", maxDepth)
	}
	defer func() { d.depth-- }()
	width := 1
	if code&0x10 != 0 {
		width = 4
	}
	size, err := d.size(width)
	if err != nil {
		return nil, err
	}
	if size > len(d.buf)-d.pos {
		return nil, malformed("compound of %d bytes, %d left", size, len(d.buf)-d.pos)
	}
	end := d.pos + size
	outer := d.buf
	d.buf = d.buf[:end]
	defer func() { d.buf = outer }()
	count, err := d.size(width)
	if err != nil {
		return nil, err
	}
	if count > maxItems-d.items {
		return nil, malformed("compound of %d values", count)
	}
	var v any
	switch code {
	case 0xc0, 0xd0:
		v, err = d.list(count)
	case 0xc1, 0xd1:
		v, err = d.pairs(count)
	case 0xe0, 0xf0:
		v, err = d.array(count)
	default:
		return nil, malformed("type code %#02x", code)
	}
	if err != nil {
		return nil, err
	}
	if d.pos != end {
		return nil, malformed("compound with %d bytes too many", end-d.pos)
	}
	return v, nil
}

func (d *decoder) list(count int) (any, error) {
	if count > len(d.rest()) {
		return nil, malformed("list of %d values in %d bytes", count, len(d.rest()))
	}
	l := make(List, 0, count)
	for range count {
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	return l, nil
}

func (d *decoder) pairs(count int) (any, error) {
	if count%2 != 0 || count > len(d.rest()) {
		return nil, malformed("map of %d values in %d bytes", count, len(d.rest()))
	}
	m := make(Map, 0, count/2)
	for range count / 2 {
		k, err := d.value()
		if err != nil {
			return nil, err
		}
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		m = append(m, Pair{k, v})
	}
	return m, nil
}

func (d *decoder) array(count int) (any, error) {
	code, descriptor, err := d.constructor()
	if err != nil {
		return nil, err
	}
	a := Array{Code: roomy(code), Descriptor: descriptor}
	if count > 0 {
		a.Items = make([]any, 0, min(count, len(d.rest())+1))
	}
	for range count {
		v, err := d.plain(code)
		if err != nil {
			return nil, err
		}
		a.Items = append(a.Items, v)
	}
	return a, nil
}

// roomy is the constructor of the same type whose items may be of any size.
func roomy(code byte) byte {
	switch code {
	case 0xc0, 0xc1, 0xe0:
		return code | 0x10
	}
	return code
}

// Decode reads one value and returns what follows it. Binary values are parts of b.
func Decode(b []byte) (v any, rest []byte, err error) {
	d := decoder{buf: b}
	v, err = d.value()
	if err != nil {
		return nil, nil, err
	}
	return v, d.rest(), nil
}

// Append writes a value. A value of another Go type than this package's is a
// mistake of the program, and panics.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40)
	case bool:
		if v {
			return append(b, 0x41)
		}
		return append(b, 0x42)
	case uint32:
		switch {
		case v == 0:
			return append(b, 0x43)
		case v < 256:
			return append(b, 0x52, byte(v))
		}
	case uint64:
		switch {
		case v == 0:
			return append(b, 0x44)
		case v < 256:
			return append(b, 0x53, byte(v))
		}
	case int32:
		if v >= -128 && v < 128 {
			return append(b, 0x54, byte(v))
		}
	case int64:
		if v >= -128 && v < 128 {
			return append(b, 0x55, byte(v))
		}
	case []byte:
		if len(v) < 256 {
			return append(append(b, 0xa0, byte(len(v))), v...)
		}
	case string:
		if len(v) < 256 {
			return append(append(b, 0xa1, byte(len(v))), v...)
		}
	case Symbol:
		if len(v) < 256 {
			return append(append(b, 0xa3, byte(len(v))), v...)
		}
	case List:
		if len(v) == 0 {
			return append(b, 0x45)
		}
	case Described:
		b = append(b, 0)
		b = Append(b, v.Descriptor)
		return Append(b, v.Value)
	}
	code := wide(v)
	return appendPlain(append(b, code), code, v)
}

// wide is the constructor that can hold every value of v's type.
func wide(v any) byte {
	switch v := v.(type) {
	case bool:
		return 0x56
	case uint8:
		return 0x50
	case uint16:
		return 0x60
	case uint32:
		return 0x70
	case uint64:
		return 0x80
	case int8:
		return 0x51
	case int16:
		return 0x61
	case int32:
		return 0x71
	case int64:
		return 0x81
	case float32:
		return 0x72
	case float64:
		return 0x82
	case Char:
		return 0x73
	case Decimal:
		return v.Code
	case time.Time:
		return 0x83
	case UUID:
		return 0x98
	case []byte:
		return 0xb0
	case string:
		return 0xb1
	case Symbol:
		return 0xb3
	case List:
		return 0xd0
	case Map:
		return 0xd1
	case Array:
		return 0xf0
	}
	panic(fmt.Sprintf("amqp: %T is not an AMQP value", v))
}

// appendPlain writes a value without its constructor.
func appendPlain(b []byte, code byte, v any) []byte {
	be := binary.BigEndian
	switch code {
	case 0x40, 0x41, 0x42, 0x43, 0x44, 0x45:
		return b
	case 0x50:
		return append(b, v.(uint8))
	case 0x51:
		return append(b, byte(v.(int8)))
	case 0x52:
		return append(b, byte(v.(uint32)))
	case 0x53:
		return append(b, byte(v.(uint64)))
	case 0x54:
		return append(b, byte(v.(int32)))
	case 0x55:
		return append(b, byte(v.(int64)))
	case 0x56:
		if v.(bool) {
			return append(b, 1)
		}
		return append(b, 0)
	case 0x60:
		return be.AppendUint16(b, v.(uint16))
	case 0x61:
		return be.AppendUint16(b, uint16(v.(int16)))
	case 0x70:
		return be.AppendUint32(b, v.(uint32))
	case 0x71:
		return be.AppendUint32(b, uint32(v.(int32)))
	case 0x72:
		return be.AppendUint32(b, math.Float32bits(v.(float32)))
	case 0x73:
		return be.AppendUint32(b, uint32(v.(Char)))
	case 0x80:
		return be.AppendUint64(b, v.(uint64))
	case 0x81:
		return be.AppendUint64(b, uint64(v.(int64)))
	case 0x82:
		return be.AppendUint64(b, math.Float64bits(v.(float64)))
	case 0x83:
		return be.AppendUint64(b, uint64(v.(time.Time).UnixMilli()))
	case 0x98:
		u := v.(UUID)
		return append(b, u[:]...)
	case 0x74, 0x84, 0x94:
		return append(b, v.(Decimal).Raw...)
	case 0xa0:
		return append(append(b, byte(len(v.([]byte)))), v.([]byte)...)
	case 0xa1:
		return append(append(b, byte(len(v.(string)))), v.(string)...)
	case 0xa3:
		return append(append(b, byte(len(v.(Symbol)))), v.(Symbol)...)
	case 0xb0:
		return append(be.AppendUint32(b, uint32(len(v.([]byte)))), v.([]byte)...)
	case 0xb1:
		return append(be.AppendUint32(b, uint32(len(v.(string)))), v.(string)...)
	case 0xb3:
		return append(be.AppendUint32(b, uint32(len(v.(Symbol)))), v.(Symbol)...)
	}
	// A compound: eight bytes for size and count, filled in at the end.
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	count := 0
	switch v := v.(type) {
	case List:
		count = len(v)
		for _, e := range v {
			b = Append(b, e)
		}
	case Map:
		count = 2 * len(v)
		for _, p := range v {
			b = Append(Append(b, p.Key), p.Value)
		}
	case Array:
		count = len(v.Items)
		if v.Descriptor != nil {
			b = Append(append(b, 0), v.Descriptor)
		}
		code := roomy(v.Code)
		b = append(b, code)
		for _, e := range v.Items {
			b = appendPlain(b, code, e)
		}
	}
	be.PutUint32(b[start:], uint32(len(b)-start-4))
	be.PutUint32(b[start+4:], uint32(count))
	return b
}

// String is the usual form with dashes.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
