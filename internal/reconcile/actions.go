package reconcile

import (
	"context"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Ends is what actions need of Azure DevOps beside Tokens.
type Ends interface {
	// Update moves a PAT's end; its token stays. The answer's ValidTo counts.
	// ErrNotFound: there is no such PAT any more.
	Update(ctx context.Context, o rotation.Owner, authorizationID string, validTo time.Time) (rotation.PAT, error)
	// Known reports whether the owner has or had this PAT, ended ones included.
	Known(ctx context.Context, o rotation.Owner, authorizationID string) (bool, error)
}

// Actions are what people order and get at once, because no rotation is needed for it:
// they leave the value of every secret as it is.
type Actions struct {
	*Reconciler
	Ends Ends
}

// Refusal is an action that patrol will not do, or that makes no sense as things are.
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
	NothingReplaced  = "nothing-replaced"  // no overlap is under way
	OrderedToEnd     = "ordered-to-end"    // somebody ordered that the replaced PAT ends at once
	InUse            = "pat-in-use"        // a secret's readers would hold a dead token
)
