package entra

import (
	"context"
	"fmt"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// An identity that has left the manifest may still own PATs which have to be ended. Its
// stored sign-in serves for that, as long as it lives: it yields tokens with the scopes
// of PATs, to whoever asks for the identity's credential. Nobody is asked to sign in for
// it, no event speaks of it, no sweep renews it, and it has no status.
//
// Nothing is stored for it either. What Entra answers with a token stays in memory; the
// refresh token in the vault stays good for 90 days from when it was stored, which is at
// least 83 after the identity has left. Whoever deletes the secret ends this use of it.

// former finds the account of an identity that the manifest does not have, if the vault
// still has its sign-in.
func (c *Client) former(ctx context.Context, identity string) (*account, error) {
	if !isSecretName(identity) {
		return nil, unknownIdentity(identity)
	}
	a, err := c.formerAccount(identity)
	if err != nil {
		return nil, err
	}
	isThere := false
	err = a.withTurn(ctx, func(ctx context.Context) error {
		isMissing := a.stored.version == "" && a.isOld(a.stored.readAt)
		if isMissing {
			if _, err := a.reread(ctx); err != nil {
				return err
			}
		}
		isThere = a.stored.version != ""
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !isThere {
		return nil, unknownIdentity(identity)
	}
	return a, nil
}

// formerAccount is the one account of a secret, whose name has no case.
func (c *Client) formerAccount(identity string) (*account, error) {
	c.formersMu.Lock()
	defer c.formersMu.Unlock()
	key := strings.ToLower(identity)
	if a := c.formers[key]; a != nil {
		return a, nil
	}
	a := &account{
		client: c, name: identity, secret: SecretName(identity), scopes: patScopes(), isFormer: true,
		turn: make(chan struct{}, 1),
	}
	client, err := c.newPublicClient(&a.cache)
	if err != nil {
		return nil, settingsFailure(err)
	}
	a.public = client
	c.formers[key] = a
	return a, nil
}

func unknownIdentity(identity string) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: rotation.UnknownIdentity,
		Message: fmt.Sprintf("the manifest has no identity %q", identity)}
}

// isSecretName says that an identity of this name can have a secret. The name comes from
// a tag, which anybody may have written.
func isSecretName(identity string) bool {
	const characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	return identity != "" && len(SecretName(identity)) <= 127 && strings.Trim(identity, characters) == ""
}

// checkFormer refuses everybody but the person whom the vault remembers: by the object
// id, or without one by the name.
func (a *account) checkFormer(p person, g grant) *rotation.Error {
	isSame := p.id == "" && p.name != "" && strings.EqualFold(p.name, g.user)
	if isSame || p.id != "" && strings.EqualFold(p.id, g.userID) {
		return nil
	}
	return a.refused(codeWrongUser, "the stored sign-in of %s is not of the user whom its tags name", a.name)
}
