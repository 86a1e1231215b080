package web

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// MaxPage is how many PATs one answer lists at most, and by default.
const MaxPage = 500

// Filter chooses from a list. Every empty field lets everything through.
type Filter struct {
	State        string // missing, current, due, blocked, unknown, released, unmanaged
	Organization string
	Identity     string
	Kind         string // kindManaged ...
	Cursor       string // where the page before ended
	Limit        int    // 0: MaxPage
}

// Kinds of PATs to choose by.
const (
	kindManaged   = "managed"
	kindUnmanaged = "unmanaged"
	kindGlobal    = "global"
	kindFullScope = "full-scope"
	kindExpiring  = "expiring"
)

var (
	states = []string{string(rotation.StateMissing), string(rotation.StateCurrent), string(rotation.StateDue),
		string(rotation.StatePostponed), string(rotation.StateBlocked), string(rotation.StateUnknown),
		string(rotation.StateReleased), string(rotation.StateOther)}
	kinds = []string{kindManaged, kindUnmanaged, kindGlobal, kindFullScope, kindExpiring}
)

// filterOf reads a query. What it does not know it refuses: a misspelt filter would
// show everything.
func filterOf(q url.Values) (Filter, *Problem) {
	f := Filter{}
	for name, values := range q {
		at := map[string]*string{"state": &f.State, "organization": &f.Organization, "identity": &f.Identity,
			"kind": &f.Kind, "cursor": &f.Cursor, "limit": new(string)}[name]
		switch {
		case isKeyParameter(name):
			continue
		case at == nil:
			return f, badQuery(noParameter(name))
		case len(values) != 1:
			return f, badQuery(name + " may be given once.")
		}
		*at = values[0]
		if name != "limit" {
			continue
		}
		n, err := strconv.Atoi(values[0])
		if err != nil || n < 1 || n > MaxPage {
			return f, badQuery("limit must be from 1 to " + strconv.Itoa(MaxPage) + ".")
		}
		f.Limit = n
	}
	return f, nil
}

// isKeyParameter knows the parameters of the caller's key, which the host has checked.
func isKeyParameter(name string) bool { return name == "code" || name == "clientId" }

func noParameter(name string) string {
	return "This function knows no parameter " + strconv.Quote(clip(name)) + "."
}

func badQuery(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "The query cannot be used",
		Detail: detail}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// query is the filter without its place, for links and as what a cursor belongs to.
func (f Filter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"state": f.State, "organization": f.Organization, "identity": f.Identity,
		"kind": f.Kind} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// mark ties a cursor to its filter.
func (f Filter) mark() string {
	sum := sha256.Sum256([]byte(strings.ToLower(f.query().Encode())))
	return hex.EncodeToString(sum[:8])
}

func (f Filter) after() (key string, p *Problem) {
	if f.Cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(f.Cursor)
	mark, key, ok := strings.Cut(string(b), "\n")
	ours := err == nil && ok && mark == f.mark()
	if !ours || key == "" {
		return "", badQuery("cursor does not belong to this list: follow the list's own next.")
	}
	return key, nil
}

func (f Filter) next(key string) string {
	q := f.query()
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	q.Set("cursor", base64.RawURLEncoding.EncodeToString([]byte(f.mark()+"\n"+key)))
	return "/api/pats?" + q.Encode()
}

// linkTo is where the API has a managed PAT.
func linkTo(name string) string { return "/api/pats/" + name }

func (f Filter) check() *Problem {
	switch {
	case f.State != "" && !slices.Contains(states, f.State):
		return badQuery("state must be one of " + strings.Join(states, ", ") + ".")
	case f.Kind != "" && !slices.Contains(kinds, f.Kind):
		return badQuery("kind must be one of " + strings.Join(kinds, ", ") + ".")
	case f.Limit < 0 || f.Limit > MaxPage:
		return badQuery("limit must be from 1 to " + strconv.Itoa(MaxPage) + ".")
	}
	return nil
}

func (f Filter) owned(identity, organization string) bool {
	return (f.Identity == "" || strings.EqualFold(f.Identity, identity)) &&
		(f.Organization == "" || strings.EqualFold(f.Organization, organization))
}

func (f Filter) managed(i *rotation.Item) bool {
	return f.owned(i.Spec.Identity, i.Spec.Organization) && f.has(i.State) &&
		f.chooses(kindManaged, i.Global, i.FullScope, expiring(i))
}

func (f Filter) has(s rotation.State) bool { return f.State == "" || f.State == string(s) }

// chooses reports whether a PAT is of the filter's kind. own is the kind by which every
// PAT of its list is chosen.
func (f Filter) chooses(own string, global, fullScope, expiring bool) bool {
	switch f.Kind {
	case "", own:
		return true
	case kindGlobal:
		return global
	case kindFullScope:
		return fullScope
	case kindExpiring:
		return expiring
	}
	return false
}

