package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
	"github.com/azure-patrol/patrol/internal/telemetry/otlptest"
)

// roundTrip answers without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// serve makes a handler a transport.
func serve(h http.Handler) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Result(), nil
	})
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// outside is for tests that read what is exported.
func outside(t *testing.T) (telemetry.Outside, *tracetest.InMemoryExporter, *sdkmetric.ManualReader) {
	t.Helper()
	spans, reader := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()
	return telemetry.Outside{
		Outputs:   telemetry.Outputs{Spans: spans, Metrics: reader},
		Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("nobody is to be called") }),
		Now:       time.Now, Log: slog.New(slog.DiscardHandler), Version: "test",
		Services: map[string]string{"contoso.vault.azure.net": "vault", "login.test": "entra"},
	}, spans, reader
}

// invoke runs f as an invocation with these headers.
func invoke(t *testing.T, header http.Header, register func(*customhandler.Mux), path, body string) {
	t.Helper()
	m := customhandler.New(customhandler.Config{})
	register(m)
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header = header
	r.Header.Set("Content-Type", "application/json")
	m.ServeHTTP(httptest.NewRecorder(), r)
}

const (
	timerEnvelope = `{"Data":{"timer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}},"Metadata":{}}`
	sampled       = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampled     = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	another       = "00-11111111111111111111111111111111-2222222222222222-01"
)

func TestTheHostsTraceIsTheParentIfAnybodyRecordsIt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		header string
		parent bool
		links  int
	}{
		"recorded": {sampled, true, 0}, "not recorded": {unsampled, false, 1}, "none": {"", false, 0}, "nonsense": {"00-x", false, 0},
	} {
		o, spans, _ := outside(t)
		tel := telemetry.New(telemetry.Config{}, o)
		h := http.Header{"X-Azure-Functions-Invocationid": {"6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11"}}
		if tc.header != "" {
			h.Set("traceparent", tc.header)
		}
		invoke(t, h, func(m *customhandler.Mux) {
			m.HandleTimer("CheckExpiry", tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil }))
		}, "/CheckExpiry", timerEnvelope)
		got := spans.GetSpans()
		if len(got) != 1 || got[0].Name != "CheckExpiry" || got[0].SpanKind != trace.SpanKindServer || !got[0].SpanContext.IsSampled() {
			t.Fatalf("%s: spans %+v", name, got)
		}
		if joined := got[0].SpanContext.TraceID().String() == sampled[3:35]; joined != tc.parent || len(got[0].Links) != tc.links {
			t.Errorf("%s: in the host's trace %v with %d links", name, joined, len(got[0].Links))
		}
		if v := value(got[0].Attributes, "faas.invocation_id"); v != "6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11" {
			t.Errorf("%s: invocation %q", name, v)
		}
		if err := tel.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAMessagesTraceGoesOnAndAScheduledOnesIsLinked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		properties string
		parent     string // its trace id
		links      int
	}{
		"traceparent":                        {`{"traceparent":"` + sampled + `"}`, sampled[3:35], 1},
		"an Azure SDK's":                     {`{"Diagnostic-Id":"` + sampled + `"}`, sampled[3:35], 1},
		"both":                               {`{"Diagnostic-Id":"` + unsampled + `","traceparent":"` + sampled + `"}`, sampled[3:35], 1},
		"scheduled, so the host's it is":     {`{"tracelink":"` + sampled + `"}`, another[3:35], 1},
		"nothing, so the host's it is":       {`{}`, another[3:35], 0},
		"no trace context, nor of that kind": {`{"traceparent":17,"tracelink":"00-zz"}`, another[3:35], 0},
	} {
		o, spans, reader := outside(t)
		tel := telemetry.New(telemetry.Config{}, o)
		envelope := fmt.Sprintf(`{"Data":{"m":"e30="},"Metadata":{"MessageId":"\"m-1\"","DeliveryCount":"2","EnqueuedTimeUtc":%q,"ApplicationProperties":%s}}`,
			time.Now().Add(-90*time.Second).UTC().Format(time.RFC3339), tc.properties)
		invoke(t, http.Header{"Traceparent": {another}}, func(m *customhandler.Mux) {
			m.HandleServiceBus("Reconcile", tel.Queue("pat-commands", func(ctx context.Context, _ customhandler.Message) error {
				tel.Command(ctx, rotation.Command{PAT: "a", Reason: rotation.Expiring, Attempt: 2, RequestedBy: "timer"})
				return &rotation.Error{Class: rotation.Throttled, Code: "service-bus-x", Message: "c4n4ry"}
			}))
		}, "/Reconcile", envelope)
		got := spans.GetSpans()
		if len(got) != 1 || got[0].Name != "process pat-commands" || got[0].SpanKind != trace.SpanKindConsumer {
			t.Fatalf("%s: spans %+v", name, got)
		}
		s := got[0]
		if id := s.SpanContext.TraceID().String(); id != tc.parent || len(s.Links) != tc.links {
			t.Errorf("%s: trace %s with %d links, want %s with %d", name, id, len(s.Links), tc.parent, tc.links)
		}
		for key, want := range map[attribute.Key]string{"messaging.system": "servicebus", "messaging.message.id": "m-1", "messaging.servicebus.message.delivery_count": "2",
			"patrol.pat": "a", "patrol.reason": "expiring", "patrol.attempt": "2", "error.type": "throttled", "patrol.code": "service-bus-x", "faas.trigger": "pubsub"} {
			if v := value(s.Attributes, key); v != want {
				t.Errorf("%s: %s is %q, want %q", name, key, v, want)
			}
		}
		if text := fmt.Sprintf("%+v", got); strings.Contains(text, "c4n4ry") {
			t.Errorf("%s: an error's text is in the span", name)
		}
		h, _ := collect(t, reader)["patrol.command.age"].Data.(metricdata.Histogram[float64])
		if len(h.DataPoints) != 1 || h.DataPoints[0].Sum < 89 || h.DataPoints[0].Sum > 120 {
			t.Errorf("%s: command age %+v", name, h.DataPoints)
		}
	}
}

