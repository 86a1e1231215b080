package web

import (
	"context"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// How the page shows a switch-over, and takes a person's decision about it.

// switchView is how far the consumers of a PAT are, and what happens to the replaced one.
type switchView struct {
	Consumers []consumerView
	LateAt    *time.Time
	// Open: a replaced PAT lives, so that there is something to decide.
	Open bool
	Next string
	// Until is when Next comes; nil: not known.
	Until *time.Time
	// Ruling is what a person has decided; empty: nothing.
	Ruling string
	// CanRelease and CanHold: the decision would change something.
	CanRelease, CanHold bool
}

type consumerView struct {
	ConsumerState
	Word, Sign, Tone string
	Done             bool
}

// consumerWords are a consumer's state as a person reads it.
func consumerWords(c ConsumerState, isLate bool) (word, sign, tone string) {
	switch rotation.SwitchState(c.State) {
	case rotation.Switched:
		return "Switched", "✓", "good"
	case rotation.ByHand:
		return "Confirmed by hand", "✓", "good"
	case rotation.Failed:
		return "Failed", "✕", "bad"
	}
	switch {
	case isLate:
		return "Late", "!", "bad"
	case c.Required:
		return "Waited for", "…", "warn"
	}
	return "Not confirmed", "–", ""
}

// switchViewOf is nil for an entry without consumers.
func switchViewOf(p ManagedPAT, now time.Time) *switchView {
	s := p.SwitchOver
	if s == nil {
		return nil
	}
	v := &switchView{LateAt: s.LateAt, Open: hasLivingPredecessor(p.Versions, now), Ruling: s.Ruling}
	isPast := s.LateAt != nil && !now.Before(*s.LateAt)
	missing := 0
	for _, c := range s.Consumers {
		done := rotation.SwitchState(c.State).IsDone()
		x := consumerView{ConsumerState: c, Done: done}
		x.Word, x.Sign, x.Tone = consumerWords(c, c.Required && isPast && v.Open)
		if c.Required && !done {
			missing++
		}
		v.Consumers = append(v.Consumers, x)
	}
	if v.Open {
		v.foretell(p, missing)
	}
	return v
}

// hasLivingPredecessor reports whether a PAT before the current one still lives.
func hasLivingPredecessor(versions []VersionInfo, now time.Time) bool {
	current := ""
	for _, v := range versions {
		if v.Latest {
			current = v.AuthorizationID
		}
	}
	for _, v := range versions {
		isOther := v.AuthorizationID != "" && !strings.EqualFold(v.AuthorizationID, current)
		lives := v.RevokedAt == nil && v.ValidTo != nil && v.ValidTo.After(now)
		if isOther && lives {
			return true
		}
	}
	return false
}

// foretell says what happens to the replaced PAT, and when.
func (v *switchView) foretell(p ManagedPAT, missing int) {
	var overlapEnds *time.Time
	for _, x := range p.Versions {
		if x.Latest {
			overlapEnds = x.RevokePreviousAt
		}
	}
	ruling := rotation.Ruling(v.Ruling)
	v.CanRelease, v.CanHold = missing > 0 && ruling != rotation.Release, missing > 0 && ruling != rotation.Hold
	switch {
	case missing == 0:
		v.Next = "Nobody is waited for any more. The replaced PAT is revoked at its overlap's end."
		v.Until = overlapEnds
	case ruling == rotation.Release:
		v.Next = "A person has released it: nobody is waited for, and the replaced PAT is revoked at its overlap's end."
		v.Until = overlapEnds
	case ruling == rotation.Hold:
		v.Next = "A person holds it: the replaced PAT lives until all have switched, a person releases it, or it " +
			"comes to its own end."
		v.Until = p.SwitchOver.RevokeAtLatest
	default:
		v.Next = "The replaced PAT lives until all that are required have switched, but never longer than was told."
		v.Until = latestOf(overlapEnds, p.SwitchOver.RevokeAtLatest)
	}
}

func latestOf(a, b *time.Time) *time.Time {
	switch {
	case a == nil:
		return b
	case b == nil || a.After(*b):
		return a
	}
	return b
}

// lateSwitchView is a late switch-over in a list.
type lateSwitchView struct {
	Missing string
	EndsAt  time.Time
}

func lateSwitchOf(late *rotation.LateSwitch) *lateSwitchView {
	if late == nil {
		return nil
	}
	return &lateSwitchView{Missing: strings.Join(late.Missing, ", "), EndsAt: late.EndsAt}
}

func (act action) switchOverRequest() SwitchOverRequest {
	return SwitchOverRequest{Action: act.Ruling, Consumer: act.Consumer}
}

func (act *action) readDecision(name, ruling, consumer string) *Problem {
	act.Name, act.Ruling = name, ruling
	switch rotation.Ruling(ruling) {
	case rotation.Release, rotation.Hold:
		return nil
	case rotation.ConfirmByHand:
		act.Consumer = consumer
		if !rotation.IsConsumerName(consumer) {
			return badForm("Name the consumer to confirm for, as the manifest has it.")
		}
		return nil
	}
	return badForm("Choose whether to release, to hold, or to confirm for a consumer.")
}

// consequencesOfDeciding refuses what would change nothing.
func (d *dashboard) consequencesOfDeciding(ctx context.Context, item rotation.Item, act action) (*confirmView,
	*Problem) {
	if item.Err != nil && item.Current == nil {
		return nil, d.upstream(ctx, item.Err)
	}
	if p := d.decidable(ctx, item, act.switchOverRequest()); p != nil {
		return nil, p
	}
	name := item.Spec.Name
	v := &confirmView{Back: name, Facts: factsOf(item)}
	var missing []string
	for _, c := range switchOverOf(item).Consumers {
		if c.Required && !rotation.SwitchState(c.State).IsDone() {
			missing = append(missing, c.Name)
		}
	}
	if len(missing) > 0 {
		v.Facts = append(v.Facts, fact{"Not switched yet", strings.Join(missing, ", "), false})
	}
	switch rotation.Ruling(act.Ruling) {
	case rotation.Release:
		v.Title, v.Button, v.Danger = "Release the replaced PAT of "+name+"?", "Release it", true
		v.Text = []string{
			"Nobody is waited for any more: the replaced PAT is revoked when its overlap has ended, at once if it has.",
			"A consumer that has not read the secret again fails from then on."}
	case rotation.Hold:
		v.Title, v.Button = "Hold the replaced PAT of "+name+"?", "Hold it"
		v.Text = []string{
			"The replaced PAT lives until all required consumers have switched, somebody releases it, or it comes to " +
				"its own end. The end that was told before does not count any more.",
			"Whoever has seen its value can use it until then, too."}
	default:
		v.Title, v.Button = "Confirm for "+act.Consumer+"?", "Confirm for it"
		v.Facts = append(v.Facts, fact{"Consumer", act.Consumer, false})
		v.Text = []string{
			"It counts as switched to the secret's latest version, and is waited for no more. That cannot be taken " +
				"back.",
			"patrol has no proof of it: if it still uses the replaced PAT, it fails when that one is revoked."}
	}
	return v, nil
}

func (d *dashboard) decideSwitchOver(ctx context.Context, by Caller, act action) *dashboardPage {
	x, p := d.DecideSwitchOver(ctx, by, act.Name, act.switchOverRequest())
	if p != nil {
		return d.pat(ctx, act.Name, d.failureNotice(p, nil))
	}
	n := &notice{Title: "The replaced PAT is being released", Detail: []string{"Operation: " + x.Operation},
		Text: []string{"It shows below within seconds: load the page again."}}
	switch rotation.Ruling(act.Ruling) {
	case rotation.Hold:
		n.Title = "The replaced PAT is being held"
	case rotation.ConfirmByHand:
		n.Title = act.Consumer + " is being confirmed by hand"
	}
	return d.pat(ctx, x.PAT, n)
}
