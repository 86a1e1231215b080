package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// trigger is what the design says of a function.
type trigger struct {
	kind                 string // timerTrigger, serviceBusTrigger, httpTrigger
	method, route, level string
	schedule, queue      string
	sessions             bool
}

// functions is the design's table. Who adds a function adds its line here.
var functions = map[string]trigger{
	"CheckExpiry":    {kind: "timerTrigger", schedule: "%CHECK_SCHEDULE%"},
	"Reconcile":      {kind: "serviceBusTrigger", queue: "%COMMAND_QUEUE%", sessions: true},
	"VaultEvent":     {kind: "serviceBusTrigger", queue: "%VAULT_EVENT_QUEUE%"},
	"Confirmation":   {kind: "serviceBusTrigger", queue: "%CONFIRMATION_QUEUE%"},
	"ConfirmSwitch":  {kind: "httpTrigger", method: "post", route: "pats/{name}/confirmations", level: "function"},
	"SwitchOver":     {kind: "httpTrigger", method: "post", route: "pats/{name}/switch-over", level: "function"},
	"DeadLetter":     {kind: "serviceBusTrigger", queue: "%COMMAND_QUEUE%/$DeadLetterQueue"},
	"ListPats":       {kind: "httpTrigger", method: "get", route: "pats", level: "function"},
	"GetPat":         {kind: "httpTrigger", method: "get", route: "pats/{name}", level: "function"},
	"RotatePat":      {kind: "httpTrigger", method: "post", route: "pats/{name}/rotate", level: "function"},
	"Check":          {kind: "httpTrigger", method: "post", route: "check", level: "function"},
	"Status":         {kind: "httpTrigger", method: "get", route: "status", level: "function"},
	"SetOverlap":     {kind: "httpTrigger", method: "post", route: "pats/{name}/overlap", level: "function"},
	"RestorePat":     {kind: "httpTrigger", method: "post", route: "pats/{name}/restore", level: "function"},
	"ExtendPat":      {kind: "httpTrigger", method: "post", route: "pats/{name}/extend", level: "function"},
	"RevokePat":      {kind: "httpTrigger", method: "delete", route: "tokens/{authorizationId}", level: "function"},
	"SignIn":         {kind: "httpTrigger", method: "get", route: "identities/{identity}/signin", level: "anonymous"},
	"SignInCallback": {kind: "httpTrigger", method: "get", route: "signin/callback", level: "anonymous"},
	"RevokeUserPats": {kind: "httpTrigger", method: "post", route: "revocations", level: "admin"},
	"Dashboard":      {kind: "httpTrigger", method: "get,post", route: "dashboard", level: "anonymous"},
	"GetPatAudit":    {kind: "httpTrigger", method: "get", route: "pats/{name}/audit", level: "admin"},
	"Health":         {kind: "httpTrigger", method: "get,head", route: "health", level: "anonymous"},
	"GetIncident":    {kind: "httpTrigger", method: "get", route: "incidents/{id}", level: "function"},
	"StartIncident":  {kind: "httpTrigger", method: "post", route: "incidents", level: "function"},
}

// binding has every property that our function.json files may use: a misspelt
// one, which the host would pass over in silence, does not decode.
type binding struct {
	Type      string `json:"type"`
	Direction string `json:"direction"`
	Name      string `json:"name"`

	AuthLevel string   `json:"authLevel"`
	Methods   []string `json:"methods"`
	Route     string   `json:"route"`

	Schedule     string `json:"schedule"`
	RunOnStartup *bool  `json:"runOnStartup"`
	UseMonitor   *bool  `json:"useMonitor"`

	QueueName         string `json:"queueName"`
	Connection        string `json:"connection"`
	IsSessionsEnabled *bool  `json:"isSessionsEnabled"`
	Cardinality       string `json:"cardinality"`
	DataType          string `json:"dataType"`
}

// strictly decodes JSON and refuses members that nobody asked for.
func strictly(t *testing.T, name string, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(readFile(t, name)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func bindings(t *testing.T) map[string][]binding {
	t.Helper()
	entries, err := os.ReadDir("../functions")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]binding{}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		var file struct {
			Bindings []binding `json:"bindings"`
		}
		strictly(t, filepath.Join("../functions", entry.Name(), "function.json"), &file)
		all[entry.Name()] = file.Bindings
	}
	return all
}

