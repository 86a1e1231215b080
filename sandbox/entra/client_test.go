package entra_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/azure-patrol/patrol/sandbox/entra"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// pair is a certificate with its key. The time is the test's.
type pair struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newPair(t *testing.T, life time.Duration) pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "patrol"},
		NotBefore:    now.Add(-time.Minute),
		NotAfter:     now.Add(life),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pair{key, cert}
}

// jwt signs as a client would, by the older algorithm if so wished.
func jwt(t *testing.T, p pair, old bool, change map[string]any) string {
	t.Helper()
	now := time.Now()
	sum := sha256.Sum256(p.cert.Raw)
	header := map[string]any{"typ": "JWT", "alg": "PS256", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
	if old {
		sum := sha1.Sum(p.cert.Raw)
		header = map[string]any{"typ": "JWT", "alg": "RS256", "x5t": base64.RawURLEncoding.EncodeToString(sum[:])}
	}
	body := map[string]any{"iss": "web", "sub": "web", "aud": authority + "/oauth2/v2.0/token", "jti": rand.Text(),
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	for k, v := range change {
		if _, inHeader := header[k]; inHeader || k == "alg" {
			header[k] = v
		} else {
			body[k] = v
		}
	}
	part := func(m map[string]any) string {
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	signed := part(header) + "." + part(body)
	digest := sha256.Sum256([]byte(signed))
	var sig []byte
	var err error
	if old {
		sig, err = rsa.SignPKCS1v15(nil, p.key, crypto.SHA256, digest[:])
	} else {
		sig, err = rsa.SignPSS(rand.Reader, p.key, crypto.SHA256, digest[:], nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestCertificateAssertions(t *testing.T) {
	s, client := tenant(t)
	mine, other := newPair(t, time.Hour), newPair(t, time.Hour)
	stale := newPair(t, -time.Second)
	s.AddApp(entra.App{ClientID: "web", Web: []string{web}, Certificates: []*x509.Certificate{mine.cert, stale.cert}})
	rt, err := s.SeedRefreshToken(bot, "web", patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, tc := range map[string]struct {
		assertion string
		code      int
	}{
		"right":                      {jwt(t, mine, false, nil), 0},
		"right, the older way":       {jwt(t, mine, true, nil), 0},
		"right, for the issuer":      {jwt(t, mine, false, map[string]any{"aud": s.Issuer()}), 0},
		"another certificate":        {jwt(t, other, false, nil), 700027},
		"another key under its name": {jwt(t, pair{other.key, mine.cert}, false, nil), 700027},
		"a certificate that is over": {jwt(t, stale, false, nil), 1000502},
		"for another audience":       {jwt(t, mine, false, map[string]any{"aud": "https://vault.azure.net"}), 700027},
		"for another subject":        {jwt(t, mine, false, map[string]any{"sub": "native"}), 700027},
		"no certificate named":       {jwt(t, mine, false, map[string]any{"x5t#S256": ""}), 700027},
		"unsigned":                   {jwt(t, mine, false, map[string]any{"alg": "none"}), 700027},
		"expired": {
			jwt(t, mine, false, map[string]any{"exp": now.Add(-time.Second).Unix()}), 700024,
		},
		"without an end": {jwt(t, mine, false, map[string]any{"exp": nil}), 700024},
		"not yet valid": {
			jwt(t, mine, false, map[string]any{"nbf": now.Add(time.Minute).Unix()}), 700024,
		},
		"of another app":              {jwt(t, mine, false, map[string]any{"iss": "native", "sub": "native"}), 700211},
		"not a JWT":                   {"nonsense", 50013},
		"a token that is cut off":     {jwt(t, mine, false, nil)[:40], 50013},
		"a signature that is no text": {jwt(t, mine, false, nil) + "!", 700027},
	} {
		form := refreshForm("web", rt)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", tc.assertion)
		if _, body := answerOf(t, client, form); codeOf(body) != tc.code {
			t.Errorf("%s: %v", name, body)
		}
	}
	form := refreshForm("web", rt)
	form.Set("client_assertion", jwt(t, mine, false, nil))
	if _, body := answerOf(t, client, form); codeOf(body) != 900144 {
		t.Errorf("without the type: %v", body)
	}
}

func TestMSALsCertificateIsAccepted(t *testing.T) {
	s, client := tenant(t)
	mine, other := newPair(t, time.Hour), newPair(t, time.Hour)
	s.AddApp(entra.App{ClientID: "web", Web: []string{web}, Certificates: []*x509.Certificate{mine.cert}})
	rt, err := s.SeedRefreshToken(bot, "web", patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	for p, code := range map[pair]int{mine: 0, other: 700027} {
		cred, err := confidential.NewCredFromCert([]*x509.Certificate{p.cert}, p.key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := confidential.New(
			authority,
			"web",
			cred,
			confidential.WithHTTPClient(client),
			confidential.WithCache(imported("web", rt)),
		)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.AcquireTokenSilent(
			t.Context(),
			patScopes,
			confidential.WithSilentAccount(confidential.Account{HomeAccountID: "h"}),
		)
		if got := msalCode(t, err); got != code {
			t.Errorf("got %d, want %d", got, code)
		}
	}
}

// azidentity's credentials, as an operator's own tools use them.
func TestAzidentitysAppCredentials(t *testing.T) {
	s, client := tenant(t)
	mine := newPair(t, time.Hour)
	mi := "mi-" + rand.Text()
	principal := s.AddIdentity(entra.ManagedIdentity{ClientID: mi})
	s.AddApp(
		entra.App{
			ClientID:       "web",
			Web:            []string{web},
			Secrets:        []string{"s3cret"},
			ExpiredSecrets: []string{"0ld"},
			Certificates:   []*x509.Certificate{mine.cert},
			Federated: []entra.FederatedCredential{
				{Issuer: s.Issuer(), Subject: principal, Audience: entra.TokenExchange},
			},
		},
	)
	options := azcore.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}}
	secret := func(value string) azcore.TokenCredential {
		c, err := azidentity.NewClientSecretCredential(
			s.Tenant(),
			"web",
			value,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options},
		)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	certificate, err := azidentity.NewClientCertificateCredential(
		s.Tenant(),
		"web",
		[]*x509.Certificate{mine.cert},
		mine.key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: options},
	)
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := azidentity.NewClientAssertionCredential(s.Tenant(), "web", func(context.Context) (string, error) {
		token, _, err := s.IdentityToken(mi, entra.TokenExchange)
		return token, err
	}, &azidentity.ClientAssertionCredentialOptions{ClientOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cred azcore.TokenCredential
		code string
	}{
		"secret": {secret("s3cret"), ""}, "certificate": {certificate, ""}, "managed identity": {assertion, ""},
		"wrong secret": {secret("x"), "AADSTS7000215"}, "expired secret": {secret("0ld"), "AADSTS7000222"},
	} {
		token, err := tc.cred.GetToken(
			t.Context(),
			policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}},
		)
		if tc.code != "" {
			if err == nil || !strings.Contains(err.Error(), tc.code) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err := s.VerifyAccessToken(token.Token)
		if err != nil {
			t.Fatal(err)
		}
		check(t, name+": app", c.AppID, "web")
		check(t, name+": type of identity", c.IDType, "app")
	}
}

func TestAnAssertionOfTheManagedIdentityRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, client := tenant(t)
		principal := s.AddIdentity(entra.ManagedIdentity{ClientID: "mi"})
		s.AddApp(
			entra.App{
				ClientID: "web",
				Web:      []string{web},
				Federated: []entra.FederatedCredential{
					{Issuer: s.Issuer(), Subject: principal, Audience: entra.TokenExchange},
				},
			},
		)
		rt, err := s.SeedRefreshToken(bot, "web", patScopes...)
		if err != nil {
			t.Fatal(err)
		}
		token, expires, err := s.IdentityToken("mi", entra.TokenExchange)
		if err != nil {
			t.Fatal(err)
		}
		form := refreshForm("web", rt)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", token)
		if _, body := answerOf(t, client, form); codeOf(body) != 0 {
			t.Errorf("fresh: %v", body)
		}
		time.Sleep(time.Until(expires))
		if _, body := answerOf(t, client, form); codeOf(body) != 700024 {
			t.Errorf("at its end: %v", body)
		}
		// Another authority's keys sign something else.
		foreign := entra.New(entra.Config{})
		foreign.AddIdentity(entra.ManagedIdentity{ClientID: "mi", PrincipalID: principal})
		token, _, err = foreign.IdentityToken("mi", entra.TokenExchange)
		if err != nil {
			t.Fatal(err)
		}
		form.Set("client_assertion", token)
		if _, body := answerOf(t, client, form); codeOf(body) != 50013 {
			t.Errorf("a foreign signature: %v", body)
		}
	})
}

func TestASecretInTheHeaderCountsToo(t *testing.T) {
	s, client := tenant(t)
	rt, err := s.SeedRefreshToken(bot, "web", patScopes...)
	if err != nil {
		t.Fatal(err)
	}
	for secret, code := range map[string]int{"s3cret": 0, "x": 7000215} {
		req, err := http.NewRequestWithContext(
			t.Context(),
			http.MethodPost,
			authority+"/oauth2/v2.0/token",
			strings.NewReader(refreshForm("web", rt).Encode()),
		)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("web", secret)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if body := decodeBody(t, raw); codeOf(body) != code {
			t.Errorf("%q: %v", secret, body)
		}
	}
}

func TestRegistrationRules(t *testing.T) {
	for name, tc := range map[string]struct {
		app  entra.App
		want string // in the error; "": accepted
	}{
		"web": {
			entra.App{Web: []string{web, "http://localhost:7071/x", "http://127.0.0.1:7071/x"}}, "",
		},
		"native":      {entra.App{Native: []string{"http://localhost", "myapp://auth", web}}, ""},
		"the longest": {entra.App{Web: []string{"https://a.example/" + strings.Repeat("a", 238)}}, ""},
		"too long": {
			entra.App{Web: []string{"https://a.example/" + strings.Repeat("a", 239)}}, "256",
		},
		"a wildcard":                   {entra.App{Web: []string{"https://*.example/"}}, "wildcard"},
		"a fragment":                   {entra.App{SPA: []string{"https://a.example/#x"}}, "fragment"},
		"an empty fragment":            {entra.App{SPA: []string{"https://a.example/#"}}, "fragment"},
		"http elsewhere":               {entra.App{Web: []string{"http://a.example/"}}, "localhost"},
		"a scheme of its own, for web": {entra.App{Web: []string{"myapp://auth"}}, "https"},
		"no scheme":                    {entra.App{Native: []string{"a.example"}}, "absolute"},
		"no host":                      {entra.App{Web: []string{"https:///x"}}, "host"},
		"user information":             {entra.App{Web: []string{"https://u:p@a.example/"}}, "user"},
		"21 federated credentials":     {entra.App{Federated: make([]entra.FederatedCredential, 21)}, "20"},
		"two of the same subject": {
			entra.App{Federated: []entra.FederatedCredential{{"i", "s", "a"}, {"i", "s", "b"}}}, "unique",
		},
	} {
		id, err := entra.New(entra.Config{}).Register(tc.app)
		if tc.want == "" {
			if err != nil {
				t.Fatal(err)
			}
			check(t, name+": no id", id == "", false)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// FuzzSignInRequest sends anything to the authorize endpoint: it never hands out
// a code without a person, and sends nobody to an address that is not
// registered.
func FuzzSignInRequest(f *testing.F) {
	s := entra.New(entra.Config{})
	s.AddUser(entra.User{UPN: bot})
	s.AddApp(entra.App{ClientID: "web", Web: []string{web}})
	f.Add(strings.TrimPrefix(request("web"), authority+"/oauth2/v2.0/authorize?"))
	f.Add(
		"client_id=web&redirect_uri=" + url.QueryEscape(
			web,
		) + "&prompt=none&claims=%7B%22a%22%3A%7B%22amr%22%3A1%7D%7D&scope=openid&response_type=code",
	)
	f.Add("%zz&;")
	f.Fuzz(func(t *testing.T, query string) {
		w := record(t, s, query)
		to := w.Header().Get("Location")
		if strings.Contains(to, "code=") || to != "" && !strings.HasPrefix(to, web) {
			t.Fatalf("%d %s", w.Code, to)
		}
	})
}

func record(t *testing.T, h http.Handler, query string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/common/oauth2/v2.0/authorize", nil)
	r.URL.RawQuery = query
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
