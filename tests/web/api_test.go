package web_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/web"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const twoPeople = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
  night-bot:
    user: night-bot@contoso.com
pats:
  - {name: a, identity: build-bot, organization: contoso, scopes: [vso.code]}
  - {name: b, identity: build-bot, organization: fabrikam, scopes: [vso.code]}
  - {name: c, identity: night-bot, organization: contoso, scopes: [vso.code]}
`

func names(l web.Listing) []string {
	var out []string
	for _, p := range l.PATs {
		out = append(out, p.Name)
	}
	for _, p := range l.Released {
		out = append(out, "released "+p.Name)
	}
	for _, p := range l.Unmanaged {
		out = append(out, "unmanaged "+p.DisplayName)
	}
	return out
}

func TestAListIsFilteredByEachPartOfItsQuery(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPeople}, func(t *testing.T, r *fixture) {
		r.Cloud.AddOrganization("fabrikam")
		r.Cloud.AddUser("night-bot@contoso.com")
		if err := r.Cloud.SignIn("night-bot", "night-bot@contoso.com"); err != nil {
			t.Fatal(err)
		}
		r.sweep()
		r.byHand("soon", "vso.code", 5, false)
		r.byHand("everywhere", "vso.code", 60, true)
		r.byHand("may do all", "app_token", 90, false)
		if _, err := r.Cloud.Vault.Put(keyvault.Version{Name: "former", Value: "x", Tags: map[string]string{
			"CredentialId": unknownID, "ProviderAddress": "https://dev.azure.com/contoso",
			"patrol-rotation": "aaaaaaaaaa", "patrol-identity": "night-bot"}}); err != nil {
			t.Fatal(err)
		}
		const byHand = "unmanaged soon, unmanaged everywhere, unmanaged may do all"
		for query, want := range map[string]string{
			"":                      "a, b, c, released former, " + byHand,
			"state=current":         "a, b, c",
			"state=due":             "",
			"state=released":        "released former",
			"state=unmanaged":       byHand,
			"organization=Fabrikam": "b",
			"identity=night-bot":    "c, released former",
			"kind=managed":          "a, b, c",
			"kind=unmanaged":        byHand,
			"kind=global":           "unmanaged everywhere",
			"kind=full-scope":       "unmanaged may do all",
			"kind=expiring":         "unmanaged soon",
			"kind=managed&identity=build-bot&organization=contoso": "a",
		} {
			var l web.Listing
			r.ask("GET", "/api/pats?"+query, "").want(200, "").into(&l)
			if got := strings.Join(names(l), ", "); got != want {
				t.Errorf("?%s lists %s, want %s", query, got, want)
			}
			check(t, "counts of ?"+query, l.Counts, web.Inventory{Managed: 3, Unmanaged: 3, Released: 1, Global: 1,
				FullScope: 1, Expiring: 1})
		}
		for _, query := range []string{"state=old", "kind=x", "limit=0", "limit=501", "limit=x", "cursor=x", "cursor=",
			"organisation=contoso", "kind=managed&kind=managed"} {
			if query == "cursor=" {
				r.ask("GET", "/api/pats?"+query, "").want(200, "")
				continue
			}
			r.ask("GET", "/api/pats?"+query, "").want(400, "bad-request")
		}
		var l web.Listing
		r.ask("GET", "/api/pats?kind=global", "").into(&l)
		global := l.Unmanaged[0]
		check(t, "the global PAT", global.DisplayName, "everywhere")
		if global.DeadFrom == nil {
			t.Fatal("it is not said when the global PAT ceases to work")
		}
		check(t, "the end of global PATs", *global.DeadFrom, rotation.GlobalEnd().UTC())
	})
}

func TestPagesShowEveryPATOnce(t *testing.T) {
	manifest := "apiVersion: patrol/v1\nidentities: {build-bot: {user: build-bot@contoso.com}}\npats:\n"
	var want []string
	for i := range 23 {
		want = append(want, fmt.Sprintf("pat-%02d", 22-i))
		manifest += fmt.Sprintf("  - {name: %s, identity: build-bot, organization: contoso, scopes: [vso.code]}\n",
			want[i])
	}
	slices.Sort(want)
	run(t, simulation.Config{Manifest: manifest}, func(t *testing.T, r *fixture) {
		for i := range 9 {
			want = append(want, fmt.Sprintf("unmanaged by hand %d", i))
			r.byHand(fmt.Sprintf("by hand %d", i), "vso.code", 30+i, false)
		}
		r.Cloud.Injector.ResetCounts()
		var got []string
		pages, next := 0, "/api/pats?limit=5"
		for next != "" {
			var l web.Listing
			r.ask("GET", next, "").want(200, "").into(&l)
			if n := len(names(l)); n > 5 {
				t.Fatalf("a page of %d", n)
			}
			if strings.Contains(l.Next, "code=") {
				t.Errorf("a link with a key: %s", l.Next)
			}
			got, next = append(got, names(l)...), l.Next
			pages++
		}
		check(t, "what the pages show", got, want)
		check(t, "pages", pages, 7)
		if n := r.Cloud.Injector.Count(devops.ServiceName, devops.ListPats); n != 1 {
			t.Errorf("turning %d pages listed the PATs %d times", pages, n)
		}
		// A cursor belongs to its filters.
		var first web.Listing
		r.ask("GET", "/api/pats?limit=5", "").into(&first)
		r.ask("GET", strings.Replace(first.Next, "limit=5", "kind=managed", 1), "").want(400, "bad-request")
		// What has come and gone between two pages does not shift the others.
		time.Sleep(2 * time.Minute)
		var second web.Listing
		r.ask("GET", first.Next, "").into(&second)
		if got := names(second); !slices.Equal(got, want[5:10]) {
			t.Errorf("the second page two minutes later: %q", got)
		}
	})
}

func TestAPATsHistorySaysWhoAskedForWhat(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		ada := "X-Ms-Client-Principal-Name: ada@contoso.com"
		time.Sleep(time.Hour)
		r.ask("POST", "/api/pats/jenkins-agents/extend", fmt.Sprintf(`{"validTo":%q}`, time.Now().AddDate(0, 0, 45).
			UTC().Format(time.RFC3339)), ada).want(200, "")
		time.Sleep(time.Hour)
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"revokePrevious":"now"}`, ada).want(202, "")
		r.Settle()
		var p web.ManagedPAT
		r.ask("GET", "/api/pats/Jenkins-Agents", "").want(200, "").into(&p)
		var got []string
		for _, a := range p.History {
			got = append(got, strings.TrimSpace(a.Act+" "+a.Reason+" by "+a.By))
		}
		want := []string{"rotated compromised by ada@contoso.com", "revoked requested by ada@contoso.com",
			"extended  by ada@contoso.com", "provisioned provision by timer"}
		slices.Sort(got[:2]) // of one second
		slices.Sort(want[:2])
		check(t, "history", got, want)
		if len(p.Versions) != 2 || p.NextAction == nil {
			t.Fatalf("versions %+v, next action %+v, want two and one", p.Versions, p.NextAction)
		}
		check(t, "the first version is the latest", p.Versions[0].Latest, true)
		check(t, "who asked for it", p.Versions[0].RequestedBy, "ada@contoso.com")
		check(t, "the second version is revoked", p.Versions[1].RevokedAt != nil, true)
		check(t, "state", p.State, "current")
		check(t, "next action", p.NextAction.Action, "nothing")
		check(t, "the next action's message is empty", p.NextAction.Message == "", false)
		// The failure that stands is there too.
		r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat, Mode: faults.Status,
			Status: 400, Times: -1})
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", ada).want(202, "")
		r.Settle()
		r.ask("GET", "/api/pats/jenkins-agents", "").into(&p)
		check(t, "there is a failure", p.Failure != nil, true)
		check(t, "the last act", p.History[0].Act, "failed")
		check(t, "the last act's message is empty", p.History[0].Message == "", false)
	})
}

