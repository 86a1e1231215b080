package atom_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/tests/conformance/servicebus/atom"
)

func ptr[T any](v T) *T { return &v }

// direct calls a handler without a socket.
type direct struct{ handler http.Handler }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

type credential string

func (c credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

type fixture struct {
	t   *testing.T
	ctx context.Context
	bus *servicebus.Bus
	h   *atom.Handler
	c   *admin.Client
}

func start(t *testing.T) *fixture {
	t.Helper()
	b, err := servicebus.New(servicebus.Config{KeyName: "root", Key: "c2VjcmV0",
		VerifyJWT: func(token, _ string) error {
			if token != "good" {
				return errors.New("bad token")
			}
			return nil
		}})
	f := &fixture{t: t, ctx: t.Context(), bus: b}
	f.ok(err)
	t.Cleanup(b.Close)
	f.h = atom.New(b)
	f.c = f.client("good")
	return f
}

func (f *fixture) client(token string) *admin.Client {
	f.t.Helper()
	c, err := admin.NewClient("bus.test", credential(token), &admin.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: direct{f.h}, Retry: policy.RetryOptions{MaxRetries: -1},
	}})
	f.ok(err)
	return c
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) status(err error, want int) {
	f.t.Helper()
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != want {
		f.t.Fatalf("error %v, want status %d", err, want)
	}
}

func (f *fixture) queue(name string, p *admin.QueueProperties) error {
	_, err := f.c.CreateQueue(f.ctx, name, &admin.CreateQueueOptions{Properties: p})
	return err
}

func TestAQueueIsMadeReadChangedAndDeleted(t *testing.T) {
	f := start(t)
	made, err := f.c.CreateQueue(f.ctx, "q", &admin.CreateQueueOptions{Properties: &admin.QueueProperties{
		LockDuration: ptr("PT5S"), RequiresSession: ptr(true), UserMetadata: ptr("a < b"),
	}})
	f.ok(err)
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"lock", *made.LockDuration, "PT5S"}, {"sessions", *made.RequiresSession, true},
		{"deliveries", *made.MaxDeliveryCount, int32(10)}, {"metadata", *made.UserMetadata, "a < b"},
		{"status", *made.Status, admin.EntityStatusActive},
	} {
		if c.got != c.want {
			t.Errorf("%s of the new queue: %v, want %v", c.what, c.got, c.want)
		}
	}
	f.ok(f.bus.Send("q", servicebus.Message{SessionID: "s", Body: []byte("x")}))
	f.ok(f.bus.Send("q", servicebus.Message{SessionID: "s", Scheduled: time.Now().Add(time.Hour)}))
	run, err := f.c.GetQueueRuntimeProperties(f.ctx, "Q", nil)
	f.ok(err)
	counts := fmt.Sprint(run.TotalMessageCount, run.ActiveMessageCount, run.ScheduledMessageCount)
	if counts != "2 1 1" {
		t.Errorf("messages, active and scheduled ones: %s, want 2 1 1", counts)
	}
	if run.SizeInBytes <= 0 {
		t.Errorf("size %d, want more than nothing", run.SizeInBytes)
	}
	if run.CreatedAt.IsZero() || run.AccessedAt.Before(run.CreatedAt) {
		t.Errorf("created %s, accessed %s", run.CreatedAt, run.AccessedAt)
	}
	changed, err := f.c.UpdateQueue(f.ctx, "q", admin.QueueProperties{RequiresSession: ptr(true),
		MaxDeliveryCount: ptr(int32(3))}, nil)
	f.ok(err)
	if *changed.LockDuration != "PT1M" || *changed.MaxDeliveryCount != 3 {
		t.Errorf("changed: %+v", changed.QueueProperties)
	}
	f.status(f.queue("Q", nil), http.StatusConflict)
	_, err = f.c.DeleteQueue(f.ctx, "q", nil)
	f.ok(err)
	if got, err := f.c.GetQueue(f.ctx, "q", nil); got != nil || err != nil {
		t.Errorf("after its deletion: %v, %v", got, err)
	}
	_, err = f.c.DeleteQueue(f.ctx, "q", nil)
	f.status(err, http.StatusNotFound)
	_, err = f.c.UpdateQueue(f.ctx, "q", admin.QueueProperties{}, nil)
	f.status(err, http.StatusNotFound)
	if err := f.bus.Send("q", servicebus.Message{}); err == nil {
		t.Error("the bus still has the queue")
	}
}

