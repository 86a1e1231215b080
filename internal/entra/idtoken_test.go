package entra_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

const (
	fabrikam = "f0f0f0f0-0000-4000-a000-00000000000f"
	newID    = "0b0b0b0b-0000-4000-a000-000000000099"
)

// walk goes through the authority's pages as a person does and reads what comes
// back.
func (w *world) walk(page string, p htmlclient.Person) entra.Callback {
	w.t.Helper()
	end, err := p.Walk(w.t.Context(), htmlclient.New(w.http.Transport), page)
	w.mustDo(err)
	if !end.Left() || !strings.HasPrefix(end.URL.String(), w.redirect) {
		w.t.Fatalf("the walk ended at %s: %s", end.URL, end.HTML)
	}
	c, err := entra.ReadCallback(end.URL.Query())
	w.mustDo(err)
	if c.State != "st" {
		w.t.Errorf("state %q", c.State)
	}
	return c
}

// signInAs walks through a whole sign-in.
func (w *world) signInAs(c *entra.Client, user string, change ...func(*entra.CodeGrant)) error {
	w.t.Helper()
	r := signInRequest()
	r.RedirectURI = w.redirect
	page, err := c.SignInURL(w.t.Context(), "build-bot", r)
	if err != nil {
		return err
	}
	back := w.walk(page, htmlclient.Person{User: user})
	if back.Refused != nil {
		return back.Refused
	}
	here := func(g *entra.CodeGrant) { g.RedirectURI = w.redirect }
	return complete(w.t, c, back.Code.Reveal(), append(change, here)...)
}

func refusal(t *testing.T, err error, code string, cause entra.Cause) *entra.SignInRefusal {
	t.Helper()
	e, ok := errors.AsType[*rotation.Error](err)
	if !ok || e.Message == "" {
		t.Fatalf("got %v, want %s with a message", err, code)
	}
	check(t, "code", e.Code, code)
	check(t, "class", e.Class, rotation.SignIn)
	r, ok := errors.AsType[*entra.SignInRefusal](err)
	if !ok || r.Cause != cause {
		t.Fatalf("%s has %+v, want the cause %s", code, r, cause)
	}
	return r
}

func (w *world) wantNothingStored() {
	w.t.Helper()
	check(w.t, "versions in the vault", w.vault.count(), 0)
}

func TestAnotherUserIsRefusedWithTheNameInTheManifest(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.authority.AddUser(fake.User{UPN: "mallory@contoso.com"})
	err := w.signInAs(w.start(), "mallory@contoso.com")
	refusal(t, err, "wrong-user", entra.WrongUser)
	checkHas(t, "the error", err.Error(), bot)
	checkHas(t, "the error", err.Error(), "mallory@contoso.com has signed in")
	w.wantNothingStored()
	w.wantNotified()
}

func TestAGuestIsRefused(t *testing.T) {
	for name, withhold := range map[string]string{
		"by all that is said": "", "by the home tenant": "idp", "by the identity provider": "client_info",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{OmitClientInfo: withhold == "client_info"})
			w.authority.AddGuest("ann@fabrikam.com", fabrikam)
			c := w.start(func(cfg *entra.Config) {
				cfg.Identities = map[string]entra.Identity{"build-bot": {User: "ann@fabrikam.com"}}
				if withhold == "idp" {
					cfg.HTTPClient = w.withoutClaim("idp")
				}
			})
			refusal(t, w.signInAs(c, "ann@fabrikam.com"), "guest", entra.Guest)
			if w.vault.count() != 0 {
				t.Error("it was stored")
			}
		})
	}
}

// withoutClaim takes a claim out of every id token.
func (w *world) withoutClaim(name string) *http.Client {
	client := *w.http
	client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := w.http.Transport.RoundTrip(r)
		if err != nil || r.Method != http.MethodPost {
			return resp, err
		}
		var body, claims map[string]any
		err = json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		if token, ok := body["id_token"].(string); ok && err == nil {
			parts := strings.Split(token, ".")
			raw, e := base64.RawURLEncoding.DecodeString(parts[1])
			err = errors.Join(e, json.Unmarshal(raw, &claims))
			delete(claims, name)
			raw, e = json.Marshal(claims)
			err = errors.Join(err, e)
			body["id_token"] = parts[0] + "." + base64.RawURLEncoding.EncodeToString(raw) + "." + parts[2]
		}
		raw, e := json.Marshal(body)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
		return resp, errors.Join(err, e)
	})
	return &client
}

