package functionshost_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// timerInfo is the payload of a timer.
func timerInfo(r recorded) map[string]any {
	return r.Body.(map[string]any)["Data"].(map[string]any)["timer"].(map[string]any)
}

func TestTimerFiresOnItsScheduleAndStatusFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		a := app{"Sweep/function.json": timer("%CHECK_SCHEDULE%", "")}
		w := launch(t, a, h, func(c *functionshost.Config) { c.Settings["CHECK_SCHEDULE"] = "0 0 */6 * * *" })
		time.Sleep(25 * time.Hour) // from midnight
		var hours []int
		for _, i := range w.journal.seen() {
			check(t, "error", i.Err, nil)
			check(t, "trigger", i.Trigger, "timerTrigger")
			hours = append(hours, i.Started.UTC().Hour())
		}
		check(t, "hours at which it fired", hours, []int{6, 12, 18, 0})
		info := timerInfo(h.requestsSeen()[1])
		diff(t, "", mustJSON(t, `{"Schedule":{"AdjustForDST":true},"IsPastDue":false,
			"ScheduleStatus":{"Last":"2000-01-01T06:00:00+00:00","LastUpdated":"2000-01-01T06:00:00+00:00",
				"Next":"2000-01-01T12:00:00+00:00"}}`), info)
	})
}

func TestScheduleStatusIsNullWithoutTheMonitor(t *testing.T) {
	for name, file := range map[string]string{
		"more than once a minute": timer("*/30 * * * * *", ""),
		"useMonitor false":        timer("0 * * * * *", `,"useMonitor":false`),
		"time span":               timer("00:00:30", ""),
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(nil)
			launch(t, app{"T/function.json": file}, h, nil)
			time.Sleep(3 * time.Minute)
			seen := h.requestsSeen()
			if len(seen) < 2 {
				t.Fatalf("%s: %d runs", name, len(seen))
			}
			for _, r := range seen {
				if info := timerInfo(r); info["ScheduleStatus"] != nil {
					t.Errorf("%s: %v", name, info)
				}
			}
			if got := timerInfo(seen[0])["Schedule"].(map[string]any)["AdjustForDST"]; got != (name != "time span") {
				t.Errorf("%s: AdjustForDST %v", name, got)
			}
		})
	}
}

func TestRunsNeverOverlapAndALongOneDelaysTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most int
		long := 150 * time.Second
		h := newHandler(func(w http.ResponseWriter, r *http.Request) {
			running++
			most = max(most, running)
			time.Sleep(long)
			long = time.Second
			running--
			succeed(w, r)
		})
		host := hostWithTimeout("00:10:00")
		w := launch(t, app{"host.json": host, "T/function.json": timer("0 * * * * *", "")}, h, nil)
		begun := time.Now()
		time.Sleep(5*time.Minute + 2*time.Second)
		var at []time.Duration
		for _, i := range w.journal.seen() {
			at = append(at, i.Started.Sub(begun))
		}
		// The run of 1:00 ends at 3:30; the one of 2:00 follows at once.
		want := []time.Duration{time.Minute, 210 * time.Second, 4 * time.Minute, 5 * time.Minute}
		check(t, "at once", most, 1)
		check(t, "begun at", at, want)
	})
}

func TestFailedRunIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		launch(t, app{"T/function.json": timer("0 * * * * *", "")}, h, nil)
		time.Sleep(150 * time.Second)
		seen := h.requestsSeen()
		if len(seen) != 2 {
			t.Fatalf("%d runs, want 2", len(seen))
		}
		if last := timerInfo(seen[1])["ScheduleStatus"].(map[string]any)["Last"]; last != "2000-01-01T00:01:00+00:00" {
			t.Errorf("Last %v: the failed run does not count", last)
		}
	})
}

