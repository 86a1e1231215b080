package functionshost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	pollInterval  = 25 * time.Millisecond
	crashChain    = 30 * time.Minute // a crash later than this after the last starts a new chain
	crashBudget   = 3
	restartCode   = 200 // the handler asks to be restarted
	disposeWait   = time.Second
	timeoutGrace  = 2 * time.Second
	stderrKept    = 3
	maxLineLength = 1 << 20
)

type workerState int

const (
	workerInitializing workerState = iota
	workerReady
	workerRestarting
)

// worker keeps the handler's process running.
type worker struct {
	launcher   Launcher
	spec       func() Spec // afresh for each process: the worker id is new
	ping       *http.Client
	url        string        // http://127.0.0.1:port
	initialize time.Duration // initializationTimeout
	pingLimit  time.Duration // of one readiness poll; 0: none
	errorsOnly bool
	log        *slog.Logger
	onLine     func(Line)
	endHost    func(error)
	// dropConnections closes pooled connections, whose process is gone.
	dropConnections func()

	mu         sync.Mutex
	state      workerState
	changed    chan struct{} // closed at every change of state
	generation int           // counts processes
	restarts   chan int      // generation to kill and start anew
	drain      chan struct{} // closed to ask for the end
	ended      chan struct{} // closed when run has returned
	crashes    int
	lastCrash  time.Time
}

func newWorker() *worker {
	return &worker{changed: make(chan struct{}), restarts: make(chan int), drain: make(chan struct{}),
		ended: make(chan struct{})}
}

func (w *worker) set(s workerState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != s {
		w.state = s
		close(w.changed)
		w.changed = make(chan struct{})
	}
}

// await waits for a ready handler and returns the number of its process.
func (w *worker) await(ctx context.Context) (generation int, err error) {
	limit := time.NewTimer(4 * w.initialize)
	defer limit.Stop()
	for {
		w.mu.Lock()
		state, changed, generation := w.state, w.changed, w.generation
		w.mu.Unlock()
		if state == workerReady {
			return generation, nil
		}
		select {
		case <-changed:
		case <-w.ended:
			return 0, ErrClosed
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-limit.C:
			w.endHost(ErrHandlerNeverReady)
			return 0, ErrHandlerNeverReady
		}
	}
}

// restart kills a process and starts the next, which no budget counts. It does
// nothing if that process is not the current one any more.
func (w *worker) restart(ctx context.Context, generation int) {
	select {
	case w.restarts <- generation:
	case <-w.ended:
	case <-ctx.Done():
	}
}

type ending int

const (
	endClosed  ending = iota // the host ends
	endRestart               // start anew, not counted
	endCrash                 // start anew, if the budget allows
	endNever                 // it could not be started
)

