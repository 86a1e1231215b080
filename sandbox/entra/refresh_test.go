package entra_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	pats       = entra.DevOps + "/vso.pats"
	patsManage = entra.DevOps + "/vso.pats_manage"
	bot        = "build-bot@contoso.com"
	host       = "login.microsoftonline.com"
	authority  = "https://" + host + "/" + entra.DefaultTenant
)

var patScopes = []string{pats, patsManage}

// serve puts an authority onto an in-memory network under Entra's own name, so
// that it also works in virtual time.
func serve(t *testing.T, cfg entra.Config) (*entra.Server, *http.Client) {
	t.Helper()
	s := entra.New(cfg)
	var net memnet.Network
	l, err := net.Listen(host + ":443")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	go func() { _ = srv.Serve(l) }()
	client := &http.Client{
		Transport:     net.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		_ = srv.Close()
	})
	return s, client
}

// memory is a cache that lives outside of a client.
type memory struct{ bytes []byte }

func (m *memory) Replace(_ context.Context, c cache.Unmarshaler, _ cache.ReplaceHints) error {
	if m.bytes == nil {
		return nil
	}
	return c.Unmarshal(m.bytes)
}

func (m *memory) Export(_ context.Context, c cache.Marshaler, _ cache.ExportHints) (err error) {
	m.bytes, err = c.Marshal()
	return err
}

// imported is a cache that holds nothing but a refresh token.
func imported(clientID, refreshToken string) *memory {
	return &memory{fmt.Appendf(nil, `{
		"RefreshToken": {"x": {"home_account_id": "h", "environment": %[1]q, "credential_type": "RefreshToken",
			"client_id": %[2]q, "secret": %[3]q}},
		"AppMetadata": {"y": {"client_id": %[2]q, "environment": %[1]q}}
	}`, host, clientID, refreshToken)}
}

