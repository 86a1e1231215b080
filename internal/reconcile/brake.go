package reconcile

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/flight"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// secretListAge is how old the list of the vault's secrets may be that all reconciles of
// a process share.
const secretListAge = 10 * time.Minute

// secretList shares one list of the vault's secrets, by the properties of their latest
// versions. One call is under way at a time; its result serves all who wait for it.
type secretList struct {
	vault   rotation.Vault
	now     func() time.Time
	flights flight.Group[struct{}, struct{}]

	mu      sync.Mutex
	at      time.Time
	secrets []rotation.Version
}

func newSecretList(vault rotation.Vault, now func() time.Time) *secretList {
	l := &secretList{vault: vault, now: now}
	l.flights.Timeout = listTimeout
	return l
}

// get returns the list as of a time that is not before notBefore.
func (l *secretList) get(ctx context.Context, notBefore time.Time) ([]rotation.Version, error) {
	for {
		l.mu.Lock()
		at, secrets := l.at, l.secrets
		l.mu.Unlock()
		if !at.IsZero() && !at.Before(notBefore) {
			return secrets, nil
		}
		_, err := l.flights.Do(ctx, struct{}{}, l.fetch(notBefore))
		if err != nil {
			return nil, err
		}
		// One that began before notBefore is not good enough: another one.
	}
}

// fetch reads the list, unless one that is good enough has come meanwhile.
func (l *secretList) fetch(notBefore time.Time) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) {
		l.mu.Lock()
		known := l.at
		l.mu.Unlock()
		if !known.IsZero() && !known.Before(notBefore) {
			return struct{}{}, nil
		}
		at := l.now()
		var secrets []rotation.Version
		for v, err := range l.vault.Secrets(ctx) {
			if err != nil {
				return struct{}{}, err
			}
			secrets = append(secrets, v)
		}
		l.keep(at, secrets)
		return struct{}{}, nil
	}
}

// keep takes a list that was begun at a time, unless there is a younger one.
func (l *secretList) keep(at time.Time, secrets []rotation.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.After(l.at) {
		l.at, l.secrets = at, secrets
	}
}

// massChange counts how many of an owner's PATs are gone or drifted by the lists, and
// how many there are.
type massChange struct{ changed, total int }

// brakes reports whether a person has to say that this is meant: more than three, and
// more than a third.
func (m massChange) brakes(accepted rotation.MassChange, now time.Time) bool {
	isMass := m.changed > 3 && 3*m.changed > m.total
	isAccepted := accepted.Until.After(now) && m.changed <= accepted.PATs
	return isMass && !isAccepted
}

// add counts one PAT. Those that this process has ended itself do not count.
func (m *massChange) add(r *Reconciler, s rotation.Spec, v rotation.Version, pats *index, now time.Time) {
	l := v.Ledger
	if !l.Ours() || l.AuthorizationID == "" || r.ended.has(l.AuthorizationID) {
		return
	}
	m.total++
	moved := l.Identity != s.Identity || !strings.EqualFold(l.ProviderAddress, r.ProviderAddress(s.Organization))
	p, listed := pats.find(l.AuthorizationID)
	moved = moved && !listed // an owner that has another name
	hasRunOut := !v.Expires.IsZero() && !v.Expires.After(now)
	switch {
	case moved:
		m.changed++
	case listed && !sameScopes(p, s):
		m.changed++
	case !listed && !hasRunOut && pats.at.After(v.Created.Add(rotation.ClockSkew)):
		m.changed++
	}
}

// brake decides whether the current PAT's being gone or drifted may be acted on, by the
// lists that this process shares.
func (w *work) brake(ctx context.Context) error {
	secrets, err := w.secrets.get(ctx, w.Now().Add(-secretListAge))
	if err != nil {
		return err
	}
	byName := make(map[string]rotation.Version, len(secrets))
	for _, v := range secrets {
		byName[strings.ToLower(v.Name)] = v
	}
	var m massChange
	for _, s := range w.Specs() {
		v, ok := byName[strings.ToLower(s.Name)]
		if ok && s.Owner() == w.spec.Owner() {
			m.add(w.Reconciler, s, v, w.listed, w.Now())
		}
	}
	w.seen.Braked = m.brakes(w.order.Accepted, w.Now())
	if w.seen.Braked {
		w.log.WarnContext(ctx, "so many PATs of the owner are gone or drifted that patrol waits for a person",
			"identity", w.spec.Identity, "organization", w.spec.Organization, "changed", m.changed, "of", m.total)
	}
	return nil
}

// brakeDrift asks the brake before a PAT is replaced because the manifest asks for
// another one.
func (w *work) brakeDrift(ctx context.Context) error {
	c := w.seen.Current
	if c == nil || !c.Ledger.Ours() || w.released {
		return nil
	}
	p, listed := w.seen.Find(c.Ledger.AuthorizationID)
	drifted := !w.isOwners(c) && !listed || listed && !sameScopes(p, w.spec)
	if !drifted {
		return nil
	}
	err := w.readBefore(ctx)
	if err != nil {
		return err
	}
	return w.brake(ctx)
}

// readBefore reads the PAT before a young current one, if it has ended: whether a drift
// undoes another one shows by its scopes. Azure DevOps does not say whether it still
// shows a revoked PAT by its id.
func (w *work) readBefore(ctx context.Context) error {
	isYoung := len(w.seen.Replaced) > 0 && w.Now().Sub(w.seen.Current.Created) < rotation.Day
	if !isYoung {
		return nil
	}
	before := w.seen.Replaced[0]
	id := before.Ledger.AuthorizationID
	if w.seen.Lists(id) || !w.isOwners(&before) {
		return nil
	}
	p, err := w.Tokens.Get(ctx, w.ownerOf(before), id)
	if err == nil {
		w.seen.Before = p
	}
	if errors.Is(err, rotation.ErrNotFound) {
		return nil
	}
	return err
}
