package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

var (
	resultsPath = flag.String("results", "", "append what is measured to this file, a JSON object a line")
	recording   = flag.Bool("record", false, "write recorded.json anew instead of holding against it")
	scale       = flag.Int("scale", 0, "PATs that are due at once in the scale-out; 0: a few")
)

var writing sync.Mutex

// report shows a measurement, and writes it down for the command that has started the
// test.
func report(t testing.TB, r result) {
	t.Helper()
	t.Logf("%s: %.4g %s %s", r.Name, r.Value, r.Unit, r.Note)
	if *resultsPath == "" {
		return
	}
	writing.Lock()
	defer writing.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(*resultsPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "%s\n", line)
	if cerr := f.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
}

// world is one app on a cloud, in a bubble; the test takes the host's place.
type world struct {
	*cloud.Cloud
	fleet
	app *app.App
	ids []string
}

// tokenLife is longer than any token lives: an SDK's goroutine that renews one ends
// with it.
const tokenLife = 25 * time.Hour

func inBubble(t *testing.T, f fleet, story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		manifest := filepath.Join(t.TempDir(), "pats.yaml")
		if err := os.WriteFile(manifest, []byte(f.manifest()), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := cloud.New(cloud.Config{Network: &network, Manifest: manifest,
			Vault: func(v *keyvault.Config) { v.NoThrottle = true }})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.people(c); err != nil {
			t.Fatal(err)
		}
		ids, err := f.provision(c)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{Cloud: c, fleet: f, ids: ids}
		env := c.Environment()
		for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
			if err := os.Setenv(name, env[name]); err != nil {
				t.Fatal(err)
			}
		}
		settings, err := app.ReadSettings(func(name string) string { return env[name] })
		w.app = app.New(settings, err, app.Outside{Transport: network.Transport(), Dial: c.DialBus})
		if broken := w.app.Broken(); len(broken) > 0 {
			t.Fatal(broken)
		}
		story(t, w)
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.app.Close(closing)
		c.Close()
		time.Sleep(tokenLife)
		synctest.Wait()
	})
}

func (w *world) invoke(n int, pat, from string) error {
	r := httptest.NewRequest(http.MethodPost, "/Reconcile", strings.NewReader(orderEnvelope(n, pat, from)))
	r.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	w.app.Handler().ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		return fmt.Errorf("rotating %s was answered %d", pat, rec.Code)
	}
	return nil
}

// trip is what a call takes.
const trip = 50 * time.Millisecond

func (w *world) slow() {
	w.Injector.OnCall(func(int, faults.Call) *faults.Fault { return &faults.Fault{Mode: faults.Slow, Delay: trip} })
}

// rotateOne measures how long it took until readers had the new PAT, and until the
// invocation was answered.
func (w *world) rotateOne(t *testing.T, i int) (readable, answered time.Duration) {
	t.Helper()
	began := time.Now()
	if err := w.invoke(i, w.name(i), w.ids[i]); err != nil {
		t.Fatal(err)
	}
	answered = time.Since(began)
	for _, r := range w.History() {
		if s := r.Secret; s != nil && s.Name == w.name(i) && s.Tags["patrol-announced-at"] == "" {
			return r.At.Sub(began), answered
		}
	}
	t.Fatalf("%s was not rotated", w.name(i))
	return 0, 0
}

// roundTrips are those of a rotation in the three situations in which a process can be.
func roundTrips(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	inBubble(t, fleet{pats: 4, identities: 1}, func(t *testing.T, w *world) {
		w.slow()
		count := func(name string, i int) {
			readable, answered := w.rotateOne(t, i)
			if readable%trip != 0 || answered%trip != 0 {
				t.Errorf("%s: %v and %v are no round trips of %v: something else is waited for", name, readable,
					answered, trip)
			}
			out[name+", until the new PAT is readable"] = int(readable / trip)
			out[name+", until the invocation is answered"] = int(answered / trip)
		}
		count("rotation, first of a process", 0)
		time.Sleep(10 * time.Second)
		count("rotation, warm", 1)
		time.Sleep(30 * time.Minute)
		count("rotation, with an old list", 2)
	})
	return out
}

func TestTheNewPATIsReadableAfterFourRoundTrips(t *testing.T) {
	trips := roundTrips(t)
	for _, name := range []string{"rotation, warm", "rotation, with an old list", "rotation, first of a process"} {
		r := result{Name: "round trips of a " + name + ", until the new PAT is readable", Unit: "trips",
			Note: fmt.Sprintf("%d until the invocation is answered", trips[name+", until the invocation is answered"])}
		r.Value = float64(trips[name+", until the new PAT is readable"])
		if name != "rotation, first of a process" {
			r.Bar = 4
			if r.Value > r.Bar {
				t.Errorf("%s: %v round trips, want 4", name, r.Value)
			}
		}
		report(t, r)
	}
}

func TestAThousandRotationsStayNearTheirBound(t *testing.T) {
	const sessions = 16
	n := 1000
	if raceDetector {
		n = 100
	}
	inBubble(t, fleet{pats: n + 1, identities: 1}, func(t *testing.T, w *world) {
		// The first one opens the links to Service Bus: whoever waits for them
		// holds a lock of the SDK, which would stop virtual time.
		w.rotateOne(t, n)
		w.slow()
		began := time.Now()
		if err := w.rotate(w.ids[:n], sessions, w.invoke); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		bound := time.Duration((n+sessions-1)/sessions) * inSequence * trip
		r := result{Name: fmt.Sprintf("%s rotations on %d sessions at %v a call, against their bound", thousands(n),
			sessions, trip), Value: float64(took) / float64(bound), Unit: "x", Bar: 1.15,
			Note: fmt.Sprintf("%v; the bound is %v", took, bound)}
		report(t, r)
		if n == 1000 && !r.held() {
			t.Errorf("%v, and the bar is %.2f times %v", took, r.Bar, bound)
		}
	})
}
