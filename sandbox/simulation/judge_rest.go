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
		j.announcements(s)
		isManaged := len(j.specs(s.name, j.End)) > 0
		switch {
		case !isManaged:
		case len(s.order) == 0:
			j.report("I1", j.End, "%s: was never provisioned", s.name)
		case s.purged && j.End.After(s.purgedAt.Add(j.Sweep+orderWithin)):
			j.report("I1", j.End, "%s: was not provisioned again after it had been purged", s.name)
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
		id, pat := v.Tags["patrol-rotation"], v.Tags["CredentialId"]
		// Two versions of one PAT are one rotation: a repeated store.
		repeated := i+1 < len(s.order) && s.order[i+1].Tags["CredentialId"] == pat
		_, announced := j.rotated[events.RotatedID(id, pat)]
		isWanted := id != "" && !repeated && !v.lost
		if isWanted && !announced {
			j.report("I4", j.End, "%s: rotation %s was never announced", s.name, id)
		}
	}
}

// leftOver is I3 for one PAT that is alive: whoever made it, and whatever the manifest
// says today.
func (j *judge) leftOver(p *patHistory) {
	var s *secretHistory
	for _, one := range j.secrets {
		if one.lastOf(p) >= 0 {
			s = one
		}
	}
	if s == nil {
		seen := p.ValidFrom.Add(rotation.OrphanAge + j.Sweep + time.Minute)
		if j.End.After(seen) && j.isMarked(p) && j.isListed(p) {
			j.report("I3", j.End, "PAT %s (%s) is alive and no version knows it", p.AuthorizationID, p.DisplayName)
		}
		return
	}
	v := s.order[s.lastOf(p)]
	isCurrent := v == s.latest()
	isUnknown := !strings.EqualFold(v.Tags["CredentialId"], p.AuthorizationID) || v.lost && !j.isMarked(p)
	if isCurrent || isUnknown {
		return // in use, or nobody knows any more what it was for
	}
	// A tag of the successor says when it is revoked; after a purge the latest version's
	// age does.
	next := s.order[s.lastOf(p)+1]
	until := v.replaced.Add(j.longest(s, v))
	if at, err := time.Parse(time.RFC3339, next.Tags["patrol-revoke-previous-at"]); err == nil && at.After(until) {
		until = at
	}
	if v.lost {
		until = s.latest().at.Add(j.longest(s, v) + rotation.OrphanAge)
	}
	if announced := s.announced(next).Add(rotation.AnnouncedFor); announced.After(until) {
		until = announced
	}
	until = until.Add(rotation.StoreSlack + j.Sweep)
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
			return strings.EqualFold(m.Users[s.Identity], p.User) && strings.EqualFold(s.Organization, p.Organization)
		})
		if isOwners && !isOver {
			return true
		}
	}
	return false
}
