package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Violation is a moment at which an invariant of docs/reliability.md was broken.
type Violation struct {
	Invariant string // I1 to I5, I7 to I9, I12, I13, or "loop"
	At        time.Time
	Text      string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s at %s: %s", v.Invariant, v.At.UTC().Format(time.RFC3339Nano), v.Text)
}

// Case is what Judge checks.
type Case struct {
	Records []cloud.Record
	End     time.Time // when the world was observed last
	// Manifests are those that were in force, one period for each process.
	Manifests []Period
	VaultTag  string
	// Sweep is how far sweeps are apart.
	Sweep time.Duration
	// Rest is whether things have come to rest at End.
	Rest bool
	// Orders are what people have asked for. Nothing else counts as asked for: no tag,
	// no event, and no message that the app sends itself.
	Orders []Order
	// Disturbances are what was made to go wrong.
	Disturbances []Disturbance
	// Refusals are those of them that stood for long.
	Refusals []Refusal
	// Invocations are the runs of functions.
	Invocations []functionshost.Invocation
	// Outside holds authorization ids of PATs that somebody else revoked.
	Outside map[string]bool
	// Touches are what people and other tools did to secrets and PATs.
	Touches []Touch
	// Renamed are the names of today, of users and organizations, by those of before.
	Renamed map[string]string
	// Stranded holds users who cannot sign in any more: nobody can end their PATs but an
	// administrator, who must have been told.
	Stranded map[string]bool
	// Tokens must be in none of the Outputs, messages and tags.
	Tokens  []string
	Outputs []string
}

// Period is the time in which a manifest was in force in one process.
type Period struct {
	From, To time.Time // To is zero while it lasts
	Specs    []rotation.Spec
	Users    map[string]string // by identity
}

// Order is what a person has asked for: to rotate away from a PAT.
type Order struct {
	PAT             string
	AuthorizationID string // empty: there was no PAT yet
	Now             bool   // the PAT was to end at once
	At              time.Time
	// Accepted is when the person was told so; zero: not at all. Then it may be carried
	// out, and need not.
	Accepted time.Time
}

// Disturbance is something that was made to go wrong, until a time.
type Disturbance struct {
	At, Until time.Time
	Kill      bool
	// Standing: it is a refusal that lasts, and no fault of single calls. Closes: the
	// vault refuses everything.
	Standing, Closes bool
}

// Judge goes through a history record by record and checks the invariants of
// docs/reliability.md at every instant at which something changed, the ends of PATs
// included.
func Judge(c Case) []Violation {
	j := &judge{Case: c, secrets: map[string]*secretHistory{}, pats: map[string]*patHistory{},
		byID: map[string]*patHistory{}, rotated: map[string]events.Rotated{}, hands: map[string][]Touch{}}
	for _, t := range j.Touches {
		for _, key := range []string{t.Version, strings.ToLower(t.PAT)} {
			if key != "" {
				j.hands[key] = append(j.hands[key], t)
			}
		}
	}
	for _, p := range c.Manifests {
		for _, s := range p.Specs {
			j.secrets[strings.ToLower(s.Name)] = &secretHistory{name: s.Name, managed: true,
				versions: map[string]*versionHistory{}}
		}
	}
	slices.SortStableFunc(j.Disturbances, func(a, b Disturbance) int { return a.At.Compare(b.At) })
	for _, r := range c.Records {
		j.until(r.At)
		j.apply(r)
	}
	j.until(c.End)
	j.orders()
	j.stored()
	j.openness()
	if c.Rest {
		j.rest()
	}
	j.secrecy()
	j.loops()
	for _, r := range j.Refusals {
		j.notified(r)
	}
	return j.violations
}

type judge struct {
	Case
	secrets    map[string]*secretHistory
	pats       map[string]*patHistory // by token
	byID       map[string]*patHistory // by authorization id
	rotated    map[string]events.Rotated
	hands      map[string][]Touch // by version and by authorization id
	notices    []notice
	tellings   []telling
	violations []Violation
}

// notice is an event that tells people that something does not go on.
type notice struct {
	at   time.Time
	pat  string // empty: it is about more than one
	code string
}

