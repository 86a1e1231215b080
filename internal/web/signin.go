package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// signInCookie begins the name of the cookie that ties a sign-in to the browser that
	// started it; the beginning of its state ends the name, so that two of one browser do
	// not break each other. The prefix makes browsers refuse it from anywhere but this
	// very host.
	signInCookie = "__Host-patrol-signin-"
	// signInPurpose is what it is sealed for.
	signInPurpose = "sign-in of an identity"
	// maxSignIns is how many a browser keeps at once: somebody else's page can begin them,
	// and must not fill its headers.
	maxSignIns = 4
	// atThisHost marks a sign-in that has been sent to PUBLIC_URL's host before: a gateway
	// may rewrite the host, and the app would send it there for ever.
	atThisHost = "here"
	// signInLife is how long a person may take.
	signInLife = 10 * time.Minute
	// maxChecks is how many PATs of an identity are checked as soon as it has signed
	// in; the next sweep checks the others.
	maxChecks = 100
)

// SignIns is Entra's side of a sign-in.
type SignIns interface {
	SignInURL(ctx context.Context, identity string, r entra.SignInRequest) (string, error)
	CompleteSignIn(ctx context.Context, identity string, g entra.CodeGrant) error
	AdminConsentLink(identity, redirectURI, state string) (string, error)
}

// Sealer encrypts what the browser carries.
type Sealer interface {
	Seal(ctx context.Context, purpose string, text []byte) (string, error)
	Open(ctx context.Context, purpose, sealed string) ([]byte, error)
}

// SignInConfig holds what the sign-in pages need. What may be nil says so.
type SignInConfig struct {
	SignIns SignIns
	Sealer  Sealer
	// PublicURL is the base of the redirect URI; empty: not known.
	PublicURL string
	// MayConfirm tells whether an operator's session of the page sends a request, and
	// whose. Nobody else confirms a changed user; nil: nobody does.
	MayConfirm func(r *http.Request) (who string, ok bool)
	// Specs are the manifest's PATs: an identity's are checked once it has signed in.
	Specs  func() []rotation.Spec
	Outbox rotation.Outbox
	Now    func() time.Time
	Log    *slog.Logger
	// Visits are people's sign-ins to the page, which come back to the same address.
	Visits *Visits
}

type signIn struct {
	SignInConfig
	observations *observations

	mu   sync.Mutex
	used map[string]time.Time // states that came back, until they are too old
}

// SignInRoutes adds the sign-in pages.
func SignInRoutes(c SignInConfig) func(*API, *http.ServeMux) {
	s := &signIn{SignInConfig: c, used: map[string]time.Time{}}
	return func(a *API, mux *http.ServeMux) {
		s.observations = a.observations
		mux.HandleFunc("GET /api/identities/{identity}/signin", s.start)
		mux.HandleFunc("GET /api/signin/callback", s.callback)
	}
}

// flow is what the cookie holds: one walk to Entra and back.
type flow struct {
	Identity string    `json:"identity"`
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Confirm  string    `json:"confirm,omitempty"`
	Until    time.Time `json:"until"`
}

func (s *signIn) redirectURI() string { return s.PublicURL + "/api/signin/callback" }

