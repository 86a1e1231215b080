package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/telemetry"
)

// sweep makes one that takes three seconds and ends with p.
func sweep(t *testing.T, tel *telemetry.Telemetry, p rotation.Plan, err error) {
	t.Helper()
	_, done := tel.Observer().Sweep(t.Context())
	time.Sleep(3 * time.Second)
	done(&p, err)
}

// item is a managed PAT that expires after left; 0: it does not exist yet.
func item(name, identity string, s rotation.State, left time.Duration) rotation.Item {
	it := rotation.Item{
		Spec:  rotation.Spec{Name: name, Identity: identity, Organization: "contoso"},
		State: s,
	}
	if left > 0 {
		it.Current = &rotation.Version{Expires: time.Now().Add(left)}
	}
	return it
}

// required is what is reported of an identity: 1 while a person must sign in.
func required(m map[string]metricdata.Metrics, identity string) float64 {
	return level(m, "patrol.signin.required", "patrol.identity", identity)
}

func observed(t *testing.T, test func(t *testing.T, tel *telemetry.Telemetry, reader *sdkmetric.ManualReader)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, _, reader := outside(t)
		tel := telemetry.New(telemetry.Config{}, o)
		test(t, tel, reader)
		closeIt(t, tel)
	})
}

func TestGaugesShowTheLastSweep(t *testing.T) {
	observed(t, func(t *testing.T, tel *telemetry.Telemetry, reader *sdkmetric.ManualReader) {
		sweep(t, tel, rotation.Plan{
			At: time.Now(),
			Items: []rotation.Item{
				item("a", "bot", rotation.StateCurrent, 48*time.Hour),
				item("b", "bot", rotation.StateDue, time.Hour),
				item("c", "other", rotation.StateMissing, 0),
			},
			Unmanaged: make([]rotation.Unmanaged, 2),
			Problems:  []rotation.Unobserved{{Identity: "other", Err: &rotation.Error{Class: rotation.SignIn}}},
		}, errors.New("c4n4ry"))
		m := collect(t, reader)
		for state, want := range map[string]float64{
			"current": 1, "due": 1, "missing": 1, "unmanaged": 2, "blocked": 0, "released": 0, "unknown": 0,
		} {
			equal(t, "PATs that are "+state, level(m, "patrol.pats", "patrol.state", state), want)
		}
		equal(t, "seconds to expiry of b", level(m, "patrol.pat.seconds_to_expiry", "patrol.pat", "b"), 3597)
		equal(t, "the least seconds to expiry", level(m, "patrol.pat.seconds_to_expiry.min"), 3597)
		equal(t, "sign-in of other", required(m, "other"), 1)
		equal(t, "sign-in of bot", required(m, "bot"), 0)
		took := m["patrol.sweep.duration"]
		equal(t, "the sweep's duration", took.Data.(metricdata.Histogram[float64]).DataPoints[0].Sum, 3)
		equal(t, "its unit", took.Unit, "s")

		// A process that has not swept for a day reports nothing of it.
		time.Sleep(26 * time.Hour)
		if _, there := collect(t, reader)["patrol.pats"]; there {
			t.Error("an old sweep is still reported")
		}
	})
}

func TestSignInsShowAtOnce(t *testing.T) {
	observed(t, func(t *testing.T, tel *telemetry.Telemetry, reader *sdkmetric.ManualReader) {
		publish := tel.Notify(func(context.Context, rotation.Event) error { return nil })
		send := func(e rotation.Event) {
			t.Helper()
			if err := publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		send(&rotation.SignInRequired{Identity: "other"})
		equal(t, "sign-in of other, required", required(collect(t, reader), "other"), 1)
		send(&rotation.SignedIn{Identity: "other"})
		equal(t, "sign-in of other, made", required(collect(t, reader), "other"), 0)

		// And so does one that a reconcile finds lost.
		spec := &rotation.Spec{Name: "a", Identity: "bot"}
		tel.Observer().Failed(t.Context(), spec, rotation.Failure{Class: rotation.SignIn, Step: "observe"})
		equal(t, "sign-in of bot", required(collect(t, reader), "bot"), 1)
	})
}

func TestAFleetOfAThousandHasNoGaugeForEach(t *testing.T) {
	observed(t, func(t *testing.T, tel *telemetry.Telemetry, reader *sdkmetric.ManualReader) {
		var fleet []rotation.Item
		for i := range 1000 {
			left := time.Duration(i+10) * time.Hour
			fleet = append(fleet, item(fmt.Sprint("p", i), "bot", rotation.StateCurrent, left))
		}
		sweep(t, tel, rotation.Plan{At: time.Now(), Items: fleet}, nil)
		m := collect(t, reader)
		if _, there := m["patrol.pat.seconds_to_expiry"]; there {
			t.Error("a thousand PATs have a gauge each")
		}
		equal(t, "the least seconds to expiry", level(m, "patrol.pat.seconds_to_expiry.min"), 10*3600-3)
		lives := m["patrol.pat.life_left"].Data.(metricdata.Histogram[float64])
		equal(t, "lives in the distribution", lives.DataPoints[0].Count, 1000)
		equal(t, "the sweep's age", level(m, "patrol.sweep.age"), 3)
	})
}
