// Command entra runs patrol's sign-in client against an authority that
// this project has not written: oidc-provider, a certified OpenID Connect
// server for Node. It is a second opinion on the authorization code flow with
// PKCE, the app's certificate, strict refresh token rotation and revocation;
// Entra's own error codes are the sandbox's matter.
//
// oidc-provider comes from npm, by the lock file beside this program, into the
// user's cache folder, and runs on loopback. MSAL finds an authority at
// https://host/<tenant>, expects its discovery document under /v2.0 below
// that, and wants an issuer of the same host; hence a TLS proxy in this program
// stands in front, and the server is mounted under /<tenant>/v2.0. Instance
// discovery is off.
package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/azure-patrol/patrol/tests/conformance/npm"
)

//go:embed authority
var files embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

// limit is for everything but the installation.
const limit = 2 * time.Minute

func run(ctx context.Context, out io.Writer) error {
	dir, err := npm.Install(ctx, out, files, "authority")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer a.close()
	all := checks() // all at once: each has a vault and a browser of its own
	outcomes := make([]chan error, len(all))
	for i, c := range all {
		outcomes[i] = make(chan error, 1)
		go func() { outcomes[i] <- a.check(ctx, c) }()
	}
	failed := 0
	for i, c := range all {
		if err := <-outcomes[i]; err != nil {
			failed++
			fmt.Fprintf(out, "FAIL %s (%s): %v\n", c.name, c.client, err)
			continue
		}
		fmt.Fprintf(out, "ok   %s (%s)\n", c.name, c.client)
	}
	fmt.Fprintf(out, "\n%d of %d pass\n", len(all)-failed, len(all))
	if failed > 0 {
		return fmt.Errorf("%d checks fail; the authority's last words:\n%s", failed, a.words())
	}
	return nil
}
