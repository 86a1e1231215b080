package entra_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// recorded makes a process whose forms to the token endpoint are kept.
func (w *world) recorded(forms *[]url.Values, change ...func(*entra.Config)) *entra.Client {
	return w.start(append(change, func(cfg *entra.Config) {
		client := *w.http
		client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				body, err := r.GetBody()
				if err != nil {
					return nil, err
				}
				raw, err := io.ReadAll(body)
				if err != nil {
					return nil, err
				}
				form, err := url.ParseQuery(string(raw))
				if err != nil {
					return nil, err
				}
				*forms = append(*forms, form)
			}
			return w.http.Transport.RoundTrip(r)
		})
		cfg.HTTPClient = &client
	})...)
}

func TestTheRequestThatMSALMakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{RefreshIn: 40 * time.Minute})
		w.signIn(w.start())
		var forms []url.Values
		mi := &managedIdentity{authority: w.authority}
		c := w.recorded(&forms, func(cfg *entra.Config) { cfg.Credential = entra.Credential{ManagedIdentity: mi} })
		w.mustToken(c)
		// Until 1.9 a confidential client asked for an app token once refresh_in
		// had passed.
		time.Sleep(41 * time.Minute)
		w.mustToken(c)
		if len(forms) != 2 {
			t.Fatalf("%d requests, want 2", len(forms))
		}
		for _, f := range forms {
			want := []string{
				"client_assertion",
				"client_assertion_type",
				"client_id",
				"client_info",
				"grant_type",
				"refresh_token",
				"scope",
			}
			if got := slices.Sorted(maps.Keys(f)); !slices.Equal(got, want) {
				t.Errorf("fields %v, want %v", got, want)
			}
			check(t, "grant_type", f.Get("grant_type"), "refresh_token")
			check(t, "client_info", f.Get("client_info"), "1")
			check(t, "scope", f.Get("scope"), strings.Join(patScopes, " ")+" openid offline_access profile")
		}
		if !slices.Equal(
			mi.scopes,
			[]string{"api://AzureADTokenExchange/.default", "api://AzureADTokenExchange/.default"},
		) {
			t.Errorf("the managed identity was asked for %v", mi.scopes)
		}
	})
}

func TestAFailedEarlyRefreshLeavesTheTokenInUse(t *testing.T) {
	for name, public := range map[string]bool{"confidential client": false, "public client": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{RefreshIn: 40 * time.Minute})
				change := func(*entra.Config) {}
				if public {
					w.publicApp()
					change = func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }
				}
				c := w.start(change)
				w.signIn(c)
				first := w.mustToken(c)
				time.Sleep(41 * time.Minute)
				w.authority.Fail(fake.Failure{Code: 90033})
				if again := w.mustToken(c); again != first {
					t.Error("another token, from nowhere")
				}
				if w.refreshes() != 2 {
					t.Errorf("%d refreshes, want 2", w.refreshes())
				}
				time.Sleep(35 * time.Minute) // its end
				w.wantError(c, rotation.Transient, "AADSTS90033")
			})
		})
	}
}

func (w *world) publicApp() {
	w.redirect = "http://localhost"
	w.authority.AddApp(
		fake.App{ClientID: app, Native: []string{w.redirect}, AllowPublicClient: true, Scopes: patScopes},
	)
}

func TestDeclinedScopesDoNotLoseTheRotatedRefreshToken(t *testing.T) {
	for name, public := range map[string]bool{"confidential client": false, "public client": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{GrantLess: true, StrictRotation: true})
				change := func(*entra.Config) {}
				if public {
					w.publicApp()
					change = func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }
				}
				c := w.start(change)
				w.signIn(c)
				w.authority.WithdrawConsent(bot, app)
				w.mustDo(w.authority.Consent(bot, app, patScopes[0]))
				w.wantError(c, rotation.Configuration, "declined-scopes")
				w.wantError(c, rotation.Configuration, "declined-scopes")
				if w.refreshes() != 1 {
					t.Errorf("%d refreshes, want 1: a configuration is not repaired in seconds", w.refreshes())
				}
				w.mustDo(w.authority.Consent(bot, app, patScopes...))
				time.Sleep(time.Minute)
				w.mustToken(c)
			})
		})
	}
}

