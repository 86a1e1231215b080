// Command blob runs the store of patrol's state, and the requests below it, against two
// storage accounts: the sandbox's, and Azurite, Microsoft's emulator for Node. It is a
// second opinion on ETags, conditions, lists and error codes, by one list of checks.
//
// Azurite comes from npm, by the lock file beside this program, into the user's cache
// folder, and runs on loopback, in memory. It takes a bearer token over TLS only, and
// looks at its claims, not at its signature: the tokens are those that the sandbox's
// Entra gives to a managed identity. Its check of the API's version is off, since the
// SDK is newer than it is.
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

//go:embed azurite
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
	dir, err := npm.Install(ctx, out, files, "azurite")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	local, err := startSandbox()
	if err != nil {
		return err
	}
	defer local.close()
	emulator, err := startAzurite(ctx, dir)
	if err != nil {
		return err
	}
	defer emulator.close()
	failed := 0
	for _, s := range []*server{local, emulator} {
		for i, c := range checks() {
			if err := s.check(ctx, i, c); err != nil {
				failed++
				fmt.Fprintf(out, "FAIL %s (%s): %v\n", c.name, s.name, err)
				continue
			}
			fmt.Fprintf(out, "ok   %s (%s)\n", c.name, s.name)
		}
	}
	all := 2 * len(checks())
	fmt.Fprintf(out, "\n%d of %d pass\n", all-failed, all)
	if failed > 0 {
		return fmt.Errorf("%d checks fail; Azurite's last words:\n%s", failed, emulator.words())
	}
	return nil
}
