package vault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

var ctx = context.Background()

func ledger(id, previous, previousVersion string) rotation.Ledger {
	l := rotation.Ledger{
		AuthorizationID: id, ProviderAddress: "https://dev.azure.com/contoso", ValidityDays: 30,
		RotationID: "abcdefghij", Identity: "build-bot", Reason: rotation.Expiring,
	}
	if previous != "" {
		l.Previous, l.PreviousVersion = previous, previousVersion
		l.RevokePreviousAt = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	return l
}

func TestARotationsSecretThroughTheRealClient(t *testing.T) {
	r := overLoopback(t)

	// Nothing there yet.
	if _, err := r.Current(ctx, "jenkins-agents"); !errors.Is(err, rotation.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}

	// The first version carries value, expiry and ledger.
	first := r.store(t, "jenkins-agents", "one", ledger("auth-1", "", ""))
	kept := r.kv.Versions("jenkins-agents")
	if len(kept) != 1 {
		t.Fatalf("%d versions, want 1", len(kept))
	}
	wantTags := map[string]string{
		"CredentialId": "auth-1", "ProviderAddress": "https://dev.azure.com/contoso", "ValidityPeriodDays": "30",
		"patrol-rotation": "abcdefghij", "patrol-identity": "build-bot", "patrol-reason": "expiring",
	}
	if !maps.Equal(kept[0].Tags, wantTags) {
		t.Errorf("tags %v, want %v", kept[0].Tags, wantTags)
	}
	equal(t, "content type", kept[0].ContentType, "application/vnd.patrol.pat")
	equal(t, "value", kept[0].Value, pat+"one")
	equal(t, "enabled", kept[0].Enabled, true)
	equal(t, "id that Store returns", first.ID, kept[0].ID)
	equal(t, "URL that Store returns", first.URL, kept[0].URL)
	equal(t, "value that Store returns", first.Value.Reveal(), pat+"one")
	equal(t, "enabled as Store returns it", first.Enabled, true)
	equalTimes(t, "end that Store returns", first.Expires, kept[0].Expires)
	if _, err := r.kv.Change("jenkins-agents", first.ID,
		func(v *keyvault.Version) { v.Tags["team"] = "ci" }); err != nil {
		t.Fatal(err)
	}

	// The second replaces it and keeps the tags of others.
	current, err := r.Current(ctx, "jenkins-agents")
	if err != nil || current.Value.Reveal() != pat+"one" || current.Foreign["team"] != "ci" {
		t.Fatalf("current %+v, %v", current, err)
	}
	second, err := r.Store(ctx, "jenkins-agents", rotation.Content{
		Value: rotation.NewSecret(pat + "two"), Expires: time.Now().Add(time.Hour), Ledger: ledger("auth-2", "auth-1",
			first.ID), Foreign: current.Foreign,
	})
	if err != nil {
		t.Fatal(err)
	}
	current, err = r.Current(ctx, "jenkins-agents")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "current version", current.ID, second.ID)
	equal(t, "its ledger", current.Ledger, ledger("auth-2", "auth-1", first.ID))
	equal(t, "its foreign tag", current.Foreign["team"], "ci")

	// The event is noted on it.
	current.Ledger.AnnouncedAt = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	updated, err := r.Update(ctx, current)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "updated ledger", updated.Ledger, current.Ledger)
	equal(t, "value after the update", updated.Value.Reveal(), pat+"two")
	equal(t, "foreign tag after the update", updated.Foreign["team"], "ci")
	equalTimes(t, "end after the update", updated.Expires, second.Expires)

	// The first is disabled and readable still, for its ledger.
	old, err := r.Version(ctx, "jenkins-agents", second.Ledger.PreviousVersion)
	if err != nil {
		t.Fatal(err)
	}
	old.Enabled = false
	old.Ledger.RevokedAt = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)
	if _, err := r.Update(ctx, old); err != nil {
		t.Fatal(err)
	}
	kept = r.kv.Versions("jenkins-agents")
	equal(t, "the replaced version is enabled", kept[0].Enabled, false)
	equal(t, "its revocation", kept[0].Tags["patrol-revoked-at"], "2026-12-02T00:00:00Z")
	equal(t, "its foreign tag", kept[0].Tags["team"], "ci")
	equal(t, "its value", kept[0].Value, pat+"one")
	equal(t, "the latest version is enabled", kept[1].Enabled, true)
	equal(t, "its announcement", kept[1].Tags["patrol-announced-at"], "2026-12-01T00:00:00Z")
	equal(t, "its previous PAT", kept[1].Tags["patrol-previous"], "auth-1")
}

