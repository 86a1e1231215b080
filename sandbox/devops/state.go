package devops

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"
)

// Organization describes an organization to be added.
type Organization struct {
	Name     string
	TenantID string // bearers of other tenants are sent to sign in; empty: of any tenant
	// Public: it has public projects, so that anonymous callers, and those
	// with refused credentials, get a 200 from connectionData.
	Public   bool
	Policies Policies
}

// User describes a user to be added.
type User struct {
	UPN           string
	ObjectID      string // Entra's id; empty: made up
	DisplayName   string
	Organizations []string // where the user is a member; empty: everywhere
	MailAddress   string   // empty: the UPN
	Administrator bool     // Project Collection Administrator of those organizations
	Auditor       bool     // may view their audit log, as an Administrator may
}

// State is what has become of a PAT.
type State string

const (
	Active  State = "active"
	Revoked State = "revoked"
	Expired State = "expired"
)

// PAT is a personal access token as only the sandbox can see it.
type PAT struct {
	AuthorizationID string
	Organization    string // where it was made
	User            string // UPN
	DisplayName     string
	Scopes          []string
	ValidFrom       time.Time
	ValidTo         time.Time
	Global          bool
	Token           string
	State           State
	RevokedAt       time.Time
}

// ChangeKind is what happened to a PAT.
type ChangeKind string

const (
	Created ChangeKind = "created"
	Updated ChangeKind = "updated"
	Ended   ChangeKind = "revoked"
)

// Change is one event in the life of a PAT.
type Change struct {
	Kind ChangeKind
	At   time.Time
	PAT  PAT
}

// Audit is an entry of the organization's audit log.
type Audit struct {
	At              time.Time
	Action          string // Token.PatCreateEvent
	Organization    string
	Actor           string // UPN
	AuthorizationID string
	UserAgent       string
	DisplayName     string // of the PAT
	Owner           string // UPN of the PAT's owner
	CorrelationID   string // the call's X-VSS-E2EID; empty: no call of this API
}

// RevocationRuleRecord is a rule against self-describing tokens, which PATs are
// not: the sandbox only keeps it.
type RevocationRuleRecord struct {
	Organization  string
	Scopes        string
	CreatedBefore time.Time
	Actor         string // UPN
}

// origin is who does something, and by which call.
type origin struct{ actor, userAgent, correlation string }

func (a *answer) origin(c caller) origin {
	return origin{c.user.UPN, a.r.UserAgent(), a.w.Header().Get("X-VSS-E2EID")}
}

type organization struct {
	Organization
	id      string
	offline bool
}

type user struct {
	User
	id         string // of the identity in Azure DevOps
	descriptor string
	disabled   bool
	signedIn   time.Time
	pats       []*pat

	// The next bearer token that is shown gets a claims challenge; it stays
	// refused, a later one is accepted.
	challenge  bool
	challenged [sha256.Size]byte

	usage      []usage
	retryAfter time.Duration // to be sent with the next success
	asDate     bool
	pauseEnds  time.Time
	impatient  int
}

type pat struct {
	PAT
	owner *user
	org   *organization
	order int
}

// AddOrganization adds an organization and returns its id.
func (s *Service) AddOrganization(o Organization) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	org := &organization{Organization: o, id: s.uuid()}
	s.orgs = append(s.orgs, org)
	return org.id
}

// AddUser adds a user and returns the id that connectionData shows for it.
func (s *Service) AddUser(u User) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.ObjectID == "" {
		u.ObjectID = s.uuid()
	}
	if u.DisplayName == "" {
		u.DisplayName = u.UPN
	}
	if u.MailAddress == "" {
		u.MailAddress = u.UPN
	}
	one := &user{User: u, id: s.uuid(), descriptor: descriptor("aad", s.uuid()), signedIn: time.Now()}
	s.users = append(s.users, one)
	return one.id
}

// SetPolicies replaces an organization's policies.
func (s *Service) SetPolicies(org string, p Policies) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustOrganization(org).Policies = p
}

