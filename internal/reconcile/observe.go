package reconcile

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// maxChain bounds how far replaced versions are followed back.
const maxChain = 64

// observe reads the secret afresh, beside it takes the list of PATs that this process
// shares, follows the replaced versions back as far as something may be left to do, and
// asks a second witness before it believes that a PAT is gone.
func (w *work) observe(ctx context.Context) error {
	w.seen = rotation.Observed{VaultTag: w.VaultTag, ProviderAddress: w.ProviderAddress(w.spec.Organization),
		Interval: w.interval(), Failed: map[string]bool{}, Ended: map[string]bool{}, Now: map[string]bool{},
		Released: w.released}
	_, slowed := w.throttles.state(w.spec.Identity, w.Now())
	mayNeedNoList := slowed && w.order.IsOrder()
	var list listInFlight
	if !mayNeedNoList {
		list = w.startList(ctx, slowed)
	}
	current, err := w.current(ctx)
	if mayNeedNoList {
		if err == nil && w.orderIsEnough(current) {
			w.seen.Current, w.listed = current, newIndex(time.Time{}, nil)
			return w.followOrders(ctx)
		}
		list = w.startList(ctx, slowed)
	}
	listed := <-list
	if e := rotation.AsError(listed.err); e != nil && e.Class == rotation.SignIn {
		w.seen.SignIn, w.listed = e, newIndex(time.Time{}, nil)
		if err != nil {
			return nil
		}
		w.seen.Current = current
		return w.followOrders(ctx)
	}
	if err != nil {
		return err
	}
	w.seen.Current = current
	if listed.err != nil {
		return listed.err
	}
	w.take(listed.pats)
	if w.needsFreshList() {
		fresh, err := w.lists.list(ctx, w.spec.Owner(), w.Now())
		if err != nil {
			return err
		}
		w.take(fresh)
	}
	err = w.recognize(ctx)
	if err != nil {
		return err
	}
	err = w.followOrders(ctx)
	if err != nil {
		return err
	}
	return w.witness(ctx)
}

// listInFlight gives the owner's PATs once they are there.
type listInFlight <-chan listAnswer

type listAnswer struct {
	pats *index
	err  error
}

func (w *work) startList(ctx context.Context, slowed bool) listInFlight {
	out := make(chan listAnswer, 1)
	go func() {
		var a listAnswer
		a.err = panics.Held(func() (err error) {
			a.pats, err = w.lists.recent(ctx, w.spec.Owner(), slowed)
			return err
		})
		out <- a
	}()
	return out
}

// orderIsEnough reports that the order says all there is to do, so that an identity that
// has been slowed down need not list its PATs for it: whoever ordered has seen them.
func (w *work) orderIsEnough(c *rotation.Version) bool {
	if c == nil || !c.Enabled {
		return false
	}
	isOrdered := strings.EqualFold(c.Ledger.AuthorizationID, w.order.From)
	return isOrdered && w.isOwners(c)
}

// isOwners reports whether a version's PAT is the manifest's owner's of today.
func (w *work) isOwners(v *rotation.Version) bool {
	sameOrganization := strings.EqualFold(v.Ledger.ProviderAddress, w.seen.ProviderAddress)
	return sameOrganization && v.Ledger.Identity == w.spec.Identity
}

// take takes from a list what concerns this PAT and the versions seen so far.
func (w *work) take(l *index) {
	versions := w.seen.Replaced
	if c := w.seen.Current; c != nil {
		versions = append([]rotation.Version{*c}, versions...)
	}
	w.listed, w.seen.ListedAt = l, l.at
	w.seen.PATs = l.about(w.spec, versions...)
}