func TestTheSameKeyRotatesOnce(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		key := "Idempotency-Key: deploy-4711"
		before := r.commands()
		first := r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"x"}`, key).want(202, "")
		second := r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"x"}`, key).want(202, "")
		if string(first.body) != string(second.body) || second.header.Get("Location") != "/api/pats/jenkins-agents" {
			t.Errorf("two answers:\n%s\n%s", first.body, second.body)
		}
		r.Settle()
		if n := r.commands() - before; n != 2 { // the order, and the scheduled revocation
			t.Errorf("%d commands", n)
		}
		version := r.latest(name)
		// Another process does not remember; the version that came of it does.
		r.Restart()
		third := r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"x"}`, key).want(202, "")
		if string(first.body) != string(third.body) {
			t.Errorf("after a restart:\n%s\n%s", first.body, third.body)
		}
		r.Settle()
		if now := r.latest(name); now.ID != version.ID {
			t.Error("the same key rotated twice")
		}
		for _, another := range []struct{ path, body string }{{"jenkins-agents", `{"reason":"y"}`},
			{"jenkins-agents", `{"revokePrevious":"now"}`}, {"nuget-feed", `{"reason":"x"}`}} {
			r.ask("POST", "/api/pats/"+another.path+"/rotate", another.body, key).want(422, "idempotency-key-reused")
		}
		r.ask("POST", "/api/pats/jenkins-agents/extend", `{"validTo":"2030-01-01T00:00:00Z"}`, key).want(422,
			"idempotency-key-reused")
		r.ask("POST", "/api/check", "", key).want(422, "idempotency-key-reused")
		// Another caller's key is another key.
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"z"}`, key,
			"X-Ms-Client-Principal-Name: ada@contoso.com").want(202, "")
		for _, bad := range []string{"two words", strings.Repeat("k", 129), "kä"} {
			r.ask("POST", "/api/pats/jenkins-agents/rotate", "", "Idempotency-Key: "+bad).want(400, "bad-request")
		}
	})
}

