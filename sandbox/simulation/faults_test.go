package simulation_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

var (
	only    = flag.String("scenario", "", "the one scenario to run; empty: all")
	pairs   = flag.Bool("pairs", false, "run every pair of faults")
	sample  = flag.Int("sample", 60, "how many random pairs and triples to run")
	every   = flag.Int("every", 2, "of the single faults, each how many-th is run; 1: all")
	seedArg = flag.Uint64("seed", 0, "seed of the random sample; 0: from the clock")
)

const quickPAT = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
defaults: {lifetime: 2d, rotateBefore: 12h, overlap: 1h}
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute]
`

func provisioned(w *simulation.World) { _ = w.Sweep() }

// due is when the PAT that has just been provisioned will be replaced.
func due() time.Time {
	m, _, err := manifest.Parse("pats.yaml", []byte(quickPAT))
	if err != nil {
		panic(err)
	}
	s := m.PATs[0]
	return rotation.Due(s, time.Now(), time.Now().Add(s.Lifetime))
}

// requestRotation asks for a rotation until it is accepted, as a person would.
func requestRotation(w *simulation.World, body string) {
	for range 20 {
		if w.HTTP("POST", "/api/pats/"+name+"/rotate", body, nil) == 202 {
			return
		}
		time.Sleep(time.Minute)
	}
}

func scenarios() []simulation.Scenario {
	const rest = 27 * time.Hour
	return []simulation.Scenario{
		{Name: "provision", Manifest: quickPAT, After: rest, Act: func(w *simulation.World) { _ = w.Sweep() }},
		{Name: "rotate", Manifest: quickPAT, After: rest,
			Prepare: func(w *simulation.World) {
				provisioned(w)
				time.Sleep(time.Until(due()) - 2*time.Minute)
			},
			Act: func(w *simulation.World) {
				time.Sleep(3 * time.Minute)
				_ = w.Sweep()
			}},
		{Name: "emergency rotate", Manifest: quickPAT, After: rest,
			Prepare: func(w *simulation.World) {
				provisioned(w)
				time.Sleep(time.Hour)
			},
			Act: func(w *simulation.World) { requestRotation(w, `{"reason":"leaked","revokePrevious":"now"}`) }},
		{Name: "revoke", Manifest: quickPAT, After: rest,
			Prepare: func(w *simulation.World) {
				provisioned(w)
				time.Sleep(time.Hour)
				requestRotation(w, `{}`)
				w.Settle()
				time.Sleep(30 * time.Minute)
			},
			Act: func(*simulation.World) {}},
		{Name: "sweep", Manifest: quickPAT, After: rest,
			Prepare: func(w *simulation.World) {
				provisioned(w)
				time.Sleep(time.Hour)
			},
			Act: func(w *simulation.World) { _ = w.Sweep() }},
		{Name: "adoption", Manifest: quickPAT, After: rest,
			Prepare: func(w *simulation.World) {
				_, token := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents", "vso.build_execute",
					time.Now().Add(2*day), false)
				if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: token}); err != nil {
					panic(err)
				}
				time.Sleep(10 * time.Minute)
			},
			Act: func(w *simulation.World) { _ = w.Sweep() }},
	}
}

// all runs plans on every core and reports what does not hold.
func all(t *testing.T, s simulation.Scenario, plans []simulation.Plan) (hold, reached int) {
	t.Helper()
	run(t, s, plans, func(p simulation.Plan, res simulation.Result) {
		if res.Hit == len(p) {
			reached++
		}
		if len(res.Violations) == 0 {
			hold++
		}
	})
	return hold, reached
}

// run runs plans on every core, and has each result counted.
func run(t *testing.T, s simulation.Scenario, plans []simulation.Plan, count func(simulation.Plan,
	simulation.Result)) {
	t.Helper()
	var mu sync.Mutex
	next := 0
	t.Run(s.Name, func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					i := next
					next++
					mu.Unlock()
					if i >= len(plans) || t.Failed() && i > 50 {
						return
					}
					res := s.Run(t, plans[i])
					mu.Lock()
					count(plans[i], res)
					if len(res.Violations) > 0 {
						var text []string
						for _, v := range res.Violations {
							text = append(text, v.String())
						}
						t.Errorf("%s: %s\n  %s", s.Name, plans[i], strings.Join(text, "\n  "))
						if testing.Verbose() {
							t.Logf("the handler said:\n%s", res.Output)
						}
					}
					mu.Unlock()
				}
			})
		}
	})
}

// points are the upstream calls of a scenario without faults.
func points(t *testing.T, s simulation.Scenario) (out, early []simulation.Point) {
	t.Helper()
	t.Run(s.Name+", nothing wrong", func(t *testing.T) {
		res := s.Run(t, nil)
		for _, v := range res.Violations {
			t.Errorf("without any fault: %s\n%s", v, res.Output)
		}
		out, early = res.Points, res.Early
	})
	return out, early
}

func TestEverySingleFaultHolds(t *testing.T) {
	if raceDetector {
		t.Skip("make test runs it without the race detector, which makes it five times slower; " +
			"the random sample runs with it")
	}
	calls, total, hold, whole := 0, 0, 0, 0
	for _, s := range scenarios() {
		if *only != "" && s.Name != *only {
			continue
		}
		_, at := points(t, s)
		calls += len(at)
		plans := simulation.Singles(at)
		whole += len(plans)
		plans = each(plans, *every)
		n, reached := all(t, s, plans)
		t.Logf("%s: %d calls by %s, %d faults, %d reached, %d hold", s.Name, len(at), byGroup(at),
			len(plans), reached, n)
		total, hold = total+len(plans), hold+n
		// Concurrent calls change places now and then; but a fault that never
		// happens checks nothing.
		if reached < len(plans)*9/10 {
			t.Errorf("%s: only %d of %d faults were reached", s.Name, reached, len(plans))
		}
	}
	t.Logf("single faults: %d of %d hold (%d calls, %d modes; not every mode fits every call; each group of functions "+
		"in a process of its own; there are %d in all)", hold, total, calls, len(simulation.Modes()), whole)
}

// each takes every nth of the plans: of each call some modes, and of each mode some calls.
func each(plans []simulation.Plan, n int) (out []simulation.Plan) {
	for i := 0; i < len(plans); i += n {
		out = append(out, plans[i])
	}
	return out
}

// byGroup says how many calls each group of functions makes.
func byGroup(points []simulation.Point) string {
	n := map[string]int{}
	for _, p := range points {
		n[p.By]++
	}
	var out []string
	for _, group := range slices.Sorted(maps.Keys(n)) {
		out = append(out, fmt.Sprintf("%s %d", group, n[group]))
	}
	return strings.Join(out, ", ")
}

// isOutside reports whether a plan is outside of the promise (docs/reliability.md). A third
// crash within half an hour ends the Functions host, which Azure starts again on another
// machine: this world has one host. A purge takes away what tells two manifests apart.
func isOutside(p simulation.Plan) bool {
	has := map[simulation.Mode]int{}
	for _, m := range p {
		has[m]++
	}
	kills := has[simulation.KilledBefore] + has[simulation.KilledAfter] + has[simulation.TwoManifests]
	return kills > 2 || has[simulation.TwoManifests] > 0 && has[simulation.Purged] > 0
}

func TestRandomPairsAndTriplesOfFaultsHold(t *testing.T) {
	seed := *seedArg
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, s := range scenarios() {
		at, _ := points(t, s)
		singles := simulation.Singles(at)
		var plans []simulation.Plan
		for len(plans) < *sample/len(scenarios()) {
			p := simulation.Plan{}
			for range 2 + r.IntN(2) {
				for at, m := range singles[r.IntN(len(singles))] {
					p[at] = m
				}
			}
			if !isOutside(p) {
				plans = append(plans, p)
			}
		}
		n, reached := all(t, s, plans)
		t.Logf("%s: %d of %d random pairs and triples hold, %d were reached whole", s.Name, n, len(plans), reached)
	}
}

func TestEveryPairOfFaultsHolds(t *testing.T) {
	if !*pairs {
		t.Skip("takes long: make simulate runs it")
	}
	began := time.Now()
	calls, total, hold := 0, 0, 0
	for _, s := range scenarios() {
		if *only != "" && s.Name != *only {
			continue
		}
		_, at := points(t, s)
		calls += len(at)
		plans := simulation.Pairs(at)
		n, reached := all(t, s, plans)
		t.Logf("%s: %d calls, %d pairs, %d reached whole, %d hold", s.Name, len(at), len(plans), reached, n)
		total, hold = total+len(plans), hold+n
	}
	t.Logf("pairs of faults: %d of %d hold (%d calls, %d modes), in %s", hold, total, calls, len(simulation.Modes()),
		time.Since(began).Round(time.Second))
}
