package web

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// The dashboard is one address with two functions: GET shows the overview, POST does
// everything else. The address that the browser shows may carry a function key, which
// the page itself must not: every form posts to the very address of the page, and
// every answer is a page (a redirect would have to repeat the key). An action takes
// two steps: the first shows what would happen and gives out a confirmation, which
// permits exactly this to this person; the second does it.

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

// DashboardRoutes adds the dashboard.
func DashboardRoutes(a *API, mux *http.ServeMux) {
	d := &dashboard{API: a, template: sync.OnceValues(parseDashboard)}
	mux.HandleFunc("GET /api/dashboard", d.get)
	mux.HandleFunc("POST /api/dashboard", d.post)
}

type dashboard struct {
	*API
	template func() (*template.Template, error)
}

// dashboardPage is what the template shows: the parts that are not nil.
type dashboardPage struct {
	Title string
	Nonce string
	Style template.CSS
	JS    template.JS
	Now   time.Time
	Build Build
	// Actor is App Service authentication's user; empty: a function key was enough.
	Actor string

	Notice   *notice
	Overview *overview
	PAT      *patView
	Confirm  *confirmView
	Plan     *planView
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
}

type instead struct {
	Label  string
	Action action
}

func (d *dashboard) get(w http.ResponseWriter, r *http.Request) {
	d.show(w, r, d.overview(r.Context(), dashboardFilter{}))
}

func (d *dashboard) post(w http.ResponseWriter, r *http.Request) {
	d.show(w, r, d.answer(w, r))
}

// answer does what a form asks for.
func (d *dashboard) answer(w http.ResponseWriter, r *http.Request) *dashboardPage {
	ctx := r.Context()
	by, p := CallerOf(r, triggerDashboard)
	if p == nil {
		p = readForm(w, r)
	}
	if p != nil {
		return d.refuse(ctx, p)
	}
	form := r.PostForm
	if form.Get("act") != "" {
		act, p := actionOf(form)
		if p != nil {
			return d.refuse(ctx, p)
		}
		return d.perform(ctx, by, act, form.Get("token"))
	}
	switch form.Get("view") {
	case "pat":
		return d.pat(ctx, strings.TrimSpace(form.Get("name")), nil)
	case "plan":
		return d.dryRun(ctx)
	case "", "list":
		f, p := dashboardFilterOf(form)
		if p != nil {
			return d.refuse(ctx, p)
		}
		return d.overview(ctx, f)
	}
	return d.refuse(ctx, badForm("The dashboard has no view of this name: press one of its buttons."))
}

func badForm(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "The form cannot be used",
		Detail: detail}
}

// readForm reads what a form of this page sends, and nothing that another site sends.
func readForm(w http.ResponseWriter, r *http.Request) *Problem {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return badForm("It came from another site. Use the dashboard's own buttons.")
	}
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
	return d.withNotice(ctx, d.failureNotice(p, nil))
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
func (d *dashboard) show(w http.ResponseWriter, r *http.Request, page *dashboardPage) {
	page.Nonce, page.Build = rand.Text(), d.Build
	page.Style, page.JS = template.CSS(dashboardCSS), template.JS(dashboardJS)
	page.Now = d.Now().UTC()
	if who := actor(r); who != byFunctionKey {
		page.Actor = who
	}
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
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b.Bytes())
}
