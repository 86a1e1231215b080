package customhandler_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
)

// What a naive Go handler gets wrong, as far as the handler's side can get it
// right. The rest is in host.json, function.json and the package's layout.

// fixture is a Mux with one function of each kind whose behaviour a test sets.
type fixture struct {
	*customhandler.Mux
	log   bytes.Buffer
	queue func(context.Context, customhandler.Message) error
	timer func(context.Context, customhandler.Timer) error
	http  http.HandlerFunc
}

func newFixture() *fixture {
	f := &fixture{
		queue: func(context.Context, customhandler.Message) error { return nil },
		timer: func(context.Context, customhandler.Timer) error { return nil },
		http:  func(http.ResponseWriter, *http.Request) {},
	}
	f.Mux = customhandler.New(customhandler.Config{Log: customhandler.NewLog(&f.log, slog.LevelDebug)})
	f.HandleServiceBus("Reconcile", func(ctx context.Context, m customhandler.Message) error {
		return f.queue(ctx, m)
	})
	f.HandleTimer("CheckExpiry", func(ctx context.Context, timer customhandler.Timer) error {
		return f.timer(ctx, timer)
	})
	f.HandleHTTP("/api/pats/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.http(w, r) }))
	return f
}

func (f *fixture) post(t testing.TB, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, io.MultiReader(strings.NewReader(body)))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("X-Azure-Functions-InvocationId", "0000-abcd")
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// receive gives what the function gets for this envelope.
func (f *fixture) receive(t *testing.T, envelope string) customhandler.Message {
	t.Helper()
	var got []customhandler.Message
	f.queue = func(_ context.Context, m customhandler.Message) error { got = append(got, m); return nil }
	if w := f.post(t, "/Reconcile", envelope); w.Code != http.StatusOK {
		t.Fatalf("got %d for %s\n%s", w.Code, envelope, &f.log)
	}
	if len(got) != 1 {
		t.Fatalf("got %d messages for %s", len(got), envelope)
	}
	return got[0]
}

const tick = `{"Data":{"timer":{"IsPastDue":true}},"Metadata":{}}`

func binary(body, metadata string) string {
	return `{"Data":{"m":"` + base64.StdEncoding.EncodeToString([]byte(body)) + `"},"Metadata":{` + metadata + `}}`
}

func TestTrap01ASuccessNeverHasAnEmptyBody(t *testing.T) {
	f := newFixture()
	for path, envelope := range map[string]string{"/CheckExpiry": tick, "/Reconcile": binary("x", "")} {
		w := f.post(t, path, envelope)
		check(t, path+": status", w.Code, http.StatusOK)
		var answer map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Errorf("%s: %v: %q", path, err, w.Body)
		}
		if answer == nil {
			t.Errorf("%s: %q is no JSON object", path, w.Body)
		}
	}
}

func TestTrap02EveryAnswerSaysThatItIsJSON(t *testing.T) {
	f := newFixture()
	mediaType := func() string { return f.post(t, "/CheckExpiry", tick).Header().Get("Content-Type") }
	check(t, "success", mediaType(), "application/json")
	f.timer = func(context.Context, customhandler.Timer) error { return errors.New("no") }
	check(t, "failure", mediaType(), "application/problem+json")
}

