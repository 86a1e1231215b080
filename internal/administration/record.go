package administration

import "github.com/azure-patrol/patrol/internal/rotation"

// What an Act can be.
const (
	ActRevoke = "revoke-pats"
	ActRule   = "add-revocation-rule"
)

// Outcome is what came of an act.
type Outcome string

const (
	Done     Outcome = "done"
	Pending  Outcome = "pending" // accepted, and the PATs are still listed as valid
	Failed   Outcome = "failed"
	Refused  Outcome = "refused"   // by patrol itself, before anything was done
	NotTried Outcome = "not-tried" // what came before it has failed
)

// Act is the audit record of one thing that was done for an administrator, or refused.
// It holds no token.
type Act struct {
	RequestedBy  string // who asked
	Trigger      string // by which way: POST revocations
	Act          string
	Organization string
	Identity     string   // with whose sign-in
	Target       []string // users, as they were asked for; a rule's scopes
	Count        int      // of PATs
	Outcome      Outcome
	Code         string // of the error
	// ActivityID is Azure DevOps' own name for the call.
	ActivityID string
}

// newAct begins a record: it has failed until something says otherwise.
func newAct(q Request, act string) Act {
	return Act{
		RequestedBy: q.RequestedBy, Trigger: q.Trigger, Act: act,
		Organization: q.Organization, Identity: q.Identity, Target: q.Users, Outcome: Failed,
	}
}

// withError adds what an error says of itself.
func (a Act) withError(err error) Act {
	if e := rotation.AsError(err); e != nil {
		a.Code = e.Code
		if e.ActivityID != "" {
			a.ActivityID = e.ActivityID
		}
	}
	return a
}
