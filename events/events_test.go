package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/azure-patrol/patrol/events"
)

const source = "/patrol/patrol-prod.vault.azure.net"

var (
	noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	// berlin makes sure that local times leave as UTC.
	berlin = time.FixedZone("CET", 3600)
)

func rotated() events.Event {
	return events.NewRotated(source, noon.In(berlin), events.Rotated{
		PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot", DisplayName: "Jenkins agents",
		Scopes: []string{"vso.agentpools_manage", "vso.build_execute"}, RotationID: "abcdefghij", Reason: "expiring",
		Secret: events.SecretRef{
			ID:   "https://patrol-prod.vault.azure.net/secrets/jenkins-agents/4f9d2c7be1a04d35b86f0a1c9e7d5b23",
			Name: "jenkins-agents", Version: "4f9d2c7be1a04d35b86f0a1c9e7d5b23"},
		AuthorizationID: "7d0c51b4-2e69-4b1f-8a77-5c9e04d1f322",
		ValidFrom:       noon, ValidTo: noon.AddDate(0, 0, 30).In(berlin),
		Previous: &events.Previous{Version: "0b61c3f0d7e24c6f9a8e5d4c3b2a1908",
			AuthorizationID: "1b2a7f0e-8a3c-4c55-9d61-3f0b8f2c7a11", RevokeAt: noon.Add(24 * time.Hour).In(berlin)},
	})
}

// sample is one event, and the JSON that subscribers rely on.
type sample struct {
	event events.Event
	json  string
}

// compact takes the spaces out of JSON that is written for people.
func compact(text string) string {
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(text)); err != nil {
		panic(err)
	}
	return out.String()
}

// golden is a fixture, as it is on the wire.
func golden(name string) string {
	b, err := os.ReadFile("testdata/events/" + name + ".json")
	if err != nil {
		panic(err)
	}
	return compact(string(b))
}

// every holds one event of each type, and more where they differ.
func every() map[string]sample {
	all := routine()
	maps.Copy(all, switchOver())
	return all
}

func routine() map[string]sample {
	first := rotated()
	d := first.Data.(events.Rotated)
	d.Previous, d.Scopes = nil, nil
	first.Data = d
	return map[string]sample{
		"rotated":        {rotated(), golden("patrol.pat.rotated")},
		"first rotation": {first, golden("patrol.pat.rotated.first")},
		"revoked": {events.NewRevoked(source, noon, events.Revoked{
			PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot", RotationID: "abcdefghij",
			AuthorizationID: "1b2a7f0e-8a3c-4c55-9d61-3f0b8f2c7a11",
			SecretVersion:   "0b61c3f0d7e24c6f9a8e5d4c3b2a1908", Cause: "overlap-ended",
		}), golden("patrol.pat.revoked")},
		"failed": {events.NewRotationFailed(source, noon.In(berlin), events.RotationFailed{
			PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot", RotationID: "abcdefghij",
			Step: "create", Class: "policy",
			Code: "patLifespanPolicyViolation", Message: "shorten lifetime & try again",
			ValidTo: events.TimeOrNull(noon.In(berlin)),
		}), golden("patrol.pat.rotation-failed")},
		"failed, and to be tried again": {events.NewRotationFailed(source, noon, events.RotationFailed{
			PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot", RotationID: "abcdefghij",
			Step:  "store",
			Class: "transient", Message: "an unexpected failure",
			RetryAt: events.TimeOrNull(noon.Add(15 * time.Minute).In(berlin)),
		}), golden("patrol.pat.rotation-failed.retry")},
		"message failed": {events.NewMessageFailed(source, noon, "pat-commands", 4711, events.RotationFailed{
			PAT: "jenkins-agents", RotationID: "abcdefghij", Step: "receive", Class: "configuration",
			Code: "not-a-command", Message: "find out who sent it",
		}), golden("patrol.pat.rotation-failed.message")},
		"expiring": {events.NewExpiring(source, noon, 7, events.Expiring{
			DisplayName: "old one", Organization: "contoso", Identity: "build-bot",
			AuthorizationID: "c3e8d9a0-64f7-4f0d-b1ce-20d7b7a8e655", ValidTo: noon.AddDate(0, 0, 7),
		}), golden("patrol.pat.expiring")},
		"signed in": {events.NewSignedIn(source, noon, events.SignedIn{
			Identity: "build-bot", User: "build-bot@contoso.com",
		}), golden("patrol.identity.signed-in")},
		"sign-in required": {events.NewSignInRequired(source, noon, events.SignInRequired{
			Identity: "build-bot", User: "build-bot@contoso.com", Code: "AADSTS700082",
			SignInURL: "https://patrol.example/api/identities/build-bot/signin",
		}), golden("patrol.identity.sign-in-required")},
		"sign-in expiring": {events.NewSignInExpiring(source, noon, events.SignInExpiring{
			Identity: "build-bot", User: "build-bot@contoso.com", Code: "inactivity",
			SignInURL: "https://patrol.example/api/identities/build-bot/signin",
			Until:     noon.AddDate(0, 0, 14).In(berlin),
		}), golden("patrol.identity.sign-in-expiring")},
		"incomplete": {events.NewCheckIncomplete(source, noon.In(berlin), events.CheckIncomplete{
			Scope: "organization", Identity: "build-bot", Organization: "contoso", Class: "policy",
			Code: "values-refused", Message: "see the organization's policies",
			Since: noon.Add(-36 * time.Hour).In(berlin), PATs: 12,
			NextEnd: events.TimeOrNull(noon.AddDate(0, 0, 2).In(berlin)),
		}), golden("patrol.check.incomplete")},
		"incomplete for all": {events.NewCheckIncomplete(source, noon, events.CheckIncomplete{
			Scope: "vault", Class: "configuration", Code: "vault-forbidden", Message: "give it the role", Since: noon,
		}), golden("patrol.check.incomplete.all")},
		"recovered": {events.NewCheckRecovered(source, noon, events.CheckRecovered{
			Scope: "organization", Identity: "build-bot", Organization: "contoso", Code: "values-refused",
			Since: noon.Add(-36 * time.Hour).In(berlin), PATs: 12,
			NextEnd: events.TimeOrNull(noon.AddDate(0, 0, 2).In(berlin)), Lasted: 129_600,
		}), golden("patrol.check.recovered")},
	}
}

