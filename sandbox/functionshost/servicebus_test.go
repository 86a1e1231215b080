package functionshost_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// testBus is a namespace with a queue (plain), a queue with sessions and a topic,
// reached by real clients over pipes.
type testBus struct {
	*servicebus.Bus
	t testing.TB
}

func newBus(t testing.TB) *testBus {
	t.Helper()
	b, err := servicebus.New(servicebus.Config{KeyName: "k", Key: "c2VjcmV0", Entities: broker.Entities{
		Queues: []broker.Queue{
			{Name: "plain"},
			{Name: "sessions", Properties: broker.Properties{RequiresSession: true}},
		},
		Topics: []broker.Topic{{Name: "topic", Subscriptions: []broker.Subscription{{Name: "sub"}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return &testBus{b, t}
}

func (b *testBus) newClient() (*azservicebus.Client, error) {
	options := &azservicebus.ClientOptions{
		NewWebSocketConn: func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			near, far := net.Pipe()
			go b.ServeConn(far)
			return near, nil
		},
	}
	return azservicebus.NewClientFromConnectionString(b.ConnectionString("lab.servicebus.windows.net"), options)
}

// count is how many messages an entity holds, locked ones included.
func (b *testBus) count(entity string) int {
	c := b.Counts(strings.TrimSuffix(entity, "/$DeadLetterQueue"))
	if strings.HasSuffix(entity, "/$DeadLetterQueue") {
		return c.DeadLetter
	}
	return c.Active
}

// config gives the host clients of the namespace.
func (b *testBus) config(c *functionshost.Config) {
	c.ServiceBus = func(string) (*azservicebus.Client, error) { return b.newClient() }
}

// send puts messages on a queue or topic.
func (b *testBus) send(to string, messages ...*azservicebus.Message) {
	b.t.Helper()
	client, err := b.newClient()
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close(context.Background())
	s, err := client.NewSender(to, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range messages {
		if err := s.SendMessage(context.Background(), m, nil); err != nil {
			b.t.Fatal(err)
		}
	}
}

func inSession(session, body string) *azservicebus.Message {
	return &azservicebus.Message{Body: []byte(body), SessionID: &session}
}

func text(body string) *azservicebus.Message { return &azservicebus.Message{Body: []byte(body)} }

// envelopeOf decodes an invocation at the handler: function, body (dataType
// binary) and metadata.
func envelopeOf(r *http.Request) (function, body string, metadata map[string]any) {
	var e struct {
		Data     map[string]string
		Metadata map[string]any
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		return "", "", nil
	}
	raw, err := base64.StdEncoding.DecodeString(e.Data["message"])
	if err != nil {
		return "", "", nil
	}
	return strings.TrimPrefix(r.URL.Path, "/"), string(raw), e.Metadata
}

const sessionType = binaryType + `,"isSessionsEnabled":true`

const binaryType = `,"dataType":"binary"`

// patientHost has a functionTimeout that is out of the way.
var patientHost = hostWithTimeout("01:00:00")

func TestMessageFromTheBrokerHasTheRecordedForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Millisecond) // so that times have fractions
		b := newBus(t)
		h := newHandler(nil)
		w := launch(t, app{"SbBinary/function.json": queueTrigger("plain", binaryType)}, h, b.config)
		session := "jenkins-agents"
		b.send("plain", &azservicebus.Message{
			Body: []byte(cloudEvent), MessageID: ptr("m-1"), ContentType: ptr("application/cloudevents+json"),
			CorrelationID: ptr("c-1"), Subject: ptr("s-1"), SessionID: &session, PartitionKey: &session,
			TimeToLive:            ptr(14 * 24 * time.Hour),
			ApplicationProperties: map[string]any{"tenant": "blue", "attempt": int64(2), "vip": true},
		})
		time.Sleep(time.Second)
		got := h.requestsSeen()
		if len(got) != 1 {
			t.Fatalf("%d requests", len(got))
		}
		got[0].Body.(map[string]any)["Metadata"].(map[string]any)["Client"].(map[string]any)["Identifier"] = "lab-1"
		compare(t, "servicebus-binary.json", got[0])
		check(t, "messages left", b.count("plain"), 0)
		_ = w.Close()
	})
}

func TestFailedMessageIsAbandonedAtOnceUntilTheBrokerDeadLettersIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		var (
			mu     sync.Mutex
			counts []string
			dead   map[string]any
		)
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			function, _, m := envelopeOf(r)
			if function == "Dead" {
				dead = m
				succeed(w, r)
				return
			}
			counts = append(counts, m["DeliveryCount"].(string))
			w.WriteHeader(500)
		})
		launch(t, app{"Bus/function.json": queueTrigger("plain", binaryType),
			"Dead/function.json": queueTrigger("plain/$DeadLetterQueue", binaryType)}, h, b.config)
		b.send("plain", text("x"))
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		check(t, "delivery counts", counts, strings.Fields("1 2 3 4 5 6 7 8 9 10"))
		if dead == nil {
			t.Fatal("nothing in the dead-letter queue")
		}
		properties := dead["ApplicationProperties"].(map[string]any)
		check(t, "reason", properties["DeadLetterReason"], any("MaxDeliveryCountExceeded"))
		check(t, "source is known", dead["DeadLetterSource"] != "", true)
		check(t, "dead letters left", b.count("plain/$DeadLetterQueue"), 0)
	})
}

