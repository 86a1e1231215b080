// Package entra is a local Microsoft Entra ID for one tenant: the authority's
// discovery documents, the authorize page, the token endpoint and the device
// code endpoint, with users, app registrations, consent, refresh tokens and
// managed identities behind them.
//
// It refuses what Entra refuses, with Entra's error bodies. It knows nothing of
// the services that its tokens are for: they ask VerifyAccessToken.
package entra

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/control"
)

const (
	// DefaultTenant is the tenant of a Config that names none.
	DefaultTenant = "11111111-2222-3333-4444-555555555555"
	// DefaultAuthority is the host of issuers, wherever the server listens: a
	// federated credential names this issuer in Azure, too.
	DefaultAuthority = "https://login.microsoftonline.com"
	// TokenExchange is the audience of assertions that a federated credential
	// accepts.
	TokenExchange = "api://AzureADTokenExchange"
	// DevOps is Azure DevOps' application id, the resource of its scopes.
	DevOps = "499b84ac-1321-427f-aa17-267ca6975798"

	refreshTokenLife    = 90 * 24 * time.Hour
	spaRefreshTokenLife = 24 * time.Hour
	codeLife            = 10 * time.Minute
	deviceCodeLife      = 15 * time.Minute
	identityTokenLife   = 24 * time.Hour
)

// Config says what tenant this is.
type Config struct {
	Tenant    string         // default DefaultTenant
	Domain    string         // a verified domain that also names the tenant; default contoso.com
	Authority string         // scheme and host of issuers; default DefaultAuthority
	Panel     *control.Panel // counts calls (service "entra") and makes them fail; may be nil
	Switches  Switches
}

// Switches are behaviours that differ between tenants, or that are not known
// for certain. The zero value is what Entra is documented to do.
type Switches struct {
	// StrictRotation makes a refresh token good for one use. Entra keeps the
	// old one alive.
	StrictRotation bool
	// ReuseRevokesFamily ends every descendant of a sign-in when a used-up
	// refresh token is presented (with StrictRotation).
	ReuseRevokesFamily bool
	// AccessTokenLife is how long user tokens live; default 75 minutes.
	AccessTokenLife time.Duration
	// RefreshIn, when set, is answered as refresh_in.
	RefreshIn time.Duration
	// OmitRefreshToken answers a refresh without a new refresh token.
	OmitRefreshToken bool
	// OmitIDToken and OmitClientInfo leave these fields out of an answer.
	OmitIDToken    bool
	OmitClientInfo bool
	// OmitScope leaves the granted scopes out of an answer.
	OmitScope bool
	// GrantLess grants the consented part of the asked scopes instead of
	// refusing with AADSTS65001.
	GrantLess bool
	// RefuseEmptyClaims refuses claims={}.
	RefuseEmptyClaims bool
	// NumbersAsStrings answers expires_in as a string, as the v1 endpoint does.
	NumbersAsStrings bool
}

// User is a member of the tenant.
type User struct {
	UPN      string // user principal name: build-bot@contoso.com
	ObjectID string // default: made up
	Name     string
	Disabled bool
}

// App is an app registration.
type App struct {
	ClientID string // default: made up
	Name     string
	// Redirect URIs by platform: it decides whether the client is confidential.
	Web, Native, SPA []string
	// AllowPublicClient permits flows without a redirect URI (device code).
	AllowPublicClient bool
	// Credentials of the confidential client.
	Secrets      []string
	Certificates []*x509.Certificate
	Federated    []FederatedCredential
	// Scopes are the delegated permissions, "<resource>/<scope>".
	Scopes []string
	// AdminConsent grants Scopes for every user.
	AdminConsent bool
	// ObjectID of the service principal; default: made up.
	ObjectID string
}

// FederatedCredential accepts tokens of another issuer as the app's credential.
// Like Entra, it is taken as it is; a wrong value shows when a token is
// exchanged.
type FederatedCredential struct{ Issuer, Subject, Audience string }

