package simulation_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
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

// shortOverlaps makes the core work by a shorter overlap than the manifest's.
func shortOverlaps(c *reconcile.Config) {
	spec := c.Spec
	c.Spec = func(name string) (rotation.Spec, bool) {
		s, ok := spec(name)
		s.Overlap /= 2
		return s, ok
	}
}

// An outbox that changes commands, and events, on their way.
type outbox struct {
	rotation.Outbox
	commands func(ctx context.Context, cs []rotation.Command) ([]rotation.Command, error)
	drops    func(rotation.Event) bool
}

func (o outbox) Send(ctx context.Context, cs ...rotation.Command) error {
	if o.commands == nil {
		return o.Outbox.Send(ctx, cs...)
	}
	cs, err := o.commands(ctx, slices.Clone(cs))
	if err != nil || len(cs) == 0 {
		return err
	}
	return o.Outbox.Send(ctx, cs...)
}

func (o outbox) Publish(ctx context.Context, e rotation.Event) error {
	if o.drops != nil && o.drops(e) {
		return nil
	}
	return o.Outbox.Publish(ctx, e)
}

// orderingSweeps makes the sweeps' checks orders.
func orderingSweeps(c *reconcile.Config) {
	vault := c.Vault
	c.Outbox = outbox{Outbox: c.Outbox, commands: func(ctx context.Context, cs []rotation.Command) ([]rotation.Command,
		error) {
		for i := range cs {
			v, err := vault.Current(ctx, cs[i].PAT)
			if cs[i].RequestedBy != "timer" || err != nil {
				continue
			}
			cs[i].Reason, cs[i].RevokePrevious, cs[i].RequestedBy = rotation.Compromised, rotation.Now, "http"
			cs[i].From = v.Ledger.AuthorizationID
		}
		return cs, nil
	}}
}

// A vault that changes the ledgers that are written to it.
type ledgers struct {
	rotation.Vault
	change func(*rotation.Ledger)
}

func (l ledgers) Store(ctx context.Context, name string, c rotation.Content) (rotation.Version, error) {
	l.change(&c.Ledger)
	return l.Vault.Store(ctx, name, c)
}

func (l ledgers) Update(ctx context.Context, v rotation.Version) (rotation.Version, error) {
	l.change(&v.Ledger)
	return l.Vault.Update(ctx, v)
}

// ordersInOneMessage writes no order down, and its retries carry none.
func ordersInOneMessage(c *reconcile.Config) {
	c.Vault = ledgers{c.Vault, func(l *rotation.Ledger) { l.Facts.Order = rotation.Order{} }}
	c.Outbox = outbox{Outbox: c.Outbox, commands: func(_ context.Context, cs []rotation.Command) ([]rotation.Command,
		error) {
		for i := range cs {
			if cs[i].Attempt > 0 {
				cs[i] = cs[i].AsCheck()
			}
		}
		return cs, nil
	}}
}

// oneTimeForAll takes the end of an overlap that the PAT's own end has cut short for an
// order to end it.
func oneTimeForAll(c *reconcile.Config) {
	c.Vault = ledgers{c.Vault, func(l *rotation.Ledger) {
		if l.Facts.PreviousEnds == rotation.EndsByItself {
			l.Facts.PreviousEnds = rotation.EndsNow
		}
	}}
}

// Tokens that end the PATs of today's owners only.
type onlyToday struct {
	rotation.Tokens
	specs func() []rotation.Spec
}

func (o onlyToday) Revoke(ctx context.Context, owner rotation.Owner, id string) error {
	isTodays := slices.ContainsFunc(o.specs(), func(s rotation.Spec) bool { return s.Owner() == owner })
	if !isTodays {
		return nil
	}
	return o.Tokens.Revoke(ctx, owner, id)
}

// noRetries drops every command to try again that is no order.
func noRetries(c *reconcile.Config) {
	c.Outbox = outbox{Outbox: c.Outbox, commands: func(_ context.Context, cs []rotation.Command) ([]rotation.Command,
		error) {
		return slices.DeleteFunc(cs, func(c rotation.Command) bool { return c.Attempt > 0 && !c.IsOrder() }), nil
	}}
}

