package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// proofPauses lie between attempts to use a PAT: a new one is normally known at once, and
// rarely takes seconds; ten in all.
var proofPauses = [...]time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
	3 * time.Second, 3250 * time.Millisecond}

// rotate makes the replacement: create, prove, store. What follows (announce, wait,
// revoke) is decided anew from what has been stored.
func (w *work) rotate(ctx context.Context, d rotation.Decision) (step rotation.Step, err error) {
	var from rotation.Version
	if w.seen.Current != nil {
		from = *w.seen.Current
	}
	defer func() { w.Observer.Rotated(ctx, &w.spec, d.Reason, err) }()
	if !w.hasOrder() {
		w.recall(ctx)
		refused := w.refusals.of(w.spec, w.Now())
		if refused != nil {
			return rotation.StepStore, refused
		}
	}
	foreign, err := w.room(ctx, d, from)
	if err != nil {
		return rotation.StepCreate, err
	}
	issued, step, err := w.proven(ctx, from)
	if err != nil {
		return step, err
	}
	// Past the deadline another invocation may be at work on this PAT.
	err = ctx.Err()
	if err == nil {
		err = w.unchanged(ctx, from.ID)
	}
	if err != nil {
		w.discard(ctx, issued.PAT)
		return rotation.StepStore, err
	}
	// If the process ends here, a PAT exists that no version knows: its display name
	// carries the rotation id, and the sweep collects it.
	storing, done := w.Observer.Step(ctx, &w.spec, rotation.StepStore)
	stored, err := w.Vault.Store(storing, w.spec.Name, rotation.Content{Value: issued.Token, Expires: issued.ValidTo,
		Ledger: w.ledger(d, issued, from), Foreign: foreign})
	done(err)
	if err != nil {
		return rotation.StepStore, w.lostStore(ctx, issued.PAT, err)
	}
	w.refusals.remove(w.spec.Name)
	// If the process ends here, readers have the new PAT, and everything that is left
	// to do follows from the version's tags.
	if from.Ledger.AuthorizationID != "" {
		w.seen.Replaced = slices.Insert(w.seen.Replaced, 0, from)
	}
	w.readAt = w.Now()
	w.seen.Current, w.seen.Order = &stored, rotation.Order{}
	w.seen.Gone, w.seen.Refused = false, false
	w.seen.PATs = append(w.seen.PATs, issued.PAT)
	if rotation.Clamped(w.spec, issued.ValidFrom, issued.ValidTo) {
		w.log.WarnContext(ctx, "a policy gave the PAT a shorter life than the manifest asks for",
			"asked", w.spec.Lifetime, "got", issued.ValidTo.Sub(issued.ValidFrom))
	}
	return "", nil
}

// room gives the tags of others that the next version can carry. If they leave no room
// for the ledger in all its life, that is found out before anything is created; only
// when the PAT is about to end, or is leaked, those that do not fit are left behind.
func (w *work) room(ctx context.Context, d rotation.Decision, from rotation.Version) (map[string]string, error) {
	var names []string
	for name := range from.Foreign {
		if !rotation.IsOwn(name) {
			names = append(names, name)
		}
	}
	room := rotation.RoomForOthers(w.spec)
	if len(names) <= room {
		return from.Foreign, nil
	}
	slices.Sort(names)
	tooMuch := names[room:]
	end, known := w.end()
	isUrgent := known && end.Sub(w.Now()) < w.spec.Overlap+w.interval() || d.RevokePrevious == rotation.Now
	if !isUrgent {
		return nil, &rotation.Error{Class: rotation.Configuration, Code: rotation.TagsFull, Message: fmt.Sprintf(
			"the secret has %d tags of others, and there is room for %d beside patrol's: "+
				"take %s off its latest version",
			len(names), room, strings.Join(tooMuch, ", "))}
	}
	w.log.WarnContext(ctx, "the secret has too many tags of others; the next version goes without some of them",
		"left", strings.Join(tooMuch, ", "))
	kept := maps.Clone(from.Foreign)
	for _, name := range tooMuch {
		delete(kept, name)
	}
	return kept, nil
}

