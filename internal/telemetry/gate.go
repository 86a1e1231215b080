package telemetry

import (
	"context"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// gate is before every exporter. The Azure SDKs write into their spans what upstream
// services said (a status' description holds the body of a refusal) and addresses with
// their queries: only attributes of a list pass, and no descriptions but patrol's own.
type gate struct {
	sdktrace.SpanExporter
	// resource is who exports. The SDK adds what it finds in the environment.
	resource *resource.Resource
}

func (g gate) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	clean := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		clean[i] = newCleanSpan(s, g.resource)
	}
	return g.SpanExporter.ExportSpans(ctx, clean)
}

// cleanSpan is a span without what must not leave.
type cleanSpan struct {
	sdktrace.ReadOnlySpan
	resource   *resource.Resource
	name       string
	attributes []attribute.KeyValue
	status     sdktrace.Status
	links      []sdktrace.Link
}

func newCleanSpan(s sdktrace.ReadOnlySpan, id *resource.Resource) cleanSpan {
	c := cleanSpan{ReadOnlySpan: s, resource: id, name: customhandler.Redact(s.Name()), status: s.Status()}
	for _, a := range s.Attributes() {
		if a, ok := pass(a); ok {
			c.attributes = append(c.attributes, a)
		}
	}
	if s.InstrumentationScope().Name != scopeName || c.status.Code != codes.Error {
		c.status.Description = ""
	}
	for _, l := range s.Links() {
		l.Attributes = nil
		c.links = append(c.links, l)
	}
	return c
}

func (c cleanSpan) Resource() *resource.Resource     { return c.resource }
func (c cleanSpan) Name() string                     { return c.name }
func (c cleanSpan) Attributes() []attribute.KeyValue { return c.attributes }
func (c cleanSpan) Status() sdktrace.Status          { return c.status }
func (c cleanSpan) Links() []sdktrace.Link           { return c.links }
func (c cleanSpan) Events() []sdktrace.Event         { return nil }

// pass lets a known attribute through, under the name that the semantic conventions
// have for it today.
func pass(a attribute.KeyValue) (attribute.KeyValue, bool) {
	switch a.Key {
	case keyTrigger, keyInvocation, keyMethod, keyRoute, keyStatus, keyServer, keyErrorType,
		keySystem, keyOperation, keyOperationType, keyDestination,
		keyMessageID, keyBatch, keyDelivery, keyEnqueued,
		keyPAT, keyIdentity, keyOrganization, keyReason, keyAttempt, keyRequestedBy, keyStep, keyCode,
		keyManaged, keyUnmanaged, keyProblems:
		if a.Value.Type() == attribute.STRING {
			a.Value = attribute.StringValue(customhandler.Redact(a.Value.AsString()))
		}
		return a, true
	// The names that azcore writes.
	case "http.method":
		return attribute.KeyValue{Key: keyMethod, Value: a.Value}, true
	case "http.status_code":
		return attribute.KeyValue{Key: keyStatus, Value: a.Value}, true
	case "net.peer.name":
		return attribute.KeyValue{Key: keyServer, Value: a.Value}, true
	case "http.url":
		u, err := url.Parse(a.Value.AsString())
		if err != nil {
			return a, false
		}
		clean := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
		return attribute.String(keyURL, customhandler.Redact(clean.String())), true
	case "az.client_request_id", "az.service_request_id":
		// A service may answer with anything: what is no GUID is none.
		return a, rotation.IsGUID(a.Value.AsString())
	}
	return a, false
}

// The attributes of spans and metrics: OpenTelemetry's semantic conventions, and
// patrol's own.
const (
	keyTrigger       = "faas.trigger"
	keyInvocation    = "faas.invocation_id"
	keyMethod        = "http.request.method"
	keyRoute         = "http.route"
	keyStatus        = "http.response.status_code"
	keyServer        = "server.address"
	keyURL           = "url.full"
	keyErrorType     = "error.type"
	keySystem        = "messaging.system"
	keyOperation     = "messaging.operation.name"
	keyOperationType = "messaging.operation.type"
	keyDestination   = "messaging.destination.name"
	keyMessageID     = "messaging.message.id"
	keyBatch         = "messaging.batch.message_count"
	keyDelivery      = "messaging.servicebus.message.delivery_count"
	keyEnqueued      = "messaging.servicebus.message.enqueued_time"
	keyPAT           = "patrol.pat"
	keyIdentity      = "patrol.identity"
	keyOrganization  = "patrol.organization"
	keyReason        = "patrol.reason"
	keyAttempt       = "patrol.attempt"
	keyRequestedBy   = "patrol.requested_by"
	keyStep          = "patrol.step"
	keyCode          = "patrol.code"
	keyState         = "patrol.state"
	keyOutcome       = "patrol.outcome"
	keyCause         = "patrol.cause"
	keyService       = "patrol.service"
	keyCall          = "patrol.operation"
	keyAnswer        = "patrol.status_class"
	keyManaged       = "patrol.sweep.managed"
	keyUnmanaged     = "patrol.sweep.unmanaged"
	keyProblems      = "patrol.sweep.problems"
)
