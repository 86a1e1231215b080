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
	s.writes++
	s.value = value.Reveal()
	return "v", time.Time{}, s.err
}

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func start() (*store, *clock, *keyring.Keyring) {
	s, c := &store{}, &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	return s, c, keyring.New(s, c.now)
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
	got, err := keyring.New(s, c.now).Open(t.Context(), "cookie", sealed)
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

func TestAKeyIsReplacedAfterAMonthAndOpensForAnother(t *testing.T) {
	s, c, r := start()
	first := seal(t, r, "cookie", "first")
	c.t = c.t.Add(31 * 24 * time.Hour)
	second := seal(t, r, "cookie", "second")
	if s.writes != 2 || first[:8] == second[:8] {
		t.Fatalf("%d keys: want a second one after a month", s.writes)
	}
	if _, err := r.Open(t.Context(), "cookie", first); err != nil {
		t.Errorf("what the key before had sealed does not open: %v", err)
	}
	c.t = c.t.Add(30 * 24 * time.Hour)
	seal(t, r, "cookie", "third")
	if _, err := r.Open(t.Context(), "cookie", first); !errors.Is(err, keyring.ErrSealed) {
		t.Errorf("a key of two months ago still counts: %v", err)
	}
}

func TestForgedTextDoesNotMakeTheVaultBusy(t *testing.T) {
	s, _, r := start()
	seal(t, r, "cookie", "x")
	before := s.reads
	for range 1000 {
		if _, err := r.Open(t.Context(), "cookie", "AAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"); !errors.Is(err,
			keyring.ErrSealed) {
			t.Fatal(err)
		}
	}
	if s.reads-before > 2 {
		t.Errorf("the vault was asked %d times", s.reads-before)
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
