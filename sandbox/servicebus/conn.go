package servicebus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

const (
	maxFrame      = 65536
	window        = 5000
	senderCredit  = 1000
	batchFormat   = 0x80013700
	filterSession = "com.microsoft:session-filter"
)

// output is what a connection still has to write. It never blocks who adds.
type output struct {
	mu    sync.Mutex
	buf   []byte
	state int // 0 open, 1 ends once written, 2 ended
	wake  chan struct{}
}

func (o *output) add(b []byte, last bool) {
	o.mu.Lock()
	if o.state == 0 {
		o.buf = append(o.buf, b...)
		if last {
			o.state = 1
		}
	}
	o.mu.Unlock()
	o.signal()
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *output) end() {
	o.mu.Lock()
	o.buf, o.state = nil, 2
	o.mu.Unlock()
	o.signal()
}

// writeTo writes until the output ends.
func (o *output) writeTo(nc net.Conn) {
	defer nc.Close()
	for range o.wake {
		for {
			o.mu.Lock()
			b, state := o.buf, o.state
			o.buf = nil
			o.mu.Unlock()
			if len(b) > 0 {
				if _, err := nc.Write(b); err != nil {
					o.end()
					return
				}
				continue
			}
			if state != 0 {
				return
			}
			break
		}
	}
}

// conn is one connection. All but the reading side is guarded by the bus's mu.
type conn struct {
	b        *Bus
	nc       net.Conn
	out      *output
	opened   bool
	gone     bool
	maxFrame uint32
	beat     *timer
	sessions map[uint16]*session
	claims   map[string]claim // by path in lower case
}

// session is an AMQP session; it answers on the channel that the peer chose.
type session struct {
	c            *conn
	ch           uint16
	nextIncoming uint32
	nextOutgoing uint32
	remoteWindow uint32
	taken        uint32 // transfers since our window was last announced
	nextDelivery uint32
	waiting      []amqp.Frame // transfers without a window
	links        map[uint32]*link
	unsettled    map[uint32]delivery
}

type delivery struct {
	q     *queue
	token amqp.UUID
}

// link is one link; its handle is the peer's.
type link struct {
	s        *session
	name     string
	handle   uint32
	sender   bool         // the peer sends
	pending  *amqp.Attach // not answered yet
	detached bool         // we have ended it, or never began; the peer's detach is awaited
	address  string
	target   string
	handler  func(*link, *amqp.Message) // of $cbs and $management
	q        *queue

	// The peer sends.
	partial       []byte
	open          bool
	deliveryID    uint32
	format        uint32
	settled       bool
	deliveryCount uint32
	used          uint32

	// The peer receives.
	cons    *consumer
	waiter  *waiter
	credit  uint32 // of replies
	replies [][]byte
}

func ptr[T any](v T) *T { return &v }

// Serve answers connections until the listener ends.
func (b *Bus) Serve(l net.Listener) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		_ = l.Close()
		return net.ErrClosed
	}
	b.listeners[l] = struct{}{}
	b.mu.Unlock()
	for {
		nc, err := l.Accept()
		if err != nil {
			b.mu.Lock()
			delete(b.listeners, l)
			closed := b.closed
			b.mu.Unlock()
			if closed || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("service bus: %w", err)
		}
		go b.ServeConn(nc)
	}
}

// ServeConn answers one connection, and returns at its end.
func (b *Bus) ServeConn(nc net.Conn) {
	c := &conn{
		b: b, nc: nc, out: &output{wake: make(chan struct{}, 1)}, maxFrame: 512,
		sessions: map[uint16]*session{}, claims: map[string]claim{},
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		_ = nc.Close()
		return
	}
	b.conns[c] = struct{}{}
	b.wg.Add(2)
	b.mu.Unlock()
	defer b.wg.Done()
	go func() {
		defer b.wg.Done()
		c.out.writeTo(nc)
	}()
	err := c.read()
	b.mu.Lock()
	broken := err != nil && !errors.Is(err, io.EOF)
	if broken && c.opened && !c.gone {
		cond := amqp.InternalError
		if errors.Is(err, amqp.ErrMalformed) {
			cond = amqp.FramingError
		}
		var ae *amqp.Error
		if !errors.As(err, &ae) {
			ae = amqp.Errorf(cond, "%v", err)
		}
		c.out.add(amqp.AppendFrame(nil, amqp.Frame{Body: &amqp.Close{Error: ae}}), false)
	}
	c.leave()
	b.mu.Unlock()
	c.out.add(nil, true)
}

