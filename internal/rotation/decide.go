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
	// Current is the secret's latest version; nil: there is no secret. Beside a value
	// that its digest does not know, its ledger is void and has been left out.
	Current *Version
	// Replaced are the versions before the current one as far as their PATs may
	// still be alive or their events unsent, newest first. Closed ones may lie between
	// them.
	Replaced []Version
	// PATs are the owner's active PATs as they were at ListedAt, with what this
	// process has created and revoked since.
	PATs     []PAT
	ListedAt time.Time
	// VaultTag and ProviderAddress are this deployment's own.
	VaultTag        string
	ProviderAddress string
	// Interval is the time between two sweeps.
	Interval time.Duration

	// Recognized is the ledger of the current PAT, found anew: somebody has taken it off
	// the version. NotAPAT: the value has no ledger and not the form of a PAT.
	Recognized *Ledger
	NotAPAT    bool
	// Unlike are PATs that other versions of the secret hold beside other values than the
	// current one (authorization ids in lower case): it holds none of them.
	Unlike map[string]bool
	// Order is the order to rotate away from the current PAT that stands.
	Order Order
	// Now are the replaced PATs that an order names to end now (authorization ids in
	// lower case), beside those whose versions say so.
	Now map[string]bool
	// Gone: a new list is without the current PAT, and a witness of another kind says
	// the same. Refused: the organization lists it and refuses its value.
	Gone, Refused bool
	// Braked: so many PATs of the owner are gone or drifted at once that a person has
	// to say whether that is meant.
	Braked bool
	// Released: the manifest has no such entry any more. What has been begun is
	// finished, nothing new is made.
	Released bool

	// Before is the PAT before the current one as Azure DevOps shows it still, ended
	// though it is; the zero value: it does not.
	Before PAT

	// What this run has met already: Failed are PATs whose revocation has failed,
	// Ended those that it has ended (authorization ids); Stuck: a rotation or an
	// adoption has failed or been refused; Silent: an event could not be sent. Other
	// work goes on.
	Failed, Ended map[string]bool
	Stuck, Silent bool
	// LateNotified: that a switch-over is late was told within a day.
	LateNotified bool
}

// Action is what to do next.
type Action string

const (
	ReportSignIn Action = "report-sign-in"
	Announce     Action = "announce"
	Recognize    Action = "recognize" // write the ledger again that somebody has taken off
	Relabel      Action = "relabel"   // the identity or organization has another name
	Adopt        Action = "adopt"
	Refuse       Action = "refuse" // a person must settle something first
	Rotate       Action = "rotate"
	Revoke       Action = "revoke"
	ReportLate   Action = "report-late" // a switch-over takes longer than declared
	Nothing      Action = "nothing"
)

// Decision is the next action and why.
type Decision struct {
	Action  Action
	Rule    string // the name of the rule that applied
	Reason  Reason // of a rotation
	Message string // for people

	RevokePrevious RevokePrevious  // Rotate: when the replaced PAT ends
	PAT            PAT             // Adopt
	Version        *Version        // Revoke: the replaced version; Announce: the one to announce
	Successor      *Version        // Revoke, Announce: what came after it; nil: it is the latest
	HasRunOut      bool            // Revoke: the PAT has ended by itself
	Due            time.Time       // Revoke: when its end was due, the same for every repeat
	EndOnly        bool            // Revoke: end the PAT now; the event and the closing come later
	Cause          RevocationCause // Revoke
	RotationID     string          // Revoke: of the rotation that replaced it
	Code           string          // Refuse: what a person must settle
	Next           time.Time       // Nothing: when there may be something to do
	Schedule       bool            // Nothing: Next is worth a scheduled command, the sweeps may come too late
	Postponed      Postponement    // Nothing: what the entry's calendar holds back
	Late           *LateSwitch     // ReportLate
}

