package web_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// atOnce asks the same of a new process, by so many callers at once. It gives the calls
// that this has led to, and how long the last of them waited.
func (r *fixture) atOnce(callers int, path string) (calls int, took time.Duration) {
	r.t.Helper()
	r.Kill()
	r.pass(time.Minute)
	r.everyCallTakes(2 * time.Second)
	defer r.Cloud.Injector.OnCall(nil)
	before, begun := r.calls(), time.Now()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() { r.ask("GET", path, "").want(200, "") })
	}
	all.Wait()
	return r.calls() - before, time.Since(begun)
}

// calls is how many calls have reached the services.
func (r *fixture) calls() int {
	n := 0
	for _, times := range r.Cloud.Injector.Counts() {
		n += times
	}
	return n
}

func TestManyWhoAskTheSameAtOnceCostOneLook(t *testing.T) {
	for _, path := range []string{"/api/status", "/api/health", "/api/pats", "/api/pats/jenkins-agents"} {
		t.Run(path, func(t *testing.T) {
			run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
				r.sweep()
				r.pass(10 * time.Minute) // until the vault's events have been worked off
				one, alone := r.atOnce(1, path)
				eight, together := r.atOnce(8, path)
				if one == 0 {
					t.Fatal("one caller's look made no call: this test shows nothing")
				}
				check(t, "calls of eight at once", eight, one)
				check(t, "time of eight at once", together, alone)
			})
		})
	}
}

// health asks as an anonymous caller does.
func (r *fixture) health(ctx context.Context) (code int, word string) {
	r.t.Helper()
	rec := httptest.NewRecorder()
	r.Hosts[0].ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://patrol.localhost/api/health",
		http.NoBody).WithContext(ctx))
	var body struct{ Status string }
	(&answer{t: r.t, ask: "GET /api/health", code: rec.Code, body: rec.Body.Bytes()}).into(&body)
	return rec.Code, body.Status
}

func TestHealthIsNeverKeptFromALookThatWasGivenUp(t *testing.T) {
	run(t, simulation.Config{NobodySignedIn: true}, func(t *testing.T, r *fixture) {
		r.everyCallTakes(2 * time.Second)
		hangUp, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go r.Hosts[0].ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet,
			"http://patrol.localhost/api/health", http.NoBody).WithContext(hangUp))
		<-hangUp.Done()
		synctest.Wait()
		for range 2 { // during that look, and after it
			code, word := r.health(t.Context())
			check(t, "status", code, http.StatusServiceUnavailable)
			check(t, "word", word, "sign-in required")
		}
	})
}

func TestHealthIsNeverKeptFromALookThatFailed(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		over := r.Outage(faults.Fault{Service: keyvault.Service, Mode: faults.Status, Status: http.StatusForbidden,
			Times: -1})
		code, word := r.health(t.Context())
		check(t, "status while the vault refuses", code, http.StatusServiceUnavailable)
		check(t, "word while the vault refuses", word, "degraded")
		over()
		code, word = r.health(t.Context())
		check(t, "status a moment after", code, http.StatusOK)
		check(t, "word a moment after", word, "ok")
	})
}

// A look that began before an act does not show what came of it: whoever asks after the
// act gets another one.
func TestALookAfterAnActKnowsOfTheAct(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		// The look reads the vault before the extension and ends after it.
		var early sync.WaitGroup
		r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.ListVersions, Mode: faults.Slow,
			Delay: time.Minute})
		early.Go(func() { r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "") })
		synctest.Wait()
		end := time.Now().AddDate(0, 0, 200).UTC().Truncate(time.Second)
		r.ask("POST", "/api/pats/jenkins-agents/extend", `{"validTo":"`+end.Format(time.RFC3339)+`"}`).want(200, "")
		var pat web.ManagedPAT
		r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "").into(&pat)
		if pat.ValidTo == nil || !pat.ValidTo.Equal(end) {
			t.Errorf("the PAT ends %v, want %v", pat.ValidTo, end)
		}
		early.Wait()
	})
}

// The list of secrets names the PAT before the current one and none before that: what was
// replaced twice within one overlap is in nobody's way all the same.
func TestAPATReplacedTwiceWithinOneOverlapNeedsNothing(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		first := r.latest(name).Tags["CredentialId"]
		for range 2 {
			r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
			r.pass(time.Hour)
		}
		var list web.Listing
		r.ask("GET", "/api/pats", "").want(200, "").into(&list)
		check(t, "unmanaged PATs", len(list.Unmanaged), 0)
		check(t, "state", list.PATs[0].State, "current")
		var plan web.PlanReport
		r.ask("POST", "/api/check?dryRun=true", "").want(200, "").into(&plan)
		for _, c := range plan.Changes {
			if c.Action != "revoke" || c.At == nil {
				t.Errorf("a sweep would do %+v, want nothing before the end of the overlap", c)
			}
		}
		sent := r.commands()
		r.sweep()
		check(t, "commands of a sweep", r.commands()-sent, 0)
		check(t, "the PAT before the last", r.pat(first).State, devops.Active)
	})
}
