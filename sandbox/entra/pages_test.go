package entra_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

const (
	boss       = "boss@contoso.com"
	homeTenant = "77777777-0000-4000-a000-000000000001"
)

// walk lets a person answer the pages, and says which pages there were.
func walk(t *testing.T, b *htmlclient.Browser, p htmlclient.Person, page string) (at *htmlclient.Page, steps string) {
	t.Helper()
	var seen []string
	p.Saw = func(step string) { seen = append(seen, step) }
	at, err := p.Walk(t.Context(), b, page)
	if err != nil {
		t.Fatal(err)
	}
	return at, strings.Join(seen, " ")
}

// back is what a client was sent.
func back(t *testing.T, at *htmlclient.Page) url.Values {
	t.Helper()
	if !at.Left() || !strings.HasPrefix(at.URL.String(), web+"?") {
		t.Fatalf("the browser is at %s (%d): %s", at.URL, at.Status, at.HTML)
	}
	return at.URL.Query()
}

// redeem gets the tokens of a code.
func redeem(t *testing.T, client *http.Client, app, code string) map[string]any {
	t.Helper()
	form := url.Values{"client_id": {app}, "grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {web},
		"code_verifier": {verifier}, "client_info": {"1"}}
	if app == "web" {
		form.Set("client_secret", "s3cret")
	}
	_, body := answerOf(t, client, form)
	return body
}

func TestThePagesThatAPersonSees(t *testing.T) {
	for name, tc := range map[string]struct {
		user    string
		prepare func(*entra.Server) error
		change  []string // of the request
		again   []string // of a second request in the same browser
		steps   string
		second  string
	}{
		"first sign-in, then silence": {steps: "account sign-in consent"},
		"the account is asked for again": {
			again: []string{"prompt", "select_account"}, steps: "account sign-in consent", second: "account",
		},
		"the sign-in is asked for again": {
			again: []string{"prompt", "login"}, steps: "account sign-in consent", second: "account sign-in",
		},
		"the consent is asked for again": {
			again: []string{"prompt", "consent"}, steps: "account sign-in consent", second: "consent",
		},
		"the account that is hinted at is another": {
			again: []string{"login_hint", boss}, steps: "account sign-in consent", second: "account sign-in consent",
		},
		"the same account is hinted at": {
			again: []string{"login_hint", bot}, steps: "account sign-in consent",
		},
		"other scopes need another consent": {
			again: []string{"scope", entra.DevOps + "/vso.graph"}, steps: "account sign-in consent", second: "consent",
		},
		"the user needs multi-factor": {
			prepare: func(s *entra.Server) error { return s.RequireMFA(bot, true) },
			steps:   "account sign-in mfa consent",
		},
		"the user has yet to enrol": {user: "new@contoso.com", prepare: func(s *entra.Server) error {
			s.AddUser(entra.User{UPN: "new@contoso.com", MFA: true, NotEnrolled: true})
			return nil
		}, steps: "account sign-in enrol mfa consent"},
		"a policy needs multi-factor": {
			prepare: func(s *entra.Server) error {
				s.AddPolicy(entra.Policy{App: "web", MFA: true})
				return nil
			},
			steps: "account sign-in mfa consent",
		},
		"a policy for another app": {
			prepare: func(s *entra.Server) error {
				s.AddPolicy(entra.Policy{App: "spa", MFA: true})
				return nil
			},
			steps: "account sign-in consent",
		},
		"the claims ask for multi-factor": {
			change: []string{"claims", `{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`},
			steps:  "account sign-in mfa consent",
		},
		"multi-factor is asked for later": {
			again: []string{"claims", `{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`},
			steps: "account sign-in consent", second: "mfa",
		},
		"claims that ask for something else": {
			change: []string{"claims", `{"access_token":{"xms_cc":{"values":["CP1"]}}}`},
			steps:  "account sign-in consent",
		},
		"consent was given beforehand": {
			prepare: func(s *entra.Server) error { return s.Consent(bot, "web", patScopes...) },
			steps:   "account sign-in",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := tenant(t)
			s.AddUser(entra.User{UPN: boss, Administrator: true})
			if tc.prepare != nil {
				if err := tc.prepare(s); err != nil {
					t.Fatal(err)
				}
			}
			if tc.user == "" {
				tc.user = bot
			}
			b := htmlclient.New(client.Transport)
			p := htmlclient.Person{User: tc.user}
			at, steps := walk(t, b, p, request("web", tc.change...))
			q := back(t, at)
			check(t, "pages", steps, tc.steps)
			check(t, "state", q.Get("state"), "st&te")
			if body := redeem(t, client, "web", q.Get("code")); codeOf(body) != 0 {
				t.Errorf("%v", body)
			}
			if slices.Contains(tc.again, "login_hint") {
				p.User = ""
			}
			at, steps = walk(t, b, p, request("web", tc.again...))
			check(t, "pages the second time", steps, tc.second)
			check(t, "a code the second time", back(t, at).Has("code"), true)
			// Another browser knows nobody, but consent belongs to the user.
			_, steps = visit(t, client, htmlclient.Person{User: tc.user}, request("web", tc.change...))
			want := strings.TrimSuffix(strings.Replace(tc.steps, "enrol ", "", 1), " consent")
			check(t, "pages in another browser", steps, want)
		})
	}
}

