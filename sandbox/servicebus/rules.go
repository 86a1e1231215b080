package servicebus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// Descriptors of what enumerate-rules answers.
const (
	codeRule        uint64 = 0x13700000004
	codeNoAction    uint64 = 0x13700000005
	codeSQLFilter   uint64 = 0x1370000006
	codeTrueFilter  uint64 = 0x1370000007
	codeFalseFilter uint64 = 0x1370000008
	codeCorrelation uint64 = 0x1370000009
)

const (
	defaultRule   = "$Default"
	maxRuleName   = 50
	condExists    = "com.microsoft:entity-already-exists"
	condNotListed = "com.microsoft:rule-not-found"
)

// ruled does an operation on a subscription's rules. Whoever may receive from it may
// change them.
func (c *conn) ruled(do func(*queue, amqp.Map) response) func(*queue, amqp.Map) response {
	return func(q *queue, body amqp.Map) response {
		path := strings.ToLower(q.name)
		switch {
		case !strings.Contains(path, strings.ToLower(subscriptions)) || q.isDead:
			return badRequest("Only a subscription has rules.")
		case !c.allowed(path+"/$management", false, true): // a token may be for the node alone
			return response{code: 401, condition: amqp.UnauthorizedAccess,
				description: "Unauthorized access. 'Listen' claim(s) are required to perform this operation."}
		}
		return do(q, body)
	}
}

// named are the rules as somebody outside sees them.
func (q *queue) named() []broker.Rule {
	if len(q.rules) == 0 {
		return []broker.Rule{{Name: defaultRule}}
	}
	// a subscription without rules lets nothing pass, by a rule without a name
	return slices.DeleteFunc(slices.Clone(q.rules), func(r broker.Rule) bool { return r.Name == "" && r.Filter.None })
}

func (q *queue) setRules(rules []broker.Rule) {
	if len(rules) == 0 {
		rules = []broker.Rule{{Filter: broker.Filter{None: true}}}
	}
	q.rules = rules
}

func sameRule(name string) func(broker.Rule) bool {
	return func(r broker.Rule) bool { return strings.EqualFold(r.Name, name) }
}

func (b *Bus) addRule(q *queue, body amqp.Map) response {
	name, _ := body.Get("rule-name").(string)
	description, ok := body.Get("rule-description").(amqp.Map)
	if name == "" || len(name) > maxRuleName || !ok {
		return badRequest("rule-name or rule-description is missing, or the name is too long.")
	}
	rules := q.named()
	if slices.ContainsFunc(rules, sameRule(name)) {
		return response{code: 409, condition: condExists,
			description: fmt.Sprintf("The messaging entity '%s' already exists.", name)}
	}
	filter, err := ruleFilter(description)
	if err != nil {
		return badRequest(err.Error())
	}
	q.setRules(append(rules, broker.Rule{Name: name, Filter: filter}))
	return success(nil)
}

func ruleFilter(description amqp.Map) (broker.Filter, error) {
	if action, ok := description.Get("sql-rule-action").(amqp.Map); ok && action.Get("expression") != nil {
		return broker.Filter{}, fmt.Errorf("actions are not supported here")
	}
	if sql, ok := description.Get("sql-filter").(amqp.Map); ok {
		text, _ := sql.Get("expression").(string)
		return broker.SQLFilter(text)
	}
	c, ok := description.Get("correlation-filter").(amqp.Map)
	if !ok {
		return broker.Filter{}, fmt.Errorf("the rule has neither a sql-filter nor a correlation-filter")
	}
	text := func(key string) *string {
		s, ok := c.Get(key).(string)
		if !ok {
			return nil
		}
		return &s
	}
	f := broker.Filter{ContentType: text("content-type"), CorrelationID: text("correlation-id"), Subject: text("label"),
		MessageID: text("message-id"), ReplyTo: text("reply-to"), ReplyToSessionID: text("reply-to-session-id"),
		SessionID: text("session-id"), To: text("to"), Properties: map[string]any{}}
	properties, _ := c.Get("properties").(amqp.Map)
	for _, pair := range properties {
		key, ok := pair.Key.(string)
		if !ok {
			return broker.Filter{}, fmt.Errorf("a property is named by a %T", pair.Key)
		}
		f.Properties[key] = pair.Value
	}
	return f, nil
}

func (b *Bus) removeRule(q *queue, body amqp.Map) response {
	name, _ := body.Get("rule-name").(string)
	rules := q.named()
	i := slices.IndexFunc(rules, sameRule(name))
	if i < 0 {
		return response{code: 404, condition: condNotListed,
			description: fmt.Sprintf("The messaging entity '%s' could not be found.", name)}
	}
	q.setRules(slices.Delete(rules, i, i+1))
	return success(nil)
}

func (b *Bus) listRules(q *queue, body amqp.Map) response {
	top, hasTop := body.Get("top").(int32)
	skip, hasSkip := body.Get("skip").(int32)
	isPaged := hasTop && hasSkip && top >= 0 && skip >= 0
	if !isPaged {
		return badRequest("top or skip is missing.")
	}
	rules := q.named()
	rules = rules[min(int(skip), len(rules)):]
	rules = rules[:min(int(top), len(rules))]
	if len(rules) == 0 {
		return noContent()
	}
	var out amqp.List
	for _, r := range rules {
		out = append(out, amqp.Map{{Key: "rule-description", Value: amqp.Described{Descriptor: codeRule,
			Value: amqp.List{describeFilter(r.Filter), amqp.Described{Descriptor: codeNoAction, Value: amqp.List{}},
				r.Name}}}})
	}
	return success(amqp.Map{{Key: "rules", Value: out}})
}

func describeFilter(f broker.Filter) amqp.Described {
	switch {
	case f.None:
		return amqp.Described{Descriptor: codeFalseFilter, Value: amqp.List{}}
	case f.SQL != nil:
		return amqp.Described{Descriptor: codeSQLFilter, Value: amqp.List{f.SQL.String(), int32(20)}}
	}
	parts := []*string{f.CorrelationID, f.MessageID, f.To, f.ReplyTo, f.Subject, f.SessionID, f.ReplyToSessionID,
		f.ContentType}
	isTrue := len(f.Properties) == 0 && !slices.ContainsFunc(parts, func(p *string) bool { return p != nil })
	if isTrue {
		return amqp.Described{Descriptor: codeTrueFilter, Value: amqp.List{}}
	}
	var list amqp.List
	for _, p := range parts {
		if p == nil {
			list = append(list, nil)
			continue
		}
		list = append(list, *p)
	}
	var properties amqp.Map
	for k, v := range f.Properties {
		properties = append(properties, amqp.Pair{Key: k, Value: v})
	}
	slices.SortFunc(properties, func(x, y amqp.Pair) int { return strings.Compare(x.Key.(string), y.Key.(string)) })
	return amqp.Described{Descriptor: codeCorrelation, Value: append(list, properties)}
}
