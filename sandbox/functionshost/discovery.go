package functionshost

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Binding types that this host knows, as function.json writes them (any case).
const (
	typeHTTPTrigger       = "httptrigger"
	typeTimerTrigger      = "timertrigger"
	typeServiceBusTrigger = "servicebustrigger"
	typeHTTP              = "http"
)

// binding is one entry of function.json's bindings.
type binding struct {
	Type      string `json:"type"`
	Direction string `json:"direction"`
	Name      string `json:"name"`
	DataType  string `json:"dataType"`

	// httpTrigger
	AuthLevel string   `json:"authLevel"`
	Methods   []string `json:"methods"`
	Route     *string  `json:"route"`

	// timerTrigger
	Schedule     string `json:"schedule"`
	RunOnStartup bool   `json:"runOnStartup"`
	UseMonitor   *bool  `json:"useMonitor"`

	// serviceBusTrigger
	QueueName            string `json:"queueName"`
	TopicName            string `json:"topicName"`
	SubscriptionName     string `json:"subscriptionName"`
	Connection           string `json:"connection"`
	IsSessionsEnabled    bool   `json:"isSessionsEnabled"`
	AutoCompleteMessages *bool  `json:"autoCompleteMessages"`
	MaxMessageBatchSize  int    `json:"maxMessageBatchSize"`
	Cardinality          string `json:"cardinality"`
}

func (b *binding) is(kind string) bool { return strings.EqualFold(b.Type, kind) }

type authLevel int

const (
	levelAnonymous authLevel = iota
	levelFunction
	levelAdmin
)

func (l authLevel) String() string {
	return [...]string{"Anonymous", "Function", "Admin"}[l]
}

// function is a loaded function.
type function struct {
	name    string
	trigger *binding
	httpOut *binding // nil: none

	// plain: exactly one input, an httpTrigger, and one output, http. Only such
	// a function is ever forwarded or proxied.
	plain    bool
	disabled bool

	level    authLevel
	methods  []string // upper case; nil: all
	template *template

	schedule   schedule
	useMonitor bool
}

func (f *function) allows(method string) bool {
	return f.methods == nil || slices.Contains(f.methods, method)
}

var (
	functionName = regexp.MustCompile(`^(?i)[a-z][a-z0-9_\-]{0,127}$`)
	bindingName  = regexp.MustCompile(`^(?:[a-zA-Z][a-zA-Z0-9]{0,127}|\$return)$`)
)

// discover lists the functions directly below the app folder, by name, and what
// is wrong with them.
func discover(dir string, o *hostOptions, s settings) ([]*function, []Problem, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the script root: %w", err)
	}
	var (
		functions []*function
		problems  []Problem
	)
	for _, e := range entries {
		folder := filepath.Join(dir, e.Name())
		info, err := os.Stat(folder) // follows links
		if err != nil || !info.IsDir() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(folder, "function.json"))
		if os.IsNotExist(err) {
			continue // an ordinary folder; what is below it is not looked at
		}
		name := e.Name()
		if o.functions != nil && !slices.ContainsFunc(o.functions, func(n string) bool { return strings.EqualFold(n, name) }) {
			continue
		}
		var f *function
		if err == nil {
			f, err = load(name, folder, raw, o, s)
		}
		if err != nil {
			problems = append(problems, Problem{Function: name, Message: err.Error(), InError: true})
			continue
		}
		functions = append(functions, f)
	}
	slices.SortFunc(functions, func(a, b *function) int {
		return cmp.Or(cmp.Compare(strings.ToUpper(a.name), strings.ToUpper(b.name)), cmp.Compare(a.name, b.name))
	})
	if len(functions) == 0 {
		problems = append(problems, Problem{Message: "no functions found directly below the script root; the handler is not started"})
	}
	return functions, append(problems, overlaps(functions)...), nil
}

