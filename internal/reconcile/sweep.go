package reconcile

import (
	"cmp"
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
	return r.sweep(ctx, round{last: last, by: requestedBy, pauses: pauses})
}

// Acceptance is a person's word that a mass change of an owner's PATs is meant. The zero
// value is nothing.
type Acceptance struct {
	Owner rotation.Owner
	rotation.MassChange
}

// of is what has been accepted for an owner.
func (a Acceptance) of(o rotation.Owner) rotation.MassChange {
	if a.Owner != o {
		return rotation.MassChange{}
	}
	return a.MassChange
}

// SweepAccepting is a Sweep whose commands for one owner's PATs carry a person's word
// that a mass change is meant.
func (r *Reconciler) SweepAccepting(ctx context.Context, last time.Time, requestedBy string, accepted Acceptance,
	pauses ...time.Duration) (rotation.Plan, error) {
	return r.sweep(ctx, round{last: last, by: requestedBy, accepted: accepted, pauses: pauses})
}

// SweepAgain is the sweep that a failed one has sent a command for.
func (r *Reconciler) SweepAgain(ctx context.Context, c rotation.Command, last time.Time,
	pauses ...time.Duration) (rotation.Plan, error) {
	return r.sweep(ctx, round{last: last, by: c.RequestedBy, since: c.Since, pauses: pauses})
}

// round is what one sweep is given.
type round struct {
	last     time.Time // the sweep before; zero: not known
	by       string
	accepted Acceptance
	since    time.Time // the first of the sweeps in a row that have failed; zero: none has
	pauses   []time.Duration
}

func (r *Reconciler) sweep(ctx context.Context, x round) (rotation.Plan, error) {
	r.prune()
	ctx, done := r.Observer.Sweep(ctx)
	p := r.newPlanning(r.Now(), x.pauses)
	p.accepted = x.accepted
	known := r.recalling(ctx)
	signIns := p.refreshing(ctx)
	lists := p.startLists(ctx, func(identity string) { _ = signIns[identity]() })
	p.readSecrets(ctx)
	p.takeOver(known())
	x = p.since(x)
	commands, err := p.sendReleased(ctx, x.by)
	for l := range lists {
		wanting := p.judge(l)
		sent, unsent := p.send(ctx, l, wanting, x.last, x.by)
		commands += sent
		err = errors.Join(err, unsent)
	}
	p.listEarlierOwners(ctx, x.last)
	p.unsent = err
	p.findGarbage(ctx)
	err = errors.Join(err, p.endGarbage(ctx))
	p.addSignInProblems(signIns)
	plan := p.result()
	p.warn(ctx, plan)
	notNotified := p.notifyMarks(ctx, plan, x.last)
	err = errors.Join(err, notNotified)
	p.couldNotSend(notNotified)
	p.notifyTroubles(ctx, plan)
	p.tidyFailing(ctx)
	p.scheduleAnother(ctx, x.since, plan, err)
	p.keepSweep(ctx, plan, x.by, errors.Join(plan.Err(), err))
	r.Log.InfoContext(ctx, "sweep done", "managed", len(plan.Items), "commands", commands,
		"unmanaged", len(plan.Unmanaged), "released", len(plan.Released), "problems", len(plan.Problems))
	err = errors.Join(plan.Err(), err)
	done(&plan, err)
	return plan, err
}

// since fills in what the sweeps before have left behind: when the last one was, and since
// when they fail.
func (p *planning) since(x round) round {
	if p.before.known && !p.before.last.At.IsZero() {
		x.last = p.before.last.At
	}
	p.failsSince = x.since
	age := p.plan.At.Sub(x.since)
	p.early = p.before.known && p.young.stands() && (x.since.IsZero() || age < rotation.YoungFor)
	return x
}

// classOf is a failure's class: what a young deployment meets may pass.
func (p *planning) classOf(e *rotation.Error) rotation.Class {
	if p.early && e.PassesWithAge() {
		return rotation.Transient
	}
	return e.Class
}

// sweepAgainAfter is when a sweep that has failed is followed by another one, and not
// only by the timer's next.
const sweepAgainAfter = 15 * time.Minute