func TestAnswersThatLackSomething(t *testing.T) {
	for name, switches := range map[string]fake.Switches{
		"no client_info":       {OmitClientInfo: true, StrictRotation: true},
		"no id token":          {OmitIDToken: true, StrictRotation: true},
		"no id token or scope": {OmitIDToken: true, OmitScope: true},
		"no scope":             {OmitScope: true, StrictRotation: true},
		"numbers as strings":   {NumbersAsStrings: true},
		"no new refresh token": {OmitRefreshToken: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				w.authority.Switch(func(s *fake.Switches) { *s = switches })
				for range 3 {
					c := w.start()
					w.mustToken(c)
					time.Sleep(8 * day) // what it has then is stored
					w.mustToken(c)
				}
				if n := strings.Count(w.vault.latest().value.Reveal(), `"credential_type":"RefreshToken"`); n != 1 {
					t.Errorf("the stored cache holds %d refresh tokens, want 1", n)
				}
				if switches.OmitRefreshToken && w.vault.count() != 1 {
					t.Errorf("%d versions of the same refresh token", w.vault.count())
				}
			})
		})
	}
}

func TestOnlyTheManifestsUserIsAccepted(t *testing.T) {
	const mallory = "mallory@contoso.com"
	refused := func(t *testing.T, err error) {
		t.Helper()
		checkError(t, err, rotation.SignIn, "wrong-user")
	}
	t.Run("at sign-in", func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.authority.AddUser(fake.User{UPN: mallory})
		c := w.start()
		refused(t, w.signInAs(c, mallory))
		if w.vault.count() != 0 {
			t.Error("it was stored")
		}
	})
	t.Run("by the account that comes with the token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.authority.AddUser(fake.User{UPN: mallory})
			c := w.start()
			w.put(mallory, map[string]string{"patrol-user": bot})
			at := stamp()
			w.wantError(c, rotation.SignIn, "wrong-user")
			w.wantError(w.start(), rotation.SignIn, "wrong-user")
			w.wantNotified("required wrong-user " + at)
			if w.refreshes() != 1 {
				t.Errorf("%d refreshes, want 1", w.refreshes())
			}
			time.Sleep(2 * day) // no probing with it either
			w.wantError(c, rotation.SignIn, "wrong-user")
			if w.refreshes() != 1 {
				t.Errorf("%d refreshes, want 1", w.refreshes())
			}
			w.signIn(w.start())
			time.Sleep(time.Minute)
			w.mustToken(c)
		})
	})
	t.Run("by the object id", func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.put(bot, map[string]string{"patrol-user": bot, "patrol-user-id": "another-one-of-that-name"})
		w.wantError(w.start(), rotation.SignIn, "user-id-changed")
	})
	t.Run("when the manifest has changed", func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		c := w.start(func(cfg *entra.Config) {
			cfg.Identities = map[string]entra.Identity{"build-bot": {User: "new-bot@contoso.com"}}
		})
		w.wantError(c, rotation.SignIn, "wrong-user")
		w.wantError(c, rotation.SignIn, "wrong-user")
		if got := w.refreshes(); got != 1 { // to learn the name of today
			t.Errorf("%d refreshes, want 1", got)
		}
	})
	t.Run("whatever the case of its letters", func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start(func(cfg *entra.Config) {
			cfg.Identities = map[string]entra.Identity{"build-bot": {User: strings.ToUpper(bot)}}
		})
		w.signIn(c)
		w.mustToken(c)
	})
}

