package servicebus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

var p = fmt.Sprintf

func ptr[T any](v T) *T { return &v }

type fixture struct {
	t     *testing.T
	ctx   context.Context
	bus   *servicebus.Bus
	panel *faults.Injector
	c     *azservicebus.Client

	mu   sync.Mutex
	sent []string
}

func entities() broker.Entities {
	subject := "red"
	return broker.Entities{
		Queues: []broker.Queue{
			{Name: "q", Properties: broker.Properties{MaxDeliveryCount: 3}},
			{Name: "s", Properties: broker.Properties{RequiresSession: true, MaxDeliveryCount: 3}},
			{Name: "d", Properties: broker.Properties{RequiresDuplicateDetection: true}},
			{Name: "ttl", Properties: broker.Properties{DeadLetteringOnMessageExpiration: true,
				DefaultMessageTimeToLive: time.Minute}},
		},
		Topics: []broker.Topic{{Name: "t", Subscriptions: []broker.Subscription{
			{Name: "all"},
			{Name: "red", Rules: []broker.Rule{{Name: "r", Filter: broker.Filter{Subject: &subject}}}},
		}}},
	}
}

func options(b *servicebus.Bus) *azservicebus.ClientOptions {
	return &azservicebus.ClientOptions{
		NewWebSocketConn: func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			near, far := net.Pipe()
			go b.ServeConn(far)
			return near, nil
		},
		RetryOptions: azservicebus.RetryOptions{MaxRetries: -1},
	}
}

// within runs a story in a bubble: a bus, a client, virtual time.
func inBubble(t *testing.T, story func(*fixture)) {
	t.Helper()
	inBubbleWith(t, func(*servicebus.Config) {}, story)
}

func inBubbleWith(t *testing.T, change func(*servicebus.Config), story func(*fixture)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
		defer cancel()
		w := &fixture{t: t, ctx: ctx, panel: &faults.Injector{}}
		var err error
		cfg := servicebus.Config{
			Entities: entities(), KeyName: "root", Key: "c2VjcmV0", Panel: w.panel,
			VerifyJWT: func(token, audience string) error {
				if token != "good" {
					return errors.New("bad token")
				}
				return nil
			},
			OnSend: func(entity string, m servicebus.Message) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.sent = append(w.sent, entity+":"+string(m.Body))
			},
		}
		change(&cfg)
		w.bus, err = servicebus.New(cfg)
		w.ok(err)
		defer w.bus.Close()
		w.c, err = azservicebus.NewClientFromConnectionString(w.bus.ConnectionString("bus.test"), options(w.bus))
		w.ok(err)
		defer func() { w.ok(w.c.Close(context.Background())) }()
		story(w)
	})
}

func (w *fixture) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *fixture) code(err error, want azservicebus.Code) {
	w.t.Helper()
	var e *azservicebus.Error
	if !errors.As(err, &e) || e.Code != want {
		w.t.Fatalf("error %v, want code %s", err, want)
	}
}

func same[T comparable](w *fixture, what string, got, want T) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func (w *fixture) sender(entity string) *azservicebus.Sender {
	w.t.Helper()
	s, err := w.c.NewSender(entity, nil)
	w.ok(err)
	return s
}

func (w *fixture) send(entity string, m *azservicebus.Message) {
	w.t.Helper()
	s := w.sender(entity)
	w.ok(s.SendMessage(w.ctx, m, nil))
	w.ok(s.Close(w.ctx))
}

func (w *fixture) receiver(entity string, o *azservicebus.ReceiverOptions) *azservicebus.Receiver {
	w.t.Helper()
	r, err := w.c.NewReceiverForQueue(entity, o)
	w.ok(err)
	return r
}

type receiver interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

func (w *fixture) one(r receiver) *azservicebus.ReceivedMessage {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 3*time.Hour)
	defer cancel()
	ms, err := r.ReceiveMessages(ctx, 1, nil)
	w.ok(err)
	return ms[0]
}