// A rule judges one thing. ok is false when it does not apply.
type rule struct {
	name  string
	apply func(s Spec, o Observed, now time.Time) (d Decision, ok bool)
	// makes: the rule may create or adopt something. Such rules rest once one of them
	// has failed, and for an entry that the manifest does not have.
	makes bool
}

// rules in their order: the first that applies wins. What ends a leaked PAT depends on
// nothing but the store of its successor, so it stands before all that can fail.
var rules = [...]rule{
	{name: "sign-in", apply: signInRule},
	{name: "now", apply: nowRule},
	{name: "missing", apply: missingRule, makes: true},
	{name: "recognized", apply: recognizedRule},
	{name: "not-a-pat", apply: notAPATRule, makes: true},
	{name: "adoption", apply: adoptionRule, makes: true},
	{name: "ordered", apply: orderedRule, makes: true},
	{name: "disabled", apply: disabledRule, makes: true},
	{name: "moved", apply: movedRule, makes: true},
	{name: "gone", apply: goneRule, makes: true},
	{name: "refused", apply: refusedRule, makes: true},
	{name: "scopes", apply: scopesRule, makes: true},
	{name: "due", apply: dueRule, makes: true},
	{name: "unannounced", apply: unannouncedRule},
	{name: "switch-over", apply: switchOverRule},
	{name: "replaced", apply: replacedRule},
}

// Decide names the next action. It is pure: the same observation at the same time
// gives the same decision.
func Decide(s Spec, o Observed, now time.Time) Decision {
	var postponed Postponement
	for _, r := range rules {
		rests := r.makes && (o.Stuck || o.Released)
		if rests {
			continue
		}
		d, ok := r.apply(s, o, now)
		if !ok {
			continue
		}
		p, waits := postpones(s, o, &r, d, now)
		if waits {
			postponed, o.Stuck = p, true
			continue
		}
		d.Rule = r.name
		return d
	}
	next, schedule := nextCheck(s, o, now)
	d := Decision{Action: Nothing, Rule: "nothing", Next: next, Schedule: schedule, Postponed: postponed,
		Message: "nothing to do before " + next.UTC().Format(time.RFC3339)}
	if postponed.Reason != "" {
		d.Rule, d.Message = "calendar", "a new PAT waits for "+postponed.Reason
	}
	return d
}

// signInRule: without a delegated token nothing can be made or ended. An event needs
// none.
func signInRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	if o.SignIn == nil {
		return Decision{}, false
	}
	d, ok := unannouncedRule(s, o, now)
	if ok {
		return d, true
	}
	return Decision{Action: ReportSignIn, Message: o.SignIn.Error()}, true
}

// nowRule: somebody ordered that a replaced PAT ends at once. It ends before anything
// else is tried; the event and the closing of its version follow in their turn.
func nowRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	for i, v := range slices.Backward(o.Replaced) {
		id := v.Ledger.AuthorizationID
		if !o.endsNow(i) || !v.Ledger.RevokedAt.IsZero() {
			continue
		}
		if id == "" || o.Ended[id] || o.Failed[id] {
			continue
		}
		return Decision{Action: Revoke, Version: &v, Successor: o.successor(i), EndOnly: true, Cause: CauseRequested,
			RotationID: o.replacedBy(i), Message: "the replaced PAT was ordered to end at once"}, true
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

// recognizedRule: somebody has taken the ledger off the current version, and it is known
// which PAT it holds.
func recognizedRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Current == nil || o.Recognized == nil {
		return Decision{}, false
	}
	return Decision{Action: Recognize, Message: "the tags of the latest version were taken off by somebody else; " +
		"the PAT " + o.Recognized.AuthorizationID + " that it holds was recognized"}, true
}

