package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/blob"
	"github.com/azure-patrol/patrol/sandbox/devca"
	"github.com/azure-patrol/patrol/sandbox/entra"
)

// host is the account's name as both servers are asked by. Nobody resolves it: the
// transport dials the server's port.
const host = "patroltest.blob.localhost"

// server is a storage account, and who gives tokens for it.
type server struct {
	name      string
	entra     *entra.Server
	transport *http.Transport
	closers   []func()
	said      *tail
}

const identity = "00000000-0000-4000-a000-000000000007"

func newServer(name string) *server {
	s := &server{name: name, entra: entra.New(entra.Config{}), said: &tail{}}
	s.entra.AddIdentity(entra.ManagedIdentity{ClientID: identity})
	return s
}

// connect makes the transport to a port of loopback.
func (s *server) connect(ca *devca.CA, address string) {
	client := ca.ClientTLSConfig()
	client.ServerName = "localhost"
	s.transport = &http.Transport{TLSClientConfig: client,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}}
	s.closers = append(s.closers, s.transport.CloseIdleConnections)
}

func (s *server) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// words are the last that the server has said.
func (s *server) words() string { return s.said.String() }

// startSandbox runs the sandbox's account.
func startSandbox() (*server, error) {
	s := newServer("sandbox")
	ca, err := devca.New()
	if err != nil {
		return nil, err
	}
	account, err := blob.New(blob.Config{URL: "https://" + host, Authority: entra.DefaultAuthority,
		Tenant: s.entra.Tenant(), Verify: s.verify})
	if err != nil {
		return nil, err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.TLSConfig())
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	front := &http.Server{Handler: account, ErrorLog: log.New(s.said, "", 0), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = front.Serve(l) }()
	s.closers = append(s.closers, func() { _ = front.Close() })
	s.connect(ca, l.Addr().String())
	return s, nil
}

func (s *server) verify(token string) error {
	claims, err := s.entra.VerifyAccessToken(token)
	if err == nil && claims.Audience != audience {
		return errors.New("the token is for another resource")
	}
	return err
}

var listens = regexp.MustCompile(`successfully listens on https://(127\.0\.0\.1:[0-9]+)\s`)

// startAzurite runs Azurite on a port that the system draws.
func startAzurite(ctx context.Context, dir string) (_ *server, err error) {
	s := newServer("Azurite")
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("%w; it said:\n%s", err, s.words())
		}
	}()
	ca, err := devca.New()
	if err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp("", "patrol-azurite-")
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() { _ = os.RemoveAll(own) })
	cert, key, err := writeCertificate(ca, own)
	if err != nil {
		return nil, err
	}
	node := exec.Command("node", filepath.Join(dir, "node_modules", "azurite", "dist", "src", "blob", "main.js"),
		"--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--oauth", "basic", "--cert", cert,
		"--key", key, "--skipApiVersionCheck", "--disableTelemetry", "--silent")
	s.said.found = make(chan string, 1)
	node.Dir, node.Stdout, node.Stderr = own, s.said, s.said
	// The account must have a key, which nobody uses.
	account := "patroltest:" + base64.StdEncoding.EncodeToString([]byte("not used"))
	node.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+account)
	if err := node.Start(); err != nil {
		return nil, fmt.Errorf("starting node: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = node.Wait(); close(ended) }()
	s.closers = append(s.closers, func() { _ = node.Process.Kill(); <-ended })
	select {
	case address := <-s.said.found:
		s.connect(ca, address)
		return s, nil
	case <-ended:
		return nil, errors.New("azurite has ended at its start")
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for Azurite: %w", ctx.Err())
	}
}

// writeCertificate writes what Azurite serves TLS by.
func writeCertificate(ca *devca.CA, dir string) (cert, key string, err error) {
	leaf := ca.TLSConfig().Certificates[0]
	var chain bytes.Buffer
	for _, der := range leaf.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return "", "", err
		}
	}
	private, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return "", "", fmt.Errorf("writing the key: %w", err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(cert, chain.Bytes(), 0o600); err != nil {
		return "", "", err
	}
	return cert, key, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// tail keeps the end of what is written to it, and finds the address in it.
type tail struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	found chan string // nil: nobody waits
}

var _ io.Writer = (*tail)(nil)

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if m := listens.FindSubmatch(t.buf.Bytes()); m != nil && t.found != nil {
		t.found <- string(m[1])
		t.found = nil
	}
	if n := t.buf.Len() - tailSize; n > 0 {
		t.buf.Next(n)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
