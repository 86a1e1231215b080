package rotation

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SwitchOver says whom a replaced PAT waits for before it ends.
type SwitchOver struct {
	Consumers []Consumer
	// Within is when a missing confirmation is told as late, after the new version.
	Within time.Duration
	// PostponeAtMost is how long missing confirmations may hold a revocation back beyond
	// the overlap.
	PostponeAtMost time.Duration
	// Hold: then a person decides, and not the clock; never past the replaced PAT's own
	// end.
	Hold bool
}

// Consumer is an application that reads the PAT from the vault.
type Consumer struct {
	Name     string
	Required bool // the replaced PAT waits for it
}

// MaxConsumers is how many an entry may declare: their states fit into one tag.
const MaxConsumers = 16

var consumerName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// IsConsumerName reports whether a consumer may be called so.
func IsConsumerName(name string) bool { return consumerName.MatchString(name) }

// requires are the consumers that a replaced PAT waits for.
func (s *SwitchOver) requires() []Consumer {
	if s == nil {
		return nil
	}
	isOptional := func(c Consumer) bool { return !c.Required }
	return slices.DeleteFunc(slices.Clone(s.Consumers), isOptional)
}

// HasRequired reports whether anybody is waited for.
func (s *SwitchOver) HasRequired() bool { return len(s.requires()) > 0 }

// Outcome is what a consumer says of a new version.
type Outcome string

const (
	HasSwitched  Outcome = "switched"
	SwitchFailed Outcome = "failed"
)

// Confirmation is what a command brings about a switch-over: a consumer's word, or a
// person's.
type Confirmation struct {
	SecretVersion string
	Consumer      string
	Outcome       Outcome
	Message       string // for people; it has come from outside
	Proof         string // that its sender has read this version
	// Ruling is a person's instead: release, hold, or confirm for the consumer named.
	Ruling Ruling
}

// Ruling is what a person decides about a switch-over.
type Ruling string

const (
	Release       Ruling = "release" // nobody is waited for
	Hold          Ruling = "hold"    // to the replaced PAT's own end, or until a release
	ConfirmByHand Ruling = "confirm" // for one consumer
)

// Proof is what shows that its maker has read a version: an HMAC over what it confirms,
// with the PAT as the key.
func Proof(token Secret, pat, version, consumer string, outcome Outcome) string {
	mac := hmac.New(sha256.New, []byte(strings.TrimSpace(token.Reveal())))
	for _, part := range []string{"patrol/confirm/1", pat, version, consumer, string(outcome)} {
		_, _ = mac.Write([]byte(part + "\n")) // a hash takes everything
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Proves reports, in constant time, whether a confirmation's proof is that of a token.
func (c Confirmation) Proves(token Secret, pat string) bool {
	want := Proof(token, pat, c.SecretVersion, c.Consumer, c.Outcome)
	return subtle.ConstantTimeCompare([]byte(want), []byte(c.Proof)) == 1
}

// SwitchState is how far one consumer is.
type SwitchState string

const (
	Waiting  SwitchState = "waiting"
	Switched SwitchState = "switched"
	Failed   SwitchState = "failed"
	ByHand   SwitchState = "by-hand" // a person has confirmed for it
)

// IsDone reports whether the consumer is not waited for any more.
func (s SwitchState) IsDone() bool { return s == Switched || s == ByHand }

// Confirmed is the tag patrol-confirmed of a version: until when missing confirmations
// may hold the PAT before it, and who has confirmed.
type Confirmed struct {
	// Bound is the time that was told when the version was stored; zero: none was, or it
	// cannot be read.
	Bound  time.Time
	Ruling Ruling
	notes  []note
}

// note is one consumer's: a hash stands for its name.
type note struct {
	hash  string
	state SwitchState
	at    time.Time
}

var (
	stateLetters  = map[SwitchState]byte{Switched: 's', Failed: 'f', ByHand: 'h'}
	rulingLetters = map[Ruling]byte{"": 'b', Release: 'r', Hold: 'h'}
)

const hashLength = 6

func consumerHash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:hashLength]
}

// minutes writes a time in minutes since 1970, rounded up: nothing ends before the time
// that was told.
func minutes(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt((t.Unix()+59)/60, 36)
}

