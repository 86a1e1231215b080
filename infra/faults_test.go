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
	by   string // part of the compiler's work that is enough to see it, and which faults it is planted with
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
		"template findings", `BCP089: The property "allowSharedKeysAccess"`},
	{"a value that is none of the enum's", "modules/vault.bicep", swap("name: 'standard'", "name: 'standart'"),
		"template findings", "BCP088"},
	{"an unknown api-version", "modules/events.bicep", swap("systemTopics@2025-02-15", "systemTopics@2025-02-16"),
		"template findings", "BCP081"},
	{"a parameter that nobody uses", "modules/bus.bicep",
		swap(
			"param name string",
			"param name string\n\n@description('x')\nparam other string = ''",
		), "template findings",
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
	{"a subscription that does not wait for its role", "group.bicep", func(s string) string {
		module, rest, _ := strings.Cut(s, "module events ")
		return module + "module events " + strings.Replace(rest, "  dependsOn: [roles]\n", "", 1)
	}, "template", "module events does not wait for roles"},
	{"a queue that the subscription does not wait for", "group.bicep",
		swap(
			"queueId: bus.outputs.vaultEventQueueId",
			"queueId: '${resourceGroup().id}/providers/Microsoft.ServiceBus/namespaces/${busName}/"+
				"queues/${vaultEventQueue}'",
		),
		"template", "module events does not wait for bus"},
	{"a missing setting, and a needless one", "modules/app.bicep", swap("CHECK_SCHEDULE: checkSchedule",
		"FUNCTIONS_WORKER_RUNTIME: checkSchedule"), "plain", "plain app settings: CHECK_SCHEDULE is missing"},
	{"a missing role", "modules/roles.bicep", without("resource appOwnsCommands ", "resource appOwnsVaultEvents "),
		"plain roles",
		"plain roles: app 090c5cfd-751d-490a-894a-3ce6f1109419 " +
			"Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-commands is missing"},
	{"a role with which scheduled messages wake nobody", "modules/roles.bicep",
		swap("090c5cfd-751d-490a-894a-3ce6f1109419", "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"), "plain owner",
		"plain roles: app 090c5cfd-751d-490a-894a-3ce6f1109419 " +
			"Microsoft.ServiceBus/namespaces/sbns-*/queues/vault-events is missing"},
	{"a role on too much", "modules/roles.bicep", func(s string) string {
		return strings.NewReplacer("scope: bus::events\n", "scope: bus\n", "guid(bus::events.id", "guid(bus.id").
			Replace(s)
	}, "plain roles",
		"plain roles: app 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 Microsoft.ServiceBus/namespaces/sbns-* is too much"},
	{"a queue without sessions, with keys and old TLS", "modules/bus.bicep", func(s string) string {
		return strings.NewReplacer("requiresSession: true", "requiresSession: false", "'1.2'", "'1.0'").Replace(s)
	}, "plain", "plain pat-commands: requiresSession is false, in the sandbox true"},

	// That the app stands still unseen.
	{
		"waiting messages that nobody hears of",
		"modules/alerts.bicep",
		swap("aggregation: 'Minimum'", "aggregation: 'Maximum'"),
		"plain",
		"plain: waiting messages are found by ActiveMessagesMaximum",
	},
	{"a queue that is not watched", "modules/alerts.bicep",
		swap(
			"values: [commandQueue, vaultEventQueue, confirmationQueue]",
			"values: empty(commandQueue) ? [confirmationQueue] : [vaultEventQueue]",
		),
		"full", "full: waiting messages are found by"},
	{"instances of http alone", "modules/app.bicep", swap("'function:reconcile'", "'function:check'"), "full",
		"groups kept ready: function:reconcile 1 is missing"},
	// That a deployment resets what is not given.
	{"a parameter that azd cannot be given", "main.parameters.json", swap(`"alertEmail"`, `"alertMail"`), "template",
		"main.parameters.json gives alertMail, which nobody declares"},
	{"a parameter that stops at the first file", "main.bicep", swap(
		"alertEmail: alertEmail",
		"alertEmail: toLower(alertEmail)",
	), "template", "main.bicep gives [toLower(parameters('alertEmail'))] as alertEmail"},
	// That what is set beside the template vanishes.
	{
		"settings of one's own that are dropped",
		"modules/app.bicep",
		swap("...extraSettings\n", "...(empty(extraSettings) ? extraSettings : {})\n"),
		"full",
		"full app settings: OTEL_SERVICE_NAME is missing",
	},
	{
		"references that nobody reads",
		"modules/app.bicep",
		swap("    keyVaultReferenceIdentity: identityId\n", ""),
		"plain",
		"plain: settings that refer to a vault are read by another identity",
	},
	{"action groups that nobody notifies", "modules/alerts.bicep", swap("people.id] : [], actionGroupIds)",
		"people.id] : [], [])"), "landing", "notifies []"},
	// That what is off stays on.
	{"authentication that stays on", "modules/app.bicep", swap("resource authentication 'config' = {",
		"resource authentication 'config' = if (authenticates) {"), "plain",
		"plain: App Service authentication is not written"},
	{"authentication without a registration", "modules/app.bicep",
		swap("authenticationEnabled && !empty(entraClientId)", "authenticationEnabled"), "landing",
		"landing: App Service authentication is true, want false"},
	{"a vault whose rules are not looked at", "modules/vault.bicep", swap("publicAccess || !empty(allowedAddresses)",
		"publicAccess"), "full", "publicNetworkAccess is Disabled, must be Enabled"},
	// That an alert ends before its trouble.
	{"a query for what is told once", "queries/ends-soon.kql", swap("msg == 'sweep done'", "msg == 'event published'"),
		"plain", "plain ends-soon: it does not ask what the last sweeps have found"},
	{"a window of one sweep", "group.bicep", swap("sweepHours <= 12 ? 'P1D' : 'P2D'", "'P1D'"), "landing",
		"landing no-sweep: it looks back for P1D, two sweeps come within P2D"},
	{"an alert without a runbook", "modules/alerts.bicep", swap("runbook: '${runbookUrl}#${q.name}'",
		"runbook: runbookUrl"), "plain", "plain no-sweep: the mail has no runbook"},
	// That a landing zone is built twice, or what is asked for does not arrive.
	{
		"a workspace beside the one that is there",
		"modules/monitoring.bicep",
		swap(" = if (empty(existingWorkspaceId)) {",
			" = {"),
		"landing",
		"made though it is there: Microsoft.OperationalInsights/workspaces",
	},
	{"zones beside those that are there", "modules/endpoints.bicep", swap("if (empty(zones)) {", "{"), "landing",
		"made though it is there: Microsoft.Network/privateDnsZones"},
	{"tags that are dropped", "group.bicep", swap("union(tags, {", "empty(tags) ? {} : union({}, {"), "landing",
		"has the tags map[azd-env-name:contoso]"},
	{"a lock that is forgotten", "modules/vault.bicep", swap("if (lockEnabled)", "if (!lockEnabled)"), "full",
		"full: 3 locks"},
	{
		"one zone for all",
		"modules/app.bicep",
		swap("zoneRedundant: zoneRedundant", "zoneRedundant: !zoneRedundant"),
		"full",
		"zoneRedundant is false, must be true",
	},
	{
		"an address that changes",
		"modules/network.bicep",
		swap("empty(gatewayId) ? null", "!empty(gatewayId) ? null"),
		"full",
		"full: the app calls from no fixed address",
	},
}

// The checks are worth what they find. Faults that the same part of the compiler's work
// shows are planted together: what one finding says, none of the others says.
func TestEachPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	compiler(t)
	for part, together := range parted(faults) {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			dir := copyTree(t)
			for _, f := range together {
				plant(t, dir, f)
			}
			d := compile(t, dir, strings.Split(part, " ")[0])
			var found []string
			for _, r := range rules {
				found = append(found, r.check(t, d)...)
			}
			all := strings.Join(found, "\n")
			for _, f := range together {
				if !strings.Contains(all, f.want) {
					t.Errorf("%s was not found: %s\nfound instead:\n%s", f.name, f.want, all)
				}
			}
		})
	}
}

// parted gives faults by what it takes to see them.
func parted(all []fault) map[string][]fault {
	out := map[string][]fault{}
	for _, f := range all {
		out[f.by] = append(out[f.by], f)
	}
	return out
}

func plant(t *testing.T, dir string, f fault) {
	t.Helper()
	file := filepath.Join(dir, f.file)
	before := readFile(t, file)
	after := f.edit(before)
	if after == before {
		t.Fatalf("%s could not be planted: the file has changed", f.name)
	}
	if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
		t.Fatal(err)
	}
}
