package entra

import (
	"context"
	"maps"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Whose sign-in this is goes by the object id. A name is a label, which an
// administrator may change, and may give to somebody else afterwards. Two things make a
// changed name a rename: the token of today is of the same object id, and the manifest
// names either what it named before or the name of today. A manifest that names
// somebody else never goes on as the person before.

// person is whom the vault remembers as an identity's user.
type person struct {
	name string // as last seen
	id   string // object id; empty: not known
	// declared is what the manifest named when this was found to be its user. It
	// differs from name while the manifest has not followed a rename.
	declared string
}

// remembered reads a person from a stored sign-in. What its tags have lost, its cache may
// still have.
func (a *account) remembered(tags map[string]string, d document) person {
	_, cached, _ := d.find(a.client.cfg.ClientID)
	p := person{name: tags[tagUser], id: tags[tagUserID], declared: tags[tagDeclared]}
	if p.name == "" {
		p.name = cached.Username
	}
	if p.id == "" {
		p.id = cached.LocalAccountID
	}
	if p.declared == "" {
		p.declared = p.name
	}
	return p
}

// isOf says that the manifest has not changed since, or has followed a rename.
func (p person) isOf(user string) bool {
	return strings.EqualFold(p.declared, user) || strings.EqualFold(p.name, user)
}

// checkUser refuses everybody but the manifest's user, under whatever name.
func (a *account) checkUser(p person, g grant) *rotation.Error {
	if a.isFormer {
		return a.checkFormer(p, g)
	}
	if strings.EqualFold(g.user, a.user) {
		return a.checkUserID(p.id, g)
	}
	isSame := p.id != "" && strings.EqualFold(p.id, g.userID)
	isRename := isSame && strings.EqualFold(p.declared, a.user) && printable(g.user) != ""
	if !isRename {
		return a.wrongUser(g.user)
	}
	return nil
}

// noteName takes over the name of today, of somebody who has been checked.
func (a *account) noteName(ctx context.Context, p person, name string) {
	if a.isFormer { // whose name the manifest does not have
		return
	}
	a.state.renamed = ""
	if !strings.EqualFold(name, a.user) {
		a.state.renamed = name
	}
	isNew := p.name != "" && !strings.EqualFold(p.name, name)
	lags := a.state.renamed != "" && !strings.EqualFold(a.warnedOf, name)
	if isNew || lags {
		a.warnedOf = name
		a.warn(ctx, "the user has another name than before, and the same object id: patrol goes on; "+
			"see that the manifest has the new name", "code", CodeUserRenamed, "user", a.user, "renamed", name)
	}
}

// tagName notes the name of today at the stored version.
func (a *account) tagName(ctx context.Context) {
	if a.isFormer {
		return
	}
	now := a.stored.tags
	next := maps.Clone(now)
	if now[tagUser] == "" {
		return // somebody has removed the tags: the cache remembers
	}
	a.putUser(next)
	if next[tagDeclared] != now[tagDeclared] || !strings.EqualFold(next[tagUser], now[tagUser]) {
		a.changeTags(ctx, a.putUser)
	}
}

// putUser writes the name of today into tags, and what the manifest names if that is
// something else. Without room for both the name stays that of the manifest: the next
// process finds out once more.
func (a *account) putUser(tags map[string]string) {
	delete(tags, tagDeclared)
	tags[tagUser] = a.user
	if a.state.renamed != "" && len(tags) < maxTags {
		tags[tagUser], tags[tagDeclared] = a.state.renamed, a.user
	}
}
