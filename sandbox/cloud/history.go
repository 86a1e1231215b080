package cloud

import (
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Kind is what a record is about.
type Kind string

const (
	Secret  Kind = "secret"  // a version of a secret was written, edited, deleted or recovered
	PAT     Kind = "pat"     // a PAT was created, changed or revoked
	Message Kind = "message" // a message was accepted by a queue or topic
	Blob    Kind = "blob"    // a blob was written or deleted
)

// Record is one thing that happened in the cloud.
type Record struct {
	Number int // counts from 1
	At     time.Time
	Kind   Kind

	Secret  *keyvault.Version
	PAT     *devops.Change
	Message *Sent
	Blob    *blob.Blob
}

// Sent is a message that a queue or topic has accepted.
type Sent struct {
	Entity    string // pat-events
	ID        string
	SessionID string
	Subject   string
	// Scheduled is when it is due; zero: at once.
	Scheduled   time.Time
	ContentType string
	Properties  map[string]any
	Body        []byte
}

// history is the one ordered list of what happened in every service.
type history struct {
	onRecord func(Record)

	mu      sync.Mutex
	records []Record
}

func (h *history) add(r Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Number = len(h.records) + 1
	h.records = append(h.records, r)
	if h.onRecord != nil {
		h.onRecord(r)
	}
}

// History returns everything that happened, in its order. What the records point
// to must not be changed.
func (c *Cloud) History() []Record {
	c.history.mu.Lock()
	defer c.history.mu.Unlock()
	return slices.Clone(c.history.records)
}

// Messages returns the messages that a queue or topic has accepted, in order.
func (c *Cloud) Messages(entity string) []Sent {
	var out []Sent
	for _, r := range c.History() {
		if r.Kind == Message && r.Message.Entity == entity {
			out = append(out, *r.Message)
		}
	}
	return out
}
