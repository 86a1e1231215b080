package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Config holds what a Reconciler needs. Every field but Observer and Log is required.
type Config struct {
	// Spec finds a managed PAT by its name.
	Spec   func(name string) (rotation.Spec, bool)
	Specs  func() []rotation.Spec
	Vault  rotation.Vault
	Tokens rotation.Tokens
	Outbox rotation.Outbox
	// Identities is asked by the sweep only.
	Identities rotation.Identities
	// Observer hears of the work; nil: nobody does.
	Observer rotation.Observer
	// Memory is what processes know of each other; nil: nobody tells.
	Memory rotation.Memory
	// IdentityNames are those of the manifest, also of identities without a PAT; nil:
	// those of the specs.
	IdentityNames func() []string
	// Refused are the names of entries that are in the manifest and not in force: their
	// secrets are not released.
	Refused []string
	// Interval is the time between two sweeps; 0: six hours. DefaultOverlap is that of
	// PATs whose entry is gone.
	Interval       time.Duration
	DefaultOverlap time.Duration
	// VaultTag marks the PATs of this deployment.
	VaultTag string
	// ProviderAddress gives an organization's URL, and Organization the
	// organization of such a URL (empty for another one).
	ProviderAddress func(organization string) string
	Organization    func(providerAddress string) string

	Now func() time.Time
	// Wait pauses, or returns early with the context's error.
	Wait func(ctx context.Context, d time.Duration) error
	// Random gives numbers in [0, 1) for jitter.
	Random func() float64
	Log    *slog.Logger
}

// Reconciler does what Decide names, one step after another. What it keeps beside its
// ports saves calls and repeated events: another process without it decides the same.
type Reconciler struct {
	Config
	lists     *patlist
	turns     turns
	throttles throttles
	bearers   bearers
	notices   notices
	failures  failures
	closed    closedPATs // replaced, their versions closed
	ended     closedPATs // by a person's revocation
	proofs    proofs
	troubles  troubles
	young     youth
	secrets   *secretList
	guard     guard
	refusals  refusals
	failing   failingNames
	marks     marks
	sweeps    sweeps
}

// NewReconciler wires a Reconciler.
func NewReconciler(c Config) *Reconciler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = rotation.NoObserver{}
	}
	return &Reconciler{Config: c, lists: newPatlist(c.Tokens, c.Now), secrets: newSecretList(c.Vault, c.Now)}
}

// Reconcile works on one PAT until nothing is left to do. A failure upstream is not
// an error here: it has been turned into a scheduled retry or an event, and stands
// among the failing. The error says that not even that was possible, so that the
// message must be delivered again.
func (r *Reconciler) Reconcile(ctx context.Context, c rotation.Command) error {
	if c.From != "" && !c.IsOrder() {
		c = c.AsCheck() // an older patrol's sweep
	}
	log := r.Log.With("pat", c.PAT, "reason", string(c.Reason), "attempt", c.Attempt)
	s, declared := r.Spec(c.PAT)
	if !declared {
		s.Name = c.PAT
	}
	if paused, _ := r.throttles.state(s.Identity, r.Now()); paused {
		return r.postponeThrottled(ctx, s, c, log)
	}
	leave, err := r.turns.take(ctx, s.Name)
	if err != nil {
		return err
	}
	defer leave()
	if !declared {
		return r.reconcileUndeclared(ctx, c, log)
	}
	r.readFailingNames(ctx)
	w := work{Reconciler: r, spec: s, order: c, log: log}
	return w.run(ctx)
}

// postponeThrottled postpones a command of an identity that Azure DevOps throttles. After an hour that
// is published.
func (r *Reconciler) postponeThrottled(ctx context.Context, s rotation.Spec, c rotation.Command,
	log *slog.Logger) error {
	if c.Since.IsZero() {
		c.Since = r.Now()
	}
	if r.isLeftToSweeps(c) {
		log.InfoContext(ctx, "Azure DevOps throttles the identity: the next sweep checks the PAT again",
			"identity", s.Identity)
		return nil
	}
	next := r.postpone(s.Identity, c)
	log.InfoContext(ctx, "Azure DevOps throttles the identity: the command is postponed",
		"identity", s.Identity, "until", next.At)
	err := r.Outbox.Send(ctx, next)
	if err != nil || r.Now().Sub(c.Since) < standsAfter {
		return err
	}
	e := &rotation.Error{Class: rotation.Throttled, Code: rotation.StillThrottled,
		Message: "Azure DevOps has throttled the identity for more than an hour: see what else uses it"}
	r.notifyAlone(ctx, s, c, failure{step: rotation.StepObserve, err: e}, next.At)
	return nil
}

