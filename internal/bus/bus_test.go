package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/internal/bus"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/faults"
	azure "github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

// fixture is the real SDK against the sandbox's Service Bus, in a bubble.
type fixture struct {
	bus   *bus.Bus
	azure *azure.Bus
	panel faults.Injector
	mu    sync.Mutex
	sent  []azure.Message
}

func open(t *testing.T, key string) *fixture {
	t.Helper()
	s := &fixture{}
	var err error
	s.azure, err = azure.New(azure.Config{
		Entities: broker.Entities{
			Queues: []broker.Queue{{Name: "pat-commands", Properties: broker.Properties{RequiresSession: true,
				RequiresDuplicateDetection: true}}},
			Topics: []broker.Topic{{Name: "pat-events", Subscriptions: []broker.Subscription{{Name: "all"}}}},
		},
		KeyName: "key", Key: "right", Injector: &s.panel,
		OnSend: func(_ string, m azure.Message) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sent = append(s.sent, m)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.bus, err = bus.New(bus.Config{
		ConnectionString: "Endpoint=sb://bus.test;SharedAccessKeyName=key;SharedAccessKey=" + key +
			";UseDevelopmentEmulator=true",
		Queue: "pat-commands", Topic: "pat-events", VaultHost: "contoso.vault.azure.net",
		Options: azservicebus.ClientOptions{NewWebSocketConn: func(context.Context, azservicebus.NewWebSocketConnArgs) (
			net.Conn, error) {
			near, far := net.Pipe()
			go s.azure.ServeConn(far)
			return near, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *fixture) close(t *testing.T) {
	t.Helper()
	if err := s.bus.Close(t.Context()); err != nil {
		t.Error(err)
	}
	s.azure.Close()
}

func TestCommandsGoInOneBatchAndALaterOneIsScheduled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "right")
		defer s.close(t)
		later := time.Now().Add(2 * time.Hour).UTC()
		cs := []rotation.Command{
			{PAT: "a", Reason: rotation.Expiring, From: "x", RevokePrevious: rotation.AfterOverlap, Operation: "op"},
			{PAT: "b", Reason: rotation.Check, Operation: "op"},
			{PAT: "c", Reason: rotation.Check, Operation: "op", At: later},
			{PAT: "d", Reason: rotation.Check, RevokePrevious: rotation.AfterOverlap, Operation: "op",
				Since: time.Now().UTC(), Prove: true,
				Accepted: rotation.MassChange{PATs: 12, Until: later.In(time.FixedZone("CET", 3600))}},
		}
		// A repeat is dropped by the queue.
		for range 2 {
			if err := s.bus.Send(t.Context(), cs...); err != nil {
				t.Fatal(err)
			}
		}
		if c := s.azure.Counts("pat-commands"); c.Active != 3 || c.Scheduled != 1 {
			t.Errorf("the queue holds %+v", c)
		}
		if n := s.panel.Count("servicebus", "send pat-commands"); n != 2 {
			t.Errorf("%d sends for two times two commands", n)
		}
		i := slices.IndexFunc(s.sent, func(m azure.Message) bool { return m.SessionID == "a" })
		if m := s.sent[i]; m.ID != "a/expiring/x/0/op" || m.ContentType != "application/json" ||
			m.Subject != "reconcile" {
			t.Errorf("message %+v", m)
		}
		got, err := bus.DecodeCommand(s.sent[i].Body)
		if err != nil || got != cs[0] {
			t.Errorf("read back %+v, %v; want %+v", got, err, cs[0])
		}
		if i := slices.IndexFunc(s.sent, func(m azure.Message) bool { return m.SessionID == "b" }); string(
			s.sent[i].Body) != `{"command":"reconcile","pat":"b","reason":"look","attempt":0,"operation":"op"}` {
			t.Errorf("a command without more says %s", s.sent[i].Body)
		}
		i = slices.IndexFunc(s.sent, func(m azure.Message) bool { return m.SessionID == "d" })
		got, err = bus.DecodeCommand(s.sent[i].Body)
		want := cs[3]
		want.Accepted.Until = later
		if err != nil || got != want {
			t.Errorf("read back %+v, %v; want %+v", got, err, want)
		}
		if i := slices.IndexFunc(s.sent,
			func(m azure.Message) bool { return m.SessionID == "c" }); !s.sent[i].Scheduled.Equal(later) {
			t.Errorf("scheduled for %s, want %s", s.sent[i].Scheduled, later)
		}
	})
}

func TestEachEventCarriesItsIDAndProperties(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	spec := rotation.Spec{Name: "jenkins-agents", Identity: "build-bot", Organization: "contoso",
		DisplayName: "Jenkins agents", Scopes: []string{"vso.code"}}
	trouble := rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: "build-bot", Organization: "contoso",
		Code: rotation.ValuesRefused}
	for _, tc := range []struct {
		event                  rotation.Event
		id, kind, subject      string
		organization, identity string
	}{
		{&rotation.Rotated{Spec: spec, RotationID: "r1", Reason: rotation.Expiring,
			SecretID: "https://v/secrets/jenkins-agents/1", SecretVersion: "1", AuthorizationID: "a1",
			ValidFrom: now, ValidTo: now.Add(time.Hour), Previous: &rotation.Replaced{Version: "0",
				AuthorizationID: "a0", RevokeAt: now}, At: now},
			"r1/a1/rotated", events.TypeRotated, "jenkins-agents", "contoso", "build-bot"},
		{&rotation.Revoked{Spec: spec, RotationID: "r1", AuthorizationID: "a0", SecretVersion: "0",
			Cause: rotation.OverlapEnded, At: now},
			"r1/revoked/a0", events.TypeRevoked, "jenkins-agents", "contoso", "build-bot"},
		{&rotation.RotationFailed{Spec: spec, RotationID: "r1", Step: "create", Class: rotation.Policy, Code: "x",
			Message: "y", Attempt: 3, At: now},
			"r1/failed/create/x/20781", events.TypeRotationFailed, "jenkins-agents", "contoso", "build-bot"},
		{&rotation.RotationFailed{Spec: spec, RotationID: "r1", Step: rotation.StepReceive,
			Mark: rotation.MessageMark{Queue: "pat-commands", SequenceNumber: 4711}, Class: rotation.Configuration,
			Code: rotation.NotACommand, Message: "y", At: now},
			"pat-commands/4711/failed", events.TypeRotationFailed, "jenkins-agents", "contoso", "build-bot"},
		{&rotation.ExpiringPAT{Owner: spec.Owner(), PAT: rotation.PAT{AuthorizationID: "a9", DisplayName: "own",
			ValidTo: now}, Days: 7, At: now},
			"a9/expiring/7", events.TypeExpiring, "a9", "contoso", "build-bot"},
		{&rotation.SignedIn{Identity: "build-bot", User: "build-bot@contoso.com", At: now},
			"build-bot/signed-in/1795507200", events.TypeSignedIn, "build-bot", "", "build-bot"},
		{&rotation.SignInRequired{Identity: "build-bot", User: "build-bot@contoso.com", Code: "AADSTS700082",
			SignInURL: "https://x/signin", At: now},
			"build-bot/sign-in-required/1795507200", events.TypeSignInRequired, "build-bot", "", "build-bot"},
		{&rotation.SignInExpiring{Identity: "build-bot", User: "build-bot@contoso.com", Code: "inactivity",
			SignInURL: "https://x/signin", Until: now, At: now},
			"build-bot/sign-in-expiring/1795507200", events.TypeSignInExpiring, "build-bot", "", "build-bot"},
		{&rotation.CheckIncomplete{Trouble: trouble, Class: rotation.Policy, Since: now, At: now},
			"organization/build-bot/contoso/values-refused/1795507200/20781", events.TypeCheckIncomplete,
			"organization", "contoso", "build-bot"},
		{&rotation.CheckRecovered{Trouble: trouble, Since: now, At: now},
			"organization/build-bot/contoso/values-refused/1795507200/recovered", events.TypeCheckRecovered,
			"organization", "contoso", "build-bot"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := open(t, "right")
				defer s.close(t)
				if err := s.bus.Publish(t.Context(), tc.event); err != nil {
					t.Fatal(err)
				}
				m := s.sent[0]
				e, err := events.Decode(m.Body)
				if err != nil {
					t.Fatal(err)
				}
				text := func(key string) string { v, _ := m.Properties[key].(string); return v }
				got := []string{m.ID, e.ID, m.Subject, e.Type, text("type"), m.SessionID, e.Subject, text("subject"),
					text("organization"), text("identity"), e.Source, m.ContentType}
				want := []string{tc.id, tc.id, tc.kind, tc.kind, tc.kind, tc.subject, tc.subject, tc.subject,
					tc.organization, tc.identity, "/patrol/contoso.vault.azure.net", events.ContentType}
				if !slices.Equal(got, want) {
					t.Errorf("got  %q\nwant %q", got, want)
				}
				if !json.Valid(m.Body) {
					t.Error("the body is no JSON")
				}
			})
		})
	}
}

