package manifest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/scopes"
)

const allOrgsIsRefused = "allOrgs is refused: Azure DevOps retires global PATs on 2026-12-01"

// times are the three durations of a PAT.
type times struct{ lifetime, rotateBefore, overlap time.Duration }

func (p *parser) parse(data []byte) *Manifest {
	root := p.document(data)
	if root == nil {
		return nil
	}
	top := p.mapping(root, "the manifest", []string{"apiVersion", "identities", "defaults", "pats"}, nil)
	if top == nil {
		return nil
	}
	m := &Manifest{Identities: map[string]IdentitySpec{}, byName: map[string]int{}}

	const versionDo = "write apiVersion: " + APIVersion
	if f, ok := top["apiVersion"]; !ok {
		p.problem(root, versionDo, "apiVersion is missing")
	} else if v, ok := p.text(f.at, "apiVersion", versionDo); ok && v != APIVersion {
		p.problem(f.at, versionDo, "apiVersion is %s, which this version of patrol does not know", quote(v))
	}

	if f, ok := top["identities"]; ok {
		p.identities(f, m)
	} else {
		p.problem(root, "declare who owns the PATs: identities, a name, and user below it", "identities is missing")
	}

	defaults := times{DefaultLifetime, DefaultRotateBefore, DefaultOverlap}
	where := root // what to blame if the defaults contradict each other; nil: reported already
	if f, ok := top["defaults"]; ok {
		where = f.key
		before := len(p.findings)
		if fields := p.mapping(f.at, "defaults", []string{"lifetime", "rotateBefore", "overlap"}, nil); fields != nil {
			defaults, _ = p.durations(fields, defaults)
		}
		if len(p.findings) > before {
			where = nil
		}
	}

	if f, ok := top["pats"]; ok {
		p.pats(f, m, defaults, where)
	} else {
		p.problem(root, "declare the PATs below it, or write pats: [] if there are none", "pats is missing")
	}
	return m
}

func (p *parser) identities(f field, m *Manifest) {
	fields, names := p.entries(f.at, "identities")
	seen := map[string]*yaml.Node{} // by lower-case name
	for i, name := range names {
		key := fields[i].key
		is := "identity " + quote(name)
		if first, twice := seen[strings.ToLower(name)]; twice {
			p.problem(key, "give it another name: Key Vault does not tell upper case from lower",
				"%s is declared in line %d already", is, first.Line)
			continue
		}
		seen[strings.ToLower(name)] = key
		p.name(key, name, is, maxIdentityName)
		// One with a problem still exists: its PATs need no further one.
		identity := IdentitySpec{Name: name}
		m.Identities[name] = identity
		keys := p.mapping(fields[i].at, is, []string{"user", "administrator"}, explainTokenKey)
		if keys == nil {
			continue
		}
		const userDo = "write the user principal name of who signs in, such as build-bot@contoso.com"
		if u, ok := keys["user"]; !ok {
			p.problem(key, userDo, "%s has no user", is)
		} else if user, ok := p.text(u.at, "user of "+is, userDo); ok {
			if !validUser(user) {
				p.problem(u.at, userDo, "user %s is not a user principal name", quote(user))
			}
			identity.User = user
		}
		if a, ok := keys["administrator"]; ok {
			identity.Administrator = p.bool(a.at, "administrator of "+is)
		}
		m.Identities[name] = identity
	}
}

func (p *parser) bool(n *yaml.Node, is string) bool {
	v := value(n)
	var b bool
	isPlainBool := v.Kind == yaml.ScalarNode && v.Tag == "!!bool" && v.Style&yaml.TaggedStyle == 0
	if !isPlainBool || v.Decode(&b) != nil {
		p.problem(n, "write true or false", "%s is neither true nor false", is)
	}
	return b
}

