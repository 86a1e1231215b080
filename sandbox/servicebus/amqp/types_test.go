package amqp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

func decodeAll(t *testing.T, b []byte) any {
	t.Helper()
	v, rest, err := amqp.Decode(b)
	if err != nil {
		t.Fatalf("decoding %x: %v", b, err)
	}
	if len(rest) > 0 {
		t.Fatalf("decoding %x: %d bytes left", b, len(rest))
	}
	return v
}

func values() []any {
	return []any{
		nil, true, false,
		uint8(0), uint8(255), uint16(0), uint16(65535),
		uint32(0), uint32(1), uint32(255), uint32(256), uint32(math.MaxUint32),
		uint64(0), uint64(255), uint64(256), uint64(math.MaxUint64),
		int8(-128), int8(127), int16(math.MinInt16),
		int32(0), int32(-128), int32(127), int32(128), int32(math.MinInt32),
		int64(0), int64(-128), int64(-129), int64(math.MaxInt64),
		float32(1.5), float64(-2.25), math.Inf(1),
		amqp.Char('ü'), amqp.Decimal{Code: 0x74, Raw: "1234"}, amqp.Decimal{Code: 0x94, Raw: "0123456789abcdef"},
		time.UnixMilli(0).UTC(), time.UnixMilli(-1).UTC(), time.Date(2026, 11, 24, 1, 2, 3, 4e6, time.UTC),
		amqp.UUID{1, 2, 3, 15: 16},
		[]byte{}, []byte{1, 2}, bytes.Repeat([]byte{7}, 255), bytes.Repeat([]byte{7}, 256),
		"", "grüß", strings.Repeat("x", 255), strings.Repeat("x", 256),
		amqp.Symbol(""), amqp.Symbol("amqp:x"), amqp.Symbol(strings.Repeat("s", 300)),
		amqp.List{nil, int32(1), "two", amqp.List{true}}, amqp.List{strings.Repeat("x", 400)},
		amqp.Map{{Key: "a", Value: int64(1)}, {Key: amqp.Symbol("b"), Value: nil},
			{Key: int32(3), Value: amqp.Map{{Key: true, Value: false}}}},
		amqp.Map{{Key: amqp.List{"unhashable"}, Value: amqp.Map{}}},
		amqp.Array{Code: amqp.CodeLong, Items: []any{int64(1), int64(-1)}},
		amqp.Array{Code: amqp.CodeTimestamp, Items: []any{time.UnixMilli(5).UTC()}},
		amqp.Array{Code: amqp.CodeUUID, Items: []any{amqp.UUID{9}}},
		amqp.Array{Code: amqp.CodeString, Items: []any{"a", "bb"}},
		amqp.Array{Code: amqp.CodeSymbol, Items: []any{amqp.Symbol("a")}},
		amqp.Array{Code: 0x45, Items: []any{amqp.List(nil), amqp.List(nil)}},
		amqp.Array{Code: 0xd0, Items: []any{amqp.List{"x"}, amqp.List{int32(1), nil}}},
		amqp.Array{Code: 0x41, Items: []any{true, true}},
		amqp.Array{Code: 0xa1, Descriptor: uint64(7), Items: []any{"x", "y"}},
		amqp.Array{Code: amqp.CodeLong},
		amqp.Described{Descriptor: uint64(0x137000000C), Value: "session"},
		amqp.Described{Descriptor: amqp.Symbol("x:y"), Value: amqp.List{nil}},
	}
}

func TestEveryTypeComesBackAsItWent(t *testing.T) {
	for _, v := range values() {
		if got := decodeAll(t, amqp.Append(nil, v)); !reflect.DeepEqual(got, v) {
			t.Errorf("%T %v came back as %T %v", v, v, got, got)
		}
	}
}

func TestAnEmptyListIsOneByte(t *testing.T) {
	for _, v := range []amqp.List{nil, {}} {
		if b := amqp.Append(nil, v); !bytes.Equal(b, []byte{0x45}) {
			t.Errorf("written as %x", b)
		}
	}
	if l, ok := decodeAll(t, []byte{0x45}).(amqp.List); !ok || len(l) != 0 {
		t.Errorf("read as %v", l)
	}
}

func TestTheSmallestFormIsWritten(t *testing.T) {
	for _, tc := range []struct {
		v    any
		want string
	}{
		{uint32(0), "43"}, {uint32(200), "52c8"}, {uint32(300), "700000012c"},
		{uint64(0), "44"}, {uint64(200), "53c8"}, {int32(-1), "54ff"}, {int64(127), "557f"},
		{"ab", "a1026162"}, {amqp.Symbol("ab"), "a3026162"}, {[]byte("ab"), "a0026162"}, {true, "41"}, {nil, "40"},
	} {
		if got := hex.EncodeToString(amqp.Append(nil, tc.v)); got != tc.want {
			t.Errorf("%T %v is written as %s, want %s", tc.v, tc.v, got, tc.want)
		}
	}
}

