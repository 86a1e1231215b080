package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxSteps bounds one reconcile; a real one takes a handful.
	maxSteps = 64
	// maxChain bounds how far replaced versions are followed back.
	maxChain = 64
	// afterDeadline is how long the closing work of a reconcile (cleaning up,
	// scheduling a retry, telling of a failure) may take once its own deadline
	// has passed.
	afterDeadline = 20 * time.Second
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

// Reconciler does what Decide names, one step after another. It keeps no state
// that matters: a shared list of PATs, what it has told already, which identity is
// to slow down.
type Reconciler struct {
	Config
	lists *patlist

	mu        sync.Mutex
	bearers   map[rotation.Owner]string
	notified  map[string]time.Time
	throttles map[string]*throttle // by identity
	// busy holds the PATs that are being worked on.
	busy map[string]chan struct{}
	// failing holds the last failure of each PAT that has not come to rest since.
	failing map[string]rotation.Failure
	// closed holds replaced PATs whose versions this process has closed, with the
	// time: a sweep need not ask for them again.
	closed map[string]time.Time
	// behind holds the owners of whose unmanaged PATs not every mark has been told,
	// with the time up to which they have been.
	behind map[rotation.Owner]time.Time
}

// NewReconciler wires a Reconciler.
func NewReconciler(c Config) *Reconciler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = rotation.NoObserver{}
	}
	return &Reconciler{
		Config:    c,
		lists:     newPatlist(c.Tokens, c.Now),
		bearers:   map[rotation.Owner]string{},
		notified:  map[string]time.Time{},
		throttles: map[string]*throttle{},
		closed:    map[string]time.Time{},
		behind:    map[rotation.Owner]time.Time{},
		failing:   map[string]rotation.Failure{},
		busy:      map[string]chan struct{}{},
	}
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
		e := &rotation.Error{Class: rotation.Configuration, Code: "not-in-manifest",
			Message: "a command names a PAT that is not in the manifest: add it there, or stop asking for it"}
		return r.notify(ctx, rotation.Spec{Name: c.PAT}, c, "observe", e, nil)
	}
	if paused, _ := r.paused(s.Identity); paused {
		c = r.postpone(s.Identity, c)
		log.InfoContext(ctx, "the identity is being throttled: put off", "identity", s.Identity, "until", c.At)
		return r.Outbox.Send(ctx, c)
	}

	// The session is the lock on a PAT; when it is lost (a broken connection), the
	// same message comes again while its first delivery is still worked on.
	leave, err := r.enter(ctx, s.Name)
	if err != nil {
		return err
	}
	defer leave()
	w := work{Reconciler: r, spec: s, order: c, log: log}
	return w.run(ctx)
}

