package simulation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Mode is a way for one upstream call to go wrong.
type Mode string

const (
	KilledBefore Mode = "killed before it takes effect"
	KilledAfter  Mode = "killed after the effect, before the answer"
	Refused      Mode = "connection refused, past the SDK's retries"
	ResetBefore  Mode = "reset before it takes effect"
	ResetAfter   Mode = "reset after the effect"
	TimeoutAfter Mode = "time-out after the effect"
	Throttled    Mode = "429 with Retry-After"
	Broken       Mode = "500, past the SDK's retries"
	Busy         Mode = "503"
	SignInPage   Mode = "203 with a sign-in page"
	Clamped      Mode = "clamped expiry"
	PolicyRefuse Mode = "policy refusal"
	EmptyList    Mode = "200 without PATs, twice"
	LastPageLost Mode = "list without its last page, twice"
	Purged       Mode = "secret purged by somebody"
	TwoManifests Mode = "killed, and another manifest in force for seven hours"
	CallerLeaves Mode = "the caller leaves, and it takes a second"
)

// Modes are all of them.
func Modes() []Mode {
	return []Mode{KilledBefore, KilledAfter, Refused, ResetBefore, ResetAfter, TimeoutAfter, Throttled, Broken, Busy,
		SignInPage, Clamped, PolicyRefuse, EmptyList, LastPageLost, Purged, TwoManifests,
		CallerLeaves}
}

// pastRetries is how often a call fails until the SDKs give up by themselves.
const pastRetries = 5

// Fits reports whether a call can go wrong in this way.
func (m Mode) Fits(c Point) bool {
	if _, ok := handOf(m); ok {
		return true
	}
	switch m {
	case SignInPage:
		return c.Service == devops.ServiceName
	case Clamped, PolicyRefuse:
		return c.Service == devops.ServiceName && c.Operation == devops.CreatePat
	case EmptyList, LastPageLost:
		return c.Service == devops.ServiceName && c.Operation == devops.ListPats
	case Purged:
		return c.Service == keyvault.Service || c.Operation == devops.CreatePat
	case TwoManifests:
		return slices.Contains([]string{devops.ListPats, devops.CreatePat, keyvault.SetSecret,
			"receive " + cloud.CommandQueue}, c.Operation)
	case Throttled:
		return c.Service != "servicebus"
	case CallerLeaves:
		return c.By == httpGroup
	}
	return true
}

// fault is what makes a call of somebody's go wrong in this way; times is how many calls
// it hits.
func (m Mode) fault(w *World, by string) (f *faults.Fault, times int) {
	if h, ok := handOf(m); ok {
		w.act(h)
		return nil, 1
	}
	kill := func() { w.KillProcess(by) }
	switch m {
	case KilledBefore:
		return &faults.Fault{Mode: faults.ResetBefore, Then: kill}, 1
	case KilledAfter:
		return &faults.Fault{Mode: faults.ResetAfter, Then: kill}, 1
	case Refused:
		return &faults.Fault{Mode: faults.ResetBefore}, pastRetries
	case ResetBefore:
		return &faults.Fault{Mode: faults.ResetBefore}, 1
	case ResetAfter:
		return &faults.Fault{Mode: faults.ResetAfter}, 1
	case TimeoutAfter:
		return &faults.Fault{Mode: faults.HangAfter, Delay: 10 * time.Minute}, 1
	case Throttled:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusTooManyRequests,
			Header: map[string]string{"Retry-After": "90"}}, 1
	case Broken:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusInternalServerError}, pastRetries
	case Busy:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusServiceUnavailable}, 1
	case SignInPage:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusNonAuthoritativeInfo,
			Header: map[string]string{"Content-Type": "text/html; charset=utf-8"},
			Body:   "<html><title>Sign In</title></html>"}, 1
	case Clamped:
		w.Cloud.DevOps.SetPolicies(cloud.Organization, devops.Policies{MaxLifespanDays: 7})
		return nil, 1
	case PolicyRefuse:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusOK,
			Header: map[string]string{"Content-Type": "application/json"},
			Body:   `{"patToken":null,"patTokenError":"disablePatCreationPolicyViolation"}`}, 1
	case EmptyList:
		return &faults.Fault{Mode: faults.Status, Status: http.StatusOK,
			Header: map[string]string{"Content-Type": "application/json"},
			Body:   `{"continuationToken":"","patTokens":[]}`}, 2
	case LastPageLost:
		return &faults.Fault{Mode: faults.Altered, Alter: withoutLastPage}, 2
	case Purged:
		for _, name := range w.Cloud.Vault.Names() {
			if !strings.HasPrefix(name, "patrol-") {
				w.Purge(name)
			}
		}
		return nil, 1
	case TwoManifests:
		return &faults.Fault{Mode: faults.ResetBefore, Then: func() { w.otherManifest(7 * time.Hour) }}, 1
	case CallerLeaves:
		w.Leave()
		return &faults.Fault{Mode: faults.Slow, Delay: time.Second}, 1
	}
	panic("no such mode: " + string(m))
}

// withoutLastPage is a list of PATs whose last page held one, and whose continuation
// token is missing. The list is by ends: the newest PAT comes last.
func withoutLastPage(body []byte) []byte {
	var list struct {
		Token string            `json:"continuationToken"`
		PATs  []json.RawMessage `json:"patTokens"`
	}
	if json.Unmarshal(body, &list) != nil {
		return body // no list: the call failed by itself
	}
	list.Token = ""
	list.PATs = append([]json.RawMessage{}, list.PATs...)
	if n := len(list.PATs); n > 0 {
		list.PATs = list.PATs[:n-1]
	}
	out, err := json.Marshal(list)
	if err != nil {
		panic(err) // it was read as JSON
	}
	return out
}

