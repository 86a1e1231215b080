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

// story is a Mux with one function of each kind whose behaviour a test sets.
type story struct {
	*customhandler.Mux
	log   bytes.Buffer
	sb    func(context.Context, customhandler.Message) error
	timer func(context.Context, customhandler.Timer) error
	http  http.HandlerFunc
}

func newStory(c customhandler.Config) *story {
	s := &story{
		sb:    func(context.Context, customhandler.Message) error { return nil },
		timer: func(context.Context, customhandler.Timer) error { return nil },
		http:  func(http.ResponseWriter, *http.Request) {},
	}
	c.Log = customhandler.NewLog(&s.log, slog.LevelDebug)
	s.Mux = customhandler.New(c)
	s.HandleServiceBus("Reconcile", func(ctx context.Context, m customhandler.Message) error { return s.sb(ctx, m) })
	s.HandleTimer("CheckExpiry", func(ctx context.Context, timer customhandler.Timer) error { return s.timer(ctx, timer) })
	s.HandleHTTP("/api/pats/{name}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.http(w, r) }))
	return s
}

func (s *story) post(t testing.TB, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, io.MultiReader(strings.NewReader(body)))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set("X-Azure-Functions-InvocationId", "0000-abcd")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// receive gives what the function gets for this envelope.
func (s *story) receive(t *testing.T, envelope string) customhandler.Message {
	t.Helper()
	var got []customhandler.Message
	s.sb = func(_ context.Context, m customhandler.Message) error { got = append(got, m); return nil }
	if w := s.post(t, "/Reconcile", envelope); w.Code != http.StatusOK || len(got) != 1 {
		t.Fatalf("%d with %d messages for %s\n%s", w.Code, len(got), envelope, &s.log)
	}
	return got[0]
}

const tick = `{"Data":{"timer":{"IsPastDue":true}},"Metadata":{}}`

func binary(body, metadata string) string {
	return `{"Data":{"m":"` + base64.StdEncoding.EncodeToString([]byte(body)) + `"},"Metadata":{` + metadata + `}}`
}

func TestTrap01ASuccessNeverHasAnEmptyBody(t *testing.T) {
	s := newStory(customhandler.Config{})
	for path, envelope := range map[string]string{"/CheckExpiry": tick, "/Reconcile": binary("x", "")} {
		w := s.post(t, path, envelope)
		var answer map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer == nil || w.Code != http.StatusOK {
			t.Errorf("%s: %d %q is no JSON object", path, w.Code, w.Body)
		}
	}
}

func TestTrap02EveryAnswerSaysThatItIsJSON(t *testing.T) {
	s := newStory(customhandler.Config{})
	if got := s.post(t, "/CheckExpiry", tick).Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("success: %q", got)
	}
	s.timer = func(context.Context, customhandler.Timer) error { return errors.New("no") }
	if got := s.post(t, "/CheckExpiry", tick).Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("failure: %q", got)
	}
}

func TestTrap03ValuesEncodedTwiceOnceOrNotAtAllReadTheSame(t *testing.T) {
	s := newStory(customhandler.Config{})
	for name, metadata := range map[string]string{
		"twice":     `"MessageId":"\"m 1\"","DeliveryCount":"3","SequenceNumber":"9007199254740993"`,
		"once":      `"MessageId":"m 1","DeliveryCount":3,"SequenceNumber":9007199254740993`,
		"of each":   `"MessageId":" \"m 1\" ","DeliveryCount":"\"3\"","SequenceNumber":"9007199254740993"`,
		"escaped":   `"MessageId":"\u0022m\\u00201\u0022","DeliveryCount":"3","SequenceNumber":"9007199254740993"`,
		"new stuff": `"MessageId":"\"m 1\"","DeliveryCount":"3","SequenceNumber":"9007199254740993","New":{"MessageId":"\"x\""},"List":"[1]"`,
	} {
		m := s.receive(t, binary("x", metadata))
		if m.MessageID != "m 1" || m.DeliveryCount != 3 || m.SequenceNumber != 9007199254740993 {
			t.Errorf("%s: got %+v", name, m)
		}
	}
	m := s.receive(t, binary("x", `"SessionId":"\"a \\\"b\\\" ü \\\\ \\u00e9\"","Subject":"null","CorrelationId":null,"ContentType":{},"LockToken":"\"null\""`))
	if m.SessionID != `a "b" ü \ é` || m.Subject != "" || m.CorrelationID != "" || m.ContentType != "" || m.LockToken != "null" {
		t.Errorf("got %+v", m)
	}
	m = s.receive(t, binary("x", `"ApplicationProperties":"{\"n\":9007199254740993,\"f\":1.5,\"s\":\"7\",\"b\":false}"`))
	if got := fmt.Sprintf("%#v", m.ApplicationProperties); got != `map[string]interface {}{"b":false, "f":1.5, "n":9007199254740993, "s":"7"}` {
		t.Errorf("application properties: %s", got)
	}
}

