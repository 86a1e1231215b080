package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// MaxExtension is how far ahead a PAT's end may be moved: Azure DevOps gives no longer
// lives.
const MaxExtension = 365 * rotation.Day

// Ends is what acts need of Azure DevOps beside Tokens.
type Ends interface {
	// Update moves a PAT's end; its token stays. The answer's ValidTo counts.
	// ErrNotFound: there is no such PAT any more.
	Update(ctx context.Context, o rotation.Owner, authorizationID string, validTo time.Time) (rotation.PAT, error)
	// Known reports whether the owner has or had this PAT, ended ones included.
	Known(ctx context.Context, o rotation.Owner, authorizationID string) (bool, error)
}

// Acts are what people order and get at once, because no rotation is needed for it:
// they leave the value of every secret as it is.
type Actions struct {
	*Reconciler
	Ends Ends
}

// Refusal is an act that patrol will not do, or that makes no sense as things are.
type Refusal struct {
	Code    string // stable word
	Message string // plain words: why, and what to do
	PAT     string // the managed PAT that it is about; may be empty
	// Managed says that the PAT is in the manifest: it can be rotated instead.
	Managed bool
}

func (r *Refusal) Error() string { return r.Message + " (" + r.Code + ")" }

// Codes of a Refusal.
const (
	UnknownPAT       = "unknown-pat"       // the manifest has no such PAT
	UnknownToken     = "unknown-token"     // nobody who is signed in has or had it
	NotProvisioned   = "not-provisioned"   // the vault has no such secret yet
	NotOurs          = "not-ours"          // patrol has neither written nor adopted the secret
	BadEnd           = "bad-valid-to"      // the end cannot be asked for
	Gone             = "pat-gone"          // Azure DevOps does not know the current PAT any more
	Overtaken        = "pat-replaced"      // it was replaced meanwhile
	ExtensionRefused = "extension-refused" // Azure DevOps or a policy refuses
	InUse            = "pat-in-use"        // a secret's readers would hold a dead token
)

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
	leave, err := a.enter(ctx, s.Name) // no rotation of this process in between
	if err != nil {
		return Extended{}, err
	}
	defer leave()
	v, err := a.extendable(ctx, s, validTo)
	if err != nil {
		return Extended{}, err
	}
	p, err := a.Ends.Update(ctx, s.Owner(), v.Ledger.AuthorizationID, validTo)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		a.lists.expire(s.Owner())
		return Extended{}, &Refusal{Code: Gone, PAT: s.Name, Managed: true,
			Message: "Azure DevOps has no such active PAT any more: the next look at it makes a new one, or rotate it now"}
	case err != nil:
		if e := rotation.AsError(err); e != nil && (e.Class == rotation.Policy || e.Class == rotation.Configuration &&
			refusesEnd(e.Code)) {
			return Extended{}, &Refusal{Code: ExtensionRefused, Message: e.Error(), PAT: s.Name, Managed: true}
		}
		return Extended{}, err
	}
	a.lists.addCreated(s.Owner(), p) // takes the place of what the list says

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
			Message: "the PAT was replaced at the same moment: look at it again"}
	}
	now.Expires = p.ValidTo
	now.Ledger.ValidityDays = rotation.WholeDays(p.ValidTo.Sub(p.ValidFrom))
	now.Ledger.History = rotation.Noted(now.Ledger.History, rotation.Note{At: a.Now(), Act: "extended",
		Until: p.ValidTo, By: by})
	if now, err = a.Vault.Update(ctx, now); err != nil {
		return Extended{}, err
	}
	return Extended{Spec: s, AuthorizationID: p.AuthorizationID, Version: now.ID, ValidFrom: p.ValidFrom,
		ValidTo: p.ValidTo,
		Due:     rotation.Due(s, p.ValidFrom, p.ValidTo), Clamped: p.ValidTo.Before(validTo.Add(-time.Minute))}, nil
}

