package web

import (
	"context"
	"net/http"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// RotateRequest says how to rotate.
type RotateRequest struct {
	Reason         string `json:"reason,omitempty"`         // free text, for the log
	RevokePrevious string `json:"revokePrevious,omitempty"` // overlap (default) or now
}

const maxReason = 256

// Rotate orders to rotate away from the PAT that is current now. The order is written
// onto the version that holds it, and stands until it has been carried out. Pressing twice
// before it is done rotates once.
func (a *API) Rotate(ctx context.Context, by Caller, name string, o RotateRequest) (Order, *Problem) {
	asked := request{name: "rotate", target: name, body: o}
	return do(ctx, a, by, asked, func(ctx context.Context, operation string) (Order, *Problem) {
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
			return Order{}, badBody("reason may have 256 bytes at most.")
		}
		item, ok := a.Reconciler.Inspect(ctx, name)
		if !ok {
			return Order{}, unknownPAT()
		}
		c.PAT = item.Spec.Name
		if p := a.ready(ctx, item); p != nil {
			return Order{}, p
		}
		if item.Decision.Action == rotation.Refuse && item.Decision.Code == rotation.NotAPAT {
			// Nobody knows which PAT is meant, and the value is not patrol's to replace.
			return Order{}, a.refusalProblem(ctx, &reconcile.Refusal{Code: reconcile.NotOurs, PAT: c.PAT, Managed: true,
				Message: item.Decision.Message})
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
		// From here on the order stands, whatever becomes of the command.
		if err := a.actions.Order(ctx, c, item.Current); err != nil {
			return Order{}, a.upstream(ctx, err)
		}
		return orderOf(c), nil
	})
}

func orderOf(c rotation.Command) Order {
	return Order{Operation: c.Operation, PAT: c.PAT, Reason: string(c.Reason), From: c.From,
		RevokePrevious: string(c.RevokePrevious), Status: linkTo(c.PAT)}
}

// carriedOut is the answer to an order that has been carried out; nil: it has not.
func (a *API) carriedOut(ctx context.Context, c rotation.Command) (*Order, *Problem) {
	v, p := a.madeBy(ctx, c.PAT, c.Operation)
	if v == nil {
		return nil, p
	}
	c.Reason, c.From = v.Ledger.Reason, v.Ledger.Previous
	out := orderOf(c)
	return &out, nil
}

// madeBy finds the version that an operation has led to; nil: none. The tag that names
// the operation gives way where there is no room; the facts stay.
func (a *API) madeBy(ctx context.Context, name, operation string) (*rotation.Version, *Problem) {
	versions, err := a.Versions.Versions(ctx, name)
	if err != nil {
		return nil, a.upstream(ctx, err)
	}
	done := rotation.ShortOperation(operation)
	for i := range versions {
		l := &versions[i].Ledger
		isIts := l.Facts.Done == done || l.Operation == operation
		if isIts && l.RotationID != "" {
			return &versions[i], nil
		}
	}
	return nil, nil
}

// ready refuses what cannot be done before somebody signs in, and what could not be
// observed.
func (a *API) ready(ctx context.Context, item rotation.Item) *Problem {
	id := a.Identities.State(ctx, item.Spec.Identity)
	needsSignIn := item.Err != nil && rotation.ClassOf(item.Err) == rotation.SignIn
	if id.Required != "" || needsSignIn {
		return &Problem{Status: http.StatusConflict, Type: typeSignInRequired, Title: titleSignIn,
			Detail: "patrol cannot act as the identity " + item.Spec.Identity + " before " + id.User +
				" has signed in.",
			SignInURL: id.SignInURL, Class: string(rotation.SignIn), Code: id.Required}
	}
	if item.Err != nil {
		return a.upstream(ctx, item.Err)
	}
	return nil
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