// ManagedIdentity is a user-assigned managed identity.
type ManagedIdentity struct {
	ClientID    string
	PrincipalID string // default: made up
}

// Resource is an API that tokens can be for.
type Resource struct {
	ID     string   // application id
	URIs   []string // identifier URIs; one trailing slash makes no difference
	Scopes []string // delegated permissions that exist; nil: none
	// Audience of tokens; default: the name by which it was asked for.
	Audience string
}

// Server is the authority. It is an http.Handler.
type Server struct {
	cfg     Config
	key     []byte // signs every token
	handler http.Handler

	mu         sync.Mutex
	switches   Switches
	users      map[string]*user // by lower-case UPN
	apps       map[string]*App  // by client id
	identities map[string]*ManagedIdentity
	resources  []*Resource
	consents   map[consentKey]map[string]bool // lower-case "<resource id>/<scope>"
	refresh    map[string]*refreshToken
	codes      map[string]*code
	devices    map[string]*device // by device code
	failures   []*Failure
	assertions int // accepted client assertions
}

type user struct {
	User
	// signInsFrom and publicFrom: refresh tokens of sign-ins before these
	// instants are revoked; the second for public clients only.
	signInsFrom, publicFrom time.Time
	generation              int // of access tokens; see InvalidateAccessTokens
}

type consentKey struct{ user, client string }

type class string

const (
	public       class = "public"
	confidential class = "confidential"
	spa          class = "spa"
)

type refreshToken struct {
	user     string // lower-case UPN
	client   string
	class    class
	signedIn time.Time
	issued   time.Time
	expires  time.Time
	used     bool
	family   string
	ended    bool
}

// New makes an authority with an empty directory. It knows the resources that
// patrol uses: Azure DevOps, Key Vault, Service Bus, Microsoft Graph.
func New(cfg Config) *Server {
	if cfg.Tenant == "" {
		cfg.Tenant = DefaultTenant
	}
	if cfg.Domain == "" {
		cfg.Domain = "contoso.com"
	}
	if cfg.Authority == "" {
		cfg.Authority = DefaultAuthority
	}
	s := &Server{
		cfg:        cfg,
		key:        []byte(randomHex(32)),
		switches:   cfg.Switches,
		users:      map[string]*user{},
		apps:       map[string]*App{},
		identities: map[string]*ManagedIdentity{},
		consents:   map[consentKey]map[string]bool{},
		refresh:    map[string]*refreshToken{},
		codes:      map[string]*code{},
		devices:    map[string]*device{},
		resources: []*Resource{
			{ID: DevOps, URIs: []string{"https://app.vssps.visualstudio.com"}, Audience: DevOps, Scopes: []string{
				"user_impersonation", "vso.pats", "vso.pats_manage", "vso.tokens", "vso.tokenadministration",
				"vso.graph", "vso.graph_manage", "vso.profile"}},
			{ID: "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", URIs: []string{"https://vault.azure.net"}, Scopes: []string{"user_impersonation"}},
			{ID: "80a10ef9-8168-493d-abf9-3297c4ef6e3c", URIs: []string{"https://servicebus.azure.net"}, Scopes: []string{"user_impersonation"}},
			{ID: "00000003-0000-0000-c000-000000000000", URIs: []string{"https://graph.microsoft.com"}, Scopes: []string{"User.Read", "email"}},
			{ID: "fb60f99c-7a34-4190-8149-302f77469936", URIs: []string{TokenExchange}},
		},
	}
	s.handler = cfg.Panel.Wrap("entra", operation, s.routes())
	return s
}

// ServeHTTP answers the authority's requests.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Tenant is the tenant's id.
func (s *Server) Tenant() string { return s.cfg.Tenant }

// Issuer is the issuer of version 2 tokens, which a federated credential names.
func (s *Server) Issuer() string { return s.cfg.Authority + "/" + s.cfg.Tenant + "/v2.0" }

