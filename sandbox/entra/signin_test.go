package entra_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

const (
	web      = "https://patrol.example/api/signin/callback"
	verifier = "a-verifier-of-at-least-forty-three-characters-123"
)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// request is a sign-in request that is in order; change makes it otherwise.
func request(app string, change ...string) string {
	q := url.Values{
		"client_id":     {app},
		"response_type": {"code"},
		"redirect_uri":  {web},
		"state":         {"st&te"},
		"nonce":         {"n1"},
		"scope": {
			strings.Join(patScopes, " ") + " openid offline_access profile",
		},
		"code_challenge":        {challenge()},
		"code_challenge_method": {"S256"},
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "" {
			q.Del(change[i])
			continue
		}
		q.Set(change[i], change[i+1])
	}
	return authority + "/oauth2/v2.0/authorize?" + q.Encode()
}

func get(t *testing.T, client *http.Client, page string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// signIn is a person in a fresh browser, who ends at the client's address.
func signIn(t *testing.T, client *http.Client, page string) url.Values {
	t.Helper()
	at, _ := walk(t, htmlclient.New(client.Transport), htmlclient.Person{User: bot}, page)
	return back(t, at)
}

func tenant(t *testing.T) (*entra.Server, *http.Client) {
	s, client := serve(t, entra.Config{})
	s.AddUser(entra.User{UPN: bot, ObjectID: "0b0b"})
	s.AddUser(entra.User{UPN: "off@contoso.com", Disabled: true})
	s.AddApp(entra.App{ClientID: "web", Name: "patrol <local>", Web: []string{web}, Secrets: []string{"s3cret"}})
	s.AddApp(entra.App{ClientID: "native", Native: []string{"http://localhost", web}})
	s.AddApp(entra.App{ClientID: "spa", SPA: []string{web}})
	s.AddApp(entra.App{ClientID: "local web", Web: []string{"http://localhost"}, Secrets: []string{"s3cret"}})
	return s, client
}

func TestAuthorizeRefusesOnItsOwnPageWhatItCanNotSendBack(t *testing.T) {
	_, client := tenant(t)
	for name, tc := range map[string]struct {
		page string
		code string
	}{
		"unknown app":                      {request("nobody"), "AADSTS700016"},
		"no redirect URI":                  {request("web", "redirect_uri", ""), "AADSTS900144"},
		"another redirect URI":             {request("web", "redirect_uri", "https://evil.example/"), "AADSTS50011"},
		"redirect URI in capitals":         {request("web", "redirect_uri", strings.ToUpper(web)), "AADSTS50011"},
		"redirect URI with more":           {request("web", "redirect_uri", web+"?x=1"), "AADSTS50011"},
		"localhost that is not registered": {request("web", "redirect_uri", "http://localhost:8080"), "AADSTS50011"},
		"localhost with another path": {
			request("local web", "redirect_uri", "http://localhost:8080/x"), "AADSTS50011",
		},
		"a loopback address": {request("local web", "redirect_uri", "http://127.0.0.1"), "AADSTS50011"},
	} {
		resp, html := get(t, client, tc.page)
		check(t, name+": status", resp.StatusCode, 400)
		checkHas(t, name+": page", html, tc.code)
	}
	for _, app := range []string{"native", "local web"} {
		if resp, _ := get(t, client, request(app, "redirect_uri", "http://localhost:8080")); resp.StatusCode != 200 {
			t.Errorf("localhost with a port, %s: %d", app, resp.StatusCode)
		}
	}
}

func TestAuthorizeSendsBackWhatTheClientDidWrong(t *testing.T) {
	_, client := tenant(t)
	for name, tc := range map[string]struct{ page, err string }{
		"implicit flow":     {request("web", "response_type", "token"), "unsupported_response_type"},
		"plain PKCE":        {request("web", "code_challenge_method", "plain"), "invalid_request"},
		"short challenge":   {request("web", "code_challenge", "abc"), "invalid_request"},
		"SPA without PKCE":  {request("spa", "code_challenge", ""), "invalid_request"},
		"unknown mode":      {request("web", "response_mode", "web_message"), "invalid_request"},
		"unknown scope":     {request("web", "scope", entra.DevOps+"/vso.nothing"), "invalid_scope"},
		"silent":            {request("web", "prompt", "none"), "login_required"},
		"unknown resource":  {request("web", "scope", "https://example.invalid/.default"), "invalid_resource"},
		"unknown prompt":    {request("web", "prompt", "please"), "invalid_request"},
		"broken claims":     {request("web", "claims", "{"), "invalid_request"},
		"claims null":       {request("web", "claims", "null"), "invalid_request"},
		"no scope whatever": {request("web", "scope", ""), "invalid_request"},
	} {
		resp, _ := get(t, client, tc.page)
		to, err := resp.Location()
		if err != nil || !strings.HasPrefix(to.String(), web+"?") {
			t.Errorf("%s: %d to %v (%v)", name, resp.StatusCode, to, err)
			continue
		}
		checkQuery(t, name, to.Query(), "error", tc.err, "state", "st&te")
	}
}

func TestThePageShowsWhoAsksForWhat(t *testing.T) {
	_, client := tenant(t)
	_, html := get(t, client, request("web", "login_hint", strings.ToUpper(bot)))
	for _, want := range []string{"patrol &lt;local&gt;", patsManage, "<option selected>" + bot} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q: %s", want, html)
		}
	}
}

