package telemetry

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The OTLP requests (opentelemetry/proto, v1) are written here by hand. The official
// exporters bring gRPC with them, nine megabytes in a binary of eleven, and read the
// process' environment; the messages are few, and the tests hold them against what
// the official exporters send.

// message is a protobuf message under construction. Fields with zero values are left
// out, as proto3 does.
type message []byte

const (
	varintType  = 0
	fixed64Type = 1
	bytesType   = 2
	fixed32Type = 5
)

func (m *message) tag(field, wireType int) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wireType))
}

func (m *message) bytes(field int, b []byte) {
	m.tag(field, bytesType)
	*m = binary.AppendUvarint(*m, uint64(len(b)))
	*m = append(*m, b...)
}

func (m *message) text(field int, s string) {
	if s != "" {
		m.always(field, s)
	}
}

// always writes a text though it may be empty: a member of a oneof.
func (m *message) always(field int, s string) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	m.tag(field, bytesType)
	*m = binary.AppendUvarint(*m, uint64(len(s)))
	*m = append(*m, s...)
}

func (m *message) varint(field int, n uint64) {
	if n != 0 {
		m.tag(field, varintType)
		*m = binary.AppendUvarint(*m, n)
	}
}

func (m *message) fixed64(field int, n uint64) {
	if n != 0 {
		m.set64(field, n)
	}
}

// set64 writes a number though it may be zero: a member of a oneof, or optional.
func (m *message) set64(field int, n uint64) {
	m.tag(field, fixed64Type)
	*m = binary.LittleEndian.AppendUint64(*m, n)
}

func (m *message) fixed32(field int, n uint32) {
	if n != 0 {
		m.tag(field, fixed32Type)
		*m = binary.LittleEndian.AppendUint32(*m, n)
	}
}

func (m *message) when(field int, t time.Time) {
	if n := t.UnixNano(); n > 0 {
		m.fixed64(field, uint64(n))
	}
}

func (m *message) attributes(field int, all []attribute.KeyValue) {
	for _, a := range all {
		var value, pair message
		switch a.Value.Type() {
		case attribute.BOOL:
			value.tag(2, varintType)
			value = append(value, 0)
			if a.Value.AsBool() {
				value[len(value)-1] = 1
			}
		case attribute.INT64:
			value.tag(3, varintType)
			value = binary.AppendUvarint(value, uint64(a.Value.AsInt64()))
		case attribute.FLOAT64:
			value.set64(4, math.Float64bits(a.Value.AsFloat64()))
		case attribute.STRINGSLICE:
			var array message
			for _, s := range a.Value.AsStringSlice() {
				var item message
				item.always(1, s)
				array.bytes(1, item)
			}
			value.bytes(5, array)
		default:
			value.always(1, a.Value.AsString())
		}
		pair.text(1, string(a.Key))
		pair.bytes(2, value)
		m.bytes(field, pair)
	}
}

func (m *message) resource(field int, r *resource.Resource) {
	var out message
	out.attributes(1, r.Attributes())
	m.bytes(field, out)
}

func (m *message) scope(field int, s instrumentation.Scope) {
	var out message
	out.text(1, s.Name)
	out.text(2, s.Version)
	out.attributes(3, s.Attributes.ToSlice())
	m.bytes(field, out)
}

// encodeSpans makes an ExportTraceServiceRequest. All spans are of one resource.
func encodeSpans(spans []sdktrace.ReadOnlySpan) []byte {
	var scopes []instrumentation.Scope
	byScope := map[instrumentation.Scope]*message{}
	for _, s := range spans {
		scope := s.InstrumentationScope()
		m := byScope[scope]
		if m == nil {
			m = new(message)
			m.scope(1, scope)
			byScope[scope] = m
			scopes = append(scopes, scope)
		}
		m.bytes(2, encodeSpan(s))
	}
	if len(spans) == 0 {
		return nil
	}
	var all, request message
	all.resource(1, spans[0].Resource())
	for _, scope := range scopes {
		m := byScope[scope]
		m.text(3, scope.SchemaURL)
		all.bytes(2, *m)
	}
	all.text(3, spans[0].Resource().SchemaURL())
	request.bytes(1, all)
	return request
}

func encodeSpan(s sdktrace.ReadOnlySpan) []byte {
	var m message
	c := s.SpanContext()
	traceID, spanID := c.TraceID(), c.SpanID()
	m.bytes(1, traceID[:])
	m.bytes(2, spanID[:])
	m.text(3, c.TraceState().String())
	if parent := s.Parent().SpanID(); parent.IsValid() {
		m.bytes(4, parent[:])
	}
	m.text(5, s.Name())
	m.varint(6, uint64(kindOf(s.SpanKind())))
	m.when(7, s.StartTime())
	m.when(8, s.EndTime())
	m.attributes(9, s.Attributes())
	m.varint(10, uint64(max(s.DroppedAttributes(), 0)))
	for _, l := range s.Links() {
		var link message
		traceID, spanID := l.SpanContext.TraceID(), l.SpanContext.SpanID()
		link.bytes(1, traceID[:])
		link.bytes(2, spanID[:])
		link.text(3, l.SpanContext.TraceState().String())
		link.attributes(4, l.Attributes)
		link.varint(5, uint64(max(l.DroppedAttributeCount, 0)))
		link.fixed32(6, flagsOf(l.SpanContext.TraceFlags(), l.SpanContext.IsRemote()))
		m.bytes(13, link)
	}
	m.varint(14, uint64(max(s.DroppedLinks(), 0)))
	var status message
	status.text(2, s.Status().Description)
	switch s.Status().Code {
	case codes.Ok:
		status.varint(3, 1)
	case codes.Error:
		status.varint(3, 2)
	}
	m.bytes(15, status)
	m.fixed32(16, flagsOf(c.TraceFlags(), s.Parent().IsRemote()))
	return m
}

