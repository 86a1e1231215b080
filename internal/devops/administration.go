package devops

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	graphResource       = "graph/users"
	userPATsResource    = "tokenadmin/personalaccesstokens"
	revocationsResource = "tokenadmin/revocations"
	rulesResource       = "tokenadmin/revocationrules"
	auditResource       = "audit/auditlog"

	graphScope    = "vso.graph"
	tokensScope   = "vso.tokenadministration"
	auditScope    = "vso.auditlog"
	auditPageSize = 200
	// defaultAuditLimit is how many entries are read if nobody says.
	defaultAuditLimit = 1000
	// maxAuditPages bounds the search through events that are not of tokens.
	maxAuditPages = 100

	// MaxRevocations is how many PATs one call may revoke: Microsoft's own
	// script sends at most 990.
	MaxRevocations = 900

	// The largest page of a user's PATs is not published. If the usual size is
	// refused, the one of the published sample is tried.
	userPageSize, smallUserPageSize = 100, 20
)

// AdministrationScopes are the delegated permissions that an administrator's
// identity needs beside DefaultScopes.
func AdministrationScopes() []string {
	return []string{Resource + "/" + tokensScope, Resource + "/" + graphScope, Resource + "/" + auditScope}
}

// Administration acts on the PATs of everybody in an organization, by the sign-in
// of an administrator. It shares its Client's pipeline, bearer tokens and pauses.
type Administration struct{ client *Client }

var _ administration.Organizations = Administration{}

// Administration is the Client's other side.
func (c *Client) Administration() Administration { return Administration{c} }

// call makes a call of an administrator.
func (Administration) call(o rotation.Owner, doing, scope string) *call {
	k := &call{owner: o, doing: doing + " on behalf", scopes: []string{Resource + "/" + scope}}
	k.refuse = func(a *answer, e serviceError) error { return k.administratorRefused(a, e, scope) }
	return k
}

// do sends a call, and says what a sign-in that does not cover it means.
func (ad Administration) do(ctx context.Context, k *call, method, resource string, q url.Values, body any) (*answer,
	error) {
	a, err := ad.client.do(ctx, k, method, resource, q, body)
	e := rotation.AsError(err)
	if e != nil && (e.Code == rotation.UnknownScope || e.Code == rotation.DeclinedScopes) {
		return nil, k.scopesMissing(err)
	}
	return a, err
}

func (k *call) scopesMissing(cause error) *rotation.Error {
	message := fmt.Sprintf("the identity's sign-in does not cover %s: mark the identity administrator: true "+
		"in the manifest, grant the permission to the app registration, and sign in again",
		strings.TrimPrefix(k.scopes[0], Resource+"/"))
	return k.fail(rotation.Configuration, administration.ScopesMissing, message, cause)
}

// administratorRefused maps the refusals of administration. Token administration
// answers 401 both to a user who is no administrator and to a token without its
// scope.
func (k *call) administratorRefused(a *answer, e serviceError, scope string) error {
	fail := func(code, message string, cause error) error {
		return k.with(a, k.fail(rotation.Configuration, code, message, cause))
	}
	switch s := a.status; {
	case s == http.StatusUnauthorized && scope != tokensScope:
		err := k.scopesMissing(nil)
		err.Message += " (or its user is not a member of the organization)"
		return k.with(a, err)
	case s == http.StatusUnauthorized:
		return fail(administration.NotAdministrator, "Azure DevOps does not let the identity administer tokens: "+
			"its user must be a Project Collection Administrator of the organization, and its sign-in must cover "+
			scope+" (administrator: true in the manifest, then sign in again)", nil)
	case s == http.StatusForbidden && scope == auditScope:
		return fail(administration.NotAdministrator, "the identity's user may not view the audit log: "+
			"make it a Project Collection Administrator of the organization, "+
			"or give it the permission View audit log", nil)
	case s == http.StatusForbidden:
		return fail(administration.NotAdministrator,
			"the identity's user is not a Project Collection Administrator of the organization: "+
				"add it in the organization's settings under Permissions, or use another identity", nil)
	case s == http.StatusNotFound && e.typeKey == "":
		return fail(administration.OrganizationUnknown, "Azure DevOps knows no such organization", nil)
	case s == http.StatusNotFound && k.item != "":
		return fail(administration.UserUnknown, "Azure DevOps knows no such user in the organization",
			rotation.ErrNotFound)
	}
	return nil
}

