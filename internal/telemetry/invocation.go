package telemetry

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// remote reads a traceparent; the result is not valid if it is none.
func remote(value string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{bus.TraceParent: value})
	return trace.SpanContextFromContext(ctx)
}

// parentOf writes the span of ctx as a traceparent; empty if there is none.
func parentOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[bus.TraceParent]
}

// origin is where an invocation comes from: the trace that it is part of, and others
// that it points to. Neither need be valid.
type origin struct {
	parent trace.SpanContext
	links  []trace.Link
}

func (o *origin) link(c trace.SpanContext) {
	if c.IsValid() {
		o.links = append(o.links, trace.Link{SpanContext: c})
	}
}

// originOf is what the properties of a message say. A nil message says nothing.
func originOf(m *customhandler.Message) (o origin) {
	if m == nil {
		return o
	}
	property := func(key string) trace.SpanContext {
		s, _ := m.ApplicationProperties[key].(string)
		return remote(s)
	}
	o.link(property(bus.TraceLink))
	o.parent = property(bus.TraceParent)
	if !o.parent.IsValid() {
		o.parent = property(bus.DiagnosticID)
	}
	return o
}

// invoke starts the span of an invocation. The host's own trace is the parent, unless
// a message brings one along, or nobody records the host's: then it is a link.
func (t *Telemetry) invoke(
	ctx context.Context, name, trigger string, kind trace.SpanKind, m *customhandler.Message,
) (context.Context, trace.Span) {
	i := customhandler.Invocation(ctx)
	from, host := originOf(m), remote(i.TraceParent)
	if from.parent.IsValid() || !host.IsSampled() {
		from.link(host)
	} else {
		from.parent = host
	}
	options := []trace.SpanStartOption{
		trace.WithSpanKind(kind),
		trace.WithLinks(from.links...),
		trace.WithAttributes(attribute.String(keyTrigger, trigger), attribute.String(keyInvocation, i.ID)),
	}
	if from.parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, from.parent)
	} else {
		options = append(options, trace.WithNewRoot())
	}
	t.begin()
	return t.tracer.Start(ctx, name, options...)
}

// finish ends a span with an error's class and code, never with its text.
func finish(span trace.Span, err error) {
	if err != nil {
		class := string(rotation.ClassOf(err))
		span.SetAttributes(attribute.String(keyErrorType, class))
		if e := rotation.AsError(err); e != nil && e.Code != "" {
			span.SetAttributes(attribute.String(keyCode, e.Code))
		}
		span.SetStatus(codes.Error, class)
	}
	span.End()
}

// Timer puts a span around a function with a timer trigger.
func (t *Telemetry) Timer(
	name string, f func(context.Context, customhandler.Timer) error,
) func(context.Context, customhandler.Timer) error {
	if t == nil {
		return f
	}
	return func(ctx context.Context, m customhandler.Timer) (err error) {
		ctx, span := t.invoke(ctx, name, "timer", trace.SpanKindServer, nil)
		defer t.end()
		defer func() { finish(span, err) }()
		return f(ctx, m)
	}
}

// Queue puts a span around a function with a Service Bus trigger. destination is its
// queue.
func (t *Telemetry) Queue(
	destination string, f func(context.Context, customhandler.Message) error,
) func(context.Context, customhandler.Message) error {
	if t == nil {
		return f
	}
	return func(ctx context.Context, m customhandler.Message) (err error) {
		ctx, span := t.invoke(ctx, "process "+destination, "pubsub", trace.SpanKindConsumer, &m)
		defer t.end()
		defer func() { finish(span, err) }()
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String(keySystem, "servicebus"),
				attribute.String(keyDestination, destination),
				attribute.String(keyOperation, "process"),
				attribute.String(keyOperationType, "process"),
				attribute.String(keyMessageID, m.MessageID),
				attribute.Int(keyDelivery, m.DeliveryCount))
		}
		if !m.EnqueuedTime.IsZero() {
			span.SetAttributes(attribute.Int64(keyEnqueued, m.EnqueuedTime.Unix()))
			age := max(t.now().Sub(m.EnqueuedTime), 0)
			t.metrics.age.Record(ctx, age.Seconds(), withAttributes(attribute.String(keyDestination, destination)))
		}
		return f(ctx, m)
	}
}

// HTTP puts a span around the HTTP functions. What anybody may ask for without a key is
// left out: every request would cost an export.
func (t *Telemetry) HTTP(next http.Handler, about func(*http.Request) (function string, anonymous bool)) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, anonymous := about(r); anonymous {
			next.ServeHTTP(w, r)
			return
		}
		method := knownMethod(r.Method)
		ctx, span := t.invoke(r.Context(), method, "http", trace.SpanKindServer, nil)
		defer t.end()
		defer span.End()
		recorder := &statusRecorder{ResponseWriter: w}
		r = r.WithContext(ctx)
		panicked := true
		defer func() {
			span.SetAttributes(attribute.String(keyMethod, method))
			// The pattern that matched, and not the path, which may be anything.
			if route := r.Pattern[strings.IndexByte(r.Pattern, ' ')+1:]; route != "" {
				span.SetName(method + " " + route)
				span.SetAttributes(attribute.String(keyRoute, route))
			}
			status := max(recorder.status, http.StatusOK)
			if panicked {
				status = http.StatusInternalServerError
			}
			span.SetAttributes(attribute.Int(keyStatus, status))
			if status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, http.StatusText(status))
			}
		}()
		next.ServeHTTP(recorder, r)
		panicked = false
	})
}

func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions,
		http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return method
	}
	return "_OTHER"
}

// statusRecorder keeps the status of an answer; 0 while there is none.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Command notes on the span of ctx which command is worked on.
func (t *Telemetry) Command(ctx context.Context, c rotation.Command) {
	if t == nil {
		return
	}
	trace.SpanFromContext(ctx).SetAttributes(
		attribute.String(keyPAT, c.PAT),
		attribute.String(keyReason, string(c.Reason)),
		attribute.Int(keyAttempt, c.Attempt),
		attribute.String(keyRequestedBy, c.RequestedBy))
}

// Sending puts a span around each send of the bus; nil if it is off.
func (t *Telemetry) Sending() func(ctx context.Context, destination string, messages int) (context.Context, bus.Trace) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, destination string, messages int) (context.Context, bus.Trace) {
		ctx, span := t.tracer.Start(ctx, "send "+destination, trace.WithSpanKind(trace.SpanKindProducer))
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String(keySystem, "servicebus"),
				attribute.String(keyDestination, destination),
				attribute.String(keyOperation, "send"),
				attribute.String(keyOperationType, "send"))
			if messages > 1 {
				span.SetAttributes(attribute.Int(keyBatch, messages))
			}
		}
		return ctx, bus.Trace{Parent: parentOf(ctx), Done: func(err error) {
			class := "2xx"
			if err != nil {
				class = "error"
			}
			t.metrics.countCall(ctx, "servicebus", "send "+destination, class)
			finish(span, err)
		}}
	}
}
