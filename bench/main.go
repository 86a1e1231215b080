// Command bench measures patrol beside what it is compared with, in one run: an empty
// custom handler in Go, one in Node, and the bars that the project has set itself. It
// builds what it needs, prints one table, and fails if a bar is broken.
//
// Two kinds of measurement: real processes over loopback TLS, where the measure is
// time and memory; and virtual time (the tests of this package), where it is calls and
// round trips. Of times only ratios of one run mean anything.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	root, dir            string
	handler, empty, node string
	quick                bool
	scale                int
	results              []result
	out                  io.Writer
}

func (b *bench) add(r result) {
	b.results = append(b.results, r)
	fmt.Fprintf(b.out, "  %s: %.4g %s\n", r.Name, r.Value, r.Unit)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := &bench{out: out}
	flags.BoolVar(&b.quick, "quick", false, "fewer repetitions and smaller fleets")
	flags.IntVar(&b.scale, "scale", 0, "PATs that are due at once in the scale-out; 0: 800, and 300 with -quick")
	record := flags.Bool("record", false,
		"write the counters that the tests hold against into bench/recorded.json, and do nothing else")
	model := flags.Bool("model", false,
		"compute a year of 1,000,000 PATs from the recorded counters, and do nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("no arguments are expected, only flags: %s", strings.Join(flags.Args(), " "))
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	b.root = root
	if *model {
		return modelTable(out)
	}
	dir, err := os.MkdirTemp("", "patrol-bench-")
	if err != nil {
		return err
	}
	b.dir = dir
	defer func() { _ = os.RemoveAll(b.dir) }()
	if *record {
		return b.virtual(ctx, "^TestCountersHold$", "-record")
	}
	began := time.Now()
	if err := b.build(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"start", b.starts}, {"memory", b.memory}, {"growth", b.growth},
		{"round trips, in virtual time", func(ctx context.Context) error {
			tests := []string{"TestTheNewPATIsReadableAfterFourRoundTrips",
				"TestAThousandRotationsStayNearTheirBound", "TestCountersHold"}
			return b.virtual(ctx, "^("+strings.Join(tests, "|")+")$")
		}},
		{"scale-out, in virtual time", func(ctx context.Context) error {
			scale := b.scale
			switch {
			case scale == 0 && b.quick:
				scale = 300
			case scale == 0:
				scale = 800
			}
			return b.virtual(ctx, "^TestThroughputGrowsWithInstancesUpToTheThrottle$", "-scale", strconv.Itoa(scale))
		}},
	} {
		fmt.Fprintf(out, "%s\n", part.name)
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Fprintln(out)
	if err := table(out, b.results); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s, %s, %d processors, %v\n", runtime.Version(), runtime.GOARCH, runtime.NumCPU(),
		time.Since(began).Round(time.Second))
	var broken []error
	for _, r := range b.results {
		if !r.held() {
			broken = append(broken, fmt.Errorf("%s is %.4g %s, and the bar is %.4g", r.Name, r.Value, r.Unit, r.Bar))
		}
	}
	return errors.Join(broken...)
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if err != nil || root == "." || root == filepath.Dir(os.DevNull) {
		return "", errors.New("run it inside the project")
	}
	return root, nil
}

// build packages the app and makes what it is compared with, by the same flags.
func (b *bench) build(ctx context.Context) error {
	b.handler, b.empty = filepath.Join(b.dir, "dist", "app", "handler"), filepath.Join(b.dir, "empty")
	if err := b.command(ctx, io.Discard, "go", "run", "-buildvcs=false", "./packaging", "-o",
		filepath.Join(b.dir, "dist")); err != nil {
		return fmt.Errorf("packaging the app: %w", err)
	}
	if err := b.command(ctx, io.Discard, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o",
		b.empty, "./bench/empty"); err != nil {
		return fmt.Errorf("building the empty handler: %w", err)
	}
	if node, err := exec.LookPath("node"); err == nil {
		b.node = node
	}
	return nil
}

// virtual runs tests of this package and takes over what they have measured.
func (b *bench) virtual(ctx context.Context, tests string, args ...string) error {
	results := filepath.Join(b.dir, "results")
	all := append([]string{"test", "-count=1", "-timeout", "20m", "-run", tests, "./bench", "-args", "-results",
		results}, args...)
	if err := b.command(ctx, b.out, "go", all...); err != nil {
		return err
	}
	f, err := os.Open(results)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("reading what the tests have measured: %w", err)
		}
		b.add(r)
	}
	return os.Remove(results)
}

func (b *bench) command(ctx context.Context, out io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.root, out, os.Stderr
	return cmd.Run()
}

func table(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tvalue\t\tbar\tmiddle half\t")
	for _, r := range results {
		bar := ""
		if r.Bar != 0 {
			bar = fmt.Sprintf("%.4g", r.Bar)
			if !r.held() {
				bar += " BROKEN"
			}
		}
		fmt.Fprintf(w, "%s\t%.4g\t%s\t%s\t%s\t%s\n", r.Name, r.Value, r.Unit, bar, r.Spread, r.Note)
	}
	return w.Flush()
}

// thousands writes 10000 as 10,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
