package reconcile

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/azure-patrol/patrol/internal/flight"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// listAge is how old a shared list of PATs may be. One that took long to
	// make may be older: to list shall take a tenth of the time at most.
	listAge    = time.Minute
	listShare  = 10
	maxListAge = 5 * time.Minute // twice this is still younger than an orphan
)

// listTimeout bounds one list that several reconciles share.
const listTimeout = 3 * time.Minute

// patlist shares one list of an owner's PATs among all reconciles of a process:
// one call at a time and owner, at most a minute old, corrected by what this
// process has created and revoked since.
type patlist struct {
	tokens  rotation.Tokens
	now     func() time.Time
	flights flight.Group[rotation.Owner, struct{}]

	mu     sync.Mutex
	owners map[rotation.Owner]*ownersPATs
}

type ownersPATs struct {
	latest *index // nil: none, or none that counts
	age    time.Duration
	// changes are those made lately: a list that is under way may not show them.
	changes []change
}

type change struct {
	at      time.Time
	created *rotation.PAT
	revoked string
}

func newPatlist(t rotation.Tokens, now func() time.Time) *patlist {
	r := &patlist{tokens: t, now: now, owners: map[rotation.Owner]*ownersPATs{}}
	r.flights.Timeout = listTimeout
	return r
}

func (r *patlist) owner(o rotation.Owner) *ownersPATs {
	e := r.owners[o]
	if e == nil {
		e = &ownersPATs{age: listAge}
		r.owners[o] = e
	}
	return e
}

// list returns the active PATs as of a time that is not before notBefore.
func (r *patlist) list(ctx context.Context, o rotation.Owner, notBefore time.Time) (*index, error) {
	for {
		r.mu.Lock()
		e := r.owner(o)
		l := e.latest
		r.mu.Unlock()
		if l != nil && !l.at.Before(notBefore) {
			return l, nil
		}
		_, err := r.flights.Do(ctx, o, r.fetch(o, e, notBefore))
		if err != nil {
			return nil, err
		}
		// One that began before notBefore is not good enough: another one.
	}
}

// recent returns a list that is young enough to be shared. One past its age, but not
// past twice that, still serves, while a new one is made beside: nobody waits for its
// pages in the middle of a long run. slowed: the identity has calls for better uses, and
// a list is made as rarely as possible.
func (r *patlist) recent(ctx context.Context, o rotation.Owner, slowed bool) (*index, error) {
	now := r.now()
	r.mu.Lock()
	e := r.owner(o)
	age := e.age
	if slowed {
		age = maxListAge
	}
	l := e.latest
	r.mu.Unlock()
	if l == nil || l.at.Before(now.Add(-2*age)) {
		return r.list(ctx, o, now.Add(-age))
	}
	if l.at.Before(now.Add(-age)) {
		r.flights.Start(ctx, o, r.fetch(o, e, now.Add(-age)))
	}
	return l, nil
}

// fetch reads an owner's list, unless one that is good enough has come meanwhile. If the
// list expires while it is read, e is nobody's any more.
func (r *patlist) fetch(o rotation.Owner, e *ownersPATs, notBefore time.Time) func(context.Context) (struct{}, error) {
	return func(ctx context.Context) (struct{}, error) {
		r.mu.Lock()
		l := e.latest
		r.mu.Unlock()
		if l != nil && !l.at.Before(notBefore) {
			return struct{}{}, nil
		}
		at := r.now()
		pats, err := r.tokens.List(ctx, o)
		if err != nil {
			return struct{}{}, err
		}
		l = newIndex(at, pats)
		r.mu.Lock()
		defer r.mu.Unlock()
		// A change made before the list was asked for is in the list.
		for _, c := range e.changes {
			if !c.at.Before(at) {
				l.apply(c)
			}
		}
		e.latest = l
		e.age = min(max(listAge, listShare*r.now().Sub(at)), maxListAge)
		return struct{}{}, nil
	}
}