func TestOneRequestPerStep(t *testing.T) {
	r := overLoopback(t)
	first := r.store(t, "s", "one", ledger("auth-1", "", ""))
	if got := r.calls(); !reflect.DeepEqual(got, map[string]int{keyvault.SetSecret: 1}) {
		t.Errorf("Store: %v", got)
	}
	if _, err := r.Current(ctx, "s"); err != nil {
		t.Fatal(err)
	}
	if got := r.calls(); !reflect.DeepEqual(got, map[string]int{keyvault.GetSecret: 1}) {
		t.Errorf("Current: %v", got)
	}
	if _, err := r.Update(ctx, first); err != nil {
		t.Fatal(err)
	}
	if got := r.calls(); !reflect.DeepEqual(got, map[string]int{keyvault.UpdateSecret: 1}) {
		t.Errorf("Update: %v", got)
	}
	r.store(t, "s", "two", ledger("auth-2", "auth-1", first.ID))
	r.calls()
	if _, err := r.Version(ctx, "S", strings.ToUpper(first.ID)); err != nil {
		t.Fatal(err)
	}
	if got := r.calls(); len(got) != 0 {
		t.Errorf("Version in a warm process: %v", got)
	}
}

func TestAColdProcessReadsAVersionOnce(t *testing.T) {
	r := overLoopback(t)
	seeded := r.put(t, keyvault.Version{Name: "s", Value: pat + "one", Tags: map[string]string{"CredentialId": "auth-1",
		"team": "ci"}})
	for range 2 {
		got, err := r.Version(ctx, "s", seeded.ID)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "without a value", got.Value.Empty(), true)
		equal(t, "authorization id", got.Ledger.AuthorizationID, "auth-1")
		equal(t, "foreign tag", got.Foreign["team"], "ci")
		equal(t, "URL", got.URL, seeded.URL)
		got.Foreign["team"] = "changed by the caller"
	}
	if got := r.calls(); !reflect.DeepEqual(got, map[string]int{keyvault.GetSecret: 1}) {
		t.Errorf("two reads made %v", got)
	}
}

func TestDisabledVersionsAreFoundInTheList(t *testing.T) {
	for _, code := range []string{"SecretDisabled", "-", "SomethingNew"} {
		t.Run(code, func(t *testing.T) {
			r := overLoopback(t, func(k *keyvault.Config, _ *vault.Config) {
				k.DisabledCode, k.EmptyPages = code, true
			})
			var versions []keyvault.Version
			for i := range 30 {
				v := keyvault.Version{Name: "s", Value: pat + "x",
					Tags: map[string]string{"CredentialId": fmt.Sprint("auth-", i)}}
				if i > 0 { // all within one second: the ledger has the order
					v.Tags["patrol-previous-version"] = versions[i-1].ID
				}
				versions = append(versions, r.put(t, v))
			}
			for _, i := range []int{7, 29} {
				if _, err := r.kv.Change("s", versions[i].ID,
					func(v *keyvault.Version) { v.Enabled = false }); err != nil {
					t.Fatal(err)
				}
			}
			old, err := r.Version(ctx, "s", versions[7].ID)
			if err != nil || old.Enabled || old.Ledger.AuthorizationID != "auth-7" {
				t.Errorf("version 7: %+v, %v", old, err)
			}
			latest, err := r.Current(ctx, "s")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "the latest is enabled", latest.Enabled, false)
			equal(t, "it is without a value", latest.Value.Empty(), true)
			equal(t, "its name", latest.Name, "s")
			equal(t, "its URL", latest.URL, r.kv.Versions("s")[29].URL)
		})
	}
}

