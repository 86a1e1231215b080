package reconcile

import (
	"context"
	"sync"
)

// turns lets one reconcile of a PAT work at a time in this process. The session is the
// lock on a PAT; when it is lost (a broken connection), the same message comes again
// while its first delivery is still worked on.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // by PAT; closed when its turn ends
}

// take waits for the PAT's turn. leave ends it.
func (t *turns) take(ctx context.Context, pat string) (leave func(), err error) {
	for {
		t.mu.Lock()
		busy := t.busy[pat]
		if busy == nil {
			leave = t.begin(pat)
			t.mu.Unlock()
			return leave, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin marks the PAT as busy; the lock is held.
func (t *turns) begin(pat string) (leave func()) {
	if t.busy == nil {
		t.busy = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	t.busy[pat] = done
	return func() {
		t.mu.Lock()
		delete(t.busy, pat)
		t.mu.Unlock()
		close(done)
	}
}
