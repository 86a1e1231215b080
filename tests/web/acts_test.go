package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// abandon sends a request whose caller leaves after a while, and waits until whatever
// that has begun has ended.
func (r *fixture) abandon(after time.Duration, method, path, body string, headers ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), after)
	defer cancel()
	var reader io.Reader = http.NoBody
	if body != "" {
		reader = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, "http://patrol.localhost"+path, reader).WithContext(ctx)
	req.Header.Set("X-Functions-Key", masterKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r.Hosts[0].ServeHTTP(httptest.NewRecorder(), req)
	}()
	<-gone
	r.pass(2 * time.Minute)
}

// everyCallTakes makes every call to a service last.
func (r *fixture) everyCallTakes(d time.Duration) {
	r.Cloud.Injector.OnCall(func(int, faults.Call) *faults.Fault {
		return &faults.Fault{Mode: faults.Slow, Delay: d}
	})
}

// gone deletes a secret, as a person may.
func (r *fixture) gone(name string) {
	r.t.Helper()
	if err := r.Cloud.Vault.Delete(name); err != nil {
		r.t.Fatal(err)
	}
}

// line is one of the handler's log.
type line struct{ Level, Msg, Act, Trigger, Outcome string }

func (r *fixture) lines() []line {
	var out []line
	for text := range strings.SplitSeq(r.Output(), "\n") {
		var l line
		if json.Unmarshal([]byte(text), &l) == nil && l.Msg != "" {
			out = append(out, l)
		}
	}
	return out
}

// audited is how often an act by HTTP stands in the audit log, and with which outcome last.
func (r *fixture) audited(act string) (times int, outcome string) {
	for _, l := range r.lines() {
		if l.Msg == "audit" && l.Act == act && l.Trigger == "http" {
			times++
			outcome = l.Outcome
		}
	}
	return times, outcome
}

// abandonedAct is an act, and what holds once it has been done.
type abandonedAct struct {
	name   string // as audit lines have it; empty: it has none
	config simulation.Config
	// begin gives the request of the act, and what there is to see of it afterwards.
	begin func(r *fixture) (method, path, body string, headers []string, done func() error)
}

func abandonedActs() []abandonedAct {
	return []abandonedAct{
		{name: "extend", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			end := time.Now().AddDate(0, 0, 200).UTC().Truncate(time.Second)
			body = fmt.Sprintf(`{"validTo":%q}`, end.Format(time.RFC3339))
			return "POST", "/api/pats/jenkins-agents/extend", body, nil,
				func() error {
					v := r.latest(name)
					truth := r.pat(v.Tags["CredentialId"]).ValidTo
					if !truth.Equal(end) || !v.Expires.Equal(end) {
						return fmt.Errorf("the PAT ends %v and the vault says %v, want both %v", truth, v.Expires, end)
					}
					return nil
				}
		}},
		{name: "rotate", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			was := r.latest(name).ID
			return "POST", "/api/pats/jenkins-agents/rotate", `{"revokePrevious":"now"}`, nil, func() error {
				if r.latest(name).ID == was {
					return fmt.Errorf("the PAT was not replaced")
				}
				return nil
			}
		}},
		{name: "set-overlap", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
			r.Settle()
			until := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
			body = fmt.Sprintf(`{"until":%q}`, until.Format(time.RFC3339))
			return "POST", "/api/pats/jenkins-agents/overlap", body, nil,
				func() error {
					if got := r.latest(name).Tags["patrol-revoke-previous-at"]; got != until.Format(time.RFC3339) {
						return fmt.Errorf("the overlap ends %s, want %v", got, until)
					}
					return nil
				}
		}},
		{name: "restore", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			was := r.latest(name).Tags["CredentialId"]
			r.ask("POST", "/api/pats/jenkins-agents/rotate", "").want(202, "")
			r.Settle()
			return "POST", "/api/pats/jenkins-agents/restore", "", nil, func() error {
				if got := r.latest(name).Tags["CredentialId"]; got != was {
					return fmt.Errorf("the secret holds %s, want the earlier %s", got, was)
				}
				return nil
			}
		}},
		{name: "revoke", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			id := r.byHand("made by hand", "vso.code", 30, false)
			return "DELETE", "/api/tokens/" + id, "", nil, func() error {
				if got := r.pat(id).State; got != devops.Revoked {
					return fmt.Errorf("the unmanaged PAT is %v, want it revoked", got)
				}
				return nil
			}
		}},
		{name: "revoke", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			id := r.latest(name).Tags["CredentialId"]
			return "DELETE", "/api/tokens/" + id + "?force=true", "", nil, func() error {
				state, holds := r.pat(id).State, r.latest(name).Tags["CredentialId"]
				if state != devops.Revoked || holds == id {
					return fmt.Errorf("the PAT in use is %v and the secret holds %s", state, holds)
				}
				return nil
			}
		}},
		{name: "sweep", begin: func(r *fixture) (method, path, body string, headers []string, done func() error) {
			r.gone(name)
			return "POST", "/api/check", "", nil, func() error {
				if _, ok := r.Latest(name); !ok {
					return fmt.Errorf("the deleted secret was not brought back")
				}
				return nil
			}
		}},
		{config: simulation.Config{NobodySignedIn: true}, begin: func(r *fixture) (method, path, body string,
			headers []string, done func() error) {
			path, cookie := r.away("/api/identities/build-bot/signin", cloud.User)
			return "GET", path, "", []string{cookie}, func() error {
				if _, ok := r.Latest(name); !ok {
					return fmt.Errorf("no PAT was looked at after the sign-in")
				}
				return nil
			}
		}},
	}
}

// From its first effect on an act does not hang on its caller: one who leaves at any
// point of it finds it done, and the audit log says so once.
func TestAnActRunsToItsEndThoughItsCallerLeaves(t *testing.T) {
	const call = time.Second
	for _, a := range abandonedActs() {
		for calls := range 8 {
			title := a.name
			if title == "" {
				title = "sign-in"
			}
			t.Run(fmt.Sprintf("%s/after %d calls", title, calls), func(t *testing.T) {
				run(t, a.config, func(t *testing.T, r *fixture) {
					if !a.config.NobodySignedIn {
						r.sweep()
					}
					method, path, body, headers, done := a.begin(r)
					times, _ := r.audited(a.name)
					r.everyCallTakes(call)
					r.abandon(time.Duration(calls)*call+call/2, method, path, body, headers...)
					r.Cloud.Injector.OnCall(nil)
					if err := done(); err != nil {
						t.Error(err)
					}
					for _, l := range r.lines() {
						if l.Level == "ERROR" {
							t.Errorf("an error in the log: %s", l.Msg)
						}
					}
					if a.name == "" {
						return
					}
					now, outcome := r.audited(a.name)
					if now != times+1 || outcome != "done" {
						t.Errorf("%d audit lines more, the last says %q; want one, done", now-times, outcome)
					}
				})
			})
		}
	}
}
