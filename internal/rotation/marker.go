package rotation

import "strings"

const (
	markerStart = " (patrol "
	idLength    = 10
	tagLength   = 6
)

// DisplayName is the name of a PAT that patrol makes: the declared name and our
// marker, the part in brackets.
func DisplayName(declared, vaultTag, rotationID string) string {
	return declared + markerStart + vaultTag + "-" + rotationID + ")"
}

// CanaryName is the display name of a PAT that is made to see whether one can be made.
const CanaryName = "patrol doctor"

// ParseDisplayName splits a PAT's name at patrol's marker. ok is false for a
// name without one.
func ParseDisplayName(name string) (declared, vaultTag, rotationID string, ok bool) {
	i := strings.LastIndex(name, markerStart)
	if i < 0 {
		return name, "", "", false
	}
	mark, closed := strings.CutSuffix(name[i+len(markerStart):], ")")
	tag, id, dash := strings.Cut(mark, "-")
	twoParts := closed && dash
	if !twoParts || len(tag) != tagLength || len(id) != idLength {
		return name, "", "", false
	}
	return name[:i], tag, id, true
}
