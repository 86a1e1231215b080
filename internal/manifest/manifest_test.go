package manifest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const day = 24 * time.Hour

const sample = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com      # who must sign in; anyone else is refused
    # administrator: true
defaults:
  lifetime: 30d
  rotateBefore: 10d
  overlap: 24h
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.build_execute, vso.agentpools_manage]
  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
    lifetime: 7d
    rotateBefore: 3d
    overlap: 2h
`

// head is the part that tests of the list do not care about.
const head = `apiVersion: patrol/v1
identities: {bot: {user: bot@contoso.com}}
pats:
`

func parse(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	m, warnings, err := manifest.Parse("pats.yaml", []byte(text))
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	return m
}

func TestASoundFileBecomesSpecsInItsOrder(t *testing.T) {
	m := parse(t, sample)
	identities := map[string]manifest.IdentitySpec{"build-bot": {Name: "build-bot", User: "build-bot@contoso.com"}}
	if !reflect.DeepEqual(m.Identities, identities) {
		t.Errorf("got %+v, want %+v", m.Identities, identities)
	}
	want := []rotation.Spec{{
		Name: "jenkins-agents", Identity: "build-bot", Organization: "contoso", DisplayName: "Jenkins agents",
		Scopes: []string{"vso.agentpools_manage", "vso.build_execute"}, Lifetime: 30 * day, RotateBefore: 10 * day,
		Overlap: day,
	}, {
		Name: "nuget-feed", Identity: "build-bot", Organization: "contoso", DisplayName: "nuget-feed",
		Scopes: []string{"vso.packaging"}, Lifetime: 7 * day, RotateBefore: 3 * day, Overlap: 2 * time.Hour,
	}}
	if !reflect.DeepEqual(m.PATs, want) {
		t.Errorf("got  %+v\nwant %+v", m.PATs, want)
	}
}

func TestAPATIsFoundWithoutCaseAsInKeyVault(t *testing.T) {
	m := parse(t, sample)
	for _, name := range []string{"nuget-feed", "NuGet-Feed"} {
		if spec, ok := m.PAT(name); !ok || spec.Name != "nuget-feed" {
			t.Errorf("%s: %v %+v", name, ok, spec)
		}
	}
	if _, ok := m.PAT("nuget"); ok {
		t.Error("found a PAT that is not declared")
	}
}

func TestWithoutDefaultsTheBuiltInOnesApply(t *testing.T) {
	m := parse(t, head+`  - name: 007
    identity: bot
    organization: c
    scopes: [vso.code]
    adopt: 0F5AD7A2-3c7b-4d0f-9f0c-6d1b2a3c4d5e
`)
	want := rotation.Spec{
		Name: "007", Identity: "bot", Organization: "c", DisplayName: "007", Scopes: []string{"vso.code"},
		Lifetime: 30 * day, RotateBefore: 10 * day, Overlap: day, Adopt: "0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e",
	}
	if !reflect.DeepEqual(m.PATs, []rotation.Spec{want}) {
		t.Errorf("got %+v, want %+v", m.PATs, want)
	}
}

func TestDefaultsMergeKeyByKey(t *testing.T) {
	m := parse(t, "defaults: {lifetime: 60d, overlap: 90m}\n"+head+
		"  - {name: a, identity: bot, organization: c, scopes: [vso.code], rotateBefore: 5d}\n")
	if m.Overlap != 90*time.Minute {
		t.Errorf("the overlap of a PAT whose entry is gone is %s, want %s", m.Overlap, 90*time.Minute)
	}
	if s := m.PATs[0]; s.Lifetime != 60*day || s.RotateBefore != 5*day || s.Overlap != 90*time.Minute {
		t.Errorf("got %+v", s)
	}
}

func TestAnchorsAndAliasesStandForOneValue(t *testing.T) {
	m := parse(t, head+`  - {name: a, identity: bot, organization: &org contoso, scopes: &ci [vso.code, vso.build]}
  - {name: b, identity: bot, organization: *org, scopes: *ci}
`)
	if a, b := m.PATs[0], m.PATs[1]; b.Organization != "contoso" || !reflect.DeepEqual(a.Scopes, b.Scopes) {
		t.Errorf("got %+v and %+v", a, b)
	}
}

func TestTwoIdentitiesMayBeOneUser(t *testing.T) {
	m := parse(t, `apiVersion: patrol/v1
identities: {bot: {user: bot@contoso.com}, Admin: {user: Bot@contoso.com, administrator: true}}
pats:
  - {name: a, identity: bot, organization: c, scopes: [vso.code]}
  - {name: b, identity: Admin, organization: c, scopes: [vso.code]}
`)
	if !m.Identities["Admin"].Administrator || m.Identities["bot"].Administrator {
		t.Errorf("got %+v", m.Identities)
	}
}

// unfold joins the lines of a message that the source has broken: all that are indented.
func unfold(text string) string {
	return regexp.MustCompile(`\n\t+`).ReplaceAllString(strings.TrimPrefix(text, "\n"), " ")
}

// TestEachRuleHasItsMessage: the golden messages, each with its place.
func TestEachRuleHasItsMessage(t *testing.T) {
	pat := func(rest string) string {
		return head + "  - {name: a, identity: bot, organization: contoso, scopes: [vso.code]" + rest + "}\n"
	}
	identity := func(rest string) string {
		return `apiVersion: patrol/v1
