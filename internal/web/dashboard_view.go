package web

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// dashboardRows is how many PATs a page shows, and otherRows how many of
	// those that patrol does not manage before somebody asks for all.
	dashboardRows = 50
	otherRows     = 10
	// maxChanges is how many changes a dry run shows.
	maxChanges = 200
	// signInSoon is how long before its end a sign-in is worth a warning.
	signInSoon = 14 * 24 * time.Hour
)

// dashboardFilter is a list's filter with a search in names.
type dashboardFilter struct {
	Filter
	Search string
}

const maxSearch = 128

// Any reports whether anything is filtered.
func (f dashboardFilter) Any() bool {
	return len(f.Kept()) > 0
}

// Kept are the fields that lead to the same list again.
func (f dashboardFilter) Kept() []field {
	var out []field
	for _, x := range []field{{"state", f.State}, {"organization", f.Organization}, {"identity", f.Identity},
		{"kind", f.Kind}, {"search", f.Search}} {
		if x.Value != "" {
			out = append(out, x)
		}
	}
	return out
}

func (f dashboardFilter) matches(e entry) bool {
	if f.Search == "" {
		return true
	}
	var texts []string
	switch {
	case e.managed != nil:
		s := &e.managed.Spec
		texts = []string{s.Name, s.DisplayName, s.Organization, s.Identity}
	case e.released != nil:
		texts = []string{e.released.Name}
	default:
		texts = []string{e.other.PAT.DisplayName, e.other.Owner.Organization, e.other.Owner.Identity,
			e.other.PAT.AuthorizationID}
	}
	want := strings.ToLower(f.Search)
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(strings.ToLower(s), want) })
}

// overview is the first page, and every list.
type overview struct {
	Filter     dashboardFilter
	Counts     Inventory
	Tiles      []tile
	LastSweep  *SweepReport
	NextSweep  *time.Time
	Identities []identityView
	// Degraded is what health says, Standing what stands and the page's own look has not
	// met, Unknown why nobody here knows what other processes know.
	Degraded   bool
	Standing   []BlindSpot
	Unknown    *FailureCause
	Blind      []BlindSpot
	Mass       []MassChange
	Attention  []row
	MoreBad    int // that did not fit
	Managed    []row
	Found      int // managed, unmanaged and released that the filter finds
	From, To   int // which of them are shown; the first page begins with 1
	Others     []otherRow
	MoreOthers int
	Released   []ReleasedPAT
	MoreGone   int
	Next       string // cursor
	Orgs       []string
	// Identity is the one that the filter names, with what can be done to its sign-in;
	// nil: the filter names none.
	Identity *identityView
	// Confirm is an object id that an operator is to confirm as that identity's.
	Confirm string
}

// ConfirmPath begins the sign-in that an operator has confirmed.
func (v *overview) ConfirmPath() string {
	return "/api/identities/" + url.PathEscape(v.Identity.Name) + "/signin?confirm=" + url.QueryEscape(v.Confirm)
}

// FirstPage and NextPage are addresses.
func (v *overview) FirstPage() string { return v.page("") }

func (v *overview) NextPage() string { return v.page(v.Next) }

func (v *overview) page(cursor string) string {
	f := v.Filter
	f.Cursor = cursor
	return addressOf(view{Filter: f}.query())
}

type tile struct {
	Label, Hint string
	Count       int
	Field       field
	Tone        string // "", bad, warn
	On          bool
}

type identityView struct {
	IdentityStatus
	Tone, Word string
	SignIn     *signInView
	// Never: nobody has ever signed in.
	SignedIn, Required, Never bool
}

// signInView says how to sign in. It takes no key: only the identity's user can finish it.
type signInView struct{ URL, Path string }

func signInAt(link string) *signInView {
	v := &signInView{URL: link}
	if u, err := url.Parse(link); err == nil {
		v.Path = u.EscapedPath()
	}
	return v
}

// row is a managed PAT in a list.
type row struct {
	ManagedPAT
	Tone, Word, Sign string
	Failing          *Failing
	Bar              *timeline
	OverlapUntil     *time.Time
	Late             *lateSwitchView
}

type otherRow struct {
	UnmanagedPAT
	Tone string
}

