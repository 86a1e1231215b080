// Package simulation runs the production wiring of the handler against the whole
// local Azure in one testing/synctest bubble: the real SDKs, the sandbox's services
// and its Functions host, pipes for sockets and virtual time. A scenario of months
// runs in seconds, and a handler can be killed at any call.
//
// It is for tests. It knows how the parts are put together and nothing of what they
// decide.
package simulation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

// Config of a World.
type Config struct {
	// Manifest is the text of pats.yaml.
	Manifest string
	// Schedule is CHECK_SCHEDULE; default every six hours.
	Schedule string
	// Sessions is how many PATs each instance works on at once; default 2.
	Sessions int
	// Hosts is how many instances of the app run; default 1.
	Hosts int
	// OneProcess runs all functions in one process that stays, as plans other than Flex
	// Consumption do. Default: each group of functions in a process of its own, which
	// ends after 30 seconds of rest.
	OneProcess bool
	// NobodySignedIn leaves the sign-in to the test.
	NobodySignedIn bool
	// Cloud may change the cloud's configuration.
	Cloud func(*cloud.Config)
	// Settings replace settings of the app; an empty one is as if it were not set.
	Settings map[string]string
	// Outside may change what surrounds each handler process.
	Outside func(*app.Outside)
	// Seed of the handlers' jitter.
	Seed uint64
}

// World is a cloud with the app running on it.
type World struct {
	Cloud *cloud.Cloud
	Hosts []*functionshost.Host

	tb      testing.TB
	network *memnet.Network
	appDir  string
	config  Config

	mu          sync.Mutex
	output      bytes.Buffer
	answers     bytes.Buffer
	invocations []functionshost.Invocation
	processes   map[string]*process // that run, by name
	started     int
	ended       map[string]bool            // authorization ids of PATs that people have ended by HTTP
	callers     map[int]context.CancelFunc // of calls that wait for an answer
	calls       int
	storage     functionshost.Storage
	ending      sync.WaitGroup
	// What the judge must know beside the cloud's history.
	manifests    []*Period
	orders       []Order
	disturbances []*Disturbance
	refusals     []*Refusal
	handsAtWork
}

// MasterKey opens every function of a World's host.
const MasterKey = "master-key-of-the-simulation"

// Where a World's pages are: the app's front and the authority's sign-in.
const (
	Front     = "patrol.localhost:443"
	Authority = "login.localhost:443"
)

// Dial reaches a page of a World, below TLS.
func (w *World) Dial(ctx context.Context, address string) (net.Conn, error) {
	return w.network.Dial(ctx, "tcp", address)
}

// Transport reaches the World's pages as a client.
func (w *World) Transport() *http.Transport { return w.network.Transport() }

// New starts a world, inside a bubble. Close ends it; the bubble cannot end before.
func New(tb testing.TB, c Config) *World {
	tb.Helper()
	w := &World{tb: tb, network: &memnet.Network{}, config: c, appDir: tb.TempDir(), processes: map[string]*process{},
		callers: map[int]context.CancelFunc{}, ended: map[string]bool{}}
	w.assemble()
	w.SetManifest(c.Manifest)
	cc := cloud.Config{SessionWait: sessionWait, Network: w.network, CheckSchedule: c.Schedule}
	if c.Cloud != nil {
		c.Cloud(&cc)
	}
	var err error
	w.Cloud, err = cloud.New(cc)
	if err != nil {
		tb.Fatalf("starting the cloud: %v", err)
	}
	if c.NobodySignedIn {
		w.Cloud.AddOrganization(cloud.Organization)
		w.Cloud.AddUser(cloud.User)
	} else if err := w.Cloud.Seed(); err != nil {
		tb.Fatalf("seeding the cloud: %v", err)
	}
	// azidentity reads these from the process' environment; every world has the
	// same ones.
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		if err := os.Setenv(name, w.Cloud.Environment()[name]); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range max(c.Hosts, 1) {
		w.startHost(i)
	}
	return w
}

// SetManifest writes the manifest of every instance. A handler reads it when it starts.
func (w *World) SetManifest(text string) {
	w.tb.Helper()
	for i := range max(w.config.Hosts, 1) {
		w.SetManifestOf(i, text)
	}
}

// SetManifestOf writes the manifest of one instance.
func (w *World) SetManifestOf(host int, text string) {
	w.tb.Helper()
	if err := os.WriteFile(w.manifestOf(host), []byte(text), 0o644); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *World) manifestText(host int) string {
	text, err := os.ReadFile(w.manifestOf(host))
	if err != nil {
		w.tb.Fatal(err)
	}
	return string(text)
}

