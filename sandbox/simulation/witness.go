package simulation

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/faults"
)

// Case is what the judge needs of this world so far; End is now.
func (w *World) Case() Case {
	c := Case{Records: w.Cloud.History(), End: time.Now(), VaultTag: rotation.VaultTag(w.Cloud.VaultHost()),
		Sweep: sweepEvery, Tokens: w.Cloud.Tokens(), Outputs: []string{w.Output(), w.Answers()}}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.manifests {
		c.Manifests = append(c.Manifests, *p)
	}
	for _, d := range w.disturbances {
		c.Disturbances = append(c.Disturbances, *d)
	}
	for _, r := range w.refusals {
		c.Refusals = append(c.Refusals, *r)
	}
	c.Outside = maps.Clone(w.ended)
	c.Orders = append(c.Orders, w.orders...)
	c.Invocations = append(c.Invocations, w.invocations...)
	c.Touches = append(c.Touches, w.touches...)
	c.Renamed = maps.Clone(w.renamed)
	return c
}

// reads notes that a process has a manifest from now on.
func (w *World) reads(path string) *Period {
	p := &Period{From: time.Now(), Users: map[string]string{}}
	text, err := os.ReadFile(path)
	if err != nil {
		return p
	}
	m, _, err := manifest.Parse(path, text)
	if err != nil {
		return p // the process says so
	}
	p.Specs = m.PATs
	for name, identity := range m.Identities {
		p.Users[name] = identity.User
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.manifests = append(w.manifests, p)
	return p
}

// orderOf is what a call asks for, if it asks to rotate away from a PAT, or to put one
// back: the PAT that readers have at that moment.
func (w *World) orderOf(method string, u *url.URL, body any) (Order, bool) {
	path, isPAT := strings.CutPrefix(u.Path, "/api/pats/")
	name, act, _ := strings.Cut(path, "/")
	isOrder := isPAT && method == http.MethodPost && (act == "rotate" || act == "restore")
	if !isOrder {
		return Order{}, false
	}
	o := Order{PAT: name, At: time.Now()}
	var asked struct{ RevokePrevious string }
	switch b := body.(type) {
	case nil:
	case string:
		_ = json.Unmarshal([]byte(b), &asked) // what cannot be read is refused
	default:
		text, err := json.Marshal(b)
		if err != nil {
			w.tb.Fatal(err)
		}
		_ = json.Unmarshal(text, &asked)
	}
	o.Now = asked.RevokePrevious == string(rotation.Now)
	if v, ok := w.Latest(name); ok {
		for _, p := range w.Cloud.DevOps.PATs("", "") {
			if p.Token == v.Value {
				o.AuthorizationID = p.AuthorizationID
			}
		}
	}
	return o, true
}

// keepEnded notes the PAT that a call asks to end.
func (w *World) keepEnded(method string, u *url.URL) {
	id, isToken := strings.CutPrefix(u.Path, "/api/tokens/")
	if !isToken || method != http.MethodDelete {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended[id] = true
}

// keepOrder notes an order with its answer: a 202 says which PAT it is about.
func (w *World) keepOrder(o Order, answer *httptest.ResponseRecorder) {
	if answer.Code == http.StatusAccepted {
		o.Accepted = time.Now()
		var accepted struct{ From string }
		err := json.Unmarshal(answer.Body.Bytes(), &accepted)
		if err == nil && accepted.From != "" {
			o.AuthorizationID = accepted.From
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, o)
}

// Outage makes calls fail from now on until it is ended.
func (w *World) Outage(fs ...faults.Fault) (end func()) {
	d := &Disturbance{At: time.Now(), Until: time.Now().Add(cloudsEnd)}
	w.mu.Lock()
	w.disturbances = append(w.disturbances, d)
	w.mu.Unlock()
	for _, f := range fs {
		f.Times = -1
		if err := w.Cloud.Injector.Inject(f); err != nil {
			w.tb.Fatal(err)
		}
	}
	return func() {
		w.Cloud.Injector.ClearFaults()
		w.mu.Lock()
		defer w.mu.Unlock()
		d.Until = time.Now()
	}
}

// cloudsEnd is later than any world ends.
const cloudsEnd = 10 * 365 * 24 * time.Hour

// disturb notes that a call goes wrong.
func (w *World) disturb(f *faults.Fault) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disturbances = append(w.disturbances, &Disturbance{At: now, Until: now.Add(f.Delay)})
}

// Purge deletes and purges a secret, as somebody with all rights can. One that is not
// there stays so.
func (w *World) Purge(name string) {
	if w.Cloud.Vault.Delete(name) == nil {
		_ = w.Cloud.Vault.Purge(name) // there is no purge protection here
	}
}

// Refusal is something that refuses for long.
type Refusal struct {
	At, Until time.Time
	// Scope is that of the event which tells it. The bus' own is told when it is over, by
	// the log and by health before.
	Scope string
	// MayPass: it is of a class that may pass by itself.
	MayPass bool
	// Prevents: while it lasts no PAT can be made and stored.
	Prevents bool
}

// Refuse makes calls fail from now on until it is ended.
func (w *World) Refuse(r Refusal, fs ...faults.Fault) (end func()) {
	r.At, r.Until = time.Now(), time.Now().Add(cloudsEnd)
	w.mu.Lock()
	w.refusals = append(w.refusals, &r)
	w.mu.Unlock()
	over := w.Outage(fs...)
	return func() {
		over()
		w.mu.Lock()
		defer w.mu.Unlock()
		r.Until = time.Now()
	}
}
