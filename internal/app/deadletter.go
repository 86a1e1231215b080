package app

import (
	"cmp"
	"context"

	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/customhandler"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// deadLetters is the queue of a settings' dead commands.
func deadLetters(s Settings) string { return s.CommandQueue + "/$DeadLetterQueue" }

// maxDeadLetters is how often this process tries to send a check on: a message that
// stays in a dead-letter queue is delivered for ever.
const maxDeadLetters = 3

// deadLetter takes a command off the dead-letter queue: the host gave up on it. A
// person's order is sent on as the order that it is, everything else as a check, both
// when a crash by them counts as the first one again. What cannot be read ends here, with
// a line in the log and an event. An order that cannot be sent on stays where it is.
func (a *App) deadLetter(ctx context.Context, m customhandler.Message) error {
	c, unreadable := bus.DecodeCommand(m.Body)
	if unreadable != nil {
		c = rotation.Command{}
	}
	s := a.specOf(m, c)
	reason := cmp.Or(m.DeadLetterReason, "unknown")
	a.log.ErrorContext(ctx, "command in the dead-letter queue", "pat", s.Name, "code", reason,
		"queue", a.settings.CommandQueue, "sequenceNumber", m.SequenceNumber, "enqueued", m.EnqueuedTime,
		"message", m.MessageID, "delivery", m.DeliveryCount)
	message := "the Functions host gave up on a command: see the handler's log for what failed; "
	switch {
	case unreadable != nil:
		message += "patrol cannot read it: " + unreadable.Error()
	case isPersons(c):
		message += "the order is tried again in half an hour"
	default:
		message += "the PAT is checked again in half an hour"
	}
	if unreadable == nil {
		err := a.sendOn(ctx, c, m)
		if err != nil {
			return err
		}
	}
	a.publish(ctx, &rotation.RotationFailed{Spec: s, Mark: a.mark(m), Step: rotation.StepDeadLetter,
		Class: rotation.Transient, Code: reason, Message: message, Attempt: c.Attempt, At: a.outside.Now()})
	return nil
}

func (a *App) sendOn(ctx context.Context, c rotation.Command, m customhandler.Message) error {
	now := a.outside.Now()
	if !isPersons(c) {
		c = c.AsCheck()
	}
	if c.Since.IsZero() {
		c.Since = now
	}
	err := a.bus.Send(ctx, c.Again(now.Add(crashWindow)))
	isLast := a.failed.count(deadLetters(a.settings), m) >= maxDeadLetters-1
	if err == nil || !isLast || isPersons(c) {
		return err
	}
	a.logOf(m).ErrorContext(ctx, "a command of the dead-letter queue could not be sent on: "+
		"the next sweep checks the PAT", "pat", c.PAT, "class", string(rotation.ClassOf(err)))
	return nil
}
