package simulation_test

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// A vault whose readings are changed on their way.
type readings struct {
	rotation.Vault
	change func(*rotation.Version)
}

func (r readings) Current(ctx context.Context, name string) (rotation.Version, error) {
	v, err := r.Vault.Current(ctx, name)
	r.change(&v)
	return v, err
}

func (r readings) Version(ctx context.Context, name, version string) (rotation.Version, error) {
	v, err := r.Vault.Version(ctx, name, version)
	r.change(&v)
	return v, err
}

func (r readings) Secrets(ctx context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		for v, err := range r.Vault.Secrets(ctx) {
			r.change(&v)
			if !yield(v, err) {
				return
			}
		}
	}
}

// A vault that lists less than it has.
type lists struct {
	rotation.Vault
	leavesOut func(rotation.Version) bool
	versions  func(rotation.Version) bool
}

func (l lists) Secrets(ctx context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		for v, err := range l.Vault.Secrets(ctx) {
			isHidden := err == nil && l.leavesOut != nil && l.leavesOut(v)
			if !isHidden && !yield(v, err) {
				return
			}
		}
	}
}

func (l lists) Versions(ctx context.Context, name string) ([]rotation.Version, error) {
	vs, err := l.Vault.Versions(ctx, name)
	if l.versions != nil {
		vs = slices.DeleteFunc(vs, l.versions)
	}
	return vs, err
}

// withoutGuard does not see the copies of a secret.
func withoutGuard(c *reconcile.Config) {
	c.Vault = lists{Vault: c.Vault, leavesOut: func(v rotation.Version) bool { return v.Name == "a-copy" }}
}

// tagsAreAll takes a version without a ledger for one that holds no PAT.
func tagsAreAll(c *reconcile.Config) {
	c.Vault = lists{Vault: c.Vault, versions: func(v rotation.Version) bool { return !v.Ledger.Ours() }}
}

// expBelieved takes the vault's word for the ends of PATs.
type expBelieved struct {
	rotation.Tokens
	vault rotation.Vault
	specs func() []rotation.Spec
}

func (e expBelieved) List(ctx context.Context, o rotation.Owner) ([]rotation.PAT, error) {
	pats, err := e.Tokens.List(ctx, o)
	for _, s := range e.specs() {
		v, notRead := e.vault.Current(ctx, s.Name)
		if notRead != nil {
			continue
		}
		for i := range pats {
			if strings.EqualFold(pats[i].AuthorizationID, v.Ledger.AuthorizationID) {
				pats[i].ValidTo = v.Expires
			}
		}
	}
	return pats, err
}

// digestIgnored believes a ledger beside any value.
func digestIgnored(c *reconcile.Config) {
	c.Vault = readings{c.Vault, func(v *rotation.Version) { v.Ledger.Facts.Digest = "" }}
}

// timesBelieved believes the time on the tag, however early it is.
func timesBelieved(c *reconcile.Config) {
	c.Vault = readings{c.Vault, func(v *rotation.Version) {
		if !v.Ledger.RevokePreviousAt.IsZero() {
			v.Created, v.Ledger.AnnouncedAt = v.Created.Add(-rotation.Day), v.Created.Add(-rotation.Day)
		}
	}}
}

// forgetsRefusals takes an entry for a changed one at each look, and so tries what has just
// been refused.
func forgetsRefusals(c *reconcile.Config) {
	spec, looks := c.Spec, atomic.Int64{}
	c.Spec = func(name string) (rotation.Spec, bool) {
		s, ok := spec(name)
		s.Overlap += time.Duration(looks.Add(1))
		return s, ok
	}
}

// silent tells nobody of what fails.
func silent(c *reconcile.Config) {
	c.Outbox = outbox{Outbox: c.Outbox, drops: func(e rotation.Event) bool {
		switch e.(type) {
		case *rotation.RotationFailed, *rotation.CheckIncomplete:
			return true
		}
		return false
	}}
}

// at is a hand at the nth call of a kind.
func at(service, operation string, n int, hand simulation.Mode) simulation.Plan {
	return simulation.Plan{{Call: faults.Call{Service: service, Operation: operation}, N: n}: hand}
}

// Each way in which a hand could make patrol break a promise, and the judge finds it. The
// same story with the patrol that is built here holds.
func TestAPatrolThatBelievesHandsIsFound(t *testing.T) {
	for _, tc := range []struct {
		mistake   string
		invariant string
		ports     func(c *reconcile.Config)
		story     simulation.Scenario
		plan      simulation.Plan
	}{
		{"the guard left out", "I7", withoutGuard, story("rotate"), at(devops.ServiceName, devops.ListPats, 1,
			"secret copied with its tags")},
		{"a version without tags holds nothing", "I13", tagsAreAll, story("provision"),
			at("servicebus", "complete pat-commands", 1, "tags replaced by one of others")},
		{"exp believed", "I13", func(c *reconcile.Config) { c.Tokens = expBelieved{c.Tokens, c.Vault, c.Specs} },
			story("sweep"), at(devops.ServiceName, devops.ListPats, 1, "exp moved to a day ahead")},
		{"digest ignored", "I8", digestIgnored, story("sweep"), at(devops.ServiceName, devops.ListPats, 1,
			"garbage under the old tags")},
		{"an edited time believed", "I2", timesBelieved, story("rotate"),
			at("servicebus", "complete pat-commands", 1, "revocation time moved to now")},
		{"the deleted forgotten", "I1", func(c *reconcile.Config) { c.Vault = lists{Vault: c.Vault} },
			story("provision"), at("servicebus", "complete pat-commands", 1, "secret deleted")},
		{"a refused store not remembered", "I8", forgetsRefusals, story("rotate"),
			at(devops.ServiceName, devops.ListPats, 1, "store denied by a policy for a day")},
		{"a closed vault not told", "I9", silent, story("sweep"), at(devops.ServiceName, devops.ListPats, 1,
			"vault closed for seven hours")},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			t.Parallel()
			mustHold(t, tc.story, tc.plan)
			tc.story.Config = func(c *simulation.Config) {
				c.Outside = func(o *app.Outside) { o.Ports = tc.ports }
			}
			res := tc.story.Run(t, tc.plan)
			isFound := slices.ContainsFunc(res.Violations, func(v simulation.Violation) bool {
				return v.Invariant == tc.invariant
			})
			if !isFound {
				t.Errorf("%d hands at work, violations %v, want one of %s", res.Acted, res.Violations, tc.invariant)
			}
			if testing.Verbose() {
				t.Logf("found: %v", res.Violations)
			}
		})
	}
}

// What the hands leave behind is what they are called by: a name that nobody knows would
// let a plan do nothing.
func TestEveryHandHasItsOwnName(t *testing.T) {
	seen := map[simulation.Mode]bool{}
	for _, h := range simulation.Hands() {
		if seen[h.Name] {
			t.Errorf("two hands are called %q", h.Name)
		}
		seen[h.Name] = true
		if slices.Contains(simulation.Modes(), h.Name) {
			t.Errorf("%q is a fault's name too", h.Name)
		}
	}
	if len(seen) < 60 {
		t.Errorf("%d hands, want at least 60", len(seen))
	}
}
