package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// incomplete are the events that a check was incomplete.
func (r *fixture) incomplete() (out []events.CheckIncomplete) {
	for _, e := range r.Events() {
		if x, ok := e.Data.(events.CheckIncomplete); ok {
			out = append(out, x)
		}
	}
	return out
}

// forbidden refuses every call of an operation, as a service does whose role was taken away.
func forbidden(service, operation string) faults.Fault {
	return faults.Fault{Service: service, Operation: operation, Mode: faults.Status, Status: 403, Times: -1,
		Body: `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`}
}

func (r *fixture) wantHealth(when string, code int, word string) {
	r.t.Helper()
	gotCode, gotWord := r.health(r.t.Context())
	check(r.t, "status of health "+when, gotCode, code)
	check(r.t, "word of health "+when, gotWord, word)
}

func (r *fixture) wantOnPage(text string) {
	r.t.Helper()
	if p := r.dashboard(nil); !strings.Contains(p.text, text) {
		r.t.Errorf("the page does not say %q: %s", text, p.text)
	}
}

func TestAVaultThatRefusesIsToldByHealthEventAndPageWithinASweep(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.wantHealth("before", 200, "ok")
		r.inject(forbidden(keyvault.Service, keyvault.ListSecrets))
		time.Sleep(6 * time.Hour)
		r.Settle()
		r.wantHealth("after the sweep", 503, "degraded")
		told := r.incomplete()
		if len(told) != 1 {
			t.Fatalf("%d events, want one: %+v", len(told), told)
		}
		check(t, "scope", string(told[0].Scope), "vault")
		check(t, "code", told[0].Code, "vault-forbidden")
		r.wantOnPage("patrol is degraded")
		r.wantOnPage("patrol could not check the vault")
	})
}

func TestABusThatRefusesIsToldByHealthAndTheLog(t *testing.T) {
	for name, refused := range map[string][]string{
		"the topic":               {cloud.EventTopic},
		"the queue and the topic": {cloud.CommandQueue, cloud.EventTopic},
	} {
		t.Run(name, func(t *testing.T) { refusingBus(t, refused) })
	}
}

func refusingBus(t *testing.T, refused []string) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.Purge(name)
		for _, entity := range refused {
			r.inject(forbidden("servicebus", "send "+entity))
		}
		time.Sleep(6 * time.Hour)
		r.pass(8 * time.Hour)
		r.wantHealth("after sweeps for more than an hour", 503, "degraded")
		var status struct{ Troubles []struct{ Scope string } }
		r.ask("GET", "/api/status", "").want(200, "").into(&status)
		if len(status.Troubles) != 1 || status.Troubles[0].Scope != "bus" {
			t.Errorf("troubles %+v, want the bus alone", status.Troubles)
		}
		found := false
		for text := range strings.SplitSeq(r.Output(), "\n") {
			isLine := strings.Contains(text, `"msg":"check incomplete"`)
			found = found || isLine && strings.Contains(text, `"scope":"bus"`)
		}
		check(t, "the log has it", found, true)
	})
}

func TestWithoutStateURLWhatOthersKnowIsNotKnownHere(t *testing.T) {
	c := simulation.Config{Settings: map[string]string{"STATE_URL": ""}}
	run(t, c, func(t *testing.T, r *fixture) {
		r.wantOnPage("not known here")
		r.sweep()
		told := r.incomplete()
		if len(told) != 1 {
			t.Fatalf("%d events, want one: %+v", len(told), told)
		}
		check(t, "scope", string(told[0].Scope), "state")
		check(t, "code", told[0].Code, "state-off")
		r.wantOnPage("not known here")
		r.wantHealth("after the sweep", 200, "ok")
	})
}

func TestNoSweepForTwoIntervalsIsDegraded(t *testing.T) {
	c := simulation.Config{Settings: map[string]string{"AzureWebJobs.CheckExpiry.Disabled": "true"}}
	run(t, c, func(t *testing.T, r *fixture) {
		r.ask("POST", "/api/check", "").want(202, "")
		r.Settle()
		time.Sleep(11 * time.Hour)
		r.wantHealth("within two intervals", 200, "ok")
		time.Sleep(2 * time.Hour)
		r.wantHealth("after two intervals", 503, "degraded")
		r.ask("POST", "/api/check", "").want(202, "")
		r.pass(2 * time.Minute)
		r.wantHealth("after a sweep", 200, "ok")
	})
}
