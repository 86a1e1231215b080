package reconcile

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// marks are the days before its end at which an unmanaged PAT is told of.
var marks = [...]int{14, 7, 1}

// Look joins the vault's secrets and the PATs of every owner into a plan. It changes
// nothing. What cannot be looked at is in the plan's Problems; the rest goes on.
func (r *Reconciler) Plan(ctx context.Context) rotation.Plan {
	return r.plan(ctx, r.Now(), nil, func(string) {}, func([]*rotation.Item) {})
}

// look is Look. Before an owner's PATs are listed it asks to make its identity ready;
// and it shows the items of each owner that want something as soon as they are judged:
// one that is slow does not hold up the others.
func (r *Reconciler) plan(ctx context.Context, at time.Time, pauses []time.Duration, ready func(identity string),
	part func([]*rotation.Item)) rotation.Plan {
	plan := rotation.Plan{At: at}
	specs := r.Specs()

	type ownersPart struct {
		owner rotation.Owner
		specs []int
		pats  *index
		err   error
	}
	owners := map[rotation.Owner]*ownersPart{}
	for i, s := range specs {
		l := owners[s.Owner()]
		if l == nil {
			l = &ownersPart{owner: s.Owner()}
			owners[l.owner] = l
		}
		l.specs = append(l.specs, i)
	}
	listed := make(chan *ownersPart, len(owners))
	slots := map[string]chan struct{}{} // by identity
	for o, l := range owners {
		slot := slots[o.Identity]
		if slot == nil {
			slot = make(chan struct{}, maxParallel)
			slots[o.Identity] = slot
		}
		go func() {
			slot <- struct{}{}
			ready(o.Identity)
			l.err = r.retrying(ctx, pauses, func() (err error) {
				l.pats, err = r.lists.list(ctx, o, plan.At)
				return err
			})
			<-slot
			listed <- l
		}()
	}
	var secrets, released []*rotation.Version
	verr := r.retrying(ctx, pauses, func() (err error) {
		secrets, released, err = r.secrets(ctx, specs)
		return err
	})
	if verr != nil {
		plan.Problems = append(plan.Problems, rotation.Unobserved{Err: verr})
	}

	plan.Items = make([]rotation.Item, len(specs))
	for range owners {
		l := <-listed
		if l.err != nil {
			plan.Problems = append(plan.Problems, rotation.Unobserved{Identity: l.owner.Identity,
				Organization: l.owner.Organization, Err: l.err})
		}
		var wanting []*rotation.Item
		for _, i := range l.specs {
			item := &plan.Items[i]
			*item = rotation.Item{Spec: specs[i], State: rotation.StateUnknown, Err: cmp.Or(verr, l.err),
				Current: secrets[i]}
			if item.Err == nil || rotation.ClassOf(item.Err) == rotation.SignIn && verr == nil {
				r.judge(item, l.pats)
			}
			if item.Wants() {
				wanting = append(wanting, item)
			}
		}
		part(wanting)
	}

	// What no secret names, of whatever owner, is not managed.
	managed := make(map[string]bool, 2*len(specs))
	for _, v := range append(secrets, released...) {
		if v != nil {
			managed[strings.ToLower(v.Ledger.AuthorizationID)] = true
			managed[strings.ToLower(v.Ledger.Previous)] = true
		}
	}
	for o, l := range owners {
		if l.pats == nil || verr != nil { // without the vault nobody knows what is managed
			continue
		}
		l.pats.each(func(p rotation.PAT) {
			_, tag, _, ours := rotation.ParseDisplayName(p.DisplayName)
			if !managed[strings.ToLower(p.AuthorizationID)] && !(ours && tag == r.VaultTag) {
				plan.Unmanaged = append(plan.Unmanaged, rotation.Unmanaged{Owner: o, PAT: p})
			}
		})
	}
	for _, v := range released {
		plan.Released = append(plan.Released, *v)
	}
	slices.SortFunc(plan.Unmanaged, func(a, b rotation.Unmanaged) int {
		return cmp.Or(a.PAT.ValidTo.Compare(b.PAT.ValidTo), strings.Compare(a.PAT.AuthorizationID,
			b.PAT.AuthorizationID),
			strings.Compare(a.Owner.Identity, b.Owner.Identity), strings.Compare(a.Owner.Organization,
				b.Owner.Organization))
	})
	// A global PAT is in the list of each organization.
	plan.Unmanaged = slices.CompactFunc(plan.Unmanaged, func(a, b rotation.Unmanaged) bool {
		return a.PAT.Global && a.PAT.AuthorizationID == b.PAT.AuthorizationID && a.Owner.Identity == b.Owner.Identity
	})
	slices.SortFunc(plan.Released, func(a, b rotation.Version) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(plan.Problems, func(a, b rotation.Unobserved) int {
		return cmp.Or(strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization))
	})
	return plan
}

