// Package telemetry tells by OpenTelemetry what patrol does: one trace from a trigger
// over the reconcile and each upstream call to the published event, and metrics. It is
// on only if an OTLP endpoint is configured; a nil *Telemetry is off, and what it hands
// out is then what it was given.
//
// It must not know what is decided, and must never be why something fails or waits: an
// invocation does not wait for an export. Nothing leaves but attributes of a fixed list,
// none of which can hold a token, a query, a header or an upstream's words.
package telemetry

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/Azure/azure-sdk-for-go/sdk/tracing/azotel"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
)

// scopeName is the instrumentation scope of patrol's own spans and metrics.
const scopeName = "github.com/azure-patrol/patrol"

const (
	// spanDelay is how long a span waits for others before it is exported, if the
	// process does not come to rest before.
	spanDelay = 5 * time.Second
	// flushTimeout bounds the export when the process comes to rest.
	flushTimeout = 15 * time.Second
	// maxText is how much of a text attribute is kept.
	maxText = 256
)

// Outputs are where spans and metrics go beside what the settings say. Tests read
// from them.
type Outputs struct {
	Spans   sdktrace.SpanExporter
	Metrics sdkmetric.Reader
}

// Outside is what surrounds a Telemetry. Every field but Outputs is required.
type Outside struct {
	Outputs   Outputs
	Transport http.RoundTripper // carries the exports; its calls are not counted
	Now       func() time.Time
	Log       *slog.Logger
	Version   string
	// Services are the hosts that are called, by what they are: vault, devops, entra.
	Services map[string]string
}

// Telemetry is the SDK with what patrol measures. A nil one is off.
type Telemetry struct {
	now      func() time.Time
	services map[string]string
	tracer   trace.Tracer
	azure    tracing.Provider
	metrics  *instruments
	standing standing

	complaints *complaints

	flushes  []func(context.Context) error
	closings []func(context.Context) error

	// What is under way, to export when nothing is any more.
	mu       sync.Mutex
	busy     int
	flushing bool
	again    bool // came to rest once more meanwhile
	closed   bool
	stopped  context.Context // no more flushes
	stop     context.CancelFunc
	abort    context.CancelFunc // ends every export
	pending  sync.WaitGroup
}

