package app_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// administered has an identity that no PAT belongs to.
const administered = `apiVersion: patrol/v1
identities:
  admin: {user: build-bot@contoso.com, administrator: true}
pats: []
`

// The sign-in that POST revocations needs would end after 90 days without use.
func TestAnAdministratorsSignInIsKeptUpWithoutAPAT(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := simulation.New(t, simulation.Config{Manifest: administered, NobodySignedIn: true})
		defer w.Close()
		if err := w.Cloud.SignIn("admin", cloud.User); err != nil {
			t.Fatal(err)
		}
		err := w.Cloud.Entra.Consent(cloud.User, w.Cloud.Environment()["ENTRA_CLIENT_ID"],
			devops.AdministrationScopes()...)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			time.Sleep(24 * time.Hour)
		}
		// Whether the user may do it is another question: 409 asks for a sign-in.
		code := w.HTTP("POST", "/api/revocations", map[string]any{"organization": cloud.Organization,
			"identity": "admin", "users": []string{cloud.User}}, nil)
		if code == http.StatusConflict {
			t.Errorf("a plan of revocations on day 100 answered %d\n%s", code, w.Output())
		}
	})
}
