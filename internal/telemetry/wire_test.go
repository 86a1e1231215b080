//go:build conformance

package telemetry_test

import (
	"context"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/azure-patrol/patrol/internal/telemetry"
	"github.com/azure-patrol/patrol/internal/telemetry/otlptest"
)

func same(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", prototext.Format(got), prototext.Format(want))
	}
}

var all = []attribute.KeyValue{
	attribute.String("text", "wörd"), attribute.String("empty", ""), attribute.Bool("yes", true), attribute.Bool("no", false),
	attribute.Int("n", -7), attribute.Int("zero", 0), attribute.Float64("f", 1.5), attribute.StringSlice("list", []string{"a", ""}),
}

func TestSpansAreWrittenAsTheOfficialExporterWritesThem(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 8, 0, 0, 7, time.UTC)
	context := func(n byte, remote bool) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, n}, SpanID: trace.SpanID{2, n}, TraceFlags: trace.FlagsSampled, Remote: remote})
	}
	id := resource.NewWithAttributes("https://schema", all...)
	stub := tracetest.SpanStub{Name: "reconcile", SpanContext: context(1, false), Parent: context(2, true), SpanKind: trace.SpanKindConsumer,
		StartTime: at, EndTime: at.Add(time.Second), Attributes: all, Status: sdktrace.Status{Code: codes.Error, Description: "throttled"},
		Links: []sdktrace.Link{{SpanContext: context(3, true)}, {SpanContext: context(4, false), Attributes: all}}, DroppedAttributes: 3, DroppedLinks: 2,
		Resource: id, InstrumentationScope: instrumentation.Scope{Name: "a", Version: "1", SchemaURL: "https://scope"}}
	root := stub
	root.Parent, root.Status, root.SpanKind, root.Attributes, root.Links = trace.SpanContext{}, sdktrace.Status{Code: codes.Ok}, trace.SpanKindInternal, nil, nil
	bare := tracetest.SpanStub{Name: "bare", SpanContext: context(5, false), Resource: id, StartTime: at, EndTime: at, InstrumentationScope: stub.InstrumentationScope}
	for _, kind := range []trace.SpanKind{trace.SpanKindServer, trace.SpanKindClient, trace.SpanKindProducer, trace.SpanKindUnspecified} {
		bare.SpanKind = kind
		spans := tracetest.SpanStubs{stub, root, bare}.Snapshots()

		var collector otlptest.Collector
		official, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(collector.Start(t)+"/v1/traces"))
		if err != nil {
			t.Fatal(err)
		}
		if err := official.ExportSpans(t.Context(), spans); err != nil {
			t.Fatal(err)
		}
		var got tracepb.TracesData
		if err := proto.Unmarshal(telemetry.EncodeSpans(spans), &got); err != nil {
			t.Fatal(err)
		}
		same(t, &got, collector.Traces()[0])
	}
	if telemetry.EncodeSpans(nil) != nil {
		t.Error("no spans make a request")
	}
}

func TestMetricsAreWrittenAsTheOfficialExporterWritesThem(t *testing.T) {
	t.Parallel()
	for name, temporality := range map[string]sdkmetric.TemporalitySelector{
		"cumulative": sdkmetric.DefaultTemporalitySelector, "delta": sdkmetric.DeltaTemporalitySelector,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reader := sdkmetric.NewManualReader(sdkmetric.WithTemporalitySelector(temporality))
			p := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
				sdkmetric.WithResource(resource.NewSchemaless(all...)))
			m := p.Meter("scope", metric.WithInstrumentationVersion("2"))
			count, err1 := m.Int64Counter("count", metric.WithUnit("{call}"), metric.WithDescription("Calls."))
			seconds, err2 := m.Float64Counter("seconds")
			updown, err3 := m.Int64UpDownCounter("updown")
			spread, err4 := m.Float64Histogram("spread", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(0, .5, 10))
			_, err5 := m.Int64ObservableGauge("level", metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				o.Observe(0, metric.WithAttributes(all...))
				o.Observe(-4)
				return nil
			}))
			_, err6 := m.Float64ObservableGauge("left", metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
				o.Observe(-.5)
				return nil
			}))
			for _, err := range []error{err1, err2, err3, err4, err5, err6} {
				if err != nil {
					t.Fatal(err)
				}
			}
			count.Add(t.Context(), 3, metric.WithAttributes(all...))
			count.Add(t.Context(), 0)
			seconds.Add(t.Context(), math.Pi)
			updown.Add(t.Context(), -2)
			for _, v := range []float64{0, -1, .5, .6, 100} {
				spread.Record(t.Context(), v)
			}
			var rm metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &rm); err != nil {
				t.Fatal(err)
			}
			var collector otlptest.Collector
			official, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(collector.Start(t)+"/v1/metrics"))
			if err != nil {
				t.Fatal(err)
			}
			if err := official.Export(t.Context(), &rm); err != nil {
				t.Fatal(err)
			}
			var got metricpb.MetricsData
			if err := proto.Unmarshal(telemetry.EncodeMetrics(&rm), &got); err != nil {
				t.Fatal(err)
			}
			same(t, &got, collector.Metrics()[0])
		})
	}
}