func (w *World) manifestOf(host int) string {
	return filepath.Join(w.appDir, fmt.Sprintf("pats-%d.yaml", host))
}

// assemble copies host.json and the functions as packaging does; the handler itself
// runs in process.
func (w *World) assemble() {
	w.tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	host, err := os.ReadFile(filepath.Join(root, "host.json"))
	if err == nil {
		host, err = w.waitForSessions(host)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(w.appDir, "host.json"), host, 0o644)
	}
	if err == nil {
		err = os.CopyFS(w.appDir, jsonOnly{os.DirFS(filepath.Join(root, "functions"))})
	}
	if err != nil {
		w.tb.Fatalf("assembling the app: %v", err)
	}
}

// sessionWait is how long a World's host waits for a session before it asks again. The
// real one asks every minute, and a year of that would be most of the work.
const sessionWait = 24 * time.Hour

// waitForSessions changes how often and by how many the host asks for sessions, and nothing
// else.
func (w *World) waitForSessions(host []byte) ([]byte, error) {
	var settings map[string]any
	if err := json.Unmarshal(host, &settings); err != nil {
		return nil, err
	}
	bus, ok := settings["extensions"].(map[string]any)["serviceBus"].(map[string]any)
	if !ok {
		return nil, errors.New("host.json has no extensions.serviceBus")
	}
	bus["clientRetryOptions"] = map[string]any{"tryTimeout": "1.00:00:00"}
	bus["maxConcurrentSessions"] = max(w.config.Sessions, 2)
	return json.Marshal(settings)
}

// jsonOnly hides what packaging leaves out: Go files beside the functions.
type jsonOnly struct{ fs.FS }

func (j jsonOnly) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(j.FS, name)
	var out []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || strings.HasSuffix(e.Name(), ".json") {
			out = append(out, e)
		}
	}
	return out, err
}

func (w *World) startHost(i int) {
	w.tb.Helper()
	hc := w.Cloud.Host(w.appDir)
	hc.Settings["PATROL_MANIFEST"] = w.manifestOf(i)
	maps.Copy(hc.Settings, w.config.Settings)
	hc.Storage = &w.storage
	hc.Keys = functionshost.Keys{Master: MasterKey}
	hc.HandlerPort = 10000 * (i + 1)
	hc.Groups = !w.config.OneProcess
	hc.Dial = w.network.Dial
	hc.Launcher = functionshost.Func(w.handler)
	hc.OnInvocation = func(inv functionshost.Invocation) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.invocations = append(w.invocations, inv)
	}
	hc.OnLine = func(l functionshost.Line) {
		w.mu.Lock()
		defer w.mu.Unlock()
		fmt.Fprintf(&w.output, "%s\n", l.Text)
	}
	if i == 0 {
		l, err := w.network.Listen(Front)
		if err != nil {
			w.tb.Fatal(err)
		}
		hc.Listener = l
	}
	h, err := functionshost.New(hc)
	if err != nil {
		w.tb.Fatalf("making the Functions host: %v", err)
	}
	for _, p := range h.Problems() {
		w.tb.Errorf("the host reports a problem of the app: %s", p)
	}
	if err := h.Start(w.tb.Context()); err != nil {
		w.tb.Fatalf("starting the Functions host: %v", err)
	}
	w.Hosts = append(w.Hosts, h)
	if err := h.WaitReady(w.tb.Context()); err != nil {
		w.tb.Fatalf("waiting for the handler: %v\n%s", err, w.Output())
	}
}

// tokenLife is longer than the managed identity's tokens live.
const tokenLife = 25 * time.Hour

// lastGasp is longer than anything that a dead process can go on waiting for.
const lastGasp = 30 * time.Minute

// Close ends hosts, handlers and cloud.
func (w *World) Close() {
	for _, h := range w.Hosts {
		_ = h.Close()
	}
	w.ending.Wait()
	w.Cloud.Close()
	// azservicebus forgets to stop the renewal of claims of a session that was being
	// accepted while its client was closed. It ends when the token does.
	time.Sleep(tokenLife)
	synctest.Wait()
}

// processMark stands in a process' name between its group and its number.
const processMark = "#"

// process is one handler. When it is killed, nothing that it still computes reaches
// anybody.
type process struct {
	world  *World
	group  string // of its functions; empty: all
	name   string // the group's, and a number
	killed chan struct{}
	mu     sync.Mutex
	dead   bool
	conns  map[net.Conn]bool
}

var errDead = errors.New("the process is dead")

func (p *process) dial(ctx context.Context, _, address string) (net.Conn, error) {
	return p.track(p.world.network.DialFrom(ctx, p.name, address))
}

