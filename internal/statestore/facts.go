package statestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// LastSweep is the sweep that was begun last: sweeps/last.json.
type LastSweep struct {
	At    time.Time `json:"at"`
	By    string    `json:"by"`             // who asked for it: timer, http, a person
	Ended time.Time `json:"ended,omitzero"` // zero: it has not, or was cut short

	Managed   int `json:"managed"`
	Commands  int `json:"commands"`
	Unmanaged int `json:"unmanaged"`
	Released  int `json:"released"`
	// Problems are what it could not check. Omitted is how many more there were.
	Problems []Problem `json:"problems,omitempty"`
	Omitted  int       `json:"omitted,omitempty"`
	// MassChanges wait for a person.
	MassChanges []MassChange `json:"massChanges,omitempty"`
	// Succeeded is when the last sweep was that could do everything; zero: none yet.
	Succeeded time.Time `json:"succeeded,omitzero"`
}

// MassChange is how many of an owner's PATs are gone or changed at once.
type MassChange struct {
	Identity     string `json:"identity"`
	Organization string `json:"organization"`
	PATs         int    `json:"pats"`
	Of           int    `json:"of"`
}

// Problem is what a sweep could not check, and why.
type Problem struct {
	Scope        string         `json:"scope"`
	Identity     string         `json:"identity,omitempty"`
	Organization string         `json:"organization,omitempty"`
	Class        rotation.Class `json:"class"`
	Code         string         `json:"code"`
	Message      string         `json:"message"`
	Since        time.Time      `json:"since,omitzero"`
}

// maxProblems of a sweep have room in a blob.
const maxProblems = 50

func (l LastSweep) key() (string, bool) { return sweepKey, !l.At.IsZero() }

// LastSweep reads the sweep that was begun last.
func (s *Store) LastSweep(ctx context.Context) (LastSweep, ETag, error) {
	return read[LastSweep](ctx, s, sweepKey)
}

// PutLastSweep writes it. Problems for which there is no room are counted.
func (s *Store) PutLastSweep(ctx context.Context, l LastSweep, when Condition) (ETag, error) {
	kept := make([]Problem, 0, min(len(l.Problems), maxProblems))
	for _, p := range l.Problems[:cap(kept)] {
		p.Message = clip(p.Message)
		kept = append(kept, p)
	}
	l.Omitted += len(l.Problems) - len(kept)
	l.Problems = kept
	return write(ctx, s, l, when)
}

// Failing is a PAT on which work fails and is tried again: failing/<pat>.json.
type Failing struct {
	PAT     string         `json:"pat"`
	Step    rotation.Step  `json:"step"`
	Class   rotation.Class `json:"class"`
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Attempt int            `json:"attempt"`
	Since   time.Time      `json:"since"`            // of the first failure in a row
	At      time.Time      `json:"at"`               // of the latest
	RetryAt time.Time      `json:"retryAt,omitzero"` // zero: not before something changes
	// Notified is what has been published of it, and when.
	Notified []Notified `json:"notified,omitempty"`
	// Refused is a store that the vault has refused; nil: none.
	Refused *Refused `json:"refused,omitempty"`
}

// Notified is when a failure was published.
type Notified struct {
	Step  rotation.Step  `json:"step"`
	Class rotation.Class `json:"class"`
	Code  string         `json:"code"`
	At    time.Time      `json:"at"`
}

// Refused is a store that the vault has refused: nothing is made until then, unless the
// manifest's entry changes.
type Refused struct {
	Until   time.Time      `json:"until"`
	Entry   string         `json:"entry"` // digest of the entry
	Class   rotation.Class `json:"class"`
	Code    string         `json:"code"`
	Message string         `json:"message"`
}

// maxNotified is what has room in a blob.
const maxNotified = 20

func (f Failing) key() (string, bool) {
	key, ok := failingKey(f.PAT)
	return key, ok && (!f.At.IsZero() || len(f.Notified) > 0)
}

// Failing reads why a PAT fails; ErrNotFound if it does not.
func (s *Store) Failing(ctx context.Context, pat string) (Failing, ETag, error) {
	key, err := keyOfPAT(pat)
	if err != nil {
		return Failing{}, "", err
	}
	return read[Failing](ctx, s, key)
}

// PutFailing writes why a PAT fails.
func (s *Store) PutFailing(ctx context.Context, f Failing, when Condition) (ETag, error) {
	f.Message = clip(f.Message)
	f.Notified = f.Notified[:min(len(f.Notified), maxNotified)]
	if f.Refused != nil {
		refused := *f.Refused
		refused.Message = clip(refused.Message)
		f.Refused = &refused
	}
	return write(ctx, s, f, when)
}

// DropFailing is for a PAT that does not fail any more.
func (s *Store) DropFailing(ctx context.Context, pat string, when Condition) error {
	key, err := keyOfPAT(pat)
	if err != nil {
		return err
	}
	return s.Delete(ctx, key, when)
}

// FailingNames are the names of the PATs that fail, in lower case, each with the time at
// which that was written. complete is false if there are more.
func (s *Store) FailingNames(ctx context.Context) (names map[string]time.Time, complete bool, err error) {
	entries, more, err := s.List(ctx, failingPrefix)
	if err != nil {
		return nil, false, err
	}
	names = make(map[string]time.Time, len(entries))
	for _, e := range entries {
		pat := strings.TrimSuffix(strings.TrimPrefix(e.Key, failingPrefix), suffix)
		if key, ok := failingKey(pat); ok && key == e.Key {
			names[pat] = e.Modified
		}
	}
	return names, !more, nil
}

