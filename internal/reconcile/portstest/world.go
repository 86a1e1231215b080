// Package portstest is an Azure in memory behind the ports of package rotation, for
// tests of the machine: a vault with versions and tags but without compare-and-swap,
// lists of PATs, a queue with schedules, a topic. It keeps state as the services do and
// refuses what they refuse; it has no wire.
//
// It must not know what patrol decides. The sandbox has the services with their wires.
package portstest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// maxTags is how many tags Key Vault takes on a version.
const maxTags = 15

// PAT is a personal access token as the world keeps it.
type PAT struct {
	rotation.PAT
	Owner   rotation.Owner
	User    string // whose it is: the object id of who had signed in
	Bearer  string
	Value   string
	Revoked time.Time // zero: not revoked
	Refused bool      // listed, and refused by the organization all the same
}

// Lives reports whether Azure DevOps has the PAT as active.
func (p *PAT) Lives(now time.Time) bool { return p.Revoked.IsZero() && p.ValidTo.After(now) }

// Works reports whether the organization takes the PAT.
func (p *PAT) Works(now time.Time) bool { return p.Lives(now) && !p.Refused }

// View is a way to read PATs.
type View string

const (
	InList View = "list"
	ByID   View = "by id"
)

// World is the memory. Its methods that are named like a port's are that port's; the
// others are people's hands and a test's eyes.
type World struct {
	Now func() time.Time
	// Before and After are asked around each call, "vault.Store name"; an error of
	// Before means that the call has no effect, one of After that its answer is lost.
	Before, After func(call string) error
	// ShowRevokedByID: a revoked PAT can still be read by its id.
	ShowRevokedByID bool
	// MaxLife is a lifespan policy; 0: none.
	MaxLife time.Duration
	// RefuseNewPATs: the organization refuses the PATs that are made from now on.
	RefuseNewPATs bool

	mu       sync.Mutex
	pats     []*PAT
	secrets  map[string][]rotation.Version // oldest first
	deleted  map[string]bool
	queue    []rotation.Command
	events   []rotation.Event
	calls    map[string]int
	users    map[string]string // by identity
	hidden   func(View, *PAT) bool
	hides    int // for how many reads more; negative: for ever
	versions int
}

// New is an empty world.
func New(now func() time.Time) *World {
	return &World{Now: now, secrets: map[string][]rotation.Version{}, deleted: map[string]bool{},
		calls: map[string]int{}, users: map[string]string{}}
}

// call counts a call and lets a test refuse it.
func (w *World) call(ctx context.Context, name, about string, effect func() error) error {
	err := ctx.Err()
	if err != nil {
		return err
	}
	what := strings.TrimSpace(name + " " + about)
	if w.Before != nil {
		err = w.Before(what)
		if err != nil {
			return err
		}
	}
	w.mu.Lock()
	w.calls[name]++
	err = effect()
	w.mu.Unlock()
	if err == nil && w.After != nil {
		err = w.After(what)
	}
	return err
}

// Calls gives how often each port was called.
func (w *World) Calls() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.calls)
}

// --- Azure DevOps

// MakePAT is a person's PAT.
func (w *World) MakePAT(o rotation.Owner, displayName string, scopes []string, life time.Duration) *PAT {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.makePAT(o, displayName, scopes, w.Now().Add(life))
}

func (w *World) makePAT(o rotation.Owner, displayName string, scopes []string, validTo time.Time) *PAT {
	n := len(w.pats) + 1
	user := w.users[o.Identity]
	if limit := w.Now().Add(w.MaxLife); w.MaxLife > 0 && validTo.After(limit) {
		validTo = limit
	}
	p := &PAT{Owner: o, User: user, Bearer: "bearer of " + o.Identity + " " + user,
		Value: fmt.Sprintf("%052d", n),
		PAT: rotation.PAT{AuthorizationID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), DisplayName: displayName,
			Scopes: slices.Clone(scopes), ValidFrom: w.Now(), ValidTo: validTo}}
	w.pats = append(w.pats, p)
	return p
}

// PAT finds one by its authorization id; nil if there never was one.
func (w *World) PAT(authorizationID string) *PAT {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pat(authorizationID)
}

func (w *World) pat(authorizationID string) *PAT {
	for _, p := range w.pats {
		if strings.EqualFold(p.AuthorizationID, authorizationID) {
			return p
		}
	}
	return nil
}

// PATs are all that there ever were, oldest first.
func (w *World) PATs() []*PAT {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pats)
}

