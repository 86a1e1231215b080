package entra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func (a *account) notSignedIn() *rotation.Error {
	return &rotation.Error{Class: rotation.SignIn, Code: codeNotSignedIn, Message: "nobody has signed in as " + a.user}
}

// look reads what the vault has, and takes it if it is another version than the
// one that is known. It fails only if the vault can't be read.
func (a *account) look(ctx context.Context) error {
	_, err := a.reread(ctx)
	return err
}

func (a *account) reread(ctx context.Context) (changed bool, err error) {
	value, tags, version, created, err := a.client.cfg.Store.Read(ctx, a.secret)
	now := a.client.cfg.Now()
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		a.looked, a.loaded = now, true
		if a.stored.version == "" && a.required == nil {
			// There is nothing to tag. The same id all day long makes the
			// tellings of several processes one.
			a.required = &required{code: codeNotSignedIn, since: now.UTC().Truncate(tellEvery), err: a.notSignedIn()}
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the sign-in: %w", err)
	}
	a.looked, a.loaded = now, true
	told := a.required
	if version == a.stored.version {
		noted := a.stored.tags[tagRequired]
		a.stored.tags = tags
		switch r := parseRequired(tags[tagRequired]); {
		case r == nil && noted != "" && told != nil && !told.told.IsZero():
			a.required = nil // another instance has taken it back
		case r == nil || told != nil && !r.told.After(told.told):
		case r.told.Before(a.used.Truncate(time.Second)) && told == nil:
			a.clear(ctx) // the refresh token has worked since
		default: // another instance was first
			r.others = a.newer
			a.require(r)
			a.demand(claimsIn(tags))
		}
		return false, nil
	}
	a.stored.version, a.stored.created, a.stored.tags = version, created, tags
	a.required, a.newer, a.failed = nil, false, nil
	a.demand(claimsIn(tags))
	if r := parseRequired(tags[tagRequired]); r != nil {
		a.require(r)
	} else {
		a.repaired = a.repaired || told != nil || tags[tagTell] != ""
	}
	d, err := decode(value.Reveal())
	if err == nil {
		_, _, err = d.find(a.client.cfg.ClientID)
	}
	switch {
	case err != nil:
		a.require(&required{code: codeNotSignedIn, since: now.UTC().Truncate(time.Second), err: &rotation.Error{
			Class: rotation.SignIn, Code: codeNotSignedIn, Message: "the stored sign-in is not one of this app registration: sign in again"}})
	case tags[tagUser] != "" && !strings.EqualFold(tags[tagUser], a.user):
		a.require(&required{code: codeWrongUser, since: now.UTC().Truncate(time.Second), err: a.wrongUser(tags[tagUser])})
	}
	a.cache.doc = d
	return true, nil
}

// require notes that a person must sign in, since when it first was so.
func (a *account) require(r *required) {
	if a.required != nil && a.required.code == r.code && a.required.since.Before(r.since) {
		r.since, r.told = a.required.since, latest(a.required.told, r.told)
	}
	a.required, a.repaired = r, false
}

// demand notes what the next sign-in must satisfy.
func (a *account) demand(claims string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claims = claims
}

// acquire gets an access token if there is no fresh one, or in any case with
// force, and stores a refresh token that has become due. It has the turn.
func (a *account) acquire(ctx context.Context, force bool, claims string) error {
	now := a.client.cfg.Now()
	if !a.loaded || a.required != nil && now.Sub(a.looked) >= lookEvery {
		if err := a.look(ctx); err != nil && !a.loaded {
			return err
		}
	}
	if r := a.required; r != nil && !a.probe(r, now) {
		a.tell(ctx)
		return r.err
	}
	a.mu.Lock()
	_, fresh := a.current(now)
	a.mu.Unlock()
	if fresh && !force {
		a.persist(ctx)
		a.tellRepaired(ctx)
		return nil
	}
	if a.failed != nil && now.Before(a.until) {
		return a.failed
	}
	err := a.redeem(ctx, claims)
	a.mu.Lock()
	a.attempts++
	if claims != "" {
		a.forced++
	}
	a.last = err
	a.mu.Unlock()
	return err
}

