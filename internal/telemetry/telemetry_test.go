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
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
)

// equal holds one thing of two against each other.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// only is the one span that there is.
func only(t *testing.T, spans *tracetest.InMemoryExporter) tracetest.SpanStub {
	t.Helper()
	all := spans.GetSpans()
	if len(all) != 1 {
		t.Fatalf("%d spans, want 1: %+v", len(all), all)
	}
	return all[0]
}

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

// outside is for tests that read what is exported.
func outside(t *testing.T) (telemetry.Outside, *tracetest.InMemoryExporter, *sdkmetric.ManualReader) {
	t.Helper()
	spans, reader := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()
	return telemetry.Outside{
		Outputs: telemetry.Outputs{Spans: spans, Metrics: reader},
		Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("nobody is to be called")
		}),
		Now:      time.Now,
		Log:      slog.New(slog.DiscardHandler),
		Version:  "test",
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
	timerEnvelope = `{"Data":{"timer":{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}},` +
		`"Metadata":{}}`
	sampled   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	another   = "00-11111111111111111111111111111111-2222222222222222-01"
)

func TestTheHostsTraceIsTheParentIfAnybodyRecordsIt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		header string
		parent bool
		links  int
	}{
		"recorded":     {sampled, true, 0},
		"not recorded": {unsampled, false, 1},
		"none":         {"", false, 0},
		"nonsense":     {"00-x", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, spans, _ := outside(t)
			tel := telemetry.New(telemetry.Config{}, o)
			h := http.Header{"X-Azure-Functions-Invocationid": {"6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11"}}
			if tc.header != "" {
				h.Set("traceparent", tc.header)
			}
			invoke(t, h, func(m *customhandler.Mux) {
				timer := tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil })
				m.HandleTimer("CheckExpiry", timer)
			}, "/CheckExpiry", timerEnvelope)
			s := only(t, spans)
			equal(t, "name", s.Name, "CheckExpiry")
			equal(t, "kind", s.SpanKind, trace.SpanKindServer)
			equal(t, "sampled", s.SpanContext.IsSampled(), true)
			equal(t, "in the host's trace", s.SpanContext.TraceID().String() == sampled[3:35], tc.parent)
			equal(t, "links", len(s.Links), tc.links)
			equal(t, "invocation", value(s.Attributes, "faas.invocation_id"), "6a0f5c9e-3d0b-4f43-9a6e-0c6a1f0f9b11")
			closeIt(t, tel)
		})
	}
}

func TestAMessagesTraceGoesOnAndAScheduledOnesIsLinked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		properties string
		parent     string // its trace id
		links      int
	}{
		"traceparent":    {`{"traceparent":"` + sampled + `"}`, sampled[3:35], 1},
		"an Azure SDK's": {`{"Diagnostic-Id":"` + sampled + `"}`, sampled[3:35], 1},
		"both": {
			`{"Diagnostic-Id":"` + unsampled + `","traceparent":"` + sampled + `"}`, sampled[3:35], 1,
		},
		"scheduled, so the host's it is":     {`{"tracelink":"` + sampled + `"}`, another[3:35], 1},
		"nothing, so the host's it is":       {`{}`, another[3:35], 0},
		"no trace context, nor of that kind": {`{"traceparent":17,"tracelink":"00-zz"}`, another[3:35], 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, spans, reader := outside(t)
			tel := telemetry.New(telemetry.Config{}, o)
			envelope := fmt.Sprintf(`{"Data":{"m":"e30="},"Metadata":{"MessageId":"\"m-1\"","DeliveryCount":"2",`+
				`"EnqueuedTimeUtc":%q,"ApplicationProperties":%s}}`,
				time.Now().Add(-90*time.Second).UTC().Format(time.RFC3339), tc.properties)
			invoke(t, http.Header{"Traceparent": {another}}, func(m *customhandler.Mux) {
				queue := tel.Queue("pat-commands", func(ctx context.Context, _ customhandler.Message) error {
					tel.Command(ctx, rotation.Command{
						PAT: "a", Reason: rotation.Expiring, Attempt: 2, RequestedBy: "timer",
					})
					return &rotation.Error{Class: rotation.Throttled, Code: "service-bus-x", Message: "c4n4ry"}
				})
				m.HandleServiceBus("Reconcile", queue)
			}, "/Reconcile", envelope)
			s := only(t, spans)
			equal(t, "name", s.Name, "process pat-commands")
			equal(t, "kind", s.SpanKind, trace.SpanKindConsumer)
			equal(t, "trace", s.SpanContext.TraceID().String(), tc.parent)
			equal(t, "links", len(s.Links), tc.links)
			for key, want := range map[attribute.Key]string{
				"faas.trigger":         "pubsub",
				"messaging.system":     "servicebus",
				"messaging.message.id": "m-1",
				"messaging.servicebus.message.delivery_count": "2",
				"patrol.pat":          "a",
				"patrol.reason":       "expiring",
				"patrol.attempt":      "2",
				"patrol.requested_by": "timer",
				"error.type":          "throttled",
				"patrol.code":         "service-bus-x",
			} {
				equal(t, string(key), value(s.Attributes, key), want)
			}
			if text := fmt.Sprintf("%+v", s); strings.Contains(text, "c4n4ry") {
				t.Error("an error's text is in the span")
			}
			h, _ := collect(t, reader)["patrol.command.age"].Data.(metricdata.Histogram[float64])
			if len(h.DataPoints) != 1 {
				t.Fatalf("%d command ages, want 1", len(h.DataPoints))
			}
			if age := h.DataPoints[0].Sum; age < 89 || age > 120 {
				t.Errorf("the command's age is %v s, want about 90", age)
			}
		})
	}
}