func TestTrap03ValuesEncodedTwiceOnceOrNotAtAllReadTheSame(t *testing.T) {
	f := newFixture()
	for name, metadata := range map[string]string{
		"twice":     `"MessageId":"\"m 1\"","DeliveryCount":"3"`,
		"once":      `"MessageId":"m 1","DeliveryCount":3`,
		"of each":   `"MessageId":" \"m 1\" ","DeliveryCount":"\"3\""`,
		"escaped":   `"MessageId":"\u0022m\\u00201\u0022","DeliveryCount":"3"`,
		"new stuff": `"MessageId":"\"m 1\"","DeliveryCount":"3","New":{"MessageId":"\"x\""},"List":"[1]"`,
	} {
		want := customhandler.Message{Body: []byte("x"), Trusted: true, MessageID: "m 1", DeliveryCount: 3}
		check(t, name, f.receive(t, binary("x", metadata)), want)
	}
	for name, c := range map[string]struct{ value, want string }{
		"escapes of both layers": {`"\"a \\\"b\\\" ü \\\\ \\u00e9\""`, `a "b" ü \ é`},
		"null as text":           {`"null"`, ""},
		"null":                   {`null`, ""},
		"an object":              {`{}`, ""},
		"a text that says null":  {`"\"null\""`, "null"},
	} {
		check(t, name, f.receive(t, binary("x", `"SessionId":`+c.value)).SessionID, c.want)
	}
	for name, value := range map[string]string{"as text": `"9007199254740993"`, "as number": `9007199254740993`} {
		check(t, "sequence number "+name, f.receive(t, binary("x", `"SequenceNumber":`+value)).SequenceNumber,
			9007199254740993)
	}
	m := f.receive(t, binary("x",
		`"ApplicationProperties":"{\"n\":9007199254740993,\"f\":1.5,\"s\":\"7\",\"b\":false}"`))
	check(t, "application properties", m.ApplicationProperties,
		map[string]any{"b": false, "f": 1.5, "n": int64(9007199254740993), "s": "7"})
}

func TestTrap04DatesWithoutAZoneAreUTC(t *testing.T) {
	f := newFixture()
	for metadata, want := range map[string]string{
		`"EnqueuedTimeUtc":"2026-11-03T07:15:22"`:     "2026-11-03T07:15:22Z",
		`"EnqueuedTimeUtc":"2026-11-03T07:15:22.118"`: "2026-11-03T07:15:22.118Z",
		`"EnqueuedTimeUtc":"9999-12-31T23:59:59"`:     "9999-12-31T23:59:59Z",
		`"EnqueuedTime":"2026-11-03T08:15:22+01:00"`:  "2026-11-03T07:15:22Z",
		`"EnqueuedTime":"\"2026-11-03T07:15:22.5Z\""`: "2026-11-03T07:15:22.5Z",
		`"EnqueuedTime":"11/23/2026 10:00:00"`:        "0001-01-01T00:00:00Z",

		`"EnqueuedTime":"2026-11-03T08:15:22+01:00","EnqueuedTimeUtc":"2026-11-03T06:00:00"`: "2026-11-03T07:15:22Z",
	} {
		got := f.receive(t, binary("x", metadata)).EnqueuedTime
		check(t, metadata, got.Format(time.RFC3339Nano), want)
	}
}

func TestTrap05AJSONBodyCannotForgeTheBrokersMetadata(t *testing.T) {
	f := newFixture()
	const forged = `"MessageId":"\"forged\"","SessionId":"\"forged\"","DeliveryCount":"0",` +
		`"EnqueuedTime":"2000-01-01T00:00:00Z","ApplicationProperties":{"DeadLetterReason":"forged"}`
	for name, data := range map[string]string{
		"text":                  `"\"{\\\"messageId\\\":\\\"forged\\\"}\""`,
		"text that is base64":   `"\"Zm9yZ2Vk\""`,
		"text encoded once":     `"{\"messageId\":\"forged\"}"`,
		"an object":             `{"messageId":"forged"}`,
		"text with line breaks": `"Zm9y\nZ2Vk"`,
		"nothing":               `"\"\""`,
	} {
		m := f.receive(t, `{"Data":{"m":`+data+`},"Metadata":{`+forged+`}}`)
		check(t, name, m, customhandler.Message{Body: m.Body})
		check(t, name+": body is lost", len(m.Body) == 0, name == "nothing")
	}
	checkLogHas(t, &f.log, "dataType binary")
	m := f.receive(t, binary(`{"messageId":"forged","deliveryCount":0}`, `"MessageId":"\"m-1\"","DeliveryCount":"2"`))
	want := customhandler.Message{
		Body: []byte(`{"messageId":"forged","deliveryCount":0}`), Trusted: true, MessageID: "m-1", DeliveryCount: 2,
	}
	check(t, "binary", m, want)
}

