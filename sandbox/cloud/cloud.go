// Package cloud is a whole local Azure for the app: an Entra tenant, an Azure
// DevOps, a Key Vault, a managed identity, a Service Bus namespace and a storage
// account, wired to each other as they are in Azure and reached by the addresses of
// Environment.
//
// It runs on loopback, over TLS, for a process that is to know nothing of it; or
// on a memnet.Network, for the real SDKs in one process and in virtual time. It keeps a
// history of all that changed, and the tokens that it gave out, for tests to check.
//
// It must not know the app: what it says in Environment are the settings that any
// deployment has, and what it stores for a sign-in is MSAL's own cache format.
package cloud

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/devca"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/identity"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

// How the app proves to Entra that it is itself (ENTRA_CLIENT_CREDENTIAL).
const (
	Federated    = "managed-identity"
	Certificate  = "certificate"
	PublicClient = "none"
)

// Ports fixes the loopback ports; zero draws a free one.
type Ports struct {
	Entra, DevOps, VSSPS, Vault, ServiceBus, PlainServiceBus, Blobs, Identity, Control int
}

// Config describes a cloud. Its zero value is a cloud on free loopback ports.
type Config struct {
	// Network makes the cloud listen there, under names like login.localhost;
	// nil: on loopback.
	Network *memnet.Network
	// Genuine takes the names that the services have in Azure, so that the app
	// needs no PATROL_LOCAL. It is for a Network only.
	Genuine bool
	// Ports are for loopback.
	Ports Ports

	// WebSockets lets the app send over web sockets, as where port 5671 is closed.
	WebSockets bool
	// ConnectionString gives the app a connection string for Service Bus
	// instead of a namespace and its managed identity.
	ConnectionString bool
	// ClientCredential is Federated when empty.
	ClientCredential string
	// Authentication: App Service authentication is on. Whoever calls the app's host then
	// stands for the platform, and says who asks.
	Authentication bool
	// PublicURL is the app's own address, PUBLIC_URL. Default:
	// http://127.0.0.1:7071, on a Network https://patrol.localhost.
	PublicURL string
	// Manifest and CheckSchedule become PATROL_MANIFEST and CHECK_SCHEDULE.
	// Default: not set, and every six hours.
	Manifest      string
	CheckSchedule string
	// ClientID of the app's managed identity. Default: a new one, so that the
	// process-wide token cache of azidentity tells clouds apart.
	ClientID string

	// Injector counts calls and injects faults. Default: the cloud's own.
	Injector *faults.Injector
	// Entra and DevOps choose behaviours of these services.
	Entra  entra.Switches
	DevOps devops.Switches
	// Vault may change the vault's configuration before it is made; what the
	// cloud wires itself (addresses, tokens, events, faults) is overwritten.
	Vault func(*keyvault.Config)
	// Blobs may change the storage account's in the same way.
	Blobs func(*blob.Config)
	// Entities of the Service Bus namespace, in the form of the emulator's
	// configuration file. Default: those that the app needs.
	Entities []byte
	// Extra are further entities, in the same form; a topic that is there gets the
	// subscriptions named here.
	Extra []byte
	// Consumers are applications that use PATs.
	Consumers []Consumer
	// SessionWait bounds how long Service Bus lets a client wait for the next
	// session; default 65 seconds. A long one makes idle virtual time cheap.
	SessionWait time.Duration
	// Rand makes the ids and tokens of Azure DevOps. Default: crypto/rand.
	Rand io.Reader
	// OnRecord sees every record of the history as it is made, one at a time
	// and before the caller of the service has its answer. It must not ask for
	// the history.
	OnRecord func(Record)
}

// Cloud is a running local Azure. Its services may be used directly.
type Cloud struct {
	Injector *faults.Injector
	Entra    *entra.Server
	DevOps   *devops.Service
	Vault    *keyvault.Vault
	Bus      *servicebus.Bus
	Blobs    *blob.Account

	config      Config
	net         network
	ca          *devca.CA // nil on a Network
	dir         string    // holds the authority's certificate; empty on a Network
	header      string    // IDENTITY_HEADER
	sasKey      string
	clientID    string // of the managed identity
	principalID string
	appID       string // of the app registration
	certificate string // its certificate with the key, in PEM; may be empty
	at          addresses
	busAddress  string       // host and port that AMQP is dialed at
	webSockets  atomic.Int64 // opened to Service Bus
	consumers   []*consumer
	plainBus    string // address of Service Bus without TLS; empty: there is none
	closers     []func()
	closeOnce   sync.Once

	history history
	tokens  tokens

	mu    sync.Mutex
	users map[string]string // object ids by user principal name in lower case
}

