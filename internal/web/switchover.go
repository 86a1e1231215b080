package web

import (
	"context"
	"net/http"
	"time"

	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// ConfirmationRequest is a consumer's word about a new version, for those without Service
// Bus.
type ConfirmationRequest struct {
	SecretVersion string `json:"secretVersion"`
	Consumer      string `json:"consumer"`
	Outcome       string `json:"outcome"` // switched or failed
	Message       string `json:"message,omitempty"`
	Proof         string `json:"proof"`
}

// Confirmed is the answer to every confirmation that has the right form, whatever becomes
// of it: its proof is checked later, and nobody is told why one changes nothing.
type Confirmed struct {
	PAT           string `json:"pat"`
	SecretVersion string `json:"secretVersion"`
	Consumer      string `json:"consumer"`
	Status        string `json:"status"` // where to see who has switched
}

// SwitchOverRequest is what a person decides about a switch-over.
type SwitchOverRequest struct {
	Action   string `json:"action"` // release, hold or confirm
	Consumer string `json:"consumer,omitempty"`
}

// SwitchOverOrder is a decision that was taken.
type SwitchOverOrder struct {
	Operation string `json:"operation"`
	PAT       string `json:"pat"`
	Action    string `json:"action"`
	Consumer  string `json:"consumer,omitempty"`
	Status    string `json:"status"`
}

// SwitchOver is how far the consumers of a PAT are with its current version.
type SwitchOver struct {
	Consumers []ConsumerState `json:"consumers"`
	// LateAt is when a missing confirmation is told as late; null: nothing was replaced.
	LateAt *time.Time `json:"lateAt"`
	// RevokeAtLatest is until when missing confirmations hold the replaced PAT back; null:
	// nothing was replaced.
	RevokeAtLatest *time.Time `json:"revokeAtLatest"`
	// Ruling is a person's: release or hold; empty: there is none.
	Ruling string `json:"ruling,omitempty"`
}

// ConsumerState is how far one consumer is.
type ConsumerState struct {
	Name     string     `json:"name"`
	Required bool       `json:"required"`
	State    string     `json:"state"` // waiting, switched, failed or by-hand
	At       *time.Time `json:"at"`    // since when
}

// switchOverOf describes an entry's switch-over; nil: it has no consumers.
func switchOverOf(item rotation.Item) *SwitchOver {
	s, c := item.Spec, item.Current
	if s.SwitchOver == nil || c == nil {
		return nil
	}
	out := &SwitchOver{Consumers: []ConsumerState{}}
	for _, x := range reconcile.ConsumerStates(s, *c) {
		out.Consumers = append(out.Consumers, ConsumerState{Name: x.Name, Required: x.Required, State: string(x.State),
			At: timeOrNull(x.At)})
	}
	if c.Ledger.PreviousVersion == "" {
		return out
	}
	confirmed := rotation.ParseConfirmed(c.Ledger.Confirmed)
	out.Ruling = string(confirmed.Ruling)
	out.RevokeAtLatest = timeOrNull(confirmed.Bound)
	out.LateAt = timeOrNull(c.Created.Add(s.SwitchOver.Within))
	return out
}

// ConfirmSwitch takes a consumer's word into the PAT's session.
func (a *API) ConfirmSwitch(ctx context.Context, name string, c ConfirmationRequest) (Confirmed, *Problem) {
	s, ok := a.Reconciler.Spec(name)
	if !ok {
		return Confirmed{}, unknownPAT()
	}
	isOutcome := c.Outcome == string(rotation.HasSwitched) || c.Outcome == string(rotation.SwitchFailed)
	switch {
	case c.SecretVersion == "" || len(c.SecretVersion) > maxReason:
		return Confirmed{}, badBody("secretVersion is missing: give the version of the secret that you have read.")
	case !rotation.IsConsumerName(c.Consumer):
		return Confirmed{}, badBody("consumer must be a name as the manifest has it: at most 40 lower-case letters, " +
			"digits and hyphens.")
	case !isOutcome:
		return Confirmed{}, badBody(`outcome must be "switched" or "failed".`)
	case c.Proof == "" || len(c.Proof) > maxReason:
		return Confirmed{}, badBody("proof is missing: it shows that you have read this version.")
	case len([]rune(c.Message)) > 200:
		return Confirmed{}, badBody("message may have 200 characters at most.")
	}
	err := a.Reconciler.Outbox.Send(ctx, rotation.Command{PAT: s.Name, Reason: rotation.Check, RequestedBy: byPatrol,
		Confirmation: &rotation.Confirmation{SecretVersion: c.SecretVersion, Consumer: c.Consumer,
			Outcome: rotation.Outcome(c.Outcome), Message: c.Message, Proof: c.Proof}})
	if err != nil {
		return Confirmed{}, a.upstream(ctx, err)
	}
	return Confirmed{PAT: s.Name, SecretVersion: c.SecretVersion, Consumer: c.Consumer, Status: linkTo(s.Name)}, nil
}

// DecideSwitchOver takes a person's decision about a switch-over: to wait for nobody
// (release), to wait until the replaced PAT's own end (hold), or to confirm for one
// consumer.
func (a *API) DecideSwitchOver(ctx context.Context, by Caller, name string, o SwitchOverRequest) (SwitchOverOrder,
	*Problem) {
	asked := request{name: "switch-over", target: name, body: o}
	return do(ctx, a, by, asked, func(ctx context.Context, operation string) (SwitchOverOrder, *Problem) {
		item, ok := a.Reconciler.Inspect(ctx, name)
		if !ok {
			return SwitchOverOrder{}, unknownPAT()
		}
		if item.Err != nil && item.Current == nil {
			return SwitchOverOrder{}, a.upstream(ctx, item.Err)
		}
		if p := a.decidable(ctx, item, o); p != nil {
			return SwitchOverOrder{}, p
		}
		c := rotation.Command{PAT: item.Spec.Name, Reason: rotation.Check, RequestedBy: by.Who, Operation: operation,
			Confirmation: &rotation.Confirmation{SecretVersion: item.Current.ID, Consumer: o.Consumer,
				Ruling: rotation.Ruling(o.Action)}}
		err := a.Reconciler.Outbox.Send(ctx, c)
		if err != nil {
			return SwitchOverOrder{}, a.upstream(ctx, err)
		}
		a.Log.InfoContext(ctx, "switch-over decided", "pat", c.PAT, "action", o.Action, "consumer", o.Consumer,
			"by", by.Who, "operation", operation)
		return SwitchOverOrder{Operation: operation, PAT: c.PAT, Action: o.Action, Consumer: o.Consumer,
			Status: linkTo(c.PAT)}, nil
	})
}

// decidable refuses a decision that would change nothing.
func (a *API) decidable(ctx context.Context, item rotation.Item, o SwitchOverRequest) *Problem {
	s := item.Spec.SwitchOver
	isAboutAll := o.Action == string(rotation.Release) || o.Action == string(rotation.Hold)
	isKnown := isAboutAll || o.Action == string(rotation.ConfirmByHand)
	switch {
	case !isKnown:
		return badBody(`action must be "release", "hold" or "confirm".`)
	case isAboutAll && o.Consumer != "":
		return badBody(`consumer is for the action "confirm" alone.`)
	case s == nil || item.Current == nil:
		return a.nothingWaits(ctx, item, "the entry declares no consumers, or there is no PAT yet")
	case isAboutAll && item.Current.Ledger.PreviousVersion == "":
		return a.nothingWaits(ctx, item, "no replaced PAT waits for anybody")
	case isAboutAll:
		return nil
	}
	for _, c := range s.Consumers {
		if c.Name == o.Consumer {
			return nil
		}
	}
	return badBody("consumer must be one that the manifest declares for this PAT.")
}

func (a *API) nothingWaits(ctx context.Context, item rotation.Item, why string) *Problem {
	return a.refusalProblem(ctx, &reconcile.Refusal{Code: reconcile.NothingReplaced, PAT: item.Spec.Name, Managed: true,
		Message: why})
}

// confirmSwitch: POST pats/{name}/confirmations.
func (a *API) confirmSwitch(w http.ResponseWriter, r *http.Request) {
	var body ConfirmationRequest
	_, p := a.posted(w, r, &body)
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.ConfirmSwitch(r.Context(), r.PathValue("name"), body)
	a.reply(w, r, http.StatusAccepted, out, p)
}

// decideSwitchOver: POST pats/{name}/switch-over.
func (a *API) decideSwitchOver(w http.ResponseWriter, r *http.Request) {
	var body SwitchOverRequest
	by, p := a.posted(w, r, &body)
	if p != nil {
		fail(w, *p)
		return
	}
	out, p := a.DecideSwitchOver(r.Context(), by, r.PathValue("name"), body)
	a.reply(w, r, http.StatusAccepted, out, p)
}
