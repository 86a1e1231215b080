package scopes

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devops"
)

// The sandbox keeps a list of its own: it must take every scope that the table has.
func TestTheSandboxTakesEveryKnownScope(t *testing.T) {
	t.Parallel()
	const ada = "ada@contoso.com"
	service := devops.New(devops.Config{Verify: func(string) (devops.Claims, error) {
		return devops.Claims{ObjectID: "o-ada", UPN: ada, TenantID: "tenant",
			Scopes: []string{"vso.pats", "vso.pats_manage"}}, nil
	}})
	service.AddOrganization(devops.Organization{Name: "contoso", TenantID: "tenant"})
	service.AddUser(devops.User{UPN: ada, ObjectID: "o-ada"})
	body, err := json.Marshal(map[string]any{"displayName": "all", "scope": strings.Join(names(), " "),
		"validTo": time.Now().AddDate(0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	const path = "https://dev.azure.com/contoso/_apis/tokens/pats?api-version=7.1-preview.1"
	r := httptest.NewRequest("POST", path, strings.NewReader(string(body)))
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	service.ServeHTTP(w, r)
	var answer struct {
		PatTokenError string `json:"patTokenError"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	if answer.PatTokenError != "none" {
		t.Errorf("patTokenError %q, want none", answer.PatTokenError)
	}
}