func TestAnHTTPFunctionsSpanHasItsRouteAndNeverItsPath(t *testing.T) {
	t.Parallel()
	o, spans, _ := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	api := http.NewServeMux()
	api.HandleFunc("GET /api/pats/{name}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	api.HandleFunc("POST /api/check", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	api.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	api.HandleFunc("GET /api/panic", func(http.ResponseWriter, *http.Request) { panic("c4n4ry") })
	m := customhandler.New(customhandler.Config{})
	m.HandleHTTP("/api/", tel.HTTP(api))
	ask := func(method, path string) {
		m.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	ask("GET", "/api/pats/c4n4ry?code=c4n4ry")
	ask("POST", "/api/check?code=c4n4ry")
	ask("GET", "/api/health")
	ask("GET", "/api/c4n4ry")
	ask("C4N4RY", "/api/pats/x")
	ask("GET", "/api/panic")
	var got []string
	for _, s := range spans.GetSpans() {
		got = append(got, fmt.Sprintf("%s %s %s", s.Name, value(s.Attributes, "http.response.status_code"), s.Status.Code))
	}
	want := []string{"GET /api/pats/{name} 200 Unset", "POST /api/check 502 Error", "GET 404 Unset", "_OTHER 405 Unset", "GET /api/panic 500 Error"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if text := strings.ToLower(fmt.Sprintf("%+v", spans.GetSpans())); strings.Contains(text, "c4n4ry") {
		t.Errorf("a span holds what the client sent: %s", text)
	}
}

func TestASendCarriesItsTrace(t *testing.T) {
	t.Parallel()
	o, spans, reader := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	_, sent := tel.Sending()(t.Context(), "pat-commands", 3)
	sent.Done(&rotation.Error{Class: rotation.Configuration, Message: "c4n4ry"})
	s := spans.GetSpans()[0]
	if want := "00-" + s.SpanContext.TraceID().String() + "-" + s.SpanContext.SpanID().String() + "-01"; sent.Parent != want {
		t.Errorf("messages carry %q, want %q", sent.Parent, want)
	}
	if s.SpanKind != trace.SpanKindProducer || value(s.Attributes, "messaging.batch.message_count") != "3" || s.Status.Description != "configuration" {
		t.Errorf("span %+v", s)
	}
	if n := sum(collect(t, reader), "patrol.upstream.calls", "patrol.service", "servicebus", "patrol.status_class", "error"); n != 1 {
		t.Errorf("%d calls counted", n)
	}
}

func TestUpstreamCallsAreCountedByWhatTheyAre(t *testing.T) {
	t.Parallel()
	o, spans, reader := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	status := http.StatusOK
	var failure error
	transport := tel.Transport(roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("traceparent") != "" {
			t.Error("a trace leaves with a call")
		}
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {"3"}}, Body: http.NoBody, Request: r}, failure
	}))
	for _, c := range []struct {
		method, url, service, operation string
	}{
		{"GET", "https://vssps.dev.azure.com/contoso/_apis/tokens/pats?api-version=7.1", "devops", "list"},
		{"POST", "https://vssps.dev.azure.com/contoso/_apis/tokens/pats", "devops", "create"},
		{"PUT", "https://vssps.dev.azure.com/contoso/_apis/tokens/pats", "devops", "update"},
		{"DELETE", "https://vssps.dev.azure.com/contoso/_apis/Tokens/Pats", "devops", "revoke"},
		{"PATCH", "https://vssps.dev.azure.com/contoso/_apis/tokens/pats", "devops", "other"},
		{"GET", "https://dev.azure.com/contoso/_apis/connectionData", "devops", "prove"},
		{"POST", "https://vssps.dev.azure.com/contoso/_apis/tokenadmin/revocations", "devops", "token-admin"},
		{"GET", "https://contoso.vault.azure.net/secrets/a/?api-version=7.6", "vault", "get"},
		{"PUT", "https://contoso.vault.azure.net/secrets/a", "vault", "set"},
		{"PATCH", "https://contoso.vault.azure.net/secrets/a/1", "vault", "update"},
		{"GET", "https://contoso.vault.azure.net/secrets", "vault", "list"},
		{"GET", "https://contoso.vault.azure.net/secrets/a/versions", "vault", "versions"},
		{"POST", "https://contoso.vault.azure.net/deletedsecrets/a/recover", "vault", "recover"},
		{"GET", "https://contoso.vault.azure.net/certificates/c4n4ry", "vault", "other"},
		{"POST", "https://login.test/tenant/oauth2/v2.0/token", "entra", "token"},
		{"GET", "https://login.test/tenant/v2.0/.well-known/openid-configuration", "entra", "discovery"},
		{"GET", "https://login.test/c4n4ry?code=c4n4ry", "entra", "other"},
		{"GET", "http://169.254.169.254/metadata/identity/oauth2/token", "identity", "token"},
		{"GET", "https://elsewhere.test/c4n4ry", "other", "other"},
	} {
		before := sum(collect(t, reader), "patrol.upstream.calls", "patrol.service", c.service, "patrol.operation", c.operation, "patrol.status_class", "2xx")
		req, _ := http.NewRequestWithContext(t.Context(), c.method, c.url, http.NoBody)
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		if n := sum(collect(t, reader), "patrol.upstream.calls", "patrol.service", c.service, "patrol.operation", c.operation, "patrol.status_class", "2xx"); n != before+1 {
			t.Errorf("%s %s is not counted as %s %s", c.method, c.url, c.service, c.operation)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "https://login.test/t/oauth2/v2.0/token", http.NoBody)
	for _, code := range []int{429, 503, 400} {
		status = code
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	}
	failure = errors.New("c4n4ry")
	if _, err := transport.RoundTrip(req); err == nil {
		t.Fatal("the failure is gone")
	}
	m := collect(t, reader)
	if n := sum(m, "patrol.upstream.throttled", "patrol.service", "entra"); n != 2 {
		t.Errorf("%d throttled", n)
	}
	for class, want := range map[string]int64{"4xx": 2, "5xx": 1, "error": 1} {
		if n := sum(m, "patrol.upstream.calls", "patrol.service", "entra", "patrol.status_class", class); n != want {
			t.Errorf("%d calls of class %s, want %d", n, class, want)
		}
	}
	if text := fmt.Sprintf("%+v %+v", spans.GetSpans(), m); strings.Contains(text, "c4n4ry") {
		t.Error("a path, a query or an error got out")
	}
}

