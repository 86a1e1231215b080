package rotation

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

const (
	// Day is 24 hours: lifetimes are counted in time, not in calendar days.
	Day = 24 * time.Hour

	// OrphanAge is how old an unknown PAT with our marker must be before it is
	// revoked. A slow first attempt and a second one so never kill each
	// other's PAT: an attempt's own deadline (4 minutes) is far below it.
	OrphanAge = 15 * time.Minute

	// storeSlack is added to the overlap: readers' overlap counts from the
	// moment when the new version can be read, and the store itself takes time.
	StoreSlack = time.Minute

	// clockSkew is how far two clocks (ours, the vault's, another instance's)
	// may differ before a conclusion drawn from both is unsafe.
	ClockSkew = 2 * time.Minute

	// settleWindow is how long after its revocation time a replaced version is
	// still searched for. The revocation itself is repeated until it succeeds as
	// long as the PAT is listed as active, so the window only bounds how long
	// a version that missed its closing tag is searched for.
	SettleWindow = Day
)

// Due is when a PAT shall be replaced, given when its life began and ends: its
// rotateBefore before its end, and up to a tenth of (lifetime - rotateBefore)
// earlier by a hash of its name, so that a fleet does not rotate in one moment.
//
// Policy may have given a shorter life than was asked for. Then the same fraction
// of the real life counts, but not so little that the overlap would not fit
// (as far as half of the life allows).
func Due(s Spec, from, to time.Time) time.Time {
	life, before, spread := to.Sub(from), s.RotateBefore, (s.Lifetime-s.RotateBefore)/10
	if Clamped(s, from, to) && s.Lifetime > 0 {
		scale := float64(life) / float64(s.Lifetime)
		before = time.Duration(float64(before) * scale)
		spread = time.Duration(float64(spread) * scale)
		before = max(before, min(s.Overlap+StoreSlack, life/2))
	}
	return to.Add(-before - time.Duration(fraction(s.Name)*float64(spread)))
}

// Clamped reports whether a PAT's life is shorter than the manifest asks for. A
// minute of tolerance covers the server's rounding and the way of the request.
func Clamped(s Spec, from, to time.Time) bool { return to.Sub(from) < s.Lifetime-time.Minute }

// fraction is a number in [0, 1) that depends on the name only.
func fraction(name string) float64 {
	sum := sha256.Sum256([]byte(name))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// days is a life in days, rounded up.
func WholeDays(life time.Duration) int { return int((life + Day - 1) / Day) }
