package rotation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Observed is what has been seen of one PAT.
type Observed struct {
	// SignIn is set when the identity needs a person to sign in.
	SignIn *Error
	// Current is the secret's latest version; nil: there is no secret.
	Current *Version
	// Replaced are the versions before the current one as far as their PATs may
	// still be alive, newest first. Closed ones may lie between them.
	Replaced []Version
	// PATs are the owner's active PATs as they were at ListedAt, with what this
	// process has created and revoked since.
	PATs     []PAT
	ListedAt time.Time
	// VaultTag and ProviderAddress are this deployment's own.
	VaultTag        string
	ProviderAddress string
	// Order is the command that asked. Its From, if it names the current PAT,
	// is an order to rotate.
	Order Command
	// Failed holds authorization ids whose revocation has just failed: other
	// work goes on.
	Failed map[string]bool
}

// Action is what to do next.
type Action string

const (
	ReportSignIn Action = "report-sign-in"
	Announce     Action = "announce"
	RevokeOrphan Action = "revoke-orphan"
	Adopt        Action = "adopt"
	Refuse       Action = "refuse" // a person must settle something first
	Rotate       Action = "rotate"
	Revoke       Action = "revoke"
	Nothing      Action = "nothing"
)

// Decision is the next action and why.
type Decision struct {
	Action  Action
	Rule    string // the name of the rule that applied
	Reason  Reason // of a rotation
	Message string // for people

	RevokePrevious RevokePrevious  // Rotate: when the replaced PAT ends
	PAT            PAT             // RevokeOrphan, Adopt
	Version        *Version        // Revoke: the replaced version
	Cause          RevocationCause // Revoke
	RotationID     string          // Revoke: of the rotation that replaced it
	Candidates     []string        // Refuse: authorization ids
	Next           time.Time       // Nothing: when there may be something to do
	Schedule       bool            // Nothing: Next is worth a scheduled command, the sweeps may come too late
}

// A rule looks at one thing. ok is false when it does not apply.
type rule struct {
	name  string
	apply func(s Spec, o Observed, now time.Time) (d Decision, ok bool)
}

// rules in their order: the first that applies wins.
var rules = [...]rule{
	{"sign-in", signInRule},
	{"unannounced", unannouncedRule},
	{"orphan", orphanRule},
	{"missing", missingRule},
	{"adoption", adoptionRule},
	{"ordered", orderedRule},
	{"disabled", disabledRule},
	{"moved", movedRule},
	{"gone", goneRule},
	{"scopes", scopesRule},
	{"due", dueRule},
	{"replaced", replacedRule},
}

// Decide names the next action. It is pure: the same observation at the same time
// gives the same decision.
func Decide(s Spec, o Observed, now time.Time) Decision {
	for _, r := range rules {
		if d, ok := r.apply(s, o, now); ok {
			d.Rule = r.name
			return d
		}
	}
	next, schedule := nextCheck(s, o, now)
	return Decision{Action: Nothing, Rule: "nothing", Next: next, Schedule: schedule,
		Message: "nothing to do before " + next.UTC().Format(time.RFC3339)}
}

// signInRule: without a delegated token nothing can be done.
func signInRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.SignIn == nil {
		return Decision{}, false
	}
	return Decision{Action: ReportSignIn, Message: o.SignIn.Error()}, true
}

// unannouncedRule: a stored rotation whose event may not have been sent. A
// version that patrol did not make has nothing to announce.
func unannouncedRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	c := o.Current
	if c == nil || c.Ledger.RotationID == "" || !c.Ledger.AnnouncedAt.IsZero() {
		return Decision{}, false
	}
	return Decision{Action: Announce, Message: "rotation " + c.Ledger.RotationID + " is stored and not yet announced"},
		true
}

