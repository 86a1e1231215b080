// Package e2e_test runs the packaged app, as it would be deployed, on the local
// Azure: its process, its host.json and function.json files, its three triggers.
// Every test has a cloud of its own, and ends by searching all that the app put
// out for the tokens that this cloud has given out.
package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

const (
	functionKey = "function-key-of-the-tests"
	masterKey   = "master-key-of-the-tests"
	// timeout is how long a condition may take on a machine that is busy.
	timeout = 60 * time.Second
)

// packagedApp is the folder that make package assembles.
func packagedApp(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "dist", "app"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "handler")); err != nil {
		t.Fatalf("there is no packaged app in dist/app: run make package first")
	}
	return dir
}

// setup says how a fixture is set up.
type setup struct {
	manifest string // default: manifestTwo
	schedule string // CHECK_SCHEDULE; default: once a year
	settings func(map[string]string)
	cloud    func(*cloud.Config)
	// before runs on the cloud before the host starts.
	before func(*fixture)
}

const manifestTwo = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    displayName: Jenkins agents
    scopes: [vso.agentpools_manage, vso.build_execute]
  - name: nuget-feed
    identity: build-bot
    organization: contoso
    scopes: [vso.packaging]
    lifetime: 7d
    rotateBefore: 3d
    overlap: 2h
