package simulation_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// A warm rotation costs five HTTP calls and two sends, a revocation three and one; the
// list and the token are shared; a sweep of what needs nothing costs its pages alone.
func TestEachPATCostsItsBudgetAndNoCallMore(t *testing.T) {
	const fleet = 20
	var m strings.Builder
	m.WriteString("apiVersion: patrol/v1\nidentities:\n  build-bot:\n    user: build-bot@contoso.com\npats:\n")
	for i := range fleet {
		fmt.Fprintf(&m, "  - {name: pat-%02d, identity: build-bot, organization: contoso, scopes: [vso.code]}\n", i)
	}
	c := simulation.Config{Manifest: m.String(), Sessions: 16, OneProcess: true}
	withWorld(t, c, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		time.Sleep(time.Hour)
		phase := func(what string, act func(), want map[faults.Call]int) {
			t.Helper()
			w.Cloud.Injector.ResetCounts()
			act()
			got := w.Cloud.Injector.Counts()
			for c, n := range got {
				switch {
				case c.Service == "identity": // a token a day
				case c.Service == "servicebus" && !strings.HasPrefix(c.Operation, "send "+cloud.EventTopic) &&
					!strings.HasPrefix(c.Operation, "schedule"): // the host's
				case want[c] == 0:
					t.Errorf("%s: %s %s was called %d times, want %d", what, c.Service, c.Operation, n, want[c])
				}
			}
			for c, n := range want {
				if got[c] != n {
					t.Errorf("%s: %s %s was called %d times, want %d", what, c.Service, c.Operation, got[c], n)
				}
			}
		}
		kv := func(op string) faults.Call { return faults.Call{Service: keyvault.Service, Operation: op} }
		ado := func(op string) faults.Call { return faults.Call{Service: devops.ServiceName, Operation: op} }
		state := func(op string) faults.Call { return faults.Call{Service: blob.Service, Operation: op} }
		sb := func(op string) faults.Call { return faults.Call{Service: "servicebus", Operation: op} }

		phase("rotation", func() {
			for i := range fleet {
				name := fmt.Sprintf("pat-%02d", i)
				v, _ := w.Latest(name)
				w.Command(name, fmt.Sprintf(`{"command":"reconcile","pat":%q,"reason":"requested","from":%q}`, name,
					v.Tags["CredentialId"]))
			}
			w.Settle()
		}, map[faults.Call]int{
			kv(keyvault.GetSecret): fleet, kv(keyvault.SetSecret): fleet, kv(keyvault.UpdateSecret): fleet,
			ado(devops.CreatePat): fleet, ado(devops.ConnectionData): fleet, ado(devops.ListPats): 1,
			sb("send " + cloud.EventTopic): fleet, sb("schedule " + cloud.CommandQueue): fleet,
			state(blob.ListBlobs): 1, // which PATs fail, for all of them
		})
		time.Sleep(23*time.Hour + 50*time.Minute)
		synctest.Wait()
		phase("end of the overlaps", func() {
			time.Sleep(20 * time.Minute)
			synctest.Wait()
		}, map[faults.Call]int{
			kv(keyvault.GetSecret): fleet, kv(keyvault.UpdateSecret): fleet, ado(devops.RevokePat): fleet,
			kv(keyvault.ListSecrets): 1, // which secrets hold what, for all of them
			ado(devops.ListPats):     1, sb("send " + cloud.EventTopic): fleet,
			state(blob.ListBlobs): 1,
		})
		time.Sleep(30 * time.Hour)
		synctest.Wait()
		phase("sweep of what needs nothing", func() { sweep(t, w) }, map[faults.Call]int{
			kv(keyvault.ListSecrets): 1, ado(devops.ListPats): 1,
			{Service: "entra", Operation: "token refresh_token"}: 1,
			// The sweep before, what stands and what fails; and this sweep.
			state(blob.GetBlob): 1, state(blob.ListBlobs): 2, state(blob.PutBlob): 1,
		})
		// Whoever orders reads the secret and writes the order onto it; whether the identity
		// must sign in, its secret says.
		phase("order by HTTP, and its rotation", func() {
			for i := range fleet {
				w.HTTP("POST", fmt.Sprintf("/api/pats/pat-%02d/rotate", i), `{}`, nil)
			}
			w.Settle()
		}, map[faults.Call]int{
			kv(keyvault.GetSecret): 2*fleet + 1, kv(keyvault.SetSecret): fleet, kv(keyvault.UpdateSecret): 2 * fleet,
			ado(devops.CreatePat): fleet, ado(devops.ConnectionData): fleet,
			sb("send " + cloud.EventTopic): fleet, sb("schedule " + cloud.CommandQueue): fleet,
		})
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		const sweeps = 4
		phase("day of what needs nothing", func() {
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}, map[faults.Call]int{
			kv(keyvault.ListSecrets): sweeps, ado(devops.ListPats): sweeps,
			// Each PAT in force is proved once a day.
			kv(keyvault.GetSecret): fleet, ado(devops.ConnectionData): fleet,
			{Service: "entra", Operation: "token refresh_token"}: sweeps,
			state(blob.GetBlob): sweeps, state(blob.ListBlobs): 2 * sweeps, state(blob.PutBlob): sweeps,
		})
	})
}
