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
	// infiniteRenewal is maxAutoLockRenewalDuration's "for ever".
	infiniteRenewal = -time.Millisecond
)

// gatherBriefly makes a receive that has a message wait for more only shortly: the real
// processor hands out each message at once.
var gatherBriefly = &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: time.Millisecond}

// busClients holds one client for each connection.
type busClients struct {
	mu      sync.Mutex
	clients map[string]*busClient
}

type busClient struct {
	*azservicebus.Client
	info clientInfo
}

// clientInfo is what a message's metadata say of the client.
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

// info is that of get's client, without making one.
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
		return nil, fmt.Errorf("the connection '%s' is in no app setting: "+
			"neither a connection string nor __fullyQualifiedNamespace", connection)
	}
	if h.cfg.Credential == nil {
		return nil, fmt.Errorf("the connection '%s' is identity-based, and the host has no credential", connection)
	}
	return azservicebus.NewClient(ns, h.cfg.Credential, h.cfg.ServiceBusOptions)
}

type message = azservicebus.ReceivedMessage

// receiver is what a queue's, a subscription's and a session's receiver share.
type receiver interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*message, error)
	CompleteMessage(context.Context, *message, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *message, *azservicebus.AbandonMessageOptions) error
	Close(context.Context) error
}

// listener receives for one function.
type listener struct {
	h       *Host
	f       *function
	client  *busClient
	options serviceBusOptions
	batches bool
	log     *slog.Logger
}

