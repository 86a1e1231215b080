package web_test

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// cookiesOf are what an answer gives the browser to keep, by name.
func cookiesOf(a *answer) map[string]*http.Cookie {
	out := map[string]*http.Cookie{}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		out[c.Name] = c
	}
	return out
}

func TestNobodySeesThePageWithoutASession(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		for _, address := range []string{"", "?pat=" + name, "?view=plan", "?code=" + masterKey,
			"?identity=build-bot"} {
			a := r.ask("GET", dashboardAddress+address, "", "X-Functions-Key: ").want(303, "")
			to, err := url.Parse(a.header.Get("Location"))
			if err != nil || !strings.Contains(to.Path, "/oauth2/v2.0/authorize") {
				t.Errorf("%s leads to %s, want Entra", address, to)
			}
			check(t, "what is asked for", to.Query().Get("scope"), "openid profile")
			check(t, "where it comes back to", to.Query().Get("redirect_uri"),
				"https://patrol.localhost/api/signin/callback")
			check(t, "the kind of proof", to.Query().Get("code_challenge_method"), "S256")
			if strings.Contains(to.String(), masterKey) {
				t.Error("a key of the address goes to Entra")
			}
			for _, c := range cookiesOf(a) {
				r.wellKept(c, 600)
			}
			if strings.Contains(string(a.body), "<") {
				t.Errorf("a page comes along: %s", a.body)
			}
		}
		for _, cookie := range []string{"", "Cookie: __Host-patrol-session=x",
			"Cookie: __Host-patrol-session=AAAAAAAA.AAAA"} {
			headers := []string{"X-Functions-Key: ", form, "Sec-Fetch-Site: same-origin"}
			if cookie != "" {
				headers = append(headers, cookie)
			}
			a := r.ask("POST", dashboardAddress, "act=check", headers...).want(401, "")
			check(t, "where a form without a session leads to", a.header.Get("Location"), "")
			check(t, "what asks for a password", a.header.Get("WWW-Authenticate"), "")
		}
	})
}

func (r *fixture) wellKept(c *http.Cookie, life int) {
	r.t.Helper()
	check(r.t, c.Name+" has the prefix", strings.HasPrefix(c.Name, "__Host-"), true)
	check(r.t, c.Name+" is for scripts", !c.HttpOnly, false)
	check(r.t, c.Name+" goes over plain HTTP", !c.Secure, false)
	check(r.t, c.Name+" goes with other sites' forms", c.SameSite != http.SameSiteLaxMode, false)
	check(r.t, c.Name+"'s path", c.Path, "/")
	check(r.t, c.Name+"'s domain", c.Domain, "")
	check(r.t, c.Name+"'s life in seconds", c.MaxAge, life)
}

func TestAfterTheSignInThePersonIsWhereTheyWantedToBe(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		if err := r.Cloud.AddPerson("ann@contoso.com", cloud.Reader); err != nil {
			t.Fatal(err)
		}
		for asked, want := range map[string]string{
			"":                                   dashboardAddress,
			"?pat=" + name:                       dashboardAddress + "?pat=" + name,
			"?view=plan&code=" + masterKey:       dashboardAddress + "?view=plan",
			"?state=due&search=a+b&kind=":        dashboardAddress + "?search=a+b&state=due",
			"?identity=build-bot&signin=choose":  dashboardAddress + "?identity=build-bot",
			"?pat=//evil.example/&x=y":           dashboardAddress + "?pat=%2F%2Fevil.example%2F",
			"?back=https://evil.example&view=no": dashboardAddress + "?view=no",
		} {
			path, cookie := r.away(dashboardAddress+asked, "ann@contoso.com")
			in := r.ask("GET", path, "", "X-Functions-Key: ", cookie).want(303, "")
			check(t, "after "+asked, in.header.Get("Location"), want)
			r.wellKept(cookiesOf(in)["__Host-patrol-session"], 8*60*60)
		}
		// A bookmark of before has a key: it leaves the address.
		who := r.known("ann@contoso.com")
		a := r.ask("GET", dashboardAddress+"?code="+masterKey+"&pat="+name, "", "X-Functions-Key: ", who.cookie)
		a.want(303, "")
		check(t, "an address with a key", a.header.Get("Location"), dashboardAddress+"?pat="+name)
	})
}

