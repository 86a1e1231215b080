package simulation_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const name = "jenkins-agents"

// withWorld runs a test with one world in its own bubble.
func withWorld(t *testing.T, c simulation.Config, test func(t *testing.T, w *simulation.World)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if c.Manifest == "" {
			c.Manifest = onePAT
		}
		w := simulation.New(t, c)
		defer w.Close()
		defer func() {
			if t.Failed() {
				t.Logf("the handler said:\n%s", w.Output())
			}
		}()
		test(t, w)
	})
}

// sweep runs the timer, which must succeed. Sweeps are more than a minute apart: two in
// one minute are one for the queue's duplicate detection.
func sweep(t *testing.T, w *simulation.World) {
	t.Helper()
	time.Sleep(61 * time.Second)
	if err := w.Sweep(); err != nil {
		t.Fatalf("sweep: %v\n%s", err, w.Output())
	}
}

func latest(t *testing.T, w *simulation.World) keyvault.Version {
	t.Helper()
	v, ok := w.Latest(name)
	if !ok {
		t.Fatalf("there is no secret\n%s", w.Output())
	}
	return v
}

// live are the active PATs by authorization id, with their display names.
func live(w *simulation.World) map[string]string {
	out := map[string]string{}
	for _, p := range w.Cloud.DevOps.PATs(cloud.Organization, cloud.User) {
		if p.State == devops.Active {
			out[p.AuthorizationID] = p.DisplayName
		}
	}
	return out
}

func failures(w *simulation.World) (out []events.RotationFailed) {
	for _, e := range w.Events() {
		if d, ok := e.Data.(events.RotationFailed); ok {
			out = append(out, d)
		}
	}
	return out
}

func inject(t *testing.T, w *simulation.World, f faults.Fault) {
	t.Helper()
	if err := w.Cloud.Injector.Inject(f); err != nil {
		t.Fatal(err)
	}
}

func TestASecretPutThereByHandIsAdoptedAndRotatedWhenDue(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		id, token := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents",
			"vso.agentpools_manage vso.build_execute", time.Now().Add(20*day), false)
		if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: token,
			Tags: map[string]string{"team": "blue"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)

		// It gets the ledger's tags on the version that is there, and keeps its own.
		sweep(t, w)
		v := latest(t, w)
		if n := len(w.Cloud.Vault.Versions(name)); n != 1 {
			t.Fatalf("%d versions after the adoption, want the one that was there", n)
		}
		if v.Value != token {
			t.Error("the adoption changed the value")
		}
		for tag, want := range map[string]string{"CredentialId": id, "patrol-identity": "build-bot", "team": "blue"} {
			if v.Tags[tag] != want {
				t.Errorf("tag %s is %q, want %q", tag, v.Tags[tag], want)
			}
		}
		if v.Expires.IsZero() {
			t.Error("the adopted version has no exp")
		}
		if n := len(rotations(w)); n != 0 {
			t.Errorf("%d rotations, want none", n)
		}

		// Its life is shorter than the manifest's, so it is rotated at the same
		// fraction of it, and the one that was put there is revoked in time.
		time.Sleep(16 * day)
		synctest.Wait()
		if v := latest(t, w); v.Tags["patrol-previous"] != id || v.Tags["team"] != "blue" {
			t.Errorf("after 16 of 20 days: tags %v", v.Tags)
		}
		if _, still := live(w)[id]; still {
			t.Error("the adopted PAT is alive after its overlap")
		}
	})
}

func TestASecretWhoseValueIsRefusedIsReplacedAtOnceAndNothingIsRevoked(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		id, _ := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents", "vso.build_execute",
			time.Now().Add(20*day), false)
		if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: strings.Repeat("m", 52)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		sweep(t, w)
		v := latest(t, w)
		if !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
			t.Error("the new value does not work")
		}
		if v.Tags["patrol-reason"] != "provision" || v.Tags["patrol-previous"] != "" {
			t.Errorf("tags %v, want the reason provision and no previous PAT", v.Tags)
		}
		if _, there := live(w)[id]; !there {
			t.Error("a PAT was revoked although nobody knows that it is the one")
		}
	})
}

