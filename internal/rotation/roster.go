package rotation

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// rosterAge is how old a shared list of PATs may be.
const rosterAge = time.Minute

// listTimeout bounds one listing that several reconciles share.
const listTimeout = 3 * time.Minute

// roster shares one list of an owner's PATs among all reconciles of a process:
// one listing at a time and owner, at most a minute old, corrected by what this
// process has created and revoked since.
type roster struct {
	tokens Tokens
	now    func() time.Time

	mu     sync.Mutex
	owners map[Owner]*ownersPATs
}

type ownersPATs struct {
	at      time.Time // when the listing began; zero: none yet
	pats    []PAT
	changes []change
	flight  *flight
}

type change struct {
	at      time.Time
	created *PAT
	revoked string
}

type flight struct {
	done chan struct{}
	err  error
}

func newRoster(t Tokens, now func() time.Time) *roster {
	return &roster{tokens: t, now: now, owners: map[Owner]*ownersPATs{}}
}

func (r *roster) owner(o Owner) *ownersPATs {
	e := r.owners[o]
	if e == nil {
		e = &ownersPATs{}
		r.owners[o] = e
	}
	return e
}

// list returns the active PATs as of a time that is not before notBefore.
func (r *roster) list(ctx context.Context, o Owner, notBefore time.Time) ([]PAT, time.Time, error) {
	for {
		r.mu.Lock()
		e := r.owner(o)
		if !e.at.IsZero() && !e.at.Before(notBefore) {
			pats, at := e.snapshot(), e.at
			r.mu.Unlock()
			return pats, at, nil
		}
		f := e.flight
		if f == nil {
			f = &flight{done: make(chan struct{})}
			e.flight = f
			go r.fetch(context.WithoutCancel(ctx), o, f)
		}
		r.mu.Unlock()
		select {
		case <-f.done:
			if f.err != nil {
				return nil, time.Time{}, f.err
			}
			// A flight that began before notBefore is not good enough: again.
		case <-ctx.Done():
			return nil, time.Time{}, ctx.Err()
		}
	}
}

// fetch runs apart from any one caller's context: its result serves them all.
func (r *roster) fetch(ctx context.Context, o Owner, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	at := r.now()
	pats, err := r.tokens.List(ctx, o)

	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.owner(o)
	e.flight = nil
	if f.err = err; err == nil {
		e.at, e.pats = at, pats
		// A change made before the listing began is in the listing.
		e.changes = slices.DeleteFunc(e.changes, func(c change) bool { return c.at.Before(at) })
	}
	close(f.done)
}

func (e *ownersPATs) snapshot() []PAT {
	out := slices.Clone(e.pats)
	for _, c := range e.changes {
		id := c.revoked
		if c.created != nil {
			id = c.created.AuthorizationID
		}
		out = slices.DeleteFunc(out, func(p PAT) bool { return strings.EqualFold(p.AuthorizationID, id) })
		if c.created != nil {
			out = append(out, *c.created)
		}
	}
	return out
}

// stale makes the next look fetch the list anew.
func (r *roster) stale(o Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner(o).at = time.Time{}
}

func (r *roster) created(o Owner, p PAT) {
	r.note(o, change{at: r.now(), created: &p})
}

func (r *roster) revoked(o Owner, authorizationID string) {
	r.note(o, change{at: r.now(), revoked: authorizationID})
}

// note keeps a change until a listing that began after it. Without any listing
// there is nothing to correct.
func (r *roster) note(o Owner, c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.owner(o); !e.at.IsZero() || e.flight != nil {
		e.changes = append(e.changes, c)
	}
}
