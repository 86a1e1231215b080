// Package dashboard_test uses the packaged app as a person does: a Chromium opens
// its pages on the local Azure, signs in, presses buttons. Every page is held against
// axe-core's rules for accessibility, in a light and a dark scheme and on a phone, and
// searched for keys and tokens.
package dashboard_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/tests/chromium"
)

const (
	functionKey = "function-key-of-the-browser-tests"
	masterKey   = "master-key-of-the-browser-tests"
	// timeout is how long a condition may take on a machine that is busy.
	timeout = 60 * time.Second
)

// packagedApp is the folder that make package assembles, or another one that
// PATROL_APP names.
func packagedApp(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PATROL_APP")
	if dir == "" {
		dir = filepath.Join("..", "..", "dist", "app")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "handler")); err != nil {
		t.Fatal("there is no packaged app in dist/app: run make package first")
	}
	return dir
}

// axeSource is the script of axe-core, as make installs it.
func axeSource(t *testing.T) string {
	t.Helper()
	path := os.Getenv("AXE_CORE")
	if path == "" {
		path = filepath.Join("..", "..", ".cache", "axe", "node_modules", "axe-core", "axe.min.js")
	}
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		return string(b)
	case os.Getenv("CI") != "":
		t.Fatal("there is no axe-core: make axe installs it")
	}
	t.Log("accessibility is NOT checked: there is no axe-core, make axe installs it")
	return ""
}

const manifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
  token-admin:
    user: token-admin@contoso.com
    administrator: true
  release-bot:
    user: release-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.agentpools_manage, vso.build_execute]
  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
    lifetime: 7d
    rotateBefore: 3d
    overlap: 2h
  - name: release-notes
    identity: build-bot
    organization: contoso
    displayName: Release notes
    scopes: [vso.code, vso.work]
    lifetime: 90d
    rotateBefore: 30d
  - name: store-upload
    identity: release-bot
    organization: contoso
    displayName: Store upload
    scopes: [vso.release_execute]
`

// fixture is a local Azure with the app on it, and a browser that shows its pages.
type fixture struct {
	t           *testing.T
	cloud       *cloud.Cloud
	base        string
	b           *chromium.Browser
	axe         string
	screenshots string

	mu     sync.Mutex
	output bytes.Buffer // what the app and its host put out, and every page
}

func open(t *testing.T, before func(*fixture)) *fixture {
	t.Helper()
	b := chromium.Start(t, chromium.Options{})
	app := packagedApp(t)
	path := filepath.Join(t.TempDir(), "pats.yaml")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fixture{t: t, base: "http://" + listener.Addr().String(), b: b, axe: axeSource(t),
		screenshots: filepath.Join(filepath.Dir(app), "screenshots")}
	if err := os.MkdirAll(s.screenshots, 0o755); err != nil {
		t.Fatal(err)
	}
	s.cloud, err = cloud.New(cloud.Config{Manifest: path, CheckSchedule: "0 0 0 1 1 *", PublicURL: s.base})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cloud.Close)
	if err := s.cloud.Seed(); err != nil {
		t.Fatal(err)
	}
	for user, role := range map[string]string{reader: cloud.Reader, operator: cloud.Operator,
		administrator: cloud.Administrator} {
		if err := s.cloud.AddPerson(user, role); err != nil {
			t.Fatal(err)
		}
	}
	before(s)

	c := s.cloud.Host(app)
	c.Keys = functionshost.Keys{Host: functionKey, Master: masterKey}
	c.Launcher, c.Listener = functionshost.Exec{}, listener
	c.Log = slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.OnLine = func(l functionshost.Line) { _, _ = s.Write([]byte(l.Stream + ": " + l.Text + "\n")) }
	host, err := functionshost.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
		s.search()
		for _, c := range b.Warnings() {
			refused := strings.Contains(c, "401 (Unauthorized)") || strings.Contains(c, "403 (Forbidden)")
			if !refused { // on purpose: a role that is missing, a session that has ended
				t.Errorf("the browser warns: %s", c)
			}
		}
		if t.Failed() {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Logf("what the app and its host put out, and the pages:\n%s", s.output.String())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := host.WaitReady(ctx); err != nil {
		t.Fatalf("the handler does not become ready: %v", err)
	}
	if err := host.Invoke(ctx, "CheckExpiry", ""); err != nil {
		s.t.Logf("the first sweep: %v", err) // an identity has not signed in
	}
	return s
}

func (s *fixture) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.Write(b)
}

// search looks for keys and tokens in all that came out.
func (s *fixture) search() {
	s.mu.Lock()
	out := s.output.String()
	s.mu.Unlock()
	for i, token := range append(s.cloud.Tokens(), functionKey, masterKey) {
		for form, want := range map[string]string{"plain": token, "its beginning": token[:len(token)*2/3],
			"base64": base64.StdEncoding.EncodeToString([]byte(token)),
			"basic":  base64.StdEncoding.EncodeToString([]byte(":" + token)), "escaped": url.QueryEscape(token)} {
			if at := strings.Index(out, want); at >= 0 {
				line := out[strings.LastIndexByte(out[:at], '\n')+1 : at]
				s.t.Errorf("secret number %d is in the output, %s, after %q", i, form, line[max(0, len(line)-200):])
			}
		}
	}
}

func (s *fixture) until(what string, done func() bool) {
	s.t.Helper()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			s.t.Fatalf("after %v still not so: %s", timeout, what)
		}
	}
}

// settledAt reports whether a PAT has n versions, the last of them announced.
func (s *fixture) settledAt(name string, n int) bool {
	v := s.cloud.Vault.Versions(name)
	return len(v) == n && v[n-1].Tags["patrol-announced-at"] != ""
}

func (s *fixture) noError(err error, what string) {
	s.t.Helper()
	if err != nil {
		s.screenshot("failed")
		s.t.Fatalf("%s: %v\nthe page says:\n%s", what, err, s.text())
	}
}

// The people of the page. The sandbox asks them for no password.
const (
	reader        = "reader@contoso.com"
	operator      = "operator@contoso.com"
	administrator = "admin@contoso.com"
)

// dashboard opens the page as whoever is signed in.
func (s *fixture) dashboard() {
	s.t.Helper()
	s.visit("")
}

// visit opens an address of the page.
func (s *fixture) visit(query string) {
	s.t.Helper()
	s.noError(s.b.Load(chromedp.Navigate(s.base+"/api/dashboard"+query)), "opening the dashboard")
	s.keep()
}

// enter signs somebody in to the page, in a browser in which nobody or somebody else is.
func (s *fixture) enter(user string) {
	s.t.Helper()
	s.visit("?signin=choose")
	s.signInAs(user)
	s.awaitText("Signed in as " + user)
}

// press presses a button that leads to another page.
func (s *fixture) press(css string) {
	s.t.Helper()
	s.noError(s.b.Load(chromedp.ScrollIntoView(chromedp.CSS(css)), chromedp.Click(chromedp.CSS(css))), "pressing "+css)
	s.keep()
}

// act presses a button that leads nowhere.
func (s *fixture) act(css string) {
	s.t.Helper()
	s.noError(s.b.Run(chromedp.ScrollIntoView(chromedp.CSS(css)), chromedp.Click(chromedp.CSS(css))), "pressing "+css)
}

// keep keeps the page for the search of secrets.
func (s *fixture) keep() {
	s.t.Helper()
	html, err := chromium.Get(s.b, chromedp.OuterHTML(chromedp.CSS("html")))
	s.noError(err, "reading the page")
	if strings.Contains(html, `<main id="main"`) { // the authority's pages hold codes on purpose
		_, _ = s.Write([]byte(html + "\n"))
	}
}

func (s *fixture) text() string {
	text, err := chromium.Get(s.b, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		return "(it cannot be read: " + err.Error() + ")"
	}
	return text
}

// awaitText waits until the page contains a text.
func (s *fixture) awaitText(texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		quoted, err := json.Marshal(text)
		if err != nil {
			s.t.Fatal(err)
		}
		_, err = chromium.Get(s.b, chromedp.Poll[bool](`document.body.innerText.includes(`+string(quoted)+`)`,
			chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(timeout/2)))
		s.noError(err, "waiting for "+text)
	}
}

// viewports are the windows in which a page is checked.
var viewports = []struct {
	name  string
	width int
	dark  bool
}{{"light", 1280, false}, {"dark", 1280, true}, {"phone-light", 390, false}, {"phone-dark", 390, true},
	{"small-phone", 360, false}}

// inspect checks the page in every viewport: it fits, it is accessible. The pictures
// are kept.
func (s *fixture) inspect(name string) {
	s.t.Helper()
	for _, viewport := range viewports {
		s.noError(s.b.Emulate(viewport.width, viewport.dark), "setting the viewport")
		over, err := chromium.Get(s.b,
			chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`))
		s.noError(err, "measuring the page")
		if over > 0 {
			s.t.Errorf("%s, %s: the page is %d pixels too wide for %d", name, viewport.name, over, viewport.width)
		}
		if viewport.name != "small-phone" {
			s.screenshot(name + "-" + viewport.name)
		}
		s.check(name + ", " + viewport.name)
	}
	s.noError(s.b.Emulate(1280, false), "setting the viewport")
}