func parseMinutes(s string) (time.Time, bool) {
	n, err := strconv.ParseInt(s, 36, 64)
	isTime := err == nil && n > 0 && n < 1<<32 && len(s) <= 7
	return time.Unix(n*60, 0).UTC(), isTime
}

// String writes the tag: at most 16 consumers in 256 characters.
func (c Confirmed) String() string {
	parts := []string{string(rulingLetters[c.Ruling]) + minutes(c.Bound)}
	for _, n := range c.notes {
		parts = append(parts, n.hash+string(stateLetters[n.state])+minutes(n.at))
	}
	return strings.Join(parts, ";")
}

// ParseConfirmed reads the tag. What patrol would not have written counts as absent, all
// of it: nobody has confirmed, and no bound was told.
func ParseConfirmed(tag string) Confirmed {
	var c Confirmed
	if tag == "" || len(tag) > 2*MaxFacts {
		return c
	}
	parts := strings.Split(tag, ";")
	ruling, ok := letterOf(rulingLetters, parts[0])
	if !ok || len(parts) > MaxConsumers+1 {
		return Confirmed{}
	}
	c.Ruling = ruling
	if bound := parts[0][1:]; bound != "" {
		c.Bound, ok = parseMinutes(bound)
		if !ok {
			return Confirmed{}
		}
	}
	for _, p := range parts[1:] {
		n, ok := parseNote(p)
		if !ok {
			return Confirmed{}
		}
		c.notes = append(c.notes, n)
	}
	return c
}

func parseNote(p string) (note, bool) {
	if len(p) <= hashLength || hexField(p[:hashLength], hashLength) == "" {
		return note{}, false
	}
	state, known := letterOf(stateLetters, p[hashLength:])
	at, isTime := parseMinutes(p[hashLength+1:])
	return note{p[:hashLength], state, at}, known && isTime
}

func letterOf[K comparable](letters map[K]byte, s string) (k K, ok bool) {
	for k, letter := range letters {
		if s != "" && s[0] == letter {
			return k, true
		}
	}
	return k, false
}

// Of is how far a consumer is, and since when.
func (c Confirmed) Of(consumer string) (SwitchState, time.Time) {
	hash := consumerHash(consumer)
	for _, n := range c.notes {
		if n.hash == hash {
			return n.state, n.at
		}
	}
	return Waiting, time.Time{}
}

// With is the tag with a consumer's state. One that has switched stays so, whatever comes
// late: changed is false.
func (c Confirmed) With(consumer string, state SwitchState, at time.Time) (out Confirmed, changed bool) {
	before, _ := c.Of(consumer)
	if before.IsDone() || before == state {
		return c, false
	}
	hash := consumerHash(consumer)
	out = c
	out.notes = slices.DeleteFunc(slices.Clone(c.notes), func(n note) bool { return n.hash == hash })
	out.notes = append(out.notes, note{hash, state, at.UTC().Truncate(time.Minute)})
	slices.SortFunc(out.notes, func(a, b note) int { return cmp.Compare(a.hash, b.hash) })
	return out, true
}

// Only is the tag without the notes of consumers that are not declared any more: there
// is room for those that are.
func (c Confirmed) Only(consumers []Consumer) Confirmed {
	known := map[string]bool{}
	for _, x := range consumers {
		known[consumerHash(x.Name)] = true
	}
	c.notes = slices.DeleteFunc(slices.Clone(c.notes), func(n note) bool { return !known[n.hash] })
	return c
}

// Bound is until when missing confirmations may hold a replaced PAT back, given the end
// of its overlap and its own end (zero: not known).
func (s *SwitchOver) Bound(overlapEnds, own time.Time) time.Time {
	if !s.HasRequired() {
		return overlapEnds
	}
	bound := overlapEnds.Add(s.PostponeAtMost)
	isBeyond := !own.IsZero() && bound.After(own)
	if !own.IsZero() && s.Hold || isBeyond {
		bound = later(own, overlapEnds)
	}
	return bound
}

// MissingSwitch are the required consumers that have confirmed neither the version after
// Replaced[i] nor a newer one.
func (o Observed) MissingSwitch(s Spec, i int) []string {
	var out []string
	for _, c := range s.SwitchOver.requires() {
		if !o.hasSwitched(c.Name, i) {
			out = append(out, c.Name)
		}
	}
	return out
}

