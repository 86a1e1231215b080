package simulation

import (
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// rest is I3, and the second half of I4, once things have come to rest.
func (j *judge) rest() {
	for _, s := range j.secrets {
		if !s.managed {
			continue
		}
		j.announcements(s)
		isManaged := len(j.specs(s.name, j.End)) > 0
		switch {
		case !isManaged:
		case len(s.order) == 0 && !j.wasRefusedWithin(rotation.Day+j.Sweep):
			j.report("I1", j.End, "%s: was never provisioned", s.name)
		case s.purged && j.End.After(s.purgedAt.Add(j.Sweep+orderWithin)):
			j.report("I1", j.End, "%s: was not provisioned again after it had been purged", s.name)
		case !s.deleted.IsZero() && j.End.After(s.deleted.Add(j.Sweep+orderWithin)):
			j.report("I1", j.End, "%s: was not recovered after it had been deleted", s.name)
		}
	}
	for _, p := range j.pats {
		if p.works(j.End) {
			j.leftOver(p)
		}
	}
}

// announcements: every rotation has its event.
func (j *judge) announcements(s *secretHistory) {
	for i, v := range s.order {
		p := j.held(v)
		if v.rotation == "" || v.lost || p == nil {
			continue
		}
		// Two versions of one PAT are one rotation: a repeated store.
		repeated := i+1 < len(s.order) && j.held(s.order[i+1]) == p
		_, announced := j.rotated[events.RotatedID(v.rotation, p.AuthorizationID)]
		if !repeated && !announced {
			j.report("I4", j.End, "%s: rotation %s was never announced", s.name, v.rotation)
		}
	}
}

// leftOver is I3 for one PAT that is alive: whoever made it, and whatever the manifest
// says today.
func (j *judge) leftOver(p *patHistory) {
	var s *secretHistory
	for _, one := range j.secrets {
		if one.managed && j.lastOf(one, p) >= 0 {
			s = one
		}
	}
	if s == nil {
		seen := p.ValidFrom.Add(rotation.OrphanAge + j.Sweep + time.Minute)
		isLate := j.End.After(seen) && !j.wasRefusedWithin(j.Sweep+orderWithin)
		if isLate && j.isMarked(p) && j.isListed(p) {
			j.report("I3", j.End, "PAT %s (%s) is alive and no version knows it", p.AuthorizationID, p.DisplayName)
		}
		return
	}
	v := s.order[j.lastOf(s, p)]
	isCurrent := v == s.latest()
	isUnknown := !v.named || v.lost && !j.isMarked(p)
	if isCurrent || isUnknown || j.isKept(s, p) {
		return // in use, or nobody knows any more what it was for
	}
	// After a purge the latest version's age counts.
	next := s.order[j.lastOf(s, p)+1]
	if next.byHand && !j.isMarked(p) {
		return // adopted, and cut off by somebody's value: it is shown as unmanaged
	}
	until := v.replaced.Add(j.longest(s, v))
	if v.lost {
		until = s.latest().at.Add(j.longest(s, v) + rotation.OrphanAge)
	}
	if announced := s.announced(next).Add(rotation.AnnouncedFor); announced.After(until) {
		until = announced
	}
	if next.byHand && next.Tags["CredentialId"] != "" {
		until = until.Add(rotation.Day) // under the old tags: the daily proof finds it
	}
	until = j.bound(until.Add(rotation.StoreSlack + j.Sweep))
	isLeft := v.lost && !j.isListed(p)
	if j.End.After(until) && !isLeft && !j.isExcused(p, s.name) {
		j.report("I3", j.End, "%s: the replaced PAT %s outlived its overlap by more than a sweep", s.name,
			p.AuthorizationID)
	}
}

// longest is the longest overlap that a manifest gave or gives a replaced version.
func (j *judge) longest(s *secretHistory, v *versionHistory) time.Duration {
	specs := slices.Concat(j.specs(s.name, v.replaced), j.specs(s.name, j.End))
	if len(specs) == 0 {
		return rotation.Day
	}
	return slices.MaxFunc(specs, func(a, b rotation.Spec) int { return int(a.Overlap - b.Overlap) }).Overlap
}

// isExcused reports whether nobody can end a PAT, and people were told.
func (j *judge) isExcused(p *patHistory, name string) bool {
	if !j.Stranded[strings.ToLower(p.User)] {
		return false
	}
	return slices.ContainsFunc(j.notices, func(n notice) bool {
		return n.code == rotation.OwnerGone && strings.EqualFold(n.pat, name)
	})
}

// isListed reports whether a manifest in force at the end has an entry of a PAT's owner.
// Of others no sweep lists the PATs: what no secret names is not found there.
func (j *judge) isListed(p *patHistory) bool {
	for _, m := range j.Manifests {
		isOver := !m.To.IsZero() && j.End.After(m.To)
		isOwners := slices.ContainsFunc(m.Specs, func(s rotation.Spec) bool {
			return j.same(m.Users[s.Identity], p.User) && j.same(s.Organization, p.Organization)
		})
		if isOwners && !isOver {
			return true
		}
	}
	return false
}
