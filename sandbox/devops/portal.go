package devops

import (
	"slices"
	"strings"
	"time"
)

// Edit changes an active PAT as its owner would in the portal: its display name, scopes
// and end become what edit leaves behind. No policy is asked, and the end may be past.
// false: there is no active PAT of that id.
func (s *Service) Edit(authorizationID string, edit func(*PAT)) bool {
	s.mu.Lock()
	now := time.Now()
	p := s.byID[strings.ToLower(authorizationID)]
	if p == nil || p.state(now) != Active {
		s.mu.Unlock()
		return false
	}
	next := p.snapshot(now)
	edit(&next)
	p.DisplayName, p.Scopes, p.ValidTo = next.DisplayName, slices.Clone(next.Scopes), tick(next.ValidTo)
	s.recordAudit(now, "Token.PatUpdateEvent", p, origin{actor: p.owner.UPN})
	c := Change{Updated, now, p.snapshot(now)}
	s.mu.Unlock()
	s.notify(c)
	return true
}

// RenameUser changes a user's principal name, as an administrator would in the directory.
// The object id and the PATs stay.
func (s *Service) RenameUser(upn, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.mustUser(upn)
	u.UPN = to
	for _, p := range u.pats {
		p.User = to
	}
}

// RenameOrganization gives an organization another name. Its PATs live on; nothing answers
// by the old name.
func (s *Service) RenameOrganization(name, to string) {
	s.mu.Lock()
	o := s.mustOrganization(name)
	o.Name = to
	now := time.Now()
	var changes []Change
	for _, p := range s.pats {
		if p.org != o {
			continue
		}
		p.Organization = to
		changes = append(changes, Change{Updated, now, p.snapshot(now)})
	}
	s.mu.Unlock()
	for _, c := range changes {
		s.notify(c)
	}
}
