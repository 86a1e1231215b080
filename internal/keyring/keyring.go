// Package keyring keeps the app's own symmetric keys, with which it seals what a
// browser carries for it. They are one secret in the vault, shared by every
// instance, and are replaced once a month. The same secret says before when sealed
// sessions count no more.
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
	"slices"
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
	// maxAge is how long the keys are used before the vault is read again: within a
	// minute every instance goes by what another one has written.
	maxAge = 45 * time.Second
	// settled is the age from which on every instance knows a key. A younger one seals
	// only where there is no other.
	settled = time.Minute
	// minRefresh bounds how often sealed text with an unknown key reads the vault, and
	// afterFailure how soon a vault that has failed is asked again: anybody may send
	// such text.
	minRefresh   = time.Second
	afterFailure = 5 * time.Second
	// pause is how long a first key waits for those that others make at once.
	pause = time.Second
	// readLimit bounds one look into the vault: a person waits.
	readLimit = 20 * time.Second

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
	wait  func(ctx context.Context, d time.Duration) error

	// turn has one slot. Whoever has filled it owns what follows.
	turn      chan struct{}
	keys      []key     // newest first
	notBefore time.Time // the latest that was ever read or written
	readAt    time.Time // when the vault was read with success
	failed    error     // of the latest look; nil: it had success
	failedAt  time.Time
}

type key struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
	Key  []byte    `json:"key"`
}

// content is the secret's value.
type content struct {
	Keys []key `json:"keys"`
	// NotBefore: sessions that were sealed before it count no more.
	NotBefore time.Time `json:"sessions-not-before,omitzero"`
}

// New gives a keyring over a store. It calls nobody.
func New(store Store, now func() time.Time, wait func(ctx context.Context, d time.Duration) error) *Keyring {
	return &Keyring{store: store, now: now, wait: wait, turn: make(chan struct{}, 1)}
}

// enter takes the turn, and leave gives it back. Nobody holds a mutex over a call.
func (r *Keyring) enter(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Keyring) leave() { <-r.turn }

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

// current is the key that seals, made if there is none.
func (r *Keyring) current(ctx context.Context) (key, error) {
	err := r.enter(ctx)
	if err != nil {
		return key{}, err
	}
	defer r.leave()
	err = r.refresh(ctx, maxAge)
	if err == nil && r.old() {
		// There is no compare-and-swap: another instance may have made one since.
		err = r.refresh(ctx, 0)
	}
	if err == nil && r.old() {
		err = r.replace(ctx)
	}
	if err != nil {
		return key{}, err
	}
	return r.sealing(), nil
}

func (r *Keyring) old() bool {
	return len(r.keys) == 0 || r.now().Sub(r.keys[0].Made) >= life
}

// sealing is the newest key that every instance knows, or else the newest one.
func (r *Keyring) sealing() key {
	i := slices.IndexFunc(r.keys, r.isKnown)
	return r.keys[max(i, 0)]
}

// isKnown says that every instance knows a key, and will for as long as people work with
// what it seals now.
func (r *Keyring) isKnown(k key) bool {
	age := r.now().Sub(k.Made)
	return settled <= age && age < 2*life-24*time.Hour
}

// find is the key of that id, if it is not too old to count.
func (r *Keyring) find(ctx context.Context, id string) (key, error) {
	err := r.enter(ctx)
	if err != nil {
		return key{}, err
	}
	defer r.leave()
	for _, age := range []time.Duration{maxAge, minRefresh} {
		if err := r.refresh(ctx, age); err != nil {
			return key{}, err
		}
		for _, k := range r.keys {
			if k.ID == id && r.counts(k) {
				return k, nil
			}
		}
	}
	return key{}, ErrSealed
}

func (r *Keyring) counts(k key) bool { return r.now().Sub(k.Made) < 2*life }

// refresh reads the vault, unless it was read within age. A look that has failed is
// remembered for a moment. The caller has the turn.
func (r *Keyring) refresh(ctx context.Context, age time.Duration) error {
	now := r.now()
	if !r.readAt.IsZero() && now.Sub(r.readAt) < age {
		return nil
	}
	if r.failed != nil && now.Sub(r.failedAt) < afterFailure {
		return r.failed
	}
	c, err := r.read(ctx)
	if err != nil {
		err = fmt.Errorf("reading the secret "+SecretName+": %w", err)
		if ctx.Err() == nil {
			r.failed, r.failedAt = err, r.now()
		}
		return err
	}
	r.take(c)
	return nil
}