func TestOnlyAnswersToCreationsShowThatNobodyUsedTheEntity(t *testing.T) {
	f := start(t)
	f.ok(f.queue("q", nil))
	run, err := f.c.GetQueueRuntimeProperties(f.ctx, "q", nil)
	f.ok(err)
	if !run.AccessedAt.Equal(run.CreatedAt) {
		t.Errorf("accessed %v, created %v", run.AccessedAt, run.CreatedAt)
	}
	resp := f.raw(http.MethodPut, "/other?api-version=2024-05", entry("QueueDescription", ""))
	if !strings.Contains(resp, "<AccessedAt>0001-01-01T00:00:00</AccessedAt>") {
		t.Errorf("answer %s", resp)
	}
}

func TestATopicHasSubscriptionsAndRules(t *testing.T) {
	f := start(t)
	_, err := f.c.CreateTopic(f.ctx, "t", nil)
	f.ok(err)
	_, err = f.c.CreateSubscription(f.ctx, "t", "all", nil)
	f.ok(err)
	_, err = f.c.CreateSubscription(f.ctx, "t", "red",
		&admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{
			DefaultRule: &admin.RuleProperties{Name: "first", Filter: &admin.CorrelationFilter{
				Subject: ptr("red"), ApplicationProperties: map[string]any{"n": int64(1), "s": "x", "f": 0.5,
					"b": true},
			}},
		}})
	f.ok(err)
	send := func(subject string, n int64) {
		f.ok(f.bus.Send("t", servicebus.Message{Subject: subject, Properties: map[string]any{"n": n, "s": "x", "f": 0.5,
			"b": true}}))
	}
	count := func(sub string) int { return f.bus.Counts("t/Subscriptions/" + sub).Active }
	send("red", 1)
	send("red", 2)
	send("blue", 1)
	if count("all") != 3 || count("red") != 1 {
		t.Errorf("all has %d, red %d", count("all"), count("red"))
	}
	rule, err := f.c.GetRule(f.ctx, "t", "red", "first", nil)
	f.ok(err)
	filter, ok := rule.Filter.(*admin.CorrelationFilter)
	if !ok {
		t.Fatalf("the filter is a %T, want a correlation filter", rule.Filter)
	}
	if *filter.Subject != "red" {
		t.Errorf("the filter's subject is %q, want red", *filter.Subject)
	}
	if n := filter.ApplicationProperties["n"]; n != int64(1) {
		t.Errorf("the filter's property n is %v, want 1", n)
	}
	_, err = f.c.CreateRule(f.ctx, "t", "red", &admin.CreateRuleOptions{Name: ptr("blue"),
		Filter: &admin.CorrelationFilter{Subject: ptr("blue")}})
	f.ok(err)
	_, err = f.c.CreateRule(f.ctx, "t", "red", &admin.CreateRuleOptions{Name: ptr("blue")})
	f.status(err, http.StatusConflict)
	send("blue", 9)
	if count("red") != 2 {
		t.Errorf("with a second rule, red has %d", count("red"))
	}
	_, err = f.c.UpdateRule(f.ctx, "t", "red", admin.RuleProperties{Name: "blue", Filter: &admin.FalseFilter{}})
	f.ok(err)
	send("blue", 9)
	_, err = f.c.DeleteRule(f.ctx, "t", "all", "$Default", nil)
	f.ok(err)
	send("red", 1)
	if count("red") != 3 || count("all") != 5 {
		t.Errorf("in the end, all has %d, red %d", count("all"), count("red"))
	}
	run, err := f.c.GetTopicRuntimeProperties(f.ctx, "t", nil)
	f.ok(err)
	if run.SubscriptionCount != 2 || run.SQLFilterCount != 1 || run.CorrelationFilterCount != 1 {
		t.Errorf("topic %+v", run.TopicRuntimeProperties)
	}
	_, err = f.c.DeleteRule(f.ctx, "t", "red", "absent", nil)
	f.status(err, http.StatusNotFound)
	_, err = f.c.CreateRule(f.ctx, "t", "absent", &admin.CreateRuleOptions{Name: ptr("r")})
	f.status(err, http.StatusNotFound)
	if got, err := f.c.GetRule(f.ctx, "t", "red", "absent", nil); got != nil || err != nil {
		t.Errorf("a rule that is not there: %v, %v", got, err)
	}
	_, err = f.c.DeleteTopic(f.ctx, "t", nil)
	f.ok(err)
	if got, err := f.c.GetSubscription(f.ctx, "t", "all", nil); got != nil || err != nil {
		t.Errorf("a subscription of a deleted topic: %v, %v", got, err)
	}
}

