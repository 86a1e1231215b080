// Package app wires patrol together: settings and manifest in, an http.Handler for
// the Functions host out. It is the production wiring, of the handler process and of
// every simulation alike; what differs comes in by Outside.
//
// It holds no rules: what is to be done is package rotation's, how each service is
// spoken to is the adapters'.
package app

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/internal/web"
)

// Outside is what surrounds the app. Every zero value means the real thing.
type Outside struct {
	// Transport carries all HTTP calls.
	Transport http.RoundTripper
	// Dial opens AMQP connections, "host:port".
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Retry holds the SDKs' retries, for HTTP and AMQP.
	Retry   RetryOptions
	Now     func() time.Time
	Wait    func(ctx context.Context, d time.Duration) error
	Random  func() float64
	Log     *slog.Logger
	Version string
	// Telemetry is where spans and metrics go beside what the settings say.
	Telemetry telemetry.Outputs
	// Ports may change what the core works with: a simulation of a broken patrol
	// shows that it would be found out.
	Ports func(*rotation.Config)
}

// RetryOptions shorten the SDKs' own retries; zero values are the SDKs' defaults.
type RetryOptions struct {
	HTTP policy.RetryOptions
	AMQP azservicebus.RetryOptions
}

// App is the handler.
type App struct {
	mux     *customhandler.Mux
	bus     *bus.Bus
	closing []func(context.Context) error

	telemetry  *telemetry.Telemetry // nil: off
	reconciler *rotation.Reconciler
	manifest   *manifest.Manifest
	vault      *vault.Vault
	sweeps     web.Sweeps
	outside    Outside
	log        *slog.Logger
	// broken is set when settings or manifest cannot be used.
	broken []string
}

// New wires the app. It calls nobody. With a settings error, or a manifest that
// cannot be used, the app answers every call with what is wrong.
func New(s Settings, settingsErr error, o Outside) *App {
	o.fill()
	a := &App{outside: o, log: o.Log, mux: customhandler.New(customhandler.Config{Log: o.Log})}
	err := settingsErr
	if err == nil {
		err = a.wire(s)
	}
	if err != nil {
		a.broken = problems(err)
		for _, p := range a.broken {
			o.Log.Error("configuration: " + p)
		}
		a.handleBroken()
	}
	return a
}

