package rotation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// State sums a PAT up for people.
type State string

const (
	StateMissing  State = "missing"   // not provisioned yet
	StateCurrent  State = "current"   // nothing to do
	StateDue      State = "due"       // to be rotated now
	StateBlocked  State = "blocked"   // a person must do something
	StateUnknown  State = "unknown"   // its organization or the vault could not be looked at
	StateReleased State = "released"  // in the vault, no longer in the manifest
	StateOther    State = "unmanaged" // a PAT of a signed-in user that patrol does not manage
)

// Item is one managed PAT in a sweep's plan.
type Item struct {
	Spec     Spec
	State    State
	Decision Decision
	// Current is the latest version's properties; nil: there is no secret.
	Current *Version
	// Due is when it shall be replaced; zero: not known.
	Due     time.Time
	Clamped bool
	// Err is why it could not be looked at.
	Err error
}

// Stray is a PAT of a signed-in user that patrol does not manage.
type Stray struct {
	Owner Owner
	PAT   PAT
}

// Plan is what a sweep found, and what it would do.
type Plan struct {
	At       time.Time
	Items    []Item
	Strays   []Stray
	Released []Version // secrets that patrol wrote for PATs that are no longer in the manifest
	// Problems are what could not be looked at: the vault, an organization, an
	// identity.
	Problems []Problem
}

// Problem is one thing that could not be looked at.
type Problem struct {
	Identity     string
	Organization string
	Err          error
}

func (p Plan) err() error {
	var errs []error
	for _, q := range p.Problems {
		errs = append(errs, q.Err)
	}
	return errors.Join(errs...)
}

// marks are the days before its end at which an unmanaged PAT is told of.
var marks = [...]int{14, 7, 1}

// Look joins the vault's secrets and the PATs of every owner into a plan. It changes
// nothing. What cannot be looked at is in the plan's Problems; the rest goes on.
func (r *Reconciler) Look(ctx context.Context) Plan {
	plan := Plan{At: r.Now()}
	specs := r.Specs()

	type listing struct {
		pats []PAT
		at   time.Time
		err  error
	}
	owners := map[Owner]*listing{}
	for _, s := range specs {
		owners[s.Owner()] = &listing{}
	}
	var wg sync.WaitGroup
	for o, l := range owners {
		wg.Go(func() { l.pats, l.at, l.err = r.roster.list(ctx, o, plan.At) })
	}
	secrets, verr := r.secrets(ctx, specs)
	wg.Wait()

	if verr != nil {
		plan.Problems = append(plan.Problems, Problem{Err: verr})
	}
	for o, l := range owners {
		if l.err != nil {
			plan.Problems = append(plan.Problems, Problem{Identity: o.Identity, Organization: o.Organization, Err: l.err})
		}
	}
	managed := map[string]bool{}
	for _, s := range specs {
		l := owners[s.Owner()]
		item := Item{Spec: s, State: StateUnknown, Err: cmp.Or(verr, l.err)}
		if v, ok := secrets[strings.ToLower(s.Name)]; ok {
			item.Current = &v
			managed[strings.ToLower(v.Ledger.AuthorizationID)] = true
			managed[strings.ToLower(v.Ledger.Previous)] = true
		}
		delete(secrets, strings.ToLower(s.Name))
		if item.Err == nil || ClassOf(item.Err) == SignIn && verr == nil {
			r.judge(&item, l.pats, l.at)
		}
		plan.Items = append(plan.Items, item)
	}
	for _, v := range secrets {
		plan.Released = append(plan.Released, v)
		managed[strings.ToLower(v.Ledger.AuthorizationID)] = true
		managed[strings.ToLower(v.Ledger.Previous)] = true
	}
	for o, l := range owners {
		for _, p := range l.pats {
			_, tag, _, ours := ParseDisplayName(p.DisplayName)
			if !managed[strings.ToLower(p.AuthorizationID)] && !(ours && tag == r.VaultTag) {
				plan.Strays = append(plan.Strays, Stray{o, p})
			}
		}
	}
	slices.SortFunc(plan.Strays, func(a, b Stray) int {
		return cmp.Or(a.PAT.ValidTo.Compare(b.PAT.ValidTo), strings.Compare(a.PAT.AuthorizationID, b.PAT.AuthorizationID))
	})
	slices.SortFunc(plan.Released, func(a, b Version) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(plan.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization))
	})
	return plan
}

// secrets reads the properties of the secrets that matter here: the managed ones,
// and those that patrol wrote once.
func (r *Reconciler) secrets(ctx context.Context, specs []Spec) (map[string]Version, error) {
	wanted := make(map[string]bool, len(specs))
	for _, s := range specs {
		wanted[strings.ToLower(s.Name)] = true
	}
	out := make(map[string]Version, len(specs))
	for v, err := range r.Vault.Secrets(ctx) {
		if err != nil {
			return out, err
		}
		if name := strings.ToLower(v.Name); wanted[name] || v.Ledger.RotationID != "" {
			out[name] = v
		}
	}
	return out, nil
}