// What the domain knows reaches subscribers, field by field.
func TestTheDataOfAnEventSaysWhatTheDomainSays(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	cet := time.FixedZone("CET", 3600)
	spec := rotation.Spec{Name: "jenkins-agents", Identity: "build-bot", Organization: "contoso"}
	trouble := rotation.Trouble{Scope: rotation.ScopeOrganization, Identity: "build-bot", Organization: "contoso",
		Code: rotation.ValuesRefused}
	retry, end := now.Add(15*time.Minute), now.Add(48*time.Hour)
	for _, tc := range []struct {
		name  string
		event rotation.Event
		want  any
	}{
		{"a failure that is tried again", &rotation.RotationFailed{Spec: spec, RotationID: "r1",
			Step: rotation.StepStore, Class: rotation.Transient, Code: "x", Message: "y", RetryAt: retry.In(cet),
			ValidTo: end.In(cet), At: now},
			events.RotationFailed{PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot",
				RotationID: "r1", Step: "store", Class: "transient", Code: "x", Message: "y", RetryAt: &retry,
				ValidTo: &end}},
		{"a failure that is not", &rotation.RotationFailed{Spec: spec, RotationID: "r1", Step: rotation.StepStore,
			Class: rotation.Policy, At: now},
			events.RotationFailed{PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot",
				RotationID: "r1", Step: "store", Class: "policy"}},
		{"a message's failure", &rotation.RotationFailed{Spec: spec, RotationID: "r1", Step: rotation.StepDeadLetter,
			Mark: rotation.MessageMark{Queue: "pat-commands", SequenceNumber: 1}, Class: rotation.Transient,
			Code: "TTLExpiredException", At: now},
			events.RotationFailed{PAT: "jenkins-agents", Organization: "contoso", Identity: "build-bot",
				Step: "dead-letter", Class: "transient", Code: "TTLExpiredException"}},
		{"a trouble", &rotation.CheckIncomplete{Trouble: trouble, Class: rotation.Policy, Message: "y",
			Since: now.Add(-time.Hour).In(cet), PATs: 12, NextEnd: end.In(cet), At: now},
			events.CheckIncomplete{Scope: "organization", Identity: "build-bot", Organization: "contoso",
				Class: "policy", Code: "values-refused", Message: "y", Since: now.Add(-time.Hour), PATs: 12,
				NextEnd: &end}},
		{"a trouble whose PATs are not known", &rotation.CheckIncomplete{Trouble: trouble, Class: rotation.Policy,
			Since: now, At: now},
			events.CheckIncomplete{Scope: "organization", Identity: "build-bot", Organization: "contoso",
				Class: "policy", Code: "values-refused", Since: now}},
		{"a trouble that is over", &rotation.CheckRecovered{Trouble: trouble,
			Since: now.Add(-90*time.Minute - time.Millisecond).In(cet), PATs: 12, NextEnd: end.In(cet), At: now},
			events.CheckRecovered{Scope: "organization", Identity: "build-bot", Organization: "contoso",
				Code: "values-refused", Since: now.Add(-90*time.Minute - time.Millisecond), PATs: 12, NextEnd: &end,
				Lasted: 5400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := open(t, "right")
				defer s.close(t)
				if err := s.bus.Publish(t.Context(), tc.event); err != nil {
					t.Fatal(err)
				}
				e, err := events.Decode(s.sent[0].Body)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(e.Data, tc.want) {
					t.Errorf("got  %+v\nwant %+v", e.Data, tc.want)
				}
				if !e.Time.Equal(now) {
					t.Errorf("time %s, want %s", e.Time, now)
				}
			})
		})
	}
}