// pats reads the list. where is what to blame if the defaults contradict each
// other; nil if they have a problem of their own, which each PAT need not repeat.
func (p *parser) pats(f field, m *Manifest, defaults times, where *yaml.Node) {
	list := value(f.at)
	if list.Kind != yaml.SequenceNode {
		p.problem(f.at, "write one PAT per dash below it, or pats: [] if there are none", "pats must be a list, not %s",
			kind(list))
		return
	}
	if len(list.Content) == 0 {
		p.warn(f.key, "declare at least one", "no PAT is declared, so there is nothing to keep fresh")
	}
	if len(list.Content) > maxPATs {
		p.problem(f.key, "split them over several deployments", "%d PATs are more than %d", len(list.Content), maxPATs)
		return
	}
	var (
		names        = map[string]int{} // lower-case name to its line
		tokens       = map[[3]string]int{}
		identityList = slices.Sorted(maps.Keys(m.Identities))
	)
	for i, at := range list.Content {
		if len(p.findings) >= maxProblems {
			p.problem(at, "correct those before it first", "there may be more problems from here on")
			return
		}
		is := fmt.Sprintf("PAT %d", i+1)
		keys := p.mapping(at, is, []string{"name", "identity", "organization", "displayName", "scopes", "lifetime",
			"rotateBefore", "overlap", "adopt"}, explainPATKey)
		if keys == nil {
			continue
		}
		var spec rotation.Spec
		need := func(key, do string) (string, *yaml.Node, bool) {
			k, ok := keys[key]
			if !ok {
				p.problem(at, do, "%s has no %s", is, key)
				return "", nil, false
			}
			s, ok := p.text(k.at, key+" of "+is, do)
			return s, k.at, ok
		}
		nameOK := false
		if name, n, ok := need("name", "name it like the Key Vault secret that it shall be"); ok {
			is = "PAT " + quote(name)
			if first, twice := names[strings.ToLower(name)]; twice {
				p.problem(n, "give it another name: Key Vault does not tell upper case from lower",
					"%s is declared in line %d already", is, first)
			} else {
				names[strings.ToLower(name)] = n.Line
				nameOK = p.name(n, name, is, 127)
			}
			spec.Name = name
		}
		user := ""
		if name, n, ok := need("identity", "name one of the identities above"); ok {
			identity, exists := m.Identities[name]
			if !exists {
				do := "declare it under identities"
				if near := nearest(name, identityList); near != "" {
					do = fmt.Sprintf("did you mean %s?", near)
				} else if len(identityList) > 0 && len(identityList) <= 10 {
					do += ", or use one that is there: " + strings.Join(identityList, ", ")
				}
				p.problem(n, do, "%s has an identity %s that is not declared", is, quote(name))
			}
			spec.Identity, user = name, strings.ToLower(identity.User)
			if user == "" {
				user = strings.ToLower(name)
			}
		}
		const organizationDo = "write the name that follows dev.azure.com/ in its address, such as contoso"
		if name, n, ok := need("organization", organizationDo); ok {
			if !validOrganization(name) {
				do := organizationDo
				if inner := organizationOf(name); inner != "" {
					do = "write organization: " + inner
				}
				p.problem(n, do, "organization %s of %s is not the name of an organization", quote(name), is)
			}
			spec.Organization = name
		}
		spec.DisplayName = spec.Name
		displayAt := at
		if k, ok := keys["displayName"]; ok {
			displayAt = k.at
			if s, ok := p.text(k.at, "displayName of "+is, "leave it out to use the name"); ok {
				p.displayName(k.at, s, is)
				spec.DisplayName = s
			}
		}
		// Two identities may be one user. What counts is whose list the PATs
		// are in: with one name there, patrol could not distinguish them.
		if user != "" && spec.Organization != "" && spec.DisplayName != "" {
			key := [3]string{user, strings.ToLower(spec.Organization), strings.ToLower(spec.DisplayName)}
			if first, twice := tokens[key]; twice && (nameOK || spec.DisplayName != spec.Name) {
				p.problem(displayAt, "give one of them another displayName",
					"%s has the same user, organization and displayName as the one in line %d", is, first)
			} else if !twice {
				tokens[key] = at.Line
			}
		}
		if k, ok := keys["scopes"]; ok {
			spec.Scopes = p.scopes(k, is)
		} else {
			p.problem(at, "write what it may do, such as scopes: [vso.code]", "%s has no scopes", is)
		}
		before := len(p.findings)
		own, inherits := p.durations(keys, defaults)
		if len(p.findings) == before {
			spec.Lifetime, spec.RotateBefore, spec.Overlap = own.lifetime, own.rotateBefore, own.overlap
			switch {
			case where == nil:
			case !inherits:
				p.relation(own, at, is)
			case p.relation(own, where, "defaults"):
				where = nil
			}
		}
		if k, ok := keys["adopt"]; ok {
			const do = "write the authorization id of the PAT to adopt, " +
				"as rotation-failed with code ambiguous-adoption lists it"
			if id, ok := p.text(k.at, "adopt of "+is, do); ok {
				if !rotation.IsGUID(id) {
					p.problem(k.at, do, "adopt of %s is not a GUID", is)
				}
				spec.Adopt = strings.ToLower(id)
			}
		}
		m.byName[strings.ToLower(spec.Name)] = len(m.PATs)
		m.PATs = append(m.PATs, spec)
	}
}

