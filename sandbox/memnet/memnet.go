// Package memnet is a network of in-memory connections: the sandbox's services
// listen on it and the real SDKs dial it, so that both run in one process, in
// testing/synctest bubbles too, where a socket would stop virtual time.
//
// It knows addresses and connections only.
package memnet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Network holds listeners by address, "host:port". The zero value is ready.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
}

// Listen takes an address of the network.
func (n *Network) Listen(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[string]*listener{}
	}
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listening on %s: address already in use", address)
	}
	l := &listener{net: n, address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dial connects to an address; without a listener there the connection is
// refused.
func (n *Network) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	return n.DialFrom(ctx, "pipe", address)
}

// DialFrom is Dial by somebody with a name: whoever listens sees it as the address that
// the connection came from.
func (n *Network) DialFrom(ctx context.Context, from, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "pipe", Addr: addr(address), Err: fmt.Errorf("connection refused")}
	if l == nil {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case l.conns <- named{server, addr(from)}:
		return client, nil
	case <-l.done:
	case <-ctx.Done():
		refused.Err = ctx.Err()
	}
	_ = client.Close()
	_ = server.Close()
	return nil, refused
}

// Transport is an HTTP transport over the network. An https URL is dialed as it
// is, without TLS: the SDKs look at the URL's scheme, and there is nobody on the
// way. Close its idle connections before a bubble ends.
func (n *Network) Transport() *http.Transport {
	return &http.Transport{
		DialContext:         n.Dial,
		DialTLSContext:      n.Dial,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     5 * time.Minute,
		DisableCompression:  true,
	}
}

type listener struct {
	net     *Network
	address string
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.net.mu.Lock()
		delete(l.net.listeners, l.address)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.address) }

// named is a connection that came from somebody.
type named struct {
	net.Conn
	from addr
}

func (n named) RemoteAddr() net.Addr { return n.from }

type addr string

func (addr) Network() string  { return "pipe" }
func (a addr) String() string { return string(a) }
