package vault

import (
	"context"
	"errors"
	"slices"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Versions lists a secret's versions by their properties, newest first. No secret:
// an empty list.
func (v *Vault) Versions(ctx context.Context, name string) ([]rotation.Version, error) {
	var out []rotation.Version
	for ver, err := range v.versions(ctx, name) {
		if errors.Is(err, rotation.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, ver)
	}
	slices.SortStableFunc(out, func(a, b rotation.Version) int { return b.Created.Compare(a.Created) })
	return out, nil
}
