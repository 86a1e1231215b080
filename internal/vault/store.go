package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// IdentityContentType marks a secret that holds an identity's sign-in.
const IdentityContentType = "application/vnd.patrol.msal-cache+json"

// Store keeps what is no PAT: sign-ins, and the keys of the web functions. The value
// and the tags of such a secret mean something to its owner only.
type Store struct{ vault *Vault }

// NewStore is the store in this vault.
func NewStore(v *Vault) *Store { return &Store{v} }

// Read returns the latest version: value, all its tags, version id and creation
// time. ErrNotFound if there is none.
func (s *Store) Read(ctx context.Context, name string) (value rotation.Secret, tags map[string]string, version string,
	created time.Time, err error) {
	doing := "reading secret " + name
	if err := checkName(doing, name); err != nil {
		return rotation.Secret{}, nil, "", time.Time{}, err
	}
	got, err := s.vault.client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return rotation.Secret{}, nil, "", time.Time{}, s.vault.failure(doing, err)
	}
	out, err := s.vault.read(doing, name, got.Secret)
	if err != nil {
		return rotation.Secret{}, nil, "", time.Time{}, err
	}
	if got.Value == nil {
		return rotation.Secret{}, nil, "", time.Time{}, unreadable(doing)
	}
	tags = make(map[string]string, len(got.Tags))
	for k, p := range got.Tags {
		if p != nil {
			tags[k] = *p
		}
	}
	return rotation.NewSecret(*got.Value), tags, out.ID, out.Created, nil
}

// Write makes a new version: value, content type, tags and expiry in one
// request. A soft-deleted secret of that name is recovered first.
func (s *Store) Write(ctx context.Context, name string, value rotation.Secret, contentType string,
	tags map[string]string, expires time.Time) (version string, created time.Time, err error) {
	doing := "storing secret " + name
	set, err := checkTags(doing, tags)
	if err != nil {
		return "", time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	for {
		got, err := s.vault.set(ctx, doing, name, value, contentType, set, expires)
		if err == nil {
			out, err := s.vault.read(doing, name, got)
			return out.ID, out.Created, err
		}
		if e := rotation.AsError(err); e == nil || e.Code != rotation.VaultConflict {
			return "", time.Time{}, err
		}
		recovered, err := s.vault.Recover(ctx, name)
		if err != nil {
			return "", time.Time{}, err
		}
		if !recovered { // its deletion is still under way
			if err := s.vault.pause(ctx, doing); err != nil {
				return "", time.Time{}, err
			}
		}
	}
}

// Tag replaces the tags of one version; all else stays as it is.
func (s *Store) Tag(ctx context.Context, name, version string, tags map[string]string) error {
	doing := "tagging secret " + name
	if err := checkName(doing, name); err != nil {
		return err
	}
	if !versionID.MatchString(version) {
		return fmt.Errorf("%s: %w", doing, rotation.ErrNotFound)
	}
	set, err := checkTags(doing, tags)
	if err != nil {
		return err
	}
	_, err = s.vault.client.UpdateSecretProperties(ctx, name, version, azsecrets.UpdateSecretPropertiesParameters{
		Tags: set}, nil)
	return s.vault.failure(doing, err)
}
