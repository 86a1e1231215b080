package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Sweep is one round over everything: every identity's sign-in is kept up, and each
// PAT that needs something gets a command. last is when the sweep before it was
// (zero: not known). It goes on past what it cannot observe and then says so by its
// error. What fails for a reason that may pass is tried again after each of the pauses,
// while the rest goes on.
func (r *Reconciler) Sweep(ctx context.Context, last time.Time, requestedBy string,
	pauses ...time.Duration) (rotation.Plan, error) {
	r.prune()
	ctx, done := r.Observer.Sweep(ctx)
	p := r.newPlanning(r.Now(), pauses)
	signIns := p.refreshing(ctx)
	lists := p.startLists(ctx, func(identity string) { _ = signIns[identity]() })
	p.readSecrets(ctx)
	commands := 0
	var unsent error
	for l := range lists {
		wanting := p.judge(l)
		commands += len(wanting)
		unsent = errors.Join(unsent, p.send(ctx, wanting, requestedBy))
	}
	p.addSignInProblems(signIns)
	plan := p.result()
	p.warn(ctx, plan)
	err := errors.Join(unsent, p.notifyMarks(ctx, plan, last))
	r.Log.InfoContext(ctx, "sweep done", "managed", len(plan.Items), "commands", commands,
		"unmanaged", len(plan.Unmanaged), "released", len(plan.Released), "problems", len(plan.Problems))
	err = errors.Join(plan.Err(), err)
	done(&plan, err)
	return plan, err
}

// refreshing gives a call for each identity that keeps its sign-in up, once. An
// identity's PATs are listed after it, whatever the others wait for.
func (p *planning) refreshing(ctx context.Context) map[string]func() error {
	out := map[string]func() error{}
	for _, s := range p.specs {
		if out[s.Identity] == nil {
			out[s.Identity] = sync.OnceValue(func() error {
				return p.retrying(ctx, p.pauses, func() error { return p.Identities.Refresh(ctx, s.Identity) })
			})
		}
	}
	return out
}

func (p *planning) send(ctx context.Context, wanting []*rotation.Item, requestedBy string) error {
	commands := make([]rotation.Command, len(wanting))
	for i, item := range wanting {
		commands[i] = item.Command(p.plan.At, requestedBy)
	}
	return p.retrying(ctx, p.pauses, func() error { return p.Outbox.Send(ctx, commands...) })
}

// addSignInProblems adds the sign-ins that could not be refreshed. One that a person
// must renew shows already: listing the identity's PATs has met the same refusal.
func (p *planning) addSignInProblems(signIns map[string]func() error) {
	for _, identity := range slices.Sorted(maps.Keys(signIns)) {
		err := signIns[identity]()
		if err != nil && rotation.ClassOf(err) != rotation.SignIn {
			p.plan.Problems = append(p.plan.Problems, rotation.Unobserved{Identity: identity, Err: err})
		}
	}
}

// warn logs what a person should know.
func (p *planning) warn(ctx context.Context, plan rotation.Plan) {
	for _, x := range plan.Problems {
		p.Log.WarnContext(ctx, "the sweep could not observe everything", "identity", x.Identity,
			"organization", x.Organization, "class", string(rotation.ClassOf(x.Err)), "error", x.Err.Error())
	}
	for _, v := range plan.Released {
		p.Log.InfoContext(ctx, "a PAT is released: it is no longer in the manifest and is left to run out",
			"pat", v.Name, "validTo", v.Expires)
	}
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.EndsSoon(plan.At) {
			p.Log.WarnContext(ctx, "a PAT ends soon and has no successor", "pat", item.Spec.Name,
				"validTo", item.Current.Expires)
		}
	}
	for _, u := range plan.Unmanaged {
		if u.PAT.Global {
			p.Log.WarnContext(ctx, "a global PAT stops working on 2026-12-01", "identity", u.Owner.Identity,
				"authorizationId", u.PAT.AuthorizationID)
		}
	}
}

// notifyMarks publishes each mark that an unmanaged PAT has passed since the last sweep,
// and remembers the owners for which that was not possible.
func (p *planning) notifyMarks(ctx context.Context, plan rotation.Plan, last time.Time) error {
	var publish []func() error
	var failed sync.Map // owners
	for _, u := range plan.Unmanaged {
		days := crossedMark(u.PAT.ValidTo, p.marks.notifiedUpTo(u.Owner, last), plan.At)
		if days == 0 {
			continue
		}
		publish = append(publish, func() error {
			err := p.Outbox.Publish(ctx, &rotation.ExpiringPAT{Owner: u.Owner, PAT: u.PAT, Days: days, At: plan.At})
			if err != nil {
				failed.Store(u.Owner, true)
			}
			return err
		})
	}
	err := inParallel(publish)
	for _, x := range plan.Problems {
		failed.Store(rotation.Owner{Identity: x.Identity, Organization: x.Organization}, true)
	}
	if last.IsZero() {
		last = plan.At.Add(-rotation.Day)
	}
	for _, o := range p.owners {
		_, behind := failed.Load(o.owner)
		p.marks.keep(o.owner, !behind, last)
	}
	return err
}
