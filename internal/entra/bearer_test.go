package entra

import (
	"errors"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestABearerIsFreshUntilItShouldBeRenewed(t *testing.T) {
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	expires, renew := start.Add(time.Hour), start.Add(30*time.Minute)
	for name, tc := range map[string]struct {
		renew time.Time
		at    time.Time
		want  bool
	}{
		"new":                          {renew, start, true},
		"when it should be renewed":    {renew, renew, false},
		"long before its end":          {time.Time{}, renew, true},
		"five minutes before its end":  {time.Time{}, expires.Add(-expiryMargin), false},
		"a little more than that":      {time.Time{}, expires.Add(-expiryMargin - time.Second), true},
		"after its end":                {time.Time{}, expires.Add(time.Second), false},
		"to be renewed after its end":  {expires.Add(time.Hour), expires, false},
		"renewal and end at long last": {expires, start, true},
	} {
		var b bearer
		b.set(rotation.NewSecret("token"), expires, tc.renew, lacking{})
		if _, got := b.current(tc.at); got != tc.want {
			t.Errorf("%s: fresh %v, want %v", name, got, tc.want)
		}
		b.forget()
		got, fresh := b.current(tc.at)
		if fresh || got.Token != "" {
			t.Errorf("%s: a forgotten token is given out", name)
		}
	}
}

func TestCallersThatHaveWaitedShareAnOutcome(t *testing.T) {
	var a attempts
	failed := errors.New("refused")
	plain, forced := a.count(false), a.count(true)
	if _, ok := a.since(plain, false); ok {
		t.Error("an outcome without an attempt")
	}
	a.add(false, failed)
	if got, ok := a.since(plain, false); !ok || got != failed {
		t.Errorf("got %v (%v), want the outcome of the attempt", got, ok)
	}
	if _, ok := a.since(forced, true); ok {
		t.Error("an attempt without claims does for a caller with claims")
	}
	a.add(true, nil)
	if got, ok := a.since(forced, true); !ok || got != nil {
		t.Errorf("got %v (%v), want the outcome of the attempt with claims", got, ok)
	}
}

// Otherwise a caller that has waited for a failed attempt and for the sign-in
// after it would get an empty token.
func TestASignInVoidsTheOutcomeBeforeIt(t *testing.T) {
	var a attempts
	before := a.count(false)
	a.add(false, errors.New("refused"))
	a.forget()
	if got, ok := a.since(before, false); ok {
		t.Errorf("got %v, want an attempt of its own", got)
	}
	a.add(false, nil)
	if got, ok := a.since(before, false); !ok || got != nil {
		t.Errorf("got %v (%v), want the outcome of the attempt after the sign-in", got, ok)
	}
}
