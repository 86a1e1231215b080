package app

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/ncrontab"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
)

// Settings are the app settings, read and checked.
type Settings struct {
	Manifest string // path

	Vault     *url.URL
	Authority *url.URL
	DevOps    *url.URL
	VSSPS     *url.URL
	Public    *url.URL // nil: not known, then links are left out
	// Hosts are the names by which the app is called.
	Hosts []string
	// Authenticated: App Service authentication is on, so that its headers are its own.
	Authenticated bool
	State         *url.URL // nil: there is none

	BusConnectionString string
	BusNamespace        string // host, in local work with a port
	BusClientID         string
	BusWebSockets       bool // AMQP over web sockets on port 443

	// CheckInterval is the longest time between two sweeps; 0: not known. NextCheck gives
	// the next one after a time.
	CheckInterval time.Duration
	NextCheck     func(after time.Time) time.Time

	CommandQueue    string
	VaultEventQueue string
	// ConfirmationQueue is where consumers confirm; empty: they have the API alone.
	ConfirmationQueue string
	EventTopic        string

	ManagedIdentity  string // client id
	Tenant           string
	ClientID         string
	ClientCredential string // managed-identity, certificate, none
	Certificate      string

	Local    bool
	LogLevel slog.Level

	// Telemetry has problems of its own: patrol works without it.
	Telemetry telemetry.Config
}

// SettingsError lists everything that is wrong with the settings, each with what to
// do. It holds no values of settings.
type SettingsError struct{ Problems []string }

func (e *SettingsError) Error() string {
	return fmt.Sprintf("%d app settings cannot be used: %s", len(e.Problems), strings.Join(e.Problems, "; "))
}

// reader collects problems while settings are read.
type reader struct {
	getenv   func(string) string
	problems []string
}

func (r *reader) wrong(name, what string) { r.problems = append(r.problems, name+" "+what) }

func (r *reader) text(name, fallback string) string {
	v := strings.TrimSpace(r.getenv(name))
	switch {
	case v == "":
		return fallback
	case isReference(v):
		r.wrong(name, "is a reference that App Service has not resolved: see its state under the app's environment "+
			"variables; mostly the identity that reads references lacks a role, or the vault's firewall is closed")
		return fallback
	}
	return v
}

// isReference knows the text of a reference to another store. The platform puts the value
// in its place, and leaves the text where it cannot.
func isReference(value string) bool {
	value = strings.ToLower(value)
	return strings.HasPrefix(value, "@microsoft.keyvault(") || strings.HasPrefix(value, "@microsoft.appconfig")
}

// id is a setting that is a GUID.
func (r *reader) id(name, value string) string {
	const none = "00000000-0000-0000-0000-000000000000"
	if value != "" && (!rotation.IsGUID(value) || value == none) {
		r.wrong(name, "must be an id like 3f2504e0-4f89-41d3-9a0c-0305e82c3301, without braces")
	}
	return value
}

// ids holds the ids of settings against each other: they are copied from pages that stand
// side by side in the portal.
func (r *reader) ids(s *Settings) {
	r.id("AZURE_CLIENT_ID", s.ManagedIdentity)
	if !strings.Contains(s.Tenant, ".") { // a domain of the tenant does as well
		r.id("ENTRA_TENANT_ID", s.Tenant)
	}
	r.id("ENTRA_CLIENT_ID", s.ClientID)
	switch {
	case s.ClientID == "":
	case strings.EqualFold(s.ClientID, s.ManagedIdentity):
		r.wrong("ENTRA_CLIENT_ID", "is the managed identity's client id (AZURE_CLIENT_ID): give it the "+
			"application id of the app registration that people sign in to")
	case strings.EqualFold(s.ClientID, s.Tenant):
		r.wrong("ENTRA_CLIENT_ID", "is the tenant's id: give it the application id of the app registration that "+
			"people sign in to")
	}
}