func TestWithoutAnEndpointThereIsNothingAndItCostsNothing(t *testing.T) {
	o, _, _ := outside(t)
	o.Outputs = telemetry.Outputs{}
	tel := telemetry.New(read(nil), o)
	if tel != nil {
		t.Fatal("something was built")
	}
	if tel.Transport(o.Transport) == nil || fmt.Sprintf("%T", tel.Transport(o.Transport)) != fmt.Sprintf("%T", o.Transport) {
		t.Error("calls take a detour")
	}
	if tel.Sending() != nil || tel.Observer() != nil || tel.Calls("m", "v") != nil || tel.Log(o.Log) != o.Log {
		t.Error("something listens")
	}
	if tracer := tel.Tracing().NewTracer("m", "v"); tracer.Enabled() {
		t.Error("the Azure SDKs trace")
	}
	ctx := t.Context()
	timer := tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil })
	queue := tel.Queue("pat-commands", func(context.Context, customhandler.Message) error { return nil })
	handler := tel.HTTP(http.NotFoundHandler())
	if _, same := handler.(http.HandlerFunc); !same {
		t.Error("requests take a detour")
	}
	if n := testing.AllocsPerRun(100, func() {
		_ = timer(ctx, customhandler.Timer{})
		_ = queue(ctx, customhandler.Message{})
		tel.Command(ctx, rotation.Command{PAT: "a"})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	// And a reconciler that nobody observes does nothing for it.
	nobody := rotation.NewReconciler(rotation.Config{Now: time.Now}).Observer
	spec := &rotation.Spec{Name: "a"}
	if n := testing.AllocsPerRun(100, func() {
		_, done := nobody.Step(ctx, spec, "create")
		done(nil)
		nobody.Rotated(ctx, spec, rotation.Expiring, nil)
	}); n != 0 {
		t.Errorf("%v allocations for a step", n)
	}
	if err := tel.Close(ctx); err != nil {
		t.Error(err)
	}
}

// The SDK reads variables of the process by itself; everything it could read is given.
func TestTheProcessEnvironmentDecidesNothing(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_TRACES_SAMPLER": "always_off", "OTEL_RESOURCE_ATTRIBUTES": "stray=c4n4ry", "OTEL_SERVICE_NAME": "c4n4ry", "OTEL_SDK_DISABLED": "true",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1", "OTEL_METRICS_EXEMPLAR_FILTER": "always_on",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c4n4ry.test", "OTEL_EXPORTER_OTLP_HEADERS": "c4n4ry=1", "OTEL_BSP_MAX_QUEUE_SIZE": "1",
	} {
		t.Setenv(name, value)
	}
	synctest.Test(t, func(t *testing.T) {
		var collector otlptest.Collector
		tel := exporting(t, nil, serve(&collector), io.Discard)
		tel.Observer().Rotated(t.Context(), &rotation.Spec{}, rotation.Expiring, nil)
		tick(t.Context(), t, tel)
		if err := tel.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := collector.Spans(); len(s) != 1 || len(s[0].GetAttributes()) != 2 {
			t.Errorf("spans %v", s)
		}
		if text := fmt.Sprint(collector.Traces(), collector.Metrics(), collector.Headers()); strings.Contains(text, "c4n4ry") || !strings.Contains(text, "patrol") {
			t.Errorf("exported %s", text)
		}
	})
	if tel := telemetry.New(read(nil), telemetry.Outside{}); tel != nil {
		t.Error("the process' endpoint has switched it on")
	}
}

