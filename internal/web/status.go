package web

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Sweeps remembers the sweeps of this process. The zero value is ready.
type Sweeps struct {
	mu   sync.Mutex
	last *sweepJSON
	next time.Time
}

type sweepJSON struct {
	At        time.Time     `json:"at"`
	Took      string        `json:"took"`
	By        string        `json:"by"`
	Managed   int           `json:"managed"`
	Commands  int           `json:"commands"`
	Unmanaged int           `json:"unmanaged"`
	Released  int           `json:"released"`
	Problems  []problemJSON `json:"problems"`
}

// Done notes a sweep, and when the next one will be (zero: not known).
func (s *Sweeps) Done(p rotation.Plan, commands int, by string, ended, next time.Time) {
	j := &sweepJSON{At: p.At.UTC(), Took: ended.Sub(p.At).Round(time.Millisecond).String(), By: by, Managed: len(p.Items),
		Commands: commands, Unmanaged: len(p.Strays), Released: len(p.Released), Problems: []problemJSON{}}
	for _, q := range p.Problems {
		j.Problems = append(j.Problems, problemJSON{q.Identity, q.Organization, cause(q.Err)})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = j
	if !next.IsZero() {
		s.next = next
	}
}

// Last is when this process swept last; zero: not yet.
func (s *Sweeps) Last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return time.Time{}
	}
	return s.last.At
}

// check is the timer's sweep on demand, or with dryRun the plan of one.
func (a *API) check(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Query().Get("dryRun") {
	case "true", "1":
		answer(w, http.StatusOK, a.plan(a.Reconciler.Look(r.Context())))
		return
	case "", "false", "0":
	default:
		fail(w, Problem{Status: http.StatusBadRequest, Type: "bad-request", Title: "The query cannot be used", Detail: "dryRun must be true or false."})
		return
	}
	by := actor(r)
	plan, err := a.Reconciler.Sweep(r.Context(), a.Sweeps.Last(), by)
	commands := plan.Commands(by)
	a.Sweeps.Done(plan, len(commands), by, a.Now(), time.Time{})
	if err != nil && len(plan.Problems) == 0 {
		a.upstream(w, r, err) // the commands could not be sent
		return
	}
	a.Sweeps.mu.Lock()
	body := *a.Sweeps.last
	a.Sweeps.mu.Unlock()
	answer(w, http.StatusAccepted, body)
}

type identityJSON struct {
	Name      string     `json:"name"`
	User      string     `json:"user"`
	State     string     `json:"state"` // signed-in, sign-in-required, unknown
	Since     *time.Time `json:"since"`
	Until     *time.Time `json:"until"`
	Code      string     `json:"code,omitempty"`
	SignInURL string     `json:"signInUrl,omitempty"`
	Problem   *causeJSON `json:"problem,omitempty"`
}

type failedJSON struct {
	PAT     string    `json:"pat"`
	Step    string    `json:"step"`
	Attempt int       `json:"attempt"`
	At      time.Time `json:"at"`
	causeJSON
}

func failed(f rotation.Failure) failedJSON {
	return failedJSON{PAT: f.PAT, Step: f.Step, Attempt: f.Attempt, At: f.At.UTC(), causeJSON: causeJSON{string(f.Class), f.Code, f.Message}}
}

type statusJSON struct {
	Identities []identityJSON `json:"identities"`
	LastSweep  *sweepJSON     `json:"lastSweep"`
	NextSweep  *time.Time     `json:"nextSweep"`
	// Failing is what this process has seen fail and not come to rest since.
	Failing []failedJSON `json:"failing"`
}

// status: identities, last and next sweep, what is failing, and why.
func (a *API) status(w http.ResponseWriter, r *http.Request) {
	out := statusJSON{Identities: []identityJSON{}, Failing: []failedJSON{}}
	for _, id := range a.identities(r.Context()) {
		j := identityJSON{Name: id.Name, User: id.User, State: "signed-in", Since: when(id.Since), Until: when(id.Until)}
		switch {
		case id.Err != nil:
			c := cause(id.Err)
			j.State, j.Problem = "unknown", &c
		case id.Required != "":
			j.State, j.Code, j.SignInURL = "sign-in-required", id.Required, id.SignInURL
		}
		out.Identities = append(out.Identities, j)
	}
	for _, f := range a.Reconciler.Failing() {
		out.Failing = append(out.Failing, failed(f))
	}
	a.Sweeps.mu.Lock()
	out.LastSweep, out.NextSweep = a.Sweeps.last, when(a.Sweeps.next)
	a.Sweeps.mu.Unlock()
	answer(w, http.StatusOK, out)
}

// identities asks for all of them side by side.
func (a *API) identities(ctx context.Context) []Identity {
	names := a.Identities.Names()
	out := make([]Identity, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { out[i] = a.Identities.State(ctx, name) })
	}
	wg.Wait()
	return out
}

// healthAge is how long a health answer counts: everybody may ask for it, and each
// look costs calls.
const healthAge = time.Minute

type healthMemory struct {
	mu       sync.Mutex
	at       time.Time
	required bool
}

// healthz says whether patrol can work, and never more: nobody's key is checked here.
func (a *API) healthz(w http.ResponseWriter, r *http.Request) {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := a.Now(); h.at.IsZero() || now.Sub(h.at) >= healthAge {
		h.required = false
		for _, id := range a.identities(r.Context()) {
			h.required = h.required || id.Required != ""
		}
		h.at = now
	}
	if h.required {
		Unhealthy(w, "sign-in required")
		return
	}
	answer(w, http.StatusOK, healthJSON{"ok"})
}

type healthJSON struct {
	Status string `json:"status"`
}

// Unhealthy is the health answer of an app that cannot work; why is one of the
// published words and never a detail.
func Unhealthy(w http.ResponseWriter, why string) {
	answer(w, http.StatusServiceUnavailable, healthJSON{why})
}
