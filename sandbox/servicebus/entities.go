package servicebus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// ErrNotFound is wrapped where an entity is asked for that does not exist.
var ErrNotFound = errors.New("the entity does not exist")

// ErrExists is wrapped where an entity is created a second time.
var ErrExists = errors.New("the entity exists already")

const subscriptions = "/Subscriptions/"

// Create adds queues and topics, all or none.
func (b *Bus) Create(entities broker.Entities) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var made []*queue
	var errs []error
	add := func(name string, p broker.Properties, topic bool) *queue {
		q, err := b.add(name, p, topic)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		made = append(made, q)
		return q
	}
	for _, q := range entities.Queues {
		add(q.Name, q.Properties, false)
	}
	for _, t := range entities.Topics {
		topic := add(t.Name, t.Properties, true)
		for _, s := range t.Subscriptions {
			if sub := add(t.Name+subscriptions+s.Name, s.Properties, false); sub != nil && topic != nil {
				sub.rules = s.Rules
				topic.subs = append(topic.subs, sub)
			}
		}
	}
	for _, q := range made {
		errs = append(errs, b.checkForwards(q.name, q.props))
	}
	if err := errors.Join(errs...); err != nil {
		for _, q := range made {
			b.forget(q)
		}
		return err
	}
	return nil
}

// CreateSubscription adds a subscription to a topic that is there.
func (b *Bus) CreateSubscription(topic string, s broker.Subscription) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.find(topic)
	if t == nil || !t.topic {
		return fmt.Errorf("topic %q: %w", topic, ErrNotFound)
	}
	name := t.name + subscriptions + s.Name
	if err := b.checkForwards(name, s.Properties); err != nil {
		return err
	}
	sub, err := b.add(name, s.Properties, false)
	if err != nil {
		return err
	}
	sub.rules = s.Rules
	t.subs = append(t.subs, sub)
	return nil
}

// Update replaces an entity's properties, and detaches who uses it, as the
// service does.
func (b *Bus) Update(entity string, p broker.Properties) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.find(entity)
	if q == nil || q.isDead {
		return fmt.Errorf("entity %q: %w", entity, ErrNotFound)
	}
	p, err := p.Complete()
	if err != nil {
		return fmt.Errorf("entity %q: %w", q.name, err)
	}
	if err := b.checkForwards(q.name, p); err != nil {
		return err
	}
	if p.RequiresSession != q.props.RequiresSession || p.Partitioned != q.props.Partitioned ||
		p.RequiresDuplicateDetection != q.props.RequiresDuplicateDetection {
		return fmt.Errorf("entity %q: sessions, partitions and duplicate detection can be chosen at creation only",
			entity)
	}
	q.props = p
	b.detach(q, amqp.Errorf(amqp.DetachForced,
		"The link '%s' is force detached. Code: RenewToken. Details: the entity was updated.", q.name))
	return nil
}

// SetRules replaces a subscription's rules. Without a rule nothing passes.
func (b *Bus) SetRules(topic, subscription string, rules []broker.Rule) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.find(topic + subscriptions + subscription)
	if q == nil || q.isDead {
		return fmt.Errorf("subscription %q of %q: %w", subscription, topic, ErrNotFound)
	}
	if len(rules) == 0 {
		rules = []broker.Rule{{Filter: broker.Filter{None: true}}}
	}
	q.rules = slices.Clone(rules)
	return nil
}

// Delete takes an entity away with its messages, a topic with its subscriptions;
// links to it are detached.
func (b *Bus) Delete(entity string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.find(entity)
	if q == nil || q.isDead {
		return fmt.Errorf("entity %q: %w", entity, ErrNotFound)
	}
	for _, s := range slices.Clone(q.subs) {
		b.forget(s)
	}
	b.forget(q)
	for _, t := range b.entities {
		t.subs = slices.DeleteFunc(t.subs, func(s *queue) bool { return s == q })
	}
	return nil
}

// Size is the length of all messages of an entity, its dead letters with them.
func (b *Bus) Size(entity string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n int64
	if q := b.find(entity); q != nil {
		for _, e := range q.entries {
			n += int64(len(e.wire()))
		}
		if q.dead != nil {
			for _, e := range q.dead.entries {
				n += int64(len(e.wire()))
			}
		}
	}
	return n
}

// Accessed is when somebody last sent to an entity or opened a link to it; zero:
// never.
func (b *Bus) Accessed(entity string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.find(entity); q != nil {
		return q.accessed
	}
	return time.Time{}
}

// add makes one entity. The caller holds mu.
func (b *Bus) add(name string, p broker.Properties, topic bool) (*queue, error) {
	key := strings.ToLower(name)
	if name == "" || strings.Contains(key, "$") {
		return nil, fmt.Errorf("entity %q: the name is not allowed", name)
	}
	if b.entities[key] != nil {
		return nil, fmt.Errorf("entity %q: %w", name, ErrExists)
	}
	p, err := p.Complete()
	if err != nil {
		return nil, fmt.Errorf("entity %q: %w", name, err)
	}
	q := newQueue(name, p)
	q.topic = topic
	b.entities[key] = q
	if !topic {
		// nothing expires there
		dead := broker.Properties{LockDuration: p.LockDuration, MaxDeliveryCount: p.MaxDeliveryCount}
		q.dead = newQueue(name+"/"+deadLetterQueue, dead)
		q.dead.isDead = true
		b.entities[strings.ToLower(q.dead.name)] = q.dead
	}
	return q, nil
}

func (b *Bus) checkForwards(name string, p broker.Properties) error {
	for _, to := range []string{p.ForwardTo, p.ForwardDeadLetteredMessagesTo} {
		if to != "" && b.find(to) == nil {
			return fmt.Errorf("entity %q: forwards to %q, which does not exist", name, to)
		}
	}
	return nil
}

// forget takes one entity away. The caller holds mu.
func (b *Bus) forget(q *queue) {
	gone := amqp.Errorf(amqp.NotFound, "The messaging entity '%s' could not be found.", q.name)
	for _, one := range []*queue{q, q.dead} {
		if one == nil {
			continue
		}
		delete(b.entities, strings.ToLower(one.name))
		b.detach(one, gone)
		for _, e := range one.entries {
			e.timer.stop()
		}
		one.entries = nil
		clear(one.locks)
	}
}

// detach ends every link to an entity. The caller holds mu.
func (b *Bus) detach(q *queue, why *amqp.Error) {
	// A link that goes must not leave its messages to one that goes next.
	for _, c := range q.consumers {
		c.credit = 0
	}
	for _, w := range q.waiters {
		w.timer.stop()
	}
	q.waiters = nil
	for c := range b.conns {
		for _, s := range c.sessions {
			for _, l := range s.links {
				if l.q == q && !l.detached {
					l.leave()
					l.end(why)
				}
			}
		}
	}
}
