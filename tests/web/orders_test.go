package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// facts reads a pair of the tag patrol-facts.
func facts(v keyvault.Version, name string) string {
	for part := range strings.SplitSeq(v.Tags["patrol-facts"], ";") {
		if n, value, _ := strings.Cut(part, "="); n == name {
			return value
		}
	}
	return ""
}

// count is how often an operation was called.
func (r *fixture) count(service, operation string) int {
	return r.Cloud.Injector.Count(service, operation)
}

func (r *fixture) pass(d time.Duration) {
	time.Sleep(d)
	r.Settle()
}

func TestAnOrderStandsFromItsAnswerOn(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		was := r.latest(name)
		old := was.Tags["CredentialId"]
		// Nothing can be made, and the command cannot even be sent.
		r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat, Mode: faults.Status,
			Status: 503, Times: -1})
		writes := r.count(keyvault.Service, keyvault.UpdateSecret)
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"revokePrevious":"now"}`,
			"X-Ms-Client-Principal-Name: ada@contoso.com", "Idempotency-Key: leak").want(202, "")
		check(t, "tag writes for the order", r.count(keyvault.Service, keyvault.UpdateSecret)-writes, 1)
		if got := facts(r.latest(name), "order"); !strings.HasPrefix(got, "now,") {
			t.Fatalf("the order on the version is %q", got)
		}
		r.pass(3 * time.Minute)

		var pat web.ManagedPAT
		r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "").into(&pat)
		if pat.Order == nil {
			t.Fatal("the order is not shown")
		}
		check(t, "ordered", pat.Ordered, true)
		check(t, "by", pat.Order.By, "ada@contoso.com")
		check(t, "revokePrevious", pat.Order.RevokePrevious, "now")
		check(t, "about", pat.Order.AuthorizationID, old)
		if time.Since(pat.Order.Since) > 4*time.Minute {
			t.Errorf("the order stands since %s", pat.Order.Since)
		}
		if pat.Order.Problem == nil || pat.Order.Attempt == 0 {
			t.Errorf("its last failure is %+v at attempt %d", pat.Order.Problem, pat.Order.Attempt)
		}
		var list web.Listing
		r.ask("GET", "/api/pats", "").want(200, "").into(&list)
		check(t, "ordered in the list", list.PATs[0].Ordered, true)
		r.dashboard(nil).says("Ordered")
		r.dashboard([]string{"pat", name}).says("Ordered", "ada@contoso.com", "to be revoked at once",
			"It has not been carried out yet")

		r.Cloud.Injector.ClearFaults()
		r.pass(20 * time.Minute)
		check(t, "the leaked PAT", r.pat(old).State, devops.Revoked)
		pat = web.ManagedPAT{}
		r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "").into(&pat)
		if pat.Ordered || pat.Order != nil {
			t.Errorf("the order is still shown: %+v", pat.Order)
		}
	})
}

func TestAnOrderThatCannotBeWrittenIsCarriedByItsCommand(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		was := r.latest(name)
		r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.UpdateSecret, Mode: faults.Status,
			Status: 403})
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
		r.Settle()
		if r.latest(name).ID == was.ID {
			t.Error("the order was not carried out")
		}
	})
}

// An order whose command cannot be sent is answered with an error, and stands all the
// same: a repeat finds it, and so does the next check.
func TestAnOrderWhoseCommandIsLostIsFoundByTheNextCheck(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		was := r.latest(name)
		r.inject(faults.Fault{Service: "servicebus", Operation: "send " + cloud.CommandQueue, Mode: faults.ResetBefore,
			Times: -1})
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(502, "upstream")
		r.Cloud.Injector.ClearFaults()
		r.sweep()
		if r.latest(name).ID == was.ID {
			t.Error("the order was forgotten")
		}
	})
}

// The tag patrol-operation gives way where others need the room; another process finds
// the operation by the facts.
func TestARepeatedKeyFindsItsRotationWithoutTheTagThatGivesWay(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		key := "Idempotency-Key: deploy-4711"
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", key).want(202, "")
		r.Settle()
		made := r.latest(name)
		_, err := r.Cloud.Vault.Change(name, made.ID, func(v *keyvault.Version) { delete(v.Tags, "patrol-operation") })
		if err != nil {
			t.Fatal(err)
		}
		r.Restart()
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", key).want(202, "")
		r.Settle()
		check(t, "latest version", r.latest(name).ID, made.ID)
	})
}

// What such a person orders would be taken for patrol's own check, and forgotten.
func TestAPersonIsNotCalledByOneOfPatrolsOwnWords(t *testing.T) {
	for _, called := range []string{"timer", "Patrol", "ti;mer", "sweep"} {
		t.Run(called, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				r.sweep()
				was := r.latest(name)
				r.ask("POST", "/api/pats/jenkins-agents/rotate", "", "X-Ms-Client-Principal-Name: "+called).
					want(202, "")
				r.Settle()
				now := r.latest(name)
				if now.ID == was.ID {
					t.Error("the order was not carried out")
				}
				check(t, "ordered by", now.Tags["patrol-requested-by"], "http")
			})
		})
	}
}

func TestAnOverlapIsLengthenedAndNeverShortened(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		old := r.latest(name).Tags["CredentialId"]
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
		r.Settle()
		asked := time.Now().Add(3 * rotation.Day).UTC().Truncate(time.Second)
		body := fmt.Sprintf(`{"until":%q}`, asked.Format(time.RFC3339))
		var x web.Overlap
		r.ask("POST", "/api/pats/jenkins-agents/overlap", body).want(200, "").into(&x)
		check(t, "until", x.Until, asked)
		check(t, "authorization id", x.AuthorizationID, old)
		r.ask("POST", "/api/pats/jenkins-agents/overlap", body).want(200, "")
		r.ask("POST", "/api/pats/jenkins-agents/overlap", until(1)).want(422, "bad-valid-to")
		r.ask("POST", "/api/pats/jenkins-agents/overlap", until(300)).want(422, "bad-valid-to")
		r.pass(3*rotation.Day - time.Hour)
		check(t, "the replaced PAT before its new end", r.pat(old).State, devops.Active)
		r.pass(2 * time.Hour)
		check(t, "the replaced PAT after it", r.pat(old).State, devops.Revoked)
		r.ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(409, "nothing-replaced")
	})
}

func TestAnEarlierPATIsRestoredOnceForAKey(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		first := r.latest(name)
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
		r.Settle()
		second := r.latest(name)
		key := "Idempotency-Key: roll-back"
		var x web.Restoration
		r.ask("POST", "/api/pats/jenkins-agents/restore", "", key).want(200, "").into(&x)
		r.Settle()
		now := r.latest(name)
		check(t, "value", now.Value, first.Value)
		check(t, "version", x.Version, now.ID)
		check(t, "authorization id", x.AuthorizationID, first.Tags["CredentialId"])
		r.Restart() // another process, without this one's memory
		var again web.Restoration
		r.ask("POST", "/api/pats/jenkins-agents/restore", "", key).want(200, "").into(&again)
		check(t, "the repeat's answer", again, x)
		check(t, "latest version after the repeat", r.latest(name).ID, now.ID)
		for range 8 {
			r.pass(6 * time.Hour)
		}
		check(t, "the PAT that it took the place of", r.pat(second.Tags["CredentialId"]).State, devops.Revoked)
		check(t, "the restored PAT", r.pat(first.Tags["CredentialId"]).State, devops.Active)
	})
}

func TestNothingIsRestoredOrLengthenedAfterAnOrderToEndIt(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		// The revocation cannot be carried out yet: the replaced PAT lives.
		r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.RevokePat, Mode: faults.Status,
			Status: 503, Times: -1})
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"revokePrevious":"now"}`).want(202, "")
		r.pass(time.Minute)
		now := r.latest(name).ID
		r.ask("POST", "/api/pats/jenkins-agents/restore", "").want(409, "ordered-to-end")
		r.ask("POST", "/api/pats/jenkins-agents/overlap", until(3)).want(409, "ordered-to-end")
		check(t, "latest version", r.latest(name).ID, now)
		r.Cloud.Injector.ClearFaults()
	})
}

