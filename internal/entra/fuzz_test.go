package entra

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func FuzzCacheDocument(f *testing.F) {
	f.Add(`{"RefreshToken":{"x":{"home_account_id":"h","environment":"login.microsoftonline.com",` +
		`"credential_type":"RefreshToken","client_id":"app","secret":"s"}},` +
		`"AppMetadata":{"y":{"client_id":"app","environment":"login.microsoftonline.com"}}}`)
	f.Add(
		`{"AccessToken":{"a":{}},"RefreshToken":{"x":{"client_id":"app","secret":"s","home_account_id":"h"},"y":7},` +
			`"Account":{"z":{"home_account_id":"h","username":"u"}}}`,
	)
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
			t.Fatal("the same document is taken for a newer one")
		}
		if strings.Contains(out.Reveal(), `"AccessToken":{`) && !strings.Contains(raw, `"AccessToken":{`) {
			t.Fatal("access tokens were kept")
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(
		400,
		`{"error":"invalid_grant","error_description":"AADSTS700082: text","error_codes":[700082],`+
			`"suberror":"token_expired","trace_id":"0a-1b"}`,
		"17",
	)
	f.Add(400, `{"error":"invalid_grant","error_description":"AADSTS50173: text"}`, "")
	f.Add(429, `<html>`, "Wed, 21 Oct 2099 07:28:00 GMT")
	f.Add(503, ``, "-1")
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		resp := &http.Response{
			StatusCode: status,
			Body:       io.NopCloser(strings.NewReader(body)),
			Header:     http.Header{"Retry-After": {after}},
		}
		r := readRefusal(resp, time.Unix(0, 0))
		switch r.class() {
		case rotation.SignIn, rotation.Transient, rotation.Throttled, rotation.Configuration, rotation.Policy:
		default:
			t.Fatalf("class %q", r.class())
		}
		if r.RetryAfter < 0 || r.RetryAfter > time.Hour {
			t.Fatalf("Retry-After %v", r.RetryAfter)
		}
		if !traceID.MatchString(r.code()) &&
			!word.MatchString(strings.ToLower(strings.ReplaceAll(r.code(), "-", "_"))) {
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

func FuzzCallback(f *testing.F) {
	f.Add("state=s&code=c")
	f.Add(
		"state=s&error=access_denied&error_description=" +
			"AADSTS65004%3A+text+Trace+ID%3A+0a6e9b52-58dd-4d1a-a3c9-b5c1c5b8a0b1",
	)
	f.Add("state=s&error=invalid_request&error_subcode=cancel")
	f.Add("state=s&admin_consent=True&tenant=t&scope=x")
	f.Add("error=%00&error=&code=")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		c, err := ReadCallback(v)
		if err != nil {
			if e := rotation.AsError(err); e == nil || e.Code != codeCallback {
				t.Fatalf("%v", err)
			}
			return
		}
		answers := 0
		for _, has := range []bool{!c.Code.Empty(), c.AdminConsent, c.Refused != nil} {
			if has {
				answers++
			}
		}
		if answers != 1 || c.State == "" {
			t.Fatalf("%d answers, state %q", answers, c.State)
		}
		if e := c.Refused; e != nil {
			if e.Message == "" {
				t.Fatalf("%s has no message", e.Code)
			}
			if !regexp.MustCompile(`^(AADSTS\d{1,9}|[a-z0-9_]{1,64})$`).MatchString(e.Code) {
				t.Fatalf("code %q", e.Code)
			}
			if e.ActivityID != "" && !traceID.MatchString(e.ActivityID) {
				t.Fatalf("activity id %q", e.ActivityID)
			}
			switch e.Class {
			case rotation.SignIn, rotation.Policy, rotation.Configuration, rotation.Transient:
			default:
				t.Fatalf("class %q", e.Class)
			}
		}
	})
}

func FuzzClaimsTags(f *testing.F) {
	f.Add(`{"access_token":{"capolids":{"essential":true,"values":["x"]}}}`)
	f.Add(`{"a":"` + strings.Repeat("b", 600) + `"}`)
	f.Add(`{"a":"` + strings.Repeat("b", 248) + `"}`) // exactly one tag
	f.Add(`{ "a" : "ä" }`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, claims string) {
		tags := map[string]string{"owner": "team-a", tagClaims: "old", claimsTag(3): "old"}
		putClaims(tags, claims)
		if tags["owner"] != "team-a" || len(tags) > 1+maxClaimTags {
			t.Fatalf("tags %v", tags)
		}
		for _, v := range tags {
			if len(v) > maxTag || strings.Contains(v, "old") && !strings.Contains(claims, "old") {
				t.Fatalf("tags %v", tags)
			}
		}
		var compact bytes.Buffer
		if got := claimsIn(tags); got != "" &&
			(json.Compact(&compact, []byte(claims)) != nil || got != compact.String()) {
			t.Fatalf("%q became %q", claims, got)
		}
	})
}

func FuzzClaimsIn(f *testing.F) {
	f.Add(`{"a":1}`, "")
	f.Add(strings.Repeat("x", 256), `"}`)
	f.Fuzz(func(t *testing.T, one, two string) {
		if got := claimsIn(map[string]string{claimsTag(0): one, claimsTag(1): two}); got != "" && !isJSONObject(got) {
			t.Fatalf("%q", got)
		}
	})
}

func FuzzIDToken(f *testing.F) {
	b64 := base64.RawURLEncoding.EncodeToString
	f.Add(
		"e30." + b64(
			[]byte(
				`{"aud":"app","iss":"https://login.microsoftonline.com/t/v2.0","tid":"t","oid":"o",`+
					`"preferred_username":"u@x","nonce":"n","idp":"https://sts.windows.net/other/","acct":1}`,
			),
		) + ".sig",
	)
	f.Add("e30." + b64([]byte(`{"acct":"1","tid":7}`)) + ".")
	f.Add("..")
	f.Add("")
	f.Fuzz(func(t *testing.T, raw string) {
		id, err := decodeIDToken(raw)
		if err != nil && !reflect.DeepEqual(id, idToken{}) {
			t.Fatalf("%+v was read with %v", id, err)
		}
		if err != nil && len(raw) > 20 && strings.Contains(err.Error(), raw) {
			t.Fatalf("the error quotes the token: %v", err)
		}
		_ = id.isGuest()
		if name := printable(id.Name); name != "" && (name != id.Name || strings.ContainsAny(name, "<>\"\n\x00")) {
			t.Fatalf("%q", name)
		}
	})
}
