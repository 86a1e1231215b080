package reconcile

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// MaxExtension is how far ahead a PAT's end may be moved: Azure DevOps gives no longer
// lives.
const MaxExtension = 365 * rotation.Day

// Extended is a PAT whose end has been moved.
type Extended struct {
	Spec            rotation.Spec
	AuthorizationID string
	Version         string
	ValidFrom       time.Time
	ValidTo         time.Time // the server's answer
	Due             time.Time
	Clamped         bool // it is less than was asked for
}

// Extend moves the end of a managed PAT; its value stays. Azure DevOps comes first and
// the vault after it: if the second fails, the secret promises less than the PAT holds,
// and a repeat repairs it. The schedule follows the list of PATs in any case.
func (a *Actions) Extend(ctx context.Context, name string, validTo time.Time, by string) (Extended, error) {
	s, ok := a.Spec(name)
	if !ok {
		return Extended{}, &Refusal{Code: UnknownPAT, Message: "the manifest has no PAT of this name"}
	}
	leave, err := a.turns.take(ctx, s.Name) // no rotation of this process in between
	if err != nil {
		return Extended{}, err
	}
	defer leave()
	v, err := a.extendable(ctx, s, validTo)
	if err != nil {
		return Extended{}, err
	}
	ended := a.endOf(ctx, s, v)
	p, err := a.Ends.Update(ctx, s.Owner(), v.Ledger.AuthorizationID, validTo)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		a.lists.expire(s.Owner())
		return Extended{}, &Refusal{Code: Gone, PAT: s.Name, Managed: true,
			Message: "Azure DevOps has no such active PAT any more: " +
				"patrol makes a new one at the next sweep, or rotate it now"}
	case err != nil:
		if refusesEnd(err) {
			return Extended{}, &Refusal{Code: ExtensionRefused, Message: err.Error(), PAT: s.Name, Managed: true}
		}
		return Extended{}, err
	}
	a.lists.addCreated(s.Owner(), p) // takes the place of what the list says
	if p.ValidTo.Before(ended.Add(-time.Minute)) {
		return Extended{}, a.shortened(ctx, s, v, p, by)
	}

	// If the process ends here, the vault's exp is earlier than the PAT's end: a repeat
	// of the call repairs it.
	// Another instance may have replaced it meanwhile: then it has its end already,
	// and must not get a later one.
	now, err := a.Vault.Current(ctx, s.Name)
	if err != nil {
		return Extended{}, err
	}
	now.Value = rotation.Secret{}
	if !strings.EqualFold(now.Ledger.AuthorizationID, v.Ledger.AuthorizationID) {
		a.takeBack(ctx, s, v)
		return Extended{}, &Refusal{Code: Overtaken, PAT: s.Name, Managed: true,
			Message: "another rotation replaced the PAT at the same moment: read its state again"}
	}
	now.Expires = p.ValidTo
	now.Ledger.ValidityDays = rotation.WholeDays(p.ValidTo.Sub(p.ValidFrom))
	now.Ledger.History = rotation.Noted(now.Ledger.History, rotation.Note{At: a.Now(), Act: rotation.NoteExtended,
		Until: p.ValidTo, By: by})
	now, err = a.Vault.Update(ctx, now)
	if err != nil {
		return Extended{}, err
	}
	return Extended{Spec: s, AuthorizationID: p.AuthorizationID, Version: now.ID,
		ValidFrom: p.ValidFrom, ValidTo: p.ValidTo, Due: rotation.Due(s, p.ValidFrom, p.ValidTo),
		Clamped: p.ValidTo.Before(validTo.Add(-time.Minute))}, nil
}

// endOf is the end of a version's PAT: Azure DevOps' list says it, else the vault.
func (a *Actions) endOf(ctx context.Context, s rotation.Spec, v rotation.Version) time.Time {
	pats, err := a.lists.recent(ctx, s.Owner(), false)
	if err != nil {
		return v.Expires
	}
	p, listed := pats.find(v.Ledger.AuthorizationID)
	if !listed {
		return v.Expires
	}
	return p.ValidTo
}

