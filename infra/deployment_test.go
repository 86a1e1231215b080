package infra_test

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The two variants that are checked: the defaults, and all options at once.
const (
	plain = `
param environmentName = 'contoso'
param location = 'westeurope'
`
	full = plain + `
param vnetEnabled = true
param serviceBusSku = 'Premium'
param authenticationEnabled = true
param entraClientId = '00000000-0000-0000-0000-000000000003'
param entraClientCredential = 'certificate'
param entraCertificate = 'patrol-sign-in'
param otlpEndpoint = 'https://otel.example'
param serviceBusTransport = 'websockets'
param alwaysReadyHttp = 1
param alertEmail = 'oncall@contoso.com'
param publicUrl = 'https://patrol.contoso.com'
param alwaysReadyReconcile = 1
param siteUpdateStrategy = 'RollingUpdate'
param extraSettings = { OTEL_SERVICE_NAME: 'patrol-contoso', LOG_LEVEL: 'mine' }
param confirmationSenders = ['00000000-0000-0000-0000-000000000004']
param vaultAllowedAddresses = ['203.0.113.0/24']
param natGatewayEnabled = true
param zoneRedundant = true
param lockEnabled = true
`
	// landing is a deployment into what others have made, before the registration exists.
	landing = plain + `
param authenticationEnabled = true
param vnetEnabled = true
param appSubnetId = '/subscriptions/s/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/n/subnets/app'
param endpointSubnetId = '/subscriptions/s/resourceGroups/hub/providers/Microsoft.Network/virtualNetworks/n/subnets/e'
param privateDnsZones = '/subscriptions/s/resourceGroups/dns'
param workspaceId = '/subscriptions/s/resourceGroups/logs/providers/Microsoft.OperationalInsights/workspaces/all'
param actionGroupIds = ['/subscriptions/s/resourceGroups/oncall/providers/Microsoft.Insights/actionGroups/team']
param tags = { owner: 'payments', 'azd-env-name': 'theirs' }
param names = { keyVault: 'kv-payments-patrol', resourceGroup: 'payments' }
param checkSchedule = '0 30 6 * * *'
`
)

// A deployment is what the compiler makes of a tree: of the real one, or of a copy
// with a fault in it.
type deployment struct {
	dir      string
	findings []string
	// template is nil, and so are the variants, where they were not asked for.
	template             map[string]any
	plain, full, landing []predicted
}

// compile compiles what is asked for: "template", "plain", "full", "landing".
func compile(t *testing.T, dir string, parts ...string) *deployment {
	t.Helper()
	ctx, bicep := t.Context(), compiler(t)
	d := &deployment{dir: dir}
	var wg sync.WaitGroup
	var mu sync.Mutex
	add := func(findings []string) {
		mu.Lock()
		defer mu.Unlock()
		d.findings = append(d.findings, findings...)
	}
	for _, part := range parts {
		wg.Go(func() {
			var findings []string
			switch part {
			case "template":
				d.template, findings = build(ctx, bicep, dir, "main.bicep")
			case "plain":
				d.plain, findings = snapshot(ctx, bicep, dir, part, plain)
			case "full":
				d.full, findings = snapshot(ctx, bicep, dir, part, full)
			case "landing":
				d.landing, findings = snapshot(ctx, bicep, dir, part, landing)
			}
			add(findings)
		})
	}
	wg.Wait()
	return d
}

func (d *deployment) variants() map[string][]predicted {
	vs := map[string][]predicted{}
	if d.plain != nil {
		vs["plain"] = d.plain
	}
	if d.full != nil {
		vs["full"] = d.full
	}
	return vs
}

func ofType(rs []predicted, kind string) (out []predicted) {
	for _, r := range rs {
		if r.Type == kind {
			out = append(out, r)
		}
	}
	return out
}

// base is the last part of a resource's name.
func (p predicted) base() string { return path.Base(p.Name) }

// at follows names down into decoded JSON.
func at(v any, names ...string) any {
	for _, n := range names {
		m, _ := v.(map[string]any)
		v = m[n]
	}
	return v
}

// walk calls f for every text in decoded JSON, names included.
func walk(v any, where string, f func(where, text string)) {
	switch v := v.(type) {
	case string:
		f(where, v)
	case []any:
		for i, e := range v {
			walk(e, fmt.Sprintf("%s[%d]", where, i), f)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			f(where, k)
			walk(v[k], where+"."+k, f)
		}
	}
}