func TestAnAmbiguousAdoptionIsReportedOnceADayAndSettledByTheManifest(t *testing.T) {
	withWorld(t, simulation.Config{OneProcess: true}, func(t *testing.T, w *simulation.World) {
		end := time.Now().Add(25 * day)
		first, token := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents",
			"vso.agentpools_manage vso.build_execute", end, false)
		second, _ := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents",
			"vso.agentpools_manage vso.build_execute", end, false)
		if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: token}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		for range 3 {
			sweep(t, w)
		}
		got := failures(w)
		if len(got) != 1 || got[0].Code != "ambiguous-adoption" {
			t.Fatalf("failures %+v, want ambiguous-adoption once", got)
		}
		for _, id := range []string{first, second} {
			if !strings.Contains(got[0].Message, id) {
				t.Errorf("the failure says %q, want %s in it", got[0].Message, id)
			}
		}
		time.Sleep(31 * time.Hour)
		synctest.Wait()
		if n := len(failures(w)); n != 2 {
			t.Errorf("%d events after a day, want a second one", n)
		}
		w.SetManifest(onePAT + "    adopt: " + first + "\n")
		w.Restart()
		sweep(t, w)
		if v := latest(t, w); v.Tags["CredentialId"] != first {
			t.Errorf("tags %v, want %s adopted", v.Tags, first)
		}
	})
}

func TestADeletedSecretIsRecoveredBeforeAnythingElse(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		before := latest(t, w)
		if err := w.Cloud.Vault.Delete(name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		sweep(t, w)
		time.Sleep(time.Minute)
		if v := latest(t, w); v.Deleted || v.ID != before.ID || len(live(w)) != 1 {
			t.Errorf("deleted %t, version %s (was %s), %d PATs alive", v.Deleted, v.ID, before.ID, len(live(w)))
		}
	})
}

func TestDriftRotates(t *testing.T) {
	for _, tc := range []struct{ what, from, to string }{
		{"scopes", "scopes: [vso.agentpools_manage, vso.build_execute]", "scopes: [vso.build_execute]"},
		{"organization", "organization: contoso", "organization: fabrikam"},
		{"identity", "identity: build-bot", "identity: release-bot"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			manifest := strings.Replace(onePAT, "pats:\n", "  release-bot:\n    user: release-bot@contoso.com\npats:\n",
				1)
			withWorld(t, simulation.Config{Manifest: manifest}, func(t *testing.T, w *simulation.World) {
				w.Cloud.AddOrganization("fabrikam")
				w.Cloud.AddUser("release-bot@contoso.com")
				if err := w.Cloud.SignIn("release-bot", "release-bot@contoso.com"); err != nil {
					t.Fatal(err)
				}
				sweep(t, w)
				old := latest(t, w)
				w.SetManifest(strings.Replace(manifest, tc.from, tc.to, 1))
				w.Restart()
				sweep(t, w)
				now := latest(t, w)
				if now.Tags["patrol-reason"] != "drift" || now.Tags["patrol-previous"] != old.Tags["CredentialId"] {
					t.Fatalf("tags %v", now.Tags)
				}
				// The old one ends where it was made, after its overlap.
				time.Sleep(26 * time.Hour)
				synctest.Wait()
				if w.Cloud.DevOps.Works(cloud.Organization, old.Value) {
					t.Error("the PAT from before the drift is alive after its overlap")
				}
			})
		})
	}
}

// Azure DevOps does not say how it answers for a revoked PAT by its id.
func TestAPATThatSomebodyRevokedIsReplacedByTheNextSweep(t *testing.T) {
	for what, answer := range map[string]devops.GetGone{"shown by its id": devops.GetRevoked,
		"an error by its id": devops.GetError, "null by its id": devops.GetNull, "404 by its id": devops.GetNotFound} {
		t.Run(what, func(t *testing.T) {
			withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
				w.Cloud.DevOps.Switch(func(s *devops.Switches) { s.GetGone = answer })
				sweep(t, w)
				old := latest(t, w)
				time.Sleep(time.Hour)
				w.Cloud.DevOps.Revoke(old.Tags["CredentialId"])
				sweep(t, w)
				v := latest(t, w)
				if v.ID == old.ID || v.Tags["patrol-reason"] != "compromised" {
					t.Errorf("version %s with tags %v, want a new one, compromised", v.ID, v.Tags)
				}
				if !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
					t.Error("the new PAT does not work")
				}
			})
		})
	}
}

