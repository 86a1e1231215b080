package web

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/flight"
	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// observationTimeout bounds a look: shorter than an invocation, so that whoever asks gets what
// could be found out.
const observationTimeout = 3 * time.Minute

// observations are shared: what many ask for at once is read once, apart from any one of them,
// and nobody waits for another's look to end before his own begins.
type observations struct {
	signIns flight.Group[struct{}, []SignInState]
	plans   flight.Group[struct{}, rotation.Plan]
	pats    flight.Group[string, inspected]
	// memories are what all processes know, and sweeps the last sweep of them.
	memories flight.Group[struct{}, shared]
	sweeps   flight.Group[struct{}, rotation.SweepRecord]
}

func newObservations() *observations {
	l := &observations{}
	l.signIns.Timeout, l.plans.Timeout, l.pats.Timeout = observationTimeout, observationTimeout, observationTimeout
	l.memories.Timeout, l.sweeps.Timeout = observationTimeout, observationTimeout
	return l
}

// forget lets who asks after an act not get a look that began before it.
func (l *observations) forget() {
	l.signIns.Forget()
	l.plans.Forget()
	l.pats.Forget()
	l.memories.Forget()
	l.sweeps.Forget()
}

// identities are the states of all sign-ins, asked for side by side.
func (a *API) identities(ctx context.Context) []SignInState {
	names := slices.Sorted(slices.Values(a.Identities.Names()))
	out, err := a.observations.signIns.Do(ctx, struct{}{}, func(ctx context.Context) ([]SignInState, error) {
		out := make([]SignInState, len(names))
		var wg sync.WaitGroup
		for i, name := range names {
			wg.Go(func() {
				err := panics.Held(func() error {
					out[i] = a.Identities.State(ctx, name)
					return nil
				})
				if err != nil {
					out[i] = SignInState{Name: name, Err: err}
				}
			})
		}
		wg.Wait()
		return out, nil
	})
	if err == nil {
		return out
	}
	for _, name := range names {
		out = append(out, SignInState{Name: name, Err: err})
	}
	return out
}

// plan is what a sweep would do now.
func (a *API) plan(ctx context.Context) rotation.Plan {
	plan, err := a.observations.plans.Do(ctx, struct{}{}, func(ctx context.Context) (rotation.Plan, error) {
		return a.Reconciler.Plan(ctx), nil
	})
	if err != nil {
		return rotation.Plan{At: a.Now(), Problems: []rotation.Unobserved{{Err: err}}}
	}
	return plan
}

// inspected is what a look at one PAT finds.
type inspected struct {
	pat     ManagedPAT
	problem *Problem
}

// Inspect describes one PAT: its versions, what was done to it, and what comes next.
func (a *API) Inspect(ctx context.Context, name string) (ManagedPAT, *Problem) {
	s, ok := a.Reconciler.Spec(name)
	if !ok {
		return ManagedPAT{}, unknownPAT()
	}
	x, err := a.observations.pats.Do(ctx, s.Name, func(ctx context.Context) (x inspected, _ error) {
		x.pat, x.problem = a.inspect(ctx, s.Name)
		return x, nil
	})
	if err != nil {
		return ManagedPAT{}, a.upstream(ctx, err)
	}
	return x.pat, x.problem
}
