package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/statestore"
)

const (
	// stateLimit bounds one call to the state: nothing waits longer for it.
	stateLimit = 6 * time.Second
	// stateRest is how long the state is not asked again after it has failed.
	stateRest = 30 * time.Second
)

// state is what processes know of each other, in blobs. A store that fails is not asked
// again for a while, so that what would only have been good to know holds nothing up.
type state struct {
	store *statestore.Store // nil: STATE_URL is not set
	now   func() time.Time

	mu     sync.Mutex
	until  time.Time
	failed error
	sweep  statestore.ETag // of the last sweep, as this process knows it
	pruned time.Time       // when old acts were deleted last

	process string // no two have one name
}

// newState prepares the state of STATE_URL. It calls nobody.
func newState(s Settings, credential azcore.TokenCredential, o azcore.ClientOptions,
	now func() time.Time) (*state, error) {
	store, err := statestore.New(statestore.Config{URL: s.State, Credential: credential, ClientOptions: stateOptions(o),
		Now: now})
	return &state{store: store, now: now, process: rand.Text()}, err
}

// stateOptions leave the retries to the state's own bounds.
func stateOptions(o azcore.ClientOptions) azcore.ClientOptions {
	o.Retry.MaxRetries, o.Retry.TryTimeout = 0, 0
	return o
}

// call asks the store for something, within bounds of its own: what a sweep or an act has
// met is written down although its time is over.
func (s *state) call(ctx context.Context, f func(context.Context) error) error {
	if s.store == nil {
		return statestore.ErrOff
	}
	failed := s.resting()
	if failed != nil {
		return failed
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateLimit)
	defer cancel()
	err := f(limited)
	isAnswer := err == nil || errors.Is(err, statestore.ErrNotFound) || errors.Is(err, statestore.ErrConflict)
	if isAnswer {
		return err
	}
	if e := rotation.AsError(err); e != nil && isContent(e) {
		return err // of one blob
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until, s.failed = s.now().Add(stateRest), err
	return err
}

func isContent(e *rotation.Error) bool {
	return e.Code == "state-content" || e.Code == "state-key" || e.Code == "state-size"
}

func (s *state) resting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Before(s.until) {
		return s.failed
	}
	return nil
}

// LastSweep reads the sweep that was begun last.
func (s *state) LastSweep(ctx context.Context) (out rotation.SweepRecord, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		l, etag, err := s.store.LastSweep(ctx)
		if err != nil && !errors.Is(err, statestore.ErrNotFound) {
			return err
		}
		s.setSweep(etag)
		out = sweepOf(l)
		return nil
	})
	return out, err
}

func (s *state) setSweep(etag statestore.ETag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = etag
}

func (s *state) sweepTag() statestore.ETag {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sweep
}

// KeepSweep writes a sweep down, unless one that was begun later has ended already.
func (s *state) KeepSweep(ctx context.Context, r rotation.SweepRecord) error {
	return s.call(ctx, func(ctx context.Context) error {
		etag, err := s.store.PutLastSweep(ctx, sweepToKeep(r), statestore.Unchanged(s.sweepTag()))
		if errors.Is(err, statestore.ErrConflict) {
			etag, err = s.replaceSweep(ctx, r)
		}
		if err == nil {
			s.setSweep(etag)
		}
		return err
	})
}

func (s *state) replaceSweep(ctx context.Context, r rotation.SweepRecord) (statestore.ETag, error) {
	there, etag, err := s.store.LastSweep(ctx)
	isUnreadable := err != nil && etag == "" && !errors.Is(err, statestore.ErrNotFound)
	switch {
	case isUnreadable:
		return "", err
	case err == nil && there.At.After(r.At):
		return etag, nil
	case there.Succeeded.After(r.Succeeded):
		r.Succeeded = there.Succeeded
	}
	return s.store.PutLastSweep(ctx, sweepToKeep(r), statestore.Unchanged(etag))
}