func TestAFailedActLeavesItsKeyFree(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		key := "Idempotency-Key: k1"
		r.ask("POST", "/api/pats/nobody/rotate", "", key).want(404, "unknown-pat")
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", key).want(202, "")
	})
}

func TestRequestsWithOneKeyAtOnceAreOne(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.Settle() // the sweep's own commands are there
		before := r.commands()
		var wg sync.WaitGroup
		bodies := make([]string, 8)
		for i := range bodies {
			wg.Go(func() {
				a := r.ask("POST", "/api/pats/jenkins-agents/rotate", "", "Idempotency-Key: same")
				bodies[i] = fmt.Sprint(a.code, string(a.body))
			})
		}
		wg.Wait()
		for _, b := range bodies {
			if b != bodies[0] || !strings.HasPrefix(b, "202") {
				t.Errorf("answers differ: %s and %s", bodies[0], b)
			}
		}
		r.Settle()
		check(t, "commands: the order, and the scheduled revocation", r.commands()-before, 2)
	})
}

func TestAnExtendedPATKeepsItsValueAndIsRotatedLater(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		before := r.latest(name)
		time.Sleep(5 * rotation.Day)
		end := time.Now().AddDate(0, 0, 60).UTC().Truncate(time.Second)
		var x web.Extension
		extend := func() *answer {
			return r.ask("POST", "/api/pats/jenkins-agents/extend", fmt.Sprintf(`{"validTo":%q}`,
				end.Format(time.RFC3339)))
		}
		extend().want(200, "").into(&x)
		after := r.latest(name)
		if after.ID != before.ID || after.Value != before.Value {
			t.Error("the value changed")
		}
		check(t, "the end at Azure DevOps", r.pat(x.AuthorizationID).ValidTo.UTC(), end)
		check(t, "the end in the answer", x.ValidTo, end)
		check(t, "the secret's end", after.Expires.UTC(), end)
		check(t, "clamped", x.Clamped, false)
		if after.Tags["ValidityPeriodDays"] != "65" {
			t.Errorf("a life of %s days in the tag, want 65", after.Tags["ValidityPeriodDays"])
		}
		// 10 days before its end, and up to a tenth of the rest earlier.
		if x.RotateAt == nil || x.RotateAt.After(end.Add(-10*rotation.Day)) ||
			x.RotateAt.Before(end.Add(-12*rotation.Day)) {
			t.Errorf("rotated at %v, and it ends at %v", x.RotateAt, end)
		}
		extend().want(200, "") // a repeat
		time.Sleep(time.Until(*x.RotateAt) - time.Hour)
		r.sweep()
		if r.latest(name).ID != before.ID {
			t.Error("rotated before its new time")
		}
		time.Sleep(time.Hour)
		r.sweep()
		now := r.latest(name)
		if now.ID == before.ID {
			t.Fatal("not rotated at its new time")
		}
		if !r.Cloud.DevOps.Works(cloud.Organization, now.Value) || !r.Cloud.DevOps.Works(cloud.Organization,
			before.Value) {
			t.Error("one of the two does not work in the overlap")
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if r.Cloud.DevOps.Works(cloud.Organization, before.Value) {
			t.Error("the replaced PAT outlived its overlap")
		}
	})
}

