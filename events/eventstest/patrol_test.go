package eventstest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/events/eventstest"
)

// A consumer's whole life with two PATs, as a test of its own would tell it.
func Example() {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	patrol := eventstest.New(eventstest.Config{Now: func() time.Time { return now }, Overlap: time.Hour})
	var held string
	consumer := events.Subscriber{OnRotated: func(_ context.Context, _ events.Event, d events.Rotated) error {
		value, version, _ := patrol.Secret(d.PAT)
		held = value
		c := events.Confirmed{PAT: d.PAT, SecretVersion: version, Consumer: "my-service",
			Outcome: events.OutcomeSwitched}
		body, err := events.Encode(events.NewConfirmed(now, c.Prove([]byte(value))))
		if err != nil {
			return err
		}
		return patrol.Confirm(body)
	}}
	for range 2 {
		message := patrol.Rotate("nuget-feed")
		if err := consumer.Handle(context.Background(), message.Body); err != nil {
			fmt.Println(err)
		}
		now = now.Add(2 * time.Hour)
	}
	fmt.Println(patrol.Works(held), patrol.Switched("nuget-feed"))
	// Output: true [my-service]
}

func TestAReplacedPATWorksUntilItIsEnded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	p := eventstest.New(eventstest.Config{Now: func() time.Time { return now }, Overlap: time.Hour})
	p.Rotate("feed")
	first, _, _ := p.Secret("feed")
	if _, ok := p.Revoke("feed"); ok {
		t.Error("the only PAT was ended")
	}
	p.Rotate("feed")
	if !p.Works(first) {
		t.Error("the replaced PAT does not work in its overlap")
	}
	m, ok := p.Revoke("feed")
	if !ok || m.Subject != events.TypeRevoked {
		t.Errorf("the replaced PAT's end is told by %q, %v; want %q", m.Subject, ok, events.TypeRevoked)
	}
	if p.Works(first) {
		t.Error("an ended PAT works")
	}
	second, _, _ := p.Secret("feed")
	p.Rotate("feed")
	now = now.Add(time.Hour)
	if p.Works(second) {
		t.Error("a replaced PAT works after its overlap")
	}
}

func TestMessagesAreLikePatrols(t *testing.T) {
	t.Parallel()
	p := eventstest.New(eventstest.Config{})
	m := p.Rotate("feed")
	e, err := events.Decode(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{m.ID, m.SessionID, m.Subject, m.ContentType, fmt.Sprint(m.Properties["organization"])}
	want := []string{e.ID, "feed", events.TypeRotated, events.ContentType, "contoso"}
	if !slices.Equal(got, want) {
		t.Errorf("message %q, want %q", got, want)
	}
}

func TestOnlyAProvedConfirmationCounts(t *testing.T) {
	t.Parallel()
	p := eventstest.New(eventstest.Config{})
	p.Rotate("feed")
	value, version, _ := p.Secret("feed")
	c := events.Confirmed{PAT: "feed", SecretVersion: version, Consumer: "c", Outcome: events.OutcomeSwitched}
	for _, tt := range []struct {
		name string
		c    events.Confirmed
		is   error
	}{
		{"forged", c.Prove([]byte("another value")), eventstest.ErrProof},
		{"right", c.Prove([]byte(value)), nil},
		{"again", c.Prove([]byte(value)), nil},
	} {
		body, err := events.Encode(events.NewConfirmed(time.Now(), tt.c))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Confirm(body); !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.is)
		}
	}
	if got, want := p.Switched("feed"), []string{"c"}; !slices.Equal(got, want) {
		t.Errorf("switched %q, want %q", got, want)
	}
	if err := p.Confirm([]byte("{}")); !errors.Is(err, events.ErrMalformed) {
		t.Errorf("no confirmation: error %v, want ErrMalformed", err)
	}
}

func TestADeadPATIsAnsweredLikeAzureDevOpsDoes(t *testing.T) {
	t.Parallel()
	p := eventstest.New(eventstest.Config{})
	server := httptest.NewServer(p)
	defer server.Close()
	p.Rotate("feed")
	value, _, _ := p.Secret("feed")
	for _, tt := range []struct {
		name, password, header string
		follow                 bool
		want                   int
	}{
		{"a PAT that works", value, "", false, 200},
		{"a dead one", "dead", "", false, 302},
		{"a dead one, and the redirect is followed", "dead", "", true, 203},
		{"a dead one, by who suppresses redirects", "dead", "Suppress", false, 401},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/contoso/_apis/projects", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("", tt.password)
		r.Header.Set("X-TFS-FedAuthRedirect", tt.header)
		client := http.Client{}
		if !tt.follow {
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, answer.StatusCode, tt.want)
		}
	}
}