// Users returns every member of the organization that one of the names means.
// Azure DevOps cannot be asked for one: the whole list is read, once for all
// names.
func (ad Administration) Users(ctx context.Context, o rotation.Owner, names []string) ([]administration.User, error) {
	k := ad.call(o, "finding users", graphScope)
	q := url.Values{"subjectTypes": {"aad,msa"}}
	var found []administration.User
	seen := map[string]bool{}
	for range maxPages {
		a, err := ad.do(ctx, k, http.MethodGet, graphResource, q, nil)
		if err != nil {
			return nil, err
		}
		var page graphUsers
		if err := a.decode(&page); err != nil || page.Users == nil {
			return nil, k.badAnswer(a)
		}
		for _, w := range page.Users {
			u := w.user()
			if slices.ContainsFunc(names, u.Is) {
				if u.Descriptor == "" {
					return nil, k.badAnswer(a)
				}
				found = append(found, u)
			}
		}
		next := a.header.Get("X-MS-ContinuationToken")
		if next == "" {
			return found, nil
		}
		if seen[next] {
			return nil, k.badAnswer(a)
		}
		seen[next] = true
		q.Set("continuationToken", next)
	}
	return nil, k.endlessList()
}

// UserPATs returns the PATs of a user, by subject descriptor, that are still
// valid. Their display names may be empty: Azure DevOps need not show them to an
// administrator.
func (ad Administration) UserPATs(ctx context.Context, o rotation.Owner, descriptor string) ([]rotation.PAT, error) {
	k := ad.call(o, "listing a user's PATs", tokensScope)
	if !isDescriptor(descriptor) {
		return nil, k.fail(rotation.Configuration, administration.UserUnknown,
			"this is not the descriptor of a user", nil)
	}
	k.item = "/" + url.PathEscape(descriptor)
	bad, refuse := false, k.refuse
	k.refuse = func(a *answer, e serviceError) error {
		bad = a.status == http.StatusBadRequest && !e.preview
		return refuse(a, e)
	}
	pats, err := ad.userPATs(ctx, k, userPageSize)
	if err != nil && bad {
		return ad.userPATs(ctx, k, smallUserPageSize)
	}
	return pats, err
}

func (ad Administration) userPATs(ctx context.Context, k *call, size int) ([]rotation.PAT, error) {
	q := url.Values{"isPublic": {"false"}, "pageSize": {fmt.Sprint(size)}}
	now := ad.client.now()
	var pats []rotation.PAT
	ids, tokens := map[string]bool{}, map[string]bool{}
	for range maxPages {
		a, err := ad.do(ctx, k, http.MethodGet, userPATsResource, q, nil)
		if err != nil {
			return nil, err
		}
		var page sessionPage
		if err := a.decode(&page); err != nil || page.Sessions == nil {
			return nil, k.badAnswer(a)
		}
		for _, w := range page.Sessions {
			if !w.valid(now) {
				continue
			}
			p, err := w.pat()
			if err != nil {
				return nil, k.badAnswer(a)
			}
			if id := strings.ToLower(p.AuthorizationID); !ids[id] {
				ids[id] = true
				pats = append(pats, p)
			}
		}
		next := page.ContinuationToken
		if next == "" {
			return pats, nil
		}
		if tokens[next] {
			return nil, k.badAnswer(a)
		}
		tokens[next] = true
		q.Set("continuationToken", next)
	}
	return nil, k.endlessList()
}

