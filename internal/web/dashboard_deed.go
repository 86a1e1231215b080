package web

import (
	"context"
	"crypto/rand"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// deed is an act that a form asks for, with all that it needs.
type action struct {
	Act             string // rotate, extend, revoke, check
	Name            string // the PAT's, of rotate and extend
	RevokePrevious  string
	Reason          string
	ValidTo         time.Time
	AuthorizationID string // of revoke, as are the next three
	Organization    string
	Identity        string
	Force           bool
	// Key is the idempotency key: the form sent twice acts once.
	Key string
}

// field is one hidden field of a form.
type field struct{ Name, Value string }

// Fields are the deed's own, for a form that asks for it.
func (d action) Fields() []field {
	var out []field
	add := func(name, value string) {
		if value != "" {
			out = append(out, field{name, value})
		}
	}
	add("act", d.Act)
	add("name", d.Name)
	add("revokePrevious", d.RevokePrevious)
	add("reason", d.Reason)
	if !d.ValidTo.IsZero() {
		add("validTo", d.ValidTo.Format(time.RFC3339))
	}
	add("authorizationId", d.AuthorizationID)
	add("organization", d.Organization)
	add("identity", d.Identity)
	if d.Force {
		add("force", "true")
	}
	add("key", d.Key)
	return out
}

// what is the deed as a confirmation permits it.
func (d action) describe() string {
	parts := []string{"dashboard"}
	for _, f := range d.Fields() {
		parts = append(parts, f.Name+"="+strconv.Quote(f.Value))
	}
	return strings.Join(parts, " ")
}

func actionOf(form url.Values) (action, *Problem) {
	d := action{Act: form.Get("act"), Key: form.Get("key")}
	if d.Key == "" {
		d.Key = rand.Text()
	}
	if len(d.Key) > maxKey || strings.ContainsFunc(d.Key, func(c rune) bool { return c < '!' || c > '~' }) {
		return d, badForm("Its key cannot be used.")
	}
	switch d.Act {
	case "rotate":
		d.Name, d.RevokePrevious, d.Reason = form.Get("name"), form.Get("revokePrevious"),
			strings.TrimSpace(form.Get("reason"))
		if d.RevokePrevious == "" {
			d.RevokePrevious = string(rotation.AfterOverlap)
		}
		if d.RevokePrevious != string(rotation.AfterOverlap) && d.RevokePrevious != string(rotation.Now) {
			return d, badForm("The replaced PAT ends after its overlap, or now.")
		}
		if len(d.Reason) > maxReason {
			return d, badForm("The note may have 256 bytes.")
		}
	case "extend":
		d.Name = form.Get("name")
		for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02", time.RFC3339} {
			if t, err := time.Parse(layout, form.Get("validTo")); err == nil {
				d.ValidTo = t.UTC()
				break
			}
		}
		if d.ValidTo.IsZero() {
			return d, badForm("The new end must be a day and a time, like 2027-01-31T00:00 (UTC).")
		}
	case "revoke":
		d.AuthorizationID, d.Organization, d.Identity = form.Get("authorizationId"), form.Get("organization"),
			form.Get("identity")
		d.Force = form.Get("force") == "true"
		if !authorizationID(d.AuthorizationID) {
			return d, badForm("The authorization id must be a GUID.")
		}
	case "check":
	default:
		return d, badForm("There is no such act.")
	}
	return d, nil
}

// deed does what was confirmed, and asks for the confirmation of what was not.
func (d *dashboard) perform(ctx context.Context, by Caller, what action, token string) *dashboardPage {
	if token == "" {
		return d.confirm(ctx, by, what, nil)
	}
	if p := d.Confirmed(ctx, by, what.describe(), token); p != nil {
		return d.confirm(ctx, by, what, d.failureNotice(p, nil))
	}
	by.Key = what.Key
	switch what.Act {
	case "rotate":
		return d.rotate(ctx, by, what)
	case "extend":
		return d.extend(ctx, by, what)
	case "revoke":
		return d.revoke(ctx, by, what)
	}
	return d.check(ctx, by)
}

func (d *dashboard) rotate(ctx context.Context, by Caller, what action) *dashboardPage {
	order, p := d.Rotate(ctx, by, what.Name, RotateRequest{Reason: what.Reason, RevokePrevious: what.RevokePrevious})
	if p != nil {
		return d.pat(ctx, what.Name, d.failureNotice(p, nil))
	}
	n := &notice{Title: "The rotation has been ordered", Detail: []string{"Operation: " + order.Operation},
		Await: order.PAT}
	if order.From == "" {
		n.Text = []string{"patrol makes the first PAT now. It appears below within seconds."}
	} else {
		n.Text = []string{"patrol replaces the PAT now. The new version appears below within seconds."}
	}
	return d.pat(ctx, what.Name, n)
}

