package functionshost_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// The tests of this file are what was tried on the real host while its requests
// were recorded, one after the other.

func TestFunctionBelowAnotherFolderIsNotFound(t *testing.T) {
	w := build(t, app{
		"functions/Nested/function.json": httpTrigger(""),
		"A/function.json":                httpTrigger(""),
	}, newHandler(nil), nil)
	check(t, "functions", w.Functions(), []string{"A"})
	check(t, "problems", w.Problems(), nil)
}

func TestHandlerIsNotStartedWithoutAnyFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"functions/Nested/function.json": httpTrigger("")}, h, withFront(h))
		time.Sleep(time.Minute)
		check(t, "starts of the handler", len(h.startsSeen()), 0)
		check(t, "status", call(t, h.net, "GET", "/api/Nested", nil, nil).status, 404)
		check(t, "problems", w.Problems(), []functionshost.Problem{
			{Message: "no functions found directly below the script root; the handler is not started"},
		})
	})
}

func TestReservedRoutePutsItsFunctionInErrorAndTheOthersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{
			"A/function.json":         openHTTP(`,"route":"administration/x"`),
			"B/function.json":         openHTTP(`,"route":"Runtime-x"`),
			"AdminPage/function.json": openHTTP(""),
			"C/function.json":         openHTTP(""),
		}, h, withFront(h))
		const message = "the specified route conflicts with one or more built in routes"
		check(t, "problems", w.Problems(), []functionshost.Problem{
			{Function: "A", Message: message, InError: true},
			{Function: "AdminPage", Message: message, InError: true},
			{Function: "B", Message: message, InError: true},
		})
		for target, want := range map[string]int{
			"/api/administration/x": 404, "/api/Runtime-x": 404, "/api/AdminPage": 404, "/api/C": 200,
		} {
			check(t, target, call(t, h.net, "GET", target, nil, nil).status, want)
		}
	})
}

func TestFirstFunctionByNameTakesWhatTwoTemplatesMatch(t *testing.T) {
	const get, post = `,"methods":["get"]`, `,"methods":["post"]`
	for _, c := range []struct {
		name        string
		a, b        string
		want        string // the function that gets GET /api/x/special
		problemWith string
	}{
		{"parameter before literal", `,"route":"x/{id}"`, `,"route":"x/special"`, "A", "B"},
		{"literal before parameter", `,"route":"x/special"`, `,"route":"x/{id}"`, "A", "B"},
		{"different methods", post + `,"route":"x/{id}"`, get + `,"route":"x/special"`, "B", ""},
		{"different literals", `,"route":"x/one"`, `,"route":"x/special"`, "B", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(nil)
				f := launch(t, app{"A/function.json": openHTTP(c.a), "B/function.json": openHTTP(c.b)}, h, withFront(h))
				check(t, "status", call(t, h.net, "GET", "/api/x/special", nil, nil).status, 200)
				check(t, "function", f.journal.seen()[0].Function, c.want)
				var problems []string
				for _, p := range f.Problems() {
					check(t, "in error", p.InError, false)
					problems = append(problems, p.Function)
				}
				check(t, "problem with", strings.Join(problems, " "), c.problemWith)
			})
		})
	}
}

func TestKeys(t *testing.T) {
	a := app{
		"A/function.json": httpTrigger(`,"authLevel":"function"`),
		"B/function.json": httpTrigger(`,"authLevel":"admin"`),
		"C/function.json": openHTTP(""),
		"D/function.json": httpTrigger(``),
	}
	cases := []struct {
		name, target, key string
		want              int
	}{
		{"function level, no key", "/api/A", "", 401},
		{"function level, wrong key", "/api/A", "nonsense", 401},
		{"function level, its own key", "/api/A", "AKEY", 200},
		{"function level, another function's key", "/api/A", "BKEY", 401},
		{"function level, host key", "/api/A", "HOSTKEY", 200},
		{"function level, master key", "/api/A", "MASTER", 200},
		{"function level, host key in the query", "/api/A?code=HOSTKEY", "", 200},
		{"function level, wrong key in the header hides the query's", "/api/A?code=HOSTKEY", "nonsense", 401},
		{"default level, no key", "/api/D", "", 401},
		{"default level, host key", "/api/D", "HOSTKEY", 200},
		{"admin level, host key", "/api/B", "HOSTKEY", 401},
		{"admin level, its own function key", "/api/B", "BKEY", 401},
		{"admin level, master key", "/api/B", "MASTER", 200},
		{"admin level, master key in the query", "/api/B?code=MASTER", "", 200},
		{"anonymous, no key", "/api/C", "", 200},
		{"anonymous, wrong key", "/api/C", "nonsense", 200},
		{"anonymous, a code that is no key", "/api/C?code=0.AXoA", "", 200},
	}
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, a, h, withFront(h))
		for _, c := range cases {
			header := http.Header{}
			if c.key != "" {
				header = keyHeader(c.key)
			}
			r := call(t, h.net, "GET", c.target, nil, header)
			check(t, c.name, r.status, c.want)
			if r.status == 401 {
				check(t, c.name+": body", r.body, "")
			}
		}
		seen := h.requestsSeen()
		check(t, "last request", seen[len(seen)-1].URI, "/api/C?code=0.AXoA")
	})
}

func TestUnknownRouteAndWrongMethodAreNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"A/function.json": openHTTP(`,"methods":["get"],"route":"a/{n}"`)}, h, withFront(h))
		for target, want := range map[string]int{
			"GET /api/a/1": 200, "GET /API/A/1": 200, "GET /api/a/1/": 200, "GET /api/a": 404, "GET /api/a/1/2": 404,
			"POST /api/a/1": 404, "HEAD /api/a/1": 404, "GET /a/1": 404, "GET /api": 404,
			"GET /runtime/webhooks/x": 404,
		} {
			method, path, _ := strings.Cut(target, " ")
			check(t, target, call(t, h.net, method, path, nil, nil).status, want)
		}
	})
}

func TestResponsesPassThroughUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/A" {
				w.Header().Add("Set-Cookie", "a=1")
				w.Header().Add("Set-Cookie", "b=2")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(http.StatusFound)
				return
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, `{"title":"teapot"}`)
		})
		w := launch(t, app{"A/function.json": openHTTP(""), "B/function.json": openHTTP("")}, h, withFront(h))
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		check(t, "A: status", r.status, 302)
		check(t, "A: Location", r.header.Get("Location"), "/elsewhere")
		check(t, "A: cookies", r.header["Set-Cookie"], []string{"a=1", "b=2"})
		r = call(t, h.net, "GET", "/api/B", nil, nil)
		check(t, "B: status", r.status, 418)
		check(t, "B: type", r.header.Get("Content-Type"), "application/problem+json")
		check(t, "B: body", r.body, `{"title":"teapot"}`)
		for _, i := range w.journal.seen() {
			check(t, i.Function+": error", i.Err, nil)
		}
	})
}

func TestChunkedUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		r := call(t, h.net, "POST", "/api/A", unknownLength{strings.NewReader("in chunks")}, nil)
		check(t, "status", r.status, 200)
		check(t, "body", h.requestsSeen()[0].Body, any("in chunks"))
	})
}

func TestLargeBodyHeadAndOptionsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			w.Header().Set("X-Got", fmt.Sprint(r.Method, n))
		})
		launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		for method, size := range map[string]int{"POST": 6 << 20, "HEAD": 0, "OPTIONS": 0} {
			var body io.Reader
			if size > 0 {
				body = strings.NewReader(strings.Repeat("x", size))
			}
			r := call(t, h.net, method, "/api/A", body, nil)
			check(t, method+": status", r.status, 200)
			check(t, method+": what the handler got", r.header.Get("X-Got"), fmt.Sprint(method, size))
		}
	})
}

func TestAnswer500FailsAServiceBusInvocationByItsStatusOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			answer(w, `{"Logs":["secret words"]}`)
		})
		w := launch(t, app{"A/function.json": queueTrigger("q", `,"dataType":"binary"`)}, h, noBroker)
		err := w.InvokeMessages(context.Background(), "A", plainMessage("x"))
		checkError(t, "InvokeMessages", err, functionshost.ErrResponse)
		checkHas(t, "error", fmt.Sprint(err), "status code does not indicate success: 500")
		checkLacks(t, "log", w.journal.text(), "secret words")
	})
}

func TestEmptyAnswerHangsUntilFunctionTimeoutAndTheHandlerIsRestarted(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"no body":    func(w http.ResponseWriter, _ *http.Request) { answer(w, "") },
		"204":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"null":       func(w http.ResponseWriter, _ *http.Request) { answer(w, `null`) },
		"whitespace": func(w http.ResponseWriter, _ *http.Request) { answer(w, " \n") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(respond)
				w := launch(t, app{"A/function.json": queueTrigger("q", `,"dataType":"binary"`)}, h, noBroker)
				w.ready()
				for range 4 { // not counted, however often
					before := time.Now()
					err := w.InvokeMessages(context.Background(), "A", plainMessage("x"))
					checkError(t, "InvokeMessages", err, functionshost.ErrFunctionTimeout)
					check(t, "time taken", time.Since(before), 5*time.Second)
					time.Sleep(3 * time.Second) // two of them are grace
					synctest.Wait()
					w.ready()
				}
				starts := h.startsSeen()
				if len(starts) != 5 {
					t.Fatalf("%d processes, want 5", len(starts))
				}
				first, second := starts[0], starts[1]
				if first.Getenv("FUNCTIONS_HTTPWORKER_ID") == second.Getenv("FUNCTIONS_HTTPWORKER_ID") {
					t.Error("the second process has the first one's id")
				}
				const port = "FUNCTIONS_HTTPWORKER_PORT"
				check(t, "port of the second process", second.Getenv(port), first.Getenv(port))
			})
		})
	}
}

