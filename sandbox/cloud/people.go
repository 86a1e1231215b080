package cloud

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// The sign-in that Seed makes.
const (
	Organization = "contoso"
	Identity     = "build-bot"
	User         = "build-bot@contoso.com"
)

// Seed adds the organization contoso and its member build-bot@contoso.com, who
// has signed in as the identity build-bot.
func (c *Cloud) Seed() error {
	c.AddOrganization(Organization)
	c.AddUser(User)
	return c.SignIn(Identity, User)
}

// AddOrganization adds an Azure DevOps organization that is connected to the
// tenant.
func (c *Cloud) AddOrganization(name string) {
	c.DevOps.AddOrganization(devops.Organization{Name: name, TenantID: c.Entra.Tenant()})
}

// AddUser adds a user to the tenant, as a member of the organizations that are
// named, or of all of them.
func (c *Cloud) AddUser(upn string, organizations ...string) {
	oid := c.Entra.AddUser(entra.User{UPN: upn})
	c.DevOps.AddUser(devops.User{UPN: upn, ObjectID: oid, Organizations: organizations})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users[strings.ToLower(upn)] = oid
}

// The app's roles, which the registration defines.
const (
	Reader        = "Patrol.Reader"
	Operator      = "Patrol.Operator"
	Administrator = "Patrol.Administrator"
)

func appRoles() []entra.AppRole {
	return []entra.AppRole{
		{ID: "058fac87-debc-4c33-add8-aa22d7061ba5", Value: Reader, Name: "Reader"},
		{ID: "38e11ffa-1053-4398-8473-c0aa4d2ca81c", Value: Operator, Name: "Operator"},
		{ID: "6bec9d24-1cba-45c6-82ae-7c5b0e13bd90", Value: Administrator, Name: "Administrator"},
	}
}

// AddPerson adds a user to the tenant who works with the app's page, in the given roles.
// Azure DevOps does not know the user.
func (c *Cloud) AddPerson(upn string, roles ...string) error {
	c.Entra.AddUser(entra.User{UPN: upn})
	for _, role := range roles {
		if err := c.GiveRole(upn, role); err != nil {
			return err
		}
	}
	return nil
}

// GiveRole gives somebody a role of the app.
func (c *Cloud) GiveRole(upn, role string) error { return c.Entra.AssignRole(upn, c.appID, role) }

// TakeRole takes it away. What was given out with it stays.
func (c *Cloud) TakeRole(upn, role string) error { return c.Entra.TakeRole(upn, c.appID, role) }

// SignIn puts a user's sign-in into the vault as an identity's: MSAL's cache with
// a fresh refresh token and the app's metadata, as the app itself stores it.
func (c *Cloud) SignIn(identity, upn string) error {
	refreshToken, err := c.Entra.SeedRefreshToken(upn, c.appID, entra.DevOps+"/vso.pats", entra.DevOps+
		"/vso.pats_manage")
	if err != nil {
		return fmt.Errorf("signing in as %s: %w", upn, err)
	}
	c.tokens.add(refreshToken)
	c.mu.Lock()
	oid := c.users[strings.ToLower(upn)]
	c.mu.Unlock()
	host, home := c.authorityHost(), oid+"."+c.Entra.Tenant()
	key := func(parts ...string) string { return strings.ToLower(strings.Join(parts, "-")) }
	cache, err := json.Marshal(map[string]any{
		"RefreshToken": map[string]any{key(home, host, "RefreshToken", c.appID): map[string]string{
			"home_account_id": home, "environment": host, "credential_type": "RefreshToken", "client_id": c.appID,
			"secret": refreshToken}},
		"Account": map[string]any{key(home, host, c.Entra.Tenant()): map[string]string{
			"home_account_id": home, "environment": host, "realm": c.Entra.Tenant(), "local_account_id": oid,
			"authority_type": "MSSTS", "username": upn}},
		"AppMetadata": map[string]any{key("AppMetadata", host, c.appID): map[string]string{
			"client_id": c.appID, "environment": host, "family_id": ""}},
	})
	if err != nil {
		return fmt.Errorf("signing in as %s: %w", upn, err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	_, err = c.Vault.Put(keyvault.Version{
		Name: "patrol-identity-" + identity, Value: string(cache),
		ContentType: "application/vnd.patrol.msal-cache+json",
		Tags: map[string]string{"patrol-user": upn, "patrol-user-id": oid,
			"patrol-signed-in-at": now.Format(time.RFC3339)},
		Expires: now.Add(90 * 24 * time.Hour),
	})
	return err
}
