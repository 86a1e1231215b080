// Package events is what patrol publishes: CloudEvents 1.0 in structured JSON, one
// Go type for the data of each event, their JSON Schemas, and a Subscriber that
// turns message bodies into typed calls.
//
// It is for subscribers as much as for patrol itself. So it is a module of its own
// that needs nothing beyond the standard library, and it knows no transport: bytes
// go in and out. It has no field that could hold a token. Who needs the new value
// of a PAT reads the secret that the event names.
//
// Compatibility: fields and types are added, never renamed or removed. Decode
// ignores fields that it does not know and hands over events of unknown types
// with their data as it came.
package events
