package functionshost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

func TestScheduleOccurrences(t *testing.T) {
	t.Parallel()
	const from = "2026-11-23T23:34:00.0057337Z" // a Monday
	cases := []struct {
		expression string
		want       string // up to three, times of day or whole
	}{
		{"0 * * * * *", "2026-11-23T23:35:00Z 2026-11-23T23:36:00Z 2026-11-23T23:37:00Z"},
		{"* * * * *", "2026-11-23T23:35:00Z 2026-11-23T23:36:00Z"}, // five fields: on the full minute
		{"0 0 */6 * * *", "2026-11-24T00:00:00Z 2026-11-24T06:00:00Z 2026-11-24T12:00:00Z"},
		{"*/20 * * * * *", "2026-11-23T23:34:20Z 2026-11-23T23:34:40Z 2026-11-23T23:35:00Z"},
		{"30 5/25 * * * *", "2026-11-23T23:55:30Z 2026-11-24T00:05:30Z 2026-11-24T00:30:30Z"},
		{"0 0 9-17/4 * * *", "2026-11-24T09:00:00Z 2026-11-24T13:00:00Z 2026-11-24T17:00:00Z"},
		{"0 0 17-9/4 * * *", "2026-11-24T09:00:00Z 2026-11-24T13:00:00Z"}, // the ends in either order
		{"0 15,45 8 * * MON-FRI", "2026-11-24T08:15:00Z 2026-11-24T08:45:00Z 2026-11-25T08:15:00Z"},
		{"0 0 0 * * sat,Sunday", "2026-11-28T00:00:00Z 2026-11-29T00:00:00Z 2026-12-05T00:00:00Z"},
		{"0 0 0 1 jan,JULY *", "2027-01-01T00:00:00Z 2027-07-01T00:00:00Z"},
		{"0 0 0 13 * 5", "2027-08-13T00:00:00Z 2028-10-13T00:00:00Z"}, // day and weekday, not or
		{"0 0 0 29 2 *", "2028-02-29T00:00:00Z 2032-02-29T00:00:00Z"},
		{"0 0 0 31 * *", "2026-12-31T00:00:00Z 2027-01-31T00:00:00Z 2027-03-31T00:00:00Z"},
		{"0 0 0 31 2 *", "never"},
		{"00:10:00", "2026-11-23T23:44:00.0057337Z 2026-11-23T23:54:00.0057337Z"},
		{"1.00:00:00", "2026-11-24T23:34:00.0057337Z"},
	}
	for _, c := range cases {
		s, err := parseSchedule(c.expression)
		if err != nil {
			t.Errorf("%q: %v", c.expression, err)
			continue
		}
		at, _ := time.Parse(time.RFC3339, from)
		for want := range strings.FieldsSeq(c.want) {
			at = s.next(at)
			if got := at.Format(time.RFC3339Nano); got != want && !(want == "never" && at.IsZero()) {
				t.Errorf("%q: %s, want %s", c.expression, got, want)
				break
			}
		}
	}
	for _, bad := range []string{"", "* * * *", "* * * * * * *", "60 * * * * *", "* 60 * * * *", "* * 24 * * *", "* * * 0 * *", "* * * * 13 *",
		"* * * * * 7", "*/0 * * * * *", "*/x * * * * *", "a * * * * *", "1-x * * * * *", "* * * * * mo", "? * * * * *", ", * * * * *", "-1 * * * * *", "00:00:00", "25:00:00"} {
		if _, err := parseSchedule(bad); err == nil {
			t.Errorf("%q was taken for a schedule", bad)
		}
	}
}

func TestSchedulesThatFireMoreThanOnceAMinute(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]bool{
		"0 * * * * *": false, "*/30 * * * * *": true, "0,1 0 0 * * *": true, "0 0 0 1 1 *": false,
		"00:00:59": true, "00:01:00": false, "0 0 0 31 2 *": false,
	} {
		s, err := parseSchedule(expression)
		if err != nil {
			t.Fatal(err)
		}
		if got := subMinute(s); got != want {
			t.Errorf("%q: %t, want %t", expression, got, want)
		}
	}
}

