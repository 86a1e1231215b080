package entra_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
	fake "github.com/azure-patrol/patrol/sandbox/entra"
)

// without is a manifest that build-bot has left.
func without(cfg *entra.Config) {
	cfg.Identities = map[string]entra.Identity{"release-bot": {User: "release-bot@contoso.com"}}
}

func (w *world) formerToken(c *entra.Client, identity string, scopes ...string) (string, error) {
	w.t.Helper()
	t, err := c.Credential(identity).GetToken(w.t.Context(), policy.TokenRequestOptions{Scopes: scopes})
	return t.Token, err
}

func TestTheSignInOfAnIdentityThatHasLeftServesToEndItsPATs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		before := w.vault.latest()
		tagged := w.vault.tags
		for range 8 { // 80 days, in two processes at a time
			a, b := w.start(without), w.start(without)
			for _, c := range []*entra.Client{a, b, a} {
				token, err := w.formerToken(c, "build-bot", fake.DevOps+"/.default")
				w.mustDo(err)
				claims, err := w.authority.VerifyAccessToken(token)
				w.mustDo(err)
				check(t, "the token's object id", claims.ObjectID, botID)
				check(t, "the token's scopes", strings.Join(claims.Scopes, " "), "vso.pats vso.pats_manage")
			}
			time.Sleep(10 * day)
		}
		check(t, "refreshes", w.refreshes(), 16)
		check(t, "versions in the vault", w.vault.count(), 1)
		check(t, "the version in the vault", w.vault.latest().id, before.id)
		check(t, "writes of tags", w.vault.tags, tagged)
		w.wantNotified()
	})
}

func TestAnIdentityThatHasLeftHasNothingElse(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	c := w.start(without)
	_, err := w.formerToken(c, "build-bot")
	w.mustDo(err)
	_, err = w.formerToken(c, "build-bot", fake.DevOps+"/vso.tokenadministration")
	checkError(t, err, rotation.Configuration, "unknown-scope")
	check(t, "identities", strings.Join(c.Names(), " "), "release-bot")
	_, err = c.Status(t.Context(), "build-bot")
	checkError(t, err, rotation.Configuration, "unknown-identity")
	checkError(t, c.Refresh(t.Context(), "build-bot"), rotation.Configuration, "unknown-identity")
	_, err = c.SignInURL(t.Context(), "build-bot", signInRequest())
	checkError(t, err, rotation.Configuration, "unknown-identity")
	checkError(t, complete(t, c, "code"), rotation.Configuration, "unknown-identity")
}

func TestAnIdentityThatNeverWasIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		c := w.start(without)
		for range 3 {
			_, err := w.formerToken(c, "build-bot")
			checkError(t, err, rotation.Configuration, "unknown-identity")
		}
		check(t, "reads of the vault", w.vault.reads, 1)
		for _, name := range []string{"", "../x", "a b", "x/y", strings.Repeat("x", 200)} {
			_, err := w.formerToken(c, name)
			checkError(t, err, rotation.Configuration, "unknown-identity")
		}
		check(t, "reads of the vault", w.vault.reads, 1)
		w.wantNotified()
		// Its secret was recovered.
		w.signIn(w.start())
		time.Sleep(time.Minute)
		_, err := w.formerToken(c, "build-bot")
		w.mustDo(err)
	})
}

func TestAVaultThatIsDownMakesNoIdentityUnknown(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	c := w.start(without)
	w.vault.set(func(v *memoryVault) { v.down = errDown })
	_, err := w.formerToken(c, "build-bot")
	if !errors.Is(err, errDown) {
		t.Fatalf("got %v, want %v", err, errDown)
	}
	w.vault.set(func(v *memoryVault) { v.down = nil })
	_, err = w.formerToken(c, "build-bot")
	w.mustDo(err)
}

func TestADeadSignInOfAnIdentityThatHasLeftIsNobodysMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Switches{})
		w.signIn(w.start())
		w.notified()
		tags := len(w.vault.latest().tags)
		time.Sleep(time.Second)
		w.mustDo(w.authority.DisableUser(bot, true))
		c := w.start(without)
		for range 20 {
			_, err := w.formerToken(c, "build-bot")
			checkError(t, err, rotation.SignIn, "AADSTS50057")
			time.Sleep(time.Hour)
		}
		check(t, "refreshes", w.refreshes(), 1)
		check(t, "tags", len(w.vault.latest().tags), tags)
		w.wantNotified()
		w.mustDo(w.authority.DisableUser(bot, false))
		time.Sleep(5 * time.Hour)
		_, err := w.formerToken(c, "build-bot")
		w.mustDo(err)
		w.wantNotified()
		checkLacks(t, "the log", w.log.String(), "a person must sign in")
	})
}

func TestARenamedUserOfAnIdentityThatHasLeftIsKnownByTheObjectID(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	w.signIn(w.start())
	w.mustDo(w.authority.RenameUser(bot, newBot))
	_, err := w.formerToken(w.start(without), "build-bot")
	w.mustDo(err)
	w.checkNames(bot, "")
	check(t, "warnings of a rename", w.renames(), 0)
}

func TestASecretWithAnothersTokenServesNobody(t *testing.T) {
	for name, tc := range map[string]struct {
		tags map[string]string
		code string
	}{
		"another object id":  {map[string]string{"patrol-user": bot, "patrol-user-id": newID}, "wrong-user"},
		"another name":       {map[string]string{"patrol-user": "mallory@contoso.com"}, "wrong-user"},
		"nothing to know by": {nil, "wrong-user"},
		"the name":           {map[string]string{"patrol-user": bot}, ""},
		"the object id":      {map[string]string{"patrol-user-id": botID}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fake.Switches{})
			w.put(bot, tc.tags)
			token, err := w.formerToken(w.start(without), "build-bot")
			if tc.code == "" {
				w.mustDo(err)
				return
			}
			checkError(t, err, rotation.SignIn, tc.code)
			check(t, "a token", token, "")
		})
	}
}

// Key Vault does not tell upper case from lower: it is the identity's own secret.
func TestAnIdentityWhoseNameHasOtherLettersIsTheSame(t *testing.T) {
	w := newWorld(t, fake.Switches{})
	c := w.start()
	w.signIn(c)
	for _, name := range []string{"build-bot", "Build-Bot", "BUILD-BOT"} {
		_, err := w.formerToken(c, name)
		w.mustDo(err)
	}
	check(t, "refreshes", w.refreshes(), 1)
}