func TestALatestVersionThatIsDisabledIsTheNewestOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t)
		var last keyvault.Version
		for i := range 60 {
			last = r.put(t, keyvault.Version{Name: "s", Value: "x",
				Tags: map[string]string{"CredentialId": fmt.Sprint("auth-", i)}})
			time.Sleep(time.Hour)
		}
		if _, err := r.kv.Change("s", "", func(v *keyvault.Version) { v.Enabled = false }); err != nil {
			t.Fatal(err)
		}
		got, err := r.Current(ctx, "s")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "version", got.ID, last.ID)
		equal(t, "enabled", got.Enabled, false)
		equal(t, "authorization id", got.Ledger.AuthorizationID, "auth-59")
	})
}

func TestVersionsAreListedNewestFirst(t *testing.T) {
	for _, empty := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := inMemory(t, func(k *keyvault.Config, _ *vault.Config) { k.EmptyVersions = empty })
			if got, err := r.Versions(ctx, "s"); err != nil || len(got) != 0 {
				t.Errorf("no secret: %+v, %v", got, err)
			}
			for i := range 30 {
				r.put(t, keyvault.Version{Name: "s", Value: pat,
					Tags: map[string]string{"CredentialId": fmt.Sprint("auth-", i)}})
				time.Sleep(time.Second)
			}
			got, err := r.Versions(ctx, "s")
			if err != nil || len(got) != 30 {
				t.Fatalf("%d versions, %v", len(got), err)
			}
			kept := r.kv.Versions("s")
			for i, v := range got {
				equal(t, "authorization id", v.Ledger.AuthorizationID, fmt.Sprint("auth-", 29-i))
				equal(t, "without a value", v.Value.Empty(), true)
				equal(t, "name", v.Name, "s")
				equal(t, "URL", v.URL, kept[29-i].URL)
			}
			r.inject(t, keyvault.ListVersions, faults.Fault{Mode: faults.Status, Status: 403,
				Body: keyvault.ErrorBody("Forbidden", "no", "ForbiddenByRbac")})
			_, err = r.Versions(ctx, "s")
			wantClass(t, err, rotation.Configuration, "vault-forbidden")
		})
	}
}

func TestAnUnknownVersionIsNotFound(t *testing.T) {
	r := overLoopback(t)
	r.put(t, keyvault.Version{Name: "s", Value: "x"})
	for _, id := range []string{strings.Repeat("0", 32), "", "..", "versions"} {
		if _, err := r.Version(ctx, "s", id); !errors.Is(err, rotation.ErrNotFound) {
			t.Errorf("version %q: %v", id, err)
		}
	}
	_, err := r.Update(ctx, rotation.Version{Name: "s", ID: strings.Repeat("0", 32)})
	if !errors.Is(err, rotation.ErrNotFound) {
		t.Errorf("updating an unknown version: %v", err)
	}
}