// orphanRule: a PAT with this entry's marker that no version knows, left by an
// attempt that ended between create and store.
func orphanRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	for _, p := range Orphans(s, o) {
		if now.Sub(p.ValidFrom) >= OrphanAge && !o.Failed[p.AuthorizationID] {
			return Decision{Action: RevokeOrphan, PAT: p,
				Message: "no version of the secret knows this PAT of an interrupted attempt"}, true
		}
	}
	return Decision{}, false
}

// missingRule: there is no secret yet.
func missingRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Current != nil {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Provision, RevokePrevious: AfterOverlap,
		Message: "the vault has no such secret yet"}, true
}

// adoptionRule: a secret that patrol did not write. It is taken over if exactly
// one active PAT bears the declared name.
func adoptionRule(s Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Current.Ledger.Ours() {
		return Decision{}, false
	}
	var found []PAT
	for _, p := range o.PATs {
		if s.Adopt != "" && strings.EqualFold(p.AuthorizationID, s.Adopt) {
			return Decision{Action: Adopt, PAT: p, Message: "the manifest names this PAT for adoption"}, true
		}
		if strings.EqualFold(p.DisplayName, s.DisplayName) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && !o.conclusive():
		return Decision{Action: Nothing, Next: o.Current.Created.Add(ClockSkew + StoreSlack), Schedule: true,
			Message: "the secret was put there a moment ago, after the PATs were listed"}, true
	case s.Adopt != "" || len(found) == 0:
		return Decision{Action: Rotate, Reason: Provision, RevokePrevious: AfterOverlap,
			Message: "the secret was put there by hand and no active PAT bears the declared name: " +
				"a new one takes its place, nothing is revoked"}, true
	case len(found) == 1:
		return Decision{Action: Adopt, PAT: found[0], Message: "exactly one active PAT bears the declared name"}, true
	}
	d := Decision{Action: Refuse, Message: fmt.Sprintf("%d active PATs are named %q: "+
		"say which one the secret holds with `adopt: <authorization id>` in the manifest; candidates: ", len(found),
		s.DisplayName)}
	for _, p := range found {
		d.Candidates = append(d.Candidates, p.AuthorizationID)
	}
	slices.Sort(d.Candidates)
	d.Message += strings.Join(d.Candidates, ", ")
	return d, true
}

// orderedRule: somebody ordered to rotate away from the current PAT. An order
// away from another one has been carried out already.
func orderedRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Order.From == "" || !strings.EqualFold(o.Order.From, o.Current.Ledger.AuthorizationID) {
		return Decision{}, false
	}
	d := Decision{Action: Rotate, Reason: o.Order.Reason, RevokePrevious: o.Order.RevokePrevious, Message: "ordered"}
	if o.Order.RequestedBy != "" {
		d.Message += " by " + o.Order.RequestedBy
	}
	if d.Reason == "" || d.Reason == Check {
		d.Reason = Requested
	}
	return d, true
}

// disabledRule: readers cannot get the latest version.
func disabledRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Current.Enabled {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Drift, RevokePrevious: AfterOverlap,
		Message: "the latest version has been disabled by somebody else: its readers get nothing"}, true
}

// movedRule: the manifest names another identity or organization than the one
// that the current PAT belongs to.
func movedRule(s Spec, o Observed, _ time.Time) (Decision, bool) {
	l := o.Current.Ledger
	switch {
	case !strings.EqualFold(l.ProviderAddress, o.ProviderAddress):
		return Decision{Action: Rotate, Reason: Drift, RevokePrevious: AfterOverlap,
				Message: fmt.Sprintf("the manifest moved the PAT from %s to %s", l.ProviderAddress, o.ProviderAddress)},
			true
	case l.Identity != s.Identity:
		return Decision{Action: Rotate, Reason: Drift, RevokePrevious: AfterOverlap,
			Message: fmt.Sprintf("the manifest moved the PAT from identity %s to %s", l.Identity, s.Identity)}, true
	}
	return Decision{}, false
}