// scheduleAnother sends a command to sweep again if this sweep has failed for a reason
// that may pass, or in a young deployment whose roles do not work yet. The command's id
// follows from its time, so that several sweeps that fail at once send one.
func (p *planning) scheduleAnother(ctx context.Context, since time.Time, plan rotation.Plan, failed error) {
	isWhole := failed == nil && len(plan.Problems) == 0
	if isWhole {
		p.young.end()
	}
	if isWhole && !mayPass(p.before.err) {
		return
	}
	if since.IsZero() {
		since = p.plan.At
	}
	problemMayPass := func(u rotation.Unobserved) bool { return mayPass(u.Err) }
	somethingMayPass := mayPass(failed) || mayPass(p.before.err) || slices.ContainsFunc(plan.Problems, problemMayPass)
	isYoung := p.young.stands() && p.plan.At.Sub(since) < rotation.YoungFor
	if !somethingMayPass && !isYoung {
		return
	}
	at := p.plan.At.Add(sweepAgainAfter).Truncate(time.Minute)
	c := rotation.Command{PAT: rotation.SweepSession, Reason: rotation.Check, RequestedBy: "patrol", Since: since,
		Operation: "sweep-" + at.UTC().Format("2006-01-02T15:04Z"), At: at}
	err := p.Outbox.Send(ctx, c)
	if err != nil {
		p.Log.WarnContext(ctx, "a sweep that failed could not schedule another one; the timer's next one comes",
			"class", string(rotation.ClassOf(err)))
	}
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
		c.Accepted = p.accepted.of(o.owner)
		commands = append(commands, c)
	}
	for _, i := range o.specs {
		item := &p.plan.Items[i]
		if c, soon := p.dueCheck(item); soon {
			commands = append(commands, c)
		}
		if c, late := p.lateCheck(item, last); late && !item.Wants() {
			commands = append(commands, c)
		}
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

// dueCheck is a check for an item that is to be replaced before the next sweep is sure to be
// over.
func (p *planning) dueCheck(item *rotation.Item) (rotation.Command, bool) {
	at := item.ReplacedAt
	isSoon := !at.IsZero() && p.isBeforeNextSweep(at, p.plan.At)
	isNow := item.Wants() // which sends a check of its own
	if !isSoon || isNow || item.Err != nil {
		return rotation.Command{}, false
	}
	w := work{Reconciler: p.Reconciler, spec: item.Spec}
	return w.checkDue(at), true
}

// lateCheck is a check for a switch-over that has become late since the last sweep, or has
// been so for another day: it tells that.
func (p *planning) lateCheck(item *rotation.Item, last time.Time) (rotation.Command, bool) {
	if item.Late == nil {
		return rotation.Command{}, false
	}
	days := p.plan.At.Sub(item.Late.Since) / rotation.Day
	since := item.Late.Since.Add(days * rotation.Day)
	isNewDay := last.IsZero() || last.Before(since)
	w := work{Reconciler: p.Reconciler, spec: item.Spec}
	return w.check("late", since.Unix(), time.Time{}), isNewDay
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
		isUnderWay := l.WaitsAfter(p.plan.At.Add(-rotation.SettleWindow)) && !p.closed.has(l.Previous)
		isDue := isUnderWay && !l.RevokePreviousAt.After(p.plan.At)
		isUnannounced := l.RotationID != "" && l.AnnouncedAt.IsZero() && !l.IsCopiedTo(v.Name, true)
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

// notifyTroubles publishes what the sweep could not observe and what waits for a person,
// and what was so and is so no more. It never fails a sweep: telling gates nothing.
func (p *planning) notifyTroubles(ctx context.Context, plan rotation.Plan) {
	stands := map[rotation.Trouble]bool{}
	for _, x := range append(p.troublesOf(plan), p.stateTroubles()...) {
		stands[x.Trouble] = true
		if p.before.err != nil {
			x.Since = earlier(x.Since, p.failsSince)
		}
		p.couldNotSend(p.notifyTrouble(ctx, x))
	}
	p.couldNotSend(p.notifyRecovered(ctx, func(t rotation.Trouble) bool {
		return isSweeps(t) && !stands[t] && p.wasObserved(plan, t)
	}))
	p.notifyBus(ctx, plan)
}

func (p *planning) couldNotSend(err error) {
	if p.unsent == nil {
		p.unsent = err
	}
}

// stateTroubles is that nothing is known of other processes.
func (p *planning) stateTroubles() []rotation.CheckIncomplete {
	if p.before.err == nil {
		return nil
	}
	e := classified(p.before.err)
	x := rotation.CheckIncomplete{Trouble: rotation.Trouble{Scope: rotation.ScopeState,
		Code: cmp.Or(e.Code, rotation.Unexpected)}, Class: p.classOf(e), Message: e.Message}
	// Who cannot remember since when: the day makes one event of what many processes say.
	x.Since = p.plan.At.Truncate(rotation.Day)
	if retryable(e) {
		x.Since = time.Time{}
	}
	return []rotation.CheckIncomplete{x}
}

// notifyBus says that Service Bus does not take everything. That it does again is tried
// with the very event.
func (p *planning) notifyBus(ctx context.Context, plan rotation.Plan) {
	if p.unsent != nil {
		e := classified(p.unsent)
		_ = p.notifyTrouble(ctx, rotation.CheckIncomplete{Trouble: rotation.Trouble{Scope: rotation.ScopeBus,
			Code: cmp.Or(e.Code, rotation.Unexpected)}, Class: p.classOf(e), Message: e.Message, PATs: len(plan.Items)})
		return
	}
	for _, x := range p.troubles.list() {
		if x.Scope != rotation.ScopeBus {
			continue
		}
		x.At = p.Now()
		err := p.Outbox.Publish(ctx, &x)
		if err != nil {
			_ = p.notifyTrouble(ctx, x)
			continue
		}
		p.troubles.publishedAt(x.Trouble, x.At)
		_ = p.notifyRecovered(ctx, func(t rotation.Trouble) bool { return t == x.Trouble })
	}
}

// isSweeps reports whether a trouble is found by sweeps, and over when they do not find
// it. That an organization refuses all values is found by the daily proofs.
func isSweeps(t rotation.Trouble) bool {
	return t.Code != rotation.ValuesRefused && t.Scope != rotation.ScopeBus
}

// wasObserved reports whether the sweep has seen the thing that a trouble is about: one
// that it could not ask may be as it was.
func (p *planning) wasObserved(plan rotation.Plan, t rotation.Trouble) bool {
	if t.Scope == rotation.ScopeState {
		return p.before.err == nil
	}
	return !slices.ContainsFunc(plan.Problems, func(u rotation.Unobserved) bool {
		x := troubleOf(u)
		isAbout := x.Identity == t.Identity && (x.Organization == "" || x.Organization == t.Organization)
		return x.Code != t.Code && (x.Scope == rotation.ScopeVault || isAbout)
	})
}

// troublesOf are the troubles of a plan.
func (p *planning) troublesOf(plan rotation.Plan) []rotation.CheckIncomplete {
	var out []rotation.CheckIncomplete
	for _, u := range plan.Problems {
		e := classified(u.Err)
		pats, next := affected(plan, u)
		t := troubleOf(u)
		i := slices.IndexFunc(out, func(x rotation.CheckIncomplete) bool { return x.Trouble == t })
		if i < 0 {
			out = append(out, rotation.CheckIncomplete{Trouble: t, Class: p.classOf(e), Message: e.Message, PATs: pats,
				NextEnd: next})
			continue
		}
		// An identity that cannot sign in, in one more organization.
		out[i].PATs += pats
		out[i].NextEnd = earlier(out[i].NextEnd, next)
	}
	for _, m := range plan.MassChanges {
		t := rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: m.Owner.Identity,
			Organization: m.Owner.Organization, Code: rotation.MassChangeWaits}
		message := fmt.Sprintf("%d of %d PATs are gone, or are not what the manifest asks for, all at once. patrol "+
			"waits before it replaces them: if that is meant, accept it with POST /api/check and this event's id as "+
			"acceptMassChange; orders and due rotations go on", m.PATs, m.Of)
		out = append(out, rotation.CheckIncomplete{Trouble: t, Class: rotation.Ambiguous, PATs: m.PATs,
			NextEnd: nextEnd(plan, m.Owner), Message: message})
	}
	return out
}

// troubleOf names what a plan could not observe: the vault, an identity, or what an
// identity has in an organization.
func troubleOf(u rotation.Unobserved) rotation.Trouble {
	e := classified(u.Err)
	t := rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: u.Identity, Organization: u.Organization,
		Code: cmp.Or(e.Code, rotation.Unexpected)}
	switch {
	case u.Identity == "":
		t.Scope = rotation.ScopeVault
	case u.Organization == "" || e.Class == rotation.SignIn:
		t.Scope, t.Organization = rotation.ScopeIdentity, ""
	}
	return t
}

