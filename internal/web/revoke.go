package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// RevokeRequest names a PAT to revoke. Without Identity or Organization the PATs of
// all are searched.
type RevokeRequest struct {
	AuthorizationID string `json:"authorizationId"`
	Organization    string `json:"organization,omitempty"`
	Identity        string `json:"identity,omitempty"`
	// Force revokes it though a secret's readers use it.
	Force bool `json:"force,omitempty"`
}

// Revoke ends one PAT of a signed-in user, managed or not.
func (a *API) Revoke(ctx context.Context, by Caller, o RevokeRequest) (Revocation, *Problem) {
	asked := request{name: "revoke", target: o.AuthorizationID, body: o, kept: true}
	return do(ctx, a, by, asked, func(ctx context.Context, operation string) (Revocation, *Problem) {
		if !rotation.IsGUID(o.AuthorizationID) {
			return Revocation{}, badQuery("The authorization id must be a GUID.")
		}
		x, err := a.actions.Revoke(ctx, reconcile.Target{AuthorizationID: strings.ToLower(o.AuthorizationID),
			Identity: o.Identity, Organization: o.Organization, Force: o.Force, RequestedBy: by.Who,
			Operation: operation})
		if err != nil {
			return Revocation{}, a.refusalProblem(ctx, err)
		}
		out := Revocation{AuthorizationID: o.AuthorizationID, Identity: x.Owner.Identity,
			Organization: x.Owner.Organization, Already: x.Already, Replacing: x.Replacing}
		if out.Replacing != "" {
			out.Operation = operation
		}
		return out, nil
	})
}

// revokePAT: DELETE tokens/{authorizationId}.
func (a *API) revokePAT(w http.ResponseWriter, r *http.Request) {
	by, p := CallerOf(r, triggerHTTP)
	o := RevokeRequest{AuthorizationID: r.PathValue("authorizationId")}
	if p == nil {
		p = o.readQuery(r.URL.Query())
	}
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.Revoke(r.Context(), by, o)
	switch {
	case p != nil:
		fail(w, *p)
	case out.Replacing != "":
		w.Header().Set("Location", linkTo(out.Replacing))
		answer(w, http.StatusAccepted, out)
	default:
		plainHeaders(w.Header())
		w.WriteHeader(http.StatusNoContent)
	}
}

func (o *RevokeRequest) readQuery(query url.Values) *Problem {
	for name, values := range query {
		switch {
		case len(values) != 1:
			return badQuery(clip(name) + " may be given once.")
		case name == "organization":
			o.Organization = values[0]
		case name == "identity":
			o.Identity = values[0]
		case name == "force" && (values[0] == "true" || values[0] == "false"):
			o.Force = values[0] == "true"
		case name == "force":
			return badQuery("force must be true or false.")
		case !isKeyParameter(name):
			return badQuery(noParameter(name))
		}
	}
	return nil
}
