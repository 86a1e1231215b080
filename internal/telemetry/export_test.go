package telemetry_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	metricpb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
	"github.com/azure-patrol/patrol/internal/telemetry/otlptest"
)

// buffer is a log that several goroutines write to.
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

// exporting is a Telemetry that exports by transport.
func exporting(t *testing.T, env map[string]string, transport http.RoundTripper, log io.Writer) *telemetry.Telemetry {
	t.Helper()
	all := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.test"}
	maps.Copy(all, env)
	o, _, _ := outside(t)
	o.Outputs, o.Transport, o.Log = telemetry.Outputs{}, transport, slog.New(slog.NewTextHandler(log, nil))
	return telemetry.New(read(all), o)
}

// tick is an invocation, after which everything is exported.
func tick(ctx context.Context, t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	timer := tel.Timer("CheckExpiry", func(context.Context, customhandler.Timer) error { return nil })
	if err := timer(ctx, customhandler.Timer{}); err != nil {
		t.Fatal(err)
	}
}

// rotateAndTick leaves a span and a metric to export.
func rotateAndTick(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	tel.Observer().Rotated(t.Context(), &rotation.Spec{Name: "a"}, rotation.Expiring, nil)
	tick(t.Context(), t, tel)
}

func closeIt(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	if err := tel.Close(t.Context()); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestWhatIsGatheredIsExportedWhenTheProcessComesToRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var collector otlptest.Collector
		tel := exporting(t, map[string]string{
			"OTEL_EXPORTER_OTLP_HEADERS":     "api-key=k3y,Content-Type=text/plain",
			"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
			"OTEL_SERVICE_NAME":              "rotation",
		}, serve(&collector), io.Discard)
		start := time.Now()
		rotateAndTick(t, tel)
		synctest.Wait()
		equal(t, "the time until the export", time.Since(start), 0)
		equal(t, "spans", len(collector.Spans()), 1)

		rotations := collector.Metric("patrol.rotations")
		equal(t, "rotations", rotations.GetSum().GetDataPoints()[0].GetAsInt(), 1)
		equal(t, "the unit of rotations", rotations.GetUnit(), "{rotation}")
		equal(t, "rotations only grow", rotations.GetSum().GetIsMonotonic(), true)

		for _, h := range collector.Headers() {
			equal(t, "the key", h.Get("Api-Key"), "k3y")
			equal(t, "Content-Encoding", h.Get("Content-Encoding"), "gzip")
			equal(t, "Content-Type", h.Get("Content-Type"), "application/x-protobuf")
			equal(t, "User-Agent", h.Get("User-Agent"), "patrol/test")
		}

		id := map[string]string{}
		for _, a := range collector.Traces()[0].GetResourceSpans()[0].GetResource().GetAttributes() {
			id[a.GetKey()] = a.GetValue().GetStringValue()
		}
		equal(t, "service.name", id["service.name"], "rotation")
		equal(t, "service.version", id["service.version"], "test")
		if id["service.instance.id"] == "" {
			t.Error("service.instance.id is missing")
		}

		// Metrics go on while it rests.
		n := len(collector.Metrics())
		time.Sleep(61 * time.Second)
		synctest.Wait()
		equal(t, "exports of metrics in a minute", len(collector.Metrics())-n, 1)
		closeIt(t, tel)
		equal(t, "problems of the collector", strings.Join(collector.Problems(), "\n"), "")
	})
}

func TestCountersStartAnewWithEachExportIfAskedTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var collector otlptest.Collector
		env := map[string]string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
		tel := exporting(t, env, serve(&collector), io.Discard)
		for range 2 {
			rotateAndTick(t, tel)
			synctest.Wait()
			sum := collector.Metric("patrol.rotations").GetSum()
			const delta = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
			equal(t, "temporality", sum.GetAggregationTemporality(), delta)
			equal(t, "rotations", sum.GetDataPoints()[0].GetAsInt(), 1)
		}
		closeIt(t, tel)
	})
}

func TestAnEndpointIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{
		"a query":          "https://collector.test/in?key=k3y",
		"an escaped slash": "https://collector.test/a%2Fb",
		"no path":          "https://collector.test",
		"plain HTTP":       "http://collector.test:4318/in",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var got []string
				tel := exporting(t, map[string]string{
					"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":  address,
					"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": address,
				}, roundTrip(func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, r.URL.String())
					return answered(http.StatusOK)(r)
				}), io.Discard)
				rotateAndTick(t, tel)
				closeIt(t, tel)
				if len(got) < 2 {
					t.Errorf("%d exports, want one of each signal at least", len(got))
				}
				for _, url := range got {
					equal(t, "the address", url, address)
				}
			})
		})
	}
}

// In real time, without a clock: the SDK holds a lock while it exports, and virtual time
// stands still while somebody waits for a lock.
func TestAnInvocationDoesNotWaitForACollectorThatHangs(t *testing.T) {
	t.Parallel()
	var log buffer
	hanging, ended := make(chan struct{}, 100), make(chan error, 100)
	env := map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "60000"}
	tel := exporting(t, env, roundTrip(func(r *http.Request) (*http.Response, error) {
		hanging <- struct{}{}
		_, err := hang(r)
		ended <- err
		return nil, err
	}), &log)
	rotateAndTick(t, tel)
	<-hanging
	for range 5000 { // more than are kept
		tick(t.Context(), t, tel)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tel.Close(ctx); err == nil {
		t.Error("closing does not say that something was not exported")
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the export ended with %v, want it ended by closing: %v", err, context.Canceled)
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	tick(t.Context(), t, tel) // after the end nothing goes wrong either
}

// hang is a call that is never answered.
func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// answered answers with a status, and with c4n4ry wherever there is room for words.
func answered(status int, header ...string) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "c4n4ry")
		return w.Result(), nil
	}
}

// inPart takes an export but for seven items, with a word on why.
func inPart(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(append([]byte{0x0a, 10, 8, 7, 0x12, 6}, "c4n4ry"...))
	return w.Result(), nil
}

// The exports of these tests end before the next ones begin. The SDK holds a lock
// while it exports, and virtual time stands still while somebody waits for a lock.
var short = map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "4000"}

func TestAFailureToExportIsLoggedOnceAMinuteWithoutTheAnswer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		collector roundTrip
		want      string
		retried   bool
	}{
		"refused":   {answered(401), "the collector answered 401", false},
		"not found": {answered(404), "the collector answered 404", false},
		"broken":    {answered(500), "the collector answered 500", false},
		"redirected": {
			answered(307, "Location", "https://c4n4ry.test/"), "the collector answered 307", false,
		},
		"overloaded":  {answered(503), "the collector answered 503", true},
		"bad gateway": {answered(502), "the collector answered 502", true},
		"throttled":   {answered(429), "the collector answered 429", true},
		"throttled for long": {
			answered(429, "Retry-After", "600"), "the collector answered 429", false,
		},
		"taken in part": {inPart, "the collector answered 200, but has not taken everything", false},
		"no answer":     {hang, "the collector did not answer in time", false},
		"no connection": {
			func(*http.Request) (*http.Response, error) { return nil, errors.New("c4n4ry: connection refused") },
			"the collector cannot be reached", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var calls []time.Duration
				start := time.Now()
				env := maps.Clone(short)
				env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "https://collector.test?key=c4n4ry"
				env["OTEL_EXPORTER_OTLP_HEADERS"] = "api-key=c4n4ry"
				var log buffer
				tel := exporting(t, env, roundTrip(func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					calls = append(calls, time.Since(start))
					mu.Unlock()
					return tc.collector(r)
				}), &log)

				rotateAndTick(t, tel)
				time.Sleep(11 * time.Second) // never at the moment at which a batch is due
				synctest.Wait()
				mu.Lock()
				made := calls
				mu.Unlock()
				if retried := len(made) > 2; retried != tc.retried {
					t.Errorf("%d calls for two exports, retried should be %v", len(made), tc.retried)
				}
				if last := made[len(made)-1]; last > 4*time.Second {
					t.Errorf("a call after %v, want none after the time-out of 4s", last)
				}

				for range 5 {
					tick(t.Context(), t, tel)
					time.Sleep(6 * time.Second)
				}
				synctest.Wait()
				const line = "telemetry could not be exported"
				equal(t, "lines of the log in a minute", strings.Count(log.String(), line), 1)

				time.Sleep(time.Minute)
				tick(t.Context(), t, tel)
				time.Sleep(10 * time.Second)
				closeIt(t, tel)
				if n := strings.Count(log.String(), tc.want); n < 2 {
					t.Errorf("%d lines say %q, want 2 at least:\n%s", n, tc.want, log.String())
				}
				if strings.Contains(log.String(), "c4n4ry") {
					t.Errorf("the log holds what it must not:\n%s", log.String())
				}
			})
		})
	}
}