type secretHistory struct {
	name     string
	managed  bool // by a manifest that was in force
	versions map[string]*versionHistory
	order    []*versionHistory
	purged   bool // and not made anew
	purgedAt time.Time
	deleted  time.Time // when it was, and not recovered; zero: it is there
	broken   bool      // I1 is reported once, until it holds again
	// excused is until when a hand is the reason that I1 does not hold; zero: none is.
	excused time.Time
	ranOut  time.Time // when its PAT was seen to have run out while no manifest had it
}

type versionHistory struct {
	keyvault.Version
	at        time.Time // when it could first be read
	replaced  time.Time // when the next one could
	announced time.Time // when its event was first on the topic
	lost      bool      // purged
	byHand    bool      // somebody else put it
	rotation  string    // the id of the rotation that stored it; empty: none did
	named     bool      // patrol has written that it holds the PAT that it does hold
}

type patHistory struct {
	devops.PAT
	ended  time.Time
	before []patState // what it was before somebody changed it
	// patience is how long nothing more may be made if this one is never stored.
	patience time.Duration
}

// patState is what a PAT was until a time.
type patState struct {
	devops.PAT
	until time.Time
}

func (p *patHistory) works(t time.Time) bool {
	return p != nil && p.ended.IsZero() && t.Before(p.ValidTo)
}

func (j *judge) report(invariant string, at time.Time, format string, args ...any) {
	j.violations = append(j.violations, Violation{invariant, at, fmt.Sprintf(format, args...)})
}

// specs are what the manifests in force at a time say of a PAT.
func (j *judge) specs(name string, t time.Time) []rotation.Spec {
	var out []rotation.Spec
	for _, p := range j.inForce(t) {
		for _, s := range p.Specs {
			if strings.EqualFold(s.Name, name) {
				out = append(out, s)
			}
		}
	}
	return out
}

// inForce are the periods at a time. While no process runs, the manifest of the last one is
// in force: the next one begins with it.
func (j *judge) inForce(t time.Time) []Period {
	var out []Period
	var last Period
	for _, p := range j.Manifests {
		isOver := !p.To.IsZero() && t.After(p.To.Add(time.Minute))
		switch {
		case t.Before(p.From):
		case !isOver:
			out = append(out, p)
		case p.To.After(last.To):
			last = p
		}
	}
	if len(out) == 0 {
		return []Period{last}
	}
	return out
}

// until checks I1 at the ends of PATs that lie before t.
func (j *judge) until(t time.Time) {
	for _, s := range j.secrets {
		if p := j.current(s); p != nil && !p.ValidTo.After(t) {
			j.readable(s, p.ValidTo)
		}
		j.excuseEnds(s, t)
	}
}

func (j *judge) current(s *secretHistory) *patHistory {
	if v := s.latest(); v != nil {
		return j.held(v)
	}
	return nil
}

// held is the PAT of a version. White space at a value's ends does not count: readers
// send it in a header, and the client leaves it out.
func (j *judge) held(v *versionHistory) *patHistory { return j.pats[strings.TrimSpace(v.Value)] }

func (s *secretHistory) latest() *versionHistory {
	if len(s.order) == 0 {
		return nil
	}
	return s.order[len(s.order)-1]
}

// readable is I1: from the first provision on, the latest version is enabled and
// holds a PAT that works. A purged secret has none until it is provisioned anew; one
// that left the manifest runs out.
func (j *judge) readable(s *secretHistory, t time.Time) {
	v := s.latest()
	isThere := v != nil && !s.purged && s.deleted.IsZero()
	if !isThere || !s.managed {
		return
	}
	p := j.held(v)
	if v.Enabled && p.works(t) {
		s.broken, s.excused, s.ranOut = false, time.Time{}, time.Time{}
		return
	}
	hasRunOut := p != nil && p.ended.IsZero()
	isReleased := hasRunOut && len(j.specs(s.name, t)) == 0
	if isReleased {
		s.ranOut = t
	}
	isPrevented := hasRunOut && j.isPrevented(t)
	isExcused := isReleased || isPrevented || !s.excused.IsZero()
	if s.broken || isExcused {
		return
	}
	s.excused = j.excuse(s, v, p, t)
	if !s.excused.After(t) {
		j.unreadable(s, t)
	}
}

