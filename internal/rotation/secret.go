package rotation

import (
	"fmt"
	"io"
	"log/slog"
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

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
