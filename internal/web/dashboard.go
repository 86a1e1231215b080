package web

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// The dashboard is one address and one function. It is anonymous for the Functions host:
// the page itself knows its people, by Visits. GET shows what its query names, so that
// every view has an address; POST acts, and only for a form of this very session. An
// action takes two steps: the first shows what would happen and gives out a
// confirmation, which permits exactly this to this session; the second does it. Session
// and role are checked at both.

var (
	//go:embed dashboard.html
	dashboardHTML string
	//go:embed dashboard.css
	dashboardCSS string
	//go:embed dashboard.js
	dashboardJS string
)

// parseDashboard is left to the first who asks for the page: the app starts without.
func parseDashboard() (*template.Template, error) {
	return template.New("dashboard").Funcs(template.FuncMap{
		"plain":      plain,
		"moment":     func(at, now time.Time) moment { return moment{at, now} },
		"momentOf":   func(at *time.Time, now time.Time) moment { return momentOf(at, now) },
		"part":       func(page *dashboardPage, v any) inPage { return inPage{page, v} },
		"join":       strings.Join,
		"kindName":   kindName,
		"kinds":      func() []string { return kinds },
		"states":     stateNames,
		"sentence":   sentence,
		"actionWord": actionWord,
		"actWord":    actWord,
		"who":        who,
		"percent":    percent,
		"addressOf":  addressOfPAT,
		"found":      addressOfFilter,
		"planLine":   planLine,
		"ambiguous":  ambiguous,
	}).Parse(dashboardHTML)
}

// percent is a width of the bar for SVG.
func percent(units int) string {
	return strconv.FormatFloat(float64(units)*100/barWidth, 'f', 1, 64) + "%"
}

// inPage gives a part of the page what belongs to the whole.
type inPage struct {
	Page *dashboardPage
	V    any
}

// DashboardRoutes adds the dashboard, for the people that v lets in.
func DashboardRoutes(v *Visits) func(*API, *http.ServeMux) {
	return func(a *API, mux *http.ServeMux) {
		d := &dashboard{API: a, visits: v, template: sync.OnceValues(parseDashboard)}
		mux.HandleFunc("GET /api/dashboard", d.get)
		mux.HandleFunc("POST /api/dashboard", d.post)
	}
}

type dashboard struct {
	*API
	visits   *Visits
	template func() (*template.Template, error)
}

// dashboardPage is what the template shows: the parts that are not nil.
type dashboardPage struct {
	Status int // 0: 200
	Title  string
	Nonce  string
	Style  template.CSS
	JS     template.JS
	Now    time.Time
	Build  Build
	// Address is what the browser shows after a form, so that a reload sends nothing
	// again; empty: the page's own.
	Address string

	Actor string
	Role  Role
	Form  string // token of this session's forms

	Notice   *notice
	Overview *overview
	PAT      *patView
	Confirm  *confirmView
	Plan     *planView
}

// May is for the template: Reader, Operator or Administrator.
func (p *dashboardPage) May(role string) bool {
	return p.Role >= roleOf([]string{"Patrol." + role})
}

// notice says what came of what was asked for.
type notice struct {
	Bad    bool
	Title  string
	Text   []string
	Detail []string // codes and ids, to search the log by
	SignIn *signInView
	// Await makes the page ask again until this PAT has another version than it
	// had.
	Await string
	// Instead are other actions that may be what is wanted.
	Instead []instead
	Links   []pageLink
}

type instead struct {
	Label  string
	Action action
}

// get shows a view to whoever has a role, and sends everybody else to sign in.
func (d *dashboard) get(w http.ResponseWriter, r *http.Request) {
	v, problem := viewOf(r.URL.Query())
	who, ok := d.enter(w, r)
	if !ok {
		return
	}
	if who == nil || v.SignIn != "" {
		d.visits.begin(w, r, v.query(), promptOf(v.SignIn))
		return
	}
	if v.hasKey { // it stays in no address bar and no bookmark
		seeOther(w, addressOf(v.query()))
		return
	}
	ctx := r.Context()
	switch {
	case who.Role() < Reader:
		d.showNoRole(w, who)
	case problem != nil:
		d.show(w, r, who, d.refuse(ctx, problem))
	default:
		page := d.view(ctx, v)
		if page.PAT != nil && who.Role() >= Administrator {
			// Without it the page says all the rest.
			audit, _ := d.AuditOf(ctx, page.PAT.Name)
			page.PAT.TokenEvents = audit.Events
		}
		d.show(w, r, who, page)
	}
}

