package dashboard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/tests/chromium"
)

// state is a PAT's, as Azure DevOps has it.
func (s *fixture) state(id string) devops.State {
	s.t.Helper()
	for _, p := range s.cloud.DevOps.PATs("", "") {
		if strings.EqualFold(p.AuthorizationID, id) {
			return p.State
		}
	}
	s.t.Fatalf("Azure DevOps has no PAT %s", id)
	return ""
}

func TestAPersonWorksWithTheDashboard(t *testing.T) {
	var old, evil, lost string
	s := open(t, func(s *fixture) {
		for _, user := range []string{"token-admin@contoso.com", "release-bot@contoso.com", "leaver@contoso.com"} {
			s.cloud.AddUser(user)
		}
		s.cloud.DevOps.SetAdministrator("token-admin@contoso.com", true)
		seed := func(user, name, scopes string, days int, global bool) string {
			id, _ := s.cloud.DevOps.Seed("contoso", user, name, scopes, time.Now().AddDate(0, 0, days), global)
			return id
		}
		old = seed("build-bot@contoso.com", "laptop of somebody", "vso.code", 5, false)
		evil = seed("build-bot@contoso.com", "<img src=x onerror=alert(1)> \u202Egpj.exe", "app_token", 200, true)
		seed("build-bot@contoso.com", "wiki export", "vso.wiki", 120, false)
		lost = seed("leaver@contoso.com", "leaver's laptop", "vso.code_full", 90, false)
	})
	for _, name := range []string{"jenkins-agents", "nuget-feed", "release-notes"} {
		s.until(name+" is provisioned", func() bool { return s.settledAt(name, 1) })
	}

	// The overview: what is blocked comes first.
	s.dashboard()
	s.awaitText("Needs attention", "store-upload", "jenkins-agents", "Sign-in needed", "laptop of somebody",
		"<img src=x")
	if at := s.text(); strings.Index(at, "store-upload") > strings.Index(at, "jenkins-agents") {
		t.Error("what is blocked does not come first")
	}
	s.inspect("overview")

	// The administrator signs in from here.
	s.press(`button[data-signin="/api/identities/token-admin/signin"]`)
	s.signIn()
	s.awaitText("Signed in")
	s.inspect("signed-in")

	// One PAT, rotated.
	s.dashboard()
	s.press(`.rows button[name=view][aria-label=""], .rows li[data-text^="jenkins-agents"] button[name=view]`)
	s.awaitText("What you can do", "Versions of the secret")
	s.inspect("pat")
	s.noError(s.b.Run(chromedp.SetValue(chromedp.CSS(`input[name=reason]`), "ticket 4711")), "writing a note")
	s.press(`form.card:has(input[value=rotate]) button`)
	s.awaitText("What will happen", "Rotate jenkins-agents?", "stays valid for the overlap of 24 hours", "ticket 4711")
	s.inspect("rotate")
	s.press(`button.primary`)
	s.awaitText("The rotation has been ordered")
	s.until("jenkins-agents is rotated", func() bool { return s.settledAt("jenkins-agents", 2) })
	// the page has seen it by itself
	s.awaitText("Done: the new version is in the vault", "In its overlap", "The replaced PAT is valid until")
	s.inspect("rotated")

	// The same with the old one revoked at once.
	first := s.cloud.Vault.Versions("jenkins-agents")[1].Tags["CredentialId"]
	s.noError(s.b.Run(chromedp.Click(chromedp.CSS(`input[value=now]`))), "choosing now")
	s.press(`form.card:has(input[value=rotate]) button`)
	s.awaitText("revoke the old PAT at once", "fail from that moment")
	s.inspect("rotate-now")
	s.press(`button.danger`)
	s.until("the old PAT is revoked",
		func() bool { return s.settledAt("jenkins-agents", 3) && s.state(first) == devops.Revoked })

	// Extended.
	before := s.cloud.Vault.Versions("nuget-feed")[0]
	s.dashboard()
	s.press(`li[data-text^="nuget-feed"] button[name=view]`)
	s.press(`form.card:has(input[value=extend]) button`)
	s.awaitText("Extend nuget-feed?", "keeps its value")
	s.press(`button.primary`)
	s.awaitText("The PAT has been extended", "Its value is the same as before")
	s.inspect("extended")
	after := s.cloud.Vault.Versions("nuget-feed")
	if len(after) != 1 || after[0].Value != before.Value {
		t.Errorf("%d versions after the extension, want the same value in one", len(after))
	}
	if !after[0].Expires.After(before.Expires.Add(24 * time.Hour)) {
		t.Errorf("extended from %s to %s, want days more", before.Expires, after[0].Expires)
	}

	// A PAT that patrol does not manage, revoked.
	s.press(`button[value=list]`)
	s.press(`button[aria-label="Revoke laptop of somebody"]`)
	s.awaitText("Revoke “laptop of somebody”?", "Whoever does fails at once")
	s.inspect("revoke")
	if s.state(old) != devops.Active {
		t.Fatal("it was revoked before anybody confirmed it")
	}
	s.press(`button.danger`)
	s.awaitText("The PAT has been revoked")
	if s.state(old) != devops.Revoked || s.state(evil) != devops.Active {
		t.Errorf("the revoked one is %s, another %s", s.state(old), s.state(evil))
	}
	s.inspect("revoked")

	// A dry run, a list by its tile, a search, and a check.
	s.press(`button[value=plan]`)
	s.awaitText("Dry run", "Nothing has been changed", "store-upload", "Ask for a sign-in")
	s.inspect("dry-run")
	s.press(`button[value=list]`)
	s.press(`button.tile[value=global]`)
	s.awaitText("Found", "Does not work from")
	s.inspect("list")
	s.dashboard()
	s.noError(s.b.Run(chromedp.SendKeys(chromedp.CSS("#search"), "release")), "searching")
	s.awaitText("1 of 3 on this page")
	s.press(`.sweeps button[value=check]`)
	s.press(`button.primary`)
	s.awaitText("managed PATs and sent")

	// An administrator's revocation, with the master key typed in.
	s.act(`summary`)
	fill := func(id, value string) {
		t.Helper()
		s.noError(s.b.Run(chromedp.SetValue(chromedp.CSS(id), value)), "filling in "+id)
	}
	fill("#rv-identity", "token-admin")
	fill("#rv-organization", "contoso")
	fill("#rv-users", "leaver@contoso.com\nnobody@contoso.com")
	fill("#rv-key", "wrong")
	s.act(`#revocations button`)
	s.awaitText("This is not the master key")
	fill("#rv-key", masterKey)
	s.act(`#revocations button`)
	s.awaitText("1 PAT would be revoked", "leaver's laptop", "nobody@contoso.com")
	s.inspect("administrator")
	if s.state(lost) != devops.Active {
		t.Fatal("it was revoked before anybody confirmed it")
	}
	s.act(`#rv-confirm`)
	s.awaitText("1 PAT was revoked")
	s.inspect("administrator-done")
	if s.state(lost) != devops.Revoked {
		t.Errorf("the leaver's PAT is %s", s.state(lost))
	}
	if key, err := chromium.Get(s.b, chromedp.Value(chromedp.CSS("#rv-key"))); err != nil || key != "" {
		t.Errorf("the page keeps %d characters of the master key: %v", len(key), err)
	}
	s.keep()
}

