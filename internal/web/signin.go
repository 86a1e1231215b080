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
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// signInCookie ties a sign-in to the browser that began it. The prefix makes
	// browsers refuse it from anywhere but this very host.
	signInCookie = "__Host-patrol-signin"
	// signInLife is how long a person may take.
	signInLife = 10 * time.Minute
	// firstLooks is how many PATs of an identity are looked at as soon as it has
	// signed in; the next sweep sees to the rest.
	maxChecks = 100
)

// SignIns is the authority's side of a sign-in.
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

// SignInConfig holds what the sign-in pages need. Every field is required.
type SignInConfig struct {
	SignIns SignIns
	Sealer  Sealer
	// PublicURL is the base of the redirect URI; empty: not known.
	PublicURL string
	// Specs lists the PATs, to go on with those of whom has signed in.
	Specs  func() []rotation.Spec
	Outbox rotation.Outbox
	Now    func() time.Time
	Log    *slog.Logger
}

type signIn struct {
	SignInConfig

	mu   sync.Mutex
	used map[string]time.Time // states that came back, until they are too old
}

// SignInRoutes adds the sign-in pages.
func SignInRoutes(c SignInConfig) func(*API, *http.ServeMux) {
	s := &signIn{SignInConfig: c, used: map[string]time.Time{}}
	return func(_ *API, mux *http.ServeMux) {
		mux.HandleFunc("GET /api/identities/{identity}/signin", s.start)
		mux.HandleFunc("GET /api/signin/callback", s.callback)
	}
}

// flow is what the cookie holds: one walk to the authority and back.
type flow struct {
	Identity string    `json:"identity"`
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Confirm  string    `json:"confirm,omitempty"`
	Until    time.Time `json:"until"`
}

func (s *signIn) redirectURI() string { return s.PublicURL + "/api/signin/callback" }

var objectID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// start sends the browser to the authority. Whoever calls it holds a function key.
func (s *signIn) start(w http.ResponseWriter, r *http.Request) {
	if s.PublicURL == "" {
		s.reply(w, r, http.StatusServiceUnavailable, "configuration", page{Title: "Sign-in is not set up",
			Text: []string{
				"The app does not know its own address. Set PUBLIC_URL to the address at which browsers reach it, and register <PUBLIC_URL>/api/signin/callback as its web redirect URI."}})
		return
	}
	confirm := r.URL.Query().Get("confirm")
	if confirm != "" && !objectID.MatchString(confirm) {
		s.reply(w, r, http.StatusBadRequest, "bad-request", page{Title: "This link cannot be used",
			Text: []string{"confirm must be an object id, as the page that asked for it showed it."}})
		return
	}
	f := flow{Identity: r.PathValue("identity"), State: rand.Text(), Nonce: rand.Text(), Verifier: rand.Text() +
		rand.Text(),
		Confirm: confirm, Until: s.Now().Add(signInLife)}
	challenge := sha256.Sum256([]byte(f.Verifier))
	location, err := s.SignIns.SignInURL(r.Context(), f.Identity, entra.SignInRequest{RedirectURI: s.redirectURI(),
		State: f.State,
		Nonce: f.Nonce, Challenge: base64.RawURLEncoding.EncodeToString(challenge[:])})
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	text, err := json.Marshal(f)
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	sealed, err := s.Sealer.Seal(r.Context(), signInCookie, text)
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	s.Log.InfoContext(r.Context(), "sign-in begun", "identity", f.Identity, "by", actor(r), "confirm", confirm != "")
	cookie(w, sealed, int(signInLife/time.Second))
	secure(w.Header())
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// cookie is SameSite=Lax: the authority's redirect is a navigation from elsewhere.
func cookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{Name: signInCookie, Value: value, Path: "/", MaxAge: maxAge, Secure: true,
		HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// callback is where the authority sends the browser back to. Nobody's key is checked
// here: it accepts the end of a flow that start began in the same browser, once.
func (s *signIn) callback(w http.ResponseWriter, r *http.Request) {
	again := "Start again with the sign-in link, in one browser, and finish within ten minutes."
	c, err := entra.ReadCallback(r.URL.Query())
	if err != nil {
		s.reply(w, r, http.StatusBadRequest, "sign-in-callback", page{Title: "This is not the end of a sign-in",
			Text: []string{"The address lacks what the authority sends, or has it twice.", again}})
		return
	}
	if c.AdminConsent {
		// It changes nothing here, so that it needs no proof: consent is often
		// given by another person in another browser.
		show(w, http.StatusOK, page{Title: "Consent was given",
			Text: []string{"Now the identity's user can sign in: open the sign-in link once more."}})
		return
	}
	f, why, err := s.flow(r)
	switch {
	case err != nil:
		s.refuse(w, r, "", err)
		return
	case why == "" && subtle.ConstantTimeCompare([]byte(f.State), []byte(c.State)) != 1:
		why = "This browser has begun another sign-in than the one that comes back."
	case why == "" && !s.claim(f):
		why = "This sign-in has come back before."
	}
	if why != "" {
		s.Log.WarnContext(r.Context(), "sign-in refused", "identity", f.Identity, "code", "sign-in-flow")
		s.reply(w, r, http.StatusBadRequest, "sign-in-flow", page{Title: "This sign-in cannot be finished here",
			Text: []string{why, again}})
		return
	}
	cookie(w, "", -1)
	if c.Refused != nil {
		s.refuse(w, r, f.Identity, c.Refused)
		return
	}
	err = s.SignIns.CompleteSignIn(r.Context(), f.Identity, entra.CodeGrant{Code: c.Code, RedirectURI: s.redirectURI(),
		Verifier: rotation.NewSecret(f.Verifier), Nonce: f.Nonce, ConfirmUserID: f.Confirm})
	if err != nil {
		s.refuse(w, r, f.Identity, err)
		return
	}
	s.checkPATs(r.Context(), f.Identity)
	show(w, http.StatusOK, page{Title: "Signed in", Text: []string{
		"patrol can now look after the tokens of " + f.Identity + ". It keeps this sign-in alive by itself.",
		"You can close this page."}})
}

// flow reads the cookie. why is what is wrong with it, for the person; err is a
// failure to find out.
func (s *signIn) flow(r *http.Request) (f flow, why string, err error) {
	sealed, err := r.Cookie(signInCookie)
	if err != nil {
		return f, "This browser did not begin it, or began it more than ten minutes ago, or does not keep cookies.", nil
	}
	text, err := s.Sealer.Open(r.Context(), signInCookie, sealed.Value)
	if errors.Is(err, keyring.ErrSealed) {
		return f, "What this browser keeps of it was not made by this app.", nil
	}
	if err != nil {
		return f, "", err
	}
	if json.Unmarshal(text, &f) != nil {
		return flow{}, "What this browser keeps of it cannot be read.", nil
	}
	if !s.Now().Before(f.Until) {
		return f, "It was begun more than ten minutes ago.", nil
	}
	return f, "", nil
}

// first reports whether a flow comes back for the first time, as far as this process
// knows. For the others the authority refuses a code that was redeemed.
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

// goOn has the identity's PATs looked at now, and not at the next sweep: some may
// have waited for this.
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
		s.Log.WarnContext(ctx, "the PATs of who has signed in wait for the next sweep", "identity", identity, "class",
			string(rotation.ClassOf(err)))
	}
}