// known signs in somebody who is there.
func (r *fixture) known(user string) *visitor {
	if v := r.people[user]; v != nil {
		return v
	}
	return r.enter(user)
}

func TestEachRoleSeesAndMayDoWhatItIsFor(t *testing.T) {
	run(t, simulation.Config{Manifest: administered}, func(t *testing.T, r *fixture) {
		r.sweep()
		r.visitorOf("reader@contoso.com", cloud.Reader)
		r.visitorOf("operator@contoso.com", cloud.Operator)
		r.visitorOf("admin@contoso.com", cloud.Administrator)
		r.visitorOf("nobody@contoso.com", "")
		unmanaged := r.byHand("by hand", "vso.code", 30, false)
		id := r.latest(name).Tags["CredentialId"]
		operators := map[string][]string{
			"rotate":  {"act", "rotate", "name", name},
			"extend":  {"act", "extend", "name", name, "validTo", "2000-02-20"},
			"overlap": {"act", "overlap", "name", name, "until", "2000-02-20"},
			"restore": {"act", "restore", "name", name},
			"revoke": {"act", "revoke", "authorizationId", unmanaged, "organization", "contoso", "identity",
				"build-bot"},
			"revoke in use":  {"act", "revoke", "authorizationId", id, "force", "true"},
			"check":          {"act", "check"},
			"accept changes": {"act", "check", "acceptMassChange", "x"},
		}
		administrators := map[string][]string{
			"revoke users": {"act", "revoke-users", "identity", "root-bot", "organization", "contoso", "users",
				"ada@contoso.com"},
			"sign out everywhere": {"act", "sign-out-everywhere"},
		}
		before := r.untouched()
		refused := func(who, missing string, acts map[string][]string) {
			t.Helper()
			for act, fields := range acts {
				p := r.dashboard(fields, "Person: "+who)
				check(t, act+" of "+who, p.code, 403)
				p.says("Your role is not enough for this", "needs the role "+missing, "Users and groups")
				// Nor at the second step, with a confirmation of somebody who may.
				if act == "check" || act == "sign out everywhere" {
					good := r.dashboard(fields, "Person: admin@contoso.com").confirmation()
					p := r.dashboard(with(good, "form", r.people[who].form), "Person: "+who)
					check(t, act+" of "+who+", confirmed", p.code, 403)
				}
			}
		}
		refused("reader@contoso.com", cloud.Operator, operators)
		refused("reader@contoso.com", cloud.Administrator, administrators)
		refused("operator@contoso.com", cloud.Administrator, administrators)
		r.Settle()
		check(t, "what was done", r.untouched(), before)

		const reader = "Person: reader@contoso.com"
		for _, view := range [][]string{nil, {"pat", name}, {"view", "plan"}, {"kind", "unmanaged"},
			{"identity", "build-bot"}} {
			p := r.dashboard(view, reader)
			check(t, "a reader's view", p.code, 200)
			p.says("reader@contoso.com · Reader")
			if acts := strings.Count(string(p.body), `name="act"`); acts != 1 {
				t.Errorf("%v has %d buttons that act for a reader, want the sign-out", view, acts)
			}
		}
		for act, fields := range operators {
			if p := r.dashboard(fields, "Person: operator@contoso.com"); p.code == 403 {
				t.Errorf("an operator may not %s", act)
			}
		}
		none := r.sent(nil, "Person: nobody@contoso.com")
		check(t, "somebody without a role", none.code, 403)
		none.says("nobody@contoso.com", cloud.Reader, cloud.Operator, cloud.Administrator, "Users and groups")
		if strings.Contains(none.text, name) {
			t.Error("somebody without a role sees a PAT's name")
		}
	})
}

