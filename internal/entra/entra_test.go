package entra_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	bot        = "build-bot@contoso.com"
	botID      = "0b0b0b0b-0000-4000-a000-000000000001"
	app        = "9a9a9a9a-0000-4000-a000-000000000002"
	miClient   = "3c3c3c3c-0000-4000-a000-000000000003"
	secretName = "patrol-identity-build-bot"
	day        = 24 * time.Hour
)

var patScopes = []string{fake.DevOps + "/vso.pats", fake.DevOps + "/vso.pats_manage"}

// memoryVault is a Key Vault in memory: versions, tags, and outages.
type memoryVault struct {
	mu       sync.Mutex
	versions map[string][]version
	down     error
	readOnly error
	reads    int
	writes   int
	tags     int
}

type version struct {
	id      string
	value   rotation.Secret
	kind    string
	tags    map[string]string
	created time.Time
	expires time.Time
}

var errDown = &rotation.Error{Class: rotation.Transient, Code: "vault", Message: "the vault is down"}

func (v *memoryVault) Read(
	ctx context.Context,
	name string,
) (rotation.Secret, map[string]string, string, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	if v.down != nil {
		return rotation.Secret{}, nil, "", time.Time{}, v.down
	}
	vs := v.versions[name]
	if len(vs) == 0 {
		return rotation.Secret{}, nil, "", time.Time{}, fmt.Errorf("reading %s: %w", name, rotation.ErrNotFound)
	}
	l := vs[len(vs)-1]
	return l.value, maps.Clone(l.tags), l.id, l.created, ctx.Err()
}

func (v *memoryVault) Write(
	_ context.Context,
	name string,
	value rotation.Secret,
	contentType string,
	tags map[string]string,
	expires time.Time,
) (string, time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := errors.Join(v.down, v.readOnly); err != nil {
		return "", time.Time{}, err
	}
	v.writes++
	n := version{
		fmt.Sprintf("%s-%d", name, len(v.versions[name])+1),
		value,
		contentType,
		maps.Clone(tags),
		time.Now().Truncate(time.Second),
		expires,
	}
	v.versions[name] = append(v.versions[name], n)
	return n.id, n.created, nil
}

func (v *memoryVault) Tag(_ context.Context, name, id string, tags map[string]string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := errors.Join(v.down, v.readOnly); err != nil {
		return err
	}
	v.tags++
	for i := range v.versions[name] {
		if v.versions[name][i].id == id {
			v.versions[name][i].tags = maps.Clone(tags)
			return nil
		}
	}
	return rotation.ErrNotFound
}

func (v *memoryVault) latest() version {
	v.mu.Lock()
	defer v.mu.Unlock()
	vs := v.versions[secretName]
	if len(vs) == 0 {
		return version{}
	}
	return vs[len(vs)-1]
}

func (v *memoryVault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.versions[secretName])
}

func (v *memoryVault) set(change func(*memoryVault)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v)
}

// world is a tenant, a vault and a topic, over which instances of patrol come
// and go.
type world struct {
	t         *testing.T
	authority *fake.Server
	panel     *faults.Injector
	http      *http.Client
	vault     *memoryVault
	principal string // of the app's managed identity
	redirect  string // URI to which sign-ins come back

	mu        sync.Mutex
	events    []rotation.Event
	notifyErr error // what Notify answers
	log       journal
	errors    []error
	answers   []string // tokens that were given out
}

// journal is the log of several processes.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newWorld(t *testing.T, switches fake.Switches) *world {
	t.Helper()
	return newWorldIn(t, "login.microsoftonline.com", switches)
}

// newWorldIn is a world in the cloud with this authority.
func newWorldIn(t *testing.T, host string, switches fake.Switches) *world {
	t.Helper()
	w := &world{
		t:        t,
		panel:    &faults.Injector{},
		redirect: redirect,
		vault:    &memoryVault{versions: map[string][]version{}},
	}
	w.authority = fake.New(fake.Config{Authority: "https://" + host, Injector: w.panel, Switches: switches})
	w.authority.AddUser(fake.User{UPN: bot, ObjectID: botID})
	w.principal = w.authority.AddIdentity(fake.ManagedIdentity{ClientID: miClient})
	w.register()
	var network memnet.Network
	l, err := network.Listen(host + ":443")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.authority}
	go func() { _ = srv.Serve(l) }()
	w.http = &http.Client{Transport: network.Transport()}
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		_ = srv.Close()
	})
	return w
}

