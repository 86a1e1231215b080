package functionshost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Names of the headers that the host adds.
const (
	headerVersion      = "X-Azure-Functions-HostVersion"
	headerInvocation   = "X-Azure-Functions-InvocationId"
	headerMSInvocation = "X-Ms-Invocation-Id"
	headerKey          = "X-Functions-Key"
)

// envelope is how timers and messages reach the handler.
type envelope struct {
	Data     map[string]any
	Metadata map[string]any
}

// result is a handler's answer to an envelope. Only the form of its outputs matters: the
// bindings of this host have none.
type result struct {
	Outputs     map[string]json.RawMessage
	Logs        []string
	ReturnValue json.RawMessage
}

// run is one invocation under way.
type run struct {
	h          *Host
	f          *function
	id         string
	started    time.Time
	ctx        context.Context
	cancel     context.CancelFunc
	at         *instance // nil: none was asked
	generation int
}

// start begins an invocation. ctx ends with the host, and at functionTimeout.
func (h *Host) start(f *function) *run {
	r := &run{h: h, f: f, id: newGUID(), started: time.Now()}
	if limit := h.options.functionTimeout; limit > 0 {
		r.ctx, r.cancel = context.WithTimeout(h.callCtx, limit)
	} else {
		r.ctx, r.cancel = context.WithCancel(h.callCtx)
	}
	h.log.Debug(fmt.Sprintf("Executing 'Functions.%s'", f.name), "id", r.id)
	return r
}

// await waits for the handler.
func (r *run) await() error {
	at, err := r.f.group.take()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	r.at = at
	generation, err := at.worker.await(r.ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	r.generation = generation
	return nil
}

// finish ends an invocation. After a time-out the handler is killed and started anew.
func (r *run) finish(status int, err error) error {
	timedOut := r.ctx.Err() != nil && errors.Is(r.ctx.Err(), context.DeadlineExceeded)
	r.cancel()
	if r.at != nil {
		r.at.giveBack()
	}
	if err != nil && timedOut {
		err = fmt.Errorf("%w '%s' (Id: '%s')", ErrFunctionTimeout, r.f.name, r.id)
		r.restartHandler()
	}
	took := time.Since(r.started)
	attrs := []any{"id", r.id, "duration", took}
	if err != nil {
		r.h.log.Error(fmt.Sprintf("Executed 'Functions.%s' (Failed)", r.f.name), append(attrs, "error", err)...)
	} else {
		r.h.log.Info(fmt.Sprintf("Executed 'Functions.%s' (Succeeded)", r.f.name), attrs...)
	}
	if r.h.cfg.OnInvocation != nil {
		r.h.cfg.OnInvocation(Invocation{Function: r.f.name, ID: r.id, Trigger: r.f.trigger.Type,
			Started: r.started, Duration: took, Status: status, Err: err})
	}
	return err
}

// restartHandler ends the process that has not answered in time, after a grace.
func (r *run) restartHandler() {
	if r.generation == 0 {
		return // it was never asked
	}
	r.h.tasks.Go(func() {
		if pause(r.h.listenCtx, timeoutGrace) {
			r.at.worker.restart(r.h.listenCtx, r.generation)
		}
	})
}

// invoke runs a function without an HTTP caller. build makes the envelope; where
// it fails, the trigger could not be bound and the handler is not asked.
func (h *Host) invoke(f *function, build func() (envelope, error)) error {
	r := h.start(f)
	_, err := r.exchange(build)
	return r.finish(0, err)
}

// exchange sends the handler an envelope and reads its answer.
func (r *run) exchange(build func() (envelope, error)) (*result, error) {
	e, err := build()
	if err != nil {
		return nil, fmt.Errorf("binding parameter '%s': %w", r.f.trigger.Name, err)
	}
	if _, ok := e.Metadata["sys"]; !ok { // a body's own "sys" wins
		e.Metadata["sys"] = map[string]any{
			"MethodName": r.f.name,
			"UtcNow":     time.Now().UTC().Format("2006-01-02T15:04:05.9999999Z"),
			"RandGuid":   newGUID(),
		}
	}
	body, err := encodeJSON(map[string]any{"Data": e.Data, "Metadata": e.Metadata})
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	if err := r.await(); err != nil {
		return nil, err
	}
	req, err := r.newRequest(body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	resp, err := r.at.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: reading its response: %w", ErrUnreachable, err)
	}
	res, err := parseResult(resp.StatusCode, resp.Header.Get("Content-Type"), raw)
	if err != nil {
		return nil, err
	}
	if res == nil {
		// Neither completed nor failed: only functionTimeout ends it.
		<-r.ctx.Done()
		return nil, fmt.Errorf("%w: no result (an empty body)", ErrResponse)
	}
	for _, line := range res.Logs {
		r.h.log.Info(line, "category", "function", "function", r.f.name, "id", r.id)
	}
	return res, nil
}

func (r *run) newRequest(body []byte) (*http.Request, error) {
	// A reader of no known length: the host streams its requests.
	reader := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	first, _ := reader()
	req, err := http.NewRequestWithContext(r.ctx, http.MethodPost, r.at.worker.url+"/"+r.f.name, first)
	if err != nil {
		return nil, err
	}
	req.ContentLength = -1
	req.GetBody = reader // 307, 308
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "Azure-Functions-Host/"+r.h.cfg.Version)
	req.Header.Set(headerVersion, r.h.cfg.Version)
	req.Header.Set(headerInvocation, r.id)
	return req, nil
}

