package functionshost

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// hostFile is host.json as it is written; key case is ignored, as in .NET.
type hostFile struct {
	Version         string   `json:"version"`
	FunctionTimeout string   `json:"functionTimeout"`
	Functions       []string `json:"functions"`
	ExtensionBundle *struct {
		ID      string `json:"id"`
		Version string `json:"version"`
	} `json:"extensionBundle"`
	CustomHandler *struct {
		Description struct {
			DefaultExecutablePath         string   `json:"defaultExecutablePath"`
			DefaultWorkerPath             string   `json:"defaultWorkerPath"`
			WorkerDirectory               string   `json:"workerDirectory"`
			WorkingDirectory              string   `json:"workingDirectory"`
			Arguments                     []string `json:"arguments"`
			WorkerArguments               []string `json:"workerArguments"`
			UseStdErrorStreamForErrorOnly *bool    `json:"useStdErrorStreamForErrorsOnly"`
		} `json:"description"`
		EnableForwardingHTTPRequest bool   `json:"enableForwardingHttpRequest"`
		EnableProxyingHTTPRequest   bool   `json:"enableProxyingHttpRequest"`
		InitializationTimeout       string `json:"initializationTimeout"`
		Port                        int    `json:"port"`
		HTTP                        *struct {
			Routes []json.RawMessage `json:"routes"`
		} `json:"http"`
	} `json:"customHandler"`
	Extensions struct {
		HTTP struct {
			RoutePrefix *string `json:"routePrefix"`
		} `json:"http"`
		ServiceBus struct {
			PrefetchCount                *int   `json:"prefetchCount"`
			AutoCompleteMessages         *bool  `json:"autoCompleteMessages"`
			MaxAutoLockRenewalDuration   string `json:"maxAutoLockRenewalDuration"`
			MaxConcurrentCalls           *int   `json:"maxConcurrentCalls"`
			MaxConcurrentSessions        *int   `json:"maxConcurrentSessions"`
			MaxConcurrentCallsPerSession *int   `json:"maxConcurrentCallsPerSession"`
			MaxMessageBatchSize          *int   `json:"maxMessageBatchSize"`
			MinMessageBatchSize          *int   `json:"minMessageBatchSize"`
			SessionIdleTimeout           string `json:"sessionIdleTimeout"`
			ClientRetryOptions           struct {
				TryTimeout string `json:"tryTimeout"`
			} `json:"clientRetryOptions"`
		} `json:"serviceBus"`
	} `json:"extensions"`
}

// hostOptions is host.json read, defaulted and checked.
type hostOptions struct {
	functionTimeout time.Duration // 0: unlimited
	functions       []string      // nil: all
	bundle          bool

	executable     string
	arguments      []string
	workingDir     string
	errorsOnly     bool // every stderr line is an error
	forwarding     bool
	proxying       bool
	initialization time.Duration
	port           int

	routePrefix string
	serviceBus  serviceBusOptions
}

type serviceBusOptions struct {
	autoComplete    bool
	lockRenewal     time.Duration // negative: for ever
	calls           int
	sessions        int
	callsPerSession int
	batch           int
	sessionIdle     time.Duration
	tryTimeout      time.Duration
}

const (
	defaultFunctionTimeout = 30 * time.Minute
	defaultInitialization  = 30 * time.Second
	bundleID               = "Microsoft.Azure.Functions.ExtensionBundle"
	bundleVersion          = "4.38.0"
)

func readHostFile(dir string, env map[string]string) (*hostOptions, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "host.json"))
	if err != nil {
		return nil, fmt.Errorf("reading host.json: %w", err)
	}
	return parseHostFile(raw, dir, env)
}