func TestOtherFormsAreRead(t *testing.T) {
	for _, tc := range []struct {
		wire string
		want any
	}{
		{"5601", true}, {"5600", false},
		{"7000000001", uint32(1)}, {"8000000000000000ff", uint64(255)},
		{"b100000002" + "6162", "ab"}, {"b300000001" + "61", amqp.Symbol("a")}, {"b000000001" + "ff", []byte{0xff}},
		{"c00302" + "4142", amqp.List{true, false}}, {"d00000000600000002" + "4142", amqp.List{true, false}},
		{"c10502" + "a10161" + "41", amqp.Map{{Key: "a", Value: true}}},
		{"e00602a3" + "01610162", amqp.Array{Code: amqp.CodeSymbol &^ 0x10, Items: []any{amqp.Symbol("a"),
			amqp.Symbol("b")}}},
		{"e00602c0" + "01000100", amqp.Array{Code: 0xd0, Items: []any{amqp.List{}, amqp.List{}}}},
	} {
		b, err := hex.DecodeString(tc.wire)
		if err != nil {
			t.Fatal(err)
		}
		v, _, err := amqp.Decode(b)
		if err != nil || !reflect.DeepEqual(v, tc.want) {
			t.Errorf("%s: %v, %v; want %v", tc.wire, v, err, tc.want)
		}
	}
}

func TestWhatFollowsAValueIsLeft(t *testing.T) {
	v, rest, err := amqp.Decode([]byte{0x52, 7, 0x41, 0x42})
	if err != nil || v != uint32(7) || !bytes.Equal(rest, []byte{0x41, 0x42}) {
		t.Errorf("%v, %x, %v", v, rest, err)
	}
}

func TestMalformedValuesAreRefused(t *testing.T) {
	deep := ""
	for range 40 {
		deep = hex.EncodeToString(nested(deep))
	}
	for name, wire := range map[string]string{
		"nothing":                         "",
		"unknown type":                    "3f",
		"unknown fixed type":              "57" + "00",
		"unknown variable type":           "a201ff",
		"half a number":                   "7000",
		"half a string":                   "a10561",
		"string not UTF-8":                "a101ff",
		"size beyond the end":             "b1ffffffff",
		"boolean 2":                       "5602",
		"described without a value":       "005301",
		"described by null":               "004041",
		"descriptor of a descriptor":      "0053010053014041",
		"list longer than the bytes":      "d000000008ffffffff41414141",
		"list of more values than bytes":  "c002ff41",
		"list with bytes left over":       "c0030141" + "41",
		"map of odd count":                "c1020141",
		"array with half an item":         "e00402a3" + "0161",
		"array of more items than values": "f0000000090fffffff" + "4041414141",
		"compound beyond the end":         "d0000000ff00000001",
		"item reaching out of its list":   "c00301" + "a105" + "6162636465",
		"nested too deep":                 deep,
		"descriptors too deep":            strings.Repeat("00", 64) + "41",
	} {
		b, err := hex.DecodeString(wire)
		if err != nil {
			t.Fatal(err)
		}
		if v, _, err := amqp.Decode(b); !errors.Is(err, amqp.ErrMalformed) {
			t.Errorf("%s: read as %v, %v", name, v, err)
		}
	}
}

// nested puts a value, in hex, into a list.
func nested(inner string) []byte {
	b, _ := hex.DecodeString(inner)
	if len(b) == 0 {
		b = []byte{0x40}
	}
	return append([]byte{0xd0, 0, 0, byte((len(b) + 4) >> 8), byte(len(b) + 4), 0, 0, 0, 1}, b...)
}

func TestAnArrayOfNothingsIsBounded(t *testing.T) {
	// Items without bytes cost the sender nothing, so their count is limited.
	b := []byte{0xf0, 0, 0, 0, 5, 0, 0x0f, 0, 0, 0x40}
	if _, _, err := amqp.Decode(b); !errors.Is(err, amqp.ErrMalformed) {
		t.Errorf("error %v", err)
	}
}

func TestMapsAreChangedAsCopies(t *testing.T) {
	m := amqp.Map{{Key: amqp.Symbol("a"), Value: 1}, {Key: "b", Value: 2}, {Key: "a", Value: 3}}
	with := m.With("a", 9)
	if with.Get("a") != 9 || len(with) != 2 {
		t.Errorf("with: %v", with)
	}
	if without := m.Without("a"); without.Get("a") != nil || len(without) != 1 {
		t.Errorf("without: %v", without)
	}
	if m.Get("a") != 1 || len(m) != 3 {
		t.Errorf("the original has changed: %v", m)
	}
	if more := m.With("c", 4); more.Get("c") != 4 || len(more) != 3 && len(more) != 4 {
		t.Errorf("with c: %v", more)
	}
	if m.With(int32(1), "x").Get("1") != nil {
		t.Error("a number is found by its text")
	}
}

func TestAForeignTypeIsAMistakeOfTheProgram(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it was written")
		}
	}()
	amqp.Append(nil, struct{}{})
}

func FuzzDecode(f *testing.F) {
	for _, v := range values() {
		f.Add(amqp.Append(nil, v))
	}
	f.Add([]byte{0xf0, 0, 0, 0, 5, 0, 0x0f, 0, 0, 0x40})
	f.Add([]byte{0xc1, 4, 2, 0x45, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := amqp.Decode(b)
		if err != nil {
			if !errors.Is(err, amqp.ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !bytes.HasSuffix(b, rest) {
			t.Fatal("what is left is no end of the input")
		}
		// What was read can be written, and then reads as the same bytes again.
		once := amqp.Append(nil, v)
		again, rest, err := amqp.Decode(once)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%x was written as %x, which is not read: %v", b, once, err)
		}
		if twice := amqp.Append(nil, again); !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x", b, once, twice)
		}
	})
}
