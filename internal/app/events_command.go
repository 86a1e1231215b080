package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
)

const eventsUsage = `Usage: handler events <tail|dead-letters|show> [flags] [pat]

  tail            print the events of a subscription, without taking any from it
  dead-letters    print those that its consumer could not work on; -resubmit sends
                  them to the topic again and takes them out
  show <pat>      print the state of a PAT as the event patrol.pat.rotated that a new
                  consumer has missed; it is sent to nobody

Your own Azure sign-in (az login) needs: Service Bus Data Receiver on the subscription;
for -resubmit Service Bus Data Sender on the topic too; for show Key Vault Secrets User
on the PAT's secret.

Settings, from the environment: EVENT_TOPIC, ServiceBusConnection__fullyQualifiedNamespace
or ServiceBusConnection; KEY_VAULT_URL for show.

Flags:
`

// Events is the command that looks at what was told.
func Events(ctx context.Context, args []string, p Process) error {
	var o eventsOptions
	f := flag.NewFlagSet("events", flag.ContinueOnError)
	f.StringVar(&o.subscription, "subscription", "all", "the `name` of the subscription")
	f.StringVar(&o.format, "format", "text", "print events as `text` or json, one a line")
	f.BoolVar(&o.follow, "follow", false, "of tail: go on, and print what comes")
	f.BoolVar(&o.resubmit, "resubmit", false, "of dead-letters: send them again, and take them out")
	f.StringVar(&o.only, "id", "", "of dead-letters: only the event with this `id`")
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		if err := parse(f, args, eventsUsage); err != nil {
			return err
		}
		return &usageError{text: "say what to do: tail, dead-letters or show\n\n" + eventsUsage}
	}
	if err := parse(f, args[1:], eventsUsage); err != nil {
		return err
	}
	if o.format != "text" && o.format != "json" {
		return &usageError{text: fmt.Sprintf("-format must be text or json, not %q", o.format)}
	}
	o.args = f.Args()
	acts := map[string]func(context.Context, eventsOptions, Process) error{
		"tail": tailEvents, "dead-letters": deadEvents, "show": showPAT}
	act, ok := acts[args[0]]
	if !ok {
		return &usageError{text: fmt.Sprintf("there is no %q: tail, dead-letters or show", args[0])}
	}
	p.Outside.fill()
	return act(ctx, o, p)
}

type eventsOptions struct {
	subscription, format, only string
	follow, resubmit           bool
	args                       []string
}

const (
	peekPage   = 50
	followWait = 2 * time.Second
	takeWait   = 5 * time.Second
)

