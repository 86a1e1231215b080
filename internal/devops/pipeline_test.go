package devops_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

func TestRetryAfterIsHonoured(t *testing.T) {
	for name, value := range map[string]func() string{
		"in seconds": func() string { return "25" },
		"as a date":  func() string { return time.Now().Add(25 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		for _, status := range []int{429, 503} {
			t.Run(name+", "+strconv.Itoa(status), func(t *testing.T) {
				run(t, func(t *testing.T, s *fixture) {
					s.fault(t, faults.Fault{Mode: faults.Status, Status: status,
						Header: map[string]string{"Retry-After": value()}})
					start := time.Now()
					if _, err := s.List(t.Context(), owner); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(start); took != 25*time.Second {
						t.Errorf("waited %v", took)
					}
				})
			})
		}
	}
}

func TestALongPauseIsLeftToTheCaller(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.fault(t, faults.Fault{Mode: faults.Status, Status: 429, Header: map[string]string{"Retry-After": "300"}})
		start := time.Now()
		_, err := s.List(t.Context(), owner)
		if e := wants(t, "list", err, rotation.Throttled, "http-429"); e.After != 5*time.Minute {
			t.Errorf("After = %v", e.After)
		}
		// The whole identity slows down, not just this call.
		_, err = s.Create(t.Context(), rotation.Owner{Identity: "build-bot", Organization: "fabrikam"}, request("x"))
		if e := wants(t, "create", err, rotation.Throttled, "paused"); e.After != 5*time.Minute {
			t.Errorf("After = %v", e.After)
		}
		if n := s.count(azure.CreatePat); n != 0 {
			t.Errorf("%d creations in the pause", n)
		}
		if _, err := s.List(t.Context(), rotation.Owner{Identity: "night-bot", Organization: "contoso"}); err != nil ||
			time.Since(start) != 0 {
			t.Errorf("another identity: %v after %v", err, time.Since(start))
		}
		time.Sleep(4*time.Minute + 30*time.Second)
		if _, err := s.Create(t.Context(), owner, request("x")); err != nil || time.Since(start) != 5*time.Minute {
			t.Errorf("half a minute before its end: %v after %v", err, time.Since(start))
		}
	})
}

func TestTheBudgetsResetStandsInForRetryAfter(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.fault(t, faults.Fault{Mode: faults.Status, Status: 429,
			Header: map[string]string{"X-RateLimit-Reset": strconv.FormatInt(time.Now().Add(2*time.Minute).Unix(),
				10)}})
		_, err := s.Create(t.Context(), owner, request("x"))
		if e := wants(t, "create", err, rotation.Throttled, "http-429"); e.After != 2*time.Minute {
			t.Errorf("After = %v", e.After)
		}
	})
}

func TestAnAbsurdRetryAfterIsNotBelieved(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		for _, value := range []string{"99999999999999999999", "1e300"} {
			s.fault(t, faults.Fault{Mode: faults.Status, Status: 429, Header: map[string]string{"Retry-After": value}})
			_, err := s.List(t.Context(), owner)
			if e := wants(t, value, err, rotation.Throttled, "http-429"); e.After != time.Hour {
				t.Errorf("%s: After = %v", value, e.After)
			}
			time.Sleep(time.Hour)
		}
		for _, value := range []string{"-1", "NaN", "Inf", "soon", "0"} {
			s.fault(t, faults.Fault{Mode: faults.Status, Status: 429, Header: map[string]string{"Retry-After": value}})
			start := time.Now()
			if _, err := s.List(t.Context(), owner); err != nil || time.Since(start) > 2*time.Second {
				t.Errorf("%s: %v after %v", value, err, time.Since(start))
			}
		}
	})
}

func TestAPauseThatComesWithASuccessIsKept(t *testing.T) {
	for _, asDate := range []bool{false, true} {
		t.Run(fmt.Sprint("as a date ", asDate), func(t *testing.T) {
			run(t, func(t *testing.T, s *fixture) {
				s.azure.SlowDown(ada, 12*time.Second, asDate)
				start := time.Now()
				if _, err := s.List(t.Context(), owner); err != nil || time.Since(start) != 0 {
					t.Fatalf("%v after %v", err, time.Since(start))
				}
				short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				_, err := s.List(short, owner)
				if e := wants(t, "a caller in a hurry", err, rotation.Throttled, "paused"); e.After != 12*time.Second ||
					time.Since(start) != 0 {
					t.Errorf("After = %v after %v", e.After, time.Since(start))
				}
				if _, err := s.Create(t.Context(), owner, request("x")); err != nil ||
					time.Since(start) != 12*time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if n := s.azure.Impatient(ada); n != 0 {
					t.Errorf("%d calls in the pause", n)
				}
			})
		})
	}
}

