package reconcile

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// maxConfirmationMessage bounds what a consumer says for people.
const maxConfirmationMessage = 200

// repeatedFor is how long after a consumer's last confirmation its repeat sends the
// event again: the first one may have been lost with its process.
const repeatedFor = 15 * time.Minute

// confirm notes what the command says of a switch-over on the version that it is about.
// A confirmation for another version, or without the right proof, changes nothing, and
// nobody is told why. The note comes before the event: telling gates nothing.
func (w *work) confirm(ctx context.Context) error {
	c := w.order.Confirmation
	v, known := w.version(c.SecretVersion)
	if !known || !v.Ledger.RevokedAt.IsZero() {
		w.log.InfoContext(ctx, "a confirmation is about a version that is not in use; it changes nothing",
			"consumer", c.Consumer)
		return nil
	}
	if c.Ruling != "" {
		return w.decided(ctx, v, *c)
	}
	proved, err := w.isProved(ctx, v, *c)
	if err != nil {
		return err
	}
	if !proved {
		w.log.WarnContext(ctx, "a confirmation has a wrong proof; it changes nothing", "consumer", c.Consumer)
		return nil
	}
	consumer, declared := w.consumer(c.Consumer)
	if !declared {
		w.log.WarnContext(ctx, "a consumer that the manifest does not declare has confirmed; nothing waits for it",
			"consumer", c.Consumer, "outcome", string(c.Outcome))
		return nil
	}
	if c.Outcome == rotation.SwitchFailed {
		return w.noteFailed(ctx, v, consumer, c.Message)
	}
	return w.noteSwitched(ctx, v, c.Consumer, rotation.Switched)
}

// version finds a version of the secret that is current or was replaced and is open.
func (w *work) version(id string) (rotation.Version, bool) {
	if c := w.seen.Current; c != nil && c.ID == id {
		return *c, true
	}
	for _, v := range w.seen.Replaced {
		if v.ID == id {
			return v, true
		}
	}
	return rotation.Version{}, false
}

func (w *work) consumer(name string) (rotation.Consumer, bool) {
	if w.spec.SwitchOver == nil {
		return rotation.Consumer{}, false
	}
	for _, c := range w.spec.SwitchOver.Consumers {
		if c.Name == name {
			return c, true
		}
	}
	return rotation.Consumer{}, false
}