func TestADisabledLatestVersionIsReplaced(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		if _, err := w.Cloud.Vault.Change(name, "", func(v *keyvault.Version) { v.Enabled = false }); err != nil {
			t.Fatal(err)
		}
		sweep(t, w)
		if v := latest(t, w); !v.Enabled || v.Tags["patrol-reason"] != "drift" {
			t.Errorf("enabled %t, tags %v", v.Enabled, v.Tags)
		}
	})
}

func TestAnAttemptThatDiedBetweenCreateAndStoreLeavesNothingBehind(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		// The answer to the creation is lost: the PAT exists, its token is nowhere.
		inject(t, w, faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat, Mode: faults.ResetAfter})
		sweep(t, w)
		if len(live(w)) != 1 || len(rotations(w)) != 0 {
			t.Fatalf("%d PATs, %d rotations after the lost answer", len(live(w)), len(rotations(w)))
		}
		// The retry makes another one with the same rotation id, and leaves the
		// young orphan alone.
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(live(w)) != 2 || len(rotations(w)) != 1 {
			t.Fatalf("%d PATs, %d rotations after the retry", len(live(w)), len(rotations(w)))
		}
		// The sweep that finds it older than a quarter of an hour ends it.
		time.Sleep(20 * time.Minute)
		sweep(t, w)
		if n := len(live(w)); n != 1 {
			t.Errorf("%d PATs alive, want the stored one alone", n)
		}
		if got := revocations(w); len(got) != 1 || got[0].Cause != "orphan" || got[0].SecretVersion != "" {
			t.Errorf("revocations %+v", got)
		}
	})
}

func TestSeveralReplacedPATsLiveThroughTheirOwnOverlaps(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		first := latest(t, w)
		rotate := func(body string) keyvault.Version {
			t.Helper()
			if code := w.HTTP("POST", "/api/pats/"+name+"/rotate", body, nil); code != 202 {
				t.Fatalf("rotate answered %d", code)
			}
			w.Settle()
			return latest(t, w)
		}
		second := rotate(`{"reason":"one"}`)
		time.Sleep(6 * time.Hour)
		third := rotate(`{"reason":"two"}`)
		works := func(v keyvault.Version) bool { return w.Cloud.DevOps.Works(cloud.Organization, v.Value) }
		if !works(first) || !works(second) || !works(third) {
			t.Fatal("a PAT ended before its overlap did")
		}
		time.Sleep(18*time.Hour + 5*time.Minute)
		synctest.Wait()
		if works(first) || !works(second) || !works(third) {
			t.Errorf("24 hours after the first rotation: %t %t %t, want only the first to be over", works(first),
				works(second), works(third))
		}
		// A leak ends everything that came before at once.
		fourth := rotate(`{"reason":"leak","revokePrevious":"now"}`)
		if works(second) || works(third) || !works(fourth) {
			t.Errorf("after the leak: %t %t %t, want only the newest to live", works(second), works(third),
				works(fourth))
		}
	})
}

func TestARevocationThatFailsIsRetriedAfterALaterOneThatSucceeded(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		first := latest(t, w)
		requestRotation(w, `{}`)
		time.Sleep(time.Hour)
		second := latest(t, w)
		// The oldest one's revocation fails, past the SDK's patience.
		inject(t, w, faults.Fault{Service: devops.ServiceName, Operation: devops.RevokePat, Times: 4,
			Mode: faults.Status, Status: 503})
		requestRotation(w, `{"revokePrevious":"now"}`)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		works := func(v keyvault.Version) bool { return w.Cloud.DevOps.Works(cloud.Organization, v.Value) }
		if works(second) || !works(first) {
			t.Fatal("this test needs the newer one to be revoked and the older one not")
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if works(first) {
			t.Error("the older one is alive after the retry")
		}
		for i, v := range w.Cloud.Vault.Versions(name) {
			if closed := v.Tags["patrol-revoked-at"] != ""; closed == (i == 2) || v.Enabled != (i == 2) {
				t.Errorf("version %d: enabled %t, tags %v", i, v.Enabled, v.Tags)
			}
		}
		ids := map[string]bool{}
		for _, e := range w.Events() {
			ids[e.ID] = true
		}
		if want := events.RevokedID(second.Tags["patrol-rotation"], first.Tags["CredentialId"]); !ids[want] {
			t.Errorf("no event %s", want)
		}
	})
}

