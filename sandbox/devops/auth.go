package devops

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AnonymousID is the identity of callers that are not signed in.
const AnonymousID = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"

// caller is who a request comes from.
type caller struct {
	user   *user // nil: anonymous
	scopes []string
	pat    *pat // nil: a bearer token
}

func (c caller) may(scope string) bool {
	return slices.Contains(c.scopes, scope) || c.pat != nil && slices.Contains(c.scopes, "app_token")
}

func (c caller) mayAudit() bool { return c.may("vso.auditlog") || c.may("vso.auditstreams_manage") }

func (c caller) mayReadProjects() bool {
	return c.may("vso.project") || c.may("vso.project_write") || c.may("vso.project_manage")
}

// noAdministrator refuses token administration to a user who is not a Project
// Collection Administrator; it returns false.
func (a *answer) noAdministrator(c caller) bool {
	if a.switches.ForbidNonAdministrator {
		return a.forbidden("Access denied: the user needs to be a Project Collection Administrator.")
	}
	a.unauthorized(c.user.id)
	return false
}

func (a *answer) forbidden(message string) bool {
	a.problem(http.StatusForbidden, "AccessCheckException", message)
	return false
}

// authenticate finds out who calls and whether they may, and answers those who
// may not.
func (s *Service) authenticate(a *answer, o *organization, operation string) (caller, bool) {
	scheme, credential, _ := strings.Cut(a.r.Header.Get("Authorization"), " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		plain, err := base64.StdEncoding.DecodeString(credential)
		_, password, found := strings.Cut(string(plain), ":")
		if err != nil || !found {
			break
		}
		s.mu.Lock()
		p := s.byToken[password]
		s.mu.Unlock()
		if p != nil {
			return s.admitPAT(a, o, operation, p)
		}
		// An Entra token may stand in place of the password, too.
		if claims, err := s.verify(password); err == nil {
			return s.admitBearer(a, o, operation, password, claims)
		}
	case strings.EqualFold(scheme, "Bearer") && credential != "":
		if claims, err := s.verify(credential); err == nil {
			return s.admitBearer(a, o, operation, credential, claims)
		}
	}
	return a.anonymous(o, operation)
}

// anonymous answers a caller without credentials, or with refused ones.
func (a *answer) anonymous(o *organization, operation string) (caller, bool) {
	if o.Public && operation == ConnectionData {
		return caller{}, true
	}
	a.signIn(AnonymousID)
	return caller{}, false
}

// signIn refuses a caller: by a redirect to the sign-in page, or by 401 to those
// who have asked for it.
func (a *answer) signIn(who string) {
	if a.switches.SignInPage {
		signInPage(a.w)
		return
	}
	if !strings.EqualFold(a.r.Header.Get("X-TFS-FedAuthRedirect"), "Suppress") {
		q := url.Values{"realm": {a.r.Host}, "reply_to": {"https://" + a.r.Host + a.r.URL.RequestURI()}}
		a.w.Header().Set("Location", "https://"+a.r.Host+"/_signin?"+q.Encode())
		a.html(http.StatusFound, "Object moved")
		return
	}
	a.unauthorized(who)
}

func (a *answer) unauthorized(who string) {
	a.w.Header().Add("WWW-Authenticate", "Bearer authorization_uri=https://login.microsoftonline.com/common")
	a.w.Header().Add("WWW-Authenticate", `Basic realm="https://`+a.r.Host+`/"`)
	a.w.Header().Add("WWW-Authenticate", "TFS-Federated")
	a.problem(http.StatusUnauthorized, "UnauthorizedRequestException", "TF400813: The user '"+who+
		"' is not authorized to access this resource.")
}