// notAPATRule: the secret of that name is something else. It is never sent anywhere and
// never overwritten, unless the manifest says so.
func notAPATRule(s Spec, o Observed, _ time.Time) (Decision, bool) {
	if !o.NotAPAT || o.Current.Ledger.Ours() {
		return Decision{}, false
	}
	if s.Adopt == AdoptReplace {
		return Decision{Action: Rotate, Reason: Provision, RevokePrevious: AfterOverlap,
			Message: "the secret holds no PAT, and the manifest says to replace it"}, true
	}
	return Decision{Action: Refuse, Code: NotAPAT, Message: "the secret of this name holds something that is no PAT: " +
		"give the entry another name, or let a new PAT take its place with `adopt: replace` in the manifest"}, true
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
		isUnlike := o.Unlike[strings.ToLower(p.AuthorizationID)]
		if strings.EqualFold(p.DisplayName, s.DisplayName) && !isUnlike {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0 && !o.conclusive():
		return Decision{Action: Nothing, Next: o.Current.Created.Add(ClockSkew + StoreSlack), Schedule: true,
			Message: "the secret was put there a moment ago, after the PATs were listed"}, true
	case s.Adopt != "" && s.Adopt != AdoptReplace:
		return Decision{Action: Refuse, Code: AdoptUnknown, Message: "the manifest names the PAT " + s.Adopt + " for " +
			"adoption, and its identity has no such active PAT in the organization: " +
			"correct `adopt`, or take it out"}, true
	case len(found) == 0:
		return Decision{Action: Rotate, Reason: Provision, RevokePrevious: AfterOverlap,
			Message: "the secret was put there by hand and no active PAT bears the declared name: " +
				"a new one takes its place, nothing is revoked"}, true
	case len(found) == 1:
		return Decision{Action: Adopt, PAT: found[0], Message: "exactly one active PAT bears the declared name"}, true
	}
	ids := make([]string, len(found))
	for i, p := range found {
		ids[i] = p.AuthorizationID
	}
	slices.Sort(ids)
	return Decision{Action: Refuse, Code: AmbiguousAdoption, Message: fmt.Sprintf("%d active PATs are named %q: "+
		"say which one the secret holds with `adopt: <authorization id>` in the manifest; candidates: %s",
		len(found), s.DisplayName, strings.Join(ids, ", "))}, true
}

// orderedRule: a person's order to rotate away from the current PAT stands.
func orderedRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if !o.Order.Stands() {
		return Decision{}, false
	}
	d := Decision{Action: Rotate, Reason: Requested, RevokePrevious: o.Order.RevokePrevious, Message: "ordered"}
	if o.Order.RevokePrevious == Now {
		d.Reason = Compromised
	}
	if o.Order.By != "" {
		d.Message += " by " + o.Order.By
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
func movedRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	l := o.Current.Ledger
	if o.isRelabeled(s) {
		return Decision{Action: Relabel, Message: fmt.Sprintf("the owner of the PAT has another name: identity %s, %s",
			s.Identity, o.ProviderAddress)}, true
	}
	where, from, to := "", "", ""
	switch {
	case !strings.EqualFold(l.ProviderAddress, o.ProviderAddress):
		from, to = l.ProviderAddress, o.ProviderAddress
	case l.Identity != s.Identity:
		where, from, to = "identity ", l.Identity, s.Identity
	default:
		return Decision{}, false
	}
	what := fmt.Sprintf("the manifest moved the PAT from %s%s to %s", where, from, to)
	if o.youngBesides(now) && !o.isDue(s, now) {
		before := o.Replaced[0].Ledger
		if before.Identity == s.Identity && strings.EqualFold(before.ProviderAddress, o.ProviderAddress) {
			return manifestConflict(what), true
		}
	}
	return o.drift(what)
}

// isRelabeled reports whether only the names of the current PAT's owner have changed: the
// list of today's owner has this very PAT.
func (o Observed) isRelabeled(s Spec) bool {
	l := o.Current.Ledger
	sameNames := l.Identity == s.Identity && strings.EqualFold(l.ProviderAddress, o.ProviderAddress)
	return !sameNames && o.Lists(l.AuthorizationID)
}

