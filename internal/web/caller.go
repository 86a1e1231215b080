package web

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Caller is who asks for an act, and how.
type Caller struct {
	Who     string // App Service authentication's user, or "http"
	Trigger string // http, dashboard
	// Key is the Idempotency-Key: the same act with the same key is done once.
	Key string
}

// maxKey bounds an Idempotency-Key.
const maxKey = 128

// CallerOf reads who sends a request. trigger says by which door: http, dashboard.
func CallerOf(r *http.Request, trigger string) (Caller, *Problem) {
	by := Caller{Who: actor(r), Trigger: trigger}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return by, nil
	}
	by.Key = keys[0]
	visible := func(c rune) bool { return c >= '!' && c <= '~' }
	if len(keys) > 1 || by.Key == "" || len(by.Key) > maxKey || strings.ContainsFunc(by.Key,
		func(c rune) bool { return !visible(c) }) {
		return by, &Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "The request cannot be used",
			Detail: "Idempotency-Key may come once, with 1 to 128 visible ASCII characters."}
	}
	return by, nil
}

// actor names who asks: App Service authentication's user, if it is on.
func actor(r *http.Request) string {
	if name := r.Header.Get("X-Ms-Client-Principal-Name"); name != "" && len(name) <= 256 {
		return name
	}
	return "http"
}

// operation is the same for every request with the same key of the same caller, in
// every process: so are then the ids of what the act sends.
func (by Caller) operation() string {
	sum := sha256.Sum256([]byte("idempotency\n" + by.Who + "\n" + by.Key))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
}

// act is what somebody asks for.
type request struct {
	name   string
	target string
	body   any
	// anew is for an act whose repeat may well be done again, and whose answer
	// would be much to remember.
	anew bool
}

// do does one act: at most once for each idempotency key, and with its line in the
// audit log whatever comes of it.
func do[T any](ctx context.Context, a *API, by Caller, what request, f func(operation string) (T, *Problem)) (out T,
	p *Problem) {
	operation := a.Operation()
	if by.Key != "" {
		operation = by.operation()
	}
	record := rotation.Record{Who: by.Who, Trigger: by.Trigger, Act: what.name, Target: clip(what.target),
		Outcome: "failed", Activity: operation}
	defer func() { record.Write(ctx, a.Log) }()

	var slot *slot
	if by.Key != "" {
		if slot, p = a.answers.enter(ctx, by, what, a.Now()); p != nil {
			record.Outcome = p.Type
			return out, p
		}
		if slot.kept {
			record.Outcome = "repeated"
			return slot.value.(T), nil
		}
		defer func() { a.answers.leave(slot, out, p == nil && record.Outcome == "done", what.anew) }()
	}
	if out, p = f(operation); p != nil {
		record.Outcome = p.Type
		if p.ActivityID != "" {
			record.Activity = p.ActivityID
		}
		return out, p
	}
	record.Outcome = "done"
	return out, nil
}

const (
	// maxAnswers and answerAge bound what is remembered of acts with a key.
	maxAnswers = 1000
	answerAge  = 24 * time.Hour
)

// answers remembers the acts of this process that came with an idempotency key. What
// another process has answered it does not know: there the same key gives the same
// operation, which drops a repeated command and finds a rotation that was done; but
// another body with the key is taken for another act.
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
	done  chan struct{} // closed when the act has ended
	kept  bool          // value is the answer
	value any
}

// enter waits for the same act if it is under way, and gives its slot.
func (m *answers) enter(ctx context.Context, by Caller, what request, now time.Time) (*slot, *Problem) {
	body, err := json.Marshal(what.body)
	if err != nil {
		return nil, &Problem{Status: http.StatusInternalServerError, Type: "internal", Title: "patrol cannot do this"}
	}
	id := by.Who + "\n" + by.Key
	asked := sha256.Sum256([]byte(what.name + "\n" + strings.ToLower(what.target) + "\n" + string(body)))
	for {
		m.mu.Lock()
		s := m.slots[id]
		if s == nil || now.Sub(s.at) > answerAge {
			s = &slot{id: id, asked: asked, at: now, done: make(chan struct{})}
			if m.slots == nil {
				m.slots = map[string]*slot{}
			}
			m.slots[id] = s
			m.order = append(m.order, s)
			if len(m.order) > maxAnswers {
				m.drop(m.order[0])
				m.order = m.order[1:]
			}
			m.mu.Unlock()
			return s, nil
		}
		m.mu.Unlock()
		if s.asked != asked {
			return nil, &Problem{Status: http.StatusUnprocessableEntity, Type: "idempotency-key-reused",
				Title:  "This Idempotency-Key belongs to another request",
				Detail: "It was sent with another function, target or body before: use a new key for a new act."}
		}
		select {
		case <-s.done:
			if s.kept {
				return s, nil
			}
			// It failed, or is to be done anew.
			m.mu.Lock()
			m.drop(s)
			m.mu.Unlock()
		case <-ctx.Done():
			return nil, &Problem{Status: http.StatusServiceUnavailable, Type: "busy",
				Title: "The same request is under way", retryAfter: 5}
		}
	}
}

func (m *answers) drop(s *slot) {
	if m.slots[s.id] == s {
		delete(m.slots, s.id)
	}
}

// leave ends an act. A failed one leaves its key free for another try.
func (m *answers) leave(s *slot, value any, ok, anew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.kept = ok && !anew; s.kept {
		s.value = value
	} else if !ok {
		m.drop(s)
	}
	close(s.done)
}
