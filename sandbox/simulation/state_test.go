package simulation_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// known is what a status says of what the app's processes know together.
type known struct {
	LastSweep *struct {
		At       time.Time
		By       string
		Problems []struct{ Organization, Code string }
	}
	Failing  []struct{ PAT, Code string }
	Troubles []struct {
		Scope, Code string
		Since       time.Time
	}
}

func statusOf(t *testing.T, w *simulation.World) known {
	t.Helper()
	var out known
	if code := w.HTTP("GET", "/api/status", nil, &out); code != http.StatusOK {
		t.Fatalf("status answered %d", code)
	}
	return out
}

// eventsOf are the ids of the world's events of a type.
func eventsOf[T any](w *simulation.World) []string {
	var out []string
	for _, e := range w.Events() {
		if _, ok := e.Data.(T); ok {
			out = append(out, e.ID)
		}
	}
	return out
}

// refuse makes every call of an operation answer 403 from now on.
func refuse(t *testing.T, w *simulation.World, service, operation string) {
	t.Helper()
	inject(t, w, faults.Fault{Service: service, Operation: operation, Mode: faults.Status,
		Status: http.StatusForbidden, Times: -1,
		Body: `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`})
}

func TestAColdProcessKnowsTheLastSweepAndWhatFails(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		swept := time.Now()
		refuse(t, w, devops.ServiceName, devops.CreatePat)
		v := latest(t, w)
		w.Command(name, `{"command":"reconcile","pat":"`+name+`","reason":"requested","from":"`+v.Tags["CredentialId"]+
			`","requestedBy":"ada"}`)
		w.Settle()
		w.Restart()
		got := statusOf(t, w)
		if got.LastSweep == nil {
			t.Fatal("the new process knows no last sweep")
		}
		if age := swept.Sub(got.LastSweep.At); age < 0 || age > time.Minute {
			t.Errorf("the last sweep was at %v, want a moment before %v", got.LastSweep.At, swept)
		}
		if len(got.Failing) != 1 || got.Failing[0].PAT != name {
			t.Errorf("failing %+v, want %s", got.Failing, name)
		}
		var pat struct{ Failure *struct{ Code string } }
		w.HTTP("GET", "/api/pats/"+name, nil, &pat)
		if pat.Failure == nil {
			t.Error("the PAT's page does not say that it fails")
		}
		w.Cloud.Injector.ClearFaults()
		time.Sleep(time.Hour)
		synctest.Wait()
		w.Restart()
		if got := statusOf(t, w); len(got.Failing) != 0 {
			t.Errorf("failing %+v after the order was carried out, want none", got.Failing)
		}
	})
}

func TestAStandingRefusalIsToldOnceADayByManyProcesses(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		refuse(t, w, keyvault.Service, keyvault.ListSecrets)
		begin := time.Now()
		for range 8 {
			time.Sleep(6 * time.Hour)
			synctest.Wait()
			w.Restart()
		}
		told := eventsOf[events.CheckIncomplete](w)
		if len(told) != 2 {
			t.Errorf("told %d times in two days, want 2: %q", len(told), told)
		}
		var since []string
		for _, id := range told {
			since = append(since, strings.Split(id, "/")[4])
		}
		if one := slices.Compact(slices.Clone(since)); len(one) != 1 {
			t.Errorf("it stands since %q by its events, want one time", since)
		}
		troubles := statusOf(t, w).Troubles
		if len(troubles) != 1 || troubles[0].Scope != "vault" {
			t.Fatalf("troubles %+v, want the vault's", troubles)
		}
		if late := troubles[0].Since.Sub(begin); late > 6*time.Hour {
			t.Errorf("it stands since %v, want the first sweep that met it", troubles[0].Since)
		}
		w.Cloud.Injector.ClearFaults()
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		if over := eventsOf[events.CheckRecovered](w); len(over) != 1 {
			t.Errorf("told that it is over %d times, want once: %q", len(over), over)
		}
		if left := statusOf(t, w).Troubles; len(left) != 0 {
			t.Errorf("troubles %+v after it was over, want none", left)
		}
	})
}

