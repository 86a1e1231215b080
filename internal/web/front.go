package web

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Level is whose requests the Functions host lets through to a function.
type Level string

// The levels of function.json.
const (
	LevelAnonymous Level = "anonymous"
	LevelFunction  Level = "function"
	LevelAdmin     Level = "admin"
)

// Function is one HTTP function, as its function.json declares it, with what it takes.
// What is not here is refused, before the function is asked.
type Function struct {
	Name    string
	Methods []string
	Route   string // below /api/
	Level   Level
	// Query are the parameters that it knows, beside those of the caller's key.
	Query []string
	// AnyQuery: it ignores what it does not know.
	AnyQuery bool
	Body     bodyKind
	// FromElsewhere: other sites may lead a browser here, by GET.
	FromElsewhere bool
	// Page: it answers people.
	Page bool
	// Bounded: whoever asks without a key costs calls, so that their number is bounded.
	Bounded bool
}

// bodyKind is what a function takes as a request's body.
type bodyKind int

const (
	noBody bodyKind = iota
	jsonBody
	formBody // the page reads it itself
)

func get() []string    { return []string{http.MethodGet} }
func post() []string   { return []string{http.MethodPost} }
func remove() []string { return []string{http.MethodDelete} }

// Functions are patrol's HTTP functions.
func Functions() []Function {
	return []Function{
		{Name: "Check", Methods: post(), Route: "check", Level: LevelFunction, Query: []string{"dryRun"},
			Body: jsonBody},
		{Name: "ConfirmSwitch", Methods: post(), Route: "pats/{name}/confirmations", Level: LevelFunction,
			Body: jsonBody},
		{Name: "Dashboard", Methods: append(get(), post()...), Route: "dashboard", Level: LevelAnonymous,
			AnyQuery: true, Body: formBody, FromElsewhere: true, Page: true},
		{Name: "ExtendPat", Methods: post(), Route: "pats/{name}/extend", Level: LevelFunction, Body: jsonBody},
		{Name: "GetIncident", Methods: get(), Route: "incidents/{id}", Level: LevelFunction},
		{Name: "GetPat", Methods: get(), Route: "pats/{name}", Level: LevelFunction},
		{Name: "GetPatAudit", Methods: get(), Route: "pats/{name}/audit", Level: LevelAdmin},
		{Name: "Health", Methods: []string{http.MethodGet, http.MethodHead}, Route: "health", Level: LevelAnonymous,
			FromElsewhere: true},
		{Name: "ListPats", Methods: get(), Route: "pats", Level: LevelFunction,
			Query: []string{"state", "organization", "identity", "kind", "cursor", "limit"}},
		{Name: "RestorePat", Methods: post(), Route: "pats/{name}/restore", Level: LevelFunction, Body: jsonBody},
		{Name: "RevokePat", Methods: remove(), Route: "tokens/{authorizationId}", Level: LevelFunction,
			Query: []string{"organization", "identity", "force"}},
		{Name: "RevokeUserPats", Methods: post(), Route: "revocations", Level: LevelAdmin, Body: jsonBody},
		{Name: "RotatePat", Methods: post(), Route: "pats/{name}/rotate", Level: LevelFunction, Body: jsonBody},
		{Name: "SetOverlap", Methods: post(), Route: "pats/{name}/overlap", Level: LevelFunction, Body: jsonBody},
		{Name: "SignIn", Methods: get(), Route: "identities/{identity}/signin", Level: LevelAnonymous,
			Query: []string{"confirm", atThisHost}, FromElsewhere: true, Page: true, Bounded: true},
		{Name: "SignInCallback", Methods: get(), Route: "signin/callback", Level: LevelAnonymous, AnyQuery: true,
			FromElsewhere: true, Page: true, Bounded: true},
		{Name: "StartIncident", Methods: post(), Route: "incidents", Level: LevelFunction, Query: []string{"dryRun"},
			Body: jsonBody},
		{Name: "SwitchOver", Methods: post(), Route: "pats/{name}/switch-over", Level: LevelFunction, Body: jsonBody},
		{Name: "Status", Methods: get(), Route: "status", Level: LevelFunction},
	}
}

