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

	// AnnouncedFor is how long a replaced PAT lives at least after its event was
	// sent, if that was late.
	AnnouncedFor = 10 * time.Minute

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
// A life may be shorter than the manifest asks for: a policy shortened it, or the
// manifest asked for less when it began. Then rotateBefore counts as it is written if it
// is at most half of that life, otherwise the same fraction of it, but not so little
// that the overlap would not fit (as far as half of the life allows).
func Due(s Spec, from, to time.Time) time.Time {
	life, before, spread := to.Sub(from), s.RotateBefore, (s.Lifetime-s.RotateBefore)/10
	if Clamped(s, from, to) && s.Lifetime > 0 {
		scale := float64(life) / float64(s.Lifetime)
		spread = time.Duration(float64(spread) * scale)
		if before > life/2 {
			before = time.Duration(float64(before) * scale)
		}
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

// ProofDue reports whether a PAT's daily proof falls between two sweeps. Each PAT has a
// time of the day of its own, by a hash of its name. Without a last sweep none is due:
// the next one has one.
func ProofDue(name string, last, now time.Time) bool {
	if last.IsZero() || !now.After(last) {
		return false
	}
	if now.Sub(last) >= Day {
		return true
	}
	at := now.UTC().Truncate(Day).Add(time.Duration(fraction("proof\n"+name) * float64(Day)))
	if at.After(now) {
		at = at.Add(-Day)
	}
	return at.After(last)
}