func load(name, folder string, raw []byte, o *hostOptions, s settings) (*function, error) {
	if !functionName.MatchString(name) || strings.EqualFold(name, "host") {
		return nil, fmt.Errorf("'%s' is not a valid function name", name)
	}
	var file struct {
		Bindings   []binding       `json:"bindings"`
		Disabled   any             `json:"disabled"`
		ScriptFile string          `json:"scriptFile"`
		Retry      json.RawMessage `json:"retry"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("parsing function.json: %w", err)
	}
	if file.ScriptFile != "" && !isFile(filepath.Join(folder, file.ScriptFile)) {
		return nil, fmt.Errorf("invalid script file name configuration: '%s' does not exist", file.ScriptFile)
	}
	if len(file.Retry) > 0 && string(file.Retry) != "null" {
		return nil, fmt.Errorf("retry policies are not offered by this host")
	}
	f := &function{name: name}
	if len(file.Bindings) == 0 {
		return nil, fmt.Errorf("at least one binding must be declared")
	}
	var inputs, outputs int
	names := map[string]bool{}
	for i := range file.Bindings {
		b := &file.Bindings[i]
		if b.Type == "" {
			return nil, fmt.Errorf("a binding has no type")
		}
		if !bindingName.MatchString(b.Name) {
			return nil, fmt.Errorf("the binding name '%s' is invalid: a letter, then letters and digits only, or $return", b.Name)
		}
		if names[strings.ToLower(b.Name)] {
			return nil, fmt.Errorf("multiple bindings are named '%s'; binding names must be unique", b.Name)
		}
		names[strings.ToLower(b.Name)] = true
		isTrigger := strings.HasSuffix(strings.ToLower(b.Type), "trigger")
		switch strings.ToLower(b.Direction) {
		case "in", "":
			inputs++
		case "out":
			if isTrigger {
				return nil, fmt.Errorf("the trigger binding '%s' has direction out", b.Name)
			}
			outputs++
		default:
			return nil, fmt.Errorf("binding '%s': direction '%s' is not offered by this host", b.Name, b.Direction)
		}
		switch strings.ToLower(b.DataType) {
		case "", "string", "binary":
		default:
			return nil, fmt.Errorf("binding '%s': dataType '%s' is not offered by this host", b.Name, b.DataType)
		}
		switch {
		case b.is(typeHTTPTrigger), b.is(typeTimerTrigger), b.is(typeServiceBusTrigger) && o.bundle:
			if f.trigger != nil {
				return nil, fmt.Errorf("multiple trigger bindings defined; a function can only have a single trigger binding")
			}
			f.trigger = b
		case b.is(typeHTTP) && strings.EqualFold(b.Direction, "out"):
			if f.httpOut != nil {
				return nil, fmt.Errorf("more than one http output binding")
			}
			f.httpOut = b
		case b.is(typeServiceBusTrigger):
			return nil, fmt.Errorf("the binding type(s) '%s' are not registered: host.json has no extensionBundle", b.Type)
		default:
			return nil, fmt.Errorf("the binding type(s) '%s' (direction '%s') are not registered; please ensure the type is correct and the binding extension is installed", b.Type, b.Direction)
		}
	}
	if f.trigger == nil {
		return nil, fmt.Errorf("no trigger binding specified; a function must have a trigger input binding")
	}
	switch d := file.Disabled.(type) {
	case bool:
		f.disabled = d
	case string:
		v, _ := s.get(d)
		f.disabled = isTrue(d) || isTrue(v)
	}
	for _, key := range []string{"AzureWebJobs." + name + ".Disabled", "AzureWebJobs_" + name + "_Disabled"} {
		if v, ok := s.get(key); ok {
			f.disabled = isTrue(v)
			break
		}
	}

	var err error
	switch {
	case f.trigger.is(typeHTTPTrigger):
		f.plain = inputs == 1 && outputs == 1 && f.httpOut != nil
		err = f.loadHTTP(o)
	case f.trigger.is(typeTimerTrigger):
		err = f.loadTimer(s)
	default:
		err = f.loadServiceBus(o, s)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *function) loadHTTP(o *hostOptions) error {
	b := f.trigger
	switch strings.ToLower(b.AuthLevel) {
	case "anonymous":
		f.level = levelAnonymous
	case "function", "":
		f.level = levelFunction
	case "admin":
		f.level = levelAdmin
	default:
		return fmt.Errorf("authLevel '%s' is none of anonymous, function, admin", b.AuthLevel)
	}
	for _, m := range b.Methods {
		f.methods = append(f.methods, strings.ToUpper(m))
	}
	route := f.name
	if b.Route != nil && strings.TrimSpace(*b.Route) != "" {
		route = *b.Route
	}
	route = strings.TrimPrefix(route, "/")
	for _, reserved := range []string{"admin", "runtime"} {
		if len(route) >= len(reserved) && strings.EqualFold(route[:len(reserved)], reserved) {
			return fmt.Errorf("the specified route conflicts with one or more built in routes")
		}
	}
	full := route
	if o.routePrefix != "" {
		full = o.routePrefix + "/" + route
	}
	t, err := parseTemplate(full)
	if err != nil {
		return fmt.Errorf("the route '%s' is invalid: %w", route, err)
	}
	f.template = t
	return nil
}

func (f *function) loadTimer(s settings) error {
	// Timer states and locks live in this account.
	if v, _ := s.get("AzureWebJobsStorage"); v == "" && !s.hasGroup("AzureWebJobsStorage") {
		return fmt.Errorf("the timer listener needs the app setting AzureWebJobsStorage")
	}
	text, err := s.resolve(f.trigger.Schedule)
	if err != nil {
		return err
	}
	if f.schedule, err = parseSchedule(text); err != nil {
		return err
	}
	f.useMonitor = (f.trigger.UseMonitor == nil || *f.trigger.UseMonitor) && !subMinute(f.schedule)
	return nil
}

func (f *function) loadServiceBus(o *hostOptions, s settings) error {
	b := f.trigger
	for _, p := range []*string{&b.QueueName, &b.TopicName, &b.SubscriptionName, &b.Connection} {
		v, err := s.resolve(*p)
		if err != nil {
			return err
		}
		*p = v
	}
	switch {
	case b.QueueName != "" && b.TopicName == "" && b.SubscriptionName == "":
	case b.QueueName == "" && b.TopicName != "" && b.SubscriptionName != "":
	default:
		return fmt.Errorf("a serviceBusTrigger wants either queueName or topicName and subscriptionName")
	}
	switch strings.ToLower(b.Cardinality) {
	case "", "one", "many":
	default:
		return fmt.Errorf("cardinality '%s' is neither one nor many", b.Cardinality)
	}
	if b.Connection == "" {
		b.Connection = "ServiceBus" // found as AzureWebJobsServiceBus
	}
	if b.MaxMessageBatchSize < 0 {
		return fmt.Errorf("maxMessageBatchSize must not be negative")
	}
	return nil
}

// overlaps reports functions whose templates and methods meet: the first by name
// takes what both match.
func overlaps(functions []*function) []Problem {
	var problems []Problem
	for i, first := range functions {
		for _, second := range functions[i+1:] {
			if first.template == nil || second.template == nil || first.disabled || second.disabled {
				continue
			}
			if meet(first.methods, second.methods) && first.template.overlaps(second.template) {
				problems = append(problems, Problem{Function: second.name, Message: fmt.Sprintf(
					"its route '%s' matches requests that the route '%s' of function '%s' matches too; '%s' comes first by name and takes them",
					second.template.text, first.template.text, first.name, first.name)})
			}
		}
	}
	return problems
}

func meet(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}