func TestCertificateCredential(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(key *rsa.PrivateKey) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "patrol"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	registered, unknown := issue(key), issue(other)
	w := newWorld(t, fake.Switches{})
	w.authority.AddApp(
		fake.App{ClientID: app, Web: []string{"https://patrol.example/api/signin/callback"}, Scopes: patScopes,
			Certificates: []*x509.Certificate{registered}},
	)
	with := func(cert *x509.Certificate, key *rsa.PrivateKey) func(*entra.Config) {
		return func(cfg *entra.Config) {
			cfg.Credential = entra.Credential{
				Certificate: func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
					return []*x509.Certificate{cert}, key, nil
				},
			}
		}
	}
	asked := 0
	c := w.start(with(registered, key), func(cfg *entra.Config) {
		read := cfg.Credential.Certificate
		cfg.Credential.Certificate = func(ctx context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
			asked++
			return read(ctx)
		}
	})
	w.signIn(c)
	w.mustToken(c)
	check(t, "times that the certificate was read", asked, 1)
	w.wantError(w.start(with(unknown, other)), rotation.Configuration, "AADSTS700027")
}

// Key Vault renews a certificate, and the old one is taken off the registration: no restart.
func TestARenewedCertificateIsReadAgain(t *testing.T) {
	issue := func(t *testing.T, key *rsa.PrivateKey) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "patrol"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	var keys []*rsa.PrivateKey
	for range 2 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	synctest.Test(t, func(t *testing.T) {
		certs := []*x509.Certificate{issue(t, keys[0]), issue(t, keys[1])}
		w := newWorld(t, fake.Switches{})
		registered := func(cert *x509.Certificate) {
			w.authority.AddApp(fake.App{ClientID: app, Web: []string{"https://patrol.example/api/signin/callback"},
				Scopes: patScopes, Certificates: []*x509.Certificate{cert}})
		}
		registered(certs[0])
		inVault, reads, fails := 0, 0, error(nil)
		c := w.start(func(cfg *entra.Config) {
			cfg.Credential = entra.Credential{
				Certificate: func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
					reads++
					return []*x509.Certificate{certs[inVault]}, keys[inVault], fails
				},
			}
		})
		w.signIn(c)
		w.mustToken(c)
		check(t, "read at first", reads, 1)

		inVault = 1
		registered(certs[1])
		time.Sleep(2 * time.Hour) // the token has ended, and Entra knows another certificate
		w.mustToken(c)
		check(t, "read when Entra refuses it", reads, 2)

		time.Sleep(25 * time.Hour)
		w.mustToken(c)
		check(t, "read after a day", reads, 3)

		time.Sleep(25 * time.Hour)
		fails = errDown
		w.mustToken(c) // with the one that is known
		check(t, "tried after another day", reads, 4)

		fails, inVault = nil, 0 // in the vault is none that Entra knows
		time.Sleep(25 * time.Hour)
		w.wantError(c, rotation.Configuration, "AADSTS700027")
		before := reads
		w.wantError(c, rotation.Configuration, "AADSTS700027")
		check(t, "read for one refusal after the other", reads-before <= 1, true)
	})
}

// The vault may be away when the app starts: the certificate is asked for until
// it is there, and then no more.
func TestTheCertificateIsReadWhenItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		asked := 0
		fails := error(errDown)
		c := w.start(func(cfg *entra.Config) {
			cfg.Credential = entra.Credential{
				Certificate: func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
					asked++
					return nil, nil, fails
				},
			}
		})
		check(t, "asked before it is needed", asked, 0)
		check(t, "required", w.mustStatus(c).Required, false)
		check(t, "asked for a status", asked, 0)
		w.wantError(c, rotation.Transient, "vault")
		check(t, "asked for a token", asked, 1)
		fails = &rotation.Error{Class: rotation.Configuration, Code: "certificate", Message: "it is none"}
		w.wantError(c, rotation.Configuration, "certificate")
		w.wantError(c, rotation.Configuration, "certificate") // from memory, for a minute
		check(t, "asked again", asked, 2)
		_, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
		checkError(t, err, rotation.Configuration, "certificate")
		w.checkCounts(0, 1)
		w.wantNotified("signed-in " + stamp())
	})
}

