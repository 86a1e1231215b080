package web

import (
	"context"
	"net/http"
	"time"
)

// Restoration is an earlier PAT that is current again.
type Restoration struct {
	PAT             string `json:"pat"`
	AuthorizationID string `json:"authorizationId"`
	Version         string `json:"version"` // the new one, which holds it
	// ReplacedUntil is when the PAT that was current before ends.
	ReplacedUntil time.Time `json:"replacedUntil"`
}

// Restore makes the PAT before the current one current again, while it lives.
func (a *API) Restore(ctx context.Context, by Caller, name string) (Restoration, *Problem) {
	asked := request{name: "restore", target: name, kept: true}
	return do(ctx, a, by, asked, func(ctx context.Context, operation string) (Restoration, *Problem) {
		s, ok := a.Reconciler.Spec(name)
		if !ok {
			return Restoration{}, unknownPAT()
		}
		if by.Key != "" {
			// Another process may have done it: once more would undo it.
			v, p := a.madeBy(ctx, s.Name, operation)
			if p != nil {
				return Restoration{}, p
			}
			if v != nil {
				return Restoration{PAT: s.Name, AuthorizationID: v.Ledger.AuthorizationID, Version: v.ID,
					ReplacedUntil: v.Ledger.RevokePreviousAt.UTC()}, nil
			}
		}
		x, err := a.actions.Restore(ctx, s.Name, by.Who, operation)
		if err != nil {
			return Restoration{}, a.refusalProblem(ctx, err)
		}
		return Restoration{PAT: x.Spec.Name, AuthorizationID: x.AuthorizationID, Version: x.Version,
			ReplacedUntil: x.ReplacedUntil.UTC().Truncate(time.Second)}, nil
	})
}

// restorePAT: POST pats/{name}/restore.
func (a *API) restorePAT(w http.ResponseWriter, r *http.Request) {
	var body struct{}
	by, p := a.posted(w, r, &body)
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.Restore(r.Context(), by, r.PathValue("name"))
	a.reply(w, r, http.StatusOK, out, p)
}