func TestAnAdministratorsActNeedsASignInOfTheLastHour(t *testing.T) {
	run(t, simulation.Config{Manifest: administered}, func(t *testing.T, r *fixture) {
		form := []string{"act", "sign-out-everywhere"}
		good := r.dashboard(form).says("Sign everybody out?").confirmation()
		time.Sleep(time.Hour)
		for _, fields := range [][]string{form, good} {
			p := r.dashboard(fields)
			check(t, "an hour later", p.code, 403)
			p.says("Sign in again for this", "sign-in of the last hour")
			if !strings.Contains(string(p.body), `href="/api/dashboard?signin=again`) {
				t.Error("the page does not lead to a new sign-in")
			}
		}
		r.dashboard([]string{"act", "check"}).says("Check now?") // an operator's act
		// Entra asks for a proof, whoever is signed in there.
		a := r.ask("GET", dashboardAddress+"?signin=again", "", r.people["ada@contoso.com"].cookie).want(303, "")
		to, _ := url.Parse(a.header.Get("Location"))
		check(t, "the prompt", to.Query().Get("prompt"), "login")
		r.enter("ada@contoso.com")
		r.dashboard(form).says("Sign everybody out?")
	})
}

func TestASessionEndsAfterEightHoursWhateverIsDoneWithIt(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.dashboard(nil)
		for range 15 {
			time.Sleep(30 * time.Minute)
			check(t, "within eight hours", r.sent(nil).code, 200)
		}
		time.Sleep(31 * time.Minute)
		check(t, "a view after eight hours", r.sent(nil).code, 303)
		check(t, "an act after eight hours", r.sent([]string{"act", "check"}).code, 401)
	})
}

func TestSignOutClearsThisBrowsersCookie(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		p := r.sent([]string{"act", "sign-out"}).says("You have signed out")
		c := cookiesOf(p.answer)["__Host-patrol-session"]
		if c == nil || c.MaxAge >= 0 || c.Value != "" {
			t.Errorf("the cookie is %v, want one that ends", c)
		}
		// Another site cannot do it.
		p = r.sent([]string{"act", "sign-out", "form", "x"})
		check(t, "a sign-out with another token", p.code, 403)
		check(t, "cookies of a refused sign-out", len(cookiesOf(p.answer)), 0)
	})
}

// A role that was taken away lasts to the session's end, or until everybody is signed out:
// on every instance within a minute.
func TestSignOutEverywhereReachesEveryInstanceWithinAMinute(t *testing.T) {
	run(t, simulation.Config{Hosts: 2}, func(t *testing.T, r *fixture) {
		bob := r.visitorOf("bob@contoso.com", cloud.Operator)
		on := func(host *functionshost.Host) int {
			t.Helper()
			req := httptest.NewRequest("GET", "http://patrol.localhost"+dashboardAddress, nil)
			req.Header.Set("Cookie", strings.TrimPrefix(bob.cookie, "Cookie: "))
			rec := httptest.NewRecorder()
			host.ServeHTTP(rec, req)
			return rec.Code
		}
		check(t, "the first instance", on(r.Hosts[0]), 200)
		check(t, "the second instance", on(r.Hosts[1]), 200)
		if err := r.Cloud.TakeRole("bob@contoso.com", cloud.Operator); err != nil {
			t.Fatal(err)
		}
		check(t, "without the role, on a session of before", on(r.Hosts[1]), 200)

		done := r.dashboard(r.dashboard([]string{"act", "sign-out-everywhere"}).says("Every session of this page ends").
			confirmation())
		done.says("Everybody has been signed out")
		check(t, "the first instance, at once", on(r.Hosts[0]), 303)
		check(t, "who has done it", r.sent(nil).code, 303)
		time.Sleep(time.Minute)
		check(t, "the second instance, a minute later", on(r.Hosts[1]), 303)

		bob = r.enter("bob@contoso.com")
		check(t, "after the next sign-in", on(r.Hosts[1]), 403)
		if !strings.Contains(r.latest("patrol-web-keys").Value, "sessions-not-before") {
			t.Error("the secret does not say since when sessions count")
		}
		if !strings.Contains(r.Output(), `"sign-out-everywhere"`) {
			t.Error("there is no audit line")
		}
	})
}

