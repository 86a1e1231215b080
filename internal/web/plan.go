package web

import (
	"context"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Plan is what a sweep would do now. It changes nothing.
func (a *API) Plan(ctx context.Context) PlanReport {
	return a.report(a.plan(ctx))
}

// Report is what Plan answers, for a plan that somebody else has made with r.
func Report(r *reconcile.Reconciler, plan rotation.Plan) PlanReport {
	return (&API{Config: Config{Reconciler: r}}).report(plan)
}

func (a *API) report(plan rotation.Plan) PlanReport {
	out := PlanReport{Listing: a.listing(plan), Changes: Changes(plan)}
	for _, e := range a.entries(plan, Filter{}) {
		out.add(e, plan.At)
	}
	return out
}

// Actions of a Change, beside those of the domain that keep their word.
const (
	changeCreate  = "create"
	changeRotate  = string(rotation.Rotate)
	changeRevoke  = string(rotation.Revoke)
	changeSignIn  = "sign-in"
	changeRelease = "release"

	changeRevokeOrphan = "revoke-orphan"
)

// Changes are what a plan would do, by PAT. An empty list: nothing.
func Changes(plan rotation.Plan) []Change {
	out := []Change{}
	for i := range plan.Items {
		it := &plan.Items[i]
		c := Change{PAT: it.Spec.Name, Identity: it.Spec.Identity, Organization: it.Spec.Organization,
			Reason: string(it.Decision.Reason), Message: it.Decision.Message}
		if it.Current != nil {
			c.AuthorizationID = it.Current.Ledger.AuthorizationID
		}
		switch it.Decision.Action {
		case rotation.Rotate:
			c.Action = changeRotate
			if it.Current == nil {
				c.Action = changeCreate
			}
		case rotation.ReportSignIn:
			c.Action = changeSignIn
		case rotation.Revoke:
			// The list of secrets names the replaced PAT, no more.
			c.Action, c.AuthorizationID = changeRevoke, it.Current.Ledger.Previous
		case rotation.Adopt:
			c.Action, c.AuthorizationID = string(it.Decision.Action), it.Decision.PAT.AuthorizationID
		case rotation.Announce, rotation.Refuse, rotation.Recognize, rotation.Relabel:
			c.Action = string(it.Decision.Action)
		}
		if c.Action != "" {
			out = append(out, c)
		}
		out = append(out, revocation(it, plan)...)
	}
	for _, v := range plan.Released {
		out = append(out, Change{Action: changeRelease, PAT: v.Name, Identity: v.Ledger.Identity,
			AuthorizationID: v.Ledger.AuthorizationID, At: timeOrNull(v.Expires),
			Message: "it is no longer in the manifest: patrol lets it run out, and revokes nothing"})
	}
	for _, g := range plan.Garbage {
		c := Change{Action: changeRevokeOrphan, PAT: g.Name, Identity: g.Owner.Identity,
			Organization: g.Owner.Organization, AuthorizationID: g.PAT.AuthorizationID,
			Message: "no version of a secret knows this PAT, which patrol has made"}
		if g.Replaced {
			c.Action, c.Message = changeRevoke, overlapEnds
		}
		if g.Ends.After(plan.At) {
			c.At = timeOrNull(g.Ends)
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(x, y Change) int {
		return strings.Compare(strings.ToLower(x.PAT), strings.ToLower(y.PAT))
	})
	return out
}

const overlapEnds = "the overlap of the replaced PAT ends"

// revocation is one that has its time already.
func revocation(it *rotation.Item, plan rotation.Plan) []Change {
	if it.Current == nil || it.Decision.Action == rotation.Revoke {
		return nil
	}
	l := it.Current.Ledger
	if l.Previous == "" || !l.RevokePreviousAt.After(plan.At) {
		return nil
	}
	return []Change{{Action: changeRevoke, PAT: it.Spec.Name, Identity: it.Spec.Identity,
		Organization: it.Spec.Organization, AuthorizationID: l.Previous,
		Message: overlapEnds, At: timeOrNull(l.RevokePreviousAt)}}
}
