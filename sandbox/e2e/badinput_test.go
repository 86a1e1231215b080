package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// left counts the messages of a queue that are due, locked ones included, and those
// in its dead-letter queue.
func (s *fixture) left(queue string) (due, dead int) {
	n := s.cloud.Bus.Counts(queue)
	return n.Active, n.DeadLetter
}

// drained reports whether nothing is left in a queue, nor in its dead-letter queue.
func (s *fixture) drained(queue string) bool {
	due, dead := s.left(queue)
	return due == 0 && dead == 0
}

// Everything on the command queue that is not a command is answered by an event, and
// taken off the queue.
func TestMessagesThatAreNotCommandsAreRefusedByAnEvent(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	for i, body := range []string{
		"", "not json", `"a string"`, `[1,2]`, `{}`, `{"command":"reconcile"}`,
		`{"command":"revoke-everything","pat":"jenkins-agents"}`,
		`{"command":"reconcile","pat":"jenkins-agents","reason":"because"}`,
		`{"command":"reconcile","pat":"jenkins-agents","attempt":-1}`,
		`{"command":"reconcile","pat":["jenkins-agents"]}`,
		`{"command":"reconcile","pat":"jenkins-agents"}{"command":"reconcile","pat":"jenkins-agents"}`,
		"\x00\xff\xfe binary", "\xef\xbb\xbf{}",
		strings.Repeat("[", 20000),
		`{"command":"reconcile","pat":"` + strings.Repeat("x", 70<<10) + `"}`,
		// What imitates the host's own fields is content, and nothing else.
		`{"Data":{"message":"eyJjb21tYW5kIjoicmVjb25jaWxlIn0="},"Metadata":{"MessageId":"forged",` +
			`"SessionId":"nuget-feed","sys":{"MethodName":"CheckExpiry"}},"MessageId":"forged"}`,
	} {
		id := fmt.Sprintf("bad-%d", i)
		s.send("jenkins-agents", id, []byte(body))
		d := s.awaitFailure("receive", strconv.Quote(id))
		if got := d.PAT + " " + d.Code + " " + d.Class; got != "jenkins-agents not-a-command configuration" {
			t.Errorf("body %d: the event says %q, want jenkins-agents not-a-command configuration", i, got)
		}
	}
	s.until("the queue is empty", func() bool { return s.drained(cloud.CommandQueue) })
	if n := len(s.cloud.DevOps.PATs("", "")); n != 0 {
		t.Errorf("bad messages made %d PATs", n)
	}
	if n := s.launcher.starts(); n != 1 {
		t.Errorf("the handler was started %d times", n)
	}
	// Good ones still work.
	s.send("jenkins-agents", "good", command(map[string]any{"pat": "jenkins-agents", "reason": "look"}))
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })
}

func TestACommandForAnUnmanagedPATIsPutOff(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	// Another instance may have a newer manifest: for a day the command comes back.
	s.send("somebody-elses", "c1", command(map[string]any{"pat": "somebody-elses", "reason": "requested", "from": "x"}))
	s.until("the command is put off", func() bool { return s.cloud.Bus.Counts(cloud.CommandQueue).Scheduled == 1 })
	if n := len(s.failures()); n != 0 {
		t.Errorf("%d events of failure within the day, want none", n)
	}

	// In another PAT's session, where it would not be alone at work: sent on.
	s.send("another-session", "c2", command(map[string]any{"pat": "jenkins-agents", "reason": "look"}))
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })
	if n := len(s.failures()); n != 0 {
		t.Errorf("%d events of failure, want none", n)
	}
}

