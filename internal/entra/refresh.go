package entra

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// rereadInTurn waits for the turn and reads the vault.
func (a *account) rereadInTurn(ctx context.Context) error {
	return a.withTurn(ctx, func(ctx context.Context) error {
		_, err := a.reread(ctx)
		return err
	})
}

// reread reads what the vault has, and takes it if it is another version than the
// one that is known. It fails only if the vault can't be read.
func (a *account) reread(ctx context.Context) (changed bool, err error) {
	value, tags, version, created, err := a.client.cfg.Store.Read(ctx, a.secret)
	now := a.client.cfg.Now()
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		a.stored.readAt = now
		if a.stored.version == "" && a.state.required == nil {
			// There is nothing to tag. The same id all day long makes the
			// notifications of several processes one.
			a.state.require(newRequired(a.notSignedIn(), now.UTC().Truncate(notifyEvery)))
		}
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the sign-in: %w", err)
	}
	a.stored.readAt = now
	if version == a.stored.version {
		a.takeTags(ctx, tags)
		return false, nil
	}
	a.stored.version, a.stored.created = version, created
	a.takeVersion(value, tags)
	return true, nil
}

// takeTags goes by what another instance has noted at the version that is known.
func (a *account) takeTags(ctx context.Context, tags map[string]string) {
	before := a.stored.tags[tagRequired]
	a.stored.tags = tags
	known, noted := a.state.required, parseRequired(tags[tagRequired])
	if noted == nil {
		takenBack := before != "" && known != nil && !known.notified.IsZero()
		if takenBack { // by the instance that has probed, which announces it
			a.state.required = nil
		}
		return
	}
	if known == nil && noted.code == codeWrongUser {
		return // by another manifest than this instance's, for which it is the right one
	}
	if known != nil && !noted.notified.After(known.notified) {
		return // this instance's own, or an older one
	}
	if known == nil && noted.notified.Before(a.state.used.Truncate(time.Second)) {
		a.takeBackRequired(ctx) // the refresh token has worked since
		return
	}
	noted.elsewhere = a.state.newer
	a.state.require(noted)
	a.state.claims = claimsIn(tags)
}

// takeVersion goes on with another version than the one that was known. A
// refresh token that was not stored is dropped: somebody has signed in since, or
// another instance has stored its own.
func (a *account) takeVersion(value rotation.Secret, tags map[string]string) {
	known := a.state.required
	a.stored.tags = tags
	a.state.required, a.state.newer, a.state.paused = nil, false, nil
	a.state.claims = claimsIn(tags)
	a.state.lacks = lacking{} // somebody may have consented, and signed in
	d, err := decode(value.Reveal())
	if err == nil {
		_, _, err = d.find(a.client.cfg.ClientID)
	}
	p := a.remembered(tags, d)
	a.state.hasUserID, a.state.renamed = p.id != "", ""
	lags := strings.EqualFold(p.declared, a.user) && !strings.EqualFold(p.name, a.user)
	if lags {
		a.state.renamed = printable(p.name)
	}
	if noted := parseRequired(tags[tagRequired]); noted != nil {
		noted.elsewhere = noted.code == codeWrongUser // for the manifest of then
		a.state.require(noted)
	} else if known != nil || tags[tagUnannounced] != "" {
		a.state.repair()
	}
	since := a.client.cfg.Now().UTC().Truncate(time.Second)
	isOfAnother := p.name != "" && !p.isOf(a.user) && !a.isFormer
	switch {
	case err != nil:
		a.state.require(newRequired(&rotation.Error{Class: rotation.SignIn, Code: CodeNotSignedIn,
			Message: "the stored sign-in is not one of this app registration: sign in again"}, since))
	case isOfAnother && p.id == "": // with an id, the name of today may be the manifest's
		a.state.require(newRequired(a.wrongUser(p.name), since))
	}
	a.cache.doc = d
}

