// Package bus is patrol's side of Service Bus: commands onto the queue, events onto
// the topic, over azservicebus. It knows the form of commands and events as
// messages, and must not know why one is sent.
//
// Receiving is the Functions host's work: the handler gets messages by invocation.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Config says where to send. Either ConnectionString, or Namespace and Credential.
type Config struct {
	ConnectionString string
	Namespace        string // host of the namespace: contoso.servicebus.windows.net
	Credential       azcore.TokenCredential
	Options          azservicebus.ClientOptions

	Queue string // of commands
	Topic string // of events
	// VaultHost makes the events' source.
	VaultHost string
	// Trace is called at the beginning of each send; nil: sends are not traced.
	Trace func(ctx context.Context, destination string, messages int) (context.Context, Trace)
	Log   *slog.Logger
}

// Bus sends commands and events. It connects at the first send.
type Bus struct {
	config Config

	mu       sync.Mutex
	client   *azservicebus.Client
	commands *azservicebus.Sender
	events   *azservicebus.Sender
}

var _ rotation.Outbox = (*Bus)(nil)

// New checks nothing upstream and opens nothing.
func New(c Config) (*Bus, error) {
	switch {
	case c.Queue == "" || c.Topic == "":
		return nil, errors.New("the names of the command queue and of the event topic are missing")
	case c.ConnectionString == "" && (c.Namespace == "" || c.Credential == nil):
		return nil, errors.New("neither a connection string is set, nor a namespace with a credential")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Bus{config: c}, nil
}

// sender gives the long-lived sender of the queue or the topic; links stay open.
func (b *Bus) sender(events bool) (*azservicebus.Sender, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		options := b.config.Options
		var err error
		if b.config.ConnectionString != "" {
			b.client, err = azservicebus.NewClientFromConnectionString(b.config.ConnectionString, &options)
		} else {
			b.client, err = azservicebus.NewClient(b.config.Namespace, b.config.Credential, &options)
		}
		if err != nil {
			b.client = nil // the SDK gives one that panics
			// Its text may quote the connection string.
			return nil, &rotation.Error{Class: rotation.Configuration, Code: "service-bus-connection",
				Service: rotation.ServiceBus,
				Message: "the Service Bus connection setting cannot be used: " +
					"set ServiceBusConnection__fullyQualifiedNamespace to the namespace's host name, " +
					"or ServiceBusConnection to a connection string"}
		}
	}
	at, name := &b.commands, b.config.Queue
	if events {
		at, name = &b.events, b.config.Topic
	}
	if *at == nil {
		s, err := b.client.NewSender(name, nil)
		if err != nil {
			return nil, classify(err, "opening the link to "+name)
		}
		*at = s
	}
	return *at, nil
}

// Send puts commands on the queue: those that are due now in batches, the others
// scheduled. Each is sent or the error says that not all of them were; a repeat is
// dropped by the queue's duplicate detection.
func (b *Bus) Send(ctx context.Context, cs ...rotation.Command) (err error) {
	if len(cs) == 0 {
		return nil
	}
	ctx, trace := b.trace(ctx, b.config.Queue, len(cs))
	defer func() { trace.end(err) }()
	sender, err := b.sender(false)
	if err != nil {
		return err
	}
	scheduled := map[time.Time][]*azservicebus.Message{}
	var due []*azservicebus.Message
	for _, c := range cs {
		m, err := encodeCommand(c)
		if err != nil {
			return err
		}
		m.ApplicationProperties = trace.properties(!c.At.IsZero())
		if c.At.IsZero() {
			due = append(due, m)
		} else {
			scheduled[c.At] = append(scheduled[c.At], m)
		}
	}
	for at, ms := range scheduled {
		if _, err := sender.ScheduleMessages(ctx, ms, at.UTC(), nil); err != nil {
			return classify(err, "scheduling a command")
		}
	}
	return sendAll(ctx, sender, due)
}

// sendAll uses as few batches as the messages fit in.
func sendAll(ctx context.Context, sender *azservicebus.Sender, ms []*azservicebus.Message) error {
	if len(ms) == 1 {
		return classify(sender.SendMessage(ctx, ms[0], nil), "sending a command")
	}
	for len(ms) > 0 {
		batch, err := sender.NewMessageBatch(ctx, nil)
		if err != nil {
			return classify(err, "sending commands")
		}
		n := 0
		for _, m := range ms {
			if err := batch.AddMessage(m, nil); errors.Is(err, azservicebus.ErrMessageTooLarge) && n > 0 {
				break
			} else if err != nil {
				return classify(err, "sending commands")
			}
			n++
		}
		if err := sender.SendMessageBatch(ctx, batch, nil); err != nil {
			return classify(err, "sending commands")
		}
		ms = ms[n:]
	}
	return nil
}

// Publish puts an event on the topic.
func (b *Bus) Publish(ctx context.Context, e rotation.Event) (err error) {
	ctx, trace := b.trace(ctx, b.config.Topic, 1)
	defer func() { trace.end(err) }()
	m, err := encodeEvent(e, b.config.VaultHost, trace.Parent)
	if err != nil {
		return err
	}
	sender, err := b.sender(true)
	if err != nil {
		return err
	}
	if err := sender.SendMessage(ctx, m, nil); err != nil {
		return classify(err, "publishing "+*m.Subject)
	}
	b.config.Log.InfoContext(ctx, "event published", "type", *m.Subject, "subject", *m.SessionID, "id", *m.MessageID)
	return nil
}

// Close ends the connection.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client == nil {
		return nil
	}
	err := b.client.Close(ctx)
	b.client, b.commands, b.events = nil, nil, nil
	return err
}

// classify gives an SDK error its class. Nothing of the SDK's object goes on but that the
// context ended: what is printed of it may quote an answer or a setting.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	// The managed identity's own failure has a class already.
	if e, ok := errors.AsType[*rotation.Error](err); ok {
		return fmt.Errorf("%s: %w", doing, e)
	}
	out := &rotation.Error{Class: rotation.Transient, Code: "service-bus", Service: rotation.ServiceBus,
		Err:     ended(err),
		Message: doing + " failed: Service Bus cannot be reached, or did not answer in time"}
	if errors.Is(err, azservicebus.ErrMessageTooLarge) {
		out.Class, out.Code = rotation.Configuration, "message-too-large"
		out.Message = doing + " failed: the message is larger than the Service Bus namespace permits"
		return out
	}
	e, ok := errors.AsType[*azservicebus.Error](err)
	if !ok {
		return out
	}
	out.Code = "service-bus-" + string(e.Code)
	switch e.Code {
	case azservicebus.CodeUnauthorizedAccess:
		out.Class = rotation.Configuration
		out.Message = doing + " was refused by Service Bus: give the app's managed identity " +
			"the role Azure Service Bus Data Sender on the queue and the topic"
	case azservicebus.CodeNotFound:
		out.Class = rotation.Configuration
		out.Message = doing + " failed: the Service Bus namespace has no such queue or topic: " +
			"create it, or correct COMMAND_QUEUE or EVENT_TOPIC"
	}
	return out
}

// ended is how the context ended; nil: it did not.
func ended(err error) error {
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return end
		}
	}
	return nil
}