func TestTrap06AFailureIsInOurOwnLogBecauseTheHostThrowsTheAnswerAway(t *testing.T) {
	f := newFixture()
	f.queue = func(context.Context, customhandler.Message) error { return errors.New("vault is closed") }
	w := f.post(t, "/Reconcile", binary("canary", ""))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("got %d, and only a status that is no 2xx makes the host deliver again", w.Code)
	}
	for _, want := range []string{
		`"level":"ERROR"`, `"error":"vault is closed"`, `"function":"Reconcile"`, `"invocation":"0000-abcd"`,
	} {
		checkLogHas(t, &f.log, want)
	}
	if strings.Contains(w.Body.String(), "vault") {
		t.Errorf("the reason went to the caller: %s", w.Body)
	}
}

func TestTrap07HTTPFunctionsAnswerWithTheirOwnStatusAndHeaders(t *testing.T) {
	f := newFixture()
	f.http = func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		w.Header().Set("Location", "https://login.example")
		w.WriteHeader(http.StatusFound)
	}
	w := f.post(t, "/api/pats/x", "")
	check(t, "status", w.Code, http.StatusFound)
	check(t, "cookies", w.Header()["Set-Cookie"], []string{"a=1", "b=2"})
	check(t, "Location", w.Header().Get("Location"), "https://login.example")
}

func TestTrap08NothingIsReturnedThatTheHostCouldTakeForBase64(t *testing.T) {
	f := newFixture()
	var answer map[string]any
	if err := json.Unmarshal(f.post(t, "/CheckExpiry", tick).Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	check(t, "Outputs", answer["Outputs"], nil)
	check(t, "ReturnValue", answer["ReturnValue"], nil)
}

func TestTrap09TheServersOwnErrorsGoToTheLogAndNotToStderr(t *testing.T) {
	f := newFixture()
	server := f.Server("127.0.0.1:0")
	server.ErrorLog.Print("http: TLS handshake error")
	checkLogHas(t, &f.log, "TLS handshake error")
}

func TestTrap10APanicEndsItsInvocationAndNotTheProcess(t *testing.T) {
	f := newFixture()
	checkFailure := func(what string, w *httptest.ResponseRecorder) {
		t.Helper()
		check(t, what+": status", w.Code, http.StatusInternalServerError)
		if strings.Contains(w.Body.String(), "goroutine") {
			t.Errorf("%s: the stack went to the caller: %s", what, w.Body)
		}
	}
	f.queue = func(_ context.Context, m customhandler.Message) error { panic(string(m.Body)) }
	checkFailure("queue", f.post(t, "/Reconcile", binary("canary", "")))
	f.http = func(http.ResponseWriter, *http.Request) { _ = []int{}[len(f.log.String())] }
	checkFailure("HTTP", f.post(t, "/api/pats/canary?code=canary", "canary"))
	checkLogLacks(t, &f.log, "canary")
	checkLogHas(t, &f.log, "traps_test.go")
	checkLogHas(t, &f.log, "index out of range")
	check(t, "status of the next one", f.post(t, "/CheckExpiry", tick).Code, http.StatusOK)
}

func TestAPanicAfterTheFirstByteBreaksTheConnection(t *testing.T) {
	f := newFixture()
	for _, thrown := range []any{"bug", http.ErrAbortHandler} {
		f.http = func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half of it")
			panic(thrown)
		}
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%v: net/http was given %v", thrown, v)
				}
			}()
			f.post(t, "/api/pats/x", "")
		}()
	}
	// One of the two: an abort is no bug.
	check(t, "panics in the log", strings.Count(f.log.String(), `"msg":"panic"`), 1)
}

