package reconcile

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// failingNames shares the names of the PATs that fail in any process of the app: whoever
// works on another one need not ask for it.
type failingNames struct {
	mu     sync.Mutex
	readAt time.Time // when they were asked for; zero: not yet
	known  bool
	names  rotation.FailingNames
	flight chan struct{} // closed when they are there; nil: nobody asks
	// written are those that this process has written.
	written map[string]bool
}

// failingNamesAge is how old the names may be.
const failingNamesAge = time.Minute

// readFailingNames begins to read the names, unless that is done or under way.
func (r *Reconciler) readFailingNames(ctx context.Context) {
	n := &r.failing
	n.mu.Lock()
	defer n.mu.Unlock()
	isNew := !n.readAt.IsZero() && r.Now().Sub(n.readAt) < failingNamesAge
	if r.Memory == nil || n.flight != nil || isNew {
		return
	}
	n.flight, n.readAt = make(chan struct{}), r.Now()
	go n.fetch(context.WithoutCancel(ctx), r.Memory, n.flight)
}

// fetch runs apart from any one caller's context. Memory's calls are bounded.
func (n *failingNames) fetch(ctx context.Context, m rotation.Memory, done chan struct{}) {
	var names rotation.FailingNames
	err := panics.Held(func() (err error) {
		names, err = m.FailingNames(ctx)
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flight, n.known = nil, err == nil
	if err == nil {
		n.names = names
	}
	close(done)
}

// has reports whether a PAT fails, as far as that is known, once the names are there.
func (n *failingNames) has(ctx context.Context, pat string) (fails, known bool) {
	n.mu.Lock()
	flight := n.flight
	n.mu.Unlock()
	if flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return false, false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, listed := n.names.WrittenAt[strings.ToLower(pat)]
	return n.known && (listed || !n.names.Complete), n.known
}

// wrote notes that this process has written or deleted what is remembered of a PAT.
func (n *failingNames) wrote(pat string, fails bool, now time.Time) {
	pat = strings.ToLower(pat)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.written == nil {
		n.written = map[string]bool{}
	}
	if n.names.WrittenAt == nil {
		n.names.WrittenAt = map[string]time.Time{}
	}
	if !fails {
		delete(n.written, pat)
		delete(n.names.WrittenAt, pat)
		return
	}
	n.written[pat], n.names.WrittenAt[pat] = true, now
}

// forgotten reports whether what this process has written of a PAT is gone: another one
// has seen the PAT come to rest.
func (n *failingNames) forgotten(pat string) bool {
	pat = strings.ToLower(pat)
	n.mu.Lock()
	defer n.mu.Unlock()
	_, listed := n.names.WrittenAt[pat]
	return n.known && n.names.Complete && n.written[pat] && !listed
}

// writtenBefore are the PATs that were written before a time.
func (n *failingNames) writtenBefore(at time.Time) map[string]time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[string]time.Time{}
	for pat, written := range n.names.WrittenAt {
		if n.known && written.Before(at) {
			out[pat] = written
		}
	}
	return out
}

// recallFailing takes over what other processes remember of a PAT: what they have told of
// it, and whether the vault has refused its store.
func (r *Reconciler) recallFailing(ctx context.Context, s rotation.Spec) {
	if r.Memory == nil {
		return
	}
	r.readFailingNames(ctx)
	fails, _ := r.failing.has(ctx, s.Name)
	if !fails {
		if r.failing.forgotten(s.Name) {
			r.forgetFailing(s.Name)
			r.failing.wrote(s.Name, false, r.Now())
		}
		return
	}
	f, err := r.Memory.Failing(ctx, s.Name)
	if err != nil {
		r.Log.WarnContext(ctx, "what other processes know of a failing PAT could not be read", "pat", s.Name,
			"class", string(rotation.ClassOf(err)))
		return
	}
	r.failures.recall(f.Failure)
	for _, t := range f.Notified {
		r.notices.recall(cause{pat: s.Name, step: t.Step, class: t.Class, code: t.Code}, t.At)
	}
	r.refusals.recall(s, f.Refused)
}

// forgetFailing makes the next failure of a PAT its first one.
func (r *Reconciler) forgetFailing(pat string) {
	r.failures.remove(pat)
	r.notices.forgetPAT(pat)
	r.refusals.remove(pat)
}

// keepFailing writes down for other processes what this one remembers of a PAT.
func (r *Reconciler) keepFailing(ctx context.Context, pat string) {
	f := rotation.FailingPAT{Failure: r.failures.of(pat), Notified: r.notices.of(pat), Refused: r.refusals.toKeep(pat)}
	f.PAT = pat
	if r.Memory == nil || f.At.IsZero() && len(f.Notified) == 0 {
		return
	}
	err := r.Memory.KeepFailing(ctx, f)
	if err != nil {
		r.Log.WarnContext(ctx, "what fails could not be written down for other processes", "pat", pat,
			"class", string(rotation.ClassOf(err)))
		return
	}
	r.failing.wrote(pat, true, r.Now())
}

// dropFailing is for a PAT that has come to rest.
func (r *Reconciler) dropFailing(ctx context.Context, pat string) {
	r.forgetFailing(pat)
	if r.Memory == nil {
		return
	}
	fails, _ := r.failing.has(ctx, pat)
	if !fails {
		return
	}
	err := r.Memory.DropFailing(ctx, pat)
	if err != nil {
		r.Log.WarnContext(ctx, "that a PAT does not fail any more could not be written down", "pat", pat,
			"class", string(rotation.ClassOf(err)))
		return
	}
	r.failing.wrote(pat, false, r.Now())
}

// tidyFailing forgets the failures that have not come again in a whole interval, of PATs
// that need nothing, or that nobody knows any more.
func (p *planning) tidyFailing(ctx context.Context) {
	if p.Memory == nil {
		return
	}
	busy := map[string]bool{}
	for i := range p.plan.Items {
		item := &p.plan.Items[i]
		busy[strings.ToLower(item.Spec.Name)] = item.Wants() || item.Err != nil
	}
	for _, v := range p.released {
		busy[strings.ToLower(v.Name)] = true // its overlap may be under way
	}
	long := p.plan.At.Add(-max(2*p.interval(), rememberedFor))
	for pat, at := range p.failing.writtenBefore(p.plan.At.Add(-p.interval() - sweepSlack)) {
		if !busy[pat] || at.Before(long) {
			p.dropFailing(ctx, pat)
		}
	}
}

// rememberedFor is how long a failure is remembered that does not come again.
const rememberedFor = 7 * rotation.Day
