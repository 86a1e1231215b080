package customhandler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// deadline ends an invocation before the host stops to renew the message's lock
// (5 minutes), and long before functionTimeout, at which the host kills the process
// and every other invocation with it.
const deadline = 4 * time.Minute

// answer is what every successful invocation gets. An empty body, or one that is
// not application/json, would hang or fail it. Outputs stay null: the host would
// decode strings in them that happen to be base64.
const answer = `{"Outputs":null,"Logs":[],"ReturnValue":null}`

// Config of a Mux. The zero value works.
type Config struct {
	// Log gets one line per failed or refused request and never a payload.
	// nil: nothing is logged. See NewLog.
	Log *slog.Logger
	// Hosts are the names by which the app may be called, beside the handler's own
	// address. In the older forwarding mode the Functions host passes them on.
	Hosts []string
}

// Mux is the handler process's http.Handler. Register the functions first, then
// serve.
type Mux struct {
	log       *slog.Logger
	hosts     []string
	functions map[string]function
	http      *http.ServeMux
	about     func(*http.Request) (function string, anonymous bool)
}

// function runs one invocation on its envelope.
type function func(ctx context.Context, envelope []byte) error

// New makes a Mux without functions.
func New(c Config) *Mux {
	m := &Mux{log: c.Log, hosts: c.Hosts, functions: map[string]function{}, http: http.NewServeMux()}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// HandleTimer registers a function with a timer trigger. name is its folder's
// name, in exactly that case.
func (m *Mux) HandleTimer(name string, f func(context.Context, Timer) error) {
	m.handle(name, func(ctx context.Context, envelope []byte) error {
		t, err := decodeTimer(envelope)
		if err != nil {
			return err
		}
		return f(ctx, t)
	})
}

// HandleServiceBus registers a function with a Service Bus trigger, whose
// function.json must say cardinality one and dataType binary. The host completes the
// message if f gives nil, else it abandons it and delivers it again at once.
func (m *Mux) HandleServiceBus(name string, f func(context.Context, Message) error) {
	m.handle(name, func(ctx context.Context, envelope []byte) error {
		message, err := decodeMessage(envelope)
		if err != nil {
			return err
		}
		if !message.Trusted {
			m.log.WarnContext(ctx, "message came as text and its broker metadata is ignored: "+
				"set dataType binary in function.json")
		}
		return f(ctx, message)
	})
}

func (m *Mux) handle(name string, f function) {
	if !validName(name) {
		panic(fmt.Sprintf("customhandler: %q is no name for a function", name))
	}
	if _, taken := m.functions[name]; taken {
		panic(fmt.Sprintf("customhandler: function %q registered twice", name))
	}
	m.functions[name] = f
}

// validName is the host's rule for folder names.
func validName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if name == "" || len(name) > 128 || strings.EqualFold(name, "host") {
		return false
	}
	return strings.Contains(letters, name[:1]) && strings.Trim(name, letters+"0123456789_-") == ""
}

// HandleHTTP registers the handler of HTTP functions whose requests the host
// passes on as they are. pattern is one of net/http's and begins, after the
// method, with /api/. The host refuses routes that begin with admin or runtime.
func (m *Mux) HandleHTTP(pattern string, h http.Handler) {
	route, ok := strings.CutPrefix(pattern[strings.LastIndexByte(pattern, ' ')+1:], "/api/")
	if !ok {
		panic(fmt.Sprintf("customhandler: pattern %q is not under /api/", pattern))
	}
	for _, reserved := range []string{"admin", "runtime"} {
		if strings.HasPrefix(strings.ToLower(route), reserved) {
			panic(fmt.Sprintf("customhandler: pattern %q begins with %s, which the host keeps for itself",
				pattern, reserved))
		}
	}
	m.http.Handle(pattern, h)
}

// AboutHTTP names the function that a request is for. Requests that the host lets through
// without a key fill no log: anybody can send them.
func (m *Mux) AboutHTTP(about func(*http.Request) (function string, anonymous bool)) { m.about = about }

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = withOwnPrefix(r)
	switch at := r.URL.Path; {
	case at == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		// Readiness at start, and the health monitor's ping ever after.
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	case strings.HasPrefix(at, "/api/"):
		m.serveHTTPFunction(w, r)
	default:
		m.serveInvocation(w, r, strings.TrimPrefix(at, "/"))
	}
}