func TestTheFunctionsAreThoseOfTheDesign(t *testing.T) {
	all := bindings(t)
	if got, want := slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(functions)); !slices.Equal(got, want) {
		t.Fatalf("functions\n got %q\nwant %q", got, want)
	}
	no, yes := false, true
	for name, want := range functions {
		var wanted []binding
		switch want.kind {
		case "timerTrigger":
			wanted = []binding{{Type: want.kind, Direction: "in", Name: "timer", Schedule: want.schedule,
				RunOnStartup: &no, UseMonitor: &yes}}
		case "serviceBusTrigger":
			wanted = []binding{{Type: want.kind, Direction: "in", Name: "message", QueueName: want.queue,
				Connection:        "ServiceBusConnection",
				IsSessionsEnabled: &want.sessions, Cardinality: "one", DataType: "binary"}}
		case "httpTrigger":
			// One trigger in and one answer out, nothing else: only then does
			// the host hand over the plain HTTP request.
			wanted = []binding{
				{Type: want.kind, Direction: "in", Name: "req", AuthLevel: want.level,
					Methods: strings.Split(want.method, ","), Route: want.route},
				{Type: "http", Direction: "out", Name: "res"},
			}
		}
		if got, want := asJSON(t, all[name]), asJSON(t, wanted); got != want {
			t.Errorf("%s\n got %s\nwant %s", name, got, want)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheHostAcceptsTheNamesOfFunctionsAndBindings(t *testing.T) {
	function := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,127}$`)
	bindingName := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,127}$`)
	for name, bs := range bindings(t) {
		if !function.MatchString(name) || strings.EqualFold(name, "host") || reserved(name) {
			t.Errorf("%s: the host refuses a function of this name", name)
		}
		seen := map[string]bool{}
		for _, b := range bs {
			if !bindingName.MatchString(b.Name) {
				t.Errorf("%s: binding name %q: want a letter, then letters and digits", name, b.Name)
			}
			if seen[strings.ToLower(b.Name)] {
				t.Errorf("%s: two bindings are named %q", name, b.Name)
			}
			seen[strings.ToLower(b.Name)] = true
		}
	}
}

// reserved: the host keeps what begins with these letters for itself.
func reserved(route string) bool {
	route = strings.ToLower(route)
	return strings.HasPrefix(route, "admin") || strings.HasPrefix(route, "runtime")
}

func TestNoTwoRoutesMatchTheSameRequest(t *testing.T) {
	all := bindings(t)
	names := slices.Sorted(maps.Keys(all))
	for i, a := range names {
		for _, ra := range all[a] {
			if ra.Type != "httpTrigger" {
				continue
			}
			if reserved(ra.Route) {
				t.Errorf("%s: route %q begins with letters that are reserved", a, ra.Route)
			}
			for _, b := range names[i+1:] {
				for _, rb := range all[b] {
					if rb.Type == "httpTrigger" && overlap(ra, rb) {
						t.Errorf("%s (%q) and %s (%q) match the same path and method: the host would give all to %s", a,
							ra.Route, b, rb.Route, a)
					}
				}
			}
		}
	}
}

// overlap reports whether some request fits both. A parameter fits anything, a
// catch-all any rest: what a constraint narrows does not count.
func overlap(a, b binding) bool {
	common := func(m string) bool {
		return slices.ContainsFunc(b.Methods, func(n string) bool { return strings.EqualFold(m, n) })
	}
	if len(a.Methods) > 0 && len(b.Methods) > 0 && !slices.ContainsFunc(a.Methods, common) {
		return false
	}
	left, right := strings.Split(a.Route, "/"), strings.Split(b.Route, "/")
	for i := 0; ; i++ {
		switch {
		case i < len(left) && strings.HasPrefix(left[i], "{*"), i < len(right) && strings.HasPrefix(right[i], "{*"):
			return true
		case i == len(left) || i == len(right):
			return len(left) == len(right)
		case !strings.Contains(left[i], "{") && !strings.Contains(right[i], "{") &&
			!strings.EqualFold(left[i], right[i]):
			return false
		}
	}
}

