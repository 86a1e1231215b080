package infra_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// configOf gives the body of the site's config of a name.
func configOf(rs []predicted, name string) map[string]any {
	for _, r := range ofType(rs, "Microsoft.Web/sites/config") {
		if r.base() == name {
			return r.Properties
		}
	}
	return nil
}

// all are the variants, the landing zone's too.
func (d *deployment) all() map[string][]predicted {
	vs := d.variants()
	if d.landing != nil {
		vs["landing"] = d.landing
	}
	return vs
}

// queuesWake holds what makes an app that rests wake for its queues, and what tells that it
// does not. The roles are rolesAreTheLeast's.
func queuesWake(_ *testing.T, d *deployment) (problems []string) {
	for variant, rs := range d.all() {
		for _, a := range ofType(rs, "Microsoft.Insights/metricAlerts") {
			if !strings.HasSuffix(a.Name, "waiting-messages") {
				continue
			}
			criteria, _ := at(a.Properties, "criteria", "allOf").([]any)
			got := ""
			for _, c := range criteria {
				dimensions, _ := at(c, "dimensions").([]any)
				got += fmt.Sprint(at(c, "metricName"), at(c, "timeAggregation"), at(c, "operator"), at(c, "threshold"),
					at(a.Properties, "windowSize"))
				for _, dim := range dimensions {
					got += fmt.Sprint(at(dim, "values"))
				}
			}
			want := "ActiveMessagesMinimumGreaterThan0PT30M[pat-commands vault-events pat-confirmations]"
			if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
				problems = append(
					problems,
					fmt.Sprintf("%s: waiting messages are found by %s, want %s", variant, got, want),
				)
			}
		}
	}
	for _, s := range ofType(d.full, "Microsoft.Web/sites") {
		ready, _ := at(s.Properties, "functionAppConfig", "scaleAndConcurrency", "alwaysReady").([]any)
		var groups []string
		for _, r := range ready {
			groups = append(groups, fmt.Sprint(at(r, "name"), " ", at(r, "instanceCount")))
		}
		problems = append(problems, differences("groups kept ready", groups,
			[]string{"http 1", "function:reconcile 1"})...)
	}
	return problems
}

// authenticationFollows: what a template leaves out stays as it was, so what is off is
// written as off; and without a registration there is nothing to sign in to.
func authenticationFollows(_ *testing.T, d *deployment) (problems []string) {
	for variant, rs := range d.all() {
		c := configOf(rs, "authsettingsV2")
		want := variant == "full"
		switch {
		case c == nil:
			problems = append(problems, variant+": App Service authentication is not written: what was on stays on")
		case at(c, "platform", "enabled") != want:
			problems = append(problems, fmt.Sprintf("%s: App Service authentication is %v, want %v", variant,
				at(c, "platform", "enabled"), want))
		case at(c, "globalValidation", "requireAuthentication") != want:
			problems = append(problems, fmt.Sprintf("%s: a sign-in is required: %v, want %v", variant,
				at(c, "globalValidation", "requireAuthentication"), want))
		case at(c, "identityProviders", "azureActiveDirectory", "registration", "clientId") == "":
			problems = append(problems, variant+": App Service authentication has an empty client id")
		}
	}
	for _, v := range ofType(d.full, "Microsoft.KeyVault/vaults") {
		rules, _ := at(v.Properties, "networkAcls", "ipRules").([]any)
		if len(rules) != 1 || at(rules[0], "value") != "203.0.113.0/24" {
			problems = append(problems, fmt.Sprintf("full: the vault lets %v in, want 203.0.113.0/24", rules))
		}
	}
	for _, v := range ofType(d.landing, "Microsoft.KeyVault/vaults") {
		if v.Properties["publicNetworkAccess"] != "Disabled" {
			problems = append(problems, "landing: the vault can be reached from outside, and nobody is let in")
		}
	}
	return problems
}

func ownSettingsStay(_ *testing.T, d *deployment) (problems []string) {
	if settings := appSettings(d.full); settings != nil {
		if got := settings["OTEL_SERVICE_NAME"]; got != "patrol-contoso" {
			problems = append(problems, fmt.Sprintf("full: a setting of one's own is %v, want patrol-contoso", got))
		}
		if got := settings["LOG_LEVEL"]; got != "info" {
			problems = append(problems, fmt.Sprintf("full: a setting of one's own has replaced LOG_LEVEL: %v", got))
		}
	}
	for variant, rs := range d.all() {
		for _, s := range ofType(rs, "Microsoft.Web/sites") {
			if id, _ := s.Properties["keyVaultReferenceIdentity"].(string); !strings.Contains(id, ".outputs.appId.") {
				problems = append(
					problems,
					variant+": settings that refer to a vault are read by another identity: "+id,
				)
			}
		}
	}
	const group = "/subscriptions/s/resourceGroups/oncall/providers/Microsoft.Insights/actionGroups/team"
	for _, a := range ofType(d.landing, "Microsoft.Insights/scheduledQueryRules") {
		groups, _ := at(a.Properties, "actions", "actionGroups").([]any)
		if fmt.Sprint(groups) != "["+group+"]" {
			problems = append(problems, fmt.Sprintf("landing: %s notifies %v, want %s", a.Name, groups, group))
		}
	}
	for _, a := range ofType(d.landing, "Microsoft.Insights/metricAlerts") {
		actions, _ := at(a.Properties, "actions").([]any)
		if len(actions) != 1 || at(actions[0], "actionGroupId") != group {
			problems = append(problems, fmt.Sprintf("landing: %s notifies %v, want %s", a.Name, actions, group))
		}
	}
	return problems
}

