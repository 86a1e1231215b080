// Package servicebus is an Azure Service Bus that lives in a Go program: queues, topics
// and subscriptions behind AMQP 1.0, as azservicebus uses them.
//
// It knows nothing of who sends and what the messages mean.
package servicebus

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// Config of a Bus.
type Config struct {
	Entities broker.Entities
	// KeyName and Key are the shared access key; without them no connection
	// string opens the bus.
	KeyName, Key string
	// Keys are further shared access keys, which allow less.
	Keys []Key
	// VerifyJWT checks an Entra ID token; nil refuses every one.
	VerifyJWT func(token, audience string) error
	// Rights says what the bearer of a token that VerifyJWT has accepted may do with an
	// entity, by its path in lower case. It is asked once for each token. nil: everything.
	Rights   func(token string) func(entity string) (send, listen bool)
	Injector *faults.Injector
	// SessionWait bounds how long an accept of the next session waits; default
	// 65 seconds.
	SessionWait time.Duration
	// OnSend is called with each accepted message that is no duplicate, before
	// its sender has the answer.
	OnSend func(entity string, m Message)
}

// Key is a shared access key that allows to send, to listen, or both.
type Key struct {
	Name, Key    string
	Send, Listen bool
	// Rights, where it is given, says it for each entity, in place of the above.
	Rights func(entity string) (send, listen bool)
}

// Message is a message as OnSend and Peek show it, and as Send takes it.
type Message struct {
	Entity, ID, SessionID, Subject, ContentType string

	Body                []byte
	Properties          map[string]any
	Scheduled, Enqueued time.Time
	Sequence            int64
	DeliveryCount       int
}

// Counts of an entity's messages. Active ones may be locked.
type Counts struct{ Active, Scheduled, Deferred, DeadLetter int }

// Limits of the service.
const (
	maxMessageSize  = 262144
	maxHops         = 4
	maxID           = 128
	sessionWait     = 65 * time.Second
	deadLetterQueue = "$DeadLetterQueue"
)

// Error conditions of Service Bus.
const (
	condLockLost        amqp.Symbol = "com.microsoft:message-lock-lost"
	condSessionLockLost amqp.Symbol = "com.microsoft:session-lock-lost"
	condSessionHeld     amqp.Symbol = "com.microsoft:session-cannot-be-locked"
	condTimeout         amqp.Symbol = "com.microsoft:timeout"
	condBusy            amqp.Symbol = "com.microsoft:server-busy"
	condDeadLetter      amqp.Symbol = "com.microsoft:dead-letter"
)

// Bus is one namespace. mu guards everything below it, and the state of all
// connections; nothing blocks while it is held.
type Bus struct {
	cfg Config
	wg  sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	entities  map[string]*queue // by path in lower case
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	timers    map[*timer]struct{}
}

// New makes a bus.
func New(cfg Config) (*Bus, error) {
	if cfg.SessionWait == 0 {
		cfg.SessionWait = sessionWait
	}
	b := &Bus{
		cfg: cfg, entities: map[string]*queue{}, conns: map[*conn]struct{}{},
		listeners: map[net.Listener]struct{}{}, timers: map[*timer]struct{}{},
	}
	if err := b.Create(cfg.Entities); err != nil {
		return nil, err
	}
	return b, nil
}

