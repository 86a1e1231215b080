package vault_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

const bot = "patrol-identity-build-bot"

func TestASignInIsKeptInASecret(t *testing.T) {
	r := overLoopback(t)
	s := vault.NewStore(r.Vault)
	if _, _, _, _, err := s.Read(ctx, bot); !errors.Is(err, rotation.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	expires := time.Now().AddDate(0, 0, 90).UTC().Truncate(time.Second)
	id, created, err := s.Write(ctx, bot, rotation.NewSecret("canary-cache"), vault.IdentityContentType,
		map[string]string{"patrol-user": "build-bot@contoso.com"}, expires)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.calls(); got[keyvault.SetSecret] != 1 {
		t.Errorf("Write made %v", got)
	}
	if err := s.Tag(ctx, bot, id, map[string]string{"patrol-user": "build-bot@contoso.com",
		"patrol-sign-in-required": "AADSTS700082 2026-12-01T00:00:00Z"}); err != nil {
		t.Fatal(err)
	}
	value, tags, version, at, err := s.Read(ctx, bot)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "value", value.Reveal(), "canary-cache")
	equal(t, "version", version, id)
	equalTimes(t, "created", at, created)
	equal(t, "number of tags", len(tags), 2)
	all := r.kv.Versions(bot)
	if len(all) != 1 {
		t.Fatalf("%d versions, want 1", len(all))
	}
	kept := all[0]
	equalTimes(t, "end", kept.Expires, expires)
	equal(t, "content type", kept.ContentType, "application/vnd.patrol.msal-cache+json")
	equal(t, "enabled", kept.Enabled, true)
	if !maps.Equal(kept.Tags, tags) {
		t.Errorf("tags %v, want %v", kept.Tags, tags)
	}

	// Tags can all be taken off; an unknown version cannot be tagged.
	if err := s.Tag(ctx, bot, id, nil); err != nil || len(r.kv.Versions(bot)[0].Tags) != 0 {
		t.Errorf("tags %v, %v", r.kv.Versions(bot)[0].Tags, err)
	}
	for _, unknown := range []string{"", strings.Repeat("0", 32)} {
		if err := s.Tag(ctx, bot, unknown, nil); !errors.Is(err, rotation.ErrNotFound) {
			t.Errorf("version %q: %v", unknown, err)
		}
	}
	many := map[string]string{}
	for i := range 16 {
		many[fmt.Sprint("patrol-", i)] = "x"
	}
	wantClass(t, s.Tag(ctx, bot, id, many), rotation.Configuration, "vault-tags")

	// A disabled one is a matter for a person.
	if _, err := r.kv.Change(bot, "", func(v *keyvault.Version) { v.Enabled = false }); err != nil {
		t.Fatal(err)
	}
	_, _, _, _, err = s.Read(ctx, bot)
	wantClass(t, err, rotation.Configuration, "vault-disabled")
}

func TestASignInBringsADeletedSecretBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t, func(k *keyvault.Config, _ *vault.Config) {
			k.DeleteDelay, k.RecoverDelay = 20*time.Second, 20*time.Second
		})
		s := vault.NewStore(r.Vault)
		write := func(value string) error {
			_, _, err := s.Write(ctx, bot, rotation.NewSecret(value), vault.IdentityContentType, nil, time.Time{})
			return err
		}
		if err := write("one"); err != nil {
			t.Fatal(err)
		}
		if err := r.kv.Delete(bot); err != nil {
			t.Fatal(err)
		}
		if err := write("two"); err != nil { // the deletion is still under way
			t.Fatal(err)
		}
		kept := r.kv.Versions(bot)
		if len(kept) != 2 || kept[1].Value != "two" || kept[1].Deleted {
			t.Errorf("kept %+v", kept)
		}

		// What cannot be recovered is an error, in time.
		if err := r.kv.Delete(bot); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		r.inject(t, keyvault.RecoverDeletedSecret, faults.Fault{Mode: faults.Status, Status: 403, Times: -1,
			Body: keyvault.ErrorBody("Forbidden", "no", "ForbiddenByRbac")})
		wantClass(t, write("three"), rotation.Configuration, "vault-forbidden")
		r.inject(t, keyvault.SetSecret, faults.Fault{Mode: faults.Status, Status: 409, Times: -1,
			Body: keyvault.ErrorBody("Conflict", "no", "ObjectIsBeingDeleted")})
		r.inject(t, keyvault.GetDeletedSecret, faults.Fault{Mode: faults.Status, Status: 404, Times: -1,
			Body: keyvault.ErrorBody("SecretNotFound", "no", "")})
		begin := time.Now()
		wantClass(t, write("four"), rotation.Transient, "vault-unavailable")
		if took := time.Since(begin); took > 3*time.Minute {
			t.Errorf("waited %s", took)
		}
	})
}

func TestALostSignInIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inMemory(t)
		r.inject(t, keyvault.SetSecret, faults.Fault{Mode: faults.ResetAfter, Times: 4})
		id, created, err := vault.NewStore(r.Vault).Write(ctx, bot, rotation.NewSecret("canary-cache"),
			vault.IdentityContentType, nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		kept := r.kv.Versions(bot)
		if latest := kept[len(kept)-1]; latest.ID != id || !latest.Created.Equal(created) {
			t.Errorf("got %s, latest %s", id, latest.ID)
		}
	})
}
