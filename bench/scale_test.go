package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// A fleet that is due at once, on several instances of the app with a Functions host
// each, and an Azure DevOps that throttles each identity.
const (
	scaleIdentities = 2
	// an instance's; few, so that the instances and not the throttle are what there is too little of
	scaleSessions = 2
	scaleBudget   = 200.0
	scaleTrip     = 200 * time.Millisecond
)

// scaled is what came of one number of instances.
type scaled struct {
	instances, pats int
	took            time.Duration // until the last PAT was new
	limit           time.Duration // no client can be faster
	postponed       int           // commands
	failed          int           // steps
	counts          map[faults.Call]int
}

// windows is how many times the budget the fleet needs.
func scaleOut(t *testing.T, instances, pats int, windows float64) (out scaled) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := fleet{pats: pats, identities: scaleIdentities}
		w := simulation.New(t, simulation.Config{Manifest: f.manifest(), Schedule: "0 0 0 1 1 *",
			Sessions: scaleSessions, Hosts: instances, OneProcess: true,
			Cloud: func(c *cloud.Config) { c.Vault = func(v *keyvault.Config) { v.NoThrottle = true } }})
		defer w.Close()
		for i := range f.identities {
			w.Cloud.AddUser(f.user(i))
			if err := w.Cloud.SignIn(f.identity(i), f.user(i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.provision(w.Cloud); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * 24 * time.Hour)
		synctest.Wait()

		perWindow := float64(pats) / scaleIdentities / windows
		cost := scaleBudget / (2 * perWindow)
		w.Cloud.DevOps.Switch(func(s *devops.Switches) {
			s.Throttle = devops.Throttle{Cost: cost,
				Budget: scaleBudget}
		})
		w.Cloud.Injector.OnCall(func(_ int, c faults.Call) *faults.Fault {
			if c.Service == "servicebus" {
				return nil // its links are opened under a lock of the SDK
			}
			return &faults.Fault{Mode: faults.Slow, Delay: scaleTrip}
		})
		w.Cloud.Injector.ResetCounts()
		began := time.Now()
		if err := w.Hosts[0].Invoke(t.Context(), "CheckExpiry", ""); err != nil {
			t.Fatal(err)
		}
		var last time.Time
		left := map[string]bool{}
		for i := range f.pats {
			left[f.name(i)] = true
		}
		for len(left) > 0 && time.Since(began) < 12*time.Hour {
			time.Sleep(30 * time.Second)
			for name := range left {
				if vs := w.Cloud.Vault.Versions(name); len(vs) > 1 {
					delete(left, name)
					if vs[1].Created.After(last) {
						last = vs[1].Created
					}
				}
			}
		}
		if len(left) > 0 {
			t.Fatalf("%d instances: %d of %d PATs are not new after 12 hours", instances, len(left), pats)
		}
		out = scaled{instances: instances, pats: pats, took: last.Sub(began), counts: w.Cloud.Injector.Counts(),
			postponed: strings.Count(w.Output(), postponedLine), failed: strings.Count(w.Output(), "step failed")}
		// Who heeds what Azure DevOps asks for gets the budget once at the start, and
		// then once in each window.
		out.limit = time.Duration(float64(pats/scaleIdentities-1)/perWindow) * 5 * time.Minute
	})
	return out
}

// postponedLine is the handler's log line about a command that waits for the throttle.
const postponedLine = "Azure DevOps throttles the identity: the command is postponed"

func TestThroughputGrowsWithInstancesUpToTheThrottle(t *testing.T) {
	type situation struct {
		instances int
		windows   float64
	}
	pats, situations := *scale, []situation{{1, 0.9}, {2, 0.9}, {4, 0.9}, {8, 0.9}, {1, 5}, {2, 5}, {8, 5}}
	if pats == 0 {
		pats, situations = 120, situations[:2]
	}
	results := make([]scaled, len(situations))
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, s := range situations {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = scaleOut(t, s.instances, pats, s.windows)
		})
	}
	wg.Wait()
	for i, r := range results {
		throttle := "the throttle is not reached"
		if r.limit > 0 {
			throttle = fmt.Sprintf("the throttle alone takes %.0f s (%.0f %%)", r.limit.Seconds(),
				100*float64(r.limit)/float64(r.took))
		}
		report(t, result{Name: fmt.Sprintf("%s due PATs, %.2g times the budget, %d instances", thousands(r.pats),
			situations[i].windows, r.instances), Value: r.took.Seconds(), Unit: "s",
			Note: fmt.Sprintf("%.2f/s; %s; %d postponed, %d failed steps, %d creations, %d pages",
				float64(r.pats)/r.took.Seconds(), throttle, r.postponed, r.failed,
				r.counts[faults.Call{Service: devops.ServiceName, Operation: devops.CreatePat}],
				r.counts[faults.Call{Service: devops.ServiceName, Operation: devops.ListPats}])})
		if r.limit > 0 && r.postponed == 0 {
			t.Errorf("the throttle is reached, and no line of the log says %q", postponedLine)
		}
		if i == 0 || situations[i].windows != situations[i-1].windows {
			continue
		}
		switch before := results[i-1]; {
		case i == 1 && r.took > before.took*7/10:
			t.Errorf("two instances took %v, and one took %v: the second is of no use", r.took, before.took)
		case r.limit > 0 && r.took > before.took*4/3:
			t.Errorf("%d instances took %v, and %d took %v: they are in each other's way", r.instances, r.took,
				before.instances, before.took)
		}
	}
}
