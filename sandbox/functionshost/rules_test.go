package functionshost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
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
			got := at.Format(time.RFC3339Nano)
			if at.IsZero() {
				got = "never"
			}
			check(t, c.expression, got, want)
		}
	}
	for _, bad := range []string{
		"", "* * * *", "* * * * * * *", "60 * * * * *", "* 60 * * * *", "* * 24 * * *", "* * * 0 * *", "* * * * 13 *",
		"* * * * * 7", "*/0 * * * * *", "*/x * * * * *", "a * * * * *", "1-x * * * * *", "* * * * * mo", "? * * * * *",
		", * * * * *", "-1 * * * * *", "00:00:00", "25:00:00",
	} {
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
		check(t, expression, subMinute(s), want)
	}
}

func TestTimeSpans(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:10:00":          10 * time.Minute,
		"00:00:01":          time.Second,
		"1.02:03:04":        26*time.Hour + 3*time.Minute + 4*time.Second,
		"-00:00:00.0010000": -time.Millisecond,
		"00:00:00.5":        500 * time.Millisecond,
		"10:30":             10*time.Hour + 30*time.Minute,
	} {
		got, err := parseTimeSpan(text)
		if err != nil {
			t.Error(err)
		}
		check(t, text, got, want)
	}
	for _, bad := range []string{"", "10", "24:00:00", "00:60:00", "00:00:60", "1:2:3:4", "5m", "99999999.00:00:00"} {
		if got, err := parseTimeSpan(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}

func TestRouteTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		template, path string
		want           bool
	}{
		{"api/pats", "/api/pats", true},
		{"api/pats", "/API/Pats/", true},
		{"api/pats", "/api/p%61ts", true},
		{"api/pats", "/api/pats/x", false},
		{"api/pats/{name}", "/api/pats/a%20b", true},
		{"api/pats/{name}", "/api/pats/a%2Fb", true}, // a slash stays escaped
		{"api/pats/{name}", "/api/pats", false},
		{"api/pats/{name}", "/api/pats/", false},
		{"api/pats/{name}", "/api/pats//", false},
		{"api/pats/{name}/rotate", "/api/pats/x/rotate", true},
		{"api/pats/{name}/rotate", "/api/pats/x/extend", false},
		{"", "/", true},
		{"", "/x", false},
	} {
		template, err := parseTemplate(c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		check(t, c.template+" on "+c.path, template.match(c.path), c.want)
	}
}

func TestRouteTemplatesThatAreRefused(t *testing.T) {
	t.Parallel()
	const notOffered = "this host offers literals and {parameters} only"
	for template, want := range map[string]string{
		"a//b": "an empty segment", "{a}/{A}": "parameter 'A' appears more than once",
		"a/{b": notOffered, "a/b}": notOffered, "a/{}": notOffered, "a?b": notOffered, "a/{b}{c}": notOffered,
		"a/{b?}": notOffered, "a/{*b}": notOffered, "a/{**b}": notOffered, "a/{b=c}": notOffered, "a/v{b}": notOffered,
		"a/{b:int}": notOffered, "a/{b:regex(^[a-z]{{2}}$)}": notOffered, "a/{b:regex(c/d)}": notOffered,
	} {
		_, err := parseTemplate(template)
		if err == nil {
			t.Errorf("%s was taken for a template", template)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %q, want %q in it", template, err, want)
		}
	}
}

func TestTemplatesThatOverlap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"x/{id}", "x/special", true}, {"x/{id}", "y/{id}", false}, {"x/{id}", "x/{id}/y", false},
		{"X/A", "x/a", true}, {"identities/{identity}/signin", "signin/callback", false},
		{"identities/{identity}", "{kind}/callback", true},
	} {
		a, err := parseTemplate(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := parseTemplate(c.b)
		if err != nil {
			t.Fatal(err)
		}
		check(t, c.a+" and "+c.b, a.overlaps(b), c.want)
		check(t, c.b+" and "+c.a, b.overlaps(a), c.want)
	}
}