func parseHostFile(raw []byte, dir string, env map[string]string) (*hostOptions, error) {
	var f hostFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("unable to parse host configuration file 'host.json': %w", err)
	}
	if f.Version != "2.0" {
		return nil, fmt.Errorf("host.json: the version is %q, the host wants \"2.0\"", f.Version)
	}
	if f.CustomHandler == nil {
		return nil, errors.New("host.json has no customHandler section, and this host runs nothing else")
	}
	o := &hostOptions{functions: f.Functions}
	var err error

	if f.ExtensionBundle != nil {
		switch f.ExtensionBundle.ID {
		case bundleID, bundleID + ".Preview", bundleID + ".Experimental":
		default:
			return nil, fmt.Errorf("host.json: extensionBundle.id %q is unknown", f.ExtensionBundle.ID)
		}
		if err := bundleRange(f.ExtensionBundle.Version); err != nil {
			return nil, fmt.Errorf("host.json: extensionBundle.version: %w", err)
		}
		o.bundle = true
	}

	switch f.FunctionTimeout {
	case "":
		o.functionTimeout = defaultFunctionTimeout
	case "-1":
	default:
		if o.functionTimeout, err = parseTimeSpan(f.FunctionTimeout); err != nil {
			return nil, fmt.Errorf("host.json: functionTimeout: %w", err)
		}
		if o.functionTimeout < time.Second {
			return nil, errors.New("host.json: functionTimeout must be one second at least (or \"-1\")")
		}
	}

	c := f.CustomHandler
	if c.HTTP != nil && len(c.HTTP.Routes) > 0 {
		return nil, errors.New("host.json: customHandler.http.routes and function.json files exclude each other, and this host takes function.json files")
	}
	d := c.Description
	if d.DefaultExecutablePath == "" {
		return nil, errors.New("host.json: customHandler.description.defaultExecutablePath must not be empty")
	}
	under := func(path string) string {
		switch {
		case path == "":
			return dir
		case filepath.IsAbs(path):
			return path
		}
		return filepath.Join(dir, path)
	}
	o.executable = expand(d.DefaultExecutablePath, env, false)
	if !filepath.IsAbs(o.executable) {
		// A relative path that is not there is searched on PATH by the launcher.
		if full := filepath.Join(under(d.WorkerDirectory), o.executable); isFile(full) {
			o.executable = full
		}
	}
	args := d.Arguments
	if d.DefaultWorkerPath != "" {
		args = append(append(args[:len(args):len(args)], `"`+d.DefaultWorkerPath+`"`), d.WorkerArguments...)
	}
	o.arguments = args
	o.workingDir = under(d.WorkingDirectory)
	o.errorsOnly = d.UseStdErrorStreamForErrorOnly == nil || *d.UseStdErrorStreamForErrorOnly
	o.forwarding, o.proxying = c.EnableForwardingHTTPRequest, c.EnableProxyingHTTPRequest
	if o.port = c.Port; o.port < 0 || o.port > 65535 {
		return nil, fmt.Errorf("host.json: customHandler.port %d is no port", o.port)
	}
	if o.initialization, err = timeSpanOr(c.InitializationTimeout, defaultInitialization); err != nil || o.initialization <= 0 {
		return nil, fmt.Errorf("host.json: customHandler.initializationTimeout %q is no positive time span", c.InitializationTimeout)
	}

	o.routePrefix = "api"
	if p := f.Extensions.HTTP.RoutePrefix; p != nil {
		o.routePrefix = strings.Trim(*p, "/")
	}

	sb, s := &o.serviceBus, f.Extensions.ServiceBus
	sb.autoComplete = s.AutoCompleteMessages == nil || *s.AutoCompleteMessages
	if sb.tryTimeout, err = timeSpanOr(s.ClientRetryOptions.TryTimeout, time.Minute); err != nil || sb.tryTimeout <= 0 {
		return nil, fmt.Errorf("host.json: serviceBus tryTimeout %q is no positive time span", s.ClientRetryOptions.TryTimeout)
	}
	if sb.lockRenewal, err = timeSpanOr(s.MaxAutoLockRenewalDuration, 5*time.Minute); err != nil {
		return nil, fmt.Errorf("host.json: serviceBus maxAutoLockRenewalDuration: %w", err)
	}
	if sb.lockRenewal < 0 && sb.lockRenewal != -time.Millisecond {
		return nil, errors.New("host.json: serviceBus maxAutoLockRenewalDuration must not be negative (other than -00:00:00.0010000, for ever)")
	}
	if sb.sessionIdle, err = timeSpanOr(s.SessionIdleTimeout, sb.tryTimeout); err != nil || sb.sessionIdle <= 0 {
		return nil, fmt.Errorf("host.json: serviceBus sessionIdleTimeout %q is no positive time span", s.SessionIdleTimeout)
	}
	counts := []struct {
		name     string
		given    *int
		fallback int
		min      int
		to       *int
	}{
		{"maxConcurrentCalls", s.MaxConcurrentCalls, 16 * runtime.NumCPU(), 1, &sb.calls},
		{"maxConcurrentSessions", s.MaxConcurrentSessions, 8, 1, &sb.sessions},
		{"maxConcurrentCallsPerSession", s.MaxConcurrentCallsPerSession, 1, 1, &sb.callsPerSession},
		{"maxMessageBatchSize", s.MaxMessageBatchSize, 1000, 1, &sb.batch},
		{"prefetchCount", s.PrefetchCount, 0, 0, new(int)},
	}
	for _, n := range counts {
		*n.to = n.fallback
		if n.given != nil {
			*n.to = *n.given
		}
		if *n.to < n.min {
			return nil, fmt.Errorf("host.json: serviceBus %s must be %d at least", n.name, n.min)
		}
	}
	if s.PrefetchCount != nil && *s.PrefetchCount != 0 {
		return nil, errors.New("host.json: serviceBus prefetchCount other than 0 is not offered by this host")
	}
	if s.MinMessageBatchSize != nil && *s.MinMessageBatchSize > 1 {
		return nil, errors.New("host.json: serviceBus minMessageBatchSize over 1 is not offered by this host")
	}
	return o, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

