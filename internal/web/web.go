// Package web holds the HTTP functions: the API that people and pipelines call.
// It turns requests into questions to the domain and commands onto the queue, and
// must not rotate anything itself: a rotation belongs to the session of its PAT.
//
// Keys are checked by the Functions host before a request comes here.
package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// MaxBody is how large a request's body may be, in bytes.
const MaxBody = 64 << 10

// Identity is the state of one identity's sign-in.
type Identity struct {
	Name, User string
	// Required is the reason for which a person has to sign in; empty if none.
	Required string
	// Since is when the sign-in was made, or lost if Required is set.
	Since     time.Time
	Until     time.Time // when the stored refresh token dies of inactivity
	SignInURL string
	// Err is why the state is not known.
	Err error
}

// Identities tells about sign-ins.
type Identities interface {
	Names() []string
	State(ctx context.Context, identity string) Identity
}

// Versions lists a secret's versions by their properties.
type Versions interface {
	Versions(ctx context.Context, name string) ([]rotation.Version, error)
}

// Config holds what the HTTP functions need. Every field is required.
type Config struct {
	Reconciler *rotation.Reconciler
	Outbox     rotation.Outbox
	Identities Identities
	Versions   Versions
	Sweeps     *Sweeps
	Now        func() time.Time
	// Operation makes ids for orders; nil: random ones.
	Operation func() string
	Log       *slog.Logger
}

// API serves the HTTP functions.
type API struct {
	Config
	health healthMemory
}

// New wires an API.
func New(c Config) *API {
	if c.Operation == nil {
		c.Operation = rand.Text
	}
	return &API{Config: c}
}

// Handler routes as the function.json files do. Paths carry the route prefix.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/pats", a.listPATs)
	mux.HandleFunc("GET /api/pats/{name}", a.getPAT)
	mux.HandleFunc("POST /api/pats/{name}/rotate", a.rotatePAT)
	mux.HandleFunc("POST /api/check", a.check)
	mux.HandleFunc("GET /api/status", a.status)
	mux.HandleFunc("GET /api/health", a.healthz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, Problem{Status: http.StatusNotFound, Type: "not-found", Title: "No such page", Detail: "patrol has no function at this path with this method."})
	})
	return mux
}

// Problem is an error answer, RFC 9457. Type is made a URN: it is a stable name and
// no address.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// SignInURL is where the identity's user can repair it.
	SignInURL string `json:"signInUrl,omitempty"`
	Class     string `json:"class,omitempty"`
	Code      string `json:"code,omitempty"`
	Errors    any    `json:"errors,omitempty"`
}

func fail(w http.ResponseWriter, p Problem) {
	p.Type = "urn:patrol:problem:" + p.Type
	write(w, p.Status, "application/problem+json", p)
}

// Fail answers with a problem; for the wiring, when there is no API to ask.
func Fail(w http.ResponseWriter, p Problem) { fail(w, p) }

// upstream answers for a service that could not be asked.
func (a *API) upstream(w http.ResponseWriter, r *http.Request, err error) {
	p := Problem{Status: http.StatusBadGateway, Type: "upstream", Title: "A service that patrol depends on did not answer as it should"}
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		p.Class, p.Code, p.Detail = string(e.Class), e.Code, e.Message
		switch e.Class {
		case rotation.SignIn:
			p.Status, p.Type, p.Title = http.StatusConflict, "sign-in-required", "A person has to sign in"
		case rotation.Throttled:
			p.Status, p.Type, p.Title = http.StatusServiceUnavailable, "throttled", "A service that patrol depends on asks for a pause"
			w.Header().Set("Retry-After", "30")
		}
	}
	a.Log.WarnContext(r.Context(), "request failed", "path", r.URL.Path, "class", p.Class, "code", p.Code)
	fail(w, p)
}

func answer(w http.ResponseWriter, status int, body any) {
	write(w, status, "application/json", body)
}

func write(w http.ResponseWriter, status int, contentType string, body any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		http.Error(w, `{"type":"urn:patrol:problem:internal","status":500}`, http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// actor names who asks: App Service authentication's user, if it is on.
func actor(r *http.Request) string {
	if name := r.Header.Get("X-Ms-Client-Principal-Name"); name != "" && len(name) <= 256 {
		return name
	}
	return "http"
}

// readJSON reads an optional JSON object into v. Its error is a Problem.
func readJSON(w http.ResponseWriter, r *http.Request, v any) *Problem {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.More() {
		err = errors.New("something follows the JSON object")
	}
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Problem{Status: http.StatusRequestEntityTooLarge, Type: "too-large", Title: "The body is too large", Detail: "A body may have 64 KiB."}
	}
	p := &Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "The body cannot be used", Detail: "The body must be a JSON object."}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		p.Detail = "The field " + e.Field + " has the wrong type."
	} else if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		p.Detail = "There is no field " + field + " here."
	}
	return p
}
