package reconcile

import (
	"context"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// adopt takes a secret over that somebody put there by hand, if its value works. One
// that does not is replaced at once.
func (w *work) adopt(ctx context.Context, p rotation.PAT) error {
	c := *w.seen.Current
	if !c.Enabled {
		return w.replaceByHand(ctx, "the secret is disabled")
	}
	err := w.prove(ctx, c.Value)
	if e := rotation.AsError(err); e != nil && e.Code == rotation.TokenRefused {
		return w.replaceByHand(ctx, "Azure DevOps refuses the value that was put there")
	}
	if err != nil {
		return err
	}
	now := w.Now()
	c.Ledger = rotation.Ledger{
		AuthorizationID: p.AuthorizationID,
		ProviderAddress: w.seen.ProviderAddress,
		ValidityDays:    rotation.WholeDays(p.ValidTo.Sub(p.ValidFrom)),
		Identity:        w.spec.Identity,
		AnnouncedAt:     now,
	}
	c.Ledger.RequestedBy, c.Ledger.Operation = w.order.Origin()
	asksToRotate := w.order.Reason == rotation.Requested || w.order.Reason == rotation.Compromised
	if w.order.From == "" && asksToRotate {
		// Whoever asked to rotate could not name the PAT before it was adopted.
		w.seen.Order.From = p.AuthorizationID
	}
	if c.Expires.IsZero() {
		c.Expires = p.ValidTo
	}
	c.Value = rotation.Secret{}
	updated, err := w.Vault.Update(ctx, c)
	if err != nil {
		return err
	}
	w.seen.Current = &updated
	return nil
}

// replaceByHand rotates away from a secret that cannot be adopted; nothing is
// revoked, for it is not known which PAT it held.
func (w *work) replaceByHand(ctx context.Context, why string) error {
	w.log.InfoContext(ctx, "not adopted: a new PAT takes its place", "why", why)
	_, err := w.rotate(ctx, rotation.Decision{Action: rotation.Rotate, Reason: rotation.Provision,
		RevokePrevious: rotation.AfterOverlap})
	return err
}
