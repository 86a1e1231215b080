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
	const base, both = "OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.test:4318"
	for name, tc := range map[string]struct {
		env             map[string]string
		traces, metrics string
		problem         string
	}{
		"nothing is set":           {nil, "", "", ""},
		"a base":                   {map[string]string{base: both}, both + "/v1/traces", both + "/v1/metrics", ""},
		"a base with a path":       {map[string]string{base: both + "/otlp/"}, both + "/otlp/v1/traces", both + "/otlp/v1/metrics", ""},
		"one signal, as it is":     {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": both + "/in"}, both + "/in", "", ""},
		"one signal elsewhere":     {map[string]string{base: both, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://localhost:9/m"}, both + "/v1/traces", "http://localhost:9/m", ""},
		"disabled":                 {map[string]string{base: both, "OTEL_SDK_DISABLED": "TRUE"}, "", "", ""},
		"disabled how":             {map[string]string{base: both, "OTEL_SDK_DISABLED": "1"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_SDK_DISABLED"},
		"one signal is off":        {map[string]string{base: both, "OTEL_METRICS_EXPORTER": "none"}, both + "/v1/traces", "", ""},
		"another exporter":         {map[string]string{base: both, "OTEL_TRACES_EXPORTER": "zipkin"}, "", both + "/v1/metrics", "OTEL_TRACES_EXPORTER"},
		"http/protobuf":            {map[string]string{base: both, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, both + "/v1/traces", both + "/v1/metrics", ""},
		"grpc":                     {map[string]string{base: both, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", "", "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"no URL":                   {map[string]string{base: "c.test:4318"}, "", "", base},
		"a user":                   {map[string]string{base: "https://me:c4n4ry@c.test"}, "", "", base},
		"a certificate of its own": {map[string]string{base: both, "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"}, "", "", "OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"a key in the clear":       {map[string]string{base: "http://c.test:4318", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=c4n4ry"}, "", "", base},
		"a key to a neighbour":     {map[string]string{base: "http://127.0.0.1:4318", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=c4n4ry"}, "http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/metrics", ""},
		"broken headers":           {map[string]string{base: both, "OTEL_EXPORTER_OTLP_HEADERS": "c4n4ry"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_EXPORTER_OTLP_HEADERS"},
		"a sampler":                {map[string]string{base: both, "OTEL_TRACES_SAMPLER": "c4n4ry"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_TRACES_SAMPLER"},
		"a ratio":                  {map[string]string{base: both, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_TRACES_SAMPLER_ARG"},
		"an interval":              {map[string]string{base: both, "OTEL_METRIC_EXPORT_INTERVAL": "1m"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_METRIC_EXPORT_INTERVAL"},
		"compression":              {map[string]string{base: both, "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"}, both + "/v1/traces", both + "/v1/metrics", "OTEL_EXPORTER_OTLP_COMPRESSION"},
		"temporality":              {map[string]string{base: both, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "x"}, both + "/v1/traces", both + "/v1/metrics", "TEMPORALITY"},
	} {
		c := read(tc.env)
		if c.Traces.URL != tc.traces || c.Metrics.URL != tc.metrics {
			t.Errorf("%s: %q and %q, want %q and %q", name, c.Traces.URL, c.Metrics.URL, tc.traces, tc.metrics)
		}
		problems := strings.Join(c.Problems, "\n")
		if (tc.problem == "") != (problems == "") || !strings.Contains(problems, tc.problem) || strings.Contains(problems, "c4n4ry") {
			t.Errorf("%s: problems %q, want %q", name, problems, tc.problem)
		}
	}
}

func TestSettingsAreTakenOver(t *testing.T) {
	t.Parallel()
	c := read(map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.test", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20c4n4ry", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-other=c4n4ry",
		"OTEL_EXPORTER_OTLP_TIMEOUT": "3000", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "9999999", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
		"OTEL_METRIC_EXPORT_INTERVAL": "5000", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
		"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25",
		"OTEL_SERVICE_NAME": "rotation", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,team=blue%2Cgreen", "WEBSITE_SITE_NAME": "contoso-patrol", "REGION_NAME": "West Europe",
	})
	if len(c.Problems) > 0 {
		t.Errorf("problems %q", c.Problems)
	}
	if h := c.Metrics.Headers; len(h) != 1 || h[0].Name != "x-key" || h[0].Value.Reveal() != "a c4n4ry" {
		t.Errorf("the metrics' headers are %d", len(h))
	}
	if h := c.Traces.Headers; len(h) != 1 || h[0].Name != "x-other" {
		t.Error("a signal's own headers do not win")
	}
	if c.Traces.Timeout != 3*time.Second || c.Metrics.Timeout != time.Minute || !c.Traces.Gzip || c.Interval != 5*time.Second || !c.Delta {
		t.Errorf("%v %v %v %v %v", c.Traces.Timeout, c.Metrics.Timeout, c.Traces.Gzip, c.Interval, c.Delta)
	}
	if d := c.Sampler.Description(); !strings.Contains(d, "ParentBased{root:TraceIDRatioBased{0.25}") {
		t.Errorf("sampler %s", d)
	}
	id := map[string]string{}
	for _, a := range c.Resource {
		id[string(a.Key)] = a.Value.AsString()
	}
	for key, want := range map[string]string{"service.name": "rotation", "team": "blue,green", "faas.name": "contoso-patrol", "cloud.region": "West Europe", "cloud.platform": "azure.functions"} {
		if id[key] != want {
			t.Errorf("%s is %q, want %q", key, id[key], want)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "c4n4ry") {
		t.Error("a printed configuration shows a key")
	}
}

func FuzzHeadersAndAttributes(f *testing.F) {
	f.Add("a=b,c=%20")
	f.Add("=,=,%")
	f.Add("x=\r\ny")
	f.Fuzz(func(t *testing.T, list string) {
		c := read(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c.test", "OTEL_EXPORTER_OTLP_HEADERS": list, "OTEL_RESOURCE_ATTRIBUTES": list})
		for _, h := range c.Traces.Headers {
			if h.Name == "" || strings.ContainsAny(h.Name+h.Value.Reveal(), "\r\n") {
				t.Errorf("header %q of %q", h.Name, list)
			}
		}
	})
}