func TestTrap04DatesWithoutAZoneAreUTC(t *testing.T) {
	s := newStory(customhandler.Config{})
	for metadata, want := range map[string]string{
		`"EnqueuedTimeUtc":"2026-11-03T07:15:22"`:                                            "2026-11-03T07:15:22Z",
		`"EnqueuedTimeUtc":"2026-11-03T07:15:22.118"`:                                        "2026-11-03T07:15:22.118Z",
		`"EnqueuedTime":"2026-11-03T08:15:22+01:00","EnqueuedTimeUtc":"2026-11-03T07:15:22"`: "2026-11-03T07:15:22Z",
		`"EnqueuedTime":"\"2026-11-03T07:15:22.5Z\""`:                                        "2026-11-03T07:15:22.5Z",
		`"EnqueuedTime":"11/23/2026 10:00:00"`:                                               "0001-01-01T00:00:00Z",
	} {
		if got := s.receive(t, binary("x", metadata)).EnqueuedTime; got.Format(time.RFC3339Nano) != want {
			t.Errorf("%s: got %s, want %s", metadata, got.Format(time.RFC3339Nano), want)
		}
	}
	if got := s.receive(t, binary("x", `"ExpiresAtUtc":"9999-12-31T23:59:59"`)).ExpiresAt; got.Year() != 9999 {
		t.Errorf("no time to live: %v", got)
	}
}

func TestTrap05AJSONBodyCannotForgeTheBrokersMetadata(t *testing.T) {
	s := newStory(customhandler.Config{})
	forged := `"MessageId":"\"forged\"","SessionId":"\"forged\"","DeliveryCount":"0","SequenceNumber":"0","LockToken":"\"forged\"",` +
		`"EnqueuedTime":"2000-01-01T00:00:00Z","ExpiresAt":"2000-01-01T00:00:00Z","Subject":"\"forged\"","ContentType":"\"forged\"",` +
		`"CorrelationId":"\"forged\"","ApplicationProperties":{"DeadLetterReason":"forged","DeadLetterErrorDescription":"forged"}`
	for name, data := range map[string]string{
		"text":                  `"\"{\\\"messageId\\\":\\\"forged\\\"}\""`,
		"text that is base64":   `"\"Zm9yZ2Vk\""`,
		"text encoded once":     `"{\"messageId\":\"forged\"}"`,
		"an object":             `{"messageId":"forged"}`,
		"text with line breaks": `"Zm9y\nZ2Vk"`,
		"nothing":               `"\"\""`,
	} {
		m := s.receive(t, `{"Data":{"m":`+data+`},"Metadata":{`+forged+`}}`)
		body := m.Body
		m.Body, m.InvocationID = nil, ""
		if got, want := fmt.Sprintf("%+v", m), fmt.Sprintf("%+v", customhandler.Message{}); got != want {
			t.Errorf("%s: believed the metadata: %s", name, got)
		}
		if len(body) == 0 && name != "nothing" {
			t.Errorf("%s: the body is lost", name)
		}
	}
	if !strings.Contains(s.log.String(), "dataType binary") {
		t.Error("nobody is told to set dataType")
	}
	m := s.receive(t, binary(`{"messageId":"forged","deliveryCount":0}`, `"MessageId":"\"m-1\"","DeliveryCount":"2"`))
	if !m.Trusted || m.MessageID != "m-1" || m.DeliveryCount != 2 {
		t.Errorf("binary: %+v", m)
	}
}

func TestTrap06AFailureIsInOurOwnLogBecauseTheHostThrowsTheAnswerAway(t *testing.T) {
	s := newStory(customhandler.Config{})
	s.sb = func(context.Context, customhandler.Message) error { return errors.New("vault is closed") }
	w := s.post(t, "/Reconcile", binary("canary", ""))
	if w.Code != http.StatusInternalServerError {
		t.Errorf("got %d, and only a status that is no 2xx makes the host deliver again", w.Code)
	}
	for _, want := range []string{`"level":"ERROR"`, `"error":"vault is closed"`, `"function":"Reconcile"`, `"invocation":"0000-abcd"`} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("%s is not in the log: %s", want, &s.log)
		}
	}
	if strings.Contains(w.Body.String(), "vault") {
		t.Errorf("the reason went to the caller: %s", w.Body)
	}
}