func TestAnAccountOfAnotherTenantIsRefused(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	other := "22222222-3333-4444-5555-666666666666"
	c := w.start(func(cfg *entra.Config) {
		cfg.Tenant = other
		client := *w.http
		client.Transport = roundTripper(
			func(r *http.Request) (*http.Response, error) { // an authority that signs in another tenant's people
				r = r.Clone(r.Context())
				r.URL.Path = strings.Replace(r.URL.Path, "/"+other+"/", "/"+fake.DefaultTenant+"/", 1)
				return w.http.Transport.RoundTrip(r)
			},
		)
		cfg.HTTPClient = &client
	})
	page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
	w.mustDo(err)
	page = strings.Replace(page, "/"+other+"/", "/"+fake.DefaultTenant+"/", 1)
	back := w.walk(page, htmlclient.Person{User: bot})
	refusal(t, complete(t, c, back.Code.Reveal()), "wrong-tenant", entra.WrongTenant)
	if w.vault.count() != 0 {
		t.Error("it was stored")
	}
}

func TestAnotherObjectIDMustBeConfirmed(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.mustDo(w.signInAs(c, bot))
	w.notified()
	w.authority.AddUser(fake.User{UPN: bot, ObjectID: newID}) // deleted and made again
	for _, process := range []*entra.Client{c, w.start()} {
		r := refusal(t, w.signInAs(process, bot), "user-id-changed", entra.UserIDChanged)
		if r.UserID != newID {
			t.Errorf("the new object id is %q", r.UserID)
		}
	}
	refusal(
		t,
		w.signInAs(c, bot, func(g *entra.CodeGrant) { g.ConfirmUserID = botID }),
		"user-id-changed",
		entra.UserIDChanged,
	)
	check(t, "versions in the vault", w.vault.count(), 1)
	check(t, "patrol-user-id", w.vault.latest().tags["patrol-user-id"], botID)
	w.wantNotified()
	w.mustDo(w.signInAs(c, bot, func(g *entra.CodeGrant) { g.ConfirmUserID = strings.ToUpper(newID) }))
	check(t, "versions in the vault", w.vault.count(), 2)
	check(t, "patrol-user-id", w.vault.latest().tags["patrol-user-id"], newID)
	w.mustToken(c)
	w.mustDo(w.signInAs(w.start(), bot)) // it is the remembered one now
}

func TestAnIDTokenWithoutAnObjectIDIsNobodys(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.authority.Switch(func(s *fake.Switches) { s.IDToken = func(claims map[string]any) { delete(claims, "oid") } })
	checkError(t, w.signInAs(w.start(), bot), rotation.Transient, "entra-answer")
	if got := w.vault.count(); got != 1 {
		t.Errorf("%d versions, want the one before", got)
	}
	if got := w.vault.latest().tags["patrol-user-id"]; got != botID {
		t.Errorf("remembered %q, want %q", got, botID)
	}
}

func TestANewUserInTheManifestHasNoRememberedObjectID(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.authority.AddUser(fake.User{UPN: "new-bot@contoso.com", ObjectID: newID})
	c := w.start(func(cfg *entra.Config) {
		cfg.Identities = map[string]entra.Identity{"build-bot": {User: "new-bot@contoso.com"}}
	})
	w.mustDo(w.signInAs(c, "new-bot@contoso.com"))
	if got := w.vault.latest().tags["patrol-user-id"]; got != newID {
		t.Errorf("remembered %q", got)
	}
}

func TestAnAnswerToAnotherSignInIsRefused(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	err := w.signInAs(c, bot, func(g *entra.CodeGrant) { g.Nonce = "of-another" })
	checkError(t, err, rotation.SignIn, "nonce-mismatch")
	if err := w.signInAs(c, bot, func(g *entra.CodeGrant) { g.Nonce = "" }); err == nil {
		t.Error("no nonce was asked for")
	}
	for _, r := range []entra.SignInRequest{
		{RedirectURI: redirect, State: "st", Challenge: challenge()},
		{RedirectURI: redirect, State: "st", Nonce: nonce},
		{RedirectURI: redirect, Challenge: challenge(), Nonce: nonce},
	} {
		if _, err := c.SignInURL(t.Context(), "build-bot", r); err == nil {
			t.Errorf("started with %+v", r)
		}
	}
	w.authority.Switch(func(s *fake.Switches) { s.OmitIDToken = true })
	err = w.signInAs(c, bot)
	checkError(t, err, rotation.Transient, "entra-answer")
	if w.vault.count() != 0 {
		t.Error("something was stored")
	}
}