// kindOf is a kind's number in OTLP.
func kindOf(k trace.SpanKind) int {
	switch k {
	case trace.SpanKindInternal:
		return 1
	case trace.SpanKindServer:
		return 2
	case trace.SpanKindClient:
		return 3
	case trace.SpanKindProducer:
		return 4
	case trace.SpanKindConsumer:
		return 5
	}
	return 0
}

// flagsOf are the W3C flags, and two bits that say whether the parent (or what a link
// names) came from another process.
func flagsOf(f trace.TraceFlags, remote bool) uint32 {
	out := uint32(f) | 0x100
	if remote {
		out |= 0x200
	}
	return out
}

// encodeMetrics makes an ExportMetricsServiceRequest. It knows the kinds that patrol
// has: sums, gauges and histograms with explicit bounds, without exemplars.
func encodeMetrics(r *metricdata.ResourceMetrics) []byte {
	var all, request message
	all.resource(1, r.Resource)
	for _, s := range r.ScopeMetrics {
		var scope message
		scope.scope(1, s.Scope)
		for _, metric := range s.Metrics {
			if b, ok := encodeMetric(metric); ok {
				scope.bytes(2, b)
			}
		}
		scope.text(3, s.Scope.SchemaURL)
		all.bytes(2, scope)
	}
	all.text(3, r.Resource.SchemaURL())
	request.bytes(1, all)
	return request
}

func encodeMetric(metric metricdata.Metrics) ([]byte, bool) {
	var m message
	m.text(1, metric.Name)
	m.text(2, metric.Description)
	m.text(3, metric.Unit)
	switch d := metric.Data.(type) {
	case metricdata.Gauge[int64]:
		m.bytes(5, encodePoints(d.DataPoints))
	case metricdata.Gauge[float64]:
		m.bytes(5, encodePoints(d.DataPoints))
	case metricdata.Sum[int64]:
		m.bytes(7, encodeSum(d.DataPoints, d.Temporality, d.IsMonotonic))
	case metricdata.Sum[float64]:
		m.bytes(7, encodeSum(d.DataPoints, d.Temporality, d.IsMonotonic))
	case metricdata.Histogram[float64]:
		m.bytes(9, encodeHistogram(d))
	default:
		return nil, false
	}
	return m, true
}

func encodePoints[N int64 | float64](points []metricdata.DataPoint[N]) message {
	var m message
	for _, p := range points {
		var point message
		point.when(2, p.StartTime)
		point.when(3, p.Time)
		switch v := any(p.Value).(type) {
		case float64:
			point.set64(4, math.Float64bits(v))
		case int64:
			point.set64(6, uint64(v))
		}
		point.attributes(7, p.Attributes.ToSlice())
		m.bytes(1, point)
	}
	return m
}

func encodeSum[N int64 | float64](points []metricdata.DataPoint[N], t metricdata.Temporality, monotonic bool) message {
	m := encodePoints(points)
	m.varint(2, temporalityOf(t))
	if monotonic {
		m.varint(3, 1)
	}
	return m
}

func encodeHistogram(h metricdata.Histogram[float64]) message {
	var m message
	for _, p := range h.DataPoints {
		var point, counts, bounds message
		point.when(2, p.StartTime)
		point.when(3, p.Time)
		point.fixed64(4, p.Count)
		point.set64(5, math.Float64bits(p.Sum))
		for _, n := range p.BucketCounts {
			counts = binary.LittleEndian.AppendUint64(counts, n)
		}
		point.bytes(6, counts)
		for _, f := range p.Bounds {
			bounds = binary.LittleEndian.AppendUint64(bounds, math.Float64bits(f))
		}
		point.bytes(7, bounds)
		point.attributes(9, p.Attributes.ToSlice())
		if v, ok := p.Min.Value(); ok {
			point.set64(11, math.Float64bits(v))
		}
		if v, ok := p.Max.Value(); ok {
			point.set64(12, math.Float64bits(v))
		}
		m.bytes(1, point)
	}
	m.varint(2, temporalityOf(h.Temporality))
	return m
}

func temporalityOf(t metricdata.Temporality) uint64 {
	if t == metricdata.DeltaTemporality {
		return 1
	}
	return 2
}

// rejected reads how much of an export the collector has not taken, from an
// Export...ServiceResponse: field 1 is the partial success, its field 1 the number.
// An answer that cannot be read counts as none rejected.
func rejected(answer []byte) int64 {
	partial, _, ok := find(answer, 1)
	if !ok {
		return 0
	}
	_, n, ok := find(partial, 1)
	if !ok {
		return 0
	}
	return int64(n)
}

// find gives a field's bytes, or its number.
func find(m []byte, field uint64) (b []byte, number uint64, ok bool) {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 {
			return nil, 0, false
		}
		m = m[n:]
		var value []byte
		var v uint64
		switch tag & 7 {
		case varintType:
			if v, n = binary.Uvarint(m); n <= 0 {
				return nil, 0, false
			}
		case bytesType:
			size, used := binary.Uvarint(m)
			if used <= 0 || size > uint64(len(m)-used) {
				return nil, 0, false
			}
			value, n = m[used:used+int(size)], used+int(size)
		case fixed64Type:
			n = 8
		case fixed32Type:
			n = 4
		default:
			return nil, 0, false
		}
		if n > len(m) {
			return nil, 0, false
		}
		m = m[n:]
		if tag>>3 == field {
			b, number, ok = value, v, true
		}
	}
	return b, number, ok
}
