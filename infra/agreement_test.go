package infra_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse reads a Go file of the project.
func parse(t *testing.T, name string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// text gives the value of a constant text, or of a sum of a known name and one.
func text(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		return "ServiceBusConnection", e.Name == "busSetting"
	case *ast.BinaryExpr:
		x, okX := text(e.X)
		y, okY := text(e.Y)
		return x + y, okX && okY
	}
	return "", false
}

// localSettings are read by the handler and are for a stack on loopback.
var localSettings = []string{"PATROL_LOCAL", "ServiceBusConnection"}

// handlerSettings are those that the handler reads, taken from its code, without those
// for local work and those that the platform sets.
func handlerSettings(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	ast.Inspect(parse(t, "../internal/app/settings.go"), func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if ok && f.Sel.Name == "below" {
			if key, ok := text(call.Args[1]); ok {
				found["ServiceBusConnection__"+key] = true
			}
			return true
		}
		if !ok || f.Sel.Name != "text" && f.Sel.Name != "required" {
			return true
		}
		if name, ok := text(call.Args[0]); ok {
			found[name] = true
		}
		return true
	})
	if len(found) < 10 {
		t.Fatalf("the handler's settings are read in another way than this test knows: found %v", found)
	}
	// Optional, and set by the templates however settings.go reads it.
	found["STATE_URL"], found["CONFIRMATION_QUEUE"] = true, true
	maps.DeleteFunc(found, func(name string, _ bool) bool {
		return strings.HasPrefix(name, "WEBSITE_") || slices.Contains(localSettings, name)
	})
	return slices.Sorted(maps.Keys(found))
}

// sandboxEntities are the queues, topics and subscriptions that the sandbox makes, by
// name, with properties named as in the templates.
func sandboxEntities(t *testing.T) map[string]map[string]any {
	t.Helper()
	type entity struct {
		Name          string
		Properties    map[string]any
		Subscriptions []entity
	}
	var file struct {
		UserConfig struct {
			Namespaces []struct{ Queues, Topics []entity }
		}
	}
	readJSON(t, "../sandbox/cloud/entities.json", &file)
	all := map[string]map[string]any{}
	var add func(es []entity)
	add = func(es []entity) {
		for _, e := range es {
			all[e.Name] = map[string]any{}
			for name, v := range e.Properties {
				all[e.Name][strings.ToLower(name[:1])+name[1:]] = v
			}
			add(e.Subscriptions)
		}
	}
	for _, ns := range file.UserConfig.Namespaces {
		add(ns.Queues)
		add(ns.Topics)
	}
	return all
}

type trigger struct {
	Type              string
	QueueName         string
	Schedule          string
	Connection        string
	IsSessionsEnabled bool
}

// triggers are the first bindings of the functions, by function.
func triggers(t *testing.T) map[string]trigger {
	t.Helper()
	files, err := filepath.Glob("../functions/*/function.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no functions: %v", err)
	}
	all := map[string]trigger{}
	for _, name := range files {
		var f struct{ Bindings []trigger }
		readJSON(t, name, &f)
		all[filepath.Base(filepath.Dir(name))] = f.Bindings[0]
	}
	return all
}

type hostServiceBus struct{ MaxAutoLockRenewalDuration string }

func hostSettings(t *testing.T) hostServiceBus {
	t.Helper()
	var host struct {
		Extensions struct{ ServiceBus hostServiceBus }
	}
	readJSON(t, "../host.json", &host)
	return host.Extensions.ServiceBus
}

// sampleAgrees holds local.settings.json.sample against what is deployed.
func sampleAgrees(t *testing.T, d *deployment) (problems []string) {
	if d.plain == nil {
		return nil
	}
	say := func(format string, args ...any) {
		problems = append(problems, "local.settings.json.sample: "+fmt.Sprintf(format, args...))
	}
	var sample struct{ Values map[string]string }
	readJSON(t, "../local.settings.json.sample", &sample)
	deployed := appSettings(d.plain)
	local := append([]string{"AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME"}, localSettings...)
	for name := range sample.Values {
		if _, ok := deployed[name]; !ok && !slices.Contains(local, name) {
			say("%s is not deployed", name)
		}
	}
	for name := range deployed {
		// The sample has a connection string, and the manifest's default path.
		hidden := slices.Contains(platformSettings, name) || strings.HasPrefix(name, "ServiceBusConnection__") ||
			name == "PATROL_MANIFEST"
		if _, ok := sample.Values[name]; !ok && !hidden {
			say("%s is deployed and is missing", name)
		}
	}
	for _, name := range []string{"COMMAND_QUEUE", "VAULT_EVENT_QUEUE", "CONFIRMATION_QUEUE", "EVENT_TOPIC",
		"CHECK_SCHEDULE",
		"LOG_LEVEL"} {
		if deployed[name] != sample.Values[name] {
			say("%s is %q, when deployed %v", name, sample.Values[name], deployed[name])
		}
	}
	for _, name := range []string{"COMMAND_QUEUE", "VAULT_EVENT_QUEUE", "CONFIRMATION_QUEUE", "EVENT_TOPIC"} {
		if sandboxEntities(t)[sample.Values[name]] == nil {
			say("%s is %s, which the sandbox does not make", name, sample.Values[name])
		}
	}
	return problems
}