pats: [{name: a, identity: bot, organization: c, scopes: [vso.code]}]
identities:
` + rest
	}
	for _, tt := range []struct{ name, text, want string }{
		// The file.
		{"empty", "", `pats.yaml: the file is empty; begin with apiVersion: patrol/v1`},
		{"comments only", "# nothing\n", `pats.yaml: the file is empty; begin with apiVersion: patrol/v1`},
		{"null", "~",
			`pats.yaml:1:1: the manifest must be a mapping, not empty;
			write its keys below it, indented: apiVersion, identities, defaults, calendar, pats`},
		{"list", "- a",
			`pats.yaml:1:1: the manifest must be a mapping, not a list;
			write its keys below it, indented: apiVersion, identities, defaults, calendar, pats`},
		{"tab", "apiVersion: patrol/v1\npats:\n\t- a",
			`pats.yaml:3: the indentation of this line has a tab;
			indent with blanks, the same number for each level`},
		{"tab before a key", "apiVersion: patrol/v1\nidentities:\n  bot:\n\tuser: bot@contoso.com\n",
			`pats.yaml:4: the indentation of this line has a tab;
			indent with blanks, the same number for each level`},
		{"tab behind a dash", "apiVersion: patrol/v1\npats:\n-\tname: a\n  identity: b\n",
			`pats.yaml:3: the indentation of this line has a tab;
			indent with blanks, the same number for each level`},
		{"open bracket", head + "  - {name: a",
			`pats.yaml:3: this is not YAML: did not find expected ',' or '}';
			look at the indentation, colons and quotes around here`},
		{"unknown anchor", head + "  - *a\n",
			`pats.yaml: this is not YAML: unknown anchor 'a' referenced;
			look at the indentation, colons and quotes around here`},
		{"not UTF-8", "a: \xff",
			`pats.yaml:1:4: the byte 0xff here is not UTF-8 but another encoding, such as Latin-1;
			save the file as UTF-8`},
		{"Latin-1", head + "  - name: a\n    displayName: B\xfcro\n    identity: bot # f\xfcr alle\n",
			`pats.yaml:5:19: the byte 0xfc here is not UTF-8 but another encoding, such as Latin-1
			(there are more in 1 other lines); save the file as UTF-8`},
		{"UTF-16 without its mark", "a\x00:\x00 \x00b\x00",
			`pats.yaml:1:2: a zero byte stands here, as in UTF-16; save the file as UTF-8`},
		{"number sign in a mapping on one line", pat(", displayName: CI #1 agents"),
			`pats.yaml:4: a # after a blank begins a comment, which takes the rest of the line with its bracket;
			put the text with the # in quotes`},
		{"colon in a text", head + "  - name: a\n    displayName: CI: agents\n",
			`pats.yaml:5: this line has a second colon with a blank after it; put the text with the colon in quotes`},
		{"text that begins with an at sign", head + "  - name: a\n    displayName: @ci\n",
			"pats.yaml:5: a text here begins with @, ` or %; put the text in quotes"},
		{"text that begins with an ampersand", head + "  - name: a\n    displayName: & sons\n",
			`pats.yaml:5: a & or * stands alone, with which YAML begins the name of an anchor or alias;
			put the text in quotes`},
		{"too large", strings.Repeat("#", 32<<20+1),
			`pats.yaml: the file is larger than 33554432 bytes; split the PATs over several deployments`},
		{"two documents", pat("") + "---\n" + pat(""),
			`pats.yaml:5:1: a second document begins here; keep one and remove the --- before it`},
		{"broken second document", pat("") + "---\n{",
			`pats.yaml:6: this is not YAML: did not find expected node content;
			look at the indentation, colons and quotes around here`},
		// The top.
		{"all missing", "{}", `pats.yaml:1:1: apiVersion is missing; write apiVersion: patrol/v1
pats.yaml:1:1: identities is missing; declare who owns the PATs: identities, a name, and user below it
pats.yaml:1:1: pats is missing; declare the PATs below it, or write pats: [] if there are none`},
		{"version", strings.Replace(pat(""), "/v1", "/v2", 1),
			`pats.yaml:1:13: apiVersion is "patrol/v2", which this version of patrol does not know;
			write apiVersion: patrol/v1`},
		{"version empty", strings.Replace(pat(""), "patrol/v1", "", 1),
			`pats.yaml:1:12: apiVersion is empty; write apiVersion: patrol/v1`},
		{"unknown key", "default: {}\n" + pat(""),
			`pats.yaml:1:1: the manifest has an unknown key "default"; did you mean defaults?`},
		{"case of a key", "Defaults: {}\n" + pat(""),
			`pats.yaml:1:1: the manifest has an unknown key "Defaults"; did you mean defaults?`},
		{"key far from all", "x-notes: {}\n" + pat(""),
			`pats.yaml:1:1: the manifest has an unknown key "x-notes";
			the keys here are apiVersion, identities, defaults, calendar, pats`},
		{"key twice", pat("") + "pats: []\n",
			`pats.yaml:5:1: the manifest has "pats" twice; keep this one or the one in line 3`},
		{"key that is no word", "? [a]\n: b\n" + pat(""),
			`pats.yaml:1:3: a key of the manifest is a list; write a plain word before the colon`},
		// Identities.
		{"identities a list", identity("  - bot"),
			`pats.yaml:2:28: PAT "a" has an identity "bot" that is not declared; declare it under identities
pats.yaml:4:3: identities must be a mapping, not a list; write one name and colon per line below it, indented`},
		{"no user", identity("  bot: {}"),
			`pats.yaml:4:3: identity "bot" has no user;
			write the user principal name of who signs in, such as build-bot@contoso.com`},
		{"user without domain", identity("  bot: {user: bot}"),
			`pats.yaml:4:15: user "bot" is not a user principal name;
			write the user principal name of who signs in, such as build-bot@contoso.com`},
		{"user with blank", identity("  bot: {user: b t@contoso.com}"),
			`pats.yaml:4:15: user "b t@contoso.com" is not a user principal name;
			write the user principal name of who signs in, such as build-bot@contoso.com`},
		{"user with a broken domain", identity("  bot: {user: b@contoso..com}"),
			`pats.yaml:4:15: user "b@contoso..com" is not a user principal name;
			write the user principal name of who signs in, such as build-bot@contoso.com`},
		{"user empty", identity("  bot:\n    user:"),
			`pats.yaml:5:10: user of identity "bot" is empty;
			write the user principal name of who signs in, such as build-bot@contoso.com`},
		{"identity without body", identity("  bot:"),
			`pats.yaml:4:7: identity "bot" must be a mapping, not empty;
			write its keys below it, indented: user, administrator`},
		{"administrator a word", identity("  bot: {user: b@c.d, administrator: yes}"),
			`pats.yaml:4:37: administrator of identity "bot" is neither true nor false; write true or false`},
		{"identity twice without case", identity("  bot: {user: b@c.d}\n  Bot: {user: b@c.d}"),
			`pats.yaml:5:3: identity "Bot" is declared in line 4 already;
			give it another name: Key Vault does not tell upper case from lower`},
		{"identity with a strange name", identity("  bot: {user: b@c.d}\n  b_t: {user: b@c.d}"),
			`pats.yaml:5:3: identity "b_t" has a name that Key Vault does not take;
			use letters a-z, digits and hyphens only, as Key Vault does`},
		{"identity with a long name", identity("  bot: {user: b@c.d}\n  " + strings.Repeat("b", 101) +
			": {user: b@c.d}"),
			`pats.yaml:5:3: the name of identity "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb..." is 101 characters long;
			make it 100 characters or fewer`},
		{"token of an identity", identity("  bot: {user: b@c.d, password: hunter2}"),
			`pats.yaml:4:22: a token does not belong into this file;
			revoke it, remove it from the file and its history, and let patrol make a new one`},
		// Defaults.
		{"defaults of anything else", "defaults: {scopes: [vso.code]}\n" + pat(""),
			`pats.yaml:1:12: defaults has an unknown key "scopes"; the keys here are lifetime, rotateBefore, overlap`},
		{"defaults contradict each other, reported once", "defaults: {lifetime: 5d}\n" + pat("") +
			"  - {name: b, identity: bot, organization: contoso, scopes: [vso.code]}\n",
			`pats.yaml:1:1: defaults: rotateBefore 10d must be shorter than lifetime 5d, or each PAT is due when it is
			made; shorten rotateBefore or lengthen lifetime`},
		{"a broken default is not reported again by each PAT", "defaults: {lifetime: 5x, rotateBefore: 40d}\n" +
			pat(", overlap: 2d"),
			`pats.yaml:1:22: lifetime "5x" is not a duration; write a whole number and one unit: 45s, 90m, 24h or 30d`},
		// PATs.
		{"pats empty", head,
			`pats.yaml:3:6: pats must be a list, not empty;
			write one PAT per dash below it, or pats: [] if there are none`},
		{"pats a mapping", head + "  a: {}\n",
			`pats.yaml:4:3: pats must be a list, not a mapping;
			write one PAT per dash below it, or pats: [] if there are none`},
		{"a PAT that is a word", head + "  - jenkins\n",
			`pats.yaml:4:5: PAT 1 must be a mapping, not a single value;
			write its keys below it, indented: name, identity, organization, displayName, scopes, lifetime,
			rotateBefore, overlap, adopt, windows, paused, consumers, switchOver`},
		{"nothing in it", head + "  - {}\n",
			`pats.yaml:4:5: PAT 1 has no name; name it like the Key Vault secret that it shall be
pats.yaml:4:5: PAT 1 has no identity; name one of the identities above
pats.yaml:4:5: PAT 1 has no organization; write the name that follows dev.azure.com/ in its address, such as contoso
pats.yaml:4:5: PAT 1 has no scopes; write what it may do, such as scopes: [vso.code]`},
		{"typing error", pat(", lifetme: 7d"),
			`pats.yaml:4:73: PAT 1 has an unknown key "lifetme"; did you mean lifetime?`},
		{"underscores", pat(", display_name: x"),
			`pats.yaml:4:73: PAT 1 has an unknown key "display_name"; did you mean displayName?`},
		{"the same key twice", pat(", name: b"),
			`pats.yaml:4:73: PAT 1 has "name" twice; keep this one or the one in line 4`},
		{"merge", `apiVersion: patrol/v1
identities: {bot: &b {user: bot@contoso.com}}
pats:
  - {<<: *b, name: a, identity: bot, organization: contoso, scopes: [vso.code]}
`,
			`pats.yaml:4:6: merging with << is not supported; write the keys out, or use an alias for one value`},
		{"merge instead of keys", `apiVersion: patrol/v1
identities: {bot: &b {user: bot@contoso.com}, two: {<<: *b}}
defaults: {<<: {lifetime: 30d}}
pats:
  - &a {name: a, identity: bot, organization: contoso, scopes: [vso.code]}
  - {<<: *a, name: b}
`,
			`pats.yaml:2:53: merging with << is not supported; write the keys out, or use an alias for one value
pats.yaml:3:12: merging with << is not supported; write the keys out, or use an alias for one value
pats.yaml:6:6: merging with << is not supported; write the keys out, or use an alias for one value`},
		{"all organizations", pat(", allOrgs: true"),
			`pats.yaml:4:73: allOrgs is refused: Azure DevOps retires global PATs on 2026-12-01;
			remove it and declare one PAT per organization`},
		{"a token in the file", pat(", token: canary"),
			`pats.yaml:4:73: a token does not belong into this file;
			revoke it, remove it from the file and its history, and let patrol make a new one`},
		{"name", strings.Replace(pat(""), "name: a", "name: a_b", 1),
			`pats.yaml:4:12: PAT "a_b" has a name that Key Vault does not take;
			use letters a-z, digits and hyphens only, as Key Vault does`},
		{"name too long", strings.Replace(pat(""), "name: a", "name: "+strings.Repeat("a", 128), 1),
			`pats.yaml:4:12: the name of PAT "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." is 128 characters long;
			make it 127 characters or fewer`},
		{"name of patrol's own", strings.Replace(pat(""), "name: a", "name: Patrol-x", 1),
			`pats.yaml:4:12: PAT "Patrol-x" begins with patrol-, which is for patrol's own secrets;
			give it another name`},
		{"name a list", strings.Replace(pat(""), "name: a", "name: [a]", 1),
			`pats.yaml:4:12: name of PAT 1 must be text, not a list;
			name it like the Key Vault secret that it shall be`},
		{"name with a tag", strings.Replace(pat(""), "name: a", "name: !!binary YQ==", 1),
			`pats.yaml:4:12: name of PAT 1 has a YAML tag; remove the tag`},
		{"name twice without case", pat("") +
			"  - {name: A, identity: bot, organization: contoso, scopes: [vso.code]}\n",
			`pats.yaml:5:12: PAT "A" is declared in line 4 already;
			give it another name: Key Vault does not tell upper case from lower`},
		{"identity misspelt", strings.Replace(pat(""), "identity: bot", "identity: bto", 1),
			`pats.yaml:4:25: PAT "a" has an identity "bto" that is not declared; did you mean bot?`},
		{"identity unknown", strings.Replace(pat(""), "identity: bot", "identity: somebody", 1),
			`pats.yaml:4:25: PAT "a" has an identity "somebody" that is not declared;
			declare it under identities, or use one that is there: bot`},
		{"organization with an underscore", strings.Replace(pat(""), "contoso,", "con_toso,", 1),
			`pats.yaml:4:44: organization "con_toso" of PAT "a" is not the name of an organization;
			write the name that follows dev.azure.com/ in its address, such as contoso`},
		{"organization begins with a hyphen", strings.Replace(pat(""), "contoso,", "-contoso,", 1),
			`pats.yaml:4:44: organization "-contoso" of PAT "a" is not the name of an organization;
			write the name that follows dev.azure.com/ in its address, such as contoso`},
		{"organization too long", strings.Replace(pat(""), "contoso,", strings.Repeat("c", 51)+",", 1),
			`pats.yaml:4:44: organization "cccccccccccccccccccccccccccccccccccccccc..." of PAT "a" is not the name of an
			organization; write the name that follows dev.azure.com/ in its address, such as contoso`},
		{"organization as an address", strings.Replace(pat(""), "contoso,", "https://dev.azure.com/contoso/proj,", 1),
			`pats.yaml:4:44: organization "https://dev.azure.com/contoso/proj" of PAT "a" is not the name of an
			organization; write organization: contoso`},
		{"organization as an old address", strings.Replace(pat(""), "contoso,", "contoso.visualstudio.com,", 1),
			`pats.yaml:4:44: organization "contoso.visualstudio.com" of PAT "a" is not the name of an organization;
			write organization: contoso`},
		{"organizations in a list", strings.Replace(pat(""), "contoso,", "[contoso, fabrikam],", 1),
			`pats.yaml:4:44: organization of PAT "a" is a list;
			a PAT is for one organization: declare one PAT for each, with a name of its own`},
		{"organizations in a text", strings.Replace(pat(""), "contoso,", "'contoso, fabrikam',", 1),
			`pats.yaml:4:44: organization "contoso, fabrikam" of PAT "a" is not one organization;
			a PAT is for one organization: declare one PAT for each, with a name of its own`},
		{"organizations by a star", strings.Replace(pat(""), "contoso,", "'*',", 1),
			`pats.yaml:4:44: organization "*" of PAT "a" is not one organization;
			a PAT is for one organization: declare one PAT for each, with a name of its own`},
		{"organizations by a bare star", head + "  - name: a\n    organization: *\n    scopes: [vso.code]\n",
			`pats.yaml:5: organization * is not one organization;
			a PAT is for one organization: declare one PAT for each, with a name of its own`},
		{"organizations as a key", strings.Replace(pat(""), "organization:", "organizations:", 1),
			`pats.yaml:4:5: PAT "a" has no organization;
			write the name that follows dev.azure.com/ in its address, such as contoso
pats.yaml:4:30: a PAT is for one organization; write organization with one name, and one PAT for each`},
		{"a password in an organization's address", strings.Replace(pat(""), "contoso,",
			"'https://me:canary@dev.azure.com/contoso/p/_git/r',", 1),
			`pats.yaml:4:44: a token does not belong into this file: organization of PAT "a" has one in its address;
			revoke it, remove it from the file and its history, and let patrol make a new one`},
		{"display name with blanks", pat(`, displayName: " x"`),
			`pats.yaml:4:86: displayName of PAT "a" has blanks around it or line breaks in it;
			write one line without blanks around it`},
		{"display name of two lines", pat(`, displayName: "x\ny"`),
			`pats.yaml:4:86: displayName of PAT "a" has blanks around it or line breaks in it;
			write one line without blanks around it`},
		{"display name too long", pat(`, displayName: ` + strings.Repeat("x", 201)),
			`pats.yaml:4:86: displayName of PAT "a" is 201 bytes long; make it 200 bytes or fewer`},
		{"display name with our mark", pat(`, displayName: x (patrol abcdef-abcdefghij)`),
			`pats.yaml:4:86: displayName of PAT "a" has patrol's own mark, which is added to each new PAT;
			write it without what is in brackets`},
		{"one display name twice", pat(", displayName: X") +
			"  - {name: b, identity: bot, organization: Contoso, scopes: [vso.code], displayName: x}\n",
			`pats.yaml:5:86: PAT "b" has the same user, organization and displayName as the one in line 4;
			give one of them another displayName`},
		{"one display name, two identities, one user", `apiVersion: patrol/v1
identities: {bot: {user: bot@contoso.com}, two: {user: Bot@contoso.com}}
pats:
  - {name: a, identity: bot, organization: c, scopes: [vso.code], displayName: b}
  - {name: b, identity: two, organization: c, scopes: [vso.code]}
`,
			`pats.yaml:5:5: PAT "b" has the same user, organization and displayName as the one in line 4;
			give one of them another displayName`},
		{"no scope", strings.Replace(pat(""), "[vso.code]", "[]", 1),
			`pats.yaml:4:61: scopes of PAT "a" is empty; write a list, such as scopes: [vso.code, vso.build]`},
		{"scopes as text", strings.Replace(pat(""), "[vso.code]", "vso.code vso.build", 1),
			`pats.yaml:4:61: scopes of PAT "a" must be a list, not a single value;
			write a list, such as scopes: [vso.code, vso.build]`},
		{"scopes for applications", strings.Replace(pat(""), "[vso.code]", "[user_impersonation, vso.pats]", 1),
			`pats.yaml:4:62: user_impersonation is for Microsoft Entra applications only: no personal access token can
			have it; remove it or correct it
pats.yaml:4:82: vso.pats is for Microsoft Entra applications only: no personal access token can have it;
	remove it or correct it`},
		{"scope without prefix", strings.Replace(pat(""), "[vso.code]", "[code]", 1),
			`pats.yaml:4:62: "code" is not a scope; write vso.code`},
		{"scopes by the portal's names", strings.Replace(pat(""), "[vso.code]",
			"[Code (read), Code (Read & write), Full access, Work Items, all of them]", 1),
			`pats.yaml:4:62: "Code (read)" is not a scope; write vso.code
pats.yaml:4:75: "Code (Read & write)" is not a scope; write vso.code_write
pats.yaml:4:96: "Full access" is not a scope; write app_token
pats.yaml:4:109: "Work Items" is not a scope; write one of vso.work, vso.work_full, vso.work_write
pats.yaml:4:121: "all of them" is not a scope: scopes look like vso.build_execute; remove it or correct it`},
		{"a portal's name with commas, in a list on one line", strings.Replace(pat(""), "[vso.code]",
			"[vso.wiki, Code (Read, write, and manage), vso.build]", 1),
			`pats.yaml:4:72: "Code (Read, write, and manage)" is not a scope; write vso.code_manage`},
		{"a portal's name with commas and an ampersand, in a list on one line", strings.Replace(pat(""), "[vso.code]",
			"[vso.wiki, Code (Read, write, & manage), Wiki (Read & write)]", 1),
			`pats.yaml:4: this looks like the portal's name of a scope, which YAML cannot read here;
			write vso.code_manage, vso.wiki_write`},
		{"a portal's name with commas and an ampersand, in a list of lines", head +
			"  - name: a\n    identity: bot\n    organization: c\n    scopes:\n      - Code (Read, write, & manage)\n",
			`pats.yaml:8:9: "Code (Read, write, & manage)" is not a scope; write vso.code_manage`},
		{"scope empty", strings.Replace(pat(""), "[vso.code]", "[vso.code, ~]", 1),
			`pats.yaml:4:72: a scope of PAT "a" is empty; write a list, such as scopes: [vso.code, vso.build]`},
		{"scope too long", strings.Replace(pat(""), "[vso.code]", "[vso."+strings.Repeat("x", 130)+"]", 1),
			`pats.yaml:4:62: a scope of PAT "a" is 134 characters long;
			write a list, such as scopes: [vso.code, vso.build]`},
		{"too many scopes", strings.Replace(pat(""), "[vso.code]", "["+strings.Repeat("vso.code,", 101)+"]", 1),
			`pats.yaml:4:61: 101 scopes of PAT "a" are more than 100; keep what the PAT needs`},
		{"duration without unit", pat(", lifetime: 30"),
			`pats.yaml:4:83: lifetime "30" is not a duration; write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"duration of two units", pat(", overlap: 1h30m"),
			`pats.yaml:4:82: overlap "1h30m" is not a duration;
			write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"duration with a fraction", pat(", overlap: 1.5h"),
			`pats.yaml:4:82: overlap "1.5h" is not a duration;
			write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"duration below zero", pat(", overlap: -1h"),
			`pats.yaml:4:82: overlap "-1h" is not a duration; write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"duration beyond numbers", pat(", overlap: 99999999999d"),
			`pats.yaml:4:82: overlap "99999999999d" is not a duration;
			write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"duration a list", pat(", overlap: [1h]"),
			`pats.yaml:4:82: overlap must be text, not a list;
			write a whole number and one unit: 45s, 90m, 24h or 30d`},
		{"life over a year", pat(", lifetime: 366d"),
			`pats.yaml:4:83: lifetime 366d is longer than Azure DevOps lets a PAT live; write 365d or less`},
		{"no time before", pat(", rotateBefore: 0d, overlap: 1s"),
			`pats.yaml:4:87: rotateBefore is zero; write how long, such as 10d`},
		{"rotate before the beginning", pat(", lifetime: 10d"),
			`pats.yaml:4:5: PAT "a": rotateBefore 10d must be shorter than lifetime 10d, or each PAT is due when it is
			made; shorten rotateBefore or lengthen lifetime`},
		{"overlap beyond the end", pat(", rotateBefore: 23h"),
			`pats.yaml:4:5: PAT "a": overlap 1d must not be longer than rotateBefore 23h, or the replaced PAT runs out
			before its overlap ends; shorten overlap or lengthen rotateBefore`},
		{"adopt a name", pat(", adopt: jenkins"),
			`pats.yaml:4:80: adopt of PAT "a" is not a GUID;
			write the authorization id of the PAT to adopt, as rotation-failed with code ambiguous-adoption lists it,
			or replace to let a new PAT take the place of a value that is none`},
		{"adopt without dashes", pat(", adopt: 0f5ad7a203c7b04d0f09f0c06d1b2a3c4d5e"),
			`pats.yaml:4:80: adopt of PAT "a" is not a GUID;
			write the authorization id of the PAT to adopt, as rotation-failed with code ambiguous-adoption lists it,
			or replace to let a new PAT take the place of a value that is none`},
		{"alias to itself", "apiVersion: patrol/v1\nidentities: {bot: {user: bot@contoso.com}}\npats: &a\n  - *a\n",
			`pats.yaml:4:5: PAT 1 must be a mapping, not a list;
			write its keys below it, indented: name, identity, organization, displayName, scopes, lifetime,
			rotateBefore, overlap, adopt, windows, paused, consumers, switchOver`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, _, err := manifest.Parse("pats.yaml", []byte(tt.text))
			if err == nil || m != nil {
				t.Fatalf("accepted: %+v", m)
			}
			if got := err.Error(); got != unfold(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", got, unfold(tt.want))
			}
			if _, ok := errors.AsType[manifest.Findings](err); !ok {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}

func TestAllProblemsComeInOneAnswerInTheFilesOrder(t *testing.T) {
	_, _, err := manifest.Parse("pats.yaml", []byte(`apiVersion: patrol/v2
identities:
  build-bot:
    user: build-bot
pats:
  - name: jenkins_agents
    identity: build-bto
    organization: contoso
    scopes: [vso.pats]
    lifetime: 30
  - name: feed
    identity: build-bot
    organisation: contoso
    scopes: [vso.packaging]
    lifetime: 7d
`))
	want := `
pats.yaml:1:13: apiVersion is "patrol/v2", which this version of patrol does not know; write apiVersion: patrol/v1
pats.yaml:4:11: user "build-bot" is not a user principal name;
	write the user principal name of who signs in, such as build-bot@contoso.com
pats.yaml:6:11: PAT "jenkins_agents" has a name that Key Vault does not take;
	use letters a-z, digits and hyphens only, as Key Vault does
pats.yaml:7:15: PAT "jenkins_agents" has an identity "build-bto" that is not declared; did you mean build-bot?
pats.yaml:9:14: vso.pats is for Microsoft Entra applications only: no personal access token can have it;
	remove it or correct it
pats.yaml:10:15: lifetime "30" is not a duration; write a whole number and one unit: 45s, 90m, 24h or 30d
pats.yaml:11:5: PAT "feed" has no organization;
	write the name that follows dev.azure.com/ in its address, such as contoso
pats.yaml:11:5: PAT "feed": rotateBefore 10d must be shorter than lifetime 7d, or each PAT is due when it is made;
	shorten rotateBefore or lengthen lifetime
pats.yaml:13:5: PAT 2 has an unknown key "organisation"; did you mean organization?`
	if err == nil || err.Error() != unfold(want) {
		t.Errorf("got\n%v\nwant\n%s", err, unfold(want))
	}
	findings, ok := errors.AsType[manifest.Findings](err)
	if !ok || len(findings) != 9 {
		t.Fatalf("a %T with %d findings, want 9", err, len(findings))
	}
	if got := findings[2].Line; got != 6 {
		t.Errorf("line %d, want 6", got)
	}
	if got := findings[2].Column; got != 11 {
		t.Errorf("column %d, want 11", got)
	}
	if findings[2].Do == "" {
		t.Error("the finding does not say what to do")
	}
}

func TestWhatIsOnlyDoubtfulWarns(t *testing.T) {
	m, warnings, err := manifest.Parse("pats.yaml", []byte(head+`  - name: a
    identity: bot
    organization: contoso
    overlap: 0s
    scopes: [vso.code_write, vso.code, vso.brand_new, vso.code, vso.tokens]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `
pats.yaml:7:14: with overlap 0s a replaced PAT dies at once; write the time that consumers need to read the new one
pats.yaml:8:30: scope vso.code of PAT "a" is included in vso.code_write; remove it
pats.yaml:8:40: vso.brand_new is not in Azure DevOps' list of scopes: Azure DevOps may refuse it; check its spelling
pats.yaml:8:55: scope vso.code of PAT "a" is there twice; remove one
pats.yaml:8:65: vso.tokens lets its bearer manage other tokens; use a narrower scope if there is one`
	if got := manifest.Findings(warnings).Error(); got != unfold(want) {
		t.Errorf("got\n%s\nwant\n%s", got, unfold(want))
	}
	if got := m.PATs[0].Scopes; !reflect.DeepEqual(got, []string{"vso.brand_new", "vso.code_write", "vso.tokens"}) {
		t.Errorf("scopes %q", got)
	}
	numbered := strings.Replace(sample, "Jenkins agents", "CI #1 agents", 1)
	m, warnings, err = manifest.Parse("pats.yaml", []byte(numbered))
	if err != nil || m.PATs[0].DisplayName != "CI" {
		t.Fatalf("number sign: %+v, %v", m, err)
	}
	want = `
pats.yaml:14:18: displayName of PAT "jenkins-agents" ends before "#1 agents", which YAML takes for a comment;
		put it in quotes, displayName: "CI #1 agents"`
	if got := manifest.Findings(warnings).Error(); got != unfold(want) {
		t.Errorf("number sign: got\n%s\nwant\n%s", got, unfold(want))
	}
	m, warnings, err = manifest.Parse("pats.yaml", []byte("apiVersion: patrol/v1\nidentities: {}\npats: []\n"))
	if err != nil || len(m.PATs) != 0 {
		t.Fatalf("no PATs: %+v, %v", m, err)
	}
	want = "pats.yaml:3:1: no PAT is declared, so there is nothing to keep fresh; declare at least one"
	if got := manifest.Findings(warnings).Error(); got != want {
		t.Errorf("no PATs: got\n%s\nwant\n%s", got, want)
	}
}