// RenameOwner gives an identity or an organization another name; its PATs stay.
func (w *World) RenameOwner(from, to rotation.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pats {
		if p.Owner == from {
			p.Owner = to
		}
	}
}

// HideFrom leaves PATs out of the next reads that would show one; negative: of all.
func (w *World) HideFrom(hidden func(View, *PAT) bool, reads int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hidden, w.hides = hidden, reads
}

// view gives what hides a PAT from one read.
func (w *World) view(v View) func(*PAT) bool {
	hidden := w.hidden
	if hidden == nil || w.hides == 0 {
		return func(*PAT) bool { return false }
	}
	if w.hides > 0 {
		w.hides--
	}
	return func(p *PAT) bool { return hidden(v, p) }
}

// owns reports whether a PAT is in the list that an owner's sign-in of today shows.
func (w *World) owns(o rotation.Owner, p *PAT) bool {
	return p.Owner == o && p.User == w.users[o.Identity]
}

// List is rotation.Tokens'.
func (w *World) List(ctx context.Context, o rotation.Owner) (out []rotation.PAT, err error) {
	err = w.call(ctx, "devops.List", o.Identity+"/"+o.Organization, func() error {
		hidden := w.view(InList)
		for _, p := range w.pats {
			if w.owns(o, p) && p.Lives(w.Now()) && !hidden(p) {
				out = append(out, p.PAT)
			}
		}
		return nil
	})
	return out, err
}

// Create is rotation.Tokens'.
func (w *World) Create(ctx context.Context, o rotation.Owner, r rotation.PATRequest) (out rotation.IssuedPAT,
	err error) {
	err = w.call(ctx, "devops.Create", o.Identity+"/"+o.Organization, func() error {
		p := w.makePAT(o, r.DisplayName, r.Scopes, r.ValidTo)
		p.Refused = w.RefuseNewPATs
		out = rotation.IssuedPAT{PAT: p.PAT, Token: rotation.NewSecret(p.Value)}
		return nil
	})
	return out, err
}

// Revoke is rotation.Tokens'. One that is gone is a success.
func (w *World) Revoke(ctx context.Context, o rotation.Owner, authorizationID string) error {
	return w.call(ctx, "devops.Revoke", authorizationID, func() error {
		p := w.pat(authorizationID)
		if p != nil && w.owns(o, p) && p.Revoked.IsZero() {
			p.Revoked = w.Now()
		}
		return nil
	})
}

// Get is rotation.Tokens'.
func (w *World) Get(ctx context.Context, o rotation.Owner, authorizationID string) (out rotation.PAT, err error) {
	err = w.call(ctx, "devops.Get", authorizationID, func() error {
		if authorizationID == "" {
			return &rotation.Error{Class: rotation.Configuration, Code: "ArgumentException", Message: "HTTP 400"}
		}
		p := w.pat(authorizationID)
		if p == nil || !w.owns(o, p) || w.view(ByID)(p) {
			return rotation.ErrNotFound
		}
		if !p.Lives(w.Now()) && !w.ShowRevokedByID {
			return rotation.ErrNotFound
		}
		out = p.PAT
		return nil
	})
	return out, err
}

// Prove is rotation.Tokens'.
func (w *World) Prove(ctx context.Context, o rotation.Owner, token rotation.Secret) (bearer string, err error) {
	err = w.call(ctx, "devops.Prove", o.Organization, func() error {
		for _, p := range w.pats {
			if p.Value == token.Reveal() && p.Owner.Organization == o.Organization && p.Works(w.Now()) {
				bearer = p.Bearer
				return nil
			}
		}
		return &rotation.Error{Class: rotation.Transient, Code: rotation.TokenRefused,
			Message: "the organization does not accept the PAT"}
	})
	return bearer, err
}

// Ends are the world's PATs as what moves their ends sees them.
type Ends struct{ *World }

// Update is what moves a PAT's end.
func (e Ends) Update(ctx context.Context, o rotation.Owner, authorizationID string,
	validTo time.Time) (out rotation.PAT, err error) {
	w := e.World
	err = w.call(ctx, "devops.Update", authorizationID, func() error {
		p := w.pat(authorizationID)
		if p == nil || p.Owner != o || !p.Works(w.Now()) {
			return rotation.ErrNotFound
		}
		p.ValidTo = validTo
		if limit := p.ValidFrom.Add(w.MaxLife); w.MaxLife > 0 && validTo.After(limit) {
			p.ValidTo = limit // a policy counts from the PAT's creation
		}
		out = p.PAT
		return nil
	})
	return out, err
}

