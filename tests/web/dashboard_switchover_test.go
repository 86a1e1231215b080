package web_test

import (
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// decision is the form of a person's decision about a switch-over.
func decision(ruling, consumer string) []string {
	form := []string{"act", "switch-over", "name", name, "ruling", ruling}
	if consumer != "" {
		form = append(form, "consumer", consumer)
	}
	return form
}

func TestADecisionAboutASwitchOverIsShownFirstAndDoneWhenConfirmed(t *testing.T) {
	for ruling, tt := range map[string]struct {
		consumer, means, done, shows string
		lives                        bool // the replaced PAT, beyond its overlap
	}{
		"release": {"", "Nobody is waited for any more", "The replaced PAT is being released",
			"A person has released it", false},
		"hold": {"", "it comes to its own end", "The replaced PAT is being held", "A person holds it", true},
		"confirm": {"jenkins", "patrol has no proof of it", "jenkins is being confirmed by hand", "Confirmed by hand",
			true},
	} {
		t.Run(ruling, func(t *testing.T) {
			run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
				old := replacedOnce(r)
				tag := r.latest(name).Tags["patrol-confirmed"]
				before := r.untouched()
				asked := r.dashboard(decision(ruling, tt.consumer)).says(tt.means, "What will happen",
					"Not switched yet jenkins, nightly", "You can confirm until")
				check(t, "what asking did", r.untouched(), before)
				confirmed := asked.confirmation()
				r.dashboard(confirmed).says(tt.done)
				r.Settle()
				if r.latest(name).Tags["patrol-confirmed"] == tag {
					t.Error("it was not written down")
				}
				before = r.untouched()
				r.dashboard(confirmed)
				r.Settle()
				check(t, "what the form did when it was sent twice", r.untouched(), before)
				r.dashboard([]string{"pat", name}).says(tt.shows)
				r.pass(2 * rotation.Day)
				check(t, "the replaced PAT lives beyond its overlap", r.pat(old).State == devops.Active, tt.lives)
			})
		})
	}
}

func TestAConfirmationFitsOneDecisionAboutASwitchOver(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		replacedOnce(r)
		tag, before := r.latest(name).Tags["patrol-confirmed"], r.untouched()
		refused := func(what string, p *page) {
			t.Helper()
			p.says("The confirmation does not fit", "Nothing was done")
			r.Settle()
			check(t, "the tag, "+what, r.latest(name).Tags["patrol-confirmed"], tag)
			check(t, "what was done, "+what, r.untouched(), before)
		}
		hold := r.dashboard(decision("hold", ""), ann).confirmation()
		refused("for another ruling", r.dashboard(with(hold, "ruling", "release"), ann))
		refused("with another key", r.dashboard(with(hold, "key", "another"), ann))
		refused("of another person", r.dashboard(with(hold, "form", r.person("bob@contoso.com").form), bob))
		byHand := r.dashboard(decision("confirm", "jenkins"), ann).confirmation()
		refused("for another consumer", r.dashboard(with(byHand, "consumer", "nightly"), ann))
		time.Sleep(11 * time.Minute)
		before = r.untouched()
		refused("that is too old", r.dashboard(hold, ann))
	})
}

func TestADecisionThatWouldChangeNothingIsRefusedOnThePage(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		for _, form := range [][]string{decision("hold", ""), decision("confirm", "jenkins")} {
			r.dashboard(form).says("The entry declares no consumers")
		}
		r.SetManifest(consumedPAT)
		r.Restart()
		r.sweep()
		r.dashboard(decision("release", "")).says("No replaced PAT waits for anybody")
		r.dashboard([]string{"pat", name}).says("Who has switched", "No replaced PAT waits for anybody")
		r.dashboard(decision("confirm", "nobody")).says("Consumer must be one that the manifest declares")
		for _, form := range [][]string{decision("never", ""), decision("confirm", ""), decision("confirm", "A b"),
			decision("", "")} {
			check(t, strings.Join(form, " "), r.dashboard(form).says("The form cannot be used").code, 400)
		}
	})
}

func TestThePageShowsWhoHasSwitchedAndWhoIsLate(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		old := replacedOnce(r)
		r.ask("POST", "/api/pats/jenkins-agents/confirmations", body(confirmedBy(r, "jenkins"))).want(202, "")
		r.Settle()
		early := r.dashboard([]string{"pat", name}).says("jenkins ✓ Switched", "nightly … Waited for",
			"report not waited for – Not confirmed", "Who has not switched is late from",
			"until all that are required have switched")
		if strings.Contains(early.text, "Switch-over late") {
			t.Error("the page calls somebody late before the time")
		}
		if text := r.dashboard(nil).text; strings.Contains(text, "Switch-over late") {
			t.Error("the list calls somebody late before the time")
		}
		r.pass(30 * time.Hour)
		check(t, "the replaced PAT after its overlap", r.pat(old).State, devops.Active)
		r.dashboard([]string{"pat", name}, ann).says("Switch-over late", "Not switched in time : nightly",
			"nightly ! Late")
		r.dashboard(nil, ann).says("Switch-over late", "Not switched in time : nightly")

		r.ask("POST", "/api/pats/jenkins-agents/confirmations", body(confirmedBy(r, "nightly"))).want(202, "")
		r.Settle()
		r.pass(2 * time.Minute) // what is known of a moment ago counts
		check(t, "the replaced PAT once all have confirmed", r.pat(old).State, devops.Revoked)
		done := r.dashboard([]string{"pat", name}, ann).says("nightly ✓ Switched", "No replaced PAT waits for anybody")
		if strings.Contains(done.text, "Switch-over late") {
			t.Error("the page calls somebody late who has switched")
		}
	})
}

func TestOnlyOperatorsDecideAboutASwitchOver(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		replacedOnce(r)
		tag := r.latest(name).Tags["patrol-confirmed"]
		r.visitorOf("reader@contoso.com", cloud.Reader)
		r.visitorOf("operator@contoso.com", cloud.Operator)
		shown := r.dashboard([]string{"pat", name}, "Person: reader@contoso.com").says("Who has switched")
		if strings.Contains(string(shown.body), `value="switch-over"`) {
			t.Error("a reader has a button that decides")
		}
		r.dashboard(decision("hold", ""), "Person: reader@contoso.com").says("Your role is not enough for this")
		r.dashboard([]string{"pat", name}, "Person: operator@contoso.com").says("Release: wait for nobody",
			"Hold: wait to its own end", "Confirm by hand")
		good := r.dashboard(decision("hold", ""), "Person: operator@contoso.com").confirmation()
		check(t, "the tag", r.latest(name).Tags["patrol-confirmed"], tag)
		r.dashboard(good, "Person: operator@contoso.com").says("The replaced PAT is being held")
	})
}
