package events_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
)

func TestAnEventCarriesTheTraceItWasSentIn(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e := events.NewSignedIn("/patrol/contoso.vault.azure.net", time.Unix(1795507200, 0),
		events.SignedIn{Identity: "build-bot", User: "build-bot@contoso.com"})
	for given, want := range map[string]string{parent: parent, "": "", "00-1": "", parent + "\n": "",
		strings.ToUpper(parent): ""} {
		e.TraceParent = given
		b, err := events.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		var wire struct {
			TraceParent *string `json:"traceparent"`
		}
		if err := json.Unmarshal(b, &wire); err != nil {
			t.Fatal(err)
		}
		if want == "" && wire.TraceParent != nil {
			t.Errorf("%q is encoded, as %q: want no traceparent", given, *wire.TraceParent)
		}
		if want != "" && (wire.TraceParent == nil || *wire.TraceParent != want) {
			t.Errorf("%q is encoded as %s, want the traceparent %q", given, b, want)
		}
		back, err := events.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if back.TraceParent != want {
			t.Errorf("%q comes back as %q, want %q", given, back.TraceParent, want)
		}
	}
	// An event is not refused for what somebody on its way made of its trace.
	for _, broken := range []string{`17`, `null`, `{}`, `"x"`} {
		b := `{"specversion":"1.0","id":"x","source":"/patrol/v","type":"other","traceparent":` + broken + `}`
		got, err := events.Decode([]byte(b))
		if err != nil {
			t.Errorf("traceparent %s: %v", broken, err)
		}
		if got.TraceParent != "" {
			t.Errorf("traceparent %s comes back as %q, want none", broken, got.TraceParent)
		}
	}
}