func TestCallsOfASessionFollowOneAnotherWhileSessionsRunBesideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		var mu sync.Mutex
		running, most, order := map[string]int{}, 0, map[string][]string{}
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			_, body, m := envelopeOf(r)
			var id string
			if json.Unmarshal([]byte(m["SessionId"].(string)), &id) != nil {
				t.Errorf("SessionId %v", m["SessionId"])
			}
			for _, shell := range []string{"MessageReceiver", "MessageSession", "MessageActions", "SessionActions"} {
				until, _ := m[shell].(map[string]any)["SessionLockedUntil"].(string)
				if !strings.HasPrefix(until, "2000-01-01T") {
					t.Errorf("%s: %v", shell, m[shell])
				}
			}
			running[id]++
			check(t, "calls at once of session "+id, running[id], 1)
			total := 0
			for _, n := range running {
				total += n
			}
			most = max(most, total)
			order[id] = append(order[id], body)
			mu.Unlock()
			time.Sleep(2 * time.Second)
			mu.Lock()
			running[id]--
			succeed(w, r)
		})
		launch(t, app{"Bus/function.json": queueTrigger("sessions", sessionType)}, h, b.config)
		for i := range 3 {
			for _, s := range []string{"a", "b", "c", "d", "e", "f"} {
				b.send("sessions", inSession(s, fmt.Sprint(i)))
			}
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		check(t, "calls at once, of all sessions", most, 4) // maxConcurrentSessions
		check(t, "sessions served", len(order), 6)
		for id, bodies := range order {
			check(t, "session "+id, bodies, []string{"0", "1", "2"})
		}
		check(t, "messages left", b.count("sessions"), 0)
	})
}

func TestLocksAreRenewedUpToTheLimit(t *testing.T) {
	cases := []struct {
		name, queue, more string
		limit             string
		deliveries        int64
	}{
		{"message, within", "plain", "", "00:05:00", 1},
		{"message, beyond", "plain", "", "00:01:00", 2},
		{"message, for ever", "plain", "", "-00:00:00.0010000", 1},
		{"session, within", "sessions", `,"isSessionsEnabled":true`, "00:05:00", 1},
		{"session, beyond", "sessions", `,"isSessionsEnabled":true`, "00:01:00", 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t) // locks last a minute
				var deliveries atomic.Int64
				h := newHandler(func(w http.ResponseWriter, r *http.Request) {
					if deliveries.Add(1) == 1 {
						time.Sleep(4 * time.Minute)
					}
					succeed(w, r)
				})
				const section = `"serviceBus":{`
				limit := section + `"maxAutoLockRenewalDuration":"` + c.limit + `",`
				launch(t, app{
					"host.json":         strings.Replace(patientHost, section, limit, 1),
					"Bus/function.json": queueTrigger(c.queue, binaryType+c.more),
				}, h, b.config)
				b.send(c.queue, inSession("s", "x"))
				time.Sleep(10 * time.Minute)
				check(t, "deliveries", deliveries.Load(), c.deliveries)
				check(t, "messages left", b.count(c.queue), 0)
			})
		})
	}
}

