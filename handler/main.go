// Command handler is patrol's custom handler: the process that the Azure Functions
// host starts and sends its invocations to.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/azure-patrol/patrol/internal/app"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := app.Run(ctx, os.Getenv, os.Stdout, version)
	stop()
	if err != nil {
		fmt.Println("handler:", err)
		os.Exit(1)
	}
}
