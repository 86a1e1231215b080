package devops

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Values of patTokenError that the service gives.
const (
	none               = "none"
	nameRequired       = "displayNameRequired"
	invalidName        = "invalidDisplayName"
	invalidValidTo     = "invalidValidTo"
	invalidScope       = "invalidScope"
	notFound           = "authorizationNotFound"
	invalidID          = "invalidAuthorizationId"
	tenantUnreadable   = "failedToReadTenantPolicy"
	orgUnreadable      = "failedToReadOrgPolicy"
	globalViolation    = "globalPatPolicyViolation"
	globalBlocked      = "globalPATCreationBlocked"
	fullScopeViolation = "fullScopePatPolicyViolation"
	lifespanViolation  = "patLifespanPolicyViolation"
	creationViolation  = "disablePatCreationPolicyViolation"
	accessDenied       = "accessDenied"
	expiredForEver     = "expiredPatCannotBeExtended"
)

const maxTop = 100

// list is GET tokens/pats: the caller's own PATs of this organization, and the
// global ones.
func (s *Service) list(a *answer, o *organization, c caller) {
	q := a.r.URL.Query()
	filter := strings.ToLower(q.Get("displayFilterOption"))
	if filter == "" {
		filter = "active"
		if a.switches.ListAllByDefault {
			filter = "all"
		}
	}
	sortBy := strings.ToLower(cmp.Or(q.Get("sortByOption"), "displayDate"))
	ascending, err := strconv.ParseBool(cmp.Or(strings.ToLower(q.Get("isSortAscending")), "false"))
	top := cmp.Or(a.switches.DefaultTop, maxTop)
	if raw := q.Get("$top"); raw != "" && err == nil {
		top, err = strconv.Atoi(raw)
	}
	if top > maxTop && a.switches.ClampTop {
		top = maxTop
	}
	paged := err == nil && top >= 1 && top <= maxTop
	knownFilter := slices.Contains([]string{"active", "revoked", "expired", "all"}, filter)
	knownOrder := slices.Contains([]string{"displayname", "displaydate", "status"}, sortBy)
	if !paged || !knownFilter || !knownOrder {
		a.problem(http.StatusBadRequest, "ArgumentOutOfRangeException", "A parameter of the list is out of range.")
		return
	}

	now := time.Now()
	s.mu.Lock()
	var all []*pat
	for _, p := range c.user.pats {
		here := p.org == o || p.Global
		if here && (filter == "all" || string(p.state(now)) == filter) {
			all = append(all, p)
		}
	}
	compare := func(x, y *pat) int {
		n := 0
		switch sortBy {
		case "displayname":
			n = cmp.Compare(strings.ToLower(x.DisplayName), strings.ToLower(y.DisplayName))
		case "displaydate":
			n = x.ValidTo.Compare(y.ValidTo)
		case "status":
			n = cmp.Compare(x.state(now), y.state(now))
		}
		n = cmp.Or(n, cmp.Compare(x.order, y.order))
		if !ascending {
			n = -n
		}
		return n
	}
	slices.SortFunc(all, compare)

	// The continuation token names the last PAT of the page before and the
	// filter that it was made for: every page must repeat the same filter.
	mark := "|" + filter + "|" + sortBy + "|" + strconv.FormatBool(ascending)
	if raw := q.Get("continuationToken"); raw != "" {
		text, err := base64.RawURLEncoding.DecodeString(raw)
		id, rest, _ := strings.Cut(string(text), "|")
		last := s.byID[id]
		owned := last != nil && last.owner == c.user
		if err != nil || "|"+rest != mark || !owned {
			s.mu.Unlock()
			a.problem(http.StatusBadRequest, "InvalidContinuationTokenException",
				"The continuation token does not belong to this list.")
			return
		}
		all = slices.DeleteFunc(all, func(p *pat) bool { return compare(p, last) <= 0 })
	}
	more := len(all) > top
	if more {
		all = all[:top]
	}
	rows := make([]*wirePAT, 0, len(all))
	for _, p := range all {
		rows = append(rows, p.wire())
	}
	s.mu.Unlock()

	body := map[string]any{"patTokens": rows}
	switch {
	case more:
		body["continuationToken"] = base64.RawURLEncoding.EncodeToString([]byte(all[len(all)-1].AuthorizationID + mark))
	case a.switches.LastPage == LastPageEmpty:
		body["continuationToken"] = ""
	case a.switches.LastPage == LastPageNull:
		body["continuationToken"] = nil
	}
	a.json(http.StatusOK, body)
}

