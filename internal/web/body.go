package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// checkBody refuses a body that the function does not take, or that is no JSON by its own
// word: what a form of another site may send without asking is none.
func checkBody(fn *Function, r *http.Request) *Problem {
	if fn.Body == formBody || r.ContentLength == 0 || r.Body == nil {
		return nil
	}
	if r.ContentLength < 0 && isEmpty(r) {
		return nil // sent in pieces, of which there are none
	}
	if fn.Body == noBody {
		return badBody("This function takes no body.")
	}
	for _, coding := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return mediaType("It is compressed (Content-Encoding): send it as it is.")
		}
	}
	kinds := r.Header.Values("Content-Type")
	if len(kinds) != 1 {
		return mediaType("Say once what it is: Content-Type: application/json.")
	}
	kind, parameters, err := mime.ParseMediaType(kinds[0])
	if err != nil || kind != "application/json" {
		return mediaType("It must be sent as application/json.")
	}
	if charset := parameters["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return mediaType("JSON is sent in UTF-8, and Content-Type names another charset.")
	}
	return nil
}

func mediaType(detail string) *Problem {
	return &Problem{Status: http.StatusUnsupportedMediaType, Type: typeMediaType, Title: "The body cannot be used",
		Detail: detail}
}

// isEmpty looks for the first byte of a body of unknown length, and puts it back.
func isEmpty(r *http.Request) bool {
	first := make([]byte, 1)
	n, err := io.ReadFull(r.Body, first)
	r.Body = &putBack{Reader: io.MultiReader(bytes.NewReader(first[:n]), r.Body), Closer: r.Body}
	return n == 0 && errors.Is(err, io.EOF)
}

type putBack struct {
	io.Reader
	io.Closer
}

// readJSON reads an optional JSON object into v.
func readJSON(w http.ResponseWriter, r *http.Request, v any) *Problem {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Problem{Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Title: "The body is too large",
			Detail: "A body may have 64 KiB at most."}
	}
	if err != nil {
		return badBody("It could not be read to its end.")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	if what := noUTF8(text); what != "" {
		return badBody(what)
	}
	if p := checkObject(text); p != nil {
		return p
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return decodingProblem(dec.Decode(v))
}

// noUTF8 says what a text is that is no UTF-8; empty: it is.
func noUTF8(text []byte) string {
	for mark, what := range map[string]string{
		"\x1f\x8b":     "It is compressed with gzip: send it as it is.",
		"\xef\xbb\xbf": "It begins with a byte order mark: send UTF-8 without one.",
		"\xff\xfe":     "It is in UTF-16 or UTF-32: send UTF-8.",
		"\xfe\xff":     "It is in UTF-16: send UTF-8.",
	} {
		if bytes.HasPrefix(text, []byte(mark)) {
			return what
		}
	}
	if !utf8.Valid(text) {
		return "It is not in UTF-8."
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return "It has zero bytes, as UTF-16 and UTF-32 do: send UTF-8."
	}
	return ""
}

// checkObject refuses what is no single JSON object, and a field that is given twice: of
// two values only one would count.
func checkObject(text []byte) *Problem {
	const notOne = "The body must be one JSON object."
	dec := json.NewDecoder(bytes.NewReader(text))
	first, err := dec.Token()
	if err != nil || first != json.Delim('{') {
		return badBody(notOne)
	}
	name, err := repeatedField(dec)
	switch {
	case err != nil:
		return badBody(notOne)
	case name != "":
		return badBody("The field " + clip(name) + " may be given once.")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badBody("Something follows the JSON object.")
	}
	return nil
}

// repeatedField reads an object to its end, whose beginning has been read.
func repeatedField(dec *json.Decoder) (name string, err error) {
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return "", err
		}
		field, _ := key.(string) // it can be nothing else
		folded := strings.ToLower(field)
		if seen[folded] {
			return field, nil
		}
		seen[folded] = true
		if inner, err := repeatedIn(dec); err != nil || inner != "" {
			return inner, err
		}
	}
	_, err = dec.Token()
	return "", err
}

// repeatedIn reads one value.
func repeatedIn(dec *json.Decoder) (name string, err error) {
	value, err := dec.Token()
	if err != nil {
		return "", err
	}
	switch value {
	case json.Delim('{'):
		return repeatedField(dec)
	case json.Delim('['):
		for dec.More() {
			if inner, err := repeatedIn(dec); err != nil || inner != "" {
				return inner, err
			}
		}
		_, err = dec.Token()
	}
	return "", err
}

// decodingProblem says what is wrong with a JSON object.
func decodingProblem(err error) *Problem {
	const timeForm = "A time must be written like 2027-01-31T00:00:00Z: a date alone is not enough."
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return badBody("The field " + clip(e.Field) + " has the wrong type.")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return badBody("This function knows no field " + clip(field) + ".")
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok || strings.HasPrefix(err.Error(), "Time.UnmarshalJSON") {
		return badBody(timeForm)
	}
	return badBody("The body must be one JSON object, with the fields that this function knows.")
}
