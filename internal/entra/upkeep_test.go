package entra_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func TestEachRefreshMovesTheSecretsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		for range 30 {
			time.Sleep(day)
			w.mustDo(c.Refresh(t.Context(), "build-bot"))
			stored := w.vault.latest()
			if age := time.Since(stored.created); age >= 7*day {
				t.Fatalf("the stored refresh token is %v old", age)
			}
			check(t, "the secret's end", stored.expires.UTC(), stored.created.UTC().Add(90*day))
		}
	})
}

func TestANewCauseIsNotifiedAtOnceAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		w.authority.Fail(fake.Failure{User: bot, Code: 50076})
		since := time.Now().UTC()
		at := func(d time.Duration) string { return since.Add(d).Format(time.RFC3339) }
		sweep := func(days int) {
			for range 4 * days { // each in two processes of their own
				a, b := w.start(), w.start()
				w.wantRequired(a)
				w.wantRequired(b)
				time.Sleep(6 * time.Hour)
			}
		}
		sweep(2)
		w.wantNotified("required AADSTS50076 "+at(0), "required AADSTS50076 "+at(day))
		w.mustDo(w.authority.DisableUser(bot, true))
		w.authority.ClearFailures()
		sweep(2)
		w.wantNotified("required AADSTS50057 "+at(2*day), "required AADSTS50057 "+at(3*day))
		if tag := w.vault.latest().tags["patrol-sign-in-required"]; tag != "AADSTS50057 "+at(2*day)+" "+at(3*day) {
			t.Errorf("tag %q", tag)
		}
		st := w.mustStatus(w.start())
		check(t, "cause", st.Cause, entra.UserDisabled)
		checkHas(t, "the message", st.Message, "disabled")
		w.mustDo(w.authority.DisableUser(bot, false))
		w.mustToken(w.start())
		w.wantNotified("signed-in " + stamp())
	})
}

func (w *world) wantRequired(c *entra.Client) {
	w.t.Helper()
	if err := c.Refresh(w.t.Context(), "build-bot"); rotation.ClassOf(err) != rotation.SignIn {
		w.t.Fatalf("got %v", err)
	}
}

// Two instances that probe on the same day send the same event, though neither
// sees what the other has noted.
func TestANewCauseFoundByTwoInstancesHasOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.authority.Fail(fake.Failure{User: bot, Code: 50076})
		a, b := w.start(), w.start()
		w.wantRequired(a)
		w.wantRequired(b)
		w.authority.ClearFailures()
		w.mustDo(w.authority.DisableUser(bot, true))
		w.notified()
		due := time.Now().UTC().Add(day).Format(time.RFC3339)
		w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
		time.Sleep(day + time.Minute)
		w.wantRequired(a)
		time.Sleep(time.Hour)
		w.wantRequired(b)
		w.wantNotified("required AADSTS50057 "+due, "required AADSTS50057 "+due)
	})
}

func TestARepairIsSeenByTheOtherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.authority.Fail(fake.Failure{User: bot, Code: 50076})
		a, b := w.start(), w.start()
		w.wantRequired(a)
		w.wantRequired(b)
		w.authority.ClearFailures()
		w.notified()
		time.Sleep(day)
		w.mustToken(a)
		w.wantNotified("signed-in " + stamp())
		check(t, "required", w.mustStatus(b).Required, false)
		w.mustToken(b)
		w.wantNotified()
	})
}

// The announcement survives a process that ends before it could send it.
func TestASignInThatCouldNotBeAnnouncedIsAnnouncedByTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.notifyErr = errors.New("a command line has no bus")
		w.signIn(w.start())
		at := stamp()
		w.notifyErr = nil
		time.Sleep(time.Hour)
		a, b := w.start(), w.start()
		w.mustToken(a)
		w.wantNotified("signed-in " + at)
		w.mustToken(b)
		w.mustToken(w.start())
		w.wantNotified()
		for tag := range w.vault.latest().tags {
			if strings.Contains(tag, "tell") {
				t.Errorf("the tag %s is still there", tag)
			}
		}
	})
}

