package keyring_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/keyring"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// store is a vault of one secret.
type store struct {
	value         string
	reads, writes int
	err           error
	// before is called once, in the moment before the next write.
	before func()
}

func (s *store) Read(context.Context, string) (rotation.Secret, map[string]string, string, time.Time, error) {
	s.reads++
	switch {
	case s.err != nil:
		return rotation.Secret{}, nil, "", time.Time{}, s.err
	case s.value == "":
		return rotation.Secret{}, nil, "", time.Time{}, rotation.ErrNotFound
	}
	return rotation.NewSecret(s.value), nil, "v", time.Time{}, nil
}

func (s *store) Write(_ context.Context, name string, value rotation.Secret, _ string, _ map[string]string,
	_ time.Time) (string, time.Time, error) {
	if name != keyring.SecretName {
		return "", time.Time{}, errors.New("another secret was written")
	}
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	s.writes++
	s.value = value.Reveal()
	return "v", time.Time{}, s.err
}

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func (c *clock) wait(_ context.Context, d time.Duration) error {
	c.t = c.t.Add(d)
	return nil
}

func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }

func start() (*store, *clock, *keyring.Keyring) {
	s, c := &store{}, &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	return s, c, keyring.New(s, c.now, c.wait)
}

func seal(t *testing.T, r *keyring.Keyring, purpose, text string) string {
	t.Helper()
	out, err := r.Seal(t.Context(), purpose, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnotherInstanceOpensWhatOneHasSealed(t *testing.T) {
	s, c, one := start()
	sealed := seal(t, one, "cookie", "hello")
	got, err := keyring.New(s, c.now, c.wait).Open(t.Context(), "cookie", sealed)
	if err != nil || string(got) != "hello" {
		t.Fatalf("opened %q, %v", got, err)
	}
	if strings.Contains(sealed, "hello") {
		t.Error("the text shows")
	}
	if s.writes != 1 {
		t.Errorf("%d keys were made, want one", s.writes)
	}
}

func TestWhatWasNotSealedHereDoesNotOpen(t *testing.T) {
	_, _, r := start()
	sealed := seal(t, r, "cookie", "hello")
	_, _, other := start()
	foreign := seal(t, other, "cookie", "hello")
	last := sealed[len(sealed)-5:]
	for name, tt := range map[string]struct{ purpose, text string }{
		"another purpose": {"form", sealed},
		"another app":     {"cookie", foreign},
		"cut":             {"cookie", sealed[:len(sealed)-1]},
		"changed": {"cookie", strings.TrimSuffix(sealed, last) + strings.Map(func(c rune) rune { return c ^ 1 },
			last)},
		"empty":        {"cookie", ""},
		"key id alone": {"cookie", sealed[:9]},
		"no base64":    {"cookie", sealed[:9] + "***"},
		"too long":     {"cookie", sealed + strings.Repeat("A", 9<<10)},
	} {
		if got, err := r.Open(t.Context(), tt.purpose, tt.text); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("%s: opened %q, %v", name, got, err)
		}
	}
}

func opens(t *testing.T, r *keyring.Keyring, sealed, want string) {
	t.Helper()
	got, err := r.Open(t.Context(), "cookie", sealed)
	if err != nil || string(got) != want {
		t.Errorf("opened %q, %v; want %q", got, err, want)
	}
}

func staysShut(t *testing.T, r *keyring.Keyring, sealed, why string) {
	t.Helper()
	if got, err := r.Open(t.Context(), "cookie", sealed); !errors.Is(err, keyring.ErrSealed) {
		t.Errorf("%s: opened %q, %v", why, got, err)
	}
}

func TestAKeyIsReplacedAfterAMonthAndOpensForAnother(t *testing.T) {
	s, c, r := start()
	first := seal(t, r, "cookie", "first")
	c.pass(31 * 24 * time.Hour)
	// Other instances may not know the new key yet.
	between := seal(t, r, "cookie", "between")
	if s.writes != 2 || first[:8] != between[:8] {
		t.Fatalf("%d keys, the first seals %v: want a second one that waits", s.writes, first[:8] == between[:8])
	}
	c.pass(2 * time.Minute)
	second := seal(t, r, "cookie", "second")
	if s.writes != 2 || first[:8] == second[:8] {
		t.Fatalf("%d keys: want the second one in use", s.writes)
	}
	opens(t, r, first, "first")
	c.pass(30 * 24 * time.Hour)
	seal(t, r, "cookie", "third")
	staysShut(t, r, first, "a key of two months ago")
}

// An app that nobody has looked at for two months has no key left that counts.
func TestAnAppThatRestedForMonthsSealsWithAKeyThatOpens(t *testing.T) {
	_, c, r := start()
	old := seal(t, r, "cookie", "old")
	c.pass(61 * 24 * time.Hour)
	opens(t, r, seal(t, r, "cookie", "new"), "new")
	staysShut(t, r, old, "a key of two months ago")
}

func TestTwoInstancesThatMakeAKeyAtOnceAgree(t *testing.T) {
	for name, age := range map[string]time.Duration{"the first one": 0, "the next one": 31 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s, c, one := start()
			two := keyring.New(s, c.now, c.wait)
			if age > 0 {
				seal(t, one, "cookie", "x")
				c.pass(age)
			}
			// Both have read that there is none; the other one writes first, and then this.
			var theirs string
			s.before = func() { theirs = seal(t, two, "cookie", "two") }
			mine := seal(t, one, "cookie", "one")
			if age > 0 {
				opens(t, one, theirs, "two")
			}
			opens(t, two, mine, "one")
			c.pass(5 * time.Minute)
			opens(t, one, seal(t, two, "cookie", "later"), "later")
			opens(t, two, seal(t, one, "cookie", "later"), "later")
			opens(t, two, mine, "one")
		})
	}
}

