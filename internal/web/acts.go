package web

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// RotateRequest says how to rotate.
type RotateRequest struct {
	Reason         string `json:"reason,omitempty"`         // free text, for the log
	RevokePrevious string `json:"revokePrevious,omitempty"` // overlap (default) or now
}

const maxReason = 256

// Rotate orders to rotate away from the PAT that is current now. Pressing twice before
// it is done rotates once.
func (a *API) Rotate(ctx context.Context, by Caller, name string, o RotateRequest) (Order, *Problem) {
	return do(ctx, a, by, request{name: "rotate", target: name, body: o}, func(operation string) (Order, *Problem) {
		c := rotation.Command{Reason: rotation.Requested, RevokePrevious: rotation.AfterOverlap, RequestedBy: by.Who,
			Operation: operation}
		switch o.RevokePrevious {
		case "", string(rotation.AfterOverlap):
		case string(rotation.Now):
			c.Reason, c.RevokePrevious = rotation.Compromised, rotation.Now
		default:
			return Order{}, badBody(`revokePrevious must be "overlap" or "now".`)
		}
		if len(o.Reason) > maxReason {
			return Order{}, badBody("reason may have 256 bytes.")
		}
		item, ok := a.Reconciler.Inspect(ctx, name)
		if !ok {
			return Order{}, unknownPAT()
		}
		c.PAT = item.Spec.Name
		if p := a.ready(ctx, item); p != nil {
			return Order{}, p
		}
		if item.Current == nil {
			c.Reason = rotation.Provision
		} else {
			c.From = item.Current.Ledger.AuthorizationID
		}
		if by.Key != "" {
			// Another process may have taken the same order, and it may have been
			// carried out since: the version that came of it says so.
			done, p := a.carriedOut(ctx, c)
			if p != nil {
				return Order{}, p
			}
			if done != nil {
				return *done, nil
			}
		}
		a.Log.InfoContext(ctx, "rotation ordered", "pat", c.PAT, "from", c.From, "by", c.RequestedBy,
			"why", o.Reason, "revokePrevious", string(c.RevokePrevious), "operation", c.Operation)
		if err := a.Outbox.Send(ctx, c); err != nil {
			return Order{}, a.upstream(ctx, err)
		}
		return orderOf(c), nil
	})
}

func orderOf(c rotation.Command) Order {
	return Order{Operation: c.Operation, PAT: c.PAT, Reason: string(c.Reason), From: c.From,
		RevokePrevious: string(c.RevokePrevious), Status: "/api/pats/" + c.PAT}
}

// carriedOut finds the version that an order has led to; nil: none.
func (a *API) carriedOut(ctx context.Context, c rotation.Command) (*Order, *Problem) {
	versions, err := a.Versions.Versions(ctx, c.PAT)
	if err != nil {
		return nil, a.upstream(ctx, err)
	}
	for _, v := range versions {
		if v.Ledger.Operation == c.Operation && v.Ledger.RotationID != "" {
			c.Reason, c.From = v.Ledger.Reason, v.Ledger.Previous
			out := orderOf(c)
			return &out, nil
		}
	}
	return nil, nil
}

// ready refuses what cannot be done before somebody signs in, and what could not be
// looked at.
func (a *API) ready(ctx context.Context, item rotation.Item) *Problem {
	id := a.Identities.State(ctx, item.Spec.Identity)
	if id.Required != "" || item.Err != nil && rotation.ClassOf(item.Err) == rotation.SignIn {
		return &Problem{Status: http.StatusConflict, Type: "sign-in-required", Title: "A person has to sign in",
			Detail:    "The identity " + item.Spec.Identity + " cannot do anything before " + id.User + " signs in.",
			SignInURL: id.SignInURL, Class: string(rotation.SignIn), Code: id.Required}
	}
	if item.Err != nil {
		return a.upstream(ctx, item.Err)
	}
	return nil
}

