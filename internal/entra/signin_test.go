package entra_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
)

const (
	redirect = "https://patrol.example/api/signin/callback"
	verifier = "a-verifier-of-at-least-forty-three-characters-123"
)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// browse opens the authority's page, chooses an account and consents, and
// returns what the browser brings back to the redirect URI.
func (w *world) browse(page, user string) url.Values {
	w.t.Helper()
	client := *w.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Get(page)
	w.mustDo(err)
	html, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	w.mustDo(err)
	if resp.StatusCode != 200 || !strings.Contains(string(html), "<option selected>"+bot) {
		w.t.Fatalf("%d %s", resp.StatusCode, html)
	}
	resp, err = client.PostForm(page, url.Values{"user": {user}, "action": {"accept"}})
	w.mustDo(err)
	resp.Body.Close()
	to, err := resp.Location()
	w.mustDo(err)
	if !strings.HasPrefix(to.String(), redirect+"?") {
		w.t.Fatalf("went to %s", to)
	}
	return to.Query()
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
			page, err := c.SignInURL(t.Context(), "build-bot", entra.SignInRequest{RedirectURI: redirect, State: "st", Challenge: challenge()})
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
			if err := c.CompleteSignIn(t.Context(), "build-bot", back.Get("code"), redirect, "another verifier"); err == nil {
				t.Error("a wrong verifier was accepted")
			} else if e, ok := errors.AsType[*rotation.Error](err); !ok || e.Code != "AADSTS501481" {
				t.Errorf("%v", err)
			}
			w.mustDo(c.CompleteSignIn(t.Context(), "build-bot", back.Get("code"), redirect, verifier))
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
			err = c.CompleteSignIn(t.Context(), "build-bot", back.Get("code"), redirect, verifier)
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
	page, err := c.SignInURL(t.Context(), "build-bot", entra.SignInRequest{RedirectURI: redirect, State: "st", Challenge: challenge()})
	w.mustDo(err)
	back := w.browse(page, "mallory@contoso.com")
	err = c.CompleteSignIn(t.Context(), "build-bot", back.Get("code"), redirect, verifier)
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
	page, err := c.SignInURL(t.Context(), "build-bot", entra.SignInRequest{RedirectURI: redirect, State: "st", Challenge: challenge()})
	w.mustDo(err)
	u, err := url.Parse(page)
	w.mustDo(err)
	if got := u.Query().Get("claims"); got != demand {
		t.Errorf("claims %q, want %q", got, demand)
	}
	back := w.browse(page, bot)
	w.mustDo(c.CompleteSignIn(t.Context(), "build-bot", back.Get("code"), redirect, verifier))
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