// track makes a connection one of the process', to be broken with it.
func (p *process) track(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		_ = c.Close()
		return nil, errDead
	}
	t := &tracked{Conn: c, process: p}
	p.conns[t] = true
	return t, nil
}

func (p *process) die() {
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return
	}
	p.dead = true
	close(p.killed)
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for c := range conns {
		_ = c.(*tracked).Conn.Close()
	}
}

type tracked struct {
	net.Conn
	process *process
}

func (t *tracked) Close() error {
	t.process.mu.Lock()
	delete(t.process.conns, t)
	t.process.mu.Unlock()
	return t.Conn.Close()
}

// handler is the handler's main, as in production but for what is outside of it.
func (w *World) handler(ctx context.Context, spec functionshost.Spec, stdout, _ io.Writer) int {
	p := &process{world: w, group: spec.Group, killed: make(chan struct{}), conns: map[net.Conn]bool{}}
	w.mu.Lock()
	w.started++
	p.name = fmt.Sprintf("%s%s%d", cmp.Or(spec.Group, "app"), processMark, w.started)
	w.processes[p.name] = p
	seed := w.config.Seed + uint64(w.started)
	w.mu.Unlock()
	inForce := w.reads(spec.Getenv("PATROL_MANIFEST"))

	settings, err := app.ReadSettings(spec.Getenv)
	transport := w.network.Transport()
	transport.DialContext, transport.DialTLSContext = p.dial, p.dial
	random := mathrand.New(mathrand.NewPCG(seed, seed))
	var mu sync.Mutex
	outside := app.Outside{
		Transport: transport,
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			return p.dial(ctx, "", w.Cloud.BusAddress())
		},
		Random: func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return random.Float64()
		},
		Log: customhandler.NewLog(stdout, settings.LogLevel),
	}
	if w.config.Outside != nil {
		w.config.Outside(&outside)
	}
	a := app.New(settings, err, outside)
	address := "127.0.0.1:" + spec.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT")
	l, err := w.network.Listen(address)
	if err != nil {
		fmt.Fprintln(stdout, "handler:", err)
		return 1
	}
	server := a.Server(address)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	code := p.live(ctx, spec, server)
	p.die()
	w.mu.Lock()
	delete(w.processes, p.name)
	inForce.To = time.Now()
	w.mu.Unlock()
	_ = server.Close()
	<-served
	// A dead process needs no closing, but its goroutines must end before the bubble
	// can, and some are ended by Close alone. What it still computes has come to
	// its end by then: an SDK's lock that is held while it waits would stop
	// virtual time for whoever wants the lock.
	w.ending.Go(func() {
		time.Sleep(lastGasp)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = a.Close(closing)
	})
	return code
}

// grace is how long a process that is asked to end finishes what runs, as in production.
const grace = 4 * time.Minute

// live serves until the process is killed, or has finished what runs after it was asked to
// end.
func (p *process) live(ctx context.Context, spec functionshost.Spec, server *http.Server) (code int) {
	select {
	case <-ctx.Done():
		return 0
	case <-p.killed:
		return 137 // as a shell reports SIGKILL
	case <-spec.Terminated():
	}
	stop, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	defer context.AfterFunc(stop, func() { _ = server.Close() })()
	go func() {
		select {
		case <-p.killed:
			cancel()
		case <-stop.Done():
		}
	}()
	_ = server.Shutdown(stop)
	return 200
}

// Kill ends every handler at once, as SIGKILL does; their hosts start new ones.
func (w *World) Kill() { w.kill(func(*process) bool { return true }) }

// KillGroup ends the handlers of one group of functions; an empty name stands for all.
func (w *World) KillGroup(group string) {
	w.kill(func(p *process) bool { return group == "" || p.group == group })
}

// KillProcess ends the process that a call came from. A call of the platform's own is
// followed by the end of all processes.
func (w *World) KillProcess(by string) {
	w.mu.Lock()
	_, isProcess := w.processes[by]
	w.mu.Unlock()
	w.kill(func(p *process) bool { return !isProcess || p.name == by })
}

func (w *World) kill(which func(*process) bool) {
	now := time.Now()
	w.mu.Lock()
	w.disturbances = append(w.disturbances, &Disturbance{At: now, Until: now, Kill: true})
	var chosen []*process
	for _, p := range w.processes {
		if which(p) {
			chosen = append(chosen, p)
		}
	}
	w.mu.Unlock()
	for _, p := range chosen {
		p.die()
	}
}

// Sweep runs the timer's function now and waits for its commands to be worked off.
func (w *World) Sweep() error {
	err := w.Hosts[0].Invoke(w.tb.Context(), "CheckExpiry", "")
	w.Settle()
	return err
}

