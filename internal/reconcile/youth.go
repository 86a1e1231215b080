package reconcile

import (
	"context"
	"sync/atomic"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// youth is that of a deployment: until the first sweep that has succeeded, as far as
// this process knows.
type youth struct{ over atomic.Bool }

func (y *youth) end() { y.over.Store(true) }

func (y *youth) stands() bool { return !y.over.Load() }

// isKnownYoung reports whether no sweep has succeeded yet. Where nobody knows that, the
// deployment counts as an old one.
func (r *Reconciler) isKnownYoung(ctx context.Context) bool {
	if r.Memory == nil || !r.young.stands() {
		return false
	}
	last, err := r.Memory.LastSweep(ctx)
	if err != nil {
		return false
	}
	if !last.Succeeded.IsZero() {
		r.young.end()
	}
	return last.Succeeded.IsZero()
}

// passesWithAge reports whether a failure of this work may be that of a deployment whose
// roles do not work yet.
func (w *work) passesWithAge(ctx context.Context, e *rotation.Error) bool {
	since := w.order.Since
	isEarly := since.IsZero() || w.Now().Sub(since) < rotation.YoungFor
	return e.PassesWithAge() && isEarly && w.isKnownYoung(ctx)
}
