package e2e_test

import (
	"testing"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
)

// Over real TLS, with the SDK's own connections and the settings of the package.
func TestThePackagedAppSendsOverWebSockets(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne, cloud: func(c *cloud.Config) { c.WebSockets = true }})
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })
	v := s.versions("jenkins-agents")[0]
	awaitEvent[events.Rotated](s, v.Tags["patrol-rotation"]+"/"+v.Tags["CredentialId"]+"/rotated")
	if n := s.cloud.WebSockets(); n == 0 {
		t.Error("nothing came in over web sockets: this test shows nothing")
	}
}
