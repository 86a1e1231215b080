// Package consumers tells one story to the clients of every language: processes of their
// own, with the real SDKs, against the sandbox on loopback.
package consumers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

const (
	pat    = "nuget-feed"
	yours  = "pat-events/Subscriptions/yours"
	timely = 20 * time.Second
)

// world is a cloud with one PAT, as patrol leaves it.
type world struct {
	t     *testing.T
	cloud *cloud.Cloud

	current  keyvault.Version
	id       string // authorization id of the current PAT
	versions []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := cloud.New(cloud.Config{Consumers: []cloud.Consumer{{Name: "consumer", Subscription: "yours"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Seed(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cloud: c}
	w.store()
	return w
}

// store puts a new PAT into the vault; the one before it works on.
func (w *world) store() {
	w.t.Helper()
	end := time.Now().Add(24 * time.Hour)
	name := fmt.Sprint(pat, len(w.versions))
	id, token := w.cloud.DevOps.Seed(cloud.Organization, cloud.User, name, "vso.project", end, false)
	v, err := w.cloud.Vault.Put(keyvault.Version{Name: pat, Value: token, Expires: end, Enabled: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.current, w.id = v, id
	w.versions = append(w.versions, v.ID)
}

// tell announces the current version, twice: delivery is at least once.
func (w *world) tell() {
	w.t.Helper()
	now := time.Now().UTC()
	e := events.NewRotated("/patrol/"+w.cloud.VaultHost(), now, events.Rotated{PAT: pat, Organization: "contoso",
		Identity: "build-bot", DisplayName: pat, Scopes: []string{"vso.project"}, RotationID: "abcdefghij",
		Reason: "expiring", Secret: events.SecretRef{ID: "https://" + w.cloud.VaultHost() + "/secrets/" + pat + "/" +
			w.current.ID, Name: pat, Version: w.current.ID}, AuthorizationID: w.id, ValidFrom: now,
		ValidTo: now.Add(24 * time.Hour)})
	b, err := events.Encode(e)
	if err != nil {
		w.t.Fatal(err)
	}
	for range 2 {
		w.send(servicebus.Message{ID: e.MessageID(), SessionID: e.SessionID(), Subject: e.Type, Body: b,
			ContentType: events.ContentType, Properties: e.Properties()})
	}
}

func (w *world) send(m servicebus.Message) {
	w.t.Helper()
	if err := w.cloud.Bus.Send(cloud.EventTopic, m); err != nil {
		w.t.Fatal(err)
	}
}

// fixture sends a file of events/testdata.
func (w *world) fixture(name string) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join("../../events/testdata/more", name+".json"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.send(servicebus.Message{ID: name, Body: b, ContentType: events.ContentType})
}

// confirmed reports whether the current version was confirmed, with the right proof.
func (w *world) confirmed() bool {
	for _, m := range w.cloud.Messages(cloud.ConfirmationQueue) {
		c, err := events.DecodeConfirmation(m.Body)
		if err != nil {
			w.t.Fatalf("a confirmation that patrol would refuse: %v\n%s", err, m.Body)
		}
		isIt := c.SecretVersion == w.current.ID && c.Outcome == events.OutcomeSwitched && c.Consumer == "consumer"
		if isIt && c.Proves([]byte(w.current.Value)) {
			return true
		}
	}
	return false
}

// process is a consumer that runs.
type process struct {
	t   *testing.T
	cmd *exec.Cmd

	mu   sync.Mutex
	text bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func start(t *testing.T, w *world, dir string, command ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), command[0], command[1:]...)}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "PATROL_PAT="+pat, "SAMPLE_EVERY=20")
	for name, value := range w.cloud.ConsumerEnvironment("consumer") {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) until(what string, done func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), timely)
	defer cancel()
	for !done() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			p.t.Fatalf("not in time: %s\n%s", what, p.output())
		}
	}
}