func TestSignInByResponseMode(t *testing.T) {
	_, client := tenant(t)
	if q := signIn(t, client, request("web")); q.Get("code") == "" || q.Get("state") != "st&te" {
		t.Errorf("query: %v", q)
	}
	at, _ := walk(
		t,
		htmlclient.New(client.Transport),
		htmlclient.Person{User: bot},
		request("web", "response_mode", "fragment"),
	)
	if q := fragment(t, at); q.Get("code") == "" || q.Get("state") != "st&te" {
		t.Errorf("fragment: %v", q)
	}
	at, _ = walk(
		t,
		htmlclient.New(client.Transport),
		htmlclient.Person{User: bot},
		request("web", "response_mode", "form_post"),
	)
	for _, want := range []string{`action="` + web + `"`, `name="code" value="1.AX`, `name="state" value="st&amp;te"`} {
		check(t, "sent to another host", at.Left(), false)
		checkHas(t, "page", at.HTML, want)
	}
	at, _ = walk(t, htmlclient.New(client.Transport), htmlclient.Person{User: bot, CancelAt: "sign-in"}, request("web"))
	if q := back(t, at); q.Get("error") != "access_denied" || q.Get("code") != "" || q.Get("state") != "st&te" {
		t.Errorf("denied: %v", q)
	}
	at, _ = walk(t, htmlclient.New(client.Transport), htmlclient.Person{User: "off@contoso.com"}, request("web"))
	check(t, "sent to another host", at.Left(), false)
	checkHas(t, "page", at.HTML, "AADSTS50057")
}

// fragment is what a client was sent behind the #, and nowhere else.
func fragment(t *testing.T, at *htmlclient.Page) url.Values {
	t.Helper()
	if !at.Left() || at.URL.RawQuery != "" || !strings.HasPrefix(at.URL.String(), web+"#") {
		t.Fatalf("the browser is at %s (%d): %s", at.URL, at.Status, at.HTML)
	}
	q, err := url.ParseQuery(at.URL.EscapedFragment())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestCodeRedemption(t *testing.T) {
	base := url.Values{
		"grant_type":    {"authorization_code"},
		"redirect_uri":  {web},
		"code_verifier": {verifier},
		"client_info":   {"1"},
	}
	for name, tc := range map[string]struct {
		app    string
		change func(url.Values)
		code   int
	}{
		"right, web":                 {"web", with("client_secret", "s3cret"), 0},
		"right, native":              {"native", with(), 0},
		"web without a credential":   {"web", with(), 7000218},
		"web with a wrong secret":    {"web", with("client_secret", "x"), 7000215},
		"native with a credential":   {"native", with("client_secret", "s3cret"), 700025},
		"wrong verifier":             {"native", with("code_verifier", verifier+"x"), 501481},
		"no verifier":                {"native", with("code_verifier", ""), 501481},
		"another redirect URI":       {"native", with("redirect_uri", "http://localhost"), 700005},
		"another client":             {"native", with("client_id", "web", "client_secret", "s3cret"), 700005},
		"no code":                    {"native", with("code", ""), 900144},
		"unknown code":               {"native", with("code", "1.nonsense"), 70000},
		"SPA without an origin":      {"spa", with(), 9002327},
		"too late":                   {"native", func(url.Values) { time.Sleep(10 * time.Minute) }, 70008},
		"scope beyond the consented": {"native", with("scope", entra.DevOps+"/vso.tokens"), 65001},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, client := tenant(t)
				form := url.Values{"client_id": {tc.app}, "code": {signIn(t, client, request(tc.app)).Get("code")}}
				for k, v := range base {
					form[k] = v
				}
				tc.change(form)
				_, body := answerOf(t, client, form)
				if codeOf(body) != tc.code {
					t.Fatalf("%v", body)
				}
				if tc.code != 0 {
					return
				}
				c, err := s.VerifyAccessToken(body["access_token"].(string))
				if err != nil {
					t.Fatal(err)
				}
				check(t, "user", c.UPN, bot)
				check(t, "number of scopes", len(c.Scopes), 2)
				if body["refresh_token"] == nil || body["client_info"] == nil {
					t.Errorf("%v", body)
				}
				if id := payload(t, body["id_token"].(string)); !strings.Contains(id, `"nonce":"n1"`) ||
					!strings.Contains(id, `"preferred_username":"`+bot) {
					t.Errorf("id token %s", id)
				}
				if _, again := answerOf(t, client, form); codeOf(again) != 54005 {
					t.Errorf("replay: %v", again)
				}
			})
		})
	}
}