func TestAFailureToSendHasAClassAndNoSecret(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, key string
		fault     *faults.Fault
		class     rotation.Class
		want      string
	}{
		{"no role", "wr0ng-c4n4ry", nil, rotation.Configuration, "Azure Service Bus Data Sender"},
		{"busy past the SDK's retries", "right", &faults.Fault{Service: "servicebus", Times: -1, Mode: faults.Status,
			Status: 503}, rotation.Transient, "failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := open(t, tc.key)
				defer s.close(t)
				if tc.fault != nil {
					if err := s.panel.Inject(*tc.fault); err != nil {
						t.Fatal(err)
					}
				}
				err := s.bus.Send(t.Context(), rotation.Command{PAT: "a", Reason: rotation.Check})
				e, ok := errors.AsType[*rotation.Error](err)
				if !ok {
					t.Fatalf("error %v has no class", err)
				}
				if e.Class != tc.class {
					t.Errorf("class %s, want %s", e.Class, tc.class)
				}
				if !strings.Contains(e.Message, tc.want) {
					t.Errorf("message %q does not say %q", e.Message, tc.want)
				}
				if strings.Contains(err.Error(), "c4n4ry") {
					t.Errorf("the error holds the key: %v", err)
				}
				if e.Err != nil {
					t.Errorf("the error carries the SDK's %T on: %v", e.Err, e.Err)
				}
				if e.Service != rotation.ServiceBus {
					t.Errorf("the error is %q's, want %s's", e.Service, rotation.ServiceBus)
				}
			})
		})
	}
}

func TestABusWantsToKnowWhereToSend(t *testing.T) {
	t.Parallel()
	for _, c := range []bus.Config{{}, {Queue: "q", Topic: "t"}, {Queue: "q", Topic: "t", Namespace: "x"},
		{ConnectionString: "x", Topic: "t"}} {
		if _, err := bus.New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	b, err := bus.New(bus.Config{Queue: "q", Topic: "t", ConnectionString: "Endpoint=c4n4ry"})
	if err != nil {
		t.Fatal(err)
	}
	err = b.Send(t.Context(), rotation.Command{PAT: "a"})
	if rotation.ClassOf(err) != rotation.Configuration || strings.Contains(err.Error(), "c4n4ry") {
		t.Fatalf("a broken connection string gives %v", err)
	}
	if e := rotation.AsError(err); e.Service != rotation.ServiceBus {
		t.Errorf("the error is %q's, want %s's", e.Service, rotation.ServiceBus)
	}
}
