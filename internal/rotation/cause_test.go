package rotation_test

import (
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// The history of a PAT and the event of its revocation give the same cause.
func TestTheCauseOfARevocationStandsOnTheVersions(t *testing.T) {
	t.Parallel()
	stored := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	version := func(requestedBy string, reason rotation.Reason, revokePrevious time.Duration) rotation.Version {
		return rotation.Version{Created: stored, Ledger: rotation.Ledger{RequestedBy: requestedBy, Reason: reason,
			RevokePreviousAt: stored.Add(revokePrevious)}}
	}
	overlap := version("timer", rotation.Expiring, rotation.Day)
	none := version("timer", rotation.Expiring, rotation.StoreSlack) // a manifest with an overlap of nothing
	leaked := version("ada", rotation.Compromised, 0)
	leaked.Ledger.Facts.PreviousEnds = rotation.EndsNow
	edited := version("timer", rotation.Expiring, 0) // a person has moved the time
	byHand := rotation.Version{Created: stored}
	for name, tt := range map[string]struct {
		expires time.Duration
		newer   []rotation.Version
		cause   rotation.RevocationCause
		by      string
	}{
		"its overlap ended":           {2 * rotation.Day, []rotation.Version{overlap}, rotation.OverlapEnded, ""},
		"an overlap of nothing ended": {2 * rotation.Day, []rotation.Version{none}, rotation.OverlapEnded, ""},
		"an edited time is no order":  {2 * rotation.Day, []rotation.Version{edited}, rotation.OverlapEnded, ""},
		"it ran out":                  {rotation.Day, []rotation.Version{overlap}, rotation.Expired, ""},
		"its successor ends it":       {2 * rotation.Day, []rotation.Version{leaked}, rotation.CauseRequested, "ada"},
		"a later one ends all": {2 * rotation.Day, []rotation.Version{leaked, overlap}, rotation.CauseRequested,
			"ada"},
		"its end is not known":         {0, []rotation.Version{overlap}, rotation.OverlapEnded, ""},
		"its successor came by itself": {2 * rotation.Day, []rotation.Version{byHand}, rotation.OverlapEnded, ""},
	} {
		v := rotation.Version{}
		if tt.expires != 0 {
			v.Expires = stored.Add(tt.expires)
		}
		cause, order := rotation.CauseOfRevocation(v, tt.newer, stored.Add(rotation.Day))
		if cause != tt.cause {
			t.Errorf("%s: cause %q, want %q", name, cause, tt.cause)
		}
		by := ""
		if order != nil {
			by = order.Ledger.RequestedBy
		}
		if by != tt.by {
			t.Errorf("%s: ordered by %q, want %q", name, by, tt.by)
		}
	}
}
