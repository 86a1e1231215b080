package cloud

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/devca"
	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

// service is one listener of the cloud.
type service struct {
	name    string // host name on a memnet.Network
	genuine string // the name in Azure
	port    string
	plain   bool   // http, not https
	path    string // of its public URL
	fixed   func(Ports) int
}

var (
	serviceEntra = service{name: "login.localhost", genuine: "login.microsoftonline.com", port: "443",
		fixed: func(p Ports) int { return p.Entra }}
	serviceDevOps = service{name: "devops.localhost", genuine: "dev.azure.com", port: "443",
		fixed: func(p Ports) int { return p.DevOps }}
	serviceVSSPS = service{name: "vssps.localhost", genuine: "vssps.dev.azure.com", port: "443",
		fixed: func(p Ports) int { return p.VSSPS }}
	serviceVault = service{name: "patrol-test.vault.localhost", genuine: "patrol-test.vault.azure.net", port: "443",
		fixed: func(p Ports) int { return p.Vault }}
	serviceBus = service{name: "servicebus.localhost", genuine: "patrol-test.servicebus.windows.net", port: "5671",
		fixed: func(p Ports) int { return p.ServiceBus }}
	serviceBlobs = service{name: "patroltest.blob.localhost", genuine: "patroltest.blob.core.windows.net", port: "443",
		fixed: func(p Ports) int { return p.Blobs }}
	// App Service gives each worker an endpoint on its own loopback.
	serviceIdentity = service{name: "identity.localhost", port: "80", plain: true, path: "/msi/token",
		fixed: func(p Ports) int { return p.Identity }}
	serviceControl = service{name: "control.localhost", port: "80", plain: true,
		fixed: func(p Ports) int { return p.Control }}
)

// network is where the services listen.
type network interface {
	// listen opens a service's listener, with TLS where the service has it.
	listen(s service) (net.Listener, error)
	// base is the public URL of a service's listener.
	base(s service, l net.Listener) string
	// namespace is the name of Service Bus in the app's settings, and the address
	// at which its listener is dialed.
	namespace(s service, l net.Listener) (name, address string)
	// webSockets gives, for the listener of Service Bus, where AMQP comes in and where
	// AMQP over web sockets does.
	webSockets(l net.Listener) (amqp, web net.Listener, err error)
	// transport reaches the services as a client.
	transport() *http.Transport
	// dial reaches a service below TLS.
	dial(ctx context.Context, network, address string) (net.Conn, error)
}

// loopback listens on 127.0.0.1.
type loopback struct {
	ports Ports
	ca    *devca.CA
}

func (n *loopback) listen(s service) (net.Listener, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.fixed(n.ports)))
	if err != nil {
		return nil, fmt.Errorf("cloud: listening for %s: %w", s.name, err)
	}
	if !s.plain {
		l = tls.NewListener(l, n.ca.TLSConfig())
	}
	return l, nil
}

func (n *loopback) base(s service, l net.Listener) string {
	if s.plain {
		return "http://" + l.Addr().String() + s.path
	}
	return "https://" + l.Addr().String() + s.path
}

// A name in front of the port, so that the certificate's name is one without it.
func (n *loopback) namespace(s service, l net.Listener) (name, address string) {
	address = l.Addr().String()
	if s.plain {
		return address, address
	}
	_, port, _ := net.SplitHostPort(address) // of a TCP listener
	return "localhost:" + port, address
}

// One port is both, so that the app's settings name one address.
func (n *loopback) webSockets(l net.Listener) (amqp, web net.Listener, err error) {
	amqp, web = servicebus.Split(l)
	return amqp, web, nil
}

func (n *loopback) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: n.ca.ClientTLSConfig(), DialContext: n.dial, MaxIdleConnsPerHost: 64,
		IdleConnTimeout: time.Minute}
}

func (n *loopback) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// pipes listens on a memnet.Network, under host names and without TLS.
type pipes struct {
	network *memnet.Network
	genuine bool
}

func (n *pipes) host(s service) string {
	if n.genuine && s.genuine != "" {
		return s.genuine
	}
	return s.name
}

func (n *pipes) listen(s service) (net.Listener, error) {
	l, err := n.network.Listen(n.host(s) + ":" + s.port)
	if err != nil {
		return nil, fmt.Errorf("cloud: %w", err)
	}
	return l, nil
}

func (n *pipes) base(s service, _ net.Listener) string {
	if s.plain {
		return "http://" + n.host(s) + s.path
	}
	return "https://" + n.host(s) + s.path
}

func (n *pipes) namespace(s service, _ net.Listener) (name, address string) {
	address = n.host(s) + ":" + s.port
	if n.genuine {
		return n.host(s), address
	}
	return address, address
}

func (n *pipes) webSockets(l net.Listener) (amqp, web net.Listener, err error) {
	web, err = n.network.Listen(n.host(serviceBus) + ":443")
	if err != nil {
		return nil, nil, fmt.Errorf("cloud: %w", err)
	}
	return l, web, nil
}

func (n *pipes) transport() *http.Transport { return n.network.Transport() }

func (n *pipes) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.network.Dial(ctx, network, address)
}

// serve starts an HTTP service and returns its public URL.
func (c *Cloud) serve(s service, h http.Handler) (string, error) {
	l, err := c.net.listen(s)
	if err != nil {
		return "", err
	}
	// an aborted handler is a fault that a test has injected
	server := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) }) // ends with Close
	c.closers = append(c.closers, func() {
		_ = server.Close()
		done.Wait()
	})
	return c.net.base(s, l), nil
}

// lateHandler is a handler whose address must be known before it can be made.
type lateHandler struct {
	mu sync.Mutex
	h  http.Handler
}

func (l *lateHandler) set(h http.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h = h
}

func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	h := l.h
	l.mu.Unlock()
	if h == nil {
		http.Error(w, "the service is starting", http.StatusServiceUnavailable)
		return
	}
	h.ServeHTTP(w, r)
}

// Transport reaches the cloud as a client: in process, over its network. Close
// its idle connections when done.
func (c *Cloud) Transport() *http.Transport { return c.net.transport() }

// Dial reaches a listener of the cloud by its host and port, below TLS.
func (c *Cloud) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return c.net.dial(ctx, network, address)
}
