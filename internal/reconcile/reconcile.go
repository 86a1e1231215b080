package reconcile

import (
	"context"
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
	closed    closedPATs
	marks     marks
}

// NewReconciler wires a Reconciler.
func NewReconciler(c Config) *Reconciler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = rotation.NoObserver{}
	}
	return &Reconciler{Config: c, lists: newPatlist(c.Tokens, c.Now)}
}

// Reconcile works on one PAT until nothing is left to do. A failure upstream is not
// an error here: it has been turned into a scheduled retry or an event, and stands
// among the failing. The error says that not even that was possible, so that the
// message must be delivered again.
func (r *Reconciler) Reconcile(ctx context.Context, c rotation.Command) error {
	log := r.Log.With("pat", c.PAT, "reason", string(c.Reason), "attempt", c.Attempt)
	s, ok := r.Spec(c.PAT)
	if !ok {
		log.WarnContext(ctx, "a command names a PAT that is not in the manifest")
		e := &rotation.Error{Class: rotation.Configuration, Code: rotation.NotInManifest,
			Message: "a command names a PAT that is not in the manifest: add it there, or stop asking for it"}
		return r.notify(ctx, rotation.Spec{Name: c.PAT}, c, rotation.StepObserve, e, nil)
	}
	if paused, _ := r.throttles.state(s.Identity, r.Now()); paused {
		c = r.postpone(s.Identity, c)
		log.InfoContext(ctx, "Azure DevOps throttles the identity: the command is postponed",
			"identity", s.Identity, "until", c.At)
		return r.Outbox.Send(ctx, c)
	}

	leave, err := r.turns.take(ctx, s.Name)
	if err != nil {
		return err
	}
	defer leave()
	w := work{Reconciler: r, spec: s, order: c, log: log}
	return w.run(ctx)
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

func (r *Reconciler) jitter(d time.Duration) time.Duration {
	return time.Duration(r.Random() * float64(d))
}

// prune forgets what is too old to matter.
func (r *Reconciler) prune() {
	before := r.Now().Add(-2 * rotation.SettleWindow)
	r.closed.prune(before)
	r.notices.prune(before)
	r.throttles.prune(before)
}