// addresses are the services' public URLs; namespace has no scheme.
type addresses struct {
	entra, devops, vssps, vault, blobs, identity, namespace, control string
}

// New starts a cloud with an app registration, its managed identity, and nobody
// else in it.
func New(c Config) (_ *Cloud, err error) {
	switch c.ClientCredential {
	case "":
		c.ClientCredential = Federated
	case Federated, Certificate, PublicClient:
	default:
		return nil, fmt.Errorf("cloud: unknown client credential %q", c.ClientCredential)
	}
	if c.Injector == nil {
		c.Injector = &faults.Injector{}
	}
	if c.ClientID == "" {
		c.ClientID = guid()
	}
	if c.PublicURL == "" {
		c.PublicURL = "http://127.0.0.1:7071"
		if c.Network != nil {
			c.PublicURL = "https://patrol.localhost"
		}
	}
	if c.CheckSchedule == "" {
		c.CheckSchedule = "0 0 */6 * * *"
	}
	if c.Entities == nil {
		c.Entities = defaultEntities
	}
	cl := &Cloud{Injector: c.Injector, config: c, header: random(16), sasKey: random(32), clientID: c.ClientID,
		users: map[string]string{}}
	cl.history.onRecord = c.OnRecord
	defer func() {
		if err != nil {
			cl.Close()
		}
	}()
	if c.Network == nil {
		if err := cl.makeAuthority(); err != nil {
			return nil, err
		}
		cl.net = &loopback{ports: c.Ports, ca: cl.ca}
	} else {
		cl.net = &pipes{network: c.Network, genuine: c.Genuine}
		// The SDK reads the header from the process' environment, which many
		// clouds may have to share.
		cl.header = "identity-header-of-the-sandbox"
	}
	for _, step := range []func() error{cl.startEntra, cl.startIdentity, cl.startDevOps, cl.startBus, cl.addEntities,
		cl.startPlainBus, cl.startVault, cl.startBlobs, cl.storeCertificate, cl.startControl} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return cl, nil
}

// makeAuthority makes the authority that loopback servers are trusted by.
func (c *Cloud) makeAuthority() (err error) {
	c.ca, err = devca.New()
	if err != nil {
		return err
	}
	c.dir, err = os.MkdirTemp("", "patrol-sandbox-")
	if err != nil {
		return fmt.Errorf("cloud: %w", err)
	}
	c.closers = append(c.closers, func() { _ = os.RemoveAll(c.dir) })
	return c.ca.WriteFile(c.certFile())
}

func (c *Cloud) certFile() string { return filepath.Join(c.dir, "authority.pem") }

func (c *Cloud) startEntra() (err error) {
	c.Entra = entra.New(entra.Config{Injector: c.Injector, Switches: c.config.Entra})
	c.principalID = c.Entra.AddIdentity(entra.ManagedIdentity{ClientID: c.clientID})
	c.addConsumers()
	app := entra.App{Name: "patrol", Roles: appRoles(), Scopes: []string{
		entra.DevOps + "/vso.pats", entra.DevOps + "/vso.pats_manage", entra.DevOps + "/vso.tokenadministration",
		entra.DevOps + "/vso.graph", entra.DevOps + "/vso.auditlog"}}
	var redirects []string
	if public := strings.TrimSpace(c.config.PublicURL); public != "" { // else nobody knows where the app is
		redirects = []string{public + "/api/signin/callback"}
	}
	app.Native = []string{"http://localhost"} // an operator's sign-in on the command line
	switch c.config.ClientCredential {
	case PublicClient:
		app.Native, app.AllowPublicClient = append(app.Native, redirects...), true
	case Certificate:
		cert, secret, err := makeCertificate()
		if err != nil {
			return err
		}
		app.Web, app.Certificates, c.certificate = redirects, []*x509.Certificate{cert}, secret
	default:
		app.Web = redirects
		app.Federated = []entra.FederatedCredential{{Issuer: c.Entra.Issuer(), Subject: c.principalID,
			Audience: entra.TokenExchange}}
	}
	c.appID, err = c.Entra.Register(app)
	if err != nil {
		return err
	}
	c.at.entra, err = c.serve(serviceEntra, c.tokens.watch(c.Entra, "access_token", "refresh_token", "id_token"))
	return err
}

func (c *Cloud) startIdentity() (err error) {
	assigned := []string{c.clientID}
	for _, one := range c.consumers {
		assigned = append(assigned, one.clientID)
	}
	endpoint := identity.New(identity.Config{Tokens: c.Entra, Header: c.header, Assigned: assigned,
		Injector: c.Injector})
	c.at.identity, err = c.serve(serviceIdentity, c.tokens.watch(endpoint, "access_token"))
	return err
}

