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
	t        *testing.T
	ctx      context.Context
	bus      *servicebus.Bus
	injector *faults.Injector
	c        *azservicebus.Client

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

// inBubble runs a test in a bubble: a bus, a client, virtual time.
func inBubble(t *testing.T, test func(*fixture)) {
	t.Helper()
	inBubbleWith(t, func(*servicebus.Config) {}, test)
}

func inBubbleWith(t *testing.T, change func(*servicebus.Config), test func(*fixture)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
		defer cancel()
		f := &fixture{t: t, ctx: ctx, injector: &faults.Injector{}}
		var err error
		cfg := servicebus.Config{
			Entities: entities(), KeyName: "root", Key: "c2VjcmV0", Injector: f.injector,
			VerifyJWT: func(token, audience string) error {
				if token != "good" {
					return errors.New("bad token")
				}
				return nil
			},
			OnSend: func(entity string, m servicebus.Message) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.sent = append(f.sent, entity+":"+string(m.Body))
			},
		}
		change(&cfg)
		f.bus, err = servicebus.New(cfg)
		f.ok(err)
		defer f.bus.Close()
		f.c, err = azservicebus.NewClientFromConnectionString(f.bus.ConnectionString("bus.test"), options(f.bus))
		f.ok(err)
		defer func() { f.ok(f.c.Close(context.Background())) }()
		test(f)
	})
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) code(err error, want azservicebus.Code) {
	f.t.Helper()
	var e *azservicebus.Error
	if !errors.As(err, &e) || e.Code != want {
		f.t.Fatalf("error %v, want code %s", err, want)
	}
}

func same[T comparable](f *fixture, what string, got, want T) {
	f.t.Helper()
	if got != want {
		f.t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func (f *fixture) sender(entity string) *azservicebus.Sender {
	f.t.Helper()
	s, err := f.c.NewSender(entity, nil)
	f.ok(err)
	return s
}

func (f *fixture) send(entity string, m *azservicebus.Message) {
	f.t.Helper()
	s := f.sender(entity)
	f.ok(s.SendMessage(f.ctx, m, nil))
	f.ok(s.Close(f.ctx))
}

func (f *fixture) receiver(entity string, o *azservicebus.ReceiverOptions) *azservicebus.Receiver {
	f.t.Helper()
	r, err := f.c.NewReceiverForQueue(entity, o)
	f.ok(err)
	return r
}

type receiver interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

func (f *fixture) one(r receiver) *azservicebus.ReceivedMessage {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 3*time.Hour)
	defer cancel()
	ms, err := r.ReceiveMessages(ctx, 1, nil)
	f.ok(err)
	return ms[0]
}

func (f *fixture) none(r receiver, d time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, d)
	defer cancel()
	ms, err := r.ReceiveMessages(ctx, 1, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		f.t.Fatalf("received %v, %v; want nothing", ms, err)
	}
}

func text(s string) *azservicebus.Message { return &azservicebus.Message{Body: []byte(s)} }

func TestAMessageGoesThroughWithAllItHas(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("q", &azservicebus.Message{
			Body: []byte("hello"), MessageID: ptr("m1"), Subject: ptr("greeting"), ContentType: ptr("text/plain"),
			CorrelationID:         ptr("c1"),
			ApplicationProperties: map[string]any{"n": int64(7), "s": "x", "b": true},
		})
		same(f, "OnSend got", strings.Join(f.sent, " "), "q:hello")
		r := f.receiver("q", nil)
		m := f.one(r)
		same(f, "body", string(m.Body), "hello")
		same(f, "id", m.MessageID, "m1")
		same(f, "subject", *m.Subject, "greeting")
		same(f, "properties", p("%v", m.ApplicationProperties), "map[b:true n:7 s:x]")
		same(f, "count", m.DeliveryCount, 1)
		same(f, "sequence", *m.SequenceNumber, 1)
		same(f, "locked until", time.Until(*m.LockedUntil).Round(time.Second), time.Minute)
		same(f, "counts", f.bus.Counts("Q"), servicebus.Counts{Active: 1})
		time.Sleep(40 * time.Second)
		f.ok(r.RenewMessageLock(f.ctx, m, nil))
		time.Sleep(40 * time.Second)
		f.ok(r.CompleteMessage(f.ctx, m, nil))
		same(f, "counts", f.bus.Counts("q"), servicebus.Counts{})
		f.none(r, time.Minute)
	})
}

