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

func (w *fixture) is(err, want error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Fatalf("error %v, want %v", err, want)
	}
}

// retrying is a client that tries again, as one does by default.
func (w *fixture) retrying() *azservicebus.Client {
	w.t.Helper()
	o := options(w.bus)
	o.RetryOptions = azservicebus.RetryOptions{}
	c, err := azservicebus.NewClientFromConnectionString(w.bus.ConnectionString("bus.test"), o)
	w.ok(err)
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestEntitiesComeAndGoAtRunTime(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.ok(w.bus.Create(broker.Entities{
			Queues: []broker.Queue{{Name: "new"}},
			Topics: []broker.Topic{{Name: "topic", Subscriptions: []broker.Subscription{{Name: "one"}}}},
		}))
		w.ok(w.bus.CreateSubscription("TOPIC", broker.Subscription{Name: "two"}))
		w.send("new", text("x"))
		w.send("topic", text("y"))
		same(w, "one", w.bus.Counts("topic/subscriptions/one").Active, 1)
		same(w, "two", w.bus.Counts("topic/subscriptions/two").Active, 1)

		s, r := w.sender("new"), w.receiver("new", nil)
		w.ok(r.CompleteMessage(w.ctx, w.one(r), nil))
		w.ok(s.SendMessage(w.ctx, text("x"), nil))
		m := w.one(r)
		_, err := s.ScheduleMessages(w.ctx, []*azservicebus.Message{text("later")}, time.Now().Add(time.Hour), nil)
		w.ok(err)
		w.ok(w.bus.Delete("new"))
		if err := r.CompleteMessage(w.ctx, m, nil); err == nil {
			t.Error("a message of a deleted queue was completed")
		}
		w.code(w.sender("new").SendMessage(w.ctx, text("x"), nil), azservicebus.CodeNotFound)
		time.Sleep(2 * time.Hour) // locks and schedules have ended with the queue
		w.ok(w.bus.Create(broker.Entities{Queues: []broker.Queue{{Name: "new"}}}))
		same(w, "counts", w.bus.Counts("new"), servicebus.Counts{})

		w.ok(w.bus.Delete("topic/Subscriptions/one"))
		w.send("topic", text("z"))
		same(w, "two", w.bus.Counts("topic/subscriptions/two").Active, 2)
		w.ok(w.bus.Delete("topic"))
		w.is(w.bus.Delete("topic/Subscriptions/two"), servicebus.ErrNotFound)
	})
}

func TestWhatIsWrongWithAnEntityIsSaid(t *testing.T) {
	inBubble(t, func(w *fixture) {
		queue := func(name string, p broker.Properties) error {
			return w.bus.Create(broker.Entities{Queues: []broker.Queue{{Name: "beside-" + name},
				{Name: name, Properties: p}}})
		}
		w.is(queue("Q", broker.Properties{}), servicebus.ErrExists)
		same(w, "none of a failed creation", w.bus.Delete("beside-q") != nil, true)
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
		w.is(w.bus.CreateSubscription("q", broker.Subscription{Name: "x"}), servicebus.ErrNotFound)
		w.is(w.bus.CreateSubscription("t", broker.Subscription{Name: "all"}), servicebus.ErrExists)
		w.is(w.bus.Update("absent", broker.Properties{}), servicebus.ErrNotFound)
		w.is(w.bus.Delete("q/$DeadLetterQueue"), servicebus.ErrNotFound)
		w.is(w.bus.SetRules("t", "absent", nil), servicebus.ErrNotFound)
		if err := w.bus.Update("q", broker.Properties{RequiresSession: true}); err == nil {
			t.Error("a queue got sessions")
		}
		if err := w.bus.Update("q", broker.Properties{LockDuration: time.Hour}); err == nil {
			t.Error("a lock of an hour was taken")
		}
	})
}

func TestAnUpdateDetachesAndClientsComeBack(t *testing.T) {
	inBubble(t, func(w *fixture) {
		c := w.retrying()
		s, err := c.NewSender("q", nil)
		w.ok(err)
		w.ok(s.SendMessage(w.ctx, text("0"), nil))
		r, err := c.NewReceiverForQueue("q", nil)
		w.ok(err)
		other, err := w.c.NewReceiverForQueue("q", nil)
		w.ok(err)
		w.ok(other.AbandonMessage(w.ctx, w.one(other), nil))
		_, err = r.PeekMessages(w.ctx, 1, nil)
		w.ok(err)
		w.ok(w.bus.Update("q", broker.Properties{MaxDeliveryCount: 2}))
		for i := range 3 {
			w.ok(s.SendMessage(w.ctx, text(p("%d", i+1)), nil))
		}
		same(w, "counts", w.bus.Counts("q").Active, 4)
		ms, err := r.PeekMessages(w.ctx, 9, &azservicebus.PeekMessagesOptions{FromSequenceNumber: ptr(int64(0))})
		w.ok(err)
		same(w, "peeked", len(ms), 4)
		// The first call after a detach may come back with nothing.
		for ms = nil; len(ms) == 0; {
			ms, err = r.ReceiveMessages(w.ctx, 1, nil)
			w.ok(err)
		}
		same(w, "count", ms[0].DeliveryCount, 2)
		w.ok(r.AbandonMessage(w.ctx, ms[0], nil))
		same(w, "the new limit holds", w.bus.Counts("q").DeadLetter, 1)
	})
}