func TestMissedOccurrenceRunsAtStartAsPastDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{"T/function.json": timer("0 0 * * * *", "")}
		storage := &functionshost.Storage{}
		share := func(c *functionshost.Config) { c.Storage = storage }
		h := newHandler(nil)
		first := launch(t, a, h, share)
		time.Sleep(90 * time.Minute)
		_ = first.Close()
		time.Sleep(15 * time.Minute) // down from 1:30 to 1:45: nothing missed
		second := launch(t, a, h, share)
		synctest.Wait()
		if n := len(h.requestsSeen()); n != 1 {
			t.Fatalf("%d runs, want the one of 1:00", n)
		}
		_ = second.Close()
		time.Sleep(time.Hour) // down until 2:45: 2:00 is missed
		launch(t, a, h, share)
		time.Sleep(time.Second)
		seen := h.requestsSeen()
		if len(seen) != 2 {
			t.Fatalf("%d runs, want the missed one too", len(seen))
		}
		diff(t, "", mustJSON(t, `{"Schedule":{"AdjustForDST":true},"IsPastDue":true,
			"ScheduleStatus":{"Last":"2000-01-01T01:00:00+00:00","LastUpdated":"2000-01-01T01:00:00+00:00",
				"Next":"2000-01-01T02:00:00+00:00"}}`), timerInfo(seen[1]))
		time.Sleep(30 * time.Minute)
		if n := len(h.requestsSeen()); n != 3 {
			t.Errorf("%d runs, want that of 3:00 too", n)
		}
	})
}

func TestChangedScheduleIsNotPastDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &functionshost.Storage{}
		share := func(c *functionshost.Config) { c.Storage = storage }
		h := newHandler(nil)
		first := launch(t, app{"T/function.json": timer("0 0 * * * *", "")}, h, share)
		time.Sleep(10 * time.Minute)
		_ = first.Close()
		time.Sleep(2 * time.Hour)
		launch(t, app{"T/function.json": timer("0 30 * * * *", "")}, h, share)
		time.Sleep(time.Minute) // 2:11
		if n := len(h.requestsSeen()); n != 0 {
			t.Errorf("%d runs, want none before 2:30", n)
		}
		time.Sleep(20 * time.Minute)
		if n := len(h.requestsSeen()); n != 1 {
			t.Errorf("%d runs, want that of 2:30", n)
		}
	})
}

func TestRunOnStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		launch(t, app{"T/function.json": timer("0 0 0 * * *", `,"runOnStartup":true`)}, h, nil)
		time.Sleep(time.Second)
		seen := h.requestsSeen()
		if len(seen) != 1 {
			t.Fatalf("%d runs, want 1", len(seen))
		}
		check(t, "IsPastDue", timerInfo(seen[0])["IsPastDue"], any(false))
		time.Sleep(24 * time.Hour)
		if n := len(h.requestsSeen()); n != 2 {
			t.Errorf("%d runs, want the one of midnight too", n)
		}
	})
}

func TestOneInstanceAloneFiresATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := app{"T/function.json": timer("0 * * * * *", "")}
		storage := &functionshost.Storage{}
		share := func(c *functionshost.Config) { c.Storage = storage }
		h1, h2 := newHandler(nil), newHandler(nil)
		first := launch(t, a, h1, share)
		synctest.Wait()
		launch(t, a, h2, share)
		time.Sleep(5*time.Minute + time.Second)
		check(t, "runs of the first", len(h1.requestsSeen()), 5)
		check(t, "runs of the second", len(h2.requestsSeen()), 0)
		first.Kill() // its lock outlives it by a minute
		time.Sleep(5 * time.Minute)
		check(t, "runs of the first after its end", len(h1.requestsSeen()), 5)
		if n := len(h2.requestsSeen()); n < 3 {
			t.Errorf("%d runs of the second, want 3 at least: it takes over", n)
		}
	})
}

func TestManualRunOfATimerHasItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(nil)
		w := launch(t, app{"T/function.json": timer("0 0 * * * *", "")}, h, nil)
		time.Sleep(90 * time.Minute)
		if err := w.Invoke(context.Background(), "t", ""); err != nil {
			t.Fatal(err)
		}
		seen := h.requestsSeen()
		if got := timerInfo(seen[1])["ScheduleStatus"].(map[string]any)["Last"]; got != "2000-01-01T01:00:00+00:00" {
			t.Errorf("Last %v", got)
		}
	})
}