func (w *fixture) none(r receiver, d time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, d)
	defer cancel()
	ms, err := r.ReceiveMessages(ctx, 1, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		w.t.Fatalf("received %v, %v; want nothing", ms, err)
	}
}

func text(s string) *azservicebus.Message { return &azservicebus.Message{Body: []byte(s)} }

func TestAMessageGoesThroughWithAllItHas(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("q", &azservicebus.Message{
			Body: []byte("hello"), MessageID: ptr("m1"), Subject: ptr("greeting"), ContentType: ptr("text/plain"),
			CorrelationID:         ptr("c1"),
			ApplicationProperties: map[string]any{"n": int64(7), "s": "x", "b": true},
		})
		same(w, "told", strings.Join(w.sent, " "), "q:hello")
		r := w.receiver("q", nil)
		m := w.one(r)
		same(w, "body", string(m.Body), "hello")
		same(w, "id", m.MessageID, "m1")
		same(w, "subject", *m.Subject, "greeting")
		same(w, "properties", p("%v", m.ApplicationProperties), "map[b:true n:7 s:x]")
		same(w, "count", m.DeliveryCount, 1)
		same(w, "sequence", *m.SequenceNumber, 1)
		same(w, "locked until", time.Until(*m.LockedUntil).Round(time.Second), time.Minute)
		same(w, "counts", w.bus.Counts("Q"), servicebus.Counts{Active: 1})
		time.Sleep(40 * time.Second)
		w.ok(r.RenewMessageLock(w.ctx, m, nil))
		time.Sleep(40 * time.Second)
		w.ok(r.CompleteMessage(w.ctx, m, nil))
		same(w, "counts", w.bus.Counts("q"), servicebus.Counts{})
		w.none(r, time.Minute)
	})
}

func TestAbandonedTooOftenIsDeadLettered(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("q", text("x"))
		r := w.receiver("q", nil)
		for i := range 3 {
			m := w.one(r)
			same(w, "count", int(m.DeliveryCount), i+1)
			w.ok(r.AbandonMessage(w.ctx, m, nil))
		}
		same(w, "counts", w.bus.Counts("q"), servicebus.Counts{DeadLetter: 1})
		d := w.receiver("q", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
		for range 4 {
			m := w.one(d)
			same(w, "reason", *m.DeadLetterReason, "MaxDeliveryCountExceeded")
			same(w, "count", m.DeliveryCount, 4)
			w.ok(d.AbandonMessage(w.ctx, m, nil))
		}
		w.ok(d.CompleteMessage(w.ctx, w.one(d), nil))
		same(w, "left", len(w.bus.Peek("q/$deadletterqueue")), 0)
	})
}

func TestALockRunsOut(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("q", text("x"))
		r := w.receiver("q", nil)
		first := w.one(r)
		began := time.Now()
		second := w.one(r)
		same(w, "came back after", time.Since(began).Round(time.Second), time.Minute)
		same(w, "count", second.DeliveryCount, 2)
		w.code(r.CompleteMessage(w.ctx, first, nil), azservicebus.CodeLockLost)
		w.code(r.RenewMessageLock(w.ctx, first, nil), azservicebus.CodeLockLost)
		w.ok(r.CompleteMessage(w.ctx, second, nil))
	})
}

func TestDeadLetterAndDefer(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("q", text("a"))
		w.send("q", text("b"))
		r := w.receiver("q", nil)
		w.ok(r.DeadLetterMessage(w.ctx, w.one(r), &azservicebus.DeadLetterOptions{Reason: ptr("why"),
			ErrorDescription: ptr("long"), PropertiesToModify: map[string]any{"k": "v"}}))
		m := w.one(r)
		w.ok(r.DeferMessage(w.ctx, m, nil))
		same(w, "counts", w.bus.Counts("q"), servicebus.Counts{Deferred: 1, DeadLetter: 1})
		peeked, err := r.PeekMessages(w.ctx, 5, nil)
		w.ok(err)
		same(w, "state", peeked[0].State, azservicebus.MessageStateDeferred)
		ms, err := r.ReceiveDeferredMessages(w.ctx, []int64{*m.SequenceNumber}, nil)
		w.ok(err)
		same(w, "body", string(ms[0].Body), "b")
		w.ok(r.CompleteMessage(w.ctx, ms[0], nil))
		d := w.receiver("q", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter,
			ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
		m = w.one(d)
		same(w, "dead letter", p("%s %s %s", *m.DeadLetterReason, *m.DeadLetterErrorDescription,
			m.ApplicationProperties["k"]), "why long v")
		same(w, "counts", w.bus.Counts("q"), servicebus.Counts{})
	})
}