// seeded is a tenant in which the bot has signed in to a native app.
func seeded(t *testing.T, cfg entra.Config) (s *entra.Server, client *http.Client, app, refreshToken string) {
	t.Helper()
	s, client = serve(t, cfg)
	s.AddUser(entra.User{UPN: bot, ObjectID: "0b0b"})
	app = s.AddApp(entra.App{Name: "patrol", Native: []string{"http://localhost"}, Scopes: patScopes})
	rt, err := s.SeedRefreshToken(bot, app, patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	return s, client, app, rt
}

func publicClient(t *testing.T, client *http.Client, app string, m cache.ExportReplace) public.Client {
	t.Helper()
	c, err := public.New(app, public.WithAuthority(authority), public.WithHTTPClient(client), public.WithCache(m))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func silent(ctx context.Context, c public.Client, opts ...public.AcquireSilentOption) (public.AuthResult, error) {
	opts = append(opts, public.WithSilentAccount(public.Account{HomeAccountID: "h"}))
	return c.AcquireTokenSilent(ctx, patScopes, opts...)
}

// answerOf posts a form to the token endpoint and reads the answer.
func answerOf(t *testing.T, client *http.Client, form url.Values) (int, map[string]any) {
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
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, decodeBody(t, raw)
}

func decodeBody(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return body
}

// codeOf is the AADSTS number of an error answer, 0 for a success.
func codeOf(body map[string]any) int {
	list, _ := body["error_codes"].([]any)
	if len(list) == 0 {
		return 0
	}
	n, _ := list[0].(float64)
	return int(n)
}

// msalCode is the AADSTS number that an MSAL error carries, 0 for nil.
func msalCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var ce msalerrors.CallErr
	if !errors.As(err, &ce) {
		t.Fatalf("not an answer of the authority: %v", err)
	}
	raw, err := io.ReadAll(ce.Resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return codeOf(body)
}

func refreshForm(app, refreshToken string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {app}, "refresh_token": {refreshToken},
		"scope": {strings.Join(patScopes, " ") + " openid offline_access profile"}, "client_info": {"1"}}
}

func TestMSALRedeemsAnImportedRefreshToken(t *testing.T) {
	panel := &faults.Injector{}
	s, client, app, rt := seeded(t, entra.Config{Injector: panel})
	m := imported(app, rt)
	r, err := silent(t.Context(), publicClient(t, client, app, m))
	if err != nil {
		t.Fatal(err)
	}
	check(t, "user", r.Account.PreferredUsername, bot)
	check(t, "home account", r.Account.HomeAccountID, "0b0b."+entra.DefaultTenant)
	check(t, "local account", r.Account.LocalAccountID, "0b0b")
	c, err := s.VerifyAccessToken(r.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "audience", c.Audience, entra.DevOps)
	check(t, "user", c.UPN, bot)
	check(t, "app", c.AppID, app)
	check(t, "type of identity", c.IDType, "user")
	check(t, "tenant", c.TenantID, entra.DefaultTenant)
	check(t, "scopes", strings.Join(c.Scopes, " "), "vso.pats vso.pats_manage")
	if got := time.Until(c.Expires); got < 74*time.Minute || got > 75*time.Minute {
		t.Errorf("the access token lives %v", got)
	}
	for op, want := range map[string]int{"discovery": 1, "instance discovery": 1, "token refresh_token": 1} {
		if got := panel.Count("entra", op); got != want {
			t.Errorf("%s: %d calls, want %d", op, got, want)
		}
	}
}

func TestMSALWorksOverLoopbackTLSWithoutInstanceDiscovery(t *testing.T) {
	s := entra.New(entra.Config{})
	srv := httptest.NewTLSServer(s)
	defer srv.Close()
	s.AddUser(entra.User{UPN: bot})
	app := s.AddApp(entra.App{Native: []string{"http://localhost"}})
	rt, err := s.SeedRefreshToken(bot, app, patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	m := imported(app, rt)
	m.bytes = []byte(strings.ReplaceAll(string(m.bytes), host, strings.TrimPrefix(srv.URL, "https://")))
	c, err := public.New(
		app,
		public.WithAuthority(srv.URL+"/"+s.Tenant()),
		public.WithHTTPClient(srv.Client()),
		public.WithCache(m),
		public.WithInstanceDiscovery(false),
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silent(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestARefreshTokenSlidesByUseAndDiesAfter90DaysOfInactivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client, app, rt := seeded(t, entra.Config{})
		form := refreshForm(app, rt)
		for range 3 {
			time.Sleep(89 * 24 * time.Hour)
			status, body := answerOf(t, client, form)
			if status != 200 {
				t.Fatalf("%d %v", status, body)
			}
			form.Set("refresh_token", body["refresh_token"].(string))
		}
		time.Sleep(90 * 24 * time.Hour)
		status, body := answerOf(t, client, form)
		check(t, "status", status, 400)
		check(t, "code", codeOf(body), 700082)
		check[any](t, "error", body["error"], "invalid_grant")
	})
}

func TestRefreshIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(s *entra.Server, form url.Values) error
		code   int
		err    string
	}{
		"after revocation": {
			func(s *entra.Server, _ url.Values) error { return s.Revoke(bot) }, 50173, "invalid_grant",
		},
		"after a password change": {
			func(s *entra.Server, _ url.Values) error { return s.ChangePassword(bot) }, 50173, "invalid_grant",
		},
		"for a disabled user": {
			func(s *entra.Server, _ url.Values) error { return s.DisableUser(bot, true) }, 50057, "invalid_grant",
		},
		"without consent": {
			func(s *entra.Server, f url.Values) error {
				s.WithdrawConsent(bot, f.Get("client_id"))
				return nil
			}, 65001, "invalid_grant",
		},
		"for another scope":               {set("scope", entra.DevOps+"/vso.tokens"), 65001, "invalid_grant"},
		"for a scope that does not exist": {set("scope", entra.DevOps+"/vso.nothing"), 650053, "invalid_scope"},
		"for an unknown resource": {
			set("scope", "https://example.invalid/.default"), 500011, "invalid_resource",
		},
		"for two resources": {
			set("scope", pats+" https://vault.azure.net/user_impersonation"), 28000, "invalid_request",
		},
		"for .default beside a scope":       {set("scope", pats+" "+entra.DevOps+"/.default"), 70011, "invalid_scope"},
		"with a secret, for a public app":   {set("client_secret", "s"), 700025, "invalid_client"},
		"for an unknown app":                {set("client_id", "nobody"), 700016, "unauthorized_client"},
		"of an unknown token":               {set("refresh_token", "1.nonsense"), 70000, "invalid_grant"},
		"without a token":                   {set("refresh_token", ""), 900144, "invalid_request"},
		"of an unknown grant":               {set("grant_type", "password"), 70003, "unsupported_grant_type"},
		"with claims that are not JSON":     {set("claims", "e30"), 90014, "invalid_request"},
		"for another app's token":           {otherApp, 70000, "invalid_grant"},
		"while multi-factor is asked for":   {fail(50076), 50076, "invalid_grant"},
		"while Conditional Access blocks":   {fail(53003), 53003, "invalid_grant"},
		"while the service has a hiccup":    {fail(90033), 90033, "temporarily_unavailable"},
		"while the service is under stress": {fail(90055), 90055, "temporarily_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, client, app, rt := seeded(t, entra.Config{})
				time.Sleep(time.Second)
				form := refreshForm(app, rt)
				if err := tc.change(s, form); err != nil {
					t.Fatal(err)
				}
				_, body := answerOf(t, client, form)
				check(t, "code", codeOf(body), tc.code)
				check[any](t, "error", body["error"], tc.err)
				for _, field := range []string{"error_description", "timestamp", "trace_id", "correlation_id"} {
					if body[field] == "" || body[field] == nil {
						t.Errorf("the answer lacks %s", field)
					}
				}
				if claims, _ := body["claims"].(string); tc.code == 50076 &&
					(body["suberror"] != "basic_action" || !json.Valid([]byte(claims))) {
					t.Errorf("multi-factor: suberror %v, claims %q", body["suberror"], claims)
				}
			})
		})
	}
}

