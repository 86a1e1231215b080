package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxSteps bounds one reconcile; a real one takes a handful.
	maxSteps = 64
	// afterDeadline is how long the closing work of a reconcile (cleaning up,
	// scheduling a retry, publishing a failure) may take once its own deadline
	// has passed.
	afterDeadline = 20 * time.Second
)

// work is one reconcile under way.
type work struct {
	*Reconciler
	spec  rotation.Spec
	order rotation.Command
	log   *slog.Logger
	// readOnly observes without bringing a deleted secret back.
	readOnly bool
	// released: the manifest does not have the entry any more.
	released bool
	readAt   time.Time // when the secret was read, or written by this work
	seen     rotation.Observed
	listed   *index
	failed   []failure // of this work, in their order
	recalled bool      // what other processes remember of the PAT
}

// failure is a step that failed.
type failure struct {
	step rotation.Step
	err  error
}

// run observes once and then takes one step after another. Each step brings what has
// been observed up to date by the services' own answers. A step that fails does not keep
// the others from being taken: a leaked PAT is ended although its successor's event
// cannot be sent, an overlap ends although the next rotation is refused.
func (w *work) run(ctx context.Context) error {
	observing, observed := w.Observer.Step(ctx, &w.spec, rotation.StepObserve)
	err := w.observe(observing)
	observed(err)
	if err != nil {
		w.failed = append(w.failed, failure{rotation.StepObserve, err})
		return w.settle(ctx)
	}
	if w.order.Confirmation != nil {
		noted := w.confirm(ctx)
		if noted != nil {
			w.failed = append(w.failed, failure{rotation.StepConfirm, noted})
		}
	}
	w.seen.LateNotified = !w.notices.due(w.lateCause(), w.Now())
	for range maxSteps {
		d := rotation.Decide(w.spec, w.seen, w.Now())
		if d.Action == rotation.Nothing {
			return w.rest(ctx, d)
		}
		w.log.InfoContext(ctx, d.Message, "action", string(d.Action), "rule", d.Rule)
		step, err := w.perform(ctx, d)
		w.audit(ctx, d, err)
		if err == nil {
			continue
		}
		w.failed = append(w.failed, failure{step, err})
		if d.Action == rotation.ReportSignIn || ctx.Err() != nil {
			return w.settle(ctx)
		}
		switch d.Action {
		case rotation.Rotate, rotation.Adopt, rotation.Refuse:
			w.seen.Stuck = true
		case rotation.Recognize, rotation.Relabel:
			w.seen.Stuck, w.seen.Recognized = true, nil
		case rotation.Announce, rotation.ReportLate:
			w.seen.Silent = true
		}
	}
	if len(w.failed) == 0 {
		w.failed = append(w.failed, failure{rotation.StepObserve, &rotation.Error{Class: rotation.Configuration,
			Code: rotation.NoRest, Message: fmt.Sprintf(
				"after %d steps there was still something to do: this is a fault of patrol", maxSteps)}})
	}
	return w.settle(ctx)
}

// rest ends a reconcile that has nothing left to do now.
func (w *work) rest(ctx context.Context, d rotation.Decision) error {
	w.log.DebugContext(ctx, d.Message, "action", string(d.Action), "rule", d.Rule)
	ended := w.endNamed(ctx)
	if ended != nil {
		w.failed = append(w.failed, failure{rotation.StepRevoke, ended})
	}
	var checks []rotation.Command
	due := w.dueCheck()
	if due != nil && !w.released {
		checks = append(checks, *due)
	}
	if d.Schedule {
		// A little later than the earliest moment, whose clock is another one; and later
		// than now, or the id would be that of the check that is under way.
		at := later(d.Next, w.Now()).Add(rotation.ClockSkew / 4)
		checks = append(checks, w.check("look", at.Unix(), at))
	}
	if w.released && w.seen.Order.Stands() {
		w.failed = append(w.failed, failure{rotation.StepObserve, orderWithoutEntry()})
	}
	var err error
	if len(checks) > 0 {
		err = w.Outbox.Send(ctx, checks...)
	}
	if len(w.failed) > 0 {
		return errors.Join(err, w.settle(ctx))
	}
	w.dropFailing(ctx, w.spec.Name)
	return err
}

