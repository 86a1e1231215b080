package functionshost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Spec says how to start a handler.
type Spec struct {
	Path string
	Args []string // without the executable
	Dir  string
	Env  []string // NAME=value, sorted; all there is
	// Group is which functions the process will be called for: "http" or
	// "function:<name>"; empty: all. The process is not told.
	Group string

	asked chan struct{}
}

// Terminated is closed when a handler that runs in process is asked to end.
func (s Spec) Terminated() <-chan struct{} { return s.asked }

// Getenv returns a variable of Env, for handlers that run in process.
func (s Spec) Getenv(name string) string {
	for _, e := range s.Env {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:]
		}
	}
	return ""
}

// Launcher starts handlers. The context ends with the host; a process may end
// with it, but the host calls Kill in any case.
type Launcher interface {
	Start(ctx context.Context, spec Spec) (Process, error)
}

// Process is a running handler. The host reads Stdout and Stderr to their ends
// and calls Wait once.
type Process interface {
	// Wait returns once the process is gone. A death by signal is any code
	// other than 0 and 200.
	Wait() (exitCode int, err error)
	// Kill ends the process at once, as SIGKILL does.
	Kill() error
	Stdout() io.Reader
	Stderr() io.Reader
}

// Terminator is a Process that can be asked to end, as SIGTERM does.
type Terminator interface {
	Terminate() error
}

// Exec starts child processes. On Linux a child is killed when the host's
// process dies.
type Exec struct{}

// Start starts spec.Path, looked up on PATH if it has no slash.
func (Exec) Start(_ context.Context, spec Spec) (Process, error) {
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the handler's stdout: %w", err)
	}
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		_, _ = outRead.Close(), outWrite.Close()
		return nil, fmt.Errorf("making the handler's stderr: %w", err)
	}
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Dir, cmd.Env = spec.Dir, spec.Env
	cmd.Stdout, cmd.Stderr = outWrite, errWrite
	cmd.SysProcAttr = diesWithParent()
	p := &child{cmd: cmd, stdout: outRead, stderr: errRead, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		// The parent-death signal fires when the thread that started the
		// child ends, so this thread stays with the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_, _ = outWrite.Close(), errWrite.Close()
		started <- err
		if err != nil {
			return
		}
		defer close(p.done)
		p.err = cmd.Wait()
		// A grandchild may hold the pipes open; what it writes is not waited
		// for.
		limit := time.Now().Add(time.Second)
		_, _ = outRead.SetReadDeadline(limit), errRead.SetReadDeadline(limit)
	}()
	if err := <-started; err != nil {
		_, _ = outRead.Close(), errRead.Close()
		return nil, fmt.Errorf("starting the handler: %w", err)
	}
	return p, nil
}

type child struct {
	cmd            *exec.Cmd
	stdout, stderr *os.File
	done           chan struct{}
	err            error
}

func (p *child) Wait() (int, error) {
	<-p.done
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return -1, p.err
	}
	return p.cmd.ProcessState.ExitCode(), nil // -1 for a signal
}

func (p *child) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Signal sends the child a signal, as an operating system or a person may: the host
// itself never does.
func (p *child) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Terminate sends SIGTERM.
func (p *child) Terminate() error { return p.cmd.Process.Signal(syscall.SIGTERM) }

func (p *child) Stdout() io.Reader { return p.stdout }
func (p *child) Stderr() io.Reader { return p.stderr }

// Func starts handlers in process: the function is the handler's main, and
// returns its exit code. It should end when Spec.Terminated says so. It must return when
// its context ends, which is how it is killed, and should then break its connections (http.Server.Close), as the
// death of a process does.
type Func func(ctx context.Context, spec Spec, stdout, stderr io.Writer) (exitCode int)

// killed is the exit code of a killed Func, as a shell reports SIGKILL.
const killed = 137

// Start runs the function.
func (f Func) Start(ctx context.Context, spec Spec) (Process, error) {
	outRead, outWrite := io.Pipe()
	errRead, errWrite := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	spec.asked = make(chan struct{})
	p := &goroutine{cancel: cancel, asked: spec.asked, stdout: outRead, stderr: errRead, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer cancel()
		p.code = f(ctx, spec, outWrite, errWrite)
		_, _ = outWrite.Close(), errWrite.Close()
	}()
	return p, nil
}

type goroutine struct {
	asked          chan struct{}
	once           sync.Once
	cancel         context.CancelFunc
	stdout, stderr *io.PipeReader
	done           chan struct{}
	code           int

	mu     sync.Mutex
	killed bool
}

func (p *goroutine) Wait() (int, error) {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return killed, nil
	}
	return p.code, nil
}

func (p *goroutine) Kill() error {
	select {
	case <-p.done: // it has its own exit code
	default:
		p.mu.Lock()
		p.killed = true
		p.mu.Unlock()
	}
	p.cancel()
	return nil
}

// Terminate closes what Spec.Terminated gives.
func (p *goroutine) Terminate() error {
	p.once.Do(func() { close(p.asked) })
	return nil
}

func (p *goroutine) Stdout() io.Reader { return p.stdout }
func (p *goroutine) Stderr() io.Reader { return p.stderr }
