package web

import (
	"context"
	"net/http"
	"time"
)

// OverlapRequest says until when a replaced PAT shall live.
type OverlapRequest struct {
	Until *time.Time `json:"until"`
}

// Overlap is an overlap that is under way.
type Overlap struct {
	PAT             string    `json:"pat"`
	AuthorizationID string    `json:"authorizationId"` // of the replaced PAT
	Version         string    `json:"version"`         // that holds it
	Until           time.Time `json:"until"`
}

// SetOverlap lengthens the overlap that is under way.
func (a *API) SetOverlap(ctx context.Context, by Caller, name string, until time.Time) (Overlap, *Problem) {
	until = until.UTC()
	asked := request{name: "set-overlap", target: name, body: until, kept: true}
	return do(ctx, a, by, asked, func(ctx context.Context, _ string) (Overlap, *Problem) {
		x, err := a.actions.SetOverlap(ctx, name, until)
		if err != nil {
			return Overlap{}, a.refusalProblem(ctx, err)
		}
		return Overlap{PAT: x.Spec.Name, AuthorizationID: x.AuthorizationID, Version: x.Version,
			Until: x.Until.UTC()}, nil
	})
}

// setOverlap: POST pats/{name}/overlap.
func (a *API) setOverlap(w http.ResponseWriter, r *http.Request) {
	var body OverlapRequest
	by, p := a.posted(w, r, &body)
	if p == nil && body.Until == nil {
		p = badBody("until is missing: give it a time like 2027-01-31T00:00:00Z.")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.SetOverlap(r.Context(), by, r.PathValue("name"), *body.Until)
	a.reply(w, r, http.StatusOK, out, p)
}