// scopesRule: the manifest asks for other scopes than the current PAT has.
func scopesRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	p, ok := o.Find(o.Current.Ledger.AuthorizationID)
	if !ok || slices.Equal(p.Scopes, s.Scopes) {
		return Decision{}, false
	}
	what := fmt.Sprintf("the manifest asks for scopes %s, the PAT has %s", strings.Join(s.Scopes, " "),
		strings.Join(p.Scopes, " "))
	isConflict := o.youngBesides(now) && o.undoes(s)
	isRestored := o.isRestored(p)
	switch {
	case (isConflict || isRestored) && o.isDue(s, now):
		return Decision{}, false // it is replaced anyhow, by what the manifest asks for today
	case isConflict:
		return manifestConflict(what), true
	case isRestored:
		return Decision{Action: Refuse, Code: ManifestConflict, Message: what + ", but a person has restored this " +
			"PAT: it is replaced when it is due, or when somebody orders a rotation"}, true
	}
	return o.drift(what)
}

// isRestored reports whether a person has made an earlier PAT current again: the version
// belongs to another rotation than the PAT's own mark.
func (o Observed) isRestored(p PAT) bool {
	_, tag, made, marked := ParseDisplayName(p.DisplayName)
	stored := o.Current.Ledger.RotationID
	return marked && tag == o.VaultTag && stored != "" && made != stored
}

// drift is a rotation because the PAT is not what it should be; it waits while the
// brake is on.
func (o Observed) drift(what string) (Decision, bool) {
	if o.Braked {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Drift, RevokePrevious: AfterOverlap, Message: what}, true
}

// youngBesides reports whether the current PAT has replaced another one within a day.
func (o Observed) youngBesides(now time.Time) bool {
	return len(o.Replaced) > 0 && now.Sub(o.Current.Created) < Day
}

// undoes reports whether the manifest asks for the scopes that the PAT before had. Once
// that one has ended, nobody may know them: then one drift after another counts as that.
func (o Observed) undoes(s Spec) bool {
	id := o.Replaced[0].Ledger.AuthorizationID
	before, listed := o.Find(id)
	if !listed && strings.EqualFold(o.Before.AuthorizationID, id) {
		before, listed = o.Before, true
	}
	if listed {
		return slices.Equal(before.Scopes, s.Scopes)
	}
	return o.Current.Ledger.Reason == Drift
}

// manifestConflict: what the manifest asks for is what the version before had. Two
// manifests may be in force at once, and each would undo the other's rotation.
func manifestConflict(what string) Decision {
	return Decision{Action: Refuse, Code: ManifestConflict, Message: what + ", which the PAT before it had until its " +
		"replacement within the last day: two manifests may be in force. See that all instances run one deployment; " +
		"if it is meant, order a rotation"}
}

// goneRule: the current PAT has run out, or somebody else ended it. Absence from one
// list is not believed, and never a reason to end another PAT.
func goneRule(_ Spec, o Observed, now time.Time) (Decision, bool) {
	c := o.Current
	if o.Lists(c.Ledger.AuthorizationID) {
		return Decision{}, false
	}
	if !c.Expires.IsZero() && !c.Expires.After(now) {
		return Decision{Action: Rotate, Reason: Expiring, RevokePrevious: AfterOverlap,
			Message: "the current PAT has run out"}, true
	}
	if !o.Gone || o.Braked {
		return Decision{}, false
	}
	return Decision{Action: Rotate, Reason: Compromised, RevokePrevious: AfterOverlap,
		Message: "the current PAT is not active any more: somebody else revoked it"}, true
}

// refusedRule: Azure DevOps lists the current PAT, and the organization refuses it.
func refusedRule(_ Spec, o Observed, _ time.Time) (Decision, bool) {
	if !o.Refused {
		return Decision{}, false
	}
	return o.drift("Azure DevOps lists the current PAT, and the organization refuses it")
}

