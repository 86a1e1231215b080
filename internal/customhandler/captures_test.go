package customhandler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
)

// capture is one request as the real host 4.1037 sent it.
type capture struct {
	Method, URI string
	Headers     http.Header
	Body        json.RawMessage
}

func load(t testing.TB, name string) capture {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "captures", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var c capture
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c capture) request(t testing.TB) *http.Request {
	t.Helper()
	body := []byte(c.Body)
	if string(body) == `""` {
		body = nil
	}
	// A reader of unknown length: the host sends chunks.
	r := httptest.NewRequestWithContext(t.Context(), c.Method, c.URI, io.MultiReader(bytes.NewReader(body)))
	maps.Copy(r.Header, c.Headers)
	return r
}

// instant reads a time; the tables read better with text.
func instant(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v.UTC()
}

const cloudEvent = `{"specversion":"1.0","id":"e-1","type":"Microsoft.KeyVault.SecretNearExpiry","qty":3,"ok":true,"data":{"a":1},"list":[1,2],"messageId":"from-the-body","when":"2026-11-23T10:00:00.123Z"}`

func TestTheRecordedMessagesDecodeToTheirExactValues(t *testing.T) {
	for name, want := range map[string][]customhandler.Message{
		"servicebus-binary": {{
			Body: []byte(cloudEvent), Trusted: true, MessageID: "m-1", SessionID: "jenkins-agents", DeliveryCount: 1, SequenceNumber: 1,
			EnqueuedTime: instant(t, "2026-11-23T23:38:29Z"), ExpiresAt: instant(t, "2026-12-07T23:38:29Z"),
			ContentType: "application/cloudevents+json", CorrelationID: "c-1", Subject: "s-1", LockToken: "7353c1b1-c52a-4010-99d8-58a5613022dd",
			ApplicationProperties: map[string]any{"attempt": int64(2), "tenant": "blue", "vip": true},
			InvocationID:          "be6b93f1-e7ec-475b-aaa0-8379b92e09c9",
		}},
		"servicebus-binary-many": {{
			Body: []byte(`{"a":1}`), Trusted: true, MessageID: "m-1", DeliveryCount: 1, SequenceNumber: 1,
			EnqueuedTime: instant(t, "2026-11-23T23:38:29.4508216Z"), ExpiresAt: instant(t, "2026-12-07T23:38:29.4508216Z"),
			LockToken:             "a118f3cf-5084-41f8-910b-1bc98d7458ee",
			ApplicationProperties: map[string]any{"t": "b"}, InvocationID: "d601f824-f839-4654-a380-8fcead7b8c2b",
		}, {
			Body: []byte(`plain`), Trusted: true, MessageID: "m-2", DeliveryCount: 1, SequenceNumber: 1,
			EnqueuedTime: instant(t, "2026-11-23T23:38:29.4508291Z"), ExpiresAt: instant(t, "2026-12-07T23:38:29.4508292Z"),
			LockToken: "75633032-f7a2-4a3f-876e-daf244031a27", InvocationID: "d601f824-f839-4654-a380-8fcead7b8c2b",
		}},
		"servicebus-string":            {{Body: []byte(cloudEvent), InvocationID: "8f76ed2d-1483-4691-bb47-1b9dc84d2bb7"}},
		"servicebus-no-datatype":       {{Body: []byte(cloudEvent), InvocationID: "ed4aa23d-cc65-4bc7-bc34-c56aefdc34e4"}},
		"servicebus-string-plain-text": {{Body: []byte("hello"), InvocationID: "5576a638-f900-482c-89a1-ee5f1ec663dd"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, name)
			var got []customhandler.Message
			m := customhandler.New(customhandler.Config{})
			m.HandleServiceBus(strings.TrimPrefix(c.URI, "/"), func(_ context.Context, msg customhandler.Message) error {
				got = append(got, msg)
				return nil
			})
			w := httptest.NewRecorder()
			m.ServeHTTP(w, c.request(t))
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestTheRecordedTimersDecodeToTheirExactValues(t *testing.T) {
	for name, want := range map[string]customhandler.Timer{
		"timer-first-run": {AdjustForDST: true, Status: &customhandler.ScheduleStatus{Next: instant(t, "2026-11-23T23:34:00Z")}},
		"timer": {AdjustForDST: true, Status: &customhandler.ScheduleStatus{
			Last: instant(t, "2026-11-23T23:34:00.0057337Z"), LastUpdated: instant(t, "2026-11-23T23:34:00.0057337Z"),
			Next: instant(t, "2026-11-23T23:35:00Z"),
		}},
	} {
		var got customhandler.Timer
		var info customhandler.Info
		m := customhandler.New(customhandler.Config{})
		m.HandleTimer("Tick", func(ctx context.Context, timer customhandler.Timer) error {
			got, info = timer, customhandler.Invocation(ctx)
			return nil
		})
		c := load(t, name)
		w := httptest.NewRecorder()
		m.ServeHTTP(w, c.request(t))
		if w.Code != http.StatusOK || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d\ngot  %+v\nwant %+v", name, w.Code, got, want)
		}
		if want := (customhandler.Info{ID: c.Headers.Get("X-Azure-Functions-Invocationid"), Function: "Tick"}); info != want {
			t.Errorf("%s: invocation %+v, want %+v", name, info, want)
		}
	}
}

func TestTheRecordedHTTPRequestsReachTheirHandlerUnchanged(t *testing.T) {
	for name, tt := range map[string]struct{ pattern, id, value, query, body string }{
		"http-get":               {"GET /api/open/{id}", "4cb5402b-d91e-4506-a657-645578fdd73a", "a/b c", "x=1,2&y=%2F", ""},
		"http-post-admin-key":    {"POST /api/ops/{id}", "4865868b-c796-4b8c-bf02-5faccd517f3d", "revocations", "", "{}"},
		"http-post-function-key": {"POST /api/pats/{id}/rotate", "64399f2a-6232-4967-a3aa-b9a53516743c", "ci-feed", "code=HOSTKEY", `{"reason":"leak"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			m := customhandler.New(customhandler.Config{Log: customhandler.NewLog(&log, slog.LevelDebug)})
			m.HandleHTTP(tt.pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || strings.Join(strings.Fields(string(body)), "") != tt.body {
					t.Errorf("body %q, %v; want %q", body, err, tt.body)
				}
				if r.PathValue("id") != tt.value || r.URL.RawQuery != tt.query {
					t.Errorf("path value %q, query %q; want %q, %q", r.PathValue("id"), r.URL.RawQuery, tt.value, tt.query)
				}
				if got, want := customhandler.Invocation(r.Context()), (customhandler.Info{ID: tt.id, Function: tt.pattern}); got != want {
					t.Errorf("invocation %+v, want %+v", got, want)
				}
				w.WriteHeader(http.StatusAccepted)
			}))
			w := httptest.NewRecorder()
			m.ServeHTTP(w, load(t, name).request(t))
			if w.Code != http.StatusAccepted {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if strings.Contains(log.String(), "HOSTKEY") || strings.Contains(log.String(), "MASTER") {
				t.Errorf("a key in the log: %s", &log)
			}
		})
	}
}

func TestTheRecordedStartGivesTheAddressToListenOn(t *testing.T) {
	b, err := os.ReadFile("testdata/captures/process-start.json")
	if err != nil {
		t.Fatal(err)
	}
	var start struct{ Env map[string]string }
	if err := json.Unmarshal(b, &start); err != nil {
		t.Fatal(err)
	}
	if got, err := customhandler.Address(start.Env["FUNCTIONS_CUSTOMHANDLER_PORT"]); err != nil || got != "127.0.0.1:37749" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, port := range []string{"", "0", "-1", "65536", "http", "80 "} {
		if got, err := customhandler.Address(port); err == nil {
			t.Errorf("port %q gave %q", port, got)
		}
	}
}

func TestTheRecordedReadinessRequestIsAnswered(t *testing.T) {
	w := httptest.NewRecorder()
	customhandler.New(customhandler.Config{}).ServeHTTP(w, load(t, "readiness").request(t))
	if w.Code != http.StatusOK {
		t.Errorf("got %d", w.Code)
	}
}