// Close ends all connections, listeners and timers, and waits for them. OnSend
// must not call it.
func (b *Bus) Close() {
	b.mu.Lock()
	b.closed = true
	for t := range b.timers {
		t.t.Stop()
	}
	clear(b.timers)
	for l := range b.listeners {
		_ = l.Close()
	}
	for c := range b.conns {
		c.drop()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

// timer is a time.Timer that Close stops.
type timer struct {
	b *Bus
	t *time.Timer
}

// after calls f, with mu free, unless the timer is stopped. The caller holds mu.
func (b *Bus) after(d time.Duration, f func()) *timer {
	t := &timer{b: b}
	if b.closed {
		return t
	}
	b.timers[t] = struct{}{}
	t.t = time.AfterFunc(d, func() {
		b.mu.Lock()
		_, live := b.timers[t]
		delete(b.timers, t)
		b.mu.Unlock()
		if live {
			f()
		}
	})
	return t
}

func (t *timer) stop() {
	if t != nil && t.t != nil {
		t.t.Stop()
		delete(t.b.timers, t)
	}
}

func (b *Bus) find(path string) *queue {
	return b.entities[strings.ToLower(strings.Trim(path, "/"))]
}

// queue is a queue, a subscription, a dead letter queue, or (holding scheduled
// messages only) a topic.
type queue struct {
	name      string
	props     broker.Properties
	topic     bool
	isDead    bool
	dead      *queue
	subs      []*queue
	rules     []broker.Rule
	accessed  time.Time
	seq       int64
	entries   []*entry // by sequence number
	locks     map[amqp.UUID]*entry
	seen      map[string]time.Time
	consumers []*consumer
	waiters   []*waiter
	groups    map[string]*group
}

func newQueue(name string, p broker.Properties) *queue {
	return &queue{name: name, props: p, locks: map[amqp.UUID]*entry{}, seen: map[string]time.Time{},
		groups: map[string]*group{}}
}

// Message states on the wire.
const (
	stateActive    int32 = 0
	stateDeferred  int32 = 1
	stateScheduled int32 = 2
)

// entry is a message in a queue.
type entry struct {
	q         *queue
	m         *amqp.Message
	seq       int64
	topicSeq  int64
	enqueued  time.Time
	scheduled time.Time
	expires   time.Time // zero: never
	state     int32
	count     uint32
	hops      int
	id, group string

	locked bool
	token  amqp.UUID
	until  time.Time
	holder *group
	timer  *timer // of the lock, or of the schedule
}

// consumer is a receiving link.
type consumer struct {
	q           *queue
	credit      uint32
	destructive bool
	group       *group
	deliver     func(*entry)
	lost        func(*amqp.Error)
}

// waiter is an attach that waits for the next session.
type waiter struct {
	grant func(*group)
	timer *timer
}

// group is a session of messages.
type group struct {
	id      string
	q       *queue
	state   []byte
	touched time.Time
	holder  *consumer
	until   time.Time
	timer   *timer
}

func (q *queue) group(id string) *group {
	g := q.groups[id]
	if g == nil {
		g = &group{id: id, q: q}
		q.groups[id] = g
	}
	return g
}

func idText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte:
		return string(v)
	case amqp.UUID:
		return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
	}
	return fmt.Sprint(v)
}

func groupOf(m *amqp.Message) string {
	if m.Properties.GroupID == nil {
		return ""
	}
	return *m.Properties.GroupID
}

// accept stores messages, all or none. It returns their sequence numbers (0: a
// dropped duplicate) and the messages for OnSend.
func (b *Bus) accept(q *queue, ms []*amqp.Message) ([]int64, []Message, *amqp.Error) {
	if q.isDead || strings.Contains(strings.ToLower(q.name), "/subscriptions/") {
		return nil, nil, amqp.Errorf(amqp.NotAllowed, "Messages cannot be sent to %s.", q.name)
	}
	for _, m := range ms {
		if q.props.RequiresSession && m.Properties.GroupID == nil {
			return nil, nil, amqp.Errorf(amqp.NotAllowed,
				"The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have "+
					"session support enabled can only receive messages that have the SessionId set to a valid value.")
		}
		if len(groupOf(m)) > maxID || len(idText(m.Properties.MessageID)) > maxID {
			return nil, nil, amqp.Errorf(amqp.InvalidField, "A message or session id is longer than %d characters.",
				maxID)
		}
		if q.props.RequiresDuplicateDetection && idText(m.Properties.MessageID) == "" {
			return nil, nil, amqp.Errorf(amqp.NotAllowed,
				"The message id must be set for an entity that requires duplicate detection.")
		}
	}
	now := time.Now()
	q.accessed = now
	seqs := make([]int64, len(ms))
	var accepted []Message
	for i, m := range ms {
		if q.props.Partitioned && m.Properties.MessageID == nil {
			m.Properties.MessageID = strings.ToLower(rand.Text())
			m.SetProperties(m.Properties)
		}
		id := idText(m.Properties.MessageID)
		if q.props.RequiresDuplicateDetection {
			for k, at := range q.seen {
				if now.Sub(at) >= q.props.DuplicateDetectionHistoryTimeWindow {
					delete(q.seen, k)
				}
			}
			if _, dup := q.seen[id]; dup {
				continue
			}
			q.seen[id] = now
		}
		e := &entry{m: clean(m), id: id, group: groupOf(m)}
		if at, ok := m.Annotations.Get("x-opt-scheduled-enqueue-time").(time.Time); ok {
			e.scheduled = at
			if at.After(now) {
				e.state = stateScheduled
			}
		}
		b.insert(q, e)
		if e.state == stateScheduled {
			e.timer = b.after(e.scheduled.Sub(now), func() { b.activate(q, e) })
		}
		seqs[i] = e.seq
		accepted = append(accepted, e.public())
		if e.state == stateActive && q.routes() {
			b.route(q, e)
		}
	}
	b.pump(q)
	return seqs, accepted, nil
}

