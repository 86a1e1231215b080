package events_test

import (
	"time"

	"github.com/azure-patrol/patrol/events"
)

var (
	replacement = events.Replacement{PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot",
		RotationID: "abcdefghij", SecretVersion: "4f9d2c7be1a04d35b86f0a1c9e7d5b23",
		AuthorizationID: "7d0c51b4-2e69-4b1f-8a77-5c9e04d1f322"}
	replaced = events.Previous{Version: "0b61c3f0d7e24c6f9a8e5d4c3b2a1908",
		AuthorizationID: "1b2a7f0e-8a3c-4c55-9d61-3f0b8f2c7a11", RevokeAt: noon.Add(24 * time.Hour).In(berlin),
		RevokeAtLatest: events.TimeOrNull(noon.Add(96 * time.Hour).In(berlin))}
	states = []events.ConsumerState{
		{Name: "jenkins-controller", Required: true, State: "switched",
			At: events.TimeOrNull(noon.Add(time.Minute).In(berlin))},
		{Name: "nightly-report", Required: true, State: "waiting"},
		{Name: "dashboard", State: "failed", At: events.TimeOrNull(noon.Add(2 * time.Minute))},
	}
	// goldenValue is the PAT of the golden confirmations. It is none: real ones are made
	// by Azure DevOps alone.
	goldenValue = []byte("golden0value0of0no0organization0used0to0prove0things")
)

// switchOver holds the events of a switch-over and of deliveries, and a confirmation.
func switchOver() map[string]sample {
	waits := rotated()
	d := waits.Data.(events.Rotated)
	previous := replaced
	d.Previous = &previous
	waits.Data = d
	copyOf := events.Destination{Name: "https://team-b.vault.azure.net/secrets/jenkins-agents", Kind: "keyVault",
		Required: true}
	all := []events.ConsumerState{states[0], {Name: "nightly-report", Required: true, State: "by-hand",
		At: events.TimeOrNull(noon.Add(time.Hour))}}
	return map[string]sample{
		"rotated, and waits for consumers": {waits, golden("patrol.pat.rotated.consumers")},
		"switched": {events.NewSwitched(source, noon.In(berlin), events.Switched{Replacement: replacement,
			Consumers: all, Previous: &replaced}), golden("patrol.pat.switched")},
		"switch late": {events.NewSwitchLate(source, noon.Add(12*time.Hour), events.SwitchLate{
			Replacement: replacement, Consumers: states, Missing: []string{"nightly-report"}, Previous: &replaced,
			Next: events.Next{What: "hold", At: noon.Add(96 * time.Hour).In(berlin)}}),
			golden("patrol.pat.switch-late")},
		"switch failed": {events.NewSwitchFailed(source, noon, events.SwitchFailed{Replacement: replacement,
			Consumer: "dashboard", Message: "the feed answers 403"}), golden("patrol.pat.switch-failed")},
		"delivered": {events.NewDelivered(source, noon, events.Delivered{Replacement: replacement,
			Destination: copyOf}), golden("patrol.pat.delivered")},
		"delivery failed": {events.NewDeliveryFailed(source, noon, events.DeliveryFailed{Replacement: replacement,
			Destination: copyOf, Class: "configuration", Code: "vault-forbidden",
			Message: "give the app's identity the role Key Vault Secrets Officer there",
			RetryAt: events.TimeOrNull(noon.Add(time.Hour).In(berlin))}), golden("patrol.pat.delivery-failed")},
		"postponed": {events.NewPostponed(source, noon, events.Postponed{PAT: "jenkins-agents",
			Organization: "contoso", Identity: "build-bot", AuthorizationID: replaced.AuthorizationID,
			Reason: "year end", Until: events.TimeOrNull(noon.AddDate(0, 0, 41).In(berlin)),
			ValidTo: noon.AddDate(0, 0, 45).In(berlin)}), golden("patrol.pat.postponed")},
		"paused": {events.NewPostponed(source, noon, events.Postponed{PAT: "jenkins-agents",
			Organization: "contoso", Identity: "build-bot", AuthorizationID: replaced.AuthorizationID,
			Reason: "until the migration is over", ValidTo: noon.AddDate(0, 0, 5)}),
			golden("patrol.pat.postponed.paused")},
		"confirmed": {events.NewConfirmed(noon.In(berlin), confirmation().Prove(goldenValue)),
			golden("patrol.pat.confirmed")},
		"confirmed that it failed": {events.NewConfirmed(noon, failure().Prove(goldenValue)),
			golden("patrol.pat.confirmed.failed")},
	}
}

func confirmation() events.Confirmed {
	return events.Confirmed{PAT: "jenkins-agents", SecretVersion: "4f9d2c7be1a04d35b86f0a1c9e7d5b23",
		Consumer: "jenkins-controller", Outcome: events.OutcomeSwitched}
}

func failure() events.Confirmed {
	c := confirmation()
	c.Outcome, c.Message = events.OutcomeFailed, "the feed answers 403"
	return c
}