func TestListsComeInPages(t *testing.T) {
	f := start(t)
	for i := range 5 {
		f.ok(f.queue(fmt.Sprintf("q%d", i), nil))
	}
	var names []string
	pages := 0
	for pager := f.c.NewListQueuesPager(&admin.ListQueuesOptions{MaxPageSize: 2}); pager.More(); pages++ {
		page, err := pager.NextPage(f.ctx)
		f.ok(err)
		for _, q := range page.Queues {
			names = append(names, q.QueueName)
		}
	}
	if got := strings.Join(names, " "); got != "q0 q1 q2 q3 q4" || pages != 3 {
		t.Errorf("%s in %d pages", got, pages)
	}
	_, err := f.c.CreateTopic(f.ctx, "t", nil)
	f.ok(err)
	for _, name := range []string{"b", "a"} {
		_, err = f.c.CreateSubscription(f.ctx, "t", name, nil)
		f.ok(err)
	}
	topics, err := f.c.NewListTopicsPager(nil).NextPage(f.ctx)
	f.ok(err)
	subs, err := f.c.NewListSubscriptionsPager("t", nil).NextPage(f.ctx)
	f.ok(err)
	rules, err := f.c.NewListRulesPager("t", "a", nil).NextPage(f.ctx)
	f.ok(err)
	if n := len(topics.Topics); n != 1 {
		t.Errorf("%d topics, want one", n)
	}
	names = nil
	for _, s := range subs.Subscriptions {
		names = append(names, s.SubscriptionName)
	}
	if got := strings.Join(names, " "); got != "a b" {
		t.Errorf("subscriptions %s, want a b", got)
	}
	if len(rules.Rules) != 1 || rules.Rules[0].Name != "$Default" {
		t.Errorf("rules %+v, want $Default alone", rules.Rules)
	}
	ns, err := f.c.GetNamespaceProperties(f.ctx, nil)
	f.ok(err)
	if ns.SKU != "Standard" {
		t.Errorf("namespace %+v", ns)
	}
}

func TestForwardingNamesAnEntityByItsAddress(t *testing.T) {
	f := start(t)
	f.ok(f.queue("to", nil))
	f.ok(f.queue("from", &admin.QueueProperties{ForwardTo: ptr("https://bus.test/to")}))
	f.ok(f.bus.Send("from", servicebus.Message{Body: []byte("x")}))
	if n := f.bus.Counts("to").Active; n != 1 {
		t.Errorf("%d messages were forwarded", n)
	}
	f.status(f.queue("lost", &admin.QueueProperties{ForwardTo: ptr("https://bus.test/absent")}), http.StatusBadRequest)
}

func TestWhoHasNoRightIsRefused(t *testing.T) {
	f := start(t)
	_, err := f.client("bad").CreateQueue(f.ctx, "q", nil)
	f.status(err, http.StatusUnauthorized)
	for key, ok := range map[string]bool{"c2VjcmV0": true, "d3Jvbmc=": false} {
		options := azcore.ClientOptions{Transport: direct{f.h}, Retry: policy.RetryOptions{MaxRetries: -1}}
		c, err := admin.NewClientFromConnectionString(
			"Endpoint=sb://bus.test;SharedAccessKeyName=root;SharedAccessKey="+key,
			&admin.ClientOptions{ClientOptions: options})
		f.ok(err)
		_, err = c.CreateQueue(f.ctx, "q", nil)
		if (err == nil) != ok {
			t.Errorf("by key %s: %v", key, err)
		}
	}
}

func entry(element, inner string) string {
	return `<entry xmlns="http://www.w3.org/2005/Atom"><content type="application/xml"><` + element +
		` xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"` +
		` xmlns:i="http://www.w3.org/2001/XMLSchema-instance">` +
		inner + `</` + element + `></content></entry>`
}

