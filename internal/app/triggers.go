package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
)

// hold is how long a queue invocation that cannot be worked on is kept before it
// fails: the host delivers a failed message again at once, and ten times in all.
const hold = 20 * time.Second

// handle registers the functions by the names of their folders.
func (a *App) handle(s Settings, api *web.Front) {
	t := a.telemetry
	a.mux.HandleTimer("CheckExpiry", t.Timer("CheckExpiry", a.checkExpiry))
	for name, of := range map[string]struct {
		queue string
		f     messageFunc
	}{
		"Reconcile":  {s.CommandQueue, a.reconcile},
		"VaultEvent": {s.VaultEventQueue, a.vaultEvent},
		"DeadLetter": {deadLetters(s), a.deadLetter},
		// Without the setting the host has no such function.
		"Confirmation": {s.ConfirmationQueue, a.confirmation},
	} {
		a.mux.HandleServiceBus(name, a.holdOnFailure(of.queue, t.Queue(of.queue, of.f)))
	}
	a.mux.HandleHTTP("/api/", t.HTTP(api, api.About))
	a.mux.AboutHTTP(api.About)
}

// handleBroken answers every function with what is wrong.
func (a *App) handleBroken() {
	report := errors.New("patrol is not configured: " + strings.Join(a.broken, "; "))
	refuse := a.holdOnFailure("", func(context.Context, customhandler.Message) error { return report })
	a.mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error { return report })
	for _, name := range []string{"Reconcile", "VaultEvent", "DeadLetter", "Confirmation"} {
		a.mux.HandleServiceBus(name, refuse)
	}
	front := web.Broken(a.broken, a.log)
	a.mux.HandleHTTP("/api/", front)
	a.mux.AboutHTTP(front.About)
}

// messageFunc works on one message of a queue.
type messageFunc = func(context.Context, customhandler.Message) error

// holdOnFailure keeps a failing message for a while, and remembers that this process has
// given it back itself.
func (a *App) holdOnFailure(queue string, f messageFunc) messageFunc {
	return func(ctx context.Context, m customhandler.Message) error {
		err := f(ctx, m)
		if err != nil {
			a.failed.add(queue, m)
			_ = a.outside.Wait(ctx, hold)
		}
		return err
	}
}

// sweepPauses are those between the attempts of the timer's sweep at what fails for a
// reason that may pass: the next sweep may be hours away. Together they, and the SDKs'
// own attempts, fit into an invocation.
func sweepPauses() []time.Duration {
	return []time.Duration{15 * time.Second, 45 * time.Second, 90 * time.Second}
}

// checkExpiry is the timer: one sweep.
func (a *App) checkExpiry(ctx context.Context, t customhandler.Timer) error {
	last := a.reconciler.LastSweep().At
	if t.Status != nil {
		last = t.Status.Last
	}
	if last.Year() < 2000 { // 0001-01-01: the timer's first run
		last = time.Time{}
	}
	_, err := a.reconciler.Sweep(ctx, last, web.ByTimer, sweepPauses()...)
	return err
}

// reconcile works on one command.
func (a *App) reconcile(ctx context.Context, m customhandler.Message) error {
	c, err := bus.DecodeCommand(m.Body)
	if err != nil {
		a.refuse(ctx, m, err)
		return nil
	}
	if c.Operation == "" {
		c.Operation = m.MessageID
	}
	if s, ok := a.manifest.PAT(c.PAT); ok {
		c.PAT = s.Name
	}
	a.telemetry.Command(ctx, c)
	if a.cutShort(a.settings.CommandQueue, m) >= tooOften {
		return a.postpone(ctx, c, m)
	}
	if m.Trusted && m.SessionID != c.PAT {
		// The session is the lock: work on a PAT belongs into its own.
		a.log.WarnContext(ctx, "a command arrived in another session than its PAT's: patrol sends it to the right one",
			"pat", c.PAT)
		return a.bus.Send(ctx, c)
	}
	if c.IsSweep() {
		a.sweepAgain(ctx, c)
		return nil
	}
	return a.reconciler.Reconcile(ctx, c)
}

// sweepAgain is the sweep that follows one that has failed. What fails again has another
// command by then.
func (a *App) sweepAgain(ctx context.Context, c rotation.Command) {
	_, err := a.reconciler.SweepAgain(ctx, c, a.reconciler.LastSweep().At, sweepPauses()...)
	if err != nil {
		a.log.WarnContext(ctx, "another sweep has failed", "error", err.Error())
	}
}

// refuse is for a message that nobody can work on: it is completed, with a line in the
// log and an event that say why.
func (a *App) refuse(ctx context.Context, m customhandler.Message, err error) {
	a.logOf(m).ErrorContext(ctx, "patrol refuses a message on the command queue", "code", rotation.NotACommand,
		"error", err.Error())
	a.publish(ctx, &rotation.RotationFailed{
		Spec: a.specOf(m, rotation.Command{}), Mark: a.mark(m), Step: rotation.StepReceive,
		Class: rotation.Configuration, Code: rotation.NotACommand,
		Message: fmt.Sprintf("patrol refused message %q, sequence number %d, on the command queue: %s", m.MessageID,
			m.SequenceNumber, err),
		At: a.outside.Now(),
	})
}

