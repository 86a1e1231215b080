// Package eventstest is a patrol for the unit tests of those who consume its events: it
// makes and replaces PATs that exist nowhere, gives out their events as messages, holds
// their values like a vault, answers HTTP requests like an Azure DevOps organization
// that knows them, and judges confirmations.
//
// It must not know Service Bus, Key Vault or any SDK: a test connects it to whatever its
// code reads from.
package eventstest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/events"
)

// Config of a Patrol. The zero value is ready.
type Config struct {
	Vault        string        // host of the vault; default contoso.vault.azure.net
	Organization string        // default contoso
	Overlap      time.Duration // how long a replaced PAT works; default 24 hours
	Lifetime     time.Duration // of a new PAT; default 30 days
	Now          func() time.Time
}

// Patrol is a fake patrol. It may be used from many goroutines at once.
type Patrol struct {
	config Config

	mu   sync.Mutex
	pats map[string][]*version // by PAT, oldest first
}

type version struct {
	id, value, authorization, rotation string
	revokeAt                           time.Time // zero: it is the latest
	revoked                            bool
	switched                           []string // consumers
}

// Message is an event as a subscription delivers it.
type Message struct {
	ID, SessionID, Subject, ContentType string
	Properties                          map[string]any
	Body                                []byte
}

// New makes a patrol without PATs.
func New(c Config) *Patrol {
	if c.Vault == "" {
		c.Vault = "contoso.vault.azure.net"
	}
	if c.Organization == "" {
		c.Organization = "contoso"
	}
	if c.Overlap == 0 {
		c.Overlap = 24 * time.Hour
	}
	if c.Lifetime == 0 {
		c.Lifetime = 30 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Patrol{config: c, pats: map[string][]*version{}}
}

// Rotate gives a PAT its first or next version, and the message that tells it. The PAT
// before it works on until its overlap is over, or Revoke.
func (p *Patrol) Rotate(pat string) Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.config.Now().UTC().Truncate(time.Second)
	made := &version{id: random(16), value: random(26), authorization: random(16), rotation: word(10)}
	d := events.Rotated{PAT: pat, Organization: p.config.Organization, Identity: "build-bot", DisplayName: pat,
		Scopes: []string{"vso.code"}, RotationID: made.rotation, Reason: "provision",
		Secret: events.SecretRef{ID: "https://" + p.config.Vault + "/secrets/" + pat + "/" + made.id, Name: pat,
			Version: made.id},
		AuthorizationID: made.authorization, ValidFrom: now, ValidTo: now.Add(p.config.Lifetime)}
	if before := p.latest(pat); before != nil {
		before.revokeAt = now.Add(p.config.Overlap)
		d.Reason = "expiring"
		d.Previous = &events.Previous{Version: before.id, AuthorizationID: before.authorization,
			RevokeAt: before.revokeAt}
	}
	p.pats[pat] = append(p.pats[pat], made)
	return message(events.NewRotated(events.Source(p.config.Vault), now, d))
}

// Revoke ends the newest replaced PAT that works, and gives the message that tells it;
// false: there is none.
func (p *Patrol) Revoke(pat string) (Message, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	versions := p.pats[pat]
	for i := len(versions) - 2; i >= 0; i-- {
		v := versions[i]
		if !p.works(v) {
			continue
		}
		v.revoked = true
		return message(events.NewRevoked(events.Source(p.config.Vault), p.config.Now().UTC(), events.Revoked{PAT: pat,
			Organization: p.config.Organization, Identity: "build-bot", RotationID: versions[i+1].rotation,
			AuthorizationID: v.authorization, SecretVersion: v.id, Cause: "overlap-ended"})), true
	}
	return Message{}, false
}

// Secret is the latest version of a PAT's secret; false: there is none.
func (p *Patrol) Secret(pat string) (value, id string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.latest(pat)
	if v == nil {
		return "", "", false
	}
	return v.value, v.id, true
}

// Works reports whether Azure DevOps would take a value.
func (p *Patrol) Works(value string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, versions := range p.pats {
		for _, v := range versions {
			if v.value == value {
				return p.works(v)
			}
		}
	}
	return false
}

// ErrProof is given for a confirmation whose proof is not that of its version. The real
// patrol answers it like a right one, and counts it for nothing.
var ErrProof = errors.New("the proof is not that of this version")

// Confirm takes the body of a confirmation as patrol does.
func (p *Patrol) Confirm(body []byte) error {
	c, err := events.DecodeConfirmation(body)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	versions := p.pats[c.PAT]
	i := slices.IndexFunc(versions, func(v *version) bool { return v.id == c.SecretVersion })
	if i < 0 || !c.Proves([]byte(versions[i].value)) {
		return ErrProof
	}
	isNew := !slices.Contains(versions[i].switched, c.Consumer)
	if c.Outcome == events.OutcomeSwitched && isNew {
		versions[i].switched = append(versions[i].switched, c.Consumer)
	}
	return nil
}

// Switched names the consumers that have confirmed the latest version of a PAT.
func (p *Patrol) Switched(pat string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.latest(pat)
	if v == nil {
		return nil
	}
	return slices.Clone(v.switched)
}

// ServeHTTP answers like an Azure DevOps organization: 200 with a PAT that works as the
// password of Basic. Without one, the answer is a redirect to a page to sign in, or 401
// for who asks for it with X-TFS-FedAuthRedirect: Suppress.
func (p *Patrol) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, password, ok := r.BasicAuth()
	switch {
	case ok && p.Works(password):
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(map[string]any{"count": 0, "value": []any{}})
	case strings.EqualFold(r.Header.Get("X-TFS-FedAuthRedirect"), "Suppress"):
		http.Error(w, "TF400813: The user is not authorized to access this resource.", http.StatusUnauthorized)
	case r.URL.Path == "/_signin":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusNonAuthoritativeInfo)
		_, _ = w.Write([]byte("<html><title>Azure DevOps Services | Sign In</title></html>"))
	default:
		http.Redirect(w, r, "/_signin?realm="+r.Host, http.StatusFound)
	}
}

func (p *Patrol) latest(pat string) *version {
	versions := p.pats[pat]
	if len(versions) == 0 {
		return nil
	}
	return versions[len(versions)-1]
}

func (p *Patrol) works(v *version) bool {
	isOver := !v.revokeAt.IsZero() && !p.config.Now().Before(v.revokeAt)
	return !v.revoked && !isOver
}

func message(e events.Event) Message {
	body, err := events.Encode(e)
	if err != nil {
		panic("eventstest: " + err.Error()) // a name that no PAT can have
	}
	return Message{ID: e.MessageID(), SessionID: e.SessionID(), Subject: e.Type, ContentType: events.ContentType,
		Properties: e.Properties(), Body: body}
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// word is like the id of a rotation: letters alone.
func word(length int) string {
	text := base64.StdEncoding.EncodeToString([]byte(random(4 * length)))
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(text))
	return letters[:length]
}