func TestTheEndByInactivityIsAnnouncedFourteenDaysBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		until := time.Now().UTC().Truncate(time.Second).Add(90 * day)
		outage := faults.Fault{
			Service:   "entra",
			Operation: "token refresh_token",
			Mode:      faults.Status,
			Status:    503,
			Times:     -1,
		}
		w.mustDo(w.panel.Inject(outage))
		for range 75 {
			time.Sleep(day)
			err := w.start().Refresh(t.Context(), "build-bot")
			checkError(t, err, rotation.Transient, "http-503")
		}
		w.wantNotified()
		for range 4 * 5 {
			time.Sleep(6 * time.Hour)
			_ = w.start().Refresh(t.Context(), "build-bot")
		}
		w.wantNotified("expiring inactivity " + until.Format(time.RFC3339))
		if tag := w.vault.latest().tags["patrol-sign-in-expiring"]; tag != until.Format(time.RFC3339) {
			t.Errorf("tag %q", tag)
		}
		w.panel.ClearFaults()
		time.Sleep(5 * day)
		c := w.start()
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		w.wantNotified()
		check(t, "patrol-sign-in-expiring", w.vault.latest().tags["patrol-sign-in-expiring"], "")
		check(t, "versions in the vault", w.vault.count(), 2)
		st := w.mustStatus(c)
		check(t, "required", st.Required, false)
		if st.Until.Before(time.Now().Add(89 * day)) {
			t.Errorf("the sign-in ends at %v, want 90 days from now", st.Until)
		}
		// The next end is another one.
		w.mustDo(w.panel.Inject(outage))
		next := w.vault.latest().created.UTC().Add(90 * day)
		time.Sleep(80 * day)
		_ = c.Refresh(t.Context(), "build-bot")
		w.wantNotified("expiring inactivity " + next.Format(time.RFC3339))
	})
}

func TestAnEndThatCouldNotBeAnnouncedIsAnnouncedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		until := time.Now().UTC().Truncate(time.Second).Add(90 * day)
		w.vault.set(func(v *memoryVault) { v.readOnly = errDown }) // it can be got, and not stored
		time.Sleep(77 * day)
		c := w.start()
		w.notifyErr = errors.New("the bus is down")
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		w.wantNotified()
		w.notifyErr = nil
		time.Sleep(6 * time.Hour)
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		w.wantNotified("expiring inactivity " + until.Format(time.RFC3339))
		w.vault.set(func(v *memoryVault) { v.readOnly = nil })
		time.Sleep(6 * time.Hour)
		w.mustDo(c.Refresh(t.Context(), "build-bot"))
		w.wantNotified()
	})
}

func TestEachCauseHasACode(t *testing.T) {
	disable := func(w *world) error { return w.authority.DisableUser(bot, true) }
	for name, tc := range map[string]struct {
		end      func(w *world) error
		required bool
		code     string
		cause    entra.Cause
	}{
		"disabled": {disable, true, "AADSTS50057", entra.UserDisabled},
		"deleted": {func(w *world) error {
			return w.authority.DeleteUser(bot)
		}, true, "AADSTS500341", entra.UserDeleted},
		"at risk": {func(w *world) error {
			w.authority.AddPolicy(fake.Policy{BlockRisk: true})
			return nil
		}, true, "AADSTS53011", entra.PolicyBlocks},
		"device": {func(w *world) error {
			w.authority.AddPolicy(fake.Policy{Device: true})
			return nil
		}, true, "AADSTS50131", entra.PolicyBlocks},
		"token protection": {func(w *world) error {
			w.authority.AddPolicy(fake.Policy{TokenProtection: true})
			return nil
		}, false, "AADSTS530084", entra.PolicyBlocks},
		"security defaults": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 530035})
			return nil
		}, false, "AADSTS530035", entra.PolicyBlocks},
		"Azure DevOps switched off": {func(w *world) error {
			return w.authority.DisableResource(fake.DevOps, true)
		}, false, "AADSTS500014", entra.AppRegistration},
		"certificate over": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 1000502})
			return nil
		}, false, "AADSTS1000502", entra.AppRegistration},
		"external account": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 90072})
			return nil
		}, true, "AADSTS90072", entra.Guest},
		"no tenant": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 90002})
			return nil
		}, false, "AADSTS90002", entra.AppRegistration},
		"revoked": {func(w *world) error {
			return w.authority.Revoke(bot)
		}, true, "AADSTS50173", entra.SessionRevoked},
		"inactivity": {func(*world) error {
			time.Sleep(91 * day)
			return nil
		}, true, "AADSTS700082", entra.Inactivity},
		"consent": {func(w *world) error {
			w.authority.WithdrawConsent(bot, app)
			return nil
		}, true, "AADSTS65001", entra.ConsentMissing},
		"multi-factor": {func(w *world) error {
			w.authority.AddPolicy(fake.Policy{MFA: true})
			return nil
		}, true, "AADSTS50076", entra.InteractionRequired},
		"password": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 50133})
			return nil
		}, true, "AADSTS50133", entra.PasswordChanged},
		"frequency": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 70043})
			return nil
		}, true, "AADSTS70043", entra.InteractionRequired},
		"something else": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 4242})
			return nil
		}, true, "AADSTS4242", entra.Unknown},
		"block": {func(w *world) error {
			w.authority.AddPolicy(fake.Policy{Block: true})
			return nil
		}, false, "AADSTS53003", entra.InteractionRequired},
		"app registration": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 700016})
			return nil
		}, false, "AADSTS700016", entra.AppRegistration},
		"a passing fault": {func(w *world) error {
			w.authority.Fail(fake.Failure{Code: 90033})
			return nil
		}, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				time.Sleep(time.Second)
				w.mustDo(tc.end(w))
				c := w.start()
				if err := c.Refresh(t.Context(), "build-bot"); err == nil {
					t.Fatal("refreshed")
				}
				st := w.mustStatus(c)
				check(t, "required", st.Required, tc.required)
				check(t, "code", st.Code, tc.code)
				check(t, "cause", st.Cause, tc.cause)
				check(t, "has a message", st.Message != "", tc.code != "")
				if tc.required { // every other process has the same to say, from the vault
					other := w.mustStatus(w.start())
					check(t, "code of another process", other.Code, tc.code)
					check(t, "cause of another process", other.Cause, tc.cause)
				}
			})
		})
	}
	t.Run("nobody", func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		check(t, "cause", w.mustStatus(w.start()).Cause, entra.NotSignedIn)
		w.signIn(w.start())
		check(t, "cause", w.mustStatus(w.start()).Cause, "")
		check(t, "code", w.mustStatus(w.start()).Code, "")
	})
}

