package entra

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// code is an authorization code.
type code struct {
	user, client, redirect, challenge, scope, nonce string
	class                                           class
	signedIn, expires                               time.Time
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
	query    url.Values
}

// readSignIn checks a request. badRequest is shown to the person (there is no
// trustworthy address to go back to); refused is sent back to the client.
func (s *Server) readSignIn(q url.Values) (req *signInRequest, badRequest, refused *refusal) {
	app := s.apps[q.Get("client_id")]
	if app == nil {
		return nil, refuse(700016, ""), nil
	}
	req = &signInRequest{app: app, redirect: q.Get("redirect_uri"), mode: q.Get("response_mode"), state: q.Get("state"), query: q}
	switch {
	case req.redirect == "":
		return nil, refuse(900144, "redirect_uri"), nil
	case slices.Contains(app.Web, req.redirect):
		req.class = confidential
	case slices.Contains(app.SPA, req.redirect):
		req.class = spa
	case slices.ContainsFunc(app.Native, func(u string) bool { return u == req.redirect || sameLocalhost(u, req.redirect) }):
		req.class = public
	default:
		return nil, refuse(50011, ""), nil
	}
	switch req.mode {
	case "":
		req.mode = "query"
	case "query", "form_post", "fragment":
	default:
		req.mode = "query"
		return req, nil, &refusal{err: "invalid_request", code: 90023, text: "The response_mode is not supported."}
	}
	if q.Get("response_type") != "code" {
		return req, nil, &refusal{err: "unsupported_response_type", code: 700054, text: "The response_type is not enabled for the application."}
	}
	switch m := q.Get("code_challenge_method"); {
	case q.Get("code_challenge") == "" && req.class == spa:
		return req, nil, refuse(9002325, "")
	case q.Get("code_challenge") != "" && m != "S256":
		return req, nil, &refusal{err: "invalid_request", code: 501491, text: "The code_challenge_method is not supported; use S256."}
	case len(q.Get("code_challenge")) != 0 && len(q.Get("code_challenge")) != 43:
		return req, nil, &refusal{err: "invalid_request", code: 501491, text: "The code_challenge has a wrong size."}
	}
	w, refused := s.parseScopes(q.Get("scope"))
	if refused != nil {
		return req, nil, refused
	}
	req.wanted = w
	if q.Get("prompt") == "none" { // nobody has a session here
		return req, nil, refuse(50058, "")
	}
	return req, nil, nil
}

// sameLocalhost compares redirect URIs of a native client: the port of
// http://localhost is ignored.
func sameLocalhost(registered, asked string) bool {
	a, err1 := url.Parse(registered)
	b, err2 := url.Parse(asked)
	return err1 == nil && err2 == nil && a.Scheme == "http" && b.Scheme == "http" && a.Hostname() == "localhost" && b.Hostname() == "localhost" &&
		strings.TrimSuffix(a.Path, "/") == strings.TrimSuffix(b.Path, "/") && a.RawQuery == b.RawQuery
}

var signInPage = template.Must(template.New("sign-in").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign in (sandbox)</title>
<style>body{font:16px system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}button{font:inherit;padding:.4rem 1rem;margin-right:.5rem}</style>
<h1>Sign in</h1>
<p><strong>{{.App}}</strong> asks for:</p>
<ul>{{range .Scopes}}<li><code>{{.}}</code></li>{{end}}</ul>
<form method="post">
<p><label>Account <select name="user">{{$hint := .Hint}}{{range .Users}}<option{{if eq . $hint}} selected{{end}}>{{.}}</option>{{end}}</select></label></p>
<button name="action" value="accept">Accept</button><button name="action" value="deny">Cancel</button>
</form></html>
`))

var formPostPage = template.Must(template.New("form-post").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Working...</title>
<form method="post" name="hiddenform" action="{{.Action}}">{{range $k, $v := .Fields}}
<input type="hidden" name="{{$k}}" value="{{index $v 0}}">{{end}}
<noscript><button>Continue</button></noscript></form>
<script>document.forms[0].submit()</script></html>
`))

