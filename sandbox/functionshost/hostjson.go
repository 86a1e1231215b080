package functionshost

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hostFile is host.json as it is written; key case is ignored, as in .NET.
type hostFile struct {
	Version         string          `json:"version"`
	FunctionTimeout string          `json:"functionTimeout"`
	Functions       []string        `json:"functions"`
	ExtensionBundle *bundleSection  `json:"extensionBundle"`
	CustomHandler   *handlerSection `json:"customHandler"`
	Extensions      struct {
		HTTP struct {
			RoutePrefix *string `json:"routePrefix"`
		} `json:"http"`
		ServiceBus serviceBusSection `json:"serviceBus"`
	} `json:"extensions"`
}

type bundleSection struct {
	ID      string `json:"id"`
	Version string `json:"version"`
}

type handlerSection struct {
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
	HTTP                        struct {
		Routes []json.RawMessage `json:"routes"`
	} `json:"http"`
}

type serviceBusSection struct {
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
}

// hostOptions is host.json read, defaulted and checked.
type hostOptions struct {
	functionTimeout time.Duration // 0: unlimited
	functions       []string      // nil: all
	bundle          bool
	routePrefix     string
	handler         handlerOptions
	serviceBus      serviceBusOptions
}

type handlerOptions struct {
	executable     string
	arguments      []string
	workingDir     string
	errorsOnly     bool // every stderr line is an error
	initialization time.Duration
	port           int
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
	o, err := f.options(dir, env)
	if err != nil {
		return nil, fmt.Errorf("host.json: %w", err)
	}
	return o, nil
}

func (f *hostFile) options(dir string, env map[string]string) (*hostOptions, error) {
	if f.Version != "2.0" {
		return nil, fmt.Errorf("the version is %q, the host wants \"2.0\"", f.Version)
	}
	if f.CustomHandler == nil {
		return nil, errors.New("there is no customHandler section, and this host runs nothing else")
	}
	if err := f.ExtensionBundle.check(); err != nil {
		return nil, err
	}
	timeout, err := readFunctionTimeout(f.FunctionTimeout)
	if err != nil {
		return nil, err
	}
	handler, err := f.CustomHandler.options(dir, env)
	if err != nil {
		return nil, err
	}
	bus, err := f.Extensions.ServiceBus.options()
	if err != nil {
		return nil, err
	}
	prefix := "api"
	if p := f.Extensions.HTTP.RoutePrefix; p != nil {
		prefix = strings.Trim(*p, "/")
	}
	return &hostOptions{
		functionTimeout: timeout, functions: f.Functions, bundle: f.ExtensionBundle != nil,
		routePrefix: prefix, handler: handler, serviceBus: bus,
	}, nil
}

func (b *bundleSection) check() error {
	if b == nil {
		return nil
	}
	if !slices.Contains([]string{bundleID, bundleID + ".Preview", bundleID + ".Experimental"}, b.ID) {
		return fmt.Errorf("extensionBundle.id %q is unknown", b.ID)
	}
	if err := bundleRange(b.Version); err != nil {
		return fmt.Errorf("extensionBundle.version: %w", err)
	}
	return nil
}

func readFunctionTimeout(text string) (time.Duration, error) {
	switch text {
	case "":
		return defaultFunctionTimeout, nil
	case "-1":
		return 0, nil
	}
	timeout, err := parseTimeSpan(text)
	if err != nil {
		return 0, fmt.Errorf("functionTimeout: %w", err)
	}
	if timeout < time.Second {
		return 0, errors.New("functionTimeout must be one second at least (or \"-1\")")
	}
	return timeout, nil
}

func (c *handlerSection) options(dir string, env map[string]string) (handlerOptions, error) {
	var none handlerOptions
	if len(c.HTTP.Routes) > 0 {
		return none, errors.New("customHandler.http.routes and function.json files exclude each other, " +
			"and this host takes function.json files")
	}
	if err := c.checkHTTPMode(); err != nil {
		return none, err
	}
	if c.Port < 0 || c.Port > 65535 {
		return none, fmt.Errorf("customHandler.port %d is no port", c.Port)
	}
	d := c.Description
	if d.DefaultExecutablePath == "" {
		return none, errors.New("customHandler.description.defaultExecutablePath must not be empty")
	}
	initialization, err := positiveTimeSpan("customHandler.initializationTimeout", c.InitializationTimeout,
		defaultInitialization)
	if err != nil {
		return none, err
	}
	args := slices.Clone(d.Arguments)
	if d.DefaultWorkerPath != "" {
		args = append(append(args, `"`+d.DefaultWorkerPath+`"`), d.WorkerArguments...)
	}
	return handlerOptions{
		executable:     findExecutable(expand(d.DefaultExecutablePath, env, false), below(dir, d.WorkerDirectory)),
		arguments:      args,
		workingDir:     below(dir, d.WorkingDirectory),
		errorsOnly:     d.UseStdErrorStreamForErrorOnly == nil || *d.UseStdErrorStreamForErrorOnly,
		initialization: initialization,
		port:           c.Port,
	}, nil
}

// checkHTTPMode refuses the two older ways in which a host passes HTTP requests on: the
// envelope and forwarding. The older forwarding flag may stand beside the newer one, for
// hosts that know no other.
func (c *handlerSection) checkHTTPMode() error {
	const advice = "which this host does not offer: set customHandler.enableProxyingHttpRequest to true"
	switch {
	case c.EnableProxyingHTTPRequest:
		return nil
	case c.EnableForwardingHTTPRequest:
		return errors.New("customHandler.enableForwardingHttpRequest alone asks for the older forwarding, " + advice)
	}
	return errors.New("the custom handler gets HTTP requests in an envelope, " + advice)
}