// judge decides for one PAT from the pages alone: the list of secrets shows the
// latest version's tags, which name the PAT before it.
func (r *Reconciler) judge(item *Item, pats []PAT, at time.Time) {
	o := Observed{Current: item.Current, PATs: pats, ListedAt: at, VaultTag: r.VaultTag,
		ProviderAddress: r.ProviderAddress(item.Spec.Organization)}
	if e, ok := errors.AsType[*Error](item.Err); ok {
		o.SignIn = e
	}
	if c := item.Current; c != nil {
		l := c.Ledger
		if l.Previous != "" && (o.lists(l.Previous) || l.RevokePreviousAt.After(r.Now().Add(-settleWindow))) && !r.settled(l.Previous) {
			o.Replaced = []Version{{Name: c.Name, ID: l.PreviousVersion, Ledger: Ledger{AuthorizationID: l.Previous}}}
		}
	}
	item.settle(o, r.Now())
}

// settle fills in what follows from an observation.
func (i *Item) settle(o Observed, now time.Time) {
	i.Current = o.Current
	if o.Current != nil {
		if due, clamped, ok := o.due(i.Spec); ok {
			i.Due, i.Clamped = due, clamped
		}
	}
	i.Decision = Decide(i.Spec, o, now)
	switch i.Decision.Action {
	case ReportSignIn, Refuse:
		i.State = StateBlocked
	case Rotate:
		i.State = StateDue
		if i.Current == nil {
			i.State = StateMissing
		}
	default:
		i.State = StateCurrent
	}
}

// Commands are what a plan sends: one for each PAT that needs one.
func (p Plan) Commands(requestedBy string) []Command {
	var out []Command
	for _, it := range p.Items {
		c := Command{PAT: it.Spec.Name, Reason: Look, RequestedBy: requestedBy, Operation: p.At.UTC().Format("2006-01-02T15:04Z")}
		switch it.Decision.Action {
		case "", Nothing, ReportSignIn:
			continue
		case Rotate:
			c.Reason, c.RevokePrevious = it.Decision.Reason, it.Decision.RevokePrevious
			if it.Current != nil {
				c.From = it.Current.Ledger.AuthorizationID
			}
		}
		out = append(out, c)
	}
	return out
}

// Sweep is one round over everything: every identity's sign-in is kept up, and each
// PAT that needs something gets a command. last is when the sweep before it was
// (zero: not known). It goes on past what it cannot look at and then says so by its
// error.
func (r *Reconciler) Sweep(ctx context.Context, last time.Time, requestedBy string) (Plan, error) {
	r.prune()
	var identities []string
	for _, s := range r.Specs() {
		identities = append(identities, s.Identity)
	}
	slices.Sort(identities)
	identities = slices.Compact(identities)
	refreshed := make([]error, len(identities))
	var wg sync.WaitGroup
	for i, id := range identities {
		wg.Go(func() { refreshed[i] = r.Identities.Refresh(ctx, id) })
	}
	wg.Wait()

	plan := r.Look(ctx)
	for i, err := range refreshed {
		// Listing the identity's PATs has met the same refusal.
		if err != nil && ClassOf(err) != SignIn {
			plan.Problems = append(plan.Problems, Problem{Identity: identities[i], Err: err})
		}
	}
	for _, p := range plan.Problems {
		r.Log.WarnContext(ctx, "the sweep could not look everywhere", "identity", p.Identity, "organization", p.Organization,
			"class", string(ClassOf(p.Err)), "error", p.Err.Error())
	}
	for _, v := range plan.Released {
		r.Log.InfoContext(ctx, "a PAT is released: it is no longer in the manifest and is left to run out", "pat", v.Name, "validTo", v.Expires)
	}
	commands := plan.Commands(requestedBy)
	err := r.Outbox.Send(ctx, commands...)
	for _, s := range plan.Strays {
		if s.PAT.Global {
			r.Log.WarnContext(ctx, "a global PAT stops working on 2026-12-01", "identity", s.Owner.Identity, "authorization", s.PAT.AuthorizationID)
		}
		if d := crossed(s.PAT.ValidTo, last, plan.At); d > 0 {
			err = errors.Join(err, r.Outbox.Publish(ctx, &ExpiringPAT{Owner: s.Owner, PAT: s.PAT, Days: d, At: plan.At}))
		}
	}
	r.Log.InfoContext(ctx, "sweep done", "managed", len(plan.Items), "commands", len(commands), "unmanaged", len(plan.Strays),
		"released", len(plan.Released), "problems", len(plan.Problems))
	return plan, errors.Join(plan.err(), err)
}

// crossed is the smallest mark (in days before its end) that an unmanaged PAT has
// passed since the last sweep; 0 if none. Without a last sweep the day before
// counts, so that a new deployment does not tell of marks long past.
func crossed(validTo, last, now time.Time) int {
	if last.IsZero() || now.Sub(last) > 14*Day {
		last = now.Add(-Day)
	}
	hit := 0
	for _, d := range marks {
		mark := validTo.Add(-time.Duration(d) * Day)
		if mark.After(last) && !mark.After(now) {
			hit = d
		}
	}
	if !validTo.After(now) {
		return 0
	}
	return hit
}