func TestPlatformMismatchesAreConfiguration(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.wantError(
		w.start(func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }),
		rotation.Configuration,
		"AADSTS7000218",
	)

	w2 := newWorld(t, fake.Switches{})
	w2.publicApp()
	w2.put(bot, nil)
	w2.wantError(w2.start(), rotation.Configuration, "AADSTS700025")
	w2.mustToken(w2.start(func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }))
}

func TestAManagedIdentityThatGivesNoTokenHasACodeOfItsOwn(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	const canary = "canary in the credential's error"
	c := w.start(func(cfg *entra.Config) {
		cfg.Credential = entra.Credential{
			ManagedIdentity: &managedIdentity{authority: w.authority, err: errors.New(canary)},
		}
	})
	e := w.wantError(c, rotation.Transient, "managed-identity")
	checkLacks(t, "the error", fmt.Sprintf("%v %+v %v", e, e, e.Err), canary)
	checkLacks(t, "the log", w.log.String(), canary)
	if w.refreshes() != 0 {
		t.Error("the authority was asked without an assertion")
	}
}

func TestASignInOfAnotherAppRegistrationIsNotUsed(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	c := w.start(func(cfg *entra.Config) { cfg.ClientID = "another-registration" })
	e := w.wantError(c, rotation.SignIn, "not-signed-in")
	checkHas(t, "the message", e.Message, "app registration")
	check(t, "refreshes", w.refreshes(), 0)
}

func TestAGarbledSecretNeedsASignIn(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	for _, value := range []string{
		"", "hello", "{}", "[]", `{"RefreshToken":[]}`, `{"RefreshToken":{"x":{"secret":7}}}`,
	} {
		w.vault.set(func(v *memoryVault) {
			v.versions[secretName] = append(
				v.versions[secretName],
				version{
					id:      fmt.Sprint(len(v.versions[secretName])),
					value:   rotation.NewSecret(value),
					created: time.Now(),
				},
			)
		})
		w.wantError(w.start(), rotation.SignIn, "not-signed-in")
	}
	c := w.start()
	w.signIn(c)
	w.mustToken(c)
}

func TestTagsOfOthersSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.vault.set(func(v *memoryVault) { v.versions[secretName][0].tags["owner"] = "team-a" })
		owner := func(when string) {
			t.Helper()
			if w.vault.latest().tags["owner"] != "team-a" {
				t.Errorf("%s the tag is gone: %v", when, w.vault.latest().tags)
			}
		}
		time.Sleep(8 * day)
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		if w.vault.count() != 2 {
			t.Fatal("nothing was stored")
		}
		owner("after storing")
		time.Sleep(time.Second)
		w.mustDo(w.authority.Revoke(bot))
		time.Sleep(2 * time.Hour)
		w.wantError(c, rotation.SignIn, "AADSTS50173")
		owner("after a required sign-in")
		w.signIn(w.start())
		owner("after a sign-in")
		if _, ok := w.vault.latest().tags["patrol-sign-in-required"]; ok {
			t.Error("a new sign-in says that one is required")
		}
	})
}

func TestCredentialRefusesWhatItDoesNotKnow(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.signIn(c)
	for name, tc := range map[string]struct {
		identity, scope string
		code            string
	}{
		"identity": {"nobody", patScopes[0], "unknown-identity"},
		"resource": {"build-bot", "https://vault.azure.net/.default", "unknown-scope"},
		"scope":    {"build-bot", fake.DevOps + "/vso.tokenadministration", "unknown-scope"},
	} {
		_, err := c.Credential(tc.identity).
			GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{tc.scope}})
		if e := checkError(t, err, rotation.Configuration, tc.code); e.Message == "" {
			t.Errorf("%s: the refusal has no message", name)
		}
	}
	if err := c.Refresh(t.Context(), "nobody"); rotation.ClassOf(err) != rotation.Configuration {
		t.Error(err)
	}
	if _, err := c.Status(t.Context(), "nobody"); rotation.ClassOf(err) != rotation.Configuration {
		t.Error(err)
	}
}

