package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// soon is a schedule that fires once, at the second that it also returns.
func soon() (schedule string, at time.Time) {
	at = time.Now().UTC().Add(3 * time.Second).Truncate(time.Second)
	return fmt.Sprintf("%d %d %d %d %d *", at.Second(), at.Minute(), at.Hour(), at.Day(), int(at.Month())), at
}

// expected is what a version's tags must say.
type expected struct {
	name, reason, from string // from: the version that is replaced
	lifeDays           string
	previous           *keyvault.Version
	overlap            time.Duration // -1: the previous one was to end at once
}

// userID is the object id of who has signed in as build-bot.
func (s *fixture) userID() string {
	s.t.Helper()
	versions := s.versions("patrol-identity-" + cloud.Identity)
	if len(versions) == 0 {
		s.t.Fatal("nobody has signed in")
	}
	return versions[len(versions)-1].Tags["patrol-user-id"]
}

// checkVersion asserts a version that is in force against its PAT, tag by tag.
func (s *fixture) checkVersion(v keyvault.Version, want expected) {
	s.t.Helper()
	p := s.pat(v.Tags["CredentialId"])
	env := s.cloud.Environment()
	tags := map[string]string{
		"CredentialId":        p.AuthorizationID,
		"ProviderAddress":     env["AZURE_DEVOPS_URL"] + "/contoso",
		"ValidityPeriodDays":  want.lifeDays,
		"patrol-rotation":     rotationID(want.name, want.from),
		"patrol-identity":     "build-bot",
		"patrol-reason":       want.reason,
		"patrol-announced-at": v.Tags["patrol-announced-at"],
		"patrol-requested-by": v.Tags["patrol-requested-by"],
		"patrol-operation":    v.Tags["patrol-operation"],
	}
	facts := rotation.Facts{Digest: rotation.Digest(rotation.NewSecret(v.Value)), Owner: s.userID()}
	if tags["patrol-requested-by"] == "" || tags["patrol-operation"] == "" {
		s.t.Errorf("%s: version %s does not say who asked for it, and in which operation: %v", want.name, v.ID, v.Tags)
	}
	if want.previous != nil {
		tags["patrol-previous"] = want.previous.Tags["CredentialId"]
		tags["patrol-previous-version"] = want.previous.ID
		tags["patrol-revoke-previous-at"] = v.Tags["patrol-revoke-previous-at"]
		at, err := time.Parse(time.RFC3339, v.Tags["patrol-revoke-previous-at"])
		due := v.Created.Add(want.overlap + time.Minute)
		facts.Previous = rotation.ShortID(want.previous.Tags["CredentialId"])
		facts.PreviousEnds = rotation.EndsAfterOverlap
		if want.overlap < 0 {
			due, facts.PreviousEnds = v.Created, rotation.EndsNow
		}
		isUTC := strings.HasSuffix(v.Tags["patrol-revoke-previous-at"], "Z")
		if err != nil || !isUTC || at.Sub(due).Abs() > 5*time.Second {
			s.t.Errorf("%s: patrol-revoke-previous-at is %q, want about %s", want.name,
				v.Tags["patrol-revoke-previous-at"], due.Format(time.RFC3339))
		}
	}
	// An order that made the version is said to be done; which one, the operation says.
	facts.Done = rotation.ParseFacts(v.Tags["patrol-facts"]).Done
	tags["patrol-facts"] = facts.String()
	if !maps.Equal(v.Tags, tags) {
		s.t.Errorf("%s: tags of version %s\n got %v\nwant %v", want.name, v.ID, v.Tags, tags)
	}
	at, err := time.Parse(time.RFC3339, v.Tags["patrol-announced-at"])
	if err != nil || time.Since(at).Abs() > timeout {
		s.t.Errorf("%s: patrol-announced-at is %q, want about now", want.name, v.Tags["patrol-announced-at"])
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"the PAT", p.State, devops.Active},
		{"the value is the PAT", v.Value == p.Token, true},
		{"enabled", v.Enabled, true},
		{"content type", v.ContentType, "application/vnd.patrol.pat"},
		{"exp", v.Expires.Format(time.RFC3339), p.ValidTo.Truncate(time.Second).Format(time.RFC3339)},
	} {
		if c.got != c.want {
			s.t.Errorf("%s: version %s: %s: %v, want %v", want.name, v.ID, c.what, c.got, c.want)
		}
	}
	if !s.cloud.DevOps.Works("contoso", v.Value) {
		s.t.Errorf("%s: the PAT in the vault does not work", want.name)
	}
}