// register makes the app registration, with these redirect URIs of native
// clients beside the app's own.
func (w *world) register(native ...string) {
	w.authority.AddApp(
		fake.App{
			ClientID: app,
			Web:      []string{"https://patrol.example/api/signin/callback"},
			Native:   native,
			Scopes:   patScopes,
			Roles:    []fake.AppRole{{ID: newID, Value: "Patrol.Reader"}, {ID: botID, Value: "Patrol.Operator"}},
			Federated: []fake.FederatedCredential{
				{Issuer: w.authority.Issuer(), Subject: w.principal, Audience: fake.TokenExchange},
			},
		},
	)
}

// managedIdentity is the platform's credential: it asks the fake directly.
type managedIdentity struct {
	authority *fake.Server
	err       error
	scopes    []string
	mu        sync.Mutex
}

func (m *managedIdentity) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scopes = append(m.scopes, o.Scopes...)
	if m.err != nil {
		return azcore.AccessToken{}, m.err
	}
	token, expires, err := m.authority.IdentityToken(miClient, strings.TrimSuffix(o.Scopes[0], "/.default"))
	return azcore.AccessToken{Token: token, ExpiresOn: expires}, err
}

func (w *world) config() entra.Config {
	return entra.Config{
		Tenant: fake.DefaultTenant, ClientID: app, HTTPClient: w.http, Store: w.vault,
		PublicURL:  "https://patrol.example",
		Credential: entra.Credential{ManagedIdentity: &managedIdentity{authority: w.authority}},
		Identities: map[string]entra.Identity{"build-bot": {User: bot}},
		Log:        slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Notify: func(_ context.Context, e rotation.Event) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.notifyErr != nil {
				return w.notifyErr
			}
			w.events = append(w.events, e)
			return nil
		},
	}
}

// start is a new process.
func (w *world) start(change ...func(*entra.Config)) *entra.Client {
	w.t.Helper()
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	c, err := entra.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// signIn gives the bot a sign-in, saved through c.
func (w *world) signIn(c *entra.Client) {
	w.t.Helper()
	w.mustDo(w.signInAs(c, bot))
}

// put makes a version of the bot's secret by hand: a refresh token of this user,
// under these tags.
func (w *world) put(owner string, tags map[string]string) {
	w.t.Helper()
	token, err := w.authority.SeedRefreshToken(owner, app, patScopes...)
	w.mustDo(err)
	cache := fmt.Sprintf(`{
		"RefreshToken": {"by-hand": {"home_account_id": "by-hand", "environment": "login.microsoftonline.com",
			"credential_type": "RefreshToken", "client_id": %q, "secret": %q}},
		"AppMetadata": {"by-hand": {"client_id": %[1]q, "environment": "login.microsoftonline.com"}}
	}`, app, token)
	_, _, err = w.vault.Write(w.t.Context(), secretName, rotation.NewSecret(cache), "", tags, time.Time{})
	w.mustDo(err)
}

func (w *world) token(c *entra.Client) (azcore.AccessToken, error) {
	t, err := c.Credential("build-bot").
		GetToken(w.t.Context(), policy.TokenRequestOptions{Scopes: []string{fake.DevOps + "/.default"}})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errors = append(w.errors, err)
	}
	w.answers = append(w.answers, t.Token)
	return t, err
}

func (w *world) mustToken(c *entra.Client) azcore.AccessToken {
	w.t.Helper()
	t, err := w.token(c)
	if err != nil {
		w.t.Fatal(err)
	}
	claims, err := w.authority.VerifyAccessToken(t.Token)
	if err != nil {
		w.t.Fatalf("the access token is not valid: %v", err)
	}
	check(w.t, "the token's user", claims.UPN, bot)
	check(w.t, "the token's audience", claims.Audience, fake.DevOps)
	check(w.t, "the number of the token's scopes", len(claims.Scopes), 2)
	return t
}

// wantError asks for a token and expects a class and a code.
func (w *world) wantError(c *entra.Client, class rotation.Class, code string) *rotation.Error {
	w.t.Helper()
	_, err := w.token(c)
	e := rotation.AsError(err)
	if e == nil || e.Class != class || e.Code != code {
		w.t.Fatalf("got %v, want class %s, code %s", err, class, code)
	}
	if e.Message == "" {
		w.t.Errorf("%s has no words", code)
	}
	return e
}

