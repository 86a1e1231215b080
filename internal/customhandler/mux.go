package customhandler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	// DefaultDeadline ends an invocation before the host stops to renew the
	// message's lock (5 minutes), and long before functionTimeout, at which the
	// host kills the process and every other invocation with it.
	DefaultDeadline = 4 * time.Minute
	// DefaultMaxBody holds the largest message of a standard Service Bus
	// namespace (256 KiB, a third more as base64) with its metadata.
	DefaultMaxBody = 1 << 20

	// bodyTimeout bounds reading a body: who is slower than this is not the host.
	bodyTimeout = 30 * time.Second
)

// answer is what every successful invocation gets. An empty body, or one that is
// not application/json, would hang or fail it. Outputs stay null: the host would
// decode strings in them that happen to be base64.
const answer = `{"Outputs":null,"Logs":[],"ReturnValue":null}`

// Config of a Mux. The zero value works.
type Config struct {
	// Log gets one line per failed or refused request and never a payload.
	// nil: nothing is logged. See NewLog.
	Log *slog.Logger
	// Deadline of an invocation. 0: DefaultDeadline; less than 0: none.
	Deadline time.Duration
	// MaxBody is the longest request body in bytes. 0: DefaultMaxBody.
	MaxBody int64
}

// Mux is the handler process's http.Handler. Register the functions first, then
// serve.
type Mux struct {
	log       *slog.Logger
	deadline  time.Duration
	maxBody   int64
	functions map[string]function
	http      *http.ServeMux
}

// function runs one invocation on its decoded envelope.
type function func(ctx context.Context, envelope []byte) error

// New makes a Mux without functions.
func New(c Config) *Mux {
	m := &Mux{log: c.Log, deadline: c.Deadline, maxBody: c.MaxBody, functions: map[string]function{}, http: http.NewServeMux()}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.deadline == 0 {
		m.deadline = DefaultDeadline
	}
	if m.maxBody <= 0 {
		m.maxBody = DefaultMaxBody
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
// function.json must say dataType binary. The host completes the message if f
// gives nil, else it abandons it and delivers it again at once. If cardinality is
// many, f gets the messages one after another, and one failure fails the batch.
func (m *Mux) HandleServiceBus(name string, f func(context.Context, Message) error) {
	m.handle(name, func(ctx context.Context, envelope []byte) error {
		messages, err := decodeMessages(envelope)
		if err != nil {
			return err
		}
		var errs []error
		for _, message := range messages {
			if !message.Trusted {
				m.log.WarnContext(ctx, "message came as text and its broker metadata is ignored: set dataType binary in function.json")
			}
			message.InvocationID = Invocation(ctx).ID
			errs = append(errs, f(ctx, message))
		}
		return errors.Join(errs...)
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
	return name != "" && len(name) <= 128 && strings.Contains(letters, name[:1]) &&
		strings.Trim(name, letters+"0123456789_-") == "" && !strings.EqualFold(name, "host")
}

// HandleHTTP registers the handler of HTTP functions whose requests the host
// passes on as they are. pattern is one of net/http's and begins, after the
// method, with /api/. The host refuses routes that begin with admin or runtime.
func (m *Mux) HandleHTTP(pattern string, h http.Handler) {
	path := pattern[strings.LastIndexByte(pattern, ' ')+1:]
	route, ok := strings.CutPrefix(path, "/api/")
	if !ok {
		panic(fmt.Sprintf("customhandler: pattern %q is not under /api/", pattern))
	}
	for _, reserved := range []string{"admin", "runtime"} {
		if strings.HasPrefix(strings.ToLower(route), reserved) {
			panic(fmt.Sprintf("customhandler: pattern %q begins with %s, which the host keeps for itself", pattern, reserved))
		}
	}
	m.http.Handle(pattern, h)
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		// Readiness at start, and the health monitor's ping ever after.
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	case strings.HasPrefix(path, "/api/"):
		m.serveHTTPFunction(w, r)
	default:
		m.serveInvocation(w, r, strings.TrimPrefix(path, "/"))
	}
}

func (m *Mux) serveInvocation(w http.ResponseWriter, r *http.Request, name string) {
	f, ok := m.functions[name]
	if !ok {
		m.log.WarnContext(r.Context(), "request for a function that this handler does not have", "method", r.Method)
		problem(w, http.StatusNotFound, "no such function")
		return
	}
	start := time.Now()
	ctx, cancel := m.context(r, name)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			m.logPanic(ctx, v)
			problem(w, http.StatusInternalServerError, "the invocation failed")
		}
	}()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem(w, http.StatusMethodNotAllowed, "functions are invoked by POST")
		return
	}
	// The host always says application/json. A web page in a developer's
	// browser that posts to this port could not without a preflight.
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "an invocation is application/json")
		return
	}
	// No Content-Length to go by: in Azure the host sends it chunked.
	m.limit(w, r)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
			m.log.ErrorContext(ctx, "invocation is too long", "limit", tooLong.Limit)
			problem(w, http.StatusRequestEntityTooLarge, "the invocation is too long")
			return
		}
		m.log.ErrorContext(ctx, "reading the invocation failed")
		problem(w, http.StatusBadRequest, "the invocation could not be read")
		return
	}
	err = f(ctx, body)
	took := time.Since(start)
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, ErrEnvelope) {
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

func (m *Mux) serveHTTPFunction(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	_, pattern := m.http.Handler(r)
	if pattern == "" {
		m.log.WarnContext(r.Context(), "request for a route that this handler does not have", "method", r.Method)
		problem(w, http.StatusNotFound, "no such route")
		return
	}
	ctx, cancel := m.context(r, pattern)
	defer cancel()
	rec := &recorder{ResponseWriter: w}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v != http.ErrAbortHandler {
			m.logPanic(ctx, v)
			if rec.status == 0 {
				problem(w, http.StatusInternalServerError, "the request failed")
				return
			}
		}
		panic(http.ErrAbortHandler) // too late for a status: break the connection
	}()
	r = r.WithContext(ctx)
	m.limit(w, r)
	m.http.ServeHTTP(rec, r)

	level := slog.LevelInfo
	switch {
	case rec.status >= 500:
		level = slog.LevelError
	case rec.status < 400 && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		level = slog.LevelDebug
	}
	m.log.Log(ctx, level, "request", "status", max(rec.status, http.StatusOK), "duration", time.Since(start))
}