func TestRequestingARotationTwiceRotatesOnce(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		inject(t, w, faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat, Mode: faults.Slow,
			Delay: 5 * time.Second})
		for range 3 {
			if code := w.HTTP("POST", "/api/pats/"+name+"/rotate", nil, nil); code != 202 {
				t.Fatalf("rotate answered %d", code)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.Cloud.Vault.Versions(name)); n != 2 {
			t.Errorf("%d versions, want 2", n)
		}
	})
}

func TestTransientFaultsAreRetriedByScheduledCommandsAndNeverByTheHost(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		// Longer than the SDKs' own patience.
		inject(t, w, faults.Fault{Service: keyvault.Service, Operation: keyvault.SetSecret, Times: 5,
			Mode: faults.Status, Status: 503})
		sweep(t, w)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if v := latest(t, w); !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
			t.Errorf("tags %v", v.Tags)
		}
		for _, inv := range w.Invocations() {
			if inv.Err != nil {
				t.Errorf("%s failed towards the host: %v", inv.Function, inv.Err)
			}
		}
		if got := failures(w); len(got) != 0 {
			t.Errorf("failures %+v, want none: the retry succeeded", got)
		}
		time.Sleep(time.Hour)
		sweep(t, w)
		if n := len(live(w)); n != 1 {
			t.Errorf("%d PATs alive after the next sweep", n)
		}
	})
}

func TestGivingUpIsReported(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		inject(t, w, faults.Fault{Service: devops.ServiceName, Operation: devops.ConnectionData, Times: -1,
			Mode: faults.Status, Status: 503})
		sweep(t, w)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		got := failures(w)
		if len(got) != 1 || got[0].Step != "prove" || got[0].Class != "transient" {
			t.Fatalf("failures %+v, want a transient one at step prove", got)
		}
		if got[0].RetryAt != nil {
			t.Errorf("the failure promises a retry at %s, want none", got[0].RetryAt)
		}
		if len(live(w)) != 0 {
			t.Errorf("%d PATs that could not be proved are alive", len(live(w)))
		}
		// When the fault is gone, the next sweep provisions.
		w.Cloud.Injector.ClearFaults()
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if len(rotations(w)) != 1 {
			t.Errorf("%d rotations after the fault", len(rotations(w)))
		}
	})
}

func TestAPolicyRefusalIsReportedOnceAndNotHammered(t *testing.T) {
	withWorld(t, simulation.Config{OneProcess: true}, func(t *testing.T, w *simulation.World) {
		w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{Creation: true})
		for range 4 {
			sweep(t, w)
		}
		got := failures(w)
		if len(got) != 1 || got[0].Class != "policy" || got[0].Step != "create" {
			t.Fatalf("failures %+v", got)
		}
		if n := w.Cloud.Injector.Count(devops.ServiceName, devops.CreatePat); n > 4 {
			t.Errorf("%d creations for 4 sweeps", n)
		}
		w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{})
		sweep(t, w)
		if len(rotations(w)) != 1 {
			t.Error("not provisioned once the policy was gone")
		}
	})
}

func TestThrottlingPostponesTheWholeIdentity(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		inject(t, w, faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat, Mode: faults.Status,
			Status: 429,
			Header: map[string]string{"Retry-After": "120", "Content-Type": "application/json"},
			Body:   `{"typeKey":"RequestBlockedException"}`})
		sweep(t, w)
		if n := w.Cloud.DevOps.Impatient(cloud.User); n != 0 {
			t.Errorf("%d calls inside the pause", n)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(rotations(w)) != 1 {
			t.Errorf("%d rotations after the pause", len(rotations(w)))
		}
	})
}

