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
		w := launch(t, app{"host.json": proxyingMode, "A/function.json": httpTrigger(`,"route":"{*rest}"`)}, h, listenOn(h.net, frontAddr))
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
		launch(t, app{"host.json": proxyingMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
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

func TestCallerThatGoesAwayCancelsAProxiedCallOnly(t *testing.T) {
	for mode, cancelled := range map[string]bool{proxyingMode: true, forwardingMode: false, envelopeMode: false} {
		synctest.Test(t, func(t *testing.T) {
			var gone bool
			h := newHandler(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
					gone = true
				case <-time.After(3 * time.Second):
					succeed(w, r)
				}
			})
			launch(t, app{"host.json": mode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
			tr := h.net.Transport()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+frontAddr+"/api/A", nil)
			if _, err := (&http.Client{Transport: tr}).Do(req); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %v", err)
			}
			tr.CloseIdleConnections()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if gone != cancelled {
				t.Errorf("the handler's call was cancelled: %t, want %t", gone, cancelled)
			}
		})
	}
}

func TestProxyIsPatientWithAHandlerThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"host.json": proxyingMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
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
		host := strings.Replace(proxyingMode, "00:00:05", "00:10:00", 1)
		w := launch(t, app{"host.json": host, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
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

func TestOldHostForwardsWhereANewOneProxies(t *testing.T) {
	for mode, marked := range map[functionshost.Mode]bool{functionshost.ModeAuto: true, functionshost.ModeForwarding: false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(nil)
			listen := listenOn(h.net, frontAddr)
			launch(t, app{"host.json": proxyingMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, func(c *functionshost.Config) {
				listen(c)
				c.Mode = mode
			})
			call(t, h.net, "GET", "/api/A", nil, nil)
			if got := h.requestsSeen()[0].Headers.Get("X-Ms-Invocation-Id") != ""; got != marked {
				t.Errorf("mode %s: proxied %t, want %t", mode, got, marked)
			}
		})
	}
}

func TestForwardedRequestLosesContentHeadersAndJoinsIds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"host.json": forwardingMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
		call(t, h.net, "POST", "/api/A", strings.NewReader("x"), http.Header{"Content-Encoding": {"gzip"}, "Content-Language": {"de"},
			"Content-Type": {"text/x"}, "X-Azure-Functions-InvocationId": {"mine"}})
		got := h.requestsSeen()[0].Headers
		if got.Get("Content-Encoding") != "" || got.Get("Content-Language") != "" || got.Get("Content-Type") != "text/x" {
			t.Errorf("content headers %v", got)
		}
		if want := "mine, " + w.journal.seen()[0].ID; got.Get("X-Azure-Functions-Invocationid") != want {
			t.Errorf("invocation id %q, want %q", got.Get("X-Azure-Functions-Invocationid"), want)
		}
	})
}

func TestOnlyFunctionsWithOneHTTPInputAndOutputLeaveTheEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{
			"host.json":       proxyingMode,
			"A/function.json": httpTrigger(`,"authLevel":"anonymous"`),
			"B/function.json": function(`{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous"}`),
			"C/function.json": function(`{"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous"}`, `{"type":"http","direction":"out","name":"$return"}`),
		}, h, listenOn(h.net, frontAddr))
		for path, want := range map[string]string{"/api/A": "/api/A", "/api/B": "/B", "/api/C": "/api/C"} {
			call(t, h.net, "GET", path, nil, nil)
			seen := h.requestsSeen()
			if got := seen[len(seen)-1].URI; got != want {
				t.Errorf("%s reached the handler as %s, want %s", path, got, want)
			}
		}
	})
}

func TestHTTPEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"host.json": envelopeMode, "A/function.json": httpTrigger(`,"route":"devices/{id}/{part?}"`)}, h, listenOn(h.net, frontAddr))
		header := keyHeader("MASTER")
		header.Set("Content-Type", "application/json")
		header.Set("User-Agent", "")
		header.Set("Accept-Encoding", "identity")
		call(t, h.net, "POST", "/api/devices/d-17?dry=yes&x=1&x=2&code=abc", strings.NewReader(`{"firmware":9.2,"id":"body","dry":"body","l":[1],"o":{"a":1},"myTrigger":1}`), header)
		got := h.requestsSeen()[0]
		body := got.Body.(map[string]any)
		delete(body["Metadata"].(map[string]any), "sys")
		want := mustJSON(t, `{
			"Data": {"req": {
				"Url": "http://127.0.0.1:7071/api/devices/d-17?dry=yes&x=1&x=2&code=abc", "Method": "POST",
				"Query": {"dry": "yes", "x": "1,2", "code": "abc"},
				"Headers": {"Host": ["127.0.0.1:7071"], "Content-Type": ["application/json"], "Content-Length": ["75"], "Accept-Encoding": ["identity"], "X-Functions-Key": ["MASTER"]},
				"Params": {"id": "d-17", "part": null},
				"Identities": [{"AuthenticationType": "WebJobsAuthLevel", "IsAuthenticated": true, "Actor": null, "BootstrapContext": null,
					"Claims": [{"Issuer": "LOCAL AUTHORITY", "OriginalIssuer": "LOCAL AUTHORITY", "Properties": {},
						"Type": "http://schemas.microsoft.com/2017/07/functions/claims/authlevel", "Value": "Admin", "ValueType": "http://www.w3.org/2001/XMLSchema#string"}],
					"Label": null, "Name": null, "NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
					"RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"}],
				"Body": "{\"firmware\":9.2,\"id\":\"body\",\"dry\":\"body\",\"l\":[1],\"o\":{\"a\":1},\"myTrigger\":1}"}},
			"Metadata": {
				"firmware": "\"9.2\"", "id": "\"d-17\"", "dry": "\"yes\"", "x": "\"1,2\"", "o": {"a": 1},
				"Query": {"dry": "yes", "x": "1,2", "code": "abc"},
				"Headers": {"Host": "127.0.0.1:7071", "Content-Type": "application/json", "Content-Length": "75", "Accept-Encoding": "identity", "X-Functions-Key": "MASTER"}}}`)
		diff(t, "", want, body)
		if got.URI != "/A" || got.Method != "POST" || got.ContentLength != -1 {
			t.Errorf("%s %s, length %d", got.Method, got.URI, got.ContentLength)
		}

		// A chunked upload has no Body; binary ones are base64.
		req := func(i int) map[string]any {
			return h.requestsSeen()[i].Body.(map[string]any)["Data"].(map[string]any)["req"].(map[string]any)
		}
		call(t, h.net, "POST", "/api/devices/d-17", unknownLength{strings.NewReader("x")}, keyHeader("MASTER"))
		if _, ok := req(1)["Body"]; ok {
			t.Error("a chunked upload has a Body")
		}
		header.Set("Content-Type", "application/octet-stream")
		call(t, h.net, "POST", "/api/devices/d-17", strings.NewReader("\x00\xff"), header)
		if got := req(2)["Body"]; got != "AP8=" {
			t.Errorf("binary body %v", got)
		}
	})
}

func TestHTTPOutputs(t *testing.T) {
	cases := []struct {
		name, output, answer string
		status               int
		contentType, body    string
	}{
		{"status, headers, string body", "res", `{"Outputs":{"res":{"statusCode":"202","headers":{"Content-Type":"text/csv","X-N":3},"body":"a,b"}}}`, 202, "text/csv", "a,b"},
		{"number status, object body", "res", `{"Outputs":{"res":{"statusCode":201,"body":{"a":1}}}}`, 201, "application/json; charset=utf-8", `{"a":1}`},
		{"a string that holds the object", "res", `{"Outputs":{"res":"{\"statusCode\":404,\"body\":\"x\"}"}}`, 404, "text/plain; charset=utf-8", "x"},
		{"status is ignored", "res", `{"Outputs":{"res":{"status":404,"body":"x"}}}`, 200, "text/plain; charset=utf-8", "x"},
		{"status works with $return", "$return", `{"ReturnValue":{"status":404,"body":"x"}}`, 404, "text/plain; charset=utf-8", "x"},
		{"no body", "res", `{"Outputs":{"res":{"statusCode":204}}}`, 204, "", ""},
		{"no res", "res", `{"Outputs":{"other":1}}`, 200, "application/json; charset=utf-8", "{}"},
		{"no outputs", "res", `{}`, 204, "", ""},
		{"no object", "res", `{"Outputs":{"res":"text"}}`, 500, "", ""},
		{"null header", "res", `{"Outputs":{"res":{"headers":{"A":null}}}}`, 500, "", ""},
		{"no status", "res", `{"Outputs":{"res":{"statusCode":"accepted"}}}`, 500, "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(func(w http.ResponseWriter, _ *http.Request) { answer(w, c.answer) })
				launch(t, app{"host.json": envelopeMode, "A/function.json": strings.Replace(httpTrigger(`,"authLevel":"anonymous"`), `"res"`, `"`+c.output+`"`, 1)},
					h, listenOn(h.net, frontAddr))
				r := call(t, h.net, "GET", "/api/A", nil, nil)
				if r.status != c.status || r.body != c.body || r.header.Get("Content-Type") != c.contentType {
					t.Errorf("%d %q %q, want %d %q %q", r.status, r.header.Get("Content-Type"), r.body, c.status, c.contentType, c.body)
				}
			})
		})
	}
}