// checkRotated asserts the event of a rotation against the version that it made.
func (s *fixture) checkRotated(v keyvault.Version, want expected) {
	s.t.Helper()
	d := awaitEvent[events.Rotated](s, rotationID(want.name, want.from)+"/"+v.Tags["CredentialId"]+"/rotated")
	p := s.pat(v.Tags["CredentialId"])
	got := map[string]any{"pat": d.PAT, "organization": d.Organization, "identity": d.Identity, "reason": d.Reason,
		"rotation": d.RotationID,
		"secret":   d.Secret, "authorization": d.AuthorizationID, "scopes": strings.Join(d.Scopes, " ")}
	wanted := map[string]any{"pat": want.name, "organization": "contoso", "identity": "build-bot",
		"reason":   want.reason,
		"rotation": rotationID(want.name, want.from), "secret": events.SecretRef{ID: v.URL, Name: want.name,
			Version: v.ID},
		"authorization": p.AuthorizationID, "scopes": strings.Join(p.Scopes, " ")}
	if !maps.Equal(got, wanted) {
		s.t.Errorf("%s: rotated event\n got %v\nwant %v", want.name, got, wanted)
	}
	if d.ValidTo.Sub(p.ValidTo).Abs() > time.Second || d.ValidFrom.Sub(p.ValidFrom).Abs() > time.Second {
		s.t.Errorf("%s: the event says %s to %s, the PAT lives %s to %s", want.name, d.ValidFrom, d.ValidTo,
			p.ValidFrom, p.ValidTo)
	}
	if (d.Previous == nil) != (want.previous == nil) {
		s.t.Errorf("%s: the event's previous PAT is %+v, want one: %t", want.name, d.Previous, want.previous != nil)
	}
	if d.Previous == nil || want.previous == nil {
		return
	}
	for _, c := range []struct{ what, got, want string }{
		{"version", d.Previous.Version, want.previous.ID},
		{"authorization id", d.Previous.AuthorizationID, want.previous.Tags["CredentialId"]},
		{"revocation", d.Previous.RevokeAt.Format(time.RFC3339), v.Tags["patrol-revoke-previous-at"]},
	} {
		if c.got != c.want {
			s.t.Errorf("%s: the previous PAT's %s is %q, want %q", want.name, c.what, c.got, c.want)
		}
	}
}

// checkClosed waits until a replaced version is closed: its PAT revoked, the event
// sent, the version disabled and tagged.
func (s *fixture) checkClosed(name string, number int, rotation, cause string) {
	s.t.Helper()
	id := s.versions(name)[number].Tags["CredentialId"]
	s.until(fmt.Sprintf("version %d of %s is closed", number+1, name), func() bool {
		return s.versions(name)[number].Tags["patrol-revoked-at"] != ""
	})
	v := s.versions(name)[number]
	if v.Enabled {
		s.t.Errorf("%s: the closed version %s is enabled", name, v.ID)
	}
	at, err := time.Parse(time.RFC3339, v.Tags["patrol-revoked-at"])
	if err != nil || time.Since(at).Abs() > timeout {
		s.t.Errorf("%s: patrol-revoked-at is %q, want about now", name, v.Tags["patrol-revoked-at"])
	}
	if p := s.pat(id); p.State != devops.Revoked || s.cloud.DevOps.Works("contoso", p.Token) {
		s.t.Errorf("%s: the replaced PAT is %s", name, p.State)
	}
	d := awaitEvent[events.Revoked](s, rotation+"/revoked/"+id)
	want := events.Revoked{PAT: name, Organization: "contoso", Identity: "build-bot", RotationID: rotation,
		AuthorizationID: id, SecretVersion: v.ID, Cause: cause}
	if d != want {
		s.t.Errorf("%s: revoked event\n got %+v\nwant %+v", name, d, want)
	}
}