func TestAFormCountsOnlyFromItsOwnPage(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		fields := []string{"act", "check"}
		foreign := r.person("bob@contoso.com").form
		for what, tt := range map[string]struct {
			code    int
			form    string
			headers []string
		}{
			"the page's own":             {200, "", nil},
			"another site":               {403, "", []string{"Sec-Fetch-Site: cross-site"}},
			"a neighbour":                {403, "", []string{"Sec-Fetch-Site: same-site"}},
			"an address that was typed":  {403, "", []string{"Sec-Fetch-Site: none"}},
			"no word of where from":      {403, "", []string{"Sec-Fetch-Site: "}},
			"an old browser, right":      {200, "", []string{"Sec-Fetch-Site: ", "Origin: https://patrol.localhost"}},
			"an old browser, wrong":      {403, "", []string{"Sec-Fetch-Site: ", "Origin: https://evil.example"}},
			"an old browser, no scheme":  {403, "", []string{"Sec-Fetch-Site: ", "Origin: http://patrol.localhost"}},
			"an old browser, null":       {403, "", []string{"Sec-Fetch-Site: ", "Origin: null"}},
			"another's token":            {403, foreign, nil},
			"a made-up token":            {403, strings.Repeat("A", 26), nil},
			"a token and another's site": {403, foreign, []string{"Sec-Fetch-Site: cross-site"}},
		} {
			form := fields
			if tt.form != "" {
				form = with(fields, "form", tt.form)
			}
			check(t, what, r.sent(form, tt.headers...).code, tt.code)
		}
		check(t, "no token", r.sent(with(fields, "form", "")).code, 403)
	})
}

// The callback knows from what is sealed whether the page or an identity was meant.
func TestTheCallbackTakesNeitherSignInForTheOther(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		if err := r.Cloud.AddPerson("ann@contoso.com", cloud.Administrator); err != nil {
			t.Fatal(err)
		}
		before := r.latest("patrol-identity-build-bot").ID
		refused := func(what, path string, cookies ...string) {
			t.Helper()
			a := r.ask("GET", path, "", "X-Functions-Key: ", "Cookie: "+strings.Join(cookies, "; "))
			check(t, what, a.code, 400)
			if cookiesOf(a)["__Host-patrol-session"] != nil {
				t.Errorf("%s: there is a session", what)
			}
			check(t, what+": the identity's version", r.latest("patrol-identity-build-bot").ID, before)
		}
		value := func(cookie string) (name, sealed string) {
			name, sealed, _ = strings.Cut(strings.TrimPrefix(cookie, "Cookie: "), "=")
			return name, sealed
		}
		page, pageCookie := r.away(dashboardAddress, "ann@contoso.com")
		identity, identityCookie := r.away(signIn, "build-bot@contoso.com")
		pageName, pageSealed := value(pageCookie)
		identityName, identitySealed := value(identityCookie)
		refused("a page's end with an identity's flow", page, identityCookie[len("Cookie: "):])
		refused("a page's flow in the identity's cookie", page, identityName+"="+pageSealed)
		refused("an identity's flow in the page's cookie", page, pageName+"="+identitySealed)
		stateOf := func(path string) string {
			u, _ := url.Parse(path)
			return u.Query().Get("state")
		}
		refused("an identity's end with a page's flow", identity,
			"__Host-patrol-visit-"+stateOf(identity)[:8]+"="+pageSealed)
		refused("no cookie at all", page, "x=y")
		time.Sleep(11 * time.Minute)
		refused("too late", page, pageCookie[len("Cookie: "):])
	})
}