func (o *Outside) fill() {
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 64
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		o.Transport = t
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "dev"
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wire builds every part, in the order in which they need each other.
func (a *App) wire(s Settings) error {
	m, warnings, err := manifest.Read(s.Manifest)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.log.Warn("manifest: " + w.String())
	}
	a.manifest = m

	a.observe(s)
	o := a.outside
	client := &http.Client{Transport: a.telemetry.Transport(o.Transport)}
	options := azcore.ClientOptions{Transport: client, Retry: o.Retry.HTTP, TracingProvider: a.telemetry.Tracing()}
	options.Telemetry.ApplicationID = telemetryID(o.Version)

	app, err := managedIdentity(s.ManagedIdentity, options)
	if err != nil {
		return err
	}
	if a.vault, err = vault.New(vault.Config{
		URL: s.Vault.String(), Credential: app, ClientOptions: options,
		DisableChallengeResourceVerification: s.Local, Log: o.Log, Now: o.Now,
	}); err != nil {
		return err
	}
	busCredential, err := managedIdentity(s.BusClientID, options)
	if err != nil {
		return err
	}
	if a.bus, err = bus.New(bus.Config{
		ConnectionString: s.BusConnectionString, Namespace: hostOnly(s.BusNamespace), Credential: busCredential,
		Options: a.busOptions(s), Queue: s.CommandQueue, Topic: s.EventTopic, VaultHost: s.Vault.Host, Log: o.Log, Trace: a.telemetry.Sending(),
	}); err != nil {
		return err
	}
	a.closing = append(a.closing, a.bus.Close, a.telemetry.Close)

	signIns := &signIns{settings: s, manifest: m, credential: app, vault: a.vault, notify: a.telemetry.Notify(a.bus.Publish), client: client, outside: o}
	calls := options
	calls.PerCallPolicies = a.telemetry.Calls("patrol/devops", o.Version)
	tokens, err := devops.New(devops.Config{
		URL: s.DevOps.String(), VSSPSURL: s.VSSPS.String(), Credential: signIns.credentialOf,
		ClientOptions: calls, Version: o.Version, Now: o.Now, Log: o.Log,
	})
	if err != nil {
		return err
	}

	providers := s.DevOps.String() + "/"
	core := rotation.Config{
		Spec: m.PAT, Specs: func() []rotation.Spec { return m.PATs },
		Vault: a.vault, Tokens: tokens, Outbox: a.bus, Identities: signIns, Observer: a.telemetry.Observer(),
		VaultTag:        rotation.VaultTag(s.Vault.Host),
		ProviderAddress: func(organization string) string { return providers + organization },
		Organization: func(address string) string {
			if len(address) > len(providers) && strings.EqualFold(address[:len(providers)], providers) {
				return address[len(providers):]
			}
			return ""
		},
		Now: o.Now, Wait: o.Wait, Random: o.Random, Log: o.Log,
	}
	if o.Ports != nil {
		o.Ports(&core)
	}
	a.reconciler = rotation.NewReconciler(core)
	keys := keyring.New(a.vault.Identities(), o.Now)
	pages := web.SignInConfig{SignIns: signIns, Sealer: keys, Specs: core.Specs, Outbox: a.bus, Now: o.Now, Log: o.Log}
	if s.Public != nil {
		pages.PublicURL = strings.TrimSuffix(s.Public.String(), "/")
	}
	api := web.New(a.administration(web.Config{Reconciler: a.reconciler, Outbox: a.bus, Identities: signIns, Versions: a.vault,
		Ends: tokens, Sweeps: &a.sweeps, Now: o.Now, Log: o.Log, Keys: keys,
		Pages: []func(*web.API, *http.ServeMux){web.SignInRoutes(pages), web.DashboardRoutes}}, tokens.Administration()))
	a.handle(s, api.Handler())
	return nil
}

// administration adds what an administrator's identity can do, if the manifest has
// one.
func (a *App) administration(c web.Config, organizations devops.Administration) web.Config {
	var administrators []string
	for name, id := range a.manifest.Identities {
		if id.Administrator {
			administrators = append(administrators, name)
		}
	}
	if len(administrators) == 0 {
		return c
	}
	slices.Sort(administrators)
	c.Administration = func(ctx context.Context) (web.Revocations, error) {
		key, err := c.Keys.Key(ctx)
		if err != nil {
			return nil, err
		}
		return administration.New(administration.Config{Organizations: organizations, Vault: a.vault, Key: key, Now: c.Now})
	}
	c.Audit = func(ctx context.Context, o rotation.Owner, q administration.AuditQuery) (administration.AuditPage, error) {
		if !a.manifest.Identities[o.Identity].Administrator {
			o.Identity = administrators[0]
		}
		return organizations.AuditLog(ctx, o, q)
	}
	return c
}

// observe switches telemetry on, if the settings ask for it.
func (a *App) observe(s Settings) {
	o := &a.outside
	for _, p := range s.Telemetry.Problems {
		o.Log.Warn("telemetry: " + p)
	}
	a.telemetry = telemetry.New(s.Telemetry, telemetry.Outside{
		Outputs: o.Telemetry, Transport: o.Transport, Now: o.Now, Log: o.Log, Version: o.Version,
		Services: map[string]string{s.Vault.Host: "vault", s.Authority.Host: "entra", s.DevOps.Host: "devops", s.VSSPS.Host: "devops"},
	})
	o.Log = a.telemetry.Log(o.Log)
	a.log = o.Log
}

