package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/sandbox/devca"
)

const (
	tenant   = "2f2f2f2f-0000-4000-a000-000000000001"
	redirect = "https://patrol.example/api/signin/callback"
	bot      = "build-bot@contoso.com"

	publicClient       = "patrol-public"
	confidentialClient = "patrol-confidential"
)

// authority is oidc-provider behind a TLS proxy.
type authority struct {
	host  string // https://127.0.0.1:port, as AZURE_AUTHORITY_HOST has it
	tls   *devca.CA
	cert  *x509.Certificate // of the confidential client
	key   *rsa.PrivateKey
	front *http.Server
	node  *exec.Cmd
	stdin io.Closer
	said  *tail
}

// issuer is where oidc-provider is mounted.
func (a *authority) issuer() string { return a.host + "/" + tenant + "/v2.0" }

// start runs the authority. Its port is drawn by the system, and the issuer has
// to be known before: the proxy listens first.
func start(ctx context.Context, dir string) (_ *authority, err error) {
	a := &authority{said: &tail{}}
	a.tls, err = devca.New()
	if err != nil {
		return nil, err
	}
	a.key, a.cert, err = certificate()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	a.host = "https://" + l.Addr().String()
	settings, err := json.Marshal(map[string]any{
		"issuer": a.issuer(), "tenant": tenant, "cookieKey": rand.Text(),
		"scopes":  []string{entra.DevOps + "/vso.pats", entra.DevOps + "/vso.pats_manage"},
		"clients": a.clients(),
	})
	if err != nil {
		return nil, err
	}
	a.node = exec.Command("node", "authority.mjs")
	a.node.Dir, a.node.Stderr = dir, a.said
	a.node.Env = append(a.node.Environ(), "AUTHORITY="+string(settings))
	a.stdin, err = a.node.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := a.node.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := a.node.Start(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("starting node: %w", err)
	}
	defer func() {
		if err != nil {
			a.close()
			err = fmt.Errorf("%w; it said:\n%s", err, a.words())
		}
	}()
	lines := bufio.NewReader(stdout)
	port, err := firstLine(ctx, lines)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	go func() { _, _ = io.Copy(a.said, lines) }()
	behind := &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.Out.Host = r.In.Host
		r.SetXForwarded()
	}}
	a.front = &http.Server{TLSConfig: a.tls.TLSConfig(), ReadHeaderTimeout: 10 * time.Second, Handler: proxy}
	go func() { _ = a.front.ServeTLS(l, "", "") }()
	return a, nil
}

// firstLine is the port, once the server listens.
func firstLine(ctx context.Context, r *bufio.Reader) (string, error) {
	type line struct {
		text string
		err  error
	}
	got := make(chan line, 1)
	go func() {
		text, err := r.ReadString('\n')
		got <- line{strings.TrimSpace(text), err}
	}()
	select {
	case l := <-got:
		if l.err != nil {
			return "", errors.New("the authority has ended at its start")
		}
		return l.text, nil
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the authority: %w", ctx.Err())
	}
}

func (a *authority) close() {
	_ = a.stdin.Close() // it ends with its input
	done := make(chan struct{})
	go func() { _ = a.node.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = a.node.Process.Kill()
		<-done
	}
	if a.front != nil {
		_ = a.front.Close()
	}
}

// clients are the app registrations.
func (a *authority) clients() []map[string]any {
	client := func(more map[string]any) map[string]any {
		c := map[string]any{
			"redirect_uris": []string{redirect}, "response_types": []string{"code"},
			"grant_types": []string{"authorization_code", "refresh_token"},
		}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	number := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	return []map[string]any{
		client(map[string]any{"client_id": publicClient, "token_endpoint_auth_method": "none"}),
		client(map[string]any{"client_id": confidentialClient, "token_endpoint_auth_method": "private_key_jwt",
			"jwks": map[string]any{"keys": []any{map[string]any{
				"kty": "RSA", "use": "sig", "n": number(a.key.N), "e": number(big.NewInt(int64(a.key.E)))}}}}),
	}
}

func certificate() (*rsa.PrivateKey, *x509.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("making the app's key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "patrol"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the app's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(raw)
	return key, cert, err
}

// words are the last that the authority has said.
func (a *authority) words() string { return a.said.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
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