func TestAnEndThatCannotBeGivenIsRefused(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
		r.ask("POST", "/api/pats/jenkins-agents/extend", `{"validTo":"2099-01-01T00:00:00Z"}`).want(422, "bad-valid-to")
		in := func(days int) string {
			return fmt.Sprintf(`{"validTo":%q}`, time.Now().AddDate(0, 0, days).UTC().Format(time.RFC3339))
		}
		r.ask("POST", "/api/pats/jenkins-agents/extend", in(40)).want(422, "not-provisioned")
		if _, err := r.Cloud.Vault.Put(keyvault.Version{Name: "nuget-feed", Value: "by hand"}); err != nil {
			t.Fatal(err)
		}
		r.ask("POST", "/api/pats/nuget-feed/extend", in(40)).want(422, "not-ours")
		r.sweep()
		for body, problem := range map[string]string{
			in(-1): "bad-valid-to", in(20): "bad-valid-to", in(366): "bad-valid-to",
		} {
			r.ask("POST", "/api/pats/jenkins-agents/extend", body).want(422, problem)
		}
		for _, body := range []string{"", "{}", `{"validTo":null}`, `{"validTo":"soon"}`, `{"validTo":7}`,
			`{"until":"x"}`, "[]", "{} {}"} {
			r.ask("POST", "/api/pats/jenkins-agents/extend", body).want(400, "bad-request")
		}
		r.ask("POST", "/api/pats/nobody/extend", in(40)).want(404, "unknown-pat")

		// A policy gives less than was asked for, or refuses.
		r.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{MaxLifespanDays: 33})
		var x web.Extension
		r.ask("POST", "/api/pats/jenkins-agents/extend", in(60)).want(200, "").into(&x)
		check(t, "clamped", x.Clamped, true)
		check(t, "the secret's end", r.latest(name).Expires.UTC(), x.ValidTo.Truncate(time.Second))
		if days := time.Until(x.ValidTo) / rotation.Day; days > 33 {
			t.Errorf("clamped to %d days, want 33 at most", days)
		}
		r.Cloud.DevOps.Switch(func(s *devops.Switches) { s.LifespanError = true })
		r.ask("POST", "/api/pats/jenkins-agents/extend", in(60)).want(422, "extension-refused")

		r.Cloud.DevOps.Revoke(x.AuthorizationID)
		r.ask("POST", "/api/pats/jenkins-agents/extend", in(60)).want(409, "pat-gone")
	})
}

func TestAnExtensionThatTheVaultDoesNotTakeIsRepairedByARepeat(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		end := time.Now().AddDate(0, 0, 50).UTC().Truncate(time.Second)
		body := fmt.Sprintf(`{"validTo":%q}`, end.Format(time.RFC3339))
		was := r.latest(name)
		r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.UpdateSecret, Mode: faults.Status,
			Status: 403})
		r.ask("POST", "/api/pats/jenkins-agents/extend", body, "Idempotency-Key: again").want(502, "upstream")
		if !r.latest(name).Expires.Equal(was.Expires) {
			t.Fatal("the fault did not take")
		}
		// Until then it is as if nothing had been asked: it is replaced when it was due.
		time.Sleep(15 * rotation.Day)
		r.sweep()
		if r.latest(name).ID != was.ID {
			t.Error("rotated before it was due")
		}
		r.ask("POST", "/api/pats/jenkins-agents/extend", body, "Idempotency-Key: again").want(200, "")
		if got := r.latest(name).Expires; !got.Equal(end) {
			t.Errorf("the secret says %v, want %v", got, end)
		}
	})
}

