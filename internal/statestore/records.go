package statestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/panics"
)

// Names of blobs.
const (
	sweepKey      = "sweeps/last.json"
	failingPrefix = "failing/"
	noticePrefix  = "told/"
	actPrefix     = "acts/"
	suffix        = ".json"
)

const (
	// maxRead is how many blobs of a kind are read for a page or an answer.
	maxRead = 200
	// together is how many of them are read at a time.
	together = 8
	// maxPruned is how many blobs are deleted at a time, and pruneLimit how long that
	// may take.
	maxPruned  = 200
	pruneLimit = 30 * time.Second
	// maxText is how long a text of somebody else's words may be.
	maxText = 500
)

// record is what every kind of blob can say of itself: whether it is whole, and the
// name that belongs to it.
type record interface {
	key() (string, bool)
}

// hashed is a blob's name for a key that may have any form.
func hashed(prefix, key string) string {
	sum := sha256.Sum256([]byte(key))
	return prefix + hex.EncodeToString(sum[:16]) + suffix
}

// clip shortens a text to what a blob has room for.
func clip(text string) string {
	runes := []rune(strings.ToValidUTF8(text, "?"))
	if len(runes) <= maxText {
		return string(runes)
	}
	return string(runes[:maxText-1]) + "…"
}

// encode writes a record, if it is whole.
func encode(r record) (key string, value []byte, err error) {
	key, ok := r.key()
	if !ok {
		return "", nil, configuration("state-content", "a %T that is to be stored lacks what makes it one", r)
	}
	value, err = json.Marshal(r)
	if err != nil {
		return "", nil, configuration("state-content", "%s: the state cannot be written as JSON", key)
	}
	return key, value, nil
}

// decode reads a record of a blob. What newer versions of patrol may add is left out.
func decode[T record](key string, value []byte) (T, error) {
	var r, none T
	if err := json.Unmarshal(value, &r); err != nil {
		return none, foreign(key)
	}
	if own, ok := r.key(); !ok || own != key {
		return none, foreign(key)
	}
	return r, nil
}

func foreign(key string) error {
	return configuration("state-content",
		"the state %s holds something that patrol does not write there: delete the blob", key)
}

// read reads a record. Where a blob holds something else its ETag is given all the
// same, so that it can be replaced.
func read[T record](ctx context.Context, s *Store, key string) (T, ETag, error) {
	b, err := s.Get(ctx, key)
	if err != nil {
		var none T
		return none, "", err
	}
	r, err := decode[T](key, b.Value)
	return r, b.ETag, err
}

func write(ctx context.Context, s *Store, r record, when Condition) (ETag, error) {
	if s == nil {
		return "", ErrOff
	}
	key, value, err := encode(r)
	if err != nil {
		return "", err
	}
	return s.Put(ctx, key, value, when)
}

// readAll reads the records below a prefix, in the order of names. complete says that
// nothing is missing: neither too many were there, nor one that could not be read. An
// error is the store's; then what could be read is given with it.
func readAll[T record](ctx context.Context, s *Store, prefix string) (all []T, complete bool, err error) {
	entries, more, err := s.List(ctx, prefix)
	if err != nil {
		return nil, false, err
	}
	complete = !more && len(entries) <= maxRead
	entries = entries[:min(len(entries), maxRead)]
	records, errs := make([]*T, len(entries)), make([]error, len(entries))
	slots := make(chan struct{}, together)
	var wg sync.WaitGroup
	for i, e := range entries {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := panics.Held(func() error {
				r, _, err := read[T](ctx, s, e.Key)
				records[i] = &r
				return err
			})
			if err != nil {
				records[i] = nil
			}
			if err != nil && !errors.Is(err, ErrNotFound) { // deleted since
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for i, r := range records {
		if r != nil {
			all = append(all, *r)
		}
		if errs[i] != nil {
			complete = false
			if err == nil {
				err = errs[i]
			}
		}
	}
	return all, complete, err
}

// prune deletes what nobody has written since before, and says how much that was.
func prune(ctx context.Context, s *Store, prefix string, before time.Time) (deleted int, err error) {
	ctx, cancel := context.WithTimeout(ctx, pruneLimit)
	defer cancel()
	entries, _, err := s.List(ctx, prefix)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if e.Modified.IsZero() || !e.Modified.Before(before) {
			continue
		}
		if deleted == maxPruned {
			return deleted, nil
		}
		err := s.Delete(ctx, e.Key, Unchanged(e.ETag))
		switch {
		case errors.Is(err, ErrConflict): // written again meanwhile
		case err != nil:
			return deleted, err
		default:
			deleted++
		}
	}
	return deleted, nil
}

// name is the form of a PAT's name, which is a secret's: without case.
var name = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

func failingKey(pat string) (string, bool) {
	return failingPrefix + strings.ToLower(pat) + suffix, name.MatchString(pat)
}

// whole reports whether a raw answer is one JSON value.
func whole(raw json.RawMessage) bool { return len(raw) == 0 || json.Valid(bytes.TrimSpace(raw)) }

func keyOfPAT(pat string) (string, error) {
	key, ok := failingKey(pat)
	if !ok {
		return "", configuration("state-key", "%q is no name of a PAT", fmt.Sprintf("%.40s", pat))
	}
	return key, nil
}
