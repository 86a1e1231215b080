package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// delivery is a message as the host hands it to a function.
type delivery struct {
	function       string
	body           string
	session        string
	sequenceNumber int
	count          int
	enqueued       time.Time
	reason         string // why the host gave up on it
}

// receiver is the app alone, with a cloud that nobody else takes messages from.
type receiver struct {
	t       *testing.T
	cloud   *cloud.Cloud
	handler http.Handler
	log     bytes.Buffer
}

func receive(t *testing.T, test func(r *receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := &memnet.Network{}
		manifest := filepath.Join(t.TempDir(), "pats.yaml")
		if err := os.WriteFile(manifest, []byte(oneManifest), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := cloud.New(cloud.Config{Network: network, Manifest: manifest})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Seed(); err != nil {
			t.Fatal(err)
		}
		env := c.Environment()
		for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
			if err := os.Setenv(name, env[name]); err != nil { // the same in every test
				t.Fatal(err)
			}
		}
		r := &receiver{t: t, cloud: c}
		settings, err := app.ReadSettings(func(name string) string { return env[name] })
		a := app.New(settings, err, app.Outside{Transport: network.Transport(), Dial: c.DialBus,
			Log: customhandler.NewLog(&r.log, settings.LogLevel)})
		r.handler = a.Handler()
		test(r)
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
		if t.Failed() {
			t.Logf("the handler said:\n%s", r.log.String())
		}
	})
}

