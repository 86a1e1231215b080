package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// mustHold fails the test for each invariant that a run broke.
func mustHold(t *testing.T, s simulation.Scenario, plan simulation.Plan) simulation.Result {
	t.Helper()
	res := s.Run(t, plan)
	for _, v := range res.Violations {
		t.Errorf("%s, %s: %s", s.Name, plan, v)
	}
	if t.Failed() {
		t.Logf("the handlers said:\n%s", res.Output)
	}
	return res
}

func TestTwoInstancesAtOnceHold(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			s.Config = func(c *simulation.Config) { c.Hosts = 2 }
			res := mustHold(t, s, nil)
			r := rand.New(rand.NewPCG(7, 7))
			singles := simulation.Singles(res.Points)
			for range 8 {
				mustHold(t, s, singles[r.IntN(len(singles))])
			}
		})
	}
}

// Every command comes a second time under another id, late and out of order.
func TestDoubledDelayedAndReorderedMessagesHold(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			var w *simulation.World
			var mu sync.Mutex
			copies := 0
			r := rand.New(rand.NewPCG(3, 9))
			s.Config = func(c *simulation.Config) {
				c.Hosts = 2
				c.Cloud = func(cc *cloud.Config) {
					cc.OnRecord = func(rec cloud.Record) {
						isCommand := rec.Kind == cloud.Message && rec.Message.Entity == cloud.CommandQueue
						if !isCommand || strings.HasPrefix(rec.Message.ID, "copy-") {
							return
						}
						mu.Lock()
						defer mu.Unlock()
						copies++
						m := servicebus.Message{ID: fmt.Sprintf("copy-%d", copies), SessionID: rec.Message.SessionID,
							Subject:     rec.Message.Subject,
							ContentType: rec.Message.ContentType, Body: rec.Message.Body}
						time.AfterFunc(time.Duration(r.IntN(3600))*time.Second,
							func() { _ = w.Cloud.Bus.Send(cloud.CommandQueue, m) })
					}
				}
			}
			prepare := s.Prepare
			s.Prepare = func(world *simulation.World) {
				w = world
				if prepare != nil {
					prepare(world)
				}
			}
			mustHold(t, s, nil)
			if copies == 0 && s.Name != "sweep" {
				t.Error("no command was doubled")
			}
		})
	}
}

// The session's lock is lost while the PAT is being made, and another worker gets the
// same command.
func TestALockLostInMidRotationHolds(t *testing.T) {
	for _, hosts := range []int{1, 2} {
		for _, slow := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 3 * time.Minute} {
			t.Run(fmt.Sprintf("%d instances, %s", hosts, slow), func(t *testing.T) {
				t.Parallel()
				s := scenarios()[1] // rotate
				s.Config = func(c *simulation.Config) { c.Hosts = hosts }
				s.Act = func(w *simulation.World) {
					_ = w.Cloud.Injector.Inject(faults.Fault{Service: devops.ServiceName, Operation: devops.CreatePat,
						Mode: faults.Slow, Delay: slow})
					time.Sleep(3 * time.Minute)
					go func() { _ = w.Hosts[0].Invoke(t.Context(), "CheckExpiry", "") }()
					for w.Cloud.Injector.Count(devops.ServiceName, devops.CreatePat) < 2 {
						time.Sleep(10 * time.Millisecond)
					}
					w.Cloud.Bus.LoseSessionLock(cloud.CommandQueue, name)
				}
				mustHold(t, s, nil)
			})
		}
	}
}

// Two instances whose clocks differ by two minutes from each other and from the
// services'.
func TestClocksThatDifferByTwoMinutesHold(t *testing.T) {
	for _, s := range scenarios() {
		for _, skew := range [][2]time.Duration{{2 * time.Minute, 0}, {-2 * time.Minute, 0},
			{time.Minute, -time.Minute}} {
			t.Run(fmt.Sprintf("%s, %v", s.Name, skew), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				n := 0
				s := s // its own, beside the other clocks
				s.Config = func(c *simulation.Config) {
					c.Hosts = 2
					c.Outside = func(o *app.Outside) {
						mu.Lock()
						defer mu.Unlock()
						by := skew[n%2]
						n++
						o.Now = func() time.Time { return time.Now().Add(by) }
					}
				}
				res := s.Run(t, nil)
				for _, v := range res.Violations {
					t.Errorf("%s: %s", s.Name, v)
				}
				if t.Failed() {
					t.Logf("the handlers said:\n%s", res.Output)
				}
			})
		}
	}
}

// A command that crashes its handler each time must not take the host down.
func TestACommandThatCrashesItsHandlerIsPostponed(t *testing.T) {
	withWorld(t, simulation.Config{}, func(t *testing.T, w *simulation.World) {
		w.Cloud.Injector.OnCall(func(_ int, c faults.Call) *faults.Fault {
			if c.Operation == devops.CreatePat {
				return &faults.Fault{Mode: faults.ResetBefore, Then: w.Kill}
			}
			return nil
		})
		_ = w.Sweep()
		time.Sleep(5 * time.Hour)
		w.Cloud.Injector.OnCall(nil)
		ended := make(chan error, 1)
		go func() { ended <- w.Hosts[0].Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("the host is down: %v", err)
		case <-time.After(time.Minute):
		}
		announced := slices.ContainsFunc(failures(w),
			func(f events.RotationFailed) bool { return f.Code == "crash-loop" })
		if !announced {
			t.Errorf("failures %+v, want one with the code crash-loop", failures(w))
		}
		time.Sleep(6 * time.Hour)
		if len(rotations(w)) != 1 {
			t.Errorf("%d rotations once the fault was gone", len(rotations(w)))
		}
		w.Hosts[0].Kill()
		<-ended
	})
}