func with(pairs ...string) func(url.Values) {
	return func(f url.Values) {
		for i := 0; i < len(pairs); i += 2 {
			f.Set(pairs[i], pairs[i+1])
		}
	}
}

func payload(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestASinglePageAppsRefreshTokenLives24HoursWhateverItsUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := tenant(t)
		at, _ := walk(
			t,
			htmlclient.New(client.Transport),
			htmlclient.Person{User: bot},
			request("spa", "response_mode", "fragment"),
		)
		origin := func(form url.Values) map[string]any {
			t.Helper()
			req, err := http.NewRequestWithContext(
				t.Context(),
				"POST",
				authority+"/oauth2/v2.0/token",
				strings.NewReader(form.Encode()),
			)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", "https://patrol.example")
			w := httptest.NewRecorder()
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			_, _ = io.Copy(w, resp.Body)
			return decodeBody(t, w.Body.Bytes())
		}
		body := origin(
			url.Values{
				"client_id":     {"spa"},
				"grant_type":    {"authorization_code"},
				"code":          {fragment(t, at).Get("code")},
				"redirect_uri":  {web},
				"code_verifier": {verifier},
			},
		)
		for range 3 {
			if codeOf(body) != 0 {
				t.Fatal(body)
			}
			time.Sleep(8 * time.Hour)
			last := body["refresh_token"].(string)
			body = origin(refreshForm("spa", last))
			if codeOf(body) == 700084 {
				break
			}
		}
		if codeOf(body) != 700084 {
			t.Errorf("after 24 hours: %v", body)
		}
	})
}

func TestMSALsInteractiveSignInGetsAFormPost(t *testing.T) {
	s := entra.New(entra.Config{})
	srv := httptest.NewTLSServer(s)
	defer srv.Close()
	s.AddUser(entra.User{UPN: bot})
	app := s.AddApp(entra.App{Native: []string{"http://localhost"}})
	c, err := public.New(
		app,
		public.WithAuthority(srv.URL+"/"+s.Tenant()),
		public.WithHTTPClient(srv.Client()),
		public.WithInstanceDiscovery(false),
	)
	if err != nil {
		t.Fatal(err)
	}
	open := func(page string) error {
		b := htmlclient.New(srv.Client().Transport)
		at, err := htmlclient.Person{User: bot}.Walk(t.Context(), b, page)
		if err != nil {
			return err
		}
		if len(at.Forms) != 1 {
			return fmt.Errorf("no form in %s", at.HTML)
		}
		_, err = b.Submit(t.Context(), at, at.Forms[0])
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := c.AcquireTokenInteractive(ctx, patScopes, public.WithOpenURL(open))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := s.VerifyAccessToken(r.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "user", claims.UPN, bot)
}

func TestDeviceCodeSignIn(t *testing.T) {
	for name, tc := range map[string]struct {
		act  func(s *entra.Server, code string) error
		want string // in the error; empty: success
	}{
		"approved": {
			func(s *entra.Server, code string) error { return s.ApproveDevice(strings.ToLower(code), bot) }, "",
		},
		"declined": {
			func(s *entra.Server, code string) error { return s.DeclineDevice(code) }, "authorization_declined",
		},
		"ignored": {func(*entra.Server, string) error { return nil }, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, client := tenant(t)
				app := s.AddApp(entra.App{AllowPublicClient: true})
				c := publicClient(t, client, app, &memory{})
				d, err := c.AcquireTokenByDeviceCode(t.Context(), patScopes)
				if err != nil {
					t.Fatal(err)
				}
				check(t, "no user code", d.Result.UserCode == "", false)
				checkHas(t, "message", d.Result.Message, d.Result.UserCode)
				go func() {
					time.Sleep(20 * time.Second)
					if err := tc.act(s, d.Result.UserCode); err != nil {
						t.Error(err)
					}
				}()
				r, err := d.AuthenticationResult(t.Context())
				if tc.want != "" {
					if err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("err = %v, want %s", err, tc.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				check(t, "user", r.Account.PreferredUsername, bot)
				if err := s.ApproveDevice(d.Result.UserCode, bot); !errors.Is(err, entra.ErrNoDeviceCode) {
					t.Errorf("a code was approved twice: %v", err)
				}
				again := []public.AcquireSilentOption{public.WithSilentAccount(r.Account), public.WithClaims("{}")}
				if _, err := c.AcquireTokenSilent(t.Context(), patScopes, again...); err != nil {
					t.Errorf("the refresh token does not work: %v", err)
				}
			})
		})
	}
}

