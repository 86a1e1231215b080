package confirmation

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const purpose = "test confirmation"

var (
	key    = bytes.Repeat([]byte{7}, MinKey)
	sample = Confirmation{Expires: time.Unix(1_795_000_000, 0), Digests: []Digest{{1}, {2}, {3}}}
)

func TestATokenSaysWhatWasSealed(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]Confirmation{
		"nothing":  {Expires: sample.Expires},
		"a digest": {Expires: sample.Expires, Digests: []Digest{{1}}},
		"several":  sample,
	} {
		got, err := Open([][]byte{key}, purpose, want.Seal(key, purpose))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !got.Expires.Equal(want.Expires) {
			t.Errorf("%s: expires %v, want %v", name, got.Expires, want.Expires)
		}
		if !slices.Equal(got.Digests, want.Digests) {
			t.Errorf("%s: digests %v, want %v", name, got.Digests, want.Digests)
		}
	}
}

func TestATokenOfTheKeyBeforeOpens(t *testing.T) {
	t.Parallel()
	next := bytes.Repeat([]byte{9}, MinKey)
	got, err := Open([][]byte{next, key}, purpose, sample.Seal(key, purpose))
	if err != nil || !slices.Equal(got.Digests, sample.Digests) {
		t.Errorf("got %v, %v; want what was sealed", got.Digests, err)
	}
	if _, err := Open([][]byte{next}, purpose, sample.Seal(key, purpose)); !errors.Is(err, ErrInvalid) {
		t.Errorf("without the key before: %v, want ErrInvalid", err)
	}
	if _, err := Open(nil, purpose, sample.Seal(key, purpose)); !errors.Is(err, ErrInvalid) {
		t.Errorf("without any key: %v, want ErrInvalid", err)
	}
}

func TestATokenOfAnotherKeyPurposeOrTextDoesNotOpen(t *testing.T) {
	t.Parallel()
	token := sample.Seal(key, purpose)
	forged := map[string]string{
		"empty": "", "no base64": "!", "padded": token + "=", "cut": token[:len(token)-4], "longer": token + "AAAA",
		"huge":            strings.Repeat("A", 1<<20),
		"another key":     sample.Seal(bytes.Repeat([]byte{8}, MinKey), purpose),
		"another purpose": sample.Seal(key, "another confirmation"),
		"another format":  encode([]byte{2}, mac(key, purpose, []byte{2})),
	}
	for i := range len(token) {
		b := []byte(token)
		b[i] ^= 1
		forged[fmt.Sprint("another byte at ", i)] = string(b)
	}
	for name, text := range forged {
		if _, err := Open([][]byte{key}, purpose, text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, err)
		}
	}
}

func TestAConfirmationExpiresInItsLastSecond(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]bool{-time.Nanosecond: false, 0: true, time.Hour: true} {
		if got := sample.Expired(sample.Expires.Add(after)); got != want {
			t.Errorf("%v after its end: expired %v, want %v", after, got, want)
		}
	}
}

// What opens was sealed with the key: nothing else comes out again.
func FuzzOpen(f *testing.F) {
	token := sample.Seal(key, purpose)
	f.Add(token)
	f.Add(Confirmation{}.Seal(bytes.Repeat([]byte{8}, MinKey), purpose))
	f.Add(token[:len(token)-4])
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := Open([][]byte{key}, purpose, token)
		if err != nil {
			return
		}
		if again := c.Seal(key, purpose); again != token {
			t.Fatalf("%q opened, and sealed again is %q", token, again)
		}
	})
}

// FuzzSealed opens what has a true seal and any content.
func FuzzSealed(f *testing.F) {
	f.Add([]byte{format})
	f.Add(bytes.Repeat([]byte{format}, 41))
	f.Add(bytes.Repeat([]byte{0xff}, 73))
	f.Fuzz(func(t *testing.T, said []byte) {
		token := encode(bytes.Clone(said), mac(key, purpose, said))
		c, err := Open([][]byte{key}, purpose, token)
		if err == nil && c.Seal(key, purpose) != token {
			t.Fatalf("%x opened as %+v, which is another token", said, c)
		}
	})
}