func TestBodyPropertiesAreMangledAsInDotNet(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`"text"`: `"\"text\""`,
		`"<&>"`:  `"\"<&>\""`,
		`true`:   `"\"True\""`,
		`false`:  `"\"False\""`,
		`null`:   `null`,

		`3`:                       `"\"3\""`,
		`-0`:                      `"\"0\""`,
		`12345678901234567890123`: `"\"12345678901234567890123\""`,
		`1.0`:                     `"\"1\""`,
		`1.5`:                     `"\"1.5\""`,
		`1e15`:                    `"\"1E+15\""`,
		`1e14`:                    `"\"100000000000000\""`,
		`0.00001`:                 `"\"1E-05\""`,
		`0.0001`:                  `"\"0.0001\""`,

		`"2026-11-23T10:00:00.123Z"`:  `"\"11/23/2026 10:00:00\""`,
		`"2026-11-23T10:00:00+02:00"`: `"\"11/23/2026 08:00:00\""`,
		`"2026-11-23T10:00:00"`:       `"\"11/23/2026 10:00:00\""`,
		`"2026-11-23"`:                `"\"2026-11-23\""`,
		`"2026-13-23T10:00:00"`:       `"\"2026-13-23T10:00:00\""`,

		`{"a":[1]}`: `{"a":[1]}`,
	} {
		check(t, in, jsonText(t, bodyProperties(`{"p":` + in + `}`)["p"]), want)
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

// jsonText is v as the host writes it.
func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := encodeJSON(v)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func TestAnswersToEnvelopes(t *testing.T) {
	t.Parallel()
	const j = "application/json; charset=utf-8"
	ok := []struct{ contentType, body string }{
		{j, `{}`}, {"text/json", `{}`}, {j, `{"ok":true}`}, {j, `{"outputs":null,"logs":null,"returnValue":null}`},
		{j, `{"Outputs":{"res":{}},"Logs":["a"],"ReturnValue":3}`}, {j, `{} trailing`},
	}
	for _, c := range ok {
		r, err := parseResult(200, c.contentType, []byte(c.body))
		if err != nil {
			t.Errorf("%s %s: %v", c.contentType, c.body, err)
		}
		check(t, c.body+" is a result", r != nil, true)
	}
	bad := []struct {
		status            int
		contentType, body string
	}{
		{500, j, `{}`}, {404, j, `{}`}, {200, "text/plain", `{}`}, {200, "", `{}`},
		{200, j, `[]`}, {200, j, `"x"`}, {200, j, `{"Logs":[{}]}`},
		{200, j, `{"Outputs":[]}`}, {200, j, `{"Outputs":"x"}`}, {200, j, `{`}, {200, j, `no`},
	}
	for _, c := range bad {
		if r, err := parseResult(c.status, c.contentType, []byte(c.body)); err == nil {
			t.Errorf("%d %s %s: %v; want a failure", c.status, c.contentType, c.body, r)
		}
	}
	for _, empty := range []string{"", " \n", "null"} {
		r, err := parseResult(200, j, []byte(empty))
		if err != nil {
			t.Errorf("%q: %v", empty, err)
		}
		check(t, fmt.Sprintf("%q", empty), r, nil)
	}
}

func TestArgumentsAreJoinedAndSplitAgain(t *testing.T) {
	t.Parallel()
	check(t, "arguments", splitArguments(`a  b "c d" e"f g" ""`), []string{"a", "b", "c d", "ef g", ""})
}

func TestMarksOfSettings(t *testing.T) {
	t.Parallel()
	s := newSettings(map[string]string{"A": "1", "Group__name": "2"})
	for text, want := range map[string]string{"x": "x", "%a%": "1", "%A%/%GROUP:NAME%!": "1/2!"} {
		got, err := s.resolve(text)
		if err != nil {
			t.Error(err)
		}
		check(t, text, got, want)
	}
	for _, bad := range []string{"%B%", "%A", "100%"} {
		if got, err := s.resolve(bad); err == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
	env := map[string]string{"A": "1"}
	check(t, "unknown ones stay", expand("%A%-%B%-%A%", env, false), "1-%B%-1")
	check(t, "unknown ones go", expand("%A%-%B%-%A%", env, true), "1--1")
	check(t, "a single mark stays", expand("50% %A%", env, false), "50% 1")
}

const (
	proxying    = `"enableProxyingHttpRequest":true`
	bareHandler = `"customHandler":{"description":{"defaultExecutablePath":"handler"},` + proxying + `}`
	bundleFile  = `{"version":"2.0",` + bareHandler + `,"extensionBundle":`
	busFile     = `{"version":"2.0",` + bareHandler + `,"extensions":{"serviceBus":`
)

func TestHostFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		``:                                      "unable to parse",
		`{}`:                                    "the version is",
		`{"version":"1.0",` + bareHandler + `}`: "the version is",
		`{"version":"2.0"}`:                     "no customHandler section",
		`{"version":"2.0",` + bareHandler + `,"functionTimeout":"00:00:00"}`:    "functionTimeout must be one second",
		`{"version":"2.0",` + bareHandler + `,"functionTimeout":"ten"}`:         "functionTimeout",
		bundleFile + `{"id":"x","version":"[4.*, 5.0.0)"}}`:                     "extensionBundle.id",
		bundleFile + `{"id":"` + bundleID + `","version":"[5.*, 6.0.0)"}}`:      "leaves out bundle",
		bundleFile + `{"id":"` + bundleID + `","version":"4"}}`:                 "no version range",
		busFile + `{"maxConcurrentSessions":0}}}`:                               "must be 1 at least",
		busFile + `{"sessionIdleTimeout":"1s"}}}`:                               "sessionIdleTimeout",
		busFile + `{"clientRetryOptions":{"tryTimeout":"00:00:00"}}}}`:          "tryTimeout",
		busFile + `{"maxAutoLockRenewalDuration":"-00:00:01"}}}`:                "must not be negative",
		busFile + `{"prefetchCount":1}}}`:                                       "prefetchCount",
		busFile + `{"minMessageBatchSize":2}}}`:                                 "minMessageBatchSize",
		`{"version":"2.0","customHandler":{` + proxying + `}}`:                  "must not be empty",
		`{"version":"2.0","customHandler":{"http":{"routes":[{"route":"x"}]}}}`: "exclude each other",
		withMode(proxying + `,"port":65536`):                                    "65536 is no port",
		withMode(proxying + `,"initializationTimeout":"0"`):                     "initializationTimeout",
		withMode(`"enableForwardingHttpRequest":true`):                          "alone asks for the older forwarding",
		withMode(`"enableProxyingHttpRequest":false`):                           "HTTP requests in an envelope",
		withMode(`"initializationTimeout":"00:00:30"`):                          "HTTP requests in an envelope",
	} {
		_, err := parseHostFile([]byte(file), t.TempDir(), nil)
		if err == nil {
			t.Errorf("taken: %s", file)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got error %q\nwant %q in it", file, err, want)
		}
	}
}

