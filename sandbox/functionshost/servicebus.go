package functionshost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

const (
	// receiveRetry is the pause after a failure to reach the entity.
	receiveRetry = time.Second
	// gather is how long a receive waits for more once it has a message. Short:
	// the real processor hands out each message at once.
	gather = time.Millisecond
	// infiniteRenewal is maxAutoLockRenewalDuration's "for ever".
	infiniteRenewal = -time.Millisecond
)

// busClients holds one client for each connection.
type busClients struct {
	mu      sync.Mutex
	clients map[string]*busClient
}

type busClient struct {
	*azservicebus.Client
	info clientInfo
}

// clientInfo is what a message's metadata tell of the client.
type clientInfo struct {
	namespace, identifier string
}

func (b *busClients) get(h *Host, connection string) (*busClient, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.clients[connection]; c != nil {
		return c, nil
	}
	client, err := h.newBusClient(connection)
	if err != nil {
		return nil, err
	}
	if b.clients == nil {
		b.clients = map[string]*busClient{}
	}
	c := &busClient{client, newClientInfo(h, connection)}
	b.clients[connection] = c
	return c, nil
}

// info is what get's client would tell of itself, without making one.
func (b *busClients) info(h *Host, connection string) clientInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.clients[connection]; c != nil {
		return c.info
	}
	return newClientInfo(h, connection)
}

func newClientInfo(h *Host, connection string) clientInfo {
	ns := namespaceOf(h.settings, connection)
	return clientInfo{namespace: ns, identifier: ns + "-" + newGUID()}
}

func (b *busClients) close(log *slog.Logger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	for name, c := range b.clients {
		if err := c.Close(ctx); err != nil {
			log.Debug("closing a Service Bus client", "connection", name, "error", err)
		}
	}
}

// connectionNames are the settings in which a connection is looked for.
func connectionNames(connection string) []string {
	return []string{connection, "AzureWebJobs" + connection, "ConnectionStrings:" + connection}
}

func connectionString(s settings, connection string) (string, bool) {
	for _, name := range connectionNames(connection) {
		if v, ok := s.get(name); ok && v != "" {
			return v, true
		}
	}
	return "", false
}

func (h *Host) newBusClient(connection string) (*azservicebus.Client, error) {
	if h.cfg.ServiceBus != nil {
		return h.cfg.ServiceBus(connection)
	}
	if text, ok := connectionString(h.settings, connection); ok {
		return azservicebus.NewClientFromConnectionString(text, h.cfg.ServiceBusOptions)
	}
	ns := namespaceOf(h.settings, connection)
	if ns == "" {
		return nil, fmt.Errorf("the connection '%s' is in no app setting: neither a connection string nor __fullyQualifiedNamespace", connection)
	}
	if h.cfg.Credential == nil {
		return nil, fmt.Errorf("the connection '%s' is identity-based, and the host has no credential", connection)
	}
	return azservicebus.NewClient(ns, h.cfg.Credential, h.cfg.ServiceBusOptions)
}

// receiver is what a queue's, a subscription's and a session's receiver share.
type receiver interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	Close(context.Context) error
}

// listener receives for one function.
type listener struct {
	h       *Host
	f       *function
	client  *busClient
	options serviceBusOptions
	many    bool
	log     *slog.Logger
}

// listenServiceBus serves a Service Bus function until ctx ends.
func (h *Host) listenServiceBus(ctx context.Context, f *function) {
	l := &listener{h: h, f: f, options: h.options.serviceBus, many: strings.EqualFold(f.trigger.Cardinality, "many"),
		log: h.log.With("function", f.name)}
	if a := f.trigger.AutoCompleteMessages; a != nil {
		l.options.autoComplete = *a
	}
	if n := f.trigger.MaxMessageBatchSize; n > 0 {
		l.options.batch = n
	}
	for {
		client, err := h.bus.get(h, f.trigger.Connection)
		if err == nil {
			l.client = client
			break
		}
		l.log.Error("the listener cannot start", "error", err)
		if !pause(ctx, 10*receiveRetry) {
			return
		}
	}
	if !f.trigger.IsSessionsEnabled {
		l.entity(ctx)
		return
	}
	var workers sync.WaitGroup
	for range l.options.sessions {
		workers.Go(func() { l.sessions(ctx) })
	}
	workers.Wait()
}

