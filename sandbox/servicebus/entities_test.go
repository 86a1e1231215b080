package servicebus_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

func (f *fixture) is(err, want error) {
	f.t.Helper()
	if !errors.Is(err, want) {
		f.t.Fatalf("error %v, want %v", err, want)
	}
}

// retrying is a client that tries again, as one does by default.
func (f *fixture) retrying() *azservicebus.Client {
	f.t.Helper()
	o := options(f.bus)
	o.RetryOptions = azservicebus.RetryOptions{}
	c, err := azservicebus.NewClientFromConnectionString(f.bus.ConnectionString("bus.test"), o)
	f.ok(err)
	f.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestEntitiesComeAndGoAtRunTime(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.ok(f.bus.Create(broker.Entities{
			Queues: []broker.Queue{{Name: "new"}},
			Topics: []broker.Topic{{Name: "topic", Subscriptions: []broker.Subscription{{Name: "one"}}}},
		}))
		f.ok(f.bus.CreateSubscription("TOPIC", broker.Subscription{Name: "two"}))
		f.send("new", text("x"))
		f.send("topic", text("y"))
		same(f, "one", f.bus.Counts("topic/subscriptions/one").Active, 1)
		same(f, "two", f.bus.Counts("topic/subscriptions/two").Active, 1)

		s, r := f.sender("new"), f.receiver("new", nil)
		f.ok(r.CompleteMessage(f.ctx, f.one(r), nil))
		f.ok(s.SendMessage(f.ctx, text("x"), nil))
		m := f.one(r)
		_, err := s.ScheduleMessages(f.ctx, []*azservicebus.Message{text("later")}, time.Now().Add(time.Hour), nil)
		f.ok(err)
		f.ok(f.bus.Delete("new"))
		if err := r.CompleteMessage(f.ctx, m, nil); err == nil {
			t.Error("a message of a deleted queue was completed")
		}
		f.code(f.sender("new").SendMessage(f.ctx, text("x"), nil), azservicebus.CodeNotFound)
		time.Sleep(2 * time.Hour) // locks and schedules have ended with the queue
		f.ok(f.bus.Create(broker.Entities{Queues: []broker.Queue{{Name: "new"}}}))
		same(f, "counts", f.bus.Counts("new"), servicebus.Counts{})

		f.ok(f.bus.Delete("topic/Subscriptions/one"))
		f.send("topic", text("z"))
		same(f, "two", f.bus.Counts("topic/subscriptions/two").Active, 2)
		f.ok(f.bus.Delete("topic"))
		f.is(f.bus.Delete("topic/Subscriptions/two"), servicebus.ErrNotFound)
	})
}

func TestAnEntityThatTheServiceRefusesIsRefused(t *testing.T) {
	inBubble(t, func(f *fixture) {
		queue := func(name string, p broker.Properties) error {
			return f.bus.Create(broker.Entities{Queues: []broker.Queue{{Name: "beside-" + name},
				{Name: name, Properties: p}}})
		}
		f.is(queue("Q", broker.Properties{}), servicebus.ErrExists)
		same(f, "none of a failed creation", f.bus.Delete("beside-q") != nil, true)
		for name, p := range map[string]broker.Properties{
			"lock":    {LockDuration: 6 * time.Minute},
			"forward": {ForwardTo: "absent"},
			"dead":    {ForwardDeadLetteredMessagesTo: "absent"},
			"window":  {DuplicateDetectionHistoryTimeWindow: time.Second},
			"tries":   {MaxDeliveryCount: -1},
			"life":    {DefaultMessageTimeToLive: time.Millisecond},
			"a$b":     {},
			"":        {},
		} {
			if err := queue(name, p); err == nil {
				t.Errorf("%q was made", name)
			}
		}
		f.is(f.bus.CreateSubscription("q", broker.Subscription{Name: "x"}), servicebus.ErrNotFound)
		f.is(f.bus.CreateSubscription("t", broker.Subscription{Name: "all"}), servicebus.ErrExists)
		f.is(f.bus.Update("absent", broker.Properties{}), servicebus.ErrNotFound)
		f.is(f.bus.Delete("q/$DeadLetterQueue"), servicebus.ErrNotFound)
		f.is(f.bus.SetRules("t", "absent", nil), servicebus.ErrNotFound)
		if err := f.bus.Update("q", broker.Properties{RequiresSession: true}); err == nil {
			t.Error("a queue got sessions")
		}
		if err := f.bus.Update("q", broker.Properties{LockDuration: time.Hour}); err == nil {
			t.Error("a lock of an hour was accepted")
		}
	})
}

