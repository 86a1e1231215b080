package web

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// CheckRequest may accept what a person has to accept.
type CheckRequest struct {
	// AcceptMassChange is the id of the event that asks for it.
	AcceptMassChange string `json:"acceptMassChange,omitempty"`
}

// Sweep is the timer's sweep on demand. Its commands carry its minute, so that two in
// one minute are one.
func (a *API) Sweep(ctx context.Context, by Caller, o CheckRequest) (SweepReport, *Problem) {
	asked := request{name: "sweep", body: o}
	if o.AcceptMassChange != "" {
		asked.name, asked.target = "accept-mass-change", o.AcceptMassChange
	}
	return do(ctx, a, by, asked, func(ctx context.Context, _ string) (SweepReport, *Problem) {
		var accepted reconcile.Acceptance
		if o.AcceptMassChange != "" {
			x, p := a.acceptance(ctx, o.AcceptMassChange)
			if p != nil {
				return SweepReport{}, p
			}
			accepted = x
			a.Log.InfoContext(ctx, "a mass change is accepted", "identity", x.Owner.Identity,
				"organization", x.Owner.Organization, "pats", x.PATs, "until", x.Until, "by", by.Who)
		}
		plan, err := a.Reconciler.SweepAccepting(ctx, a.Reconciler.LastSweep().At, by.Who, accepted)
		if err != nil && len(plan.Problems) == 0 {
			return SweepReport{}, a.upstream(ctx, err) // the commands could not be sent
		}
		return *reportOf(a.Reconciler.LastSweep()), nil
	})
}

// check is a sweep, or with dryRun the plan of one.
func (a *API) check(w http.ResponseWriter, r *http.Request) {
	var body CheckRequest
	by, p := a.posted(w, r, &body)
	dryRun := r.URL.Query().Get("dryRun")
	isDry := dryRun == "true" || dryRun == "1"
	if p == nil && isDry && body.AcceptMassChange != "" {
		p = badBody("A dry run accepts nothing: leave out acceptMassChange or dryRun.")
	}
	if p != nil {
		fail(w, *p)
		return
	}
	switch dryRun {
	case "true", "1":
		answer(w, http.StatusOK, a.Plan(r.Context()))
	case "", "false", "0":
		out, p := a.Sweep(r.Context(), by, body)
		a.reply(w, r, http.StatusAccepted, out, p)
	default:
		fail(w, *badQuery("dryRun must be true or false."))
	}
}

func failingOf(f rotation.Failure) Failing {
	return Failing{PAT: f.PAT, Step: string(f.Step), Attempt: f.Attempt, At: f.At.UTC(), Since: timeOrNull(f.Since),
		RetryAt: timeOrNull(f.RetryAt), FailureCause: FailureCause{string(f.Class), f.Code, f.Message}}
}

// States of an IdentityStatus.
const (
	stateSignedIn       = "signed-in"
	stateSignInRequired = "sign-in-required"
	stateRefused        = "refused"
	stateUnknown        = "unknown"
)

// Report is the state of patrol itself: identities, last and next sweep, what is
// failing, and why.
func (a *API) Report(ctx context.Context) StatusReport {
	known := a.shared(ctx)
	out := StatusReport{Build: a.Build, Identities: []IdentityStatus{}, Failing: []Failing{},
		Troubles: troublesOf(known.troubles), LastSweep: reportOf(known.sweep)}
	var signedIn time.Time
	for _, id := range a.identities(ctx) {
		out.Identities = append(out.Identities, identityStatus(id, known.troubles))
		if id.Required == "" {
			signedIn = later(signedIn, id.Since)
		}
	}
	for _, f := range known.failing {
		out.Failing = append(out.Failing, failingOf(f))
	}
	if a.NextSweep != nil {
		out.NextSweep = timeOrNull(a.NextSweep(a.Now()))
	}
	out.Organizations = a.organizationStates(known)
	out.Degraded = a.isDegraded(known.sweep, signedIn)
	out.State.Known = known.err == nil
	if known.err != nil {
		c := cause(known.err)
		out.State.Problem = &c
	}
	out.Manifest = ManifestStatus{Source: a.ManifestSource, PATs: len(a.Reconciler.Specs())}
	return out
}

func (a *API) status(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, a.Report(r.Context()))
}

// healthAge is how long a health answer counts: everybody may ask for it, and to find
// out costs calls.
const healthAge = time.Minute

// healthMemory keeps what the last look that saw everything has found. One that failed,
// or was given up, says nothing about the next minute.
type healthMemory struct {
	mu   sync.Mutex
	at   time.Time
	word string
}

func (h *healthMemory) recall(now time.Time) (word string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.word, !h.at.IsZero() && now.Sub(h.at) < healthAge
}

func (h *healthMemory) keep(word string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.word, h.at = word, at
}

// Words of a health answer. TypeConfiguration is another one.
const (
	healthOK             = "ok"
	healthSignInRequired = "sign-in required"
	healthDegraded       = "degraded"
)

// healthWord says whether patrol can work, and whether the look has seen everything.
func (a *API) healthWord(ctx context.Context) (word string, seen bool) {
	word, seen = healthOK, true
	isRequired := false
	var signedIn time.Time
	for _, id := range a.identities(ctx) {
		seen = seen && id.Err == nil
		isRequired = isRequired || id.Required != ""
		signedIn = later(signedIn, id.Since)
	}
	last, err := a.lastSweep(ctx)
	seen = seen && err == nil
	switch {
	case isRequired:
		word = healthSignInRequired
	case !seen, a.isDegraded(last, signedIn):
		word = healthDegraded
	}
	return word, seen
}

// healthz says whether patrol can work, and never more: nobody's key is checked here.
func (a *API) healthz(w http.ResponseWriter, r *http.Request) {
	now := a.Now()
	word, known := a.health.recall(now)
	if !known {
		var seen bool
		word, seen = a.healthWord(r.Context())
		if seen {
			a.health.keep(word, now)
		}
	}
	if word != healthOK {
		Unhealthy(w, word)
		return
	}
	answer(w, http.StatusOK, healthJSON{word})
}

type healthJSON struct {
	Status string `json:"status"`
}

// Unhealthy is the health answer of an app that cannot work; why is one of the
// published words and never a detail.
func Unhealthy(w http.ResponseWriter, why string) {
	answer(w, http.StatusServiceUnavailable, healthJSON{why})
}
