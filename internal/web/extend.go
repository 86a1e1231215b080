package web

import (
	"context"
	"net/http"
	"time"
)

// ExtendRequest says how long a PAT shall live.
type ExtendRequest struct {
	ValidTo *time.Time `json:"validTo"`
}

// Extend moves the end of a PAT; its value stays.
func (a *API) Extend(ctx context.Context, by Caller, name string, validTo time.Time) (Extension, *Problem) {
	validTo = validTo.UTC()
	asked := request{name: "extend", target: name, body: validTo, kept: true}
	return do(ctx, a, by, asked, func(ctx context.Context, _ string) (Extension, *Problem) {
		x, err := a.actions.Extend(ctx, name, validTo, by.Who)
		if err != nil {
			return Extension{}, a.refusalProblem(ctx, err)
		}
		return Extension{PAT: x.Spec.Name, AuthorizationID: x.AuthorizationID, ValidFrom: x.ValidFrom.UTC(),
			ValidTo: x.ValidTo.UTC(), RotateAt: timeOrNull(x.Due), Clamped: x.Clamped}, nil
	})
}

// extendPAT: POST pats/{name}/extend.
func (a *API) extendPAT(w http.ResponseWriter, r *http.Request) {
	var body ExtendRequest
	by, p := a.posted(w, r, &body)
	if p == nil && body.ValidTo == nil {
		p = badBody("validTo is missing: give it a time like 2027-01-31T00:00:00Z.")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.Extend(r.Context(), by, r.PathValue("name"), *body.ValidTo)
	a.reply(w, r, http.StatusOK, out, p)
}