var messagePage = template.Must(template.New("message").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title><h1>{{.Title}}</h1><p>{{.Text}}</p></html>
`))

func message(w http.ResponseWriter, status int, title, text string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = messagePage.Execute(w, map[string]string{"Title": title, "Text": text})
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	req, bad, refused := s.readSignIn(r.URL.Query())
	var users []string
	for _, u := range s.users {
		users = append(users, u.UPN)
	}
	s.mu.Unlock()
	switch {
	case bad != nil:
		message(w, http.StatusBadRequest, "Sorry, but we're having trouble signing you in", fmt.Sprintf("AADSTS%d: %s", bad.code, bad.text))
	case refused != nil:
		s.sendBack(w, r, req, refused.fields())
	default:
		slices.Sort(users)
		hint := req.query.Get("login_hint")
		for _, u := range users {
			if strings.EqualFold(u, hint) {
				hint = u
			}
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_ = signInPage.Execute(w, map[string]any{
			"App": req.app.Name, "Scopes": strings.Fields(req.query.Get("scope")), "Users": users, "Hint": hint,
		})
	}
}

// signIn is the form's answer: the person chose an account and consented, or
// went away.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		message(w, http.StatusBadRequest, "Bad request", "The form can't be read.")
		return
	}
	s.mu.Lock()
	req, bad, refused := s.readSignIn(r.URL.Query())
	var fields url.Values
	switch {
	case bad != nil:
	case refused != nil:
		fields = refused.fields()
	case r.PostForm.Get("action") != "accept":
		fields = refuse(65004, "").fields()
	default:
		fields = s.accept(req, r.PostForm.Get("user"))
	}
	s.mu.Unlock()
	if bad != nil {
		message(w, http.StatusBadRequest, "Sorry, but we're having trouble signing you in", fmt.Sprintf("AADSTS%d: %s", bad.code, bad.text))
		return
	}
	s.sendBack(w, r, req, fields)
}

func (s *Server) accept(req *signInRequest, upn string) url.Values {
	u, refused := s.activeUser(upn)
	if refused != nil {
		return refused.fields()
	}
	if err := s.consent(u.UPN, req.app.ClientID, strings.Fields(req.query.Get("scope"))); err != nil {
		return refuse(65001, "").fields()
	}
	value := "1.AX" + randomHex(300)
	now := time.Now()
	s.codes[value] = &code{
		user: strings.ToLower(u.UPN), client: req.app.ClientID, redirect: req.redirect, challenge: req.query.Get("code_challenge"),
		scope: req.query.Get("scope"), nonce: req.query.Get("nonce"), class: req.class, signedIn: now, expires: now.Add(codeLife),
	}
	return url.Values{"code": {value}, "session_state": {newGUID()}}
}

func (f *refusal) fields() url.Values {
	return url.Values{"error": {f.err}, "error_description": {fmt.Sprintf("AADSTS%d: %s", f.code, f.text)}}
}

// sendBack returns the person to the client in the response mode it asked for.
func (s *Server) sendBack(w http.ResponseWriter, r *http.Request, req *signInRequest, fields url.Values) {
	if req.state != "" {
		fields.Set("state", req.state)
	}
	w.Header().Set("Cache-Control", "no-store")
	if req.mode == "form_post" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = formPostPage.Execute(w, map[string]any{"Action": req.redirect, "Fields": fields})
		return
	}
	to, err := url.Parse(req.redirect)
	if err != nil {
		message(w, http.StatusBadRequest, "Bad request", "The redirect URI can't be read.")
		return
	}
	if req.mode == "fragment" {
		http.Redirect(w, r, req.redirect+"#"+fields.Encode(), http.StatusFound)
		return
	}
	q := to.Query()
	for k, v := range fields {
		q[k] = v
	}
	to.RawQuery = q.Encode()
	http.Redirect(w, r, to.String(), http.StatusFound)
}
