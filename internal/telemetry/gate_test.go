package telemetry_test

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/azure-patrol/patrol/internal/telemetry/otlptest"
)

func textOf(v *commonpb.AnyValue) string {
	if _, number := v.GetValue().(*commonpb.AnyValue_IntValue); number {
		return fmt.Sprint(v.GetIntValue())
	}
	return v.GetStringValue()
}

func TestOnlyKnownAttributesLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const request, service = "6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11", "6A0F5C9E-3D0B-4F43-9A6E-0C6A1F0F9B11"
		var collector otlptest.Collector
		tel := exporting(t, nil, serve(&collector), io.Discard)
		tracer := tel.Tracing().NewTracer("azsecrets", "v1")
		_, span := tracer.Start(t.Context(), "HTTP GET ?code=c4n4ry", &tracing.SpanOptions{
			Kind: tracing.SpanKindClient,
			Attributes: []tracing.Attribute{
				{Key: "http.method", Value: "GET"},
				{Key: "http.status_code", Value: 403},
				{Key: "http.url", Value: "https://me:c4n4ry@contoso.vault.azure.net/secrets/a?code=c4n4ry#c4n4ry"},
				{Key: "http.user_agent", Value: "c4n4ry"},
				{Key: "net.peer.name", Value: "contoso.vault.azure.net"},
				{Key: "az.client_request_id", Value: request},
				{Key: "az.service_request_id", Value: service},
				{Key: "something", Value: "c4n4ry"},
			},
		})
		span.AddEvent("c4n4ry")
		span.SetStatus(tracing.SpanStatusError, "c4n4ry")
		span.End()
		closeIt(t, tel)

		spans := collector.Spans()
		if len(spans) != 1 {
			t.Fatalf("%d spans, want 1", len(spans))
		}
		got := map[string]string{}
		for _, a := range spans[0].GetAttributes() {
			got[a.GetKey()] = textOf(a.GetValue())
		}
		want := map[string]string{
			"http.request.method":       "GET",
			"http.response.status_code": "403",
			"url.full":                  "https://contoso.vault.azure.net/secrets/a",
			"server.address":            "contoso.vault.azure.net",
			"az.client_request_id":      request,
			"az.service_request_id":     service,
		}
		if !maps.Equal(got, want) {
			t.Errorf("attributes:\ngot  %v\nwant %v", got, want)
		}
		if text := fmt.Sprint(collector.Traces()); strings.Contains(text, "c4n4ry") {
			t.Errorf("exported what must not leave: %s", text)
		}
	})
}

func TestARequestIDThatIsNoGUIDStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var collector otlptest.Collector
		tel := exporting(t, nil, serve(&collector), io.Discard)
		tracer := tel.Tracing().NewTracer("azsecrets", "v1")
		for _, id := range []string{
			"",
			"c4n4ry",
			"6a0f5c9e3d0b4f439a6e0c6a1f0f9b11",
			"6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b1",
			"6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b1g",
			"6a0f5c9-e3d0b-4f43-9a6e-0c6a1f0f9b11",
			"6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11-",
			strings.Repeat("-", 36),
		} {
			_, span := tracer.Start(t.Context(), "HTTP GET", &tracing.SpanOptions{
				Attributes: []tracing.Attribute{{Key: "az.service_request_id", Value: id}},
			})
			span.End()
		}
		closeIt(t, tel)
		equal(t, "spans", len(collector.Spans()), 8)
		for _, s := range collector.Spans() {
			if len(s.GetAttributes()) > 0 {
				t.Errorf("exported %v", s.GetAttributes())
			}
		}
	})
}