// expiring: a managed PAT is replaced in time, so only one whose time has come counts.
func expiring(i *rotation.Item) bool {
	return i.State == rotation.StateDue && i.Decision.Reason == rotation.Expiring
}

func (f Filter) unmanaged(s rotation.Unmanaged, now time.Time) bool {
	return f.owned(s.Owner.Identity, s.Owner.Organization) && f.has(rotation.StateOther) &&
		f.chooses(kindUnmanaged, s.PAT.Global, s.PAT.FullScope(), s.PAT.Expiring(now))
}

func (f Filter) released(r ReleasedPAT) bool {
	return f.owned(r.Identity, r.Organization) && f.has(rotation.StateReleased) && f.Kind == ""
}

// entry is one line of the list of all PATs. Its key gives the order, which stays the
// same from page to page: managed ones by name, released ones by name, the others by
// their end.
type entry struct {
	key      string
	managed  *rotation.Item
	released *ReleasedPAT
	other    *rotation.Unmanaged
}

// List is one page of all PATs that the filter lets through.
func (a *API) List(ctx context.Context, f Filter) (Listing, *Problem) {
	if p := f.check(); p != nil {
		return Listing{}, p
	}
	after, p := f.after()
	if p != nil {
		return Listing{}, p
	}
	plan := a.planForPage(ctx, f.Cursor != "")
	entries := a.entries(plan, f)
	from := start(entries, after)
	limit := cmp.Or(f.Limit, MaxPage)
	page := entries[from:min(from+limit, len(entries))]
	out := a.listing(plan)
	for _, e := range page {
		out.add(e, plan.At)
	}
	if from+limit < len(entries) {
		out.Next = f.next(page[len(page)-1].key)
		a.recent.keep(plan)
	} else {
		a.recent.keep(rotation.Plan{})
	}
	return out, nil
}

// start finds where the page after a key begins.
func start(entries []entry, after string) int {
	byKey := func(e entry, key string) int { return strings.Compare(e.key, key) }
	from, found := slices.BinarySearchFunc(entries, after, byKey)
	if found {
		from++
	}
	return from
}

func (a *API) entries(plan rotation.Plan, f Filter) []entry {
	var out []entry
	for i := range plan.Items {
		if it := &plan.Items[i]; f.managed(it) {
			out = append(out, entry{key: "1/" + strings.ToLower(it.Spec.Name), managed: it})
		}
	}
	for _, v := range plan.Released {
		if r := a.released(v); f.released(r) {
			out = append(out, entry{key: "2/" + strings.ToLower(r.Name), released: &r})
		}
	}
	for _, s := range plan.Unmanaged {
		if f.unmanaged(s, plan.At) {
			key := strings.Join([]string{"3", s.PAT.ValidTo.UTC().Format(time.RFC3339),
				strings.ToLower(s.PAT.AuthorizationID), s.Owner.Identity, s.Owner.Organization}, "/")
			out = append(out, entry{key: key, other: &s})
		}
	}
	slices.SortFunc(out, func(x, y entry) int { return strings.Compare(x.key, y.key) })
	return out
}

// listing is an empty page with what every page says.
func (a *API) listing(plan rotation.Plan) Listing {
	return Listing{At: plan.At.UTC(), PATs: []ManagedPAT{}, Unmanaged: []UnmanagedPAT{}, Released: []ReleasedPAT{},
		Problems: blindSpots(plan.Problems), MassChanges: massChanges(plan), Counts: count(plan)}
}

func (l *Listing) add(e entry, now time.Time) {
	switch {
	case e.managed != nil:
		l.PATs = append(l.PATs, describe(*e.managed))
	case e.released != nil:
		l.Released = append(l.Released, *e.released)
	default:
		l.Unmanaged = append(l.Unmanaged, unmanaged(*e.other, now))
	}
}

func blindSpots(ps []rotation.Unobserved) []BlindSpot {
	out := []BlindSpot{}
	for _, q := range ps {
		out = append(out, BlindSpot{Scope: scopeOf(q), Identity: q.Identity, Organization: q.Organization,
			FailureCause: cause(q.Err)})
	}
	return out
}