// SetOffline takes an organization off line, or brings it back.
func (s *Service) SetOffline(org string, offline bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustOrganization(org).offline = offline
}

// SetDisabled disables a user, or lets it back in: its PATs then work again.
func (s *Service) SetDisabled(upn string, disabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustUser(upn).disabled = disabled
}

// RecordSignIn records that the user has signed in with a browser, now.
func (s *Service) RecordSignIn(upn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustUser(upn).signedIn = time.Now()
}

// Challenge refuses the bearer token that the user shows next, with a claims
// challenge, for as long as it is shown; a new one is accepted.
func (s *Service) Challenge(upn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustUser(upn).challenge = true
}

// SlowDown makes the next successful answer to the user ask for a pause, as a
// date if asDate. Calls that come before its end are counted by Impatient.
func (s *Service) SlowDown(upn string, pause time.Duration, asDate bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.mustUser(upn)
	u.retryAfter, u.asDate = pause, asDate
}

// Impatient counts the calls that came in a pause that SlowDown or the throttle
// had asked for.
func (s *Service) Impatient(upn string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mustUser(upn).impatient
}

// Seed puts a PAT there, as if made by hand, now. user is a UPN, scopes are
// separated by spaces; no policy is asked, and validTo may be past.
func (s *Service) Seed(org, user, displayName, scopes string, validTo time.Time, global bool) (authorizationID,
	token string) {
	s.mu.Lock()
	p := s.issue(s.mustOrganization(org), s.mustUser(user), displayName, strings.Fields(scopes), validTo, global,
		time.Now())
	c := Change{Created, p.ValidFrom, p.snapshot(time.Now())}
	s.mu.Unlock()
	s.notify(c)
	return p.AuthorizationID, p.Token
}

// Revoke ends a PAT as its owner would in the portal. false: there is no active
// PAT of that id.
func (s *Service) Revoke(authorizationID string) bool {
	s.mu.Lock()
	p := s.byID[strings.ToLower(authorizationID)]
	if p == nil || p.State == Revoked {
		s.mu.Unlock()
		return false
	}
	c := s.revokePAT(p, origin{actor: p.owner.UPN})
	s.mu.Unlock()
	s.notify(c)
	return true
}

// PATs are the PATs that a user has made in an organization, oldest first, with
// their state at this moment. An empty org or user means every one.
func (s *Service) PATs(org, user string) []PAT {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var out []PAT
	for _, p := range s.pats {
		ofOrg := org == "" || strings.EqualFold(p.Organization, org)
		ofUser := user == "" || strings.EqualFold(p.User, user)
		if ofOrg && ofUser {
			out = append(out, p.snapshot(now))
		}
	}
	return out
}

// Works reports whether the organization accepts the token at this moment.
func (s *Service) Works(org, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, p := s.organization(org), s.byToken[token]
	return o != nil && !o.offline && p != nil && s.judge(p, o, time.Now()) == accepted
}

// AuditLog is what has been recorded, oldest first.
func (s *Service) AuditLog() []Audit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.audit)
}

// RevocationRules are the rules that administrators have made, oldest first.
func (s *Service) RevocationRules() []RevocationRuleRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rules)
}

// SetAdministrator makes a user an administrator of its organizations, or no
// longer one.
func (s *Service) SetAdministrator(upn string, administrator bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustUser(upn).Administrator = administrator
}

// Descriptor is a user's subject descriptor.
func (s *Service) Descriptor(upn string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mustUser(upn).descriptor
}

// Mails counts the messages to owners: one at each creation.
func (s *Service) Mails() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

// OnChange registers a function that is called for every creation, update and
// revocation, once it has happened and before its answer leaves. It may call
// the service's methods.
func (s *Service) OnChange(f func(Change)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onChange = append(s.onChange, f)
}

