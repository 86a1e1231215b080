package entra

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/azure-patrol/patrol/internal/panics"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// account is one identity's sign-in. Its states, and what leads from one to
// the next:
//
//	state                how it shows              what ends it
//	-------------------  ------------------------  ------------------------------------------------
//	unread               stored.readAt is zero     reread: the vault has a version -> signed in; its
//	                                               tags say that one is required, or it has none ->
//	                                               required
//	signed in            state.required is nil     Entra answers with another refresh token -> newer
//	                                               Entra refuses it -> required
//	                                               reread: another instance's tag -> required
//	newer one in memory  and state.newer           persist stores it, 7 days after the stored one
//	                                               -> signed in
//	                                               reread: another version, which wins -> signed in
//	                                               reread: another instance's tag -> required
//	                                               elsewhere
//	required             state.required            reread: another version -> repaired
//	                                               reread: the tag that stood there is gone, because
//	                                               another instance has probed -> signed in
//	                                               24 hours after the last notification -> probed
//	required elsewhere   required.elsewhere        at the next call -> probed: the refresh token in
//	                                               memory is not the one that was refused
//	probed               within one redeem         Entra refuses it -> required
//	                                               Entra takes it -> repaired
//	repaired             state.repaired            SignedIn is delivered -> signed in
//
// A sign-in that a person makes here (save) leads from every state to repaired.
// Beside these, state.pausedUntil holds further requests back after a refusal
// that no sign-in would mend.
type account struct {
	client             *Client
	name, user, secret string
	scopes             []string
	isFormer           bool // of an identity that has left the manifest: see former.go

	// turn has one slot. Whoever has filled it owns the fields up to the next
	// comment.
	turn         chan struct{}
	cache        msalCache  // without access tokens
	public       msalClient // without the app's credential
	confidential msalClient // with it; the zero value until it is first needed
	stored       stored
	state        state
	warnedOf     string // the new name of the user that the log was last warned of

	// These have a lock of their own: they are used without the turn, too.
	bearer    bearer
	attempts  attempts
	published published
}

// stored is the latest version in the vault, as last read.
type stored struct {
	version string // empty: there is none
	created time.Time
	tags    map[string]string
	readAt  time.Time
}

func (s stored) wasRead() bool { return !s.readAt.IsZero() }

// signedInAt is when the person signed in, or else when the version was made.
func (s stored) signedInAt() time.Time {
	if at, err := time.Parse(time.RFC3339, s.tags[tagSignedInAt]); err == nil {
		return at
	}
	return s.created.UTC()
}

// state is what the vault does not say of a sign-in, or says less of.
type state struct {
	required *required // a person must sign in; nil: not
	// newer: the cache holds a refresh token that the vault has not. It is
	// stored at storeAgain at the earliest.
	newer      bool
	storeAgain time.Time
	used       time.Time // when the refresh token was last redeemed
	repaired   *repaired // SignedIn is still to be delivered; nil: not
	claims     string    // what the next sign-in must satisfy
	hasUserID  bool      // the vault remembers an object id
	lacks      lacking   // what Entra did not grant
	renamed    string    // the user's name of today, if the manifest has another; empty: not

	paused      error // the answer until pausedUntil
	pausedUntil time.Time
}

// repaired is a sign-in that is in order again.
type repaired struct {
	probedAt time.Time // zero: by a new sign-in, which has a time of its own
}

// require notes that a person must sign in, since when it first was so.
func (s *state) require(r *required) {
	if old := s.required; old != nil && old.code == r.code && !old.since.After(r.since) {
		r.since, r.notified = old.since, latest(old.notified, r.notified)
	}
	s.required, s.repaired = r, nil
}

// repair notes that SignedIn is due, unless it is already.
func (s *state) repair() {
	if s.repaired == nil {
		s.repaired = &repaired{}
	}
}

// shouldProbe says that a sign-in that is known to be dead shall be tried all
// the same: once a day, before a person is notified again, and once if only
// another instance's refresh token is known to be dead. A wrong user may have been
// given the right name since, if there is an object id to know it by.
func (s *state) shouldProbe(now time.Time) bool {
	r := s.required
	switch r.code {
	case CodeNotSignedIn, CodeUserIDChanged:
		return false
	case codeWrongUser:
		if !s.hasUserID {
			return false
		}
	}
	return r.elsewhere || !r.notified.IsZero() && now.Sub(r.notified) >= notifyEvery
}

func (a *account) covers(scope string) bool {
	return slices.ContainsFunc(a.scopes, func(s string) bool {
		resource := s[:strings.LastIndexByte(s, '/')+1]
		return strings.EqualFold(s, scope) || strings.EqualFold(resource+".default", scope)
	})
}

// withTurn runs do while nobody else works on this account. do goes on when the
// caller gives up, within its own limit: a refresh that was cut off half-way
// could lose a refresh token that Entra has already replaced.
func (a *account) withTurn(ctx context.Context, do func(context.Context) error) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		<-a.turn
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-a.turn }()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightLimit)
		defer cancel()
		done <- panics.Held(func() error {
			err := do(own)
			a.publish()
			return err
		})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// noClaims forces a refresh without claims.
const noClaims = "{}"

func (a *account) accessToken(ctx context.Context, claims string) (azcore.AccessToken, error) {
	forced := claims != ""
	before := a.attempts.count(forced)
	now := a.client.cfg.Now()
	t, fresh := a.bearer.current(now)
	if !forced && fresh && !a.published.storeDue(now) {
		return t, nil
	}
	var mine azcore.AccessToken
	err := a.withTurn(ctx, func(ctx context.Context) error {
		outcome, ok := a.attempts.since(before, forced) // another caller's, while this one waited
		if !ok {
			outcome = a.acquire(ctx, forced, claims)
		}
		// In the turn: whoever has it next may be a sign-in, which forgets the token.
		mine, _ = a.bearer.current(now)
		return outcome
	})
	if err == nil && mine.Token == "" {
		return mine, &rotation.Error{Class: rotation.Transient, Code: codeAnswer,
			Message: "there is no token of " + a.user + " at the moment: it is tried again"}
	}
	if err == nil {
		return mine, nil
	}
	t, _ = a.bearer.current(now)
	stillGood := t.Token != "" && a.client.cfg.Now().Add(time.Minute).Before(t.ExpiresOn)
	if !forced && stillGood && ctx.Err() == nil {
		return t, nil // an early refresh has failed
	}
	return azcore.AccessToken{}, err
}

func isJSONObject(s string) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal([]byte(s), &m) == nil && m != nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (a *account) notSignedIn() *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: CodeNotSignedIn, Message: "nobody has signed in as " + a.user}
}
