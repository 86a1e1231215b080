package infra_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A fault is one edit of the templates, and how it must be found.
type fault struct {
	name string
	file string
	edit func(string) string
	by   string // part of the compiler's work that is enough to see it
	want string // what the finding says
}

func swap(old, new string) func(string) string {
	return func(s string) string { return strings.Replace(s, old, new, 1) }
}

// without cuts from one text up to another.
func without(from, to string) func(string) string {
	return func(s string) string {
		before, rest, ok := strings.Cut(s, from)
		_, after, found := strings.Cut(rest, to)
		if !ok || !found {
			return s
		}
		return before + to + after
	}
}

var faults = []fault{
	{"a misspelt property", "modules/storage.bicep", swap("allowSharedKeyAccess:", "allowSharedKeysAccess:"),
		"template", `BCP089: The property "allowSharedKeysAccess"`},
	{"a value that is none of the enum's", "modules/vault.bicep", swap("name: 'standard'", "name: 'standart'"),
		"template", "BCP088"},
	{"an unknown api-version", "modules/events.bicep", swap("systemTopics@2025-02-15", "systemTopics@2025-02-16"),
		"template", "BCP081"},
	{"a parameter that nobody uses", "modules/bus.bicep",
		swap("param name string", "param name string\n\n@description('x')\nparam other string = ''"), "template",
		"no-unused-params"},
	{"a key in a setting", "modules/app.bicep",
		swap("LOG_LEVEL: logLevel", "LOG_LEVEL: logLevel\n      "+
			"KEY: listKeys(resourceId('Microsoft.Storage/storageAccounts', storageName), '2025-08-01').keys[0].value"),
		"template", "calls listKeys()"},
	{"a secret output", "modules/monitoring.bicep", swap("@description('Log Analytics workspace, by its id')",
		`@description('Where telemetry goes')
output telemetry string = insights.properties.ConnectionString

@description('Log Analytics workspace, by its id')`),
		"template", "monitoring: output telemetry gives a secret away"},
	{"a subscription that does not wait for its role", "main.bicep", func(s string) string {
		module, rest, _ := strings.Cut(s, "module events ")
		return module + "module events " + strings.Replace(rest, "  dependsOn: [roles]\n", "", 1)
	}, "template", "module events does not wait for roles"},
	{"a queue that the subscription does not wait for", "main.bicep",
		swap("queueId: bus.outputs.vaultEventQueueId",
			"queueId: '${group.id}/providers/Microsoft.ServiceBus/namespaces/${busName}/queues/${vaultEventQueue}'"),
		"template", "module events does not wait for bus"},
	{"a missing setting, and a needless one", "modules/app.bicep", swap("CHECK_SCHEDULE: checkSchedule",
		"FUNCTIONS_WORKER_RUNTIME: checkSchedule"), "plain", "plain app settings: CHECK_SCHEDULE is missing"},
	{"a missing role", "modules/roles.bicep", without("resource appOwnsCommands ", "resource appOwnsVaultEvents "),
		"plain",
		"plain roles: app 090c5cfd-751d-490a-894a-3ce6f1109419 " +
			"Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-commands is missing"},
	{"a role with which scheduled messages wake nobody", "modules/roles.bicep",
		swap("090c5cfd-751d-490a-894a-3ce6f1109419", "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"), "plain",
		"plain roles: app 090c5cfd-751d-490a-894a-3ce6f1109419 " +
			"Microsoft.ServiceBus/namespaces/sbns-*/queues/vault-events is missing"},
	{"a role on too much", "modules/roles.bicep", func(s string) string {
		return strings.NewReplacer("scope: bus::events\n", "scope: bus\n", "guid(bus::events.id", "guid(bus.id").
			Replace(s)
	}, "plain",
		"plain roles: app 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 Microsoft.ServiceBus/namespaces/sbns-* is too much"},
	{"a queue without sessions, with keys and old TLS", "modules/bus.bicep", func(s string) string {
		return strings.NewReplacer("requiresSession: true", "requiresSession: false", "'1.2'", "'1.0'").Replace(s)
	}, "plain", "plain pat-commands: requiresSession is false, in the sandbox true"},
}

// The checks are worth what they find.
func TestEachPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	compiler(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dir := copyTree(t)
			file := filepath.Join(dir, f.file)
			before := readFile(t, file)
			after := f.edit(before)
			if after == before {
				t.Fatal("the fault could not be planted: the file has changed")
			}
			if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
				t.Fatal(err)
			}
			d := compile(t, dir, f.by)
			var found []string
			for _, r := range rules {
				found = append(found, r.check(t, d)...)
			}
			if all := strings.Join(found, "\n"); !strings.Contains(all, f.want) {
				t.Errorf("not found: %s\nfound instead:\n%s", f.want, all)
			}
		})
	}
}
