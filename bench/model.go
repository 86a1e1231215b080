package main

import (
	"container/heap"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// arrangement is how a very large fleet is dealt out. The model computes with it what
// nobody can run here: it is arithmetic and a queue, not the app. What a rotation costs
// comes from the recorded counters; what a call takes, and what one costs of Azure
// DevOps' budget, are assumptions.
type arrangement struct {
	pats       int
	apps       int // each with its vault, its namespace and its part of the manifest
	identities int // of one app
	sessions   int // of one app's instances together
	sweeps     time.Duration
	call       time.Duration // one call upstream
	idle       time.Duration // a session is kept that long after its message
	cost       float64       // throughput units of one call to Azure DevOps; not published
}

// What the services permit.
const (
	budgetUnits  = 200 // Azure DevOps, of one identity in five minutes
	budgetWindow = 5 * time.Minute
	vaultWrites  = 300 // Key Vault, new versions in ten seconds
	vaultReads   = 4000
	vaultSlot    = 10 * time.Second
)

var million = arrangement{pats: 1_000_000, apps: 40, identities: 25, sessions: 16, sweeps: 6 * time.Hour,
	call: 50 * time.Millisecond, idle: time.Second, cost: 0.5}

// outcome of a model's run.
type outcome struct {
	rotations    int
	largest      int           // commands of one app's sweep
	longest      time.Duration // from the command to the new PAT
	sweep        time.Duration // what an app's sweep takes
	perDay       float64       // rotations
	pages        int           // of one app's sweep
	atOnce       time.Duration // everything is to be replaced now
	atOnceOpen   time.Duration // the same, if Azure DevOps did not throttle
	busiestVault float64       // share of the vault's limit in the busiest ten seconds of a sweep's commands
}

// year lets a year pass: every sweep finds what has become due since the one before.
func (a arrangement) year() outcome {
	const sweepsOfAYear = 4 * 365
	var out outcome
	perApp := a.pats / a.apps
	spec := rotation.Spec{Lifetime: lifetime, RotateBefore: lifetime / 3, Overlap: rotation.Day}
	begin := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for app := range a.apps {
		// due holds the PATs by the sweep that finds them.
		due := make([][]int32, sweepsOfAYear+1)
		put := func(pat int32, born time.Time) {
			s := spec
			s.Name = fmt.Sprintf("app-%02d-team-%06d", app, pat)
			at := rotation.Due(s, born, born.Add(lifetime)).Sub(begin)
			if i := int(at/a.sweeps) + 1; i < len(due) {
				due[i] = append(due[i], pat)
			}
		}
		// At the start the fleet's ages are spread over the eighteen days after which
		// the first is due, as they are once it has grown over time.
		step := 18 * rotation.Day / time.Duration(perApp)
		for i := range int32(perApp) {
			put(i, begin.Add(-time.Duration(i)*step))
		}
		for i := range due {
			now := begin.Add(time.Duration(i) * a.sweeps)
			took := a.work(due[i])
			out.rotations += len(due[i])
			out.largest, out.longest = max(out.largest, len(due[i])), max(out.longest, took)
			for _, pat := range due[i] {
				put(pat, now)
			}
			due[i] = nil
		}
	}
	out.perDay = float64(out.rotations) / 365
	vaultPages, lists := (perApp+24)/25, a.identities*((perApp/a.identities+99)/100)
	out.pages = vaultPages + lists
	out.sweep = time.Duration(vaultPages) * a.call
	everything := make([]int32, perApp)
	for i := range everything {
		everything[i] = int32(i)
	}
	out.atOnce = a.work(everything)
	open := a
	open.cost = 0
	out.atOnceOpen = open.work(everything)
	perSlot := float64(a.sessions) * float64(vaultSlot) / float64(a.invocation())
	out.busiestVault = max(perSlot/vaultWrites, 2*perSlot/vaultReads)
	return out
}

// invocation is how long a session is taken by one rotation.
func (a arrangement) invocation() time.Duration { return inSequence*a.call + a.idle }

// inSequence are the round trips of an invocation that rotates: read, create, prove,
// store; both sends side by side; tag.
const inSequence = 6

// work puts commands through an app's sessions and its identities' budgets, and returns
// when the last PAT is new.
func (a arrangement) work(pats []int32) (last time.Duration) {
	free := make(moments, a.sessions)
	perWindow := 0
	if a.cost > 0 {
		perWindow = int(budgetUnits / a.cost / 2) // a creation and its proof
	}
	begun := make([][]time.Duration, a.identities)
	for _, p := range pats {
		at := free[0]
		id := int(p) % a.identities
		if n := len(begun[id]); perWindow > 0 && n >= perWindow {
			at = max(at, begun[id][n-perWindow]+budgetWindow)
		}
		begun[id] = append(begun[id], at)
		last = max(last, at+4*a.call)
		// What waits for its identity's budget has been put off and holds no
		// session.
		free[0] += a.invocation()
		heap.Fix(&free, 0)
	}
	return last
}

// moments is a heap of times.
type moments []time.Duration

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, j int) bool { return m[i] < m[j] }
func (m moments) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)        { *m = append(*m, x.(time.Duration)) }
func (m *moments) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

func modelTable(out io.Writer) error {
	want, err := recorded()
	if err != nil {
		return err
	}
	a := million
	o := a.year()
	calls := map[string]float64{}
	for _, phase := range []string{"rotation", "revocation"} {
		for what, n := range want.Calls[phase] {
			service, op, _ := strings.Cut(what, " ")
			if op == "ListPats" || service == "entra" {
				continue // shared; the sweeps' own count below
			}
			calls[service] += float64(n) / fleetSize * float64(o.rotations)
		}
	}
	perApp := a.pats / a.apps
	yearly := 365 * float64(rotation.Day) / float64(a.sweeps) * float64(a.apps)
	_, err = fmt.Fprintf(out, `a model, not a run: %s PATs for a year
  %d apps of %s PATs, %d identities each (%s PATs an identity), %d sessions an app, a sweep every %v
  assumed: %v a call, %v that a session stays idle, %.2g throughput units a call to Azure DevOps
  rotations                     %s in the year, %.0f a day, %.2f a second
  commands of an app's sweep    at most %d
  command to new PAT            at most %v
  an app's sweep                %d pages, %v
  calls and sends in the year   Key Vault %.0f million, Azure DevOps %.0f million, `+
		`Service Bus %.0f million; pages of sweeps %.0f million
  a vault's limit               %.0f %% used while a sweep's commands are worked off
  everything replaced at once   %v; %v if Azure DevOps did not throttle
`, thousands(a.pats), a.apps, thousands(perApp), a.identities, thousands(perApp/a.identities), a.sessions, a.sweeps,
		a.call, a.idle, a.cost,
		thousands(o.rotations), o.perDay, o.perDay/86400, o.largest, o.longest.Round(time.Second), o.pages, o.sweep,
		calls["keyvault"]/1e6, calls["devops"]/1e6, calls["servicebus"]/1e6, yearly*float64(o.pages)/1e6,
		100*o.busiestVault,
		o.atOnce.Round(time.Minute), o.atOnceOpen.Round(time.Minute))
	return err
}

// fleetSize is how many PATs a recorded phase of calls works on.
const fleetSize = 20