func TestTrap11ReadinessIsCheapAndQuiet(t *testing.T) {
	f := newFixture()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	check(t, "the log, though the host calls every 25 ms", f.log.String(), "")
}

func TestTrap12AnInvocationEndsByItsOwnDeadlineAndTheServerSetsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		f.timer = func(ctx context.Context, _ customhandler.Timer) error { return wait(ctx) }
		f.http = func(_ http.ResponseWriter, r *http.Request) { _ = wait(r.Context()) }
		for path, body := range map[string]string{"/CheckExpiry": tick, "/api/pats/x": ""} {
			start := time.Now()
			f.post(t, path, body)
			check(t, path+" took", time.Since(start), 4*time.Minute)
		}
	})
	server := newFixture().Server("127.0.0.1:0")
	check(t, "WriteTimeout", server.WriteTimeout, 0)
	check(t, "ReadTimeout", server.ReadTimeout, 0)
	check(t, "IdleTimeout", server.IdleTimeout, 10*time.Minute)
	check(t, "ReadHeaderTimeout", server.ReadHeaderTimeout, 10*time.Second)
	check(t, "MaxHeaderBytes", server.MaxHeaderBytes, 128<<10)
}

func TestTrap14EnvelopesAndPlainHTTPLiveSideBySide(t *testing.T) {
	f := newFixture()
	f.http = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("name")) }
	check(t, "HTTP", f.post(t, "/api/pats/Reconcile", "").Body.String(), "Reconcile")
	check(t, "Service Bus", f.post(t, "/Reconcile", binary("x", "")).Code, http.StatusOK)
	for _, path := range []string{"/reconcile", "/Reconcile/", "/Nobody", "/api", "/api/Reconcile", "//Reconcile"} {
		w := f.post(t, path, binary("x", ""))
		check(t, path+": status", w.Code, http.StatusNotFound)
		check(t, path+": type", w.Header().Get("Content-Type"), "application/problem+json")
	}
}

func TestTrap15AndTrap19ChunkedBodiesArriveWhole(t *testing.T) {
	f := newFixture()
	f.http = func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	server := httptest.NewServer(f)
	defer server.Close()
	reader, writer := io.Pipe() // no length: the client sends chunks
	go func() {
		buffered := bufio.NewWriterSize(writer, 7)
		_, _ = io.WriteString(buffered, strings.Repeat("part ", 100))
		_ = buffered.Flush()
		_ = writer.Close()
	}()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/api/pats/x", reader)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	check(t, "body", string(body), strings.Repeat("part ", 100))
}

func TestTrap16NoPayloadAndNoKeyGetsIntoTheLog(t *testing.T) {
	f := newFixture()
	f.queue = func(context.Context, customhandler.Message) error { return errors.New("failed") }
	f.http = func(w http.ResponseWriter, r *http.Request) {
		log := customhandler.NewLog(&f.log, slog.LevelDebug)
		log.InfoContext(r.Context(), "working on it", "url", r.URL, "headers", r.Header,
			"request", fmt.Errorf("calling %s", r.URL), "x-functions-key", r.Header.Get("x-functions-key"))
		w.WriteHeader(http.StatusInternalServerError)
	}
	f.post(t, "/Reconcile", binary("canary", `"MessageId":"\"canary\"","ApplicationProperties":{"canary":"canary"}`))
	f.post(t, "/Reconcile", `{"Data":{"m":"\"canary\""},"Metadata":{}}`)
	f.post(t, "/Reconcile", `canary`)
	f.post(t, "/Reconcile", `{"Data":"canary"}`)
	f.post(t, "/Reconcile", `{"Data":{"m":null},"Metadata":{"canary":"canary"}}`)
	f.post(t, "/Reconcile", `{"Data":{"m":"`+strings.Repeat("canary", 200_000)+`"}}`)
	f.post(t, "/canary?code=canary", "canary")
	f.post(t, "/api/canary?code=canary", "canary")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/pats/x?code=canary&y=1", nil)
	r.Header.Set("X-Functions-Key", "canary")
	r.Header.Set("X-Azure-Functions-InvocationId", "canary")
	f.ServeHTTP(httptest.NewRecorder(), r)
	checkLogLacks(t, &f.log, "canary")
	if lines := strings.Count(f.log.String(), "\n"); lines < 10 {
		t.Errorf("only %d lines in the log:\n%s", lines, &f.log)
	}
}