func landingZoneIsUsed(_ *testing.T, d *deployment) (problems []string) {
	if d.landing == nil {
		return nil
	}
	made := []string{"Microsoft.Network/virtualNetworks", "Microsoft.Network/networkSecurityGroups",
		"Microsoft.Network/privateDnsZones", "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
		"Microsoft.OperationalInsights/workspaces", "Microsoft.Insights/actionGroups",
		"Microsoft.Network/natGateways", "Microsoft.Network/publicIPAddresses", "Microsoft.Authorization/locks"}
	for _, r := range d.landing {
		if slices.Contains(made, r.Type) {
			problems = append(problems, "landing: made though it is there: "+r.Type+" "+r.Name)
		}
		if r.Location == "" {
			continue
		}
		if r.Tags["owner"] != "payments" || r.Tags["azd-env-name"] != "contoso" {
			problems = append(problems, fmt.Sprintf("landing: %s has the tags %v", r.Name, r.Tags))
		}
	}
	const hub = "/subscriptions/s/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/n/subnets/"
	const logs = "/subscriptions/s/resourceGroups/logs/providers/Microsoft.OperationalInsights/workspaces/all"
	problems = append(problems, check("landing", d.landing, []only{
		{"Microsoft.Web/sites", "virtualNetworkSubnetId", hub + "app"},
		{"Microsoft.Network/privateEndpoints", "subnet.id", hub + "e"},
		{"Microsoft.Insights/components", "WorkspaceResourceId", logs},
	})...)
	for _, g := range ofType(d.landing, "Microsoft.Network/privateEndpoints/privateDnsZoneGroups") {
		configs, _ := at(g.Properties, "privateDnsZoneConfigs").([]any)
		zone, _ := at(configs[0], "properties", "privateDnsZoneId").(string)
		if !strings.Contains(zone, "/subscriptions/s/resourceGroups/dns") {
			problems = append(problems, "landing: a private endpoint enters its name into another zone: "+zone)
		}
	}
	for kind, name := range map[string]string{"Microsoft.KeyVault/vaults": "kv-payments-patrol",
		"Microsoft.Resources/resourceGroups": "payments"} {
		if rs := ofType(d.landing, kind); len(rs) != 1 || rs[0].Name != name {
			problems = append(problems, fmt.Sprintf("landing: %v has another name than %s", rs, name))
		}
	}
	return problems
}

// optionsReachTheirResources holds what "full" asks for.
func optionsReachTheirResources(_ *testing.T, d *deployment) (problems []string) {
	if d.full == nil {
		return nil
	}
	if n := len(ofType(d.full, "Microsoft.Authorization/locks")); n != 4 {
		problems = append(
			problems,
			fmt.Sprintf("full: %d locks, want those of vault, identity, storage and Service Bus",
				n),
		)
	}
	for _, s := range ofType(d.full, "Microsoft.Storage/storageAccounts") {
		if s.SKU["name"] != "Standard_ZRS" {
			problems = append(problems, fmt.Sprintf("full: storage is %v, in one zone", s.SKU["name"]))
		}
	}
	for _, n := range ofType(d.full, "Microsoft.Network/virtualNetworks") {
		subnets, _ := n.Properties["subnets"].([]any)
		if gateway := fmt.Sprint(at(subnets[0], "properties", "natGateway")); !strings.Contains(
			gateway,
			"/natGateways/ng-",
		) {
			problems = append(problems, "full: the app calls from no fixed address: "+gateway)
		}
	}
	problems = append(problems, check("full", d.full, []only{
		{"Microsoft.Web/serverfarms", "zoneRedundant", true},
		{"Microsoft.Web/sites", "functionAppConfig.siteUpdateStrategy.type", "RollingUpdate"},
		{"Microsoft.OperationalInsights/workspaces", "workspaceCapping.dailyQuotaGb", float64(1)},
	})...)
	return append(problems, check("plain", d.plain, []only{
		{"Microsoft.Web/serverfarms", "zoneRedundant", false},
		{"Microsoft.Web/sites", "functionAppConfig.siteUpdateStrategy.type", "Recreate"},
	})...)
}

