package rotation

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Spec is one PAT of the manifest, with every default filled in.
type Spec struct {
	Name         string // Key Vault secret, and the subject of its events
	Identity     string
	Organization string
	DisplayName  string
	Scopes       []string // sorted, without repeats
	Lifetime     time.Duration
	RotateBefore time.Duration
	Overlap      time.Duration
	Adopt        string // authorization id that settles an ambiguous adoption

	// What holds a rotation back that is merely due.
	Freezes []Freeze // shared by all entries
	Windows *Windows // nil: at any time
	Paused  string   // why only an order makes a new PAT; empty: it is not paused

	// SwitchOver is whom a replaced PAT waits for; nil: nobody.
	SwitchOver *SwitchOver
}

// AdoptReplace as Spec.Adopt lets a new PAT take the place of a value that is none.
const AdoptReplace = "replace"

// Equal reports whether two entries say the same.
func (s Spec) Equal(o Spec) bool {
	sameScopes := slices.Equal(s.Scopes, o.Scopes)
	sameFreezes := slices.Equal(s.Freezes, o.Freezes)
	s.Scopes, o.Scopes, s.Freezes, o.Freezes = nil, nil, nil, nil
	return sameScopes && sameFreezes && reflect.DeepEqual(s, o)
}

// Digest tells one content of an entry from another.
func (s Spec) Digest() string { return digest(fmt.Sprintf("%+v", s), 16) }

// Owner is whose PAT this is.
func (s Spec) Owner() Owner { return Owner{s.Identity, s.Organization} }

// RotationID names one rotation: the same for every attempt to replace the same
// version of the same PAT. version is empty if there is
// none yet.
func RotationID(pat, version string) string { return digest(pat+"\n"+version, 10) }

// VaultTag tells the PATs of one deployment from those of another: host is the
// host of KEY_VAULT_URL, with its port if it has one.
func VaultTag(host string) string { return digest(host, 6) }

func digest(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}
