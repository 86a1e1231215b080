package web

import (
	"context"
	"strings"

	"github.com/azure-patrol/patrol/internal/administration"
)

// What only administrators may do on the page.

// usersOf is a list of users in one form: one a line, and no empty one.
func usersOf(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if user := strings.TrimSpace(line); user != "" {
			out = append(out, user)
		}
	}
	return strings.Join(out, "\n")
}

func (act action) userRevocation() UserRevocation {
	q := administration.Request{Organization: act.Organization, Identity: act.Identity, KeepManaged: act.KeepManaged}
	if act.Users != "" {
		q.Users = strings.Split(act.Users, "\n")
	}
	return UserRevocation{Request: q, Confirmation: act.Plan}
}

// consequencesForUsers shows the plan of a revocation. Its confirmation goes into the form:
// what is revoked then is what was shown now, or nothing.
func (d *dashboard) consequencesForUsers(ctx context.Context, by Caller, act action) (*confirmView, action, *Problem) {
	act.Plan = ""
	by.Key = "" // a plan may be asked for again
	out, p := d.RevokeUsers(ctx, by, act.userRevocation())
	if p != nil {
		return nil, act, p
	}
	plan := out.Plan
	act.Plan = plan.Confirmation
	v := &confirmView{Title: "Nothing to revoke", Users: &plan, Facts: []fact{
		{"Organization", act.Organization, false}, {"Administrator's identity", act.Identity, false}}}
	for _, warning := range plan.Warnings {
		v.Text = append(v.Text, sentence(warning))
	}
	if plan.Confirmation == "" {
		v.Text = append(v.Text, "There is no PAT that could be revoked.")
		return v, act, nil
	}
	count := count1(plan.Count, "PAT")
	v.Title, v.Button, v.Danger = "Revoke "+count+"?", "Revoke "+count, true
	v.Text = append(v.Text, "Whoever uses one of these PATs fails at once.", "A revoked PAT cannot be brought back.")
	return v, act, nil
}

func (d *dashboard) revokeUsers(ctx context.Context, by Caller, act action) *dashboardPage {
	out, p := d.RevokeUsers(ctx, by, act.userRevocation())
	if p != nil {
		return d.refuse(ctx, p)
	}
	n := &notice{Title: count1(out.Revoked, "PAT") + " revoked",
		Text: []string{"Azure DevOps does not list any of them any more."}}
	if !out.Verified {
		n.Text = []string{
			"Azure DevOps could not be asked whether it still lists some of them: ask for the plan again."}
	}
	return d.withNotice(ctx, n)
}

func consequencesOfSigningOut() *confirmView {
	return &confirmView{Title: "Sign everybody out?", Button: "Sign everybody out", Danger: true, Text: []string{
		"Every session of this page ends within a minute, yours too, whichever process of the app has given it out.",
		"Do this if a session may have been stolen, or a role was taken away and must not last to the session's end.",
		"Sign-ins under way and confirmations that are open have to be begun again. The identities of the manifest " +
			"stay signed in, and PATs are not touched."}}
}

// signOutEverywhere ends all sessions. The answer is the last page of this one.
func (d *dashboard) signOutEverywhere(ctx context.Context, by Caller) *dashboardPage {
	type ended struct{}
	_, p := do(ctx, d.API, by, request{name: "sign-out-everywhere", target: "all people"},
		func(ctx context.Context, _ string) (ended, *Problem) {
			err := d.visits.Keys.SignOutEverywhere(ctx)
			if err != nil {
				return ended{}, d.upstream(ctx, err)
			}
			return ended{}, nil
		})
	if p != nil {
		return d.refuse(ctx, p)
	}
	return d.withNotice(ctx, &notice{Title: "Everybody has been signed out", Text: []string{
		"All sessions end within a minute, this one as well. Sign in again to go on."},
		Links: []pageLink{{"Sign in again", dashboardPath}}})
}

// planLine is one PAT of a plan, as a person reads it.
func planLine(p administration.PAT) string {
	var notes []string
	if !p.ValidTo.IsZero() {
		notes = append(notes, "ends "+day(p.ValidTo))
	}
	switch {
	case p.Kept:
		notes = append(notes, "stays")
	case p.Managed:
		notes = append(notes, "patrol manages it as "+p.Name+", and replaces it")
	case p.Foreign:
		notes = append(notes, "made by another patrol")
	}
	return strings.Join(notes, "; ")
}

// ambiguous are the candidates of a name that means several users.
func ambiguous(a administration.Ambiguity) string {
	var out []string
	for _, u := range a.Candidates {
		out = append(out, u.Descriptor)
	}
	return strings.Join(out, ", ")
}
