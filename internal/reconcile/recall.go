package reconcile

import (
	"context"
	"slices"
	"sync"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// sweeps holds the last sweep that has ended in this process.
type sweeps struct {
	mu   sync.Mutex
	last rotation.SweepRecord
}

func (s *sweeps) set(x rotation.SweepRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = x
}

// LastSweep is the last sweep of this process; the zero value: there was none.
func (r *Reconciler) LastSweep() rotation.SweepRecord {
	r.sweeps.mu.Lock()
	defer r.sweeps.mu.Unlock()
	return r.sweeps.last
}

// recalled is what a sweep learns of the processes before it.
type recalled struct {
	known    bool // nothing could not be read
	err      error
	last     rotation.SweepRecord
	standing rotation.Standing
}

// recalling begins to read what a sweep must know of the processes before it, while the
// sweep begins with its own reads. The function that comes back waits for it.
func (r *Reconciler) recalling(ctx context.Context) func() recalled {
	if r.Memory == nil {
		return func() recalled { return recalled{last: r.LastSweep()} }
	}
	r.readFailingNames(ctx)
	done := make(chan recalled, 1)
	go func() {
		var x recalled
		var sweepErr, standingErr error
		_ = inParallel([]func() error{
			func() error {
				sweepErr = panics.Held(func() (err error) { x.last, err = r.Memory.LastSweep(ctx); return err })
				return nil
			},
			func() error {
				standingErr = panics.Held(func() (err error) { x.standing, err = r.Memory.Standing(ctx); return err })
				return nil
			},
		})
		x.err = sweepErr
		if x.err == nil {
			x.err = standingErr
		}
		x.known = x.err == nil
		if sweepErr != nil {
			x.last = r.LastSweep()
		}
		done <- x
	}()
	return func() recalled { return <-done }
}

// takeOver makes what was known before the sweep this process' own.
func (p *planning) takeOver(x recalled) {
	p.before = x
	if !x.last.Succeeded.IsZero() {
		p.young.end()
	}
	if x.known {
		p.troubles.recall(x.standing.Troubles)
		p.marks.recall(x.standing.Behind)
	}
}

// keepSweep writes the sweep down, for people and for the sweeps after it.
func (p *planning) keepSweep(ctx context.Context, plan rotation.Plan, by string, failed error) {
	s := rotation.SweepRecord{At: plan.At, Ended: p.Now(), By: by, Managed: len(plan.Items),
		Commands: len(plan.Commands(by)), Unmanaged: len(plan.Unmanaged), Released: len(plan.Released),
		Problems: p.problems(plan), MassChanges: plan.MassChanges, Succeeded: p.before.last.Succeeded}
	if failed == nil {
		s.Succeeded = plan.At
	}
	p.sweeps.set(s)
	if p.Memory == nil {
		return
	}
	err := p.Memory.KeepSweep(ctx, s)
	if err != nil {
		p.Log.WarnContext(ctx, "a sweep could not be written down for other processes",
			"class", string(rotation.ClassOf(err)), "error", err.Error())
	}
}

// problems are what the plan could not observe, and what stands beside that.
func (p *planning) problems(plan rotation.Plan) []rotation.SweepProblem {
	standing := p.troubles.list()
	about := func(t rotation.Trouble) int {
		return slices.IndexFunc(standing, func(x rotation.CheckIncomplete) bool { return x.Trouble == t })
	}
	shown := map[rotation.Trouble]bool{}
	var out []rotation.SweepProblem
	for _, u := range plan.Problems {
		e, t := classified(u.Err), troubleOf(u)
		shown[t] = true
		x := rotation.SweepProblem{Scope: t.Scope, Identity: u.Identity, Organization: u.Organization,
			Class: p.classOf(e), Code: t.Code, Message: e.Message, Since: plan.At}
		if i := about(t); i >= 0 {
			x.Since = standing[i].Since
		}
		out = append(out, x)
	}
	for _, x := range standing {
		if shown[x.Trouble] || x.Code == rotation.MassChangeWaits {
			continue
		}
		out = append(out, rotation.SweepProblem{Scope: x.Scope, Identity: x.Identity, Organization: x.Organization,
			Class: x.Class, Code: x.Code, Message: x.Message, Since: x.Since})
	}
	return out
}