func TestFailuresHaveAClass(t *testing.T) {
	forbidden := func(inner string) faults.Fault {
		return faults.Fault{Mode: faults.Status, Status: 403, Body: keyvault.ErrorBody("Forbidden", "canary message",
			inner)}
	}
	for _, tt := range []struct {
		name  string
		fault faults.Fault
		class rotation.Class
		code  string
		after time.Duration
	}{
		{"role missing", forbidden("ForbiddenByRbac"), rotation.Configuration, "vault-forbidden", 0},
		{"access policy missing", forbidden("AccessDenied"), rotation.Configuration, "vault-forbidden", 0},
		{"firewall", forbidden("ForbiddenByFirewall"), rotation.Configuration, "vault-firewall", 0},
		{"refused for a reason that is new", forbidden("Novelty"), rotation.Configuration, "vault-forbidden", 0},
		{"refused without a word", faults.Fault{Mode: faults.Status, Status: 403}, rotation.Configuration,
			"vault-forbidden", 0},
		{"another tenant's token", faults.Fault{Mode: faults.Status, Status: 401, Times: 2}, rotation.Configuration,
			"vault-unauthorized", 0},
		{"throttled", faults.Fault{Mode: faults.Status, Status: 429, Header: map[string]string{"Retry-After": "7"}},
			rotation.Throttled, "vault-throttled", 7 * time.Second},
		{"throttled, no hint", faults.Fault{Mode: faults.Status, Status: 429}, rotation.Throttled, "vault-throttled",
			0},
		{"throttled, in milliseconds", faults.Fault{Mode: faults.Status, Status: 429,
			Header: map[string]string{"x-ms-retry-after-ms": "1500"}}, rotation.Throttled, "vault-throttled",
			1500 * time.Millisecond},
		{"unavailable", faults.Fault{Mode: faults.Status, Status: 503, Body: "canary page"}, rotation.Transient,
			"vault-unavailable", 0},
		{"broken", faults.Fault{Mode: faults.Status, Status: 500}, rotation.Transient, "vault-unavailable", 0},
		{"connection reset", faults.Fault{Mode: faults.ResetBefore, Times: -1}, rotation.Transient, "vault-unavailable",
			0},
		{"a page instead of JSON", faults.Fault{Mode: faults.Status, Status: 200, Body: "<html>canary</html>"},
			rotation.Transient, "vault-unavailable", 0},
		{"JSON of something else", faults.Fault{Mode: faults.Status, Status: 200, Body: `{"value":"canary"}`},
			rotation.Transient, "vault-answer", 0},
		{"an odd success", faults.Fault{Mode: faults.Status, Status: 203, Body: "canary"}, rotation.Transient,
			"vault-answer", 0},
		{"rejected", faults.Fault{Mode: faults.Status, Status: 400, Body: keyvault.ErrorBody("BadParameter", "canary",
			"")}, rotation.Configuration, "vault-rejected", 0},
		{"a stranger's 404", faults.Fault{Mode: faults.Status, Status: 404, Body: "canary"}, rotation.Configuration,
			"vault-url", 0},
		{"being recovered", faults.Fault{Mode: faults.Status, Status: 409, Body: keyvault.ErrorBody("Conflict",
			"canary", "ObjectIsBeingRecovered")}, rotation.Transient, "vault-conflict", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := overLoopback(t, noRetries)
			r.put(t, keyvault.Version{Name: "s", Value: "x"})
			if tt.fault.Header == nil {
				tt.fault.Header = map[string]string{}
			}
			tt.fault.Header["x-ms-request-id"] = "request-1"
			r.inject(t, keyvault.GetSecret, tt.fault)
			_, err := r.Current(ctx, "s")
			e := wantClass(t, err, tt.class, tt.code)
			if e.After != tt.after {
				t.Errorf("after %s, want %s", e.After, tt.after)
			}
			if tt.fault.Status >= 400 && e.ActivityID != "request-1" {
				t.Errorf("activity %q", e.ActivityID)
			}
			if !strings.HasPrefix(e.Message, "reading secret s: ") {
				t.Errorf("message %q", e.Message)
			}
			for _, doing := range []struct {
				operation string
				call      func() error
			}{
				{keyvault.SetSecret, func() error {
					_, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat)})
					return err
				}},
				{keyvault.UpdateSecret, func() error {
					_, err := r.Update(ctx, rotation.Version{Name: "s", ID: r.kv.Versions("s")[0].ID})
					return err
				}},
				{keyvault.ListSecrets, func() error {
					for _, err := range r.Secrets(ctx) {
						return err
					}
					return nil
				}},
			} {
				if tt.code == "vault-answer" && doing.operation == keyvault.ListSecrets {
					continue // a list has other fields
				}
				r.panel.ClearFaults()
				r.inject(t, doing.operation, tt.fault)
				if e := wantClass(t, doing.call(), tt.class, tt.code); e.After != tt.after {
					t.Errorf("%s: after %s, want %s", doing.operation, e.After, tt.after)
				}
			}
		})
	}
}

func TestWithoutATokenTheVaultIsAMatterOfConfiguration(t *testing.T) {
	answer := func(status int) error {
		return &azidentity.AuthenticationFailedError{RawResponse: &http.Response{StatusCode: status, Body: http.NoBody}}
	}
	for _, tt := range []struct {
		name  string
		err   error
		class rotation.Class
		code  string
	}{
		{"no such identity", answer(400), rotation.Configuration, "vault-credential"},
		{"endpoint fails", answer(500), rotation.Transient, "vault-credential"},
		{"endpoint throttles", answer(429), rotation.Transient, "vault-credential"},
		{"endpoint not reached", &azidentity.AuthenticationFailedError{}, rotation.Transient, "vault-credential"},
		{"no identity at all", azidentity.NewCredentialUnavailableError("canary"), rotation.Configuration,
			"vault-credential"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := overLoopback(t, without(func(c *vault.Config) { c.Credential = credential{tt.err} }))
			_, err := r.Current(ctx, "s")
			wantClass(t, err, tt.class, tt.code)
			if got := r.calls(); len(got) != 0 {
				t.Errorf("calls without a token: %v", got)
			}
		})
	}
	t.Run("a challenge for another domain", func(t *testing.T) {
		r := overLoopback(t, without(func(c *vault.Config) { c.DisableChallengeResourceVerification = false }))
		_, err := r.Current(ctx, "s")
		wantClass(t, err, rotation.Configuration, "vault-credential")
	})
}

func TestAShortOutageIsRiddenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t)
		r.store(t, "s", "one", ledger("auth-1", "", ""))
		for _, f := range []faults.Fault{
			{Mode: faults.Status, Status: 503, Times: 3}, {Mode: faults.ResetBefore, Times: 2},
			{Mode: faults.HangBefore},
			{Mode: faults.Status, Status: 429, Header: map[string]string{"Retry-After": "10"}},
			{Mode: faults.Slow, Delay: 15 * time.Second},
		} {
			r.inject(t, keyvault.GetSecret, f)
			if got, err := r.Current(ctx, "s"); err != nil || got.Value.Reveal() != pat+"one" {
				t.Errorf("fault %s: %+v, %v", f.Mode, got, err)
			}
		}
		// A long one is an error, in time.
		r.inject(t, "", faults.Fault{Mode: faults.HangBefore, Times: -1})
		begin := time.Now()
		_, err := r.Current(ctx, "s")
		wantClass(t, err, rotation.Transient, "vault-unavailable")
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("gave up after %s", took)
		}
		// A long wait is left to the queue.
		r.panel.ClearFaults()
		r.inject(t, keyvault.GetSecret, faults.Fault{Mode: faults.Status, Status: 429,
			Header: map[string]string{"Retry-After": "60"}, Times: -1})
		begin = time.Now()
		_, err = r.Current(ctx, "s")
		if e := wantClass(t, err, rotation.Throttled, "vault-throttled"); e.After != time.Minute ||
			time.Since(begin) > time.Second {
			t.Errorf("After = %s, want 1m0s, at once; it took %s", e.After, time.Since(begin))
		}
		// Once it is over, the same process goes on.
		r.panel.ClearFaults()
		if _, err := r.Current(ctx, "s"); err != nil {
			t.Error(err)
		}
	})
}

func TestADeadlineIsTransientAndKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t)
		r.inject(t, keyvault.SetSecret, faults.Fault{Mode: faults.HangBefore, Times: -1})
		short, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, err := r.Store(short, "s", rotation.Content{Value: rotation.NewSecret(pat + "one")})
		wantClass(t, err, rotation.Transient, "vault-unavailable")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error does not know the deadline: %v", err)
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		_, err = r.Current(canceled, "s")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the error does not know the cancellation: %v", err)
		}
	})
}

func TestALostAnswerLeavesTheLatestVersion(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fault    faults.Fault
		versions int
	}{
		{"lost once", faults.Fault{Mode: faults.ResetAfter}, 2},
		{"lost always", faults.Fault{Mode: faults.ResetAfter, Times: 4}, 4},
		{"an error after the effect", faults.Fault{Mode: faults.StatusAfter, Status: 500, Times: 4}, 4},
		{"hanging after the effect", faults.Fault{Mode: faults.HangAfter}, 2},
		{"an answer that is none", faults.Fault{Mode: faults.StatusAfter, Status: 200, Body: "cut"}, 1},
		{"an answer that is empty", faults.Fault{Mode: faults.StatusAfter, Status: 200, Body: "{}"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t)
				r.inject(t, keyvault.SetSecret, tt.fault)
				got := r.store(t, "s", "one", ledger("auth-1", "", ""))
				kept := r.kv.Versions("s")
				if len(kept) != tt.versions {
					t.Fatalf("%d versions, want %d", len(kept), tt.versions)
				}
				if latest := kept[len(kept)-1]; got.ID != latest.ID || got.Value.Reveal() != pat+"one" ||
					got.Ledger != ledger("auth-1", "", "") {
					t.Errorf("Store answered %+v, the latest is %s", got, latest.ID)
				}
			})
		})
	}
}