func (q *queue) routes() bool { return q.topic || q.props.ForwardTo != "" && !q.isDead }

// clean drops the broker's own annotations, which a forwarded message brings.
func clean(m *amqp.Message) *amqp.Message {
	m = m.Clone()
	if m.DeliveryAnnotations.Get("x-opt-lock-token") != nil {
		m.DeliveryAnnotations = m.DeliveryAnnotations.Without("x-opt-lock-token")
	}
	for _, k := range []string{"x-opt-sequence-number", "x-opt-enqueued-time", "x-opt-locked-until",
		"x-opt-message-state", "x-opt-enqueue-sequence-number", "x-opt-deadletter-source"} {
		if m.Annotations.Get(k) != nil {
			m.Annotations = m.Annotations.Without(k)
		}
	}
	return m
}

// insert gives an entry its place at the queue's end.
func (b *Bus) insert(q *queue, e *entry) {
	q.seq++
	e.q, e.seq, e.enqueued = q, q.seq, time.Now()
	q.entries = append(q.entries, e)
	e.lifetime()
}

func (e *entry) lifetime() {
	e.expires = time.Time{}
	ttl := e.q.props.DefaultMessageTimeToLive
	if t := e.m.Header.TTL; t != nil {
		if own := time.Duration(*t) * time.Millisecond; ttl <= 0 || own < ttl {
			ttl = own
		}
	}
	if ttl > 0 && ttl < 100*365*24*time.Hour && !e.q.isDead {
		from := e.enqueued
		if e.state == stateScheduled {
			from = e.scheduled
		}
		e.expires = from.Add(ttl)
	}
}

// available reports whether an entry can be handed out.
func (e *entry) available() bool { return e.state == stateActive && !e.locked }

func (e *entry) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

// activate makes a scheduled message active, with a new sequence number.
func (b *Bus) activate(q *queue, e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.state != stateScheduled || !q.remove(e) {
		return
	}
	e.state, e.timer = stateActive, nil
	b.insert(q, e)
	if q.routes() {
		b.route(q, e)
	}
	b.pump(q)
}

// route takes an active entry out of a topic or a forwarding queue and puts
// copies where they belong.
func (b *Bus) route(q *queue, e *entry) {
	q.remove(e)
	put := func(to *queue, topicSeq int64) {
		c := &entry{m: e.m, id: e.id, group: e.group, scheduled: e.scheduled, hops: e.hops, topicSeq: topicSeq}
		if q.props.ForwardTo != "" {
			c.hops++
		}
		b.insert(to, c)
		switch {
		case c.hops > maxHops:
			b.deadLetter(c, "MaxTransferHopCountExceeded", "", nil)
		case to.props.RequiresSession && c.m.Properties.GroupID == nil:
			b.deadLetter(c, "Session ID is null.",
				"Session enabled entity doesn't allow a message whose session identifier is null.", nil)
		case to.routes():
			b.route(to, c)
		default:
			b.pump(to)
		}
	}
	if q.topic {
		for _, s := range q.subs {
			if len(s.rules) == 0 || slices.ContainsFunc(s.rules,
				func(r broker.Rule) bool { return r.Filter.Match(e.m) }) {
				put(s, e.seq)
			}
		}
		return
	}
	if to := b.find(q.props.ForwardTo); to != nil {
		put(to, e.topicSeq)
		return
	}
	// The entity that it forwarded to has been deleted since.
	b.insert(q, e)
	b.deadLetter(e, "MessagingEntityNotFound", "The entity to forward to does not exist.", nil)
}

func (q *queue) remove(e *entry) bool {
	i := slices.Index(q.entries, e)
	if i < 0 {
		return false
	}
	q.entries = slices.Delete(q.entries, i, i+1)
	return true
}

