package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
)

// The consumer that whoever tries patrol may be: its identity, and its subscription.
const (
	consumerName         = "consumer"
	consumerSubscription = "yours"
	consumerFileName     = "sandbox.env"
)

// newCloud is the demonstration's cloud, with a consumer in it.
func (d *demo) newCloud(o options, manifest string, control int) (*cloud.Cloud, error) {
	c := cloud.Config{Manifest: manifest, CheckSchedule: "*/5 * * * * *", PublicURL: d.base, Ports: fixedPorts(o.ports),
		OnRecord:  d.printRecord,
		Consumers: []cloud.Consumer{{Name: consumerName, Subscription: consumerSubscription}}}
	if control != 0 {
		c.Ports.Control = control
	}
	if o.entities != "" {
		b, err := os.ReadFile(o.entities)
		if err != nil {
			return nil, fmt.Errorf("reading the entities: %w", err)
		}
		c.Extra = b
	}
	return cloud.New(c)
}

// runConsumer runs a command until ctx ends. A line that says the same as the one before
// it is not shown: a consumer uses its PAT all the time.
func (d *demo) runConsumer(ctx context.Context, command string) error {
	words := strings.Fields(command)
	if len(words) == 0 {
		return errors.New("-consumer names no command")
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = os.Environ()
	for name, value := range d.cloud.ConsumerEnvironment(consumerName) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	var shown sync.WaitGroup
	shown.Go(func() {
		before := ""
		lines := bufio.NewScanner(read)
		for lines.Scan() {
			if lines.Text() != before {
				d.console.print(fromYours, "%s", lines.Text())
			}
			before = lines.Text()
		}
		_, _ = io.Copy(io.Discard, read) // a line too long for the scanner does not stop the command
	})
	err := cmd.Run()
	_ = write.Close()
	shown.Wait()
	return err
}

// fixedPorts are the ports of the services from the first one on; 0: free ones.
func fixedPorts(first int) cloud.Ports {
	if first == 0 {
		return cloud.Ports{}
	}
	return cloud.Ports{Entra: first, DevOps: first + 1, VSSPS: first + 2, Vault: first + 3, ServiceBus: first + 4,
		PlainServiceBus: first + 5, Identity: first + 6, Control: first + 7}
}

// writeConsumerFile writes what a consumer needs beside the packaged app, in a form that a
// shell and `env_file` of other tools read. The keys in it open nothing but this sandbox.
func writeConsumerFile(o options, env map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString("# What a consumer needs to reach this sandbox, as the identity \"" + consumerName + "\".\n")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "%s='%s'\n", name, env[name])
	}
	path := filepath.Join(filepath.Dir(filepath.Clean(o.app)), consumerFileName)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return "", fmt.Errorf("writing what a consumer needs: %w", err)
	}
	return path, nil
}

// consumerText is the same for people.
func consumerText(env map[string]string) string {
	connection, _, _ := strings.Cut(env["SERVICEBUS_CONNECTION"], ";")
	var lines []string
	for _, line := range [][2]string{
		{"vault", env["KEY_VAULT_URL"]},
		{"namespace", env["SERVICEBUS_NAMESPACE"] + " (AMQP over TLS), or " + connection + " (the emulator's form)"},
		{"subscription", consumerSubscription + " of the topic " + env["EVENT_TOPIC"]},
		{"confirm", "the queue " + env["CONFIRMATION_QUEUE"]},
		{"identity", env["AZURE_CLIENT_ID"] + " at " + env["IDENTITY_ENDPOINT"]},
		{"Azure DevOps", env["AZURE_DEVOPS_URL"] + "/" + env["AZURE_DEVOPS_ORG"]},
		{"CA", env["SSL_CERT_FILE"]},
	} {
		lines = append(lines, fmt.Sprintf("  %-13s %s", line[0], line[1]))
	}
	return strings.Join(lines, "\n")
}
