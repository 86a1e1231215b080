package web

import (
	"bytes"
	"crypto/rand"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// page is a message for a person, with what to do about it.
type page struct {
	Title string
	Text  []string // paragraphs
	Links []pageLink
	Nonce string
}

type pageLink struct{ Text, URL string }

// pageTemplate is parsed when the first page is shown, and not when the process
// starts.
var pageTemplate = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}} - patrol</title>
<style nonce="{{.Nonce}}">
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --link: #0b57a4 }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e7e7e7; --link: #8ab8f0 } }
body {
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  max-width: 40rem; margin: 12vh auto 4rem; padding: 0 1rem;
}
a { color: var(--link) }
h1 { font-size: 1.5rem; line-height: 1.25 }
</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{range .Text}}<p>{{.}}</p>
{{end}}{{range .Links}}<p><a href="{{.URL}}" rel="noreferrer">{{.Text}}</a></p>
{{end}}</main>
</body>
</html>
`))
})

// show answers with a page. It may load nothing, post nowhere and be framed by nobody.
func show(w http.ResponseWriter, status int, p page) {
	p.Nonce = rand.Text()
	var b bytes.Buffer
	if err := pageTemplate().Execute(&b, p); err != nil {
		http.Error(w, "patrol could not render the page: report it", http.StatusInternalServerError)
		return
	}
	secure(w.Header(), "style-src 'nonce-"+p.Nonce+"'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// secure sets the headers that every page has. The address may carry a function key
// or an authorization code: it goes to nobody as a referrer.
func secure(h http.Header, policies ...string) {
	all := append([]string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"}, policies...)
	if !slices.ContainsFunc(policies, func(p string) bool { return strings.HasPrefix(p, "form-action ") }) {
		all = append(all, "form-action 'none'") // default-src says nothing of forms
	}
	h.Set("Content-Security-Policy", strings.Join(all, "; "))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}
