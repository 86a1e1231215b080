// Command servicebus runs the live tests that the Service Bus SDK for Go brings
// along against the sandbox's Service Bus, and reports which pass.
//
// The tests are taken from the module cache at run time and run unchanged but
// for their credential; none of them is part of this project. The SDK fixes the
// ports: 5671 for AMQP over TLS and 443 for the administration and web sockets.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

// minPassed is how many live tests must pass.
const minPassed = 70

func run(ctx context.Context, out io.Writer) error {
	scratch, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return fmt.Errorf("making the scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	ns, err := open(filepath.Join(scratch, "ca.pem"))
	if err != nil {
		return err
	}
	defer ns.close()
	suite, err := prepare(ctx, filepath.Join(scratch, "suite"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "azservicebus %s: looking for its live tests\n", suite.version)
	recorded, err := suite.test(ctx, []string{"AZURE_RECORD_MODE=playback"})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "running them against the sandbox")
	live, err := suite.test(ctx, ns.environment())
	if err != nil {
		return err
	}
	r := judge(recorded, live)
	r.write(out)
	if len(r.passed) < minPassed {
		return fmt.Errorf("%d live tests pass, at least %d must", len(r.passed), minPassed)
	}
	if len(r.failed) > 0 {
		return errors.New("live tests fail that are known to pass")
	}
	return nil
}