// expire makes the next caller fetch the list anew.
func (r *patlist) expire(o rotation.Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owners, o)
	r.flights.ForgetKey(o)
}

func (r *patlist) addCreated(o rotation.Owner, p rotation.PAT) {
	r.note(o, change{at: r.now(), created: &p})
}

func (r *patlist) removeRevoked(o rotation.Owner, authorizationID string) {
	r.note(o, change{at: r.now(), revoked: authorizationID})
}

// note corrects the list, and any that is being made.
func (r *patlist) note(o rotation.Owner, c change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.owner(o)
	// No list that is under way has begun before that.
	oldest := c.at.Add(-listTimeout)
	e.changes = append(slices.DeleteFunc(e.changes, func(x change) bool { return x.at.Before(oldest) }), c)
	if e.latest != nil {
		e.latest.apply(c)
	}
}

// index is an owner's list of PATs by what is asked of it: ids and names.
type index struct {
	at time.Time

	mu     sync.Mutex
	byID   map[string]rotation.PAT // in lower case
	byName map[string][]string     // ids, by declared name
}

func newIndex(at time.Time, pats []rotation.PAT) *index {
	l := &index{at: at, byID: make(map[string]rotation.PAT, len(pats)), byName: make(map[string][]string, len(pats))}
	for _, p := range pats {
		l.enter(p)
	}
	return l
}

// enter takes a PAT in; the lock is held, or nobody else knows the index.
func (l *index) enter(p rotation.PAT) {
	id := strings.ToLower(p.AuthorizationID)
	_, known := l.byID[id]
	l.byID[id] = p
	if known {
		return
	}
	declared, _, _, _ := rotation.ParseDisplayName(p.DisplayName)
	name := fold(declared)
	l.byName[name] = append(l.byName[name], id)
}

func (l *index) apply(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.created != nil {
		l.enter(*c.created)
		return
	}
	delete(l.byID, strings.ToLower(c.revoked))
}

// find finds one PAT.
func (l *index) find(authorizationID string) (rotation.PAT, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.byID[strings.ToLower(authorizationID)]
	return p, ok
}

// about gives the PATs that matter to one entry of the manifest, by their ids: those
// that its versions name, and those that bear its name.
func (l *index) about(s rotation.Spec, versions ...rotation.Version) []rotation.PAT {
	ids := []string{s.Adopt}
	for _, v := range versions {
		ids = append(ids, v.Ledger.AuthorizationID, v.Ledger.Previous)
	}
	for i := range ids {
		ids[i] = strings.ToLower(ids[i])
	}
	declared, _, _, _ := rotation.ParseDisplayName(s.DisplayName)
	l.mu.Lock()
	defer l.mu.Unlock()
	ids = append(ids, l.byName[fold(s.DisplayName)]...)
	ids = append(ids, l.byName[fold(declared)]...)
	slices.Sort(ids)
	var out []rotation.PAT
	for _, id := range slices.Compact(ids) {
		p, ok := l.byID[id]
		if ok {
			out = append(out, p)
		}
	}
	return out
}

// each passes every PAT, by their ids.
func (l *index) each(f func(rotation.PAT)) {
	l.mu.Lock()
	pats := slices.SortedFunc(maps.Values(l.byID), func(a, b rotation.PAT) int {
		return strings.Compare(a.AuthorizationID, b.AuthorizationID)
	})
	l.mu.Unlock()
	for _, p := range pats {
		f(p)
	}
}

// sameScopes reports whether a PAT has the scopes that the manifest asks for.
func sameScopes(p rotation.PAT, s rotation.Spec) bool { return slices.Equal(p.Scopes, s.Scopes) }

// fold makes strings that differ in case only the same, as strings.EqualFold sees it.
func fold(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return strings.ToLower(s)
	}
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		if 'A' <= least && least <= 'Z' {
			least += 'a' - 'A'
		}
		return least
	}, s)
}