func TestAnAdministratorAsksForMoreScopes(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	admin := []string{fake.DevOps + "/vso.tokenadministration", fake.DevOps + "/vso.graph"}
	c := w.start(func(cfg *entra.Config) {
		cfg.Identities = map[string]entra.Identity{"build-bot": {User: bot, MoreScopes: admin}}
	})
	w.signIn(w.start())
	w.mustToken(c) // for PATs: it has not consented to these
	w.signIn(c)
	token, err := c.Credential("build-bot").GetToken(t.Context(), policy.TokenRequestOptions{Scopes: admin[:1]})
	w.mustDo(err)
	claims, err := w.authority.VerifyAccessToken(token.Token)
	w.mustDo(err)
	check(t, "the number of the token's scopes", len(claims.Scopes), 4)
}

func TestAPermissionWithoutConsentStopsOnlyWhatNeedsIt(t *testing.T) {
	admin := []string{fake.DevOps + "/vso.tokenadministration", fake.DevOps + "/vso.graph",
		fake.DevOps + "/vso.auditlog"}
	for _, strict := range []bool{false, true} {
		for name, less := range map[string]bool{"refused": false, "granted in part": true} {
			for _, missing := range admin {
				t.Run(fmt.Sprintf("%s, strict %t, %s", name, strict, missing), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, fake.Switches{GrantLess: less, StrictRotation: strict})
						c := w.start(func(cfg *entra.Config) {
							cfg.Identities = map[string]entra.Identity{"build-bot": {User: bot, MoreScopes: admin}}
						})
						w.signIn(c)
						w.authority.WithdrawConsent(bot, app)
						granted := slices.DeleteFunc(append(slices.Clone(patScopes), admin...),
							func(s string) bool { return s == missing })
						w.mustDo(w.authority.Consent(bot, app, granted...))
						ask := func(scope string) error {
							_, err := c.Credential("build-bot").GetToken(t.Context(),
								policy.TokenRequestOptions{Scopes: []string{scope}})
							return err
						}
						for _, scope := range granted {
							w.mustDo(ask(scope))
						}
						checkError(t, ask(missing), rotation.Configuration, "unknown-scope")
						check(t, "a person must sign in", w.mustStatus(c).Required, false)
						checkHas(t, "the log", w.log.String(), "scopes="+strings.TrimPrefix(missing, fake.DevOps+"/"))

						before := w.refreshes()
						time.Sleep(2 * time.Hour)
						w.mustDo(ask(granted[0]))
						check(t, "refreshes once it is known", w.refreshes()-before, 1)

						w.mustDo(w.authority.Consent(bot, app, missing))
						time.Sleep(25 * time.Hour)
						w.mustDo(ask(missing))
						w.signIn(c)
						w.mustDo(ask(missing))
					})
				})
			}
		}
	}
}

func TestWithoutConsentToPATsNobodyGoesOn(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start(func(cfg *entra.Config) {
		cfg.Identities = map[string]entra.Identity{"build-bot": {User: bot,
			MoreScopes: []string{fake.DevOps + "/vso.auditlog"}}}
	})
	w.signIn(c)
	w.authority.WithdrawConsent(bot, app)
	w.mustDo(w.authority.Consent(bot, app, fake.DevOps+"/vso.auditlog", patScopes[0]))
	w.wantError(c, rotation.SignIn, "AADSTS65001")
	check(t, "refreshes", w.refreshes(), 2)
}

