// Package devops is the sandbox's Azure DevOps: the lifecycle of personal access
// tokens, connectionData, token administration, graph users and the audit log,
// as one http.Handler with state. What vssps.dev.azure.com, dev.azure.com and
// auditservice.dev.azure.com serve does not clash, so one handler stands for all.
//
// It refuses what the real service refuses; where the real behaviour is not
// documented, a field of Switches chooses. It must not know who calls it, nor
// how bearer tokens are made: Config.Verify judges them.
package devops

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
)

// ServiceName is this service's name for a faults.Injector.
const ServiceName = "devops"

// The operations, as a faults.Injector names them.
const (
	ListPats       = "ListPats"
	GetPat         = "GetPat"
	CreatePat      = "CreatePat"
	UpdatePat      = "UpdatePat"
	RevokePat      = "RevokePat"
	ConnectionData = "ConnectionData"
	ListUserPats   = "ListUserPats"
	RevokeUserPats = "RevokeUserPats"
	RevocationRule = "RevocationRule"
	GraphUsers     = "GraphUsers"
	QueryAudit     = "QueryAudit"
	ListProjects   = "ListProjects"
)

// Claims is what a verified bearer token says.
type Claims struct {
	ObjectID string
	UPN      string
	TenantID string
	Scopes   []string // delegated permissions, without the resource: vso.pats
	AppOnly  bool     // of a service principal or managed identity
}

// Config says what the service is built from.
type Config struct {
	// Verify judges a bearer token: signature, audience, expiry. An error
	// stands for a token that Azure DevOps would not accept. nil: none is
	// accepted.
	Verify func(token string) (Claims, error)
	// Injector counts calls and injects faults; nil: neither.
	Injector *faults.Injector
	Switches Switches
	// Rand makes ids and tokens; nil: crypto/rand.
	Rand io.Reader
}

// Service is an Azure DevOps of several organizations.
type Service struct {
	verify  func(string) (Claims, error)
	handler http.Handler
	rand    io.Reader

	mu        sync.Mutex
	switches  Switches
	orgs      []*organization
	users     []*user
	pats      []*pat
	byID      map[string]*pat
	byToken   map[string]*pat
	audit     []Audit
	rules     []RevocationRuleRecord
	mails     int
	onChange  []func(Change)
	onRequest func(*http.Request)
}

// New makes an empty Azure DevOps.
func New(c Config) *Service {
	s := &Service{verify: c.Verify, switches: c.Switches, rand: c.Rand, byID: map[string]*pat{},
		byToken: map[string]*pat{}}
	if s.verify == nil {
		s.verify = func(string) (Claims, error) { return Claims{}, fmt.Errorf("no bearer token is accepted") }
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	s.handler = c.Injector.Wrap(ServiceName, func(r *http.Request) string { return parse(r).operation },
		http.HandlerFunc(s.serve))
	return s
}

// Switch changes how the service behaves from now on.
func (s *Service) Switch(change func(*Switches)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.switches)
}

// OnRequest registers a function that sees every request before it is served.
func (s *Service) OnRequest(f func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onRequest = f
}

func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	onRequest := s.onRequest
	activity, end := s.uuid(), s.uuid()
	s.mu.Unlock()
	if onRequest != nil {
		onRequest(r)
	}
	session := r.Header.Get("X-TFS-Session")
	if session == "" {
		session = activity
	}
	w.Header().Set("X-VSS-E2EID", end)
	w.Header().Set("ActivityId", activity)
	w.Header().Set("X-TFS-Session", session)
	w.Header().Set("X-TFS-ProcessId", "00000000-0000-0000-0000-000000000000")
	s.handler.ServeHTTP(w, r)
}

// route is what a request asks for.
type route struct {
	operation string
	org       string
	id        string // the path's last segment, where the operation takes one
}

// parse names the operation of a request; paths are compared without case, as
// the real routing does. An empty operation is not part of the API.
func parse(r *http.Request) route {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 3 || !strings.EqualFold(parts[1], "_apis") {
		return route{}
	}
	rt := route{org: parts[0]}
	rest := strings.ToLower(strings.Join(parts[2:], "/"))
	switch {
	case rest == "tokens/pats":
		switch r.Method {
		case http.MethodGet:
			rt.operation = ListPats
			if r.URL.Query().Has("authorizationId") {
				rt.operation = GetPat
			}
		case http.MethodPost:
			rt.operation = CreatePat
		case http.MethodPut:
			rt.operation = UpdatePat
		case http.MethodDelete:
			rt.operation = RevokePat
		}
	case rest == "connectiondata" && r.Method == http.MethodGet:
		rt.operation = ConnectionData
	case strings.HasPrefix(rest, "tokenadmin/personalaccesstokens/") && len(parts) == 5 && r.Method == http.MethodGet:
		rt.operation, rt.id = ListUserPats, parts[4]
	case rest == "tokenadmin/revocations" && r.Method == http.MethodPost:
		rt.operation = RevokeUserPats
	case rest == "tokenadmin/revocationrules" && r.Method == http.MethodPost:
		rt.operation = RevocationRule
	case rest == "graph/users" && r.Method == http.MethodGet:
		rt.operation = GraphUsers
	case rest == "audit/auditlog" && r.Method == http.MethodGet:
		rt.operation = QueryAudit
	case rest == "projects" && r.Method == http.MethodGet:
		rt.operation = ListProjects
	}
	return rt
}

