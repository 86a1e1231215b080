package devops

import (
	"context"
	"errors"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// What Extend refuses, beside what Azure DevOps itself calls it.
const (
	UnknownPAT   = "pat-unknown" // also errors.Is(err, rotation.ErrNotFound)
	RevokedPAT   = "pat-revoked"
	ExpiredPAT   = "expiredPatCannotBeExtended"
	LongLivedPAT = "patLifespanPolicyViolation"
	NotLater     = "not-an-extension"
)

const expiredMessage = "the PAT has expired: it cannot be extended any more"

// sameMoment is how far Azure DevOps' times may be from what was asked: its
// database rounds to 1/300 s.
const sameMoment = 10 * time.Millisecond

// Extend changes a PAT's end to a later time; its token, name and scopes stay. The
// ValidTo of the answer counts: a policy may have shortened it. If a policy has
// left no later end at all, the error's code is LongLivedPAT, and the PAT is
// returned with it: one from before the policy may end earlier than it did.
func (c *Client) Extend(ctx context.Context, o rotation.Owner, authorizationID string, validTo time.Time) (rotation.PAT,
	error) {
	k := &call{owner: o, doing: "extending a PAT"}
	was, p, err := c.get(ctx, o, authorizationID)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		return rotation.PAT{}, k.fail(rotation.Configuration, UnknownPAT,
			"the identity has no such PAT in the organization", rotation.ErrNotFound)
	case err != nil:
		return rotation.PAT{}, err
	case !p.ValidTo.After(c.now()):
		return rotation.PAT{}, k.fail(rotation.Configuration, ExpiredPAT, expiredMessage, nil)
	case validTo.Before(p.ValidTo.Add(-sameMoment)):
		return rotation.PAT{}, k.fail(rotation.Configuration, NotLater, "the PAT ends later than that already", nil)
	}
	// What is not named should stay as it is; naming it makes sure.
	global := p.Global
	after, err := c.update(ctx, o, updateRequest{authorizationID, was.DisplayName, was.Scope, wireTime(validTo),
		&global})
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		return rotation.PAT{}, k.fail(rotation.Configuration, RevokedPAT, "the PAT has been revoked",
			rotation.ErrNotFound)
	case err != nil:
		return rotation.PAT{}, err
	case after.ValidTo.Sub(validTo).Abs() <= sameMoment:
		return after, nil // perhaps not for the first time
	case !after.ValidTo.After(p.ValidTo.Add(sameMoment)):
		return after, k.fail(rotation.Policy, LongLivedPAT,
			"the tenant's policy on the lifespan of PATs allows no later end", nil)
	}
	return after, nil
}