func TestSignOutEverywhereKeepsNoKeyAndIsKnownWithinAMinute(t *testing.T) {
	s, c, one := start()
	two := keyring.New(s, c.now, c.wait)
	sealed := seal(t, one, "cookie", "x")
	opens(t, two, sealed, "x")
	c.pass(time.Second)
	if err := one.SignOutEverywhere(t.Context()); err != nil {
		t.Fatal(err)
	}
	staysShut(t, one, sealed, "where it was ordered")
	c.pass(time.Minute)
	staysShut(t, two, sealed, "a minute later elsewhere")
	for name, r := range map[string]*keyring.Keyring{"one": one, "two": two, "a new process": keyring.New(s, c.now,
		c.wait)} {
		at, err := r.SessionsNotBefore(t.Context())
		if err != nil || at.IsZero() || c.t.Sub(at) > 2*time.Minute {
			t.Errorf("%s: sessions not before %v, %v; want the moment of the order", name, at, err)
		}
	}
	keys, err := two.Keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v: want one, and none before it", len(keys), err)
	}
	if !strings.Contains(s.value, `"sessions-not-before"`) {
		t.Errorf("the secret does not say since when: %s", s.value)
	}
	opens(t, two, seal(t, one, "cookie", "again"), "again")
	// The key of the next month keeps the word.
	c.pass(31 * 24 * time.Hour)
	seal(t, two, "cookie", "y")
	if !strings.Contains(s.value, `"sessions-not-before"`) {
		t.Error("the next key forgets since when sessions count")
	}
}

// An instance that makes the next month's key has read the old ones before the order.
func TestSignOutEverywhereOutlivesAnotherInstancesNextKey(t *testing.T) {
	s, c, one := start()
	two := keyring.New(s, c.now, c.wait)
	sealed := seal(t, one, "cookie", "x")
	c.pass(31 * 24 * time.Hour)
	opens(t, two, sealed, "x")
	stale := s.value
	ordered := false
	wait := func(context.Context, time.Duration) error {
		if !ordered { // its write lands after the order's
			ordered, s.value = true, stale
		}
		return nil
	}
	three := keyring.New(s, c.now, wait)
	if err := three.SignOutEverywhere(t.Context()); err != nil {
		t.Fatal(err)
	}
	staysShut(t, keyring.New(s, c.now, c.wait), sealed, "in a new process")
}

