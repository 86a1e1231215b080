package app

import (
	"context"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// What a delivery count says. It is 1 on the first delivery, and one more for each
// delivery before that was not completed: its function answered with an error, its
// process was killed or crashed in the middle (the host gives the message back at once),
// or its host went away (a deployment: the end of its connection gives the message back).
// So a count of three says that something ended twice. It does not say that this message
// is why, nor when that was: three deployments in an emergency count like a message that
// kills its process. Two things more are known. Which deliveries this process has answered
// with an error; they ended nothing. And since when the message could be received at all:
// all that it has met happened after its EnqueuedTime.

const (
	// tooOften is after how many ends of its process a command is no more worked on at
	// once. The host gives up for good at the third crash, unless half an hour lies
	// between two.
	tooOften = 2
	// crashFrame is how close together they must be for an order to be put off.
	crashFrame = time.Minute
	// crashWindow is that half hour, and a little more: then a crash counts as the first
	// one again.
	crashWindow = 31 * time.Minute
	// maxQuarantines is how often a check comes back after that.
	maxQuarantines = 3
)

// cutShort is how many deliveries of a message ended with their process, or their host.
func (a *App) cutShort(queue string, m customhandler.Message) int {
	return m.DeliveryCount - 1 - a.failed.count(queue, m)
}

// isPersons reports whether a command asks for something that a person wants. Before an
// adoption nobody can name the PAT to rotate away from.
func isPersons(c rotation.Command) bool {
	wantsRotation := c.Reason == rotation.Requested || c.Reason == rotation.Compromised
	return c.IsOrder() || wantsRotation && !rotation.IsOwnWord(c.RequestedBy)
}

// postpone sends a command whose process has ended too often on to a later time. An order
// waits only if that happened twice within a minute; otherwise it goes on at once, as a
// message that has met nothing yet.
func (a *App) postpone(ctx context.Context, c rotation.Command, m customhandler.Message) error {
	now := a.outside.Now()
	isClose := m.EnqueuedTime.IsZero() || now.Sub(m.EnqueuedTime) < crashFrame
	if isPersons(c) && !isClose {
		next := c.Again(now)
		next.At = time.Time{}
		a.logOf(m).WarnContext(ctx, "the handler's process ended during earlier deliveries of an order: "+
			"patrol goes on with it", "pat", c.PAT)
		return a.bus.Send(ctx, next)
	}
	return a.quarantine(ctx, c, m)
}

// quarantine postpones a command until a crash by it would count as the first one again.
// A check that comes back too often is given up: the next sweep sends another one. An
// order never is.
func (a *App) quarantine(ctx context.Context, c rotation.Command, m customhandler.Message) error {
	now := a.outside.Now()
	log := a.logOf(m).With("pat", c.PAT)
	failed := &rotation.RotationFailed{Spec: a.specOf(m, c), Step: rotation.StepReceive, Class: rotation.Transient,
		Code: rotation.CrashLoop, Attempt: c.Attempt, At: now}
	isGivenUp := !isPersons(c) && c.Attempt >= maxQuarantines
	if isGivenUp {
		log.ErrorContext(ctx, "the handler's process ended during each delivery of a command: patrol gives it up")
		failed.Mark = a.mark(m)
		failed.Message = "the handler's process ended each time it worked on a command: see its log for the crash; " +
			"the next sweep checks the PAT again"
		a.publish(ctx, failed)
		return nil
	}
	next := c.Again(now.Add(crashWindow))
	if next.Since.IsZero() {
		next.Since = now
	}
	log.ErrorContext(ctx, "the handler's process ended during earlier deliveries of a command: patrol postpones it",
		"until", next.At)
	err := a.bus.Send(ctx, next)
	if err != nil {
		return err
	}
	if isPersons(c) && isDaysFirst(c, m, now) {
		// One id for a day, whatever instance meets it.
		failed.RotationID, failed.RetryAt = rotation.RotationID(failed.Spec.Name, c.From), next.At
		failed.Message = "the handler's process ended each time it worked on an order: see its log for the crash; " +
			"patrol tries the order again every 31 minutes"
		a.publish(ctx, failed)
	}
	return nil
}

// isDaysFirst reports whether a quarantine is one of an order's first, or the first one
// of a day. The one before it was a quarantine's length before the message's own time.
func isDaysFirst(c rotation.Command, m customhandler.Message, now time.Time) bool {
	before := m.EnqueuedTime.Add(-crashWindow).UTC().Truncate(rotation.Day)
	return c.Attempt < maxQuarantines || before.Before(now.UTC().Truncate(rotation.Day))
}

// failedDeliveries remembers which messages this process has answered with an error, and
// how often. The zero value is ready.
type failedDeliveries struct {
	mu    sync.Mutex
	times map[delivered]int
	order []delivered
}

// delivered is one message of a queue.
type delivered struct {
	queue          string
	sequenceNumber int64
}

// maxFailed bounds how many messages are remembered: one that is forgotten counts as cut
// short.
const maxFailed = 1000

func (f *failedDeliveries) add(queue string, m customhandler.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := delivered{queue, m.SequenceNumber}
	if f.times == nil {
		f.times = map[delivered]int{}
	}
	if f.times[key] == 0 {
		f.order = append(f.order, key)
	}
	f.times[key]++
	if len(f.order) > maxFailed {
		delete(f.times, f.order[0])
		f.order = f.order[1:]
	}
}

func (f *failedDeliveries) count(queue string, m customhandler.Message) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.times[delivered{queue, m.SequenceNumber}]
}
