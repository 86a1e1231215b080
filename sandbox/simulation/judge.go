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
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Violation is a moment at which an invariant of docs/reliability.md was broken.
type Violation struct {
	Invariant string // I1 to I5
	At        time.Time
	Text      string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s at %s: %s", v.Invariant, v.At.UTC().Format(time.RFC3339Nano), v.Text)
}

// Case is what Judge checks.
type Case struct {
	Records  []cloud.Record
	End      time.Time // when the world was observed last
	Specs    []rotation.Spec
	VaultTag string
	// Sweep is how far sweeps are apart.
	Sweep time.Duration
	// Rest is whether things have come to rest at End.
	Rest bool
	// Outside holds authorization ids of PATs that somebody else revoked.
	Outside map[string]bool
	// Tokens must be in none of the Outputs, messages and tags.
	Tokens  []string
	Outputs []string
}

// Judge goes through a history record by record and checks the invariants of
// docs/reliability.md at every instant at which something changed, the ends of PATs
// included.
func Judge(c Case) []Violation {
	j := &judge{Case: c, secrets: map[string]*secretHistory{}, pats: map[string]*patHistory{},
		rotated: map[string]events.Rotated{}}
	for _, s := range c.Specs {
		j.secrets[strings.ToLower(s.Name)] = &secretHistory{spec: s, versions: map[string]*versionHistory{}}
	}
	for _, r := range c.Records {
		j.until(r.At)
		j.apply(r)
	}
	j.until(c.End)
	if c.Rest {
		j.rest()
	}
	j.secrecy()
	return j.violations
}

type judge struct {
	Case
	secrets    map[string]*secretHistory
	pats       map[string]*patHistory // by token
	rotated    map[string]events.Rotated
	violations []Violation
}

type secretHistory struct {
	spec     rotation.Spec
	versions map[string]*versionHistory
	order    []*versionHistory
	broken   bool // I1 is reported once, until it holds again
}

type versionHistory struct {
	keyvault.Version
	at       time.Time // when it could first be read
	replaced time.Time // when the next one could
}

type patHistory struct {
	devops.PAT
	ended time.Time
}

func (p *patHistory) works(t time.Time) bool {
	return p != nil && p.ended.IsZero() && t.Before(p.ValidTo)
}

func (j *judge) report(invariant string, at time.Time, format string, args ...any) {
	j.violations = append(j.violations, Violation{invariant, at, fmt.Sprintf(format, args...)})
}

// until checks I1 at the ends of PATs that lie before t.
func (j *judge) until(t time.Time) {
	for _, s := range j.secrets {
		if p := j.current(s); p != nil && !p.ValidTo.After(t) {
			j.readable(s, p.ValidTo)
		}
	}
}

func (j *judge) current(s *secretHistory) *patHistory {
	if len(s.order) == 0 {
		return nil
	}
	return j.pats[s.order[len(s.order)-1].Value]
}

// readable is I1: from the first provision on, the latest version is enabled and
// holds a PAT that works.
func (j *judge) readable(s *secretHistory, t time.Time) {
	if len(s.order) == 0 {
		return
	}
	v := s.order[len(s.order)-1]
	p := j.pats[v.Value]
	good := v.Enabled && p.works(t)
	if good {
		s.broken = false
		return
	}
	if s.broken || p != nil && j.Outside[p.AuthorizationID] {
		return
	}
	s.broken = true
	j.report("I1", t, "%s: the latest version %s is enabled %t and its PAT works %t", s.spec.Name, v.ID, v.Enabled,
		p.works(t))
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
	if s == nil || r.Secret.Deleted {
		return
	}
	if v := s.versions[r.Secret.ID]; v != nil {
		v.Version = *r.Secret
		return
	}
	v := &versionHistory{Version: *r.Secret, at: r.At}
	j.deterministic(s, v)
	if n := len(s.order); n > 0 {
		s.order[n-1].replaced = r.At
	}
	s.versions[v.ID] = v
	s.order = append(s.order, v)
}

// deterministic is the part of I4 that makes repeats recognisable: a rotation's id
// follows from the version that it replaces.
func (j *judge) deterministic(s *secretHistory, v *versionHistory) {
	id := v.Tags["patrol-rotation"]
	if id == "" || id == rotation.RotationID(s.spec.Name, "") {
		return
	}
	for _, before := range s.order {
		if id == rotation.RotationID(s.spec.Name, before.ID) {
			return
		}
	}
	j.report("I4", v.at, "%s: rotation id %s does not follow from the version that was replaced", s.spec.Name, id)
}

