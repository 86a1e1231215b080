package entra

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// AddUser puts a user into the directory and returns the object id. A user of
// the same name is replaced by another person with another object id: what the
// first had (sign-ins, consents) is gone.
func (s *Server) AddUser(u User) string {
	if u.ObjectID == "" {
		u.ObjectID = newGUID()
	}
	if u.Home != "" && u.HomeObjectID == "" {
		u.HomeObjectID = newGUID()
	}
	if u.Name == "" {
		u.Name, _, _ = strings.Cut(u.UPN, "@")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.users[strings.ToLower(u.UPN)]; old != nil && old.ObjectID != u.ObjectID {
		s.forget(old)
	}
	s.users[strings.ToLower(u.UPN)] = &user{User: u}
	return u.ObjectID
}

// AddGuest invites somebody of another tenant and returns the object id that
// the guest has in this one.
func (s *Server) AddGuest(mail, home string) string {
	name, _, _ := strings.Cut(mail, "@")
	upn := strings.ReplaceAll(mail, "@", "_") + "#EXT#@" + s.cfg.Domain
	return s.AddUser(User{UPN: upn, Name: name, Home: home, Mail: mail})
}

// AddOutsider makes an account of another tenant known, which this tenant has
// not invited: choosing it ends with AADSTS50020, or where everybody needs multi-factor
// authentication, with AADSTS90072.
func (s *Server) AddOutsider(upn, tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outsiders[strings.ToLower(upn)] = tenant
}

// DeleteUser removes a user. Sign-ins and consents go too; access tokens live
// until they expire.
func (s *Server) DeleteUser(upn string) error {
	return s.withUser(upn, func(u *user) {
		s.forget(u)
		delete(s.users, strings.ToLower(upn))
	})
}

func (s *Server) forget(u *user) {
	s.deleted[u.ObjectID] = true
	for k := range s.consents {
		if k.user == u.ObjectID {
			delete(s.consents, k)
		}
	}
	for a := range s.assigned {
		if a.user == u.ObjectID {
			delete(s.assigned, a)
		}
	}
}

// RenameUser changes a user's principal name. The object id, sign-ins and consents stay;
// tokens show the new name from the next one on.
func (s *Server) RenameUser(upn, to string) error {
	err := s.withUser(to, func(*user) {})
	if err == nil {
		return fmt.Errorf("there is a user %s in the tenant", to)
	}
	return s.withUser(upn, func(u *user) {
		delete(s.users, strings.ToLower(upn))
		u.UPN = to
		s.users[strings.ToLower(to)] = u
	})
}

// DisableUser blocks or unblocks a user's sign-in.
func (s *Server) DisableUser(upn string, disabled bool) error {
	return s.withUser(upn, func(u *user) { u.Disabled = disabled })
}

// RequireMFA makes a user's sign-ins need multi-factor authentication, or no
// longer.
func (s *Server) RequireMFA(upn string, required bool) error {
	return s.withUser(upn, func(u *user) { u.MFA = required })
}

// Revoke ends every sign-in of a user, as an administrator's "revoke sessions"
// or password reset does.
func (s *Server) Revoke(upn string) error {
	return s.withUser(upn, func(u *user) {
		u.signInsFrom = time.Now()
		for _, v := range s.visitors {
			delete(v.accounts, u.ObjectID)
		}
		for _, t := range s.refresh {
			if t.user == u.ObjectID && t.ended == 0 {
				t.ended = 50173
			}
		}
	})
}

// ChangePassword is the user's own password change: it ends the sign-ins of
// public clients and leaves those of confidential clients alone.
func (s *Server) ChangePassword(upn string) error {
	return s.withUser(upn, func(u *user) {
		if u.Passwordless {
			return
		}
		u.publicFrom = time.Now()
		for _, t := range s.refresh {
			if t.user == u.ObjectID && t.class != confidential && t.ended == 0 {
				t.ended = s.passwordChanged()
			}
		}
	})
}

func (s *Server) passwordChanged() int {
	if s.switches.PasswordChangeIs50133 {
		return 50133
	}
	return 50173
}

func (s *Server) withUser(upn string, do func(*user)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[strings.ToLower(upn)]
	if u == nil {
		return fmt.Errorf("no user %s in the tenant", upn)
	}
	do(u)
	return nil
}

// signInUser finds the user of a name that a person has typed or chosen.
func (s *Server) signInUser(name string) (*user, *refusal) {
	name = strings.ToLower(strings.TrimSpace(name))
	u := s.users[name]
	for _, other := range s.users {
		if other.Mail != "" && strings.EqualFold(other.Mail, name) {
			u = other
		}
	}
	switch {
	case u == nil && s.outsiders[name] != "" && slices.ContainsFunc(s.policies, (*Policy).forAllWithMFA):
		return nil, refuse(90072, "")
	case u == nil && s.outsiders[name] != "":
		return nil, refuse(50020, "")
	case u == nil || !strings.EqualFold(u.signInName(), name):
		return nil, refuse(50034, "")
	}
	return u, u.blocked()
}

// member finds a user by object id.
func (s *Server) member(id string) (*user, *refusal) {
	u := s.byID(id)
	switch {
	case u == nil && s.deleted[id]:
		return nil, refuse(500341, "")
	case u == nil:
		return nil, refuse(50034, "")
	}
	return u, u.blocked()
}

func (s *Server) byID(id string) *user {
	for _, u := range s.users {
		if u.ObjectID == id {
			return u
		}
	}
	return nil
}

func (u *user) blocked() *refusal {
	if u.Disabled {
		return refuse(50057, "")
	}
	return nil
}

// upnOf is for what names users by UPN: failures and policies.
func (s *Server) upnOf(id string) string {
	if u := s.byID(id); u != nil {
		return u.UPN
	}
	return ""
}

// Register adds an application after checking what Entra checks when one is
// registered: redirect URIs and federated credentials. AddApp takes an App as
// it is.
func (s *Server) Register(a App) (string, error) {
	var problems []error
	for _, list := range []struct {
		platform string
		uris     []string
	}{{"web", a.Web}, {"native", a.Native}, {"single page", a.SPA}} {
		for _, raw := range list.uris {
			if err := checkRedirect(raw, list.platform); err != nil {
				problems = append(problems, fmt.Errorf("redirect URI %q (%s): %w", raw, list.platform, err))
			}
		}
	}
	problems = append(problems, checkRoles(a.Roles)...)
	if len(a.Federated) > 20 {
		problems = append(problems, errors.New("an app has 20 federated credentials at most"))
	}
	for i, fc := range a.Federated {
		same := func(o FederatedCredential) bool { return o.Issuer == fc.Issuer && o.Subject == fc.Subject }
		if slices.ContainsFunc(a.Federated[:i], same) {
			problems = append(problems,
				errors.New("issuer and subject of federated credentials must be unique together"))
		}
	}
	if len(problems) > 0 {
		return "", fmt.Errorf("registering an app: %w", errors.Join(problems...))
	}
	return s.AddApp(a), nil
}

func checkRedirect(raw, platform string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme == "":
		return errors.New("not an absolute URI")
	case len(raw) > 256:
		return errors.New("longer than 256 characters")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return errors.New("a fragment is not allowed")
	case strings.Contains(raw, "*"):
		return errors.New("a wildcard is not allowed")
	case u.User != nil:
		return errors.New("user information is not allowed")
	case u.Scheme == "http" && u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1":
		return errors.New("http is for localhost only")
	case platform != "native" && u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the scheme must be https")
	case (u.Scheme == "https" || u.Scheme == "http") && u.Host == "":
		return errors.New("the host is missing")
	}
	return nil
}
