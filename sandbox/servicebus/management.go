package servicebus

import (
	"cmp"
	"slices"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

// response of an operation of $management.
type response struct {
	code        int32
	description string
	condition   amqp.Symbol
	body        amqp.Map
}

func success(body amqp.Map) response { return response{code: 200, description: "OK", body: body} }

func noContent() response { return response{code: 204, description: "No content"} }

func badRequest(why string) response { return response{code: 400, description: why} }

func lockLost(condition amqp.Symbol) response {
	return response{code: 410,
		description: "The lock supplied is invalid. Either the lock expired, or the message has already been removed " +
			"from the queue.",
		condition: condition}
}

// manage answers a request to entity/$management.
func (l *link) manage(m *amqp.Message) {
	b, c := l.s.c.b, l.s.c
	operation, _ := m.ApplicationProperties.Get("operation").(string)
	value, _ := m.Value()
	body, ok := value.(amqp.Map)
	r := badRequest("The body is not a map.")
	answer := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.alive() {
			l.answer(m, r.code, r.description, r.condition, r.body)
		}
	}
	if !ok {
		answer()
		return
	}
	locked := func(do func(*queue, amqp.Map) response) func() {
		return func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			r = do(l.q, body)
		}
	}
	refuse := func(f *faults.Fault) {
		r = response{code: int32(f.Status), description: fault(f).Description, condition: fault(f).Condition}
		answer()
	}
	switch operation {
	case "com.microsoft:schedule-message":
		c.operate("schedule "+l.q.name, func() { r = b.schedule(l.q, body) }, answer, refuse)
		return
	case "com.microsoft:cancel-scheduled-message":
		locked(b.cancel)()
	case "com.microsoft:renew-lock":
		locked(b.renewLocks)()
	case "com.microsoft:renew-session-lock":
		locked(b.renewSession)()
	case "com.microsoft:peek-message":
		locked(b.peek)()
	case "com.microsoft:receive-by-sequence-number":
		locked(b.receiveDeferred)()
	case "com.microsoft:update-disposition":
		set, ok := managedSettlement(body)
		if !ok {
			r = badRequest("The disposition-status is not known.")
			break
		}
		c.operate(set.outcome.String()+" "+l.q.name,
			locked(func(q *queue, body amqp.Map) response { return b.settleAll(q, body, set) }), answer, refuse)
		return
	case "com.microsoft:get-session-state":
		locked(b.sessionState)()
	case "com.microsoft:set-session-state":
		locked(b.setSessionState)()
	case "com.microsoft:get-message-sessions":
		locked(b.listSessions)()
	case "com.microsoft:add-rule":
		locked(c.ruled(b.addRule))()
	case "com.microsoft:remove-rule":
		locked(c.ruled(b.removeRule))()
	case "com.microsoft:enumerate-rules":
		locked(c.ruled(b.listRules))()
	default:
		r = response{code: 501, description: "The operation is not supported.", condition: amqp.NotImplemented}
	}
	answer()
}

// items reads an array, or the list that some clients send in its place.
func items[T any](v any) ([]T, bool) {
	var all []any
	switch v := v.(type) {
	case amqp.Array:
		all = v.Items
	case amqp.List:
		all = v
	default:
		return nil, false
	}
	out := make([]T, len(all))
	for i, e := range all {
		t, ok := e.(T)
		if !ok {
			return nil, false
		}
		out[i] = t
	}
	return out, true
}

func array[T any](code byte, from []T) amqp.Array {
	a := amqp.Array{Code: code}
	for _, v := range from {
		a.Items = append(a.Items, v)
	}
	return a
}