// stateNames are the words for the states to choose by.
func stateNames() map[string]string {
	out := map[string]string{string(rotation.StateOther): "Unmanaged"}
	for _, state := range states {
		if out[state] == "" {
			out[state], _, _ = stateWords(state)
		}
	}
	return out
}

// stateWords are a state's word, its sign and its tone: colour is never alone.
func stateWords(state string) (word, sign, tone string) {
	switch state {
	case string(rotation.StateCurrent):
		return "Up to date", "✓", "good"
	case string(rotation.StateDue):
		return "Due", "↻", "warn"
	case string(rotation.StatePostponed):
		return "Postponed", "⏸", "warn"
	case string(rotation.StateMissing):
		return "Not made yet", "+", "warn"
	case string(rotation.StateBlocked):
		return "Blocked", "✕", "bad"
	case string(rotation.StateReleased):
		return "Released", "–", ""
	}
	return "Unknown", "?", "bad"
}

func kindName(kind string) string {
	switch kind {
	case kindFullScope:
		return "Full access"
	case "":
		return ""
	}
	return strings.ToUpper(kind[:1]) + kind[1:]
}

func (d *dashboard) overview(ctx context.Context, f dashboardFilter) *dashboardPage {
	var (
		report StatusReport
		plan   rotation.Plan
		both   sync.WaitGroup
		held   error
	)
	both.Go(func() {
		held = panics.Held(func() error {
			report = d.Report(ctx)
			return nil
		})
	})
	plan = d.planForPage(ctx, f.Cursor != "")
	both.Wait()
	if held != nil {
		panic(held) // where the invocation's own guard sees it
	}

	now := d.Now()
	v := &overview{Filter: f, Counts: count(plan), LastSweep: report.LastSweep, NextSweep: report.NextSweep,
		Identities: identityViews(report.Identities, now), Blind: blind(plan.Problems),
		Mass: massChanges(plan)}
	v.Degraded, v.Unknown = report.Degraded, report.State.Problem
	v.Standing = standingSpots(report.Troubles, v.Blind)
	v.Tiles = tiles(v.Counts, f)
	named := func(id identityView) bool { return strings.EqualFold(id.Name, f.Identity) }
	if i := slices.IndexFunc(v.Identities, named); i >= 0 {
		v.Identity = &v.Identities[i]
	}
	v.Orgs = organizations(plan)
	failing := failingByName(report.Failing)
	entries := slices.DeleteFunc(d.entries(plan, f.Filter), func(e entry) bool { return !f.matches(e) })
	if !f.Any() {
		entries = v.takeAside(entries, failing, plan.At, now)
	}
	after, p := f.after()
	var n *notice
	if p != nil {
		n = d.failureNotice(p, nil)
	}
	from := start(entries, after)
	to := min(from+dashboardRows, len(entries))
	v.Found, v.From, v.To = len(entries), from+1, to
	for _, e := range entries[from:to] {
		v.add(e, failing, plan.At, now)
	}
	if to < len(entries) {
		v.Next = f.cursor(entries[to-1].key)
		d.recent.keep(plan)
	} else {
		d.recent.keep(rotation.Plan{})
	}
	return &dashboardPage{Title: "Overview", Notice: n, Overview: v}
}

// failures are the failing PATs by their names in lower case.
type failures map[string]*Failing

func failingByName(all []Failing) failures {
	out := failures{}
	for i := range all {
		out[strings.ToLower(all[i].PAT)] = &all[i]
	}
	return out
}

func (f failures) of(it *rotation.Item) *Failing { return f[strings.ToLower(it.Spec.Name)] }

// needAttention reports whether somebody should see to a PAT.
func (f failures) needAttention(it *rotation.Item) bool {
	return it.State == rotation.StateBlocked || it.State == rotation.StateUnknown || f.of(it) != nil
}

// takeAside gives the overview's own sections what belongs to them: what needs somebody,
// what is released and what patrol does not manage. rest is for the list.
func (v *overview) takeAside(entries []entry, failing failures, at, now time.Time) (rest []entry) {
	v.Others, v.MoreOthers, entries = takeOthers(entries, at)
	for _, e := range entries {
		switch {
		case e.released != nil && len(v.Released) < otherRows:
			v.Released = append(v.Released, *e.released)
		case e.released != nil:
			v.MoreGone++
		case !failing.needAttention(e.managed):
			rest = append(rest, e)
		case len(v.Attention) < dashboardRows:
			v.Attention = append(v.Attention, rowOf(e.managed, failing, now))
		default:
			v.MoreBad++
		}
	}
	return rest
}

