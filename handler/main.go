// Command handler is patrol's custom handler: the process that the Azure Functions
// host starts and sends its invocations to. With arguments it is a tool for
// operators; "handler help" lists them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/azure-patrol/patrol/internal/app"
)

// These are set by the linker: which state of the project this is, and what the program
// is called: handler in the app, patrol on the machines of operators.
var (
	version = "dev"
	commit  = ""
	program = "handler"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := app.Main(ctx, os.Args[1:], app.Process{Getenv: app.Environment(os.Environ()), In: os.Stdin, Out: os.Stdout,
		Err: os.Stderr, Version: version, Commit: commit, Program: program})
	stop()
	os.Exit(code)
}
