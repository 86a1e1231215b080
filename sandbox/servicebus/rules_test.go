package servicebus

import (
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// ruleBus has the topic t with the subscription s, and a queue q.
func ruleBus(t *testing.T) (*Bus, *conn) {
	t.Helper()
	b, err := New(Config{Entities: broker.Entities{Queues: []broker.Queue{{Name: "q"}},
		Topics: []broker.Topic{{Name: "t", Subscriptions: []broker.Subscription{{Name: "s"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, &conn{b: b, claims: map[string]claim{"": {until: inAnHour(), listen: true}}}
}

func (b *Bus) ask(c *conn, do func(*queue, amqp.Map) response, entity string, body amqp.Map) response {
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.ruled(do)(b.find(entity), body)
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }

func rule(name, sql string) amqp.Map {
	return amqp.Map{{Key: "rule-name", Value: name}, {Key: "rule-description", Value: amqp.Map{
		{Key: "sql-filter", Value: amqp.Map{{Key: "expression", Value: sql}}}}}}
}

func named(name string) amqp.Map { return amqp.Map{{Key: "rule-name", Value: name}} }

// passing counts what of two messages the subscription lets through.
func passing(t *testing.T, b *Bus) int {
	t.Helper()
	before := b.Counts("t/Subscriptions/s").Active
	for _, subject := range []string{"red", "blue"} {
		err := b.Send("t", Message{Subject: subject, Properties: map[string]any{"colour": subject, "n": 7}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Counts("t/Subscriptions/s").Active - before
}

func TestRulesOfASubscriptionAreManagedByWhoReceivesFromIt(t *testing.T) {
	t.Parallel()
	const sub = "t/Subscriptions/s"
	b, c := ruleBus(t)
	correlation := amqp.Map{{Key: "rule-name", Value: "c"}, {Key: "rule-description", Value: amqp.Map{
		{Key: "correlation-filter", Value: amqp.Map{{Key: "label", Value: "blue"}, {Key: "to", Value: nil},
			{Key: "properties", Value: amqp.Map{{Key: "n", Value: int32(7)}}}}}}}}
	for _, step := range []struct {
		what    string
		do      func(*queue, amqp.Map) response
		body    amqp.Map
		code    int32
		passing int
	}{
		{"a first rule beside the default one", b.addRule, rule("mine", "colour = 'red'"), 200, 2},
		{"the default one goes", b.removeRule, named("$default"), 200, 1},
		{"the same name again", b.addRule, rule("MINE", "1=1"), 409, 1},
		{"no SQL", b.addRule, rule("bad", "colour +"), 400, 1},
		{"a correlation filter", b.addRule, correlation, 200, 2},
		{"the first one goes", b.removeRule, named("mine"), 200, 1},
		{"it goes again", b.removeRule, named("mine"), 404, 1},
		{"the last one goes", b.removeRule, named("c"), 200, 0},
		{"one that lets nothing pass", b.addRule, rule("none", "1=0"), 200, 0},
		{"one that lets all pass", b.addRule, rule("$Default", "1=1"), 200, 2},
	} {
		if r := b.ask(c, step.do, sub, step.body); r.code != step.code {
			t.Errorf("%s: code %d (%s), want %d", step.what, r.code, r.description, step.code)
		}
		if got := passing(t, b); got != step.passing {
			t.Errorf("%s: %d of 2 messages pass, want %d", step.what, got, step.passing)
		}
	}
}

func TestRulesAreListedByTheirKind(t *testing.T) {
	t.Parallel()
	const sub = "t/Subscriptions/s"
	b, c := ruleBus(t)
	page := amqp.Map{{Key: "top", Value: int32(100)}, {Key: "skip", Value: int32(0)}}
	for _, body := range []amqp.Map{rule("sql", "colour = 'red'"), rule("none", "1=0")} {
		if r := b.ask(c, b.addRule, sub, body); r.code != 200 {
			t.Fatalf("adding: %d %s", r.code, r.description)
		}
	}
	r := b.ask(c, b.listRules, sub, page)
	list, ok := r.body.Get("rules").(amqp.List)
	if r.code != 200 || !ok || len(list) != 3 {
		t.Fatalf("code %d with %d rules, want 200 with 3", r.code, len(list))
	}
	for i, want := range []struct {
		name   string
		filter uint64
	}{{defaultRule, codeTrueFilter}, {"sql", codeSQLFilter}, {"none", codeFalseFilter}} {
		described := list[i].(amqp.Map).Get("rule-description").(amqp.Described)
		parts := described.Value.(amqp.List)
		if described.Descriptor != codeRule || parts[2] != want.name {
			t.Errorf("rule %d: descriptor %v, name %v; want %d and %q", i, described.Descriptor, parts[2], codeRule,
				want.name)
		}
		if got := parts[0].(amqp.Described).Descriptor; got != want.filter {
			t.Errorf("rule %s: filter of kind %v, want %v", want.name, got, want.filter)
		}
	}
	for _, name := range []string{defaultRule, "sql", "none"} {
		b.ask(c, b.removeRule, sub, named(name))
	}
	if r := b.ask(c, b.listRules, sub, page); r.code != 204 {
		t.Errorf("without a rule: code %d, want 204", r.code)
	}
}

func TestRulesAreRefusedToOthers(t *testing.T) {
	t.Parallel()
	b, c := ruleBus(t)
	if r := b.ask(c, b.addRule, "q", rule("r", "1=1")); r.code != 400 {
		t.Errorf("rules of a queue: code %d, want 400", r.code)
	}
	sender := &conn{b: b, claims: map[string]claim{"": {until: inAnHour(), send: true}}}
	if r := b.ask(sender, b.addRule, "t/Subscriptions/s", rule("r", "1=1")); r.code != 401 {
		t.Errorf("rules by a sender: code %d, want 401", r.code)
	}
}
