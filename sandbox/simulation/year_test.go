package simulation_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const day = 24 * time.Hour

const onePAT = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.agentpools_manage, vso.build_execute]
`

// A PAT's year: provisioned, rotated twelve times, once in an emergency, and for a
// while under a policy that shortens its life. At every moment the latest version
// works.
func TestAPATsYear(t *testing.T) {
	if raceDetector {
		t.Skip("a year is long under the race detector; make test runs it without, and the shorter tests with it")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := simulation.New(t, simulation.Config{Manifest: onePAT})
		defer w.Close()
		works := func(when string) {
			t.Helper()
			v, ok := w.Latest("jenkins-agents")
			if !ok || !v.Enabled || !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
				t.Fatalf("%s (%s): the latest version does not work: %+v\n%s", when, time.Now().Format(time.DateTime),
					v.Tags, w.Output())
			}
		}
		alive := func() (n int) {
			for _, p := range w.Cloud.DevOps.PATs(cloud.Organization, cloud.User) {
				if p.State == devops.Active {
					n++
				}
			}
			return n
		}

		// The first sweep provisions it.
		if err := w.Sweep(); err != nil {
			t.Fatalf("first sweep: %v\n%s", err, w.Output())
		}
		works("after the first sweep")
		if got := rotations(w); len(got) != 1 || got[0].Reason != "provision" || got[0].Previous != nil {
			t.Fatalf("events after the first sweep: %+v", got)
		}

		// Day after day the timer sweeps by itself.
		for d := range 100 {
			time.Sleep(day)
			synctest.Wait()
			works("day " + time.Now().Format(time.DateOnly))
			if n := alive(); n > 2 {
				t.Fatalf("day %d: %d PATs are alive", d, n)
			}
		}
		normal := len(rotations(w))
		if normal < 5 || normal > 7 {
			t.Fatalf("%d rotations in 100 days with lives of 30 days replaced 10 to 12 days before their end", normal-1)
		}

		// A leak: rotate now, and end the leaked one at once.
		leaked, _ := w.Latest("jenkins-agents")
		if code := w.HTTP("POST", "/api/pats/jenkins-agents/rotate", map[string]string{"reason": "leaked in a log",
			"revokePrevious": "now"}, nil); code != 202 {
			t.Fatalf("rotate now answered %d", code)
		}
		w.Settle()
		works("after the emergency")
		if w.Cloud.DevOps.Works(cloud.Organization, leaked.Value) {
			t.Fatal("the leaked PAT still works")
		}
		if got := rotations(w); got[len(got)-1].Reason != "compromised" {
			t.Errorf("the emergency's event says %q", got[len(got)-1].Reason)
		}
		all := revocations(w)
		last := all[len(all)-1]
		if last.Cause != "requested" {
			t.Errorf("the last revocation's cause is %q, want requested", last.Cause)
		}
		if want := leaked.Tags["CredentialId"]; last.AuthorizationID != want {
			t.Errorf("the last revocation is of %s, want the leaked %s", last.AuthorizationID, want)
		}

		// A policy shortens lives to seven days: patrol follows.
		w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{MaxLifespanDays: 7})
		before := len(rotations(w))
		for range 60 {
			time.Sleep(day)
			synctest.Wait()
			works("under the policy, " + time.Now().Format(time.DateOnly))
		}
		clamped := len(rotations(w)) - before
		if clamped < 8 || clamped > 12 {
			t.Errorf("%d rotations in 60 days under a policy of 7 days", clamped)
		}

		// The policy goes; the year ends as it began.
		w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{})
		for range 205 {
			time.Sleep(day)
			synctest.Wait()
			works("late in the year, " + time.Now().Format(time.DateOnly))
		}
		if n := alive(); n > 2 {
			t.Errorf("%d PATs are alive at the end of the year", n)
		}

		// Every rotation has its event, once; every replaced version is closed.
		ids := map[string]int{}
		for _, e := range w.Events() {
			ids[e.ID]++
		}
		versions := w.Cloud.Vault.Versions("jenkins-agents")
		for i, v := range versions {
			id := events.RotatedID(v.Tags["patrol-rotation"], v.Tags["CredentialId"])
			if ids[id] != 1 {
				t.Errorf("version %d: %d events %s, want 1", i, ids[id], id)
			}
			if i < len(versions)-2 && (v.Enabled || v.Tags["patrol-revoked-at"] == "") {
				t.Errorf("version %d of %d was replaced long ago and is not closed: %v", i, len(versions), v.Tags)
			}
		}
		if len(versions) < 20 {
			t.Errorf("%d versions in a year", len(versions))
		}
		t.Logf("a year: %d rotations, %d revocations, %d sweeps", len(rotations(w)), len(revocations(w)),
			count(w, "CheckExpiry"))
	})
}

func rotations(w *simulation.World) (out []events.Rotated) {
	for _, e := range w.Events() {
		if d, ok := e.Data.(events.Rotated); ok {
			out = append(out, d)
		}
	}
	return out
}

func revocations(w *simulation.World) (out []events.Revoked) {
	for _, e := range w.Events() {
		if d, ok := e.Data.(events.Revoked); ok {
			out = append(out, d)
		}
	}
	return out
}

func count(w *simulation.World, function string) int {
	n := 0
	for _, inv := range w.Invocations() {
		if strings.EqualFold(inv.Function, function) {
			n++
		}
	}
	return n
}