// limit bounds a request's body in size and time.
func (m *Mux) limit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, m.maxBody)
	if r.ContentLength == 0 {
		return
	}
	// Not the server's ReadTimeout: that one goes on while the invocation works,
	// and would cancel it.
	c := http.NewResponseController(w)
	if c.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil {
		r.Body = &timedBody{r.Body, func() { _ = c.SetReadDeadline(time.Time{}) }}
	}
}

// timedBody ends the deadline on reading once there is no more to read.
type timedBody struct {
	io.ReadCloser
	done func()
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF { // after any other error the rest is not waited for either
		b.done()
	}
	return n, err
}

func (m *Mux) context(r *http.Request, function string) (context.Context, context.CancelFunc) {
	ctx := context.WithValue(r.Context(), infoKey{}, Info{ID: invocationID(r.Header), Function: function, TraceParent: traceParent(r.Header)})
	if m.deadline < 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, m.deadline)
}

// logPanic tells where it happened. What was thrown may hold a payload: only the
// runtime's own errors are shown.
func (m *Mux) logPanic(ctx context.Context, v any) {
	what := fmt.Sprintf("%T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error()
	}
	m.log.ErrorContext(ctx, "panic", "panic", what, "stack", string(debug.Stack()))
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// problem answers by RFC 9457. The details are constants: nothing of a request
// comes back in them.
func problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d,"detail":%q}`, http.StatusText(status), status, detail)
}

// Info names an invocation.
type Info struct {
	ID       string // the host's id of this one call; a retry has another
	Function string // function name; for HTTP the pattern that matched
	// TraceParent is the W3C trace context that came with the call, the host's or a
	// client's; empty if there is none.
	TraceParent string
}

type infoKey struct{}

// Invocation tells which invocation ctx belongs to; the zero Info outside of one.
func Invocation(ctx context.Context) Info {
	i, _ := ctx.Value(infoKey{}).(Info)
	return i
}

// invocationID takes the host's value: in forwarding mode it comes after one that
// the client has sent, as a second header or behind a comma.
func invocationID(h http.Header) string {
	values := h.Values("X-Azure-Functions-Invocationid")
	if len(values) == 0 {
		return ""
	}
	id := values[len(values)-1]
	id = strings.TrimSpace(id[strings.LastIndexByte(id, ',')+1:])
	if len(id) > 64 || strings.Trim(id, "0123456789abcdefABCDEF-") != "" {
		return "" // none of the host's: it would only confuse the log
	}
	return id
}

// traceParent takes a trace context that has the form of one.
func traceParent(h http.Header) string {
	v := h.Get("Traceparent")
	if len(v) < 55 || len(v) > 64 || strings.Trim(v, "0123456789abcdef-") != "" {
		return ""
	}
	return v
}

// Address is where to listen: port is FUNCTIONS_CUSTOMHANDLER_PORT. The host
// only ever calls 127.0.0.1.
func Address(port string) (string, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("FUNCTIONS_CUSTOMHANDLER_PORT is not a port: the Functions host sets it when it starts the handler")
	}
	return net.JoinHostPort("127.0.0.1", strconv.FormatUint(n, 10)), nil
}

// Server gives an http.Server for this Mux with the time-outs that the host
// needs: none on writing, because an invocation may take minutes, and a long idle
// time, because the host reuses connections that it has not used for a while. A
// request's body has a time-out of its own.
func (m *Mux) Server(addr string) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           m,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    128 << 10, // App Service authentication adds long ones
		// net/http would write to stderr, where each line counts as an error.
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	}
}