// Known reports whether the owner has or had the PAT.
func (e Ends) Known(ctx context.Context, o rotation.Owner, authorizationID string) (known bool, err error) {
	err = e.call(ctx, "devops.Known", authorizationID, func() error {
		p := e.pat(authorizationID)
		known = p != nil && p.Owner == o
		return nil
	})
	return known, err
}

// --- Key Vault

// PutSecret is a person's new version of a secret, without patrol's tags.
func (w *World) PutSecret(name, value string, tags map[string]string) rotation.Version {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.put(name, rotation.Content{Value: rotation.NewSecret(value), Foreign: tags})
}

func (w *World) put(name string, c rotation.Content) rotation.Version {
	w.versions++
	id := fmt.Sprintf("%032x", w.versions)
	v := rotation.Version{Name: name, ID: id, URL: "https://vault/secrets/" + name + "/" + id, Value: c.Value,
		Enabled: true, Created: w.Now(), Expires: c.Expires, Ledger: c.Ledger, Foreign: maps.Clone(c.Foreign)}
	w.secrets[name] = append(w.secrets[name], v)
	return v
}

// PutVersion is a version that another instance has stored.
func (w *World) PutVersion(name string, p *PAT, l rotation.Ledger) rotation.Version {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.put(name, rotation.Content{Value: rotation.NewSecret(p.Value), Expires: p.ValidTo, Ledger: l})
}

// Latest is the latest version of a secret, with its value.
func (w *World) Latest(name string) (rotation.Version, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	vs := w.secrets[name]
	if len(vs) == 0 || w.deleted[name] {
		return rotation.Version{}, false
	}
	return vs[len(vs)-1], true
}

// History are all versions of a secret, oldest first.
func (w *World) History(name string) []rotation.Version {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.secrets[name])
}

// Edit lets a person change a version's properties; the value stays.
func (w *World) Edit(name string, change func(v *rotation.Version)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	vs := w.secrets[name]
	change(&vs[len(vs)-1])
}

// EditVersion changes one version, the oldest first, as a person may.
func (w *World) EditVersion(name string, i int, change func(v *rotation.Version)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.secrets[name][i])
}

// DeleteSecret deletes a secret; it can be recovered.
func (w *World) DeleteSecret(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deleted[name] = true
}

// PurgeSecret takes a secret and all its versions away for good.
func (w *World) PurgeSecret(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.secrets, name)
	delete(w.deleted, name)
}

func withoutValue(v rotation.Version) rotation.Version {
	v.Value = rotation.Secret{}
	v.Foreign = maps.Clone(v.Foreign)
	return v
}

// Current is rotation.Vault's.
func (w *World) Current(ctx context.Context, name string) (out rotation.Version, err error) {
	err = w.call(ctx, "vault.Current", name, func() error {
		vs := w.secrets[name]
		if len(vs) == 0 || w.deleted[name] {
			return rotation.ErrNotFound
		}
		out = vs[len(vs)-1]
		out.Foreign = maps.Clone(out.Foreign)
		if !out.Enabled {
			out = withoutValue(out)
		}
		return nil
	})
	return out, err
}

// Version is rotation.Vault's.
func (w *World) Version(ctx context.Context, name, version string) (out rotation.Version, err error) {
	err = w.call(ctx, "vault.Version", name, func() error {
		for _, v := range w.secrets[name] {
			if v.ID == version {
				out = withoutValue(v)
				return nil
			}
		}
		return rotation.ErrNotFound
	})
	return out, err
}

// Value is rotation.Vault's.
func (w *World) Value(ctx context.Context, name, version string) (out rotation.Version, err error) {
	err = w.call(ctx, "vault.Value", name, func() error {
		for _, v := range w.secrets[name] {
			if v.ID != version {
				continue
			}
			out = v
			out.Foreign = maps.Clone(v.Foreign)
			if !v.Enabled {
				out = withoutValue(v)
			}
			return nil
		}
		return rotation.ErrNotFound
	})
	return out, err
}

// Versions is rotation.Vault's.
func (w *World) Versions(ctx context.Context, name string) (out []rotation.Version, err error) {
	err = w.call(ctx, "vault.Versions", name, func() error {
		for _, v := range slices.Backward(w.secrets[name]) {
			out = append(out, withoutValue(v))
		}
		return nil
	})
	return out, err
}