func TestFunctionTimeoutBreaksEveryOtherInvocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/Hang" {
				<-r.Context().Done()
				return
			}
			select {
			case <-time.After(4 * time.Second):
			case <-r.Context().Done():
			}
			succeed(w, r)
		})
		a := app{"Hang/function.json": queueTrigger("q", ``), "Slow/function.json": queueTrigger("q", ``)}
		w := launch(t, a, h, noBroker)
		w.ready()
		go func() { _ = w.InvokeMessages(context.Background(), "Hang", plainMessage("x")) }()
		time.Sleep(4 * time.Second)
		// Begun 1 s before the time-out, it would end 3 s after; the kill
		// comes 2 s after.
		err := w.InvokeMessages(context.Background(), "Slow", plainMessage("x"))
		checkError(t, "InvokeMessages", err, functionshost.ErrUnreachable)
	})
}

func TestExitCode0IsNotRestartedAndEveryLaterCallFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		f := launch(t, app{"A/function.json": openHTTP(""), "B/function.json": queueTrigger("q", "")}, h,
			func(c *functionshost.Config) { withFront(h)(c); noBroker(c) })
		check(t, "status before", call(t, h.net, "GET", "/api/A", nil, nil).status, 200)
		h.exit <- 0
		time.Sleep(time.Hour)
		for range 3 {
			check(t, "answer", call(t, h.net, "GET", "/api/A", nil, nil).status, 500)
			before := time.Now()
			err := f.InvokeMessages(context.Background(), "B", plainMessage("x"))
			checkError(t, "InvokeMessages", err, functionshost.ErrUnreachable)
			check(t, "an envelope fails after", time.Since(before), 0) // a proxied call is tried again
		}
		check(t, "processes", len(h.startsSeen()), 1)
	})
}

func TestThirdCrashWithinHalfAnHourEndsTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		for i := range 2 {
			w.ready()
			time.Sleep(29 * time.Minute)
			h.exit <- 137
			time.Sleep(time.Second)
			check(t, fmt.Sprintf("status after crash %d", i+1), call(t, h.net, "GET", "/api/A", nil, nil).status, 200)
		}
		time.Sleep(29 * time.Minute)
		h.exit <- 2
		checkError(t, "Wait", w.Wait(), functionshost.ErrRestartBudget)
		check(t, "processes", len(h.startsSeen()), 3)
		checkHas(t, "log", w.journal.text(),
			"Exceeded http worker restart retry count. Shutting down Functions Host")
		if _, err := tryCall(h.net, "GET", "/api/A", nil, nil); err == nil {
			t.Error("the front still answers")
		}
	})
}

func TestCrashesMoreThanHalfAnHourApartAreForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		for range 5 {
			w.ready()
			time.Sleep(31 * time.Minute)
			h.exit <- 1
			synctest.Wait()
		}
		w.ready()
		if n := len(h.startsSeen()); n != 6 {
			t.Errorf("%d processes, want 6", n)
		}
	})
}

func TestExitCode200RestartsWithoutLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": httpTrigger("")}, h, nil)
		for range 5 {
			w.ready()
			h.exit <- 200
			synctest.Wait()
		}
		w.ready()
		if n := len(h.startsSeen()); n != 6 {
			t.Errorf("%d processes, want 6", n)
		}
	})
}