// The user's own password change ends what a public client got, and leaves the
// app's own sign-in alone.
func TestAPasswordChangeEndsACommandLinesSignInOnly(t *testing.T) {
	w := newWorld(t, fake.Switches{PasswordChangeIs50133: true})
	w.register("http://localhost")
	w.mustDo(w.signInAs(w.start(), bot))
	w.mustDo(w.authority.ChangePassword(bot))
	w.mustToken(w.start())
	w.signInPublicly()
	w.mustToken(w.start())
	w.mustDo(w.authority.ChangePassword(bot))
	c := w.start()
	w.wantError(c, rotation.SignIn, "AADSTS50133")
	check(t, "cause", w.mustStatus(c).Cause, entra.PasswordChanged)
}

func TestWhatConditionalAccessDemandsReachesTheSignInOfEveryProcess(t *testing.T) {
	long := `{"access_token":{"capolids":{"essential":true,"values":["` + strings.Repeat(
		"0a6e9b52-58dd-4d1a-a3c9-b5c1c5b8a0b1,",
		15,
	) + `"]}}}`
	for name, tc := range map[string]struct {
		demand string
		tags   int
		sent   bool
	}{
		"short":    {`{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`, 1, true},
		"long":     {long, 3, true},
		"too long": {strings.Replace(long, "0a6e9b52", strings.Repeat("x", 1000), 1), 0, false},
		"no JSON":  {"canary", 0, false},
		"no text":  {`{"access_token":{"ä":null}}`, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.signIn(w.start())
			w.vault.set(func(v *memoryVault) { v.versions[secretName][0].tags["owner"] = "team-a" })
			w.authority.Fail(fake.Failure{Code: 50076, Claims: tc.demand, Times: 1})
			w.wantError(w.start(), rotation.SignIn, "AADSTS50076")
			claims := 0
			for tag, value := range w.vault.latest().tags {
				if strings.HasPrefix(tag, "patrol-sign-in-claims") {
					claims++
				}
				if len(value) > 256 {
					t.Errorf("the tag %s has %d characters", tag, len(value))
				}
			}
			check(t, "tags that hold claims", claims, tc.tags)
			check(t, "the tag of others", w.vault.latest().tags["owner"], "team-a")
			c := w.start()
			page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
			w.mustDo(err)
			u, err := url.Parse(page)
			w.mustDo(err)
			want := ""
			if tc.sent {
				want = tc.demand
			}
			check(t, "claims", u.Query().Get("claims"), want)
			if strings.Contains(w.log.String(), "capolids") {
				t.Error("the claims are in the log")
			}
			if name == "no text" {
				return
			}
			w.mustDo(w.signInAs(c, bot))
			for tag := range w.vault.latest().tags {
				if strings.HasPrefix(tag, "patrol-sign-in-claims") {
					t.Error("the claims outlived the sign-in")
				}
			}
		})
	}
}

func TestASignInStartsWithoutTheVault(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.vault.set(func(v *memoryVault) { v.down = errDown })
	if _, err := w.start().SignInURL(t.Context(), "build-bot", signInRequest()); err != nil {
		t.Error(err)
	}
}

func TestManyClaimsChallengesMakeOneForcedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.mustToken(c)
		before := w.refreshes()
		w.mustDo(w.authority.InvalidateAccessTokens(bot))
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
		const challenge = `{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}`
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				token, err := c.Credential("build-bot").
					GetToken(t.Context(), policy.TokenRequestOptions{Claims: challenge})
				if err != nil {
					t.Error(err)
				} else if _, err := w.authority.VerifyAccessToken(token.Token); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := w.refreshes() - before; got != 1 {
			t.Errorf("%d refreshes for 20 challenges, want 1", got)
		}
	})
}

