package reconcile

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Order writes a person's order onto the version whose PAT it is about, and then sends
// the command that carries it out. From the write on the order stands: it is carried out
// by that command, or by any later check of the PAT. If only the write fails, the command
// carries the order alone.
func (a *Actions) Order(ctx context.Context, c rotation.Command, current *rotation.Version) error {
	if current != nil {
		a.keep(ctx, c, *current)
	}
	return a.Outbox.Send(ctx, c)
}

func (a *Actions) keep(ctx context.Context, c rotation.Command, v rotation.Version) {
	facts := &v.Ledger.Facts
	asked := rotation.NewOrder(c.RevokePrevious, a.Now(), c.Operation, c.RequestedBy)
	stronger := facts.Order.Stronger(asked)
	if stronger == facts.Order {
		return // it stands already
	}
	facts.Order = stronger
	if facts.Digest == "" && !v.Value.Empty() {
		facts.Digest = rotation.Digest(v.Value)
	}
	v.Value = rotation.Secret{}
	_, err := a.Vault.Update(ctx, v)
	if err != nil {
		a.Log.WarnContext(ctx, "an order could not be written onto its version; the command carries it",
			"pat", c.PAT, "operation", c.Operation, "class", string(rotation.ClassOf(err)))
	}
}

// Overlap is an overlap that is under way.
type Overlap struct {
	Spec            rotation.Spec
	AuthorizationID string    // of the replaced PAT
	Version         string    // that holds it
	Until           time.Time // when it ends now
}

// SetOverlap lengthens the overlap that is under way. It never shortens one: whoever
// wants that orders a rotation with revokePrevious "now". A repeat changes nothing.
func (a *Actions) SetOverlap(ctx context.Context, name string, until time.Time) (Overlap, error) {
	s, current, previous, err := a.overlap(ctx, name)
	if err != nil {
		return Overlap{}, err
	}
	until = until.UTC().Truncate(time.Second)
	refuse := func(code, message string) (Overlap, error) {
		return Overlap{}, &Refusal{Code: code, PAT: s.Name, Managed: true, Message: message}
	}
	ends := rotation.RevocationTime(s, current)
	switch {
	case until.Before(ends.Truncate(time.Second)):
		return refuse(BadEnd, "the overlap lasts until "+ends.UTC().Format(time.RFC3339)+" as it is: give a later time")
	case !previous.Expires.IsZero() && until.After(previous.Expires):
		return refuse(BadEnd, "the replaced PAT ends by itself at "+previous.Expires.UTC().Format(time.RFC3339)+
			": the overlap cannot last longer")
	}
	current.Value = rotation.Secret{}
	current.Ledger.RevokePreviousAt = until
	// If the process ends before the command is sent, the command of the earlier time
	// finds the later one and sends it.
	isRepeat := until.Equal(ends.Truncate(time.Second))
	if !isRepeat {
		_, err = a.Vault.Update(ctx, current)
	}
	if err != nil {
		return Overlap{}, err
	}
	w := work{Reconciler: a.Reconciler, spec: s}
	err = a.Outbox.Send(ctx, w.check("overlap", until.Unix(), until))
	if err != nil {
		return Overlap{}, err
	}
	return Overlap{Spec: s, AuthorizationID: previous.Ledger.AuthorizationID, Version: previous.ID, Until: until}, nil
}