func set(field, value string) func(*entra.Server, url.Values) error {
	return func(_ *entra.Server, f url.Values) error { f.Set(field, value); return nil }
}

func fail(code int) func(*entra.Server, url.Values) error {
	return func(s *entra.Server, _ url.Values) error { s.Fail(entra.Failure{User: bot, Code: code}); return nil }
}

func otherApp(s *entra.Server, f url.Values) error {
	f.Set("client_id", s.AddApp(entra.App{Native: []string{"http://localhost"}}))
	return nil
}

func TestAFailureEndsAfterItsTimes(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	s.Fail(entra.Failure{App: app, Code: 90055, Times: 2, RetryAfter: 7 * time.Second})
	s.Fail(entra.Failure{User: "someone-else@contoso.com", Code: 50057})
	for i, want := range []int{90055, 90055, 0} {
		if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != want {
			t.Errorf("call %d: %v", i+1, body)
		}
	}
}

func TestRotation(t *testing.T) {
	for name, tc := range map[string]struct {
		switches entra.Switches
		reuse    int // answer to the used token
		next     int // then, to its successor
	}{
		"lax: the old token stays good": {entra.Switches{}, 0, 0},
		"strict: a token serves once":   {entra.Switches{StrictRotation: true}, 70000, 0},
		"strict with families: reuse ends the sign-in": {
			entra.Switches{StrictRotation: true, ReuseRevokesFamily: true}, 70000, 50173,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, app, rt := seeded(t, entra.Config{Switches: tc.switches})
			status, first := answerOf(t, client, refreshForm(app, rt))
			if status != 200 {
				t.Fatalf("%v", first)
			}
			if _, body := answerOf(t, client, refreshForm(app, rt)); codeOf(body) != tc.reuse {
				t.Errorf("reuse: %v", body)
			}
			if _, body := answerOf(t, client, refreshForm(app, first["refresh_token"].(string))); codeOf(
				body,
			) != tc.next {
				t.Errorf("the successor: %v", body)
			}
		})
	}
}

