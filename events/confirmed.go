package events

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// What a consumer can say of a new PAT.
const (
	// OutcomeSwitched: the consumer uses the new PAT, and needs the replaced one no more.
	OutcomeSwitched = "switched"
	// OutcomeFailed: it cannot use the new one. To patrol that counts like silence,
	// within the same bound; people see it.
	OutcomeFailed = "failed"
)

const (
	// MaxConfirmation is how long an encoded confirmation may be, in bytes.
	MaxConfirmation = 8 << 10

	maxConsumer = 40
	maxVersion  = 64
	maxPAT      = 127
	maxNote     = 200 // characters of Confirmed.Message

	proofPrefix = "patrol/confirm/1"
	proofLength = 43 // 32 bytes in base64url without padding
)

// Confirmed is what a consumer tells patrol about a new PAT, on the queue
// pat-confirmations or with POST pats/{name}/confirmations.
type Confirmed struct {
	PAT string `json:"pat"`
	// SecretVersion is the version of the secret that the consumer has read.
	SecretVersion string `json:"secretVersion"`
	// Consumer is its name in the manifest.
	Consumer string `json:"consumer"`
	// Outcome: OutcomeSwitched or OutcomeFailed.
	Outcome string `json:"outcome"`
	// Message is for people, at most 200 characters; never a token.
	Message string `json:"message,omitempty"`
	// Proof shows that its sender has read this version: see Prove.
	Proof string `json:"proof"`
}

// Proof is the proof of a confirmation, by the value of the new PAT: HMAC-SHA256 in
// base64url without padding. It covers PAT, SecretVersion, Consumer and Outcome, and not
// Message. No token travels. White space at the value's ends does not count.
func Proof(value []byte, c Confirmed) string {
	h := hmac.New(sha256.New, bytes.TrimSpace(value))
	for _, line := range []string{proofPrefix, c.PAT, c.SecretVersion, c.Consumer, c.Outcome} {
		h.Write([]byte(line))
		h.Write([]byte{'\n'})
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// Prove gives the confirmation with its proof.
func (c Confirmed) Prove(value []byte) Confirmed {
	c.Proof = Proof(value, c)
	return c
}

// Proves reports whether the proof was made with this value. It takes the same time
// wherever a wrong proof differs. An empty value proves nothing.
func (c Confirmed) Proves(value []byte) bool {
	if len(bytes.TrimSpace(value)) == 0 {
		return false
	}
	return hmac.Equal([]byte(Proof(value, c)), []byte(c.Proof))
}

// ConfirmedID is the same for every repeat of a confirmation.
func ConfirmedID(d Confirmed) string {
	return strings.Join([]string{d.PAT, d.SecretVersion, part(d.Consumer), d.Outcome, "confirmed"}, "/")
}

// ConsumerSource is the source of a consumer's confirmations.
func ConsumerSource(consumer string) string { return "/consumer/" + consumer }

// NewConfirmed makes a consumer's confirmation.
func NewConfirmed(at time.Time, d Confirmed) Event {
	return newEvent(ConfirmedID(d), ConsumerSource(d.Consumer), d.PAT, at, d)
}

// DecodeConfirmation reads a confirmation. It is stricter than Decode, because anybody
// may have sent it: each field must have its form, and the subject, if there is one,
// must be the PAT. Errors are ErrMalformed or ErrData, and do not quote it. Whether the
// proof is right is another question: see Proves.
func DecodeConfirmation(b []byte) (Confirmed, error) {
	if len(b) > MaxConfirmation {
		return Confirmed{}, malformed("%d bytes, more than %d", len(b), MaxConfirmation)
	}
	if !utf8.Valid(b) {
		return Confirmed{}, malformed("not UTF-8")
	}
	e, err := Decode(b)
	if err != nil {
		return Confirmed{}, err
	}
	d, ok := e.Data.(Confirmed)
	if !ok {
		return Confirmed{}, fmt.Errorf("%w: type is not %s", ErrData, TypeConfirmed)
	}
	if e.Subject != "" && e.Subject != d.PAT {
		return Confirmed{}, fmt.Errorf("%w: subject is not the PAT", ErrData)
	}
	if err := d.valid(); err != nil {
		return Confirmed{}, fmt.Errorf("%w: %w", ErrData, err)
	}
	return d, nil
}

func (Confirmed) eventType() string         { return TypeConfirmed }
func (d Confirmed) where() (string, string) { return "", "" }
func (d Confirmed) check() error {
	return need("pat", d.PAT, "secretVersion", d.SecretVersion, "consumer", d.Consumer, "outcome", d.Outcome,
		"proof", d.Proof)
}
func (d Confirmed) utc() any { return d }

func (d Confirmed) valid() error {
	isOutcome := d.Outcome == OutcomeSwitched || d.Outcome == OutcomeFailed
	var wrong fieldsError
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"pat", isName(d.PAT, maxPAT)},
		{"secretVersion", isName(d.SecretVersion, maxVersion)},
		{"consumer", isName(d.Consumer, maxConsumer) && d.Consumer == strings.ToLower(d.Consumer)},
		{"outcome", isOutcome},
		{"message", utf8.RuneCountInString(d.Message) <= maxNote},
		{"proof", isProof(d.Proof)},
	} {
		if !f.ok {
			wrong = append(wrong, f.name)
		}
	}
	if wrong == nil {
		return nil
	}
	return first(d.check(), fieldsError{strings.Join(wrong, ", ") + " not in the form that the schema demands"})
}

// isName: digits, letters and hyphens of ASCII.
func isName(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, notInNames)
}

const nameCharacters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"

func notInNames(r rune) bool { return !strings.ContainsRune(nameCharacters, r) }

func isProof(s string) bool {
	return len(s) == proofLength && !strings.ContainsFunc(s, func(r rune) bool { return notInNames(r) && r != '_' })
}
