package scopes_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/scopes"
)

func TestAVerdictSaysHowPowerfulAScopeIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scope    string
		kind     scopes.Kind
		powerful bool
		reason   string // part of it
	}{
		{"vso.build", scopes.Known, false, ""},
		{"vso.build_execute", scopes.Known, true, "highly privileged"},
		{"vso.extension.data_write", scopes.Known, false, ""},
		{"vso.agentpools_manage", scopes.Known, true, "highly privileged"},
		{"vso.advsec", scopes.Known, true, "highly privileged"},
		{"vso.securefiles_read", scopes.Known, true, "highly privileged"},
		{"vso.tokens", scopes.Known, true, "manage other tokens"},
		{"vso.tokenadministration", scopes.Known, true, "manage other tokens"},
		{"app_token", scopes.Known, true, "full access"},
		{"vso.brand_new_2", scopes.Unknown, false, "not in Azure DevOps' list"},
		{"vso.drop_write", scopes.Unknown, false, "not in Azure DevOps' list"},
		{"vso.connectedserver", scopes.Unknown, false, "vso.connected_server"},
		{"vso.tokens_administration", scopes.Unknown, true, "vso.tokenadministration"},
		{"user_impersonation", scopes.Refused, false, "Entra applications only"},
		{"vso.pats", scopes.Refused, false, "Entra applications only"},
		{"vso.pats_manage", scopes.Refused, false, "Entra applications only"},
		{"", scopes.Refused, false, "empty"},
		{"vso.", scopes.Refused, false, "look like vso.build_execute"},
		{"vso.a-b", scopes.Refused, false, "look like vso.build_execute"},
		{"vso.build vso.code", scopes.Refused, false, "not a scope"},
		{"everything", scopes.Refused, false, "look like vso.build_execute"},
	} {
		v := scopes.Check(c.scope)
		if v.Scope != c.scope {
			t.Errorf("Check(%q): scope %q", c.scope, v.Scope)
		}
		if v.Kind != c.kind {
			t.Errorf("Check(%q): kind %d, want %d", c.scope, v.Kind, c.kind)
		}
		if v.Powerful != c.powerful {
			t.Errorf("Check(%q): powerful %v, want %v", c.scope, v.Powerful, c.powerful)
		}
		if !strings.Contains(v.Reason, c.reason) {
			t.Errorf("Check(%q): reason %q, want it to contain %q", c.scope, v.Reason, c.reason)
		}
		if c.reason == "" && v.Reason != "" {
			t.Errorf("Check(%q): reason %q, want none", c.scope, v.Reason)
		}
	}
}

func TestWhatIsNoScopeIsAnsweredWithTheScopeToWrite(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"Vso.Build":                 {"vso.build"},
		"vso.build ":                {"vso.build"},
		"build":                     {"vso.build"},
		"Packaging":                 {"vso.packaging"},
		"vso.connectedserver":       {"vso.connected_server"},
		"vso.tokens_administration": {"vso.tokenadministration"},

		"Code (read)":                                 {"vso.code"},
		"Code (Read & write)":                         {"vso.code_write"},
		"Code (Read, write, & manage)":                {"vso.code_manage"},
		"code: read, write":                           {"vso.code_write"},
		"Full access":                                 {"app_token"},
		"FULL ACCESS":                                 {"app_token"},
		"Code (full)":                                 {"vso.code_full"},
		"Agent Pools (Read & manage)":                 {"vso.agentpools_manage"},
		"Build (Read & execute)":                      {"vso.build_execute"},
		"Service Connections (Read, query, & manage)": {"vso.serviceendpoint_manage"},
		"Pull Request Threads (Read & write)":         {"vso.threads_full"},
		"Project and Team (Read)":                     {"vso.project"},

		// A part of a name leaves a choice.
		"Work Items":    {"vso.work", "vso.work_full", "vso.work_write"},
		"Code (manage)": {"vso.code_manage"},
		"read":          nil,
		"vso.":          nil,
		"&":             nil,
		"everything":    nil,
	} {
		if got := scopes.Check(text).Write; !slices.Equal(got, want) {
			t.Errorf("%q: write %v, want %v", text, got, want)
		}
	}
}

func TestIncludesAreFollowedToTheirEnd(t *testing.T) {
	t.Parallel()
	for scope, want := range map[string][]string{
		"vso.build_execute":       {"vso.build", "vso.hooks", "vso.hooks_write", "vso.profile"},
		"vso.machinegroup_manage": {"vso.agentpools", "vso.agentpools_manage"},
		"vso.packaging":           {"vso.profile"},
		"vso.wiki":                nil,
		"vso.never_heard_of":      nil,
	} {
		if got := scopes.Check(scope).Includes; !slices.Equal(got, want) {
			t.Errorf("%s includes %v, want %v", scope, got, want)
		}
	}
}

func TestRedundantScopesAreFoundWithWhatIncludesThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list []string
		want map[string]string
	}{
		{[]string{"vso.build_execute", "vso.build", "vso.wiki"}, map[string]string{"vso.build": "vso.build_execute"}},
		{[]string{"vso.packaging", "vso.release", "vso.profile"}, map[string]string{"vso.profile": "vso.packaging"}},
		{[]string{"vso.wiki", "vso.graph"}, map[string]string{}},
		{[]string{"vso.wiki", "app_token", "vso.new"}, map[string]string{"vso.wiki": "app_token",
			"vso.new": "app_token"}},
	} {
		if got := scopes.Redundant(c.list); !maps.Equal(got, c.want) {
			t.Errorf("Redundant(%v) = %v, want %v", c.list, got, c.want)
		}
	}
}