var (
	timeSpanPattern = regexp.MustCompile(`^(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?$`)
	rangePattern    = regexp.MustCompile(`^([\[(])\s*([\d.*]+)\s*,\s*([\d.*]+)\s*([\])])$`)
)

// parseTimeSpan reads .NET's [-][d.]hh:mm[:ss[.fffffff]].
func parseTimeSpan(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no time span (hh:mm:ss)", text)
	m := timeSpanPattern.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, bad
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt("0"+s, 10, 64) // digits only, by the pattern
		return n
	}
	days, hours, minutes, seconds := number(m[2]), number(m[3]), number(m[4]), number(m[5])
	if hours > 23 || minutes > 59 || seconds > 59 || days > int64(math.MaxInt64/(25*time.Hour)) {
		return 0, bad
	}
	fraction := number((m[6] + "0000000")[:7])
	d := time.Duration(days)*24*time.Hour + time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute +
		time.Duration(seconds)*time.Second + time.Duration(fraction)*100
	if m[1] != "" {
		d = -d
	}
	return d, nil
}

func timeSpanOr(text string, fallback time.Duration) (time.Duration, error) {
	if text == "" {
		return fallback, nil
	}
	return parseTimeSpan(text)
}

// bundleRange checks that a version range such as "[4.*, 5.0.0)" has the bundle
// in it whose extensions this host plays.
func bundleRange(text string) error {
	m := rangePattern.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return fmt.Errorf("%q is no version range, such as [4.*, 5.0.0)", text)
	}
	low, high := compareVersions(bundleVersion, m[2]), compareVersions(bundleVersion, m[3])
	if low < 0 || low == 0 && m[1] == "(" || high > 0 || high == 0 && m[4] == ")" {
		return fmt.Errorf("%q leaves out bundle %s; write [4.*, 5.0.0)", text, bundleVersion)
	}
	return nil
}

// compareVersions compares number by number; a missing or starred number is 0.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range 3 {
		var x, y int
		if i < len(as) {
			x, _ = strconv.Atoi(as[i])
		}
		if i < len(bs) {
			y, _ = strconv.Atoi(bs[i])
		}
		if x != y {
			if x < y {
				return -1
			}
			return 1
		}
	}
	return 0
}
