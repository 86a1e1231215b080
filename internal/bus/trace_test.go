package bus_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestMessagesCarryTheTraceOfTheirSend(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "right")
		defer s.close(t)
		var mu sync.Mutex
		var recorded []string
		traced, err := bus.New(bus.Config{
			ConnectionString: "Endpoint=sb://bus.test;SharedAccessKeyName=key;SharedAccessKey=right;" +
				"UseDevelopmentEmulator=true",
			Queue: "pat-commands", Topic: "pat-events", VaultHost: "contoso.vault.azure.net",
			Options: azservicebus.ClientOptions{NewWebSocketConn: func(context.Context,
				azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
				near, far := net.Pipe()
				go s.azure.ServeConn(far)
				return near, nil
			}},
			Trace: func(ctx context.Context, destination string, _ int) (context.Context, bus.Trace) {
				return ctx, bus.Trace{Parent: parent, Done: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					recorded = append(recorded, destination)
					if err != nil {
						recorded = append(recorded, "failed")
					}
				}}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := traced.Send(t.Context(), rotation.Command{PAT: "a", Reason: rotation.Check},
			rotation.Command{PAT: "b", Reason: rotation.Check, At: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if err := traced.Publish(t.Context(), &rotation.SignedIn{Identity: "build-bot", User: "x@contoso.com",
			At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := traced.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for _, m := range s.sent {
			now, later, azure := m.Properties["traceparent"], m.Properties["tracelink"], m.Properties["Diagnostic-Id"]
			if m.SessionID == "b" {
				if now != nil || azure != nil || later != parent {
					t.Errorf("a scheduled command carries %v", m.Properties)
				}
				continue
			}
			if now != parent || azure != parent || later != nil {
				t.Errorf("%s carries %v", m.SessionID, m.Properties)
			}
			if m.SessionID == "build-bot" {
				if e, err := events.Decode(m.Body); err != nil || e.TraceParent != parent ||
					m.Properties["identity"] != "build-bot" {
					t.Errorf("event %+v, %v, with %v", e, err, m.Properties)
				}
			}
		}
		if len(s.sent) != 3 {
			t.Errorf("%d messages, want 3", len(s.sent))
		}
		if want := []string{"pat-commands", "pat-events"}; !slices.Equal(recorded, want) {
			t.Errorf("sends recorded to %q, want %q", recorded, want)
		}

		// Without anybody who records, there is no trace of it.
		if err := s.bus.Send(t.Context(), rotation.Command{PAT: "c", Reason: rotation.Check}); err != nil {
			t.Fatal(err)
		}
		if p := s.sent[len(s.sent)-1].Properties; len(p) != 0 {
			t.Errorf("an unrecorded command carries %v", p)
		}
	})
}

func TestASendThatFailsIsRecordedAsAFailure(t *testing.T) {
	t.Parallel()
	var failed error
	b, err := bus.New(bus.Config{ConnectionString: "Endpoint=nothing", Queue: "q", Topic: "t",
		Trace: func(ctx context.Context, _ string, _ int) (context.Context, bus.Trace) {
			return ctx, bus.Trace{Done: func(err error) { failed = errors.Join(failed, err) }}
		}})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.Send(t.Context(), rotation.Command{PAT: "a"}),
		b.Publish(t.Context(), &rotation.SignedIn{Identity: "i", User: "u", At: time.Now()})} {
		if err == nil || !errors.Is(failed, err) {
			t.Errorf("%v was recorded as %v", err, failed)
		}
	}
}
