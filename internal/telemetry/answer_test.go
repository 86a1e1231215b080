package telemetry_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/azure-patrol/patrol/internal/telemetry"
)

func TestWhatACollectorHasNotTakenIsRead(t *testing.T) {
	t.Parallel()
	// ExportTraceServiceResponse{partial_success: {rejected_spans: 300, error_message: "too old"}}
	partial := append([]byte{0x0a, 12, 0x08, 0xac, 0x02, 0x12, 7}, "too old"...)
	for name, tc := range map[string]struct {
		answer []byte
		want   int64
	}{
		"partial":          {partial, 300},
		"nothing":          {nil, 0},
		"cut":              {partial[:len(partial)-2], 0},
		"JSON":             {[]byte(`{"partialSuccess":{}}`), 0},
		"an unknown field": {append([]byte{0x10, 5}, partial...), 300},
		"a length past it": {append([]byte{0x0a}, binary.AppendUvarint(nil, math.MaxUint64)...), 0},
	} {
		if got := telemetry.Rejected(tc.answer); got != tc.want {
			t.Errorf("%s: %d rejected, want %d", name, got, tc.want)
		}
	}
}

func FuzzCollectorsAnswer(f *testing.F) {
	f.Add([]byte{0x0a, 2, 8, 1})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if telemetry.Rejected(answer) != 0 && len(answer) < 4 {
			t.Error("rejected spans in an answer that has no room for them")
		}
	})
}