// withMode is a host.json with these properties of customHandler.
func withMode(properties string) string {
	return `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},` + properties + `}}`
}

func TestOlderForwardingFlagMayStandBesideTheNewerOne(t *testing.T) {
	t.Parallel()
	file := withMode(proxying + `,"enableForwardingHttpRequest":true`)
	if _, err := parseHostFile([]byte(file), t.TempDir(), nil); err != nil {
		t.Error(err)
	}
}

func TestDefaultsOfHostFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	got, err := parseHostFile([]byte(`{"VERSION":"2.0",`+bareHandler+`,"functionTimeout":"-1"}`), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "options", *got, hostOptions{
		routePrefix: "api",
		handler: handlerOptions{
			executable: "handler", workingDir: dir, errorsOnly: true, initialization: 30 * time.Second,
		},
		serviceBus: serviceBusOptions{
			autoComplete: true, lockRenewal: 5 * time.Minute, sessionIdle: time.Minute, tryTimeout: time.Minute,
			calls: 16 * runtime.NumCPU(), sessions: 8, callsPerSession: 1, batch: 1000,
		},
	})
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
		if next := s.next(from); !next.IsZero() {
			check(t, fmt.Sprintf("%q: %v is after %v", text, next, from), next.After(from), true)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("api/pats/{name}/rotate", "/api/pats/ab/rotate")
	f.Add("a/{*rest}", "/a/b/c%2F")
	f.Add("v{a}.{b}", "/v1.2")
	f.Fuzz(func(t *testing.T, text, path string) {
		template, err := parseTemplate(text)
		if err != nil {
			return
		}
		template.match(path)
		if !template.overlaps(template) {
			t.Errorf("%q does not overlap itself", text)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"Outputs":{"res":{"statusCode":"202"}},"Logs":["x"],"ReturnValue":"x"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseResult(200, "application/json", body)
		if err != nil {
			check(t, "result", r, nil)
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
	f.Add([]byte(`{"bindings":[{"type":"httpTrigger","direction":"in","name":"req","route":"a/{b}"},` +
		`{"type":"http","direction":"out","name":"res"}]}`))
	f.Add([]byte(`{"bindings":[{"type":"timerTrigger","name":"t","schedule":"%S%"}],"disabled":"X"}`))
	f.Add([]byte(`{"bindings":[{"type":"serviceBusTrigger","name":"m","queueName":"q","cardinality":"many"}]}`))
	dir := f.TempDir()
	o := &hostOptions{bundle: true, routePrefix: "api"}
	s := newSettings(map[string]string{"S": "0 * * * * *", "AzureWebJobsStorage": "x"})
	f.Fuzz(func(t *testing.T, raw []byte) {
		fn, err := load("A", dir, raw, o, s)
		if err != nil {
			return
		}
		check(t, "loaded with a trigger", fn.trigger != nil, true)
	})
}

func TestApplicationPropertiesAsJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 10, 0, 0, 120_000_000, time.FixedZone("", 3600))
	for _, c := range []struct {
		in   any
		want string
	}{
		{"x", `"x"`}, {true, `true`}, {nil, `null`}, {[]byte("hi"), `"aGk="`},
		{int64(3), `3`}, {uint8(3), `3`}, {3.0, `3.0`}, {1.5, `1.5`}, {float32(0.1), `0.1`}, {math.NaN(), `"NaN"`},
		{at, `"2026-11-23T09:00:00.12Z"`}, {[16]byte{1}, `"01000000-0000-0000-0000-000000000000"`},
	} {
		check(t, fmt.Sprint(c.in), jsonText(t, propertyValue(c.in)), c.want)
	}
}

func TestBodiesOfAMQPMessages(t *testing.T) {
	t.Parallel()
	type body = azservicebus.AMQPAnnotatedMessageBody
	raw := func(b body) *message {
		return &message{RawAMQPMessage: &azservicebus.AMQPAnnotatedMessage{Body: b}}
	}
	for name, c := range map[string]struct {
		message *message
		want    string
		err     error
	}{
		"data":          {&message{Body: []byte("x")}, "x", nil},
		"two sections":  {raw(body{Data: [][]byte{[]byte("a"), []byte("b")}}), "ab", nil},
		"value, string": {raw(body{Value: "x"}), "x", nil},
		"value, binary": {raw(body{Value: []byte("x")}), "x", nil},
		"value, number": {raw(body{Value: 3}), "", errBody},
		"sequence":      {raw(body{Sequence: [][]any{{1}}}), "", errBody},
		"nothing":       {raw(body{}), "", nil},
	} {
		got, err := bodyOf(c.message)
		check(t, name, string(got), c.want)
		check(t, name+": error", err, c.err)
	}
}

func TestConnectionsOfServiceBus(t *testing.T) {
	t.Parallel()
	const (
		keyed    = "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=aw=="
		identity = "Bus__fullyQualifiedNamespace"
		a, b     = "a.servicebus.windows.net", "b.servicebus.windows.net"
	)
	for name, c := range map[string]struct {
		settings   map[string]string
		namespace  string
		credential bool
		ok         bool
	}{
		"connection string":              {map[string]string{"Bus": keyed}, a, false, true},
		"under its old name":             {map[string]string{"AzureWebJobsBus": keyed}, a, false, true},
		"string before identity":         {map[string]string{"Bus": keyed, identity: b}, a, false, true},
		"identity":                       {map[string]string{identity: b}, b, true, true},
		"identity without a credential":  {map[string]string{identity: b}, b, false, false},
		"nothing":                        {nil, "", true, false},
		"a string that is no connection": {map[string]string{"Bus": b}, "", false, false},
	} {
		h := &Host{settings: newSettings(c.settings)}
		if c.credential {
			h.cfg.Credential = noCredential{}
		}
		check(t, name+": namespace", namespaceOf(h.settings, "Bus"), c.namespace)
		_, err := h.newBusClient("Bus")
		check(t, name+": a client is made", err == nil, c.ok)
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
		check(t, remaining.String()+" left", renewDelay(remaining), want)
	}
}
