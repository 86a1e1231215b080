package dashboard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/azure-patrol/patrol/sandbox/cloud"
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
	s.enter(administrator)
	s.awaitText("Needs attention", "store-upload", "jenkins-agents", "Sign-in needed", "laptop of somebody",
		"<img src=x")
	if at := s.text(); strings.Index(at, "store-upload") > strings.Index(at, "jenkins-agents") {
		t.Error("what is blocked does not come first")
	}
	s.inspect("overview")

	// The administrator signs in from here.
	s.press(`a[href^="/api/identities/token-admin/signin"]`)
	s.signInAs("token-admin@contoso.com")
	s.awaitText("Signed in")
	s.inspect("signed-in")

	// One PAT, rotated.
	s.dashboard()
	s.press(`.rows li[data-text^="jenkins-agents"] h3 a`)
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
	s.press(`li[data-text^="nuget-feed"] h3 a`)
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
	s.press(`.back a`)
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
	s.press(`a[href="/api/dashboard?view=plan"]`)
	s.awaitText("Dry run", "Nothing has been changed", "store-upload", "Ask for a sign-in")
	s.inspect("dry-run")
	s.press(`.back a`)
	s.press(`button.tile[value=global]`)
	s.awaitText("Found", "Does not work from")
	s.inspect("list")
	s.dashboard()
	s.noError(s.b.Run(chromedp.SendKeys(chromedp.CSS("#search"), "release")), "searching")
	s.awaitText("1 of 3 on this page")
	s.press(`.sweeps button[value=check]`)
	s.press(`button.primary`)
	s.awaitText("managed PATs and sent")

	// An administrator's revocation: the plan, and then the act.
	s.act(`summary`)
	fill := func(css, value string) {
		t.Helper()
		s.noError(s.b.Run(chromedp.SetValue(chromedp.CSS(css), value)), "filling in "+css)
	}
	fill(`form.form select[name=identity]`, "token-admin")
	fill(`form.form input[name=organization]`, "contoso")
	fill(`form.form textarea`, "leaver@contoso.com\nnobody@contoso.com")
	s.press(`form.form button`)
	s.awaitText("Revoke 1 PAT?", "leaver's laptop", "nobody@contoso.com")
	s.inspect("administrator")
	if s.state(lost) != devops.Active {
		t.Fatal("it was revoked before anybody confirmed it")
	}
	s.press(`button.danger`)
	s.awaitText("1 PAT revoked")
	s.inspect("administrator-done")
	if s.state(lost) != devops.Revoked {
		t.Errorf("the leaver's PAT is %s", s.state(lost))
	}
	if strings.Contains(s.text(), "master key") {
		t.Error("the page asks a person for a key")
	}
	s.keep()
}

// A reader sees and cannot act, an operator acts; a role that was taken away ends when
// everybody is signed out.
func TestPeopleDoWhatTheirRoleIsFor(t *testing.T) {
	s := open(t, func(s *fixture) {
		s.cloud.AddUser("token-admin@contoso.com")
		s.cloud.AddUser("release-bot@contoso.com")
		if err := s.cloud.AddPerson("nobody@contoso.com"); err != nil {
			t.Fatal(err)
		}
	})
	s.until("nuget-feed is provisioned", func() bool { return s.settledAt("nuget-feed", 1) })
	buttons := func() int {
		t.Helper()
		n, err := chromium.Get(s.b, chromedp.Evaluate[int](`document.querySelectorAll("main button[name=act]").length`))
		s.noError(err, "counting buttons")
		return n
	}

	// Whoever has no role learns which one is missing, and who gives it.
	s.visit("")
	s.signInAs("nobody@contoso.com")
	s.awaitText("You have no role here", "Patrol.Reader", "Users and groups")
	s.inspect("no-role")

	s.enter(reader)
	if n := buttons(); n != 0 {
		t.Errorf("a reader has %d buttons that act", n)
	}
	s.inspect("reader")
	s.visit("?pat=nuget-feed")
	s.awaitText("Versions of the secret")
	if strings.Contains(s.text(), "What you can do") {
		t.Error("a reader is offered acts")
	}
	s.inspect("reader-pat")

	// A link leads straight to its view, and a reload after an act sends nothing again.
	s.enter(operator)
	s.visit("?pat=nuget-feed")
	if strings.Contains(s.text(), "For administrators") {
		t.Error("an operator sees what is for administrators")
	}
	s.press(`form.card:has(input[value=rotate]) button`)
	s.press(`button.primary`)
	s.awaitText("The rotation has been ordered")
	s.until("nuget-feed is rotated", func() bool { return s.settledAt("nuget-feed", 2) })
	at, err := chromium.Get(s.b, chromedp.Evaluate[string](`location.pathname + location.search`))
	s.noError(err, "reading the address")
	if at != "/api/dashboard?pat=nuget-feed" {
		t.Errorf("after an act the address is %s", at)
	}
	s.noError(s.b.Load(chromedp.Reload()), "reloading")
	s.awaitText("Versions of the secret")
	if strings.Contains(s.text(), "has been ordered") {
		t.Error("a reload shows the act again")
	}

	// The operator's role goes, and the administrator signs everybody out.
	if err := s.cloud.TakeRole(operator, cloud.Operator); err != nil {
		t.Fatal(err)
	}
	s.enter(administrator)
	s.act(`details:last-of-type summary`)
	s.press(`button[value=sign-out-everywhere]`)
	s.awaitText("Sign everybody out?", "within a minute")
	s.inspect("sign-out-everywhere")
	s.press(`button.danger`)
	s.awaitText("Everybody has been signed out")
	s.visit("?signin=choose")
	s.signInAs(operator)
	s.awaitText("You have no role here")
}

// The page needs nothing of a browser but HTML, and nothing of a person but a sign-in.
func TestThePageNeedsNeitherScriptsNorAMouse(t *testing.T) {
	s := open(t, func(s *fixture) {
		s.cloud.AddUser("token-admin@contoso.com")
		s.cloud.AddUser("release-bot@contoso.com")
	})
	s.until("nuget-feed is provisioned", func() bool { return s.settledAt("nuget-feed", 1) })

	// From the keyboard: the first stop skips to the content, and each stop shows.
	s.enter(administrator)
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

	// Without scripts: the same.
	s.noError(s.b.Scripts(false), "forbidding scripts")
	s.dashboard()
	read := func(css string) string {
		t.Helper()
		text, err := chromium.Get(s.b, chromedp.Text(chromedp.CSS(css)))
		s.noError(err, "reading "+css)
		return text
	}
	s.act("summary")
	s.screenshot("without-scripts")
	s.press(`li[data-text^="nuget-feed"] button[name=act]`)
	s.press(`button.primary`)
	if text := read("#notice"); !strings.Contains(text, "The rotation has been ordered") {
		t.Errorf("the page says %q", text)
	}
	s.until("nuget-feed is rotated", func() bool { return s.settledAt("nuget-feed", 2) })
}

// signInAs answers the authority's pages.
func (s *fixture) signInAs(user string) {
	s.t.Helper()
	for range 8 {
		on, err := chromium.Get(s.b,
			chromedp.Evaluate[string](`document.querySelector("input[name=step]")?.value ?? ""`))
		s.noError(err, "reading a page of the authority")
		if on == "" {
			s.keep()
			return
		}
		s.screenshot("entra-" + on)
		if on == "account" {
			s.noError(s.b.Run(chromedp.SetValue(chromedp.CSS("select[name=user]"), user)), "choosing an account")
		}
		s.press(`button[name=action]:not([value=cancel])`)
	}
}
