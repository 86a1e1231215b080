package functionshost_test

import (
	"context"
	"errors"
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
	if got := w.Functions(); !slices.Equal(got, []string{"A"}) || len(w.Problems()) != 0 {
		t.Errorf("functions %v, problems %v; want A alone, silently", got, w.Problems())
	}
}

func TestHandlerIsNotStartedWithoutAnyFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"functions/Nested/function.json": httpTrigger("")}, h, withFront(h))
		time.Sleep(time.Minute)
		if n := len(h.startsSeen()); n != 0 {
			t.Errorf("the handler was started %d times", n)
		}
		if r := call(t, h.net, "GET", "/api/Nested", nil, nil); r.status != 404 {
			t.Errorf("status %d, want 404", r.status)
		}
		if p := w.Problems(); len(p) != 1 || p[0].Function != "" {
			t.Errorf("problems %v, want one about the app", p)
		}
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
		for _, name := range []string{"A", "B", "AdminPage"} {
			i := slices.IndexFunc(w.Problems(), func(p functionshost.Problem) bool { return p.Function == name })
			if i < 0 || !w.Problems()[i].InError || !strings.Contains(w.Problems()[i].Message, "conflicts with one or more built in routes") {
				t.Errorf("%s: problems %v", name, w.Problems())
			}
		}
		for target, want := range map[string]int{"/api/administration/x": 404, "/api/Runtime-x": 404, "/api/AdminPage": 404, "/api/C": 200} {
			if r := call(t, h.net, "GET", target, nil, nil); r.status != want {
				t.Errorf("GET %s: %d, want %d", target, r.status, want)
			}
		}
	})
}

func TestFirstFunctionByNameTakesWhatTwoTemplatesMatch(t *testing.T) {
	for _, c := range []struct {
		name        string
		a, b        string
		want        string // the function that gets GET /api/x/special
		problemWith string
	}{
		{"parameter before literal", `,"route":"x/{id}"`, `,"route":"x/special"`, "A", "B"},
		{"literal before parameter", `,"route":"x/special"`, `,"route":"x/{id}"`, "A", "B"},
		{"different methods", `,"route":"x/{id}","methods":["post"]`, `,"route":"x/special","methods":["get"]`, "B", ""},
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
			if r.status != c.want || r.status == 401 && r.body != "" {
				t.Errorf("%s: %d %q, want %d", c.name, r.status, r.body, c.want)
			}
		}
		if last := h.requestsSeen(); last[len(last)-1].URI != "/api/C?code=0.AXoA" {
			t.Errorf("the code did not reach the handler: %s", last[len(last)-1].URI)
		}
	})
}

func TestUnknownRouteAndWrongMethodAreNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"A/function.json": openHTTP(`,"methods":["get"],"route":"a/{n}"`)},
			h, withFront(h))
		for target, want := range map[string]int{
			"GET /api/a/1": 200, "GET /API/A/1": 200, "GET /api/a/1/": 200, "GET /api/a": 404, "GET /api/a/1/2": 404,
			"POST /api/a/1": 404, "HEAD /api/a/1": 404, "GET /a/1": 404, "GET /api": 404, "GET /runtime/webhooks/x": 404,
		} {
			method, path, _ := strings.Cut(target, " ")
			if r := call(t, h.net, method, path, nil, nil); r.status != want {
				t.Errorf("%s: %d, want %d", target, r.status, want)
			}
		}
	})
}

func TestResponsesPassThroughUnchanged(t *testing.T) {
	for _, mode := range []string{standardHost, standardHost} {
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
			w := launch(t, app{"host.json": mode, "A/function.json": openHTTP(""), "B/function.json": openHTTP("")},
				h, withFront(h))
			r := call(t, h.net, "GET", "/api/A", nil, nil)
			if r.status != 302 || r.header.Get("Location") != "/elsewhere" || !slices.Equal(r.header["Set-Cookie"], []string{"a=1", "b=2"}) {
				t.Errorf("302: got %d %v", r.status, r.header)
			}
			r = call(t, h.net, "GET", "/api/B", nil, nil)
			if r.status != 418 || r.header.Get("Content-Type") != "application/problem+json" || r.body != `{"title":"teapot"}` {
				t.Errorf("418: got %d %v %s", r.status, r.header, r.body)
			}
			for _, i := range w.journal.seen() {
				if i.Err != nil {
					t.Errorf("invocation of %s failed: %v", i.Function, i.Err)
				}
			}
		})
	}
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
	for _, mode := range []string{standardHost, standardHost} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(func(w http.ResponseWriter, r *http.Request) {
				n, _ := io.Copy(io.Discard, r.Body)
				w.Header().Set("X-Got", fmt.Sprint(r.Method, n))
			})
			launch(t, app{"host.json": mode, "A/function.json": openHTTP("")}, h, withFront(h))
			const size = 6 << 20
			for method, body := range map[string]io.Reader{"POST": strings.NewReader(strings.Repeat("x", size)), "HEAD": nil, "OPTIONS": nil} {
				n := 0
				if body != nil {
					n = size
				}
				if r := call(t, h.net, method, "/api/A", body, nil); r.status != 200 || r.header.Get("X-Got") != fmt.Sprint(method, n) {
					t.Errorf("%s: %d, the handler got %q", method, r.status, r.header.Get("X-Got"))
				}
			}
		})
	}
}