func TestAnUpdateDetachesAndClientsComeBack(t *testing.T) {
	inBubble(t, func(f *fixture) {
		c := f.retrying()
		s, err := c.NewSender("q", nil)
		f.ok(err)
		f.ok(s.SendMessage(f.ctx, text("0"), nil))
		r, err := c.NewReceiverForQueue("q", nil)
		f.ok(err)
		other, err := f.c.NewReceiverForQueue("q", nil)
		f.ok(err)
		f.ok(other.AbandonMessage(f.ctx, f.one(other), nil))
		_, err = r.PeekMessages(f.ctx, 1, nil)
		f.ok(err)
		f.ok(f.bus.Update("q", broker.Properties{MaxDeliveryCount: 2}))
		for i := range 3 {
			f.ok(s.SendMessage(f.ctx, text(p("%d", i+1)), nil))
		}
		same(f, "counts", f.bus.Counts("q").Active, 4)
		ms, err := r.PeekMessages(f.ctx, 9, &azservicebus.PeekMessagesOptions{FromSequenceNumber: ptr(int64(0))})
		f.ok(err)
		same(f, "peeked", len(ms), 4)
		// The first call after a detach may come back with nothing.
		for ms = nil; len(ms) == 0; {
			ms, err = r.ReceiveMessages(f.ctx, 1, nil)
			f.ok(err)
		}
		same(f, "count", ms[0].DeliveryCount, 2)
		f.ok(r.AbandonMessage(f.ctx, ms[0], nil))
		same(f, "the new limit holds", f.bus.Counts("q").DeadLetter, 1)
	})
}

func TestAnUpdateGivesSessionsBackUncounted(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.send("s", session("one", "x"))
		r, err := f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		f.one(r)
		waiting := make(chan error, 1)
		go func() {
			_, err := f.retrying().AcceptNextSessionForQueue(f.ctx, "s", nil)
			waiting <- err
		}()
		synctest.Wait()
		f.ok(f.bus.Update("s", broker.Properties{RequiresSession: true}))
		if err := <-waiting; err == nil || !strings.Contains(err.Error(), "amqp:link:detach-forced") {
			t.Errorf("who waited for a session: %v", err)
		}
		r, err = f.c.AcceptSessionForQueue(f.ctx, "s", "one", nil)
		f.ok(err)
		same(f, "count", f.one(r).DeliveryCount, 1)
	})
}

func TestRulesAreReplaced(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.ok(f.bus.SetRules("t", "all", nil))
		f.send("t", &azservicebus.Message{Subject: ptr("blue")})
		same(f, "without a rule", f.bus.Counts("t/Subscriptions/all").Active, 0)
		f.ok(f.bus.SetRules("t", "all", []broker.Rule{{Filter: broker.Filter{Subject: ptr("red")}},
			{Filter: broker.Filter{Subject: ptr("blue")}}}))
		for _, subject := range []string{"red", "blue", "green"} {
			f.send("t", &azservicebus.Message{Subject: &subject})
		}
		same(f, "with two", f.bus.Counts("t/Subscriptions/all").Active, 2)
	})
}