// own finds the caller's PAT by id, as seen from this organization; the lock is
// held.
func (s *Service) own(o *organization, c caller, id string) *pat {
	p := s.byID[strings.ToLower(id)]
	if p == nil || p.owner != c.user {
		return nil
	}
	if !p.Global && p.org != o {
		return nil
	}
	return p
}

func (s *Service) get(a *answer, o *organization, c caller) {
	id := a.r.URL.Query().Get("authorizationId")
	if !isUUID(id) {
		a.problem(http.StatusBadRequest, "ArgumentException", "authorizationId is not a GUID.")
		return
	}
	s.mu.Lock()
	p := s.own(o, c, id)
	var row *wirePAT
	if p != nil && (p.State != Revoked || a.switches.GetGone == GetRevoked) {
		row = p.wire()
	}
	s.mu.Unlock()
	switch {
	case row != nil:
		a.result("", row, none)
	case a.switches.GetGone == GetNotFound:
		a.problem(http.StatusNotFound, "AuthorizationNotFoundException", "The authorization was not found.")
	case a.switches.GetGone == GetNull:
		a.result("", nil, none)
	default:
		a.result("", nil, notFound)
	}
}

// body reads a JSON request; the answer to a wrong one has been given when ok is
// false.
func (a *answer) body(v any) (ok bool) {
	kind, _, _ := mime.ParseMediaType(a.r.Header.Get("Content-Type"))
	if kind != "application/json" {
		a.problem(http.StatusUnsupportedMediaType, "VssRequestContentTypeNotSupportedException",
			"The request's content type is not supported: application/json is.")
		return false
	}
	raw, err := io.ReadAll(http.MaxBytesReader(a.w, a.r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		a.problem(http.StatusBadRequest, "JsonReaderException", "TF400898: An Internal Error Occurred. Activity Id: "+
			a.w.Header().Get("ActivityId")+".")
	}
	return err == nil
}

func (s *Service) create(a *answer, o *organization, c caller, version string) {
	var in struct {
		DisplayName string     `json:"displayName"`
		Scope       string     `json:"scope"`
		ValidTo     *time.Time `json:"validTo"`
		AllOrgs     bool       `json:"allOrgs"`
	}
	if !a.body(&in) {
		return
	}
	now := time.Now()
	validTo := now.AddDate(0, 0, 30)
	if in.ValidTo != nil {
		validTo = *in.ValidTo
	}
	scopes := strings.Fields(in.Scope)
	s.mu.Lock()
	failure := a.switches.check(in.DisplayName, scopes, validTo, now)
	if failure == none {
		failure = o.Policies.permit(a.switches, c.user.UPN, scopes, in.AllOrgs)
	}
	if failure == none {
		validTo, failure = o.Policies.limit(a.switches, c.user.UPN, validTo, now)
	}
	if failure != none {
		s.mu.Unlock()
		a.result(version, nil, failure)
		return
	}
	p := s.issue(o, c.user, in.DisplayName, scopes, validTo, in.AllOrgs, now)
	s.mails++
	s.recordAudit(now, "Token.PatCreateEvent", p, a.origin(c))
	row := p.wire()
	token := p.Token
	row.Token = &token
	change := Change{Created, p.ValidFrom, p.snapshot(now)}
	s.mu.Unlock()
	s.notify(change)
	a.result(version, row, none)
}

func (s *Service) update(a *answer, o *organization, c caller, version string) {
	var in struct {
		AuthorizationID string     `json:"authorizationId"`
		DisplayName     *string    `json:"displayName"`
		Scope           *string    `json:"scope"`
		ValidTo         *time.Time `json:"validTo"`
		AllOrgs         *bool      `json:"allOrgs"`
	}
	if !a.body(&in) {
		return
	}
	if !isUUID(in.AuthorizationID) {
		a.result(version, nil, invalidID)
		return
	}
	now := time.Now()
	s.mu.Lock()
	p := s.own(o, c, in.AuthorizationID)
	failure := none
	switch {
	case p == nil || p.State == Revoked:
		failure = notFound
	case p.state(now) == Expired:
		failure = expiredForEver
	case a.switches.UpdateNeedsAll && in.DisplayName == nil:
		failure = nameRequired
	case a.switches.UpdateNeedsAll && in.Scope == nil:
		failure = invalidScope
	}
	if failure != none {
		s.mu.Unlock()
		a.result(version, nil, failure)
		return
	}
	name, scopes, validTo, global := p.DisplayName, p.Scopes, p.ValidTo, p.Global
	if in.DisplayName != nil {
		name = *in.DisplayName
	}
	if in.Scope != nil {
		scopes = strings.Fields(*in.Scope)
	}
	if in.AllOrgs != nil {
		global = *in.AllOrgs
	}
	if in.ValidTo != nil {
		validTo = *in.ValidTo
	}
	failure = a.switches.check(name, scopes, validTo, now)
	if failure == none {
		failure = p.org.Policies.permit(a.switches, c.user.UPN, scopes, global)
	}
	if failure == none && in.ValidTo != nil {
		// A policy counts from the PAT's birth: it cannot be prolonged past it.
		validTo, failure = p.org.Policies.limit(a.switches, c.user.UPN, validTo, p.ValidFrom)
	}
	if failure != none {
		s.mu.Unlock()
		a.result(version, nil, failure)
		return
	}
	p.DisplayName, p.Scopes, p.ValidTo, p.Global = name, scopes, tick(validTo), global
	s.recordAudit(now, "Token.PatUpdateEvent", p, a.origin(c))
	row := p.wire()
	change := Change{Updated, now, p.snapshot(now)}
	s.mu.Unlock()
	s.notify(change)
	a.result(version, row, none)
}

func (s *Service) revoke(a *answer, o *organization, c caller) {
	id := a.r.URL.Query().Get("authorizationId")
	if !isUUID(id) {
		a.problem(http.StatusBadRequest, "ArgumentException", "authorizationId is not a GUID.")
		return
	}
	s.mu.Lock()
	p := s.own(o, c, id)
	if p != nil && p.State != Revoked {
		change := s.revokePAT(p, a.origin(c))
		s.mu.Unlock()
		s.notify(change)
		a.w.WriteHeader(http.StatusNoContent)
		return
	}
	s.mu.Unlock()
	switch {
	case a.switches.SecondDelete == DeleteNoContent && p != nil:
		a.w.WriteHeader(http.StatusNoContent)
	case a.switches.SecondDelete == DeleteError:
		a.result("", nil, notFound)
	default:
		a.problem(http.StatusNotFound, "AuthorizationNotFoundException", "The authorization was not found.")
	}
}

// check refuses what no organization accepts.
func (sw Switches) check(name string, scopes []string, validTo, now time.Time) string {
	switch {
	case strings.TrimSpace(name) == "":
		return nameRequired
	case len([]rune(name)) > cmp.Or(sw.MaxDisplayName, 256):
		return invalidName
	case !validTo.After(now), validTo.After(now.AddDate(1, 0, 0)):
		return invalidValidTo
	case len(scopes) == 0, slices.ContainsFunc(scopes, func(x string) bool { return !knownScope(x) }):
		return invalidScope
	}
	return none
}

// permit applies the policies on who may create what.
func (p Policies) permit(sw Switches, upn string, scopes []string, global bool) string {
	exempt := slices.ContainsFunc(p.Exempt, func(x string) bool { return strings.EqualFold(x, upn) })
	packaging := !slices.ContainsFunc(scopes, func(x string) bool { return !strings.HasPrefix(x, "vso.packaging") })
	switch {
	case p.TenantUnreadable:
		return tenantUnreadable
	case p.OrgUnreadable:
		return orgUnreadable
	case global && p.GlobalRetired:
		return globalBlocked
	case exempt:
		return none
	case global && p.Global:
		return globalViolation
	case p.FullScope && slices.Contains(scopes, "app_token"):
		return fullScopeViolation
	case p.Creation && (!p.PackagingOnly || !packaging):
		if sw.CreationDenied {
			return accessDenied
		}
		return creationViolation
	}
	return none
}

// limit applies the maximum lifespan, counted from from.
func (p Policies) limit(sw Switches, upn string, validTo, from time.Time) (time.Time, string) {
	last := from.AddDate(0, 0, p.MaxLifespanDays)
	exempt := slices.ContainsFunc(p.Exempt, func(x string) bool { return strings.EqualFold(x, upn) })
	if p.MaxLifespanDays == 0 || exempt || !validTo.After(last) {
		return validTo, none
	}
	if sw.LifespanError {
		return validTo, lifespanViolation
	}
	return last, none
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		allowed := "0123456789abcdefABCDEF"
		if slices.Contains([]int{8, 13, 18, 23}, i) {
			allowed = "-"
		}
		if !strings.ContainsRune(allowed, r) {
			return false
		}
	}
	return true
}