func TestAnExtensionThatMeetsARotationDoesNotProlongTheReplacedPAT(t *testing.T) {
	run(t, simulation.Config{Hosts: 2}, func(t *testing.T, r *fixture) {
		r.sweep()
		was := r.latest(name)
		id := was.Tags["CredentialId"]
		end := r.pat(id).ValidTo
		// The other instance rotates between the extension at Azure DevOps and the
		// second read of the secret.
		r.inject(faults.Fault{Service: devops.ServiceName, Operation: devops.UpdatePat, Mode: faults.Slow,
			Delay: 20 * time.Second})
		done := make(chan *answer)
		go func() {
			done <- r.ask("POST", "/api/pats/jenkins-agents/extend", fmt.Sprintf(`{"validTo":%q}`,
				time.Now().AddDate(0, 0, 90).UTC().Format(time.RFC3339)))
		}()
		time.Sleep(time.Second)
		if _, err := r.Cloud.Vault.Put(keyvault.Version{Name: name, Value: "another instance's", Expires: end,
			Tags: map[string]string{
				"CredentialId": unknownID, "ProviderAddress": was.Tags["ProviderAddress"],
				"patrol-rotation": "aaaaaaaaaa",
				"patrol-identity": "build-bot",
				"patrol-previous": id, "patrol-previous-version": was.ID, "patrol-revoke-previous-at": time.Now().
							Add(24 * time.Hour).UTC().Format(time.RFC3339)}}); err != nil {
			t.Fatal(err)
		}
		a := <-done
		a.t = t
		a.want(409, "pat-replaced")
		if got := r.pat(id).ValidTo; got.After(end.Add(time.Second)) {
			t.Errorf("the replaced PAT ends at %v, it was %v", got, end)
		}
	})
}

func TestARevocationSparesWhatReadersUse(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
		r.sweep()
		unmanaged := r.byHand("by hand", "vso.code", 30, false)
		r.ask("DELETE", "/api/tokens/"+unmanaged, "").want(204, "")
		if r.pat(unmanaged).State != devops.Revoked {
			t.Error("still alive")
		}
		r.ask("DELETE", "/api/tokens/"+strings.ToUpper(unmanaged), "").want(204, "") // and again
		r.ask("DELETE", "/api/tokens/"+unmanaged+"?organization=contoso&identity=build-bot", "").want(204, "")
		r.ask("DELETE", "/api/tokens/"+unknownID, "").want(404, "unknown-token")
		r.ask("DELETE", "/api/tokens/"+unknownID+"?organization=nowhere", "").want(404, "unknown-token")
		r.ask("DELETE", "/api/tokens/abc", "").want(400, "bad-request")
		for _, query := range []string{"force=yes", "x=1", "identity=a&identity=b"} {
			r.ask("DELETE", "/api/tokens/"+unmanaged+"?"+query, "").want(400, "bad-request")
		}

		was := r.latest(name)
		current := was.Tags["CredentialId"]
		var refusal struct{ Links web.Links }
		r.ask("DELETE", "/api/tokens/"+current, "").want(409, "pat-in-use").into(&refusal)
		check(t, "the link to rotate", refusal.Links.Rotate, "/api/pats/jenkins-agents/rotate")
		check(t, "the current PAT", r.pat(current).State, devops.Active)
		var done web.Revocation
		a := r.ask("DELETE", "/api/tokens/"+current+"?force=true", "", "X-Ms-Client-Principal-Name: ada@contoso.com").
			want(202, "").into(&done)
		check(t, "replacing", done.Replacing, name)
		check(t, "Location", a.header.Get("Location"), "/api/pats/jenkins-agents")
		check(t, "the operation is missing", done.Operation == "", false)
		r.Settle()
		now := r.latest(name)
		check(t, "the version is the one before", now.ID == was.ID, false)
		check(t, "the new PAT works", r.Cloud.DevOps.Works(cloud.Organization, now.Value), true)
		check(t, "the revoked PAT", r.pat(current).State, devops.Revoked)
		check(t, "the operation", now.Tags["patrol-operation"], done.Operation)
	})
}

func TestAPATThatIsBeingStoredIsNotRevoked(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.SetSecret, Mode: faults.Slow,
			Delay: 15 * time.Second})
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
		time.Sleep(5 * time.Second)
		var id string
		for _, p := range r.Cloud.DevOps.PATs(cloud.Organization, cloud.User) {
			id = p.AuthorizationID
		}
		r.ask("DELETE", "/api/tokens/"+id, "").want(409, "pat-in-use")
		r.Settle()
		time.Sleep(30 * time.Second)
		r.Settle()
		if v := r.latest(name); !r.Cloud.DevOps.Works(cloud.Organization, v.Value) {
			t.Error("the stored PAT does not work")
		}
	})
}