// goneRule: the current PAT has run out, or somebody revoked it.
func goneRule(_ Spec, o Observed, now time.Time) (Decision, bool) {
	c := o.Current
	if _, ok := o.Find(c.Ledger.AuthorizationID); ok {
		return Decision{}, false
	}
	if !c.Expires.IsZero() && !c.Expires.After(now) {
		return Decision{Action: Rotate, Reason: Expiring, RevokePrevious: AfterOverlap,
			Message: "the current PAT has run out"}, true
	}
	if !o.conclusive() {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Compromised, RevokePrevious: Now,
		Message: "the current PAT is not active any more: somebody else revoked it"}, true
}

// scopesRule: the manifest asks for other scopes than the current PAT has.
func scopesRule(s Spec, o Observed, _ time.Time) (Decision, bool) {
	p, ok := o.Find(o.Current.Ledger.AuthorizationID)
	if !ok || slices.Equal(p.Scopes, s.Scopes) {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Drift, RevokePrevious: AfterOverlap,
		Message: fmt.Sprintf("the manifest asks for scopes %s, the PAT has %s", strings.Join(s.Scopes, " "),
			strings.Join(p.Scopes, " "))}, true
}

// dueRule: the PAT comes near its end.
func dueRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	due, clamped, ok := o.DueAt(s)
	if !ok || now.Before(due) {
		return Decision{}, false
	}
	d := Decision{Action: Rotate, Reason: Expiring, RevokePrevious: AfterOverlap,
		Message: "due since " + due.UTC().Format(time.RFC3339)}
	if clamped {
		d.Message += "; a policy shortened its life, so it is rotated at the same fraction of that life"
	}
	return d, true
}

// replacedRule: the time of a replaced PAT has come.
func replacedRule(_ Spec, o Observed, now time.Time) (Decision, bool) {
	// The oldest first: whoever reads the versions back from the latest may stop at
	// one that is closed.
	for i, at := range slices.Backward(o.revocations()) {
		v := o.Replaced[i]
		if at.After(now) || !v.Ledger.RevokedAt.IsZero() || o.Failed[v.Ledger.AuthorizationID] {
			continue
		}
		d := Decision{Action: Revoke, Version: &v, RotationID: o.successor(i).Ledger.RotationID}
		switch d.Cause = o.revocationCause(i, now); d.Cause {
		case Expired:
			d.Message = "the replaced PAT has run out"
		case CauseRequested:
			d.Message = "the replaced PAT was to end at once"
		default:
			d.Message = "the overlap ended at " + at.UTC().Format(time.RFC3339)
		}
		return d, true
	}
	return Decision{}, false
}

// pat finds an active PAT.
func (o Observed) Find(authorizationID string) (PAT, bool) {
	for _, p := range o.PATs {
		if strings.EqualFold(p.AuthorizationID, authorizationID) {
			return p, true
		}
	}
	return PAT{}, false
}

func (o Observed) Lists(authorizationID string) bool {
	_, ok := o.Find(authorizationID)
	return ok
}

// conclusive reports whether the list is so much younger than the current version
// that a PAT missing in it is gone. Another instance may have stored the version
// after this process fetched the list.
func (o Observed) conclusive() bool {
	return o.ListedAt.After(o.Current.Created.Add(ClockSkew))
}

// due is when the current PAT shall be replaced. ok is false when its end is not
// known.
func (o Observed) DueAt(s Spec) (due time.Time, clamped, ok bool) {
	from, to := o.Current.Created, o.Current.Expires
	if p, listed := o.Find(o.Current.Ledger.AuthorizationID); listed {
		from, to = p.ValidFrom, p.ValidTo
	}
	if to.IsZero() {
		return time.Time{}, false, false
	}
	return Due(s, from, to), Clamped(s, from, to), true
}