func TestAnUpdateGivesSessionsBackUncounted(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.send("s", session("one", "x"))
		r, err := w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		w.one(r)
		waiting := make(chan error, 1)
		go func() {
			_, err := w.retrying().AcceptNextSessionForQueue(w.ctx, "s", nil)
			waiting <- err
		}()
		synctest.Wait()
		w.ok(w.bus.Update("s", broker.Properties{RequiresSession: true}))
		if err := <-waiting; err == nil || !strings.Contains(err.Error(), "amqp:link:detach-forced") {
			t.Errorf("who waited for a session: %v", err)
		}
		r, err = w.c.AcceptSessionForQueue(w.ctx, "s", "one", nil)
		w.ok(err)
		same(w, "count", w.one(r).DeliveryCount, 1)
	})
}

func TestRulesAreReplaced(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.ok(w.bus.SetRules("t", "all", nil))
		w.send("t", &azservicebus.Message{Subject: ptr("blue")})
		same(w, "without a rule", w.bus.Counts("t/Subscriptions/all").Active, 0)
		w.ok(w.bus.SetRules("t", "all", []broker.Rule{{Filter: broker.Filter{Subject: ptr("red")}},
			{Filter: broker.Filter{Subject: ptr("blue")}}}))
		for _, subject := range []string{"red", "blue", "green"} {
			w.send("t", &azservicebus.Message{Subject: &subject})
		}
		same(w, "with two", w.bus.Counts("t/Subscriptions/all").Active, 2)
	})
}

func TestForwardingGoesToTheTargetAndNotIntoNothing(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.ok(w.bus.Create(broker.Entities{Queues: []broker.Queue{
			{Name: "to"}, {Name: "from", Properties: broker.Properties{ForwardTo: "to"}},
			{Name: "source", Properties: broker.Properties{ForwardDeadLetteredMessagesTo: "to"}},
		}}))
		w.send("from", text("x"))
		same(w, "forwarded", w.bus.Counts("to").Active, 1)
		w.send("source", text("y"))
		r := w.receiver("source", nil)
		w.ok(r.DeadLetterMessage(w.ctx, w.one(r), nil))
		to := w.receiver("to", nil)
		w.ok(to.CompleteMessage(w.ctx, w.one(to), nil))
		m := w.one(to)
		same(w, "source of the dead letter", *m.DeadLetterSource, "source")
		w.ok(to.CompleteMessage(w.ctx, m, nil))
		w.ok(w.bus.Delete("to"))
		w.send("from", text("z"))
		same(w, "without a target", w.bus.Counts("from"), servicebus.Counts{DeadLetter: 1})
		w.send("source", text("z"))
		w.ok(r.DeadLetterMessage(w.ctx, w.one(r), nil))
		same(w, "without a target", w.bus.Counts("source"), servicebus.Counts{DeadLetter: 1})
	})
}

func TestAPartitionedEntityInventsMissingMessageIDs(t *testing.T) {
	inBubble(t, func(w *fixture) {
		w.ok(
			w.bus.Create(broker.Entities{
				Queues: []broker.Queue{{Name: "p", Properties: broker.Properties{Partitioned: true}}}}))
		w.send("p", &azservicebus.Message{PartitionKey: ptr("k")})
		w.send("p", &azservicebus.Message{MessageID: ptr("own"), PartitionKey: ptr("k")})
		r := w.receiver("p", &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
		m := w.one(r)
		if m.MessageID == "" || *m.PartitionKey != "k" {
			t.Errorf("id %q, partition key %q", m.MessageID, *m.PartitionKey)
		}
		same(w, "own id", w.one(r).MessageID, "own")
	})
}

func TestWhatTheSenderAnnotatedIsKept(t *testing.T) {
	inBubble(t, func(w *fixture) {
		s := w.sender("q")
		w.ok(s.SendAMQPAnnotatedMessage(w.ctx, &azservicebus.AMQPAnnotatedMessage{
			DeliveryAnnotations: map[any]any{"own": "d", "x-opt-lock-token": "forged"},
			MessageAnnotations: map[any]any{"own": "m", "x-opt-sequence-number": int64(99),
				"x-opt-message-state": int32(1)},
			Body: azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("a"), []byte("b")}},
		}, nil))
		m := w.one(w.receiver("q", nil)).RawAMQPMessage
		same(w, "delivery annotation", m.DeliveryAnnotations["own"], any("d"))
		same(w, "message annotation", m.MessageAnnotations["own"], any("m"))
		same(w, "sequence number", m.MessageAnnotations["x-opt-sequence-number"], any(int64(1)))
		same(w, "sections", len(m.Body.Data), 2)
		if _, ok := m.MessageAnnotations["x-opt-message-state"]; ok {
			t.Error("an active message tells its state")
		}
		if _, ok := m.DeliveryAnnotations["x-opt-lock-token"].(string); ok {
			t.Error("the sender's lock token came through")
		}
	})
}