func TestTwoTabsSignInSideBySide(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		if err := r.Cloud.AddPerson("ann@contoso.com", cloud.Reader); err != nil {
			t.Fatal(err)
		}
		one, first := r.away(dashboardAddress+"?view=plan", "ann@contoso.com")
		two, second := r.away(dashboardAddress, "ann@contoso.com")
		both := first + "; " + strings.TrimPrefix(second, "Cookie: ")
		check(t, "the first tab", r.ask("GET", one, "", both).want(303, "").header.Get("Location"),
			dashboardAddress+"?view=plan")
		check(t, "the second tab", r.ask("GET", two, "", both).want(303, "").header.Get("Location"), dashboardAddress)
		// A code serves once.
		check(t, "the first tab again", r.ask("GET", one, "", both).code, 403)

		// Many beginnings do not fill the browser's headers.
		jar := map[string]string{}
		for range 50 {
			time.Sleep(2 * time.Second)
			var held []string
			for name, value := range jar {
				held = append(held, name+"="+value)
			}
			a := r.ask("GET", dashboardAddress, "", "Cookie: "+strings.Join(held, "; ")).want(303, "")
			for name, c := range cookiesOf(a) {
				if c.MaxAge < 0 {
					delete(jar, name)
				} else {
					jar[name] = c.Value
				}
			}
		}
		if len(jar) > 4 {
			t.Errorf("the browser holds %d flows", len(jar))
		}
	})
}

func TestSignInsToThePageAreBoundedAndSessionsAreNot(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.dashboard(nil)
		refused := 0
		for range 100 {
			a := r.ask("GET", dashboardAddress, "", "X-Functions-Key: ")
			if a.code == 429 {
				refused++
				check(t, "there is a Retry-After", a.header.Get("Retry-After") != "", true)
			}
		}
		if refused < 30 {
			t.Errorf("%d of 100 sign-ins at once were refused, want most after sixty", refused)
		}
		check(t, "who is signed in, meanwhile", r.sent(nil).code, 200)
		time.Sleep(2 * time.Second)
		check(t, "a moment later", r.ask("GET", dashboardAddress, "").code, 303)
	})
}

func TestAForgedSessionCostsNoReadsOfTheVault(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.dashboard(nil)
		time.Sleep(2 * time.Minute)
		r.inject(faults.Fault{Service: keyvault.Service, Operation: keyvault.GetSecret, Mode: faults.Status,
			Status: 403, Times: -1})
		before := r.Cloud.Injector.Count(keyvault.Service, keyvault.GetSecret)
		for range 1000 {
			a := r.ask("GET", dashboardAddress, "", "X-Functions-Key: ",
				"Cookie: __Host-patrol-session=AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
			check(t, "a forged session while the vault fails", a.code, 502)
		}
		if n := r.Cloud.Injector.Count(keyvault.Service, keyvault.GetSecret) - before; n > 2 {
			t.Errorf("1,000 forged cookies are %d reads of a vault that fails", n)
		}
	})
}

// What was a view of a form has an address now, and a page that answers a form names it.
func TestEveryViewHasAnAddress(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.sweep()
		for _, tt := range []struct {
			view []string
			want string
		}{
			{[]string{"pat", name}, "Versions of the secret"}, {[]string{"view", "plan"}, "Nothing has been changed"},
			{[]string{"state", "current"}, "Found"}, {[]string{"identity", "build-bot"}, "Found"},
			{[]string{"search", "jenkins", "kind", ""}, "1–1 of 1"},
		} {
			p := r.dashboard(tt.view)
			check(t, "a view", p.code, 200)
			p.says(tt.want)
		}
		for act, want := range map[string]string{"rotate": dashboardAddress + "?pat=" + name,
			"check": dashboardAddress} {
			asked := r.dashboard([]string{"act", act, "name", name})
			for _, p := range []*page{asked, r.dashboard(asked.confirmation())} {
				if !strings.Contains(string(p.body), `<body data-address="`+want+`">`) {
					t.Errorf("a page that answers %s does not name the address %s", act, want)
				}
			}
		}
	})
}

