package events_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/events"
)

func body(t *testing.T, e events.Event) []byte {
	t.Helper()
	b, err := events.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func handle(t *testing.T, s *events.Subscriber, body []byte) {
	t.Helper()
	if err := s.Handle(t.Context(), body); err != nil {
		t.Fatalf("handling %s: %v", body, err)
	}
}

func TestEachTypeReachesItsOwnCallback(t *testing.T) {
	var got string
	s := events.Subscriber{
		OnRotated: func(_ context.Context, _ events.Event, d events.Rotated) error {
			got = "rotated " + d.PAT
			return nil
		},
		OnRevoked: func(_ context.Context, _ events.Event, d events.Revoked) error {
			got = "revoked " + d.PAT
			return nil
		},
		OnRotationFailed: func(_ context.Context, _ events.Event, d events.RotationFailed) error {
			got = "failed " + d.Step
			return nil
		},
		OnExpiring: func(_ context.Context, _ events.Event, d events.Expiring) error {
			got = "expiring " + d.AuthorizationID
			return nil
		},
		OnSignedIn: func(_ context.Context, _ events.Event, d events.SignedIn) error {
			got = "signed in " + d.User
			return nil
		},
		OnSignInRequired: func(_ context.Context, _ events.Event, d events.SignInRequired) error {
			got = "sign in " + d.Code
			return nil
		},
		OnSignInExpiring: func(_ context.Context, _ events.Event, d events.SignInExpiring) error {
			got = "sign in until " + d.Until.Format(time.DateOnly)
			return nil
		},
		OnCheckIncomplete: func(_ context.Context, _ events.Event, d events.CheckIncomplete) error {
			got = "incomplete " + d.Code
			return nil
		},
		OnCheckRecovered: func(_ context.Context, _ events.Event, d events.CheckRecovered) error {
			got = fmt.Sprint("recovered after ", d.Lasted)
			return nil
		},
		OnOther: func(_ context.Context, e events.Event) error { got = "other " + e.Type; return nil },
		Memory:  -1,
	}
	for name, want := range map[string]string{
		"rotated": "rotated jenkins-agents", "revoked": "revoked jenkins-agents", "failed": "failed create",
		"expiring": "expiring c3e8d9a0-64f7-4f0d-b1ce-20d7b7a8e655", "signed in": "signed in build-bot@contoso.com",
		"sign-in required": "sign in AADSTS700082",
		"sign-in expiring": "sign in until 2026-12-08",
		"incomplete":       "incomplete values-refused",
		"recovered":        "recovered after 129600",
	} {
		handle(t, &s, body(t, every()[name].event))
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	handle(t, &s, []byte(`{"specversion":"1.0","id":"1","source":"s","type":"patrol.pat.born"}`))
	if want := "other patrol.pat.born"; got != want {
		t.Errorf("unknown type: got %q, want %q", got, want)
	}
	s.OnRevoked = nil
	handle(t, &s, body(t, every()["revoked"].event))
	if want := "other patrol.pat.revoked"; got != want {
		t.Errorf("no callback of its own: got %q, want %q", got, want)
	}
}

func TestEventsThatNobodyWantsAreDone(t *testing.T) {
	var s events.Subscriber
	handle(t, &s, body(t, rotated()))
	if err := s.Handle(t.Context(), []byte("{")); !errors.Is(err, events.ErrMalformed) {
		t.Errorf("broken JSON: got %v", err)
	}
}

func TestACopyOfADeliveredEventIsDroppedAndAFailedOneComesAgain(t *testing.T) {
	calls, fail := 0, errors.New("downstream")
	result := fail
	s := events.Subscriber{OnRotated: func(context.Context, events.Event, events.Rotated) error {
		calls++
		return result
	}}
	b := body(t, rotated())
	if err := s.Handle(t.Context(), b); err != fail {
		t.Errorf("the callback's error came back as %v", err)
	}
	result = nil
	for range 3 {
		handle(t, &s, b)
	}
	if calls != 2 {
		t.Errorf("called %d times, want 2: the failure and one success", calls)
	}
	other := rotated()
	other.Source = "/patrol/another-vault"
	handle(t, &s, body(t, other))
	if calls != 3 {
		t.Errorf("called %d times, want 3: the same id of another source is another event", calls)
	}
}

func TestTheMemoryOfDeliveredEventsIsBounded(t *testing.T) {
	calls := map[string]int{}
	s := events.Subscriber{Memory: 3, OnRotated: func(_ context.Context, e events.Event, _ events.Rotated) error {
		calls[e.ID]++
		return nil
	}}
	deliver := func(n int) {
		e := rotated()
		e.ID = fmt.Sprint(n)
		handle(t, &s, body(t, e))
	}
	for n := range 5 { // forgets 0 and 1
		deliver(n)
	}
	deliver(2)
	deliver(4)
	deliver(0) // again, and forgets 2
	deliver(2) // again
	deliver(0)
	want := map[string]int{"0": 2, "1": 1, "2": 2, "3": 1, "4": 1}
	if !maps.Equal(calls, want) {
		t.Errorf("got %v, want %v", calls, want)
	}
}

func TestACopyWaitsForTheDeliveryThatIsRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		gate := make(chan error)
		s := events.Subscriber{OnRotated: func(context.Context, events.Event, events.Rotated) error {
			calls.Add(1)
			return <-gate
		}}
		b := body(t, rotated())
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- s.Handle(t.Context(), b) }()
		}
		synctest.Wait()
		if n := calls.Load(); n != 1 {
			t.Fatalf("%d deliveries at once", n)
		}
		failure := errors.New("first attempt")
		gate <- failure
		if err := <-results; err != failure {
			t.Errorf("first: %v", err)
		}
		synctest.Wait()
		if n := calls.Load(); n != 2 {
			t.Fatalf("after a failure the copy was not delivered (%d calls)", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Handle(ctx, b); !errors.Is(err, context.Canceled) {
			t.Errorf("a waiting copy does not end with its context: %v", err)
		}
		gate <- nil
		if err := <-results; err != nil {
			t.Errorf("second: %v", err)
		}
	})
}

func TestAPanickingCallbackDoesNotBlockTheNextDelivery(t *testing.T) {
	panics := true
	s := events.Subscriber{OnRotated: func(context.Context, events.Event, events.Rotated) error {
		if panics {
			panic("bug")
		}
		return nil
	}}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Handle(t.Context(), body(t, rotated()))
	}()
	panics = false
	handle(t, &s, body(t, rotated()))
}
