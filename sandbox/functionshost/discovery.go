package functionshost

import (
	"cmp"
	"encoding/json"
	"errors"
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

func (b *binding) takesBatches() bool { return strings.EqualFold(b.Cardinality, "many") }

type authLevel int

const (
	levelAnonymous authLevel = iota
	levelFunction
	levelAdmin
)

// function is a loaded function.
type function struct {
	name     string
	group    *group
	trigger  *binding
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
		name, folder := e.Name(), filepath.Join(dir, e.Name())
		info, err := os.Stat(folder) // follows links
		if err != nil || !info.IsDir() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(folder, "function.json"))
		if os.IsNotExist(err) {
			continue // an ordinary folder; nobody looks for functions below it
		}
		if !o.lists(name) {
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
		const none = "no functions found directly below the script root; the handler is not started"
		problems = append(problems, Problem{Message: none})
	}
	return functions, append(problems, overlaps(functions)...), nil
}

// lists reports whether host.json lets a function run.
func (o *hostOptions) lists(name string) bool {
	sameName := func(n string) bool { return strings.EqualFold(n, name) }
	return o.functions == nil || slices.ContainsFunc(o.functions, sameName)
}

// functionFile is function.json.
type functionFile struct {
	Bindings   []binding       `json:"bindings"`
	Disabled   any             `json:"disabled"`
	ScriptFile string          `json:"scriptFile"`
	Retry      json.RawMessage `json:"retry"`
}

func load(name, folder string, raw []byte, o *hostOptions, s settings) (*function, error) {
	if !functionName.MatchString(name) || strings.EqualFold(name, "host") {
		return nil, fmt.Errorf("'%s' is not a valid function name", name)
	}
	var file functionFile
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("parsing function.json: %w", err)
	}
	if file.ScriptFile != "" && !isFile(filepath.Join(folder, file.ScriptFile)) {
		return nil, fmt.Errorf("invalid script file name configuration: '%s' does not exist", file.ScriptFile)
	}
	if len(file.Retry) > 0 && string(file.Retry) != "null" {
		return nil, errors.New("retry policies are not offered by this host")
	}
	trigger, outputs, err := file.split(o)
	if err != nil {
		return nil, err
	}
	f := &function{name: name, trigger: trigger, disabled: isDisabled(name, file.Disabled, s)}
	switch {
	case trigger.is(typeHTTPTrigger) && outputs != 1:
		err = fmt.Errorf("an httpTrigger with %d http outputs, not one, comes in an envelope, "+
			"which this host does not offer", outputs)
	case trigger.is(typeHTTPTrigger):
		err = f.loadHTTP(o)
	case trigger.is(typeTimerTrigger):
		err = f.loadTimer(s)
	default:
		err = f.loadServiceBus(s)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// split finds the trigger among the bindings and counts the outputs.
func (file *functionFile) split(o *hostOptions) (trigger *binding, outputs int, err error) {
	if len(file.Bindings) == 0 {
		return nil, 0, errors.New("at least one binding must be declared")
	}
	names := map[string]bool{}
	for i := range file.Bindings {
		b := &file.Bindings[i]
		if err := b.check(o); err != nil {
			return nil, 0, err
		}
		key := strings.ToLower(b.Name)
		if names[key] {
			return nil, 0, fmt.Errorf("multiple bindings are named '%s'; binding names must be unique", b.Name)
		}
		names[key] = true
		switch {
		case b.is(typeHTTP) && outputs > 0:
			return nil, 0, errors.New("more than one http output binding")
		case b.is(typeHTTP):
			outputs++
		case trigger != nil:
			return nil, 0, errors.New("multiple trigger bindings defined; " +
				"a function can only have a single trigger binding")
		default:
			trigger = b
		}
	}
	if trigger == nil {
		return nil, 0, errors.New("no trigger binding specified; a function must have a trigger input binding")
	}
	return trigger, outputs, nil
}

// check refuses a binding that is neither one of the triggers nor an http output.
func (b *binding) check(o *hostOptions) error {
	if b.Type == "" {
		return errors.New("a binding has no type")
	}
	if !bindingName.MatchString(b.Name) {
		return fmt.Errorf("the binding name '%s' is invalid: a letter, then letters and digits only, or $return",
			b.Name)
	}
	isInput := b.Direction == "" || strings.EqualFold(b.Direction, "in")
	isOutput := strings.EqualFold(b.Direction, "out")
	isTrigger := strings.HasSuffix(strings.ToLower(b.Type), "trigger")
	switch {
	case isOutput && isTrigger:
		return fmt.Errorf("the trigger binding '%s' has direction out", b.Name)
	case !isInput && !isOutput:
		return fmt.Errorf("binding '%s': direction '%s' is not offered by this host", b.Name, b.Direction)
	case !slices.Contains([]string{"", "string", "binary"}, strings.ToLower(b.DataType)):
		return fmt.Errorf("binding '%s': dataType '%s' is not offered by this host", b.Name, b.DataType)
	case b.is(typeServiceBusTrigger) && !o.bundle:
		return fmt.Errorf("the binding type(s) '%s' are not registered: host.json has no extensionBundle", b.Type)
	case b.is(typeHTTPTrigger), b.is(typeTimerTrigger), b.is(typeServiceBusTrigger), b.is(typeHTTP) && isOutput:
		return nil
	}
	return fmt.Errorf("the binding type(s) '%s' (direction '%s') are not registered; "+
		"please ensure the type is correct and the binding extension is installed", b.Type, b.Direction)
}

// isDisabled reads function.json's disabled (true, or the name of a setting) and the
// settings that win over it.
func isDisabled(name string, inFile any, s settings) bool {
	for _, key := range []string{"AzureWebJobs." + name + ".Disabled", "AzureWebJobs_" + name + "_Disabled"} {
		if v, ok := s.get(key); ok {
			return isTrue(v)
		}
	}
	switch d := inFile.(type) {
	case bool:
		return d
	case string:
		v, _ := s.get(d)
		return isTrue(d) || isTrue(v)
	}
	return false
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
			return errors.New("the specified route conflicts with one or more built in routes")
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
		return errors.New("the timer listener needs the app setting AzureWebJobsStorage")
	}
	text, err := s.resolve(f.trigger.Schedule)
	if err != nil {
		return err
	}
	f.schedule, err = parseSchedule(text)
	if err != nil {
		return err
	}
	f.useMonitor = (f.trigger.UseMonitor == nil || *f.trigger.UseMonitor) && !subMinute(f.schedule)
	return nil
}