// take goes by what the vault has. Its keys and no others: whoever has replaced them may
// have meant to end what they had sealed.
func (r *Keyring) take(c content) {
	r.keys, r.readAt, r.failed = c.Keys, r.now(), nil
	if c.NotBefore.After(r.notBefore) {
		r.notBefore = c.NotBefore
	}
}

func (r *Keyring) read(ctx context.Context) (content, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	value, _, _, _, err := r.store.Read(ctx, SecretName)
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		return content{}, nil
	case err != nil:
		return content{}, err
	}
	return decode(value.Reveal()), nil
}

// decode reads the secret. What cannot be read counts as no keys: new ones are made,
// and what the old ones sealed has to be done again.
func decode(value string) content {
	var c content
	if json.Unmarshal([]byte(value), &c) != nil {
		return content{}
	}
	c.Keys = slices.DeleteFunc(c.Keys, func(k key) bool { return len(k.Key) != keySize || k.ID == "" })
	return c
}

// replace makes a new key and keeps the one before it. The caller has the turn.
func (r *Keyring) replace(ctx context.Context) error {
	isFirst := !slices.ContainsFunc(r.keys, r.isKnown)
	k := r.newKey()
	err := r.write(ctx, content{Keys: append([]key{k}, r.keys[:min(len(r.keys), 1)]...), NotBefore: r.notBefore})
	if err == nil && isFirst {
		// It is used at once. Of several instances that make one now the last one's
		// write counts, for all of them.
		err = r.wait(ctx, pause)
	}
	if err != nil {
		return err
	}
	err = r.refresh(ctx, 0)
	if err == nil && len(r.keys) == 0 {
		err = errNotKept
	}
	return err
}

// errNotKept: somebody has deleted the secret in this very moment.
var errNotKept = &rotation.Error{Class: rotation.Transient, Code: rotation.VaultConflict,
	Message: "the secret " + SecretName + " is changed by somebody else at this moment: try again"}

func (r *Keyring) newKey() key {
	k := key{Made: r.now().UTC(), Key: make([]byte, keySize)}
	id := make([]byte, idSize)
	rand.Read(id) // never fails
	rand.Read(k.Key)
	k.ID = base64.RawURLEncoding.EncodeToString(id)
	return k
}

func (r *Keyring) write(ctx context.Context, c content) error {
	value, err := json.Marshal(c)
	if err == nil {
		_, _, err = r.store.Write(ctx, SecretName, rotation.NewSecret(string(value)), ContentType, nil,
			c.Keys[0].Made.Add(2*life))
	}
	if err != nil {
		return fmt.Errorf("storing the secret "+SecretName+": %w", err)
	}
	return nil
}

// SessionsNotBefore is when sessions were last ended everywhere; zero: never. Every
// instance knows it within a minute.
func (r *Keyring) SessionsNotBefore(ctx context.Context) (time.Time, error) {
	err := r.enter(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer r.leave()
	err = r.refresh(ctx, maxAge)
	return r.notBefore, err
}

// SignOutEverywhere replaces the keys and keeps no previous one: nothing that was sealed
// before opens any more.
func (r *Keyring) SignOutEverywhere(ctx context.Context) error {
	err := r.enter(ctx)
	if err != nil {
		return err
	}
	defer r.leave()
	k := r.newKey()
	for range 3 {
		err = r.write(ctx, content{Keys: []key{k}, NotBefore: k.Made})
		if err != nil {
			return err
		}
		// An instance that has read the old keys before may write them back once.
		err = r.wait(ctx, pause)
		if err != nil {
			return err
		}
		c, err := r.read(ctx)
		if err != nil {
			return fmt.Errorf("reading the secret "+SecretName+" again: %w", err)
		}
		if !c.NotBefore.Before(k.Made) {
			r.take(c)
			return nil
		}
	}
	return errNotKept
}

// Keys derives keys for message authentication: the first one to make codes with, all
// of them to check codes by.
func (r *Keyring) Keys(ctx context.Context) ([][]byte, error) {
	current, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	err = r.enter(ctx)
	if err != nil {
		return nil, err
	}
	ring := append([]key{current}, r.keys...)
	r.leave()
	var out [][]byte
	for i, k := range ring {
		if i > 0 && k.ID == current.ID || !r.counts(k) {
			continue
		}
		derived, err := hkdf.Key(sha256.New, k.Key, nil, "patrol confirmation", keySize)
		if err != nil {
			return nil, fmt.Errorf("deriving a key: %w", err)
		}
		out = append(out, derived)
	}
	return out, nil
}