// deliver hands a message to its function, and reports whether the host completes it.
func (r *receiver) deliver(d delivery) bool {
	r.t.Helper()
	metadata := map[string]any{
		"SessionId": fmt.Sprintf("%q", d.session), "DeliveryCount": fmt.Sprint(d.count),
		"SequenceNumber": fmt.Sprint(d.sequenceNumber), "EnqueuedTime": d.enqueued.UTC().Format(time.RFC3339),
		"ApplicationProperties": map[string]any{},
	}
	if d.reason != "" {
		metadata["ApplicationProperties"] = map[string]any{"DeadLetterReason": d.reason}
	}
	body, err := json.Marshal(map[string]any{
		"Data": map[string]any{"message": base64.StdEncoding.EncodeToString([]byte(d.body))}, "Metadata": metadata})
	if err != nil {
		r.t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodPost, "/"+d.function, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	r.handler.ServeHTTP(answer, request)
	return answer.Code == http.StatusOK
}

// sent is one command on the queue.
type sent struct {
	From, RevokePrevious, RequestedBy, Operation, Reason string
	Attempt                                              int
	Since                                                *time.Time
	due                                                  time.Time
}

func (r *receiver) commands() []sent {
	r.t.Helper()
	var out []sent
	for _, m := range r.cloud.Messages(cloud.CommandQueue) {
		s := sent{due: m.Scheduled}
		if err := json.Unmarshal(m.Body, &s); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// failures are the events of what has failed, by their ids.
func (r *receiver) failures() map[string]events.RotationFailed {
	r.t.Helper()
	out := map[string]events.RotationFailed{}
	for _, m := range r.cloud.Messages(cloud.EventTopic) {
		e, err := events.Decode(m.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		if failed, ok := e.Data.(events.RotationFailed); ok {
			if _, twice := out[e.ID]; twice {
				r.t.Errorf("event %s was published twice", e.ID)
			}
			out[e.ID] = failed
		}
	}
	return out
}

func (r *receiver) breakTopic() { r.refuse("send " + cloud.EventTopic) }

// breakQueue lets no command be sent, neither now nor for later.
func (r *receiver) breakQueue() {
	r.refuse("send "+cloud.CommandQueue, "schedule "+cloud.CommandQueue)
}

func (r *receiver) refuse(operations ...string) {
	r.t.Helper()
	for _, operation := range operations {
		if err := r.cloud.Injector.Inject(faults.Fault{Service: "servicebus", Operation: operation,
			Mode: faults.ResetBefore, Times: 100}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

const (
	orderOfAda = `{"command":"reconcile","pat":"jenkins-agents","reason":"compromised","from":"a1",` +
		`"revokePrevious":"now","requestedBy":"ada@contoso.com","attempt":0,"operation":"op-1"}`
	checkOfTimer = `{"command":"reconcile","pat":"jenkins-agents","reason":"look","requestedBy":"timer","attempt":0,` +
		`"operation":"2026-11-24T08:00Z"}`
	// sweepsOrder is one of an older patrol.
	sweepsOrder = `{"command":"reconcile","pat":"jenkins-agents","reason":"expiring","from":"a1",` +
		`"revokePrevious":"overlap","requestedBy":"timer","attempt":0,"operation":"2026-11-24T08:00Z"}`
)

// command is the third delivery of a command that could be received since a time.
func command(body string, enqueued time.Time) delivery {
	return delivery{function: "Reconcile", body: body, session: "jenkins-agents", sequenceNumber: 7, count: 3,
		enqueued: enqueued}
}

func TestAnOrderIsPutOffOnlyForTwoEndsWithinAMinute(t *testing.T) {
	for _, tc := range []struct {
		name   string
		since  time.Duration // how long it could be received
		putOff time.Duration
	}{
		{"a message that kills its process", 20 * time.Second, 31 * time.Minute},
		{"three deployments in ten minutes", 10 * time.Minute, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			receive(t, func(r *receiver) {
				now := time.Now()
				equal(t, "completed", r.deliver(command(orderOfAda, now.Add(-tc.since))), true)
				all := r.commands()
				if len(all) != 1 {
					t.Fatalf("%d commands sent, want the order alone: %+v", len(all), all)
				}
				got := all[0]
				equal(t, "from", got.From, "a1")
				equal(t, "revokePrevious", got.RevokePrevious, "now")
				equal(t, "requester", got.RequestedBy, "ada@contoso.com")
				equal(t, "operation", got.Operation, "op-1")
				equal(t, "attempt", got.Attempt, 1)
				due := now
				if !got.due.IsZero() {
					due = got.due
				}
				equal(t, "put off", due.Sub(now).Round(time.Minute), tc.putOff)
			})
		})
	}
}

func TestAQuarantinedOrderNeverDiesAndIsPublishedOnceADay(t *testing.T) {
	receive(t, func(r *receiver) {
		const days = 3
		order := orderOfAda
		begun := time.Now()
		for n := 0; time.Since(begun) < days*24*time.Hour; n++ {
			d := command(order, time.Now())
			d.sequenceNumber += n
			time.Sleep(5 * time.Second)
			equal(t, "completed", r.deliver(d), true)
			all := r.commands()
			if len(all) != n+1 {
				t.Fatalf("quarantine %d has sent %d commands, want one more", n, len(all)-n)
			}
			next := all[n]
			equal(t, "from", next.From, "a1")
			equal(t, "revokePrevious", next.RevokePrevious, "now")
			order = strings.Replace(orderOfAda, `"attempt":0`, fmt.Sprintf(`"attempt":%d`, next.Attempt), 1)
			time.Sleep(time.Until(next.due))
		}
		ids := map[string]bool{}
		for _, m := range r.cloud.Messages(cloud.EventTopic) {
			ids[m.ID] = true
		}
		equal(t, "events with ids of their own", len(ids), days)
		if n := len(r.cloud.Messages(cloud.EventTopic)); n > days+3 {
			t.Errorf("%d events were sent in %d days, want one a day and a few at first", n, days)
		}
	})
}

func TestACheckThatKillsItsProcessIsGivenUpInTheEnd(t *testing.T) {
	receive(t, func(r *receiver) {
		equal(t, "completed", r.deliver(command(checkOfTimer, time.Now().Add(-time.Hour))), true)
		all := r.commands()
		if len(all) != 1 {
			t.Fatalf("%d commands sent, want one", len(all))
		}
		equal(t, "put off", time.Until(all[0].due), 31*time.Minute)
		last := strings.Replace(checkOfTimer, `"attempt":0`, `"attempt":3`, 1)
		equal(t, "completed at last", r.deliver(command(last, time.Now())), true)
		equal(t, "commands sent", len(r.commands()), 1)
		equal(t, "code", r.failures()["pat-commands/7/failed"].Code, "crash-loop")
	})
}

// What this process has answered with an error ended nothing.
func TestADeliveryThatFailedIsNoEndOfItsProcess(t *testing.T) {
	receive(t, func(r *receiver) {
		r.breakQueue()
		d := command(strings.Replace(orderOfAda, "jenkins-agents", "elsewhere", 1), time.Now())
		d.session = "elsewhere"
		for d.count = 1; d.count < 3; d.count++ {
			equal(t, "completed without its retry", r.deliver(d), false)
		}
		r.cloud.Injector.ClearFaults()
		equal(t, "completed", r.deliver(d), true)
		if strings.Contains(r.log.String(), "process ended during earlier deliveries") {
			t.Error("the failures of this process counted as ends of it")
		}
	})
}

func TestADeadOrderIsSentOnAsTheOrderThatItIs(t *testing.T) {
	receive(t, func(r *receiver) {
		r.breakTopic() // an event that cannot be sent holds nothing back
		d := command(orderOfAda, time.Now().Add(-time.Hour))
		d.function, d.session, d.count, d.reason = "DeadLetter", "", 11, "MaxDeliveryCountExceeded"
		equal(t, "completed", r.deliver(d), true)
		all := r.commands()
		if len(all) != 1 {
			t.Fatalf("%d commands sent, want one", len(all))
		}
		got := all[0]
		equal(t, "from", got.From, "a1")
		equal(t, "revokePrevious", got.RevokePrevious, "now")
		equal(t, "requester", got.RequestedBy, "ada@contoso.com")
		equal(t, "operation", got.Operation, "op-1")
		equal(t, "reason", got.Reason, "compromised")
		if time.Until(got.due) < 30*time.Minute {
			t.Errorf("the order goes on at %s, want it after the quarantine", got.due)
		}
	})
}

func TestEveryOtherDeadLetterIsSentOnAsACheck(t *testing.T) {
	for name, body := range map[string]string{"a check": checkOfTimer, "an order of an older sweep": sweepsOrder} {
		t.Run(name, func(t *testing.T) {
			receive(t, func(r *receiver) {
				d := command(body, time.Now())
				d.function, d.session, d.reason = "DeadLetter", "", "MaxDeliveryCountExceeded"
				equal(t, "completed", r.deliver(d), true)
				all := r.commands()
				if len(all) != 1 {
					t.Fatalf("%d commands sent, want one", len(all))
				}
				equal(t, "from", all[0].From, "")
				equal(t, "reason", all[0].Reason, "look")
				failed := r.failures()["pat-commands/7/failed"]
				equal(t, "step", failed.Step, "dead-letter")
				equal(t, "code", failed.Code, "MaxDeliveryCountExceeded")
				equal(t, "PAT", failed.PAT, "jenkins-agents")
			})
		})
	}
}

// The sender's id may be missing: two such messages are two events.
func TestWhatCannotBeReadIsPublishedWithTheMessagesOwnMark(t *testing.T) {
	receive(t, func(r *receiver) {
		enqueued := time.Now().Truncate(time.Second)
		for n, function := range []string{"Reconcile", "Reconcile", "DeadLetter"} {
			d := delivery{function: function, body: "no command", sequenceNumber: 40 + n, count: 1, enqueued: enqueued}
			equal(t, "completed", r.deliver(d), true)
		}
		var ids []string
		for id, failed := range r.failures() {
			ids = append(ids, id)
			equal(t, "rotation id of "+id, failed.RotationID, "")
		}
		slices.Sort(ids)
		if want := []string{"pat-commands/40/failed", "pat-commands/41/failed",
			"pat-commands/42/failed"}; !slices.Equal(ids, want) {
			t.Errorf("events %q, want %q", ids, want)
		}
		for _, want := range []string{`"sequenceNumber":41`, `"enqueued":"` + enqueued.UTC().Format(time.RFC3339)} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("the log does not say %s", want)
			}
		}
	})
}

func TestAMessageWhoseEventCannotBeSentIsCompletedAllTheSame(t *testing.T) {
	receive(t, func(r *receiver) {
		r.breakTopic()
		for _, function := range []string{"Reconcile", "DeadLetter"} {
			equal(t, function+" completed", r.deliver(delivery{function: function, body: "no command", count: 1}), true)
		}
		if n := strings.Count(r.log.String(), "could not be published"); n != 2 {
			t.Errorf("%d lines say that an event could not be published, want 2", n)
		}
	})
}

func TestADeadCheckEndsAfterThreeDeliveriesAndAnOrderWaits(t *testing.T) {
	for body, ends := range map[string]bool{checkOfTimer: true, orderOfAda: false} {
		receive(t, func(r *receiver) {
			r.breakQueue()
			d := command(body, time.Now())
			d.function, d.session = "DeadLetter", ""
			for n, want := range []bool{false, false, ends} {
				d.count = 11 + n
				equal(t, fmt.Sprintf("delivery %d completed", n+1), r.deliver(d), want)
			}
		})
	}
}