func TestTheSDKsOwnErrorsGoToTheLogWithoutTheirText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log buffer
		var collector otlptest.Collector
		tel := exporting(t, nil, serve(&collector), &log)
		tel.TakeErrors()
		otel.Handle(errors.New("c4n4ry"))
		if err := tel.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "OpenTelemetry SDK") || strings.Contains(log.String(), "c4n4ry") {
			t.Errorf("the log says %s", log.String())
		}
	})
}

// exporting is a Telemetry over a collector, in a bubble.
func exporting(t *testing.T, env map[string]string, transport http.RoundTripper, log io.Writer) *telemetry.Telemetry {
	t.Helper()
	if env == nil {
		env = map[string]string{}
	}
	if env["OTEL_EXPORTER_OTLP_ENDPOINT"] == "" {
		env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "https://collector.test"
	}
	o, _, _ := outside(t)
	o.Outputs, o.Transport, o.Log = telemetry.Outputs{}, transport, slog.New(slog.NewTextHandler(log, nil))
	return telemetry.New(read(env), o)
}

func tick(ctx context.Context, t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	if err := tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil })(ctx, customhandler.Timer{}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsGatheredIsExportedWhenTheProcessComesToRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var collector otlptest.Collector
		tel := exporting(t, map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "api-key=k3y", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_SERVICE_NAME": "rotation"}, serve(&collector), io.Discard)
		tel.Observer().Rotated(t.Context(), &rotation.Spec{Name: "a"}, rotation.Expiring, nil)
		start := time.Now()
		tick(t.Context(), t, tel)
		synctest.Wait()
		if time.Since(start) > 0 || len(collector.Spans()) != 1 {
			t.Errorf("%d spans after %v", len(collector.Spans()), time.Since(start))
		}
		m := collector.Metric("patrol.rotations")
		if m.GetSum().GetDataPoints()[0].GetAsInt() != 1 || m.GetUnit() != "{rotation}" || !m.GetSum().GetIsMonotonic() {
			t.Errorf("rotations %v", m)
		}
		for _, h := range collector.Headers() {
			if h.Get("api-key") != "k3y" || h.Get("Content-Encoding") != "gzip" || h.Get("User-Agent") != "patrol/test" {
				t.Errorf("headers %v", h)
			}
		}
		id := map[string]string{}
		for _, a := range collector.Traces()[0].GetResourceSpans()[0].GetResource().GetAttributes() {
			id[a.GetKey()] = a.GetValue().GetStringValue()
		}
		if id["service.name"] != "rotation" || id["service.version"] != "test" || id["service.instance.id"] == "" {
			t.Errorf("resource %v", id)
		}
		// Metrics go on while it rests.
		n := len(collector.Metrics())
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if len(collector.Metrics()) != n+1 {
			t.Errorf("%d exports of metrics in a minute", len(collector.Metrics())-n)
		}
		if err := tel.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if p := collector.Problems(); len(p) > 0 {
			t.Error(p)
		}
	})
}