// deadLetter moves an entry to the dead letter queue.
func (b *Bus) deadLetter(e *entry, reason, description string, more amqp.Map) {
	q := e.q
	q.unlock(e)
	if q.isDead || !q.remove(e) {
		return
	}
	props := e.m.ApplicationProperties
	for _, p := range more {
		if k, ok := p.Key.(string); ok && k != "DeadLetterReason" && k != "DeadLetterErrorDescription" {
			props = props.With(k, p.Value)
		}
	}
	if reason != "" {
		props = props.With("DeadLetterReason", reason)
	}
	if description != "" {
		props = props.With("DeadLetterErrorDescription", description)
	}
	e.m = e.m.Clone()
	e.m.SetApplicationProperties(props)
	e.state = stateActive
	if to := q.props.ForwardDeadLetteredMessagesTo; to != "" && e.hops < maxHops {
		if target := b.find(to); target != nil {
			e.hops++
			e.m.Annotations = e.m.Annotations.With(amqp.Symbol("x-opt-deadletter-source"), q.name)
			b.insert(target, e)
			if target.routes() {
				b.route(target, e)
			} else {
				b.pump(target)
			}
			return
		}
	}
	d := q.dead
	e.q = d
	e.expires = time.Time{}
	d.entries = append(d.entries, e)
	slices.SortStableFunc(d.entries, func(x, y *entry) int { return cmp.Compare(x.seq, y.seq) })
	b.pump(d)
}

// lock gives an entry to a consumer, or (group nil) to a caller of management.
func (b *Bus) lock(e *entry, g *group) {
	q := e.q
	_, _ = rand.Read(e.token[:])
	e.token[6], e.token[8] = e.token[6]&0x0f|0x40, e.token[8]&0x3f|0x80
	q.locks[e.token] = e
	e.locked, e.holder = true, g
	if g != nil {
		e.until = g.until
		return
	}
	b.arm(e)
}

func (b *Bus) arm(e *entry) {
	e.timer.stop()
	d := e.q.props.LockDuration
	e.until = time.Now().Add(d)
	token := e.token
	e.timer = b.after(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if e.locked && e.token == token && !time.Now().Before(e.until) {
			b.countFailure(e)
		}
	})
}

func (q *queue) unlock(e *entry) {
	if e.locked {
		delete(q.locks, e.token)
		e.timer.stop()
		e.locked, e.holder, e.timer = false, nil, nil
	}
}

// countFailure takes an entry back and counts the delivery.
func (b *Bus) countFailure(e *entry) {
	q := e.q
	q.unlock(e)
	if !q.isDead {
		e.count++
		if int(e.count) >= q.props.MaxDeliveryCount {
			b.deadLetter(e, "MaxDeliveryCountExceeded",
				fmt.Sprintf("Message could not be consumed after %d delivery attempts.", q.props.MaxDeliveryCount), nil)
			return
		}
	}
	b.pump(q)
}

// outcome of a settlement.
type outcome int

const (
	complete outcome = iota
	abandon
	deferred
	deadLetter
	release
)

func (o outcome) String() string {
	return [...]string{"complete", "abandon", "defer", "deadletter", "release"}[o]
}

// settlement of a locked message.
type settlement struct {
	outcome             outcome
	reason, description string
	modify              amqp.Map
}

func (b *Bus) settle(q *queue, token amqp.UUID, s settlement) *amqp.Error {
	e := q.locks[token]
	if e == nil {
		if q.props.RequiresSession {
			return amqp.Errorf(condSessionLockLost,
				"The session lock has expired on the MessageSession. Accept a new MessageSession.")
		}
		return amqp.Errorf(condLockLost,
			"The lock supplied is invalid. Either the lock expired, or the message has already been removed from "+
				"the queue.")
	}
	if len(s.modify) > 0 && s.outcome != deadLetter {
		props := e.m.ApplicationProperties
		for _, p := range s.modify {
			switch k := p.Key.(type) {
			case string:
				props = props.With(k, p.Value)
			case amqp.Symbol:
				props = props.With(string(k), p.Value)
			}
		}
		e.m = e.m.Clone()
		e.m.SetApplicationProperties(props)
	}
	switch s.outcome {
	case complete:
		q.unlock(e)
		q.remove(e)
	case abandon:
		b.countFailure(e)
	case deferred:
		q.unlock(e)
		e.state = stateDeferred
		b.pump(q)
	case deadLetter:
		if q.isDead {
			return amqp.Errorf(amqp.NotAllowed, "A message cannot be dead-lettered from a dead letter queue.")
		}
		b.deadLetter(e, s.reason, s.description, s.modify)
	case release:
		q.unlock(e)
		b.pump(q)
	}
	return nil
}

