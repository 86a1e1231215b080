package functionshost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// Reasons for which a host ends by itself; Wait returns them wrapped.
var (
	// ErrRestartBudget: the handler crashed for the third time, none of the
	// crashes more than half an hour after the one before.
	ErrRestartBudget = errors.New("exceeded http worker restart retry count: shutting down Functions host")
	// ErrHandlerNeverReady: an invocation waited four initialization timeouts
	// for the handler.
	ErrHandlerNeverReady = errors.New("function invocation waited too long for the handler: " +
		"shutting down Functions host")
)

// Reasons for which an invocation fails; Invocation.Err wraps them.
var (
	// ErrFunctionTimeout: functionTimeout ran out; the handler is killed and
	// restarted, and with it every other invocation.
	ErrFunctionTimeout = errors.New("timeout value exceeded by function")
	// ErrResponse: the handler answered, but not with a success in the
	// protocol's form.
	ErrResponse = errors.New("handler's response")
	// ErrUnreachable: the call to the handler broke, or never began.
	ErrUnreachable = errors.New("calling the handler")
	// ErrUnknownFunction: no such function is loaded.
	ErrUnknownFunction = errors.New("no such function")
	// ErrClosed: the host has ended.
	ErrClosed = errors.New("the host is closed")
)

// Keys are the access keys. An empty key opens nothing.
type Keys struct {
	Master   string
	Host     string
	Function map[string]string // by function name, case ignored
}

// Config is what a host needs. AppDir, Settings and Launcher must be set.
type Config struct {
	// AppDir is the script root: the folder with host.json.
	AppDir string
	// Settings are the app settings. They are the handler's whole environment
	// too, with the host's own variables added; nothing is inherited.
	Settings map[string]string
	Keys     Keys
	// Version is the host's version as handlers see it; default 4.1037.0.0.
	Version string

	// Launcher starts the handler. Exec is the real one.
	Launcher Launcher
	// Groups runs the app as Flex Consumption does: all HTTP functions share one handler,
	// every other function has one of its own. A handler is started by the first call, asked
	// to end (SIGTERM) after 30 seconds without one, and started anew by the next. The
	// triggers stay: they stand for the platform, which watches queues and schedules.
	Groups bool
	// HandlerPort is where the handler shall listen; with Groups, where the first of
	// them does. Zero draws a free one; it must be set together with Dial.
	HandlerPort int
	// Dial reaches the handler; default TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Listener, if set, is served (and closed) by the host. Without one the
	// Host is itself an http.Handler to be mounted.
	Listener net.Listener
	// BehindFrontEnd: as on App Service, a front end stands before the host and says by
	// which scheme the caller came, in X-Forwarded-Proto. Without one that header is a
	// caller's own, and is replaced.
	BehindFrontEnd bool

	// Storage stands in for the AzureWebJobsStorage account: hosts that share
	// it share timer states and locks. Default: one of the host's own.
	Storage *Storage

	// ServiceBus makes the client for a connection, named as in function.json.
	// Default: from the settings <connection> (a connection string) or
	// <connection>__fullyQualifiedNamespace with Credential.
	ServiceBus func(connection string) (*azservicebus.Client, error)
	// ServiceBusOptions and Credential are used by the default ServiceBus.
	ServiceBusOptions *azservicebus.ClientOptions
	Credential        azcore.TokenCredential

	// Log takes the host's log, with the handler's lines in it. Default: none.
	Log *slog.Logger
	// OnLine sees every line that the handler writes.
	OnLine func(Line)
	// OnInvocation sees every invocation once it is over.
	OnInvocation func(Invocation)
}

// Line is a line of the handler's output, as the host classified it.
type Line struct {
	Stream   string // "stdout" or "stderr"
	Level    slog.Level
	Category string // "user", "system" or "tooling"
	Text     string
}

// Invocation is one finished run of a function.
type Invocation struct {
	Function string
	ID       string
	Trigger  string // binding type, such as "timerTrigger"
	Started  time.Time
	Duration time.Duration
	Status   int   // what the HTTP caller was answered; zero for other triggers
	Err      error // nil: succeeded
}

// Problem is something wrong with the app.
type Problem struct {
	Function string // empty: the app as a whole
	Message  string
	InError  bool // the function does not run
}

func (p Problem) String() string {
	if p.Function == "" {
		return p.Message
	}
	if p.InError {
		return fmt.Sprintf("the '%s' function is in error: %s", p.Function, p.Message)
	}
	return fmt.Sprintf("function '%s': %s", p.Function, p.Message)
}

// settings looks names up as .NET configuration does: case ignored, and ":" and
// "__" the same.
type settings map[string]string

func newSettings(m map[string]string) settings {
	s := make(settings, len(m))
	for k, v := range m {
		s[settingKey(k)] = v
	}
	return s
}

func settingKey(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "__", ":")
}

func (s settings) get(name string) (string, bool) {
	v, ok := s[settingKey(name)]
	return v, ok
}

// hasGroup reports whether any setting lies below name.
func (s settings) hasGroup(name string) bool {
	prefix := settingKey(name) + ":"
	for k := range s {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

// resolve replaces %NAME% by settings, as bindings ask; an unknown name is an
// error.
func (s settings) resolve(text string) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			break
		}
		j := strings.IndexByte(text[i+1:], '%')
		if j < 0 {
			return "", fmt.Errorf("the '%%' at position %d does not have a closing '%%'", i)
		}
		name := text[i+1 : i+1+j]
		v, ok := s.get(name)
		if !ok {
			return "", fmt.Errorf("'%%%s%%' does not resolve to a value", name)
		}
		out.WriteString(text[:i])
		out.WriteString(v)
		text = text[i+j+2:]
	}
	out.WriteString(text)
	return out.String(), nil
}

// expand replaces %NAME% in paths and arguments; what is unknown stays, or is
// deleted where drop is set.
func expand(text string, env map[string]string, drop bool) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '%')
		if i < 0 {
			break
		}
		j := strings.IndexByte(text[i+1:], '%')
		if j < 0 {
			break
		}
		v, ok := env[text[i+1:i+1+j]]
		switch {
		case ok:
			out.WriteString(text[:i])
			out.WriteString(v)
		case drop:
			out.WriteString(text[:i])
		default:
			// The second % may open the next name.
			out.WriteString(text[:i+1+j])
			text = text[i+1+j:]
			continue
		}
		text = text[i+j+2:]
	}
	out.WriteString(text)
	return out.String()
}

func isTrue(v string) bool { return v == "1" || strings.EqualFold(v, "true") }
