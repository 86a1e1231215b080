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
// and the event is sent again, with the same id. An order `now` ends the PAT alone first;
// the rest follows when the rotation has been announced.
func (w *work) revoke(ctx context.Context, d rotation.Decision) error {
	v := *d.Version
	id := v.Ledger.AuthorizationID
	if w.isForeign(id) && !w.isNamedToEnd(d) {
		w.log.InfoContext(ctx, "a replaced PAT bears the mark of another deployment; that one ends it",
			"authorizationId", id)
		w.seen.Failed[id] = true
		return nil
	}
	if !d.HasRunOut && !w.seen.Ended[id] {
		if until := w.promisedElsewhere(ctx, d); until.After(w.Now()) {
			w.log.InfoContext(ctx, "a replaced PAT lives on for the readers of another secret that held it too",
				"authorizationId", id, "until", until)
			w.seen.Failed[id] = true
			return nil
		}
		err := w.endAtAzureDevOps(ctx, d, v)
		if err != nil {
			w.seen.Failed[id] = true
			return err
		}
	}
	w.seen.Ended[id] = true
	if d.EndOnly {
		return nil
	}
	err := w.close(ctx, d, v)
	if err != nil {
		w.seen.Failed[id] = true
	}
	return err
}

// endAtAzureDevOps ends one replaced PAT at Azure DevOps, by the owner who made it.
func (w *work) endAtAzureDevOps(ctx context.Context, d rotation.Decision, v rotation.Version) error {
	id := v.Ledger.AuthorizationID
	if d.EndOnly {
		w.keepNow(ctx, d)
	}
	owner := w.ownerOf(v)
	err := w.sameUser(owner, v)
	if err == nil && !w.isNamedToEnd(d) {
		err = w.guarded(ctx, v)
	}
	if err == nil {
		err = w.Tokens.Revoke(ctx, owner, id)
	}
	if err != nil {
		return w.ownerGone(v, err)
	}
	w.lists.removeRevoked(owner, id)
	return nil
}

// isNamedToEnd reports whether an order `now` is about this very PAT: it ends whoever
// holds it. PATs to which a `now` only reaches back are guarded.
func (w *work) isNamedToEnd(d rotation.Decision) bool {
	l := d.Version.Ledger
	isOrdered := l.Facts.Order.RevokePrevious == rotation.Now || w.seen.Now[strings.ToLower(l.AuthorizationID)]
	isReplacedBy := d.Successor != nil && d.Successor.Ledger.Facts.PreviousEnds == rotation.EndsNow &&
		d.Successor.Ledger.PreviousVersion == d.Version.ID
	return isOrdered || isReplacedBy
}

// close publishes that a replaced PAT has ended and disables its version.
func (w *work) close(ctx context.Context, d rotation.Decision, v rotation.Version) error {
	id := v.Ledger.AuthorizationID
	err := w.Outbox.Publish(ctx, &rotation.Revoked{Spec: w.spec, RotationID: d.RotationID, AuthorizationID: id,
		SecretVersion: v.ID, Cause: d.Cause, At: d.Due})
	if err != nil {
		return err
	}
	v.Ledger.RevokedAt, v.Enabled, v.Value = w.Now(), false, rotation.Secret{}
	_, err = w.Vault.Update(ctx, v)
	if err != nil {
		return err
	}
	w.closed.add(id, w.Now())
	w.Observer.Revoked(ctx, &w.spec, d.Cause)
	w.replace(v) // closed, and still the successor of the one before it
	w.forget(id)
	return nil
}

// keepNow writes an order `now` about a replaced PAT onto its successor before it is
// carried out. If it cannot be written, the command goes on carrying it.
func (w *work) keepNow(ctx context.Context, d rotation.Decision) {
	next := *d.Successor
	isNamed := w.seen.Now[strings.ToLower(d.Version.Ledger.AuthorizationID)]
	if !isNamed || next.Ledger.Facts.PreviousEnds == rotation.EndsNow {
		return
	}
	next.Value = rotation.Secret{}
	next.Ledger.Facts.PreviousEnds = rotation.EndsNow
	updated, err := w.Vault.Update(ctx, next)
	if err != nil {
		w.log.WarnContext(ctx, "an order to end a replaced PAT could not be written down; the command carries it",
			"authorizationId", d.Version.Ledger.AuthorizationID, "class", string(rotation.ClassOf(err)))
		return
	}
	w.replace(updated)
}

// sameUser refuses to end a PAT by another user's sign-in: Azure DevOps would say that
// there is no such PAT, and it would live on.
func (w *work) sameUser(o rotation.Owner, v rotation.Version) error {
	made, today := v.Ledger.Facts.Owner, w.Identities.User(o.Identity)
	if made == "" || today == "" || strings.EqualFold(made, today) {
		return nil
	}
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.OtherUser,
		Message: "another user has signed in as the identity since the PAT was made"}
}

// ownerGone says so if a PAT cannot be revoked because the user who made it has not
// signed in: as an identity that the PAT has been moved away from, or as this one before
// somebody else did.
func (w *work) ownerGone(v rotation.Version, err error) error {
	e := rotation.AsError(err)
	was := v.Ledger.Identity
	if e == nil || was == "" {
		return err
	}
	cannotSignIn := e.Class == rotation.SignIn && was != w.spec.Identity
	if !cannotSignIn && e.Code != rotation.UnknownIdentity && e.Code != rotation.OtherUser {
		return err
	}
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.OwnerGone, Err: err,
		Message: fmt.Sprintf("the replaced PAT %s was made by the identity %s as another user, or as one who cannot "+
			"sign in: let that user sign in, or let an administrator revoke the PAT (POST /api/revocations); "+
			"it ends by itself at %s",
			v.Ledger.AuthorizationID, was, v.Expires.UTC().Format(time.RFC3339))}
}

// ownerOf is whose PAT a version holds: not always the manifest's owner of today.
func (w *work) ownerOf(v rotation.Version) rotation.Owner {
	o := w.spec.Owner()
	if _, listed := w.listed.find(v.Ledger.AuthorizationID); listed {
		return o // names are labels: the list of today's owner has it
	}
	made := v.Ledger.Facts.Owner
	isSameUser := made != "" && strings.EqualFold(made, w.Identities.User(o.Identity))
	if v.Ledger.Identity != "" && !isSameUser {
		o.Identity = v.Ledger.Identity
	}
	if org := w.Organization(v.Ledger.ProviderAddress); org != "" {
		o.Organization = org
	}
	return o
}

// forget takes a revoked PAT out of the observation.
func (w *work) forget(authorizationID string) {
	w.seen.PATs = slices.DeleteFunc(slices.Clone(w.seen.PATs),
		func(p rotation.PAT) bool { return p.AuthorizationID == authorizationID })
}
