// Command sandbox is a local Azure with the packaged app on it: Entra, Azure
// DevOps, Key Vault, managed identity, Service Bus and a Functions host, on
// loopback. It shows a small organization whose PATs live for moments, and prints
// in plain words what happens to them.
//
// It drives the app as anybody else would: over HTTP with a key, and as a
// subscriber of its events.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// options are the flags.
type options struct {
	app, manifest string
	port          int
	control       string
	ports         int
	entities      string
	consumer      string
	verbose       bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := start(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

// start reads the flags and runs until ctx ends.
func start(ctx context.Context, args []string, out *os.File) error {
	var o options
	f := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	f.StringVar(&o.app, "app", "dist/app", "the packaged app")
	f.StringVar(&o.manifest, "manifest", "",
		"a `file` of your own instead of the demonstration's pats.yaml; "+
			"its PATs must belong to the organization contoso")
	f.IntVar(&o.port, "port", 7071, "where the Functions host listens")
	f.StringVar(&o.control, "control", "127.0.0.1:0",
		"the loopback `address` of the control API (call counters, faults); port 0 draws a free one")
	f.IntVar(&o.ports, "ports", 0,
		"the first of eight `ports` for the services of the cloud, then the same in every run; 0 draws free ones")
	f.StringVar(&o.entities, "entities", "",
		"a `file` with further queues, topics and subscriptions, in the form of the Service Bus emulator's")
	f.StringVar(&o.consumer, "consumer", "",
		"a `command` to run beside, with what a consumer needs in its environment; what it prints is shown")
	f.BoolVar(&o.verbose, "v", false, "print the logs of host and handler too")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if err := checkPackaged(o.app); err != nil {
		return err
	}
	log, closeLog, err := openLog(o, out)
	if err != nil {
		return err
	}
	defer closeLog()
	return run(ctx, o, newConsole(out, wantsColours(out)), log)
}

// checkPackaged makes sure that there is an app to run.
func checkPackaged(dir string) error {
	for _, name := range []string{"host.json", "handler"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("there is no packaged app in %s: run make package first, or name it with -app", dir)
		}
	}
	return nil
}

// wantsColours reports whether the output is a terminal that may be coloured.
func wantsColours(out *os.File) bool {
	info, err := out.Stat()
	_, plain := os.LookupEnv("NO_COLOR")
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && !plain && os.Getenv("TERM") != "dumb"
}

// openLog opens where logs go: to the output with -v, else into a file beside the
// packaged app.
func openLog(o options, out io.Writer) (io.Writer, func(), error) {
	if o.verbose {
		return out, func() {}, nil
	}
	f, err := os.Create(filepath.Join(filepath.Dir(filepath.Clean(o.app)), logName))
	if err != nil {
		return nil, nil, fmt.Errorf("opening the log: %w", err)
	}
	return f, func() { _ = f.Close() }, nil
}

const logName = "sandbox.log"