// admitPAT judges a PAT: it must live, and it can never touch the PATs
// themselves.
func (s *Service) admitPAT(a *answer, o *organization, operation string, p *pat) (caller, bool) {
	s.mu.Lock()
	v := s.judge(p, o, time.Now())
	c := caller{user: p.owner, scopes: slices.Clone(p.Scopes), pat: p}
	administrator, auditor := p.owner.Administrator, p.owner.Auditor
	s.mu.Unlock()
	switch v {
	case unknownToken:
		return a.anonymous(o, operation)
	case expiredToken:
		a.fail(http.StatusUnauthorized, wireError{
			TypeKey: "AccessCheckException", Message: "Access Denied: The Personal Access Token used has expired.",
			CustomProperties: map[string]any{"Descriptor": nil, "IdentityDisplayName": nil, "Token": nil,
				"RequestedPermissions": 0, "NamespaceId": "00000000-0000-0000-0000-000000000000"},
		})
		return caller{}, false
	case inactiveToken:
		if strings.Contains(a.r.Header.Get("Accept"), "json") {
			a.problem(http.StatusForbidden, "AccessCheckException",
				"The Personal Access Token is inactive: its owner has to sign in.")
		} else {
			signInPage(a.w)
		}
		return caller{}, false
	}
	switch operation {
	case ConnectionData:
		return c, true
	case GraphUsers:
		if c.may("vso.graph") || c.may("vso.graph_manage") {
			return c, true
		}
	case ListProjects:
		if c.mayReadProjects() {
			return c, true
		}
	case ListUserPats, RevokeUserPats, RevocationRule:
		if c.may("vso.tokenadministration") {
			return c, administrator || a.noAdministrator(c)
		}
	case QueryAudit:
		if c.mayAudit() {
			return c, administrator || auditor ||
				a.forbidden("The user does not have the permission to view the audit log.")
		}
	default:
		status := http.StatusUnauthorized
		if a.switches.ForbidPAT {
			status = http.StatusForbidden
		}
		a.problem(status, "InvalidAccessException", "The requested operation is not allowed.")
		return caller{}, false
	}
	a.unauthorized(c.user.id)
	return caller{}, false
}

// admitBearer judges an Entra token: its tenant, its user, and the delegated
// permissions that the operation wants.
func (s *Service) admitBearer(a *answer, o *organization, operation, token string, claims Claims) (caller, bool) {
	if o.TenantID != "" && claims.TenantID != o.TenantID {
		return a.anonymous(o, operation)
	}
	if claims.AppOnly {
		if operation == ConnectionData {
			a.unauthorized(claims.ObjectID)
		} else {
			status := http.StatusForbidden
			if a.switches.RefuseApp {
				status = http.StatusUnauthorized
			}
			a.problem(status, "InvalidAccessException", "Service principals are not allowed to perform this action.")
		}
		return caller{}, false
	}
	s.mu.Lock()
	u := s.user(claims.ObjectID)
	if u == nil {
		u = s.user(claims.UPN)
	}
	if u == nil || u.disabled || !u.memberOf(o) {
		s.mu.Unlock()
		a.unauthorized(claims.ObjectID)
		return caller{}, false
	}
	sum := sha256.Sum256([]byte(token))
	if u.challenge {
		u.challenge, u.challenged = false, sum
	}
	challenged := u.challenged == sum
	administrator, auditor := u.Administrator, u.Auditor
	s.mu.Unlock()
	if challenged {
		claims := base64.StdEncoding.EncodeToString([]byte(`{"access_token":{"nbf":{"essential":true,"value":"` +
			strconv.FormatInt(time.Now().Unix(), 10) + `"}}}`))
		a.w.Header().Set("WWW-Authenticate", `Bearer realm="", `+
			`authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", `+
			`error="insufficient_claims", claims="`+claims+`"`)
		a.problem(http.StatusUnauthorized, "UnauthorizedRequestException", "TF400813: The user '"+u.id+
			"' is not authorized to access this resource.")
		return caller{}, false
	}
	c := caller{user: u, scopes: claims.Scopes}
	broad := a.switches.AcceptImpersonation && c.may("user_impersonation")
	ok := false
	switch operation {
	case ConnectionData:
		ok = true
	case ListPats, GetPat:
		ok = broad || c.may("vso.pats")
	case CreatePat, UpdatePat, RevokePat:
		ok = broad || c.may("vso.pats") && c.may("vso.pats_manage")
	case GraphUsers:
		ok = c.may("vso.graph") || c.may("vso.graph_manage")
	case ListProjects:
		ok = broad || c.mayReadProjects()
	case ListUserPats, RevokeUserPats, RevocationRule:
		ok = c.may("vso.tokenadministration")
		if ok && !administrator {
			return c, a.noAdministrator(c)
		}
	case QueryAudit:
		ok = c.mayAudit()
		if ok && !administrator && !auditor {
			return c, a.forbidden("The user does not have the permission to view the audit log.")
		}
	}
	if !ok {
		a.unauthorized(u.id)
	}
	return c, ok
}

