package scopes

import (
	"slices"
	"strings"
	"unicode"
)

// portalNames are the names under which people meet the scopes: those of Azure DevOps'
// documentation, and those of the page on which a PAT is made by hand where they differ
// in more than punctuation and the order of words. It is never written to.
var portalNames = map[string][]string{
	"app_token":  {"Full access"},
	"vso.advsec": {"Advanced Security (read)", "AdvancedSecurity (read)"},
	"vso.advsec_manage": {
		"Advanced Security (read, write, and manage)",
		"AdvancedSecurity (read, write, and manage)",
	},
	"vso.advsec_write":        {"Advanced Security (read and write)", "AdvancedSecurity (read and write)"},
	"vso.agentpools":          {"Agent Pools (read)"},
	"vso.agentpools_manage":   {"Agent Pools (read, manage)"},
	"vso.analytics":           {"Analytics (read)"},
	"vso.auditlog":            {"Audit Log (read)", "Auditing (read)"},
	"vso.auditstreams_manage": {"Audit Streams (manage)", "Audit Streams (read)", "Audit Log (manage audit streams)"},
	"vso.build":               {"Build (read)"},
	"vso.build_execute":       {"Build (read and execute)"},
	"vso.code":                {"Code (read)"},
	"vso.code_full":           {"Code (full)"},
	"vso.code_manage":         {"Code (read, write, and manage)"},
	"vso.code_status":         {"Code (status)"},
	"vso.code_write":          {"Code (read and write)"},
	"vso.connected_server":    {"Connected Server", "Connected Server (access endpoints)"},
	"vso.dashboards":          {"Team Dashboards (read)", "Team Dashboard (read)"},
	"vso.dashboards_manage": {
		"Team Dashboards (manage)",
		"Team Dashboards (read, manage)",
		"Team Dashboard (manage)",
	},
	"vso.entitlements":             {"Entitlements (read)"},
	"vso.environment_manage":       {"Environment (read, manage)"},
	"vso.extension":                {"Extensions (read)"},
	"vso.extension.data":           {"Extension Data (read)"},
	"vso.extension.data_write":     {"Extension Data (read and write)"},
	"vso.extension_manage":         {"Extensions (read and manage)"},
	"vso.gallery":                  {"Marketplace", "Marketplace (read)"},
	"vso.gallery_acquire":          {"Marketplace (acquire)"},
	"vso.gallery_manage":           {"Marketplace (manage)"},
	"vso.gallery_publish":          {"Marketplace (publish)"},
	"vso.githubconnections":        {"GitHub Connections (read)"},
	"vso.githubconnections_manage": {"GitHub Connections (read and manage)"},
	"vso.graph":                    {"Graph (read)"},
	"vso.graph_manage":             {"Graph (manage)", "Graph (read and manage)"},
	"vso.hooks":                    {"Service Hooks (read)"},
	"vso.hooks_interact":           {"Service Hooks (interact)"},
	"vso.hooks_write":              {"Service Hooks (read and write)"},
	"vso.identity":                 {"Identity (read)"},
	"vso.identity_manage":          {"Identity (manage)", "Identity (read and manage)"},
	"vso.machinegroup_manage":      {"Deployment Groups (read, manage)", "Deployment Group (read, manage)"},
	"vso.memberentitlementmanagement": {
		"Member Entitlement Management (read)",
		"MemberEntitlement Management (read)",
	},
	"vso.memberentitlementmanagement_write": {
		"Member Entitlement Management (read and write)",
		"Member Entitlement Management (write)",
		"MemberEntitlement Management (write)",
	},
	"vso.notification":             {"Notifications (read)"},
	"vso.notification_diagnostics": {"Notifications (diagnostics)"},
	"vso.notification_manage":      {"Notifications (manage)", "Notifications (read, write, and manage)"},
	"vso.notification_write":       {"Notifications (write)", "Notifications (read and write)"},
	"vso.packaging":                {"Packaging (read)"},
	"vso.packaging_manage":         {"Packaging (read, write, and manage)"},
	"vso.packaging_write":          {"Packaging (read and write)"},
	"vso.pipelineresources_manage": {"Pipeline Resources (use and manage)"},
	"vso.pipelineresources_use":    {"Pipeline Resources (use)"},
	"vso.profile":                  {"User Profile (read)"},
	"vso.profile_write":            {"User Profile (write)", "User Profile (read and write)"},
	"vso.project":                  {"Project and Team (read)"},
	"vso.project_manage":           {"Project and Team (read, write, and manage)"},
	"vso.project_write":            {"Project and Team (read and write)"},
	"vso.release":                  {"Release (read)"},
	"vso.release_execute":          {"Release (read, write, and execute)"},
	"vso.release_manage":           {"Release (read, write, execute, and manage)"},
	"vso.securefiles_manage":       {"Secure Files (read, create, and manage)"},
	"vso.securefiles_read":         {"Secure Files (read)"},
	"vso.securefiles_write":        {"Secure Files (read, create)"},
	"vso.security_manage":          {"Security (manage)"},
	"vso.serviceendpoint":          {"Service Connections (read)", "Service Endpoints (read)"},
	"vso.serviceendpoint_manage": {
		"Service Connections (read, query, and manage)",
		"Service Endpoints (read, query, and manage)",
	},
	"vso.serviceendpoint_query": {"Service Connections (read and query)", "Service Endpoints (read and query)"},
	"vso.settings":              {"Settings (read)"},
	"vso.settings_write":        {"Settings (read and write)"},
	"vso.symbols":               {"Symbols (read)"},
	"vso.symbols_manage":        {"Symbols (read, write, and manage)"},
	"vso.symbols_write":         {"Symbols (read and write)"},
	"vso.taskgroups_manage":     {"Task Groups (read, create, and manage)"},
	"vso.taskgroups_read":       {"Task Groups (read)"},
	"vso.taskgroups_write":      {"Task Groups (read, create)"},
	"vso.test":                  {"Test Management (read)"},
	"vso.test_write":            {"Test Management (read and write)"},
	"vso.threads_full":          {"PR threads", "Pull Request Threads (read and write)"},
	"vso.tokenadministration":   {"Token Administration", "Token Administration (read and manage)"},
	"vso.tokens":                {"Delegated Authorization Tokens", "Tokens (read and manage)"},
	"vso.variablegroups_manage": {"Variable Groups (read, create, and manage)"},
	"vso.variablegroups_read":   {"Variable Groups (read)"},
	"vso.variablegroups_write":  {"Variable Groups (read, create)"},
	"vso.wiki":                  {"Wiki (read)"},
	"vso.wiki_write":            {"Wiki (read and write)"},
	"vso.work":                  {"Work Items (read)"},
	"vso.work_full":             {"Work Items (full)"},
	"vso.work_write":            {"Work Items (read and write)"},
}

// maxCandidates is how many scopes a part of a name may stand for and still be of use.
const maxCandidates = 5

// byPortalName finds the scopes that a name of the portal stands for: the one that has
// this name, or else those that have all of its words.
func byPortalName(name string) []string {
	asked := wordsOf(name)
	if len(asked) == 0 {
		return nil
	}
	var found, holding []string
	for _, e := range table {
		for _, other := range portalNames[e.name] {
			has := wordsOf(other)
			if slices.Equal(asked, has) {
				found = append(found, e.name)
			}
			isPart := !slices.ContainsFunc(asked, func(w string) bool { return !slices.Contains(has, w) })
			if isPart && !slices.Contains(holding, e.name) {
				holding = append(holding, e.name)
			}
		}
	}
	if len(found) > 0 {
		return slices.Compact(found)
	}
	if len(holding) > maxCandidates {
		return nil
	}
	return holding
}

// wordsOf takes a name to pieces, sorted: "Code (Read & write)" and "code: read, write"
// are one name.
func wordsOf(name string) []string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) })
	words = slices.DeleteFunc(words, func(w string) bool { return w == "and" })
	slices.Sort(words)
	return slices.Compact(words)
}
