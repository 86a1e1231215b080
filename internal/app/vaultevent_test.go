package app

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// Key Vault's own samples, and what else the schemas permit.
var vaultEventSamples = []struct {
	name, body string
	want       []vaultEvent
}{
	{"CloudEvents", `{"id":"1","source":"/subscriptions/x","subject":"jenkins-agents","specversion":"1.0",
		"type":"Microsoft.KeyVault.SecretNearExpiry","time":"2026-11-03T07:00:00Z",
		"data":{"Id":"https://contoso.vault.azure.net/secrets/jenkins-agents/ABC123","VaultName":"contoso",
		"ObjectType":"Secret","ObjectName":"jenkins-agents","Version":"abc123","NBF":1559081980,"EXP":1559082102}}`,
		[]vaultEvent{{"secretnearexpiry", "jenkins-agents", "abc123", "contoso"}}},
	{"Event Grid in an array, with the blanks of the published sample", `[{"id":"1","topic":"/subscriptions/x",
		"subject":"nuget","eventType":"Microsoft.KeyVault.SecretNewVersionCreated","dataVersion":"1",
		"data":{"VaultName":"contoso","ObjectName ":"nuget","Version":" ee059b2bb5bc48398a53b168c6cdcb10",
		"NBF":"1559081980","EXP":null}}]`,
		[]vaultEvent{{"secretnewversioncreated", "nuget", "ee059b2bb5bc48398a53b168c6cdcb10", "contoso"}}},
	{"lower camel case", `{"type":"Microsoft.KeyVault.SecretExpired",
		"data":{"id":"https://contoso.vault.azure.net/secrets/a/b","vaultName":"contoso","objectName":"a",
		"version":"b"}}`,
		[]vaultEvent{{"secretexpired", "a", "b", "contoso"}}},
	{"the identifier counts before its parts", `{"type":"Microsoft.KeyVault.SecretExpired","subject":"other",
		"data":{"Id":"https://contoso.vault.azure.net/secrets/a/b","Version":"zz"}}`,
		[]vaultEvent{{"secretexpired", "a", "b", "contoso"}}},
	{"two at once", `[{"type":"Microsoft.KeyVault.SecretExpired","subject":"a","data":{"Version":"1"}},
		{"type":"Microsoft.KeyVault.SecretExpired","subject":"b","data":{"Version":"2"}}]`,
		[]vaultEvent{
			{Type: "secretexpired", Secret: "a", Version: "1"},
			{Type: "secretexpired", Secret: "b", Version: "2"},
		}},
	{"a byte order mark", "\xef\xbb\xbf" +
		`{"type":"Microsoft.KeyVault.SecretExpired","subject":"a","data":{"Version":"1"}}`,
		[]vaultEvent{{Type: "secretexpired", Secret: "a", Version: "1"}}},
	{"another service's event", `{"type":"Microsoft.Storage.BlobCreated","subject":"a","data":{}}`, nil},
	{"no data", `{"type":"Microsoft.KeyVault.SecretExpired","subject":"a"}`, nil},
	{"no version", `{"type":"Microsoft.KeyVault.SecretExpired","subject":"a","data":{}}`, nil},
	{"no secret", `{"type":"Microsoft.KeyVault.SecretExpired","data":{"Version":"1"}}`, nil},
	{"broken JSON", `{"type":`, nil},
	{"broken array", `[{"type":`, nil},
	{"a number", `7`, nil},
	{"null", `null`, nil},
	{"empty", ``, nil},
}

func TestVaultEventsAreReadInEveryFormThatIsSent(t *testing.T) {
	t.Parallel()
	for _, tc := range vaultEventSamples {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeVaultEvents([]byte(tc.body))
			if tc.want == nil {
				if !errors.Is(err, errNotAVaultEvent) {
					t.Errorf("got %v and error %v, want it refused", got, err)
				}
				return
			}
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v and error %v, want %v", got, err, tc.want)
			}
		})
	}
}

func FuzzDecodeVaultEvents(f *testing.F) {
	for _, s := range vaultEventSamples {
		f.Add([]byte(s.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := decodeVaultEvents(body)
		if err != nil {
			if !errors.Is(err, errNotAVaultEvent) || len(err.Error()) > 200 {
				t.Fatalf("error %q", err)
			}
			return
		}
		for _, e := range events {
			if e.Secret == "" || e.Version == "" || e.Version != strings.ToLower(e.Version) {
				t.Fatalf("accepted %+v", e)
			}
		}
	})
}
