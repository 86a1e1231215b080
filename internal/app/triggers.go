package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
func (a *App) handle(s Settings, api http.Handler) {
	t := a.telemetry
	a.mux.HandleTimer("CheckExpiry", t.Timer("CheckExpiry", a.checkExpiry))
	a.mux.HandleServiceBus("Reconcile", a.holdOnFailure(t.Queue(s.CommandQueue, a.reconcile)))
	a.mux.HandleServiceBus("VaultEvent", a.holdOnFailure(t.Queue(s.VaultEventQueue, a.vaultEvent)))
	a.mux.HandleServiceBus("DeadLetter", a.holdOnFailure(t.Queue(s.CommandQueue+"/$DeadLetterQueue", a.deadLetter)))
	a.mux.HandleHTTP("/api/", t.HTTP(api))
}

// handleBroken answers every function with what is wrong.
func (a *App) handleBroken() {
	report := errors.New("patrol is not configured: " + strings.Join(a.broken, "; "))
	refuse := a.holdOnFailure(func(context.Context, customhandler.Message) error { return report })
	a.mux.HandleTimer("CheckExpiry", func(context.Context, customhandler.Timer) error { return report })
	for _, name := range []string{"Reconcile", "VaultEvent", "DeadLetter"} {
		a.mux.HandleServiceBus(name, refuse)
	}
	a.mux.HandleHTTP("/api/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		web.Fail(w, web.Problem{Status: http.StatusServiceUnavailable, Type: web.TypeConfiguration,
			Title:  "patrol is not configured",
			Detail: "Settings or the manifest cannot be used; errors says what to do.", Errors: a.broken})
	}))
	a.mux.HandleHTTP("GET /api/health",
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { web.Unhealthy(w, web.TypeConfiguration) }))
}

// messageFunc works on one message of a queue.
type messageFunc = func(context.Context, customhandler.Message) error