// isDue reports whether the current PAT comes near its end. No conflict keeps it from being
// replaced then.
func (o Observed) isDue(s Spec, now time.Time) bool {
	due, _, ok := o.DueAt(s)
	return ok && !now.Before(due)
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
		d.Message += "; its life is shorter than the manifest asks for, so it is rotated at the same fraction of it"
	}
	return d, true
}

// unannouncedRule: a stored rotation whose event may not have been sent, the oldest
// first. A version that patrol did not make has nothing to announce.
func unannouncedRule(s Spec, o Observed, _ time.Time) (Decision, bool) {
	if o.Silent || o.Current == nil || o.isCopied(s) {
		return Decision{}, false
	}
	announce := func(v, successor *Version) Decision {
		return Decision{Action: Announce, Version: v, Successor: successor,
			Message: "rotation " + v.Ledger.RotationID + " is stored and not yet announced"}
	}
	for i, v := range slices.Backward(o.Replaced) {
		if v.Ledger.unannounced() {
			return announce(&v, o.successor(i)), true
		}
	}
	if o.Current.Ledger.unannounced() {
		return announce(o.Current, nil), true
	}
	return Decision{}, false
}

// isCopied reports whether the current version's ledger is another secret's. Where the ids
// leave it open, the PAT's name says for which entry it was made.
func (o Observed) isCopied(s Spec) bool {
	l := o.Current.Ledger
	if !l.IsCopiedTo(s.Name, true) || l.IsCopiedTo(s.Name, o.Released) {
		return l.IsCopiedTo(s.Name, o.Released)
	}
	p, listed := o.Find(l.AuthorizationID)
	declared, _, _, marked := ParseDisplayName(p.DisplayName)
	return listed && marked && !strings.EqualFold(declared, s.DisplayName)
}

// IsCopiedTo reports whether a ledger beside a secret is another secret's: the id of a
// rotation follows from the name and from the version that was replaced. A ledger that
// names none may be of a rotation that has replaced somebody's value; beside a secret that
// no manifest has, it counts as copied.
func (l Ledger) IsCopiedTo(name string, isReleased bool) bool {
	mayBeOf := l.PreviousVersion == "" && !isReleased
	if l.RotationID == "" || mayBeOf {
		return false
	}
	asWritten := l.RotationID == RotationID(name, l.PreviousVersion)
	return !asWritten && l.RotationID != RotationID(strings.ToLower(name), l.PreviousVersion)
}

func (l Ledger) unannounced() bool { return l.RotationID != "" && l.AnnouncedAt.IsZero() }

// replacedRule: the time of a replaced PAT has come.
func replacedRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	// The oldest first: whoever reads the versions back from the latest may stop at
	// one that is closed.
	for i, v := range slices.Backward(o.Replaced) {
		id := v.Ledger.AuthorizationID
		if !v.Ledger.RevokedAt.IsZero() || o.Failed[id] {
			continue
		}
		at := o.endOf(s, i)
		ended := o.Ended[id]
		if !ended && at.After(now) {
			continue
		}
		// The cause and the time follow from what is written, so that a repeat has the
		// same.
		d := Decision{Action: Revoke, Version: &v, Successor: o.successor(i), Cause: OverlapEnded, Due: at,
			RotationID: o.replacedBy(i)}
		isOver := func(t time.Time) bool {
			return !v.Expires.IsZero() && !v.Expires.After(t) && !o.livesAt(id, t)
		}
		d.HasRunOut = isOver(now)
		switch {
		case o.endsNow(i):
			d.Cause, d.Message = CauseRequested, "the replaced PAT was ordered to end at once"
		case isOver(at):
			d.Cause, d.Message = Expired, "the replaced PAT has run out"
		default:
			d.Message = "the overlap ended at " + at.UTC().Format(time.RFC3339)
		}
		return d, true
	}
	return Decision{}, false
}

