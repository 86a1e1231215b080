package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/functionshost"
)

// functionKey opens the demonstration's functions. It guards nothing: whoever
// reaches loopback may have it.
const functionKey = "local"

// demoManifest is the demonstration's pats.yaml. One PAT lives for three minutes, so
// that the timer has something to do.
const demoManifest = `apiVersion: patrol/v1
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
    scopes: [vso.packaging, vso.project]
    lifetime: 7d
    rotateBefore: 3d
    overlap: 2h
  - name: three-minutes
    identity: build-bot
    organization: contoso
    scopes: [vso.code, vso.project]
    lifetime: 3m
    rotateBefore: 150s
    overlap: 15s
`

// demoPAT is the PAT that the demonstration asks to rotate.
const demoPAT = "jenkins-agents"

// people may work with the page, each in a role. The sandbox asks nobody for a password.
var people = []struct{ user, role string }{{"reader@contoso.com", cloud.Reader},
	{"operator@contoso.com", cloud.Operator}, {"admin@contoso.com", cloud.Administrator}}

// demo is a running demonstration.
type demo struct {
	console *console
	cloud   *cloud.Cloud
	base    string // URL of the Functions host

	mu      sync.Mutex
	changed chan struct{}     // closed and replaced at each event
	rotated map[string]string // PAT to its latest rotation's reason
	revoked map[string]bool   // PATs with an event of a revocation
}

// run shows the demonstration until ctx ends.
func run(ctx context.Context, o options, out *console, logs io.Writer) error {
	control, err := loopbackPort(o.control)
	if err != nil {
		return err
	}
	listener, err := listen(o.port, out)
	if err != nil {
		return err
	}
	d := &demo{console: out, base: "http://" + listener.Addr().String(), changed: make(chan struct{}),
		rotated: map[string]string{}, revoked: map[string]bool{}}
	defer func() { _ = listener.Close() }() // the host closes it too

	manifest, removeManifest, err := manifestFile(o)
	if err != nil {
		return err
	}
	defer removeManifest()

	d.cloud, err = d.newCloud(o, manifest, control)
	if err != nil {
		return err
	}
	defer d.cloud.Close()
	if err := d.cloud.Seed(); err != nil {
		return err
	}
	consumerFile, err := writeConsumerFile(o, d.cloud.ConsumerEnvironment(consumerName))
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(consumerFile) }()
	for _, person := range people {
		if err := d.cloud.AddPerson(person.user, person.role); err != nil {
			return err
		}
	}
	out.print(fromSandbox,
		"a local Azure is up: Entra, Azure DevOps (organization contoso), Key Vault, managed identity, Service Bus")
	// Somebody's PAT that is not in the manifest, a week before its end.
	d.cloud.DevOps.Seed(cloud.Organization, cloud.User, "made by hand", "vso.code",
		time.Now().Add(7*24*time.Hour-time.Hour), false)

	host, err := d.host(o, listener, logs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel(nil)
	if err := host.Start(ctx); err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	tasks.Go(func() {
		if err := host.Wait(); err != nil {
			cancel(fmt.Errorf("the Functions host stopped by itself: %w", err))
		}
	})
	tasks.Go(func() {
		if err := d.subscribe(ctx); err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("subscribing: %w", err))
		}
	})
	if err := host.WaitReady(ctx); err != nil {
		return reason(ctx, err)
	}
	out.print(fromSandbox, "the Functions host runs the packaged app on %s: %s", d.base, strings.Join(host.Functions(),
		", "))
	if o.manifest == "" {
		if err := d.showScenario(ctx); err != nil {
			return reason(ctx, err)
		}
	}
	if o.consumer != "" {
		tasks.Go(func() {
			if err := d.runConsumer(ctx, o.consumer); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("the consumer has ended: %w", err))
			}
		})
	}
	d.printNextSteps(o, consumerFile)
	<-ctx.Done()
	out.print(fromSandbox, "ending")
	return reason(ctx, nil)
}

