package functionshost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

func TestProxiedRequestArrivesAsItWasSentButForTheHostsOwnHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": httpTrigger(`,"route":"{place}/{name}"`)}, h, withFront(h))
		header := http.Header{
			"User-Agent": {"curl/7.88.1"}, "X-Test": {"v1", "v2"},
			"Content-Encoding": {"gzip"}, "Content-Type": {"text/plain"}, "X-Functions-Key": {"HOSTKEY"},
			"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.7"}, "X-Forwarded-Prefix": {"/x"},
			"X-Forwarded-Host": {"evil.example"}, "Forwarded": {"host=evil.example"},
			"X-Azure-Functions-Invocationid": {"mine"}, "X-Ms-Invocation-Id": {"mine"},
		}
		const target = "/api/x%2Fy/a%20b%41(1)?x=1&x=2;3&%zz"
		check(t, "status", call(t, h.net, "PUT", target, strings.NewReader("hello"), header).status, 200)
		got, inv := h.requestsSeen()[0], w.journal.seen()[0]
		check(t, "target", got.URI, "/api/x%252Fy/a%20bA(1)?x=1&x=2;3&%zz")
		check(t, "method", got.Method, "PUT")
		check(t, "host", got.Host, fmt.Sprintf("127.0.0.1:%d", handlerPort))
		check(t, "body", got.Body, any("hello"))
		check(t, "length", got.ContentLength, 5)
		want := header.Clone()
		want.Set("Content-Length", "5")
		want.Set("X-Azure-Functions-Hostversion", "1.0.0.0")
		want.Set("X-Azure-Functions-Invocationid", inv.ID)
		want.Set("X-Ms-Invocation-Id", inv.ID)
		want.Set("X-Forwarded-For", "127.0.0.1")
		want.Set("X-Forwarded-Host", frontAddr)
		want.Set("X-Forwarded-Proto", "http")
		want.Del("X-Forwarded-Prefix")
		want.Del("Forwarded")
		check(t, "headers", got.Headers, want)
	})
}

func TestSchemeIsTheFrontEndsOnAppServiceOnly(t *testing.T) {
	for behind, want := range map[bool]string{true: "https", false: "http"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(nil)
			launch(t, app{"A/function.json": openHTTP("")}, h, func(c *functionshost.Config) {
				withFront(h)(c)
				c.BehindFrontEnd = behind
			})
			call(t, h.net, "GET", "/api/A", nil, http.Header{"X-Forwarded-Proto": {"https"}})
			got := h.requestsSeen()[0].Headers.Get("X-Forwarded-Proto")
			check(t, fmt.Sprintf("behind a front end %t: scheme", behind), got, want)
		})
	}
}

func TestProxiedCallWaitsWhileAKilledHandlerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		w.ready()
		h.delay = 500 * time.Millisecond
		h.exit <- 137
		before := time.Now()
		check(t, "status", call(t, h.net, "GET", "/api/A", nil, nil).status, 200)
		took := time.Since(before)
		check(t, fmt.Sprintf("waited for the new process (%v)", took), took >= h.delay && took < time.Second, true)
		check(t, "processes", len(h.startsSeen()), 2)
	})
}

func TestProxiedResponseStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan struct{})
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			for i := range 3 {
				fmt.Fprintf(w, "part %d\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
		})
		launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		tr := h.net.Transport()
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("http://" + frontAddr + "/api/A")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, len("part 0\n"))
		for i := range 3 {
			if _, err := io.ReadFull(resp.Body, buf); err != nil {
				t.Fatal(err)
			}
			check(t, "part", string(buf), fmt.Sprintf("part %d\n", i))
			next <- struct{}{}
		}
		rest, err := io.ReadAll(resp.Body)
		check(t, "error at the end", err, nil)
		check(t, "rest", string(rest), "")
	})
}

func TestCallerThatHangsUpCancelsTheHandlersCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled bool
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				cancelled = true
			case <-time.After(3 * time.Second):
				succeed(w, r)
			}
		})
		launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		tr := h.net.Transport()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+frontAddr+"/api/A", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&http.Client{Transport: tr}).Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got error %v, want a time-out", err)
		}
		tr.CloseIdleConnections()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		check(t, "the handler's call was cancelled", cancelled, true)
	})
}

func TestProxyIsPatientWithAHandlerThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": openHTTP("")}, h, withFront(h))
		w.ready()
		h.exit <- 0
		synctest.Wait()
		before := time.Now()
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		check(t, "status", r.status, 500)
		// Ten attempts: pauses of 50, 100, 150, 200 and then 250 ms.
		check(t, "time taken", time.Since(before), 1750*time.Millisecond)
	})
}

func TestIdleProxiedCallIsCutAfterFourMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		w := launch(t, app{"host.json": hostWithTimeout("00:10:00"), "A/function.json": openHTTP("")}, h, withFront(h))
		before := time.Now()
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		check(t, "status", r.status, 500)
		check(t, "time taken", time.Since(before).Round(time.Second), 240*time.Second)
		synctest.Wait()
		check(t, "processes", len(h.startsSeen()), 1)
		check(t, "the invocation failed", w.journal.seen()[0].Err != nil, true)
	})
}

func TestFunctionThatWouldGetTheEnvelopeIsInError(t *testing.T) {
	const (
		open = `{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous"}`
		out  = `{"type":"http","direction":"out","name":"$return"}`
	)
	f := build(t, app{"A/function.json": function(open), "B/function.json": function(open, out)}, newHandler(nil), nil)
	check(t, "functions", f.Functions(), []string{"B"})
	check(t, "problems", f.Problems(), []functionshost.Problem{{Function: "A", InError: true,
		Message: "an httpTrigger with 0 http outputs, not one, comes in an envelope, which this host does not offer"}})
}