`

// fixture is one cloud with the app on it.
type fixture struct {
	t        *testing.T
	cloud    *cloud.Cloud
	host     *functionshost.Host
	base     string
	launcher *launcher
	client   *http.Client
	bus      *azservicebus.Client

	mu          sync.Mutex
	output      bytes.Buffer // all that the app and its host put out
	invocations []functionshost.Invocation
	events      []events.Event
	ids         []string // of the messages that carried events
}

// open sets a fixture up and starts the app; all of it ends with the test.
func open(t *testing.T, p setup) *fixture {
	t.Helper()
	app := packagedApp(t)
	if p.manifest == "" {
		p.manifest = manifestTwo
	}
	if p.schedule == "" {
		p.schedule = "0 0 0 1 1 *"
	}
	path := filepath.Join(t.TempDir(), "pats.yaml")
	if err := os.WriteFile(path, []byte(p.manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &fixture{t: t, base: "http://" + listener.Addr().String(), launcher: &launcher{},
		client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(s.client.CloseIdleConnections)

	config := cloud.Config{Manifest: path, CheckSchedule: p.schedule, PublicURL: s.base}
	if p.cloud != nil {
		p.cloud(&config)
	}
	s.cloud, err = cloud.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cloud.Close)
	if err := s.cloud.Seed(); err != nil {
		t.Fatal(err)
	}
	s.bus, err = s.cloud.BusClient()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.bus.Close(context.Background()) })
	s.subscribe()
	if p.before != nil {
		p.before(s)
	}

	c := s.cloud.Host(app)
	if p.settings != nil {
		p.settings(c.Settings)
	}
	c.Keys = functionshost.Keys{Host: functionKey, Master: masterKey}
	c.Launcher, c.Listener = s.launcher, listener
	c.Log = slog.New(slog.NewTextHandler(&hostLog{s: s}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.OnLine = func(l functionshost.Line) { s.record(l.Stream + ": " + l.Text + "\n") }
	c.OnInvocation = func(i functionshost.Invocation) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.invocations = append(s.invocations, i)
	}
	s.host, err = functionshost.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range s.host.Problems() {
		t.Errorf("the host reports a problem of the app: %s", problem)
	}
	if err := s.host.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.host.Close(); err != nil {
			t.Error(err)
		}
		s.search()
		if t.Failed() {
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Logf("what the app and its host put out:\n%s", s.output.String())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := s.host.WaitReady(ctx); err != nil {
		t.Fatalf("the handler does not become ready: %v", err)
	}
	return s
}

// hostLog is the host's log.
type hostLog struct{ s *fixture }

func (l *hostLog) Write(b []byte) (int, error) {
	l.s.record(string(b))
	return len(b), nil
}

func (s *fixture) record(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.output.WriteString(text)
}

// launcher starts the real process and can kill it.
type launcher struct {
	mu      sync.Mutex
	process functionshost.Process
	started int
}

func (l *launcher) Start(ctx context.Context, spec functionshost.Spec) (functionshost.Process, error) {
	p, err := functionshost.Exec{}.Start(ctx, spec)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.process = p
	l.started++
	return p, err
}

// kill ends the handler as SIGKILL does.
func (l *launcher) kill() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process.Kill()
}

// signal sends the handler a signal, which the host itself never does.
func (l *launcher) signal(sig os.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process.(interface{ Signal(os.Signal) error }).Signal(sig)
}

func (l *launcher) starts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

// subscribe collects the events as any other application would.
func (s *fixture) subscribe() {
	receiver, err := s.bus.NewReceiverForSubscription(cloud.EventTopic, cloud.EventSubscription, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	s.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	done.Go(func() {
		for {
			messages, err := receiver.ReceiveMessages(ctx, 50, nil)
			if err != nil {
				if ctx.Err() == nil {
					s.t.Errorf("receiving events: %v", err)
				}
				return
			}
			for _, m := range messages {
				s.collect(m)
				if err := receiver.CompleteMessage(ctx, m, nil); err != nil && ctx.Err() == nil {
					s.t.Errorf("completing an event: %v", err)
				}
			}
		}
	})
}

func (s *fixture) collect(m *azservicebus.ReceivedMessage) {
	e, err := events.Decode(m.Body)
	if err != nil {
		s.t.Errorf("message %q on the topic is not an event: %v", m.MessageID, err)
		return
	}
	for _, c := range []struct{ what, got, want string }{
		{"MessageId", m.MessageID, e.ID}, {"Subject", deref(m.Subject), e.Type}, {"SessionId", deref(m.SessionID),
			e.Subject},
		{"ContentType", deref(m.ContentType), "application/cloudevents+json"},
		{"property type", fmt.Sprint(m.ApplicationProperties["type"]), e.Type},
		{"property subject", fmt.Sprint(m.ApplicationProperties["subject"]), e.Subject},
		{"source", e.Source, "/patrol/" + s.cloud.VaultHost()},
	} {
		if c.got != c.want {
			s.t.Errorf("event %s: %s is %q, want %q", e.ID, c.what, c.got, c.want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	s.ids = append(s.ids, m.MessageID)
	s.output.WriteString("event: " + string(m.Body) + fmt.Sprint(m.ApplicationProperties) + "\n")
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// until waits for a condition.
func (s *fixture) until(what string, done func() bool) {
	s.t.Helper()
	s.within(timeout, what, done)
}

func (s *fixture) within(timeout time.Duration, what string, done func() bool) {
	s.t.Helper()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			s.t.Fatalf("after %v still not so: %s", timeout, what)
		}
	}
}

// versions are those of a secret, oldest first.
func (s *fixture) versions(name string) []keyvault.Version { return s.cloud.Vault.Versions(name) }

// settledAt reports whether a PAT has n versions, the last of them announced.
func (s *fixture) settledAt(name string, n int) bool {
	v := s.versions(name)
	return len(v) == n && v[n-1].Tags["patrol-announced-at"] != ""
}

// event returns the event of an id, once it has come.
func (s *fixture) event(id string) (events.Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.ID == id {
			return e, true
		}
	}
	return events.Event{}, false
}

// timesReceived counts the messages of one event.
func (s *fixture) timesReceived(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, got := range s.ids {
		if got == id {
			n++
		}
	}
	return n
}

// awaitEvent waits for an event and returns its data.
func awaitEvent[T any](s *fixture, id string) T {
	s.t.Helper()
	s.until("the event "+id+" has come", func() bool { _, ok := s.event(id); return ok })
	e, _ := s.event(id)
	d, ok := e.Data.(T)
	if !ok {
		s.t.Fatalf("event %s carries %T", id, e.Data)
	}
	return d
}

// failures returns the rotation-failed events.
func (s *fixture) failures() []events.RotationFailed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []events.RotationFailed
	for _, e := range s.events {
		if d, ok := e.Data.(events.RotationFailed); ok {
			out = append(out, d)
		}
	}
	return out
}

// awaitFailure waits for the event of a step's failure that says something.
func (s *fixture) awaitFailure(step, says string) events.RotationFailed {
	s.t.Helper()
	var found events.RotationFailed
	s.until(fmt.Sprintf("a failure of step %s that says %s has come", step, says), func() bool {
		failures := s.failures()
		i := slices.IndexFunc(failures, func(d events.RotationFailed) bool {
			return d.Step == step && strings.Contains(d.Message, says)
		})
		if i >= 0 {
			found = failures[i]
		}
		return i >= 0
	})
	return found
}

// pat finds a PAT by its authorization id.
func (s *fixture) pat(authorizationID string) devops.PAT {
	s.t.Helper()
	for _, p := range s.cloud.DevOps.PATs("", "") {
		if strings.EqualFold(p.AuthorizationID, authorizationID) {
			return p
		}
	}
	s.t.Fatalf("Azure DevOps has no PAT %s", authorizationID)
	return devops.PAT{}
}

// send puts a message on the command queue.
func (s *fixture) send(session, id string, body []byte) {
	s.t.Helper()
	sender, err := s.bus.NewSender(cloud.CommandQueue, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = sender.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m := &azservicebus.Message{Body: body, SessionID: &session, ContentType: ptr("application/json")}
	if id != "" {
		m.MessageID = &id
	}
	if err := sender.SendMessage(ctx, m, nil); err != nil {
		s.t.Fatalf("sending to %s: %v", cloud.CommandQueue, err)
	}
}

func ptr[T any](v T) *T { return &v }

// command is the body of a command, as anybody may write one.
func command(fields map[string]any) []byte {
	all := map[string]any{"command": "reconcile", "attempt": 0}
	maps.Copy(all, fields)
	body, err := json.Marshal(all)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return body
}

// answer is an HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("the answer (status %d) is not JSON: %s", a.status, a.body)
	}
	return v
}

// call requests a URL with the function key.
func (s *fixture) call(method, url string, body []byte) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-Functions-Key", functionKey)
	r.Header.Set("Content-Type", "application/json")
	got, err := s.client.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = got.Body.Close() }()
	b, err := io.ReadAll(got.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.record(fmt.Sprintf("answer: %d %v %s\n", got.StatusCode, got.Header, b))
	return answer{got.StatusCode, got.Header, b}
}

// api calls an HTTP function.
func (s *fixture) api(method, path string, body string) answer {
	s.t.Helper()
	return s.call(method, s.base+"/api/"+path, []byte(body))
}

// sweep runs the timer's function by hand.
func (s *fixture) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.host.Invoke(ctx, "CheckExpiry", "")
}

// finished returns the finished runs of a function.
func (s *fixture) finished(function string) []functionshost.Invocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.invocations),
		func(i functionshost.Invocation) bool { return i.Function != function })
}

// awaitIdle waits until the app has worked on every message that was due, and Key
// Vault has sent its event of every version.
func (s *fixture) awaitIdle() {
	s.t.Helper()
	s.until("every message has been worked on", func() bool {
		versions := map[string]bool{}
		for _, r := range s.cloud.History() {
			if r.Kind == cloud.Secret {
				versions[r.Secret.ID] = true
			}
		}
		if len(s.cloud.Messages(cloud.VaultEventQueue)) < len(versions) {
			return false
		}
		for queue, function := range map[string]string{cloud.CommandQueue: "Reconcile",
			cloud.VaultEventQueue: "VaultEvent"} {
			due := 0
			for _, m := range s.cloud.Messages(queue) {
				if m.Scheduled.Before(time.Now()) {
					due++
				}
			}
			if len(s.finished(function)) < due {
				return false
			}
		}
		return true
	})
}

// rotationID names a rotation: ten characters of base32 of SHA-256 over the PAT's name,
// a newline and the version that is replaced.
func rotationID(pat, version string) string {
	sum := sha256.Sum256([]byte(pat + "\n" + version))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:10]
}

// search looks for tokens in all that the app put out: its lines, the host's log,
// HTTP answers, events, messages on the queues, and tags.
func (s *fixture) search() {
	s.mu.Lock()
	out := s.output.String()
	s.mu.Unlock()
	var more strings.Builder
	for _, r := range s.cloud.History() {
		switch r.Kind {
		case cloud.Message:
			fmt.Fprintf(&more, "message on %s: %s %s %s %v %s\n", r.Message.Entity, r.Message.ID, r.Message.SessionID,
				r.Message.Subject, r.Message.Properties, r.Message.Body)
		case cloud.Secret:
			fmt.Fprintf(&more, "secret %s: %s %v\n", r.Secret.Name, r.Secret.ContentType, r.Secret.Tags)
		case cloud.PAT:
			fmt.Fprintf(&more, "PAT: %s\n", r.PAT.PAT.DisplayName)
		}
	}
	out += more.String()
	for _, found := range leaks(out, s.cloud.Tokens()) {
		s.t.Errorf("a token is in the output: %s", found)
	}
}

// leaks finds tokens in a text, whole or in part, plain or encoded. What it
// returns says where, not what.
func leaks(text string, tokens []string) []string {
	var found []string
	for i, token := range tokens {
		for form, want := range map[string]string{
			"plain": token, "its beginning": token[:len(token)/2], "its end": token[len(token)/2:],
			"base64":    base64.StdEncoding.EncodeToString([]byte(token)),
			"basic":     base64.StdEncoding.EncodeToString([]byte(":" + token)),
			"base64url": base64.RawURLEncoding.EncodeToString([]byte(token)), "escaped": url.QueryEscape(token),
		} {
			at := strings.Index(text, want)
			if at < 0 {
				continue
			}
			line := text[strings.LastIndexByte(text[:at], '\n')+1 : at]
			found = append(found, fmt.Sprintf("number %d, %s, after %q", i, form, line[:min(len(line), 200)]))
		}
	}
	return found
}