// Nothing that is a token, or that holds one, gets into an error or a log line.
func TestTokensStayOutOfErrorsAndLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{StrictRotation: true})
		var forms []url.Values
		c := w.recorded(&forms)
		w.signIn(c)
		ask := func() {
			for range 2 {
				_, _ = w.token(c)
				_, err := c.Credential("build-bot").GetToken(t.Context(), policy.TokenRequestOptions{Claims: "{}"})
				w.errors = append(w.errors, err)
				_, err = c.Status(t.Context(), "build-bot")
				w.errors = append(w.errors, err, c.Refresh(t.Context(), "build-bot"))
				time.Sleep(3 * day)
			}
		}
		ask()
		time.Sleep(3 * day) // until it has to be stored
		ask()
		body := func() string { // an answer that has everything, and can't be read
			return fmt.Sprintf(
				`{"access_token":%q,"refresh_token":%q`,
				w.answers[0],
				forms[len(forms)-1].Get("refresh_token"),
			)
		}
		for _, f := range []faults.Fault{
			{Mode: faults.Status, Status: 200, Body: body()},
			{Mode: faults.Status, Status: 400, Body: body() + "}"},
			{Mode: faults.Status, Status: 500, Body: body()},
			{Mode: faults.Status, Status: 400, Body: fmt.Sprintf(
				`{"error":%q,"error_description":%[1]q,"trace_id":%[1]q}`, w.answers[0])},
			{Mode: faults.ResetBefore},
			{Mode: faults.HangBefore},
		} {
			f.Service, f.Operation, f.Times = "entra", "token refresh_token", -1
			w.mustDo(w.panel.Inject(f))
			ask()
			w.panel.ClearFaults()
		}
		w.vault.set(func(v *memoryVault) { v.down = errDown })
		ask()
		w.vault.set(func(v *memoryVault) { v.down = nil })
		w.mustDo(w.authority.Revoke(bot))
		w.notifyErr = errors.New("down")
		ask()
		w.notifyErr = nil
		time.Sleep(2 * day)
		ask()

		secrets := map[string]bool{}
		for _, f := range forms {
			secrets[f.Get("refresh_token")], secrets[f.Get("client_assertion")] = true, true
		}
		for _, a := range w.answers {
			secrets[a] = true
		}
		delete(secrets, "")
		if len(secrets) < 10 {
			t.Fatalf("only %d secrets were seen", len(secrets))
		}
		said := w.log.String()
		for _, err := range w.errors {
			said += fmt.Sprintf("%v\n%+v\n%#v\n", err, err, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				said += fmt.Sprintf("%v\n%+v\n%#v\n", e, e, e)
			}
		}
		for _, e := range w.events {
			said += fmt.Sprintf("%+v\n", e)
		}
		for s := range secrets {
			if strings.Contains(said, s) {
				t.Errorf("a secret got out: %.12s...", s)
			}
		}
		for _, want := range []string{"no token", "refresh token stored", "a person must sign in"} {
			if !strings.Contains(w.log.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
	})
}

// Each of Microsoft's clouds takes a managed identity's token for an audience of its own.
func TestTheAudienceOfTheExchangeGoesByTheAuthority(t *testing.T) {
	for host, audience := range map[string]string{
		"login.microsoftonline.com":        "api://AzureADTokenExchange",
		"login.microsoftonline.us":         "api://AzureADTokenExchangeUSGov",
		"login.chinacloudapi.cn":           "api://AzureADTokenExchangeChina",
		"login.partner.microsoftonline.cn": "api://AzureADTokenExchangeChina",
	} {
		t.Run(host, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorldIn(t, host, fake.Switches{})
				w.authority.AddApp(fake.App{
					ClientID: app, Web: []string{redirect}, Scopes: patScopes,
					Federated: []fake.FederatedCredential{
						{Issuer: w.authority.Issuer(), Subject: w.principal, Audience: audience},
					},
				})
				inCloud := func(cfg *entra.Config) { cfg.AuthorityHost = "https://" + host }
				c := w.start(inCloud)
				w.mustDo(w.signInAs(c, bot))
				w.mustToken(w.start(inCloud))
				if got := w.authority.Assertions(); got != 2 {
					t.Errorf("%d assertions were accepted, want 2", got)
				}
			})
		})
	}
}

func TestAnAuthorityOfAnUnknownCloudIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	cfg := w.config()
	cfg.AuthorityHost = "https://login.microsoftonline.eaglex"
	_, err := entra.New(cfg)
	if err == nil {
		t.Fatal("accepted")
	}
	checkHas(t, "the error", err.Error(), "login.microsoftonline.us")
	checkHas(t, "the error", err.Error(), "or a certificate")
	cfg.Credential = entra.Credential{} // without the exchange its audience does not matter
	if _, err := entra.New(cfg); err != nil {
		t.Errorf("refused without a managed identity: %v", err)
	}
}

func TestConfigurationIsCheckedAllAtOnce(t *testing.T) {
	_, err := entra.New(
		entra.Config{
			AuthorityHost: "http://login.example/x",
			Tenant:        "common",
			Identities:    map[string]entra.Identity{"a": {}},
			Credential: entra.Credential{
				ManagedIdentity: &managedIdentity{},
				Certificate: func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
					return nil, nil, errors.New("not to be read")
				},
			},
		},
	)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"authority host", "tenant must be", "client id", "store", "credential", "identity a has no user",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not speak of %q: %v", want, err)
		}
	}
	w := newWorld(t, fake.Switches{})
	if got := w.start().Names(); !slices.Equal(got, []string{"build-bot"}) {
		t.Errorf("identities %v", got)
	}
}

func TestACancelledCallerGetsItsOwnError(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := w.start()
	if _, err := c.Credential("build-bot").GetToken(ctx, policy.TokenRequestOptions{}); !errors.Is(
		err,
		context.Canceled,
	) {
		t.Errorf("%v", err)
	}
	w.mustToken(c)
}

func TestAnUnassignedManagedIdentityIsAMatterOfConfiguration(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	for status, want := range map[int]rotation.Class{
		400: rotation.Configuration, 429: rotation.Throttled, 503: rotation.Transient,
	} {
		c := w.start(func(cfg *entra.Config) {
			cfg.Credential = entra.Credential{ManagedIdentity: &managedIdentity{authority: w.authority,
				err: &azidentity.AuthenticationFailedError{
					RawResponse: &http.Response{StatusCode: status, Request: &http.Request{URL: &url.URL{}}},
				}}}
		})
		w.wantError(c, want, "managed-identity")
	}
}

func TestASignInThatCouldNotBeAnnouncedIsAnnouncedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.notifyErr = errors.New("the bus is down")
		w.signIn(c)
		at := stamp()
		w.mustToken(c)
		w.wantNotified()
		w.notifyErr = nil
		time.Sleep(time.Hour)
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		w.wantNotified("signed-in " + at)
	})
}

func TestADeadSignInIsKnownThoughItCouldNotBeNotedInTheVault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.notified()
		time.Sleep(time.Second)
		w.mustDo(w.authority.Revoke(bot))
		w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
		at := stamp()
		for range 5 {
			w.wantError(c, rotation.SignIn, "AADSTS50173")
			time.Sleep(time.Hour)
		}
		w.wantNotified("required AADSTS50173 " + at)
		if w.refreshes() != 1 {
			t.Errorf("%d requests with a dead refresh token, want 1", w.refreshes())
		}
		// A vault that can't be read leaves the question open, for a minute each.
		d := w.start()
		w.vault.set(func(v *memoryVault) { v.down = errDown })
		w.wantError(d, rotation.Transient, "vault")
	})
}

func TestAStatusOutlivesTheVaultsOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		before, err := c.Status(t.Context(), "build-bot")
		w.mustDo(err)
		w.vault.set(func(v *memoryVault) { v.down = errDown })
		time.Sleep(time.Hour)
		check(t, "status", w.mustStatus(c), before)
		_, err = w.start().Status(t.Context(), "build-bot")
		checkError(t, err, rotation.Transient, "vault")
		reads := w.vault.reads
		w.vault.set(func(v *memoryVault) { v.down = nil })
		for range 20 {
			_, err := c.Status(t.Context(), "build-bot")
			w.mustDo(err)
		}
		if got := w.vault.reads - reads; got > 1 {
			t.Errorf("%d reads for 20 questions in one minute", got)
		}
	})
}