func (j *judge) unreadable(s *secretHistory, t time.Time) {
	v := s.latest()
	s.broken = true
	j.report("I1", t, "%s: the latest version %s is enabled %t and its PAT works %t", s.name, v.ID, v.Enabled,
		j.held(v).works(t))
}

func (j *judge) apply(r cloud.Record) {
	switch r.Kind {
	case cloud.Secret:
		j.secret(r)
	case cloud.PAT:
		j.pat(r)
	case cloud.Message:
		j.message(r)
	}
	for _, s := range j.secrets {
		j.readable(s, r.At)
	}
}

func (j *judge) secret(r cloud.Record) {
	s := j.secrets[strings.ToLower(r.Secret.Name)]
	if s == nil && !rotation.IsOwn(r.Secret.Name) {
		s = &secretHistory{name: r.Secret.Name, versions: map[string]*versionHistory{}}
		j.secrets[strings.ToLower(s.name)] = s
	}
	if s == nil {
		return
	}
	if r.Secret.Purged {
		s.purged, s.purgedAt = true, r.At
		for _, v := range s.order {
			v.lost = true
		}
		return
	}
	if r.Secret.Deleted {
		s.deleted = r.At
		return
	}
	s.deleted = time.Time{}
	if v := s.versions[r.Secret.ID]; v != nil {
		j.closed(s, v, r)
		v.Version = *r.Secret
		j.names(v)
		return
	}
	v := &versionHistory{Version: *r.Secret, at: r.At, byHand: len(j.hands[r.Secret.ID]) > 0}
	if !v.byHand {
		v.rotation = v.Tags["patrol-rotation"]
		j.deterministic(s, v)
		j.reasoned(s, v)
	}
	j.names(v)
	if last := s.latest(); last != nil {
		j.overwritten(s, last, v)
		last.replaced = r.At
	}
	s.versions[v.ID] = v
	s.order = append(s.order, v)
	s.purged = false
}

// names notes that patrol has written down which PAT a version holds.
func (j *judge) names(v *versionHistory) {
	p := j.held(v)
	v.named = v.named || p != nil && strings.EqualFold(v.Tags["CredentialId"], p.AuthorizationID)
}

// closed is a part of I3: a version says that its PAT was revoked only once it is.
func (j *judge) closed(s *secretHistory, v *versionHistory, r cloud.Record) {
	isNew := v.Tags["patrol-revoked-at"] == "" && r.Secret.Tags["patrol-revoked-at"] != ""
	if isNew && v.named && j.held(v).works(r.At.Add(rotation.ClockSkew)) {
		j.report("I3", r.At, "%s: version %s is closed and its PAT is alive", s.name, v.ID)
	}
}

// deterministic is the part of I4 that makes repeats recognisable: a rotation's id
// follows from the version that it replaces.
func (j *judge) deterministic(s *secretHistory, v *versionHistory) {
	id := v.rotation
	if id == "" || id == rotation.RotationID(s.name, "") {
		return
	}
	for _, before := range s.order {
		if id == rotation.RotationID(s.name, before.ID) {
			return
		}
	}
	j.report("I4", v.at, "%s: rotation id %s does not follow from the version that was replaced", s.name, id)
}

func (j *judge) pat(r cloud.Record) {
	p := j.pats[r.PAT.PAT.Token]
	if p == nil {
		p = &patHistory{patience: j.patience(r.At)}
		j.pats[r.PAT.PAT.Token], j.byID[strings.ToLower(r.PAT.PAT.AuthorizationID)] = p, p
	}
	if r.PAT.Kind == devops.Updated {
		p.before = append(p.before, patState{p.PAT, r.At})
	}
	p.PAT = r.PAT.PAT
	if r.PAT.Kind != devops.Ended {
		return
	}
	p.ended = r.At
	if j.isEndedByHand(p) {
		return
	}
	j.overlap(p, r.At)
	j.guarded(p, r.At)
	j.nobodys(p, r.At)
}

