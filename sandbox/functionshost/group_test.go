package functionshost_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// grouped is an app of two HTTP functions, a timer and a queue, in groups.
func grouped(t *testing.T, h *handler) *fixture {
	t.Helper()
	return launch(t, app{
		"host.json":           hostWithTimeout("00:05:00"),
		"A/function.json":     httpTrigger(`,"authLevel":"anonymous","route":"a"`),
		"B/function.json":     httpTrigger(`,"authLevel":"anonymous","route":"b"`),
		"Timer/function.json": timer("0 0 * * * *", ""),
	}, h, func(c *functionshost.Config) {
		withFront(h)(c)
		c.Groups = true
	})
}

// startsByGroup counts the processes of each group.
func (h *handler) startsByGroup() map[string]int {
	out := map[string]int{}
	for _, s := range h.startsSeen() {
		out[s.Group]++
	}
	return out
}

func (f *fixture) get(path string) int {
	f.t.Helper()
	client := &http.Client{Transport: f.handler.net.Transport()}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + frontAddr + path)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestHTTPFunctionsShareAProcessAndEveryOtherFunctionHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		f := grouped(t, h)
		defer f.Close()
		check(t, "processes before the first call", h.startsByGroup(), map[string]int{})
		check(t, "the answer of A", f.get("/api/a"), http.StatusOK)
		check(t, "the answer of B", f.get("/api/b"), http.StatusOK)
		check(t, "the timer's failure", f.Invoke(context.Background(), "Timer", ""), nil)
		check(t, "processes", h.startsByGroup(), map[string]int{"http": 1, "function:timer": 1})
	})
}

func TestAGroupIsScaledToZeroAfterThirtySecondsOfRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		f := grouped(t, h)
		defer f.Close()
		asked := func() []string {
			synctest.Wait()
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Clone(h.asked)
		}
		for range 3 {
			f.get("/api/a")
			time.Sleep(29 * time.Second)
		}
		check(t, "asked to end while there are calls", asked(), nil)
		time.Sleep(2 * time.Second)
		check(t, "asked to end after the rest", asked(), []string{"http"})
		check(t, "the answer of the next process", f.get("/api/a"), http.StatusOK)
		check(t, "processes", h.startsByGroup(), map[string]int{"http": 2})
	})
}

func TestACallIsNoRestHoweverLongItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Minute)
			succeed(w, r)
		})
		f := grouped(t, h)
		defer f.Close()
		check(t, "the answer", f.get("/api/a"), http.StatusOK)
		check(t, "processes", h.startsByGroup(), map[string]int{"http": 1})
	})
}

// Crashes count for each group, and end its instance alone: the platform gives it another.
func TestTheThirdCrashOfAGroupEndsItsInstanceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		f := grouped(t, h)
		defer f.Close()
		check(t, "the first answer", f.get("/api/a"), http.StatusOK)
		for range 3 {
			h.exit <- 1
			synctest.Wait()
			time.Sleep(time.Second)
		}
		check(t, "processes after three crashes", h.startsByGroup(), map[string]int{"http": 3})
		check(t, "the timer's failure", f.Invoke(context.Background(), "Timer", ""), nil)
		check(t, "the answer of the next instance", f.get("/api/a"), http.StatusOK)
		check(t, "processes", h.startsByGroup(), map[string]int{"http": 4, "function:timer": 1})
	})
}