// dueCheck is a check for the time at which the PAT is to be replaced, if that is before the next
// sweep is sure to be over; nil: the sweeps are enough. Its id follows from that time.
func (w *work) dueCheck() *rotation.Command {
	if w.seen.Current == nil {
		return nil
	}
	at, _, known := w.seen.ReplacedAt(w.spec, w.Now())
	if !known || !w.isBeforeNextSweep(at, w.Now()) {
		return nil
	}
	c := w.checkDue(at)
	return &c
}

// checkDue is a check for a due time. It comes as much later as two clocks may differ, and
// queues count in milliseconds: a check that comes before the time finds nothing to do, and
// its repeat, which has the same id, is dropped by the queue.
func (w *work) checkDue(due time.Time) rotation.Command {
	return w.check("due", due.Unix(), due.Add(rotation.ClockSkew))
}

const (
	// sweepSlack is how long after its time a sweep is sure to be over.
	sweepSlack = 30 * time.Minute
	// mostAhead bounds how far ahead a due time has a command: sweeps that are further
	// apart than a weekend are not what patrol is made for.
	mostAhead = 3 * rotation.Day
)

// isBeforeNextSweep reports whether a time comes before the next sweep is sure to be
// over.
func (r *Reconciler) isBeforeNextSweep(at, now time.Time) bool {
	left := at.Sub(now)
	return left > 0 && left <= min(r.interval()+sweepSlack, mostAhead)
}

// check is a command to reconcile this PAT at a later time. Its operation, which is in
// the message id, tells what for: a repeat for the same reason is one message.
func (w *work) check(what string, about any, at time.Time) rotation.Command {
	operation := fmt.Sprintf("%s-%v", what, about)
	return rotation.Command{PAT: w.spec.Name, Reason: rotation.Check, Operation: operation, At: at}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// perform takes one step.
func (w *work) perform(ctx context.Context, d rotation.Decision) (step rotation.Step, err error) {
	ctx, done := w.Observer.Step(ctx, &w.spec, rotation.Step(d.Action))
	defer func() { done(err) }()
	switch d.Action {
	case rotation.ReportSignIn:
		return rotation.StepObserve, w.seen.SignIn
	case rotation.Refuse:
		return rotation.StepAdopt, refusal(d)
	case rotation.Announce:
		return rotation.StepAnnounce, w.announce(ctx, d)
	case rotation.Recognize:
		return rotation.StepAdopt, w.writeLedger(ctx, *w.seen.Recognized)
	case rotation.Relabel:
		return rotation.StepAdopt, w.writeLedger(ctx, w.relabeled())
	case rotation.Adopt:
		return rotation.StepAdopt, w.adopt(ctx, d.PAT)
	case rotation.Rotate:
		return w.rotate(ctx, d)
	case rotation.Revoke:
		return rotation.StepRevoke, w.revoke(ctx, d)
	case rotation.ReportLate:
		return rotation.StepAnnounce, w.reportLate(ctx, d)
	}
	return rotation.StepObserve, fmt.Errorf("no such action: %q", d.Action)
}

// refusal is what a person must settle: several PATs could be the one that a secret
// holds, or two manifests may be in force.
func refusal(d rotation.Decision) error {
	class := rotation.Ambiguous
	if d.Code == rotation.ManifestConflict || d.Code == rotation.AdoptUnknown {
		class = rotation.Configuration
	}
	return &rotation.Error{Class: class, Code: d.Code, Message: d.Message}
}

// origin is who asked for what is being done, and by which operation: the order that
// stands, or else the command.
func (w *work) origin() (by, operation string) {
	if o := w.seen.Order; o.Stands() && !w.order.IsOrder() {
		return o.By, o.Operation
	}
	return w.order.Origin()
}

// audit writes down what a reconcile has done to PATs.
func (w *work) audit(ctx context.Context, d rotation.Decision, err error) {
	r := rotation.Record{Trigger: "command", Act: string(d.Action), Target: w.spec.Name, Outcome: "done"}
	r.Who, r.Activity = w.origin()
	switch d.Action {
	case rotation.Rotate, rotation.Adopt, rotation.Recognize, rotation.Relabel:
	case rotation.Revoke:
		if d.Cause != rotation.CauseRequested {
			r.Who = "" // its time has come: nobody asked today
		}
	default:
		return
	}
	if err != nil {
		r.Outcome = "failed"
		if e := rotation.AsError(err); e != nil {
			r.Outcome = "failed: " + e.Code
			if e.ActivityID != "" {
				r.Activity = e.ActivityID
			}
		}
	}
	r.Write(ctx, w.Log, "rule", d.Rule)
}
