package simulation_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/simulation"
)

var (
	everyHand = flag.Bool("hands", false, "do every hand at every step, and more samples; SHARD=3/16 takes a part")
	oneHand   = flag.String("hand", "", "hands at steps whose names contain this; empty: all")
	handSteps = flag.Int("steps", 6, "at how many steps each hand is done")
)

// shortPAT comes due between two sweeps.
const shortPAT = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
defaults: {lifetime: 24h, rotateBefore: 2h, overlap: 1h}
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute]
`

// dueBetweenSweeps is a story in which no sweep comes between the time when a PAT is due and
// its end.
func dueBetweenSweeps() simulation.Scenario {
	return simulation.Scenario{Name: "due between two sweeps", Manifest: shortPAT, After: 30 * time.Hour,
		Prepare: func(w *simulation.World) {
			time.Sleep(2 * time.Hour)
			provisioned(w)
			time.Sleep(18 * time.Hour)
		},
		Act: func(*simulation.World) {}}
}

// handled are the stories in which hands are at work. In those that rotate while a hand is
// at work a few steps are known to fail (docs/reliability.md): make test leaves them to
// make hands.
func handled() []simulation.Scenario {
	if *everyHand {
		return append(scenarios(), dueBetweenSweeps())
	}
	isQuiet := func(s simulation.Scenario) bool {
		return s.Name == "provision" || s.Name == "sweep" || s.Name == "adoption"
	}
	return slices.DeleteFunc(scenarios(), func(s simulation.Scenario) bool { return !isQuiet(s) })
}

// deed is a hand at a step of a story.
type deed struct {
	story simulation.Scenario
	plan  simulation.Plan
}

// deeds are all hands at all steps, and how many steps there are.
func deeds(t *testing.T) (all []deed, steps int) {
	for _, s := range handled() {
		if *only != "" && s.Name != *only {
			continue
		}
		_, at := points(t, s)
		steps += len(at)
		for _, p := range at {
			for _, h := range simulation.Hands() {
				d := deed{s, simulation.Plan{p: h.Name}}
				if strings.Contains(d.plan.String(), *oneHand) {
					all = append(all, d)
				}
			}
		}
	}
	return all, steps
}

// some takes every nth of the deeds, so that all hands and all steps have their turn.
func some(all []deed, n int) (out []deed) {
	if n >= len(all) {
		return all
	}
	for i := range n {
		out = append(out, all[i*len(all)/n])
	}
	return out
}

// shard is the part of the deeds that SHARD names: 3/16 is the third of sixteen.
func shard(t *testing.T, all []deed) (out []deed) {
	text := os.Getenv("SHARD")
	if text == "" {
		return all
	}
	var i, n int
	_, err := fmt.Sscanf(text, "%d/%d", &i, &n)
	if err != nil || i < 1 || i > n {
		t.Fatalf("SHARD is %q, want a part of a number like 3/16", text)
	}
	for at, d := range all {
		if at%n == i-1 {
			out = append(out, d)
		}
	}
	return out
}

// hold runs deeds story by story, and counts those in which the hands found something to do.
func hold(t *testing.T, ds []deed) (hold, acted int) {
	t.Helper()
	byStory := map[string][]simulation.Plan{}
	for _, d := range ds {
		byStory[d.story.Name] = append(byStory[d.story.Name], d.plan)
	}
	for _, s := range handled() {
		if len(byStory[s.Name]) == 0 {
			continue
		}
		run(t, s, byStory[s.Name], func(_ simulation.Plan, res simulation.Result) {
			if res.Acted == 0 {
				return
			}
			acted++
			if len(res.Violations) == 0 {
				hold++
			}
		})
	}
	return hold, acted
}

func TestNoHandMakesPatrolBreakAPromise(t *testing.T) {
	if raceDetector && !*everyHand {
		t.Skip("make test runs it without the race detector; the random sample runs with it")
	}
	all, steps := deeds(t)
	hands := len(simulation.Hands())
	ds := shard(t, all)
	if !*everyHand {
		ds = some(all, hands*(*handSteps))
	}
	n, acted := hold(t, ds)
	t.Logf("hands: %d of %d hold (%d hands, %d steps); %d of all %d, in %d of them the hand found nothing to do",
		n, acted, hands, steps, len(ds), len(all), len(ds)-acted)
}

// Hands meet faults, and each other.
func TestRandomHandsWithFaultsAndTriplesHold(t *testing.T) {
	seed := cmp.Or(*seedArg, uint64(20261129))
	n := *sample / 3
	if *everyHand {
		n = 100 * *sample
	}
	t.Logf("seed %d: repeat with -seed", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	hands := simulation.Hands()
	var ds []deed
	early := map[string][]simulation.Point{}
	stories := handled()
	for len(ds) < n {
		s := stories[r.IntN(len(stories))]
		if early[s.Name] == nil {
			_, early[s.Name] = points(t, s)
		}
		at := early[s.Name]
		plan := simulation.Plan{at[r.IntN(len(at))]: hands[r.IntN(len(hands))].Name}
		singles := simulation.Singles(at)
		for range 1 + len(ds)%2 {
			other := singles[r.IntN(len(singles))]
			if len(ds)%4 == 3 {
				other = simulation.Plan{at[r.IntN(len(at))]: hands[r.IntN(len(hands))].Name}
			}
			for p, m := range other {
				plan[p] = m
			}
		}
		if !isOutside(plan) && len(plan) > 1 {
			ds = append(ds, deed{s, plan})
		}
	}
	slices.SortStableFunc(ds, func(a, b deed) int { return strings.Compare(a.story.Name, b.story.Name) })
	held, acted := hold(t, shard(t, ds))
	t.Logf("hands with faults, and triples: %d of %d hold", held, acted)
}