func TestALostSignInIsReportedOnceAndRepairedBySigningIn(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		w.Cloud.Entra.Revoke(cloud.User)
		w.Restart() // no access token in memory any more
		for range 3 {
			if err := w.Sweep(); err == nil {
				t.Error("a sweep without a sign-in counts as a success")
			}
		}
		required := 0
		for _, e := range w.Events() {
			if d, ok := e.Data.(events.SignInRequired); ok {
				required++
				if d.Code != "AADSTS50173" || !strings.HasSuffix(d.SignInURL, "/api/identities/build-bot/signin") {
					t.Errorf("event %+v", d)
				}
			}
		}
		if required != 1 {
			t.Errorf("%d events ask for a sign-in, want one", required)
		}
		var problem struct{ Type, SignInURL string }
		if code := w.HTTP("POST", "/api/pats/"+name+"/rotate", nil, &problem); code != 409 || problem.SignInURL == "" {
			t.Errorf("rotate answered %d %+v, want 409 with the link", code, problem)
		}
		if code := w.HTTP("GET", "/api/health", nil, nil); code != 503 {
			t.Errorf("health answered %d", code)
		}
		if err := w.Cloud.SignIn(cloud.Identity, cloud.User); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		sweep(t, w)
		if code := w.HTTP("GET", "/api/health", nil, nil); code != 200 {
			t.Errorf("health answered %d after the sign-in", code)
		}
	})
}

func TestMessagesThatAreNotCommandsAreReportedAndCompleted(t *testing.T) {
	for _, tc := range []struct{ what, body, code string }{
		{"text", "hello", "not-a-command"},
		{"imitated metadata", `{"messageId":"x","sessionId":"other","deliveryCount":0}`, "not-a-command"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
				session := name
				w.Command(session, tc.body)
				w.Settle()
				got := failures(w)
				if len(got) != 1 || got[0].Code != tc.code || got[0].PAT != session {
					t.Errorf("failures %+v", got)
				}
				if c := w.Cloud.Bus.Counts(cloud.CommandQueue); c.Active != 0 || c.DeadLetter != 0 {
					t.Errorf("the queue holds %+v", c)
				}
			})
		})
	}
}

// Another instance may have a newer manifest: a command for an entry that this one does
// not know waits for a day.
func TestACommandForAnUnknownEntryWaitsForADayAndIsThenReported(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		w.Command("jenkins-agents2", `{"command":"reconcile","pat":"jenkins-agents2"}`)
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if got := failures(w); len(got) != 0 {
			t.Errorf("failures within a day: %+v, want none", got)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		got := failures(w)
		if len(got) != 1 || got[0].Code != "unknown-entry" || got[0].PAT != "jenkins-agents2" {
			t.Errorf("failures after a day: %+v, want unknown-entry once", got)
		}
		if c := w.Cloud.Bus.Counts(cloud.CommandQueue); c.Active != 0 || c.Scheduled != 0 || c.DeadLetter != 0 {
			t.Errorf("the queue holds %+v, want nothing", c)
		}
	})
}

func TestACommandInAnotherSessionIsSentOnIntoItsOwn(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		w.Command("somewhere", `{"command":"reconcile","pat":"JENKINS-agents"}`)
		w.Settle()
		if len(rotations(w)) != 1 {
			t.Fatalf("%d rotations", len(rotations(w)))
		}
		var sessions []string
		for _, m := range w.Cloud.Messages(cloud.CommandQueue) {
			sessions = append(sessions, m.SessionID)
		}
		if fmt.Sprint(sessions) != "[somewhere jenkins-agents]" {
			t.Errorf("sessions %v", sessions)
		}
	})
}

func TestTheVaultsOwnEventsCauseNoRotation(t *testing.T) {
	// Lives of 7 days: each version is near its expiry, by Key Vault's measure, when
	// it is made.
	short := strings.Replace(onePAT, "pats:\n", "defaults: {lifetime: 7d, rotateBefore: 3d, overlap: 2h}\npats:\n", 1)
	withWorld(t, simulation.Config{Manifest: short}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n := len(w.Cloud.Messages(cloud.VaultEventQueue)); n < 2 {
			t.Fatalf("%d events of the vault: this test shows nothing", n)
		}
		if n := len(w.Cloud.Vault.Versions(name)); n != 1 {
			t.Errorf("%d versions: the vault's events rotate", n)
		}
	})
}

func TestASecretPutThereByHandIsSeenByTheVaultsEvent(t *testing.T) {
	withWorld(t, simulation.Config{Schedule: "0 0 3 1 1 *"}, func(t *testing.T, w *simulation.World) {
		id, token := w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "Jenkins agents",
			"vso.agentpools_manage vso.build_execute", time.Now().Add(29*day), false)
		if _, err := w.Cloud.Vault.Put(keyvault.Version{Name: name, Value: token}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if v := latest(t, w); v.Tags["CredentialId"] != id {
			t.Errorf("tags %v: not adopted without a sweep", v.Tags)
		}
	})
}

