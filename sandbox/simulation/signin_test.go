package simulation_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	pages "github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

const (
	signInLink = "https://patrol.localhost/api/identities/build-bot/signin?code=" + simulation.MasterKey
	callback   = "https://patrol.localhost/api/signin/callback"
)

// noTokens searches everything that the handlers have put out for every token there was.
func noTokens(t *testing.T, w *simulation.World) {
	t.Helper()
	said := w.Output() + w.Answers()
	for _, e := range w.Cloud.Messages(cloud.EventTopic) {
		said += string(e.Body)
	}
	for _, token := range w.Cloud.Tokens() {
		if strings.Contains(said, token) {
			t.Error("a token is in the output, an answer or an event")
		}
	}
}

// walk is a browser without a screen at the callback's door: it has been through the
// authority's pages and holds the link back.
type walk struct {
	t       *testing.T
	world   *simulation.World
	person  *pages.Browser // at the authority
	patrol  *http.Client   // at patrol, with cookies
	back    *url.URL       // where the authority sends the browser
	context context.Context
}

func begin(t *testing.T, w *simulation.World) *walk {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := &walk{t: t, world: w, person: pages.New(w.Transport()), context: t.Context(),
		patrol: &http.Client{Transport: w.Transport(), Jar: jar, CheckRedirect: func(*http.Request,
			[]*http.Request) error {
			return http.ErrUseLastResponse
		}}}
	return k
}

func (k *walk) get(page string) (*http.Response, string) {
	k.t.Helper()
	resp, err := k.patrol.Get(page)
	if err != nil {
		k.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp, string(body)
}

// away goes from the sign-in link through the authority's pages, as user.
func (k *walk) away(link string, p pages.Person) *walk {
	k.t.Helper()
	resp, body := k.get(link)
	to := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusSeeOther || to == "" {
		k.t.Fatalf("the sign-in did not begin: %d %s", resp.StatusCode, body)
	}
	at, err := p.Walk(k.context, k.person, to)
	if err != nil {
		k.t.Fatal(err)
	}
	if !at.Left() {
		k.t.Fatalf("the authority kept the browser: %s", at.HTML)
	}
	k.back = at.URL
	return k
}

func (k *walk) close() { k.patrol.CloseIdleConnections() }

// withoutSignIn runs f in a bubble in which nobody has signed in.
func withoutSignIn(t *testing.T, f func(*testing.T, *simulation.World)) {
	synctest.Test(t, func(t *testing.T) {
		w := simulation.New(t, simulation.Config{Manifest: onePAT, NobodySignedIn: true})
		defer w.Close()
		f(t, w)
		noTokens(t, w)
	})
}

// noSignIn checks that nobody has been signed in.
func noSignIn(t *testing.T, w *simulation.World) {
	t.Helper()
	if _, ok := w.Latest("patrol-identity-build-bot"); ok {
		t.Error("somebody was signed in")
	}
}

func TestOnlyTheFlowThatThisBrowserBeganIsFinished(t *testing.T) {
	me := pages.Person{User: cloud.User}
	for name, tt := range map[string]struct {
		status int
		says   string
		back   func(t *testing.T, w *simulation.World) (*http.Response, string)
	}{
		"another browser": {400, "has not started a sign-in", func(t *testing.T, w *simulation.World) (*http.Response,
			string) {
			victim, thief := begin(t, w), begin(t, w)
			defer victim.close()
			defer thief.close()
			victim.away(signInLink, me)
			return thief.get(victim.back.String())
		}},
		"another browser that has begun one of its own": {400, "another sign-in",
			func(t *testing.T, w *simulation.World) (*http.Response, string) {
				victim, thief := begin(t, w), begin(t, w)
				defer victim.close()
				defer thief.close()
				victim.away(signInLink, me)
				thief.away(signInLink, me)
				return thief.get(victim.back.String())
			}},
		"a forged state": {400, "another sign-in", func(t *testing.T, w *simulation.World) (*http.Response, string) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, me)
			q := k.back.Query()
			q.Set("state", "AAAAAAAAAAAAAAAAAAAAAAAAAA")
			return k.get(callback + "?" + q.Encode())
		}},
		"a forged cookie": {400, "has not made the browser", func(t *testing.T, w *simulation.World) (*http.Response,
			string) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, me)
			at, _ := url.Parse(callback)
			k.patrol.Jar.SetCookies(at,
				[]*http.Cookie{{Name: "__Host-patrol-signin", Value: "AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
					Path: "/", Secure: true}})
			return k.get(k.back.String())
		}},
		"no state": {400, "not the end of a sign-in", func(t *testing.T, w *simulation.World) (*http.Response, string) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, me)
			return k.get(callback + "?code=" + k.back.Query().Get("code"))
		}},
		"eleven minutes later": {400, "ten minutes", func(t *testing.T, w *simulation.World) (*http.Response, string) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, me)
			time.Sleep(11 * time.Minute)
			return k.get(k.back.String())
		}},
		"another user": {403, "build-bot@contoso.com", func(t *testing.T, w *simulation.World) (*http.Response,
			string) {
			w.Cloud.AddUser("mallory@contoso.com")
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, pages.Person{User: "mallory@contoso.com"})
			return k.get(k.back.String())
		}},
		"who says no": {403, "", func(t *testing.T, w *simulation.World) (*http.Response, string) {
			k := begin(t, w)
			defer k.close()
			k.away(signInLink, pages.Person{User: cloud.User, CancelAt: "consent"})
			return k.get(k.back.String())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			withoutSignIn(t, func(t *testing.T, w *simulation.World) {
				resp, body := tt.back(t, w)
				if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
					t.Errorf("answer %d, want %d and %q:\n%s", resp.StatusCode, tt.status, tt.says, body)
				}
				policy := resp.Header.Get("Content-Security-Policy")
				if !strings.Contains(policy, "default-src 'none'") {
					t.Errorf("Content-Security-Policy %q, want default-src 'none' in it", policy)
				}
				if got := resp.Header.Get("Referrer-Policy"); got != "no-referrer" {
					t.Errorf("Referrer-Policy %q, want no-referrer", got)
				}
				noSignIn(t, w)
			})
		})
	}
}

