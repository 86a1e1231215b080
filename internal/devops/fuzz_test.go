package devops

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

func FuzzTimes(f *testing.F) {
	for _, s := range []string{`"2027-01-15T09:30:00Z"`, `"2026-11-20T08:11:02.4466667"`, `"0001-01-01T00:00:00"`,
		`null`, `""`, `"soon"`, `7`, `"9999-12-31T23:59:59.9999999+14:00"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again moment
		if m.UnmarshalJSON(b) != nil {
			return
		}
		if m.Location() != time.UTC {
			t.Fatalf("%s is not in UTC", m)
		}
		text, err := json.Marshal(m.Format("2006-01-02T15:04:05.999999999"))
		if err != nil {
			t.Fatal(err)
		}
		if y := m.Year(); y < 0 || y > 9999 { // a zone may push year 9999 over
			return
		}
		if err := again.UnmarshalJSON(text); err != nil || !again.Equal(m.Time) {
			t.Fatalf("%s became %s without its zone: %v", m, again, err)
		}
	})
}

func FuzzResults(f *testing.F) {
	f.Add([]byte(`{"patToken":{"displayName":"a","scope":"vso.code","targetAccounts":null,"authorizationId":"1",
		"validFrom":"2026-11-20T08:11:02Z","validTo":"2027-01-15T09:30:00Z","token":"t"},"patTokenError":"none"}`))
	f.Add([]byte(`{"patToken":null,"patTokenError":"fullScopePatPolicyViolation","patTokenErrorMessage":null}`))
	f.Add([]byte(`{"patToken":{},"patTokenError":12}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r patResult
		if json.Unmarshal(b, &r) != nil {
			return
		}
		if r.Error != "" && !isWord(string(r.Error), 50) && !strings.HasPrefix(string(r.Error), "error") {
			t.Fatalf("patTokenError %q", r.Error)
		}
		if r.PAT != nil {
			if p, err := r.PAT.pat(); err == nil && (p.AuthorizationID == "" || p.ValidTo.IsZero()) {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func FuzzPages(f *testing.F) {
	f.Add([]byte(`{"continuationToken":"","patTokens":[
		{"authorizationId":"1","validTo":"2027-01-15T09:30:00","scope":" a  b a "}]}`))
	f.Add([]byte(`{"continuationToken":null,"patTokens":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var page pagedPATs
		if json.Unmarshal(trimBOM(b), &page) != nil {
			return
		}
		for _, w := range page.PATs {
			p, err := w.pat()
			if err != nil {
				continue
			}
			for i, scope := range p.Scopes {
				if scope == "" || i > 0 && p.Scopes[i-1] >= scope {
					t.Fatalf("scopes %q", p.Scopes)
				}
			}
		}
	})
}

func FuzzErrors(f *testing.F) {
	f.Add([]byte(`{"message":"TF400813: no","typeName":"A.B.C, A","typeKey":"InvalidAccessException"}`), "")
	f.Add([]byte(`{"count":1,"value":{"Message":"VS403403"}}`), "TF400898%3A")
	f.Add([]byte(`{"count":1,"value":[]}`), "")
	f.Add([]byte(`<html>TF400813</html>`), "TF1")
	f.Fuzz(func(t *testing.T, b []byte, header string) {
		e := decodeError(b, header)
		if e.typeKey != "" && (!isWord(e.typeKey, 60) || !strings.HasSuffix(e.typeKey, "Exception")) {
			t.Fatalf("typeKey %q", e.typeKey)
		}
		if e.number != "" && (len(e.number) < 7 || len(e.number) > 10) {
			t.Fatalf("number %q", e.number)
		}
	})
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="", error="insufficient_claims", claims="eyJhIjoxfQ=="`)
	f.Add(`Bearer error="insufficient_claims", claims="`)
	f.Add(`Basic realm="x"`)
	f.Fuzz(func(t *testing.T, v string) {
		if c := challenge(http.Header{"Www-Authenticate": {v}}); c != "" && !json.Valid([]byte(c)) {
			t.Fatalf("claims %q", c)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("30", "", 429)
	f.Add("Fri, 20 Nov 2026 10:00:00 GMT", "", 200)
	f.Add("", "1763632800", 429)
	f.Fuzz(func(t *testing.T, after, reset string, status int) {
		h := http.Header{"Retry-After": {after}, "X-Ratelimit-Reset": {reset}}
		if d := wait(h, status, time.Unix(1763632000, 0)); d < 0 || d > maxPause {
			t.Fatalf("%v", d)
		}
	})
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte(`{"count":1,"value":[{"subjectKind":"user","principalName":"ada@contoso.com","mailAddress":null,
		"displayName":"Ada","origin":"aad","descriptor":"aad.Zm9v"}]}`), "ada@contoso.com")
	f.Add([]byte(`{"value":null}`), "")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		var page graphUsers
		if json.Unmarshal(trimBOM(b), &page) != nil {
			return
		}
		for _, w := range page.Users {
			u := w.user()
			if u.Is(" ") {
				t.Fatalf("%+v is nobody", u)
			}
			name = strings.TrimSpace(name)
			isAddress := strings.EqualFold(name, u.PrincipalName) || strings.EqualFold(name, u.MailAddress)
			if u.Is(name) && !isAddress && name != u.Descriptor {
				t.Fatalf("%q is %+v", name, u)
			}
			if isDescriptor(u.Descriptor) && strings.ContainsAny(u.Descriptor, "/?#%\\ ") {
				t.Fatalf("descriptor %q", u.Descriptor)
			}
		}
	})
}

func FuzzSessions(f *testing.F) {
	f.Add([]byte(`{"value":[{"authorizationId":"5d1f0b7e-33c0-4f2b-9c55-0a6f1e2d3c44","displayName":null,
		"validFrom":"2026-10-01T00:00:00","validTo":"2027-01-01T00:00:00","scope":"vso.build vso.code",
		"targetAccounts":["7c1d"],"token":null,"isValid":true,"isPublic":false}],"continuationToken":null}`))
	f.Add([]byte(`{"value":[{"isValid":null,"validTo":"0001-01-01T00:00:00"}],
		"continuationToken":"5d1f0b7e-33c0-4f2b-9c55-0a6f1e2d3c44"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var page sessionPage
		if json.Unmarshal(trimBOM(b), &page) != nil {
			return
		}
		now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
		for _, w := range page.Sessions {
			p, err := w.pat()
			if err == nil && p.AuthorizationID == "" {
				t.Fatalf("%+v", p)
			}
			if !w.valid(now) {
				continue
			}
			if w.IsPublic {
				t.Fatalf("%+v is an SSH key, and taken for a valid PAT", w)
			}
			if w.IsValid != nil && !*w.IsValid {
				t.Fatalf("%+v is taken for valid", w)
			}
			if !p.ValidTo.IsZero() && !p.ValidTo.After(now) {
				t.Fatalf("%+v has ended, and is taken for valid", w)
			}
		}
	})
}

func FuzzAuditLogs(f *testing.F) {
	f.Add([]byte(`{"decoratedAuditLogEntries":[{"actionId":"Token.PatCreateEvent","timestamp":"2026-11-20T08:11:02Z",
		"data":{"DisplayName":"ci"}}],"hasMore":false,"continuationToken":null}`))
	f.Add([]byte(`{"value":{"decoratedAuditLogEntries":[{"actionId":"Git.X","data":{"DisplayName":7}}],
		"hasMore":true,"continuationToken":"x"}}`))
	f.Add([]byte(`{"value":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var page auditPage
		if json.Unmarshal(trimBOM(b), &page) != nil {
			return
		}
		for _, w := range page.Entries {
			e, ok := w.entry()
			if name, token := strings.CutPrefix(e.Action, "Token."); ok && (!token || !isWord(name, 50)) {
				t.Fatalf("%+v", e)
			}
		}
	})
}
