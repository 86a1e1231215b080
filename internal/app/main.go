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

// grace is how long invocations under way may go on after a signal to stop: as long as
// an invocation may take. The Functions host itself sends none, it kills; a terminal, a
// container and whoever looks for trouble in it do.
const grace = 4 * time.Minute

// errAsked is how Run ends when a signal has asked for it.
var errAsked = errors.New("asked to end")

// Run serves the Functions host until ctx ends, then takes nothing new, finishes what is
// under way and gives errAsked. It reads the environment by getenv and logs to out.
func Run(ctx context.Context, getenv func(string) string, out io.Writer, version, commit string) error {
	settings, settingsErr := ReadSettings(getenv)
	log := customhandler.NewLog(out, settings.LogLevel)
	slog.SetDefault(log)
	address, err := customhandler.Address(getenv("FUNCTIONS_CUSTOMHANDLER_PORT"))
	if err != nil {
		return err
	}
	telemetry.TakeErrors(log, time.Now)
	a := New(settings, settingsErr, Outside{Log: log, Version: version, Commit: commit})
	server := a.Server(address)
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if ctx.Err() != nil {
		return errAsked
	}
	if err != nil {
		return fmt.Errorf("listening for the Functions host: %w", err)
	}
	log.Info("patrol is ready", "version", version, "commit", commit)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("patrol is asked to end: it finishes what runs")
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		err = server.Shutdown(stop)
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err = errors.Join(err, a.Close(closing))
	if ctx.Err() == nil {
		return err
	}
	if err != nil {
		log.Warn("patrol has not finished everything before its end", "error", err.Error())
	}
	return errAsked
}