func sweepOf(l statestore.LastSweep) rotation.SweepRecord {
	out := rotation.SweepRecord{At: l.At, Ended: l.Ended, By: l.By, Managed: l.Managed, Commands: l.Commands,
		Unmanaged: l.Unmanaged, Released: l.Released, Succeeded: l.Succeeded}
	for _, p := range l.Problems {
		out.Problems = append(out.Problems, rotation.SweepProblem{Scope: rotation.Scope(p.Scope), Identity: p.Identity,
			Organization: p.Organization, Class: p.Class, Code: p.Code, Message: p.Message, Since: p.Since})
	}
	for _, m := range l.MassChanges {
		owner := rotation.Owner{Identity: m.Identity, Organization: m.Organization}
		out.MassChanges = append(out.MassChanges, rotation.MassChanged{Owner: owner, PATs: m.PATs, Of: m.Of})
	}
	return out
}

func sweepToKeep(r rotation.SweepRecord) statestore.LastSweep {
	out := statestore.LastSweep{At: r.At.UTC(), Ended: r.Ended.UTC(), By: r.By, Managed: r.Managed,
		Commands: r.Commands, Unmanaged: r.Unmanaged, Released: r.Released, Succeeded: utc(r.Succeeded)}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, statestore.Problem{Scope: string(p.Scope), Identity: p.Identity,
			Organization: p.Organization, Class: p.Class, Code: p.Code, Message: p.Message, Since: utc(p.Since)})
	}
	for _, m := range r.MassChanges {
		out.MassChanges = append(out.MassChanges, statestore.MassChange{Identity: m.Owner.Identity,
			Organization: m.Owner.Organization, PATs: m.PATs, Of: m.Of})
	}
	return out
}

// utc keeps the zero time what it is.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// Keys of what lasts.
const (
	troublePrefix = "check/"
	marksPrefix   = "marks/"
)

func troubleKey(t rotation.Trouble) string {
	parts := []string{string(t.Scope), t.Identity, t.Organization, t.Code}
	return troublePrefix + strings.ToLower(strings.Join(parts, "/"))
}

func marksKey(o rotation.Owner) string {
	return marksPrefix + strings.ToLower(o.Identity+"/"+o.Organization)
}

// Standing reads what lasts from one sweep to the next.
func (s *state) Standing(ctx context.Context) (out rotation.Standing, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		all, _, err := s.store.AllNotices(ctx)
		if e := rotation.AsError(err); err != nil && (e == nil || !isContent(e)) {
			return err
		}
		for _, n := range all {
			switch {
			case n.About == nil:
			case strings.HasPrefix(n.Key, marksPrefix):
				owner := rotation.Owner{Identity: n.About.Identity, Organization: n.About.Organization}
				out.Behind = append(out.Behind, rotation.BehindMarks{Owner: owner, Since: n.Since})
			case strings.HasPrefix(n.Key, troublePrefix):
				out.Troubles = append(out.Troubles, troubleOf(n))
			}
		}
		return nil
	})
	return out, err
}

func troubleOf(n statestore.Notice) rotation.StandingTrouble {
	p := n.About
	t := rotation.Trouble{Scope: rotation.Scope(p.Scope), Identity: p.Identity, Organization: p.Organization,
		Code: p.Code}
	x := rotation.CheckIncomplete{Trouble: t, Class: p.Class, Message: p.Message, Since: n.Since, PATs: n.PATs,
		NextEnd: n.NextEnd}
	return rotation.StandingTrouble{CheckIncomplete: x, Published: n.At, Over: n.Over}
}

// KeepTrouble writes down a trouble that stands.
func (s *state) KeepTrouble(ctx context.Context, t rotation.StandingTrouble) error {
	n := statestore.Notice{Key: troubleKey(t.Trouble), At: utc(t.Published), Since: utc(t.Since), PATs: t.PATs,
		NextEnd: utc(t.NextEnd), Over: t.Over,
		About: &statestore.Problem{Scope: string(t.Scope), Identity: t.Identity, Organization: t.Organization,
			Class: t.Class, Code: cmp.Or(t.Code, rotation.Unexpected), Message: t.Message}}
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.PutNotice(ctx, n, statestore.Whatever)
		return err
	})
}

// DropTrouble is for one that is over.
func (s *state) DropTrouble(ctx context.Context, t rotation.Trouble) error {
	return s.call(ctx, func(ctx context.Context) error {
		return s.store.DropNotice(ctx, troubleKey(t), statestore.Whatever)
	})
}

