package devops

import (
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// answer is how one request is answered.
type answer struct {
	s        *Service
	w        http.ResponseWriter
	r        *http.Request
	switches Switches
}

func (a *answer) json(status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only this package's own types come here
	}
	if a.switches.BOM {
		b = append([]byte("\ufeff"), b...)
	}
	a.w.Header().Set("Content-Type", "application/json; charset=utf-8; api-version="+a.r.URL.Query().Get("api-version"))
	a.w.WriteHeader(status)
	_, _ = a.w.Write(b)
}

func (a *answer) html(status int, text string) {
	a.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	a.w.WriteHeader(status)
	_, _ = a.w.Write([]byte("<!DOCTYPE html><html><head><title>Azure DevOps Services</title></head><body>" +
		html.EscapeString(text) + "</body></html>"))
}

// wireError is the body of an error.
type wireError struct {
	ID               string         `json:"$id"`
	CustomProperties map[string]any `json:"customProperties,omitempty"`
	InnerException   *string        `json:"innerException"`
	Message          string         `json:"message"`
	TypeName         string         `json:"typeName"`
	TypeKey          string         `json:"typeKey"`
	ErrorCode        int            `json:"errorCode"`
	EventID          int            `json:"eventId"`
}

func (a *answer) problem(status int, typeKey, message string) {
	a.fail(status, wireError{TypeKey: typeKey, Message: message})
}

// fail answers an error: as JSON, or as a page to those who do not ask for
// JSON. The header repeats the message.
func (a *answer) fail(status int, e wireError) {
	e.ID, e.TypeName, e.EventID = "1", "Microsoft.TeamFoundation.Framework.Server."+e.TypeKey+
		", Microsoft.TeamFoundation.Framework.Server", 3000
	a.w.Header().Set("X-TFS-ServiceError", url.QueryEscape(e.Message))
	if !strings.Contains(a.r.Header.Get("Accept"), "json") {
		a.html(status, e.Message)
		return
	}
	a.json(status, e)
}

func signInPage(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusNonAuthoritativeInfo)
	_, _ = io.WriteString(w, "<!DOCTYPE html><html><head><title>Azure DevOps Services | Sign In</title></head>"+
		"<body>Sign in</body></html>")
}

// tick rounds a time as the service's database does: to 1/300 of a second.
func tick(t time.Time) time.Time {
	t = t.UTC()
	ticks := (int64(t.Nanosecond())*300 + int64(time.Second)/2) / int64(time.Second)
	// 7 digits, the last one rounded: .1466667
	return t.Truncate(time.Second).Add(time.Duration((ticks*10_000_000+150)/300) * 100)
}

// stamp writes a time of the PAT lifecycle API: up to seven digits, trailing
// zeros trimmed, Z.
type stamp time.Time

func (t stamp) MarshalJSON() ([]byte, error) {
	return []byte(`"` + time.Time(t).UTC().Format("2006-01-02T15:04:05.9999999") + `Z"`), nil
}

// zoneless writes a time of the token administration API, which has no zone.
type zoneless time.Time

func (t zoneless) MarshalJSON() ([]byte, error) {
	return []byte(`"` + time.Time(t).UTC().Format("2006-01-02T15:04:05.9999999") + `"`), nil
}

// wirePAT is a PatToken.
type wirePAT struct {
	DisplayName     string   `json:"displayName"`
	ValidTo         stamp    `json:"validTo"`
	Scope           string   `json:"scope"`
	TargetAccounts  []string `json:"targetAccounts"`
	ValidFrom       stamp    `json:"validFrom"`
	AuthorizationID string   `json:"authorizationId"`
	Token           *string  `json:"token"`
}

func (p *pat) wire() *wirePAT {
	w := &wirePAT{
		DisplayName: p.DisplayName, ValidTo: stamp(p.ValidTo), Scope: strings.Join(p.Scopes, " "),
		ValidFrom: stamp(p.ValidFrom), AuthorizationID: p.AuthorizationID,
	}
	if !p.Global {
		w.TargetAccounts = []string{p.org.id}
	}
	return w
}

// result answers with a PatTokenResult: always 200, whatever the error.
func (a *answer) result(version string, p *wirePAT, failure string) {
	body := map[string]any{"patToken": p, "patTokenError": failure}
	if version == "7.2" {
		body["patTokenErrorMessage"] = nil
		if failure != none {
			body["patTokenErrorMessage"] = "The request was refused: " + failure
		}
	}
	a.json(http.StatusOK, body)
}
