package administration

import (
	"log/slog"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// What an Act can be.
const (
	ActPlan   = "plan-revocation"
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

// Act is the record of one act of an administrator, for the log. It holds no
// token.
type Act struct {
	At               time.Time
	RequestedBy      string // who asked
	Trigger          string // by which way: POST revocations
	Act              string
	Organization     string
	Identity         string   // with whose sign-in
	Target           []string // users, as they were asked for; a rule's scopes
	AuthorizationIDs []string
	Outcome          Outcome
	Code             string // of the error
	// ActivityID is Azure DevOps' own name for the call.
	ActivityID string
}

// maxLogged keeps a log line short; Azure DevOps' own audit log has every PAT.
const maxLogged = 50

// LogValue is the record for slog.
func (a Act) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Time("at", a.At), slog.String("requestedBy", a.RequestedBy), slog.String("trigger", a.Trigger),
		slog.String("act", a.Act), slog.String("organization", a.Organization), slog.String("identity", a.Identity),
		slog.Any("target", a.Target), slog.Int("count", len(a.AuthorizationIDs)),
		slog.Any("authorizationIds", a.AuthorizationIDs[:min(len(a.AuthorizationIDs), maxLogged)]),
		slog.String("outcome", string(a.Outcome)), slog.String("code", a.Code), slog.String("activityId", a.ActivityID),
	)
}

// act begins a record: it has failed until something says otherwise.
func (r *Revocations) newAct(q Request, what string) Act {
	return Act{
		At: r.now().UTC(), RequestedBy: q.RequestedBy, Trigger: q.Trigger, Act: what,
		Organization: q.Organization, Identity: q.Identity, Target: q.Users, Outcome: Failed,
	}
}

// failed notes what an error says of itself.
func (a Act) failed(err error) Act {
	if e := rotation.AsError(err); e != nil {
		a.Code = e.Code
		if e.ActivityID != "" {
			a.ActivityID = e.ActivityID
		}
	}
	return a
}