func TestAnInvocationDoesNotWaitForACollectorThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log buffer
		tel := exporting(t, nil, roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}), &log)
		start := time.Now()
		for range 5000 { // more than are kept
			tick(t.Context(), t, tel)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("5,000 invocations waited %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start = time.Now()
		err := tel.Close(ctx)
		if took := time.Since(start); took > 2*time.Second || err == nil {
			t.Errorf("the end took %v: %v", took, err)
		}
		if err := tel.Close(t.Context()); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		tick(t.Context(), t, tel) // after the end nothing goes wrong either
	})
}

func TestAFailureToExportIsToldOnceAMinuteWithoutTheAnswer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
		calls  int // for one export of spans and one of metrics
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "c4n4ry", http.StatusUnauthorized) }, "the collector answered 401", 2},
		"redirected": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://c4n4ry.test/", http.StatusTemporaryRedirect)
		}, "the collector answered 307", 2},
		"overloaded": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "c4n4ry", http.StatusServiceUnavailable) }, "the collector answered 503", 6},
		"throttled for long": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "600")
			http.Error(w, "c4n4ry", http.StatusTooManyRequests)
		}, "the collector answered 429", 2},
		"taken in part": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0x0a, 2, 8, 7}) }, "did not take 7 items", 2},
		"reset":         {func(http.ResponseWriter, *http.Request) { panic("c4n4ry") }, "the collector cannot be reached", 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log buffer
				collector := otlptest.Collector{Answer: func(w http.ResponseWriter, r *http.Request) bool { tc.answer(w, r); return true }}
				h := serve(&collector)
				tel := exporting(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.test?key=c4n4ry", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=c4n4ry"},
					roundTrip(func(r *http.Request) (resp *http.Response, err error) {
						defer func() {
							if recover() != nil {
								err = errors.New("c4n4ry: connection reset")
							}
						}()
						return h.RoundTrip(r)
					}), &log)
				tel.Observer().Rotated(t.Context(), &rotation.Spec{}, rotation.Expiring, nil)
				tick(t.Context(), t, tel)
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if n := len(collector.Headers()); n != tc.calls {
					t.Errorf("%d calls, want %d", n, tc.calls)
				}
				for range 5 {
					tick(t.Context(), t, tel)
					time.Sleep(5 * time.Second)
				}
				synctest.Wait()
				if n := strings.Count(log.String(), "telemetry could not be exported"); n != 1 {
					t.Errorf("told %d times in a minute:\n%s", n, log.String())
				}
				time.Sleep(time.Minute)
				tick(t.Context(), t, tel)
				time.Sleep(20 * time.Second)
				if err := tel.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if n := strings.Count(log.String(), tc.want); n < 2 || strings.Contains(log.String(), "c4n4ry") {
					t.Errorf("the log says\n%s", log.String())
				}
			})
		})
	}
}

func TestGaugesShowTheLastSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _, reader := outside(t)
		tel := telemetry.New(telemetry.Config{}, o)
		sweep := func(p rotation.Plan, err error) {
			_, done := tel.Observer().Sweep(t.Context())
			time.Sleep(3 * time.Second)
			done(&p, err)
		}
		item := func(name, identity string, s rotation.State, left time.Duration) rotation.Item {
			it := rotation.Item{Spec: rotation.Spec{Name: name, Identity: identity, Organization: "contoso"}, State: s}
			if left > 0 {
				it.Current = &rotation.Version{Expires: time.Now().Add(left)}
			}
			return it
		}
		now := time.Now()
		sweep(rotation.Plan{At: now, Items: []rotation.Item{
			item("a", "bot", rotation.StateCurrent, 48*time.Hour), item("b", "bot", rotation.StateDue, time.Hour), item("c", "other", rotation.StateMissing, 0),
		}, Strays: make([]rotation.Stray, 2), Problems: []rotation.Problem{{Identity: "other", Err: &rotation.Error{Class: rotation.SignIn}}}}, errors.New("c4n4ry"))
		m := collect(t, reader)
		for state, want := range map[string]int64{"current": 1, "due": 1, "missing": 1, "unmanaged": 2, "blocked": 0, "released": 0} {
			if n := level(m, "patrol.pats", "patrol.state", state); n != float64(want) {
				t.Errorf("%v PATs are %s, want %d", n, state, want)
			}
		}
		if a, b := level(m, "patrol.pat.seconds_to_expiry", "patrol.pat", "b"), level(m, "patrol.pat.seconds_to_expiry.min"); a != 3597 || b != 3597 {
			t.Errorf("seconds to expiry %v and %v", a, b)
		}
		if level(m, "patrol.signin.required", "patrol.identity", "other") != 1 || level(m, "patrol.signin.required", "patrol.identity", "bot") != 0 {
			t.Error("the wrong people are asked to sign in")
		}
		if h := m["patrol.sweep.duration"].Data.(metricdata.Histogram[float64]); h.DataPoints[0].Sum != 3 || m["patrol.sweep.duration"].Unit != "s" {
			t.Errorf("sweep duration %+v", h.DataPoints)
		}

		// Signing in shows at once, and so does losing it in a reconcile.
		publish := tel.Notify(func(context.Context, rotation.Event) error { return nil })
		if err := publish(t.Context(), &rotation.SignedIn{Identity: "other"}); err != nil {
			t.Fatal(err)
		}
		tel.Observer().Failed(t.Context(), &rotation.Spec{Name: "a", Identity: "bot"}, rotation.Failure{Class: rotation.SignIn, Step: "observe"})
		m = collect(t, reader)
		if level(m, "patrol.signin.required", "patrol.identity", "other") != 0 || level(m, "patrol.signin.required", "patrol.identity", "bot") != 1 {
			t.Error("sign-ins between sweeps are not seen")
		}

		// A fleet of a thousand has no gauge for each.
		var fleet []rotation.Item
		for i := range 1000 {
			fleet = append(fleet, item(fmt.Sprint("p", i), "bot", rotation.StateCurrent, time.Duration(i+10)*time.Hour))
		}
		sweep(rotation.Plan{At: time.Now(), Items: fleet}, nil)
		m = collect(t, reader)
		if _, there := m["patrol.pat.seconds_to_expiry"]; there {
			t.Error("a thousand PATs have a gauge each")
		}
		if v := level(m, "patrol.pat.seconds_to_expiry.min"); v != 10*3600-3 {
			t.Errorf("the least is %v", v)
		}
		if h := m["patrol.pat.life_left"].Data.(metricdata.Histogram[float64]); h.DataPoints[0].Count != 1002 {
			t.Errorf("%d lives in the distribution", h.DataPoints[0].Count)
		}
		if v := level(m, "patrol.sweep.age"); v != 3 {
			t.Errorf("the sweep is %v s old", v)
		}

		// A process that has not swept for a day shows nothing of it.
		time.Sleep(26 * time.Hour)
		if _, there := collect(t, reader)["patrol.pats"]; there {
			t.Error("an old sweep is still shown")
		}
		if err := tel.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLogLinesNameTheirTrace(t *testing.T) {
	t.Parallel()
	o, spans, _ := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	var out bytes.Buffer
	log := tel.Log(slog.New(slog.NewJSONHandler(&out, nil))).With("pat", "a").WithGroup("g")
	if err := tel.Timer("CheckExpiry", func(ctx context.Context, _ customhandler.Timer) error {
		log.InfoContext(ctx, "inside")
		return nil
	})(t.Context(), customhandler.Timer{}); err != nil {
		t.Fatal(err)
	}
	log.Info("outside")
	lines := strings.Split(out.String(), "\n")
	if id := spans.GetSpans()[0].SpanContext.TraceID().String(); !strings.Contains(lines[0], id) || strings.Contains(lines[1], "trace_id") {
		t.Errorf("the log says\n%s", out.String())
	}
}