func TestScheduledMessagesComeWhenDueWithANewNumber(t *testing.T) {
	inBubble(t, func(w *fixture) {
		s := w.sender("q")
		began := time.Now()
		seqs, err := s.ScheduleMessages(w.ctx, []*azservicebus.Message{text("a"), text("b")}, began.Add(2*time.Hour),
			nil)
		w.ok(err)
		same(w, "numbers", p("%v", seqs), "[1 2]")
		same(w, "counts", w.bus.Counts("q"), servicebus.Counts{Scheduled: 2})
		w.ok(s.CancelScheduledMessages(w.ctx, seqs[:1], nil))
		w.code(s.CancelScheduledMessages(w.ctx, seqs[:1], nil), azservicebus.CodeNotFound)
		r := w.receiver("q", nil)
		m := w.one(r)
		same(w, "came after", time.Since(began), 2*time.Hour)
		same(w, "body", string(m.Body), "b")
		same(w, "number", *m.SequenceNumber, 3)
		w.ok(r.CompleteMessage(w.ctx, m, nil))
		at := time.Now().Add(10 * time.Minute)
		w.send("q", &azservicebus.Message{Body: []byte("c"), ScheduledEnqueueTime: &at})
		w.ok(r.CompleteMessage(w.ctx, w.one(r), nil))
		same(w, "came", time.Since(at).Round(time.Millisecond), 0)
	})
}

func TestDuplicatesAreAcceptedAndDropped(t *testing.T) {
	inBubble(t, func(w *fixture) {
		s := w.sender("d")
		msg := func() *azservicebus.Message { return &azservicebus.Message{Body: []byte("x"), MessageID: ptr("same")} }
		seqs, err := s.ScheduleMessages(w.ctx, []*azservicebus.Message{msg()}, time.Now().Add(time.Hour), nil)
		w.ok(err)
		same(w, "scheduled", len(seqs), 1)
		w.ok(s.SendMessage(w.ctx, msg(), nil))
		same(w, "counts", w.bus.Counts("d"), servicebus.Counts{Scheduled: 1})
		same(w, "told", len(w.sent), 1)
		time.Sleep(10 * time.Minute)
		w.ok(s.SendMessage(w.ctx, msg(), nil))
		same(w, "counts", w.bus.Counts("d"), servicebus.Counts{Scheduled: 1, Active: 1})
		same(w, "told", len(w.sent), 2)
	})
}

func TestATopicCopiesByFilter(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("t", &azservicebus.Message{Body: []byte("1"), Subject: ptr("red")})
		w.send("t", &azservicebus.Message{Body: []byte("2"), Subject: ptr("blue")})
		same(w, "all", w.bus.Counts("t/subscriptions/all"), servicebus.Counts{Active: 2})
		r, err := w.c.NewReceiverForSubscription("t", "red", nil)
		w.ok(err)
		m := w.one(r)
		same(w, "body", string(m.Body), "1")
		w.ok(r.CompleteMessage(w.ctx, m, nil))
		w.none(r, time.Second)
	})
}