// acquire gets an access token if there is no fresh one, or in any case with
// force, and stores a refresh token that has become due. It has the turn.
func (a *account) acquire(ctx context.Context, force bool, claims string) error {
	now := a.client.cfg.Now()
	askVault := a.state.required != nil && a.isOld(a.stored.readAt)
	if !a.stored.wasRead() || askVault {
		_, err := a.reread(ctx)
		if err != nil && !a.stored.wasRead() {
			return err
		}
	}
	if r := a.state.required; r != nil && !a.state.shouldProbe(now) {
		a.notifyRequired(ctx)
		return r.err
	}
	if _, fresh := a.bearer.current(now); fresh && !force {
		a.persist(ctx)
		a.notifySignedIn(ctx)
		return nil
	}
	if a.state.paused != nil && now.Before(a.state.pausedUntil) {
		return a.state.paused
	}
	err := a.redeem(ctx, claims)
	a.attempts.add(claims != "", err)
	return err
}

// redeem exchanges the refresh token for an access token. If Entra refuses it,
// the vault is asked for another one before a person is.
func (a *account) redeem(ctx context.Context, claims string) error {
	e := a.redeemOnce(ctx, claims)
	if a.client.certificateRefused(e, a.confidential.reading) {
		e = a.redeemOnce(ctx, claims)
	}
	for e != nil && e.Class == rotation.SignIn {
		// Somebody may have signed in, or another instance may have stored its
		// refresh token, since the vault was last read.
		changed, err := a.reread(ctx)
		if err != nil {
			// Without the vault nobody can say that the sign-in is dead.
			a.warn(ctx, "Entra refuses the sign-in, and the vault, which may have a newer one, can't be read; "+
				"patrol tries again in a minute", "code", e.Code, "class", rotation.ClassOf(err))
			a.state.paused, a.state.pausedUntil = e, a.client.cfg.Now().Add(rereadEvery)
			return e
		}
		if !changed || a.state.required != nil {
			break
		}
		e = a.redeemOnce(ctx, claims)
	}
	if e == nil {
		return nil
	}
	a.warn(ctx, "no token", "class", e.Class, "code", e.Code, "activity", e.ActivityID)
	switch e.Class {
	case rotation.SignIn:
		a.endSignIn(ctx, e)
	case rotation.Throttled, rotation.Configuration, rotation.Policy:
		a.state.paused, a.state.pausedUntil = e, a.client.cfg.Now().Add(max(e.After, rereadEvery))
	}
	return e
}

// endSignIn notes that Entra has refused the refresh token, and that the vault
// has no other.
//
// If the process ends here, nothing is lost but the notification: the next one
// finds the same version without a tag, is refused as well, and notifies.
func (a *account) endSignIn(ctx context.Context, e *rotation.Error) {
	now := a.client.cfg.Now()
	r := newRequired(e, now.UTC().Truncate(time.Second))
	if old := a.state.required; old != nil && old.code != r.code && a.state.notifiedLongAgo(now) {
		// Another cause, of which people are notified at once: at a time, and so
		// with an id, that every instance finds.
		r.since = old.notified.Add(now.Sub(old.notified).Truncate(notifyEvery))
	}
	a.state.require(r)
	a.bearer.forget()
	if refusal, ok := errors.AsType[*Refusal](e); ok {
		a.state.claims = refusal.Claims
	}
	a.notifyRequired(ctx)
}

// redeemOnce sends the refresh token to Entra once.
func (a *account) redeemOnce(ctx context.Context, claims string) *rotation.Error {
	token, _, err := a.cache.doc.find(a.client.cfg.ClientID)
	if err != nil {
		return a.notSignedIn()
	}
	client, e := a.msal(ctx)
	if e != nil {
		return e
	}
	before := a.cache.doc.clone()
	r, e := a.refresh(ctx, client, token.HomeAccountID, claims)
	// From here on Entra may have replaced the refresh token. If the process ends
	// here, the replacement is lost; the stored one stays good for 90 days from
	// its last use, so that the next process goes on with it. An authority that
	// allows one use only needs another sign-in then.
	now := a.client.cfg.Now()
	if after, _, err := a.cache.doc.find(a.client.cfg.ClientID); err != nil {
		a.cache.doc = before // MSAL never drops it; but nothing must
	} else if after.Secret != token.Secret {
		a.state.newer = true
	}
	if e != nil {
		return e
	}
	p := a.remembered(a.stored.tags, before)
	who := a.tokenUser(p, r)
	if e := a.checkUser(p, who); e != nil {
		a.state.newer = false
		return e
	}
	a.state.used, a.state.claims, a.state.paused = now, "", nil
	a.bearer.set(rotation.NewSecret(r.AccessToken), r.ExpiresOn, r.Metadata.RefreshOn, a.state.lacks)
	a.client.cfg.Log.DebugContext(ctx, "token refreshed", "identity", a.name, "expires", r.ExpiresOn)
	if a.state.required != nil { // the probe has succeeded
		a.takeBackRequired(ctx)
	}
	a.noteName(ctx, p, who.user)
	a.tagName(ctx)
	a.persist(ctx)
	a.notifySignedIn(ctx)
	return nil
}

