package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// settle turns a failure into what its class asks for: a retry by a scheduled command,
// or an event. Its own error says that not even that was possible.
func (w *work) settle(ctx context.Context, step rotation.Step, err error) error {
	e := classified(err)
	f := rotation.Failure{PAT: w.spec.Name, Step: step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: w.order.Attempt, At: w.Now()}
	w.failures.add(f)
	w.Observer.Failed(ctx, &w.spec, f)
	w.log.WarnContext(ctx, "step failed", "step", string(step), "class", string(e.Class), "code", e.Code,
		"error", e.Message, "activity", e.ActivityID)

	// The reconcile's own deadline may be why we are here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	switch {
	case e.Class == rotation.SignIn && w.order.From == "":
		return nil // whoever found it out has published it, and the sweeps go on asking
	case e.Class == rotation.SignIn:
		// Somebody ordered a rotation, of a leaked PAT perhaps: it is tried
		// again for a while.
	case e.Class == rotation.Throttled:
		w.throttles.pause(w.spec.Identity, e.After, w.Now())
	case waitsForAPerson(step, e):
		return w.notify(ctx, w.spec, w.order, step, e, w.seen.Current)
	}
	at, worthIt := w.retryAt(e)
	if !worthIt {
		return w.notify(ctx, w.spec, w.order, step, e, w.seen.Current)
	}
	next := w.order
	next.At = at
	if e.Class == rotation.Throttled {
		// Not an attempt that failed, but one whose turn has not come.
		next = w.postpone(w.spec.Identity, next)
	} else {
		next.Attempt++
	}
	w.log.InfoContext(ctx, "retry scheduled", "at", next.At)
	return w.Outbox.Send(ctx, next)
}

// classified gives a failure without a class the one of what may pass.
func classified(err error) *rotation.Error {
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		return e
	}
	e := &rotation.Error{Class: rotation.Transient, Message: "an unexpected failure", Err: err}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Message = rotation.Deadline, "the reconcile reached its own deadline before it was done"
	case errors.Is(err, context.Canceled):
		e.Code, e.Message = rotation.Canceled, "the reconcile was cut short"
	}
	return e
}

// waitsForAPerson reports whether another try is of no use before somebody has changed
// something.
func waitsForAPerson(step rotation.Step, e *rotation.Error) bool {
	switch e.Class {
	case rotation.Configuration, rotation.Policy:
		return true
	case rotation.Ambiguous:
		return step == rotation.StepAdopt
	}
	return false
}

const (
	maxAttempts = 5
	firstDelay  = 30 * time.Second
	maxDelay    = 15 * time.Minute
)

// retryAt is when to try again; false when patrol gives up for now and leaves it to
// the sweeps.
func (w *work) retryAt(e *rotation.Error) (time.Time, bool) {
	now := w.Now()
	if w.order.Attempt >= maxAttempts {
		return time.Time{}, false
	}
	delay := min(firstDelay<<w.order.Attempt, maxDelay)
	delay = delay/2 + w.jitter(delay/2)
	at := now.Add(max(delay, e.After))
	if end, known := w.end(); known && end.After(now) && end.Sub(at) < w.spec.Overlap {
		return time.Time{}, false
	}
	return at, true
}

// end is when the current PAT ends, as the vault says.
func (w *work) end() (time.Time, bool) {
	c := w.seen.Current
	if c == nil || c.Expires.IsZero() {
		return time.Time{}, false
	}
	return c.Expires, true
}

// notify publishes a failure, at most once a day and cause. For a standing cause the
// id carries the day, so that the repeats of many processes are one event.
func (r *Reconciler) notify(ctx context.Context, s rotation.Spec, c rotation.Command, step rotation.Step,
	e *rotation.Error, current *rotation.Version) error {
	now := r.Now()
	why := cause{pat: s.Name, step: step, class: e.Class, code: e.Code}
	if !r.notices.due(why, now) {
		return nil
	}
	event := &rotation.RotationFailed{Spec: s, Step: step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: c.Attempt, At: now}
	version := ""
	if current != nil {
		version, event.ValidTo = current.ID, current.Expires
	}
	event.RotationID = rotation.RotationID(s.Name, version)
	switch e.Class {
	case rotation.Configuration, rotation.Policy, rotation.Ambiguous:
		event.Attempt = int(now.Unix() / int64(rotation.Day/time.Second))
	}
	err := r.Outbox.Publish(ctx, event)
	if err != nil {
		return err
	}
	r.notices.add(why, now)
	return nil
}