func TestSizeAndAccessAreTold(t *testing.T) {
	inBubble(t, func(w *fixture) {
		same(w, "size", w.bus.Size("q"), int64(0))
		same(w, "never used", w.bus.Accessed("q"), time.Time{})
		w.send("q", &azservicebus.Message{Body: make([]byte, 1000)})
		same(w, "used now", w.bus.Accessed("Q"), time.Now())
		size := w.bus.Size("q")
		same(w, "more than its body", size > 1000 && size < 1300, true)
		r := w.receiver("q", nil)
		w.ok(r.DeadLetterMessage(w.ctx, w.one(r), nil))
		same(w, "dead letters count", w.bus.Size("q") >= size, true)
		same(w, "absent", w.bus.Size("absent"), int64(0))
		same(w, "absent", w.bus.Accessed("absent"), time.Time{})
	})
}

func TestAKeyAllowsWhatItIsFor(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) {
		cfg.Keys = []servicebus.Key{{Name: "send", Key: "c2VuZA==", Send: true}, {Name: "listen", Key: "bGlzdGVu",
			Listen: true}}
	}, func(w *fixture) {
		client := func(name, key string) *azservicebus.Client {
			c, err := azservicebus.NewClientFromConnectionString("Endpoint=sb://bus.test;SharedAccessKeyName="+name+
				";SharedAccessKey="+key, options(w.bus))
			w.ok(err)
			w.t.Cleanup(func() { _ = c.Close(context.Background()) })
			return c
		}
		send, listen := client("send", "c2VuZA=="), client("listen", "bGlzdGVu")
		try := func(c *azservicebus.Client) error {
			s, err := c.NewSender("q", nil)
			w.ok(err)
			return s.SendMessage(w.ctx, text("x"), nil)
		}
		receive := func(c *azservicebus.Client) error {
			r, err := c.NewReceiverForQueue("q", nil)
			w.ok(err)
			_, err = r.ReceiveMessages(w.ctx, 1, nil)
			return err
		}
		w.ok(try(send))
		w.ok(receive(listen))
		for claim, err := range map[string]error{"Listen": receive(send), "Send": try(listen)} {
			w.code(err, azservicebus.CodeUnauthorizedAccess)
			if want := "Unauthorized access. '" + claim +
				"' claim(s) are required to perform this operation"; !strings.Contains(err.Error(), want) {
				t.Errorf("error %v", err)
			}
		}
	})
}

func TestAnEndedTokenIsNamedSo(t *testing.T) {
	inBubble(t, func(w *fixture) {
		// A signature for sb://bus.test that ends, as the bubble's time begins, in
		// the past: made by a client whose connection string holds it.
		c, err := azservicebus.NewClientFromConnectionString("Endpoint=sb://bus.test;SharedAccessSignature="+
			signature("bus.test", time.Now().Add(-time.Minute)), options(w.bus))
		w.ok(err)
		defer func() { _ = c.Close(w.ctx) }()
		s, err := c.NewSender("q", nil)
		w.ok(err)
		err = s.SendMessage(w.ctx, text("x"), nil)
		w.code(err, azservicebus.CodeUnauthorizedAccess)
		if !strings.Contains(err.Error(), "ExpiredToken: The token is expired. Expiration time:") {
			t.Errorf("error %v", err)
		}
	})
}

func TestTheAdministrationWantsTheFullKeyOrAToken(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) {
		cfg.Keys = []servicebus.Key{{Name: "use", Key: "c2VjcmV0", Send: true}}
	}, func(w *fixture) {
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
			if err := w.bus.Authorize(header, "https://bus.test/q"); (err == nil) != ok {
				t.Errorf("%s: %v", header, err)
			}
		}
	})
}

func TestTheWaitForASessionIsBounded(t *testing.T) {
	inBubbleWith(t, func(cfg *servicebus.Config) { cfg.SessionWait = 3 * time.Second }, func(w *fixture) {
		began := time.Now()
		_, err := w.c.AcceptNextSessionForQueue(w.ctx, "s", nil)
		w.code(err, azservicebus.CodeTimeout)
		same(w, "waited", time.Since(began), 3*time.Second)
	})
}

func TestAConnectionOpensCBSOnce(t *testing.T) {
	inBubble(t, func(w *fixture) {
		near, far := net.Pipe()
		go w.bus.ServeConn(far)
		c, err := amqp.NewConn(w.ctx, near, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
		w.ok(err)
		defer func() { _ = c.Close() }()
		open := func() (*amqp.Sender, error) {
			s, err := c.NewSession(w.ctx, nil)
			w.ok(err)
			return s.NewSender(w.ctx, "$cbs", nil)
		}
		first, err := open()
		w.ok(err)
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "has already been opened") {
			t.Errorf("a second link: %v", err)
		}
		w.ok(first.Close(w.ctx))
		_, err = open()
		w.ok(err)
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
