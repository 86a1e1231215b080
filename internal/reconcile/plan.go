package reconcile

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Plan joins the vault's secrets and the PATs of every owner into a plan. It changes
// nothing. What cannot be observed is in the plan's Problems; the rest goes on.
func (r *Reconciler) Plan(ctx context.Context) rotation.Plan {
	p := r.newPlanning(r.Now(), nil)
	lists := p.startLists(ctx, func(string) {})
	p.readSecrets(ctx)
	for l := range lists {
		p.judge(l)
	}
	p.findGarbage(ctx)
	return p.result()
}

// planning is a plan that is being made: the vault is listed once, and each owner's
// items are judged as soon as that owner's PATs are there. One that is slow does not
// hold up the others.
type planning struct {
	*Reconciler
	pauses   []time.Duration // between attempts at what fails for a reason that may pass
	accepted Acceptance
	plan     rotation.Plan
	specs    []rotation.Spec
	owners   []*ownersPart
	latest   []*rotation.Version // of the specs, in their order
	// released are secrets that patrol wrote and the manifest does not have.
	released []*rotation.Version
	all      []rotation.Version // of every secret
	vaultErr error
	garbage  []garbage
	before   recalled
	early    bool  // a deployment whose roles may not work yet
	unsent   error // what Service Bus did not take
	// failsSince is the first of the sweeps in a row that have failed; zero: none has.
	failsSince time.Time
}

// ownersPart is what a plan has of one owner.
type ownersPart struct {
	owner rotation.Owner
	specs []int // where they stand in the plan
	pats  *index
	err   error
	// earlier: no entry has this owner any more; its list is read for garbage alone.
	earlier bool
}

func (r *Reconciler) newPlanning(at time.Time, pauses []time.Duration) *planning {
	p := &planning{Reconciler: r, pauses: pauses, plan: rotation.Plan{At: at}, specs: r.Specs()}
	p.plan.Items = make([]rotation.Item, len(p.specs))
	byOwner := map[rotation.Owner]*ownersPart{}
	for i, s := range p.specs {
		o := byOwner[s.Owner()]
		if o == nil {
			o = &ownersPart{owner: s.Owner()}
			byOwner[s.Owner()] = o
			p.owners = append(p.owners, o)
		}
		o.specs = append(o.specs, i)
	}
	return p
}

// startLists begins to list the PATs of every owner, maxParallel at a time for one
// identity, and gives each owner once its list, or its failure, is there. Before an
// identity's first list it calls ready.
func (p *planning) startLists(ctx context.Context, ready func(identity string)) iter.Seq[*ownersPart] {
	listed := make(chan *ownersPart, len(p.owners))
	slots := map[string]chan struct{}{} // by identity
	for _, o := range p.owners {
		slot := slots[o.owner.Identity]
		if slot == nil {
			slot = make(chan struct{}, maxParallel)
			slots[o.owner.Identity] = slot
		}
		go func() {
			slot <- struct{}{}
			o.err = panics.Held(func() error {
				ready(o.owner.Identity)
				return p.retrying(ctx, p.pauses, func() (err error) {
					o.pats, err = p.lists.list(ctx, o.owner, p.plan.At)
					return err
				})
			})
			<-slot
			listed <- o
		}()
	}
	return func(yield func(*ownersPart) bool) {
		for range p.owners {
			if !yield(<-listed) {
				return
			}
		}
	}
}

// readSecrets lists the secrets of the vault by the properties of their latest versions:
// the managed ones, and those that patrol wrote once.
func (p *planning) readSecrets(ctx context.Context) {
	wanted := make(map[string]int, len(p.specs))
	for i, s := range p.specs {
		wanted[strings.ToLower(s.Name)] = i
	}
	at := p.Now()
	p.vaultErr = p.retrying(ctx, p.pauses, func() error {
		p.latest, p.released, p.all = make([]*rotation.Version, len(p.specs)), nil, nil
		for v, err := range p.Vault.Secrets(ctx) {
			if err != nil {
				return err
			}
			p.all = append(p.all, v)
			if i, ok := wanted[strings.ToLower(v.Name)]; ok {
				p.latest[i] = &v
			} else if v.Ledger.RotationID != "" {
				p.released = append(p.released, &v)
			}
		}
		return nil
	})
	if p.vaultErr != nil {
		p.plan.Problems = append(p.plan.Problems, rotation.Unobserved{Err: p.vaultErr})
		return
	}
	p.secrets.keep(at, p.all)
	p.guard.keepOnly(p.all)
}

// judge decides for each PAT of an owner, and gives those that want something.
func (p *planning) judge(o *ownersPart) (wanting []*rotation.Item) {
	if o.err != nil {
		p.plan.Problems = append(p.plan.Problems,
			rotation.Unobserved{Identity: o.owner.Identity, Organization: o.owner.Organization, Err: o.err})
	}
	braked := p.brakes(o)
	for _, i := range o.specs {
		item := &p.plan.Items[i]
		*item = rotation.Item{Spec: p.specs[i], State: rotation.StateUnknown, Err: cmp.Or(p.vaultErr, o.err),
			Current: p.latest[i]}
		needsSignIn := p.vaultErr == nil && rotation.ClassOf(item.Err) == rotation.SignIn
		if item.Err == nil || needsSignIn {
			p.judgeOne(item, o.pats, braked)
		}
		if item.Wants() {
			wanting = append(wanting, item)
		}
	}
	return wanting
}