// A PAT that is there and not proved would have to be revoked again.
func TestTheProofOfANewPATDoesNotWaitForAPauseToEnd(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.azure.SlowDown(ada, 4*time.Minute, false)
		issued, err := s.Create(t.Context(), owner, request("x"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Prove(t.Context(), owner, issued.Token); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_, err = s.Create(t.Context(), owner, request("y"))
		wants(t, "another creation", err, rotation.Throttled, "paused")
		if time.Since(start) != 0 {
			t.Errorf("refused after %v", time.Since(start))
		}
	})
}

func TestABusyIdentityNeverCallsInAPause(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.azure.Switch(func(sw *azure.Switches) { sw.Throttle = azure.Throttle{Cost: 30} })
		var refused int
		for range 30 {
			if _, err := s.List(t.Context(), owner); err != nil {
				refused++
				e, ok := errors.AsType[*rotation.Error](err)
				if !ok || e.Class != rotation.Throttled || e.After <= 0 {
					t.Fatal(err)
				}
				time.Sleep(e.After)
			}
		}
		if n := s.azure.Impatient(ada); n != 0 || refused == 0 {
			t.Errorf("%d calls in a pause, %d refused by the client", n, refused)
		}
	})
}

func TestAClaimsChallengeIsAnsweredWithItsClaims(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		s.azure.Challenge(ada)
		if _, err := s.Create(t.Context(), owner, request("x")); err != nil {
			t.Fatal(err)
		}
		asked := s.entra.asked()
		if len(asked) != 2 || !strings.HasPrefix(asked[1].Claims, `{"access_token":{"nbf"`) {
			t.Errorf("token requests %+v", asked)
		}
		if n := len(s.azure.PATs("contoso", ada)); n != 1 {
			t.Errorf("%d PATs were made", n)
		}
	})
}

func TestARefusedAccessTokenIsReplaced(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		s.entra.kill(fmt.Sprintf("build-bot/1/%d", time.Now().Add(time.Hour).Unix()))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := s.Create(t.Context(), owner, request("x")); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, o := range s.entra.asked()[1:] {
			if o.Claims != "{}" {
				t.Errorf("a token was asked for with the claims %q, want {}: the refused one is still there", o.Claims)
			}
		}
		if n := len(s.azure.PATs("contoso", ada)); n != 8 {
			t.Errorf("%d PATs were made, want 8", n)
		}
	})
}

// A mistyped organization, or one that the user has been taken out of: a new token is
// tried once a day, and not at each look. The others keep theirs.
func TestAnOrganizationThatRefusesEveryTokenForcesOneRefreshADay(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		forced := func() (n int) {
			for _, o := range s.entra.asked() {
				if o.Claims != "" {
					n++
				}
			}
			return n
		}
		refuses := true
		s.panel.OnCall(func(int, faults.Call) *faults.Fault {
			if refuses {
				return &faults.Fault{Mode: faults.Status, Status: http.StatusUnauthorized}
			}
			return nil
		})
		for range 20 {
			_, err := s.List(t.Context(), owner)
			if e := rotation.AsError(err); e == nil {
				t.Fatalf("the list of an organization that refuses: %v", err)
			}
			time.Sleep(time.Hour)
		}
		if n := forced(); n != 1 {
			t.Errorf("20 looks have forced %d refreshes, want 1", n)
		}
		time.Sleep(5 * time.Hour)
		_, _ = s.List(t.Context(), owner)
		if n := forced(); n != 2 {
			t.Errorf("a day later %d refreshes have been forced, want 2", n)
		}
		refuses = false
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Errorf("once the organization takes the token: %v", err)
		}
	})
}

