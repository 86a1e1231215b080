package servicebus

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"
)

// webSocketPath is where a namespace speaks AMQP over web sockets.
const webSocketPath = "/$servicebus/websocket"

// subprotocols are those that a client may ask for there: the standard's, and the older
// one of Microsoft's library in C, which Python's SDK uses up to 7.9.
var subprotocols = []string{"amqp", "AMQPWSB10"}

// ServeHTTP is the namespace's port 443, as far as it is AMQP over web sockets.
func (b *Bus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.TrimSuffix(r.URL.Path, "/") != webSocketPath { // Python's SDK adds a slash
		http.Error(w, "the sandbox's namespace has AMQP over web sockets here, and nothing else", http.StatusNotFound)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: subprotocols})
	if err != nil {
		return // it has answered
	}
	if c.Subprotocol() == "" {
		_ = c.Close(websocket.StatusPolicyViolation, "the subprotocol must be "+subprotocols[0])
		return
	}
	b.ServeConn(websocket.NetConn(context.WithoutCancel(r.Context()), c, websocket.MessageBinary))
}

// Split gives two listeners out of one: for connections that begin with AMQP's own header,
// and for those that begin with an HTTP request. A sandbox on loopback has one port for a
// namespace's 5671 and 443.
func Split(l net.Listener) (amqp, web net.Listener) {
	a, h := newBranch(l), newBranch(l)
	go func() {
		defer a.end()
		defer h.end()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				first := make([]byte, 1)
				n, err := c.Read(first)
				if err != nil || n == 0 {
					_ = c.Close()
					return
				}
				to := h
				if first[0] == 'A' { // "AMQP"; a request begins with GET
					to = a
				}
				to.give(&begun{Conn: c, first: first})
			}()
		}
	}()
	return a, h
}

// branch is one of the two.
type branch struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newBranch(l net.Listener) *branch {
	return &branch{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (b *branch) end() { b.once.Do(func() { close(b.done) }) }

func (b *branch) give(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.done:
		_ = c.Close()
	}
}

// Accept gives the next connection of this branch.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// begun is a connection whose first byte has been read.
type begun struct {
	net.Conn
	first []byte
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}