// secrets reads the properties of the secrets that matter here: the managed ones, in
// the order of specs, and those that patrol wrote once.
func (r *Reconciler) secrets(ctx context.Context, specs []rotation.Spec) (managed, released []*rotation.Version,
	err error) {
	wanted := make(map[string]int, len(specs))
	for i, s := range specs {
		wanted[strings.ToLower(s.Name)] = i
	}
	managed = make([]*rotation.Version, len(specs))
	for v, err := range r.Vault.Secrets(ctx) {
		if err != nil {
			return managed, released, err
		}
		if i, ok := wanted[strings.ToLower(v.Name)]; ok {
			managed[i] = &v
		} else if v.Ledger.RotationID != "" {
			released = append(released, &v)
		}
	}
	return managed, released, nil
}

// judge decides for one PAT from the pages alone: the list of secrets shows the
// latest version's tags, which name the PAT before it.
func (r *Reconciler) judge(item *rotation.Item, pats *index) {
	o := rotation.Observed{Current: item.Current, VaultTag: r.VaultTag,
		ProviderAddress: r.ProviderAddress(item.Spec.Organization)}
	if pats != nil {
		var versions []rotation.Version
		if item.Current != nil {
			versions = append(versions, *item.Current)
		}
		o.PATs, o.ListedAt = pats.about(item.Spec, versions...), pats.at
	}
	if e, ok := errors.AsType[*rotation.Error](item.Err); ok {
		o.SignIn = e
	}
	if c := item.Current; c != nil {
		l := c.Ledger
		if l.Previous != "" && (o.Lists(l.Previous) || l.RevokePreviousAt.After(r.Now().Add(-rotation.SettleWindow))) &&
			!r.settled(l.Previous) {
			o.Replaced = []rotation.Version{{Name: c.Name, ID: l.PreviousVersion,
				Ledger: rotation.Ledger{AuthorizationID: l.Previous}}}
		}
	}
	item.Settle(o, r.Now())
}

