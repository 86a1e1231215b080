package devops

import "strings"

// scopeList are the scopes that a PAT can have, by Azure DevOps' documentation of
// July 2025. vso.pats, vso.pats_manage and user_impersonation are for Entra
// applications only.
const scopeList = `
app_token vso.advsec vso.advsec_manage vso.advsec_write vso.agentpools vso.agentpools_manage vso.analytics
vso.auditlog vso.auditstreams_manage vso.build vso.build_execute vso.code vso.code_full vso.code_manage
vso.code_status vso.code_write vso.connected_server vso.dashboards vso.dashboards_manage vso.entitlements
vso.environment_manage vso.extension vso.extension.data vso.extension.data_write vso.extension_manage
vso.gallery vso.gallery_acquire vso.gallery_manage vso.gallery_publish vso.githubconnections
vso.githubconnections_manage vso.graph vso.graph_manage vso.hooks vso.hooks_interact vso.hooks_write
vso.identity vso.identity_manage vso.machinegroup_manage vso.memberentitlementmanagement
vso.memberentitlementmanagement_write vso.notification vso.notification_diagnostics vso.notification_manage
vso.notification_write vso.packaging vso.packaging_manage vso.packaging_write vso.pipelineresources_manage
vso.pipelineresources_use vso.profile vso.profile_write vso.project vso.project_manage vso.project_write
vso.release vso.release_execute vso.release_manage vso.securefiles_manage vso.securefiles_read
vso.securefiles_write vso.security_manage vso.serviceendpoint vso.serviceendpoint_manage
vso.serviceendpoint_query vso.settings vso.settings_write vso.symbols vso.symbols_manage vso.symbols_write
vso.taskgroups_manage vso.taskgroups_read vso.taskgroups_write vso.test vso.test_write vso.threads_full
vso.tokenadministration vso.tokens vso.variablegroups_manage vso.variablegroups_read vso.variablegroups_write
vso.wiki vso.wiki_write vso.work vso.work_full vso.work_write
`

func knownScope(scope string) bool {
	for known := range strings.FieldsSeq(scopeList) {
		if known == scope {
			return true
		}
	}
	return false
}
