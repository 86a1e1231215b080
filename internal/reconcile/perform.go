package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// proofs are the pauses between attempts to use a new PAT: it is normally known at
// once, and rarely takes seconds.
var proofs = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// rotate makes the replacement: create, prove, store. What follows (announce, wait,
// revoke) is decided anew from what has been stored.
func (w *work) rotate(ctx context.Context, d rotation.Decision) (step string, err error) {
	var from rotation.Version
	if w.seen.Current != nil {
		from = *w.seen.Current
	}
	id := rotation.RotationID(w.spec.Name, from.ID)
	defer func() { w.Observer.Rotated(ctx, &w.spec, d.Reason, err) }()
	creating, created := w.Observer.Step(ctx, &w.spec, "create")
	issued, err := w.Tokens.Create(creating, w.spec.Owner(), rotation.PATRequest{
		DisplayName: rotation.DisplayName(w.spec.DisplayName, w.VaultTag, id),
		Scopes:      w.spec.Scopes,
		ValidTo:     w.Now().Add(w.spec.Lifetime),
	})
	created(err)
	if err != nil {
		if rotation.ClassOf(err) == rotation.Ambiguous {
			// The PAT may exist: the next look must not rest on an older list.
			w.lists.expire(w.spec.Owner())
		}
		return "create", err
	}
	w.lists.addCreated(w.spec.Owner(), issued.PAT)
	w.countRotation(w.spec.Identity)

	if err := w.acceptable(issued); err != nil {
		w.discard(ctx, issued.PAT)
		return "create", err
	}
	if err := w.prove(ctx, issued.Token); err != nil {
		w.discard(ctx, issued.PAT)
		return "prove", err
	}
	// Past the deadline another invocation may be at work on this PAT.
	if err := ctx.Err(); err != nil {
		w.discard(ctx, issued.PAT)
		return "store", err
	}

	if err := w.unchanged(ctx, from.ID); err != nil {
		w.discard(ctx, issued.PAT)
		return "store", err
	}

	// The overlap counts from now by the later of two clocks: ours may be slow.
	now := w.Now()
	if issued.ValidFrom.After(now) && issued.ValidFrom.Before(now.Add(5*rotation.ClockSkew)) {
		now = issued.ValidFrom
	}
	l := rotation.Ledger{
		AuthorizationID: issued.AuthorizationID,
		ProviderAddress: w.seen.ProviderAddress,
		ValidityDays:    rotation.WholeDays(issued.ValidTo.Sub(issued.ValidFrom)),
		RotationID:      id,
		Identity:        w.spec.Identity,
		Reason:          d.Reason,
	}
	l.RequestedBy, l.Operation = w.order.Origin()
	if from.Ledger.AuthorizationID != "" {
		l.Previous, l.PreviousVersion = from.Ledger.AuthorizationID, from.ID
		l.RevokePreviousAt = now
		if d.RevokePrevious != rotation.Now {
			l.RevokePreviousAt = now.Add(w.spec.Overlap + rotation.StoreSlack)
			if !from.Expires.IsZero() && from.Expires.Before(l.RevokePreviousAt) {
				l.RevokePreviousAt = from.Expires
			}
		}
	}
	storing, done := w.Observer.Step(ctx, &w.spec, "store")
	stored, err := w.Vault.Store(storing, w.spec.Name, rotation.Content{Value: issued.Token, Expires: issued.ValidTo,
		Ledger: l, Foreign: from.Foreign})
	done(err)
	if err != nil {
		return "store", w.lostStore(ctx, issued.PAT, err)
	}
	if from.Ledger.AuthorizationID != "" {
		w.seen.Replaced = slices.Insert(w.seen.Replaced, 0, from)
	}
	w.readAt = w.Now()
	w.seen.Current = &stored
	w.seen.PATs = append(w.seen.PATs, issued.PAT)
	if rotation.Clamped(w.spec, issued.ValidFrom, issued.ValidTo) {
		w.log.WarnContext(ctx, "a policy gave the PAT a shorter life than the manifest asks for",
			"asked", w.spec.Lifetime, "got", issued.ValidTo.Sub(issued.ValidFrom))
	}
	return "", nil
}

// slowRotation is how long a rotation may take from the read of the secret to its store
// before the secret is read once more.
const slowRotation = 500 * time.Millisecond

// unchanged makes sure, in a rotation that took long, that nobody else has stored a
// version meanwhile: the vault has no compare-and-swap, and a session's lock can be
// lost. What is left of the race is the time of one call.
func (w *work) unchanged(ctx context.Context, version string) error {
	if w.Now().Sub(w.readAt) < slowRotation {
		return nil
	}
	v, err := w.Vault.Current(ctx, w.spec.Name)
	if err != nil && !errors.Is(err, rotation.ErrNotFound) {
		return err
	}
	if v.ID != version {
		return &rotation.Error{Class: rotation.Transient, Code: "overtaken",
			Message: "another instance has rotated the PAT meanwhile"}
	}
	return nil
}