func TestATokenThatAnotherCallHasReplacedIsNotThrownAway(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		// While the next call is under way its token ends, and another call gets a new one.
		replace := sync.OnceFunc(func() {
			s.entra.kill(fmt.Sprintf("build-bot/1/%d", time.Now().Add(time.Hour).Unix()))
			o := policy.TokenRequestOptions{Scopes: devops.DefaultScopes(), Claims: "{}"}
			if _, err := (credential{s.entra, "build-bot"}).GetToken(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
		s.panel.OnCall(func(int, faults.Call) *faults.Fault { replace(); return nil })
		if _, err := s.Create(t.Context(), owner, request("x")); err != nil {
			t.Error(err)
		}
		if n := len(s.entra.asked()); n != 2 {
			t.Errorf("%d token requests, want 2: the first and the other call's", n)
		}
	})
}

func TestTheCredentialIsAskedBeforeEachCall(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		list := func(want int, why string) {
			t.Helper()
			if _, err := s.List(t.Context(), owner); err != nil {
				t.Errorf("%s: %v", why, err)
			}
			if n := len(s.entra.asked()); n != want {
				t.Errorf("%s: %d token requests, want %d", why, n, want)
			}
		}
		list(1, "the first call")
		time.Sleep(54 * time.Minute)
		list(1, "while the credential keeps its token")
		time.Sleep(2 * time.Minute)
		list(2, "once it renews it")
		time.Sleep(56 * time.Minute)
		s.entra.err = errors.New("Entra is down")
		_, err := s.List(t.Context(), owner)
		wants(t, "the credential has no token", err, rotation.Transient, "no-bearer-token")
	})
}

func TestSignInErrorsComeThroughUnchanged(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		want := &rotation.Error{Class: rotation.SignIn, Code: "AADSTS700082", Message: "sign in again"}
		s.entra.err = fmt.Errorf("getting a token: %w", want)
		_, err := s.Create(t.Context(), owner, request("x"))
		if got, ok := err.(*rotation.Error); !ok || got != want {
			t.Errorf("%v", err)
		}
		if _, err := s.List(t.Context(), owner); !errors.Is(err, want) {
			t.Errorf("%v", err)
		}
		if n := len(s.entra.asked()); n != 2 {
			t.Errorf("%d token requests for two calls: a credential's error is not repeated", n)
		}
		// While the token still lives, a dead sign-in is an error all the same.
		s.entra.err = nil
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		time.Sleep(56 * time.Minute)
		s.entra.err = want
		if _, err := s.List(t.Context(), owner); !errors.Is(err, want) {
			t.Errorf("%v", err)
		}
		// Refused, and then the sign-in turns out to be dead: nothing was made.
		s.azure.Challenge(ada)
		s.entra.err = nil
		s.panel.OnCall(func(int, faults.Call) *faults.Fault { s.entra.err = want; return nil })
		if _, err := s.Create(t.Context(), owner, request("x")); !errors.Is(err, want) ||
			len(s.azure.PATs("", "")) != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("from the lookup", func(t *testing.T) {
		want := &rotation.Error{Class: rotation.Configuration, Code: "no-identity"}
		run(t, func(t *testing.T, s *fixture) {
			if _, err := s.List(t.Context(), owner); !errors.Is(err, want) {
				t.Errorf("%v", err)
			}
		}, func(c *devops.Config, _ *fixture) {
			c.Credential = func(string) (azcore.TokenCredential, error) { return nil, want }
		})
	})
}

func TestMissingPermissionsAreAConfigurationError(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.entra.scopes = []string{"vso.pats"}
		if _, err := s.List(t.Context(), owner); err != nil {
			t.Errorf("vso.pats lists: %v", err)
		}
		_, err := s.Create(t.Context(), owner, request("x"))
		wants(t, "create without vso.pats_manage", err, rotation.Configuration, "TF400813")
		if n := s.count(azure.CreatePat); n != 2 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestNoRedirectIsFollowed(t *testing.T) {
	signIn := func(s *fixture) *int {
		var n int
		s.azure.OnRequest(func(r *http.Request) {
			if strings.Contains(r.URL.Path, "_signin") {
				n++
			}
		})
		return &n
	}
	redirect := faults.Fault{Mode: faults.Status, Status: 302, Times: -1,
		Header: map[string]string{"Location": "https://vssps.dev.azure.com/_signin"}}
	t.Run("by the client", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			n := signIn(s)
			s.fault(t, redirect)
			_, err := s.List(t.Context(), owner)
			wants(t, "list", err, rotation.Transient, "sign-in-page")
			if *n != 0 {
				t.Error("the sign-in page was visited")
			}
		})
	})
	t.Run("or it is noticed", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			n := signIn(s)
			s.fault(t, redirect)
			_, err := s.List(t.Context(), owner)
			wants(t, "list", err, rotation.Transient, "sign-in-page")
			if *n == 0 {
				t.Error("this transport should have followed")
			}
		}, func(c *devops.Config, _ *fixture) {
			c.ClientOptions.Transport = follower{c.ClientOptions.Transport.(*http.Client)}
		})
	})
}

