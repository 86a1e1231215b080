// Package keeper holds the current value of a PAT that patrol keeps fresh, for an
// application that uses it: it reads the latest version of the secret, follows the events,
// tries a new value before it is used, swaps it in one step, and confirms.
//
// It must not log a value, nor put one into an error.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/events"
)

// Secrets reads secrets: an *azsecrets.Client.
type Secrets interface {
	GetSecret(ctx context.Context, name, version string, o *azsecrets.GetSecretOptions) (azsecrets.GetSecretResponse,
		error)
}

// Sender sends confirmations: an *azservicebus.Sender on the queue pat-confirmations.
type Sender interface {
	SendMessage(ctx context.Context, m *azservicebus.Message, o *azservicebus.SendMessageOptions) error
}

// Config of a Keeper. PAT and Secrets must be set.
type Config struct {
	PAT     string // its name in the manifest: the secret's name
	Secrets Secrets
	// Consumer is this application's name in the manifest, and Confirmations where it
	// confirms. Without both nothing is confirmed.
	Consumer      string
	Confirmations Sender
	// Try uses a new value once, before it takes the place of the old one: any call that
	// its scopes permit. nil: it is taken as it is.
	Try func(ctx context.Context, value string) error
	// Every is how often the secret is read without an event: at least once in the
	// overlap. Default: an hour.
	Every time.Duration
	// Log says what happened, without a value. nil: nothing is said.
	Log *slog.Logger
	Now func() time.Time
}

// Keeper holds a PAT. It may be used from many goroutines at once.
type Keeper struct {
	config Config

	reading chan struct{} // holds one token: one reader at a time

	mu             sync.Mutex
	value, version string
	confirmed      string    // version
	readAt         time.Time // of the last read that succeeded
}

// New reads the PAT for the first time.
func New(ctx context.Context, c Config) (*Keeper, error) {
	if c.PAT == "" || c.Secrets == nil {
		return nil, errors.New("keeper: PAT and Secrets must be set")
	}
	if c.Every == 0 {
		c.Every = time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keeper{config: c, reading: make(chan struct{}, 1)}
	k.reading <- struct{}{}
	return k, k.Refresh(ctx)
}

// Value is the PAT as it is now. Ask for it at each use, and keep it nowhere.
func (k *Keeper) Value() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.value
}

// Version is the secret's version that Value is of.
func (k *Keeper) Version() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.version
}

