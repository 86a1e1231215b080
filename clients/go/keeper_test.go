package keeper_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	keeper "github.com/azure-patrol/patrol/clients/go"
	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/events/eventstest"
)

const pat = "nuget-feed"

// vault gives the secrets of a fake patrol as Key Vault does.
type vault struct {
	patrol *eventstest.Patrol
	reads  int
	fail   bool
}

func (v *vault) GetSecret(_ context.Context, name, version string,
	_ *azsecrets.GetSecretOptions) (azsecrets.GetSecretResponse, error) {
	v.reads++
	value, latest, ok := v.patrol.Secret(name)
	if !ok || v.fail || version != "" {
		return azsecrets.GetSecretResponse{}, errors.New("canary: an answer of the vault")
	}
	value += "\n" // a portal's
	id := azsecrets.ID("https://contoso.vault.azure.net/secrets/" + name + "/" + latest)
	return azsecrets.GetSecretResponse{Secret: azsecrets.Secret{ID: &id, Value: &value}}, nil
}

// queue takes confirmations.
type queue struct {
	patrol *eventstest.Patrol
	fail   bool
	sent   []events.Confirmed
}

func (q *queue) SendMessage(_ context.Context, m *azservicebus.Message, _ *azservicebus.SendMessageOptions) error {
	if q.fail {
		return errors.New("canary: an answer of the bus")
	}
	c, err := events.DecodeConfirmation(m.Body)
	if err != nil {
		return err
	}
	q.sent = append(q.sent, c)
	return q.patrol.Confirm(m.Body)
}

type fixture struct {
	patrol *eventstest.Patrol
	vault  *vault
	queue  *queue
	keeper *keeper.Keeper
	tries  func(value string) error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{patrol: eventstest.New(eventstest.Config{}), tries: func(string) error { return nil }}
	f.vault, f.queue = &vault{patrol: f.patrol}, &queue{patrol: f.patrol}
	f.patrol.Rotate(pat)
	k, err := keeper.New(t.Context(), keeper.Config{PAT: pat, Secrets: f.vault, Consumer: "service",
		Confirmations: f.queue, Try: func(_ context.Context, value string) error { return f.tries(value) }})
	if err != nil {
		t.Fatal(err)
	}
	f.keeper = k
	return f
}

func TestAnEventBringsTheNewValueAndItsConfirmation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.patrol.Rotate(pat)
	for range 2 {
		if err := f.keeper.Handle(t.Context(), m.Body); err != nil {
			t.Fatal(err)
		}
	}
	value, version, _ := f.patrol.Secret(pat)
	if f.keeper.Value() != value || f.keeper.Version() != version {
		t.Errorf("it holds version %s, want %s, without the white space", f.keeper.Version(), version)
	}
	if got, want := f.vault.reads, 2; got != want {
		t.Errorf("%d reads, want %d: a copy of an event reads nothing", got, want)
	}
	if got, want := f.patrol.Switched(pat), []string{"service"}; !slices.Equal(got, want) {
		t.Errorf("switched %q, want %q", got, want)
	}
}

func TestEventsOfOthersAndOfLaterVersionsAreDone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other := f.patrol.Rotate("another")
	for name, body := range map[string][]byte{"another PAT's": other.Body,
		"a later version's": []byte(`{"specversion":"1.0","id":"1","source":"s","type":"patrol.pat.cloned"}`)} {
		if err := f.keeper.Handle(t.Context(), body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.keeper.Handle(t.Context(), []byte("no event")); !errors.Is(err, events.ErrMalformed) {
		t.Errorf("no event: error %v, want ErrMalformed", err)
	}
	if f.vault.reads != 1 {
		t.Errorf("%d reads, want 1", f.vault.reads)
	}
}

func TestAValueThatDoesNotWorkIsNotTaken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := f.keeper.Value()
	f.tries = func(value string) error { return errors.New("refused: " + value) }
	m := f.patrol.Rotate(pat)
	err := f.keeper.Handle(t.Context(), m.Body)
	value, _, _ := f.patrol.Secret(pat)
	if err == nil || strings.Contains(err.Error(), value) {
		t.Errorf("error %v, want one without the value", err)
	}
	if f.keeper.Value() != old {
		t.Error("the old value was given up")
	}
	if got, want := f.queue.sent[len(f.queue.sent)-1].Outcome, events.OutcomeFailed; got != want {
		t.Errorf("confirmed as %q, want %q", got, want)
	}
	if got := f.patrol.Switched(pat); len(got) > 0 {
		t.Errorf("switched %q, want nobody", got)
	}
}

func TestAConfirmationThatWasNotSentIsSentLater(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.queue.fail = true
	m := f.patrol.Rotate(pat)
	if err := f.keeper.Handle(t.Context(), m.Body); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v, want one in our words", err)
	}
	value, _, _ := f.patrol.Secret(pat)
	if f.keeper.Value() != value {
		t.Error("the new value waits for its confirmation")
	}
	f.queue.fail = false
	if err := f.keeper.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := f.patrol.Switched(pat), []string{"service"}; !slices.Equal(got, want) {
		t.Errorf("switched %q, want %q", got, want)
	}
}

func TestARefusedRequestIsRepeatedOnceWithTheNewValue(t *testing.T) {
	t.Parallel()
	for name, withBody := range map[string]bool{"without a body": false, "with a body": true} {
		f := newFixture(t)
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			_, _ = io.Copy(io.Discard, r.Body)
			f.patrol.ServeHTTP(w, r)
		}))
		defer server.Close()
		f.patrol.Rotate(pat)
		f.patrol.Revoke(pat) // nobody has told it
		var body io.Reader
		if withBody {
			body = strings.NewReader("{}")
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/contoso/_apis/projects", body)
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: f.keeper.Transport(nil)}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK || asked != 2 {
			t.Errorf("%s: status %d after %d requests, want 200 after 2", name, answer.StatusCode, asked)
		}
	}
}

func TestARefusalWithoutAnotherValueIsHandedOn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	for _, fail := range []bool{false, true} {
		f.vault.fail = fail
		answer, err := (&http.Client{Transport: f.keeper.Transport(nil)}).Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d, want 401", answer.StatusCode)
		}
	}
	if asked != 2 {
		t.Errorf("%d requests, want 2: nothing is repeated without another value", asked)
	}
}

func TestAPageToSignInIsARefusal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status   int
		location string
		want     bool
	}{{200, "", false}, {404, "", false}, {401, "", true}, {203, "", true},
		{302, "https://contoso/_signin?realm=x", true}, {302, "https://contoso/elsewhere", false}} {
		answer := &http.Response{StatusCode: tt.status, Header: http.Header{"Location": {tt.location}}}
		if got := keeper.Refused(answer); got != tt.want {
			t.Errorf("%d %s: refused %v, want %v", tt.status, tt.location, got, tt.want)
		}
	}
}