func (s *Service) notify(c Change) {
	s.mu.Lock()
	fs := slices.Clone(s.onChange)
	s.mu.Unlock()
	for _, f := range fs {
		f(c)
	}
}

// The functions below want the lock to be held.

func (s *Service) organization(name string) *organization {
	for _, o := range s.orgs {
		if strings.EqualFold(o.Name, name) {
			return o
		}
	}
	return nil
}

// user finds a user by UPN or object id.
func (s *Service) user(key string) *user {
	for _, u := range s.users {
		if key != "" && (strings.EqualFold(u.UPN, key) || strings.EqualFold(u.ObjectID, key)) {
			return u
		}
	}
	return nil
}

// mustOrganization and mustUser serve a test's set-up: a wrong name there is a
// mistake in the test.
func (s *Service) mustOrganization(name string) *organization {
	if o := s.organization(name); o != nil {
		return o
	}
	panic("the sandbox's Azure DevOps has no organization " + name)
}

func (s *Service) mustUser(key string) *user {
	if u := s.user(key); u != nil {
		return u
	}
	panic("the sandbox's Azure DevOps has no user " + key)
}

func (u *user) memberOf(o *organization) bool {
	return len(u.Organizations) == 0 || slices.ContainsFunc(u.Organizations,
		func(n string) bool { return strings.EqualFold(n, o.Name) })
}

func (s *Service) issue(o *organization, u *user, displayName string, scopes []string, validTo time.Time, global bool,
	now time.Time) *pat {
	p := &pat{owner: u, org: o, order: len(s.pats), PAT: PAT{
		AuthorizationID: s.uuid(), Organization: o.Name, User: u.UPN, DisplayName: displayName,
		Scopes:    slices.Clone(scopes),
		ValidFrom: tick(now), ValidTo: tick(validTo), Global: global, Token: s.token(now), State: Active,
	}}
	s.pats = append(s.pats, p)
	u.pats = append(u.pats, p)
	s.byID[p.AuthorizationID] = p
	s.byToken[p.Token] = p
	return p
}

// revokePAT revokes a PAT.
func (s *Service) revokePAT(p *pat, by origin) Change {
	now := time.Now()
	p.State, p.RevokedAt = Revoked, now
	s.recordAudit(now, "Token.PatRevokeEvent", p, by)
	return Change{Ended, now, p.snapshot(now)}
}

func (s *Service) recordAudit(at time.Time, action string, p *pat, by origin) {
	s.audit = append(s.audit, Audit{at, action, p.Organization, by.actor, p.AuthorizationID, by.userAgent,
		p.DisplayName, p.User, by.correlation})
}

func (p *pat) state(now time.Time) State {
	if p.State == Active && !now.Before(p.ValidTo) {
		return Expired
	}
	return p.State
}

func (p *pat) snapshot(now time.Time) PAT {
	out := p.PAT
	out.Scopes = slices.Clone(p.Scopes)
	out.State = p.state(now)
	return out
}

// verdict is what an organization makes of a PAT that is shown to it.
type verdict int

const (
	unknownToken verdict = iota // unknown, revoked, or of another organization
	accepted
	expiredToken
	inactiveToken
)

func (s *Service) judge(p *pat, o *organization, now time.Time) verdict {
	end := s.switches.GlobalPATsEnd
	if end.IsZero() {
		end = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	}
	switch {
	case p.State == Revoked && !now.Before(p.RevokedAt.Add(s.switches.RevocationLatency)),
		s.switches.IssueLatency > 0 && now.Before(p.ValidFrom.Add(s.switches.IssueLatency)),
		!p.Global && p.org != o,
		p.Global && (!now.Before(end) || o.Policies.Creation),
		p.owner.disabled, !p.owner.memberOf(o):
		return unknownToken
	case !now.Before(p.ValidTo):
		return expiredToken
	case s.switches.Inactivity && p.owner.signedIn.Before(p.ValidFrom) && now.After(p.ValidFrom.AddDate(0, 0, 90)):
		return inactiveToken
	}
	return accepted
}
