package functionshost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"time"
)

// YARP's limits for proxied requests.
const (
	activityTimeout = 240 * time.Second
	dialAttempts    = 10
	dialPauseStep   = 50 * time.Millisecond
	dialPauseMax    = 250 * time.Millisecond
)

var errIdle = errors.New("no activity for 240 s")

// proxiedCall is an HTTP request on its way to the handler (enableProxyingHttpRequest):
// path and query as they came, streams both ways, and a caller that hangs up cancels
// the call.
type proxiedCall struct {
	h    *Host
	run  *run
	in   *http.Request
	ctx  context.Context
	idle *time.Timer // cancels ctx

	status  int
	failure error
}

func (h *Host) serveProxied(w http.ResponseWriter, in *http.Request, f *function) {
	c := &proxiedCall{h: h, run: h.start(f), in: in, status: http.StatusInternalServerError}
	returned := false
	defer func() {
		if !returned {
			// The response broke half-way, and net/http is on its way to break
			// the caller's connection too.
			c.failure = fmt.Errorf("%w: its response broke off", ErrUnreachable)
		}
		_ = c.run.finish(c.status, c.failure)
	}()
	c.serve(w)
	returned = true
}

func (c *proxiedCall) serve(w http.ResponseWriter) {
	if err := c.run.await(); err != nil {
		c.failure = err
		w.WriteHeader(c.status)
		return
	}
	ctx, cancel := context.WithCancelCause(c.run.ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.in.Context(), func() { cancel(context.Canceled) })()
	c.ctx = ctx
	c.idle = time.AfterFunc(activityTimeout, func() { cancel(errIdle) })
	defer c.idle.Stop()

	out := c.in.WithContext(ctx)
	if c.in.Body != nil && c.in.Body != http.NoBody {
		out.Body = &activityBody{c.in.Body, c.active}
	}
	proxy := &httputil.ReverseProxy{
		Transport:      c.h.proxying,
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0), // it would name URLs, keys in them included
		Rewrite:        c.rewrite,
		ModifyResponse: c.receive,
		ErrorHandler:   c.fail,
	}
	proxy.ServeHTTP(w, out)
}

// active puts the idle time-out off.
func (c *proxiedCall) active() { c.idle.Reset(activityTimeout) }

func (c *proxiedCall) rewrite(p *httputil.ProxyRequest) {
	to, from := p.Out.URL, c.in.URL
	to.Scheme, to.Host = "http", c.h.address
	to.Path, to.RawPath, to.RawQuery, to.ForceQuery = from.Path, from.RawPath, from.RawQuery, from.ForceQuery
	p.Out.Host = c.in.Host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := c.in.Header[name]; ok {
			p.Out.Header[name] = v
		}
	}
	p.Out.Header.Set(headerVersion, c.h.cfg.Version)
	p.Out.Header.Set(headerInvocation, c.run.id)
	p.Out.Header.Set(headerMSInvocation, c.run.id)
}

func (c *proxiedCall) receive(resp *http.Response) error {
	c.active()
	c.status = resp.StatusCode
	if body, ok := resp.Body.(io.ReadWriteCloser); ok {
		resp.Body = body // switched protocols: both directions are one stream
		c.idle.Stop()
		return nil
	}
	resp.Body = &activityBody{resp.Body, c.active}
	return nil
}

func (c *proxiedCall) fail(w http.ResponseWriter, _ *http.Request, err error) {
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	callerGone := c.in.Context().Err() != nil && c.h.callCtx.Err() == nil
	switch {
	case tooLarge:
		c.status = http.StatusRequestEntityTooLarge
	case callerGone:
		c.status = 499 // nobody is there to read it
	default:
		c.status = http.StatusInternalServerError
	}
	if errors.Is(context.Cause(c.ctx), errIdle) {
		err = errIdle
	}
	c.failure = fmt.Errorf("%w: %w", ErrUnreachable, err)
	w.WriteHeader(c.status)
}

// activityBody reports every read.
type activityBody struct {
	io.ReadCloser
	active func()
}

func (b *activityBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.active()
	}
	return n, err
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// retryingDial retries connections that are refused, as the host's proxy does.
func retryingDial(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		wait := dialPauseStep
		for attempt := 1; ; attempt++ {
			conn, err := dial(ctx, network, address)
			if err == nil || attempt > dialAttempts || !pause(ctx, wait) {
				return conn, err
			}
			wait = min(wait+dialPauseStep, dialPauseMax)
		}
	}
}