func TestAnExportIsRepeatedUntilItIsTaken(t *testing.T) {
	t.Parallel()
	refused := func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }
	for name, tc := range map[string]struct {
		first       roundTrip
		least, most time.Duration // until the second try
	}{
		"overloaded":    {answered(503), 500 * time.Millisecond, 1500 * time.Millisecond},
		"no connection": {refused, 500 * time.Millisecond, 1500 * time.Millisecond},
		"throttled":     {answered(429, "Retry-After", "3"), 3 * time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log buffer
				var collector otlptest.Collector
				start := time.Now()
				calls := 0 // of spans alone, one after the other
				env := map[string]string{"OTEL_METRICS_EXPORTER": "none"}
				maps.Copy(env, short)
				tel := exporting(t, env, roundTrip(func(r *http.Request) (*http.Response, error) {
					calls++
					if calls == 1 {
						_, _ = io.Copy(io.Discard, r.Body)
						return tc.first(r)
					}
					if after := time.Since(start); after < tc.least || after > tc.most {
						t.Errorf("tried again after %v, want %v to %v", after, tc.least, tc.most)
					}
					return serve(&collector).RoundTrip(r)
				}), &log)
				tick(t.Context(), t, tel)
				time.Sleep(4 * time.Second)
				synctest.Wait()
				equal(t, "calls", calls, 2)
				equal(t, "spans", len(collector.Spans()), 1)
				equal(t, "the log", log.String(), "")
				closeIt(t, tel)
			})
		})
	}
}

func TestClosingDoesNotWaitForTheNextTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tel := exporting(t, nil, answered(503), io.Discard)
		rotateAndTick(t, tel)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_ = tel.Close(ctx)
		if took := time.Since(start); took > time.Second {
			t.Errorf("closing took %v, want 1s at most", took)
		}
	})
}