// uses are the answers to the consumer's uses of the PAT with this version.
func (p *process) uses(version string) []string {
	var out []string
	for line := range strings.Lines(p.output()) {
		word := strings.Fields(line)
		isUse := len(word) == 3 && word[0] == "use"
		if isUse && strings.HasPrefix(word[2], version) {
			out = append(out, word[1])
		}
	}
	return out
}

// story is what every client goes through: a first PAT, replacements that are told (among
// messages that are none, or of later versions), and a leak that nobody has told it of.
func story(t *testing.T, dir string, command ...string) {
	w := newWorld(t)
	p := start(t, w, dir, command...)
	p.until("the first PAT is confirmed", w.confirmed)
	w.fixture("poison")
	w.fixture("future-type")
	w.send(servicebus.Message{ID: "text", Body: []byte("no event")})
	for range 3 {
		before := w.id
		w.store()
		w.tell()
		p.until("the new PAT is confirmed", w.confirmed)
		// patrol waits for this: now nobody needs the old one
		w.cloud.DevOps.Revoke(before)
		p.until("the new PAT is used", func() bool { return len(p.uses(w.current.ID)) >= 3 })
	}
	before := w.id
	w.store()
	w.cloud.DevOps.Revoke(before)
	p.until("the PAT after the leak is confirmed", w.confirmed)
	p.until("it is used", func() bool { return len(p.uses(w.current.ID)) >= 3 })
	p.until("every message is settled", func() bool { return w.cloud.Bus.Counts(yours).Active == 0 })

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("asked to end, it ends with %v\n%s", err, p.output())
	}
	bad := slices.DeleteFunc(p.uses(""), func(status string) bool { return status == "200" })
	if len(bad) > 0 {
		t.Errorf("%d of %d uses were refused: %q", len(bad), len(p.uses("")), bad)
	}
	if got, want := w.cloud.Bus.Counts(yours).DeadLetter, 2; got != want {
		t.Errorf("%d dead letters, want %d: the poisoned event and the text", got, want)
	}
	for _, token := range w.cloud.Tokens() {
		if strings.Contains(p.output(), token) {
			t.Error("the output has a token")
		}
	}
	t.Logf("%d uses of %d PATs", len(p.uses("")), len(w.versions))
}

func TestTheGoClientSwitchesWithoutARefusedUse(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "sample")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./sample")
	build.Dir = "../../clients/go"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	story(t, ".", binary)
}

// nodeModules is where `make clients-js` installs what the lock file names.
const nodeModules = "../../.cache/clients-js"

func TestTheJavaScriptClientSwitchesWithoutARefusedUse(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(nodeModules + "/node_modules"); err != nil {
		t.Skip("run make clients-js first")
	}
	story(t, nodeModules, "node", "sample.js")
}

func TestTheJavaScriptClientMakesTheGoldenProofs(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(nodeModules + "/node_modules"); err != nil {
		t.Skip("run make clients-js first")
	}
	golden(t, nodeModules, "node", "--input-type=module", "--eval", `
		import {prove} from './keeper.js';
		import {readFileSync} from 'node:fs';
		const all = JSON.parse(readFileSync(0, 'utf8'));
		console.log(JSON.stringify(all.map((g) => prove(g.value, g))));`)
}

// golden gives the golden confirmations to a program, which answers their proofs.
func golden(t *testing.T, dir string, command ...string) {
	t.Helper()
	b, err := os.ReadFile("../../events/testdata/confirmations.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct{ Name, Proof string }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var proofs []string
	if err := json.Unmarshal(out, &proofs); err != nil || len(proofs) != len(all) {
		t.Fatalf("%d proofs (%v), want %d", len(proofs), err, len(all))
	}
	for i, g := range all {
		if proofs[i] != g.Proof {
			t.Errorf("%s: proof %s, want %s", g.Name, proofs[i], g.Proof)
		}
	}
}
