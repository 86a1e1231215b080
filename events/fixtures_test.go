package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/events"
)

func more(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/more/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryFixtureIsOfAnEventThatIsMade(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, tt := range every() {
		made[tt.json] = true
	}
	for _, f := range files {
		if !made[golden(strings.TrimSuffix(filepath.Base(f), ".json"))] {
			t.Errorf("%s is the JSON of no event that the tests make", f)
		}
	}
	if got, want := len(files), len(every()); got != want {
		t.Errorf("%d fixtures, want %d: one for each event that the tests make", got, want)
	}
}

func TestADuplicateIsOneEvent(t *testing.T) {
	t.Parallel()
	first, err := events.Decode([]byte(golden("patrol.pat.rotated")))
	if err != nil {
		t.Fatal(err)
	}
	again, err := events.Decode(more(t, "duplicate"))
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != first.ID || again.Source != first.Source {
		t.Errorf("id and source %q, %q, want %q, %q", again.ID, again.Source, first.ID, first.Source)
	}
	if !reflect.DeepEqual(again.Data, first.Data) {
		t.Errorf("data\n%+v, want\n%+v", again.Data, first.Data)
	}
}

func TestATypeOfALaterVersionIsNoError(t *testing.T) {
	t.Parallel()
	e, err := events.Decode(more(t, "future-type"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := e.Data.(json.RawMessage); !ok {
		t.Errorf("data is a %T, want it as it came", e.Data)
	}
}

func TestAWordOfALaterVersionIsNoErrorInSchemaAndCode(t *testing.T) {
	t.Parallel()
	b := more(t, "future-words")
	e, err := events.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Data.(events.Rotated).Reason, "region-moved"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	for _, problem := range validate(t, events.TypeRotated, b) {
		t.Errorf("the schema: %s", problem)
	}
}

func TestAPoisonedEventIsRefusedBySchemaAndCode(t *testing.T) {
	t.Parallel()
	b := more(t, "poison")
	if _, err := events.Decode(b); !errors.Is(err, events.ErrData) {
		t.Errorf("error %v, want ErrData", err)
	}
	if len(validate(t, events.TypeRotated, b)) == 0 {
		t.Error("the schema takes it")
	}
}

// What Encode writes, the schema takes; and what the schema takes of patrol's own
// fields, Decode reads and Encode writes again.
func TestEncodeRefusesWhatTheSchemaRefuses(t *testing.T) {
	t.Parallel()
	wrong := []string{"", " ", "no%zz uri", "http://[", "Ä", "a/b", strings.Repeat("ä", 201), "not-known-yet",
		"2026-11-24T12:00:00Z"}
	checked := 0
	for name, tt := range every() {
		for _, path := range leaves(parse(t, []byte(tt.json))["data"], nil) {
			for _, value := range wrong {
				whole := parse(t, []byte(tt.json))
				replace(whole["data"], path, value)
				b, err := json.Marshal(whole)
				if err != nil {
					t.Fatal(err)
				}
				what := fmt.Sprintf("%s: %s = %q", name, strings.Join(path, "."), value)
				agree(t, what, tt.event.Type, b)
				checked++
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d changes were checked: the test looks in the wrong place", checked)
	}
}

func agree(t *testing.T, what, eventType string, b []byte) {
	t.Helper()
	problems := validate(t, eventType, b)
	e, err := events.Decode(b)
	if err != nil {
		if len(problems) == 0 {
			t.Errorf("%s: the schema takes it, Decode says %v", what, err)
		}
		return
	}
	out, err := events.Encode(e)
	switch {
	case err != nil && len(problems) == 0:
		t.Errorf("%s: the schema takes it, Encode says %v", what, err)
	case err == nil && len(problems) > 0 && len(validate(t, eventType, out)) > 0:
		t.Errorf("%s: Encode takes it, the schema says %v", what, problems)
	}
}

func parse(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// leaves gives the ways to all texts of a value.
func leaves(v any, way []string) [][]string {
	var out [][]string
	switch v := v.(type) {
	case string:
		return [][]string{slices.Clone(way)}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, leaves(v[k], append(way, k))...)
		}
	case []any:
		for i, item := range v {
			out = append(out, leaves(item, append(way, fmt.Sprint(i)))...)
		}
	}
	return out
}

func replace(v any, way []string, value string) {
	for i, step := range way {
		isLast := i == len(way)-1
		switch in := v.(type) {
		case map[string]any:
			if isLast {
				in[step] = value
			}
			v = in[step]
		case []any:
			var n int
			_, _ = fmt.Sscan(step, &n)
			if isLast {
				in[n] = value
			}
			v = in[n]
		}
	}
}

func TestTheDataSchemaStandsApartFromTheEnvelope(t *testing.T) {
	t.Parallel()
	for _, typ := range append(events.Types(), events.TypeConfirmed) {
		b, err := events.DataSchema(typ)
		if err != nil {
			t.Fatal(err)
		}
		schema := parse(t, b)
		uri := events.DataSchemaURI(typ)
		if got := schema["$id"]; got != uri {
			t.Errorf("%s: $id %v, want the dataschema of its events, %s", typ, got, uri)
		}
		if !strings.Contains(uri, "/v1/") {
			t.Errorf("%s: dataschema %s has no version", typ, uri)
		}
		properties, ok := schema["properties"].(map[string]any)
		if _, has := properties["specversion"]; has || !ok {
			t.Errorf("%s: the schema of the data describes the envelope", typ)
		}
	}
	b, err := events.EnvelopeSchema()
	if err != nil {
		t.Fatal(err)
	}
	if parse(t, b)["properties"] == nil {
		t.Error("the envelope's schema describes nothing")
	}
	if got := events.DataSchemaURI("patrol.pat.unheard-of"); got != "" {
		t.Errorf("dataschema of an unknown type is %q, want none", got)
	}
}

// Words of patrol may be new ones tomorrow: no schema of an event closes a list of them.
func TestNoSchemaOfAnEventClosesAListOfWords(t *testing.T) {
	t.Parallel()
	for _, typ := range events.Types() {
		b, err := events.Schema(typ)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), `"enum"`) || strings.Contains(string(b), `"additionalProperties"`) {
			t.Errorf("%s: a reader by its schema would refuse what a later version adds", typ)
		}
	}
}

func TestMessagesAreNamedAsOnTheWire(t *testing.T) {
	t.Parallel()
	long := events.NewSwitchFailed(source, noon, events.SwitchFailed{Replacement: replacement,
		Consumer: strings.Repeat("c", 130)})
	if got, want := len(long.MessageID()), 64; got != want {
		t.Errorf("a long id gives a message id of %d characters, want the %d of a digest", got, want)
	}
	e := rotated()
	if got := e.MessageID(); got != e.ID {
		t.Errorf("message id %q, want %q", got, e.ID)
	}
	if got := e.SessionID(); got != e.Subject {
		t.Errorf("session id %q, want %q", got, e.Subject)
	}
	e.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, name := range []string{"traceparent", "Diagnostic-Id"} {
		if got := e.Properties()[name]; got != e.TraceParent {
			t.Errorf("property %s is %v, want %s", name, got, e.TraceParent)
		}
	}
}