// holdOnFailure keeps a failing message for a while.
func (a *App) holdOnFailure(f messageFunc) messageFunc {
	return func(ctx context.Context, m customhandler.Message) error {
		err := f(ctx, m)
		if err != nil {
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
	last, next := a.sweeps.Last(), time.Time{}
	if t.Status != nil {
		last, next = t.Status.Last, t.Status.Next
	}
	if last.Year() < 2000 { // 0001-01-01: the timer's first run
		last = time.Time{}
	}
	plan, err := a.reconciler.Sweep(ctx, last, web.ByTimer, sweepPauses()...)
	a.sweeps.Record(plan, len(plan.Commands(web.ByTimer)), web.ByTimer, a.outside.Now(), next)
	return err
}

// reconcile works on one command.
func (a *App) reconcile(ctx context.Context, m customhandler.Message) error {
	c, err := bus.DecodeCommand(m.Body)
	if err != nil {
		return a.refuse(ctx, m, rotation.NotACommand, err)
	}
	if c.Operation == "" {
		c.Operation = m.MessageID
	}
	if s, ok := a.manifest.PAT(c.PAT); ok {
		c.PAT = s.Name
	}
	a.telemetry.Command(ctx, c)
	if m.DeliveryCount >= poisonous {
		return a.quarantine(ctx, c, m)
	}
	if m.Trusted && m.SessionID != c.PAT {
		// The session is the lock: work on a PAT belongs into its own.
		a.log.WarnContext(ctx, "a command arrived in another session than its PAT's: patrol sends it to the right one",
			"pat", c.PAT)
		return a.bus.Send(ctx, c)
	}
	return a.reconciler.Reconcile(ctx, c)
}

const (
	// poisonous is the delivery at which a command is postponed. A failure upstream
	// is never answered with an error, so the deliveries before this one ended with
	// the process: killed, or crashed by this very message. The host gives up for
	// good at the third crash, unless half an hour lies between two.
	poisonous = 3
	// crashWindow is that half hour, and a little more.
	crashWindow = 31 * time.Minute
	// maxQuarantines is how often a command comes back after that.
	maxQuarantines = 3
)

// quarantine postpones a command until a crash by it would count as the first one
// again. A command that comes back too often is given up, with an event.
func (a *App) quarantine(ctx context.Context, c rotation.Command, m customhandler.Message) error {
	log := a.log.With("pat", c.PAT, "delivery", m.DeliveryCount)
	if c.Attempt < maxQuarantines {
		c.Attempt++
		c.At = a.outside.Now().Add(crashWindow)
		log.ErrorContext(ctx, "the handler's process ended during earlier deliveries of a command: patrol postpones it",
			"until", c.At)
		return a.bus.Send(ctx, c)
	}
	log.ErrorContext(ctx, "the handler's process ended during each delivery of a command: patrol gives it up")
	s, ok := a.manifest.PAT(c.PAT)
	if !ok {
		s = rotation.Spec{Name: c.PAT}
	}
	return a.bus.Publish(ctx, &rotation.RotationFailed{
		Spec: s, RotationID: rotation.RotationID(s.Name, m.MessageID), Step: rotation.StepReceive,
		Class: rotation.Transient, Code: rotation.CrashLoop,
		Message: "the handler's process ended each time it worked on a command: see its log for the crash; " +
			"the next sweep checks the PAT again",
		Attempt: c.Attempt, At: a.outside.Now(),
	})
}

// refuse completes a message that nobody can work on, with an event that says why.
func (a *App) refuse(ctx context.Context, m customhandler.Message, code string, err error) error {
	a.log.ErrorContext(ctx, "patrol refuses a message on the command queue", "code", code, "error", err.Error(),
		"message", m.MessageID)
	name := m.SessionID
	if s, ok := a.manifest.PAT(name); ok {
		name = s.Name
	}
	if name == "" {
		name = "unknown"
	}
	return a.bus.Publish(ctx, &rotation.RotationFailed{
		Spec: rotation.Spec{Name: name}, RotationID: rotation.RotationID(name, m.MessageID), Step: rotation.StepReceive,
		Class: rotation.Configuration, Code: code,
		Message: fmt.Sprintf("patrol refused message %q on the command queue: %s", m.MessageID, err),
		At:      a.outside.Now(),
	})
}

// vaultEvent takes Key Vault's events as hints: a command is sent only if the event
// is about a managed PAT's current version and there is something to do. Each of
// patrol's own writes causes events, and the near-expiry event comes minutes after a
// version that lives for less than 30 days: acting on them would rotate for ever.
func (a *App) vaultEvent(ctx context.Context, m customhandler.Message) error {
	if m.DeliveryCount >= poisonous {
		a.log.ErrorContext(ctx, "the handler's process ended during earlier deliveries of a Key Vault event: "+
			"patrol ignores it", "message", m.MessageID)
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

// deadLetter publishes an event about a command that the host gave up on.
func (a *App) deadLetter(ctx context.Context, m customhandler.Message) error {
	c, err := bus.DecodeCommand(m.Body)
	s, known := a.manifest.PAT(c.PAT)
	switch {
	case known:
	case err == nil:
		s = rotation.Spec{Name: c.PAT}
	case m.SessionID != "":
		s = rotation.Spec{Name: m.SessionID}
	default:
		s = rotation.Spec{Name: "unknown"}
	}
	reason := m.DeadLetterReason
	if reason == "" {
		reason = "unknown"
	}
	a.log.ErrorContext(ctx, "command in the dead-letter queue", "pat", s.Name, "code", reason,
		"message", m.MessageID)
	return a.bus.Publish(ctx, &rotation.RotationFailed{
		Spec: s, RotationID: rotation.RotationID(s.Name, m.MessageID), Step: rotation.StepDeadLetter,
		Class: rotation.Transient, Code: reason,
		Message: "the Functions host gave up on a command: see the handler's log for what failed; " +
			"the next sweep checks the PAT again",
		Attempt: c.Attempt, At: a.outside.Now(),
	})
}
