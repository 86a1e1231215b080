package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// An incident is one compromise: a PAT, an identity or an organization whose PATs must all
// be replaced now. It orders what patrol manages, and lists what it does not: those end one
// by one, by a person's word.

// IncidentScope is what is compromised: exactly one of the three.
type IncidentScope struct {
	PAT          string `json:"pat,omitempty"`
	Identity     string `json:"identity,omitempty"`
	Organization string `json:"organization,omitempty"`
}

// IncidentRequest starts an incident, or with DryRun asks what it would do.
type IncidentRequest struct {
	Scope  IncidentScope `json:"scope"`
	Reason string        `json:"reason,omitempty"` // free text, for the log
	DryRun bool          `json:"dryRun,omitempty"`
	// Confirmation is from the answer to DryRun: it fits exactly this.
	Confirmation string `json:"confirmation,omitempty"`
}

// States of an IncidentPAT.
const (
	incidentPlanned = "planned"  // it would be ordered
	incidentOrdered = "ordered"  // it stands, and is not carried out yet
	incidentStored  = "replaced" // its successor is stored, and it still lives
	incidentEnded   = "ended"    // it is revoked
	incidentFailed  = "failed"   // the order could not be given
	incidentNothing = "nothing"  // there is no PAT to replace
	incidentUnknown = "unknown"  // it could not be looked at
)

// IncidentPAT is a managed PAT in scope.
type IncidentPAT struct {
	Name         string `json:"name"`
	Identity     string `json:"identity"`
	Organization string `json:"organization"`
	State        string `json:"state"`
	// AuthorizationID is the compromised PAT's.
	AuthorizationID string        `json:"authorizationId,omitempty"`
	ReplacedAt      *time.Time    `json:"replacedAt,omitempty"`
	EndedAt         *time.Time    `json:"endedAt,omitempty"`
	Problem         *FailureCause `json:"problem,omitempty"`
	Link            string        `json:"link"`
}

// IncidentUnmanaged is a PAT in scope that patrol does not manage: nobody ends it but a
// person, one by one.
type IncidentUnmanaged struct {
	DisplayName     string    `json:"displayName"`
	Identity        string    `json:"identity"`
	Organization    string    `json:"organization"`
	AuthorizationID string    `json:"authorizationId"`
	ValidTo         time.Time `json:"validTo"`
	Global          bool      `json:"global,omitempty"`
	// Revoke is the DELETE that ends it.
	Revoke string `json:"revoke"`
}

// Incident is what was ordered, and how far it is.
type Incident struct {
	ID      string        `json:"id,omitempty"` // empty: a dry run
	Scope   IncidentScope `json:"scope"`
	By      string        `json:"by,omitempty"`
	Started *time.Time    `json:"started"`
	// Steps are what people have to do themselves, first one first.
	Steps     []string            `json:"steps"`
	PATs      []IncidentPAT       `json:"pats"`
	Unmanaged []IncidentUnmanaged `json:"unmanaged"`
	// Blind is what could not be looked at: PATs there may be missing.
	Blind []BlindSpot `json:"blind"`
	Done  bool        `json:"done"` // every managed PAT in scope has ended
	// Confirmation and Expires are of a dry run.
	Confirmation string     `json:"confirmation,omitempty"`
	Expires      *time.Time `json:"expires,omitempty"`
	Status       string     `json:"status,omitempty"` // where to watch it
}

// IncidentStore keeps incidents beyond this process. Its error is rotation.ErrNotFound if
// there is none of an id.
type IncidentStore interface {
	ReadIncident(ctx context.Context, id string) ([]byte, error)
	WriteIncident(ctx context.Context, id string, record []byte) error
}

// incidentRecord is incidents/<id>.json: what was ordered. How far it is stands in the vault.
type incidentRecord struct {
	Scope   IncidentScope `json:"scope"`
	By      string        `json:"by"`
	Started time.Time     `json:"started"`
	PATs    []IncidentPAT `json:"pats"`
}

// check refuses a scope that is none, and finds the manifest's spelling of it.
func (a *API) checkScope(s *IncidentScope) *Problem {
	given := 0
	for _, name := range []string{s.PAT, s.Identity, s.Organization} {
		if name != "" {
			given++
		}
	}
	if given != 1 {
		return badBody(`scope must have one of pat, identity and organization.`)
	}
	for _, spec := range a.Reconciler.Specs() {
		switch {
		case s.PAT != "" && strings.EqualFold(s.PAT, spec.Name):
			s.PAT = spec.Name
			return nil
		case s.Identity != "" && s.Identity == spec.Identity:
			return nil
		case s.Organization != "" && strings.EqualFold(s.Organization, spec.Organization):
			s.Organization = spec.Organization
			return nil
		}
	}
	switch {
	case s.PAT != "":
		return unknownPAT()
	case s.Identity != "":
		return &Problem{Status: http.StatusNotFound, Type: typeUnknownIdentity, Title: "No such identity",
			Detail: "The manifest has no PAT of an identity of this name."}
	}
	return &Problem{Status: http.StatusUnprocessableEntity, Type: typeUnknownMember, Title: "No such organization",
		Detail: "The manifest has no PAT in an organization of this name."}
}