// Handler answers the Functions host.
func (a *App) Handler() http.Handler { return a.mux }

// Server gives the http.Server that the Functions host talks to at address.
func (a *App) Server(address string) *http.Server { return a.mux.Server(address) }

// Broken lists what is wrong with settings or manifest; empty if nothing is.
func (a *App) Broken() []string { return a.broken }

// Close ends the connections.
func (a *App) Close(ctx context.Context) error {
	var errs []error
	for _, f := range a.closing {
		errs = append(errs, f(ctx))
	}
	if t, ok := a.outside.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return errors.Join(errs...)
}

// telemetryID is what the Azure SDKs put before their User-Agent: 24 characters at
// most, or they cut it.
func telemetryID(version string) string {
	id := "patrol/" + version
	return id[:min(len(id), 24)]
}

// identityTimeout ends one attempt at a token of the managed identity: its endpoint
// is on the same machine.
const identityTimeout = 20 * time.Second

func managedIdentity(clientID string, options azcore.ClientOptions) (azcore.TokenCredential, error) {
	if options.Retry.TryTimeout == 0 {
		options.Retry.TryTimeout = identityTimeout
	}
	o := azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
	if clientID != "" {
		o.ID = azidentity.ClientID(clientID)
	}
	c, err := azidentity.NewManagedIdentityCredential(&o)
	if err != nil {
		return nil, errors.New("the managed identity cannot be used: AZURE_CLIENT_ID must be the client id of a user-assigned managed identity of this app")
	}
	return c, nil
}

// busOptions connects to Azure as the SDK does by itself; to a local bus at its port,
// which the SDK would otherwise take for a part of the certificate's name.
func (a *App) busOptions(s Settings) azservicebus.ClientOptions {
	o := azservicebus.ClientOptions{ApplicationID: telemetryID(a.outside.Version), RetryOptions: a.outside.Retry.AMQP}
	address := s.BusNamespace
	if dial := a.outside.Dial; dial != nil {
		o.NewWebSocketConn = func(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			if address == "" {
				address = strings.TrimPrefix(args.Host, "wss://")
			}
			return dial(ctx, address)
		}
		return o
	}
	if _, port, err := net.SplitHostPort(s.BusNamespace); err == nil && s.Local {
		o.CustomEndpoint = net.JoinHostPort("127.0.0.1", port)
	}
	return o
}