// tenPATs are enough for the brake: more than three, and more than a third of them.
func tenPATs() string {
	text := strings.Split(onePAT, "  - name:")[0]
	for i := range 10 {
		text += fmt.Sprintf("  - {name: agents-%02d, identity: build-bot, organization: contoso, "+
			"scopes: [vso.build_execute]}\n", i)
	}
	return text
}

// accept is a body with the id of a mass change that was published days ago.
func accept(identity string, daysAgo int) string {
	at := time.Now().AddDate(0, 0, -daysAgo)
	return fmt.Sprintf(`{"acceptMassChange":%q}`, events.CheckIncompleteID("organization", identity, cloud.Organization,
		"mass-change", at.Add(-time.Hour), at))
}

func TestAMassChangeWaitsForThePersonWhoAcceptsIt(t *testing.T) {
	run(t, simulation.Config{Manifest: tenPATs()}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.pass(time.Hour)
		for i := range 5 {
			r.Cloud.DevOps.Revoke(r.latest(fmt.Sprintf("agents-%02d", i)).Tags["CredentialId"])
		}
		r.Restart()
		r.sweep()
		id := ""
		for _, e := range r.Events() {
			if x, ok := e.Data.(events.CheckIncomplete); ok && x.Code == "mass-change" {
				id = e.ID
				check(t, "PATs in the event", x.PATs, 5)
			}
		}
		if id == "" {
			t.Fatalf("no event asks a person\n%s", r.Output())
		}
		made := len(r.Cloud.DevOps.PATs(cloud.Organization, cloud.User))

		var status web.StatusReport
		r.ask("GET", "/api/status", "").want(200, "").into(&status)
		if len(status.Troubles) != 1 {
			t.Fatalf("troubles in the status: %+v", status.Troubles)
		}
		check(t, "code in the status", status.Troubles[0].Code, "mass-change")
		check(t, "PATs in the status", status.Troubles[0].PATs, 5)
		if len(status.LastSweep.MassChanges) != 1 {
			t.Errorf("mass changes of the last sweep: %+v", status.LastSweep.MassChanges)
		}
		var list web.Listing
		r.ask("GET", "/api/pats", "").want(200, "").into(&list)
		if len(list.MassChanges) != 1 {
			t.Fatalf("mass changes in the list: %+v", list.MassChanges)
		}
		r.dashboard(nil).says("5 of 10 PATs of", "Accept it")

		for _, wrong := range []string{`{"acceptMassChange":"yes"}`, accept("nobody", 0), accept("build-bot", 30),
			strings.Replace(accept("build-bot", 0), "mass-change", "values-refused", 1),
			strings.Replace(accept("build-bot", 0), "organization/", "vault/", 1),
			strings.Replace(accept("build-bot", 0), `"}`, `/x"}`, 1),
			strings.Replace(accept("build-bot", -2), `"}`, `"}`, 1)} {
			r.ask("POST", "/api/check", wrong).want(400, "bad-request")
		}
		body := fmt.Sprintf(`{"acceptMassChange":%q}`, id)
		r.ask("POST", "/api/check?dryRun=true", body).want(400, "bad-request")
		time.Sleep(2 * time.Minute)
		r.Settle()
		check(t, "PATs ever made before it is accepted", len(r.Cloud.DevOps.PATs(cloud.Organization, cloud.User)), made)

		r.ask("POST", "/api/check", body, "X-Ms-Client-Principal-Name: ada@contoso.com").want(http.StatusAccepted, "")
		r.pass(time.Hour)
		check(t, "PATs ever made", len(r.Cloud.DevOps.PATs(cloud.Organization, cloud.User)), made+5)
		if !strings.Contains(r.Output(), `"act":"accept-mass-change"`) {
			t.Error("the log does not say who accepted it")
		}
		time.Sleep(2 * time.Minute)
		r.ask("POST", "/api/check", body).want(409, "no-mass-change")
	})
}