// Sweep is one round over everything: every identity's sign-in is kept up, and each
// PAT that needs something gets a command. last is when the sweep before it was
// (zero: not known). It goes on past what it cannot look at and then says so by its
// error. What fails for a reason that may pass is tried again after each of the pauses,
// while the rest goes on.
func (r *Reconciler) Sweep(ctx context.Context, last time.Time, requestedBy string,
	pauses ...time.Duration) (rotation.Plan, error) {
	r.prune()
	ctx, done := r.Observer.Sweep(ctx)
	// An identity's PATs are listed once its sign-in is in order, whatever the others
	// wait for.
	refresh := map[string]func() error{}
	for _, s := range r.Specs() {
		if refresh[s.Identity] == nil {
			refresh[s.Identity] = sync.OnceValue(func() error {
				return r.retrying(ctx, pauses, func() error { return r.Identities.Refresh(ctx, s.Identity) })
			})
		}
	}
	var unsent error
	commands, at := 0, r.Now()
	plan := r.plan(ctx, at, pauses, func(identity string) { _ = refresh[identity]() }, func(wanting []*rotation.Item) {
		cs := make([]rotation.Command, len(wanting))
		for i, it := range wanting {
			cs[i] = it.Command(at, requestedBy)
		}
		commands += len(cs)
		unsent = errors.Join(unsent, r.retrying(ctx, pauses, func() error { return r.Outbox.Send(ctx, cs...) }))
	})
	for _, identity := range slices.Sorted(maps.Keys(refresh)) {
		// Listing the identity's PATs has met the same refusal.
		if err := refresh[identity](); err != nil && rotation.ClassOf(err) != rotation.SignIn {
			plan.Problems = append(plan.Problems, rotation.Unobserved{Identity: identity, Err: err})
		}
	}
	for _, p := range plan.Problems {
		r.Log.WarnContext(ctx, "the sweep could not look everywhere", "identity", p.Identity, "organization",
			p.Organization,
			"class", string(rotation.ClassOf(p.Err)), "error", p.Err.Error())
	}
	for _, v := range plan.Released {
		r.Log.InfoContext(ctx, "a PAT is released: it is no longer in the manifest and is left to run out", "pat",
			v.Name, "validTo", v.Expires)
	}
	for i := range plan.Items {
		if it := &plan.Items[i]; it.EndsSoon(plan.At) {
			r.Log.WarnContext(ctx, "a PAT ends soon and has no successor", "pat", it.Spec.Name, "validTo",
				it.Current.Expires)
		}
	}
	var tell []func() error
	var untold sync.Map // owners whose marks could not be told
	for _, s := range plan.Unmanaged {
		if s.PAT.Global {
			r.Log.WarnContext(ctx, "a global PAT stops working on 2026-12-01", "identity", s.Owner.Identity,
				"authorizationId", s.PAT.AuthorizationID)
		}
		if d := crossed(s.PAT.ValidTo, r.notifiedUpTo(s.Owner, last), plan.At); d > 0 {
			tell = append(tell, func() error {
				err := r.Outbox.Publish(ctx, &rotation.ExpiringPAT{Owner: s.Owner, PAT: s.PAT, Days: d, At: plan.At})
				if err != nil {
					untold.Store(s.Owner, true)
				}
				return err
			})
		}
	}
	err := errors.Join(unsent, together(tell))
	r.keepMarks(plan, last, func(o rotation.Owner) bool {
		_, failed := untold.Load(o)
		return failed
	})
	r.Log.InfoContext(ctx, "sweep done", "managed", len(plan.Items), "commands", commands, "unmanaged",
		len(plan.Unmanaged),
		"released", len(plan.Released), "problems", len(plan.Problems))
	err = errors.Join(plan.Err(), err)
	done(&plan, err)
	return plan, err
}

// toldUpTo is the time up to which an owner's marks have been told: that of the last
// sweep, or of the last one that could look at the owner and tell what it found.
func (r *Reconciler) notifiedUpTo(o rotation.Owner, last time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if since, ok := r.behind[o]; ok {
		return since
	}
	return last
}

// marked notes for which owners a sweep has not told the marks it passed: the next one
// of this process makes up for it. A repeat by another process has the same event ids.
func (r *Reconciler) keepMarks(plan rotation.Plan, last time.Time, failed func(rotation.Owner) bool) {
	unseen := map[rotation.Owner]bool{}
	for _, p := range plan.Problems {
		unseen[rotation.Owner{Identity: p.Identity, Organization: p.Organization}] = true
	}
	if last.IsZero() {
		last = plan.At.Add(-rotation.Day)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.Specs() {
		o := s.Owner()
		if !unseen[o] && !failed(o) {
			delete(r.behind, o)
		} else if _, ok := r.behind[o]; !ok {
			r.behind[o] = last
		}
	}
}

// crossed is the smallest mark (in days before its end) that an unmanaged PAT has
// passed since the last sweep; 0 if none. Without a last sweep the day before
// counts, so that a new deployment does not tell of marks long past.
func crossed(validTo, last, now time.Time) int {
	if last.IsZero() || now.Sub(last) > 14*rotation.Day {
		last = now.Add(-rotation.Day)
	}
	hit := 0
	for _, d := range marks {
		mark := validTo.Add(-time.Duration(d) * rotation.Day)
		if mark.After(last) && !mark.After(now) {
			hit = d
		}
	}
	if !validTo.After(now) {
		return 0
	}
	return hit
}
