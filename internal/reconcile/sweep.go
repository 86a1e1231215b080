package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Sweep is one round over everything: every identity's sign-in is kept up, each PAT that
// needs something gets a command, and what nothing holds is ended. A sweep sends checks
// and never orders: its lists may be old or wrong. last is when the sweep before it was
// (zero: not known). It goes on past what it cannot observe and then says so by its
// error. What fails for a reason that may pass is tried again after each of the pauses,
// while the rest goes on.
func (r *Reconciler) Sweep(ctx context.Context, last time.Time, requestedBy string,
	pauses ...time.Duration) (rotation.Plan, error) {
	return r.SweepAccepting(ctx, last, requestedBy, rotation.MassChange{}, pauses...)
}

// SweepAccepting is a Sweep whose commands carry a person's word that a mass change is
// meant.
func (r *Reconciler) SweepAccepting(ctx context.Context, last time.Time, requestedBy string,
	accepted rotation.MassChange, pauses ...time.Duration) (rotation.Plan, error) {
	r.prune()
	ctx, done := r.Observer.Sweep(ctx)
	p := r.newPlanning(r.Now(), pauses)
	p.accepted = accepted
	signIns := p.refreshing(ctx)
	lists := p.startLists(ctx, func(identity string) { _ = signIns[identity]() })
	p.readSecrets(ctx)
	commands, err := p.sendReleased(ctx, requestedBy)
	for l := range lists {
		wanting := p.judge(l)
		sent, unsent := p.send(ctx, l, wanting, last, requestedBy)
		commands += sent
		err = errors.Join(err, unsent)
	}
	p.findGarbage(ctx)
	err = errors.Join(err, p.endGarbage(ctx))
	p.addSignInProblems(signIns)
	plan := p.result()
	p.warn(ctx, plan)
	p.notifyMassChanges(ctx, plan)
	err = errors.Join(err, p.notifyMarks(ctx, plan, last))
	r.Log.InfoContext(ctx, "sweep done", "managed", len(plan.Items), "commands", commands,
		"unmanaged", len(plan.Unmanaged), "released", len(plan.Released), "problems", len(plan.Problems))
	err = errors.Join(plan.Err(), err)
	done(&plan, err)
	return plan, err
}

// refreshing gives a call for each identity of the manifest that keeps its sign-in up,
// once. An identity's PATs are listed after it, whatever the others wait for.
func (p *planning) refreshing(ctx context.Context) map[string]func() error {
	var names []string
	if p.IdentityNames != nil {
		names = p.IdentityNames()
	}
	for _, s := range p.specs {
		names = append(names, s.Identity)
	}
	out := map[string]func() error{}
	for _, name := range names {
		if out[name] == nil {
			out[name] = sync.OnceValue(func() error {
				return p.retrying(ctx, p.pauses, func() error { return p.Identities.Refresh(ctx, name) })
			})
		}
	}
	return out
}

// send sends the checks of an owner's PATs: of those that want something, and of those
// whose daily proof has come.
func (p *planning) send(ctx context.Context, o *ownersPart, wanting []*rotation.Item, last time.Time,
	requestedBy string) (int, error) {
	var commands []rotation.Command
	for _, item := range wanting {
		c := item.Command(p.plan.At, requestedBy)
		c.Accepted = p.accepted
		commands = append(commands, c)
	}
	for _, i := range o.specs {
		item := &p.plan.Items[i]
		if item.Wants() || !p.mayProve(item) || !rotation.ProofDue(item.Spec.Name, last, p.plan.At) {
			continue
		}
		c := item.Command(p.plan.At, requestedBy)
		c.Prove = true
		c.Operation = "proof-" + p.plan.At.UTC().Format(time.DateOnly)
		commands = append(commands, c)
	}
	return len(commands), p.retrying(ctx, p.pauses, func() error { return p.Outbox.Send(ctx, commands...) })
}

// mayProve reports whether a PAT is in force and known.
func (p *planning) mayProve(item *rotation.Item) bool {
	isKnown := item.Err == nil && item.Current != nil
	return isKnown && item.Current.Enabled && item.Current.Ledger.Ours()
}

// sendReleased sends checks for secrets that are not in the manifest any more and whose
// overlap, or order, is under way.
func (p *planning) sendReleased(ctx context.Context, requestedBy string) (int, error) {
	var commands []rotation.Command
	for _, v := range p.released {
		l := v.Ledger
		isUnderWay := l.RevokePreviousAt.After(p.plan.At.Add(-rotation.SettleWindow)) && !p.closed.has(l.Previous)
		isDue := isUnderWay && !l.RevokePreviousAt.After(p.plan.At)
		isUnannounced := l.RotationID != "" && l.AnnouncedAt.IsZero()
		if isDue || isUnannounced || l.Facts.Order.Stands() {
			item := rotation.Item{Spec: rotation.Spec{Name: v.Name}}
			commands = append(commands, item.Command(p.plan.At, requestedBy))
		}
	}
	if len(commands) == 0 {
		return 0, nil
	}
	return len(commands), p.retrying(ctx, p.pauses, func() error { return p.Outbox.Send(ctx, commands...) })
}

// notifyMassChanges publishes the owners for which the brake is on, and those for which
// it is on no more.
func (p *planning) notifyMassChanges(ctx context.Context, plan rotation.Plan) {
	braked := map[rotation.Trouble]bool{}
	for _, m := range plan.MassChanges {
		t := rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: m.Owner.Identity,
			Organization: m.Owner.Organization, Code: rotation.MassChangeWaits}
		braked[t] = true
		message := fmt.Sprintf("%d of %d PATs are gone, or are not what the manifest asks for, all at once. patrol "+
			"waits before it replaces them: if that is meant, accept it with POST /api/check and this event's id as "+
			"acceptMassChange; orders and due rotations go on", m.PATs, m.Of)
		p.notifyTrouble(ctx, rotation.CheckIncomplete{Trouble: t, Class: rotation.Ambiguous, PATs: m.PATs,
			NextEnd: nextEnd(plan, m.Owner), Message: message})
	}
	p.notifyRecovered(ctx, func(t rotation.Trouble) bool {
		isAnswered := !slices.ContainsFunc(plan.Problems, func(u rotation.Unobserved) bool {
			return u.Identity == "" || u.Identity == t.Identity
		})
		return t.Code == rotation.MassChangeWaits && !braked[t] && isAnswered
	})
}

// nextEnd is the earliest end among an owner's PATs; zero: not known.
func nextEnd(plan rotation.Plan, o rotation.Owner) time.Time {
	var next time.Time
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.Spec.Owner() != o || item.Current == nil || item.Current.Expires.IsZero() {
			continue
		}
		if next.IsZero() || item.Current.Expires.Before(next) {
			next = item.Current.Expires
		}
	}
	return next
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
