package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/telemetry"
	"github.com/azure-patrol/patrol/internal/telemetry/otlptest"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const oneManifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - {name: jenkins-agents, identity: build-bot, organization: contoso, scopes: [vso.build_execute]}
`

// watched is a world whose handler's spans and metrics are kept.
type watched struct {
	*simulation.World
	spans  *tracetest.InMemoryExporter
	reader *sdkmetric.ManualReader
}

func watch(t *testing.T, story func(t *testing.T, w *watched)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader()}
		// A reader is one process' own.
		w.World = simulation.New(t, simulation.Config{Manifest: oneManifest, OneProcess: true,
			Outside: func(o *app.Outside) {
				o.Telemetry = telemetry.Outputs{Spans: w.spans, Metrics: w.reader}
			}})
		defer w.Close()
		story(t, w)
		if t.Failed() {
			t.Logf("the handler said:\n%s", w.Output())
		}
	})
}

func (w *watched) sweep(t *testing.T) {
	t.Helper()
	time.Sleep(61 * time.Second)
	if err := w.Sweep(); err != nil {
		t.Fatalf("sweep: %v\n%s", err, w.Output())
	}
}

// path names the spans from a root down to s: a trace as people read it.
func path(all tracetest.SpanStubs, s tracetest.SpanStub) string {
	for _, p := range all {
		if p.SpanContext.SpanID() == s.Parent.SpanID() {
			return path(all, p) + " > " + s.Name
		}
	}
	if s.Parent.SpanID().IsValid() {
		return "? > " + s.Name
	}
	return s.Name
}

// paths counts those of one trace.
func paths(all tracetest.SpanStubs, id trace.TraceID) map[string]int {
	out := map[string]int{}
	for _, s := range all {
		if s.SpanContext.TraceID() == id {
			out[path(all, s)]++
		}
	}
	return out
}

// contextOf reads an event's traceparent.
func contextOf(t *testing.T, e events.Event) (id trace.TraceID, span trace.SpanID) {
	t.Helper()
	parts := strings.Split(e.TraceParent, "-")
	if len(parts) != 4 {
		t.Fatalf("event %s has the traceparent %q", e.ID, e.TraceParent)
	}
	id, err1 := trace.TraceIDFromHex(parts[1])
	span, err2 := trace.SpanIDFromHex(parts[2])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return id, span
}

func (w *watched) last(t *testing.T, kind string) events.Event {
	t.Helper()
	var out events.Event
	for _, e := range w.Events() {
		if e.Type == kind {
			out = e
		}
	}
	if out.ID == "" {
		t.Fatalf("there is no event %s\n%s", kind, w.Output())
	}
	return out
}

func TestOneTraceLeadsFromTheTriggerToTheEvent(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.sweep(t)
		all := w.spans.GetSpans()
		event := w.last(t, events.TypeRotated)
		id, span := contextOf(t, event)
		got := paths(all, id)
		const work = "CheckExpiry > sweep > send pat-commands > process pat-commands > "
		for _, want := range []string{
			"CheckExpiry",
			"CheckExpiry > sweep > devops list > HTTP GET",
			work + "observe",
			work + "rotate > create > devops create > HTTP POST",
			work + "rotate > prove > devops prove > HTTP GET",
			work + "announce > send pat-events",
		} {
			if got[want] != 1 {
				t.Errorf("%d spans %q", got[want], want)
			}
		}
		for _, want := range []string{"Client.SetSecret > HTTP PUT", "Client.UpdateSecretProperties > HTTP PATCH",
			"Client.GetSecret > HTTP GET", "entra token"} {
			found := false
			for path := range got {
				found = found || strings.HasSuffix(path, want)
			}
			if !found {
				t.Errorf("no span %q", want)
			}
		}
		for _, s := range all {
			if s.SpanContext.SpanID() == span && (s.Name != "send pat-events" || s.SpanKind != trace.SpanKindProducer) {
				t.Errorf("the event names the span %q", s.Name)
			}
		}
		for path := range got {
			if strings.HasPrefix(path, "?") {
				t.Errorf("a span has lost its parent: %s", path)
			}
		}
		if t.Failed() {
			for path, n := range got {
				t.Log(n, path)
			}
		}

		// An order by HTTP, and the revocation a day later: another trace, which
		// points back to the one that scheduled it.
		w.spans.Reset()
		time.Sleep(time.Hour)
		if code := w.HTTP("POST", "/api/pats/jenkins-agents/rotate", map[string]string{"reason": "requested"},
			nil); code != 202 {
			t.Fatalf("rotate answered %d", code)
		}
		w.Settle()
		ordered, _ := contextOf(t, w.last(t, events.TypeRotated))
		const order = "POST /api/pats/{name}/rotate > send pat-commands > process pat-commands > "
		if got := paths(w.spans.GetSpans(), ordered); got[order+"announce > send pat-events"] != 1 {
			t.Errorf("the order's trace is %v", got)
		}
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		revoked, _ := contextOf(t, w.last(t, events.TypeRevoked))
		if revoked == ordered {
			t.Error("a trace lasts a day")
		}
		linked := false
		for _, s := range w.spans.GetSpans() {
			if s.SpanContext.TraceID() == revoked {
				for _, l := range s.Links {
					linked = linked || l.SpanContext.TraceID() == ordered
				}
			}
		}
		if got := paths(w.spans.GetSpans(), revoked); !linked ||
			got["process pat-commands > revoke > devops revoke > HTTP DELETE"] != 1 {
			t.Errorf("linked %v: %v", linked, got)
		}
	})
}

func TestMetricsTellTheStory(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.sweep(t)
		time.Sleep(time.Hour)
		w.HTTP("POST", "/api/pats/jenkins-agents/rotate", map[string]string{"reason": "requested"}, nil)
		w.Settle()
		time.Sleep(26 * time.Hour)
		// A create that is refused: the order is tried again soon after.
		if err := w.Cloud.Injector.Inject(faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat,
			Mode: faults.Status, Status: 400, Body: `{"message":"no"}`}); err != nil {
			t.Fatal(err)
		}
		if err := w.Cloud.Injector.Inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.ListSecrets,
			Mode: faults.Status, Status: 429,
			Header: map[string]string{"Retry-After": "1"}, Body: keyvault.ErrorBody("Throttled", "slow down",
				"")}); err != nil {
			t.Fatal(err)
		}
		w.HTTP("POST", "/api/pats/jenkins-agents/rotate", map[string]string{"reason": "requested"}, nil)
		w.Settle()
		w.sweep(t)

		var rm metricdata.ResourceMetrics
		if err := w.reader.Collect(t.Context(), &rm); err != nil {
			t.Fatal(err)
		}
		sum := func(name string, pairs ...string) (n int64) {
			for _, s := range rm.ScopeMetrics {
				for _, m := range s.Metrics {
					d, ok := m.Data.(metricdata.Sum[int64])
					for _, p := range d.DataPoints {
						match := ok && m.Name == name
						for i := 0; i < len(pairs); i += 2 {
							v, _ := p.Attributes.Value(attribute.Key(pairs[i]))
							match = match && v.String() == pairs[i+1]
						}
						if match {
							n += p.Value
						}
					}
				}
			}
			return n
		}
		for _, want := range []struct {
			n     int64
			name  string
			pairs []string
		}{
			{1, "patrol.rotations", []string{"patrol.outcome", "success", "patrol.reason", "provision"}},
			{2, "patrol.rotations", []string{"patrol.outcome", "success", "patrol.reason", "requested"}},
			{1, "patrol.rotations", []string{"patrol.outcome", "failure", "patrol.reason", "requested"}},
			{1, "patrol.failures", []string{"patrol.step", "create"}},
			{1, "patrol.revocations", []string{"patrol.cause", "overlap-ended"}},
			{1, "patrol.upstream.throttled", []string{"patrol.service", "vault"}},
			{int64(w.Cloud.Injector.Count(devops.ServiceName, devops.CreatePat)), "patrol.upstream.calls",
				[]string{"patrol.service", "devops", "patrol.operation", "create"}},
			{1, "patrol.upstream.calls", []string{"patrol.service", "devops", "patrol.operation", "create",
				"patrol.status_class", "4xx"}},
			{int64(w.Cloud.Injector.Count(keyvault.Service, keyvault.SetSecret)), "patrol.upstream.calls",
				[]string{"patrol.service", "vault", "patrol.operation", "set"}},
			{int64(w.Cloud.Injector.Count("servicebus", "send "+cloud.EventTopic)), "patrol.upstream.calls",
				[]string{"patrol.service", "servicebus", "patrol.operation", "send pat-events"}},
		} {
			if n := sum(want.name, want.pairs...); n != want.n {
				t.Errorf("%s %q is %d, want %d", want.name, want.pairs, n, want.n)
			}
		}
		units := map[string]string{}
		for _, s := range rm.ScopeMetrics {
			for _, m := range s.Metrics {
				units[m.Name] = m.Unit
			}
		}
		for name, unit := range map[string]string{"patrol.pats": "{pat}", "patrol.pat.seconds_to_expiry": "s",
			"patrol.pat.seconds_to_expiry.min": "s", "patrol.pat.life_left": "s",
			"patrol.signin.required": "1", "patrol.sweep.duration": "s", "patrol.sweep.age": "s",
			"patrol.command.age": "s", "patrol.upstream.calls": "{call}"} {
			if units[name] != unit {
				t.Errorf("%s has the unit %q, want %q", name, units[name], unit)
			}
		}
	})
}

// Services that answer with the very secrets that they were sent, wherever an answer has
// room for words: nothing of it is exported.
func TestNoTokenIsExportedWhateverTheServicesAnswer(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.sweep(t)
		v, _ := w.Latest("jenkins-agents")
		secrets := strings.Join(w.Cloud.Tokens(), " ")
		headers := map[string]string{"X-Ms-Request-Id": v.Value, "X-Vss-E2eid": v.Value, "Activityid": v.Value,
			"Location": "https://localhost/?" + v.Value, "Content-Type": "application/json"}
		for i, f := range []faults.Fault{
			{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 400, Body: `{"$id":"1","message":` +
				fmt.Sprintf("%q", secrets) + `}`},
			{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 203, Body: "<html>" + secrets +
				"</html>"},
			{Service: devops.ServiceName, Operation: devops.CreatePat, Status: 302},
			{Service: devops.ServiceName, Operation: devops.ConnectionData, Status: 500, Times: 10, Body: secrets},
			{Service: keyvault.Service, Operation: keyvault.SetSecret, Status: 400, Body: keyvault.ErrorBody(secrets,
				secrets, secrets)},
			{Service: keyvault.Service, Operation: keyvault.GetSecret, Status: 403,
				Body: keyvault.ErrorBody("Forbidden", secrets, "ForbiddenByRbac")},
			{Service: keyvault.Service, Operation: keyvault.GetSecret, Mode: faults.ResetAfter, Times: 10},
			{Service: "entra", Operation: "token refresh_token", Status: 400, Times: -1,
				Body: `{"error":"invalid_grant","error_description":` + fmt.Sprintf("%q", "AADSTS700082: "+secrets) +
					`,"error_codes":[700082]}`},
		} {
			if f.Mode == "" {
				f.Mode, f.Header = faults.Status, headers
			}
			if err := w.Cloud.Injector.Inject(f); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Hour) // past every token that Entra has given
			current, _ := w.Latest("jenkins-agents")
			w.Command("jenkins-agents", fmt.Sprintf(
				`{"command":"reconcile","pat":"jenkins-agents","reason":"requested",
					"from":%q,"requestedBy":%q,"operation":"%d"}`,
				current.Tags["CredentialId"], "https://x/?code="+v.Value, i))
			w.Settle()
			w.HTTP("GET", "/api/pats/jenkins-agents?code="+v.Value, nil, nil)
			time.Sleep(time.Hour)
			_ = w.Sweep()
			w.Cloud.Injector.ClearFaults()
		}
		var rm metricdata.ResourceMetrics
		if err := w.reader.Collect(t.Context(), &rm); err != nil {
			t.Fatal(err)
		}
		all := w.spans.GetSpans()
		text := fmt.Sprintf("%+v\n%+v", all, rm)
		for i, token := range w.Cloud.Tokens() {
			for _, part := range []string{token, token[:len(token)/2], token[len(token)/2:]} {
				if at := strings.Index(text, part); at >= 0 {
					t.Errorf("token %d is exported after %q", i, text[max(at-120, 0):at])
				}
			}
		}
		failed, urls := 0, 0
		for _, s := range all {
			for _, a := range s.Attributes {
				if a.Key == "url.full" {
					urls++
					if strings.ContainsAny(a.Value.AsString(), "?#") {
						t.Errorf("a query is exported: %s", a.Value.AsString())
					}
				}
				if strings.HasPrefix(string(a.Key), "az.") && len(a.Value.AsString()) != 36 {
					t.Errorf("%s is no GUID", a.Key)
				}
			}
			if s.Status.Code == codes.Error {
				failed++
			}
		}
		if n := len(w.Cloud.Tokens()); failed < 10 || urls < 20 || n < 10 {
			t.Errorf("%d failed spans, %d addresses, %d tokens: the story has not happened", failed, urls, n)
		}
	})
}

// The app as it is deployed: switched on by its settings alone, over real HTTP.
func TestSettingsSwitchTheExportOn(t *testing.T) {
	t.Parallel()
	var collector otlptest.Collector
	env := azure()
	maps.DeleteFunc(env, func(name, _ string) bool { return strings.HasPrefix(name, "ServiceBusConnection__") })
	manifest := filepath.Join(t.TempDir(), "pats.yaml")
	if err := os.WriteFile(manifest, []byte(oneManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	maps.Copy(env, map[string]string{"PATROL_MANIFEST": manifest, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.Start(t),
		"OTEL_EXPORTER_OTLP_HEADERS": "api-key=k3y",
		"ServiceBusConnection": "Endpoint=sb://bus.test;SharedAccessKeyName=key;SharedAccessKey=c4n4ry;" +
			"UseDevelopmentEmulator=true"})
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	o := app.Outside{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Version: "1.2.3"}
	// There is no bus: what is sent fails, and that is exported.
	o.Retry.AMQP = azservicebus.RetryOptions{MaxRetries: -1}
	o.Dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no bus") }
	o.Wait = func(context.Context, time.Duration) error { return nil }
	a := app.New(settings, nil, o)
	if b := a.Broken(); len(b) > 0 {
		t.Fatal(b)
	}
	r := httptest.NewRequest(http.MethodPost, "/Reconcile", strings.NewReader(
		`{"Data":{"m":"e30="},
			"Metadata":{"MessageId":"\"m-1\"","SessionId":"\"none\"","DeliveryCount":"1",
			"ApplicationProperties":{}}}`))
	r.Header.Set("Content-Type", "application/json")
	a.Handler().ServeHTTP(httptest.NewRecorder(), r)
	collector.Until(t, func() bool {
		return len(collector.Spans()) == 2 &&
			collector.Metric("patrol.upstream.calls") != nil
	})
	names := map[string]bool{}
	for _, s := range collector.Spans() {
		names[s.GetName()] = true
	}
	if !names["process pat-commands"] || !names["send pat-events"] {
		t.Errorf("spans %v", names)
	}
	for _, h := range collector.Headers() {
		if h.Get("api-key") != "k3y" {
			t.Error("an export without its key")
		}
	}
	if err := a.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if p := collector.Problems(); len(p) > 0 {
		t.Error(p)
	}
}