func TestAbandonedTooOftenIsDeadLettered(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("q", text("x"))
		r := f.receiver("q", nil)
		for i := range 3 {
			m := f.one(r)
			same(f, "count", int(m.DeliveryCount), i+1)
			f.ok(r.AbandonMessage(f.ctx, m, nil))
		}
		same(f, "counts", f.bus.Counts("q"), servicebus.Counts{DeadLetter: 1})
		d := f.receiver("q", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
		for range 4 {
			m := f.one(d)
			same(f, "reason", *m.DeadLetterReason, "MaxDeliveryCountExceeded")
			same(f, "count", m.DeliveryCount, 4)
			f.ok(d.AbandonMessage(f.ctx, m, nil))
		}
		f.ok(d.CompleteMessage(f.ctx, f.one(d), nil))
		same(f, "left", len(f.bus.Peek("q/$deadletterqueue")), 0)
	})
}

func TestALockRunsOut(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("q", text("x"))
		r := f.receiver("q", nil)
		first := f.one(r)
		began := time.Now()
		second := f.one(r)
		same(f, "came back after", time.Since(began).Round(time.Second), time.Minute)
		same(f, "count", second.DeliveryCount, 2)
		f.code(r.CompleteMessage(f.ctx, first, nil), azservicebus.CodeLockLost)
		f.code(r.RenewMessageLock(f.ctx, first, nil), azservicebus.CodeLockLost)
		f.ok(r.CompleteMessage(f.ctx, second, nil))
	})
}

func TestDeadLetterAndDefer(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("q", text("a"))
		f.send("q", text("b"))
		r := f.receiver("q", nil)
		f.ok(r.DeadLetterMessage(f.ctx, f.one(r), &azservicebus.DeadLetterOptions{Reason: ptr("why"),
			ErrorDescription: ptr("long"), PropertiesToModify: map[string]any{"k": "v"}}))
		m := f.one(r)
		f.ok(r.DeferMessage(f.ctx, m, nil))
		same(f, "counts", f.bus.Counts("q"), servicebus.Counts{Deferred: 1, DeadLetter: 1})
		peeked, err := r.PeekMessages(f.ctx, 5, nil)
		f.ok(err)
		same(f, "state", peeked[0].State, azservicebus.MessageStateDeferred)
		ms, err := r.ReceiveDeferredMessages(f.ctx, []int64{*m.SequenceNumber}, nil)
		f.ok(err)
		same(f, "body", string(ms[0].Body), "b")
		f.ok(r.CompleteMessage(f.ctx, ms[0], nil))
		if gone, err := r.ReceiveDeferredMessages(f.ctx, []int64{*m.SequenceNumber}, nil); err == nil {
			t.Errorf("a deferred message that is gone is answered with %d messages, want an error", len(gone))
		}
		d := f.receiver("q", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter,
			ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
		m = f.one(d)
		same(f, "dead letter", p("%s %s %s", *m.DeadLetterReason, *m.DeadLetterErrorDescription,
			m.ApplicationProperties["k"]), "why long v")
		same(f, "counts", f.bus.Counts("q"), servicebus.Counts{})
	})
}

