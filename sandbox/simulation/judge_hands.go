package simulation

import (
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// guardAge is how old the vault's list may be that patrol's guard asks: of a younger copy
// it need not know.
const guardAge = 10 * time.Minute

// attemptWithin is how long one attempt at a rotation may take.
const attemptWithin = 5 * time.Minute

// excuse is until when I1 need not hold because of what somebody did to the latest version
// or to its PAT; zero: nobody did anything.
func (j *judge) excuse(s *secretHistory, v *versionHistory, p *patHistory, t time.Time) time.Time {
	found := j.Sweep
	if !s.ranOut.IsZero() {
		return j.bound(t.Add(found)) // its entry has come back
	}
	var last Touch
	touches := j.hands[v.ID]
	if p != nil {
		touches = slices.Concat(touches, j.hands[strings.ToLower(p.AuthorizationID)])
	}
	for _, touch := range touches {
		if !touch.At.After(t) && !touch.At.Before(last.At) {
			last = touch
		}
	}
	if p != nil && j.Outside[p.AuthorizationID] && !p.ended.IsZero() {
		return j.bound(p.ended.Add(found))
	}
	if last.At.IsZero() {
		return j.outlasted(s, p, t)
	}
	isUnderOldTags := last.Version != "" && !last.Disabled && v.Tags["CredentialId"] != ""
	if isUnderOldTags {
		found += rotation.Day // the daily proof
	}
	at := last.At
	if p.wasShortened() && p.ended.IsZero() && v.Enabled {
		at = p.ValidTo
	}
	return j.bound(at.Add(found))
}

// wasShortened reports whether somebody has moved a PAT's end to an earlier time.
func (p *patHistory) wasShortened() bool {
	return p != nil && slices.ContainsFunc(p.before, func(b patState) bool { return b.ValidTo.After(p.ValidTo) })
}

// outlasted is until when a PAT may have run out because a refusal has lasted longer than
// it had left when it came due.
func (j *judge) outlasted(s *secretHistory, p *patHistory, t time.Time) time.Time {
	if p == nil || !p.ended.IsZero() {
		return time.Time{}
	}
	for _, d := range j.Disturbances {
		for _, spec := range j.specs(s.name, t) {
			isLong := d.Until.Sub(d.At) >= spec.RotateBefore-time.Hour
			isMeanwhile := d.At.Before(p.ValidTo) && d.Until.After(p.ValidTo.Add(-spec.RotateBefore))
			if d.Standing && isLong && isMeanwhile {
				return j.bound(d.Until.Add(j.Sweep))
			}
		}
	}
	return time.Time{}
}

// excuseEnds looks again at what a hand had broken: patrol must have found it by now, or
// must have told people that it needs one.
func (j *judge) excuseEnds(s *secretHistory, t time.Time) {
	if s.excused.IsZero() || t.Before(s.excused) || s.broken {
		return
	}
	at := s.excused
	isThere := !s.purged && s.deleted.IsZero()
	if !isThere || len(j.specs(s.name, at)) == 0 {
		return
	}
	if !j.isLeftToPeople(s) {
		j.unreadable(s, at)
	}
}

// isEndedByHand reports whether somebody has revoked a PAT in the portal.
func (j *judge) isEndedByHand(p *patHistory) bool {
	touches := j.hands[strings.ToLower(p.AuthorizationID)]
	isTouched := slices.ContainsFunc(touches, func(t Touch) bool { return t.Ended })
	return isTouched || j.Outside[p.AuthorizationID]
}

// guarded is I7: patrol ends no PAT that the latest version of a secret holds, unless
// somebody has ordered the end of this very PAT, and none of another deployment.
func (j *judge) guarded(p *patHistory, t time.Time) {
	if !t.Before(p.ValidTo) || j.isNamedToEnd(p, t) {
		return
	}
	_, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	if marked && tag != j.VaultTag {
		j.report("I7", t, "PAT %s (%s) was ended; it is another deployment's", p.AuthorizationID, p.DisplayName)
	}
	if s := j.holder(p, t.Add(-guardAge)); s != nil {
		j.report("I7", t, "PAT %s (%s) was ended; the latest version of %s holds it", p.AuthorizationID, p.DisplayName,
			s.name)
	}
}

// holder is a secret whose latest version, older than a time, holds a PAT; nil: none. One
// that somebody has disabled gives it to nobody.
func (j *judge) holder(p *patHistory, before time.Time) *secretHistory {
	for _, s := range j.secrets {
		v := s.latest()
		isThere := v != nil && !s.purged && s.deleted.IsZero()
		isReadable := isThere && v.Enabled && v.at.Before(before)
		if isReadable && j.held(v) == p {
			return s
		}
	}
	return nil
}

// isKept reports whether a replaced PAT is rightly alive: a secret holds it, it is another
// deployment's, or what has taken its place is no PAT, and people were told.
func (j *judge) isKept(s *secretHistory, p *patHistory) bool {
	_, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	isOthers := marked && tag != j.VaultTag
	return isOthers || j.holder(p, j.End) != nil || j.isLeftToPeople(s)
}

// isLeftToPeople reports whether people were told that only they can say what the latest
// version is.
func (j *judge) isLeftToPeople(s *secretHistory) bool {
	return slices.ContainsFunc(j.notices, func(n notice) bool {
		isSettledByPeople := n.code == rotation.NotAPAT || n.code == rotation.AmbiguousAdoption
		return isSettledByPeople && strings.EqualFold(n.pat, s.name) && !n.at.Before(s.latest().at)
	})
}

// isNamedToEnd reports whether somebody has ordered that this PAT ends at once.
func (j *judge) isNamedToEnd(p *patHistory, t time.Time) bool {
	return slices.ContainsFunc(j.Orders, func(o Order) bool {
		return o.Now && !o.At.After(t) && strings.EqualFold(o.AuthorizationID, p.AuthorizationID)
	})
}

// overwritten is a part of I8: a value that is no PAT is somebody's, and stays. One that was
// put while a rotation was under way may be overtaken: the vault has no compare-and-swap.
func (j *judge) overwritten(s *secretHistory, last, v *versionHistory) {
	isSomebodys := last.byHand && !rotation.NewSecret(last.Value).Trimmed().HasPATForm()
	isUnderWay := v.at.Sub(last.at) < attemptWithin
	isOvertaken := v.byHand || isUnderWay || s.purged
	if isOvertaken || !isSomebodys {
		return
	}
	isMeant := slices.ContainsFunc(j.specs(s.name, v.at), func(spec rotation.Spec) bool {
		return spec.Adopt == rotation.AdoptReplace
	})
	if !isMeant {
		j.report("I8", v.at, "%s: version %s, which is no PAT, was replaced", s.name, last.ID)
	}
}

// stored is I8: what somebody has written beside values makes no PATs that no secret ever
// holds. One that could not be stored keeps patrol waiting. What a fault of a call costs
// does not count, and what people order is tried more often.
func (j *judge) stored() {
	var lost []*patHistory
	for _, p := range j.pats {
		isHeld := false
		for _, s := range j.secrets {
			isHeld = isHeld || j.lastOf(s, p) >= 0
		}
		made := p.ValidFrom
		isByFault := j.isDisturbed(made) || len(j.Orders) > 0
		if !isHeld && j.isMarked(p) && !isByFault {
			lost = append(lost, p)
		}
	}
	slices.SortFunc(lost, func(a, b *patHistory) int { return a.ValidFrom.Compare(b.ValidFrom) })
	managed := 0
	for _, s := range j.secrets {
		if s.managed {
			managed++
		}
	}
	for i := managed; i < len(lost); i++ {
		apart := lost[i].ValidFrom.Sub(lost[i-managed].ValidFrom)
		if apart < lost[i-managed].patience-5*time.Minute {
			j.report("I8", lost[i].ValidFrom, "%d PATs within %s were made and never stored", managed+1, apart)
			return
		}
	}
}

// patience is how long nothing may be made after a PAT that could not be stored: a day, or
// a quarter of what the PAT in force has left.
func (j *judge) patience(t time.Time) time.Duration {
	out := rotation.Day
	for _, s := range j.secrets {
		if p := j.current(s); s.managed && p != nil {
			out = min(out, p.ValidTo.Sub(t)/4)
		}
	}
	return max(out, 15*time.Minute)
}

// isDisturbed reports whether calls went wrong around a time.
func (j *judge) isDisturbed(t time.Time) bool {
	return slices.ContainsFunc(j.Disturbances, func(d Disturbance) bool {
		return !d.Standing && t.After(d.At.Add(-5*time.Minute)) && t.Before(d.Until.Add(orderWithin))
	})
}

// wasRefusedWithin reports whether a refusal that lasts has ended this shortly before the
// end: after a refused store patrol waits.
func (j *judge) wasRefusedWithin(d time.Duration) bool {
	return slices.ContainsFunc(j.Disturbances, func(x Disturbance) bool {
		return x.Standing && x.Until.Add(d).After(j.End)
	})
}

// openness is I9: a vault that is closed over a sweep is told then.
func (j *judge) openness() {
	for _, d := range j.Disturbances {
		sweep := d.At.Truncate(j.Sweep).Add(j.Sweep)
		met := sweep.Add(orderWithin)
		if !d.Closes || met.After(d.Until) || met.After(j.End) {
			continue
		}
		isNotified := slices.ContainsFunc(j.notices, func(n notice) bool {
			return !n.at.Before(d.At) && !n.at.After(met)
		})
		if !isNotified {
			j.report("I9", met, "the vault is closed since %s, and nobody was told", d.At.UTC().Format(time.TimeOnly))
		}
	}
}

// same compares names of users and organizations, whatever they were called before.
func (j *judge) same(a, b string) bool { return strings.EqualFold(j.today(a), j.today(b)) }

func (j *judge) today(name string) string {
	for from, to := range j.Renamed {
		if strings.EqualFold(from, name) {
			return to
		}
	}
	return name
}