// specOf names the PAT that a message is about, as far as anybody can tell.
func (a *App) specOf(m customhandler.Message, c rotation.Command) rotation.Spec {
	name := cmp.Or(c.PAT, m.SessionID, "unknown")
	if s, ok := a.manifest.PAT(name); ok {
		return s
	}
	return rotation.Spec{Name: name}
}

// mark is what the broker gave a message, and nobody else.
func (a *App) mark(m customhandler.Message) rotation.MessageMark {
	return rotation.MessageMark{Queue: a.settings.CommandQueue, SequenceNumber: m.SequenceNumber}
}

// logOf gives the log for lines about a message, which is found again by its place in the
// queue. Its own id is its sender's, and may be missing.
func (a *App) logOf(m customhandler.Message) *slog.Logger {
	return a.log.With("queue", a.settings.CommandQueue, "sequenceNumber", m.SequenceNumber, "enqueued", m.EnqueuedTime,
		"message", m.MessageID, "delivery", m.DeliveryCount)
}

// publish sends an event that says what happened to a message. One that cannot be sent
// holds nothing back: what it says is in the log.
func (a *App) publish(ctx context.Context, e rotation.Event) {
	err := a.bus.Publish(ctx, e)
	if err != nil {
		a.log.ErrorContext(ctx, "an event about a message could not be published", "type", fmt.Sprintf("%T", e),
			"class", string(rotation.ClassOf(err)))
	}
}

// confirmation takes a consumer's word that it has switched to a new PAT into that PAT's
// session, where its proof is checked. What cannot be read is completed: anybody who may
// send to the queue could have sent it.
func (a *App) confirmation(ctx context.Context, m customhandler.Message) error {
	log := a.log.With("queue", a.settings.ConfirmationQueue, "sequenceNumber", m.SequenceNumber,
		"enqueued", m.EnqueuedTime)
	if a.cutShort(a.settings.ConfirmationQueue, m) >= tooOften {
		log.ErrorContext(ctx,
			"the handler's process ended during earlier deliveries of a confirmation: patrol ignores it")
		return nil
	}
	c, err := bus.DecodeConfirmation(m.Body)
	if err != nil {
		log.WarnContext(ctx, "patrol ignores a message on the confirmation queue", "error", err.Error())
		return nil
	}
	s, declared := a.manifest.PAT(c.PAT)
	if !declared {
		log.WarnContext(ctx, "patrol ignores a confirmation for a PAT that it does not manage")
		return nil
	}
	c.PAT = s.Name
	return a.bus.Send(ctx, c)
}

// vaultEvent takes Key Vault's events as hints: a command is sent only if the event
// is about a managed PAT's current version and there is something to do. Each of
// patrol's own writes causes events, and the near-expiry event comes minutes after a
// version that lives for less than 30 days: acting on them would rotate for ever.
func (a *App) vaultEvent(ctx context.Context, m customhandler.Message) error {
	if a.cutShort(a.settings.VaultEventQueue, m) >= tooOften {
		a.log.ErrorContext(ctx, "the handler's process ended during earlier deliveries of a Key Vault event: "+
			"patrol ignores it", "sequenceNumber", m.SequenceNumber, "message", m.MessageID)
		return nil
	}
	events, err := decodeVaultEvents(m.Body)
	if err != nil {
		a.log.WarnContext(ctx, "patrol ignores a message on the vault event queue", "error", err.Error(),
			"message", m.MessageID)
		return nil
	}
	var failed error
	for _, e := range events {
		failed = errors.Join(failed, a.hint(ctx, e, m.MessageID))
	}
	return failed
}

func (a *App) hint(ctx context.Context, e vaultEvent, operation string) error {
	s, ok := a.manifest.PAT(e.Secret)
	if !ok {
		a.log.DebugContext(ctx, "Key Vault event about a secret that patrol does not manage", "type", e.Type)
		return nil
	}
	log := a.log.With("pat", s.Name, "type", e.Type)
	// The process that wrote a version remembers it: most events cost no call.
	about, err := a.vault.Version(ctx, s.Name, e.Version)
	if err == nil && !a.needsCheck(s, about) {
		log.DebugContext(ctx, "Key Vault event about a version that needs nothing")
		return nil
	}
	current, err := a.vault.Current(ctx, s.Name)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		log.DebugContext(ctx, "Key Vault event about a secret that is gone")
		return nil
	case err != nil:
		// A hint is not worth a redelivery: the sweeps see what it says.
		log.WarnContext(ctx, "the vault cannot be read after a Key Vault event: the next sweep checks the PAT",
			"class", string(rotation.ClassOf(err)))
		return nil
	case !strings.EqualFold(e.Version, current.ID) || !a.needsCheck(s, current):
		log.DebugContext(ctx, "Key Vault event about an earlier version, or one that needs nothing")
		return nil
	}
	return a.bus.Send(ctx, rotation.Command{PAT: s.Name, Reason: rotation.Check, RequestedBy: "vault-event",
		Operation: operation})
}

// needsCheck reports whether a version is one that patrol has not seen yet, or is due.
func (a *App) needsCheck(s rotation.Spec, v rotation.Version) bool {
	if !v.Ledger.Ours() {
		return true
	}
	return !v.Expires.IsZero() && !rotation.Due(s, v.Created, v.Expires).After(a.outside.Now())
}