// leave gives back what the connection holds. The caller holds mu.
func (c *conn) leave() {
	c.gone = true
	delete(c.b.conns, c)
	c.beat.stop()
	for _, s := range c.sessions {
		s.leave()
	}
	clear(c.sessions)
}

// drop breaks the connection without a Close frame. The caller holds mu.
func (c *conn) drop() {
	c.gone = true
	c.out.end()
	_ = c.nc.Close()
}

// DropConnections breaks every connection.
func (b *Bus) DropConnections() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.drop()
	}
}

// send queues a frame. The caller holds mu.
func (c *conn) send(ch uint16, body any) {
	if !c.gone {
		c.out.add(amqp.AppendFrame(nil, amqp.Frame{Channel: ch, Body: body}), false)
	}
}

func (c *conn) read() error {
	r := bufio.NewReaderSize(c.nc, 4096)
	header := func() (string, error) {
		var b [8]byte
		_, err := io.ReadFull(r, b[:])
		return string(b[:]), err
	}
	h, err := header()
	if err != nil {
		return err
	}
	if h == amqp.HeaderSASL {
		c.out.add(amqp.AppendFrame([]byte(amqp.HeaderSASL), amqp.Frame{Type: amqp.FrameSASL, Body: &amqp.SASLMechanisms{
			Mechanisms: []amqp.Symbol{"MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"},
		}}), false)
		f, err := amqp.ReadFrame(r, maxFrame)
		if err != nil {
			return err
		}
		init, ok := f.Body.(*amqp.SASLInit)
		code := uint8(0)
		if !ok || !slices.Contains([]amqp.Symbol{"MSSBCBS", "ANONYMOUS", "EXTERNAL"}, init.Mechanism) {
			code = 1 // PLAIN is offered by the service; here it opens nothing
		}
		c.out.add(amqp.AppendFrame(nil, amqp.Frame{Type: amqp.FrameSASL, Body: &amqp.SASLOutcome{Code: code}}), false)
		if code != 0 {
			return io.EOF
		}
		h, err = header()
		if err != nil {
			return err
		}
	}
	c.out.add([]byte(amqp.HeaderAMQP), false)
	if h != amqp.HeaderAMQP {
		return io.EOF
	}
	for {
		f, err := amqp.ReadFrame(r, maxFrame)
		if err != nil {
			return err
		}
		if f.Body == nil {
			continue
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

func (c *conn) frame(f amqp.Frame) error {
	mu := &c.b.mu
	mu.Lock()
	if c.gone {
		mu.Unlock()
		return io.EOF
	}
	if open, ok := f.Body.(*amqp.Open); ok {
		defer mu.Unlock()
		if c.opened {
			return amqp.Errorf(amqp.NotAllowed, "open comes once")
		}
		c.opened = true
		c.maxFrame = maxFrame
		if open.MaxFrameSize != 0 {
			c.maxFrame = max(512, min(maxFrame, open.MaxFrameSize))
		}
		c.send(0, &amqp.Open{ContainerID: "service-bus", MaxFrameSize: maxFrame,
			ChannelMax: ptr(uint16(math.MaxUint16))})
		if open.IdleTimeout > 0 {
			c.heartbeat(max(time.Duration(open.IdleTimeout)*time.Millisecond*5/6, 100*time.Millisecond))
		}
		return nil
	}
	if !c.opened {
		mu.Unlock()
		return amqp.Errorf(amqp.NotAllowed, "open comes first")
	}
	if _, ok := f.Body.(*amqp.Close); ok {
		defer mu.Unlock()
		c.send(0, &amqp.Close{})
		return io.EOF
	}
	s := c.sessions[f.Channel]
	if begin, ok := f.Body.(*amqp.Begin); ok {
		defer mu.Unlock()
		if s != nil {
			return amqp.Errorf(amqp.NotAllowed, "channel %d is taken", f.Channel)
		}
		c.sessions[f.Channel] = &session{
			c: c, ch: f.Channel, nextIncoming: begin.NextOutgoingID, remoteWindow: begin.IncomingWindow,
			links: map[uint32]*link{}, unsettled: map[uint32]delivery{},
		}
		c.send(f.Channel, &amqp.Begin{RemoteChannel: ptr(f.Channel), IncomingWindow: window, OutgoingWindow: window,
			HandleMax: ptr(uint32(math.MaxUint32))})
		return nil
	}
	if s == nil {
		mu.Unlock()
		return amqp.Errorf(amqp.NotAllowed, "channel %d has no session", f.Channel)
	}
	switch p := f.Body.(type) {
	case *amqp.Attach:
		mu.Unlock()
		return s.attach(p)
	case *amqp.Transfer:
		mu.Unlock()
		return s.transfer(p, f.Payload)
	case *amqp.Disposition:
		mu.Unlock()
		s.disposition(p)
		return nil
	}
	defer mu.Unlock()
	switch p := f.Body.(type) {
	case *amqp.Flow:
		s.flow(p)
	case *amqp.Detach:
		if l := s.links[p.Handle]; l != nil {
			delete(s.links, p.Handle)
			l.leave()
			if !l.detached {
				c.send(s.ch, &amqp.Detach{Handle: p.Handle, Closed: p.Closed})
			}
		}
	case *amqp.End:
		s.leave()
		delete(c.sessions, s.ch)
		c.send(s.ch, &amqp.End{})
	default:
		return amqp.Errorf(amqp.NotImplemented, "a %T frame is not supported", p)
	}
	return nil
}

func (c *conn) heartbeat(every time.Duration) {
	c.beat = c.b.after(every, func() {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		if !c.gone {
			c.send(0, nil)
			c.heartbeat(every)
		}
	})
}

func (s *session) leave() {
	for _, l := range s.links {
		l.leave()
	}
	clear(s.links)
}

func (l *link) leave() {
	if l.cons != nil {
		l.s.c.b.leave(l.cons)
		l.cons = nil
	}
	if w := l.waiter; w != nil {
		w.timer.stop()
		l.q.waiters = slices.DeleteFunc(l.q.waiters, func(o *waiter) bool { return o == w })
		l.waiter = nil
	}
}

// alive reports whether a link is still there. The caller holds mu.
func (l *link) alive() bool {
	return !l.s.c.gone && l.s.c.sessions[l.s.ch] == l.s && l.s.links[l.handle] == l && !l.detached
}

// operate runs an operation that the injector may make fail. act takes effect, answer
// answers the client, refuse answers that it failed; each takes mu itself.
func (c *conn) operate(name string, act, answer func(), refuse func(*faults.Fault)) {
	f := c.b.cfg.Injector.Enter(c.nc.RemoteAddr().String(), faults.Call{Service: "servicebus", Operation: name})
	drop := func() {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.drop()
	}
	later := func(d time.Duration, do func()) {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.b.after(d, do)
	}
	if f == nil {
		act()
		answer()
		return
	}
	switch f.Mode {
	case faults.StatusAfter, faults.ResetAfter, faults.HangAfter:
		act()
	}
	if f.Mode != faults.Slow {
		f.RunThen()
	}
	switch f.Mode {
	case faults.Status, faults.StatusAfter:
		refuse(f)
	case faults.ResetBefore, faults.ResetAfter:
		drop()
	case faults.HangBefore, faults.HangAfter:
		if f.Delay > 0 {
			later(f.Delay, drop)
		}
	case faults.Slow:
		later(f.Delay, func() {
			act()
			answer()
		})
	}
}

func fault(f *faults.Fault) *amqp.Error {
	if f.Status == http.StatusTooManyRequests || f.Status == http.StatusServiceUnavailable {
		return amqp.Errorf(condBusy, "The server is busy. Please retry the operation. (status %d)", f.Status)
	}
	return amqp.Errorf(amqp.InternalError, "The service was unable to process the request. (status %d)", f.Status)
}

func (s *session) attach(p *amqp.Attach) error {
	c, b := s.c, s.c.b
	b.mu.Lock()
	if s.links[p.Handle] != nil {
		b.mu.Unlock()
		return amqp.Errorf(amqp.HandleInUse, "handle %d is taken", p.Handle)
	}
	l := &link{s: s, name: p.Name, handle: p.Handle, sender: p.Role == amqp.RoleSender, pending: p}
	s.links[p.Handle] = l
	if p.InitialDeliveryCount != nil {
		l.deliveryCount = *p.InitialDeliveryCount
	}
	if p.Target != nil {
		l.target = p.Target.Address
	}
	switch {
	case l.sender && p.Target != nil:
		l.address = p.Target.Address
	case !l.sender && p.Source != nil:
		l.address = p.Source.Address
	}
	if p.Target != nil && p.Target.Coordinator {
		l.refuse(p, amqp.Errorf(amqp.NotImplemented, "Transactions are not supported."))
		b.mu.Unlock()
		return nil
	}
	if i := strings.Index(l.address, "://"); i >= 0 {
		_, l.address, _ = strings.Cut(l.address[i+3:], "/")
	}
	path := strings.ToLower(strings.Trim(l.address, "/"))
	node, management := strings.CutSuffix(path, "/$management")
	q := b.find(node)
	var bad *amqp.Error
	switch {
	case path == "$cbs":
		if c.hasCBS(l) {
			bad = amqp.Errorf(amqp.NotAllowed, "A link to the $cbs node has already been opened in this connection.")
		}
	case q == nil:
		bad = amqp.Errorf(amqp.NotFound, "The messaging entity '%s' could not be found.", l.address)
	case !c.allowed(path, l.sender || management, !l.sender || management):
		need := "Send"
		if !l.sender {
			need = "Listen"
		}
		bad = amqp.Errorf(amqp.UnauthorizedAccess,
			"Unauthorized access. '%s' claim(s) are required to perform this operation. Resource: '%s'.", need,
			l.address)
	case management:
	case l.sender && (q.isDead || strings.Contains(path, "/subscriptions/")), !l.sender && q.topic:
		bad = amqp.Errorf(amqp.NotAllowed, "The entity '%s' does not allow this link.", l.address)
	}
	switch {
	case bad != nil:
		l.refuse(p, bad)
		b.mu.Unlock()
		return nil
	case q != nil:
		q.accessed = time.Now()
	}
	switch {
	case path == "$cbs" || management:
		l.q = q
		l.handler = (*link).cbs
		if management {
			l.handler = (*link).manage
		}
		l.accept(p, nil, nil)
	case l.sender:
		l.q = q
		l.accept(p, nil, nil)
	default:
		l.q = q
		b.mu.Unlock()
		c.operate("receive "+q.name, func() {}, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if l.alive() {
				l.receive(p)
			}
		}, func(f *faults.Fault) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if l.alive() {
				l.refuse(p, fault(f))
			}
		})
		return nil
	}
	b.mu.Unlock()
	return nil
}

// hasCBS reports whether the connection has another link to $cbs of the same
// direction; the service allows one.
func (c *conn) hasCBS(l *link) bool {
	for _, s := range c.sessions {
		for _, o := range s.links {
			isCBS := o.q == nil && o.handler != nil && !o.detached
			if o != l && isCBS && o.sender == l.sender {
				return true
			}
		}
	}
	return false
}

// accept answers an attach in the peer's settle modes.
func (l *link) accept(p *amqp.Attach, filter, properties amqp.Map) {
	l.pending = nil
	snd, rcv := amqp.SenderMixed, amqp.ReceiverFirst
	if p.SenderSettleMode != nil {
		snd = *p.SenderSettleMode
	}
	if p.ReceiverSettle != nil {
		rcv = *p.ReceiverSettle
	}
	a := &amqp.Attach{
		Name: p.Name, Handle: p.Handle, Role: !p.Role, SenderSettleMode: &snd, ReceiverSettle: &rcv,
		Source: p.Source, Target: p.Target, Properties: properties,
	}
	if l.sender {
		a.MaxMessageSize = maxMessageSize
	} else {
		a.InitialDeliveryCount = ptr(uint32(0))
		src := amqp.Source{}
		if p.Source != nil {
			src = *p.Source
		}
		src.Filter = filter
		a.Source = &src
	}
	l.s.c.send(l.s.ch, a)
	if l.sender {
		l.sendCredit()
	}
}

// refuse answers an attach with an end that is not there, and a detach.
func (l *link) refuse(p *amqp.Attach, why *amqp.Error) {
	l.pending = nil
	a := &amqp.Attach{Name: p.Name, Handle: p.Handle, Role: !p.Role, SenderSettleMode: p.SenderSettleMode,
		ReceiverSettle: p.ReceiverSettle}
	if l.sender {
		a.Source = p.Source
	} else {
		a.Target = p.Target
		a.InitialDeliveryCount = ptr(uint32(0))
	}
	l.s.c.send(l.s.ch, a)
	l.end(why)
}

func (l *link) end(why *amqp.Error) {
	if p := l.pending; p != nil {
		l.refuse(p, why) // an attach is answered first
		return
	}
	l.detached = true
	l.s.c.send(l.s.ch, &amqp.Detach{Handle: l.handle, Closed: true, Error: why})
}

// receive opens a receiving link on a queue, at once or when there is a session.
func (l *link) receive(p *amqp.Attach) {
	b, q := l.s.c.b, l.q
	var filter any
	wants, isDescribed := false, false
	if p.Source != nil {
		for _, pair := range p.Source.Filter {
			if k, ok := pair.Key.(amqp.Symbol); ok && k == filterSession {
				wants, filter = true, pair.Value
				if d, ok := filter.(amqp.Described); ok {
					filter, isDescribed = d.Value, true
				}
			}
		}
	}
	cons := &consumer{q: q, destructive: p.SenderSettleMode != nil && *p.SenderSettleMode == amqp.SenderSettled,
		deliver: l.deliver}
	if wants != q.props.RequiresSession {
		text := "It is not possible for an entity that requires sessions to create a non-sessionful message receiver."
		if wants {
			text = "A sessionful message receiver cannot be created on an entity that does not require sessions."
		}
		l.refuse(p, amqp.Errorf(amqp.NotAllowed, "%s", text))
		return
	}
	if !wants {
		l.cons = cons
		q.consumers = append(q.consumers, cons)
		l.accept(p, nil, nil)
		return
	}
	cons.lost = func(why *amqp.Error) {
		l.cons = nil
		if l.alive() {
			l.end(why)
		}
	}
	grant := func(g *group) {
		l.waiter, l.cons = nil, cons
		q.consumers = append(q.consumers, cons)
		b.hold(g, cons)
		// Clients compare it with what they have sent, in the form in which they sent it.
		var locked any = g.id
		if isDescribed {
			locked = amqp.Described{Descriptor: uint64(0x137000000C), Value: g.id}
		}
		l.accept(p, amqp.Map{{Key: amqp.Symbol(filterSession), Value: locked}},
			amqp.Map{{Key: amqp.Symbol("com.microsoft:locked-until-utc"), Value: ticks(g.until)}})
	}
	switch id := filter.(type) {
	case string:
		g := q.group(id)
		if g.holder != nil {
			l.refuse(p, amqp.Errorf(condSessionHeld,
				"The requested session '%s' cannot be accepted. It may be locked by another receiver.", id))
			return
		}
		grant(g)
	case nil:
		wait := b.cfg.SessionWait
		if ms, ok := p.Properties.Get("com.microsoft:timeout").(uint32); ok {
			wait = min(wait, time.Duration(ms)*time.Millisecond)
		}
		w := &waiter{grant: grant}
		w.timer = b.after(wait, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if l.waiter == w {
				l.leave()
				l.refuse(p,
					amqp.Errorf(condTimeout,
						"The operation did not complete within the allotted timeout of %v. No session was available.",
						wait))
			}
		})
		l.waiter = w
		q.waiters = append(q.waiters, w)
		b.pump(q)
	default:
		l.refuse(p, amqp.Errorf(amqp.InvalidField, "The session filter is a %T.", id))
	}
}

