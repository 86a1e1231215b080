package simulation

import (
	"slices"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/devops"
)

// reasoned is I13: a PAT that works is replaced because it is due, because the manifest
// asks for another one, or because a person does; and a manifest's wish is not undone
// within a day.
func (j *judge) reasoned(s *secretHistory, v *versionHistory) {
	before := s.before(v)
	if before == nil || s.purged || v.rotation == "" {
		return
	}
	p := j.held(before)
	if !before.named || p == nil || p == j.held(v) {
		return
	}
	isGone := !p.works(v.at) || j.isEndedByHand(p)
	isUnreadable := !before.Enabled
	if isGone || isUnreadable || j.ordered(s, p, v.at) {
		return
	}
	specs := j.specs(s.name, v.at)
	isDue := slices.ContainsFunc(specs, func(spec rotation.Spec) bool { return p.isDueAt(spec, v.at) })
	if isDue {
		return
	}
	i := slices.IndexFunc(specs, func(spec rotation.Spec) bool { return !j.fits(p, spec, v.at) })
	if i < 0 {
		j.report("I13", v.at, "%s: the PAT of version %s was replaced (%s) although it works, is not due, and is what "+
			"the manifest asks for", s.name, before.ID, v.Tags["patrol-reason"])
		return
	}
	earlier := s.before(before)
	isYoung := v.at.Sub(before.at) < rotation.Day-rotation.ClockSkew
	if earlier == nil || !isYoung {
		return
	}
	q := j.held(earlier)
	if q != nil && q != p && j.fits(q, specs[i], v.at) {
		j.report("I13", v.at, "%s: the replacement of %s by version %s was undone %s later: two manifests undo each "+
			"other", s.name, earlier.ID, before.ID, v.at.Sub(before.at))
	}
}

// before is the version that another one has replaced, as its tags say: two instances
// may have replaced one version.
func (s *secretHistory) before(v *versionHistory) *versionHistory {
	if named := s.versions[v.Tags["patrol-previous-version"]]; named != nil {
		return named
	}
	i := slices.Index(s.order, v)
	switch {
	case i < 0:
		return s.latest()
	case i == 0:
		return nil
	}
	return s.order[i-1]
}

// fits reports whether a PAT is what a manifest asks for.
func (j *judge) fits(p *patHistory, spec rotation.Spec, t time.Time) bool {
	scopes := slices.Sorted(slices.Values(p.Scopes))
	isAsSeen := slices.Equal(scopes, spec.Scopes) && !p.wasChangedBefore(t)
	return isAsSeen && j.same(p.Organization, spec.Organization) && j.isUsers(p, spec.Identity, t)
}

// isUsers reports whether a PAT is of the user whom a manifest in force names for an
// identity.
func (j *judge) isUsers(p *patHistory, identity string, t time.Time) bool {
	for _, m := range j.Manifests {
		isOver := !m.To.IsZero() && t.After(m.To.Add(time.Minute))
		user, named := m.Users[identity]
		if t.Before(m.From) || isOver || !named {
			continue
		}
		if !j.same(user, p.User) {
			return false
		}
	}
	return true
}

// isDueAt reports whether a PAT is due by a manifest, by clocks that may differ. A
// lifetime that the manifest has shortened counts from the PAT's birth.
func isDueAt(s rotation.Spec, p devops.PAT, t time.Time) bool {
	end := p.ValidTo
	if shorter := p.ValidFrom.Add(s.Lifetime); s.Lifetime > 0 && end.After(shorter) {
		end = shorter
	}
	return !t.Add(rotation.ClockSkew).Before(rotation.Due(s, p.ValidFrom, end))
}

// listAge is how old the list may be by which patrol decides.
const listAge = 10 * time.Minute

// isDueAt reports whether a PAT is due by what it is, or was a list's age ago.
func (p *patHistory) isDueAt(s rotation.Spec, t time.Time) bool {
	return isDueAt(s, p.PAT, t) || slices.ContainsFunc(p.before, func(b patState) bool {
		return t.Before(b.until.Add(listAge)) && isDueAt(s, b.PAT, t)
	})
}

// wasChangedBefore reports whether somebody has changed a PAT within a list's age.
func (p *patHistory) wasChangedBefore(t time.Time) bool {
	return slices.ContainsFunc(p.before, func(b patState) bool { return t.Before(b.until.Add(listAge)) })
}

// nobodys is the rest of I13: a PAT without our mark that no secret has ever held is
// ended by people alone.
func (j *judge) nobodys(p *patHistory, t time.Time) {
	if j.isMarked(p) || p.DisplayName == rotation.CanaryName {
		return
	}
	for _, s := range j.secrets {
		if j.lastOf(s, p) >= 0 {
			return
		}
	}
	j.report("I13", t, "PAT %s (%s) was ended; no secret holds it, and it is not patrol's", p.AuthorizationID,
		p.DisplayName)
}

// isMarked reports whether a PAT bears this deployment's mark.
func (j *judge) isMarked(p *patHistory) bool {
	_, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	return marked && tag == j.VaultTag
}