// current reads the latest version; nil if there is no secret. A soft-deleted one
// is brought back first: its name is blocked, and its PAT may be in use.
func (w *work) current(ctx context.Context) (*rotation.Version, error) {
	w.readAt = w.Now()
	v, err := w.Vault.Current(ctx, w.spec.Name)
	missing := errors.Is(err, rotation.ErrNotFound)
	if missing && (w.readOnly || w.released) {
		return nil, nil
	}
	if missing {
		recovered, err := w.Vault.Recover(ctx, w.spec.Name)
		if err != nil || !recovered {
			return nil, err
		}
		w.log.WarnContext(ctx, "the secret had been deleted; it has been recovered")
		v, err = w.Vault.Current(ctx, w.spec.Name)
		if err != nil {
			return nil, err
		}
		return w.counted(ctx, v), nil
	}
	if err != nil {
		return nil, err
	}
	return w.counted(ctx, v), nil
}

// counted leaves a ledger out that was written for another value: somebody has put a
// value under the tags of the one before, and then the tags say nothing.
func (w *work) counted(ctx context.Context, v rotation.Version) *rotation.Version {
	written := v.Ledger.Facts.Digest
	if written == "" || v.Value.Empty() || written == rotation.Digest(v.Value) {
		return &v
	}
	w.log.WarnContext(ctx, "the latest version has the tags of another value; they do not count", "version", v.ID)
	v.Ledger = rotation.Ledger{}
	return &v
}

// needsFreshList reports whether the next decision would rest on a PAT that an old list
// does not show. Before a conclusion from absence the list must be new.
func (w *work) needsFreshList() bool {
	c := w.seen.Current
	if c == nil || !w.seen.ListedAt.Before(w.Now()) {
		return false
	}
	if !c.Ledger.Ours() {
		return true
	}
	return w.isOwners(c) && !w.seen.Lists(c.Ledger.AuthorizationID)
}

// followOrders reads the replaced versions that are still of interest, and joins what
// persons have ordered: by the command, and by what stands on the versions.
func (w *work) followOrders(ctx context.Context) error {
	err := w.follow(ctx)
	if err != nil {
		return err
	}
	c := w.seen.Current
	if c == nil {
		return nil
	}
	w.seen.Order = c.Ledger.Facts.Order
	asked := rotation.NewOrder(w.order.RevokePrevious, w.Now(), w.order.Operation, w.order.RequestedBy)
	switch {
	case w.asksFor(*c):
		w.seen.Order = w.seen.Order.Stronger(asked)
	case w.order.IsOrder() && asked.RevokePrevious == rotation.Now:
		w.seen.Now[strings.ToLower(w.order.From)] = true
	}
	return nil
}

// asksFor reports whether the command orders to rotate away from this version's PAT.
// Before an adoption nobody can name that PAT, and another command may have adopted it
// since: only a rotation carries the order out.
func (w *work) asksFor(v rotation.Version) bool {
	if w.order.IsOrder() {
		return strings.EqualFold(w.order.From, v.Ledger.AuthorizationID)
	}
	wantsRotation := w.order.Reason == rotation.Requested || w.order.Reason == rotation.Compromised
	isRotated := v.Ledger.RotationID != ""
	return wantsRotation && w.order.From == "" && !isRotated
}