func TestWithoutAutoCompleteAMessageComesBackWhenItsLockRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		h := newHandler(nil)
		manual := binaryType + `,"autoCompleteMessages":false`
		launch(t, app{"Bus/function.json": queueTrigger("plain", manual)}, h, b.config)
		b.send("plain", text("x"))
		time.Sleep(50 * time.Second)
		if n := len(h.requestsSeen()); n != 1 {
			t.Fatalf("%d deliveries within the lock, want 1", n)
		}
		time.Sleep(20 * time.Second)
		if n := len(h.requestsSeen()); n != 2 {
			t.Errorf("%d deliveries after it, want 2", n)
		}
	})
}

func TestConcurrentCallsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		var (
			mu                 sync.Mutex
			running, most, all int
		)
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			running++
			all++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			succeed(w, r)
		})
		launch(t, app{"Bus/function.json": queueTrigger("plain", binaryType)}, h, b.config)
		for i := range 30 {
			b.send("plain", text(fmt.Sprint(i)))
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		check(t, "calls at once", most, 8) // maxConcurrentCalls
		check(t, "calls", all, 30)
		check(t, "messages left", b.count("plain"), 0)
	})
}

func TestBatchIsSettledAsAWhole(t *testing.T) {
	for _, fail := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t)
			var (
				mu      sync.Mutex
				batches []string
			)
			h := newHandler(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				var e struct{ Data, Metadata map[string]any }
				_ = json.NewDecoder(r.Body).Decode(&e)
				batches = append(batches, fmt.Sprint(e.Data["message"], e.Metadata["DeliveryCountArray"]))
				if fail && len(batches) == 1 {
					w.WriteHeader(500)
					return
				}
				succeed(w, r)
			})
			for _, body := range []string{"one", "two", "three"} {
				b.send("plain", text(body))
			}
			const many = `,"dataType":"string","cardinality":"many"`
			launch(t, app{"Bus/function.json": queueTrigger("plain", many)}, h, b.config)
			time.Sleep(10 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			want := []string{`["one","two","three"][1,1,1]`}
			if fail {
				want = append(want, `[2,2,2]`) // in whatever order they came back
				batches[len(batches)-1] = batches[len(batches)-1][len(`["one","two","three"]`):]
			}
			check(t, "batches", batches, want)
			check(t, "messages left", b.count("plain"), 0)
		})
	}
}

func TestBatchWithABodyThatIsNoJSONNeverReachesTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		h := newHandler(nil)
		launch(t, app{"Bus/function.json": queueTrigger("plain", `,"cardinality":"many"`)}, h, b.config)
		b.send("plain", text("plain words"))
		time.Sleep(10 * time.Second)
		check(t, "requests", len(h.requestsSeen()), 0)
		check(t, "dead letters", b.count("plain/$DeadLetterQueue"), 1)
	})
}

func TestSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		h := newHandler(nil)
		subscription := binaryType + `,"topicName":"topic","subscriptionName":"sub"`
		launch(t, app{"Bus/function.json": queueTrigger("", subscription)}, h, b.config)
		b.send("topic", text("x"))
		time.Sleep(time.Second)
		if n := len(h.requestsSeen()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestMessageOfACrashedHandlerComesAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		var (
			mu     sync.Mutex
			counts []string
		)
		h := newHandler(nil)
		h.serve = func(w http.ResponseWriter, r *http.Request) {
			_, _, m := envelopeOf(r)
			mu.Lock()
			counts = append(counts, m["DeliveryCount"].(string))
			first := len(counts) == 1
			mu.Unlock()
			if first {
				h.exit <- 137
				<-r.Context().Done()
				return
			}
			succeed(w, r)
		}
		launch(t, app{"Bus/function.json": queueTrigger("sessions", sessionType)}, h, b.config)
		b.send("sessions", inSession("s", "x"))
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		check(t, "delivery counts", counts, []string{"1", "2"})
		check(t, "messages left", b.count("sessions"), 0)
	})
}