// ticks are .NET's: 100 ns since the year 1.
func ticks(t time.Time) int64 { return t.Unix()*1e7 + int64(t.Nanosecond()/100) + 621355968000000000 }

// tag is a lock token as a .NET Guid writes it.
func tag(u amqp.UUID) []byte {
	return []byte{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}

// deliver sends an entry on its way.
func (l *link) deliver(e *entry) {
	token := e.token
	if !e.locked {
		token = amqp.UUID{}
	}
	id := l.write(tag(token), e.wire(), !e.locked)
	if e.locked {
		l.s.unsettled[id] = delivery{l.q, e.token}
	}
}

// write queues the frames of one delivery.
func (l *link) write(tag, body []byte, settled bool) uint32 {
	s := l.s
	id := s.nextDelivery
	s.nextDelivery++
	l.deliveryCount++
	chunk := int(s.c.maxFrame) - 256
	for first := true; first || len(body) > 0; first = false {
		n := min(chunk, len(body))
		t := &amqp.Transfer{Handle: l.handle, DeliveryID: &id, DeliveryTag: tag, MessageFormat: ptr(uint32(0)),
			Settled: settled, More: n < len(body)}
		s.waiting = append(s.waiting, amqp.Frame{Channel: s.ch, Body: t, Payload: body[:n]})
		body = body[n:]
	}
	s.flush()
	return id
}

func (s *session) flush() {
	for len(s.waiting) > 0 && s.remoteWindow > 0 {
		if !s.c.gone {
			s.c.out.add(amqp.AppendFrame(nil, s.waiting[0]), false)
		}
		s.waiting = s.waiting[1:]
		s.remoteWindow--
		s.nextOutgoing++
	}
}

func (s *session) sendFlow(l *link, credit uint32, drain bool) {
	f := &amqp.Flow{NextIncomingID: ptr(s.nextIncoming), IncomingWindow: window, NextOutgoingID: s.nextOutgoing,
		OutgoingWindow: window}
	s.taken = 0
	if l != nil {
		f.Handle, f.DeliveryCount, f.LinkCredit, f.Drain = &l.handle, ptr(l.deliveryCount), &credit, drain
	}
	s.c.send(s.ch, f)
}

func (l *link) sendCredit() {
	l.used = 0
	l.s.sendFlow(l, senderCredit, false)
}

func (s *session) flow(p *amqp.Flow) {
	next := uint32(0)
	if p.NextIncomingID != nil {
		next = *p.NextIncomingID
	}
	s.remoteWindow = next + p.IncomingWindow - s.nextOutgoing
	s.flush()
	if p.Handle == nil {
		if p.Echo {
			s.sendFlow(nil, 0, false)
		}
		return
	}
	l := s.links[*p.Handle]
	if l == nil || l.detached {
		return
	}
	if l.sender || p.LinkCredit == nil {
		return
	}
	count := uint32(0)
	if p.DeliveryCount != nil {
		count = *p.DeliveryCount
	}
	credit := count + *p.LinkCredit - l.deliveryCount
	if int32(credit) < 0 {
		credit = 0
	}
	left := &l.credit
	if l.cons != nil {
		left = &l.cons.credit
	}
	*left = credit
	if l.cons != nil {
		s.c.b.pump(l.q)
	} else {
		l.reply()
	}
	if p.Drain && l.alive() {
		l.deliveryCount += *left
		*left = 0
		s.sendFlow(l, 0, true)
	} else if p.Echo && l.alive() {
		s.sendFlow(l, *left, false)
	}
}

// reply sends answers of $cbs and $management as the credit allows.
func (l *link) reply() {
	for len(l.replies) > 0 && l.credit > 0 {
		l.credit--
		body := l.replies[0]
		l.replies = l.replies[1:]
		l.write(fmt.Appendf(nil, "%08x", l.deliveryCount), body, true)
	}
}

// transfer takes a frame of a message.
func (s *session) transfer(p *amqp.Transfer, payload []byte) error {
	c, b := s.c, s.c.b
	b.mu.Lock()
	s.nextIncoming++
	s.taken++
	if s.taken > window/2 {
		s.sendFlow(nil, 0, false)
	}
	l := s.links[p.Handle]
	if l == nil || !l.sender {
		b.mu.Unlock()
		return amqp.Errorf(amqp.UnattachedHandle, "handle %d does not send", p.Handle)
	}
	if l.detached {
		b.mu.Unlock()
		return nil
	}
	if !l.open {
		if p.DeliveryID == nil {
			b.mu.Unlock()
			return amqp.Errorf(amqp.InvalidField, "a delivery begins without an id")
		}
		l.open, l.deliveryID, l.format, l.settled, l.partial = true, *p.DeliveryID, 0, false, nil
		if p.MessageFormat != nil {
			l.format = *p.MessageFormat
		}
	}
	l.settled = l.settled || p.Settled
	l.partial = append(l.partial, payload...)
	if len(l.partial) > maxMessageSize {
		l.end(amqp.Errorf(amqp.MessageSizeExceeded,
			"The received message (delivery-id:%d) exceeds the limit (%d bytes) currently allowed on the link.",
			l.deliveryID, maxMessageSize))
		l.open, l.partial = false, nil
		b.mu.Unlock()
		return nil
	}
	if p.More && !p.Aborted {
		b.mu.Unlock()
		return nil
	}
	body, id, format, settled := l.partial, l.deliveryID, l.format, l.settled
	l.open, l.partial = false, nil
	l.deliveryCount++
	l.used++
	if l.used > senderCredit/2 {
		l.sendCredit()
	}
	b.mu.Unlock()
	if p.Aborted {
		return nil
	}
	answer := func(why *amqp.Error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if settled || c.sessions[s.ch] != s {
			return
		}
		var state any = amqp.Accepted{}
		if why != nil {
			state = &amqp.Rejected{Error: why}
		}
		c.send(s.ch, &amqp.Disposition{Role: amqp.RoleReceiver, First: id, Last: ptr(id), Settled: true, State: state})
	}
	ms, err := messages(body, format)
	if err != nil {
		answer(amqp.Errorf(amqp.DecodeError, "%v", err))
		return nil
	}
	if l.handler != nil {
		answer(nil)
		l.handler(l, ms[0])
		return nil
	}
	var refused *amqp.Error
	c.operate("send "+l.q.name, func() {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return
		}
		var accepted []Message
		_, accepted, refused = b.accept(l.q, ms)
		b.mu.Unlock()
		b.notify(l.q, accepted)
	}, func() { answer(refused) }, func(f *faults.Fault) { answer(fault(f)) })
	return nil
}