// Store is rotation.Vault's.
func (w *World) Store(ctx context.Context, name string, c rotation.Content) (out rotation.Version, err error) {
	err = w.call(ctx, "vault.Store", name, func() error {
		if len(c.Foreign) > maxTags-6 {
			return &rotation.Error{Class: rotation.Configuration, Code: "tags-full", Message: "too many tags"}
		}
		if w.deleted[name] {
			return &rotation.Error{Class: rotation.Transient, Code: "ObjectIsDeletedButRecoverable",
				Message: "the secret is deleted"}
		}
		out = w.put(name, c)
		return nil
	})
	return out, err
}

// Update is rotation.Vault's.
func (w *World) Update(ctx context.Context, v rotation.Version) (out rotation.Version, err error) {
	err = w.call(ctx, "vault.Update", v.Name, func() error {
		vs := w.secrets[v.Name]
		for i := range vs {
			if vs[i].ID == v.ID {
				vs[i].Ledger, vs[i].Foreign = v.Ledger, maps.Clone(v.Foreign)
				vs[i].Enabled, vs[i].Expires = v.Enabled, v.Expires
				out = withoutValue(vs[i])
				return nil
			}
		}
		return rotation.ErrNotFound
	})
	return out, err
}

// Recover is rotation.Vault's.
func (w *World) Recover(ctx context.Context, name string) (recovered bool, err error) {
	err = w.call(ctx, "vault.Recover", name, func() error {
		recovered = w.deleted[name]
		delete(w.deleted, name)
		return nil
	})
	return recovered, err
}

// Deleted is rotation.DeletedVault's.
func (w *World) Deleted(ctx context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		var out []rotation.Version
		err := w.call(ctx, "vault.Deleted", "", func() error {
			for _, name := range slices.Sorted(maps.Keys(w.deleted)) {
				vs := w.secrets[name]
				out = append(out, withoutValue(vs[len(vs)-1]))
			}
			return nil
		})
		if err != nil {
			yield(rotation.Version{}, err)
			return
		}
		for _, v := range out {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// Secrets is rotation.Vault's.
func (w *World) Secrets(ctx context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		var out []rotation.Version
		err := w.call(ctx, "vault.Secrets", "", func() error {
			for _, name := range slices.Sorted(maps.Keys(w.secrets)) {
				if w.deleted[name] {
					continue
				}
				vs := w.secrets[name]
				v := withoutValue(vs[len(vs)-1])
				v.ID, v.URL = "", ""
				out = append(out, v)
			}
			return nil
		})
		if err != nil {
			yield(rotation.Version{}, err)
			return
		}
		for _, v := range out {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// --- Service Bus

// Send is rotation.Outbox's. A command at the same time with the same operation is
// dropped, as duplicate detection does.
func (w *World) Send(ctx context.Context, cs ...rotation.Command) error {
	return w.call(ctx, "bus.Send", "", func() error {
		for _, c := range cs {
			if !slices.ContainsFunc(w.queue, func(q rotation.Command) bool { return sameMessage(q, c) }) {
				w.queue = append(w.queue, c)
			}
		}
		return nil
	})
}

func sameMessage(a, b rotation.Command) bool {
	samePAT := a.PAT == b.PAT && a.From == b.From
	return samePAT && a.Reason == b.Reason && a.Attempt == b.Attempt && a.Operation == b.Operation
}

// Publish is rotation.Outbox's.
func (w *World) Publish(ctx context.Context, e rotation.Event) error {
	return w.call(ctx, "bus.Publish", fmt.Sprintf("%T", e), func() error {
		w.events = append(w.events, e)
		return nil
	})
}

// Take takes the next command that is due by then from the queue.
func (w *World) Take(by time.Time) (rotation.Command, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := -1
	for i, c := range w.queue {
		if c.At.After(by) {
			continue
		}
		if next < 0 || c.At.Before(w.queue[next].At) {
			next = i
		}
	}
	if next < 0 {
		return rotation.Command{}, false
	}
	c := w.queue[next]
	w.queue = slices.Delete(w.queue, next, next+1)
	return c, true
}

// Queue are the commands that wait.
func (w *World) Queue() []rotation.Command {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.queue)
}

// Events are those that were published, oldest first.
func (w *World) Events() []rotation.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// --- Entra

// SignIn says who has signed in as an identity.
func (w *World) SignIn(identity, user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users[identity] = user
}

// User is rotation.Identities'.
func (w *World) User(identity string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.users[identity]
}

// Refresh is rotation.Identities'.
func (w *World) Refresh(ctx context.Context, identity string) error {
	return w.call(ctx, "entra.Refresh", identity, func() error { return nil })
}