func TestAPersonWhoGoesAwayIsSentBackWithTheReason(t *testing.T) {
	for _, step := range []string{"account", "sign-in", "mfa", "consent"} {
		s, client := tenant(t)
		if err := s.RequireMFA(bot, true); err != nil {
			t.Fatal(err)
		}
		at, _ := visit(t, client, htmlclient.Person{User: bot, CancelAt: step}, request("web"))
		q := back(t, at)
		checkQuery(t, "at "+step, q, "error", "access_denied", "error_subcode", "cancel", "state", "st&te", "code", "")
		checkHas(t, "at "+step, q.Get("error_description"), "AADSTS65004: ")
	}
}

func TestWhoCanNotSignInStaysOnThePage(t *testing.T) {
	s, client := tenant(t)
	s.AddUser(entra.User{UPN: "gone@contoso.com"})
	if err := s.DeleteUser("gone@contoso.com"); err != nil {
		t.Fatal(err)
	}
	s.AddOutsider("ann@fabrikam.com", homeTenant)
	s.AddGuest("eve@fabrikam.com", homeTenant)
	for user, code := range map[string]string{
		"off@contoso.com":                   "AADSTS50057",
		"gone@contoso.com":                  "AADSTS50034",
		"nobody@contoso.com":                "AADSTS50034",
		"ann@fabrikam.com":                  "AADSTS50020",
		"eve_fabrikam.com#EXT#@contoso.com": "AADSTS50034", // a guest signs in with the address
	} {
		at, steps := visit(t, client, htmlclient.Person{User: user}, request("web"))
		check(t, user+": pages", steps, "account account")
		checkPage(t, user, at, http.StatusOK, code)
	}
	s.AddPolicy(entra.Policy{MFA: true})
	at, _ := visit(t, client, htmlclient.Person{User: "ann@fabrikam.com"}, request("web"))
	checkPage(t, "where everybody needs multi-factor authentication", at, http.StatusOK, "AADSTS90072")
}

func TestAUserWhoIsBlockedMeanwhileChoosesAgain(t *testing.T) {
	s, client := tenant(t)
	b := htmlclient.New(client.Transport)
	at, err := b.Open(t.Context(), request("web"))
	if err != nil {
		t.Fatal(err)
	}
	at, err = b.Submit(t.Context(), at, at.Forms[0], "user", bot, "action", "next")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DisableUser(bot, true); err != nil {
		t.Fatal(err)
	}
	at, err = b.Submit(t.Context(), at, at.Forms[0], "action", "sign-in")
	if err != nil {
		t.Fatal(err)
	}
	step, _ := at.Step()
	check(t, "page", step, "account")
	checkHas(t, "page", at.HTML, "AADSTS50057")
}