func (b *Bus) schedule(q *queue, body amqp.Map) response {
	list, ok := items[amqp.Map](body.Get("messages"))
	if !ok || len(list) == 0 {
		return badRequest("messages are missing.")
	}
	var ms []*amqp.Message
	for _, one := range list {
		raw, ok := one.Get("message").([]byte)
		if !ok {
			return badRequest("A message is missing.")
		}
		if len(raw) > maxMessageSize {
			return response{code: 413, description: "A message is too large.", condition: amqp.MessageSizeExceeded}
		}
		m, err := amqp.DecodeMessage(raw)
		if err != nil {
			return badRequest("A message is not readable.")
		}
		if _, ok := m.Annotations.Get("x-opt-scheduled-enqueue-time").(time.Time); !ok {
			return badRequest("A message has no x-opt-scheduled-enqueue-time.")
		}
		ms = append(ms, m)
	}
	b.mu.Lock()
	seqs, accepted, refused := b.accept(q, ms)
	b.mu.Unlock()
	if refused != nil {
		return response{code: 400, description: refused.Description, condition: refused.Condition}
	}
	b.notify(q, accepted)
	return success(amqp.Map{{Key: "sequence-numbers", Value: array(amqp.CodeLong, seqs)}})
}

func (b *Bus) cancel(q *queue, body amqp.Map) response {
	seqs, ok := items[int64](body.Get("sequence-numbers"))
	if !ok {
		return badRequest("sequence-numbers are missing.")
	}
	var found []*entry
	for _, seq := range seqs {
		i := slices.IndexFunc(q.entries, func(e *entry) bool { return e.seq == seq && e.state == stateScheduled })
		if i < 0 {
			return response{code: 404, description: "The scheduled message does not exist.",
				condition: "com.microsoft:message-not-found"}
		}
		found = append(found, q.entries[i])
	}
	for _, e := range found {
		e.timer.stop()
		q.remove(e)
	}
	return success(nil)
}

func (b *Bus) renewLocks(q *queue, body amqp.Map) response {
	tokens, ok := items[amqp.UUID](body.Get("lock-tokens"))
	if !ok {
		return badRequest("lock-tokens are missing.")
	}
	for _, t := range tokens {
		e := q.locks[t]
		if e == nil {
			return lockLost(condLockLost)
		}
		if e.holder != nil {
			return badRequest("A message of a session has no lock of its own; renew the session's.")
		}
	}
	var until []time.Time
	for _, t := range tokens {
		e := q.locks[t]
		b.arm(e)
		until = append(until, e.until)
	}
	return success(amqp.Map{{Key: "expirations", Value: array(amqp.CodeTimestamp, until)}})
}

// heldSession is the session that a request names, if somebody holds it.
func heldSession(q *queue, body amqp.Map) *group {
	id, ok := body.Get("session-id").(string)
	if g := q.groups[id]; ok && g != nil && g.holder != nil {
		return g
	}
	return nil
}

func (b *Bus) renewSession(q *queue, body amqp.Map) response {
	g := heldSession(q, body)
	if g == nil {
		return lockLost(condSessionLockLost)
	}
	b.armGroup(g)
	return success(amqp.Map{{Key: "expiration", Value: g.until}})
}

func (b *Bus) peek(q *queue, body amqp.Map) response {
	from, ok := body.Get("from-sequence-number").(int64)
	count, ok2 := body.Get("message-count").(int32)
	if !ok || !ok2 {
		return badRequest("from-sequence-number or message-count is missing.")
	}
	session, inSession := body.Get("session-id").(string)
	var out amqp.List
	size := 0
	for _, e := range q.entries {
		if e.seq < from || inSession && e.group != session {
			continue
		}
		raw := e.wire()
		if len(out) >= int(count) || len(out) > 0 && size+len(raw) > maxMessageSize {
			break
		}
		size += len(raw)
		out = append(out, amqp.Map{{Key: "message", Value: raw}})
	}
	if len(out) == 0 {
		return noContent()
	}
	return success(amqp.Map{{Key: "messages", Value: out}})
}