// enter reads who asks; nil: nobody who has signed in. Where that cannot be found out, or
// nobody could sign in, it has answered, and ok is false.
func (d *dashboard) enter(w http.ResponseWriter, r *http.Request) (who *session, ok bool) {
	if d.visits.PublicURL == "" {
		show(w, http.StatusServiceUnavailable, page{Title: titleNotSetUp, Text: []string{
			"patrol does not know its own address. Set PUBLIC_URL to the address at which browsers reach the app, " +
				"and add <PUBLIC_URL>" + callbackPath + " to the web redirect URIs of the app registration."}})
		return nil, false
	}
	who, err := d.visits.openSession(r)
	if err != nil {
		d.visits.refuse(w, r, err)
		return nil, false
	}
	return who, true
}

// view is what an address shows.
func (d *dashboard) view(ctx context.Context, v view) *dashboardPage {
	switch {
	case v.PAT != "":
		return d.pat(ctx, v.PAT, nil)
	case v.View == viewPlan:
		return d.dryRun(ctx)
	}
	page := d.overview(ctx, v.Filter)
	page.Overview.Confirm = v.Confirm
	return page
}

// post does what a form of this session asks for.
func (d *dashboard) post(w http.ResponseWriter, r *http.Request) {
	who, ok := d.enter(w, r)
	switch {
	case !ok:
		return
	case who == nil:
		show(w, http.StatusUnauthorized, page{Title: "You are not signed in any more",
			Text:  []string{"Nothing was done. Open the page, and it asks you to sign in."},
			Links: []pageLink{{"To the page", dashboardPath}}})
		return
	case !d.isOwnPage(r):
		d.show(w, r, who, d.refuse(r.Context(), notThisPage()))
		return
	}
	p := readForm(w, r)
	if p == nil && !who.ownsForm(r.PostForm.Get("form")) {
		p = notThisPage()
	}
	switch {
	case p == nil && r.PostForm.Get("act") == doSignOut:
		d.signOut(w, r, who)
	case who.Role() < Reader:
		d.showNoRole(w, who)
	case p != nil:
		d.show(w, r, who, d.refuse(r.Context(), p))
	default:
		d.show(w, r, who, d.answer(r.Context(), who, r.PostForm))
	}
}

// isOwnPage says that the browser calls the request one of the page's own: another site
// may know how a form looks.
func (d *dashboard) isOwnPage(r *http.Request) bool {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	if site != "" {
		return site == "same-origin"
	}
	return strings.EqualFold(origin, d.visits.PublicURL)
}

func notThisPage() *Problem {
	return &Problem{Status: http.StatusForbidden, Type: typeBadRequest, Title: "The form cannot be used",
		Detail: "It came from another site, or from a page of before you signed in. Use this page's own buttons."}
}

// answer does what a form asks for, if the person has the role for it.
func (d *dashboard) answer(ctx context.Context, who *session, form url.Values) *dashboardPage {
	act, p := actionOf(form)
	if p == nil {
		p = d.mayAct(who, act)
	}
	if p != nil {
		page := d.refuse(ctx, p)
		if p.again {
			again := addressOf("signin=" + signInAgain + "&" + act.view().query())
			page.Notice.Links = []pageLink{{"Sign in again", again}}
		}
		return page
	}
	by := who.caller()
	by.Session = who.Form
	return d.perform(ctx, by, act, form.Get("token"))
}

// mayAct is nil if somebody's role, and the age of the sign-in, are enough for an act.
func (d *dashboard) mayAct(who *session, act action) *Problem {
	needs := act.role()
	if who.Role() < needs {
		return &Problem{Status: http.StatusForbidden, Type: typeBadRequest, Title: "Your role is not enough for this",
			Detail: "It needs the role " + needs.Value() + ", and you have " + who.Role().Value() + ". " +
				whoGivesRoles}
	}
	if needs == Administrator && !who.isFresh(d.Now()) {
		return &Problem{Status: http.StatusForbidden, Type: typeBadRequest, Title: "Sign in again for this",
			again: true, Detail: "An administrator's act needs a sign-in of the last hour."}
	}
	return nil
}

