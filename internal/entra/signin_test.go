package entra_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

const (
	redirect = "https://patrol.example/api/signin/callback"
	verifier = "a-verifier-of-at-least-forty-three-characters-123"
	nonce    = "a-nonce-of-the-callers"
)

// complete redeems a code as the caller of the sign-in pages does.
func complete(t *testing.T, c *entra.Client, code string, change ...func(*entra.CodeGrant)) error {
	t.Helper()
	g := entra.CodeGrant{Code: rotation.NewSecret(code), RedirectURI: redirect, Verifier: rotation.NewSecret(verifier), Nonce: nonce}
	for _, f := range change {
		f(&g)
	}
	return c.CompleteSignIn(t.Context(), "build-bot", g)
}

func start() entra.SignInRequest {
	return entra.SignInRequest{RedirectURI: redirect, State: "st", Challenge: challenge(), Nonce: nonce}
}

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// browse opens the authority's page, on which the identity's user is chosen
// already, lets a person answer this page and those that follow, and returns
// what the browser brings back to the redirect URI.
func (w *world) browse(page, user string) url.Values {
	w.t.Helper()
	b := htmlclient.New(w.http.Transport)
	at, err := b.Open(w.t.Context(), page)
	w.mustDo(err)
	if step, _ := at.Step(); at.Status != 200 || step != "account" || at.Forms[0].Fields.Get("user") != bot {
		w.t.Fatalf("%d %s", at.Status, at.HTML)
	}
	at, err = htmlclient.Person{User: user}.Walk(w.t.Context(), b, page)
	w.mustDo(err)
	if !at.Left() || !strings.HasPrefix(at.URL.String(), redirect+"?") {
		w.t.Fatalf("at %s (%d): %s", at.URL, at.Status, at.HTML)
	}
	return at.URL.Query()
}

func TestAPersonSignsInThroughTheBrowser(t *testing.T) {
	for name, public := range map[string]bool{"confidential client": false, "public client": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			change := func(*entra.Config) {}
			if public {
				w.authority.AddApp(fake.App{ClientID: app, Native: []string{redirect}, Scopes: patScopes})
				change = func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }
			}
			c := w.start(change)
			w.wantError(c, rotation.SignIn, "not-signed-in")
			w.told()
			page, err := c.SignInURL(t.Context(), "build-bot", start())
			w.mustDo(err)
			u, err := url.Parse(page)
			w.mustDo(err)
			if q := u.Query(); q.Get("login_hint") != bot || q.Get("scope") != "openid offline_access profile "+strings.Join(patScopes, " ") {
				t.Errorf("asked with %v", q)
			}
			back := w.browse(page, bot)
			if back.Get("state") != "st" {
				t.Errorf("state %q", back.Get("state"))
			}
			if err := complete(t, c, back.Get("code"), func(g *entra.CodeGrant) { g.Verifier = rotation.NewSecret("another verifier") }); err == nil {
				t.Error("a wrong verifier was accepted")
			} else if e, ok := errors.AsType[*rotation.Error](err); !ok || e.Code != "AADSTS501481" {
				t.Errorf("%v", err)
			}
			w.mustDo(complete(t, c, back.Get("code")))
			if got := w.told(); len(got) != 1 || !strings.HasPrefix(got[0], "signed-in ") {
				t.Errorf("told %q", got)
			}
			w.mustToken(c)
			if tags := w.vault.latest().tags; tags["patrol-user"] != bot || tags["patrol-user-id"] != botID {
				t.Errorf("tags %v", tags)
			}
			if raw := w.vault.latest().value.Reveal(); strings.Contains(raw, "AccessToken") || strings.Contains(raw, "IdToken") {
				t.Error("access or id tokens were stored")
			}
			err = complete(t, c, back.Get("code"))
			if e, ok := errors.AsType[*rotation.Error](err); !ok || e.Code != "AADSTS54005" {
				t.Errorf("a used code: %v", err)
			}
		})
	}
}

func TestSomebodyElseInTheBrowserIsRefused(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.authority.AddUser(fake.User{UPN: "mallory@contoso.com"})
	c := w.start()
	page, err := c.SignInURL(t.Context(), "build-bot", start())
	w.mustDo(err)
	back := w.browse(page, "mallory@contoso.com")
	err = complete(t, c, back.Get("code"))
	if e, ok := errors.AsType[*rotation.Error](err); !ok || e.Code != "wrong-user" {
		t.Errorf("%v", err)
	}
	if w.vault.count() != 0 {
		t.Error("it was stored")
	}
}

func TestTheNextSignInAsksForWhatTheRefusalDemanded(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.signIn(c)
	const demand = `{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`
	w.authority.Fail(fake.Failure{Code: 50076, Claims: demand, Times: 1})
	w.wantError(c, rotation.SignIn, "AADSTS50076")
	page, err := c.SignInURL(t.Context(), "build-bot", start())
	w.mustDo(err)
	u, err := url.Parse(page)
	w.mustDo(err)
	if got := u.Query().Get("claims"); got != demand {
		t.Errorf("claims %q, want %q", got, demand)
	}
	back := w.browse(page, bot)
	w.mustDo(complete(t, c, back.Get("code")))
	w.mustToken(c)
}

func TestASignInThatCanNotBeStoredIsNotASignIn(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
	rt, err := w.authority.SeedRefreshToken(bot, app, patScopes...)
	w.mustDo(err)
	err = c.SaveSignIn(t.Context(), "build-bot", entra.Grant{RefreshToken: rotation.NewSecret(rt), User: bot})
	if rotation.ClassOf(err) != rotation.Transient || err == nil || strings.Contains(err.Error(), rt) {
		t.Errorf("%v", err)
	}
	w.wantTold()
	w.wantError(c, rotation.SignIn, "not-signed-in")
	for name, g := range map[string]entra.Grant{
		"nothing":                 {User: bot},
		"no JSON":                 {User: bot, Cache: rotation.NewSecret("canary")},
		"nothing in the cache":    {User: bot, Cache: rotation.NewSecret("{}")},
		"of another client":       {User: bot, Cache: rotation.NewSecret(`{"RefreshToken":{"x":{"client_id":"other","secret":"canary","home_account_id":"h"}}}`)},
		"of nobody in particular": {RefreshToken: rotation.NewSecret("canary")},
	} {
		if err := c.SaveSignIn(t.Context(), "build-bot", g); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
