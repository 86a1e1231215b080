package functionshost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

const (
	defaultVersion = "4.1037.0.0"
	// settleLimit bounds what the host still does for a message once it ends.
	settleLimit = 5 * time.Second
	// portRounds is after how many starts of a handler a port of HandlerPort's is used
	// again.
	portRounds = 1000
)

// Host runs one app.
type Host struct {
	cfg       Config
	dir       string
	options   *hostOptions
	settings  settings
	functions []*function // loaded, by name
	problems  []Problem
	log       *slog.Logger
	storage   *Storage
	started   time.Time

	groups     []*group
	handlerCtx context.Context // of the handlers' processes
	handlers   sync.WaitGroup

	listenCtx  context.Context // triggers
	stopListen context.CancelFunc
	callCtx    context.Context // invocations: ends once the handler is dead
	stopCalls  context.CancelFunc
	tasks      sync.WaitGroup // triggers, invocations, requests
	server     *http.Server
	bus        busClients
	killed     atomic.Bool

	mu        sync.Mutex
	state     hostState
	reason    error
	instances int // so far
	finished  chan struct{}
}

type hostState int

const (
	hostNew hostState = iota
	hostRunning
	hostEnding
)

// New reads the app. It fails on what keeps the whole host from starting;
// functions in error are in Problems.
func New(cfg Config) (*Host, error) {
	if cfg.AppDir == "" || cfg.Launcher == nil {
		return nil, errors.New("the host wants AppDir and Launcher")
	}
	if cfg.Dial != nil && cfg.HandlerPort == 0 {
		return nil, errors.New("the host cannot draw a free port on a network that it only dials: " +
			"set HandlerPort with Dial")
	}
	if cfg.Version == "" {
		cfg.Version = defaultVersion
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Storage == nil {
		cfg.Storage = &Storage{}
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	cfg.Settings = maps.Clone(cfg.Settings)
	dir, err := filepath.Abs(cfg.AppDir)
	if err != nil {
		return nil, fmt.Errorf("finding the script root: %w", err)
	}
	h := &Host{cfg: cfg, dir: dir, settings: newSettings(cfg.Settings), log: cfg.Log, storage: cfg.Storage,
		finished: make(chan struct{})}
	h.options, err = readHostFile(dir, cfg.Settings)
	if err != nil {
		return nil, err
	}
	h.functions, h.problems, err = discover(dir, h.options, h.settings)
	if err != nil {
		return nil, err
	}
	for _, f := range h.functions {
		f.group = h.groupOf(f)
	}
	switch runtime, _ := h.settings.get("FUNCTIONS_WORKER_RUNTIME"); {
	case runtime == "":
		h.problems = append(h.problems, Problem{Message: "the app setting FUNCTIONS_WORKER_RUNTIME is missing; " +
			"set it to custom (Flex Consumption sets it itself)"})
	case !strings.EqualFold(runtime, "custom"):
		h.problems = append(h.problems, Problem{Message: "the app setting FUNCTIONS_WORKER_RUNTIME is not custom"})
	}
	for _, p := range h.problems {
		level := slog.LevelWarn
		if p.InError {
			level = slog.LevelError
		}
		h.log.Log(context.Background(), level, p.String())
	}
	return h, nil
}

// Problems lists what is wrong with the app.
func (h *Host) Problems() []Problem { return slices.Clone(h.problems) }

// Functions lists the names of the functions that were loaded and are not
// disabled, in the order in which the host tries their routes.
func (h *Host) Functions() []string {
	var names []string
	for _, f := range h.functions {
		if !f.disabled {
			names = append(names, f.name)
		}
	}
	return names
}

// Start starts the handler, the triggers and, with a Listener, the HTTP front.
// It does not wait for the handler; WaitReady does. The host runs until Close, or
// until ctx ends, or until it ends itself (see Wait).
func (h *Host) Start(ctx context.Context) error {
	stopHandlers, err := h.begun(ctx)
	if err != nil {
		return err
	}
	var front sync.WaitGroup
	h.startTriggers()
	if h.cfg.Listener != nil {
		h.server = &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
		front.Go(func() { _ = h.server.Serve(h.cfg.Listener) })
	}
	stopWatching := context.AfterFunc(ctx, func() { h.end(nil) })
	go func() {
		// The end, in the real host's order: no new work, the handler killed
		// without a word, and whatever was under way fails by that.
		<-h.listenCtx.Done()
		stopWatching()
		stopHandlers()
		h.handlers.Wait()
		h.stopCalls()
		h.closeFront()
		h.tasks.Wait()
		front.Wait()
		h.bus.close(h.log)
		h.storage.release(h, h.killed.Load())
		h.dropConnections()
		close(h.finished)
	}()
	return nil
}

// begun makes the host a running one. A handler of all functions starts with it, groups
// start with their first call.
func (h *Host) begun(ctx context.Context) (stopHandlers context.CancelFunc, err error) {
	h.mu.Lock()
	if h.state != hostNew {
		h.mu.Unlock()
		return nil, errors.New("a host starts once")
	}
	h.state = hostRunning
	h.started = time.Now()
	h.listenCtx, h.stopListen = context.WithCancel(context.WithoutCancel(ctx))
	h.callCtx, h.stopCalls = context.WithCancel(context.WithoutCancel(ctx))
	h.handlerCtx, stopHandlers = context.WithCancel(context.WithoutCancel(ctx))
	h.mu.Unlock()
	if h.cfg.Groups || len(h.groups) == 0 {
		return stopHandlers, nil
	}
	all, err := h.groups[0].take()
	if err != nil {
		stopHandlers()
		return nil, err
	}
	all.giveBack()
	return stopHandlers, nil
}

// dropConnections drops those to the handlers.
func (h *Host) dropConnections() {
	for _, g := range h.groups {
		g.mu.Lock()
		i := g.current
		g.mu.Unlock()
		if i != nil {
			i.dropConnections()
		}
	}
}

func (h *Host) startTriggers() {
	for _, f := range h.functions {
		switch {
		case f.disabled:
		case f.trigger.is(typeTimerTrigger):
			h.tasks.Go(func() { h.listenTimer(h.listenCtx, f) })
		case f.trigger.is(typeServiceBusTrigger):
			h.tasks.Go(func() { h.listenServiceBus(h.listenCtx, f) })
		}
	}
}

// closeFront leaves a moment for the answers of what has just failed.
func (h *Host) closeFront() {
	if h.server == nil {
		return
	}
	drain, cancel := context.WithTimeout(context.Background(), disposeWait)
	defer cancel()
	_ = h.server.Shutdown(drain)
	_ = h.server.Close()
}

// port draws a handler's port. It is free now, and there is a small chance
// that somebody takes it before the handler does; the real host has that too. The caller
// holds mu.
func (h *Host) port(g *group) (string, error) {
	if h.cfg.HandlerPort != 0 {
		// A group's handler that is still ending has a port too.
		round := h.instances % portRounds
		h.instances++
		return strconv.Itoa(h.cfg.HandlerPort + g.number + len(h.groups)*round), nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(h.options.handler.port)))
	if err != nil {
		return "", fmt.Errorf("drawing the handler's port: %w", err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func (h *Host) spec(group, port string) Spec {
	env := maps.Clone(h.cfg.Settings)
	if env == nil {
		env = map[string]string{}
	}
	id := newGUID()
	if env["AzureWebJobsScriptRoot"] == "" {
		env["AzureWebJobsScriptRoot"] = h.dir
	}
	env["FUNCTIONS_APP_ROOT_PATH"] = h.dir
	env["FUNCTIONS_CUSTOMHANDLER_PORT"], env["FUNCTIONS_HTTPWORKER_PORT"] = port, port
	env["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"], env["FUNCTIONS_HTTPWORKER_ID"] = id, id
	s := Spec{Path: h.options.handler.executable, Dir: h.options.handler.workingDir, Group: group}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		s.Env = append(s.Env, name+"="+env[name])
	}
	args := slices.Clone(h.options.handler.arguments)
	for i := range args {
		args[i] = expand(args[i], env, true)
	}
	s.Args = splitArguments(strings.Join(args, " "))
	return s
}

// splitArguments splits a command line at spaces; double quotes hold a piece
// together. The host joins arguments without quoting, so one with a space in it
// arrives as two.
func splitArguments(line string) []string {
	var (
		args          []string
		piece         strings.Builder
		quoted, begun bool
	)
	for _, r := range line {
		switch {
		case r == '"':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				args = append(args, piece.String())
				piece.Reset()
				begun = false
			}
		default:
			piece.WriteRune(r)
			begun = true
		}
	}
	if begun {
		args = append(args, piece.String())
	}
	return args
}

// WaitReady waits until the handler has answered its first request. Groups need no
// waiting for: a call starts them.
func (h *Host) WaitReady(ctx context.Context) error {
	h.mu.Lock()
	state := h.state
	h.mu.Unlock()
	if state == hostNew {
		return errors.New("the host is not started")
	}
	if h.cfg.Groups || len(h.groups) == 0 {
		return nil
	}
	for {
		ready, changed := h.all().ready()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-h.finished:
			return h.closedError()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *Host) closedError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reason != nil {
		return h.reason
	}
	return ErrClosed
}

// all is the instance that runs all functions, where there are no groups.
func (h *Host) all() *instance {
	g := h.groups[0]
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

// HandlerAddr is where the handler of all functions listens; known after Start.
func (h *Host) HandlerAddr() string { return h.all().address }

// end begins the end; reason is nil where somebody asked for it.
func (h *Host) end(reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.state {
	case hostNew:
		h.state = hostEnding
		if h.cfg.Listener != nil {
			_ = h.cfg.Listener.Close()
		}
		close(h.finished)
	case hostRunning:
		h.state = hostEnding
		h.reason = reason
		h.stopListen()
	}
}

// Wait returns when the host has ended: nil after Close, else the reason for
// which it ended itself.
func (h *Host) Wait() error {
	<-h.finished
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reason
}

// Close ends the host as SIGTERM does: listeners stop, the handler is killed,
// messages under way are abandoned. It returns when nothing of the host is left.
func (h *Host) Close() error {
	h.end(nil)
	<-h.finished
	return nil
}

// Kill ends the host as its own sudden death does: messages under way are
// neither completed nor abandoned, so their locks run out by themselves.
func (h *Host) Kill() {
	h.killed.Store(true)
	h.end(nil)
	<-h.finished
}

// begin counts a task of the running host.
func (h *Host) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hostRunning {
		return false
	}
	h.tasks.Add(1)
	return true
}

func (h *Host) function(name string) *function {
	for _, f := range h.functions {
		if strings.EqualFold(f.name, name) && !f.disabled {
			return f
		}
	}
	return nil
}

// Invoke runs a timer or Service Bus function once, as a POST to
// /admin/functions/<name> does, and returns what became of it.
func (h *Host) Invoke(_ context.Context, name, input string) error {
	if !h.begin() {
		return h.closedError()
	}
	defer h.tasks.Done()
	f := h.function(name)
	if f == nil {
		return fmt.Errorf("%w: %s", ErrUnknownFunction, name)
	}
	return h.manual(f, input)
}

func (h *Host) manual(f *function, input string) error {
	switch {
	case f.trigger.is(typeTimerTrigger):
		st, ok := h.storage.get(f.name)
		e := timerEnvelope(f, st, ok && f.useMonitor, false)
		return h.invoke(f, func() (envelope, error) { return e, nil })
	case f.trigger.is(typeServiceBusTrigger):
		m := []*azservicebus.ReceivedMessage{{Body: []byte(input)}}
		return h.invoke(f, func() (envelope, error) { return messageEnvelope(f, m, nil) })
	}
	return fmt.Errorf("function %s has an HTTP trigger: call its route", f.name)
}

// InvokeMessages runs a Service Bus function on messages that no broker holds:
// one, or for cardinality many a batch. Nothing is settled.
func (h *Host) InvokeMessages(_ context.Context, name string, messages ...*azservicebus.ReceivedMessage) error {
	if !h.begin() {
		return h.closedError()
	}
	defer h.tasks.Done()
	f := h.function(name)
	if f == nil || !f.trigger.is(typeServiceBusTrigger) {
		return fmt.Errorf("%w with a serviceBusTrigger: %s", ErrUnknownFunction, name)
	}
	source := &messageSource{client: h.bus.info(h, f.trigger.Connection)}
	return h.invoke(f, func() (envelope, error) { return messageEnvelope(f, messages, source) })
}

func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return formatGUID(b)
}

func formatGUID(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// namespaceOf is the host name of a connection's namespace, as the settings
// have it.
func namespaceOf(s settings, connection string) string {
	text, _ := connectionString(s, connection)
	for part := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(part, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "Endpoint") {
			continue
		}
		if u, err := url.Parse(strings.TrimSpace(value)); err == nil {
			return u.Hostname()
		}
	}
	for _, name := range connectionNames(connection) {
		if v, ok := s.get(name + "__fullyQualifiedNamespace"); ok {
			return v
		}
	}
	return ""
}
