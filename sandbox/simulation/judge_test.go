package simulation_test

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// A vault that does something else before it stores: the way to build a patrol with
// its steps in the wrong order out of the real one.
type vaultBefore struct {
	rotation.Vault
	before func(ctx context.Context, name string, c *rotation.Content) error
}

func (v vaultBefore) Store(ctx context.Context, name string, c rotation.Content) (rotation.Version, error) {
	if err := v.before(ctx, name, &c); err != nil {
		return rotation.Version{}, err
	}
	return v.Vault.Store(ctx, name, c)
}

// Tokens that do not revoke what was never stored.
type forgetful struct {
	rotation.Tokens
	mu     *sync.Mutex
	stored map[string]bool
}

func (f forgetful) Revoke(ctx context.Context, o rotation.Owner, id string) error {
	f.mu.Lock()
	known := f.stored[id]
	f.mu.Unlock()
	if !known {
		return nil
	}
	return f.Tokens.Revoke(ctx, o, id)
}

func TestABrokenPatrolIsFound(t *testing.T) {
	for _, tc := range []struct {
		name      string
		invariant string
		ports     func(c *reconcile.Config)
		plan      simulation.Plan
	}{
		{"revokes before it stores", "I1", func(c *reconcile.Config) {
			c.Vault = vaultBefore{c.Vault, func(ctx context.Context, _ string, content *rotation.Content) error {
				if content.Ledger.Previous == "" {
					return nil
				}
				return c.Tokens.Revoke(ctx, c.Specs()[0].Owner(), content.Ledger.Previous)
			}}
		}, nil},
		{"revokes before the overlap has passed", "I2", func(c *reconcile.Config) {
			c.Vault = vaultBefore{c.Vault, func(_ context.Context, _ string, content *rotation.Content) error {
				if !content.Ledger.RevokePreviousAt.IsZero() {
					content.Ledger.RevokePreviousAt = content.Ledger.RevokePreviousAt.Add(-30 * time.Minute)
				}
				return nil
			}}
		}, nil},
		{"announces before it stores", "I4", func(c *reconcile.Config) {
			c.Vault = vaultBefore{c.Vault, func(ctx context.Context, name string, content *rotation.Content) error {
				return c.Outbox.Publish(ctx, &rotation.Rotated{Spec: c.Specs()[0],
					RotationID: content.Ledger.RotationID, Reason: content.Ledger.Reason,
					SecretID: "https://vault/secrets/" + name + "/next", SecretVersion: "next",
					AuthorizationID: content.Ledger.AuthorizationID,
					ValidFrom:       time.Now(), ValidTo: content.Expires, At: time.Now()})
			}}
		}, nil},
		{"leaves an orphan", "I3", func(c *reconcile.Config) {
			f := forgetful{c.Tokens, &sync.Mutex{}, map[string]bool{}}
			c.Tokens = f
			c.Vault = vaultBefore{c.Vault, func(_ context.Context, _ string, content *rotation.Content) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.stored[content.Ledger.AuthorizationID] = true
				return nil
			}}
		}, simulation.Plan{{Call: faults.Call{Service: devops.ServiceName, Operation: devops.CreatePat},
			N: 1}: simulation.ResetAfter}},
		{"makes up rotation ids", "I4", func(c *reconcile.Config) {
			c.Vault = vaultBefore{c.Vault, func(_ context.Context, _ string, content *rotation.Content) error {
				content.Ledger.RotationID = strings.ToLower(rand.Text()[:10])
				return nil
			}}
		}, nil},
		{"puts the token into an event", "I5", func(c *reconcile.Config) {
			c.Vault = vaultBefore{c.Vault, func(ctx context.Context, _ string, content *rotation.Content) error {
				return c.Outbox.Publish(ctx, &rotation.RotationFailed{Spec: c.Specs()[0],
					RotationID: content.Ledger.RotationID, Step: "store",
					Class: rotation.Transient, Message: "could not store " + content.Value.Reveal(), At: time.Now()})
			}}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := scenarios()[1] // rotate
			s.Config = func(c *simulation.Config) {
				c.Outside = func(o *app.Outside) { o.Ports = tc.ports }
			}
			res := s.Run(t, tc.plan)
			found := false
			for _, v := range res.Violations {
				found = found || v.Invariant == tc.invariant
			}
			if !found {
				t.Errorf("violations %v, want one of %s", res.Violations, tc.invariant)
			}
		})
	}
}