// raw is a request as the client would not send it.
func (f *fixture) raw(method, target, body string) string {
	f.t.Helper()
	r := httptest.NewRequest(method, "https://bus.test"+target, strings.NewReader(body))
	r.Header.Set("Authorization", "good")
	resp, err := direct{f.h}.Do(r)
	f.ok(err)
	text, err := io.ReadAll(resp.Body)
	f.ok(err)
	return fmt.Sprintf("%d %s", resp.StatusCode, text)
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	f := start(t)
	_, err := f.c.CreateTopic(f.ctx, "t", nil)
	f.ok(err)
	_, err = f.c.CreateSubscription(f.ctx, "t", "s", nil)
	f.ok(err)
	const v = "?api-version=2024-05"
	rule := func(inner string) string { return entry("RuleDescription", inner+"<Name>r</Name>") }
	property := func(value string) string {
		return rule(`<Filter i:type="CorrelationFilter"><Properties><KeyValueOfstringanyType><Key>k</Key>` + value +
			`</KeyValueOfstringanyType></Properties></Filter>`)
	}
	for name, tc := range map[string]struct {
		method, target, body, want string
	}{
		"no version":       {"GET", "/t", "", "400"},
		"no XML":           {"PUT", "/q" + v, "{", "400"},
		"unknown kind":     {"PUT", "/q" + v, entry("RelayDescription", ""), "400"},
		"unknown property": {"PUT", "/q" + v, entry("QueueDescription", "<Colour>red</Colour>"), "400"},
		"topic's property": {"PUT", "/q" + v,
			entry("QueueDescription", "<EnableSubscriptionPartitioning>true</EnableSubscriptionPartitioning>"), "400"},
		"no duration": {"PUT", "/q" + v, entry("QueueDescription", "<LockDuration>1m</LockDuration>"),
			"400"},
		"too long a lock": {"PUT", "/q" + v, entry("QueueDescription", "<LockDuration>PT6M</LockDuration>"),
			"400"},
		"no truth": {"PUT", "/q" + v,
			entry("QueueDescription", "<RequiresSession>yes</RequiresSession>"), "400"},
		"too many tries": {"PUT", "/q" + v,
			entry("QueueDescription", "<MaxDeliveryCount>2001</MaxDeliveryCount>"), "400"},
		"subscription as a queue": {"PUT", "/q" + v, entry("SubscriptionDescription", ""), "400"},
		"queue as a subscription": {"PUT", "/t/Subscriptions/x" + v, entry("QueueDescription", ""), "400"},
		"subscription of nothing": {"PUT", "/x/Subscriptions/x" + v, entry("SubscriptionDescription", ""), "404"},
		"method of an entity":     {"POST", "/t" + v, "", "405"},
		"method of a rule":        {"POST", "/t/Subscriptions/s/Rules/r" + v, "", "405"},
		"path of a rule":          {"GET", "/t/Subscriptions/s/Colours/r" + v, "", "400"},
		"resources":               {"GET", "/$Resources/relays" + v, "", "400"},
		"page":                    {"GET", "/$Resources/queues" + v + "&$top=x", "", "400"},
		"page of rules":           {"GET", "/t/Subscriptions/s/Rules" + v + "&$skip=-1", "", "400"},
		"rule that is a queue":    {"PUT", "/t/Subscriptions/s/Rules/r" + v, entry("QueueDescription", ""), "400"},
		"rule without a filter":   {"PUT", "/t/Subscriptions/s/Rules/r" + v, rule(""), "400"},
		"unknown filter": {"PUT", "/t/Subscriptions/s/Rules/r" + v, rule(`<Filter i:type="MoonFilter"/>`),
			"400"},
		"SQL": {"PUT", "/t/Subscriptions/s/Rules/r" + v,
			rule(`<Filter i:type="SqlFilter"><SqlExpression>a=1</SqlExpression></Filter>`), "400"},
		"action": {"PUT", "/t/Subscriptions/s/Rules/r" + v,
			rule(`<Filter i:type="TrueFilter"/><Action i:type="SqlRuleAction"/>`), "400"},
		"known SQL": {"PUT", "/t/Subscriptions/s/Rules/known" + v,
			rule(`<Filter i:type="SqlFilter"><SqlExpression>1 = 0</SqlExpression></Filter>`), "201"},
		"property of a type": {"PUT", "/t/Subscriptions/s/Rules/r" + v,
			property(`<Value i:type="l:int">x</Value>`), "400"},
		"property without a type": {"PUT", "/t/Subscriptions/s/Rules/r" + v,
			property(`<Value>x</Value>`), "400"},
	} {
		if got := f.raw(tc.method, tc.target, tc.body); !strings.HasPrefix(got, tc.want+" ") {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func FuzzTheHandlerStands(f *testing.F) {
	f.Add("PUT", "/q", entry("QueueDescription", "<LockDuration>PT1M</LockDuration>"))
	f.Add("PUT", "/t/Subscriptions/s/Rules/r",
		entry("RuleDescription", `<Filter i:type="CorrelationFilter"><Label>x</Label></Filter>`))
	f.Add("GET", "/$Resources/queues", "")
	f.Fuzz(func(t *testing.T, method, path, body string) {
		b, err := servicebus.New(servicebus.Config{VerifyJWT: func(string, string) error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		h := atom.New(b)
		for _, p := range []string{"/t", "/t/Subscriptions/s", path} {
			r := httptest.NewRequest(http.MethodPut, "https://bus.test/x?api-version=1", strings.NewReader(body))
			r.URL.Path = p
			if p == path {
				r.Method = method
			} else if p == "/t" {
				r.Body = io.NopCloser(strings.NewReader(entry("TopicDescription", "")))
			} else {
				r.Body = io.NopCloser(strings.NewReader(entry("SubscriptionDescription", "")))
			}
			r.Header.Set("Authorization", "good")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code < 200 || w.Code >= 500 {
				t.Fatalf("%s %q: status %d", r.Method, p, w.Code)
			}
		}
	})
}