// publicURL is the app's own address: nothing but scheme and host, so that every link and
// every redirect URI is made of it in one way.
func (r *reader) publicURL(s *Settings) {
	const example = "https://contoso-patrol.azurewebsites.net"
	public, host := r.text("PUBLIC_URL", ""), r.text("WEBSITE_HOSTNAME", "")
	if public == "" && host != "" {
		public = "https://" + host
		if loopback(host) {
			public = "http://" + host
		}
	}
	s.Public = r.url("PUBLIC_URL", public, example)
	if s.Public != nil && s.Public.Path+s.Public.RawPath != "" {
		r.wrong("PUBLIC_URL", "must have no path, like "+example+": the Functions host serves the app at /api")
		s.Public = nil
	}
	if s.Public != nil {
		s.Hosts = append(s.Hosts, s.Public.Host)
	}
	if host != "" {
		s.Hosts = append(s.Hosts, host)
	}
}

// logLevel takes Go's names, .NET's and syslog's.
func (r *reader) logLevel(s *Settings) {
	text := strings.ToLower(r.text("LOG_LEVEL", "info"))
	switch text {
	case "trace", "verbose", "all", "debug":
		s.LogLevel = slog.LevelDebug
	case "info", "information", "informational", "notice", "default":
		s.LogLevel = slog.LevelInfo
	case "warn", "warning":
		s.LogLevel = slog.LevelWarn
	case "err", "error", "critical", "crit", "fatal", "none", "off":
		s.LogLevel = slog.LevelError
	default:
		if err := s.LogLevel.UnmarshalText([]byte(text)); err != nil {
			r.wrong("LOG_LEVEL", "must be debug, info, warn or error")
		}
	}
}

func (r *reader) required(name, what string) string {
	v := r.text(name, "")
	if v == "" {
		r.wrong(name, "is not set: give it "+what)
	}
	return v
}

func (r *reader) url(name, value, example string) *url.URL {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		r.wrong(name, "is not a URL: write it like "+example)
		return nil
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		r.wrong(name, "must be a plain URL without user, query or fragment, like "+example)
		return nil
	case u.Scheme == "http" && !loopback(u.Host):
		r.wrong(name, "must begin with https://")
		return nil
	}
	return normal(u)
}

// normal is the one form of an address. The vault's host is in the mark of every PAT and
// in the source of every event: an address that is typed anew must give the same ones.
func normal(u *url.URL) *url.URL {
	host, port := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	isDefault := port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http"
	if port != "" && !isDefault {
		host += ":" + port
	}
	return &url.URL{Scheme: u.Scheme, Host: host, Path: strings.TrimRight(u.Path, "/"),
		RawPath: strings.TrimRight(u.RawPath, "/")}
}

// isContainer reports whether an address has a container's name as its only path.
func isContainer(u *url.URL) bool {
	name := strings.Trim(u.Path, "/")
	return name != "" && !strings.Contains(name, "/")
}