// value is an attribute's, as text.
func value(as []attribute.KeyValue, key attribute.Key) string {
	for _, a := range as {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

func collect(t *testing.T, reader *sdkmetric.ManualReader) map[string]metricdata.Metrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	out := map[string]metricdata.Metrics{}
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			out[m.Name] = m
		}
	}
	return out
}

func matches(set attribute.Set, pairs []string) bool {
	for i := 0; i < len(pairs); i += 2 {
		if v, ok := set.Value(attribute.Key(pairs[i])); !ok || v.String() != pairs[i+1] {
			return false
		}
	}
	return true
}

// sum adds up a counter where the attributes match.
func sum(m map[string]metricdata.Metrics, name string, pairs ...string) (n int64) {
	s, _ := m[name].Data.(metricdata.Sum[int64])
	for _, p := range s.DataPoints {
		if matches(p.Attributes, pairs) {
			n += p.Value
		}
	}
	return n
}

// level is a gauge's value where the attributes match; -1 if there is none.
func level(m map[string]metricdata.Metrics, name string, pairs ...string) float64 {
	switch g := m[name].Data.(type) {
	case metricdata.Gauge[int64]:
		for _, p := range g.DataPoints {
			if matches(p.Attributes, pairs) {
				return float64(p.Value)
			}
		}
	case metricdata.Gauge[float64]:
		for _, p := range g.DataPoints {
			if matches(p.Attributes, pairs) {
				return p.Value
			}
		}
	}
	return -1
}
