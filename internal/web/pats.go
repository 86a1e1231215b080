package web

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func (a *API) inspect(ctx context.Context, name string) (ManagedPAT, *Problem) {
	item, ok := a.Reconciler.Inspect(ctx, name)
	if !ok {
		return ManagedPAT{}, unknownPAT()
	}
	out := describe(item)
	versions, err := a.Versions.Versions(ctx, item.Spec.Name)
	if err != nil {
		return ManagedPAT{}, a.upstream(ctx, err)
	}
	out.Versions = []VersionInfo{}
	for _, v := range versions {
		l := v.Ledger
		out.Versions = append(out.Versions, VersionInfo{Version: v.ID,
			Latest:  item.Current != nil && v.ID == item.Current.ID,
			Enabled: v.Enabled, Created: v.Created.UTC(), ValidTo: timeOrNull(v.Expires),
			AuthorizationID: l.AuthorizationID, RotationID: l.RotationID, Reason: string(l.Reason),
			RequestedBy: l.RequestedBy, Operation: l.Operation, Previous: l.PreviousVersion,
			RevokePreviousAt: timeOrNull(l.RevokePreviousAt), AnnouncedAt: timeOrNull(l.AnnouncedAt),
			RevokedAt: timeOrNull(l.RevokedAt)})
	}
	out.History = history(versions)
	out.Order = standingOrder(item, versions, a.Now())
	if f := a.failure(ctx, item.Spec.Name); !f.At.IsZero() {
		j := failingOf(f)
		out.Failure = &j
		if out.NeedsPerson == nil {
			out.NeedsPerson = needsPersonFor(f, out.ValidTo)
		}
		if out.Order != nil {
			out.Order.Attempt, out.Order.Problem = j.Attempt, &j.FailureCause
		}
		out.History = append(out.History, Act{At: f.At.UTC(), Act: actFailed, By: byPatrol, Reason: f.Code,
			Message: f.Message})
	}
	slices.SortStableFunc(out.History, func(x, y Act) int { return y.At.Compare(x.At) })
	return out, nil
}

// standingOrder is the order to replace the current PAT, or the one to end a replaced PAT
// that still lives; nil: there is none.
func standingOrder(item rotation.Item, versions []rotation.Version, now time.Time) *StandingOrder {
	if isOrdered(item) {
		return orderOn(item.Current)
	}
	for i := range versions {
		v := &versions[i]
		isCurrent := item.Current != nil && sameToken(v, item.Current)
		lives := v.Ledger.RevokedAt.IsZero() && v.Expires.After(now)
		if !isCurrent && lives && v.Ledger.Facts.Order.RevokePrevious == rotation.Now {
			return orderOn(v)
		}
	}
	return nil
}

func orderOn(v *rotation.Version) *StandingOrder {
	o := v.Ledger.Facts.Order
	return &StandingOrder{By: o.By, Since: o.At.UTC(), RevokePrevious: string(o.RevokePrevious),
		Operation: o.Operation, AuthorizationID: v.Ledger.AuthorizationID}
}

// What an Act of a PAT's history can be, beside those of the versions' own notes.
const (
	actStored      = "stored"
	actAdopted     = "adopted"
	actProvisioned = "provisioned"
	actRotated     = "rotated"
	actRevoked     = "revoked"
	actFailed      = "failed"
)

// history reads from a PAT's versions, newest first, what was done to it.
func history(versions []rotation.Version) []Act {
	out := []Act{}
	for i := range versions {
		v := &versions[i]
		if i > 0 && sameToken(v, &versions[i-1]) {
			continue // stored twice: an answer of the vault was lost
		}
		if !v.Ledger.RevokedAt.IsZero() {
			out = append(out, revoked(v, versions[:i]))
		}
		for _, n := range slices.Backward(rotation.Notes(v.Ledger.History)) {
			x := actOn(v, n.At, n.Act, n.By)
			x.ValidTo = timeOrNull(n.Until)
			out = append(out, x)
		}
		out = append(out, beginning(v)...)
	}
	return out
}

// sameToken reports whether two versions hold the same PAT.
func sameToken(v, newer *rotation.Version) bool {
	id := v.Ledger.AuthorizationID
	return id != "" && strings.EqualFold(id, newer.Ledger.AuthorizationID)
}

func actOn(v *rotation.Version, at time.Time, act, by string) Act {
	return Act{At: at.UTC(), Act: act, By: by, AuthorizationID: v.Ledger.AuthorizationID, Version: v.ID}
}

// revoked is the end of a version's PAT; newer are the versions after it.
func revoked(v *rotation.Version, newer []rotation.Version) Act {
	x := actOn(v, v.Ledger.RevokedAt, actRevoked, byPatrol)
	cause, order := rotation.CauseOfRevocation(*v, newer, v.Ledger.RevokedAt)
	x.Reason = string(cause)
	switch {
	case order == nil:
	case order.ID == v.ID: // the order stands on the version that it is about
		x.By = cmp.Or(order.Ledger.Facts.Order.By, byPatrol)
	default:
		x.By = cmp.Or(order.Ledger.RequestedBy, byPatrol)
	}
	return x
}

// beginning is how a version's PAT came into the vault, newest first.
func beginning(v *rotation.Version) []Act {
	l := v.Ledger
	by := cmp.Or(l.RequestedBy, byPatrol)
	switch {
	case l.RotationID != "":
		x := actOn(v, v.Created, actRotated, by)
		if l.Previous == "" {
			x.Act = actProvisioned
		}
		x.Reason = string(l.Reason)
		return []Act{x}
	case l.Ours():
		return []Act{actOn(v, l.AnnouncedAt, actAdopted, by), actOn(v, v.Created, actStored, "")}
	}
	return []Act{actOn(v, v.Created, actStored, "")}
}

// getPAT: one PAT, its versions and history.
func (a *API) getPAT(w http.ResponseWriter, r *http.Request) {
	out, p := a.Inspect(r.Context(), r.PathValue("name"))
	a.reply(w, r, http.StatusOK, out, p)
}
