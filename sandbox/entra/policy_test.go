package entra_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/entra/htmlclient"
)

// The whole way of a claims challenge, with MSAL: a policy comes into force, the
// refresh token lacks what it wants, the next sign-in brings it.
func TestAClaimsChallengeIsSatisfiedByTheNextSignIn(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	m := imported(app, rt)
	if _, err := silent(t.Context(), publicClient(t, client, app, m)); err != nil {
		t.Fatal(err)
	}
	id := s.AddPolicy(entra.Policy{User: strings.ToUpper(bot), MFA: true})
	_, body := answerOf(t, client, refreshForm(app, rt))
	claims, _ := body["claims"].(string)
	check(t, "code", codeOf(body), 50076)
	check[any](t, "error", body["error"], "invalid_grant")
	check[any](t, "suberror", body["suberror"], "basic_action")
	checkHas(t, "claims", claims, id)
	check(t, "claims are JSON", json.Valid([]byte(claims)), true)
	c := publicClient(t, client, app, m)
	_, err := silent(t.Context(), c, public.WithClaims("{}"))
	if got := msalCode(t, err); got != 50076 {
		t.Errorf("MSAL reports %d", got)
	}
	page, err := c.AuthCodeURL(
		t.Context(),
		app,
		"http://localhost",
		append([]string{"openid", "offline_access"}, patScopes...),
		public.WithClaims(claims),
	)
	if err != nil {
		t.Fatal(err)
	}
	at, steps := visit(t, client, htmlclient.Person{User: bot}, page)
	if steps != "account sign-in mfa" {
		t.Errorf("pages %q", steps)
	}
	r, err := c.AcquireTokenByAuthCode(t.Context(), at.URL.Query().Get("code"), "http://localhost", patScopes)
	if err != nil {
		t.Fatal(err)
	}
	if p := payload(t, r.AccessToken); !strings.Contains(p, `"amr":["pwd","mfa"]`) {
		t.Errorf("%s", p)
	}
	account := public.WithSilentAccount(r.Account)
	if _, err := c.AcquireTokenSilent(t.Context(), patScopes, account, public.WithClaims("{}")); err != nil {
		t.Errorf("after the sign-in: %v", err)
	}
	s.RemovePolicy(id)
	if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != 0 {
		t.Errorf("without the policy: %v", body)
	}
}

func TestPoliciesAtRedemption(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*entra.Server)
		code    int
		sub     string
		claims  bool
	}{
		"multi-factor by user": {
			func(s *entra.Server) { _ = s.RequireMFA(bot, true) }, 50076, "basic_action", true,
		},
		"multi-factor by policy": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{MFA: true}) }, 50076, "basic_action", true,
		},
		"blocked": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{Block: true}) }, 53003, "message_only", true,
		},
		"blocked for another user": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{User: boss, Block: true}) }, 0, "", false,
		},
		"blocked device codes, no device": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{BlockDeviceCode: true}) }, 0, "", false,
		},
		"security defaults, no device": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{SecurityDefaults: true}) }, 0, "", false,
		},
		"sign-in frequency, in time": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{SignInFrequency: 2 * time.Hour}) }, 0, "", false,
		},
		"sign-in frequency, too late": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{SignInFrequency: time.Hour}) },
			70043, "token_expired", false,
		},
		"sign-in frequency, for another app": {
			func(s *entra.Server) { s.AddPolicy(entra.Policy{App: "x", SignInFrequency: time.Hour}) }, 0, "", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, client, app, rt := seeded(t, entra.Config{})
				time.Sleep(time.Hour)
				tc.prepare(s)
				_, body := answerOf(t, client, refreshForm(app, rt))
				sub, _ := body["suberror"].(string)
				_, claims := body["claims"]
				check(t, "code", codeOf(body), tc.code)
				check(t, "suberror", sub, tc.sub)
				check(t, "claims", claims, tc.claims)
			})
		})
	}
}

