// Package flight lets many who want the same answer at once share one call. The call runs
// apart from any one caller, under its own deadline: who leaves early takes nothing away
// from the others. It knows nothing of what is asked, and keeps no answer: what one is
// worth afterwards is known to its callers.
package flight

import (
	"context"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
)

// Group holds the calls that are under way, at most one for each key. The zero value is
// ready.
type Group[K comparable, V any] struct {
	// Timeout bounds each call; 0: nothing does.
	Timeout time.Duration

	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	done  chan struct{} // closed at its end; what follows may be read then
	value V
	err   error
}

// Do gives the answer of the call that is under way for a key, else that of a new one. It
// returns early when ctx ends; the call goes on. A panic of the call is its error.
func (g *Group[K, V]) Do(ctx context.Context, key K, ask func(context.Context) (V, error)) (V, error) {
	c := g.begin(ctx, key, ask)
	select {
	case <-c.done:
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
	return c.value, c.err
}

// Start begins a call unless one is under way, and does not wait for it.
func (g *Group[K, V]) Start(ctx context.Context, key K, ask func(context.Context) (V, error)) {
	g.begin(ctx, key, ask)
}

// Forget lets the next caller begin a new call for every key: what is under way may not
// know what has happened since. Those who wait for it already still get it.
func (g *Group[K, V]) Forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.calls)
}

// ForgetKey is Forget for one key.
func (g *Group[K, V]) ForgetKey(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

func (g *Group[K, V]) begin(ctx context.Context, key K, ask func(context.Context) (V, error)) *call[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.calls[key]
	if c != nil {
		return c
	}
	c = &call[V]{done: make(chan struct{})}
	if g.calls == nil {
		g.calls = map[K]*call[V]{}
	}
	g.calls[key] = c
	go g.run(context.WithoutCancel(ctx), key, c, ask)
	return c
}

func (g *Group[K, V]) run(ctx context.Context, key K, c *call[V], ask func(context.Context) (V, error)) {
	if g.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.Timeout)
		defer cancel()
	}
	defer close(c.done)
	defer g.end(key, c)
	c.err = panics.Held(func() (err error) {
		c.value, err = ask(ctx)
		return err
	})
}

// end takes a call out, unless it has been forgotten.
func (g *Group[K, V]) end(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