// earlier is the earlier of two times; zero: not known.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// affected are the PATs that a plan could not judge for one reason, and the earliest end
// among them.
func affected(plan rotation.Plan, u rotation.Unobserved) (pats int, next time.Time) {
	for i := range plan.Items {
		item := &plan.Items[i]
		s := item.Spec
		isAboutOrganization := u.Organization == "" || s.Organization == u.Organization
		isAboutIdentity := u.Identity == "" || s.Identity == u.Identity
		if !isAboutIdentity || !isAboutOrganization {
			continue
		}
		pats++
		if item.Current != nil {
			next = earlier(next, item.Current.Expires)
		}
	}
	return pats, next
}

// nextEnd is the earliest end among an owner's PATs; zero: not known.
func nextEnd(plan rotation.Plan, o rotation.Owner) time.Time {
	var next time.Time
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.Spec.Owner() == o && item.Current != nil {
			next = earlier(next, item.Current.Expires)
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
			"organization", x.Organization, "class", string(rotation.ClassOf(x.Err)), "code", codeOf(x.Err),
			"error", x.Err.Error())
	}
	for _, v := range plan.Released {
		p.Log.InfoContext(ctx, "a PAT is released: it is no longer in the manifest and is left to run out",
			"pat", v.Name, "validTo", v.Expires)
	}
	for i := range plan.Items {
		item := &plan.Items[i]
		if item.EndsSoon(plan.At) {
			p.Log.WarnContext(ctx, "a PAT ends soon and has no successor", "pat", item.Spec.Name,
				"displayName", item.Spec.DisplayName, "validTo", item.Current.Expires)
		}
	}
	for _, u := range plan.Unmanaged {
		if left := u.PAT.ValidTo.Sub(plan.At); left > 0 && left <= time.Duration(markDays[0])*rotation.Day {
			p.Log.InfoContext(ctx, "a PAT that nobody manages ends soon", "authorizationId", u.PAT.AuthorizationID,
				"displayName", u.PAT.DisplayName, "identity", u.Owner.Identity, "organization", u.Owner.Organization,
				"validTo", u.PAT.ValidTo)
		}
		if u.PAT.Global {
			p.Log.WarnContext(ctx, "a global PAT stops working on 2026-12-01", "identity", u.Owner.Identity,
				"authorizationId", u.PAT.AuthorizationID)
		}
	}
}