func TestTimeSpans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:10:00": 10 * time.Minute, "00:00:01": time.Second, "1.02:03:04": 26*time.Hour + 3*time.Minute + 4*time.Second,
		"-00:00:00.0010000": -time.Millisecond, "00:00:00.5": 500 * time.Millisecond, "10:30": 10*time.Hour + 30*time.Minute,
	} {
		if got, err := parseTimeSpan(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "10", "24:00:00", "00:60:00", "00:00:60", "1:2:3:4", "5m", "99999999.00:00:00"} {
		if got, err := parseTimeSpan(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}

func TestRouteTemplates(t *testing.T) {
	t.Parallel()
	const none = "no match"
	cases := []struct{ template, path, want string }{
		{"api/pats", "/api/pats", "map[]"},
		{"api/pats", "/API/Pats/", "map[]"},
		{"api/pats", "/api/pats/x", none},
		{"api/pats/{name}", "/api/pats/a%20b", "map[name:a b]"},
		{"api/pats/{name}", "/api/pats/a%2Fb", "map[name:a%2Fb]"}, // a slash stays escaped
		{"api/pats/{name}", "/api/pats/", none},
		{"api/pats/{name}", "/api/pats//", none},
		{"api/pats/{name?}", "/api/pats", "map[name:<nil>]"},
		{"api/pats/{name=all}", "/api/pats", "map[name:all]"},
		{"api/{*rest}", "/api/a/b/c", "map[rest:a/b/c]"},
		{"api/{**rest}", "/api", "map[rest:]"},
		{"api/{id:int}", "/api/-17", "map[id:-17]"},
		{"api/{id:int}", "/api/4294967296", none},
		{"api/{id:long}", "/api/4294967296", "map[id:4294967296]"},
		{"api/{id:guid}", "/api/0F8FAD5B-d9cb-469f-a165-70867728950e", "map[id:0F8FAD5B-d9cb-469f-a165-70867728950e]"},
		{"api/{id:guid}", "/api/17", none},
		{"api/{id:alpha:length(2,3)}", "/api/abc", "map[id:abc]"},
		{"api/{id:alpha:length(2,3)}", "/api/abcd", none},
		{"api/{id:range(1,5)}", "/api/6", none},
		{"api/{id:bool}", "/api/TRUE", "map[id:TRUE]"},
		{"api/{id:datetime}", "/api/2026-11-23", "map[id:2026-11-23]"},
		{"api/{id:regex(^[a-z]{{2}}:\\d+$)}", "/api/ab:12", "map[id:ab:12]"},
		{"api/{id:regex(^[a-z]{{2}}$)}", "/api/abc", none},
		{"api/{id:int?}", "/api", "map[id:<nil>]"},
		{"api/v{major}.{minor}", "/api/v1.2", "map[major:1 minor:2]"},
		{"api/v{major}.{minor}", "/api/v1", none},
		{"api/{{x}}", "/api/%7Bx%7D", "map[]"},
	}
	for _, c := range cases {
		tpl, err := parseTemplate(c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got := none
		if params, ok := tpl.match(c.path); ok {
			plain := map[string]any{}
			for k, v := range params {
				plain[k] = nil
				if v != nil {
					plain[k] = *v
				}
			}
			got = fmt.Sprint(plain)
		}
		if got != c.want {
			t.Errorf("%s on %s: %s, want %s", c.template, c.path, got, c.want)
		}
	}
	for _, bad := range []string{"a//b", "a/{b", "a/b}", "a/{}", "a/{*b}/c", "a/{b?}/c", "{a}/{A}", "a/{b}{c}", "a/{b:unknown}", "a/{b:int(}", "a/{b:regex([)}", "a?b", "x{*b}", "a/{b:range(1)}"} {
		if _, err := parseTemplate(bad); err == nil {
			t.Errorf("%s was taken for a template", bad)
		}
	}
}

func TestTemplatesThatMeet(t *testing.T) {
	t.Parallel()
	cases := []struct {
		a, b string
		want bool
	}{
		{"x/{id}", "x/special", true}, {"x/{id}", "y/{id}", false}, {"x/{id}", "x/{id}/y", false}, {"x/{id}", "x/{*rest}", true},
		{"x/{id?}", "x", true}, {"x/{id:int}", "x/special", false}, {"x/{id:int}", "x/17", true}, {"x/{id:int}", "x/{name}", true},
		{"x/{id:int}", "x/{id:guid}", false}, {"x/{id:alpha}", "x/{id:guid}", true}, {"x/v{n}", "x/v1", true}, {"x/v{n}", "x/w1", false},
		{"X/A", "x/a", true}, {"identities/{identity}/signin", "signin/callback", false},
		{"identities/{identity}", "{kind}/callback", true},
	}
	for _, c := range cases {
		a, errA := parseTemplate(c.a)
		b, errB := parseTemplate(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.overlaps(b) != c.want || b.overlaps(a) != c.want {
			t.Errorf("%s and %s: %t and %t, want %t", c.a, c.b, a.overlaps(b), b.overlaps(a), c.want)
		}
	}
}

func TestBodyPropertiesAreMangledAsInDotNet(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		`"text"`: `"\"text\""`, `true`: `"\"True\""`, `false`: `"\"False\""`, `3`: `"\"3\""`, `-0`: `"\"0\""`, `12345678901234567890123`: `"\"12345678901234567890123\""`,
		`1.0`: `"\"1\""`, `1.5`: `"\"1.5\""`, `1e15`: `"\"1E+15\""`, `1e14`: `"\"100000000000000\""`, `0.00001`: `"\"1E-05\""`, `0.0001`: `"\"0.0001\""`,
		`"2026-11-23T10:00:00.123Z"`: `"\"11/23/2026 10:00:00\""`, `"2026-11-23T10:00:00+02:00"`: `"\"11/23/2026 08:00:00\""`,
		`"2026-11-23T10:00:00"`: `"\"11/23/2026 10:00:00\""`, `"2026-11-23"`: `"\"2026-11-23\""`, `"2026-13-23T10:00:00"`: `"\"2026-13-23T10:00:00\""`,
		`{"a":[1]}`: `{"a":[1]}`, `null`: `null`, `"<&>"`: `"\"<&>\""`,
	}
	for in, want := range cases {
		got, err := encodeJSON(bodyProperties(`{"p":` + in + `}`)["p"])
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	if _, ok := bodyProperties(`{"list":[1]}`)["list"]; ok {
		t.Error("an array was copied")
	}
	for _, none := range []string{"", "plain", "[1]", `"x"`, "null", `{"a":1} x`, `{"a":1`} {
		if got := bodyProperties(none); got != nil {
			t.Errorf("%q gave %v", none, got)
		}
	}
}

func TestResultsOfTheDefaultMode(t *testing.T) {
	t.Parallel()
	const j = "application/json; charset=utf-8"
	ok := []struct{ contentType, body string }{
		{j, `{}`}, {"text/json", `{}`}, {j, `{"ok":true}`}, {j, `{"outputs":null,"logs":null,"returnValue":null}`},
		{j, `{"Outputs":{"res":{}},"Logs":["a"],"ReturnValue":3}`}, {j, `{} trailing`},
	}
	for _, c := range ok {
		if r, err := parseResult(200, c.contentType, []byte(c.body)); err != nil || r == nil {
			t.Errorf("%s %s: %v, %v; want a result", c.contentType, c.body, r, err)
		}
	}
	bad := []struct {
		status            int
		contentType, body string
	}{
		{500, j, `{}`}, {404, j, `{}`}, {200, "text/plain", `{}`}, {200, "", `{}`}, {200, j, `[]`}, {200, j, `"x"`}, {200, j, `{"Logs":[{}]}`},
		{200, j, `{"Outputs":[]}`}, {200, j, `{"Outputs":"x"}`}, {200, j, `{`}, {200, j, `no`},
	}
	for _, c := range bad {
		if r, err := parseResult(c.status, c.contentType, []byte(c.body)); err == nil {
			t.Errorf("%d %s %s: %v; want a failure", c.status, c.contentType, c.body, r)
		}
	}
	for _, empty := range []string{"", " \n", "null"} {
		if r, err := parseResult(200, j, []byte(empty)); err != nil || r != nil {
			t.Errorf("%q: %v, %v; want neither result nor error", empty, r, err)
		}
	}
}

func TestQueriesAreRebuilt(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "x=1&x=2&y=%2F": "x=1,2&y=%2F", "a": "a=", "b=1&a=2&b=3": "b=1,3&a=2", "x=a+b": "x=a%20b", "x=%C3%A9": "x=%C3%A9", "x=a:b&&": "x=a%3Ab",
	} {
		if got := rebuildQuery(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestArgumentsAreJoinedAndSplitAgain(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprintf("%q", splitArguments(`a  b "c d" e"f g" ""`)); got != `["a" "b" "c d" "ef g" ""]` {
		t.Error(got)
	}
}

func TestMarksOfSettings(t *testing.T) {
	t.Parallel()
	s := newSettings(map[string]string{"A": "1", "Group__name": "2"})
	for text, want := range map[string]string{"x": "x", "%a%": "1", "%A%/%GROUP:NAME%!": "1/2!"} {
		if got, err := s.resolve(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"%B%", "%A", "100%"} {
		if got, err := s.resolve(bad); err == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
	env := map[string]string{"A": "1"}
	if got := expand("%A%-%B%-%A%", env, false) + " " + expand("%A%-%B%-%A%", env, true) + " " + expand("50% %A%", env, false); got != "1-%B%-1 1--1 50% 1" {
		t.Error(got)
	}
}

func TestHostFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	const handler = `"customHandler":{"description":{"defaultExecutablePath":"handler"}}`
	for _, bad := range []string{
		``, `{}`, `{"version":"1.0",` + handler + `}`, `{"version":"2.0"}`, `{"version":"2.0","customHandler":{}}`,
		`{"version":"2.0","functionTimeout":"00:00:00",` + handler + `}`, `{"version":"2.0","functionTimeout":"ten",` + handler + `}`,
		`{"version":"2.0","extensionBundle":{"id":"x","version":"[4.*, 5.0.0)"},` + handler + `}`,
		`{"version":"2.0","extensionBundle":{"id":"Microsoft.Azure.Functions.ExtensionBundle","version":"[5.*, 6.0.0)"},` + handler + `}`,
		`{"version":"2.0","extensionBundle":{"id":"Microsoft.Azure.Functions.ExtensionBundle","version":"4"},` + handler + `}`,
		`{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},"http":{"routes":[{"route":"x"}]}}}`,
		`{"version":"2.0","extensions":{"serviceBus":{"maxConcurrentSessions":0}},` + handler + `}`,
		`{"version":"2.0","extensions":{"serviceBus":{"sessionIdleTimeout":"1s"}},` + handler + `}`,
	} {
		if _, err := parseHostFile([]byte(bad), t.TempDir(), nil); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	o, err := parseHostFile([]byte(`{"VERSION":"2.0",`+handler+`,"functionTimeout":"-1"}`), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.functionTimeout != 0 || o.routePrefix != "api" || o.initialization != 30*time.Second || o.executable != "handler" ||
		o.serviceBus.sessions != 8 || o.serviceBus.sessionIdle != time.Minute || o.serviceBus.lockRenewal != 5*time.Minute || !o.serviceBus.autoComplete || !o.errorsOnly {
		t.Errorf("defaults: %+v", o)
	}
}

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"0 */5 * * * *", "0 0 9-17/4 1,15 jan-dec mon", "00:10:00", "1-", "*/-1 * * * * *"} {
		f.Add(s)
	}
	from := time.Date(2026, 11, 23, 23, 34, 0, 5, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSchedule(text)
		if err != nil {
			return
		}
		if n := s.next(from); !n.IsZero() && !n.After(from) {
			t.Errorf("%q: %v is not after %v", text, n, from)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("api/pats/{name:regex(^[a-z]{{2}}$)}/{x?}", "/api/pats/ab")
	f.Add("a/{*rest}", "/a/b/c%2F")
	f.Add("v{a}.{b}", "/v1.2")
	f.Fuzz(func(t *testing.T, text, path string) {
		tpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		tpl.match(path)
		if !tpl.overlaps(tpl) && len(tpl.segments) > 0 && noConstraints(tpl) {
			t.Errorf("%q does not meet itself", text)
		}
	})
}

func noConstraints(t *template) bool { return !strings.Contains(t.text, ":") }

func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"Outputs":{"res":{"statusCode":"202","headers":{"A":1},"body":{}}},"Logs":["x"],"ReturnValue":"x"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseResult(200, "application/json", body)
		if err != nil || r == nil {
			return
		}
		fn := &function{name: "A", httpOut: &binding{Name: "res"}}
		if a, err := httpOutput(fn, r); err == nil && a.status < 200 {
			t.Errorf("status %d", a.status)
		}
	})
}

func FuzzBodyProperties(f *testing.F) {
	f.Add(`{"a":1,"b":1.5e300,"c":"2026-11-23T10:00:00Z","d":{},"e":[],"f":null,"g":true}`)
	f.Fuzz(func(t *testing.T, body string) {
		for k, v := range bodyProperties(body) {
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("%q: %v", k, err)
			}
		}
	})
}

func FuzzFunctionFile(f *testing.F) {
	f.Add([]byte(`{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","route":"a/{b}"},{"type":"http","direction":"out","name":"res"}]}`))
	f.Add([]byte(`{"bindings":[{"type":"timerTrigger","name":"t","schedule":"%S%"}],"disabled":"X"}`))
	f.Add([]byte(`{"bindings":[{"type":"serviceBusTrigger","name":"m","queueName":"q","cardinality":"many"}]}`))
	dir := f.TempDir()
	o := &hostOptions{bundle: true, routePrefix: "api"}
	s := newSettings(map[string]string{"S": "0 * * * * *", "AzureWebJobsStorage": "x"})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if fn, err := load("A", dir, raw, o, s); err == nil && fn.trigger == nil {
			t.Error("loaded without a trigger")
		}
	})
}

func TestApplicationPropertiesAsJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 10, 0, 0, 120_000_000, time.FixedZone("", 3600))
	for _, c := range []struct {
		in   any
		want string
	}{
		{"x", `"x"`}, {true, `true`}, {int64(3), `3`}, {uint8(3), `3`}, {3.0, `3.0`}, {1.5, `1.5`}, {float32(0.1), `0.1`}, {math.NaN(), `"NaN"`},
		{at, `"2026-11-23T09:00:00.12Z"`}, {[]byte("hi"), `"aGk="`}, {[16]byte{1}, `"01000000-0000-0000-0000-000000000000"`}, {nil, `null`},
	} {
		if got, err := encodeJSON(propertyValue(c.in)); err != nil || string(got) != c.want {
			t.Errorf("%v: %s, %v; want %s", c.in, got, err, c.want)
		}
	}
}

func TestBodiesOfAMQPMessages(t *testing.T) {
	t.Parallel()
	raw := func(b azservicebus.AMQPAnnotatedMessageBody) *azservicebus.ReceivedMessage {
		return &azservicebus.ReceivedMessage{RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{Body: b}}
	}
	for name, c := range map[string]struct {
		m    *azservicebus.ReceivedMessage
		want string
		err  bool
	}{
		"data":          {&azservicebus.ReceivedMessage{Body: []byte("x")}, "x", false},
		"two sections":  {raw(azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("a"), []byte("b")}}), "ab", false},
		"value, string": {raw(azservicebus.AMQPAnnotatedMessageBody{Value: "x"}), "x", false},
		"value, binary": {raw(azservicebus.AMQPAnnotatedMessageBody{Value: []byte("x")}), "x", false},
		"value, number": {raw(azservicebus.AMQPAnnotatedMessageBody{Value: 3}), "", true},
		"sequence":      {raw(azservicebus.AMQPAnnotatedMessageBody{Sequence: [][]any{{1}}}), "", true},
		"nothing":       {raw(azservicebus.AMQPAnnotatedMessageBody{}), "", false},
	} {
		if got, err := bodyOf(c.m); string(got) != c.want || (err != nil) != c.err {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestConnectionsOfServiceBus(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings   map[string]string
		namespace  string
		credential bool
		ok         bool
	}{
		"connection string":              {map[string]string{"Bus": "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=aw=="}, "a.servicebus.windows.net", false, true},
		"under its old name":             {map[string]string{"AzureWebJobsBus": "Endpoint=sb://a.servicebus.windows.net;SharedAccessKeyName=k;SharedAccessKey=aw=="}, "a.servicebus.windows.net", false, true},
		"string before identity":         {map[string]string{"Bus": "Endpoint=sb://a.servicebus.windows.net;SharedAccessKeyName=k;SharedAccessKey=aw==", "Bus__fullyQualifiedNamespace": "b.servicebus.windows.net"}, "a.servicebus.windows.net", false, true},
		"identity":                       {map[string]string{"Bus__fullyQualifiedNamespace": "b.servicebus.windows.net"}, "b.servicebus.windows.net", true, true},
		"identity without a credential":  {map[string]string{"Bus__fullyQualifiedNamespace": "b.servicebus.windows.net"}, "b.servicebus.windows.net", false, false},
		"nothing":                        {nil, "", true, false},
		"a string that is no connection": {map[string]string{"Bus": "b.servicebus.windows.net"}, "", false, false},
	} {
		h := &Host{settings: newSettings(c.settings)}
		if c.credential {
			h.cfg.Credential = noCredential{}
		}
		_, err := h.newBusClient("Bus")
		if got := namespaceOf(h.settings, "Bus"); got != c.namespace || (err == nil) != c.ok {
			t.Errorf("%s: namespace %q, %v", name, got, err)
		}
	}
}

// noCredential gives no token; making a client asks for none.
type noCredential struct{}

func (noCredential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, errors.New("no token")
}

func TestLocksAreRenewedInTime(t *testing.T) {
	t.Parallel()
	for remaining, want := range map[time.Duration]time.Duration{
		time.Minute: 50 * time.Second, 10 * time.Second: 5 * time.Second, 300 * time.Millisecond: 0, -time.Second: 0,
	} {
		if got := renewDelay(remaining); got != want {
			t.Errorf("%v left: renewed in %v, want %v", remaining, got, want)
		}
	}
}