// Refresh reads the latest version, and if it is another one, tries it, takes it, and
// confirms. A confirmation that could not be sent is sent by the next Refresh.
func (k *Keeper) Refresh(ctx context.Context) error {
	select {
	case <-k.reading:
		defer func() { k.reading <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Without a version: the latest. An event's own may be disabled by now.
	got, err := k.config.Secrets.GetSecret(ctx, k.config.PAT, "", nil)
	if err != nil {
		return fmt.Errorf("keeper: reading the secret %s failed: check the vault and the role Key Vault Secrets User",
			k.config.PAT)
	}
	if got.Value == nil || got.ID == nil {
		return fmt.Errorf("keeper: the secret %s has no value", k.config.PAT)
	}
	value, version := strings.TrimSpace(*got.Value), got.ID.Version()
	if version != k.Version() {
		if err := k.take(ctx, value, version); err != nil {
			return err
		}
	}
	k.mu.Lock()
	k.readAt = k.config.Now()
	isConfirmed := k.confirmed == version
	k.mu.Unlock()
	if isConfirmed {
		return nil
	}
	return k.confirm(ctx, value, version, events.OutcomeSwitched, "")
}

// take tries a new value and swaps it in. If it does not work, the old one stays.
func (k *Keeper) take(ctx context.Context, value, version string) error {
	if k.config.Try != nil {
		if err := k.config.Try(ctx, value); err != nil {
			_ = k.confirm(ctx, value, version, events.OutcomeFailed, "the new value was refused")
			return fmt.Errorf("keeper: version %s of %s does not work here", version, k.config.PAT)
		}
	}
	k.mu.Lock()
	k.value, k.version = value, version
	k.mu.Unlock()
	k.config.Log.InfoContext(ctx, "a new PAT is in use", "pat", k.config.PAT, "version", version)
	return nil
}

func (k *Keeper) confirm(ctx context.Context, value, version, outcome, message string) error {
	if k.config.Confirmations == nil || k.config.Consumer == "" {
		return nil
	}
	c := events.Confirmed{PAT: k.config.PAT, SecretVersion: version, Consumer: k.config.Consumer, Outcome: outcome,
		Message: message}
	e := events.NewConfirmed(k.config.Now(), c.Prove([]byte(value)))
	body, err := events.Encode(e)
	if err != nil {
		return err
	}
	contentType, id := events.ContentType, e.MessageID()
	err = k.config.Confirmations.SendMessage(ctx, &azservicebus.Message{Body: body, ContentType: &contentType,
		MessageID: &id, Subject: &e.Type}, nil)
	if err != nil {
		return errors.New("keeper: the confirmation could not be sent: check the role Azure Service Bus Data Sender")
	}
	if outcome == events.OutcomeSwitched {
		k.mu.Lock()
		k.confirmed = version
		k.mu.Unlock()
	}
	return nil
}

// Receiver gives events: an *azservicebus.Receiver of a subscription of this application.
type Receiver interface {
	ReceiveMessages(ctx context.Context, n int,
		o *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(ctx context.Context, m *azservicebus.ReceivedMessage, o *azservicebus.CompleteMessageOptions) error
	AbandonMessage(ctx context.Context, m *azservicebus.ReceivedMessage, o *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(ctx context.Context, m *azservicebus.ReceivedMessage, o *azservicebus.DeadLetterOptions) error
}

// Run follows the events until ctx ends: it reads again when the PAT is rotated, and at
// least every Config.Every. A failure is logged and tried again; r may be nil: then it only
// reads.
func (k *Keeper) Run(ctx context.Context, r Receiver) error {
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, k.due())
		err := k.receive(wait, r)
		isTime := wait.Err() != nil
		cancel()
		if isTime && ctx.Err() == nil {
			err = k.Refresh(ctx)
		}
		if err != nil && ctx.Err() == nil {
			k.config.Log.WarnContext(ctx, "following a PAT", "pat", k.config.PAT, "error", err.Error())
			pause(ctx, retryAfter)
		}
	}
	return ctx.Err()
}

const retryAfter = 5 * time.Second

// due is how long until the secret is read without an event.
func (k *Keeper) due() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(retryAfter, k.config.Every-k.config.Now().Sub(k.readAt))
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// receive handles what comes until ctx ends.
func (k *Keeper) receive(ctx context.Context, r Receiver) error {
	if r == nil {
		<-ctx.Done()
		return nil
	}
	ms, err := r.ReceiveMessages(ctx, 10, nil)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return errors.New("keeper: receiving events failed: check the subscription and the role " +
			"Azure Service Bus Data Receiver")
	}
	for _, m := range ms {
		// what has been received is settled, even if it is time to read
		if err := k.settle(context.WithoutCancel(ctx), r, m); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) settle(ctx context.Context, r Receiver, m *azservicebus.ReceivedMessage) error {
	err := k.Handle(ctx, m.Body)
	if errors.Is(err, events.ErrMalformed) || errors.Is(err, events.ErrData) {
		reason, description := "unreadable", err.Error()
		return r.DeadLetterMessage(ctx, m, &azservicebus.DeadLetterOptions{Reason: &reason,
			ErrorDescription: &description})
	}
	if err != nil {
		return errors.Join(err, r.AbandonMessage(ctx, m, nil))
	}
	return r.CompleteMessage(ctx, m, nil)
}

// Handle takes the body of one message, for who receives by other means. An error that is
// events.ErrMalformed or events.ErrData is for the dead-letter queue, any other for another
// attempt.
func (k *Keeper) Handle(ctx context.Context, body []byte) error {
	e, err := events.Decode(body)
	if err != nil {
		return err
	}
	d, ok := e.Data.(events.Rotated)
	if !ok || d.PAT != k.config.PAT || d.Secret.Version == k.Version() {
		return nil
	}
	return k.Refresh(ctx)
}

// Transport is an http.RoundTripper for Azure DevOps: it adds the PAT to each request, and
// where the organization refuses it reads the secret again and, if there is another value,
// repeats the request once. Requests with a body that cannot be read again are not repeated.
// base may be nil: http.DefaultTransport.
func (k *Keeper) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{k, base}
}

type transport struct {
	keeper *Keeper
	base   http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	version := t.keeper.Version()
	answer, err := t.base.RoundTrip(t.signed(r))
	if err != nil || !Refused(answer) || !repeatable(r) {
		return answer, err
	}
	if t.keeper.Refresh(r.Context()) != nil || t.keeper.Version() == version {
		return answer, nil // the refusal says more than we could
	}
	again := r.Clone(r.Context())
	if r.GetBody != nil {
		again.Body, err = r.GetBody()
	}
	if err != nil {
		return answer, nil
	}
	_ = answer.Body.Close()
	return t.base.RoundTrip(t.signed(again))
}

func repeatable(r *http.Request) bool {
	return r.Body == nil || r.Body == http.NoBody || r.GetBody != nil
}

// signed adds the PAT, and asks for 401 in place of a page to sign in.
func (t *transport) signed(r *http.Request) *http.Request {
	out := r.Clone(r.Context())
	out.SetBasicAuth("", t.keeper.Value())
	out.Header.Set("X-TFS-FedAuthRedirect", "Suppress")
	return out
}

// Refused reports whether an answer of Azure DevOps means that the PAT is not good: 401, a
// redirect to the page to sign in, or that page.
func Refused(answer *http.Response) bool {
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusNonAuthoritativeInfo:
		return true
	case http.StatusFound:
		return strings.Contains(answer.Header.Get("Location"), "_signin")
	}
	return false
}
