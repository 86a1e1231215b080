package app

import (
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

	BusConnectionString string
	BusNamespace        string // host, in local work with a port
	BusClientID         string

	// CheckInterval is the longest time between two sweeps; 0: not known.
	CheckInterval time.Duration

	CommandQueue    string
	VaultEventQueue string
	EventTopic      string

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
	if v := strings.TrimSpace(r.getenv(name)); v != "" {
		return v
	}
	return fallback
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
		EventTopic: r.required("EVENT_TOPIC", "the topic of patrol's events, in our samples pat-events"),

		ManagedIdentity:  r.text("AZURE_CLIENT_ID", ""),
		Tenant:           r.required("ENTRA_TENANT_ID", "the id of the tenant"),
		ClientID:         r.required("ENTRA_CLIENT_ID", "the id of the app registration that people sign in to"),
		ClientCredential: strings.ToLower(r.text("ENTRA_CLIENT_CREDENTIAL", "managed-identity")),
		Certificate:      r.text("ENTRA_CERTIFICATE", ""),
	}
	public := r.text("PUBLIC_URL", "")
	if host := r.text("WEBSITE_HOSTNAME", ""); public == "" && host != "" {
		public = "https://" + host
		if loopback(host) {
			public = "http://" + host
		}
	}
	s.Public = r.url("PUBLIC_URL", public, "https://contoso-patrol.azurewebsites.net")

	if schedule := r.required("CHECK_SCHEDULE", "six fields of NCRONTAB, like 0 0 */6 * * *"); schedule != "" {
		s.CheckInterval = r.schedule(schedule)
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
	r.bus(&s)
	r.local(&s)
	r.exchange(s)
	s.Telemetry = telemetry.ReadConfig(getenv)
	if err := s.LogLevel.UnmarshalText([]byte(r.text("LOG_LEVEL", "info"))); err != nil {
		r.wrong("LOG_LEVEL", "must be debug, info, warn or error")
	}
	if len(r.problems) > 0 {
		return s, &SettingsError{r.problems}
	}
	return s, nil
}

const busSetting = "ServiceBusConnection"

func (r *reader) bus(s *Settings) {
	s.BusConnectionString = r.text(busSetting, "")
	s.BusNamespace = r.text(busSetting+"__fullyQualifiedNamespace", "")
	s.BusClientID = r.text(busSetting+"__clientId", s.ManagedIdentity)
	switch {
	case s.BusConnectionString != "": // wins, as in the Functions host
	case s.BusNamespace == "":
		r.wrong(busSetting+"__fullyQualifiedNamespace",
			"is not set: give it the namespace's host, like contoso.servicebus.windows.net")
	case strings.ContainsAny(s.BusNamespace, "/;="):
		r.wrong(busSetting+"__fullyQualifiedNamespace", "must be a host name only, like contoso.servicebus.windows.net")
	}
	credential := r.text(busSetting+"__credential", "managedidentity")
	if s.BusConnectionString == "" && !strings.EqualFold(credential, "managedidentity") {
		r.wrong(busSetting+"__credential", "must be managedidentity")
	}
}

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
		{"AZURE_DEVOPS_VSSPS_URL", s.VSSPS}, {"PUBLIC_URL", s.Public}} {
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
// between two sweeps. The host takes five fields and time spans too; patrol's settings
// say six fields, so that one form is in use.
func (r *reader) schedule(text string) time.Duration {
	const form = "six fields of NCRONTAB (second minute hour day month weekday), like 0 0 */6 * * *"
	if n := len(strings.Fields(text)); n != 6 {
		r.wrong("CHECK_SCHEDULE", fmt.Sprintf("has %d fields and needs %s", n, form))
		return 0
	}
	s, err := ncrontab.Parse(text)
	if err != nil {
		r.wrong("CHECK_SCHEDULE", fmt.Sprintf("the Functions host does not take it (%s): give it %s", err, form))
		return 0
	}
	// Any day will do: what comes at all comes within the years that Next looks ahead.
	from := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	if s.Next(from).IsZero() {
		r.wrong("CHECK_SCHEDULE", "names a time that never comes, so there would be no sweep: give it "+form)
		return 0
	}
	return s.Interval(from)
}
