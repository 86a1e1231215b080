package entra

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
)

// view is what a page shows.
type view struct {
	Status         int // default 200
	Step           step
	Title          string
	Ticket         string
	Action         string
	Note           string
	App            string
	Scopes         []string
	User           string
	Accounts       []string
	Hint           string
	Phone          string
	Device         bool
	TenantWide     bool
	MayGrantForAll bool
}

var pages = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{block "title" .}}{{or .Title "Sign in"}}{{end}} (sandbox)</title>
<style>
body{font:16px system-ui;max-width:32rem;margin:4rem auto;padding:0 1rem}
button,input,select{font:inherit;padding:.4rem .8rem;margin-right:.5rem}
[role=alert]{color:#a00}
</style>
</head>
<body>
{{- define "form"}}<form method="post" action="{{.Action}}">
<input type="hidden" name="flow" value="{{.Ticket}}">
<input type="hidden" name="step" value="{{.Step}}">{{end}}
{{- define "scopes"}}<ul>{{range .Scopes}}<li><code>{{.}}</code></li>{{end}}</ul>{{end}}
{{- if eq .Step "device"}}
<h1>Enter the code that the other device shows</h1>
{{- if .Note}}<p role="alert">{{.Note}}</p>{{end}}
{{template "form" .}}
<p><label>Code <input name="code" autocomplete="off" autofocus required></label></p>
<button name="action" value="next">Next</button>
</form>
{{- else if eq .Step "account"}}
<h1>Pick an account</h1>
{{- if .Note}}<p role="alert">{{.Note}}</p>{{end}}
<p><strong>{{.App}}</strong> asks for:</p>
{{template "scopes" .}}
{{template "form" .}}
<p><label>Account <select name="user">
{{- $hint := .Hint}}
{{- range .Accounts}}<option{{if eq . $hint}} selected{{end}}>{{.}}</option>{{end -}}
</select></label></p>
<button name="action" value="next">Next</button>
<button name="action" value="cancel">Cancel</button>
</form>
{{- else if eq .Step "sign-in"}}
<h1>Sign in</h1>
<p>as <strong>{{.User}}</strong>. No password is needed here.</p>
{{template "form" .}}
<button name="action" value="sign-in">Sign in</button>
<button name="action" value="back">Use another account</button>
<button name="action" value="cancel">Cancel</button>
</form>
{{- else if eq .Step "enrol"}}
<h1>More information required</h1>
<p>Your organization wants multi-factor authentication of <strong>{{.User}}</strong>. Enrol your phone.</p>
{{template "form" .}}
<button name="action" value="enrol">Enrol</button>
<button name="action" value="cancel">Cancel</button>
</form>
{{- else if eq .Step "mfa"}}
<h1>Enter the code</h1>
{{- if .Note}}<p role="alert">{{.Note}}</p>{{end}}
<p>The phone of <strong>{{.User}}</strong> shows <output id="phone">{{.Phone}}</output>.</p>
{{template "form" .}}
<p><label>Code
<input name="code" autocomplete="one-time-code" inputmode="numeric" autofocus required>
</label></p>
<button name="action" value="verify">Verify</button>
<button name="action" value="cancel" formnovalidate>Cancel</button>
</form>
{{- else if eq .Step "confirm"}}
<h1>Are you trying to sign in to {{.App}}?</h1>
<p>Another device shows the code. Only go on if that device is yours.</p>
{{template "form" .}}
<button name="action" value="continue">Continue</button>
<button name="action" value="cancel">Cancel</button>
</form>
{{- else if eq .Step "consent"}}
<h1>Permissions requested</h1>
<p><strong>{{.App}}</strong> would like to act
{{if .TenantWide}}for everybody in the organization{{else}}as <strong>{{.User}}</strong>{{end}} with:</p>
{{template "scopes" .}}
{{template "form" .}}
{{if .MayGrantForAll}}
<p><label><input type="checkbox" name="everybody"> Consent on behalf of your organization</label></p>
{{end}}
<button name="action" value="accept">Accept</button>
<button name="action" value="cancel">Cancel</button>
</form>
{{- else if eq .Step "approval"}}
<h1>Need admin approval</h1>
<p>AADSTS90094: <strong>{{.App}}</strong> needs permissions that only an administrator can grant:</p>
{{template "scopes" .}}
{{template "form" .}}
<button name="action" value="cancel">Return to the application without granting consent</button>
</form>
{{- else}}
<h1>{{.Title}}</h1>
<p>{{.Note}}</p>
{{- end}}
</body></html>
`))

var formPostPage = template.Must(template.New("form-post").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Working...</title>
<form method="post" name="hiddenform" action="{{.Action}}">{{range $k, $v := .Fields}}
<input type="hidden" name="{{$k}}" value="{{index $v 0}}">{{end}}
<noscript><button>Continue</button></noscript></form>
<script>document.forms[0].submit()</script></html>
`))

func (v view) write(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	if v.Status != 0 {
		w.WriteHeader(v.Status)
	}
	_ = pages.Execute(w, v)
}

// trouble is a page that ends a walk: there is no way back to the client, or
// none that may be trusted.
func trouble(r *refusal) reply {
	return view{
		Status: http.StatusBadRequest, Step: "error",
		Title: "Sorry, but we're having trouble signing you in", Note: r.note(),
	}.write
}

func (r *refusal) note() string { return fmt.Sprintf("AADSTS%d: %s", r.code, r.text) }

func (r *refusal) fields() url.Values {
	return url.Values{"error": {r.err}, "error_description": {r.note()}}
}

// sendBack returns the person to the client in the response mode it asked for.
func (s *Server) sendBack(req *signInRequest, fields url.Values) reply {
	if req.state != "" {
		fields.Set("state", req.state)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if req.mode == "form_post" {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_ = formPostPage.Execute(w, map[string]any{"Action": req.redirect, "Fields": fields})
			return
		}
		to, err := url.Parse(req.redirect)
		if err != nil {
			trouble(refuse(50011, ""))(w, r)
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
}
