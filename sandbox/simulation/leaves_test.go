package simulation_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	pages "github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
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
		{simulation.Scenario{Name: "extend", Prepare: replaced, Act: post("extend", in("validTo", 3*day))}, endsDiffer},
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

// codeTaken is how the authority takes the code that a sign-in comes back with.
const codeTaken = "token authorization_code"

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

// The callback stores a sign-in once the authority has taken its code: a tab that is closed
// must not lose it.
func TestASignInWhoseTabIsClosedIsStoredWholeOrNotAtAll(t *testing.T) {
	for n := 1; ; n++ {
		calls := 0
		withoutSignIn(t, func(t *testing.T, w *simulation.World) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, pages.Person{User: cloud.User})
			taken := w.Cloud.Injector.Count("entra", codeTaken)
			w.Cloud.Injector.OnCallBy(func(by string, _ faults.Call) *faults.Fault {
				if !strings.HasPrefix(by, "http#") {
					return nil
				}
				calls++
				if calls != n {
					return nil
				}
				w.Leave()
				return &faults.Fault{Mode: faults.Slow, Delay: time.Second}
			})
			ctx, answered := w.Caller()
			defer answered()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.back.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := k.patrol.Do(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			time.Sleep(2 * time.Minute)
			w.Cloud.Injector.OnCallBy(nil)
			isTaken := w.Cloud.Injector.Count("entra", codeTaken) > taken
			if _, isStored := w.Latest("patrol-identity-build-bot"); isTaken != isStored {
				t.Errorf("left at call %d: the code was taken %t, the sign-in is stored %t", n, isTaken, isStored)
			}
		})
		if calls < n {
			break
		}
	}
}
