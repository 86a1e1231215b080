package simulation

import (
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
)

const (
	// orderWithin is how long an order may take while nothing refuses.
	orderWithin = 20 * time.Minute
	// quarantine is what two kills within a minute of each other cost.
	quarantine = 31 * time.Minute
	// noticeWithin is when people must have been told of an order that is not carried out.
	noticeWithin = 80 * time.Minute
)

// orderedToEnd reports whether somebody had ordered by a time that the PAT of version i
// ends at once. Such an order names that PAT, or one that replaced it: it reaches back.
func (j *judge) orderedToEnd(s *secretHistory, i int, t time.Time) bool {
	return slices.ContainsFunc(j.Orders, func(o Order) bool {
		if !o.Now || o.At.After(t) || !strings.EqualFold(o.PAT, s.name) {
			return false
		}
		p := j.byID[strings.ToLower(o.AuthorizationID)]
		return p != nil && j.lastOf(s, p) >= i
	})
}

// ordered reports whether somebody had ordered by a time to rotate away from a PAT.
func (j *judge) ordered(s *secretHistory, p *patHistory, t time.Time) bool {
	return slices.ContainsFunc(j.Orders, func(o Order) bool {
		isNamed := strings.EqualFold(o.AuthorizationID, p.AuthorizationID)
		return isNamed && strings.EqualFold(o.PAT, s.name) && !o.At.After(t)
	})
}

// command is a part of I13: what the app sends itself asks for no more than people do.
func (j *judge) command(r cloud.Record) {
	c, err := bus.DecodeCommand(r.Message.Body)
	if err != nil || !c.IsOrder() {
		return
	}
	isAsked := slices.ContainsFunc(j.Orders, func(o Order) bool {
		isOfPAT := strings.EqualFold(o.PAT, c.PAT) && strings.EqualFold(o.AuthorizationID, c.From)
		return isOfPAT && !o.At.After(r.At) && (o.Now || c.RevokePrevious != rotation.Now)
	})
	if !isAsked {
		j.report("I13", r.At, "%s: a command orders to rotate away from %s (%s, by %q); nobody asked for that", c.PAT,
			c.From, c.RevokePrevious, c.RequestedBy)
	}
}

// orders is I12: an order that was accepted is carried out, soon if nothing refuses, and
// people are told while it is not.
func (j *judge) orders() {
	for _, o := range j.Orders {
		s, p := j.secrets[strings.ToLower(o.PAT)], j.byID[strings.ToLower(o.AuthorizationID)]
		if o.Accepted.IsZero() || s == nil || p == nil {
			continue
		}
		what := "to replace"
		if o.Now {
			what = "to end"
		}
		done := j.carriedOut(s, p, o)
		if last := j.lastOf(s, p); last >= 0 && s.order[last].lost {
			continue // its secret was purged: I3 says when it ends
		}
		if bound := j.bound(o.Accepted); j.current(s) == p && len(j.specs(s.name, bound)) == 0 {
			continue // its entry has left the manifest: it stands until that comes back
		}
		if done.IsZero() && j.Rest && !j.isReleased(s, p) {
			j.report("I12", j.End, "%s: the order of %s %s %s is forgotten", s.name,
				o.Accepted.UTC().Format(time.TimeOnly), what, p.AuthorizationID)
			continue
		}
		if done.IsZero() {
			done = j.End
		}
		if bound := j.bound(o.Accepted); done.After(bound) {
			j.report("I12", bound, "%s: the order of %s %s %s was carried out %s late", s.name,
				o.Accepted.UTC().Format(time.TimeOnly), what, p.AuthorizationID, done.Sub(bound))
		}
		noticed := o.Accepted.Add(noticeWithin)
		if done.After(noticed) && !j.wasNoticed(s, o.Accepted, noticed) {
			j.report("I12", noticed, "%s: the order of %s %s %s stands, and nobody was told", s.name,
				o.Accepted.UTC().Format(time.TimeOnly), what, p.AuthorizationID)
		}
	}
}

// carriedOut is when an order was; zero: not yet.
func (j *judge) carriedOut(s *secretHistory, p *patHistory, o Order) time.Time {
	end := p.ended
	if end.IsZero() && !p.ValidTo.After(j.End) {
		end = p.ValidTo
	}
	if o.Now {
		return end
	}
	// A person may have put the PAT back since.
	for i, v := range s.order {
		wasOver := !v.replaced.IsZero() && v.replaced.Before(o.At)
		if j.held(v) != p || wasOver {
			continue
		}
		if v == s.latest() {
			return end
		}
		if j.held(s.order[i+1]) != p {
			return v.replaced
		}
	}
	return o.Accepted
}

// isReleased reports whether the manifest does not have the PAT that readers hold any
// more: then nothing takes its place.
func (j *judge) isReleased(s *secretHistory, p *patHistory) bool {
	return j.current(s) == p && len(j.specs(s.name, j.End)) == 0
}

// bound is when an order must have been carried out, given what was made to go wrong
// meanwhile.
func (j *judge) bound(from time.Time) time.Time {
	bound := from.Add(orderWithin)
	var killed time.Time
	for _, d := range j.Disturbances {
		if d.Until.Before(from) || d.At.After(bound) {
			continue
		}
		quiet := d.Until.Add(orderWithin)
		isQuarantined := d.Kill && !killed.IsZero() && d.At.Sub(killed) <= time.Minute
		if isQuarantined {
			quiet = quiet.Add(quarantine)
		}
		if d.Kill {
			killed = d.At
		}
		if quiet.After(bound) {
			bound = quiet
		}
	}
	return bound
}

func (j *judge) wasNoticed(s *secretHistory, from, to time.Time) bool {
	return slices.ContainsFunc(j.notices, func(n notice) bool {
		isAbout := n.pat == "" || strings.EqualFold(n.pat, s.name)
		return isAbout && !n.at.Before(from) && !n.at.After(to)
	})
}
