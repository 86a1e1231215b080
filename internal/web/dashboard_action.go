package web

import (
	"context"
	"crypto/rand"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// What an action's form asks for.
const (
	doRotate = "rotate"
	doExtend = "extend"
	doRevoke = "revoke"
	doCheck  = "check"

	doOverlap = "overlap"
	doRestore = "restore"

	doSwitchOver = "switch-over"

	doRevokeUsers       = "revoke-users"
	doSignOut           = "sign-out" // of this browser: the one act of one step
	doSignOutEverywhere = "sign-out-everywhere"
)

// action is what a form asks for, with all that it needs.
type action struct {
	Act             string // doRotate ...
	Name            string // the PAT's, of rotate, extend, overlap, restore and switch-over
	RevokePrevious  string
	Reason          string
	ValidTo         time.Time
	AuthorizationID string // of revoke, as are the next three
	Organization    string
	Identity        string
	Force           bool
	Until           time.Time // of overlap
	Ruling          string    // of switch-over, as is the next one
	Consumer        string
	Accept          string // of check: the id of a mass change
	Users           string // of revoke-users, one a line, with Organization and Identity
	KeepManaged     bool
	Plan            string // the confirmation of the plan that was shown
	// Key is the idempotency key: the form sent twice acts once.
	Key string
}

// field is one hidden field of a form.
type field struct{ Name, Value string }

// Fields are the action's own, for a form that asks for it.
func (act action) Fields() []field {
	var out []field
	add := func(name, value string) {
		if value != "" {
			out = append(out, field{name, value})
		}
	}
	add("act", act.Act)
	add("name", act.Name)
	add("revokePrevious", act.RevokePrevious)
	add("reason", act.Reason)
	if !act.ValidTo.IsZero() {
		add("validTo", act.ValidTo.Format(time.RFC3339))
	}
	if !act.Until.IsZero() {
		add("until", act.Until.Format(time.RFC3339))
	}
	add("ruling", act.Ruling)
	add("consumer", act.Consumer)
	add("acceptMassChange", act.Accept)
	add("authorizationId", act.AuthorizationID)
	add("organization", act.Organization)
	add("identity", act.Identity)
	if act.Force {
		add("force", "true")
	}
	add("users", act.Users)
	if act.KeepManaged {
		add("keepManaged", "true")
	}
	add("plan", act.Plan)
	add("key", act.Key)
	return out
}

// role is what an action needs.
func (act action) role() Role {
	switch act.Act {
	case doRevokeUsers, doSignOutEverywhere:
		return Administrator
	}
	return Operator
}

// view is where a person comes from who asks for the action.
func (act action) view() view {
	v := view{PAT: act.Name}
	return v
}

// describe names the action as a confirmation permits it.
func (act action) describe() string {
	parts := []string{"dashboard"}
	for _, f := range act.Fields() {
		parts = append(parts, f.Name+"="+strconv.Quote(f.Value))
	}
	return strings.Join(parts, " ")
}

func actionOf(form url.Values) (action, *Problem) {
	act := action{Act: form.Get("act"), Key: form.Get("key")}
	if act.Key == "" {
		act.Key = rand.Text()
	}
	if !validKey(act.Key) {
		return act, badForm("Its field key cannot be used: press the button on the dashboard again.")
	}
	switch act.Act {
	case doRotate:
		return act, act.readRotation(form)
	case doExtend:
		act.Name, act.ValidTo = form.Get("name"), readEnd(form.Get("validTo"))
		if act.ValidTo.IsZero() {
			return act, badForm("The new end must be a day and a time in UTC, like 2027-01-31T00:00.")
		}
	case doRevoke:
		act.AuthorizationID, act.Organization, act.Identity = form.Get("authorizationId"), form.Get("organization"),
			form.Get("identity")
		act.Force = form.Get("force") == "true"
		if !rotation.IsGUID(act.AuthorizationID) {
			return act, badForm("The authorization id must be a GUID.")
		}
	case doOverlap:
		act.Name, act.Until = form.Get("name"), readEnd(form.Get("until"))
		if act.Until.IsZero() {
			return act, badForm("The end of the overlap must be a day and a time in UTC, like 2027-01-31T00:00.")
		}
	case doRestore:
		act.Name = form.Get("name")
	case doSwitchOver:
		return act, act.readDecision(form.Get("name"), form.Get("ruling"), form.Get("consumer"))
	case doCheck:
		act.Accept = form.Get("acceptMassChange")
	case doRevokeUsers:
		act.Identity, act.Organization = form.Get("identity"), strings.TrimSpace(form.Get("organization"))
		act.Users, act.KeepManaged = usersOf(form.Get("users")), form.Get("keepManaged") == "true"
		act.Plan = form.Get("plan")
	case doSignOutEverywhere:
	default:
		return act, badForm("The dashboard cannot do what the form asks for: press one of its buttons.")
	}
	return act, nil
}

func (act *action) readRotation(form url.Values) *Problem {
	act.Name, act.RevokePrevious = form.Get("name"), form.Get("revokePrevious")
	act.Reason = strings.TrimSpace(form.Get("reason"))
	switch act.RevokePrevious {
	case "":
		act.RevokePrevious = string(rotation.AfterOverlap)
	case string(rotation.AfterOverlap), string(rotation.Now):
	default:
		return badForm("Choose whether the replaced PAT stays valid for its overlap or is revoked at once.")
	}
	if len(act.Reason) > maxReason {
		return badForm("The note may have " + strconv.Itoa(maxReason) + " bytes at most.")
	}
	return nil
}

// readEnd reads a time as browsers and forms write it; zero: it is none.
func readEnd(text string) time.Time {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// perform carries out an action whose confirmation came along. Without one it shows
// what the action leads to, and asks for the confirmation.
func (d *dashboard) perform(ctx context.Context, by Caller, act action, token string) *dashboardPage {
	if token == "" {
		return d.confirm(ctx, by, act, nil)
	}
	if p := d.checkConfirmation(ctx, by, act.describe(), token); p != nil {
		return d.confirm(ctx, by, act, d.failureNotice(p, nil))
	}
	by.Key = act.Key
	switch act.Act {
	case doRotate:
		return d.rotate(ctx, by, act)
	case doExtend:
		return d.extend(ctx, by, act)
	case doRevoke:
		return d.revoke(ctx, by, act)
	case doOverlap:
		return d.setOverlap(ctx, by, act)
	case doRestore:
		return d.restore(ctx, by, act)
	case doSwitchOver:
		return d.decideSwitchOver(ctx, by, act)
	case doRevokeUsers:
		return d.revokeUsers(ctx, by, act)
	case doSignOutEverywhere:
		return d.signOutEverywhere(ctx, by)
	}
	return d.check(ctx, by, act)
}

// withNotice is the overview below a notice.
func (d *dashboard) withNotice(ctx context.Context, n *notice) *dashboardPage {
	page := d.overview(ctx, dashboardFilter{})
	page.Notice, page.Title, page.Address = n, n.Title, dashboardPath
	return page
}

func (d *dashboard) rotate(ctx context.Context, by Caller, act action) *dashboardPage {
	order, p := d.Rotate(ctx, by, act.Name, RotateRequest{Reason: act.Reason, RevokePrevious: act.RevokePrevious})
	if p != nil {
		return d.pat(ctx, act.Name, d.failureNotice(p, nil))
	}
	n := &notice{Title: "The rotation has been ordered", Detail: []string{"Operation: " + order.Operation},
		Await: order.PAT}
	if order.From == "" {
		n.Text = []string{"patrol makes the first PAT now. It appears below within seconds."}
	} else {
		n.Text = []string{"patrol replaces the PAT now. The new version appears below within seconds."}
	}
	return d.pat(ctx, act.Name, n)
}

func (d *dashboard) extend(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.Extend(ctx, by, act.Name, act.ValidTo)
	if p != nil {
		return d.pat(ctx, act.Name, d.failureNotice(p, nil))
	}
	n := &notice{Title: "The PAT has been extended",
		Text: []string{"It now ends on " + long(x.ValidTo) + ". Its value is the same as before."}}
	if x.Clamped {
		n.Text = append(n.Text, "Azure DevOps gave less than was asked for: a policy of the tenant limits it.")
	}
	return d.pat(ctx, act.Name, n)
}

func (d *dashboard) setOverlap(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.SetOverlap(ctx, by, act.Name, act.Until)
	if p != nil {
		return d.pat(ctx, act.Name, d.failureNotice(p, nil))
	}
	return d.pat(ctx, act.Name, &notice{Title: "The overlap has been lengthened",
		Text:   []string{"The replaced PAT is valid until " + long(x.Until) + "."},
		Detail: []string{"Authorization id: " + x.AuthorizationID}})
}

func (d *dashboard) restore(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.Restore(ctx, by, act.Name)
	if p != nil {
		return d.pat(ctx, act.Name, d.failureNotice(p, nil))
	}
	return d.pat(ctx, act.Name, &notice{Title: "The earlier PAT is current again",
		Text: []string{"Readers of the secret get it from now on.",
			"The PAT that it has taken the place of is valid until " + long(x.ReplacedUntil) + "."},
		Detail: []string{"Authorization id: " + x.AuthorizationID}})
}

func (d *dashboard) revoke(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.Revoke(ctx, by, RevokeRequest{AuthorizationID: act.AuthorizationID, Organization: act.Organization,
		Identity: act.Identity, Force: act.Force})
	if p != nil {
		return d.withNotice(ctx, d.failureNotice(p, insteadOfRevoking(p, act)))
	}
	n := &notice{Title: "The PAT has been revoked", Detail: []string{"Authorization id: " + x.AuthorizationID}}
	switch {
	case x.Replacing != "":
		n.Text = []string{"patrol makes its replacement now. The new version appears below within seconds."}
		n.Await = x.Replacing
		return d.pat(ctx, x.Replacing, n)
	case x.Already:
		n.Title, n.Text = "The PAT was not active any more", []string{"patrol had nothing to revoke."}
	default:
		n.Text = []string{"It does not work any more."}
	}
	return d.withNotice(ctx, n)
}

// insteadOfRevoking offers what can be done with a PAT that is in use.
func insteadOfRevoking(p *Problem, act action) []instead {
	if p.Type != reconcile.InUse {
		return nil
	}
	var out []instead
	if p.Links != nil && p.Links.Self != "" {
		out = append(out, instead{"Rotate it instead",
			action{Act: doRotate, Name: strings.TrimPrefix(p.Links.Self, linkTo(""))}})
	}
	forced := act
	forced.Force, forced.Key = true, ""
	return append(out, instead{"Revoke it all the same", forced})
}

func (d *dashboard) check(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.Sweep(ctx, by, CheckRequest{AcceptMassChange: act.Accept})
	if p != nil {
		return d.refuse(ctx, p)
	}
	n := &notice{Title: "The check has been done", Text: []string{
		"patrol checked " + count1(x.Managed, "managed PAT") + " and sent " + count1(x.Commands, "command") +
			". What they do shows within seconds."}}
	if len(x.Problems) > 0 {
		n.Bad, n.Title = true, "patrol could not check everything"
		n.Text = append(n.Text, "What it could not read, and why, is shown below.")
	}
	return d.withNotice(ctx, n)
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
	// Users is the plan of an administrator's revocation; nil: it is another act.
	Users *administration.RevocationPlan
}

type fact struct {
	Name, Value string
	Code        bool
}

func (d *dashboard) confirm(ctx context.Context, by Caller, act action, n *notice) *dashboardPage {
	act.Key = rand.Text()
	v, act, p := d.consequences(ctx, by, act)
	if p != nil {
		return d.refuse(ctx, p)
	}
	if v.Button == "" { // there is nothing to do
		return &dashboardPage{Title: v.Title, Address: addressOf(act.view().query()), Notice: n, Confirm: v}
	}
	token, until, p := d.confirmationFor(ctx, by, act.describe())
	if p != nil {
		return d.refuse(ctx, p)
	}
	v.Fields = append(act.Fields(), field{"token", token})
	v.Until = moment{until, d.Now()}
	return &dashboardPage{Title: v.Title, Address: addressOf(act.view().query()), Notice: n, Confirm: v}
}

// consequences says plainly what an action leads to. It gives the action back with its
// target's own spelling.
func (d *dashboard) consequences(ctx context.Context, by Caller, act action) (*confirmView, action, *Problem) {
	switch act.Act {
	case doRevokeUsers:
		return d.consequencesForUsers(ctx, by, act)
	case doSignOutEverywhere:
		return consequencesOfSigningOut(), act, nil
	case doCheck:
		return consequencesOfChecking(act), act, nil
	case doRevoke:
		return d.consequencesOfRevoking(ctx, act), act, nil
	}
	item, ok := d.Reconciler.Inspect(ctx, act.Name)
	if !ok {
		return nil, act, unknownPAT()
	}
	act.Name = item.Spec.Name
	if act.Act == doSwitchOver {
		v, p := d.consequencesOfDeciding(ctx, item, act)
		return v, act, p
	}
	v := &confirmView{Back: item.Spec.Name, Facts: factsOf(item)}
	switch act.Act {
	case doExtend:
		v.extension(item, act)
	case doOverlap:
		v.overlap(item, act)
	case doRestore:
		v.restoration(item)
	default:
		v.rotation(item, act)
	}
	if act.Reason != "" {
		v.Facts = append(v.Facts, fact{"Note for the log", plain(act.Reason), false})
	}
	return v, act, nil
}

func factsOf(item rotation.Item) []fact {
	s := item.Spec
	out := []fact{{"PAT", s.Name, false}, {"Display name", plain(s.DisplayName), false},
		{"Organization", s.Organization, false}, {"Identity", s.Identity, false}}
	if c := item.Current; c != nil {
		if id := c.Ledger.AuthorizationID; id != "" {
			out = append(out, fact{"Authorization id", id, true})
		}
		if !c.Expires.IsZero() {
			out = append(out, fact{"Ends", long(c.Expires), false})
		}
	}
	return out
}

func consequencesOfChecking(act action) *confirmView {
	if act.Accept != "" {
		return &confirmView{Title: "Accept that so many PATs change at once?", Button: "Accept it", Danger: true,
			Facts: []fact{{"Mass change", act.Accept, true}}, Text: []string{
				"patrol waits because so many PATs of this identity are gone, or are not what the manifest asks for, " +
					"all at once. A wrong list, a wrong manifest or a wrong sign-in looks the same.",
				"If you accept it, patrol replaces them now. That holds for a day, and for no more PATs than it is " +
					"about."}}
	}
	return &confirmView{Title: "Check now?", Button: "Check now", Text: []string{
		"patrol checks every PAT of the manifest now, as it does on its schedule, and lists what else the signed-in " +
			"users have.",
		"It rotates what is due, and revokes replaced PATs whose overlap has ended. The dry run shows beforehand " +
			"what that is."}}
}

func (v *confirmView) extension(item rotation.Item, act action) {
	v.Title, v.Button = "Extend "+item.Spec.Name+"?", "Extend it"
	v.Facts = append(v.Facts, fact{"New end", long(act.ValidTo), false})
	if item.Current != nil && act.ValidTo.Before(item.Current.Expires) {
		v.Text = append(v.Text, "The new end is earlier than the present one: the PAT is shortened.")
	}
	v.Text = append(v.Text,
		"The PAT keeps its value: no consumer has to read the secret again.",
		"Whoever has seen the value can use it until the new end. If you are not sure who has, rotate instead.",
		"Azure DevOps may give less than is asked for, where a policy of the tenant limits it.")
}

func (v *confirmView) overlap(item rotation.Item, act action) {
	v.Title, v.Button = "Lengthen the overlap of "+item.Spec.Name+"?", "Lengthen it"
	if c := item.Current; c != nil {
		v.Facts = append(v.Facts, fact{"The replaced PAT ends", long(rotation.RevocationTime(item.Spec, *c)), false})
	}
	v.Facts = append(v.Facts, fact{"New end of the overlap", long(act.Until), false})
	v.Text = []string{
		"The replaced PAT stays valid until then, for consumers that have not read the secret again.",
		"Whoever has seen its value can use it until then, too. An overlap cannot be shortened: if the value has " +
			"leaked, rotate and revoke at once."}
}

func (v *confirmView) restoration(item rotation.Item) {
	v.Title, v.Button = "Make the PAT before this one current again?", "Restore it"
	v.Text = []string{
		"The secret gets a new version with the value that it had before. Readers of the latest version get that one " +
			"again.",
		"The PAT in use now stays valid for the overlap of " + inWords(item.Spec.Overlap) +
			", and is revoked after that.",
		"The restored PAT keeps its end. patrol replaces it when it is due, and not before because of the manifest."}
}

func (v *confirmView) rotation(item rotation.Item, act action) {
	name := item.Spec.Name
	switch {
	case item.Current == nil:
		v.Title, v.Button = "Make "+name+" now?", "Make it now"
		v.Text = []string{"The vault has no such secret yet. patrol makes the PAT, proves that it works and stores it."}
	case act.RevokePrevious == string(rotation.Now):
		v.Title, v.Button, v.Danger = "Rotate "+name+" and revoke the old PAT at once?", "Rotate and revoke at once",
			true
		v.Text = []string{
			"patrol makes a new PAT, proves that it works and stores it as the secret's latest version.",
			"Then it revokes the PAT in use now, and every older one that is still in its overlap.",
			"Consumers that have not read the secret again fail from that moment. Choose this if the value has leaked."}
	default:
		v.Title, v.Button = "Rotate "+name+"?", "Rotate it"
		v.Text = []string{
			"patrol makes a new PAT, proves that it works, stores it as the secret's latest version and publishes an " +
				"event for the subscribers.",
			"The PAT in use now stays valid for the overlap of " + inWords(item.Spec.Overlap) +
				", and is revoked after that. Consumers that read the secret again within that time notice nothing."}
	}
}

// consequencesOfRevoking takes what it says of the PAT from the services, not from the
// form.
func (d *dashboard) consequencesOfRevoking(ctx context.Context, act action) *confirmView {
	v := &confirmView{Title: "Revoke this PAT?", Button: "Revoke it", Danger: true}
	id := fact{"Authorization id", act.AuthorizationID, true}
	plan := d.planForPage(ctx, true)
	for i := range plan.Items {
		it := &plan.Items[i]
		if it.Current != nil && strings.EqualFold(it.Current.Ledger.AuthorizationID, act.AuthorizationID) {
			v.revocationInUse(it, act)
			v.Facts = append(v.Facts, id)
			return v
		}
	}
	for i := range plan.Unmanaged {
		if act.means(&plan.Unmanaged[i]) {
			v.revocationUnmanaged(&plan.Unmanaged[i])
			v.Facts = append(v.Facts, id)
			return v
		}
	}
	v.Facts = []fact{id}
	v.Text = []string{
		"patrol does not see a PAT with this id in its list. If it is a replaced PAT of the manifest, in its " +
			"overlap, then consumers that have not read the secret again fail at once.",
		"A revoked PAT cannot be brought back."}
	return v
}

// means reports whether an action names this PAT.
func (act action) means(u *rotation.Unmanaged) bool {
	return strings.EqualFold(u.PAT.AuthorizationID, act.AuthorizationID) &&
		(act.Organization == "" || strings.EqualFold(u.Owner.Organization, act.Organization))
}

func (v *confirmView) revocationInUse(it *rotation.Item, act action) {
	v.Back = it.Spec.Name
	v.Facts = []fact{{"PAT", it.Spec.Name, false}, {"Organization", it.Spec.Organization, false},
		{"Identity", it.Spec.Identity, false}}
	if !act.Force {
		v.Text = []string{
			"It is the PAT that the readers of the secret use. Without force it is not revoked: rotate it instead."}
		return
	}
	v.Title, v.Button = "Revoke the PAT in use of "+it.Spec.Name+"?", "Revoke it all the same"
	v.Text = []string{
		"It is the PAT that the readers of the secret use: all of them fail at once.",
		"patrol makes its replacement as fast as it can. They work again when they have read the secret again.",
		"A rotation that revokes the old PAT at once spares them this outage."}
}

func (v *confirmView) revocationUnmanaged(u *rotation.Unmanaged) {
	v.Title = "Revoke “" + plain(u.PAT.DisplayName) + "”?"
	v.Facts = []fact{{"Display name", plain(u.PAT.DisplayName), false},
		{"Organization", u.Owner.Organization, false}, {"Identity", u.Owner.Identity, false},
		{"Scopes", strings.Join(u.PAT.Scopes, " "), true}, {"Ends", long(u.PAT.ValidTo), false}}
	v.Text = []string{"patrol does not manage this PAT, and does not know who uses it. Whoever does fails at once."}
	if u.PAT.Global {
		v.Text = append(v.Text, "It is valid in all organizations, and ends in all of them.")
	}
	v.Text = append(v.Text, "A revoked PAT cannot be brought back.")
}