// Switch changes behaviours while the server runs.
func (s *Server) Switch(change func(*Switches)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.switches)
}

// AddUser puts a user into the directory and returns the object id.
func (s *Server) AddUser(u User) string {
	if u.ObjectID == "" {
		u.ObjectID = newGUID()
	}
	if u.Name == "" {
		u.Name, _, _ = strings.Cut(u.UPN, "@")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[strings.ToLower(u.UPN)] = &user{User: u}
	return u.ObjectID
}

// DisableUser blocks or unblocks a user's sign-in.
func (s *Server) DisableUser(upn string, disabled bool) error {
	return s.withUser(upn, func(u *user) { u.Disabled = disabled })
}

// Revoke ends every sign-in of a user, as an administrator's "revoke sessions"
// or password reset does.
func (s *Server) Revoke(upn string) error {
	return s.withUser(upn, func(u *user) {
		u.signInsFrom = time.Now()
		for _, t := range s.refresh {
			t.ended = t.ended || t.user == strings.ToLower(upn)
		}
	})
}

// ChangePassword is the user's own password change: it ends the sign-ins of
// public clients and leaves those of confidential clients alone.
func (s *Server) ChangePassword(upn string) error {
	return s.withUser(upn, func(u *user) {
		u.publicFrom = time.Now()
		for _, t := range s.refresh {
			t.ended = t.ended || t.user == strings.ToLower(upn) && t.class != confidential
		}
	})
}

// InvalidateAccessTokens makes VerifyAccessToken answer ErrRevoked for the
// user's present access tokens, as continuous access evaluation does; refresh
// tokens stay good.
func (s *Server) InvalidateAccessTokens(upn string) error {
	return s.withUser(upn, func(u *user) { u.generation++ })
}

func (s *Server) withUser(upn string, do func(*user)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[strings.ToLower(upn)]
	if u == nil {
		return fmt.Errorf("no user %s in the tenant", upn)
	}
	do(u)
	return nil
}

// AddApp registers an application and returns its client id. A second
// registration with the same client id replaces the first.
func (s *Server) AddApp(a App) string {
	if a.ClientID == "" {
		a.ClientID = newGUID()
	}
	if a.ObjectID == "" {
		a.ObjectID = newGUID()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[a.ClientID] = &a
	return a.ClientID
}

// AddResource makes another API known to the tenant.
func (s *Server) AddResource(r Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resources = append(s.resources, &r)
}

// AddIdentity creates a user-assigned managed identity and returns its
// principal id.
func (s *Server) AddIdentity(m ManagedIdentity) string {
	if m.PrincipalID == "" {
		m.PrincipalID = newGUID()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities[m.ClientID] = &m
	return m.PrincipalID
}

// Consent records a user's consent to scopes ("<resource>/<scope>").
func (s *Server) Consent(upn, clientID string, scopes ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consent(upn, clientID, scopes)
}

func (s *Server) consent(upn, clientID string, scopes []string) error {
	k := consentKey{strings.ToLower(upn), clientID}
	if s.consents[k] == nil {
		s.consents[k] = map[string]bool{}
	}
	for _, scope := range scopes {
		if isOpenID(scope) {
			continue
		}
		res, name, err := s.splitScope(scope)
		if err != nil {
			return fmt.Errorf("scope %s does not exist in the tenant", scope)
		}
		if name == ".default" {
			if app := s.apps[clientID]; app != nil {
				for _, p := range app.Scopes {
					s.consents[k][s.scopeKey(p)] = true
				}
			}
			continue
		}
		s.consents[k][strings.ToLower(res.ID+"/"+name)] = true
	}
	return nil
}

// WithdrawConsent forgets everything that a user has consented to for an app.
func (s *Server) WithdrawConsent(upn, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.consents, consentKey{strings.ToLower(upn), clientID})
}

// SeedRefreshToken is a sign-in without a browser: the user consents to the
// scopes, and the client has a refresh token. The token belongs to a
// confidential client if the app has a web redirect URI or a credential.
func (s *Server) SeedRefreshToken(upn, clientID string, scopes ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app := s.apps[clientID]
	switch {
	case s.users[strings.ToLower(upn)] == nil:
		return "", fmt.Errorf("no user %s in the tenant", upn)
	case app == nil:
		return "", fmt.Errorf("no app %s in the tenant", clientID)
	}
	if err := s.consent(upn, clientID, scopes); err != nil {
		return "", err
	}
	c := public
	if len(app.Web) > 0 || len(app.Secrets)+len(app.Certificates)+len(app.Federated) > 0 {
		c = confidential
	}
	now := time.Now()
	return s.issueRefreshToken(&refreshToken{user: strings.ToLower(upn), client: clientID, class: c, signedIn: now, family: randomHex(8)}, now), nil
}

func (s *Server) issueRefreshToken(t *refreshToken, now time.Time) string {
	t.issued, t.used = now, false
	if t.class != spa || t.expires.IsZero() { // an SPA's 24 hours are not extended by use
		life := refreshTokenLife
		if t.class == spa {
			life = spaRefreshTokenLife
		}
		t.expires = now.Add(life)
	}
	value := "1.AX" + randomHex(500) // real ones have a thousand characters and more
	s.refresh[value] = t
	return value
}

// IdentityToken mints a token for a managed identity. resource is what the
// identity endpoint was asked for.
func (s *Server) IdentityToken(clientID, resource string) (token string, expires time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.identities[clientID]
	if m == nil {
		return "", time.Time{}, ErrNoIdentity
	}
	res := s.resource(resource)
	if res == nil {
		return "", time.Time{}, ErrNoResource
	}
	issuer := "https://sts.windows.net/" + s.cfg.Tenant + "/"
	if resource == TokenExchange {
		issuer = s.Issuer()
	}
	now := time.Now()
	expires = now.Add(identityTokenLife)
	return s.sign(map[string]any{
		"iss": issuer, "aud": resource, "sub": m.PrincipalID, "oid": m.PrincipalID, "tid": s.cfg.Tenant,
		"appid": m.ClientID, "idtyp": "app", "iat": now.Unix(), "nbf": now.Unix(), "exp": expires.Unix(), "uti": randomHex(11),
	}), expires, nil
}

var (
	// ErrNoIdentity: no managed identity has this client id.
	ErrNoIdentity = errors.New("no such managed identity")
	// ErrNoResource: the tenant has no such API.
	ErrNoResource = errors.New("no such resource")
)

// UserToken mints an access token as a sign-in of the user to the app would
// yield it; the user consents to the scopes.
func (s *Server) UserToken(upn, clientID string, scopes ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app := s.apps[clientID]
	if app == nil {
		return "", fmt.Errorf("no app %s in the tenant", clientID)
	}
	u, refused := s.activeUser(upn)
	if refused != nil {
		return "", errors.New(refused.text)
	}
	if err := s.consent(upn, clientID, scopes); err != nil {
		return "", err
	}
	w, refused := s.parseScopes(strings.Join(scopes, " "))
	if refused != nil {
		return "", errors.New(refused.text)
	}
	body, refused := s.userTokens(app, u, w, nil, "")
	if refused != nil {
		return "", errors.New(refused.text)
	}
	token, _ := body["access_token"].(string)
	return token, nil
}

// Assertions tells how many client assertions were accepted.
func (s *Server) Assertions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assertions
}

func (s *Server) resource(name string) *Resource {
	trimmed := strings.TrimSuffix(name, "/")
	for _, r := range s.resources {
		if strings.EqualFold(r.ID, trimmed) || slices.ContainsFunc(r.URIs, func(u string) bool { return strings.EqualFold(u, trimmed) }) {
			return r
		}
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func newGUID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}
