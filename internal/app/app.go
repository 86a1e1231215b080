// Package app wires patrol together: settings and manifest in, an http.Handler for
// the Functions host out. It is the production wiring, of the handler process and of
// every simulation alike; what differs comes in by Outside.
//
// It holds no rules: what is to be done is package rotation's, how each service is
// spoken to is the adapters'.
package app

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
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
	"github.com/azure-patrol/patrol/internal/reconcile"
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
	Commit  string
	// Telemetry is where spans and metrics go beside what the settings say.
	Telemetry telemetry.Outputs
	// Ports may change what the core works with: a simulation breaks patrol with it,
	// to see that its own checks find that.
	Ports func(*reconcile.Config)
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
	reconciler *reconcile.Reconciler
	manifest   *manifest.Manifest
	vault      *vault.Vault
	settings   Settings
	failed     failedDeliveries
	outside    Outside
	log        *slog.Logger
	// broken is set when settings or manifest cannot be used.
	broken []string
}

// New wires the app. It calls nobody. With a settings error, or a manifest that
// cannot be used, the app answers every call with what is wrong.
func New(s Settings, settingsErr error, o Outside) *App {
	o.fill()
	a := &App{outside: o, log: o.Log, mux: customhandler.New(customhandler.Config{Log: o.Log, Hosts: s.Hosts})}
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
	for _, r := range m.Refused {
		a.log.Warn("manifest: an entry is refused: "+r.String(), "identity", r.Identity, "pat", r.PAT.Name)
	}
	a.manifest, a.settings = m, s

	a.observe(s)
	o := a.outside
	client := &http.Client{Transport: a.telemetry.Transport(o.Transport)}
	options := azcore.ClientOptions{Transport: client, Retry: o.Retry.HTTP, TracingProvider: a.telemetry.Tracing()}
	options.Telemetry.ApplicationID = telemetryID(o.Version)

	app, err := managedIdentity(s.ManagedIdentity, options)
	if err != nil {
		return err
	}
	a.vault, err = vault.New(vault.Config{
		URL: s.Vault.String(), Credential: app, ClientOptions: options,
		DisableChallengeResourceVerification: s.Local, Log: o.Log, Now: o.Now,
	})
	if err != nil {
		return err
	}
	known, err := newState(s, app, options, o.Now)
	if err != nil {
		return err
	}
	busCredential, err := managedIdentity(s.BusClientID, options)
	if err != nil {
		return err
	}
	a.bus, err = bus.New(bus.Config{
		ConnectionString: s.BusConnectionString, Namespace: hostOnly(s.BusNamespace), Credential: busCredential,
		Options: a.busOptions(s), Queue: s.CommandQueue, Topic: s.EventTopic, VaultHost: s.Vault.Host, Log: o.Log,
		Trace: a.telemetry.Sending(),
	})
	if err != nil {
		return err
	}
	a.closing = append(a.closing, a.bus.Close, a.telemetry.Close)

	signIn := signInConfig(s, m, vault.NewStore(a.vault), client, o)
	signIn.Notify = a.telemetry.Notify(a.bus.Publish)
	switch s.ClientCredential {
	case "managed-identity":
		signIn.Credential.ManagedIdentity = app
	case "certificate":
		signIn.Credential.Certificate = certificate(vault.NewStore(a.vault), s.Certificate)
	}
	signInClient, err := entra.New(signIn)
	if err != nil {
		return err
	}
	signIns := &signIns{Client: signInClient, manifest: m, hasLinks: s.Public != nil}
	calls := options
	calls.PerCallPolicies = a.telemetry.Calls("patrol/devops", o.Version)
	tokens, err := devops.New(devops.Config{
		URL: s.DevOps.String(), VSSPSURL: s.VSSPS.String(), ClientOptions: calls,
		Credential: func(identity string) (azcore.TokenCredential, error) { return signIns.Credential(identity), nil },
		Version:    o.Version, Now: o.Now, Log: o.Log,
	})
	if err != nil {
		return err
	}

	providers := s.DevOps.String() + "/"
	core := reconcile.Config{
		Spec: m.PAT, Specs: func() []rotation.Spec { return m.PATs },
		Vault: a.vault, Tokens: tokens, Outbox: a.bus, Identities: signIns, Observer: a.telemetry.Observer(),
		Memory: known, IdentityNames: signIns.Names, Refused: m.RefusedPATs(),
		Interval:        s.CheckInterval,
		DefaultOverlap:  m.Overlap,
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
	a.reconciler = reconcile.NewReconciler(core)
	keys := keyring.New(vault.NewStore(a.vault), o.Now, o.Wait)
	var public string
	if s.Public != nil {
		public = strings.TrimSuffix(s.Public.String(), "/")
	}
	visits := web.NewVisits(web.VisitConfig{Visitors: signInClient, Sealer: keys, Keys: keys, PublicURL: public,
		Now: o.Now, Log: o.Log})
	pages := web.SignInConfig{SignIns: signIns, Sealer: keys, PublicURL: public, Specs: core.Specs, Outbox: a.bus,
		Now: o.Now, Log: o.Log, Visits: visits, MayConfirm: visits.Operator}
	c := a.administration(web.Config{
		Reconciler: a.reconciler, Outbox: a.bus, Identities: signIns, Versions: a.vault, Ends: tokens,
		Memory: known, NextSweep: s.NextCheck, Now: o.Now, Log: o.Log, Keys: keys,
		Build: web.Build{Version: o.Version, Commit: o.Commit}, ManifestSource: s.Manifest,
		Public: s.Public, Authenticated: s.Authenticated,
		Pages: []func(*web.API, *http.ServeMux){web.SignInRoutes(pages), web.DashboardRoutes(visits)},
	}, tokens.Administration())
	if known.store != nil {
		c.Incidents, c.Acts = known, known
	}
	a.handle(s, web.New(c).Handler())
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
		keys, err := c.Keys.Keys(ctx)
		if err != nil {
			return nil, err
		}
		return administration.New(administration.Config{Organizations: organizations, Vault: a.vault, Keys: keys,
			Now: c.Now})
	}
	c.Audit = func(ctx context.Context, o rotation.Owner,
		q administration.AuditQuery) (administration.AuditPage, error) {
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
		Services: map[string]string{s.Vault.Host: "vault", s.Authority.Host: "entra", s.DevOps.Host: "devops",
			s.VSSPS.Host: "devops"},
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
		return nil, errors.New("the managed identity cannot be used: " +
			"AZURE_CLIENT_ID must be the client id of a user-assigned managed identity of this app")
	}
	return c, nil
}

