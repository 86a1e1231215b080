package web

import (
	"context"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// shared is what the processes of the app know together. Where that cannot be read, it is
// what this process knows.
type shared struct {
	sweep    rotation.SweepRecord
	failing  []rotation.Failure
	troubles []rotation.CheckIncomplete
	err      error // why what the others know is not known; nil: it is
}

var errNoMemory = &rotation.Error{Class: rotation.Configuration, Code: rotation.StateOff, Service: rotation.Storage,
	Message: "there is no state store: set STATE_URL to the address of a blob container"}

// shared is what the processes of the app know, read once for all who ask.
func (a *API) shared(ctx context.Context) shared {
	own := shared{sweep: a.Reconciler.LastSweep(), failing: a.Reconciler.Failing(), troubles: a.Reconciler.Troubles(),
		err: errNoMemory}
	if a.Memory == nil {
		return own
	}
	out, err := a.observations.memories.Do(ctx, struct{}{}, func(ctx context.Context) (shared, error) {
		return a.recalled(ctx, own), nil
	})
	if err != nil {
		own.err = err
		return own
	}
	return out
}

// recalled reads the state store, side by side; own is what this process knows without.
func (a *API) recalled(ctx context.Context, own shared) shared {
	var (
		out      shared
		failing  []rotation.FailingPAT
		standing rotation.Standing
		errs     [3]error
		all      sync.WaitGroup
	)
	all.Go(func() {
		errs[0] = panics.Held(func() (err error) { out.sweep, err = a.Memory.LastSweep(ctx); return err })
	})
	all.Go(func() {
		errs[1] = panics.Held(func() (err error) { failing, err = a.Memory.AllFailing(ctx); return err })
	})
	all.Go(func() {
		errs[2] = panics.Held(func() (err error) { standing, err = a.Memory.Standing(ctx); return err })
	})
	all.Wait()
	for _, err := range errs {
		if err != nil {
			own.err = err
			return own
		}
	}
	for _, f := range failing {
		if !f.At.IsZero() {
			out.failing = append(out.failing, f.Failure)
		}
	}
	out.troubles = standingTroubles(standing)
	return out
}

func standingTroubles(s rotation.Standing) []rotation.CheckIncomplete {
	var out []rotation.CheckIncomplete
	for _, t := range s.Troubles {
		if !t.Over {
			out = append(out, t.CheckIncomplete)
		}
	}
	rotation.SortTroubles(out)
	return out
}

// troubles are those that stand, as far as anybody knows.
func (a *API) troubles(ctx context.Context) []rotation.CheckIncomplete {
	if a.Memory == nil {
		return a.Reconciler.Troubles()
	}
	s, err := a.Memory.Standing(ctx)
	if err != nil {
		return a.Reconciler.Troubles()
	}
	return standingTroubles(s)
}

// failure is why a PAT fails; the zero value: it does not, or nobody here knows.
func (a *API) failure(ctx context.Context, pat string) rotation.Failure {
	own := a.Reconciler.Failure(pat)
	if a.Memory == nil {
		return own
	}
	f, err := a.Memory.Failing(ctx, pat)
	if err != nil {
		return own
	}
	return f.Failure
}

// reportOf is a sweep for people; nil: there was none.
func reportOf(s rotation.SweepRecord) *SweepReport {
	if s.At.IsZero() {
		return nil
	}
	out := &SweepReport{At: s.At.UTC(), Took: s.Ended.Sub(s.At).Round(time.Millisecond).String(), By: s.By,
		Managed: s.Managed, Commands: s.Commands, Unmanaged: s.Unmanaged, Released: s.Released,
		Problems: []BlindSpot{}, MassChanges: massChanges(rotation.Plan{At: s.At, MassChanges: s.MassChanges})}
	for _, p := range s.Problems {
		out.Problems = append(out.Problems, BlindSpot{p.Identity, p.Organization,
			FailureCause{string(p.Class), p.Code, p.Message}})
	}
	return out
}