// pump hands out what can be handed out. Time to live is enforced here only: the
// service, too, does nothing about old messages while nobody listens.
func (b *Bus) pump(q *queue) {
	if q.topic || len(q.consumers)+len(q.waiters) == 0 {
		return
	}
	now := time.Now()
	for _, e := range slices.Clone(q.entries) {
		if e.available() && e.expired(now) {
			if q.props.DeadLetteringOnMessageExpiration {
				b.deadLetter(e, "TTLExpiredException", "The message expired and was dead lettered.", nil)
			} else {
				q.remove(e)
			}
		}
	}
	for len(q.waiters) > 0 {
		g := q.nextGroup()
		if g == nil {
			break
		}
		w := q.waiters[0]
		q.waiters = q.waiters[1:]
		w.timer.stop()
		w.grant(g)
	}
	for _, e := range slices.Clone(q.entries) {
		if !e.available() {
			continue
		}
		c := q.consumerFor(e)
		if c == nil {
			if !q.props.RequiresSession {
				return
			}
			continue
		}
		c.credit--
		if c.destructive {
			q.remove(e)
		} else {
			b.lock(e, c.group)
		}
		c.deliver(e)
	}
}

func (q *queue) nextGroup() *group {
	for _, e := range q.entries {
		if e.available() {
			if g := q.group(e.group); g.holder == nil {
				return g
			}
		}
	}
	return nil
}

// consumerFor picks who gets an entry: in turn, or the session's holder.
func (q *queue) consumerFor(e *entry) *consumer {
	if q.props.RequiresSession {
		if c := q.group(e.group).holder; c != nil && c.credit > 0 {
			return c
		}
		return nil
	}
	for i, c := range q.consumers {
		if c.credit > 0 {
			q.consumers = append(slices.Delete(q.consumers, i, i+1), c)
			return c
		}
	}
	return nil
}

// hold locks a session for a consumer.
func (b *Bus) hold(g *group, c *consumer) {
	g.holder, c.group = c, g
	b.armGroup(g)
}

func (b *Bus) armGroup(g *group) {
	g.timer.stop()
	d := g.q.props.LockDuration
	g.until = time.Now().Add(d)
	for _, e := range g.q.locks {
		if e.holder == g {
			e.until = g.until
		}
	}
	holder := g.holder
	g.timer = b.after(d, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if g.holder == holder && !time.Now().Before(g.until) {
			b.loseGroup(g)
		}
	})
}

// loseGroup ends a session's lock by time; deliveries under it count.
func (b *Bus) loseGroup(g *group) {
	c := g.holder
	if c == nil {
		return
	}
	held := b.freeGroup(g)
	for _, e := range held {
		b.countFailure(e)
	}
	c.lost(amqp.Errorf(condSessionLockLost,
		"The session lock has expired on the MessageSession. Accept a new MessageSession."))
	b.pump(g.q)
}

// freeGroup ends a session's lock; the caller takes back the messages under it.
func (b *Bus) freeGroup(g *group) []*entry {
	q := g.q
	q.consumers = slices.DeleteFunc(q.consumers, func(c *consumer) bool { return c == g.holder })
	g.holder.group, g.holder = nil, nil
	g.timer.stop()
	var held []*entry
	for _, e := range q.entries {
		if e.locked && e.holder == g {
			held = append(held, e)
		}
	}
	return held
}

// leave takes a consumer away, as its link ends. A session's messages come back
// uncounted; others stay locked.
func (b *Bus) leave(c *consumer) {
	q := c.q
	if g := c.group; g != nil {
		for _, e := range b.freeGroup(g) {
			q.unlock(e)
		}
	}
	q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
	b.pump(q)
}

