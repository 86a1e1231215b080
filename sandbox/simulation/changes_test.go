package simulation_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

var everyChange = flag.Bool("changes", false, "run every single fault in the stories of changes")

const changing = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
  release-bot:
    user: release-bot@contoso.com
defaults: {lifetime: 4d, rotateBefore: 1d, overlap: 5h}
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute]
  - name: nuget-feed
    identity: build-bot
    organization: contoso
    displayName: NuGet feed
    scopes: [vso.packaging]
`

// edited is the manifest with each first text replaced by the second one.
func edited(texts ...string) string { return strings.NewReplacer(texts...).Replace(changing) }

const secondEntry = `  - name: nuget-feed
    identity: build-bot
    organization: contoso
    displayName: NuGet feed
    scopes: [vso.packaging]
`

// inOverlap provisions both PATs and orders both to be replaced, so that the PATs before
// are in their overlaps.
func inOverlap(w *simulation.World) {
	w.Cloud.AddOrganization("fabrikam")
	w.Cloud.AddUser(releaseBot)
	if err := w.Cloud.SignIn("release-bot", releaseBot); err != nil {
		panic(err)
	}
	provisioned(w)
	time.Sleep(time.Hour)
	for _, name := range []string{"jenkins-agents", "nuget-feed"} {
		w.HTTP("POST", "/api/pats/"+name+"/rotate", `{}`, nil)
	}
	w.Settle()
	time.Sleep(30 * time.Minute)
}

// deploy starts every instance anew with a manifest, and sweeps.
func deploy(w *simulation.World, manifest string) {
	w.SetManifest(manifest)
	w.Restart()
	time.Sleep(2 * time.Minute)
	_ = w.Sweep()
}

func refusing(service, operation string, status int) faults.Fault {
	return faults.Fault{Service: service, Operation: operation, Mode: faults.Status, Status: status}
}

// changes are stories in which people change something while patrol is at work.
func changes() []simulation.Scenario {
	leak := `{"reason":"leaked","revokePrevious":"now"}`
	return []simulation.Scenario{
		{Name: "the owner changes", Prepare: inOverlap, Act: func(w *simulation.World) {
			deploy(w, edited("identity: build-bot", "identity: release-bot"))
		}},
		{Name: "the identity leaves", Prepare: inOverlap, Stranded: []string{cloud.User},
			Act: func(w *simulation.World) {
				deploy(w, edited("identity: build-bot", "identity: release-bot",
					"  build-bot:\n    user: build-bot@contoso.com\n", ""))
			}},
		{Name: "the user changes", Prepare: inOverlap, Stranded: []string{cloud.User}, Act: func(w *simulation.World) {
			w.Cloud.AddUser("new-bot@contoso.com")
			if err := w.Cloud.SignIn(cloud.Identity, "new-bot@contoso.com"); err != nil {
				panic(err)
			}
			deploy(w, edited("user: build-bot@contoso.com", "user: new-bot@contoso.com"))
		}},
		{Name: "the organization changes while the old one is down", Prepare: inOverlap,
			Act: func(w *simulation.World) {
				w.Cloud.DevOps.SetOffline(cloud.Organization, true)
				deploy(w, edited("organization: contoso", "organization: fabrikam"))
				time.Sleep(20 * time.Hour)
				w.Cloud.DevOps.SetOffline(cloud.Organization, false)
			}},
		{Name: "lives become shorter", Prepare: inOverlap, Act: func(w *simulation.World) {
			deploy(w, edited("{lifetime: 4d, rotateBefore: 1d, overlap: 5h}",
				"{lifetime: 1d, rotateBefore: 8h, overlap: 1h}"))
		}},
		{Name: "lives become longer", Prepare: inOverlap, After: 100 * time.Hour, Act: func(w *simulation.World) {
			deploy(w, edited("{lifetime: 4d, rotateBefore: 1d, overlap: 5h}",
				"{lifetime: 30d, rotateBefore: 3d, overlap: 1d}"))
		}},
		{Name: "an entry leaves", Prepare: inOverlap, Act: func(w *simulation.World) {
			deploy(w, edited(secondEntry, ""))
		}},
		{Name: "an entry leaves and comes back", Prepare: inOverlap, Act: func(w *simulation.World) {
			deploy(w, edited(secondEntry, ""))
			time.Sleep(2 * time.Hour)
			deploy(w, changing)
		}},
		{Name: "two instances have two manifests", Prepare: inOverlap,
			Config: func(c *simulation.Config) { c.Hosts = 2 },
			Act: func(w *simulation.World) {
				newer := edited("[vso.build_execute]", "[vso.build_execute, vso.code]") +
					strings.NewReplacer("nuget-feed", "npm-feed", "NuGet feed", "npm feed").Replace(secondEntry)
				w.SetManifestOf(1, newer)
				w.Restart()
				for range 10 {
					for _, h := range w.Hosts {
						time.Sleep(15 * time.Minute)
						_ = h.Invoke(context.Background(), "CheckExpiry", "")
						w.Settle()
					}
				}
				deploy(w, newer)
			}},
		{Name: "an order while the proof is refused", Prepare: inOverlap, Act: func(w *simulation.World) {
			end := w.Outage(refusing(devops.ServiceName, devops.ConnectionData, http.StatusServiceUnavailable))
			requestRotation(w, leak)
			time.Sleep(time.Hour)
			end()
		}},
		{Name: "an order while the store is refused", Prepare: inOverlap, Act: func(w *simulation.World) {
			end := w.Outage(refusing(keyvault.Service, keyvault.SetSecret, http.StatusServiceUnavailable))
			requestRotation(w, leak)
			time.Sleep(3 * time.Hour)
			end()
		}},
		{Name: "an order while nothing can be revoked", Prepare: inOverlap, Act: func(w *simulation.World) {
			end := w.Outage(refusing(devops.ServiceName, devops.RevokePat, http.StatusServiceUnavailable))
			requestRotation(w, leak)
			time.Sleep(3 * time.Hour)
			end()
		}},
		{Name: "deployments in an emergency", Prepare: inOverlap, Act: func(w *simulation.World) {
			end := w.Outage(faults.Fault{Service: devops.ServiceName, Operation: devops.ConnectionData,
				Mode: faults.Slow, Delay: 20 * time.Second})
			requestRotation(w, leak)
			for range 3 {
				time.Sleep(10 * time.Second)
				w.Restart()
				time.Sleep(65 * time.Second)
			}
			end()
		}},
		{Name: "an order before the adoption", Act: func(w *simulation.World) {
			_, token := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents", "vso.build_execute",
				time.Now().Add(4*day), false)
			if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: token}); err != nil {
				panic(err)
			}
			end := w.Outage(refusing(devops.ServiceName, devops.CreatePat, http.StatusServiceUnavailable))
			requestRotation(w, leak)
			time.Sleep(2 * time.Hour)
			end()
		}},
		{Name: "an order by the queue in a day of throttling", Prepare: inOverlap, Act: func(w *simulation.World) {
			end := w.Outage(refusing(devops.ServiceName, devops.CreatePat, http.StatusTooManyRequests))
			v, _ := w.Latest(name)
			w.Command(name, `{"command":"reconcile","pat":"jenkins-agents","reason":"compromised",`+
				`"revokePrevious":"now","requestedBy":"pipeline","from":"`+v.Tags["CredentialId"]+`"}`)
			time.Sleep(day)
			end()
		}},
	}
}

// isOutsideOf reports whether a fault is outside of the promise in this story
// (docs/reliability.md): a manifest with longer lives in force while short ones come due,
// and the purge of a secret that no entry has any more.
func isOutsideOf(s simulation.Scenario, p simulation.Plan) bool {
	for _, m := range p {
		switch {
		case m == simulation.TwoManifests && strings.HasPrefix(s.Name, "lives become"):
			return true
		case m == simulation.Purged && (strings.HasPrefix(s.Name, "an entry leaves") ||
			strings.HasPrefix(s.Name, "two ")):
			return true
		}
	}
	return false
}

func TestChangesWhileSomethingIsUnderWayHold(t *testing.T) {
	seed := *seedArg
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -seed", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for _, s := range changes() {
		if *only != "" && s.Name != *only {
			continue
		}
		s.Manifest = changing
		if s.After == 0 {
			s.After = 40 * time.Hour
		}
		at, _ := points(t, s)
		plans := simulation.Singles(at)
		plans = slices.DeleteFunc(plans, func(p simulation.Plan) bool { return isOutsideOf(s, p) })
		if !*everyChange {
			r.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
			plans = plans[:min(len(plans), *sample/10)]
		}
		n, reached := all(t, s, plans)
		t.Logf("%s: %d calls, %d faults, %d reached, %d hold", s.Name, len(at), len(plans), reached, n)
	}
}