// tailEvents peeks: nobody's message is taken, and none is counted as delivered.
func tailEvents(ctx context.Context, o eventsOptions, p Process) error {
	bus, done, err := operatorsBus(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	receiver, err := bus.client.NewReceiverForSubscription(bus.topic, o.subscription, nil)
	if err != nil {
		return explainBus(err, o)
	}
	var from int64
	for {
		ms, err := receiver.PeekMessages(ctx, peekPage, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
		if err != nil && ctx.Err() != nil {
			return nil // Ctrl-C is how -follow ends
		}
		if err != nil {
			return explainBus(err, o)
		}
		for _, m := range ms {
			from = *m.SequenceNumber + 1
			printMessage(p, o, m)
		}
		switch {
		case len(ms) > 0:
			continue
		case !o.follow || p.Outside.Wait(ctx, followWait) != nil:
			return nil
		}
	}
}

// deadEvents lists dead letters, and sends them again if asked to. Every subscription of
// the topic gets those again: consumers know repeats by their ids.
func deadEvents(ctx context.Context, o eventsOptions, p Process) error {
	bus, done, err := operatorsBus(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	receiver, err := bus.client.NewReceiverForSubscription(bus.topic, o.subscription,
		&azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	if err != nil {
		return explainBus(err, o)
	}
	if o.resubmit {
		return resubmit(ctx, o, p, bus, receiver)
	}
	var from int64
	for {
		ms, err := receiver.PeekMessages(ctx, peekPage, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
		if err != nil {
			return explainBus(err, o)
		}
		if len(ms) == 0 {
			return nil
		}
		for _, m := range ms {
			from = *m.SequenceNumber + 1
			if o.only == "" || m.MessageID == o.only {
				printMessage(p, o, m)
			}
		}
	}
}

// resubmit takes dead letters one after another: each is on the topic before it is taken
// out, so that a failure between the two leaves a copy and never a gap. Those that are not
// meant stay: they are let go at the end, when no receive can bring them back at once.
func resubmit(ctx context.Context, o eventsOptions, p Process, bus operatorBus, r *azservicebus.Receiver) error {
	sender, err := bus.client.NewSender(bus.topic, nil)
	if err != nil {
		return explainBus(err, o)
	}
	var kept []*azservicebus.ReceivedMessage
	defer func() {
		for _, m := range kept {
			_ = r.AbandonMessage(context.WithoutCancel(ctx), m, nil) // its lock ends by itself
		}
	}()
	for {
		wait, cancel := context.WithTimeout(ctx, takeWait)
		ms, err := r.ReceiveMessages(wait, 1, nil)
		cancel()
		isEmpty := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
		if isEmpty || err == nil && len(ms) == 0 {
			return nil
		}
		if err != nil {
			return explainBus(err, o)
		}
		m := ms[0]
		if o.only != "" && m.MessageID != o.only {
			kept = append(kept, m)
			continue
		}
		if err := sender.SendMessage(ctx, again(m), nil); err != nil {
			return explainBus(err, o)
		}
		if err := r.CompleteMessage(ctx, m, nil); err != nil {
			return explainBus(err, o)
		}
		printMessage(p, o, m)
	}
}

// again is a dead letter as it was when it was sent.
func again(m *azservicebus.ReceivedMessage) *azservicebus.Message {
	out := m.Message()
	out.ScheduledEnqueueTime, out.TimeToLive = nil, nil
	for _, name := range []string{"DeadLetterReason", "DeadLetterErrorDescription"} {
		delete(out.ApplicationProperties, name)
	}
	return out
}

// printMessage prints one message on a line. What is no event is named by its place.
func printMessage(p Process, o eventsOptions, m *azservicebus.ReceivedMessage) {
	e, err := events.Decode(m.Body)
	if o.format == "json" {
		var line bytes.Buffer
		if json.Compact(&line, m.Body) == nil {
			fmt.Fprintln(p.Out, line.String())
			return
		}
	}
	why := ""
	if m.DeadLetterReason != nil {
		why = "  dead: " + oneLine(*m.DeadLetterReason)
		if m.DeadLetterErrorDescription != nil {
			why += ": " + oneLine(*m.DeadLetterErrorDescription)
		}
	}
	if err != nil {
		fmt.Fprintf(p.Out, "#%d  no event (%v)%s\n", *m.SequenceNumber, err, why)
		return
	}
	fmt.Fprintf(p.Out, "%s  %-32s %s  %s%s\n", e.Time.Format(time.RFC3339), oneLine(e.Type), oneLine(e.Subject),
		oneLine(e.ID), why)
}

// oneLine keeps what others have written from breaking the output, or a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// showPAT prints what a consumer that is new would have been told.
func showPAT(ctx context.Context, o eventsOptions, p Process) error {
	if len(o.args) != 1 {
		return &usageError{text: "name one PAT, after the flags, as in: handler events show nuget-feed"}
	}
	r := &reader{getenv: p.Getenv}
	s := Settings{Vault: r.url("KEY_VAULT_URL", r.required("KEY_VAULT_URL", "the vault's address"),
		"https://contoso.vault.azure.net")}
	r.local(&s)
	if len(r.problems) > 0 {
		return errors.New(strings.Join(r.problems, "\n  "))
	}
	options := azcore.ClientOptions{Transport: &http.Client{Transport: p.Outside.Transport},
		Retry: p.Outside.Retry.HTTP}
	cred, err := operatorsCredential(p, options, s.Local)
	if err != nil {
		return err
	}
	v, err := vault.New(vault.Config{URL: s.Vault.String(), Credential: cred, ClientOptions: options,
		DisableChallengeResourceVerification: s.Local, Log: p.Outside.Log, Now: p.Outside.Now})
	if err != nil {
		return err
	}
	current, err := v.Current(ctx, o.args[0])
	if errors.Is(err, rotation.ErrNotFound) {
		return fmt.Errorf("the vault has no secret %s", o.args[0])
	}
	if err != nil {
		return explainVault(err)
	}
	e, err := rotatedOf(current, s.Vault.Host)
	if err != nil {
		return err
	}
	b, err := events.Encode(e)
	if err != nil {
		return fmt.Errorf("%s is not as patrol leaves a secret: %w", o.args[0], err)
	}
	var text bytes.Buffer
	if err := json.Indent(&text, b, "", "  "); err != nil {
		return err
	}
	fmt.Fprintln(p.Out, text.String())
	return nil
}

// rotatedOf makes the event from what stands on a version. Scopes and display name are the
// manifest's, and not there.
func rotatedOf(v rotation.Version, vaultHost string) (events.Event, error) {
	l := v.Ledger
	if !l.Ours() {
		return events.Event{}, fmt.Errorf("%s was not written by patrol", v.Name)
	}
	organization := l.ProviderAddress[strings.LastIndex(l.ProviderAddress, "/")+1:]
	d := events.Rotated{PAT: v.Name, Organization: organization, Identity: l.Identity, DisplayName: v.Name,
		RotationID: l.RotationID, Reason: string(l.Reason),
		Secret:          events.SecretRef{ID: v.URL, Name: v.Name, Version: v.ID},
		AuthorizationID: l.AuthorizationID, ValidFrom: v.Created, ValidTo: v.Expires}
	if l.PreviousVersion != "" {
		d.Previous = &events.Previous{Version: l.PreviousVersion, AuthorizationID: l.Previous,
			RevokeAt: l.RevokePreviousAt}
	}
	return events.NewRotated(events.Source(vaultHost), v.Created, d), nil
}

// operatorBus is the topic with an operator's rights.
type operatorBus struct {
	client *azservicebus.Client
	topic  string
}

func operatorsBus(ctx context.Context, p Process) (operatorBus, func(), error) {
	r := &reader{getenv: p.Getenv}
	var s Settings
	s.EventTopic = r.required("EVENT_TOPIC", "the name of the topic, by default pat-events")
	s.BusConnectionString = r.text(busSetting, "")
	s.BusNamespace = r.text(busSetting+"__fullyQualifiedNamespace", "")
	if s.BusConnectionString == "" && s.BusNamespace == "" {
		r.wrong(busSetting+"__fullyQualifiedNamespace", "is not set: the host name of the Service Bus namespace")
	}
	s.Local = strings.EqualFold(p.Getenv("PATROL_LOCAL"), "true")
	if len(r.problems) > 0 {
		return operatorBus{}, nil, errors.New(strings.Join(r.problems, "\n  "))
	}
	options := (&App{outside: p.Outside}).busOptions(s)
	var client *azservicebus.Client
	var err error
	if s.BusConnectionString != "" {
		client, err = azservicebus.NewClientFromConnectionString(s.BusConnectionString, &options)
	} else {
		var cred azcore.TokenCredential
		http := &http.Client{Transport: p.Outside.Transport}
		cred, err = operatorsCredential(p, azcore.ClientOptions{Transport: http}, s.Local)
		if err == nil {
			client, err = azservicebus.NewClient(hostOnly(s.BusNamespace), cred, &options)
		}
	}
	if err != nil {
		return operatorBus{}, nil, errors.New("the Service Bus connection cannot be used: " +
			"check the setting, and run az login")
	}
	closed := func() { _ = client.Close(context.WithoutCancel(ctx)) }
	return operatorBus{client, s.EventTopic}, closed, nil
}

func operatorsCredential(p Process, options azcore.ClientOptions, isLocal bool) (azcore.TokenCredential, error) {
	if p.Credential != nil {
		return p.Credential, nil
	}
	c, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options,
		DisableInstanceDiscovery: isLocal})
	if err != nil {
		return nil, errors.New("there is no Azure sign-in on this machine: run az login")
	}
	return c, nil
}

// explainBus says to an operator what is missing; never the text of an SDK's error.
func explainBus(err error, o eventsOptions) error {
	e, ok := errors.AsType[*azservicebus.Error](err)
	codes := []azservicebus.Code{azservicebus.CodeUnauthorizedAccess, azservicebus.CodeNotFound}
	if !ok || !slices.Contains(codes, e.Code) {
		return errors.New("the Service Bus namespace does not answer: check its name and the network, and try again")
	}
	if e.Code == azservicebus.CodeNotFound {
		return fmt.Errorf("the topic has no subscription %s", o.subscription)
	}
	return fmt.Errorf("the Service Bus namespace refuses your sign-in: it needs Azure Service Bus Data Receiver on "+
		"the subscription %s, and for -resubmit Data Sender on the topic", o.subscription)
}
