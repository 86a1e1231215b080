package rotation

import (
	"errors"
	"time"
)

// State sums a PAT up for people.
type State string

const (
	StateMissing   State = "missing"   // not provisioned yet
	StateCurrent   State = "current"   // nothing to do
	StateDue       State = "due"       // to be rotated now
	StateBlocked   State = "blocked"   // a person must do something
	StateUnknown   State = "unknown"   // its organization or the vault could not be read
	StateReleased  State = "released"  // in the vault, no longer in the manifest
	StatePostponed State = "postponed" // due, and held back by the entry's calendar
	StateOther     State = "unmanaged" // a PAT of a signed-in user that patrol does not manage
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
	// ReplacedAt is when it will be: later than Due if Postponed says why; zero: not
	// known, or the entry is paused.
	ReplacedAt time.Time
	Postponed  Postponement
	// Late is a switch-over that takes longer than declared; nil: none does.
	Late *LateSwitch
	// Ends, Global and FullScope are the current PAT's, as Azure DevOps lists it;
	// zero values where it does not.
	Ends              time.Time
	Global, FullScope bool
	// Err is why it could not be observed.
	Err error
}

// Stray is a PAT of a signed-in user that patrol does not manage.
type Unmanaged struct {
	Owner Owner
	PAT   PAT
}

// Plan is what a sweep found, and what it would do.
type Plan struct {
	At        time.Time
	Items     []Item
	Unmanaged []Unmanaged
	Released  []Version // secrets that patrol wrote for PATs that are no longer in the manifest
	// Garbage are PATs with our mark that nothing holds, and that a sweep ends.
	Garbage []Garbage
	// MassChanges are owners of whose PATs so many are gone or drifted that a person has
	// to say whether that is meant.
	MassChanges []MassChanged
	// Problems are what could not be observed: the vault, an organization, an
	// identity.
	Problems []Unobserved
}

// Garbage is a PAT that nothing holds.
type Garbage struct {
	Owner Owner
	PAT   PAT
	Name  string // of the secret that it was made for
	Ends  time.Time
	// Replaced: a version names it, and it is in its overlap, or past that.
	Replaced bool
}

// MassChanged counts how many of an owner's PATs are gone or drifted.
type MassChanged struct {
	Owner    Owner
	PATs, Of int
}

// Unobserved is one thing that a plan could not observe, and why.
type Unobserved struct {
	Identity     string
	Organization string
	Err          error
}

func (p Plan) Err() error {
	var errs []error
	for _, q := range p.Problems {
		errs = append(errs, q.Err)
	}
	return errors.Join(errs...)
}

// settle fills in what follows from an observation.
func (i *Item) Settle(o Observed, now time.Time) {
	i.Current = o.Current
	if o.Current != nil {
		if due, clamped, ok := o.DueAt(i.Spec); ok {
			i.Due, i.Clamped = due, clamped
			i.ReplacedAt, i.Postponed, _ = o.ReplacedAt(i.Spec, now)
		}
		if p, ok := o.Find(o.Current.Ledger.AuthorizationID); ok {
			i.Ends, i.Global, i.FullScope = p.ValidTo, p.Global, p.FullScope()
		}
	}
	i.Late = o.Late(i.Spec, now)
	i.Decision = Decide(i.Spec, o, now)
	if i.Decision.Postponed.Reason != "" {
		i.State = StatePostponed
		return
	}
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

// wants reports whether a command shall be sent for it.
func (i *Item) Wants() bool {
	switch i.Decision.Action {
	case "", Nothing, ReportSignIn, ReportLate:
		return false
	}
	return true
}

// Commands are what a plan sends: one for each PAT that needs one.
func (p Plan) Commands(requestedBy string) []Command {
	var out []Command
	for i := range p.Items {
		if it := &p.Items[i]; it.Wants() {
			out = append(out, it.Command(p.At, requestedBy))
		}
	}
	return out
}

// Command asks to check the PAT: a sweep sends no orders. What it has seen may be old or
// wrong, so whoever works on the command observes anew.
func (i *Item) Command(at time.Time, requestedBy string) Command {
	return Command{PAT: i.Spec.Name, Reason: Check, RequestedBy: requestedBy,
		Operation: at.UTC().Format("2006-01-02T15:04Z")}
}

// soon is how close to its end a PAT may come before a person should see to it.
const soon = 48 * time.Hour

// endsSoon reports whether a PAT is closer to its end than rotation in time would have
// let it come. It is the latest one: nothing has replaced it.
func (i *Item) EndsSoon(now time.Time) bool {
	return i.Current != nil && !i.Current.Expires.IsZero() && i.Current.Expires.Sub(now) < min(soon,
		i.Spec.RotateBefore/2)
}
