package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// patience is after how many attempts a failure that may pass is published.
	patience   = 5
	firstDelay = 30 * time.Second
	maxDelay   = 15 * time.Minute
	// hourly is how often an order is tried again after a refused store: each try makes
	// a PAT.
	hourly = time.Hour
	// standsAfter is how long a refusal that may pass lasts before it is published.
	standsAfter = time.Hour
	// leastDelay is how soon something is tried again towards the end of a PAT.
	leastDelay = time.Minute
)

// settle turns the failures of a work into what their classes ask for: one retry by a
// scheduled command, and events. Its own error says that the retry could not be
// scheduled, so that the message must be delivered again; an event that cannot be sent
// holds nothing back.
func (w *work) settle(ctx context.Context) error {
	// The reconcile's own deadline may be why we are here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	w.recall(ctx)
	defer w.keep(ctx)
	w.keepOrder(ctx)
	var retry time.Time
	throttled := false
	for _, f := range w.failed {
		e := classified(f.err)
		w.record(ctx, f.step, e)
		if e.Class == rotation.Throttled && isAzureDevOps(f.step, e) {
			w.throttles.pause(w.spec.Identity, e.After, w.Now())
			throttled = true
		}
		at, ok := w.retryAt(ctx, f.step, e)
		if ok && (retry.IsZero() || at.Before(retry)) {
			retry = at
		}
	}
	w.failures.retryAt(w.spec.Name, retry)
	for _, f := range w.failed {
		if w.isWorthAnEvent(ctx, f.step, classified(f.err)) {
			w.notify(ctx, w.spec, w.order, f, retry, w.seen.Current)
		}
	}
	if retry.IsZero() {
		return nil
	}
	next := w.carrying()
	if throttled && w.isLeftToSweeps(next) {
		return nil
	}
	if throttled {
		// Not an attempt that failed, but one whose turn has not come.
		next.At = retry
		next = w.postpone(w.spec.Identity, next)
	} else {
		next = next.Again(retry)
	}
	w.log.InfoContext(ctx, "retry scheduled", "at", next.At)
	return w.Outbox.Send(ctx, next)
}

// record writes a failure down, in the log and among what fails.
func (w *work) record(ctx context.Context, step rotation.Step, e *rotation.Error) {
	f := rotation.Failure{PAT: w.spec.Name, Step: step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: w.order.Attempt, At: w.Now()}
	w.failures.add(f)
	w.Observer.Failed(ctx, &w.spec, f)
	w.log.WarnContext(ctx, "step failed", "displayName", w.spec.DisplayName, "step", string(step),
		"class", string(e.Class), "code", e.Code, "error", e.Message, "activity", e.ActivityID)
}

