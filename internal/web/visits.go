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
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// People sign in to the page, and to nothing else, by the same registration and redirect
// URI as identities do. Which of the two a callback ends is known from the sealed flow
// alone: each has a cookie and a sealing purpose of its own.

const (
	// visitCookie begins the name of a flow's cookie, whose end is the beginning of its
	// state: several flows of one browser do not break each other.
	visitCookie = "__Host-patrol-visit-"
	// visitPurpose is what a flow is sealed for.
	visitPurpose = "visit of the page"
	// visitLife is how long a person may take.
	visitLife = 10 * time.Minute
	// maxVisits is how many flows a browser keeps at once: what follows an address of the
	// page again and again must not fill its headers.
	maxVisits = 4

	callbackPath  = "/api/signin/callback"
	dashboardPath = "/api/dashboard"
)

// Visitors is Entra's side of a person's sign-in to the page; *entra.Client is.
type Visitors interface {
	VisitorURL(ctx context.Context, r entra.SignInRequest, prompt string) (string, error)
	CompleteVisit(ctx context.Context, g entra.CodeGrant) (entra.Visitor, error)
}

// VisitConfig holds what the page needs to know its people. Every field is required.
type VisitConfig struct {
	Visitors Visitors
	Sealer   Sealer
	Keys     SessionKeys
	// PublicURL is the base of the redirect URI; empty: not known.
	PublicURL string
	Now       func() time.Time
	Log       *slog.Logger
}

// Visits let people in to the page.
type Visits struct {
	VisitConfig
	bound bound // of sign-ins that begin: anybody may begin one
}

// NewVisits wires them. It calls nobody.
func NewVisits(c VisitConfig) *Visits { return &Visits{VisitConfig: c} }

// visit is one walk to Entra and back.
type visit struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Back     string    `json:"back,omitempty"` // the query of the view that was asked for
	Until    time.Time `json:"until"`
}

func visitCookieOf(state string) string { return visitCookie + state[:min(len(state), 8)] }

// begin sends the browser to Entra, and from there back to a view of the page.
func (v *Visits) begin(w http.ResponseWriter, r *http.Request, back, prompt string) {
	if wait := v.bound.take(v.Now()); wait > 0 {
		setRetryAfter(w.Header(), int(wait/time.Second)+1)
		show(w, http.StatusTooManyRequests, page{Title: "Too many sign-ins at once",
			Text: []string{"Try again in a moment. Whoever is signed in is not kept waiting."}})
		return
	}
	if isElsewhere(r, v.PublicURL) { // the browser would not send the cookie there
		at := url.Values{atThisHost: {"1"}}.Encode()
		if back != "" {
			at = back + "&" + at
		}
		seeOther(w, v.PublicURL+addressOf(at))
		return
	}
	f := visit{State: rand.Text(), Nonce: rand.Text(), Verifier: rand.Text() + rand.Text(), Back: back,
		Until: v.Now().Add(visitLife)}
	challenge := sha256.Sum256([]byte(f.Verifier))
	location, err := v.Visitors.VisitorURL(r.Context(), entra.SignInRequest{RedirectURI: v.PublicURL + callbackPath,
		State: f.State, Nonce: f.Nonce, Challenge: base64.RawURLEncoding.EncodeToString(challenge[:])}, prompt)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	text, err := json.Marshal(f)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	sealed, err := v.Sealer.Seal(r.Context(), visitPurpose, text)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	dropVisits(w, r)
	setHostCookie(w, visitCookieOf(f.State), sealed, visitLife)
	secure(w.Header())
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// dropVisits forgets the flows of a browser that has too many.
func dropVisits(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, visitCookie) {
			names = append(names, c.Name)
		}
	}
	if len(names) < maxVisits {
		return
	}
	for _, name := range names {
		setHostCookie(w, name, "", -time.Second)
	}
}