func TestForwardingGoesToTheTargetAndNotIntoNothing(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.ok(f.bus.Create(broker.Entities{Queues: []broker.Queue{
			{Name: "to"}, {Name: "from", Properties: broker.Properties{ForwardTo: "to"}},
			{Name: "source", Properties: broker.Properties{ForwardDeadLetteredMessagesTo: "to"}},
		}}))
		f.send("from", text("x"))
		same(f, "forwarded", f.bus.Counts("to").Active, 1)
		f.send("source", text("y"))
		r := f.receiver("source", nil)
		f.ok(r.DeadLetterMessage(f.ctx, f.one(r), nil))
		to := f.receiver("to", nil)
		f.ok(to.CompleteMessage(f.ctx, f.one(to), nil))
		m := f.one(to)
		same(f, "source of the dead letter", *m.DeadLetterSource, "source")
		f.ok(to.CompleteMessage(f.ctx, m, nil))
		f.ok(f.bus.Delete("to"))
		f.send("from", text("z"))
		same(f, "without a target", f.bus.Counts("from"), servicebus.Counts{DeadLetter: 1})
		f.send("source", text("z"))
		f.ok(r.DeadLetterMessage(f.ctx, f.one(r), nil))
		same(f, "without a target", f.bus.Counts("source"), servicebus.Counts{DeadLetter: 1})
	})
}

func TestAPartitionedEntityInventsMissingMessageIDs(t *testing.T) {
	inBubble(t, func(f *fixture) {
		f.ok(f.bus.Create(broker.Entities{Queues: []broker.Queue{
			{Name: "p", Properties: broker.Properties{Partitioned: true}},
		}}))
		f.send("p", &azservicebus.Message{PartitionKey: ptr("k")})
		f.send("p", &azservicebus.Message{MessageID: ptr("own"), PartitionKey: ptr("k")})
		r := f.receiver("p", &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
		m := f.one(r)
		if m.MessageID == "" || *m.PartitionKey != "k" {
			t.Errorf("id %q, partition key %q", m.MessageID, *m.PartitionKey)
		}
		same(f, "own id", f.one(r).MessageID, "own")
	})
}

func TestWhatTheSenderAnnotatedIsKept(t *testing.T) {
	inBubble(t, func(f *fixture) {
		s := f.sender("q")
		f.ok(s.SendAMQPAnnotatedMessage(f.ctx, &azservicebus.AMQPAnnotatedMessage{
			DeliveryAnnotations: map[any]any{"own": "d", "x-opt-lock-token": "forged"},
			MessageAnnotations: map[any]any{"own": "m", "x-opt-sequence-number": int64(99),
				"x-opt-message-state": int32(1)},
			Body: azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("a"), []byte("b")}},
		}, nil))
		m := f.one(f.receiver("q", nil)).RawAMQPMessage
		same(f, "delivery annotation", m.DeliveryAnnotations["own"], any("d"))
		same(f, "message annotation", m.MessageAnnotations["own"], any("m"))
		same(f, "sequence number", m.MessageAnnotations["x-opt-sequence-number"], any(int64(1)))
		same(f, "sections", len(m.Body.Data), 2)
		if _, ok := m.MessageAnnotations["x-opt-message-state"]; ok {
			t.Error("an active message carries its state")
		}
		if _, ok := m.DeliveryAnnotations["x-opt-lock-token"].(string); ok {
			t.Error("the sender's lock token came through")
		}
	})
}

func TestSizeAndLastAccessAreReported(t *testing.T) {
	inBubble(t, func(f *fixture) {
		same(f, "size", f.bus.Size("q"), int64(0))
		same(f, "never used", f.bus.Accessed("q"), time.Time{})
		f.send("q", &azservicebus.Message{Body: make([]byte, 1000)})
		same(f, "used now", f.bus.Accessed("Q"), time.Now())
		size := f.bus.Size("q")
		same(f, "more than its body", size > 1000 && size < 1300, true)
		r := f.receiver("q", nil)
		f.ok(r.DeadLetterMessage(f.ctx, f.one(r), nil))
		same(f, "dead letters count", f.bus.Size("q") >= size, true)
		same(f, "absent", f.bus.Size("absent"), int64(0))
		same(f, "absent", f.bus.Accessed("absent"), time.Time{})
	})
}