// follow reads replaced versions, newest first, while one of them may still have
// to be revoked or announced.
func (w *work) follow(ctx context.Context) error {
	if w.seen.Current == nil {
		return nil
	}
	at := *w.seen.Current
	for range maxChain {
		if !w.leadsOn(at) {
			return nil
		}
		v, err := w.Vault.Version(ctx, w.spec.Name, at.Ledger.PreviousVersion)
		if errors.Is(err, rotation.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if v.Ledger.AuthorizationID == "" {
			v.Ledger.AuthorizationID = w.replacedPAT(at.Ledger) // somebody has taken its tags off
		}
		if !v.Ledger.RevokedAt.IsZero() {
			w.closed.add(v.Ledger.AuthorizationID, w.Now())
		}
		if !strings.EqualFold(v.Ledger.AuthorizationID, w.seen.Current.Ledger.AuthorizationID) {
			w.seen.Replaced = append(w.seen.Replaced, v)
			w.take(w.listed)
		}
		at = v
	}
	return nil
}

// replacedPAT is the PAT that a version says to have replaced; empty: it does not say.
func (w *work) replacedPAT(l rotation.Ledger) string {
	if l.Previous != "" || l.Facts.Previous == "" || w.listed == nil {
		return l.Previous
	}
	var found []string
	w.listed.each(func(p rotation.PAT) {
		isAnother := !strings.EqualFold(p.AuthorizationID, l.AuthorizationID)
		if isAnother && rotation.ShortID(p.AuthorizationID) == l.Facts.Previous {
			found = append(found, p.AuthorizationID)
		}
	})
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// leadsOn reports whether the version before this one is of interest: its PAT may live,
// or its event may be unsent. Behind a closed version only a PAT that is still alive is:
// its revocation failed while that of its successor did not.
func (w *work) leadsOn(v rotation.Version) bool {
	l := v.Ledger
	if l.PreviousVersion == "" {
		return false
	}
	unannounced := l.RotationID != "" && l.AnnouncedAt.IsZero()
	switch {
	case w.seen.Lists(l.Previous):
		return true
	case !l.RevokedAt.IsZero():
		return false
	case unannounced || l.RevokePreviousAt.IsZero():
		return true
	case w.Now().Sub(v.Created) < rotation.SettleWindow:
		return true
	case l.WaitsAfter(w.Now().Add(-rotation.SettleWindow)):
		return true
	}
	// A PAT that was moved away from another owner is not in today's owner's list.
	moved := l.Reason == rotation.Drift || l.Reason == ""
	return moved && !w.closed.has(l.Previous)
}

// witness asks for a second sign, of another kind than a list, before the current PAT
// counts as gone; and tries its value when the command asks for that.
func (w *work) witness(ctx context.Context) error {
	if w.released {
		return nil
	}
	missing := w.seen.Missing(w.Now()) && w.isOwners(w.seen.Current)
	if !missing || w.seen.Current.Ledger.AuthorizationID == "" {
		return w.proveCurrent(ctx)
	}
	id := w.seen.Current.Ledger.AuthorizationID
	p, err := w.Tokens.Get(ctx, w.spec.Owner(), id)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		w.seen.Gone = true
	case err != nil:
		return err
	default:
		// Azure DevOps may show a revoked PAT by its id. The organization knows.
		refused, err := w.isRefused(ctx)
		if err != nil {
			return err
		}
		w.seen.Gone = refused
		if !refused {
			w.log.WarnContext(ctx, "Azure DevOps left a PAT out of a list that works; it counts as listed",
				"authorizationId", id)
			w.seen.PATs = append(w.seen.PATs, p)
		}
	}
	if w.seen.Gone {
		return w.brake(ctx)
	}
	return nil
}

// isRefused tries the current value for ten seconds.
func (w *work) isRefused(ctx context.Context) (bool, error) {
	c := w.seen.Current
	if !c.Enabled || c.Value.Empty() {
		return false, nil
	}
	_, err := w.bearerOf(ctx, c.Value)
	if e := rotation.AsError(err); e != nil && e.Code == rotation.TokenRefused {
		return true, nil
	}
	return false, err
}

// proveCurrent tries the value in force once a day: what Azure DevOps lists may be
// refused by the organization.
func (w *work) proveCurrent(ctx context.Context) error {
	c := w.seen.Current
	isOursToProve := w.order.Prove && c != nil && c.Enabled && !w.readOnly
	if !isOursToProve || !c.Ledger.Ours() || !w.isOwners(c) {
		return w.brakeDrift(ctx)
	}
	refused, err := w.isRefused(ctx)
	if err != nil {
		// Nothing is due: the next day's proof tries again.
		w.log.WarnContext(ctx, "the PAT in force could not be tried", "class", string(rotation.ClassOf(err)))
		return w.brakeDrift(ctx)
	}
	w.proofs.add(w.spec.Owner(), w.spec.Name, refused, w.Now())
	if !refused {
		return w.brakeDrift(ctx)
	}
	w.seen.Refused = !w.proofs.allRefused(w.spec.Owner(), w.Now())
	if !w.seen.Refused {
		w.notifyValuesRefused(ctx)
		return nil
	}
	return w.brake(ctx)
}