func TestAReleasedPATIsReportedAndNotRevoked(t *testing.T) {
	two := onePAT + `  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
`
	withWorld(t, simulation.Config{Manifest: two}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		w.SetManifest(onePAT)
		w.Restart()
		sweep(t, w)
		if len(live(w)) != 2 {
			t.Errorf("%d PATs alive, want both", len(live(w)))
		}
		var list struct {
			Pats, Released []struct{ Name string }
			Unmanaged      []any
		}
		if code := w.HTTP("GET", "/api/pats", nil, &list); code != 200 {
			t.Fatalf("the list answered %d", code)
		}
		if len(list.Pats) != 1 || len(list.Unmanaged) != 0 {
			t.Errorf("managed %+v, unmanaged %+v, want one and none", list.Pats, list.Unmanaged)
		}
		if len(list.Released) != 1 || list.Released[0].Name != "nuget-feed" {
			t.Errorf("released %+v, want nuget-feed", list.Released)
		}
	})
}

func TestThePATOfARefusedEntryIsNotCalledReleased(t *testing.T) {
	const entry = `  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
`
	const adopt = "    adopt: 0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e\n"
	twice := onePAT + entry + adopt + strings.Replace(entry, "nuget-feed", "npm-feed", 1) + adopt
	withWorld(t, simulation.Config{Manifest: onePAT + entry}, func(t *testing.T, w *simulation.World) {
		sweep(t, w)
		w.SetManifest(twice)
		w.Restart()
		sweep(t, w)
		var list struct{ Pats, Released, Unmanaged []struct{ Name string } }
		if code := w.HTTP("GET", "/api/pats", nil, &list); code != 200 {
			t.Fatalf("the list answered %d", code)
		}
		if len(list.Pats) != 1 {
			t.Errorf("managed %+v, want one", list.Pats)
		}
		if len(list.Released) != 0 {
			t.Errorf("released %+v, want none", list.Released)
		}
		if len(list.Unmanaged) != 0 {
			t.Errorf("unmanaged %+v, want none", list.Unmanaged)
		}
		var plan struct {
			Changes []struct{ Action, PAT string }
		}
		if code := w.HTTP("POST", "/api/check?dryRun=true", `{}`, &plan); code != 200 {
			t.Fatalf("the plan answered %d", code)
		}
		if len(plan.Changes) != 0 {
			t.Errorf("the plan has %+v, want nothing", plan.Changes)
		}
		if len(live(w)) != 2 {
			t.Errorf("%d PATs alive, want both", len(live(w)))
		}
	})
}

func TestTheStatusHasARenamedUsersNameOfToday(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		const today = "build-robot@contoso.com"
		sweep(t, w)
		if err := w.Cloud.Entra.RenameUser(cloud.User, today); err != nil {
			t.Fatal(err)
		}
		w.Cloud.DevOps.RenameUser(cloud.User, today)
		time.Sleep(3 * time.Hour) // the access token with the name before has ended
		sweep(t, w)
		var status struct {
			Identities []struct{ User, Renamed, State string }
		}
		if code := w.HTTP("GET", "/api/status", nil, &status); code != 200 {
			t.Fatalf("the status answered %d", code)
		}
		if len(status.Identities) != 1 {
			t.Fatalf("identities %+v, want one", status.Identities)
		}
		if got := status.Identities[0].Renamed; got != today {
			t.Errorf("today's name %q, want %q", got, today)
		}
		if got := status.Identities[0].User; got != cloud.User {
			t.Errorf("the manifest's name %q, want %q", got, cloud.User)
		}
		if got := status.Identities[0].State; got != "signed-in" {
			t.Errorf("the state is %s, want signed-in", got)
		}
	})
}