// versions of the API that a resource has: all of them are preview-only, except
// that Switches.ReleasedPats releases tokens/pats.
func versions(operation string) []string {
	switch operation {
	case ListPats, GetPat, CreatePat, UpdatePat, RevokePat:
		return []string{"6.1", "7.0", "7.1", "7.2"}
	default:
		return []string{"5.0", "5.1", "5.2", "6.0", "6.1", "7.0", "7.1", "7.2"}
	}
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	if strings.EqualFold(strings.Trim(r.URL.Path, "/"), "_signin") {
		signInPage(w)
		return
	}
	rt := parse(r)
	a := &answer{s: s, w: w, r: r}
	if rt.operation == "" {
		a.html(http.StatusNotFound, "The resource cannot be found.")
		return
	}
	s.mu.Lock()
	a.switches = s.switches
	org := s.organization(rt.org)
	offline := org != nil && org.offline
	s.mu.Unlock()
	switch {
	case org == nil:
		a.html(http.StatusNotFound, "The resource cannot be found.")
		return
	case offline:
		w.Header().Set("X-VSS-HostOfflineError", "TF400900: The organization is offline.")
		a.problem(http.StatusServiceUnavailable, "HostShutdownException", "TF400900: The organization is offline.")
		return
	}
	c, ok := s.authenticate(a, org, rt.operation)
	if !ok {
		return
	}
	if !s.charge(a, c) {
		return
	}
	version, ok := a.version(rt.operation)
	if !ok {
		return
	}
	switch rt.operation {
	case ListPats:
		s.list(a, org, c)
	case GetPat:
		s.get(a, org, c)
	case CreatePat:
		s.create(a, org, c, version)
	case UpdatePat:
		s.update(a, org, c, version)
	case RevokePat:
		s.revoke(a, org, c)
	case ConnectionData:
		s.connectionData(a, org, c)
	case ListUserPats:
		s.listUserPats(a, org, rt.id)
	case RevokeUserPats:
		s.revokeUserPats(a, org, c)
	case RevocationRule:
		s.revocationRule(a, org, c)
	case GraphUsers:
		s.graphUsers(a, org)
	case QueryAudit:
		s.queryAudit(a, org)
	case ListProjects:
		s.listProjects(a)
	}
}

// listProjects is the read that PATs are used for: the organization has one project.
func (s *Service) listProjects(a *answer) {
	project := map[string]any{"id": "b1f0a6d2-6c0b-4d7e-9f55-3a1c2e4d5f60", "name": "Web", "state": "wellFormed",
		"revision": 11, "visibility": "private", "lastUpdateTime": "2026-01-12T08:15:00Z"}
	a.json(http.StatusOK, map[string]any{"count": 1, "value": []any{project}})
}

// version reads api-version, from the query or from Accept, and refuses what
// the resource does not have.
func (a *answer) version(operation string) (string, bool) {
	v := a.r.URL.Query().Get("api-version")
	if v == "" {
		for part := range strings.SplitSeq(a.r.Header.Get("Accept"), ";") {
			if k, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok && strings.EqualFold(k, "api-version") {
				v = value
			}
		}
	}
	if v == "" {
		a.problem(http.StatusBadRequest, "VssVersionNotSpecifiedException",
			"No api-version was supplied for the request. The version must be supplied either as part of the Accept "+
				"header or as a query parameter.")
		return "", false
	}
	number, suffix, preview := strings.Cut(v, "-")
	outOfRange := !slices.Contains(versions(operation), number)
	if preview && suffix != "preview" && suffix != "preview.1" {
		outOfRange = true
	}
	if outOfRange {
		a.problem(http.StatusBadRequest, "VssVersionOutOfRangeException", "The requested REST API version "+v+
			" is out of range for this server.")
		return "", false
	}
	released := a.switches.ReleasedPats && slices.Contains([]string{ListPats, GetPat, CreatePat, UpdatePat, RevokePat},
		operation)
	if !preview && !released && operation != ListProjects {
		a.problem(http.StatusBadRequest, "VssInvalidPreviewVersionException", "The requested version "+v+
			" of the resource is under preview. The -preview flag must be supplied in the api-version for such "+
			"requests. For example: "+v+"-preview")
		return "", false
	}
	return number, true
}

// uuid makes an id; the lock is held.
func (s *Service) uuid() string {
	b := s.random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func (s *Service) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		panic(fmt.Sprintf("reading randomness: %v", err))
	}
	return b
}

// token makes a PAT's text in the 84-character form: 52 random characters, fixed
// marks, year and month, and a checksum that is random here, so that no scanner
// takes it for a live credential. The lock is held.
func (s *Service) token(now time.Time) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	text := func(n int) string {
		b := s.random(n)
		for i := range b {
			b[i] = letters[int(b[i])%len(letters)]
		}
		return string(b)
	}
	year := min(max(now.Year()-2024, 0), len(letters)-1)
	return text(52) + "JQQJ99" + letters[year:year+1] + letters[now.Month()-1:now.Month()] + text(12) + "AAAAAZDO" +
		text(4)
}

// descriptor is a user's subject descriptor: the kind, and the storage key in
// base 64.
func descriptor(kind, storageKey string) string {
	return kind + "." + base64.RawURLEncoding.EncodeToString([]byte(storageKey))
}