// --- Terraform makes the same

// terraform is the text of the Terraform files.
func terraform(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("terraform", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) == ".tf" {
			data, err := os.ReadFile(path)
			all.Write(data)
			all.WriteByte('\n')
			return err
		}
		return err
	})
	if err != nil || all.Len() == 0 {
		t.Skip("NOTICE: there is no Terraform to compare with")
	}
	return all.String()
}

// block gives the inside of a block that begins a line, as terraform fmt writes it.
func block(t *testing.T, source, head string) string {
	t.Helper()
	_, rest, ok := strings.Cut("\n"+source, "\n"+head+" {\n")
	if !ok {
		t.Fatalf("Terraform: there is no %s", head)
	}
	body, _, _ := strings.Cut(rest, "\n}")
	return body
}

var hclArgument = regexp.MustCompile(`(?m)^ *([A-Za-z_-][A-Za-z0-9_-]*) += (.*)$`)

// arguments of a block, with texts unquoted.
func arguments(body string) map[string]string {
	all := map[string]string{}
	for _, m := range hclArgument.FindAllStringSubmatch(body, -1) {
		all[m[1]] = strings.Trim(m[2], `"`)
	}
	return all
}

var hclNames = map[string]string{
	"requires_session": "requiresSession", "requires_duplicate_detection": "requiresDuplicateDetection",
	"duplicate_detection_history_time_window": "duplicateDetectionHistoryTimeWindow", "lock_duration": "lockDuration",
	"max_delivery_count": "maxDeliveryCount", "default_message_ttl": "defaultMessageTimeToLive",
	"dead_lettering_on_message_expiration": "deadLetteringOnMessageExpiration",
}

