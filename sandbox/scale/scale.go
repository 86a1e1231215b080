// Package scale models how the platform decides that an app which rests must wake for a
// Service Bus queue. It is a model of the Functions extension's scaler, as its source reads:
// who may manage the queue is told how much it holds; who may not looks at its first
// messages, and takes one that is scheduled for nothing to do.
//
// It knows queues and roles. It must not know what the messages are about, and starts no
// app: a test asks it what the platform would do.
package scale

import (
	"fmt"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

// Rights are what a role allows on a queue.
type Rights struct{ Listen, Send, Manage bool }

// Roles are Service Bus's built-in ones, by the ids of their definitions.
var Roles = map[string]Rights{
	"090c5cfd-751d-490a-894a-3ce6f1109419": {Listen: true, Send: true, Manage: true}, // Azure Service Bus Data Owner
	"4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0": {Listen: true},                           // ... Data Receiver
	"69a216fc-b8fb-44d8-bc22-1f3c2cd27a39": {Send: true},                             // ... Data Sender
}

// Namespace is what the scaler asks.
type Namespace interface {
	// Counts are a queue's runtime properties; they take the right to manage it.
	Counts(queue string) servicebus.Counts
	// Peek gives a queue's messages from its start; that takes the right to listen.
	Peek(queue string) []servicebus.Message
}

// peeked is how many messages are looked at: one, and where that is not active so many
// from the start again.
const peeked = 10

// Wakes reports whether the platform starts an instance of an app that has these rights.
func Wakes(n Namespace, queue string, r Rights, now time.Time) (bool, error) {
	if r.Manage {
		return n.Counts(queue).Active > 0, nil
	}
	if !r.Listen {
		return false, fmt.Errorf("the app's role on %s allows neither to manage nor to listen", queue)
	}
	ms := n.Peek(queue)
	for _, m := range ms[:min(len(ms), peeked)] {
		if !m.Scheduled.After(now) {
			return true, nil
		}
	}
	return false, nil
}
