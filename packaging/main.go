// Command packaging assembles the deployable app: the folder dist/app, as the
// Functions host wants to find it, and the same as dist/app.zip. With -tools it also
// builds the program for the machines of operators. From one commit,
// one version of Go and one set of tags it makes the same bytes each time.
//
// It knows file names only, and nothing of what the functions do. The settings
// of a local run (local.settings.json) never enter the app.
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("o", "dist", "`folder` for app and app.zip")
	root := flags.String("root", ".", "`folder` of the project")
	handler := flags.String("handler", "./handler", "`package` of the handler, seen from the root")
	tools := flags.Bool("tools", false, "also the tool patrol, for the machines of operators")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	rev := revisionOf(ctx, *root)
	app, archive := filepath.Join(*out, "app"), filepath.Join(*out, "app.zip")
	if err := assemble(*root, app); err != nil {
		return fmt.Errorf("assembling %s: %w", app, err)
	}
	if err := compile(ctx, *root, *handler, filepath.Join(app, handlerName), rev, worker, stderr); err != nil {
		return fmt.Errorf("building the handler: %w", err)
	}
	if err := compress(app, archive, rev.date); err != nil {
		return fmt.Errorf("writing %s: %w", archive, err)
	}
	if err := writeVersion(filepath.Join(*out, "version.json"), rev); err != nil {
		return fmt.Errorf("writing the version: %w", err)
	}
	if *tools {
		for _, p := range operators {
			if err := compile(ctx, *root, *handler, filepath.Join(*out, p.file()), rev, p, stderr); err != nil {
				return fmt.Errorf("building the tool for %s/%s: %w", p.os, p.arch, err)
			}
		}
	}
	_, err := fmt.Fprintf(stdout, "packaged %s and %s, version %s\n", app, archive, rev.version)
	return err
}
