// Package entra is a local Microsoft Entra ID for one tenant: the authority's
// discovery documents, the sign-in pages, the token endpoint and the device
// code endpoint, with users and guests, app registrations, consent, access
// policies, refresh tokens and managed identities behind them.
//
// The pages are plain HTML forms. A sign-in is bound to the browser in which it
// began, and each form can be sent once.
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
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
)

const (
	// DefaultTenant is the tenant of a Config that names none.
	DefaultTenant = "11111111-2222-3333-4444-555555555555"
	// DefaultAuthority is the host of issuers, wherever the server listens: a
	// federated credential names this issuer in Azure, too.
	DefaultAuthority = "https://login.microsoftonline.com"
	// TokenExchange is the audience of assertions that a federated credential
	// accepts in the public cloud.
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
	Tenant    string           // default DefaultTenant
	Domain    string           // a verified domain that also names the tenant; default contoso.com
	Authority string           // scheme and host of issuers; default DefaultAuthority
	Injector  *faults.Injector // counts calls (service "entra") and makes them fail; may be nil
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
	// SlowDown answers slow_down to a device code that is asked for more often
	// than its interval allows, as RFC 8628 has it. Entra's documentation does
	// not list that answer.
	SlowDown bool
	// PasswordChangeIs50133 refuses what a password change has ended with
	// AADSTS50133 instead of AADSTS50173; the documentation has both.
	PasswordChangeIs50133 bool
	// NoUserConsent lets administrators alone consent; others learn that an
	// approval is needed (AADSTS90094).
	NoUserConsent bool
	// IDToken may change the claims of an id token before it is signed: what a foreign or
	// a faulty authority would say. nil: nothing is changed.
	IDToken func(claims map[string]any)
}

// User is a member of the tenant, or a guest in it.
type User struct {
	// UPN is the user principal name: build-bot@contoso.com. A guest's is made
	// from the address: ann_fabrikam.com#EXT#@contoso.com.
	UPN      string
	ObjectID string // default: made up
	Name     string
	Disabled bool
	// Home is the tenant that a guest belongs to; empty: this one. Mail is then
	// the address with which the guest signs in, and HomeObjectID (default:
	// made up) who the guest is at home.
	Home, Mail, HomeObjectID string
	// Administrator may consent for the whole tenant.
	Administrator bool
	// MFA makes each sign-in of the user need multi-factor authentication;
	// NotEnrolled: the user has to enrol in it first.
	MFA, NotEnrolled bool
	// Passwordless: the user signs in without a password, and a password change
	// ends nothing.
	Passwordless bool
}

// signInName is what the person types: a guest's address, a member's UPN.
func (u *User) signInName() string {
	if u.Mail != "" {
		return u.Mail
	}
	return u.UPN
}

// App is an app registration.
type App struct {
	ClientID string // default: made up
	Name     string
	// Redirect URIs by platform: it decides whether the client is confidential.
	Web, Native, SPA []string
	// AllowPublicClient permits flows without a redirect URI (device code).
	AllowPublicClient bool
	// Credentials of the confidential client. ExpiredSecrets are known, and
	// refused.
	Secrets        []string
	ExpiredSecrets []string
	Certificates   []*x509.Certificate
	Federated      []FederatedCredential
	// Scopes are the delegated permissions, "<resource>/<scope>".
	Scopes []string
	// AdminConsent grants Scopes for every user.
	AdminConsent bool
	// ObjectID of the service principal; default: made up.
	ObjectID string
	// Disabled: an administrator has switched the app off for the tenant.
	Disabled bool
	// Roles are the app's own, which administrators give to users (AssignRole). Id tokens
	// show them by their values.
	Roles []AppRole
}

// AppRole is a role that an app defines.
type AppRole struct {
	ID    string
	Value string
	Name  string
	// Disabled ones are given to nobody, and stay in no token.
	Disabled bool
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
	// AdminOnly are those of Scopes that only an administrator can consent to.
	AdminOnly []string
	// Audience of tokens; default: the name by which it was asked for.
	Audience string
	// Disabled: an administrator has switched the API off for the tenant, or its
	// subscription has ended.
	Disabled bool
}

