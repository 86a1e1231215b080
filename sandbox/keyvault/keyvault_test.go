package keyvault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

const token = "a-token-for-the-vault"

type credential struct{ token string }

func (c credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(o.Scopes) != 1 || o.Scopes[0] != "https://vault.azure.net/.default" || o.TenantID != "tenant-1" {
		return azcore.AccessToken{}, fmt.Errorf("asked for a token for %v in tenant %q", o.Scopes, o.TenantID)
	}
	return azcore.AccessToken{Token: c.token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func verify(got string) error {
	if got != token {
		return errors.New("not our token")
	}
	return nil
}

// handler makes a vault that is called without a network.
func handler(t *testing.T, c keyvault.Config) *keyvault.Vault {
	t.Helper()
	if c.URL == "" {
		c.URL = "https://patrol-test.vault.azure.net"
	}
	c.Authority, c.Tenant, c.Verify = "https://login.microsoftonline.com", "tenant-1", verify
	v, err := keyvault.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// start serves a vault on loopback TLS and returns a real client for it.
func start(t *testing.T, c keyvault.Config, edit ...func(*azsecrets.ClientOptions)) (*keyvault.Vault,
	*azsecrets.Client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	c.URL = "https://" + srv.Listener.Addr().String()
	v := handler(t, c)
	srv.Config.Handler = v
	srv.StartTLS()
	t.Cleanup(srv.Close)
	o := &azsecrets.ClientOptions{DisableChallengeResourceVerification: true}
	o.Transport = srv.Client()
	o.Retry.MaxRetries = -1
	for _, e := range edit {
		e(o)
	}
	client, err := azsecrets.NewClient(c.URL, credential{token}, o)
	if err != nil {
		t.Fatal(err)
	}
	return v, client
}

// call sends one request with a valid token.
func call(v http.Handler, method, target, body string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://patrol-test.vault.azure.net"+target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	v.ServeHTTP(w, r)
	return w
}

type errorBody struct {
	Error struct {
		Code       string
		Message    string
		Innererror struct{ Code string }
	}
}

func codes(t *testing.T, b []byte) string {
	t.Helper()
	var e errorBody
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatalf("error body %q: %v", b, err)
	}
	return strings.TrimSuffix(e.Error.Code+"/"+e.Error.Innererror.Code, "/")
}

func refusal(t *testing.T, err error, status int, code string) {
	t.Helper()
	e, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		t.Fatalf("got error %v, want status %d", err, status)
	}
	b, readErr := io.ReadAll(e.RawResponse.Body)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if got := codes(t, b); e.StatusCode != status || got != code {
		t.Fatalf("got %d %s, want %d %s", e.StatusCode, got, status, code)
	}
}

func ptr[T any](v T) *T { return &v }

func set(t *testing.T, c *azsecrets.Client, name, value string, tags map[string]*string) azsecrets.Secret {
	t.Helper()
	got, err := c.SetSecret(t.Context(), name, azsecrets.SetSecretParameters{Value: &value, Tags: tags}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Secret
}

func TestASecretThroughItsVersions(t *testing.T) {
	var injector faults.Injector
	v, c := start(t, keyvault.Config{Injector: &injector})
	ctx := t.Context()

	// The first request asks where to get a token, without its body.
	first := set(t, c, "Jenkins-Agents", "one", map[string]*string{"a": ptr("1"), "b": ptr("2")})
	if got := injector.Count(keyvault.Service, keyvault.Challenge); got != 1 {
		t.Errorf("%d challenges, want 1", got)
	}
	if got := injector.Count(keyvault.Service, keyvault.SetSecret); got != 1 {
		t.Errorf("%d SetSecret, want 1", got)
	}

	// A second version inherits nothing; names have no case.
	second := set(t, c, "jenkins-AGENTS", "two", nil)
	if first.ID.Version() == second.ID.Version() || second.ID.Name() != "Jenkins-Agents" || len(second.Tags) != 0 {
		t.Errorf("second version %v with tags %v after %v", *second.ID, second.Tags, *first.ID)
	}
	latest, err := c.GetSecret(ctx, "jenkins-agents", "", nil)
	if err != nil || *latest.Value != "two" {
		t.Fatalf("latest: %v, %v", latest.Value, err)
	}
	old, err := c.GetSecret(ctx, "jenkins-agents", first.ID.Version(), nil)
	if err != nil || *old.Value != "one" || *old.Tags["b"] != "2" {
		t.Fatalf("first version: %+v, %v", old, err)
	}

	// An update replaces the whole tag set and leaves the rest alone.
	exp := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	_, err = c.UpdateSecretProperties(ctx, "jenkins-agents", first.ID.Version(),
		azsecrets.UpdateSecretPropertiesParameters{
			Tags: map[string]*string{"c": ptr("3")}, SecretAttributes: &azsecrets.SecretAttributes{Expires: &exp},
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.UpdateSecretProperties(ctx, "jenkins-agents", first.ID.Version(),
		azsecrets.UpdateSecretPropertiesParameters{
			SecretAttributes: &azsecrets.SecretAttributes{Enabled: ptr(false)},
		}, nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := v.Versions("JENKINS-agents")
	if len(versions) != 2 {
		t.Fatalf("%d versions, want 2", len(versions))
	}
	updated := versions[0]
	if updated.Enabled {
		t.Error("the updated version is enabled")
	}
	if updated.Value != "one" {
		t.Errorf("the updated version holds %q, want one", updated.Value)
	}
	if want := map[string]string{"c": "3"}; !maps.Equal(updated.Tags, want) {
		t.Errorf("the updated version has the tags %v, want %v", updated.Tags, want)
	}
	if !updated.Expires.Equal(exp) {
		t.Errorf("the updated version ends at %s, want %s", updated.Expires, exp)
	}

	// A disabled version is not given out, the latest one is.
	_, err = c.GetSecret(ctx, "jenkins-agents", first.ID.Version(), nil)
	refusal(t, err, http.StatusForbidden, "Forbidden/SecretDisabled")
	if _, err := c.GetSecret(ctx, "jenkins-agents", "", nil); err != nil {
		t.Error(err)
	}
	_, err = c.GetSecret(ctx, "unknown", "", nil)
	refusal(t, err, http.StatusNotFound, "SecretNotFound")
	_, err = c.GetSecret(ctx, "jenkins-agents", strings.Repeat("0", 32), nil)
	refusal(t, err, http.StatusNotFound, "SecretNotFound")
}

func TestListsComeInPagesOf25(t *testing.T) {
	for _, empty := range []bool{false, true} {
		t.Run(fmt.Sprintf("empty first page %t", empty), func(t *testing.T) {
			v, c := start(t, keyvault.Config{EmptyPages: empty, NoThrottle: true})
			for i := range 60 {
				if _, err := v.Put(keyvault.Version{Name: fmt.Sprintf("secret-%02d", i), Value: "v",
					Tags: map[string]string{"n": fmt.Sprint(i)}}); err != nil {
					t.Fatal(err)
				}
				if _, err := v.Put(keyvault.Version{Name: "often", Value: "v"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Delete("secret-30"); err != nil {
				t.Fatal(err)
			}
			var sizes []int
			names := map[string]bool{}
			pager := c.NewListSecretPropertiesPager(nil)
			for pager.More() {
				page, err := pager.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				sizes = append(sizes, len(page.Value))
				for _, p := range page.Value {
					if p.ID.Version() != "" {
						t.Fatalf("the list has version %s", *p.ID)
					}
					names[p.ID.Name()] = true
				}
			}
			want := "[25 25 10]"
			if empty {
				want = "[0 25 25 10]"
			}
			if fmt.Sprint(sizes) != want || len(names) != 60 || names["secret-30"] {
				t.Errorf("pages of %v with %d names, want %s with 60", sizes, len(names), want)
			}
			versions := map[string]bool{}
			vp := c.NewListSecretPropertiesVersionsPager("often", nil)
			for vp.More() {
				page, err := vp.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Value) > 25 {
					t.Errorf("a page of %d versions", len(page.Value))
				}
				for _, p := range page.Value {
					versions[p.ID.Version()] = true
				}
			}
			if len(versions) != 60 {
				t.Errorf("%d versions, want 60", len(versions))
			}
		})
	}
}

func TestSoftDeleteBlocksTheNameUntilRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := handler(t, keyvault.Config{DeleteDelay: 10 * time.Second, RecoverDelay: 20 * time.Second})
		expect := func(method, path string, status int, code string) {
			t.Helper()
			body := ""
			if method == http.MethodPut {
				body = `{"value":"x"}`
			}
			w := call(v, method, path+"?api-version=7.6", body)
			if w.Code != status {
				t.Fatalf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, status)
			}
			if code != "" && codes(t, w.Body.Bytes()) != code {
				t.Fatalf("%s %s: %s, want %s", method, path, w.Body, code)
			}
		}
		expect("PUT", "/secrets/s", 200, "")
		expect("GET", "/deletedsecrets/s", 404, "SecretNotFound")
		expect("DELETE", "/secrets/s", 200, "")

		// The deletion takes its time.
		expect("GET", "/secrets/s", 404, "SecretNotFound")
		expect("GET", "/deletedsecrets/s", 404, "SecretNotFound")
		expect("PUT", "/secrets/s", 409, "Conflict/ObjectIsBeingDeleted")
		expect("POST", "/deletedsecrets/s/recover", 409, "Conflict/ObjectIsBeingDeleted")
		time.Sleep(10 * time.Second)
		expect("GET", "/deletedsecrets/s", 200, "")
		expect("PUT", "/secrets/s", 409, "Conflict/ObjectIsDeletedButRecoverable")
		expect("GET", "/secrets/s/", 404, "SecretNotFound")

		// So does the recovery.
		expect("POST", "/deletedsecrets/s/recover", 200, "")
		expect("GET", "/secrets/s", 404, "SecretNotFound")
		expect("PUT", "/secrets/s", 409, "Conflict/ObjectIsBeingRecovered")
		time.Sleep(20 * time.Second)
		expect("GET", "/secrets/s", 200, "")
		expect("PUT", "/secrets/s", 200, "")
		if n := len(v.Versions("s")); n != 2 {
			t.Errorf("%d versions after the recovery, want 2", n)
		}

		// A purge frees the name, and so does the end of the retention.
		expect("DELETE", "/secrets/s", 200, "")
		time.Sleep(10 * time.Second)
		expect("DELETE", "/deletedsecrets/s", 204, "")
		expect("PUT", "/secrets/s", 200, "")
		if n := len(v.Versions("s")); n != 1 {
			t.Errorf("%d versions after the purge, want 1", n)
		}
		expect("DELETE", "/secrets/s", 200, "")
		time.Sleep(91 * 24 * time.Hour)
		expect("GET", "/deletedsecrets/s", 404, "SecretNotFound")
		expect("PUT", "/secrets/s", 200, "")
	})
}

func TestPurgeProtectionRefusesThePurge(t *testing.T) {
	v := handler(t, keyvault.Config{PurgeProtection: true})
	if _, err := v.Put(keyvault.Version{Name: "s", Value: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := v.Delete("s"); err != nil {
		t.Fatal(err)
	}
	if w := call(v, "DELETE", "/deletedsecrets/s?api-version=7.6", ""); w.Code != http.StatusForbidden {
		t.Errorf("purge: %d %s", w.Code, w.Body)
	}
}

func TestRequestsThatTheServiceRefuses(t *testing.T) {
	v := handler(t, keyvault.Config{})
	if _, err := v.Put(keyvault.Version{Name: "there", Value: "x", Expires: time.Unix(2e9, 0)}); err != nil {
		t.Fatal(err)
	}
	tags := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"t%d":"v"`, i)
		}
		return strings.TrimPrefix(b.String(), ",")
	}
	const api = "?api-version=2026-04-01"
	const challenge = `Bearer authorization="https://login.microsoftonline.com/tenant-1", ` +
		`resource="https://vault.azure.net"`
	plain := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
	for _, tt := range []struct {
		name, method, target, body string
		edit                       func(*http.Request)
		status                     int
	}{
		{"no api-version", "GET", "/secrets/there", "", nil, 400},
		{"an unknown api-version", "GET", "/secrets/there?api-version=2016-10-01", "", nil, 400},
		{"no token", "GET", "/secrets/there" + api, "", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		{"another token", "GET", "/secrets/there" + api, "",
			func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401},
		{"basic authentication", "GET", "/secrets/there" + api, "", func(r *http.Request) { r.SetBasicAuth("", token) },
			401},
		{"an unknown path", "GET", "/keys" + api, "", nil, 404},
		{"a method that is not there", "POST", "/secrets/there" + api, `{}`, nil, 404},
		{"a name with an underscore", "GET", "/secrets/a_b" + api, "", nil, 400},
		{"a name of 128 characters", "PUT", "/secrets/" + strings.Repeat("n", 128) + api, `{"value":"x"}`, nil, 400},
		{"a version that is no id", "GET", "/secrets/there/1" + api, "", nil, 400},
		{"no value", "PUT", "/secrets/s" + api, `{"contentType":"x"}`, nil, 400},
		{"no body", "PUT", "/secrets/s" + api, "", nil, 415},
		{"a body that is not JSON", "PUT", "/secrets/s" + api, `{"value":`, nil, 400},
		{"another media type", "PUT", "/secrets/s" + api, `{"value":"x"}`, plain, 415},
		{"an unknown property", "PUT", "/secrets/s" + api, `{"value":"x","expires":1}`, nil, 400},
		{"a value of 25,601 bytes", "PUT", "/secrets/s" + api, `{"value":"` + strings.Repeat("x", 25601) + `"}`, nil,
			400},
		{"a content type of 256", "PUT", "/secrets/s" + api, `{"value":"x","contentType":"` + strings.Repeat("x", 256) +
			`"}`, nil, 400},
		{"16 tags", "PUT", "/secrets/s" + api, `{"value":"x","tags":{` + tags(16) + `}}`, nil, 400},
		{"a tag of 257", "PUT", "/secrets/s" + api, `{"value":"x","tags":{"t":"` + strings.Repeat("x", 257) + `"}}`,
			nil, 400},
		{"a tag without a value", "PUT", "/secrets/s" + api, `{"value":"x","tags":{"t":null}}`, nil, 400},
		{"exp before nbf", "PUT", "/secrets/s" + api, `{"value":"x","attributes":{"exp":5,"nbf":6}}`, nil, 400},
		{"exp as a string", "PUT", "/secrets/s" + api, `{"value":"x","attributes":{"exp":"5"}}`, nil, 400},
		{"nbf after the exp that is there", "PATCH", "/secrets/there/" + api, `{"attributes":{"nbf":2000000001}}`, nil,
			400},
		{"a new value for a version", "PATCH", "/secrets/there/" + api, `{"value":"y"}`, nil, 400},
		{"an update of nothing", "PATCH", "/secrets/s/" + api, `{"tags":{}}`, nil, 404},
		{"a page of 26", "GET", "/secrets" + api + "&maxresults=26", "", nil, 400},
		{"a skip token of others", "GET", "/secrets" + api + "&$skiptoken=abc", "", nil, 400},
		{"versions of nothing", "GET", "/secrets/s/versions" + api, "", nil, 404},
		{"a recovery of what is there", "POST", "/deletedsecrets/there/recover" + api, "", nil, 404},
		{"the longest of everything", "PUT", "/secrets/" + strings.Repeat("n", 127) + api, `{"value":"` +
			strings.Repeat("x", 25600) + `","contentType":"` + strings.Repeat("x", 255) + `","tags":{` + tags(14) +
			`,"` + strings.Repeat("k", 256) + `":"` + strings.Repeat("x", 256) + `"}}`, nil, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edit := tt.edit
			if edit == nil {
				edit = func(*http.Request) {}
			}
			w := call(v, tt.method, tt.target, tt.body, edit)
			if w.Code != tt.status {
				t.Fatalf("got %d %.200s, want %d", w.Code, w.Body, tt.status)
			}
			if w.Header().Get("X-Ms-Request-Id") == "" {
				t.Error("the answer has no x-ms-request-id")
			}
			if got := w.Header().Get("WWW-Authenticate"); w.Code == 401 && got != challenge {
				t.Errorf("challenge %q, want %q", got, challenge)
			}
			if w.Code != 200 && strings.Contains(w.Body.String(), token) {
				t.Error("the answer repeats the token")
			}
		})
	}
	if names := v.Names(); len(names) != 2 {
		t.Errorf("refused requests left %d secrets, want 2", len(names))
	}
}

func TestThrottlingIsPerTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := handler(t, keyvault.Config{})
		put := func() *httptest.ResponseRecorder {
			return call(v, "PUT", "/secrets/s?api-version=7.6", `{"value":"x"}`)
		}
		for i := range 300 {
			if w := put(); w.Code != 200 {
				t.Fatalf("creation %d: %d", i+1, w.Code)
			}
		}
		time.Sleep(4 * time.Second)
		w := put()
		if w.Code != 429 || w.Header().Get("Retry-After") != "6" {
			t.Fatalf("creation 301: %d, Retry-After %q; want 429 and 6", w.Code, w.Header().Get("Retry-After"))
		}
		for i := range 4000 {
			if w := call(v, "GET", "/secrets/s?api-version=7.6", ""); w.Code != 200 {
				t.Fatalf("read %d: %d", i+1, w.Code)
			}
		}
		if w := call(v, "GET", "/secrets/s?api-version=7.6", ""); w.Code != 429 {
			t.Fatalf("read 4,001: %d", w.Code)
		}
		time.Sleep(6 * time.Second)
		if w := put(); w.Code != 200 {
			t.Errorf("after ten seconds: %d", w.Code)
		}

		free := handler(t, keyvault.Config{NoThrottle: true})
		for i := range 301 {
			if w := call(free, "PUT", "/secrets/s?api-version=7.6", `{"value":"x"}`); w.Code != 200 {
				t.Fatalf("creation %d without throttling: %d", i+1, w.Code)
			}
		}
	})
}

func TestFaultsBeforeAndAfterTheirEffect(t *testing.T) {
	var injector faults.Injector
	v, c := start(t, keyvault.Config{Injector: &injector}, func(o *azsecrets.ClientOptions) {
		o.Retry = policy.RetryOptions{MaxRetries: 3, RetryDelay: time.Millisecond}
	})
	set(t, c, "s", "one", nil)
	inject := func(f faults.Fault) {
		t.Helper()
		f.Service, f.Operation = keyvault.Service, keyvault.SetSecret
		if err := injector.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	inject(faults.Fault{Mode: faults.Status, Status: 503})
	set(t, c, "s", "two", nil)
	if n := len(v.Versions("s")); n != 2 {
		t.Fatalf("%d versions after a refused write and its repetition, want 2", n)
	}
	inject(faults.Fault{Mode: faults.ResetAfter})
	set(t, c, "s", "three", nil)
	if n := len(v.Versions("s")); n != 4 {
		t.Fatalf("%d versions after a write whose answer was lost, want 4", n)
	}
	inject(faults.Fault{Mode: faults.Status, Status: 403, Body: keyvault.ErrorBody("Forbidden", "no",
		"ForbiddenByRbac")})
	_, err := c.SetSecret(t.Context(), "s", azsecrets.SetSecretParameters{Value: ptr("four")}, nil)
	refusal(t, err, 403, "Forbidden/ForbiddenByRbac")
}

func TestOnChangeIsCalledForEveryWrite(t *testing.T) {
	var changes []string
	var v *keyvault.Vault
	v = handler(t, keyvault.Config{OnChange: func(name string, ver keyvault.Version) {
		changes = append(changes, fmt.Sprintf("%s %s enabled=%t deleted=%t of %d", name, ver.Value, ver.Enabled,
			ver.Deleted, len(v.Versions(name))))
		if ver.Purged {
			changes = append(changes, "purged")
		}
	}})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := v.Put(keyvault.Version{Name: "s", Value: "one"})
	must(err)
	second, err := v.Put(keyvault.Version{Name: "s", Value: "two", Tags: map[string]string{"a": "b"}})
	must(err)
	_, err = v.Change("S", second.ID, func(ver *keyvault.Version) { ver.Enabled = false; ver.Tags = nil })
	must(err)
	must(v.Delete("s"))
	if w := call(v, "POST", "/deletedsecrets/s/recover?api-version=7.6", ""); w.Code != 200 {
		t.Fatal(w.Body)
	}
	if _, err := v.Put(keyvault.Version{Name: "no_name", Value: "x"}); err == nil {
		t.Error("a bad name was accepted")
	}
	want := []string{
		"s one enabled=true deleted=false of 1", "s two enabled=true deleted=false of 2",
		"s two enabled=false deleted=false of 2",
		"s two enabled=false deleted=true of 2", "s two enabled=false deleted=false of 2",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("changes\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
	if got := v.Versions("s")[1]; len(got.Tags) != 0 || got.Expires != (time.Time{}) {
		t.Errorf("changed version %+v", got)
	}
	if v.Versions("other") != nil {
		t.Error("an unknown secret has versions")
	}
	if err := v.Purge("s"); err == nil {
		t.Error("a secret that is not deleted was purged")
	}
	changes = nil
	must(v.Delete("s"))
	must(v.Purge("s"))
	want = []string{"s two enabled=false deleted=true of 2", "s two enabled=false deleted=true of 0", "purged"}
	if !slices.Equal(changes, want) {
		t.Errorf("changes of a purge\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
}

func TestDeletedSecretsAreListedByTheirLastVersionsInPagesOf25(t *testing.T) {
	v, c := start(t, keyvault.Config{NoThrottle: true})
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for i := range 30 {
		name := fmt.Sprintf("secret-%02d", i)
		for _, n := range []string{"first", "last"} {
			if _, err := v.Put(keyvault.Version{Name: name, Value: n, Expires: expires,
				Tags: map[string]string{"version": n}}); err != nil {
				t.Fatal(err)
			}
		}
		if i == 7 {
			continue // stays
		}
		if err := v.Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	pager := c.NewListDeletedSecretPropertiesPager(nil)
	for pager.More() {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Value))
		for _, p := range page.Value {
			if p.ID.Name() == "secret-07" {
				t.Error("a secret that is there is listed as deleted")
			}
			if p.Tags["version"] == nil || *p.Tags["version"] != "last" {
				t.Errorf("%s has the tags %v, want those of its last version", p.ID.Name(), p.Tags)
			}
			if p.Attributes == nil || p.Attributes.Expires == nil || !p.Attributes.Expires.Equal(expires) {
				t.Errorf("%s: exp is not that of its last version", p.ID.Name())
			}
			if p.DeletedDate == nil || p.ScheduledPurgeDate == nil || p.RecoveryID == nil {
				t.Errorf("%s does not say since when it is deleted, until when, and how to bring it back", p.ID.Name())
			}
		}
	}
	if fmt.Sprint(sizes) != "[25 4]" {
		t.Errorf("pages of %v, want [25 4]", sizes)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for _, c := range []keyvault.Config{
		{URL: "http://v.vault.azure.net", Authority: "https://a", Tenant: "t", Verify: verify},
		{URL: "https://v.vault.azure.net", Tenant: "t", Verify: verify},
		{URL: "https://v.vault.azure.net", Authority: "https://a", Verify: verify},
		{URL: "https://v.vault.azure.net", Authority: "https://a", Tenant: "t"},
	} {
		if _, err := keyvault.New(c); err == nil {
			t.Errorf("accepted %+v", c.URL)
		}
	}
}

// FuzzWrites: a body is accepted within the limits, or refused with 400.
func FuzzWrites(f *testing.F) {
	f.Add("s", `{"value":"x","contentType":"t","tags":{"a":"b"},"attributes":{"enabled":false,"exp":5,"nbf":4}}`)
	f.Add("a_b", `{"value":"x"}`)
	f.Add("s", `{"value":"x","tags":{"a":null}}`)
	f.Add("s", `{"value":"x"}{}`)
	v, err := keyvault.New(keyvault.Config{URL: "https://patrol-test.vault.azure.net", Authority: "https://a",
		Tenant: "t", Verify: verify, NoThrottle: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, name, body string) {
		if body == "" {
			return // without a media type
		}
		w := call(v, "PUT", "/secrets/"+url.PathEscape(name)+"?api-version=7.6", body)
		if w.Code != 200 && w.Code != 400 && w.Code != 404 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if w.Code != 200 {
			return
		}
		versions := v.Versions(name)
		got := versions[len(versions)-1]
		for _, c := range []struct {
			what     string
			got, max int
		}{
			{"value", len(got.Value), 25600}, {"content type", len(got.ContentType), 255},
			{"tags", len(got.Tags), 15}, {"name", len(name), 127},
		} {
			if c.got > c.max {
				t.Fatalf("accepted %q with a %s of %d, want at most %d", name, c.what, c.got, c.max)
			}
		}
	})
}

func TestASecretIsRecoveredByHandWithItsVersions(t *testing.T) {
	v := handler(t, keyvault.Config{})
	for _, value := range []string{"first", "second"} {
		if _, err := v.Put(keyvault.Version{Name: "s", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Recover("s"); err == nil {
		t.Error("a secret that is there was recovered")
	}
	if err := v.Delete("s"); err != nil {
		t.Fatal(err)
	}
	if err := v.Recover("s"); err != nil {
		t.Fatal(err)
	}
	vs := v.Versions("s")
	if len(vs) != 2 || vs[1].Deleted {
		t.Errorf("%d versions, deleted %t, want both and not deleted", len(vs), vs[len(vs)-1].Deleted)
	}
}