func TestAnswersToAnEnvelopeThatFailTheInvocation(t *testing.T) {
	for name, c := range map[string]struct {
		respond http.HandlerFunc
		want    error
	}{
		"404 of the handler": {
			func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "private words", 404) },
			functionshost.ErrResponse,
		},
		"sniffed text/plain": {
			func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"x":"private words"}`) },
			functionshost.ErrResponse,
		},
		"no JSON": {
			func(w http.ResponseWriter, _ *http.Request) { answer(w, `private words`) },
			functionshost.ErrResponse,
		},
		"a broken connection": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			functionshost.ErrUnreachable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(c.respond)
				f := launch(t, app{"A/function.json": queueTrigger("q", "")}, h, noBroker)
				err := f.InvokeMessages(context.Background(), "A", plainMessage("x"))
				checkError(t, "InvokeMessages", err, c.want)
				checkLacks(t, "log", f.journal.text(), "private words")
			})
		})
	}
}

func TestRedirectsOfAnEnvelopeAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/A" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			succeed(w, r)
		})
		f := launch(t, app{"A/function.json": queueTrigger("q", "")}, h, noBroker)
		if err := f.InvokeMessages(context.Background(), "A", plainMessage("x")); err != nil {
			t.Error(err)
		}
		seen := h.requestsSeen()
		if len(seen) != 2 {
			t.Fatalf("%d requests, want 2", len(seen))
		}
		check(t, "second request", seen[1].URI, "/elsewhere")
		check(t, "its body", seen[1].Body, seen[0].Body)
	})
}

func TestBodyAboveTheLimitIsA500OfTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"A/function.json": openHTTP("")}, h, func(c *functionshost.Config) {
			withFront(h)(c)
			c.Settings["FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"] = "10"
		})
		for body, want := range map[string]int{"0123456789": 200, "0123456789a": 500} {
			check(t, body, call(t, h.net, "POST", "/api/A", strings.NewReader(body), nil).status, want)
		}
		chunks := unknownLength{strings.NewReader("0123456789a")}
		if r, err := tryCall(h.net, "POST", "/api/A", chunks, nil); err == nil {
			check(t, "11 bytes in chunks", r.status, 500)
		}
	})
}

func TestRoutePrefix(t *testing.T) {
	for prefix, path := range map[string]string{`""`: "/A", `"v1/x"`: "/v1/x/A", `"/api/"`: "/api/A"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(nil)
			const extensions = `"extensions":{`
			host := strings.Replace(standardHost, extensions, extensions+`"http":{"routePrefix":`+prefix+`},`, 1)
			launch(t, app{"host.json": host, "A/function.json": openHTTP("")}, h, withFront(h))
			check(t, path, call(t, h.net, "GET", path, nil, nil).status, 200)
			check(t, "an unknown path", call(t, h.net, "GET", "/nothing", nil, nil).status, 404)
			check(t, "the host's own page", call(t, h.net, "GET", "/", nil, nil).status, 200)
		})
	}
}

func TestAdminInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{
			"A/function.json":    httpTrigger(``),
			"Tick/function.json": timer("0 0 0 1 1 *", ""),
			"Bus/function.json":  queueTrigger("q", ""),
			"Off/function.json":  timer("0 0 0 1 1 *", ""),
		}, h, func(c *functionshost.Config) {
			withFront(h)(c)
			noBroker(c)
			c.Settings["AzureWebJobs.Off.Disabled"] = "true"
		})
		w.ready()
		if r := call(t, h.net, "GET", "/admin/host/ping", nil, nil); r.status != 200 {
			t.Errorf("ping: %d", r.status)
		}
		if n := len(h.pings); n != 2 {
			t.Errorf("the handler was pinged %d times, want 2: at start and by the health monitor", n)
		}
		run := func(name, key, contentType, body string) int {
			header := keyHeader(key)
			header.Set("Content-Type", contentType)
			return call(t, h.net, "POST", "/admin/functions/"+name, strings.NewReader(body), header).status
		}
		const j = "application/json"
		cases := []struct {
			name, key, contentType, body string
			want                         int
		}{
			{"Tick", "", j, `{}`, 401}, {"Tick", "HOSTKEY", j, `{}`, 401},
			{"None", "MASTER", j, `{}`, 404}, {"Off", "MASTER", j, `{}`, 404},
			{"Tick", "MASTER", "text/plain", `{}`, 415}, {"Tick", "MASTER", j, `{`, 400}, {"A", "MASTER", j, `{}`, 400},
			{"Tick", "MASTER", j, `{}`, 202}, {"bus", "MASTER", j, `{"input":"{\"a\":\"b\"}"}`, 202},
		}
		for _, c := range cases {
			if got := run(c.name, c.key, c.contentType, c.body); got != c.want {
				t.Errorf("POST %s with key %q, %s %s: %d, want %d", c.name, c.key, c.contentType, c.body, got, c.want)
			}
			synctest.Wait()
		}
		seen := h.requestsSeen()
		if len(seen) != 2 {
			t.Fatalf("%d requests, want 2", len(seen))
		}
		check(t, "first request", seen[0].URI, "/Tick")
		check(t, "second request", seen[1].URI, "/Bus")
		body := seen[1].Body.(map[string]any)
		delete(body["Metadata"].(map[string]any), "sys")
		diff(t, "", mustJSON(t, `{"Data":{"message":"\"{\\\"a\\\":\\\"b\\\"}\""},
			"Metadata":{"a":"\"b\"","ApplicationProperties":{},"UserProperties":{},
			"DeliveryCount":"0","SequenceNumber":"-1","LockToken":"\"00000000-0000-0000-0000-000000000000\"",
			"EnqueuedTime":"0001-01-01T00:00:00+00:00","EnqueuedTimeUtc":"0001-01-01T00:00:00",
			"ExpiresAt":"0001-01-01T00:00:00+00:00","ExpiresAtUtc":"0001-01-01T00:00:00"}}`), body)

		r := call(t, h.net, "GET", "/admin/host/status", nil, keyHeader("MASTER"))
		check(t, "status page", r.status, 200)
		checkHas(t, "status page", r.body, `"state":"Running"`)
		other := call(t, h.net, "GET", "/admin/vfs/", nil, keyHeader("MASTER"))
		check(t, "another admin route", other.status, 404)
	})
}

func TestKeysStayOutOfTheLogWhateverHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		f := launch(t, app{"A/function.json": httpTrigger(`,"methods":["post"]`)}, h, withFront(h))
		call(t, h.net, "POST", "/api/A?code=HOSTKEY", strings.NewReader("x"), nil)
		call(t, h.net, "POST", "/api/A", strings.NewReader("x"), keyHeader("AKEY"))
		h.exit <- 0
		synctest.Wait()
		call(t, h.net, "POST", "/api/A?code=HOSTKEY", strings.NewReader("x"), nil)
		text := f.journal.text()
		check(t, "invocations", len(f.journal.seen()), 3)
		for _, i := range f.journal.seen() {
			if i.Err == nil {
				t.Errorf("%+v succeeded", i)
			}
			text += fmt.Sprint(i.Err)
		}
		for _, key := range []string{"HOSTKEY", "AKEY"} {
			checkLacks(t, "log and errors", text, key)
		}
	})
}