func TestAFlowIsFinishedOnce(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		k := begin(t, w)
		defer k.close()
		k.away(signInLink, pages.Person{User: cloud.User})
		at, _ := url.Parse(callback)
		cookies := k.patrol.Jar.Cookies(at)
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusOK ||
			!strings.Contains(body, "Signed in") {
			t.Fatalf("the sign-in: %d\n%s\n%s", resp.StatusCode, body, w.Output())
		}
		// The browser has forgotten it.
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("again, by the same browser: %d\n%s", resp.StatusCode, body)
		}
		// Somebody has kept the cookie.
		for _, c := range cookies {
			c.Secure, c.Path = true, "/"
		}
		k.patrol.Jar.SetCookies(at, cookies)
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusBadRequest ||
			!strings.Contains(body, "come back before") {
			t.Errorf("again, with the cookie: %d\n%s", resp.StatusCode, body)
		}
		// Another instance does not know that; the authority refuses the code.
		w.Restart()
		k.patrol.Jar.SetCookies(at, cookies)
		if resp, body := k.get(k.back.String()); resp.StatusCode == http.StatusOK {
			t.Errorf("again, at another instance: %d\n%s", resp.StatusCode, body)
		}
		w.Settle()
		if vs := w.Cloud.Vault.Versions("patrol-identity-build-bot"); len(vs) != 1 {
			t.Errorf("%d sign-ins were stored, want one", len(vs))
		}
	})
}

func TestASignInNeedsAKey(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		k := begin(t, w)
		defer k.close()
		resp, _ := k.get("https://patrol.localhost/api/identities/build-bot/signin")
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a key: %d, want 401", resp.StatusCode)
		}
		resp, body := k.get("https://patrol.localhost/api/identities/nobody/signin?code=" + simulation.MasterKey)
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "No such identity") {
			t.Errorf("an identity that is not in the manifest: %d, want 404\n%s", resp.StatusCode, body)
		}
	})
}

// An account that was made anew under the same name is somebody else until a person
// with a key says otherwise.
func TestAnotherObjectIDMustBeConfirmed(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		me := pages.Person{User: cloud.User}
		k := begin(t, w)
		defer k.close()
		k.away(signInLink, me)
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusOK {
			t.Fatalf("the first sign-in: %d\n%s", resp.StatusCode, body)
		}
		if err := w.Cloud.Entra.DeleteUser(cloud.User); err != nil {
			t.Fatal(err)
		}
		w.Cloud.AddUser(cloud.User)

		again := begin(t, w)
		defer again.close()
		again.away(signInLink, me)
		resp, body := again.get(again.back.String())
		_, rest, found := strings.Cut(body, "confirm=")
		if resp.StatusCode != http.StatusForbidden || !found || len(rest) < 36 {
			t.Fatalf("the same name with another object id: %d\n%s", resp.StatusCode, body)
		}
		again.away(signInLink+"&confirm="+rest[:36], me)
		if resp, body := again.get(again.back.String()); resp.StatusCode != http.StatusOK {
			t.Errorf("confirmed: %d\n%s\n%s", resp.StatusCode, body, w.Output())
		}
		vs := w.Cloud.Vault.Versions("patrol-identity-build-bot")
		if len(vs) != 2 {
			t.Errorf("%d versions of the sign-in, want 2", len(vs))
		}
		if !slices.ContainsFunc(vs, func(v keyvault.Version) bool { return v.Tags["patrol-user-id"] == rest[:36] }) {
			t.Errorf("no version has the new object id %s", rest[:36])
		}
	})
}

// The app may prove itself by a certificate that the vault keeps.
func TestACertificateServesInsteadOfTheManagedIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simulation.New(t, simulation.Config{Manifest: onePAT, NobodySignedIn: true,
			Cloud: func(c *cloud.Config) { c.ClientCredential = cloud.Certificate }})
		defer w.Close()
		k := begin(t, w)
		k.away(signInLink, pages.Person{User: cloud.User})
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusOK {
			t.Fatalf("the sign-in: %d\n%s\n%s", resp.StatusCode, body, w.Output())
		}
		k.close()
		time.Sleep(9 * day) // the refresh token is stored anew
		if code := w.HTTP("POST", "/api/pats/jenkins-agents/rotate", `{}`, nil); code != http.StatusAccepted {
			t.Fatalf("rotate answered %d, want 202\n%s", code, w.Output())
		}
		w.Settle()
		v, ok := w.Latest("jenkins-agents")
		if !ok || v.Tags["patrol-reason"] != "requested" || !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
			t.Errorf("after nine days: %v\n%s", v.Tags, w.Output())
		}
		if vs := w.Cloud.Vault.Versions("patrol-identity-build-bot"); len(vs) != 2 {
			t.Errorf("%d versions of the sign-in after nine days, want two", len(vs))
		}
		noTokens(t, w)
	})
}
