package web

import "slices"

// Role is what a person may do on the page. Each one may do what the ones before may.
type Role int

// The roles, as the app registration defines them.
const (
	NoRole        Role = iota
	Reader             // sees
	Operator           // acts
	Administrator      // revokes users' PATs, signs identities and people out
)

// roleValues are the values of the registration's app roles, by Role.
var roleValues = [...]string{NoRole: "", Reader: "Patrol.Reader", Operator: "Patrol.Operator",
	Administrator: "Patrol.Administrator"}

// RoleValues are the app roles that a registration must define.
func RoleValues() []string { return slices.Clone(roleValues[Reader:]) }

// Value is the role as a token says it.
func (r Role) Value() string { return roleValues[r] }

// Word is the role as a person reads it.
func (r Role) Word() string {
	return [...]string{"no role", "Reader", "Operator", "Administrator"}[r]
}

// roleOf is the highest of a token's roles. What it does not know counts as none.
func roleOf(values []string) Role {
	for _, r := range []Role{Administrator, Operator, Reader} {
		if slices.Contains(values, r.Value()) {
			return r
		}
	}
	return NoRole
}
