package devca_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/sandbox/devca"
)

func serve(t *testing.T, c *devca.CA) (port string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "trusted")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func get(pool *x509.CertPool, url string) (string, error) {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestServerIsTrustedByPoolUnderLoopbackNamesOnly(t *testing.T) {
	t.Parallel()
	c, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	port := serve(t, c)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		if body, err := get(c.Pool(), "https://"+host+":"+port); err != nil || body != "trusted" {
			t.Errorf("GET over %s = %q, %v; want it trusted", host, body, err)
		}
	}
	other, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(other.Pool(), "https://127.0.0.1:"+port); err == nil {
		t.Error("another authority's pool trusts the server; want it refused")
	}
	conf := c.ClientTLSConfig()
	conf.ServerName = "vault.example.com"
	if conn, err := tls.Dial("tcp", "127.0.0.1:"+port, conf); err == nil {
		_ = conn.Close()
		t.Error("the server passes as vault.example.com; want it refused")
	}
}

// TestSSLCertFileOfAnotherProcess asks the same test binary, started afresh
// with SSL_CERT_FILE set, for the page.
func TestSSLCertFileOfAnotherProcess(t *testing.T) {
	if url := os.Getenv("CA_TEST_GET"); url != "" {
		body, err := get(nil, url)
		if err != nil || body != "trusted" {
			t.Fatalf("GET = %q, %v", body, err)
		}
		return
	}
	t.Parallel()
	c, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := c.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	pemBytes, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(pemBytes), "PRIVATE KEY") {
		t.Fatalf("the file holds a private key (or cannot be read: %v)", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSSLCertFileOfAnotherProcess$")
	cmd.Env = append(os.Environ(), "CA_TEST_GET=https://127.0.0.1:"+serve(t, c), "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+
		t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the other process: %v\n%s", err, out)
	}
}