// follower is a transport of someone who follows redirects.
type follower struct{ client *http.Client }

func (f follower) Do(r *http.Request) (*http.Response, error) { return f.client.Do(r) }

func TestRetriesCanBeTuned(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.fault(t, faults.Fault{Mode: faults.Status, Status: 503, Times: -1})
		start := time.Now()
		_, err := s.List(t.Context(), owner)
		wants(t, "list", err, rotation.Transient, "http-503")
		if took := time.Since(start); s.count(azure.ListPats) != 6 || took < 15*time.Second || took > 31*time.Second {
			t.Errorf("%d tries in %v", s.count(azure.ListPats), took)
		}
	}, func(c *devops.Config, _ *fixture) {
		c.ClientOptions.Retry = policy.RetryOptions{MaxRetries: 5, RetryDelay: time.Second}
	})
	t.Run("off", func(t *testing.T) {
		run(t, func(t *testing.T, s *fixture) {
			s.fault(t, faults.Fault{Mode: faults.Status, Status: 503})
			_, err := s.List(t.Context(), owner)
			wants(t, "list", err, rotation.Transient, "http-503")
		}, func(c *devops.Config, _ *fixture) { c.ClientOptions.Retry.MaxRetries = -1 })
	})
}

func TestADelayedAnswerIsWaitedFor(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		s.fault(t, faults.Fault{Operation: azure.CreatePat, Mode: faults.Slow, Delay: 35 * time.Second})
		if _, err := s.Create(t.Context(), owner, request("x")); err != nil {
			t.Error(err)
		}
	})
}

func TestNoTokenLeaksIntoErrorsAndLogs(t *testing.T) {
	run(t, func(t *testing.T, s *fixture) {
		ctx := t.Context()
		made, err := s.Create(ctx, owner, request("x"))
		if err != nil {
			t.Fatal(err)
		}
		pat := made.Token.Reveal()
		bearer := fmt.Sprintf("build-bot/1/%d", time.Now().Add(time.Hour).Unix())
		leak := pat + " " + bearer
		var texts []string
		note := func(err error) {
			if err == nil {
				t.Error("no error")
			}
			texts = append(texts, fmt.Sprintf("%v|%+v|%#v", err, err, err))
			for err != nil {
				texts = append(texts, fmt.Sprintf("%v|%+v|%#v", err, err, err))
				err = errors.Unwrap(err)
			}
		}
		for _, f := range []faults.Fault{
			{Mode: faults.Status, Status: 400, Header: map[string]string{"Content-Type": "application/json",
				"X-TFS-ServiceError": leak}, Body: `{"typeKey":"` + pat + `Exception","message":"` + leak + `"}`},
			{Mode: faults.Status, Status: 500, Body: leak},
			{Mode: faults.Status, Status: 302, Header: map[string]string{"Location": "https://x/" + leak}},
			{Mode: faults.Status, Status: 200, Header: map[string]string{"Content-Type": "application/json"},
				Body: `{"patTokenError":"` + pat + `"}`},
			{Mode: faults.Status, Status: 200, Header: map[string]string{"Content-Type": "application/json"},
				Body: `{"patToken":{"authorizationId":"1","validTo":"` + pat + `","token":"` + pat + `"}}`},
			{Mode: faults.Status, Status: 200, Header: map[string]string{"Content-Type": "application/json"},
				Body: `{"patToken":{"token":["` + pat + `"]}}`},
			{Mode: faults.ResetAfter},
			{Mode: faults.HangAfter},
		} {
			f.Times = -1
			s.fault(t, f)
			_, err := s.Create(ctx, owner, request("y"))
			note(err)
			_, err = s.Prove(ctx, owner, made.Token)
			note(err)
			s.panel.ClearFaults()
		}
		texts = append(texts, s.log.String(), fmt.Sprintf("%v %+v %#v", made, made, made))
		for _, text := range texts {
			if strings.Contains(text, pat) || strings.Contains(text, bearer) {
				t.Errorf("a token shows in %s", text)
			}
		}
	})
}

func TestNothingIsLeftRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A client owns no goroutine: the bubble would not end if it did.
		e := &entra{life: time.Hour}
		if _, err := devops.New(devops.Config{Credential: e.credential}); err != nil {
			t.Error(err)
		}
	})
}
