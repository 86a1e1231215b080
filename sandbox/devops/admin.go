package devops

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const zeroID = "00000000-0000-0000-0000-000000000000"

// maxRevocations is how many ids one call of token administration takes.
const maxRevocations = 1000

type wireSession struct {
	ClientID            string   `json:"clientId"`
	AccessID            string   `json:"accessId"`
	AuthorizationID     string   `json:"authorizationId"`
	HostAuthorizationID string   `json:"hostAuthorizationId"`
	UserID              string   `json:"userId"`
	ValidFrom           zoneless `json:"validFrom"`
	ValidTo             zoneless `json:"validTo"`
	DisplayName         string   `json:"displayName"`
	Scope               string   `json:"scope"`
	TargetAccounts      []string `json:"targetAccounts"`
	Token               *string  `json:"token"`
	AlternateToken      *string  `json:"alternateToken"`
	IsValid             bool     `json:"isValid"`
	IsPublic            bool     `json:"isPublic"`
	PublicData          *string  `json:"publicData"`
	Source              *string  `json:"source"`
}

// listUserPats is token administration's list of one user's PATs.
func (s *Service) listUserPats(a *answer, o *organization, subject string) {
	q := a.r.URL.Query()
	size, sizeErr := strconv.Atoi(cmp.Or(q.Get("pageSize"), "20"))
	public, publicErr := strconv.ParseBool(cmp.Or(strings.ToLower(q.Get("isPublic")), "false"))
	from := strings.ToLower(q.Get("continuationToken"))
	kind, key, _ := strings.Cut(subject, ".")
	sized := sizeErr == nil && size >= 1 && size <= cmp.Or(a.switches.MaxUserPatPage, 100)
	paged := sized && (from == "" || isUUID(from))
	described := kind != "" && key != ""
	if publicErr != nil || !paged || !described {
		a.problem(http.StatusBadRequest, "ArgumentException",
			"The subject descriptor, page size or continuation token is not valid.")
		return
	}
	now := time.Now()
	s.mu.Lock()
	i := slices.IndexFunc(s.users, func(u *user) bool { return u.descriptor == subject && u.memberOf(o) })
	if i < 0 {
		s.mu.Unlock()
		a.problem(http.StatusNotFound, "IdentityNotFoundException", "The user was not found.")
		return
	}
	u := s.users[i]
	rows := []wireSession{}
	var next *string
	started := from == ""
	for _, p := range u.pats {
		if public || p.org != o && !p.Global {
			continue
		}
		started = started || p.AuthorizationID == from
		if !started {
			continue
		}
		if len(rows) == size {
			id := p.AuthorizationID
			next = &id
			break
		}
		w := p.wire()
		rows = append(rows, wireSession{
			ClientID: zeroID, AccessID: zeroID, HostAuthorizationID: zeroID, AuthorizationID: p.AuthorizationID,
			UserID:    u.id,
			ValidFrom: zoneless(p.ValidFrom), ValidTo: zoneless(p.ValidTo), DisplayName: p.DisplayName, Scope: w.Scope,
			TargetAccounts: w.TargetAccounts, IsValid: p.state(now) == Active,
		})
	}
	s.mu.Unlock()
	if !started {
		a.problem(http.StatusBadRequest, "ArgumentException", "The continuation token is not valid.")
		return
	}
	a.json(http.StatusOK, map[string]any{"value": rows, "continuationToken": next})
}

// revokeUserPats is token administration's revocation of any user's PATs.
func (s *Service) revokeUserPats(a *answer, o *organization, c caller) {
	var in []struct {
		AuthorizationID string `json:"authorizationId"`
	}
	if !a.body(&in) {
		return
	}
	bad := len(in) == 0 || len(in) > maxRevocations
	s.mu.Lock()
	var found []*pat
	for _, x := range in {
		p := s.byID[strings.ToLower(x.AuthorizationID)]
		known := p != nil && (p.org == o || p.Global)
		if known {
			found = append(found, p)
		}
		bad = bad || !isUUID(x.AuthorizationID) || !known && a.switches.RefuseUnknownRevocation
	}
	var changes []Change
	if !bad {
		for _, p := range found {
			if p.State != Revoked {
				changes = append(changes, s.revokePAT(p, a.origin(c)))
			}
		}
	}
	s.mu.Unlock()
	if bad {
		a.problem(http.StatusBadRequest, "ArgumentException", "The authorization ids are missing or not valid.")
		return
	}
	for _, ch := range changes {
		s.notify(ch)
	}
	a.w.WriteHeader(http.StatusNoContent)
}

// revocationRule ends self-describing tokens of everybody; PATs are not of that
// kind, so the sandbox only records it.
func (s *Service) revocationRule(a *answer, o *organization, c caller) {
	var in struct {
		Scopes        string  `json:"scopes"`
		CreatedBefore *string `json:"createdBefore"`
	}
	if !a.body(&in) {
		return
	}
	before, err := time.Now(), error(nil)
	if in.CreatedBefore != nil {
		before, err = time.Parse(time.RFC3339, *in.CreatedBefore)
	}
	if strings.TrimSpace(in.Scopes) == "" || err != nil {
		a.problem(http.StatusBadRequest, "ArgumentException", "The scopes are missing, or the date is not valid.")
		return
	}
	s.mu.Lock()
	s.rules = append(s.rules, RevocationRuleRecord{o.Name, in.Scopes, before.UTC(), c.user.UPN})
	s.mu.Unlock()
	a.w.WriteHeader(http.StatusCreated)
}

type wireUser struct {
	SubjectKind   string `json:"subjectKind"`
	Domain        string `json:"domain"`
	PrincipalName string `json:"principalName"`
	MailAddress   string `json:"mailAddress"`
	Origin        string `json:"origin"`
	OriginID      string `json:"originId"`
	DisplayName   string `json:"displayName"`
	Descriptor    string `json:"descriptor"`
}

// graphUsers lists the organization's users; the next page's token is in a
// header.
func (s *Service) graphUsers(a *answer, o *organization) {
	q := a.r.URL.Query()
	kinds := strings.Split(strings.ToLower(q.Get("subjectTypes")), ",")
	size := cmp.Or(a.switches.GraphPage, 500)
	rows := []wireUser{}
	s.mu.Lock()
	if q.Get("subjectTypes") == "" || slices.Contains(kinds, "aad") {
		for _, u := range s.users {
			if u.memberOf(o) {
				rows = append(rows, wireUser{"user", o.TenantID, u.UPN, u.MailAddress, "aad", u.ObjectID, u.DisplayName,
					u.descriptor})
			}
		}
	}
	s.mu.Unlock()
	first := 0
	if from := q.Get("continuationToken"); from != "" {
		first = slices.IndexFunc(rows, func(u wireUser) bool { return u.Descriptor == from })
		if first < 0 {
			a.problem(http.StatusBadRequest, "InvalidContinuationTokenException",
				"The continuation token is not valid.")
			return
		}
	}
	rows = rows[first:]
	if len(rows) > size {
		a.w.Header().Set("X-MS-ContinuationToken", rows[size].Descriptor)
		rows = rows[:size]
	}
	a.json(http.StatusOK, map[string]any{"count": len(rows), "value": rows})
}
