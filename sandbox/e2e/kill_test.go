package e2e_test

import (
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

const manifestOne = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    scopes: [vso.build_execute]
`

// killAt lets the app come as far as a call, which hangs, and kills it there.
func (s *fixture) killAt(service, operation string, mode faults.Mode) {
	s.t.Helper()
	s.cloud.Injector.ResetCounts()
	if err := s.cloud.Injector.Inject(faults.Fault{Service: service, Operation: operation, Mode: mode}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.sweep(); err != nil {
		s.t.Fatal(err)
	}
	s.until("the app waits for "+operation, func() bool { return s.cloud.Injector.Count(service, operation) == 1 })
	starts := s.launcher.starts()
	if err := s.launcher.kill(); err != nil {
		s.t.Fatal(err)
	}
	s.until("the host has started the handler again", func() bool { return s.launcher.starts() > starts })
}

// Killed once the PAT existed and before it was stored: the next process makes
// another one for the same rotation, and the first is left as an orphan that bears
// the rotation's id.
func TestAKillBeforeTheStoreLosesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	s.killAt(keyvault.Service, keyvault.SetSecret, faults.HangBefore)
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })

	first := expected{name: "jenkins-agents", reason: "provision", lifeDays: "30"}
	s.checkVersion(s.versions("jenkins-agents")[0], first)
	s.checkRotated(s.versions("jenkins-agents")[0], first)
	var orphans []devops.PAT
	for _, p := range s.cloud.DevOps.PATs("contoso", "") {
		if p.AuthorizationID != s.versions("jenkins-agents")[0].Tags["CredentialId"] {
			orphans = append(orphans, p)
		}
	}
	if len(orphans) != 1 || orphans[0].State != devops.Active {
		t.Fatalf("left over: %+v, want one active PAT, to be revoked once it is old enough", orphans)
	}
	if want := "-" + rotationID("jenkins-agents", "") + ")"; !strings.HasSuffix(orphans[0].DisplayName, want) {
		t.Errorf("the orphan is called %q, want it to end with %s", orphans[0].DisplayName, want)
	}
	s.eventsOnce()
}

// Killed once the event was sent and before that was recorded: it is sent again, with
// the same id.
func TestAKillBeforeTheEventIsRecordedRepeatsItWithItsID(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	s.killAt(keyvault.Service, keyvault.UpdateSecret, faults.HangBefore)
	s.until("the PAT is announced", func() bool { return s.settledAt("jenkins-agents", 1) })

	id := rotationID("jenkins-agents", "") + "/" + s.versions("jenkins-agents")[0].Tags["CredentialId"] + "/rotated"
	awaitEvent[events.Rotated](s, id)
	s.until("the event has come again", func() bool { return s.timesReceived(id) == 2 })
	if n := len(s.cloud.DevOps.PATs("contoso", "")); n != 1 {
		t.Errorf("%d PATs were made, want one", n)
	}
	s.checkVersion(s.versions("jenkins-agents")[0], expected{name: "jenkins-agents", reason: "provision",
		lifeDays: "30"})
}