func TestBatchesAndLargeMessages(t *testing.T) {
	inBubble(t, func(w *fixture) {
		s := w.sender("q")
		batch, err := s.NewMessageBatch(w.ctx, nil)
		w.ok(err)
		for i := range 3 {
			w.ok(batch.AddMessage(text(p("%d", i)), nil))
		}
		w.ok(s.SendMessageBatch(w.ctx, batch, nil))
		large := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
		w.ok(s.SendMessage(w.ctx, &azservicebus.Message{Body: large}, nil))
		err = s.SendMessage(w.ctx, &azservicebus.Message{Body: make([]byte, 300<<10)}, nil)
		if !errors.Is(err, azservicebus.ErrMessageTooLarge) {
			t.Fatalf("error %v, want ErrMessageTooLarge", err)
		}
		r := w.receiver("q", nil)
		for i := range 4 {
			m := w.one(r)
			want := p("%d", i)
			if i == 3 {
				want = string(large)
			}
			if string(m.Body) != want {
				t.Fatalf("message %d has %d bytes", i, len(m.Body))
			}
			w.ok(r.CompleteMessage(w.ctx, m, nil))
		}
	})
}

func session(id, body string) *azservicebus.Message {
	return &azservicebus.Message{Body: []byte(body), SessionID: &id}
}

func TestSessionsAreHeldByOne(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("s", session("one", "1a"))
		w.send("s", session("two", "2a"))
		w.send("s", session("one", "1b"))
		r1, err := w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.ok(err)
		same(w, "session", r1.SessionID(), "one")
		same(w, "locked until", time.Until(r1.LockedUntil()).Round(time.Second), time.Minute)
		_, err = w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		if err == nil || !strings.Contains(err.Error(), "session-cannot-be-locked") {
			t.Fatalf("a held session: %v", err)
		}
		w.ok(r1.SetSessionState(w.ctx, []byte("state"), nil))
		m := w.one(r1)
		same(w, "body", string(m.Body), "1a")
		w.ok(r1.CompleteMessage(w.ctx, m, nil))
		m = w.one(r1)
		same(w, "body", string(m.Body), "1b")
		for range 3 {
			time.Sleep(40 * time.Second)
			w.ok(r1.RenewSessionLock(w.ctx, nil))
		}
		w.ok(r1.Close(w.ctx)) // not counted

		r1, err = w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		state, err := r1.GetSessionState(w.ctx, nil)
		w.ok(err)
		same(w, "state", string(state), "state")
		w.ok(r1.SetSessionState(w.ctx, nil, nil))
		state, err = r1.GetSessionState(w.ctx, nil)
		w.ok(err)
		same(w, "no state", len(state), 0)
		m = w.one(r1)
		same(w, "count", m.DeliveryCount, 1)
		w.ok(r1.CompleteMessage(w.ctx, m, nil))

		r2, err := w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.ok(err)
		same(w, "session", r2.SessionID(), "two")
		w.ok(r2.CompleteMessage(w.ctx, w.one(r2), nil))

		began := time.Now()
		_, err = w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.code(err, azservicebus.CodeTimeout)
		same(w, "waited", time.Since(began).Round(time.Second), 65*time.Second)

		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		_, err = w.c.AcceptNextSessionForQueue(ctx, "s", nil)
		if err == nil {
			t.Fatal("there is no session, and one was accepted")
		}
	})
}

func TestADeferredMessageOfASessionIsForWhoHoldsTheSession(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("s", session("one", "later"))
		r, err := w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		m := w.one(r)
		w.ok(r.DeferMessage(w.ctx, m, nil))
		got, err := r.ReceiveDeferredMessages(w.ctx, []int64{*m.SequenceNumber}, nil)
		w.ok(err)
		same(w, "messages", len(got), 1)
		w.ok(r.AbandonMessage(w.ctx, got[0], nil))
		seq := *m.SequenceNumber
		w.ok(r.Close(w.ctx))

		other, err := w.c.NewReceiverForQueue("s", nil)
		w.ok(err)
		if got, err := other.ReceiveDeferredMessages(w.ctx, []int64{seq}, nil); err == nil && len(got) > 0 {
			t.Error("a deferred message was given out although nobody holds its session")
		}
	})
}

