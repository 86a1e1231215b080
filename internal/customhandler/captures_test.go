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

const cloudEvent = `{"specversion":"1.0","id":"e-1","type":"Microsoft.KeyVault.SecretNearExpiry",` +
	`"qty":3,"ok":true,"data":{"a":1},"list":[1,2],"messageId":"from-the-body","when":"2026-11-23T10:00:00.123Z"}`

func TestTheRecordedMessagesDecodeToTheirExactValues(t *testing.T) {
	for name, want := range map[string]customhandler.Message{
		"servicebus-binary": {
			Body: []byte(cloudEvent), Trusted: true,
			MessageID: "m-1", SessionID: "jenkins-agents", DeliveryCount: 1, SequenceNumber: 1,
			EnqueuedTime:          instant(t, "2026-11-23T23:38:29Z"),
			ApplicationProperties: map[string]any{"attempt": int64(2), "tenant": "blue", "vip": true},
		},
		"servicebus-string":            {Body: []byte(cloudEvent)},
		"servicebus-no-datatype":       {Body: []byte(cloudEvent)},
		"servicebus-string-plain-text": {Body: []byte("hello")},
	} {
		t.Run(name, func(t *testing.T) {
			c := load(t, name)
			var (
				got []customhandler.Message
				ids []string
			)
			m := customhandler.New(customhandler.Config{})
			m.HandleServiceBus(strings.TrimPrefix(c.URI, "/"),
				func(ctx context.Context, message customhandler.Message) error {
					got, ids = append(got, message), append(ids, customhandler.Invocation(ctx).ID)
					return nil
				})
			w := httptest.NewRecorder()
			m.ServeHTTP(w, c.request(t))
			check(t, "status", w.Code, http.StatusOK)
			check(t, "messages", got, []customhandler.Message{want})
			check(t, "invocations", ids, c.Headers["X-Azure-Functions-Invocationid"])
		})
	}
}

func TestTheRecordedBatchIsRefused(t *testing.T) {
	c := load(t, "servicebus-binary-many")
	var log bytes.Buffer
	m := customhandler.New(customhandler.Config{Log: customhandler.NewLog(&log, slog.LevelDebug)})
	m.HandleServiceBus(strings.TrimPrefix(c.URI, "/"), func(context.Context, customhandler.Message) error {
		t.Error("delivered")
		return nil
	})
	w := httptest.NewRecorder()
	m.ServeHTTP(w, c.request(t))
	check(t, "status", w.Code, http.StatusBadRequest)
	checkLogHas(t, &log, "set cardinality one in function.json")
}

func TestTheRecordedTimersDecodeToTheirExactValues(t *testing.T) {
	for name, want := range map[string]customhandler.ScheduleStatus{
		"timer-first-run": {Next: instant(t, "2026-11-23T23:34:00Z")},
		"timer": {
			Last: instant(t, "2026-11-23T23:34:00.0057337Z"),
			Next: instant(t, "2026-11-23T23:35:00Z"),
		},
	} {
		t.Run(name, func(t *testing.T) {
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
			check(t, "status", w.Code, http.StatusOK)
			check(t, "timer", got, customhandler.Timer{Status: &want})
			id := c.Headers.Get("X-Azure-Functions-Invocationid")
			check(t, "invocation", info, customhandler.Info{ID: id, Function: "Tick"})
		})
	}
}

// An older host knows only the forwarding mode, in which these were recorded.
func TestTheRecordedHTTPRequestsReachTheirHandlerUnchanged(t *testing.T) {
	for name, want := range map[string]struct{ pattern, id, value, query, body string }{
		"http-get": {
			"GET /api/open/{id}", "4cb5402b-d91e-4506-a657-645578fdd73a", "a/b c", "x=1,2&y=%2F", "",
		},
		"http-post-admin-key": {
			"POST /api/ops/{id}", "4865868b-c796-4b8c-bf02-5faccd517f3d", "revocations", "", "{}",
		},
		"http-post-function-key": {
			"POST /api/pats/{id}/rotate", "64399f2a-6232-4967-a3aa-b9a53516743c", "ci-feed", "code=HOSTKEY",
			`{"reason":"leak"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			m := customhandler.New(customhandler.Config{Log: customhandler.NewLog(&log, slog.LevelDebug)})
			m.HandleHTTP(want.pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Errorf("reading the body: %v", err)
				}
				check(t, "body", strings.Join(strings.Fields(string(body)), ""), want.body)
				check(t, "path value", r.PathValue("id"), want.value)
				check(t, "query", r.URL.RawQuery, want.query)
				info := customhandler.Info{ID: want.id, Function: want.pattern}
				check(t, "invocation", customhandler.Invocation(r.Context()), info)
				w.WriteHeader(http.StatusAccepted)
			}))
			w := httptest.NewRecorder()
			m.ServeHTTP(w, load(t, name).request(t))
			check(t, "status", w.Code, http.StatusAccepted)
			checkLogLacks(t, &log, "HOSTKEY")
			checkLogLacks(t, &log, "MASTER")
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
	got, err := customhandler.Address(start.Env["FUNCTIONS_CUSTOMHANDLER_PORT"])
	if err != nil {
		t.Error(err)
	}
	check(t, "address", got, "127.0.0.1:37749")
	for _, port := range []string{"", "0", "-1", "65536", "http", "80 "} {
		if got, err := customhandler.Address(port); err == nil {
			t.Errorf("port %q gave %q", port, got)
		}
	}
}

func TestTheRecordedReadinessRequestIsAnswered(t *testing.T) {
	w := httptest.NewRecorder()
	customhandler.New(customhandler.Config{}).ServeHTTP(w, load(t, "readiness").request(t))
	check(t, "status", w.Code, http.StatusOK)
}
