package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/azure-patrol/patrol/sandbox/devca"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
	"github.com/azure-patrol/patrol/tests/conformance/servicebus/atom"
)

// The keys of a namespace that lives as long as the run and hears loopback only.
const (
	manageKey = "bWFuYWdlLWtleS1vZi10aGUtY29uZm9ybWFuY2UtcnVu"
	sendKey   = "c2VuZC1rZXktb2YtdGhlLWNvbmZvcm1hbmNlLXJ1bg=="
	listenKey = "bGlzdGVuLWtleS1vZi10aGUtY29uZm9ybWFuY2UtcnVu"
)

// fakeToken is what the SDK's fake credential gives.
const fakeToken = "Sanitized"

// namespace is the Service Bus that the tests use.
type namespace struct {
	bus     *servicebus.Bus
	admin   *http.Server
	serving sync.WaitGroup
	caFile  string
}

// open starts the namespace on the ports that the SDK fixes.
func open(caFile string) (*namespace, error) {
	authority, err := devca.New()
	if err != nil {
		return nil, err
	}
	if err := authority.WriteFile(caFile); err != nil {
		return nil, err
	}
	amqp, err := listen("127.0.0.1:5671", authority.TLSConfig())
	if err != nil {
		return nil, err
	}
	config := authority.TLSConfig()
	config.NextProtos = []string{"http/1.1"} // web sockets need it
	https, err := listen("127.0.0.1:443", config)
	if err != nil {
		return nil, errors.Join(err, amqp.Close())
	}
	b, err := servicebus.New(servicebus.Config{
		Entities: broker.Entities{Queues: []broker.Queue{
			{Name: "testQueue"}, {Name: "testQueueWithSessions", Properties: broker.Properties{RequiresSession: true}},
		}},
		KeyName: "manage", Key: manageKey,
		Keys: []servicebus.Key{
			{Name: "send", Key: sendKey, Send: true}, {Name: "listen", Key: listenKey, Listen: true},
			{Name: "use", Key: sendKey, Send: true, Listen: true},
		},
		VerifyJWT: func(token, _ string) error {
			if token != fakeToken {
				return errors.New("this is not the fake credential's token")
			}
			return nil
		},
	})
	if err != nil {
		return nil, errors.Join(err, amqp.Close(), https.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/", atom.New(b))
	mux.HandleFunc("/$servicebus/websocket", func(w http.ResponseWriter, r *http.Request) { serveSocket(b, w, r) })
	n := &namespace{bus: b, caFile: caFile, admin: &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}}
	n.serving.Go(func() { _ = b.Serve(amqp) })
	n.serving.Go(func() { _ = n.admin.Serve(https) })
	return n, nil
}

func listen(address string, config *tls.Config) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("the SDK's live tests need %s (ports below 1024 need root; "+
			"another program may hold the port): %w", address, err)
	}
	return tls.NewListener(l, config), nil
}

// serveSocket answers AMQP in a web socket.
func serveSocket(b *servicebus.Bus, w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"amqp"}})
	if err != nil {
		return // it has answered
	}
	if ws.Subprotocol() != "amqp" {
		_ = ws.Close(websocket.StatusPolicyViolation, "the sub-protocol is amqp")
		return
	}
	ws.SetReadLimit(1 << 20)
	// The connection ends with the bus, not with the request.
	b.ServeConn(websocket.NetConn(context.WithoutCancel(r.Context()), ws, websocket.MessageBinary))
}

func (n *namespace) close() {
	n.bus.Close()
	_ = n.admin.Close()
	n.serving.Wait()
}

// environment is what the live tests read.
func (n *namespace) environment() []string {
	with := func(name, key string) string {
		return "Endpoint=sb://localhost/;SharedAccessKeyName=" + name + ";SharedAccessKey=" + key
	}
	return strings.Split(strings.Join([]string{
		"AZURE_RECORD_MODE=live",
		"SSL_CERT_FILE=" + n.caFile,
		"SERVICEBUS_ENDPOINT=localhost",
		"SERVICEBUS_ENDPOINT_PREMIUM=localhost",
		"SERVICEBUS_CONNECTION_STRING=" + with("manage", manageKey),
		"SERVICEBUS_CONNECTION_STRING_PREMIUM=" + with("manage", manageKey),
		"SERVICEBUS_CONNECTION_STRING_NO_MANAGE=" + with("use", sendKey),
		"SERVICEBUS_CONNECTION_STRING_SEND_ONLY=" + with("send", sendKey),
		"SERVICEBUS_CONNECTION_STRING_LISTEN_ONLY=" + with("listen", listenKey),
	}, "\n"), "\n")
}