func (w *world) refreshes() int { return w.panel.Count("entra", "token refresh_token") }

// notified lists the events since the last call, as text.
func (w *world) notified() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.events {
		switch e := e.(type) {
		case *rotation.SignInRequired:
			out = append(out, fmt.Sprintf("required %s %s", e.Code, e.At.UTC().Format(time.RFC3339)))
		case *rotation.SignedIn:
			out = append(out, "signed-in "+e.At.UTC().Format(time.RFC3339))
		case *rotation.SignInExpiring:
			out = append(out, fmt.Sprintf("expiring %s %s", e.Code, e.Until.UTC().Format(time.RFC3339)))
		}
	}
	w.events = nil
	return out
}

func (w *world) wantNotified(want ...string) {
	w.t.Helper()
	if got := w.notified(); fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Errorf("notified of %q, want %q", got, want)
	}
}

func stamp() string { return time.Now().UTC().Format(time.RFC3339) }

func TestASignInYieldsTokensFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		first := w.mustToken(c)
		if again := w.mustToken(c); again != first {
			t.Error("the second call got another token")
		}
		w.checkCounts(1, 1)
		time.Sleep(70 * time.Minute) // 5 minutes before its end
		if later := w.mustToken(c); later == first {
			t.Error("a token at its end was given out again")
		}
		w.checkCounts(2, 1)
	})
}

func TestAColdProcessLivesOnWhatTheVaultHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		stored := w.vault.latest()
		check(t, "content type", stored.kind, "application/vnd.patrol.msal-cache+json")
		check(t, "patrol-user", stored.tags["patrol-user"], bot)
		check(t, "patrol-user-id", stored.tags["patrol-user-id"], botID)
		check(t, "patrol-signed-in-at", stored.tags["patrol-signed-in-at"], stamp())
		check(t, "the secret's end", stored.expires, time.Now().UTC().Truncate(time.Second).Add(90*day))
		for range 3 {
			time.Sleep(time.Hour)
			w.mustToken(w.start())
		}
		if w.vault.count() != 1 {
			t.Errorf("%d versions, want 1", w.vault.count())
		}
	})
}

func TestTheRefreshTokenIsStoredWhenTheStoredOneIsSevenDaysOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		for i := 1; i <= 4*15; i++ { // a sweep every six hours, for 15 days
			time.Sleep(6 * time.Hour)
			if err := c.Refresh(t.Context(), "build-bot"); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.vault.count(); got != 3 { // sign-in, day 7, day 14
			t.Errorf("%d versions after 15 days, want 3", got)
		}
		stored := w.vault.latest()
		if age := time.Since(stored.created); age != day {
			t.Errorf("the stored refresh token is %v old", age)
		}
		if !stored.expires.Equal(stored.created.Add(90 * day)) {
			t.Errorf("stored %v, expires %v", stored.created, stored.expires)
		}
		raw := stored.value.Reveal()
		checkLacks(t, "the stored cache", raw, "AccessToken")
		checkLacks(t, "the stored cache", raw, "IdToken")
		checkHas(t, "the stored cache", raw, `"Account"`)
		checkHas(t, "the stored cache", raw, `"AppMetadata"`)
		if n := strings.Count(raw, `"credential_type":"RefreshToken"`); n != 1 {
			t.Errorf("the stored cache holds %d refresh tokens, want 1", n)
		}
		if len(raw) > 3<<10 {
			t.Errorf("the stored cache has %d bytes", len(raw))
		}
		if got := stored.tags["patrol-signed-in-at"]; got == "" || got == stamp() {
			t.Errorf("patrol-signed-in-at = %q", got)
		}
		// It works for who comes 90 days after it was stored.
		time.Sleep(89*day - time.Minute)
		w.mustToken(w.start())
	})
}