func TestTerraformMakesTheSameQueues(t *testing.T) {
	t.Parallel()
	source := terraform(t)
	for kind, label := range map[string]string{
		`resource "azurerm_servicebus_queue" "commands"`:      "command_queue",
		`resource "azurerm_servicebus_queue" "vault_events"`:  "vault_event_queue",
		`resource "azurerm_servicebus_queue" "confirmations"`: "confirmation_queue",
		`resource "azurerm_servicebus_topic" "events"`:        "event_topic",
		`resource "azurerm_servicebus_subscription" "all"`:    "event_subscription",
	} {
		args := arguments(block(t, source, kind))
		if args["name"] != "local."+label {
			t.Errorf("%s: its name is %s, not local.%s", kind, args["name"], label)
		}
		m := regexp.MustCompile(`(?m)^ *` + label + ` += "([^"]*)"$`).FindStringSubmatch(source)
		if m == nil {
			t.Errorf("Terraform: local.%s is not set", label)
			continue
		}
		want := map[string]string{}
		for p, v := range sandboxEntities(t)[m[1]] {
			want[p] = fmt.Sprint(v)
		}
		for p, v := range entityExtras[m[1]] {
			want[p] = fmt.Sprint(v)
		}
		got := map[string]string{}
		for name, v := range args {
			if p, ok := hclNames[name]; ok {
				got[p] = v
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("Terraform, %s\n got %v\nwant %v", m[1], got, want)
		}
	}
}

func TestTerraformMakesTheSameSettings(t *testing.T) {
	t.Parallel()
	source := terraform(t)
	_, rest, ok := strings.Cut(source, "  settings = merge(")
	body, _, _ := strings.Cut(rest, "\n  )\n")
	if !ok {
		t.Fatal("Terraform: the settings are written in another way than this test knows")
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?:^|[{\s])([A-Za-z][A-Za-z0-9]*_[A-Za-z0-9_]+) += `).
		FindAllStringSubmatch(body, -1) {
		got = append(got, m[1])
	}
	want := slices.DeleteFunc(append(handlerSettings(t), platformSettings...),
		func(s string) bool { return slices.Contains(optionalSettings, s) })
	want = append(want, optionalSettings...)
	for _, problem := range differences("Terraform's app settings", got, want) {
		t.Error(problem)
	}
}

func TestTerraformGivesTheSameRoles(t *testing.T) {
	t.Parallel()
	source := terraform(t)
	ids := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ *([a-z_]+) += "([0-9a-f]{8}-[0-9a-f-]{27})"$`).
		FindAllStringSubmatch(source, -1) {
		ids[m[1]] = m[2]
	}
	scopes := map[string]string{
		"azurerm_storage_account.host.id": "Microsoft.Storage/storageAccounts/st*",
		"azurerm_storage_container.state.id": "Microsoft.Storage/storageAccounts/st*/blobServices/default/" +
			"containers/patrol-state",
		"azurerm_key_vault.vault.id":                "Microsoft.KeyVault/vaults/kv-*",
		"azurerm_servicebus_queue.commands.id":      "Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-commands",
		"azurerm_servicebus_queue.vault_events.id":  "Microsoft.ServiceBus/namespaces/sbns-*/queues/vault-events",
		"azurerm_servicebus_queue.confirmations.id": "Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-confirmations",
		"azurerm_servicebus_topic.events.id":        "Microsoft.ServiceBus/namespaces/sbns-*/topics/pat-events",
		"azurerm_application_insights.insights.id":  "Microsoft.Insights/components/appi-*",
	}
	who := map[string]string{"local.app": "app", "local.event": "eventGrid"}
	var got []string
	for _, m := range regexp.MustCompile(`\{ who = (\S+), role = "(\S+)", scope = (\S+) \}`).
		FindAllStringSubmatch(source, -1) {
		got = append(got, who[m[1]]+" "+ids[m[2]]+" "+scopes[m[3]])
	}
	for _, problem := range differences("Terraform's roles", got, roles) {
		t.Error(problem)
	}
	confirms := regexp.MustCompile(`who = id, role = "service_bus_data_sender", ` +
		`scope = azurerm_servicebus_queue\.confirmations\.id\b`)
	if !confirms.MatchString(source) {
		t.Error("Terraform: a consumer is not sender on the queue of confirmations")
	}
	if n := strings.Count(source, `resource "azurerm_role_assignment"`); n != 1 {
		t.Errorf("Terraform: %d kinds of role assignments, this test knows one", n)
	}
}

func TestTerraformHasTheSameOutputsAndAlerts(t *testing.T) {
	t.Parallel()
	source := terraform(t)
	named := func(pattern string) (all []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(source, -1) {
			all = append(all, m[1])
		}
		return all
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^output ([A-Z_]+) `).FindAllStringSubmatch(readFile(t, "main.bicep"),
		-1) {
		want = append(want, m[1])
	}
	for _, problem := range differences("Terraform's outputs", named(`(?m)^output "([A-Z_]+)"`), want) {
		t.Error(problem)
	}
	for _, problem := range differences("Terraform's alerts", named(`(?m)^    ([a-z-]+) = \{\n +text +=`), alertNames) {
		t.Error(problem)
	}
	for _, problem := range differences("Terraform's event types", named(`(?m)^ +"(Microsoft\.KeyVault\.\w+)",?$`),
		vaultEventTypes) {
		t.Error(problem)
	}
	for name := range queryFiles(t) {
		if !strings.Contains(source, "/../queries/"+name) {
			t.Errorf("Terraform does not use queries/%s", name)
		}
	}
}

// Whatever can be chosen in one can be chosen in the other, with the same default.
func TestTerraformHasTheSameParameters(t *testing.T) {
	t.Parallel()
	terraform(t) // skips if there is none
	for _, problem := range parametersDiffer(readFile(t, "main.bicep"), readFile(t, "terraform/variables.tf")) {
		t.Error(problem)
	}
}

func parametersDiffer(bicep, variables string) (problems []string) {
	got := map[string]string{}
	declared := regexp.MustCompile(`(?ms)^variable "([a-z_]+)" \{\n(.*?)^\}`)
	for _, m := range declared.FindAllStringSubmatch(variables, -1) {
		dflt, ok := arguments(m[2])["default"]
		if !ok {
			dflt = "(none)"
		}
		got[m[1]] = dflt
	}
	want := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^param (\w+) [^=\n]+?(?: = (.*))?$`).FindAllStringSubmatch(bicep, -1) {
		name := strings.ToLower(words(m[1]))
		want[name] = strings.Trim(m[2], "'")
		if m[2] == "" {
			want[name] = "(none)"
		}
	}
	// Whoever deploys the template gives it these.
	delete(got, "subscription_id")
	delete(got, "register_providers")
	// Bicep has an entry point for it, and azapi does not know this property yet.
	delete(got, "resource_group")
	delete(want, "site_update_strategy")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if dflt, ok := got[name]; !ok || dflt != want[name] {
			problems = append(problems, fmt.Sprintf("Terraform's variable %s is %q by default, in Bicep %q", name,
				got[name], want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			problems = append(problems, "Terraform's variable "+name+" is unknown in Bicep")
		}
	}
	return problems
}