func TestScheduledMessagesComeWhenDueWithANewNumber(t *testing.T) {
	inBubble(t, func(f *fixture) {
		s := f.sender("q")
		began := time.Now()
		seqs, err := s.ScheduleMessages(f.ctx, []*azservicebus.Message{text("a"), text("b")}, began.Add(2*time.Hour),
			nil)
		f.ok(err)
		same(f, "numbers", p("%v", seqs), "[1 2]")
		same(f, "counts", f.bus.Counts("q"), servicebus.Counts{Scheduled: 2})
		f.ok(s.CancelScheduledMessages(f.ctx, seqs[:1], nil))
		f.code(s.CancelScheduledMessages(f.ctx, seqs[:1], nil), azservicebus.CodeNotFound)
		r := f.receiver("q", nil)
		m := f.one(r)
		same(f, "came after", time.Since(began), 2*time.Hour)
		same(f, "body", string(m.Body), "b")
		same(f, "number", *m.SequenceNumber, 3)
		f.ok(r.CompleteMessage(f.ctx, m, nil))
		at := time.Now().Add(10 * time.Minute)
		f.send("q", &azservicebus.Message{Body: []byte("c"), ScheduledEnqueueTime: &at})
		f.ok(r.CompleteMessage(f.ctx, f.one(r), nil))
		same(f, "came", time.Since(at).Round(time.Millisecond), 0)
	})
}

func TestDuplicatesAreAcceptedAndDropped(t *testing.T) {
	inBubble(t, func(f *fixture) {
		s := f.sender("d")
		msg := func() *azservicebus.Message { return &azservicebus.Message{Body: []byte("x"), MessageID: ptr("same")} }
		seqs, err := s.ScheduleMessages(f.ctx, []*azservicebus.Message{msg()}, time.Now().Add(time.Hour), nil)
		f.ok(err)
		same(f, "scheduled", len(seqs), 1)
		f.ok(s.SendMessage(f.ctx, msg(), nil))
		same(f, "counts", f.bus.Counts("d"), servicebus.Counts{Scheduled: 1})
		same(f, "calls of OnSend", len(f.sent), 1)
		time.Sleep(10 * time.Minute)
		f.ok(s.SendMessage(f.ctx, msg(), nil))
		same(f, "counts", f.bus.Counts("d"), servicebus.Counts{Scheduled: 1, Active: 1})
		same(f, "calls of OnSend", len(f.sent), 2)
	})
}

func TestATopicCopiesByFilter(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("t", &azservicebus.Message{Body: []byte("1"), Subject: ptr("red")})
		f.send("t", &azservicebus.Message{Body: []byte("2"), Subject: ptr("blue")})
		same(f, "all", f.bus.Counts("t/subscriptions/all"), servicebus.Counts{Active: 2})
		r, err := f.c.NewReceiverForSubscription("t", "red", nil)
		f.ok(err)
		m := f.one(r)
		same(f, "body", string(m.Body), "1")
		f.ok(r.CompleteMessage(f.ctx, m, nil))
		f.none(r, time.Second)
	})
}

func TestBatchesAndLargeMessages(t *testing.T) {
	inBubble(t, func(f *fixture) {
		s := f.sender("q")
		batch, err := s.NewMessageBatch(f.ctx, nil)
		f.ok(err)
		for i := range 3 {
			f.ok(batch.AddMessage(text(p("%d", i)), nil))
		}
		f.ok(s.SendMessageBatch(f.ctx, batch, nil))
		large := bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)
		f.ok(s.SendMessage(f.ctx, &azservicebus.Message{Body: large}, nil))
		err = s.SendMessage(f.ctx, &azservicebus.Message{Body: make([]byte, 300<<10)}, nil)
		if !errors.Is(err, azservicebus.ErrMessageTooLarge) {
			t.Fatalf("error %v, want ErrMessageTooLarge", err)
		}
		r := f.receiver("q", nil)
		for i := range 4 {
			m := f.one(r)
			want := p("%d", i)
			if i == 3 {
				want = string(large)
			}
			if string(m.Body) != want {
				t.Fatalf("message %d has %d bytes", i, len(m.Body))
			}
			f.ok(r.CompleteMessage(f.ctx, m, nil))
		}
	})
}

