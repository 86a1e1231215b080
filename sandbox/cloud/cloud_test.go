package cloud_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/statestore"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

const manifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    scopes: [vso.build_execute]
`

func manifestFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pats.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkPlan asks the app's own wiring for its plan, which takes calls to the managed identity, the
// vault, Entra and Azure DevOps.
func checkPlan(t *testing.T, c *cloud.Cloud, o app.Outside) {
	t.Helper()
	env := c.Environment()
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	a := app.New(settings, nil, o)
	defer func() {
		if err := a.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if broken := a.Broken(); len(broken) > 0 {
		t.Fatalf("the app cannot use the settings: %q", broken)
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/pats", nil))
	var plan struct {
		PATs     []struct{ Name, State string }
		Problems []any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &plan); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	if len(plan.Problems) != 0 {
		t.Errorf("the plan has problems: %s", w.Body)
	}
	if len(plan.PATs) != 1 || plan.PATs[0].State != "missing" {
		t.Errorf("the plan is %s, want one PAT, missing", w.Body)
	}
}

func TestTheAppReachesEveryServiceOnANetwork(t *testing.T) {
	for name, genuine := range map[string]bool{"local names": false, "genuine names": true} {
		t.Run(name, func(t *testing.T) {
			path := manifestFile(t)
			var network memnet.Network
			c := cloud.Config{Network: &network, Genuine: genuine, Manifest: path}
			// azidentity knows the endpoint from the process' environment only.
			for name, value := range environment(t, c) {
				if name == "IDENTITY_ENDPOINT" || name == "IDENTITY_HEADER" {
					t.Setenv(name, value)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				cl, err := cloud.New(c)
				if err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
				if err := cl.Seed(); err != nil {
					t.Fatal(err)
				}
				transport := cl.Transport()
				defer transport.CloseIdleConnections()
				checkPlan(t, cl, app.Outside{Transport: transport, Dial: cl.DialBus})
			})
		})
	}
}

func TestTheAppReachesEveryServiceOverTLSOnLoopback(t *testing.T) {
	cl, err := cloud.New(cloud.Config{Manifest: manifestFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	env := cl.Environment()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		t.Setenv(name, env[name])
	}
	if err := cl.Seed(); err != nil {
		t.Fatal(err)
	}
	transport := cl.Transport()
	checkPlan(t, cl, app.Outside{Transport: transport})
	transport.CloseIdleConnections()

	calls, err := http.Get(cl.ControlURL() + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = calls.Body.Close() }()
	var counts map[string]map[string]int
	if err := json.NewDecoder(calls.Body).Decode(&counts); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ service, operation string }{
		{"devops", "ListPats"}, {"keyvault", "ListSecrets"}, {"entra", "token refresh_token"},
	} {
		if n := counts[c.service][c.operation]; n != 1 {
			t.Errorf("%d calls of %s %s, want 1", n, c.service, c.operation)
		}
	}
	if counts["identity"]["token"] == 0 {
		t.Error("the managed identity was not asked for a token")
	}
	if _, err := os.Stat(env["SSL_CERT_FILE"]); err != nil {
		t.Error(err)
	}
	cl.Close()
	if _, err := os.Stat(filepath.Dir(env["SSL_CERT_FILE"])); !os.IsNotExist(err) {
		t.Errorf("after Close the certificate's folder is still there: %v", err)
	}
}

// Every way into Service Bus is the app's own, and Key Vault's events arrive on it.
func TestKeyVaultsEventsArriveOnTheirQueue(t *testing.T) {
	for name, c := range map[string]cloud.Config{
		"loopback, managed identity":  {},
		"loopback, connection string": {ConnectionString: true},
		"network, managed identity":   {Network: &memnet.Network{}},
		"network, connection string":  {Network: &memnet.Network{}, ConnectionString: true},
		"network, genuine names":      {Network: &memnet.Network{}, Genuine: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, err := cloud.New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if err := cl.Seed(); err != nil {
				t.Fatal(err)
			}
			client, err := cl.BusClient()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			defer func() { _ = client.Close(ctx) }()
			r, err := client.NewReceiverForQueue(cloud.VaultEventQueue, nil)
			if err != nil {
				t.Fatal(err)
			}
			messages, err := r.ReceiveMessages(ctx, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			var event struct {
				ID, Type, Subject string
			}
			if err := json.Unmarshal(messages[0].Body, &event); err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				what      string
				got, want any
			}{
				{"type", event.Type, keyvault.NewVersionCreated},
				{"subject", event.Subject, "patrol-identity-build-bot"},
				{"id", event.ID, messages[0].MessageID},
				{"aeg-event-type", messages[0].ApplicationProperties["aeg-event-type"], "Notification"},
			} {
				if c.got != c.want {
					t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
				}
			}
			if err := r.CompleteMessage(ctx, messages[0], nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheHistoryHasEverythingInItsOrder(t *testing.T) {
	t.Parallel()
	var seen []cloud.Record
	cl, err := cloud.New(cloud.Config{Network: &memnet.Network{},
		OnRecord: func(r cloud.Record) { seen = append(seen, r) }})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Seed(); err != nil {
		t.Fatal(err)
	}
	id, token := cl.DevOps.Seed(cloud.Organization, cloud.User, "by hand", "vso.code", time.Now().Add(time.Hour), false)
	if err := cl.Bus.Send(cloud.EventTopic, servicebus.Message{ID: "m1", Subject: "sent",
		Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	cl.DevOps.Revoke(id)

	var got []string
	for i, r := range cl.History() {
		if r.Number != i+1 || r.At.IsZero() || seen[i].Number != r.Number {
			t.Errorf("record %d: %+v", i, r)
		}
		switch r.Kind {
		case cloud.Secret:
			got = append(got, "secret "+r.Secret.Name)
		case cloud.PAT:
			got = append(got, "pat "+string(r.PAT.Kind))
		case cloud.Message:
			got = append(got, "message "+r.Message.ID)
		}
	}
	want := []string{"secret patrol-identity-build-bot", "pat created", "message m1", "pat revoked"}
	if !slices.Equal(got, want) {
		t.Errorf("history %q, want %q", got, want)
	}
	if sent := cl.Messages(cloud.EventTopic); len(sent) != 1 || sent[0].Subject != "sent" {
		t.Errorf("messages on the topic: %+v", sent)
	}
	// with a refresh token and the cloud's own secrets
	if !slices.Contains(cl.Tokens(), token) || len(cl.Tokens()) < 3 {
		t.Error("the PAT is not among the tokens that were given out")
	}
}

// The state is written and read with the app's own credential, its endpoint included.
func TestTheStateIsReachedByTheManagedIdentity(t *testing.T) {
	for name, c := range map[string]cloud.Config{
		"loopback":               {},
		"network, local names":   {Network: &memnet.Network{}},
		"network, genuine names": {Network: &memnet.Network{}, Genuine: true},
	} {
		t.Run(name, func(t *testing.T) {
			cl, err := cloud.New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			env := cl.Environment()
			for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
				t.Setenv(name, env[name])
			}
			transport := cl.Transport()
			defer transport.CloseIdleConnections()
			options := azcore.ClientOptions{Transport: &http.Client{Transport: transport}}
			identity, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
				ClientOptions: options, ID: azidentity.ClientID(env["AZURE_CLIENT_ID"])})
			if err != nil {
				t.Fatal(err)
			}
			store, err := statestore.New(statestore.Config{URL: parse(t, env["STATE_URL"]), Credential: identity,
				ClientOptions: options})
			if err != nil {
				t.Fatal(err)
			}
			ctx, key := t.Context(), "sweeps/last.json"
			if _, err := store.Put(ctx, key, []byte("{}"), statestore.Unchanged("")); err != nil {
				t.Fatal(err)
			}
			got, err := store.Get(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Value) != "{}" {
				t.Errorf("value %q, want {}", got.Value)
			}
			if _, ok := cl.Blobs.Blob(cloud.StateContainer, key); !ok {
				t.Error("the blob is not in the container of the state")
			}
			entries, more, err := store.List(ctx, "sweeps/")
			isOne := len(entries) == 1 && entries[0].Key == key
			if err != nil || more || !isOne {
				t.Errorf("list %+v, %v, %v", entries, more, err)
			}
			if n := cl.Injector.Count("identity", "token"); n != 1 {
				t.Errorf("the managed identity was asked for %d tokens, want 1", n)
			}
			last := cl.History()[len(cl.History())-1]
			if last.Kind != cloud.Blob || last.Blob.Name != key {
				t.Errorf("the history ends with %+v, want the blob", last)
			}
		})
	}
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAnotherIdentityHasNoRoleInTheStorageAccount(t *testing.T) {
	t.Parallel()
	cl, err := cloud.New(cloud.Config{Network: &memnet.Network{}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cl.Entra.AddIdentity(entra.ManagedIdentity{ClientID: "another"})
	transport := cl.Transport()
	defer transport.CloseIdleConnections()
	for _, c := range []struct {
		identity, resource string
		status             int
	}{
		{"another", "https://storage.azure.com", http.StatusForbidden},
		{cl.Environment()["AZURE_CLIENT_ID"], "https://vault.azure.net", http.StatusUnauthorized},
		{cl.Environment()["AZURE_CLIENT_ID"], "https://storage.azure.com/", http.StatusOK},
	} {
		token, _, err := cl.Entra.IdentityToken(c.identity, c.resource)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			cl.Environment()["STATE_URL"]+"?restype=container&comp=list", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Ms-Version", "2023-11-03")
		got, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		if got.StatusCode != c.status {
			t.Errorf("%s for %s: status %d, want %d", c.identity, c.resource, got.StatusCode, c.status)
		}
	}
}

// The vault and the bus have a role for the app alone.
func TestAnotherIdentityHasNoRole(t *testing.T) {
	t.Parallel()
	network := &memnet.Network{}
	cl, err := cloud.New(cloud.Config{Network: network})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cl.Entra.AddIdentity(entra.ManagedIdentity{ClientID: "another"})
	transport := cl.Transport()
	defer transport.CloseIdleConnections()
	for id, want := range map[string]int{"another": http.StatusUnauthorized,
		cl.Environment()["AZURE_CLIENT_ID"]: http.StatusOK} {
		token, _, err := cl.Entra.IdentityToken(id, "https://vault.azure.net")
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, cl.Environment()["KEY_VAULT_URL"]+
			"/secrets?api-version=7.6", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		got, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		if got.StatusCode != want {
			t.Errorf("%s: status %d, want %d", id, got.StatusCode, want)
		}
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	t.Parallel()
	network := &memnet.Network{}
	for name, c := range map[string]cloud.Config{
		"credential": {Network: network, ClientCredential: "password"},
		"entities":   {Network: network, Entities: []byte("{}")},
	} {
		if cl, err := cloud.New(c); err == nil {
			cl.Close()
			t.Errorf("%s: accepted, want it refused", name)
		}
	}
	// What had been opened before the refusal is closed.
	cl, err := cloud.New(cloud.Config{Network: network})
	if err != nil {
		t.Fatal(err)
	}
	cl.Close()
	cl.Close()
}

func environment(t *testing.T, c cloud.Config) map[string]string {
	t.Helper()
	c.Network = &memnet.Network{}
	cl, err := cloud.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	return cl.Environment()
}