// below gives a path's place: relative ones are below dir.
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// findExecutable makes a relative path absolute if it is there. Otherwise the launcher
// searches it on PATH.
func findExecutable(path, workerDir string) string {
	if full := below(workerDir, path); isFile(full) {
		return full
	}
	return path
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func (s *serviceBusSection) options() (serviceBusOptions, error) {
	var none serviceBusOptions
	tryTimeout, err := positiveTimeSpan("serviceBus tryTimeout", s.ClientRetryOptions.TryTimeout, time.Minute)
	if err != nil {
		return none, err
	}
	sessionIdle, err := positiveTimeSpan("serviceBus sessionIdleTimeout", s.SessionIdleTimeout, tryTimeout)
	if err != nil {
		return none, err
	}
	lockRenewal, err := timeSpanOr(s.MaxAutoLockRenewalDuration, 5*time.Minute)
	if err != nil {
		return none, fmt.Errorf("serviceBus maxAutoLockRenewalDuration: %w", err)
	}
	if lockRenewal < 0 && lockRenewal != infiniteRenewal {
		return none, errors.New("serviceBus maxAutoLockRenewalDuration must not be negative " +
			"(other than -00:00:00.0010000, for ever)")
	}
	if s.PrefetchCount != nil && *s.PrefetchCount != 0 {
		return none, errors.New("serviceBus prefetchCount other than 0 is not offered by this host")
	}
	if s.MinMessageBatchSize != nil && *s.MinMessageBatchSize > 1 {
		return none, errors.New("serviceBus minMessageBatchSize over 1 is not offered by this host")
	}
	o := serviceBusOptions{
		autoComplete: s.AutoCompleteMessages == nil || *s.AutoCompleteMessages,
		lockRenewal:  lockRenewal, sessionIdle: sessionIdle, tryTimeout: tryTimeout,
	}
	for _, count := range []struct {
		name     string
		given    *int
		fallback int
		option   *int
	}{
		{"maxConcurrentCalls", s.MaxConcurrentCalls, 16 * runtime.NumCPU(), &o.calls},
		{"maxConcurrentSessions", s.MaxConcurrentSessions, 8, &o.sessions},
		{"maxConcurrentCallsPerSession", s.MaxConcurrentCallsPerSession, 1, &o.callsPerSession},
		{"maxMessageBatchSize", s.MaxMessageBatchSize, 1000, &o.batch},
	} {
		*count.option = count.fallback
		if count.given != nil {
			*count.option = *count.given
		}
		if *count.option < 1 {
			return none, fmt.Errorf("serviceBus %s must be 1 at least", count.name)
		}
	}
	return o, nil
}

var (
	timeSpanPattern = regexp.MustCompile(`^(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?$`)
	rangePattern    = regexp.MustCompile(`^([\[(])\s*([\d.*]+)\s*,\s*([\d.*]+)\s*([\])])$`)
)

// parseTimeSpan reads .NET's [-][d.]hh:mm[:ss[.fffffff]].
func parseTimeSpan(text string) (time.Duration, error) {
	m := timeSpanPattern.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, errNoTimeSpan(text)
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt("0"+s, 10, 64) // digits only, by the pattern
		return n
	}
	const maxDays = 100_000 // a time.Duration holds 292 years
	days, hours, minutes, seconds := number(m[2]), number(m[3]), number(m[4]), number(m[5])
	if days > maxDays || hours > 23 {
		return 0, errNoTimeSpan(text)
	}
	if minutes > 59 || seconds > 59 {
		return 0, errNoTimeSpan(text)
	}
	fraction := number((m[6] + "0000000")[:7])
	d := time.Duration(days*24+hours)*time.Hour + time.Duration(minutes)*time.Minute +
		time.Duration(seconds)*time.Second + time.Duration(fraction)*100
	if m[1] != "" {
		d = -d
	}
	return d, nil
}

func errNoTimeSpan(text string) error { return fmt.Errorf("%q is no time span (hh:mm:ss)", text) }

func timeSpanOr(text string, fallback time.Duration) (time.Duration, error) {
	if text == "" {
		return fallback, nil
	}
	return parseTimeSpan(text)
}

func positiveTimeSpan(name, text string, fallback time.Duration) (time.Duration, error) {
	d, err := timeSpanOr(text, fallback)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s %q is no positive time span", name, text)
	}
	return d, nil
}

// bundleRange checks that a version range such as "[4.*, 5.0.0)" has the bundle
// in it whose extensions this host plays.
func bundleRange(text string) error {
	m := rangePattern.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return fmt.Errorf("%q is no version range, such as [4.*, 5.0.0)", text)
	}
	low, high := compareVersions(bundleVersion, m[2]), compareVersions(bundleVersion, m[3])
	aboveLow := low > 0 || low == 0 && m[1] == "["
	belowHigh := high < 0 || high == 0 && m[4] == "]"
	if !aboveLow || !belowHigh {
		return fmt.Errorf("%q leaves out bundle %s; write [4.*, 5.0.0)", text, bundleVersion)
	}
	return nil
}

// compareVersions compares number by number; a missing or starred number is 0.
func compareVersions(a, b string) int { return slices.Compare(versionNumbers(a), versionNumbers(b)) }

func versionNumbers(version string) []int {
	numbers := make([]int, 3)
	for i, text := range strings.Split(version, ".") {
		if i < len(numbers) {
			numbers[i], _ = strconv.Atoi(text)
		}
	}
	return numbers
}