// notifyMarks publishes each mark that an unmanaged PAT has passed since the last sweep,
// and each rotation that the calendar holds back since then, and remembers the owners for which that was not possible.
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
	for i := range plan.Items {
		e := postponed(&plan.Items[i], p.marks.notifiedUpTo(plan.Items[i].Spec.Owner(), last), plan.At)
		if e == nil {
			continue
		}
		publish = append(publish, func() error {
			err := p.Outbox.Publish(ctx, e)
			if err != nil {
				failed.Store(e.Spec.Owner(), true)
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
		if p.marks.keep(o.owner, !behind, last) {
			p.keepMarks(ctx, rotation.BehindMarks{Owner: o.owner, Since: last}, behind)
		}
	}
	return err
}

// keepMarks writes down for the next sweep whether an owner's marks are behind.
func (p *planning) keepMarks(ctx context.Context, b rotation.BehindMarks, behind bool) {
	if p.Memory == nil {
		return
	}
	var err error
	if behind {
		err = p.Memory.KeepBehind(ctx, b)
	} else {
		err = p.Memory.DropBehind(ctx, b.Owner)
	}
	if err != nil {
		p.Log.WarnContext(ctx, "which marks have been published could not be written down for the next sweep",
			"identity", b.Owner.Identity, "organization", b.Owner.Organization, "class", string(rotation.ClassOf(err)))
	}
}

// codeOf is a failure's stable word; empty: it has none.
func codeOf(err error) string {
	e := rotation.AsError(err)
	if e == nil {
		return ""
	}
	return e.Code
}