func TestAnHTTPFunctionsSpanHasItsRouteAndNeverItsPath(t *testing.T) {
	t.Parallel()
	o, spans, _ := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	api := http.NewServeMux()
	api.HandleFunc("GET /api/pats/{name}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}")
	})
	api.HandleFunc("POST /api/check", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	})
	api.HandleFunc("GET /api/health", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	api.HandleFunc("GET /api/panic", func(http.ResponseWriter, *http.Request) { panic("c4n4ry") })
	about := func(r *http.Request) (string, bool) { return "", r.URL.Path == "/api/health" }
	m := customhandler.New(customhandler.Config{})
	m.HandleHTTP("/api/", tel.HTTP(api, about))
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
		status := value(s.Attributes, "http.response.status_code")
		got = append(got, fmt.Sprintf("%s %s %s", s.Name, status, s.Status.Code))
	}
	want := []string{
		"GET /api/pats/{name} 200 Unset",
		"POST /api/check 502 Error",
		"GET 404 Unset",
		"_OTHER 405 Unset",
		"GET /api/panic 500 Error",
	}
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
	s := only(t, spans)
	parent := "00-" + s.SpanContext.TraceID().String() + "-" + s.SpanContext.SpanID().String() + "-01"
	equal(t, "what messages carry", sent.Parent, parent)
	equal(t, "kind", s.SpanKind, trace.SpanKindProducer)
	equal(t, "messages", value(s.Attributes, "messaging.batch.message_count"), "3")
	equal(t, "status", s.Status.Description, "configuration")
	failed := sum(collect(t, reader), "patrol.upstream.calls",
		"patrol.service", "servicebus", "patrol.status_class", "error")
	equal(t, "failed calls", failed, 1)
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
		header := http.Header{"Retry-After": {"3"}}
		return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: r}, failure
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
		count := func() int64 {
			return sum(collect(t, reader), "patrol.upstream.calls",
				"patrol.service", c.service, "patrol.operation", c.operation, "patrol.status_class", "2xx")
		}
		before := count()
		req, _ := http.NewRequestWithContext(t.Context(), c.method, c.url, http.NoBody)
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		equal(t, c.method+" "+c.url+" counted as "+c.service+" "+c.operation, count()-before, 1)
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
	equal(t, "throttled calls", sum(m, "patrol.upstream.throttled", "patrol.service", "entra"), 2)
	for class, want := range map[string]int64{"4xx": 2, "5xx": 1, "error": 1} {
		n := sum(m, "patrol.upstream.calls", "patrol.service", "entra", "patrol.status_class", class)
		equal(t, "calls of class "+class, n, want)
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
	equal(t, "the transport", fmt.Sprintf("%T", tel.Transport(o.Transport)), fmt.Sprintf("%T", o.Transport))
	equal(t, "the log", tel.Log(o.Log), o.Log)
	equal(t, "the observer", tel.Observer(), nil)
	equal(t, "policies for clients", len(tel.Calls("m", "v")), 0)
	equal(t, "sends are traced", tel.Sending() != nil, false)
	tracer := tel.Tracing().NewTracer("m", "v")
	equal(t, "the Azure SDKs trace", tracer.Enabled(), false)
	if _, same := tel.HTTP(http.NotFoundHandler(), nil).(http.HandlerFunc); !same {
		t.Error("requests take a detour")
	}

	ctx := t.Context()
	timer := tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil })
	queue := tel.Queue("pat-commands", func(context.Context, customhandler.Message) error { return nil })
	equal(t, "allocations", testing.AllocsPerRun(100, func() {
		_ = timer(ctx, customhandler.Timer{})
		_ = queue(ctx, customhandler.Message{})
		tel.Command(ctx, rotation.Command{PAT: "a"})
	}), 0)
	// And a reconciler that nobody observes does nothing for it.
	nobody := reconcile.NewReconciler(reconcile.Config{Now: time.Now}).Observer
	spec := &rotation.Spec{Name: "a"}
	equal(t, "allocations of a step", testing.AllocsPerRun(100, func() {
		_, done := nobody.Step(ctx, spec, "create")
		done(nil)
		nobody.Rotated(ctx, spec, rotation.Expiring, nil)
	}), 0)
	closeIt(t, tel)
}

func TestLogLinesNameTheirTrace(t *testing.T) {
	t.Parallel()
	o, spans, _ := outside(t)
	tel := telemetry.New(telemetry.Config{}, o)
	var out bytes.Buffer
	log := tel.Log(slog.New(slog.NewJSONHandler(&out, nil))).With("pat", "a").WithGroup("g")
	timer := tel.Timer("CheckExpiry", func(ctx context.Context, _ customhandler.Timer) error {
		log.InfoContext(ctx, "inside")
		return nil
	})
	if err := timer(t.Context(), customhandler.Timer{}); err != nil {
		t.Fatal(err)
	}
	log.Info("outside")
	inside, after, _ := strings.Cut(out.String(), "\n")
	if id := only(t, spans).SpanContext.TraceID().String(); !strings.Contains(inside, id) {
		t.Errorf("a line of an invocation is without its trace %s: %s", id, inside)
	}
	if strings.Contains(after, "trace_id") {
		t.Errorf("a line outside of an invocation has a trace: %s", after)
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
