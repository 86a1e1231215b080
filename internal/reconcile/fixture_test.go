package reconcile_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/reconcile/portstest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	machineTag      = "ab12cd"
	machineProvider = "https://dev.azure.com/"
)

// fixture is the machine over an Azure in memory, in virtual time: tests run it inside
// a synctest bubble.
type fixture struct {
	*testing.T
	world *portstest.World
	r     *reconcile.Reconciler
	specs []rotation.Spec
	log   strings.Builder
	swept time.Time // the last sweep
	// identities are those of the manifest; nil: those of the specs.
	identities []string
	// refused are entries that are not in force.
	refused []string
}

// agents is an entry of the manifest.
func agents() rotation.Spec {
	return rotation.Spec{Name: "jenkins-agents", Identity: "build-bot", Organization: "contoso",
		DisplayName: "Jenkins agents", Scopes: []string{"vso.build_execute"}, Lifetime: 30 * rotation.Day,
		RotateBefore: 10 * rotation.Day, Overlap: rotation.Day}
}

func newFixture(t *testing.T, specs ...rotation.Spec) *fixture {
	t.Helper()
	f := &fixture{T: t, world: portstest.New(time.Now), specs: specs}
	f.restart()
	return f
}

// restart is a new process: nothing is remembered.
func (f *fixture) restart() {
	f.r = reconcile.NewReconciler(reconcile.Config{
		Spec: func(name string) (rotation.Spec, bool) {
			i := slices.IndexFunc(f.specs, func(s rotation.Spec) bool { return s.Name == name })
			if i < 0 {
				return rotation.Spec{}, false
			}
			return f.specs[i], true
		},
		Specs: func() []rotation.Spec { return f.specs },
		Vault: f.world, Tokens: f.world, Outbox: f.world, Identities: f.world,
		IdentityNames:   func() []string { return f.identities },
		Refused:         f.refused,
		VaultTag:        machineTag,
		ProviderAddress: func(o string) string { return machineProvider + o },
		Organization:    func(a string) string { return strings.TrimPrefix(a, machineProvider) },
		Now:             time.Now,
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-time.After(d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		Random: func() float64 { return 0.5 },
		Log:    slog.New(slog.NewTextHandler(&f.log, nil)),
	})
}

// check has one PAT reconciled without an order.
func (f *fixture) check(name string) {
	f.Helper()
	f.reconcile(rotation.Command{PAT: name, Reason: rotation.Check})
}

func (f *fixture) reconcile(c rotation.Command) {
	f.Helper()
	err := f.r.Reconcile(f.Context(), c)
	if err != nil {
		f.Fatalf("reconcile of %s: %v", c.PAT, err)
	}
}

// sweep sweeps as the timer does, and works on what it sends.
func (f *fixture) sweep() rotation.Plan {
	f.Helper()
	plan, _ := f.r.Sweep(f.Context(), f.swept, "timer")
	f.swept = time.Now()
	f.pass(time.Second)
	return plan
}

// pass lets time go by; each command in the queue is worked on when it is due.
func (f *fixture) pass(d time.Duration) {
	f.Helper()
	end := time.Now().Add(d)
	for {
		c, ok := f.world.Take(end)
		if !ok {
			break
		}
		time.Sleep(time.Until(c.At))
		if c.IsSweep() {
			_, _ = f.r.SweepAgain(f.Context(), c, f.swept)
			f.swept = time.Now()
			continue
		}
		f.reconcile(c)
	}
	time.Sleep(time.Until(end))
}

// latest is the secret's latest version; the test ends if there is none.
func (f *fixture) latest(name string) rotation.Version {
	f.Helper()
	v, ok := f.world.Latest(name)
	if !ok {
		f.Fatalf("the vault has no secret %s", name)
	}
	return v
}

// holds checks that the latest version's PAT works, and gives that PAT.
func (f *fixture) holds(name string) *portstest.PAT {
	f.Helper()
	v := f.latest(name)
	for _, p := range f.world.PATs() {
		if p.Value == v.Value.Trimmed().Reveal() {
			if !p.Works(time.Now()) {
				f.Errorf("%s: the latest version holds %s, which is dead", name, p.AuthorizationID)
			}
			return p
		}
	}
	f.Fatalf("%s: the latest version holds no PAT that ever was", name)
	return nil
}

// published gives the events of one type.
func published[E rotation.Event](f *fixture) []E {
	var out []E
	for _, e := range f.world.Events() {
		if x, ok := e.(E); ok {
			out = append(out, x)
		}
	}
	return out
}

// want compares one value.
func want[V comparable](f *fixture, what string, got, want V) {
	f.Helper()
	if got != want {
		f.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// refuse makes the calls that begin with prefix fail, until told otherwise.
func (f *fixture) refuse(prefix string, err error) {
	synctest.Wait() // a call may still be under way
	f.world.Before = func(call string) error {
		if strings.HasPrefix(call, prefix) {
			return err
		}
		return nil
	}
}

func (f *fixture) refuseNothing() {
	synctest.Wait()
	f.world.Before, f.world.After = nil, nil
}