// classified gives a failure without a class the one of what may pass.
func classified(err error) *rotation.Error {
	if e := rotation.AsError(err); e != nil {
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

// isAzureDevOps reports whether a throttling slows the identity's work down. Key Vault's
// and Service Bus' are not the identity's.
func isAzureDevOps(step rotation.Step, e *rotation.Error) bool {
	if e.Service != "" {
		return e.Service == rotation.AzureDevOps
	}
	return step != rotation.StepStore && step != rotation.StepAnnounce
}

// carrying is the command for the next attempt. It carries the order that stands,
// whoever brought it: a copy on the version may be lost, and the other way round.
func (w *work) carrying() rotation.Command {
	next := w.order
	if next.Since.IsZero() {
		next.Since = w.Now()
	}
	o, c := w.seen.Order, w.seen.Current
	if !o.Stands() || c == nil || next.IsOrder() {
		return next
	}
	next.From, next.RevokePrevious = c.Ledger.AuthorizationID, o.RevokePrevious
	next.RequestedBy, next.Operation, next.Attempt = o.By, o.Operation, 0
	next.Reason = rotation.Requested
	if o.RevokePrevious == rotation.Now {
		next.Reason = rotation.Compromised
	}
	return next
}

// keepOrder writes a command's order onto the version that it is about, if it could not
// be carried out. If that fails too, the next command carries it all the same.
func (w *work) keepOrder(ctx context.Context) {
	o, c := w.seen.Order, w.seen.Current
	if !o.Stands() || c == nil || c.Ledger.Facts.Order == o {
		return
	}
	if c.Ledger.Facts.Order.Stands() && c.Ledger.Facts.Order.RevokePrevious == o.RevokePrevious {
		return // the one that was given first
	}
	v := *c
	v.Value = rotation.Secret{}
	v.Ledger.Facts.Order = o
	if v.Ledger.Facts.Digest == "" && !c.Value.Empty() {
		v.Ledger.Facts.Digest = rotation.Digest(c.Value)
	}
	updated, err := w.Vault.Update(ctx, v)
	if err != nil {
		w.log.WarnContext(ctx, "an order could not be written onto its version; the command carries it",
			"operation", o.Operation, "class", string(rotation.ClassOf(err)))
		return
	}
	updated.Value = c.Value
	w.seen.Current = &updated
}

// hasOrder reports whether a person waits for something that is not done.
func (w *work) hasOrder() bool { return w.seen.Order.Stands() || w.order.IsOrder() }

// retryAt is when to try again; false when another try is of no use before somebody has
// changed something, or when the sweeps are enough.
func (w *work) retryAt(ctx context.Context, step rotation.Step, e *rotation.Error) (time.Time, bool) {
	now := w.Now()
	delay := min(firstDelay<<min(w.order.Attempt, patience), maxDelay)
	delay = delay/2 + w.jitter(delay/2)
	if w.hasOrder() {
		if step == rotation.StepStore && isRefusal(e) {
			delay = hourly
		}
		return now.Add(max(delay, e.After)), true
	}
	if w.passesWithAge(ctx, e) || w.confirms() {
		return now.Add(max(delay, e.After)), true
	}
	if step == rotation.StepStore && isRefusal(e) {
		// No sweep may come between the end of the wait and that of the PAT.
		until := w.refusals.toKeep(w.spec.Name).Until.Add(rotation.ClockSkew / 4)
		return until, w.isBeforeNextSweep(until, now)
	}
	if waitsForAPerson(step, e) || e.Class == rotation.SignIn {
		return time.Time{}, false
	}
	if w.order.Attempt < patience || e.Class == rotation.Throttled {
		return now.Add(max(delay, e.After)), true
	}
	// Given up for now, but never towards the end of a PAT.
	end, known := w.end()
	if left := end.Sub(now); known && left < max(2*w.spec.Overlap, w.spec.RotateBefore/2) {
		return now.Add(max(min(maxDelay, left/8), leastDelay, e.After)), true
	}
	return time.Time{}, false
}

// confirmsFor is how long a confirmation is tried to be noted: no overlap is longer.
const confirmsFor = 7 * rotation.Day

// confirms reports whether the command carries a consumer's or a person's word, which no
// sweep would bring again.
func (w *work) confirms() bool {
	isOld := !w.order.Since.IsZero() && w.Now().Sub(w.order.Since) > confirmsFor
	return w.order.Confirmation != nil && !isOld
}

// isLeftToSweeps reports whether a postponed check has waited so long that the next sweep
// sends another one. An order waits on.
func (r *Reconciler) isLeftToSweeps(c rotation.Command) bool {
	isOld := !c.Since.IsZero() && r.Now().Sub(c.Since) >= r.interval()
	return isOld && !c.IsOrder() && c.Confirmation == nil
}

// isRefusal reports whether a service has refused, and not merely failed.
func isRefusal(e *rotation.Error) bool {
	return e.Class == rotation.Configuration || e.Class == rotation.Policy
}

// waitsForAPerson reports whether another try is of no use before somebody has changed
// something.
func waitsForAPerson(step rotation.Step, e *rotation.Error) bool {
	return isRefusal(e) || e.Class == rotation.Ambiguous && step == rotation.StepAdopt
}

// isWorthAnEvent reports whether subscribers shall hear of a failure: at once if it waits
// for a person, after some attempts or an hour if it may pass. A lost sign-in has an
// event of its own.
func (w *work) isWorthAnEvent(ctx context.Context, step rotation.Step, e *rotation.Error) bool {
	switch {
	case waitsForAPerson(step, e):
		return !w.passesWithAge(ctx, e)
	case e.Class == rotation.SignIn:
		return w.hasOrder() && w.order.Attempt >= patience
	case e.Class == rotation.Throttled:
		return !w.order.Since.IsZero() && w.Now().Sub(w.order.Since) >= standsAfter
	}
	return w.order.Attempt >= patience
}

// end is when the current PAT ends: as Azure DevOps lists it, else as the vault says.
func (w *work) end() (time.Time, bool) {
	c := w.seen.Current
	if c == nil {
		return time.Time{}, false
	}
	if p, listed := w.seen.Find(c.Ledger.AuthorizationID); listed {
		return p.ValidTo, true
	}
	return c.Expires, !c.Expires.IsZero()
}

// recall takes over once what other processes remember of the PAT.
func (w *work) recall(ctx context.Context) {
	if !w.recalled {
		w.recallFailing(ctx, w.spec)
	}
	w.recalled = true
}

// keep writes down for other processes what has failed.
func (w *work) keep(ctx context.Context) {
	w.keepFailing(ctx, w.spec.Name)
	for _, f := range w.failed {
		w.noteBus(ctx, f.step, classified(f.err))
	}
}

// notifyAlone publishes a failure that no work has met.
func (r *Reconciler) notifyAlone(ctx context.Context, s rotation.Spec, c rotation.Command, f failure,
	retryAt time.Time) {
	r.recallFailing(ctx, s)
	r.notify(ctx, s, c, f, retryAt, nil)
	r.keepFailing(ctx, s.Name)
}

// notify publishes a failure, at most once a day and cause; the id carries the day, so
// that the repeats of many processes are one event. One that cannot be sent is in the
// log, and is tried again with the next failure.
func (r *Reconciler) notify(ctx context.Context, s rotation.Spec, c rotation.Command, f failure, retryAt time.Time,
	current *rotation.Version) {
	now := r.Now()
	e := classified(f.err)
	why := cause{pat: s.Name, step: f.step, class: e.Class, code: e.Code}
	if !r.notices.due(why, now) {
		return
	}
	event := &rotation.RotationFailed{Spec: s, Step: f.step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: c.Attempt, RetryAt: retryAt, At: now}
	version := ""
	if current != nil {
		version, event.ValidTo = current.ID, current.Expires
	}
	event.RotationID = rotation.RotationID(s.Name, version)
	err := r.Outbox.Publish(ctx, event)
	if err != nil {
		r.Log.ErrorContext(ctx, "a failure could not be published", "pat", s.Name, "step", string(f.step),
			"code", e.Code, "class", string(rotation.ClassOf(err)))
		return
	}
	r.notices.add(why, now)
}