func (c *Cloud) startDevOps() (err error) {
	c.DevOps = devops.New(devops.Config{Verify: c.verifyDevOps, Injector: c.Injector, Switches: c.config.DevOps,
		Rand: c.config.Rand})
	c.DevOps.OnChange(func(ch devops.Change) {
		c.tokens.add(ch.PAT.Token)
		c.history.add(Record{At: ch.At, Kind: PAT, PAT: &ch})
	})
	c.at.devops, err = c.serve(serviceDevOps, c.DevOps)
	if err != nil {
		return err
	}
	c.at.vssps, err = c.serve(serviceVSSPS, c.DevOps)
	return err
}

var (
	errOtherResource = errors.New("the token is for another resource")
	errNoRole        = errors.New("the identity has no role here")
)

func (c *Cloud) verifyDevOps(token string) (devops.Claims, error) {
	claims, err := c.Entra.VerifyAccessToken(token)
	if err != nil {
		return devops.Claims{}, err
	}
	if claims.Audience != entra.DevOps {
		return devops.Claims{}, errOtherResource
	}
	return devops.Claims{ObjectID: claims.ObjectID, UPN: claims.UPN, TenantID: claims.TenantID, Scopes: claims.Scopes,
		AppOnly: claims.IDType == "app"}, nil
}

// eventDelay is what Event Grid takes, on a good day.
const eventDelay = time.Second

func (c *Cloud) startVault() error {
	handler := &lateHandler{}
	at, err := c.serve(serviceVault, handler)
	if err != nil {
		return err
	}
	c.at.vault = at
	var config keyvault.Config
	if c.config.Vault != nil {
		c.config.Vault(&config)
	}
	config.URL, config.Authority, config.Tenant = at, c.at.entra, c.Entra.Tenant()
	if config.Events.Delay == 0 {
		config.Events.Delay = eventDelay
	}
	config.Injector = c.Injector
	config.Verify = func(token string) error { return c.verifyRole(token, "https://vault.azure.net") }
	config.Allow = c.mayUse
	config.Emit = c.vaultEvent
	config.OnChange = func(_ string, v keyvault.Version) {
		c.history.add(Record{At: time.Now(), Kind: Secret, Secret: &v})
	}
	c.Vault, err = keyvault.New(config)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, c.Vault.Close)
	handler.set(c.Vault)
	return nil
}

// startBlobs starts the storage account, with the container of the app's state in it.
func (c *Cloud) startBlobs() error {
	handler := &lateHandler{}
	at, err := c.serve(serviceBlobs, handler)
	if err != nil {
		return err
	}
	c.at.blobs = at
	var config blob.Config
	if c.config.Blobs != nil {
		c.config.Blobs(&config)
	}
	config.URL, config.Authority, config.Tenant = at, c.at.entra, c.Entra.Tenant()
	config.Injector = c.Injector
	config.Verify = func(token string) error {
		err := c.verifyOwn(token, "https://storage.azure.com")
		if errors.Is(err, errNoRole) {
			return blob.ErrNoRole
		}
		return err
	}
	config.OnChange = func(b blob.Blob) { c.history.add(Record{At: time.Now(), Kind: Blob, Blob: &b}) }
	c.Blobs, err = blob.New(config, StateContainer)
	if err != nil {
		return err
	}
	handler.set(c.Blobs)
	return nil
}

// verifyOwn accepts the app's managed identity alone: nobody else has a role in
// the vault, the namespace or the storage account.
func (c *Cloud) verifyOwn(token, audience string) error {
	claims, err := c.Entra.VerifyAccessToken(token)
	switch {
	case err != nil:
		return err
	case trimSlash(claims.Audience) != audience:
		return errOtherResource
	case claims.IDType != "app" || claims.ObjectID != c.principalID:
		return errNoRole
	}
	return nil
}

func (c *Cloud) startControl() (err error) {
	c.at.control, err = c.serve(serviceControl, c.Injector)
	return err
}

// ControlURL is where the injector's control API is served: GET /calls, POST /faults and so on.
func (c *Cloud) ControlURL() string { return c.at.control }

// VaultHost is the host of KEY_VAULT_URL, with its port if it has one.
func (c *Cloud) VaultHost() string {
	u, _ := url.Parse(c.at.vault) // made from a listener's address
	return u.Host
}

// Close ends every service and removes what the cloud has written.
func (c *Cloud) Close() {
	c.closeOnce.Do(func() {
		for i := len(c.closers) - 1; i >= 0; i-- {
			c.closers[i]()
		}
	})
}

func trimSlash(s string) string {
	if n := len(s); n > 0 && s[n-1] == '/' {
		return s[:n-1]
	}
	return s
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func guid() string {
	s := random(16)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