func TestAnUnenrolledUserIsToldSo(t *testing.T) {
	s, client := tenant(t)
	s.AddUser(entra.User{UPN: "new@contoso.com", NotEnrolled: true})
	rt, err := s.SeedRefreshToken("new@contoso.com", "native", patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	s.AddPolicy(entra.Policy{MFA: true})
	_, body := answerOf(t, client, refreshForm("native", rt))
	check(t, "code", codeOf(body), 50079)
	check[any](t, "suberror", body["suberror"], "basic_action")
}

func TestSignInFrequencyLeavesConfidentialClientsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := tenant(t)
		rt, err := s.SeedRefreshToken(bot, "web", patScopes...)
		if err != nil {
			t.Fatal(err)
		}
		s.AddPolicy(entra.Policy{SignInFrequency: time.Hour})
		time.Sleep(24 * time.Hour)
		form := refreshForm("web", rt)
		form.Set("client_secret", "s3cret")
		if _, body := answerOf(t, client, form); codeOf(body) != 0 {
			t.Errorf("%v", body)
		}
	})
}

func TestABlockedSignInEndsOnAPage(t *testing.T) {
	s, client := tenant(t)
	s.AddPolicy(entra.Policy{App: "web", Block: true})
	at, steps := visit(t, client, htmlclient.Person{User: bot}, request("web"))
	check(t, "pages", steps, "account sign-in")
	checkPage(t, "blocked", at, http.StatusBadRequest, "AADSTS53003")
	// A policy that comes between the page and the redemption counts, too.
	at, _ = visit(t, client, htmlclient.Person{User: bot}, request("native"))
	s.AddPolicy(entra.Policy{App: "native", MFA: true})
	if body := redeem(t, client, "native", back(t, at).Get("code")); codeOf(body) != 50076 {
		t.Errorf("%v", body)
	}
}

// What no sign-in mends: the pages end, and refresh tokens are refused.
func TestAPolicyRefusesWithItsOwnNumber(t *testing.T) {
	for code, policy := range map[int]entra.Policy{
		53003: {Block: true}, 530084: {TokenProtection: true}, 53011: {BlockRisk: true}, 50131: {Device: true},
	} {
		s, client, app, rt := seeded(t, entra.Config{})
		id := s.AddPolicy(policy)
		if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != code {
			t.Errorf("%d: %v", code, body)
		}
		s.RemovePolicy(id)
		if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != 0 {
			t.Errorf("without the policy of %d: %v", code, body)
		}
		s, client = tenant(t)
		s.AddPolicy(policy)
		at, _ := visit(t, client, htmlclient.Person{User: bot}, request("web"))
		checkPage(t, fmt.Sprint(code), at, http.StatusBadRequest, fmt.Sprintf("AADSTS%d", code))
	}
}

func TestASwitchedOffResourceHasNoTokens(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	for _, disabled := range []bool{true, false} {
		if err := s.DisableResource(entra.DevOps, disabled); err != nil {
			t.Fatal(err)
		}
		want := map[bool]int{true: 500014}[disabled]
		if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != want {
			t.Errorf("disabled %v: %v", disabled, body)
		}
	}
	if err := s.DisableResource("nothing", true); err == nil {
		t.Error("a resource that is not there was switched off")
	}
}

func TestACodeOfARevokedSignInIsWorthNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := tenant(t)
		at, _ := visit(t, client, htmlclient.Person{User: bot}, request("native"))
		time.Sleep(time.Second)
		if err := s.Revoke(bot); err != nil {
			t.Fatal(err)
		}
		if body := redeem(t, client, "native", back(t, at).Get("code")); codeOf(body) != 50173 {
			t.Errorf("%v", body)
		}
	})
}

