package administration

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
	Plan    RevocationPlan `json:"plan"`
	Batches []Batch        `json:"batches"`
	Rule    *RuleResult    `json:"rule,omitempty"`
	Revoked int            `json:"revoked"` // PATs that are known to be revoked
	// Verified: Azure DevOps' lists were read again afterwards. Without it,
	// Revoked counts what was accepted.
	Verified bool `json:"verified"`
	// Acts are for the audit log, whatever the outcome.
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
	refused := func(p RevocationPlan, err error) (Result, error) {
		act := newAct(q, ActRevoke).withError(err)
		act.Outcome = Refused
		return Result{Plan: p, Batches: []Batch{}, Acts: []Act{act}}, err
	}
	normal, err := q.normal(r.now())
	if err != nil {
		return refused(RevocationPlan{}, err)
	}
	c, err := r.open(token, askedDigest(normal))
	if err != nil {
		return refused(RevocationPlan{}, err)
	}
	p, err := r.plan(ctx, normal)
	if err != nil {
		return Result{Batches: []Batch{}, Acts: []Act{newAct(q, ActRevoke).withError(err)}}, err
	}
	if !confirms(c, p) {
		return refused(p, refuse(PlanChanged, "a PAT has come or gone since the plan was confirmed: "+
			"read the new plan, and send its confirmation"))
	}
	return r.carryOut(ctx, normal, p)
}

func (r *Revocations) carryOut(ctx context.Context, q Request, p RevocationPlan) (Result, error) {
	o := rotation.Owner{Identity: q.Identity, Organization: q.Organization}
	res := Result{Plan: p, Batches: make([]Batch, len(p.batches))}
	var first error // that failed
	for i, ids := range p.batches {
		b := &res.Batches[i]
		b.AuthorizationIDs, b.Outcome = ids, NotTried
		if failsAgain(ctx, first) {
			continue
		}
		activityID, err := r.organizations.RevokePATs(ctx, o, ids)
		b.Outcome, b.ActivityID = Done, activityID
		if err != nil {
			b.Outcome, b.Class = Failed, rotation.ClassOf(err)
			b.Code, b.Message, b.ActivityID = errorText(err)
			first = cmp.Or(first, err)
		}
	}
	if q.Rule != nil {
		res.Rule = &RuleResult{Rule: *q.Rule, Outcome: NotTried}
		if !failsAgain(ctx, first) {
			first = cmp.Or(first, r.addRule(ctx, o, res.Rule))
		}
	}
	r.verify(ctx, o, &res)
	res.addActs(q)
	return res, res.verdict(first)
}

func (r *Revocations) addRule(ctx context.Context, o rotation.Owner, result *RuleResult) error {
	activityID, err := r.organizations.AddRevocationRule(ctx, o, result.Rule)
	result.Outcome, result.ActivityID = Done, activityID
	if err != nil {
		result.Outcome, result.Class = Failed, rotation.ClassOf(err)
		result.Code, result.Message, result.ActivityID = errorText(err)
	}
	return err
}

// failsAgain reports whether what comes after a failure would fail in the same way.
// Azure DevOps may refuse one batch for what is in it, and take the next.
func failsAgain(ctx context.Context, failure error) bool {
	if ctx.Err() != nil {
		return true
	}
	e := rotation.AsError(failure)
	if e == nil {
		return false
	}
	forAll := []string{NotAdministrator, ScopesMissing, OrganizationUnknown}
	return e.Class == rotation.Throttled || e.Class == rotation.SignIn || slices.Contains(forAll, e.Code)
}

// errorText is what may be shown of an error: the texts of one without a class are not
// known to be safe.
func errorText(err error) (code, message, activityID string) {
	if e := rotation.AsError(err); e != nil {
		return e.Code, e.Message, e.ActivityID
	}
	return "", "the request was cancelled or failed unexpectedly: send it again with the same confirmation", ""
}

// verify reads the lists again: an answer may have been lost after its call took
// effect, and an accepted call may not have ended every PAT.
func (r *Revocations) verify(ctx context.Context, o rotation.Owner, res *Result) {
	valid, err := r.stillListed(ctx, o, res)
	res.Verified = err == nil
	for i := range res.Batches {
		b := &res.Batches[i]
		switch {
		case b.Outcome == NotTried, !res.Verified && b.Outcome == Failed:
			b.Remaining = b.AuthorizationIDs
		case res.Verified:
			b.compare(valid)
		}
		res.Revoked += len(b.AuthorizationIDs) - len(b.Remaining)
	}
}

// stillListed lists the PATs of those users for whom a revocation was tried, as a set
// of lower-case authorization ids.
func (r *Revocations) stillListed(ctx context.Context, o rotation.Owner, res *Result) (map[string]bool, error) {
	valid := map[string]bool{}
	if !slices.ContainsFunc(res.Batches, func(b Batch) bool { return b.Outcome != NotTried }) {
		return valid, nil
	}
	for _, u := range res.Plan.Users {
		if !slices.ContainsFunc(u.PATs, func(p PAT) bool { return !p.Kept }) {
			continue
		}
		pats, err := r.organizations.UserPATs(ctx, o, u.Descriptor)
		if err != nil {
			return nil, err
		}
		for _, p := range pats {
			valid[strings.ToLower(p.AuthorizationID)] = true
		}
	}
	return valid, nil
}

// compare corrects a batch's outcome by what is still listed.
func (b *Batch) compare(valid map[string]bool) {
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

// addActs records every call, and what was left out.
func (res *Result) addActs(q Request) {
	for _, b := range res.Batches {
		a := newAct(q, ActRevoke)
		a.Count, a.Outcome, a.Code, a.ActivityID = len(b.AuthorizationIDs), b.Outcome, b.Code, b.ActivityID
		res.Acts = append(res.Acts, a)
	}
	if x := res.Rule; x != nil {
		a := newAct(q, ActRule)
		a.Target = append(slices.Clone(x.Scopes), "created before "+x.CreatedBefore.Format(time.RFC3339))
		a.Outcome, a.Code, a.ActivityID = x.Outcome, x.Code, x.ActivityID
		res.Acts = append(res.Acts, a)
	}
	if len(res.Acts) == 0 {
		a := newAct(q, ActRevoke) // a repeat that found nothing left
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