func TestAWaitingAcceptGetsTheSessionThatComes(t *testing.T) {
	inBubble(t, func(w *fixture) {
		go func() {
			time.Sleep(20 * time.Second)
			_ = w.bus.Send("s", servicebus.Message{SessionID: "late", Body: []byte("x"),
				Properties: map[string]any{"k": 1}})
		}()
		began := time.Now()
		r, err := w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.ok(err)
		same(w, "session", r.SessionID(), "late")
		same(w, "waited", time.Since(began), 20*time.Second)
		same(w, "body", string(w.one(r).Body), "x")
	})
}

func TestALostSessionEndsItsReceiverAndCounts(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("s", session("one", "x"))
		r, err := w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.ok(err)
		for i := range 3 {
			m := w.one(r)
			same(w, "count", int(m.DeliveryCount), i+1)
			if i == 1 {
				w.bus.LoseSessionLock("s", "one")
			} else {
				time.Sleep(61 * time.Second)
			}
			w.code(r.RenewSessionLock(w.ctx, nil), azservicebus.CodeLockLost)
			// Another one gets it. The SDK sees that its link has ended, tries
			// to get the session again, and cannot.
			next, err := w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
			w.ok(err)
			if err := r.CompleteMessage(w.ctx, m, nil); err == nil {
				t.Fatal("a message of a lost session was completed")
			}
			if _, err := r.ReceiveMessages(w.ctx, 1, nil); err == nil || !strings.Contains(err.Error(),
				"session-cannot-be-locked") {
				t.Fatalf("receiving from a lost session: %v", err)
			}
			_ = r.Close(w.ctx)
			r = next
		}
		same(w, "counts", w.bus.Counts("s"), servicebus.Counts{DeadLetter: 1})
		s := w.sender("s")
		if err := s.SendMessage(w.ctx, text("without"), nil); err == nil {
			t.Fatal("a message without a session id was taken")
		}
		if _, err := w.receiver("s", nil).ReceiveMessages(w.ctx, 1, nil); err == nil || !strings.Contains(err.Error(),
			"requires sessions") {
			t.Fatalf("a receiver without a session: %v", err)
		}
	})
}

func TestOldMessagesAreDeadLettered(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("ttl", text("x"))
		time.Sleep(2 * time.Minute)
		w.none(w.receiver("ttl", nil), time.Second)
		m := w.bus.Peek("ttl/$DeadLetterQueue")[0]
		same(w, "reason", m.Properties["DeadLetterReason"], "TTLExpiredException")
	})
}

func TestAClientGoneGivesItsSessionBack(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("s", session("one", "x"))
		r, err := w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		w.one(r)
		w.bus.DropConnections()
		synctest.Wait()
		c, err := azservicebus.NewClientFromConnectionString(w.bus.ConnectionString("bus.test"), options(w.bus))
		w.ok(err)
		defer func() { _ = c.Close(w.ctx) }()
		r, err = c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		same(w, "count", w.one(r).DeliveryCount, 1)
	})
}

type credential string

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestOnlyGoodTokensOpenWhatIsThere(t *testing.T) {
	inBubble(t, func(w *fixture) {
		try := func(c *azservicebus.Client, err error, entity string) error {
			w.ok(err)
			defer func() { _ = c.Close(w.ctx) }()
			s, err := c.NewSender(entity, nil)
			w.ok(err)
			return s.SendMessage(w.ctx, text("x"), nil)
		}
		o := options(w.bus)
		c, err := azservicebus.NewClient("bus.test", credential("good"), o)
		w.ok(try(c, err, "q"))
		c, err = azservicebus.NewClient("bus.test", credential("bad"), o)
		w.code(try(c, err, "q"), azservicebus.CodeUnauthorizedAccess)
		c, err = azservicebus.NewClient("bus.test", credential("good"), o)
		w.code(try(c, err, "absent"), azservicebus.CodeNotFound)
		c, err = azservicebus.NewClientFromConnectionString(strings.Replace(w.bus.ConnectionString("bus.test"),
			"c2VjcmV0", "d3Jvbmc=", 1), o)
		w.code(try(c, err, "q"), azservicebus.CodeUnauthorizedAccess)
	})
}

