package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// again is what to do about a difference.
const again = "if this is meant to be so, record it anew with: go run ./bench -record"

func TestCountersHold(t *testing.T) {
	got := counters{Calls: calls(t), RoundTrips: roundTrips(t)}
	if !raceDetector {
		got.Allocations = allocations(t)
	}
	if t.Failed() {
		return
	}
	if *recording {
		if raceDetector {
			t.Fatal("allocations cannot be counted with the race detector")
		}
		text, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("recorded.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := recorded()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range compare(want, got) {
		t.Error(p)
	}
	if t.Failed() {
		t.Log(again)
	}
	for phase, bar := range map[string]float64{"rotation": 7, "revocation": 4} {
		all, shared := 0, 0
		for what, k := range got.Calls[phase] {
			if strings.HasSuffix(what, devops.ListPats) || strings.HasPrefix(what, "entra ") {
				shared += k
			} else {
				all += k
			}
		}
		report(t, result{Name: "upstream calls and sends of a " + phase, Value: float64(all) / fleetSize, Unit: "calls",
			Bar:  bar,
			Note: fmt.Sprintf("and %d shared by %d PATs", shared, fleetSize)})
	}
	for what, n := range got.Allocations {
		report(t, result{Name: "allocations of " + what, Value: float64(n), Unit: "allocs",
			Bar: float64(want.Allocations[what])})
	}
}

// What the comparison is there for: one call or one allocation more does not pass.
func TestAPlantedCallOrAllocationIsFound(t *testing.T) {
	want := counters{
		Calls:       map[string]map[string]int{"rotation": {"keyvault GetSecret": 20}},
		RoundTrips:  map[string]int{"rotation, warm": 4},
		Allocations: map[string]int{"decoding": 20},
	}
	with := func(change func(*counters)) counters {
		c := counters{Calls: map[string]map[string]int{"rotation": maps.Clone(want.Calls["rotation"])},
			RoundTrips: maps.Clone(want.RoundTrips), Allocations: maps.Clone(want.Allocations)}
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		got  counters
		want string
	}{
		"as recorded": {with(func(*counters) {}), ""},
		"a call more": {with(func(c *counters) { c.Calls["rotation"]["keyvault GetSecret"]++ }),
			"upstream calls of rotation: keyvault GetSecret: 21, recorded are 20"},
		"a call less": {with(func(c *counters) { c.Calls["rotation"]["keyvault GetSecret"]-- }),
			"upstream calls of rotation: keyvault GetSecret: 19, recorded are 20"},
		"another kind of call": {with(func(c *counters) { c.Calls["rotation"]["devops GetPat"] = 1 }),
			"upstream calls of rotation: devops GetPat: 1, recorded are 0"},
		"a phase not measured": {with(func(c *counters) { delete(c.Calls, "rotation") }),
			"upstream calls of rotation: keyvault GetSecret: 0, recorded are 20"},
		"a round trip more": {with(func(c *counters) { c.RoundTrips["rotation, warm"]++ }),
			"round trips: rotation, warm: 5, recorded are 4"},
		"an allocation more": {with(func(c *counters) { c.Allocations["decoding"]++ }),
			"allocations: decoding: 21, recorded are 20"},
		"an allocation less": {with(func(c *counters) { c.Allocations["decoding"]-- }), ""},
		"allocations not known": {with(func(c *counters) { c.Allocations["another"] = 1 }),
			"allocations: another: none are recorded"},
		"no allocations counted": {with(func(c *counters) { c.Allocations = nil }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(compare(want, c.got), "; "); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestTheExponentOfALineIsOne(t *testing.T) {
	for _, c := range []struct{ power, want float64 }{{1, 1}, {2, 2}} {
		xs, ys := []float64{100, 1000, 10000}, []float64(nil)
		for _, x := range xs {
			y := 3.0
			for range int(c.power) {
				y *= x
			}
			ys = append(ys, y)
		}
		if got := exponent(xs, ys); got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// calls are the upstream calls of a rotation, a revocation and a sweep. What the host
// itself asks of Service Bus is not among them.
func calls(t *testing.T) map[string]map[string]int {
	t.Helper()
	out := map[string]map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		f := fleet{pats: 260, identities: 1} // three pages of PATs, eleven of secrets
		w := simulation.New(t, simulation.Config{Manifest: f.manifest(), Schedule: "0 0 0 1 1 *", Sessions: 16,
			OneProcess: true,
			Cloud:      func(c *cloud.Config) { c.Vault = func(v *keyvault.Config) { v.NoThrottle = true } }})
		defer w.Close()
		w.Cloud.AddUser(f.user(0))
		if err := w.Cloud.SignIn(f.identity(0), f.user(0)); err != nil {
			t.Fatal(err)
		}
		ids, err := f.provision(w.Cloud)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := w.Sweep(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		phase := func(name string, act func()) {
			w.Cloud.Injector.ResetCounts()
			act()
			out[name] = map[string]int{}
			for c, n := range w.Cloud.Injector.Counts() {
				sends := strings.HasPrefix(c.Operation, "send "+cloud.EventTopic) ||
					strings.HasPrefix(c.Operation, "schedule")
				if c.Service == "identity" || c.Service == "servicebus" && !sends {
					continue
				}
				out[name][c.Service+" "+c.Operation] = n
			}
		}
		phase("rotation", func() {
			for i := range fleetSize {
				w.Command(f.name(i), fmt.Sprintf(`{"command":"reconcile","pat":%q,"reason":"requested","from":%q}`,
					f.name(i), ids[i]))
			}
			w.Settle()
		})
		time.Sleep(23*time.Hour + 50*time.Minute)
		synctest.Wait()
		phase("revocation", func() {
			time.Sleep(20 * time.Minute)
			synctest.Wait()
		})
		time.Sleep(30 * time.Hour)
		synctest.Wait()
		if err := w.Sweep(); err != nil { // the daily proofs are done with it
			t.Error(err)
		}
		w.Settle()
		time.Sleep(time.Minute)
		phase("sweep of 260 PATs that need nothing", func() {
			if err := w.Sweep(); err != nil {
				t.Error(err)
			}
		})
	})
	return out
}

// allocations are those of the code that runs for every message.
func allocations(t *testing.T) map[string]int {
	t.Helper()
	const rounds = 200
	out := map[string]int{}

	mux := customhandler.New(customhandler.Config{})
	mux.HandleServiceBus("Reconcile", func(context.Context, customhandler.Message) error { return nil })
	body := []byte(orderEnvelope(1, "team-000001-agents", "0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e"))
	r := httptest.NewRequest(http.MethodPost, "/Reconcile", nil)
	r.Header.Set("Content-Type", "application/json")
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(nil)
	out["an invocation, without its work: decoded and answered"] = int(testing.AllocsPerRun(rounds, func() {
		reader.Reset(body)
		r.Body = readCloser{reader}
		clear(w.header)
		mux.ServeHTTP(w, r)
		if w.status != 0 {
			t.Fatalf("answered %d", w.status)
		}
	}))

	rec := still()
	out["a reconcile that finds nothing to do, without its calls"] = int(testing.AllocsPerRun(rounds, func() {
		if err := rec.Reconcile(t.Context(), rotation.Command{PAT: "team-000001-agents",
			Reason: rotation.Check}); err != nil {
			t.Fatal(err)
		}
	}))
	return out
}

// discard is a ResponseWriter without memory; status is 0 as long as it is 200.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int) {
	if status != http.StatusOK {
		d.status = status
	}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// still is a Reconciler over services that answer at once and have nothing new.
func still() *reconcile.Reconciler {
	now := time.Date(2026, 11, 3, 7, 0, 0, 0, time.UTC)
	s := rotation.Spec{Name: "team-000001-agents", Identity: "bot-00", Organization: "contoso",
		DisplayName: "Team 000001 agents",
		Scopes:      []string{"vso.code"}, Lifetime: lifetime, RotateBefore: lifetime / 3, Overlap: rotation.Day}
	const provider = "https://dev.azure.com/contoso"
	pat := rotation.PAT{AuthorizationID: "0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e", DisplayName: s.DisplayName,
		Scopes:    s.Scopes,
		ValidFrom: now.Add(-rotation.Day), ValidTo: now.Add(29 * rotation.Day)}
	v := rotation.Version{Name: s.Name, ID: "0123456789abcdef0123456789abcdef", Enabled: true, Created: pat.ValidFrom,
		Expires: pat.ValidTo,
		Ledger: rotation.Ledger{AuthorizationID: pat.AuthorizationID, ProviderAddress: provider,
			RotationID: "abcdefghij", Identity: s.Identity, AnnouncedAt: pat.ValidFrom}}
	return reconcile.NewReconciler(reconcile.Config{
		Spec:  func(string) (rotation.Spec, bool) { return s, true },
		Specs: func() []rotation.Spec { return []rotation.Spec{s} },
		Vault: stillVault{current: v}, Tokens: stillTokens{pats: []rotation.PAT{pat}}, VaultTag: "abcdef",
		ProviderAddress: func(string) string { return provider },
		Organization:    func(string) string { return "contoso" },
		Now:             func() time.Time { return now }, Random: func() float64 { return 0 },
	})
}

type stillVault struct {
	rotation.Vault
	current rotation.Version
}

func (v stillVault) Current(context.Context, string) (rotation.Version, error) { return v.current, nil }
func (v stillVault) Secrets(context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) { yield(v.current, nil) }
}

type stillTokens struct {
	rotation.Tokens
	pats []rotation.PAT
}

func (s stillTokens) List(context.Context, rotation.Owner) ([]rotation.PAT, error) {
	return s.pats, nil
}

func BenchmarkInvocationInTheHandlerAlone(b *testing.B) {
	mux := customhandler.New(customhandler.Config{})
	mux.HandleServiceBus("Reconcile", func(context.Context, customhandler.Message) error { return nil })
	body := []byte(orderEnvelope(1, "team-000001-agents", "0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e"))
	w := &discard{header: http.Header{}}
	reader := bytes.NewReader(nil)
	r := httptest.NewRequest(http.MethodPost, "/Reconcile", nil)
	r.Header.Set("Content-Type", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		r.Body = readCloser{reader}
		clear(w.header)
		mux.ServeHTTP(w, r)
	}
}

func BenchmarkReconcileInTheHandlerAlone(b *testing.B) {
	rec := still()
	b.ReportAllocs()
	for b.Loop() {
		if err := rec.Reconcile(b.Context(), rotation.Command{PAT: "team-000001-agents",
			Reason: rotation.Check}); err != nil {
			b.Fatal(err)
		}
	}
}