// KeepBehind writes down up to when an owner's marks have been published.
func (s *state) KeepBehind(ctx context.Context, b rotation.BehindMarks) error {
	n := statestore.Notice{Key: marksKey(b.Owner), Since: utc(b.Since), About: &statestore.Problem{Scope: "marks",
		Identity: b.Owner.Identity, Organization: b.Owner.Organization}}
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.PutNotice(ctx, n, statestore.Whatever)
		return err
	})
}

// DropBehind is for an owner whose marks have all been published.
func (s *state) DropBehind(ctx context.Context, o rotation.Owner) error {
	return s.call(ctx, func(ctx context.Context) error {
		return s.store.DropNotice(ctx, marksKey(o), statestore.Whatever)
	})
}

// FailingNames lists the PATs that fail.
func (s *state) FailingNames(ctx context.Context) (out rotation.FailingNames, err error) {
	err = s.call(ctx, func(ctx context.Context) (err error) {
		out.WrittenAt, out.Complete, err = s.store.FailingNames(ctx)
		return err
	})
	return out, err
}

// AllFailing reads all of them.
func (s *state) AllFailing(ctx context.Context) (out []rotation.FailingPAT, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		all, _, err := s.store.AllFailing(ctx)
		if e := rotation.AsError(err); err != nil && (e == nil || !isContent(e)) {
			return err
		}
		for _, f := range all {
			out = append(out, failingOf(f))
		}
		return nil
	})
	return out, err
}

// Failing reads why a PAT fails.
func (s *state) Failing(ctx context.Context, pat string) (out rotation.FailingPAT, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		f, _, err := s.store.Failing(ctx, pat)
		if errors.Is(err, statestore.ErrNotFound) {
			return nil
		}
		if err == nil {
			out = failingOf(f)
		}
		return err
	})
	return out, err
}

func failingOf(f statestore.Failing) rotation.FailingPAT {
	out := rotation.FailingPAT{Failure: rotation.Failure{PAT: f.PAT, Step: f.Step, Class: f.Class, Code: f.Code,
		Message: f.Message, Attempt: f.Attempt, At: f.At, Since: f.Since, RetryAt: f.RetryAt}}
	for _, t := range f.Notified {
		out.Notified = append(out.Notified, rotation.NotifiedFailure(t))
	}
	if f.Refused != nil {
		out.Refused = rotation.RefusedStore(*f.Refused)
	}
	return out
}

// KeepFailing writes down why a PAT fails.
func (s *state) KeepFailing(ctx context.Context, f rotation.FailingPAT) error {
	out := statestore.Failing{PAT: f.PAT, Step: f.Step, Class: f.Class, Code: f.Code, Message: f.Message,
		Attempt: f.Attempt, Since: utc(f.Since), At: utc(f.At), RetryAt: utc(f.RetryAt)}
	for _, t := range f.Notified {
		t.At = utc(t.At)
		out.Notified = append(out.Notified, statestore.Notified(t))
	}
	if !f.Refused.Until.IsZero() {
		refused := statestore.Refused(f.Refused)
		refused.Until = utc(refused.Until)
		out.Refused = &refused
	}
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.PutFailing(ctx, out, statestore.Whatever)
		return err
	})
}

// DropFailing is for a PAT that has come to rest.
func (s *state) DropFailing(ctx context.Context, pat string) error {
	return s.call(ctx, func(ctx context.Context) error {
		return s.store.DropFailing(ctx, pat, statestore.Whatever)
	})
}

// incidentKey is an incident's blob: its id has letters, digits and the like.
func incidentKey(id string) string { return "incidents/" + id + ".json" }

// ReadIncident reads what was kept of an incident.
func (s *state) ReadIncident(ctx context.Context, id string) (record []byte, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		b, err := s.store.Get(ctx, incidentKey(id))
		record = b.Value
		return err
	})
	if errors.Is(err, statestore.ErrNotFound) || errors.Is(err, statestore.ErrOff) {
		return nil, rotation.ErrNotFound
	}
	return record, err
}

// WriteIncident keeps an incident, in the place of what was kept of it before.
func (s *state) WriteIncident(ctx context.Context, id string, record []byte) error {
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.Put(ctx, incidentKey(id), record, statestore.Condition{})
		return err
	})
}