// acceptable looks at the answer to a creation: the server's answer is the truth.
func (w *work) acceptable(p rotation.IssuedPAT) error {
	switch {
	case p.Token.Empty():
		return &rotation.Error{Class: rotation.Policy, Code: "no-token",
			Message: "Azure DevOps answered without a token"}
	case !p.ValidTo.After(w.Now().Add(rotation.ClockSkew)) && w.spec.Lifetime > rotation.ClockSkew:
		return &rotation.Error{Class: rotation.Policy, Code: "no-life",
			Message: "Azure DevOps gave the PAT no life: it ends at " + p.ValidTo.UTC().Format(time.RFC3339)}
	case !slices.Equal(p.Scopes, w.spec.Scopes):
		return &rotation.Error{Class: rotation.Policy, Code: "other-scopes", Message: fmt.Sprintf(
			"Azure DevOps gave the PAT other scopes (%v) than the manifest asks for (%v): write the scopes that it gives into the manifest", p.Scopes, w.spec.Scopes)}
	}
	return nil
}

// prove uses the new PAT: it must be accepted, and as the identity whose PATs this
// process has proved before.
func (w *work) prove(ctx context.Context, token rotation.Secret) (err error) {
	ctx, done := w.Observer.Step(ctx, &w.spec, "prove")
	defer func() { done(err) }()
	for i := 0; ; i++ {
		bearer, err := w.Tokens.Prove(ctx, w.spec.Owner(), token)
		if err == nil {
			return w.sameBearer(bearer)
		}
		if i == len(proofs) || rotation.ClassOf(err) != rotation.Transient {
			return err
		}
		if err := w.Wait(ctx, proofs[i]); err != nil {
			return err
		}
	}
}

func (w *work) sameBearer(bearer string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	known, ok := w.bearers[w.spec.Owner()]
	if ok && known != bearer {
		return &rotation.Error{Class: rotation.Policy, Code: "other-bearer",
			Message: "the new PAT belongs to another user than the PATs before it: see who is signed in as this identity"}
	}
	w.bearers[w.spec.Owner()] = bearer
	return nil
}

// lostStore handles a failed store. A refusal has stored nothing, and the new PAT
// is ended at once. After anything else the version may exist, now or in a moment:
// then the PAT must live, and the orphan rule will find it if it is not stored.
func (w *work) lostStore(ctx context.Context, p rotation.PAT, err error) error {
	switch rotation.ClassOf(err) {
	case rotation.Configuration, rotation.Policy:
		w.discard(ctx, p)
		return err
	}
	// Look again soon after the PAT would be an orphan.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	at := w.Now().Add(rotation.OrphanAge + rotation.ClockSkew)
	look := rotation.Command{PAT: w.spec.Name, Reason: rotation.Check, Operation: "orphan-" + p.AuthorizationID, At: at}
	if serr := w.Outbox.Send(after, look); serr != nil {
		w.log.WarnContext(ctx, "a look for a possible orphan could not be scheduled; the next sweep finds it",
			"authorizationId", p.AuthorizationID)
	}
	return err
}

// discard ends a PAT that will not be stored. If that fails, the orphan rule finds
// it later.
func (w *work) discard(ctx context.Context, p rotation.PAT) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	if err := w.Tokens.Revoke(ctx, w.spec.Owner(), p.AuthorizationID); err != nil {
		w.log.WarnContext(ctx, "a PAT that is not used could not be revoked; it will be found as an orphan",
			"authorizationId", p.AuthorizationID, "class", string(rotation.ClassOf(err)))
		w.seen.PATs = append(w.seen.PATs, p)
		return
	}
	w.lists.removeRevoked(w.spec.Owner(), p.AuthorizationID)
}