// overlap reads the current version and the one before it, whose PAT is in its overlap.
func (a *Actions) overlap(ctx context.Context, name string) (s rotation.Spec, current, previous rotation.Version,
	err error) {
	s, ok := a.Spec(name)
	if !ok {
		return s, current, previous, &Refusal{Code: UnknownPAT, Message: "the manifest has no PAT of this name"}
	}
	current, err = a.Vault.Current(ctx, s.Name)
	if errors.Is(err, rotation.ErrNotFound) {
		return s, current, previous, &Refusal{Code: NotProvisioned, PAT: s.Name, Managed: true,
			Message: "there is no PAT yet"}
	}
	if err != nil {
		return s, current, previous, err
	}
	nothing := &Refusal{Code: NothingReplaced, PAT: s.Name, Managed: true,
		Message: "no replaced PAT is in its overlap"}
	l := current.Ledger
	if l.PreviousVersion == "" {
		return s, current, previous, nothing
	}
	if l.Facts.PreviousEnds == rotation.EndsNow {
		return s, current, previous, &Refusal{Code: OrderedToEnd, PAT: s.Name, Managed: true,
			Message: "somebody ordered that the replaced PAT ends at once"}
	}
	previous, err = a.Vault.Value(ctx, s.Name, l.PreviousVersion)
	if errors.Is(err, rotation.ErrNotFound) {
		return s, current, previous, nothing
	}
	if err != nil {
		return s, current, previous, err
	}
	hasRunOut := !previous.Expires.IsZero() && !previous.Expires.After(a.Now())
	if hasRunOut || !previous.Enabled || !previous.Ledger.RevokedAt.IsZero() {
		return s, current, previous, nothing
	}
	return s, current, previous, nil
}

// Restored is a PAT that is current again.
type Restored struct {
	Spec            rotation.Spec
	AuthorizationID string
	Version         string // the new version that holds it
	ReplacedUntil   time.Time
}

// Restore makes the PAT before the current one current again, while it lives: readers
// get it by a new version, and the PAT that was current ends after an overlap. It is
// refused once somebody has ordered that the earlier PAT ends at once.
func (a *Actions) Restore(ctx context.Context, name, by, operation string) (Restored, error) {
	s, ok := a.Spec(name)
	if !ok {
		return Restored{}, &Refusal{Code: UnknownPAT, Message: "the manifest has no PAT of this name"}
	}
	leave, err := a.turns.take(ctx, s.Name) // no rotation of this process in between
	if err != nil {
		return Restored{}, err
	}
	defer leave()
	s, current, previous, err := a.overlap(ctx, name)
	if err != nil {
		return Restored{}, err
	}
	gone := &Refusal{Code: Gone, PAT: s.Name, Managed: true,
		Message: "Azure DevOps has no such active PAT any more: the earlier one cannot be restored"}
	if previous.Value.Empty() {
		return Restored{}, gone
	}
	pats, err := a.lists.list(ctx, s.Owner(), a.Now())
	if err != nil {
		return Restored{}, err
	}
	pat, listed := pats.find(previous.Ledger.AuthorizationID)
	if !listed {
		return Restored{}, gone
	}
	now := a.Now()
	l := rotation.Ledger{
		AuthorizationID: pat.AuthorizationID, ProviderAddress: previous.Ledger.ProviderAddress,
		ValidityDays: previous.Ledger.ValidityDays, RotationID: rotation.RotationID(s.Name, current.ID),
		Identity: previous.Ledger.Identity, Reason: rotation.Requested,
		Previous: current.Ledger.AuthorizationID, PreviousVersion: current.ID,
		RevokePreviousAt: now.Add(s.Overlap + rotation.StoreSlack), RequestedBy: by, Operation: operation,
		Facts: rotation.Facts{Digest: rotation.Digest(previous.Value), Owner: previous.Ledger.Facts.Owner,
			Previous: rotation.ShortID(current.Ledger.AuthorizationID), PreviousEnds: rotation.EndsAfterOverlap,
			Done: rotation.ShortOperation(operation)},
	}
	if s.SwitchOver != nil {
		l.Confirmed = rotation.Confirmed{Bound: s.SwitchOver.Bound(l.RevokePreviousAt, current.Expires)}.String()
	}
	stored, err := a.Vault.Store(ctx, s.Name, rotation.Content{Value: previous.Value, Expires: pat.ValidTo, Ledger: l,
		Foreign: current.Foreign})
	if err != nil {
		return Restored{}, err
	}
	// From here on readers have the earlier PAT. The check announces it; if the process
	// ends before it is sent, the next sweep does.
	w := work{Reconciler: a.Reconciler, spec: s}
	err = a.Outbox.Send(ctx, w.check("restored", stored.ID, time.Time{}))
	if err != nil {
		return Restored{}, err
	}
	return Restored{Spec: s, AuthorizationID: strings.ToLower(pat.AuthorizationID), Version: stored.ID,
		ReplacedUntil: l.RevokePreviousAt}, nil
}
