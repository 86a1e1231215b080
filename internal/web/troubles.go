package web

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Trouble is what patrol cannot observe, or what it does not act on before a person has
// said something.
type Trouble struct {
	Scope        string     `json:"scope"`
	Identity     string     `json:"identity,omitempty"`
	Organization string     `json:"organization,omitempty"`
	Since        time.Time  `json:"since"`
	PATs         int        `json:"pats"`
	NextEnd      *time.Time `json:"nextEnd"`
	FailureCause
}

// MassChange is how many of an owner's PATs are gone, or are not what the manifest asks
// for, so that a person has to say whether that is meant.
type MassChange struct {
	Identity     string `json:"identity"`
	Organization string `json:"organization"`
	PATs         int    `json:"pats"`
	Of           int    `json:"of"`
	// Accept is what accepts it, as acceptMassChange.
	Accept string `json:"accept"`
}

func troublesOf(all []rotation.CheckIncomplete) []Trouble {
	out := []Trouble{}
	for _, x := range all {
		out = append(out, Trouble{Scope: string(x.Scope), Identity: x.Identity, Organization: x.Organization,
			Since: x.Since.UTC(), PATs: x.PATs, NextEnd: timeOrNull(x.NextEnd),
			FailureCause: FailureCause{string(x.Class), x.Code, x.Message}})
	}
	return out
}

func massChanges(plan rotation.Plan) []MassChange {
	out := []MassChange{}
	for _, m := range plan.MassChanges {
		id := events.CheckIncompleteID(string(rotation.ScopeOrganization), m.Owner.Identity, m.Owner.Organization,
			rotation.MassChangeWaits, plan.At, plan.At)
		out = append(out, MassChange{Identity: m.Owner.Identity, Organization: m.Owner.Organization, PATs: m.PATs,
			Of: m.Of, Accept: id})
	}
	return out
}

const (
	// acceptedFor is how long a person's word about a mass change holds.
	acceptedFor = rotation.Day
	// oldestAccepted is how old the event may be whose id is given: it comes every day.
	oldestAccepted = 7 * rotation.Day
)

// acceptance is what a person accepts by the id of an event. It holds for as many PATs as
// the event said, if this process has sent it, else for as many as there are now.
func (a *API) acceptance(ctx context.Context, id string) (reconcile.Acceptance, *Problem) {
	owner, since, ok := a.readMassChange(id)
	if !ok {
		return reconcile.Acceptance{}, badBody("acceptMassChange must be the id of an event patrol.check.incomplete " +
			"with the code mass-change of the last seven days, about an identity and organization of the manifest.")
	}
	pats := 0
	for _, x := range a.troubles(ctx) {
		isIt := x.Code == rotation.MassChangeWaits && x.Identity == owner.Identity &&
			strings.EqualFold(x.Organization, owner.Organization)
		if isIt && x.Since.Unix() == since.Unix() {
			pats = x.PATs
		}
	}
	if pats == 0 {
		for _, m := range a.Reconciler.Plan(ctx).MassChanges {
			if m.Owner == owner {
				pats = m.PATs
			}
		}
	}
	if pats == 0 {
		return reconcile.Acceptance{}, &Problem{Status: http.StatusConflict, Type: typeNoMassChange,
			Title: "There is no mass change to accept",
			Detail: "No mass change of the PATs of " + owner.Identity + " in " + owner.Organization +
				" waits for anybody."}
	}
	return reconcile.Acceptance{Owner: owner,
		MassChange: rotation.MassChange{PATs: pats, Until: a.Now().Add(acceptedFor)}}, nil
}

// readMassChange reads organization/<identity>/<organization>/mass-change/<since>/<day>.
func (a *API) readMassChange(id string) (owner rotation.Owner, since time.Time, ok bool) {
	parts := strings.Split(id, "/")
	if len(parts) != 6 {
		return owner, since, false
	}
	seconds, err := strconv.ParseInt(parts[4], 10, 64)
	day, err2 := strconv.ParseInt(parts[5], 10, 64)
	if err != nil || err2 != nil {
		return owner, since, false
	}
	since = time.Unix(seconds, 0).UTC()
	published := time.Unix(day*int64(rotation.Day/time.Second), 0)
	age := a.Now().Sub(published)
	isOfNow := age > -rotation.Day && age < oldestAccepted+rotation.Day && !since.After(a.Now())
	if !isOfNow || since.After(published.Add(rotation.Day)) {
		return owner, since, false
	}
	for _, s := range a.Reconciler.Specs() {
		o := s.Owner()
		// The id as patrol writes it, and nothing that only looks like it.
		own := events.CheckIncompleteID(string(rotation.ScopeOrganization), o.Identity, o.Organization,
			rotation.MassChangeWaits, since, published)
		if own == id {
			return o, since, true
		}
	}
	return owner, since, false
}
