package functionshost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const handlerPort = 39685

// app is a folder with host.json and functions.
type app map[string]string // path -> content

// standardHost is the host.json of apps that bring none.
const standardHost = `{"version":"2.0","functionTimeout":"00:00:05",
	"extensionBundle":{"id":"Microsoft.Azure.Functions.ExtensionBundle","version":"[4.*, 5.0.0)"},
	"customHandler":{"description":{"defaultExecutablePath":"handler"},
		"enableProxyingHttpRequest":true,"enableForwardingHttpRequest":true},
	"extensions":{"serviceBus":{"maxConcurrentSessions":4,"sessionIdleTimeout":"00:00:01","maxConcurrentCalls":8}}}`

// hostWithTimeout is standardHost with another functionTimeout.
func hostWithTimeout(timeout string) string {
	return strings.Replace(standardHost, "00:00:05", timeout, 1)
}

func function(bindings ...string) string {
	return `{"bindings":[` + strings.Join(bindings, ",") + `]}`
}

func httpTrigger(rest string) string {
	const output = `{"type":"http","direction":"out","name":"res"}`
	return function(`{"type":"httpTrigger","direction":"in","name":"req"`+rest+`}`, output)
}

// openHTTP is an httpTrigger that wants no key.
func openHTTP(rest string) string { return httpTrigger(`,"authLevel":"anonymous"` + rest) }

func timer(schedule, rest string) string {
	const binding = `{"type":"timerTrigger","direction":"in","name":"timer","schedule":%q%s}`
	return function(fmt.Sprintf(binding, schedule, rest))
}

func queueTrigger(queue, rest string) string {
	const binding = `{"type":"serviceBusTrigger","direction":"in","name":"message",` +
		`"queueName":%q,"connection":"Bus"%s}`
	return function(fmt.Sprintf(binding, queue, rest))
}

func (a app) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if _, ok := a["host.json"]; !ok {
		a = maps.Clone(a)
		a["host.json"] = standardHost
	}
	for path, content := range a {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func baseSettings() map[string]string {
	return map[string]string{
		"FUNCTIONS_WORKER_RUNTIME": "custom",
		"AzureWebJobsStorage":      "UseDevelopmentStorage=true",
		"Bus": "Endpoint=sb://lab.servicebus.windows.net;" +
			"SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0",
	}
}

var keys = functionshost.Keys{
	Master: "MASTER", Host: "HOSTKEY", Function: map[string]string{"A": "AKEY", "B": "BKEY"},
}

// recorded is a request as the recordings have it.
type recorded struct {
	Body             any         `json:"body"`
	ContentLength    int64       `json:"contentLength"`
	Headers          http.Header `json:"headers"`
	Host             string      `json:"host"`
	Method           string      `json:"method"`
	TransferEncoding []string    `json:"transferEncoding"`
	URI              string      `json:"uri"`
}

// handler is a custom handler that runs in process. The zero value answers
// every invocation with an empty success.
type handler struct {
	// serve answers everything but GET /.
	serve http.HandlerFunc
	// serveRoot, if set, answers GET /.
	serveRoot http.HandlerFunc
	// delay passes before it listens.
	delay time.Duration

	net *memnet.Network

	mu       sync.Mutex
	starts   []functionshost.Spec
	pings    []recorded
	requests []recorded
	asked    []string // groups whose process was asked to end
	exit     chan int // a code sent here ends the process
}

func newHandler(serve http.HandlerFunc) *handler {
	return &handler{serve: serve, net: &memnet.Network{}, exit: make(chan int)}
}

func record(r *http.Request) recorded {
	raw, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(raw))
	rec := recorded{ContentLength: r.ContentLength, Headers: r.Header, Host: r.Host, Method: r.Method,
		TransferEncoding: r.TransferEncoding, URI: r.RequestURI, Body: string(raw)}
	var v any
	if json.Unmarshal(raw, &v) == nil {
		rec.Body = v
	}
	return rec
}

