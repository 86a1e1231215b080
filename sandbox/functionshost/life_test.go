package functionshost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

func TestDiscovery(t *testing.T) {
	const (
		req = `{"type":"httpTrigger","direction":"in","name":"req"}`
		res = `{"type":"http","direction":"out","name":"res"}`
	)
	cases := []struct{ name, folder, file, problem string }{
		{"plain", "A", function(req, res), ""},
		{"any case of types", "A", function(`{"type":"HTTPTRIGGER","direction":"IN","name":"req","authLevel":"Anonymous"}`, res), ""},
		{"unknown properties", "A", `{"x":1,` + function(req, res)[1:], ""},
		{"name with a dot", "a.b", function(req, res), "not a valid function name"},
		{"name with a digit first", "1a", function(req, res), "not a valid function name"},
		{"reserved name", "Host", function(req, res), "not a valid function name"},
		{"no JSON", "A", `{`, "parsing function.json"},
		{"no bindings", "A", `{}`, "at least one binding"},
		{"no trigger", "A", function(res), "no trigger"},
		{"two triggers", "A", function(req, `{"type":"timerTrigger","direction":"in","name":"t","schedule":"0 * * * * *"}`), "multiple trigger"},
		{"same binding name", "A", function(req, strings.Replace(res, "res", "REQ", 1)), "must be unique"},
		{"binding name with an underscore", "A", function(strings.Replace(req, `"req"`, `"my_req"`, 1), res), "is invalid"},
		{"no binding name", "A", function(strings.Replace(req, `,"name":"req"`, ``, 1), res), "is invalid"},
		{"trigger going out", "A", function(strings.Replace(req, `"in"`, `"out"`, 1), res), "direction out"},
		{"unknown binding type", "A", function(req, res, `{"type":"cosmosDB","direction":"out","name":"doc"}`), "are not registered"},
		{"unknown trigger type", "A", function(`{"type":"queueTrigger","direction":"in","name":"q"}`), "are not registered"},
		{"missing script file", "A", `{"scriptFile":"run.js",` + function(req, res)[1:], "does not exist"},
		{"retry", "A", `{"retry":{"strategy":"fixedDelay"},` + function(req, res)[1:], "retry policies"},
		{"auth level", "A", httpTrigger(`,"authLevel":"user"`), "none of anonymous"},
		{"route", "A", httpTrigger(`,"route":"x/{id"`), "the route 'x/{id' is invalid"},
		{"constraint", "A", httpTrigger(`,"route":"x/{id:slug}"`), "this host offers literals and {parameters} only"},
		{"schedule", "A", timer("every day", ""), "was not recognized"},
		{"schedule from a setting", "A", timer("%SCHEDULE%", ""), ""},
		{"schedule from a setting that is not there", "A", timer("%OTHER%", ""), "'%OTHER%' does not resolve to a value"},
		{"queue", "A", queueTrigger("%QUEUE%/$DeadLetterQueue", ""), ""},
		{"queue from a setting that is not there", "A", queueTrigger("%OTHER%", ""), "does not resolve"},
		{"queue and topic", "A", queueTrigger("q", `,"topicName":"t"`), "either queueName or topicName"},
		{"topic without subscription", "A", queueTrigger("", `,"topicName":"t"`), "either queueName or topicName"},
		{"topic and subscription", "A", queueTrigger("", `,"topicName":"t","subscriptionName":"s"`), ""},
		{"cardinality", "A", queueTrigger("q", `,"cardinality":"some"`), "neither one nor many"},
		{"data type", "A", queueTrigger("q", `,"dataType":"stream"`), "not offered"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := build(t, app{c.folder + "/function.json": c.file, "Other/function.json": httpTrigger(`,"route":"other"`)},
				newHandler(nil), func(c *functionshost.Config) {
					c.Settings["SCHEDULE"], c.Settings["QUEUE"] = "0 */5 * * * *", "q"
				})
			if !slices.Contains(w.Functions(), "Other") {
				t.Error("the other function is not loaded")
			}
			p := w.Problems()
			if c.problem == "" {
				if len(p) > 0 || len(w.Functions()) != 2 {
					t.Errorf("problems %v", p)
				}
				return
			}
			if len(p) != 1 || !p[0].InError || p[0].Function != c.folder || !strings.Contains(p[0].Message, c.problem) {
				t.Errorf("problems %v, want one with %q", p, c.problem)
			}
			if !strings.Contains(w.journal.text(), "is in error") {
				t.Error("not in the log")
			}
		})
	}
}

