package rotation

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// Memory is what the processes of one app know of each other. It is best effort: it lets
// patrol wait, keeps it from saying a thing twice, and shows things to people; no PAT is
// ended because of it. An error says that nothing is known, and whoever gets one goes on
// with what its own process knows. Each call is bounded and comes back within seconds.
type Memory interface {
	// LastSweep is the sweep that was begun last, of those that have ended; the zero
	// value: there was none.
	LastSweep(ctx context.Context) (SweepRecord, error)
	KeepSweep(ctx context.Context, s SweepRecord) error

	// Standing are the troubles that stand, and the owners behind with their marks.
	Standing(ctx context.Context) (Standing, error)
	KeepTrouble(ctx context.Context, t StandingTrouble) error
	DropTrouble(ctx context.Context, t Trouble) error
	KeepBehind(ctx context.Context, b BehindMarks) error
	DropBehind(ctx context.Context, o Owner) error

	// FailingNames are the PATs that fail, in lower case, each with the time at which that
	// was written.
	FailingNames(ctx context.Context) (FailingNames, error)
	// AllFailing are those that fail, by name.
	AllFailing(ctx context.Context) ([]FailingPAT, error)
	// Failing is the zero value for a PAT that does not fail.
	Failing(ctx context.Context, pat string) (FailingPAT, error)
	KeepFailing(ctx context.Context, f FailingPAT) error
	DropFailing(ctx context.Context, pat string) error
}

// SweepRecord is one sweep.
type SweepRecord struct {
	At, Ended time.Time
	By        string
	Managed   int
	Commands  int
	Unmanaged int
	Released  int
	Problems  []SweepProblem
	// MassChanges wait for a person.
	MassChanges []MassChanged
	// Succeeded is when the last sweep that could do everything was; zero: none yet.
	Succeeded time.Time
}

// SweepProblem is what a sweep could not observe, or could not do, and since when.
type SweepProblem struct {
	Scope        Scope
	Identity     string
	Organization string
	Class        Class
	Code         string
	Message      string
	Since        time.Time
}

// Standing is what lasts from one sweep to the next.
type Standing struct {
	Troubles []StandingTrouble
	Behind   []BehindMarks
}

// StandingTrouble is a trouble as it was met last.
type StandingTrouble struct {
	CheckIncomplete
	Published time.Time // zero: not yet
	// Over: it has ended, and nobody could be told.
	Over bool
}

// BehindMarks is an owner of whose unmanaged PATs not every mark has been published.
type BehindMarks struct {
	Owner Owner
	Since time.Time // up to then they have been
}

// FailingNames are names of PATs.
type FailingNames struct {
	WrittenAt map[string]time.Time
	// Complete: no PAT fails that is not among them.
	Complete bool
}

// FailingPAT is what is remembered of a PAT from its first failure until it comes to
// rest.
type FailingPAT struct {
	Failure  // the last one
	Notified []NotifiedFailure
	Refused  RefusedStore
}

// NotifiedFailure is when a failure was published.
type NotifiedFailure struct {
	Step  Step
	Class Class
	Code  string
	At    time.Time
}

// RefusedStore is a store that the vault has refused. The zero value: none was.
type RefusedStore struct {
	Until   time.Time
	Entry   string // digest of the manifest's entry
	Class   Class
	Code    string
	Message string
}

// SortTroubles puts the oldest first.
func SortTroubles(all []CheckIncomplete) {
	slices.SortFunc(all, func(a, b CheckIncomplete) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(string(a.Scope), string(b.Scope)),
			strings.Compare(a.Identity, b.Identity), strings.Compare(a.Organization, b.Organization),
			strings.Compare(a.Code, b.Code))
	})
}