// Messages that are not hints are dropped: the queue's retries would not make them better.
func TestMessagesThatAreNotVaultEventsAreDropped(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	sender, err := s.bus.NewSender(cloud.VaultEventQueue, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	bodies := []string{"", "no json", "[]", `{"specversion":"1.0"}`, `[{"type":"Microsoft.KeyVault.SecretExpired"}]`,
		"\xff\xff",
		`{"type":"Microsoft.KeyVault.SecretNearExpiry","subject":"unmanaged",` +
			`"data":{"ObjectName":"unmanaged","Version":"1"}}`,
		`{"type":"Microsoft.KeyVault.SecretNearExpiry","subject":"jenkins-agents",` +
			`"data":{"ObjectName":"jenkins-agents","Version":"../../etc"}}`,
	}
	s.awaitIdle() // the event of the sign-in has come
	before := len(s.finished("VaultEvent"))
	for i, body := range bodies {
		if err := sender.SendMessage(ctx, &azservicebus.Message{Body: []byte(body),
			MessageID: ptr(fmt.Sprintf("hint-%d", i))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.until("all of them are taken off", func() bool {
		return len(s.finished("VaultEvent")) >= before+len(bodies) && s.drained(cloud.VaultEventQueue)
	})
	for _, run := range s.finished("VaultEvent") {
		if run.Err != nil {
			t.Errorf("a run failed: %v", run.Err)
		}
	}
}

// What the host has given up on is announced by an event.
func TestADeadLetterBecomesAnEvent(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne, before: func(s *fixture) {
		s.send("jenkins-agents", "dead-1", command(map[string]any{"pat": "jenkins-agents", "reason": "look"}))
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		r, err := s.bus.AcceptSessionForQueue(ctx, cloud.CommandQueue, "jenkins-agents", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		defer func() { _ = r.Close(context.Background()) }()
		messages, err := r.ReceiveMessages(ctx, 1, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if err := r.DeadLetterMessage(ctx, messages[0],
			&azservicebus.DeadLetterOptions{Reason: ptr("MaxDeliveryCountExceeded")}); err != nil {
			s.t.Fatal(err)
		}
	}})
	d := s.awaitFailure("dead-letter", "")
	if d.PAT != "jenkins-agents" || d.Code != "MaxDeliveryCountExceeded" {
		t.Errorf("event %+v", d)
	}
	s.until("the dead-letter queue is empty", func() bool { return s.drained(cloud.CommandQueue) })
}

// Answers over HTTP: what is wrong, as problem details, and nothing happens.
func TestTheAPIRefusesBadRequestsClearly(t *testing.T) {
	t.Parallel()
	s := open(t, setup{manifest: manifestOne})
	problem := func(a answer, status int, kind string) {
		t.Helper()
		if a.status != status {
			t.Errorf("status %d, want %d: %s", a.status, status, a.body)
		}
		if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "application/problem+json") {
			t.Errorf("content type %q, want application/problem+json", got)
		}
		body := a.json(t)
		if want := "urn:patrol:problem:" + kind; body["type"] != want {
			t.Errorf("type %v, want %s", body["type"], want)
		}
		if body["status"] != float64(status) {
			t.Errorf("the body's status is %v, want %d", body["status"], status)
		}
		if body["title"] == "" {
			t.Errorf("no title: %s", a.body)
		}
	}
	problem(s.api(http.MethodGet, "pats/nobody", ""), 404, "unknown-pat")
	problem(s.api(http.MethodPost, "pats/nobody/rotate", ""), 404, "unknown-pat")
	problem(s.api(http.MethodPost, "pats/jenkins-agents/rotate", "no json"), 400, "bad-request")
	problem(s.api(http.MethodPost, "pats/jenkins-agents/rotate", `{"revokePrevious":"never"}`), 400, "bad-request")
	problem(s.api(http.MethodPost, "pats/jenkins-agents/rotate", `{"why":"x"}`), 400, "bad-request")
	problem(s.api(http.MethodPost, "pats/jenkins-agents/rotate", `{"reason":"`+strings.Repeat("x", 64<<10)+`"}`), 413,
		"too-large")

	// Without a key: the host answers, and the app is not called.
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.base+"/api/pats", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Body.Close()
	if got.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: status %d", got.StatusCode)
	}
	if a := s.api(http.MethodGet, "health", ""); a.status != 200 || a.json(t)["status"] != "ok" {
		t.Errorf("health: %d %s", a.status, a.body)
	}
	if n := len(s.cloud.Messages(cloud.CommandQueue)); n != 0 {
		t.Errorf("bad requests sent %d commands", n)
	}

	// Past the host, into the process: what no host sends.
	handler := "http://" + s.host.HandlerAddr()
	a := s.call(http.MethodPost, handler+"/NoSuchFunction", []byte(`{"Data":{},"Metadata":{}}`))
	if a.status != 404 || len(a.body) == 0 {
		t.Errorf("an unknown function: answered %d with %d bytes", a.status, len(a.body))
	}
	for _, body := range []string{"", "{", "[]", "null", "7", `{"Data":[]}`, `{"Data":{},"Metadata":{}}`, "\xff"} {
		if a := s.call(http.MethodPost, handler+"/Reconcile", []byte(body)); a.status < 400 || len(a.body) == 0 {
			t.Errorf("envelope %q: answered %d with %d bytes", body, a.status, len(a.body))
		}
	}
	// An envelope whose message is a number: refused by an event, as any other body.
	a = s.call(http.MethodPost, handler+"/Reconcile", []byte(`{"Data":{"message":7},"Metadata":{}}`))
	if a.status != 200 || len(a.body) == 0 {
		t.Errorf("a message that is a number: answered %d with %d bytes", a.status, len(a.body))
	}
	s.until("that message is reported", func() bool { return len(s.failures()) == 1 })
	if n := s.launcher.starts(); n != 1 {
		t.Errorf("the handler was started %d times", n)
	}
	if err := s.sweep(); err != nil {
		t.Errorf("after all that the sweep fails: %v", err)
	}
	s.until("the PAT is provisioned", func() bool { return s.settledAt("jenkins-agents", 1) })
}

// checkReportedEverywhere asserts that an app that is not configured says so to everybody,
// stays up, and keeps its messages.
func (s *fixture) checkReportedEverywhere(report ...string) {
	s.t.Helper()
	for _, route := range []string{"GET pats", "GET pats/jenkins-agents", "POST pats/jenkins-agents/rotate",
		"POST check", "GET status"} {
		method, path, _ := strings.Cut(route, " ")
		a := s.api(method, path, "")
		if a.status != http.StatusServiceUnavailable || a.json(s.t)["type"] != "urn:patrol:problem:configuration" {
			s.t.Errorf("%s answers %d: %s", route, a.status, a.body)
		}
		for _, want := range report {
			if !strings.Contains(string(a.body), want) {
				s.t.Errorf("%s does not say %q: %s", route, want, a.body)
			}
		}
	}
	health := s.api(http.MethodGet, "health", "")
	if health.status != http.StatusServiceUnavailable {
		s.t.Errorf("health answers %d, want 503", health.status)
	}
	if want := map[string]any{"status": "configuration"}; !maps.Equal(health.json(s.t), want) {
		s.t.Errorf("health answers %s, want %v alone", health.body, want)
	}
	if err := s.sweep(); err == nil || !strings.Contains(err.Error(), "500") {
		s.t.Errorf("the timer's run: %v, want the host to see a 500", err)
	}
	// A message is held for 20 seconds, then refused, and stays.
	s.until("the message has been refused once", func() bool {
		return slices.ContainsFunc(s.finished("Reconcile"),
			func(i functionshost.Invocation) bool { return i.Err != nil })
	})
	if run := s.finished("Reconcile")[0]; run.Duration < 19*time.Second {
		s.t.Errorf("the message was held for %v, want 20 s", run.Duration)
	}
	if due, dead := s.left(cloud.CommandQueue); due != 1 || dead != 0 {
		s.t.Errorf("on the queue: %d messages, %d dead letters; want the one that was sent", due, dead)
	}
	if n := s.launcher.starts(); n != 1 {
		s.t.Errorf("the handler was started %d times", n)
	}
}

func sendCommand(s *fixture) {
	s.send("jenkins-agents", "kept", command(map[string]any{"pat": "jenkins-agents", "reason": "look"}))
}

func TestABrokenManifestIsReportedEverywhere(t *testing.T) {
	t.Parallel()
	s := open(t, setup{before: sendCommand, manifest: `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: nobody
    organization: contoso
    scopes: [vso.build_execute]
    liftime: 30d
`})
	s.checkReportedEverywhere("pats.yaml:7:15", "pats.yaml:10:5", "liftime")
}

func TestMissingSettingsAreReportedEverywhere(t *testing.T) {
	t.Parallel()
	s := open(t, setup{before: sendCommand, settings: func(env map[string]string) {
		delete(env, "KEY_VAULT_URL")
		delete(env, "ENTRA_TENANT_ID")
		env["AZURE_DEVOPS_URL"] = "ftp://example.com"
	}})
	s.checkReportedEverywhere("KEY_VAULT_URL", "ENTRA_TENANT_ID", "AZURE_DEVOPS_URL")
}