// refusesEnd knows the words by which Azure DevOps refuses an end.
func refusesEnd(code string) bool {
	return code == "invalidValidTo" || code == "expiredPatCannotBeExtended"
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
		return refuse(NotOurs,
			"the secret holds a PAT of another identity or organization than the manifest names: it is about to be rotated")
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

// Target names a PAT to revoke.
type Target struct {
	AuthorizationID string
	// Identity and Organization may be left out: then every listing is searched.
	Identity, Organization string
	// Force revokes it though a secret's readers use it; what can be rotated is.
	Force                  bool
	RequestedBy, Operation string
}

// Ended is a revoked PAT.
type Ended struct {
	Owner rotation.Owner
	// Already says that it had ended before.
	Already bool
	// Replacing is the managed PAT that is being rotated because of it; empty: none.
	Replacing string
}

// Revoke ends one PAT of a signed-in user, managed or not. One that a secret's readers
// use is not revoked without force: rotating it is what its owner wants.
func (a *Actions) Revoke(ctx context.Context, t Target) (Ended, error) {
	owners := a.owners(t)
	var failed error
	for _, o := range owners {
		pats, err := a.Tokens.List(ctx, o) // afresh: an old list is no ground for a "not found"
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		i := slices.IndexFunc(pats, func(p rotation.PAT) bool {
			return strings.EqualFold(p.AuthorizationID,
				t.AuthorizationID)
		})
		if i >= 0 {
			return a.end(ctx, o, pats[i], t)
		}
	}
	if failed != nil {
		return Ended{}, failed
	}
	for _, o := range owners {
		known, err := a.Ends.Known(ctx, o, t.AuthorizationID)
		if err != nil {
			return Ended{}, err
		}
		if known {
			return Ended{Owner: o, Already: true}, nil
		}
	}
	return Ended{}, &Refusal{Code: UnknownToken,
		Message: "none of the identities and organizations asked has or had a PAT with this authorization id"}
}

// owners are whose PATs may be meant.
func (a *Actions) owners(t Target) []rotation.Owner {
	if t.Identity != "" && t.Organization != "" {
		return []rotation.Owner{{Identity: t.Identity, Organization: t.Organization}}
	}
	var out []rotation.Owner
	for _, s := range a.Specs() {
		o := s.Owner()
		if (t.Identity == "" || o.Identity == t.Identity) && (t.Organization == "" || strings.EqualFold(o.Organization,
			t.Organization)) && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(x, y rotation.Owner) int {
		return strings.Compare(x.Identity+"/"+x.Organization, y.Identity+"/"+y.Organization)
	})
	return out
}

func (a *Actions) end(ctx context.Context, o rotation.Owner, p rotation.PAT, t Target) (Ended, error) {
	out := Ended{Owner: o}
	use, err := a.use(ctx, p)
	if err != nil && !t.Force {
		return Ended{}, err // perhaps somebody uses it
	}
	if use != nil && !t.Force {
		return Ended{}, use
	}
	if use != nil && use.Managed {
		// The order goes first: if the revocation then fails, the rotation ends
		// the PAT all the same.
		order := rotation.Command{PAT: use.PAT, Reason: rotation.Compromised, From: p.AuthorizationID,
			RevokePrevious: rotation.Now, RequestedBy: t.RequestedBy, Operation: t.Operation}
		if err := a.Outbox.Send(ctx, order); err != nil {
			return Ended{}, err
		}
		out.Replacing = use.PAT
	}
	if err := a.Tokens.Revoke(ctx, o, p.AuthorizationID); err != nil {
		return Ended{}, err
	}
	a.lists.removeRevoked(o, p.AuthorizationID)
	return out, nil
}

// use finds the secret that holds this PAT, or is about to.
func (a *Actions) use(ctx context.Context, p rotation.PAT) (*Refusal, error) {
	declared, tag, _, marked := rotation.ParseDisplayName(p.DisplayName)
	for v, err := range a.Vault.Secrets(ctx) {
		if err != nil {
			return nil, err
		}
		s, managed := a.Spec(v.Name)
		switch {
		case strings.EqualFold(v.Ledger.AuthorizationID, p.AuthorizationID):
			r := &Refusal{Code: InUse, PAT: v.Name, Managed: managed,
				Message: fmt.Sprintf("the secret %s holds this PAT: its readers would be left with a dead one. ",
					v.Name)}
			if managed {
				r.PAT = s.Name
				r.Message += `Rotate it with revokePrevious "now", or use force`
			} else {
				r.Message += "It is not in the manifest, so nothing replaces it; use force if nobody reads it any more"
			}
			return r, nil
		case managed && !v.Ledger.Ours() && (strings.EqualFold(s.DisplayName, p.DisplayName) ||
			strings.EqualFold(s.Adopt, p.AuthorizationID)):
			return &Refusal{Code: InUse, PAT: s.Name, Managed: true, Message: "the secret " + s.Name +
				" was put there by hand and probably holds this PAT: let patrol adopt it first, or use force"}, nil
		}
	}
	if marked && tag == a.VaultTag && a.Now().Sub(p.ValidFrom) < rotation.OrphanAge {
		for _, s := range a.Specs() {
			if strings.EqualFold(s.DisplayName, declared) {
				return &Refusal{Code: InUse, PAT: s.Name, Managed: true, Message: "a rotation of " + s.Name +
					" that is under way has made this PAT: wait for it to end, or use force"}, nil
			}
		}
	}
	return nil, nil
}