// TestRealHandlerProcess is the whole life of a real child process: this test
// binary, started again as a handler.
func TestRealHandlerProcess(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprintf(`{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":%q,
		"arguments":["-test.run=^TestMain$","%%GREETING%%","%%NOT_SET%%"]},"enableProxyingHttpRequest":true}}`, self)
	j := &journal{}
	lines := make(chan functionshost.Line, 100)
	l := listenTCP(t)
	h, err := functionshost.New(functionshost.Config{
		AppDir: app{"host.json": host, "A/function.json": openHTTP(`,"route":"{what}"`)}.write(t),
		Settings: map[string]string{
			"FUNCTIONS_WORKER_RUNTIME": "custom", "AzureWebJobsStorage": "UseDevelopmentStorage=true",
			"GREETING": "good morning", "PATROL_TEST_HANDLER": "1",
		},
		Launcher: functionshost.Exec{},
		Listener: l,
		Log:      slog.New(slog.NewTextHandler(j, nil)),
		OnLine:   func(l functionshost.Line) { lines <- l },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	base := "http://" + l.Addr().String() + "/api/"
	get := func(what string) (int, string) {
		t.Helper()
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr}).Get(base + what)
		if err != nil {
			t.Fatalf("GET %s: %v", what, err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}

	// Arguments: joined by spaces, so one with a space arrives as two; what is
	// not set is deleted.
	status, args := get("args")
	check(t, "args: status", status, 200)
	check(t, "args", args, `["-test.run=^TestMain$" "good" "morning"]`)
	// The environment is what the host gives, nothing of its own.
	_, env := get("env")
	check(t, "env", strings.Fields(env), []string{
		"AzureWebJobsScriptRoot", "AzureWebJobsStorage", "FUNCTIONS_APP_ROOT_PATH",
		"FUNCTIONS_CUSTOMHANDLER_PORT", "FUNCTIONS_CUSTOMHANDLER_WORKER_ID",
		"FUNCTIONS_HTTPWORKER_ID", "FUNCTIONS_HTTPWORKER_PORT", "FUNCTIONS_WORKER_RUNTIME",
		"GREETING", "PATROL_TEST_HANDLER",
	})

	// stdout is information, stderr is error, or a warning.
	get("talk")
	want := map[string]functionshost.Line{
		"to stdout, an error": {Stream: "stdout", Level: slog.LevelInfo, Category: "user"},
		"to stderr":           {Stream: "stderr", Level: slog.LevelError, Category: "user"},
		"to stderr, Warned":   {Stream: "stderr", Level: slog.LevelWarn, Category: "user"},
		" of the system":      {Stream: "stdout", Level: slog.LevelInfo, Category: "system"},
		"{}":                  {Stream: "stdout", Level: slog.LevelInfo, Category: "tooling"},
		"no newline":          {Stream: "stdout", Level: slog.LevelInfo, Category: "user"},
	}
	_, first := get("pid")
	// It kills itself as a kill from outside would. By POST: a GET whose pooled
	// connection breaks before an answer is sent again by HTTP clients, .NET's
	// too, and would kill the next process.
	if resp, err := http.Post(base+"die", "text/plain", nil); err == nil {
		_ = resp.Body.Close()
	}
	for len(want) > 0 {
		line := <-lines
		w, known := want[line.Text]
		if !known {
			t.Errorf("a line that was not asked for: %+v", line)
		}
		w.Text = line.Text
		check(t, "line", line, w)
		delete(want, line.Text)
	}

	// Killed, it is back at once; SIGTERM to the host (Close) reaches it as a
	// kill that it cannot catch.
	status, second := get("pid")
	check(t, "status after the kill", status, 200)
	if second == first {
		t.Errorf("after the kill: process %s again", second)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("kill", "-0", second).Run(); err == nil {
		t.Errorf("the handler %s outlived the host", second)
	}
	for len(lines) > 0 {
		if line := <-lines; strings.Contains(line.Text, "caught") {
			t.Error("the handler caught a signal")
		}
	}
}

// handlerMain is the handler of TestRealHandlerProcess.
func handlerMain() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /api/args", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "%q", os.Args[1:]) })
	mux.HandleFunc("GET /api/env", func(w http.ResponseWriter, _ *http.Request) {
		var names []string
		for _, e := range os.Environ() {
			name, _, _ := strings.Cut(e, "=")
			names = append(names, name)
		}
		slices.Sort(names)
		_, _ = io.WriteString(w, strings.Join(names, " "))
	})
	mux.HandleFunc("GET /api/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("GET /api/talk", func(http.ResponseWriter, *http.Request) {
		fmt.Println("to stdout, an error")
		fmt.Fprintln(os.Stderr, "to stderr")
		fmt.Fprintln(os.Stderr, "to stderr, Warned")
		fmt.Println("languageworkerconsolelog of the system")
		fmt.Println("azfuncjsonlog:{}")
		fmt.Print("no newline")
	})
	mux.HandleFunc("POST /api/die", func(http.ResponseWriter, *http.Request) {
		p, _ := os.FindProcess(os.Getpid())
		_ = p.Kill()
		select {}
	})
	mux.HandleFunc("POST /Bus", func(w http.ResponseWriter, r *http.Request) {
		_, body, m := envelopeOf(r)
		fmt.Println("message", body, m["SessionId"])
		succeed(w, r)
	})
	catchTerm(func() { fmt.Println("caught a signal") })
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), mux))
	os.Exit(1)
}