func TestEachTypeHasItsExactJSONAndComesBackAsItWas(t *testing.T) {
	for name, tt := range every() {
		t.Run(name, func(t *testing.T) {
			b, err := events.Encode(tt.event)
			if err != nil {
				t.Fatal(err)
			}
			if string(b) != tt.json {
				t.Errorf("got\n%s\nwant\n%s", b, tt.json)
			}
			back, err := events.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := reflect.TypeOf(back.Data), reflect.TypeOf(tt.event.Data); got != want {
				t.Errorf("data came back as %v, went as %v", got, want)
			}
			again, err := events.Encode(back)
			if err != nil {
				t.Fatalf("encoding what was decoded: %v", err)
			}
			if string(again) != tt.json {
				t.Errorf("decoded and encoded again: got\n%s\nwant\n%s", again, tt.json)
			}
		})
	}
}

func TestProducedEventsFitTheirSchemas(t *testing.T) {
	seen := map[string]bool{}
	for name, tt := range every() {
		b, err := events.Encode(tt.event)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range validate(t, tt.event.Type, b) {
			t.Errorf("%s: %s", name, problem)
		}
		seen[tt.event.Type] = true
	}
	for _, typ := range events.Types() {
		if !seen[typ] {
			t.Errorf("no event of type %s was checked", typ)
		}
	}
	if _, err := events.Schema("patrol.pat.unheard-of"); err == nil {
		t.Error("a schema for a type that does not exist")
	}
}

func TestSchemasDeclareEveryFieldAndRefuseWrongEvents(t *testing.T) {
	optional := 0
	for name, tt := range every() {
		b, _ := events.Encode(tt.event)
		schema := schemaOf(t, tt.event.Type)
		declared := schema["properties"].(map[string]any)["data"].(map[string]any)
		var event map[string]any
		if err := json.Unmarshal(b, &event); err != nil {
			t.Fatal(err)
		}
		data := event["data"].(map[string]any)
		for field := range data {
			if _, ok := declared["properties"].(map[string]any)[field]; !ok {
				t.Errorf("%s: field %s is not in the schema", name, field)
			}
			if !slices.Contains(asList(declared["required"]), field) {
				optional++
				continue
			}
			without := maps.Clone(data)
			delete(without, field)
			event["data"] = without
			broken, _ := json.Marshal(event)
			if len(validate(t, tt.event.Type, broken)) == 0 {
				t.Errorf("%s: the schema takes an event without %s", name, field)
			}
		}
		event["data"], event["time"] = data, "yesterday"
		broken, _ := json.Marshal(event)
		if len(validate(t, tt.event.Type, broken)) == 0 {
			t.Errorf("%s: the schema takes any time", name)
		}
	}
	if want := 5; optional != want {
		t.Errorf("%d fields of the fixtures are optional in their schemas, want %d: identity, and a message", optional,
			want)
	}
}

