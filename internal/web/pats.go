package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// patJSON is a managed PAT in answers.
type patJSON struct {
	Name            string      `json:"name"`
	State           string      `json:"state"`
	Identity        string      `json:"identity"`
	Organization    string      `json:"organization"`
	DisplayName     string      `json:"displayName"`
	Scopes          []string    `json:"scopes"`
	AuthorizationID string      `json:"authorizationId,omitempty"`
	ValidTo         *time.Time  `json:"validTo"`
	RotateAt        *time.Time  `json:"rotateAt"`
	Clamped         bool        `json:"clamped,omitempty"`
	LastReason      string      `json:"lastReason,omitempty"`
	NextAction      *nextJSON   `json:"nextAction"`
	Problem         *causeJSON  `json:"problem,omitempty"`
	Versions        []verJSON   `json:"versions,omitempty"`
	Links           *linksJSON  `json:"links,omitempty"`
	Failure         *failedJSON `json:"failure,omitempty"`
}

type nextJSON struct {
	Action  string     `json:"action"`
	Reason  string     `json:"reason,omitempty"`
	Message string     `json:"message"`
	At      *time.Time `json:"at"`
}

type causeJSON struct {
	Class   string `json:"class"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

type verJSON struct {
	Version          string     `json:"version"`
	Latest           bool       `json:"latest"`
	Enabled          bool       `json:"enabled"`
	Created          time.Time  `json:"created"`
	ValidTo          *time.Time `json:"validTo"`
	AuthorizationID  string     `json:"authorizationId,omitempty"`
	RotationID       string     `json:"rotationId,omitempty"`
	Reason           string     `json:"reason,omitempty"`
	Previous         string     `json:"previousVersion,omitempty"`
	RevokePreviousAt *time.Time `json:"revokePreviousAt,omitempty"`
	AnnouncedAt      *time.Time `json:"announcedAt,omitempty"`
	RevokedAt        *time.Time `json:"revokedAt,omitempty"`
}

type linksJSON struct {
	Self   string `json:"self"`
	Rotate string `json:"rotate"`
}

type strayJSON struct {
	DisplayName     string    `json:"displayName"`
	Identity        string    `json:"identity"`
	Organization    string    `json:"organization"`
	AuthorizationID string    `json:"authorizationId"`
	Scopes          []string  `json:"scopes"`
	ValidTo         time.Time `json:"validTo"`
	Global          bool      `json:"global,omitempty"`
}

type releasedJSON struct {
	Name    string     `json:"name"`
	ValidTo *time.Time `json:"validTo"`
}

type problemJSON struct {
	Identity     string `json:"identity,omitempty"`
	Organization string `json:"organization,omitempty"`
	causeJSON
}

type planJSON struct {
	At        time.Time      `json:"at"`
	PATs      []patJSON      `json:"pats"`
	Unmanaged []strayJSON    `json:"unmanaged"`
	Released  []releasedJSON `json:"released"`
	Problems  []problemJSON  `json:"problems"`
}

// listPATs: managed PATs with state and next action, and unmanaged ones.
func (a *API) listPATs(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, a.plan(a.Reconciler.Look(r.Context())))
}

func (a *API) plan(p rotation.Plan) planJSON {
	out := planJSON{At: p.At.UTC(), PATs: []patJSON{}, Unmanaged: []strayJSON{}, Released: []releasedJSON{}, Problems: []problemJSON{}}
	for _, item := range p.Items {
		out.PATs = append(out.PATs, describe(item))
	}
	for _, s := range p.Strays {
		out.Unmanaged = append(out.Unmanaged, strayJSON{DisplayName: s.PAT.DisplayName, Identity: s.Owner.Identity,
			Organization: s.Owner.Organization, AuthorizationID: s.PAT.AuthorizationID, Scopes: s.PAT.Scopes, ValidTo: s.PAT.ValidTo.UTC(), Global: s.PAT.Global})
	}
	for _, v := range p.Released {
		out.Released = append(out.Released, releasedJSON{Name: v.Name, ValidTo: when(v.Expires)})
	}
	for _, q := range p.Problems {
		out.Problems = append(out.Problems, problemJSON{q.Identity, q.Organization, cause(q.Err)})
	}
	return out
}

func describe(item rotation.Item) patJSON {
	s := item.Spec
	out := patJSON{Name: s.Name, State: string(item.State), Identity: s.Identity, Organization: s.Organization,
		DisplayName: s.DisplayName, Scopes: s.Scopes, RotateAt: when(item.Due), Clamped: item.Clamped,
		Links: &linksJSON{Self: "/api/pats/" + s.Name, Rotate: "/api/pats/" + s.Name + "/rotate"}}
	if c := item.Current; c != nil {
		out.AuthorizationID, out.ValidTo, out.LastReason = c.Ledger.AuthorizationID, when(c.Expires), string(c.Ledger.Reason)
	}
	if d := item.Decision; d.Action != "" {
		out.NextAction = &nextJSON{Action: string(d.Action), Reason: string(d.Reason), Message: d.Message, At: when(d.Next)}
	}
	if item.Err != nil {
		c := cause(item.Err)
		out.Problem = &c
	}
	return out
}

func cause(err error) causeJSON {
	if e := rotation.AsError(err); e != nil {
		return causeJSON{string(e.Class), e.Code, e.Message}
	}
	return causeJSON{Class: string(rotation.ClassOf(err)), Message: "an unexpected failure"}
}

// when is a time for JSON: null if it is not known.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func unknown(w http.ResponseWriter) {
	fail(w, Problem{Status: http.StatusNotFound, Type: "unknown-pat", Title: "No such PAT", Detail: "The manifest has no PAT of this name."})
}

// getPAT: one PAT, its versions and history.
func (a *API) getPAT(w http.ResponseWriter, r *http.Request) {
	item, ok := a.Reconciler.Inspect(r.Context(), r.PathValue("name"))
	if !ok {
		unknown(w)
		return
	}
	out := describe(item)
	versions, err := a.Versions.Versions(r.Context(), item.Spec.Name)
	if err != nil {
		a.upstream(w, r, err)
		return
	}
	out.Versions = []verJSON{}
	for _, v := range versions {
		l := v.Ledger
		out.Versions = append(out.Versions, verJSON{Version: v.ID, Latest: item.Current != nil && v.ID == item.Current.ID, Enabled: v.Enabled,
			Created: v.Created.UTC(), ValidTo: when(v.Expires), AuthorizationID: l.AuthorizationID, RotationID: l.RotationID, Reason: string(l.Reason),
			Previous: l.PreviousVersion, RevokePreviousAt: when(l.RevokePreviousAt), AnnouncedAt: when(l.AnnouncedAt), RevokedAt: when(l.RevokedAt)})
	}
	for _, f := range a.Reconciler.Failing() {
		if strings.EqualFold(f.PAT, item.Spec.Name) {
			j := failed(f)
			out.Failure = &j
		}
	}
	answer(w, http.StatusOK, out)
}

type rotateBody struct {
	Reason         string `json:"reason"`
	RevokePrevious string `json:"revokePrevious"`
}

type orderJSON struct {
	Operation      string `json:"operation"`
	PAT            string `json:"pat"`
	Reason         string `json:"reason"`
	From           string `json:"from,omitempty"`
	RevokePrevious string `json:"revokePrevious"`
	Status         string `json:"status"`
}

// rotatePAT orders to rotate away from the PAT that is current now. Pressing twice
// before it is done rotates once.
func (a *API) rotatePAT(w http.ResponseWriter, r *http.Request) {
	var body rotateBody
	if p := readJSON(w, r, &body); p != nil {
		fail(w, *p)
		return
	}
	c := rotation.Command{Reason: rotation.Requested, RevokePrevious: rotation.AfterOverlap, RequestedBy: actor(r), Operation: a.Operation()}
	switch body.RevokePrevious {
	case "", string(rotation.AfterOverlap):
	case string(rotation.Now):
		c.Reason, c.RevokePrevious = rotation.Compromised, rotation.Now
	default:
		fail(w, Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "The body cannot be used", Detail: `revokePrevious must be "overlap" or "now".`})
		return
	}
	if len(body.Reason) > 256 {
		fail(w, Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "The body cannot be used", Detail: "reason may have 256 bytes."})
		return
	}
	item, ok := a.Reconciler.Inspect(r.Context(), r.PathValue("name"))
	if !ok {
		unknown(w)
		return
	}
	c.PAT = item.Spec.Name
	if id := a.Identities.State(r.Context(), item.Spec.Identity); id.Required != "" || rotation.ClassOf(item.Err) == rotation.SignIn && item.Err != nil {
		fail(w, Problem{Status: http.StatusConflict, Type: "sign-in-required", Title: "A person has to sign in",
			Detail:    "The identity " + item.Spec.Identity + " cannot rotate anything before " + id.User + " signs in.",
			SignInURL: id.SignInURL, Class: string(rotation.SignIn), Code: id.Required})
		return
	}
	if item.Err != nil {
		a.upstream(w, r, item.Err)
		return
	}
	switch {
	case item.Current == nil:
		c.Reason = rotation.Provision
	default:
		c.From = item.Current.Ledger.AuthorizationID
	}
	a.Log.InfoContext(r.Context(), "rotation ordered", "pat", c.PAT, "from", c.From, "by", c.RequestedBy,
		"why", body.Reason, "revokePrevious", string(c.RevokePrevious), "operation", c.Operation)
	if err := a.Outbox.Send(r.Context(), c); err != nil {
		a.upstream(w, r, err)
		return
	}
	w.Header().Set("Location", "/api/pats/"+c.PAT)
	answer(w, http.StatusAccepted, orderJSON{Operation: c.Operation, PAT: c.PAT, Reason: string(c.Reason), From: c.From,
		RevokePrevious: string(c.RevokePrevious), Status: "/api/pats/" + c.PAT})
}