func TestTrap18ABatchIsRefusedAndNotDelivered(t *testing.T) {
	f := newFixture()
	f.queue = func(context.Context, customhandler.Message) error { t.Error("delivered"); return nil }
	for _, data := range []string{
		`"[\"YQ==\",\"Yg==\"]"`, `"[{\"a\":1}]"`, `[{"a":1}]`, `"[\"plain text\"]"`, `"[1]"`,
	} {
		check(t, data, f.post(t, "/Reconcile", `{"Data":{"m":`+data+`}}`).Code, http.StatusBadRequest)
	}
	checkLogHas(t, &f.log, "set cardinality one")
}

func TestAMessageThatIsAJSONArrayIsNoBatch(t *testing.T) {
	f := newFixture()
	text := f.receive(t, `{"Data":{"m":"\"[1,2]\""},"Metadata":{}}`)
	check(t, "as text", text, customhandler.Message{Body: []byte("[1,2]")})
	m := f.receive(t, binary("[1,2]", ""))
	check(t, "as binary", m, customhandler.Message{Body: []byte("[1,2]"), Trusted: true})
}

func TestTrap22RoutesThatTheHostRefusesCannotBeRegistered(t *testing.T) {
	for name, register := range map[string]func(*customhandler.Mux){
		"admin":   func(m *customhandler.Mux) { m.HandleHTTP("GET /api/Administrators", http.NotFoundHandler()) },
		"runtime": func(m *customhandler.Mux) { m.HandleHTTP("/api/runtime/x", http.NotFoundHandler()) },
		"outside": func(m *customhandler.Mux) { m.HandleHTTP("GET /pats", http.NotFoundHandler()) },
		"same route": func(m *customhandler.Mux) {
			m.HandleHTTP("/api/x", http.NotFoundHandler())
			m.HandleHTTP("/api/x", http.NotFoundHandler())
		},
		"same name":   func(m *customhandler.Mux) { m.HandleTimer("X", nil); m.HandleServiceBus("X", nil) },
		"bad name":    func(m *customhandler.Mux) { m.HandleTimer("a/b", nil) },
		"digit first": func(m *customhandler.Mux) { m.HandleTimer("1a", nil) },
		"no name":     func(m *customhandler.Mux) { m.HandleTimer("", nil) },
		"reserved":    func(m *customhandler.Mux) { m.HandleTimer("Host", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: registered", name)
				}
			}()
			register(customhandler.New(customhandler.Config{}))
		}()
	}
}