func TestAMarkPassedDuringFailedSweepsIsToldByALaterProcess(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "somebody's own", "vso.code", time.Now().Add(8*day), false)
		sweep(t, w)
		w.Cloud.DevOps.SetOffline(cloud.Organization, true)
		for range 6 { // the mark of seven days passes
			time.Sleep(6 * time.Hour)
			synctest.Wait()
			w.Restart()
		}
		w.Cloud.DevOps.SetOffline(cloud.Organization, false)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		var days []string
		for _, id := range eventsOf[events.Expiring](w) {
			days = append(days, id[strings.LastIndexByte(id, '/')+1:])
		}
		if !slices.Equal(days, []string{"7"}) {
			t.Errorf("events at %v days before the end, want 7 alone", days)
		}
	})
}

func TestARefusedStoreIsNotTriedAgainByAnotherProcessForADay(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		refuse(t, w, keyvault.Service, keyvault.SetSecret)
		made := func() int {
			return w.Cloud.Injector.Counts()[faults.Call{Service: devops.ServiceName, Operation: devops.CreatePat}]
		}
		before := made()
		for made() == before { // until it is due
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		for range 3 {
			w.Restart()
			time.Sleep(6 * time.Hour)
			synctest.Wait()
		}
		if n := made() - before; n != 1 {
			t.Errorf("%d PATs were made within a day of a refused store, want one", n)
		}
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		if n := made() - before; n != 2 {
			t.Errorf("%d PATs were made within 30 hours of it, want two", n)
		}
	})
}

// That it is over is told by a process that has lived through it: another one knows nothing
// of what could not be written down.
func TestAStateThatRefusesHoldsNothingUpAndIsTold(t *testing.T) {
	for what, f := range map[string]faults.Fault{
		"refuses": {Mode: faults.Status, Status: http.StatusForbidden},
		"hangs":   {Mode: faults.HangBefore, Delay: time.Hour},
	} {
		t.Run(what, func(t *testing.T) {
			withWorld(t, simulation.Config{OneProcess: true}, func(t *testing.T, w *simulation.World) {
				sweep(t, w)
				f.Service, f.Times = blob.Service, -1
				inject(t, w, f)
				begin, first := time.Now(), latest(t, w)
				w.HTTP("POST", "/api/pats/"+name+"/rotate", `{}`, nil)
				w.Settle()
				if v := latest(t, w); v.ID == first.ID {
					t.Error("an order was not carried out without the state")
				}
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				time.Sleep(12 * time.Hour)
				synctest.Wait()
				about := func(id string) bool { return strings.HasPrefix(id, "state/") }
				if told := eventsOf[events.CheckIncomplete](w); !slices.ContainsFunc(told, about) {
					t.Errorf("told %q, want that the state is not known", told)
				}
				w.Cloud.Injector.ClearFaults()
				time.Sleep(12 * time.Hour)
				synctest.Wait()
				if over := eventsOf[events.CheckRecovered](w); !slices.ContainsFunc(over, about) {
					t.Errorf("told to be over: %q, want the state", over)
				}
			})
		})
	}
}

func TestAVaultThatRefusesShowsWithinASweepInAProcessThatHasMetNothing(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		if code := w.HTTP("GET", "/api/health", nil, nil); code != http.StatusOK {
			t.Errorf("health answered %d before, want 200", code)
		}
		refuse(t, w, keyvault.Service, keyvault.ListSecrets)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		w.Restart()
		var health struct{ Status string }
		if code := w.HTTP("GET", "/api/health", nil, &health); code != http.StatusServiceUnavailable {
			t.Errorf("health answered %d, want 503", code)
		}
		if health.Status != "degraded" {
			t.Errorf("health says %q, want degraded", health.Status)
		}
		if told := eventsOf[events.CheckIncomplete](w); len(told) != 1 {
			t.Errorf("told %q, want one event", told)
		}
	})
}

func TestARoleThatWorksAfterFiveMinutesCostsAYoungDeploymentAQuarterOfAnHour(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		refuse(t, w, keyvault.Service, "")
		begin := time.Now()
		_ = w.Sweep() // it fails
		time.Sleep(5 * time.Minute)
		w.Cloud.Injector.ClearFaults()
		w.Restart()
		time.Sleep(12 * time.Minute)
		w.Settle()
		v, ok := w.Latest(name)
		if !ok {
			t.Fatal("there is no PAT 17 minutes after the first sweep")
		}
		if took := v.Created.Sub(begin); took > 17*time.Minute {
			t.Errorf("the first PAT took %v, want 17 minutes at most", took)
		}
		if told := eventsOf[events.CheckIncomplete](w); len(told) != 0 {
			t.Errorf("told %q, want nothing: it has passed by itself", told)
		}
	})
}
