package administration

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Batch is what became of one call's worth of PATs.
type Batch struct {
	AuthorizationIDs []string `json:"authorizationIds"`
	// Outcome is Done, Pending, Failed or NotTried.
	Outcome Outcome `json:"outcome"`
	// Remaining are the PATs of the batch that are not known to be revoked.
	Remaining  []string       `json:"remaining,omitempty"`
	Code       string         `json:"code,omitempty"`
	Message    string         `json:"message,omitempty"`
	Class      rotation.Class `json:"class,omitempty"`
	ActivityID string         `json:"activityId,omitempty"`
}

// RuleResult is what became of the revocation rule.
type RuleResult struct {
	Rule
	Outcome    Outcome        `json:"outcome"` // Done, Failed or NotTried
	Code       string         `json:"code,omitempty"`
	Message    string         `json:"message,omitempty"`
	Class      rotation.Class `json:"class,omitempty"`
	ActivityID string         `json:"activityId,omitempty"`
}

// Result is what an execution has done.
type Result struct {
	// Plan is what was to be done. If it was refused as changed, it is the
	// plan of now, with a confirmation of its own.
	Plan    RevocationPlan        `json:"plan"`
	Batches []Batch     `json:"batches"`
	Rule    *RuleResult `json:"rule,omitempty"`
	Revoked int         `json:"revoked"` // PATs that are known to be revoked
	// Verified: Azure DevOps' lists were read again afterwards. Without it,
	// Revoked counts what was accepted.
	Verified bool `json:"verified"`
	// Acts are for the log, whatever the outcome.
	Acts []Act `json:"-"`
}

// Execute carries out what was confirmed. It plans anew and refuses if a PAT has
// come or gone since, except that what an earlier try with the same confirmation
// has revoked may be gone: so a repeat goes on where that one stopped, and is a
// success if nothing is left.
//
// An error of code Incomplete comes with a Result that says what was revoked and
// what was not; with any other error nothing was done.
func (r *Revocations) Execute(ctx context.Context, q Request, token string) (Result, error) {
	refusal := r.newAct(q, ActRevoke)
	refused := func(p RevocationPlan, err error) (Result, error) {
		refusal.Outcome = Refused
		return Result{Plan: p, Batches: []Batch{}, Acts: []Act{refusal.failed(err)}}, err
	}
	q, err := q.normal(r.now())
	if err != nil {
		return refused(RevocationPlan{}, err)
	}
	if token == "" {
		return refused(RevocationPlan{},
			refuse(ConfirmationMissing,
				"this needs a confirmation: ask for the plan first, and send its confirmation along"))
	}
	c, err := open(r.key, token)
	switch {
	case err != nil:
		return refused(RevocationPlan{}, refuse(ConfirmationInvalid, "the confirmation is not one that this patrol has given"))
	case !r.now().Before(c.expires):
		return refused(RevocationPlan{}, refuse(ConfirmationExpired, "the confirmation is too old: ask for the plan again"))
	case c.asked != askedDigest(q):
		return refused(RevocationPlan{}, refuse(ConfirmationInvalid, "the confirmation belongs to another request"))
	}
	p, err := r.plan(ctx, q)
	if err != nil {
		return Result{Batches: []Batch{}, Acts: []Act{refusal.failed(err)}}, err
	}
	if !c.confirms(p.asked, p.batches) {
		return refused(p,
			refuse(PlanChanged,
				"the PATs are not those that were confirmed: look at the plan of now, and confirm that"))
	}
	return r.carryOut(ctx, q, p)
}

func (r *Revocations) carryOut(ctx context.Context, q Request, p RevocationPlan) (Result, error) {
	o := rotation.Owner{Identity: q.Identity, Organization: q.Organization}
	res := Result{Plan: p, Batches: make([]Batch, len(p.batches))}
	var first error // that failed
	for i, ids := range p.batches {
		b := &res.Batches[i]
		b.AuthorizationIDs, b.Outcome = ids, NotTried
		if wouldFailAgain(ctx, first) {
			continue
		}
		var err error
		b.ActivityID, err = r.organizations.RevokePATs(ctx, o, ids)
		b.Outcome = Done
		if err != nil {
			b.Outcome, b.Class = Failed, rotation.ClassOf(err)
			b.Code, b.Message, b.ActivityID = errorText(err)
			if first == nil {
				first = err
			}
		}
	}
	var ruleErr error
	if q.Rule != nil {
		res.Rule = &RuleResult{Rule: *q.Rule, Outcome: NotTried}
		if !wouldFailAgain(ctx, first) {
			res.Rule.ActivityID, ruleErr = r.organizations.AddRevocationRule(ctx, o, *q.Rule)
			res.Rule.Outcome = Done
			if ruleErr != nil {
				res.Rule.Outcome, res.Rule.Class = Failed, rotation.ClassOf(ruleErr)
				res.Rule.Code, res.Rule.Message, res.Rule.ActivityID = errorText(ruleErr)
				if first == nil {
					first = ruleErr
				}
			}
		}
	}
	r.verify(ctx, o, &res)
	res.addActs(r, q)
	return res, res.verdict(first)
}

