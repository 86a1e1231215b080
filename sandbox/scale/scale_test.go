package scale_test

import (
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/scale"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

const (
	dataOwner    = "090c5cfd-751d-490a-894a-3ce6f1109419"
	dataReceiver = "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"
	dataSender   = "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39"
)

// queue is one with sessions, as that of commands, which holds some messages that are due
// in a day and then some that are due now.
func queue(t *testing.T, later, now int) *servicebus.Bus {
	t.Helper()
	bus, err := servicebus.New(servicebus.Config{KeyName: "root", Key: "c2VjcmV0", Entities: broker.Entities{
		Queues: []broker.Queue{{Name: "pat-commands", Properties: broker.Properties{RequiresSession: true}}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Close)
	for i := range later + now {
		m := servicebus.Message{SessionID: "jenkins-agents", Body: []byte("{}")}
		if i < later {
			m.Scheduled = time.Now().Add(24 * time.Hour)
		}
		if err := bus.Send("pat-commands", m); err != nil {
			t.Fatal(err)
		}
	}
	return bus
}

// Ten PATs in their overlap are ten scheduled messages: behind them whoever may not manage
// the queue does not see the command that is due.
func TestScheduledMessagesHideAnActiveOneFromWhoMayNotManage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		later, now int
		role       string
		wakes      bool
	}{
		{"an empty queue, as owner", 0, 0, dataOwner, false},
		{"an empty queue, as receiver", 0, 0, dataReceiver, false},
		{"one that is due, as owner", 0, 1, dataOwner, true},
		{"one that is due, as receiver", 0, 1, dataReceiver, true},
		{"nine that wait before it, as receiver", 9, 1, dataReceiver, true},
		{"ten that wait before it, as receiver", 10, 1, dataReceiver, false},
		{"ten that wait before it, as owner", 10, 1, dataOwner, true},
		{"ten that wait alone, as owner", 10, 0, dataOwner, false},
	} {
		wakes, err := scale.Wakes(queue(t, tc.later, tc.now), "pat-commands", scale.Roles[tc.role], time.Now())
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if wakes != tc.wakes {
			t.Errorf("%s: the platform wakes the app: %v, want %v", tc.name, wakes, tc.wakes)
		}
	}
}

func TestWhoMayOnlySendWakesNobody(t *testing.T) {
	t.Parallel()
	wakes, err := scale.Wakes(queue(t, 0, 1), "pat-commands", scale.Roles[dataSender], time.Now())
	if wakes || err == nil {
		t.Errorf("the platform wakes the app: %v, %v", wakes, err)
	}
}
