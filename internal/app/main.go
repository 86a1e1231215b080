package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/telemetry"
)

// grace is how long invocations under way may go on after a signal to stop. The
// Functions host itself sends none, it kills; a terminal and a container do.
const grace = 10 * time.Second

// Run serves the Functions host until ctx ends, then finishes what is under way. It
// reads the environment by getenv and logs to out.
func Run(ctx context.Context, getenv func(string) string, out io.Writer, version string) error {
	settings, settingsErr := ReadSettings(getenv)
	log := customhandler.NewLog(out, settings.LogLevel)
	slog.SetDefault(log)
	address, err := customhandler.Address(getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if err != nil {
		return err
	}
	telemetry.TakeErrors(log, time.Now)
	a := New(settings, settingsErr, Outside{Log: log, Version: version})
	server := a.Server(address)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for the Functions host: %w", err)
	}
	log.Info("patrol is ready", "version", version)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err = server.Shutdown(stop)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, a.Close(closing))
}