// hasSwitched reports whether a consumer has left the PAT of Replaced[i].
func (o Observed) hasSwitched(consumer string, i int) bool {
	for ; i >= 0; i-- {
		state, _ := ParseConfirmed(o.successor(i).Ledger.Confirmed).Of(consumer)
		if state.IsDone() {
			return true
		}
	}
	return false
}

// HeldUntil is when a replaced PAT ends whose overlap ends at a time: later, while a
// required consumer has not confirmed, until the bound that was told.
func (o Observed) HeldUntil(s Spec, i int, at time.Time) time.Time {
	if len(o.MissingSwitch(s, i)) == 0 {
		return at
	}
	// One list without the PAT does not say that it has ended.
	own := o.Replaced[i].Expires
	if p, listed := o.Find(o.Replaced[i].Ledger.AuthorizationID); listed {
		own = p.ValidTo
	}
	c := ParseConfirmed(o.newestSuccessor(i).Ledger.Confirmed)
	bound := c.Bound
	switch {
	case c.Ruling == Release:
		return at
	case c.Ruling == Hold && !own.IsZero():
		bound = own
	case bound.IsZero():
		bound = s.SwitchOver.Bound(at, own)
	}
	if !own.IsZero() && bound.After(own) {
		bound = own
	}
	return later(at, bound)
}

// LateSwitch is a switch-over that takes longer than declared.
type LateSwitch struct {
	Successor *Version // that was to be switched to
	Replaced  *Version // that waits
	Missing   []string
	Since     time.Time
	EndsAt    time.Time // when the replaced PAT ends if nothing changes
	OwnEnd    bool      // it is its own end
	Hold      bool      // until then a person may decide
}

// Next is what happens to the replaced PAT if nothing changes.
func (l LateSwitch) Next() string {
	switch {
	case l.OwnEnd && l.Hold:
		return "hold"
	case l.OwnEnd:
		return "expire"
	}
	return "revoke"
}

// Late is the oldest open switch-over that is late; nil: none is.
func (o Observed) Late(s Spec, now time.Time) *LateSwitch {
	if s.SwitchOver == nil {
		return nil
	}
	for i, v := range slices.Backward(o.Replaced) {
		isOver := !v.Ledger.RevokedAt.IsZero() || o.Ended[v.Ledger.AuthorizationID] || o.endsNow(i)
		p, listed := o.Find(v.Ledger.AuthorizationID)
		missing := o.MissingSwitch(s, i)
		if isOver || !listed || len(missing) == 0 {
			continue
		}
		if now.Before(o.lateAt(s, i)) {
			continue
		}
		ends := o.endOf(s, i)
		return &LateSwitch{Successor: o.newestSuccessor(i), Replaced: &v, Missing: missing, Since: o.lateAt(s, i),
			EndsAt: ends,
			OwnEnd: !ends.Before(p.ValidTo), Hold: o.isHeld(s, i)}
	}
	return nil
}

// isHeld reports whether a person decides about the PAT of Replaced[i], and not the clock.
func (o Observed) isHeld(s Spec, i int) bool {
	ruling := ParseConfirmed(o.newestSuccessor(i).Ledger.Confirmed).Ruling
	return ruling == Hold || s.SwitchOver.Hold && ruling == ""
}

// WaitsAfter reports whether the PAT before a version may end, or may have to be closed,
// after a time: its revocation time is later, or consumers hold it back until then.
func (l Ledger) WaitsAfter(t time.Time) bool {
	if l.RevokePreviousAt.After(t) {
		return true
	}
	return ParseConfirmed(l.Confirmed).Bound.After(t)
}

// lateAt is when missing confirmations of what came after Replaced[i] are late.
func (o Observed) lateAt(s Spec, i int) time.Time {
	return o.newestSuccessor(i).Created.Add(s.SwitchOver.Within)
}

// switchOverRule: required consumers have not confirmed in time. It is told, and ends
// nothing.
func switchOverRule(s Spec, o Observed, now time.Time) (Decision, bool) {
	late := o.Late(s, now)
	if late == nil || o.LateNotified || o.Silent {
		return Decision{}, false
	}
	return Decision{Action: ReportLate, Version: late.Replaced, Successor: late.Successor, Late: late,
		Message: "not confirmed yet by " + strings.Join(late.Missing, ", ") + ": the replaced PAT ends at " +
			late.EndsAt.UTC().Format(time.RFC3339)}, true
}