func session(id, body string) *azservicebus.Message {
	return &azservicebus.Message{Body: []byte(body), SessionID: &id}
}

func TestSessionsAreHeldByOne(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("s", session("one", "1a"))
		f.send("s", session("two", "2a"))
		f.send("s", session("one", "1b"))
		r1, err := f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.ok(err)
		same(f, "session", r1.SessionID(), "one")
		same(f, "locked until", time.Until(r1.LockedUntil()).Round(time.Second), time.Minute)
		_, err = f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		if err == nil || !strings.Contains(err.Error(), "session-cannot-be-locked") {
			t.Fatalf("a held session: %v", err)
		}
		f.ok(r1.SetSessionState(f.ctx, []byte("state"), nil))
		m := f.one(r1)
		same(f, "body", string(m.Body), "1a")
		f.ok(r1.CompleteMessage(f.ctx, m, nil))
		m = f.one(r1)
		same(f, "body", string(m.Body), "1b")
		for range 3 {
			time.Sleep(40 * time.Second)
			f.ok(r1.RenewSessionLock(f.ctx, nil))
		}
		f.ok(r1.Close(f.ctx)) // not counted

		r1, err = f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		state, err := r1.GetSessionState(f.ctx, nil)
		f.ok(err)
		same(f, "state", string(state), "state")
		f.ok(r1.SetSessionState(f.ctx, nil, nil))
		state, err = r1.GetSessionState(f.ctx, nil)
		f.ok(err)
		same(f, "no state", len(state), 0)
		m = f.one(r1)
		same(f, "count", m.DeliveryCount, 1)
		f.ok(r1.CompleteMessage(f.ctx, m, nil))

		r2, err := f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.ok(err)
		same(f, "session", r2.SessionID(), "two")
		f.ok(r2.CompleteMessage(f.ctx, f.one(r2), nil))

		began := time.Now()
		_, err = f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.code(err, azservicebus.CodeTimeout)
		same(f, "waited", time.Since(began).Round(time.Second), 65*time.Second)

		ctx, cancel := context.WithTimeout(f.ctx, 5*time.Second)
		defer cancel()
		_, err = f.c.AcceptNextSessionForQueue(ctx, "s", nil)
		if err == nil {
			t.Fatal("there is no session, and one was accepted")
		}
	})
}

func TestADeferredMessageOfASessionIsForWhoHoldsTheSession(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("s", session("one", "later"))
		r, err := f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		m := f.one(r)
		f.ok(r.DeferMessage(f.ctx, m, nil))
		got, err := r.ReceiveDeferredMessages(f.ctx, []int64{*m.SequenceNumber}, nil)
		f.ok(err)
		same(f, "messages", len(got), 1)
		f.ok(r.AbandonMessage(f.ctx, got[0], nil))
		seq := *m.SequenceNumber
		f.ok(r.Close(f.ctx))

		other, err := f.c.NewReceiverForQueue("s", nil)
		f.ok(err)
		if got, err := other.ReceiveDeferredMessages(f.ctx, []int64{seq}, nil); err == nil && len(got) > 0 {
			t.Error("a deferred message was given out although nobody holds its session")
		}
	})
}

func TestAWaitingAcceptGetsTheSessionThatComes(t *testing.T) {
	inBubble(t, func(f *fixture) {
		go func() {
			time.Sleep(20 * time.Second)
			_ = f.bus.Send("s", servicebus.Message{SessionID: "late", Body: []byte("x"),
				Properties: map[string]any{"k": 1}})
		}()
		began := time.Now()
		r, err := f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.ok(err)
		same(f, "session", r.SessionID(), "late")
		same(f, "waited", time.Since(began), 20*time.Second)
		same(f, "body", string(f.one(r).Body), "x")
	})
}