func TestOverlapSeesRoutesThatCompete(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"GET pats", "GET pats", true},
		{"GET pats", "GET PATS", true},
		{"GET pats", "POST pats", false},
		{"GET pats", " pats", true},
		{"GET pats", "GET pats/{name}", false},
		{"GET pats/{name}", "GET pats/special", true},
		{"GET {area}/callback", "GET signin/{identity}", true},
		{"GET pats/{name}/rotate", "GET pats/{name}/extend", false},
		{"GET pats/{name}", "GET pats/{*rest}", true},
		{"GET pats", "GET pats/{*rest}", true},
		{"GET status", "GET pats/{*rest}", false},
	} {
		parse := func(s string) (b binding) {
			method, route, _ := strings.Cut(s, " ")
			b.Route = route
			if method != "" {
				b.Methods = []string{method}
			}
			return b
		}
		if a, b := parse(tt.a), parse(tt.b); overlap(a, b) != tt.want || overlap(b, a) != tt.want {
			t.Errorf("%q and %q: overlap is not %v both ways", tt.a, tt.b, tt.want)
		}
	}
}

func TestHostSettingsAreThoseOfTheDesign(t *testing.T) {
	var host struct {
		Version         string `json:"version"`
		FunctionTimeout string `json:"functionTimeout"`
		ExtensionBundle struct {
			ID      string `json:"id"`
			Version string `json:"version"`
		} `json:"extensionBundle"`
		CustomHandler struct {
			Description struct {
				DefaultExecutablePath string `json:"defaultExecutablePath"`
			} `json:"description"`
			Proxying   bool `json:"enableProxyingHttpRequest"`
			Forwarding bool `json:"enableForwardingHttpRequest"`
		} `json:"customHandler"`
		Extensions struct {
			HTTP struct {
				RoutePrefix string `json:"routePrefix"`
			} `json:"http"`
			ServiceBus map[string]any `json:"serviceBus"`
		} `json:"extensions"`
		Logging struct {
			LogLevel            map[string]string `json:"logLevel"`
			ApplicationInsights struct {
				Dependencies *bool `json:"enableDependencyTracking"`
				Sampling     struct {
					IsEnabled     bool    `json:"isEnabled"`
					ItemsPerSec   float64 `json:"maxTelemetryItemsPerSecond"`
					ExcludedTypes string  `json:"excludedTypes"`
				} `json:"samplingSettings"`
			} `json:"applicationInsights"`
		} `json:"logging"`
	}
	strictly(t, "../host.json", &host)

	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"version", host.Version, "2.0"},
		{"functionTimeout", host.FunctionTimeout, "00:10:00"},
		{"extension bundle", host.ExtensionBundle.ID + " " + host.ExtensionBundle.Version,
			"Microsoft.Azure.Functions.ExtensionBundle [4.*, 5.0.0)"},
		{"executable", host.CustomHandler.Description.DefaultExecutablePath, handlerName},
		{"proxying", host.CustomHandler.Proxying, true},
		{"forwarding", host.CustomHandler.Forwarding, true},
		{"route prefix", host.Extensions.HTTP.RoutePrefix, "api"},
		{"Service Bus", asJSON(t, host.Extensions.ServiceBus), asJSON(t, map[string]any{
			"autoCompleteMessages":         true,
			"maxConcurrentSessions":        16,
			"maxConcurrentCallsPerSession": 1,
			"sessionIdleTimeout":           "00:00:01",
			"maxAutoLockRenewalDuration":   "00:05:00",
			"prefetchCount":                0,
		})},
		// The handler's own lines, audit lines among them, come out of its
		// stdout as traces of this category. They must all be kept.
		{"level of the handler's lines", host.Logging.LogLevel["Host.Function.Console"], "Information"},
		// The host's own call of the handler would be kept with its whole URL: function keys in
		// ?code= and authorization codes, readable for everybody who reads the workspace.
		{"dependency tracking is off", host.Logging.ApplicationInsights.Dependencies != nil &&
			!*host.Logging.ApplicationInsights.Dependencies, true},
		{"traces kept", slices.Contains(strings.Split(host.Logging.ApplicationInsights.Sampling.ExcludedTypes, ";"),
			"Trace"), true},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}