func (s IncidentScope) covers(spec *rotation.Spec) bool {
	return s.PAT != "" && s.PAT == spec.Name || s.Identity != "" && s.Identity == spec.Identity ||
		s.Organization != "" && strings.EqualFold(s.Organization, spec.Organization)
}

// coversOwner says that an owner's unmanaged PATs are in scope; of one PAT none is.
func (s IncidentScope) coversOwner(o rotation.Owner) bool {
	return s.Identity != "" && s.Identity == o.Identity ||
		s.Organization != "" && strings.EqualFold(s.Organization, o.Organization)
}

// steps are what patrol cannot do.
func (s IncidentScope) steps(user string) []string {
	return []string{
		"Revoke the sessions of " + user + " in Entra, and have the user's password and methods renewed: a refresh " +
			"token that somebody has taken makes new PATs until then.",
		"Sign the identity in again: " + "/api/identities/" + url.PathEscape(s.Identity) + "/signin",
		"Look at the PATs below that patrol does not manage, and revoke each that you do not know.",
	}
}

// outlook is an incident as things are, before or after it has begun.
func (a *API) outlook(ctx context.Context, scope IncidentScope, plan rotation.Plan) (Incident, []rotation.Item) {
	out := Incident{Scope: scope, PATs: []IncidentPAT{}, Unmanaged: []IncidentUnmanaged{},
		Blind: blindSpots(plan.Problems)}
	var items []rotation.Item
	for i := range plan.Items {
		it := &plan.Items[i]
		if !scope.covers(&it.Spec) {
			continue
		}
		x := IncidentPAT{Name: it.Spec.Name, Identity: it.Spec.Identity, Organization: it.Spec.Organization,
			State: incidentPlanned, Link: linkTo(it.Spec.Name)}
		if it.Current != nil {
			x.AuthorizationID = it.Current.Ledger.AuthorizationID
		}
		switch {
		case x.AuthorizationID != "":
		case it.Err != nil:
			p := cause(it.Err)
			x.State, x.Problem = incidentUnknown, &p
		default:
			x.State = incidentNothing
		}
		out.PATs, items = append(out.PATs, x), append(items, *it)
	}
	for i := range plan.Unmanaged {
		u := &plan.Unmanaged[i]
		if !scope.coversOwner(u.Owner) {
			continue
		}
		q := url.Values{"identity": {u.Owner.Identity}, "organization": {u.Owner.Organization}}
		out.Unmanaged = append(out.Unmanaged, IncidentUnmanaged{DisplayName: u.PAT.DisplayName,
			Identity: u.Owner.Identity, Organization: u.Owner.Organization, AuthorizationID: u.PAT.AuthorizationID,
			ValidTo: u.PAT.ValidTo.UTC(), Global: u.PAT.Global,
			Revoke: "/api/tokens/" + url.PathEscape(u.PAT.AuthorizationID) + "?" + q.Encode()})
	}
	out.Steps = []string{}
	if scope.Identity != "" {
		out.Steps = scope.steps(a.Identities.State(ctx, scope.Identity).User)
	}
	return out, items
}

// describe names what a confirmation permits: these PATs of this scope, and no others.
func (x *Incident) describe() string {
	parts := []string{"incident", x.Scope.PAT, x.Scope.Identity, x.Scope.Organization}
	for _, p := range x.PATs {
		parts = append(parts, p.Name+"="+strings.ToLower(p.AuthorizationID))
	}
	return strings.Join(parts, "\n")
}

// PlanIncident is what an incident would do, with the confirmation that permits it.
func (a *API) PlanIncident(ctx context.Context, by Caller, scope IncidentScope) (Incident, *Problem) {
	if p := a.checkScope(&scope); p != nil {
		return Incident{}, p
	}
	out, _ := a.outlook(ctx, scope, a.Reconciler.Plan(ctx))
	token, until, p := a.confirmationFor(ctx, by, out.describe())
	out.Confirmation, out.Expires = token, timeOrNull(until)
	return out, p
}