// The SDK and the exporters read variables of the process by themselves; everything
// that they could read is given.
func TestTheProcessEnvironmentDecidesNothing(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_SDK_DISABLED":                                        "true",
		"OTEL_TRACES_SAMPLER":                                      "always_off",
		"OTEL_RESOURCE_ATTRIBUTES":                                 "other=c4n4ry",
		"OTEL_SERVICE_NAME":                                        "c4n4ry",
		"OTEL_BSP_MAX_QUEUE_SIZE":                                  "1",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT":                          "0",
		"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT":                   "1",
		"OTEL_METRICS_EXEMPLAR_FILTER":                             "always_on",
		"OTEL_EXPORTER_OTLP_ENDPOINT":                              "http://c4n4ry.test",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":                       "http://c4n4ry.test/traces",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":                      "http://c4n4ry.test/metrics",
		"OTEL_EXPORTER_OTLP_HEADERS":                               "x-key=c4n4ry",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS":                        "x-key=c4n4ry",
		"OTEL_EXPORTER_OTLP_METRICS_HEADERS":                       "x-key=c4n4ry",
		"OTEL_EXPORTER_OTLP_PROTOCOL":                              "http/json",
		"OTEL_EXPORTER_OTLP_COMPRESSION":                           "gzip",
		"OTEL_EXPORTER_OTLP_INSECURE":                              "true",
		"OTEL_EXPORTER_OTLP_CERTIFICATE":                           certificate(t),
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE":        "delta",
		"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
	} {
		t.Setenv(name, value)
	}
	for _, endpoint := range []string{"https://collector.test", "http://collector.test"} {
		synctest.Test(t, func(t *testing.T) {
			var collector otlptest.Collector
			env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
			tel := exporting(t, env, serve(&collector), io.Discard)
			_, swept := tel.Observer().Sweep(t.Context())
			swept(&rotation.Plan{}, nil)
			rotateAndTick(t, tel)
			closeIt(t, tel)

			if n := len(collector.Spans()); n != 2 {
				t.Fatalf("%d spans, want 2", n)
			}
			equal(t, "attributes of the invocation's span", len(collector.Spans()[1].GetAttributes()), 2)
			for _, h := range collector.Headers() {
				equal(t, "Content-Encoding", h.Get("Content-Encoding"), "")
			}
			sum := collector.Metric("patrol.rotations").GetSum()
			const cumulative = metricpb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
			equal(t, "temporality", sum.GetAggregationTemporality(), cumulative)
			equal(t, "exemplars", len(sum.GetDataPoints()[0].GetExemplars()), 0)
			bounds := collector.Metric("patrol.sweep.duration").GetHistogram().GetDataPoints()[0].GetExplicitBounds()
			equal(t, "bounds of the sweeps' histogram", len(bounds), 11)

			text := fmt.Sprint(collector.Traces(), collector.Metrics(), collector.Headers())
			if strings.Contains(text, "c4n4ry") {
				t.Errorf("the environment is exported: %s", text)
			}
			equal(t, "problems of the collector", strings.Join(collector.Problems(), "\n"), "")
		})
	}
	if tel := telemetry.New(read(nil), telemetry.Outside{}); tel != nil {
		t.Error("the process' endpoint has switched it on")
	}
}

// certificate is the path of one that can be read.
func certificate(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// childVariable makes the test below the process that it starts.
const childVariable = "PATROL_TEST_CHILD"

// The Functions host takes each line on stderr for an error of the app, and the
// exporters would print settings there that they cannot read, keys among them. A
// process of its own, as what is printed goes to the real stderr.
func TestNothingIsPrintedOfSettingsThatCannotBeRead(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		telemetry.TakeErrors(slog.New(slog.NewTextHandler(os.Stdout, nil)), time.Now)
		tel := exporting(t, nil, answered(http.StatusUnauthorized), os.Stdout)
		rotateAndTick(t, tel)
		closeIt(t, tel)
		return
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), childVariable+"=1",
		"OTEL_EXPORTER_OTLP_HEADERS=c4n4ry",
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://c4n4ry.test:c4n4ry",
		"OTEL_EXPORTER_OTLP_CERTIFICATE=c4n4ry.pem",
		"OTEL_EXPORTER_OTLP_TIMEOUT=c4n4ry",
		"OTEL_TRACES_SAMPLER=c4n4ry",
		"OTEL_BSP_SCHEDULE_DELAY=c4n4ry",
	)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Errorf("the process has failed: %v", err)
	}
	equal(t, "stderr", errs.String(), "")
	if strings.Contains(out.String(), "c4n4ry") {
		t.Errorf("stdout holds a setting: %s", out.String())
	}
}

func TestTheSDKsOwnErrorsGoToTheLogWithoutTheirText(t *testing.T) {
	var log buffer
	telemetry.TakeErrors(slog.New(slog.NewTextHandler(&log, nil)), time.Now)
	for range 3 {
		otel.Handle(errors.New("c4n4ry"))
	}
	equal(t, "lines about the SDK", strings.Count(log.String(), "OpenTelemetry SDK"), 1)
	if strings.Contains(log.String(), "c4n4ry") {
		t.Errorf("the log has the error's text: %s", log.String())
	}
}
