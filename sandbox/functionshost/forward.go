package functionshost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// YARP's limits for proxied requests.
const (
	activityTimeout = 240 * time.Second
	dialAttempts    = 10
	dialPauseStep   = 50 * time.Millisecond
	dialPauseMax    = 250 * time.Millisecond
)

// perHop headers belong to one connection and are not passed on.
var perHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// contentHeaders are those that .NET keeps with a body. The older forwarding
// carries over Content-Type and Content-Length only.
var contentHeaders = []string{"Allow", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
	"Content-Location", "Content-Md5", "Content-Range", "Content-Type", "Expires", "Last-Modified"}

// serveForwarded is the older mode: the request is built anew, its body and the
// response buffered.
func (h *Host) serveForwarded(w http.ResponseWriter, in *http.Request, f *function) {
	r := h.start(f)
	resp, body, err := r.forwardRequest(in)
	if err != nil {
		_ = r.finish(http.StatusInternalServerError, err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	header := w.Header()
	for name, values := range resp.Header {
		header[name] = values
	}
	dropHop(header)
	_ = r.finish(resp.StatusCode, nil) // a 4xx or 5xx is a success
	if in.Method != http.MethodHead {
		header.Del("Content-Length")
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
}

func (r *run) forwardRequest(in *http.Request) (*http.Response, []byte, error) {
	if in.ContentLength < 0 {
		return nil, nil, errors.New("a body of unknown length cannot be forwarded")
	}
	var body []byte
	if in.ContentLength > 0 {
		var err error
		if body, err = io.ReadAll(in.Body); err != nil {
			return nil, nil, fmt.Errorf("reading the request's body: %w", err)
		}
	}
	if err := r.await(); err != nil {
		return nil, nil, err
	}
	target := r.h.worker.url + reencodePath(in.URL.EscapedPath())
	if q := rebuildQuery(in.URL.RawQuery); q != "" {
		target += "?" + q
	}
	// The caller's going away is not passed on.
	out, err := http.NewRequestWithContext(r.ctx, in.Method, target, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("making the request: %w", withoutURL(err))
	}
	out.Host = in.Host
	for name, values := range in.Header {
		out.Header[name] = []string{strings.Join(values, ", ")}
	}
	dropHop(out.Header)
	for _, name := range contentHeaders {
		out.Header.Del(name)
	}
	if len(body) > 0 {
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if ct := in.Header.Get("Content-Type"); ct != "" {
			out.Header.Set("Content-Type", ct)
		}
	}
	add := func(name, separator, value string) {
		if old := out.Header.Get(name); old != "" {
			value = old + separator + value
		}
		out.Header.Set(name, value)
	}
	add("User-Agent", " ", r.h.userAgent())
	add(headerVersion, ", ", r.h.cfg.Version)
	add(headerInvocation, ", ", r.id)
	resp, err := r.h.forward.Do(out)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: reading its response: %w", ErrUnreachable, err)
	}
	return resp, answer, nil
}

func dropHop(header http.Header) {
	for _, list := range header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			header.Del(textproto.TrimString(name))
		}
	}
	for _, name := range perHop {
		header.Del(name)
	}
}

// reencodePath decodes a path and encodes it again as ASP.NET's PathString does:
// a slash that was escaped stays so.
func reencodePath(escaped string) string {
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		if v, err := decodeSegment(s); err == nil {
			segments[i] = escapeWith(v, "-._~!$&'()*+,;=:@")
		}
	}
	return strings.Join(segments, "/")
}

// rebuildQuery makes a query out of the dictionary that the host read the
// caller's into: a key that came twice has one value, joined by commas.
func rebuildQuery(raw string) string {
	var (
		order  []string
		values = map[string][]string{}
	)
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil {
			key = k
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			value = v
		}
		if _, ok := values[key]; !ok {
			order = append(order, key)
		}
		values[key] = append(values[key], value)
	}
	for i, key := range order {
		const kept = "!$()*,-.;@_~" // .NET's UrlEncoder leaves these
		order[i] = escapeWith(key, kept) + "=" + escapeWith(strings.Join(values[key], ","), kept)
	}
	return strings.Join(order, "&")
}

// escapeWith percent-encodes all but letters, digits, kept characters and an
// escaped slash.
func escapeWith(s, kept string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(kept, c) >= 0:
			b.WriteByte(c)
		case c == '%' && strings.Contains(kept, ":") && i+2 < len(s) && s[i+1] == '2' && (s[i+2] == 'F' || s[i+2] == 'f'):
			b.WriteString(s[i : i+3])
			i += 2
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// serveProxied is the newer mode: path and query as they came, streams both
// ways, and the caller's going away cancels the call.
func (h *Host) serveProxied(w http.ResponseWriter, in *http.Request, f *function) {
	r := h.start(f)
	status, failure := http.StatusInternalServerError, error(nil)
	done := false
	defer func() {
		if !done {
			// The response broke half-way, and net/http is on its way to
			// break the caller's connection too.
			failure = fmt.Errorf("%w: its response broke off", ErrUnreachable)
		}
		_ = r.finish(status, failure)
	}()
	if err := r.await(); err != nil {
		failure, done = err, true
		w.WriteHeader(status)
		return
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	defer context.AfterFunc(in.Context(), func() { cancel(context.Canceled) })()
	idle := time.AfterFunc(activityTimeout, func() { cancel(errIdle) })
	defer idle.Stop()
	touch := func() { idle.Reset(activityTimeout) }

	out := in.WithContext(ctx)
	if in.Body != nil && in.Body != http.NoBody {
		out.Body = &watchedBody{in.Body, touch}
	}
	proxy := &httputil.ReverseProxy{
		Transport:     h.proxying,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // it would name URLs, keys in them included
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", h.address
			p.Out.URL.Path, p.Out.URL.RawPath, p.Out.URL.RawQuery = in.URL.Path, in.URL.RawPath, in.URL.RawQuery
			p.Out.URL.ForceQuery = in.URL.ForceQuery
			p.Out.Host = in.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := in.Header[name]; ok {
					p.Out.Header[name] = v
				}
			}
			p.Out.Header.Set(headerVersion, h.cfg.Version)
			p.Out.Header.Set(headerInvocation, r.id)
			p.Out.Header.Set(headerMSInvocation, r.id)
		},
		ModifyResponse: func(resp *http.Response) error {
			touch()
			status = resp.StatusCode
			if body, ok := resp.Body.(io.ReadWriteCloser); ok {
				resp.Body = body // switched protocols: both directions are one stream
				idle.Stop()
			} else {
				resp.Body = &watchedBody{resp.Body, touch}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
				status = http.StatusRequestEntityTooLarge
			case in.Context().Err() != nil && h.callCtx.Err() == nil:
				status = 499 // nobody is there to read it
			default:
				status = http.StatusInternalServerError
			}
			failure = fmt.Errorf("%w: %w", ErrUnreachable, err)
			if errors.Is(context.Cause(ctx), errIdle) {
				failure = fmt.Errorf("%w: %w", ErrUnreachable, errIdle)
			}
			w.WriteHeader(status)
		},
	}
	proxy.ServeHTTP(w, out)
	done = true
}

var errIdle = errors.New("no activity for 240 s")

// watchedBody tells of every read.
type watchedBody struct {
	io.ReadCloser
	touch func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.touch()
	}
	return n, err
}

// patientDial retries refused connections, as the host's proxy does.
func patientDial(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
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