func TestTheSignInAsksForNothingButWhatPatrolNeeds(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	more := []string{fake.DevOps + "/vso.tokenadministration", fake.DevOps + "/vso.graph"}
	for name, tc := range map[string]struct {
		more     []string
		formPost bool
	}{"plain": {}, "administrator": {more, true}} {
		c := w.start(func(cfg *entra.Config) {
			cfg.Identities = map[string]entra.Identity{"build-bot": {User: bot, MoreScopes: tc.more}}
		})
		r := signInRequest()
		r.FormPost = tc.formPost
		page, err := c.SignInURL(t.Context(), "build-bot", r)
		w.mustDo(err)
		u, err := url.Parse(page)
		w.mustDo(err)
		mode := map[bool]string{false: "query", true: "form_post"}[tc.formPost]
		want := url.Values{
			"client_id": {
				app,
			}, "response_type": {"code"}, "redirect_uri": {redirect}, "response_mode": {mode},
			"state": {"st"}, "nonce": {nonce},
			"code_challenge": {challenge()}, "code_challenge_method": {"S256"}, "login_hint": {bot},
			"scope": {
				strings.Join(
					append(append([]string{"openid", "offline_access", "profile"}, patScopes...), tc.more...),
					" ",
				),
			},
		}
		if got := u.Query(); got.Encode() != want.Encode() {
			t.Errorf("%s: asked with %v, want %v", name, got, want)
		}
	}
}

func TestAnAdministratorsConsentOpensTheWay(t *testing.T) {
	w := newWorld(t, fake.Switches{NoUserConsent: true})
	w.authority.AddUser(fake.User{UPN: "admin@contoso.com", Administrator: true})
	c := w.start()
	page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
	w.mustDo(err)
	back := w.walk(page, htmlclient.Person{User: bot})
	if back.Refused == nil || !entra.NeedsAdminConsent(back.Refused) {
		t.Fatalf("%+v", back)
	}
	link, err := c.AdminConsentLink("build-bot", redirect, "st")
	w.mustDo(err)
	denied := w.walk(link, htmlclient.Person{User: "admin@contoso.com", CancelAt: "consent"})
	check(t, "a declined consent is a refusal", denied.Refused != nil, true)
	check(t, "a declined consent is a consent", denied.AdminConsent, false)
	granted := w.walk(link, htmlclient.Person{User: "admin@contoso.com"})
	check(t, "a consent is a refusal", granted.Refused != nil, false)
	check(t, "a consent is a consent", granted.AdminConsent, true)
	w.mustDo(w.signInAs(c, bot))
	w.mustToken(c)
	if _, err := c.AdminConsentLink("nobody", redirect, "st"); rotation.ClassOf(err) != rotation.Configuration {
		t.Error(err)
	}
}

func TestADeclinedConsentIsSaidPlainly(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	page, err := w.start().SignInURL(t.Context(), "build-bot", signInRequest())
	w.mustDo(err)
	back := w.walk(page, htmlclient.Person{User: bot, CancelAt: "consent"})
	r := back.Refused
	if r == nil {
		t.Fatalf("the browser brings %+v, want a refusal", back)
	}
	checkError(t, r, rotation.SignIn, "AADSTS65004")
	checkHas(t, "the message", r.Message, "declined")
	check(t, "an administrator helps", entra.NeedsAdminConsent(r), false)
}

