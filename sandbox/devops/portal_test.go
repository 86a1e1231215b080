package devops_test

import (
	"slices"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devops"
)

// portal is an Azure DevOps with one user's PAT.
func portal(t *testing.T) (s *devops.Service, id, token string) {
	t.Helper()
	s = devops.New(devops.Config{})
	s.AddOrganization(devops.Organization{Name: "contoso"})
	s.AddUser(devops.User{UPN: "ada@contoso.com"})
	id, token = s.Seed("contoso", "ada@contoso.com", "a PAT", "vso.code", time.Now().Add(time.Hour), false)
	return s, id, token
}

func TestAPATIsEditedInThePortal(t *testing.T) {
	s, id, _ := portal(t)
	var changes []devops.Change
	s.OnChange(func(c devops.Change) { changes = append(changes, c) })
	end := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	edited := s.Edit(id, func(p *devops.PAT) {
		p.DisplayName, p.Scopes, p.ValidTo = "another name", []string{"vso.build"}, end
	})
	if !edited {
		t.Fatal("the PAT could not be edited")
	}
	p := s.PATs("contoso", "ada@contoso.com")[0]
	if p.DisplayName != "another name" {
		t.Errorf("display name %q", p.DisplayName)
	}
	if !slices.Equal(p.Scopes, []string{"vso.build"}) {
		t.Errorf("scopes %q", p.Scopes)
	}
	if !p.ValidTo.Equal(end) {
		t.Errorf("ends at %v, want %v", p.ValidTo, end)
	}
	if len(changes) != 1 || changes[0].Kind != devops.Updated {
		t.Errorf("changes %v, want one update", changes)
	}
}

func TestAPATWhoseEndIsMovedIntoThePastIsOver(t *testing.T) {
	s, id, token := portal(t)
	s.Edit(id, func(p *devops.PAT) { p.ValidTo = time.Now().Add(-time.Minute) })
	if s.Works("contoso", token) {
		t.Error("the PAT works after its end")
	}
	if s.Edit(id, func(*devops.PAT) {}) {
		t.Error("a PAT that is over was edited")
	}
}

func TestARenamedUserKeepsItsPATs(t *testing.T) {
	s, _, token := portal(t)
	s.RenameUser("ada@contoso.com", "lovelace@contoso.com")
	if n := len(s.PATs("contoso", "lovelace@contoso.com")); n != 1 {
		t.Errorf("%d PATs by the new name, want one", n)
	}
	if !s.Works("contoso", token) {
		t.Error("the PAT does not work any more")
	}
}

func TestARenamedOrganizationKeepsItsPATsAndNothingAnswersByItsOldName(t *testing.T) {
	s, _, token := portal(t)
	s.RenameOrganization("contoso", "contoso-ltd")
	if !s.Works("contoso-ltd", token) {
		t.Error("the PAT does not work by the new name")
	}
	if s.Works("contoso", token) {
		t.Error("the PAT works by the old name")
	}
	if n := len(s.PATs("contoso-ltd", "")); n != 1 {
		t.Errorf("%d PATs by the new name, want one", n)
	}
}