// shortened handles an extension that Azure DevOps has answered with an earlier end than
// the PAT had: under a policy that is younger than the PAT it counts from the PAT's
// creation. What is lost cannot be given back, so the PAT is replaced at once.
func (a *Actions) shortened(ctx context.Context, s rotation.Spec, v rotation.Version, p rotation.PAT, by string) error {
	// From the first effect on, this does not hang on the caller.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	order := rotation.Command{PAT: s.Name, Reason: rotation.Requested, From: v.Ledger.AuthorizationID,
		RevokePrevious: rotation.AfterOverlap, RequestedBy: by, Operation: "extension-" + v.Ledger.AuthorizationID}
	err := a.Order(ctx, order, &v)
	what := "a replacement has been ordered"
	if err != nil {
		what = "and a replacement could not be ordered: order one now"
		a.Log.ErrorContext(ctx, "a PAT whose end came out earlier could not be ordered to be replaced", "pat", s.Name,
			"class", string(rotation.ClassOf(err)))
	}
	return &Refusal{Code: ExtensionRefused, PAT: s.Name, Managed: true, Message: "a lifespan policy that is younger " +
		"than the PAT moved its end earlier, to " + p.ValidTo.UTC().Format(time.RFC3339) + "; " + what}
}

// refusesEnd reports whether a policy, or Azure DevOps by its own words, refuses an end.
func refusesEnd(err error) bool {
	e := rotation.AsError(err)
	if e == nil {
		return false
	}
	refused := e.Code == rotation.RefusedEnd || e.Code == rotation.ExpiredPAT
	return e.Class == rotation.Policy || e.Class == rotation.Configuration && refused
}

// extendable reads the current version and says whether its PAT's end can be moved.
func (a *Actions) extendable(ctx context.Context, s rotation.Spec, validTo time.Time) (rotation.Version, error) {
	refuse := func(code, message string) (rotation.Version, error) {
		return rotation.Version{}, &Refusal{Code: code, Message: message, PAT: s.Name, Managed: true}
	}
	now := a.Now()
	switch {
	case !validTo.After(now):
		return refuse(BadEnd, "the end must be in the future")
	case validTo.After(now.Add(MaxExtension)):
		return refuse(BadEnd, "the end may be 365 days ahead, no more")
	}
	v, err := a.Vault.Current(ctx, s.Name)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		return refuse(NotProvisioned, "there is no PAT yet whose end could be moved")
	case err != nil:
		return rotation.Version{}, err
	}
	v.Value = rotation.Secret{}
	l := v.Ledger
	switch {
	case !l.Ours() || l.AuthorizationID == "":
		return refuse(NotOurs, "patrol has neither made nor adopted the secret, so it does not know which PAT it holds")
	case l.Identity != s.Identity || !strings.EqualFold(l.ProviderAddress, a.ProviderAddress(s.Organization)):
		return refuse(NotOurs, "the secret holds a PAT of another identity or organization "+
			"than the manifest names: it is about to be rotated")
	case !v.Expires.IsZero() && validTo.Before(v.Expires.Truncate(time.Second)):
		return refuse(BadEnd, "the PAT lives longer than that: its end is "+v.Expires.UTC().Format(time.RFC3339))
	}
	return v, nil
}

// takeBack gives a PAT that was replaced its earlier end again. If that fails, the
// end of its overlap revokes it all the same.
func (a *Actions) takeBack(ctx context.Context, s rotation.Spec, v rotation.Version) {
	if !v.Expires.After(a.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterDeadline)
	defer cancel()
	p, err := a.Ends.Update(ctx, s.Owner(), v.Ledger.AuthorizationID, v.Expires)
	if err != nil {
		a.Log.WarnContext(ctx, "a replaced PAT keeps its later end until it is revoked", "pat", s.Name,
			"authorizationId", v.Ledger.AuthorizationID, "class", string(rotation.ClassOf(err)))
		return
	}
	a.lists.addCreated(s.Owner(), p)
}