func hostOnly(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

// signIns builds the sign-in client when it is first needed: its certificate, if it
// uses one, comes from the vault.
type signIns struct {
	settings   Settings
	manifest   *manifest.Manifest
	credential azcore.TokenCredential
	vault      *vault.Vault
	notify     func(context.Context, rotation.Event) error
	client     *http.Client
	outside    Outside

	mu    sync.Mutex
	built *entra.Client
}

// certificateTimeout bounds reading the app's certificate from the vault.
const certificateTimeout = 30 * time.Second

// whoSignsIn are a manifest's identities, with what they are asked for.
func whoSignsIn(m *manifest.Manifest) map[string]entra.Identity {
	out := make(map[string]entra.Identity, len(m.Identities))
	for name, id := range m.Identities {
		signIn := entra.Identity{User: id.User}
		if id.Administrator {
			signIn.MoreScopes = devops.AdministrationScopes()
		}
		out[name] = signIn
	}
	return out
}

func (s *signIns) get(ctx context.Context) (*entra.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.built != nil {
		return s.built, nil
	}
	c := entra.Config{
		Tenant: s.settings.Tenant, ClientID: s.settings.ClientID, AuthorityHost: s.settings.Authority.String(),
		Identities: whoSignsIn(s.manifest), Store: s.vault.Identities(), Notify: s.notify,
		DisableInstanceDiscovery: s.settings.Local, HTTPClient: s.client, Now: s.outside.Now, Log: s.outside.Log,
	}
	if s.settings.Public != nil {
		c.PublicURL = s.settings.Public.String()
	}
	switch s.settings.ClientCredential {
	case "managed-identity":
		c.Credential.ManagedIdentity = s.credential
	case "certificate":
		ctx, cancel := context.WithTimeout(ctx, certificateTimeout)
		defer cancel()
		if err := s.certificate(ctx, &c.Credential); err != nil {
			return nil, err
		}
	}
	client, err := entra.New(c)
	if err != nil {
		return nil, &rotation.Error{Class: rotation.Configuration, Code: "sign-in-settings", Message: err.Error(), Err: err}
	}
	s.built = client
	return client, nil
}

// certificate reads a Key Vault certificate with its key, which the vault keeps as a
// secret of the same name, in PEM or as base64 of PKCS #12.
func (s *signIns) certificate(ctx context.Context, into *entra.Credential) error {
	value, _, _, _, err := s.vault.Identities().Read(ctx, s.settings.Certificate)
	if err != nil {
		return fmt.Errorf("reading the certificate that ENTRA_CERTIFICATE names: %w", err)
	}
	data := []byte(value.Reveal())
	if !strings.Contains(value.Reveal(), "-----BEGIN") {
		if data, err = base64.StdEncoding.DecodeString(value.Reveal()); err != nil {
			return unusable()
		}
	}
	certs, key, err := azidentity.ParseCertificates(data, nil)
	if err != nil {
		return unusable()
	}
	into.Certificates, into.Key = certs, key
	return nil
}

func unusable() error {
	return &rotation.Error{Class: rotation.Configuration, Code: "certificate",
		Message: "the certificate that ENTRA_CERTIFICATE names cannot be used: it must be an RSA certificate with an exportable key, in PEM or PKCS #12"}
}

func (s *signIns) credentialOf(identity string) (azcore.TokenCredential, error) {
	c, err := s.get(context.Background())
	if err != nil {
		return nil, err
	}
	return c.Credential(identity), nil
}

// Refresh keeps an identity's sign-in alive.
func (s *signIns) Refresh(ctx context.Context, identity string) error {
	c, err := s.get(ctx)
	if err != nil {
		return err
	}
	return c.Refresh(ctx, identity)
}

// Names lists the identities.
func (s *signIns) Names() []string {
	names := make([]string, 0, len(s.manifest.Identities))
	for name := range s.manifest.Identities {
		names = append(names, name)
	}
	return names
}

// SignInURL begins a person's sign-in.
func (s *signIns) SignInURL(ctx context.Context, identity string, r entra.SignInRequest) (string, error) {
	c, err := s.get(ctx)
	if err != nil {
		return "", err
	}
	return c.SignInURL(ctx, identity, r)
}

// CompleteSignIn ends one.
func (s *signIns) CompleteSignIn(ctx context.Context, identity string, g entra.CodeGrant) error {
	c, err := s.get(ctx)
	if err != nil {
		return err
	}
	return c.CompleteSignIn(ctx, identity, g)
}

// AdminConsentLink is where an administrator of the directory consents for everybody.
func (s *signIns) AdminConsentLink(ctx context.Context, identity, redirectURI, state string) (string, error) {
	c, err := s.get(ctx)
	if err != nil {
		return "", err
	}
	return c.AdminConsentLink(identity, redirectURI, state)
}

// State tells about an identity's sign-in.
func (s *signIns) State(ctx context.Context, identity string) web.Identity {
	out := web.Identity{Name: identity, User: s.manifest.Identities[identity].User}
	c, err := s.get(ctx)
	if err == nil {
		var st entra.Status
		if st, err = c.Status(ctx, identity); err == nil {
			out.Since, out.Until = st.SignedIn, st.Until
			if s.settings.Public != nil {
				out.SignInURL = st.SignInLink
			}
			if st.Required {
				out.Required, out.Since = st.Code, st.Since
			}
		}
	}
	out.Err = err
	return out
}
