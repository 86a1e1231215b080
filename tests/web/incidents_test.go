package web_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// startIncident asks what an incident would do, and starts it.
func startIncident(r *fixture, scope string, ask func(method, path, body string, headers ...string) *answer,
	headers ...string) web.Incident {
	r.t.Helper()
	var plan, started web.Incident
	ask("POST", "/api/incidents", `{"scope":`+scope+`,"dryRun":true}`, headers...).want(200, "").into(&plan)
	if plan.Confirmation == "" || plan.ID != "" {
		r.t.Fatalf("the plan: %+v", plan)
	}
	body := fmt.Sprintf(`{"scope":%s,"confirmation":%q,"reason":"a leak"}`, scope, plan.Confirmation)
	a := ask("POST", "/api/incidents", body, headers...).want(202, "")
	a.into(&started)
	if got := a.header.Get("Location"); got != "/api/incidents/"+started.ID || got != started.Status {
		r.t.Errorf("Location %q of the incident %s", got, started.ID)
	}
	return started
}

func TestAnIncidentReplacesAndEndsAllPATsOfItsScope(t *testing.T) {
	for scope, want := range map[string]int{`{"identity":"build-bot"}`: 2, `{"organization":"CONTOSO"}`: 2,
		`{"pat":"Jenkins-Agents"}`: 1} {
		bubble(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
			r.sweep()
			before := map[string]string{}
			for _, pat := range []string{"jenkins-agents", "nuget-feed"} {
				before[pat] = r.latest(pat).Tags["CredentialId"]
			}
			unmanaged := r.byHand("by hand", "vso.code", 30, false)
			time.Sleep(2 * time.Hour)
			started := startIncident(r, scope, r.ask, "X-Ms-Client-Principal-Name: ada@contoso.com")
			if len(started.PATs) != want || started.By != "ada@contoso.com" {
				t.Fatalf("%s: %+v", scope, started)
			}
			for _, p := range started.PATs {
				if p.State != "ordered" || p.AuthorizationID != before[p.Name] {
					t.Errorf("%s: %+v, want the order of %s", scope, p, before[p.Name])
				}
			}
			r.Settle()
			var now web.Incident
			r.ask("GET", started.Status, "").want(200, "").into(&now)
			if !now.Done || len(now.PATs) != want {
				t.Errorf("%s: after it: %+v", scope, now)
			}
			for _, p := range now.PATs {
				v := r.latest(p.Name)
				if p.State != "ended" || p.EndedAt == nil || p.ReplacedAt == nil {
					t.Errorf("%s: %+v, want it ended", scope, p)
				}
				if got := r.pat(before[p.Name]).State; got != "revoked" {
					t.Errorf("%s: the PAT of %s is %s", scope, p.Name, got)
				}
				if got := v.Tags["patrol-operation"]; got != started.ID {
					t.Errorf("%s: operation %q of %s, want the incident's id", scope, got, p.Name)
				}
				if got := v.Tags["patrol-requested-by"]; got != "ada@contoso.com" {
					t.Errorf("%s: %s was requested by %q", scope, p.Name, got)
				}
			}
			if want == 2 && (len(now.Unmanaged) != 1 || len(started.Unmanaged) != 1) {
				t.Errorf("%s: unmanaged %+v, then %+v", scope, started.Unmanaged, now.Unmanaged)
			}
			if got := r.pat(unmanaged).State; got == "revoked" {
				t.Errorf("%s: a PAT that patrol does not manage was revoked", scope)
			}
		})
	}
}

func TestAnIncidentOfAnIdentitySaysWhatPeopleDoFirst(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		id := r.byHand("by hand", "vso.code", 30, false)
		var plan web.Incident
		r.ask("POST", "/api/incidents?dryRun=true", `{"scope":{"identity":"build-bot"}}`).want(200, "").into(&plan)
		if len(plan.Steps) == 0 || !strings.Contains(plan.Steps[0], "Revoke the sessions of "+cloud.User) {
			t.Errorf("steps %q", plan.Steps)
		}
		if len(plan.Unmanaged) != 1 || plan.Unmanaged[0].AuthorizationID != id {
			t.Fatalf("unmanaged: %+v", plan.Unmanaged)
		}
		r.ask("DELETE", plan.Unmanaged[0].Revoke, "").want(204, "")
		if got := r.pat(id).State; got != "revoked" {
			t.Errorf("the PAT by hand is %s", got)
		}
	})
}

func TestAnIncidentsConfirmationFitsItsPATsAndNoOthers(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := r.untouched()
		var plan web.Incident
		r.ask("POST", "/api/incidents?dryRun=true", `{"scope":{"pat":"jenkins-agents"}}`).want(200, "").into(&plan)
		with := func(scope string) string {
			return fmt.Sprintf(`{"scope":%s,"confirmation":%q}`, scope, plan.Confirmation)
		}
		r.ask("POST", "/api/incidents", with(`{"identity":"build-bot"}`)).want(422, "confirmation")
		r.ask("POST", "/api/incidents", with(`{"pat":"nuget-feed"}`)).want(422, "confirmation")
		r.ask("POST", "/api/incidents", with(`{"pat":"jenkins-agents"}`),
			"X-Ms-Client-Principal-Name: bob@contoso.com").want(422, "confirmation")
		r.ask("POST", "/api/incidents?dryRun=true", with(`{"pat":"jenkins-agents"}`)).want(400, "bad-request")
		if now := r.untouched(); now != before {
			t.Errorf("something was done:\n%s\nbefore:\n%s", now, before)
		}
		time.Sleep(11 * time.Minute)
		r.ask("POST", "/api/incidents", with(`{"pat":"jenkins-agents"}`)).want(422, "confirmation")
	})
}

// The same request with its key starts one incident, at another instance too.
func TestAnIncidentIsStartedOnceForAKey(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		var plan, first, again web.Incident
		r.ask("POST", "/api/incidents?dryRun=true", `{"scope":{"pat":"jenkins-agents"}}`).want(200, "").into(&plan)
		body := fmt.Sprintf(`{"scope":{"pat":"jenkins-agents"},"confirmation":%q}`, plan.Confirmation)
		r.ask("POST", "/api/incidents", body, "Idempotency-Key: leak-1").want(202, "").into(&first)
		r.Settle()
		version := r.latest(name).ID
		r.ask("POST", "/api/incidents", body, "Idempotency-Key: leak-1").want(202, "").into(&again)
		r.Restart()
		var other web.Incident
		r.ask("POST", "/api/incidents", body, "Idempotency-Key: leak-1").want(202, "").into(&other)
		r.Settle()
		if again.ID != first.ID || other.ID != first.ID {
			t.Errorf("ids %s, %s, %s", first.ID, again.ID, other.ID)
		}
		if got := r.latest(name).ID; got != version {
			t.Errorf("it was rotated once more: %s, %s", version, got)
		}
	})
}
