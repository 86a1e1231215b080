package reconcile_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// fleetServices are a vault, Azure DevOps' lists and an outbox in memory, for what
// concerns many PATs at once.
type fleetServices struct {
	rotation.Vault
	rotation.Tokens

	mu       sync.Mutex
	specs    []rotation.Spec
	secrets  map[string]rotation.Version
	pats     map[rotation.Owner][]rotation.PAT
	lists    map[rotation.Owner]int
	slow     map[rotation.Owner]time.Duration
	create   func() error
	commands []rotation.Command
}

const fleetProvider = "https://dev.azure.com/"

func (f *fleetServices) Secrets(context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		for _, s := range f.specs {
			if v, ok := f.secrets[s.Name]; ok {
				v.ID, v.URL = "", ""
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

func (f *fleetServices) Current(_ context.Context, name string) (rotation.Version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.secrets[name]
	if !ok {
		return v, rotation.ErrNotFound
	}
	return v, nil
}

func (f *fleetServices) List(_ context.Context, o rotation.Owner) ([]rotation.PAT, error) {
	f.mu.Lock()
	f.lists[o]++
	wait, pats := f.slow[o], slices.Clone(f.pats[o])
	f.mu.Unlock()
	time.Sleep(wait)
	return pats, nil
}

func (f *fleetServices) Create(context.Context, rotation.Owner, rotation.PATRequest) (rotation.IssuedPAT, error) {
	return rotation.IssuedPAT{}, f.create()
}

func (f *fleetServices) Send(_ context.Context, cs ...rotation.Command) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commands = append(f.commands, cs...)
	return nil
}

func (f *fleetServices) Update(_ context.Context, v rotation.Version) (rotation.Version, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[v.Name] = v
	return v, nil
}

func (f *fleetServices) sent() []rotation.Command {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

func (*fleetServices) Publish(context.Context, rotation.Event) error { return nil }
func (*fleetServices) Refresh(context.Context, string) error         { return nil }
func (*fleetServices) User(string) string                            { return "" }

// newFleet has n PATs of each organization, due after age of their thirty days.
func newFleet(n int, age time.Duration, organizations ...string) (*fleetServices, *reconcile.Reconciler) {
	now := time.Now().UTC().Truncate(time.Second)
	f := &fleetServices{secrets: map[string]rotation.Version{}, pats: map[rotation.Owner][]rotation.PAT{},
		lists: map[rotation.Owner]int{}, slow: map[rotation.Owner]time.Duration{}}
	byName := map[string]rotation.Spec{}
	for _, org := range organizations {
		for i := range n {
			s := rotation.Spec{Name: fmt.Sprintf("%s-%05d", org, i), Identity: "bot", Organization: org,
				DisplayName: fmt.Sprintf("%s %05d", org, i),
				Scopes:      []string{"vso.code"}, Lifetime: 30 * rotation.Day, RotateBefore: 10 * rotation.Day,
				Overlap: rotation.Day}
			f.specs = append(f.specs, s)
			byName[s.Name] = s
			p := rotation.PAT{AuthorizationID: "id-" + s.Name, DisplayName: rotation.DisplayName(s.DisplayName,
				"vaulta", rotation.RotationID(s.Name, "")), Scopes: s.Scopes,
				ValidFrom: now.Add(-age), ValidTo: now.Add(30*rotation.Day - age)}
			f.pats[s.Owner()] = append(f.pats[s.Owner()], p)
			f.secrets[s.Name] = rotation.Version{Name: s.Name, ID: fmt.Sprintf("%032d", i), Enabled: true,
				Created: p.ValidFrom, Expires: p.ValidTo, Ledger: rotation.Ledger{
					AuthorizationID: p.AuthorizationID, ProviderAddress: fleetProvider + org,
					RotationID: rotation.RotationID(s.Name, ""), Identity: "bot", AnnouncedAt: p.ValidFrom}}
		}
	}
	r := reconcile.NewReconciler(reconcile.Config{
		Spec:  func(name string) (rotation.Spec, bool) { s, ok := byName[name]; return s, ok },
		Specs: func() []rotation.Spec { return f.specs }, Vault: f, Tokens: f, Outbox: f, Identities: f,
		VaultTag:        "vaulta",
		ProviderAddress: func(o string) string { return fleetProvider + o },
		Organization:    func(a string) string { return a[len(fleetProvider):] },
		Now:             time.Now, Wait: func(_ context.Context, d time.Duration) error { time.Sleep(d); return nil },
		Random: func() float64 { return 0.5 },
	})
	return f, r
}

func TestASlowOrganizationDoesNotHoldUpTheCommandsOfTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFleet(3, 29*rotation.Day, "contoso", "fabrikam")
		f.slow[rotation.Owner{Identity: "bot", Organization: "contoso"}] = 2 * time.Minute
		done := make(chan rotation.Plan)
		go func() {
			plan, err := r.Sweep(t.Context(), time.Time{}, "test")
			if err != nil {
				t.Error(err)
			}
			done <- plan
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		for _, c := range f.sent() {
			if f.secrets[c.PAT].Ledger.ProviderAddress != fleetProvider+"fabrikam" {
				t.Errorf("a command for %s", c.PAT)
			}
		}
		if n := len(f.sent()); n != 3 {
			t.Errorf("%d commands while one organization is slow, want 3", n)
		}
		if plan := <-done; len(plan.Items) != 6 || len(f.sent()) != 6 || len(plan.Commands("test")) != 6 {
			t.Errorf("%d items, %d commands, in the plan %d; want 6 of each", len(plan.Items), len(f.sent()),
				len(plan.Commands("test")))
		}
	})
}

func TestAPlanOverManyPATsFindsEachAmongTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFleet(2000, rotation.Day, "contoso")
		o := f.specs[0].Owner()
		// One is revoked by somebody, and one is nobody's.
		f.pats[o] = slices.Delete(f.pats[o], 7, 8)
		old := time.Now().Add(-time.Hour)
		f.pats[o] = append(f.pats[o], rotation.PAT{AuthorizationID: "by-hand", DisplayName: "by hand", ValidFrom: old,
			ValidTo: old.Add(30 * rotation.Day)})
		plan := r.Plan(t.Context())
		got := map[string]rotation.Action{}
		for _, i := range plan.Items {
			if i.Decision.Action != rotation.Nothing {
				got[i.Spec.Name] = i.Decision.Action
			}
		}
		want := map[string]rotation.Action{"contoso-00007": rotation.Rotate}
		if !maps.Equal(got, want) {
			t.Errorf("decisions: %v, want %v", got, want)
		}
		if len(plan.Unmanaged) != 1 || plan.Unmanaged[0].PAT.AuthorizationID != "by-hand" {
			t.Errorf("unmanaged: %v", plan.Unmanaged)
		}
	})
}

func TestAListIsSharedAndMadeAnewBesideTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFleet(2, rotation.Day, "contoso")
		o := f.specs[0].Owner()
		f.slow[o] = time.Second
		look := func() time.Duration {
			began := time.Now()
			if err := r.Reconcile(t.Context(), rotation.Command{PAT: f.specs[0].Name,
				Reason: rotation.Check}); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for _, step := range []struct {
			after time.Duration
			took  time.Duration
			lists int
		}{
			{0, time.Second, 1},               // none yet
			{30 * time.Second, 0, 1},          // shared
			{45 * time.Second, 0, 2},          // old: it serves, and another is made beside
			{10 * time.Second, 0, 2},          // which serves from then on
			{time.Hour, time.Second, 3},       // too old to serve
			{30 * time.Second, 0, 3},          // shared again
			{50 * time.Second, 0, 4},          // old again
			{3 * time.Minute, time.Second, 5}, // too old again
		} {
			time.Sleep(step.after)
			if took := look(); took != step.took {
				t.Errorf("after %v: it took %v, want %v", step.after, took, step.took)
			}
			synctest.Wait()
			f.mu.Lock()
			lists := f.lists[o]
			f.mu.Unlock()
			if lists != step.lists {
				t.Errorf("after %v: %d lists, want %d", step.after, lists, step.lists)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

func TestWhatAThrottledIdentityPutsOffIsSpreadAndCountsAsNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFleet(20, 25*rotation.Day, "contoso")
		f.create = func() error {
			return &rotation.Error{Class: rotation.Throttled, Code: "paused", Message: "slow down", After: time.Minute}
		}
		began := time.Now()
		for _, s := range f.specs {
			order := rotation.Command{PAT: s.Name, Reason: rotation.Expiring, From: "id-" + s.Name, Operation: "sweep"}
			if err := r.Reconcile(t.Context(), order); err != nil {
				t.Fatal(err)
			}
		}
		urgent := rotation.Command{PAT: f.specs[0].Name, Reason: rotation.Compromised, From: "id-" + f.specs[0].Name,
			Operation: "leak"}
		if err := r.Reconcile(t.Context(), urgent); err != nil {
			t.Fatal(err)
		}
		sent := f.sent()
		if len(sent) != 21 {
			t.Fatalf("%d commands, want 21", len(sent))
		}
		last := began.Add(time.Minute)
		for _, c := range sent[:20] {
			if c.Attempt != 0 || !c.At.After(last) || c.Operation == "sweep" {
				t.Errorf("%+v: it must come after %v, as no new attempt, under an id of its own", c, last)
			}
			last = c.At
		}
		if c := sent[20]; !c.At.Before(sent[15].At) || c.At.Before(began.Add(time.Minute)) {
			t.Errorf("what somebody has ordered comes at %v, after what is only due (%v)", c.At, sent[15].At)
		}
	})
}

func TestAThousandPATsOfOneOwnerAreListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFleet(1000, rotation.Day, "contoso")
		var wg sync.WaitGroup
		for _, s := range f.specs {
			wg.Go(func() {
				if err := r.Reconcile(t.Context(), rotation.Command{PAT: s.Name, Reason: rotation.Check}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := f.lists[f.specs[0].Owner()]; n != 1 {
			t.Errorf("%d lists, want 1", n)
		}
	})
}