// Settle lets the world work until every message that is due has been worked off.
func (w *World) Settle() {
	// A step of virtual time is longer than any exchange without faults, and
	// shorter than anything that is scheduled. Together they are longer than a PAT is
	// tried before it counts as refused.
	for range 40 {
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if w.idle() {
			return
		}
	}
}

func (w *World) idle() bool {
	for _, q := range []string{cloud.CommandQueue, cloud.VaultEventQueue, cloud.ConfirmationQueue} {
		if w.Cloud.Bus.Counts(q).Active > 0 {
			return false
		}
	}
	return true
}

// Caller gives the context of a call by somebody who waits for the answer, until Leave.
func (w *World) Caller() (ctx context.Context, answered func()) {
	ctx, cancel := context.WithCancel(w.tb.Context())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	n := w.calls
	w.callers[n] = cancel
	return ctx, func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.callers, n)
	}
}

// Leave makes everybody who waits for an HTTP function's answer hang up.
func (w *World) Leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, hangUp := range w.callers {
		hangUp()
	}
}

// HTTP calls an HTTP function and decodes the JSON answer into out (nil: not wanted).
func (w *World) HTTP(method, path string, body, out any) int {
	w.tb.Helper()
	var r io.Reader = http.NoBody
	if s, ok := body.(string); ok {
		r = strings.NewReader(s)
	} else if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.tb.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	ctx, answered := w.Caller()
	defer answered()
	req := httptest.NewRequestWithContext(ctx, method, "http://patrol.localhost"+path, r)
	req.Header.Set("X-Functions-Key", MasterKey)
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	order, isOrder := w.orderOf(method, req.URL, body)
	w.keepEnded(method, req.URL)
	w.Hosts[0].ServeHTTP(rec, req)
	if isOrder {
		w.keepOrder(order, rec)
	}
	w.mu.Lock()
	fmt.Fprintf(&w.answers, "%s %s: %d %v\n%s\n", method, path, rec.Code, rec.Header(), rec.Body)
	w.mu.Unlock()
	if out != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			w.tb.Fatalf("%s %s answered %d with %q: %v", method, path, rec.Code, rec.Body, err)
		}
	}
	return rec.Code
}

// Events are the events on the topic so far.
func (w *World) Events() []events.Event {
	w.tb.Helper()
	var out []events.Event
	for _, m := range w.Cloud.Messages(cloud.EventTopic) {
		e, err := events.Decode(m.Body)
		if err != nil {
			w.tb.Fatalf("an event that subscribers cannot read: %v", err)
		}
		out = append(out, e)
	}
	return out
}

// Latest is a secret's latest version.
func (w *World) Latest(name string) (keyvault.Version, bool) {
	vs := w.Cloud.Vault.Versions(name)
	if len(vs) == 0 {
		return keyvault.Version{}, false
	}
	return vs[len(vs)-1], true
}

// Output is all that the handlers have written.
func (w *World) Output() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.output.String()
}

// Answers are the HTTP functions' answers, whole.
func (w *World) Answers() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answers.String()
}

// Invocations are the finished runs of functions.
func (w *World) Invocations() []functionshost.Invocation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]functionshost.Invocation(nil), w.invocations...)
}

// Command puts a message on the command queue, in the session of that name.
func (w *World) Command(session, body string) {
	w.tb.Helper()
	client, err := w.Cloud.BusClient()
	if err != nil {
		w.tb.Fatal(err)
	}
	defer func() { _ = client.Close(w.tb.Context()) }()
	sender, err := client.NewSender(cloud.CommandQueue, nil)
	if err != nil {
		w.tb.Fatal(err)
	}
	c, err := bus.DecodeCommand([]byte(body))
	if err == nil && c.IsOrder() {
		w.mu.Lock()
		w.orders = append(w.orders, Order{PAT: c.PAT, AuthorizationID: c.From, Now: c.RevokePrevious == rotation.Now,
			At: time.Now(), Accepted: time.Now()})
		w.mu.Unlock()
	}
	if err := sender.SendMessage(w.tb.Context(), &azservicebus.Message{Body: []byte(body), SessionID: &session,
		MessageID: new("by-hand-" + rand.Text())}, nil); err != nil {
		w.tb.Fatalf("sending a command: %v", err)
	}
}

// Restart kills every handler with its host and starts the app anew.
func (w *World) Restart() {
	w.tb.Helper()
	now := time.Now()
	w.mu.Lock()
	w.disturbances = append(w.disturbances, &Disturbance{At: now, Until: now, Kill: true})
	w.mu.Unlock()
	n := len(w.Hosts)
	for _, h := range w.Hosts {
		_ = h.Close()
	}
	w.Hosts = nil
	for i := range n {
		w.startHost(i)
	}
}
