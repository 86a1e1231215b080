package telemetry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Config is OpenTelemetry's own environment, as far as it is read here. The zero
// value exports nothing.
type Config struct {
	Traces  Endpoint
	Metrics Endpoint
	// Resource says who exports: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and
	// what the Functions host says about the app.
	Resource []attribute.KeyValue
	// Sampler is nil for the default: all, or as the sender of a message decided.
	Sampler sdktrace.Sampler
	// Interval of the metrics' export; 0: a minute.
	Interval time.Duration
	// Delta asks for metrics that count from the last export.
	Delta bool
	// Problems are settings that cannot be used. patrol works without its
	// telemetry, so they are warnings and nothing fails.
	Problems []string
}

// Endpoint is where one signal goes. An empty URL: nowhere.
type Endpoint struct {
	URL     string
	Headers []Header
	Timeout time.Duration // of one export; 0: 10 s
	Gzip    bool
}

// Header is sent with each export. Its value is most often a key.
type Header struct {
	Name  string
	Value rotation.Secret
}

const (
	defaultTimeout  = 10 * time.Second
	maxTimeout      = time.Minute
	defaultInterval = time.Minute
	defaultService  = "patrol"
)

// ReadConfig reads the OTEL_ variables of OpenTelemetry's specification. They come
// from getenv alone. Without an endpoint nothing is exported.
func ReadConfig(getenv func(string) string) Config {
	r := reader{getenv: getenv}
	var c Config
	switch v := strings.ToLower(r.text("OTEL_SDK_DISABLED")); v {
	case "", "false":
	case "true":
		return c
	default:
		r.addProblem("OTEL_SDK_DISABLED", "must be true or false; taken as false")
	}
	c.Traces = r.endpoint("TRACES", "v1/traces")
	c.Metrics = r.endpoint("METRICS", "v1/metrics")
	if c.Traces.URL == "" && c.Metrics.URL == "" {
		c.Problems = r.problems
		return c
	}
	c.Resource = r.resource()
	c.Sampler = r.sampler()
	c.Interval = r.milliseconds("OTEL_METRIC_EXPORT_INTERVAL", defaultInterval, time.Second, time.Hour)
	switch v := strings.ToLower(r.text("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")); v {
	case "", "cumulative":
	case "delta", "lowmemory":
		c.Delta = true
	default:
		r.addProblem("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
			"must be cumulative, delta or lowmemory; taken as cumulative")
	}
	c.Problems = r.problems
	return c
}

// reader collects problems. It repeats no value: one may be a key in the wrong place.
type reader struct {
	getenv   func(string) string
	problems []string
}

func (r *reader) addProblem(name, what string) { r.problems = append(r.problems, name+" "+what) }

func (r *reader) text(name string) string { return strings.TrimSpace(r.getenv(name)) }

// either reads the variable of one signal, or else the one for all of them.
func (r *reader) either(signal, what string) (name, value string) {
	name = "OTEL_EXPORTER_OTLP_" + signal + "_" + what
	if v := r.text(name); v != "" {
		return name, v
	}
	name = "OTEL_EXPORTER_OTLP_" + what
	return name, r.text(name)
}