func TestASignInByDeviceCode(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.publicApp()
	w.authority.AddUser(fake.User{UPN: "mallory@contoso.com"})
	public := w.start(func(cfg *entra.Config) { cfg.Credential = entra.Credential{} })
	by := func(ctx context.Context, answer func(code string) error) error {
		return public.SignInByDevice(ctx, "build-bot", "", func(d entra.DeviceCode) {
			missing := d.UserCode == "" || d.URL == "" || d.Expires.IsZero()
			check(t, "a part is missing", missing, false)
			w.mustDo(answer(d.UserCode))
		})
	}
	as := func(user string) func(string) error {
		return func(code string) error { return w.authority.ApproveDevice(code, user) }
	}
	err := by(t.Context(), w.authority.DeclineDevice)
	checkError(t, err, rotation.SignIn, "authorization-declined")
	refusal(t, by(t.Context(), as("mallory@contoso.com")), "wrong-user", entra.WrongUser)
	ctx, cancel := context.WithCancel(t.Context())
	if err := by(ctx, func(string) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if w.vault.count() != 0 {
		t.Fatal("something was stored")
	}
	w.mustDo(by(t.Context(), as(bot)))
	w.mustToken(w.start(func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }))
	w.authority.AddUser(fake.User{UPN: bot, ObjectID: newID})
	refusal(t, by(t.Context(), as(bot)), "user-id-changed", entra.UserIDChanged)
	if err := w.start().SignInByDevice(t.Context(), "build-bot", "", nil); rotation.ClassOf(
		err,
	) != rotation.Configuration {
		t.Errorf("as a confidential client: %v", err)
	}
}

// signInPublicly is a sign-in from a command line.
func (w *world) signInPublicly() {
	w.t.Helper()
	c := w.start(func(cfg *entra.Config) { cfg.Credential = entra.Credential{} })
	r := signInRequest()
	r.RedirectURI = "http://localhost:50123"
	page, err := c.SignInURL(w.t.Context(), "build-bot", r)
	w.mustDo(err)
	end, err := htmlclient.Person{User: bot}.Walk(w.t.Context(), htmlclient.New(w.http.Transport), page)
	w.mustDo(err)
	w.mustDo(complete(w.t, c, end.URL.Query().Get("code"), func(g *entra.CodeGrant) { g.RedirectURI = r.RedirectURI }))
}

// One app registration may have both platforms: what each of them got is
// redeemed in its own way.
func TestTheAppUsesASignInThatAPublicClientMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.register("http://localhost")
		w.signInPublicly()
		assertions := w.authority.Assertions()
		confidential := w.start()
		w.mustToken(confidential)
		time.Sleep(8 * day)
		w.mustDo(confidential.Refresh(t.Context(), "build-bot")) // what is stored again keeps its mark
		if w.vault.count() != 2 {
			t.Fatalf("%d versions", w.vault.count())
		}
		w.mustToken(w.start())
		if w.authority.Assertions() != assertions {
			t.Error("the app presented its credential with a public client's refresh token")
		}
		w.mustDo(w.signInAs(confidential, bot))
		w.mustToken(w.start())
		if w.authority.Assertions() == assertions {
			t.Error("the app presented no credential with its own")
		}
	})
}

func TestAPublicSignInAtARegistrationThatTakesNoneAnyMoreIsMadeAgain(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.register("http://localhost")
	w.signInPublicly()
	w.register()
	e := w.wantError(w.start(), rotation.SignIn, "AADSTS7000218")
	if !strings.Contains(e.Message, "command line") {
		t.Error(e.Message)
	}
}

// What a browser brings is worth a sign-in: it stays out of whatever is said.
func TestCodesAndVerifiersStayOutOfErrorsAndLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		said := fmt.Sprintf(
			"%+v %#v",
			entra.CodeGrant{Code: rotation.NewSecret("canary"), Verifier: rotation.NewSecret(verifier)},
			entra.Callback{Code: rotation.NewSecret("canary")},
		)
		for _, f := range []faults.Fault{
			{Mode: faults.Status, Status: 400, Body: `{"error":"invalid_grant",` +
				`"error_description":"AADSTS70000: canary","error_codes":[70000]}`},
			{Mode: faults.Status, Status: 200, Body: `{"canary`},
			{Mode: faults.Status, Status: 500, Body: "canary"},
			{Mode: faults.Status, Status: 302, Header: map[string]string{"Location": "https://evil.example/"}},
			{Mode: faults.ResetAfter},
			{Mode: faults.HangBefore},
		} {
			f.Service, f.Operation, f.Times = "entra", "token authorization_code", -1
			w.mustDo(w.panel.Inject(f))
			err := complete(t, c, "canary")
			if err == nil {
				t.Errorf("%+v was a sign-in", f)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				said += fmt.Sprintf("%v %+v %#v", e, e, e)
			}
			w.panel.ClearFaults()
		}
		said += w.log.String()
		for _, secret := range []string{"canary", verifier} {
			if strings.Contains(said, secret) {
				t.Errorf("%q got out", secret)
			}
		}
		if w.vault.count() != 0 {
			t.Error("something was stored")
		}
	})
}