func TestDeviceCodeRules(t *testing.T) {
	s, client := tenant(t)
	s.AddApp(entra.App{ClientID: "device", AllowPublicClient: true})
	post := func(endpoint string, form url.Values) map[string]any {
		t.Helper()
		resp, err := client.PostForm(authority+"/oauth2/v2.0/"+endpoint, form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return decodeBody(t, raw)
	}
	scope := strings.Join(patScopes, " ")
	if body := post("devicecode", url.Values{"client_id": {"nobody"}, "scope": {scope}}); codeOf(body) != 700016 {
		t.Errorf("unknown app: %v", body)
	}
	// An app that does not allow public client flows gets a code, and is refused at
	// the end; a redirect URI of the native platform does not help.
	s.AddApp(entra.App{ClientID: "interactive", Native: []string{"http://localhost"}})
	for _, app := range []string{"web", "interactive"} {
		body := post("devicecode", url.Values{"client_id": {app}, "scope": {scope}})
		form := url.Values{
			"client_id": {app}, "grant_type": {"device_code"}, "device_code": {body["device_code"].(string)},
		}
		check(t, app, codeOf(post("token", form)), 7000218)
	}
	body := post("devicecode", url.Values{"client_id": {"device"}, "scope": {scope}})
	for _, grant := range []string{"device_code", "urn:ietf:params:oauth:grant-type:device_code"} {
		form := url.Values{
			"client_id":   {"device"},
			"grant_type":  {grant},
			"device_code": {body["device_code"].(string)},
		}
		if got := post("token", form); got["error"] != "authorization_pending" {
			t.Errorf("%s: %v", grant, got)
		}
	}
	unknown := url.Values{"client_id": {"device"}, "grant_type": {"device_code"}, "device_code": {"nonsense"}}
	check[any](t, "an unknown device code", post("token", unknown)["error"], "bad_verification_code")
}

func TestClientCredentialsGiveAppTokens(t *testing.T) {
	s, client := tenant(t)
	form := url.Values{
		"client_id":     {"web"},
		"grant_type":    {"client_credentials"},
		"client_secret": {"s3cret"},
		"scope":         {"https://servicebus.azure.net//.default"},
	}
	_, body := answerOf(t, client, form)
	c, err := s.VerifyAccessToken(body["access_token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "type of identity", c.IDType, "app")
	check(t, "user", c.UPN, "")
	check(t, "number of scopes", len(c.Scopes), 0)
	check(t, "audience", c.Audience, "https://servicebus.azure.net/")
	check(t, "app", c.AppID, "web")
	if body["refresh_token"] != nil {
		t.Error("an app got a refresh token")
	}
	for name, tc := range map[string]struct {
		change func(url.Values)
		code   int
	}{
		"no credential":    {with("client_secret", ""), 7000218},
		"wrong secret":     {with("client_secret", "x"), 7000215},
		"a single scope":   {with("scope", pats), 70011},
		"unknown resource": {with("scope", "https://example.invalid/.default"), 500011},
	} {
		f := url.Values{}
		for k, v := range form {
			f[k] = v
		}
		tc.change(f)
		if _, body := answerOf(t, client, f); codeOf(body) != tc.code {
			t.Errorf("%s: %v", name, body)
		}
	}
}

func FuzzTokens(f *testing.F) {
	s := entra.New(entra.Config{})
	s.AddUser(entra.User{UPN: bot})
	s.AddApp(entra.App{ClientID: "a"})
	good, err := s.UserToken(bot, "a", patScopes...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("e30.e30.")
	f.Add("..")
	f.Add(strings.Replace(good, "HS256", "none", 1))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := s.VerifyAccessToken(token); err == nil && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}