// Server is the authority. It is an http.Handler.
type Server struct {
	cfg     Config
	key     []byte // signs every token
	handler http.Handler

	mu         sync.Mutex
	switches   Switches
	exchange   string            // audience of assertions, by the cloud
	users      map[string]*user  // by lower-case UPN
	deleted    map[string]bool   // object ids that were users'
	outsiders  map[string]string // tenants by lower-case UPN
	apps       map[string]*App   // by client id
	identities map[string]*ManagedIdentity
	resources  []*Resource
	consents   map[consentKey]map[string]bool // lower-case "<resource id>/<scope>"
	assigned   map[assignment]bool
	policies   []*Policy
	visitors   map[string]*visitor // browsers, by cookie
	flows      map[string]*flow    // by the ticket of the page that is open
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

// consentKey: user is an object id, or "" for the whole tenant.
type consentKey struct{ user, client string }

type class string

const (
	public       class = "public"
	confidential class = "confidential"
	spa          class = "spa"
)

type refreshToken struct {
	user     string // object id
	client   string
	class    class
	signedIn time.Time
	mfa      time.Time // zero: signed in without
	device   bool      // by a device code, or descended from one
	issued   time.Time
	expires  time.Time
	used     bool
	family   string
	ended    int // AADSTS number of what has ended it; 0: alive
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
		exchange:   exchangeOf(cfg.Authority),
		users:      map[string]*user{},
		deleted:    map[string]bool{},
		outsiders:  map[string]string{},
		visitors:   map[string]*visitor{},
		flows:      map[string]*flow{},
		apps:       map[string]*App{},
		identities: map[string]*ManagedIdentity{},
		consents:   map[consentKey]map[string]bool{},
		assigned:   map[assignment]bool{},
		refresh:    map[string]*refreshToken{},
		codes:      map[string]*code{},
		devices:    map[string]*device{},
		resources: []*Resource{
			{ID: DevOps, URIs: []string{"https://app.vssps.visualstudio.com"}, Audience: DevOps, Scopes: []string{
				"user_impersonation", "vso.pats", "vso.pats_manage", "vso.tokens", "vso.tokenadministration",
				"vso.graph", "vso.graph_manage", "vso.profile", "vso.auditlog"}},
			{ID: "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", URIs: []string{"https://vault.azure.net"},
				Scopes: []string{"user_impersonation"}},
			{ID: "80a10ef9-8168-493d-abf9-3297c4ef6e3c", URIs: []string{"https://servicebus.azure.net"},
				Scopes: []string{"user_impersonation"}},
			{ID: "e406a681-f3d4-42a8-90b6-c2b029497af1", URIs: []string{"https://storage.azure.com"},
				Scopes: []string{"user_impersonation"}},
			{ID: "00000003-0000-0000-c000-000000000000", URIs: []string{"https://graph.microsoft.com"},
				Scopes: []string{"User.Read", "email"}},
			{ID: "fb60f99c-7a34-4190-8149-302f77469936", URIs: []string{exchangeOf(cfg.Authority)}},
		},
	}
	s.handler = cfg.Injector.Wrap("entra", operation, s.routes())
	return s
}

// exchangeOf is the audience of assertions in an authority's cloud. The others' do not
// exist there.
func exchangeOf(authority string) string {
	switch {
	case strings.HasSuffix(authority, ".us"):
		return TokenExchange + "USGov"
	case strings.HasSuffix(authority, ".cn"):
		return TokenExchange + "China"
	}
	return TokenExchange
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

// InvalidateAccessTokens makes VerifyAccessToken answer ErrRevoked for the
// user's present access tokens, as continuous access evaluation does; refresh
// tokens stay good.
func (s *Server) InvalidateAccessTokens(upn string) error {
	return s.withUser(upn, func(u *user) { u.generation++ })
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

// DisableResource switches an API off for the tenant, or on again.
func (s *Server) DisableResource(name string, disabled bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := s.resource(name)
	if res == nil {
		return ErrNoResource
	}
	res.Disabled = disabled
	return nil
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

// SeedRefreshToken is a sign-in without a browser: the user consents to the
// scopes, and the client has a refresh token. The token belongs to a
// confidential client if the app has a web redirect URI or a credential.
func (s *Server) SeedRefreshToken(upn, clientID string, scopes ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	app, u := s.apps[clientID], s.users[strings.ToLower(upn)]
	switch {
	case u == nil:
		return "", fmt.Errorf("no user %s in the tenant", upn)
	case app == nil:
		return "", fmt.Errorf("no app %s in the tenant", clientID)
	}
	if err := s.consent(u.ObjectID, clientID, scopes); err != nil {
		return "", err
	}
	c := public
	if len(app.Web) > 0 || len(app.Secrets)+len(app.Certificates)+len(app.Federated) > 0 {
		c = confidential
	}
	now := time.Now()
	t := &refreshToken{user: u.ObjectID, client: clientID, class: c, signedIn: now, family: randomHex(8)}
	if s.needsMFA(u, app) { // the person has done what was asked for
		t.mfa = now
	}
	return s.issueRefreshToken(t, now), nil
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
	if resource == s.exchange {
		issuer = s.Issuer()
	}
	now := time.Now()
	expires = now.Add(identityTokenLife)
	return s.sign(map[string]any{
		"iss": issuer, "aud": resource, "sub": m.PrincipalID, "oid": m.PrincipalID, "tid": s.cfg.Tenant,
		"appid": m.ClientID, "idtyp": "app", "iat": now.Unix(), "nbf": now.Unix(), "exp": expires.Unix(),
		"uti": randomHex(11),
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
	u, refused := s.signInUser(upn)
	if refused != nil {
		return "", errors.New(refused.text)
	}
	if err := s.consent(u.ObjectID, clientID, scopes); err != nil {
		return "", err
	}
	w, refused := s.parseScopes(strings.Join(scopes, " "))
	if refused != nil {
		return "", errors.New(refused.text)
	}
	body, refused := s.userTokens(app, u, w, nil, "", false)
	if refused != nil {
		return "", errors.New(refused.text)
	}
	token, _ := body["access_token"].(string)
	return token, nil
}

// Assertions counts the client assertions that were accepted.
func (s *Server) Assertions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assertions
}

func (s *Server) resource(name string) *Resource {
	trimmed := strings.TrimSuffix(name, "/")
	for _, r := range s.resources {
		isName := func(u string) bool { return strings.EqualFold(u, trimmed) }
		if isName(r.ID) || slices.ContainsFunc(r.URIs, isName) {
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

func randomNumber(n int64) int64 {
	v, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		panic(err) // the reader never fails
	}
	return v.Int64()
}

func newGUID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}
