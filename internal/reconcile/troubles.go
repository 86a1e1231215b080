package reconcile

import (
	"cmp"
	"context"
	"slices"
	"strings"
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
	since     time.Time
	published time.Time // zero: not yet
	last      rotation.CheckIncomplete
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
	if e == nil {
		e = &trouble{since: now}
		t.of[x.Trouble] = e
	}
	x.Since = e.since
	e.last = x
	switch {
	case !e.published.IsZero():
		due = now.Sub(e.published) >= notifyInterval
	case x.Class == rotation.Transient || x.Class == rotation.Throttled:
		due = now.Sub(e.since) >= standsAfter
	default:
		due = true
	}
	return e.since, due
}

func (t *troubles) publishedAt(x rotation.Trouble, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.of[x]; e != nil {
		e.published = now
	}
}

// leave forgets those that were not met since a time, and gives those that had been
// published.
func (t *troubles) leave(isOver func(rotation.Trouble) bool) []rotation.CheckIncomplete {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []rotation.CheckIncomplete
	for x, e := range t.of {
		if !isOver(x) {
			continue
		}
		delete(t.of, x)
		if !e.published.IsZero() {
			out = append(out, e.last)
		}
	}
	return out
}

// list gives those that stand, the oldest first.
func (t *troubles) list() []rotation.CheckIncomplete {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []rotation.CheckIncomplete
	for _, e := range t.of {
		out = append(out, e.last)
	}
	slices.SortFunc(out, func(a, b rotation.CheckIncomplete) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(string(a.Scope), string(b.Scope)),
			strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization),
			strings.Compare(a.Code, b.Code))
	})
	return out
}

// Troubles are what this process cannot observe, or does not act on before a person has
// said something, the oldest first.
func (r *Reconciler) Troubles() []rotation.CheckIncomplete { return r.troubles.list() }

// notifyTrouble publishes a trouble when that is due. An event that cannot be sent is in
// the log, and due again at the next check.
func (r *Reconciler) notifyTrouble(ctx context.Context, x rotation.CheckIncomplete) {
	now := r.Now()
	var due bool
	x.Since, due = r.troubles.meet(x, now)
	x.At = now
	r.Log.ErrorContext(ctx, "check incomplete", "scope", string(x.Scope), "identity", x.Identity,
		"organization", x.Organization, "class", string(x.Class), "code", x.Code, "error", x.Message,
		"since", x.Since, "pats", x.PATs, "nextEnd", x.NextEnd)
	if !due {
		return
	}
	err := r.Outbox.Publish(ctx, &x)
	if err != nil {
		r.Log.ErrorContext(ctx, "a trouble could not be published", "scope", string(x.Scope), "code", x.Code,
			"class", string(rotation.ClassOf(err)))
		return
	}
	r.troubles.publishedAt(x.Trouble, now)
}

// notifyRecovered publishes that troubles are over.
func (r *Reconciler) notifyRecovered(ctx context.Context, isOver func(rotation.Trouble) bool) {
	for _, x := range r.troubles.leave(isOver) {
		r.Log.InfoContext(ctx, "check recovered", "scope", string(x.Scope), "identity", x.Identity,
			"organization", x.Organization, "code", x.Code, "since", x.Since)
		err := r.Outbox.Publish(ctx, &rotation.CheckRecovered{Trouble: x.Trouble, Since: x.Since, PATs: x.PATs,
			NextEnd: x.NextEnd, At: r.Now()})
		if err != nil {
			r.Log.ErrorContext(ctx, "the end of a trouble could not be published", "scope", string(x.Scope),
				"code", x.Code, "class", string(rotation.ClassOf(err)))
		}
	}
}

// notifyValuesRefused publishes that the organization refuses every PAT of the owner that
// was tried: new ones would be refused too, so none is made.
func (w *work) notifyValuesRefused(ctx context.Context) {
	end, _ := w.end()
	w.notifyTrouble(ctx, rotation.CheckIncomplete{
		Trouble: rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: w.spec.Identity,
			Organization: w.spec.Organization, Code: rotation.ValuesRefused},
		Class: rotation.Policy, PATs: w.proofs.count(w.spec.Owner()), NextEnd: end,
		Message: "the organization refuses every PAT of this identity that was tried, although it lists them: " +
			"see the organization's policies and whether the user has signed in within 90 days",
	})
}
