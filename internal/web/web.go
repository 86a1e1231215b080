// Package web holds the HTTP functions: the API that people and pipelines call.
// It turns requests into questions to the domain and commands onto the queue, and
// must not rotate anything itself: a rotation belongs to the session of its PAT.
// What makes no PAT (a later end, a longer overlap, an earlier PAT restored, a single
// revocation) is done at once, so that the caller has the service's own answer.
//
// Keys are checked by the Functions host before a request comes here.
package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// SignInState is how one identity's sign-in stands.
type SignInState struct {
	Name, User string
	// Renamed is the user's name of today, if the manifest has the one before.
	Renamed string
	// Required is the reason for which a person has to sign in; empty if none.
	Required string
	// Since is when the sign-in was made, or lost if Required is set.
	Since     time.Time
	Until     time.Time // when the stored refresh token dies of inactivity
	SignInURL string
	// Err is why the state is not known.
	Err error
	// Cause is why a person has to sign in, or why the sign-in cannot be used; nil: it can.
	Cause *rotation.Error
}

// Identities are those of the manifest, with their sign-ins.
type Identities interface {
	Names() []string
	State(ctx context.Context, identity string) SignInState
}

// Versions lists a secret's versions by their properties.
type Versions interface {
	Versions(ctx context.Context, name string) ([]rotation.Version, error)
}

// Config holds what the HTTP functions need. What may be nil says so.
type Config struct {
	Reconciler *reconcile.Reconciler
	Outbox     rotation.Outbox
	Identities Identities
	Versions   Versions
	// Ends moves a PAT's end and knows ended PATs.
	Ends reconcile.Ends
	// Memory is what processes know of each other; nil: nobody tells.
	Memory rotation.Memory
	// NextSweep is when the timer sweeps after a time; nil: not known.
	NextSweep func(after time.Time) time.Time
	Now       func() time.Time
	// Build is the state of the project that runs.
	Build Build
	// ManifestSource is where the manifest came from.
	ManifestSource string
	// Operation makes ids for requests; nil: random ones.
	Operation func() string
	// Keys seals confirmations; nil: with a key of this process, which another
	// instance does not know.
	Keys Keys
	// Administration gives the revocations of an administrator; nil: there is
	// none.
	Administration func(ctx context.Context) (Revocations, error)
	// Audit reads an organization's own audit log of tokens; nil: nobody may.
	Audit func(ctx context.Context, o rotation.Owner, q administration.AuditQuery) (administration.AuditPage, error)
	// Incidents keeps incidents beyond this process; nil: they are told from the orders.
	Incidents IncidentStore
	// Acts keeps answers beyond this process; nil: nobody does.
	Acts ActStore
	// Authenticated: App Service authentication is on, so that its headers name who asks.
	Authenticated bool
	// Public is the app's own address; nil: not known.
	Public *url.URL
	// Pages add the pages for people.
	Pages []func(a *API, mux *http.ServeMux)
	Log   *slog.Logger
}

// API serves the HTTP functions.
type API struct {
	Config
	actions      *reconcile.Actions
	observations *observations
	health       healthMemory
	recent       recentPlan
	answers      answers
	audits       audits
}

// New wires an API.
func New(c Config) *API {
	if c.Operation == nil {
		c.Operation = rand.Text
	}
	if c.Keys == nil {
		c.Keys = &processKey{}
	}
	return &API{Config: c, observations: newObservations(),
		actions: &reconcile.Actions{Reconciler: c.Reconciler, Ends: c.Ends}}
}

// Handler answers the functions behind their front.
func (a *API) Handler() *Front {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/pats", a.listPATs)
	mux.HandleFunc("GET /api/pats/{name}", a.getPAT)
	mux.HandleFunc("GET /api/pats/{name}/audit", a.getPATAudit)
	mux.HandleFunc("POST /api/pats/{name}/rotate", a.rotatePAT)
	mux.HandleFunc("POST /api/pats/{name}/extend", a.extendPAT)
	mux.HandleFunc("POST /api/pats/{name}/overlap", a.setOverlap)
	mux.HandleFunc("POST /api/pats/{name}/restore", a.restorePAT)
	mux.HandleFunc("POST /api/pats/{name}/confirmations", a.confirmSwitch)
	mux.HandleFunc("POST /api/pats/{name}/switch-over", a.decideSwitchOver)
	mux.HandleFunc("DELETE /api/tokens/{authorizationId}", a.revokePAT)
	mux.HandleFunc("POST /api/revocations", a.revokeUserPATs)
	mux.HandleFunc("POST /api/check", a.check)
	mux.HandleFunc("GET /api/status", a.status)
	mux.HandleFunc("POST /api/incidents", a.startIncident)
	mux.HandleFunc("GET /api/incidents/{id}", a.getIncident)
	mux.HandleFunc("GET /api/health", a.healthz)
	for _, add := range a.Pages {
		add(a, mux)
	}
	return &Front{next: mux, public: a.Public, authenticated: a.Authenticated, now: a.Now, log: a.Log}
}

// reply answers with what was asked for, or with the problem.
func (a *API) reply(w http.ResponseWriter, _ *http.Request, status int, body any, p *Problem) {
	if p != nil {
		fail(w, *p)
		return
	}
	answer(w, status, body)
}

func answer(w http.ResponseWriter, status int, body any) {
	write(w, status, "application/json", body)
}

func plainHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
}

func write(w http.ResponseWriter, status int, contentType string, body any) {
	h := w.Header()
	plainHeaders(h)
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		status, contentType = http.StatusInternalServerError, problemType
		b = []byte(`{"type":"` + problemPrefix + typeInternal +
			`","title":"patrol cannot write the answer: report it","status":500}`)
	}
	h.Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// when is a time for JSON: null if it is not known.
func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