// run keeps the handler running until ctx ends.
func (w *worker) run(ctx context.Context) {
	defer close(w.ended)
	for {
		end, reason := w.life(ctx)
		switch end {
		case endClosed:
			return
		case endNever:
			// No error event, no further attempt: the first invocation waits in
			// vain and then ends the host.
			w.log.Error("the handler cannot be started", "error", reason)
			for {
				select {
				case <-w.restarts:
				case <-w.drain:
					return
				case <-ctx.Done():
					return
				}
			}
		case endCrash:
			now := time.Now()
			if now.Sub(w.lastCrash) > crashChain {
				w.crashes = 0
			}
			w.lastCrash = now
			w.crashes++
			w.log.Error("the handler failed", "reason", reason, "failures", w.crashes)
			if w.crashes >= crashBudget {
				w.log.Error("Exceeded http worker restart retry count. Shutting down Functions Host")
				w.endHost(ErrRestartBudget)
				<-ctx.Done()
				return
			}
		case endRestart:
			w.log.Info("restarting the handler", "reason", reason)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

type exitStatus struct {
	code int
	err  error
}

// life is that of one process, from its start to its end.
func (w *worker) life(ctx context.Context) (ending, error) {
	p, err := w.launcher.Start(ctx, w.spec())
	if err != nil {
		return endNever, err
	}
	w.mu.Lock()
	w.generation++
	generation := w.generation
	w.mu.Unlock()

	var pumps sync.WaitGroup
	var last lastLines
	pumps.Go(func() { w.pump("stdout", p.Stdout(), nil) })
	pumps.Go(func() { w.pump("stderr", p.Stderr(), &last) })
	exit := make(chan exitStatus, 1)
	go func() {
		code, err := p.Wait()
		pumps.Wait() // its last words belong to the report of its end
		exit <- exitStatus{code, err}
	}()

	pollCtx, stopPolling := context.WithCancel(ctx)
	ready := make(chan error, 1)
	go func() { ready <- w.poll(pollCtx) }()

	exited := false
	finish := func(end ending, reason error) (ending, error) {
		w.set(workerRestarting)
		if !exited {
			_ = p.Kill()
			dispose := time.NewTimer(disposeWait)
			select {
			case <-exit:
			case <-dispose.C:
				w.log.Warn("the handler did not end within a second of being killed")
			}
			dispose.Stop()
		}
		stopPolling()
		if ready != nil {
			<-ready
		}
		w.dropConnections()
		return end, reason
	}
	for {
		select {
		case <-ctx.Done():
			return finish(endClosed, nil)
		case <-w.drain:
			exited = w.drained(ctx, p, exit)
			return finish(endClosed, nil)
		case g := <-w.restarts:
			if g == generation {
				return finish(endRestart, errors.New("a function timed out"))
			}
		case err := <-ready:
			ready = nil
			if err != nil {
				return finish(endCrash, err)
			}
			w.set(workerReady)
			w.log.Info("the handler is ready", "url", w.url)
		case st := <-exit:
			exited = true
			switch {
			case st.err == nil && st.code == 0:
				// The host takes no notice: it goes on calling a handler that
				// is not there.
				w.log.Warn("the handler exited with code 0 and will not be restarted")
				w.dropConnections()
				exit = nil
			case st.err == nil && st.code == restartCode:
				return finish(endRestart, errors.New("exit code 200"))
			default:
				reason := fmt.Errorf("exited with code %d", st.code)
				if text := last.join(); text != "" {
					reason = fmt.Errorf("%w: %s", reason, text)
				}
				return finish(endCrash, reason)
			}
		}
	}
}

// drained asks a process to end and waits for that; false: it has to be killed.
func (w *worker) drained(ctx context.Context, p Process, exit <-chan exitStatus) bool {
	t, asks := p.(Terminator)
	if !asks || exit == nil || t.Terminate() != nil {
		return exit == nil
	}
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-exit:
		return true
	case <-limit.C:
		w.log.Warn("the handler did not end when it was asked to")
	case <-ctx.Done():
	}
	return false
}

// poll asks GET / until anything answers.
func (w *worker) poll(ctx context.Context) error {
	deadline := time.NewTimer(w.initialize)
	defer deadline.Stop()
	next := time.NewTicker(pollInterval)
	defer next.Stop()
	for {
		up, err := w.answers(ctx)
		if err != nil || up {
			return err
		}
		select {
		case <-next.C:
		case <-deadline.C:
			return fmt.Errorf("initialization timed out: no answer on GET / within %v", w.initialize)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answers sends one GET /. A refused connection is "not yet"; every other
// failure counts as an answer, and so does every status.
func (w *worker) answers(ctx context.Context) (bool, error) {
	if w.pingLimit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.pingLimit)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/", nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("User-Agent", "") // none on the wire
	resp, err := w.ping.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return true, nil
	}
	if ctx.Err() != nil {
		return false, fmt.Errorf("no answer on GET /: %w", ctx.Err())
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false, nil
	}
	return true, nil
}

// lastLines keeps the last lines that were logged as errors. One goroutine
// writes; join is called after its end.
type lastLines []string

func (l *lastLines) add(text string) {
	*l = append(*l, text)
	if len(*l) > stderrKept {
		*l = (*l)[1:]
	}
}

func (l *lastLines) join() string { return strings.Join(*l, " | ") }

// pump logs a stream of the handler line by line.
func (w *worker) pump(stream string, r io.Reader, errorLines *lastLines) {
	lines := bufio.NewReader(r)
	var line []byte
	for {
		piece, more, err := lines.ReadLine()
		if len(line)+len(piece) <= maxLineLength {
			line = append(line, piece...)
		}
		if err == nil && more {
			continue
		}
		if err == nil || len(line) > 0 {
			l := classify(stream, string(line), w.errorsOnly)
			line = line[:0]
			if errorLines != nil && l.Category == "user" && l.Level == slog.LevelError {
				errorLines.add(l.Text)
			}
			w.log.Log(context.Background(), l.Level, l.Text, "category", l.Category, "stream", l.Stream)
			if w.onLine != nil {
				w.onLine(l)
			}
		}
		if err != nil {
			if c, ok := r.(io.Closer); ok {
				_ = c.Close()
			}
			return
		}
	}
}

const (
	systemPrefix  = "LanguageWorkerConsoleLog"
	toolingPrefix = "azfuncjsonlog:"
)

func classify(stream, text string, errorsOnly bool) Line {
	l := Line{Stream: stream, Level: slog.LevelInfo, Category: "user", Text: text}
	if len(text) >= len(systemPrefix) && strings.EqualFold(text[:len(systemPrefix)], systemPrefix) {
		l.Category, l.Text = "system", text[len(systemPrefix):]
	} else if len(text) >= len(toolingPrefix) && strings.EqualFold(text[:len(toolingPrefix)], toolingPrefix) {
		l.Category, l.Text = "tooling", text[len(toolingPrefix):]
	}
	if stream != "stderr" {
		return l
	}
	lower := strings.ToLower(text)
	switch {
	case strings.Contains(lower, "warn"):
		l.Level = slog.LevelWarn
	case errorsOnly, strings.Contains(lower, "error"), strings.Contains(lower, "fail"),
		strings.Contains(lower, "severe"), strings.Contains(lower, "unhandled exception"):
		l.Level = slog.LevelError
	}
	return l
}