// overlap is I2: a reader of a version has a working PAT for the overlap after its
// replacement, counted from when the new version could be read, and for a while after
// the event that tells of it; unless somebody asked for its end at once.
func (j *judge) overlap(p *patHistory, t time.Time) {
	if !t.Before(p.ValidTo) {
		return
	}
	for _, s := range j.secrets {
		last := j.lastOf(s, p)
		if !s.managed {
			continue // I7
		}
		if last < 0 || j.orderedToEnd(s, last, t) || j.seemsInterrupted(s, s.order[last], p, t) {
			continue // never readable, asked for, or an exception
		}
		v := s.order[last]
		if v.replaced.IsZero() {
			if v.lost {
				j.report("I2", t, "%s: the PAT of version %s was revoked after a purge, before a new one could be read",
					s.name, v.ID)
			}
			continue // current: I1 covers it
		}
		promised := j.promised(s, v)
		if until := v.replaced.Add(promised); t.Before(until) {
			j.report("I2", t, "%s: the PAT of version %s was revoked %s before its overlap ended", s.name, v.ID,
				until.Sub(t))
		}
		next := s.order[last+1]
		published := s.announced(next)
		announced := published.Add(min(promised, rotation.AnnouncedFor))
		wantsEvent := next.rotation != "" && !next.lost
		switch {
		case !wantsEvent:
		case published.IsZero():
			j.report("I2", t, "%s: the PAT of version %s was revoked, and no event had told of its replacement", s.name,
				v.ID)
		case t.Add(rotation.ClockSkew).Before(announced):
			j.report("I2", t, "%s: the PAT of version %s was revoked %s after the event that told of its replacement",
				s.name, v.ID, t.Sub(published))
		}
	}
}

// seemsInterrupted is an exception: the first PAT of a secret that was purged within two
// sweeps cannot be told from what an interrupted attempt has left.
func (j *judge) seemsInterrupted(s *secretHistory, v *versionHistory, p *patHistory, t time.Time) bool {
	isFirst := v.rotation == rotation.RotationID(s.name, "")
	return v.lost && isFirst && t.Before(p.ValidFrom.Add(2*j.Sweep+rotation.ClockSkew))
}

// announced is when the event of a version was first on the topic, or that of another
// version of its PAT: the SDK repeats a store whose answer was lost.
func (s *secretHistory) announced(v *versionHistory) time.Time {
	var first time.Time
	for _, twin := range s.order {
		isOfPAT := twin.Value == v.Value && !twin.announced.IsZero()
		if isOfPAT && (first.IsZero() || twin.announced.Before(first)) {
			first = twin.announced
		}
	}
	return first
}

// lastOf is where the last version stands that holds a PAT; -1: none does.
func (j *judge) lastOf(s *secretHistory, p *patHistory) int {
	for i, v := range slices.Backward(s.order) {
		if j.held(v) == p {
			return i
		}
	}
	return -1
}

// promised is the shortest overlap that a manifest in force gave a version when it was
// replaced.
func (j *judge) promised(s *secretHistory, v *versionHistory) time.Duration {
	specs := j.specs(s.name, v.replaced)
	if len(specs) == 0 {
		return 0
	}
	return slices.MinFunc(specs, func(a, b rotation.Spec) int { return int(a.Overlap - b.Overlap) }).Overlap
}

// message is the first half of I4: no event without what it tells, and one rotation
// for one id.
func (j *judge) message(r cloud.Record) {
	switch r.Message.Entity {
	case cloud.CommandQueue:
		j.command(r)
		return
	case cloud.EventTopic:
	default:
		return
	}
	e, err := events.Decode(r.Message.Body)
	if err != nil {
		j.report("I4", r.At, "subscribers cannot read an event: %v", err)
		return
	}
	switch d := e.Data.(type) {
	case events.Rotated:
		j.rotatedEvent(r, e, d)
	case events.Revoked:
		j.revokedEvent(r, e, d)
	case events.RotationFailed:
		j.notices = append(j.notices, notice{r.At, d.PAT, d.Code})
	case events.SignInRequired:
		j.notices = append(j.notices, notice{r.At, "", d.Code})
	case events.CheckIncomplete:
		j.notices = append(j.notices, notice{r.At, "", d.Code})
		j.tellings = append(j.tellings, telling{r.At, e.ID, d.Scope, false})
	case events.CheckRecovered:
		j.tellings = append(j.tellings, telling{r.At, e.ID, d.Scope, true})
	}
}

