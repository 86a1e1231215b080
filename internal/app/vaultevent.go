package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// errNotAVaultEvent says that a message on the vault event queue is none.
var errNotAVaultEvent = errors.New("not an event of Key Vault")

// vaultEvent is what patrol reads of Key Vault's events.
type vaultEvent struct {
	Type    string // lower case, without its prefix: secretnearexpiry, secretexpired, secretnewversioncreated
	Secret  string
	Version string // lower case
	Vault   string // lower case; empty if the event does not say
}

const vaultEventPrefix = "microsoft.keyvault."

// decodeVaultEvents reads CloudEvents 1.0 and the Event Grid schema, one event or an
// array of them. The published samples have keys with trailing and values with
// leading blanks and differ from the schema in case, so keys are compared without
// case and blanks, and the identifier (data.Id) counts before the parts of it.
func decodeVaultEvents(body []byte) ([]vaultEvent, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	if len(body) > 0 && body[0] == '[' {
		var raw []json.RawMessage
		if err := json.Unmarshal(body, &raw); err != nil {
			return nil, fmt.Errorf("%w: broken JSON", errNotAVaultEvent)
		}
		var out []vaultEvent
		for _, r := range raw {
			e, err := decodeVaultEvent(r)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		return out, nil
	}
	e, err := decodeVaultEvent(body)
	if err != nil {
		return nil, err
	}
	return []vaultEvent{e}, nil
}

func decodeVaultEvent(raw []byte) (vaultEvent, error) {
	envelope, err := looseObject(raw)
	if err != nil {
		return vaultEvent{}, err
	}
	kind := looseString(envelope["type"])
	if kind == "" {
		kind = looseString(envelope["eventtype"])
	}
	kind, ours := strings.CutPrefix(strings.ToLower(kind), vaultEventPrefix)
	if !ours {
		return vaultEvent{}, fmt.Errorf("%w: it has another type", errNotAVaultEvent)
	}
	data, err := looseObject(envelope["data"])
	if err != nil {
		return vaultEvent{}, fmt.Errorf("%w: it has no data", errNotAVaultEvent)
	}
	e := vaultEvent{Type: kind, Secret: looseString(envelope["subject"]), Version: looseString(data["version"]),
		Vault: looseString(data["vaultname"])}
	if e.Secret == "" {
		e.Secret = looseString(data["objectname"])
	}
	if u, err := url.Parse(looseString(data["id"])); err == nil {
		parts := strings.Split(strings.Trim(u.Path, "/"), "/")
		if len(parts) == 3 && strings.EqualFold(parts[0], "secrets") {
			e.Secret, e.Version = parts[1], parts[2]
			e.Vault, _, _ = strings.Cut(u.Host, ".")
		}
	}
	e.Version, e.Vault = strings.ToLower(e.Version), strings.ToLower(e.Vault)
	const longestName, longestVersion = 127, 64
	isName := e.Secret != "" && len(e.Secret) <= longestName
	isVersion := e.Version != "" && len(e.Version) <= longestVersion
	if !isName || !isVersion {
		return vaultEvent{}, fmt.Errorf("%w: it names no version of a secret", errNotAVaultEvent)
	}
	return e, nil
}

func looseObject(raw []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		return nil, fmt.Errorf("%w: not a JSON object", errNotAVaultEvent)
	}
	out := make(map[string]json.RawMessage, len(m))
	for k, v := range m {
		out[strings.ToLower(strings.TrimSpace(k))] = v
	}
	return out, nil
}

func looseString(raw []byte) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return strings.TrimSpace(s)
}