// proven creates a PAT in the place of a version's and proves that it works. One that
// does not is ended.
func (w *work) proven(ctx context.Context, from rotation.Version) (rotation.IssuedPAT, rotation.Step, error) {
	id := rotation.RotationID(w.spec.Name, from.ID)
	creating, created := w.Observer.Step(ctx, &w.spec, rotation.StepCreate)
	issued, err := w.Tokens.Create(creating, w.spec.Owner(), rotation.PATRequest{
		DisplayName: rotation.DisplayName(w.spec.DisplayName, w.VaultTag, id),
		Scopes:      w.spec.Scopes,
		ValidTo:     w.Now().Add(w.spec.Lifetime),
	})
	created(err)
	if err != nil {
		if rotation.ClassOf(err) == rotation.Ambiguous {
			// The PAT may exist: the next observation must not rest on an older list.
			w.lists.expire(w.spec.Owner())
		}
		return rotation.IssuedPAT{}, rotation.StepCreate, err
	}
	w.lists.addCreated(w.spec.Owner(), issued.PAT)
	w.throttles.countRotation(w.spec.Identity, w.Now())
	err = w.acceptable(issued)
	if err != nil {
		w.discard(ctx, issued.PAT)
		return rotation.IssuedPAT{}, rotation.StepCreate, err
	}
	err = w.prove(ctx, issued.Token)
	if err != nil {
		w.discard(ctx, issued.PAT)
		return rotation.IssuedPAT{}, rotation.StepProve, err
	}
	return issued, "", nil
}

// ledger is what is written beside a new PAT that replaces a version's. The order that
// it carries out goes with the replaced version; its operation stays, as done.
func (w *work) ledger(d rotation.Decision, issued rotation.IssuedPAT, from rotation.Version) rotation.Ledger {
	l := rotation.Ledger{
		AuthorizationID: issued.AuthorizationID,
		ProviderAddress: w.seen.ProviderAddress,
		ValidityDays:    rotation.WholeDays(issued.ValidTo.Sub(issued.ValidFrom)),
		RotationID:      rotation.RotationID(w.spec.Name, from.ID),
		Identity:        w.spec.Identity,
		Reason:          d.Reason,
		Facts: rotation.Facts{
			Digest: rotation.Digest(issued.Token), Owner: w.Identities.User(w.spec.Identity)},
	}
	l.RequestedBy, l.Operation = w.origin()
	if w.seen.Order.Stands() {
		l.Facts.Done = w.seen.Order.Operation
	}
	if from.Ledger.AuthorizationID == "" {
		return l
	}
	l.Previous, l.PreviousVersion = from.Ledger.AuthorizationID, from.ID
	l.Facts.Previous = rotation.ShortID(from.Ledger.AuthorizationID)
	// The overlap counts from now by the later of two clocks: ours may be slow.
	now := w.Now()
	if issued.ValidFrom.After(now) && issued.ValidFrom.Before(now.Add(5*rotation.ClockSkew)) {
		now = issued.ValidFrom
	}
	if d.RevokePrevious == rotation.Now {
		l.RevokePreviousAt, l.Facts.PreviousEnds = now, rotation.EndsNow
		return l
	}
	l.RevokePreviousAt = now.Add(w.spec.Overlap + rotation.StoreSlack)
	l.Facts.PreviousEnds = rotation.EndsAfterOverlap
	if end, known := w.end(); known && end.Before(l.RevokePreviousAt) {
		l.RevokePreviousAt, l.Facts.PreviousEnds = end, rotation.EndsByItself
	}
	l.Confirmed = w.firstConfirmed(l.RevokePreviousAt)
	return l
}

// firstConfirmed is the tag that fixes until when missing confirmations may hold the
// replaced PAT back: a later edit of the manifest does not move it.
func (w *work) firstConfirmed(overlapEnds time.Time) string {
	if w.spec.SwitchOver == nil {
		return ""
	}
	own, _ := w.end()
	return rotation.Confirmed{Bound: w.spec.SwitchOver.Bound(overlapEnds, own)}.String()
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
		return &rotation.Error{Class: rotation.Transient, Code: rotation.Overtaken,
			Message: "another instance has rotated the PAT meanwhile"}
	}
	return nil
}