// StartIncident orders every managed PAT in scope to be replaced, and the compromised one
// to end at once, under one operation: the incident's id.
func (a *API) StartIncident(ctx context.Context, by Caller, o IncidentRequest) (Incident, *Problem) {
	scope := o.Scope
	if p := a.checkScope(&scope); p != nil {
		return Incident{}, p
	}
	target := scope.PAT + scope.Identity + scope.Organization
	o.Scope = scope
	asked := request{name: "start-incident", target: target, body: o}
	return do(ctx, a, by, asked, func(ctx context.Context, id string) (Incident, *Problem) {
		if len(o.Reason) > maxReason {
			return Incident{}, badBody("reason may have 256 bytes at most.")
		}
		if by.Key != "" {
			// Another process may have started it: the orders say so.
			if known, p := a.GetIncident(ctx, id); p == nil {
				return known, nil
			}
		}
		out, items := a.outlook(ctx, scope, a.Reconciler.Plan(ctx))
		if p := a.confirmIncident(ctx, by, &out, o.Confirmation); p != nil {
			return Incident{}, p
		}
		now := a.Now().UTC()
		out.ID, out.By, out.Started, out.Status = id, by.Who, &now, "/api/incidents/"+id
		a.Log.InfoContext(ctx, "incident started", "incident", id, "scope", target, "pats", len(items), "by", by.Who,
			"why", o.Reason)
		a.keepIncident(ctx, &out) // before the first order: whoever asks finds it
		var failed error
		ordered := 0
		for i := range items {
			err := a.orderNow(ctx, id, by, &items[i], &out.PATs[i])
			failed = errors.Join(failed, err)
			if out.PATs[i].State == incidentOrdered {
				ordered++
			}
		}
		a.keepIncident(ctx, &out)
		if ordered == 0 && failed != nil {
			return Incident{}, a.upstream(ctx, failed)
		}
		return out, nil
	})
}

// orderNow orders one PAT. What fails is told with it, and keeps no other from being ordered.
func (a *API) orderNow(ctx context.Context, id string, by Caller, it *rotation.Item, x *IncidentPAT) error {
	switch x.State {
	case incidentNothing:
		return nil
	case incidentUnknown:
		return it.Err
	}
	c := rotation.Command{PAT: it.Spec.Name, Reason: rotation.Compromised, RevokePrevious: rotation.Now,
		RequestedBy: by.Who, Operation: id, From: x.AuthorizationID}
	err := a.actions.Order(ctx, c, it.Current)
	x.State = incidentOrdered
	if err != nil {
		p := cause(err)
		x.State, x.Problem = incidentFailed, &p
	}
	return err
}

// keepIncident writes the record. Without it the incident is told from the orders.
func (a *API) keepIncident(ctx context.Context, x *Incident) {
	if a.Incidents == nil {
		return
	}
	record, err := json.Marshal(incidentRecord{Scope: x.Scope, By: x.By, Started: *x.Started, PATs: x.PATs})
	if err == nil {
		err = a.Incidents.WriteIncident(ctx, x.ID, record)
	}
	if err != nil {
		a.Log.WarnContext(ctx, "an incident could not be kept; it is told from the orders on the versions",
			"incident", x.ID, "class", string(rotation.ClassOf(err)))
	}
}

// GetIncident tells how far an incident is: from what was kept of it, or from the orders.
func (a *API) GetIncident(ctx context.Context, id string) (Incident, *Problem) {
	unknown := &Problem{Status: http.StatusNotFound, Type: typeUnknownIncident, Title: "No such incident",
		Detail: "No incident of this id was kept, and no version of a secret has an order of it."}
	if !validKey(id) || len(id) > maxIncidentID || strings.ContainsAny(id, `/\.`) {
		return Incident{}, unknown
	}
	record, known := a.readIncident(ctx, id)
	plan := a.Reconciler.Plan(ctx)
	out, items := a.outlook(ctx, record.Scope, plan)
	if !known {
		out, items = a.fromOrders(id, plan)
		if len(items) == 0 {
			return Incident{}, unknown
		}
	}
	out.ID, out.Status = id, "/api/incidents/"+id
	if known {
		out.By, out.Started = record.By, timeOrNull(record.Started)
	}
	out.Done = true
	for i := range out.PATs {
		x := &out.PATs[i]
		if k := slices.IndexFunc(record.PATs, func(p IncidentPAT) bool { return p.Name == x.Name }); k >= 0 {
			x.AuthorizationID, x.State, x.Problem = record.PATs[k].AuthorizationID, record.PATs[k].State,
				record.PATs[k].Problem
		}
		a.progress(ctx, id, &items[i], x)
		out.Done = out.Done && (x.State == incidentEnded || x.State == incidentNothing)
	}
	return out, nil
}

const maxIncidentID = 64