const (
	// unknownPause is how long a command for an entry that this process does not know
	// is put off: another process may have a newer manifest.
	unknownPause = 15 * time.Minute
	// unknownFor is how long it is put off in all.
	unknownFor = rotation.Day
)

// reconcileUndeclared works on a PAT that the manifest of this process does not have. A
// secret with our ledger was in it once: what was begun is finished. Another one may be
// in a newer manifest.
func (r *Reconciler) reconcileUndeclared(ctx context.Context, c rotation.Command, log *slog.Logger) error {
	v, err := r.Vault.Current(ctx, c.PAT)
	switch {
	case err == nil && v.Ledger.Ours():
		w := work{Reconciler: r, spec: r.releasedSpec(v), order: c, log: log, released: true}
		return w.run(ctx)
	case err != nil && !errors.Is(err, rotation.ErrNotFound):
		log.WarnContext(ctx, "the secret of a PAT that is not in the manifest could not be read",
			"class", string(rotation.ClassOf(err)))
	}
	if c.Since.IsZero() {
		c.Since = r.Now()
	}
	if r.Now().Sub(c.Since) < unknownFor {
		c.At = r.Now().Add(unknownPause)
		log.InfoContext(ctx, "a command names a PAT that this instance's manifest does not have: postponed",
			"until", c.At)
		return r.Outbox.Send(ctx, c.Again(c.At))
	}
	e := &rotation.Error{Class: rotation.Configuration, Code: rotation.UnknownEntry,
		Message: "for a day a command named a PAT that is not in the manifest: add it there, or stop asking for it"}
	r.notifyAlone(ctx, rotation.Spec{Name: c.PAT}, c, failure{step: rotation.StepObserve, err: e}, time.Time{})
	return nil
}

// orderWithoutEntry is why an order waits whose entry has left the manifest. It stands,
// and is tried again: the entry may come back.
func orderWithoutEntry() error {
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.UnknownEntry,
		Message: "an order to replace the PAT waits, because its entry is not in the manifest any more: put the " +
			"entry back, or end the PAT with DELETE /api/tokens/{authorizationId}"}
}

// releasedSpec is what is known of an entry that was taken out of the manifest.
func (r *Reconciler) releasedSpec(v rotation.Version) rotation.Spec {
	return rotation.Spec{Name: v.Name, Identity: v.Ledger.Identity,
		Organization: r.Organization(v.Ledger.ProviderAddress), DisplayName: v.Name}
}

// Inspect observes one PAT and says what a reconcile would do. It changes nothing.
// ok is false for a name that is not in the manifest.
func (r *Reconciler) Inspect(ctx context.Context, name string) (item rotation.Item, ok bool) {
	s, ok := r.Spec(name)
	if !ok {
		return rotation.Item{}, false
	}
	w := work{Reconciler: r, spec: s, log: r.Log, readOnly: true}
	item = rotation.Item{Spec: s, State: rotation.StateUnknown}
	item.Err = w.observe(ctx)
	if item.Err != nil {
		return item, true
	}
	if w.seen.SignIn != nil {
		item.Err = w.seen.SignIn
	}
	item.Settle(w.seen, r.Now())
	return item, true
}

// Failing lists what this process has seen fail and not come to rest since, by name.
func (r *Reconciler) Failing() []rotation.Failure { return r.failures.list() }

// Failure is what this process has seen fail last of a PAT that has not come to rest
// since; the zero value: nothing.
func (r *Reconciler) Failure(pat string) rotation.Failure { return r.failures.of(pat) }

func (r *Reconciler) jitter(d time.Duration) time.Duration {
	return time.Duration(r.Random() * float64(d))
}

// prune forgets what is too old to matter.
func (r *Reconciler) prune() {
	before := r.Now().Add(-2 * rotation.SettleWindow)
	r.closed.prune(before)
	r.ended.prune(before)
	r.notices.prune(before)
	r.throttles.prune(before)
	r.refusals.prune(r.Now())
}
