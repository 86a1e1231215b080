package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/flight"
	"github.com/azure-patrol/patrol/internal/panics"
)

// slow counts its calls, and answers with their number after a second.
type slow struct{ calls atomic.Int64 }

func (s *slow) ask(ctx context.Context) (int64, error) {
	n := s.calls.Add(1)
	select {
	case <-time.After(time.Second):
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func TestManyAtOnceShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		var g flight.Group[string, int64]
		begun := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				n, err := g.Do(t.Context(), "a", s.ask)
				if n != 1 || err != nil {
					t.Errorf("got %d and %v, want the one call's answer", n, err)
				}
			})
		}
		wg.Wait()
		if got := s.calls.Load(); got != 1 {
			t.Errorf("%d calls were made, want 1", got)
		}
		if got := time.Since(begun); got != time.Second {
			t.Errorf("they took %v, want as long as one call", got)
		}
	})
}

func TestEachKeyAndEachLaterCallerHasACallOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		var g flight.Group[string, int64]
		for i, key := range []string{"a", "a", "b"} {
			n, err := g.Do(t.Context(), key, s.ask)
			if n != int64(i+1) || err != nil {
				t.Errorf("caller %d got %d and %v, want a new call's answer", i+1, n, err)
			}
		}
	})
}

func TestWhoLeavesEarlyTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		var g flight.Group[string, int64]
		first, leave := context.WithTimeout(t.Context(), time.Millisecond)
		defer leave()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := g.Do(first, "a", s.ask)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the first caller got %v, want its own end", err)
			}
		})
		synctest.Wait()
		n, err := g.Do(t.Context(), "a", s.ask)
		if n != 1 || err != nil {
			t.Errorf("the second caller got %d and %v, want the call that the first began", n, err)
		}
		wg.Wait()
	})
}

func TestACallEndsByItsOwnDeadlineAndIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slow
		g := flight.Group[string, int64]{Timeout: time.Millisecond}
		_, err := g.Do(t.Context(), "a", s.ask)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the call's deadline", err)
		}
		_, _ = g.Do(t.Context(), "a", s.ask)
		if got := s.calls.Load(); got != 2 {
			t.Errorf("%d calls were made, want 2: a failure is asked for again", got)
		}
	})
}

func TestAForgottenCallIsNotJoined(t *testing.T) {
	for name, forget := range map[string]func(*flight.Group[string, int64]){
		"all":     (*flight.Group[string, int64]).Forget,
		"one key": func(g *flight.Group[string, int64]) { g.ForgetKey("a") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s slow
				var g flight.Group[string, int64]
				g.Start(t.Context(), "a", s.ask)
				synctest.Wait()
				forget(&g)
				n, err := g.Do(t.Context(), "a", s.ask)
				if n != 2 || err != nil {
					t.Errorf("got %d and %v, want a call that began after the other was forgotten", n, err)
				}
			})
		})
	}
}

func TestAPanicOfACallIsTheErrorOfThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flight.Group[string, int64]
		_, err := g.Do(t.Context(), "a", func(context.Context) (int64, error) { panic("c4n4ry") })
		if _, ok := errors.AsType[*panics.Error](err); !ok {
			t.Errorf("got %v, want a held panic", err)
		}
	})
}