// AllFailing reads all PATs that fail, by name. complete is false if there are more, or
// if one could not be read.
func (s *Store) AllFailing(ctx context.Context) (all []Failing, complete bool, err error) {
	return readAll[Failing](ctx, s, failingPrefix)
}

// Notice is what has been published of something that lasts: told/<hash of Key>.json.
type Notice struct {
	Key     string    `json:"key"`            // what lasts
	At      time.Time `json:"at,omitzero"`    // when it was published last; zero: not yet
	Since   time.Time `json:"since"`          // since when it lasts
	PATs    int       `json:"pats,omitempty"` // how many are affected
	NextEnd time.Time `json:"nextEnd,omitzero"`
	// About is what it is about.
	About *Problem `json:"about,omitempty"`
	// Over: it has ended, and that has not been published.
	Over bool `json:"over,omitempty"`
}

func (n Notice) key() (string, bool) {
	hasTime := !n.At.IsZero() || !n.Since.IsZero()
	return hashed(noticePrefix, n.Key), n.Key != "" && len(n.Key) <= maxText && hasTime
}

// Notice reads what has been published under a key.
func (s *Store) Notice(ctx context.Context, key string) (Notice, ETag, error) {
	return read[Notice](ctx, s, hashed(noticePrefix, key))
}

// PutNotice writes it. Of several processes that hold the same ETag one succeeds.
func (s *Store) PutNotice(ctx context.Context, n Notice, when Condition) (ETag, error) {
	if n.About != nil {
		about := *n.About
		about.Message = clip(about.Message)
		n.About = &about
	}
	return write(ctx, s, n, when)
}

// DropNotice is for what is over.
func (s *Store) DropNotice(ctx context.Context, key string, when Condition) error {
	return s.Delete(ctx, hashed(noticePrefix, key), when)
}

// AllNotices reads all, in no order that means anything. complete is false if there are
// more, or if one could not be read.
func (s *Store) AllNotices(ctx context.Context) (all []Notice, complete bool, err error) {
	return readAll[Notice](ctx, s, noticePrefix)
}

// PruneNotices deletes those that nobody has written since before.
func (s *Store) PruneNotices(ctx context.Context, before time.Time) (int, error) {
	return prune(ctx, s, noticePrefix, before)
}

// Act is a request with an idempotency key, and its answer: acts/<hash of Key>.json.
type Act struct {
	Key       string `json:"key"` // of whoever asked, with the key that they sent
	Operation string `json:"operation"`
	// Process names the process that carries the act out. No two have one name: by it a
	// process knows its own claim where an answer was lost.
	Process string `json:"process"`
	// Asked is a digest of what was asked for: the same key with another one is another
	// request.
	Asked string `json:"asked"`
	// Status and Body are the answer. Status 0: the act is under way.
	Status int             `json:"status,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	// Expires frees the key: soon for an act that is under way, since its process may have
	// ended; late for an answer.
	Expires time.Time `json:"expires"`
}

func (a Act) key() (string, bool) {
	named := a.Key != "" && len(a.Key) <= maxText && a.Operation != "" && a.Process != ""
	return hashed(actPrefix, a.Key), named && !a.Expires.IsZero() && whole(a.Body)
}

// Claim is whose an idempotency key is.
type Claim struct {
	// Ours: the act is the caller's to carry out. Otherwise Act is the one that has the key.
	Ours bool
	Act  Act
	ETag ETag
}

// claimTries is how often a key is taken that others take and free at the same time.
const claimTries = 5

// ClaimAct takes an idempotency key for an act, unless another one has it whose time has
// not passed.
func (s *Store) ClaimAct(ctx context.Context, a Act) (Claim, error) {
	when := Unchanged("")
	for range claimTries {
		etag, err := write(ctx, s, a, when)
		if err == nil {
			return Claim{true, a, etag}, nil
		}
		if !errors.Is(err, ErrConflict) {
			return Claim{}, err
		}
		there, etag, err := read[Act](ctx, s, hashed(actPrefix, a.Key))
		switch {
		case errors.Is(err, ErrNotFound): // freed meanwhile
			when = Unchanged("")
		case err != nil && etag == "":
			return Claim{}, err
		case err == nil && s.now().Before(there.Expires):
			return Claim{false, there, etag}, nil
		default: // its time has passed, or it is no act
			when = Unchanged(etag)
		}
	}
	return Claim{}, fmt.Errorf("claiming an idempotency key: %w", ErrConflict)
}

// FinishAct writes the answer of an act that was claimed.
func (s *Store) FinishAct(ctx context.Context, a Act, claimed ETag) (ETag, error) {
	return write(ctx, s, a, Unchanged(claimed))
}

// DropAct frees the key of an act that has failed, or that may be carried out again.
func (s *Store) DropAct(ctx context.Context, key string, claimed ETag) error {
	return s.Delete(ctx, hashed(actPrefix, key), Unchanged(claimed))
}

// PruneActs deletes those that nobody has written since before.
func (s *Store) PruneActs(ctx context.Context, before time.Time) (int, error) {
	return prune(ctx, s, actPrefix, before)
}