// The page needs nothing of a browser but HTML, and nothing of a person but keys.
func TestThePageNeedsNeitherScriptsNorAMouse(t *testing.T) {
	s := open(t, func(s *fixture) {
		s.cloud.AddUser("token-admin@contoso.com")
		s.cloud.AddUser("release-bot@contoso.com")
	})
	s.until("nuget-feed is provisioned", func() bool { return s.settledAt("nuget-feed", 1) })

	// From the keyboard: the first stop skips to the content, and each stop shows.
	s.dashboard()
	key := func(k string) {
		t.Helper()
		s.noError(s.b.Run(chromedp.KeyEvent(k)), "pressing a key")
	}
	type stop struct {
		Tag, Text string
		Shown     bool
	}
	const focused = `(() => {
		const e = document.activeElement, c = getComputedStyle(e), r = e.getBoundingClientRect();
		return {
			Tag: e.tagName, Text: e.getAttribute("aria-label") ?? e.innerText ?? "",
			Shown: c.outlineStyle !== "none" && r.width > 0 && r.right > 0,
		};
	})()`
	at := func() stop {
		t.Helper()
		v, err := chromium.Get(s.b, chromedp.Evaluate[stop](focused))
		s.noError(err, "reading the focus")
		return v
	}
	key(kb.Tab)
	if first := at(); first.Text != "Skip to the content" || !first.Shown {
		t.Errorf("the first stop is %+v", first)
	}
	found := false
	for range 60 {
		key(kb.Tab)
		now := at()
		if now.Tag == "BODY" {
			break
		}
		if !now.Shown {
			t.Errorf("the focus does not show on %+v", now)
		}
		found = now.Text == "Rotate nuget-feed"
		if found {
			break
		}
	}
	if !found {
		t.Fatal("there is no way to the button by the Tab key")
	}
	s.noError(s.b.Load(chromedp.KeyEvent(kb.Enter)), "pressing Enter")
	s.awaitText("Rotate nuget-feed?")

	// Without scripts: the same, and the page says what administrators do instead.
	s.noError(s.b.Scripts(false), "forbidding scripts")
	s.dashboard()
	read := func(css string) string {
		t.Helper()
		text, err := chromium.Get(s.b, chromedp.Text(chromedp.CSS(css)))
		s.noError(err, "reading "+css)
		return text
	}
	s.act("summary")
	if text := read("noscript"); !strings.Contains(text, "/api/revocations") {
		t.Errorf("without scripts the page says %q to an administrator", text)
	}
	s.screenshot("without-scripts")
	s.press(`li[data-text^="nuget-feed"] button[name=act]`)
	s.press(`button.primary`)
	if text := read("#notice"); !strings.Contains(text, "The rotation has been ordered") {
		t.Errorf("the page says %q", text)
	}
	s.until("nuget-feed is rotated", func() bool { return s.settledAt("nuget-feed", 2) })
}

// signIn answers the authority's pages.
func (s *fixture) signIn() {
	s.t.Helper()
	for range 8 {
		on, err := chromium.Get(s.b,
			chromedp.Evaluate[string](`document.querySelector("input[name=step]")?.value ?? ""`))
		s.noError(err, "reading a page of the authority")
		if on == "" {
			return
		}
		s.screenshot("entra-" + on)
		s.press(`button[name=action]:not([value=cancel])`)
	}
}