// busOptions connects to Azure as the SDK does by itself, or over web sockets; to a local
// bus at its port, which the SDK would otherwise take for a part of the certificate's name.
func (a *App) busOptions(s Settings) azservicebus.ClientOptions {
	o := azservicebus.ClientOptions{ApplicationID: telemetryID(a.outside.Version), RetryOptions: a.outside.Retry.AMQP}
	address := s.BusNamespace
	if s.BusWebSockets {
		o.NewWebSocketConn = bus.WebSockets(a.outside.Transport, s.webSocketURL)
		return o
	}
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

// webSocketURL is where a namespace's web sockets are: in Azure at the SDK's own address,
// in local work at the port that the settings name, unless that is AMQP's own.
func (s Settings) webSocketURL(url string) string {
	host, port, err := net.SplitHostPort(s.BusNamespace)
	if err != nil || !s.Local || port == "5671" {
		return url
	}
	return strings.Replace(url, "//"+host+"/", "//"+net.JoinHostPort(host, port)+"/", 1)
}

func hostOnly(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
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

// signInConfig is what every sign-in client has in common: it lacks the app's
// credential and the way to announce.
func signInConfig(s Settings, m *manifest.Manifest, store entra.Store, client *http.Client, o Outside) entra.Config {
	c := entra.Config{
		Tenant: s.Tenant, ClientID: s.ClientID, AuthorityHost: s.Authority.String(), Identities: whoSignsIn(m),
		Store: store, DisableInstanceDiscovery: s.Local, HTTPClient: client, Now: o.Now, Log: o.Log,
	}
	if s.Public != nil {
		c.PublicURL = s.Public.String()
	}
	return c
}

// certificate reads a Key Vault certificate with its key, which the vault keeps as a
// secret of the same name, in PEM or as base64 of PKCS #12.
func certificate(store entra.Store, name string) func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
	return func(ctx context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
		ctx, cancel := context.WithTimeout(ctx, certificateTimeout)
		defer cancel()
		value, _, _, _, err := store.Read(ctx, name)
		if err != nil {
			return nil, nil, certificateUnread(err)
		}
		data := []byte(value.Reveal())
		if !strings.Contains(value.Reveal(), "-----BEGIN") {
			data, err = base64.StdEncoding.DecodeString(value.Reveal())
		}
		if err != nil {
			return nil, nil, errCertificate
		}
		certs, key, err := azidentity.ParseCertificates(data, nil)
		if err != nil {
			return nil, nil, errCertificate
		}
		return certs, key, nil
	}
}

var errCertificate = &rotation.Error{Class: rotation.Configuration, Code: "certificate",
	Message: "the certificate that ENTRA_CERTIFICATE names cannot be used: " +
		"it must be an RSA certificate with an exportable key, in PEM or PKCS #12"}

// certificateUnread keeps the vault's reason.
func certificateUnread(err error) error {
	const doing = "reading the certificate that ENTRA_CERTIFICATE names: "
	if errors.Is(err, rotation.ErrNotFound) {
		return &rotation.Error{Class: rotation.Configuration, Code: "certificate", Err: err,
			Message: doing + "the vault has no secret of this name"}
	}
	e := rotation.AsError(err)
	if e == nil {
		return &rotation.Error{Class: rotation.Transient, Code: "certificate", Message: doing + "it failed", Err: err}
	}
	named := *e
	named.Message = doing + e.Message
	return &named
}

// signIns are the sign-ins as package web shows them.
type signIns struct {
	*entra.Client
	manifest *manifest.Manifest
	hasLinks bool // the app knows its own address
}

// State shows how an identity's sign-in stands.
func (s *signIns) State(ctx context.Context, identity string) web.SignInState {
	out := web.SignInState{Name: identity, User: s.manifest.Identities[identity].User}
	st, err := s.Status(ctx, identity)
	if err != nil {
		out.Err = err
		return out
	}
	out.Since, out.Until, out.Renamed = st.SignedIn, st.Until, st.Renamed
	if st.Code != "" {
		out.Cause = &rotation.Error{Class: st.Class, Code: st.Code, Message: st.Message, Service: rotation.Entra}
	}
	if s.hasLinks {
		out.SignInURL = st.SignInLink
	}
	if st.Required {
		out.Required, out.Since = st.Code, st.Since
	}
	return out
}