func TestPasswordChange(t *testing.T) {
	for name, tc := range map[string]struct {
		switches     entra.Switches
		passwordless bool
		code         int
	}{
		"ends a public client's sign-in":          {entra.Switches{}, false, 50173},
		"ends it, by the other number":            {entra.Switches{PasswordChangeIs50133: true}, false, 50133},
		"ends nothing that needed no password":    {entra.Switches{}, true, 0},
		"ends nothing, whatever the number is on": {entra.Switches{PasswordChangeIs50133: true}, true, 0},
	} {
		s, client := serve(t, entra.Config{Switches: tc.switches})
		s.AddUser(entra.User{UPN: bot, Passwordless: tc.passwordless})
		s.AddApp(entra.App{ClientID: "native", Native: []string{web}})
		rt, err := s.SeedRefreshToken(bot, "native", patScopes...)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ChangePassword(bot); err != nil {
			t.Fatal(err)
		}
		if _, body := answerOf(t, client, refreshForm("native", rt)); codeOf(body) != tc.code {
			t.Errorf("%s: %v", name, body)
		}
	}
}

// Every code that can be asked for, as MSAL passes it on.
func TestEveryRefusalOnDemandReachesTheClientOfMSAL(t *testing.T) {
	for code, want := range map[int]struct {
		status   int
		err, sub string
		claims   bool
	}{
		50034:   {400, "invalid_grant", "", false},
		50053:   {400, "invalid_grant", "", false},
		50055:   {400, "invalid_grant", "", false},
		50057:   {400, "invalid_grant", "", false},
		50105:   {400, "interaction_required", "", false},
		50072:   {400, "invalid_grant", "basic_action", true},
		50074:   {400, "invalid_grant", "basic_action", true},
		50076:   {400, "invalid_grant", "basic_action", true},
		50078:   {400, "invalid_grant", "basic_action", true},
		50079:   {400, "invalid_grant", "basic_action", true},
		50131:   {400, "invalid_grant", "", false},
		50132:   {400, "invalid_grant", "user_password_expired", false},
		50133:   {400, "invalid_grant", "bad_token", false},
		50173:   {400, "invalid_grant", "bad_token", false},
		50196:   {400, "invalid_grant", "", false},
		53000:   {400, "invalid_grant", "message_only", false},
		53003:   {400, "invalid_grant", "message_only", true},
		53011:   {400, "invalid_grant", "", false},
		65001:   {400, "invalid_grant", "consent_required", false},
		70000:   {400, "invalid_grant", "bad_token", false},
		70043:   {400, "invalid_grant", "token_expired", false},
		90002:   {400, "invalid_request", "", false},
		90033:   {503, "temporarily_unavailable", "", false},
		90055:   {429, "temporarily_unavailable", "", false},
		90072:   {400, "invalid_grant", "", false},
		500014:  {400, "invalid_resource", "", false},
		500341:  {400, "invalid_grant", "", false},
		530035:  {400, "invalid_grant", "", false},
		530084:  {400, "invalid_grant", "", false},
		700016:  {400, "unauthorized_client", "", false},
		700024:  {401, "invalid_client", "", false},
		700027:  {401, "invalid_client", "", false},
		700082:  {400, "invalid_grant", "token_expired", false},
		700084:  {400, "invalid_grant", "token_expired", false},
		1000502: {401, "invalid_client", "", false},
		7000112: {401, "unauthorized_client", "", false},
		7000215: {401, "invalid_client", "", false},
		7000222: {401, "invalid_client", "", false},
		7000218: {401, "invalid_client", "", false},
		999999:  {400, "invalid_grant", "", false},
	} {
		s, client, app, rt := seeded(t, entra.Config{})
		s.Fail(entra.Failure{User: bot, Code: code, Times: 2})
		status, body := answerOf(t, client, refreshForm(app, rt))
		sub, _ := body["suberror"].(string)
		what := fmt.Sprintf("%d: ", code)
		_, claims := body["claims"]
		check(t, what+"status", status, want.status)
		check(t, what+"code", codeOf(body), code)
		check[any](t, what+"error", body["error"], want.err)
		check(t, what+"suberror", sub, want.sub)
		check(t, what+"claims", claims, want.claims)
		m := imported(app, rt)
		_, err := silent(t.Context(), publicClient(t, client, app, m))
		if got := msalCode(t, err); got != code {
			t.Errorf("%d: MSAL reports %d", code, got)
		}
		if _, err := silent(t.Context(), publicClient(t, client, app, m)); err != nil { // the switch was for two
			t.Errorf("%d, afterwards: %v", code, err)
		}
	}
	s, client, app, rt := seeded(t, entra.Config{})
	s.Fail(entra.Failure{
		User: bot, Code: 50076, Error: "interaction_required", SubError: "additional_action", Status: 401,
		Claims: `{"a":{}}`, Times: 1,
	})
	status, body := answerOf(t, client, refreshForm(app, rt))
	check(t, "status", status, http.StatusUnauthorized)
	check[any](t, "error", body["error"], "interaction_required")
	check[any](t, "suberror", body["suberror"], "additional_action")
	check[any](t, "claims", body["claims"], `{"a":{}}`)
}

