package functionshost

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// allHTTP is the group of all functions with an HTTP trigger.
	allHTTP = "http"
	// oneFunction begins the name of the group of any other function.
	oneFunction = "function:"
	// scaleInAfter is how long a group rests before it is scaled to zero.
	scaleInAfter = 30 * time.Second
	// drainLimit is how long a handler that was asked to end may go on.
	drainLimit = 10 * time.Minute
)

// group is functions that share a process. An app on Flex Consumption has one for all
// HTTP functions and one for each other function; elsewhere all functions are one group.
type group struct {
	h      *Host
	name   string // empty: all functions
	number int    // from 0
	scales bool   // to zero, and back at the next call

	mu      sync.Mutex
	current *instance // nil: none
}

// instance is the host's part of one handler: its process, however often that is started
// anew, and the way to it.
type instance struct {
	group     *group
	worker    *worker
	address   string
	transport *http.Transport // to the handler
	proxying  *http.Transport // the same, for HTTP functions: it dials again
	client    *http.Client    // for envelopes; follows redirects
	stop      context.CancelFunc

	// Guarded by the group's mu.
	active int
	rest   *time.Timer // runs while active is 0 and the group scales
}

// groupOf gives the group that a function belongs to.
func (h *Host) groupOf(f *function) *group {
	name := ""
	switch {
	case !h.cfg.Groups:
	case f.trigger.is(typeHTTPTrigger):
		name = allHTTP
	default:
		name = oneFunction + strings.ToLower(f.name)
	}
	for _, g := range h.groups {
		if g.name == name {
			return g
		}
	}
	g := &group{h: h, name: name, number: len(h.groups), scales: h.cfg.Groups}
	h.groups = append(h.groups, g)
	return g
}

// take gives the instance that a call goes to, and starts one if there is none.
func (g *group) take() (*instance, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		i, err := g.h.newInstance(g)
		if err != nil {
			return nil, err
		}
		g.current = i
	}
	g.current.active++
	g.current.rest.Stop()
	return g.current, nil
}

// giveBack ends a call of an instance.
func (i *instance) giveBack() {
	i.group.mu.Lock()
	defer i.group.mu.Unlock()
	i.active--
	if i.active == 0 && i.group.scales {
		i.rest.Reset(scaleInAfter)
	}
}

// scaleIn asks an instance to end that has rested for long enough. The next call starts
// another one.
func (i *instance) scaleIn() {
	g := i.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == i && i.active == 0 {
		g.current = nil
		close(i.worker.drain)
	}
}

// over is how an instance ends that has given its handler up. Where there are no groups
// that is the end of the whole host; Flex Consumption replaces the instance.
func (i *instance) over(reason error) {
	g := i.group
	if !g.scales {
		g.h.end(reason)
		return
	}
	g.mu.Lock()
	if g.current == i {
		g.current = nil
	}
	g.mu.Unlock()
	i.stop()
}

// newInstance starts a handler.
func (h *Host) newInstance(g *group) (*instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hostRunning {
		return nil, ErrClosed
	}
	port, err := h.port(g)
	if err != nil {
		return nil, err
	}
	i := &instance{group: g, address: net.JoinHostPort("127.0.0.1", port)}
	i.transport = &http.Transport{
		DialContext: h.cfg.Dial, DisableCompression: true,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 2 * time.Minute,
	}
	i.proxying = i.transport.Clone()
	i.proxying.DialContext = retryingDial(h.cfg.Dial)
	i.client = &http.Client{Transport: i.transport}
	i.rest = time.AfterFunc(scaleInAfter, i.scaleIn)
	i.rest.Stop()
	i.worker = h.newWorker(i, port)
	ctx, stop := context.WithCancel(h.handlerCtx)
	i.stop = stop
	h.handlers.Go(func() {
		defer stop()
		i.worker.run(ctx)
		i.dropConnections()
	})
	return i, nil
}

func (h *Host) newWorker(i *instance, port string) *worker {
	w := newWorker()
	w.launcher, w.ping, w.url = h.cfg.Launcher, i.client, "http://"+i.address
	w.spec = func() Spec { return h.spec(i.group.name, port) }
	w.initialize, w.errorsOnly = h.options.handler.initialization, h.options.handler.errorsOnly
	if h.options.functionTimeout > 0 {
		w.pingLimit = h.options.functionTimeout + time.Minute
	}
	w.log, w.onLine, w.endHost, w.dropConnections = h.log, h.cfg.OnLine, i.over, i.dropConnections
	return w
}

func (i *instance) dropConnections() {
	i.transport.CloseIdleConnections()
	i.proxying.CloseIdleConnections()
}

// ready reports whether an instance's handler has answered, and gives what is closed when
// that changes.
func (i *instance) ready() (bool, <-chan struct{}) {
	i.worker.mu.Lock()
	defer i.worker.mu.Unlock()
	return i.worker.state == workerReady, i.worker.changed
}

var errNoInstance = errors.New("the group is scaled to zero")

// ping asks the handlers that run for a sign of life.
func (h *Host) ping(ctx context.Context) {
	for _, g := range h.groups {
		g.mu.Lock()
		i := g.current
		g.mu.Unlock()
		up, err := false, errNoInstance
		if i != nil {
			up, err = i.worker.answers(ctx)
		}
		h.log.Debug("worker status", "group", g.name, "answers", up && err == nil)
	}
}