// alertsLast: an event is told once, and an alert that asks for it ends while the trouble
// lasts. So queries ask for what the last sweeps have found, over two of them.
func alertsLast(t *testing.T, d *deployment) (problems []string) {
	windows := map[string]string{"plain": "P1D", "full": "P1D", "landing": "P2D"} // six hours, six hours, a day
	for variant, rs := range d.all() {
		for _, a := range ofType(rs, "Microsoft.Insights/scheduledQueryRules") {
			name := strings.TrimPrefix(a.Name, "patrol-contoso-")
			say := func(format string, args ...any) {
				problems = append(problems, variant+" "+name+": "+fmt.Sprintf(format, args...))
			}
			if got := a.Properties["windowSize"]; got != windows[variant] {
				say("it looks back for %v, two sweeps come within %s", got, windows[variant])
			}
			criteria, _ := at(a.Properties, "criteria", "allOf").([]any)
			query, _ := at(criteria[0], "query").(string)
			if !strings.Contains(query, "msg == 'sweep done'") {
				say("it does not ask what the last sweeps have found")
			}
			dimensions, _ := at(criteria[0], "dimensions").([]any)
			var about []string
			for _, dim := range dimensions {
				about = append(about, fmt.Sprint(at(dim, "name")))
			}
			if name != "no-sweep" {
				problems = append(problems, differences(variant+" "+name+": what the mail says", about,
					[]string{"subject", "displayName", "class", "code"})...)
			}
			if _, ok := at(a.Properties, "actions", "customProperties", "dashboard").(string); !ok {
				say("the mail has no link to the dashboard")
			}
			if link, _ := at(a.Properties, "actions", "customProperties", "runbook").(string); !hasRunbook(t, link) {
				say("the mail has no runbook: %s", link)
			}
		}
		for _, a := range ofType(rs, "Microsoft.Insights/metricAlerts") {
			text, _ := a.Properties["description"].(string)
			name := strings.TrimPrefix(a.Name, "patrol-contoso-")
			hasLinks := strings.Contains(text, "Runbook: ") && strings.Contains(text, name) &&
				strings.Contains(text, "Dashboard: ")
			if !hasLinks || !hasRunbook(t, "docs/operations.md#"+name) {
				problems = append(problems, variant+" "+a.Name+": there is no runbook: "+text)
			}
		}
	}
	return problems
}

// hasRunbook reports whether docs/operations.md has the heading that a link leads to.
func hasRunbook(t *testing.T, link string) bool {
	t.Helper()
	_, anchor, ok := strings.Cut(link, "docs/operations.md#")
	return ok && strings.Contains(readFile(t, "../docs/operations.md"), "\n### "+anchor+"\n")
}

// entryPointsAgree: main.bicep makes a group and gives all it is given to group.bicep.
func entryPointsAgree(_ *testing.T, d *deployment) (problems []string) {
	inner := d.templates()["patrol"]
	if inner == nil {
		return nil
	}
	for _, part := range []string{"parameters", "outputs"} {
		outer, _ := d.template[part].(map[string]any)
		all, _ := inner[part].(map[string]any)
		problems = append(problems, differences("group.bicep's "+part, slices.Sorted(maps.Keys(all)),
			slices.Sorted(maps.Keys(outer)))...)
		for name, p := range outer {
			if part == "parameters" && fmt.Sprint(p) != fmt.Sprint(all[name]) {
				problems = append(problems, fmt.Sprintf("%s differs: in main.bicep %v, in group.bicep %v", name, p,
					all[name]))
			}
		}
	}
	given, _ := at(resources(d.template)["patrol"], "properties", "parameters").(map[string]any)
	outer, _ := d.template["parameters"].(map[string]any)
	for name := range outer {
		if got := at(given[name], "value"); got != "[parameters('"+name+"')]" {
			problems = append(problems, fmt.Sprintf("main.bicep gives %v as %s", got, name))
		}
	}
	return problems
}

// What cannot work is refused before anything is made.
func TestADeploymentThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	bicep := compiler(t)
	for _, tc := range []struct{ name, parameters, want string }{
		{"a tenant of its own", "param entraTenantId = '00000000-0000-0000-0000-00000000000a'",
			"a managed identity proves itself in its own tenant only"},
		{"a sweep on working days", "param checkSchedule = '0 0 6 * * 1-5'", "sweep at least once a day"},
		{"a list that shuts the app out", "param vaultAllowedAddresses = ['203.0.113.7']", "needs vnetEnabled"},
		{"one subnet of two", "param vnetEnabled = true\nparam appSubnetId = '/subscriptions/x'", "give both subnets"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, findings := snapshot(t.Context(), bicep, copyTree(t), "refused", plain+tc.parameters)
			if all := strings.Join(findings, "\n"); !strings.Contains(all, tc.want) {
				t.Errorf("found %q, want %q", all, tc.want)
			}
		})
	}
}