// msal is the client for which Entra takes the refresh token in memory.
func (a *account) msal(ctx context.Context) (msalClient, *rotation.Error) {
	if a.cache.doc.Public || a.client.cfg.Credential.isPublic() {
		return a.public, nil
	}
	isThere := a.confidential.confidential != nil
	if !isThere || a.confidential.reading != a.client.certificateReading(ctx) {
		c, e := a.client.newConfidentialClient(ctx, &a.cache)
		if e != nil {
			return msalClient{}, e
		}
		a.confidential = c
	}
	return a.confidential, nil
}

func (a *account) refreshFailure(client msalClient, err error, now time.Time) *rotation.Error {
	e := client.failure(err, now)
	if e.Code == codeCredentialWanted && a.cache.doc.Public && !a.client.cfg.Credential.isPublic() {
		e.Class = rotation.SignIn
		e.Message = "the sign-in was made from a command line, " +
			"and the app registration takes no public clients any more: sign in on patrol's own page"
	}
	return e
}

// tokenUser is whose an access token is. An answer without an id token leaves the
// account that the cache has, or the one that was noted at sign-in.
func (a *account) tokenUser(p person, r public.AuthResult) grant {
	g := grant{user: r.Account.PreferredUsername, userID: r.Account.LocalAccountID}
	if g.user == "" {
		_, cached, _ := a.cache.doc.find(a.client.cfg.ClientID)
		g = grant{user: cached.Username, userID: cached.LocalAccountID}
	}
	if g.user == "" {
		g.user = p.name
	}
	return g
}

// persist stores the refresh token if the vault's has become old. Failing does
// no harm: memory has it, and it is tried again.
func (a *account) persist(ctx context.Context) {
	now := a.client.cfg.Now()
	isDue := now.Sub(a.stored.created) >= persistAfter && !now.Before(a.state.storeAgain)
	if !a.state.newer || !isDue || a.isFormer {
		return
	}
	const failed = "the refresh token can't be stored; patrol goes on with it and tries again in a minute"
	mine := a.cache.doc
	a.state.storeAgain = now.Add(rereadEvery)
	// There is no compare-and-swap: read at least, so that a sign-in that
	// somebody has just made is not overwritten by an older one.
	changed, err := a.reread(ctx)
	if err != nil {
		a.warn(ctx, failed, "step", "read", "class", rotation.ClassOf(err))
		return
	}
	if changed {
		a.state.storeAgain = time.Time{}
		return
	}
	if a.state.required != nil { // found by another instance after this one's last success: probe first
		return
	}
	value, err := mine.encode()
	if err != nil {
		a.client.cfg.Log.ErrorContext(ctx, failed, "identity", a.name, "step", "encode")
		return
	}
	_, owner, _ := mine.find(a.client.cfg.ClientID)
	tags := a.ownTags(owner.LocalAccountID)
	expires := now.Add(refreshTokenLife)
	version, created, err := a.client.cfg.Store.Write(ctx, a.secret, value, contentType, tags, expires)
	if err != nil {
		// The version may be there all the same. Then the next reading takes it
		// for another instance's, and it is the same refresh token.
		a.warn(ctx, failed, "step", "write", "class", rotation.ClassOf(err))
		return
	}
	// From here on every process starts with this refresh token. If this one ends
	// here, nothing is lost.
	a.stored.version, a.stored.created, a.stored.tags = version, created, tags
	a.state.newer, a.state.storeAgain = false, time.Time{}
	a.client.cfg.Log.InfoContext(ctx, "refresh token stored", "identity", a.name, "version", version)
}

// warn logs what is in the way of an identity's sign-in.
func (a *account) warn(ctx context.Context, text string, fields ...any) {
	a.client.cfg.Log.WarnContext(ctx, text, append([]any{"identity", a.name}, fields...)...)
}