// messages reads a delivery: one message, or a batch of them.
func messages(body []byte, format uint32) ([]*amqp.Message, error) {
	m, err := amqp.DecodeMessage(body)
	if err != nil || format != batchFormat {
		return []*amqp.Message{m}, err
	}
	var out []*amqp.Message
	for _, d := range m.Data() {
		one, err := amqp.DecodeMessage(d)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil, errors.New("an empty batch")
	}
	return out, nil
}

// disposition settles what the peer received.
func (s *session) disposition(p *amqp.Disposition) {
	c, b := s.c, s.c.b
	if p.Role != amqp.RoleReceiver || p.State == nil && !p.Settled {
		return
	}
	last := p.First
	if p.Last != nil {
		last = *p.Last
	}
	b.mu.Lock()
	var ids []uint32
	for id := range s.unsettled {
		if id-p.First <= last-p.First {
			ids = append(ids, id)
		}
	}
	b.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		b.mu.Lock()
		d := s.unsettled[id]
		b.mu.Unlock()
		set, state, bad := settlementOf(p.State)
		answer := func(why *amqp.Error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(s.unsettled, id)
			if p.Settled || c.sessions[s.ch] != s {
				return
			}
			if why != nil {
				state = &amqp.Rejected{Error: why}
			}
			c.send(s.ch, &amqp.Disposition{Role: amqp.RoleSender, First: id, Last: ptr(id), Settled: true,
				State: state})
		}
		if bad != nil {
			answer(bad)
			continue
		}
		var why *amqp.Error
		act := func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			why = b.settle(d.q, d.token, set)
		}
		if set.outcome == release {
			act()
			answer(why)
			continue
		}
		c.operate(set.outcome.String()+" "+d.q.name, act, func() { answer(why) },
			func(f *faults.Fault) { answer(fault(f)) })
	}
}

