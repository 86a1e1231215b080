// Package faults counts the calls that reach the sandbox's services and makes
// chosen ones fail. Every service of the sandbox is wrapped by one Injector; tests
// use it in process, people through its control API.
//
// It knows nothing of what the services do: a call is a service's name and an
// operation's name.
package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Mode is how a fault shows.
type Mode string

const (
	// Status answers with the fault's Status, Header and Body; the call has no
	// effect.
	Status Mode = "status"
	// StatusAfter is Status once the call has taken effect.
	StatusAfter Mode = "status-after"
	// ResetBefore breaks the connection; the call has no effect.
	ResetBefore Mode = "reset-before"
	// ResetAfter breaks the connection once the call has taken effect.
	ResetAfter Mode = "reset-after"
	// HangBefore never answers (until the client gives up, or Delay has
	// passed); the call has no effect.
	HangBefore Mode = "hang-before"
	// HangAfter is HangBefore once the call has taken effect.
	HangAfter Mode = "hang-after"
	// Slow waits for Delay and then lets the call happen.
	Slow Mode = "slow"
	// Altered lets the call happen and gives Alter's answer in the place of the
	// service's. HTTP services only, and only in process.
	Altered Mode = "altered"
)

// Fault makes matching calls fail.
type Fault struct {
	Service   string            `json:"service,omitempty"`   // empty: every service
	Operation string            `json:"operation,omitempty"` // empty: every operation
	Skip      int               `json:"skip,omitempty"`      // matching calls to let pass first
	Times     int               `json:"times,omitempty"`     // how often; 0 is once, -1 for ever
	Mode      Mode              `json:"mode"`
	Status    int               `json:"status,omitempty"`
	Header    map[string]string `json:"header,omitempty"`
	Body      string            `json:"body,omitempty"`
	Delay     time.Duration     `json:"delay,omitempty"` // nanoseconds in JSON

	// Then is called once the fault has been carried out, before the connection
	// breaks or an answer is written.
	Then func() `json:"-"`
	// Alter makes another body of an answer's.
	Alter func(body []byte) []byte `json:"-"`
}

func (f *Fault) matches(c Call) bool {
	return (f.Service == "" || f.Service == c.Service) && (f.Operation == "" || f.Operation == c.Operation)
}

// RunThen calls Then, if there is one. A service that does not speak HTTP calls it
// itself.
func (f *Fault) RunThen() {
	if f.Then != nil {
		f.Then()
	}
}

func (f *Fault) check() error {
	switch f.Mode {
	case Status, StatusAfter:
		if f.Status < 100 || f.Status > 599 {
			return fmt.Errorf("a fault of mode %q needs a status from 100 to 599, not %d", f.Mode, f.Status)
		}
	case Slow:
		if f.Delay <= 0 {
			return fmt.Errorf("a fault of mode %q needs a delay in nanoseconds", f.Mode)
		}
	case Altered:
		if f.Alter == nil {
			return fmt.Errorf("a fault of mode %q needs a function: only a test in process can give it", f.Mode)
		}
	case ResetBefore, ResetAfter, HangBefore, HangAfter:
	default:
		return fmt.Errorf("unknown fault mode %q", f.Mode)
	}
	return nil
}

// Call is one call that reached a service.
type Call struct {
	Service   string
	Operation string
}

// Injector counts calls and holds faults. The zero value is ready.
type Injector struct {
	mu     sync.Mutex
	n      int
	onCall func(n int, by string, c Call) *Fault
	counts map[Call]int
	faults []*Fault
}

// Inject adds a fault.
func (i *Injector) Inject(f Fault) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.Times == 0 {
		f.Times = 1
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults = append(i.faults, &f)
	return nil
}

// OnCall asks f at every call from now on, nil at none; a fault that it returns is
// applied, before those that were injected. n counts all calls from 1.
func (i *Injector) OnCall(f func(n int, c Call) *Fault) {
	if f == nil {
		i.OnCallBy(nil)
		return
	}
	i.onEach(func(n int, _ string, c Call) *Fault { return f(n, c) })
}