// noFailures publishes no failure.
func noFailures(c *reconcile.Config) {
	c.Outbox = outbox{Outbox: c.Outbox, drops: func(e rotation.Event) bool {
		_, isFailure := e.(*rotation.RotationFailed)
		return isFailure
	}}
}

// shortSuccessor is a story in which a PAT of a day's life replaces one that has an
// overlap of five days before it.
func shortSuccessor() simulation.Scenario {
	manifest := strings.Replace(onePAT, "pats:\n",
		"defaults: {lifetime: 30d, rotateBefore: 10d, overlap: 5d}\npats:\n", 1)
	return simulation.Scenario{Name: "a short-lived successor", Manifest: manifest, After: 3 * day,
		Prepare: func(w *simulation.World) {
			provisioned(w)
			time.Sleep(time.Hour)
			w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{MaxLifespanDays: 1})
		},
		Act: func(w *simulation.World) { requestRotation(w, `{}`) }}
}

// outageAtTheEnd is a story in which Azure DevOps makes no PATs from before one is due
// until after the last sweep before its end.
func outageAtTheEnd() simulation.Scenario {
	return simulation.Scenario{Name: "an outage when a PAT is due", Manifest: quickPAT, After: day,
		Prepare: func(w *simulation.World) {
			time.Sleep(5 * time.Hour)
			provisioned(w)
			time.Sleep(34 * time.Hour)
		},
		Act: func(w *simulation.World) {
			end := w.Outage(refusing(devops.ServiceName, devops.CreatePat, http.StatusServiceUnavailable))
			time.Sleep(9*time.Hour + 30*time.Minute)
			end()
		}}
}

func story(name string) simulation.Scenario {
	for _, s := range append(scenarios(), changes()...) {
		if s.Name != name {
			continue
		}
		if s.Manifest == "" {
			s.Manifest = changing
		}
		if s.After == 0 {
			s.After = 40 * time.Hour
		}
		return s
	}
	panic("no such story: " + name)
}

// Each way in which patrol once was wrong, and a story in which the judge finds it. The
// same story with the patrol that is built here holds.
func TestEachOfTheOldMistakesIsFound(t *testing.T) {
	for _, tc := range []struct {
		mistake   string
		invariant string
		ports     func(c *reconcile.Config)
		story     simulation.Scenario
		plan      simulation.Plan
	}{
		{"an overlap shorter than the manifest's", "I2", shortOverlaps, story("rotate"), nil},
		{"a sweep that sends orders", "I13", orderingSweeps, story("rotate"), nil},
		{"a sweep that sends orders, upon an empty list", "I2", orderingSweeps, story("sweep"), simulation.Plan{
			{Call: faults.Call{Service: devops.ServiceName, Operation: devops.ListPats}, N: 1}: simulation.EmptyList}},
		{"an order that lives in one message", "I12", ordersInOneMessage, story("emergency rotate"), simulation.Plan{
			{Call: faults.Call{Service: devops.ServiceName, Operation: devops.CreatePat},
				N: 1}: simulation.PolicyRefuse}},
		{"one time with three meanings", "I2", oneTimeForAll, shortSuccessor(), nil},
		{"earlier owners forgotten", "I3", func(c *reconcile.Config) {
			c.Tokens = onlyToday{c.Tokens, c.Specs}
		}, story("the owner changes"), nil},
		{"a path that does not try", "I1", noRetries, outageAtTheEnd(), nil},
		{"a path that does not tell", "I12", noFailures, story("an order while the store is refused"), nil},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			t.Parallel()
			mustHold(t, tc.story, tc.plan)
			config := tc.story.Config
			tc.story.Config = func(c *simulation.Config) {
				if config != nil {
					config(c)
				}
				c.Outside = func(o *app.Outside) { o.Ports = tc.ports }
			}
			res := tc.story.Run(t, tc.plan)
			isFound := slices.ContainsFunc(res.Violations, func(v simulation.Violation) bool {
				return v.Invariant == tc.invariant
			})
			if !isFound {
				t.Errorf("violations %v, want one of %s", res.Violations, tc.invariant)
			}
		})
	}
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
