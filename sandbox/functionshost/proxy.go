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
	"strings"
	"time"
)

// YARP's limits for proxied requests. Ten attempts have nine pauses: 1.75 s, where 1.9 s
// were measured.
const (
	activityTimeout = 240 * time.Second
	dialAttempts    = 10
	dialPauseStep   = 50 * time.Millisecond
	dialPauseMax    = 250 * time.Millisecond
)

var errIdle = errors.New("no activity for 240 s")

// proxiedCall is an HTTP request on its way to the handler (enableProxyingHttpRequest):
// case and slashes of the path and the whole query as they came, streams both ways, and a
// caller that hangs up cancels the call. The handler sees its own address as Host; the
// public one is in X-Forwarded-Host, which only the host writes.
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
		Transport:      c.run.at.proxying,
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
	to.Scheme, to.Host = "http", c.run.at.address
	to.Path, to.RawPath = proxiedPath(from.EscapedPath())
	to.RawQuery, to.ForceQuery = from.RawQuery, from.ForceQuery
	p.Out.Host = c.run.at.address
	p.Out.Header.Del("X-Forwarded-Prefix")
	p.Out.Header.Set("X-Forwarded-For", addressOnly(c.in.RemoteAddr))
	p.Out.Header.Set("X-Forwarded-Host", c.in.Host)
	p.Out.Header.Set("X-Forwarded-Proto", c.scheme())
	p.Out.Header.Set(headerVersion, c.h.cfg.Version)
	p.Out.Header.Set(headerInvocation, c.run.id)
	p.Out.Header.Set(headerMSInvocation, c.run.id)
	if _, ok := c.in.Header["User-Agent"]; !ok {
		p.Out.Header["User-Agent"] = nil // none is added
	}
}

// scheme is the public one: on App Service the front end's, which replaces a client's.
func (c *proxiedCall) scheme() string {
	if proto := c.in.Header.Get("X-Forwarded-Proto"); proto != "" && c.h.cfg.BehindFrontEnd {
		return proto
	}
	if c.in.TLS != nil {
		return "https"
	}
	return "http"
}

// addressOnly is a caller's address without its port. A pipe has none, and is of this machine.
func addressOnly(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return "127.0.0.1"
	}
	return host
}

// proxiedPath is what the host makes of a path: it decodes every escape but %2F, and
// encodes what it has then, the percent sign of %2F too. So %2F arrives as %252F.
func proxiedPath(escaped string) (path, raw string) {
	path, err := decodeSegment(escaped)
	if err != nil {
		return escaped, "" // no route matches it: it does not come so far
	}
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"
	var out strings.Builder
	for i := range len(path) {
		if strings.IndexByte(plain, path[i]) >= 0 {
			out.WriteByte(path[i])
			continue
		}
		fmt.Fprintf(&out, "%%%02X", path[i])
	}
	return path, out.String()
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
	callerGone := c.in.Context().Err() != nil && c.h.callCtx.Err() == nil
	c.status = http.StatusInternalServerError // never 413 or 502
	if callerGone {
		c.status = 499 // nobody is there to read it
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
			if err == nil || attempt == dialAttempts || !pause(ctx, wait) {
				return conn, err
			}
			wait = min(wait+dialPauseStep, dialPauseMax)
		}
	}
}