// brakes counts how many of an owner's PATs are gone or drifted by the lists, and
// reports whether a person has to say that this is meant.
func (p *planning) brakes(o *ownersPart) bool {
	if o.pats == nil || p.vaultErr != nil {
		return false
	}
	var m massChange
	for _, i := range o.specs {
		if v := p.latest[i]; v != nil {
			m.add(p.Reconciler, p.specs[i], *v, o.pats, p.plan.At)
		}
	}
	if !m.brakes(p.accepted.of(o.owner), p.plan.At) {
		return false
	}
	p.plan.MassChanges = append(p.plan.MassChanges, rotation.MassChanged{Owner: o.owner, PATs: m.changed, Of: m.total})
	return true
}

// judgeOne decides for one PAT from the pages alone: the list of secrets shows the
// latest version's tags, which name the PAT before it. What rests on a PAT that is not
// listed is what would be done if a second witness agrees.
func (p *planning) judgeOne(item *rotation.Item, pats *index, braked bool) {
	o := rotation.Observed{Current: item.Current, VaultTag: p.VaultTag,
		ProviderAddress: p.ProviderAddress(item.Spec.Organization), SignIn: rotation.AsError(item.Err), Braked: braked,
		Interval: p.interval(), LateNotified: true}
	if pats != nil {
		var versions []rotation.Version
		if item.Current != nil {
			versions = append(versions, *item.Current)
		}
		o.PATs, o.ListedAt = pats.about(item.Spec, versions...), pats.at
		o.Gone = o.Missing(p.Now())
	}
	if c := item.Current; c != nil {
		o.Order = c.Ledger.Facts.Order
		if p.previousMayLive(o, c.Ledger) {
			o.Replaced = []rotation.Version{{Name: c.Name, ID: c.Ledger.PreviousVersion,
				Ledger: rotation.Ledger{AuthorizationID: c.Ledger.Previous, AnnouncedAt: c.Created}}}
		}
	}
	item.Settle(o, p.Now())
}

// previousMayLive reports whether the PAT before the current one may still have to be
// revoked, or its version to be closed.
func (p *planning) previousMayLive(o rotation.Observed, l rotation.Ledger) bool {
	if l.Previous == "" || p.closed.has(l.Previous) {
		return false
	}
	pat, listed := o.Find(l.Previous)
	isRecent := l.WaitsAfter(p.Now().Add(-rotation.SettleWindow))
	isOthers := listed && isMarked(pat) && !p.isOurs(pat) // another deployment ends it
	return (listed || isRecent) && !isOthers && !p.holds(l.Previous)
}

// holds reports whether the latest version of a secret names a PAT: it is kept while that
// is so, and no command is sent for it.
func (p *planning) holds(authorizationID string) bool {
	return slices.ContainsFunc(p.all, func(v rotation.Version) bool {
		return strings.EqualFold(v.Ledger.AuthorizationID, authorizationID)
	})
}

func isMarked(pat rotation.PAT) bool {
	_, _, _, marked := rotation.ParseDisplayName(pat.DisplayName)
	return marked
}

// result is the plan, once every owner has been judged.
func (p *planning) result() rotation.Plan {
	p.plan.Unmanaged = p.unmanaged()
	for _, v := range p.released {
		if !p.isRefused(v.Name) {
			p.plan.Released = append(p.plan.Released, *v)
		}
	}
	slices.SortFunc(p.plan.Released, func(a, b rotation.Version) int { return strings.Compare(a.Name, b.Name) })
	for _, g := range p.garbage {
		if g.isKept || g.endsAt.IsZero() {
			continue
		}
		p.plan.Garbage = append(p.plan.Garbage, rotation.Garbage{Owner: g.owner, PAT: g.pat, Name: g.spec.Name,
			Ends: g.endsAt, Replaced: g.closes != nil})
	}
	slices.SortFunc(p.plan.Problems, func(a, b rotation.Unobserved) int {
		return cmp.Or(strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization))
	})
	return p.plan
}

// isRefused reports whether the manifest has an entry of this name that is not in force.
func (p *planning) isRefused(name string) bool {
	return slices.ContainsFunc(p.Refused, func(refused string) bool { return strings.EqualFold(refused, name) })
}

// unmanaged are the PATs that no secret names, of whatever owner, by their ends. Without
// the vault nobody knows what is managed.
func (p *planning) unmanaged() []rotation.Unmanaged {
	if p.vaultErr != nil {
		return nil
	}
	named := namedBy(p.all)
	hidden := map[string]bool{}
	for _, g := range p.garbage {
		hidden[strings.ToLower(g.pat.AuthorizationID)] = !g.isKept
	}
	var out []rotation.Unmanaged
	for _, o := range p.owners {
		if o.pats == nil || o.earlier {
			continue
		}
		o.pats.each(func(pat rotation.PAT) {
			isYoungOfOurs := p.isOurs(pat) && p.plan.At.Sub(pat.ValidFrom) < rotation.OrphanAge
			if isYoungOfOurs || hidden[strings.ToLower(pat.AuthorizationID)] || named.has(pat.AuthorizationID) {
				return
			}
			out = append(out, rotation.Unmanaged{Owner: o.owner, PAT: pat})
		})
	}
	slices.SortFunc(out, func(a, b rotation.Unmanaged) int {
		return cmp.Or(a.PAT.ValidTo.Compare(b.PAT.ValidTo),
			strings.Compare(a.PAT.AuthorizationID, b.PAT.AuthorizationID),
			strings.Compare(a.Owner.Identity, b.Owner.Identity),
			strings.Compare(a.Owner.Organization, b.Owner.Organization))
	})
	return slices.CompactFunc(out, sameGlobalPAT)
}

// sameGlobalPAT: a global PAT is in the list of each organization.
func sameGlobalPAT(a, b rotation.Unmanaged) bool {
	same := a.PAT.AuthorizationID == b.PAT.AuthorizationID && a.Owner.Identity == b.Owner.Identity
	return a.PAT.Global && same
}
