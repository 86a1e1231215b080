package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// reserve is what is left of an invocation for the work that follows a last attempt.
const reserve = 30 * time.Second

// retrying repeats f after each pause while it fails for a reason that may pass. A
// service's own wish for a longer pause counts, if the invocation lives that long.
func (r *Reconciler) retrying(ctx context.Context, pauses []time.Duration, f func() error) error {
	err := f()
	for _, pause := range pauses {
		if err == nil || !retryable(err) {
			return err
		}
		pause = time.Duration(float64(pause) * (1 + r.Random()/5)) // not all at once
		if e, ok := errors.AsType[*rotation.Error](err); ok {
			pause = max(pause, e.After)
		}
		if end, ok := ctx.Deadline(); ok && r.Now().Add(pause+reserve).After(end) {
			return err
		}
		if r.Wait(ctx, pause) != nil {
			return err
		}
		err = f()
	}
	return err
}

// retryable reports whether a failure may be gone in a minute.
func retryable(err error) bool {
	switch rotation.ClassOf(err) {
	case rotation.Transient, rotation.Throttled, rotation.Ambiguous:
		return true
	}
	return false
}

// mayPass reports whether something has failed, and may be gone in a minute.
func mayPass(err error) bool { return err != nil && retryable(err) }