// hopeless reports whether what comes after a failure would fail in the same way.
// Azure DevOps may refuse one batch for what is in it, and take the next.
func wouldFailAgain(ctx context.Context, failure error) bool {
	if ctx.Err() != nil {
		return true
	}
	e := rotation.AsError(failure)
	return e != nil && (e.Class == rotation.Throttled || e.Class == rotation.SignIn ||
		slices.Contains([]string{NotAdministrator, ScopesMissing, OrganizationUnknown}, e.Code))
}

// said is what an error may tell: the texts of one without a class are not known
// to be safe.
func errorText(err error) (code, message, activityID string) {
	if e := rotation.AsError(err); e != nil {
		return e.Code, e.Message, e.ActivityID
	}
	return "", "patrol gave up", ""
}

// verify reads the lists again: an answer may have been lost after its call took
// effect, and an accepted call may not have ended every PAT.
func (r *Revocations) verify(ctx context.Context, o rotation.Owner, res *Result) {
	valid := map[string]bool{}
	res.Verified = true
	tried := slices.ContainsFunc(res.Batches, func(b Batch) bool { return b.Outcome != NotTried })
	for _, u := range res.Plan.Users {
		if !tried || !slices.ContainsFunc(u.PATs, func(p PAT) bool { return !p.Kept }) {
			continue
		}
		pats, err := r.organizations.UserPATs(ctx, o, u.Descriptor)
		if err != nil {
			res.Verified = false
			break
		}
		for _, p := range pats {
			valid[strings.ToLower(p.AuthorizationID)] = true
		}
	}
	for i := range res.Batches {
		b := &res.Batches[i]
		switch {
		case b.Outcome == NotTried, !res.Verified && b.Outcome == Failed:
			b.Remaining = b.AuthorizationIDs
		case res.Verified:
			for _, id := range b.AuthorizationIDs {
				if valid[id] {
					b.Remaining = append(b.Remaining, id)
				}
			}
			switch {
			case len(b.Remaining) == 0:
				b.Outcome = Done // though its answer may have been lost
			case b.Outcome == Done:
				b.Outcome = Pending
			}
		}
		res.Revoked += len(b.AuthorizationIDs) - len(b.Remaining)
	}
}

// record writes down every call, and what was left out.
func (res *Result) addActs(r *Revocations, q Request) {
	for _, b := range res.Batches {
		a := r.newAct(q, ActRevoke)
		a.AuthorizationIDs, a.Outcome, a.Code, a.ActivityID = b.AuthorizationIDs, b.Outcome, b.Code, b.ActivityID
		res.Acts = append(res.Acts, a)
	}
	if x := res.Rule; x != nil {
		a := r.newAct(q, ActRule)
		a.Target = append(slices.Clone(x.Scopes), "created before "+x.CreatedBefore.Format("2006-01-02T15:04:05Z07:00"))
		a.Outcome, a.Code, a.ActivityID = x.Outcome, x.Code, x.ActivityID
		res.Acts = append(res.Acts, a)
	}
	if len(res.Acts) == 0 {
		a := r.newAct(q, ActRevoke) // a repeat that found nothing left
		a.Outcome = Done
		res.Acts = append(res.Acts, a)
	}
}

// verdict is nil if everything was done, or accepted.
func (res *Result) verdict(first error) error {
	var left, undone int
	for _, b := range res.Batches {
		if b.Outcome == Failed || b.Outcome == NotTried {
			left++
			undone += len(b.Remaining)
		}
	}
	rule := ""
	if x := res.Rule; x != nil && x.Outcome != Done {
		rule = "; the revocation rule was not made"
	}
	if left == 0 && rule == "" {
		return nil
	}
	e := &rotation.Error{
		Class: rotation.ClassOf(first), Code: Incomplete, Err: first,
		Message: fmt.Sprintf("%d of %d PATs were not revoked%s", undone, res.Plan.Count, rule),
	}
	if cause := rotation.AsError(first); cause != nil {
		e.After, e.ActivityID = cause.After, cause.ActivityID
		e.Message += ": " + cause.Error()
	}
	return e
}
