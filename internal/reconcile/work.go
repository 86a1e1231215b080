package reconcile

import (
	"context"
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
	readAt   time.Time // when the secret was read, or written by this work
	seen     rotation.Observed
	listed   *index
}

// run observes once and then takes one step after another. Each step brings what has
// been observed up to date by the services' own answers.
func (w *work) run(ctx context.Context) error {
	observing, observed := w.Observer.Step(ctx, &w.spec, rotation.StepObserve)
	err := w.observe(observing)
	observed(err)
	if err != nil {
		return w.settle(ctx, rotation.StepObserve, err)
	}
	var failed error // the first revocation that failed; the others go on
	for range maxSteps {
		d := rotation.Decide(w.spec, w.seen, w.Now())
		if d.Action == rotation.Nothing {
			return w.rest(ctx, d, failed)
		}
		w.log.InfoContext(ctx, d.Message, "action", string(d.Action), "rule", d.Rule)
		step, err := w.perform(ctx, d)
		w.audit(ctx, d, err)
		if err == nil {
			continue
		}
		if step != rotation.StepRevoke || ctx.Err() != nil {
			return w.settle(ctx, step, err)
		}
		if failed == nil {
			failed = err
		}
	}
	if failed == nil {
		failed = &rotation.Error{Class: rotation.Configuration, Code: rotation.NoRest,
			Message: fmt.Sprintf("after %d steps there was still something to do: this is a fault of patrol", maxSteps)}
	}
	return w.settle(ctx, rotation.StepObserve, failed)
}

// rest ends a reconcile that has nothing left to do now.
func (w *work) rest(ctx context.Context, d rotation.Decision, failed error) error {
	w.log.DebugContext(ctx, d.Message, "action", string(d.Action), "rule", d.Rule)
	if failed != nil {
		return w.settle(ctx, rotation.StepRevoke, failed)
	}
	w.failures.remove(w.spec.Name)
	w.notices.forgetPAT(w.spec.Name)
	if !d.Schedule {
		return nil
	}
	// A little later than the earliest moment, whose clock is another one; and later
	// than now, or the id would be that of the check that is under way.
	at := later(d.Next, w.Now()).Add(rotation.ClockSkew / 4)
	return w.Outbox.Send(ctx, w.check("look", at.Unix(), at))
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
		return rotation.StepAdopt, &rotation.Error{Class: rotation.Ambiguous, Code: rotation.AmbiguousAdoption,
			Message: d.Message}
	case rotation.Announce:
		return rotation.StepAnnounce, w.announce(ctx)
	case rotation.Adopt:
		return rotation.StepAdopt, w.adopt(ctx, d.PAT)
	case rotation.Rotate:
		return w.rotate(ctx, d)
	case rotation.Revoke:
		return rotation.StepRevoke, w.revoke(ctx, d)
	case rotation.RevokeOrphan:
		return rotation.StepRevoke, w.revokeOrphan(ctx, d.PAT)
	}
	return rotation.StepObserve, fmt.Errorf("no such action: %q", d.Action)
}

// audit writes down what a reconcile has done to PATs.
func (w *work) audit(ctx context.Context, d rotation.Decision, err error) {
	r := rotation.Record{Trigger: "command", Act: string(d.Action), Target: w.spec.Name, Outcome: "done"}
	r.Who, r.Activity = w.order.Origin()
	switch d.Action {
	case rotation.Rotate, rotation.Adopt, rotation.RevokeOrphan:
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
