package cloud

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// Host is the configuration of a Functions host that runs an app on this cloud:
// the app settings, and the way to its Service Bus. Launcher, keys and the rest
// are the caller's.
func (c *Cloud) Host(appDir string) functionshost.Config {
	settings := c.Environment()
	settings["FUNCTIONS_WORKER_RUNTIME"] = "custom"
	settings["AzureWebJobsStorage"] = "UseDevelopmentStorage=true"
	return functionshost.Config{
		AppDir: appDir, Settings: settings, Keys: functionshost.Keys{Function: map[string]string{}},
		ServiceBus: func(string) (*azservicebus.Client, error) { return c.BusClient() },
	}
}

// BusClient is a Service Bus client with the rights of the app, made as the app
// makes its own. The caller closes it.
func (c *Cloud) BusClient() (*azservicebus.Client, error) {
	if c.config.ConnectionString {
		return azservicebus.NewClientFromConnectionString(c.connectionString(), c.busOptions())
	}
	return c.BusClientAs(c.Credential())
}

// BusClientAs is a Service Bus client of somebody else's. The caller closes it.
func (c *Cloud) BusClientAs(who azcore.TokenCredential) (*azservicebus.Client, error) {
	host, _, err := net.SplitHostPort(c.at.namespace)
	if err != nil {
		host = c.at.namespace
	}
	return azservicebus.NewClient(host, who, c.busOptions())
}

func (c *Cloud) busOptions() *azservicebus.ClientOptions {
	// A name is not part of the port for the SDK, and a Network has no TLS: the
	// hook for web sockets takes any connection.
	if c.ca == nil {
		return &azservicebus.ClientOptions{NewWebSocketConn: func(ctx context.Context,
			_ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
			return c.DialBus(ctx, "")
		}}
	}
	if c.config.ConnectionString {
		return nil
	}
	return &azservicebus.ClientOptions{TLSConfig: c.ca.ClientTLSConfig(), CustomEndpoint: c.busAddress}
}

// BusAddress is where DialBus goes.
func (c *Cloud) BusAddress() string { return c.busAddress }

// DialBus opens a connection for AMQP without TLS; on a Network only. The
// address that a client asks for makes no difference.
func (c *Cloud) DialBus(ctx context.Context, _ string) (net.Conn, error) {
	if c.ca != nil {
		return nil, fmt.Errorf("cloud: Service Bus on loopback speaks TLS only, on %s", c.busAddress)
	}
	return c.net.dial(ctx, "pipe", c.busAddress)
}

// Credential is the app's managed identity, without its endpoint on the way.
func (c *Cloud) Credential() azcore.TokenCredential { return managedIdentity{c} }

type managedIdentity struct{ cloud *Cloud }

func (m managedIdentity) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 {
		return azcore.AccessToken{}, fmt.Errorf("the managed identity takes one scope, not %d", len(o.Scopes))
	}
	const suffix = "/.default"
	resource := o.Scopes[0]
	if n := len(resource) - len(suffix); n > 0 && resource[n:] == suffix {
		resource = resource[:n]
	}
	token, expires, err := m.cloud.Entra.IdentityToken(m.cloud.clientID, resource)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	m.cloud.tokens.add(token)
	return azcore.AccessToken{Token: token, ExpiresOn: expires.UTC().Truncate(time.Second)}, nil
}