// templates gives the main template and those of its modules, by the modules' names.
func (d *deployment) templates() map[string]map[string]any {
	all := map[string]map[string]any{"main": d.template}
	var add func(template map[string]any)
	add = func(template map[string]any) {
		for name, r := range resources(template) {
			if inner, ok := at(r, "properties", "template").(map[string]any); ok {
				all[name] = inner
				add(inner)
			}
		}
	}
	add(d.template)
	return all
}

func resources(template map[string]any) map[string]any {
	rs, _ := template["resources"].(map[string]any)
	return rs
}

// A rule is one of the project's own: no compiler knows it. It gives what is wrong.
type rule struct {
	name  string
	check func(*testing.T, *deployment) []string
}

var rules = []rule{
	{"the compiler has no findings", func(_ *testing.T, d *deployment) []string { return d.findings }},
	{"the app has the settings that it reads and no other", settingsAreComplete},
	{"the sample for local work has the same settings", sampleAgrees},
	{"queues and topics are as the sandbox has them", entitiesAgree},
	{"triggers fit their queues", triggersFit},
	{"roles are the least ones, with names that stay", rolesAreTheLeast},
	{"no key is asked for", noKeyIsRead},
	{"no output is a secret", noSecretOutput},
	{"what needs a role waits for it", orderHolds},
	{"only Entra opens a door", doorsAreShut},
	{"a network closes what it can", networkCloses},
	{"names are short, unique and azd's", namesAreRight},
	{"the vault's events reach their queue", eventsReachTheQueue},
	{"alerts ask what can be answered", alertsAsk},
	{"an alert lasts as long as its trouble, and says what to do", alertsLast},
	{"a queue wakes the app", queuesWake},
	{"what is off is switched off", authenticationFollows},
	{"what is set beside the template stays", ownSettingsStay},
	{"a landing zone is used, not built again", landingZoneIsUsed},
	{"everything is as safe as it is asked to be", optionsReachTheirResources},
	{"both entry points take the same", entryPointsAgree},
	{"the parameters file fits", parametersFit},
}

func TestTheTemplatesKeepTheRules(t *testing.T) {
	t.Parallel()
	d := theTemplates(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, problem := range r.check(t, d) {
				t.Error(problem)
			}
		})
	}
}

func differences(what string, got, want []string) (problems []string) {
	for _, w := range want {
		if !slices.Contains(got, w) {
			problems = append(problems, fmt.Sprintf("%s: %s is missing", what, w))
		}
	}
	for i, g := range got {
		if !slices.Contains(want, g) {
			problems = append(problems, fmt.Sprintf("%s: %s is too much", what, g))
		}
		if slices.Contains(got[:i], g) {
			problems = append(problems, fmt.Sprintf("%s: %s is there twice", what, g))
		}
	}
	return problems
}

// appSettings of a variant, by name.
func appSettings(rs []predicted) map[string]any {
	for _, r := range ofType(rs, "Microsoft.Web/sites/config") {
		if r.base() == "appsettings" {
			return r.Properties
		}
	}
	return nil
}