// refuse tells why a sign-in failed, and what to do.
func (s *signIn) refuse(w http.ResponseWriter, r *http.Request, identity string, err error) {
	e := rotation.AsError(err)
	if e == nil {
		e = &rotation.Error{Class: rotation.ClassOf(err), Code: "internal", Message: "an unexpected failure"}
	}
	s.Log.WarnContext(r.Context(), "sign-in refused", "identity", identity, "class", string(e.Class), "code", e.Code)
	status, kind := http.StatusForbidden, "sign-in-refused"
	p := page{Title: "The sign-in was refused", Text: []string{sentence(e.Message)}}
	refusal, _ := errors.AsType[*entra.SignInRefusal](err)
	switch {
	case e.Code == rotation.UnknownIdentity:
		status, kind, p.Title = http.StatusNotFound, "unknown-identity", "No such identity"
	case refusal != nil && e.Code == entra.CodeUserIDChanged:
		p.Text = append(p.Text, "The object id of who has signed in is "+refusal.UserID+".",
			"If the account was made anew on purpose, start again with the sign-in link and add confirm="+
				refusal.UserID+" to its query.")
	case entra.NeedsAdminConsent(err):
		p.Title = "An administrator has to consent first"
		if link, err := s.SignIns.AdminConsentLink(identity, s.redirectURI(), rand.Text()); err == nil {
			p.Links = append(p.Links, pageLink{"Consent as an administrator of the directory", link})
			p.Text = append(p.Text,
				"Send the link below to an administrator of the directory. After that, start again with the sign-in link.")
		}
	case e.Class == rotation.Transient || e.Class == rotation.Throttled || e.Class == rotation.Ambiguous:
		status, kind, p.Title = http.StatusBadGateway, "upstream", "The sign-in could not be finished now"
		p.Text = append(p.Text, "Nothing was changed. Start again in a minute.")
	case e.Class == rotation.Configuration:
		status, kind, p.Title = http.StatusBadGateway, "configuration", "Sign-in is not set up"
	}
	if e.Code != "" {
		p.Text = append(p.Text, "Code: "+e.Code)
	}
	s.reply(w, r, status, kind, p)
}

// sentence makes an error's message one.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// tell answers a person with a page and a program with a problem.
func (s *signIn) reply(w http.ResponseWriter, r *http.Request, status int, kind string, p page) {
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "json") && !strings.Contains(accept, "text/html") {
		fail(w, Problem{Status: status, Type: kind, Title: p.Title, Detail: strings.Join(p.Text, " ")})
		return
	}
	show(w, status, p)
}