// Front stands before the HTTP functions. It finds the function as the Functions host has
// found it, and refuses what none of them takes: other sites, unknown parameters, bodies
// that are no JSON.
type Front struct {
	next http.Handler
	// broken are the problems of settings or manifest, where there are some.
	broken []string
	public *url.URL // nil: not known
	// authenticated: App Service authentication is on, and says who asks.
	authenticated bool
	now           func() time.Time
	log           *slog.Logger
	bound         bound
}

// Broken answers in the place of an app whose settings or manifest cannot be used.
func Broken(problems []string, log *slog.Logger) *Front {
	return &Front{broken: problems, now: time.Now, log: log, next: http.NotFoundHandler()}
}

// About names the function that a request is for; anonymous: the host asks its callers
// for no key. Nobody's requests may fill the log or cost an export.
func (f *Front) About(r *http.Request) (function string, anonymous bool) {
	fn, _ := find(r)
	if fn == nil {
		return "", true
	}
	return fn.Name, fn.Level == LevelAnonymous
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fn, path := find(r)
	if fn == nil {
		fail(w, Problem{Status: http.StatusNotFound, Type: typeNotFound, Title: "No such function",
			Detail: "patrol has no function with this path and method."})
		return
	}
	if f.broken != nil {
		f.sayBroken(w, fn)
		return
	}
	if p := f.check(fn, r); p != nil {
		f.refuse(w, r, fn, p)
		return
	}
	to := *r
	at := *r.URL
	at.Path, at.RawPath = path.plain, path.escaped
	to.URL = &at
	if to.Method == http.MethodHead {
		to.Method = http.MethodGet // net/http leaves the body out
	}
	ctx := context.WithValue(r.Context(), functionKey{}, fn)
	called := to.WithContext(ctx)
	if !f.authenticated {
		called.Header = withoutPrincipal(r.Header)
	}
	f.next.ServeHTTP(w, called)
	r.Pattern = called.Pattern
}

// withoutPrincipal leaves out what only App Service authentication may say: where it is
// off, a caller's own words come through.
func withoutPrincipal(h http.Header) http.Header {
	const prefix = "X-Ms-Client-Principal"
	out := h.Clone()
	maps.DeleteFunc(out, func(name string, _ []string) bool { return strings.HasPrefix(name, prefix) })
	return out
}

type functionKey struct{}

// functionOf is the function that a request has come to; the zero one outside of requests.
func functionOf(ctx context.Context) Function {
	if fn, ok := ctx.Value(functionKey{}).(*Function); ok {
		return *fn
	}
	return Function{}
}

// sayBroken tells the report to those whose key the host has checked, and to nobody else.
func (f *Front) sayBroken(w http.ResponseWriter, fn *Function) {
	if fn.Level == LevelAnonymous {
		Unhealthy(w, TypeConfiguration)
		return
	}
	fail(w, Problem{Status: http.StatusServiceUnavailable, Type: TypeConfiguration,
		Title:  "patrol is not configured",
		Detail: "Settings or the manifest cannot be used; errors says what to do.", Errors: f.broken})
}

// refuse answers a person with a page and a program with a problem.
func (f *Front) refuse(w http.ResponseWriter, r *http.Request, fn *Function, p *Problem) {
	f.log.DebugContext(r.Context(), "request refused", "status", p.Status, "code", p.Type)
	if fn.Page && !wantsJSON(r) {
		setRetryAfter(w.Header(), p.retryAfter)
		show(w, p.Status, page{Title: p.Title, Text: []string{p.Detail}})
		return
	}
	fail(w, *p)
}

// wantsJSON reports whether a program asks, and no browser.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "json") && !strings.Contains(accept, "text/html")
}

func (f *Front) check(fn *Function, r *http.Request) *Problem {
	if fn.Bounded {
		if wait := f.bound.take(f.now()); wait > 0 {
			return &Problem{Status: http.StatusTooManyRequests, Type: typeTooMany, Title: "Too many sign-ins at once",
				Detail: "Try again in a moment.", retryAfter: int(wait/time.Second) + 1}
		}
	}
	if p := f.checkSite(fn, r); p != nil {
		return p
	}
	if p := checkQuery(fn, r.URL.RawQuery); p != nil {
		return p
	}
	return checkBody(fn, r)
}