// otherManifest lets new processes of the first instance begin with a manifest that asks
// for other scopes, and after a while with the one before, if nobody has changed it since.
func (w *World) otherManifest(while time.Duration) {
	before := w.manifestText(0)
	other := strings.Replace(before, "scopes: [", "scopes: [vso.code, ", 1)
	w.SetManifestOf(0, other)
	w.Kill()
	time.AfterFunc(while, func() {
		if w.manifestText(0) == other {
			w.SetManifestOf(0, before)
			w.Kill()
		}
	})
}

// Point is one upstream call of a scenario: the nth of its kind by a group of functions.
type Point struct {
	faults.Call
	By string // the group; the host itself is "host"; empty in a plan: anybody
	N  int    // from 1
}

func (p Point) String() string {
	return fmt.Sprintf("%s %s #%d by %s", p.Service, p.Operation, p.N, p.By)
}

// httpGroup is the group of all HTTP functions.
const httpGroup = "http"

// groupOf is the group of the process that a call came from.
func groupOf(by string) string {
	group, _, isProcess := strings.Cut(by, processMark)
	if !isProcess {
		return "host"
	}
	return group
}

// Plan says which calls go wrong, and how.
type Plan map[Point]Mode

func (p Plan) String() string {
	var out string
	for _, at := range slices.SortedFunc(maps.Keys(p), comparePoints) {
		if out != "" {
			out += " and "
		}
		out += fmt.Sprintf("%s: %s", at, p[at])
	}
	return out
}

func comparePoints(a, b Point) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.By, b.By),
		cmp.Compare(a.N, b.N))
}

// Scenario is a short sequence of steps in which every upstream call may go wrong.
type Scenario struct {
	Name     string
	Manifest string
	Config   func(*Config)
	// Prepare brings the world to where the scenario begins; nothing goes wrong
	// in it.
	Prepare func(w *World)
	// Act holds the steps that are checked.
	Act func(w *World)
	// After is how long the world goes on by itself; it must be enough for
	// everything to come to rest.
	After time.Duration
	// Stranded are users who cannot sign in any more.
	Stranded []string
}

// Result of one run.
type Result struct {
	Points     []Point // the upstream calls of Act and what followed, in order
	Early      []Point // those of Act and of the two sweeps after it
	Hit        int     // how many of the plan's points were reached
	Acted      int     // how many of the plan's hands found something to do
	Violations []Violation
	Output     string
}

const (
	// sweepEvery is the default schedule of a World.
	sweepEvery = 6 * time.Hour
	// early is how long after the beginning of Act a call is one of Early: what
	// comes later repeats the same sweep of a world at rest.
	early = 2*sweepEvery + time.Hour
)

// Run runs a scenario with a plan, in a bubble of its own, and judges what happened.
func (s Scenario) Run(t *testing.T, plan Plan) (res Result) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Manifest: s.Manifest}
		if s.Config != nil {
			s.Config(&c)
		}
		w := New(t, c)
		closed := false
		defer func() {
			if !closed {
				w.Close()
			}
		}()
		if s.Prepare != nil {
			s.Prepare(w)
		}

		began := time.Now()
		var mu sync.Mutex
		seen := map[Point]int{} // by what all points of a kind have
		running := map[Point]*ongoing{}
		w.Cloud.Injector.OnCallBy(func(by string, call faults.Call) *faults.Fault {
			mu.Lock()
			defer mu.Unlock()
			c, anybodys := Point{Call: call, By: groupOf(by)}, Point{Call: call}
			seen[c]++
			seen[anybodys]++
			at := Point{call, c.By, seen[c]}
			res.Points = append(res.Points, at)
			if time.Since(began) < early {
				res.Early = append(res.Early, at)
			}
			m, hit := plan[at]
			if !hit {
				m, hit = plan[Point{Call: call, N: seen[anybodys]}]
			}
			if hit {
				res.Hit++
				f, times := m.fault(w, by)
				running[c] = &ongoing{f, times}
			}
			if o := running[c]; o != nil {
				o.left--
				if o.left <= 0 {
					delete(running, c)
				}
				if o.fault != nil {
					w.disturb(o.fault)
				}
				return o.fault
			}
			return nil
		})
		s.Act(w)
		time.Sleep(s.After)
		synctest.Wait()
		w.Cloud.Injector.OnCall(nil)

		judged := w.Case()
		res.Acted = w.acted
		w.Close()
		closed = true
		res.Output = w.Output()
		judged.Rest, judged.Outputs = true, []string{res.Output, w.Answers()}
		judged.Stranded = map[string]bool{}
		for _, user := range s.Stranded {
			judged.Stranded[strings.ToLower(user)] = true
		}
		res.Violations = Judge(judged)
	})
	return res
}

type ongoing struct {
	fault *faults.Fault
	left  int
}

// Singles are all plans with one fault.
func Singles(points []Point) (out []Plan) {
	for _, at := range points {
		for _, m := range Modes() {
			if m.Fits(at) {
				out = append(out, Plan{at: m})
			}
		}
	}
	return out
}

// Pairs are all plans with two faults.
func Pairs(points []Point) (out []Plan) {
	singles := Singles(points)
	for i, a := range singles {
		for _, b := range singles[i+1:] {
			p := maps.Clone(a)
			maps.Copy(p, b)
			if len(p) == 2 {
				out = append(out, p)
			}
		}
	}
	return out
}
