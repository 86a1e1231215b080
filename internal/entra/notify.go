package entra

import (
	"context"
	"maps"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// notifiedLongAgo says that people shall be reminded of a required sign-in.
func (s *state) notifiedLongAgo(now time.Time) bool {
	r := s.required
	return !r.notified.IsZero() && now.Sub(r.notified) >= notifyEvery
}

// notifyRequired sends out that a sign-in is required, once and then every 24
// hours, and notes it in the vault afterwards.
func (a *account) notifyRequired(ctx context.Context) {
	r, now := a.state.required, a.client.cfg.Now()
	isDue := r != nil && (r.notified.IsZero() || a.state.notifiedLongAgo(now))
	if !isDue {
		return
	}
	if a.isFormer { // nobody shall sign in for it; a day later it is probed once more
		r.notified = now
		return
	}
	// Each notification has a time, and so an id, that every instance finds again.
	at := r.since.Add(now.Sub(r.since).Truncate(notifyEvery))
	err := a.client.cfg.Notify(ctx, &rotation.SignInRequired{
		Identity: a.name, User: a.user, Code: r.code, SignInURL: a.client.SignInLink(a.name), At: at,
	})
	if err != nil {
		a.warn(ctx, "a required sign-in can't be announced; patrol tries again at the next call",
			"class", rotation.ClassOf(err))
		return
	}
	// The event is out. If the process ends here, before the tag, the next one
	// sends it once more, with the same id: twice, not never.
	r.notified = at
	a.client.cfg.Log.InfoContext(ctx, "a person must sign in", "identity", a.name, "user", a.user,
		"code", r.code, "cause", string(causeOf(r.err)), "why", r.err.Message)
	if a.stored.version == "" {
		return
	}
	a.changeTags(ctx, func(tags map[string]string) {
		tags[tagRequired] = r.tag()
		delete(tags, tagExpiring)
		putClaims(tags, a.state.claims)
	})
}

// takeBackRequired notes that a required sign-in is not required any more: the
// refresh token works again.
func (a *account) takeBackRequired(ctx context.Context) {
	a.state.required, a.state.claims = nil, ""
	a.state.repaired = &repaired{probedAt: a.client.cfg.Now().UTC().Truncate(time.Second)}
	if _, noted := a.stored.tags[tagRequired]; noted {
		a.changeTags(ctx, func(tags map[string]string) {
			delete(tags, tagRequired)
			putClaims(tags, "")
		})
	}
}

// notifySignedIn sends out that a sign-in is in order again.
func (a *account) notifySignedIn(ctx context.Context) {
	if a.isFormer {
		a.state.repaired = nil
	}
	if a.state.repaired == nil {
		return
	}
	at := a.state.repaired.probedAt
	if at.IsZero() { // a new version: its sign-in's own time, which every instance finds
		at = a.stored.signedInAt()
	}
	if err := a.client.cfg.Notify(ctx, &rotation.SignedIn{Identity: a.name, User: a.user, At: at}); err != nil {
		a.warn(ctx, "a sign-in can't be announced; patrol tries again at the next call",
			"class", rotation.ClassOf(err))
		return
	}
	// The event is out. If the process ends here, the next one finds the tag and
	// sends it once more, with the same id.
	a.state.repaired = nil
	if _, isDue := a.stored.tags[tagUnannounced]; isDue {
		a.changeTags(ctx, func(tags map[string]string) { delete(tags, tagUnannounced) })
	}
}

// notifyExpiring sends out, once per end, that what the vault keeps is about to
// end by inactivity: nothing newer could be got or stored for weeks.
func (a *account) notifyExpiring(ctx context.Context) {
	if a.state.required != nil || a.stored.version == "" {
		return
	}
	until := a.stored.created.Add(refreshTokenLife).UTC().Truncate(time.Second)
	at, now := until.Add(-warnBefore), a.client.cfg.Now()
	isNear := !now.Before(at) && now.Before(until)
	if !isNear {
		return
	}
	// The event comes once; this is the state, at each sweep, which an alert asks for.
	a.client.cfg.Log.WarnContext(ctx, "a sign-in could not be renewed for weeks and ends soon; a new sign-in mends it",
		"identity", a.name, "user", a.user, "code", codeInactivity, "until", until)
	if a.stored.tags[tagExpiring] == until.Format(time.RFC3339) {
		return
	}
	err := a.client.cfg.Notify(ctx, &rotation.SignInExpiring{
		Identity: a.name, User: a.user, Code: codeInactivity, SignInURL: a.client.SignInLink(a.name),
		Until: until, At: at,
	})
	if err != nil {
		a.warn(ctx, "the end of a sign-in can't be announced; patrol tries again at the next sweep",
			"class", rotation.ClassOf(err))
		return
	}
	a.changeTags(ctx, func(tags map[string]string) { tags[tagExpiring] = until.Format(time.RFC3339) })
}

// changeTags changes the tags of the stored version. A failure does no harm:
// they are reminders for other processes, which find the same without them.
func (a *account) changeTags(ctx context.Context, change func(tags map[string]string)) {
	if a.isFormer {
		return
	}
	tags := maps.Clone(a.stored.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	change(tags)
	if err := a.client.cfg.Store.Tag(ctx, a.secret, a.stored.version, tags); err != nil {
		a.warn(ctx, "the state of a sign-in can't be noted in the vault; other instances find it by themselves",
			"class", rotation.ClassOf(err))
		return
	}
	a.stored.tags = tags
}
