package entra

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	flowLife    = 15 * time.Minute // from the first page to the last
	sessionLife = 24 * time.Hour   // of a browser's sign-in
	maxMFATries = 3

	cookieName = "__Host-browser"
)

// visitor is a browser: who is signed in there.
type visitor struct {
	seen     time.Time
	accounts map[string]*login // by object id
}

// login is one account's session in a browser.
type login struct {
	at  time.Time
	mfa time.Time // zero: without
}

type kind int

const (
	signInFlow kind = iota
	deviceFlow      // begins with a user code, ends with a page
	adminFlow       // an administrator's consent
)

// step is the page that a flow shows. Its name stands in the page's forms.
type step string

const (
	stepDevice  step = "device"  // enter the code of the other device
	stepAccount step = "account" // choose who you are
	stepSignIn  step = "sign-in" // prove it
	stepEnrol   step = "enrol"   // in multi-factor authentication
	stepMFA     step = "mfa"     // the code from the phone
	stepConfirm step = "confirm" // the other device's app, really?
	stepConsent step = "consent"
	stepBlocked step = "approval" // an administrator has to consent
)

// flow is a walk through the pages, from the client's request to the answer. It
// belongs to one browser. Each page that it shows has a ticket of its own,
// which serves once.
type flow struct {
	kind    kind
	visitor string // cookie of the browser
	started time.Time
	base    string // URL of the tenant's endpoints
	app     *App   // nil until a user code is known
	req     *signInRequest
	device  *device
	scopes  []string
	wanted  *wanted
	hint    string // preselects an account
	prompt  string
	demand  bool // the request's claims ask for multi-factor authentication

	step      step
	user      string // object id
	login     *login // nil: has yet to sign in
	code      string // what the phone shows
	tries     int
	confirmed bool
	consented bool
}

// reply writes an answer, without the server's lock.
type reply func(http.ResponseWriter, *http.Request)

// start begins a flow in the browser that asks and shows its first page.
func (s *Server) start(w http.ResponseWriter, r *http.Request, f *flow) reply {
	now := time.Now()
	s.tidy(now)
	cookie, v := s.visitor(r)
	if v == nil {
		cookie, v = randomHex(32), &visitor{accounts: map[string]*login{}}
		s.visitors[cookie] = v
		http.SetCookie(w, &http.Cookie{
			Name: cookieName, Value: cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		})
	}
	v.seen = now
	f.visitor, f.started = cookie, now
	s.recognize(f, v)
	if f.prompt == "none" {
		return s.silently(f, v)
	}
	return s.next(f, "")
}

func (s *Server) visitor(r *http.Request) (string, *visitor) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return "", nil
	}
	return c.Value, s.visitors[c.Value]
}

// tidy drops flows and browsers that nobody will come back with.
func (s *Server) tidy(now time.Time) {
	for ticket, f := range s.flows {
		if now.Sub(f.started) >= 2*flowLife { // until then it is known to have expired
			delete(s.flows, ticket)
		}
	}
	for cookie, v := range s.visitors {
		if now.Sub(v.seen) >= sessionLife {
			delete(s.visitors, cookie)
		}
	}
}

// session is an account's sign-in in a browser, if it still counts.
func (s *Server) session(v *visitor, id string) *login {
	u, l := s.byID(id), v.accounts[id]
	if l == nil || u == nil || u.Disabled {
		return nil
	}
	if l.at.Before(u.signInsFrom) || time.Since(l.at) >= sessionLife {
		return nil
	}
	return l
}

// recognize lets somebody pass who is signed in in this browser already.
func (s *Server) recognize(f *flow, v *visitor) {
	if f.prompt == "login" || f.prompt == "select_account" {
		return
	}
	var known []string
	for id := range v.accounts {
		if s.session(v, id) != nil && (f.hint == "" || strings.EqualFold(s.byID(id).signInName(), f.hint)) {
			known = append(known, id)
		}
	}
	if len(known) == 1 {
		f.user, f.login = known[0], s.session(v, known[0])
	}
}