func TestAPATLivesThroughAllTriggers(t *testing.T) {
	t.Parallel()
	schedule, at := soon()
	s := open(t, setup{schedule: schedule})
	const jenkins, nuget = "jenkins-agents", "nuget-feed"

	// The timer finds that nothing exists, and both PATs are provisioned.
	s.until("both PATs are provisioned", func() bool { return s.settledAt(jenkins, 1) && s.settledAt(nuget, 1) })
	runs := s.finished("CheckExpiry")
	if len(runs) != 1 || runs[0].Err != nil {
		t.Fatalf("runs of the timer: %+v, want one without an error", runs)
	}
	if runs[0].Started.Before(at.Add(-time.Second)) {
		t.Errorf("the timer ran at %s, want %s", runs[0].Started, at)
	}
	firsts := map[string]expected{
		jenkins: {name: jenkins, reason: "provision", lifeDays: "30"},
		nuget:   {name: nuget, reason: "provision", lifeDays: "7"},
	}
	for name, want := range firsts {
		s.checkVersion(s.versions(name)[0], want)
		s.checkRotated(s.versions(name)[0], want)
	}
	p := s.pat(s.versions(jenkins)[0].Tags["CredentialId"])
	if !strings.HasPrefix(p.DisplayName, "Jenkins agents (patrol ") ||
		!strings.HasSuffix(p.DisplayName, "-"+rotationID(jenkins, "")+")") {
		t.Errorf("the PAT is called %q, want its name, the vault's mark and the rotation's id", p.DisplayName)
	}
	if want := []string{"vso.agentpools_manage", "vso.build_execute"}; !slices.Equal(p.Scopes, want) {
		t.Errorf("the PAT's scopes are %v, want %v", p.Scopes, want)
	}

	// A command on the queue: rotate away from this PAT.
	first := s.versions(nuget)[0]
	s.send(nuget, "order-1", command(map[string]any{"pat": nuget, "reason": "requested",
		"from": first.Tags["CredentialId"], "revokePrevious": "overlap", "requestedBy": "a pipeline"}))
	s.until("the requested rotation is done", func() bool { return s.settledAt(nuget, 2) })
	second := s.versions(nuget)[1]
	requested := expected{name: nuget, reason: "requested", from: first.ID, lifeDays: "7", previous: &first,
		overlap: 2 * time.Hour}
	s.checkVersion(second, requested)
	s.checkRotated(second, requested)
	if p := s.pat(first.Tags["CredentialId"]); p.State != devops.Active || !s.versions(nuget)[0].Enabled {
		t.Errorf("in its overlap the replaced PAT is %s, its version enabled: %t", p.State,
			s.versions(nuget)[0].Enabled)
	}
	s.checkScheduled(nuget, second.Tags["patrol-revoke-previous-at"])

	// The same command again, with another message id: it has been carried out.
	before := len(s.finished("Reconcile"))
	s.send(nuget, "order-2", command(map[string]any{"pat": nuget, "reason": "requested",
		"from": first.Tags["CredentialId"]}))
	s.until("the repeated command is worked off", func() bool { return len(s.finished("Reconcile")) > before })
	if n := len(s.versions(nuget)); n != 2 {
		t.Errorf("%d versions after a repeated command, want 2", n)
	}

	// Over HTTP, with the replaced ones to end at once: both of them do.
	got := s.api(http.MethodPost, "pats/"+nuget+"/rotate", `{"reason":"leaked","revokePrevious":"now"}`)
	if got.status != http.StatusAccepted || got.json(t)["from"] != second.Tags["CredentialId"] {
		t.Fatalf("rotate answered %d: %s", got.status, got.body)
	}
	s.until("the rotation over HTTP is done", func() bool { return s.settledAt(nuget, 3) })
	third := s.versions(nuget)[2]
	urgent := expected{name: nuget, reason: "compromised", from: second.ID, lifeDays: "7", previous: &second,
		overlap: -1}
	s.checkVersion(third, urgent)
	s.checkRotated(third, urgent)
	s.checkClosed(nuget, 1, rotationID(nuget, second.ID), "requested")
	s.checkClosed(nuget, 0, rotationID(nuget, first.ID), "requested")

	// A sweep over it all finds nothing to do.
	if err := s.sweep(); err != nil {
		t.Errorf("the sweep: %v", err)
	}
	list := s.api(http.MethodGet, "pats", "")
	for _, p := range list.json(t)["pats"].([]any) {
		if state := p.(map[string]any)["state"]; state != "current" {
			t.Errorf("after the sweep %v", p)
		}
	}
	s.eventsOnce()
	if failures := s.failures(); len(failures) > 0 {
		t.Errorf("events of failure: %+v", failures)
	}
	if n := len(s.versions("patrol-identity-build-bot")); n != 1 {
		t.Errorf("the sign-in has %d versions: it is not old enough to be stored again", n)
	}
}

