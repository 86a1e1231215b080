package rotation

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const redacted = "[redacted]"

// Secret holds a PAT, a refresh token or an access token. It prints as
// "[redacted]" under every fmt verb, in JSON, in text encodings and in slog, so
// that a token can only leave the process through an explicit Reveal.
type Secret struct{ value string }

// NewSecret wraps a token.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the token itself. Every call of it is a place where a token
// leaves patrol's hands: keep them few.
func (s Secret) Reveal() string { return s.value }

// Empty reports whether there is no token.
func (s Secret) Empty() bool { return s.value == "" }

// HasPATForm reports whether a value has the form of an Azure DevOps PAT, without white
// space at its ends: 52 characters, or 84 of which the 77th to 80th are AZDO.
func (s Secret) HasPATForm() bool {
	value := strings.TrimSpace(s.value)
	isWord := func(r rune) bool {
		return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !isWord(r) }) {
		return false
	}
	return len(value) == 52 || len(value) == 84 && value[76:80] == "AZDO"
}

// Trimmed is the value without white space at its ends: files and portals add it.
func (s Secret) Trimmed() Secret { return Secret{strings.TrimSpace(s.value)} }

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
