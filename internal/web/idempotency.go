package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// request is what somebody asks for.
type request struct {
	name   string // as audit lines have it
	target string
	body   any
	// repeatable is for a request that may well be carried out again, and whose
	// answer would be much to remember.
	repeatable bool
	// kept is for an act that leaves no trace by which another process could find that it
	// was carried out: its answer is kept for all of them.
	kept bool
}

// Outcomes of an audit line beside a problem's type.
const (
	outcomeDone     = "done"
	outcomeRepeated = "repeated"
	outcomeFailed   = "failed"
)

// ownerOf is whose PAT a request is about, as far as it says.
func (a *API) ownerOf(asked request) (identity, organization string) {
	switch body := asked.body.(type) {
	case RevokeRequest:
		return clip(body.Identity), clip(body.Organization)
	case IncidentRequest:
		if body.Scope.PAT == "" {
			return body.Scope.Identity, body.Scope.Organization
		}
	}
	s, _ := a.Reconciler.Spec(asked.target)
	return s.Identity, s.Organization
}

// actTimeout bounds an act, from when it begins.
const actTimeout = 4 * time.Minute

// toItsEnd is the context of work that does not hang on its caller: whoever has asked for
// an act may leave, and what has begun is not left half done.
func toItsEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
}

// do carries out one request: at most once for each idempotency key, to its end though the
// caller may leave, and with its line in the audit log whatever comes of it.
func do[T any](ctx context.Context, a *API, by Caller, asked request,
	f func(ctx context.Context, operation string) (T, *Problem)) (out T, p *Problem) {
	operation := a.Operation()
	if by.Key != "" {
		operation = by.operation()
	}
	record := rotation.Record{Who: by.Who, Trigger: by.Trigger, Act: asked.name, Target: clip(asked.target),
		Outcome: outcomeFailed, Activity: operation} // what stays if f panics
	record.Route = functionOf(ctx).Route
	record.Identity, record.Organization = a.ownerOf(asked)
	defer func() { record.Write(ctx, a.Log) }()

	var s *slot
	if by.Key != "" {
		s, p = a.answers.enter(ctx, by, asked, a.Now())
		if p != nil {
			record.Outcome = p.Type
			return out, p
		}
		if s.kept {
			record.Outcome = outcomeRepeated
			return s.value.(T), nil
		}
		defer func() { a.answers.leave(s, out, record.Outcome == outcomeDone, asked.repeatable) }()
	}
	act, done := toItsEnd(ctx)
	defer done()
	claimed, p := a.claim(act, s, asked, operation)
	if p != nil {
		record.Outcome = p.Type
		return out, p
	}
	if claimed.isAnswered(&out) {
		record.Outcome = outcomeRepeated
		return out, nil
	}
	defer func() { a.finish(act, claimed, out, record.Outcome == outcomeDone) }()
	defer a.observations.forget()
	out, p = f(act, operation)
	if p != nil {
		record.Outcome = p.Type
		if p.ActivityID != "" {
			record.Activity = p.ActivityID
		}
		return out, p
	}
	record.Outcome = outcomeDone
	return out, nil
}

const (
	// maxAnswers and answerAge bound what is remembered of requests with a key.
	maxAnswers = 1000
	answerAge  = 24 * time.Hour
)

// answers remembers what this process has answered to requests with an idempotency
// key. Of what another process has answered it knows what the ActStore keeps. For the
// rest the same key gives the same operation there, which drops a repeated command and
// finds a rotation that was done; but another body with the key is taken for another
// request.
type answers struct {
	mu    sync.Mutex
	slots map[string]*slot
	order []*slot
}

// slot is one key.
type slot struct {
	id    string
	asked [sha256.Size]byte
	at    time.Time
	done  chan struct{} // closed when the request has been carried out, or has failed
	kept  bool          // value is the answer
	value any
}

// enter gives a request's slot. If the same one is being carried out, it waits for that.
func (m *answers) enter(ctx context.Context, by Caller, asked request, now time.Time) (*slot, *Problem) {
	body, err := json.Marshal(asked.body)
	if err != nil {
		return nil, &Problem{Status: http.StatusInternalServerError, Type: typeInternal,
			Title: "patrol could not read back the request", Detail: "Report it, with the body that was sent."}
	}
	id := by.Who + "\n" + by.Key
	sum := sha256.Sum256([]byte(asked.name + "\n" + strings.ToLower(asked.target) + "\n" + string(body)))
	for {
		s, isNew := m.slot(id, sum, now)
		if isNew {
			return s, nil
		}
		if s.asked != sum {
			return nil, keyReused()
		}
		select {
		case <-s.done:
			if s.kept {
				return s, nil
			}
			m.drop(s) // it failed, or may be carried out again
		case <-ctx.Done():
			return nil, underWay()
		}
	}
}

// slot finds a key's slot, or makes one.
func (m *answers) slot(id string, asked [sha256.Size]byte, now time.Time) (s *slot, isNew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[id]; s != nil && now.Sub(s.at) <= answerAge {
		return s, false
	}
	s = &slot{id: id, asked: asked, at: now, done: make(chan struct{})}
	if m.slots == nil {
		m.slots = map[string]*slot{}
	}
	m.slots[id] = s
	m.order = append(m.order, s)
	if len(m.order) > maxAnswers {
		m.remove(m.order[0])
		m.order = m.order[1:]
	}
	return s, true
}

func (m *answers) drop(s *slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(s)
}

// remove frees a slot's key, unless another slot has it. mu is held.
func (m *answers) remove(s *slot) {
	if m.slots[s.id] == s {
		delete(m.slots, s.id)
	}
}

// leave keeps a request's answer. One that failed leaves its key free for another try.
func (m *answers) leave(s *slot, value any, ok, repeatable bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.kept = ok && !repeatable
	if s.kept {
		s.value = value
	}
	if !ok {
		m.remove(s)
	}
	close(s.done)
}
