package cloud

import (
	_ "embed"
	"net/url"
)

// The names of the app's Service Bus entities in the default entities.
const (
	CommandQueue      = "pat-commands"
	VaultEventQueue   = "vault-events"
	EventTopic        = "pat-events"
	EventSubscription = "all"
	ConfirmationQueue = "pat-confirmations"
)

// StateContainer is the container of the app's state, STATE_URL.
const StateContainer = "patrol-state"

//go:embed entities.json
var defaultEntities []byte

// Environment are the app settings with which the app runs on this cloud, and
// what the platform adds: the managed identity's endpoint and, on loopback, the
// authority to trust. Each call returns a fresh map.
func (c *Cloud) Environment() map[string]string {
	env := map[string]string{
		"KEY_VAULT_URL":           c.at.vault,
		"COMMAND_QUEUE":           CommandQueue,
		"VAULT_EVENT_QUEUE":       VaultEventQueue,
		"CONFIRMATION_QUEUE":      ConfirmationQueue,
		"EVENT_TOPIC":             EventTopic,
		"CHECK_SCHEDULE":          c.config.CheckSchedule,
		"AZURE_CLIENT_ID":         c.clientID,
		"ENTRA_TENANT_ID":         c.Entra.Tenant(),
		"ENTRA_CLIENT_ID":         c.appID,
		"ENTRA_CLIENT_CREDENTIAL": c.config.ClientCredential,
		"AZURE_AUTHORITY_HOST":    c.at.entra,
		"AZURE_DEVOPS_URL":        c.at.devops,
		"AZURE_DEVOPS_VSSPS_URL":  c.at.vssps,
		"PUBLIC_URL":              c.config.PublicURL,
		"STATE_URL":               c.at.blobs + "/" + StateContainer,
		"LOG_LEVEL":               "info",
		"IDENTITY_ENDPOINT":       c.at.identity,
		"IDENTITY_HEADER":         c.header,
	}
	if c.certificate != "" {
		env["ENTRA_CERTIFICATE"] = certificateName
	}
	if c.config.Manifest != "" {
		env["PATROL_MANIFEST"] = c.config.Manifest
	}
	if c.config.ConnectionString {
		env["ServiceBusConnection"] = c.connectionString()
	} else {
		env["ServiceBusConnection__fullyQualifiedNamespace"] = c.at.namespace
		env["ServiceBusConnection__credential"] = "managedidentity"
		env["ServiceBusConnection__clientId"] = c.clientID
	}
	if c.config.Authentication {
		env["WEBSITE_AUTH_ENABLED"] = "True"
	}
	if c.config.WebSockets {
		env["SERVICE_BUS_TRANSPORT"] = "websockets"
	}
	if !c.config.Genuine {
		env["PATROL_LOCAL"] = "true"
	}
	if c.ca != nil {
		env["SSL_CERT_FILE"] = c.certFile()
	}
	return env
}

// authorityHost is the host of AZURE_AUTHORITY_HOST, as MSAL's cache names it.
func (c *Cloud) authorityHost() string {
	u, _ := url.Parse(c.at.entra) // made from a listener's address
	return u.Host
}
