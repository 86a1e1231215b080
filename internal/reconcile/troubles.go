package reconcile

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// troubles remembers since when something cannot be observed, or waits for a person, and
// when that was published last.
type troubles struct {
	mu sync.Mutex
	of map[rotation.Trouble]*trouble
}

type trouble struct {
	rotation.StandingTrouble
	kept bool // other processes know of it
}

// meet notes a trouble and says since when it stands and whether it is to be published:
// at once if a person must act, after an hour if it may pass, then daily.
func (t *troubles) meet(x rotation.CheckIncomplete, now time.Time) (since time.Time, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[rotation.Trouble]*trouble{}
	}
	e := t.of[x.Trouble]
	if e == nil || e.Over {
		e = &trouble{}
		e.Since = earlier(x.Since, now)
		t.of[x.Trouble] = e
	}
	e.kept = e.kept && e.Class == x.Class && e.PATs == x.PATs && e.Message == x.Message
	x.Since = e.Since
	e.CheckIncomplete = x
	switch {
	case !e.Published.IsZero():
		due = now.Sub(e.Published) >= notifyInterval
	case x.Class == rotation.Transient || x.Class == rotation.Throttled:
		due = now.Sub(e.Since) >= standsAfter
	default:
		due = true
	}
	return e.Since, due
}

func (t *troubles) publishedAt(x rotation.Trouble, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.of[x]; e != nil {
		e.Published, e.kept = now, false
	}
}

// recall takes over what other processes know. What this one has told them of and they
// know no more is over.
func (t *troubles) recall(all []rotation.StandingTrouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[rotation.Trouble]*trouble{}
	}
	known := map[rotation.Trouble]bool{}
	for _, x := range all {
		known[x.Trouble] = true
		e := t.of[x.Trouble]
		if e != nil && !e.kept {
			x.Since = earlier(x.Since, e.Since)
			x.Published = later(x.Published, e.Published)
		}
		t.of[x.Trouble] = &trouble{StandingTrouble: x, kept: e == nil || e.kept}
	}
	maps.DeleteFunc(t.of, func(x rotation.Trouble, e *trouble) bool { return e.kept && !known[x] })
}

// since is when a trouble began; zero: it does not stand.
func (t *troubles) since(x rotation.Trouble) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.of[x]
	if e == nil || e.Over {
		return time.Time{}
	}
	return e.Since
}

func (t *troubles) stands(x rotation.Trouble) bool { return !t.since(x).IsZero() }

// toKeep is what other processes should know of a trouble; false: they do, or it is over.
func (t *troubles) toKeep(x rotation.Trouble) (rotation.StandingTrouble, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.of[x]
	if e == nil || e.kept {
		return rotation.StandingTrouble{}, false
	}
	return e.StandingTrouble, true
}

func (t *troubles) kept(x rotation.Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.of[x]; e != nil {
		e.kept = true
	}
}

// over gives the troubles that are over, and marks them so. Each stays until it is
// forgotten.
func (t *troubles) over(isOver func(rotation.Trouble) bool) []rotation.StandingTrouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []rotation.StandingTrouble
	for x, e := range t.of {
		if !e.Over && !isOver(x) {
			continue
		}
		e.kept = e.kept && e.Over
		e.Over = true
		out = append(out, e.StandingTrouble)
	}
	slices.SortFunc(out, func(a, b rotation.StandingTrouble) int { return a.Since.Compare(b.Since) })
	return out
}

func (t *troubles) forget(x rotation.Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, x)
}

// list gives those that stand, the oldest first.
func (t *troubles) list() []rotation.CheckIncomplete {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []rotation.CheckIncomplete
	for _, e := range t.of {
		if !e.Over {
			out = append(out, e.CheckIncomplete)
		}
	}
	rotation.SortTroubles(out)
	return out
}

// Troubles are what this process cannot observe, or does not act on before a person has
// said something, the oldest first.
func (r *Reconciler) Troubles() []rotation.CheckIncomplete { return r.troubles.list() }

// notifyTrouble publishes a trouble when that is due. An event that cannot be sent is in
// the log, and due again at the next check.
func (r *Reconciler) notifyTrouble(ctx context.Context, x rotation.CheckIncomplete) error {
	now := r.Now()
	var due bool
	x.Since, due = r.troubles.meet(x, now)
	x.At = now
	r.Log.ErrorContext(ctx, "check incomplete", "scope", string(x.Scope), "identity", x.Identity,
		"organization", x.Organization, "class", string(x.Class), "code", x.Code, "error", x.Message,
		"since", x.Since, "pats", x.PATs, "nextEnd", x.NextEnd)
	var err error
	if due {
		err = r.Outbox.Publish(ctx, &x)
	}
	if err != nil {
		r.Log.ErrorContext(ctx, "a trouble could not be published", "scope", string(x.Scope), "code", x.Code,
			"class", string(rotation.ClassOf(err)))
	}
	if due && err == nil {
		r.troubles.publishedAt(x.Trouble, now)
	}
	r.keepTrouble(ctx, x.Trouble)
	return err
}