const whoGivesRoles = "Whoever administers the app registration in Entra gives roles: under Enterprise applications, " +
	"this app, Users and groups."

// showNoRole is for somebody whom Entra knows, and nobody has given a role.
func (d *dashboard) showNoRole(w http.ResponseWriter, who *session) {
	show(w, http.StatusForbidden, page{Title: "You have no role here", Text: []string{
		"You are signed in as " + plain(who.Name) + ". To see this page takes the role " + Reader.Value() +
			"; to act, " + Operator.Value() + "; to revoke users' PATs, " + Administrator.Value() + ". " +
			whoGivesRoles,
		"Once you have it, sign in again."},
		Links: []pageLink{{"Sign in again", addressOf("signin=" + signInAgain)},
			{"Sign in with another account", addressOf("signin=" + signInChoose)}}})
}

// signOut clears this browser's cookie; elsewhere nothing changes.
func (d *dashboard) signOut(w http.ResponseWriter, r *http.Request, who *session) {
	d.visits.endSession(w)
	d.Log.InfoContext(r.Context(), "signed out of the page", "by", who.caller().Who)
	show(w, http.StatusOK, page{Title: "You have signed out", Text: []string{
		"This browser shows patrol's page to nobody any more. At Entra you may still be signed in."},
		Links: []pageLink{{"Sign in again", addressOf("signin=" + signInChoose)}}})
}

func badForm(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "The form cannot be used",
		Detail: detail}
}

// readForm reads what a form of this page sends.
func readForm(w http.ResponseWriter, r *http.Request) *Problem {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return badForm("It must be sent as application/x-www-form-urlencoded.")
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
	if err := r.ParseForm(); err != nil {
		return badForm("It cannot be read, or has more than 64 KiB.")
	}
	return nil
}

// refuse shows the overview below what went wrong.
func (d *dashboard) refuse(ctx context.Context, p *Problem) *dashboardPage {
	page := d.withNotice(ctx, d.failureNotice(p, nil))
	switch p.Status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusConflict:
		page.Status = p.Status
	}
	return page
}

func (d *dashboard) failureNotice(p *Problem, other []instead) *notice {
	n := &notice{Bad: true, Title: p.Title, Instead: other}
	if p.Detail != "" {
		n.Text = append(n.Text, sentence(p.Detail))
	}
	if step := nextStep(p); step != "" {
		n.Text = append(n.Text, step)
	}
	if p.SignInURL != "" {
		n.SignIn = signInAt(p.SignInURL)
	}
	for _, x := range []field{{"Code", p.Code}, {"Activity", p.ActivityID}} {
		if x.Value != "" {
			n.Detail = append(n.Detail, x.Name+": "+x.Value)
		}
	}
	return n
}

// nextStep is what a person does next after a problem.
func nextStep(p *Problem) string {
	switch p.Type {
	case typeUpstream:
		return "It may have been done in part. The list below shows how things are now; try again in a minute."
	case typeThrottled:
		return "Nothing was done. Try again in a minute."
	case typeConfirmation:
		return "Nothing was done. Read what would happen, and confirm it again."
	case typeSignInRequired:
		return "Nothing was done. After the sign-in, ask again."
	case typeKeyReused:
		return "Nothing was done. Start again from the list."
	}
	return ""
}

// show writes the page. Its one script and its one style are named by a nonce; it
// loads nothing, and its forms go nowhere else.
func (d *dashboard) show(w http.ResponseWriter, r *http.Request, who *session, page *dashboardPage) {
	page.Nonce, page.Build = rand.Text(), d.Build
	page.Style, page.JS = template.CSS(dashboardCSS), template.JS(dashboardJS)
	page.Now = d.Now().UTC()
	page.Actor, page.Role, page.Form = who.Name, who.Role(), who.Form
	var b bytes.Buffer
	t, err := d.template()
	if err == nil {
		err = t.Execute(&b, page)
	}
	if err != nil {
		d.Log.ErrorContext(r.Context(), "the dashboard's page could not be rendered", "class",
			string(rotation.ClassOf(err)))
		http.Error(w, "patrol could not render the page: report it", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	secure(h, "style-src 'nonce-"+page.Nonce+"'", "script-src 'nonce-"+page.Nonce+"'", "img-src data:",
		"form-action 'self'", "connect-src 'self'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(cmp.Or(page.Status, http.StatusOK))
	_, _ = w.Write(b.Bytes())
}