func TestAnswer500FailsAServiceBusInvocationByItsStatusOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			answer(w, `{"Logs":["secret words"]}`)
		})
		w := launch(t, app{"A/function.json": queueTrigger("q", `,"dataType":"binary"`)}, h, noBroker)
		err := w.InvokeMessages(context.Background(), "A", plainMessage("x"))
		if !errors.Is(err, functionshost.ErrResponse) || !strings.Contains(err.Error(), "status code does not indicate success: 500") {
			t.Errorf("error %v", err)
		}
		if strings.Contains(w.journal.text(), "secret words") {
			t.Error("the handler's Logs were kept")
		}
	})
}

func TestEmptyAnswerHangsUntilFunctionTimeoutAndTheHandlerIsRestarted(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"no body":    func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/json") },
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
					if took := time.Since(before); !errors.Is(err, functionshost.ErrFunctionTimeout) || took != 5*time.Second {
						t.Fatalf("%v after %v, want a time-out after 5 s", err, took)
					}
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
				if first.Getenv("FUNCTIONS_HTTPWORKER_PORT") != second.Getenv("FUNCTIONS_HTTPWORKER_PORT") {
					t.Error("the port changed")
				}
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
		w := launch(t, app{"Hang/function.json": queueTrigger("q", ``), "Slow/function.json": queueTrigger("q", ``)}, h, noBroker)
		w.ready()
		go func() { _ = w.InvokeMessages(context.Background(), "Hang", plainMessage("x")) }()
		time.Sleep(4 * time.Second)
		// Begun 1 s before the time-out, it would end 3 s after; the kill
		// comes 2 s after.
		if err := w.InvokeMessages(context.Background(), "Slow", plainMessage("x")); !errors.Is(err, functionshost.ErrUnreachable) {
			t.Errorf("error %v, want a broken call", err)
		}
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
			if !errors.Is(err, functionshost.ErrUnreachable) {
				t.Errorf("got error %v, want %v", err, functionshost.ErrUnreachable)
			}
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
			if r := call(t, h.net, "GET", "/api/A", nil, nil); r.status != 200 {
				t.Errorf("status %d after crash %d, want 200", r.status, i+1)
			}
		}
		time.Sleep(29 * time.Minute)
		h.exit <- 2
		if err := w.Wait(); !errors.Is(err, functionshost.ErrRestartBudget) {
			t.Errorf("Wait: %v, want ErrRestartBudget", err)
		}
		if n := len(h.startsSeen()); n != 3 {
			t.Errorf("%d processes, want 3", n)
		}
		if !strings.Contains(w.journal.text(), "Exceeded http worker restart retry count. Shutting down Functions Host") {
			t.Error("the log does not say so")
		}
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
		Settings: map[string]string{"FUNCTIONS_WORKER_RUNTIME": "custom", "GREETING": "good morning", "PATROL_TEST_HANDLER": "1",
			"AzureWebJobsStorage": "UseDevelopmentStorage=true"},
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
	if status, body := get("args"); status != 200 || body != `["-test.run=^TestMain$" "good" "morning"]` {
		t.Errorf("args: %d %s", status, body)
	}
	// The environment is what the host gives, nothing of its own.
	if _, body := get("env"); body != "AzureWebJobsScriptRoot AzureWebJobsStorage FUNCTIONS_APP_ROOT_PATH FUNCTIONS_CUSTOMHANDLER_PORT FUNCTIONS_CUSTOMHANDLER_WORKER_ID FUNCTIONS_HTTPWORKER_ID FUNCTIONS_HTTPWORKER_PORT FUNCTIONS_WORKER_RUNTIME GREETING PATROL_TEST_HANDLER" {
		t.Errorf("env: %s", body)
	}

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
		w, ok := want[line.Text]
		w.Text = line.Text
		if !ok || line != w {
			t.Errorf("line %+v, want %+v", line, w)
		}
		delete(want, line.Text)
	}

	// Killed, it is back at once; SIGTERM to the host (Close) reaches it as a
	// kill that it cannot catch.
	status, second := get("pid")
	if status != 200 || second == first {
		t.Errorf("after the kill: %d, process %s again", status, second)
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
