package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Target names a PAT to revoke.
type Target struct {
	AuthorizationID string
	// Identity and Organization may be left out: then every owner is searched.
	Identity, Organization string
	// Force revokes it though a secret's readers use it; what can be rotated is.
	Force                  bool
	RequestedBy, Operation string
}

// Ended is a revoked PAT.
type Ended struct {
	Owner rotation.Owner
	// Already says that it had ended before.
	Already bool
	// Replacing is the managed PAT that is being rotated because of it; empty: none.
	Replacing string
}

// Revoke ends one PAT of a signed-in user, managed or not. One that a secret's readers
// use is not revoked without force: rotating it is what its owner wants.
func (a *Actions) Revoke(ctx context.Context, t Target) (Ended, error) {
	owners := a.owners(t)
	if len(owners) == 0 {
		return Ended{}, &Refusal{Code: UnknownToken,
			Message: "the manifest has no PAT of this identity in this organization"}
	}
	var failed error
	for _, o := range owners {
		pats, err := a.Tokens.List(ctx, o) // afresh: an old list is no ground for a "not found"
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		i := slices.IndexFunc(pats, func(p rotation.PAT) bool {
			return strings.EqualFold(p.AuthorizationID,
				t.AuthorizationID)
		})
		if i >= 0 {
			return a.end(ctx, o, pats[i], t)
		}
	}
	if failed != nil {
		return Ended{}, failed
	}
	for _, o := range owners {
		known, err := a.Ends.Known(ctx, o, t.AuthorizationID)
		if err != nil {
			return Ended{}, err
		}
		if known {
			return Ended{Owner: o, Already: true}, nil
		}
	}
	return Ended{}, &Refusal{Code: UnknownToken,
		Message: "none of the identities and organizations asked has or had a PAT with this authorization id"}
}

// owners are whose PATs may be meant: of the manifest, and of nobody else. A name that
// somebody makes up reaches no service and stays in no memory.
func (a *Actions) owners(t Target) []rotation.Owner {
	var out []rotation.Owner
	for _, s := range a.Specs() {
		o := s.Owner()
		mayBeIdentity := t.Identity == "" || o.Identity == t.Identity
		mayBeOrganization := t.Organization == "" || strings.EqualFold(o.Organization, t.Organization)
		if mayBeIdentity && mayBeOrganization && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(x, y rotation.Owner) int {
		return strings.Compare(x.Identity+"/"+x.Organization, y.Identity+"/"+y.Organization)
	})
	return out
}

func (a *Actions) end(ctx context.Context, o rotation.Owner, p rotation.PAT, t Target) (Ended, error) {
	out := Ended{Owner: o}
	use, err := a.use(ctx, p)
	if err != nil && !t.Force {
		return Ended{}, err // perhaps somebody uses it
	}
	if use != nil && !t.Force {
		return Ended{}, use
	}
	if use != nil && use.Managed {
		// The order goes first: if the revocation then fails, the rotation ends
		// the PAT all the same.
		order := rotation.Command{PAT: use.PAT, Reason: rotation.Compromised, From: p.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: t.RequestedBy, Operation: t.Operation}
		if err := a.Outbox.Send(ctx, order); err != nil {
			return Ended{}, err
		}
		out.Replacing = use.PAT
	}
	if err := a.Tokens.Revoke(ctx, o, p.AuthorizationID); err != nil {
		return Ended{}, err
	}
	a.ended.add(p.AuthorizationID, a.Now())
	a.lists.removeRevoked(o, p.AuthorizationID)
	return out, nil
}

// use finds the secret that holds this PAT, or is about to.
func (a *Actions) use(ctx context.Context, p rotation.PAT) (*Refusal, error) {
	declared, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	for v, err := range a.Vault.Secrets(ctx) {
		if err != nil {
			return nil, err
		}
		s, managed := a.Spec(v.Name)
		switch {
		case strings.EqualFold(v.Ledger.AuthorizationID, p.AuthorizationID):
			r := &Refusal{Code: InUse, PAT: v.Name, Managed: managed,
				Message: fmt.Sprintf("the secret %s holds this PAT: its readers would be left with a dead one. ",
					v.Name)}
			if managed {
				r.PAT = s.Name
				r.Message += `Rotate it with revokePrevious "now", or use force`
			} else {
				r.Message += "It is not in the manifest, so nothing replaces it; use force if nobody reads it any more"
			}
			return r, nil
		case managed && !v.Ledger.Ours() && (strings.EqualFold(s.DisplayName, p.DisplayName) ||
			strings.EqualFold(s.Adopt, p.AuthorizationID)):
			return &Refusal{Code: InUse, PAT: s.Name, Managed: true, Message: "the secret " + s.Name +
				" was put there by hand and probably holds this PAT: let patrol adopt it first, or use force"}, nil
		}
	}
	if marked && tag == a.VaultTag && a.Now().Sub(p.ValidFrom) < rotation.OrphanAge {
		for _, s := range a.Specs() {
			if strings.EqualFold(s.DisplayName, declared) {
				return &Refusal{Code: InUse, PAT: s.Name, Managed: true, Message: "a rotation of " + s.Name +
					" that is under way has made this PAT: wait for it to end, or use force"}, nil
			}
		}
	}
	return nil, nil
}