// probe says that a sign-in that is known to be dead shall be tried all the
// same: once a day, before a person is told again, and once if only another
// instance's refresh token is known to be dead.
func (a *account) probe(r *required, now time.Time) bool {
	switch r.code {
	case codeNotSignedIn, codeWrongUser, codeUserIDChanged:
		return false
	}
	return r.others || !r.told.IsZero() && now.Sub(r.told) >= tellEvery
}

func (a *account) redeem(ctx context.Context, claims string) error {
	e := a.try(ctx, claims)
	// Somebody may have signed in, or another instance may have stored the
	// refresh token that replaced this one: under strict rotation two instances
	// can outrun each other a few times.
	patience := otherInstances
	for n := 0; n < maxRereads && e != nil && e.Class == rotation.SignIn; n++ {
		changed, err := a.reread(ctx)
		for wait := otherInstance; err == nil && !changed && a.required == nil && a.client.cfg.PersistEveryRotation && wait <= patience; wait *= 2 {
			patience -= wait
			select {
			case <-time.After(wait):
				changed, err = a.reread(ctx)
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			// Without the vault nobody can say that the sign-in is dead.
			a.client.cfg.Log.WarnContext(ctx, "sign-in refused, and the vault can't be read", "identity", a.name, "code", e.Code)
			a.failed, a.until = e, a.client.cfg.Now().Add(lookEvery)
			return e
		}
		if !changed || a.required != nil {
			break
		}
		e = a.try(ctx, claims)
	}
	if e == nil {
		return nil
	}
	a.client.cfg.Log.WarnContext(ctx, "no token", "identity", a.name, "class", e.Class, "code", e.Code, "activity", e.ActivityID)
	now := a.client.cfg.Now()
	switch e.Class {
	case rotation.SignIn:
		r := &required{code: e.Code, since: now.UTC().Truncate(time.Second), err: e}
		switch old := a.required; {
		case old == nil:
		case old.code == r.code: // it was so before
			r.since, r.told = old.since, old.told
		case !old.told.IsZero() && now.Sub(old.told) >= tellEvery:
			// Another cause, which is told at once: at a time, and so with an id,
			// that every instance finds.
			r.since = old.told.Add(now.Sub(old.told).Truncate(tellEvery))
		}
		a.required, a.repaired = r, false
		a.mu.Lock()
		a.token = rotation.Secret{}
		a.mu.Unlock()
		if refusal, ok := errors.AsType[*Refusal](e); ok {
			a.demand(refusal.Claims)
		}
		a.tell(ctx)
	case rotation.Throttled, rotation.Configuration, rotation.Policy:
		a.failed, a.until = e, now.Add(max(e.After, lookEvery))
	}
	return e
}

// try redeems the refresh token once.
func (a *account) try(ctx context.Context, claims string) *rotation.Error {
	token, _, err := a.cache.doc.find(a.client.cfg.ClientID)
	if err != nil {
		return a.notSignedIn()
	}
	before := a.cache.doc.clone()
	client := a.msal
	if a.cache.doc.Public {
		client = a.native
	}
	r, err := client.refresh(ctx, token.HomeAccountID, a.scopes, claims)
	now := a.client.cfg.Now()
	if after, _, e := a.cache.doc.find(a.client.cfg.ClientID); e != nil {
		a.cache.doc = before // MSAL never drops it; but nothing must
	} else if after.Secret != token.Secret {
		a.newer = true
	}
	if err != nil {
		e := client.failure(err, now)
		if e.Code == "AADSTS7000218" && a.cache.doc.Public && !a.client.cfg.Credential.public() {
			e.Class = rotation.SignIn
			e.Message = "the sign-in was made from a command line, and the app registration takes no public clients any more: sign in on patrol's own page"
		}
		return e
	}
	if e := a.checkUser(r); e != nil {
		a.newer = false
		return e
	}
	a.used = now
	a.mu.Lock()
	a.token, a.expires, a.renew = rotation.NewSecret(r.AccessToken), r.ExpiresOn, r.Metadata.RefreshOn
	a.claims = ""
	a.mu.Unlock()
	a.client.cfg.Log.DebugContext(ctx, "token refreshed", "identity", a.name, "expires", r.ExpiresOn)
	a.failed = nil
	if a.required != nil { // a probe has succeeded
		a.clear(ctx)
	}
	a.persist(ctx)
	a.tellRepaired(ctx)
	return nil
}

// checkUser refuses tokens of anybody but the manifest's user. An answer
// without an id token leaves the account that the cache has, or the one that
// was noted at sign-in.
func (a *account) checkUser(r public.AuthResult) *rotation.Error {
	_, cached, _ := a.cache.doc.find(a.client.cfg.ClientID)
	name, id := r.Account.PreferredUsername, r.Account.LocalAccountID
	if name == "" {
		name, id = cached.Username, cached.LocalAccountID
	}
	if name == "" {
		name = a.stored.tags[tagUser]
	}
	known := a.stored.tags[tagUserID]
	if !strings.EqualFold(name, a.user) {
		return a.wrongUser(name)
	}
	return a.admitID(known, Grant{UserID: id})
}

// persist stores the refresh token if the vault's has become old. Failing does
// no harm: memory has it, and it is tried again.
func (a *account) persist(ctx context.Context) {
	now := a.client.cfg.Now()
	due := a.client.cfg.PersistEveryRotation || now.Sub(a.stored.created) >= persistAfter
	if !a.newer || !due || now.Before(a.tryAgain) {
		return
	}
	mine := a.cache.doc
	a.tryAgain = now.Add(lookEvery)
	// There is no compare-and-swap: look at least, so that a sign-in that
	// somebody has just made is not overwritten by an older one.
	changed, err := a.reread(ctx)
	if err != nil {
		a.client.cfg.Log.WarnContext(ctx, "the refresh token can't be stored", "identity", a.name, "step", "read", "class", rotation.ClassOf(err))
		return
	}
	if changed {
		a.tryAgain = time.Time{}
		return
	}
	if a.required != nil { // found by another instance after this one's last success: see who is right first
		return
	}
	value, err := mine.encode()
	if err != nil {
		a.client.cfg.Log.ErrorContext(ctx, "the refresh token can't be stored", "identity", a.name, "step", "encode")
		return
	}
	_, owner, _ := mine.find(a.client.cfg.ClientID)
	tags := a.ownTags(owner.LocalAccountID)
	version, created, err := a.client.cfg.Store.Write(ctx, a.secret, value, contentType, tags, now.Add(refreshTokenLife))
	if err != nil {
		a.client.cfg.Log.WarnContext(ctx, "the refresh token can't be stored", "identity", a.name, "step", "write", "class", rotation.ClassOf(err))
		return
	}
	a.stored.version, a.stored.created, a.stored.tags = version, created, tags
	a.newer, a.tryAgain = false, time.Time{}
	a.client.cfg.Log.InfoContext(ctx, "refresh token stored", "identity", a.name, "version", version)
}

// tell announces a required sign-in, once and then every 24 hours, and notes
// it in the vault afterwards: a crash in between tells twice, not never.
func (a *account) tell(ctx context.Context) {
	r, now := a.required, a.client.cfg.Now()
	if r == nil || !r.told.IsZero() && now.Sub(r.told) < tellEvery {
		return
	}
	// Each telling has a time, and so an id, that every instance finds again.
	at := r.since.Add(now.Sub(r.since).Truncate(tellEvery))
	err := a.client.cfg.Notify(ctx, &rotation.SignInRequired{
		Identity: a.name, User: a.user, Code: r.code, SignInURL: a.client.SignInLink(a.name), At: at,
	})
	if err != nil {
		a.client.cfg.Log.WarnContext(ctx, "a required sign-in can't be announced", "identity", a.name, "class", rotation.ClassOf(err))
		return
	}
	r.told = at
	a.client.cfg.Log.InfoContext(ctx, "a person must sign in", "identity", a.name, "user", a.user, "code", r.code, "cause", string(causeOf(r.err)), "why", r.err.Message)
	if a.stored.version == "" {
		return
	}
	tags := maps.Clone(a.stored.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagRequired] = r.tag()
	delete(tags, tagExpiring)
	a.mu.Lock()
	claims := a.claims
	a.mu.Unlock()
	putClaims(tags, claims)
	a.tag(ctx, tags)
}

// clear takes back a required sign-in.
func (a *account) clear(ctx context.Context) {
	a.required, a.repaired, a.probed = nil, true, a.client.cfg.Now().UTC().Truncate(time.Second)
	a.demand("")
	if _, noted := a.stored.tags[tagRequired]; noted {
		tags := maps.Clone(a.stored.tags)
		delete(tags, tagRequired)
		putClaims(tags, "")
		a.tag(ctx, tags)
	}
}

func (a *account) tag(ctx context.Context, tags map[string]string) {
	if err := a.client.cfg.Store.Tag(ctx, a.secret, a.stored.version, tags); err != nil {
		a.client.cfg.Log.WarnContext(ctx, "the sign-in's state can't be noted in the vault", "identity", a.name, "class", rotation.ClassOf(err))
		return
	}
	a.stored.tags = tags
}

// tellRepaired announces that a sign-in is in order again.
func (a *account) tellRepaired(ctx context.Context) {
	if !a.repaired {
		return
	}
	at := a.probed
	if at.IsZero() { // a new version: its sign-in's own time, which every instance finds
		var err error
		if at, err = time.Parse(time.RFC3339, a.stored.tags[tagSignedInAt]); err != nil {
			at = a.stored.created.UTC()
		}
	}
	if err := a.client.cfg.Notify(ctx, &rotation.SignedIn{Identity: a.name, User: a.user, At: at}); err != nil {
		a.client.cfg.Log.WarnContext(ctx, "a sign-in can't be announced", "identity", a.name, "class", rotation.ClassOf(err))
		return
	}
	a.repaired, a.probed = false, time.Time{}
	if _, untold := a.stored.tags[tagTell]; untold {
		tags := maps.Clone(a.stored.tags)
		delete(tags, tagTell)
		a.tag(ctx, tags)
	}
}

// warn announces, once per end, that what the vault keeps is about to end by
// inactivity: nothing newer could be got or stored for weeks.
func (a *account) warn(ctx context.Context) {
	until := a.stored.created.Add(refreshTokenLife).UTC().Truncate(time.Second)
	at, now := until.Add(-warnBefore), a.client.cfg.Now()
	if a.required != nil || a.stored.version == "" || now.Before(at) || !now.Before(until) || a.stored.tags[tagExpiring] == until.Format(time.RFC3339) {
		return
	}
	err := a.client.cfg.Notify(ctx, &rotation.SignInExpiring{
		Identity: a.name, User: a.user, Code: codeInactivity, SignInURL: a.client.SignInLink(a.name), Until: until, At: at,
	})
	if err != nil {
		a.client.cfg.Log.WarnContext(ctx, "a sign-in's end can't be announced", "identity", a.name, "class", rotation.ClassOf(err))
		return
	}
	a.client.cfg.Log.WarnContext(ctx, "a sign-in could not be renewed for weeks and ends soon", "identity", a.name, "user", a.user, "until", until)
	tags := maps.Clone(a.stored.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagExpiring] = until.Format(time.RFC3339)
	a.tag(ctx, tags)
}