func TestFailedInvocationsGiveTheCallerABare500(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"404 of the handler":  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "private words", 404) },
		"sniffed text/plain":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"x":"private words"}`) },
		"no JSON":             func(w http.ResponseWriter, _ *http.Request) { answer(w, `private words`) },
		"a broken connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(respond)
				w := launch(t, app{"host.json": envelopeMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
				if r := call(t, h.net, "GET", "/api/A", nil, nil); r.status != 500 || r.body != "" {
					t.Errorf("%d %q", r.status, r.body)
				}
				if i := w.journal.seen()[0]; i.Err == nil || i.Status != 500 {
					t.Errorf("invocation %+v", i)
				}
				if strings.Contains(w.journal.text(), "private words") {
					t.Error("the log repeats what the handler said")
				}
			})
		})
	}
}

func TestRedirectsOfTheHandlerAreFollowedInTheEnvelopeMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/A" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			answer(w, `{"Outputs":{"res":{"body":"from elsewhere"}}}`)
		})
		launch(t, app{"host.json": envelopeMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
		if r := call(t, h.net, "GET", "/api/A", nil, nil); r.body != "from elsewhere" {
			t.Errorf("%d %q", r.status, r.body)
		}
	})
}

func TestBodyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		listen := listenOn(h.net, frontAddr)
		launch(t, app{"host.json": proxyingMode, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, func(c *functionshost.Config) {
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
			host := strings.Replace(proxyingMode, `"extensions":{`, `"extensions":{"http":{"routePrefix":`+prefix+`},`, 1)
			launch(t, app{"host.json": host, "A/function.json": httpTrigger(`,"authLevel":"anonymous"`)}, h, listenOn(h.net, frontAddr))
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
			"host.json":          proxyingMode,
			"A/function.json":    httpTrigger(``),
			"Tick/function.json": timer("0 0 0 1 1 *", ""),
			"Bus/function.json":  queueTrigger("q", ""),
			"Off/function.json":  timer("0 0 0 1 1 *", ""),
		}, h, func(c *functionshost.Config) {
			listenOn(h.net, frontAddr)(c)
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
	for _, mode := range []string{proxyingMode, forwardingMode, envelopeMode} {
		synctest.Test(t, func(t *testing.T) {
			fail := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			h := newHandler(fail)
			w := launch(t, app{"host.json": mode, "A/function.json": httpTrigger(`,"methods":["post"]`)}, h, listenOn(h.net, frontAddr))
			call(t, h.net, "POST", "/api/A?code=HOSTKEY", strings.NewReader("x"), nil)
			call(t, h.net, "POST", "/api/A", strings.NewReader("x"), keyHeader("AKEY"))
			h.exit <- 0
			synctest.Wait()
			call(t, h.net, "POST", "/api/A?code=HOSTKEY", strings.NewReader("x"), nil)
			told := w.journal.text()
			for _, i := range w.journal.seen() {
				if i.Err == nil {
					t.Errorf("%+v succeeded", i)
				}
				told += fmt.Sprint(i.Err)
			}
			if n := len(w.journal.seen()); n != 3 || strings.Contains(told, "HOSTKEY") || strings.Contains(told, "AKEY") {
				t.Errorf("%d invocations; a key is in\n%s", n, told)
			}
		})
	}
}