// localSettings are the settings of local.settings.json.sample: the host's own
// two, and those of patrol's that have no default, or whose default means Azure.
// Left to their defaults: PATROL_MANIFEST. Not for a local run:
// ServiceBusConnection__* (a plain connection string takes their place),
// SERVICE_BUS_TRANSPORT and ENTRA_CERTIFICATE.
var localSettings = []string{
	"AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME",
	"KEY_VAULT_URL", "ServiceBusConnection",
	"COMMAND_QUEUE", "VAULT_EVENT_QUEUE", "CONFIRMATION_QUEUE", "EVENT_TOPIC", "CHECK_SCHEDULE",
	"AZURE_CLIENT_ID", "ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "ENTRA_CLIENT_CREDENTIAL",
	"AZURE_AUTHORITY_HOST", "AZURE_DEVOPS_URL", "AZURE_DEVOPS_VSSPS_URL",
	"PUBLIC_URL", "STATE_URL", "PATROL_LOCAL", "LOG_LEVEL",
}

func sample(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		IsEncrypted bool
		Values      map[string]string
	}
	strictly(t, "../local.settings.json.sample", &file)
	if file.IsEncrypted {
		t.Error("IsEncrypted is true: nobody could read the sample")
	}
	return file.Values
}

func TestTheSampleHasTheSettingsThatALocalRunNeeds(t *testing.T) {
	values := sample(t)
	if got, want := slices.Sorted(maps.Keys(values)), slices.Sorted(slices.Values(localSettings)); !slices.Equal(got,
		want) {
		t.Errorf("settings\n got %q\nwant %q", got, want)
	}
	for name, want := range map[string]string{
		"FUNCTIONS_WORKER_RUNTIME": "custom",
		"COMMAND_QUEUE":            "pat-commands",
		"VAULT_EVENT_QUEUE":        "vault-events",
		"CONFIRMATION_QUEUE":       "pat-confirmations",
		"EVENT_TOPIC":              "pat-events",
		"ENTRA_CLIENT_CREDENTIAL":  "none",
		"PATROL_LOCAL":             "true",
	} {
		if values[name] != want {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
	if fields := strings.Fields(values["CHECK_SCHEDULE"]); len(fields) != 6 {
		t.Errorf("CHECK_SCHEDULE has %d fields, want 6", len(fields))
	}
}

func TestTheSampleStaysOnLoopback(t *testing.T) {
	// PATROL_LOCAL is refused beside a URL that leads anywhere else.
	seen := 0
	for name, value := range sample(t) {
		if name == "ServiceBusConnection" {
			value, _, _ = strings.Cut(strings.TrimPrefix(value, "Endpoint="), ";")
		}
		u, err := url.Parse(value)
		if err != nil || u.Scheme == "" || u.Host == "" {
			continue
		}
		seen++
		if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
			t.Errorf("%s leads to %s, which is not loopback", name, u.Hostname())
		}
	}
	if seen != 7 {
		t.Errorf("found %d URLs, want 7", seen)
	}
}

func TestEverySettingThatTheHostReadsIsInTheSample(t *testing.T) {
	values := sample(t)
	reference := regexp.MustCompile(`%([^%"\s]+)%`)
	files, err := filepath.Glob("../functions/*/function.json")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range append(files, "../host.json") {
		for _, match := range reference.FindAllSubmatch(readFile(t, file), -1) {
			name := string(match[1])
			found[name] = true
			if values[name] == "" {
				t.Errorf("%s uses %%%s%%, which the sample does not set", file, name)
			}
		}
	}
	for name, bs := range bindings(t) {
		for _, b := range bs {
			if b.Connection != "" && values[b.Connection] == "" {
				t.Errorf("%s connects by %s, which the sample does not set", name, b.Connection)
			}
		}
	}
	if got, want := slices.Sorted(maps.Keys(found)), []string{"CHECK_SCHEDULE", "COMMAND_QUEUE",
		"CONFIRMATION_QUEUE", "VAULT_EVENT_QUEUE"}; !slices.Equal(got, want) {
		t.Errorf("settings in function.json files: %q, want %q", got, want)
	}
}
