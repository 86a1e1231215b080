package customhandler

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// This test is inside the package: the decoders are nobody's API.

func recorded(tb testing.TB, pattern string) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/captures/" + pattern)
	if err != nil {
		tb.Fatal(err)
	}
	if len(files) == 0 {
		tb.Fatalf("no captures named %s", pattern)
	}
	bodies := map[string][]byte{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var c struct{ Body json.RawMessage }
		if err := json.Unmarshal(b, &c); err != nil {
			tb.Fatal(err)
		}
		bodies[filepath.Base(file)] = c.Body
	}
	return bodies
}

func FuzzEnvelope(f *testing.F) {
	for _, body := range recorded(f, "*.json") {
		f.Add([]byte(body))
	}
	f.Add([]byte(`{"Data":{"m":"\"{\\\"a\\\":1}\""},` +
		`"Metadata":{"MessageId":"\"x\"","EnqueuedTimeUtc":"2026-11-03T07:15:22"}}`))
	f.Add([]byte(`{"data":{"m":["YQ=="]},"metadata":{"MessageIdArray":["x"],"ApplicationPropertiesArray":"[{}]"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := decodeTimer(b)
		checkRefusal(t, "timer", err)
		m, err := decodeMessage(b)
		checkRefusal(t, "message", err)
		if m.Trusted {
			return
		}
		if onlyBody := (Message{Body: m.Body}); !reflect.DeepEqual(m, onlyBody) {
			t.Fatalf("metadata of a text body believed:\n got %+v\nwant %+v", m, onlyBody)
		}
	})
}

func checkRefusal(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errEnvelope) {
		t.Fatalf("%s: got error %v, want one that wraps %v", what, err, errEnvelope)
	}
}

// ceiling is what one Service Bus invocation may allocate while it is decoded.
const ceiling = 52

func TestDecodingAMessageStaysBelowItsAllocationCeiling(t *testing.T) {
	body := recorded(t, "servicebus-binary.json")["servicebus-binary.json"]
	got := testing.AllocsPerRun(100, func() {
		if _, err := decodeMessage(body); err != nil {
			t.Fatal(err)
		}
	})
	if got > ceiling {
		t.Errorf("%.0f allocations, the ceiling is %d", got, ceiling)
	}
}

func BenchmarkDecodeMessage(b *testing.B) {
	body := recorded(b, "servicebus-binary.json")["servicebus-binary.json"]
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := decodeMessage(body); err != nil {
			b.Fatal(err)
		}
	}
}
