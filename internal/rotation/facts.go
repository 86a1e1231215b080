package rotation

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Facts are what no other tag says of a version, in one tag of at most 256 characters:
// `name=value` pairs joined by `;`. Zero values are absent.
type Facts struct {
	// Digest is that of the value that the ledger was written for. Beside another
	// value the ledger says nothing.
	Digest string
	// Owner is the object id of the user who made the PAT.
	Owner string
	// Previous is the beginning of the replaced PAT's authorization id.
	Previous string
	// PreviousEnds says which of three meanings the revocation time has.
	PreviousEnds PreviousEnds
	// Order is a person's order to rotate away from this version's PAT that stands.
	Order Order
	// Done is the operation of the order that made this version.
	Done string
}

// PreviousEnds says why a replaced PAT ends when its successor says so.
type PreviousEnds string

const (
	EndsAfterOverlap PreviousEnds = "overlap"
	EndsNow          PreviousEnds = "now" // somebody ordered it
	EndsByItself     PreviousEnds = "cap" // its own end comes before that of the overlap
)

// Order is what a person has asked for: to rotate away from a PAT.
type Order struct {
	RevokePrevious RevokePrevious
	At             time.Time
	Operation      string // at most 26 characters
	By             string // at most 60 characters
}

// Stands reports whether there is an order.
func (o Order) Stands() bool { return o.RevokePrevious != "" }

// Stronger is the order of two that counts: `now` beats `overlap`, the first one given
// beats a later one.
func (o Order) Stronger(p Order) Order {
	switch {
	case !p.Stands():
		return o
	case !o.Stands():
		return p
	case o.RevokePrevious != Now && p.RevokePrevious == Now:
		return p
	}
	return o
}

// RoomForOthers is how many tags of others fit beside an entry's ledger in all its life:
// Key Vault takes fifteen, of which patrol needs nine, and one more for consumers.
func RoomForOthers(s Spec) int {
	if s.SwitchOver != nil {
		return 5
	}
	return 6
}

// IsOwn reports whether the name of a tag, or of a secret, is one that only a patrol
// uses, this one or a newer one.
func IsOwn(name string) bool { return strings.HasPrefix(strings.ToLower(name), "patrol-") }

const (
	// MaxFacts is Key Vault's limit for a tag's value.
	MaxFacts        = 256
	digestLength    = 16
	previousLength  = 8
	operationLength = 26
	byLength        = 60
)

// Digest tells one value from another without giving it away. White space at a value's
// ends does not count: files and portals add it.
func Digest(value Secret) string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(value.Reveal())))
	return hex.EncodeToString(sum[:])[:digestLength]
}

// ShortID is how Facts name a replaced PAT.
func ShortID(authorizationID string) string {
	id := strings.ToLower(authorizationID)
	if len(id) < previousLength {
		return id
	}
	return id[:previousLength]
}

// ShortOperation is an operation's id as Facts and orders carry it: itself, or what a
// hash makes of it.
func ShortOperation(operation string) string {
	operation = plainField(operation, maxOperation)
	if len(operation) <= operationLength {
		return operation
	}
	return digest(operation, operationLength)
}

// NewOrder makes the order that a command carries.
func NewOrder(revokePrevious RevokePrevious, at time.Time, operation, by string) Order {
	if revokePrevious != Now {
		revokePrevious = AfterOverlap
	}
	return Order{RevokePrevious: revokePrevious, At: at.UTC().Truncate(time.Second),
		Operation: ShortOperation(operation), By: plainField(by, byLength)}
}

// plainField is text that fits between the marks of Facts.
func plainField(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		isMark := r == ',' || r == ';' || r == '='
		if isMark || r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > limit {
		s = s[:limit]
	}
	return s
}

// String writes the facts as their tag has them.
func (f Facts) String() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("digest", f.Digest)
	add("owner", f.Owner)
	add("previous", f.Previous)
	add("previous-ends", string(f.PreviousEnds))
	if f.Order.Stands() {
		add("order", strings.Join([]string{string(f.Order.RevokePrevious), strconv.FormatInt(f.Order.At.Unix(), 10),
			f.Order.Operation, f.Order.By}, ","))
	}
	add("done", f.Done)
	return strings.Join(parts, ";")
}

// ParseFacts reads the tag. People can edit tags: what patrol would not have written
// counts as absent.
func ParseFacts(tag string) Facts {
	var f Facts
	if len(tag) > 2*MaxFacts {
		return f
	}
	for part := range strings.SplitSeq(tag, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "digest":
			f.Digest = hexField(value, digestLength)
		case "owner":
			f.Owner = plainField(value, 64)
		case "previous":
			f.Previous = hexField(value, previousLength)
		case "previous-ends":
			switch e := PreviousEnds(value); e {
			case EndsAfterOverlap, EndsNow, EndsByItself:
				f.PreviousEnds = e
			}
		case "order":
			f.Order = parseOrder(value)
		case "done":
			f.Done = plainField(value, operationLength)
		}
	}
	return f
}

func hexField(value string, length int) string {
	value = strings.ToLower(value)
	isHex := func(r rune) bool { return strings.ContainsRune("0123456789abcdef", r) }
	notHex := func(r rune) bool { return !isHex(r) }
	if len(value) != length || strings.ContainsFunc(value, notHex) {
		return ""
	}
	return value
}

func parseOrder(value string) Order {
	f := strings.SplitN(value, ",", 4)
	if len(f) != 4 {
		return Order{}
	}
	seconds, err := strconv.ParseInt(f[1], 10, 64)
	isKnown := RevokePrevious(f[0]) == Now || RevokePrevious(f[0]) == AfterOverlap
	isTime := err == nil && seconds >= 0 && seconds < 1<<40
	if !isKnown || !isTime {
		return Order{}
	}
	return Order{RevokePrevious: RevokePrevious(f[0]), At: time.Unix(seconds, 0).UTC(),
		Operation: plainField(f[2], operationLength), By: plainField(f[3], byLength)}
}
