package reconcile

import (
	"context"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// announce publishes the event and schedules the revocation, and then notes on the
// version that both were done. If the process ends before that note, both are sent
// again, with the same ids.
func (w *work) announce(ctx context.Context) error {
	c := *w.seen.Current
	event := &rotation.Rotated{
		Spec: w.spec, RotationID: c.Ledger.RotationID, Reason: c.Ledger.Reason,
		SecretID: c.URL, SecretVersion: c.ID, AuthorizationID: c.Ledger.AuthorizationID,
		ValidFrom: c.Created, ValidTo: c.Expires, At: w.Now(),
	}
	if p, ok := w.seen.Find(c.Ledger.AuthorizationID); ok {
		event.ValidFrom = p.ValidFrom
	}
	sends := []func() error{func() error { return w.Outbox.Publish(ctx, event) }}
	if c.Ledger.Previous != "" {
		at := c.Ledger.RevokePreviousAt
		event.Previous = &rotation.Replaced{Version: c.Ledger.PreviousVersion, AuthorizationID: c.Ledger.Previous,
			RevokeAt: at}
		if at.After(w.Now()) {
			revocation := w.check("revocation", c.Ledger.RotationID, at)
			sends = append(sends, func() error { return w.Outbox.Send(ctx, revocation) })
		}
	}
	err := inParallel(sends)
	if err != nil {
		return err
	}
	c.Ledger.AnnouncedAt = w.Now()
	c.Value = rotation.Secret{}
	updated, err := w.Vault.Update(ctx, c)
	if err != nil {
		return err
	}
	w.seen.Current = &updated
	return nil
}
