package identity_test

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/identity"
)

func serve(t *testing.T, cfg identity.Config) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(identity.New(cfg))
	t.Cleanup(srv.Close)
	t.Setenv("IDENTITY_ENDPOINT", srv.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", cfg.Header)
	return srv
}

func TestManagedIdentityCredentialGetsTokensForEveryResource(t *testing.T) {
	authority := entra.New(entra.Config{})
	client := "every-resource-" + rand.Text() // the credential's token cache is process-wide
	principal := authority.AddIdentity(entra.ManagedIdentity{ClientID: client})
	injector := &faults.Injector{}
	serve(t, identity.Config{Tokens: authority, Header: "h", Assigned: []string{client}, Injector: injector})
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ID: azidentity.ClientID(client)})
	if err != nil {
		t.Fatal(err)
	}
	for scope, want := range map[string]struct{ audience, issuer string }{
		"https://vault.azure.net/.default": {"https://vault.azure.net", "https://sts.windows.net/" +
			entra.DefaultTenant + "/"},
		"https://servicebus.azure.net//.default": {"https://servicebus.azure.net/", "https://sts.windows.net/" +
			entra.DefaultTenant + "/"},
		"api://AzureADTokenExchange/.default": {"api://AzureADTokenExchange", authority.Issuer()},
	} {
		token, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{scope}})
		if err != nil {
			t.Fatalf("%s: %v", scope, err)
		}
		c, err := authority.VerifyAccessToken(token.Token)
		if err != nil {
			t.Fatalf("%s: %v", scope, err)
		}
		for _, claim := range []struct{ name, got, want string }{
			{"aud", c.Audience, want.audience}, {"iss", c.Issuer, want.issuer}, {"sub", c.Subject, principal},
			{"oid", c.ObjectID, principal}, {"idtyp", c.IDType, "app"}, {"upn", c.UPN, ""},
		} {
			if claim.got != claim.want {
				t.Errorf("%s: the claim %s is %q, want %q", scope, claim.name, claim.got, claim.want)
			}
		}
		if !c.Expires.Equal(token.ExpiresOn) {
			t.Errorf("%s: the token ends at %v, the endpoint said %v", scope, c.Expires, token.ExpiresOn)
		}
	}
	if got := injector.Count("identity", "token"); got != 3 {
		t.Errorf("%d calls, want 3", got)
	}
}

func TestManagedIdentityCredentialFailsForAnIdentityThatIsNotAssigned(t *testing.T) {
	authority := entra.New(entra.Config{})
	authority.AddIdentity(entra.ManagedIdentity{ClientID: "exists-unassigned"})
	serve(t, identity.Config{Tokens: authority, Header: "h"})
	cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ID: azidentity.ClientID("exists-unassigned")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cred.GetToken(t.Context(),
		policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}}); err == nil {
		t.Error("an unassigned identity got a token")
	}
}

func TestEndpointRules(t *testing.T) {
	authority := entra.New(entra.Config{})
	for _, id := range []string{"user-1", "system", "elsewhere"} {
		authority.AddIdentity(entra.ManagedIdentity{ClientID: id})
	}
	with := identity.New(identity.Config{Tokens: authority, Header: "h", Assigned: []string{"user-1", "deleted"},
		SystemAssigned: "system"})
	without := identity.New(identity.Config{Tokens: authority, Header: "h", Assigned: []string{"user-1"}})
	const good = "api-version=2019-08-01&resource=https://vault.azure.net"
	for name, tc := range map[string]struct {
		handler               http.Handler
		method, query, header string
		status                int
		client                string
	}{
		"named identity":               {with, "GET", good + "&client_id=user-1", "h", 200, "user-1"},
		"system-assigned identity":     {with, "GET", good, "h", 200, "system"},
		"no name, none of its own":     {without, "GET", good, "h", 400, ""},
		"identity of another app":      {with, "GET", good + "&client_id=elsewhere", "h", 400, ""},
		"identity that does not exist": {with, "GET", good + "&client_id=deleted", "h", 400, ""},
		"no header":                    {with, "GET", good, "", 400, ""},
		"wrong header":                 {with, "GET", good, "x", 400, ""},
		"older api-version": {with, "GET", "api-version=2017-09-01&resource=https://vault.azure.net", "h",
			400, ""},
		"no resource": {with, "GET", "api-version=2019-08-01", "h", 400, ""},
		"unknown resource": {with, "GET", "api-version=2019-08-01&resource=https://example.invalid", "h",
			400, ""},
		"POST": {with, "POST", good, "h", 405, ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tc.method, "/msi/token?"+tc.query, strings.NewReader(""))
		if tc.header != "" {
			r.Header.Set("X-IDENTITY-HEADER", tc.header)
		}
		w := httptest.NewRecorder()
		tc.handler.ServeHTTP(w, r)
		if w.Code != tc.status {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, tc.status, w.Body)
			continue
		}
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tc.status != 200 {
			continue
		}
		if _, isText := body["expires_on"].(string); !isText {
			t.Errorf("%s: expires_on is a %T, want text", name, body["expires_on"])
		}
		for field, want := range map[string]string{"client_id": tc.client, "token_type": "Bearer",
			"resource": "https://vault.azure.net"} {
			if body[field] != want {
				t.Errorf("%s: %s is %v, want %q", name, field, body[field], want)
			}
		}
	}
}