// announce publishes the event and schedules the revocation, and then notes on the
// version that both were done: whatever comes before that note is done again after a
// crash, with the same ids.
func (w *work) announce(ctx context.Context) error {
	c := *w.seen.Current
	ev := &rotation.Rotated{
		Spec: w.spec, RotationID: c.Ledger.RotationID, Reason: c.Ledger.Reason,
		SecretID: c.URL, SecretVersion: c.ID, AuthorizationID: c.Ledger.AuthorizationID,
		ValidFrom: c.Created, ValidTo: c.Expires, At: w.Now(),
	}
	if p, ok := w.seen.Find(c.Ledger.AuthorizationID); ok {
		ev.ValidFrom = p.ValidFrom
	}
	sends := []func() error{func() error { return w.Outbox.Publish(ctx, ev) }}
	if c.Ledger.Previous != "" {
		at := c.Ledger.RevokePreviousAt
		ev.Previous = &rotation.Replaced{Version: c.Ledger.PreviousVersion, AuthorizationID: c.Ledger.Previous,
			RevokeAt: at}
		if at.After(w.Now()) {
			sends = append(sends, func() error {
				return w.Outbox.Send(ctx, rotation.Command{PAT: w.spec.Name, Reason: rotation.Check,
					Operation: "revocation-" + c.Ledger.RotationID, At: at})
			})
		}
	}
	if err := together(sends); err != nil {
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

// abreast is how many sends are under way at once.
const maxParallel = 16

// together runs the sends side by side and joins their errors.
func together(fs []func() error) error {
	errs := make([]error, len(fs))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, f := range fs {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = f()
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// adopt takes a secret over that somebody put there by hand, if its value works. One
// that does not is replaced at once.
func (w *work) adopt(ctx context.Context, p rotation.PAT) error {
	c := *w.seen.Current
	if !c.Enabled {
		return w.replaceByHand(ctx, "the secret is disabled")
	}
	if err := w.prove(ctx, c.Value); err != nil {
		if e, ok := errors.AsType[*rotation.Error](err); ok && e.Code == rotation.TokenRefused {
			return w.replaceByHand(ctx, "Azure DevOps refuses the value that was put there")
		}
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
	if w.order.From == "" && (w.order.Reason == rotation.Requested || w.order.Reason == rotation.Compromised) {
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

// revoke ends a replaced PAT, tells of it, and closes its version. The note on the
// version comes last, so that a crash repeats the event instead of losing it.
func (w *work) revoke(ctx context.Context, d rotation.Decision) error {
	v := *d.Version
	id := v.Ledger.AuthorizationID
	if d.Cause != rotation.Expired {
		if err := w.Tokens.Revoke(ctx, w.ownerOf(v), id); err != nil {
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
	w.close(id)
	w.Observer.Revoked(ctx, &w.spec, d.Cause)
	if i := slices.IndexFunc(w.seen.Replaced, func(r rotation.Version) bool { return r.ID == v.ID }); i >= 0 {
		w.seen.Replaced[i] = v // closed, and still the successor of the one before it
	}
	w.forget(id)
	return nil
}

// ownerGone says so if a PAT cannot be revoked because the identity that made it,
// which the PAT has been moved away from, cannot sign in any more.
func (w *work) ownerGone(v rotation.Version, err error) error {
	e, ok := errors.AsType[*rotation.Error](err)
	was := v.Ledger.Identity
	if !ok || was == "" || was == w.spec.Identity || e.Class != rotation.SignIn && e.Code != rotation.UnknownIdentity {
		return err
	}
	return &rotation.Error{Class: rotation.Configuration, Code: "owner-gone", Err: err,
		Message: fmt.Sprintf(
			"the replaced PAT %s was made by the identity %s, which cannot sign in: let its user sign in, or let an administrator revoke the PAT (POST /api/revocations); it ends by itself at %s",
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
		return w.Outbox.Send(ctx, rotation.Command{PAT: w.spec.Name, Reason: rotation.Check, Operation: "unlinked-" +
			v.ID, At: at})
	}
	return w.revoke(ctx, rotation.Decision{Version: &v, Cause: rotation.OverlapEnded, RotationID: rotationID})
}

// forget takes a revoked PAT out of the observation.
func (w *work) forget(authorizationID string) {
	w.seen.PATs = slices.DeleteFunc(slices.Clone(w.seen.PATs),
		func(p rotation.PAT) bool { return p.AuthorizationID == authorizationID })
}

// record writes down what a reconcile has done to PATs.
func (w *work) record(ctx context.Context, d rotation.Decision, err error) {
	r := rotation.Record{Trigger: "command", Act: string(d.Action), Target: w.spec.Name, Outcome: "done"}
	r.Who, r.Activity = w.order.Origin()
	switch d.Action {
	case rotation.Rotate, rotation.Adopt, rotation.RevokeOrphan:
	case rotation.Revoke:
		if d.Cause != rotation.CauseRequested {
			r.Who = "" // its time has come: nobody asked today
		}
	default:
		return
	}
	if err != nil {
		r.Outcome = "failed"
		if e := rotation.AsError(err); e != nil {
			r.Outcome = "failed: " + e.Code
			if e.ActivityID != "" {
				r.Activity = e.ActivityID
			}
		}
	}
	r.Write(ctx, w.Log, "rule", d.Rule)
}