// isVisit says that the flow which comes back with a state is of the page. The cookie's
// name is a hint; finish believes what is sealed in it.
func isVisit(r *http.Request, state string) bool {
	_, err := r.Cookie(visitCookieOf(state))
	return err == nil
}

// finish ends a flow: the browser gets its session, and goes to the view that it came for.
func (v *Visits) finish(w http.ResponseWriter, r *http.Request, c entra.Callback) {
	name := visitCookieOf(c.State)
	f, why, err := v.openVisit(r, name, c.State)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	setHostCookie(w, name, "", -time.Second)
	if why != "" {
		v.Log.WarnContext(r.Context(), "a sign-in to the page was refused", "code", typeSignInFlow)
		show(w, http.StatusBadRequest, page{Title: "This sign-in cannot be finished here",
			Text:  []string{why, "Open the page again, in one browser."},
			Links: []pageLink{{"To the page", dashboardPath}}})
		return
	}
	if c.Refused != nil {
		v.refuse(w, r, c.Refused)
		return
	}
	who, err := v.Visitors.CompleteVisit(r.Context(), entra.CodeGrant{Code: c.Code,
		RedirectURI: v.PublicURL + callbackPath, Verifier: rotation.NewSecret(f.Verifier), Nonce: f.Nonce})
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	s := session{UserID: who.ObjectID, Name: who.Name, Roles: who.Roles}
	err = v.startSession(r.Context(), w, s)
	if err != nil {
		v.refuse(w, r, err)
		return
	}
	v.Log.InfoContext(r.Context(), "signed in to the page", "by", s.caller().Who, "user", s.UserID, "role",
		s.Role().Value())
	seeOther(w, addressOf(f.Back))
}

// openVisit reads a flow's cookie. why is what is wrong with it, for the person; err is a
// failure to find out.
func (v *Visits) openVisit(r *http.Request, name, state string) (f visit, why string, err error) {
	const gone = "This browser has not begun this sign-in in the last ten minutes."
	cookie, err := r.Cookie(name)
	if err != nil {
		return f, gone, nil
	}
	text, err := v.Sealer.Open(r.Context(), visitPurpose, cookie.Value)
	if errors.Is(err, keyring.ErrSealed) {
		return f, gone, nil
	}
	if err != nil {
		return f, "", err
	}
	isOurs := json.Unmarshal(text, &f) == nil && f.State != ""
	if !isOurs || subtle.ConstantTimeCompare([]byte(f.State), []byte(state)) != 1 || !v.Now().Before(f.Until) {
		return visit{}, gone, nil
	}
	return f, "", nil
}

// addressOf is a view of the page, by its query.
func addressOf(query string) string {
	if query == "" {
		return dashboardPath
	}
	return dashboardPath + "?" + query
}

func seeOther(w http.ResponseWriter, address string) {
	secure(w.Header())
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

// refuse says why nobody was let in, and what to do.
func (v *Visits) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := rotation.AsError(err)
	if e == nil {
		e = &rotation.Error{Class: rotation.ClassOf(err), Code: typeInternal,
			Message: "patrol met an unexpected error: see its log"}
	}
	v.Log.WarnContext(r.Context(), "a sign-in to the page was refused", "class", string(e.Class), "code", e.Code)
	status := http.StatusForbidden
	p := page{Title: "The sign-in was refused", Text: []string{sentence(e.Message)},
		Links: []pageLink{{"Sign in with another account", addressOf(url.Values{"signin": {signInChoose}}.Encode())}}}
	switch e.Class {
	case rotation.Transient, rotation.Throttled, rotation.Ambiguous:
		status, p.Title = http.StatusBadGateway, "You cannot be signed in now"
		p.Text, p.Links = append(p.Text, "Nothing was changed. Try again in a minute."), []pageLink{{"Try again",
			dashboardPath}}
	case rotation.Configuration:
		status, p.Title, p.Links = http.StatusBadGateway, titleNotSetUp, nil
	}
	p.Text = append(p.Text, "Code: "+e.Code)
	show(w, status, p)
}