// run is the process: a functionshost.Func.
func (h *handler) run(ctx context.Context, spec functionshost.Spec, stdout, stderr io.Writer) int {
	h.mu.Lock()
	h.starts = append(h.starts, spec)
	h.mu.Unlock()
	if h.delay > 0 {
		select {
		case <-time.After(h.delay):
		case <-ctx.Done():
			return 1
		case code := <-h.exit:
			return code
		}
	}
	l, err := h.net.Listen("127.0.0.1:" + spec.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := record(r)
			h.mu.Lock()
			if r.URL.Path == "/" {
				h.pings = append(h.pings, rec)
			} else {
				h.requests = append(h.requests, rec)
			}
			h.mu.Unlock()
			switch {
			case r.URL.Path == "/" && h.serveRoot != nil:
				h.serveRoot(w, r)
			case r.URL.Path == "/":
			case h.serve != nil:
				h.serve(w, r)
			default:
				succeed(w, r)
			}
		})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	code := 0
	select {
	case <-ctx.Done():
	case code = <-h.exit:
	case <-spec.Terminated():
		code = 200
		h.mu.Lock()
		h.asked = append(h.asked, spec.Group)
		h.mu.Unlock()
	}
	_ = srv.Close()
	<-served
	return code
}

func succeed(w http.ResponseWriter, _ *http.Request) { answer(w, `{}`) }

func answer(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body)
}

func (h *handler) requestsSeen() []recorded {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

func (h *handler) startsSeen() []functionshost.Spec {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.starts)
}

// journal keeps what the host logs and reports.
type journal struct {
	mu          sync.Mutex
	invocations []functionshost.Invocation
	log         bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.String()
}

func (j *journal) seen() []functionshost.Invocation {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.invocations)
}

// fixture is a host with an in-process handler.
type fixture struct {
	*functionshost.Host
	t       testing.TB
	handler *handler
	journal *journal
}

// build makes a host over a folder, not started. change may alter its config.
func build(t testing.TB, a app, h *handler, change func(*functionshost.Config)) *fixture {
	t.Helper()
	j := &journal{}
	cfg := functionshost.Config{
		AppDir:      a.write(t),
		Settings:    baseSettings(),
		Keys:        keys,
		Version:     "1.0.0.0",
		Launcher:    functionshost.Func(h.run),
		HandlerPort: handlerPort,
		Dial:        h.net.Dial,
		Log:         slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnInvocation: func(i functionshost.Invocation) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.invocations = append(j.invocations, i)
		},
	}
	if change != nil {
		change(&cfg)
	}
	host, err := functionshost.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{Host: host, t: t, handler: h, journal: j}
}

// launch is build and start. In a bubble the test closes the host itself,
// before it ends; outside, a second Close does no harm.
func launch(t testing.TB, a app, h *handler, change func(*functionshost.Config)) *fixture {
	t.Helper()
	w := build(t, a, h, change)
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func (f *fixture) ready() {
	f.t.Helper()
	if err := f.WaitReady(context.Background()); err != nil {
		f.t.Fatalf("WaitReady: %v", err)
	}
}

// withFront puts the host's HTTP side on the handler's network.
func withFront(h *handler) func(*functionshost.Config) {
	return func(c *functionshost.Config) {
		l, err := h.net.Listen(frontAddr)
		if err != nil {
			panic(err)
		}
		c.Listener = l
	}
}

type reply struct {
	status int
	header http.Header
	body   string
}

// call sends one request to the host over a connection of its own, in a bubble.
func call(t testing.TB, n *memnet.Network, method, target string, body io.Reader, header http.Header) reply {
	t.Helper()
	r, err := tryCall(n, method, target, body, header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	synctest.Wait() // the host reports an invocation after its answer
	return r
}

func tryCall(n *memnet.Network, method, target string, body io.Reader, header http.Header) (reply, error) {
	tr := n.Transport()
	tr.DisableKeepAlives = false
	defer tr.CloseIdleConnections()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: tr, CheckRedirect: stay}
	req, err := http.NewRequest(method, "http://"+frontAddr+target, body)
	if err != nil {
		return reply{}, err
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

const frontAddr = "127.0.0.1:7071"

func keyHeader(key string) http.Header { return http.Header{"X-Functions-Key": {key}} }

// unknownLength hides a reader's type, so that it is sent in chunks.
type unknownLength struct{ io.Reader }

// check reports what is not as it should be.
func check[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// checkError reports an error that does not wrap want; nil: none is wanted.
func checkError(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// checkBetween reports a time that is out of its bounds.
func checkBetween(t testing.TB, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: got %v, want %v to %v", what, got, low, high)
	}
}

// checkHas reports a text that lacks a part.
func checkHas(t testing.TB, what, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%s: %q is not in\n%s", what, part, text)
	}
}

// checkLacks reports a text that has a part that it must not have.
func checkLacks(t testing.TB, what, text, part string) {
	t.Helper()
	if strings.Contains(text, part) {
		t.Errorf("%s: %q is in\n%s", what, part, text)
	}
}

func mustJSON(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}