func TestALifeThatLeadsToMoreVersionsThanABackupTakesWarns(t *testing.T) {
	const text = `apiVersion: patrol/v1
identities: {bot: {user: bot@contoso.com}}
defaults: {lifetime: 24h, rotateBefore: 8h, overlap: 1h}
pats:
  - {name: a, identity: bot, organization: contoso, scopes: [vso.code]}
  - {name: b, identity: bot, organization: contoso, scopes: [vso.code]}
  - {name: c, identity: bot, organization: contoso, scopes: [vso.code], lifetime: 3h, rotateBefore: 1h}
  - {name: d, identity: bot, organization: contoso, scopes: [vso.code], rotateBefore: 6h}
  - {name: e, identity: bot, organization: contoso, scopes: [vso.code], lifetime: 1600m, rotateBefore: 549m}
`
	_, warnings, err := manifest.Parse("pats.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	const do = "and Key Vault backs up no secret with more than 500; " +
		"lengthen lifetime or shorten rotateBefore, or do without backups of the secret"
	want := `
pats.yaml:3:1: defaults: a rotation every 16h stores 547 versions within a year, ` + do + `
pats.yaml:7:5: PAT "c": a rotation every 2h stores 4380 versions within a year, ` + do
	if got := manifest.Findings(warnings).Error(); got != unfold(want) {
		t.Errorf("got\n%s\nwant\n%s", got, unfold(want))
	}
}

func TestATokenWrittenIntoTheFileIsNotRepeatedInTheMessage(t *testing.T) {
	for _, key := range []string{"token", "pat", "value", "Secret", "password"} {
		_, _, err := manifest.Parse("pats.yaml", []byte(head+"  - {"+key+": canary}\n"))
		if err == nil || !strings.Contains(err.Error(), "does not belong") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestAliasesCannotMultiplyTheWork(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10),
			","))
	}
	keys := make([]string, 60)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%d: 1", i)
	}
	for name, text := range map[string]string{
		"a billion laughs": laughs.String(),
		"many keys":        head + "  - &a {" + strings.Join(keys, ", ") + "}\n" + strings.Repeat("  - *a\n", 15_000),
		"many PATs":        head + strings.Repeat("  - {}\n", 20_001),
		"very many keys":   head + "  - {" + strings.Repeat("a: 1,", 100) + "}\n",
	} {
		_, _, err := manifest.Parse("pats.yaml", []byte(text))
		findings, ok := errors.AsType[manifest.Findings](err)
		if !ok || len(findings) > 1100 {
			t.Errorf("%s: a %T with %d findings, want 1100 at most", name, err, len(findings))
		}
	}
	nested := head + strings.Repeat("[", 20_000)
	if _, _, err := manifest.Parse("pats.yaml", []byte(nested)); err == nil || !strings.Contains(err.Error(),
		"not YAML") {
		t.Error("20,000 brackets were accepted")
	}
}