func TestEndOfTheHostAbandonsWhatIsUnderWayAndItsSuddenDeathDoesNot(t *testing.T) {
	for name, c := range map[string]struct {
		end              func(*fixture)
		earliest, latest time.Duration // of the next delivery
	}{
		"close": {func(f *fixture) { _ = f.Close() }, 0, 5 * time.Second},
		"kill":  {func(f *fixture) { f.Kill() }, 50 * time.Second, 65 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t)
				a := app{"host.json": patientHost, "Bus/function.json": queueTrigger("plain", binaryType)}
				stuck := newHandler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
				first := launch(t, a, stuck, b.config)
				b.send("plain", text("x"))
				time.Sleep(time.Second)
				if n := len(stuck.requestsSeen()); n != 1 {
					t.Fatalf("%d requests at the first host", n)
				}
				c.end(first)
				ended := time.Now()
				at := make(chan time.Time, 10)
				next := newHandler(func(w http.ResponseWriter, r *http.Request) { at <- time.Now(); succeed(w, r) })
				launch(t, a, next, b.config)
				checkBetween(t, "time until the second host got it", (<-at).Sub(ended), c.earliest, c.latest)
			})
		})
	}
}

func TestHostGoesOnOnceTheBrokerIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t)
		h := newHandler(nil)
		var there atomic.Bool
		launch(t, app{"Bus/function.json": queueTrigger("plain", binaryType)}, h, func(c *functionshost.Config) {
			c.ServiceBus = func(string) (*azservicebus.Client, error) {
				if !there.Load() {
					return nil, fmt.Errorf("not there")
				}
				return b.newClient()
			}
		})
		b.send("plain", text("x"))
		time.Sleep(time.Minute)
		there.Store(true)
		time.Sleep(time.Minute)
		if n := len(h.requestsSeen()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// TestOverTCP is the whole way over sockets: a broker, a connection string in the
// app settings, a handler that is a process of its own.
func TestOverTCP(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := newBus(t)
	l := listenTCP(t)
	served := make(chan struct{})
	go func() { defer close(served); _ = b.Serve(l) }()
	defer func() { _ = l.Close(); <-served }()

	settings := baseSettings()
	settings["Bus"] = b.ConnectionString(l.Addr().String())
	settings["PATROL_TEST_HANDLER"] = "1"
	lines := make(chan functionshost.Line, 10)
	done := make(chan functionshost.Invocation, 10)
	host := fmt.Sprintf(`{"version":"2.0",
		"customHandler":{"description":{"defaultExecutablePath":%q,"arguments":["-test.run=^TestMain$"]},
			"enableProxyingHttpRequest":true},
		"extensionBundle":{"id":"Microsoft.Azure.Functions.ExtensionBundle","version":"[4.*, 5.0.0)"}}`, self)
	h, err := functionshost.New(functionshost.Config{
		AppDir:       app{"host.json": host, "Bus/function.json": queueTrigger("sessions", sessionType)}.write(t),
		Settings:     settings,
		Launcher:     functionshost.Exec{},
		OnLine:       func(l functionshost.Line) { lines <- l },
		OnInvocation: func(i functionshost.Invocation) { done <- i },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := azservicebus.NewClientFromConnectionString(settings["Bus"], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(context.Background())
	s, err := client.NewSender("sessions", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMessage(t.Context(), inSession("s-1", "hello"), nil); err != nil {
		t.Fatal(err)
	}
	line, invocation := <-lines, <-done
	check(t, "what the handler says", line.Text, `message hello "s-1"`)
	check(t, "error", invocation.Err, nil)
	check(t, "function", invocation.Function, "Bus")
	check(t, "trigger", invocation.Trigger, "serviceBusTrigger")
	if err := h.Close(); err != nil { // returns once the message is settled
		t.Fatal(err)
	}
	if n := b.count("sessions"); n != 0 {
		t.Errorf("%d messages left", n)
	}
}