// Only an attempt that may have taken effect makes it worth to read the latest version.
func TestAThrottledStoreIsFollowedByNoRead(t *testing.T) {
	r := overLoopback(t, noRetries)
	r.store(t, "s", "one", ledger("auth-1", "", ""))
	r.calls()
	r.inject(t, keyvault.SetSecret, faults.Fault{Mode: faults.Status, Status: 429})
	_, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat + "two")})
	wantClass(t, err, rotation.Throttled, "vault-throttled")
	if got := r.calls(); got[keyvault.GetSecret] != 0 {
		t.Errorf("calls %v, want no read", got)
	}
}

func TestAStoreThatDidNothingIsNotASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t)
		r.store(t, "s", "one", ledger("auth-1", "", ""))
		r.inject(t, keyvault.SetSecret, faults.Fault{Mode: faults.Status, Status: 500, Times: 4})
		_, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat + "two"),
			Ledger: ledger("auth-2", "", "")})
		wantClass(t, err, rotation.Transient, "vault-unavailable")
		if n := len(r.kv.Versions("s")); n != 1 {
			t.Errorf("%d versions, want 1", n)
		}
	})
}

// A caller takes class Configuration for "nothing was stored" and ends the PAT.
func TestAStoreThatMayHaveHappenedIsNeverARefusal(t *testing.T) {
	forbidden := faults.Fault{Mode: faults.Status, Status: 403, Times: -1, Body: keyvault.ErrorBody("Forbidden", "no",
		"ForbiddenByRbac")}
	for _, tt := range []struct {
		name  string
		first faults.Fault
		read  faults.Fault
		code  string
	}{
		{"the answer was lost", faults.Fault{Mode: faults.ResetAfter}, faults.Fault{Mode: faults.Status, Status: 503,
			Times: -1}, "vault-unsettled"},
		{"the answer was an error", faults.Fault{Mode: faults.StatusAfter, Status: 500}, forbidden, "vault-unsettled"},
		{"the answer was a page", faults.Fault{Mode: faults.StatusAfter, Status: 200, Body: "<html>"}, forbidden,
			"vault-unavailable"},
		{"the token had expired", faults.Fault{Mode: faults.Status, Status: 401, Header: map[string]string{
			"WWW-Authenticate": `Bearer authorization="https://login.microsoftonline.com/tenant-1", ` +
				`resource="https://vault.azure.net"`,
		}}, forbidden, "vault-forbidden"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := inMemory(t)
				// the client knows the challenge now
				if _, err := r.Current(ctx, "s"); !errors.Is(err, rotation.ErrNotFound) {
					t.Fatal(err)
				}
				r.inject(t, keyvault.SetSecret, tt.first)
				r.inject(t, keyvault.SetSecret, forbidden)
				r.inject(t, keyvault.GetSecret, tt.read)
				_, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat + "one")})
				class := rotation.Transient
				if len(r.kv.Versions("s")) == 0 {
					class = rotation.Configuration
				}
				wantClass(t, err, class, tt.code)
			})
		})
	}
}

func TestAnUpdateWhoseAnswerIsLostIsForgotten(t *testing.T) {
	r := overLoopback(t, noRetries)
	v := r.store(t, "s", "one", ledger("auth-1", "", ""))
	v.Ledger.RevokedAt = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r.inject(t, keyvault.UpdateSecret, faults.Fault{Mode: faults.ResetAfter})
	_, err := r.Update(ctx, v)
	wantClass(t, err, rotation.Transient, "vault-unavailable")
	got, err := r.Version(ctx, "s", v.ID)
	if err != nil || got.Ledger.RevokedAt.IsZero() {
		t.Errorf("read afresh: %+v, %v", got, err)
	}
}

func TestADeletedSecretIsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, func(k *keyvault.Config, _ *vault.Config) {
			k.DeleteDelay, k.RecoverDelay = 10*time.Second, 25*time.Second
		})
		if found, err := r.Recover(ctx, "s"); found || err != nil {
			t.Fatalf("nothing to recover: %t, %v", found, err)
		}
		r.store(t, "s", "one", ledger("auth-1", "", ""))
		if found, err := r.Recover(ctx, "s"); found || err != nil {
			t.Fatalf("not deleted: %t, %v", found, err)
		}
		if err := r.kv.Delete("s"); err != nil {
			t.Fatal(err)
		}
		_, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat)})
		wantClass(t, err, rotation.Transient, "vault-conflict")
		time.Sleep(10 * time.Second)
		_, err = r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret(pat)})
		wantClass(t, err, rotation.Transient, "vault-conflict")

		// A second process that comes during the recovery waits for it too.
		done := make(chan error)
		for range 2 {
			go func() {
				found, err := r.Recover(ctx, "s")
				if err == nil && !found {
					err = errors.New("not found")
				}
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got, err := r.Current(ctx, "s"); err != nil || got.Ledger.AuthorizationID != "auth-1" {
			t.Errorf("recovered %+v, %v", got, err)
		}

		// The wait ends with the caller's deadline.
		if err := r.kv.Delete("s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err = r.Recover(short, "s")
		wantClass(t, err, rotation.Transient, "vault-unavailable")
	})
}

func TestTenThousandSecretsAreFourHundredCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 10,000 secrets")
	}
	r := overLoopback(t)
	for i := range 10_000 {
		r.put(t, keyvault.Version{Name: fmt.Sprintf("pat-%05d", i), Value: "x", ContentType: vault.ContentType,
			Expires: time.Unix(2e9, 0), Tags: map[string]string{
				"CredentialId": fmt.Sprintf("auth-%d", i), "patrol-identity": "build-bot",
				"patrol-rotation": "abcdefghij",
			}})
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := heap(), uint64(0)
	n := 0
	for v, err := range r.Secrets(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "version of an entry", v.ID, "")
		equal(t, "URL of an entry", v.URL, "")
		equal(t, "entry without a value", v.Value.Empty(), true)
		equal(t, "content type", v.ContentType, vault.ContentType)
		equal(t, "authorization id", v.Ledger.AuthorizationID, fmt.Sprintf("auth-%d", n))
		equalTimes(t, "end", v.Expires, time.Unix(2e9, 0))
		if t.Failed() {
			t.FailNow() // once is enough
		}
		n++
		if n%2500 == 0 {
			most = max(most, heap())
		}
	}
	if got := r.calls(); n != 10_000 || !reflect.DeepEqual(got, map[string]int{keyvault.ListSecrets: 400}) {
		t.Errorf("%d secrets in %v calls", n, got)
	}
	if most > before+8<<20 {
		t.Errorf("the sweep holds %d bytes", most-before)
	}
	// A caller that has seen enough stops the paging.
	for range r.Secrets(ctx) {
		break
	}
	if got := r.calls(); got[keyvault.ListSecrets] != 1 {
		t.Errorf("a broken-off sweep made %v", got)
	}
}

func TestTheMemoryIsBounded(t *testing.T) {
	m := vault.NewMemory(vault.Remembered)
	for i := range 3 * vault.Remembered {
		r := rotation.Version{Name: fmt.Sprint("s", i), ID: "v", Value: rotation.NewSecret("x")}
		vault.Remember(m, r)
	}
	if m.Len() != vault.Remembered {
		t.Errorf("%d versions remembered, want %d", m.Len(), vault.Remembered)
	}
	if _, ok := vault.Recall(m, "s0", "v"); ok {
		t.Error("the oldest is remembered still")
	}
	if v, ok := vault.Recall(m, fmt.Sprint("s", 3*vault.Remembered-1), "v"); !ok || !v.Value.Empty() {
		t.Errorf("the newest: %+v, %t", v, ok)
	}
}

func TestConfigurationIsCheckedAtStart(t *testing.T) {
	for _, url := range []string{"", "patrol.vault.azure.net", "http://patrol.vault.azure.net",
		"https://patrol.vault.azure.net/secrets", "https://u:p@patrol.vault.azure.net", "https://"} {
		_, err := vault.New(vault.Config{URL: url, Credential: credential{}})
		wantClass(t, err, rotation.Configuration, "vault-url")
	}
	_, err := vault.New(vault.Config{URL: "https://patrol.vault.azure.net"})
	wantClass(t, err, rotation.Configuration, "vault-credential")
	if _, err := vault.New(vault.Config{URL: "https://patrol.vault.azure.net/", Credential: credential{}}); err != nil {
		t.Error(err)
	}
}

