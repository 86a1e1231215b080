package reconcile

import (
	"context"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// announce publishes the event of a rotation and schedules the revocation, and then
// notes on the version that both were done. If the process ends before that note, both
// are sent again, with the same ids.
func (w *work) announce(ctx context.Context, d rotation.Decision) error {
	v := *d.Version
	event := w.rotated(v)
	sends := []func() error{func() error { return w.Outbox.Publish(ctx, event) }}
	if event.Previous != nil && event.Previous.RevokeAt.After(w.Now()) {
		revocation := w.check("revocation", v.Ledger.RotationID, event.Previous.RevokeAt)
		sends = append(sends, func() error { return w.Outbox.Send(ctx, revocation) })
	}
	err := inParallel(sends)
	if err != nil {
		return err
	}
	v.Ledger.AnnouncedAt = w.Now()
	v.Value = rotation.Secret{}
	updated, err := w.Vault.Update(ctx, v)
	if err != nil {
		return err
	}
	w.replace(updated)
	return nil
}

// rotated is the event of a version. Copies of it are equal: it says what the version
// says, and its time is the version's creation.
func (w *work) rotated(v rotation.Version) *rotation.Rotated {
	event := &rotation.Rotated{
		Spec: w.spec, RotationID: v.Ledger.RotationID, Reason: v.Ledger.Reason,
		SecretID: v.URL, SecretVersion: v.ID, AuthorizationID: v.Ledger.AuthorizationID,
		ValidFrom: v.Created, ValidTo: v.Expires, At: v.Created,
	}
	if event.Reason == "" {
		event.Reason = rotation.Expiring // the tag gave way to others
	}
	event.Previous = w.replacedBy(v)
	return event
}

// replacedBy is the PAT that a version has replaced; nil: none.
func (w *work) replacedBy(v rotation.Version) *rotation.Replaced {
	l := v.Ledger
	if l.PreviousVersion == "" {
		return nil
	}
	out := &rotation.Replaced{Version: l.PreviousVersion, AuthorizationID: l.Previous,
		RevokeAt: rotation.RevocationTime(w.spec, v)}
	if out.AuthorizationID == "" {
		out.AuthorizationID = w.authorizationOf(l.PreviousVersion)
	}
	if bound := rotation.ParseConfirmed(l.Confirmed).Bound; !bound.IsZero() &&
		l.Facts.PreviousEnds != rotation.EndsNow {
		out.RevokeAtLatest = bound
		if bound.Before(out.RevokeAt) {
			out.RevokeAtLatest = out.RevokeAt
		}
	}
	return out
}

// authorizationOf is the authorization id that a replaced version names.
func (w *work) authorizationOf(version string) string {
	for _, v := range w.seen.Replaced {
		if v.ID == version {
			return v.Ledger.AuthorizationID
		}
	}
	return ""
}

// replace brings one version of what has been observed up to date.
func (w *work) replace(v rotation.Version) {
	if v.ID == w.seen.Current.ID {
		v.Value = w.seen.Current.Value
		w.seen.Current = &v
		return
	}
	for i := range w.seen.Replaced {
		if w.seen.Replaced[i].ID == v.ID {
			w.seen.Replaced[i] = v
		}
	}
}