// checkSite refuses what a page of another site makes a browser send. Programs send
// neither of these headers.
func (f *Front) checkSite(fn *Function, r *http.Request) *Problem {
	isRead := r.Method == http.MethodGet || r.Method == http.MethodHead
	if fn.Body == formBody || fn.FromElsewhere && isRead {
		return nil // a form's page holds it to its own token as well
	}
	site := r.Header.Values("Sec-Fetch-Site")
	for _, s := range site {
		if s != "same-origin" && s != "none" {
			return crossSite()
		}
	}
	if len(site) > 0 {
		return nil
	}
	for _, origin := range r.Header.Values("Origin") { // of browsers that have no Sec-Fetch-Site
		if !f.isOwn(r, origin) {
			return crossSite()
		}
	}
	return nil
}

func crossSite() *Problem {
	return &Problem{Status: http.StatusForbidden, Type: typeCrossSite, Title: "The request comes from another site",
		Detail: "patrol answers programs and its own pages, and no page of another site."}
}

// isOwn reports whether an origin is the app's own: PUBLIC_URL's, or the one at which the
// request has arrived.
func (f *Front) isOwn(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false // "null" too
	}
	if f.public != nil && strings.EqualFold(u.Host, f.public.Host) {
		return true
	}
	return strings.EqualFold(u.Host, publicHost(r))
}

// publicHost is the host at which a request has arrived: in proxying mode the Functions
// host tells it beside its own call's Host.
func publicHost(r *http.Request) string {
	return cmp.Or(r.Header.Get("X-Forwarded-Host"), r.Host)
}

// checkQuery refuses what the function does not know, and what is said twice: a misspelt
// dryRun would be a real sweep.
func checkQuery(fn *Function, raw string) *Problem {
	q, err := url.ParseQuery(raw)
	if fn.AnyQuery {
		return nil
	}
	if err != nil {
		return badQuery("It is not encoded as a query has to be.")
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch {
		case isKeyParameter(name):
		case !slices.Contains(fn.Query, name):
			return badQuery(noParameter(name))
		case len(q[name]) != 1:
			return badQuery(clip(name) + " may be given once.")
		}
	}
	return nil
}

// bound lets so many requests through at once, and so many in a second after that.
type bound struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

const (
	// boundBurst is enough for a team that signs in after an outage; each of these
	// requests may cost calls of Entra and of the vault.
	boundBurst  = 60
	boundPerSec = 1
)

// take is 0 if there is room, else how long to wait.
func (b *bound) take(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() {
		b.left = boundBurst
	} else if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.left = min(boundBurst, b.left+passed*boundPerSec)
	}
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / boundPerSec * float64(time.Second))
	}
	b.left--
	return 0
}

// canonical is a path as the functions are registered by.
type canonical struct{ plain, escaped string }

// find is the function that the Functions host has chosen: the case of literals does not
// count, nor does a slash at the end. The path comes as the client wrote it.
func find(r *http.Request) (*Function, canonical) {
	rest, ok := cutPrefixFold(r.URL.EscapedPath(), "/api/")
	if !ok {
		return nil, canonical{}
	}
	pieces := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	for _, fn := range Functions() {
		if !slices.Contains(fn.Methods, r.Method) {
			continue
		}
		if path, ok := fn.at(pieces); ok {
			return &fn, path
		}
	}
	return nil, canonical{}
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// at gives the canonical path if the pieces fit the function's route.
func (fn *Function) at(pieces []string) (canonical, bool) {
	route := strings.Split(fn.Route, "/")
	if len(route) != len(pieces) {
		return canonical{}, false
	}
	out := canonical{"/api", "/api"}
	for i, want := range route {
		got, err := url.PathUnescape(pieces[i])
		isName := got != "" && got != "." && got != ".."
		if err != nil || !isName {
			return canonical{}, false
		}
		if strings.HasPrefix(want, "{") {
			out.plain, out.escaped = out.plain+"/"+got, out.escaped+"/"+pieces[i]
			continue
		}
		if !strings.EqualFold(got, want) {
			return canonical{}, false
		}
		out.plain, out.escaped = out.plain+"/"+want, out.escaped+"/"+want
	}
	return out, true
}