// RevokePATs ends PATs of anybody, MaxRevocations at most. It may be repeated: Azure
// DevOps does not mind a PAT that is gone already.
func (ad Administration) RevokePATs(ctx context.Context, o rotation.Owner,
	authorizationIDs []string) (activityID string, err error) {
	k := ad.call(o, "revoking users' PATs", tokensScope)
	k.empty = true
	if n := len(authorizationIDs); n == 0 || n > MaxRevocations {
		return "", k.fail(rotation.Configuration, "batch-size", fmt.Sprintf("one call revokes 1 to %d PATs, not %d",
			MaxRevocations, n), nil)
	}
	body := make([]revocation, len(authorizationIDs))
	for i, id := range authorizationIDs {
		body[i].AuthorizationID = id
	}
	a, err := ad.do(ctx, k, http.MethodPost, revocationsResource, url.Values{"isPublic": {"false"}}, body)
	if err != nil {
		return "", err
	}
	return k.readEmpty(a)
}

// readEmpty reads the answer of a call that says nothing: a body, if there is one,
// must at least be no error.
func (k *call) readEmpty(a *answer) (activityID string, err error) {
	if len(a.body) > 0 && (!json.Valid(a.body) || decodeError(a.body, "").typeKey != "") {
		return "", k.badAnswer(a)
	}
	return a.activityID(), nil
}

// AddRevocationRule ends the self-describing tokens of everybody in the
// organization that have one of the scopes and were made before the rule's date.
func (ad Administration) AddRevocationRule(ctx context.Context, o rotation.Owner,
	r administration.Rule) (activityID string, err error) {
	k := ad.call(o, "creating a revocation rule", tokensScope)
	k.empty = true
	if len(r.Scopes) == 0 || r.CreatedBefore.IsZero() {
		return "", k.fail(rotation.Configuration, "bad-rule", "a revocation rule needs scopes and a date", nil)
	}
	a, err := ad.do(ctx, k, http.MethodPost, rulesResource, nil, ruleRequest{strings.Join(r.Scopes, " "),
		wireTime(r.CreatedBefore)})
	if err != nil {
		return "", err
	}
	return k.readEmpty(a)
}

// AuditLog reads the events of tokens from an organization's audit log, newest
// first. Azure DevOps keeps them for 90 days, and cannot be asked for one kind:
// a short window is a quick one.
func (ad Administration) AuditLog(ctx context.Context, o rotation.Owner, query administration.AuditQuery) (
	administration.AuditPage, error) {
	k := ad.call(o, "reading the audit log", auditScope)
	limit := query.Limit
	if limit <= 0 {
		limit = defaultAuditLimit
	}
	q := url.Values{"batchSize": {fmt.Sprint(auditPageSize)}, "skipAggregation": {"true"}}
	if !query.From.IsZero() {
		q.Set("startTime", wireTime(query.From))
	}
	if !query.To.IsZero() {
		q.Set("endTime", wireTime(query.To))
	}
	out := administration.AuditPage{Entries: []administration.AuditEntry{}}
	seen := map[string]bool{}
	more := true
	for pages := 0; more && len(out.Entries) < limit && pages < maxAuditPages; pages++ {
		a, err := ad.do(ctx, k, http.MethodGet, auditResource, q, nil)
		if err != nil {
			return administration.AuditPage{}, err
		}
		var page auditPage
		if err := a.decode(&page); err != nil || page.Entries == nil {
			return administration.AuditPage{}, k.badAnswer(a)
		}
		for _, w := range page.Entries {
			if e, ok := w.entry(); ok {
				out.Entries = append(out.Entries, e)
			}
		}
		more = page.HasMore && page.ContinuationToken != ""
		if !more {
			break
		}
		if seen[page.ContinuationToken] {
			return administration.AuditPage{}, k.badAnswer(a)
		}
		seen[page.ContinuationToken] = true
		q.Set("continuationToken", page.ContinuationToken)
	}
	slices.SortStableFunc(out.Entries, func(x, y administration.AuditEntry) int { return y.At.Compare(x.At) })
	out.More = more || len(out.Entries) > limit
	out.Entries = out.Entries[:min(limit, len(out.Entries))]
	return out, nil
}