// wire is a message as it goes out.
func (e *entry) wire() []byte {
	m := e.m.Clone()
	m.HasHeader = true
	m.Header.DeliveryCount = e.count
	a := m.Annotations.
		With(amqp.Symbol("x-opt-sequence-number"), e.seq).
		With(amqp.Symbol("x-opt-enqueued-time"), e.enqueued)
	if e.state != stateActive {
		a = a.With(amqp.Symbol("x-opt-message-state"), e.state)
	}
	if e.topicSeq != 0 {
		a = a.With(amqp.Symbol("x-opt-enqueue-sequence-number"), e.topicSeq)
	}
	if e.locked {
		a = a.With(amqp.Symbol("x-opt-locked-until"), e.until)
		m.DeliveryAnnotations = m.DeliveryAnnotations.With(amqp.Symbol("x-opt-lock-token"), e.token)
	}
	m.Annotations = a
	return m.Encode()
}

func (e *entry) public() Message {
	m := Message{
		Entity: e.q.name, ID: e.id, SessionID: e.group, Subject: e.m.Properties.Subject,
		ContentType: e.m.Properties.ContentType,
		Scheduled:   e.scheduled, Enqueued: e.enqueued, Sequence: e.seq, DeliveryCount: int(e.count),
		Properties: map[string]any{},
	}
	for _, d := range e.m.Data() {
		m.Body = append(m.Body, d...)
	}
	for _, p := range e.m.ApplicationProperties {
		if k, ok := p.Key.(string); ok {
			m.Properties[k] = p.Value
		}
	}
	return m
}

// Counts of an entity; zero if it is not there.
func (b *Bus) Counts(entity string) Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	var n Counts
	q := b.find(entity)
	if q == nil {
		return n
	}
	for _, e := range q.entries {
		switch e.state {
		case stateActive:
			n.Active++
		case stateDeferred:
			n.Deferred++
		default:
			n.Scheduled++
		}
	}
	if q.dead != nil {
		n.DeadLetter = len(q.dead.entries)
	}
	return n
}

// Peek returns all messages of an entity, in the order of sequence numbers.
func (b *Bus) Peek(entity string) []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.find(entity)
	if q == nil {
		return nil
	}
	var out []Message
	for _, e := range q.entries {
		out = append(out, e.public())
	}
	return out
}

// LoseSessionLock ends a session's lock as if its time had run out.
func (b *Bus) LoseSessionLock(entity, sessionID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.find(entity); q != nil && q.groups[sessionID] != nil {
		b.loseGroup(q.groups[sessionID])
	}
}

// Send puts a message into a queue or topic without a connection.
func (b *Bus) Send(entity string, m Message) error {
	var props amqp.Map
	for k, v := range m.Properties {
		switch n := v.(type) {
		case int:
			v = int64(n)
		case nil, bool, string, []byte, int32, int64, uint32, uint64, float32, float64, time.Time, amqp.UUID:
		default:
			return fmt.Errorf("the property %s: a %T cannot be sent", k, v)
		}
		props = append(props, amqp.Pair{Key: k, Value: v})
	}
	slices.SortFunc(props, func(x, y amqp.Pair) int { return cmp.Compare(x.Key.(string), y.Key.(string)) })
	am := amqp.NewMessage(m.Body)
	p := amqp.Properties{Subject: m.Subject, ContentType: m.ContentType}
	if m.ID != "" {
		p.MessageID = m.ID
	}
	if m.SessionID != "" {
		p.GroupID = &m.SessionID
	}
	am.SetProperties(p)
	if len(props) > 0 {
		am.SetApplicationProperties(props)
	}
	if !m.Scheduled.IsZero() {
		am.Annotations = amqp.Map{{Key: amqp.Symbol("x-opt-scheduled-enqueue-time"), Value: m.Scheduled}}
	}
	if n := len(am.Encode()); n > maxMessageSize {
		return fmt.Errorf("a message of %d bytes is too large", n)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errors.New("the bus is closed")
	}
	q := b.find(entity)
	if q == nil {
		b.mu.Unlock()
		return fmt.Errorf("the entity %q does not exist", entity)
	}
	_, accepted, refused := b.accept(q, []*amqp.Message{am})
	b.mu.Unlock()
	if refused != nil {
		return refused
	}
	b.notify(q, accepted)
	return nil
}

func (b *Bus) notify(q *queue, accepted []Message) {
	if b.cfg.OnSend != nil {
		for _, m := range accepted {
			b.cfg.OnSend(q.name, m)
		}
	}
}