func (a *API) readIncident(ctx context.Context, id string) (r incidentRecord, known bool) {
	if a.Incidents == nil {
		return r, false
	}
	text, err := a.Incidents.ReadIncident(ctx, id)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil && !errors.Is(err, rotation.ErrNotFound) {
		a.Log.WarnContext(ctx, "an incident's record cannot be read; it is told from the orders on the versions",
			"incident", id, "class", string(rotation.ClassOf(err)))
	}
	return r, err == nil
}

// fromOrders finds the PATs that an incident has ordered by what their versions say.
func (a *API) fromOrders(id string, plan rotation.Plan) (Incident, []rotation.Item) {
	short := rotation.ShortOperation(id)
	out := Incident{PATs: []IncidentPAT{}, Unmanaged: []IncidentUnmanaged{}, Steps: []string{},
		Blind: blindSpots(plan.Problems)}
	var items []rotation.Item
	for i := range plan.Items {
		it := &plan.Items[i]
		if it.Current == nil {
			continue
		}
		l := &it.Current.Ledger
		order := l.Facts.Order
		stands := order.Operation == short && order.RevokePrevious == rotation.Now
		if !stands && l.Facts.Done != short && l.Operation != id {
			continue
		}
		x := IncidentPAT{Name: it.Spec.Name, Identity: it.Spec.Identity, Organization: it.Spec.Organization,
			State: incidentOrdered, Link: linkTo(it.Spec.Name)}
		if stands {
			x.AuthorizationID, out.By, out.Started = l.AuthorizationID, order.By, timeOrNull(order.At)
		}
		out.PATs, items = append(out.PATs, x), append(items, *it)
	}
	return out, items
}

// progress finds how far the replacement of one PAT is.
func (a *API) progress(ctx context.Context, id string, it *rotation.Item, x *IncidentPAT) {
	if x.State == incidentNothing || it.Current == nil {
		return
	}
	short := rotation.ShortOperation(id)
	isIts := func(v *rotation.Version) bool {
		return v.Ledger.RotationID != "" && (v.Ledger.Facts.Done == short || v.Ledger.Operation == id)
	}
	isCurrent := strings.EqualFold(it.Current.Ledger.AuthorizationID, x.AuthorizationID)
	if x.State != incidentFailed && isCurrent && !isIts(it.Current) {
		x.State = incidentOrdered
		return
	}
	versions, err := a.Versions.Versions(ctx, it.Spec.Name)
	if err != nil {
		p := cause(err)
		x.State, x.Problem = incidentUnknown, &p
		return
	}
	k := slices.IndexFunc(versions, func(v rotation.Version) bool { return isIts(&v) })
	if k < 0 {
		return
	}
	x.State, x.ReplacedAt, x.Problem = incidentStored, timeOrNull(versions[k].Created), nil
	if x.AuthorizationID == "" {
		x.AuthorizationID = versions[k].Ledger.Previous
	}
	for _, v := range versions[k+1:] { // newest first: those before it
		isCompromised := strings.EqualFold(v.Ledger.AuthorizationID, x.AuthorizationID)
		if at := v.Ledger.RevokedAt; isCompromised && !at.IsZero() {
			x.State, x.EndedAt = incidentEnded, timeOrNull(at)
		}
	}
}

// startIncident: POST incidents.
func (a *API) startIncident(w http.ResponseWriter, r *http.Request) {
	var body IncidentRequest
	by, p := a.posted(w, r, &body)
	isDry := body.DryRun
	switch r.URL.Query().Get("dryRun") {
	case "", "false":
	case "true":
		isDry = true
	default:
		p = badQuery("dryRun must be true or false.")
	}
	if p == nil && isDry && body.Confirmation != "" {
		p = badBody("A dry run confirms nothing: leave out confirmation or dryRun.")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	if isDry {
		plan, p := a.PlanIncident(r.Context(), by, body.Scope)
		a.reply(w, r, http.StatusOK, plan, p)
		return
	}
	body.DryRun = false
	out, p := a.StartIncident(r.Context(), by, body)
	if p == nil {
		w.Header().Set("Location", out.Status)
	}
	a.reply(w, r, http.StatusAccepted, out, p)
}

// confirmIncident holds a confirmation against what would be done now.
func (a *API) confirmIncident(ctx context.Context, by Caller, plan *Incident, token string) *Problem {
	if token == "" {
		return &Problem{Status: http.StatusUnprocessableEntity, Type: typeConfirmation, Title: titleConfirmation,
			Detail: "An incident needs the confirmation that the answer to dryRun has."}
	}
	return a.checkConfirmation(ctx, by, plan.describe(), token)
}

// getIncident: GET incidents/{id}.
func (a *API) getIncident(w http.ResponseWriter, r *http.Request) {
	out, p := a.GetIncident(r.Context(), r.PathValue("id"))
	a.reply(w, r, http.StatusOK, out, p)
}