func (j *judge) pat(r cloud.Record) {
	p := j.pats[r.PAT.PAT.Token]
	if p == nil {
		p = &patHistory{}
		j.pats[r.PAT.PAT.Token] = p
	}
	p.PAT = r.PAT.PAT
	if r.PAT.Kind != devops.Ended {
		return
	}
	p.ended = r.At
	if !j.Outside[p.AuthorizationID] {
		j.overlap(p, r.At)
	}
}

// overlap is I2: a reader of a version has a working PAT for the overlap after its
// replacement, unless somebody asked for its end at once.
func (j *judge) overlap(p *patHistory, t time.Time) {
	if !t.Before(p.ValidTo) {
		return
	}
	for _, s := range j.secrets {
		var last *versionHistory
		for _, v := range s.order {
			if v.Value == p.Token {
				last = v
			}
		}
		if last == nil || last.replaced.IsZero() {
			continue // never readable, or current: I1 covers it
		}
		if until := last.replaced.Add(s.spec.Overlap); t.Before(until) && !s.endsNow(last) {
			j.report("I2", t, "%s: the PAT of version %s was revoked %s before its overlap ended", s.spec.Name, last.ID,
				until.Sub(t))
		}
	}
}

// endsNow reports whether v's replacement, or a later one, was to end what came
// before at once.
func (s *secretHistory) endsNow(v *versionHistory) bool {
	for _, next := range s.order[slices.Index(s.order, v)+1:] {
		at, err := time.Parse(time.RFC3339, next.Tags["patrol-revoke-previous-at"])
		if err == nil && (next.Tags["patrol-reason"] == "compromised" || !at.After(next.at.Add(30*time.Second))) {
			return true
		}
	}
	return false
}

// message is the first half of I4: no event without its rotation, and one rotation
// for one id.
func (j *judge) message(r cloud.Record) {
	if r.Message.Entity != cloud.EventTopic {
		return
	}
	e, err := events.Decode(r.Message.Body)
	if err != nil {
		j.report("I4", r.At, "subscribers cannot read an event: %v", err)
		return
	}
	d, ok := e.Data.(events.Rotated)
	if !ok {
		return
	}
	stored := false
	if s := j.secrets[strings.ToLower(d.PAT)]; s != nil {
		if v := s.versions[d.Secret.Version]; v != nil {
			stored = v.Tags["patrol-rotation"] == d.RotationID && v.Tags["CredentialId"] == d.AuthorizationID
		}
	}
	if !stored {
		j.report("I4", r.At, "%s: event %s announces a rotation that is not in the vault", d.PAT, e.ID)
	}
	// Two versions of one PAT (a store that the SDK repeated) are one rotation.
	before, repeated := j.rotated[e.ID]
	if repeated && (before.AuthorizationID != d.AuthorizationID || before.PAT != d.PAT) {
		j.report("I4", r.At, "%s: event %s announces two rotations", d.PAT, e.ID)
	}
	j.rotated[e.ID] = d
}

// rest is I3, and the second half of I4, once things have come to rest.
func (j *judge) rest() {
	known := map[string]*versionHistory{}
	specOf := map[string]*secretHistory{}
	for _, s := range j.secrets {
		for i, v := range s.order {
			id := v.Tags["CredentialId"]
			known[id], specOf[id] = v, s
			rotationID := v.Tags["patrol-rotation"]
			// Two versions of one PAT are one rotation: a repeated store.
			repeated := i+1 < len(s.order) && s.order[i+1].Tags["CredentialId"] == id
			_, announced := j.rotated[events.RotatedID(rotationID, id)]
			if rotationID != "" && !announced && !repeated {
				j.report("I4", j.End, "%s: rotation %s was never announced", s.spec.Name, rotationID)
			}
		}
	}
	for _, p := range j.pats {
		_, tag, _, ours := rotation.ParseDisplayName(p.DisplayName)
		if !ours || tag != j.VaultTag || !p.works(j.End) {
			continue
		}
		v := known[p.AuthorizationID]
		if v == nil {
			j.report("I3", j.End, "PAT %s (%s) is alive and no version knows it", p.AuthorizationID, p.DisplayName)
			continue
		}
		s := specOf[p.AuthorizationID]
		if latest := s.order[len(s.order)-1]; latest.Tags["CredentialId"] == p.AuthorizationID {
			continue
		}
		// When it is revoked is a tag of its successor.
		until := v.replaced.Add(s.spec.Overlap + time.Minute + j.Sweep)
		if !v.replaced.IsZero() && j.End.After(until) {
			j.report("I3", j.End, "%s: the replaced PAT %s outlived its overlap by more than a sweep", s.spec.Name,
				p.AuthorizationID)
		}
	}
	for _, s := range j.secrets {
		if len(s.order) == 0 {
			j.report("I1", j.End, "%s: was never provisioned", s.spec.Name)
		}
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