func (d *dashboard) extend(ctx context.Context, by Caller, what action) *dashboardPage {
	x, p := d.Extend(ctx, by, what.Name, what.ValidTo)
	if p != nil {
		return d.pat(ctx, what.Name, d.failureNotice(p, nil))
	}
	n := &notice{Title: "The PAT has been extended", Text: []string{"It now ends on " + long(x.ValidTo) +
		". Its value is the same as before."}}
	if x.Clamped {
		n.Text = append(n.Text, "Azure DevOps gave less than was asked for: a policy of the tenant bounds it.")
	}
	return d.pat(ctx, what.Name, n)
}

func (d *dashboard) revoke(ctx context.Context, by Caller, what action) *dashboardPage {
	x, p := d.Revoke(ctx, by, RevokeRequest{AuthorizationID: what.AuthorizationID, Organization: what.Organization,
		Identity: what.Identity, Force: what.Force})
	if p != nil {
		var more []instead
		if p.Type == reconcile.InUse {
			forced := what
			forced.Force, forced.Key = true, ""
			if p.Links != nil && p.Links.Self != "" {
				more = append(more, instead{"Rotate it instead",
					action{Act: "rotate", Name: strings.TrimPrefix(p.Links.Self, "/api/pats/")}})
			}
			more = append(more, instead{"Revoke it all the same", forced})
		}
		return d.refuse(ctx, p, more)
	}
	n := &notice{Title: "The PAT has been revoked", Detail: []string{"Authorization id: " + x.AuthorizationID}}
	switch {
	case x.Replacing != "":
		n.Text, n.Await = []string{"patrol makes its replacement now. The new version appears below within seconds."},
			x.Replacing
		return d.pat(ctx, x.Replacing, n)
	case x.Already:
		n.Title, n.Text = "The PAT had ended before", []string{"Nothing had to be done."}
	default:
		n.Text = []string{"It does not work any more."}
	}
	page := d.overview(ctx, dashboardFilter{})
	page.Notice, page.Title = n, n.Title
	return page
}

func (d *dashboard) check(ctx context.Context, by Caller) *dashboardPage {
	x, p := d.Sweep(ctx, by)
	if p != nil {
		return d.refuse(ctx, p, nil)
	}
	n := &notice{Title: "The check has been done", Text: []string{
		"It looked at " + count1(x.Managed, "managed PAT") + " and sent " + count1(x.Commands, "command") +
			". What they do shows within seconds."}}
	if len(x.Problems) > 0 {
		n.Bad, n.Title = true, "The check could not look at everything"
		n.Text = append(n.Text, "What it could not look at is shown below.")
	}
	page := d.overview(ctx, dashboardFilter{})
	page.Notice, page.Title = n, n.Title
	return page
}

// confirmView says what would happen, and carries the confirmation.
type confirmView struct {
	Title  string
	Facts  []fact
	Text   []string
	Danger bool
	Button string
	Fields []field
	Until  moment
	// Back is the PAT that "Cancel" goes back to; empty: the overview.
	Back string
}

type fact struct {
	Name, Value string
	Code        bool
}

func (d *dashboard) confirm(ctx context.Context, by Caller, what action, n *notice) *dashboardPage {
	what.Key = rand.Text()
	v, what, p := d.consequences(ctx, what)
	if p != nil {
		return d.refuse(ctx, p, nil)
	}
	c, p := d.Confirmation(ctx, by, what.describe())
	if p != nil {
		return d.refuse(ctx, p, nil)
	}
	v.Fields = append(what.Fields(), field{"token", c.Token})
	v.Until = moment{c.Until, d.Now()}
	return &dashboardPage{Title: v.Title, Notice: n, Confirm: v}
}