func TestALostSessionEndsItsReceiverAndCounts(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("s", session("one", "x"))
		r, err := f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.ok(err)
		for i := range 3 {
			m := f.one(r)
			same(f, "count", int(m.DeliveryCount), i+1)
			if i == 1 {
				f.bus.LoseSessionLock("s", "one")
			} else {
				time.Sleep(61 * time.Second)
			}
			f.code(r.RenewSessionLock(f.ctx, nil), azservicebus.CodeLockLost)
			// Another one gets it. The SDK sees that its link has ended, tries
			// to get the session again, and cannot.
			next, err := f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
			f.ok(err)
			if err := r.CompleteMessage(f.ctx, m, nil); err == nil {
				t.Fatal("a message of a lost session was completed")
			}
			_, err = r.ReceiveMessages(f.ctx, 1, nil)
			if err == nil || !strings.Contains(err.Error(), "session-cannot-be-locked") {
				t.Fatalf("receiving from a lost session: %v", err)
			}
			_ = r.Close(f.ctx)
			r = next
		}
		same(f, "counts", f.bus.Counts("s"), servicebus.Counts{DeadLetter: 1})
		s := f.sender("s")
		if err := s.SendMessage(f.ctx, text("without"), nil); err == nil {
			t.Fatal("a message without a session id was accepted")
		}
		_, err = f.receiver("s", nil).ReceiveMessages(f.ctx, 1, nil)
		if err == nil || !strings.Contains(err.Error(), "requires sessions") {
			t.Fatalf("a receiver without a session: %v", err)
		}
	})
}

func TestOldMessagesAreDeadLettered(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("ttl", text("x"))
		time.Sleep(2 * time.Minute)
		f.none(f.receiver("ttl", nil), time.Second)
		m := f.bus.Peek("ttl/$DeadLetterQueue")[0]
		same(f, "reason", m.Properties["DeadLetterReason"], "TTLExpiredException")
	})
}

func TestAClientGoneGivesItsSessionBack(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("s", session("one", "x"))
		r, err := f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		f.one(r)
		f.bus.DropConnections()
		synctest.Wait()
		c, err := azservicebus.NewClientFromConnectionString(f.bus.ConnectionString("bus.test"), options(f.bus))
		f.ok(err)
		defer func() { _ = c.Close(f.ctx) }()
		r, err = c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		same(f, "count", f.one(r).DeliveryCount, 1)
	})
}

type credential string

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestOnlyGoodTokensOpenWhatIsThere(t *testing.T) {
	inBubble(t, func(f *fixture) {
		try := func(c *azservicebus.Client, err error, entity string) error {
			f.ok(err)
			defer func() { _ = c.Close(f.ctx) }()
			s, err := c.NewSender(entity, nil)
			f.ok(err)
			return s.SendMessage(f.ctx, text("x"), nil)
		}
		o := options(f.bus)
		c, err := azservicebus.NewClient("bus.test", credential("good"), o)
		f.ok(try(c, err, "q"))
		c, err = azservicebus.NewClient("bus.test", credential("bad"), o)
		f.code(try(c, err, "q"), azservicebus.CodeUnauthorizedAccess)
		c, err = azservicebus.NewClient("bus.test", credential("good"), o)
		f.code(try(c, err, "absent"), azservicebus.CodeNotFound)
		c, err = azservicebus.NewClientFromConnectionString(strings.Replace(f.bus.ConnectionString("bus.test"),
			"c2VjcmV0", "d3Jvbmc=", 1), o)
		f.code(try(c, err, "q"), azservicebus.CodeUnauthorizedAccess)
	})
}

