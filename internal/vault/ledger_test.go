package vault_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
)

func pointers(tags map[string]string) map[string]*string {
	out := map[string]*string{}
	for k, v := range tags {
		out[k] = &v
	}
	return out
}

func TestTagsAreReadTolerantly(t *testing.T) {
	version := strings.Repeat("ab", 16)
	for _, tt := range []struct {
		name    string
		tags    map[string]string
		want    rotation.Ledger
		foreign map[string]string
	}{
		{"nothing", nil, rotation.Ledger{}, nil},
		{
			"everything",
			map[string]string{
				"CredentialId": "auth-2", "ProviderAddress": "https://dev.azure.com/contoso",
				"ValidityPeriodDays": "30",
				"patrol-rotation":    "abcdefghij", "patrol-identity": "build-bot", "patrol-reason": "drift",
				"patrol-previous": "auth-1", "patrol-previous-version": version,
				"patrol-revoke-previous-at": "2027-01-02T03:04:05Z", "patrol-announced-at": "2027-01-02T04:04:05+01:00",
				"patrol-revoked-at": "2027-01-03T00:00:00.5Z",
			},
			rotation.Ledger{
				AuthorizationID: "auth-2", ProviderAddress: "https://dev.azure.com/contoso", ValidityDays: 30,
				RotationID: "abcdefghij", Identity: "build-bot", Reason: rotation.Drift, Previous: "auth-1",
				PreviousVersion:  version,
				RevokePreviousAt: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
				AnnouncedAt:      time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
				RevokedAt:        time.Date(2027, 1, 3, 0, 0, 0, 5e8, time.UTC),
			}, nil,
		},
		{
			"nonsense",
			map[string]string{
				"CredentialId": "line\nbreak", "ValidityPeriodDays": "sixty", "patrol-reason": "Because!",
				"patrol-previous-version":   "../versions",
				"patrol-revoke-previous-at": "tomorrow", "patrol-announced-at": "0001-01-01T00:00:00Z",
				"patrol-revoked-at": "2027-13-01T00:00:00Z",
				"patrol-identity":   "\xff", "ProviderAddress": strings.Repeat("x", 600),
			},
			rotation.Ledger{}, nil,
		},
		{"a negative life", map[string]string{"ValidityPeriodDays": "-1"}, rotation.Ledger{}, nil},
		{"blanks around", map[string]string{"CredentialId": " auth-1 "}, rotation.Ledger{AuthorizationID: "auth-1"},
			nil},
		{"tags of others", map[string]string{"team": "", "credentialid": "x", "patrol-future": "y",
			"CredentialId": "auth-1"}, rotation.Ledger{AuthorizationID: "auth-1"}, map[string]string{"team": "",
			"credentialid": "x", "patrol-future": "y"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, foreign := vault.Decode(pointers(tt.tags))
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if !maps.Equal(foreign, tt.foreign) {
				t.Errorf("foreign %v, want %v", foreign, tt.foreign)
			}
		})
	}
	if _, foreign := vault.Decode(map[string]*string{"team": nil, "CredentialId": nil}); len(foreign) != 0 {
		t.Errorf("tags without a value: %v", foreign)
	}
}

func TestForeignTagsCannotPoseAsTheLedger(t *testing.T) {
	tags, err := vault.Encode("testing", rotation.Ledger{},
		map[string]string{"patrol-revoked-at": "2027-01-01T00:00:00Z", "team": "ci"})
	if err != nil || len(tags) != 1 || *tags["team"] != "ci" {
		t.Errorf("tags %v, %v", tags, err)
	}
}

// FuzzLedger: whatever the tags are, what is read from them is either refused or
// written back such that it reads the same.
func FuzzLedger(f *testing.F) {
	f.Add(`{"CredentialId":"auth-1","ValidityPeriodDays":"30","patrol-reason":"drift"}`)
	f.Add(`{"patrol-revoke-previous-at":"2027-01-02T04:04:05+01:00",
		"patrol-announced-at":"9999-12-31T23:59:59-23:59","team":"ci"}`)
	f.Add(`{"patrol-previous-version":"abababababababababababababababab",
		"patrol-identity":" x ","patrol-rotation":"\u0000"}`)
	f.Add(`{"patrol-revoked-at":"2000-01-01T00:00:00.999999999Z","":"x","CredentialId":null}`)
	f.Fuzz(func(t *testing.T, in string) {
		var tags map[string]*string
		if json.Unmarshal([]byte(in), &tags) != nil {
			return
		}
		l, foreign := vault.Decode(tags)
		out, err := vault.Encode("fuzzing", l, foreign)
		if err != nil {
			if rotation.ClassOf(err) != rotation.Configuration {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		if len(out) > 15 {
			t.Fatalf("%d tags", len(out))
		}
		again, foreignAgain := vault.Decode(out)
		for _, p := range []*time.Time{&l.RevokePreviousAt, &l.AnnouncedAt, &l.RevokedAt} {
			*p = p.Truncate(time.Second)
		}
		if again != l || !reflect.DeepEqual(foreignAgain, foreign) {
			t.Fatalf("read %+v %v, then %+v %v", l, foreign, again, foreignAgain)
		}
	})
}

// FuzzIdentifier: a secret identifier gives a name and a version that are safe in
// a URL's path, or nothing.
func FuzzIdentifier(f *testing.F) {
	f.Add("https://patrol.vault.azure.net/secrets/jenkins-agents/0123456789abcdef0123456789abcdef")
	f.Add("https://patrol.vault.azure.net:443/secrets/jenkins-agents")
	f.Add("https://patrol.vault.azure.net/secrets/../keys")
	f.Add("/secrets/a%2fb/..")
	f.Fuzz(func(t *testing.T, in string) {
		id := azsecrets.ID(in)
		v, ok := vault.Properties(&azsecrets.SecretProperties{ID: &id})
		if ok && (!plain.MatchString(v.Name) || !plain.MatchString("x"+v.ID)) {
			t.Fatalf("%q gave %q, %q", in, v.Name, v.ID)
		}
	})
}

// FuzzErrorBody: whatever a body says, only its inner code is taken from it, and
// nothing from a body that is not an error's.
func FuzzErrorBody(f *testing.F) {
	f.Add(`{"error":{"code":"Forbidden","message":"m","innererror":{"code":"SecretDisabled"}}}`)
	f.Add(`{"error":{"innererror":null}}`)
	f.Add(`<html>`)
	f.Add(`{"error":"text"}`)
	f.Fuzz(func(t *testing.T, in string) {
		inner, message := vault.Details(&azcore.ResponseError{StatusCode: 403,
			RawResponse: &http.Response{StatusCode: 403, Body: io.NopCloser(strings.NewReader(in))}})
		if (inner != "" || message != "") && !json.Valid([]byte(in)) {
			t.Fatalf("%q gave %q, %q", in, inner, message)
		}
	})
}

var plain = regexp.MustCompile("^[0-9a-zA-Z-]{1,127}$")
