package web_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// consumedPAT is onePAT with two consumers that its replaced PATs wait for.
var consumedPAT = onePAT + `    consumers: [{name: jenkins}, {name: nightly}, {name: report, required: false}]
    switchOver: {within: 12h, postponeAtMost: 72h}
`

// replacedOnce is the fixture after a rotation: the replaced PAT's id, and the latest
// version as its reader has it.
func replacedOnce(r *fixture) (old string) {
	r.SetManifest(consumedPAT)
	r.Restart()
	r.sweep()
	old = r.latest(name).Tags["CredentialId"]
	r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
	r.Settle()
	return old
}

func confirmedBy(r *fixture, consumer string) events.Confirmed {
	v := r.latest(name)
	c := events.Confirmed{PAT: name, SecretVersion: v.ID, Consumer: consumer, Outcome: events.OutcomeSwitched}
	return c.Prove([]byte(v.Value))
}

func body(c events.Confirmed) string {
	return fmt.Sprintf(`{"secretVersion":%q,"consumer":%q,"outcome":%q,"proof":%q}`, c.SecretVersion, c.Consumer,
		c.Outcome, c.Proof)
}

func TestConsumersConfirmByQueueAndByAPI(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		old := replacedOnce(r)
		encoded, err := events.Encode(events.NewConfirmed(time.Now(), confirmedBy(r, "jenkins")))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Cloud.Bus.Send(cloud.ConfirmationQueue, servicebus.Message{ID: "c1", Body: encoded})
		if err != nil {
			t.Fatal(err)
		}
		r.Settle()
		var x web.ManagedPAT
		r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "").into(&x)
		check(t, "jenkins", x.SwitchOver.Consumers[0].State, "switched")
		check(t, "nightly", x.SwitchOver.Consumers[1].State, "waiting")
		check(t, "report", x.SwitchOver.Consumers[2].Required, false)
		r.pass(30 * time.Hour)
		check(t, "the replaced PAT after its overlap", r.pat(old).State, devops.Active)

		r.ask("POST", "/api/pats/jenkins-agents/confirmations", body(confirmedBy(r, "nightly"))).want(202, "")
		r.Settle()
		check(t, "the replaced PAT once all have confirmed", r.pat(old).State, devops.Revoked)
		r.ask("GET", "/api/pats/jenkins-agents", "").want(200, "").into(&x)
		check(t, "nightly", x.SwitchOver.Consumers[1].State, "switched")
	})
}

func TestWhatIsNoConfirmationIsTakenAndChangesNothing(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		replacedOnce(r)
		tag := r.latest(name).Tags["patrol-confirmed"]
		forged := confirmedBy(r, "jenkins")
		forged.Proof = strings.Repeat("A", len(forged.Proof))
		encoded, err := events.Encode(events.NewConfirmed(time.Now(), forged))
		if err != nil {
			t.Fatal(err)
		}
		unknown := confirmedBy(r, "jenkins")
		unknown.PAT = "nobody"
		other, err := events.Encode(events.NewConfirmed(time.Now(), unknown))
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range [][]byte{[]byte("not JSON"), {0xff, 0xfe}, []byte("{}"), encoded, other} {
			err := r.Cloud.Bus.Send(cloud.ConfirmationQueue, servicebus.Message{ID: fmt.Sprint("m", i), Body: b})
			if err != nil {
				t.Fatal(err)
			}
		}
		answered := r.ask("POST", "/api/pats/jenkins-agents/confirmations", body(forged)).want(202, "").body
		r.Settle()
		check(t, "the tag", r.latest(name).Tags["patrol-confirmed"], tag)
		check(t, "messages left on the queue", r.Cloud.Bus.Counts(cloud.ConfirmationQueue).Active, 0)
		right := r.ask("POST", "/api/pats/jenkins-agents/confirmations", body(confirmedBy(r, "jenkins"))).
			want(202, "").body
		check(t, "a right one is answered like a forged one", string(right), string(answered))
	})
}

func TestAPersonDecidesAboutASwitchOver(t *testing.T) {
	for action, lives := range map[string]bool{
		`{"action":"release"}`: false, `{"action":"hold"}`: true, `{"action":"confirm","consumer":"jenkins"}`: true,
	} {
		t.Run(action, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				old := replacedOnce(r)
				r.ask("POST", "/api/pats/jenkins-agents/switch-over", action).want(202, "")
				r.pass(2 * rotation.Day)
				check(t, "the replaced PAT lives beyond its overlap", r.pat(old).State == devops.Active, lives)
			})
		})
	}
}