// checkScheduled looks for the command that asks for a revocation in its time.
func (s *fixture) checkScheduled(name, at string) {
	s.t.Helper()
	for _, m := range s.cloud.Messages(cloud.CommandQueue) {
		if m.SessionID == name && !m.Scheduled.IsZero() && m.Scheduled.UTC().Format(time.RFC3339) == at {
			return
		}
	}
	s.t.Errorf("no command for %s is scheduled for %s", name, at)
}

// eventsOnce asserts that in a run without faults no event is sent twice.
func (s *fixture) eventsOnce() {
	s.t.Helper()
	s.mu.Lock()
	ids := slices.Clone(s.ids)
	s.mu.Unlock()
	slices.Sort(ids)
	if n := len(ids); len(slices.Compact(ids)) != n {
		s.t.Errorf("an event was sent twice: %q", ids)
	}
}

func TestASecretPutThereByHandIsAdopted(t *testing.T) {
	t.Parallel()
	var id, token string
	s := open(t, setup{before: func(s *fixture) {
		id, token = s.cloud.DevOps.Seed("contoso", cloud.User, "Jenkins agents",
			"vso.agentpools_manage vso.build_execute", time.Now().Add(25*24*time.Hour), false)
	}})
	// Key Vault's event of the new version is enough.
	if _, err := s.cloud.Vault.Put(keyvault.Version{Name: "jenkins-agents", Value: token,
		Tags: map[string]string{"owner": "team-a"}}); err != nil {
		t.Fatal(err)
	}
	s.until("the secret is adopted",
		func() bool { return s.versions("jenkins-agents")[0].Tags["patrol-identity"] != "" })
	v := s.versions("jenkins-agents")
	if len(v) != 1 || v[0].Value != token {
		t.Errorf("%d versions, the first holds what was put there: %t; want one that does", len(v), v[0].Value == token)
	}
	for tag, want := range map[string]string{"CredentialId": id, "owner": "team-a"} {
		if v[0].Tags[tag] != want {
			t.Errorf("tag %s is %q, want %q", tag, v[0].Tags[tag], want)
		}
	}
	if v[0].Expires.IsZero() {
		t.Error("the adopted version has no exp")
	}
	if len(s.cloud.DevOps.PATs("contoso", cloud.User)) != 1 {
		t.Error("adopting made a PAT")
	}
}

// With a connection string for Service Bus and a public client the same app runs.
func TestTheAppRunsWithAConnectionStringAndAPublicClient(t *testing.T) {
	t.Parallel()
	s := open(t, setup{cloud: func(c *cloud.Config) {
		c.ConnectionString, c.ClientCredential = true, cloud.PublicClient
	}})
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	s.until("both PATs are provisioned",
		func() bool { return s.settledAt("jenkins-agents", 1) && s.settledAt("nuget-feed", 1) })
	if n := s.cloud.Entra.Assertions(); n != 0 {
		t.Errorf("a public client presented %d assertions", n)
	}
}