func TestAKeyAllowsWhatItIsFor(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) {
		cfg.Keys = []servicebus.Key{{Name: "send", Key: "c2VuZA==", Send: true}, {Name: "listen", Key: "bGlzdGVu",
			Listen: true}}
	}, func(f *fixture) {
		client := func(name, key string) *azservicebus.Client {
			c, err := azservicebus.NewClientFromConnectionString("Endpoint=sb://bus.test;SharedAccessKeyName="+name+
				";SharedAccessKey="+key, options(f.bus))
			f.ok(err)
			f.t.Cleanup(func() { _ = c.Close(context.Background()) })
			return c
		}
		send, listen := client("send", "c2VuZA=="), client("listen", "bGlzdGVu")
		try := func(c *azservicebus.Client) error {
			s, err := c.NewSender("q", nil)
			f.ok(err)
			return s.SendMessage(f.ctx, text("x"), nil)
		}
		receive := func(c *azservicebus.Client) error {
			r, err := c.NewReceiverForQueue("q", nil)
			f.ok(err)
			_, err = r.ReceiveMessages(f.ctx, 1, nil)
			return err
		}
		f.ok(try(send))
		f.ok(receive(listen))
		for claim, err := range map[string]error{"Listen": receive(send), "Send": try(listen)} {
			f.code(err, azservicebus.CodeUnauthorizedAccess)
			want := "Unauthorized access. '" + claim + "' claim(s) are required to perform this operation"
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		}
	})
}

func TestAnExpiredTokenIsReportedAsExpired(t *testing.T) {
	inBubble(t, func(f *fixture) {
		// A signature for sb://bus.test that ends, as the bubble's time begins, in
		// the past: made by a client whose connection string holds it.
		c, err := azservicebus.NewClientFromConnectionString("Endpoint=sb://bus.test;SharedAccessSignature="+
			signature("bus.test", time.Now().Add(-time.Minute)), options(f.bus))
		f.ok(err)
		defer func() { _ = c.Close(f.ctx) }()
		s, err := c.NewSender("q", nil)
		f.ok(err)
		err = s.SendMessage(f.ctx, text("x"), nil)
		f.code(err, azservicebus.CodeUnauthorizedAccess)
		if !strings.Contains(err.Error(), "ExpiredToken: The token is expired. Expiration time:") {
			t.Errorf("error %v", err)
		}
	})
}

func TestTheAdministrationWantsTheFullKeyOrAToken(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) {
		cfg.Keys = []servicebus.Key{{Name: "use", Key: "c2VjcmV0", Send: true}}
	}, func(f *fixture) {
		in := time.Now().Add(time.Hour)
		for header, ok := range map[string]bool{
			"":                        false,
			"bad":                     false,
			"good":                    true,
			"Bearer good":             true,
			signature("bus.test", in): true,
			signature("bus.test/q?api-version=2024-05", in):              true,
			signature("bus.test/other", in):                              false,
			signature("bus.test", time.Now().Add(-time.Second)):          false,
			strings.Replace(signature("bus.test", in), "root", "use", 1): false,
		} {
			if err := f.bus.Authorize(header, "https://bus.test/q"); (err == nil) != ok {
				t.Errorf("%s: %v", header, err)
			}
		}
	})
}

func TestTheWaitForASessionIsBounded(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) { cfg.SessionWait = 3 * time.Second }, func(f *fixture) {
		began := time.Now()
		_, err := f.c.AcceptNextSessionForQueue(f.ctx, "s", nil)
		f.code(err, azservicebus.CodeTimeout)
		same(f, "waited", time.Since(began), 3*time.Second)
	})
}

func TestAConnectionOpensCBSOnce(t *testing.T) {
	inBubble(t, func(f *fixture) {
		near, far := net.Pipe()
		go f.bus.ServeConn(far)
		c, err := amqp.NewConn(f.ctx, near, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
		f.ok(err)
		defer func() { _ = c.Close() }()
		open := func() (*amqp.Sender, error) {
			s, err := c.NewSession(f.ctx, nil)
			f.ok(err)
			return s.NewSender(f.ctx, "$cbs", nil)
		}
		first, err := open()
		f.ok(err)
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "has already been opened") {
			t.Errorf("a second link: %v", err)
		}
		f.ok(first.Close(f.ctx))
		_, err = open()
		f.ok(err)
	})
}

// signature is a shared access signature by the full key.
func signature(resource string, end time.Time) string {
	sr, se := strings.ToLower(url.QueryEscape("https://"+resource)), strconv.FormatInt(end.Unix(), 10)
	mac := hmac.New(sha256.New, []byte("c2VjcmV0"))
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" +
		url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se + "&skn=root"
}
