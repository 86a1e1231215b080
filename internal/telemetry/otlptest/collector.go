// Package otlptest is a collector for tests: it takes OTLP exports over HTTP, decodes
// them by the protocol's own definitions, and keeps them.
//
// It is for tests only. A request has the same form as the data type of its signal,
// whose package does without gRPC.
package otlptest

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	metric "go.opentelemetry.io/proto/otlp/metrics/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector keeps what is exported to it. The zero value is ready.
type Collector struct {
	// Answer, if set, may answer a request by itself; it then returns true.
	Answer func(http.ResponseWriter, *http.Request) bool

	mu       sync.Mutex
	changed  chan struct{}
	traces   []*trace.TracesData
	metrics  []*metric.MetricsData
	headers  []http.Header
	problems []string
}

// Start serves c on loopback until the test ends, and gives its base address.
func (c *Collector) Start(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return s.URL
}

// ServeHTTP implements http.Handler.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.headers = append(c.headers, r.Header.Clone())
	answer := c.Answer
	c.mu.Unlock()
	if answer != nil && answer(w, r) {
		c.wake()
		return
	}
	defer c.wake()
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			c.refuse(w, "the body is not gzip")
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	switch {
	case err != nil:
		c.refuse(w, "the body cannot be read")
		return
	case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf":
		c.refuse(w, "neither POST nor protobuf: "+r.Method+" "+r.Header.Get("Content-Type"))
		return
	}
	decode := func(m proto.Message) bool {
		if err := proto.Unmarshal(b, m); err != nil {
			c.refuse(w, err.Error())
			return false
		}
		return true
	}
	switch r.URL.Path {
	case "/v1/traces":
		m := &trace.TracesData{}
		if decode(m) {
			c.mu.Lock()
			c.traces = append(c.traces, m)
			c.mu.Unlock()
		}
	case "/v1/metrics":
		m := &metric.MetricsData{}
		if decode(m) {
			c.mu.Lock()
			c.metrics = append(c.metrics, m)
			c.mu.Unlock()
		}
	default:
		c.refuse(w, "no such path: "+r.URL.Path)
	}
}

func (c *Collector) refuse(w http.ResponseWriter, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, why)
	http.Error(w, why, http.StatusBadRequest)
}

func (c *Collector) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Until waits for an export after which done holds, or for the test's end.
func (c *Collector) Until(t testing.TB, done func() bool) {
	t.Helper()
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if done() {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("the exports that were waited for did not come")
		}
	}
}

// Spans are all spans so far.
func (c *Collector) Spans() []*trace.Span {
	var out []*trace.Span
	for _, r := range c.Traces() {
		for _, rs := range r.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				out = append(out, ss.GetSpans()...)
			}
		}
	}
	return out
}

// Metric is the newest export of the metric of that name; nil if there is none.
func (c *Collector) Metric(name string) *metric.Metric {
	var out *metric.Metric
	for _, r := range c.Metrics() {
		for _, rm := range r.GetResourceMetrics() {
			for _, sm := range rm.GetScopeMetrics() {
				for _, m := range sm.GetMetrics() {
					if m.GetName() == name {
						out = m
					}
				}
			}
		}
	}
	return out
}

// Traces are the requests for spans.
func (c *Collector) Traces() []*trace.TracesData {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*trace.TracesData(nil), c.traces...)
}

// Metrics are the requests for metrics.
func (c *Collector) Metrics() []*metric.MetricsData {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*metric.MetricsData(nil), c.metrics...)
}

// Headers are those of all requests.
func (c *Collector) Headers() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]http.Header(nil), c.headers...)
}

// Problems are what a sender has done wrong.
func (c *Collector) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.problems...)
}