func (s *fixture) screenshot(name string) {
	s.t.Helper()
	picture, err := chromium.Get(s.b, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.screenshots, name+".png"), picture, 0o600)
	}
	if err != nil {
		s.t.Errorf("keeping a picture of %s: %v", name, err)
	}
}

// findings are axe-core's: the rules that hold, and those that do not.
type findings struct {
	Held       int
	Violations []violation
}

type violation struct {
	ID, Impact, Help string
	Nodes            []string
}

// runAxe runs axe-core's rules and keeps what findings has.
const runAxe = `axe.run(document, {resultTypes: ["violations"]}).then(r => ({
	Held: r.passes.length,
	Violations: r.violations.map(v => ({
		ID: v.id, Impact: v.impact, Help: v.help,
		Nodes: v.nodes.map(n => n.html.slice(0, 200) + " " + (n.failureSummary ?? "")),
	})),
}))`

// check holds the page against axe-core's rules.
func (s *fixture) check(where string) {
	s.t.Helper()
	if s.axe == "" {
		return
	}
	found, err := chromium.Get(s.b, func(ctx context.Context, t *chromedp.Target) (findings, error) {
		if _, err := chromedp.Evaluate[chromedp.Void](`if (!window.axe) {`+s.axe+`}`)(ctx, t); err != nil {
			return findings{}, fmt.Errorf("loading axe-core: %w", err)
		}
		return chromedp.Evaluate[findings](runAxe,
			chromedp.EvalAwaitPromise)(ctx, t)
	})
	s.noError(err, "running axe-core")
	if found.Held < 10 {
		s.t.Errorf("%s: axe-core found only %d rules to apply", where, found.Held)
	}
	for _, v := range found.Violations {
		if v.Impact == "serious" || v.Impact == "critical" {
			s.t.Errorf("%s: %s (%s): %s\n%s", where, v.ID, v.Impact, v.Help, strings.Join(v.Nodes, "\n"))
		} else {
			s.t.Logf("%s: %s (%s): %s: %s", where, v.ID, v.Impact, v.Help, v.Nodes[0])
		}
	}
}
