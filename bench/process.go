package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
)

// process is a custom handler that runs as the Functions host runs one: a child with
// a port in its environment.
type process struct {
	cmd  *exec.Cmd
	port int
	// answered is how long it took from exec to the first answer.
	answered time.Duration
	client   *http.Client
	gone     chan struct{}
}

// patience is how long a handler may take to answer at all.
const patience = 60 * time.Second

func start(ctx context.Context, env map[string]string, name string, args ...string) (*process, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &process{port: l.Addr().(*net.TCPAddr).Port, gone: make(chan struct{})}
	if err := l.Close(); err != nil {
		return nil, err
	}
	p.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	p.cmd = exec.CommandContext(ctx, name, args...)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "FUNCTIONS_CUSTOMHANDLER_PORT=" +
		strconv.Itoa(p.port)}
	for k, v := range env {
		p.cmd.Env = append(p.cmd.Env, k+"="+v)
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // it is killed in the end
		close(p.gone)
	}()
	for {
		r, err := p.client.Get(p.url("/"))
		if err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
			p.answered = time.Since(began)
			return p, nil
		}
		select {
		case <-p.gone:
			return nil, fmt.Errorf("%s has ended before its first answer", name)
		case <-time.After(100 * time.Microsecond):
		}
		if time.Since(began) > patience {
			p.stop()
			return nil, fmt.Errorf("%s does not answer", name)
		}
	}
}

func (p *process) url(path string) string { return "http://127.0.0.1:" + strconv.Itoa(p.port) + path }

func (p *process) stop() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// memory is what the process holds of real memory now, and what it held at most, in
// bytes.
func (p *process) memory() (now, most float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != "kB" {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		switch {
		case err != nil:
			return 0, 0, err
		case name == "VmRSS":
			now = n * 1024
		case name == "VmHWM":
			most = n * 1024
		}
	}
	if now == 0 || most == 0 {
		return 0, 0, errors.New("the system does not show how much memory a process holds")
	}
	return now, most, nil
}

// cpu is the processor time that the process has used.
func (p *process) cpu() (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.New("the system does not show how much processor time a process has used")
	}
	var all time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		all += time.Duration(n)
	}
	return all, nil
}

// invoke sends one invocation as the host does; 200 is a success.
func (p *process) invoke(ctx context.Context, function, envelope string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url("/"+function), strings.NewReader(envelope))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s was answered %d", function, answer.StatusCode)
	}
	return nil
}

const timerEnvelope = `{"Data":{"timer":{"Schedule":{"AdjustForDST":true},` +
	`"ScheduleStatus":null,"IsPastDue":false}},"Metadata":{}}`

// orderEnvelope is the invocation for the order to rotate a PAT away from the one of
// that authorization id.
func orderEnvelope(n int, pat, from string) string {
	body, err := json.Marshal(map[string]any{"command": "reconcile", "pat": pat, "reason": "requested", "from": from,
		"revokePrevious": "overlap"})
	if err != nil {
		panic(err) // strings always marshal
	}
	return messageEnvelope(n, pat, body)
}

// messageEnvelope is what the host sends for a message of a queue with sessions.
func messageEnvelope(n int, session string, body []byte) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"Data":{"message":%q},"Metadata":{`+
		`"MessageReceiver":{},"MessageSession":{"SessionLockedUntil":"2026-11-03T07:16:22Z"},`+
		`"MessageActions":{},"SessionActions":{},"ReceiveActions":{},`+
		`"Client":{"FullyQualifiedNamespace":"contoso.servicebus.windows.net","IsClosed":false,"TransportType":0,`+
		`"Identifier":"contoso.servicebus.windows.net-0b3c9c1e-6a5e-4e0e-8d43-2a6f7b9d1c55"},`+
		`"DeliveryCount":"1","LockToken":"\"0f5ad7a2-3c7b-4d0f-9f0c-6d1b2a3c4d5e\"",`+
		`"ExpiresAtUtc":"2026-11-17T07:15:22","ExpiresAt":"2026-11-17T07:15:22+00:00",`+
		`"EnqueuedTimeUtc":"2026-11-03T07:15:22","EnqueuedTime":"2026-11-03T07:15:22+00:00",`+
		`"MessageId":"\"m-%d\"","ContentType":"\"application/json\"","SessionId":"\"%s\"",`+
		`"SequenceNumber":"%d","Subject":"\"reconcile\"","Label":"\"reconcile\"",`+
		`"ApplicationProperties":{},"UserProperties":{},`+
		`"sys":{"MethodName":"Reconcile","UtcNow":"2026-11-03T07:15:22.1180000Z",`+
		`"RandGuid":"6f0b8f0e-3f0a-4e0e-8d43-2a6f7b9d1c55"}}}`,
		base64.StdEncoding.EncodeToString(body), n, session, n)
	return b.String()
}

// handler starts the packaged handler on a cloud.
func handler(ctx context.Context, binary string, c *cloud.Cloud) (*process, error) {
	return start(ctx, c.Environment(), binary)
}