func TestAConfidentialRefreshTokenNeedsTheManagedIdentitysAssertion(t *testing.T) {
	s, client := serve(t, entra.Config{})
	s.AddUser(entra.User{UPN: bot})
	principal := s.AddIdentity(entra.ManagedIdentity{ClientID: "mi-1"})
	stranger := s.AddIdentity(entra.ManagedIdentity{ClientID: "mi-2"})
	if principal == stranger {
		t.Fatal("two identities share a principal")
	}
	good := entra.FederatedCredential{Issuer: s.Issuer(), Subject: principal, Audience: entra.TokenExchange}
	register := func(fc entra.FederatedCredential) string {
		return s.AddApp(
			entra.App{
				ClientID:  "patrol",
				Web:       []string{"https://patrol.example/api/signin/callback"},
				Federated: []entra.FederatedCredential{fc},
			},
		)
	}
	app := register(good)
	rt, err := s.SeedRefreshToken(bot, app, patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	assertion := func(id, resource string) string {
		token, _, err := s.IdentityToken(id, resource)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	form := refreshForm(app, rt)
	status, body := answerOf(t, client, form)
	check(t, "status", status, 401)
	check(t, "code", codeOf(body), 7000218)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	for name, tc := range map[string]struct {
		credential entra.FederatedCredential
		assertion  string
		code       int
	}{
		"right":              {good, assertion("mi-1", entra.TokenExchange), 0},
		"another identity":   {good, assertion("mi-2", entra.TokenExchange), 700213},
		"a token for others": {good, assertion("mi-1", "https://vault.azure.net"), 700211},
		"audience with a blank": {
			entra.FederatedCredential{
				Issuer: good.Issuer, Subject: principal, Audience: entra.TokenExchange + " ",
			},
			assertion("mi-1", entra.TokenExchange), 700212,
		},
		"issuer with a slash": {
			entra.FederatedCredential{
				Issuer: good.Issuer + "/", Subject: principal, Audience: entra.TokenExchange,
			},
			assertion("mi-1", entra.TokenExchange), 700211,
		},
		"not a token": {good, "nonsense", 50013},
		"tampered":    {good, assertion("mi-1", entra.TokenExchange) + "A", 50013},
	} {
		register(tc.credential)
		form.Set("client_assertion", tc.assertion)
		if _, body := answerOf(t, client, form); codeOf(body) != tc.code {
			t.Errorf("%s: %v", name, body)
		}
	}
	// MSAL sends the same.
	register(good)
	cred := confidential.NewCredFromAssertionCallback(
		func(context.Context, confidential.AssertionRequestOptions) (string, error) {
			return assertion("mi-1", entra.TokenExchange), nil
		},
	)
	before := s.Assertions()
	c, err := confidential.New(
		authority,
		app,
		cred,
		confidential.WithHTTPClient(client),
		confidential.WithCache(imported(app, rt)),
	)
	if err != nil {
		t.Fatal(err)
	}
	account := confidential.WithSilentAccount(confidential.Account{HomeAccountID: "h"})
	if _, err := c.AcquireTokenSilent(t.Context(), patScopes, account); err != nil {
		t.Fatal(err)
	}
	if got := s.Assertions() - before; got != 1 {
		t.Errorf("%d assertions were accepted, want 1", got)
	}
	// The user's own password change leaves a confidential client's sign-in alone.
	if err := s.ChangePassword(bot); err != nil {
		t.Fatal(err)
	}
	form.Set("client_assertion", assertion("mi-1", entra.TokenExchange))
	if _, body := answerOf(t, client, form); codeOf(body) != 0 {
		t.Errorf("after the password change: %v", body)
	}
}

func TestAnswerVariantsAreUnderstoodByMSAL(t *testing.T) {
	for name, tc := range map[string]struct {
		switches entra.Switches
		check    func(t *testing.T, r public.AuthResult, err error)
	}{
		"no client_info": {entra.Switches{OmitClientInfo: true}, func(t *testing.T, r public.AuthResult, err error) {
			if err != nil || r.Account.HomeAccountID == "" || strings.Contains(r.Account.HomeAccountID, ".") {
				t.Errorf("%+v %v", r.Account, err)
			}
		}},
		"no id token": {entra.Switches{OmitIDToken: true}, func(t *testing.T, r public.AuthResult, err error) {
			if err != nil {
				t.Fatal(err)
			}
			check(t, "user", r.Account.PreferredUsername, "")
		}},
		"no scope": {entra.Switches{OmitScope: true}, func(t *testing.T, r public.AuthResult, err error) {
			if err != nil || !slices.Equal(r.GrantedScopes, patScopes) {
				t.Errorf("%v %v", r.GrantedScopes, err)
			}
		}},
		"numbers as strings": {entra.Switches{NumbersAsStrings: true},
			func(t *testing.T, r public.AuthResult, err error) {
				if err != nil || time.Until(r.ExpiresOn) < 74*time.Minute {
					t.Errorf("%v %v", r.ExpiresOn, err)
				}
			}},
		"no new refresh token": {entra.Switches{OmitRefreshToken: true},
			func(t *testing.T, _ public.AuthResult, err error) {
				if err != nil {
					t.Error(err)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, app, rt := seeded(t, entra.Config{Switches: tc.switches})
			r, err := silent(t.Context(), publicClient(t, client, app, imported(app, rt)))
			tc.check(t, r, err)
		})
	}
}

func TestGrantLessMakesMSALReportDeclinedScopes(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{Switches: entra.Switches{GrantLess: true}})
	s.WithdrawConsent(bot, app)
	if err := s.Consent(bot, app, pats); err != nil {
		t.Fatal(err)
	}
	_, err := silent(t.Context(), publicClient(t, client, app, imported(app, rt)))
	if err == nil || !strings.Contains(err.Error(), "declined scopes") {
		t.Errorf("err = %v", err)
	}
}

func TestAdminConsentAndDefaultScope(t *testing.T) {
	s, client, app, rt := seeded(t, entra.Config{})
	s.WithdrawConsent(bot, app)
	form := refreshForm(app, rt)
	form.Set("scope", entra.DevOps+"/.default")
	if _, body := answerOf(t, client, form); codeOf(body) != 65001 {
		t.Errorf("without consent: %v", body)
	}
	s.AddApp(entra.App{ClientID: app, Native: []string{"http://localhost"}, Scopes: patScopes, AdminConsent: true})
	_, body := answerOf(t, client, form)
	if codeOf(body) != 0 {
		t.Fatal(body)
	}
	c, err := s.VerifyAccessToken(body["access_token"].(string))
	if err != nil || !slices.Equal(c.Scopes, []string{"vso.pats", "vso.pats_manage"}) {
		t.Errorf("%v %v", c.Scopes, err)
	}
	if !strings.Contains(body["scope"].(string), "/.default") {
		t.Errorf("scope = %v: MSAL would call .default declined", body["scope"])
	}
}

func TestAccessTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client, app, rt := seeded(t, entra.Config{})
		_, body := answerOf(t, client, refreshForm(app, rt))
		token := body["access_token"].(string)
		if _, err := s.VerifyAccessToken(token); err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]string{
			"empty":    "",
			"id token": body["id_token"].(string),
			"unsigned": token[:strings.LastIndex(token, ".")+1],
			"tampered": "x" + token,
		} {
			if _, err := s.VerifyAccessToken(bad); !errors.Is(err, entra.ErrInvalidToken) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := s.InvalidateAccessTokens(bot); err != nil {
			t.Fatal(err)
		}
		if _, err := s.VerifyAccessToken(token); !errors.Is(err, entra.ErrRevoked) {
			t.Errorf("after invalidation: %v", err)
		}
		_, body = answerOf(t, client, refreshForm(app, rt))
		token = body["access_token"].(string)
		if _, err := s.VerifyAccessToken(token); err != nil {
			t.Errorf("a token made since: %v", err)
		}
		time.Sleep(75 * time.Minute)
		if _, err := s.VerifyAccessToken(token); !errors.Is(err, entra.ErrExpiredToken) {
			t.Errorf("after 75 minutes: %v", err)
		}
	})
}

func TestUnknownTenantAndInstanceAreRefused(t *testing.T) {
	_, client, app, rt := seeded(t, entra.Config{})
	const elsewhere = "https%3A%2F%2Fevil.example%2Ft%2Foauth2%2Fv2.0%2Fauthorize"
	for path, want := range map[string]int{
		"/contoso.com/v2.0/.well-known/openid-configuration":             200,
		"/fabrikam.com/v2.0/.well-known/openid-configuration":            400,
		"/common/discovery/instance?authorization_endpoint=" + elsewhere: 400,
	} {
		resp, err := client.Get("https://" + host + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	// MSAL reports what the authority refused.
	s2, client2, app2, rt2 := seeded(t, entra.Config{})
	if err := s2.Revoke(bot); err != nil {
		t.Fatal(err)
	}
	_, err := silent(t.Context(), publicClient(t, client2, app2, imported(app2, rt2)))
	if got := msalCode(t, err); got != 50173 {
		t.Errorf("MSAL reports %d", got)
	}
	if _, err := silent(t.Context(), publicClient(t, client, app, imported(app, rt))); err != nil {
		t.Errorf("another tenant's revocation must not matter: %v", err)
	}
}