func TestUnmanagedPATsAreAnnouncedBeforeTheyExpire(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		w.Cloud.DevOps.Seed(cloud.Organization, cloud.User, "somebody's own", "vso.code", time.Now().Add(16*day), false)
		for range 17 {
			time.Sleep(day)
			synctest.Wait()
		}
		var days []string
		for _, e := range w.Events() {
			if _, ok := e.Data.(events.Expiring); ok {
				days = append(days, e.ID[strings.LastIndexByte(e.ID, '/')+1:])
			}
		}
		if fmt.Sprint(days) != "[14 7 1]" {
			t.Errorf("events at %v days before the end, want [14 7 1], once each", days)
		}
	})
}

func TestASweepGoesOnPastAnOrganizationThatIsDown(t *testing.T) {
	two := onePAT + `  - name: nuget-feed
    identity: build-bot
    organization: fabrikam
    scopes: [vso.packaging]
`
	withWorld(t, simulation.Config{Manifest: two, OneProcess: true}, func(t *testing.T, w *simulation.World) {
		w.Cloud.AddOrganization("fabrikam")
		w.Cloud.DevOps.SetOffline("fabrikam", true)
		if err := w.Sweep(); err == nil {
			t.Error("the sweep succeeds although it could not check everything")
		}
		if _, ok := w.Latest(name); !ok {
			t.Error("the other organization's PAT was not provisioned")
		}
		var status struct {
			LastSweep struct {
				Problems []struct{ Organization string }
			}
		}
		if code := w.HTTP("GET", "/api/status", nil, &status); code != 200 {
			t.Fatalf("status answered %d", code)
		}
		if p := status.LastSweep.Problems; len(p) != 1 || p[0].Organization != "fabrikam" {
			t.Errorf("problems of the last sweep: %+v, want one of fabrikam", p)
		}
	})
}

func TestAPlanChangesNothing(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		before := len(w.Cloud.History())
		var plan struct {
			Pats []struct {
				State      string
				NextAction struct{ Action, Reason string }
			}
		}
		if code := w.HTTP("POST", "/api/check?dryRun=true", nil, &plan); code != 200 || len(plan.Pats) != 1 {
			t.Fatalf("the dry run answered %d with %+v, want 200 and one PAT", code, plan)
		}
		p := plan.Pats[0]
		if got := p.State + " " + p.NextAction.Action + " " + p.NextAction.Reason; got != "missing rotate provision" {
			t.Errorf("the plan is %q, want missing rotate provision", got)
		}
		w.Settle()
		if after := len(w.Cloud.History()); after != before {
			t.Errorf("%d changes, want none", after-before)
		}
		if code := w.HTTP("POST", "/api/check", nil, nil); code != 202 {
			t.Errorf("check answered %d", code)
		}
		w.Settle()
		if len(rotations(w)) != 1 {
			t.Errorf("%d rotations after the sweep on demand", len(rotations(w)))
		}
	})
}

func TestABrokenConfigurationIsReportedEverywhereAndTheProcessLives(t *testing.T) {
	withWorld(t, simulation.Config{Manifest: "apiVersion: patrol/v1\npats:\n  - nme: x\n"},
		func(t *testing.T, w *simulation.World) {
			var problem struct {
				Type   string
				Errors []string
			}
			code := w.HTTP("GET", "/api/pats", nil, &problem)
			if code != 503 || problem.Type != "urn:patrol:problem:configuration" {
				t.Errorf("the list answered %d %s, want 503 and a configuration problem", code, problem.Type)
			}
			if len(problem.Errors) < 2 {
				t.Errorf("errors %q, want all of them", problem.Errors)
			}
			var health struct{ Status string }
			if code := w.HTTP("GET", "/api/health", nil, &health); code != 503 || health.Status != "configuration" {
				t.Errorf("health: %d %+v", code, health)
			}
			if err := w.Sweep(); err == nil {
				t.Error("the timer's function succeeds, want it to fail")
			}
			// A message takes minutes to the dead-letter queue, where it is kept.
			began := time.Now()
			w.Command(name, `{"command":"reconcile","pat":"jenkins-agents"}`)
			for w.Cloud.Bus.Counts(cloud.CommandQueue).Active > 0 && time.Since(began) < time.Hour {
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if took := time.Since(began); took < 3*time.Minute {
				t.Errorf("dead-lettered after %s", took)
			}
			if c := w.Cloud.Bus.Counts(cloud.CommandQueue); c.DeadLetter != 1 {
				t.Errorf("the queue holds %+v, want the message in the dead-letter queue", c)
			}
		})
}
