package telemetry

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// maxNamed is up to how many PATs each has its own seconds to expiry. Above, the
	// least of them and the distribution say enough, at a fraction of the cost.
	maxNamed = 1000
	// sweepLife is how long the gauges of a sweep are reported: only one process
	// makes the sweep, and what an idle one saw days ago must not stand beside what
	// another one has seen since.
	sweepLife = 25 * time.Hour
)

// instruments are the metrics that are counted as things happen.
type instruments struct {
	rotations   metric.Int64Counter
	revocations metric.Int64Counter
	failures    metric.Int64Counter
	calls       metric.Int64Counter
	throttled   metric.Int64Counter
	sweep       metric.Float64Histogram
	age         metric.Float64Histogram
	left        metric.Float64Histogram
}

func withAttributes(as ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(as...))
}

const (
	minute = 60.
	hour   = 60 * minute
	day    = 24 * hour
)

// maker makes instruments, and keeps the errors.
type maker struct {
	metric.Meter
	errs []error
}

func (m *maker) counter(name, unit, description string) metric.Int64Counter {
	c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return c
}

func (m *maker) histogram(name, description string, bounds ...float64) metric.Float64Histogram {
	h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
		metric.WithExplicitBucketBoundaries(bounds...))
	m.errs = append(m.errs, err)
	return h
}

func (m *maker) integer(name, unit, description string) metric.Int64ObservableGauge {
	g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return g
}

func (m *maker) seconds(name, description string) metric.Float64ObservableGauge {
	g, err := m.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
	m.errs = append(m.errs, err)
	return g
}

func (t *Telemetry) instruments(meter metric.Meter) (*instruments, error) {
	m := maker{Meter: meter}
	i := &instruments{
		rotations: m.counter("patrol.rotations", "{rotation}",
			"Attempts to replace a PAT, by outcome and reason."),
		revocations: m.counter("patrol.revocations", "{revocation}",
			"PATs that have been revoked or have run out after their replacement, by cause."),
		failures: m.counter("patrol.failures", "{failure}",
			"Reconciles that did not come to rest, by step and class."),
		calls: m.counter("patrol.upstream.calls", "{call}",
			"Calls to other services, each try, by service, operation and class of the answer."),
		throttled: m.counter("patrol.upstream.throttled", "{call}",
			"Calls that a service has refused for their number."),
		sweep: m.histogram("patrol.sweep.duration",
			"How long sweeps take.",
			.1, .25, .5, 1, 2.5, 5, 10, 30, minute, 2*minute, 4*minute),
		age: m.histogram("patrol.command.age",
			"How long messages have been in their queue when work on them begins.",
			.1, .5, 1, 5, 15, minute, 5*minute, 15*minute, hour, 6*hour, day),
		left: m.histogram("patrol.pat.life_left",
			"Seconds to expiry of every managed PAT, recorded at each sweep.",
			0, hour, 6*hour, day, 3*day, 7*day, 14*day, 30*day, 60*day, 90*day, 180*day, 365*day),
	}
	pats := m.integer("patrol.pats", "{pat}", "PATs by state, as of the last sweep.")
	required := m.integer("patrol.signin.required", "1", "1 while a person must sign in as this identity.")
	expiry := m.seconds("patrol.pat.seconds_to_expiry",
		"Seconds to expiry of each managed PAT, where there are fewer than 1,000.")
	least := m.seconds("patrol.pat.seconds_to_expiry.min",
		"Seconds to expiry of the managed PAT that runs out first.")
	since := m.seconds("patrol.sweep.age", "Seconds since the last sweep of this process.")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := t.now()
		s := t.gauges.snapshot()
		for identity, is := range s.required {
			n := int64(0)
			if is {
				n = 1
			}
			o.ObserveInt64(required, n, withAttributes(attribute.String(keyIdentity, identity)))
		}
		if s.sweptAt.IsZero() || now.Sub(s.sweptAt) > sweepLife {
			return nil
		}
		o.ObserveFloat64(since, now.Sub(s.sweptAt).Seconds())
		for state, n := range s.states {
			o.ObserveInt64(pats, n, withAttributes(attribute.String(keyState, string(state))))
		}
		for _, p := range s.named {
			o.ObserveFloat64(expiry, p.expires.Sub(now).Seconds(), p.attributes)
		}
		if !s.earliest.IsZero() {
			o.ObserveFloat64(least, s.earliest.Sub(now).Seconds())
		}
		return nil
	}, pats, required, expiry, least, since)
	return i, errors.Join(append(m.errs, err)...)
}

// gauges keeps what the gauges report.
type gauges struct {
	mu   sync.Mutex
	last values
}

// values are those of the last sweep, and the sign-ins since.
type values struct {
	sweptAt  time.Time
	states   map[rotation.State]int64
	named    []expiring
	earliest time.Time
	required map[string]bool // by identity: a person must sign in
}

type expiring struct {
	expires    time.Time
	attributes metric.MeasurementOption
}

func (g *gauges) snapshot() values {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.last // the rest is replaced as a whole, never changed
	v.required = maps.Clone(v.required)
	return v
}

