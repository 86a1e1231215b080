package app_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

const allEvents = "pat-events/Subscriptions/all"

// watcher is an operator who looks at what was told.
type watcher struct {
	t     *testing.T
	cloud *cloud.Cloud
}

func newWatcher(t *testing.T) watcher {
	t.Helper()
	c, err := cloud.New(cloud.Config{Network: &memnet.Network{}, Genuine: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return watcher{t, c}
}

func (w watcher) run(want int, args ...string) (out, errOut string) {
	w.t.Helper()
	env := w.cloud.Environment()
	transport := w.cloud.Transport()
	defer transport.CloseIdleConnections()
	var stdout, stderr bytes.Buffer
	code := app.Main(w.t.Context(), append([]string{"events"}, args...), app.Process{
		Getenv: func(name string) string { return env[name] }, In: strings.NewReader(""), Out: &stdout, Err: &stderr,
		Outside:    app.Outside{Transport: transport, Dial: w.cloud.DialBus},
		Credential: w.cloud.Credential()})
	if code != want {
		w.t.Fatalf("%v: exit code %d, want %d: %s%s", args, code, want, &stdout, &stderr)
	}
	return stdout.String(), stderr.String()
}

// tell puts an event onto the topic.
func (w watcher) tell(e events.Event) {
	w.t.Helper()
	b, err := events.Encode(e)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.cloud.Bus.Send(cloud.EventTopic, servicebus.Message{ID: e.MessageID(), Subject: e.Type, Body: b,
		SessionID: e.SessionID(), ContentType: events.ContentType, Properties: e.Properties()})
	if err != nil {
		w.t.Fatal(err)
	}
}

func signedIn(user string) events.Event {
	return events.NewSignedIn("/patrol/contoso.vault.azure.net", time.Unix(1_795_521_600, 0),
		events.SignedIn{Identity: "build-bot", User: user})
}

// deadLetter moves all messages of the subscription to its dead letters.
func (w watcher) deadLetter() {
	w.t.Helper()
	client, err := w.cloud.BusClient()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = client.Close(context.WithoutCancel(w.t.Context())) }()
	r, err := client.NewReceiverForSubscription(cloud.EventTopic, cloud.EventSubscription, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for range w.cloud.Bus.Counts(allEvents).Active {
		ms, err := r.ReceiveMessages(w.t.Context(), 1, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		err = r.DeadLetterMessage(w.t.Context(), ms[0], &azservicebus.DeadLetterOptions{Reason: new("no-reader")})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestTheTailTakesNoMessageFromAConsumer(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for range 60 { // more than one page
		w.tell(signedIn("someone@contoso.com"))
	}
	if err := w.cloud.Bus.Send(cloud.EventTopic, servicebus.Message{Body: []byte("\x1b[31mno event")}); err != nil {
		t.Fatal(err)
	}
	out, _ := w.run(0, "tail")
	if got := strings.Count(out, "build-bot/signed-in/1795521600"); got != 60 {
		t.Errorf("%d events are printed, want 60", got)
	}
	if !strings.Contains(out, "no event") || strings.Contains(out, "\x1b") {
		t.Errorf("what is no event is printed as %q", out[max(0, len(out)-80):])
	}
	if got := w.cloud.Bus.Counts(allEvents).Active; got != 61 {
		t.Errorf("%d messages are left, want all 61", got)
	}
	for _, m := range w.cloud.Bus.Peek(allEvents) {
		if m.DeliveryCount != 0 {
			t.Errorf("message %s was counted as delivered", m.ID)
		}
	}
	out, _ = w.run(0, "tail", "-format", "json")
	e, err := events.Decode([]byte(strings.SplitN(out, "\n", 2)[0]))
	if err != nil || e.Type != events.TypeSignedIn {
		t.Errorf("the first line of JSON is a %q (%v), want an event", e.Type, err)
	}
}

func TestDeadLettersAreListedAndSentAgain(t *testing.T) {
	synctest.Test(t, testDeadLetters) // the command waits for what may still come
}

func testDeadLetters(t *testing.T) {
	w := newWatcher(t)
	first, second := signedIn("a@contoso.com"), signedIn("b@contoso.com")
	second.ID = "build-bot/signed-in/2"
	w.tell(first)
	w.tell(second)
	w.deadLetter()
	out, _ := w.run(0, "dead-letters")
	if got := strings.Count(out, "dead: no-reader"); got != 2 {
		t.Errorf("%d dead letters are listed, want 2:\n%s", got, out)
	}
	want := servicebus.Counts{DeadLetter: 2}
	if got := w.cloud.Bus.Counts(allEvents); got != want {
		t.Errorf("after the list: %+v, want %+v", got, want)
	}
	out, _ = w.run(0, "dead-letters", "-resubmit", "-id", second.ID)
	if !strings.Contains(out, second.ID) || strings.Contains(out, first.ID) {
		t.Errorf("sent again:\n%s, want only %s", out, second.ID)
	}
	want = servicebus.Counts{Active: 1, DeadLetter: 1}
	if got := w.cloud.Bus.Counts(allEvents); got != want {
		t.Errorf("after one was sent again: %+v, want %+v", got, want)
	}
	m := w.cloud.Bus.Peek(allEvents)[0]
	e, err := events.Decode(m.Body)
	if err != nil || e.ID != second.ID {
		t.Errorf("the copy is the event %q (%v), want %q", e.ID, err, second.ID)
	}
	isSame := m.ID == second.ID && m.Subject == second.Type && m.Properties["type"] == second.Type
	if !isSame {
		t.Errorf("the copy's message is %q, %q, %v", m.ID, m.Subject, m.Properties)
	}
	if _, has := m.Properties["DeadLetterReason"]; has {
		t.Error("the copy says that it is dead")
	}
	w.run(0, "dead-letters", "-resubmit")
	want = servicebus.Counts{Active: 2}
	if got := w.cloud.Bus.Counts(allEvents); got != want {
		t.Errorf("after all were sent again: %+v, want %+v", got, want)
	}
}

func TestTheStateOfAPATIsShownAsTheEventThatANewConsumerMissed(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	env := w.cloud.Environment()
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	const token = "a token that must not be shown"
	put := func(name string, tags map[string]string) keyvault.Version {
		v, err := w.cloud.Vault.Put(keyvault.Version{Name: name, Value: token, Tags: tags, Expires: until})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := put("nuget-feed", map[string]string{"CredentialId": "new-id", "patrol-rotation": "abcdefghij",
		"patrol-identity": "build-bot", "patrol-reason": "expiring", "patrol-previous": "old-id",
		"patrol-previous-version":   "0b61c3f0d7e24c6f9a8e5d4c3b2a1908",
		"patrol-revoke-previous-at": until.Format(time.RFC3339),
		"ProviderAddress":           env["AZURE_DEVOPS_URL"] + "/contoso"})
	put("by-hand", nil)
	out, _ := w.run(0, "show", "nuget-feed")
	e, err := events.Decode([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	d, ok := e.Data.(events.Rotated)
	isIt := d.Secret.Version == v.ID && d.AuthorizationID == "new-id" && d.Organization == "contoso"
	if !ok || !isIt {
		t.Errorf("shown is %+v", e.Data)
	}
	if d.Previous == nil || !d.Previous.RevokeAt.Equal(until) {
		t.Errorf("the replaced one is %+v, want it until %v", d.Previous, until)
	}
	if strings.Contains(out, token) {
		t.Error("the token is shown")
	}
	for name, says := range map[string]string{"by-hand": "was not written by patrol", "nothing": "has no secret"} {
		if _, errOut := w.run(1, "show", name); !strings.Contains(errOut, says) {
			t.Errorf("%s: %q, want an error that says %q", name, errOut, says)
		}
	}
}

func TestWhatCannotBeLookedAtIsExplained(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for _, tt := range []struct {
		code int
		says string
		args []string
	}{
		{2, "tail, dead-letters or show", nil},
		{2, `no "watch"`, []string{"watch"}},
		{2, "name one PAT", []string{"show"}},
		{2, "text or json", []string{"tail", "-format", "xml"}},
		{1, "no subscription mine", []string{"tail", "-subscription", "mine"}},
	} {
		if _, errOut := w.run(tt.code, tt.args...); !strings.Contains(errOut, tt.says) {
			t.Errorf("%v: %q, want an error that says %q", tt.args, errOut, tt.says)
		}
	}
	var out bytes.Buffer
	code := app.Main(t.Context(), []string{"events", "tail"}, app.Process{Getenv: func(string) string { return "" },
		Out: &out, Err: &out, Credential: w.cloud.Credential()})
	if code != 1 || !strings.Contains(out.String(), "EVENT_TOPIC") {
		t.Errorf("without settings: exit code %d, %s", code, &out)
	}
}