// listenServiceBus serves a Service Bus function until ctx ends.
func (h *Host) listenServiceBus(ctx context.Context, f *function) {
	l := &listener{h: h, f: f, options: h.options.serviceBus, batches: f.trigger.takesBatches(),
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
		l.receiveAll(ctx)
		return
	}
	var workers sync.WaitGroup
	for range l.options.sessions {
		workers.Go(func() { l.acceptSessions(ctx) })
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

// receiveAll receives from a queue or subscription without sessions.
func (l *listener) receiveAll(ctx context.Context) {
	r, err := l.open()
	if err != nil {
		l.log.Error("the listener cannot start", "error", err)
		return
	}
	// The link goes first: it still has credit, and what is abandoned while it
	// is there would come back to it, to be locked for nobody.
	var calls sync.WaitGroup
	late := &lateReceiver{receiver: r, ctx: ctx, closed: make(chan struct{}), open: l.open, close: l.close}
	defer calls.Wait()
	defer func() { l.close(r); close(late.closed) }()

	renew := r.RenewMessageLock
	slots := make(chan struct{}, l.options.calls)
	if l.batches {
		renew, slots = nil, make(chan struct{}, 1) // one batch at a time, and its locks are not renewed
	}
	for {
		free := takeSlots(ctx, slots)
		if free == 0 {
			return
		}
		size := free
		if l.batches {
			size = l.options.batch
		}
		messages, err := r.ReceiveMessages(ctx, size, gatherBriefly)
		deliveries := l.split(messages)
		for range free - len(deliveries) {
			<-slots
		}
		for _, d := range deliveries {
			calls.Go(func() {
				defer func() { <-slots }()
				l.process(late, d, nil, renew)
			})
		}
		if err != nil && !l.failed(ctx, err) {
			return
		}
	}
}

// takeSlots waits for a free slot and takes all there are; 0: ctx has ended.
func takeSlots(ctx context.Context, slots chan struct{}) int {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for taken := 1; ; taken++ {
		select {
		case slots <- struct{}{}:
		default:
			return taken
		}
	}
}

// split makes messages into deliveries: a call of the function for each.
func (l *listener) split(messages []*message) [][]*message {
	if l.batches && len(messages) > 0 {
		return [][]*message{messages}
	}
	var deliveries [][]*message
	for _, m := range messages {
		deliveries = append(deliveries, []*message{m})
	}
	return deliveries
}

// lateReceiver is a receiver whose messages can be settled after its link is gone.
type lateReceiver struct {
	receiver
	ctx    context.Context // of the listener
	closed chan struct{}   // closed once the link is
	open   func() (*azservicebus.Receiver, error)
	close  func(receiver)
}

func (l *lateReceiver) CompleteMessage(ctx context.Context, m *message, o *azservicebus.CompleteMessageOptions) error {
	return l.settle(ctx, m, func(r receiver, m *message) error { return r.CompleteMessage(ctx, m, o) })
}

func (l *lateReceiver) AbandonMessage(ctx context.Context, m *message, o *azservicebus.AbandonMessageOptions) error {
	return l.settle(ctx, m, func(r receiver, m *message) error { return r.AbandonMessage(ctx, m, o) })
}

func (l *lateReceiver) settle(ctx context.Context, m *message, how func(receiver, *message) error) error {
	if l.ctx.Err() == nil {
		if err := how(l.receiver, m); err == nil || l.ctx.Err() == nil {
			return err
		}
	}
	select {
	case <-l.closed:
	case <-ctx.Done():
		return ctx.Err()
	}
	r, err := l.open()
	if err != nil {
		return err
	}
	defer l.close(r)
	// A bare lock token is settled through the entity's management node.
	return how(r, &message{MessageID: m.MessageID, LockToken: m.LockToken})
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

// acceptSessions works off one session after another.
func (l *listener) acceptSessions(ctx context.Context) {
	for ctx.Err() == nil {
		asked := time.Now()
		s, err := l.acceptSession(ctx)
		if err == nil {
			l.workOff(ctx, s)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		noSession := errors.Is(err, context.DeadlineExceeded)
		if coded, ok := errors.AsType[*azservicebus.Error](err); ok && coded.Code == azservicebus.CodeTimeout {
			noSession = true
		}
		switch {
		case !noSession:
			if !l.failed(ctx, err) {
				return
			}
		case time.Since(asked) < receiveRetry:
			// A service that says at once that no session has a message is not to
			// be asked in a tight loop.
			pause(ctx, receiveRetry)
		}
	}
}

func (l *listener) acceptSession(ctx context.Context) (*azservicebus.SessionReceiver, error) {
	ctx, cancel := context.WithTimeout(ctx, l.options.tryTimeout)
	defer cancel()
	t := l.f.trigger
	if t.QueueName != "" {
		return l.client.AcceptNextSessionForQueue(ctx, t.QueueName, nil)
	}
	return l.client.AcceptNextSessionForSubscription(ctx, t.TopicName, t.SubscriptionName, nil)
}

// workOff calls the function for the messages of a session, and gives it back once it
// has been idle.
func (l *listener) workOff(ctx context.Context, s *azservicebus.SessionReceiver) {
	var locked atomic.Int64
	locked.Store(s.LockedUntil().UnixNano())
	until := func() time.Time { return time.Unix(0, locked.Load()).UTC() }

	var renewing sync.WaitGroup
	renewCtx, stop := context.WithCancel(context.Background())
	// A batch's locks are not renewed.
	if !l.batches && l.options.lockRenewal != 0 {
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
	if l.batches {
		size = l.options.batch
	}
	for {
		messages, err := l.receiveFrom(ctx, s, size)
		if len(messages) == 0 {
			idle := err == nil || errors.Is(err, context.DeadlineExceeded)
			if !idle && ctx.Err() == nil {
				l.log.Warn("receiving from a session", "error", err)
			}
			return
		}
		var calls sync.WaitGroup
		for _, d := range l.split(messages) {
			calls.Go(func() { l.process(s, d, until, nil) })
		}
		calls.Wait()
	}
}

// receiveFrom waits for a session's messages until it has been idle for too long.
func (l *listener) receiveFrom(ctx context.Context, s receiver, size int) ([]*message, error) {
	ctx, cancel := context.WithTimeout(ctx, l.options.sessionIdle)
	defer cancel()
	return s.ReceiveMessages(ctx, size, gatherBriefly)
}

// roundTrip is what it takes in Azure to give a message back and to get it again.
// Without it all of a message's deliveries would fit into the few milliseconds in
// which a handler is dead and the host has not seen it yet.
const roundTrip = 25 * time.Millisecond

// process invokes the function and settles. renew keeps the lock of a message
// outside sessions.
func (l *listener) process(r receiver, messages []*message, sessionLock func() time.Time,
	renew func(context.Context, *message, *azservicebus.RenewMessageLockOptions) error) {
	source := &messageSource{client: l.client.info, sessionLock: sessionLock}
	// Made before the renewal begins to write to the message.
	e, bindErr := messageEnvelope(l.f, messages, source)
	var renewing sync.WaitGroup
	renewCtx, stop := context.WithCancel(context.Background())
	m := messages[0]
	if renew != nil && l.options.lockRenewal != 0 && m.LockedUntil != nil {
		until := func() time.Time { return *m.LockedUntil }
		renewing.Go(func() {
			l.renew(renewCtx, until, func(ctx context.Context) error { return renew(ctx, m, nil) })
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
