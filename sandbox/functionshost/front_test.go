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

func TestProxiedRequestArrivesAsItWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"A/function.json": httpTrigger(`,"route":"{place}/{name}"`)}, h, withFront(h))
		header := http.Header{
			"User-Agent": {"curl/7.88.1"}, "X-Test": {"v1", "v2"}, "Content-Encoding": {"gzip"}, "Content-Type": {"text/plain"},
			"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"203.0.113.7"}, "X-Functions-Key": {"HOSTKEY"},
			"X-Azure-Functions-Invocationid": {"mine"}, "X-Ms-Invocation-Id": {"mine"},
		}
		if r := call(t, h.net, "PUT", "/api/x%2Fy/a%20b?x=1&x=2;3&%zz", strings.NewReader("hello"), header); r.status != 200 {
			t.Fatalf("status %d", r.status)
		}
		got, inv := h.requestsSeen()[0], w.journal.seen()[0]
		if got.URI != "/api/x%2Fy/a%20b?x=1&x=2;3&%zz" || got.Method != "PUT" || got.Host != frontAddr || got.Body != "hello" || got.ContentLength != 5 {
			t.Errorf("got %+v", got)
		}
		want := header.Clone()
		want.Set("Content-Length", "5")
		want.Set("X-Azure-Functions-Hostversion", "1.0.0.0")
		want.Set("X-Azure-Functions-Invocationid", inv.ID)
		want.Set("X-Ms-Invocation-Id", inv.ID)
		if a, b := fmt.Sprint(got.Headers), fmt.Sprint(want); a != b {
			t.Errorf("headers\n got %s\nwant %s", a, b)
		}
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
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != fmt.Sprintf("part %d\n", i) {
				t.Fatalf("%q, %v", buf, err)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
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
		if took := time.Since(before); r.status != 500 || took < time.Second || took > 3*time.Second {
			t.Errorf("%d after %v; want 500 after some ten attempts", r.status, took)
		}
	})
}

func TestIdleProxiedCallIsCutAfterFourMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		host := strings.Replace(standardHost, "00:00:05", "00:10:00", 1)
		w := launch(t, app{"host.json": host, "A/function.json": openHTTP("")}, h, withFront(h))
		before := time.Now()
		r := call(t, h.net, "GET", "/api/A", nil, nil)
		if took := time.Since(before); r.status != 500 || took.Round(time.Second) != 240*time.Second {
			t.Errorf("%d after %v", r.status, took)
		}
		synctest.Wait()
		if n := len(h.startsSeen()); n != 1 || w.journal.seen()[0].Err == nil {
			t.Errorf("%d processes, %+v; want one, and a failure", n, w.journal.seen())
		}
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
				if !errors.Is(err, c.want) {
					t.Errorf("got error %v, want %v", err, c.want)
				}
				if strings.Contains(f.journal.text(), "private words") {
					t.Error("the log repeats what the handler said")
				}
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

func TestBodyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		listen := withFront(h)
		launch(t, app{"A/function.json": openHTTP("")}, h, func(c *functionshost.Config) {
			listen(c)
			c.Settings["FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"] = "10"
		})
		for body, want := range map[string]int{"0123456789": 200, "0123456789a": 413} {
			if r := call(t, h.net, "POST", "/api/A", strings.NewReader(body), nil); r.status != want {
				t.Errorf("%d bytes: %d, want %d", len(body), r.status, want)
			}
		}
		if r, err := tryCall(h.net, "POST", "/api/A", unknownLength{strings.NewReader("0123456789a")}, nil); err == nil && r.status != 413 {
			t.Errorf("11 bytes in chunks: %d", r.status)
		}
	})
}

func TestRoutePrefix(t *testing.T) {
	for prefix, path := range map[string]string{`""`: "/A", `"v1/x"`: "/v1/x/A", `"/api/"`: "/api/A"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(nil)
			host := strings.Replace(standardHost, `"extensions":{`, `"extensions":{"http":{"routePrefix":`+prefix+`},`, 1)
			launch(t, app{"host.json": host, "A/function.json": openHTTP("")}, h, withFront(h))
			if r := call(t, h.net, "GET", path, nil, nil); r.status != 200 {
				t.Errorf("prefix %s: %s is %d", prefix, path, r.status)
			}
			if r := call(t, h.net, "GET", "/nothing", nil, nil); r.status != 404 {
				t.Errorf("prefix %s: /nothing is %d", prefix, r.status)
			}
			if r := call(t, h.net, "GET", "/", nil, nil); r.status != 200 {
				t.Errorf("the host's own page is %d", r.status)
			}
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
			{"Tick", "", j, `{}`, 401}, {"Tick", "HOSTKEY", j, `{}`, 401}, {"None", "MASTER", j, `{}`, 404}, {"Off", "MASTER", j, `{}`, 404},
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
		if len(seen) != 2 || seen[0].URI != "/Tick" || seen[1].URI != "/Bus" {
			t.Fatalf("requests %+v", seen)
		}
		body := seen[1].Body.(map[string]any)
		delete(body["Metadata"].(map[string]any), "sys")
		diff(t, "", mustJSON(t, `{"Data":{"message":"\"{\\\"a\\\":\\\"b\\\"}\""},"Metadata":{"a":"\"b\"","ApplicationProperties":{},"UserProperties":{},
			"DeliveryCount":"0","SequenceNumber":"-1","LockToken":"\"00000000-0000-0000-0000-000000000000\"",
			"EnqueuedTime":"0001-01-01T00:00:00+00:00","EnqueuedTimeUtc":"0001-01-01T00:00:00","ExpiresAt":"0001-01-01T00:00:00+00:00","ExpiresAtUtc":"0001-01-01T00:00:00"}}`), body)

		if r := call(t, h.net, "GET", "/admin/host/status", nil, keyHeader("MASTER")); r.status != 200 || !strings.Contains(r.body, `"state":"Running"`) {
			t.Errorf("status: %d %s", r.status, r.body)
		}
		if r := call(t, h.net, "GET", "/admin/vfs/", nil, keyHeader("MASTER")); r.status != 404 {
			t.Errorf("another admin route: %d", r.status)
		}
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
			if strings.Contains(text, key) {
				t.Errorf("%s is in\n%s", key, text)
			}
		}
	})
}