// name checks the name of a PAT or identity, and reports whether it is good.
func (p *parser) name(n *yaml.Node, name, is string, longest int) bool {
	switch {
	case strings.Trim(name, alphanumeric+"-") != "" || name == "":
		p.problem(n, "use letters a-z, digits and hyphens only, as Key Vault does",
			"%s has a name that Key Vault does not take", is)
	case len(name) > longest:
		p.problem(n, fmt.Sprintf("make it %d characters or fewer", longest), "the name of %s is %d characters long", is,
			len(name))
	case len(name) >= 7 && strings.EqualFold(name[:7], "patrol-"):
		p.problem(n, "give it another name", "%s begins with patrol-, which is for patrol's own secrets", is)
	default:
		return true
	}
	return false
}

func (p *parser) displayName(n *yaml.Node, s, is string) {
	switch {
	case strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl):
		p.problem(n, "write one line without blanks around it",
			"displayName of %s has blanks around it or line breaks in it", is)
	case len(s) > 200:
		p.problem(n, "make it 200 bytes or fewer", "displayName of %s is %d bytes long", is, len(s))
	case strings.Contains(s, "(patrol "):
		p.problem(n, "write it without what is in brackets",
			"displayName of %s has patrol's own mark, which is added to each new PAT", is)
	}
}

// scopes reads the list and drops what others of it include.
func (p *parser) scopes(k field, is string) []string {
	const do = "write a list, such as scopes: [vso.code, vso.build]"
	list := value(k.at)
	if list.Kind != yaml.SequenceNode {
		p.problem(k.at, do, "scopes of %s must be a list, not %s", is, kind(list))
		return nil
	}
	if len(list.Content) == 0 {
		p.problem(k.at, do, "scopes of %s is empty", is)
		return nil
	}
	if len(list.Content) > maxScopes {
		p.problem(k.at, "keep what the PAT needs", "%d scopes of %s are more than %d", len(list.Content), is, maxScopes)
		return nil
	}
	var found []string
	places := map[string]*yaml.Node{}
	for _, n := range list.Content {
		scope, ok := p.text(n, "a scope of "+is, do)
		if !ok {
			continue
		}
		if len(scope) > 128 {
			p.problem(n, do, "a scope of %s is %d characters long", is, len(scope))
			continue
		}
		if places[scope] != nil {
			p.warn(n, "remove one", "scope %s of %s is there twice", scope, is)
			continue
		}
		switch v := scopes.Check(scope); v.Kind {
		case scopes.Refused:
			p.problem(n, "remove it or correct it", "%s", v.Reason)
			continue
		case scopes.Unknown:
			p.warn(n, "check its spelling", "%s", v.Reason)
		case scopes.Known:
			// Half of the useful scopes are highly privileged. Only those
			// that end all limits are worth a line at every start.
			if scope == scopes.FullAccess || scope == "vso.tokens" || scope == "vso.tokenadministration" {
				p.warn(n, "use a narrower scope if there is one", "%s", v.Reason)
			}
		}
		places[scope] = n
		found = append(found, scope)
	}
	for scope, by := range scopes.Redundant(found) {
		p.warn(places[scope], "remove it", "scope %s of %s is included in %s", scope, is, by)
		found = slices.DeleteFunc(found, func(s string) bool { return s == scope })
	}
	slices.Sort(found)
	return found
}

