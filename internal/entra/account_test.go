package entra

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// closedStore is an empty vault into which nobody may write.
type closedStore struct{ t *testing.T }

func (s closedStore) Read(context.Context, string) (rotation.Secret, map[string]string, string, time.Time, error) {
	return rotation.Secret{}, nil, "", time.Time{}, rotation.ErrNotFound
}

func (s closedStore) Write(
	context.Context, string, rotation.Secret, string, map[string]string, time.Time,
) (string, time.Time, error) {
	s.t.Error("something was stored")
	return "", time.Time{}, errors.New("closed")
}

func (s closedStore) Tag(context.Context, string, string, map[string]string) error {
	s.t.Error("a tag was written")
	return errors.New("closed")
}

const (
	testTenant = "11111111-2222-3333-4444-555555555555"
	testUser   = "build-bot@contoso.com"

	otherTenant = "22222222-2222-3333-4444-555555555555"
)

// accountOf is the account of build-bot over a vault into which nobody may write.
func accountOf(t *testing.T) *account {
	t.Helper()
	c, err := New(Config{
		Tenant: testTenant, ClientID: "app", Store: closedStore{t},
		Identities: map[string]Identity{"build-bot": {User: testUser}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.accounts["build-bot"]
}

func mustDecode(t *testing.T, raw string) document {
	t.Helper()
	d, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const goodCache = `{"RefreshToken":{"x":{"client_id":"app","secret":"canary","home_account_id":"h"}}}`

func TestOnlyAMemberOfTheTenantWithTheManifestsNameIsSaved(t *testing.T) {
	for name, tc := range map[string]struct {
		grant grant
		code  string
	}{
		"another user":           {grant{user: "mallory@contoso.com"}, "wrong-user"},
		"nobody in particular":   {grant{}, "wrong-user"},
		"another tenant":         {grant{user: testUser, tenantID: otherTenant}, "wrong-tenant"},
		"a guest":                {grant{user: testUser, guest: true}, "guest"},
		"a guest by name":        {grant{user: "ann_fabrikam.com#ext#@contoso.com"}, "guest"},
		"a name that is no name": {grant{user: "<script>\x00canary"}, "wrong-user"},
		"a name without an end":  {grant{user: strings.Repeat("canary", 100)}, "wrong-user"},
	} {
		t.Run(name, func(t *testing.T) {
			err := accountOf(t).finishSignIn(t.Context(), mustDecode(t, goodCache), tc.grant)
			e := rotation.AsError(err)
			if e == nil {
				t.Fatalf("got %v, want %s", err, tc.code)
			}
			if e.Code != tc.code {
				t.Errorf("code %s, want %s", e.Code, tc.code)
			}
			if e.Class != rotation.SignIn {
				t.Errorf("class %s, want %s", e.Class, rotation.SignIn)
			}
			for _, part := range []string{"canary", "<"} {
				if strings.Contains(e.Message, part) {
					t.Errorf("the message quotes %q: %s", part, e.Message)
				}
			}
		})
	}
}

func TestASignInWithoutARefreshTokenIsNotSaved(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing in the cache": `{}`,
		"of another app":       strings.Replace(goodCache, "app", "other", 1),
		"of no account":        strings.Replace(goodCache, `"h"`, `""`, 1),
		"of another user": strings.TrimSuffix(goodCache, "}") +
			`,"Account":{"y":{"home_account_id":"h","username":"mallory@contoso.com"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			err := accountOf(t).finishSignIn(t.Context(), mustDecode(t, raw), grant{user: testUser})
			if err == nil {
				t.Fatal("it was saved")
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes the refresh token: %v", err)
			}
		})
	}
}

func TestAParsersErrorDoesNotQuoteTheCache(t *testing.T) {
	_, err := decode(`{"RefreshToken":"canary"}`)
	if err == nil {
		t.Fatal("it was read")
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error quotes the cache: %v", err)
	}
}

func TestARequiredSignInKeepsItsBeginning(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	made := func(code string, since, notified time.Time) *required {
		r := newRequired(&rotation.Error{Code: code}, since)
		r.notified = notified
		return r
	}
	var none time.Time
	for name, tc := range map[string]struct {
		before, next    *required
		since, notified time.Time
	}{
		"the first": {nil, made("a", noon, none), noon, none},
		"the same, later": {
			made("a", noon, noon), made("a", noon.Add(time.Hour), none), noon, noon,
		},
		"the same, notified of by another instance": {
			made("a", noon, none), made("a", noon.Add(time.Hour), noon.Add(time.Hour)), noon, noon.Add(time.Hour),
		},
		"the same, earlier": {
			made("a", noon, noon), made("a", noon.Add(-time.Hour), none), noon.Add(-time.Hour), none,
		},
		"another": {
			made("a", noon, noon), made("b", noon.Add(time.Hour), none), noon.Add(time.Hour), none,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := state{required: tc.before, repaired: &repaired{}}
			s.require(tc.next)
			if got := s.required.since; !got.Equal(tc.since) {
				t.Errorf("required since %v, want %v", got, tc.since)
			}
			if got := s.required.notified; !got.Equal(tc.notified) {
				t.Errorf("notified at %v, want %v", got, tc.notified)
			}
			if s.repaired != nil {
				t.Error("it is announced as repaired all the same")
			}
		})
	}
}

func TestADeadSignInIsProbedRarely(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		required required
		want     bool
	}{
		"not notified of yet":        {required{code: "AADSTS50076"}, false},
		"notified of a moment ago":   {required{code: "AADSTS50076", notified: now.Add(-time.Minute)}, false},
		"notified of yesterday":      {required{code: "AADSTS50076", notified: now.Add(-notifyEvery)}, true},
		"of the stored one only":     {required{code: "AADSTS50076", notified: now, elsewhere: true}, true},
		"nobody has signed in":       {required{code: CodeNotSignedIn, notified: now.Add(-notifyEvery)}, false},
		"another user has signed in": {required{code: codeWrongUser, elsewhere: true}, false},
		"another object id":          {required{code: CodeUserIDChanged, elsewhere: true}, false},
	} {
		s := state{required: &tc.required}
		if got := s.shouldProbe(now); got != tc.want {
			t.Errorf("%s: probed %v, want %v", name, got, tc.want)
		}
	}
	s := state{required: &required{code: codeWrongUser, notified: now.Add(-notifyEvery)}, hasUserID: true}
	if !s.shouldProbe(now) {
		t.Error("another user, whose object id is known, is not asked again for the name of today")
	}
}

// A probe's time belongs to its own repair: a later sign-in has its own.
func TestARepairByAProbeIsForgottenWithTheNextRefusal(t *testing.T) {
	s := state{repaired: &repaired{probedAt: time.Unix(1, 0)}}
	s.require(newRequired(&rotation.Error{Code: "AADSTS50173"}, time.Unix(2, 0)))
	s.required = nil
	s.repair()
	if got := s.repaired.probedAt; !got.IsZero() {
		t.Errorf("the repair has the time %v of an older probe", got)
	}
}
