package web_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// keptAct is an act whose answer every process knows.
type keptAct struct {
	name string // as audit lines have it
	code int
	// begin gives the request, and the same one with something else in it.
	begin func(r *fixture) (method, path, body, otherPath, otherBody string)
}

func keptActs() []keptAct {
	in := func(d time.Duration) string {
		return time.Now().Add(d).UTC().Truncate(time.Second).Format(time.RFC3339)
	}
	replaced := func(r *fixture) {
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
		r.Settle()
	}
	return []keptAct{
		{"extend", http.StatusOK, func(*fixture) (method, path, body, otherPath, otherBody string) {
			path = "/api/pats/jenkins-agents/extend"
			return "POST", path, fmt.Sprintf(`{"validTo":%q}`, in(4800*time.Hour)), path,
				fmt.Sprintf(`{"validTo":%q}`, in(5000*time.Hour))
		}},
		{"set-overlap", http.StatusOK, func(r *fixture) (method, path, body, otherPath, otherBody string) {
			replaced(r)
			path = "/api/pats/jenkins-agents/overlap"
			return "POST", path, fmt.Sprintf(`{"until":%q}`, in(48*time.Hour)), path,
				fmt.Sprintf(`{"until":%q}`, in(60*time.Hour))
		}},
		{"restore", http.StatusOK, func(r *fixture) (method, path, body, otherPath, otherBody string) {
			replaced(r)
			return "POST", "/api/pats/jenkins-agents/restore", "", "/api/pats/another/restore", ""
		}},
		{"revoke", http.StatusNoContent, func(r *fixture) (method, path, body, otherPath, otherBody string) {
			path = "/api/tokens/" + r.byHand("made by hand", "vso.code", 30, false)
			return "DELETE", path, "", path + "?force=true", ""
		}},
	}
}

func TestAKeysAnswerIsKnownToTheNextProcess(t *testing.T) {
	const key = "Idempotency-Key: deploy-4711"
	for _, a := range keptActs() {
		t.Run(a.name, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				r.sweep()
				method, path, body, otherPath, otherBody := a.begin(r)
				first := r.ask(method, path, body, key).want(a.code, "")
				r.Settle()
				version := r.latest(name).ID
				r.Restart()
				again := r.ask(method, path, body, key).want(a.code, "")
				check(t, "the repeat's answer", string(again.body), string(first.body))
				_, outcome := r.audited(a.name)
				check(t, "outcome of the repeat", outcome, "repeated")
				check(t, "latest version after the repeat", r.latest(name).ID, version)
				r.ask(method, otherPath, otherBody, key).want(422, "idempotency-key-reused")
			})
		})
	}
}

func TestWithoutTheStateAKeyIsKnownWhereItWasUsed(t *testing.T) {
	const key = "Idempotency-Key: deploy-4711"
	for _, a := range keptActs() {
		t.Run(a.name, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				r.sweep()
				method, path, body, _, _ := a.begin(r)
				r.inject(faults.Fault{Service: blob.Service, Mode: faults.Status, Status: 403, Times: -1})
				r.ask(method, path, body, key).want(a.code, "")
				r.ask(method, path, body, key).want(a.code, "")
				_, outcome := r.audited(a.name)
				check(t, "outcome of the repeat", outcome, "repeated")
				r.Settle()
				version := r.latest(name).ID
				r.Restart()
				r.ask(method, path, body, key).want(a.code, "")
				_, outcome = r.audited(a.name)
				check(t, "outcome in the next process", outcome, "done")
				check(t, "latest version", r.latest(name).ID, version)
			})
		})
	}
}

// A process that ends in the middle of an act holds its key for a minute.
func TestAnActOfAProcessThatHasEndedIsCarriedOutByARepeat(t *testing.T) {
	const key = "Idempotency-Key: deploy-4711"
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		method, path, body, _, _ := keptActs()[0].begin(r)
		r.everyCallTakes(time.Second)
		go func() {
			time.Sleep(2500 * time.Millisecond)
			r.Kill()
		}()
		req := httptest.NewRequest(method, "http://patrol.localhost"+path, strings.NewReader(body))
		req.Header.Set("X-Functions-Key", masterKey)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "deploy-4711")
		lost := httptest.NewRecorder()
		r.Hosts[0].ServeHTTP(lost, req)
		check(t, "the host's answer for the process that ended", lost.Code, http.StatusInternalServerError)
		r.Cloud.Injector.OnCall(nil)
		r.Restart()
		r.ask(method, path, body, key).want(503, "busy")
		time.Sleep(time.Minute)
		r.ask(method, path, body, key).want(200, "")
	})
}