// open makes a receiver for a queue or subscription without sessions.
func (l *listener) open() (*azservicebus.Receiver, error) {
	t := l.f.trigger
	name, options := t.QueueName, &azservicebus.ReceiverOptions{}
	if name == "" {
		name = t.SubscriptionName
	}
	if n, sub, ok := strings.Cut(name, "/"); ok && strings.EqualFold(sub, "$DeadLetterQueue") {
		name, options.SubQueue = n, azservicebus.SubQueueDeadLetter
	}
	if t.QueueName != "" {
		return l.client.NewReceiverForQueue(name, options)
	}
	return l.client.NewReceiverForSubscription(t.TopicName, name, options)
}

// entity receives from a queue or subscription without sessions.
func (l *listener) entity(ctx context.Context) {
	r, err := l.open()
	if err != nil {
		l.log.Error("the listener cannot start", "error", err)
		return
	}
	// The link goes first: it still has credit, and what is abandoned while it
	// is there would come back to it, to be locked for nobody.
	var calls sync.WaitGroup
	e := &endable{receiver: r, ctx: ctx, closed: make(chan struct{}), open: l.open, close: l.close}
	defer calls.Wait()
	defer func() { l.close(r); close(e.closed) }()

	size := l.options.calls
	if l.many {
		size = 1 // one batch at a time
	}
	slots := make(chan struct{}, size)
	for {
		free := 0
		select {
		case slots <- struct{}{}:
			free = 1
		case <-ctx.Done():
			return
		}
	more:
		for free < size {
			select {
			case slots <- struct{}{}:
				free++
			default:
				break more
			}
		}
		want := free
		if l.many {
			want = l.options.batch
		}
		messages, err := r.ReceiveMessages(ctx, want, &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: gather})
		used := len(messages)
		if l.many {
			used = min(used, 1)
		}
		for range free - used {
			<-slots
		}
		switch {
		case l.many && used > 0:
			calls.Go(func() {
				defer func() { <-slots }()
				l.process(e, messages, nil, nil)
			})
		case !l.many:
			for _, m := range messages {
				calls.Go(func() {
					defer func() { <-slots }()
					l.process(e, []*azservicebus.ReceivedMessage{m}, nil, r.RenewMessageLock)
				})
			}
		}
		if err != nil && !l.failed(ctx, err) {
			return
		}
	}
}

// endable is a receiver whose messages can be settled after its link is gone.
type endable struct {
	receiver
	ctx    context.Context // of the listener
	closed chan struct{}   // closed once the link is
	open   func() (*azservicebus.Receiver, error)
	close  func(receiver)
}

func (e *endable) CompleteMessage(ctx context.Context, m *azservicebus.ReceivedMessage, o *azservicebus.CompleteMessageOptions) error {
	return e.settle(ctx, m, func(r receiver, m *azservicebus.ReceivedMessage) error { return r.CompleteMessage(ctx, m, o) })
}

func (e *endable) AbandonMessage(ctx context.Context, m *azservicebus.ReceivedMessage, o *azservicebus.AbandonMessageOptions) error {
	return e.settle(ctx, m, func(r receiver, m *azservicebus.ReceivedMessage) error { return r.AbandonMessage(ctx, m, o) })
}

func (e *endable) settle(ctx context.Context, m *azservicebus.ReceivedMessage, how func(receiver, *azservicebus.ReceivedMessage) error) error {
	if e.ctx.Err() == nil {
		if err := how(e.receiver, m); err == nil || e.ctx.Err() == nil {
			return err
		}
	}
	select {
	case <-e.closed:
	case <-ctx.Done():
		return ctx.Err()
	}
	r, err := e.open()
	if err != nil {
		return err
	}
	defer e.close(r)
	// A bare lock token is settled through the entity's management node.
	return how(r, &azservicebus.ReceivedMessage{MessageID: m.MessageID, LockToken: m.LockToken})
}

// failed logs a failure to receive and pauses; false: the listener ends.
func (l *listener) failed(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	l.log.Error("receiving messages", "error", err)
	return pause(ctx, receiveRetry)
}

func (l *listener) close(r receiver) {
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		l.log.Debug("closing a receiver", "error", err)
	}
}

// sessions accepts one session after another.
func (l *listener) sessions(ctx context.Context) {
	t := l.f.trigger
	for ctx.Err() == nil {
		asked := time.Now()
		limit, cancel := context.WithTimeout(ctx, l.options.tryTimeout)
		var (
			s   *azservicebus.SessionReceiver
			err error
		)
		if t.QueueName != "" {
			s, err = l.client.AcceptNextSessionForQueue(limit, t.QueueName, nil)
		} else {
			s, err = l.client.AcceptNextSessionForSubscription(limit, t.TopicName, t.SubscriptionName, nil)
		}
		cancel()
		var coded *azservicebus.Error
		switch {
		case err == nil:
			l.session(ctx, s)
		case ctx.Err() != nil:
			return
		case errors.As(err, &coded) && coded.Code == azservicebus.CodeTimeout, errors.Is(err, context.DeadlineExceeded):
			// No session had a message. A service that says so at once is not
			// to be asked in a tight loop.
			if time.Since(asked) < receiveRetry && !pause(ctx, receiveRetry) {
				return
			}
		default:
			if !l.failed(ctx, err) {
				return
			}
		}
	}
}