// A changed object id is confirmed by an operator's session on the page, and by nobody else.
func TestAnOperatorConfirmsAChangedUserOnThePage(t *testing.T) {
	run(t, simulation.Config{}, func(t *testing.T, r *fixture) {
		r.visitorOf("reader@contoso.com", cloud.Reader)
		r.visitorOf("operator@contoso.com", cloud.Operator)
		r.Cloud.AddUser(cloud.User) // another account of the same name
		path, cookie := r.away(signIn, cloud.User)
		refused := r.ask("GET", path, "", cookie).want(403, "")
		link := regexp.MustCompile(`href="(/api/dashboard\?confirm=[^"]+)"`).FindSubmatch(refused.body)
		if link == nil {
			t.Fatalf("the page does not lead an operator to the dashboard: %s", refused.body)
		}
		u, err := url.Parse(html.UnescapeString(string(link[1])))
		if err != nil {
			t.Fatal(err)
		}
		view := []string{"identity", u.Query().Get("identity"), "confirm", u.Query().Get("confirm")}
		if p := r.dashboard(view, "Person: reader@contoso.com"); strings.Contains(p.text, "It was made anew") {
			t.Error("a reader may confirm")
		}
		p := r.dashboard(view, "Person: operator@contoso.com").says("Is it really another account?", "It was made anew")
		begin := regexp.MustCompile(`href="(/api/identities/build-bot/signin\?confirm=[^"]+)"`).FindSubmatch(p.body)
		if begin == nil {
			t.Fatal("the page does not begin the sign-in")
		}
		to := string(begin[1])
		for who, headers := range map[string][]string{"nobody": nil, "a key": {"X-Functions-Key: " + masterKey},
			"a reader":              {r.people["reader@contoso.com"].cookie},
			"an operator, led here": {r.people["operator@contoso.com"].cookie, "Sec-Fetch-Site: cross-site"}} {
			check(t, "confirmed by "+who, r.ask("GET", to, "", headers...).code, 403)
		}
		operator := []string{r.people["operator@contoso.com"].cookie, "Sec-Fetch-Site: same-origin"}
		begun := r.ask("GET", to, "", operator...).want(303, "")
		path, cookie = r.follow(begun, cloud.User)
		r.ask("GET", path, "", cookie).want(200, "")
		r.dashboard([]string{"identity", "build-bot"}).says("Signed in")
	})
}

// The organization's audit log has addresses of people's machines.
func TestOnlyAnAdministratorSeesTheOrganizationsAuditLog(t *testing.T) {
	run(t, simulation.Config{Manifest: administered}, func(t *testing.T, r *fixture) {
		r.Cloud.AddUser("root@contoso.com")
		r.Cloud.DevOps.SetAdministrator("root@contoso.com", true)
		path, cookie := r.away("/api/identities/root-bot/signin", "root@contoso.com")
		r.ask("GET", path, "", cookie).want(200, "")
		r.sweep()
		r.visitorOf("operator@contoso.com", cloud.Operator)
		reads := func() int { return r.Cloud.Injector.Count(devops.ServiceName, devops.QueryAudit) }
		before := reads()
		p := r.dashboard([]string{"pat", name}, "Person: operator@contoso.com")
		check(t, "an operator sees the log", strings.Contains(p.text, "audit log"), false)
		check(t, "reads of the log for an operator", reads()-before, 0)
		for range 5 {
			r.dashboard([]string{"pat", name}).says("The organization's audit log")
		}
		if n := reads() - before; n == 0 || n > 2 {
			t.Errorf("the log was read %d times for five views, want once", n)
		}
	})
}