func (j *judge) rotatedEvent(r cloud.Record, e events.Event, d events.Rotated) {
	var v *versionHistory
	if s := j.secrets[strings.ToLower(d.PAT)]; s != nil {
		v = s.versions[d.Secret.Version]
	}
	stored := v != nil && j.isOf(v, d)
	if !stored {
		j.report("I4", r.At, "%s: event %s announces a rotation that is not in the vault", d.PAT, e.ID)
		return
	}
	if v.announced.IsZero() {
		v.announced = r.At
	}
	// Two versions of one PAT (a store that the SDK repeated) are one rotation.
	before, repeated := j.rotated[e.ID]
	if repeated && (before.AuthorizationID != d.AuthorizationID || before.PAT != d.PAT) {
		j.report("I4", r.At, "%s: event %s announces two rotations", d.PAT, e.ID)
	}
	j.rotated[e.ID] = d
	if d.Reason == string(rotation.Requested) && !j.asked(d, r.At) {
		j.report("I4", r.At, "%s: event %s says that somebody asked for it; nobody did", d.PAT, e.ID)
	}
}

// isOf reports whether a version holds what an event tells. A recognized version of
// somebody else's has its rotation's id from the version before it.
func (j *judge) isOf(v *versionHistory, d events.Rotated) bool {
	p := j.held(v)
	holds := p != nil && strings.EqualFold(p.AuthorizationID, d.AuthorizationID)
	return holds && (v.byHand || v.rotation == d.RotationID)
}

// asked reports whether somebody ordered to rotate away from the PAT that a rotation has
// replaced.
func (j *judge) asked(d events.Rotated, t time.Time) bool {
	return slices.ContainsFunc(j.Orders, func(o Order) bool {
		isOfPAT := strings.EqualFold(o.PAT, d.PAT) && !o.At.After(t)
		return isOfPAT && (d.Previous == nil || strings.EqualFold(o.AuthorizationID, d.Previous.AuthorizationID))
	})
}

func (j *judge) revokedEvent(r cloud.Record, e events.Event, d events.Revoked) {
	p := j.byID[strings.ToLower(d.AuthorizationID)]
	if p.works(r.At.Add(rotation.ClockSkew)) {
		j.report("I4", r.At, "%s: event %s says that a PAT was revoked, and it is alive", d.PAT, e.ID)
	}
	if d.Cause != string(rotation.CauseRequested) || p == nil {
		return
	}
	s := j.secrets[strings.ToLower(d.PAT)]
	if s == nil || j.lastOf(s, p) < 0 {
		return
	}
	if !j.orderedToEnd(s, j.lastOf(s, p), r.At) && !j.isNamedToEnd(p, r.At) {
		j.report("I4", r.At, "%s: event %s says that somebody asked for the end of a PAT; nobody did", d.PAT, e.ID)
	}
}

// secrecy is I5: tokens are in the vault's values and nowhere else.
func (j *judge) secrecy() {
	search := func(at time.Time, where, text string) {
		for _, token := range j.Tokens {
			if token != "" && strings.Contains(text, token) {
				j.report("I5", at, "a token is in %s", where)
				return
			}
		}
	}
	for _, o := range j.Outputs {
		search(j.End, "an output", o)
	}
	for _, r := range j.Records {
		switch r.Kind {
		case cloud.Message:
			search(r.At, "a message on "+r.Message.Entity, string(r.Message.Body)+fmt.Sprint(r.Message.ID,
				r.Message.SessionID, r.Message.Subject, r.Message.Properties))
		case cloud.Secret:
			search(r.At, "the tags of "+r.Secret.Name, fmt.Sprint(r.Secret.Tags, r.Secret.ContentType))
		}
	}
}
