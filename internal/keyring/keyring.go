// Package keyring keeps the app's own symmetric keys, with which it seals what a
// browser carries for it. They are one secret in the vault, shared by every
// instance, and are replaced once a month.
//
// It knows nothing of what is sealed, of HTTP, or of Key Vault's client.
package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// SecretName is where the vault has the keys.
	SecretName = "patrol-web-keys"
	// ContentType marks that secret.
	ContentType = "application/vnd.patrol.keys+json"

	// life of a key. What it has sealed can be opened for as long again.
	life = 30 * 24 * time.Hour
	// maxAge is how long the keys are used before the vault is read again.
	maxAge = 10 * time.Minute
	// minRefresh bounds how often sealed text with an unknown key reads the vault:
	// anybody may send such text.
	minRefresh = 10 * time.Second

	keySize = 32 // AES-256
	idSize  = 6
)

// Store keeps the secret. An error is rotation.ErrNotFound or has a class.
type Store interface {
	Read(ctx context.Context, name string) (value rotation.Secret, tags map[string]string, version string,
		created time.Time, err error)
	Write(ctx context.Context, name string, value rotation.Secret, contentType string, tags map[string]string,
		expires time.Time) (version string, created time.Time, err error)
}

// ErrSealed is given for text that this app did not seal, or sealed for another
// purpose, or so long ago that its key is gone.
var ErrSealed = errors.New("not sealed by this app")

// Keyring seals and opens. Use New.
type Keyring struct {
	store Store
	now   func() time.Time

	mu        sync.Mutex
	keys      []key     // newest first
	refreshed time.Time // when the vault was read
}

type key struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
	Key  []byte    `json:"key"`
}

// New gives a keyring over a store. It calls nobody.
func New(store Store, now func() time.Time) *Keyring { return &Keyring{store: store, now: now} }

// Seal encrypts text for a purpose; the same purpose must be named to open it.
func (r *Keyring) Seal(ctx context.Context, purpose string, text []byte) (string, error) {
	k, err := r.current(ctx)
	if err != nil {
		return "", err
	}
	aead, err := k.aead(purpose)
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails
	return k.ID + "." + base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, text, []byte(k.ID))), nil
}

// Open decrypts what Seal gave. ErrSealed: it did not; other errors are the store's.
func (r *Keyring) Open(ctx context.Context, purpose, sealed string) ([]byte, error) {
	const idLen = (idSize*8 + 5) / 6
	if len(sealed) < idLen+2 || len(sealed) > 8<<10 || sealed[idLen] != '.' {
		return nil, ErrSealed
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(sealed[idLen+1:])
	if err != nil {
		return nil, ErrSealed
	}
	k, err := r.find(ctx, sealed[:idLen])
	if err != nil {
		return nil, err
	}
	aead, err := k.aead(purpose)
	if err != nil {
		return nil, err
	}
	if len(data) < aead.NonceSize() {
		return nil, ErrSealed
	}
	text, err := aead.Open(nil, data[:aead.NonceSize()], data[aead.NonceSize():], []byte(k.ID))
	if err != nil {
		return nil, ErrSealed
	}
	return text, nil
}

// aead derives a key for one purpose.
func (k key) aead(purpose string) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, k.Key, nil, "patrol "+purpose, keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	return cipher.NewGCM(block)
}

// current is the newest key, made if there is none or it has become old.
func (r *Keyring) current(ctx context.Context) (key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refresh(ctx, maxAge); err != nil {
		return key{}, err
	}
	if r.old() {
		// There is no compare-and-swap: another instance may have made one since.
		if err := r.refresh(ctx, 0); err != nil {
			return key{}, err
		}
	}
	if r.old() {
		if err := r.replace(ctx); err != nil {
			return key{}, err
		}
	}
	return r.keys[0], nil
}

func (r *Keyring) old() bool {
	return len(r.keys) == 0 || r.now().Sub(r.keys[0].Made) >= life
}

// find is the key of that id, if it is not too old to count.
func (r *Keyring) find(ctx context.Context, id string) (key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, age := range []time.Duration{maxAge, minRefresh} {
		if err := r.refresh(ctx, age); err != nil {
			return key{}, err
		}
		for _, k := range r.keys {
			if k.ID == id && r.now().Sub(k.Made) < 2*life {
				return k, nil
			}
		}
	}
	return key{}, ErrSealed
}

// refresh reads the vault, unless it was read within age. mu is held.
func (r *Keyring) refresh(ctx context.Context, age time.Duration) error {
	now := r.now()
	if !r.refreshed.IsZero() && now.Sub(r.refreshed) < age {
		return nil
	}
	value, _, _, _, err := r.store.Read(ctx, SecretName)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		r.keys = nil
	case err != nil:
		return fmt.Errorf("reading the secret "+SecretName+": %w", err)
	default:
		r.keys = decode(value.Reveal())
	}
	r.refreshed = now
	return nil
}

// decode reads the secret. What cannot be read counts as no keys: new ones are made,
// and what the old ones sealed has to be done again.
func decode(value string) []key {
	var d struct {
		Keys []key `json:"keys"`
	}
	if json.Unmarshal([]byte(value), &d) != nil {
		return nil
	}
	var out []key
	for _, k := range d.Keys {
		if len(k.Key) == keySize && k.ID != "" {
			out = append(out, k)
		}
	}
	return out
}

// replace makes a new key and keeps the one before it. mu is held.
func (r *Keyring) replace(ctx context.Context) error {
	k := key{Made: r.now().UTC().Truncate(time.Second), Key: make([]byte, keySize)}
	id := make([]byte, idSize)
	rand.Read(id)
	rand.Read(k.Key)
	k.ID = base64.RawURLEncoding.EncodeToString(id)
	keys := append([]key{k}, r.keys[:min(len(r.keys), 1)]...)
	value, err := json.Marshal(struct {
		Keys []key `json:"keys"`
	}{keys})
	if err != nil {
		return fmt.Errorf("storing the secret "+SecretName+": %w", err)
	}
	_, _, err = r.store.Write(ctx, SecretName, rotation.NewSecret(string(value)), ContentType, nil, k.Made.Add(2*life))
	if err != nil {
		return fmt.Errorf("storing the secret "+SecretName+": %w", err)
	}
	// Of two instances that do this at once the later one's write counts.
	return r.refresh(ctx, 0)
}

// Key derives a key for message authentication from the newest one.
func (r *Keyring) Key(ctx context.Context) ([]byte, error) {
	k, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	return hkdf.Key(sha256.New, k.Key, nil, "patrol confirmation", keySize)
}
