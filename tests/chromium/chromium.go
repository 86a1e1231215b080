// Package chromium drives a real Chromium against the sandbox, for tests. It knows
// pages and nothing of patrol.
//
// A browser lives in real time and a testing/synctest bubble in virtual time. The
// browser is therefore driven outside of the bubble: while somebody in the bubble
// waits for it, virtual time stands still, and what it asks for over real sockets is
// served from within.
package chromium

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Browser is a Chromium with one profile of its own.
type Browser struct {
	ctx  context.Context
	jobs chan func(context.Context) error
	done chan error

	mu       sync.Mutex
	warnings []string
}

// jobTimeout bounds one job, in real time.
const jobTimeout = 60 * time.Second

// Options of a Browser.
type Options struct {
	// Hosts sends a host name with its port ("login.localhost:443") to an address
	// on this machine. What is not named here does not resolve.
	Hosts map[string]string
	// Width and Height of the window in pixels; default 1280 x 900.
	Width, Height int
}

// Start starts a Chromium, outside of any bubble; it ends with the test. Without one
// on this machine the test is skipped, and fails where CI is set.
func Start(t testing.TB, o Options) *Browser {
	t.Helper()
	path := findChromium()
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no Chromium: make setup installs one")
		}
		t.Skip("there is no Chromium here: make setup installs one")
	}
	var rules []string
	for host, address := range o.Hosts {
		rules = append(rules, "MAP "+host+" "+address)
	}
	rules = append(rules, "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1", "EXCLUDE localhost")
	if o.Width == 0 {
		o.Width, o.Height = 1280, 900
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // CI runs as root and loads only these pages
		chromedp.DisableGPU,
		chromedp.WindowSize(o.Width, o.Height),
		chromedp.Flag("host-resolver-rules", strings.Join(rules, ", ")),
		chromedp.Flag("ignore-certificate-errors", true), // the sandbox's own authority
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	b := &Browser{ctx: ctx, jobs: make(chan func(context.Context) error), done: make(chan error)}
	var working sync.WaitGroup
	working.Go(func() {
		for f := range b.jobs {
			b.done <- b.run(f)
		}
	})
	t.Cleanup(func() {
		close(b.jobs)
		cancel()
		working.Wait()
		stop()
	})
	// The first context ends the browser when it ends: it must not be a job's.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	messages := chromedp.Console(ctx)
	working.Go(func() {
		for m, err := range messages {
			if err != nil {
				return // it has ended
			}
			if m.Type == "error" || m.Type == "warning" || m.Type == chromedp.ConsoleException {
				b.mu.Lock()
				b.warnings = append(b.warnings, m.Text)
				b.mu.Unlock()
			}
		}
	})
	return b
}

func findChromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (b *Browser) run(f func(context.Context) error) error {
	failed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(b.ctx, jobTimeout)
	defer cancel()
	go func() { failed <- f(ctx) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the browser did not finish: %w", ctx.Err())
	}
}

// Do runs f with the browser's context, outside of the caller's bubble. f must not
// touch what belongs to a bubble.
func (b *Browser) Do(f func(context.Context) error) error {
	b.jobs <- f
	return <-b.done
}

// Run runs steps one after the other.
func (b *Browser) Run(steps ...chromedp.Action[chromedp.Void]) error {
	return b.Do(func(ctx context.Context) error { return chromedp.Do(ctx, steps...) })
}

// Get runs an action for its value.
func Get[T any](b *Browser, a chromedp.Action[T]) (v T, err error) {
	err = b.Do(func(ctx context.Context) (err error) {
		v, err = chromedp.Run(ctx, a)
		return err
	})
	return v, err
}

// Open shows a page and waits until it is there.
func (b *Browser) Open(page string) error {
	return b.follow(chromedp.Navigate(page))
}

// Press clicks on what a CSS selector finds and waits for the page that follows.
//
// Not by chromedp's own queries: they keep querying the document before when a
// navigation has moved to another site's process.
func (b *Browser) Press(selector string) error {
	script := fmt.Sprintf("(() => { const e = document.querySelector(%q); "+
		"if (!e) throw new Error('there is no ' + %[1]q); e.click() })()", selector)
	return b.follow(chromedp.Steps(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Evaluate[any](script)(ctx, t)
		return err
	})))
}

// follow marks the document that is shown, does what leads away from it, and waits
// for another one.
func (b *Browser) follow(step chromedp.Action[chromedp.Void]) error {
	return b.Do(func(ctx context.Context) error {
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("window.before = true")); err != nil {
			return err
		}
		if err := chromedp.Do(ctx, step); err != nil {
			return err
		}
		return await(ctx, "!window.before && document.readyState === 'complete'")
	})
}

// Await waits until a JavaScript expression is true.
func (b *Browser) Await(expression string) error {
	return b.Do(func(ctx context.Context) error { return await(ctx, expression) })
}

func await(ctx context.Context, expression string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error is a page that is being left.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression)); err == nil && ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", expression, ctx.Err())
		}
	}
}

// Text is the text of what a CSS selector finds; empty if there is nothing.
func (b *Browser) Text(selector string) (string, error) {
	return Get(b, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)))
}

// Value is the value of a form's field; empty if there is none.
func (b *Browser) Value(selector string) (string, error) {
	return Get(b, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.value ?? ''", selector)))
}

// Reusable wraps a listener so that Close leaves the socket bound, to be wrapped again.
func Reusable(l net.Listener) net.Listener {
	return &reusable{Listener: l, closed: make(chan struct{})}
}

type reusable struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (l *reusable) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	select {
	case <-l.closed:
		if c != nil {
			_ = c.Close()
		}
		return nil, net.ErrClosed
	default:
		return c, err
	}
}

// Close wakes Accept by a connection of its own.
func (l *reusable) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		var c net.Conn
		c, err = net.Dial("tcp", l.Addr().String())
		if err == nil {
			err = c.Close()
		}
	})
	return err
}

// Bridge carries connections from a real listener to wherever dial leads, until stop
// is called. Called within a bubble it serves from within.
func Bridge(l net.Listener, dial func(context.Context) (net.Conn, error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
	}
	all.Go(func() {
		for {
			outer, err := l.Accept()
			if err != nil {
				return
			}
			inner, err := dial(ctx)
			if err != nil {
				_ = outer.Close()
				continue
			}
			keep(outer)
			keep(inner)
			carry := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
				_ = from.Close()
			}
			all.Go(func() { carry(inner, outer) })
			all.Go(func() { carry(outer, inner) })
		}
	})
	return func() {
		cancel()
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	}
}

// Warnings are the warnings and errors of all pages so far, as the console shows
// them: what a policy forbids, what a script throws.
func (b *Browser) Warnings() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.warnings)
}

// Scripts lets pages run their scripts, or not.
func (b *Browser) Scripts(run bool) error {
	return b.Run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{
			Value: !run})
		return err
	}))
}

// Load runs steps that lead to another page, and waits until it is there.
func (b *Browser) Load(steps ...chromedp.Action[chromedp.Void]) error {
	return b.Do(func(ctx context.Context) error {
		_, err := chromedp.RunResponse(ctx, steps...)
		return err
	})
}

// Emulate sets the width of the window, and whether the person prefers a dark scheme.
func (b *Browser) Emulate(width int, dark bool) error {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}}
	return b.Run(chromedp.EmulateViewport(int64(width), 900),
		chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, media)
			return err
		}))
}
