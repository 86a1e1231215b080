package web

import (
	"cmp"
	"context"
	"slices"
	"strings"
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

// lastSweep is the last sweep of any process, or without a state of this one.
func (a *API) lastSweep(ctx context.Context) (rotation.SweepRecord, error) {
	if a.Memory == nil {
		return a.Reconciler.LastSweep(), nil
	}
	last, err := a.observations.sweeps.Do(ctx, struct{}{},
		func(ctx context.Context) (rotation.SweepRecord, error) { return a.Memory.LastSweep(ctx) })
	if e := rotation.AsError(err); e != nil && e.Code == rotation.StateOff {
		return a.Reconciler.LastSweep(), nil
	}
	return last, err
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
		out.Problems = append(out.Problems, BlindSpot{Scope: string(p.Scope), Identity: p.Identity,
			Organization: p.Organization, Since: timeOrNull(p.Since),
			FailureCause: FailureCause{string(p.Class), p.Code, p.Message}})
	}
	return out
}

// scopeOf says what a plan could not observe.
func scopeOf(u rotation.Unobserved) string {
	switch {
	case u.Identity == "":
		return string(rotation.ScopeVault)
	case u.Organization == "":
		return string(rotation.ScopeIdentity)
	}
	return string(rotation.ScopeOrganization)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// identityStatus is an identity's sign-in, with what stands against it.
func identityStatus(id SignInState, troubles []rotation.CheckIncomplete) IdentityStatus {
	out := IdentityStatus{Name: id.Name, User: id.User, State: stateSignedIn, Since: timeOrNull(id.Since),
		Until: timeOrNull(id.Until), Renamed: id.Renamed}
	if id.Cause != nil {
		c := cause(id.Cause)
		out.Problem = &c
	}
	switch {
	case id.Err != nil:
		c := cause(id.Err)
		out.State, out.Problem = stateUnknown, &c
		return out
	case id.Required != "":
		out.State, out.Code, out.SignInURL = stateSignInRequired, id.Required, id.SignInURL
		return out
	case id.Cause != nil:
		out.State, out.Code = stateRefused, id.Cause.Code
	}
	for _, x := range troubles {
		if x.Scope == rotation.ScopeIdentity && x.Identity == id.Name && x.Class != rotation.SignIn {
			out.State, out.Code = stateRefused, x.Code
			out.Problem = &FailureCause{string(x.Class), x.Code, x.Message}
		}
	}
	return out
}

const stateChecked = "checked"

// organizationStates are what each identity of the manifest has in each organization, and
// what stands against it.
func (a *API) organizationStates(known shared) []OrganizationStatus {
	out := []OrganizationStatus{}
	seen := map[rotation.Owner]bool{}
	for _, s := range a.Reconciler.Specs() {
		o := s.Owner()
		if seen[o] {
			continue
		}
		seen[o] = true
		x := OrganizationStatus{Identity: o.Identity, Organization: o.Organization, State: stateChecked}
		if known.sweep.At.IsZero() {
			x.State = stateUnknown
		}
		for _, t := range known.troubles {
			isAbout := t.Scope == rotation.ScopeOrganization && t.Identity == o.Identity
			if !isAbout || !strings.EqualFold(t.Organization, o.Organization) {
				continue
			}
			x.State, x.Since = stateRefused, timeOrNull(t.Since)
			x.Problem = &FailureCause{string(t.Class), t.Code, t.Message}
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b OrganizationStatus) int {
		return cmp.Or(strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization))
	})
	return out
}

const (
	// stands is how long what may pass lasts before it counts.
	stands = time.Hour
	// missedSweeps is how many intervals may go by without a sweep.
	missedSweeps = 2
)

// isDegraded reports whether the last sweep has met what does not pass by itself, or has
// not passed for an hour, or whether no sweep has ended for two intervals. Where there was
// none, the sweeps count from the sign-in; the zero time: from nothing.
func (a *API) isDegraded(last rotation.SweepRecord, signedIn time.Time) bool {
	for _, p := range last.Problems {
		if p.Code != rotation.StateOff && isDegrading(p, a.Now()) {
			return true
		}
	}
	since := later(last.Ended, signedIn)
	if !last.Ended.IsZero() {
		since = last.Ended
	}
	interval := a.Reconciler.Interval
	isKnown := !since.IsZero() && interval > 0
	return isKnown && a.Now().Sub(since) > missedSweeps*interval
}

func isDegrading(p rotation.SweepProblem, now time.Time) bool {
	switch p.Class {
	case rotation.Configuration, rotation.Policy:
		return true
	case rotation.SignIn:
		return false // health has a word of its own for it
	}
	return !p.Since.IsZero() && now.Sub(p.Since) >= stands
}

// needsPerson is what keeps a PAT from being looked after until a person does something.
func needsPerson(item rotation.Item) *NeedsPerson {
	end := item.Ends
	if end.IsZero() && item.Current != nil {
		end = item.Current.Expires
	}
	d := item.Decision
	switch {
	case item.Err != nil && isPersons(rotation.ClassOf(item.Err)):
		return &NeedsPerson{Before: timeOrNull(end), FailureCause: cause(item.Err)}
	case d.Action == rotation.Refuse:
		return &NeedsPerson{Before: timeOrNull(end),
			FailureCause: FailureCause{string(rotation.Ambiguous), d.Code, d.Message}}
	}
	return nil
}

// needsPersonFor is the same for a PAT on which work fails.
func needsPersonFor(f rotation.Failure, before *time.Time) *NeedsPerson {
	if !isPersons(f.Class) && (f.Class != rotation.Ambiguous || f.Step != rotation.StepAdopt) {
		return nil
	}
	return &NeedsPerson{Since: timeOrNull(f.Since), Before: before,
		FailureCause: FailureCause{string(f.Class), f.Code, f.Message}}
}

// isPersons reports whether a failure of a class waits for a person.
func isPersons(c rotation.Class) bool {
	return c == rotation.Configuration || c == rotation.Policy || c == rotation.SignIn
}
