package events

import (
	"context"
	"sync"
)

// DefaultMemory is how many ids a Subscriber remembers unless Memory says otherwise.
const DefaultMemory = 4096

// Subscriber turns message bodies into typed calls. Its zero value is ready: set
// the callbacks that you want before the first Handle. It may be used from many
// goroutines at once.
//
// Delivery is at least once, so a message can come twice. An event whose callback
// has succeeded is remembered by source and id and not delivered again, as long as
// Memory holds it; while a callback runs, a copy of its event waits. The memory
// is this process's own: callbacks must still be safe to repeat.
type Subscriber struct {
	OnRotated         func(ctx context.Context, e Event, d Rotated) error
	OnRevoked         func(ctx context.Context, e Event, d Revoked) error
	OnRotationFailed  func(ctx context.Context, e Event, d RotationFailed) error
	OnExpiring        func(ctx context.Context, e Event, d Expiring) error
	OnSignedIn        func(ctx context.Context, e Event, d SignedIn) error
	OnSignInRequired  func(ctx context.Context, e Event, d SignInRequired) error
	OnSignInExpiring  func(ctx context.Context, e Event, d SignInExpiring) error
	OnCheckIncomplete func(ctx context.Context, e Event, d CheckIncomplete) error
	OnCheckRecovered  func(ctx context.Context, e Event, d CheckRecovered) error
	OnSwitched        func(ctx context.Context, e Event, d Switched) error
	OnSwitchLate      func(ctx context.Context, e Event, d SwitchLate) error
	OnSwitchFailed    func(ctx context.Context, e Event, d SwitchFailed) error
	OnDelivered       func(ctx context.Context, e Event, d Delivered) error
	OnDeliveryFailed  func(ctx context.Context, e Event, d DeliveryFailed) error
	OnPostponed       func(ctx context.Context, e Event, d Postponed) error
	// OnOther gets the events whose callback above is nil, and those of types
	// that this package does not know. nil: they are ignored.
	OnOther func(ctx context.Context, e Event) error
	// Memory is how many ids are remembered; 0 means DefaultMemory, less than
	// 0 none.
	Memory int

	mu      sync.Mutex
	done    map[eventKey]struct{}
	ring    []eventKey // the keys of done, oldest at next once it is full
	next    int
	running map[eventKey]chan struct{}
}

// eventKey names one event: CloudEvents makes ids unique within a source.
type eventKey struct{ source, id string }

// Handle decodes body and calls the callback of its type. nil means that the
// message can be completed: the callback succeeded now or before, or there is none
// for it. ErrMalformed and ErrData are for the dead-letter queue; any other
// error is the callback's.
func (s *Subscriber) Handle(ctx context.Context, body []byte) error {
	e, err := Decode(body)
	if err != nil {
		return err
	}
	key := eventKey{e.Source, e.ID}
	fresh, err := s.claim(ctx, key)
	if err != nil || !fresh {
		return err
	}
	ok := false
	defer func() { s.release(key, ok) }() // also when the callback panics
	if err := s.dispatch(ctx, e); err != nil {
		return err
	}
	ok = true
	return nil
}

func (s *Subscriber) dispatch(ctx context.Context, e Event) error {
	switch d := e.Data.(type) {
	case Rotated:
		if s.OnRotated != nil {
			return s.OnRotated(ctx, e, d)
		}
	case Revoked:
		if s.OnRevoked != nil {
			return s.OnRevoked(ctx, e, d)
		}
	case RotationFailed:
		if s.OnRotationFailed != nil {
			return s.OnRotationFailed(ctx, e, d)
		}
	case Expiring:
		if s.OnExpiring != nil {
			return s.OnExpiring(ctx, e, d)
		}
	case SignedIn:
		if s.OnSignedIn != nil {
			return s.OnSignedIn(ctx, e, d)
		}
	case SignInRequired:
		if s.OnSignInRequired != nil {
			return s.OnSignInRequired(ctx, e, d)
		}
	case SignInExpiring:
		if s.OnSignInExpiring != nil {
			return s.OnSignInExpiring(ctx, e, d)
		}
	case CheckIncomplete:
		if s.OnCheckIncomplete != nil {
			return s.OnCheckIncomplete(ctx, e, d)
		}
	case CheckRecovered:
		if s.OnCheckRecovered != nil {
			return s.OnCheckRecovered(ctx, e, d)
		}
	case Switched:
		if s.OnSwitched != nil {
			return s.OnSwitched(ctx, e, d)
		}
	case SwitchLate:
		if s.OnSwitchLate != nil {
			return s.OnSwitchLate(ctx, e, d)
		}
	case SwitchFailed:
		if s.OnSwitchFailed != nil {
			return s.OnSwitchFailed(ctx, e, d)
		}
	case Delivered:
		if s.OnDelivered != nil {
			return s.OnDelivered(ctx, e, d)
		}
	case DeliveryFailed:
		if s.OnDeliveryFailed != nil {
			return s.OnDeliveryFailed(ctx, e, d)
		}
	case Postponed:
		if s.OnPostponed != nil {
			return s.OnPostponed(ctx, e, d)
		}
	}
	if s.OnOther != nil {
		return s.OnOther(ctx, e)
	}
	return nil
}

// claim reports whether the caller shall deliver the event. If another delivery
// of it is running, claim waits for that one's outcome.
func (s *Subscriber) claim(ctx context.Context, key eventKey) (bool, error) {
	for {
		s.mu.Lock()
		if _, seen := s.done[key]; seen {
			s.mu.Unlock()
			return false, nil
		}
		other, busy := s.running[key]
		if !busy {
			if s.running == nil {
				s.running = map[eventKey]chan struct{}{}
			}
			s.running[key] = make(chan struct{})
			s.mu.Unlock()
			return true, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (s *Subscriber) release(key eventKey, delivered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.running[key])
	delete(s.running, key)
	limit := s.Memory
	if limit == 0 {
		limit = DefaultMemory
	}
	if !delivered || limit < 0 {
		return
	}
	if s.done == nil {
		s.done = map[eventKey]struct{}{}
	}
	if len(s.ring) < limit {
		s.ring = append(s.ring, key)
	} else {
		delete(s.done, s.ring[s.next])
		s.ring[s.next] = key
		s.next = (s.next + 1) % len(s.ring)
	}
	s.done[key] = struct{}{}
}
