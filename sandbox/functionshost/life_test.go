package functionshost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	changed := func(old, new string) string { return strings.Replace(req, old, new, 1) }
	resToo := `{"type":"http","direction":"out","name":"again"}`
	timerToo := `{"type":"timerTrigger","direction":"in","name":"t","schedule":"0 * * * * *"}`
	shouting := `{"type":"HTTPTRIGGER","direction":"IN","name":"req","authLevel":"Anonymous"}`
	cases := []struct{ name, folder, file, problem string }{
		{"plain", "A", function(req, res), ""},
		{"any case of types", "A", function(shouting, res), ""},
		{"unknown properties", "A", `{"x":1,` + function(req, res)[1:], ""},
		{"name with a dot", "a.b", function(req, res), "not a valid function name"},
		{"name with a digit first", "1a", function(req, res), "not a valid function name"},
		{"reserved name", "Host", function(req, res), "not a valid function name"},
		{"no JSON", "A", `{`, "parsing function.json"},
		{"no bindings", "A", `{}`, "at least one binding"},
		{"no trigger", "A", function(res), "no trigger"},
		{"two triggers", "A", function(req, timerToo), "multiple trigger"},
		{"two http outputs", "A", function(req, res, resToo), "more than one http output"},
		{"same binding name", "A", function(req, strings.Replace(res, "res", "REQ", 1)), "must be unique"},
		{"binding name with an underscore", "A", function(changed(`"req"`, `"my_req"`), res), "is invalid"},
		{"no binding name", "A", function(changed(`,"name":"req"`, ``), res), "is invalid"},
		{"trigger going out", "A", function(changed(`"in"`, `"out"`), res), "direction out"},
		{"both ways", "A", function(changed(`"in"`, `"inout"`), res), "direction 'inout' is not offered"},
		{"unknown binding type", "A", function(req, changed("httpTrigger", "cosmosDB")), "not registered"},
		{"unknown trigger type", "A", function(changed("httpTrigger", "queueTrigger")), "not registered"},
		{"missing script file", "A", `{"scriptFile":"run.js",` + function(req, res)[1:], "does not exist"},
		{"retry", "A", `{"retry":{"strategy":"fixedDelay"},` + function(req, res)[1:], "retry policies"},
		{"auth level", "A", httpTrigger(`,"authLevel":"user"`), "none of anonymous"},
		{"route", "A", httpTrigger(`,"route":"x/{id"`), "the route 'x/{id' is invalid"},
		{"constraint", "A", httpTrigger(`,"route":"x/{id:guid}"`), "literals and {parameters} only"},
		{"schedule", "A", timer("every day", ""), "was not recognized"},
		{"schedule from a setting", "A", timer("%SCHEDULE%", ""), ""},
		{"schedule from a setting that is not there", "A", timer("%OTHER%", ""), "does not resolve to a value"},
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
			a := app{c.folder + "/function.json": c.file, "Other/function.json": httpTrigger(`,"route":"other"`)}
			w := build(t, a, newHandler(nil), func(c *functionshost.Config) {
				c.Settings["SCHEDULE"], c.Settings["QUEUE"] = "0 */5 * * * *", "q"
			})
			if !slices.Contains(w.Functions(), "Other") {
				t.Error("the other function is not loaded")
			}
			p := w.Problems()
			if c.problem == "" {
				check(t, "problems", p, nil)
				check(t, "functions", len(w.Functions()), 2)
				return
			}
			if len(p) != 1 {
				t.Fatalf("problems %v, want one", p)
			}
			check(t, "function", p[0].Function, c.folder)
			check(t, "in error", p[0].InError, true)
			for what, text := range map[string]string{"message": p[0].Message, "log": w.journal.text()} {
				if !strings.Contains(text, c.problem) {
					t.Errorf("%s %q, want %q in it", what, text, c.problem)
				}
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
	for setting, loaded := range map[string]bool{
		"": false, "AzureWebJobsStorage": true, "AzureWebJobsStorage__accountName": true,
	} {
		a := app{"A/function.json": timer("0 * * * * *", "")}
		w := build(t, a, newHandler(nil), func(c *functionshost.Config) {
			delete(c.Settings, "AzureWebJobsStorage")
			if setting != "" {
				c.Settings[setting] = "x"
			}
		})
		check(t, fmt.Sprintf("with setting %q it is loaded", setting), len(w.Functions()) == 1, loaded)
	}
}

func TestDisabledFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{
			"host.json":       `{"functions":["a","B","C","D","E"],` + standardHost[1:],
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
		check(t, "functions", w.Functions(), []string{"A"})
		time.Sleep(time.Minute)
		for name, want := range map[string]int{"A": 200, "B": 404, "D": 404, "E": 404, "F": 404} {
			check(t, name, call(t, h.net, "GET", "/api/"+name, nil, nil).status, want)
		}
		check(t, "requests", len(h.requestsSeen()), 1)
	})
}