// OnCallBy is OnCall for whoever wants to know by whom: the address that the call's
// connection came from, as its dialer has named it.
func (i *Injector) OnCallBy(f func(by string, c Call) *Fault) {
	if f == nil {
		i.onEach(nil)
		return
	}
	i.onEach(func(_ int, by string, c Call) *Fault { return f(by, c) })
}

func (i *Injector) onEach(f func(n int, by string, c Call) *Fault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.onCall = f
}

// ClearFaults drops every fault.
func (i *Injector) ClearFaults() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults = nil
}

// ResetCounts sets every counter to zero.
func (i *Injector) ResetCounts() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts = nil
}

// Counts returns how often each operation was called.
func (i *Injector) Counts() map[Call]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.counts)
}

// Count returns how often one operation was called.
func (i *Injector) Count(service, operation string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.counts[Call{service, operation}]
}

// Enter counts a call and returns the fault that applies to it, or nil. A
// service that does not speak HTTP calls it itself and carries the fault out. by is the
// address of the caller's end of the connection.
func (i *Injector) Enter(by string, c Call) *Fault {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.counts == nil {
		i.counts = map[Call]int{}
	}
	i.counts[c]++
	i.n++
	if i.onCall != nil {
		if f := i.onCall(i.n, by, c); f != nil {
			return f
		}
	}
	for at, f := range i.faults {
		if !f.matches(c) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
			if f.Times == 0 {
				i.faults = append(i.faults[:at:at], i.faults[at+1:]...)
			}
		}
		hit := *f
		return &hit
	}
	return nil
}

// Wrap counts the calls to an HTTP service and carries faults out. operation names
// a request; a request with an empty name (a page for people, say) is passed on.
func (i *Injector) Wrap(service string, operation func(*http.Request) string, next http.Handler) http.Handler {
	if i == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := operation(r)
		if name == "" {
			next.ServeHTTP(w, r)
			return
		}
		f := i.Enter(r.RemoteAddr, Call{service, name})
		if f == nil {
			next.ServeHTTP(w, r)
			return
		}
		if f.Mode == Slow || f.Mode == HangBefore {
			// net/http notices that a client has gone only once the body has
			// been read.
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		answer := httptest.NewRecorder()
		switch f.Mode {
		case Slow:
			select {
			case <-time.After(f.Delay):
				next.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
			return
		case StatusAfter, ResetAfter, HangAfter, Altered:
			next.ServeHTTP(answer, r)
		}
		f.RunThen()
		switch f.Mode {
		case Altered:
			maps.Copy(w.Header(), answer.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(answer.Code)
			_, _ = w.Write(f.Alter(answer.Body.Bytes()))
		case Status, StatusAfter:
			for k, v := range f.Header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(f.Status)
			_, _ = w.Write([]byte(f.Body))
		case HangBefore, HangAfter:
			var limit <-chan time.Time
			if f.Delay > 0 {
				limit = time.After(f.Delay)
			}
			select {
			case <-limit:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		default:
			panic(http.ErrAbortHandler) // net/http closes the connection without an answer
		}
	})
}

// ServeHTTP is the control API: GET /calls, DELETE /calls, POST /faults with a
// Fault or an array of them, DELETE /faults.
func (i *Injector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /calls":
		out := map[string]map[string]int{}
		for c, n := range i.Counts() {
			if out[c.Service] == nil {
				out[c.Service] = map[string]int{}
			}
			out[c.Service][c.Operation] = n
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	case "DELETE /calls":
		i.ResetCounts()
		w.WriteHeader(http.StatusNoContent)
	case "POST /faults":
		var raw json.RawMessage
		var fs []Fault
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&raw)
		if err == nil {
			if len(raw) > 0 && raw[0] == '[' {
				err = json.Unmarshal(raw, &fs)
			} else {
				fs = make([]Fault, 1)
				err = json.Unmarshal(raw, &fs[0])
			}
		}
		for _, f := range fs {
			if err == nil {
				err = f.check()
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, f := range fs {
			_ = i.Inject(f)
		}
		w.WriteHeader(http.StatusNoContent)
	case "DELETE /faults":
		i.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "the control API has GET /calls, DELETE /calls, POST /faults, DELETE /faults",
			http.StatusNotFound)
	}
}
