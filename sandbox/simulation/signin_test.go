package simulation_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	pages "github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
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
			for _, c := range k.patrol.Jar.Cookies(at) {
				k.patrol.Jar.SetCookies(at, []*http.Cookie{{Name: c.Name, Path: "/", Secure: true,
					Value: "AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}})
			}
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

// Only the user whom the manifest names can finish it, so that it needs no key; and it
// tells nobody that user's name.
func TestASignInNeedsNoKeyAndNamesNobody(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		k := begin(t, w)
		defer k.close()
		const link = "https://patrol.localhost/api/identities/build-bot/signin"
		resp, _ := k.get(link)
		at, err := resp.Location()
		if err != nil {
			t.Fatalf("without a key: %d, %v", resp.StatusCode, err)
		}
		if q := at.Query(); q.Has("login_hint") || strings.Contains(at.String(), "contoso.com") {
			t.Errorf("the address names the user: %s", at)
		}
		if got := at.Query().Get("prompt"); got != "select_account" {
			t.Errorf("prompt %q, want select_account: a browser may be signed in as somebody else", got)
		}
		k.away(link, pages.Person{User: cloud.User})
		if resp, body := k.get(k.back.String()); resp.StatusCode != http.StatusOK {
			t.Errorf("the user's own sign-in without a key: %d\n%s", resp.StatusCode, body)
		}
		resp, body := k.get("https://patrol.localhost/api/identities/nobody/signin?code=" + simulation.MasterKey)
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "No such identity") {
			t.Errorf("an identity that is not in the manifest: %d, want 404\n%s", resp.StatusCode, body)
		}
	})
}

// Two tabs, two identities' links, or a link pressed twice.
func TestTwoSignInsOfOneBrowserBothEnd(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		k := begin(t, w)
		defer k.close()
		me := pages.Person{User: cloud.User}
		first := k.away(signInLink, me).back.String()
		second := k.away(signInLink, me).back.String()
		for what, link := range map[string]string{"the first": first, "the second": second} {
			if resp, body := k.get(link); resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %d\n%s", what, resp.StatusCode, body)
			}
		}
		for range 10 { // somebody else's page begins many: the browser's headers stay short
			k.get(signInLink)
		}
		at, _ := url.Parse(callback)
		if n := len(k.patrol.Jar.Cookies(at)); n > 5 {
			t.Errorf("the browser holds %d cookies", n)
		}
	})
}

// A browser that begins elsewhere is sent to PUBLIC_URL's host once; a gateway that rewrites
// the host does not make it a loop.
func TestASignInBegunOnAnotherHostGoesToThePublicOneOnce(t *testing.T) {
	withoutSignIn(t, func(t *testing.T, w *simulation.World) {
		ask := func(path string) (int, string) {
			r := httptest.NewRequest("GET", "http://contoso-patrol.azurewebsites.net"+path, nil)
			rec := httptest.NewRecorder()
			w.Hosts[0].ServeHTTP(rec, r)
			return rec.Code, rec.Header().Get("Location")
		}
		code, to := ask("/api/identities/build-bot/signin?code=" + simulation.MasterKey)
		const want = "https://patrol.localhost/api/identities/build-bot/signin?here=1"
		if code != http.StatusSeeOther || to != want {
			t.Fatalf("on another host: %d to %q, want 303 to %q", code, to, want)
		}
		code, to = ask("/api/identities/build-bot/signin?here=1")
		if code != http.StatusSeeOther || strings.Contains(to, "patrol.localhost/api/identities") {
			t.Errorf("with the mark: %d to %q, want 303 to the authority", code, to)
		}
	})
}

// An account that was made anew under the same name is somebody else, and so is who bears
// the name now: neither can confirm that by the link.
func TestAnotherObjectIDIsNotConfirmedByALink(t *testing.T) {
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
		resp, body = again.get(signInLink + "&confirm=" + rest[:36])
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "Patrol.Operator") {
			t.Errorf("confirmed by a link, with the master key: %d, want 403\n%s", resp.StatusCode, body)
		}
		vs := w.Cloud.Vault.Versions("patrol-identity-build-bot")
		if len(vs) != 1 || vs[0].Tags["patrol-user-id"] == rest[:36] {
			t.Errorf("%d versions of the sign-in, want the first one alone: %v", len(vs), vs[0].Tags)
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
