package events_test

import (
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
		if has := strings.Contains(string(b), `"traceparent":"`+parent+`"`); has != (want != "") || want == "" &&
			strings.Contains(string(b), "traceparent") {
			t.Errorf("%q is encoded as %s", given, b)
		}
		got, err := events.Decode(b)
		if err != nil || got.TraceParent != want {
			t.Errorf("%q comes back as %q, %v", given, got.TraceParent, err)
		}
	}
	// An event is not refused for what somebody on its way made of its trace.
	for _, broken := range []string{`17`, `null`, `{}`, `"x"`} {
		b := `{"specversion":"1.0","id":"x","source":"/patrol/v","type":"other","traceparent":` + broken + `}`
		if got, err := events.Decode([]byte(b)); err != nil || got.TraceParent != "" {
			t.Errorf("traceparent %s: %q, %v", broken, got.TraceParent, err)
		}
	}
}