// acceptable checks the answer to a creation: the server's answer is the truth.
func (w *work) acceptable(p rotation.IssuedPAT) error {
	hasNoLife := !p.ValidTo.After(w.Now().Add(rotation.ClockSkew))
	switch {
	case p.Token.Empty():
		return &rotation.Error{Class: rotation.Policy, Code: rotation.NoToken,
			Message: "Azure DevOps answered without a token"}
	case hasNoLife && w.spec.Lifetime > rotation.ClockSkew:
		return &rotation.Error{Class: rotation.Policy, Code: rotation.NoLife,
			Message: "Azure DevOps gave the PAT no life: it ends at " + p.ValidTo.UTC().Format(time.RFC3339)}
	case !slices.Equal(p.Scopes, w.spec.Scopes):
		return &rotation.Error{Class: rotation.Policy, Code: rotation.OtherScopes,
			Message: fmt.Sprintf("Azure DevOps gave the PAT other scopes (%v) than the manifest asks for (%v): "+
				"write the scopes that it gives into the manifest", p.Scopes, w.spec.Scopes)}
	}
	return nil
}

// prove uses a new PAT: it must be accepted, and as the user whose PATs this process has
// made for this identity before.
func (w *work) prove(ctx context.Context, token rotation.Secret) error {
	bearer, err := w.bearerOf(ctx, token)
	if err != nil {
		return err
	}
	signedInAs := w.Identities.User(w.spec.Identity)
	if w.bearers.agrees(w.spec.Identity, signedInAs, bearer) {
		return nil
	}
	return &rotation.Error{Class: rotation.Policy, Code: rotation.OtherBearer,
		Message: "the new PAT belongs to another user than the PATs before it: see who is signed in as this identity"}
}

// bearerOf uses a PAT and says whose it is. What is not yet known in an organization
// may be in some seconds.
func (w *work) bearerOf(ctx context.Context, token rotation.Secret) (bearer string, err error) {
	ctx, done := w.Observer.Step(ctx, &w.spec, rotation.StepProve)
	defer func() { done(err) }()
	for i := 0; ; i++ {
		bearer, err = w.Tokens.Prove(ctx, w.spec.Owner(), token.Trimmed())
		if err == nil || i == len(proofPauses) || !isNotYetKnown(err) {
			return bearer, err
		}
		waited := w.Wait(ctx, proofPauses[i])
		if waited != nil {
			return "", waited
		}
	}
}

// isNotYetKnown reports whether a new PAT's refusal may pass: a public organization takes
// an unknown one for nobody's.
func isNotYetKnown(err error) bool {
	e := rotation.AsError(err)
	isAnonymous := e != nil && e.Code == rotation.Anonymous
	return isAnonymous || rotation.ClassOf(err) == rotation.Transient
}

// lostStore handles a failed store. A refusal has stored nothing, and the new PAT
// is ended at once. After anything else the version may exist, now or in a moment:
// then the PAT must live, and the sweep collects it if it is not stored.
func (w *work) lostStore(ctx context.Context, p rotation.PAT, err error) error {
	switch rotation.ClassOf(err) {
	case rotation.Configuration, rotation.Policy:
		end, _ := w.end()
		if w.passesWithAge(ctx, classified(err)) {
			end = w.Now() // soon again
		}
		w.refusals.add(w.spec, classified(err), end, w.Now())
		w.discard(ctx, p)
	}
	return err
}

// discard ends a PAT that this work has made and will not store. If that fails, the
// sweep collects it later.
func (w *work) discard(ctx context.Context, p rotation.PAT) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	err := w.Tokens.Revoke(ctx, w.spec.Owner(), p.AuthorizationID)
	if err != nil {
		w.log.WarnContext(ctx, "a PAT that is not used could not be revoked; a sweep will collect it",
			"authorizationId", p.AuthorizationID, "class", string(rotation.ClassOf(err)))
		return
	}
	w.lists.removeRevoked(w.spec.Owner(), p.AuthorizationID)
}
