package cloud

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

func (c *Cloud) startBus() error {
	entities, err := broker.ParseEntities(c.config.Entities)
	if err != nil {
		return err
	}
	c.Bus, err = servicebus.New(servicebus.Config{
		SessionWait: c.config.SessionWait,
		Entities:    entities, KeyName: "RootManageSharedAccessKey", Key: c.sasKey, Injector: c.Injector,
		VerifyJWT: func(token, _ string) error { return c.verifyRole(token, "https://servicebus.azure.net") },
		Rights:    c.busRights, Keys: c.keys(),
		OnSend: func(entity string, m servicebus.Message) {
			c.history.add(Record{At: time.Now(), Kind: Message, Message: &Sent{
				Entity: entity, ID: m.ID, SessionID: m.SessionID, Subject: m.Subject, Scheduled: m.Scheduled,
				ContentType: m.ContentType, Properties: m.Properties, Body: m.Body,
			}})
		},
	})
	if err != nil {
		return err
	}
	c.closers = append(c.closers, c.Bus.Close)
	s := serviceBus
	// With the emulator's kind of connection string the SDK speaks without TLS.
	s.plain = c.config.ConnectionString
	l, err := c.net.listen(s)
	if err != nil {
		return err
	}
	amqp, web, err := c.net.webSockets(l)
	if err != nil {
		return err
	}
	opened := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.webSockets.Add(1)
		c.Bus.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: opened, ErrorLog: log.New(io.Discard, "", 0)}
	var done sync.WaitGroup
	done.Go(func() { _ = c.Bus.Serve(amqp) }) // ends with the listener
	done.Go(func() { _ = server.Serve(web) })
	c.closers = append(c.closers, func() {
		_ = l.Close()
		_ = server.Close()
		done.Wait()
	})
	c.at.namespace, c.busAddress = c.net.namespace(s, l)
	return nil
}

// WebSockets is how many requests for a web socket have come to Service Bus.
func (c *Cloud) WebSockets() int64 { return c.webSockets.Load() }

func (c *Cloud) connectionString() string { return c.Bus.ConnectionString(c.at.namespace) }

// vaultEvent delivers an event of the vault, as Event Grid does to a queue.
func (c *Cloud) vaultEvent(event []byte) {
	var head struct{ ID string }
	if json.Unmarshal(event, &head) != nil || head.ID == "" {
		head.ID = guid() // an array of events has none of its own
	}
	// It fails only once the bus is closed, when nobody receives any more.
	_ = c.Bus.Send(VaultEventQueue, servicebus.Message{ID: head.ID, Body: event, Properties: map[string]any{
		"aeg-subscription-name": "VAULT-EVENTS", "aeg-delivery-count": "0", "aeg-event-type": "Notification",
		"aeg-metadata-version": "1", "aeg-data-version": "", "aeg-output-event-id": head.ID,
	}})
}
