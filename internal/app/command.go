package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// Process is what surrounds a command: the Functions host, or an operator's
// terminal.
type Process struct {
	Getenv   func(string) string
	In       io.Reader
	Out, Err io.Writer
	Version  string
	Commit   string
	// Program is what the program is called. Default: handler. Under another name it
	// serves no host.
	Program string

	// What follows is the real thing where it is zero.
	Outside Outside
	// Credential is the operator's own for Azure. Default: azidentity's
	// DefaultAzureCredential, the Azure CLI's among others.
	Credential azcore.TokenCredential
	// Open shows a page to the operator. Default: the system's browser.
	Open func(ctx context.Context, page string) error
}

// command is one thing that the program can do beside serving the Functions host.
type command struct {
	name, about string
	run         func(ctx context.Context, args []string, p Process) error
}

func commands() []command {
	return []command{
		{"sign-in", "sign an identity in from this machine and store the sign-in in Key Vault", SignIn},
		{"plan", "show what a sweep with a manifest would do, and change nothing", Plan},
		{"events", "print what subscribers were told, and dead letters; send those again", Events},
	}
}

// Exit codes.
const (
	exitDone = iota
	exitFailed
	exitUsage
	// exitAsked makes the Functions host start the handler anew at once, without
	// counting it as a failure. If the host is ending too, it does not matter. Any
	// other code makes it give the app up: the third 1 in half an hour for all, and 0
	// in silence, with every later invocation failing.
	exitAsked = 200
)

// usageError is a command line that can't be understood. help: it was asked for.
type usageError struct {
	text string
	help bool
}

func (e *usageError) Error() string { return e.text }

// Main runs the command that args name, or without any serves the Functions host, and
// returns the exit code.
func Main(ctx context.Context, args []string, p Process) int {
	if p.Program == "" {
		p.Program = programOfTheApp
	}
	err := dispatch(ctx, args, p)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errAsked) {
		return exitAsked
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		if u.help {
			fmt.Fprint(p.Out, p.named(u.text))
			return exitDone
		}
		fmt.Fprintln(p.Err, p.named("handler: "+u.text))
		return exitUsage
	}
	fmt.Fprintln(p.Err, p.named("handler: "+err.Error()))
	return exitFailed
}

// programOfTheApp is the program's name where the Functions host starts it.
const programOfTheApp = "handler"

// commandLine is where a text names the program: before a colon or one of its commands.
var commandLine = regexp.MustCompile(`\bhandler(:| (?:sign-in|plan|events|version|help|<command>|\s))`)

// named gives a text with the name that the program was started by.
func (p Process) named(text string) string {
	return commandLine.ReplaceAllString(text, p.Program+"$1")
}

func dispatch(ctx context.Context, args []string, p Process) error {
	if len(args) == 0 && p.Program != programOfTheApp {
		return &usageError{text: usage(p.Program), help: true}
	}
	if len(args) == 0 {
		return Run(ctx, p.Getenv, p.Out, p.Version, p.Commit)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], p)
		}
	}
	switch args[0] {
	case "version", "-version", "--version":
		fmt.Fprintf(p.Out, "patrol %s %s\n", p.Version, p.Commit)
		return nil
	case "help", "-h", "-help", "--help":
		return &usageError{text: usage(p.Program), help: true}
	}
	return &usageError{text: fmt.Sprintf("there is no command %q\n\n%s", args[0], usage(p.Program))}
}

func usage(program string) string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if program == programOfTheApp {
		b.WriteString("  handler                  serve the Azure Functions host\n")
	}
	for _, c := range commands() {
		fmt.Fprintf(&b, "  handler %-16s %s\n", c.name, c.about)
	}
	b.WriteString("  handler version          which state of patrol this is\n")
	b.WriteString("  handler help             this text\n\n\"handler <command> -h\" says more about a command.\n")
	return b.String()
}

// parse reads a command's flags. usage is its text without them.
func parse(f *flag.FlagSet, args []string, usage string) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if err == nil {
		return nil
	}
	var b strings.Builder
	b.WriteString(usage)
	f.SetOutput(&b)
	f.PrintDefaults()
	if errors.Is(err, flag.ErrHelp) {
		return &usageError{text: b.String(), help: true}
	}
	return &usageError{text: err.Error() + "\n\n" + b.String()}
}