func TestServiceBusTriggerWantsTheExtensionBundle(t *testing.T) {
	t.Parallel()
	const host = `{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"},` +
		`"enableProxyingHttpRequest":true}}`
	f := build(t, app{"host.json": host, "A/function.json": queueTrigger("q", "")}, newHandler(nil), nil)
	if len(f.Problems()) == 0 {
		t.Fatal("no problems")
	}
	if message := f.Problems()[0].Message; !strings.Contains(message, "extensionBundle") {
		t.Errorf("got %q, want extensionBundle in it", message)
	}
}

func TestTimerWantsAStorageAccount(t *testing.T) {
	t.Parallel()
	for setting, loaded := range map[string]bool{"": false, "AzureWebJobsStorage": true, "AzureWebJobsStorage__accountName": true} {
		w := build(t, app{"A/function.json": timer("0 * * * * *", "")}, newHandler(nil), func(c *functionshost.Config) {
			delete(c.Settings, "AzureWebJobsStorage")
			if setting != "" {
				c.Settings[setting] = "x"
			}
		})
		if got := len(w.Functions()) == 1; got != loaded {
			t.Errorf("with setting %q: loaded %t, problems %v", setting, got, w.Problems())
		}
	}
}

func TestDisabledFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{
			"host.json":       strings.Replace(standardHost, `"version":"2.0"`, `"version":"2.0","functions":["a","B","C","D","E"]`, 1),
			"A/function.json": openHTTP(""),
			"B/function.json": openHTTP(""),
			"C/function.json": timer("* * * * * *", ""),
			"D/function.json": `{"disabled":true,` + openHTTP("")[1:],
			"E/function.json": `{"disabled":"E_OFF",` + openHTTP("")[1:],
			"F/function.json": openHTTP(""), // not in host.json's list
		}, h, func(c *functionshost.Config) {
			withFront(h)(c)
			c.Settings["AzureWebJobs.B.Disabled"] = "true"
			c.Settings["AzureWebJobs_C_Disabled"] = "1"
			c.Settings["E_OFF"] = "True"
		})
		if got := w.Functions(); !slices.Equal(got, []string{"A"}) {
			t.Errorf("functions %v", got)
		}
		time.Sleep(time.Minute)
		for path, want := range map[string]int{"/api/A": 200, "/api/B": 404, "/api/D": 404, "/api/E": 404, "/api/F": 404} {
			if r := call(t, h.net, "GET", path, nil, nil); r.status != want {
				t.Errorf("%s: %d, want %d", path, r.status, want)
			}
		}
		if seen := h.requestsSeen(); len(seen) != 1 {
			t.Errorf("requests %v", seen)
		}
	})
}

func TestEveryAnswerMeansReadyAndInvocationsWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.delay = 10 * time.Second
		h.serveRoot = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		launch(t, app{"host.json": strings.Replace(standardHost, "00:00:05", "00:01:00", 1), "A/function.json": openHTTP("")}, h, withFront(h))
		before := time.Now()
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		if took := time.Since(before); r.status != 200 || took < 10*time.Second || took > 10*time.Second+50*time.Millisecond {
			t.Errorf("%d after %v; want 200 a poll after the handler's 10 s", r.status, took)
		}
	})
}

func TestHandlerThatIsNeverReadyUsesUpTheRestartBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.delay = time.Hour
		begun := time.Now()
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		if err := w.Wait(); !errors.Is(err, functionshost.ErrRestartBudget) {
			t.Errorf("Wait: %v", err)
		}
		if took, n := time.Since(begun).Round(time.Second), len(h.startsSeen()); took != 90*time.Second || n != 3 {
			t.Errorf("%d processes in %v; want 3 in 90 s", n, took)
		}
	})
}

func TestExitCode0BeforeReadyIsCaughtByTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.delay = time.Hour
		begun := time.Now()
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		h.exit <- 0
		h.delay = 0
		w.ready()
		if took := time.Since(begun).Round(time.Second); took != 30*time.Second {
			t.Errorf("ready after %v, want 30 s", took)
		}
	})
}

type brokenLauncher struct{}

