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
	top := p.mapping(root, "the manifest", []string{"apiVersion", "identities", "defaults", "calendar", "pats"}, nil)
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

	m.Overlap = defaults.overlap
	if f, ok := top["calendar"]; ok {
		m.Freezes = p.calendar(f)
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
			if strings.Contains(strings.ToUpper(user), "#EXT#") {
				m.refuseIdentity(name, p.finding(u.at, "name an account of the tenant itself",
					"user %s of %s is a guest of the tenant", quote(user), is))
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

// pats reads the list. blame is what to blame if the defaults contradict each
// other; nil if they have a problem of their own, which each PAT need not repeat.
func (p *parser) pats(f field, m *Manifest, defaults times, blame *yaml.Node) {
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
	l := &patList{
		manifest: m, declared: slices.Sorted(maps.Keys(m.Identities)), defaults: defaults, blame: blame,
		freezes: m.Freezes,
		names:   map[string]int{}, tokens: map[[3]string]int{},
	}
	for i, at := range list.Content {
		if len(p.findings) >= maxProblems {
			p.problem(at, "correct those before it first", "there may be more problems from here on")
			return
		}
		e := &patEntry{parser: p, list: l, at: at, is: fmt.Sprintf("PAT %d", i+1)}
		e.keys = p.mapping(at, e.is, []string{"name", "identity", "organization", "displayName", "scopes", "lifetime",
			"rotateBefore", "overlap", "adopt", "windows", "paused", "consumers", "switchOver"}, explainPATKey)
		if e.keys == nil {
			continue
		}
		e.read()
		l.entries = append(l.entries, e)
	}
	p.settle(l)
}

// patList is what the entries of the list have in common.
type patList struct {
	manifest *Manifest
	declared []string // identities
	defaults times
	blame    *yaml.Node
	freezes  []rotation.Freeze
	names    map[string]int    // line by lower-case name
	tokens   map[[3]string]int // line by user, organization and display name, in lower case
	entries  []*patEntry
	// defaultsUsed: an entry has all its times from the defaults, and they have been looked
	// at.
	defaultsUsed bool
}

// patEntry is one entry of the list, while it is read.
type patEntry struct {
	*parser
	list *patList
	at   *yaml.Node
	is   string // what to call it
	keys map[string]field
	spec rotation.Spec

	nameIsGood bool
	user       string     // in lower case
	identity   *yaml.Node // its place; nil: none that can be used
	adopt      *yaml.Node // its place; nil: none that names a PAT
}

// read takes the keys in the order in which messages need them: the name first.
func (e *patEntry) read() {
	e.readName()
	e.readIdentity()
	e.readOrganization()
	e.readDisplayName()
	if k, ok := e.keys["scopes"]; ok {
		e.spec.Scopes = e.scopes(k, e.is)
	} else {
		e.problem(e.at, "write what it may do, such as scopes: [vso.code]", "%s has no scopes", e.is)
	}
	e.readTimes()
	e.readAdopt()
	e.readCalendar()
	e.readSwitchOver()
}

// need reads a text that has to be there.
func (e *patEntry) need(key, do string) (string, *yaml.Node, bool) {
	k, ok := e.keys[key]
	if !ok {
		e.problem(e.at, do, "%s has no %s", e.is, key)
		return "", nil, false
	}
	s, ok := e.text(k.at, key+" of "+e.is, do)
	return s, k.at, ok
}

func (e *patEntry) readName() {
	name, n, ok := e.need("name", "name it like the Key Vault secret that it shall be")
	if !ok {
		return
	}
	e.spec.Name, e.is = name, "PAT "+quote(name)
	if first, twice := e.list.names[strings.ToLower(name)]; twice {
		e.problem(n, "give it another name: Key Vault does not tell upper case from lower",
			"%s is declared in line %d already", e.is, first)
		return
	}
	e.list.names[strings.ToLower(name)] = n.Line
	e.nameIsGood = e.name(n, name, e.is, 127)
}

func (e *patEntry) readIdentity() {
	name, n, ok := e.need("identity", "name one of the identities above")
	if !ok {
		return
	}
	identity, exists := e.list.manifest.Identities[name]
	if !exists {
		do := "declare it under identities"
		if near := nearest(name, e.list.declared); near != "" {
			do = fmt.Sprintf("did you mean %s?", near)
		} else if len(e.list.declared) > 0 && len(e.list.declared) <= 10 {
			do += ", or use one that is there: " + strings.Join(e.list.declared, ", ")
		}
		e.problem(n, do, "%s has an identity %s that is not declared", e.is, quote(name))
	}
	e.spec.Identity, e.identity, e.user = name, n, strings.ToLower(identity.User)
	if e.user == "" {
		e.user = strings.ToLower(name)
	}
}

func (e *patEntry) readOrganization() {
	const do = "write the name that follows dev.azure.com/ in its address, such as contoso"
	const one = "a PAT is for one organization: declare one PAT for each, with a name of its own"
	if k, ok := e.keys["organization"]; ok && value(k.at).Kind == yaml.SequenceNode {
		e.problem(k.at, one, "organization of %s is a list", e.is)
		return
	}
	name, n, ok := e.need("organization", do)
	if !ok {
		return
	}
	e.spec.Organization = name
	if validOrganization(name) {
		return
	}
	meant, withSecret := organizationOf(name)
	switch {
	case withSecret:
		what, do := explainTokenKey("token")
		e.problem(n, do, "%s: organization of %s has one in its address", what, e.is)
	case meant != "":
		e.problem(n, "write organization: "+meant, "organization %s of %s is not the name of an organization",
			quote(name), e.is)
	case strings.ContainsAny(name, "*,;| "):
		e.problem(n, one, "organization %s of %s is not one organization", quote(name), e.is)
	default:
		e.problem(n, do, "organization %s of %s is not the name of an organization", quote(name), e.is)
	}
}

func (e *patEntry) readDisplayName() {
	e.spec.DisplayName = e.spec.Name
	at := e.at
	if k, ok := e.keys["displayName"]; ok {
		at = k.at
		do := "leave it out to use the name"
		if cut := swallowed(k.key); cut != "" {
			do = "put it in quotes, displayName: " + strconv.Quote(cut) + ", or " + do
		}
		if s, ok := e.text(k.at, "displayName of "+e.is, do); ok {
			e.displayName(k.at, s, e.is)
			if cut := swallowed(k.at); cut != "" {
				e.warn(k.at, "put it in quotes, displayName: "+strconv.Quote(s+" "+cut),
					"displayName of %s ends before %s, which YAML takes for a comment", e.is, quote(cut))
			}
			e.spec.DisplayName = s
		}
	}
	// Two identities may be one user. What counts is whose list the PATs
	// are in: with one name there, patrol could not distinguish them.
	if e.user == "" || e.spec.Organization == "" || e.spec.DisplayName == "" {
		return
	}
	key := [3]string{e.user, strings.ToLower(e.spec.Organization), strings.ToLower(e.spec.DisplayName)}
	first, twice := e.list.tokens[key]
	if !twice {
		e.list.tokens[key] = e.at.Line
		return
	}
	if e.nameIsGood || e.spec.DisplayName != e.spec.Name {
		e.problem(at, "give one of them another displayName",
			"%s has the same user, organization and displayName as the one in line %d", e.is, first)
	}
}

func (e *patEntry) readTimes() {
	before := len(e.findings)
	own, inherits := e.durations(e.keys, e.list.defaults)
	if len(e.findings) > before {
		return
	}
	e.spec.Lifetime, e.spec.RotateBefore, e.spec.Overlap = own.lifetime, own.rotateBefore, own.overlap
	switch {
	case e.list.blame == nil:
	case !inherits:
		if !e.relation(own, e.at, e.is) {
			e.versions(own, e.at, e.is)
		}
	case e.relation(own, e.list.blame, "defaults"):
		e.list.blame = nil
	case !e.list.defaultsUsed:
		e.versions(own, e.list.blame, "defaults")
		e.list.defaultsUsed = true
	}
}

func (e *patEntry) readAdopt() {
	k, ok := e.keys["adopt"]
	if !ok {
		return
	}
	const do = "write the authorization id of the PAT to adopt, " +
		"as rotation-failed with code ambiguous-adoption lists it, " +
		"or replace to let a new PAT take the place of a value that is none"
	id, ok := e.text(k.at, "adopt of "+e.is, do)
	if !ok {
		return
	}
	e.spec.Adopt = strings.ToLower(id)
	if e.spec.Adopt == rotation.AdoptReplace {
		return
	}
	if !rotation.IsGUID(id) {
		e.problem(k.at, do, "adopt of %s is not a GUID", e.is)
	}
	e.adopt = k.at
}

// settle takes over the entries, but for those that are refused singly.
func (p *parser) settle(l *patList) {
	adopting := map[string][]*patEntry{}
	for _, e := range l.entries {
		if e.adopt != nil {
			adopting[e.spec.Adopt] = append(adopting[e.spec.Adopt], e)
		}
	}
	m, guests := l.manifest, map[string]bool{}
	for _, r := range m.Refused {
		guests[r.Identity] = true
		delete(m.Identities, r.Identity)
	}
	for _, e := range l.entries {
		switch others := adopting[e.spec.Adopt]; {
		case e.identity != nil && guests[e.spec.Identity]:
			m.refuse(p.finding(e.identity, "give it another identity, or this one another user",
				"the user of identity %s of %s is a guest", quote(e.spec.Identity), e.is), e.spec)
		case e.adopt != nil && len(others) > 1:
			const do = "leave it in the entry whose secret holds that PAT, and remove it from the other"
			m.refuse(p.finding(e.adopt, do, "adopt of %s names the same PAT as adopt of %s", e.is,
				e.another(others).is), e.spec)
		default:
			m.byName[strings.ToLower(e.spec.Name)] = len(m.PATs)
			m.PATs = append(m.PATs, e.spec)
		}
	}
}

// another is the first of several that is not e.
func (e *patEntry) another(several []*patEntry) *patEntry {
	if several[0] == e {
		return several[1]
	}
	return several[0]
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
	names, at := p.scopeNames(list, is, do)
	for i, scope := range names {
		n := at[i]
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
			p.problem(n, meant(v, "remove it or correct it"), "%s", v.Reason)
			continue
		case scopes.Unknown:
			p.warn(n, meant(v, "check its spelling"), "%s", v.Reason)
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

// scopeNames reads the entries of a list. The portal's names have commas, at which a list
// in brackets falls apart: [Code (read, write)] is put together again.
func (p *parser) scopeNames(list *yaml.Node, is, do string) (names []string, at []*yaml.Node) {
	open := false
	for _, n := range list.Content {
		name, ok := p.text(n, "a scope of "+is, do)
		if !ok {
			continue
		}
		if open {
			names[len(names)-1] += ", " + name
		} else {
			names, at = append(names, name), append(at, n)
		}
		last := names[len(names)-1]
		open = strings.Count(last, "(") > strings.Count(last, ")") && list.Style&yaml.FlowStyle != 0
	}
	return names, at
}

// meant is what to do about a scope that is not known.
func meant(v scopes.Verdict, otherwise string) string {
	switch len(v.Write) {
	case 0:
		return otherwise
	case 1:
		return "write " + v.Write[0]
	}
	return "write one of " + strings.Join(v.Write, ", ")
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

// versions warns of times that make more versions within a year than a backup takes:
// every rotation stores one, and none is ever removed.
func (p *parser) versions(t times, at *yaml.Node, is string) {
	every := t.lifetime - t.rotateBefore
	if n := int64(year / every); n > maxBackup {
		p.warn(at, "lengthen lifetime or shorten rotateBefore, or do without backups of the secret",
			"%s: a rotation every %s stores %d versions within a year, and Key Vault backs up no secret "+
				"with more than %d", is, FormatDuration(every), n, maxBackup)
	}
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

// shortestToken is the length of Azure DevOps' shorter PATs.
const shortestToken = 52

// organizationOf finds the organization in an address of one: of its pages, of one of
// its services, or from which a repository is cloned. withSecret: the address holds
// a password or token, and shall not be repeated.
func organizationOf(s string) (name string, withSecret bool) {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	s, _, _ = strings.Cut(s, "?")
	if user, rest, ok := strings.Cut(s, "@"); ok && !strings.Contains(user, "/") {
		if strings.Contains(user, ":") || len(user) >= shortestToken {
			return "", true
		}
		s = rest
	}
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '/' || r == ':' || r == '\\' })
	if len(parts) == 0 {
		return "", false
	}
	host, path := strings.ToLower(parts[0]), parts[1:]
	beforeName := []string{"v3", "22", "443"} // of ssh addresses, and ports
	for len(path) > 0 && slices.Contains(beforeName, path[0]) {
		path = path[1:]
	}
	label, domain, hasDomain := strings.Cut(host, ".")
	switch {
	case host == "dev.azure.com", strings.HasSuffix(host, ".dev.azure.com"), host == "vs-ssh.visualstudio.com":
		if len(path) > 0 {
			name = path[0]
		}
	case strings.HasSuffix("."+domain, ".visualstudio.com") && label != "app":
		name = parts[0][:len(label)]
	case !hasDomain:
		name = parts[0]
	}
	if !validOrganization(name) {
		return "", false
	}
	return name, false
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
	if strings.EqualFold(key, "organizations") {
		return "a PAT is for one organization", "write organization with one name, and one PAT for each"
	}
	if strings.EqualFold(key, "allOrgs") {
		return allOrgsIsRefused, "remove it and declare one PAT per organization"
	}
	return explainTokenKey(key)
}
