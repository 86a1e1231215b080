package reconcile

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// maxChain bounds how far replaced versions are followed back.
const maxChain = 64

// observe reads the secret afresh, beside it takes the list of PATs that this process
// shares, and follows the replaced versions back as far as something may be left to do.
func (w *work) observe(ctx context.Context) error {
	w.seen = rotation.Observed{VaultTag: w.VaultTag, ProviderAddress: w.ProviderAddress(w.spec.Organization),
		Order: w.order, Failed: map[string]bool{}}
	_, slowed := w.throttles.state(w.spec.Identity, w.Now())
	mayNeedNoList := slowed && w.order.From != ""
	var list listInFlight
	if !mayNeedNoList {
		list = w.startList(ctx, slowed)
	}
	current, err := w.current(ctx)
	if mayNeedNoList {
		if err == nil && w.orderIsEnough(current) {
			w.seen.Current, w.listed = current, newIndex(time.Time{}, nil)
			return w.follow(ctx)
		}
		list = w.startList(ctx, slowed)
	}
	listed := <-list
	if e := rotation.AsError(listed.err); e != nil && e.Class == rotation.SignIn {
		w.seen.SignIn, w.seen.Current = e, current
		return nil
	}
	if err != nil {
		return err
	}
	if listed.err != nil {
		return listed.err
	}
	w.seen.Current = current
	w.take(listed.pats)

	if w.needsFreshList() {
		fresh, err := w.lists.list(ctx, w.spec.Owner(), w.Now())
		if err != nil {
			return err
		}
		w.take(fresh)
	}
	return w.follow(ctx)
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
		pats, err := w.lists.recent(ctx, w.spec.Owner(), slowed)
		out <- listAnswer{pats, err}
	}()
	return out
}

// orderIsEnough reports that the order says all there is to do, so that an identity that
// has been slowed down need not list its PATs for it: whoever ordered has seen them. What
// a list would show beside, an orphan, is found by the sweeps.
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
	if missing && w.readOnly {
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
		return &v, nil
	}
	if err != nil {
		return nil, err
	}
	return &v, nil
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

// follow reads replaced versions, newest first, while one of them may still have
// to be revoked, or a PAT with our marker is unknown.
func (w *work) follow(ctx context.Context) error {
	if w.seen.Current == nil {
		return nil
	}
	at := *w.seen.Current
	for range maxChain {
		if !w.leadsOn(at.Ledger) {
			return nil
		}
		v, err := w.Vault.Version(ctx, w.spec.Name, at.Ledger.PreviousVersion)
		if errors.Is(err, rotation.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
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

// leadsOn reports whether the version before this one is of interest. Behind a closed
// version only a PAT that is still alive is: its revocation failed while that of its
// successor did not.
func (w *work) leadsOn(l rotation.Ledger) bool {
	if l.PreviousVersion == "" {
		return false
	}
	if len(rotation.Orphans(w.spec, w.seen)) > 0 {
		return true
	}
	if l.Previous == "" {
		return false
	}
	recent := l.RevokedAt.IsZero() && l.RevokePreviousAt.After(w.Now().Add(-rotation.SettleWindow))
	return recent || w.seen.Lists(l.Previous)
}
