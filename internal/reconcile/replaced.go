package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// revoke ends a replaced PAT, publishes that, and closes its version. The note on the
// version comes last: if the process ends before it, the revocation finds the PAT gone
// and the event is sent again, with the same id.
func (w *work) revoke(ctx context.Context, d rotation.Decision) error {
	v := *d.Version
	id := v.Ledger.AuthorizationID
	if d.Cause != rotation.Expired {
		err := w.Tokens.Revoke(ctx, w.ownerOf(v), id)
		if err != nil {
			w.seen.Failed[id] = true
			return w.ownerGone(v, err)
		}
		w.lists.removeRevoked(w.ownerOf(v), id)
	}
	err := w.Outbox.Publish(ctx, &rotation.Revoked{Spec: w.spec, RotationID: d.RotationID, AuthorizationID: id,
		SecretVersion: v.ID, Cause: d.Cause, At: w.Now()})
	if err == nil {
		v.Ledger.RevokedAt, v.Enabled, v.Value = w.Now(), false, rotation.Secret{}
		_, err = w.Vault.Update(ctx, v)
	}
	if err != nil {
		w.seen.Failed[id] = true
		return err
	}
	w.closed.add(id, w.Now())
	w.Observer.Revoked(ctx, &w.spec, d.Cause)
	i := slices.IndexFunc(w.seen.Replaced, func(r rotation.Version) bool { return r.ID == v.ID })
	if i >= 0 {
		w.seen.Replaced[i] = v // closed, and still the successor of the one before it
	}
	w.forget(id)
	return nil
}

// ownerGone says so if a PAT cannot be revoked because the identity that made it,
// which the PAT has been moved away from, cannot sign in any more.
func (w *work) ownerGone(v rotation.Version, err error) error {
	e := rotation.AsError(err)
	was := v.Ledger.Identity
	if e == nil || was == "" || was == w.spec.Identity {
		return err
	}
	if e.Class != rotation.SignIn && e.Code != rotation.UnknownIdentity {
		return err
	}
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.OwnerGone, Err: err,
		Message: fmt.Sprintf("the replaced PAT %s was made by the identity %s, which cannot sign in: let its user "+
			"sign in, or let an administrator revoke the PAT (POST /api/revocations); it ends by itself at %s",
			v.Ledger.AuthorizationID, was, v.Expires.UTC().Format(time.RFC3339))}
}

// ownerOf is whose PAT a version holds: not always the manifest's owner of today.
func (w *work) ownerOf(v rotation.Version) rotation.Owner {
	o := w.spec.Owner()
	if v.Ledger.Identity != "" {
		o.Identity = v.Ledger.Identity
	}
	if org := w.Organization(v.Ledger.ProviderAddress); org != "" {
		o.Organization = org
	}
	return o
}

// revokeOrphan ends a PAT that no version knows. The observation has followed the
// versions by their links; two instances at once may have stored a version that no
// other links to, so all of them are asked before.
func (w *work) revokeOrphan(ctx context.Context, p rotation.PAT) error {
	versions, err := w.Vault.Versions(ctx, w.spec.Name)
	if err != nil {
		w.seen.Failed[p.AuthorizationID] = true
		return err
	}
	for i, v := range versions {
		if strings.EqualFold(v.Ledger.AuthorizationID, p.AuthorizationID) {
			return w.revokeUnlinked(ctx, v, versions[:i])
		}
	}
	err = w.Tokens.Revoke(ctx, w.spec.Owner(), p.AuthorizationID)
	if err == nil {
		w.lists.removeRevoked(w.spec.Owner(), p.AuthorizationID)
		_, _, id, _ := rotation.ParseDisplayName(p.DisplayName)
		err = w.Outbox.Publish(ctx, &rotation.Revoked{Spec: w.spec, RotationID: id, AuthorizationID: p.AuthorizationID,
			Cause: rotation.Orphan, At: w.Now()})
	}
	if err != nil {
		w.seen.Failed[p.AuthorizationID] = true
		return err
	}
	w.Observer.Revoked(ctx, &w.spec, rotation.Orphan)
	w.forget(p.AuthorizationID)
	return nil
}

// revokeUnlinked ends a replaced PAT whose version is not linked, once the overlap
// after its replacement has passed. newer are the versions after it, newest first.
func (w *work) revokeUnlinked(ctx context.Context, v rotation.Version, newer []rotation.Version) error {
	at, rotationID := w.Now(), v.Ledger.RotationID
	if len(newer) > 0 {
		next := newer[len(newer)-1]
		at, rotationID = next.Created.Add(w.spec.Overlap+rotation.StoreSlack), next.Ledger.RotationID
	}
	if at.After(w.Now()) {
		w.forget(v.Ledger.AuthorizationID)
		return w.Outbox.Send(ctx, w.check("unlinked", v.ID, at))
	}
	return w.revoke(ctx, rotation.Decision{Version: &v, Cause: rotation.OverlapEnded, RotationID: rotationID})
}

// forget takes a revoked PAT out of the observation.
func (w *work) forget(authorizationID string) {
	w.seen.PATs = slices.DeleteFunc(slices.Clone(w.seen.PATs),
		func(p rotation.PAT) bool { return p.AuthorizationID == authorizationID })
}
