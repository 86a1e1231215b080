package telemetry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/telemetry"
)

func read(env map[string]string) telemetry.Config {
	return telemetry.ReadConfig(func(name string) string { return env[name] })
}

func TestEndpointsFollowTheSpecification(t *testing.T) {
	t.Parallel()
	const (
		base    = "https://c.test:4318"
		traces  = base + "/v1/traces"
		metrics = base + "/v1/metrics"
	)
	// Every case but those that say so has the endpoint base.
	for name, tc := range map[string]struct {
		env             string // NAME=value; OTEL_ and OTEL_EXPORTER_OTLP_ go without saying
		traces, metrics string
		problem         string
	}{
		"nothing more":             {"", traces, metrics, ""},
		"no endpoint":              {"ENDPOINT=", "", "", ""},
		"one signal elsewhere":     {"METRICS_ENDPOINT=http://localhost:9/m", traces, "http://localhost:9/m", ""},
		"one signal, as it is":     {"TRACES_ENDPOINT=" + base + "/in?a=b", base + "/in?a=b", metrics, ""},
		"disabled":                 {"OTEL_SDK_DISABLED=TRUE", "", "", ""},
		"disabled how":             {"OTEL_SDK_DISABLED=1", traces, metrics, "OTEL_SDK_DISABLED"},
		"one signal is off":        {"OTEL_METRICS_EXPORTER=none", traces, "", ""},
		"another exporter":         {"OTEL_TRACES_EXPORTER=zipkin", "", metrics, "OTEL_TRACES_EXPORTER"},
		"http/protobuf":            {"PROTOCOL=http/protobuf", traces, metrics, ""},
		"grpc":                     {"PROTOCOL=grpc", "", "", "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"no URL":                   {"ENDPOINT=c.test:4318", "", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"another scheme":           {"ENDPOINT=ftp://c.test", "", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a user":                   {"ENDPOINT=https://me:c4n4ry@c.test", "", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a fragment":               {"ENDPOINT=https://c.test#c4n4ry", "", "", "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a certificate of its own": {"CERTIFICATE=/ca.pem", "", "", "OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"broken headers":           {"HEADERS=c4n4ry", traces, metrics, "OTEL_EXPORTER_OTLP_HEADERS"},
		"a sampler":                {"OTEL_TRACES_SAMPLER=c4n4ry", traces, metrics, "OTEL_TRACES_SAMPLER"},
		"an interval":              {"OTEL_METRIC_EXPORT_INTERVAL=1m", traces, metrics, "OTEL_METRIC_EXPORT_INTERVAL"},
		"compression":              {"COMPRESSION=zstd", traces, metrics, "OTEL_EXPORTER_OTLP_COMPRESSION"},
		"temporality":              {"METRICS_TEMPORALITY_PREFERENCE=x", traces, metrics, "TEMPORALITY"},
		"a base with a path": {
			"ENDPOINT=" + base + "/otlp/", base + "/otlp/v1/traces", base + "/otlp/v1/metrics", "",
		},
		"a ratio": {
			"OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=2", traces, metrics, "OTEL_TRACES_SAMPLER_ARG",
		},
		"a key in the clear": {
			"ENDPOINT=http://c.test:4318 HEADERS=api-key=c4n4ry", "", "", "OTEL_EXPORTER_OTLP_ENDPOINT",
		},
		"a key to a neighbour": {
			"ENDPOINT=http://127.0.0.1:4318 HEADERS=api-key=c4n4ry",
			"http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/metrics", "",
		},
	} {
		env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": base}
		for _, setting := range strings.Fields(tc.env) {
			key, v, _ := strings.Cut(setting, "=")
			if !strings.HasPrefix(key, "OTEL_") {
				key = "OTEL_EXPORTER_OTLP_" + key
			}
			env[key] = v
		}
		c := read(env)
		equal(t, name+": traces go to", c.Traces.URL, tc.traces)
		equal(t, name+": metrics go to", c.Metrics.URL, tc.metrics)
		problems := strings.Join(c.Problems, "\n")
		equal(t, name+": has a problem", problems != "", tc.problem != "")
		if !strings.Contains(problems, tc.problem) {
			t.Errorf("%s: problems %q do not name %s", name, problems, tc.problem)
		}
		if strings.Contains(problems, "c4n4ry") {
			t.Errorf("%s: problems %q repeat a value", name, problems)
		}
	}
	alone := read(map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": base + "/in"})
	equal(t, "one signal alone: traces go to", alone.Traces.URL, base+"/in")
	equal(t, "one signal alone: metrics go to", alone.Metrics.URL, "")
}

func TestSettingsAreTakenOver(t *testing.T) {
	t.Parallel()
	c := read(map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT":                       "https://c.test",
		"OTEL_EXPORTER_OTLP_HEADERS":                        "x-key=a%20c4n4ry",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS":                 "x-other=c4n4ry",
		"OTEL_EXPORTER_OTLP_TIMEOUT":                        "3000",
		"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT":                "9999999",
		"OTEL_EXPORTER_OTLP_COMPRESSION":                    "gzip",
		"OTEL_METRIC_EXPORT_INTERVAL":                       "5000",
		"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
		"OTEL_TRACES_SAMPLER":                               "parentbased_traceidratio",
		"OTEL_TRACES_SAMPLER_ARG":                           "0.25",
		"OTEL_SERVICE_NAME":                                 "rotation",
		"OTEL_RESOURCE_ATTRIBUTES":                          "service.name=other,team=blue%2Cgreen",
		"WEBSITE_SITE_NAME":                                 "contoso-patrol",
		"WEBSITE_INSTANCE_ID":                               "i-1",
		"REGION_NAME":                                       "West Europe",
	})
	equal(t, "problems", strings.Join(c.Problems, "\n"), "")
	// A signal's own headers are instead of those for all.
	metrics, traces := onlyHeader(t, c.Metrics), onlyHeader(t, c.Traces)
	equal(t, "the metrics' header", metrics.Name, "x-key")
	equal(t, "its value", metrics.Value.Reveal(), "a c4n4ry")
	equal(t, "the traces' header", traces.Name, "x-other")
	equal(t, "the traces' time-out", c.Traces.Timeout, 3*time.Second)
	equal(t, "the metrics' time-out, which is bounded", c.Metrics.Timeout, time.Minute)
	equal(t, "gzip", c.Traces.Gzip, true)
	equal(t, "interval", c.Interval, 5*time.Second)
	equal(t, "delta", c.Delta, true)
	if d := c.Sampler.Description(); !strings.Contains(d, "ParentBased{root:TraceIDRatioBased{0.25}") {
		t.Errorf("sampler %s", d)
	}
	id := map[string]string{}
	for _, a := range c.Resource {
		id[string(a.Key)] = a.Value.AsString()
	}
	for key, want := range map[string]string{
		"service.name":   "rotation",
		"team":           "blue,green",
		"faas.name":      "contoso-patrol",
		"faas.instance":  "i-1",
		"cloud.region":   "West Europe",
		"cloud.provider": "azure",
		"cloud.platform": "azure.functions",
	} {
		equal(t, key, id[key], want)
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "c4n4ry") {
		t.Error("a printed configuration shows a key")
	}
}

func onlyHeader(t *testing.T, e telemetry.Endpoint) telemetry.Header {
	t.Helper()
	if len(e.Headers) != 1 {
		t.Fatalf("%d headers, want 1", len(e.Headers))
	}
	return e.Headers[0]
}

func TestSamplersAreThoseOfTheSpecification(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"always_on":                "AlwaysOnSampler",
		"always_off":               "AlwaysOffSampler",
		"traceidratio":             "TraceIDRatioBased{0.5}",
		"parentbased_always_off":   "ParentBased{root:AlwaysOffSampler",
		"parentbased_traceidratio": "ParentBased{root:TraceIDRatioBased{0.5}",
	} {
		c := read(map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.test",
			"OTEL_TRACES_SAMPLER":         name,
			"OTEL_TRACES_SAMPLER_ARG":     "0.5",
		})
		if d := c.Sampler.Description(); !strings.HasPrefix(d, want) {
			t.Errorf("%s is %s, want %s", name, d, want)
		}
	}
}

func FuzzHeadersAndAttributes(f *testing.F) {
	f.Add("a=b,c=%20")
	f.Add("=,=,%")
	f.Add("x=\r\ny")
	f.Fuzz(func(t *testing.T, list string) {
		c := read(map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.test",
			"OTEL_EXPORTER_OTLP_HEADERS":  list,
			"OTEL_RESOURCE_ATTRIBUTES":    list,
		})
		for _, h := range c.Traces.Headers {
			if h.Name == "" || strings.ContainsAny(h.Name+h.Value.Reveal(), "\r\n") {
				t.Errorf("header %q of %q", h.Name, list)
			}
		}
	})
}
