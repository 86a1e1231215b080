package entra_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
)

const newBot = "new-bot@contoso.com"

// naming is a manifest whose build-bot is this user.
func naming(user string) func(*entra.Config) {
	return func(cfg *entra.Config) { cfg.Identities = map[string]entra.Identity{"build-bot": {User: user}} }
}

// mustWork gets a token of today, which is the bot's, by the object id.
func (w *world) mustWork(c *entra.Client) {
	w.t.Helper()
	got, err := c.Credential("build-bot").GetToken(w.t.Context(), policy.TokenRequestOptions{Claims: "{}"})
	w.mustDo(err)
	claims, err := w.authority.VerifyAccessToken(got.Token)
	w.mustDo(err)
	check(w.t, "the token's object id", claims.ObjectID, botID)
}

// checkNames compares what the vault remembers of names.
func (w *world) checkNames(user, declared string) {
	w.t.Helper()
	tags := w.vault.latest().tags
	check(w.t, "patrol-user", tags["patrol-user"], user)
	check(w.t, "patrol-user-declared", tags["patrol-user-declared"], declared)
}

func (w *world) renames() int { return strings.Count(w.log.String(), "code=user-renamed") }

func TestARenamedUserGoesOnWhileTheManifestLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start()
		w.signIn(c)
		w.notified()
		w.mustDo(w.authority.RenameUser(bot, newBot))
		for range 3 {
			w.mustWork(c)
		}
		check(t, "warnings of a rename", w.renames(), 1)
		checkHas(t, "the log", w.log.String(), "level=WARN")
		checkHas(t, "the log", w.log.String(), "renamed="+newBot)
		w.checkNames(newBot, bot)

		for i := range 3 { // after restarts, and with what was stored since
			c = w.start()
			st := w.mustStatus(c)
			check(t, "renamed", st.Renamed, newBot)
			check(t, "user", st.User, bot)
			check(t, "code", st.Code, "")
			check(t, "required", st.Required, false)
			w.mustWork(c)
			check(t, "warnings of a rename", w.renames(), i+2)
			w.checkNames(newBot, bot)
			time.Sleep(8 * day)
		}
		w.wantNotified()

		c = w.start(naming(newBot)) // the manifest follows
		w.mustWork(c)
		w.mustWork(w.start(naming(newBot)))
		w.checkNames(newBot, "")
		check(t, "renamed", w.mustStatus(c).Renamed, "")
		check(t, "warnings of a rename", w.renames(), 4)
		w.wantNotified()
	})
}

func TestARenamedUserGoesOnWithAManifestThatFollowsAtOnce(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.notified()
	w.mustDo(w.authority.RenameUser(bot, newBot))
	c := w.start(naming(newBot))
	check(t, "required", w.mustStatus(c).Required, false)
	w.mustWork(c)
	w.mustWork(w.start(naming(newBot)))
	w.checkNames(newBot, "")
	check(t, "renamed", w.mustStatus(c).Renamed, "")
	check(t, "warnings of a rename", w.renames(), 1)
	w.wantNotified()
}

func TestAManifestThatIsAheadOfARenameWaitsForIt(t *testing.T) {
	for name, restart := range map[string]bool{"in one process": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				w.notified()
				c, since := w.start(naming(newBot)), stamp()
				w.wantError(c, rotation.SignIn, "wrong-user")
				w.wantError(w.start(naming(newBot)), rotation.SignIn, "wrong-user")
				w.wantNotified("required wrong-user " + since)
				check(t, "code", w.mustStatus(c).Code, "wrong-user")
				time.Sleep(time.Hour)
				w.mustDo(w.authority.RenameUser(bot, newBot))
				if restart {
					c = w.start(naming(newBot))
				} else {
					time.Sleep(day)
				}
				w.mustWork(c)
				w.wantNotified("signed-in " + stamp())
				w.checkNames(newBot, "")
				check(t, "code", w.mustStatus(c).Code, "")
				if tag, ok := w.vault.latest().tags["patrol-sign-in-required"]; ok {
					t.Errorf("the tag is still there: %s", tag)
				}
			})
		})
	}
}

// Otherwise whoever corrects a typing error would have to find the person.
func TestAManifestThatIsSetRightNeedsNoSignIn(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.wantError(w.start(naming("bot@contoso.com")), rotation.SignIn, "wrong-user")
	w.mustWork(w.start())
	check(t, "warnings of a rename", w.renames(), 0)
}

