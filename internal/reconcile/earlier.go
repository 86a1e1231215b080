package reconcile

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// identitySecret begins the names of the secrets that hold sign-ins.
const identitySecret = "patrol-identity-"

// listEarlierOwners lists, once a day each, what identities have in organizations in which
// no entry has them any more: an attempt that was interrupted before an entry moved, or
// before it left the manifest, is garbage all the same. What cannot be listed is left for
// the next day: nobody may have the right to it any more.
func (p *planning) listEarlierOwners(ctx context.Context, last time.Time) {
	if p.vaultErr != nil {
		return
	}
	known := map[rotation.Owner]bool{}
	for _, o := range p.owners {
		known[o.owner] = true
	}
	for _, identity := range p.everyIdentity() {
		for _, organization := range p.everyOrganization() {
			o := rotation.Owner{Identity: identity, Organization: organization}
			if known[o] || !rotation.ProofDue(identity+"\n"+organization, last, p.plan.At) {
				continue
			}
			pats, err := p.lists.list(ctx, o, p.plan.At)
			if err != nil {
				p.Log.DebugContext(ctx, "what an earlier owner may have left is not listed", "identity", identity,
					"organization", organization, "class", string(rotation.ClassOf(err)))
				continue
			}
			p.owners = append(p.owners, &ownersPart{owner: o, pats: pats, earlier: true})
		}
	}
}

// everyIdentity are the manifest's, and those that have left it and whose sign-in is
// still in the vault.
func (p *planning) everyIdentity() []string {
	found := map[string]bool{}
	for _, s := range p.specs {
		found[s.Identity] = true
	}
	if p.IdentityNames != nil {
		for _, name := range p.IdentityNames() {
			found[name] = true
		}
	}
	for _, v := range p.all {
		name, isSignIn := strings.CutPrefix(v.Name, identitySecret)
		if isSignIn {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// everyOrganization are those of the manifest, and of secrets whose entry has left it.
func (p *planning) everyOrganization() []string {
	found := map[string]bool{}
	for _, s := range p.specs {
		found[s.Organization] = true
	}
	for _, v := range p.released {
		organization := p.Organization(v.Ledger.ProviderAddress)
		if organization != "" {
			found[organization] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