// withOwnPrefix gives the route prefix the case in which functions are registered: the
// host passes it on as the client wrote it.
func withOwnPrefix(r *http.Request) *http.Request {
	const prefix = "/api/"
	rest, ok := cutPrefixFold(r.URL.Path, prefix)
	if !ok || strings.HasPrefix(r.URL.Path, prefix) {
		return r
	}
	to, at := *r, *r.URL
	at.Path = prefix + rest
	if at.RawPath != "" {
		at.RawPath = prefix + at.RawPath[min(len(prefix), len(at.RawPath)):]
	}
	to.URL = &at
	return &to
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// serveInvocation runs a function with a timer or Service Bus trigger.
func (m *Mux) serveInvocation(w http.ResponseWriter, r *http.Request, name string) {
	f, ok := m.functions[name]
	if !ok {
		m.log.WarnContext(r.Context(), "request for a function that this handler does not have", "method", r.Method)
		problem(w, http.StatusNotFound, "no such function")
		return
	}
	start := time.Now()
	ctx, cancel := invocationContext(r, name)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			m.logPanic(ctx, v)
			problem(w, http.StatusInternalServerError, "the invocation failed")
		}
	}()
	body, ok := m.readInvocation(ctx, w, r)
	if !ok {
		return
	}
	err := f(ctx, body)
	took := time.Since(start)
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, errEnvelope) {
			status = http.StatusBadRequest
		}
		m.log.ErrorContext(ctx, "invocation failed", "error", err, "duration", took)
		problem(w, status, "the invocation failed")
		return
	}
	m.log.DebugContext(ctx, "invocation done", "duration", took)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = io.WriteString(w, answer)
}

// readInvocation reads the envelope. Where that fails it has answered, and ok is false.
func (m *Mux) readInvocation(ctx context.Context, w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem(w, http.StatusMethodNotAllowed, "functions are invoked by POST")
		return nil, false
	}
	if r.Header.Get("Sec-Fetch-Site") != "" {
		problem(w, http.StatusForbidden, "functions are invoked by the Functions host, and by no browser")
		return nil, false
	}
	// The host always says application/json. A web page in a developer's
	// browser that posts to this port could not without a preflight.
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "an invocation is application/json")
		return nil, false
	}
	// No Content-Length to go by: in Azure the host sends it chunked.
	limitBody(w, r)
	body, err = io.ReadAll(r.Body)
	if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
		m.log.ErrorContext(ctx, "invocation is too long", "limit", tooLong.Limit)
		problem(w, http.StatusRequestEntityTooLarge, "the invocation is too long")
		return nil, false
	}
	if err != nil {
		m.log.ErrorContext(ctx, "reading the invocation failed")
		problem(w, http.StatusBadRequest, "the invocation could not be read")
		return nil, false
	}
	return body, true
}

func (m *Mux) serveHTTPFunction(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	_, pattern := m.http.Handler(r)
	// net/http would redirect to a tidier path; the host lets none through that needs it.
	isTidy := path.Clean(r.URL.Path) == strings.TrimSuffix(r.URL.Path, "/")
	if pattern == "" || !isTidy {
		m.log.DebugContext(r.Context(), "request for a route that this handler does not have", "method", r.Method)
		problem(w, http.StatusNotFound, "no such route")
		return
	}
	name, anonymous := pattern, false
	if m.about != nil {
		name, anonymous = m.about(r)
	}
	ctx, cancel := invocationContext(r, name)
	defer cancel()
	recorder := RecordStatus(w)
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v != http.ErrAbortHandler {
			m.logPanic(ctx, v)
			if !recorder.Written() {
				problem(w, http.StatusInternalServerError, "the request failed")
				return
			}
		}
		panic(http.ErrAbortHandler) // too late for a status: break the connection
	}()
	r = r.WithContext(ctx)
	limitBody(w, r)
	m.http.ServeHTTP(recorder, r)
	level := requestLevel(r.Method, recorder.Status())
	if anonymous {
		level = slog.LevelDebug
	}
	if errors.Is(ctx.Err(), context.Canceled) { // nobody has read the answer: it is no failure of ours
		level = min(level, slog.LevelInfo)
	}
	m.log.Log(ctx, level, "request", "status", recorder.Status(), "duration", time.Since(start))
}

// requestLevel keeps pages that were merely looked at out of the log.
func requestLevel(method string, status int) slog.Level {
	onlyReads := method == http.MethodGet || method == http.MethodHead
	switch {
	case status >= 500:
		return slog.LevelError
	case status < 400 && onlyReads:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func invocationContext(r *http.Request, function string) (context.Context, context.CancelFunc) {
	info := Info{ID: invocationID(r.Header), Function: function, TraceParent: traceParent(r.Header)}
	return context.WithTimeout(context.WithValue(r.Context(), infoKey{}, info), deadline)
}

// logPanic says where it happened. What was thrown may hold a payload: only the
// runtime's own errors are shown.
func (m *Mux) logPanic(ctx context.Context, v any) {
	stack := debug.Stack()
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	m.log.ErrorContext(ctx, "panic", "panic", what, "stack", string(stack))
}

// problem answers by RFC 9457. The details are constants: nothing of a request
// comes back in them.
func problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d,"detail":%q}`,
		http.StatusText(status), status, detail)
}