func TestWhatTheVaultWouldRefuseIsNotSent(t *testing.T) {
	r := overLoopback(t)
	long := strings.Repeat("x", 257)
	foreign := func(n int) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprint("team-", i)] = "x"
		}
		return out
	}
	full := ledger("auth-2", "auth-1", strings.Repeat("0", 32))
	full.AnnouncedAt, full.RevokedAt = time.Unix(1.9e9, 0), time.Unix(1.9e9, 0)
	full.Facts.Digest = strings.Repeat("0", 16)
	for _, tt := range []struct {
		name, secret, code string
		content            rotation.Content
	}{
		{"a bad name", "no_name", "vault-name", rotation.Content{Value: rotation.NewSecret("x")}},
		{"no value", "s", "vault-value", rotation.Content{}},
		{"a value that is too long", "s", "vault-value",
			rotation.Content{Value: rotation.NewSecret(strings.Repeat("x", 25601))}},
		{"too many tags", "s", "vault-tags", rotation.Content{Value: rotation.NewSecret("x"), Ledger: full,
			Foreign: foreign(7)}},
		{"a tag that is too long", "s", "vault-tags", rotation.Content{Value: rotation.NewSecret("x"),
			Ledger: rotation.Ledger{ProviderAddress: long}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Store(ctx, tt.secret, tt.content)
			wantClass(t, err, rotation.Configuration, tt.code)
		})
	}
	if got := r.calls(); len(got) != 0 {
		t.Errorf("calls: %v", got)
	}
	if _, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret("x"), Ledger: full,
		Foreign: foreign(6)}); err != nil {
		t.Errorf("nine tags of patrol and six of others: %v", err)
	}
	_, err := r.Update(ctx, rotation.Version{Name: "s", ID: r.kv.Versions("s")[0].ID, Enabled: true, Ledger: full,
		Foreign: foreign(8)})
	e := wantClass(t, err, rotation.Configuration, "vault-tags")
	if !strings.Contains(e.Message, "remove 2") {
		t.Errorf("message %q", e.Message)
	}
}

func TestTagsThatGiveWayLeaveRoomForWhatIsStillToBeWritten(t *testing.T) {
	r := overLoopback(t)
	foreign := map[string]string{}
	for i := range 6 {
		foreign[fmt.Sprint("team-", i)] = "x"
	}
	l := ledger("auth-2", "auth-1", strings.Repeat("0", 32))
	l.Facts, l.RequestedBy = rotation.Facts{Digest: strings.Repeat("0", 16)}, "alice"
	l.AnnouncedAt, l.RevokedAt = time.Time{}, time.Time{}
	v, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret("x"), Ledger: l, Foreign: foreign})
	if err != nil {
		t.Fatal(err)
	}
	if v.Ledger.Previous != "" {
		t.Errorf("patrol-previous is written although it must give way: %q", v.Ledger.Previous)
	}
	if len(v.Foreign) != 6 {
		t.Errorf("tags of others: %v, want 6", v.Foreign)
	}
	v.Ledger.AnnouncedAt = time.Unix(1.9e9, 0)
	v, err = r.Update(ctx, v)
	if err != nil {
		t.Fatalf("noting the announcement: %v", err)
	}
	v.Ledger.RevokedAt, v.Enabled = time.Unix(1.9e9, 0), false
	_, err = r.Update(ctx, v)
	if err != nil {
		t.Fatalf("closing the version: %v", err)
	}
}

func TestTagsOfANewerPatrolStayOnTheirVersion(t *testing.T) {
	r := overLoopback(t)
	newer := map[string]string{"patrol-newer": "x", "Patrol-Future": "y", "owner": "team-a"}
	one := rotation.Content{Value: rotation.NewSecret("one"), Ledger: ledger("auth-1", "", "")}
	first, err := r.Store(ctx, "s", one)
	if err != nil {
		t.Fatal(err)
	}
	first.Foreign = newer
	first, err = r.Update(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Foreign) != 3 {
		t.Errorf("the version itself has %v, want all of %v", first.Foreign, newer)
	}
	next, err := r.Store(ctx, "s", rotation.Content{Value: rotation.NewSecret("two"),
		Ledger: ledger("auth-2", "auth-1", first.ID), Foreign: first.Foreign})
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Foreign) != 1 || next.Foreign["owner"] != "team-a" {
		t.Errorf("the next version has %v, want the tag owner alone", next.Foreign)
	}
}
