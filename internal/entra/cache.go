package entra

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// MSAL's cache as JSON: the same in every language that has an MSAL. patrol
// keeps refresh tokens, accounts and app metadata; without the latter MSAL does
// not look at a refresh token. Entries are kept as they are, known fields or
// not.
type document struct {
	RefreshTokens map[string]json.RawMessage `json:"RefreshToken,omitempty"`
	Accounts      map[string]json.RawMessage `json:"Account,omitempty"`
	AppMetadata   map[string]json.RawMessage `json:"AppMetadata,omitempty"`
	// Public is patrol's own mark: a public client got the refresh token, and
	// Entra refuses a credential with it, though the app may have one.
	Public bool `json:"patrol-public,omitempty"`
}

type cachedToken struct {
	HomeAccountID  string `json:"home_account_id"`
	Environment    string `json:"environment"`
	CredentialType string `json:"credential_type"`
	ClientID       string `json:"client_id"`
	Secret         string `json:"secret"`
}

type cachedAccount struct {
	HomeAccountID  string `json:"home_account_id"`
	LocalAccountID string `json:"local_account_id"`
	Username       string `json:"username"`
}

var errNoRefreshToken = errors.New("no refresh token for this app registration in the cache")

// find returns the refresh token of a client and, if it is known, whose it is.
func (d document) find(clientID string) (t cachedToken, a cachedAccount, err error) {
	for _, raw := range d.RefreshTokens {
		var c cachedToken
		if json.Unmarshal(raw, &c) != nil || !strings.EqualFold(c.ClientID, clientID) {
			continue
		}
		if c.Secret != "" && c.HomeAccountID != "" {
			t = c
		}
	}
	if t.Secret == "" {
		return t, a, errNoRefreshToken
	}
	for _, raw := range d.Accounts {
		var c cachedAccount
		if json.Unmarshal(raw, &c) == nil && c.HomeAccountID == t.HomeAccountID {
			a = c
		}
	}
	return t, a, nil
}

func decode(raw string) (document, error) {
	var d document
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		// The parser's text may quote the document.
		return document{}, errors.New("the cache is not MSAL's JSON")
	}
	return d, nil
}

func (d document) encode() (rotation.Secret, error) {
	raw, err := json.Marshal(d)
	return rotation.NewSecret(string(raw)), err
}

// newer keeps the refresh tokens that are not in before, if there are any: an
// entry that was made by hand stays in MSAL's cache beside the one that
// replaces it, and so does one whose account id has changed.
func (d document) newer(before document) document {
	fresh := map[string]json.RawMessage{}
	for k, raw := range d.RefreshTokens {
		if string(before.RefreshTokens[k]) != string(raw) && !sameToken(before.RefreshTokens[k], raw) {
			fresh[k] = raw
		}
	}
	if len(fresh) > 0 {
		d.RefreshTokens = fresh
	}
	return d
}

func sameToken(a, b json.RawMessage) bool {
	var x, y cachedToken
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x == y
}

// msalCache is the only cache that MSAL sees. It ignores partition keys, which
// MSAL does not use consistently, and holds no access tokens, so that MSAL
// refreshes whenever it is asked. Storing is not its business: MSAL would
// withhold the token that a failed Export came with.
type msalCache struct {
	doc    document
	frozen bool // MSAL's own memory is better than doc: keep it
}

func (m *msalCache) Replace(_ context.Context, c cache.Unmarshaler, _ cache.ReplaceHints) error {
	if m.frozen {
		return nil
	}
	raw, err := json.Marshal(m.doc) // MSAL lets fields alone that it does not know
	if err != nil {
		return fmt.Errorf("filling MSAL's cache: %w", err)
	}
	return c.Unmarshal(raw)
}

func (m *msalCache) Export(_ context.Context, c cache.Marshaler, _ cache.ExportHints) error {
	raw, err := c.Marshal()
	if err != nil {
		return fmt.Errorf("reading MSAL's cache: %w", err)
	}
	d, err := decode(string(raw))
	if err != nil {
		return err
	}
	d.Public = m.doc.Public
	m.doc = d.newer(m.doc)
	return nil
}

func (d document) clone() document {
	return document{maps.Clone(d.RefreshTokens), maps.Clone(d.Accounts), maps.Clone(d.AppMetadata), d.Public}
}