func TestFaultsShow(t *testing.T) {
	inBubble(t, func(f *fixture) {
		inject := func(op string, fault faults.Fault) {
			fault.Operation, fault.Service = op, "servicebus"
			f.ok(f.injector.Inject(fault))
		}
		brief := func() (context.Context, context.CancelFunc) { return context.WithTimeout(f.ctx, 10*time.Second) }
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
			c, err := azservicebus.NewClientFromConnectionString(f.bus.ConnectionString("bus.test"), options(f.bus))
			f.ok(err)
			s, err := c.NewSender("q", nil)
			f.ok(err)
			before := f.bus.Counts("q").Active
			inject("send q", tc.fault)
			ctx, cancel := brief()
			err = s.SendMessage(ctx, text("x"), nil)
			cancel()
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%s: error %v", tc.fault.Mode, err)
			}
			same(f, string(tc.fault.Mode), f.bus.Counts("q").Active-before, tc.effects)
			_ = c.Close(f.ctx)
		}
		s := f.sender("q")
		inject("send q", faults.Fault{Mode: faults.Slow, Delay: 5 * time.Second})
		began := time.Now()
		f.ok(s.SendMessage(f.ctx, text("x"), nil))
		same(f, "slow", time.Since(began), 5*time.Second)

		inject("receive q", faults.Fault{Mode: faults.Status, Status: 500})
		if _, err := f.receiver("q", nil).ReceiveMessages(f.ctx, 1, nil); err == nil {
			t.Fatal("the attach was not refused")
		}
		inject("schedule q", faults.Fault{Mode: faults.Status, Status: 503})
		if _, err := s.ScheduleMessages(f.ctx, []*azservicebus.Message{text("x")}, time.Now().Add(time.Hour),
			nil); err == nil {
			t.Fatal("the schedule was not refused")
		}
		r := f.receiver("q", nil)
		m := f.one(r)
		// The SDK tries a refused settlement again, finds the delivery settled
		// and reports nothing: only the message's return shows it.
		inject("complete q", faults.Fault{Mode: faults.Status, Status: 500})
		f.ok(r.CompleteMessage(f.ctx, m, nil))
		same(f, "left", f.bus.Counts("q").Active, 3)
		inject("complete q", faults.Fault{Mode: faults.HangAfter})
		ctx, cancel := brief()
		defer cancel()
		if err := r.CompleteMessage(ctx, f.one(r), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a completion without an answer: %v", err)
		}
		same(f, "left", f.bus.Counts("q").Active, 2)
		inject("abandon q", faults.Fault{Mode: faults.ResetBefore})
		f.code(r.AbandonMessage(f.ctx, f.one(r), nil), azservicebus.CodeConnectionLost)
		same(f, "left", f.bus.Counts("q").Active, 2)
	})
}

func TestWhatComesWithAFaultHappensOnceBeforeTheClientLearnsOfIt(t *testing.T) {
	for _, tc := range []struct {
		operation string
		mode      faults.Mode
		effects   int
	}{
		{"send q", faults.ResetBefore, 0}, {"send q", faults.ResetAfter, 1}, {"send q", faults.Status, 0},
		{"schedule q", faults.ResetBefore, 0}, {"schedule q", faults.ResetAfter, 1},
	} {
		t.Run(tc.operation+", "+string(tc.mode), func(t *testing.T) {
			inBubble(t, func(f *fixture) {
				s := f.sender("q")
				happened, effects := 0, 0
				f.ok(f.injector.Inject(faults.Fault{Operation: tc.operation, Mode: tc.mode, Status: 500, Then: func() {
					happened++
					c := f.bus.Counts("q")
					effects = c.Active + c.Scheduled
				}}))
				ctx, cancel := context.WithTimeout(f.ctx, 10*time.Second)
				defer cancel()
				if tc.operation == "send q" {
					_ = s.SendMessage(ctx, text("x"), nil)
				} else {
					_, _ = s.ScheduleMessages(ctx, []*azservicebus.Message{text("x")}, time.Now().Add(time.Hour), nil)
				}
				same(f, "times that it happened", happened, 1)
				same(f, "effects by then", effects, tc.effects)
			})
		})
	}
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
	f := &fixture{t: t, ctx: t.Context(), bus: b, c: c}
	f.send("q", text("x"))
	r := f.receiver("q", nil)
	f.ok(r.CompleteMessage(f.ctx, f.one(r), nil))
	f.ok(c.Close(f.ctx))
	b.Close()
	f.ok(<-done)
}
