package web

import (
	"context"
	"net/http"
	"strings"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// Revocations plans and carries out an administrator's revocations;
// *administration.Revocations does.
type Revocations interface {
	Plan(ctx context.Context, q administration.Request) (administration.RevocationPlan, error)
	Execute(ctx context.Context, q administration.Request, confirmation string) (administration.Result, error)
}

// UserRevocation asks for the revocation of users' PATs. Without a confirmation it
// only asks for the plan, which has one.
type UserRevocation struct {
	administration.Request
	Confirmation string `json:"confirmation,omitempty"`
}

// UserRevocationReport is what would be revoked, or has been.
type UserRevocationReport struct {
	Executed bool                          `json:"executed"`
	Plan     administration.RevocationPlan `json:"plan"`
	Batches  []administration.Batch        `json:"batches,omitempty"`
	Rule     *administration.RuleResult    `json:"rule,omitempty"`
	Revoked  int                           `json:"revoked"`
	Verified bool                          `json:"verified"`
}

// RevokeUsers plans the revocation of users' PATs, or carries out what a plan's
// confirmation permits.
func (a *API) RevokeUsers(ctx context.Context, by Caller, o UserRevocation) (UserRevocationReport, *Problem) {
	// A repeat may well be carried out again: it goes on where the first one stopped.
	asked := request{name: "plan-revocation", target: strings.Join(o.Users, " "), body: o, repeatable: true}
	if o.Confirmation != "" {
		asked.name = "revoke-users"
	}
	return do(ctx, a, by, asked, func(ctx context.Context, _ string) (UserRevocationReport, *Problem) {
		if a.Administration == nil {
			return UserRevocationReport{}, noAdministrator()
		}
		r, err := a.Administration(ctx)
		if err != nil {
			return UserRevocationReport{}, a.upstream(ctx, err)
		}
		q := o.Request
		q.RequestedBy, q.Trigger = by.Who, by.Trigger
		if o.Confirmation == "" {
			plan, err := r.Plan(ctx, q)
			if err != nil {
				return UserRevocationReport{}, a.revocationProblem(ctx, err)
			}
			return UserRevocationReport{Plan: plan}, nil
		}
		result, err := r.Execute(ctx, q, o.Confirmation)
		for _, x := range result.Acts {
			rotation.Record{Who: x.RequestedBy, Trigger: x.Trigger, Act: x.Act, Target: strings.Join(x.Target, " "),
				Outcome: string(x.Outcome), Activity: x.ActivityID}.
				Write(ctx, a.Log, "organization", x.Organization, "identity", x.Identity, "count", x.Count,
					"code", x.Code)
		}
		out := UserRevocationReport{Executed: true, Plan: result.Plan, Batches: result.Batches, Rule: result.Rule,
			Revoked: result.Revoked, Verified: result.Verified}
		if err != nil {
			p := a.revocationProblem(ctx, err)
			switch p.Type {
			case typePlanChanged:
				p.Plan = &result.Plan
			case typeIncomplete:
				p.Result = &out
			}
			return UserRevocationReport{}, p
		}
		return out, nil
	})
}

// revocationProblem maps the codes of package administration.
func (a *API) revocationProblem(ctx context.Context, err error) *Problem {
	e := rotation.AsError(err)
	if e == nil {
		return a.upstream(ctx, err)
	}
	p := &Problem{Detail: e.Message, Class: string(e.Class), Code: e.Code, ActivityID: e.ActivityID}
	switch e.Code {
	case administration.InvalidRequest:
		p.Status, p.Type, p.Title = http.StatusBadRequest, typeBadRequest, "The body cannot be used"
	case administration.ConfirmationMissing, administration.ConfirmationInvalid, administration.ConfirmationExpired:
		p.Status, p.Type, p.Title = http.StatusUnprocessableEntity, typeConfirmation, titleConfirmation
	case administration.PlanChanged:
		p.Status, p.Type, p.Title = http.StatusConflict, typePlanChanged,
			"What would be revoked is not what was confirmed"
	case administration.NotAdministrator, administration.ScopesMissing:
		p.Status, p.Type, p.Title = http.StatusForbidden, typeNotAdmin, "The identity may not do this"
	case administration.UserUnknown, administration.OrganizationUnknown:
		p.Status, p.Type, p.Title = http.StatusUnprocessableEntity, typeUnknownMember,
			"Azure DevOps knows no such user or organization"
	case administration.Incomplete:
		p.Status, p.Type, p.Title = http.StatusBadGateway, typeIncomplete, "Not everything was revoked"
	default:
		return a.upstream(ctx, err)
	}
	return p
}

// revokeUserPATs: POST revocations.
func (a *API) revokeUserPATs(w http.ResponseWriter, r *http.Request) {
	var body UserRevocation
	by, p := a.posted(w, r, &body)
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.RevokeUsers(r.Context(), by, body)
	a.reply(w, r, http.StatusOK, out, p)
}