// enter lets one reconcile of a PAT work at a time in this process.
func (r *Reconciler) enter(ctx context.Context, pat string) (leave func(), err error) {
	for {
		r.mu.Lock()
		busy := r.busy[pat]
		if busy == nil {
			done := make(chan struct{})
			r.busy[pat] = done
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.busy, pat)
				r.mu.Unlock()
				close(done)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
	if item.Err = w.observe(ctx); item.Err != nil {
		return item, true
	}
	item.Err = asError(w.seen.SignIn)
	item.Settle(w.seen, r.Now())
	return item, true
}

func asError(e *rotation.Error) error {
	if e == nil {
		return nil
	}
	return e
}

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

func (w *work) run(ctx context.Context) error {
	observing, observed := w.Observer.Step(ctx, &w.spec, "observe")
	err := w.observe(observing)
	observed(err)
	if err != nil {
		return w.settle(ctx, "observe", err)
	}
	var failed error // the first revocation that failed; the others go on
	for range maxSteps {
		d := rotation.Decide(w.spec, w.seen, w.Now())
		log := w.log.With("action", string(d.Action), "rule", d.Rule)
		if d.Action == rotation.Nothing {
			log.DebugContext(ctx, d.Message)
			if failed != nil {
				return w.settle(ctx, "revoke", failed)
			}
			w.removeFailure(w.spec.Name)
			if d.Schedule {
				// A little later than the earliest moment, whose clock is another
				// one; and later than now, or the id would be that of a look
				// that has just been taken.
				at := later(d.Next, w.Now()).Add(rotation.ClockSkew / 4)
				return w.Outbox.Send(ctx, rotation.Command{PAT: w.spec.Name, Reason: rotation.Check,
					Operation: fmt.Sprintf("look-%d", at.Unix()), At: at})
			}
			return nil
		}
		log.InfoContext(ctx, d.Message)
		step, err := w.perform(ctx, d)
		w.record(ctx, d, err)
		if err == nil {
			continue
		}
		if step != "revoke" || ctx.Err() != nil {
			return w.settle(ctx, step, err)
		}
		if failed == nil {
			failed = err
		}
	}
	if failed == nil {
		failed = &rotation.Error{Class: rotation.Configuration, Code: "no-rest",
			Message: fmt.Sprintf("after %d steps there was still something to do: this is a fault of patrol", maxSteps)}
	}
	return w.settle(ctx, "observe", failed)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// perform does one step and brings the observation up to date with the services'
// own answers, so that nothing has to be read again.
func (w *work) perform(ctx context.Context, d rotation.Decision) (step string, err error) {
	ctx, done := w.Observer.Step(ctx, &w.spec, string(d.Action))
	defer func() { done(err) }()
	switch d.Action {
	case rotation.ReportSignIn:
		return "observe", w.seen.SignIn
	case rotation.Refuse:
		return "adopt", &rotation.Error{Class: rotation.Ambiguous, Code: "ambiguous-adoption", Message: d.Message}
	case rotation.Announce:
		return "announce", w.announce(ctx)
	case rotation.Adopt:
		return "adopt", w.adopt(ctx, d.PAT)
	case rotation.Rotate:
		return w.rotate(ctx, d)
	case rotation.Revoke:
		return "revoke", w.revoke(ctx, d)
	case rotation.RevokeOrphan:
		return "revoke", w.revokeOrphan(ctx, d.PAT)
	}
	return "observe", fmt.Errorf("no such action: %q", d.Action)
}

// observe reads the secret afresh, shares the list of PATs, and follows the
// replaced versions back as far as something may be left to do.
func (w *work) observe(ctx context.Context) error {
	w.seen = rotation.Observed{VaultTag: w.VaultTag, ProviderAddress: w.ProviderAddress(w.spec.Organization),
		Order: w.order, Failed: map[string]bool{}}
	type answer struct {
		pats *index
		err  error
	}
	listed := make(chan answer, 1)
	_, slowed := w.paused(w.spec.Identity)
	list := func() {
		pats, err := w.lists.recent(ctx, w.spec.Owner(), slowed)
		listed <- answer{pats, err}
	}
	spare := slowed && w.order.From != ""
	if !spare {
		go list()
	}
	current, err := w.current(ctx)
	if spare && err == nil && w.ordered(current) {
		w.seen.Current, w.listed = current, newIndex(time.Time{}, nil)
		return w.follow(ctx)
	}
	if spare {
		list()
	}
	l := <-listed
	if e, ok := errors.AsType[*rotation.Error](l.err); ok && e.Class == rotation.SignIn {
		w.seen.SignIn = e
		w.seen.Current = current
		return nil
	}
	if err != nil {
		return err
	}
	if l.err != nil {
		return l.err
	}
	w.seen.Current = current
	w.consult(l.pats)

	if w.needsFreshList() {
		// Before a conclusion from a PAT that is not there: the list must be new.
		fresh, err := w.lists.list(ctx, w.spec.Owner(), w.Now())
		if err != nil {
			return err
		}
		w.consult(fresh)
	}
	return w.follow(ctx)
}

// ordered reports that the order says all there is to do, so that an identity that has
// been slowed down need not list its PATs for it: whoever ordered has seen them. What a
// list would show beside, an orphan, is found by the sweeps.
func (w *work) ordered(c *rotation.Version) bool {
	return c != nil && c.Enabled && strings.EqualFold(c.Ledger.AuthorizationID, w.order.From) &&
		c.Ledger.Identity == w.spec.Identity && strings.EqualFold(c.Ledger.ProviderAddress, w.seen.ProviderAddress)
}

// consult takes from a list what concerns this PAT and the versions seen so far.
func (w *work) consult(l *index) {
	versions := w.seen.Replaced
	if c := w.seen.Current; c != nil {
		versions = append([]rotation.Version{*c}, versions...)
	}
	w.listed, w.seen.ListedAt = l, l.at
	w.seen.PATs = l.about(w.spec, versions...)
}

// current reads the latest version; nil if there is no secret. A soft-deleted one
// is brought back first: its name is blocked, and its PAT may be in use.
func (w *work) current(ctx context.Context) (*rotation.Version, error) {
	w.readAt = w.Now()
	v, err := w.Vault.Current(ctx, w.spec.Name)
	if errors.Is(err, rotation.ErrNotFound) && w.readOnly {
		return nil, nil
	}
	if errors.Is(err, rotation.ErrNotFound) {
		recovered, rerr := w.Vault.Recover(ctx, w.spec.Name)
		switch {
		case rerr != nil:
			return nil, rerr
		case !recovered:
			return nil, nil
		}
		w.log.WarnContext(ctx, "the secret had been deleted; it has been recovered")
		v, err = w.Vault.Current(ctx, w.spec.Name)
	}
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// doubtful reports whether the next decision would rest on a PAT that an old list
// does not show.
func (w *work) needsFreshList() bool {
	c := w.seen.Current
	if c == nil || !w.seen.ListedAt.Before(w.Now()) {
		return false
	}
	if !c.Ledger.Ours() {
		return true
	}
	sameOwner := c.Ledger.Identity == w.spec.Identity && strings.EqualFold(c.Ledger.ProviderAddress,
		w.seen.ProviderAddress)
	return sameOwner && !w.seen.Lists(c.Ledger.AuthorizationID)
}

// follow reads replaced versions, newest first, while one of them may still have
// to be revoked, or a PAT with our marker is unknown.
func (w *work) follow(ctx context.Context) error {
	if w.seen.Current == nil {
		return nil
	}
	at := *w.seen.Current
	for range maxChain {
		l := at.Ledger
		// Behind a closed version only a PAT that is still alive is of interest:
		// its revocation failed while that of its successor did not.
		recent := l.RevokedAt.IsZero() && l.RevokePreviousAt.After(w.Now().Add(-rotation.SettleWindow))
		open := l.Previous != "" && (w.seen.Lists(l.Previous) || recent)
		if l.PreviousVersion == "" || !open && len(rotation.Orphans(w.spec, w.seen)) == 0 {
			return nil
		}
		v, err := w.Vault.Version(ctx, w.spec.Name, l.PreviousVersion)
		if errors.Is(err, rotation.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !v.Ledger.RevokedAt.IsZero() {
			w.close(v.Ledger.AuthorizationID)
		}
		if !strings.EqualFold(v.Ledger.AuthorizationID, w.seen.Current.Ledger.AuthorizationID) {
			w.seen.Replaced = append(w.seen.Replaced, v)
			w.consult(w.listed)
		}
		at = v
	}
	return nil
}

// settle turns a failure into what its class asks for.
func (w *work) settle(ctx context.Context, step string, err error) error {
	e, ok := errors.AsType[*rotation.Error](err)
	if !ok {
		e = &rotation.Error{Class: rotation.Transient, Message: "an unexpected failure", Err: err}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			e.Code, e.Message = "deadline", "the reconcile reached its own deadline before it was done"
		case errors.Is(err, context.Canceled):
			e.Code, e.Message = "canceled", "the reconcile was cut short"
		}
	}
	f := rotation.Failure{PAT: w.spec.Name, Step: step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: w.order.Attempt, At: w.Now()}
	w.addFailure(f)
	w.Observer.Failed(ctx, &w.spec, f)
	w.log.WarnContext(ctx, "step failed", "step", step, "class", string(e.Class), "code", e.Code, "error", e.Message,
		"activity", e.ActivityID)

	// The reconcile's own deadline may be why we are here.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	switch {
	case e.Class == rotation.SignIn && w.order.From == "":
		return nil // whoever found it out has told, and the sweeps go on asking
	case e.Class == rotation.SignIn:
		// Somebody ordered a rotation, of a leaked PAT perhaps: it is tried
		// again for a while.
	case e.Class == rotation.Throttled:
		w.pause(w.spec.Identity, e.After)
	case e.Class == rotation.Configuration, e.Class == rotation.Policy, e.Class == rotation.Ambiguous &&
		step == "adopt":
		return w.notify(ctx, w.spec, w.order, step, e, w.seen.Current)
	}
	at, again := w.retry(e)
	if !again {
		return w.notify(ctx, w.spec, w.order, step, e, w.seen.Current)
	}
	next := w.order
	if next.At = at; e.Class == rotation.Throttled {
		// Not an attempt that failed, but one whose turn has not come.
		next = w.postpone(w.spec.Identity, next)
	} else {
		next.Attempt++
	}
	at = next.At
	w.log.InfoContext(ctx, "retry scheduled", "at", at)
	return w.Outbox.Send(ctx, next)
}

const (
	maxAttempts = 5
	firstDelay  = 30 * time.Second
	maxDelay    = 15 * time.Minute
)

// retry is when to try again; false when patrol gives up for now and leaves it to
// the sweeps.
func (w *work) retry(e *rotation.Error) (time.Time, bool) {
	now := w.Now()
	if w.order.Attempt >= maxAttempts {
		return time.Time{}, false
	}
	delay := min(firstDelay<<w.order.Attempt, maxDelay)
	delay = delay/2 + w.jitter(delay/2)
	at := now.Add(max(delay, e.After))
	if c := w.seen.Current; c != nil && !c.Expires.IsZero() && c.Expires.After(now) &&
		c.Expires.Sub(at) < w.spec.Overlap {
		return time.Time{}, false
	}
	return at, true
}

// toldFor is how long a standing failure is not told again.
const notifyInterval = rotation.Day

// tell publishes a failure, at most once a day and cause. For a standing cause the
// id carries the day, so that the repeats of many processes are one event.
func (r *Reconciler) notify(ctx context.Context, s rotation.Spec, c rotation.Command, step string, e *rotation.Error,
	current *rotation.Version) error {
	now := r.Now()
	ev := &rotation.RotationFailed{Spec: s, Step: step, Class: e.Class, Code: e.Code, Message: e.Message,
		Attempt: c.Attempt, At: now}
	version := ""
	if current != nil {
		version, ev.ValidTo = current.ID, current.Expires
	}
	ev.RotationID = rotation.RotationID(s.Name, version)
	if e.Class == rotation.Configuration || e.Class == rotation.Policy || e.Class == rotation.Ambiguous {
		ev.Attempt = int(now.Unix() / int64(rotation.Day/time.Second))
	}
	key := strings.Join([]string{s.Name, step, string(e.Class), e.Code}, "\n")
	r.mu.Lock()
	last, repeated := r.notified[key]
	r.mu.Unlock()
	if repeated && now.Sub(last) < notifyInterval {
		return nil
	}
	if err := r.Outbox.Publish(ctx, ev); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notified[key] = now
	return nil
}

// recovered forgets what has been told of a PAT, so that the next failure is told
// at once.
func (r *Reconciler) removeFailure(pat string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failing, pat)
	for key := range r.notified {
		if strings.HasPrefix(key, pat+"\n") {
			delete(r.notified, key)
		}
	}
}

func (r *Reconciler) addFailure(f rotation.Failure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failing[f.PAT] = f
}

// Failing lists what this process has seen fail and not come to rest since, by name.
func (r *Reconciler) Failing() []rotation.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.failing), func(a, b rotation.Failure) int {
		return strings.Compare(a.PAT,
			b.PAT)
	})
}

func (r *Reconciler) jitter(d time.Duration) time.Duration {
	return time.Duration(r.Random() * float64(d))
}

func (r *Reconciler) close(authorizationID string) {
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed[strings.ToLower(authorizationID)] = now
}

// prune forgets what is too old to matter.
func (r *Reconciler) prune() {
	now := r.Now()
	old := func(_ string, at time.Time) bool { return now.Sub(at) > 2*rotation.SettleWindow }
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.closed, old)
	maps.DeleteFunc(r.notified, old)
	maps.DeleteFunc(r.throttles, func(_ string, p *throttle) bool {
		return now.Sub(p.until) > 2*rotation.SettleWindow &&
			len(p.recent) == 0
	})
}

func (r *Reconciler) settled(authorizationID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.closed[strings.ToLower(authorizationID)]
	return ok
}