// settlementOf reads a delivery state, and gives the one that confirms it.
func settlementOf(state any) (settlement, any, *amqp.Error) {
	switch st := state.(type) {
	case amqp.Accepted:
		return settlement{outcome: complete}, st, nil
	case nil, amqp.Released:
		return settlement{outcome: release}, amqp.Released{}, nil
	case *amqp.Modified:
		o := abandon
		if st.UndeliverableHere {
			o = deferred
		}
		return settlement{outcome: o, modify: st.Annotations}, st, nil
	case *amqp.Rejected:
		s := settlement{outcome: deadLetter}
		if st.Error != nil {
			if st.Error.Condition != condDeadLetter {
				s.reason, s.description = string(st.Error.Condition), st.Error.Description
			}
			for _, p := range st.Error.Info {
				k, ok := p.Key.(string)
				if sym, is := p.Key.(amqp.Symbol); is {
					k, ok = string(sym), true
				}
				text, _ := p.Value.(string)
				switch {
				case !ok:
				case k == "DeadLetterReason":
					s.reason = text
				case k == "DeadLetterErrorDescription":
					s.description = text
				default:
					s.modify = append(s.modify, amqp.Pair{Key: k, Value: p.Value})
				}
			}
		}
		return s, &amqp.Rejected{}, nil
	}
	return settlement{}, nil, amqp.Errorf(amqp.NotImplemented, "The delivery state is not supported.")
}