// slowly delays the answers of the token endpoint to one instance: the
// authority has acted by then.
func (w *world) slowly(d time.Duration) func(*entra.Config) {
	return func(cfg *entra.Config) {
		client := *w.http
		client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			resp, err := w.http.Transport.RoundTrip(r)
			if r.Method == http.MethodPost {
				time.Sleep(d)
			}
			return resp, err
		})
		cfg.HTTPClient = &client
	}
}

func TestTwoInstancesAtStaggeredTimesKeepTheSignIn(t *testing.T) {
	for _, delays := range [][3]time.Duration{ // of a's answers, of b's, and between their starts
		{0, 0, 0},
		{time.Second, 0, 0},
		{0, time.Second, time.Second / 2},
		{5 * time.Second, 0, time.Second},
		{3 * time.Second, 7 * time.Second, 2 * time.Second},
		{20 * time.Second, 0, 5 * time.Second},
	} {
		t.Run(fmt.Sprint(delays), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				w.notified()
				a, b := w.start(w.slowly(delays[0])), w.start(w.slowly(delays[1]))
				for range 10 {
					var both sync.WaitGroup
					both.Go(func() { w.mustToken(a) })
					time.Sleep(delays[2])
					both.Go(func() { w.mustToken(b) })
					both.Wait()
					time.Sleep(8 * day) // both have something to store
				}
				w.mustToken(w.start())
				w.wantNotified()
			})
		})
	}
}

// A process that ends between redeeming and storing takes the only good refresh
// token with it where one serves once: that is said. Entra's own way loses
// nothing.
func TestACrashBetweenRedeemingAndStoring(t *testing.T) {
	for _, once := range []bool{true, false} {
		t.Run(fmt.Sprint("strict rotation ", once), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{StrictRotation: once})
				w.signIn(w.start())
				w.notified()
				w.mustToken(w.start()) // and never again: it has crashed
				time.Sleep(time.Minute)
				b := w.start()
				if !once {
					w.mustToken(b)
					w.wantNotified()
					return
				}
				w.wantError(b, rotation.SignIn, "AADSTS70000")
				w.wantNotified("required AADSTS70000 " + stamp())
				w.signIn(b)
				w.mustToken(w.start())
			})
		})
	}
}

// An instance that could not store what it got is not dead because another one,
// which has only the vault's, is.
func TestAVerdictAboutTheStoredTokenSparesTheOneInMemory(t *testing.T) {
	for name, pauses := range map[string][]time.Duration{
		"while its access token is good": {time.Minute, 80 * time.Minute}, // it has to store, then to probe
		"after another refresh":          {80 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{StrictRotation: true})
				w.signIn(w.start())
				w.notified()
				time.Sleep(8 * day)
				a, b := w.start(), w.start()
				w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
				w.mustToken(a) // the vault's is used up
				w.vault.set(func(v *memoryVault) { v.readOnly = nil })
				w.wantError(b, rotation.SignIn, "AADSTS70000")
				w.notified()
				for _, pause := range pauses {
					w.wantNotified()
					time.Sleep(pause)
					w.mustToken(a)
				}
				w.wantNotified("signed-in " + stamp())
				time.Sleep(time.Minute)
				w.mustToken(b) // with what a has stored
				if tag, ok := w.vault.latest().tags["patrol-sign-in-required"]; ok {
					t.Errorf("the tag %q is still there", tag)
				}
			})
		})
	}
}

// Nor does it store what may be as dead, over what another one has noted.
func TestAVerdictIsNotOverwrittenByWhatMayBeDeadToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		a := w.start()
		w.mustToken(a)
		time.Sleep(8*day - time.Hour)
		w.vault.set(func(v *memoryVault) { v.readOnly = errDown })
		w.mustToken(a) // and could not store what it got
		w.vault.set(func(v *memoryVault) { v.readOnly = nil })
		time.Sleep(time.Minute)
		w.mustDo(w.authority.Revoke(bot))
		at := stamp()
		w.wantError(w.start(), rotation.SignIn, "AADSTS50173")
		time.Sleep(time.Minute)
		w.mustToken(a) // which is still good
		time.Sleep(80 * time.Minute)
		w.wantError(a, rotation.SignIn, "AADSTS50173")
		w.wantError(w.start(), rotation.SignIn, "AADSTS50173")
		w.wantNotified("required AADSTS50173 " + at)
		if got := w.vault.count(); got != 1 {
			t.Errorf("%d versions, want 1", got)
		}
	})
}
