// Package endurance_test holds a sign-in through a real browser against two hundred
// days of sweeps. It is apart from the other tests because the browser's driver
// takes minutes to build under the race detector.
package endurance_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devca"
	"github.com/azure-patrol/patrol/sandbox/simulation"
	"github.com/azure-patrol/patrol/tests/chromium"
)

const (
	day        = 24 * time.Hour
	signInLink = "https://patrol.localhost/api/identities/build-bot/signin?code=" + simulation.MasterKey
)

const onePAT = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.agentpools_manage, vso.build_execute]
`

// doors are real sockets that lead into a bubble. While they are open, virtual time
// stands still.
type doors struct{ front, authority net.Listener }

func listenDoors(t *testing.T) doors {
	t.Helper()
	var d doors
	for _, l := range []*net.Listener{&d.front, &d.authority} {
		var err error
		*l, err = net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = d.front.Close(), d.authority.Close() })
	return d
}

func (d doors) hosts() map[string]string {
	return map[string]string{simulation.Front: d.front.Addr().String(), simulation.Authority: d.authority.Addr().
		String()}
}

// open serves a world through the doors until closed. The sockets stay bound, so that
// they can be opened again.
func (d doors) open(t *testing.T, w *simulation.World) (closed func()) {
	t.Helper()
	authority, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	serve := func(l net.Listener, address string) func() {
		return chromium.Bridge(tls.NewListener(chromium.Reusable(l), authority.TLSConfig()),
			func(ctx context.Context) (net.Conn, error) { return w.Dial(ctx, address) })
	}
	stopFront, stopAuthority := serve(d.front, simulation.Front), serve(d.authority, simulation.Authority)
	return func() { stopFront(); stopAuthority() }
}

// warm asks for a page before the doors are open: what a process does at its first call
// takes virtual time.
func warm(w *simulation.World) { _ = w.HTTP("GET", "/api/identities/build-bot/signin", nil, nil) }

// signIn walks through the real pages, from the sign-in link to patrol's last page.
func signIn(t *testing.T, b *chromium.Browser) (heading string) {
	t.Helper()
	return walk(t, b, signInLink, "build-bot@contoso.com")
}

// walk goes from a link by the authority's pages to patrol's next one.
func walk(t *testing.T, b *chromium.Browser, link, user string) (heading string) {
	t.Helper()
	err := b.Open(link)
	for range 8 {
		if err != nil {
			t.Fatal(err)
		}
		var step string
		step, err = b.Value("input[name=step]")
		if err != nil {
			t.Fatal(err)
		}
		switch step {
		case "account":
			err = b.Run(chromedp.SetValue(chromedp.CSS("select[name=user]"), user))
			if err == nil {
				err = b.Press("button[value=next]")
			}
		case "sign-in":
			err = b.Press("button[value=sign-in]")
		case "consent":
			err = b.Press("button[value=accept]")
		case "":
			heading, err = b.Text("h1")
			if err != nil {
				t.Fatal(err)
			}
			return heading
		default:
			t.Fatalf("the sign-in stopped at the page %q", step)
		}
	}
	t.Fatal("the sign-in does not end")
	return ""
}

// A person signs in through real pages in a real browser, and patrol keeps that going
// for 200 days. Then the session is revoked: patrol says so once, and goes on when the
// person has signed in again.
func TestASignInLastsTwoHundredDays(t *testing.T) {
	for _, client := range []string{cloud.Federated, cloud.PublicClient} {
		t.Run("client credential "+client, func(t *testing.T) {
			d := listenDoors(t)
			b := chromium.Start(t, chromium.Options{Hosts: d.hosts()})
			synctest.Test(t, func(t *testing.T) {
				w := simulation.New(t, simulation.Config{Manifest: onePAT, NobodySignedIn: true, OneProcess: true,
					Cloud: func(c *cloud.Config) { c.ClientCredential = client }})
				defer w.Close()
				of := func(kind string, since time.Time) (n int) {
					for _, e := range w.Events() {
						if e.Type == kind && !e.Time.Before(since) {
							n++
						}
					}
					return n
				}
				works := func(when string) {
					t.Helper()
					v, ok := w.Latest("jenkins-agents")
					if !ok || !w.Cloud.DevOps.Works(cloud.Organization, v.Value) {
						t.Fatalf("%s: the PAT does not work\n%s", when, w.Output())
					}
				}

				// Nobody has signed in: patrol asks for it.
				_ = w.Sweep()
				if n := of(events.TypeSignInRequired, time.Time{}); n != 1 {
					t.Fatalf("%d times a sign-in was asked for, want once\n%s", n, w.Output())
				}
				warm(w)
				closed := d.open(t, w)
				if got := signIn(t, b); got != "Signed in" {
					t.Fatalf("the sign-in ended at %q\n%s", got, w.Output())
				}
				closed()
				began := time.Now()
				w.Settle()
				works("after the sign-in, without another sweep")

				// Two hundred days of sweeps.
				time.Sleep(200 * day)
				w.Settle()
				works("after 200 days")
				if n := of(events.TypeRotated, began); n < 9 {
					t.Errorf("%d rotations in 200 days", n)
				}
				if n := of(events.TypeSignInRequired, began.Add(time.Second)); n != 0 {
					t.Errorf("a sign-in was asked for %d times in 200 days\n%s", n, w.Output())
				}

				// The session is revoked.
				revoked := time.Now()
				if err := w.Cloud.Entra.Revoke(cloud.User); err != nil {
					t.Fatal(err)
				}
				time.Sleep(23 * time.Hour)
				if n := of(events.TypeSignInRequired, revoked); n != 1 {
					t.Errorf("%d times a sign-in was asked for within a day, want once\n%s", n, w.Output())
				}
				var health struct{ Status string }
				if code := w.HTTP("GET", "/api/health", "", &health); code != http.StatusServiceUnavailable ||
					health.Status != "sign-in required" {
					t.Errorf("health: %d %+v", code, health)
				}
				if code := w.HTTP("POST", "/api/pats/jenkins-agents/rotate", `{}`, nil); code != http.StatusConflict {
					t.Errorf("rotate answered %d, want 409", code)
				}
				works("while a sign-in is required")

				// The page asks for it, and its user signs in again: rotation goes on.
				warm(w)
				closed = d.open(t, w)
				if err := w.Cloud.AddPerson("ann@contoso.com", cloud.Operator); err != nil {
					t.Fatal(err)
				}
				const page = "https://patrol.localhost/api/dashboard"
				if got := walk(t, b, page, "ann@contoso.com"); got != "Personal access tokens" {
					t.Fatalf("the sign-in to the page ended at %q\n%s", got, w.Output())
				}
				text, err := b.Text("main")
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{"Sign-in needed", "Sign in now"} {
					if !strings.Contains(text, want) {
						t.Errorf("the dashboard does not say %q:\n%s", want, text)
					}
				}
				if got := signIn(t, b); got != "Signed in" {
					t.Fatalf("the second sign-in ended at %q\n%s", got, w.Output())
				}
				closed()
				w.Settle()
				if n := of(events.TypeSignedIn, revoked); n != 1 {
					t.Errorf("%d events say that the sign-in works again, want one", n)
				}
				before, _ := w.Latest("jenkins-agents")
				if code := w.HTTP("POST", "/api/pats/jenkins-agents/rotate", `{}`, nil); code != http.StatusAccepted {
					t.Errorf("rotate answered %d, want 202", code)
				}
				w.Settle()
				if after, _ := w.Latest("jenkins-agents"); after.ID == before.ID {
					t.Error("nothing was rotated after the second sign-in")
				}
				works("after the second sign-in")
				noTokens(t, w)
			})
		})
	}
}

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