func TestAManifestThatNamesSomebodyElseNeverGoesOnAsThePersonBefore(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"nobody was renamed": func(*world) {},
		"the person before was renamed": func(w *world) {
			w.mustDo(w.authority.RenameUser(bot, newBot))
		},
		"the person before was renamed, and the sign-in has followed": func(w *world) {
			w.mustDo(w.authority.RenameUser(bot, newBot))
			w.mustWork(w.start())
		},
		"the person before was renamed, and the tags are gone": func(w *world) {
			w.mustDo(w.authority.RenameUser(bot, newBot))
			w.loseTags()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Switches{})
				w.signIn(w.start())
				w.authority.AddUser(fake.User{UPN: "other@contoso.com", ObjectID: newID})
				prepare(w)
				w.answers = nil
				for range 3 {
					c := w.start(naming("other@contoso.com"))
					w.wantError(c, rotation.SignIn, "wrong-user")
					time.Sleep(day)
					w.wantError(c, rotation.SignIn, "wrong-user")
				}
				if got := strings.Join(w.answers, ""); got != "" {
					t.Error("a token of the person before was given out")
				}
				c := w.start(naming("other@contoso.com")) // who signs in
				w.mustDo(w.signInAs(c, "other@contoso.com"))
				w.checkNames("other@contoso.com", "")
				check(t, "patrol-user-id", w.vault.latest().tags["patrol-user-id"], newID)
			})
		})
	}
}

// loseTags is az keyvault secret set-attributes --tags owner=x.
func (w *world) loseTags() {
	w.t.Helper()
	w.mustDo(w.vault.Tag(w.t.Context(), secretName, w.vault.latest().id, map[string]string{"owner": "x"}))
}

// A name that is free again may be given to anybody.
func TestANameThatWasGivenToSomebodyElseIsRefused(t *testing.T) {
	for name, follows := range map[string]bool{"while the manifest lags": false, "before patrol has noticed": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.signIn(w.start())
			w.mustDo(w.authority.RenameUser(bot, newBot))
			w.authority.AddUser(fake.User{UPN: bot, ObjectID: newID})
			c := w.start()
			if !follows {
				w.mustWork(c)
			}
			r := refusal(t, w.signInAs(c, bot), "user-id-changed", entra.UserIDChanged)
			check(t, "the object id to confirm", r.UserID, newID)
			check(t, "versions in the vault", w.vault.count(), 1)
			w.mustWork(w.start())
			w.checkNames(newBot, bot)
			w.mustDo(w.signInAs(c, bot, func(g *entra.CodeGrant) { g.ConfirmUserID = newID }))
			w.checkNames(bot, "")
			check(t, "patrol-user-id", w.vault.latest().tags["patrol-user-id"], newID)
		})
	}
}

func TestARenamedUserSignsInAgainUnderTheNewName(t *testing.T) {
	for name, noticed := range map[string]bool{"noticed before": true, "not noticed before": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.signIn(w.start())
			w.mustDo(w.authority.RenameUser(bot, newBot))
			c := w.start()
			if noticed {
				w.mustWork(c)
				page, err := c.SignInURL(t.Context(), "build-bot", signInRequest())
				w.mustDo(err)
				u, err := url.Parse(page)
				w.mustDo(err)
				check(t, "login_hint", u.Query().Get("login_hint"), newBot)
			}
			w.mustDo(w.signInAs(c, newBot))
			w.checkNames(newBot, bot)
			check(t, "renamed", w.mustStatus(c).Renamed, newBot)
			check(t, "warnings of a rename", w.renames(), 1)
			w.mustWork(w.start())
		})
	}
}

func TestSomebodyElseDoesNotPassForARename(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.authority.AddUser(fake.User{UPN: "mallory@contoso.com", ObjectID: newID})
	refusal(t, w.signInAs(w.start(), "mallory@contoso.com"), "wrong-user", entra.WrongUser)
	check(t, "versions in the vault", w.vault.count(), 1)
	w.mustWork(w.start())
}

func TestARenameIsFoundWithoutTagsAndWithoutRoomForThem(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(*world)
		user     string
		declared string
	}{
		"the tags are gone": {(*world).loseTags, "", ""},
		"the tags of others take all the room": {func(w *world) {
			tags := w.vault.latest().tags
			for i := len(tags); i < 15; i++ {
				tags[fmt.Sprintf("other-%d", i)] = "x"
			}
			w.mustDo(w.vault.Tag(w.t.Context(), secretName, w.vault.latest().id, tags))
		}, bot, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.signIn(w.start())
			tc.change(w)
			w.mustDo(w.authority.RenameUser(bot, newBot))
			for range 2 {
				c := w.start()
				w.mustWork(c)
				check(t, "renamed", w.mustStatus(c).Renamed, newBot)
			}
			w.checkNames(tc.user, tc.declared)
			w.mustWork(w.start(naming(newBot)))
		})
	}
}

// For a while after a deployment two manifests are in force.
func TestAnotherManifestsWrongUserDoesNotStopAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		old := w.start()
		w.signIn(old)
		w.mustToken(old)
		next := w.start(naming("other@contoso.com"))
		w.wantError(next, rotation.SignIn, "wrong-user")
		w.notified()
		for range 3 {
			time.Sleep(2 * time.Hour)
			w.mustWork(old)
			check(t, "required", w.mustStatus(old).Required, false)
			w.wantError(next, rotation.SignIn, "wrong-user")
		}
		w.wantNotified()
	})
}
