package rotation

import (
	"slices"
	"strings"
	"time"
)

// YoungFor is how long a role or token refusal may pass by itself after a first
// deployment: a new role, and a new trust between identities, take minutes to work.
const YoungFor = 30 * time.Minute

// youngCodes are refusals that a deployment meets although nothing is wrong with it.
var youngCodes = []string{
	VaultForbidden, VaultUnauthorized, VaultCredential, "managed-identity",
	"state-forbidden", "state-unauthorized", "state-credential", "service-bus-unauthorizedaccess",
	"aadsts70021", "aadsts700211", "aadsts700213", "aadsts7000112",
}

// PassesWithAge reports whether a refusal may be that of a deployment whose roles and
// trusts do not work yet.
func (e *Error) PassesWithAge() bool {
	return e != nil && e.Class == Configuration && slices.Contains(youngCodes, strings.ToLower(e.Code))
}
