package entra_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/identity"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// The whole chain over loopback sockets, as a local stack has it: managed
// identity -> vault -> assertion -> refresh token -> access token.
func TestManagedIdentityVaultAuthorityChain(t *testing.T) {
	mi := "chain-" + rand.Text() // the credential's token cache is process-wide
	authority := fake.New(fake.Config{Injector: &faults.Injector{}})
	authority.AddUser(fake.User{UPN: bot, ObjectID: botID})
	principal := authority.AddIdentity(fake.ManagedIdentity{ClientID: mi})
	authority.AddApp(fake.App{ClientID: app, Web: []string{redirect}, Scopes: patScopes,
		Federated: []fake.FederatedCredential{
			{Issuer: authority.Issuer(), Subject: principal, Audience: fake.TokenExchange},
		}})
	login := httptest.NewTLSServer(authority)
	defer login.Close()

	panel := &faults.Injector{}
	endpoint := httptest.NewServer(
		identity.New(identity.Config{Tokens: authority, Header: "h", Assigned: []string{mi}, Injector: panel}),
	)
	defer endpoint.Close()
	t.Setenv("IDENTITY_ENDPOINT", endpoint.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", "h")
	cred, err := azidentity.NewManagedIdentityCredential(
		&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(mi)},
	)
	if err != nil {
		t.Fatal(err)
	}

	var handler http.Handler
	secrets := httptest.NewTLSServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }),
	)
	defer secrets.Close()
	kv, err := keyvault.New(
		keyvault.Config{
			URL:       secrets.URL,
			Authority: fake.DefaultAuthority,
			Tenant:    authority.Tenant(),
			Verify: func(token string) error {
				c, err := authority.VerifyAccessToken(token)
				if err == nil && (c.Audience != "https://vault.azure.net" || c.ObjectID != principal) {
					err = errors.New("not for this vault")
				}
				return err
			},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer kv.Close()
	handler = kv

	store, err := vault.New(vault.Config{URL: secrets.URL, Credential: cred, DisableChallengeResourceVerification: true,
		ClientOptions: azcore.ClientOptions{Transport: secrets.Client()}})
	if err != nil {
		t.Fatal(err)
	}
	start := func() *entra.Client {
		c, err := entra.New(entra.Config{
			Tenant: authority.Tenant(), ClientID: app, AuthorityHost: login.URL,
			DisableInstanceDiscovery: true, HTTPClient: login.Client(),
			Credential: entra.Credential{ManagedIdentity: cred}, Store: vault.NewStore(store),
			Identities: map[string]entra.Identity{"build-bot": {User: bot}}, PublicURL: "https://127.0.0.1",
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
	if err != nil {
		t.Fatal(err)
	}
	end, err := htmlclient.Person{User: bot}.Walk(t.Context(), htmlclient.New(login.Client().Transport), page)
	if err != nil {
		t.Fatal(err)
	}
	if err := complete(t, c, end.URL.Query().Get("code")); err != nil {
		t.Fatal(err)
	}
	token, err := c.Credential("build-bot").GetToken(t.Context(), policy.TokenRequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := authority.VerifyAccessToken(token.Token)
	if err != nil {
		t.Fatalf("the access token is not valid: %v", err)
	}
	check(t, "the token's user", claims.UPN, bot)
	if got := panel.Count("identity", "token"); got != 2 { // for the vault, and for the exchange
		t.Errorf("the identity endpoint was asked %d times, want 2", got)
	}
	if err := authority.Revoke(bot); err != nil {
		t.Fatal(err)
	}
	checkError(t, forced(t.Context(), c), rotation.SignIn, "AADSTS50173")
	vs := kv.Versions(entra.SecretName("build-bot"))
	if len(vs) != 1 {
		t.Fatalf("%d versions, want 1", len(vs))
	}
	checkHas(t, "patrol-sign-in-required", vs[0].Tags["patrol-sign-in-required"], "AADSTS50173 ")
	check(t, "patrol-user", vs[0].Tags["patrol-user"], bot)
	if err := forced(t.Context(), start()); rotation.ClassOf(err) != rotation.SignIn {
		t.Errorf("a later process: %v", err)
	}
}

func forced(ctx context.Context, c *entra.Client) error {
	_, err := c.Credential("build-bot").GetToken(ctx, policy.TokenRequestOptions{Claims: "{}"})
	return err
}
