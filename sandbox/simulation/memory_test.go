package simulation_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// The handler serves for weeks: what it remembers must not grow with what it has
// done.
func TestMemoryStaysFlatOverManyReconciles(t *testing.T) {
	if raceDetector {
		t.Skip("100,000 reconciles are many under the race detector; make test runs them without")
	}
	var network memnet.Network
	manifest := t.TempDir() + "/pats.yaml"
	if err := os.WriteFile(manifest, []byte(onePAT), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cloud.New(cloud.Config{Network: &network, Manifest: manifest,
		Vault: func(v *keyvault.Config) { v.NoThrottle = true }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Seed(); err != nil {
		t.Fatal(err)
	}
	env := c.Environment()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		t.Setenv(name, env[name])
	}
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	a := app.New(settings, err, app.Outside{Transport: network.Transport(), Dial: c.DialBus})
	defer func() { _ = a.Close(context.Background()) }()

	body := base64.StdEncoding.EncodeToString([]byte(`{"command":"reconcile","pat":"jenkins-agents"}`))
	n := 0
	reconcile := func(times int) {
		for range times {
			n++
			envelope := fmt.Sprintf(`{"Data":{"message":%q},"Metadata":{"MessageId":"\"m-%d\"",`+
				`"SessionId":"\"jenkins-agents\"","DeliveryCount":"1"}}`, body, n)
			r := httptest.NewRequest(http.MethodPost, "/Reconcile", strings.NewReader(envelope))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			a.Handler().ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Fatalf("reconcile %d answered %d", n, w.Code)
			}
		}
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	reconcile(10_000)
	before := heap()
	reconcile(100_000)
	after := heap()
	t.Logf("heap %.1f MB after 10,000 reconciles, %.1f MB after 110,000, the sandbox's own included",
		float64(before)/1e6, float64(after)/1e6)
	if after > before+4<<20 {
		t.Errorf("the heap grew by %.1f MB over 100,000 reconciles", float64(after-before)/1e6)
	}
}
