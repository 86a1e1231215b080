package infra_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/memnet"
	"github.com/azure-patrol/patrol/sandbox/scale"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

var (
	compiled     *deployment
	compiledOnce sync.Once
)

// theTemplates are the real ones, compiled once.
func theTemplates(t *testing.T) *deployment {
	t.Helper()
	compiler(t)
	compiledOnce.Do(func() {
		compiled = compile(t, copyTree(t), "template", "plain", "full", "landing")
		compiled.dir = "."
	})
	if compiled == nil {
		t.Fatal("the templates could not be compiled; see the first test that says so")
	}
	return compiled
}

// entitiesOf gives the namespace of a deployment in the form of the emulator's file.
func entitiesOf(t *testing.T, rs []predicted) []byte {
	t.Helper()
	type entity struct {
		Name          string         `json:"Name"`
		Properties    map[string]any `json:"Properties"`
		Subscriptions []entity       `json:"Subscriptions,omitempty"`
	}
	known := []string{"lockDuration", "maxDeliveryCount", "requiresDuplicateDetection", "requiresSession",
		"duplicateDetectionHistoryTimeWindow"}
	of := func(r predicted) entity {
		e := entity{Name: r.base(), Properties: map[string]any{}}
		for name, v := range r.Properties {
			if slices.Contains(known, name) {
				e.Properties[strings.ToUpper(name[:1])+name[1:]] = v
			}
		}
		return e
	}
	var queues, topics []entity
	for _, r := range ofType(rs, "Microsoft.ServiceBus/namespaces/queues") {
		queues = append(queues, of(r))
	}
	for _, r := range ofType(rs, "Microsoft.ServiceBus/namespaces/topics") {
		topic := of(r)
		for _, s := range ofType(rs, "Microsoft.ServiceBus/namespaces/topics/subscriptions") {
			topic.Subscriptions = append(topic.Subscriptions, of(s))
		}
		topics = append(topics, topic)
	}
	data, err := json.Marshal(map[string]any{"UserConfig": map[string]any{"Namespaces": []any{
		map[string]any{"Name": "deployed", "Queues": queues, "Topics": topics}}}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const manifest = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    scopes: [vso.build_execute]
`

// settled are the deployed settings as the platform hands them to the app. What only a
// deployment knows (hosts, ids) is the local Azure's; the rest is the template's.
func settled(t *testing.T, deployed map[string]any, local map[string]string, dir string) map[string]string {
	t.Helper()
	env := map[string]string{}
	taken := 0
	for name, v := range deployed {
		value, _ := v.(string)
		there, isLocal := local[name]
		switch {
		case strings.HasPrefix(value, "[") && isLocal, name == "KEY_VAULT_URL", name == "ENTRA_TENANT_ID",
			name == "ENTRA_CLIENT_ID":
			env[name] = there
		case name == "PATROL_MANIFEST":
			env[name] = filepath.Join(dir, value)
			taken++
		case !strings.HasPrefix(value, "["):
			env[name] = value
			taken++
		}
	}
	if taken < 12 {
		t.Errorf("only %d settings are the template's: %v", taken, env)
	}
	return env
}

// The app, with the settings and on the queues that the template deploys, plans and sweeps;
// and its command wakes an app that rests, by the roles that the template gives.
func TestTheAppRunsWithWhatIsDeployed(t *testing.T) {
	d := theTemplates(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pats.yaml"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	var network memnet.Network
	config := cloud.Config{Network: &network, Genuine: true, Entities: entitiesOf(t, d.plain)}
	// azidentity knows the endpoint from the process' environment only.
	first, err := cloud.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER"} {
		t.Setenv(name, first.Environment()[name])
	}
	first.Close()
	synctest.Test(t, func(t *testing.T) { runDeployed(t, d, config, dir) })
}

func runDeployed(t *testing.T, d *deployment, config cloud.Config, dir string) {
	c, err := cloud.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Seed(); err != nil {
		t.Fatal(err)
	}
	env := settled(t, appSettings(d.plain), c.Environment(), dir)
	settings, err := app.ReadSettings(func(name string) string { return env[name] })
	if err != nil {
		t.Fatalf("the app cannot use the settings that are deployed: %v", err)
	}
	transport := c.Transport()
	defer transport.CloseIdleConnections()
	a := app.New(settings, nil, app.Outside{Transport: transport, Dial: c.DialBus})
	defer func() {
		if err := a.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if broken := a.Broken(); len(broken) > 0 {
		t.Fatalf("the app does not work with what is deployed: %q", broken)
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/check", http.NoBody))
	if w.Code != http.StatusAccepted {
		t.Fatalf("a sweep is answered with %d: %s", w.Code, w.Body)
	}
	queue := env["COMMAND_QUEUE"]
	if n := c.Bus.Counts(queue); n.Active != 1 {
		t.Fatalf("the sweep's command is not in the queue %s: %+v", queue, n)
	}
	for role, wakes := range map[string]bool{appRoleOn(d.plain, queue): true,
		"4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0": false} {
		got, err := scale.Wakes(behindTen{c.Bus}, queue, scale.Roles[role], time.Now())
		if err != nil || got != wakes {
			t.Errorf("with the role %s the command wakes the app: %v (%v), want %v", role, got, err, wakes)
		}
	}
}

// behindTen is a namespace in whose queues ten scheduled messages, ends of overlaps, stand
// before the rest.
type behindTen struct{ scale.Namespace }

func (b behindTen) Peek(queue string) []servicebus.Message {
	later := servicebus.Message{Scheduled: time.Now().Add(time.Hour)}
	return append(slices.Repeat([]servicebus.Message{later}, 10), b.Namespace.Peek(queue)...)
}

// appRoleOn is the role that a deployment gives to the app on a queue.
func appRoleOn(rs []predicted, queue string) string {
	for _, r := range ofType(rs, "Microsoft.Authorization/roleAssignments") {
		m := assignment.FindStringSubmatch(r.ID)
		if m != nil && m[2] == "appPrincipalId" && strings.HasSuffix(m[1], "/queues/"+queue) {
			return m[3]
		}
	}
	return "none"
}