func TestInvocationsThatTheHostNeverSendsAreRefusedAndNotDelivered(t *testing.T) {
	f := newFixture()
	f.queue = func(context.Context, customhandler.Message) error { t.Error("delivered"); return nil }
	f.timer = func(context.Context, customhandler.Timer) error { t.Error("ticked"); return nil }
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for name, tt := range map[string]struct {
		path, body string
		status     int
	}{
		"empty":               {"/Reconcile", ``, 400},
		"null":                {"/Reconcile", `null`, 400},
		"an array":            {"/Reconcile", `[]`, 400},
		"cut off":             {"/Reconcile", `{"Data":{"m":"YQ=="}`, 400},
		"something behind it": {"/Reconcile", `{"Data":{"m":"YQ=="}}{}`, 400},
		"no data":             {"/Reconcile", `{"Metadata":{}}`, 400},
		"two inputs":          {"/Reconcile", `{"Data":{"m":"YQ==","n":"YQ=="}}`, 400},
		"null message":        {"/Reconcile", `{"Data":{"m":null}}`, 400},
		"metadata no object":  {"/Reconcile", `{"Data":{"m":"YQ=="},"Metadata":"x"}`, 400},
		"too deep":            {"/Reconcile", `{"Data":{"m":` + deep + `}}`, 400},
		"too deep inside":     {"/Reconcile", `{"Data":{"m":"` + deep + `"}}`, 400},
		"too long":            {"/Reconcile", `{"Data":{"m":"` + strings.Repeat("A", 1<<20) + `"}}`, 413},
		"timer no data":       {"/CheckExpiry", `{"Data":{}}`, 400},
		"timer no object":     {"/CheckExpiry", `{"Data":{"t":"7"}}`, 400},
		"timer broken":        {"/CheckExpiry", `{"Data":`, 400},
	} {
		w := f.post(t, tt.path, tt.body)
		check(t, name+": status", w.Code, tt.status)
		check(t, name+": type", w.Header().Get("Content-Type"), "application/problem+json")
	}
	mediaType := func(text string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", text) }
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"GET":        {func(r *http.Request) { r.Method = http.MethodGet }, 405},
		"form":       {mediaType("application/x-www-form-urlencoded"), 415},
		"text":       {mediaType("text/plain"), 415},
		"no type":    {mediaType(""), 415},
		"short body": {func(r *http.Request) { r.Body = io.NopCloser(brokenReader{}) }, 400},
	} {
		body := strings.NewReader(binary("x", ""))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/Reconcile", body)
		r.Header.Set("Content-Type", "application/json")
		c.change(r)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		check(t, name, w.Code, c.status)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestATimerThatIsWrappedOrUnmonitoredStillTicks(t *testing.T) {
	f := newFixture()
	for _, data := range []string{
		`{"IsPastDue":true,"ScheduleStatus":null,"Schedule":{"AdjustForDST":false},"New":[1]}`,
		`"{\"IsPastDue\":true}"`,
		`{"IsPastDue":true,"Schedule":null}`,
	} {
		var got []customhandler.Timer
		f.timer = func(_ context.Context, timer customhandler.Timer) error { got = append(got, timer); return nil }
		check(t, data+": status", f.post(t, "/CheckExpiry", `{"Data":{"t":`+data+`}}`).Code, http.StatusOK)
		check(t, data+": ticks", got, []customhandler.Timer{{}})
	}
}

func TestADeadLetterSaysWhyItDied(t *testing.T) {
	m := newFixture().receive(t, binary("x", `"ApplicationProperties":{"DeadLetterReason":"MaxDeliveryCountExceeded"}`))
	check(t, "reason", m.DeadLetterReason, "MaxDeliveryCountExceeded")
}

func TestTheHostsInvocationIDWinsOverTheClients(t *testing.T) {
	for name, values := range map[string][]string{
		"two headers": {"11111111-2222-3333-4444-555555555555", "aaaa-bbbb"},
		"one, joined": {"11111111-2222-3333-4444-555555555555, aaaa-bbbb"},
		"alone":       {"aaaa-bbbb"},
	} {
		f := newFixture()
		f.http = func(_ http.ResponseWriter, r *http.Request) {
			if id := customhandler.Invocation(r.Context()).ID; id != "aaaa-bbbb" {
				t.Errorf("%s: %q", name, id)
			}
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/pats/x", nil)
		r.Header["X-Azure-Functions-Invocationid"] = values
		f.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestAnHTTPBodyOverTheLimitIsCutOff(t *testing.T) {
	f := newFixture()
	f.http = func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}
	atTheLimit := strings.Repeat("x", 1<<20)
	check(t, "at the limit", f.post(t, "/api/pats/x", atTheLimit).Code, http.StatusOK)
	check(t, "a byte more", f.post(t, "/api/pats/x", atTheLimit+"x").Code, http.StatusRequestEntityTooLarge)
}