// consequences says plainly what a deed does. It gives the deed back with its
// target's own spelling.
func (d *dashboard) consequences(ctx context.Context, what action) (*confirmView, action, *Problem) {
	switch what.Act {
	case "check":
		return &confirmView{Title: "Check now?", Button: "Check now", Text: []string{
			"patrol looks at every PAT of the manifest now, as it does on its schedule, and at what else the signed-in users have.",
			"What is due is rotated, what has reached the end of its overlap is revoked. The dry run shows beforehand what that is."}}, what, nil
	case "revoke":
		v, p := d.consequencesOfRevoking(ctx, what)
		return v, what, p
	}
	item, ok := d.Reconciler.Inspect(ctx, what.Name)
	if !ok {
		return nil, what, unknownPAT()
	}
	s := item.Spec
	what.Name = s.Name
	v := &confirmView{Back: s.Name, Facts: []fact{{"PAT", s.Name, false}, {"Display name", plain(s.DisplayName), false},
		{"Organization", s.Organization, false}, {"Identity", s.Identity, false}}}
	if c := item.Current; c != nil {
		if id := c.Ledger.AuthorizationID; id != "" {
			v.Facts = append(v.Facts, fact{"Authorization id", id, true})
		}
		if !c.Expires.IsZero() {
			v.Facts = append(v.Facts, fact{"Ends", long(c.Expires), false})
		}
	}
	switch {
	case what.Act == "extend":
		v.Title, v.Button = "Extend "+s.Name+"?", "Extend it"
		v.Facts = append(v.Facts, fact{"New end", long(what.ValidTo), false})
		v.Text = []string{
			"The PAT keeps its value: no consumer has to read anything again.",
			"Whoever has seen the value can use it until the new end. If you are not sure who has, rotate instead.",
			"Azure DevOps may give less than is asked for, where a policy of the tenant bounds it."}
		if item.Current != nil && what.ValidTo.Before(item.Current.Expires) {
			v.Text = append([]string{"The new end is earlier than the present one: the PAT is shortened."}, v.Text...)
		}
	case item.Current == nil:
		v.Title, v.Button = "Make "+s.Name+" now?", "Make it now"
		v.Text = []string{"The vault has no such secret yet. patrol makes the PAT, proves that it works and stores it."}
	case what.RevokePrevious == string(rotation.Now):
		v.Title, v.Button, v.Danger = "Rotate "+s.Name+" and revoke the old PAT at once?", "Rotate and revoke at once",
			true
		v.Text = []string{
			"patrol makes a new PAT, proves that it works and stores it as the secret's latest version.",
			"Then the PAT in use now is revoked at once, and with it every older one that is still in its overlap.",
			"Consumers that have not read the secret again fail from that moment. Choose this if the value has leaked."}
	default:
		v.Title, v.Button = "Rotate "+s.Name+"?", "Rotate it"
		v.Text = []string{
			"patrol makes a new PAT, proves that it works, stores it as the secret's latest version and tells the subscribers.",
			"The PAT in use now stays valid for the overlap of " + inWords(s.Overlap) +
				", and is revoked after that. Consumers that read the secret again within that time notice nothing."}
	}
	if what.Reason != "" {
		v.Facts = append(v.Facts, fact{"Note for the log", plain(what.Reason), false})
	}
	return v, what, nil
}

func (d *dashboard) consequencesOfRevoking(ctx context.Context, what action) (*confirmView, *Problem) {
	v := &confirmView{Title: "Revoke this PAT?", Button: "Revoke it", Danger: true}
	last := fact{"Authorization id", what.AuthorizationID, true}
	// What is said of it comes from the services, not from the form.
	plan := d.planForPage(ctx, true)
	for i := range plan.Items {
		it := &plan.Items[i]
		if it.Current == nil || !strings.EqualFold(it.Current.Ledger.AuthorizationID, what.AuthorizationID) {
			continue
		}
		v.Back = it.Spec.Name
		v.Facts = []fact{{"PAT", it.Spec.Name, false}, {"Organization", it.Spec.Organization, false},
			{"Identity", it.Spec.Identity, false}, last}
		if !what.Force {
			v.Text = []string{
				"It is the PAT that the readers of the secret use. Without force it is not revoked: rotate it instead."}
			return v, nil
		}
		v.Title, v.Button = "Revoke the PAT in use of "+it.Spec.Name+"?", "Revoke it all the same"
		v.Text = []string{
			"It is the PAT that the readers of the secret use: all of them fail at once.",
			"patrol makes its replacement as fast as it can. They work again when they have read the secret again.",
			"A rotation that revokes the old PAT at once spares them the gap."}
		return v, nil
	}
	for _, s := range plan.Unmanaged {
		if !strings.EqualFold(s.PAT.AuthorizationID, what.AuthorizationID) || !strings.EqualFold(s.Owner.Organization,
			what.Organization) && what.Organization != "" {
			continue
		}
		v.Title = "Revoke “" + plain(s.PAT.DisplayName) + "”?"
		v.Facts = []fact{{"Display name", plain(s.PAT.DisplayName), false}, {"Organization", s.Owner.Organization,
			false}, {"Identity", s.Owner.Identity, false},
			{"Scopes", strings.Join(s.PAT.Scopes, " "), true}, {"Ends", long(s.PAT.ValidTo), false}, last}
		v.Text = []string{"patrol does not manage this PAT, and does not know who uses it. Whoever does fails at once."}
		if s.PAT.Global {
			v.Text = append(v.Text, "It is valid in all organizations, and ends in all of them.")
		}
		v.Text = append(v.Text, "A revoked PAT cannot be brought back.")
		return v, nil
	}
	v.Facts = []fact{last}
	v.Text = []string{
		"patrol does not see a PAT with this id in its list. If it is an older one of a managed PAT, in its overlap, then consumers that have not read the secret again fail at once.", "A revoked PAT cannot be brought back."}
	return v, nil
}