func (f *function) loadServiceBus(s settings) error {
	b := f.trigger
	for _, p := range []*string{&b.QueueName, &b.TopicName, &b.SubscriptionName, &b.Connection} {
		v, err := s.resolve(*p)
		if err != nil {
			return err
		}
		*p = v
	}
	ofQueue := b.QueueName != "" && b.TopicName == "" && b.SubscriptionName == ""
	ofTopic := b.QueueName == "" && b.TopicName != "" && b.SubscriptionName != ""
	if !ofQueue && !ofTopic {
		return errors.New("a serviceBusTrigger wants either queueName or topicName and subscriptionName")
	}
	if !slices.Contains([]string{"", "one", "many"}, strings.ToLower(b.Cardinality)) {
		return fmt.Errorf("cardinality '%s' is neither one nor many", b.Cardinality)
	}
	if b.Connection == "" {
		b.Connection = "ServiceBus" // found as AzureWebJobsServiceBus
	}
	if b.MaxMessageBatchSize < 0 {
		return errors.New("maxMessageBatchSize must not be negative")
	}
	return nil
}

// overlaps reports functions whose templates and methods overlap: the first by name
// takes what both match.
func overlaps(functions []*function) []Problem {
	var problems []Problem
	for i, first := range functions {
		for _, second := range functions[i+1:] {
			if !first.isRouted() || !second.isRouted() {
				continue
			}
			if shareMethod(first.methods, second.methods) && first.template.overlaps(second.template) {
				problems = append(problems, Problem{Function: second.name, Message: fmt.Sprintf(
					"its route '%s' matches requests that the route '%s' of function '%s' matches too; "+
						"'%s' comes first by name and takes them",
					second.template.text, first.template.text, first.name, first.name)})
			}
		}
	}
	return problems
}

// isRouted reports whether HTTP requests can reach the function.
func (f *function) isRouted() bool { return f.template != nil && !f.disabled }

func shareMethod(a, b []string) bool {
	return a == nil || b == nil || slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}