// start sends the browser to Entra. Anybody may call it, and only the user whom the
// manifest names can finish it.
func (s *signIn) start(w http.ResponseWriter, r *http.Request) {
	if s.PublicURL == "" {
		s.reply(w, r, http.StatusServiceUnavailable, TypeConfiguration, page{Title: titleNotSetUp,
			Text: []string{"patrol does not know its own address. Set PUBLIC_URL to the address at which browsers " +
				"reach the app, and add <PUBLIC_URL>/api/signin/callback to the web redirect URIs of the app " +
				"registration."}})
		return
	}
	if isElsewhere(r, s.PublicURL) {
		s.sendHome(w, r)
		return
	}
	confirm := r.URL.Query().Get("confirm")
	who, ok := s.mayStart(w, r, confirm)
	if !ok {
		return
	}
	f := flow{Identity: r.PathValue("identity"), State: rand.Text(), Nonce: rand.Text(),
		Verifier: rand.Text() + rand.Text(), Confirm: confirm, Until: s.Now().Add(signInLife)}
	challenge := sha256.Sum256([]byte(f.Verifier))
	location, err := s.SignIns.SignInURL(r.Context(), f.Identity, entra.SignInRequest{RedirectURI: s.redirectURI(),
		State: f.State, Nonce: f.Nonce, NoHint: true, Challenge: base64.RawURLEncoding.EncodeToString(challenge[:])})
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	text, err := json.Marshal(f)
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	sealed, err := s.Sealer.Seal(r.Context(), signInPurpose, text)
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	if confirm != "" {
		s.Log.InfoContext(r.Context(), "a changed user of an identity is confirmed", "identity", f.Identity, "by", who,
			"user", confirm)
	}
	s.Log.DebugContext(r.Context(), "sign-in started", "identity", f.Identity, "confirm", confirm != "")
	dropSignIns(w, r)
	setCookie(w, cookieOf(f.State), sealed, int(signInLife/time.Second))
	secure(w.Header())
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// isElsewhere reports whether a sign-in begins on another host than it ends on: there the
// browser would not send the cookie.
func isElsewhere(r *http.Request, publicURL string) bool {
	home, err := url.Parse(publicURL)
	return err == nil && !r.URL.Query().Has(atThisHost) && plainHost(publicHost(r)) != plainHost(home.Host)
}

// plainHost is a host without what makes no difference.
func plainHost(host string) string {
	host = strings.ToLower(host)
	if h, port, err := net.SplitHostPort(host); err == nil && (port == "443" || port == "80") {
		host = h
	}
	return strings.TrimSuffix(host, ".")
}

// sendHome sends the browser to PUBLIC_URL's host, once. The caller's key stays behind.
func (s *signIn) sendHome(w http.ResponseWriter, r *http.Request) {
	q := url.Values{atThisHost: {"1"}}
	if confirm := r.URL.Query().Get("confirm"); confirm != "" {
		q.Set("confirm", confirm)
	}
	secure(w.Header())
	w.Header().Set("Location", s.PublicURL+"/api/identities/"+url.PathEscape(r.PathValue("identity"))+"/signin?"+
		q.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

// mayStart refuses a confirmation of a changed user that does not come from an operator's
// own page. Where it refuses, it has answered.
func (s *signIn) mayStart(w http.ResponseWriter, r *http.Request, confirm string) (who string, ok bool) {
	if confirm == "" {
		return "", true
	}
	if !rotation.IsGUID(confirm) {
		s.reply(w, r, http.StatusBadRequest, typeBadRequest, page{Title: titleNoLink,
			Text: []string{"The parameter confirm must be the object id that the sign-in page has shown."}})
		return "", false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	isOwnPage := site == "" || site == "same-origin" || site == "none"
	if s.MayConfirm != nil && isOwnPage {
		who, ok = s.MayConfirm(r)
	}
	if !ok {
		s.reply(w, r, http.StatusForbidden, typeSignInRefused, page{Title: titleNoLink,
			Text: []string{"That the user of an identity is another account than before, only an operator confirms: " +
				"somebody with the role Patrol.Operator or Patrol.Administrator, who is signed in to the dashboard " +
				"in this browser. Without it, start again without the parameter confirm."}})
	}
	return who, ok
}

func cookieOf(state string) string { return signInCookie + state[:min(len(state), 8)] }

// dropSignIns forgets the sign-ins of a browser that has begun too many.
func dropSignIns(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, signInCookie) {
			names = append(names, c.Name)
		}
	}
	if len(names) < maxSignIns {
		return
	}
	for _, name := range names {
		setCookie(w, name, "", -1)
	}
}

// setCookie is SameSite=Lax: Entra's redirect is a navigation from elsewhere.
func setCookie(w http.ResponseWriter, name, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: true,
		HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// callback is where Entra sends the browser back to. Nobody's key is checked here: it
// accepts the end of a flow that start has begun in the same browser, once.
func (s *signIn) callback(w http.ResponseWriter, r *http.Request) {
	const again = "Start again with the sign-in link, in one browser, and finish within ten minutes."
	c, err := entra.ReadCallback(r.URL.Query())
	if err != nil {
		s.reply(w, r, http.StatusBadRequest, typeSignInCallback, page{Title: "This is not the end of a sign-in",
			Text: []string{"The address lacks a parameter that Entra sends, or has one twice.", again}})
		return
	}
	if c.AdminConsent {
		// It changes nothing here, so that it needs no proof: consent is often
		// given by another person in another browser.
		show(w, http.StatusOK, page{Title: "Consent was given",
			Text: []string{"Now the identity's user can sign in: open the sign-in link again."}})
		return
	}
	if isVisit(r, c.State) {
		s.Visits.finish(w, r, c)
		return
	}
	f, why, err := s.flow(r, c.State)
	if err != nil {
		s.refuse(w, r, "", err)
		return
	}
	if why != "" {
		// Anybody may send this: it fills no log.
		s.Log.DebugContext(r.Context(), "sign-in refused", "identity", f.Identity, "code", typeSignInFlow)
		s.reply(w, r, http.StatusBadRequest, typeSignInFlow, page{Title: "This sign-in cannot be finished here",
			Text: []string{why, again}})
		return
	}
	setCookie(w, cookieOf(c.State), "", -1)
	if c.Refused != nil {
		s.refuse(w, r, f.Identity, c.Refused)
		return
	}
	// Entra takes a code once: from here on it does not matter whether the browser waits.
	act, done := toItsEnd(r.Context())
	defer done()
	err = s.SignIns.CompleteSignIn(act, f.Identity, entra.CodeGrant{Code: c.Code, RedirectURI: s.redirectURI(),
		Verifier: rotation.NewSecret(f.Verifier), Nonce: f.Nonce, ConfirmUserID: f.Confirm})
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	s.observations.forget()
	s.checkPATs(act, f.Identity)
	show(w, http.StatusOK, page{Title: "Signed in", Text: []string{
		"patrol now rotates the PATs of the identity " + f.Identity + ", and keeps this sign-in alive by itself.",
		"You can close this page."}})
}

// flow reads the cookie, for the sign-in that comes back with a state. why is what is
// wrong with it, for the person; err is a failure to find out.
func (s *signIn) flow(r *http.Request, state string) (f flow, why string, err error) {
	cookie, err := r.Cookie(cookieOf(state))
	if err != nil {
		return f, "This browser has not started a sign-in in the last ten minutes, or has started another sign-in " +
			"than the one that came back, or it does not keep cookies.", nil
	}
	text, err := s.Sealer.Open(r.Context(), signInPurpose, cookie.Value)
	if errors.Is(err, keyring.ErrSealed) {
		return f, "This app has not made the browser's sign-in cookie.", nil
	}
	if err != nil {
		return f, "", err
	}
	if json.Unmarshal(text, &f) != nil {
		return flow{}, "The browser's sign-in cookie cannot be read.", nil
	}
	switch {
	case !s.Now().Before(f.Until):
		why = "It was started more than ten minutes ago."
	case subtle.ConstantTimeCompare([]byte(f.State), []byte(state)) != 1:
		why = "This browser has started another sign-in than the one that came back."
	case !s.claim(f):
		why = "It has come back before."
	}
	return f, why, nil
}

// claim reports whether a flow comes back for the first time, as far as this process
// knows. For the others Entra refuses a code that was redeemed.
func (s *signIn) claim(f flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	for state, until := range s.used {
		if !now.Before(until) {
			delete(s.used, state)
		}
	}
	_, again := s.used[f.State]
	s.used[f.State] = f.Until
	return !again
}

// checkPATs orders checks of the identity's PATs: some may have waited for the sign-in,
// and the next sweep may be hours away.
func (s *signIn) checkPATs(ctx context.Context, identity string) {
	var commands []rotation.Command
	operation := rand.Text()
	for _, p := range s.Specs() {
		if p.Identity == identity && len(commands) < maxChecks {
			commands = append(commands, rotation.Command{PAT: p.Name, Reason: rotation.Check, RequestedBy: "sign-in",
				Operation: operation})
		}
	}
	if err := s.Outbox.Send(ctx, commands...); err != nil {
		s.Log.WarnContext(ctx, "the PATs of the identity that signed in are not checked before the next sweep: "+
			"the commands could not be sent", "identity", identity, "class", string(rotation.ClassOf(err)))
	}
}

const (
	titleNotSetUp = "Sign-in is not set up"
	titleNoLink   = "This link cannot be used"
)

// refuse says why a sign-in failed, and what to do.
func (s *signIn) refuse(w http.ResponseWriter, r *http.Request, identity string, err error) {
	e := rotation.AsError(err)
	if e == nil {
		e = &rotation.Error{Class: rotation.ClassOf(err), Code: typeInternal,
			Message: "patrol met an unexpected error: see its log"}
	}
	s.Log.WarnContext(r.Context(), "sign-in refused", "identity", identity, "class", string(e.Class), "code", e.Code)
	status, kind := http.StatusForbidden, typeSignInRefused
	p := page{Title: "The sign-in was refused", Text: []string{sentence(e.Message)}}
	refusal, _ := errors.AsType[*entra.SignInRefusal](err)
	switch {
	case e.Code == rotation.UnknownIdentity:
		status, kind, p.Title = http.StatusNotFound, typeUnknownIdentity, "No such identity"
	case refusal != nil && refusal.Cause == entra.UserIDChanged:
		p.Text = append(p.Text, "The account that signed in has the object id "+refusal.UserID+".",
			"If the account was deleted and made anew on purpose, an operator confirms it on the dashboard: somebody "+
				"with the role Patrol.Operator. The sign-in is then made in that person's browser.")
		confirm := view{Filter: dashboardFilter{Filter: Filter{Identity: identity}}, Confirm: refusal.UserID}
		p.Links = append(p.Links, pageLink{"For an operator: confirm the new account", addressOf(confirm.query())})
	case entra.NeedsAdminConsent(err):
		p.Title = "An administrator has to consent first"
		s.addConsentLink(identity, &p)
	case e.Class == rotation.Transient || e.Class == rotation.Throttled || e.Class == rotation.Ambiguous:
		status, kind, p.Title = http.StatusBadGateway, typeUpstream, "The sign-in could not be finished now"
		p.Text = append(p.Text, "Nothing was changed. Start again in a minute.")
	case e.Class == rotation.Configuration:
		status, kind, p.Title = http.StatusBadGateway, TypeConfiguration, titleNotSetUp
	}
	if e.Code != "" {
		p.Text = append(p.Text, "Code: "+e.Code)
	}
	s.reply(w, r, status, kind, p)
}

// addConsentLink leads an administrator of the directory to the consent.
func (s *signIn) addConsentLink(identity string, p *page) {
	link, err := s.SignIns.AdminConsentLink(identity, s.redirectURI(), rand.Text())
	if err != nil {
		return // the page says what is needed without it
	}
	p.Links = append(p.Links, pageLink{"Consent as an administrator of the directory", link})
	p.Text = append(p.Text, "Send the link below to an administrator of the directory. "+
		"After that, start again with the sign-in link.")
}

// sentence makes an error's message one.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// reply answers a person with a page and a program with a problem.
func (s *signIn) reply(w http.ResponseWriter, r *http.Request, status int, kind string, p page) {
	if wantsJSON(r) {
		fail(w, Problem{Status: status, Type: kind, Title: p.Title, Detail: strings.Join(p.Text, " ")})
		return
	}
	show(w, status, p)
}