// By the dashboard, in a process that has published nothing.
func TestAMassChangeIsAcceptedOnTheDashboard(t *testing.T) {
	run(t, simulation.Config{Manifest: tenPATs()}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.pass(time.Hour)
		for i := range 5 {
			r.Cloud.DevOps.Revoke(r.latest(fmt.Sprintf("agents-%02d", i)).Tags["CredentialId"])
		}
		made := len(r.Cloud.DevOps.PATs(cloud.Organization, cloud.User))
		r.Restart()
		time.Sleep(time.Minute)
		var list web.Listing
		r.ask("GET", "/api/pats", "").want(200, "").into(&list)
		if len(list.MassChanges) != 1 {
			t.Fatalf("mass changes in the list: %+v", list.MassChanges)
		}
		asked := r.dashboard([]string{"act", "check", "acceptMassChange", list.MassChanges[0].Accept}).
			says("Accept that so many PATs change at once?")
		r.dashboard(asked.confirmation()).says("The check has been done")
		r.pass(time.Hour)
		check(t, "PATs ever made", len(r.Cloud.DevOps.PATs(cloud.Organization, cloud.User)), made+5)
	})
}

// The latest version holds something that is no PAT: nobody can say which PAT is meant.
func TestARotationIsRefusedWhereTheSecretHoldsNoPAT(t *testing.T) {
	for _, revoke := range []string{"now", "overlap"} {
		t.Run(revoke, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				r.sweep()
				put, err := r.Cloud.Vault.Put(keyvault.Version{Name: name, Value: "Server=tcp:contoso;Password=x"})
				if err != nil {
					t.Fatal(err)
				}
				body := `{"revokePrevious":"` + revoke + `"}`
				r.ask("POST", "/api/pats/jenkins-agents/rotate", body).want(422, "not-ours")
				r.Settle()
				check(t, "latest version", r.latest(name).ID, put.ID)
			})
		})
	}
}