func TestTrap07HTTPFunctionsAnswerWithTheirOwnStatusAndHeaders(t *testing.T) {
	s := newStory(customhandler.Config{})
	s.http = func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		w.Header().Set("Location", "https://login.example")
		w.WriteHeader(http.StatusFound)
	}
	w := s.post(t, "/api/pats/x", "")
	if w.Code != http.StatusFound || len(w.Header()["Set-Cookie"]) != 2 || w.Header().Get("Location") == "" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
}

func TestTrap08NothingIsReturnedThatTheHostCouldTakeForBase64(t *testing.T) {
	s := newStory(customhandler.Config{})
	var answer map[string]any
	if err := json.Unmarshal(s.post(t, "/CheckExpiry", tick).Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer["Outputs"] != nil || answer["ReturnValue"] != nil {
		t.Errorf("got %v", answer)
	}
}

func TestTrap09TheServersOwnErrorsGoToTheLogAndNotToStderr(t *testing.T) {
	s := newStory(customhandler.Config{})
	server := s.Server("127.0.0.1:0")
	server.ErrorLog.Print("http: TLS handshake error")
	if !strings.Contains(s.log.String(), "TLS handshake error") {
		t.Errorf("the log has %q", &s.log)
	}
}

func TestTrap10APanicEndsItsInvocationAndNotTheProcess(t *testing.T) {
	s := newStory(customhandler.Config{})
	s.sb = func(_ context.Context, m customhandler.Message) error { panic(string(m.Body)) }
	w := s.post(t, "/Reconcile", binary("canary", ""))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	s.http = func(w http.ResponseWriter, _ *http.Request) { _ = []int{}[len(s.log.String())] }
	w = s.post(t, "/api/pats/canary?code=canary", "canary")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("HTTP: got %d %s", w.Code, w.Body)
	}
	if strings.Contains(s.log.String(), "canary") {
		t.Errorf("the payload is in the log: %s", &s.log)
	}
	if !strings.Contains(s.log.String(), "traps_test.go") || !strings.Contains(s.log.String(), "index out of range") {
		t.Errorf("the log does not say where: %s", &s.log)
	}
	if got := s.post(t, "/CheckExpiry", tick); got.Code != http.StatusOK {
		t.Errorf("the next one: %d", got.Code)
	}
}

func TestAPanicAfterTheFirstByteBreaksTheConnection(t *testing.T) {
	s := newStory(customhandler.Config{})
	for _, thrown := range []any{"bug", http.ErrAbortHandler} {
		s.http = func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half of it")
			panic(thrown)
		}
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%v: net/http was given %v", thrown, v)
				}
			}()
			s.post(t, "/api/pats/x", "")
		}()
	}
	if n := strings.Count(s.log.String(), `"msg":"panic"`); n != 1 {
		t.Errorf("%d panics in the log, want 1: an abort is no bug\n%s", n, &s.log)
	}
}

func TestTrap11ReadinessIsCheapAndQuiet(t *testing.T) {
	s := newStory(customhandler.Config{})
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if s.log.Len() > 0 {
		t.Errorf("it is called every 25 ms, and logged: %s", &s.log)
	}
}

func TestTrap12AnInvocationEndsByItsOwnDeadlineAndTheServerSetsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory(customhandler.Config{})
		wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		s.timer = func(ctx context.Context, _ customhandler.Timer) error { return wait(ctx) }
		s.http = func(_ http.ResponseWriter, r *http.Request) { _ = wait(r.Context()) }
		for path, body := range map[string]string{"/CheckExpiry": tick, "/api/pats/x": ""} {
			start := time.Now()
			s.post(t, path, body)
			if took := time.Since(start); took != 4*time.Minute {
				t.Errorf("%s ended after %s", path, took)
			}
		}
		free := newStory(customhandler.Config{Deadline: -1})
		free.timer = func(ctx context.Context, _ customhandler.Timer) error {
			if _, ok := ctx.Deadline(); ok {
				t.Error("a deadline though there shall be none")
			}
			return nil
		}
		free.post(t, "/CheckExpiry", tick)
	})
	server := newStory(customhandler.Config{}).Server("127.0.0.1:0")
	if server.WriteTimeout != 0 || server.ReadTimeout != 0 || server.IdleTimeout < 2*time.Minute || server.ReadHeaderTimeout == 0 || server.MaxHeaderBytes == 0 {
		t.Errorf("time-outs: write %s, read %s, idle %s, header %s", server.WriteTimeout, server.ReadTimeout, server.IdleTimeout, server.ReadHeaderTimeout)
	}
}