// platformSettings are for the host and the platform, not for the handler.
var platformSettings = []string{
	"AzureWebJobsStorage__accountName", "AzureWebJobsStorage__credential", "AzureWebJobsStorage__clientId",
	"APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}

// optionalSettings are set by an option each.
var optionalSettings = []string{"ENTRA_CERTIFICATE", "OTEL_EXPORTER_OTLP_ENDPOINT",
	"OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID", "SERVICE_BUS_TRANSPORT",
	"AzureFunctionsJobHost__extensions__serviceBus__transportType"}

func settingsAreComplete(t *testing.T, d *deployment) (problems []string) {
	for name, rs := range d.variants() {
		want := append(handlerSettings(t), platformSettings...)
		want = slices.DeleteFunc(want, func(s string) bool { return slices.Contains(optionalSettings, s) })
		if name == "full" {
			want = append(append(want, optionalSettings...), "OTEL_SERVICE_NAME")
		}
		problems = append(problems, differences(name+" app settings", slices.Sorted(maps.Keys(appSettings(rs))),
			want)...)
		for setting, v := range appSettings(rs) {
			if v == nil {
				problems = append(problems, fmt.Sprintf("%s: %s has no value", name, setting))
			}
		}
	}
	return problems
}

// entityProperties of the template that the sandbox's entities do not mention.
var entityExtras = map[string]map[string]any{
	"vault-events":      {"requiresSession": false},
	"pat-confirmations": {"requiresSession": false, "requiresDuplicateDetection": false},
	// Nobody may read it, and then it would fill the topic.
	"all": {"requiresSession": false, "defaultMessageTimeToLive": "P14D", "deadLetteringOnMessageExpiration": false},
}

func entitiesAgree(t *testing.T, d *deployment) (problems []string) {
	want := map[string]map[string]any{}
	for name, properties := range sandboxEntities(t) {
		want[name] = maps.Clone(properties)
		maps.Copy(want[name], entityExtras[name])
	}
	for variant, rs := range d.variants() {
		got := map[string]map[string]any{}
		for _, r := range rs {
			switch r.Type {
			case "Microsoft.ServiceBus/namespaces/queues", "Microsoft.ServiceBus/namespaces/topics",
				"Microsoft.ServiceBus/namespaces/topics/subscriptions":
				got[r.base()] = r.Properties
			}
		}
		problems = append(problems, differences(variant+" entities", slices.Sorted(maps.Keys(got)),
			slices.Sorted(maps.Keys(want)))...)
		for name, properties := range got {
			for _, p := range slices.Sorted(maps.Keys(want[name])) {
				if fmt.Sprint(properties[p]) != fmt.Sprint(want[name][p]) {
					problems = append(problems, fmt.Sprintf("%s %s: %s is %v, in the sandbox %v", variant, name, p,
						properties[p], want[name][p]))
				}
			}
			for p := range properties {
				if _, ok := want[name][p]; !ok {
					problems = append(problems, fmt.Sprintf("%s %s: %s is not known to the sandbox", variant, name, p))
				}
			}
		}
	}
	return problems
}

// triggersFit holds the function.json files and host.json against settings and queues.
func triggersFit(t *testing.T, d *deployment) (problems []string) {
	for variant, rs := range d.variants() {
		settings := appSettings(rs)
		queues := map[string]predicted{}
		for _, q := range ofType(rs, "Microsoft.ServiceBus/namespaces/queues") {
			queues[q.base()] = q
		}
		for function, b := range triggers(t) {
			say := func(format string, args ...any) {
				problems = append(problems, variant+" "+function+": "+fmt.Sprintf(format, args...))
			}
			for _, text := range []string{b.QueueName, b.Schedule} {
				for _, m := range percent.FindAllStringSubmatch(text, -1) {
					if v, _ := settings[m[1]].(string); v == "" {
						say("the host cannot fill in %s: there is no such setting", m[0])
					}
				}
			}
			if b.Type != "serviceBusTrigger" {
				continue
			}
			if settings[b.Connection+"__fullyQualifiedNamespace"] == nil {
				say("there is no connection %s", b.Connection)
			}
			name, sub, _ := strings.Cut(percent.ReplaceAllStringFunc(b.QueueName, func(s string) string {
				v, _ := settings[strings.Trim(s, "%")].(string)
				return v
			}), "/")
			q, ok := queues[name]
			if !ok {
				say("there is no queue %q", name)
				continue
			}
			// A dead-letter queue never has sessions.
			if want := q.Properties["requiresSession"] == true && sub == ""; b.IsSessionsEnabled != want {
				say("isSessionsEnabled is %v, the queue %s has requiresSession %v", b.IsSessionsEnabled, name,
					q.Properties["requiresSession"])
			}
			// The host renews a lock for this long; one lock must be no longer.
			if lock := q.Properties["lockDuration"]; lock != "PT5M" ||
				hostSettings(t).MaxAutoLockRenewalDuration != "00:05:00" {
				say("the lock of %s is %v, host.json renews for %s: both are five minutes", name, lock,
					hostSettings(t).MaxAutoLockRenewalDuration)
			}
		}
	}
	return problems
}

var percent = regexp.MustCompile(`%([A-Z_]+)%`)

// roles are all that patrol gets, and no more: who, what, on what. The token in names
// is a star.
var roles = []string{
	// Storage Blob Data Owner
	"app b7e6dc6d-f1e8-4753-8033-0f276bb0955b Microsoft.Storage/storageAccounts/st*",
	// Storage Blob Data Contributor
	"app ba92f5b4-2d11-453d-a403-e96b0029c9fe " +
		"Microsoft.Storage/storageAccounts/st*/blobServices/default/containers/patrol-state",
	// Key Vault Secrets Officer
	"app b86a8fe4-44ce-4948-aee5-eccb2c155cd7 Microsoft.KeyVault/vaults/kv-*",
	// Service Bus Data Owner: with less, scheduled messages do not wake the app
	"app 090c5cfd-751d-490a-894a-3ce6f1109419 Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-commands",
	"app 090c5cfd-751d-490a-894a-3ce6f1109419 Microsoft.ServiceBus/namespaces/sbns-*/queues/vault-events",
	"app 090c5cfd-751d-490a-894a-3ce6f1109419 Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-confirmations",
	// Service Bus Data Sender
	"app 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 Microsoft.ServiceBus/namespaces/sbns-*/topics/pat-events",
	// Monitoring Metrics Publisher
	"app 3913510d-42f4-4e42-8a64-420c390055eb Microsoft.Insights/components/appi-*",
	// Service Bus Data Sender
	"eventGrid 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 Microsoft.ServiceBus/namespaces/sbns-*/queues/vault-events",
}

// A consumer may say that it has switched, and nothing else: Service Bus Data Sender.
const consumerRole = "consumer 69a216fc-b8fb-44d8-bc22-1f3c2cd27a39 " +
	"Microsoft.ServiceBus/namespaces/sbns-*/queues/pat-confirmations"

// An assignment's name is guid(scope, principal, role), and nothing else: then the
// next deployment finds it again.
var assignment = regexp.MustCompile(
	`'Microsoft\.Authorization/roleAssignments', guid\('([^']+)', ` +
		`reference\(.*\)\.outputs\.(\w+)\.value, '[^']*/roleDefinitions/([0-9a-f-]{36})'\)\)\]$`)

func rolesAreTheLeast(_ *testing.T, d *deployment) (problems []string) {
	who := map[string]string{"appPrincipalId": "app", "eventPrincipalId": "eventGrid"}
	for variant, rs := range d.variants() {
		var got []string
		for _, r := range ofType(rs, "Microsoft.Authorization/roleAssignments") {
			if r.Properties["principalId"] == "00000000-0000-0000-0000-000000000004" {
				role, _ := r.Properties["roleDefinitionId"].(string)
				scope, _, _ := strings.Cut(r.ID, "/providers/Microsoft.Authorization/")
				_, resource, _ := strings.Cut(scope, "/providers/")
				got = append(got, "consumer "+path.Base(role)+" "+starred(rs, resource))
				continue
			}
			m := assignment.FindStringSubmatch(r.ID)
			if m == nil {
				problems = append(problems, variant+
					": the name of a role assignment is not made from scope, principal and role: "+r.ID)
				continue
			}
			scope, principal, role := m[1], m[2], m[3]
			if !strings.HasPrefix(r.ID, "[extensionResourceId('"+scope+"'") {
				problems = append(problems, variant+": a role is assigned on another thing than its name says: "+r.ID)
			}
			if id, _ := r.Properties["roleDefinitionId"].(string); !strings.HasSuffix(id, role) {
				problems = append(problems, variant+": another role is assigned than the name says: "+id)
			}
			if id, _ := r.Properties["principalId"].(string); !strings.HasSuffix(id, ".outputs."+principal+".value]") {
				problems = append(problems, variant+": a role is assigned to somebody else than its name says: "+id)
			}
			if r.Properties["principalType"] != "ServicePrincipal" {
				problems = append(problems, variant+": principalType is missing: a new identity would not be found")
			}
			_, resource, _ := strings.Cut(scope, "/providers/")
			got = append(got, who[principal]+" "+role+" "+starred(rs, resource))
		}
		want := slices.Clone(roles)
		if variant == "full" {
			want = append(want, consumerRole)
		}
		problems = append(problems, differences(variant+" roles", got, want)...)
	}
	return problems
}

// starred replaces the token in names.
func starred(rs []predicted, s string) string {
	if accounts := ofType(rs, "Microsoft.Storage/storageAccounts"); len(accounts) == 1 {
		return strings.ReplaceAll(s, strings.TrimPrefix(accounts[0].Name, "st"), "*")
	}
	return s
}

var listCall = regexp.MustCompile(`\blist[A-Z]?\w*\(`)

func noKeyIsRead(_ *testing.T, d *deployment) (problems []string) {
	walk(d.template, "template", func(where, text string) {
		// The text of queries and of the workbook is not an expression.
		if strings.HasPrefix(text, "[") && listCall.MatchString(text) {
			problems = append(problems, where+" calls "+listCall.FindString(text)+"): "+text)
		}
	})
	return problems
}

var secretive = regexp.MustCompile(
	`(?i)list\w*\(|connectionstring|instrumentationkey|password|secret|\.(primary|secondary)?key\b|sharedaccess`)

func noSecretOutput(_ *testing.T, d *deployment) (problems []string) {
	for module, template := range d.templates() {
		outputs, _ := template["outputs"].(map[string]any)
		for name, o := range outputs {
			if kind := fmt.Sprint(at(o, "type")); strings.HasPrefix(strings.ToLower(kind), "secure") {
				problems = append(problems, fmt.Sprintf("%s: output %s is a %s", module, name, kind))
			}
			if value := fmt.Sprint(at(o, "value")); secretive.MatchString(value) {
				problems = append(problems, fmt.Sprintf("%s: output %s gives a secret away: %s", module, name, value))
			}
		}
	}
	return problems
}

func orderHolds(_ *testing.T, d *deployment) (problems []string) {
	if d.template == nil {
		return nil
	}
	for module, needs := range map[string][]string{
		"roles":     {"identities", "storage", "vault", "bus", "monitoring"},
		"app":       {"roles", "endpoints", "storage", "identities", "bus"},
		"events":    {"roles", "bus", "vault", "identities"},
		"endpoints": {"network", "storage", "vault", "bus"},
	} {
		waits, _ := at(resources(d.templates()["patrol"])[module], "dependsOn").([]any)
		for _, n := range needs {
			if !slices.Contains(waits, any(n)) {
				problems = append(problems, fmt.Sprintf("module %s does not wait for %s", module, n))
			}
		}
	}
	return problems
}

// only is a property that must have one value, on every resource of a type.
type only struct {
	kind string
	path string
	want any
}

var shut = []only{
	{"Microsoft.Storage/storageAccounts", "allowSharedKeyAccess", false},
	{"Microsoft.Storage/storageAccounts", "allowBlobPublicAccess", false},
	{"Microsoft.Storage/storageAccounts", "defaultToOAuthAuthentication", true},
	{"Microsoft.Storage/storageAccounts", "supportsHttpsTrafficOnly", true},
	{"Microsoft.Storage/storageAccounts", "minimumTlsVersion", "TLS1_2"},
	{"Microsoft.Storage/storageAccounts/blobServices/containers", "publicAccess", "None"},
	{"Microsoft.KeyVault/vaults", "enableRbacAuthorization", true},
	{"Microsoft.KeyVault/vaults", "enableSoftDelete", true},
	{"Microsoft.KeyVault/vaults", "enablePurgeProtection", true},
	{"Microsoft.ServiceBus/namespaces", "disableLocalAuth", true},
	{"Microsoft.ServiceBus/namespaces", "minimumTlsVersion", "1.2"},
	{"Microsoft.Insights/components", "DisableLocalAuth", true},
	{"Microsoft.OperationalInsights/workspaces", "features.disableLocalAuth", true},
	{"Microsoft.Web/sites", "httpsOnly", true},
	{"Microsoft.Web/sites", "siteConfig.minTlsVersion", "1.2"},
	{"Microsoft.Web/sites", "siteConfig.scmMinTlsVersion", "1.2"},
	{"Microsoft.Web/sites", "functionAppConfig.runtime.name", "custom"},
	{"Microsoft.Web/sites", "functionAppConfig.runtime.version", "1.0"},
	{"Microsoft.Web/sites", "functionAppConfig.deployment.storage.type", "blobContainer"},
	{"Microsoft.Web/sites", "functionAppConfig.deployment.storage.authentication.type", "UserAssignedIdentity"},
	{"Microsoft.Web/sites/basicPublishingCredentialsPolicies", "allow", false},
}

func check(variant string, rs []predicted, all []only) (problems []string) {
	for _, s := range all {
		found := ofType(rs, s.kind)
		if len(found) == 0 {
			problems = append(problems, variant+": there is no "+s.kind)
		}
		for _, r := range found {
			if got := at(r.Properties, strings.Split(s.path, ".")...); got != s.want {
				problems = append(problems, fmt.Sprintf("%s %s: %s is %v, must be %v", variant, r.Name, s.path, got,
					s.want))
			}
		}
	}
	return problems
}

func doorsAreShut(_ *testing.T, d *deployment) (problems []string) {
	for variant, rs := range d.variants() {
		problems = append(problems, check(variant, rs, shut)...)
		if n := len(ofType(rs, "Microsoft.Web/sites/basicPublishingCredentialsPolicies")); n != 2 {
			problems = append(problems, fmt.Sprintf("%s: passwords are to be off for ftp and scm, not for %d of them",
				variant, n))
		}
		for name := range appSettings(rs) {
			// These either win over the identity or are refused by the plan.
			isConnection := name == "AzureWebJobsStorage" || name == "ServiceBusConnection"
			isHosts := strings.HasPrefix(name, "FUNCTIONS_") || strings.HasPrefix(name, "WEBSITE_")
			if isConnection || isHosts {
				problems = append(problems, variant+": the setting "+name+" must not be there")
			}
		}
	}
	return problems
}

func networkCloses(_ *testing.T, d *deployment) (problems []string) {
	if d.full == nil {
		return nil
	}
	problems = check("full", d.full, []only{
		{"Microsoft.Storage/storageAccounts", "publicNetworkAccess", "Disabled"},
		{"Microsoft.Storage/storageAccounts", "networkAcls.defaultAction", "Deny"},
		// It has rules, and where access is disabled they are not looked at.
		{"Microsoft.KeyVault/vaults", "publicNetworkAccess", "Enabled"},
		{"Microsoft.KeyVault/vaults", "networkAcls.defaultAction", "Deny"},
		{"Microsoft.ServiceBus/namespaces", "publicNetworkAccess", "Disabled"},
		{"Microsoft.ServiceBus/namespaces/networkRuleSets", "trustedServiceAccessEnabled", true},
		{"Microsoft.Web/sites", "outboundVnetRouting.allTraffic", true},
	})
	for _, s := range ofType(d.full, "Microsoft.Web/sites") {
		if subnet, _ := s.Properties["virtualNetworkSubnetId"].(string); !strings.Contains(subnet, "appSubnetId") {
			problems = append(problems, "the app is not in its subnet: "+subnet)
		}
	}
	var groups []string
	for _, e := range ofType(d.full, "Microsoft.Network/privateEndpoints") {
		groups = append(groups, e.base()[strings.LastIndexByte(e.base(), '-')+1:])
	}
	problems = append(problems, differences("private endpoints", groups, []string{"blob", "vault", "namespace"})...)
	if n := len(ofType(d.full, "Microsoft.Network/privateEndpoints/privateDnsZoneGroups")); n != 3 {
		problems = append(problems, fmt.Sprintf("%d of 3 private endpoints have a name", n))
	}
	for _, n := range ofType(d.full, "Microsoft.Network/virtualNetworks") {
		subnets, _ := n.Properties["subnets"].([]any)
		if len(subnets) != 2 || !strings.Contains(fmt.Sprint(subnets[0]), "Microsoft.App/environments") {
			problems = append(problems, "the app's subnet is not delegated to Microsoft.App/environments")
		}
	}
	for _, r := range d.plain {
		if strings.HasPrefix(r.Type, "Microsoft.Network/") {
			problems = append(problems, "plain: a network is there that nobody asked for: "+r.Name)
		}
	}
	return problems
}

func namesAreRight(t *testing.T, d *deployment) (problems []string) {
	var prefixes map[string]string
	readJSON(t, "abbreviations.json", &prefixes)
	kinds := map[string]string{
		"Microsoft.Insights/actionGroups":                  "actionGroup",
		"Microsoft.Insights/components":                    "applicationInsights",
		"Microsoft.EventGrid/systemTopics":                 "eventGridSystemTopic",
		"Microsoft.Web/sites":                              "functionApp",
		"Microsoft.Web/serverfarms":                        "functionPlan",
		"Microsoft.KeyVault/vaults":                        "keyVault",
		"Microsoft.OperationalInsights/workspaces":         "logAnalytics",
		"Microsoft.ManagedIdentity/userAssignedIdentities": "managedIdentity",
		"Microsoft.Network/natGateways":                    "natGateway",
		"Microsoft.Network/networkSecurityGroups":          "networkSecurityGroup",
		"Microsoft.Network/publicIPAddresses":              "publicAddress",
		"Microsoft.Network/privateEndpoints":               "privateEndpoint",
		"Microsoft.Resources/resourceGroups":               "resourceGroup",
		"Microsoft.ServiceBus/namespaces":                  "serviceBus",
		"Microsoft.Storage/storageAccounts":                "storageAccount",
		"Microsoft.Network/virtualNetworks":                "virtualNetwork",
	}
	form := map[string]*regexp.Regexp{
		"Microsoft.Storage/storageAccounts": regexp.MustCompile(`^[a-z0-9]{3,24}$`),
		"Microsoft.KeyVault/vaults":         regexp.MustCompile(`^[a-z][a-z0-9-]{1,22}[a-z0-9]$`),
		"Microsoft.ServiceBus/namespaces":   regexp.MustCompile(`^[a-z][a-z0-9-]{4,48}[a-z0-9]$`),
		// The host makes its id from the first 32 characters.
		"Microsoft.Web/sites": regexp.MustCompile(`^[a-z][a-z0-9-]{1,30}[a-z0-9]$`),
	}
	for variant, rs := range d.variants() {
		services := 0
		for _, r := range rs {
			if kind, ok := kinds[r.Type]; ok && !strings.HasPrefix(r.Name, prefixes[kind]) {
				problems = append(problems, fmt.Sprintf("%s: %s does not begin with %s", variant, r.Name,
					prefixes[kind]))
			}
			if f := form[r.Type]; f != nil && !f.MatchString(r.Name) {
				problems = append(problems, fmt.Sprintf("%s: %s is no name for a %s", variant, r.Name, r.Type))
			}
			if r.Tags["azd-service-name"] != "" {
				services++
			}
			if r.Location != "" && r.Tags["azd-env-name"] != "contoso" {
				problems = append(problems, fmt.Sprintf("%s: %s has no tag azd-env-name", variant, r.Name))
			}
			// Zones are named after the cloud's own domains.
			if strings.Contains(r.Name, "'") && r.Type != "Microsoft.Authorization/roleAssignments" &&
				!strings.HasPrefix(r.Type, "Microsoft.Network/privateDnsZones") {
				problems = append(problems, variant+": a name is known at run time only: "+r.Name)
			}
		}
		if services != 1 {
			problems = append(problems, fmt.Sprintf("%s: %d resources have the tag azd-service-name, azd wants one",
				variant, services))
		}
		for _, s := range ofType(rs, "Microsoft.Web/sites") {
			if s.Tags["azd-service-name"] != "patrol" {
				problems = append(problems, variant+": azd does not find the app: "+s.Name)
			}
		}
	}
	outputs, _ := d.template["outputs"].(map[string]any)
	for name := range outputs {
		if !regexp.MustCompile(`^(AZURE|PATROL)_[A-Z_]+$`).MatchString(name) {
			problems = append(problems, "azd keeps outputs as variables; this is no name for one: "+name)
		}
		// They would change who azd and az sign in as.
		if name == "AZURE_CLIENT_ID" || name == "AZURE_SUBSCRIPTION_ID" {
			problems = append(problems, "an output must not be called "+name)
		}
	}
	return problems
}

func eventsReachTheQueue(t *testing.T, d *deployment) (problems []string) {
	for variant, rs := range d.variants() {
		subscriptions := ofType(rs, "Microsoft.EventGrid/systemTopics/eventSubscriptions")
		if len(subscriptions) != 1 {
			problems = append(problems, fmt.Sprintf("%s: %d subscriptions to the vault's events", variant,
				len(subscriptions)))
			continue
		}
		p := subscriptions[0].Properties
		destination := at(p, "deliveryWithResourceIdentity", "destination")
		if p["destination"] != nil || at(destination, "endpointType") != "ServiceBusQueue" {
			problems = append(problems, variant+": events are not delivered to a queue by an identity")
		}
		identity, _ := at(p, "deliveryWithResourceIdentity", "identity", "userAssignedIdentity").(string)
		if !strings.Contains(identity, "outputs.eventId.") {
			problems = append(problems, variant+": events are delivered by another identity than Event Grid's: "+
				identity)
		}
		if queue, _ := at(destination, "properties", "resourceId").(string); !strings.Contains(queue,
			"outputs.vaultEventQueueId.") && !strings.HasSuffix(queue, "/queues/vault-events") {
			problems = append(problems, variant+": events are delivered to another queue: "+queue)
		}
		var types []string
		included, _ := at(p, "filter", "includedEventTypes").([]any)
		for _, e := range included {
			types = append(types, fmt.Sprint(e))
		}
		problems = append(problems, differences(variant+" event types", types, vaultEventTypes)...)
		for _, topic := range ofType(rs, "Microsoft.EventGrid/systemTopics") {
			if topic.Properties["topicType"] != "Microsoft.KeyVault.vaults" {
				problems = append(problems, variant+": the system topic is not a vault's")
			}
		}
	}
	return problems
}

var vaultEventTypes = []string{"Microsoft.KeyVault.SecretNearExpiry", "Microsoft.KeyVault.SecretExpired",
	"Microsoft.KeyVault.SecretNewVersionCreated"}

func alertsAsk(t *testing.T, d *deployment) (problems []string) {
	queries := queryFiles(t)
	for variant, rs := range d.variants() {
		insights := ""
		for _, r := range ofType(rs, "Microsoft.Insights/components") {
			insights = strings.ToLower(r.ID)
		}
		var got []string
		for _, a := range ofType(rs, "Microsoft.Insights/scheduledQueryRules") {
			name := strings.TrimPrefix(a.Name, "patrol-contoso-")
			got = append(got, name)
			criteria, _ := at(a.Properties, "criteria", "allOf").([]any)
			if len(criteria) != 1 {
				problems = append(problems, variant+" "+name+": one criterion is wanted")
				continue
			}
			query, _ := at(criteria[0], "query").(string)
			query = strings.ReplaceAll(query, insights, "{insights}")
			if !slices.Contains(slices.Collect(maps.Values(queries)), query) {
				problems = append(problems, variant+" "+name+": its query is none of queries/")
			}
			dimensions, _ := at(criteria[0], "dimensions").([]any)
			for _, dim := range dimensions {
				column, _ := at(dim, "name").(string)
				if !regexp.MustCompile(`(?m)^\| project .*\b` + column + `\b`).MatchString(query) {
					problems = append(
						problems,
						fmt.Sprintf("%s %s: the query has no column %s", variant, name, column),
					)
				}
			}
			if a.Properties["skipQueryValidation"] != true {
				problems = append(problems, variant+" "+name+": a new workspace refuses the query")
			}
			if n, _ := at(a.Properties, "actions", "actionGroups").([]any); len(n) != 1 {
				problems = append(problems, variant+" "+name+": nobody is notified")
			}
		}
		for _, a := range ofType(rs, "Microsoft.Insights/metricAlerts") {
			got = append(got, strings.TrimPrefix(a.Name, "patrol-contoso-"))
		}
		problems = append(problems, differences(variant+" alerts", got, alertNames)...)
	}
	return problems
}

var alertNames = []string{"rotation-failed", "sign-in-required", "check-incomplete", "ends-soon",
	"sign-in-expiring", "expiring", "no-sweep", "dead-letters", "event-delivery", "waiting-messages"}

var (
	substitution = regexp.MustCompile(`^\$\{([A-Z_]+)(?:=([^{}]*))?\}$`)
	humps        = regexp.MustCompile(`([a-z])([A-Z])`)
)

// words gives a parameter's name with its words apart.
func words(parameter string) string {
	return humps.ReplaceAllString(strings.ReplaceAll(parameter, "DevOps", "Devops"), "${1}_${2}")
}

// parametersFit holds main.parameters.json, which the compiler does not check,
// against the template.
func parametersFit(t *testing.T, d *deployment) (problems []string) {
	declared, _ := d.template["parameters"].(map[string]any)
	if declared == nil {
		return nil
	}
	var file struct {
		Parameters map[string]struct{ Value string }
	}
	readJSON(t, filepath.Join(d.dir, "main.parameters.json"), &file)
	for name, p := range declared {
		if _, given := file.Parameters[name]; !given && at(p, "defaultValue") == nil {
			problems = append(problems, "main.parameters.json does not give "+name+", which has no default")
		}
	}
	for name, p := range file.Parameters {
		if declared[name] == nil {
			problems = append(problems, "main.parameters.json gives "+name+", which nobody declares")
			continue
		}
		m := substitution.FindStringSubmatch(p.Value)
		if m == nil {
			problems = append(problems, "main.parameters.json: "+name+" is not taken from a variable: "+p.Value)
			continue
		}
		want := "PATROL_" + strings.ToUpper(words(name))
		switch name {
		case "environmentName":
			want = "AZURE_ENV_NAME"
		case "location":
			want = "AZURE_LOCATION"
		}
		if m[1] != want {
			problems = append(problems, fmt.Sprintf("main.parameters.json: %s comes from %s, not from %s", name, m[1],
				want))
		}
		dflt := at(declared[name], "defaultValue")
		if _, isMap := dflt.(map[string]any); isMap {
			dflt = "" // the hook gives it: a brace would end the substitution
		}
		if dflt != nil && fmt.Sprint(dflt) != m[2] {
			problems = append(
				problems,
				fmt.Sprintf("main.parameters.json: %s is %q by default, in main.bicep %v", name,
					m[2], dflt),
			)
		}
	}
	return problems
}
