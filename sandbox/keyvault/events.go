package keyvault

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schema is the envelope of an event.
type Schema int

const (
	CloudEvents Schema = iota // CloudEvents 1.0
	EventGrid                 // Event Grid's own schema
)

// Fields is how the names and values of an event's data are written: the
// published table, the published samples and the SDKs' models differ.
type Fields int

const (
	// TableFields: ObjectName, numbers for times.
	TableFields Fields = iota
	// SampleFields: "ObjectName " with a blank at its end, a blank before the
	// version, strings for times.
	SampleFields
	// CamelFields: objectName, numbers for times.
	CamelFields
)

// EventFormat is how the vault writes and times its events.
type EventFormat struct {
	Schema Schema
	Fields Fields
	// Array wraps each event in an array.
	Array bool
	// Source is the vault's resource id; empty: one made from its host.
	Source string
	// Delay is the time between a write, or an expiry, and its event.
	Delay time.Duration
	// NearExpiryDelay is when SecretNearExpiry comes for a version that is
	// written with less than 30 days left; 0: 3 minutes.
	NearExpiryDelay time.Duration
	// RearmOnUpdate lets a changed exp of the current version count anew
	// for SecretNearExpiry and SecretExpired.
	RearmOnUpdate bool
}

// Types of events.
const (
	NewVersionCreated = "Microsoft.KeyVault.SecretNewVersionCreated"
	NearExpiry        = "Microsoft.KeyVault.SecretNearExpiry"
	Expired           = "Microsoft.KeyVault.SecretExpired"
)

// nearExpiry is fixed for secrets; it cannot be configured.
const nearExpiry = 30 * 24 * time.Hour

// arm sets the timers of a secret's latest version; written: the version is new.
func (v *Vault) arm(s *secret, written bool) {
	s.disarm()
	if v.cfg.Emit == nil || v.closed {
		return
	}
	ver := s.latest()
	now := time.Now()
	if written {
		v.after(s, ver, NewVersionCreated, v.cfg.Events.Delay)
	}
	if ver.Expires.IsZero() {
		return
	}
	near := ver.Expires.Add(-nearExpiry).Sub(now)
	v.after(s, ver, NearExpiry, max(near, v.cfg.Events.NearExpiryDelay))
	v.after(s, ver, Expired, max(ver.Expires.Sub(now), 0)+v.cfg.Events.Delay)
}

func (s *secret) disarm() {
	for _, t := range s.timers {
		t.Stop()
	}
	s.timers = nil
}

func (v *Vault) after(s *secret, ver *Version, kind string, d time.Duration) {
	var t *time.Timer // the caller holds v.mu until it is set
	t = time.AfterFunc(d, func() {
		v.mu.Lock()
		delete(v.creations, t)
		// The events of expiry are about the current version only.
		current := ver == s.latest() && v.phase(s) == active
		if v.closed || kind != NewVersionCreated && !current {
			v.mu.Unlock()
			return
		}
		v.emitting.Add(1)
		defer v.emitting.Done()
		v.events++
		event := v.event(*ver, kind, v.events)
		v.mu.Unlock()
		v.cfg.Emit(event)
	})
	if kind == NewVersionCreated {
		v.creations[t] = struct{}{}
	} else {
		s.timers = append(s.timers, t)
	}
}

// vaultsOfTheSandbox is the beginning of the resource ids of its vaults.
const vaultsOfTheSandbox = "/subscriptions/00000000-0000-0000-0000-000000000000" +
	"/resourceGroups/sandbox/providers/Microsoft.KeyVault/vaults/"

// event writes one event.
func (v *Vault) event(ver Version, kind string, n int) []byte {
	vault, _, _ := strings.Cut(v.host, ".")
	source := v.cfg.Events.Source
	if source == "" {
		source = vaultsOfTheSandbox + vault
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d", v.cfg.URL, n))
	id := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])

	var data map[string]any
	switch v.cfg.Events.Fields {
	case SampleFields:
		data = map[string]any{
			"Id": ver.URL, "VaultName": vault, "ObjectType": "Secret", "ObjectName ": ver.Name, "Version": " " + ver.ID,
			"NBF": text(ver.NotBefore), "EXP": text(ver.Expires),
		}
	case CamelFields:
		data = map[string]any{
			"id": ver.URL, "vaultName": vault, "objectType": "Secret", "objectName": ver.Name, "version": ver.ID,
			"nbf": seconds(ver.NotBefore), "exp": seconds(ver.Expires),
		}
	default:
		data = map[string]any{
			"Id": ver.URL, "VaultName": vault, "ObjectType": "Secret", "ObjectName": ver.Name, "Version": ver.ID,
			"NBF": seconds(ver.NotBefore), "EXP": seconds(ver.Expires),
		}
	}
	at := time.Now().UTC().Format(time.RFC3339Nano)
	var out any
	if v.cfg.Events.Schema == EventGrid {
		out = map[string]any{
			"id": id, "topic": source, "subject": ver.Name, "eventType": kind, "eventTime": at,
			"data": data, "dataVersion": "1", "metadataVersion": "1",
		}
	} else {
		out = map[string]any{
			"specversion": "1.0", "id": id, "source": source, "subject": ver.Name, "type": kind, "time": at,
			"data": data,
		}
	}
	if v.cfg.Events.Array {
		out = []any{out}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return b
}

func text(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return strconv.FormatInt(t.Unix(), 10)
}