func TestADisabledAppIsRefused(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	s.AddApp(entra.App{ClientID: app, Native: []string{"http://localhost"}, Disabled: true})
	if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != 7000112 {
		t.Errorf("%v", body)
	}
}

func TestDeviceCodePages(t *testing.T) {
	for name, tc := range map[string]struct {
		person  htmlclient.Person
		prepare func(*entra.Server)
		steps   string
		err     string // "": success
	}{
		"approved": {htmlclient.Person{User: bot}, nil, "device account sign-in confirm consent", ""},
		"approved with a code": {
			htmlclient.Person{User: bot}, func(s *entra.Server) { s.AddPolicy(entra.Policy{MFA: true}) },
			"device account sign-in mfa confirm consent", "",
		},
		"declined at the end": {
			htmlclient.Person{User: bot, CancelAt: "consent"}, nil,
			"device account sign-in confirm consent", "authorization_declined",
		},
		"declined in between": {
			htmlclient.Person{User: bot, CancelAt: "confirm"}, nil,
			"device account sign-in confirm", "authorization_declined",
		},
		"given up at the code": {htmlclient.Person{CancelAt: "device"}, nil, "device", "authorization_pending"},
		"a wrong code":         {htmlclient.Person{UserCode: "WRONG"}, nil, "device device", "authorization_pending"},
		"blocked by policy": {
			htmlclient.Person{User: bot}, func(s *entra.Server) { s.AddPolicy(entra.Policy{BlockDeviceCode: true}) },
			"device account sign-in", "authorization_pending",
		},
		"blocked by security defaults": {
			htmlclient.Person{User: bot}, func(s *entra.Server) { s.AddPolicy(entra.Policy{SecurityDefaults: true}) },
			"device account sign-in", "authorization_pending",
		},
		"another user may not": {
			htmlclient.Person{User: "off@contoso.com"}, nil,
			"device account account", "authorization_pending",
		},
		"consent given beforehand": {
			htmlclient.Person{User: bot}, func(s *entra.Server) { _ = s.Consent(bot, "device", patScopes...) },
			"device account sign-in confirm", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := tenant(t)
			s.AddApp(entra.App{ClientID: "device", AllowPublicClient: true})
			if tc.prepare != nil {
				tc.prepare(s)
			}
			code := deviceCode(t, client)
			if tc.person.UserCode == "" {
				tc.person.UserCode = strings.ToLower(code["user_code"].(string))
			}
			at, steps := visit(t, client, tc.person, code["verification_uri"].(string))
			check(t, "pages", steps, tc.steps)
			check(t, "sent to another host", at.Left(), false)
			form := url.Values{
				"client_id":   {"device"},
				"grant_type":  {"device_code"},
				"device_code": {code["device_code"].(string)},
			}
			_, body := answerOf(t, client, form)
			if got, _ := body["error"].(string); got != tc.err {
				t.Errorf("%v", body)
			}
			if tc.err != "" {
				return
			}
			c, err := s.VerifyAccessToken(body["access_token"].(string))
			if err != nil {
				t.Fatal(err)
			}
			check(t, "user", c.UPN, bot)
			if _, body := answerOf(t, client, form); codeOf(body) != 54005 {
				t.Errorf("a device code twice: %v", body)
			}
			if _, steps := visit(t, client, tc.person, code["verification_uri"].(string)); steps != "device device" {
				t.Errorf("a user code twice: pages %q", steps)
			}
		})
	}
}