func TestReadTellsAMissingFileFromAnUnreadableOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pats.yaml")
	if _, _, err := manifest.Read(path); err == nil || !strings.HasSuffix(err.Error(),
		"pats.yaml: there is no manifest here; put pats.yaml beside host.json, or say in PATROL_MANIFEST where it is") {
		t.Errorf("missing: %v", err)
	}
	if _, _, err := manifest.Read(dir); err == nil || !strings.HasSuffix(err.Error(),
		": the manifest cannot be read; see that it is a readable file, and what PATROL_MANIFEST says") {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, _, err := manifest.Read(path); err != nil || len(m.PATs) != 2 {
		t.Errorf("good: %v", err)
	}
	if err := os.WriteFile(path, make([]byte, 33<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := manifest.Read(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large: %v", err)
	}
}

func TestDurationsComeBackAsTheyWereWritten(t *testing.T) {
	for text, want := range map[string]time.Duration{"45s": 45 * time.Second, "90m": 90 * time.Minute,
		"25h": 25 * time.Hour, "30d": 30 * day, "0s": 0} {
		got, ok := manifest.ParseDuration(text)
		if !ok || got != want || manifest.FormatDuration(got) != text {
			t.Errorf("%s: %v %v %s", text, got, ok, manifest.FormatDuration(got))
		}
	}
	for _, text := range []string{"", "d", "1", "1w", "1D", " 1d", "+1d", "1 d", "¼d", "1e3s", "106752d",
		"9223372036854775808s"} {
		if got, ok := manifest.ParseDuration(text); ok {
			t.Errorf("%q gave %v", text, got)
		}
	}
}

func TestUserPrincipalNamesAreKnown(t *testing.T) {
	for user, want := range map[string]bool{
		"anna_fabrikam.com#EXT#@contoso.onmicrosoft.com": true, "o'neil@contoso.com": true, "a@b.c": true,
		"a@b": false, "@b.c": false, "a@b@c.d": false, "a@-b.c": false, "a b@c.d": false, "ä@c.d": false,
		strings.Repeat("a", 260) + "@b.c": false,
	} {
		_, _, err := manifest.Parse("pats.yaml",
			[]byte("apiVersion: patrol/v1\npats: []\nidentities:\n  bot:\n    user: \""+user+"\"\n"))
		if (err == nil) != want {
			t.Errorf("%s: %v", user, err)
		}
	}
}

func TestAnAddressOfAnOrganizationIsAnsweredWithItsName(t *testing.T) {
	for address, want := range map[string]string{
		"contoso/":                                           "contoso",
		"/contoso":                                           "contoso",
		"contoso/project":                                    "contoso",
		"contoso\\project":                                   "contoso",
		"https://dev.azure.com/contoso/":                     "contoso",
		"HTTPS://Dev.Azure.com/Contoso":                      "Contoso",
		"dev.azure.com:443/contoso":                          "contoso",
		"https://dev.azure.com/contoso?view=all":             "contoso",
		"https://contoso@dev.azure.com/contoso/p/_git/r":     "contoso",
		"git@ssh.dev.azure.com:v3/contoso/p/r":               "contoso",
		"ssh://git@ssh.dev.azure.com:22/v3/contoso/p/r":      "contoso",
		"contoso@vs-ssh.visualstudio.com:v3/contoso/p/r":     "contoso",
		"https://contoso.visualstudio.com/p/_git/r":          "contoso",
		"https://Contoso.VisualStudio.com/DefaultCollection": "Contoso",
		"https://contoso.vssps.visualstudio.com":             "contoso",
		"https://pkgs.dev.azure.com/contoso/_packaging/f":    "contoso",
		"https://vssps.dev.azure.com/contoso":                "contoso",

		"https://dev.azure.com/":                 "",
		"https://app.vssps.visualstudio.com":     "",
		"https://github.com/contoso":             "",
		"https://devops.contoso.com/tfs/Default": "",
		"contoso.onmicrosoft.com":                "",
		"con_toso":                               "",
	} {
		text := strings.Replace(head, "pats:", "pats: [{name: a, identity: bot, scopes: [vso.code], organization: '"+
			address+"'}]", 1)
		_, _, err := manifest.Parse("pats.yaml", []byte(text))
		findings, ok := errors.AsType[manifest.Findings](err)
		if !ok || len(findings) != 1 {
			t.Errorf("%s: %v, want one finding", address, err)
			continue
		}
		do := "write organization: " + want
		if want == "" {
			do = "write the name that follows dev.azure.com/ in its address, such as contoso"
		}
		if got := findings[0].Do; got != do {
			t.Errorf("%s: %q, want %q", address, got, do)
		}
	}
}

// A PAT in a clone URL is a token in the file: it must not come into a log as well.
func TestAnAddressWithATokenIsNotRepeated(t *testing.T) {
	for _, address := range []string{
		"https://me:canary@dev.azure.com/contoso", "https://:canary@contoso.visualstudio.com",
		"https://canary" + strings.Repeat("x", 46) + "@dev.azure.com/contoso",
	} {
		text := strings.Replace(head, "pats:", "pats: [{name: a, identity: bot, scopes: [vso.code], organization: '"+
			address+"'}]", 1)
		_, _, err := manifest.Parse("pats.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), "a token does not belong into this file") {
			t.Errorf("%s: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the message repeats %s: %v", address, err)
		}
	}
}

func TestUTF16IsReadIfItSaysSo(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("\xff\xfe")
	for _, c := range []byte(sample) {
		b.Write([]byte{c, 0})
	}
	if m := parse(t, b.String()); len(m.PATs) != 2 {
		t.Errorf("%d PATs, want 2", len(m.PATs))
	}
}

func TestAnEmptyDisplayNameSaysThatANumberSignWasTakenForAComment(t *testing.T) {
	_, _, err := manifest.Parse("pats.yaml", []byte(strings.Replace(sample, "Jenkins agents", "#1 agents", 1)))
	want := `pats.yaml:14:17: displayName of PAT "jenkins-agents" is empty;
		put it in quotes, displayName: "#1 agents", or leave it out to use the name`
	if err == nil || err.Error() != unfold(want) {
		t.Errorf("got\n%v\nwant\n%s", err, unfold(want))
	}
}

func TestOnlyWhatYAMLCutsOffIsWarnedOf(t *testing.T) {
	for text, warns := range map[string]bool{
		"CI #1 agents": true, "CI # the first": false, "CI ## the first": false, "'CI #1 agents'": false,
		"'CI' #TODO": false, "CI#1 agents": false, "CI": false,
	} {
		_, warnings, err := manifest.Parse("pats.yaml", []byte(strings.Replace(sample, "Jenkins agents", text, 1)))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := len(warnings) > 0; got != warns {
			t.Errorf("%s: warnings %v, want some: %v", text, warnings, warns)
		}
	}
}

func TestAdoptReplaceIsAWordOfTheManifest(t *testing.T) {
	m := parse(t, head+`  - {name: a, identity: bot, organization: c, scopes: [vso.code], adopt: replace}
  - {name: b, identity: bot, organization: c, scopes: [vso.code], adopt: Replace}
`)
	for _, s := range m.PATs {
		if s.Adopt != rotation.AdoptReplace {
			t.Errorf("%s: adopt %q, want %q", s.Name, s.Adopt, rotation.AdoptReplace)
		}
	}
	if len(m.PATs) != 2 || len(m.Refused) != 0 {
		t.Errorf("%d PATs, refused %v; want 2 and none", len(m.PATs), m.Refused)
	}
}

const twoAdopters = head + `  - {name: a, identity: bot, organization: c, scopes: [vso.code],
     adopt: 0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e}
  - {name: b, identity: bot, organization: c, scopes: [vso.code]}
  - {name: c, identity: bot, organization: d, scopes: [vso.code],
     adopt: 0F5AD7A2-3C7B-4D0F-9F0C-6D1B2A3C4D5E}
`

// One entry's problem is not the others': they go on.
func TestEntriesThatAdoptOnePATAreRefusedSingly(t *testing.T) {
	m := parse(t, twoAdopters)
	if len(m.PATs) != 1 || m.PATs[0].Name != "b" {
		t.Errorf("in force: %+v, want b alone", m.PATs)
	}
	if spec, ok := m.PAT("b"); !ok || spec.Name != "b" {
		t.Errorf("b is found as %+v (%v)", spec, ok)
	}
	want := []string{
		`pats.yaml:5:13: adopt of PAT "a" names the same PAT as adopt of PAT "c";
			leave it in the entry whose secret holds that PAT, and remove it from the other`,
		`pats.yaml:8:13: adopt of PAT "c" names the same PAT as adopt of PAT "a";
			leave it in the entry whose secret holds that PAT, and remove it from the other`,
	}
	checkRefused(t, m, want)
	for i, name := range []string{"a", "c"} {
		if r := m.Refused[i]; r.PAT.Name != name || r.PAT.Lifetime != 30*day || r.Identity != "bot" {
			t.Errorf("refused %d: %+v, want %s with all of its fields", i, r, name)
		}
		if _, ok := m.PAT(name); ok {
			t.Errorf("%s is in force", name)
		}
	}
}

func checkRefused(t *testing.T, m *manifest.Manifest, want []string) {
	t.Helper()
	if len(m.Refused) != len(want) {
		t.Fatalf("refused: %v, want %d entries", m.Refused, len(want))
	}
	for i, r := range m.Refused {
		if got := r.String(); got != unfold(want[i]) {
			t.Errorf("refused %d: got\n%s\nwant\n%s", i, got, unfold(want[i]))
		}
	}
}

func TestAGuestIsRefusedWithItsPATsAndNobodyElse(t *testing.T) {
	m := parse(t, `apiVersion: patrol/v1
identities:
  bot: {user: bot@contoso.com}
  guest: {user: "anna_fabrikam.com#ext#@contoso.onmicrosoft.com"}
pats:
  - {name: a, identity: guest, organization: c, scopes: [vso.code]}
  - {name: b, identity: bot, organization: c, scopes: [vso.code]}
`)
	if len(m.PATs) != 1 || m.PATs[0].Name != "b" {
		t.Errorf("in force: %+v, want b alone", m.PATs)
	}
	if _, there := m.Identities["guest"]; there || len(m.Identities) != 1 {
		t.Errorf("identities: %+v, want bot alone", m.Identities)
	}
	checkRefused(t, m, []string{
		`pats.yaml:4:17: user "anna_fabrikam.com#ext#@contoso.onmicroso..." of identity "guest" is a guest of the
			tenant; name an account of the tenant itself`,
		`pats.yaml:6:25: the user of identity "guest" of PAT "a" is a guest;
			give it another identity, or this one another user`,
	})
	if f, ok := m.RefusedIdentity("guest"); !ok || f != m.Refused[0].Finding {
		t.Errorf("guest is refused for %v (%v), want %v", f, ok, m.Refused[0])
	}
	if _, ok := m.RefusedIdentity("bot"); ok {
		t.Error("bot is refused")
	}
	if r := m.Refused[0]; r.Identity != "guest" || r.PAT.Name != "" {
		t.Errorf("refused 0: %+v, want the identity", r)
	}
	if r := m.Refused[1]; r.Identity != "guest" || r.PAT.Name != "a" {
		t.Errorf("refused 1: %+v, want the PAT", r)
	}
}

// A file that has to be corrected anyhow shall not have to be twice.
func TestAFileThatIsRefusedNamesItsRefusedEntriesToo(t *testing.T) {
	_, _, err := manifest.Parse("pats.yaml", []byte(strings.Replace(twoAdopters, "[vso.code]", "[code]", 1)))
	findings, ok := errors.AsType[manifest.Findings](err)
	if !ok || len(findings) != 3 {
		t.Fatalf("got %v, want three findings", err)
	}
	for i, line := range []int{4, 5, 8} {
		if findings[i].Line != line {
			t.Errorf("finding %d is in line %d, want %d", i, findings[i].Line, line)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(head + `  - name: a
    identity: bot
    organization: &o c
    scopes: &s [vso.code]
    adopt: 0F5AD7A2-3c7b-4d0f-9f0c-6d1b2a3c4d5e
  - {name: b, identity: bot, organization: *o, scopes: *s}
`))
	f.Add([]byte(twoAdopters))
	f.Add([]byte("identities: {a: {user: 'a#EXT#@b.c'}}\npats: [{identity: a, organization: 'https://x:y@z/w'}]\n"))
	f.Add([]byte("scopes: [Code (Read, write, & manage)]\norganization: *\n\tx: CI #1\n\xe4"))
	f.Add([]byte("a: &a [*a]\n<<: *a\n? {}\n: !!binary x\n---\n{}"))
	f.Add([]byte(`defaults: {lifetime: 0s, rotateBefore: 1, overlap: [1d]}
pats: [~, {<<: {name: x}}, {allOrgs: true}]
identities: {a: ~, A: {administrator: maybe}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := manifest.Parse("pats.yaml", b)
		quoted := bytes.ContainsAny(b, `%\`) // the input may say %! itself
		if err != nil {
			findings, ok := errors.AsType[manifest.Findings](err)
			if !ok || len(findings) == 0 || m != nil {
				t.Fatalf("an error that is no list of findings: %#v", err)
			}
			for i, p := range findings {
				if p.What == "" || p.Do == "" {
					t.Fatalf("finding %d does not say what is wrong, or what to do: %+v", i, p)
				}
				if !quoted && strings.Contains(p.String(), "%!") {
					t.Fatalf("finding %d is badly formatted: %+v", i, p)
				}
				if i > 0 && p.Line < findings[i-1].Line {
					t.Fatalf("finding %d is out of the file's order: %+v", i, p)
				}
			}
			return
		}
		for _, r := range m.Refused {
			if r.What == "" || r.Do == "" || r.Identity == "" {
				t.Fatalf("refused without a reason, a remedy or an identity: %+v", r)
			}
			if _, ok := m.PAT(r.PAT.Name); ok {
				t.Fatalf("refused, and in force: %+v", r)
			}
		}
		for _, s := range m.PATs {
			_, exists := m.Identities[s.Identity]
			found, ok := m.PAT(strings.ToUpper(s.Name))
			if !exists {
				t.Fatalf("accepted an identity that is not declared: %+v", s)
			}
			if !ok || found.Name != s.Name {
				t.Fatalf("accepted a PAT that is not found by its name: %+v", s)
			}
			if len(s.Scopes) == 0 || s.DisplayName == "" || s.Organization == "" {
				t.Fatalf("accepted a PAT that lacks a field: %+v", s)
			}
			if s.Overlap < 0 || s.Overlap > s.RotateBefore {
				t.Fatalf("accepted an overlap that does not fit: %+v", s)
			}
			if s.RotateBefore >= s.Lifetime || s.Lifetime > 365*day {
				t.Fatalf("accepted a lifetime that does not fit: %+v", s)
			}
		}
	})
}