func TestEveryAnswerMeansReadyAndInvocationsWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.delay = 10 * time.Second
		h.serveRoot = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
		launch(t, app{"host.json": hostWithTimeout("00:01:00"), "A/function.json": openHTTP("")}, h, withFront(h))
		before := time.Now()
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		check(t, "status", r.status, 200)
		checkBetween(t, "time taken", time.Since(before), 10*time.Second, 10*time.Second+50*time.Millisecond)
	})
}

func TestHandlerThatIsNeverReadyUsesUpTheRestartBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		h.delay = time.Hour
		begun := time.Now()
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		checkError(t, "Wait", w.Wait(), functionshost.ErrRestartBudget)
		check(t, "time taken", time.Since(begun).Round(time.Second), 90*time.Second)
		check(t, "processes", len(h.startsSeen()), 3)
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
		check(t, "time until ready", time.Since(begun).Round(time.Second), 30*time.Second)
	})
}

type brokenLauncher struct{}

func (brokenLauncher) Start(context.Context, functionshost.Spec) (functionshost.Process, error) {
	return nil, errors.New("no such file")
}

func TestHandlerThatCannotBeStartedEndsTheHostAtTheFirstInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		a := app{"host.json": hostWithTimeout("00:10:00"), "A/function.json": openHTTP("")}
		w := launch(t, a, h, func(c *functionshost.Config) {
			withFront(h)(c)
			c.Launcher = brokenLauncher{}
		})
		time.Sleep(time.Hour) // nobody asks, nothing happens
		begun := time.Now()
		if r, err := tryCall(h.net, "GET", "/api/A", nil, nil); err == nil {
			check(t, "status", r.status, 500)
		}
		checkError(t, "Wait", w.Wait(), functionshost.ErrHandlerNeverReady)
		check(t, "time until the end", time.Since(begun).Round(time.Second), 2*time.Minute)
	})
}

func TestExecReportsAMissingExecutable(t *testing.T) {
	t.Parallel()
	spec := functionshost.Spec{Path: "./not-there", Dir: t.TempDir()}
	if _, err := (functionshost.Exec{}).Start(context.Background(), spec); err == nil {
		t.Error("started")
	}
}

func TestCloseBreaksWhatIsUnderWayAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		w := launch(t, app{
			"host.json":       hostWithTimeout("01:00:00"),
			"A/function.json": openHTTP(""), "B/function.json": queueTrigger("q", ""),
		}, h, func(c *functionshost.Config) { withFront(h)(c); noBroker(c) })
		w.ready()
		var calls sync.WaitGroup
		calls.Go(func() {
			if r, err := tryCall(h.net, "GET", "/api/A", nil, nil); err == nil {
				check(t, "status", r.status, 500)
			}
		})
		calls.Go(func() {
			err := w.InvokeMessages(context.Background(), "B", plainMessage("x"))
			checkError(t, "InvokeMessages", err, functionshost.ErrUnreachable)
		})
		// A caller that never ends its body must not hold the end up.
		slow, end := io.Pipe()
		calls.Go(func() { _, _ = tryCall(h.net, "POST", "/api/A", slow, nil) })
		synctest.Wait()
		begun := time.Now()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		checkBetween(t, "time until closed", time.Since(begun), 0, 2*time.Second)
		_ = end.Close()
		calls.Wait()
		checkError(t, "Wait after Close", w.Wait(), nil)
		checkError(t, "Invoke after Close", w.Invoke(context.Background(), "B", ""), functionshost.ErrClosed)
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
	dir := app{}.write(t)
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
		checkError(t, "Wait", w.Wait(), functionshost.ErrRestartBudget)
		// Not initializationTimeout, but functionTimeout and a minute, thrice.
		check(t, "time until the end", time.Since(begun).Round(time.Second), 3*65*time.Second)
	})
}