// add shows an entry on the page.
func (v *overview) add(e entry, failing failures, at, now time.Time) {
	switch {
	case e.managed != nil:
		v.Managed = append(v.Managed, rowOf(e.managed, failing, now))
	case e.released != nil:
		v.Released = append(v.Released, *e.released)
	default:
		v.Others = append(v.Others, otherOf(*e.other, at))
	}
}

// blind are the blind spots other than missing sign-ins, which the page shows by
// identity.
func blind(problems []rotation.Unobserved) []BlindSpot {
	return slices.DeleteFunc(blindSpots(problems), func(b BlindSpot) bool {
		return b.Identity != "" && b.Class == string(rotation.SignIn)
	})
}

// standingSpots are the troubles that are not among what the page's look could not observe,
// and have no place of their own on the page.
func standingSpots(troubles []Trouble, blind []BlindSpot) []BlindSpot {
	var out []BlindSpot
	for _, t := range troubles {
		isShown := slices.ContainsFunc(blind, func(b BlindSpot) bool {
			isSame := b.Scope == t.Scope && b.Identity == t.Identity && b.Organization == t.Organization
			return isSame && b.Code == t.Code
		})
		isElsewhere := t.Code == rotation.MassChangeWaits || t.Class == string(rotation.SignIn)
		if isShown || isElsewhere {
			continue
		}
		since := t.Since
		out = append(out, BlindSpot{t.Scope, t.Identity, t.Organization, &since, t.FailureCause})
	}
	return out
}

// cursor is where the next page begins.
func (f Filter) cursor(key string) string {
	u, err := url.Parse(f.next(key))
	if err != nil {
		return ""
	}
	return u.Query().Get("cursor")
}

// takeOthers takes the PATs that patrol does not manage out of a list: first are those
// that are most worth a check.
func takeOthers(entries []entry, now time.Time) (first []otherRow, more int, rest []entry) {
	var others []rotation.Unmanaged
	for _, e := range entries {
		if e.other != nil {
			others = append(others, *e.other)
		} else {
			rest = append(rest, e)
		}
	}
	weight := func(s rotation.Unmanaged) int {
		switch {
		case s.PAT.Global:
			return 0
		case s.PAT.Expiring(now):
			return 1
		case s.PAT.FullScope():
			return 2
		}
		return 3
	}
	slices.SortStableFunc(others, func(x, y rotation.Unmanaged) int { return cmp.Compare(weight(x), weight(y)) })
	for _, s := range others[:min(len(others), otherRows)] {
		first = append(first, otherOf(s, now))
	}
	return first, len(others) - len(first), rest
}

func otherOf(s rotation.Unmanaged, now time.Time) otherRow {
	o := otherRow{UnmanagedPAT: unmanaged(s, now)}
	if o.Global || o.FullScope || o.Expiring {
		o.Tone = "warn"
	}
	return o
}