// withoutURL takes the URL off an HTTP client's error, which says enough without it.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// parseResult reads an answer to an envelope. A nil result without an
// error is the empty answer that never ends an invocation.
func parseResult(status int, contentType string, body []byte) (*result, error) {
	if status < 200 || status > 299 {
		// Body, outputs and logs are thrown away.
		return nil, fmt.Errorf("%w: response status code does not indicate success: %d (%s)",
			ErrResponse, status, http.StatusText(status))
	}
	if len(body) == 0 {
		return nil, nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" && media != "text/json" {
		return nil, fmt.Errorf("%w: no MediaTypeFormatter is available to read an object from content "+
			"with media type '%s'", ErrResponse, media)
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	var res *result
	// What follows the first value is not read.
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&res); err != nil {
		return nil, fmt.Errorf("%w: the body is not of the form {Outputs, Logs, ReturnValue}", ErrResponse)
	}
	return res, nil
}

// encodeJSON writes JSON as Json.NET does, without HTML escapes.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// stringified is the encoding of everything that is no object, byte array or
// date: the JSON text of the value, as a JSON string.
func stringified(v any) (string, error) {
	b, err := encodeJSON(v)
	return string(b), err
}

// quoted is stringified for a string.
func quoted(s string) string {
	b, _ := encodeJSON(s) // strings always have an encoding
	return string(b)
}

// Date formats of the protocol. Json.NET trims the fraction's zeros.
const (
	dateTime       = "2006-01-02T15:04:05"               // no zone
	dateTimeOffset = "2006-01-02T15:04:05-07:00"         // no fraction
	dateTimeFull   = "2006-01-02T15:04:05.9999999"       // in batches
	offsetFull     = "2006-01-02T15:04:05.9999999-07:00" // in batches and objects
)

// bodyProperties are the top-level properties of a JSON object that the host
// copies into Metadata: all but arrays, scalars turned into .NET strings. A nil
// value stands for null.
func bodyProperties(body string) map[string]any {
	dec := json.NewDecoder(strings.NewReader(body))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil || object == nil {
		return nil
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil // text after the object: no JSON
	}
	out := make(map[string]any, len(object))
	for name, value := range object {
		switch v := value.(type) {
		case []any:
		case map[string]any, nil:
			out[name] = v
		case bool:
			out[name] = quoted(map[bool]string{true: "True", false: "False"}[v])
		case json.Number:
			out[name] = quoted(dotNetNumber(v.String()))
		case string:
			out[name] = quoted(dotNetDate(v))
		}
	}
	return out
}