type usage struct {
	at   time.Time
	cost float64
}

const window = 5 * time.Minute

// charge takes a call off its identity's budget: within it the call goes on,
// over it the call is delayed, far over it refused. It also asks for the pauses
// that SlowDown wants.
func (s *Service) charge(a *answer, c caller) bool {
	if c.user == nil {
		return true
	}
	t := a.switches.Throttle
	if t.Budget == 0 {
		t.Budget = 200
	}
	if t.MaxDelay == 0 {
		t.MaxDelay = 30 * time.Second
	}
	h := a.w.Header()
	now := time.Now()
	s.mu.Lock()
	u := c.user
	if now.Before(u.pauseEnds) {
		u.impatient++
	}
	if u.retryAfter > 0 {
		u.pauseEnds = now.Add(u.retryAfter)
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(u.retryAfter.Seconds()))))
		if u.asDate {
			h.Set("Retry-After", u.pauseEnds.Add(time.Second-1).UTC().Format(http.TimeFormat))
		}
		u.retryAfter = 0
	}
	if t.Cost == 0 {
		s.mu.Unlock()
		return true
	}
	u.usage = slices.DeleteFunc(u.usage, func(x usage) bool { return now.Sub(x.at) >= window })
	used := 0.0
	for _, x := range u.usage {
		used += x.cost
	}
	limit := 1.5 * t.Budget
	blocked := used+t.Cost > limit
	if !blocked {
		used += t.Cost
		u.usage = append(u.usage, usage{now, t.Cost})
	}
	over := used > t.Budget || blocked
	// The pause ends when enough has left the window.
	var pause time.Duration
	if over {
		left := used
		for _, x := range u.usage {
			left -= x.cost
			if left <= t.Budget {
				pause = x.at.Add(window).Sub(now)
				break
			}
		}
		pause = time.Duration(math.Ceil(pause.Seconds())) * time.Second
		u.pauseEnds = now.Add(pause)
	}
	s.mu.Unlock()
	if !over {
		return true
	}
	h.Set("Retry-After", strconv.Itoa(int(pause/time.Second)))
	h.Set("X-RateLimit-Resource", "Tokens")
	h.Set("X-RateLimit-Limit", strconv.Itoa(int(t.Budget)))
	h.Set("X-RateLimit-Remaining", "0")
	h.Set("X-RateLimit-Reset", strconv.FormatInt(now.Add(pause).Unix(), 10))
	if blocked {
		a.problem(http.StatusTooManyRequests, "RequestBlockedException",
			"TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'Tokens' "+
				"in namespace '"+u.id+"'.")
		return false
	}
	delay := max(time.Millisecond, time.Duration(float64(t.MaxDelay)*(used-t.Budget)/(limit-t.Budget)))
	h.Set("X-RateLimit-Delay", fmt.Sprintf("%.3f", delay.Seconds()))
	select {
	case <-time.After(delay):
		return true
	case <-a.r.Context().Done():
		return false
	}
}