// silently answers a request that wants no page.
func (s *Server) silently(f *flow, v *visitor) reply {
	refused := func(r *refusal) reply {
		if r.err == "invalid_grant" {
			r.err = "interaction_required"
		}
		return s.sendBack(f.req, r.fields())
	}
	if f.user == "" {
		for id := range v.accounts {
			if f.hint == "" && s.session(v, id) != nil {
				return refused(refuse(16000, ""))
			}
		}
		return refused(refuse(50058, ""))
	}
	u, r := s.member(f.user)
	switch {
	case r != nil:
		return refused(r)
	case s.blocks(f, u) != nil:
		return refused(s.blocks(f, u))
	case s.wantsMFA(f, u) && u.NotEnrolled:
		return refused(refuse(50079, ""))
	case s.wantsMFA(f, u):
		return refused(refuse(50076, ""))
	case len(s.missing(f.user, f.app, f.wanted)) > 0:
		return refused(refuse(65001, ""))
	}
	return s.finish(f)
}

// blocks finds a policy that ends the sign-in here.
func (s *Server) blocks(f *flow, u *user) *refusal {
	for _, p := range s.policiesFor(u, f.app) {
		if code := p.blocks(f.kind == deviceFlow); code != 0 {
			return refuse(code, "")
		}
	}
	return nil
}

func (s *Server) wantsMFA(f *flow, u *user) bool {
	return f.login.mfa.IsZero() && (f.demand || s.needsMFA(u, f.app))
}

// next shows the page that the flow needs now, or ends it.
func (s *Server) next(f *flow, note string) reply {
	if f.kind == deviceFlow && f.device == nil {
		return s.show(f, stepDevice, note)
	}
	if f.user == "" {
		return s.show(f, stepAccount, note)
	}
	u, refused := s.member(f.user)
	if refused != nil {
		f.user, f.login = "", nil
		return s.show(f, stepAccount, refused.note())
	}
	if f.login == nil {
		return s.show(f, stepSignIn, note)
	}
	if refused := s.blocks(f, u); refused != nil {
		return trouble(refused)
	}
	if s.wantsMFA(f, u) {
		if u.NotEnrolled {
			return s.show(f, stepEnrol, note)
		}
		if f.code == "" {
			f.code = fmt.Sprintf("%06d", randomNumber(1_000_000))
		}
		return s.show(f, stepMFA, note)
	}
	if f.kind == deviceFlow && !f.confirmed {
		return s.show(f, stepConfirm, note)
	}
	missing := s.missing(f.user, f.app, f.wanted)
	beyondUsers := f.kind == adminFlow || len(missing) > 0 && s.needsAdministrator(f.app, f.wanted, missing)
	switch {
	case f.consented:
	case beyondUsers && !u.Administrator:
		return s.show(f, stepBlocked, note)
	case f.kind == adminFlow, len(missing) > 0, f.prompt == "consent":
		return s.show(f, stepConsent, note)
	}
	return s.finish(f)
}

// show renders a page under a fresh ticket.
func (s *Server) show(f *flow, at step, note string) reply {
	f.step = at
	ticket := randomHex(32)
	s.flows[ticket] = f
	v := view{
		Step: at, Ticket: ticket, Action: f.base + "/signin", Note: note,
		Device: f.kind == deviceFlow, TenantWide: f.kind == adminFlow,
	}
	if f.app != nil {
		v.App, v.Scopes = f.app.Name, f.scopes
		if v.App == "" {
			v.App = f.app.ClientID
		}
	}
	if u := s.byID(f.user); u != nil {
		v.User = u.signInName()
		v.MayGrantForAll = u.Administrator && f.kind == signInFlow
	}
	switch at {
	case stepAccount:
		v.Accounts, v.Hint = s.accounts(), f.hint
		for _, a := range v.Accounts {
			if strings.EqualFold(a, f.hint) {
				v.Hint = a
			}
		}
	case stepMFA:
		v.Phone = f.code
	}
	return v.write
}