func TestNinetyDaysOfInactivityNeedASignInAndTheNextOneRepairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		first := w.start()
		w.signIn(first)
		w.wantNotified("signed-in " + stamp())
		time.Sleep(91 * day)
		c := w.start()
		e := w.wantError(c, rotation.SignIn, "AADSTS700082")
		checkHas(t, "the message", e.Message, "90 days")
		if e.ActivityID == "" {
			t.Error("the failure has no activity id")
		}
		w.wantNotified("required AADSTS700082 " + stamp())
		check(t, "tag", w.vault.latest().tags["patrol-sign-in-required"], "AADSTS700082 "+stamp())
		st := w.mustStatus(c)
		check(t, "required", st.Required, true)
		check(t, "code", st.Code, "AADSTS700082")
		check(t, "link", st.SignInLink, "https://patrol.example/api/identities/build-bot/signin")
		time.Sleep(time.Second)
		w.signIn(w.start()) // in another process
		w.wantNotified("signed-in " + stamp())
		at := stamp()
		w.wantError(c, rotation.SignIn, "AADSTS700082") // reads the vault once a minute only
		time.Sleep(time.Minute)
		w.mustToken(c)
		w.wantNotified("signed-in " + at) // the same event, by its id
		st = w.mustStatus(c)
		check(t, "required", st.Required, false)
		check(t, "signed in", st.SignedIn.Format(time.RFC3339), at)
		if st.Until.Before(time.Now().Add(89 * day)) {
			t.Errorf("the sign-in ends at %v, want 90 days from now", st.Until)
		}
	})
}

func TestADeadSignInIsNotifiedOncePerDayAndRarelyTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		time.Sleep(time.Second)
		if err := w.authority.Revoke(bot); err != nil {
			t.Fatal(err)
		}
		since := time.Now().UTC()
		for range 4 * 3 { // three days of sweeps, each in a process of its own, with many calls
			c := w.start()
			_ = c.Refresh(t.Context(), "build-bot")
			for range 20 {
				w.wantError(c, rotation.SignIn, "AADSTS50173")
			}
			time.Sleep(6 * time.Hour)
		}
		at := func(d time.Duration) string { return since.Add(d).Format(time.RFC3339) }
		w.wantNotified(
			"required AADSTS50173 "+at(0),
			"required AADSTS50173 "+at(day),
			"required AADSTS50173 "+at(2*day),
		)
		check(t, "tag", w.vault.latest().tags["patrol-sign-in-required"], "AADSTS50173 "+at(0)+" "+at(2*day))
		if got := w.refreshes(); got != 3 { // once a day
			t.Errorf("%d requests with a dead refresh token, want 3", got)
		}
	})
}

func TestADeadSignInThatComesBackToLifeIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.notified()
		w.authority.Fail(fake.Failure{User: bot, Code: 50076})
		w.wantError(c, rotation.SignIn, "AADSTS50076")
		w.wantNotified("required AADSTS50076 " + stamp())
		w.authority.ClearFailures() // the policy was relaxed
		time.Sleep(day)
		w.mustToken(c)
		w.wantNotified("signed-in " + stamp())
		if tag, ok := w.vault.latest().tags["patrol-sign-in-required"]; ok {
			t.Errorf("the tag is still there: %s", tag)
		}
		w.mustToken(w.start())
		w.wantNotified()
	})
}

func TestANotificationThatFailedIsSentLaterAndBeforeTheTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.notified()
		time.Sleep(time.Second)
		w.mustDo(w.authority.Revoke(bot))
		w.notifyErr = errors.New("the bus is down")
		at := stamp()
		w.wantError(c, rotation.SignIn, "AADSTS50173")
		if tag, ok := w.vault.latest().tags["patrol-sign-in-required"]; ok {
			t.Fatalf("tagged %q before anybody was notified", tag)
		}
		w.notifyErr = nil
		time.Sleep(time.Hour)
		w.wantError(c, rotation.SignIn, "AADSTS50173")
		w.wantNotified("required AADSTS50173 " + at)
		if w.vault.latest().tags["patrol-sign-in-required"] != "AADSTS50173 "+at {
			t.Errorf("tags %v", w.vault.latest().tags)
		}
	})
}

func (w *world) mustDo(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWithoutASignInEveryProcessSendsTheSameEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		midnight := time.Now().UTC().Truncate(day).Format(time.RFC3339)
		c := w.start()
		w.wantError(c, rotation.SignIn, "not-signed-in")
		w.wantError(c, rotation.SignIn, "not-signed-in")
		w.wantNotified("required not-signed-in " + midnight)
		time.Sleep(time.Hour)
		w.wantError(w.start(), rotation.SignIn, "not-signed-in")
		w.wantNotified("required not-signed-in " + midnight)
		w.checkCounts(0, 0)
		st := w.mustStatus(c)
		check(t, "required", st.Required, true)
		check(t, "code", st.Code, "not-signed-in")
		check(t, "signed in", st.SignedIn, time.Time{})
		w.signIn(w.start())
		time.Sleep(time.Minute)
		w.mustToken(c)
	})
}

func TestManyCallersMakeOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{StrictRotation: true})
		w.signIn(w.start())
		c := w.start()
		w.mustDo(
			w.panel.Inject(
				faults.Fault{
					Service:   "entra",
					Operation: "token refresh_token",
					Mode:      faults.Slow,
					Delay:     time.Second,
				},
			),
		)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { w.mustToken(c) })
		}
		wg.Wait()
		if got := w.refreshes(); got != 1 {
			t.Errorf("%d refreshes, want 1", got)
		}
	})
}

func TestManyCallersShareOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		c := w.start()
		w.mustDo(
			w.panel.Inject(
				faults.Fault{
					Service:   "entra",
					Operation: "token refresh_token",
					Mode:      faults.HangBefore,
					Delay:     time.Second,
				},
			),
		)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { w.wantError(c, rotation.Transient, "entra-unreachable") })
		}
		wg.Wait()
		if got := w.refreshes(); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
		w.mustToken(c)
	})
}

func TestACallerThatGivesUpDoesNotCutTheRefreshOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{StrictRotation: true})
		w.signIn(w.start())
		time.Sleep(8 * day)
		c := w.start()
		w.mustDo(
			w.panel.Inject(
				faults.Fault{
					Service:   "entra",
					Operation: "token refresh_token",
					Mode:      faults.Slow,
					Delay:     10 * time.Second,
				},
			),
		)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Credential("build-bot").GetToken(ctx, policy.TokenRequestOptions{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
		}
		check(t, "waited", time.Since(start), time.Second)
		// A caller that queues behind it can give up, too.
		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		if _, err := c.Credential("build-bot").GetToken(ctx2, policy.TokenRequestOptions{}); !errors.Is(
			err,
			context.DeadlineExceeded,
		) {
			t.Fatal(err)
		}
		w.mustToken(c)
		w.checkCounts(1, 2)
	})
}

func TestClassesOfFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		fail  fake.Failure
		class rotation.Class
		code  string
		after time.Duration
	}{
		"inactivity":   {fake.Failure{Code: 700082}, rotation.SignIn, "AADSTS700082", 0},
		"multi-factor": {fake.Failure{Code: 50076}, rotation.SignIn, "AADSTS50076", 0},
		"multi-factor, other error": {fake.Failure{Code: 50076, Error: "interaction_required"},
			rotation.SignIn, "AADSTS50076", 0},
		"sign-in frequency":          {fake.Failure{Code: 70043}, rotation.SignIn, "AADSTS70043", 0},
		"consent":                    {fake.Failure{Code: 65001}, rotation.SignIn, "AADSTS65001", 0},
		"disabled":                   {fake.Failure{Code: 50057}, rotation.SignIn, "AADSTS50057", 0},
		"unknown grant problem":      {fake.Failure{Code: 9999999}, rotation.SignIn, "AADSTS9999999", 0},
		"Conditional Access block":   {fake.Failure{Code: 53003}, rotation.Policy, "AADSTS53003", 0},
		"no credential":              {fake.Failure{Code: 7000218}, rotation.Configuration, "AADSTS7000218", 0},
		"credential of a public app": {fake.Failure{Code: 700025}, rotation.Configuration, "AADSTS700025", 0},
		"wrong federated subject":    {fake.Failure{Code: 700213}, rotation.Configuration, "AADSTS700213", 0},
		"unknown app":                {fake.Failure{Code: 700016}, rotation.Configuration, "AADSTS700016", 0},
		"unknown resource":           {fake.Failure{Code: 500011}, rotation.Configuration, "AADSTS500011", 0},
		"unknown scope":              {fake.Failure{Code: 650053}, rotation.Configuration, "AADSTS650053", 0},
		// These come as a bad grant, and no new sign-in mends them.
		"token protection":  {fake.Failure{Code: 530084}, rotation.Policy, "AADSTS530084", 0},
		"security defaults": {fake.Failure{Code: 530035}, rotation.Policy, "AADSTS530035", 0},
		"resource switched off": {fake.Failure{Code: 500014, Error: "invalid_grant"},
			rotation.Configuration, "AADSTS500014", 0},
		"certificate over": {fake.Failure{Code: 1000502}, rotation.Configuration, "AADSTS1000502", 0},
		"no such tenant":   {fake.Failure{Code: 90002}, rotation.Configuration, "AADSTS90002", 0},
		"deleted":          {fake.Failure{Code: 500341}, rotation.SignIn, "AADSTS500341", 0},
		"external account": {fake.Failure{Code: 90072}, rotation.SignIn, "AADSTS90072", 0},
		"at risk":          {fake.Failure{Code: 53011}, rotation.SignIn, "AADSTS53011", 0},
		"device":           {fake.Failure{Code: 50131}, rotation.SignIn, "AADSTS50131", 0},
		"device, message only": {fake.Failure{Code: 50131, SubError: "message_only"},
			rotation.Policy, "AADSTS50131", 0},
		"throttled": {fake.Failure{Code: 90055, RetryAfter: 17 * time.Second},
			rotation.Throttled, "AADSTS90055", 17 * time.Second},
		"throttled without a word": {fake.Failure{Code: 90055}, rotation.Throttled, "AADSTS90055", 0},
		"client loop":              {fake.Failure{Code: 50196}, rotation.Throttled, "AADSTS50196", 5 * time.Minute},
		"hiccup":                   {fake.Failure{Code: 90033}, rotation.Transient, "AADSTS90033", 0},
		"hiccup with a promise": {fake.Failure{Code: 90033, RetryAfter: time.Minute},
			rotation.Transient, "AADSTS90033", time.Minute},
		"something nobody knows": {fake.Failure{Code: 1, Error: "what_is_this"}, rotation.Transient, "AADSTS1", 0},
		"an internal error of theirs": {fake.Failure{Code: 2, Error: "server_error", Status: 500},
			rotation.Transient, "AADSTS2", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				w.authority.Fail(tc.fail)
				e := w.wantError(w.start(), tc.class, tc.code)
				check(t, "wait", e.After, tc.after)
				if e.ActivityID == "" {
					t.Error("the failure has no activity id")
				}
			})
		})
	}
}

func TestAnswersThatAreNotEntrasAreTransient(t *testing.T) {
	for name, tc := range map[string]struct {
		fault faults.Fault
		code  string
	}{
		"gateway page":     {faults.Fault{Mode: faults.Status, Status: 502, Body: "<html>no</html>"}, "http-502"},
		"page with 200":    {faults.Fault{Mode: faults.Status, Status: 200, Body: "<html>no</html>"}, "entra-answer"},
		"page with 400":    {faults.Fault{Mode: faults.Status, Status: 400, Body: "<html>no</html>"}, "http-400"},
		"broken":           {faults.Fault{Mode: faults.ResetBefore}, "entra-unreachable"},
		"no answer at all": {faults.Fault{Mode: faults.HangBefore}, "entra-unreachable"},
		"redirect": {faults.Fault{
			Mode: faults.Status, Status: 307, Header: map[string]string{"Location": "https://evil.example/token"},
		}, "http-307"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				c := w.start()
				w.mustToken(c)
				time.Sleep(80 * time.Minute)
				tc.fault.Service, tc.fault.Operation, tc.fault.Times = "entra", "token refresh_token", -1
				w.mustDo(w.panel.Inject(tc.fault))
				w.wantError(c, rotation.Transient, tc.code)
				w.panel.ClearFaults()
				w.mustToken(c)
			})
		})
	}
}

func TestThrottlingIsHonouredWithoutFurtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		c := w.start()
		w.authority.Fail(fake.Failure{App: app, Code: 90055, RetryAfter: 5 * time.Minute, Times: 1})
		for range 10 {
			w.wantError(c, rotation.Throttled, "AADSTS90055")
			time.Sleep(29 * time.Second)
		}
		if got := w.refreshes(); got != 1 {
			t.Errorf("%d requests within the pause, want 1", got)
		}
		time.Sleep(10 * time.Second)
		w.mustToken(c)
	})
}

func TestTheVaultsOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		warm := w.start()
		w.mustToken(warm)
		w.vault.set(func(v *memoryVault) { v.down = errDown })
		w.wantError(w.start(), rotation.Transient, "vault") // cold: nothing to go on
		// Warm: goes on, and stores what is due once the vault is back.
		for range 8 * 4 {
			time.Sleep(6 * time.Hour)
			w.mustToken(warm)
			w.mustDo(warm.Refresh(t.Context(), "build-bot"))
		}
		w.vault.set(func(v *memoryVault) { v.down = nil })
		if w.vault.count() != 1 {
			t.Fatal("stored during the outage?")
		}
		w.mustToken(warm) // still within the minute after the last failed attempt
		time.Sleep(time.Minute)
		w.mustToken(warm)
		if w.vault.count() != 2 {
			t.Errorf("%d versions, want 2", w.vault.count())
		}
	})
}

func TestAFailedWriteNeverWithholdsAToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{StrictRotation: true})
		w.signIn(w.start())
		time.Sleep(8 * day)
		c := w.start()
		w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
		for range 5 {
			w.mustToken(c)
			time.Sleep(80 * time.Minute)
		}
		w.vault.set(func(v *memoryVault) { v.readOnly = nil })
		w.mustToken(c)
		if w.vault.count() != 2 {
			t.Errorf("%d versions, want 2", w.vault.count())
		}
		w.mustToken(w.start()) // and it is the right one
	})
}

func TestTwoInstancesNotifyOfOneDeadSignInOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		a, b := w.start(), w.start()
		w.mustToken(a)
		w.mustToken(b)
		time.Sleep(80 * time.Minute)
		w.mustDo(w.authority.Revoke(bot))
		at := stamp()
		w.wantError(a, rotation.SignIn, "AADSTS50173")
		time.Sleep(10 * time.Second)
		w.wantError(b, rotation.SignIn, "AADSTS50173")
		w.wantNotified("required AADSTS50173 " + at)
	})
}

func TestANewSignInOfAnotherProcessIsNotOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.mustToken(c)
		time.Sleep(8 * day)
		w.signIn(w.start())
		fresh := w.vault.latest()
		w.mustDo(c.Refresh(t.Context(), "build-bot")) // its own is 8 days old
		if got := w.vault.latest(); got.id != fresh.id {
			t.Error("an older sign-in was stored over a new one")
		}
	})
}

func TestClaimsForceOneRefresh(t *testing.T) {
	for name, public := range map[string]bool{"confidential client": false, "public client": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{RefuseEmptyClaims: true})
				change := func(*entra.Config) {}
				if public {
					w.publicApp()
					change = func(cfg *entra.Config) { cfg.Credential = entra.Credential{} }
				}
				w.signIn(w.start(change))
				var forms []url.Values
				c := w.recorded(&forms, change)
				first := w.mustToken(c)
				w.mustDo(w.authority.InvalidateAccessTokens(bot))
				if _, err := w.authority.VerifyAccessToken(first.Token); !errors.Is(err, fake.ErrRevoked) {
					t.Fatal(err)
				}
				const challenge = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
				for _, claims := range []string{challenge, "{}", "not JSON"} {
					next, err := c.Credential("build-bot").
						GetToken(t.Context(), policy.TokenRequestOptions{Claims: claims, EnableCAE: true})
					if err != nil || next.Token == first.Token {
						t.Fatalf("%s: %v", claims, err)
					}
					if _, err := w.authority.VerifyAccessToken(next.Token); err != nil {
						t.Error(err)
					}
					first = next
				}
				if again := w.mustToken(c); again != first {
					t.Error("the forced token is not the one in memory")
				}
				var sent []string
				for _, f := range forms {
					sent = append(sent, f.Get("claims"))
				}
				if fmt.Sprint(sent) != fmt.Sprint([]string{"", challenge, "", ""}) {
					t.Errorf("claims on the wire: %q", sent)
				}
			})
		})
	}
}

// A caller that has waited for its turn has its token, though a sign-in that comes next
// forgets the one in memory.
func TestASignInBesideARefreshLeavesNobodyWithoutAToken(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.signIn(c)
	k := c.Credential("build-bot")
	for range 30 {
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				o := policy.TokenRequestOptions{Scopes: patScopes, Claims: "{}"}
				token, err := k.GetToken(t.Context(), o)
				if err == nil && token.Token == "" {
					t.Error("an empty token, and no error")
				}
			})
		}
		w.signIn(c)
		callers.Wait()
	}
}
