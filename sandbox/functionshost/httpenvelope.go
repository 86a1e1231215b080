package functionshost

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// serveEnvelope is the default mode for an HTTP function: the request inside an
// envelope, the response built from an output.
func (h *Host) serveEnvelope(w http.ResponseWriter, in *http.Request, f *function, params map[string]*string, level authLevel) {
	r := h.start(f)
	res, err := r.exchange(func() (envelope, error) { return httpEnvelope(f, in, params, level) })
	var answer *httpAnswer
	if err == nil {
		answer, err = httpOutput(f, res)
	}
	if err != nil {
		// Nothing of the handler's reaches the caller.
		_ = r.finish(http.StatusInternalServerError, err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = r.finish(answer.status, nil)
	for name, value := range answer.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body)
}

func httpEnvelope(f *function, in *http.Request, params map[string]*string, level authLevel) (envelope, error) {
	var (
		body    []byte
		hasBody = in.ContentLength > 0 // a chunked upload has no Body
	)
	if hasBody {
		var err error
		if body, err = io.ReadAll(in.Body); err != nil {
			return envelope{}, fmt.Errorf("reading the request's body: %w", err)
		}
	}
	scheme := "http"
	if in.TLS != nil {
		scheme = "https"
	}
	address := scheme + "://" + in.Host + in.URL.EscapedPath()
	if in.URL.RawQuery != "" {
		address += "?" + in.URL.RawQuery
	}
	query := map[string]string{}
	values, _ := url.ParseQuery(in.URL.RawQuery) // what cannot be read is left out
	for k, v := range values {
		query[k] = strings.Join(v, ",")
	}
	lists, headers := map[string][]string{"Host": {in.Host}}, map[string]string{"Host": in.Host}
	for k, v := range in.Header {
		lists[k], headers[k] = v, strings.Join(v, ", ")
	}
	req := map[string]any{
		"Url": address, "Method": in.Method, "Query": query, "Headers": lists, "Params": params,
		"Identities": identities(level),
	}
	media, _, _ := mime.ParseMediaType(in.Header.Get("Content-Type"))
	binary := media == "application/octet-stream" || strings.HasPrefix(media, "multipart/")
	if hasBody {
		if binary {
			req["Body"] = base64.StdEncoding.EncodeToString(body)
		} else {
			req["Body"] = strings.ToValidUTF8(string(body), "\uFFFD")
		}
	}

	// Precedence: route, then query, then body.
	metadata := newMetadata()
	if hasBody && !binary {
		for k, v := range bodyProperties(string(body)) {
			metadata.set(k, v)
		}
	}
	for k, v := range query {
		if !strings.EqualFold(k, "code") {
			metadata.set(k, quoted(v))
		}
	}
	for k, v := range params {
		if v != nil {
			metadata.set(k, quoted(*v))
		}
	}
	metadata.set("Query", query)
	metadata.set("Headers", headers)
	return envelope{Data: map[string]any{f.trigger.Name: req}, Metadata: metadata.finish(f.trigger.Name)}, nil
}

// identities are the claims that a key gives.
func identities(level authLevel) []any {
	return []any{map[string]any{
		"AuthenticationType": "WebJobsAuthLevel",
		"IsAuthenticated":    true,
		"Actor":              nil,
		"BootstrapContext":   nil,
		"Claims": []any{map[string]any{
			"Issuer": "LOCAL AUTHORITY", "OriginalIssuer": "LOCAL AUTHORITY", "Properties": map[string]any{},
			"Type":      "http://schemas.microsoft.com/2017/07/functions/claims/authlevel",
			"Value":     level.String(),
			"ValueType": "http://www.w3.org/2001/XMLSchema#string",
		}},
		"Label":         nil,
		"Name":          nil,
		"NameClaimType": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name",
		"RoleClaimType": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
	}}
}

// metadata is the binding data; its keys compare without case, and keep the
// casing that they came with first.
type metadata struct {
	values map[string]any
	casing map[string]string
}

func newMetadata() *metadata {
	return &metadata{values: map[string]any{}, casing: map[string]string{}}
}

func (m *metadata) set(key string, value any) {
	lower := strings.ToLower(key)
	if known, ok := m.casing[lower]; ok {
		key = known
	} else {
		m.casing[lower] = key
	}
	m.values[key] = value
}

// finish leaves out nulls, the trigger's own value, and keys that end in
// "trigger".
func (m *metadata) finish(triggerName string) map[string]any {
	for k, v := range m.values {
		if v == nil || strings.EqualFold(k, triggerName) || strings.HasSuffix(strings.ToLower(k), "trigger") {
			delete(m.values, k)
		}
	}
	return m.values
}

// httpAnswer is what the caller gets.
type httpAnswer struct {
	status int
	header map[string]string
	body   []byte
}

var errHTTPOutput = errors.New("the http output is neither an object nor a string that holds one")

// httpOutput builds the response out of the handler's result.
func httpOutput(f *function, res *result) (*httpAnswer, error) {
	if f.httpOut == nil {
		return &httpAnswer{status: http.StatusNoContent}, nil
	}
	named := f.httpOut.Name != "$return"
	raw := res.ReturnValue
	if named {
		if res.Outputs == nil {
			return &httpAnswer{status: http.StatusNoContent}, nil
		}
		var ok bool
		if raw, ok = res.Outputs[f.httpOut.Name]; !ok {
			return &httpAnswer{status: http.StatusOK, body: []byte("{}"), header: map[string]string{"Content-Type": "application/json; charset=utf-8"}}, nil
		}
	}
	var text string
	if err := json.Unmarshal(raw, &text); err == nil && len(raw) > 0 && raw[0] == '"' {
		raw = json.RawMessage(text)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%w: %w", ErrResponse, errHTTPOutput)
	}
	get := func(name string) json.RawMessage {
		for k, v := range fields {
			if strings.EqualFold(k, name) && string(v) != "null" {
				return v
			}
		}
		return nil
	}
	a := &httpAnswer{status: http.StatusOK, header: map[string]string{}}
	status := get("statusCode")
	if status == nil && !named {
		status = get("status") // a named binding's "status" is shadowed, and so ignored
	}
	if status != nil {
		n, err := strconv.Atoi(strings.Trim(string(status), `"`))
		if err != nil || n < 200 || n > 999 {
			return nil, fmt.Errorf("%w: the http output's statusCode is no status", ErrResponse)
		}
		a.status = n
	}
	if h := get("headers"); h != nil {
		var headers map[string]any
		dec := json.NewDecoder(bytes.NewReader(h))
		dec.UseNumber()
		if err := dec.Decode(&headers); err != nil {
			return nil, fmt.Errorf("%w: the http output's headers are no object", ErrResponse)
		}
		for k, v := range headers {
			switch v := v.(type) {
			case nil:
				return nil, fmt.Errorf("%w: a header of the http output is null", ErrResponse)
			case string:
				a.header[k] = v
			default:
				s, err := stringified(v)
				if err != nil {
					return nil, fmt.Errorf("%w: a header of the http output has no text", ErrResponse)
				}
				a.header[k] = s
			}
		}
	}
	contentType := ""
	switch body := get("body"); {
	case body == nil:
	case body[0] == '"':
		if err := json.Unmarshal(body, &text); err != nil {
			return nil, fmt.Errorf("%w: the http output's body", ErrResponse)
		}
		a.body, contentType = []byte(text), "text/plain; charset=utf-8"
	default:
		a.body, contentType = body, "application/json; charset=utf-8"
	}
	for k := range a.header {
		if strings.EqualFold(k, "Content-Type") {
			contentType = ""
		}
	}
	if contentType != "" {
		a.header["Content-Type"] = contentType
	}
	return a, nil
}