// durations reads the three and fills in what is not there. inherits: none was.
func (p *parser) durations(fields map[string]field, defaults times) (t times, inherits bool) {
	t, inherits = defaults, true
	for _, d := range []struct {
		key string
		to  *time.Duration
	}{{"lifetime", &t.lifetime}, {"rotateBefore", &t.rotateBefore}, {"overlap", &t.overlap}} {
		f, ok := fields[d.key]
		if !ok {
			continue
		}
		inherits = false
		const do = "write a whole number and one unit: 45s, 90m, 24h or 30d"
		s, ok := p.text(f.at, d.key, do)
		if !ok {
			continue
		}
		v, ok := ParseDuration(s)
		switch {
		case !ok:
			p.problem(f.at, do, "%s %s is not a duration", d.key, quote(s))
		case v > maxLifetime:
			p.problem(f.at, "write 365d or less", "%s %s is longer than Azure DevOps lets a PAT live", d.key, s)
		case v == 0 && d.key != "overlap":
			p.problem(f.at, "write how long, such as 10d", "%s is zero", d.key)
		default:
			*d.to = v
			if v == 0 {
				p.warn(f.at, "write the time that consumers need to read the new one",
					"with overlap %s a replaced PAT dies at once", s)
			}
		}
	}
	return t, inherits
}

// relation checks overlap <= rotateBefore < lifetime, and reports whether it has found
// a contradiction.
func (p *parser) relation(t times, at *yaml.Node, is string) bool {
	before := len(p.findings)
	if t.rotateBefore >= t.lifetime {
		p.problem(at, "shorten rotateBefore or lengthen lifetime",
			"%s: rotateBefore %s must be shorter than lifetime %s, or each PAT is due when it is made",
			is, FormatDuration(t.rotateBefore), FormatDuration(t.lifetime))
	}
	if t.overlap > t.rotateBefore {
		p.problem(at, "shorten overlap or lengthen rotateBefore",
			"%s: overlap %s must not be longer than rotateBefore %s, "+
				"or the replaced PAT runs out before its overlap ends",
			is, FormatDuration(t.overlap), FormatDuration(t.rotateBefore))
	}
	return len(p.findings) > before
}

// ParseDuration reads a whole number and one unit: 45s, 90m, 24h, 30d.
func ParseDuration(s string) (time.Duration, bool) {
	if len(s) < 2 || strings.Trim(s[:len(s)-1], "0123456789") != "" {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 's':
		unit = time.Second
	case 'm':
		unit = time.Minute
	case 'h':
		unit = time.Hour
	case 'd':
		unit = 24 * time.Hour
	default:
		return 0, false
	}
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil || n > math.MaxInt64/int64(unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// FormatDuration writes d, whole seconds, in the manifest's way, in the largest
// unit that fits.
func FormatDuration(d time.Duration) string {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if d != 0 && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// validUser knows user principal names, those of guests (#EXT#) included.
func validUser(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || len(s) > 256 || !strings.Contains(domain, ".") {
		return false
	}
	if local == "" || strings.Trim(local, alphanumeric+"'._!#^~+-") != "" {
		return false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

// validOrganization: letters, digits and hyphens, none at the ends, at most 50.
func validOrganization(s string) bool { return len(s) <= 50 && validLabel(s) }

func validLabel(s string) bool {
	return s != "" && strings.Trim(s, alphanumeric+"-") == "" && s[0] != '-' && s[len(s)-1] != '-'
}

// organizationOf finds the organization in an address of one.
func organizationOf(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	host, path, _ := strings.Cut(s, "/")
	name, isOldAddress := strings.CutSuffix(host, ".visualstudio.com")
	switch {
	case host == "dev.azure.com":
		name, _, _ = strings.Cut(path, "/")
	case !isOldAddress:
		return ""
	}
	if !validOrganization(name) {
		return ""
	}
	return name
}

// explainTokenKey knows the keys under which people write tokens down.
func explainTokenKey(key string) (what, do string) {
	switch strings.ToLower(key) {
	case "token", "pat", "value", "secret", "password", "refreshtoken":
		return "a token does not belong into this file",
			"revoke it, remove it from the file and its history, and let patrol make a new one"
	}
	return "", ""
}

func explainPATKey(key string) (what, do string) {
	if strings.EqualFold(key, "allOrgs") {
		return allOrgsIsRefused, "remove it and declare one PAT per organization"
	}
	return explainTokenKey(key)
}