// isProved compares the proof with that of the version's value.
func (w *work) isProved(ctx context.Context, v rotation.Version, c rotation.Confirmation) (bool, error) {
	value := v.Value
	if value.Empty() {
		read, err := w.Vault.Value(ctx, w.spec.Name, v.ID)
		if errors.Is(err, rotation.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		value = read.Value
	}
	isKnown := rotation.IsConsumerName(c.Consumer) && !value.Empty()
	return isKnown && c.Proves(value, w.spec.Name), nil
}

// noteSwitched writes that a consumer has switched. With the last one that is required
// the event follows.
func (w *work) noteSwitched(ctx context.Context, v rotation.Version, consumer string,
	state rotation.SwitchState) error {
	before := rotation.ParseConfirmed(v.Ledger.Confirmed)
	after, changed := before.With(consumer, state, w.Now())
	if changed {
		updated, err := w.writeConfirmed(ctx, v, after)
		if err != nil {
			return err
		}
		v = updated
	}
	_, since := after.Of(consumer)
	isRepeatOfOld := !changed && w.Now().Sub(since) > repeatedFor
	if isRepeatOfOld || !w.isSwitched(after) {
		return nil
	}
	w.log.InfoContext(ctx, "all required consumers have switched", "version", v.ID)
	return w.Outbox.Publish(ctx, &rotation.SwitchedOver{Switching: w.switching(v)})
}

// noteFailed publishes that a consumer cannot use the new PAT, and writes it down. It
// counts like silence.
func (w *work) noteFailed(ctx context.Context, v rotation.Version, c rotation.Consumer, message string) error {
	after, changed := rotation.ParseConfirmed(v.Ledger.Confirmed).With(c.Name, rotation.Failed, w.Now())
	state, _ := after.Of(c.Name)
	if state != rotation.Failed {
		return nil // it has switched
	}
	if changed {
		updated, err := w.writeConfirmed(ctx, v, after)
		if err != nil {
			return err
		}
		v = updated
	}
	message = presentable(message)
	w.log.WarnContext(ctx, "a consumer cannot use the new PAT", "consumer", c.Name, "message", message)
	return w.Outbox.Publish(ctx, &rotation.SwitchRefused{Switching: w.switching(v), Consumer: c, Message: message})
}

// decided carries out what a person has decided about a switch-over.
func (w *work) decided(ctx context.Context, v rotation.Version, c rotation.Confirmation) error {
	r := rotation.Record{Trigger: "command", Act: "switch-over-" + string(c.Ruling), Target: w.spec.Name,
		Outcome: "done"}
	r.Who, r.Activity = w.order.Origin()
	defer func() { r.Write(ctx, w.Log, "consumer", c.Consumer) }()
	if c.Ruling == rotation.ConfirmByHand {
		_, declared := w.consumer(c.Consumer)
		if !declared {
			r.Outcome = "failed: unknown-consumer"
			return nil
		}
		err := w.noteSwitched(ctx, v, c.Consumer, rotation.ByHand)
		now, _ := w.version(v.ID)
		state, _ := rotation.ParseConfirmed(now.Ledger.Confirmed).Of(c.Consumer)
		if !state.IsDone() { // it may be noted, and only the event unsent
			r.Outcome = "failed"
		}
		return err
	}
	err := w.ruleAll(ctx, c.Ruling)
	if err != nil {
		r.Outcome = "failed"
	}
	return err
}

// ruleAll writes a person's ruling onto each version after which a replaced PAT is still
// waited for.
func (w *work) ruleAll(ctx context.Context, ruling rotation.Ruling) error {
	versions := append([]rotation.Version{*w.seen.Current}, w.seen.Replaced...)
	for i, v := range versions[:len(versions)-1] {
		after := rotation.ParseConfirmed(v.Ledger.Confirmed)
		isOpen := versions[i+1].Ledger.RevokedAt.IsZero()
		if !isOpen || after.Ruling == ruling {
			continue
		}
		after.Ruling = ruling
		p, listed := w.seen.Find(versions[i+1].Ledger.AuthorizationID)
		if ruling == rotation.Hold && listed {
			after.Bound = p.ValidTo
		}
		_, err := w.writeConfirmed(ctx, v, after)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeConfirmed writes the tag onto its version.
func (w *work) writeConfirmed(ctx context.Context, v rotation.Version, c rotation.Confirmed) (rotation.Version, error) {
	if w.spec.SwitchOver != nil {
		c = c.Only(w.spec.SwitchOver.Consumers)
	}
	if c.Bound.IsZero() && w.spec.SwitchOver != nil {
		c.Bound = w.boundOf(v)
	}
	v.Ledger.Confirmed = c.String()
	if v.Ledger.Facts.Digest == "" && !v.Value.Empty() {
		v.Ledger.Facts.Digest = rotation.Digest(v.Value)
	}
	v.Value = rotation.Secret{}
	updated, err := w.Vault.Update(ctx, v)
	if err != nil {
		return v, err
	}
	w.replace(updated)
	return updated, nil
}

// boundOf is the bound of a version that has none, or whose tag somebody has spoilt.
func (w *work) boundOf(v rotation.Version) time.Time {
	if v.Ledger.PreviousVersion == "" || v.Ledger.Facts.PreviousEnds == rotation.EndsNow {
		return time.Time{}
	}
	own := time.Time{}
	if p, listed := w.seen.Find(v.Ledger.Previous); listed {
		own = p.ValidTo
	}
	return w.spec.SwitchOver.Bound(rotation.RevocationTime(w.spec, v), own)
}

// isSwitched reports whether every required consumer has confirmed.
func (w *work) isSwitched(c rotation.Confirmed) bool {
	if !w.spec.SwitchOver.HasRequired() {
		return false
	}
	for _, x := range w.spec.SwitchOver.Consumers {
		state, _ := c.Of(x.Name)
		if x.Required && !state.IsDone() {
			return false
		}
	}
	return true
}

// switching is what the events about a version's switch-over have in common.
func (w *work) switching(v rotation.Version) rotation.Switching {
	v.Value = rotation.Secret{}
	return rotation.Switching{Spec: w.spec, Version: v, Consumers: ConsumerStates(w.spec, v), Previous: w.replacedBy(v),
		At: w.Now()}
}

// ConsumerStates are how far the declared consumers of an entry are with a version.
func ConsumerStates(s rotation.Spec, v rotation.Version) []rotation.ConsumerState {
	if s.SwitchOver == nil {
		return nil
	}
	confirmed := rotation.ParseConfirmed(v.Ledger.Confirmed)
	out := make([]rotation.ConsumerState, len(s.SwitchOver.Consumers))
	for i, c := range s.SwitchOver.Consumers {
		state, at := confirmed.Of(c.Name)
		out[i] = rotation.ConsumerState{Consumer: c, State: state, At: at}
	}
	return out
}

// reportLate publishes that required consumers have not confirmed in time.
func (w *work) reportLate(ctx context.Context, d rotation.Decision) error {
	err := w.Outbox.Publish(ctx, &rotation.SwitchLate{Switching: w.switching(*d.Successor), LateSwitch: *d.Late})
	if err != nil {
		return err
	}
	w.seen.LateNotified = true
	w.notices.add(w.lateCause(), w.Now())
	return nil
}

// lateCause is what a late switch-over is remembered by, so that it is told once a day.
func (w *work) lateCause() cause {
	return cause{pat: w.spec.Name, step: stepLate}
}

// tokenLike is what may be a token in a text: a PAT has 52 characters at least, and a part
// of an access token has other letters too.
var tokenLike = regexp.MustCompile(`[A-Za-z0-9+/=_-]{40,}`)

// presentable is a consumer's message as events and logs may carry it.
func presentable(message string) string {
	message = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(message, " "))
	message = tokenLike.ReplaceAllString(message, "[redacted]")
	if r := []rune(message); len(r) > maxConfirmationMessage {
		message = string(r[:maxConfirmationMessage])
	}
	return strings.TrimSpace(message)
}