// Extend moves the end of a PAT; its value stays.
func (a *API) Extend(ctx context.Context, by Caller, name string, validTo time.Time) (Extension, *Problem) {
	validTo = validTo.UTC()
	return do(ctx, a, by, request{name: "extend", target: name, body: validTo}, func(string) (Extension, *Problem) {
		x, err := a.actions.Extend(ctx, name, validTo, by.Who)
		if err != nil {
			return Extension{}, a.refusalProblem(ctx, err)
		}
		return Extension{PAT: x.Spec.Name, AuthorizationID: x.AuthorizationID, ValidFrom: x.ValidFrom.UTC(),
			ValidTo:  x.ValidTo.UTC(),
			RotateAt: timeOrNull(x.Due), Clamped: x.Clamped}, nil
	})
}

// RevokeRequest names a PAT to revoke. Without Identity or Organization every listing
// is searched.
type RevokeRequest struct {
	AuthorizationID string `json:"authorizationId"`
	Organization    string `json:"organization,omitempty"`
	Identity        string `json:"identity,omitempty"`
	// Force revokes it though a secret's readers use it.
	Force bool `json:"force,omitempty"`
}

// Revoke ends one PAT of a signed-in user, managed or not.
func (a *API) Revoke(ctx context.Context, by Caller, o RevokeRequest) (Revocation, *Problem) {
	return do(ctx, a, by, request{name: "revoke", target: o.AuthorizationID, body: o}, func(operation string) (Revocation,
		*Problem) {
		if !authorizationID(o.AuthorizationID) {
			return Revocation{}, badQuery("The authorization id must be a GUID.")
		}
		x, err := a.actions.Revoke(ctx, reconcile.Target{AuthorizationID: strings.ToLower(o.AuthorizationID),
			Identity: o.Identity, Organization: o.Organization,
			Force: o.Force, RequestedBy: by.Who, Operation: operation})
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

// authorizationID knows the form of Azure DevOps' ids.
func authorizationID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return false
		}
	}
	return true
}

// rotatePAT: POST pats/{name}/rotate.
func (a *API) rotatePAT(w http.ResponseWriter, r *http.Request) {
	var body RotateRequest
	by, p := a.posted(w, r, &body)
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.Rotate(r.Context(), by, r.PathValue("name"), body)
	if p == nil {
		w.Header().Set("Location", out.Status)
	}
	a.reply(w, r, http.StatusAccepted, out, p)
}

// ExtendRequest says how long a PAT shall live.
type ExtendRequest struct {
	ValidTo *time.Time `json:"validTo"`
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

// revokePAT: DELETE tokens/{authorizationId}.
func (a *API) revokePAT(w http.ResponseWriter, r *http.Request) {
	by, p := CallerOf(r, "http")
	o := RevokeRequest{AuthorizationID: r.PathValue("authorizationId")}
	for name, values := range r.URL.Query() {
		if p != nil {
			break
		}
		switch {
		case len(values) != 1:
			p = badQuery(clip(name) + " may be given once.")
		case name == "organization":
			o.Organization = values[0]
		case name == "identity":
			o.Identity = values[0]
		case name == "force" && (values[0] == "true" || values[0] == "false"):
			o.Force = values[0] == "true"
		case name == "force":
			p = badQuery("force must be true or false.")
		case name != "code" && name != "clientId":
			p = badQuery("There is no such parameter here.")
		}
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
		w.Header().Set("Location", "/api/pats/"+out.Replacing)
		answer(w, http.StatusAccepted, out)
	default:
		plainHeaders(w.Header())
		w.WriteHeader(http.StatusNoContent)
	}
}

// posted reads who sends a JSON object, and the object.
func (a *API) posted(w http.ResponseWriter, r *http.Request, body any) (Caller, *Problem) {
	by, p := CallerOf(r, "http")
	if p == nil {
		p = readJSON(w, r, body)
	}
	return by, p
}