// session works off one session, and gives it back once it has been idle.
func (l *listener) session(ctx context.Context, s *azservicebus.SessionReceiver) {
	var locked atomic.Int64
	locked.Store(s.LockedUntil().UnixNano())
	until := func() time.Time { return time.Unix(0, locked.Load()).UTC() }

	var renewing sync.WaitGroup
	renewCtx, stop := context.WithCancel(context.Background())
	// A batch's locks are not renewed.
	if !l.many && l.options.lockRenewal != 0 {
		renewing.Go(func() {
			l.renew(renewCtx, until, func(ctx context.Context) error {
				err := s.RenewSessionLock(ctx, nil)
				if err == nil {
					locked.Store(s.LockedUntil().UnixNano())
				}
				return err
			})
		})
	}
	defer func() { stop(); renewing.Wait(); l.close(s) }()

	size := l.options.callsPerSession
	if l.many {
		size = l.options.batch
	}
	for {
		idle, cancel := context.WithTimeout(ctx, l.options.sessionIdle)
		messages, err := s.ReceiveMessages(idle, size, &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: gather})
		cancel()
		if len(messages) == 0 {
			if err != nil && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				l.log.Warn("receiving from a session", "error", err)
			}
			return
		}
		if l.many {
			l.process(s, messages, until, nil)
			continue
		}
		var calls sync.WaitGroup
		for _, m := range messages {
			calls.Go(func() { l.process(s, []*azservicebus.ReceivedMessage{m}, until, nil) })
		}
		calls.Wait()
	}
}

// roundTrip is what it takes in Azure to give a message back and to get it again.
// Without it all of a message's deliveries would fit into the few milliseconds in
// which a handler is dead and the host has not seen it yet.
const roundTrip = 25 * time.Millisecond

// process invokes the function and settles. renew keeps the lock of a message
// outside sessions.
func (l *listener) process(r receiver, messages []*azservicebus.ReceivedMessage, sessionLock func() time.Time,
	renew func(context.Context, *azservicebus.ReceivedMessage, *azservicebus.RenewMessageLockOptions) error) {
	source := &messageSource{client: l.client.info, sessionLock: sessionLock}
	// Made before the renewal begins to write to the message.
	e, bindErr := l.h.messageEnvelope(l.f, messages, source)
	var renewing sync.WaitGroup
	renewCtx, stop := context.WithCancel(context.Background())
	if renew != nil && l.options.lockRenewal != 0 && messages[0].LockedUntil != nil {
		m := messages[0]
		renewing.Go(func() {
			l.renew(renewCtx, func() time.Time { return *m.LockedUntil }, func(ctx context.Context) error { return renew(ctx, m, nil) })
		})
	}
	err := l.h.invoke(l.f, func() (envelope, error) { return e, bindErr })
	stop()
	renewing.Wait()
	if l.h.killed.Load() {
		return
	}

	if errors.Is(err, ErrUnreachable) {
		pause(l.h.listenCtx, roundTrip)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	for _, m := range messages {
		var settled error
		switch {
		case err != nil:
			settled = r.AbandonMessage(ctx, m, nil)
		case l.options.autoComplete:
			settled = r.CompleteMessage(ctx, m, nil)
		}
		if settled != nil {
			// The lock is lost, most likely: the message comes again.
			l.log.Warn("settling a message", "id", m.MessageID, "error", settled)
		}
	}
}

// renew keeps a lock until ctx ends, the duration is over, or it is lost.
func (l *listener) renew(ctx context.Context, until func() time.Time, once func(context.Context) error) {
	if l.options.lockRenewal != infiniteRenewal {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.options.lockRenewal)
		defer cancel()
	}
	for pause(ctx, renewDelay(time.Until(until()))) {
		if err := once(ctx); err != nil {
			if ctx.Err() == nil {
				l.log.Warn("renewing a lock", "error", err)
			}
			return
		}
	}
}

// renewDelay leaves ten seconds, or half of a short lock, in hand.
func renewDelay(remaining time.Duration) time.Duration {
	if remaining < 400*time.Millisecond {
		return 0
	}
	return remaining - min(remaining/2, 10*time.Second)
}
