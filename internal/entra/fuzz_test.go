package entra

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func FuzzCacheDocument(f *testing.F) {
	seed, err := imported("login.microsoftonline.com", "app", "h", "token").encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Reveal())
	f.Add(`{"AccessToken":{"a":{}},"RefreshToken":{"x":{"client_id":"app","secret":"s","home_account_id":"h"},"y":7},"Account":{"z":{"home_account_id":"h","username":"u"}}}`)
	f.Add(`{"RefreshToken":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, raw string) {
		d, err := decode(raw)
		if err != nil {
			return
		}
		token, _, err := d.find("app")
		if (err == nil) != (token.Secret != "") {
			t.Fatalf("found %v with %v", token.Secret != "", err)
		}
		out, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(out.Reveal())
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		if len(again.newer(d).RefreshTokens) != len(d.RefreshTokens) {
			t.Fatal("the same document looks newer")
		}
		if strings.Contains(out.Reveal(), `"AccessToken":{`) && !strings.Contains(raw, `"AccessToken":{`) {
			t.Fatal("access tokens were kept")
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(400, `{"error":"invalid_grant","error_description":"AADSTS700082: text","error_codes":[700082],"suberror":"token_expired","trace_id":"0a-1b"}`, "17")
	f.Add(400, `{"error":"invalid_grant","error_description":"AADSTS50173: text"}`, "")
	f.Add(429, `<html>`, "Wed, 21 Oct 2099 07:28:00 GMT")
	f.Add(503, ``, "-1")
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		resp := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{"Retry-After": {after}}}
		r := readRefusal(resp, time.Unix(0, 0))
		switch r.class() {
		case rotation.SignIn, rotation.Transient, rotation.Throttled, rotation.Configuration, rotation.Policy:
		default:
			t.Fatalf("class %q", r.class())
		}
		if r.RetryAfter < 0 || r.RetryAfter > time.Hour {
			t.Fatalf("Retry-After %v", r.RetryAfter)
		}
		if !traceID.MatchString(r.code()) && !word.MatchString(strings.ToLower(strings.ReplaceAll(r.code(), "-", "_"))) {
			t.Fatalf("code %q", r.code())
		}
	})
}

func FuzzRequiredTag(f *testing.F) {
	f.Add("AADSTS700082 2026-11-24T00:00:00Z")
	f.Add("AADSTS700082 2026-11-24T00:00:00Z 2026-11-25T00:00:00Z")
	f.Add("wrong-user yesterday")
	f.Fuzz(func(t *testing.T, tag string) {
		r := parseRequired(tag)
		if r == nil {
			return
		}
		again := parseRequired(r.tag())
		if again == nil || again.code != r.code || !again.since.Equal(r.since.Truncate(time.Second)) {
			t.Fatalf("%q became %q", tag, r.tag())
		}
	})
}

func TestRetryAfterIsReadInBothFormsAndBounded(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"17": 17 * time.Second, "0": 0, "-5": 0, "soon": 0, "": 0, "999999": time.Hour,
		"Tue, 24 Nov 2026 12:00:30 GMT": 30 * time.Second, "Tue, 24 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