// count takes stock.
func count(plan rotation.Plan) Inventory {
	n := Inventory{Managed: len(plan.Items), Unmanaged: len(plan.Unmanaged), Released: len(plan.Released)}
	add := func(to *int, yes bool) {
		if yes {
			*to++
		}
	}
	for i := range plan.Items {
		it := &plan.Items[i]
		add(&n.Missing, it.State == rotation.StateMissing)
		add(&n.Due, it.State == rotation.StateDue)
		add(&n.Blocked, it.State == rotation.StateBlocked)
		add(&n.Unknown, it.State == rotation.StateUnknown)
		add(&n.Global, it.Global)
		add(&n.FullScope, it.FullScope)
		add(&n.Expiring, expiring(it))
	}
	for i := range plan.Unmanaged {
		p := &plan.Unmanaged[i].PAT
		add(&n.Global, p.Global)
		add(&n.FullScope, p.FullScope())
		add(&n.Expiring, p.Expiring(plan.At))
	}
	return n
}

// isOrdered reports whether a person's order to replace the PAT stands.
func isOrdered(item rotation.Item) bool {
	return item.Current != nil && item.Current.Ledger.Facts.Order.Stands()
}

func describe(item rotation.Item) ManagedPAT {
	s := item.Spec
	self := linkTo(s.Name)
	out := ManagedPAT{Name: s.Name, State: string(item.State), Identity: s.Identity, Organization: s.Organization,
		DisplayName: s.DisplayName, Scopes: s.Scopes, RotateAt: timeOrNull(item.Due), Clamped: item.Clamped,
		Global: item.Global, FullScope: item.FullScope, Ordered: isOrdered(item), NeedsPerson: needsPerson(item),
		Links: &Links{Self: self, Rotate: self + "/rotate", Extend: self + "/extend"}}
	if c := item.Current; c != nil {
		out.AuthorizationID, out.ValidTo, out.LastReason = c.Ledger.AuthorizationID, timeOrNull(c.Expires),
			string(c.Ledger.Reason)
	}
	out.SwitchOver, out.late = switchOverOf(item), item.Late
	if item.Postponed.Reason != "" {
		out.RotateAt = timeOrNull(item.ReplacedAt)
		out.Postponed = &Postponement{Reason: item.Postponed.Reason, Due: timeOrNull(item.Due)}
	}
	if d := item.Decision; d.Action != "" {
		out.NextAction = &NextAction{Action: string(d.Action), Rule: d.Rule, Reason: string(d.Reason),
			Message: d.Message, At: timeOrNull(d.Next)}
	}
	if item.Err != nil {
		c := cause(item.Err)
		out.Problem = &c
	}
	return out
}

func unmanaged(s rotation.Unmanaged, now time.Time) UnmanagedPAT {
	out := UnmanagedPAT{DisplayName: s.PAT.DisplayName, Identity: s.Owner.Identity, Organization: s.Owner.Organization,
		AuthorizationID: s.PAT.AuthorizationID, Scopes: s.PAT.Scopes, ValidTo: s.PAT.ValidTo.UTC(),
		Global: s.PAT.Global, FullScope: s.PAT.FullScope(), Expiring: s.PAT.Expiring(now)}
	if out.Global {
		out.DeadFrom = timeOrNull(rotation.GlobalEnd())
	}
	if out.Scopes == nil {
		out.Scopes = []string{}
	}
	owner := url.Values{"identity": {s.Owner.Identity}, "organization": {s.Owner.Organization}}
	out.Links = &Links{Revoke: "/api/tokens/" + url.PathEscape(s.PAT.AuthorizationID) + "?" + owner.Encode()}
	return out
}

func (a *API) released(v rotation.Version) ReleasedPAT {
	return ReleasedPAT{Name: v.Name, Identity: v.Ledger.Identity,
		Organization:    a.Reconciler.Organization(v.Ledger.ProviderAddress),
		AuthorizationID: v.Ledger.AuthorizationID, ValidTo: timeOrNull(v.Expires)}
}

// recentPlan keeps what a list was made of while somebody turns its pages: another page
// need not list every PAT and secret again.
type recentPlan struct {
	mu   sync.Mutex
	plan rotation.Plan
}

// recentPlanAge is how old that may be.
const recentPlanAge = time.Minute

func (l *recentPlan) keep(p rotation.Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plan = p
}

// planForPage is a new plan, or for a further page the one of a moment ago.
func (a *API) planForPage(ctx context.Context, further bool) rotation.Plan {
	if further {
		a.recent.mu.Lock()
		plan := a.recent.plan
		a.recent.mu.Unlock()
		if !plan.At.IsZero() && a.Now().Sub(plan.At) < recentPlanAge {
			return plan
		}
	}
	return a.plan(ctx)
}

// listPATs: managed PATs with state and next action, released and unmanaged ones.
func (a *API) listPATs(w http.ResponseWriter, r *http.Request) {
	f, p := filterOf(r.URL.Query())
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.List(r.Context(), f)
	a.reply(w, r, http.StatusOK, out, p)
}