func deviceCode(t *testing.T, client *http.Client) map[string]any {
	t.Helper()
	resp, err := client.PostForm(
		authority+"/oauth2/v2.0/devicecode",
		url.Values{"client_id": {"device"}, "scope": {strings.Join(patScopes, " ") + " offline_access"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return body
}

func TestADeviceCodeHasItsPaceAndItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := tenant(t)
		s.AddApp(entra.App{ClientID: "device", AllowPublicClient: true})
		code := deviceCode(t, client)
		form := url.Values{
			"client_id":   {"device"},
			"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
			"device_code": {code["device_code"].(string)},
		}
		want := func(err string) {
			t.Helper()
			if _, body := answerOf(t, client, form); body["error"] != err {
				t.Errorf("%v, want %s", body, err)
			}
		}
		want("authorization_pending")
		want("authorization_pending")
		s.Switch(func(sw *entra.Switches) { sw.SlowDown = true })
		want("slow_down")
		time.Sleep(5 * time.Second)
		want("authorization_pending")
		time.Sleep(4 * time.Second)
		want("slow_down")
		// A page that was opened in time does not help afterwards.
		b := htmlclient.New(client.Transport)
		at, err := b.Open(t.Context(), code["verification_uri"].(string))
		time.Sleep(time.Minute)
		for _, set := range [][]string{
			{"code", code["user_code"].(string), "action", "next"},
			{"user", bot, "action", "next"},
			{"action", "sign-in"},
			{"action", "continue"},
		} {
			if err != nil {
				t.Fatal(err)
			}
			at, err = b.Submit(t.Context(), at, at.Forms[0], set...)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(14 * time.Minute)
		want("expired_token")
		at, err = b.Submit(t.Context(), at, at.Forms[0], "action", "accept")
		if err != nil {
			t.Fatal(err)
		}
		check(t, "status", at.Status, http.StatusBadRequest)
	})
}

func TestARefreshTokenFromADeviceCodeStaysTracked(t *testing.T) {
	s, client := tenant(t)
	s.AddApp(entra.App{ClientID: "device", AllowPublicClient: true})
	code := deviceCode(t, client)
	if err := s.ApproveDevice(code["user_code"].(string), bot); err != nil {
		t.Fatal(err)
	}
	_, body := answerOf(
		t,
		client,
		url.Values{
			"client_id":   {"device"},
			"grant_type":  {"device_code"},
			"device_code": {code["device_code"].(string)},
		},
	)
	for range 2 { // its descendants, too
		_, body = answerOf(t, client, refreshForm("device", body["refresh_token"].(string)))
		if codeOf(body) != 0 {
			t.Fatal(body)
		}
	}
	id := s.AddPolicy(entra.Policy{SecurityDefaults: true})
	if _, body := answerOf(t, client, refreshForm("device", body["refresh_token"].(string))); codeOf(body) != 530035 {
		t.Errorf("security defaults: %v", body)
	}
	s.RemovePolicy(id)
	s.AddPolicy(entra.Policy{BlockDeviceCode: true})
	if _, body := answerOf(t, client, refreshForm("device", body["refresh_token"].(string))); codeOf(body) != 53003 {
		t.Errorf("%v", body)
	}
	code = deviceCode(t, client)
	if err := s.ApproveDevice(code["user_code"].(string), bot); err == nil {
		t.Error("a blocked device code was approved")
	}
}