func (b *Bus) receiveDeferred(q *queue, body amqp.Map) response {
	seqs, ok := items[int64](body.Get("sequence-numbers"))
	mode, ok2 := body.Get("receiver-settle-mode").(uint32)
	if !ok || !ok2 {
		return badRequest("sequence-numbers or receiver-settle-mode is missing.")
	}
	// The Go SDK names no session here: then each message's own must be held.
	_, named := body.Get("session-id").(string)
	if q.props.RequiresSession && named && heldSession(q, body) == nil {
		return lockLost(condSessionLockLost)
	}
	var out amqp.List
	for _, e := range slices.Clone(q.entries) {
		if !slices.Contains(seqs, e.seq) || e.state != stateDeferred || e.locked {
			continue
		}
		var g *group
		if q.props.RequiresSession {
			g = q.groups[e.group]
			if g == nil || g.holder == nil {
				continue
			}
			if named && g != heldSession(q, body) {
				continue
			}
		}
		one := amqp.Map{}
		if mode == 0 {
			q.remove(e)
		} else {
			b.lock(e, g)
			one = append(one, amqp.Pair{Key: "lock-token", Value: e.token})
		}
		out = append(out, append(one, amqp.Pair{Key: "message", Value: e.wire()}))
	}
	if len(out) == 0 {
		return response{code: 404, description: "The message was not found.",
			condition: "com.microsoft:message-not-found"}
	}
	return success(amqp.Map{{Key: "messages", Value: out}})
}

func managedSettlement(body amqp.Map) (settlement, bool) {
	set := settlement{}
	status, _ := body.Get("disposition-status").(string)
	set.reason, _ = body.Get("deadletter-reason").(string)
	set.description, _ = body.Get("deadletter-description").(string)
	set.modify, _ = body.Get("properties-to-modify").(amqp.Map)
	switch status {
	case "completed":
		set.outcome = complete
	case "abandoned":
		set.outcome = abandon
	case "suspended":
		set.outcome = deadLetter
	case "defered":
		set.outcome = deferred
	default:
		return set, false
	}
	return set, true
}

func (b *Bus) settleAll(q *queue, body amqp.Map, set settlement) response {
	tokens, ok := items[amqp.UUID](body.Get("lock-tokens"))
	if !ok {
		return badRequest("lock-tokens are missing.")
	}
	for _, t := range tokens {
		if q.locks[t] == nil {
			return lockLost(condLockLost)
		}
	}
	for _, t := range tokens {
		if why := b.settle(q, t, set); why != nil {
			return response{code: 400, description: why.Description, condition: why.Condition}
		}
	}
	return success(nil)
}

func (b *Bus) sessionState(q *queue, body amqp.Map) response {
	g := heldSession(q, body)
	if g == nil {
		return lockLost(condSessionLockLost)
	}
	var state any
	if g.state != nil {
		state = g.state
	}
	return success(amqp.Map{{Key: "session-state", Value: state}})
}

func (b *Bus) setSessionState(q *queue, body amqp.Map) response {
	g := heldSession(q, body)
	if g == nil {
		return lockLost(condSessionLockLost)
	}
	state, _ := body.Get("session-state").([]byte)
	if len(state) > maxMessageSize {
		return badRequest("The session state is too large.")
	}
	g.state, g.touched = nil, time.Now()
	if len(state) > 0 {
		g.state = slices.Clone(state)
	}
	return success(nil)
}

func (b *Bus) listSessions(q *queue, body amqp.Map) response {
	since, hasSince := body.Get("last-updated-time").(time.Time)
	skip, hasSkip := body.Get("skip").(int32)
	top, hasTop := body.Get("top").(int32)
	paged := hasSkip && hasTop && skip >= 0 && top >= 0
	if !hasSince || !paged {
		return badRequest("last-updated-time, skip or top is missing.")
	}
	all := since.Year() > 9999
	ids := map[string]bool{}
	if all && q.props.RequiresSession {
		for _, e := range q.entries {
			if e.state == stateActive {
				ids[e.group] = true
			}
		}
	}
	for id, g := range q.groups {
		wanted := g.touched.After(since)
		if all {
			wanted = g.state != nil
		}
		if wanted {
			ids[id] = true
		}
	}
	names := make([]string, 0, len(ids))
	for id := range ids {
		names = append(names, id)
	}
	slices.SortFunc(names, cmp.Compare[string])
	names = names[min(int(skip), len(names)):]
	names = names[:min(int(top), len(names))]
	if len(names) == 0 {
		return noContent()
	}
	return success(amqp.Map{{Key: "skip", Value: skip + int32(len(names))},
		{Key: "sessions-ids", Value: array(amqp.CodeString, names)}})
}