func (r *reader) milliseconds(name string, fallback, least, most time.Duration) time.Duration {
	v := r.text(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if d := time.Duration(n) * time.Millisecond; err == nil && n > 0 && n < 1e9 {
		return min(max(d, least), most)
	}
	r.addProblem(name, fmt.Sprintf("must be a number of milliseconds; taken as %d", fallback.Milliseconds()))
	return fallback
}

func (r *reader) endpoint(signal, path string) Endpoint {
	switch exporter := r.text("OTEL_" + signal + "_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return Endpoint{}
	default:
		r.addProblem("OTEL_"+signal+"_EXPORTER", "must be otlp or none; nothing is exported")
		return Endpoint{}
	}
	name, address := r.either(signal, "ENDPOINT")
	if address == "" {
		return Endpoint{}
	}
	if protocol, v := r.either(signal, "PROTOCOL"); v != "" && v != "http/protobuf" {
		r.addProblem(protocol, "must be http/protobuf; nothing is exported")
		return Endpoint{}
	}
	for _, what := range []string{"CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"} {
		if variable, v := r.either(signal, what); v != "" {
			r.addProblem(variable, "is not read: use the system's certificates (SSL_CERT_FILE); nothing is exported")
			return Endpoint{}
		}
	}
	u, err := url.Parse(address)
	if err != nil || !usable(u) {
		r.addProblem(name, "must be a URL like https://collector.contoso.com:4318, without user or fragment; "+
			"nothing is exported")
		return Endpoint{}
	}
	if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
		// The base of all signals; a signal's own variable is taken as it is.
		u = u.JoinPath(path)
	}
	e := Endpoint{URL: u.String()}
	variable, v := r.either(signal, "HEADERS")
	for name, value := range r.pairs(variable, v) {
		e.Headers = append(e.Headers, Header{name, rotation.NewSecret(value)})
	}
	if u.Scheme == "http" && len(e.Headers) > 0 && !loopback(u.Hostname()) {
		r.addProblem(name, "must begin with https:// where headers are set, or their keys would travel in the clear; "+
			"nothing is exported")
		return Endpoint{}
	}
	variable, _ = r.either(signal, "TIMEOUT")
	e.Timeout = r.milliseconds(variable, defaultTimeout, 100*time.Millisecond, maxTimeout)
	switch variable, v := r.either(signal, "COMPRESSION"); v {
	case "", "none":
	case "gzip":
		e.Gzip = true
	default:
		r.addProblem(variable, "must be gzip or none; taken as none")
	}
	return e
}

// usable is true of an address that exports can go to.
func usable(u *url.URL) bool {
	known := u.Scheme == "http" || u.Scheme == "https"
	return known && u.Host != "" && u.User == nil && u.Fragment == ""
}

// pairs reads a list like a=1,b=2, whose values may be percent-encoded.
func (r *reader) pairs(name, list string) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		named := ok && key != "" && !strings.ContainsAny(key, " \t\r\n:")
		if !named || err != nil || strings.ContainsAny(value, "\r\n") {
			r.addProblem(name, "must be a list like key=value,key=value; the other parts of it are used")
			continue
		}
		out[key] = value
	}
	return out
}

// resource names the app, in this order: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
// what the platform says.
func (r *reader) resource() []attribute.KeyValue {
	all := map[string]string{"service.name": defaultService}
	if site := r.text("WEBSITE_SITE_NAME"); site != "" {
		all["faas.name"], all["cloud.provider"], all["cloud.platform"] = site, "azure", "azure.functions"
	}
	if region := r.text("REGION_NAME"); region != "" {
		all["cloud.region"] = region
	}
	if instance := r.text("WEBSITE_INSTANCE_ID"); instance != "" {
		all["faas.instance"] = instance
	}
	for key, value := range r.pairs("OTEL_RESOURCE_ATTRIBUTES", r.text("OTEL_RESOURCE_ATTRIBUTES")) {
		all[key] = value
	}
	if v := r.text("OTEL_SERVICE_NAME"); v != "" {
		all["service.name"] = v
	}
	var out []attribute.KeyValue
	for key, value := range all {
		out = append(out, attribute.String(key, value))
	}
	return out
}

// sampler is nil for the default.
func (r *reader) sampler() sdktrace.Sampler {
	switch v := r.text("OTEL_TRACES_SAMPLER"); v {
	case "", "parentbased_always_on":
		return nil
	case "always_on":
		return sdktrace.AlwaysSample()
	case "always_off":
		return sdktrace.NeverSample()
	case "traceidratio":
		return sdktrace.TraceIDRatioBased(r.ratio())
	case "parentbased_always_off":
		return sdktrace.ParentBased(sdktrace.NeverSample())
	case "parentbased_traceidratio":
		return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(r.ratio()))
	}
	r.addProblem("OTEL_TRACES_SAMPLER", "is none that is known; taken as parentbased_always_on")
	return nil
}

func (r *reader) ratio() float64 {
	v := r.text("OTEL_TRACES_SAMPLER_ARG")
	if v == "" {
		return 1
	}
	f, err := strconv.ParseFloat(v, 64)
	if inRange := f >= 0 && f <= 1; err != nil || !inRange {
		r.addProblem("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1; taken as 1")
		return 1
	}
	return f
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// hostOf is a URL's or an address' host without its port, in lower case.
func hostOf(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		address = h
	}
	return strings.ToLower(address)
}