func TestSignOutEverywhereThatDoesNotStandSaysSo(t *testing.T) {
	s, c, one := start()
	seal(t, one, "cookie", "x")
	stale := s.value
	always := keyring.New(s, c.now, func(context.Context, time.Duration) error {
		s.value = stale
		return nil
	})
	err := always.SignOutEverywhere(t.Context())
	if rotation.ClassOf(err) != rotation.Transient {
		t.Errorf("error %v, want one that may pass", err)
	}
	s.err = &rotation.Error{Class: rotation.Transient, Code: "vault-unreachable", Message: "x"}
	if err := one.SignOutEverywhere(t.Context()); err == nil {
		t.Error("the vault refused the write, and it counts as done")
	}
}

func TestACodeOfTheKeyBeforeIsAccepted(t *testing.T) {
	_, c, r := start()
	first, err := r.Keys(t.Context())
	if err != nil || len(first) != 1 {
		t.Fatalf("%d keys, %v", len(first), err)
	}
	c.pass(31 * 24 * time.Hour)
	if _, err := r.Keys(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.pass(2 * time.Minute)
	next, err := r.Keys(t.Context())
	if err != nil || len(next) != 2 {
		t.Fatalf("%d keys, %v; want the new one and the one before", len(next), err)
	}
	if string(next[0]) == string(first[0]) || string(next[1]) != string(first[0]) {
		t.Error("the new key does not come before the old one")
	}
}

func TestForgedTextDoesNotMakeTheVaultBusy(t *testing.T) {
	const forged = "AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for name, err := range map[string]error{"a vault that answers": nil,
		"a vault that fails": &rotation.Error{Class: rotation.Transient, Code: "vault-unreachable", Message: "x"}} {
		t.Run(name, func(t *testing.T) {
			s, c, r := start()
			seal(t, r, "cookie", "x")
			c.pass(time.Hour)
			s.err = err
			before := s.reads
			for range 1000 {
				if _, got := r.Open(t.Context(), "cookie", forged); got == nil {
					t.Fatal("a forgery opens")
				}
			}
			if s.reads-before > 2 {
				t.Errorf("the vault was asked %d times", s.reads-before)
			}
			// It is not for long.
			s.err = nil
			c.pass(10 * time.Second)
			staysShut(t, r, forged, "afterwards")
		})
	}
}

func TestACallerWhoGivesUpIsNoFailureOfTheVault(t *testing.T) {
	s, _, r := start()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	s.err = context.Canceled
	_, _ = r.Seal(gone, "cookie", nil)
	s.err = nil
	if _, err := r.Seal(t.Context(), "cookie", nil); err != nil {
		t.Errorf("the next caller gets %v", err)
	}
}

func TestAVaultThatCannotBeReadIsNotAForgery(t *testing.T) {
	s, _, r := start()
	s.err = &rotation.Error{Class: rotation.Transient, Code: "vault-unreachable", Message: "x"}
	if _, err := r.Seal(t.Context(), "cookie", nil); rotation.ClassOf(err) != rotation.Transient {
		t.Errorf("sealing: %v", err)
	}
	if _, err := r.Open(t.Context(), "cookie", "AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); errors.Is(err,
		keyring.ErrSealed) || err == nil {
		t.Errorf("opening: %v", err)
	}
}

func TestKeysThatCannotBeReadAreReplaced(t *testing.T) {
	s, _, r := start()
	s.value = "not JSON"
	sealed := seal(t, r, "cookie", "x")
	if got, err := r.Open(t.Context(), "cookie", sealed); err != nil || string(got) != "x" {
		t.Errorf("opened %q, %v", got, err)
	}
}

func FuzzOpen(f *testing.F) {
	_, _, r := start()
	for _, s := range []string{"", "AAAAAAAA.", "AAAAAAAA.AAAA", "a.b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sealed string) {
		if text, err := r.Open(t.Context(), "cookie", sealed); err == nil {
			t.Errorf("a forgery opened: %q", text)
		}
	})
}
