package rotation

import (
	"slices"
	"time"
)

// FullScope is the scope of a PAT that may do all that its user may.
const FullScope = "app_token"

// GlobalEnd is when Azure DevOps stops to accept PATs that are valid in all
// organizations.
func GlobalEnd() time.Time { return time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC) }

// ExpiresSoon is how near its end an unmanaged PAT counts as expiring: the first of the
// marks at which that is published.
const ExpiresSoon = 14 * Day

// FullScope reports whether the PAT may do all that its user may.
func (p PAT) FullScope() bool { return slices.Contains(p.Scopes, FullScope) }

// Expiring reports whether the PAT ends soon.
func (p PAT) Expiring(now time.Time) bool { return !p.ValidTo.After(now.Add(ExpiresSoon)) }