// New builds the SDK if something is configured, else it gives nil. It calls nobody.
func New(c Config, o Outside) *Telemetry {
	if c.Traces.URL == "" && c.Metrics.URL == "" && o.Outputs == (Outputs{}) {
		return nil
	}
	complaints := &complaints{log: o.Log, now: o.Now}
	t := &Telemetry{now: o.Now, services: map[string]string{}, complaints: complaints}
	for address, service := range o.Services {
		t.services[hostOf(address)] = service
	}
	t.stopped, t.stop = context.WithCancel(context.Background())
	alive, end := context.WithCancel(context.Background())
	t.abort = end
	id := resource.NewSchemaless(append([]attribute.KeyValue{
		attribute.String("service.version", o.Version),
		// Two processes of one app count for themselves.
		attribute.String("service.instance.id", rand.Text()),
		attribute.String("telemetry.sdk.name", "opentelemetry"),
		attribute.String("telemetry.sdk.language", "go"),
	}, c.Resource...)...)

	var traces trace.TracerProvider = nooptrace.NewTracerProvider()
	if c.Traces.URL != "" || o.Outputs.Spans != nil {
		sampler := c.Sampler
		if sampler == nil {
			sampler = sdktrace.ParentBased(sdktrace.AlwaysSample())
		}
		// Everything that the SDK would read from the environment is given.
		limits := sdktrace.SpanLimits{AttributeValueLengthLimit: maxText, AttributeCountLimit: 64, LinkCountLimit: 8,
			EventCountLimit: 0, AttributePerEventCountLimit: 0, AttributePerLinkCountLimit: 0}
		options := []sdktrace.TracerProviderOption{sdktrace.WithSampler(sampler), sdktrace.WithRawSpanLimits(limits), sdktrace.WithResource(id)}
		if c.Traces.URL != "" {
			out := spanUploader{newUploader(alive, c.Traces, o.Transport, o.Version), complaints}
			options = append(options, sdktrace.WithBatcher(gate{out, id}, sdktrace.WithBatchTimeout(spanDelay),
				sdktrace.WithMaxQueueSize(2048), sdktrace.WithMaxExportBatchSize(512), sdktrace.WithExportTimeout(maxTimeout)))
		}
		if o.Outputs.Spans != nil {
			options = append(options, sdktrace.WithSyncer(gate{o.Outputs.Spans, id}))
		}
		p := sdktrace.NewTracerProvider(options...)
		t.flushes, t.closings = append(t.flushes, p.ForceFlush), append(t.closings, p.Shutdown)
		traces = p
		t.azure = azotel.NewTracingProvider(p, nil)
	}
	t.tracer = traces.Tracer(scopeName, trace.WithInstrumentationVersion(o.Version))

	var meters metric.MeterProvider = noopmetric.NewMeterProvider()
	if c.Metrics.URL != "" || o.Outputs.Metrics != nil {
		options := []sdkmetric.Option{sdkmetric.WithResource(id), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
			sdkmetric.WithCardinalityLimit(maxNamed + 1000)}
		if c.Metrics.URL != "" {
			out := metricUploader{newUploader(alive, c.Metrics, o.Transport, o.Version), complaints, id, c.Delta}
			interval := c.Interval
			if interval <= 0 {
				interval = time.Minute
			}
			options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(out,
				sdkmetric.WithInterval(interval), sdkmetric.WithTimeout(maxTimeout))))
		}
		if o.Outputs.Metrics != nil {
			options = append(options, sdkmetric.WithReader(o.Outputs.Metrics))
		}
		p := sdkmetric.NewMeterProvider(options...)
		t.flushes, t.closings = append(t.flushes, p.ForceFlush), append(t.closings, p.Shutdown)
		meters = p
	}
	var err error
	if t.metrics, err = t.instruments(meters.Meter(scopeName, metric.WithInstrumentationVersion(o.Version))); err != nil {
		complaints.tell(err)
	}
	return t
}

// Tracing is the tracing provider of the Azure SDKs.
func (t *Telemetry) Tracing() tracing.Provider {
	if t == nil {
		return tracing.Provider{}
	}
	return t.azure
}

// TakeErrors makes the SDK's own errors lines of the log. The SDK has one handler for a
// whole process, and would print them on stderr, where the Functions host takes each
// line for an error of the app.
func (t *Telemetry) TakeErrors() {
	if t == nil {
		return
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {
		t.complaints.tell(errors.New("the OpenTelemetry SDK has met an error of its own"))
	}))
}

// begin and end count what is under way. When nothing is any more, what has been
// gathered is exported beside: the platform may freeze or kill a process that rests,
// and tells it nothing before.
func (t *Telemetry) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy++
}

func (t *Telemetry) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	switch {
	case t.busy > 0 || t.closed:
	case t.flushing:
		t.again = true
	default:
		t.flushing = true
		t.pending.Go(t.flush)
	}
}

// flush exports until nothing new has come to rest.
func (t *Telemetry) flush() {
	for {
		ctx, cancel := context.WithTimeout(t.stopped, flushTimeout)
		_ = together(ctx, t.flushes) // the exporters have told
		cancel()
		t.mu.Lock()
		if !t.again || t.closed {
			t.flushing = false
			t.mu.Unlock()
			return
		}
		t.again = false
		t.mu.Unlock()
	}
}

// Close exports what is left, within the time of ctx, and ends.
func (t *Telemetry) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	closed := t.closed
	t.closed = true
	t.mu.Unlock()
	if closed {
		return nil
	}
	t.stop()
	err := together(ctx, t.closings)
	t.abort()
	t.pending.Wait()
	if err != nil {
		// The SDK's text may quote more than it should.
		return errors.New("telemetry was not exported to its end")
	}
	return nil
}

// together runs fs side by side: spans need not wait for metrics.
func together(ctx context.Context, fs []func(context.Context) error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