// Find finds an active PAT.
func (o Observed) Find(authorizationID string) (PAT, bool) {
	for _, p := range o.PATs {
		if strings.EqualFold(p.AuthorizationID, authorizationID) {
			return p, true
		}
	}
	return PAT{}, false
}

// Lists reports whether an active PAT is listed.
func (o Observed) Lists(authorizationID string) bool {
	_, ok := o.Find(authorizationID)
	return ok
}

// livesAt reports whether a PAT is listed with an end after t: its end may have been
// moved after its version's properties were read.
func (o Observed) livesAt(authorizationID string, t time.Time) bool {
	p, ok := o.Find(authorizationID)
	return ok && p.ValidTo.After(t)
}

// conclusive reports whether the list is so much younger than the current version
// that a PAT missing in it is gone. Another instance may have stored the version
// after this process fetched the list.
func (o Observed) conclusive() bool { return o.Current != nil && o.conclusiveAbout(*o.Current) }

func (o Observed) conclusiveAbout(v Version) bool { return o.ListedAt.After(v.Created.Add(ClockSkew)) }

// Missing reports whether the current PAT, whose end has not come by the vault's word,
// is not in a list that would show it: a witness of another kind must say more.
func (o Observed) Missing(now time.Time) bool {
	c := o.Current
	if c == nil || !c.Ledger.Ours() || !o.conclusive() {
		return false
	}
	hasRunOut := !c.Expires.IsZero() && !c.Expires.After(now)
	return !hasRunOut && !o.Lists(c.Ledger.AuthorizationID)
}

// DueAt is when the current PAT shall be replaced. ok is false when its end is not
// known.
func (o Observed) DueAt(s Spec) (due time.Time, clamped, ok bool) {
	from, to := o.Current.Created, o.Current.Expires
	if p, listed := o.Find(o.Current.Ledger.AuthorizationID); listed {
		from, to = p.ValidFrom, p.ValidTo
	}
	if to.IsZero() {
		return time.Time{}, false, false
	}
	shortened := s.Lifetime > 0 && to.After(from.Add(s.Lifetime)) && !o.Current.Ledger.extendedTo(to)
	if shortened {
		// The manifest asks for a shorter life than the PAT was given: its end counts
		// as if it had been asked for today. One that a person has extended keeps its
		// end.
		to = from.Add(s.Lifetime)
	}
	return Due(s, from, to), Clamped(s, from, to), true
}

// extendedTo reports whether a person has moved the PAT's end to this time.
func (l Ledger) extendedTo(end time.Time) bool {
	for _, n := range Notes(l.History) {
		if n.Act == NoteExtended && n.Until.Sub(end).Abs() < time.Minute {
			return true
		}
	}
	return false
}

// endOf is when the replaced PAT i ends: when its successor says, at the earliest after
// its overlap and a while after its event, or at once if somebody ordered that. Without
// its event it lives to its own end. The zero time: nobody knows, and it is left alone.
func (o Observed) endOf(s Spec, i int) time.Time {
	if o.endsNow(i) {
		return o.newestSuccessor(i).Created
	}
	next, v := o.newestSuccessor(i), o.Replaced[i]
	own := v.Expires
	if p, listed := o.Find(v.Ledger.AuthorizationID); listed {
		own = p.ValidTo
	}
	// Key Vault gives whole seconds: the version could be read within this one.
	readable := next.Created.Add(time.Second)
	at := next.Ledger.RevokePreviousAt
	if at.IsZero() {
		at = own // a ledger without the time: the PAT's own end is the safe answer
	}
	switch {
	case next.Ledger.unannounced():
		return latest(at, own, readable.Add(s.Overlap))
	case next.Ledger.RotationID == "":
		return o.HeldUntil(s, i, latest(at, readable.Add(s.Overlap)))
	}
	at = latest(at, readable.Add(s.Overlap), next.Ledger.AnnouncedAt.Add(min(s.Overlap, AnnouncedFor)))
	return o.HeldUntil(s, i, at)
}