func TestAGuestIsOfAnotherTenant(t *testing.T) {
	s, client := tenant(t)
	oid := s.AddGuest("eve@fabrikam.com", homeTenant)
	at, _ := visit(t, client, htmlclient.Person{User: "eve@fabrikam.com"}, request("web"))
	body := redeem(t, client, "web", back(t, at).Get("code"))
	var id, info struct {
		Name, OID, TID, IDP, UID, UTID string
		User                           string `json:"preferred_username"`
	}
	if err := json.Unmarshal([]byte(payload(t, body["id_token"].(string))), &id); err != nil {
		t.Fatal(err)
	}
	check(t, "preferred_username", id.User, "eve@fabrikam.com")
	check(t, "oid", id.OID, oid)
	check(t, "tid", id.TID, entra.DefaultTenant)
	check(t, "idp", id.IDP, "https://sts.windows.net/"+homeTenant+"/")
	if err := json.Unmarshal([]byte(payload(t, "."+body["client_info"].(string))), &info); err != nil {
		t.Fatal(err)
	}
	check(t, "utid", info.UTID, homeTenant)
	if info.UID == oid || info.UID == "" {
		t.Errorf("uid %q, want the object id at home", info.UID)
	}
	c, err := s.VerifyAccessToken(body["access_token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "the token's user", c.UPN, "eve_fabrikam.com#EXT#@contoso.com")
	check(t, "the token's object id", c.ObjectID, oid)
	// A member has no idp.
	at, _ = visit(t, client, htmlclient.Person{User: bot}, request("web"))
	body = redeem(t, client, "web", back(t, at).Get("code"))
	if p := payload(t, body["id_token"].(string)); strings.Contains(p, `"idp"`) {
		t.Errorf("%s", p)
	}
}

func TestAUserMadeAnewIsAnotherPerson(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	_, before := answerOf(t, client, refreshForm(app, rt))
	was, err := s.VerifyAccessToken(before["access_token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteUser(bot); err != nil {
		t.Fatal(err)
	}
	if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != 500341 {
		t.Errorf("deleted: %v", body)
	}
	oid := s.AddUser(entra.User{UPN: bot})
	if oid == was.ObjectID {
		t.Error("the object id has come back")
	}
	if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != 500341 {
		t.Errorf("made anew: %v", body)
	}
	s.AddApp(entra.App{ClientID: app, Native: []string{web}})
	at, steps := visit(t, client, htmlclient.Person{User: bot}, request(app))
	if steps != "account sign-in consent" {
		t.Errorf("pages %q: the consent was another person's", steps)
	}
	body := redeem(t, client, app, back(t, at).Get("code"))
	c, err := s.VerifyAccessToken(body["access_token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "object id", c.ObjectID, oid)
}

func TestOnlyAnAdministratorGrantsWhatUsersMayNot(t *testing.T) {
	for name, prepare := range map[string]func(*entra.Server){
		"no user consent in the tenant": func(s *entra.Server) {
			s.Switch(func(sw *entra.Switches) { sw.NoUserConsent = true })
		},
		"a permission for administrators": func(s *entra.Server) {
			s.AddResource(entra.Resource{
				ID: "high", URIs: []string{"https://high.example"},
				Scopes: []string{"all"}, AdminOnly: []string{"All"},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := tenant(t)
			prepare(s)
			s.AddUser(entra.User{UPN: boss, Administrator: true})
			scope := []string{"scope", "https://high.example/all openid offline_access"}
			if strings.HasPrefix(name, "no user") {
				scope = nil
			}
			at, steps := visit(t, client, htmlclient.Person{User: bot}, request("web", scope...))
			check(t, "pages", steps, "account sign-in approval")
			checkQuery(t, "refused", back(t, at), "error", "access_denied")
			checkHas(t, "refused", back(t, at).Get("error_description"), "AADSTS90094: ")
			// The administrator's own consent is the administrator's alone.
			for _, everybody := range []bool{false, true} {
				change := append([]string{"prompt", "consent"}, scope...)
				person := htmlclient.Person{User: boss, ForEverybody: everybody}
				at, _ = visit(t, client, person, request("web", change...))
				check(t, "the administrator has a code", back(t, at).Has("code"), true)
				want := "account sign-in approval"
				if everybody {
					want = "account sign-in"
				}
				_, steps = visit(t, client, htmlclient.Person{User: bot}, request("web", scope...))
				check(t, fmt.Sprintf("for everybody %t: pages", everybody), steps, want)
			}
			s.WithdrawAdminConsent("web")
			_, steps = visit(t, client, htmlclient.Person{User: bot}, request("web", scope...))
			check(t, "pages after withdrawal", steps, "account sign-in approval")
		})
	}
}

func TestTheAdminConsentEndpoint(t *testing.T) {
	s, client := tenant(t)
	s.AddUser(entra.User{UPN: boss, Administrator: true})
	s.AddApp(entra.App{ClientID: "web", Web: []string{web}, Secrets: []string{"s3cret"}, Scopes: patScopes})
	at := func(endpoint string, change ...string) string {
		q := url.Values{"client_id": {"web"}, "redirect_uri": {web}, "state": {"s1"}}
		for i := 0; i < len(change); i += 2 {
			q.Set(change[i], change[i+1])
		}
		return authority + endpoint + "?" + q.Encode()
	}
	for name, page := range map[string]string{
		"AADSTS700016": at("/adminconsent", "client_id", "nobody"),
		"AADSTS50011":  at("/adminconsent", "redirect_uri", "https://evil.example/"),
		"AADSTS900144": at("/adminconsent", "redirect_uri", ""),
	} {
		resp, html := get(t, client, page)
		check(t, name+": status", resp.StatusCode, http.StatusBadRequest)
		checkHas(t, "page", html, name)
	}
	p, steps := visit(t, client, htmlclient.Person{User: bot}, at("/adminconsent"))
	check(t, "not an administrator: pages", steps, "account sign-in approval")
	checkQuery(t, "not an administrator", back(t, p), "error", "access_denied", "state", "s1")
	p, _ = visit(t, client, htmlclient.Person{User: boss, CancelAt: "consent"}, at("/adminconsent"))
	checkQuery(t, "declined", back(t, p),
		"error", "access_denied", "admin_consent", "True", "tenant", entra.DefaultTenant)
	p, _ = visit(t, client, htmlclient.Person{User: boss},
		at("/v2.0/adminconsent", "scope", entra.DevOps+"/vso.nothing"))
	checkHas(t, "a scope that does not exist", back(t, p).Get("error_description"), "AADSTS650053")
	p, steps = visit(t, client, htmlclient.Person{User: boss}, at("/v2.0/adminconsent", "scope", pats))
	check(t, "one scope: pages", steps, "account sign-in consent")
	checkQuery(t, "one scope", back(t, p), "admin_consent", "True", "scope", pats, "state", "s1")
	_, steps = visit(t, client, htmlclient.Person{User: bot}, request("web", "scope", pats))
	check(t, "a user, one scope: pages", steps, "account sign-in")
	p, _ = visit(t, client, htmlclient.Person{User: boss}, at("/adminconsent"))
	checkQuery(t, "all scopes", back(t, p), "admin_consent", "True")
	_, steps = visit(t, client, htmlclient.Person{User: bot, CancelAt: "consent"}, request("web"))
	check(t, "a user, all scopes: pages", steps, "account sign-in")
}

func TestAFormBelongsToOneBrowserAndServesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := tenant(t)
		mine, other := htmlclient.New(client.Transport), htmlclient.New(client.Transport)
		open := func(b *htmlclient.Browser) *htmlclient.Page {
			t.Helper()
			at, err := b.Open(t.Context(), request("web"))
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		send := func(b *htmlclient.Browser, at *htmlclient.Page, set ...string) *htmlclient.Page {
			t.Helper()
			next, err := b.Submit(
				t.Context(),
				at,
				at.Forms[0],
				append([]string{"user", bot, "action", "next"}, set...)...)
			if err != nil {
				t.Fatal(err)
			}
			return next
		}
		refused := func(what, code string, at *htmlclient.Page) {
			t.Helper()
			checkPage(t, what, at, http.StatusBadRequest, code)
			check(t, what+": forms", len(at.Forms), 0)
		}
		first := open(mine)
		open(other)
		refused("another browser", "AADSTS165000", send(other, first))
		refused("no browser at all", "AADSTS165000", send(htmlclient.New(client.Transport), first))
		refused("a forged flow", "AADSTS165000", send(mine, first, "flow", strings.Repeat("0", 64)))
		refused("no flow", "AADSTS165000", send(mine, first, "flow", ""))
		refused("another step", "AADSTS165000", send(mine, first, "step", "consent", "action", "accept"))
		second := send(mine, first)
		if step, _ := second.Step(); step != "sign-in" {
			t.Fatalf("after all that the rightful browser is at %q: %s", step, second.HTML)
		}
		refused("the same form again", "AADSTS165000", send(mine, first))
		third := send(mine, second, "action", "sign-in")
		refused("the second form again", "AADSTS165000", send(mine, second, "action", "sign-in"))
		last := send(mine, third, "action", "accept")
		if q := back(t, last); q.Get("code") == "" {
			t.Errorf("%v", q)
		}
		refused("the last form again", "AADSTS165000", send(mine, third, "action", "accept"))

		slow := open(other)
		time.Sleep(15 * time.Minute)
		refused("too late", "AADSTS50089", send(other, slow))
		forgotten := open(other)
		time.Sleep(time.Hour)
		open(other)
		refused("much too late", "AADSTS165000", send(other, forgotten))
		resp, _ := get(t, client, authority+"/signin")
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("GET of a form's address: %d", resp.StatusCode)
		}
	})
}

func TestThePagesCanNotBeFramedOrKept(t *testing.T) {
	_, client := tenant(t)
	resp, html := get(t, client, request("web"))
	check(t, "X-Frame-Options", resp.Header.Get("X-Frame-Options"), "DENY")
	check(t, "Cache-Control", resp.Header.Get("Cache-Control"), "no-store")
	checkHas(t, "Content-Security-Policy", resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
	if strings.Contains(html, "<script") {
		t.Error("the page wants a script")
	}
	c := resp.Cookies()
	if len(c) != 1 {
		t.Fatalf("%d cookies, want 1", len(c))
	}
	check(t, "HttpOnly", c[0].HttpOnly, true)
	check(t, "Secure", c[0].Secure, true)
	check(t, "SameSite", c[0].SameSite, http.SameSiteLaxMode)
	check(t, "bound to the host", strings.HasPrefix(c[0].Name, "__Host-"), true)
}

func TestThreeWrongCodesEndTheSignIn(t *testing.T) {
	s, client := tenant(t)
	if err := s.RequireMFA(bot, true); err != nil {
		t.Fatal(err)
	}
	b := htmlclient.New(client.Transport)
	at, err := b.Open(t.Context(), request("web"))
	for _, set := range [][]string{
		{"user", bot, "action", "next"}, {"action", "sign-in"}, {"code", "x"}, {"code", ""}, {"code", "y"},
	} {
		if err != nil {
			t.Fatal(err)
		}
		if len(at.Forms) != 1 {
			t.Fatalf("%d forms, want 1", len(at.Forms))
		}
		at, err = b.Submit(t.Context(), at, at.Forms[0], set...)
	}
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, "after three", at, http.StatusBadRequest, "AADSTS500121")
	// The sign-in itself counts, the second factor is still missing.
	if _, steps := walk(t, b, htmlclient.Person{}, request("web")); steps != "mfa consent" {
		t.Errorf("the next time: pages %q", steps)
	}
}

func TestSilentSignIn(t *testing.T) {
	s, client := tenant(t)
	s.AddUser(entra.User{UPN: boss})
	b := htmlclient.New(client.Transport)
	silent := func(change ...string) (err, description string) {
		t.Helper()
		at, steps := walk(t, b, htmlclient.Person{}, request("web", append([]string{"prompt", "none"}, change...)...))
		q := back(t, at)
		check(t, "pages", steps, "")
		check(t, "an error beside a code, or neither", q.Has("error") == q.Has("code"), false)
		description, _, _ = strings.Cut(q.Get("error_description"), ":")
		return q.Get("error"), description
	}
	want := func(err, code string, change ...string) {
		t.Helper()
		gotErr, gotCode := silent(change...)
		check(t, fmt.Sprintf("%v: error", change), gotErr, err)
		check(t, fmt.Sprintf("%v: code", change), gotCode, code)
	}
	want("login_required", "AADSTS50058")
	walk(t, b, htmlclient.Person{User: bot}, request("web"))
	want("", "")
	want("", "", "login_hint", bot)
	want("login_required", "AADSTS50058", "login_hint", boss)
	want("interaction_required", "AADSTS65001", "scope", entra.DevOps+"/vso.graph")
	want("interaction_required", "AADSTS50076", "claims", `{"id_token":{"amr":{"value":"mfa"}}}`)
	id := s.AddPolicy(entra.Policy{User: bot, Block: true})
	want("interaction_required", "AADSTS53003")
	s.RemovePolicy(id)
	walk(t, b, htmlclient.Person{User: boss}, request("web", "prompt", "select_account"))
	want("interaction_required", "AADSTS16000")
	want("", "", "login_hint", boss)
	if err := s.Revoke(bot); err != nil {
		t.Fatal(err)
	}
	want("", "") // one session is left
	logout := authority + "/oauth2/v2.0/logout?post_logout_redirect_uri="
	at, _ := walk(t, b, htmlclient.Person{}, logout+url.QueryEscape(web))
	check(t, "signed out to", at.URL.String(), web)
	want("login_required", "AADSTS50058")
	at, _ = walk(t, b, htmlclient.Person{}, logout+"https://evil.example/")
	check(t, "sent to an address that is not registered", at.Left(), false)
}

func TestASessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := tenant(t)
		b := htmlclient.New(client.Transport)
		steps := func() string {
			t.Helper()
			time.Sleep(time.Second)
			_, steps := walk(t, b, htmlclient.Person{User: bot}, request("web"))
			return steps
		}
		if got := steps(); got != "account sign-in consent" {
			t.Errorf("first: %q", got)
		}
		if got := steps(); got != "" {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(24 * time.Hour)
		if got := steps(); got != "account sign-in" {
			t.Errorf("a day later: %q", got)
		}
		if err := s.Revoke(bot); err != nil {
			t.Fatal(err)
		}
		if got := steps(); got != "account sign-in" {
			t.Errorf("after revocation: %q", got)
		}
	})
}

func TestNobodySignsInWithoutAFormOfThisBrowser(t *testing.T) {
	s, client := tenant(t)
	if err := s.Consent(bot, "web", patScopes...); err != nil {
		t.Fatal(err)
	}
	at, err := htmlclient.New(client.Transport).Open(t.Context(), request("web"))
	if err != nil {
		t.Fatal(err)
	}
	theirs := at.Forms[0].Fields.Get("flow")
	proceed := authority + "/signin"
	for name, tc := range map[string]struct {
		to   string
		form url.Values
		code int
	}{
		"the authorize endpoint, no flow": {
			request("web"), url.Values{"user": {bot}, "action": {"accept"}}, http.StatusMethodNotAllowed,
		},
		"the authorize endpoint, no flow and no user": {
			request("web"), url.Values{"action": {"accept"}}, http.StatusMethodNotAllowed,
		},
		"the authorize endpoint, the request as form": {
			authority + "/oauth2/v2.0/authorize",
			url.Values{"client_id": {"web"}, "user": {bot}, "action": {"accept"}}, http.StatusMethodNotAllowed,
		},
		"the authorize endpoint, another browser's": {
			request("web"),
			url.Values{"flow": {theirs}, "step": {"account"}, "user": {bot}, "action": {"next"}},
			http.StatusMethodNotAllowed,
		},
		"the address of the forms, no flow": {
			proceed, url.Values{"step": {"account"}, "user": {bot}, "action": {"next"}}, http.StatusBadRequest,
		},
		"the address of the forms, no flow, no step": {
			proceed, url.Values{"user": {bot}, "action": {"accept"}}, http.StatusBadRequest,
		},
		"the address of the forms, another browser's": {
			proceed,
			url.Values{"flow": {theirs}, "step": {"account"}, "user": {bot}, "action": {"next"}}, http.StatusBadRequest,
		},
		"the address of the forms, with a request too": {
			proceed + "?" + strings.SplitN(request("web"), "?", 2)[1],
			url.Values{"user": {bot}, "action": {"accept"}}, http.StatusBadRequest,
		},
	} {
		resp, err := client.PostForm(tc.to, tc.form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		check(t, name+": status", resp.StatusCode, tc.code)
		check(t, name+": Location", resp.Header.Get("Location"), "")
		check(t, name+": cookies", len(resp.Cookies()), 0)
	}
}

func TestAPolicyThatBlocksEverybodyLeavesNobodyThrough(t *testing.T) {
	s, client := tenant(t)
	s.AddPolicy(entra.Policy{Block: true})
	at, _ := visit(t, client, htmlclient.Person{User: bot}, request("web"))
	checkPage(t, "blocked", at, http.StatusBadRequest, "AADSTS53003")
}
