package web

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Inspect looks at one PAT: its versions, what was done to it, and what comes next.
func (a *API) Inspect(ctx context.Context, name string) (ManagedPAT, *Problem) {
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
		out.Versions = append(out.Versions, VersionInfo{Version: v.ID, Latest: item.Current != nil &&
			v.ID == item.Current.ID, Enabled: v.Enabled,
			Created: v.Created.UTC(), ValidTo: timeOrNull(v.Expires), AuthorizationID: l.AuthorizationID,
			RotationID: l.RotationID, Reason: string(l.Reason),
			RequestedBy: l.RequestedBy, Operation: l.Operation,
			Previous: l.PreviousVersion, RevokePreviousAt: timeOrNull(l.RevokePreviousAt), AnnouncedAt: timeOrNull(l.AnnouncedAt),
			RevokedAt: timeOrNull(l.RevokedAt)})
	}
	out.History = history(versions)
	for _, f := range a.Reconciler.Failing() {
		if strings.EqualFold(f.PAT, item.Spec.Name) {
			j := failingOf(f)
			out.Failure = &j
			out.History = append(out.History, Act{At: f.At.UTC(), Act: "failed", By: "patrol", Reason: f.Code,
				Message: f.Message})
		}
	}
	slices.SortStableFunc(out.History, func(x, y Act) int { return y.At.Compare(x.At) })
	out.TokenEvents = a.tokenEvents(ctx, item.Spec, versions)
	return out, nil
}

// history tells from a PAT's versions, newest first, what was done to it.
func history(versions []rotation.Version) []Act {
	out := []Act{}
	var next *rotation.Version // the version of another PAT that came after
	for i := range versions {
		v := &versions[i]
		l := v.Ledger
		if i > 0 && l.AuthorizationID != "" && strings.EqualFold(l.AuthorizationID,
			versions[i-1].Ledger.AuthorizationID) {
			continue // the same PAT, stored twice: an answer of the vault was lost
		}
		if i > 0 {
			next = &versions[i-1]
		}
		about := func(at time.Time, act, by string) Act {
			return Act{At: at.UTC(), Act: act, By: by, AuthorizationID: l.AuthorizationID, Version: v.ID}
		}
		if !l.RevokedAt.IsZero() {
			x := about(l.RevokedAt, "revoked", "patrol")
			switch {
			case !v.Expires.IsZero() && !v.Expires.After(l.RevokedAt):
				x.Reason = string(rotation.Expired)
			case next != nil && (next.Ledger.Reason == rotation.Compromised || !next.Ledger.RevokePreviousAt.IsZero() &&
				next.Ledger.RevokePreviousAt.Before(next.Created.Add(time.Minute))):
				x.Reason, x.By = string(rotation.CauseRequested), cmp.Or(next.Ledger.RequestedBy, "patrol")
			default:
				x.Reason = string(rotation.OverlapEnded)
			}
			out = append(out, x)
		}
		for _, n := range slices.Backward(rotation.Notes(l.History)) {
			x := about(n.At, n.Act, n.By)
			x.ValidTo = timeOrNull(n.Until)
			out = append(out, x)
		}
		switch {
		case l.RotationID != "":
			x := about(v.Created, "rotated", cmp.Or(l.RequestedBy, "patrol"))
			if x.Reason = string(l.Reason); l.Previous == "" {
				x.Act = "provisioned"
			}
			out = append(out, x)
		case l.Ours():
			out = append(out, about(l.AnnouncedAt, "adopted", cmp.Or(l.RequestedBy, "patrol")),
				about(v.Created, "stored", ""))
		default:
			out = append(out, about(v.Created, "stored", ""))
		}
	}
	return out
}

const (
	// auditDays is how far back the organization's audit log is asked, and
	// auditTimeout how long: it is a look aside.
	auditDays    = 30
	auditLimit   = 200
	auditTimeout = 10 * time.Second
)

// tokenEvents are what the organization's own audit log says of this PAT's versions;
// nil where nobody may read it.
func (a *API) tokenEvents(ctx context.Context, s rotation.Spec,
	versions []rotation.Version) []administration.AuditEntry {
	if a.Audit == nil {
		return nil
	}
	ids := map[string]bool{}
	for _, v := range versions {
		if id := v.Ledger.AuthorizationID; id != "" {
			ids[strings.ToLower(id)] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	page, err := a.Audit(ctx, s.Owner(), administration.AuditQuery{From: a.Now().AddDate(0, 0, -auditDays),
		Limit: auditLimit})
	if err != nil {
		a.Log.DebugContext(ctx, "the organization's audit log is left out", "organization", s.Organization, "class",
			string(rotation.ClassOf(err)))
		return nil
	}
	var out []administration.AuditEntry
	for _, e := range page.Entries {
		if ids[strings.ToLower(e.AuthorizationID)] {
			out = append(out, e)
		}
	}
	return out
}

// getPAT: one PAT, its versions and history.
func (a *API) getPAT(w http.ResponseWriter, r *http.Request) {
	out, p := a.Inspect(r.Context(), r.PathValue("name"))
	a.reply(w, r, http.StatusOK, out, p)
}