// RevocationTime is when a version says that the PAT before it ends, as its event has it.
func RevocationTime(s Spec, v Version) time.Time {
	if at := v.Ledger.RevokePreviousAt; !at.IsZero() {
		return at
	}
	return v.Created.Add(s.Overlap + StoreSlack)
}

func latest(times ...time.Time) time.Time {
	var out time.Time
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// endsNow reports whether somebody ordered that the replaced PAT i, or one after it,
// ends at once: only that reaches back to those before it.
func (o Observed) endsNow(i int) bool {
	for ; i >= 0; i-- {
		l := o.Replaced[i].Ledger
		if o.successor(i).Ledger.Facts.PreviousEnds == EndsNow || l.Facts.Order.RevokePrevious == Now {
			return true
		}
		if o.Now[strings.ToLower(l.AuthorizationID)] {
			return true
		}
	}
	return false
}

// CauseOfRevocation says why a replaced PAT was revoked at a time, as far as versions
// know: newer are those after its own, newest first. order is the one that says who
// ordered that it ends at once; nil for any other cause.
func CauseOfRevocation(v Version, newer []Version, at time.Time) (cause RevocationCause, order *Version) {
	if !v.Expires.IsZero() && !v.Expires.After(at) {
		return Expired, nil
	}
	if v.Ledger.Facts.Order.RevokePrevious == Now {
		return CauseRequested, &v
	}
	for i := len(newer) - 1; i >= 0; i-- {
		if newer[i].Ledger.Facts.PreviousEnds == EndsNow {
			return CauseRequested, &newer[i]
		}
	}
	return OverlapEnded, nil
}

// successor is the version that replaced Replaced[i].
func (o Observed) successor(i int) *Version {
	if i == 0 {
		return o.Current
	}
	return &o.Replaced[i-1]
}

// newestSuccessor is what replaced the PAT of Replaced[i] for the last time: it may have
// been current more than once.
func (o Observed) newestSuccessor(i int) *Version {
	id := o.Replaced[i].Ledger.AuthorizationID
	newest := slices.IndexFunc(o.Replaced, func(v Version) bool {
		return strings.EqualFold(v.Ledger.AuthorizationID, id)
	})
	return o.successor(newest)
}

// replacedBy is the id of the rotation that replaced the PAT of Replaced[i]. The id
// follows from the version that was replaced, whatever the tags say.
func (o Observed) replacedBy(i int) string {
	next := o.newestSuccessor(i)
	if next.Ledger.RotationID != "" {
		return next.Ledger.RotationID
	}
	return RotationID(next.Name, next.Ledger.PreviousVersion)
}

// nextCheck is when something may have to be done. schedule is true when nobody has
// scheduled a command for then.
func nextCheck(s Spec, o Observed, now time.Time) (next time.Time, schedule bool) {
	next = now.Add(Day)
	if o.Current == nil {
		return next, false
	}
	replacedAt, _, ok := o.ReplacedAt(s, now)
	if ok && !o.Released && !replacedAt.IsZero() {
		next = replacedAt
	}
	for i, v := range o.Replaced {
		if !v.Ledger.RevokedAt.IsZero() {
			continue
		}
		if len(o.MissingSwitch(s, i)) > 0 {
			lateAt := o.lateAt(s, i)
			isNext := lateAt.After(now) && lateAt.Before(next)
			if isNext {
				next, schedule = lateAt, true
			}
		}
		at := o.endOf(s, i)
		if !at.After(now) || !at.Before(next) {
			continue
		}
		// A command was sent for the time on the tag; a later end, or one after an
		// extension of the overlap, needs one of its own.
		next, schedule = at, at.After(o.successor(i).Ledger.RevokePreviousAt)
	}
	return next, schedule
}
