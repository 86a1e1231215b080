package reconcile

import (
	"context"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// endNamed ends a PAT that an order `now` names and that no version knows any more: its
// secret was purged between the order and its turn. Only a PAT whose mark says that it was
// made for this entry: a command may name anything.
func (w *work) endNamed(ctx context.Context) error {
	isNow := w.order.IsOrder() && w.order.RevokePrevious == rotation.Now
	isObserved := w.listed != nil && w.seen.Current != nil
	if !isNow || !isObserved || w.isKnown(w.order.From) {
		return nil
	}
	p, listed := w.listed.find(w.order.From)
	declared, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	isEntrys := marked && tag == w.VaultTag && strings.EqualFold(declared, w.spec.DisplayName)
	if !listed || !isEntrys {
		return nil
	}
	err := w.Tokens.Revoke(ctx, w.spec.Owner(), p.AuthorizationID)
	if err != nil {
		return err
	}
	w.lists.removeRevoked(w.spec.Owner(), p.AuthorizationID)
	by, operation := w.order.Origin()
	rotation.Record{Who: by, Trigger: "command", Act: "revoke", Target: p.AuthorizationID, Outcome: "done",
		Activity: operation}.Write(ctx, w.Log)
	w.Observer.Revoked(ctx, &w.spec, rotation.CauseRequested)
	return w.Outbox.Publish(ctx, &rotation.Revoked{Spec: w.spec, RotationID: w.seen.Current.Ledger.RotationID,
		AuthorizationID: p.AuthorizationID, Cause: rotation.CauseRequested, At: w.Now()})
}

// isKnown reports whether a version that was read names a PAT.
func (w *work) isKnown(authorizationID string) bool {
	if strings.EqualFold(w.seen.Current.Ledger.AuthorizationID, authorizationID) {
		return true
	}
	for _, v := range w.seen.Replaced {
		if strings.EqualFold(v.Ledger.AuthorizationID, authorizationID) {
			return true
		}
	}
	return w.closed.has(authorizationID)
}