func organizations(plan rotation.Plan) []string {
	seen := map[string]bool{}
	for i := range plan.Items {
		seen[plan.Items[i].Spec.Organization] = true
	}
	for _, s := range plan.Unmanaged {
		seen[s.Owner.Organization] = true
	}
	var out []string
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func tiles(n Inventory, f dashboardFilter) []tile {
	out := []tile{
		{Label: "Managed", Count: n.Managed, Field: ofKind(kindManaged), Hint: "in the manifest"},
		{Label: "Blocked", Count: n.Blocked, Field: inState(rotation.StateBlocked), Tone: "bad",
			Hint: "somebody must act"},
		{Label: "Unknown", Count: n.Unknown, Field: inState(rotation.StateUnknown), Tone: "bad",
			Hint: "could not be checked"},
		{Label: "Due", Count: n.Due, Field: inState(rotation.StateDue), Tone: "warn", Hint: "rotated next"},
		{Label: "Not made yet", Count: n.Missing, Field: inState(rotation.StateMissing), Tone: "warn",
			Hint: "made next"},
		{Label: "Unmanaged", Count: n.Unmanaged, Field: ofKind(kindUnmanaged), Hint: "not in the manifest"},
		{Label: "Expiring", Count: n.Expiring, Field: ofKind(kindExpiring), Tone: "warn", Hint: "end soon"},
		{Label: "Global", Count: n.Global, Field: ofKind(kindGlobal), Tone: "warn",
			Hint: "end on " + rotation.GlobalEnd().Format("2 Jan 2006")},
		{Label: "Full access", Count: n.FullScope, Field: ofKind(kindFullScope), Tone: "warn", Hint: "every scope"},
		{Label: "Released", Count: n.Released, Field: inState(rotation.StateReleased), Hint: "run out by themselves"},
	}
	for i := range out {
		t := &out[i]
		if t.Count == 0 {
			t.Tone = ""
		}
		t.On = slices.Contains(f.Kept(), t.Field)
	}
	return out
}

func ofKind(kind string) field           { return field{"kind", kind} }
func inState(state rotation.State) field { return field{"state", string(state)} }

func identityViews(all []IdentityStatus, now time.Time) []identityView {
	var out []identityView
	for _, s := range all {
		v := identityView{IdentityStatus: s, Tone: "good", Word: "Signed in", SignedIn: s.State == stateSignedIn}
		switch {
		case s.State == stateSignInRequired:
			v.Tone, v.Word = "bad", "Sign-in needed"
			v.SignIn, v.Required, v.Never = signInAt(s.SignInURL), true, s.Code == string(entra.NotSignedIn)
		case s.State == stateUnknown:
			v.Tone, v.Word = "bad", "Unknown"
		case s.State == stateRefused:
			v.Tone, v.Word = "bad", "Refused"
		case s.Until != nil && s.Until.Sub(now) < signInSoon:
			v.Tone, v.Word = "warn", "Ends soon"
		case s.Renamed != "":
			v.Tone, v.Word = "warn", "Renamed"
		}
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(x, y identityView) int { return cmp.Compare(toneOrder(x.Tone), toneOrder(y.Tone)) })
	return out
}

func toneOrder(tone string) int { return strings.Index("bad warn good", tone) }

// setState says how the PAT stands.
func (r *row) setState() {
	r.Word, r.Sign, r.Tone = stateWords(r.State)
	if r.Failing != nil && r.Tone != "bad" {
		r.Word, r.Sign, r.Tone = "Failing", "!", "bad"
	}
}

func rowOf(it *rotation.Item, failing failures, now time.Time) row {
	r := row{ManagedPAT: describe(*it), Failing: failing.of(it), Late: lateSwitchOf(it.Late)}
	r.setState()
	if c := it.Current; c != nil {
		if u := c.Ledger.RevokePreviousAt; u.After(now) && u.After(c.Created) {
			r.OverlapUntil = timeOrNull(u)
		}
		r.Bar = newTimeline(c.Created, timeOrZero(r.RotateAt), c.Expires, r.OverlapUntil, now)
	}
	return r
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// timeline is the life of a PAT as a bar of 1000 units.
type timeline struct {
	Born, Rotate, Ends moment
	// Where rotation is due, where it is now, how much of the bar is over, and
	// how far the overlap of the replaced PAT goes.
	RotateX, Now, Overlap int
	Label                 string
}

const barWidth = 1000

func newTimeline(born, due, ends time.Time, overlap *time.Time, now time.Time) *timeline {
	if ends.IsZero() || !ends.After(born) {
		return nil
	}
	at := func(t time.Time) int {
		return int(min(max(float64(t.Sub(born))/float64(ends.Sub(born)), 0), 1) * barWidth)
	}
	b := &timeline{Born: moment{born, now}, Ends: moment{ends, now}, Now: at(now), RotateX: barWidth}
	text := []string{"Stored on " + day(born)}
	if overlap != nil {
		b.Overlap = max(at(*overlap), 4)
		text = append(text, "the replaced PAT is valid until "+long(*overlap))
	}
	if !due.IsZero() {
		b.Rotate, b.RotateX = moment{due, now}, at(due)
		text = append(text, "to be replaced on "+day(due))
	}
	text = append(text, "ends on "+day(ends), strconv.Itoa(b.Now/10)+" % of its life is over")
	b.Label = strings.Join(text, ", ") + "."
	return b
}

// Left is what remains after the day of replacement.
func (b *timeline) Left() int { return barWidth - b.RotateX }

// patView is one PAT with all that is known of it.
type patView struct {
	row
	Overlap     string
	OverlapEnd  string // a proposal for a longer overlap
	NewEnd      string // a proposal for an extension
	Extendable  bool
	TokenEvents []administration.AuditEntry
	Versions    []VersionInfo
	SignIn      *signInView
	Switch      *switchView // nil: the entry has no consumers
}

func (d *dashboard) pat(ctx context.Context, name string, n *notice) *dashboardPage {
	p, problem := d.Inspect(ctx, name)
	if problem != nil {
		if n == nil {
			return d.refuse(ctx, problem)
		}
		return d.withNotice(ctx, n)
	}
	v := &patView{row: row{ManagedPAT: p, Failing: p.Failure, Late: lateSwitchOf(p.late)}, Versions: p.Versions,
		Switch: switchViewOf(p, d.Now())}
	v.setState()
	if s, ok := d.Reconciler.Spec(p.Name); ok {
		v.Overlap = inWords(s.Overlap)
	}
	if p.Problem != nil && p.Problem.Class == string(rotation.SignIn) {
		v.SignIn = signInAt(d.Identities.State(ctx, p.Identity).SignInURL)
	}
	if i := slices.IndexFunc(p.Versions, func(x VersionInfo) bool { return x.Latest }); i >= 0 {
		v.showLife(p.Versions[i], d.Now())
	}
	page := &dashboardPage{Title: p.Name, Address: addressOfPAT(p.Name), Notice: n, PAT: v}
	if n != nil {
		page.Title = n.Title
	}
	return page
}

// showLife draws the life of the PAT in use.
func (v *patView) showLife(x VersionInfo, now time.Time) {
	if until := x.RevokePreviousAt; until != nil && until.After(now) && until.After(x.Created) {
		v.OverlapUntil = until
		v.OverlapEnd = until.Add(rotation.Day).UTC().Truncate(time.Minute).Format("2006-01-02T15:04")
	}
	if x.ValidTo == nil {
		return
	}
	v.Bar = newTimeline(x.Created, timeOrZero(v.RotateAt), *x.ValidTo, v.OverlapUntil, now)
	// As long a life again, to begin with.
	v.Extendable = true
	v.NewEnd = x.ValidTo.Add(x.ValidTo.Sub(x.Created)).UTC().Truncate(time.Minute).Format("2006-01-02T15:04")
}

// planView is a dry run.
type planView struct {
	At       time.Time
	Changes  []changeView
	More     int
	Problems []BlindSpot
	Managed  int
}

type changeView struct {
	Change
	Word, Tone string
}

// changeWord names what a change does, and its tone.
func changeWord(action string) (word, tone string) {
	switch action {
	case changeCreate:
		return "Make", ""
	case changeRotate:
		return "Rotate", ""
	case changeRevoke:
		return "Revoke the replaced one", ""
	case changeSignIn:
		return "Ask for a sign-in", "bad"
	case changeRevokeOrphan:
		return "Revoke what nothing holds", ""
	case changeRelease:
		return "Let run out", ""
	}
	switch rotation.Action(action) {
	case rotation.Adopt:
		return "Adopt", ""
	case rotation.Recognize:
		return "Write the tags again that were taken off", ""
	case rotation.Relabel:
		return "Note the new name of the owner", ""
	case rotation.Announce:
		return "Publish the event of its rotation", ""
	case rotation.Refuse:
		return "Refuse: somebody must decide", "bad"
	}
	return action, ""
}

func (d *dashboard) dryRun(ctx context.Context) *dashboardPage {
	plan := d.API.plan(ctx)
	changes := Changes(plan)
	v := &planView{At: plan.At, Problems: blind(plan.Problems), Managed: len(plan.Items),
		More: max(0, len(changes)-maxChanges)}
	for _, c := range changes[:len(changes)-v.More] {
		word, tone := changeWord(c.Action)
		v.Changes = append(v.Changes, changeView{c, word, tone})
	}
	return &dashboardPage{Title: "Dry run", Plan: v}
}
