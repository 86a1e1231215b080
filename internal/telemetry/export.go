package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// firstRetry is the pause before the second try, more or less. Each further pause
	// is half as long again, up to maxRetry.
	firstRetry = time.Second
	maxRetry   = 5 * time.Second
	// maxRefusal is how much of a refusal is read, so that its connection can be
	// used again.
	maxRefusal = 64 << 10
	// quietFor is how long a failure to export is not logged again.
	quietFor = time.Minute
)

// spanExporter exports spans to one endpoint.
type spanExporter struct {
	sdktrace.SpanExporter
	delivery
}

// newSpanExporter gives every option that the exporter would else read from the
// process' environment.
func newSpanExporter(e Endpoint, o Outside, d delivery) (sdktrace.SpanExporter, error) {
	compression := otlptracehttp.NoCompression
	if e.Gzip {
		compression = otlptracehttp.GzipCompression
	}
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(e.URL),
		otlptracehttp.WithHTTPClient(newClient(e, o)),
		otlptracehttp.WithTLSClientConfig(nil),
		otlptracehttp.WithHeaders(nil),
		otlptracehttp.WithEncoding(otlptracehttp.EncodingProtobuf),
		otlptracehttp.WithCompression(compression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: d.timeout,
		}))
	return spanExporter{exporter, d}, err
}

func (e spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.deliver(ctx, func(ctx context.Context) error { return e.SpanExporter.ExportSpans(ctx, spans) })
	return nil
}

// metricExporter exports metrics to one endpoint.
type metricExporter struct {
	sdkmetric.Exporter
	delivery
	resource *resource.Resource // as in gate
}

// newMetricExporter gives every option, as newSpanExporter does.
func newMetricExporter(
	e Endpoint, delta bool, o Outside, d delivery, id *resource.Resource,
) (sdkmetric.Exporter, error) {
	compression := otlpmetrichttp.NoCompression
	if e.Gzip {
		compression = otlpmetrichttp.GzipCompression
	}
	temporality := sdkmetric.CumulativeTemporalitySelector
	if delta {
		temporality = sdkmetric.DeltaTemporalitySelector
	}
	exporter, err := otlpmetrichttp.New(context.Background(),
		otlpmetrichttp.WithEndpointURL(e.URL),
		otlpmetrichttp.WithHTTPClient(newClient(e, o)),
		otlpmetrichttp.WithTLSClientConfig(nil),
		otlpmetrichttp.WithHeaders(nil),
		otlpmetrichttp.WithCompression(compression),
		otlpmetrichttp.WithTemporalitySelector(temporality),
		otlpmetrichttp.WithAggregationSelector(sdkmetric.DefaultAggregationSelector),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: d.timeout,
		}))
	return metricExporter{exporter, d, id}, err
}

func (e metricExporter) Export(ctx context.Context, r *metricdata.ResourceMetrics) error {
	if len(r.ScopeMetrics) == 0 {
		return nil
	}
	own := metricdata.ResourceMetrics{Resource: e.resource, ScopeMetrics: r.ScopeMetrics}
	e.deliver(ctx, func(ctx context.Context) error { return e.Exporter.Export(ctx, &own) })
	return nil
}

// delivery bounds exports, and logs those that fail.
type delivery struct {
	// alive ends every export: the SDK goes on with its own after its end.
	alive    context.Context
	timeout  time.Duration // of one export with all its tries
	warnings *warnings
}

// deliver makes one export. One that fails is logged and dropped: the SDK would print
// its error on stderr, where the Functions host takes each line for an error. The
// error itself is not logged, as it may hold what the collector has answered.
func (d delivery) deliver(ctx context.Context, export func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	defer context.AfterFunc(d.alive, cancel)()
	last := &result{"nothing could be sent"}
	if err := export(context.WithValue(ctx, resultKey{}, last)); err != nil {
		d.warnings.warn(errors.New(last.text))
	}
}

// result is what became of the last try at an export, in patrol's words. It travels in
// the context of the export.
type result struct{ text string }

type resultKey struct{}

// endpointTransport carries the exports to one endpoint. OpenTelemetry's exporters
// write and repeat the requests; here they get their address and their keys, and what
// the collector says is kept out of the exporters' errors.
type endpointTransport struct {
	Endpoint
	next      http.RoundTripper
	userAgent string
}

func newClient(e Endpoint, o Outside) *http.Client {
	return &http.Client{
		Transport: &endpointTransport{e, o.Transport, "patrol/" + o.Version},
		// A redirect would take the headers' keys to somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (t *endpointTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	last, ok := ctx.Value(resultKey{}).(*result)
	if !ok {
		last = new(result)
	}
	last.text = "the collector did not answer in time"
	out, err := t.complete(req)
	if err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(out)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		last.text = errUnreachable.Error()
		return nil, errUnreachable
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		// Logged only if the exporter finds something in the answer.
		last.text = fmt.Sprintf("the collector answered %d, but has not taken everything", resp.StatusCode)
		return resp, nil
	}
	last.text = fmt.Sprintf("the collector answered %d", resp.StatusCode)
	_, _ = io.CopyN(io.Discard, resp.Body, maxRefusal)
	_ = resp.Body.Close()
	resp.Body = http.NoBody
	return resp, nil
}

// complete gives a request what the exporters would leave out, the query of the
// address, and what they need not know, the keys.
func (t *endpointTransport) complete(req *http.Request) (*http.Request, error) {
	out := req.Clone(req.Context())
	var err error
	out.URL, err = url.Parse(t.URL)
	if err != nil {
		return nil, errors.New("the endpoint is no URL")
	}
	out.Header.Set("User-Agent", t.userAgent)
	for _, h := range t.Headers {
		if out.Header.Get(h.Name) == "" {
			out.Header.Set(h.Name, h.Value.Reveal())
		}
	}
	return out, nil
}

// unreachable is the error of a call that was not answered. The exporters repeat what
// says that it is temporary; a refused connection does not say so by itself.
type unreachable struct{}

func (unreachable) Error() string   { return "the collector cannot be reached" }
func (unreachable) Temporary() bool { return true }

var errUnreachable error = unreachable{}

// warnings logs failures to export, at most once a minute.
type warnings struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last time.Time
}

func (w *warnings) warn(err error) {
	now := w.now()
	w.mu.Lock()
	quiet := !w.last.IsZero() && now.Sub(w.last) < quietFor
	if !quiet {
		w.last = now
	}
	w.mu.Unlock()
	if !quiet {
		w.log.Warn("telemetry could not be exported", "error", err.Error())
	}
}
