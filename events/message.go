package events

import (
	"crypto/sha256"
	"encoding/hex"
)

// maxMessageID is Service Bus's limit for message ids and session ids.
const maxMessageID = 128

// Properties are the application properties of the event's message, those that a broker
// can filter on without opening the event: type, subject, and where the data has them
// organization and identity. An event with a trace has it here too, under both names
// that tracing libraries look for.
func (e Event) Properties() map[string]any {
	p := map[string]any{"type": e.Type}
	set := func(key, value string) {
		if value != "" {
			p[key] = value
		}
	}
	set("subject", e.Subject)
	if d, ok := e.Data.(payload); ok {
		organization, identity := d.where()
		set("organization", organization)
		set("identity", identity)
	}
	parent := traceParent(e.TraceParent)
	set("traceparent", parent)
	set("Diagnostic-Id", parent)
	return p
}

// MessageID is the message's id on Service Bus: the event's id, or its SHA-256 in
// hexadecimal where it is longer than the broker permits.
func (e Event) MessageID() string { return short(e.ID) }

// SessionID is the message's session on Service Bus: the event's subject, shortened in
// the same way. What patrol tells about one PAT comes in order to one reader.
func (e Event) SessionID() string { return short(e.Subject) }

func short(id string) string {
	if len(id) <= maxMessageID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}