// manifestFile is the path of the manifest to run with: the caller's, or the
// demonstration's in a temporary folder that remove deletes.
func manifestFile(o options) (path string, remove func(), err error) {
	if o.manifest != "" {
		path, err = filepath.Abs(o.manifest)
		return path, func() {}, err
	}
	dir, err := os.MkdirTemp("", "patrol-demo-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "pats.yaml")
	if err := os.WriteFile(path, []byte(demoManifest), 0o600); err != nil {
		remove()
		return "", nil, err
	}
	return path, remove, nil
}

// reason is why ctx ended, if it was not asked to; else err.
func reason(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// listen takes the port, or a free one where somebody else has it.
func listen(port int, out *console) (net.Listener, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		return l, nil
	}
	free, freeErr := net.Listen("tcp", "127.0.0.1:0")
	if freeErr != nil {
		return nil, fmt.Errorf("listening for the Functions host: %w", err)
	}
	out.print(fromSandbox, "port %d is taken; the Functions host listens on %s", port, free.Addr())
	return free, nil
}

// loopbackPort is the port of a loopback address.
func loopbackPort(address string) (int, error) {
	host, port, err := net.SplitHostPort(address)
	n, numErr := strconv.Atoi(port)
	isPort := err == nil && numErr == nil && n >= 0 && n <= 65535
	isLoopback := host == "127.0.0.1" || host == "localhost"
	if !isPort || !isLoopback {
		return 0, fmt.Errorf("-control %s: it must be an address on loopback, like 127.0.0.1:7080", address)
	}
	return n, nil
}

func (d *demo) host(o options, l net.Listener, logs io.Writer) (*functionshost.Host, error) {
	c := d.cloud.Host(o.app)
	c.Listener, c.Launcher = l, functionshost.Exec{}
	c.Keys = functionshost.Keys{Host: functionKey, Master: "local-admin"}
	if o.verbose {
		c.Settings["LOG_LEVEL"] = "debug"
	}
	c.Log = slog.New(slog.NewTextHandler(logs, nil))
	c.OnInvocation = func(i functionshost.Invocation) {
		switch {
		case i.Status != 0:
			d.console.print(fromHTTP, "%s answered %d", i.Function, i.Status)
		case i.Err != nil:
			d.console.print(fromHost, "%s failed; see the log", i.Function)
		}
	}
	return functionshost.New(c)
}

// printRecord prints what happened in a service.
func (d *demo) printRecord(r cloud.Record) {
	switch r.Kind {
	case cloud.PAT:
		p := r.PAT.PAT
		switch r.PAT.Kind {
		case devops.Created:
			d.console.print(fromDevOps, "%s made the PAT %q, which ends at %s", p.User, p.DisplayName, clock(p.ValidTo))
		case devops.Ended:
			d.console.print(fromDevOps, "the PAT %q has been revoked", p.DisplayName)
		}
	case cloud.Secret:
		v := r.Secret
		switch {
		case v.Tags["patrol-rotation"] == "":
		case !v.Enabled:
			d.console.print(fromVault, "%s: version %s is closed", v.Name, short(v.ID))
		case v.Tags["patrol-announced-at"] == "":
			d.console.print(fromVault, "%s: version %s holds the new PAT (%s)", v.Name, short(v.ID),
				v.Tags["patrol-reason"])
		}
	}
}

// clock is a moment as a person wants it: the time, and the day if it is another.
func clock(t time.Time) string {
	if time.Until(t) < 12*time.Hour {
		return t.Local().Format("15:04:05")
	}
	return t.Local().Format("2006-01-02")
}

// subscribe receives the app's events as any other application would.
func (d *demo) subscribe(ctx context.Context) error {
	client, err := d.cloud.BusClient()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
	receiver, err := client.NewReceiverForSubscription(cloud.EventTopic, cloud.EventSubscription, nil)
	if err != nil {
		return err
	}
	subscriber := d.subscriber()
	for {
		messages, err := receiver.ReceiveMessages(ctx, 10, nil)
		if err != nil {
			return err
		}
		for _, m := range messages {
			err = subscriber.Handle(ctx, m.Body)
			if err != nil {
				err = receiver.DeadLetterMessage(ctx, m, &azservicebus.DeadLetterOptions{Reason: to("not an event")})
			} else {
				err = receiver.CompleteMessage(ctx, m, nil)
			}
			if err != nil {
				return err
			}
		}
	}
}

func to[T any](v T) *T { return &v }

func (d *demo) subscriber() *events.Subscriber {
	return &events.Subscriber{
		OnRotated: func(_ context.Context, e events.Event, v events.Rotated) error {
			change := "has its first PAT"
			if v.Previous != nil {
				change = "has a new PAT (" + v.Reason + "); the old one ends at " + clock(v.Previous.RevokeAt)
			}
			d.console.print(fromEvent, "%s: %s %s; read secret version %s", e.Type, v.PAT, change,
				short(v.Secret.Version))
			d.update(func() { d.rotated[v.PAT] = v.Reason })
			return nil
		},
		OnRevoked: func(_ context.Context, e events.Event, v events.Revoked) error {
			d.console.print(fromEvent, "%s: a replaced PAT of %s has ended (%s)", e.Type, v.PAT, v.Cause)
			d.update(func() { d.revoked[v.PAT] = true })
			return nil
		},
		OnRotationFailed: func(_ context.Context, e events.Event, v events.RotationFailed) error {
			d.console.print(fromEvent, "%s: %s at step %s: %s", e.Type, v.PAT, v.Step, v.Message)
			return nil
		},
		OnExpiring: func(_ context.Context, e events.Event, v events.Expiring) error {
			d.console.print(fromEvent, "%s: the PAT %q, which nobody manages, ends at %s", e.Type, v.DisplayName,
				clock(v.ValidTo))
			return nil
		},
		OnSignInRequired: func(_ context.Context, e events.Event, v events.SignInRequired) error {
			d.console.print(fromEvent, "%s: %s must sign in as %s", e.Type, v.User, v.Identity)
			return nil
		},
		OnOther: func(_ context.Context, e events.Event) error {
			d.console.print(fromEvent, "%s: %s", e.Type, e.Subject)
			return nil
		},
	}
}

// update changes what the scenario waits for.
func (d *demo) update(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until done holds, which is checked at every event.
func (d *demo) await(ctx context.Context, done func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := done(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// showScenario is what a newcomer sees: the timer's sweep provisions every PAT, and a
// call over HTTP replaces one and revokes the old one at once.
func (d *demo) showScenario(ctx context.Context) error {
	d.console.print(fromSandbox,
		"the timer sweeps every five seconds; the manifest declares three PATs, and none exists yet")
	if err := d.await(ctx, func() bool { return len(d.rotated) == 3 }); err != nil {
		return err
	}
	d.console.print(fromSandbox, "now somebody believes that the PAT of %s has leaked: POST /api/pats/%s/rotate",
		demoPAT, demoPAT)
	if err := d.requestRotation(ctx); err != nil {
		return err
	}
	return d.await(ctx, func() bool { return d.revoked[demoPAT] })
}

// requestRotation asks for a rotation over HTTP.
func (d *demo) requestRotation(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+"/api/pats/"+demoPAT+"/rotate",
		bytes.NewReader([]byte(`{"reason":"leaked into a log","revokePrevious":"now"}`)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Functions-Key", functionKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("the rotation was not accepted: status %d", answer.StatusCode)
	}
	return nil
}

// printNextSteps prints what a newcomer can do next.
func (d *demo) printNextSteps(o options, consumerFile string) {
	log := ""
	if !o.verbose {
		log = "\n  log           " + filepath.Join(filepath.Dir(filepath.Clean(o.app)), logName)
	}
	d.console.printText(fmt.Sprintf(`
The app goes on, and its shortest-lived PATs are replaced as they come due.
  dashboard     %[1]s/api/dashboard
                sign in as reader@, operator@ or admin@contoso.com, without a password; the
                browser does not know the certificate of the sandbox's Entra: go on
  managed PATs  %[1]s/api/pats?code=%[2]s
  state         %[1]s/api/status?code=%[2]s
  rotate one    curl -X POST '%[1]s/api/pats/nuget-feed/rotate?code=%[2]s'
  counters      %[3]s/calls   (POST faults to %[3]s/faults)%[4]s

For an application that uses the PATs (docs/subscribing.md), with the rights that it has in Azure and no more:
%[5]s
All of it is in %[6]s, until this ends:  set -a; . %[6]s; set +a
Ctrl-C ends it all.
`, d.base, functionKey, d.cloud.ControlURL(), log, consumerText(d.cloud.ConsumerEnvironment(consumerName)),
		consumerFile))
}