// ReadSettings reads the environment. The error, a *SettingsError, holds every
// problem at once.
func ReadSettings(getenv func(string) string) (Settings, error) {
	r := &reader{getenv: getenv}
	s := Settings{
		Manifest: r.text("PATROL_MANIFEST", "pats.yaml"),
		Vault: r.url("KEY_VAULT_URL",
			r.required("KEY_VAULT_URL", "the vault's address, like https://contoso.vault.azure.net"),
			"https://contoso.vault.azure.net"),
		Authority: r.url("AZURE_AUTHORITY_HOST", r.text("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
			"https://login.microsoftonline.com"),
		DevOps: r.url("AZURE_DEVOPS_URL", r.text("AZURE_DEVOPS_URL", "https://dev.azure.com"),
			"https://dev.azure.com"),
		VSSPS: r.url("AZURE_DEVOPS_VSSPS_URL", r.text("AZURE_DEVOPS_VSSPS_URL", "https://vssps.dev.azure.com"),
			"https://vssps.dev.azure.com"),

		CommandQueue: r.required("COMMAND_QUEUE", "the queue of commands, in our samples pat-commands"),
		VaultEventQueue: r.required("VAULT_EVENT_QUEUE",
			"the queue of Key Vault's events, in our samples vault-events"),
		ConfirmationQueue: r.text("CONFIRMATION_QUEUE", ""),
		EventTopic:        r.required("EVENT_TOPIC", "the topic of patrol's events, in our samples pat-events"),

		ManagedIdentity:  r.text("AZURE_CLIENT_ID", ""),
		Tenant:           r.required("ENTRA_TENANT_ID", "the id of the tenant"),
		ClientID:         r.required("ENTRA_CLIENT_ID", "the id of the app registration that people sign in to"),
		ClientCredential: strings.ToLower(r.text("ENTRA_CLIENT_CREDENTIAL", "managed-identity")),
		Certificate:      r.text("ENTRA_CERTIFICATE", ""),
	}
	r.publicURL(&s)
	s.Authenticated = strings.EqualFold(r.text("WEBSITE_AUTH_ENABLED", ""), "true")
	s.State = r.url("STATE_URL", r.text("STATE_URL", ""), stateExample)
	if s.State != nil && !isContainer(s.State) {
		r.wrong("STATE_URL", "must be the address of a blob container, like "+stateExample)
	}

	if schedule := r.required("CHECK_SCHEDULE", "six fields of NCRONTAB, like 0 0 */6 * * *"); schedule != "" {
		s.CheckInterval, s.NextCheck = r.schedule(schedule)
	}
	switch s.ClientCredential {
	case "managed-identity":
		if s.ManagedIdentity == "" {
			r.wrong("AZURE_CLIENT_ID", "is not set: give it the client id of the app's user-assigned managed "+
				"identity, or set ENTRA_CLIENT_CREDENTIAL to certificate or none")
		}
	case "certificate":
		if s.Certificate == "" {
			r.wrong("ENTRA_CERTIFICATE", "is not set: give it the name of the certificate in Key Vault")
		}
	case "none":
	default:
		r.wrong("ENTRA_CLIENT_CREDENTIAL", "must be managed-identity, certificate or none")
	}
	r.ids(&s)
	r.bus(&s)
	r.local(&s)
	r.exchange(s)
	s.Telemetry = telemetry.ReadConfig(getenv)
	r.logLevel(&s)
	if len(r.problems) > 0 {
		return s, &SettingsError{r.problems}
	}
	return s, nil
}

const stateExample = "https://contoso.blob.core.windows.net/patrol-state"

const busSetting = "ServiceBusConnection"

// busSections are where the Functions host looks for a connection, first one first: a
// connection string or a group of settings below it.
func busSections() []string {
	var out []string
	for _, name := range []string{"AzureWebJobs" + busSetting, busSetting} {
		out = append(out, "ConnectionStrings__"+name, "CUSTOMCONNSTR_"+name, name)
	}
	return out
}

// spellings of a setting below a section: the host ignores case, and takes a colon for the
// two underscores.
func spellings(section, key string) []string {
	var out []string
	for _, between := range []string{"__", ":"} {
		name := strings.ReplaceAll(section, "__", between) + between
		title := strings.ToUpper(key[:1]) + key[1:]
		out = append(out, name+key, name+title, name+strings.ToLower(key), name+strings.ToUpper(key),
			strings.ToUpper(name+key), strings.ToLower(name+key))
	}
	return out
}

// below reads a setting of a connection's group.
func (r *reader) below(section, key string) string {
	for _, name := range spellings(section, key) {
		if v := r.text(name, ""); v != "" {
			return v
		}
	}
	return ""
}

// bus reads the connection as the host does: whoever the triggers work with, patrol does.
func (r *reader) bus(s *Settings) {
	section := busSetting
	for _, section = range busSections() {
		s.BusConnectionString = r.text(section, "")
		s.BusNamespace = r.below(section, "fullyQualifiedNamespace")
		if s.BusConnectionString != "" || s.BusNamespace != "" {
			break
		}
	}
	s.BusClientID = cmp.Or(r.below(section, "clientId"), s.ManagedIdentity)
	switch {
	case s.BusConnectionString != "": // wins, as in the Functions host
	case s.BusNamespace == "":
		r.wrong(busSetting+"__fullyQualifiedNamespace",
			"is not set: give it the namespace's host, like contoso.servicebus.windows.net")
	case strings.ContainsAny(s.BusNamespace, "/;="):
		r.wrong(busSetting+"__fullyQualifiedNamespace", "must be a host name only, like contoso.servicebus.windows.net")
	}
	switch r.text("SERVICE_BUS_TRANSPORT", "amqp") {
	case "amqp":
	case "websockets":
		s.BusWebSockets = true
	default:
		r.wrong("SERVICE_BUS_TRANSPORT", "must be amqp (port 5671) or websockets (port 443)")
	}
	if s.BusConnectionString != "" {
		return
	}
	r.id(busSetting+"__clientId", s.BusClientID)
	credential := cmp.Or(r.below(section, "credential"), "managedidentity")
	if !strings.EqualFold(credential, "managedidentity") {
		r.wrong(busSetting+"__credential", "must be managedidentity")
	}
}

// Environment reads variables as the Functions host reads its settings: a name in other
// letters is the same setting, and so is one with a colon for two underscores. The exact
// name comes first.
func Environment(environ []string) func(string) string {
	exact, folded := map[string]string{}, map[string]string{}
	for _, e := range environ {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			continue
		}
		exact[name] = value
		if key := foldSetting(name); folded[key] == "" {
			folded[key] = value
		}
	}
	return func(name string) string {
		if v, ok := exact[name]; ok {
			return v
		}
		return folded[foldSetting(name)]
	}
}

