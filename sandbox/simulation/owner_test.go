package simulation_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// manifestOf declares a PAT of one of two identities.
func manifestOf(identity string) string {
	return strings.Replace(`apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
  release-bot:
    user: release-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: IDENTITY
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute]
`, "IDENTITY", identity, 1)
}

const releaseBot = "release-bot@contoso.com"

// moved provisions a PAT of build-bot and gives it to release-bot in the manifest.
// before runs in between.
func moved(t *testing.T, before func(*simulation.World)) *simulation.World {
	t.Helper()
	w := simulation.New(t, simulation.Config{Manifest: manifestOf("build-bot"), OneProcess: true})
	w.Cloud.AddUser(releaseBot)
	if err := w.Cloud.SignIn("release-bot", releaseBot); err != nil {
		t.Fatal(err)
	}
	if err := w.Sweep(); err != nil {
		t.Fatalf("provisioning: %v\n%s", err, w.Output())
	}
	time.Sleep(time.Hour)
	before(w)
	w.SetManifest(manifestOf("release-bot"))
	w.Restart()
	_ = w.Sweep()
	return w
}

func alive(w *simulation.World, user string) (n int) {
	for _, p := range w.Cloud.DevOps.PATs(cloud.Organization, user) {
		if p.State == devops.Active {
			n++
		}
	}
	return n
}

func TestAPATMovesToAnotherIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := moved(t, func(*simulation.World) {})
		defer w.Close()
		v, _ := w.Latest("jenkins-agents")
		if v.Tags["patrol-identity"] != "release-bot" || v.Tags["patrol-reason"] != "drift" {
			t.Fatalf("after the move: tags %v, want release-bot by drift\n%s", v.Tags, w.Output())
		}
		if !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
			t.Fatalf("after the move the new PAT does not work\n%s", w.Output())
		}
		if alive(w, releaseBot) != 1 || alive(w, cloud.User) != 1 {
			t.Fatalf("in the overlap %d PATs of the new owner and %d of the old one are alive, want one each",
				alive(w, releaseBot), alive(w, cloud.User))
		}
		// The old owner's sign-in still serves to end what it has made.
		time.Sleep(26 * time.Hour)
		if alive(w, cloud.User) != 0 || alive(w, releaseBot) != 1 {
			t.Errorf("after the overlap %d PATs of the old owner are alive\n%s", alive(w, cloud.User), w.Output())
		}
	})
}

func TestAPATOfAnOwnerWhoIsGoneIsLeftToAnAdministrator(t *testing.T) {
	for name, gone := range map[string]func(*simulation.World) error{
		"disabled": func(w *simulation.World) error { return w.Cloud.Entra.DisableUser(cloud.User, true) },
		"deleted":  func(w *simulation.World) error { return w.Cloud.Entra.DeleteUser(cloud.User) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := moved(t, func(w *simulation.World) {
					if err := gone(w); err != nil {
						t.Fatal(err)
					}
				})
				defer w.Close()
				v, _ := w.Latest("jenkins-agents")
				if v.Tags["patrol-identity"] != "release-bot" || !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
					t.Fatalf("the new owner has no PAT: %v\n%s", v.Tags, w.Output())
				}
				time.Sleep(24*time.Hour + 12*time.Hour)
				got := failures(w)
				if len(got) != 1 || got[0].Code != "owner-gone" {
					t.Fatalf("failures %+v, want owner-gone once\n%s", got, w.Output())
				}
				for _, want := range []string{"/api/revocations", "build-bot"} {
					if !strings.Contains(got[0].Message, want) {
						t.Errorf("the failure says %q, want %q in it", got[0].Message, want)
					}
				}
				noTokens(t, w)
			})
		})
	}
}
