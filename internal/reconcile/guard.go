package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// guard keeps PATs alive that the latest version of any secret of the vault holds. It
// asks the list of secrets that a process shares, and confirms a hit by a read.
type guard struct {
	mu sync.Mutex
	// digests are those of values that patrol has not written, once for each version.
	digests map[valueKey]string
}

// valueKey names a version in a list, which has no version ids.
type valueKey struct {
	name    string
	created time.Time
}

func keyOf(s rotation.Version) valueKey { return valueKey{strings.ToLower(s.Name), s.Created} }

// heldBy gives the name of a secret whose latest version holds the PAT; empty: none. v
// is the version that the PAT was stored with, made is when the PAT was created.
func (r *Reconciler) heldBy(ctx context.Context, v rotation.Version, made time.Time) (string, error) {
	if v.Ledger.AuthorizationID == "" {
		return "", fmt.Errorf("a PAT without an authorization id cannot be guarded")
	}
	secrets, err := r.secrets.get(ctx, r.Now().Add(-secretListAge))
	if err != nil {
		return "", err
	}
	for _, s := range secrets {
		mayHold, err := r.mayHold(ctx, s, v, made)
		if err != nil {
			return "", err
		}
		if !mayHold {
			continue
		}
		held, err := r.confirm(ctx, s.Name, v)
		if err != nil || held {
			return s.Name, err
		}
	}
	return "", nil
}

// mayHold reports whether a secret in the list looks as if it held the PAT: by its tags,
// or without a ledger by its value.
func (r *Reconciler) mayHold(ctx context.Context, s, v rotation.Version, made time.Time) (bool, error) {
	if s.Ledger.Ours() && s.Ledger.AuthorizationID != "" {
		return strings.EqualFold(s.Ledger.AuthorizationID, v.Ledger.AuthorizationID), nil
	}
	isPatrols := rotation.IsOwn(s.Name) // a sign-in, or the web functions' keys
	couldHold := s.Enabled && !isPatrols && !s.Created.Before(made.Add(-rotation.ClockSkew))
	if !couldHold || v.Ledger.Facts.Digest == "" {
		return false, nil
	}
	digest, err := r.guard.digestOf(ctx, r.Vault, s)
	return digest != "" && digest == v.Ledger.Facts.Digest, err
}

// digestOf reads a value that patrol has not written, once for each version.
func (g *guard) digestOf(ctx context.Context, vault rotation.Vault, s rotation.Version) (string, error) {
	key := keyOf(s)
	g.mu.Lock()
	digest, known := g.digests[key]
	g.mu.Unlock()
	if known {
		return digest, nil
	}
	v, err := vault.Current(ctx, s.Name)
	if errors.Is(err, rotation.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !v.Value.Empty() {
		digest = rotation.Digest(v.Value)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.digests == nil {
		g.digests = map[valueKey]string{}
	}
	g.digests[key] = digest
	return digest, nil
}

// keepOnly forgets the versions that are not the latest of any secret any more.
func (g *guard) keepOnly(secrets []rotation.Version) {
	latest := make(map[valueKey]bool, len(secrets))
	for _, s := range secrets {
		latest[keyOf(s)] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.digests, func(k valueKey, _ string) bool { return !latest[k] })
}

// confirm reads a secret and reports whether it holds the PAT of a version.
func (r *Reconciler) confirm(ctx context.Context, name string, v rotation.Version) (bool, error) {
	c, err := r.Vault.Current(ctx, name)
	if errors.Is(err, rotation.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if c.Value.Empty() {
		return strings.EqualFold(c.Ledger.AuthorizationID, v.Ledger.AuthorizationID), nil
	}
	digest := rotation.Digest(c.Value)
	if v.Ledger.Facts.Digest != "" {
		return digest == v.Ledger.Facts.Digest, nil
	}
	isVoid := c.Ledger.Facts.Digest != "" && c.Ledger.Facts.Digest != digest
	return !isVoid && strings.EqualFold(c.Ledger.AuthorizationID, v.Ledger.AuthorizationID), nil
}

// guarded refuses to end a PAT that a secret still holds, and one of another deployment.
func (w *work) guarded(ctx context.Context, v rotation.Version) error {
	id := v.Ledger.AuthorizationID
	made := v.Created
	if p, listed := w.seen.Find(id); listed {
		made = p.ValidFrom
	}
	holder, err := w.heldBy(ctx, v, made)
	if err != nil {
		return err
	}
	if holder == "" {
		return nil
	}
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.StillHeld, Message: fmt.Sprintf(
		"the PAT %s is due to end, and the latest version of the secret %s holds it: its readers would be left with a "+
			"dead one. It is kept while that is so; put another value there, or order its end", id, holder)}
}

// promisedElsewhere is until when the readers of another secret, which held the PAT too and
// holds another one by now, were promised that it works. The zero time: nobody was, or an
// order names the PAT. A list that cannot be had keeps the guard waiting, which asks next.
func (w *work) promisedElsewhere(ctx context.Context, d rotation.Decision) time.Time {
	var until time.Time
	id := rotation.ShortID(d.Version.Ledger.AuthorizationID)
	if id == "" || w.isNamedToEnd(d) {
		return until
	}
	secrets, err := w.secrets.get(ctx, w.Now().Add(-secretListAge))
	if err != nil {
		return until
	}
	for _, s := range secrets {
		isAnother := !strings.EqualFold(s.Name, w.spec.Name)
		f := s.Ledger.Facts
		isItsSuccessor := f.Previous == id && f.PreviousEnds == rotation.EndsAfterOverlap
		if isAnother && isItsSuccessor {
			until = later(until, s.Ledger.RevokePreviousAt)
		}
	}
	return until
}
