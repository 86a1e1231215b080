package entra

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// code is an authorization code. user is an object id.
type code struct {
	user, client, redirect, challenge, scope, nonce string
	class                                           class
	signedIn, mfa, expires                          time.Time
	redeemed                                        bool
}

// signInRequest is a checked request to the authorize endpoint.
type signInRequest struct {
	app      *App
	class    class
	redirect string
	mode     string
	state    string
	wanted   *wanted
	demand   bool // its claims want multi-factor authentication
	query    url.Values
}

// readSignIn checks a request. badRequest is shown to the person (there is no
// trustworthy address to go back to); refused is sent back to the client.
func (s *Server) readSignIn(q url.Values) (req *signInRequest, badRequest, refused *refusal) {
	app := s.apps[q.Get("client_id")]
	if app == nil {
		return nil, refuse(700016, ""), nil
	}
	req = &signInRequest{
		app: app, redirect: q.Get("redirect_uri"), mode: q.Get("response_mode"), state: q.Get("state"), query: q,
	}
	if req.redirect == "" {
		return nil, refuse(900144, "redirect_uri"), nil
	}
	class, ok := app.platform(req.redirect)
	if !ok {
		return nil, refuse(50011, ""), nil
	}
	req.class = class
	switch req.mode {
	case "":
		req.mode = "query"
	case "query", "form_post", "fragment":
	default:
		req.mode = "query"
		return req, nil, refuse(90023, "The response_mode is not supported.")
	}
	if q.Get("response_type") != "code" {
		return req, nil, refuse(700054, "")
	}
	switch challenge, method := q.Get("code_challenge"), q.Get("code_challenge_method"); {
	case challenge == "" && req.class == spa:
		return req, nil, refuse(9002325, "")
	case challenge == "": // others may do without
	case method != "S256":
		return req, nil, refuse(501491, "Its method must be S256.")
	case len(challenge) != 43:
		return req, nil, refuse(501491, "It has a wrong size.")
	}
	w, refused := s.parseScopes(q.Get("scope"))
	if refused != nil {
		return req, nil, refused
	}
	req.wanted = w
	if p := q.Get("prompt"); !slices.Contains([]string{"", "none", "login", "select_account", "consent"}, p) {
		return req, nil, refuse(90023, "The prompt is not supported.")
	}
	demand, ok := demandsMFA(q.Get("claims"))
	if !ok {
		return req, nil, refuse(90014, "The claims parameter can't be read.")
	}
	req.demand = demand
	return req, nil, nil
}

// platform is that under which a redirect URI is registered: it decides whether the
// client is confidential.
func (app *App) platform(redirect string) (class, bool) {
	platforms := []struct {
		uris  []string
		class class
	}{{app.Web, confidential}, {app.SPA, spa}, {app.Native, public}}
	exactly := func(a, b string) bool { return a == b }
	for _, same := range []func(a, b string) bool{exactly, sameLocalhost} {
		for _, p := range platforms {
			if slices.ContainsFunc(p.uris, func(u string) bool { return same(u, redirect) }) {
				return p.class, true
			}
		}
	}
	return "", false
}

// sameLocalhost compares redirect URIs that differ in their port at most: it is
// ignored for http://localhost.
func sameLocalhost(registered, asked string) bool {
	a, b := parseLocalhost(registered), parseLocalhost(asked)
	if a == nil || b == nil {
		return false
	}
	return strings.TrimSuffix(a.Path, "/") == strings.TrimSuffix(b.Path, "/") && a.RawQuery == b.RawQuery
}

// parseLocalhost reads an address of http://localhost; nil if it is another.
func parseLocalhost(address string) *url.URL {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() != "localhost" {
		return nil
	}
	return u
}

// showSignIn is the authorize endpoint: it begins a flow.
func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	q := r.URL.Query()
	req, bad, refused := s.readSignIn(q)
	var out reply
	switch {
	case bad != nil:
		out = trouble(bad)
	case refused != nil:
		out = s.sendBack(req, refused.fields())
	default:
		out = s.start(w, r, &flow{
			kind: signInFlow, base: s.base(r), app: req.app, req: req,
			scopes: strings.Fields(q.Get("scope")), wanted: req.wanted,
			hint: q.Get("login_hint"), prompt: q.Get("prompt"), demand: req.demand,
		})
	}
	s.mu.Unlock()
	out(w, r)
}

// authorize makes the answer of a sign-in that has succeeded.
func (s *Server) authorize(req *signInRequest, user string, l login) url.Values {
	value := "1.AX" + randomHex(300)
	s.codes[value] = &code{
		user: user, client: req.app.ClientID, redirect: req.redirect, challenge: req.query.Get("code_challenge"),
		scope: req.query.Get("scope"), nonce: req.query.Get("nonce"),
		class: req.class, signedIn: l.at, mfa: l.mfa, expires: time.Now().Add(codeLife),
	}
	return url.Values{"code": {value}, "session_state": {newGUID()}}
}
