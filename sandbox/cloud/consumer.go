package cloud

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// Consumer is an application that uses PATs: an identity with the roles that a consumer
// has by docs/subscribing.md, and no further right.
type Consumer struct {
	Name         string // of its shared access key, too
	Subscription string // of the topic of events; made if it is not there
	// Secrets are those that it may read; none: every one that is not patrol's own.
	Secrets []string
}

// consumer is a Consumer that has its identity.
type consumer struct {
	Consumer
	clientID, principalID, key string
}

// patrolsOwn begins the names of secrets that are no PATs.
const patrolsOwn = "patrol-"

func (c *consumer) mayRead(secret string) bool {
	if len(c.Secrets) > 0 {
		return slices.ContainsFunc(c.Secrets, func(s string) bool { return strings.EqualFold(s, secret) })
	}
	return !strings.HasPrefix(strings.ToLower(secret), patrolsOwn)
}

// rights are Data Receiver on its subscription and Data Sender on the confirmations.
func (c *consumer) rights(entity string) (send, listen bool) {
	own := strings.ToLower(EventTopic + "/Subscriptions/" + c.Subscription)
	return entity == ConfirmationQueue, entity == own
}

// addConsumers gives the configured consumers their identities.
func (c *Cloud) addConsumers() {
	for _, one := range c.config.Consumers {
		made := &consumer{Consumer: one, clientID: guid(), key: random(32)}
		made.principalID = c.Entra.AddIdentity(entra.ManagedIdentity{ClientID: made.clientID})
		c.consumers = append(c.consumers, made)
	}
}

// consumerOf finds whom a token names; nil: nobody.
func (c *Cloud) consumerOf(claims entra.Claims) *consumer {
	i := slices.IndexFunc(c.consumers, func(one *consumer) bool { return one.principalID == claims.ObjectID })
	if i < 0 || claims.IDType != "app" {
		return nil
	}
	return c.consumers[i]
}

func (c *Cloud) consumerByName(name string) *consumer {
	i := slices.IndexFunc(c.consumers, func(one *consumer) bool { return one.Name == name })
	if i < 0 {
		return nil
	}
	return c.consumers[i]
}

// verifyRole accepts the app's managed identity and those of consumers.
func (c *Cloud) verifyRole(token, audience string) error {
	claims, err := c.Entra.VerifyAccessToken(token)
	if err == nil && trimSlash(claims.Audience) == audience && c.consumerOf(claims) != nil {
		return nil
	}
	return c.verifyOwn(token, audience)
}

// mayUse is what the vault asks about each operation.
func (c *Cloud) mayUse(token, operation, secret string) bool {
	claims, err := c.Entra.VerifyAccessToken(token)
	if err != nil {
		return false
	}
	one := c.consumerOf(claims)
	if one == nil {
		return true // the app itself
	}
	return operation == keyvault.GetSecret && one.mayRead(secret)
}

// busRights is what Service Bus asks about each token.
func (c *Cloud) busRights(token string) func(entity string) (send, listen bool) {
	claims, err := c.Entra.VerifyAccessToken(token)
	one := c.consumerOf(claims)
	if err != nil || one == nil {
		return nil // the app itself: VerifyJWT has let nobody else through
	}
	return one.rights
}

// keys are the consumers' shared access keys.
func (c *Cloud) keys() []servicebus.Key {
	var out []servicebus.Key
	for _, one := range c.consumers {
		out = append(out, servicebus.Key{Name: one.Name, Key: one.key, Rights: one.rights})
	}
	return out
}

// addEntities makes the consumers' subscriptions, and what the configuration adds.
func (c *Cloud) addEntities() error {
	if c.config.Extra != nil {
		more, err := broker.ParseEntities(c.config.Extra)
		if err != nil {
			return err
		}
		if err := c.merge(more); err != nil {
			return err
		}
	}
	for _, one := range c.consumers {
		err := c.Bus.CreateSubscription(EventTopic, broker.Subscription{Name: one.Subscription})
		if err != nil && !errors.Is(err, servicebus.ErrExists) {
			return fmt.Errorf("cloud: the subscription %s: %w", one.Subscription, err)
		}
	}
	return nil
}

// merge adds entities: to a topic that is there its further subscriptions.
func (c *Cloud) merge(more broker.Entities) error {
	for _, q := range more.Queues {
		if err := c.Bus.Create(broker.Entities{Queues: []broker.Queue{q}}); err != nil {
			return err
		}
	}
	for _, t := range more.Topics {
		err := c.Bus.Create(broker.Entities{Topics: []broker.Topic{t}})
		if err == nil {
			continue
		}
		if !errors.Is(err, servicebus.ErrExists) {
			return err
		}
		for _, s := range t.Subscriptions {
			if err := c.Bus.CreateSubscription(t.Name, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// startPlainBus opens Service Bus without TLS too: the emulator's kind of connection string
// speaks so. On loopback only, and only if there are consumers.
func (c *Cloud) startPlainBus() error {
	if c.ca == nil || len(c.consumers) == 0 {
		return nil
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.config.Ports.PlainServiceBus))
	if err != nil {
		return fmt.Errorf("cloud: listening for Service Bus without TLS: %w", err)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = c.Bus.Serve(l) }) // ends with the listener
	c.closers = append(c.closers, func() {
		_ = l.Close()
		done.Wait()
	})
	c.plainBus = l.Addr().String()
	return nil
}

// ConsumerEnvironment is what a consumer's process needs, by the names that the SDKs and
// the samples of clients/ read; nil: there is no such consumer. Each call returns a fresh
// map.
func (c *Cloud) ConsumerEnvironment(name string) map[string]string {
	one := c.consumerByName(name)
	if one == nil {
		return nil
	}
	env := map[string]string{
		"KEY_VAULT_URL":             c.at.vault,
		"SERVICEBUS_NAMESPACE":      c.at.namespace,
		"SERVICEBUS_SUBSCRIPTION":   one.Subscription,
		"SERVICEBUS_KEY_NAME":       one.Name,
		"EVENT_TOPIC":               EventTopic,
		"CONFIRMATION_QUEUE":        ConfirmationQueue,
		"AZURE_DEVOPS_URL":          c.at.devops,
		"AZURE_DEVOPS_ORG":          Organization,
		"AZURE_CLIENT_ID":           one.clientID,
		"AZURE_AUTHORITY_HOST":      c.at.entra,
		"AZURE_TENANT_ID":           c.Entra.Tenant(),
		"IDENTITY_ENDPOINT":         c.at.identity,
		"IDENTITY_HEADER":           c.header,
		"SERVICEBUS_CONNECTION":     "",
		"PATROL_CONSUMER":           one.Name,
		"SERVICEBUS_CUSTOM_ADDRESS": "sb://" + c.busAddress,
	}
	if c.plainBus != "" {
		_, port, _ := net.SplitHostPort(c.plainBus)
		env["SERVICEBUS_CONNECTION"] = "Endpoint=sb://localhost:" + port + ";SharedAccessKeyName=" + one.Name +
			";SharedAccessKey=" + one.key + ";UseDevelopmentEmulator=true"
	}
	if c.ca != nil {
		file := filepath.Clean(c.certFile())
		for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"} {
			env[name] = file
		}
	}
	return env
}
