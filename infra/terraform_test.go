package infra_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A habit is what Terraform's files must do as Bicep's do: how it is written, and an edit
// that breaks it. terraform test holds the same with the real providers, where they are
// built; this needs none.
type habit struct {
	name     string
	pattern  string // of the files without repeated blanks
	old, new string
}

var habits = []habit{
	// An app that stands still is seen, and wakes.
	{"messages that wait for half an hour raise an alert",
		`metric = "ActiveMessages" aggregation = "Minimum" window = "PT30M" dimension = "EntityName" ` +
			`values = \[local\.command_queue, local\.vault_event_queue, local\.confirmation_queue\]`,
		`"Minimum"`, `"Maximum"`},
	{"commands can be kept ready for, apart from HTTP",
		`\{ "function:reconcile" = var\.always_ready_reconcile, http = var\.always_ready_http \}`, "function:reconcile",
		"function:check"},
	// What is set beside the files stays.
	{"settings of one's own stay, and patrol's win", `merge\( # patrol's own win\. var\.extra_settings, \{`,
		"var.extra_settings,", ""},
	{"references to a vault are read by the app's identity", `keyVaultReferenceIdentity = var\.identity\.id`,
		"keyVaultReferenceIdentity", "keyVaultReferenceIdentityx"},
	{"action groups of one's own are told", `group_ids = concat\(azurerm_monitor_action_group\.people\[\*\]\.id, ` +
		`var\.action_group_ids\)`, ", var.action_group_ids)", ")"},
	// What is off is switched off.
	{"authentication is written in either case",
		`resource "azapi_update_resource" "authentication" \{ type`, `"authentication" {`,
		"\"authentication\" {\n  count = 0"},
	{
		"authentication waits for the registration",
		`authenticates = var\.authentication\.enabled && var\.entra\.client_id != ""`,
		` && var.entra.client_id != ""`,
		"",
	},
	{"a vault's rules are looked at", `public_network_access_enabled = !var\.vnet_enabled \|\| ` +
		`length\(var\.vault_allowed_addresses\) > 0`, " || length(var.vault_allowed_addresses) > 0", ""},
	// An alert lasts as long as its trouble, and says what to do.
	{"alerts look back for two sweeps", `window_duration = local\.sweep_window`, "local.sweep_window", `"PT30M"`},
	{"a daily sweep takes two days",
		`sweep_window = local\.sweep_hours <= 3 \? "PT6H" : local\.sweep_hours <= 12 \? "P1D" : "P2D"`,
		`: "P2D"`, `: "P1D"`},
	{"mails have a runbook and the dashboard",
		`custom_properties = \{ runbook = "\$\{var\.runbook_url\}#\$\{each\.key\}" dashboard = local\.dashboard_url \}`,
		"dashboard = local.dashboard_url", ""},
	// A landing zone is used, and what is asked for arrives.
	{"a workspace that is there is used", `resource "azurerm_log_analytics_workspace" "workspace" \{ ` +
		`count = var\.workspace_id == "" \? 1 : 0`, `var.workspace_id == "" ? 1 : 0`, "1"},
	{"a network that is there is used", `makes_network = var\.vnet_enabled && var\.app_subnet_id == ""`,
		` && var.app_subnet_id == ""`, ""},
	{"zones that are there are used", `for_each = \{ for group, e in local\.endpoints : group => e ` +
		`if var\.private_dns_zones == "" \} name = each\.value\.zone`, ` if var.private_dns_zones == ""`, ""},
	{
		"a group that is there is used",
		`resource "azurerm_resource_group" "group" \{ count = var\.resource_group == "" \? 1 : 0`,
		`var.resource_group == "" ? 1 : 0`,
		"1",
	},
	{"tags of one's own are on all", `tags = merge\(var\.tags, \{ azd-env-name = var\.environment_name \}\)`,
		"merge(var.tags, ", "merge("},
	{"locks lie on what must not be lost", `identity = azurerm_user_assigned_identity\.app\.id ` +
		`storage = azurerm_storage_account\.host\.id vault = azurerm_key_vault\.vault\.id ` +
		`serviceBus = azurerm_servicebus_namespace\.bus\.id \} : name => id if var\.lock_enabled`,
		"    vault      = azurerm_key_vault.vault.id\n", ""},
	{"the app calls from a fixed address", `subnet_id = azurerm_subnet\.app\[0\]\.id nat_gateway_id = ` +
		`var\.nat_gateway_enabled \? azurerm_nat_gateway`, "azurerm_subnet.app[0].id\n  nat",
		"azurerm_subnet.endpoints[0].id\n  nat"},
	// What cannot work is refused.
	{"another tenant is refused", `contains\(\["", data\.azurerm_client_config\.current\.tenant_id\], ` +
		`lower\(var\.entra_tenant_id\)\)`, `contains(["", data.azurerm_client_config.current.tenant_id], `, "can("},
}

// missing gives the habits that the files do not have.
func missing(source string) (names []string) {
	plain := strings.Join(strings.Fields(source), " ")
	for _, h := range habits {
		if !regexp.MustCompile(h.pattern).MatchString(plain) {
			names = append(names, h.name)
		}
	}
	return names
}

func TestTerraformHasTheHabitsOfBicep(t *testing.T) {
	t.Parallel()
	for _, name := range missing(terraform(t)) {
		t.Errorf("Terraform: not so, or written in another way than this test knows: %s", name)
	}
}

func TestEachFaultPlantedInTerraformIsFound(t *testing.T) {
	t.Parallel()
	source := terraform(t)
	for _, h := range habits {
		broken := strings.ReplaceAll(source, h.old, h.new)
		if broken == source {
			t.Errorf("%s: the fault could not be planted: the files have changed", h.name)
			continue
		}
		if !slices.Contains(missing(broken), h.name) {
			t.Errorf("%s: the fault was not found", h.name)
		}
	}
	// A parameter that one half does not have is one that it resets.
	variables := readFile(t, "terraform/variables.tf")
	broken := strings.Replace(variables, `variable "alert_email"`, `variable "alert_mail"`, 1)
	if found := strings.Join(parametersDiffer(readFile(t, "main.bicep"), broken), "\n"); broken == variables ||
		!strings.Contains(found, "alert_email") {
		t.Errorf("a missing variable was not found: %s", found)
	}
}