// revocations gives the time at which each replaced PAT ends. Its own time stands
// on its successor; a later order to end everything at once (a time that is not
// after the successor's creation) counts for all that came before it.
func (o Observed) revocations() []time.Time {
	out := make([]time.Time, len(o.Replaced))
	var earliest time.Time
	for i := range o.Replaced {
		at := o.successor(i).Ledger.RevokePreviousAt
		if at.IsZero() {
			// A ledger without the time: the PAT's own end is the safe answer.
			at = o.Replaced[i].Expires
		}
		if earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
		out[i] = earliest
	}
	return out
}

// revocationCause says why the replaced PAT i is revoked now. The list knows more than
// the versions: an end may have been moved after its version's properties were read,
// and a PAT that is no longer listed was revoked by somebody before its time.
func (o Observed) revocationCause(i int, now time.Time) RevocationCause {
	v := o.Replaced[i]
	listed, ok := o.Find(v.Ledger.AuthorizationID)
	if ok && !v.Expires.IsZero() && listed.ValidTo.After(v.Expires) {
		v.Expires = listed.ValidTo
	}
	cause, _ := CauseOfRevocation(v, append([]Version{*o.Current}, o.Replaced[:i]...), now)
	if cause == OverlapEnded && !ok {
		return CauseRequested
	}
	return cause
}

// CauseOfRevocation says why a replaced PAT was revoked at a time, as far as versions
// know: newer are those after its own, newest first. order is the one that came with
// the order to end the PAT at once; nil for any other cause.
func CauseOfRevocation(v Version, newer []Version, at time.Time) (cause RevocationCause, order *Version) {
	if !v.Expires.IsZero() && !v.Expires.After(at) {
		return Expired, nil
	}
	for i := len(newer) - 1; i >= 0; i-- {
		if newer[i].endsPrevious() {
			return CauseRequested, &newer[i]
		}
	}
	return OverlapEnded, nil
}

// endsPrevious reports whether all PATs before a version's own were to end at the
// moment of their replacement.
func (v *Version) endsPrevious() bool {
	at := v.Ledger.RevokePreviousAt
	if at.IsZero() {
		return false
	}
	return v.Ledger.Reason == Compromised || !at.After(v.Created.Add(StoreSlack/2))
}

// successor is the version that replaced Replaced[i].
func (o Observed) successor(i int) Version {
	if i == 0 {
		return *o.Current
	}
	return o.Replaced[i-1]
}

// orphans are the PATs of this entry that no version knows, whatever their age.
func Orphans(s Spec, o Observed) []PAT {
	known := map[string]bool{}
	attempts := map[string]bool{RotationID(s.Name, ""): true}
	if c := o.Current; c != nil {
		attempts[RotationID(s.Name, c.ID)] = true
		known[strings.ToLower(c.Ledger.AuthorizationID)] = true
		known[strings.ToLower(c.Ledger.Previous)] = true
	}
	for _, v := range o.Replaced {
		attempts[RotationID(s.Name, v.ID)] = true
		known[strings.ToLower(v.Ledger.AuthorizationID)] = true
		known[strings.ToLower(v.Ledger.Previous)] = true
	}
	var out []PAT
	for _, p := range o.PATs {
		declared, tag, id, ok := ParseDisplayName(p.DisplayName)
		if !ok || tag != o.VaultTag || known[strings.ToLower(p.AuthorizationID)] {
			continue
		}
		// The rotation id finds the orphan of an entry whose name was changed
		// in between.
		if strings.EqualFold(declared, s.DisplayName) || attempts[id] {
			out = append(out, p)
		}
	}
	return out
}

// nextCheck is when something may have to be done. schedule is true when that is a young
// orphan, for which nobody has scheduled anything yet.
func nextCheck(s Spec, o Observed, now time.Time) (next time.Time, schedule bool) {
	next = now.Add(Day)
	if due, _, ok := o.DueAt(s); ok {
		next = due
	}
	for _, at := range o.revocations() {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	for _, p := range Orphans(s, o) {
		if at := p.ValidFrom.Add(OrphanAge); at.After(now) && at.Before(next) {
			next, schedule = at, true
		}
	}
	return next, schedule
}
