package customhandler

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBody holds the largest message of a standard Service Bus namespace
	// (256 KiB, a third more as base64) with its metadata.
	maxBody = 1 << 20
	// bodyTimeout bounds reading a body: who is slower than this is not the host.
	bodyTimeout = 30 * time.Second
)

// Address is where to listen: port is FUNCTIONS_CUSTOMHANDLER_PORT. The host
// only ever calls 127.0.0.1.
func Address(port string) (string, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", errors.New("FUNCTIONS_CUSTOMHANDLER_PORT is not a port: " +
			"the Functions host sets it when it starts the handler")
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
		Handler:           http.HandlerFunc(m.serveOwn),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    128 << 10, // App Service authentication adds long ones
		// net/http would write to stderr, where each line counts as an error.
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	}
}

// serveOwn refuses what is for another host than this app.
func (m *Mux) serveOwn(w http.ResponseWriter, r *http.Request) {
	if !m.isOwn(r) {
		m.log.DebugContext(r.Context(), "request for another host than this app")
		limitBody(w, r) // net/http reads it to its end
		problem(w, http.StatusMisdirectedRequest, "the request is for another host than this app")
		return
	}
	m.ServeHTTP(w, r)
}

// isOwn reports whether a request is for this app by its Host: the handler's own address,
// by which the Functions host calls it, or one of the app's names. A page in the browser of
// somebody on this machine can have the port called by another name, without a key.
func (m *Mux) isOwn(r *http.Request) bool {
	if isLoopback(r) {
		return true
	}
	host := plainHost(r.Host)
	return slices.ContainsFunc(m.hosts, func(name string) bool { return plainHost(name) == host })
}

// isLoopback takes an address and no name: a name's owner says what it stands for.
func isLoopback(r *http.Request) bool {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, "80"
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil || !ip.IsLoopback() {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || port == strconv.Itoa(local.Port)
}

// plainHost is a host without what makes no difference.
func plainHost(host string) string {
	host = strings.ToLower(host)
	if h, port, err := net.SplitHostPort(host); err == nil && (port == "443" || port == "80") {
		host = h
	}
	return strings.TrimSuffix(host, ".")
}

// limitBody bounds a request's body in size and time.
func limitBody(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
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