func asList(v any) []string {
	var out []string
	for _, x := range v.([]any) {
		out = append(out, x.(string))
	}
	return out
}

func schemaOf(t *testing.T, eventType string) map[string]any {
	t.Helper()
	b, err := events.Schema(eventType)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatalf("schema of %s: %v", eventType, err)
	}
	return s
}

func validate(t *testing.T, eventType string, event []byte) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal(event, &v); err != nil {
		t.Fatal(err)
	}
	return check(schemaOf(t, eventType), v, "event")
}

// check knows the keywords that the schemas use and refuses all others, so that
// none can stand there without effect.
func check(schema map[string]any, v any, at string) (problems []string) {
	say := func(format string, args ...any) { problems = append(problems, at+": "+fmt.Sprintf(format, args...)) }
	for keyword, want := range schema {
		s, isString := v.(string)
		switch keyword {
		case "$schema", "$id", "title", "description":
		case "type":
			types, ok := want.([]any)
			if !ok {
				types = []any{want}
			}
			if !slices.ContainsFunc(types, func(t any) bool { return jsonType(v) == t }) {
				say("is %s, not %v", jsonType(v), want)
			}
		case "const":
			if !reflect.DeepEqual(v, want) {
				say("is not %v", want)
			}
		case "enum":
			if !slices.ContainsFunc(want.([]any), func(w any) bool { return reflect.DeepEqual(v, w) }) {
				say("is none of %v", want)
			}
		case "minLength":
			if isString && float64(len(s)) < want.(float64) {
				say("is too short")
			}
		case "maxLength":
			if isString && float64(utf8.RuneCountInString(s)) > want.(float64) {
				say("is too long")
			}
		case "pattern":
			if isString && !regexp.MustCompile(want.(string)).MatchString(s) {
				say("does not match %s", want)
			}
		case "format":
			switch want {
			case "date-time":
				if _, err := time.Parse(time.RFC3339Nano, s); isString && err != nil {
					say("is no date-time")
				}
			case "uri", "uri-reference":
				u, err := url.Parse(s)
				isGood := err == nil && (u.IsAbs() || want == "uri-reference")
				if isString && !isGood {
					say("is no %s", want)
				}
			default:
				say("the schema uses an unknown format %v", want)
			}
		case "required":
			if m, ok := v.(map[string]any); ok {
				for _, k := range want.([]any) {
					if _, there := m[k.(string)]; !there {
						say("%s is missing", k)
					}
				}
			}
		case "properties":
			if m, ok := v.(map[string]any); ok {
				for k, sub := range want.(map[string]any) {
					if value, there := m[k]; there {
						problems = append(problems, check(sub.(map[string]any), value, at+"."+k)...)
					}
				}
			}
		case "items":
			if list, ok := v.([]any); ok {
				for i, item := range list {
					problems = append(problems, check(want.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
				}
			}
		default:
			say("the schema uses an unknown keyword %s", keyword)
		}
	}
	return problems
}

func jsonType(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	}
	return "object"
}

func TestPropertiesAreWhatABrokerFiltersOn(t *testing.T) {
	for name, want := range map[string]map[string]any{
		"rotated": {"type": events.TypeRotated, "subject": "jenkins-agents", "organization": "contoso",
			"identity": "build-bot"},
		"revoked": {"type": events.TypeRevoked, "subject": "jenkins-agents", "organization": "contoso",
			"identity": "build-bot"},
		"failed": {"type": events.TypeRotationFailed, "subject": "jenkins-agents", "organization": "contoso",
			"identity": "build-bot"},
		"message failed": {"type": events.TypeRotationFailed, "subject": "jenkins-agents"},
		"delivered": {"type": events.TypeDelivered, "subject": "jenkins-agents", "organization": "contoso",
			"identity": "build-bot"},
		"expiring": {"type": events.TypeExpiring, "subject": "c3e8d9a0-64f7-4f0d-b1ce-20d7b7a8e655",
			"organization": "contoso", "identity": "build-bot"},
		"signed in": {"type": events.TypeSignedIn, "subject": "build-bot", "identity": "build-bot"},
		"incomplete": {"type": events.TypeCheckIncomplete, "subject": "organization", "organization": "contoso",
			"identity": "build-bot"},
		"incomplete for all": {"type": events.TypeCheckIncomplete, "subject": "vault"},
		"recovered": {"type": events.TypeCheckRecovered, "subject": "organization", "organization": "contoso",
			"identity": "build-bot"},
	} {
		if got := every()[name].event.Properties(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func TestDecodeToleratesWhatLaterVersionsAdd(t *testing.T) {
	e, err := events.Decode([]byte(`{"specversion":"1.0", "id":"x/revoked/a", "source":"/patrol/v",
		"type":"patrol.pat.revoked", "subject":"p", "time":"2026-11-24T13:00:00.5+01:00", "traceparent":"00-1",
		"data":{"pat":"p", "authorizationId":"a", "cause":"a new one", "region":{"a":1}}, "ID":"other"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := events.Event{ID: "x/revoked/a", Source: "/patrol/v", Type: events.TypeRevoked, Subject: "p",
		Time: noon.Add(500 * time.Millisecond),
		Data: events.Revoked{PAT: "p", AuthorizationID: "a", Cause: "a new one"}}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got  %+v\nwant %+v", e, want)
	}
}

// Readers take an id as it is: older patrols made others.
func TestEventsWithTheIDsOfAnOlderPatrolAreRead(t *testing.T) {
	for name, tt := range map[string]struct{ sample, id string }{
		"rotated": {"rotated", "abcdefghij/rotated"},
		"failed":  {"failed", "abcdefghij/failed/create/4"},
	} {
		e := every()[tt.sample].event
		want := e.Data
		e.ID = tt.id
		got, err := events.Decode(body(t, e))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.ID != tt.id {
			t.Errorf("%s: id %q, want %q", name, got.ID, tt.id)
		}
		if reflect.TypeOf(got.Data) != reflect.TypeOf(want) {
			t.Errorf("%s: data is a %T, want a %T", name, got.Data, want)
		}
	}
}

// A code may be a word of a service. Neither a slash in it nor a missing one gives the
// id another form, and no two words give one id.
func TestNoWordBreaksAnID(t *testing.T) {
	midnight := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ what, got, want string }{
		{"a code with a slash", events.RotationFailedID("r", "create", "a/b", noon), "r/failed/create/a%2Fb/20781"},
		{"a code that looks like that", events.RotationFailedID("r", "create", "a%2Fb", noon),
			"r/failed/create/a%252Fb/20781"},
		{"a step with a slash", events.RotationFailedID("r", "cre/ate", "x", noon), "r/failed/cre%2Fate/x/20781"},
		{"no code", events.RotationFailedID("r", "create", "", noon), "r/failed/create/unknown/20781"},
		{"the last moment of a day", events.RotationFailedID("r", "create", "x", midnight.Add(-1)),
			"r/failed/create/x/20781"},
		{"the first moment of a day, of a clock elsewhere", events.RotationFailedID("r", "create", "x",
			midnight.In(time.FixedZone("EST", -5*3600))), "r/failed/create/x/20782"},
		{"a rotation", events.RotatedID("r", "a/b"), "r/a%2Fb/rotated"},
		{"a trouble", events.CheckIncompleteID("identity", "a/b", "c/d", "e/f", noon, midnight),
			"identity/a%2Fb/c%2Fd/e%2Ff/1795521600/20782"},
		{"a trouble without a code", events.CheckIncompleteID("vault", "", "", "", noon, noon),
			"vault///unknown/1795521600/20781"},
		{"its end", events.CheckRecoveredID("vault", "", "", "", noon), "vault///unknown/1795521600/recovered"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: id %q, want %q", tt.what, tt.got, tt.want)
		}
	}
}

// Schemas take any id, because readers must; patrol makes these.
func TestIDsHaveOneFormForEachType(t *testing.T) {
	forms := map[string]string{
		events.TypeRotated:         `^[a-z2-7]+/[^/]+/rotated$`,
		events.TypeRevoked:         `^[^/]*/revoked/[^/]+$`,
		events.TypeRotationFailed:  `^([^/]*/failed/[^/]+/[^/]+/[0-9]+|.+/-?[0-9]+/failed)$`,
		events.TypeExpiring:        `^[^/]+/expiring/[0-9]+$`,
		events.TypeSignedIn:        `^[^/]+/signed-in/[0-9]+$`,
		events.TypeSignInRequired:  `^[^/]+/sign-in-required/[0-9]+$`,
		events.TypeSignInExpiring:  `^[^/]+/sign-in-expiring/[0-9]+$`,
		events.TypeCheckIncomplete: `^[a-z]+/[^/]*/[^/]*/[^/]+/[0-9]+/[0-9]+$`,
		events.TypeCheckRecovered:  `^[a-z]+/[^/]*/[^/]*/[^/]+/[0-9]+/recovered$`,
		events.TypeSwitched:        `^[a-z2-7]+/[^/]+/switched$`,
		events.TypeSwitchLate:      `^[a-z2-7]+/[^/]+/switch-late/[0-9]+$`,
		events.TypeSwitchFailed:    `^[a-z2-7]+/[^/]+/switch-failed/[^/]+$`,
		events.TypeDelivered:       `^[a-z2-7]+/[^/]+/delivered/[^/]+$`,
		events.TypeDeliveryFailed:  `^[a-z2-7]+/[^/]+/delivery-failed/[^/]+/[^/]+/[0-9]+$`,
		events.TypePostponed:       `^[^/]+/postponed/(paused/)?[0-9]+$`,
		events.TypeConfirmed:       `^[^/]+/[^/]+/[^/]+/(switched|failed)/confirmed$`,
	}
	for name, tt := range every() {
		form, ok := forms[tt.event.Type]
		if !ok {
			t.Errorf("%s: no form is known for %s", name, tt.event.Type)
			continue
		}
		if !regexp.MustCompile(form).MatchString(tt.event.ID) {
			t.Errorf("%s: id %q does not match %s", name, tt.event.ID, form)
		}
	}
}

func TestDecodeHandsOverTheDataOfAnUnknownTypeAsItCame(t *testing.T) {
	e, err := events.Decode([]byte(`{"specversion":"1.0", "id":"1", "source":"s", "type":"patrol.pat.born",
		"datacontenttype":"text/plain", "data":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Data, json.RawMessage(`"hi"`); !reflect.DeepEqual(got, want) {
		t.Errorf("data of an unknown type: got %T %s, want %T %s", got, got, want, want)
	}
}

func TestDecodeSaysWhatIsWrongAndNeverQuotesTheInput(t *testing.T) {
	envelope := func(rest string) string {
		return `{"specversion":"1.0","id":"canary","source":"canary","type":"patrol.pat.revoked"` + rest + `}`
	}
	expiring := func(end string) string {
		return `{"specversion":"1.0","id":"1","source":"s","type":"patrol.pat.expiring",` +
			`"data":{"authorizationId":"a","validTo":"` + end + `"}}`
	}
	for _, tt := range []struct {
		name, body string
		is         error
		says       string
	}{
		{"empty", ``, events.ErrMalformed, "broken JSON at byte 0"},
		{"null", `null`, events.ErrMalformed, "null"},
		{"array", `["canary"]`, events.ErrMalformed, "not a JSON object"},
		{"cut off", `{"id":"canary`, events.ErrMalformed, "broken JSON"},
		{"too long", strings.Repeat(" ", events.MaxSize+1), events.ErrMalformed, "more than"},
		{"no id", `{"specversion":"1.0","source":"s","type":"t"}`, events.ErrMalformed, "id is missing"},
		{"wrong case", `{"specversion":"1.0","ID":"canary","source":"s","type":"t"}`, events.ErrMalformed,
			"id is missing"},
		{"id not a string", `{"specversion":"1.0","id":7,"source":"s","type":"t"}`, events.ErrMalformed,
			"id is not a string"},
		{"null id", `{"specversion":"1.0","id":null,"source":"s","type":"t"}`, events.ErrMalformed, "id is missing"},
		{"other version", `{"specversion":"canary","id":"1","source":"s","type":"t"}`, events.ErrMalformed,
			"specversion is not 1.0"},
		{"time", envelope(`,"time":"canary"`), events.ErrMalformed, "time is not an RFC 3339 time"},
		{"content type", envelope(`,"datacontenttype":"text/canary","data":{}`), events.ErrMalformed,
			"datacontenttype of patrol.pat.revoked is not JSON"},
		{"no data", envelope(``), events.ErrData, "without data"},
		{"base64 data", envelope(`,"data_base64":"Y2FuYXJ5"`), events.ErrData, "without data"},
		{"null data", envelope(`,"data":null`), events.ErrData, "pat, authorizationId missing"},
		{"data not an object", envelope(`,"data":"canary"`), events.ErrData, "not a JSON object"},
		{"field of another type", envelope(`,"data":{"pat":["canary"]}`), events.ErrData,
			"pat has the wrong JSON type"},
		{"field missing", envelope(`,"data":{"pat":"canary"}`), events.ErrData, "authorizationId missing"},
		{"time in data", expiring("canary"), events.ErrData, "not in RFC 3339"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := events.Decode([]byte(tt.body))
			if !errors.Is(err, tt.is) {
				t.Fatalf("got the error %v, want %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %q, want an error that says %q", err, tt.says)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes the input: %v", err)
			}
		})
	}
}

func TestEncodeRefusesAnEventThatSubscribersCouldNotUse(t *testing.T) {
	for name, broken := range map[string]struct {
		change func(*events.Event)
		says   string
	}{
		"no id":      {func(e *events.Event) { e.ID = "" }, "id is empty"},
		"no source":  {func(e *events.Event) { e.Source = "" }, "source is empty"},
		"no subject": {func(e *events.Event) { e.Subject = "" }, "subject is empty"},
		"no time":    {func(e *events.Event) { e.Time = time.Time{} }, "time is not set"},
		"another type": {func(e *events.Event) { e.Type = events.TypeRevoked },
			`but the data is of "patrol.pat.rotated"`},
		"no data":        {func(e *events.Event) { e.Data = nil }, "type <nil>"},
		"a pointer":      {func(e *events.Event) { e.Data = &struct{}{} }, "no event has data of type"},
		"raw known data": {func(e *events.Event) { e.Data = json.RawMessage(`{}`) }, "must be its Go type"},
		"no secret id": {func(e *events.Event) {
			d := e.Data.(events.Rotated)
			d.Secret.ID = ""
			e.Data = d
		}, "secret.id missing"},
	} {
		e := rotated()
		broken.change(&e)
		if _, err := events.Encode(e); err == nil || !strings.Contains(err.Error(), broken.says) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, broken.says)
		}
	}
}

func TestAnEmptyTypeIsTakenFromTheData(t *testing.T) {
	e := rotated()
	e.Type = ""
	b, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), every()["rotated"].json; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, tt := range every() {
		f.Add([]byte(tt.json))
	}
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1,null]}}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"patrol.pat.expiring",
		"data":{"authorizationId":"a","validTo":"0000-01-01T00:00:00+23:59"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := events.Decode(b)
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) && !errors.Is(err, events.ErrData) {
				t.Fatalf("an error of neither kind: %v", err)
			}
			return
		}
		if e.ID == "" || e.Source == "" || e.Type == "" {
			t.Fatalf("an event without a required attribute: %+v", e)
		}
		if !sendable(e) {
			return // CloudEvents permits it; patrol does not send it
		}
		out, err := events.Encode(e)
		if err != nil {
			// Readers need less than the schemas demand; and years outside 0..9999 in UTC
			// can be read and not written.
			isLess := errors.Is(err, events.ErrData) || strings.Contains(err.Error(), "URI")
			if !isLess && !strings.Contains(err.Error(), "year outside") {
				t.Fatalf("decoded, but cannot be encoded: %v", err)
			}
			return
		}
		again, err := events.Decode(out)
		if err != nil {
			t.Fatalf("encoded, but cannot be decoded: %v\n%s", err, out)
		}
		e.DataSchema = again.DataSchema // Encode's own
		if !reflect.DeepEqual(normal(again), normal(e)) {
			t.Fatalf("changed on the way: got\n%+v\nwant\n%+v", again, e)
		}
	})
}

// sendable: the event has all that Encode demands.
func sendable(e events.Event) bool {
	raw, isRaw := e.Data.(json.RawMessage)
	hasData := !isRaw || raw != nil
	return hasData && e.Subject != "" && !e.Time.IsZero()
}

// normal compacts raw data, whose spacing may differ.
func normal(e events.Event) events.Event {
	if raw, ok := e.Data.(json.RawMessage); ok {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			e.Data = v
		}
	}
	return e
}

// A version that somebody put there by hand names no authorization id, and an entry that
// left the manifest may name no organization: that must not keep a rotation untold.
func TestARotationIsToldWhateverIsNotKnownOfWhatItReplaced(t *testing.T) {
	e := rotated()
	d := e.Data.(events.Rotated)
	d.Organization, d.Identity, d.Reason, d.DisplayName = "", "", "", ""
	d.Previous = &events.Previous{Version: "1", RevokeAt: noon}
	e.Data = d
	b, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range validate(t, e.Type, b) {
		t.Error(problem)
	}
}