func TestTrap14EnvelopesAndPlainHTTPLiveSideBySide(t *testing.T) {
	s := newStory(customhandler.Config{})
	s.http = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("name")) }
	if got := s.post(t, "/api/pats/Reconcile", "").Body.String(); got != "Reconcile" {
		t.Errorf("HTTP: %q", got)
	}
	if w := s.post(t, "/Reconcile", binary("x", "")); w.Code != http.StatusOK {
		t.Errorf("Service Bus: %d", w.Code)
	}
	for _, path := range []string{"/reconcile", "/Reconcile/", "/Nobody", "/api", "/api/Reconcile", "//Reconcile"} {
		w := s.post(t, path, binary("x", ""))
		if w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestTrap15AndTrap19ChunkedBodiesArriveWhole(t *testing.T) {
	s := newStory(customhandler.Config{})
	s.http = func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	server := httptest.NewServer(s)
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
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != strings.Repeat("part ", 100) {
		t.Errorf("%v: %q", err, body)
	}
}

func TestTrap16NoPayloadAndNoKeyGetsIntoTheLog(t *testing.T) {
	s := newStory(customhandler.Config{MaxBody: 4096})
	s.sb = func(context.Context, customhandler.Message) error { return errors.New("failed") }
	s.http = func(w http.ResponseWriter, r *http.Request) {
		slog.New(customhandler.NewLog(&s.log, slog.LevelDebug).Handler()).InfoContext(r.Context(), "looking at it",
			"url", r.URL, "headers", r.Header, "request", fmt.Errorf("calling %s", r.URL), "x-functions-key", r.Header.Get("x-functions-key"))
		w.WriteHeader(http.StatusInternalServerError)
	}
	s.post(t, "/Reconcile", binary("canary", `"Subject":"\"canary\"","ApplicationProperties":{"canary":"canary"}`))
	s.post(t, "/Reconcile", `{"Data":{"m":"\"canary\""},"Metadata":{}}`)
	s.post(t, "/Reconcile", `canary`)
	s.post(t, "/Reconcile", `{"Data":"canary"}`)
	s.post(t, "/Reconcile", `{"Data":{"m":null},"Metadata":{"canary":"canary"}}`)
	s.post(t, "/Reconcile", `{"Data":{"m":"`+strings.Repeat("canary", 1000)+`"}}`)
	s.post(t, "/canary?code=canary", "canary")
	s.post(t, "/api/canary?code=canary", "canary")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/pats/x?code=canary&y=1", nil)
	r.Header.Set("X-Functions-Key", "canary")
	r.Header.Set("X-Azure-Functions-InvocationId", "canary")
	s.ServeHTTP(httptest.NewRecorder(), r)
	if strings.Contains(s.log.String(), "canary") {
		t.Errorf("a payload or key in the log:\n%s", &s.log)
	}
	if lines := strings.Count(s.log.String(), "\n"); lines < 10 {
		t.Errorf("only %d lines in the log:\n%s", lines, &s.log)
	}
}

func TestTrap18ABatchIsDeliveredOneByOneAndFailsAsAWhole(t *testing.T) {
	s := newStory(customhandler.Config{})
	var bodies []string
	s.sb = func(_ context.Context, m customhandler.Message) error {
		bodies = append(bodies, string(m.Body)+"/"+m.MessageID)
		if m.MessageID == "1" {
			return errors.New("the first")
		}
		return nil
	}
	w := s.post(t, "/Reconcile", `{"Data":{"m":"[\"YQ==\",\"Yg==\",\"Yw==\"]"},"Metadata":{"MessageIdArray":"[\"1\",null]"}}`)
	if got := strings.Join(bodies, " "); got != "a/1 b/ c/" || w.Code != http.StatusInternalServerError {
		t.Errorf("got %q, %d", got, w.Code)
	}
	bodies = nil
	for _, data := range []string{`"[{\"a\":1}]"`, `[{"a":1}]`, `"[\"plain text\"]"`, `"[1]"`, `"[\"YQ==\",null]"`} {
		if w := s.post(t, "/Reconcile", `{"Data":{"m":`+data+`}}`); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", data, w.Code)
		}
	}
	if len(bodies) > 0 {
		t.Errorf("delivered %q of batches that cannot be read", bodies)
	}
	if !strings.Contains(s.log.String(), "set dataType binary") {
		t.Errorf("the log does not say what to do: %s", &s.log)
	}
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
	s := newStory(customhandler.Config{MaxBody: 2000})
	s.sb = func(context.Context, customhandler.Message) error { t.Error("delivered"); return nil }
	s.timer = func(context.Context, customhandler.Timer) error { t.Error("ticked"); return nil }
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
		"too deep":            {"/Reconcile", `{"Data":{"m":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, 400},
		"too deep inside":     {"/Reconcile", `{"Data":{"m":"` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `"}}`, 400},
		"too long":            {"/Reconcile", `{"Data":{"m":"` + strings.Repeat("A", 2000) + `"}}`, 413},
		"timer no data":       {"/CheckExpiry", `{"Data":{}}`, 400},
		"timer no object":     {"/CheckExpiry", `{"Data":{"t":"7"}}`, 400},
		"timer broken":        {"/CheckExpiry", `{"Data":`, 400},
	} {
		if w := s.post(t, tt.path, tt.body); w.Code != tt.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, tt.status)
		}
	}
	for name, change := range map[string]func(*http.Request){
		"GET":        func(r *http.Request) { r.Method = http.MethodGet },
		"form":       func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") },
		"text":       func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"no type":    func(r *http.Request) { r.Header.Del("Content-Type") },
		"short body": func(r *http.Request) { r.Body = io.NopCloser(io.LimitReader(brokenReader{}, 10)) },
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/Reconcile", strings.NewReader(binary("x", "")))
		r.Header.Set("Content-Type", "application/json")
		change(r)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code < 400 || w.Code > 415 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestATimerThatIsWrappedOrUnmonitoredStillTicks(t *testing.T) {
	s := newStory(customhandler.Config{})
	for _, data := range []string{
		`{"IsPastDue":true,"ScheduleStatus":null,"Schedule":{"AdjustForDST":false},"New":[1]}`,
		`"{\"IsPastDue\":true}"`,
		`{"IsPastDue":true,"Schedule":null}`,
	} {
		var got customhandler.Timer
		s.timer = func(_ context.Context, timer customhandler.Timer) error { got = timer; return nil }
		if w := s.post(t, "/CheckExpiry", `{"Data":{"t":`+data+`}}`); w.Code != http.StatusOK || got != (customhandler.Timer{IsPastDue: true}) {
			t.Errorf("%s: %d %+v", data, w.Code, got)
		}
	}
}

func TestADeadLetterSaysWhyItDied(t *testing.T) {
	m := newStory(customhandler.Config{}).receive(t, binary("x", `"ApplicationProperties":{"DeadLetterReason":"MaxDeliveryCountExceeded","DeadLetterErrorDescription":"Message could not be consumed after 10 delivery attempts."}`))
	if m.DeadLetterReason != "MaxDeliveryCountExceeded" || !strings.HasPrefix(m.DeadLetterErrorDescription, "Message could not") {
		t.Errorf("got %+v", m)
	}
}

func TestTheHostsInvocationIDWinsOverTheClients(t *testing.T) {
	for name, values := range map[string][]string{
		"two headers": {"11111111-2222-3333-4444-555555555555", "aaaa-bbbb"},
		"one, joined": {"11111111-2222-3333-4444-555555555555, aaaa-bbbb"},
		"alone":       {"aaaa-bbbb"},
	} {
		s := newStory(customhandler.Config{})
		s.http = func(_ http.ResponseWriter, r *http.Request) {
			if id := customhandler.Invocation(r.Context()).ID; id != "aaaa-bbbb" {
				t.Errorf("%s: %q", name, id)
			}
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/pats/x", nil)
		r.Header["X-Azure-Functions-Invocationid"] = values
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestAnHTTPBodyOverTheLimitIsCutOff(t *testing.T) {
	s := newStory(customhandler.Config{MaxBody: 10})
	s.http = func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}
	if w := s.post(t, "/api/pats/x", "0123456789"); w.Code != http.StatusOK {
		t.Errorf("ten bytes: %d", w.Code)
	}
	if w := s.post(t, "/api/pats/x", "0123456789a"); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("eleven bytes: %d", w.Code)
	}
}
