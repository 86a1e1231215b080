package functionshost_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

var (
	guid    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?(Z|[+-]\d\d:\d\d)?`)
	port    = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// normalize puts place-holders for what differs from run to run: times (their
// form is kept: with or without fraction and zone), GUIDs and ports.
func normalize(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = normalize(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = normalize(x)
		}
		return out
	case string:
		if base64JSON(v) {
			return v
		}
		v = guid.ReplaceAllString(v, "<guid>")
		v = port.ReplaceAllString(v, "<handler>")
		return instant.ReplaceAllStringFunc(v, func(t string) string {
			if strings.HasPrefix(t, "0001-01-01T00:00:00") || strings.HasSuffix(t, "T10:00:00.123Z") {
				return t // not a clock's: the zero time, and the test's own data
			}
			m := instant.FindStringSubmatch(t)
			return fmt.Sprintf("<time fraction=%t zone=%s>", m[1] != "", m[2])
		})
	}
	return v
}

func base64JSON(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(s)
	return err == nil && json.Valid(raw) && len(raw) > 20
}

// compare reports every field that differs from the recording.
func compare(t *testing.T, file string, got recorded) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	want := mustJSON(t, string(raw))
	encoded, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	have := mustJSON(t, string(encoded))
	diff(t, "", normalize(want), normalize(have))
}

func diff(t *testing.T, path string, want, got any) {
	t.Helper()
	w, wok := want.(map[string]any)
	g, gok := got.(map[string]any)
	if wok && gok {
		for k := range w {
			if _, ok := g[k]; !ok {
				t.Errorf("%s.%s is missing; the real host sends %v", path, k, w[k])
				continue
			}
			diff(t, path+"."+k, w[k], g[k])
		}
		for k := range g {
			if _, ok := w[k]; !ok {
				t.Errorf("%s.%s = %v is not in the real host's request", path, k, g[k])
			}
		}
		return
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if string(a) != string(b) {
		t.Errorf("%s\n got %s\nwant %s", path, b, a)
	}
}

func TestReadinessRequestIsTheRecordedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		w.ready()
		compare(t, "readiness.json", h.pings[0])
		_ = w.Close()
	})
}

func TestEnvironmentIsTheRecordedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		a := app{"A/function.json": httpTrigger(""), "handler": "#!"}
		w := launch(t, a, h, func(c *functionshost.Config) { delete(c.Settings, "Bus") })
		w.ready()
		_ = w.Close()

		var want struct {
			Args []string
			Env  map[string]string
		}
		raw, err := os.ReadFile("testdata/process-start.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		spec := h.startsSeen()[0]
		const root, recordedPort = "/home/site/wwwroot", "37749"
		got := map[string]string{}
		for _, e := range spec.Env {
			k, v, _ := strings.Cut(e, "=")
			v = strings.ReplaceAll(v, spec.Dir, root)
			if v == fmt.Sprint(handlerPort) {
				v = recordedPort
			}
			got[k] = guid.ReplaceAllString(v, "<guid>")
		}
		for k, v := range want.Env {
			want.Env[k] = guid.ReplaceAllString(v, "<guid>")
		}
		check(t, "environment", got, want.Env)
		check(t, "executable", strings.ReplaceAll(spec.Path, spec.Dir, root), want.Args[0])
		check(t, "number of arguments", len(spec.Args), len(want.Args)-1)
		check(t, "worker id by its two names",
			spec.Getenv("FUNCTIONS_HTTPWORKER_ID"), spec.Getenv("FUNCTIONS_CUSTOMHANDLER_WORKER_ID"))
	})
}

func TestTimerRequestsAreTheRecordedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// As in the recording, the host starts within a minute.
		time.Sleep(30*time.Second + 5733700*time.Nanosecond)
		h := newHandler(nil)

		w := launch(t, app{"Tick/function.json": timer("0 * * * * *", "")}, h, nil)
		time.Sleep(2 * time.Minute)
		seen := h.requestsSeen()
		if len(seen) != 2 {
			t.Fatalf("%d requests in two minutes, want 2", len(seen))
		}
		// Virtual time fires on the dot, where the real host was a few
		// milliseconds late: the fraction of Last is put in.
		compare(t, "timer-first-run.json", withFraction(t, seen[0]))
		compare(t, "timer.json", withFraction(t, seen[1]))
		_ = w.Close()
	})
}

// withFraction puts the fraction into times that virtual time makes whole.
func withFraction(t *testing.T, r recorded) recorded {
	t.Helper()
	body := r.Body.(map[string]any)
	status := body["Data"].(map[string]any)["timer"].(map[string]any)["ScheduleStatus"].(map[string]any)
	late := func(m map[string]any, keys ...string) {
		for _, k := range keys {
			if s := m[k].(string); !strings.HasPrefix(s, "0001-") {
				m[k] = s[:len("2006-01-02T15:04:05")] + ".0057337" + s[len("2006-01-02T15:04:05"):]
			}
		}
	}
	late(status, "Last", "LastUpdated")
	late(body["Metadata"].(map[string]any)["sys"].(map[string]any), "UtcNow")
	return r
}

func TestProxiedRequestsAreTheRecordedOnes(t *testing.T) {
	jsonBody := http.Header{"Content-Type": {"application/json"}}
	cases := []struct {
		file, method, target string
		body                 io.Reader
		header               http.Header
	}{
		{"http-proxied-get.json", "GET", "/api/open/a%2Fb%20c?x=1&x=2&y=%2F", nil, http.Header{
			"Cookie": {"a=1; b=2"}, "X-Test": {"v1, v2"}, "Forwarded": {"host=evil.example"},
			"X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.7"}}},
		{"http-proxied-post.json", "POST", "/api/OPEN/ci-feed/", strings.NewReader(`{"reason": "leak"}`),
			http.Header{"Content-Type": {"application/json"}, "X-Ms-Client-Principal-Name": {"spoofed@contoso.com"}}},
		{"http-proxied-post-chunked.json", "POST", "/api/open/ci-feed?code=HOSTKEY",
			unknownLength{strings.NewReader(`{"reason": "leak"}`)}, jsonBody},
	}
	for _, c := range cases {
		t.Run(strings.TrimSuffix(c.file, ".json"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(nil)
				launch(t, app{"A/function.json": openHTTP(`,"route":"open/{name}"`)}, h,
					func(cfg *functionshost.Config) {
						withFront(h)(cfg)
						cfg.Version = "4.1037.0.0"
					})
				header := c.header.Clone()
				header.Set("User-Agent", "curl/7.88.1")
				header.Set("Accept", "*/*")
				header.Set("Accept-Encoding", "")
				header.Set("Host", "patrol.azurewebsites.net")
				check(t, "status", call(t, h.net, c.method, c.target, c.body, header).status, 200)
				got := h.requestsSeen()[0]
				got.Headers.Del("Accept-Encoding")
				compare(t, c.file, got)
			})
		})
	}
}

const cloudEvent = `{"specversion":"1.0","id":"e-1","type":"Microsoft.KeyVault.SecretNearExpiry",` +
	`"qty":3,"ok":true,"data":{"a":1},"list":[1,2],"messageId":"from-the-body","when":"2026-11-23T10:00:00.123Z"}`

func ptr[T any](v T) *T { return &v }

// eventMessage is the message behind the recordings.
func eventMessage() *azservicebus.ReceivedMessage {
	m := plainMessage(cloudEvent)
	m.MessageID = "m-1"
	m.ContentType = ptr("application/cloudevents+json")
	m.CorrelationID = ptr("c-1")
	m.Subject = ptr("s-1")
	m.SessionID = ptr("jenkins-agents")
	m.PartitionKey = ptr("jenkins-agents")
	m.ApplicationProperties = map[string]any{"tenant": "blue", "attempt": int64(2), "vip": true}
	return m
}

func plainMessage(body string) *azservicebus.ReceivedMessage {
	at := time.Date(2026, 11, 23, 23, 38, 29, 450821600, time.UTC)
	return &azservicebus.ReceivedMessage{
		Body: []byte(body), DeliveryCount: 1, SequenceNumber: ptr(int64(1)), EnqueuedTime: &at,
		ExpiresAt: ptr(at.Add(14 * 24 * time.Hour)), LockToken: [16]byte{1, 2, 3},
	}
}

func TestServiceBusRequestsAreTheRecordedOnes(t *testing.T) {
	first, second := plainMessage(`{"a":1}`), plainMessage(`plain`)
	first.MessageID, second.MessageID = "m-1", "m-2"
	first.ApplicationProperties = map[string]any{"t": "b"}
	cases := []struct {
		file, function string
		messages       []*azservicebus.ReceivedMessage
	}{
		{"servicebus-binary.json", "SbBinary", []*azservicebus.ReceivedMessage{eventMessage()}},
		{"servicebus-string.json", "SbString", []*azservicebus.ReceivedMessage{eventMessage()}},
		{"servicebus-string-plain-text.json", "SbString", []*azservicebus.ReceivedMessage{plainMessage("hello")}},
		{"servicebus-no-datatype.json", "SbPlain", []*azservicebus.ReceivedMessage{eventMessage()}},
		{"servicebus-binary-many.json", "SbMany", []*azservicebus.ReceivedMessage{first, second}},
	}
	a := app{
		"SbBinary/function.json": queueTrigger("q", `,"dataType":"binary"`),
		"SbString/function.json": queueTrigger("q", `,"dataType":"string"`),
		"SbPlain/function.json":  queueTrigger("q", ``),
		"SbMany/function.json":   queueTrigger("q", `,"dataType":"binary","cardinality":"many"`),
	}
	for _, c := range cases {
		t.Run(strings.TrimSuffix(c.file, ".json"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Millisecond) // so that UtcNow has a fraction
				h := newHandler(nil)
				w := launch(t, a, h, noBroker)
				w.ready()
				if err := w.InvokeMessages(context.Background(), c.function, c.messages...); err != nil {
					t.Fatal(err)
				}
				got := h.requestsSeen()[0]
				client := got.Body.(map[string]any)["Metadata"].(map[string]any)["Client"].(map[string]any)
				if id := client["Identifier"].(string); !strings.HasPrefix(id, "lab.servicebus.windows.net-") {
					t.Errorf("client identifier %q", id)
				}
				client["Identifier"] = "lab-1" // the recording's stand-in client
				compare(t, c.file, got)
				_ = w.Close()
			})
		})
	}
}

// noBroker keeps Service Bus triggers from connecting.
func noBroker(c *functionshost.Config) {
	c.ServiceBus = func(string) (*azservicebus.Client, error) { return nil, fmt.Errorf("no broker in this test") }
}