func (g *gauges) replace(v values) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = v
}

func (g *gauges) setSignIn(identity string, required bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last.required == nil {
		g.last.required = map[string]bool{}
	}
	g.last.required[identity] = required
}

// Observer is notified of the reconciler's work; nil if telemetry is off.
func (t *Telemetry) Observer() rotation.Observer {
	if t == nil {
		return nil
	}
	return observer{t}
}

type observer struct{ *Telemetry }

// Step puts a span around a step of the work on a PAT.
func (o observer) Step(ctx context.Context, s *rotation.Spec, step rotation.Step) (context.Context, func(error)) {
	ctx, span := o.tracer.Start(ctx, string(step))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String(keyStep, string(step)),
			attribute.String(keyPAT, s.Name),
			attribute.String(keyIdentity, s.Identity),
			attribute.String(keyOrganization, s.Organization))
	}
	return ctx, func(err error) { finish(span, err) }
}

// Rotated counts an attempt to replace a PAT.
func (o observer) Rotated(ctx context.Context, s *rotation.Spec, reason rotation.Reason, err error) {
	as := []attribute.KeyValue{
		attribute.String(keyReason, string(reason)),
		attribute.String(keyOutcome, outcome(err)),
	}
	if err != nil {
		as = append(as, attribute.String(keyErrorType, string(rotation.ClassOf(err))))
	}
	o.metrics.rotations.Add(ctx, 1, withAttributes(as...))
}

// Revoked counts a revocation.
func (o observer) Revoked(ctx context.Context, s *rotation.Spec, cause rotation.RevocationCause) {
	o.metrics.revocations.Add(ctx, 1, withAttributes(attribute.String(keyCause, string(cause))))
}

// Failed counts a reconcile that did not come to rest.
func (o observer) Failed(ctx context.Context, s *rotation.Spec, f rotation.Failure) {
	o.metrics.failures.Add(ctx, 1, withAttributes(
		attribute.String(keyStep, string(f.Step)),
		attribute.String(keyErrorType, string(f.Class))))
	if f.Class == rotation.SignIn && s.Identity != "" {
		o.gauges.setSignIn(s.Identity, true)
	}
}

// Sweep puts a span around a sweep, and takes from its plan what the gauges show.
func (o observer) Sweep(ctx context.Context) (context.Context, func(*rotation.Plan, error)) {
	start := o.now()
	ctx, span := o.tracer.Start(ctx, "sweep")
	return ctx, func(p *rotation.Plan, err error) {
		took := o.now().Sub(start)
		o.metrics.sweep.Record(ctx, took.Seconds(), withAttributes(attribute.String(keyOutcome, outcome(err))))
		o.recordPlan(ctx, p)
		span.SetAttributes(
			attribute.Int(keyManaged, len(p.Items)),
			attribute.Int(keyUnmanaged, len(p.Unmanaged)),
			attribute.Int(keyProblems, len(p.Problems)))
		finish(span, err)
	}
}

func outcome(err error) string {
	if err != nil {
		return "failure"
	}
	return "success"
}

// recordPlan takes over what a sweep has found.
func (o observer) recordPlan(ctx context.Context, p *rotation.Plan) {
	next := values{sweptAt: p.At, required: map[string]bool{}, states: map[rotation.State]int64{
		// A state that no PAT is in is reported, too: 0 can be compared, silence cannot.
		rotation.StateMissing:   0,
		rotation.StateCurrent:   0,
		rotation.StateDue:       0,
		rotation.StatePostponed: 0,
		rotation.StateBlocked:   0,
		rotation.StateUnknown:   0,
		rotation.StateReleased:  int64(len(p.Released)),
		rotation.StateOther:     int64(len(p.Unmanaged)),
	}}
	for i := range p.Items {
		it := &p.Items[i]
		next.states[it.State]++
		next.required[it.Spec.Identity] = false
		if it.Current == nil || it.Current.Expires.IsZero() {
			continue
		}
		end := it.Current.Expires
		o.metrics.left.Record(ctx, end.Sub(p.At).Seconds())
		if next.earliest.IsZero() || end.Before(next.earliest) {
			next.earliest = end
		}
		if len(p.Items) < maxNamed {
			next.named = append(next.named, expiring{end, withAttributes(
				attribute.String(keyPAT, it.Spec.Name),
				attribute.String(keyOrganization, it.Spec.Organization))})
		}
	}
	for _, q := range p.Problems {
		if q.Identity != "" && rotation.ClassOf(q.Err) == rotation.SignIn {
			next.required[q.Identity] = true
		}
	}
	o.gauges.replace(next)
}

// Notify takes note of sign-ins on their way to publish.
func (t *Telemetry) Notify(
	publish func(context.Context, rotation.Event) error,
) func(context.Context, rotation.Event) error {
	if t == nil {
		return publish
	}
	return func(ctx context.Context, e rotation.Event) error {
		switch e := e.(type) {
		case *rotation.SignedIn:
			t.gauges.setSignIn(e.Identity, false)
		case *rotation.SignInRequired:
			t.gauges.setSignIn(e.Identity, true)
		}
		return publish(ctx, e)
	}
}