// accounts are all that can be chosen: the tenant's, and those who have no
// business here.
func (s *Server) accounts() []string {
	var out []string
	for _, u := range s.users {
		out = append(out, u.signInName())
	}
	for name := range s.outsiders {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// proceed takes a page's form.
func (s *Server) proceed(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	if err := r.ParseForm(); err != nil {
		trouble(refuse(90014, ""))(w, r)
		return
	}
	s.mu.Lock()
	out := s.take(r)
	s.mu.Unlock()
	out(w, r)
}

// take finds the form's flow, makes sure that it is this browser's, and lets
// the ticket serve once.
func (s *Server) take(r *http.Request) reply {
	ticket := r.PostForm.Get("flow")
	f := s.flows[ticket]
	cookie, v := s.visitor(r)
	ofThisBrowser := f != nil && v != nil && f.visitor == cookie
	if !ofThisBrowser || string(f.step) != r.PostForm.Get("step") {
		return trouble(refuse(165000, ""))
	}
	delete(s.flows, ticket)
	if time.Since(f.started) >= flowLife {
		return trouble(refuse(50089, ""))
	}
	v.seen = time.Now()
	return s.act(f, v, r.PostForm)
}

// act does what the person has decided.
func (s *Server) act(f *flow, v *visitor, form url.Values) reply {
	action := form.Get("action")
	if action == "cancel" {
		return s.cancel(f)
	}
	switch f.step {
	case stepDevice:
		d := s.waiting(form.Get("code"))
		if d == nil {
			return s.next(f, "That code did not work. Check it and try again.")
		}
		app := s.apps[d.client]
		w, refused := s.parseScopes(d.scope)
		if app == nil || refused != nil {
			return trouble(refuse(700016, ""))
		}
		f.device, f.app, f.scopes, f.wanted = d, app, strings.Fields(d.scope), w
		s.recognize(f, v)
	case stepAccount:
		u, refused := s.signInUser(form.Get("user"))
		if refused != nil {
			return s.next(f, refused.note())
		}
		f.user = u.ObjectID
		if f.prompt != "login" {
			f.login = s.session(v, f.user)
		}
	case stepSignIn:
		if action != "sign-in" {
			f.user = ""
			return s.next(f, "")
		}
		f.login = &login{at: time.Now()}
		v.accounts[f.user] = f.login
	case stepEnrol:
		if u := s.byID(f.user); u != nil {
			u.NotEnrolled = false
		}
	case stepMFA:
		if form.Get("code") != f.code {
			f.tries++
			if f.tries == maxMFATries {
				return trouble(refuse(500121, ""))
			}
			return s.next(f, "That code is wrong. Try again.")
		}
		f.code = ""
		f.login.mfa = time.Now()
	case stepConfirm:
		if action != "continue" {
			return s.cancel(f)
		}
		f.confirmed = true
	case stepConsent:
		if action != "accept" {
			return s.cancel(f)
		}
		whose := f.user
		if u := s.byID(f.user); u != nil && u.Administrator && form.Get("everybody") == "on" {
			whose = ""
		}
		if f.kind != adminFlow {
			if err := s.consent(whose, f.app.ClientID, f.scopes); err != nil {
				return trouble(refuse(650053, ""))
			}
		}
		f.consented = true
	default:
		return s.cancel(f)
	}
	return s.next(f, "")
}

// cancel ends a flow without success. The client gets to know, where there is one to
// go back to.
func (s *Server) cancel(f *flow) reply {
	switch f.kind {
	case deviceFlow:
		if f.device != nil && f.device.user == "" {
			f.device.declined = true
		}
		return s.done("Cancelled", "The other device has not been signed in. You can close this page.")
	case adminFlow:
		fields := refuse(65004, "").fields()
		fields.Set("admin_consent", "True")
		fields.Set("tenant", s.cfg.Tenant)
		return s.sendBack(f.req, fields)
	}
	r := refuse(65004, "")
	if f.step == stepBlocked {
		r = refuse(90094, "")
	}
	fields := r.fields()
	fields.Set("error_subcode", "cancel")
	return s.sendBack(f.req, fields)
}

// finish gives the client what it came for.
func (s *Server) finish(f *flow) reply {
	switch f.kind {
	case deviceFlow:
		if f.device.user != "" || f.device.declined || !time.Now().Before(f.device.expires) {
			return trouble(refuse(70020, ""))
		}
		f.device.user, f.device.signedIn, f.device.mfa = f.user, f.login.at, f.login.mfa
		return s.done("You have signed in", "Go back to the other device. You can close this page.")
	case adminFlow:
		return s.grantForTenant(f)
	}
	return s.sendBack(f.req, s.authorize(f.req, f.user, *f.login))
}

func (s *Server) done(title, text string) reply {
	return view{Step: "done", Title: title, Note: text}.write
}

// signOut ends a browser's sessions. Refresh tokens stay alive.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	back := r.FormValue("post_logout_redirect_uri")
	s.mu.Lock()
	if _, v := s.visitor(r); v != nil {
		clear(v.accounts)
	}
	registered := false
	for _, app := range s.apps {
		_, ok := app.platform(back)
		registered = registered || ok
	}
	s.mu.Unlock()
	if registered {
		http.Redirect(w, r, back, http.StatusFound)
		return
	}
	s.done("You have signed out", "You can close this page.")(w, r)
}
