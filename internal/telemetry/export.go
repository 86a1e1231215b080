package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// tries at one export, within its time-out.
	tries = 3
	// firstPause doubles from try to try.
	firstPause = 500 * time.Millisecond
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
	// quietFor is how long a failure to export is not told again.
	quietFor = time.Minute
)

// uploader posts one signal to its endpoint.
type uploader struct {
	// alive ends every export: the SDK goes on with its own after its end.
	alive    context.Context
	endpoint Endpoint
	client   *http.Client
	version  string
}

func newUploader(alive context.Context, e Endpoint, transport http.RoundTripper, version string) *uploader {
	return &uploader{alive: alive, endpoint: e, version: version, client: &http.Client{
		Transport: transport,
		// A redirect would take the headers' keys to somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// upload posts body, and again after what OTLP says to repeat. Its errors hold neither
// the endpoint's answer nor its address, whose query may be a key.
func (u *uploader) upload(ctx context.Context, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if u.endpoint.Gzip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(body)
		if err = errors.Join(err, z.Close()); err != nil {
			return errors.New("the export could not be compressed")
		}
		body = b.Bytes()
	}
	timeout := u.endpoint.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(u.alive, cancel)()
	for try := range tries {
		after, err := u.post(ctx, body)
		if err == nil || after < 0 || try == tries-1 {
			return err
		}
		if after == 0 {
			after = firstPause << try
			after = after/2 + rand.N(after/2)
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < after {
			return err
		}
		t := time.NewTimer(after)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
	return nil
}

// post makes one try. after is when to try again: 0 after the usual pause, less than 0
// never.
func (u *uploader) post(ctx context.Context, body []byte) (after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.endpoint.URL, bytes.NewReader(body))
	if err != nil {
		return -1, errors.New("the endpoint is no URL")
	}
	for _, h := range u.endpoint.Headers {
		req.Header.Set(h.Name, h.Value.Reveal())
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "patrol/"+u.version)
	if u.endpoint.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := u.client.Do(req)
	switch {
	case ctx.Err() != nil:
		return -1, errors.New("the collector did not answer in time")
	case err != nil:
		return 0, errors.New("the collector cannot be reached")
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		if n := rejected(answer); err == nil && n > 0 {
			return -1, fmt.Errorf("the collector did not take %d items of an export", n)
		}
		return -1, nil
	case status == http.StatusTooManyRequests || status == http.StatusBadGateway ||
		status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return time.Duration(min(max(seconds, 0), 3600)) * time.Second, fmt.Errorf("the collector answered %d", status)
	default:
		return -1, fmt.Errorf("the collector answered %d", status)
	}
}

// complaints tells of failures to export, at most once a minute.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last time.Time
}

func (c *complaints) tell(err error) {
	if err == nil {
		return
	}
	now := c.now()
	c.mu.Lock()
	quiet := !c.last.IsZero() && now.Sub(c.last) < quietFor
	if !quiet {
		c.last = now
	}
	c.mu.Unlock()
	if !quiet {
		c.log.Warn("telemetry could not be exported", "error", err.Error())
	}
}

// spanUploader exports spans. What fails is told and dropped: the SDK would print it on
// stderr, where the Functions host takes each line for an error.
type spanUploader struct {
	*uploader
	complaints *complaints
}

func (u spanUploader) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	u.complaints.tell(u.upload(ctx, encodeSpans(spans)))
	return nil
}

func (u spanUploader) Shutdown(context.Context) error {
	u.client.CloseIdleConnections()
	return nil
}

// metricUploader exports metrics, in the same way.
type metricUploader struct {
	*uploader
	complaints *complaints
	resource   *resource.Resource // as in gate
	delta      bool
}

func (u metricUploader) Temporality(k metric.InstrumentKind) metricdata.Temporality {
	if u.delta {
		return metric.DeltaTemporalitySelector(k)
	}
	return metricdata.CumulativeTemporality
}

func (u metricUploader) Aggregation(k metric.InstrumentKind) metric.Aggregation {
	return metric.DefaultAggregationSelector(k)
}

func (u metricUploader) Export(ctx context.Context, r *metricdata.ResourceMetrics) error {
	if len(r.ScopeMetrics) > 0 {
		own := metricdata.ResourceMetrics{Resource: u.resource, ScopeMetrics: r.ScopeMetrics}
		u.complaints.tell(u.upload(ctx, encodeMetrics(&own)))
	}
	return nil
}

func (u metricUploader) ForceFlush(context.Context) error { return nil }
func (u metricUploader) Shutdown(context.Context) error   { return nil }
