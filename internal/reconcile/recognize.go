package reconcile

import (
	"context"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// recognize finds out which PAT the current version holds if somebody has taken its
// ledger, or the part that names the PAT, off it: by an older version with the same
// value, or by the PAT whose mark follows from the version before. A value that has
// not the form of a PAT is none.
func (w *work) recognize(ctx context.Context) error {
	c := w.seen.Current
	if c == nil || !c.Enabled || c.Value.Empty() {
		return nil
	}
	if c.Ledger.Ours() && c.Ledger.AuthorizationID != "" {
		return nil
	}
	if !c.Value.HasPATForm() {
		w.seen.NotAPAT = !c.Ledger.Ours()
		return nil
	}
	versions, err := w.Vault.Versions(ctx, w.spec.Name)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(versions, func(v rotation.Version) bool { return v.ID == c.ID })
	if at < 0 {
		return nil // somebody has stored another one meanwhile
	}
	older := versions[at+1:]
	w.seen.Unlike = unlike(*c, versions)
	l := w.byValue(*c, older)
	if l == nil {
		l = w.byMark(*c, older)
	}
	w.seen.Recognized = l
	if l != nil {
		w.take(w.listed)
		w.seen.PATs = append(w.seen.PATs, w.listedPAT(l.AuthorizationID)...)
	}
	return nil
}

// unlike are the PATs that versions hold beside other values. All versions count: two of
// one second may be listed either way round.
func unlike(c rotation.Version, versions []rotation.Version) map[string]bool {
	digest := rotation.Digest(c.Value)
	out := map[string]bool{}
	for _, v := range versions {
		if l := v.Ledger; v.ID != c.ID && l.Facts.Digest != "" && l.Facts.Digest != digest {
			out[strings.ToLower(l.AuthorizationID)] = true
		}
	}
	return out
}

// listedPAT is a PAT of the list as a slice of one, or none.
func (w *work) listedPAT(authorizationID string) []rotation.PAT {
	p, ok := w.listed.find(authorizationID)
	if !ok || w.seen.Lists(authorizationID) {
		return nil
	}
	return []rotation.PAT{p}
}

// byValue finds an older version with the same value whose PAT is alive: somebody has put
// the value again.
func (w *work) byValue(c rotation.Version, older []rotation.Version) *rotation.Ledger {
	digest := rotation.Digest(c.Value)
	i := slices.IndexFunc(older, func(v rotation.Version) bool { return v.Ledger.Facts.Digest == digest })
	if i < 0 {
		return nil
	}
	found := older[i].Ledger
	_, alive := w.listed.find(found.AuthorizationID)
	if !alive || !found.RevokedAt.IsZero() {
		return nil
	}
	if i == 0 {
		return &found // the version before holds the same PAT: two versions of one
	}
	l := w.successorOf(c, older[0])
	l.AuthorizationID, l.ProviderAddress, l.Identity = found.AuthorizationID, found.ProviderAddress, found.Identity
	l.ValidityDays, l.Facts.Owner = found.ValidityDays, found.Facts.Owner
	return &l
}

// byMark finds the PAT that a rotation has made in the place of the version before: its
// display name carries the rotation's id.
func (w *work) byMark(c rotation.Version, older []rotation.Version) *rotation.Ledger {
	before := rotation.Version{}
	if len(older) > 0 {
		before = older[0]
	}
	id := c.Ledger.RotationID
	if id == "" {
		id = rotation.RotationID(w.spec.Name, before.ID)
	}
	var found []rotation.PAT
	w.listed.each(func(p rotation.PAT) {
		_, tag, made, marked := rotation.ParseDisplayName(p.DisplayName)
		isUnlike := w.seen.Unlike[strings.ToLower(p.AuthorizationID)]
		isMarked := marked && tag == w.VaultTag && made == id
		if isMarked && !isUnlike {
			found = append(found, p)
		}
	})
	if len(found) != 1 {
		return nil
	}
	if c.Ledger.Ours() {
		l := c.Ledger // only what names the PAT was taken off
		l.AuthorizationID = found[0].AuthorizationID
		return &l
	}
	l := w.successorOf(c, before)
	l.AuthorizationID, l.ProviderAddress, l.Identity = found[0].AuthorizationID, w.seen.ProviderAddress, w.spec.Identity
	l.ValidityDays = rotation.WholeDays(found[0].ValidTo.Sub(found[0].ValidFrom))
	l.Facts.Owner = w.Identities.User(w.spec.Identity)
	return &l
}

// successorOf is the ledger of a version that has taken the place of another one.
func (w *work) successorOf(c, before rotation.Version) rotation.Ledger {
	l := rotation.Ledger{RotationID: rotation.RotationID(w.spec.Name, before.ID), Reason: w.reasonOf(c, before),
		Facts: rotation.Facts{Digest: rotation.Digest(c.Value)}}
	if before.ID == "" {
		return l
	}
	l.PreviousVersion = before.ID
	if before.Ledger.AuthorizationID == "" {
		return l
	}
	l.Previous = before.Ledger.AuthorizationID
	l.Facts.Previous = rotation.ShortID(l.Previous)
	l.Facts.PreviousEnds = rotation.EndsAfterOverlap
	l.RevokePreviousAt = c.Created.Add(w.spec.Overlap + rotation.StoreSlack)
	return l
}

// reasonOf is why a version has taken the place of another one, as far as the one before
// tells: nobody may say that somebody asked for it who did not.
func (w *work) reasonOf(c, before rotation.Version) rotation.Reason {
	order := before.Ledger.Facts.Order
	isDue := !before.Expires.IsZero() && !c.Created.Before(rotation.Due(w.spec, before.Created, before.Expires))
	switch {
	case before.ID == "":
		return rotation.Provision
	case order.RevokePrevious == rotation.Now:
		return rotation.Compromised
	case order.Stands():
		return rotation.Requested
	case isDue:
		return rotation.Expiring
	}
	return rotation.Drift
}

// writeLedger writes a recognized ledger, or the new names of an owner, onto the current
// version.
func (w *work) writeLedger(ctx context.Context, l rotation.Ledger) error {
	c := *w.seen.Current
	value := c.Value
	if l.Facts.Digest == "" {
		l.Facts.Digest = rotation.Digest(value)
	}
	c.Ledger, c.Value = l, rotation.Secret{}
	updated, err := w.Vault.Update(ctx, c)
	if err != nil {
		return err
	}
	updated.Value = value
	w.seen.Current, w.seen.Recognized = &updated, nil
	// What it replaced may have an overlap under way.
	w.seen.Replaced = nil
	return w.followOrders(ctx)
}

// relabeled is the current ledger under today's names of its owner.
func (w *work) relabeled() rotation.Ledger {
	l := w.seen.Current.Ledger
	l.Identity, l.ProviderAddress = w.spec.Identity, w.seen.ProviderAddress
	if l.Facts.Owner == "" {
		l.Facts.Owner = w.Identities.User(w.spec.Identity)
	}
	return l
}

// isForeign reports whether a PAT bears the mark of another deployment: its vault's
// patrol ends it.
func (w *work) isForeign(authorizationID string) bool {
	p, listed := w.seen.Find(authorizationID)
	if !listed {
		return false
	}
	_, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	return marked && !strings.EqualFold(tag, w.VaultTag)
}
