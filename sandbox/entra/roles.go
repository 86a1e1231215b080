package entra

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// assignment is an app role that a user has, by object id, client id and the role's id.
type assignment struct{ user, client, role string }

// AssignRole gives a user one of an app's roles, as an administrator does under the
// enterprise application's users and groups. The next id token shows it.
func (s *Server) AssignRole(upn, clientID, value string) error {
	return s.withRole(upn, clientID, value, func(a assignment, r AppRole) error {
		switch {
		case r.Disabled:
			return fmt.Errorf("the role %s is disabled", value)
		case s.assigned[a]:
			return fmt.Errorf("%s has the role %s already", upn, value)
		}
		s.assigned[a] = true
		return nil
	})
}

// TakeRole takes a role away again. Tokens that were given out keep it.
func (s *Server) TakeRole(upn, clientID, value string) error {
	return s.withRole(upn, clientID, value, func(a assignment, _ AppRole) error {
		if !s.assigned[a] {
			return fmt.Errorf("%s does not have the role %s", upn, value)
		}
		delete(s.assigned, a)
		return nil
	})
}

func (s *Server) withRole(upn, clientID, value string, do func(assignment, AppRole) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, app := s.users[strings.ToLower(upn)], s.apps[clientID]
	switch {
	case u == nil:
		return fmt.Errorf("no user %s in the tenant", upn)
	case app == nil:
		return fmt.Errorf("no app %s in the tenant", clientID)
	}
	i := slices.IndexFunc(app.Roles, func(r AppRole) bool { return r.Value == value })
	if i < 0 {
		return fmt.Errorf("the app has no role %s", value)
	}
	return do(assignment{u.ObjectID, clientID, app.Roles[i].ID}, app.Roles[i])
}

// rolesOf are the values that a token for the app shows.
func (s *Server) rolesOf(u *user, app *App) []string {
	var out []string
	for _, r := range app.Roles {
		if !r.Disabled && s.assigned[assignment{u.ObjectID, app.ClientID, r.ID}] {
			out = append(out, r.Value)
		}
	}
	return out
}

var (
	guidForm  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	roleValue = regexp.MustCompile("^[!#$%&'()*+,\\-./0-9:;=?@A-Z\\[\\]^_`a-z{|}~]{1,120}$")
)

// checkRoles checks what Microsoft Graph checks of an application's appRoles.
func checkRoles(roles []AppRole) []error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for i, r := range roles {
		before := roles[:i]
		switch {
		case !guidForm.MatchString(strings.ToLower(r.ID)):
			add("app role %q: the id must be a GUID", r.Value)
		case slices.ContainsFunc(before, func(o AppRole) bool { return strings.EqualFold(o.ID, r.ID) }):
			add("app role %q: the id is taken", r.Value)
		}
		switch {
		case !roleValue.MatchString(r.Value) || strings.HasPrefix(r.Value, "."):
			add("app role %q: the value may have 120 characters, without white space, and no dot first", r.Value)
		case slices.ContainsFunc(before, func(o AppRole) bool { return o.Value == r.Value }):
			add("app role %q: the value is taken", r.Value)
		}
		if r.Name == "" {
			add("app role %q: a display name is needed", r.Value)
		}
	}
	return problems
}