func (brokenLauncher) Start(context.Context, functionshost.Spec) (functionshost.Process, error) {
	return nil, errors.New("no such file")
}

func TestHandlerThatCannotBeStartedEndsTheHostAtTheFirstInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"host.json": strings.Replace(standardHost, "00:00:05", "00:10:00", 1), "A/function.json": openHTTP("")}, h, func(c *functionshost.Config) {
			withFront(h)(c)
			c.Launcher = brokenLauncher{}
		})
		time.Sleep(time.Hour) // nobody asks, nothing happens
		begun := time.Now()
		if r, err := tryCall(h.net, "GET", "/api/A", nil, nil); err == nil && r.status != 500 {
			t.Errorf("status %d", r.status)
		}
		if err := w.Wait(); !errors.Is(err, functionshost.ErrHandlerNeverReady) {
			t.Errorf("Wait: %v", err)
		}
		if took := time.Since(begun).Round(time.Second); took != 2*time.Minute {
			t.Errorf("ended after %v, want 2 min", took)
		}
	})
}

func TestExecReportsAMissingExecutable(t *testing.T) {
	t.Parallel()
	if _, err := (functionshost.Exec{}).Start(context.Background(), functionshost.Spec{Path: "./not-there", Dir: t.TempDir()}); err == nil {
		t.Error("started")
	}
}

func TestCloseBreaksWhatIsUnderWayAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		w := launch(t, app{"host.json": strings.Replace(standardHost, "00:00:05", "01:00:00", 1), "A/function.json": openHTTP(""), "B/function.json": queueTrigger("q", "")},
			h, func(c *functionshost.Config) { withFront(h)(c); noBroker(c) })
		w.ready()
		results := make(chan error, 2)
		go func() {
			r, err := tryCall(h.net, "GET", "/api/A", nil, nil)
			if err == nil && r.status != 500 {
				err = fmt.Errorf("status %d", r.status)
			} else {
				err = nil
			}
			results <- err
		}()
		go func() {
			err := w.InvokeMessages(context.Background(), "B", plainMessage("x"))
			if errors.Is(err, functionshost.ErrUnreachable) {
				err = nil
			}
			results <- err
		}()
		// A caller that never ends its body must not hold the end up.
		slow, end := io.Pipe()
		go func() { _, _ = tryCall(h.net, "POST", "/api/A", slow, nil); results <- nil }()
		synctest.Wait()
		begun := time.Now()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("closed in %v", took)
		}
		_ = end.Close()
		for range 3 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if err := w.Wait(); err != nil {
			t.Errorf("Wait after Close: %v", err)
		}
		if err := w.Invoke(context.Background(), "B", ""); !errors.Is(err, functionshost.ErrClosed) {
			t.Errorf("Invoke after Close: %v", err)
		}
		if err := w.Start(context.Background()); err == nil {
			t.Error("started twice")
		}
	})
}

func TestCloseWithoutStart(t *testing.T) {
	t.Parallel()
	w := build(t, app{"A/function.json": httpTrigger("")}, newHandler(nil), nil)
	_ = w.Close()
	if err := w.Start(context.Background()); err == nil {
		t.Error("started after Close")
	}
}

func TestEndOfTheStartContextClosesTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := build(t, app{"A/function.json": httpTrigger("")}, h, nil)
		ctx, cancel := context.WithCancel(context.Background())
		if err := w.Start(ctx); err != nil {
			t.Fatal(err)
		}
		w.ready()
		cancel()
		if err := w.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := app{"host.json": standardHost}.write(t)
	for name, c := range map[string]functionshost.Config{
		"no app":               {Launcher: functionshost.Exec{}},
		"no launcher":          {AppDir: dir},
		"a dial without port":  {AppDir: dir, Launcher: functionshost.Exec{}, Dial: newHandler(nil).net.Dial},
		"an app without files": {AppDir: t.TempDir(), Launcher: functionshost.Exec{}},
	} {
		if _, err := functionshost.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestHandlerThatTakesTheFirstRequestAndNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.serveRoot = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		begun := time.Now()
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		if err := w.Wait(); !errors.Is(err, functionshost.ErrRestartBudget) {
			t.Errorf("Wait: %v", err)
		}
		// Not initializationTimeout, but functionTimeout and a minute, thrice.
		if took := time.Since(begun).Round(time.Second); took != 3*65*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}
