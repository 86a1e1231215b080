package reconcile

import (
	"context"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// adopt takes a secret over that somebody put there by hand, if its value works. One
// that does not is replaced at once. An order that stands on the version stays.
func (w *work) adopt(ctx context.Context, p rotation.PAT) error {
	c := *w.seen.Current
	if !c.Enabled {
		return w.replaceByHand(ctx, "the secret is disabled")
	}
	refused, err := w.isRefused(ctx)
	if err != nil {
		return err
	}
	if refused {
		return w.replaceByHand(ctx, "Azure DevOps refuses the value that was put there")
	}
	order := c.Ledger.Facts.Order
	c.Ledger = rotation.Ledger{
		AuthorizationID: p.AuthorizationID,
		ProviderAddress: w.seen.ProviderAddress,
		ValidityDays:    rotation.WholeDays(p.ValidTo.Sub(p.ValidFrom)),
		Identity:        w.spec.Identity,
		AnnouncedAt:     w.Now(),
		Facts: rotation.Facts{Digest: rotation.Digest(c.Value), Owner: w.Identities.User(w.spec.Identity),
			Order: order},
	}
	c.Ledger.RequestedBy, c.Ledger.Operation = w.origin()
	c.Expires = p.ValidTo // the end is Azure DevOps' to say
	value := c.Value
	c.Value = rotation.Secret{}
	updated, err := w.Vault.Update(ctx, c)
	if err != nil {
		return err
	}
	updated.Value = value
	w.seen.Current = &updated
	return nil
}

// replaceByHand rotates away from a secret that cannot be adopted; nothing is
// revoked, for it is not known which PAT it held.
func (w *work) replaceByHand(ctx context.Context, why string) error {
	w.log.InfoContext(ctx, "not adopted: a new PAT takes its place", "why", why)
	w.seen.Current.Ledger = rotation.Ledger{}
	_, err := w.rotate(ctx, rotation.Decision{Action: rotation.Rotate, Reason: rotation.Provision,
		RevokePrevious: rotation.AfterOverlap})
	return err
}