func TestAReleasedSecretsPATIsNotRevokedUnforced(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
		r.sweep()
		id := r.latest("nuget-feed").Tags["CredentialId"]
		r.SetManifest(onePAT)
		r.Restart()
		var refusal struct{ Links *web.Links }
		r.ask("DELETE", "/api/tokens/"+id, "").want(409, "pat-in-use").into(&refusal)
		if refusal.Links != nil {
			t.Errorf("a link to rotate what is not in the manifest: %+v", refusal.Links)
		}
		r.ask("DELETE", "/api/tokens/"+id+"?force=true", "").want(204, "")
	})
}

func TestADryRunShowsWhatASweepWouldDo(t *testing.T) {
	run(t, simulation.Config{Manifest: twoPATs}, func(t *testing.T, r *fixture) {
		changes := func() []string {
			t.Helper()
			var p web.PlanReport
			r.ask("POST", "/api/check?dryRun=true", "").want(200, "").into(&p)
			var out []string
			for _, c := range p.Changes {
				if c.Message == "" {
					t.Errorf("no message: %+v", c)
				}
				out = append(out, c.Action+" "+c.PAT)
			}
			return out
		}
		if got := changes(); !slices.Equal(got, []string{"create jenkins-agents", "create nuget-feed"}) {
			t.Errorf("at first: %q", got)
		}
		if r.commands() != 0 {
			t.Error("a dry run sent commands")
		}
		r.sweep()
		if got := changes(); len(got) != 0 {
			t.Errorf("at rest: %q", got)
		}
		r.SetManifest(strings.Replace(onePAT, "vso.build_execute", "vso.code", 1))
		r.Restart()
		if got := changes(); !slices.Equal(got, []string{"rotate jenkins-agents", "release nuget-feed"}) {
			t.Errorf("with another manifest: %q", got)
		}
		r.sweep()
		if got := changes(); !slices.Equal(got, []string{"revoke jenkins-agents", "release nuget-feed"}) {
			t.Errorf("in the overlap: %q", got)
		}
		r.ask("POST", "/api/check?dryRun=perhaps", "").want(400, "bad-request")
	})
}

func TestEveryActLeavesOneLineInTheLog(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		ada := "X-Ms-Client-Principal-Name: ada@contoso.com"
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", ada, "Idempotency-Key: a1").want(202, "")
		r.ask("POST", "/api/pats/jenkins-agents/rotate", "", ada, "Idempotency-Key: a1").want(202, "")
		r.Settle()
		r.ask("POST", "/api/pats/nobody/rotate", "", ada).want(404, "")
		r.ask("DELETE", "/api/tokens/"+unknownID, "", ada).want(404, "")
		r.ask("POST", "/api/pats/jenkins-agents/extend", `{"validTo":"2000-01-01T00:00:00Z"}`, ada).want(422, "")
		r.ask("POST", "/api/check", "", ada).want(202, "")
		type line struct{ Msg, Who, Trigger, Act, Target, Outcome, Activity string }
		var got []string
		for text := range strings.Lines(r.Output()) {
			var l line
			if json.Unmarshal([]byte(text), &l) == nil && l.Msg == "audit" && l.Who != "timer" {
				if l.Activity == "" {
					t.Errorf("no activity: %s", text)
				}
				got = append(got, strings.Join([]string{l.Who, l.Trigger, l.Act, l.Target, l.Outcome}, " "))
			}
		}
		want := []string{
			"ada@contoso.com http rotate jenkins-agents done",
			"ada@contoso.com http rotate jenkins-agents repeated",
			"ada@contoso.com command rotate jenkins-agents done",
			"ada@contoso.com http rotate nobody unknown-pat",
			"ada@contoso.com http revoke " + unknownID + " unknown-token",
			"ada@contoso.com http extend jenkins-agents bad-valid-to",
			"ada@contoso.com http sweep  done",
		}
		slices.Sort(got)
		slices.Sort(want)
		check(t, "lines", got, want)
	})
}

func TestTooLargeABodyIsRefused(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"`+strings.Repeat("x", web.MaxBody)+`"}`).want(413,
			"too-large")
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"reason":"`+strings.Repeat("x", 257)+`"}`).want(400,
			"bad-request")
		r.ask("POST", "/api/pats/jenkins-agents/rotate", `{"revokePrevious":"never"}`).want(400, "bad-request")
	})
}
