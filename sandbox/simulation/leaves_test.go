package simulation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// act is what a person does by HTTP.
type act struct {
	scenario simulation.Scenario
	// halfDone says what is neither as it was nor as the act makes it; empty: nothing.
	halfDone func(w *simulation.World) string
}

// acts are all acts that change something, each after its preparation.
func acts() []act {
	replaced := func(w *simulation.World) {
		provisioned(w)
		time.Sleep(time.Hour)
		requestRotation(w, `{}`)
		w.Settle()
		time.Sleep(10 * time.Minute)
	}
	post := func(path string, body func(w *simulation.World) string) func(*simulation.World) {
		return func(w *simulation.World) { w.HTTP("POST", "/api/pats/"+name+"/"+path, body(w), nil) }
	}
	in := func(field string, d time.Duration) func(*simulation.World) string {
		return func(*simulation.World) string {
			return fmt.Sprintf(`{%q:%q}`, field, time.Now().Add(d).UTC().Format(time.RFC3339))
		}
	}
	text := func(s string) func(*simulation.World) string { return func(*simulation.World) string { return s } }
	return []act{
		{simulation.Scenario{Name: "overlap", Prepare: replaced, Act: post("overlap", in("until", 5*time.Hour))},
			endsDiffer},
		{simulation.Scenario{Name: "restore", Prepare: replaced, Act: post("restore", text(`{}`))}, endsDiffer},
		{simulation.Scenario{Name: "rotate", Prepare: replaced,
			Act: post("rotate", text(`{"revokePrevious":"now"}`))}, endsDiffer},
		{simulation.Scenario{Name: "revoke", Prepare: func(w *simulation.World) {
			provisioned(w)
			w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, unmanaged, "vso.code", time.Now().Add(9*day), false)
			time.Sleep(time.Hour)
		}, Act: func(w *simulation.World) {
			for id, display := range live(w) {
				if display == unmanaged {
					w.HTTP("DELETE", "/api/tokens/"+id, nil, nil)
				}
			}
		}}, endsDiffer},
	}
}

const unmanaged = "somebody's own"

// endsDiffer says where the vault's end of a PAT is not Azure DevOps'.
func endsDiffer(w *simulation.World) string {
	v, _ := w.Latest(name)
	for _, p := range w.Cloud.DevOps.PATs(cloud.Organization, cloud.User) {
		if d := p.ValidTo.Sub(v.Expires); p.Token == v.Value && d.Abs() > time.Minute {
			return fmt.Sprintf("the vault says that the PAT ends at %s, Azure DevOps at %s", v.Expires, p.ValidTo)
		}
	}
	return ""
}

// Whoever gives an order may leave at any point: the act runs to its end, or leaves
// nothing half done. The judge holds the rest.
func TestACallerThatLeavesAtAnyPointLeavesNothingHalfDone(t *testing.T) {
	for _, a := range acts() {
		t.Run(a.scenario.Name, func(t *testing.T) {
			t.Parallel()
			s := a.scenario
			s.Manifest, s.After = quickPAT, 15*time.Hour
			do := s.Act
			left := 0
			s.Act = func(w *simulation.World) {
				do(w)
				time.Sleep(20 * time.Minute)
				if half := a.halfDone(w); half != "" {
					t.Errorf("after %d calls: %s", left, half)
				}
			}
			res := mustHold(t, s, nil)
			for _, at := range res.Early {
				if simulation.CallerLeaves.Fits(at) {
					left++
					mustHold(t, s, simulation.Plan{at: simulation.CallerLeaves})
				}
			}
			if left == 0 {
				t.Error("no call was made")
			}
		})
	}
}
