package devops

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
	patscopes "github.com/azure-patrol/patrol/internal/scopes"
)

type createRequest struct {
	DisplayName string `json:"displayName"`
	Scope       string `json:"scope"`
	ValidTo     string `json:"validTo"`
	AllOrgs     bool   `json:"allOrgs"`
}

// updateRequest changes a PAT's end; what it does not name stays as it is.
type updateRequest struct {
	AuthorizationID string `json:"authorizationId"`
	ValidTo         string `json:"validTo"`
}

func wireTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

type pagedPATs struct {
	ContinuationToken string     `json:"continuationToken"` // "", null and absent: the last page
	PATs              []patToken `json:"patTokens"`
}

type patResult struct {
	PAT   *patToken `json:"patToken"`
	Error failure   `json:"patTokenError"`
}

type patToken struct {
	DisplayName     string   `json:"displayName"`
	ValidTo         moment   `json:"validTo"`
	Scope           string   `json:"scope"`
	TargetAccounts  []string `json:"targetAccounts"` // null: every organization
	ValidFrom       moment   `json:"validFrom"`
	AuthorizationID string   `json:"authorizationId"`
	Token           sealed   `json:"token"`
}

func (w patToken) pat() (rotation.PAT, error) {
	if w.AuthorizationID == "" || w.ValidTo.IsZero() {
		return rotation.PAT{}, errors.New("a PAT without its id or its end")
	}
	return w.asPAT(), nil
}

func (w patToken) asPAT() rotation.PAT {
	// The manifest's scopes are without those that another one includes, and these
	// are compared with them.
	scopes := strings.Fields(w.Scope)
	included := patscopes.Redundant(scopes)
	scopes = slices.DeleteFunc(scopes, func(s string) bool { return included[s] != "" })
	slices.Sort(scopes)
	return rotation.PAT{
		AuthorizationID: w.AuthorizationID,
		DisplayName:     w.DisplayName,
		Scopes:          slices.Compact(scopes),
		ValidFrom:       w.ValidFrom.Time,
		ValidTo:         w.ValidTo.Time,
		Global:          w.TargetAccounts == nil,
	}
}

type connectionData struct {
	AuthenticatedUser struct {
		ID string `json:"id"`
	} `json:"authenticatedUser"`
}

// sealed takes a token from JSON straight into a Secret.
type sealed struct{ rotation.Secret }

func (s *sealed) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("a token that is not a string") // the decoder's own error could quote it
	}
	s.Secret = rotation.NewSecret(text)
	return nil
}

// moment takes Azure DevOps' times: with a zone or without (UTC then), with
// any number of fractional digits, year 1 for none.
type moment struct{ time.Time }

func (m *moment) UnmarshalJSON(b []byte) error {
	var text *string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("reading a time: %w", errNotATime)
	}
	if text == nil || *text == "" {
		m.Time = time.Time{}
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, *text); err == nil {
			m.Time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("reading a time: %w", errNotATime)
}

var errNotATime = errors.New("not a time")

// failure is a patTokenError: empty if there is none. Values that patrol has never
// heard of stay as they are, if they have the form of a name.
type failure string

func (f *failure) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil:
		*f = ""
	case float64:
		*f = ""
		if v != 0 { // an enumeration that came as a number
			*f = failure(fmt.Sprintf("error%d", int64(v)))
		}
	case string:
		switch {
		case v == "" || strings.EqualFold(v, "none"):
			*f = ""
		case isWord(v, 50): // shorter than any token
			*f = failure(v)
		default:
			*f = "unknownError"
		}
	default:
		*f = "unknownError"
	}
	return nil
}

// serviceError is the body of an error, as far as it could be read.
type serviceError struct {
	typeKey string // JsonReaderException
	number  string // TF400733
	preview bool   // the API version wants -preview, or does not have it
}

// decodeError reads an error's body, and the header that repeats its message.
// Whatever it cannot read it leaves out; a type's name is too short to hold a
// token.
func decodeError(body []byte, header string) serviceError {
	var w struct {
		TypeKey  string          `json:"typeKey"`
		TypeName string          `json:"typeName"`
		Message  string          `json:"message"`
		Value    json.RawMessage `json:"value"`
	}
	// What does not fit a field leaves the others filled.
	_ = json.Unmarshal(body, &w)
	if w.Message == "" && len(w.Value) > 0 {
		var older struct{ Message string }
		_ = json.Unmarshal(w.Value, &older)
		w.Message = older.Message
	}
	if w.TypeKey == "" { // Full.Type.Name, Assembly
		name, _, _ := strings.Cut(w.TypeName, ",")
		w.TypeKey = name[strings.LastIndex(name, ".")+1:]
	}
	var e serviceError
	if isWord(w.TypeKey, 60) && strings.HasSuffix(w.TypeKey, "Exception") {
		e.typeKey = w.TypeKey
	}
	e.number = cmp.Or(number(w.Message), number(header))
	e.preview = e.typeKey == "VssInvalidPreviewVersionException"
	return e
}

// number finds the number of a message, TF400813 or VS403403, in a text.
func number(text string) string {
	for i := 0; i+2 < len(text); i++ {
		if p := text[i : i+2]; p != "TF" && p != "VS" {
			continue
		}
		end := i + 2
		for end < len(text) && isDigit(text[end]) {
			end++
		}
		digits := end - i - 2
		startsWord := i == 0 || !alphanumeric(text[i-1])
		endsWord := end == len(text) || !alphanumeric(text[end])
		isNumber := digits >= 5 && digits <= 8
		if isNumber && startsWord && endsWord {
			return text[i:end]
		}
	}
	return ""
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isWord reports whether s is a name of letters and digits that begins with a
// letter.
func isWord(s string, longest int) bool {
	if s == "" || len(s) > longest {
		return false
	}
	if isDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if !alphanumeric(s[i]) {
			return false
		}
	}
	return true
}

// hasKnownForm reports whether a token has one of the two known forms: 52
// characters of base 32, or 84 with AZDO before the checksum.
func hasKnownForm(token string) bool {
	switch len(token) {
	case 52:
		return strings.Trim(token, "abcdefghijklmnopqrstuvwxyz234567") == ""
	case 84:
		for i := range len(token) {
			if !alphanumeric(token[i]) {
				return false
			}
		}
		return token[76:80] == "AZDO"
	}
	return false
}

func trimBOM(b []byte) []byte { return bytes.TrimPrefix(b, []byte("\ufeff")) }
