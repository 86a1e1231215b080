package entra_test

import (
	"crypto/sha256"
	"encoding/base64"
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
	g := entra.CodeGrant{
		Code:        rotation.NewSecret(code),
		RedirectURI: redirect,
		Verifier:    rotation.NewSecret(verifier),
		Nonce:       nonce,
	}
	for _, f := range change {
		f(&g)
	}
	return c.CompleteSignIn(t.Context(), "build-bot", g)
}

func signInRequest() entra.SignInRequest {
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
	step, _ := at.Step()
	if step != "account" {
		w.t.Fatalf("the authority shows %d %s", at.Status, at.HTML)
	}
	check(w.t, "status", at.Status, 200)
	check(w.t, "the account that is chosen", at.Forms[0].Fields.Get("user"), bot)
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
			w.notified()
			page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
			w.mustDo(err)
			u, err := url.Parse(page)
			w.mustDo(err)
			check(t, "login_hint", u.Query().Get("login_hint"), bot)
			check(t, "scope", u.Query().Get("scope"), "openid offline_access profile "+strings.Join(patScopes, " "))
			back := w.browse(page, bot)
			if back.Get("state") != "st" {
				t.Errorf("state %q", back.Get("state"))
			}
			another := func(g *entra.CodeGrant) { g.Verifier = rotation.NewSecret("another verifier") }
			checkError(t, complete(t, c, back.Get("code"), another), rotation.SignIn, "AADSTS501481")
			w.mustDo(complete(t, c, back.Get("code")))
			if got := w.notified(); len(got) != 1 || !strings.HasPrefix(got[0], "signed-in ") {
				t.Errorf("notified of %q", got)
			}
			w.mustToken(c)
			check(t, "patrol-user", w.vault.latest().tags["patrol-user"], bot)
			check(t, "patrol-user-id", w.vault.latest().tags["patrol-user-id"], botID)
			raw := w.vault.latest().value.Reveal()
			checkLacks(t, "the stored cache", raw, "AccessToken")
			checkLacks(t, "the stored cache", raw, "IdToken")
			checkError(t, complete(t, c, back.Get("code")), rotation.SignIn, "AADSTS54005") // it was used
		})
	}
}

func TestSomebodyElseInTheBrowserIsRefused(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.authority.AddUser(fake.User{UPN: "mallory@contoso.com"})
	c := w.start()
	page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
	w.mustDo(err)
	back := w.browse(page, "mallory@contoso.com")
	err = complete(t, c, back.Get("code"))
	checkError(t, err, rotation.SignIn, "wrong-user")
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
	page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
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
	err := w.signInAs(c, bot)
	checkError(t, err, rotation.Transient, "vault")
	w.wantNotified()
	w.wantError(c, rotation.SignIn, "not-signed-in")
}