func foldSetting(name string) string { return strings.ToLower(strings.ReplaceAll(name, ":", "__")) }

// local holds PATROL_LOCAL to its purpose: it switches checks off that only a
// loopback stack may do without.
func (r *reader) local(s *Settings) {
	switch strings.ToLower(r.text("PATROL_LOCAL", "false")) {
	case "false":
		return
	case "true":
		s.Local = true
	default:
		r.wrong("PATROL_LOCAL", "must be true or false")
		return
	}
	for _, u := range []struct {
		name string
		url  *url.URL
	}{{"KEY_VAULT_URL", s.Vault}, {"AZURE_AUTHORITY_HOST", s.Authority}, {"AZURE_DEVOPS_URL", s.DevOps},
		{"AZURE_DEVOPS_VSSPS_URL", s.VSSPS}, {"PUBLIC_URL", s.Public}, {"STATE_URL", s.State}} {
		if u.url != nil && !loopback(u.url.Host) {
			r.wrong("PATROL_LOCAL", "is for a stack on this machine only, and "+u.name+
				" points elsewhere: unset PATROL_LOCAL, or use a loopback address")
		}
	}
	if s.BusConnectionString == "" && s.BusNamespace != "" && !loopback(s.BusNamespace) {
		r.wrong("PATROL_LOCAL", "is for a stack on this machine only, and "+busSetting+
			"__fullyQualifiedNamespace points elsewhere")
	}
}

// exchange refuses an authority for which the managed identity's token cannot be asked
// for: what Entra takes in exchange differs from cloud to cloud.
func (r *reader) exchange(s Settings) {
	if s.ClientCredential != "managed-identity" || s.Authority == nil || s.Local {
		return
	}
	if _, known := entra.ExchangeAudience(s.Authority.Host); !known {
		r.wrong("AZURE_AUTHORITY_HOST", "is no cloud whose token exchange patrol knows: give it the address of one of "+
			strings.Join(entra.AuthorityHosts(), ", ")+", or set ENTRA_CLIENT_CREDENTIAL to certificate")
	}
}

// loopback reports whether a host, with or without port, is this machine.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// problems gives the lines of a report.
func problems(err error) []string {
	if e, ok := errors.AsType[*SettingsError](err); ok {
		return e.Problems
	}
	if findings, ok := errors.AsType[manifest.Findings](err); ok {
		var lines []string
		for _, f := range findings {
			lines = append(lines, f.String())
		}
		return lines
	}
	return []string{err.Error()}
}

// schedule reads CHECK_SCHEDULE as the Functions host does, and gives the longest time
// between two sweeps, and the next one after a time. The host takes five fields and time spans too; patrol's settings
// say six fields, so that one form is in use.
func (r *reader) schedule(text string) (interval time.Duration, next func(time.Time) time.Time) {
	const form = "six fields of NCRONTAB (second minute hour day month weekday), like 0 0 */6 * * *"
	if n := len(strings.Fields(text)); n != 6 {
		r.wrong("CHECK_SCHEDULE", fmt.Sprintf("has %d fields and needs %s", n, form))
		return 0, nil
	}
	s, err := ncrontab.Parse(text)
	if err != nil {
		r.wrong("CHECK_SCHEDULE", fmt.Sprintf("the Functions host does not take it (%s): give it %s", err, form))
		return 0, nil
	}
	// Any day will do: what comes at all comes within the years that Next looks ahead.
	from := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	if s.Next(from).IsZero() {
		r.wrong("CHECK_SCHEDULE", "names a time that never comes, so there would be no sweep: give it "+form)
		return 0, nil
	}
	return s.Interval(from), s.Next
}