func TestFaultsShow(t *testing.T) {
	inBubble(t, func(w *fixture) {
		inject := func(op string, f faults.Fault) {
			f.Operation, f.Service = op, "servicebus"
			w.ok(w.panel.Inject(f))
		}
		brief := func() (context.Context, context.CancelFunc) { return context.WithTimeout(w.ctx, 10*time.Second) }
		for _, tc := range []struct {
			fault   faults.Fault
			effects int
			says    string
		}{
			{faults.Fault{Mode: faults.Status, Status: 503}, 0, "com.microsoft:server-busy"},
			{faults.Fault{Mode: faults.Status, Status: 500}, 0, "amqp:internal-error"},
			{faults.Fault{Mode: faults.ResetBefore}, 0, ""},
			{faults.Fault{Mode: faults.ResetAfter}, 1, ""},
			{faults.Fault{Mode: faults.HangBefore}, 0, "deadline"},
			{faults.Fault{Mode: faults.HangAfter}, 1, "deadline"},
		} {
			// Without retries, the SDK learns of a broken connection at its next use.
			c, err := azservicebus.NewClientFromConnectionString(w.bus.ConnectionString("bus.test"), options(w.bus))
			w.ok(err)
			s, err := c.NewSender("q", nil)
			w.ok(err)
			before := w.bus.Counts("q").Active
			inject("send q", tc.fault)
			ctx, cancel := brief()
			err = s.SendMessage(ctx, text("x"), nil)
			cancel()
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%s: error %v", tc.fault.Mode, err)
			}
			same(w, string(tc.fault.Mode), w.bus.Counts("q").Active-before, tc.effects)
			_ = c.Close(w.ctx)
		}
		s := w.sender("q")
		inject("send q", faults.Fault{Mode: faults.Slow, Delay: 5 * time.Second})
		began := time.Now()
		w.ok(s.SendMessage(w.ctx, text("x"), nil))
		same(w, "slow", time.Since(began), 5*time.Second)

		inject("receive q", faults.Fault{Mode: faults.Status, Status: 500})
		if _, err := w.receiver("q", nil).ReceiveMessages(w.ctx, 1, nil); err == nil {
			t.Fatal("the attach was not refused")
		}
		inject("schedule q", faults.Fault{Mode: faults.Status, Status: 503})
		if _, err := s.ScheduleMessages(w.ctx, []*azservicebus.Message{text("x")}, time.Now().Add(time.Hour),
			nil); err == nil {
			t.Fatal("the schedule was not refused")
		}
		r := w.receiver("q", nil)
		m := w.one(r)
		// The SDK tries a refused settlement again, finds the delivery settled
		// and says nothing: only the message's return tells.
		inject("complete q", faults.Fault{Mode: faults.Status, Status: 500})
		w.ok(r.CompleteMessage(w.ctx, m, nil))
		same(w, "left", w.bus.Counts("q").Active, 3)
		inject("complete q", faults.Fault{Mode: faults.HangAfter})
		ctx, cancel := brief()
		defer cancel()
		if err := r.CompleteMessage(ctx, w.one(r), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a completion without an answer: %v", err)
		}
		same(w, "left", w.bus.Counts("q").Active, 2)
		inject("abandon q", faults.Fault{Mode: faults.ResetBefore})
		w.code(r.AbandonMessage(w.ctx, w.one(r), nil), azservicebus.CodeConnectionLost)
		same(w, "left", w.bus.Counts("q").Active, 2)
	})
}

func TestASocketWillDoToo(t *testing.T) {
	t.Parallel()
	b, err := servicebus.New(servicebus.Config{Entities: entities(), KeyName: "root", Key: "c2VjcmV0"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Serve(l) }()
	c, err := azservicebus.NewClientFromConnectionString(b.ConnectionString(l.Addr().String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &fixture{t: t, ctx: t.Context(), bus: b, c: c}
	w.send("q", text("x"))
	r := w.receiver("q", nil)
	w.ok(r.CompleteMessage(w.ctx, w.one(r), nil))
	w.ok(c.Close(w.ctx))
	b.Close()
	w.ok(<-done)
}