// keepTrouble writes a trouble down for other processes, if they do not know of it.
func (r *Reconciler) keepTrouble(ctx context.Context, x rotation.Trouble) {
	t, isNews := r.troubles.toKeep(x)
	if r.Memory == nil || !isNews {
		return
	}
	err := r.Memory.KeepTrouble(ctx, t)
	if err != nil {
		r.Log.WarnContext(ctx, "a trouble could not be written down for other processes", "scope", string(x.Scope),
			"code", x.Code, "class", string(rotation.ClassOf(err)))
		return
	}
	r.troubles.kept(x)
}

// notifyRecovered publishes that troubles are over: of those that had been published. What
// cannot be sent is sent by a later check.
func (r *Reconciler) notifyRecovered(ctx context.Context, isOver func(rotation.Trouble) bool) error {
	var failed error
	for _, x := range r.troubles.over(isOver) {
		r.Log.InfoContext(ctx, "check recovered", "scope", string(x.Scope), "identity", x.Identity,
			"organization", x.Organization, "code", x.Code, "since", x.Since)
		var err error
		if !x.Published.IsZero() {
			err = r.Outbox.Publish(ctx, &rotation.CheckRecovered{Trouble: x.Trouble, Since: x.Since, PATs: x.PATs,
				NextEnd: x.NextEnd, At: r.Now()})
		}
		if err != nil {
			failed = err
			r.Log.ErrorContext(ctx, "the end of a trouble could not be published", "scope", string(x.Scope),
				"code", x.Code, "class", string(rotation.ClassOf(err)))
			r.keepTrouble(ctx, x.Trouble)
			continue
		}
		r.forgetTrouble(ctx, x.Trouble)
	}
	return failed
}

func (r *Reconciler) forgetTrouble(ctx context.Context, x rotation.Trouble) {
	if r.Memory != nil {
		err := r.Memory.DropTrouble(ctx, x)
		if err != nil {
			r.Log.WarnContext(ctx, "the end of a trouble could not be written down for other processes",
				"scope", string(x.Scope), "code", x.Code, "class", string(rotation.ClassOf(err)))
		}
	}
	r.troubles.forget(x)
}

// notifyValuesRefused publishes that the organization refuses every PAT of the owner that
// was tried: new ones would be refused too, so none is made.
func (w *work) notifyValuesRefused(ctx context.Context) {
	end, _ := w.end()
	w.recallTroubles(ctx)
	_ = w.notifyTrouble(ctx, rotation.CheckIncomplete{
		Trouble: rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: w.spec.Identity,
			Organization: w.spec.Organization, Code: rotation.ValuesRefused},
		Class: rotation.Policy, PATs: w.proofs.count(w.spec.Owner()), NextEnd: end,
		Message: "the organization refuses every PAT of this identity that was tried, although it lists them: " +
			"see the organization's policies and whether the user has signed in within 90 days",
	})
}

// recallTroubles takes over what other processes know to stand.
func (r *Reconciler) recallTroubles(ctx context.Context) {
	if r.Memory == nil {
		return
	}
	known, err := r.Memory.Standing(ctx)
	if err != nil {
		r.Log.WarnContext(ctx, "what other processes know to stand could not be read",
			"class", string(rotation.ClassOf(err)))
		return
	}
	r.troubles.recall(known.Troubles)
}

// noteBus notes that Service Bus takes no events. The next sweep tells it, when that is
// possible again; until then it is in the log and in the status.
func (w *work) noteBus(ctx context.Context, step rotation.Step, e *rotation.Error) {
	isBus := e.Service == rotation.ServiceBus && step == rotation.StepAnnounce
	if !isBus {
		return
	}
	x := rotation.CheckIncomplete{Trouble: rotation.Trouble{Scope: rotation.ScopeBus, Code: e.Code}, Class: e.Class,
		Message: e.Message, PATs: 1}
	if !w.troubles.stands(x.Trouble) {
		w.recallTroubles(ctx)
	}
	if !w.troubles.stands(x.Trouble) {
		w.troubles.meet(x, w.Now())
		w.keepTrouble(ctx, x.Trouble)
	}
	w.log.ErrorContext(ctx, "check incomplete", "scope", string(x.Scope), "identity", "", "organization", "",
		"class", string(x.Class), "code", x.Code, "error", x.Message, "since", w.troubles.since(x.Trouble), "pats", 1)
}
