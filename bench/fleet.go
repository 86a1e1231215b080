package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// fleet is a number of PATs of one organization, dealt out to identities in turn.
type fleet struct {
	pats       int
	identities int
}

const lifetime = 30 * rotation.Day

func (f fleet) name(i int) string     { return fmt.Sprintf("team-%06d-agents", i) }
func (f fleet) identity(i int) string { return fmt.Sprintf("bot-%02d", i%f.identities) }
func (f fleet) user(i int) string     { return f.identity(i) + "@contoso.com" }
func (f fleet) display(i int) string  { return fmt.Sprintf("Team %06d agents", i) }

// manifest is the fleet's pats.yaml.
func (f fleet) manifest() string {
	var b strings.Builder
	b.WriteString("apiVersion: patrol/v1\nidentities:\n")
	for i := range f.identities {
		fmt.Fprintf(&b, "  %s:\n    user: %s\n", f.identity(i), f.user(i))
	}
	b.WriteString("pats:\n")
	for i := range f.pats {
		fmt.Fprintf(&b, `  - name: %s
    identity: %s
    organization: contoso
    displayName: %s
    scopes: [vso.build_execute, vso.code]
`, f.name(i), f.identity(i), f.display(i))
	}
	return b.String()
}

// people adds the organization and its signed-in users to a cloud.
func (f fleet) people(c *cloud.Cloud) error {
	c.AddOrganization("contoso")
	for i := range f.identities {
		c.AddUser(f.user(i))
		if err := c.SignIn(f.identity(i), f.user(i)); err != nil {
			return err
		}
	}
	return nil
}

// provision puts every PAT there as patrol would have left it a moment ago, and returns
// the authorization ids. It goes past the app, which would take longer to create a
// hundred thousand than what is to be measured.
func (f fleet) provision(c *cloud.Cloud) ([]string, error) {
	now := time.Now().UTC().Truncate(time.Second)
	tag := rotation.VaultTag(c.VaultHost())
	provider := c.Environment()["AZURE_DEVOPS_URL"] + "/contoso"
	ids := make([]string, f.pats)
	for i := range f.pats {
		id := rotation.RotationID(f.name(i), "")
		authorization, token := c.DevOps.Seed("contoso", f.user(i), rotation.DisplayName(f.display(i), tag, id),
			"vso.build_execute vso.code", now.Add(lifetime), false)
		ids[i] = authorization
		_, err := c.Vault.Put(keyvault.Version{
			Name: f.name(i), Value: token, ContentType: "application/vnd.patrol.pat", Expires: now.Add(lifetime),
			Tags: map[string]string{
				"CredentialId": authorization, "ProviderAddress": provider, "ValidityPeriodDays": "30",
				"patrol-rotation": id, "patrol-identity": f.identity(i), "patrol-reason": "provision",
				"patrol-announced-at": now.Format(time.RFC3339),
			},
		})
		if err != nil {
			return nil, fmt.Errorf("provisioning %s: %w", f.name(i), err)
		}
	}
	return ids, nil
}
