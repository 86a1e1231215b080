// Package telemetry exports traces and metrics by OpenTelemetry. One trace leads from a
// trigger over the reconcile and each upstream call to the published event. It is on
// only if an OTLP endpoint is configured; a nil *Telemetry is off, and what it hands out
// is then what it was given.
//
// It must not know what is decided, and must never be why something fails or waits: an
// invocation does not wait for an export. Nothing leaves but attributes of a fixed list,
// none of which can hold a token, a query, a header or the words of another service.
package telemetry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"github.com/Azure/azure-sdk-for-go/sdk/tracing/azotel"
	"github.com/go-logr/logr"
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

	"github.com/azure-patrol/patrol/internal/panics"
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
	gauges   gauges
	warnings *warnings

	flushes  []func(context.Context) error
	closings []func(context.Context) error
	pending  sync.WaitGroup // a flush

	// Both end in Close, flushes first.
	flushing, exporting         context.Context
	stopFlushing, stopExporting context.CancelFunc

	mu     sync.Mutex
	busy   int  // invocations under way
	flush  bool // a flush is under way
	again  bool // and another is to follow
	closed bool
}

// New builds the SDK if something is configured, else it gives nil. It calls nobody.
func New(c Config, o Outside) *Telemetry {
	if c.Traces.URL == "" && c.Metrics.URL == "" && o.Outputs == (Outputs{}) {
		return nil
	}
	t := &Telemetry{now: o.Now, services: map[string]string{}, warnings: &warnings{log: o.Log, now: o.Now}}
	for address, service := range o.Services {
		t.services[hostOf(address)] = service
	}
	t.flushing, t.stopFlushing = context.WithCancel(context.Background())
	t.exporting, t.stopExporting = context.WithCancel(context.Background())
	id := resource.NewSchemaless(append([]attribute.KeyValue{
		attribute.String("service.version", o.Version),
		// Two processes of one app count for themselves.
		attribute.String("service.instance.id", rand.Text()),
		attribute.String("telemetry.sdk.name", "opentelemetry"),
		attribute.String("telemetry.sdk.language", "go"),
	}, c.Resource...)...)
	t.tracer = t.tracerProvider(c, o, id).Tracer(scopeName, trace.WithInstrumentationVersion(o.Version))
	meter := t.meterProvider(c, o, id).Meter(scopeName, metric.WithInstrumentationVersion(o.Version))
	var err error
	t.metrics, err = t.instruments(meter)
	if err != nil {
		t.warnings.warn(errors.New("an instrument could not be made"))
	}
	return t
}

// tracerProvider gives the SDK's, or one that does nothing if spans go nowhere.
// Everything that the SDK would read from the process' environment is given.
func (t *Telemetry) tracerProvider(c Config, o Outside, id *resource.Resource) trace.TracerProvider {
	if c.Traces.URL == "" && o.Outputs.Spans == nil {
		return nooptrace.NewTracerProvider()
	}
	sampler := c.Sampler
	if sampler == nil {
		sampler = sdktrace.ParentBased(sdktrace.AlwaysSample())
	}
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(id),
		sdktrace.WithSampler(sampler),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: maxText, AttributeCountLimit: 64, LinkCountLimit: 8,
			EventCountLimit: 0, AttributePerEventCountLimit: 0, AttributePerLinkCountLimit: 0,
		}),
	}
	if c.Traces.URL != "" {
		exporter, err := newSpanExporter(c.Traces, o, t.delivery(c.Traces))
		if err != nil {
			t.warnings.warn(errExporter)
		} else {
			options = append(options, sdktrace.WithBatcher(gate{exporter, id},
				sdktrace.WithBatchTimeout(spanDelay), sdktrace.WithExportTimeout(maxTimeout),
				sdktrace.WithMaxQueueSize(2048), sdktrace.WithMaxExportBatchSize(512)))
		}
	}
	if o.Outputs.Spans != nil {
		options = append(options, sdktrace.WithSyncer(gate{o.Outputs.Spans, id}))
	}
	p := sdktrace.NewTracerProvider(options...)
	t.flushes, t.closings = append(t.flushes, p.ForceFlush), append(t.closings, p.Shutdown)
	t.azure = azotel.NewTracingProvider(p, nil)
	return p
}

// meterProvider gives the SDK's, or one that does nothing if metrics go nowhere.
func (t *Telemetry) meterProvider(c Config, o Outside, id *resource.Resource) metric.MeterProvider {
	if c.Metrics.URL == "" && o.Outputs.Metrics == nil {
		return noopmetric.NewMeterProvider()
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(id),
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
		sdkmetric.WithCardinalityLimit(maxNamed + 1000),
	}
	if c.Metrics.URL != "" {
		exporter, err := newMetricExporter(c.Metrics, c.Delta, o, t.delivery(c.Metrics), id)
		if err != nil {
			t.warnings.warn(errExporter)
		} else {
			options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter,
				sdkmetric.WithInterval(cmp.Or(c.Interval, defaultInterval)), sdkmetric.WithTimeout(maxTimeout))))
		}
	}
	if o.Outputs.Metrics != nil {
		options = append(options, sdkmetric.WithReader(o.Outputs.Metrics))
	}
	p := sdkmetric.NewMeterProvider(options...)
	t.flushes, t.closings = append(t.flushes, p.ForceFlush), append(t.closings, p.Shutdown)
	return p
}

func (t *Telemetry) delivery(e Endpoint) delivery {
	return delivery{t.exporting, cmp.Or(e.Timeout, defaultTimeout), t.warnings}
}

// errExporter stands for every error of making an exporter, whose text may quote a setting.
var errExporter = errors.New("an exporter could not be made")

// Tracing is the tracing provider of the Azure SDKs.
func (t *Telemetry) Tracing() tracing.Provider {
	if t == nil {
		return tracing.Provider{}
	}
	return t.azure
}

// TakeErrors keeps OpenTelemetry from stderr, where the Functions host takes each line
// for an error of the app. It is for the whole process, and to be called before New: the
// SDK and the exporters read the process' environment before they are told otherwise,
// and quote what they cannot read there, keys and all. Of their errors one line is
// logged, without their text.
func TakeErrors(log *slog.Logger, now func() time.Time) {
	w := &warnings{log: log, now: now}
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {
		w.warn(errors.New("the OpenTelemetry SDK has met an error of its own"))
	}))
}

// begin and end count the invocations under way. After the last one everything is
// exported at once, in the background: the platform may freeze or kill a process that
// rests, without a signal before.
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
	case t.flush:
		t.again = true
	default:
		t.flush = true
		t.pending.Go(t.flushAll)
	}
}

// flushAll exports everything, and once more if the process has come to rest again
// meanwhile.
func (t *Telemetry) flushAll() {
	for {
		ctx, cancel := context.WithTimeout(t.flushing, flushTimeout)
		_ = inParallel(ctx, t.flushes) // the exporters have logged what failed
		cancel()
		t.mu.Lock()
		if !t.again || t.closed {
			t.flush = false
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
	t.stopFlushing()
	err := inParallel(ctx, t.closings)
	t.stopExporting()
	t.pending.Wait()
	if err != nil {
		// The SDK's text may quote more than it should.
		return errors.New("some telemetry was not exported before the process ended")
	}
	return nil
}

// inParallel runs fs side by side: spans need not wait for metrics.
func inParallel(ctx context.Context, fs []func(context.Context) error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = panics.Held(func() error { return f(ctx) }) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
